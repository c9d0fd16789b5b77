//! Attacks: one file each, in folders by family.
//!
//! | Folder | What the attacker needs |
//! |---|---|
//! | [`gradient`] | gradients of the model, a fixed budget |
//! | [`score`] | scores: outputs of the model, no gradient |
//! | [`decision`] | decisions only |
//! | [`control`] | nothing: changes of equal size that an attack must beat |
//!
//! [`catalogue::build`] makes any of them from its name and settings.

pub mod catalogue;
pub mod control;
pub mod decision;
pub mod gradient;
pub mod score;

pub use catalogue::{build, infos, resolve};
