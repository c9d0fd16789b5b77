//! Universal adversarial perturbation (UAP), L2 and Linf.
//!
//! ```text
//! v = 0;  for each x of the set, in random order, that x + v does not fool:
//!     Δv = DeepFool(x + v)      v ← Π(v + Δv)  onto the ball of epsilon
//! until the share of fooled samples is at least 1 − δ
//! DeepFool: r += |fₖ|/‖wₖ‖²·wₖ for the nearest rival class k (Linf: |fₖ|/‖wₖ‖₁·sign wₖ), then (1 + overshoot)·r
//! ```
//!
//! Source: Moosavi-Dezfooli et al., CVPR 2017, arXiv:1610.08401, algorithm 1; its inner step: Moosavi-Dezfooli et al.,
//! CVPR 2016, arXiv:1511.04599. Survey: [92].
//!
//! Differs from the source: the best change over the passes is kept, not the last; with `batch` above 1 the mean of
//! the inner steps of several samples is taken, which asks the model about all of them at once; for goals other than
//! leaving a class the inner step follows the margin of the goal.

use serde::{Deserialize, Serialize};

use nocebo_core::{
    Attack, AttackInfo, AttackProblem, Error, Goal, GoalObjective, Gradient, Knowledge, Label, Loss, Norm, Objective,
    Samples, Task,
};

use super::perturbation::{Passes, UniversalPerturbation};
use crate::fit::FitAttack;
use crate::gradient::step::sign;

/// Settings of [`Uap`].
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
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
    /// Rival classes that an inner search looks at, those with the greatest logits; at least 1.
    pub rivals: usize,
}

impl Default for UapConfig {
    /// δ = 0.2 is the paper's, the inner settings those of the authors' code; the passes are ours.
    fn default() -> Self {
        Self { passes: 10, wanted: 0.8, batch: 1, inner_steps: 10, overshoot: 0.02, rivals: 9 }
    }
}

/// UAP before it has learned; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "UapConfig")]
pub struct Uap(UapConfig);

impl TryFrom<UapConfig> for Uap {
    type Error = Error;

    fn try_from(config: UapConfig) -> Result<Self, Error> {
        let UapConfig { passes, wanted, batch, .. } = config;
        Passes { greatest: passes, wanted, batch }.check()?;
        for (field, value) in [("inner_steps", config.inner_steps), ("rivals", config.rivals)] {
            if value == 0 {
                return Err(Error::invalid(field, "at least 1", value));
            }
        }
        if !(config.overshoot.is_finite() && config.overshoot >= 0.0) {
            return Err(Error::invalid("overshoot", "finite and at least 0", config.overshoot));
        }
        Ok(Self(config))
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
        knowledge: Knowledge::Gradients,
        minimum_norm: false,
    };

    /// Learns the change; see [`FitAttack::fit`] for the checks that come before.
    ///
    /// A pass costs two queries a sample, and for each sample that is not fooled up to `inner_steps` queries with as
    /// many gradients each as there are rivals.
    ///
    /// # Errors
    ///
    /// Whatever the model returns.
    pub fn perturbation(&self, problem: &AttackProblem<'_>) -> Result<UniversalPerturbation, Error> {
        let UapConfig { passes, wanted, batch, .. } = self.0;
        Passes { greatest: passes, wanted, batch }
            .run(problem, Self::INFO, |rows, points| self.deep_fool(problem, rows, points))
    }

    /// The change that takes each point across its nearest boundary, to first order, repeated.
    fn deep_fool(&self, problem: &AttackProblem<'_>, rows: &[usize], start: &Samples) -> Result<Samples, Error> {
        let task = &problem.oracle.spec().task;
        let goal = problem.goal.select(rows);
        let norm = problem.threat.norm();
        let mut change = Samples::zeros(start.len(), start.shape())?.with_indices(start.indices().to_vec())?;
        let mut rivals: Option<Vec<Vec<usize>>> = None;
        let mut active: Vec<usize> = (0..rows.len()).collect();
        for _ in 0..self.0.inner_steps {
            let mut points = start.select(&active);
            for (position, &at) in active.iter().enumerate() {
                for (value, moved) in points.row_mut(position).iter_mut().zip(change.row(at)) {
                    *value += (1.0 + self.0.overshoot) * moved;
                }
            }
            let own = goal.select(&active);
            let gradients = if let Some(classes) = left_classes(&own, task) {
                let ranked = match &rivals {
                    Some(ranked) => ranked,
                    None => rivals.insert(self.rank(problem, &points, &classes)?),
                };
                let ahead: Vec<Ahead> = (0..ranked.first().map_or(0, Vec::len))
                    .map(|place| Ahead {
                        pairs: active.iter().zip(&classes).map(|(&at, &class)| (ranked[at][place], class)).collect(),
                    })
                    .collect();
                let objectives: Vec<&dyn Objective> = ahead.iter().map(|one| one as &dyn Objective).collect();
                problem.oracle.gradients(&points, &objectives)?
            } else {
                let margin = GoalObjective::new(&own, task, Loss::Margin)?;
                vec![problem.oracle.gradient(&points, &margin)?]
            };
            let reached = own.reached(task, &gradients[0].outputs);
            for (position, &at) in active.iter().enumerate().filter(|(position, _)| !reached[*position]) {
                cross_nearest(norm, &gradients, position, change.row_mut(at));
            }
            active = active.into_iter().zip(reached).filter(|(_, reached)| !reached).map(|(at, _)| at).collect();
            if active.is_empty() {
                break;
            }
        }
        for value in change.values_mut() {
            *value *= 1.0 + self.0.overshoot;
        }
        Ok(change)
    }

    /// For each point the rivals of its class, by falling logit.
    fn rank(&self, problem: &AttackProblem<'_>, points: &Samples, classes: &[usize]) -> Result<Vec<Vec<usize>>, Error> {
        let outputs = problem.oracle.outputs(points)?;
        let ranked = outputs.rows().zip(classes).map(|(logits, &class)| {
            let mut others: Vec<usize> = (0..logits.len()).filter(|&other| other != class).collect();
            others.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
            others.truncate(self.0.rivals);
            others
        });
        Ok(ranked.collect())
    }
}

/// The class that each sample must leave for any other, where that is the goal.
fn left_classes(goal: &Goal, task: &Task) -> Option<Vec<usize>> {
    match (goal, task) {
        (Goal::Untargeted { labels }, Task::MultiClass { .. }) => {
            labels.iter().map(|label| if let Label::Class(class) = label { Some(*class) } else { None }).collect()
        }
        _ => None,
    }
}

/// How far one logit is ahead of another, in each row.
struct Ahead {
    pairs: Vec<(usize, usize)>,
}

impl Objective for Ahead {
    fn evaluate(&self, row: usize, outputs: &[f32], cotangent: &mut [f32]) -> Result<f32, Error> {
        let (ahead, behind) = self.pairs[row];
        cotangent.fill(0.0);
        cotangent[ahead] = 1.0;
        cotangent[behind] = -1.0;
        Ok(outputs[ahead] - outputs[behind])
    }
}

/// Adds the shortest step that takes one of the linearised objectives to zero.
fn cross_nearest(norm: Norm, gradients: &[Gradient], position: usize, change: &mut [f32]) {
    let distance = |gradient: &Gradient| {
        let slope = norm.dual(gradient.inputs.row(position));
        if slope > 0.0 { f64::from(gradient.values[position].abs()) / slope } else { f64::INFINITY }
    };
    let nearest = gradients.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)));
    let Some(gradient) = nearest.filter(|gradient| distance(gradient).is_finite()) else { return };
    let (length, slopes) = (distance(gradient), gradient.inputs.row(position));
    let size = norm.dual(slopes);
    for (value, slope) in change.iter_mut().zip(slopes) {
        *value += match norm {
            Norm::L2 => (length * f64::from(*slope) / size) as f32,
            _ => length as f32 * sign(*slope),
        };
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
    use nocebo_core::{Oracle, Seed, ThreatModel};
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
        for text in
            ["delta = 0.2", "passes = 0", "wanted = 1.1", "wanted = nan", "batch = 0", "rivals = 0", "overshoot = -1.0"]
        {
            assert!(toml::from_str::<Uap>(text).is_err(), "{text}");
        }
    }
}
