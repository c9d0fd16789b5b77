//! Attacks that see decisions only.

pub mod boundary;
pub mod decision_tree_path;
pub mod geoda;
pub mod hop_skip_jump;
pub mod rays;
pub mod sign_opt;
pub mod surfree;
pub mod tree;
pub(crate) mod walk;
