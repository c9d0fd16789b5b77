//! The CPU engine: outputs and input gradients of a frozen network.
//!
//! A graph is planned once: constants are computed, batch normalisation is folded into convolutions, bias, residual sum and
//! ReLU join the convolution before them, a kernel is chosen for each layer and its shape, weights are packed for both
//! directions, and memory is laid out. A pass then allocates nothing. One bit is kept for each ReLU and one byte for each
//! result of a max-pool; parameters have no gradients.
//!
//! [`EngineModel`] is a model for attacks like [`GraphModel`](nocebo_graph::GraphModel), which stays the reference: tests hold the
//! one against the other. A graph with a node that the engine lacks is refused ([`unsupported`] lists them), and the caller
//! runs it there.

mod engine;
mod error;
mod kernels;
mod layers;
mod lowering;
mod math;
mod model;
mod plan;

pub use engine::{Engine, Options};
pub use error::{Error, Unsupported};
pub use kernels::{INSTRUCTION_SET_VARIABLE, InstructionSet};
pub use lowering::unsupported;
pub use model::EngineModel;
