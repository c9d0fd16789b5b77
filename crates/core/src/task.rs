//! What a model decides, and how its outputs are read.

use ordered_float::NotNan;
use serde::{Deserialize, Serialize};

use crate::{Error, Samples, Segmentation, has_finding};

/// What a model decides. Outputs are logits: before softmax or sigmoid.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Task {
    /// One of `classes` exclusive classes; as many logits.
    MultiClass {
        /// Number of classes, at least 2.
        classes: usize,
    },
    /// A finding is present (class 1) or not (class 0); one logit.
    Binary {
        /// Present when the logit is above this value: 0 is a probability of 0.5.
        threshold: f32,
    },
    /// Several findings, each present or not; one logit a finding.
    MultiLabel {
        /// One threshold a finding, as in [`Task::Binary`].
        thresholds: Vec<f32>,
    },
    /// One of `grades` grades in order; as many logits.
    Ordinal {
        /// Number of grades, at least 2.
        grades: usize,
        /// Grades from which on an error counts: at least 1, at most half of them, so that every grade can be missed.
        serious: usize,
    },
    /// A number in the unit of its labels; one output.
    Regression {
        /// Greatest error that is harmless, in that unit; finite and above 0.
        tolerance: f32,
    },
    /// One class a position of the sample.
    Segmentation(Segmentation),
}

/// The truth about a sample, a wanted answer, or a model's decision.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(untagged)]
pub enum Label {
    /// A class; 0 or 1 for a binary task.
    Class(usize),
    /// One flag a finding of a multi-label task.
    Findings(Vec<bool>),
    /// One class a position of a segmentation, row by row; [`IGNORED`](crate::segmentation::IGNORED) for none.
    Mask(Vec<u8>),
    /// A number, of a regression.
    Number(NotNan<f32>),
}

impl Task {
    /// Checks what a file may say of a task.
    ///
    /// # Errors
    ///
    /// When a number of a segmentation, an ordinal scale or a regression is out of range.
    pub fn check(&self) -> Result<(), Error> {
        match self {
            Self::Segmentation(segmentation) => segmentation.check(),
            Self::Ordinal { grades, serious } if *serious == 0 || *serious > grades / 2 => {
                Err(Error::invalid("serious", "from 1 to half of the grades", serious.to_string()))
            }
            Self::Regression { tolerance } if !(tolerance.is_finite() && *tolerance > 0.0) => {
                Err(Error::invalid("tolerance", "finite and above 0", tolerance.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// Number of logits a sample.
    pub fn outputs(&self) -> usize {
        match self {
            Self::MultiClass { classes } => *classes,
            Self::Ordinal { grades, .. } => *grades,
            Self::Binary { .. } | Self::Regression { .. } => 1,
            Self::MultiLabel { thresholds } => thresholds.len(),
            Self::Segmentation(segmentation) => segmentation.logits() * segmentation.positions(),
        }
    }

    /// Number of classes (2 for a binary task, 0 for a regression) or of findings.
    pub fn classes(&self) -> usize {
        match self {
            Self::Binary { .. } => 2,
            Self::Regression { .. } => 0,
            Self::Segmentation(segmentation) => segmentation.classes,
            _ => self.outputs(),
        }
    }

    /// What the model decides from one row of logits. Equal logits go to the lower class.
    /// An answer of a regression that is not a number counts as infinite: right nowhere.
    pub fn decide(&self, logits: &[f32]) -> Label {
        match self {
            Self::MultiClass { .. } | Self::Ordinal { .. } => Label::Class(argmax(logits)),
            Self::Regression { .. } => {
                let number = if logits[0].is_nan() { f32::INFINITY } else { logits[0] };
                Label::Number(NotNan::new(number).unwrap_or_default())
            }
            Self::Binary { threshold } => Label::Class(usize::from(logits[0] > *threshold)),
            Self::MultiLabel { thresholds } => {
                Label::Findings(logits.iter().zip(thresholds).map(|(logit, threshold)| logit > threshold).collect())
            }
            Self::Segmentation(segmentation) => Label::Mask(segmentation.decide(logits)),
        }
    }

    /// Whether a decision counts as the true one: equal, for a mask good enough, for a grade or a number near enough.
    pub fn is_right(&self, truth: &Label, decision: &Label) -> bool {
        match (self, truth, decision) {
            (Self::Segmentation(segmentation), Label::Mask(truth), Label::Mask(decision)) => {
                segmentation.is_right(&segmentation.overlaps(truth, decision))
            }
            (Self::Ordinal { serious, .. }, ..) => {
                self.error(truth, decision).is_some_and(|error| error < *serious as f64)
            }
            (Self::Regression { tolerance }, ..) => {
                self.error(truth, decision).is_some_and(|error| error <= f64::from(*tolerance))
            }
            _ => truth == decision,
        }
    }

    /// How far a decision is from the truth, in grades or in the unit of the number; none for a task without an order.
    pub fn error(&self, truth: &Label, decision: &Label) -> Option<f64> {
        match (self, truth, decision) {
            (Self::Ordinal { .. }, Label::Class(truth), Label::Class(decision)) => {
                Some(truth.abs_diff(*decision) as f64)
            }
            (Self::Regression { .. }, Label::Number(truth), Label::Number(decision)) => {
                Some(f64::from((**truth - **decision).abs()))
            }
            _ => None,
        }
    }

    /// Whether a decision counts as a target: equal, or for a mask or a number near enough.
    pub fn is_reached(&self, target: &Label, decision: &Label) -> bool {
        match (self, target, decision) {
            (Self::Segmentation(segmentation), Label::Mask(target), Label::Mask(decision)) => {
                segmentation.is_reached(&segmentation.overlaps(target, decision))
            }
            (Self::Regression { .. }, ..) => self.is_right(target, decision),
            _ => target == decision,
        }
    }

    /// [`has_finding`], but a class of a mask must cover as much of it as the task says.
    pub fn has_finding(&self, label: &Label, finding: usize) -> bool {
        match (self, label) {
            (Self::Segmentation(segmentation), Label::Mask(mask)) => segmentation.is_present(mask, finding),
            _ => has_finding(label, finding),
        }
    }

    /// Checks that a label can belong to this task.
    ///
    /// # Errors
    ///
    /// When a class is out of range, the number of findings differs, or the kind of label does not fit.
    pub fn check_label(&self, label: &Label) -> Result<(), Error> {
        match (self, label) {
            (Self::MultiClass { .. } | Self::Binary { .. } | Self::Ordinal { .. }, Label::Class(class))
                if *class < self.classes() =>
            {
                Ok(())
            }
            (Self::Regression { .. }, Label::Number(number)) if number.is_finite() => Ok(()),
            (Self::Regression { .. }, _) => Err(Error::mismatch("label", "a finite number", format!("{label:?}"))),
            (_, Label::Number(_)) => Err(Error::mismatch("label", "a class or findings", "a number")),
            (Self::MultiLabel { thresholds }, Label::Findings(found)) if found.len() == thresholds.len() => Ok(()),
            (Self::Segmentation(segmentation), Label::Mask(mask)) => segmentation.check_mask(mask),
            (Self::Segmentation(_), _) => Err(Error::mismatch("label", "a mask", "another kind of label")),
            (_, Label::Mask(_)) => Err(Error::mismatch("label", "a class or findings", "a mask")),
            (Self::MultiLabel { thresholds }, _) => {
                Err(Error::mismatch("label", format!("{} findings", thresholds.len()), format!("{label:?}")))
            }
            _ => Err(Error::mismatch("label", format!("a class below {}", self.classes()), format!("{label:?}"))),
        }
    }
}

/// Index of the greatest value; the first of equals.
pub fn argmax(values: &[f32]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = index;
        }
    }
    best
}

/// Logits of a batch: one row a sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Outputs(Samples);

impl From<Samples> for Outputs {
    fn from(rows: Samples) -> Self {
        Self(rows)
    }
}

impl Outputs {
    /// Number of samples.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Logits of one sample.
    ///
    /// # Panics
    ///
    /// When `row` is not below [`Outputs::len`].
    pub fn row(&self, row: usize) -> &[f32] {
        self.0.row(row)
    }

    /// Logits of all samples in order.
    pub fn rows(&self) -> std::slice::ChunksExact<'_, f32> {
        self.0.rows()
    }

    /// The logits as a batch.
    pub fn as_samples(&self) -> &Samples {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MaskTolerance;

    #[test]
    fn decisions_follow_thresholds_and_the_first_of_equals() {
        assert_eq!(Task::MultiClass { classes: 3 }.decide(&[1.0, 2.0, 2.0]), Label::Class(1));
        let binary = Task::Binary { threshold: -1.0 };
        assert_eq!(binary.decide(&[-0.5]), Label::Class(1));
        assert_eq!(binary.decide(&[-1.0]), Label::Class(0));
        let labels = Task::MultiLabel { thresholds: vec![0.0, 2.0] };
        assert_eq!(labels.decide(&[1.0, 1.0]), Label::Findings(vec![true, false]));
    }

    #[test]
    fn grades_and_numbers_are_right_by_degrees() {
        let task = Task::Ordinal { grades: 5, serious: 2 };
        assert_eq!((task.outputs(), task.classes(), task.decide(&[0.0, 3.0, 1.0, 0.0, 0.0])), (5, 5, Label::Class(1)));
        let right = |decision| task.is_right(&Label::Class(1), &Label::Class(decision));
        assert_eq!([0, 1, 2, 3, 4].map(right), [true, true, true, false, false]);
        assert!(task.check().is_ok() && Task::Ordinal { grades: 5, serious: 3 }.check().is_err());
        assert!(
            Task::Ordinal { grades: 5, serious: 0 }.check().is_err() && task.check_label(&Label::Class(5)).is_err()
        );

        let months = Task::Regression { tolerance: 6.0 };
        let number = |value| Label::Number(NotNan::new(value).unwrap());
        assert_eq!((months.outputs(), months.decide(&[120.5])), (1, number(120.5)));
        assert!(months.is_right(&number(120.0), &number(126.0)) && !months.is_right(&number(120.0), &number(113.9)));
        assert!(months.check_label(&number(3.0)).is_ok() && months.check_label(&Label::Class(3)).is_err());
        assert!(!months.is_right(&number(120.0), &months.decide(&[f32::NAN])));
        assert!(months.check_label(&number(f32::INFINITY)).is_err() && task.check_label(&number(1.0)).is_err());
        assert!(Task::Regression { tolerance: 0.0 }.check().is_err());
        let text = serde_json::to_string(&(&months, number(120.0))).unwrap();
        assert_eq!(serde_json::from_str::<(Task, Label)>(&text).unwrap(), (months, number(120.0)));
    }

    #[test]
    fn masks_are_right_and_reached_by_degrees() {
        let tolerance = MaskTolerance { right: 0.6, reached: 0.9, present: 0.5 };
        let task = Task::Segmentation(Segmentation { classes: 2, shape: vec![4], threshold: None, tolerance });
        task.check().unwrap();
        assert_eq!((task.outputs(), task.classes()), (8, 2));
        let mask = |classes: [u8; 4]| Label::Mask(classes.to_vec());
        assert_eq!(task.decide(&[1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]), mask([0, 0, 1, 1]));
        // Dice (2/3 + 4/5)/2 = 0.73.
        let truth = mask([0, 0, 1, 1]);
        assert!(task.is_right(&truth, &mask([0, 1, 1, 1])) && !task.is_reached(&truth, &mask([0, 1, 1, 1])));
        assert!(task.is_reached(&truth, &truth) && !task.is_right(&truth, &mask([1, 1, 1, 1])));
        assert!(task.has_finding(&truth, 1) && !task.has_finding(&mask([0, 1, 0, 0]), 1));
        assert!(task.check_label(&truth).is_ok() && task.check_label(&Label::Class(1)).is_err());
        let text = serde_json::to_string(&(&task, &truth)).unwrap();
        assert_eq!(serde_json::from_str::<(Task, Label)>(&text).unwrap(), (task, truth));
    }

    #[test]
    fn labels_that_cannot_belong_to_a_task_are_refused() {
        assert!(Task::MultiClass { classes: 3 }.check_label(&Label::Class(3)).is_err());
        assert!(Task::Binary { threshold: 0.0 }.check_label(&Label::Class(1)).is_ok());
        assert!(Task::Binary { threshold: 0.0 }.check_label(&Label::Findings(vec![true])).is_err());
        assert!(Task::Binary { threshold: 0.0 }.check_label(&Label::Mask(vec![0])).is_err());
        let labels = Task::MultiLabel { thresholds: vec![0.0, 2.0] };
        assert!(labels.check_label(&Label::Findings(vec![true])).is_err());
        assert!(labels.check_label(&Label::Findings(vec![true, false])).is_ok());
    }
}
