//! Targeted fast adaptive boundary attack (FAB-T), L1, L2 and Linf: FAB against one other class after another.
//!
//! ```text
//! classes in the order of their logits at the clean sample, the true one left out
//! for each of the first of them: FAB with the boundary to this class alone; any reached goal counts
//! ```
//!
//! A step needs one gradient, however many classes there are.
//!
//! Source: Croce & Hein, ICML 2020, arXiv:2003.01690, section 5 and its code (AutoAttack); FAB: arXiv:1907.02044.
//!
//! Differs from the source: as [`super::fab`]; a goal with one boundary (a target, a binary task) is walked once.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Norm, Perturbation};

use super::fab::{FabConfig, walk};
use super::settings::at_least_one;
use crate::boundaries::Boundaries;
use crate::nearest::Nearest;

/// Settings of [`TargetedFab`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TargetedFabConfig {
    /// Greatest number of classes (findings of a multi-label task) that are tried; at least 1.
    pub target_classes: usize,
    /// Settings of each walk.
    pub fab: FabConfig,
}

impl Default for TargetedFabConfig {
    /// Values of AutoAttack.
    fn default() -> Self {
        Self { target_classes: 9, fab: FabConfig::default() }
    }
}

/// FAB-T; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "TargetedFabConfig")]
pub struct TargetedFab(TargetedFabConfig);

impl TryFrom<TargetedFabConfig> for TargetedFab {
    type Error = Error;

    fn try_from(config: TargetedFabConfig) -> Result<Self, Error> {
        at_least_one("target_classes", config.target_classes)?;
        config.fab.check()?;
        Ok(Self(config))
    }
}

impl TargetedFab {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "fab-t",
        title: "Targeted fast adaptive boundary",
        source: "Croce & Hein 2020, arXiv:2003.01690",
        family: "minimum_norm",
        norms: &[Norm::L1, Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "target_classes · restarts · steps · (2 queries, 1 gradient), 1 query",
        minimum_norm: true,
    };
}

impl Attack for TargetedFab {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Costs one query a sample, and two queries and one gradient query a sample, step, restart and class. With a
    /// finite epsilon a sample that was found inside it leaves before the next class.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let boundaries = Boundaries::new(problem, self.0.target_classes)?;
        let mut nearest = Nearest::new(problem);
        for rank in 0..boundaries.ways() {
            for restart in 0..self.0.fab.restarts {
                walk(problem, self.0.fab, &[boundaries.crossing(rank)], restart, &mut nearest)?;
            }
        }
        Ok(nearest.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Goal, Seed, ThreatModel};
    use nocebo_testkit::suite::{self, Strength};

    const QUICK: TargetedFabConfig = TargetedFabConfig {
        target_classes: 9,
        fab: FabConfig { steps: 20, restarts: 1, greatest_bias: 0.1, overshoot: 1.05, backward: 0.9 },
    };

    #[test]
    fn passes_the_common_suite() {
        let attack = TargetedFab::try_from(QUICK).unwrap();
        assert_eq!(suite::check(&attack, Strength { linear: 1.01, goals: true }), Ok(()));
    }

    #[test]
    fn finds_the_nearest_of_four_classes_and_fewer_classes_cost_less() {
        let (model, samples) = (suite::linear_classifier(), suite::ct_samples());
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        for norm in [Norm::L1, Norm::L2, Norm::Linf] {
            let threat = ThreatModel::new(norm, f32::INFINITY, suite::ct_domain()).unwrap();
            let attack = TargetedFab::try_from(QUICK).unwrap();
            let outcome = attack.run(&model, &samples, &goal, &threat, Seed(1)).unwrap();
            for (clean, point) in samples.rows().zip(outcome.perturbed_inputs.rows()) {
                let ratio = norm.distance(clean, point) / model.least_change(norm, clean);
                assert!((0.9999..1.01).contains(&ratio), "{norm} {ratio}");
            }
            let attack = TargetedFab::try_from(TargetedFabConfig { target_classes: 1, ..QUICK }).unwrap();
            let fewer = attack.run(&model, &samples, &goal, &threat, Seed(1)).unwrap();
            assert_eq!((outcome.queries[0].backward, fewer.queries[0].backward), (60, 20));
        }
    }

    #[test]
    fn invalid_settings_are_refused() {
        for text in ["target_classes = 0", "fab.steps = 0", "steps = 3"] {
            assert!(toml::from_str::<TargetedFab>(text).is_err(), "{text}");
        }
    }
}
