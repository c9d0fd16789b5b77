//! ONNX files: read into a [`Graph`](crate::Graph), written from one.
//!
//! A file may come from anywhere, so nothing in it is believed before it is checked: the size and kind of the file, the
//! number of messages before they are decoded, the size of each tensor before it is allocated, the place of external data,
//! the names of values, the order of nodes. Errors name the file and the node.

mod messages;
mod read;
mod tensors;
mod write;

pub use read::{read, read_bytes, read_or_all_problems, read_tensor};
pub use write::{to_bytes, write, write_tensor};

/// Metadata key under which nocebo stores the model's specification (input domain, task, class names) as JSON.
pub const SPEC_KEY: &str = "nocebo.spec";

/// Newest opset that is read.
pub const NEWEST_OPSET: i64 = 25;

/// Opset that is written, unless an operator needs a newer one.
pub const WRITTEN_OPSET: i64 = 17;
