//! Attacks that see scores (logits) but no gradient.

pub mod bandits;
pub(crate) mod enlarge;
pub(crate) mod grid;
pub mod local_search;
pub mod nes;
pub mod one_pixel;
pub(crate) mod questions;
pub mod simba;
pub(crate) mod slopes;
pub mod spsa;
pub mod square;
pub mod zoo;
