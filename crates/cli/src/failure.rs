//! Errors with the exit code that they end in.

use std::fmt;
use std::process::ExitCode;

/// Why the program ended without doing what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A gate did not hold.
    Gate = 1,
    /// An argument cannot be used.
    Usage = 2,
    /// A file could not be loaded.
    Load = 3,
    /// The work was begun and could not be finished.
    Incomplete = 4,
}

/// An error and its kind.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: Kind,
    error: anyhow::Error,
}

impl Failure {
    pub(crate) fn new(kind: Kind, error: impl Into<anyhow::Error>) -> Self {
        Self { kind, error: error.into() }
    }

    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Kind::Usage, anyhow::anyhow!("{message}"))
    }

    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(self.kind as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.error)?;
        for cause in self.error.chain().skip(1) {
            write!(formatter, "\n  because: {cause}")?;
        }
        Ok(())
    }
}

/// `result.or_usage()?` and the like: gives an error its exit code.
pub(crate) trait OrFail<T> {
    /// Exit code 2: the arguments do not fit.
    fn or_usage(self) -> Result<T, Failure>;
    /// Exit code 3: the file at fault could not be loaded.
    fn or_load(self) -> Result<T, Failure>;
    /// Exit code 4: begun, not finished.
    fn or_incomplete(self) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrFail<T> for Result<T, E> {
    fn or_usage(self) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(Kind::Usage, error))
    }

    fn or_load(self) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(Kind::Load, error))
    }

    fn or_incomplete(self) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(Kind::Incomplete, error))
    }
}
