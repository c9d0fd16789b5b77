//! One whole audit: from a request to results, examples and files.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use nocebo_core::{Domain, Knowledge, Label, Norm, Samples, Seed, Task, has_finding};
use nocebo_data::StoreAs;
use serde::{Deserialize, Serialize};

use crate::bootstrap::Bootstrap;
use crate::cell::{Cell, Clean};
use crate::digest::sha256;
use crate::evaluate::{self, Observer, RunTime, Skipped};
use crate::findings::{Evidence, Finding, Status, findings};
use crate::folder::{AuditFolder, JUNIT, KEPT, KEPT_CLEAN, MARKDOWN, MODEL_CARD, RECORDS, REPORT, RESOLVED, SUMMARY};
use crate::gate::{Gate, GateResult};
use crate::kept::{self, KeptRun, KeptSamples};
use crate::metrics::{DecisionMetrics, LeastChanges, Subgroup, Subjects, ThreatResult};
use crate::outputs;
use crate::probe::{probe, probe_afterwards};
use crate::records::{self, RecordSubjects};
use crate::report::{self, ReportEntry};
use crate::request::{AuditGoal, Checked, LearnedFrom, Provenance, Threat};
use crate::{AttackEntry, AuditError, AuditRequest};

/// Version of the layout of `audit.json`.
const SCHEMA: u32 = 1;

/// Results of an audit: what `audit.json` holds. Everything but [`Audit::timings`], [`Audit::run`] and
/// [`Audit::provenance`] is the same whenever the same audit is repeated.
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
    /// Each subgroup of the clean samples.
    #[serde(default)]
    pub clean_subgroups: Vec<Subgroup>,
    /// Share of the samples that have the most frequent label.
    pub majority_share: f64,
    /// The least change that any attack found for each sample, in each norm.
    #[serde(default)]
    pub least_changes: Vec<LeastChanges>,
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
    /// What was left out or assumed while the data were read.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Samples of each class or finding.
    #[serde(default)]
    pub class_counts: Vec<usize>,
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
    /// What the set of attacks is called.
    #[serde(default)]
    pub protocol: Option<String>,
    /// How pictures were stored with loss before success was judged as stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_as: Option<StoreAs>,
    /// Where the attacker reaches the input.
    #[serde(default)]
    pub channel: Option<String>,
    /// Why the budgets were chosen.
    #[serde(default)]
    pub justification: Option<String>,
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
    /// What it learned from, where it learns first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learned_from: Option<LearnedFrom>,
}

/// Settings that do not change results.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
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
    if let Some(recipe) = &request.provenance.recipe {
        folder.write(RESOLVED, recipe.as_bytes())?;
    }
    if request.settings.keep_samples == 0 {
        folder.keep_only_points_of(&BTreeSet::new())?;
    }
    let (evaluation, runs) = carry_out(&checked, Some(&folder), observer)?;
    let entry =
        ReportEntry { name: &request.provenance.model, audit: &evaluation.audit, examples: &evaluation.examples };
    let html = report::html(&[entry])?;
    let mut json = serde_json::to_vec_pretty(&evaluation.audit).map_err(AuditError::encode("summary"))?;
    json.push(b'\n');
    let audit = &evaluation.audit;
    let mut card = serde_json::to_vec_pretty(&outputs::model_card(audit)).map_err(AuditError::encode("model card"))?;
    card.push(b'\n');
    folder.write(RECORDS, &evaluation.records)?;
    folder.write(REPORT, html.as_bytes())?;
    folder.write(JUNIT, outputs::junit(audit).as_bytes())?;
    folder.write(MARKDOWN, outputs::markdown(audit).as_bytes())?;
    folder.write(MODEL_CARD, &card)?;
    keep(&checked, &folder, runs)?;
    folder.write(SUMMARY, &json)?;
    Ok(evaluation)
}

/// Writes the clean samples that are kept and the list of all that is.
fn keep(checked: &Checked<'_>, folder: &AuditFolder, runs: Vec<KeptRun>) -> Result<(), AuditError> {
    let positions: Vec<usize> = (0..checked.kept.len()).filter(|&position| checked.kept[position]).collect();
    if positions.is_empty() {
        return Ok(());
    }
    let clean = checked.request.data.samples.select(&positions);
    let kept = KeptSamples { samples: clean.indices().to_vec(), shape: clean.shape().to_vec(), runs };
    folder.keep_only_points_of(&kept.runs.iter().flat_map(|run| &run.parts).map(|part| part.id.as_str()).collect())?;
    folder.write(KEPT_CLEAN, &kept::encode(&clean))?;
    folder.write(KEPT, &serde_json::to_vec(&kept).map_err(AuditError::encode("list of kept samples"))?)
}

/// Carries out an audit in memory.
///
/// # Errors
///
/// As [`run`], but for the folder.
pub fn evaluate(request: AuditRequest<'_>, observer: &dyn Observer) -> Result<Evaluation, AuditError> {
    carry_out(&Checked::new(request)?, None, observer).map(|(evaluation, _)| evaluation)
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

    /// JSON Schema of `audit.json` (draft 2020-12).
    pub fn schema() -> &'static str {
        include_str!("../schema/audit.schema.json")
    }

    /// Whether every gate was met.
    pub fn gates_passed(&self) -> bool {
        self.gates.iter().all(|gate| gate.passed)
    }

    /// The threat that headlines are about: the middle budget of the first norm (of an even number the greater), because
    /// budgets reach from those that change nothing to those that must bring everything down. An infinite budget only
    /// where there is no other.
    pub fn headline(&self) -> Option<&ThreatResult> {
        let norm = self.threats.first()?.norm;
        let budgets: Vec<&ThreatResult> = self.threats.iter().filter(|threat| threat.norm == norm).collect();
        let finite = budgets.iter().filter(|threat| threat.epsilon.is_finite()).count();
        budgets.get(finite / 2).copied()
    }
}

fn carry_out(
    checked: &Checked<'_>,
    folder: Option<&AuditFolder>,
    observer: &dyn Observer,
) -> Result<(Evaluation, Vec<KeptRun>), AuditError> {
    let start = Instant::now();
    let AuditRequest { model, data, attacks, settings, provenance } = checked.request;
    let spec = model.spec();
    let (clean, outputs) = evaluate::clean(checked)?;
    let mut probe = probe(checked, &outputs, &clean)?;
    let (runs, skipped) = evaluate::plan(attacks, &checked.threats);
    let grid = evaluate::evaluate(checked, &runs, &clean, &outputs, folder, observer)?;
    probe_afterwards(checked, &outputs, &clean, &grid.cells, &mut probe)?;
    let recorded = RecordSubjects { data, labels: &checked.labels, clean: &clean };
    let records = records::encode(recorded, &grid.cells.iter().collect::<Vec<_>>())?;
    let examples = examples(checked, &runs, &clean, &grid.cells)?;

    let bootstrap = Bootstrap::new(data.labels.len(), data.patients.as_deref(), settings.seed);
    let logits: Vec<Vec<f32>> = outputs.rows().map(<[f32]>::to_vec).collect();
    let subjects = Subjects {
        labels: &checked.labels,
        clean: &clean,
        outputs: &logits,
        class_names: &spec.class_names,
        task: &spec.task,
        goal: settings.goal,
        finding: checked.finding,
        domain: &data.domain,
        groups: &data.groups,
        bootstrap: &bootstrap,
    };
    let unlimited: Vec<&str> =
        attacks.iter().filter(|entry| entry.is_unlimited()).map(|entry| entry.name.as_str()).collect();
    let decisions = subjects.clean_decisions();
    let threats = subjects.threats(&checked.threats, &grid.cells, &unlimited);
    let majority_share = evaluate::majority_share(&spec.task, &data.labels);
    let findings = findings(&Evidence {
        task: &spec.task,
        domain: &data.domain,
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
            protocol: settings.protocol.clone(),
            store_as: settings.store_as,
            channel: settings.channel.clone(),
            justification: settings.justification.clone(),
        },
        attacks: attacks.iter().map(attack_summary).collect(),
        skipped,
        clean_subgroups: subjects.clean_subgroups(),
        clean: decisions,
        majority_share,
        least_changes: subjects.least_changes(&checked.threats, &grid.cells),
        threats,
        evaluation_is_strong: !findings.iter().any(doubtful),
        findings,
        gates,
        records_sha256: sha256(&records),
        provenance: provenance.clone(),
        run: RunSettings { batch_size: settings.batch_size, include_images: settings.include_images },
        timings: Timings { total_seconds: start.elapsed().as_secs_f64(), runs: grid.times },
    };
    Ok((Evaluation { audit, clean, cells: grid.cells, records, examples }, grid.kept))
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
        notes: data.notes.clone(),
        class_counts: (0..checked.request.model.spec().class_names.len())
            .map(|class| data.labels.iter().filter(|label| has_finding(label, class)).count())
            .collect(),
    }
}

fn attack_summary(entry: &AttackEntry) -> AttackSummary {
    let info = entry.info();
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
        learned_from: entry.learned_from().cloned(),
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
    let AuditRequest { model, settings, .. } = checked.request;
    let names = &model.spec().class_names;
    // One list a label; in each the samples that took least stand last.
    let mut lists: Vec<(&Label, Vec<(usize, &Cell)>)> = Vec::new();
    for position in clean.attacked() {
        let felled = |cell: &&Cell| !cell.control && cell.rows[position].as_ref().is_some_and(|row| row.success);
        let stored = |cell: &Cell| cell.rows[position].as_ref().is_some_and(|row| row.success_stored);
        let cheaper = |a: &&Cell, b: &&Cell| (!stored(a)).cmp(&!stored(b)).then(a.epsilon.total_cmp(&b.epsilon));
        let Some(cell) = cells.iter().filter(felled).min_by(cheaper) else { continue };
        let label = &checked.labels[position];
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
    let outcome =
        run.attack(checked).and_then(|attack| attack.run(model, &inputs, &goal, &threat, settings.seed)).map_err(
            |source| AuditError::Attack { attack: cell.attack.clone(), norm: cell.norm, epsilon: run.epsilon, source },
        )?;
    let name = |label| report::decision_name(label, names);
    Ok(Some(Example {
        sample: inputs.indices()[0],
        attack: cell.attack.clone(),
        norm: cell.norm,
        epsilon: cell.epsilon,
        label: name(&checked.labels[position]),
        clean_decision: name(&clean.decisions[position]),
        perturbed_decision: row.decision.as_ref().map_or_else(|| "not finite".to_owned(), name),
        pair: Samples::new([inputs.values(), outcome.perturbed_inputs.values()].concat(), inputs.shape())?,
        domain: data.domain.clone(),
    }))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use nocebo_core::DifferentiableModel;

    use super::*;
    use crate::evaluate::Event;
    use crate::toy::{self, Behaviour, Bent, Mean, ToyAttack};
    use crate::{AuditData, AuditSettings, CONTROL};

    fn request<'a>(
        model: &'a dyn DifferentiableModel,
        data: &'a AuditData,
        attacks: &'a [AttackEntry],
        settings: &'a AuditSettings,
        provenance: &'a Provenance,
    ) -> AuditRequest<'a> {
        AuditRequest { model, data, attacks, settings, provenance }
    }

    fn audit_of(
        model: &dyn DifferentiableModel,
        data: &AuditData,
        attacks: &[AttackEntry],
        settings: &AuditSettings,
    ) -> Result<Evaluation, AuditError> {
        evaluate(request(model, data, attacks, settings, &toy::provenance()), &())
    }

    fn hits(rate: crate::Rate) -> (u64, u64) {
        (rate.hits, rate.trials)
    }

    #[test]
    fn a_model_with_known_margins_has_the_known_robust_accuracy() {
        let found =
            audit_of(&Mean::new(), &toy::ten(), &toy::attacks(), &toy::settings(&[8.0, 0.5, 2.0, 4.0, 2.0])).unwrap();
        let audit = &found.audit;
        assert_eq!(hits(audit.clean.accuracy), (8, 10));
        assert_eq!(audit.clean.balanced_accuracy, Some(0.8));
        assert_eq!(audit.clean.false_negative_rate.map(hits), Some((1, 5)));
        assert_eq!((audit.data.in_scope, audit.data.attacked), (10, 8));
        // Epsilons come out ascending and once. The four margins on either side are 1, 3, 5 and 30.
        let epsilons: Vec<f32> = audit.threats.iter().map(|threat| threat.epsilon).collect();
        assert_eq!(epsilons, [0.5, 2.0, 4.0, 8.0]);
        for (threat, standing) in audit.threats.iter().zip([8, 6, 4, 2]) {
            let worst = &threat.worst_case;
            assert_eq!(hits(worst.robust_accuracy), (standing, 10), "{}", threat.epsilon);
            assert_eq!(hits(worst.robust_accuracy_stored), (standing, 10), "{}", threat.epsilon);
            assert_eq!(hits(worst.attack_success_rate), (8 - standing, 8));
            let missed = 1 + (8 - standing) / 2;
            assert_eq!(worst.decisions.false_negative_rate.map(hits), Some((missed, 5)));
            assert_eq!(worst.decisions.false_positive_rate.map(hits), Some((missed, 5)));
            assert_eq!(worst.decisions.balanced_accuracy, Some((5 - missed) as f64 / 5.0));
            assert_eq!(
                threat.cells.iter().map(|cell| cell.attack.as_str()).collect::<Vec<_>>(),
                ["fgsm", "pgd", "noise"]
            );
        }
        let fgsm = &audit.threats[2].cells[0];
        assert_eq!((fgsm.queries.mean, fgsm.queries.max, fgsm.gradient_queries.mean), (Some(2.0), 2, Some(1.0)));
        assert_eq!(fgsm.perturbation.map(|size| (size.mean, size.median)), Some((4.0, 4.0)));
        assert_eq!(audit.threats[0].cells[0].perturbation, None);
        assert!(audit.evaluation_is_strong, "{:#?}", audit.findings);
    }

    #[test]
    fn masks_are_judged_by_their_overlap() {
        let mut data = toy::data(&[0.0; 3]);
        data.samples
            .values_mut()
            .copy_from_slice(&[100.0, 100.0, 150.0, 150.0, 126.0, 127.0, 130.0, 131.0, 200.0, 200.0, 10.0, 10.0]);
        data.labels = vec![Label::Mask(vec![0, 0, 1, 1]); 3];
        let built = |text: &str, name: &str| {
            let settings: toml::Table = text.parse().unwrap();
            let attack = nocebo_attacks::build(name, settings).unwrap();
            AttackEntry::new(name, serde_json::json!({}), attack)
        };
        let attacks = [built("", "fgsm"), built("", "pgd"), built("loss = \"dice\"", "apgd"), built("", "noise")];
        let found = audit_of(&toy::Pixels::new(), &data, &attacks, &toy::settings(&[1.0, 5.0, 40.0])).unwrap();
        let audit = &found.audit;
        assert_eq!((hits(audit.clean.accuracy), audit.majority_share, audit.data.attacked), ((2, 3), 0.0, 2));
        let dices = |metrics: &DecisionMetrics| -> Vec<f64> {
            let overlaps = metrics.overlaps.as_ref().unwrap();
            assert_eq!((overlaps[0].class.as_str(), overlaps.len()), ("outside", 2));
            overlaps.iter().map(|overlap| overlap.dice.unwrap()).collect()
        };
        // The third is wrong everywhere by itself; the second falls by 5 levels, the first by 40.
        assert_eq!(dices(&audit.clean), [2.0 / 3.0; 2]);
        let at = |threat: usize| (dices(&audit.threats[threat].worst_case.decisions), threat);
        assert_eq!(at(1).0, [1.0 / 3.0; 2]);
        assert_eq!(at(2).0, [0.0; 2]);
        for (threat, standing) in audit.threats.iter().zip([2, 1, 0]) {
            assert_eq!(hits(threat.worst_case.robust_accuracy), (standing, 3), "{}", threat.epsilon);
            assert_eq!(hits(threat.worst_case.robust_accuracy_stored), (standing, 3), "{}", threat.epsilon);
            for cell in threat.cells.iter().filter(|cell| !cell.control) {
                assert_eq!(hits(cell.robust_accuracy), (standing, 3), "{} {}", cell.attack, threat.epsilon);
            }
        }
        let read = records::decode(found.records.clone()).unwrap();
        assert_eq!(read, found.cells);
        let html = report::html(&[ReportEntry { name: "m", audit, examples: &[] }]).unwrap();
        assert!(html.contains("Dice") && html.contains("outside"));
    }

    #[test]
    fn the_protocol_for_masks_brings_down_what_can_be() {
        let mut data = toy::data(&[0.0; 2]);
        data.samples.values_mut().copy_from_slice(&[100.0, 100.0, 150.0, 150.0, 126.0, 127.0, 130.0, 131.0]);
        data.labels = vec![Label::Mask(vec![0, 0, 1, 1]); 2];
        let plan = crate::Protocol::Standard.plan(&toy::segmentation(), AuditGoal::Untargeted, &[Norm::Linf]).unwrap();
        let entry = |section: &crate::recipe::AttackSection| {
            let attack = nocebo_attacks::build(&section.name, section.settings.clone()).unwrap();
            let settings = serde_json::to_value(&section.settings).unwrap();
            let mut entry = AttackEntry::new(section.label(), settings, attack);
            entry.cascade = section.cascade;
            entry
        };
        let attacks: Vec<AttackEntry> = plan.attacks.iter().map(entry).collect();
        let found = audit_of(&toy::Pixels::new(), &data, &attacks, &toy::settings(&[1.0, 5.0, 40.0])).unwrap();
        let standing: Vec<u64> =
            found.audit.threats.iter().map(|threat| threat.worst_case.robust_accuracy.hits).collect();
        assert_eq!(standing, [2, 1, 0]);
        let names: Vec<&str> = found.audit.threats[0].cells.iter().map(|cell| cell.attack.as_str()).collect();
        assert_eq!(names, ["fgsm", "apgd-ce", "apgd-margin", "apgd-dice", "square", "noise"]);
    }

    #[test]
    fn half_a_grey_level_does_not_survive_storage() {
        // Means 128.25 and 127.75: both fall at 0.5, and neither does when the file stores whole levels.
        let mut data = toy::data(&[128.0, 128.0]);
        data.samples.values_mut()[3] = 129.0;
        data.samples.values_mut()[7] = 127.0;
        data.labels[0] = Label::Class(1);
        let found = audit_of(&Mean::new(), &data, &toy::attacks(), &toy::settings(&[0.5, 1.0])).unwrap();
        let half = &found.audit.threats[0];
        assert_eq!(hits(half.worst_case.robust_accuracy), (0, 2));
        assert_eq!(hits(half.worst_case.robust_accuracy_stored), (2, 2));
        assert_eq!(hits(found.audit.threats[1].worst_case.robust_accuracy_stored), (0, 2));
    }

    #[test]
    fn noise_is_no_part_of_the_worst_case() {
        let attacks =
            [ToyAttack::entry(crate::CONTROL, Behaviour::Noise), ToyAttack::entry("weak", Behaviour::Backwards(1))];
        let found = audit_of(&Mean::new(), &toy::ten(), &attacks, &toy::settings(&[64.0])).unwrap();
        let threat = &found.audit.threats[0];
        assert!(threat.cells[1].control && threat.cells[1].attack_success_rate.hits > 0);
        assert_eq!(hits(threat.worst_case.robust_accuracy), (8, 10));
    }

    #[test]
    fn a_sample_that_fell_at_a_smaller_budget_has_fallen() {
        // This attack works at 8 and does the opposite at 16.
        struct Fading;
        impl nocebo_core::Attack for Fading {
            fn info(&self) -> nocebo_core::AttackInfo {
                ToyAttack::entry("fading", Behaviour::SignSteps(1)).info()
            }
            fn perturb(
                &self,
                problem: &nocebo_core::AttackProblem<'_>,
            ) -> Result<nocebo_core::Perturbation, nocebo_core::Error> {
                let behaviour =
                    if problem.threat.epsilon() > 10.0 { Behaviour::Backwards(1) } else { Behaviour::SignSteps(1) };
                ToyAttack { behaviour, knowledge: Knowledge::Gradients, norms: &[Norm::Linf] }.perturb(problem)
            }
        }
        let attacks = [AttackEntry::new("fading", serde_json::Value::Null, Box::new(Fading))];
        let found = audit_of(&Mean::new(), &toy::ten(), &attacks, &toy::settings(&[8.0, 16.0])).unwrap();
        let [eight, sixteen] = &found.audit.threats[..] else { panic!() };
        assert_eq!((eight.worst_case.robust_accuracy.hits, sixteen.worst_case.robust_accuracy.hits), (2, 2));
        assert_eq!((eight.cells[0].robust_accuracy.hits, sixteen.cells[0].robust_accuracy.hits), (2, 8));
        assert_eq!(sixteen.worst_case.decisions.false_negative_rate.map(hits), Some((4, 5)));
        let growth = found.audit.findings.iter().find(|finding| finding.id == "success_grows_with_epsilon").unwrap();
        assert_eq!(growth.status, Status::Fail);
        assert!(!found.audit.evaluation_is_strong);

        // Another attack that fells at the larger budget what the first no longer does leaves no hole.
        let fading = AttackEntry::new("fading", serde_json::Value::Null, Box::new(Fading));
        let attacks = [fading, ToyAttack::entry("steady", Behaviour::SignSteps(1))];
        let found = audit_of(&Mean::new(), &toy::ten(), &attacks, &toy::settings(&[8.0, 16.0])).unwrap();
        let growth = found.audit.findings.iter().find(|finding| finding.id == "success_grows_with_epsilon").unwrap();
        assert_eq!(growth.status, Status::Pass);
    }

    /// Learns nothing, and counts how often and from how many samples.
    struct Pupil(std::sync::Arc<Mutex<Vec<(f32, usize)>>>);

    impl nocebo_attacks::fit::FitAttack for Pupil {
        fn info(&self) -> nocebo_core::AttackInfo {
            ToyAttack::entry("pupil", Behaviour::SignSteps(1)).info()
        }

        fn learn(
            &self,
            problem: &nocebo_core::AttackProblem<'_>,
        ) -> Result<Box<dyn nocebo_core::Attack>, nocebo_core::Error> {
            self.0.lock().unwrap().push((problem.threat.epsilon(), problem.inputs.len()));
            let behaviour = Behaviour::SignSteps(1);
            Ok(Box::new(ToyAttack { behaviour, knowledge: Knowledge::Gradients, norms: &[Norm::Linf] }))
        }
    }

    #[test]
    fn an_attack_learns_once_a_budget_from_samples_that_the_goal_is_about() {
        let lessons = std::sync::Arc::new(Mutex::new(Vec::new()));
        let entry = |means: &[f32]| {
            let set = toy::data(means);
            let set = std::sync::Arc::new(crate::LearningSet::new("train", set.samples, set.labels));
            AttackEntry::learning("pupil", serde_json::Value::Null, Box::new(Pupil(lessons.clone())), set)
        };
        let settings = AuditSettings {
            batch_size: 1,
            include_images: 2,
            goal: AuditGoal::FalseNegative { finding: 1 },
            ..toy::settings(&[2.0, f32::INFINITY])
        };
        let found = audit_of(&Mean::new(), &toy::ten(), &[entry(&[126.0, 130.0, 132.0])], &settings).unwrap();
        assert_eq!(*lessons.lock().unwrap(), [(2.0, 2), (255.0, 2)]);
        assert!(found.audit.threats[1].worst_case.attack_success_rate.hits > 0);
        let learned = found.audit.attacks[0].learned_from.as_ref().unwrap();
        assert_eq!((learned.name.as_str(), learned.samples, learned.sha256.len()), ("train", 3, 64));

        // 127 is the first of the judged samples.
        let error = audit_of(&Mean::new(), &toy::ten(), &[entry(&[126.0, 127.0])], &settings).unwrap_err().to_string();
        assert!(error.contains("none that is judged") && error.contains("sample 101 of train"), "{error}");
    }

    #[test]
    fn an_infinite_budget_is_judged_written_and_read_but_no_headline() {
        let folder = tempfile::tempdir().unwrap();
        let attacks = [
            ToyAttack::entry("least", Behaviour::LeastChange),
            ToyAttack::entry("pgd", Behaviour::SignSteps(10)),
            ToyAttack::entry(crate::CONTROL, Behaviour::Noise),
        ];
        let settings = AuditSettings {
            gates: vec!["attack_success_rate(linf:inf) >= 0.6".parse().unwrap()],
            ..toy::settings(&[4.0, f32::INFINITY])
        };
        let (model, data, provenance) = (Mean::new(), toy::ten(), toy::provenance());
        let found = run(request(&model, &data, &attacks, &settings, &provenance), folder.path(), &()).unwrap();
        let [four, unlimited] = &found.audit.threats[..] else { panic!() };
        assert_eq!((hits(four.worst_case.robust_accuracy).0, hits(unlimited.worst_case.robust_accuracy).0), (4, 0));
        assert!(unlimited.cells.iter().all(|cell| cell.not_finite == 0 && cell.outside_threat == 0));
        assert!(found.audit.gates_passed());
        assert_eq!(found.audit.headline().unwrap().epsilon, 4.0);
        assert_eq!(Audit::read(folder.path()).unwrap(), found.audit);
        let runs: Vec<&str> = found.audit.timings.runs.iter().map(|run| run.run.as_str()).collect();
        assert_eq!(runs, ["least linf, least change", "pgd linf:4", "pgd linf:inf", "noise linf:4", "noise linf:inf"]);
        let again = run(request(&model, &data, &attacks, &settings, &provenance), folder.path(), &()).unwrap();
        assert_eq!(again.cells, found.cells);
        let html = std::fs::read_to_string(folder.path().join(REPORT)).unwrap();
        assert!(html.contains("linf:inf") && !html.contains("NaN"));
        let only = toy::settings(&[f32::INFINITY]);
        let found = audit_of(&model, &data, &attacks, &only).unwrap();
        assert!(found.audit.headline().is_some());
    }

    #[test]
    fn minimum_norm_attacks_run_once_and_are_judged_at_every_budget() {
        let attacks = [ToyAttack::entry("least", Behaviour::LeastChange)];
        let found = audit_of(&Mean::new(), &toy::ten(), &attacks, &toy::settings(&[1.0, 2.0, 4.0, 40.0])).unwrap();
        // The changes found are 1.25, 3.25, 5.25 and 30.25 on either side.
        let standing: Vec<u64> =
            found.audit.threats.iter().map(|threat| threat.worst_case.robust_accuracy.hits).collect();
        assert_eq!(standing, [8, 6, 4, 0]);
        // As stored, class 0 moves to 128 only, which is still class 0; class 1 falls there.
        let stored: Vec<u64> =
            found.audit.threats.iter().map(|threat| threat.worst_case.robust_accuracy_stored.hits).collect();
        assert_eq!(stored, [7, 7, 6, 4]);
        assert_eq!(found.audit.timings.runs.len(), 1);
        let summary = &found.audit.threats[1].cells[0];
        assert_eq!((summary.claimed_but_not_confirmed, summary.outside_threat), (0, 0));
        assert_eq!(summary.perturbation.map(|size| size.median), Some(1.25));
    }

    #[test]
    fn claims_are_believed_only_when_confirmed_and_allowed() {
        let attacks = [
            ToyAttack::entry("liar", Behaviour::Lie),
            ToyAttack::entry("escape", Behaviour::Escape),
            ToyAttack::entry("forget", Behaviour::Forget),
        ];
        let found = audit_of(&Mean::new(), &toy::ten(), &attacks, &toy::settings(&[4.0])).unwrap();
        let threat = &found.audit.threats[0];
        assert_eq!(hits(threat.worst_case.robust_accuracy), (8, 10));
        let [liar, escape, forget] = &threat.cells[..] else { panic!() };
        assert_eq!(liar.claimed_but_not_confirmed, 8);
        assert_eq!((escape.claimed_but_not_confirmed, escape.outside_threat), (8, 8));
        assert_eq!((forget.claimed_but_not_confirmed, forget.found_but_not_returned), (0, 4));
        let failed: Vec<&str> = found
            .audit
            .findings
            .iter()
            .filter(|finding| finding.status == Status::Fail)
            .map(|finding| finding.id.as_str())
            .collect();
        assert_eq!(
            failed,
            ["unlimited_attacks_succeed", "claims_confirmed", "found_points_returned", "points_within_threat"]
        );
    }

    #[test]
    fn a_model_that_breaks_on_the_way_does_not_look_robust() {
        // Not a number once the mean passes 129.5; the clean samples of class 0 are all below.
        let model = Bent {
            inner: Mean::new(),
            logits: |point: &[f32], logits: &mut [f32]| {
                if (129.5..130.5).contains(&point[0]) {
                    logits[1] = f32::NAN;
                }
            },
            gradient: |_: &mut [f32]| (),
        };
        let data = toy::data(&[127.0, 125.0, 98.0, 131.0]);
        let attacks = [ToyAttack::entry("fgsm", Behaviour::SignSteps(1))];
        for batch_size in [1, 4] {
            let settings = AuditSettings { batch_size, ..toy::settings(&[5.0]) };
            let found = audit_of(&model, &data, &attacks, &settings).unwrap();
            let cell = &found.audit.threats[0].cells[0];
            // 125 + 5 = 130 meets the NaN; 127 and 131 fall as usual; 98 holds.
            assert_eq!((cell.not_finite, hits(cell.robust_accuracy)), (1, (1, 4)));
            assert_eq!(hits(cell.robust_accuracy_stored), (1, 4));
            assert_eq!(cell.decisions.false_positive_rate.map(hits), Some((2, 3)));
            assert_eq!(found.cells[0].rows[1].as_ref().unwrap().decision, None);
        }
        // On a clean sample it is an error that names the sample.
        let error = audit_of(&model, &toy::data(&[127.0, 130.0]), &attacks, &toy::settings(&[1.0])).unwrap_err();
        assert!(error.to_string().starts_with("sample 101: the model's output is not finite"), "{error}");
    }

    #[test]
    fn a_goal_about_one_finding_attacks_only_samples_that_have_it() {
        let settings = AuditSettings { goal: AuditGoal::FalseNegative { finding: 1 }, ..toy::settings(&[2.0, 4.0]) };
        let found = audit_of(&Mean::new(), &toy::ten(), &toy::attacks(), &settings).unwrap();
        assert_eq!((found.audit.data.in_scope, found.audit.data.attacked), (5, 4));
        // Robust accuracy is the sensitivity under attack; specificity is that of the clean samples.
        let four = &found.audit.threats[1].worst_case;
        assert_eq!(hits(four.robust_accuracy), (2, 5));
        assert_eq!(four.decisions.false_negative_rate.map(hits), Some((3, 5)));
        assert_eq!(four.decisions.false_positive_rate.map(hits), Some((1, 5)));
        assert!(found.cells[0].rows[..4].iter().all(Option::is_none));
        let opposite = AuditSettings { goal: AuditGoal::FalsePositive { finding: 1 }, ..toy::settings(&[4.0]) };
        let found = audit_of(&Mean::new(), &toy::ten(), &toy::attacks(), &opposite).unwrap();
        assert_eq!(hits(found.audit.threats[0].worst_case.robust_accuracy), (2, 5));
        let nobody = audit_of(&Mean::new(), &toy::data(&[99.0]), &toy::attacks(), &settings).unwrap_err();
        assert!(nobody.to_string().contains("at least one sample that the goal is about"), "{nobody}");
    }

    type Parts = (AuditData, Vec<AttackEntry>, AuditSettings);

    #[test]
    fn requests_that_do_not_fit_are_refused_with_what_was_expected() {
        let good = (toy::ten(), toy::attacks(), toy::settings(&[1.0]));
        let refused = |change: &dyn Fn(&mut Parts)| {
            let mut parts = (good.0.clone(), toy::attacks(), good.2.clone());
            change(&mut parts);
            audit_of(&Mean::new(), &parts.0, &parts.1, &parts.2).unwrap_err().to_string()
        };
        let messages = [
            refused(&|parts| parts.0.labels.truncate(9)),
            refused(&|parts| parts.0.labels[0] = Label::Class(2)),
            refused(&|parts| parts.0.patients = Some(vec!["a".to_owned()])),
            refused(&|parts| parts.0.samples = parts.0.samples.select(&[0, 0, 1, 1, 2, 2, 3, 3, 4, 4])),
            refused(&|parts| parts.2.batch_size = 0),
            refused(&|parts| parts.2.threats.clear()),
            refused(&|parts| parts.2.threats[0].epsilons.clear()),
            refused(&|parts| parts.2.threats[0].epsilons.push(f32::NAN)),
            refused(&|parts| parts.2.threats[0].norm = Norm::L2),
            refused(&|parts| parts.2.finding = Some(2)),
            refused(&|parts| parts.2.gates.push("robust_accuracy(linf:2) >= 0.5".parse().unwrap())),
            refused(&|parts| parts.1[0].name = "pgd".to_owned()),
            refused(&|parts| parts.1.truncate(0)),
            refused(&|parts| parts.0.samples.values_mut()[0] = 256.0),
        ];
        insta::assert_snapshot!(messages.join("\n"));
    }

    #[test]
    fn an_attack_that_fails_is_named() {
        let attacks = toy::attacks();
        let model = nocebo_core::BlackBox(Mean::new());
        let error = audit_of(&model, &toy::ten(), &attacks, &toy::settings(&[1.0])).unwrap_err();
        assert!(matches!(&error, AuditError::Attack { attack, epsilon: 1.0, .. } if attack == "fgsm"), "{error}");
    }

    fn files(folder: &Path) -> (Vec<u8>, serde_json::Value) {
        let mut json: serde_json::Value = serde_json::from_slice(&fs::read(folder.join(SUMMARY)).unwrap()).unwrap();
        let parts = json.as_object_mut().unwrap();
        assert!(parts.remove("timings").is_some() && parts.remove("run").is_some());
        (fs::read(folder.join(RECORDS)).unwrap(), json)
    }

    #[test]
    fn results_do_not_depend_on_batches_or_threads() {
        let (data, attacks, provenance) = (toy::ten(), toy::attacks(), toy::provenance());
        let mut seen = Vec::new();
        for batch_size in [1, 3, 64] {
            for threads in [1, 2] {
                let folder = tempfile::tempdir().unwrap();
                let settings = AuditSettings { batch_size, ..toy::settings(&[0.5, 2.0, 8.0]) };
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let model = Mean::new();
                let request = request(&model, &data, &attacks, &settings, &provenance);
                pool.install(|| run(request, folder.path(), &())).unwrap();
                seen.push(files(folder.path()));
            }
        }
        assert!(seen.windows(2).all(|pair| pair[0] == pair[1]));
        assert_eq!(seen[0].0[..4], *b"PAR1");
    }

    /// Stops once so many cells have been started, and counts what is computed and what is restored.
    #[derive(Default)]
    struct Watch {
        stop_in: Option<usize>,
        started: AtomicUsize,
        restored: AtomicUsize,
        names: Mutex<Vec<String>>,
    }

    impl Observer for Watch {
        fn event(&self, event: Event<'_>) {
            match event {
                Event::CellStarted { name, .. } => {
                    self.started.fetch_add(1, Ordering::Relaxed);
                    self.names.lock().unwrap().push(name.to_owned());
                }
                Event::CellFinished { restored: true, .. } => {
                    self.restored.fetch_add(1, Ordering::Relaxed);
                }
                _ => {}
            }
        }

        fn stop(&self) -> bool {
            Some(self.started.load(Ordering::Relaxed)) == self.stop_in
        }
    }

    #[test]
    fn a_stopped_audit_continues_to_the_same_bytes() {
        let (data, provenance, settings) = (toy::ten(), toy::provenance(), toy::settings(&[2.0, 4.0]));
        let mut attacks = toy::attacks();
        attacks.push(ToyAttack::entry("least", Behaviour::LeastChange));
        let model = Mean::new();
        let request = request(&model, &data, &attacks, &settings, &provenance);
        let whole = tempfile::tempdir().unwrap();
        run(request, whole.path(), &()).unwrap();

        let folder = tempfile::tempdir().unwrap();
        let watch = Watch { stop_in: Some(4), ..Watch::default() };
        let error = run(request, folder.path(), &watch).unwrap_err();
        let AuditError::Stopped { finished, total, missing } = &error else { panic!("{error}") };
        assert_eq!((*finished, *total), (3, 7));
        assert_eq!(missing, &["pgd linf:4", "noise linf:2", "noise linf:4", "least linf, least change"]);
        assert!(!folder.path().join(SUMMARY).exists() && !folder.path().join(RECORDS).exists());
        // A torn cell is computed again.
        let cells = folder.path().join("cells");
        let torn = fs::read_dir(&cells).unwrap().map(|entry| entry.unwrap().path());
        let torn = torn.filter(|path| path.extension().is_some_and(|extension| extension == "parquet")).min().unwrap();
        fs::write(&torn, &fs::read(&torn).unwrap()[..40]).unwrap();

        let watch = Watch::default();
        run(request, folder.path(), &watch).unwrap();
        assert_eq!((watch.started.into_inner(), watch.restored.into_inner()), (5, 2));
        assert_eq!(files(folder.path()), files(whole.path()));
        assert_eq!(Audit::read(folder.path()).unwrap().settings, Audit::read(whole.path()).unwrap().settings);
    }

    /// Stops when it is asked for the nth time.
    struct StopAt(usize, AtomicUsize);

    impl Observer for StopAt {
        fn event(&self, _: Event<'_>) {}

        fn stop(&self) -> bool {
            self.1.fetch_add(1, Ordering::Relaxed) >= self.0
        }
    }

    #[test]
    fn an_audit_stopped_in_the_middle_of_an_attack_continues_to_the_same_bytes() {
        let (data, provenance, settings) = (toy::ten(), toy::provenance(), toy::settings(&[2.0, 4.0]));
        let (model, attacks) = (Mean::new(), toy::attacks());
        let request = request(&model, &data, &attacks, &settings, &provenance);
        let whole = tempfile::tempdir().unwrap();
        run(request, whole.path(), &()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        // The clean pass and each of 6 cells ask; pgd asks at each of its steps.
        for calls in [0, 3, 9, 14] {
            let error = run(request, folder.path(), &StopAt(calls, AtomicUsize::new(0))).unwrap_err();
            assert!(matches!(error, AuditError::Stopped { .. }), "{calls}: {error}");
        }
        run(request, folder.path(), &()).unwrap();
        assert_eq!(files(folder.path()), files(whole.path()));
    }

    #[test]
    fn a_cascade_attacks_only_what_still_stands_and_ends_in_the_same_worst_case() {
        let (data, settings) = (toy::ten(), toy::settings(&[2.0, 4.0]));
        let plain = audit_of(&Mean::new(), &data, &toy::attacks(), &settings).unwrap();
        let mut attacks = toy::attacks();
        attacks[1].cascade = true;
        let found = audit_of(&Mean::new(), &data, &attacks, &settings).unwrap();
        for (threat, (fallen, alone)) in
            found.audit.threats.iter().zip([(2, &plain.audit.threats[0]), (4, &plain.audit.threats[1])])
        {
            let [fgsm, pgd, _] = &threat.cells[..] else { panic!() };
            // 8 of 10 are right to begin with; one step brings down what many do.
            assert_eq!((fgsm.attacked, fgsm.cascaded, pgd.attacked, pgd.cascaded), (8, false, 8 - fallen, true));
            assert_eq!(pgd.robust_accuracy, threat.worst_case.robust_accuracy);
            assert_eq!((pgd.attack_success_rate.hits, pgd.attack_success_rate.trials), (0, 8 - fallen as u64));
            assert_eq!(threat.worst_case, alone.worst_case);
        }
        let failed: Vec<&str> = found
            .audit
            .findings
            .iter()
            .filter(|finding| finding.status == Status::Fail)
            .map(|finding| finding.id.as_str())
            .collect();
        assert_eq!(failed, [""; 0]);
        // Restricted to another norm the attack is not there at all.
        attacks[1].norms = Some(vec![Norm::L2]);
        let found = audit_of(&Mean::new(), &data, &attacks, &settings).unwrap();
        assert_eq!((found.audit.threats[0].cells.len(), found.audit.skipped.len()), (2, 0));
    }

    #[test]
    fn a_cascade_goes_on_until_the_stored_input_falls_too() {
        // The least change goes a quarter level beyond 128, which storing undoes for class 0; a whole step does not.
        let mut attacks =
            [ToyAttack::entry("least", Behaviour::LeastChange), ToyAttack::entry("fgsm", Behaviour::SignSteps(1))];
        attacks[1].cascade = true;
        let audited = |attacks: &[AttackEntry], epsilons: &[f32]| {
            audit_of(&Mean::new(), &toy::ten(), attacks, &toy::settings(epsilons)).unwrap().audit.threats
        };
        let figures = |threats: &[ThreatResult]| -> Vec<(u64, u64)> {
            let worst = threats.iter().map(|threat| &threat.worst_case);
            worst.map(|worst| (worst.robust_accuracy.hits, worst.robust_accuracy_stored.hits)).collect()
        };
        assert_eq!(figures(&audited(&attacks[..1], &[2.0, 4.0, 40.0])), [(6, 7), (4, 6), (0, 4)]);
        let both = audited(&attacks, &[2.0, 4.0, 40.0]);
        assert_eq!(figures(&both), [(6, 6), (4, 4), (0, 0)]);
        // At 2 the least change fells two, one of them for good; seven are attacked again, and one falls once more.
        let fgsm = &both[0].cells[1];
        assert_eq!((fgsm.attacked, hits(fgsm.attack_success_rate), fgsm.cascaded), (7, (1, 7), true));
        assert_eq!(hits(fgsm.robust_accuracy_stored), (6, 10));
        // Half a level cannot be stored: nothing is attacked in vain.
        let mut halves = toy::data(&[128.0, 128.0]);
        halves.samples.values_mut()[3] = 129.0;
        halves.samples.values_mut()[7] = 127.0;
        halves.labels[0] = Label::Class(1);
        let mut attacks = toy::attacks();
        attacks[1].cascade = true;
        let found = audit_of(&Mean::new(), &halves, &attacks, &toy::settings(&[0.5])).unwrap();
        let worst = &found.audit.threats[0].worst_case;
        assert_eq!((worst.robust_accuracy.hits, worst.robust_accuracy_stored.hits), (0, 2));
        assert_eq!(found.audit.threats[0].cells[1].attacked, 0);
    }

    #[test]
    fn areas_subgroups_and_patients_are_counted_clean_and_under_attack() {
        let mut data = toy::ten();
        data.patients = Some((0..10).map(|at| format!("patient {}", at / 2)).collect());
        let site = (0..10).map(|at| if at < 5 { "north" } else { "south" }.to_owned()).collect();
        data.groups.insert("site".to_owned(), site);
        let attacks = [ToyAttack::entry("fgsm", Behaviour::SignSteps(1)), ToyAttack::entry(CONTROL, Behaviour::Noise)];
        let found = audit_of(&Mean::new(), &data, &attacks, &toy::settings(&[4.0])).unwrap();
        // With pneumonia 120, 129, 131, 133, 158; without 98, 123, 125, 127, 140: 1 + 4 + 4 + 4 + 5 pairs of 25.
        assert_eq!(found.audit.clean.classes[1].auc.unwrap().value, 18.0 / 25.0);
        // Each of the 8 moves by 4: 120, 125, 127, 129, 154 against 102, 127, 129, 131, 140, two ties: 11 of 25.
        let worst = &found.audit.threats[0].worst_case;
        assert_eq!(worst.decisions.classes[1].auc.unwrap().value, 11.0 / 25.0);
        let north = |subgroups: &[Subgroup]| {
            let north = subgroups.iter().find(|subgroup| subgroup.value == "north").unwrap();
            (hits(north.robust_accuracy), north.sensitivity.map(hits), north.specificity.map(hits))
        };
        assert_eq!(north(&found.audit.clean_subgroups), ((4, 5), Some((0, 1)), Some((4, 4))));
        assert_eq!(north(&worst.subgroups), ((2, 5), Some((0, 1)), Some((2, 4))));
        let robust = worst.robust_accuracy;
        let (lower, upper) = robust.by_patient.unwrap();
        assert!(lower <= 0.4 && 0.4 <= upper && robust.lowest() <= robust.lower, "{robust:?}");
        assert_eq!(found.audit.least_changes[0].distances, [4.0; 4]);
        assert_eq!(found.audit.least_changes[0].standing, 4);
    }

    #[test]
    fn cells_of_another_audit_are_not_taken() {
        let (data, provenance, settings) = (toy::ten(), toy::provenance(), toy::settings(&[2.0]));
        let folder = tempfile::tempdir().unwrap();
        let computed = |model: &dyn DifferentiableModel, data: &AuditData, settings: &AuditSettings, step: u32| {
            let mut attacks = toy::attacks();
            attacks[0].settings = serde_json::json!({ "step": step });
            let watch = Watch::default();
            run(request(model, data, &attacks, settings, &provenance), folder.path(), &watch).unwrap();
            watch.names.into_inner().unwrap()
        };
        let all = ["fgsm linf:2", "pgd linf:2", "noise linf:2"];
        assert_eq!(computed(&Mean::new(), &data, &settings, 1), all);
        assert_eq!(computed(&Mean::new(), &data, &settings, 1), [""; 0]);
        assert_eq!(computed(&Mean::new(), &data, &settings, 2), ["fgsm linf:2"]);
        assert_eq!(computed(&Mean::scaled(2.0), &data, &settings, 1), all);
        let reseeded = AuditSettings { seed: Seed(1), ..settings.clone() };
        assert_eq!(computed(&Mean::new(), &data, &reseeded, 1), all);
        let relabelled = {
            let mut data = data.clone();
            data.labels[4] = Label::Class(0);
            data
        };
        assert_eq!(computed(&Mean::new(), &relabelled, &settings, 1), all);
        let other_batches = AuditSettings { batch_size: 3, ..settings.clone() };
        assert_eq!(computed(&Mean::new(), &data, &other_batches, 1), [""; 0]);
    }

    #[test]
    fn examples_show_what_fell_one_label_after_the_other() {
        let settings = AuditSettings { include_images: 3, ..toy::settings(&[2.0, 4.0]) };
        let data = toy::data(&[125.0, 127.0, 98.0, 131.0, 129.0]);
        let found = audit_of(&Mean::new(), &data, &toy::attacks(), &settings).unwrap();
        let shown: Vec<(u64, f32, &str, &str)> = found
            .examples
            .iter()
            .map(|example| {
                (example.sample, example.epsilon, example.label.as_str(), example.perturbed_decision.as_str())
            })
            .collect();
        assert_eq!(
            shown,
            [(101, 2.0, "normal", "pneumonia"), (104, 2.0, "pneumonia", "normal"), (100, 4.0, "normal", "pneumonia"),]
        );
        assert_eq!(found.examples[0].pair.row(1), [129.0; 4]);
    }

    #[test]
    fn kept_samples_change_no_record_come_back_and_go_when_they_are_not_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let mut attacks = toy::attacks();
        attacks.push(ToyAttack::entry("least", Behaviour::LeastChange));
        let (model, data, provenance) = (Mean::new(), toy::ten(), toy::provenance());
        let audited = |keep_samples: usize, stop: usize| {
            let settings =
                AuditSettings { include_images: 1, keep_samples, batch_size: 3, ..toy::settings(&[2.0, 4.0]) };
            let request = request(&model, &data, &attacks, &settings, &provenance);
            run(request, folder.path(), &StopAt(stop, AtomicUsize::new(0))).map(|_| files(folder.path()))
        };
        let points = || {
            let cells = fs::read_dir(folder.path().join("cells")).unwrap().map(|entry| entry.unwrap().path());
            cells.filter(|path| path.extension().is_some_and(|extension| extension == "npy")).count()
        };
        let plain = audited(0, usize::MAX).unwrap();
        assert_eq!((points(), KeptSamples::read(folder.path()).unwrap()), (0, None));
        // Cells without the points that are now wanted are computed again; one stopped on the way continues.
        assert!(audited(4, 20).is_err());
        assert_eq!(audited(4, usize::MAX).unwrap(), plain);
        // Labels in turn: 100, 101 of class 0, 104, 105 of class 1, of which 104 is wrong and never attacked.
        let kept = KeptSamples::read(folder.path()).unwrap().unwrap();
        assert_eq!((&kept.samples[..], points()), (&[100, 101, 104, 105][..], 7));
        let floats = |bytes: Option<Vec<u8>>| {
            let bytes = bytes?;
            Some(bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect::<Vec<_>>())
        };
        let clean = |sample| floats(kept.clean(folder.path(), sample).unwrap());
        assert_eq!((clean(101), clean(105), clean(102)), (Some(vec![125.0; 4]), Some(vec![129.0; 4]), None));
        let point = |attack, epsilon, sample| {
            floats(kept.perturbed(folder.path(), (attack, Norm::Linf, epsilon), sample).unwrap())
        };
        assert_eq!(point("fgsm", 4.0, 101), Some(vec![129.0; 4]));
        assert_eq!(point("fgsm", 2.0, 105), Some(vec![127.0; 4]));
        // The least change is one run for every budget.
        assert_eq!(
            (point("least", 2.0, 101), point("least", 4.0, 101)),
            (Some(vec![128.25; 4]), Some(vec![128.25; 4]))
        );
        assert_eq!((point("fgsm", 2.0, 104), point("fgsm", 8.0, 100), point("x", 2.0, 100)), (None, None, None));

        let seen = crate::Browse::open(folder.path(), "run").unwrap();
        let flags: Vec<_> = seen.page.samples[..6].iter().map(|sample| (sample.standing, sample.kept)).collect();
        assert_eq!(flags, [(true, true), (true, true), (true, false), (true, false), (false, true), (true, true)]);
        let fgsm = &seen.page.cells[0];
        assert_eq!(
            (fgsm.attack.as_str(), fgsm.rows[0].as_ref().unwrap().fell, fgsm.rows[4].is_none()),
            ("fgsm", true, true)
        );
        assert_eq!(seen.page.headline, Some(1));
        assert_eq!(floats(seen.perturbed(1, 101).unwrap()), Some(vec![129.0; 4]));
        assert_eq!(seen.perturbed(99, 101).unwrap(), None);

        // A file that is not what the list says is refused.
        fs::write(folder.path().join("samples.npy"), [0; 200]).unwrap();
        assert!(matches!(kept.clean(folder.path(), 101), Err(AuditError::Corrupt { .. })));
        let list = fs::read_to_string(folder.path().join("samples.json")).unwrap();
        let outside = list.replace(&kept.runs[0].parts[0].id, "../../../../../../../../../../../../x");
        fs::write(folder.path().join("samples.json"), outside).unwrap();
        assert!(matches!(KeptSamples::read(folder.path()), Err(AuditError::Corrupt { .. })));

        assert_eq!(audited(1, usize::MAX).unwrap(), plain);
        assert_eq!((KeptSamples::read(folder.path()).unwrap().unwrap().samples, points()), (vec![100], 7));
        assert_eq!(audited(0, usize::MAX).unwrap(), plain);
        assert_eq!((points(), folder.path().join("samples.npy").exists()), (0, false));
        let settings = AuditSettings { keep_samples: 1, ..toy::settings(&[2.0]) };
        let error = evaluate(request(&model, &data, &attacks, &settings, &provenance), &()).unwrap_err();
        assert!(error.to_string().starts_with("keep_samples: expected 0 where include_images is 0"), "{error}");
    }

    #[test]
    fn the_summary_can_be_read_back_and_strangers_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let settings = AuditSettings {
            gates: vec!["robust_accuracy(linf:2) >= 0.1".parse().unwrap()],
            ..toy::settings(&[0.1, 2.0])
        };
        let found =
            run(request(&Mean::new(), &toy::ten(), &toy::attacks(), &settings, &toy::provenance()), folder.path(), &())
                .unwrap();
        assert_eq!(Audit::read(folder.path()).unwrap(), found.audit);
        fs::write(folder.path().join(SUMMARY), "{}").unwrap();
        assert!(matches!(Audit::read(folder.path()), Err(AuditError::Corrupt { .. })));
    }
}
