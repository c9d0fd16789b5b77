//! The grid of cells: every attack at every budget, re-checked by the audit itself.

use std::sync::OnceLock;
use std::time::Instant;

use nocebo_core::{
    Attack, AttackOutcome, Domain, Error, Goal, GoalObjective, Label, Loss, Norm, Outputs, Queries, Samples, Task,
    ThreatModel,
};
use nocebo_data::StoreAs;
use rayon::prelude::*;
use serde::Serialize;

use crate::cell::{Attacked, Cell, Clean, NORMS, Trace, in_brief, overlaps};
use crate::digest::{sha256, sha256_of_data};
use crate::folder::AuditFolder;
use crate::kept::{KeptPart, KeptRun};
use crate::records::{self, RecordSubjects};
use crate::request::{AttackEntry, AuditGoal, Checked, InputFile, LearnedFrom, Method, Threat};
use crate::watch::{Watched, was_stopped};
use crate::{AuditError, AuditRequest};

/// Part of every cell's identity: raised when the meaning of a record changes, so that old cells are not reused.
const RECORD_VERSION: u32 = 2;

/// Samples whose records are kept together: what a kill loses at most, for each thread.
const PART: usize = 64;

/// Something that happened in an audit, for a progress bar.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A cell begins.
    CellStarted {
        /// Its place, from 0.
        index: usize,
        /// Cells of the audit.
        total: usize,
        /// Its name: attack, norm and budget.
        name: &'a str,
        /// Samples that will be attacked.
        samples: usize,
    },
    /// Some samples of the current cell are done.
    SamplesDone {
        /// How many.
        samples: usize,
    },
    /// A cell is done.
    CellFinished {
        /// Its place, from 0.
        index: usize,
        /// Cells of the audit.
        total: usize,
        /// Whether it was found finished in the folder.
        restored: bool,
    },
}

/// Whoever wants to know how an audit is getting on, or to end it.
pub trait Observer: Sync {
    /// Is told what happens, from several threads.
    fn event(&self, event: Event<'_>);

    /// Whether to stop. Asked before every cell and every pass of the model, from several threads.
    fn stop(&self) -> bool {
        false
    }
}

/// Nobody: says nothing, stops nothing.
impl Observer for () {
    fn event(&self, _: Event<'_>) {}
}

/// Attack and norm that do not go together, and are therefore left out.
#[derive(Clone, Debug, serde::Deserialize, Eq, PartialEq, Serialize)]
pub struct Skipped {
    /// Name of the attack in this audit.
    pub attack: String,
    /// Norm it does not work in.
    pub norm: Norm,
}

/// One run of an attack: at one budget, or for a minimum-norm attack without limit, judged at every budget.
pub(crate) struct Run<'a> {
    pub(crate) entry: &'a AttackEntry,
    pub(crate) norm: Norm,
    pub(crate) epsilon: f32,
    pub(crate) judged: Vec<f32>,
    learned: OnceLock<Box<dyn Attack>>,
}

impl<'a> Run<'a> {
    pub(crate) fn new(entry: &'a AttackEntry, norm: Norm, epsilon: f32, judged: Vec<f32>) -> Self {
        Self { entry, norm, epsilon, judged, learned: OnceLock::new() }
    }

    /// Attack, norm and budget, as in `pgd linf:4`.
    pub(crate) fn name(&self) -> String {
        if self.entry.is_unlimited() {
            format!("{} {}, least change", self.entry.name, self.norm)
        } else {
            format!("{} {}:{}", self.entry.name, self.norm, self.epsilon)
        }
    }

    /// The attack, which learns at the first call where it must. What is wanted is the audit's goal; where that is about
    /// some samples only, the others are not learned from.
    pub(crate) fn attack(&self, checked: &Checked<'_>) -> Result<&dyn Attack, Error> {
        let (attack, set) = match &self.entry.method {
            Method::Ready(attack) => return Ok(&**attack),
            Method::Learns(attack, set) => (attack, set),
        };
        if let Some(learned) = self.learned.get() {
            return Ok(&**learned);
        }
        let AuditRequest { model, data, settings, .. } = checked.request;
        let rows: Vec<usize> = (0..set.labels.len()).filter(|&row| settings.goal.concerns(&set.labels[row])).collect();
        let labels = rows.iter().map(|&row| set.labels[row].clone()).collect();
        let threat = self.threat(&data.domain, self.epsilon, None)?;
        let learned =
            attack.fit(model, &set.samples.select(&rows), &settings.goal.of(labels), &threat, settings.seed)?;
        Ok(&**self.learned.get_or_init(|| learned))
    }

    fn failed(&self, source: Error) -> AuditError {
        AuditError::Attack { attack: self.entry.name.clone(), norm: self.norm, epsilon: self.epsilon, source }
    }

    fn cell(&self, epsilon: f32, rows: Vec<Option<Attacked>>) -> Cell {
        let control = self.entry.is_control();
        Cell { attack: self.entry.name.clone(), control, norm: self.norm, epsilon, rows }
    }

    pub(crate) fn threat(&self, domain: &Domain, epsilon: f32, query_limit: Option<u32>) -> Result<ThreatModel, Error> {
        let threat = ThreatModel::new(self.norm, epsilon, domain.clone())?;
        Ok(match query_limit {
            Some(queries) => threat.with_query_limit(queries),
            None => threat,
        })
    }
}

/// Every run of an audit, and what is left out.
pub(crate) fn plan<'a>(attacks: &'a [AttackEntry], threats: &[Threat]) -> (Vec<Run<'a>>, Vec<Skipped>) {
    let (mut runs, mut skipped) = (Vec::new(), Vec::new());
    for threat in threats {
        for entry in attacks {
            if !entry.wanted_in(threat.norm) {
                continue;
            }
            if !entry.info().norms.contains(&threat.norm) {
                skipped.push(Skipped { attack: entry.name.clone(), norm: threat.norm });
            } else if entry.is_unlimited() {
                let judged = threat.epsilons.clone();
                runs.push(Run::new(entry, threat.norm, f32::INFINITY, judged));
            } else {
                for &epsilon in &threat.epsilons {
                    runs.push(Run::new(entry, threat.norm, epsilon, vec![epsilon]));
                }
            }
        }
    }
    (runs, skipped)
}

/// Time that a run took, now or when its parts were first computed.
#[derive(Clone, Debug, serde::Deserialize, PartialEq, Serialize)]
pub struct RunTime {
    /// Attack, norm and budget.
    pub run: String,
    /// Seconds of its parts (64 samples each) by the clock, added up. Parts are computed side by side.
    pub seconds: f64,
}

/// What [`evaluate`] found.
pub(crate) struct Grid {
    pub(crate) cells: Vec<Cell>,
    pub(crate) times: Vec<RunTime>,
    /// Where the folder keeps what attacks made of the samples kept.
    pub(crate) kept: Vec<KeptRun>,
}

/// The model on the clean samples, as logits and as decisions.
pub(crate) fn clean(checked: &Checked<'_>) -> Result<(Clean, Outputs), AuditError> {
    let AuditRequest { model, data, settings, .. } = checked.request;
    let task = &model.spec().task;
    let objective = GoalObjective::new(&checked.goal, task, Loss::Margin)?;
    let outputs = outputs_in_batches(checked, &data.samples, settings.batch_size)?;
    let mut cotangent = vec![0.0; task.outputs()];
    let mut found = Clean {
        decisions: Vec::new(),
        overlaps: matches!(task, Task::Segmentation(_)).then(Vec::new),
        margins: Vec::new(),
        in_scope: checked.in_scope.clone(),
        standing: Vec::new(),
    };
    for (row, logits) in outputs.rows().enumerate() {
        if logits.iter().any(|logit| !logit.is_finite()) {
            return Err(Error::NonFinite { what: "output", sample: data.samples.indices()[row] }.into());
        }
        let decision = task.decide(logits);
        if let Some(all) = &mut found.overlaps {
            all.extend(overlaps(task, &data.labels[row], &decision));
        }
        found.decisions.push(in_brief(task, &decision));
        found.margins.push(nocebo_core::Objective::evaluate(&objective, row, logits, &mut cotangent)?);
        found.standing.push(checked.in_scope[row] && !checked.goal.is_reached(task, row, logits));
    }
    Ok((found, outputs))
}

/// Logits of all samples, as the model gives them, in order.
fn outputs_in_batches(checked: &Checked<'_>, samples: &Samples, batch_size: usize) -> Result<Outputs, AuditError> {
    let model = checked.request.model;
    let width = model.spec().task.outputs();
    let rows: Vec<usize> = (0..samples.len()).collect();
    let batches: Vec<Result<Outputs, Error>> =
        rows.par_chunks(batch_size).map(|rows| outputs_of(checked, &samples.select(rows))).collect();
    let mut values = Vec::with_capacity(samples.len() * width);
    for batch in batches {
        values.extend_from_slice(batch?.as_samples().values());
    }
    Ok(Samples::new(values, &[width])?.into())
}

/// One forward pass, its shape checked; values may still not be finite.
fn outputs_of(checked: &Checked<'_>, samples: &Samples) -> Result<Outputs, Error> {
    let model = checked.request.model;
    let outputs = model.outputs(samples)?;
    let (rows, width) = (outputs.len(), outputs.as_samples().elements());
    if rows != samples.len() || width != model.spec().task.outputs() {
        let expected = format!("{} rows of {}", samples.len(), model.spec().task.outputs());
        return Err(Error::mismatch("outputs of the model", expected, format!("{rows} rows of {width}")));
    }
    Ok(outputs)
}

/// Carries out the runs that the folder does not hold yet, in order.
pub(crate) fn evaluate(
    checked: &Checked<'_>,
    runs: &[Run<'_>],
    clean: &Clean,
    outputs: &Outputs,
    folder: Option<&AuditFolder>,
    observer: &dyn Observer,
) -> Result<Grid, AuditError> {
    let identity = Identity::new(checked, outputs);
    let mut grid = Grid { cells: Vec::new(), times: Vec::new(), kept: Vec::new() };
    for (index, run) in runs.iter().enumerate() {
        let (total, name) = (runs.len(), run.name());
        let stopped = || {
            let missing = runs[index..].iter().map(Run::name).collect();
            AuditError::Stopped { finished: index, total, missing }
        };
        if observer.stop() {
            return Err(stopped());
        }
        let positions = if run.entry.cascade {
            still_standing(run, &checked.request.data.domain, clean, &grid.cells)
        } else {
            clean.attacked()
        };
        let mut parts = Vec::new();
        for positions in positions.chunks(PART) {
            parts.push(Part::find(&identity, run, positions, clean, folder)?);
        }
        let kept = parts.iter().filter(|part| part.kept(checked).next().is_some()).map(|part| KeptPart {
            id: part.id.clone(),
            samples: part.kept(checked).map(|row| checked.sample(part.positions[row])).collect(),
        });
        let kept = kept.collect::<Vec<_>>();
        if !kept.is_empty() {
            let (attack, epsilons) = (run.entry.name.clone(), run.judged.clone());
            grid.kept.push(KeptRun { attack, norm: run.norm, epsilons, parts: kept });
        }
        let restored = folder.is_some() && parts.iter().all(|part| part.done.is_some());
        if !restored {
            observer.event(Event::CellStarted { index, total, name: &name, samples: positions.len() });
        }
        if parts.iter().any(|part| part.done.is_none()) {
            run.attack(checked).map_err(|source| run.failed(source))?;
        }
        let computed: Vec<Result<(Vec<Cell>, f64), AuditError>> =
            parts.into_par_iter().map(|part| part.compute(checked, run, clean, folder, observer)).collect();
        let mut cells: Vec<Cell> =
            run.judged.iter().map(|&epsilon| run.cell(epsilon, vec![None; clean.standing.len()])).collect();
        let (mut position, mut seconds) = (positions.into_iter(), 0.0);
        for part in computed {
            let (part, took) = part.map_err(|error| match error {
                AuditError::Attack { source, .. } if was_stopped(&source) => stopped(),
                error => error,
            })?;
            let rows = part.first().map_or(0, |cell| cell.rows.len());
            let here: Vec<usize> = position.by_ref().take(rows).collect();
            for (cell, part) in cells.iter_mut().zip(part) {
                for (&at, row) in here.iter().zip(part.rows) {
                    cell.rows[at] = row;
                }
            }
            seconds += took;
        }
        grid.cells.extend(cells);
        grid.times.push(RunTime { run: name, seconds });
        observer.event(Event::CellFinished { index, total, restored });
    }
    Ok(grid)
}

/// Samples that no earlier attack brought down at the budget of this run or a smaller one of its norm, both as computed and
/// as stored: one whose point falls only until it is rounded is attacked again, so that its stored figure is that of all
/// attacks too. Where no change that a file can hold fits into the budget, that would be in vain.
fn still_standing(run: &Run<'_>, domain: &Domain, clean: &Clean, cells: &[Cell]) -> Vec<usize> {
    let earlier: Vec<&Cell> =
        cells.iter().filter(|cell| !cell.control && cell.norm == run.norm && cell.epsilon <= run.epsilon).collect();
    let storable = storable(domain, run.norm, run.epsilon);
    let fell = |position: usize, of: fn(&Attacked) -> bool| {
        earlier.iter().any(|cell| cell.rows[position].as_ref().is_some_and(of))
    };
    let done = |position: usize| fell(position, Attacked::fell) && (!storable || fell(position, Attacked::fell_stored));
    clean.attacked().into_iter().filter(|&position| !done(position)).collect()
}

/// Whether the budget allows any change that a file can hold: the least storage step of an element that may change.
fn storable(domain: &Domain, norm: Norm, epsilon: f32) -> bool {
    let steps = domain.resolution().iter().enumerate().filter(|(element, _)| domain.is_mutable(*element));
    let least = steps.map(|(_, step)| *step).fold(f32::INFINITY, f32::min);
    if norm == Norm::L0 { epsilon >= 1.0 } else { epsilon >= least }
}

/// Some of the samples of a run: what is computed, and kept, at a time.
struct Part<'a> {
    positions: &'a [usize],
    id: String,
    /// Records and seconds found in the folder, one cell for each budget that is judged.
    done: Option<(Vec<Cell>, f64)>,
}

impl<'a> Part<'a> {
    fn find(
        identity: &Identity<'_>,
        run: &Run<'_>,
        positions: &'a [usize],
        clean: &Clean,
        folder: Option<&AuditFolder>,
    ) -> Result<Self, AuditError> {
        let part = Self { positions, id: identity.of(run, positions)?, done: None };
        let Some(folder) = folder else { return Ok(part) };
        let (kept, shape) = (part.kept(identity.checked).count(), identity.checked.request.data.samples.shape());
        if kept > 0 && !folder.keeps_points(&part.id, kept, shape) {
            return Ok(part);
        }
        let Some((bytes, seconds)) = folder.read_cell(&part.id)? else { return Ok(part) };
        let corrupt = |got: String| AuditError::Corrupt {
            path: format!("{}.parquet", part.id).into(),
            expected: format!("records of {}; remove the file to have them made again", run.name()),
            got,
        };
        let cells = records::decode(bytes).map_err(corrupt)?;
        let fits = |cell: &Cell| {
            cell.attack == run.entry.name
                && cell.norm == run.norm
                && cell.rows.len() == positions.len()
                && cell.rows.iter().zip(positions).all(|(row, &at)| row.is_some() == clean.standing[at])
        };
        if cells.len() == run.judged.len() && cells.iter().all(fits) {
            Ok(Self { done: Some((cells, seconds)), ..part })
        } else {
            Err(corrupt("other records".to_owned()))
        }
    }

    /// Rows of the part that are kept.
    fn kept(&self, checked: &Checked<'_>) -> impl Iterator<Item = usize> {
        (0..self.positions.len()).filter(|&row| checked.kept[self.positions[row]])
    }

    /// Attacks the samples of the part, unless that is done, and keeps the records.
    fn compute(
        self,
        checked: &Checked<'_>,
        run: &Run<'_>,
        clean: &Clean,
        folder: Option<&AuditFolder>,
        observer: &dyn Observer,
    ) -> Result<(Vec<Cell>, f64), AuditError> {
        if let Some(done) = self.done {
            return Ok(done);
        }
        let start = Instant::now();
        let batches: Vec<Result<Returned, Error>> = self
            .positions
            .par_chunks(checked.request.settings.batch_size)
            .map(|positions| attack(checked, run, positions, observer))
            .collect();
        let seconds = start.elapsed().as_secs_f64();
        let mut cells: Vec<Cell> = run.judged.iter().map(|&epsilon| run.cell(epsilon, Vec::new())).collect();
        let mut points = checked.request.data.samples.select(self.positions);
        let mut place = 0;
        for batch in batches {
            let (rows, returned) = batch.map_err(|source| run.failed(source))?;
            for (row, judged) in rows.into_iter().enumerate() {
                points.copy_row(place, &returned, row);
                place += 1;
                for (cell, attacked) in cells.iter_mut().zip(judged) {
                    cell.rows.push(Some(attacked));
                }
            }
        }
        if let Some(folder) = folder {
            let kept: Vec<usize> = self.kept(checked).collect();
            if !kept.is_empty() {
                folder.write_points(&self.id, &points.select(&kept))?;
            }
            let (data, clean) = (checked.request.data.select(self.positions), clean.select(self.positions));
            let labels: Vec<Label> = self.positions.iter().map(|&at| checked.labels[at].clone()).collect();
            let subjects = RecordSubjects { data: &data, labels: &labels, clean: &clean };
            let records = records::encode(subjects, &cells.iter().collect::<Vec<_>>())?;
            folder.write_cell(&self.id, &records, seconds)?;
        }
        observer.event(Event::SamplesDone { samples: self.positions.len() });
        Ok((cells, seconds))
    }
}

/// What every cell of an audit shares, and its digest.
struct Identity<'a> {
    checked: &'a Checked<'a>,
    data: String,
}

#[derive(Serialize)]
struct CellIdentity<'a> {
    record_version: u32,
    tool: &'static str,
    data: &'a str,
    inputs: &'a [InputFile],
    domain: &'a Domain,
    task: &'a Task,
    patients: Option<&'a [String]>,
    goal: AuditGoal,
    seed: u64,
    query_limit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    store_as: Option<StoreAs>,
    attack: &'a str,
    kind: &'a str,
    attack_settings: &'a serde_json::Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    learned_from: Option<&'a LearnedFrom>,
    norm: Norm,
    epsilon: Option<f32>,
    judged: &'a [f32],
    samples: Vec<u64>,
}

impl<'a> Identity<'a> {
    fn new(checked: &'a Checked<'a>, outputs: &Outputs) -> Self {
        let data = checked.request.data;
        Self { checked, data: sha256_of_data(&data.samples, &data.labels, outputs.as_samples()) }
    }

    /// A name for a part of a run that no other part of any audit has.
    fn of(&self, run: &Run<'_>, positions: &[usize]) -> Result<String, AuditError> {
        let AuditRequest { model, data, settings, provenance, .. } = self.checked.request;
        let identity = CellIdentity {
            record_version: RECORD_VERSION,
            tool: env!("CARGO_PKG_VERSION"),
            data: &self.data,
            inputs: &provenance.inputs,
            domain: &data.domain,
            task: &model.spec().task,
            patients: data.patients.as_deref(),
            goal: settings.goal,
            seed: settings.seed.0,
            query_limit: settings.query_limit,
            store_as: settings.store_as,
            attack: &run.entry.name,
            kind: run.entry.info().name,
            attack_settings: &run.entry.settings,
            learned_from: run.entry.learned_from(),
            norm: run.norm,
            epsilon: run.epsilon.is_finite().then_some(run.epsilon),
            judged: &run.judged,
            samples: positions.iter().map(|&at| data.samples.indices()[at]).collect(),
        };
        let bytes = serde_json::to_vec(&identity).map_err(AuditError::encode("identity of a cell"))?;
        Ok(sha256(&bytes)[..32].to_owned())
    }
}

/// For each sample its judgement at each budget, and the points.
pub(crate) type Returned = (Vec<Vec<Attacked>>, Samples);

/// For each sample the judgement at each budget of the run, and the points returned.
///
/// Where a number is not finite the samples are attacked one by one, so that one of them cannot spoil its neighbours;
/// the one itself counts as fallen.
pub(crate) fn attack(
    checked: &Checked<'_>,
    run: &Run<'_>,
    positions: &[usize],
    observer: &dyn Observer,
) -> Result<Returned, Error> {
    let AuditRequest { model, data, settings, .. } = checked.request;
    let inputs = data.samples.select(positions);
    let goal = checked.goal.select(positions);
    let threat = run.threat(&data.domain, run.epsilon, settings.query_limit)?;
    let watched = Watched::new(model, &inputs, &goal, &threat, observer)?;
    let outcome = match run.attack(checked)?.run(&watched, &inputs, &goal, &threat, settings.seed) {
        Err(Error::NonFinite { .. }) if positions.len() > 1 => {
            let (mut judged, mut points) = (Vec::new(), inputs.clone());
            for (row, &position) in positions.iter().enumerate() {
                let (single, point) = attack(checked, run, &[position], observer)?;
                judged.extend(single);
                points.copy_row(row, &point, 0);
            }
            return Ok((judged, points));
        }
        Err(Error::NonFinite { .. }) => {
            let mut nowhere = inputs.clone();
            nowhere.values_mut().fill(f32::NAN);
            return Ok((vec![vec![broken(watched.finish().remove(0)); run.judged.len()]], nowhere));
        }
        outcome => outcome?,
    };
    let returned = (outcome.perturbed_inputs.len(), outcome.success.len(), outcome.queries.len());
    if returned != (inputs.len(), inputs.len(), inputs.len()) || outcome.perturbed_inputs.shape() != inputs.shape() {
        let expected = format!("{} perturbed inputs, flags and query counts", inputs.len());
        return Err(Error::mismatch("outcome of the attack", expected, format!("{returned:?}")));
    }
    let judged = recheck(checked, run, (positions, &inputs), &goal, &outcome, watched.finish())?;
    Ok((judged, outcome.perturbed_inputs))
}

/// A sample on which model and attack could not compute.
fn broken(trace: Trace) -> Attacked {
    Attacked {
        claimed: false,
        within_threat: false,
        finite: false,
        success: false,
        success_stored: false,
        decision: None,
        overlaps: None,
        margin: None,
        distances: None,
        queries: Queries::default(),
        trace,
    }
}

/// Tests by fresh forward passes what the attack returned, as computed and as it would be stored.
fn recheck(
    checked: &Checked<'_>,
    run: &Run<'_>,
    (positions, inputs): (&[usize], &Samples),
    goal: &Goal,
    outcome: &AttackOutcome,
    traces: Vec<Trace>,
) -> Result<Vec<Vec<Attacked>>, Error> {
    let AuditRequest { model, data, settings, .. } = checked.request;
    let task = &model.spec().task;
    let objective = GoalObjective::new(goal, task, Loss::Margin)?;
    let mut cotangent = vec![0.0; task.outputs()];
    let points = outcome.perturbed_inputs.clone().with_indices(inputs.indices().to_vec())?;
    let outputs = outputs_of(checked, &points)?;
    let finite = |logits: &[f32]| logits.iter().all(|logit| logit.is_finite());

    let mut rows: Vec<Vec<Attacked>> = Vec::with_capacity(inputs.len());
    for (row, trace) in traces.into_iter().enumerate() {
        let (clean, point, logits) = (inputs.row(row), points.row(row), outputs.row(row));
        let readable = finite(logits);
        let margin = if readable {
            Some(nocebo_core::Objective::evaluate(&objective, row, logits, &mut cotangent)?)
        } else {
            None
        };
        let decision = readable.then(|| task.decide(logits));
        let truth = &data.labels[positions[row]];
        let distances = NORMS.map(|norm| norm.distance(clean, point));
        let attacked = Attacked {
            claimed: outcome.success[row],
            within_threat: false,
            finite: true,
            success: readable && goal.is_reached(task, row, logits),
            success_stored: false,
            overlaps: decision.as_ref().and_then(|decision| overlaps(task, truth, decision)),
            decision: decision.map(|decision| in_brief(task, &decision)),
            margin,
            distances: distances.iter().all(|distance| distance.is_finite()).then_some(distances),
            queries: outcome.queries[row],
            trace,
        };
        rows.push(vec![attacked; run.judged.len()]);
    }
    let mut former: Option<(Samples, Outputs)> = None;
    for (place, &epsilon) in run.judged.iter().enumerate() {
        let threat = run.threat(&data.domain, epsilon, settings.query_limit)?;
        let (base, stored) = threat.as_stored(inputs, &points);
        let answers = match former.take().filter(|(samples, _)| *samples == stored) {
            Some((_, outputs)) => outputs,
            None => match settings.store_as {
                None if stored == points => outputs.clone(),
                None => outputs_of(checked, &stored)?,
                Some(store) => {
                    let read = store.store(&stored, &data.domain).map_err(|error| Error::Model(error.into()))?;
                    outputs_of(checked, &read)?
                }
            },
        };
        for (row, judgements) in rows.iter_mut().enumerate() {
            let judged = &mut judgements[place];
            judged.within_threat = threat.allows(inputs.row(row), points.row(row));
            judged.success &= judged.within_threat;
            // A minimum-norm attack claims success without a budget; only what lies within this one is claimed for it.
            judged.claimed &= judged.within_threat || !run.entry.info().minimum_norm;
            let logits = answers.row(row);
            let storable = threat.allows(base.row(row), stored.row(row));
            judged.success_stored = storable && finite(logits) && goal.is_reached(task, row, logits);
            // What the threat model does not allow says nothing about the model.
            judged.finite = (judged.decision.is_some() || !judged.within_threat) && (finite(logits) || !storable);
        }
        former = Some((stored, answers));
    }
    Ok(rows)
}

/// Share of the samples for which one answer is right, whatever the sample: the most frequent label, for masks the most frequent
/// class everywhere, for grades and numbers the one that is near enough to the most.
pub(crate) fn majority_share(task: &Task, labels: &[Label]) -> f64 {
    if let Task::Segmentation(segmentation) = task {
        let masks = || labels.iter().flat_map(|label| if let Label::Mask(mask) = label { &mask[..] } else { &[] });
        let count = |class: usize| masks().filter(|known| usize::from(**known) == class).count();
        let most = (0..segmentation.classes).rev().max_by_key(|&class| count(class)).unwrap_or(0);
        let constant = Label::Mask(vec![most as u8; segmentation.positions()]);
        let right = labels.iter().filter(|label| task.is_right(label, &constant)).count();
        return right as f64 / labels.len().max(1) as f64;
    }
    let mut sorted: Vec<&Label> = labels.iter().collect();
    sorted.sort();
    if let Task::Regression { tolerance } = task {
        let number = |label: &Label| if let Label::Number(number) = label { f64::from(**number) } else { 0.0 };
        // The answer in the middle of the widest crowd: as many labels as possible within twice the tolerance.
        let (mut first, mut most) = (0, 0);
        for (last, label) in sorted.iter().enumerate() {
            while number(label) - number(sorted[first]) > 2.0 * f64::from(*tolerance) {
                first += 1;
            }
            most = most.max(last + 1 - first);
        }
        return most as f64 / labels.len().max(1) as f64;
    }
    if let Task::Ordinal { grades, .. } = task {
        let right = |grade: usize| labels.iter().filter(|label| task.is_right(label, &Label::Class(grade))).count();
        return (0..*grades).map(right).max().unwrap_or(0) as f64 / labels.len().max(1) as f64;
    }
    let most = sorted.chunk_by(|a, b| a == b).map(<[_]>::len).max().unwrap_or(0);
    most as f64 / labels.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toy;

    fn stored(norm: Norm, epsilon: f32, clean: [f32; 4], point: [f32; 4]) -> (Vec<f32>, Vec<f32>) {
        let samples = |values: [f32; 4]| Samples::new(values.to_vec(), &toy::SHAPE).unwrap();
        let threat = ThreatModel::new(norm, epsilon, toy::domain()).unwrap();
        let (base, stored) = threat.as_stored(&samples(clean), &samples(point));
        (base.values().to_vec(), stored.values().to_vec())
    }

    #[test]
    fn stored_values_are_the_nearest_unless_that_leaves_the_ball() {
        let clean = [100.0; 4];
        let of = |norm, epsilon, point| stored(norm, epsilon, clean, point).1;
        assert_eq!(of(Norm::Linf, 2.0, [101.6, 98.4, 100.2, 100.0]), [102.0, 98.0, 100.0, 100.0]);
        assert_eq!(of(Norm::Linf, 0.5, [100.5, 99.5, 100.4, 100.0]), clean);
        // 1.6 and 1.2 make 2; their nearest levels 2 and 1 make 2.24, cut they make 1.41.
        assert_eq!(of(Norm::L2, 2.0, [101.6, 101.2, 100.0, 100.0]), [101.0, 101.0, 100.0, 100.0]);
        assert_eq!(of(Norm::L2, 2.3, [101.6, 101.2, 100.0, 100.0]), [102.0, 101.0, 100.0, 100.0]);
    }

    #[test]
    fn a_clean_sample_between_two_levels_is_stored_too() {
        let (base, stored) = stored(Norm::Linf, 2.0, [100.4; 4], [102.4, 98.4, 100.4, 102.3]);
        assert_eq!((base, stored), (vec![100.0; 4], vec![102.0, 98.0, 100.0, 102.0]));
    }

    #[test]
    fn a_budget_below_the_least_step_leaves_nothing_to_store() {
        let of = |norm, epsilon| storable(&toy::domain(), norm, epsilon);
        assert_eq!([0.5, 0.99, 1.0, 2.0].map(|epsilon| of(Norm::Linf, epsilon)), [false, false, true, true]);
        assert_eq!(
            [(Norm::L2, 0.9), (Norm::L1, 1.0), (Norm::L0, 0.0), (Norm::L0, 1.0)]
                .map(|(norm, epsilon)| of(norm, epsilon)),
            [false, true, false, true]
        );
    }

    #[test]
    fn the_most_frequent_label_is_counted() {
        let task = Task::MultiClass { classes: 3 };
        assert_eq!(majority_share(&task, &[0, 1, 1, 2, 1].map(Label::Class)), 0.6);
        assert_eq!(majority_share(&task, &[]), 0.0);
        // Class 1 everywhere has a mean Dice of 1, of 0.43 and of 0.33.
        let task = Task::Ordinal { grades: 4, serious: 2 };
        assert_eq!(majority_share(&task, &[0, 1, 2, 3, 3].map(Label::Class)), 0.8);
        let task = Task::Regression { tolerance: 1.0 };
        let numbers = [7.0, 1.0, 2.5, 3.0, 5.5].map(|value| Label::Number(nocebo_core::NotNan::new(value).unwrap()));
        assert_eq!(majority_share(&task, &numbers), 0.6);
        let masks = [[1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1]].map(|mask| Label::Mask(mask.to_vec()));
        assert_eq!(majority_share(&toy::segmentation(), &masks), 1.0 / 3.0);
    }
}
