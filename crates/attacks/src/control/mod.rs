//! Controls: changes that do not look at the model, except for how much of them it takes.

pub mod additive_noise;
pub mod contrast_reduction;
pub mod gaussian_blur;
pub mod noise;
pub mod salt_and_pepper;
pub mod single_pixel;
