//! Translation-invariant momentum FGSM (TI-FGSM), Linf and L2.
//!
//! ```text
//! gₜ₊₁ = μ·gₜ + (W∗∇)/‖W∗∇‖₁,  ∇ = ∇ₓL(f(xₜ), y),  W a Gaussian kernel      xₜ₊₁ = clip(xₜ + α·sign(gₜ₊₁))
//! ```
//!
//! Smoothing the gradient stands for averaging it over shifted copies of the sample.
//!
//! Source: Dong et al., CVPR 2019, arXiv:1904.02884, section 3.2.
//!
//! Differs from the source: the kernel also serves signals (one axis) and volumes (three).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Perturbation};

use super::momentum::{Estimate, Momentum};
use crate::transformation::filter::Kernel;
use crate::transformation::warp::sides_of;

/// Settings of [`TiFgsm`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TiFgsmConfig {
    /// Objective to ascend.
    pub loss: Loss,
    /// Steps T; at least 1.
    pub steps: usize,
    /// Step α as a fraction of epsilon, 1/T in the paper; finite and above 0.
    pub relative_step_size: f32,
    /// How much of the last direction is kept, μ; finite and at least 0.
    pub decay: f32,
    /// Taps of the kernel along each axis, over three standard deviations either way; odd.
    pub kernel_size: usize,
}

impl Default for TiFgsmConfig {
    /// The paper's.
    fn default() -> Self {
        Self { loss: Loss::CrossEntropy, steps: 10, relative_step_size: 0.1, decay: 1.0, kernel_size: 15 }
    }
}

/// TI-FGSM; holds only settings that have been checked.
#[derive(Clone, Deserialize)]
#[serde(try_from = "TiFgsmConfig")]
pub struct TiFgsm {
    momentum: Momentum,
    kernel: Kernel,
}

impl TryFrom<TiFgsmConfig> for TiFgsm {
    type Error = Error;

    fn try_from(config: TiFgsmConfig) -> Result<Self, Error> {
        let TiFgsmConfig { loss, steps, relative_step_size, decay, kernel_size } = config;
        Ok(Self {
            momentum: Momentum { loss, steps, relative_step_size, decay }.check()?,
            kernel: Kernel::published(kernel_size)?,
        })
    }
}

impl TiFgsm {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "ti-fgsm",
        title: "Translation-invariant momentum FGSM",
        source: "Dong et al. 2019, arXiv:1904.02884",
        family: "transfer",
        norms: &[Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "steps gradients, 1 query",
        minimum_norm: false,
    };
}

impl Attack for TiFgsm {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs `steps` gradient queries and one query a sample.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        sides_of("smoothing a gradient", problem.inputs.shape())?;
        self.momentum.run(
            problem,
            1,
            |at| {
                let mut estimate = Estimate::from(problem.oracle.gradient(at.points, at.objective)?);
                self.kernel.smooth_rows(&mut estimate.gradient);
                Ok(estimate)
            },
            |size, gradient, direction, point| {
                self.momentum.accumulate_and_ascend(problem.threat, size, gradient, direction, point);
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Domain, Goal, Label, Samples, Seed, Task, ThreatModel};
    use nocebo_testkit::models::Linear;
    use nocebo_testkit::suite::{self, Strength};

    #[test]
    fn passes_the_common_suite() {
        // The weights of the toy models have no smooth part, so a smoothed step wastes most of its budget.
        let attack = TiFgsm::try_from(TiFgsmConfig { kernel_size: 3, ..TiFgsmConfig::default() }).unwrap();
        assert_eq!(suite::check(&attack, Strength { linear: 30.0, goals: false }), Ok(()));
        let alone = TiFgsm::try_from(TiFgsmConfig { kernel_size: 1, ..TiFgsmConfig::default() }).unwrap();
        assert_eq!(suite::check(&alone, Strength::EXACT), Ok(()));
    }

    #[test]
    fn spreads_the_gradient_of_one_element() {
        // A signal whose middle element alone matters: its neighbours move with it, in L2 in proportion to the kernel.
        let domain = Domain::grey_levels(&[1, 5], 255.0).unwrap();
        let weights = vec![vec![0.0, 0.0, 2.0, 0.0, 0.0]];
        let model = Linear::new(domain.clone(), Task::Binary { threshold: 0.0 }, weights, vec![-1000.0]);
        let samples = Samples::new(vec![100.0; 5], &[1, 5]).unwrap();
        let goal = Goal::Untargeted { labels: vec![Label::Class(0)] };
        let threat = ThreatModel::new(Norm::L2, 10.0, domain).unwrap();
        let config = TiFgsmConfig { steps: 1, relative_step_size: 1.0, kernel_size: 3, ..TiFgsmConfig::default() };
        let outcome = TiFgsm::try_from(config).unwrap().run(&model, &samples, &goal, &threat, Seed(1)).unwrap();
        // The taps of three standard deviations: e^(−4.5), 1, e^(−4.5).
        let side = (-4.5_f32).exp();
        let length = (1.0 + 2.0 * side * side).sqrt();
        let expected =
            [100.0, 100.0 + 10.0 * side / length, 100.0 + 10.0 / length, 100.0 + 10.0 * side / length, 100.0];
        for (value, expected) in outcome.perturbed_inputs.row(0).iter().zip(expected) {
            assert!((value - expected).abs() < 1e-3, "{value} {expected}");
        }
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        for text in ["kernel = 3", "kernel_size = 4", "kernel_size = 0", "kernel_size = 2001", "steps = 0"] {
            assert!(toml::from_str::<TiFgsm>(text).is_err(), "{text}");
        }
    }
}
