//! FineFool, L2, 2-D images: steps that concentrate on the contours that the network looks at. **Our reading.**
//!
//! ```text
//! s = |∇ₓL| summed over the channels and smoothed,  e = Sobel magnitude of x summed over the channels
//! m = φ + (1 − φ)·(s/max s)·(e/max e)                    for each pixel
//! xₜ₊₁ = Π(xₜ + α·m·∇ₓL / ‖m·∇ₓL‖₂)                       until the goal is reached
//! ```
//!
//! Source: Chen et al. 2018, "FineFool: fine object contour attack via attention". Survey: \[23\].
//!
//! Differs from the source: the published description of the update could not be read, only that the perturbation is
//! led by the attention of the network and lies on the contours of the object; the rule above is ours. The attention is
//! the smoothed input gradient instead of a class activation map, because an attack sees no inner values of a model. φ,
//! which lets flat pixels move a little, is ours too.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{ActiveSet, Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Perturbation};

use super::search::Search;
use super::step::ascend;

/// Settings of [`FineFool`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct FineFoolConfig {
    /// Objective to ascend.
    pub loss: Loss,
    /// φ: weight of a pixel without attention or edge; in [0, 1], and 1 is plain PGD.
    pub floor: f32,
    /// Step α as a fraction of epsilon; finite and above 0.
    pub relative_step_size: f32,
    /// Gradient steps; at least 1.
    pub steps: usize,
}

impl Default for FineFoolConfig {
    /// Values chosen here.
    fn default() -> Self {
        Self { loss: Loss::CrossEntropy, floor: 0.1, relative_step_size: 0.1, steps: 40 }
    }
}

/// FineFool; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "FineFoolConfig")]
pub struct FineFool(FineFoolConfig);

impl TryFrom<FineFoolConfig> for FineFool {
    type Error = Error;

    fn try_from(config: FineFoolConfig) -> Result<Self, Error> {
        if !(0.0..=1.0).contains(&config.floor) {
            return Err(Error::invalid("floor", "in [0, 1]", config.floor));
        }
        if !(config.relative_step_size.is_finite() && config.relative_step_size > 0.0) {
            return Err(Error::invalid("relative_step_size", "finite and above 0", config.relative_step_size));
        }
        if config.steps == 0 {
            return Err(Error::invalid("steps", "at least 1", config.steps));
        }
        Ok(Self(config))
    }
}

impl FineFool {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "finefool",
        title: "FineFool (our reading)",
        source: "Chen et al. 2018, FineFool",
        family: "gradient",
        norms: &[Norm::L2],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "steps gradients, 1 query",
        minimum_norm: false,
    };
}

impl Attack for FineFool {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs one gradient query a step and one query a sample.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for anything but images, `[channels, height, width]`.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let threat = problem.threat;
        let &[channels, height, width] = problem.inputs.shape() else {
            return Err(Error::unsupported(
                format!("FineFool on samples of shape {:?}", problem.inputs.shape()),
                "contours need images, [channels, height, width]",
            ));
        };
        let diameter = threat.domain().range() * (threat.domain().elements() as f32).sqrt();
        let size = self.0.relative_step_size * threat.epsilon().min(diameter);
        let search = Search { steering: problem.goal, loss: self.0.loss, steps: self.0.steps };
        let mut active = ActiveSet::new(problem);
        let mut current = problem.inputs.clone();
        search.run(problem, &mut active, &mut current, |gradient, point| {
            let attention = normalised(smoothed(&summed(gradient, channels, f32::abs), height, width));
            let contours = normalised(contours(point, channels, height, width));
            let weighted: Vec<f32> = gradient
                .iter()
                .enumerate()
                .map(|(element, slope)| {
                    let pixel = element % (height * width);
                    let weight = self.0.floor + (1.0 - self.0.floor) * attention[pixel] * contours[pixel];
                    if threat.domain().is_mutable(element) { weight * slope } else { 0.0 }
                })
                .collect();
            ascend(threat, &weighted, size, point);
        })?;
        Ok(active.finish(&current))
    }
}

/// One value a pixel: the sum over the channels of a function of each value.
fn summed(values: &[f32], channels: usize, of: impl Fn(f32) -> f32) -> Vec<f32> {
    let plane = values.len() / channels;
    (0..plane).map(|pixel| (0..channels).map(|channel| of(values[channel * plane + pixel])).sum()).collect()
}

/// Divided by the greatest value; 1 everywhere where all are 0.
fn normalised(mut map: Vec<f32>) -> Vec<f32> {
    let most = map.iter().copied().fold(0.0, f32::max);
    map.iter_mut().for_each(|value| *value = if most > 0.0 { *value / most } else { 1.0 });
    map
}

/// The weighted sum of the 3 × 3 neighbourhood of each pixel; the border is repeated outwards.
fn filtered(map: &[f32], height: usize, width: usize, weights: [[f32; 3]; 3]) -> Vec<f32> {
    (0..height * width)
        .map(|pixel| {
            let (y, x) = (pixel / width, pixel % width);
            let mut sum = 0.0;
            for (dy, row) in weights.iter().enumerate() {
                for (dx, weight) in row.iter().enumerate() {
                    let (near_y, near_x) = ((y + dy).clamp(1, height) - 1, (x + dx).clamp(1, width) - 1);
                    sum += weight * map[near_y * width + near_x];
                }
            }
            sum
        })
        .collect()
}

fn smoothed(map: &[f32], height: usize, width: usize) -> Vec<f32> {
    let binomial = [[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]].map(|row| row.map(|weight| weight / 16.0));
    filtered(map, height, width, binomial)
}

/// Sobel magnitude of each channel, summed.
fn contours(point: &[f32], channels: usize, height: usize, width: usize) -> Vec<f32> {
    let across = [[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]];
    let down = [[-1.0, -2.0, -1.0], [0.0, 0.0, 0.0], [1.0, 2.0, 1.0]];
    let mut magnitude = vec![0.0; height * width];
    for channel in point.chunks_exact(point.len() / channels) {
        let (across, down) = (filtered(channel, height, width, across), filtered(channel, height, width, down));
        for ((sum, across), down) in magnitude.iter_mut().zip(across).zip(down) {
            *sum += across.hypot(down);
        }
    }
    magnitude
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Domain, Goal, Samples, Seed, Task, ThreatModel};
    use nocebo_testkit::models::Linear;
    use nocebo_testkit::suite::{self, Strength};

    fn attack(config: FineFoolConfig) -> FineFool {
        FineFool::try_from(config).unwrap()
    }

    #[test]
    fn passes_the_common_suite() {
        let strength = Strength { linear: 1.1, goals: true };
        assert_eq!(suite::check(&attack(FineFoolConfig::default()), strength), Ok(()));
        let plain = attack(FineFoolConfig { floor: 1.0, ..FineFoolConfig::default() });
        assert_eq!(suite::check(&plain, Strength { linear: 1.05, goals: true }), Ok(()));
    }

    #[test]
    fn changes_the_contour_alone() {
        // Two channels with an edge between the second and the third column; every pixel has the same gradient.
        let domain = Domain::grey_levels(&[2, 3, 5], 255.0).unwrap();
        let model = Linear::new(domain.clone(), Task::Binary { threshold: 4000.0 }, vec![vec![1.0; 30]], vec![0.0]);
        let image = (0..30).map(|at| if at % 5 < 2 { 50.0 } else { 150.0 }).collect();
        let inputs = Samples::new(image, &[2, 3, 5]).unwrap();
        let goal = Goal::Untargeted { labels: suite::decided(&model, &inputs) };
        let threat = ThreatModel::new(Norm::L2, 40.0, domain).unwrap();
        for (floor, elsewhere) in [(0.0, 0.0), (0.5, 0.5)] {
            let config = FineFoolConfig { floor, steps: 1, relative_step_size: 1.0, ..FineFoolConfig::default() };
            let outcome = attack(config).run(&model, &inputs, &goal, &threat, Seed(1)).unwrap();
            let moved: Vec<f32> =
                inputs.row(0).iter().zip(outcome.perturbed_inputs.row(0)).map(|(a, b)| b - a).collect();
            let on_edge = moved[1];
            assert!(on_edge > 0.0);
            for (at, moved) in moved.iter().enumerate() {
                let expected = if [1, 2].contains(&(at % 5)) { on_edge } else { elsewhere * on_edge };
                assert!((moved - expected).abs() < 1e-3, "{at}: {moved} {expected}");
            }
        }
    }

    #[test]
    fn refuses_what_has_no_contours_and_unusable_settings() {
        let domain = Domain::grey_levels(&[3], 255.0).unwrap();
        let model = Linear::new(domain.clone(), Task::Binary { threshold: 0.5 }, vec![vec![1.0; 3]], vec![0.0]);
        let inputs = Samples::new(vec![0.0; 3], &[3]).unwrap();
        let goal = Goal::Untargeted { labels: suite::decided(&model, &inputs) };
        let threat = ThreatModel::new(Norm::L2, 1.0, domain).unwrap();
        let answer = attack(FineFoolConfig::default()).run(&model, &inputs, &goal, &threat, Seed(1));
        assert!(matches!(answer, Err(Error::Unsupported { .. })));
        for text in ["floor = 1.5", "floor = nan", "steps = 0", "relative_step_size = 0.0", "mask = 1"] {
            assert!(toml::from_str::<FineFool>(text).is_err(), "{text}");
        }
    }
}
