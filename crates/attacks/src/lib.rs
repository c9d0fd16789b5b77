//! Attacks: one file each, in folders by family.
//!
//! | Folder | What the attacker needs |
//! |---|---|
//! | [`gradient`] | gradients of the model, a fixed budget |
//! | [`frequency`] | gradients of the model, to change its cosine coefficients |
//! | [`minimum_norm`] | gradients of the model, no budget: the least change is searched |
//! | [`transfer`] | gradients of one model, to fool another |
//! | [`universal`] | gradients on a set of samples, for one change that serves all |
//! | [`generative`] | gradients (some: decisions) on a set of samples, for a network that makes the changes |
//! | [`score`] | scores: outputs of the model, no gradient |
//! | [`decision`] | decisions only |
//! | [`spatial`] | gradients, to move content instead of changing values |
//! | [`physical`] | gradients, to survive printing, light and movement |
//! | [`control`] | nothing: changes of equal size that an attack must beat |
//!
//! [`catalogue::build`] makes any of them from its name and settings. An attack that learns from a set of samples first
//! ([`fit::FitAttack`]) is made by [`catalogue::build_fit`] and becomes an attack when it is fitted.

pub(crate) mod adam;
mod boundaries;
pub mod catalogue;
pub mod control;
pub mod decision;
pub mod fit;
pub mod frequency;
mod gaussian;
pub mod generative;
pub mod gradient;
pub mod line_search;
pub mod minimum_norm;
mod nearest;
pub mod physical;
pub mod score;
pub mod spatial;
pub mod transfer;
pub mod transformation;
pub mod universal;

pub use catalogue::{build, build_fit, fit_infos, infos, learns, resolve};
