//! Errors of this crate.

use crate::kernels::INSTRUCTION_SET_VARIABLE;

/// A node that the engine does not compute; whoever meets it runs the graph on the Burn executor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("node `{node}` ({operator}): the engine does not compute {what}")]
pub struct Unsupported {
    /// Name of the node.
    pub node: String,
    /// ONNX operator.
    pub operator: String,
    /// What is missing, in words.
    pub what: String,
}

/// Why a graph cannot run on the engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The first node that the engine does not compute.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// The graph is not well formed, or does not fit its spec.
    #[error(transparent)]
    Graph(#[from] nocebo_graph::Error),
    /// The spec of the model.
    #[error(transparent)]
    Core(#[from] nocebo_core::Error),
    /// The environment forces an instruction set that there is not.
    #[error("{INSTRUCTION_SET_VARIABLE}: expected avx512, avx2, neon or portable, as this machine has, got `{0}`")]
    InstructionSet(String),
}
