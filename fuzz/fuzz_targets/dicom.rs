//! The reader of DICOM images: whatever the bytes, no panic, and values are inside their bounds.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/data/tests/malformed_dicom/entry.rs"]
mod entry;

fuzz_target!(|bytes: &[u8]| entry::try_image(bytes));
