//! Fast gradient sign method (FGSM), and the fast gradient method (FGM) in the other norms.
//!
//! ```text
//! Linf  x' = clip(x + ε·sign ∇ₓL(f(x), y))
//! L2    x' = clip(x + ε·∇ₓL / ‖∇ₓL‖₂)
//! targeted: L is the log-likelihood of the wanted class, so the step still ascends
//! ```
//!
//! Source: Goodfellow, Shlens & Szegedy, ICLR 2015, arXiv:1412.6572, section 4. Survey: \[42\].
//!
//! Differs from the source: L1 and L0 are ours: the point of ball ∩ bounds where the linearised loss is greatest.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{ActiveSet, Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Perturbation};

use super::search::Search;
use super::step::ascend_fully;

/// Settings of [`FastGradient`].
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct FastGradientConfig {
    /// Objective to ascend; cross-entropy in the paper.
    pub loss: Loss,
}

/// FGSM or FGM; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "FastGradientConfig")]
pub struct FastGradient(FastGradientConfig);

impl TryFrom<FastGradientConfig> for FastGradient {
    type Error = Error;

    fn try_from(config: FastGradientConfig) -> Result<Self, Error> {
        Ok(Self(config))
    }
}

impl FastGradient {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "fgsm",
        title: "Fast gradient (sign) method",
        source: "Goodfellow et al. 2015, arXiv:1412.6572",
        family: "gradient",
        norms: &[Norm::L0, Norm::L1, Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "1 gradient, 1 query",
        minimum_norm: false,
    };
}

impl Attack for FastGradient {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs one gradient query and one query a sample.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let mut active = ActiveSet::new(problem);
        let mut current = problem.inputs.clone();
        let search = Search { steering: problem.goal, loss: self.0.loss, steps: 1 };
        search.run(problem, &mut active, &mut current, |gradient, point| {
            ascend_fully(problem.threat, gradient, point);
        })?;
        Ok(active.finish(&current))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Goal, Seed, ThreatModel};
    use nocebo_testkit::suite::{self, Strength};

    #[test]
    fn passes_the_common_suite() {
        let attack = FastGradient::try_from(FastGradientConfig::default()).unwrap();
        assert_eq!(suite::check(&attack, Strength { goals: false, ..Strength::EXACT }), Ok(()));
    }

    #[test]
    fn is_the_sign_of_the_gradient_on_a_linear_model() {
        let (model, samples) = (suite::linear_binary(), suite::ct_samples().select(&[0]));
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        let threat = ThreatModel::new(Norm::Linf, 2.0, suite::ct_domain()).unwrap();
        let attack = FastGradient::try_from(FastGradientConfig::default()).unwrap();
        let outcome = attack.run(&model, &samples, &goal, &threat, Seed(1)).unwrap();
        let towards = if model.logits(samples.row(0))[0] > 0.0 { -1.0 } else { 1.0 };
        for at in 0..12 {
            let weight = ((at * 5 + 3) % 11) as f32 / 5.0 - 1.1;
            let moved = outcome.perturbed_inputs.row(0)[at] - samples.row(0)[at];
            assert_eq!(moved, towards * 2.0 * weight.signum(), "element {at}");
        }
        assert_eq!((outcome.queries[0].forward, outcome.queries[0].backward), (3, 1));
    }
}
