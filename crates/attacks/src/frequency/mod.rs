//! Attacks that perturb a sample through its cosine transform.

pub(crate) mod cosine;
pub mod low_frequency;
pub mod vafa;
