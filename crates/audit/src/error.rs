//! The error of this crate.

use std::path::{Path, PathBuf};

use nocebo_core::Norm;

/// What can go wrong in an audit.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// A setting or an input of the audit is not usable.
    #[error("{what}: expected {expected}, got {got}")]
    Invalid {
        /// Name of the setting or input.
        what: &'static str,
        /// What would be usable.
        expected: String,
        /// What was found.
        got: String,
    },
    /// Model, data and settings do not fit, or the model failed outside an attack.
    #[error(transparent)]
    Core(#[from] nocebo_core::Error),
    /// An attack could not be carried out.
    #[error("attack `{attack}` in {norm} at epsilon {epsilon} could not be carried out")]
    Attack {
        /// Name of the attack in this audit.
        attack: String,
        /// Norm of the threat.
        norm: Norm,
        /// Budget of the run, in the unit of the data.
        epsilon: f32,
        /// What the attack or the model answered.
        source: nocebo_core::Error,
    },
    /// No attack can work in a norm that is to be audited.
    #[error("no attack works in {norm}: choose one that does, or leave this threat out")]
    NoAttack {
        /// The norm without an attack.
        norm: Norm,
    },
    /// A recipe cannot be read.
    #[error("{file}: {message}")]
    Recipe {
        /// Name of the recipe.
        file: String,
        /// The line, what was expected there, and what was found.
        message: String,
    },
    /// A gate cannot be read.
    #[error("gate `{gate}`: expected {expected}")]
    GateSyntax {
        /// The gate as it was written.
        gate: String,
        /// What could be read.
        expected: String,
    },
    /// A gate asks about a threat that the audit does not try.
    #[error("gate `{gate}` names a threat that is not audited: expected one of {audited}")]
    GateNotAudited {
        /// The gate as it was written.
        gate: String,
        /// The threats that are audited.
        audited: String,
    },
    /// The output folder holds something else.
    #[error("{} is not empty and holds no audit: choose another folder, or empty this one", path.display())]
    NotAnAudit {
        /// The folder.
        path: PathBuf,
    },
    /// Another process writes to the output folder.
    #[error("{} is in use by another audit: wait for it, or choose another folder", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// A file or folder could not be written.
    #[error("cannot write {}: free some space or choose another folder; finished cells are kept", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system answered.
        source: std::io::Error,
    },
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: std::io::Error,
    },
    /// A file of an audit does not hold what it should.
    #[error("{}: expected {expected}, got {got}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: String,
        /// What was found.
        got: String,
    },
    /// Parquet, JSON or PNG bytes could not be made.
    #[error("cannot encode the {what}")]
    Encode {
        /// Which file.
        what: &'static str,
        /// What the encoder answered.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The observer asked to stop before all cells were done.
    #[error("stopped after {finished} of {total} cells; missing: {}", missing.join(", "))]
    Stopped {
        /// Cells that are done (and kept, where the audit has a folder).
        finished: usize,
        /// Cells of the whole audit.
        total: usize,
        /// Names of the cells that are not done.
        missing: Vec<String>,
    },
}

#[expect(clippy::needless_pass_by_value, reason = "callers pass numbers, strings and slices alike")]
impl AuditError {
    pub(crate) fn invalid(what: &'static str, expected: impl Into<String>, got: impl ToString) -> Self {
        Self::Invalid { what, expected: expected.into(), got: got.to_string() }
    }

    pub(crate) fn write(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        |source| Self::Write { path: path.to_owned(), source }
    }

    pub(crate) fn read(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        |source| Self::Read { path: path.to_owned(), source }
    }

    pub(crate) fn encode<E>(what: &'static str) -> impl Fn(E) -> Self
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        move |source| Self::Encode { what, source: Box::new(source) }
    }
}
