//! The error of this crate, shared by models and attacks.

/// What can go wrong between a batch, a model and an attack.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Two things that belong together do not fit.
    #[error("{what}: expected {expected}, got {got}")]
    Mismatch {
        /// What was compared.
        what: &'static str,
        /// What would fit.
        expected: String,
        /// What was found.
        got: String,
    },
    /// A setting is outside its allowed range.
    #[error("`{field}` must be {must_be}, got {got}")]
    InvalidConfig {
        /// Name of the setting.
        field: &'static str,
        /// The allowed range in words.
        must_be: &'static str,
        /// What was found.
        got: String,
    },
    /// A clean sample violates the bounds of its own domain.
    #[error("sample {sample}, element {element}: {value} lies outside the bounds [{lower}, {upper}] of the data")]
    OutOfBounds {
        /// Index of the sample in its data set.
        sample: u64,
        /// Flat index of the element in the sample.
        element: usize,
        /// The value found.
        value: f32,
        /// Lower bound.
        lower: f32,
        /// Upper bound.
        upper: f32,
    },
    /// A model produced NaN or infinity. This must never look like robustness.
    #[error(
        "sample {sample}: the model's {what} is not finite; an attack cannot continue and the model must not count as robust"
    )]
    NonFinite {
        /// Output, objective or gradient.
        what: &'static str,
        /// Index of the sample in its data set.
        sample: u64,
    },
    /// A combination that has no meaning or no implementation.
    #[error("{what} is not supported: {reason}")]
    Unsupported {
        /// What was asked for.
        what: String,
        /// Why it is refused and what to do.
        reason: String,
    },
    /// An attack asked for more forward passes than its threat model allows.
    #[error("sample {sample}: the limit of {limit} queries would be exceeded")]
    QueryLimit {
        /// Index of the sample in its data set.
        sample: u64,
        /// Forward passes allowed.
        limit: u32,
    },
    /// The model itself failed.
    #[error("the model failed")]
    Model(#[source] Box<dyn std::error::Error + Send + Sync>),
}

#[expect(clippy::needless_pass_by_value, reason = "callers pass numbers, strings and slices alike")]
impl Error {
    /// [`Error::Mismatch`] from anything that can be shown.
    pub fn mismatch(what: &'static str, expected: impl ToString, got: impl ToString) -> Self {
        Self::Mismatch { what, expected: expected.to_string(), got: got.to_string() }
    }

    /// [`Error::InvalidConfig`] from anything that can be shown.
    pub fn invalid(field: &'static str, must_be: &'static str, got: impl ToString) -> Self {
        Self::InvalidConfig { field, must_be, got: got.to_string() }
    }

    /// [`Error::Unsupported`] from anything that can be shown.
    pub fn unsupported(what: impl ToString, reason: impl ToString) -> Self {
        Self::Unsupported { what: what.to_string(), reason: reason.to_string() }
    }
}
