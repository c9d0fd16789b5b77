//! Attacks that follow the gradient inside a fixed budget.

pub mod auto_pgd;
pub mod auto_pgd_targeted;
pub mod basic_iterative;
pub mod deep_fool;
pub mod fast_gradient;
pub mod fast_gradient_value;
pub mod fine_fool;
pub mod hot_cold;
pub mod iterative_least_likely;
pub mod newton_fool;
pub mod one_step_target;
pub mod orthogonal_pgd;
pub mod pgd;
pub mod random_start_fgsm;
pub mod saliency_map;
pub(crate) mod search;
pub(crate) mod step;
pub mod super_deep_fool;
pub(crate) mod target_class;
