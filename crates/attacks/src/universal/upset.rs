//! UPSET: one perturbation for each class that a sample may be sent to, L2 and Linf.
//!
//! ```text
//! x′ = clip(x + s·R(t))      min over R   Σₖ L(fₖ(x′), t) + w·‖R(t)‖₂²      by Adam, fₖ the models attacked
//! ```
//!
//! Source: Sarkar et al. 2017, arXiv:1707.01159, section 3.1. Survey: \[114\].
//!
//! Differs from the source: R is linear in the one-hot code of t, so it is one free vector a class, where the paper
//! has a network that maps the code to an image; the vector lies in the ball of epsilon, which replaces the scale s;
//! several models are an [`Ensemble`](crate::transfer::ensemble::Ensemble) fused in loss. A sample without a named
//! target gets the vector, among those of classes it is not in, that worked best on the set.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use nocebo_core::{
    Attack, AttackInfo, AttackProblem, Error, Goal, GoalKind, GoalObjective, Knowledge, Label, Loss, Norm,
    Perturbation, Task,
};

use super::perturbation::{Learning, UniversalPerturbation, apply, labels_of};
use crate::adam::Adam;
use crate::fit::FitAttack;
use crate::transfer::momentum::reach;

/// Settings of [`Upset`].
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpsetConfig {
    /// Objective to ascend.
    pub loss: Loss,
    /// Passes over the set for each class; at least 1.
    pub passes: usize,
    /// Samples of a step; at least 1.
    pub batch: usize,
    /// Learning rate of Adam as a fraction of epsilon (L2: of epsilon/√n for n elements); finite and above 0.
    pub relative_step_size: f32,
    /// Weight w on the squared length of the vector, in ranges of the bounds; finite and at least 0.
    pub length_weight: f32,
}

impl Default for UpsetConfig {
    /// Values chosen here; the ball bounds the length.
    fn default() -> Self {
        Self { loss: Loss::CrossEntropy, passes: 20, batch: 64, relative_step_size: 0.1, length_weight: 0.0 }
    }
}

/// UPSET before it has learned; holds only settings that have been checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "UpsetConfig")]
pub struct Upset(UpsetConfig);

impl TryFrom<UpsetConfig> for Upset {
    type Error = Error;

    fn try_from(config: UpsetConfig) -> Result<Self, Error> {
        for (field, value) in [("passes", config.passes), ("batch", config.batch)] {
            if value == 0 {
                return Err(Error::invalid(field, "at least 1", value));
            }
        }
        if !(config.relative_step_size.is_finite() && config.relative_step_size > 0.0) {
            return Err(Error::invalid("relative_step_size", "finite and above 0", config.relative_step_size));
        }
        if !(config.length_weight.is_finite() && config.length_weight >= 0.0) {
            return Err(Error::invalid("length_weight", "finite and at least 0", config.length_weight));
        }
        Ok(Self(config))
    }
}

impl Upset {
    /// What this attack is.
    pub const INFO: AttackInfo = AttackInfo {
        name: "upset",
        title: "UPSET (a universal perturbation for each target)",
        source: "Sarkar et al. 2017, arXiv:1707.01159",
        family: "universal",
        norms: &[Norm::L2, Norm::Linf],
        goals: GoalKind::ALL,
        knowledge: Knowledge::Gradients,
        cost: "1 query; learning: passes gradients a sample and class",
        minimum_norm: false,
    };

    /// Learns the vector that sends samples to `goal`, which names one target for all.
    fn learn_one(&self, problem: &AttackProblem<'_>) -> Result<UniversalPerturbation, Error> {
        let elements = problem.inputs.elements();
        let range = f64::from(problem.threat.domain().range());
        let share = if problem.threat.norm() == Norm::L2 { (elements as f32).sqrt() } else { 1.0 };
        let size = self.0.relative_step_size * reach(problem.threat) / share;
        let mut learning = Learning::new(problem)?;
        let mut adam = Adam::new(elements);
        learning.measure()?;
        for pass in 0..self.0.passes {
            for rows in learning.shuffled(pass).chunks(self.0.batch) {
                let goal = problem.goal.select(rows);
                let objective = GoalObjective::new(&goal, &problem.oracle.spec().task, self.0.loss)?;
                let gradient = problem.oracle.gradient(&learning.perturbed(rows), &objective)?.inputs;
                // Slopes are by fractions of the range, and so is the length.
                let slope = |(element, value): (usize, &f32)| {
                    let mean = gradient.rows().map(|row| f64::from(row[element])).sum::<f64>() / rows.len() as f64;
                    range * mean - 2.0 * f64::from(self.0.length_weight) * f64::from(*value) / range
                };
                let slopes: Vec<f64> = learning.values.iter().enumerate().map(slope).collect();
                let step: Vec<f32> = adam.direction(&slopes).into_iter().map(|part| size * part as f32).collect();
                learning.step(&step);
            }
            learning.measure()?;
        }
        Ok(learning.finish(Self::INFO))
    }
}

/// What one class needs: the goal, and the rows of the set that can be sent there.
fn towards(class: usize, problem: &AttackProblem<'_>) -> (Goal, Vec<usize>) {
    let all = 0..problem.inputs.len();
    match labels_of(problem.goal) {
        Some(labels) => {
            let rows: Vec<usize> = all.filter(|&row| labels[row] != Label::Class(class)).collect();
            let labels: Vec<Label> = rows.iter().map(|&row| labels[row].clone()).collect();
            (Goal::Targeted { targets: vec![Label::Class(class); labels.len()], labels }, rows)
        }
        None => (Goal::FalsePositive { finding: class }, all.collect()),
    }
}

impl FitAttack for Upset {
    fn info(&self) -> AttackInfo {
        Self::INFO
    }

    /// Learns the vectors of the classes that the goal names as targets; of all classes where it names none.
    ///
    /// Each costs one query and one gradient query a sample and pass.
    fn learn(&self, problem: &AttackProblem<'_>) -> Result<Box<dyn Attack>, Error> {
        let task = &problem.oracle.spec().task;
        if !matches!(task, Task::MultiClass { .. } | Task::Binary { .. }) {
            return Err(Error::unsupported("upset for this task", "its targets are exclusive classes"));
        }
        let wanted = |class: usize| match problem.goal {
            Goal::Untargeted { .. } => true,
            Goal::Targeted { targets, .. } => targets.contains(&Label::Class(class)),
            Goal::FalsePositive { finding } => class == *finding,
            Goal::FalseNegative { finding } => class != *finding,
        };
        let mut vectors = Vec::new();
        for class in (0..task.classes()).filter(|&class| wanted(class)) {
            let (goal, rows) = towards(class, problem);
            if !rows.is_empty() {
                let inputs = problem.inputs.select(&rows);
                let seed = problem.seed.stream(class as u64);
                let part = AttackProblem { inputs: &inputs, goal: &goal, seed, ..*problem };
                vectors.push((class, self.learn_one(&part)?));
            }
        }
        Ok(Box::new(UpsetAttack { shape: problem.inputs.shape().to_vec(), vectors }))
    }
}

/// UPSET with its vectors, one a class.
struct UpsetAttack {
    shape: Vec<usize>,
    vectors: Vec<(usize, UniversalPerturbation)>,
}

impl UpsetAttack {
    /// The vector for one row of the problem.
    fn vector(&self, goal: &Goal, row: usize) -> Result<&UniversalPerturbation, Error> {
        let fits = |class: usize| match goal {
            Goal::Untargeted { labels } => labels[row] != Label::Class(class),
            Goal::Targeted { targets, .. } => targets[row] == Label::Class(class),
            Goal::FalseNegative { finding } => class != *finding,
            Goal::FalsePositive { finding } => class == *finding,
        };
        let fitting = self.vectors.iter().filter(|(class, _)| fits(*class));
        // The first of equals.
        let best = fitting.reduce(|best, next| if next.1.fooled() > best.1.fooled() { next } else { best });
        best.map(|(_, vector)| vector).ok_or_else(|| {
            Error::unsupported("upset for this goal", "no vector for its target was learned; fit it on such a goal")
        })
    }
}

impl Attack for UpsetAttack {
    fn info(&self) -> AttackInfo {
        Upset::INFO
    }

    /// Costs one query a sample.
    fn perturb(&self, problem: &AttackProblem<'_>) -> Result<Perturbation, Error> {
        let vectors: Vec<&UniversalPerturbation> =
            (0..problem.inputs.len()).map(|row| self.vector(problem.goal, row)).collect::<Result<_, _>>()?;
        apply(problem, &self.shape, |row| vectors[row].values())
    }
}

#[cfg(test)]
mod tests {
    use super::super::perturbation::testing;
    use super::*;
    use nocebo_core::{Seed, ThreatModel};
    use nocebo_testkit::suite;

    fn upset() -> Upset {
        Upset::try_from(UpsetConfig::default()).unwrap()
    }

    #[test]
    fn flips_a_linear_model_just_above_the_greatest_least_change() {
        assert_eq!(testing::flipped(&upset(), Norm::Linf, 1.02), 1.0);
        assert!(testing::flipped(&upset(), Norm::Linf, 0.98) < 1.0);
        testing::mechanics(&upset());
    }

    #[test]
    fn each_target_has_its_own_vector() {
        let (model, samples) = (suite::linear_classifier(), suite::ct_samples());
        let labels = suite::decided(&model, &samples);
        let threat = ThreatModel::new(Norm::Linf, 600.0, suite::ct_domain()).unwrap();
        let goal = Goal::Untargeted { labels: labels.clone() };
        let fitted = upset().fit(&model, &samples, &goal, &threat, Seed(1)).unwrap();
        for class in 0..4 {
            let rows: Vec<usize> = (0..samples.len()).filter(|&row| labels[row] != Label::Class(class)).collect();
            let own: Vec<Label> = rows.iter().map(|&row| labels[row].clone()).collect();
            let goal = Goal::Targeted { targets: vec![Label::Class(class); own.len()], labels: own };
            let outcome = fitted.run(&model, &samples.select(&rows), &goal, &threat, Seed(1)).unwrap();
            assert!(outcome.success.iter().all(|done| *done), "{class}: {:?}", outcome.success);
        }
    }

    #[test]
    fn a_target_that_was_not_learned_is_refused() {
        let (model, samples) = (suite::linear_classifier(), suite::ct_samples());
        let threat = ThreatModel::new(Norm::Linf, 600.0, suite::ct_domain()).unwrap();
        let fit = |goal: &Goal| upset().fit(&model, &samples, goal, &threat, Seed(1)).unwrap();
        let fitted = fit(&Goal::FalsePositive { finding: 2 });
        let run = |finding| fitted.run(&model, &samples, &Goal::FalsePositive { finding }, &threat, Seed(1));
        assert!(run(2).is_ok());
        assert!(run(3).unwrap_err().to_string().contains("no vector for its target"));
    }

    #[test]
    fn unknown_and_invalid_settings_are_refused() {
        for text in ["scale = 2.0", "passes = 0", "batch = 0", "length_weight = -1.0", "relative_step_size = inf"] {
            assert!(toml::from_str::<Upset>(text).is_err(), "{text}");
        }
    }
}
