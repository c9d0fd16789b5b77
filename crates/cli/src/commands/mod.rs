//! One file a command.

pub(crate) mod attack;
pub(crate) mod attacks;
pub(crate) mod audit;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod harden;
pub(crate) mod inspect;
pub(crate) mod run;
pub(crate) mod train;
