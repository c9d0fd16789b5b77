//! VAFA, volumetric adversarial frequency attack, for signals, images and volumes: quantise the cosine coefficients of
//! blocks as badly as allowed. **Our reading.**
//!
//! ```text
//! D  = block-wise cosine coefficients of (x − the middle of the bounds)
//! D' = q·φ(D/q),   φ(u) = ⌊u⌋ + (1 + tanh(k·(u − ⌊u⌋ − 1/2))/(1 − a))/2,  k = log(2/a − 1): rounding with a slope
//! x' = Π(middle + inverse of D')
//! q ← clip(q + step·sign ∂L/∂q, q_min, q_max),   q₀ = q_max;  a falls from 0.1 to 0 over the steps
//! Π  = nearest point of ball ∩ bounds
//! ```
//!
//! The budget is the quantisation table q, as in an image that was compressed too much: it removes detail where it was
//! and adds none where nothing was. Epsilon limits the change as well; set it to infinity to leave only the table.
//!
//! Source: Hanif et al., MICCAI 2023, arXiv:2307.07269, section 2 and the authors' code; the rounding is that of
//! `AdvDrop`, Duan et al. 2021, arXiv:2108.09034.
//!
//! Differs from the source: the perturbed slices are not stretched to the whole range again, which would change every
//! value; the structural similarity term is left out, because `q_max` limits the change; blocks at the far ends of a
//! sample may be smaller; a sample stops at the first point that reaches the goal. Signals and images are ours.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{ActiveSet, Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Perturbation};

use super::cosine::{invert, transform};
use crate::gradient::search::look;

/// Settings of [`Vafa`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct VafaConfig {
    /// Objective to ascend.
    pub loss: Loss,
    /// Greatest quantisation step, in 1/255 of the range of the bounds; finite and at least `q_min`.
    pub q_max: f32,
    /// Least quantisation step, in 1/255 of the range of the bounds; above 0.
    pub q_min: f32,
    /// Change of q in each step, in 1/255 of the range of the bounds; finite and above 0.
    pub q_step: f32,
    /// Side of a block; at least 2.
    pub block: usize,
    /// Gradient steps; at least 1.
    pub steps: usize,
}

impl Default for VafaConfig {
    /// The paper's for `q_max` 20; the other constants are those of the authors' code.
    fn default() -> Self {
        Self { loss: Loss::CrossEntropy, q_max: 20.0, q_min: 5.0, q_step: 1.0, block: 8, steps: 20 }
    }
}

/// VAFA; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "VafaConfig")]
pub struct Vafa(VafaConfig);

impl TryFrom<VafaConfig> for Vafa {
    type Error = Error;

    fn try_from(config: VafaConfig) -> Result<Self, Error> {
        let positive = |field, value: f32| {
            if value.is_finite() && value > 0.0 {
                Ok(())
            } else {
                Err(Error::invalid(field, "finite and above 0", value))
            }
        };
        positive("q_min", config.q_min)?;
        positive("q_max", config.q_max)?;
        positive("q_step", config.q_step)?;
        if config.q_max < config.q_min {
            return Err(Error::invalid("q_max", "at least q_min", config.q_max));
        }
        if config.block < 2 {
            return Err(Error::invalid("block", "at least 2", config.block));
        }
        if config.steps == 0 {
            return Err(Error::invalid("steps", "at least 1", config.steps));
        }
        Ok(Self(config))
    }
}

impl Vafa {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "vafa",
        title: "VAFA: block cosine quantisation (our reading)",
        source: "Hanif et al. 2023, arXiv:2307.07269",
        family: "frequency",
        norms: &[Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "steps gradients, 1 query",
        minimum_norm: false,
    };

    /// Softness a of the rounding before step `step`.
    fn softness(&self, step: usize) -> f64 {
        0.1 * (1.0 - step as f64 / self.0.steps as f64).max(1e-19)
    }
}

/// The rounding φ and its slope. Small `softness` rounds hard.
fn round(value: f64, softness: f64) -> (f64, f64) {
    let steepness = (2.0 / softness - 1.0).ln();
    let tanh = (steepness * (value - value.floor() - 0.5)).tanh();
    let slope = 0.5 * steepness * (1.0 - tanh * tanh) / (1.0 - softness);
    (value.floor() + 0.5 * (1.0 + tanh / (1.0 - softness)), slope)
}

/// What one sample needs: the coefficients of all its blocks, and one quantisation step a coefficient.
struct Quantised {
    coefficients: Vec<f64>,
    table: Vec<f64>,
}

impl Quantised {
    /// The dequantised coefficients.
    fn rounded(&self, softness: f64) -> Vec<f64> {
        self.coefficients.iter().zip(&self.table).map(|(value, q)| q * round(value / q, softness).0).collect()
    }

    /// Derivative of each dequantised coefficient by its q.
    fn slopes(&self, softness: f64) -> impl Iterator<Item = f64> {
        self.coefficients.iter().zip(&self.table).map(move |(value, q)| {
            let (rounded, slope) = round(value / q, softness);
            rounded - value / q * slope
        })
    }
}

/// Applies `map` to each block of each channel, given its values and its shape.
fn for_each_block(values: &mut [f64], space: &[usize], side: usize, map: impl Fn(&mut [f64], &[usize])) {
    let plane: usize = space.iter().product();
    let counts: Vec<usize> = space.iter().map(|length| length.div_ceil(side)).collect();
    for channel in values.chunks_exact_mut(plane) {
        for number in 0..counts.iter().product() {
            let mut rest = number;
            // (start, length) of the block along each axis, the last axis first.
            let mut extent: Vec<(usize, usize)> = space
                .iter()
                .zip(&counts)
                .rev()
                .map(|(length, count)| {
                    let start = rest % count * side;
                    rest /= count;
                    (start, side.min(length - start))
                })
                .collect();
            extent.reverse();
            let shape: Vec<usize> = extent.iter().map(|(_, length)| *length).collect();
            let places: Vec<usize> = (0..shape.iter().product())
                .map(|at| {
                    let (mut rest, mut place, mut stride) = (at, 0, 1);
                    for ((start, length), side) in extent.iter().zip(space).rev() {
                        place += (start + rest % length) * stride;
                        rest /= length;
                        stride *= side;
                    }
                    place
                })
                .collect();
            let mut block: Vec<f64> = places.iter().map(|&place| channel[place]).collect();
            map(&mut block, &shape);
            for (place, value) in places.into_iter().zip(block) {
                channel[place] = value;
            }
        }
    }
}

impl Attack for Vafa {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs one gradient query a step and one query a sample.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for tables, which have no frequencies.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let (threat, domain, inputs) = (problem.threat, problem.threat.domain(), problem.inputs);
        let space = &inputs.shape()[1..];
        if space.is_empty() {
            return Err(Error::unsupported("VAFA on a table", "it needs samples in time or space, [channels, ...]"));
        }
        let level = f64::from(domain.range()) / 255.0;
        let (least, most) = (level * f64::from(self.0.q_min), level * f64::from(self.0.q_max));
        let middle = |element: usize| 0.5 * (f64::from(domain.lower()[element]) + f64::from(domain.upper()[element]));
        let mut samples: Vec<Quantised> = inputs
            .rows()
            .map(|row| {
                let mut values: Vec<f64> =
                    row.iter().enumerate().map(|(element, value)| f64::from(*value) - middle(element)).collect();
                for_each_block(&mut values, space, self.0.block, transform);
                Quantised { table: vec![most; values.len()], coefficients: values }
            })
            .collect();

        let mut active = ActiveSet::new(problem);
        let mut current = inputs.clone();
        for step in 0..=self.0.steps {
            let affordable = active.rows().iter().all(|&row| problem.oracle.remaining(inputs.indices()[row]) > 1);
            if active.is_empty() {
                break;
            }
            for &row in active.rows() {
                let mut values = samples[row].rounded(self.softness(step));
                for_each_block(&mut values, space, self.0.block, invert);
                for (element, value) in values.into_iter().enumerate() {
                    current.row_mut(row)[element] = (value + middle(element)) as f32;
                }
                threat.project_row(inputs.row(row), current.row_mut(row));
            }
            if step == self.0.steps || !affordable {
                break;
            }
            let (points, goal) = (active.gather(&current), active.goal());
            let found = problem.oracle.gradient(&points, &problem.objective(&goal, self.0.loss)?)?;
            let staying = active.keep_reached(&points, &found.outputs);
            for (&row, position) in active.rows().iter().zip(staying) {
                let mut gradient: Vec<f64> = found.inputs.row(position).iter().map(|slope| f64::from(*slope)).collect();
                for (element, slope) in gradient.iter_mut().enumerate() {
                    if !domain.is_mutable(element) {
                        *slope = 0.0;
                    }
                }
                for_each_block(&mut gradient, space, self.0.block, transform);
                let sample = &mut samples[row];
                let slopes: Vec<f64> = sample.slopes(self.softness(step)).collect();
                for ((q, slope), gradient) in sample.table.iter_mut().zip(slopes).zip(gradient) {
                    let ascent = slope * gradient;
                    if ascent != 0.0 {
                        *q = (*q + level * f64::from(self.0.q_step) * ascent.signum()).clamp(least, most);
                    }
                }
            }
        }
        look(problem, &mut active, &current)?;
        Ok(active.finish(&current))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Domain, Goal, Samples, Seed, Task, ThreatModel};
    use nocebo_testkit::models::Linear;
    use nocebo_testkit::suite;

    fn attack(config: VafaConfig) -> Vafa {
        Vafa::try_from(config).unwrap()
    }

    #[test]
    fn passes_the_common_suite() {
        // A table of quantisation steps cannot reach every point: there is no least change to compare with.
        assert_eq!(suite::check_mechanics(&attack(VafaConfig::default())), Ok(()));
        assert_eq!(suite::check_mechanics(&attack(VafaConfig { block: 2, q_max: 90.0, ..Default::default() })), Ok(()));
    }

    #[test]
    fn blocks_cover_every_value_once() {
        for (space, blocks) in [(vec![7], 4), (vec![5, 4], 6), (vec![3, 2, 5], 6)] {
            let count: usize = space.iter().product();
            let mut values: Vec<f64> = (0..2 * count).map(|at| at as f64).collect();
            let seen = std::cell::RefCell::new(Vec::new());
            for_each_block(&mut values, &space, 2, |block, shape| {
                assert_eq!(block.len(), shape.iter().product::<usize>());
                seen.borrow_mut().push(block.to_vec());
                block.iter_mut().for_each(|value| *value += 1000.0);
            });
            assert!(values.iter().enumerate().all(|(at, value)| *value == at as f64 + 1000.0));
            assert_eq!(seen.borrow().len(), 2 * blocks, "{space:?}");
            if space == [5, 4] {
                assert_eq!(seen.borrow()[..2], [vec![0.0, 1.0, 4.0, 5.0], vec![2.0, 3.0, 6.0, 7.0]]);
            }
        }
    }

    #[test]
    fn rounding_is_hard_in_the_end_and_its_slopes_agree_with_differences() {
        for (value, expected) in [(2.4, 2.0), (2.6, 3.0), (-0.4, 0.0), (-1.7, -2.0)] {
            assert!((round(value, 1e-20).0 - expected).abs() < 1e-3, "{value}");
        }
        let sample = |q: f64| Quantised { coefficients: vec![17.0, -40.0, 3.0], table: vec![q; 3] };
        for (at, slope) in sample(12.0).slopes(0.1).enumerate() {
            let (up, down) = (sample(12.0 + 1e-5).rounded(0.1)[at], sample(12.0 - 1e-5).rounded(0.1)[at]);
            assert!((slope - (up - down) / 2e-5).abs() < 1e-5, "{at}");
        }
    }

    /// A logit that is the second cosine coefficient of each of two lines, and a sample in which it is 30 in both.
    fn cosine_case() -> (Linear, Samples, Domain) {
        let domain = Domain::grey_levels(&[1, 2, 8], 255.0).unwrap();
        let wave = |place: usize| (std::f32::consts::PI * (2 * place + 1) as f32 / 16.0).cos() / 2.0;
        let weights = (0..16).map(|at| wave(at % 8)).collect();
        let model = Linear::new(domain.clone(), Task::Binary { threshold: 0.0 }, vec![weights], vec![0.0]);
        let inputs = (0..16).map(|at| 127.5 + 30.0 * wave(at % 8)).collect();
        (model, Samples::new(inputs, &[1, 2, 8]).unwrap(), domain)
    }

    #[test]
    fn drops_the_coefficient_that_matters_when_the_table_allows() {
        // The two lines together hold √2·30 = 42.4 in one coefficient: 0 under a step beyond 84.9, else not below 42.4/2.
        let (model, inputs, domain) = cosine_case();
        assert!((model.logits(inputs.row(0))[0] - 60.0).abs() < 1e-3);
        let goal = Goal::Untargeted { labels: suite::decided(&model, &inputs) };
        let threat = ThreatModel::new(Norm::L2, f32::INFINITY, domain).unwrap();
        let logit = |q_max: f32, q_min: f32, steps: usize| {
            let attack = attack(VafaConfig { q_max, q_min, steps, ..VafaConfig::default() });
            let outcome = attack.run(&model, &inputs, &goal, &threat, Seed(1)).unwrap();
            model.logits(outcome.perturbed_inputs.row(0))[0]
        };
        assert!(logit(100.0, 5.0, 20).abs() < 1.0);
        // With steps of 20 it becomes 2·20 = 40 at first, and 2·q with a smaller q is less: down to q = 17 (2.5 steps).
        let (first, last) = (logit(20.0, 19.9, 20), logit(20.0, 5.0, 20));
        assert!((first - 40.0 * 2.0_f32.sqrt()).abs() < 1.0, "{first}");
        assert!(last < first - 5.0, "{last} {first}");
    }

    #[test]
    fn the_table_limits_the_change() {
        let (model, inputs) = (suite::small_relu(), suite::ct_samples());
        let goal = Goal::Untargeted { labels: suite::decided(&model, &inputs) };
        let threat = ThreatModel::new(Norm::L2, f32::INFINITY, suite::ct_domain()).unwrap();
        for q_max in [6.0, 20.0] {
            let attack = attack(VafaConfig { q_max, ..VafaConfig::default() });
            let outcome = attack.run(&model, &inputs, &goal, &threat, Seed(1)).unwrap();
            // Each of the 12 coefficients moves by at most q/2, or a little more while the rounding is soft.
            let most = 0.56 * f64::from(q_max) * 4095.0 / 255.0 * 12.0_f64.sqrt();
            for (clean, perturbed) in inputs.rows().zip(outcome.perturbed_inputs.rows()) {
                assert!(Norm::L2.distance(clean, perturbed) <= most);
            }
        }
    }

    #[test]
    fn unusable_settings_are_refused() {
        for text in
            ["q_min = 0.0", "q_max = 4.0", "q_max = inf", "block = 1", "steps = 0", "q_step = -1.0", "ssim = true"]
        {
            assert!(toml::from_str::<Vafa>(text).is_err(), "{text}");
        }
    }
}
