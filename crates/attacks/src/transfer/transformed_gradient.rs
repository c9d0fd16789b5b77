//! Transformed gradient (TG): amplify and truncate the accumulated gradient instead of taking its sign, Linf.
//!
//! ```text
//! Gₜ₊₁ = μ·Gₜ + W∗∇ₓL(f(xₜ), y)        W a Gaussian kernel, or nothing
//! n = k·Gₜ₊₁/mean|Gₜ₊₁|      xₜ₊₁ = clip(xₜ + α·clip(n, −1, 1))
//! ```
//!
//! Elements with a small gradient move by less than a step, so the perturbation has less of the noise of a sign.
//!
//! Source: the survey's \[51\]; the rule is that of the authors' public code. Survey: \[51\].
//!
//! Differs from the source: whether the paper amplifies by more than the division by the mean is not known to us, so
//! the factor k is a setting that is 1.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Perturbation};

use super::momentum::{Estimate, Momentum, normalised};
use crate::transformation::filter::Kernel;
use crate::transformation::warp::sides_of;

/// Settings of [`TransformedGradient`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransformedGradientConfig {
    /// Objective to ascend.
    pub loss: Loss,
    /// Steps T; at least 1.
    pub steps: usize,
    /// Greatest step α of an element as a fraction of epsilon, 1/T in the source; finite and above 0.
    pub relative_step_size: f32,
    /// How much of the last direction is kept, μ; finite and at least 0.
    pub decay: f32,
    /// Factor k on the gradient of mean magnitude 1 before it is cut at ±1; finite and above 0. A large one is the sign.
    pub amplification: f32,
    /// Taps along each axis of the Gaussian that smooths the gradient; odd, 1 for none. The source's option is 7.
    pub kernel_size: usize,
}

impl Default for TransformedGradientConfig {
    /// Those of the authors' code.
    fn default() -> Self {
        Self {
            loss: Loss::CrossEntropy,
            steps: 10,
            relative_step_size: 0.1,
            decay: 1.0,
            amplification: 1.0,
            kernel_size: 1,
        }
    }
}

/// TG; holds only settings that have been checked.
#[derive(Clone, Deserialize)]
#[serde(try_from = "TransformedGradientConfig")]
pub struct TransformedGradient {
    momentum: Momentum,
    amplification: f32,
    kernel: Option<Kernel>,
}

impl TryFrom<TransformedGradientConfig> for TransformedGradient {
    type Error = Error;

    fn try_from(config: TransformedGradientConfig) -> Result<Self, Error> {
        let TransformedGradientConfig { loss, steps, relative_step_size, decay, amplification, kernel_size } = config;
        if !(amplification.is_finite() && amplification > 0.0) {
            return Err(Error::invalid("amplification", "finite and above 0", amplification));
        }
        Ok(Self {
            momentum: Momentum { loss, steps, relative_step_size, decay }.check()?,
            amplification,
            kernel: (kernel_size != 1).then(|| Kernel::published(kernel_size)).transpose()?,
        })
    }
}

impl TransformedGradient {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "transformed-gradient",
        title: "Transformed gradient (amplify and truncate)",
        source: "Puttagunta et al. 2023, reference [51]",
        family: "transfer",
        norms: &[Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "steps gradients, 1 query",
        minimum_norm: false,
    };
}

impl Attack for TransformedGradient {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs `steps` gradient queries and one query a sample.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let shape = problem.inputs.shape();
        if self.kernel.is_some() {
            sides_of("smoothing a gradient", shape)?;
        }
        self.momentum.run(
            problem,
            1,
            |at| {
                let mut estimate = Estimate::from(problem.oracle.gradient(at.points, at.objective)?);
                if let Some(kernel) = &self.kernel {
                    kernel.smooth_rows(&mut estimate.gradient);
                }
                Ok(estimate)
            },
            |size, gradient, direction, point| {
                for (kept, new) in direction.iter_mut().zip(gradient) {
                    *kept = self.momentum.decay * *kept + new;
                }
                for (value, slope) in point.iter_mut().zip(normalised(problem.threat, direction)) {
                    *value += size * (self.amplification * slope).clamp(-1.0, 1.0);
                }
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
        // Elements with a small gradient move less than epsilon, so the budget must be larger than for a sign.
        let attack = TransformedGradient::try_from(TransformedGradientConfig::default()).unwrap();
        assert_eq!(suite::check(&attack, Strength { linear: 1.5, goals: true }), Ok(()));
        let amplified = TransformedGradientConfig { amplification: 1000.0, ..TransformedGradientConfig::default() };
        assert_eq!(suite::check(&TransformedGradient::try_from(amplified).unwrap(), Strength::EXACT), Ok(()));
    }

    #[test]
    fn large_slopes_are_cut_and_small_ones_kept_in_proportion() {
        // Mean magnitude 2: the slopes are 2, 0.5, 0.25 and −1.25 means.
        let domain = Domain::grey_levels(&[4], 255.0).unwrap();
        let weights = vec![vec![4.0, 1.0, 0.5, -2.5]];
        let model = Linear::new(domain.clone(), Task::Binary { threshold: 0.0 }, weights, vec![-600.0]);
        let samples = Samples::new(vec![100.0; 4], &[4]).unwrap();
        let goal = Goal::Untargeted { labels: vec![Label::Class(0)] };
        let threat = ThreatModel::new(Norm::Linf, 8.0, domain).unwrap();
        let config =
            TransformedGradientConfig { steps: 1, relative_step_size: 1.0, ..TransformedGradientConfig::default() };
        let attack = TransformedGradient::try_from(config).unwrap();
        let outcome = attack.run(&model, &samples, &goal, &threat, Seed(1)).unwrap();
        assert_eq!(outcome.perturbed_inputs.row(0), [108.0, 104.0, 102.0, 92.0]);
    }

    #[test]
    fn smoothing_needs_space() {
        let smoothed = TransformedGradientConfig { kernel_size: 7, ..TransformedGradientConfig::default() };
        let attack = TransformedGradient::try_from(smoothed).unwrap();
        assert_eq!(suite::check(&attack, Strength { linear: 30.0, goals: false }), Ok(()));
        let domain = Domain::grey_levels(&[4], 255.0).unwrap();
        let model = Linear::new(domain.clone(), Task::Binary { threshold: 0.0 }, vec![vec![1.0; 4]], vec![-500.0]);
        let goal = Goal::Untargeted { labels: vec![Label::Class(0)] };
        let threat = ThreatModel::new(Norm::Linf, 8.0, domain).unwrap();
        let table = Samples::new(vec![100.0; 4], &[4]).unwrap();
        let error = attack.run(&model, &table, &goal, &threat, Seed(1)).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        for text in ["kernel = 3", "kernel_size = 4", "kernel_size = 0", "amplification = 0.0", "steps = 0"] {
            assert!(toml::from_str::<TransformedGradient>(text).is_err(), "{text}");
        }
    }
}
