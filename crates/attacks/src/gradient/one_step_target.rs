//! One-step target-class attack ("step l.l.", "step rnd."), Linf.
//!
//! ```text
//! x' = clip(x − ε·sign ∇ₓJ(f(x), t)),  t = argminₖ p(k|x) or a random class
//! ```
//!
//! It exists to avoid label leaking: a model trained on FGSM can learn to read the true label off the sign pattern.
//!
//! Source: Kurakin, Goodfellow & Bengio, ICLR 2017, arXiv:1611.01236, section 2. Survey: \[65\].
//!
//! Differs from the source: the random class is never the true one; a goal that names a target keeps it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{ActiveSet, Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Perturbation};

use super::search::Search;
use super::step::ascend_fully;
pub use super::target_class::TargetClass;

/// Settings of [`OneStepTarget`].
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct OneStepTargetConfig {
    /// Class to head for; the paper recommends the least likely one.
    pub target_class: TargetClass,
}

/// One-step target-class attack; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "OneStepTargetConfig")]
pub struct OneStepTarget(OneStepTargetConfig);

impl TryFrom<OneStepTargetConfig> for OneStepTarget {
    type Error = Error;

    fn try_from(config: OneStepTargetConfig) -> Result<Self, Error> {
        Ok(Self(config))
    }
}

impl OneStepTarget {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "one-step-target",
        title: "One-step target class (step l.l.)",
        source: "Kurakin et al. 2017, arXiv:1611.01236",
        family: "gradient",
        norms: &[Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "1 gradient, 2 queries",
        minimum_norm: false,
    };
}

impl Attack for OneStepTarget {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs one gradient query and one query a sample, and one more where the least likely class must be found.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let steering = self.0.target_class.steering(problem)?;
        let mut active = ActiveSet::new(problem);
        let mut current = problem.inputs.clone();
        let search = Search { steering: &steering, loss: Loss::CrossEntropy, steps: 1 };
        search.run(problem, &mut active, &mut current, |gradient, point| {
            ascend_fully(problem.threat, gradient, point);
        })?;
        Ok(active.finish(&current))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Goal, Label, Seed, ThreatModel};
    use nocebo_testkit::suite::{self, Strength};

    #[test]
    fn passes_the_common_suite() {
        for target_class in [TargetClass::LeastLikely, TargetClass::Random] {
            let attack = OneStepTarget::try_from(OneStepTargetConfig { target_class }).unwrap();
            assert_eq!(suite::check(&attack, Strength { goals: false, ..Strength::EXACT }), Ok(()), "{target_class:?}");
        }
    }

    #[test]
    fn heads_for_the_least_likely_class() {
        // Class 2 has the least logit; the difference of its weights to the rest decides every sign.
        let domain = nocebo_core::Domain::grey_levels(&[2], 255.0).unwrap();
        let task = nocebo_core::Task::MultiClass { classes: 3 };
        let weights = vec![vec![1.0, 0.0], vec![0.5, 0.5], vec![-1.0, 2.0]];
        let model = nocebo_testkit::models::Linear::new(domain.clone(), task, weights, vec![0.0; 3]);
        let samples = nocebo_core::Samples::new(vec![100.0, 20.0], &[2]).unwrap();
        let goal = Goal::Untargeted { labels: vec![Label::Class(0)] };
        let threat = ThreatModel::new(Norm::Linf, 3.0, domain).unwrap();
        let attack = OneStepTarget::try_from(OneStepTargetConfig::default()).unwrap();
        let outcome = attack.run(&model, &samples, &goal, &threat, Seed(1)).unwrap();
        assert_eq!(outcome.perturbed_inputs.row(0), [97.0, 23.0]);
    }
}
