//! Networks as graphs: data that can be read from and written to ONNX, run and differentiated on any Burn device, trained,
//! edited and printed.

pub mod builder;
pub mod edit;
pub mod error;
pub mod executor;
pub mod graph;
mod memory;
pub mod model;
pub mod network;
pub mod onnx;
pub mod operators;
mod plan;
pub mod summary;
pub mod tensor;
pub mod train;
mod value;
pub mod weights;
pub mod zoo;

pub use builder::{GraphBuilder, Handle};
pub use burn::tensor::Device;
pub use error::{Error, OperatorError};
pub use executor::Executor;
pub use graph::{Dimension, Graph, Input, Node};
pub use model::GraphModel;
pub use network::Network;
pub use tensor::{ElementType, Tensor};
