//! Attacks made on one model, or an ensemble, to fool another.
//!
//! They take all their steps instead of stopping at the boundary of the model they see. How well they transfer is
//! measured by running them on one model and testing their points on another.

pub mod admix;
pub mod di_fgsm;
pub mod emi_fgsm;
pub mod ensemble;
pub mod ensemble_attack;
pub mod logistic;
pub mod mi_fgsm;
pub(crate) mod momentum;
mod network;
pub mod ni_fgsm;
pub mod si_ni_fgsm;
pub mod substitute;
pub mod ti_fgsm;
pub mod transformed_gradient;
pub mod vmi_fgsm;
