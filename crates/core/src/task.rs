//! What a model decides, and how its outputs are read.

use serde::{Deserialize, Serialize};

use crate::{Error, Samples};

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
}

/// The truth about a sample, a wanted answer, or a model's decision.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(untagged)]
pub enum Label {
    /// A class; 0 or 1 for a binary task.
    Class(usize),
    /// One flag a finding of a multi-label task.
    Findings(Vec<bool>),
}

impl Task {
    /// Number of logits a sample.
    pub fn outputs(&self) -> usize {
        match self {
            Self::MultiClass { classes } => *classes,
            Self::Binary { .. } => 1,
            Self::MultiLabel { thresholds } => thresholds.len(),
        }
    }

    /// Number of classes (2 for a binary task) or of findings.
    pub fn classes(&self) -> usize {
        match self {
            Self::Binary { .. } => 2,
            _ => self.outputs(),
        }
    }

    /// What the model decides from one row of logits. Equal logits go to the lower class.
    pub fn decide(&self, logits: &[f32]) -> Label {
        match self {
            Self::MultiClass { .. } => Label::Class(argmax(logits)),
            Self::Binary { threshold } => Label::Class(usize::from(logits[0] > *threshold)),
            Self::MultiLabel { thresholds } => {
                Label::Findings(logits.iter().zip(thresholds).map(|(logit, threshold)| logit > threshold).collect())
            }
        }
    }

    /// Checks that a label can belong to this task.
    ///
    /// # Errors
    ///
    /// When a class is out of range, the number of findings differs, or the kind of label does not fit.
    pub fn check_label(&self, label: &Label) -> Result<(), Error> {
        match (self, label) {
            (Self::MultiClass { .. } | Self::Binary { .. }, Label::Class(class)) if *class < self.classes() => Ok(()),
            (Self::MultiLabel { thresholds }, Label::Findings(found)) if found.len() == thresholds.len() => Ok(()),
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
    fn labels_that_cannot_belong_to_a_task_are_refused() {
        assert!(Task::MultiClass { classes: 3 }.check_label(&Label::Class(3)).is_err());
        assert!(Task::Binary { threshold: 0.0 }.check_label(&Label::Class(1)).is_ok());
        assert!(Task::Binary { threshold: 0.0 }.check_label(&Label::Findings(vec![true])).is_err());
        let labels = Task::MultiLabel { thresholds: vec![0.0, 2.0] };
        assert!(labels.check_label(&Label::Findings(vec![true])).is_err());
        assert!(labels.check_label(&Label::Findings(vec![true, false])).is_ok());
    }
}
