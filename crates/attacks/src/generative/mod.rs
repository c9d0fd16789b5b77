//! Networks that make adversarial samples, learned from a set.
//!
//! Each of these but Type I is a [`FitAttack`](crate::fit::FitAttack). What it learns is an
//! [`Attack`](nocebo_core::Attack): a network on the CPU that maps a sample to its point, whatever device the model is on.
//! Type I turns the goal around (a great change, the same decision) and so has a type of its own
//! ([`type_one::TypeOne`]).

pub mod adv_gan;
pub mod angri;
pub mod atn;
mod change;
pub mod gap;
mod generator;
pub mod natural_gan;
pub mod networks;
pub mod one_class;
pub mod type_one;
