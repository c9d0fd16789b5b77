//! Universal adversarial perturbation (UAP), L2 and Linf.
//!
//! ```text
//! v = 0;  for each x of the set, in random order, that x + v does not fool:
//!     Δv = DeepFool(x + v)      v ← Π(v + Δv)  onto the ball of epsilon
//! until the share of fooled samples is at least 1 − δ
//! ```
//!
//! Source: Moosavi-Dezfooli et al., CVPR 2017, arXiv:1610.08401, algorithm 1; the inner search is
//! [`deep_fool`](crate::gradient::deep_fool). Survey: \[92\].
//!
//! Differs from the source: the best change over the passes is kept, not the last; with `batch` above 1 the mean of
//! the inner steps of several samples is taken, which asks the model about all of them at once.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{Attack, AttackInfo, AttackProblem, Error, GoalKind, Knowledge, Norm, Samples, ThreatModel};

use super::perturbation::{Passes, UniversalPerturbation};
use crate::fit::FitAttack;
use crate::gradient::deep_fool::{DeepFool, DeepFoolConfig};

/// Settings of [`Uap`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct UapConfig {
    /// Greatest number of passes over the set; at least 1.
    pub passes: usize,
    /// Share of the set that must be fooled, 1 − δ; 0 to 1.
    pub wanted: f64,
    /// Samples whose inner steps are taken at once; at least 1, 1 in the paper.
    pub batch: usize,
    /// Greatest number of steps of an inner search; at least 1.
    pub inner_steps: usize,
    /// How far an inner search goes past the boundary, as a fraction of the step; finite and at least 0.
    pub overshoot: f32,
    /// Boundaries that an inner search looks at, those of the strongest other classes; at least 1.
    pub candidates: usize,
}

impl Default for UapConfig {
    /// δ = 0.2 is the paper's, the inner settings those of the authors' code; the passes are ours.
    fn default() -> Self {
        Self { passes: 10, wanted: 0.8, batch: 1, inner_steps: 10, overshoot: 0.02, candidates: 9 }
    }
}

/// UAP before it has learned; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "UapConfig")]
pub struct Uap {
    passes: Passes,
    deep_fool: DeepFool,
}

impl TryFrom<UapConfig> for Uap {
    type Error = Error;

    fn try_from(config: UapConfig) -> Result<Self, Error> {
        let UapConfig { passes, wanted, batch, inner_steps, overshoot, candidates } = config;
        let passes = Passes { greatest: passes, wanted, batch };
        passes.check()?;
        if inner_steps == 0 {
            return Err(Error::invalid("inner_steps", "at least 1", inner_steps));
        }
        let inner = DeepFoolConfig { steps: inner_steps, overshoot, candidates, ..DeepFoolConfig::default() };
        Ok(Self { passes, deep_fool: inner.try_into()? })
    }
}

impl Uap {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "uap",
        title: "Universal adversarial perturbation",
        source: "Moosavi-Dezfooli et al. 2017, arXiv:1610.08401",
        family: "universal",
        norms: &[Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "1 query; learning: passes · (2 queries, inner_steps · candidates gradients) a sample",
        minimum_norm: false,
    };

    /// Learns the change; see [`FitAttack::fit`] for the checks that come before.
    ///
    /// A pass costs two queries a sample, and for each sample that is not fooled up to `inner_steps` queries with as
    /// many gradients each as there are candidates.
    ///
    /// # Errors
    ///
    /// Whatever the model returns.
    pub fn perturbation(&self, problem: &AttackProblem<'_>) -> Result<UniversalPerturbation, Error> {
        self.passes.run(problem, Self::INFO, |rows, points| self.deep_fool(problem, rows, points))
    }

    /// What takes each point across its nearest boundary; nothing where DeepFool does not arrive.
    fn deep_fool(&self, problem: &AttackProblem<'_>, rows: &[usize], start: &Samples) -> Result<Samples, Error> {
        let threat = ThreatModel::new(problem.threat.norm(), f32::INFINITY, problem.threat.domain().clone())?;
        let goal = problem.goal.select(rows);
        let inner = AttackProblem { inputs: start, goal: &goal, threat: &threat, ..*problem };
        let mut change = self.deep_fool.perturb(&inner)?.inputs;
        for (change, start) in change.values_mut().iter_mut().zip(start.values()) {
            *change -= start;
        }
        Ok(change)
    }
}

impl FitAttack for Uap {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    fn learn(&self, problem: &AttackProblem<'_>) -> Result<Box<dyn Attack>, Error> {
        Ok(Box::new(self.perturbation(problem)?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::perturbation::testing;
    use super::*;
    use nocebo_core::{Goal, Label, Oracle, Seed};
    use nocebo_testkit::suite;

    fn uap(config: UapConfig) -> Uap {
        Uap::try_from(config).unwrap()
    }

    #[test]
    fn flips_a_linear_model_just_above_the_greatest_least_change() {
        // One change flips all: along the weights its length must be the greatest of the least changes.
        let all = UapConfig { wanted: 1.0, ..UapConfig::default() };
        for norm in [Norm::L2, Norm::Linf] {
            assert_eq!(testing::flipped(&uap(all), norm, 1.03), 1.0, "{norm}");
            assert!(testing::flipped(&uap(all), norm, 0.97) < 1.0, "{norm}");
        }
        testing::mechanics(&uap(all));
    }

    #[test]
    fn the_inner_step_is_exact_on_linear_models() {
        let (model, samples) = (suite::linear_classifier(), suite::ct_samples());
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        for norm in [Norm::L2, Norm::Linf] {
            let threat = ThreatModel::new(norm, f32::INFINITY, suite::ct_domain()).unwrap();
            let oracle = Oracle::new(&model, None);
            let problem =
                AttackProblem { oracle: &oracle, inputs: &samples, goal: &goal, threat: &threat, seed: Seed(1) };
            let rows: Vec<usize> = (0..samples.len()).collect();
            let change = uap(UapConfig::default()).deep_fool(&problem, &rows, &samples).unwrap();
            for row in rows {
                let length = norm.distance(change.row(row), &[0.0; 12]);
                let least = model.least_change(norm, samples.row(row));
                assert!((length / least - 1.02).abs() < 1e-3, "{norm} {row}: {length} {least}");
            }
        }
    }

    #[test]
    fn serves_every_goal_and_a_batch_at_once() {
        let (model, samples) = (suite::linear_classifier(), suite::ct_samples());
        let labels = suite::decided(&model, &samples);
        let rows: Vec<usize> = (0..samples.len()).filter(|&row| labels[row] != Label::Class(2)).collect();
        let labels: Vec<Label> = rows.iter().map(|&row| labels[row].clone()).collect();
        let targets = vec![Label::Class(2); rows.len()];
        let threat = ThreatModel::new(Norm::L2, 2500.0, suite::ct_domain()).unwrap();
        for batch in [1, 4] {
            let attack = uap(UapConfig { wanted: 1.0, batch, ..UapConfig::default() });
            for goal in [
                Goal::Targeted { labels: labels.clone(), targets: targets.clone() },
                Goal::FalsePositive { finding: 2 },
                Goal::Untargeted { labels: labels.clone() },
            ] {
                let oracle = Oracle::new(&model, None);
                let inputs = samples.select(&rows);
                let problem =
                    AttackProblem { oracle: &oracle, inputs: &inputs, goal: &goal, threat: &threat, seed: Seed(1) };
                let change = attack.perturbation(&problem).unwrap();
                assert!(change.fooled() > 0.8, "{batch} {goal:?}: {}", change.fooled());
            }
        }
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        for text in [
            "delta = 0.2",
            "passes = 0",
            "wanted = 1.1",
            "wanted = nan",
            "batch = 0",
            "candidates = 0",
            "overshoot = -1.0",
        ] {
            assert!(toml::from_str::<Uap>(text).is_err(), "{text}");
        }
    }
}
