//! The reader of one format, that which the program is named after: whatever the bytes, no panic, and what was read survives writing.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/data/tests/malformed/entry.rs"]
mod entry;

fuzz_target!(|bytes: &[u8]| {
    let is_named = |ending: &&&str| ending[1..] == env!("CARGO_BIN_NAME").replace('-', ".");
    if let Some(ending) = entry::ENDINGS.iter().find(is_named) {
        entry::try_file(ending, bytes);
    }
});
