//! Attacks: one file each, in folders by family.
//!
//! | Folder | What the attacker needs |
//! |---|---|
//! | [`gradient`] | gradients of the model, a fixed budget |
//! | [`minimum_norm`] | gradients of the model, no budget: the least change is searched |
//! | [`control`] | nothing: changes of equal size that an attack must beat |
//!
//! [`catalogue::build`] makes any of them from its name and settings.

mod boundaries;
pub mod catalogue;
pub mod control;
mod gaussian;
pub mod gradient;
pub mod line_search;
pub mod minimum_norm;
mod nearest;

pub use catalogue::{build, infos, resolve};
