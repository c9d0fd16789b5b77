//! Adversarial diffeomorphic deformation: a smooth, invertible flow that misleads.
//!
//! ```text
//! v = G∗up(c)      c a velocity on a coarse grid, G a Gaussian
//! u₀ = v/2⁸,  uₖ₊₁ = uₖ + uₖ∘(id + uₖ)      u₈ the displacement: the exponential of v, by scaling and squaring
//! c ← Π(c + α·g/max|g|),  g = ∇_c L(f(x∘(id + u₈)))      Π scales c until the greatest |v| is within the bound
//! ```
//!
//! Content moves no farther than the greatest velocity, so the bound on v is one on the displacement.
//!
//! Source: Chen et al. 2022, Medical Image Analysis 82:102597 (adversarial chain; the morphing step). Survey: \[24\].
//!
//! Differs from the source: used as an attack on any model, with random restarts, stopping at the first deformation that
//! reaches the goal; the gradient is divided by its greatest magnitude instead of its length, so that a step does not
//! depend on the size of the grid; the unit of the authors' bound of 1.5 is not known to us, ours is an element, or that
//! of `spacing`; signals and volumes are served too.

use std::marker::PhantomData;

use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Perturbation};

use super::flow::Bound;
use super::search::Search;
use crate::transformation::Transformation;
use crate::transformation::distribution::normal;
use crate::transformation::filter::Blur;
use crate::transformation::warp::{Warp, sides_of};

/// Settings of [`Deformation`].
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeformationConfig {
    /// Objective to ascend.
    pub loss: Loss,
    /// Steps of each restart; at least 1.
    pub steps: usize,
    /// Step α as a fraction of the greatest displacement; finite and above 0.
    pub relative_step_size: f32,
    /// Independent searches from random velocities, the first from none; at least 1.
    pub restarts: usize,
    /// Farthest that content may move, in elements or in the unit of `spacing`; finite and above 0.
    pub greatest_displacement: f32,
    /// Distance between elements along each axis, such as millimetres; empty to count elements.
    pub spacing: Vec<f32>,
    /// Elements between two points of the coarse grid; at least 1.
    pub grid_spacing: usize,
    /// Standard deviation of the Gaussian G in elements; 0 to 100.
    pub sigma: f64,
}

impl Default for DeformationConfig {
    /// The bound and G are the source's, with our unit; the grid of a sixteenth of the sides is its too.
    fn default() -> Self {
        Self {
            loss: Loss::CrossEntropy,
            steps: 10,
            relative_step_size: 0.25,
            restarts: 5,
            greatest_displacement: 1.5,
            spacing: Vec::new(),
            grid_spacing: 16,
            sigma: 1.0,
        }
    }
}

/// The deformation attack; holds only settings that have been checked.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "DeformationConfig")]
pub struct Deformation {
    config: DeformationConfig,
    bound: Bound,
}

impl TryFrom<DeformationConfig> for Deformation {
    type Error = Error;

    fn try_from(config: DeformationConfig) -> Result<Self, Error> {
        let counts = [("steps", config.steps), ("restarts", config.restarts), ("grid_spacing", config.grid_spacing)];
        for (field, value) in counts {
            if value == 0 {
                return Err(Error::invalid(field, "at least 1", value));
            }
        }
        if !(config.relative_step_size.is_finite() && config.relative_step_size > 0.0) {
            return Err(Error::invalid("relative_step_size", "finite and above 0", config.relative_step_size));
        }
        if !(0.0..=100.0).contains(&config.sigma) {
            return Err(Error::invalid("sigma", "0 to 100", config.sigma));
        }
        let bound = Bound::check(config.greatest_displacement, &config.spacing)?;
        Ok(Self { config, bound })
    }
}

impl Deformation {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "deformation",
        title: "Adversarial diffeomorphic deformation",
        source: "Chen et al. 2022, Medical Image Analysis 82:102597",
        family: "spatial",
        norms: &[Norm::L0, Norm::L1, Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "restarts · (steps gradients, 1 query)",
        minimum_norm: false,
    };
}

/// Halvings of the velocity before it is squared back.
const HALVINGS: usize = 8;

/// From a coarse velocity (all axes in one row) to a displacement, and back with a gradient.
struct Exponential {
    sides: Vec<usize>,
    coarse: usize,
    up: Warp,
    blur: Blur,
}

impl Exponential {
    fn new(sides: &[usize], grid_spacing: usize, sigma: f64) -> Self {
        let grid: Vec<usize> = sides.iter().map(|side| (side.div_ceil(grid_spacing) + 1).clamp(1, *side)).collect();
        Self {
            sides: sides.to_vec(),
            coarse: grid.iter().product::<usize>() * sides.len(),
            up: Warp::resize(&grid, sides),
            blur: Blur::new(sides, sigma),
        }
    }

    /// The velocity of every element: one row an axis.
    fn velocity(&self, coarse: &[f32]) -> Vec<Vec<f32>> {
        self.rows(&self.blur.apply(&self.up.apply(coarse)))
    }

    fn rows(&self, field: &[f32]) -> Vec<Vec<f32>> {
        field.chunks_exact(self.sides.iter().product()).map(<[f32]>::to_vec).collect()
    }

    /// u₀ … u₈ of a coarse velocity.
    fn stages(&self, coarse: &[f32]) -> Vec<Vec<Vec<f32>>> {
        let mut velocity = self.velocity(coarse);
        velocity.iter_mut().flatten().for_each(|part| *part /= (1 << HALVINGS) as f32);
        let mut stages = vec![velocity];
        for stage in 0..HALVINGS {
            let flow = &stages[stage];
            let moved = Warp::by_flow(&self.sides, flow).apply(&flow.concat());
            let sum: Vec<f32> = flow.iter().flatten().zip(moved).map(|(own, moved)| own + moved).collect();
            stages.push(self.rows(&sum));
        }
        stages
    }

    /// The displacement of a coarse velocity.
    fn displacement(&self, coarse: &[f32]) -> Vec<Vec<f32>> {
        self.stages(coarse).pop().unwrap_or_default()
    }

    /// The gradient by the coarse velocity from that by the displacement.
    fn pull_back(&self, coarse: &[f32], displacement: &[Vec<f32>]) -> Vec<f32> {
        let mut slopes = displacement.concat();
        for flow in self.stages(coarse).iter().take(HALVINGS).rev() {
            let warp = Warp::by_flow(&self.sides, flow);
            let flow = flow.concat();
            let by_values = warp.pull_back(&flow, &slopes);
            let by_positions = warp.pull_back_positions(&flow, &slopes).concat();
            for (slope, (values, positions)) in slopes.iter_mut().zip(by_values.iter().zip(by_positions)) {
                *slope += values + positions;
            }
        }
        for slope in &mut slopes {
            *slope /= (1 << HALVINGS) as f32;
        }
        let zero = vec![0.0; coarse.len()];
        self.up.pull_back(&zero, &self.blur.pull_back(&slopes, &slopes))
    }

    /// Scales a coarse velocity so that none is beyond the bound.
    fn restrict(&self, bound: &Bound, coarse: &mut [f32]) {
        let velocity = self.velocity(coarse);
        let elements = self.sides.iter().product();
        let greatest = (0..elements).map(|element| bound.fraction(&velocity, element)).fold(0.0, f32::max);
        if greatest > 1.0 {
            for part in coarse {
                *part /= greatest;
            }
        }
    }
}

impl Attack for Deformation {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs `steps` gradient queries and one query a sample and restart.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let sides = sides_of("a deformation", problem.inputs.shape())?;
        self.bound.check_axes(sides.len())?;
        let exponential = Exponential::new(sides, self.config.grid_spacing, self.config.sigma);
        let points = exponential.coarse / sides.len();
        let reach: Vec<f32> = (0..exponential.coarse).map(|part| self.bound.along(part / points)).collect();
        Search {
            loss: self.config.loss,
            steps: self.config.steps,
            restarts: self.config.restarts,
            start: |restart, sample| {
                let mut coarse = vec![0.0; exponential.coarse];
                if restart > 0 {
                    let mut generator = problem.seed.stream(restart).for_sample(sample);
                    let size = generator.random::<f32>();
                    for (part, reach) in coarse.iter_mut().zip(&reach) {
                        *part = size * reach * normal(&mut generator);
                    }
                    exponential.restrict(&self.bound, &mut coarse);
                }
                coarse
            },
            warp: |coarse: &Vec<f32>| Warp::by_flow(sides, &exponential.displacement(coarse)),
            step: |coarse: &mut Vec<f32>, positions: &[Vec<f32>]| {
                let slopes = exponential.pull_back(coarse, positions);
                // Slopes by fractions of the bound, so that every unit of distance steps alike.
                let greatest =
                    slopes.iter().zip(&reach).map(|(slope, reach)| (slope * reach).abs()).fold(0.0, f32::max);
                if greatest > 0.0 {
                    for ((part, slope), reach) in coarse.iter_mut().zip(slopes).zip(&reach) {
                        *part += self.config.relative_step_size * reach * (slope * reach / greatest);
                    }
                    exponential.restrict(&self.bound, coarse);
                }
            },
            parameters: PhantomData,
        }
        .run(problem)
    }
}

#[cfg(test)]
mod tests {
    use super::super::flow::least_jacobian;
    use super::*;
    use nocebo_core::{Domain, Goal, Label, Samples, Seed, Task, ThreatModel};
    use nocebo_testkit::models::Linear;
    use nocebo_testkit::suite;

    fn deformation(config: DeformationConfig) -> Deformation {
        Deformation::try_from(config).unwrap()
    }

    #[test]
    fn passes_the_mechanics_of_the_common_suite() {
        let config = DeformationConfig { grid_spacing: 2, ..DeformationConfig::default() };
        assert_eq!(suite::check_mechanics(&deformation(config)), Ok(()));
    }

    fn wave(count: usize) -> Vec<f32> {
        (0..count).map(|at| ((at * 37) % 23) as f32 / 8.0 - 1.4).collect()
    }

    #[test]
    fn a_displacement_stays_within_the_velocity_and_does_not_fold() {
        for (sides, bound) in [(&[12_usize][..], 3.0), (&[9, 12], 3.0), (&[5, 6, 7], 1.5)] {
            let exponential = Exponential::new(sides, 4, 1.0);
            let bound = Bound::check(bound, &[]).unwrap();
            let mut coarse: Vec<f32> = wave(exponential.coarse).iter().map(|part| part * 50.0).collect();
            exponential.restrict(&bound, &mut coarse);
            let flow = exponential.displacement(&coarse);
            let greatest = (0..flow[0].len()).map(|element| bound.fraction(&flow, element)).fold(0.0, f32::max);
            assert!((0.3..=1.0001).contains(&greatest), "{sides:?} {greatest}");
            assert!(least_jacobian(sides, &flow) > 0.0, "{sides:?} {}", least_jacobian(sides, &flow));
        }
    }

    #[test]
    fn a_constant_velocity_is_a_shift() {
        let exponential = Exponential::new(&[6, 6], 3, 1.0);
        let coarse = [vec![0.75; exponential.coarse / 2], vec![-0.5; exponential.coarse / 2]].concat();
        let flow = exponential.displacement(&coarse);
        assert!(flow[0].iter().all(|part| (part - 0.75).abs() < 1e-4));
        assert!(flow[1].iter().all(|part| (part + 0.5).abs() < 1e-4));
    }

    #[test]
    fn the_gradient_agrees_with_central_differences() {
        for sides in [&[8_usize][..], &[5, 6], &[3, 4, 3]] {
            let exponential = Exponential::new(sides, 3, 0.8);
            let coarse: Vec<f32> = wave(exponential.coarse);
            let plane: usize = sides.iter().product();
            let slopes: Vec<Vec<f32>> = (0..sides.len()).map(|axis| wave(plane + axis)[axis..].to_vec()).collect();
            let value = |coarse: &[f32]| -> f64 {
                let flow = exponential.displacement(coarse);
                flow.iter().flatten().zip(slopes.iter().flatten()).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
            };
            let ours = exponential.pull_back(&coarse, &slopes);
            for part in 0..coarse.len() {
                let at = |shift: f32| {
                    let mut moved = coarse.clone();
                    moved[part] += shift;
                    value(&moved)
                };
                let slope = (at(2e-3) - at(-2e-3)) / 4e-3;
                assert!(
                    (slope - f64::from(ours[part])).abs() < 0.02 + 0.02 * slope.abs(),
                    "{sides:?} {part}: {slope} {}",
                    ours[part]
                );
            }
        }
    }

    #[test]
    fn moves_content_to_where_the_model_looks() {
        // A bright spot beside the one place that the model sees.
        let domain = Domain::grey_levels(&[1, 9, 9], 255.0).unwrap();
        let weights = (0..81).map(|at| if at == 40 { 0.1 } else { 0.0 }).collect();
        let model = Linear::new(domain.clone(), Task::Binary { threshold: 0.0 }, vec![weights], vec![-12.0]);
        let spot =
            (0..81_usize).map(|at| 220.0 / (1.0 + ((at / 9).abs_diff(4).pow(2) + (at % 9).abs_diff(6).pow(2)) as f32));
        let samples = Samples::new(spot.collect(), &[1, 9, 9]).unwrap();
        let goal = Goal::Untargeted { labels: vec![Label::Class(0)] };
        let threat = ThreatModel::new(Norm::L1, f32::INFINITY, domain).unwrap();
        let run = |greatest_displacement| {
            let config = DeformationConfig { greatest_displacement, grid_spacing: 3, ..DeformationConfig::default() };
            deformation(config).run(&model, &samples, &goal, &threat, Seed(1)).unwrap().success[0]
        };
        assert!(run(2.5));
        assert!(!run(0.4));
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        for text in ["eps = 1.5", "steps = 0", "grid_spacing = 0", "sigma = -1.0", "greatest_displacement = 0.0"] {
            assert!(toml::from_str::<Deformation>(text).is_err(), "{text}");
        }
    }
}
