//! What an attacker wants.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, Label, Outputs, Task};

/// What an attacker wants of each sample of a batch.
///
/// A segmentation is changed by degrees: its task states from which quality on a mask is right, a target is reached, and a
/// class is present ([`MaskTolerance`](crate::MaskTolerance)).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// Any decision but the true one.
    Untargeted {
        /// True label of each sample.
        labels: Vec<Label>,
    },
    /// One wanted decision.
    Targeted {
        /// True label of each sample.
        labels: Vec<Label>,
        /// Wanted decision of each sample, not its true label.
        targets: Vec<Label>,
    },
    /// Hide a finding that the samples have.
    FalseNegative {
        /// Class or index of the finding.
        finding: usize,
    },
    /// Invent a finding that the samples lack.
    FalsePositive {
        /// Class or index of the finding.
        finding: usize,
    },
}

/// A [`Goal`] without its labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GoalKind {
    /// [`Goal::Untargeted`].
    Untargeted,
    /// [`Goal::Targeted`].
    Targeted,
    /// [`Goal::FalseNegative`].
    FalseNegative,
    /// [`Goal::FalsePositive`].
    FalsePositive,
}

impl GoalKind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[Self::Untargeted, Self::Targeted, Self::FalseNegative, Self::FalsePositive];
}

impl fmt::Display for GoalKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Untargeted => "untargeted",
            Self::Targeted => "targeted",
            Self::FalseNegative => "a false negative",
            Self::FalsePositive => "a false positive",
        })
    }
}

impl Goal {
    /// What it is, without the labels.
    pub fn kind(&self) -> GoalKind {
        match self {
            Self::Untargeted { .. } => GoalKind::Untargeted,
            Self::Targeted { .. } => GoalKind::Targeted,
            Self::FalseNegative { .. } => GoalKind::FalseNegative,
            Self::FalsePositive { .. } => GoalKind::FalsePositive,
        }
    }

    /// Checks that the goal fits `samples` samples of `task`.
    ///
    /// # Errors
    ///
    /// When a number of labels differs, a label cannot belong to the task, or a target is the true label.
    pub fn check(&self, task: &Task, samples: usize) -> Result<(), Error> {
        let check_labels = |what, labels: &[Label]| {
            if labels.len() != samples {
                return Err(Error::mismatch(what, samples, labels.len()));
            }
            labels.iter().try_for_each(|label| task.check_label(label))
        };
        match self {
            Self::Untargeted { labels } => check_labels("number of labels", labels),
            Self::Targeted { labels, targets } => {
                check_labels("number of labels", labels)?;
                check_labels("number of targets", targets)?;
                match labels.iter().zip(targets).position(|(label, target)| label == target) {
                    Some(row) => Err(Error::mismatch(
                        "target",
                        "another class than the true one",
                        format!("{:?} for row {row}", targets[row]),
                    )),
                    None => Ok(()),
                }
            }
            Self::FalseNegative { finding } | Self::FalsePositive { finding } => {
                if *finding < task.classes() {
                    Ok(())
                } else {
                    Err(Error::mismatch("finding", format!("an index below {}", task.classes()), finding))
                }
            }
        }
    }

    /// Whether sample `row` with these logits is where the attacker wants it.
    ///
    /// # Panics
    ///
    /// When the goal does not fit the task ([`Goal::check`]) or `row` does not exist.
    pub fn is_reached(&self, task: &Task, row: usize, logits: &[f32]) -> bool {
        let decision = task.decide(logits);
        match self {
            Self::Untargeted { labels } => !task.is_right(&labels[row], &decision),
            Self::Targeted { targets, .. } => task.is_reached(&targets[row], &decision),
            Self::FalseNegative { finding } => !task.has_finding(&decision, *finding),
            Self::FalsePositive { finding } => task.has_finding(&decision, *finding),
        }
    }

    /// [`Goal::is_reached`] for each row of a batch.
    ///
    /// # Panics
    ///
    /// As [`Goal::is_reached`].
    pub fn reached(&self, task: &Task, outputs: &Outputs) -> Vec<bool> {
        outputs.rows().enumerate().map(|(row, logits)| self.is_reached(task, row, logits)).collect()
    }

    /// The goal of the given rows.
    ///
    /// # Panics
    ///
    /// When a row does not exist.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        let pick = |labels: &[Label]| rows.iter().map(|&row| labels[row].clone()).collect();
        match self {
            Self::Untargeted { labels } => Self::Untargeted { labels: pick(labels) },
            Self::Targeted { labels, targets } => Self::Targeted { labels: pick(labels), targets: pick(targets) },
            Self::FalseNegative { .. } | Self::FalsePositive { .. } => self.clone(),
        }
    }
}

/// Whether a label says that a finding is present: the class itself, class 1 of a binary task, the flag, or a class
/// somewhere in a mask.
///
/// For a binary task finding 1 is the disease and finding 0 its absence.
pub fn has_finding(label: &Label, finding: usize) -> bool {
    match label {
        Label::Class(class) => *class == finding,
        Label::Findings(found) => found[finding],
        Label::Mask(mask) => mask.iter().any(|class| usize::from(*class) == finding),
        Label::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_goal_is_reached_where_it_says() {
        let task = Task::MultiClass { classes: 3 };
        let at = |class: usize| (0..3).map(|c| f32::from(u8::from(c == class))).collect::<Vec<_>>();
        let labels = vec![Label::Class(1)];
        let untargeted = Goal::Untargeted { labels: labels.clone() };
        let targeted = Goal::Targeted { labels, targets: vec![Label::Class(2)] };
        let hide = Goal::FalseNegative { finding: 1 };
        let invent = Goal::FalsePositive { finding: 2 };
        let table = [(0, [true, false, true, false]), (1, [false; 4]), (2, [true; 4])];
        for (class, expected) in table {
            let reached = [&untargeted, &targeted, &hide, &invent].map(|goal| goal.is_reached(&task, 0, &at(class)));
            assert_eq!(reached, expected, "decided {class}");
        }
    }

    #[test]
    fn multi_label_goals_look_at_one_finding() {
        let task = Task::MultiLabel { thresholds: vec![0.0, 0.0] };
        assert!(Goal::FalseNegative { finding: 1 }.is_reached(&task, 0, &[3.0, -1.0]));
        assert!(!Goal::FalsePositive { finding: 1 }.is_reached(&task, 0, &[3.0, -1.0]));
    }

    #[test]
    fn goals_of_a_segmentation_are_reached_by_degrees() {
        let task = Task::Segmentation(crate::segmentation::tests::three_classes());
        let at = |mask: [u8; 4]| -> Vec<f32> {
            (0..12).map(|index| f32::from(u8::from(usize::from(mask[index % 4]) == index / 4))).collect()
        };
        let labels = vec![Label::Mask(vec![0, 0, 1, 1])];
        let untargeted = Goal::Untargeted { labels: labels.clone() };
        let targeted = Goal::Targeted { labels, targets: vec![Label::Mask(vec![0, 2, 2, 255])] };
        let (hide, invent) = (Goal::FalseNegative { finding: 1 }, Goal::FalsePositive { finding: 2 });
        let table = [
            ([0, 0, 1, 1], [false, false, false, false]),
            ([0, 1, 1, 1], [false, false, false, false]),
            ([1, 1, 1, 0], [true, false, false, false]),
            ([0, 2, 2, 1], [true, true, false, true]),
            ([0, 0, 0, 0], [true, false, true, false]),
        ];
        for (mask, expected) in table {
            let reached = [&untargeted, &targeted, &hide, &invent].map(|goal| goal.is_reached(&task, 0, &at(mask)));
            assert_eq!(reached, expected, "decided {mask:?}");
        }
    }

    #[test]
    fn a_target_that_is_the_truth_is_refused() {
        let task = Task::MultiClass { classes: 3 };
        let labels = vec![Label::Class(1)];
        assert!(Goal::Targeted { labels: labels.clone(), targets: labels.clone() }.check(&task, 1).is_err());
        assert!(Goal::Untargeted { labels: labels.clone() }.check(&task, 2).is_err());
        assert!(Goal::FalsePositive { finding: 3 }.check(&task, 1).is_err());
        assert!(Goal::Targeted { labels, targets: vec![Label::Class(0)] }.check(&task, 1).is_ok());
    }
}
