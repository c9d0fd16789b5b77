//! Iterative least-likely class method (ILLC), Linf.
//!
//! ```text
//! x₀ = x,  xₙ₊₁ = clip(xₙ − α·sign ∇ₓJ(f(xₙ), y_LL)),  y_LL = argminₖ p(k|x)
//! ```
//!
//! Source: Kurakin, Goodfellow & Bengio, arXiv:1607.02533, section 2.3. Survey: \[64\]\[66\].
//!
//! Differs from the source: a sample stops at the first point that reaches the goal of the attack, which for an
//! untargeted goal is any wrong class; a goal that names a target keeps it.

use serde::Deserialize;

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Norm, Perturbation};

use super::basic_iterative::BasicIterativeConfig;
use super::target_class::TargetClass;

/// ILLC; holds only settings that have been checked, the same as those of BIM.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "BasicIterativeConfig")]
pub struct IterativeLeastLikely(BasicIterativeConfig);

impl TryFrom<BasicIterativeConfig> for IterativeLeastLikely {
    type Error = Error;

    fn try_from(config: BasicIterativeConfig) -> Result<Self, Error> {
        config.check().map(Self)
    }
}

impl IterativeLeastLikely {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "illc",
        title: "Iterative least-likely class",
        source: "Kurakin et al. 2016, arXiv:1607.02533",
        family: "gradient",
        norms: &[Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "steps gradients, 2 queries",
        minimum_norm: false,
    };
}

impl Attack for IterativeLeastLikely {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs one gradient query a step and one query a sample, and one more where the least likely class must be found.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        self.0.run(problem, &TargetClass::LeastLikely.steering(problem)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_testkit::suite::{self, Strength};

    #[test]
    fn passes_the_common_suite() {
        let attack = IterativeLeastLikely::try_from(BasicIterativeConfig::default()).unwrap();
        assert_eq!(suite::check(&attack, Strength::EXACT), Ok(()));
    }
}
