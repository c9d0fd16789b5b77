//! Attacks that search for the least change.

pub mod augmented_lagrangian;
pub(crate) mod boundaries;
pub mod box_lbfgs;
pub mod brendel_bethge;
pub mod carlini_wagner_l0;
pub mod carlini_wagner_l2;
pub mod carlini_wagner_linf;
pub(crate) mod constant_search;
pub mod decoupled_direction_norm;
pub mod elastic_net;
pub mod fab;
pub mod fast_minimum_norm;
pub(crate) mod frame;
pub(crate) mod hyperplane;
pub mod primal_dual;
pub(crate) mod proximal;
pub(crate) mod schedule;
pub(crate) mod search;
pub(crate) mod settings;
pub mod sigma_zero;
pub(crate) mod tanh_space;
pub mod targeted_fab;
pub(crate) mod trust_region;
