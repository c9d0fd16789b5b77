//! Settings of the readers.

use serde::{Deserialize, Serialize};

use nocebo_core::{Seed, Task, Unit};

use crate::{DataError, Fractions};

/// How a data set is opened; the default reads everything that the files say about themselves.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct OpenOptions {
    /// Seed of the split, for data that come without one.
    pub seed: Seed,
    /// Shares of the split, for data that come without one.
    pub fractions: Fractions,
    /// An order that the labels have; none where they are classes or findings.
    pub order: Option<Order>,
    /// Names of all classes in order. Without it they come from the data, and every class must occur.
    pub class_names: Option<Vec<String>>,
    /// Least and greatest value that can be stored, in place of those of the file's number type.
    pub bounds: Option<(f32, f32)>,
    /// Centre and width, in the unit of the data, of the part of the values that is used: DICOM images are cut to it.
    pub window: Option<(f32, f32)>,
    /// Unit of the values, in place of the one that the format implies.
    pub unit: Option<Unit>,
    /// Leave out pictures that cannot be read, with a warning each, instead of refusing the folder.
    pub skip_unreadable: bool,
    /// What is too large.
    pub limits: Limits,
}

/// An order that labels have, and which error in it is harmless.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Order {
    /// Classes are grades, in their order.
    Grades {
        /// As in [`Task::Ordinal`].
        serious: usize,
    },
    /// Labels are numbers.
    Numbers {
        /// As in [`Task::Regression`].
        tolerance: f32,
    },
}

impl Order {
    /// The task of predicting such labels.
    pub fn task(self, classes: usize) -> Task {
        match self {
            Self::Grades { serious } => Task::Ordinal { grades: classes, serious },
            Self::Numbers { tolerance } => Task::Regression { tolerance },
        }
    }
}

/// Sizes above which a file is refused before it is decoded.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Values of a whole data set; each takes 4 bytes of memory.
    pub values: u64,
    /// Pixels of one picture.
    pub pixels: u64,
}

impl Default for Limits {
    /// 2³¹ values (8 GiB) and 64 megapixels (2²⁶), chosen here.
    fn default() -> Self {
        Self { values: 1 << 31, pixels: 1 << 26 }
    }
}

impl OpenOptions {
    /// The bounds that the user gave, or `otherwise`.
    pub(crate) fn bounds_or(&self, otherwise: (f32, f32)) -> Result<(f32, f32), DataError> {
        let (lower, upper) = self.bounds.unwrap_or(otherwise);
        if lower.is_finite() && upper.is_finite() && lower < upper {
            return Ok((lower, upper));
        }
        Err(DataError::InvalidOption {
            field: "bounds",
            must_be: "finite, the lower below the upper",
            got: format!("{lower}, {upper}"),
        })
    }
}
