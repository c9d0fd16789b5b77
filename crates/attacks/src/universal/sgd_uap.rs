//! Universal perturbation by stochastic gradient ascent on the mean objective, L2 and Linf.
//!
//! ```text
//! maximise over v in the ball   J(v) = 1/n Σᵢ min(L(f(xᵢ + v), yᵢ), β)
//! each step on a random batch B:   v ← Π(v + α·step(∇ᵥ 1/|B| Σ_{i∈B} min(L, β)))
//! ```
//!
//! The cut at β keeps a few samples that are already far across from steering the rest.
//!
//! Source: Shafahi et al., AAAI 2020, arXiv:1811.11304, section 3 (stochastic gradient method with clipped loss).
//!
//! Differs from the source: L is log-odds, not −log p (see the objectives of the core), which agree where the loss is
//! large; the step by Adam is left out; the best change over the passes is kept.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, GoalObjective, Knowledge, Loss, Norm};

use super::perturbation::{Learning, UniversalPerturbation};
use crate::fit::FitAttack;
use crate::gradient::step::ascend;
use crate::transfer::momentum::reach;

/// Settings of [`SgdUap`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SgdUapConfig {
    /// Objective to ascend.
    pub loss: Loss,
    /// Passes over the set; at least 1.
    pub passes: usize,
    /// Samples of a step; at least 1.
    pub batch: usize,
    /// Step α as a fraction of epsilon; finite and above 0.
    pub relative_step_size: f32,
    /// Value β beyond which a sample no longer counts; infinity for no cut.
    pub greatest_loss: f32,
}

impl Default for SgdUapConfig {
    /// β = 9 and batches of 128 are the paper's; the rest is ours.
    fn default() -> Self {
        Self { loss: Loss::CrossEntropy, passes: 10, batch: 128, relative_step_size: 0.1, greatest_loss: 9.0 }
    }
}

/// Stochastic universal perturbation before it has learned; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "SgdUapConfig")]
pub struct SgdUap(SgdUapConfig);

impl TryFrom<SgdUapConfig> for SgdUap {
    type Error = Error;

    fn try_from(config: SgdUapConfig) -> Result<Self, Error> {
        for (field, value) in [("passes", config.passes), ("batch", config.batch)] {
            if value == 0 {
                return Err(Error::invalid(field, "at least 1", value));
            }
        }
        if !(config.relative_step_size.is_finite() && config.relative_step_size > 0.0) {
            return Err(Error::invalid("relative_step_size", "finite and above 0", config.relative_step_size));
        }
        if config.greatest_loss.is_nan() {
            return Err(Error::invalid("greatest_loss", "a number", config.greatest_loss));
        }
        Ok(Self(config))
    }
}

impl SgdUap {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "sgd-uap",
        title: "Universal perturbation by stochastic gradient",
        source: "Shafahi et al. 2020, arXiv:1811.11304",
        family: "universal",
        norms: &[Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "1 query; learning: passes gradients a sample",
        minimum_norm: false,
    };

    /// Learns the change; see [`FitAttack::fit`] for the checks that come before.
    ///
    /// A pass costs one query and one gradient query a sample.
    ///
    /// # Errors
    ///
    /// Whatever the model returns.
    pub fn perturbation(&self, problem: &AttackProblem<'_>) -> Result<UniversalPerturbation, Error> {
        let size = self.0.relative_step_size * reach(problem.threat);
        let mut learning = Learning::new(problem)?;
        learning.measure()?;
        for pass in 0..self.0.passes {
            for rows in learning.shuffled(pass).chunks(self.0.batch) {
                let goal = problem.goal.select(rows);
                let objective = GoalObjective::new(&goal, &problem.oracle.spec().task, self.0.loss)?;
                let gradient = problem.oracle.gradient(&learning.perturbed(rows), &objective)?;
                let mut mean = vec![0.0_f64; learning.values.len()];
                for (slopes, value) in gradient.inputs.rows().zip(&gradient.values) {
                    if *value < self.0.greatest_loss {
                        for (mean, slope) in mean.iter_mut().zip(slopes) {
                            *mean += f64::from(*slope) / rows.len() as f64;
                        }
                    }
                }
                let mean: Vec<f32> = mean.into_iter().map(|slope| slope as f32).collect();
                let mut step = vec![0.0; mean.len()];
                ascend(problem.threat, &mean, size, &mut step);
                learning.step(&step);
            }
            learning.measure()?;
        }
        Ok(learning.finish(Self::INFO))
    }
}

impl FitAttack for SgdUap {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    fn learn(&self, problem: &AttackProblem<'_>) -> Result<Box<dyn Attack>, Error> {
        Ok(Box::new(self.perturbation(problem)?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::perturbation::testing;
    use super::*;

    #[test]
    fn flips_a_linear_model_just_above_the_greatest_least_change() {
        let attack = SgdUap::try_from(SgdUapConfig::default()).unwrap();
        for norm in [Norm::L2, Norm::Linf] {
            assert_eq!(testing::flipped(&attack, norm, 1.02), 1.0, "{norm}");
            assert!(testing::flipped(&attack, norm, 0.98) < 1.0, "{norm}");
        }
        testing::mechanics(&attack);
    }

    #[test]
    fn samples_beyond_the_cut_do_not_steer() {
        // With the cut below every loss nothing moves.
        let still = SgdUapConfig { greatest_loss: -1e30, ..SgdUapConfig::default() };
        let (attack, samples, goal, threat) = testing::fit_binary(&SgdUap::try_from(still).unwrap(), Norm::Linf, 2.0);
        let model = nocebo_testkit::suite::linear_binary();
        let outcome = attack.run(&model, &samples, &goal, &threat, nocebo_core::Seed(1)).unwrap();
        assert_eq!(outcome.perturbed_inputs, samples);
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        for text in ["eps = 0.2", "passes = 0", "batch = 0", "relative_step_size = 0.0", "greatest_loss = nan"] {
            assert!(toml::from_str::<SgdUap>(text).is_err(), "{text}");
        }
        assert!(toml::from_str::<SgdUap>("greatest_loss = inf").is_ok());
    }
}
