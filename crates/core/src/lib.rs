//! The vocabulary of nocebo: what a batch, a threat model, a goal, a model and an attack are.
//!
//! Nothing here computes a network. A [`Model`](crate::model) answers two questions, outputs and input gradients, and
//! an attack asks no others.

pub mod domain;
pub mod error;
pub mod samples;

pub use domain::{Domain, DomainConfig, Field, Unit};
pub use error::Error;
pub use samples::{SampleView, Samples};
