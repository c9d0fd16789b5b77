//! The results of a finished audit, sample by sample, for the viewer.

use std::path::{Path, PathBuf};

use nocebo_core::Norm;
use serde::Serialize;

use crate::audit::Audit;
use crate::cell::Cell;
use crate::folder::{RECORDS, REPORT};
use crate::kept::KeptSamples;
use crate::records::{self, RecordedSample};
use crate::report::{decision_name, robust_name};
use crate::{AuditError, Rate, epsilon};

/// A finished audit in its folder.
#[derive(Debug)]
pub struct Browse {
    folder: PathBuf,
    cells: Vec<Cell>,
    kept: KeptSamples,
    /// What a page shows of it.
    pub page: BrowsePage,
}

/// An audit as a page shows it.
#[derive(Clone, Debug, Serialize)]
pub struct BrowsePage {
    /// Its name among the others.
    pub name: String,
    /// Name of the data set.
    pub data: String,
    /// Shape of a sample, channels first.
    pub shape: Vec<usize>,
    /// Unit of the values and of every epsilon.
    pub unit: String,
    /// Least bound of an element.
    pub lower: f32,
    /// Greatest bound of an element.
    pub upper: f32,
    /// What a robust accuracy is called: it may be a sensitivity or specificity.
    pub robust_name: &'static str,
    /// Names of the classes or findings.
    pub class_names: Vec<String>,
    /// Share of the samples that are right without an attack.
    pub clean_accuracy: Rate,
    /// Samples in scope that stand while nothing is attacked: where curves over budgets begin.
    pub unattacked: Rate,
    /// Whether nothing was found that makes the evaluation weaker than it should be.
    pub evaluation_is_strong: bool,
    /// Each norm and budget, budgets ascending.
    pub threats: Vec<BrowseThreat>,
    /// Which of them headlines are about.
    pub headline: Option<usize>,
    /// Every sample.
    pub samples: Vec<BrowseSample>,
    /// Every attack at every budget.
    pub cells: Vec<BrowseCell>,
}

/// The worst case at one budget.
#[derive(Clone, Debug, Serialize)]
pub struct BrowseThreat {
    /// Norm of a change.
    pub norm: Norm,
    /// Greatest change, in the unit of the data.
    #[serde(with = "epsilon")]
    pub epsilon: f32,
    /// The same in words.
    pub budget: String,
    /// Worst case over attacks.
    pub robust: Rate,
    /// The same for inputs that were stored.
    pub robust_stored: Rate,
}

/// A sample without an attack.
#[derive(Clone, Debug, Serialize)]
pub struct BrowseSample {
    /// Index in the data set.
    pub index: u64,
    /// True label by name.
    pub label: String,
    /// Decision by name.
    pub decision: String,
    /// Pseudonym of the patient.
    pub patient: Option<String>,
    /// Whether the goal is about it.
    pub in_scope: bool,
    /// Whether it was attacked: in scope, and the goal not reached by itself.
    pub standing: bool,
    /// Whether its values are kept.
    pub kept: bool,
}

/// One attack at one budget.
#[derive(Clone, Debug, Serialize)]
pub struct BrowseCell {
    /// Name of the attack.
    pub attack: String,
    /// Whether it is only the noise control.
    pub control: bool,
    /// Norm of a change.
    pub norm: Norm,
    /// Greatest change, in the unit of the data.
    #[serde(with = "epsilon")]
    pub epsilon: f32,
    /// One a sample; none where the attack was not run on it.
    pub rows: Vec<Option<BrowseRow>>,
}

/// One sample under one attack.
#[derive(Clone, Debug, Serialize)]
pub struct BrowseRow {
    /// Whether it fell, as computed.
    pub fell: bool,
    /// Whether it fell, as stored.
    pub fell_stored: bool,
    /// Decision by name; none where the output is not finite.
    pub decision: Option<String>,
    /// Size of the change in the norm of the cell.
    pub distance: Option<f64>,
    /// Forward passes.
    pub queries: u32,
    /// Backward passes.
    pub gradient_queries: u32,
}

impl Browse {
    /// Reads a finished audit; `name` is what it is called.
    ///
    /// # Errors
    ///
    /// [`AuditError::Read`] and [`AuditError::Corrupt`] for a folder that holds something else.
    pub fn open(folder: &Path, name: &str) -> Result<Self, AuditError> {
        let audit = Audit::read(folder)?;
        let path = folder.join(RECORDS);
        let bytes = std::fs::read(&path).map_err(AuditError::read(&path))?;
        let corrupt = |got: String| AuditError::Corrupt {
            path: path.clone(),
            expected: "the records of an audit".to_owned(),
            got,
        };
        let recorded = records::samples(bytes.clone()).map_err(corrupt)?;
        let cells = records::decode(bytes).map_err(corrupt)?;
        if let Some(cell) = cells.iter().find(|cell| cell.rows.len() != recorded.len()) {
            let got = format!("{} of {} for {} samples", cell.rows.len(), cell.attack, recorded.len());
            return Err(corrupt(got));
        }
        let kept = KeptSamples::read(folder)?.unwrap_or_default();
        let page = page(name, &audit, &recorded, &cells, &kept);
        Ok(Self { folder: folder.to_owned(), cells, kept, page })
    }

    /// The report on it: an HTML document.
    ///
    /// # Errors
    ///
    /// [`AuditError::Read`].
    pub fn report(&self) -> Result<Vec<u8>, AuditError> {
        let path = self.folder.join(REPORT);
        std::fs::read(&path).map_err(AuditError::read(&path))
    }

    /// Values of a clean sample, by its index, as [`KeptSamples::clean`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn clean(&self, sample: u64) -> Result<Option<Vec<u8>>, AuditError> {
        self.kept.clean(&self.folder, sample)
    }

    /// Values of a sample as an attack returned it, by the place of the cell; as [`KeptSamples::perturbed`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn perturbed(&self, cell: usize, sample: u64) -> Result<Option<Vec<u8>>, AuditError> {
        match self.cells.get(cell) {
            Some(cell) => self.kept.perturbed(&self.folder, (&cell.attack, cell.norm, cell.epsilon), sample),
            None => Ok(None),
        }
    }
}

fn page(name: &str, audit: &Audit, recorded: &[RecordedSample], cells: &[Cell], kept: &KeptSamples) -> BrowsePage {
    let names = &audit.model.class_names;
    let sample = |sample: &RecordedSample| BrowseSample {
        index: sample.index,
        label: decision_name(&sample.label, names),
        decision: decision_name(&sample.decision, names),
        patient: sample.patient.clone(),
        in_scope: sample.in_scope,
        standing: sample.standing,
        kept: kept.samples.contains(&sample.index),
    };
    let cell = |cell: &Cell| BrowseCell {
        attack: cell.attack.clone(),
        control: cell.control,
        norm: cell.norm,
        epsilon: cell.epsilon,
        rows: cell
            .rows
            .iter()
            .map(|row| {
                row.as_ref().map(|row| BrowseRow {
                    fell: row.fell(),
                    fell_stored: row.fell_stored(),
                    decision: row.decision.as_ref().map(|decision| decision_name(decision, names)),
                    distance: row.distance(cell.norm),
                    queries: row.queries.forward,
                    gradient_queries: row.queries.backward,
                })
            })
            .collect(),
    };
    let threats = audit.threats.iter().map(|threat| BrowseThreat {
        norm: threat.norm,
        epsilon: threat.epsilon,
        budget: threat.budget.clone(),
        robust: threat.worst_case.robust_accuracy,
        robust_stored: threat.worst_case.robust_accuracy_stored,
    });
    BrowsePage {
        name: name.to_owned(),
        data: audit.data.name.clone(),
        shape: audit.data.shape.clone(),
        unit: audit.data.unit.clone(),
        lower: audit.data.lower,
        upper: audit.data.upper,
        robust_name: robust_name(audit.settings.goal),
        class_names: names.clone(),
        clean_accuracy: audit.clean.accuracy,
        unattacked: Rate::new(audit.data.attacked, audit.data.in_scope),
        evaluation_is_strong: audit.evaluation_is_strong,
        threats: threats.collect(),
        headline: audit.threats.iter().position(|threat| Some(threat) == audit.headline()),
        samples: recorded.iter().map(sample).collect(),
        cells: cells.iter().map(cell).collect(),
    }
}
