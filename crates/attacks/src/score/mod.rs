//! Attacks that see scores (logits) but no gradient.

pub(crate) mod grid;
pub(crate) mod questions;
pub mod square;
