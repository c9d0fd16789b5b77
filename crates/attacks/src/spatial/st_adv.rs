//! Spatially transformed adversarial examples (stAdv): a flow that moves every element a little.
//!
//! ```text
//! x′(p) = x(p + u(p)) by bilinear interpolation
//! min over u   max(−margin(f(x′)), −κ) + τ·Σ_p Σ_{q ∈ N(p)} ‖u(p) − u(q)‖₂
//! ```
//!
//! For use on anatomy the flow is also kept within a greatest displacement, and it may not fold: after every step it is
//! smoothed until the determinant of its Jacobian is above a bound everywhere.
//!
//! Source: Xiao et al., ICLR 2018, arXiv:1801.02612, section 3. Survey: \[130\].
//!
//! Differs from the source: Adam instead of L-BFGS; the two bounds on the flow are ours; of all flows that reach the goal
//! the smoothest is returned; signals and volumes are served too.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{
    Attack, AttackInfo, AttackProblem, Error, GoalKind, GoalObjective, Knowledge, Loss, Norm, Objective, Perturbation,
    Samples,
};

use super::flow::{Bound, least_jacobian, roughness};
use super::search::draw;
use crate::adam::Adam;
use crate::transfer::momentum::mask;
use crate::transformation::Transformation;
use crate::transformation::filter::Blur;
use crate::transformation::warp::{Warp, sides_of};

/// Settings of [`StAdv`].
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct StAdvConfig {
    /// Steps of Adam; at least 1.
    pub steps: usize,
    /// Learning rate of Adam in elements; finite and above 0.
    pub learning_rate: f32,
    /// Margin κ beyond which the logits no longer count; finite and at least 0.
    pub confidence: f32,
    /// Weight τ of the roughness of the flow; finite and at least 0.
    pub smoothness: f32,
    /// Farthest that content may move, in elements or in the unit of `spacing`; finite and above 0.
    pub greatest_displacement: f32,
    /// Distance between elements along each axis, such as millimetres; empty to count elements.
    pub spacing: Vec<f32>,
    /// Determinant of the Jacobian that the flow must stay above; 0 forbids folds, −inf allows them; below 1.
    pub least_jacobian: f32,
}

impl Default for StAdvConfig {
    /// κ = 0 and τ = 0.05 are the paper's, the rest is ours.
    fn default() -> Self {
        Self {
            steps: 200,
            learning_rate: 0.05,
            confidence: 0.0,
            smoothness: 0.05,
            greatest_displacement: 3.0,
            spacing: Vec::new(),
            least_jacobian: 0.0,
        }
    }
}

/// stAdv; holds only settings that have been checked.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "StAdvConfig")]
pub struct StAdv {
    config: StAdvConfig,
    bound: Bound,
}

impl TryFrom<StAdvConfig> for StAdv {
    type Error = Error;

    fn try_from(config: StAdvConfig) -> Result<Self, Error> {
        if config.steps == 0 {
            return Err(Error::invalid("steps", "at least 1", config.steps));
        }
        if !(config.learning_rate.is_finite() && config.learning_rate > 0.0) {
            return Err(Error::invalid("learning_rate", "finite and above 0", config.learning_rate));
        }
        for (field, value) in [("confidence", config.confidence), ("smoothness", config.smoothness)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::invalid(field, "finite and at least 0", value));
            }
        }
        if config.least_jacobian.is_nan() || config.least_jacobian >= 1.0 {
            return Err(Error::invalid("least_jacobian", "below 1, the value without a flow", config.least_jacobian));
        }
        let bound = Bound::check(config.greatest_displacement, &config.spacing)?;
        Ok(Self { config, bound })
    }
}

impl StAdv {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "st-adv",
        title: "Spatially transformed adversarial examples (stAdv)",
        source: "Xiao et al. 2018, arXiv:1801.02612",
        family: "spatial",
        norms: &[Norm::L0, Norm::L1, Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "steps gradients, 1 query",
        minimum_norm: false,
    };

    /// Brings a flow within the bound, and smooths it until it does not fold. Smoothing lets the neighbours of an element
    /// that is pulled follow it, which the roughness alone does not: it charges nothing for where they are in between.
    fn allow(&self, sides: &[usize], blur: &Blur, flow: &mut [Vec<f32>]) {
        self.bound.shorten(flow);
        let folds = |flow: &[Vec<f32>]| least_jacobian(sides, flow) <= self.config.least_jacobian;
        for _ in 0..SMOOTHINGS {
            if !folds(flow) {
                return;
            }
            for row in flow.iter_mut() {
                *row = blur.apply(row);
            }
        }
        // Without a flow the determinant is 1.
        if folds(flow) {
            for part in flow.iter_mut().flatten() {
                *part = 0.0;
            }
        }
    }
}

/// Smoothings after which a flow that still folds is given up.
const SMOOTHINGS: usize = 100;

/// The margin of a goal, which no longer counts beyond κ.
struct Cut<'a> {
    margin: GoalObjective<'a>,
    confidence: f32,
}

impl Objective for Cut<'_> {
    fn evaluate(&self, row: usize, outputs: &[f32], cotangent: &mut [f32]) -> Result<f32, Error> {
        let value = self.margin.evaluate(row, outputs, cotangent)?;
        if value > self.confidence {
            cotangent.fill(0.0);
        }
        Ok(value.min(self.confidence))
    }
}

impl Attack for StAdv {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs `steps` gradient queries and one query a sample.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let sides = sides_of("a flow", problem.inputs.shape())?;
        self.bound.check_axes(sides.len())?;
        let plane: usize = sides.iter().product();
        let (batch, clean, task) = (problem.inputs.len(), problem.inputs, &problem.oracle.spec().task);
        let objective =
            Cut { margin: problem.objective(problem.goal, Loss::Margin)?, confidence: self.config.confidence };
        let affordable = |queries: u32| {
            clean
                .indices()
                .iter()
                .map(|&sample| problem.oracle.remaining(sample))
                .min()
                .is_some_and(|left| left >= queries)
        };
        let mut flows = vec![vec![vec![0.0_f32; plane]; sides.len()]; batch];
        let mut adams: Vec<Adam> = (0..batch).map(|_| Adam::new(plane * sides.len())).collect();
        let blur = Blur::new(sides, 1.0);
        let mut points = clean.clone();
        let mut found = Smoothest { points: clean.clone(), roughness: vec![f64::INFINITY; batch] };
        for _ in 0..self.config.steps {
            if !affordable(2) {
                break;
            }
            let gradient = problem.oracle.gradient(&points, &objective)?;
            found.keep(&points, &problem.goal.reached(task, &gradient.outputs), |row| roughness(sides, &flows[row]).0);
            for (row, (flow, adam)) in flows.iter_mut().zip(&mut adams).enumerate() {
                let mut slopes = gradient.inputs.row(row).to_vec();
                mask(problem.threat.domain(), &mut slopes);
                let by_position = Warp::by_flow(sides, flow).pull_back_positions(clean.row(row), &slopes);
                let (_, rough) = roughness(sides, flow);
                let total = by_position.iter().flatten().zip(rough.iter().flatten());
                let smoothness = f64::from(self.config.smoothness);
                let total: Vec<f64> = total.map(|(a, b)| f64::from(*a) - smoothness * f64::from(*b)).collect();
                for (part, move_by) in flow.iter_mut().flatten().zip(adam.direction(&total)) {
                    *part += self.config.learning_rate * move_by as f32;
                }
                self.allow(sides, &blur, flow);
                draw(problem, &Warp::by_flow(sides, flow), row, &mut points);
            }
        }
        if affordable(1) {
            let outputs = problem.oracle.outputs(&points)?;
            found.keep(&points, &problem.goal.reached(task, &outputs), |row| roughness(sides, &flows[row]).0);
        }
        Ok(found.finish(&points))
    }
}

/// The smoothest flow of each sample that reached the goal.
struct Smoothest {
    points: Samples,
    roughness: Vec<f64>,
}

impl Smoothest {
    fn keep(&mut self, points: &Samples, reached: &[bool], roughness: impl Fn(usize) -> f64) {
        for (row, _) in reached.iter().enumerate().filter(|(_, reached)| **reached) {
            let own = roughness(row);
            if own < self.roughness[row] {
                self.roughness[row] = own;
                self.points.copy_row(row, points, row);
            }
        }
    }

    fn finish(mut self, last: &Samples) -> Perturbation {
        let success: Vec<bool> = self.roughness.iter().map(|roughness| roughness.is_finite()).collect();
        for (row, _) in success.iter().enumerate().filter(|(_, done)| !**done) {
            self.points.copy_row(row, last, row);
        }
        Perturbation { inputs: self.points, success }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Domain, Goal, Label, Seed, Task, ThreatModel};
    use nocebo_testkit::models::Linear;
    use nocebo_testkit::suite;

    fn st_adv(config: StAdvConfig) -> StAdv {
        StAdv::try_from(config).unwrap()
    }

    #[test]
    fn passes_the_mechanics_of_the_common_suite() {
        let config = StAdvConfig { steps: 20, learning_rate: 0.2, ..StAdvConfig::default() };
        assert_eq!(suite::check_mechanics(&st_adv(config)), Ok(()));
    }

    /// A step edge in a row of ten: class 1 where the fifth element is dark.
    fn edge() -> (Linear, Samples, Goal, ThreatModel) {
        let domain = Domain::grey_levels(&[1, 1, 10], 255.0).unwrap();
        let weights = (0..10).map(|at| if at == 4 { -0.1 } else { 0.0 }).collect();
        let model = Linear::new(domain.clone(), Task::Binary { threshold: 0.0 }, vec![weights], vec![10.0]);
        let ramp = (0..10).map(|at| 20.0 * at as f32 + 60.0).collect();
        let threat = ThreatModel::new(Norm::Linf, f32::INFINITY, domain).unwrap();
        (model, Samples::new(ramp, &[1, 1, 10]).unwrap(), Goal::Untargeted { labels: vec![Label::Class(0)] }, threat)
    }

    #[test]
    fn moves_content_just_as_far_as_is_needed() {
        // The fifth element is 140 and must fall below 100: it must be read two elements farther left.
        let (model, samples, goal, threat) = edge();
        let run = |greatest_displacement| {
            let config = StAdvConfig { greatest_displacement, learning_rate: 0.1, ..StAdvConfig::default() };
            st_adv(config).run(&model, &samples, &goal, &threat, Seed(1)).unwrap()
        };
        assert!(!run(1.9).success[0]);
        let outcome = run(2.2);
        assert!(outcome.success[0]);
        let moved = samples.row(0)[4] - outcome.perturbed_inputs.row(0)[4];
        assert!((40.0..=44.0).contains(&moved), "{moved}");
        // The row is still in order: nothing was folded.
        assert!(outcome.perturbed_inputs.row(0).windows(2).all(|pair| pair[0] <= pair[1]));
    }

    #[test]
    fn a_spacing_makes_it_millimetres() {
        let (model, samples, goal, threat) = edge();
        let run = |greatest_displacement, spacing: &[f32]| {
            let config = StAdvConfig {
                greatest_displacement,
                spacing: spacing.to_vec(),
                learning_rate: 0.1,
                ..StAdvConfig::default()
            };
            st_adv(config).run(&model, &samples, &goal, &threat, Seed(1))
        };
        assert!(!run(2.2, &[1.0, 2.0]).unwrap().success[0]);
        assert!(run(4.4, &[1.0, 2.0]).unwrap().success[0]);
        assert!(matches!(run(2.2, &[1.0]), Err(Error::Mismatch { .. })));
    }

    #[test]
    fn a_flow_that_folds_is_smoothed() {
        let attack = st_adv(StAdvConfig::default());
        let mut flow = vec![vec![0.0; 4], vec![0.0, 2.0, -2.0, 0.0]];
        attack.allow(&[1, 4], &Blur::new(&[1, 4], 1.0), &mut flow);
        assert!(least_jacobian(&[1, 4], &flow) > 0.0 && flow[1][1] > 0.2, "{flow:?}");
        let folding = st_adv(StAdvConfig { least_jacobian: f32::NEG_INFINITY, ..StAdvConfig::default() });
        let mut flow = vec![vec![0.0; 4], vec![0.0, 2.0, -2.0, 0.0]];
        folding.allow(&[1, 4], &Blur::new(&[1, 4], 1.0), &mut flow);
        assert_eq!(flow[1], [0.0, 2.0, -2.0, 0.0]);
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        for text in [
            "tau = 0.1",
            "steps = 0",
            "learning_rate = 0.0",
            "confidence = -1.0",
            "smoothness = nan",
            "greatest_displacement = inf",
            "spacing = [0.0]",
            "least_jacobian = 1.0",
        ] {
            assert!(toml::from_str::<StAdv>(text).is_err(), "{text}");
        }
        assert!(toml::from_str::<StAdv>("least_jacobian = -inf").is_ok());
    }
}
