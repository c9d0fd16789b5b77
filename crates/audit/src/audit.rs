//! One whole audit: from a request to results, examples and files.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use nocebo_core::{Domain, Knowledge, Label, Norm, Samples, Seed, Task};
use serde::{Deserialize, Serialize};

use crate::cell::{Cell, Clean};
use crate::digest::sha256;
use crate::evaluate::{self, Observer, RunTime, Skipped};
use crate::findings::{Evidence, Finding, Status, findings};
use crate::folder::{AuditFolder, RECORDS, REPORT, SUMMARY};
use crate::gate::{Gate, GateResult};
use crate::metrics::{DecisionMetrics, Subjects, ThreatResult};
use crate::probe::probe;
use crate::records::{self, RecordSubjects};
use crate::report::{self, ReportEntry};
use crate::request::{AuditGoal, Checked, Provenance, Threat};
use crate::{AttackEntry, AuditError, AuditRequest};

/// Version of the layout of `audit.json`.
const SCHEMA: u32 = 1;

/// Results of an audit: what `audit.json` holds. Everything but [`Audit::timings`] and [`Audit::run`] is the same
/// whenever the same audit is repeated.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Audit {
    /// Version of this layout.
    pub schema: u32,
    /// The program.
    pub tool: String,
    /// Its version.
    pub tool_version: String,
    /// The model under test.
    pub model: ModelSummary,
    /// The samples.
    pub data: DataSummary,
    /// What was asked for, with every default filled in.
    pub settings: ResolvedSettings,
    /// The attacks with their settings.
    pub attacks: Vec<AttackSummary>,
    /// Attacks left out because they do not work in a norm.
    pub skipped: Vec<Skipped>,
    /// Decisions on the clean samples.
    pub clean: DecisionMetrics,
    /// Share of the samples that have the most frequent label.
    pub majority_share: f64,
    /// Results for each norm and budget, budgets ascending.
    pub threats: Vec<ThreatResult>,
    /// Whether nothing was found that makes the evaluation weaker than it should be.
    pub evaluation_is_strong: bool,
    /// What was looked for.
    pub findings: Vec<Finding>,
    /// Whether each gate was met.
    pub gates: Vec<GateResult>,
    /// SHA-256 of `records.parquet`.
    pub records_sha256: String,
    /// Where all this comes from.
    pub provenance: Provenance,
    /// How it was computed; results do not depend on it.
    pub run: RunSettings,
    /// How long it took; nothing else holds a time.
    pub timings: Timings,
}

/// A model in results.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ModelSummary {
    /// Its name.
    pub name: String,
    /// What it decides.
    pub task: Task,
    /// Names of the classes or findings.
    pub class_names: Vec<String>,
}

/// Samples in results.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct DataSummary {
    /// Name of the data set.
    pub name: String,
    /// Number of samples.
    pub samples: usize,
    /// Samples that the goal is about.
    pub in_scope: usize,
    /// Samples that were attacked: in scope and right to begin with.
    pub attacked: usize,
    /// Number of patients, where known.
    pub patients: Option<usize>,
    /// Shape of a sample, channels first.
    pub shape: Vec<usize>,
    /// Unit of the values and of every epsilon.
    pub unit: String,
    /// Least bound of an element.
    pub lower: f32,
    /// Greatest bound of an element.
    pub upper: f32,
    /// Greatest storage step of an element; 0 for floats.
    pub resolution: f32,
    /// Elements that an attack may change.
    pub mutable_elements: usize,
}

/// Settings in results.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ResolvedSettings {
    /// What the attacker may change.
    pub threats: Vec<Threat>,
    /// What the attacker wants.
    pub goal: AuditGoal,
    /// Class or finding that false negatives and false positives are counted for.
    pub finding: Option<usize>,
    /// Seed of all randomness.
    pub seed: Seed,
    /// Forward passes allowed a sample.
    pub query_limit: Option<u32>,
    /// Conditions.
    pub gates: Vec<Gate>,
}

/// An attack in results.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct AttackSummary {
    /// Its name in this audit.
    pub name: String,
    /// Name in full.
    pub title: String,
    /// Paper.
    pub source: String,
    /// Family in the catalogue.
    pub family: String,
    /// What the attacker must know: nothing, decisions, scores or gradients.
    pub knowledge: String,
    /// Whether it searches for the least change.
    pub minimum_norm: bool,
    /// Whether it is only the noise control.
    pub control: bool,
    /// Its settings.
    pub settings: serde_json::Value,
}

/// Settings that do not change results.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct RunSettings {
    /// Samples in one call of the model.
    pub batch_size: usize,
    /// Examples with images in the report.
    pub include_images: usize,
}

/// Times of an audit.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Timings {
    /// Seconds from start to end of this run; cells found finished cost nothing here.
    pub total_seconds: f64,
    /// Seconds of each run of an attack, when it was first computed.
    pub runs: Vec<RunTime>,
}

/// A sample before and after the attack that brought it down.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// Index in the data set.
    pub sample: u64,
    /// Name of the attack.
    pub attack: String,
    /// Norm of the threat.
    pub norm: Norm,
    /// Budget, in the unit of the data.
    pub epsilon: f32,
    /// Name of the true label.
    pub label: String,
    /// Name of the decision on the clean sample.
    pub clean_decision: String,
    /// Name of the decision on the perturbed sample.
    pub perturbed_decision: String,
    /// Clean and perturbed values.
    pub pair: Samples,
    /// What the values mean.
    pub domain: Domain,
}

/// An audit in memory: results, every cell, and the examples for the report.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// The results.
    pub audit: Audit,
    /// The model on the clean samples.
    pub clean: Clean,
    /// Every cell, in the order of the records.
    pub cells: Vec<Cell>,
    /// The records of all cells, as Parquet.
    pub records: Vec<u8>,
    /// Up to `include_images` samples that fell, with images.
    pub examples: Vec<Example>,
}

/// Carries out an audit and keeps it in `folder`: `records.parquet`, `report.html` and, last, `audit.json`.
///
/// Cells that the folder already holds are not computed again, so the same call continues a run that was ended, and the
/// files come out the same, byte by byte, but for the timings.
///
/// # Errors
///
/// [`AuditError`] for a request whose parts do not fit, before anything is computed; for a folder that cannot be written
/// to; for a model or attack that fails; [`AuditError::Stopped`] when the observer asked to stop.
pub fn run(request: AuditRequest<'_>, folder: &Path, observer: &dyn Observer) -> Result<Evaluation, AuditError> {
    let checked = Checked::new(request)?;
    let folder = AuditFolder::open(folder)?;
    let evaluation = carry_out(&checked, Some(&folder), observer)?;
    let entry =
        ReportEntry { name: &request.provenance.model, audit: &evaluation.audit, examples: &evaluation.examples };
    let html = report::html(&[entry])?;
    let mut json = serde_json::to_vec_pretty(&evaluation.audit).map_err(AuditError::encode("summary"))?;
    json.push(b'\n');
    folder.write(RECORDS, &evaluation.records)?;
    folder.write(REPORT, html.as_bytes())?;
    folder.write(SUMMARY, &json)?;
    Ok(evaluation)
}

/// Carries out an audit in memory.
///
/// # Errors
///
/// As [`run`], but for the folder.
pub fn evaluate(request: AuditRequest<'_>, observer: &dyn Observer) -> Result<Evaluation, AuditError> {
    carry_out(&Checked::new(request)?, None, observer)
}

impl Audit {
    /// Reads the `audit.json` of a finished audit.
    ///
    /// # Errors
    ///
    /// [`AuditError::Read`], and [`AuditError::Corrupt`] where the file holds something else.
    pub fn read(folder: &Path) -> Result<Self, AuditError> {
        let path = folder.join(SUMMARY);
        let bytes = std::fs::read(&path).map_err(AuditError::read(&path))?;
        let corrupt = |got: String| AuditError::Corrupt {
            path: path.clone(),
            expected: format!("the summary of an audit, layout {SCHEMA}"),
            got,
        };
        let audit: Self = serde_json::from_slice(&bytes).map_err(|error| corrupt(error.to_string()))?;
        if audit.schema == SCHEMA { Ok(audit) } else { Err(corrupt(format!("layout {}", audit.schema))) }
    }

    /// Whether every gate was met.
    pub fn gates_passed(&self) -> bool {
        self.gates.iter().all(|gate| gate.passed)
    }

    /// The threat that headlines are about: the greatest budget of the first norm.
    pub fn headline(&self) -> Option<&ThreatResult> {
        let norm = self.threats.first()?.norm;
        self.threats.iter().rfind(|threat| threat.norm == norm)
    }
}

fn carry_out(
    checked: &Checked<'_>,
    folder: Option<&AuditFolder>,
    observer: &dyn Observer,
) -> Result<Evaluation, AuditError> {
    let start = Instant::now();
    let AuditRequest { model, data, attacks, settings, provenance } = checked.request;
    let spec = model.spec();
    let (clean, outputs) = evaluate::clean(checked)?;
    let probe = probe(checked, &outputs, &clean.standing)?;
    let (runs, skipped) = evaluate::plan(attacks, &checked.threats);
    let grid = evaluate::evaluate(checked, &runs, &clean, &outputs, folder, observer)?;
    let records = records::encode(RecordSubjects { data, clean: &clean }, &grid.cells.iter().collect::<Vec<_>>())?;
    let examples = examples(checked, &runs, &clean, &grid.cells)?;

    let subjects = Subjects {
        labels: &data.labels,
        clean: &clean,
        class_names: &spec.class_names,
        finding: checked.finding,
        domain: &data.domain,
    };
    let unlimited: Vec<&str> =
        attacks.iter().filter(|entry| entry.attack.info().minimum_norm).map(|entry| entry.name.as_str()).collect();
    let decisions = subjects.clean_decisions();
    let threats = subjects.threats(&checked.threats, &grid.cells, &unlimited);
    let majority_share = evaluate::majority_share(&data.labels);
    let findings = findings(&Evidence {
        attacks,
        cells: &grid.cells,
        clean: &clean,
        decisions: &decisions,
        majority_share,
        threats: &threats,
        probe: &probe,
    });
    let judge = |gate: &Gate| gate.judge(&decisions, &threats, data);
    let gates = settings.gates.iter().map(judge).collect::<Result<_, _>>()?;
    let doubtful = |finding: &Finding| finding.weakens_evaluation && finding.status == Status::Fail;
    let audit = Audit {
        schema: SCHEMA,
        tool: "nocebo".to_owned(),
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        model: ModelSummary {
            name: provenance.model.clone(),
            task: spec.task.clone(),
            class_names: spec.class_names.clone(),
        },
        data: data_summary(checked, &clean),
        settings: ResolvedSettings {
            threats: checked.threats.clone(),
            goal: settings.goal,
            finding: checked.finding,
            seed: settings.seed,
            query_limit: settings.query_limit,
            gates: settings.gates.clone(),
        },
        attacks: attacks.iter().map(attack_summary).collect(),
        skipped,
        clean: decisions,
        majority_share,
        threats,
        evaluation_is_strong: !findings.iter().any(doubtful),
        findings,
        gates,
        records_sha256: sha256(&records),
        provenance: provenance.clone(),
        run: RunSettings { batch_size: settings.batch_size, include_images: settings.include_images },
        timings: Timings { total_seconds: start.elapsed().as_secs_f64(), runs: grid.times },
    };
    Ok(Evaluation { audit, clean, cells: grid.cells, records, examples })
}

fn data_summary(checked: &Checked<'_>, clean: &Clean) -> DataSummary {
    let data = checked.request.data;
    let domain = &data.domain;
    let patients = data.patients.as_ref().map(|patients| patients.iter().collect::<BTreeSet<_>>().len());
    DataSummary {
        name: data.name.clone(),
        samples: data.samples.len(),
        in_scope: clean.scope(),
        attacked: clean.attacked().len(),
        patients,
        shape: domain.shape().to_vec(),
        unit: domain.unit().symbol().to_owned(),
        lower: domain.lower().iter().copied().fold(f32::INFINITY, f32::min),
        upper: domain.upper().iter().copied().fold(f32::NEG_INFINITY, f32::max),
        resolution: domain.resolution().iter().copied().fold(0.0, f32::max),
        mutable_elements: (0..domain.elements()).filter(|&element| domain.is_mutable(element)).count(),
    }
}

fn attack_summary(entry: &AttackEntry) -> AttackSummary {
    let info = entry.attack.info();
    AttackSummary {
        name: entry.name.clone(),
        title: info.title.to_owned(),
        source: info.source.to_owned(),
        family: info.family.to_owned(),
        knowledge: match info.knowledge {
            Knowledge::None => "nothing",
            Knowledge::Decisions => "decisions",
            Knowledge::Scores => "scores",
            Knowledge::Gradients => "gradients",
        }
        .to_owned(),
        minimum_norm: info.minimum_norm,
        control: entry.is_control(),
        settings: entry.settings.clone(),
    }
}

/// Up to `include_images` samples that fell, taken from the labels in turn, those first that took least.
///
/// Each is shown under the attack and the least budget that brought it down, where possible also as stored. The
/// perturbed inputs are made again by attacking these samples alone: a sample's result depends on nothing else, so they
/// need not be kept.
fn examples(
    checked: &Checked<'_>,
    runs: &[evaluate::Run<'_>],
    clean: &Clean,
    cells: &[Cell],
) -> Result<Vec<Example>, AuditError> {
    let AuditRequest { model, data, settings, .. } = checked.request;
    let names = &model.spec().class_names;
    // One list a label; in each the samples that took least stand last.
    let mut lists: Vec<(&Label, Vec<(usize, &Cell)>)> = Vec::new();
    for position in clean.attacked() {
        let felled = |cell: &&Cell| !cell.control && cell.rows[position].as_ref().is_some_and(|row| row.success);
        let stored = |cell: &Cell| cell.rows[position].as_ref().is_some_and(|row| row.success_stored);
        let cheaper = |a: &&Cell, b: &&Cell| (!stored(a)).cmp(&!stored(b)).then(a.epsilon.total_cmp(&b.epsilon));
        let Some(cell) = cells.iter().filter(felled).min_by(cheaper) else { continue };
        let label = &data.labels[position];
        match lists.iter_mut().find(|(known, _)| *known == label) {
            Some((_, list)) => list.push((position, cell)),
            None => lists.push((label, vec![(position, cell)])),
        }
    }
    lists.sort_by_key(|(label, _)| *label);
    for (_, list) in &mut lists {
        list.sort_by(|a, b| b.1.epsilon.total_cmp(&a.1.epsilon).then(b.0.cmp(&a.0)));
    }
    let mut found = Vec::new();
    while found.len() < settings.include_images && lists.iter().any(|(_, list)| !list.is_empty()) {
        for (_, list) in &mut lists {
            if found.len() < settings.include_images
                && let Some((position, cell)) = list.pop()
            {
                found.extend(example(checked, runs, clean, cell, position, names)?);
            }
        }
    }
    Ok(found)
}

fn example(
    checked: &Checked<'_>,
    runs: &[evaluate::Run<'_>],
    clean: &Clean,
    cell: &Cell,
    position: usize,
    names: &[String],
) -> Result<Option<Example>, AuditError> {
    let AuditRequest { model, data, settings, .. } = checked.request;
    let made = |run: &&evaluate::Run<'_>| {
        run.entry.name == cell.attack && run.norm == cell.norm && run.judged.contains(&cell.epsilon)
    };
    let (Some(run), Some(row)) = (runs.iter().find(made), &cell.rows[position]) else { return Ok(None) };
    let inputs = data.samples.select(&[position]);
    let goal = checked.goal.select(&[position]);
    let threat = run.threat(&data.domain, run.epsilon, settings.query_limit)?;
    let outcome = run.entry.attack.run(model, &inputs, &goal, &threat, settings.seed).map_err(|source| {
        AuditError::Attack { attack: cell.attack.clone(), norm: cell.norm, epsilon: run.epsilon, source }
    })?;
    let name = |label| report::decision_name(label, names);
    Ok(Some(Example {
        sample: inputs.indices()[0],
        attack: cell.attack.clone(),
        norm: cell.norm,
        epsilon: cell.epsilon,
        label: name(&data.labels[position]),
        clean_decision: name(&clean.decisions[position]),
        perturbed_decision: row.decision.as_ref().map_or_else(|| "not finite".to_owned(), name),
        pair: Samples::new([inputs.values(), outcome.perturbed_inputs.values()].concat(), inputs.shape())?,
        domain: data.domain.clone(),
    }))
}
