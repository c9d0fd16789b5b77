//! Readers of volumes and tables: whatever the bytes, no panic, and what was read survives writing.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/data/tests/malformed/entry.rs"]
mod entry;

fuzz_target!(|bytes: &[u8]| {
    // The first byte says as what the others are read.
    if let Some((first, rest)) = bytes.split_first() {
        entry::try_file(entry::ENDINGS[*first as usize % entry::ENDINGS.len()], rest);
    }
});
