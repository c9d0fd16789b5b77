//! Basic iterative method (BIM, I-FGSM), Linf.
//!
//! ```text
//! x₀ = x,  xₙ₊₁ = clip(xₙ + α·sign ∇ₓL(f(xₙ), y))  to the ball and the bounds
//! α = 1 grey level, N = min(ε + 4, 1.25·ε) steps, ε in grey levels (1/255 of the range)
//! ```
//!
//! Source: Kurakin, Goodfellow & Bengio, arXiv:1607.02533, section 2.2. Survey: \[64\]\[66\].
//!
//! Differs from the source: a sample stops at the first point that reaches the goal; N is rounded up, at least 1.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{
    ActiveSet, Attack, AttackInfo, AttackProblem, Error, Goal, GoalKind, Knowledge, Loss, Norm, Perturbation,
    ThreatModel,
};

use super::search::Search;
use super::step::ascend;

/// Settings of [`BasicIterative`] and of the iterative least-likely attack.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BasicIterativeConfig {
    /// Step α as a fraction of the range of the bounds; finite and above 0.
    pub step_fraction: f32,
    /// Gradient steps; 0 for the paper's rule.
    pub steps: usize,
}

impl Default for BasicIterativeConfig {
    /// The paper's: one of 255 grey levels, and its rule for the number of steps.
    fn default() -> Self {
        Self { step_fraction: 1.0 / 255.0, steps: 0 }
    }
}

impl BasicIterativeConfig {
    pub(super) fn check(self) -> Result<Self, Error> {
        if self.step_fraction.is_finite() && self.step_fraction > 0.0 {
            Ok(self)
        } else {
            Err(Error::invalid("step_fraction", "finite and above 0", self.step_fraction))
        }
    }

    /// The loop of the paper, steered by `steering`.
    pub(super) fn run(self, problem: &AttackProblem<'_>, steering: &Goal) -> Result<Perturbation, Error> {
        let mut active = ActiveSet::new(problem);
        let mut current = problem.inputs.clone();
        let size = self.step_fraction * problem.threat.domain().range();
        let search = Search { steering, loss: Loss::CrossEntropy, steps: self.steps_for(problem.threat) };
        search.run(problem, &mut active, &mut current, |gradient, point| {
            ascend(problem.threat, gradient, size, point);
        })?;
        Ok(active.finish(&current))
    }

    fn steps_for(self, threat: &ThreatModel) -> usize {
        if self.steps > 0 {
            return self.steps;
        }
        // No point of the bounds is farther than the range, whatever epsilon is.
        let grey_levels = 255.0 * threat.epsilon().min(threat.domain().range()) / threat.domain().range();
        ((grey_levels + 4.0).min(1.25 * grey_levels).ceil() as usize).max(1)
    }
}

/// BIM; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "BasicIterativeConfig")]
pub struct BasicIterative(BasicIterativeConfig);

impl TryFrom<BasicIterativeConfig> for BasicIterative {
    type Error = Error;

    fn try_from(config: BasicIterativeConfig) -> Result<Self, Error> {
        config.check().map(Self)
    }
}

impl BasicIterative {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "bim",
        title: "Basic iterative method",
        source: "Kurakin et al. 2016, arXiv:1607.02533",
        family: "gradient",
        norms: &[Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "steps gradients, 1 query",
        minimum_norm: false,
    };
}

impl Attack for BasicIterative {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs one gradient query a step and one query a sample.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        self.0.run(problem, problem.goal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::Domain;
    use nocebo_testkit::suite::{self, Strength};

    #[test]
    fn passes_the_common_suite() {
        let attack = BasicIterative::try_from(BasicIterativeConfig::default()).unwrap();
        assert_eq!(suite::check(&attack, Strength::EXACT), Ok(()));
    }

    #[test]
    fn counts_steps_by_the_rule_of_the_paper() {
        let steps = |epsilon, greatest| {
            let domain = Domain::grey_levels(&[1], greatest).unwrap();
            BasicIterativeConfig::default().steps_for(&ThreatModel::new(Norm::Linf, epsilon, domain).unwrap())
        };
        assert_eq!([steps(0.5, 255.0), steps(2.0, 255.0), steps(8.0, 255.0), steps(16.0, 255.0)], [1, 3, 10, 20]);
        assert_eq!(steps(48.0, 255.0), 52);
        // The same budget of a 12-bit image takes the same number of steps.
        assert_eq!(steps(8.0 * 4095.0 / 255.0, 4095.0), 10);
        assert_eq!(steps(f32::INFINITY, 255.0), 259);
    }

    #[test]
    fn unusable_settings_are_refused() {
        for step_fraction in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert!(BasicIterative::try_from(BasicIterativeConfig { step_fraction, steps: 0 }).is_err());
        }
        assert!(toml::from_str::<BasicIterative>("step = 3").is_err());
    }
}
