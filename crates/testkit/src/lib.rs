//! Toy models with known optima, defences that only look robust, and the common suites that every attack must pass.

#![expect(clippy::missing_panics_doc, reason = "toy values are written out beside the call; a panic is a failed test")]

pub mod broken;
pub mod golden;
pub mod models;
pub mod suite;
