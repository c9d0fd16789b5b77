//! Changes that ignore the model: what an attack must beat.

pub mod noise;
