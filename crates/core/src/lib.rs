//! The vocabulary of nocebo: what a batch, a threat model, a goal, a model and an attack are.
//!
//! Nothing here computes a network. A [`Model`] answers with outputs, a [`DifferentiableModel`] also with the gradient
//! of an [`Objective`] by its inputs, and an [`Attack`] asks nothing else. A batch ([`Samples`]) is a matrix in the
//! physical unit of its [`Domain`], and every epsilon of a [`ThreatModel`] is in that unit.

pub mod active_set;
pub mod attack;
pub mod domain;
pub mod error;
pub mod file;
pub mod goal;
pub mod model;
pub mod norm;
pub mod objective;
pub mod oracle;
pub mod samples;
pub mod seed;
pub mod segmentation;
pub mod task;
pub mod threat;

pub use active_set::ActiveSet;
pub use attack::{Attack, AttackInfo, AttackOutcome, AttackProblem, Knowledge, Perturbation};
pub use domain::{Column, Direction, Domain, DomainConfig, Field, Unit};
pub use error::Error;
pub use file::{check_writable, sync_folder, write_file};
pub use goal::{Goal, GoalKind, has_finding};
pub use model::{BlackBox, DifferentiableModel, Gradient, Model, ModelSpec};
pub use norm::Norm;
pub use objective::{GoalObjective, Loss, Objective};
pub use oracle::{Oracle, Queries};
/// A number that is not NaN, as labels have.
pub use ordered_float::NotNan;
pub use samples::{SampleView, Samples};
pub use seed::Seed;
pub use segmentation::{MaskTolerance, Overlap, Segmentation};
pub use task::{Label, Outputs, Task, argmax};
pub use threat::{Budget, ThreatModel, ThreatSpec};
