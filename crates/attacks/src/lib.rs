//! Attacks: one file each, in folders by family.
//!
//! | Folder | What the attacker needs |
//! |---|---|
//! | [`gradient`] | gradients of the model, a fixed budget |
//! | [`transfer`] | gradients of one model, to fool another |
//! | [`control`] | nothing: changes of equal size that an attack must beat |
//!
//! [`catalogue::build`] makes any of them from its name and settings.

pub(crate) mod adam;
pub mod catalogue;
pub mod control;
pub mod gradient;
pub mod transfer;
pub mod transformation;

pub use catalogue::{build, infos};
