//! Attacks that search for the least change.

pub(crate) mod adam;
pub mod carlini_wagner_l2;
pub(crate) mod constant_search;
pub mod decoupled_direction_norm;
pub mod fast_minimum_norm;
pub(crate) mod frame;
pub(crate) mod schedule;
pub(crate) mod search;
pub(crate) mod settings;
pub(crate) mod tanh_space;
