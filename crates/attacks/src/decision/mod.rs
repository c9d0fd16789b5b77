//! Attacks that see decisions only.

pub mod boundary;
pub mod geoda;
pub mod hop_skip_jump;
pub mod rays;
pub mod sign_opt;
pub mod surfree;
pub(crate) mod walk;
