//! Nesterov iterative fast gradient sign method (NI-FGSM), Linf and L2.
//!
//! ```text
//! x̂ₜ = xₜ + α·μ·gₜ      gₜ₊₁ = μ·gₜ + ∇L(f(x̂ₜ), y)/‖∇L‖₁      xₜ₊₁ = clip(xₜ + α·sign(gₜ₊₁))
//! ```
//!
//! Source: Lin et al., ICLR 2020, arXiv:1908.06281, section 3.1. Survey: [78].
//!
//! Differs from the source: the gradient is divided by its mean magnitude, as in the authors' code, so that α·μ·gₜ is
//! of the size of a step; in L2, which the paper does not have, by its length.

use serde::Deserialize;

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, Knowledge, Norm, Perturbation, Samples};

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
        knowledge: Knowledge::Gradients,
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
    use nocebo_core::{Domain, Goal, Label, Loss, Seed, ThreatModel};
    use nocebo_testkit::models::Quadratic;
    use nocebo_testkit::suite::{self, Strength};

    #[test]
    fn passes_the_common_suite() {
        let attack = NiFgsm::try_from(MiFgsmConfig::default()).unwrap();
        assert_eq!(suite::check(&attack, Strength::EXACT), Ok(()));
    }

    #[test]
    fn looks_ahead_along_the_momentum() {
        // The margin's gradient is 2·(x − c). At the first step both attacks agree; then NI looks at x₁ + α·μ·g₁.
        let domain = Domain::grey_levels(&[2], 255.0).unwrap();
        let model = Quadratic::new(domain.clone(), vec![100.0, 100.0], 90.0);
        let samples = Samples::new(vec![103.0, 99.0], &[2]).unwrap();
        let goal = Goal::Untargeted { labels: vec![Label::Class(0)] };
        let threat = ThreatModel::new(Norm::L2, 10.0, domain).unwrap();
        let config = MiFgsmConfig { loss: Loss::Margin, steps: 2, relative_step_size: 0.5, decay: 0.5 };
        let outcome = NiFgsm::try_from(config).unwrap().run(&model, &samples, &goal, &threat, Seed(1)).unwrap();
        let unit = |v: [f64; 2]| v.map(|part| part / v[0].hypot(v[1]));
        let first = unit([6.0, -2.0]);
        let x = [103.0 + 5.0 * first[0], 99.0 + 5.0 * first[1]];
        let look = [x[0] + 2.5 * first[0] - 100.0, x[1] + 2.5 * first[1] - 100.0];
        let slope = unit(look);
        let second = unit([0.5 * first[0] + slope[0], 0.5 * first[1] + slope[1]]);
        for (axis, value) in outcome.perturbed_inputs.row(0).iter().enumerate() {
            assert!((f64::from(*value) - (x[axis] + 5.0 * second[axis])).abs() < 1e-4, "{value}");
        }
    }
}
