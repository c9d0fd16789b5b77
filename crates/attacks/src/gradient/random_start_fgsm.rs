//! FGSM from a random start (R+FGSM), Linf.
//!
//! ```text
//! x̃ = x + α·sign(N(0, I)),  x' = clip(x̃ + (ε − α)·sign ∇ₓL(f(x̃), y)),  α = ε/2
//! ```
//!
//! The random step leaves the region where a model trained on FGSM masks its gradient.
//!
//! Source: Tramèr et al., ICLR 2018, arXiv:1705.07204, section 4. Survey: \[124\].
//!
//! Differs from the source: nothing known.

use rand::RngExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{ActiveSet, Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Perturbation};

use super::search::Search;
use super::step::ascend;

/// Settings of [`RandomStartFgsm`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandomStartFgsmConfig {
    /// Length α of the random step as a fraction of epsilon; in [0, 1].
    pub random_fraction: f32,
}

impl Default for RandomStartFgsmConfig {
    /// The paper's.
    fn default() -> Self {
        Self { random_fraction: 0.5 }
    }
}

/// R+FGSM; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "RandomStartFgsmConfig")]
pub struct RandomStartFgsm(RandomStartFgsmConfig);

impl TryFrom<RandomStartFgsmConfig> for RandomStartFgsm {
    type Error = Error;

    fn try_from(config: RandomStartFgsmConfig) -> Result<Self, Error> {
        if (0.0..=1.0).contains(&config.random_fraction) {
            Ok(Self(config))
        } else {
            Err(Error::invalid("random_fraction", "in [0, 1]", config.random_fraction))
        }
    }
}

impl RandomStartFgsm {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "r-fgsm",
        title: "FGSM from a random start (R+FGSM)",
        source: "Tramèr et al. 2018, arXiv:1705.07204",
        family: "gradient",
        norms: &[Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "1 gradient, 1 query",
        minimum_norm: false,
    };
}

impl Attack for RandomStartFgsm {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs one gradient query and one query a sample.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let random_step = self.0.random_fraction * problem.threat.epsilon();
        let mut active = ActiveSet::new(problem);
        let mut current = problem.inputs.clone();
        for (row, &sample) in problem.inputs.indices().iter().enumerate() {
            let mut generator = problem.seed.for_sample(sample);
            for value in current.row_mut(row) {
                // The sign of a Gaussian is a fair coin.
                *value += if generator.random() { random_step } else { -random_step };
            }
        }
        problem.threat.project(problem.inputs, &mut current);
        let search = Search { steering: problem.goal, loss: Loss::CrossEntropy, steps: 1 };
        search.run(problem, &mut active, &mut current, |gradient, point| {
            ascend(problem.threat, gradient, problem.threat.epsilon() - random_step, point);
        })?;
        Ok(active.finish(&current))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_testkit::suite::{self, Strength};

    /// Half of the budget is spent at random, and on twelve elements chance can cancel most of the other half.
    const HALF_RANDOM: Strength = Strength { linear: 20.0, goals: false };

    #[test]
    fn passes_the_common_suite() {
        let attack = RandomStartFgsm::try_from(RandomStartFgsmConfig::default()).unwrap();
        assert_eq!(suite::check(&attack, HALF_RANDOM), Ok(()));
    }

    #[test]
    fn without_the_random_step_it_is_exact() {
        let attack = RandomStartFgsm::try_from(RandomStartFgsmConfig { random_fraction: 0.0 }).unwrap();
        assert_eq!(suite::check(&attack, Strength { goals: false, ..Strength::EXACT }), Ok(()));
        assert!(RandomStartFgsm::try_from(RandomStartFgsmConfig { random_fraction: 1.1 }).is_err());
    }
}
