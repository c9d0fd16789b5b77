//! Random noise of equal norm: the control of every attack.
//!
//! ```text
//! x' = clip(x + ε·u),  u random on the unit sphere of the norm
//! ```
//!
//! An attack that does not beat it has found nothing but the model's noise tolerance. Survey: \[6\] (noise battery).
//!
//! Differs from the source: one draw of full size instead of a line search for the least magnitude that flips.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Norm, Perturbation};

/// Settings of [`Noise`]: none.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct NoiseConfig {}

/// Random noise of full size.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "NoiseConfig")]
pub struct Noise;

impl TryFrom<NoiseConfig> for Noise {
    type Error = Error;

    fn try_from(_: NoiseConfig) -> Result<Self, Error> {
        Ok(Self)
    }
}

impl Noise {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "noise",
        title: "Random noise of equal norm (control)",
        source: "control",
        family: "control",
        norms: &[Norm::L0, Norm::L1, Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::None,
        cost: "1 query",
        minimum_norm: false,
    };
}

impl Attack for Noise {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs one query a sample, to see whether the noise reached the goal.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let mut inputs = problem.inputs.clone();
        for (row, &sample) in problem.inputs.indices().iter().enumerate() {
            let mut generator = problem.seed.for_sample(sample);
            let point = problem.threat.random_surface_point(problem.inputs.row(row), &mut generator);
            inputs.row_mut(row).copy_from_slice(&point);
        }
        let success = problem.goal.reached(&problem.oracle.spec().task, &problem.oracle.outputs(&inputs)?);
        Ok(Perturbation { inputs, success })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Goal, Seed, ThreatModel};
    use nocebo_testkit::suite::{self, Strength};

    #[test]
    fn passes_the_common_suite() {
        assert_eq!(suite::check(&Noise, Strength::EXACT), Ok(()));
    }

    #[test]
    fn uses_the_whole_budget() {
        let (model, samples) = (suite::linear_classifier(), suite::ct_samples());
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        let threat = ThreatModel::new(Norm::Linf, 0.5, suite::ct_domain()).unwrap();
        let outcome = Noise.run(&model, &samples, &goal, &threat, Seed(1)).unwrap();
        for (clean, noisy) in samples.rows().zip(outcome.perturbed_inputs.rows()) {
            assert!(clean.iter().zip(noisy).all(|(clean, noisy)| ((clean - noisy).abs() - 0.5).abs() < 1e-4));
        }
    }
}
