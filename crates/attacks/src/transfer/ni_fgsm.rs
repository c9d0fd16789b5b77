//! Nesterov iterative fast gradient sign method (NI-FGSM), Linf and L2.
//!
//! ```text
//! x̂ₜ = xₜ + α·μ·gₜ      gₜ₊₁ = μ·gₜ + ∇L(f(x̂ₜ), y)/‖∇L‖₁      xₜ₊₁ = clip(xₜ + α·sign(gₜ₊₁))
//! ```
//!
//! Source: Lin et al., ICLR 2020, arXiv:1908.06281, section 3.1. Survey: \[78\].
//!
//! Differs from the source: the gradient is divided by its mean magnitude, as in the authors' code, so that α·μ·gₜ is
//! of the size of a step; in L2, which the paper does not have, by its length.

use serde::Deserialize;

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Norm, Perturbation, Samples};

use super::mi_fgsm::MiFgsmConfig;
use super::momentum::{Estimate, Momentum, Standing};

/// NI-FGSM; holds only settings that have been checked.
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "MiFgsmConfig")]
pub struct NiFgsm(Momentum);

impl TryFrom<MiFgsmConfig> for NiFgsm {
    type Error = Error;

    fn try_from(config: MiFgsmConfig) -> Result<Self, Error> {
        config.try_into().map(Self)
    }
}

impl NiFgsm {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "ni-fgsm",
        title: "Nesterov iterative FGSM",
        source: "Lin et al. 2020, arXiv:1908.06281",
        family: "transfer",
        norms: &[Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "steps gradients, 1 query",
        minimum_norm: false,
    };
}

impl Attack for NiFgsm {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs `steps` gradient queries and one query a sample.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        self.0.run(
            problem,
            1,
            |at| {
                let gradient = problem.oracle.gradient(&ahead(at, self.0.decay), at.objective)?.inputs;
                Ok(Estimate { gradient, seen: None })
            },
            |size, gradient, direction, point| {
                self.0.accumulate_and_ascend(problem.threat, size, gradient, direction, point);
            },
        )
    }
}

/// Where the momentum alone would lead: `xₜ + α·μ·gₜ`.
pub(super) fn ahead(at: &Standing<'_>, decay: f32) -> Samples {
    let mut points = at.points.clone();
    for (value, direction) in points.values_mut().iter_mut().zip(at.directions.values()) {
        *value += at.size * decay * direction;
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::mi_fgsm::MiFgsm;
    use crate::transfer::mi_fgsm::tests::{TWO_STEPS, run};
    use nocebo_testkit::suite::{self, Strength};

    #[test]
    fn passes_the_common_suite() {
        let attack = NiFgsm::try_from(MiFgsmConfig::default()).unwrap();
        assert_eq!(suite::check(&attack, Strength::EXACT), Ok(()));
    }

    #[test]
    fn looks_ahead_along_the_momentum() {
        // From (108, 102) the first step leads to (103, 102), where the first element is still the greater; 2.5 further on
        // it is not, so this attack turns a step before MI-FGSM does.
        let length = 0.5_f32.hypot(1.0);
        let expected = [103.0 - 5.0 * 0.5 / length, 102.0 - 5.0 / length];
        let ahead = run(&NiFgsm::try_from(TWO_STEPS).unwrap(), [108.0, 102.0]);
        for (value, expected) in ahead.perturbed_inputs.row(0).iter().zip(expected) {
            assert!((value - expected).abs() < 1e-4, "{value} {expected}");
        }
        let behind = run(&MiFgsm::try_from(TWO_STEPS).unwrap(), [108.0, 102.0]);
        assert_eq!(behind.perturbed_inputs.row(0), [98.0, 102.0]);
    }
}
