//! Audits: how often a model is right while someone tries to make it wrong, and how far that figure can be believed.
//!
//! [`run`] takes a model, labelled samples and attacks, carries out every attack at every budget (a [`Cell`] each),
//! re-checks every success by itself, and leaves three files in a folder: records (one row for each sample × attack ×
//! norm × epsilon, as Parquet), a report (one HTML file) and a summary (JSON). Gates turn the summary into pass or fail.

pub mod audit;
pub mod browse;
pub mod cell;
pub mod compare;
pub mod error;
pub mod evaluate;
pub mod findings;
pub mod folder;
pub mod gate;
pub mod kept;
pub mod metrics;
pub mod protocol;
pub mod rate;
pub mod recipe;
pub mod records;
pub mod report;
pub mod request;
pub mod transfer;

mod auc;
mod bootstrap;
mod digest;
mod epsilon;
mod outputs;
mod probe;
mod watch;

#[cfg(test)]
mod toy;

pub use auc::Auc;
pub use audit::{Audit, Evaluation, Example, evaluate, run};
pub use browse::Browse;
pub use cell::{Attacked, Cell, Clean, in_brief};
pub use compare::{Comparison, compare};
pub use digest::{sha256_of_file, sha256_of_folder};
pub use error::AuditError;
pub use evaluate::{Event, Observer};
pub use findings::{Finding, Status};
pub use folder::AuditFolder;
pub use gate::{Gate, GateResult};
pub use kept::KeptSamples;
pub use metrics::{CellSummary, ClassOverlap, DecisionMetrics, ThreatResult, WorstCase};
pub use protocol::{Plan, Protocol};
pub use rate::Rate;
pub use recipe::Recipe;
pub use report::{ReportEntry, html as report_html};
pub use request::{
    AttackEntry, AuditData, AuditGoal, AuditRequest, AuditSettings, CONTROL, InputFile, LearnedFrom, LearningSet,
    Provenance, Threat,
};
pub use transfer::{Transfer, TransferMatrix, transfer};
