//! The error of this crate: which file, what was expected, what was found, what to do.
//!
//! Messages name files as the caller named them (inside a folder: relative to it) and positions in them, never the
//! content of a patient field.

use std::io;

/// What can go wrong between a file and a [`Dataset`](crate::Dataset).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The operating system refused to read.
    #[error("cannot read `{file}`")]
    Read {
        /// The file or folder.
        file: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The operating system refused to write.
    #[error("cannot write `{file}`")]
    Write {
        /// The file or folder.
        file: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The target of a writer exists.
    #[error("`{file}` exists; choose another name, since nothing is ever written over existing files")]
    Exists {
        /// The file or folder.
        file: String,
    },
    /// The content contradicts its format or itself.
    #[error("`{file}`: {what}: expected {expected}, got {got}")]
    Format {
        /// The file.
        file: String,
        /// Part of the file.
        what: String,
        /// What would be right.
        expected: String,
        /// What was found.
        got: String,
    },
    /// Valid, but not read here.
    #[error("`{file}`: {what} is refused; {advice}")]
    Refused {
        /// The file.
        file: String,
        /// What was found.
        what: String,
        /// What to do instead.
        advice: String,
    },
    /// Larger than allowed, as declared or as found.
    #[error("`{file}`: {what}: {got} is above the limit of {limit}")]
    TooLarge {
        /// The file.
        file: String,
        /// What was measured, with its unit.
        what: String,
        /// The limit.
        limit: u64,
        /// What was declared or found.
        got: u64,
    },
    /// A value is NaN or infinite.
    #[error("`{file}`: sample {sample}, element {element}: {value} is not finite; correct or leave out this sample")]
    NonFinite {
        /// The file or data set.
        file: String,
        /// Row of the sample, from 0.
        sample: usize,
        /// Flat index of the element in the sample.
        element: usize,
        /// The value found.
        value: f64,
    },
    /// A label cannot be used.
    #[error("`{file}`: label of sample {sample}: expected {expected}, got {got}")]
    Label {
        /// The file or data set.
        file: String,
        /// Row of the sample, from 0.
        sample: usize,
        /// What would be right.
        expected: String,
        /// What was found.
        got: String,
    },
    /// Two parts of a data set have different lengths.
    #[error("`{file}`: {what}: expected {expected}, one a sample, got {got}")]
    Length {
        /// The file or data set.
        file: String,
        /// The part.
        what: &'static str,
        /// Number of samples.
        expected: usize,
        /// Length of the part.
        got: usize,
    },
    /// The classes do not fit the data.
    #[error("`{file}`: classes: expected {expected}, got {got}; {advice}")]
    Classes {
        /// The file or data set.
        file: String,
        /// What would be right.
        expected: String,
        /// What was found.
        got: String,
        /// What to do.
        advice: &'static str,
    },
    /// There is no sample.
    #[error("`{file}`: the {split} split holds no sample; choose another split or other data")]
    Empty {
        /// The file or data set.
        file: String,
        /// The split that was asked for.
        split: String,
    },
    /// A value cannot be stored in the format that is written.
    #[error("sample {sample}, element {element}: {value} cannot be stored {storage}; round to the domain's step first")]
    OffGrid {
        /// Row of the sample, from 0.
        sample: usize,
        /// Flat index of the element in the sample.
        element: usize,
        /// The value found.
        value: f32,
        /// The format.
        storage: &'static str,
    },
    /// A setting is outside its allowed range.
    #[error("`{field}` must be {must_be}, got {got}")]
    InvalidOption {
        /// Name of the setting.
        field: &'static str,
        /// The allowed range in words.
        must_be: &'static str,
        /// What was found.
        got: String,
    },
    /// Samples and domain do not fit.
    #[error(transparent)]
    Core(#[from] nocebo_core::Error),
}

#[expect(clippy::needless_pass_by_value, reason = "texts, numbers and formatted strings are passed alike")]
impl DataError {
    /// [`DataError::Format`] from anything that can be shown.
    pub(crate) fn format(file: &str, what: impl ToString, expected: impl ToString, got: impl ToString) -> Self {
        Self::Format {
            file: file.to_owned(),
            what: what.to_string(),
            expected: expected.to_string(),
            got: got.to_string(),
        }
    }

    /// [`DataError::Refused`] from anything that can be shown.
    pub(crate) fn refused(file: &str, what: impl ToString, advice: impl ToString) -> Self {
        Self::Refused { file: file.to_owned(), what: what.to_string(), advice: advice.to_string() }
    }

    /// [`DataError::TooLarge`] when `got` is above `limit`.
    pub(crate) fn check_limit(file: &str, what: impl ToString, limit: u64, got: u64) -> Result<(), Self> {
        if got > limit {
            return Err(Self::TooLarge { file: file.to_owned(), what: what.to_string(), limit, got });
        }
        Ok(())
    }

    /// Turns the operating system's refusal to read `file` into an error; for `map_err`.
    pub(crate) fn reading(file: &str) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Read { file: file.to_owned(), source }
    }

    /// Turns the operating system's refusal to write `file` into an error; for `map_err`.
    pub(crate) fn writing(file: &str) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Write { file: file.to_owned(), source }
    }
}
