//! Every operator against ONNX's own test vectors and against central differences, and the table of what came out:
//! `OPERATORS.md`, written by `cargo xtask operators`.

#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is not there")]

mod gradients;
mod table;
mod vectors;
