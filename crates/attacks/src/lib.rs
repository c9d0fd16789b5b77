//! Attacks: one file each, in folders by family.
//!
//! | Folder | What the attacker needs |
//! |---|---|
//! | [`gradient`] | gradients of the model, a fixed budget |
//! | [`transfer`] | gradients of one model, to fool another |
//! | [`universal`] | gradients on a set of samples, for one change that serves all |
//! | [`spatial`] | gradients, to move content instead of changing values |
//! | [`physical`] | gradients, to survive printing, light and movement |
//! | [`control`] | nothing: changes of equal size that an attack must beat |
//!
//! [`catalogue::build`] makes any of them from its name and settings. An attack that learns from a set of samples first
//! ([`fit::FitAttack`]) is made by [`catalogue::build_fit`] and becomes an attack when it is fitted.

pub(crate) mod adam;
pub mod catalogue;
pub mod control;
pub mod fit;
pub mod gradient;
pub mod physical;
pub mod spatial;
pub mod transfer;
pub mod transformation;
pub mod universal;

pub use catalogue::{build, build_fit, fit_infos, infos, resolve};
