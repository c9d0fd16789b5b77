//! Attacks that search for the least change.
//!
//! Each returns the nearest of all points that it saw reach the goal; where that one is beyond a finite epsilon, the clean
//! sample and no success. Step sizes and constants that papers give for data in [0, 1] are in the range of the bounds.
//! [`exact`] proves the least change of small networks.

pub mod augmented_lagrangian;
pub mod box_lbfgs;
pub mod brendel_bethge;
pub mod carlini_wagner_l0;
pub mod carlini_wagner_l2;
pub mod carlini_wagner_linf;
pub(crate) mod constant_search;
pub mod decoupled_direction_norm;
pub mod elastic_net;
pub mod exact;
pub mod fab;
pub mod fast_minimum_norm;
pub(crate) mod frame;
pub(crate) mod hyperplane;
pub(crate) mod linear_program;
pub mod primal_dual;
pub(crate) mod proximal;
pub(crate) mod schedule;
pub(crate) mod search;
pub(crate) mod settings;
pub mod sigma_zero;
pub(crate) mod tanh_space;
pub mod targeted_fab;
pub(crate) mod trust_region;
