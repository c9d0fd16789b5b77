//! Decision-tree path attack: change the features on the way to another leaf, each just past its threshold; any norm.
//!
//! ```text
//! learn a tree from the model's decisions (or take the tree that is the model)
//! for each leaf that reaches the goal: move every feature that its path asks for by the least that satisfies it,
//!     up to the threshold from above, or past it by an offset from below
//! take the leaf of least change in the norm of the threat model
//! ```
//!
//! Source: Papernot, `McDaniel` & Goodfellow 2016, arXiv:1605.07277, section 3 (decision trees). Survey: \[93\]\[95\].
//!
//! Differs from the source: of all leaves that reach the goal the one of least change is taken, where the source takes the
//! one that is nearest in the tree; on the tree itself the result is therefore the least change, up to the offset. Features
//! that may not change, and leaves beyond the bounds, are respected.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{
    ActiveSet, Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Model, Norm, Perturbation,
};

use super::tree::{DecisionTree, Leaf};
use crate::fit::FitAttack;
use crate::gradient::search::look;

/// Settings of [`DecisionTreePath`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DecisionTreePathConfig {
    /// Greatest number of splits on the way to a leaf of the learned tree; 1 to 64.
    pub depth: usize,
    /// How far past a threshold a feature goes, as a fraction of its range; finite and at least 0, 0 for the next float.
    pub offset: f64,
}

impl Default for DecisionTreePathConfig {
    /// Chosen here: an offset that survives rounding to 8 bits, thresholds lying halfway between values.
    fn default() -> Self {
        Self { depth: 16, offset: 1e-3 }
    }
}

/// The attack before it has a tree; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "DecisionTreePathConfig")]
pub struct DecisionTreePath(DecisionTreePathConfig);

impl TryFrom<DecisionTreePathConfig> for DecisionTreePath {
    type Error = Error;

    fn try_from(config: DecisionTreePathConfig) -> Result<Self, Error> {
        if !(1..=64).contains(&config.depth) {
            return Err(Error::invalid("depth", "1 to 64", config.depth));
        }
        if !(config.offset.is_finite() && config.offset >= 0.0) {
            return Err(Error::invalid("offset", "finite and at least 0", config.offset));
        }
        Ok(Self(config))
    }
}

impl DecisionTreePath {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "decision-tree-path",
        title: "Path to another leaf of a decision tree",
        source: "Papernot et al. 2016, arXiv:1605.07277",
        family: "decision",
        norms: &[Norm::L0, Norm::L1, Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Decisions,
        cost: "1 query; learning: 1 query a sample",
        minimum_norm: false,
    };

    /// The attack on a tree that is known: the model itself, or one learned from it.
    pub fn on(&self, tree: &DecisionTree) -> DecisionTreePathAttack {
        DecisionTreePathAttack { offset: self.0.offset, task: tree.spec().task.clone(), leaves: tree.leaves() }
    }
}

impl FitAttack for DecisionTreePath {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    fn learn(&self, problem: &AttackProblem<'_>) -> Result<Box<dyn Attack>, Error> {
        let spec = problem.oracle.spec();
        let outputs = problem.oracle.outputs(problem.inputs)?;
        let labels: Vec<_> = outputs.rows().map(|logits| spec.task.decide(logits)).collect();
        Ok(Box::new(self.on(&DecisionTree::train(spec, problem.inputs, &labels, self.0.depth)?)))
    }
}

/// The attack along the paths of one tree.
pub struct DecisionTreePathAttack {
    offset: f64,
    task: nocebo_core::Task,
    leaves: Vec<Leaf>,
}

impl DecisionTreePathAttack {
    /// The nearest point to `clean` in this leaf, or nothing where bounds or region keep it out.
    fn point(&self, problem: &AttackProblem<'_>, clean: &[f32], leaf: &Leaf) -> Option<Vec<f32>> {
        let domain = problem.threat.domain();
        let mut point = clean.to_vec();
        for (&feature, &(above, most)) in &leaf.bounds {
            let (lower, upper) = (domain.lower()[feature], domain.upper()[feature]);
            let value = &mut point[feature];
            if *value <= above {
                let past = f64::from(above) + self.offset * (f64::from(upper) - f64::from(lower));
                // Not beyond the other threshold of the leaf, nor beyond the bounds.
                *value = (past as f32).max(above.next_up()).min(most).min(upper);
            } else if *value > most {
                *value = most.max(lower);
            }
            let inside = *value > above && *value <= most;
            if !inside || (*value != clean[feature] && !domain.is_mutable(feature)) {
                return None;
            }
        }
        Some(point)
    }
}

impl Attack for DecisionTreePathAttack {
    fn info(&self) -> AttackInfo {
        DecisionTreePath::INFO
    }

    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        if self.task != problem.oracle.spec().task {
            let tasks = (format!("{:?}", self.task), format!("{:?}", problem.oracle.spec().task));
            return Err(Error::mismatch("task of the model that a tree was learned from", tasks.0, tasks.1));
        }
        let mut points = problem.inputs.clone();
        for (row, clean) in problem.inputs.rows().enumerate() {
            let norm = problem.threat.norm();
            let nearest = self
                .leaves
                .iter()
                .filter(|leaf| reaches(problem, row, leaf))
                .filter_map(|leaf| self.point(problem, clean, leaf))
                .min_by(|a, b| norm.distance(clean, a).total_cmp(&norm.distance(clean, b)));
            if let Some(point) = nearest.filter(|point| problem.threat.allows(clean, point)) {
                points.row_mut(row).copy_from_slice(&point);
            }
        }
        let mut active = ActiveSet::new(problem);
        look(problem, &mut active, &points)?;
        Ok(active.finish(&points))
    }
}

/// Whether what the leaf decides is what the attacker wants of this row.
fn reaches(problem: &AttackProblem<'_>, row: usize, leaf: &Leaf) -> bool {
    use nocebo_core::{Goal, has_finding};
    match problem.goal {
        Goal::Untargeted { labels } => leaf.label != labels[row],
        Goal::Targeted { targets, .. } => leaf.label == targets[row],
        Goal::FalseNegative { finding } => !has_finding(&leaf.label, *finding),
        Goal::FalsePositive { finding } => has_finding(&leaf.label, *finding),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{BlackBox, Domain, Goal, Label, ModelSpec, Samples, Seed, Task, ThreatModel};
    use nocebo_testkit::suite;

    fn domain() -> Domain {
        Domain::grey_levels(&[3], 100.0).unwrap()
    }

    /// Splits of 60 samples of three features by two rules; the third feature says nothing.
    fn tree() -> DecisionTree {
        let values: Vec<f32> = (0..180).map(|at| ((at * 7919 + 13) % 101) as f32).collect();
        let samples = Samples::new(values, &[3]).unwrap();
        let labels: Vec<Label> = samples
            .rows()
            .map(|row| Label::Class(if row[0] <= 40.0 { 0 } else { 1 + usize::from(row[1] > 70.0) }))
            .collect();
        let class_names = ["a", "b", "c"].map(str::to_owned).to_vec();
        let spec = ModelSpec { domain: domain(), task: Task::MultiClass { classes: 3 }, class_names };
        DecisionTree::train(&spec, &samples, &labels, 16).unwrap()
    }

    fn attack() -> DecisionTreePath {
        DecisionTreePath::try_from(DecisionTreePathConfig { offset: 0.0, ..DecisionTreePathConfig::default() }).unwrap()
    }

    fn queries() -> Samples {
        Samples::new(vec![30.0, 20.0, 5.0, 60.0, 65.0, 5.0, 90.0, 90.0, 9.0, 44.0, 10.0, 9.0], &[3]).unwrap()
    }

    /// The least change to any other decision, found by trying every corner of a fine grid of the first two features.
    fn least_change(tree: &DecisionTree, norm: Norm, clean: &[f32]) -> f64 {
        let own = tree.decide(clean);
        let mut least = f64::INFINITY;
        let values = |own: f32| (0..=400).map(|at| at as f32 / 4.0).chain([own]).collect::<Vec<_>>();
        for first in values(clean[0]) {
            for second in values(clean[1]) {
                let point = [first, second, clean[2]];
                if tree.decide(&point) != own {
                    least = least.min(norm.distance(clean, &point));
                }
            }
        }
        least
    }

    #[test]
    fn finds_the_least_change_of_the_tree_itself() {
        let tree = tree();
        let model = BlackBox(tree.clone());
        let samples = queries();
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        for norm in [Norm::L0, Norm::L1, Norm::L2, Norm::Linf] {
            for row in 0..samples.len() {
                let (clean, goal) = (samples.select(&[row]), goal.select(&[row]));
                let least = least_change(&tree, norm, clean.row(0));
                let run = |epsilon: f64| {
                    let threat = ThreatModel::new(norm, epsilon as f32, domain()).unwrap();
                    attack().on(&tree).run(&model, &clean, &goal, &threat, Seed(1)).unwrap()
                };
                // The grid is a quarter of a unit; thresholds lie halfway between whole numbers.
                assert!(run(least + 1e-3).success[0], "{norm} {row}: {least}");
                let below = run(if norm == Norm::L0 { least - 1.0 } else { least - 0.26 });
                assert!(!below.success[0] && below.perturbed_inputs == clean, "{norm} {row}: {least}");
            }
        }
    }

    #[test]
    fn changes_only_what_the_path_asks_for_and_what_may_change() {
        let (tree, model, samples) = (tree(), BlackBox(tree()), queries());
        let goals = [
            Goal::Untargeted { labels: suite::decided(&model, &samples) },
            Goal::FalsePositive { finding: 2 },
            Goal::FalseNegative { finding: 1 },
        ];
        let fixed = domain().with_region(vec![false, true, true]).unwrap();
        for goal in goals {
            for domain in [domain(), fixed.clone()] {
                let threat = ThreatModel::new(Norm::Linf, 100.0, domain.clone()).unwrap();
                let outcome = attack().on(&tree).run(&model, &samples, &goal, &threat, Seed(1)).unwrap();
                for (row, (clean, point)) in samples.rows().zip(outcome.perturbed_inputs.rows()).enumerate() {
                    assert!(threat.allows(clean, point) && (outcome.success[row] || clean == point), "{goal:?} {row}");
                    assert!(outcome.success[row] || !domain.is_mutable(0), "{goal:?} {row}");
                }
            }
        }
    }

    #[test]
    fn passes_the_mechanics_of_the_suite_with_a_learned_tree() {
        let (model, samples) = (suite::linear_classifier(), suite::ct_samples());
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        let threat = ThreatModel::new(Norm::Linf, 100.0, suite::ct_domain()).unwrap();
        // The models of the suite have two, three and four classes; the tree of one serves only that one.
        let learned = attack().fit(&BlackBox(model), &samples, &goal, &threat, Seed(1)).unwrap();
        let outcome = learned.run(&suite::linear_classifier(), &samples, &goal, &threat, Seed(1)).unwrap();
        assert!(outcome.queries.iter().all(|spent| spent.forward <= 2 && spent.backward == 0));
        let other =
            learned.run(&suite::linear_binary(), &samples, &Goal::FalseNegative { finding: 1 }, &threat, Seed(1));
        assert!(matches!(other, Err(Error::Mismatch { .. })));
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        for text in ["leaf = 1", "depth = 0", "depth = 65", "offset = nan", "offset = -1.0"] {
            assert!(toml::from_str::<DecisionTreePath>(text).is_err(), "{text}");
        }
    }
}
