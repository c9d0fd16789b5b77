//! Errors of this crate.

use std::path::PathBuf;

/// What an operator finds wrong with its attributes or inputs; [`Error::Node`] adds where.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OperatorError {
    /// An attribute is missing, of the wrong type or out of range.
    #[error("attribute `{name}` must be {must_be}, got {got}")]
    Attribute {
        /// Name in ONNX.
        name: String,
        /// The allowed values in words.
        must_be: String,
        /// What was found.
        got: String,
    },
    /// Shapes, element types or values that do not fit.
    #[error("{what}: expected {expected}, got {got}")]
    Mismatch {
        /// What was compared.
        what: String,
        /// What would fit.
        expected: String,
        /// What was found.
        got: String,
    },
    /// A legal ONNX construct that nocebo does not compute.
    #[error("{what} is not supported")]
    Unsupported {
        /// The construct.
        what: String,
    },
    /// A shape or value depends on data that are only known while the graph runs.
    #[error("{what} depends on the input values and is only known when the graph runs")]
    Dynamic {
        /// Shape or value of which input.
        what: String,
    },
}

#[expect(clippy::needless_pass_by_value, reason = "callers pass texts and numbers alike")]
impl OperatorError {
    pub(crate) fn mismatch(what: impl ToString, expected: impl ToString, got: impl ToString) -> Self {
        Self::Mismatch { what: what.to_string(), expected: expected.to_string(), got: got.to_string() }
    }

    pub(crate) fn attribute(name: impl ToString, must_be: impl ToString, got: impl ToString) -> Self {
        Self::Attribute { name: name.to_string(), must_be: must_be.to_string(), got: got.to_string() }
    }

    pub(crate) fn unsupported(what: impl ToString) -> Self {
        Self::Unsupported { what: what.to_string() }
    }

    pub(crate) fn dynamic(what: impl ToString) -> Self {
        Self::Dynamic { what: what.to_string() }
    }
}

/// What can go wrong between a model file and the gradient of a network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A node cannot be read, checked or computed.
    #[error("node `{node}` ({operator}): {reason}")]
    Node {
        /// Name of the node, or its first output where it has no name.
        node: String,
        /// ONNX operator.
        operator: String,
        /// What is wrong.
        reason: Box<OperatorError>,
    },
    /// The graph as a whole is not well formed: cycles, duplicate or missing names, wrong inputs.
    #[error("{what}: expected {expected}, got {got}")]
    Graph {
        /// What was checked.
        what: String,
        /// What a well-formed graph has.
        expected: String,
        /// What was found.
        got: String,
    },
    /// A model file cannot be read or written.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The gradient does not reach what it was asked for.
    #[error(
        "no gradient reaches {wanted}: it ends at {cut}; choose another output, or replace that node by a differentiable one"
    )]
    NoGradient {
        /// Input or parameter whose gradient was asked for.
        wanted: String,
        /// Nodes without a gradient on the way.
        cut: String,
    },
    /// A network's values do not fit the memory.
    #[error(
        "{what} needs {:.1} GiB at once, {:.1} GiB are free: use smaller inputs or fewer samples at a time",
        gib(*needed),
        gib(*available)
    )]
    Memory {
        /// What needs it: the network, or a node.
        what: String,
        /// Bytes that are needed at least.
        needed: u64,
        /// Bytes that this machine has left.
        available: u64,
    },
    /// Training met NaN or infinity, or settings or data that cannot be trained on.
    #[error("training: {0}")]
    Training(String),
    /// An error of the vocabulary crate: samples, domains, settings.
    #[error(transparent)]
    Core(#[from] nocebo_core::Error),
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

impl From<Error> for nocebo_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Core(error) => error,
            error => Self::Model(Box::new(error)),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "callers pass texts and numbers alike")]
impl Error {
    pub(crate) fn graph(what: impl ToString, expected: impl ToString, got: impl ToString) -> Self {
        Self::Graph { what: what.to_string(), expected: expected.to_string(), got: got.to_string() }
    }

    pub(crate) fn file(path: &std::path::Path, reason: impl ToString) -> Self {
        Self::File { path: path.to_path_buf(), reason: reason.to_string() }
    }
}
