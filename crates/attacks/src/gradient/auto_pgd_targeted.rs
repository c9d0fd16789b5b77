//! Targeted Auto-PGD (APGD-T): APGD towards one class after another, by falling clean logit.
//!
//! ```text
//! for t in the classes with the 2nd, 3rd, … greatest logit of x:  APGD on the targeted objective of t
//! ```
//!
//! Source: Croce & Hein, ICML 2020, arXiv:2003.01690, section 5 (targeted DLR, 9 targets, 100 steps each).
//!
//! Differs from the source: min(9, K − 1) targets, where the source expects ten classes. Targeted DLR needs four
//! classes and is refused below; set the margin loss for two or three. A sample leaves as soon as it reaches the goal,
//! through whatever class. A goal that names its target has that one target. Findings do not exclude each other: an
//! untargeted multi-label goal heads for the flip of one finding after another, nearest to its threshold first.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{ActiveSet, Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Loss, Norm, Perturbation};

use super::auto_pgd::AutoPgdConfig;
use crate::boundaries::Boundaries;

/// Settings of [`AutoPgdTargeted`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AutoPgdTargetedConfig {
    /// Objective to ascend; DLR in the paper, which needs four classes.
    pub loss: Loss,
    /// Classes to head for, one after another; at least 1, and at most the other classes are used.
    pub targets: usize,
    /// Gradient steps for each target and restart; at least 1.
    pub steps: usize,
    /// Searches for each target; at least 1.
    pub restarts: usize,
    /// Greatest fraction ρ of raising steps at which the step is halved (L2, Linf); in [0, 1].
    pub rho: f32,
    /// L1 only: search at 3ε for 30 % of the steps, at 2ε for 30 %, then at ε.
    pub larger_radii: bool,
}

impl Default for AutoPgdTargetedConfig {
    /// Those of AutoAttack's `apgd-t`.
    fn default() -> Self {
        Self { loss: Loss::Dlr, targets: 9, steps: 100, restarts: 1, rho: 0.75, larger_radii: false }
    }
}

/// APGD-T; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "AutoPgdTargetedConfig")]
pub struct AutoPgdTargeted {
    targets: usize,
    search: AutoPgdConfig,
}

impl TryFrom<AutoPgdTargetedConfig> for AutoPgdTargeted {
    type Error = Error;

    fn try_from(config: AutoPgdTargetedConfig) -> Result<Self, Error> {
        if config.targets == 0 {
            return Err(Error::invalid("targets", "at least 1", config.targets));
        }
        let AutoPgdTargetedConfig { loss, targets, steps, restarts, rho, larger_radii } = config;
        Ok(Self { targets, search: AutoPgdConfig { loss, steps, restarts, rho, larger_radii }.check()? })
    }
}

impl AutoPgdTargeted {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "apgd-t",
        title: "Targeted Auto-PGD",
        source: "Croce & Hein 2020, arXiv:2003.01690",
        family: "gradient",
        norms: &[Norm::L1, Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "targets · restarts · (steps gradients, 1 query), 1 query",
        minimum_norm: false,
    };
}

impl Attack for AutoPgdTargeted {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs `steps` gradient queries and one query a sample, target and restart, and one query a sample to rank the
    /// targets.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let boundaries = Boundaries::new(problem, self.targets)?;
        let mut active = ActiveSet::new(problem);
        let mut last = problem.inputs.clone();
        for rank in 0..boundaries.ways() {
            let seed = problem.seed.stream(rank as u64);
            let mut search = |objective| self.search.run(problem, &mut active, &mut last, objective, seed);
            if let Some(goal) = boundaries.targeted_goal(rank) {
                search(&problem.objective(&goal, self.search.loss)?)?;
            } else if boundaries.ways() > 1 {
                if self.search.loss == Loss::Dlr {
                    // Refuses DLR, with its reason.
                    problem.objective(problem.goal, Loss::Dlr)?;
                }
                search(&boundaries.crossing(rank))?;
            } else {
                search(&problem.objective(problem.goal, self.search.loss)?)?;
            }
        }
        Ok(active.finish(&last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{DifferentiableModel, Goal, Label, Samples, Seed, Task, ThreatModel};
    use nocebo_testkit::models::{Constant, Linear};
    use nocebo_testkit::suite::{self, InNorm, Strength};

    fn attack(config: AutoPgdTargetedConfig) -> AutoPgdTargeted {
        AutoPgdTargeted::try_from(config).unwrap()
    }

    fn with_loss(loss: Loss) -> AutoPgdTargeted {
        attack(AutoPgdTargetedConfig { loss, ..AutoPgdTargetedConfig::default() })
    }

    #[test]
    fn passes_the_common_suite() {
        let attack = with_loss(Loss::Margin);
        let exact = suite::check(&InNorm(&attack, &[Norm::L2, Norm::Linf]), Strength::EXACT);
        assert_eq!(exact, Ok(()));
        assert_eq!(suite::check(&InNorm(&attack, &[Norm::L1]), Strength { linear: 1.1, goals: true }), Ok(()));
    }

    #[test]
    fn finds_the_nearest_of_several_classes() {
        let (model, inputs) = (suite::linear_classifier(), suite::ct_samples());
        for loss in [Loss::Dlr, Loss::Margin, Loss::CrossEntropy] {
            for norm in [Norm::L2, Norm::Linf] {
                for row in 0..inputs.len() {
                    let sample = inputs.select(&[row]);
                    let goal = Goal::Untargeted { labels: suite::decided(&model, &sample) };
                    let least = model.least_change(norm, sample.row(0)) as f32;
                    let threat = ThreatModel::new(norm, 1.02 * least, suite::ct_domain()).unwrap();
                    let outcome = with_loss(loss).run(&model, &sample, &goal, &threat, Seed(1)).unwrap();
                    assert!(outcome.success[0], "{loss:?} {norm} {row}");
                }
            }
        }
    }

    #[test]
    fn few_classes_and_findings_get_a_refusal_or_the_margin() {
        let inputs = suite::ct_samples();
        let threat = ThreatModel::new(Norm::Linf, 1000.0, suite::ct_domain()).unwrap();
        let weights = |rows: usize| (0..rows).map(|row| vec![1.0 - row as f32; 12]).collect::<Vec<_>>();
        let findings = Linear::new(
            suite::ct_domain(),
            Task::MultiLabel { thresholds: vec![0.5, 0.0] },
            weights(2),
            vec![0.1, 2.0],
        );
        let models: [&dyn DifferentiableModel; 4] =
            [&suite::linear_pair(), &suite::linear_binary(), &suite::small_relu(), &findings];
        for model in models {
            let goal = Goal::Untargeted { labels: suite::decided(model, &inputs) };
            let refused = with_loss(Loss::Dlr).run(model, &inputs, &goal, &threat, Seed(1)).unwrap_err().to_string();
            assert!(refused.contains("DLR loss") && refused.contains("margin"), "{refused}");
            let outcome = with_loss(Loss::Margin).run(model, &inputs, &goal, &threat, Seed(1)).unwrap();
            assert!(outcome.success.iter().all(|reached| *reached), "{:?}", model.spec().task);
        }
    }

    #[test]
    fn heads_for_at_most_the_other_classes() {
        let inputs = Samples::new(vec![0.0; 12], &[1, 3, 4]).unwrap();
        let threat = ThreatModel::new(Norm::Linf, 10.0, suite::ct_domain()).unwrap();
        for (classes, targets, expected) in [(2, 9, 1), (4, 9, 3), (12, 9, 9), (12, 3, 3)] {
            let model = Constant::new(suite::ct_domain(), (0..classes).map(|class| class as f32).collect());
            let goal = Goal::Untargeted { labels: vec![Label::Class(classes - 1)] };
            let config = AutoPgdTargetedConfig { targets, steps: 5, loss: Loss::Margin, ..Default::default() };
            let outcome = attack(config).run(&model, &inputs, &goal, &threat, Seed(1)).unwrap();
            // Five gradients and a last look for each target, the ranking, and the first look at the clean sample.
            assert_eq!(outcome.queries[0].forward, 2 + 6 * expected, "{classes} classes");
        }
    }

    #[test]
    fn unusable_settings_are_refused() {
        for text in ["targets = 0", "steps = 0", "rho = -1.0", "classes = 9"] {
            assert!(toml::from_str::<AutoPgdTargeted>(text).is_err(), "{text}");
        }
    }
}
