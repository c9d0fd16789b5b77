//! The class that a self-chosen target names: least likely, or random.

use rand::RngExt;

use nocebo_core::{AttackProblem, Error, Goal, Label, Task};

/// Which class an attack heads for when the goal names none.
#[derive(Clone, Copy, Debug, Default, schemars::JsonSchema, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetClass {
    /// The class with the least logit.
    #[default]
    LeastLikely,
    /// A uniformly random class.
    Random,
}

impl TargetClass {
    /// The goal that steers towards the chosen class of each sample, never its own; a goal that names its target is
    /// kept. One query a sample, unless the goal is kept.
    pub(crate) fn steering(self, problem: &AttackProblem<'_>) -> Result<Goal, Error> {
        let own = match problem.goal {
            Goal::Targeted { .. } | Goal::FalsePositive { .. } => return Ok(problem.goal.clone()),
            Goal::Untargeted { labels } => labels.clone(),
            Goal::FalseNegative { finding } => vec![Label::Class(*finding); problem.inputs.len()],
        };
        let classes = match problem.oracle.spec().task {
            Task::MultiClass { classes } | Task::Ordinal { grades: classes, .. } => classes,
            Task::Binary { .. } => 2,
            _ => {
                return Err(Error::unsupported(
                    "a self-chosen target class",
                    "the model does not decide one class a sample; give a target",
                ));
            }
        };
        let others = |row: usize| (0..classes).filter(move |class| Label::Class(*class) != own_label(problem, row));
        let mut targets = Vec::with_capacity(own.len());
        let outputs =
            if self == Self::LeastLikely && classes > 2 { Some(problem.oracle.outputs(problem.inputs)?) } else { None };
        for (row, &sample) in problem.inputs.indices().iter().enumerate() {
            let target = if let Some(outputs) = &outputs {
                let logits = outputs.row(row);
                others(row).reduce(|least, class| if logits[class] < logits[least] { class } else { least })
            } else {
                let nth = problem.seed.named("target class").for_sample(sample).random_range(0..classes - 1);
                others(row).nth(nth)
            };
            targets.push(Label::Class(target.unwrap_or(0)));
        }
        Ok(Goal::Targeted { labels: own, targets })
    }
}

fn own_label(problem: &AttackProblem<'_>, row: usize) -> Label {
    match problem.goal {
        Goal::Untargeted { labels } | Goal::Targeted { labels, .. } => labels[row].clone(),
        Goal::FalseNegative { finding } | Goal::FalsePositive { finding } => Label::Class(*finding),
    }
}
