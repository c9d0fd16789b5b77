//! Augmented Lagrangian attack (ALMA), L1 and L2.
//!
//! ```text
//! L = ‖δ‖ + P(y, ρ, μ)            y = −(m(x + δ) − t)/scale, the missing margin; ≤ 0 where the goal is reached
//! P = μy + μρy² + ρ²y³/6          for y ≥ 0            (the penalty P2 of the source)
//!     μy/(1 − ρy)                 for y < 0
//! μ ← α·μ + (1 − α)·∂P/∂y         every step
//! ρ ← γ·ρ                         every M steps, where no success was found and y did not fall by the factor τ
//! δ ← clip(δ − η·RMSProp with momentum), η so that the first step has a set length, falling after the first success
//! ```
//!
//! Source: Rony et al., ICCV 2021, arXiv:2011.11857, algorithm 1.
//!
//! Differs from the source: δ and lengths are in the range of the bounds. The scale is that of the difference of
//! logits ratio (greatest less third logit; with a target, less the mean of third and fourth); where a model has too few exclusive classes for
//! it, our reading is the margin of the clean sample.

use std::cmp::Ordering;

use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{
    Attack, AttackInfo, AttackProblem, Error, Goal, GoalKind, GoalObjective, Knowledge, Loss, Norm, Objective,
    Perturbation, Task,
};

use super::frame::{Frame, size};
use super::search::{Ask, Search, Seen, minimise_objective};
use super::settings::{at_least_one, fraction, positive};

/// Range of the multiplier μ.
const MULTIPLIERS: (f64, f64) = (1e-6, 1e12);
/// Doublings and halvings in the search for the first step size.
const STEP_SIZE_SEARCH: usize = 40;
/// A gradient shorter than this has no direction.
const NO_GRADIENT: f64 = 1e-6;

/// Settings of [`AugmentedLagrangian`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AugmentedLagrangianConfig {
    /// Gradient steps; at least 1.
    pub steps: usize,
    /// Length of the first step in L1, in ranges of the bounds; finite and above 0.
    pub first_step_l1: f64,
    /// Length of the first step in L2, in ranges of the bounds; finite and above 0.
    pub first_step_l2: f64,
    /// Last step size, as a fraction of the first; finite and above 0.
    pub step_size_decrease: f64,
    /// First multiplier μ; finite and above 0.
    pub initial_multiplier: f64,
    /// First penalty parameter ρ; finite and above 0.
    pub initial_penalty: f64,
    /// Steps M between two looks at the progress; at least 1.
    pub check_steps: usize,
    /// Factor τ by which the missing margin must have fallen; above 0 and below 1.
    pub progress: f64,
    /// Factor γ by which ρ grows; finite and above 0.
    pub penalty_growth: f64,
    /// Weight α of the past in the running means and the momentum; above 0 and below 1.
    pub average: f64,
    /// Margin t, in logits, that the constraint asks for; finite and above 0.
    pub logit_tolerance: f64,
}

impl Default for AugmentedLagrangianConfig {
    /// Values of the paper, with its first step lengths for L1 and L2.
    fn default() -> Self {
        Self {
            steps: 1000,
            first_step_l1: 0.5,
            first_step_l2: 0.1,
            step_size_decrease: 0.01,
            initial_multiplier: 1.0,
            initial_penalty: 1.0,
            check_steps: 10,
            progress: 0.95,
            penalty_growth: 1.2,
            average: 0.9,
            logit_tolerance: 1e-4,
        }
    }
}

/// ALMA; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "AugmentedLagrangianConfig")]
pub struct AugmentedLagrangian(AugmentedLagrangianConfig);

impl TryFrom<AugmentedLagrangianConfig> for AugmentedLagrangian {
    type Error = Error;

    fn try_from(config: AugmentedLagrangianConfig) -> Result<Self, Error> {
        at_least_one("steps", config.steps)?;
        at_least_one("check_steps", config.check_steps)?;
        positive("first_step_l1", config.first_step_l1)?;
        positive("first_step_l2", config.first_step_l2)?;
        positive("step_size_decrease", config.step_size_decrease)?;
        positive("initial_multiplier", config.initial_multiplier)?;
        positive("initial_penalty", config.initial_penalty)?;
        fraction("progress", config.progress)?;
        positive("penalty_growth", config.penalty_growth)?;
        fraction("average", config.average)?;
        positive("logit_tolerance", config.logit_tolerance)?;
        Ok(Self(config))
    }
}

impl AugmentedLagrangian {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "alma",
        title: "Augmented Lagrangian",
        source: "Rony et al. 2021, arXiv:2011.11857",
        family: "minimum_norm",
        norms: &[Norm::L1, Norm::L2],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "steps gradients",
        minimum_norm: true,
    };
}

impl Attack for AugmentedLagrangian {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs `steps` gradient queries a sample.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let config = self.0;
        let norm = problem.threat.norm();
        let first_step = if norm == Norm::L1 { config.first_step_l1 } else { config.first_step_l2 };
        let has_ratio = MarginRatio::new(problem, problem.goal, config.logit_tolerance)?.others > 0;
        minimise_objective(
            problem,
            |problem, goal| Ok(Box::new(MarginRatio::new(problem, goal, config.logit_tolerance)?)),
            |row| {
                let frame = Frame::new(problem.threat.domain(), problem.inputs.row(row));
                Descent {
                    config,
                    norm,
                    frame,
                    first_step,
                    scale: if has_ratio { 1.0 } else { f64::NAN },
                    change: vec![0.0; frame.elements()],
                    mean_square: vec![1.0; frame.elements()],
                    momentum: vec![0.0; frame.elements()],
                    step_size: 0.0,
                    multiplier: config.initial_multiplier,
                    penalty: config.initial_penalty,
                    checked: 0.0,
                    first_success: None,
                    step: 0,
                    generator: problem.seed.for_sample(problem.inputs.indices()[row]),
                }
            },
        )
    }
}

/// The margin less the tolerance, over the spread of the logits.
struct MarginRatio<'a> {
    margin: GoalObjective<'a>,
    tolerance: f64,
    /// How many logits from the third greatest on make the lower end of the spread; 0 for no spread.
    others: usize,
}

impl<'a> MarginRatio<'a> {
    fn new(problem: &AttackProblem<'a>, goal: &'a Goal, tolerance: f64) -> Result<Self, Error> {
        let wanted = match goal {
            Goal::Targeted { .. } | Goal::FalsePositive { .. } => 2,
            Goal::Untargeted { .. } | Goal::FalseNegative { .. } => 1,
        };
        let others = match problem.oracle.spec().task {
            Task::MultiClass { classes } if classes >= 2 + wanted => wanted,
            _ => 0,
        };
        Ok(Self { margin: problem.objective(goal, Loss::Margin)?, tolerance, others })
    }
}

impl Objective for MarginRatio<'_> {
    fn evaluate(&self, row: usize, outputs: &[f32], cotangent: &mut [f32]) -> Result<f32, Error> {
        let margin = f64::from(self.margin.evaluate(row, outputs, cotangent)?) - self.tolerance;
        if self.others == 0 {
            return Ok(margin as f32);
        }
        let mut order: Vec<usize> = (0..outputs.len()).collect();
        order.sort_by(|&a, &b| outputs[b].total_cmp(&outputs[a]).then(a.cmp(&b)));
        let lower = &order[2..2 + self.others];
        let low = lower.iter().map(|&class| f64::from(outputs[class])).sum::<f64>() / self.others as f64;
        let spread = f64::from(outputs[order[0]]) - low + 1e-8;
        let slope = margin / (spread * spread);
        for part in cotangent.iter_mut() {
            *part = (f64::from(*part) / spread) as f32;
        }
        cotangent[order[0]] -= slope as f32;
        for &class in lower {
            cotangent[class] += (slope / self.others as f64) as f32;
        }
        Ok((margin / spread) as f32)
    }
}

/// The search of one sample.
struct Descent<'a> {
    config: AugmentedLagrangianConfig,
    norm: Norm,
    frame: Frame<'a>,
    first_step: f64,
    /// What the objective is divided by; the clean sample's value where it is NaN at first.
    scale: f64,
    change: Vec<f64>,
    mean_square: Vec<f64>,
    momentum: Vec<f64>,
    step_size: f64,
    multiplier: f64,
    penalty: f64,
    /// Missing margin at the last look at the progress.
    checked: f64,
    first_success: Option<usize>,
    step: usize,
    generator: ChaCha8Rng,
}

impl Descent<'_> {
    /// ∂P/∂y of the penalty.
    fn pressure(&self, missing: f64) -> f64 {
        let (multiplier, penalty) = (self.multiplier, self.penalty);
        match missing.partial_cmp(&0.0) {
            Some(Ordering::Less) => multiplier / (1.0 - penalty * missing).powi(2),
            _ => multiplier + 2.0 * multiplier * penalty * missing + 0.5 * (penalty * missing).powi(2),
        }
    }

    fn distance_slope(&self) -> Vec<f64> {
        let length = size(Norm::L2, &self.change);
        let slope = |change: &f64| match self.norm {
            _ if *change == 0.0 => 0.0,
            Norm::L1 => change.signum(),
            _ => change / length,
        };
        self.change.iter().map(slope).collect()
    }

    /// The step size with which one plain gradient step has the wanted length, or as near as the bounds allow.
    fn find_step_size(&self, descent: &[f64]) -> f64 {
        let length = |step_size: f64| {
            let mut moved: Vec<f64> = descent.iter().map(|slope| -step_size * slope).collect();
            self.frame.clip(&mut moved);
            size(self.norm, &moved)
        };
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..STEP_SIZE_SEARCH {
            if length(high) > self.first_step {
                break;
            }
            low = high;
            high *= 2.0;
        }
        for _ in 0..STEP_SIZE_SEARCH {
            let middle = 0.5 * (low + high);
            if length(middle) > self.first_step { high = middle } else { low = middle }
        }
        0.5 * (low + high)
    }

    fn adapt(&mut self, missing: f64) {
        let config = self.config;
        if self.step == 0 {
            self.checked = missing;
            return;
        }
        if (self.step + 1).is_multiple_of(config.check_steps) {
            if self.first_success.is_none() && missing >= config.progress * self.checked {
                self.penalty *= config.penalty_growth;
            }
            self.checked = missing;
        }
        let multiplier = config.average * self.multiplier + (1.0 - config.average) * self.pressure(missing);
        self.multiplier = multiplier.clamp(MULTIPLIERS.0, MULTIPLIERS.1);
    }

    /// Fraction of the first step size: falls from the first success on.
    fn decay(&self) -> f64 {
        let Some(first) = self.first_success else { return 1.0 };
        let done = (self.step - first) as f64 / (self.config.steps - first) as f64;
        self.config.step_size_decrease.powf(done)
    }
}

impl Search for Descent<'_> {
    fn next(&mut self, seen: &Seen<'_>) -> Option<Ask> {
        if self.step + 1 == self.config.steps {
            return None;
        }
        if self.scale.is_nan() {
            self.scale = seen.value.abs().max(NO_GRADIENT);
        }
        let missing = -seen.value / self.scale;
        self.adapt(missing);
        if seen.reached && self.first_success.is_none() {
            self.first_success = Some(self.step);
        }
        let pressure = self.pressure(missing) / self.scale;
        let slopes = self.frame.slopes(seen.gradient);
        let mut descent: Vec<f64> =
            self.distance_slope().iter().zip(slopes).map(|(distance, slope)| distance - pressure * slope).collect();
        if self.step == 0 {
            if size(Norm::L2, &descent) <= NO_GRADIENT {
                descent = self.frame.random_direction(&mut self.generator);
            }
            self.step_size = self.find_step_size(&descent);
        }
        let step_size = self.step_size * self.decay();
        let average = self.config.average;
        for (element, slope) in descent.into_iter().enumerate() {
            let square = &mut self.mean_square[element];
            *square = average * *square + (1.0 - average) * slope * slope;
            self.momentum[element] = average * self.momentum[element] + slope / (square.sqrt() + 1e-8);
            self.change[element] -= step_size * self.momentum[element];
        }
        self.frame.clip(&mut self.change);
        self.step += 1;
        Some(Ask::Gradient(self.frame.point(&self.change)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Label, Oracle, Seed, ThreatModel};
    use nocebo_testkit::suite::{self, InNorm, Strength};

    #[test]
    fn passes_the_common_suite() {
        let config = AugmentedLagrangianConfig { steps: 300, ..Default::default() };
        let attack = AugmentedLagrangian::try_from(config).unwrap();
        for (norm, linear) in [(&[Norm::L1], 1.1), (&[Norm::L2], 1.02)] {
            assert_eq!(suite::check(&InNorm(&attack, norm), Strength { linear, goals: true }), Ok(()));
        }
    }

    #[test]
    fn the_ratio_and_its_derivative() {
        let model = suite::linear_classifier();
        let (inputs, threat) = (suite::ct_samples().select(&[0]), ThreatModel::new(Norm::L2, 1.0, suite::ct_domain()));
        let goals = [
            Goal::Untargeted { labels: vec![Label::Class(1)] },
            Goal::Targeted { labels: vec![Label::Class(1)], targets: vec![Label::Class(3)] },
        ];
        let oracle = Oracle::new(&model, None);
        for (goal, expected) in goals.iter().zip([-1.0 / 1.5, -3.0 / 2.25]) {
            let threat = threat.as_ref().unwrap();
            let problem = AttackProblem { oracle: &oracle, inputs: &inputs, goal, threat, seed: Seed(1) };
            let objective = MarginRatio::new(&problem, goal, 0.0).unwrap();
            let evaluate = |logits: [f32; 4]| {
                let mut cotangent = [f32::NAN; 4];
                (objective.evaluate(0, &logits, &mut cotangent).unwrap(), cotangent)
            };
            // Sorted: 4, 3, 2.5, 1.
            let logits = [3.0, 4.0, 2.5, 1.0];
            let (value, cotangent) = evaluate(logits);
            assert!((f64::from(value) - expected).abs() < 1e-6, "{value}");
            for class in 0..4 {
                let at = |shift: f32| {
                    let mut moved = logits;
                    moved[class] += shift;
                    evaluate(moved).0
                };
                assert!(((at(0.01) - at(-0.01)) / 0.02 - cotangent[class]).abs() < 1e-3, "{goal:?} {class}");
            }
        }
    }

    #[test]
    fn invalid_settings_are_refused() {
        for text in ["steps = 0", "check_steps = 0", "progress = 1.0", "first_step_l1 = 0.0", "penalty = 2"] {
            assert!(toml::from_str::<AugmentedLagrangian>(text).is_err(), "{text}");
        }
    }
}
