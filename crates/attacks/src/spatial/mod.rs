//! Attacks that move content instead of changing values.
//!
//! Their budget is how far content moves, a setting of each attack: no norm of a change of values measures it. They are
//! meant to be run with an infinite epsilon, in any norm. A finite epsilon is obeyed too: the moved sample is projected
//! onto the ball, which bounds the change of values on top of the displacement. Outside the region of interest samples
//! keep their values.

pub mod affine;
pub mod deformation;
pub mod flow;
pub(crate) mod search;
pub mod st_adv;
