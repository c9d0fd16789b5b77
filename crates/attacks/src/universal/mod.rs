//! One change for all samples, learned from a set.
//!
//! Each of these is a [`FitAttack`](crate::fit::FitAttack). What it learns is an
//! [`Attack`](nocebo_core::Attack) that asks the model nothing to make its points.

pub mod medical_uap;
pub mod patch;
pub mod perturbation;
pub mod sgd_uap;
pub mod uap;
pub mod upset;
