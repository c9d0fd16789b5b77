//! Attacks that must survive on the way to the model: printed, worn, scanned, photographed.
//!
//! The place of a sticker or a frame is the region of interest of the threat model; where it may take any value, epsilon
//! is infinite. What happens on the way is a distribution of
//! [transformations](crate::transformation::Transformations). Success is claimed for the untransformed sample;
//! [`success_under`](print_scan::success_under) measures it under transformations.

pub mod adv_cam;
pub mod eot;
pub mod masked_patch;
pub(crate) mod penalty;
pub mod print_scan;
pub mod robust_momentum;
pub mod rp2;
pub(crate) mod views;
