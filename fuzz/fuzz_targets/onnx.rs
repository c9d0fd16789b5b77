//! The reader of ONNX files: whatever the bytes, no panic, and what was written can be read.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/graph/tests/malformed/entry.rs"]
mod entry;

fuzz_target!(|bytes: &[u8]| entry::try_model(bytes));
