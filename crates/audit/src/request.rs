//! What is to be audited: model, samples, attacks, settings, and where they came from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nocebo_attacks::fit::FitAttack;
use nocebo_core::{
    Attack, AttackInfo, DifferentiableModel, Domain, Goal, Label, Norm, Samples, Seed, Task, has_finding,
};
use nocebo_data::StoreAs;
use serde::{Deserialize, Serialize};

use crate::cell::in_brief;
use crate::digest::sha256_of_data;
use crate::{AuditError, Gate, epsilon, kept};

/// Name of the attack that is only a control: random noise of equal norm. It never counts in the worst case.
pub const CONTROL: &str = "noise";

/// The samples to audit with.
#[derive(Clone, Debug)]
pub struct AuditData {
    /// Name of the data set (and split) in reports.
    pub name: String,
    /// Clean samples, in the unit of `domain`; each keeps its index in the data set.
    pub samples: Samples,
    /// True label of each sample.
    pub labels: Vec<Label>,
    /// Bounds, unit, storage step and region of interest: what every epsilon refers to.
    pub domain: Domain,
    /// A pseudonym of the patient of each sample, where known. It is written to the records: never a name or a
    /// hospital's number.
    pub patients: Option<Vec<String>>,
    /// Standard deviation of the training data, for epsilons in `sd`.
    pub standard_deviation: Option<f32>,
    /// Columns of subgroup values that results are also given for, one value a sample.
    pub groups: BTreeMap<String, Vec<String>>,
    /// What was left out or assumed while the data were read.
    pub notes: Vec<String>,
}

impl AuditData {
    /// The samples at these positions.
    pub(crate) fn select(&self, positions: &[usize]) -> Self {
        let pick = |column: &[String]| positions.iter().map(|&at| column[at].clone()).collect::<Vec<_>>();
        Self {
            samples: self.samples.select(positions),
            labels: positions.iter().map(|&at| self.labels[at].clone()).collect(),
            patients: self.patients.as_deref().map(pick),
            groups: self.groups.iter().map(|(name, column)| (name.clone(), pick(column))).collect(),
            name: self.name.clone(),
            domain: self.domain.clone(),
            standard_deviation: self.standard_deviation,
            notes: Vec::new(),
        }
    }
}

/// Samples that attacks learn from. None of them may be judged.
pub struct LearningSet {
    pub(crate) samples: Samples,
    pub(crate) labels: Vec<Label>,
    pub(crate) summary: LearnedFrom,
}

/// A [`LearningSet`] in results.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct LearnedFrom {
    /// Name of the data set and split.
    pub name: String,
    /// Number of samples.
    pub samples: usize,
    /// SHA-256 of samples, indices and labels.
    pub sha256: String,
}

impl LearningSet {
    /// Samples in the unit of the audited data, with their true labels; `name` is that of the data set and split.
    pub fn new(name: impl Into<String>, samples: Samples, labels: Vec<Label>) -> Self {
        let sha256 = sha256_of_data(&samples, &labels, &samples.select(&[]));
        let summary = LearnedFrom { name: name.into(), samples: samples.len(), sha256 };
        Self { samples, labels, summary }
    }
}

/// An attack that can run, or one that must learn first.
pub(crate) enum Method {
    Ready(Box<dyn Attack>),
    Learns(Box<dyn FitAttack>, Arc<LearningSet>),
}

/// One attack of an audit.
pub struct AttackEntry {
    /// Its name in this audit; unique. [`CONTROL`] marks the control.
    pub name: String,
    /// Its resolved settings. They identify the cells of the attack: two settings that differ may not share a value.
    pub settings: serde_json::Value,
    pub(crate) method: Method,
    /// Whether it runs only on samples that no earlier attack brought down, as computed and as stored, at the same or a
    /// smaller budget of the norm.
    pub cascade: bool,
    /// Norms it runs in; none for all that it works in.
    pub norms: Option<Vec<Norm>>,
}

impl AttackEntry {
    /// An attack under a name, with its resolved settings.
    pub fn new(name: impl Into<String>, settings: serde_json::Value, attack: Box<dyn Attack>) -> Self {
        Self { name: name.into(), settings, method: Method::Ready(attack), cascade: false, norms: None }
    }

    /// The same for an attack that learns first: at each budget anew, from `set`.
    pub fn learning(
        name: impl Into<String>,
        settings: serde_json::Value,
        attack: Box<dyn FitAttack>,
        set: Arc<LearningSet>,
    ) -> Self {
        Self { name: name.into(), settings, method: Method::Learns(attack, set), cascade: false, norms: None }
    }

    /// Whether the attack is wanted in this norm.
    pub(crate) fn wanted_in(&self, norm: Norm) -> bool {
        self.norms.as_ref().is_none_or(|norms| norms.contains(&norm))
    }

    /// Whether it is run without a budget, and judged at every budget.
    pub(crate) fn is_unlimited(&self) -> bool {
        self.info().minimum_norm && !self.cascade
    }

    /// What the attack is.
    pub fn info(&self) -> AttackInfo {
        match &self.method {
            Method::Ready(attack) => attack.info(),
            Method::Learns(attack, _) => attack.info(),
        }
    }

    /// What it learns from, where it learns.
    pub(crate) fn learned_from(&self) -> Option<&LearnedFrom> {
        match &self.method {
            Method::Ready(_) => None,
            Method::Learns(_, set) => Some(&set.summary),
        }
    }

    /// Whether this is the noise control.
    pub fn is_control(&self) -> bool {
        self.name == CONTROL
    }
}

/// One norm and the budgets to try in it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Threat {
    /// Norm of a change.
    pub norm: Norm,
    /// Greatest changes, in the unit of the data, each at least 0; infinity for no limit but the bounds, `inf` in files.
    #[serde(with = "epsilon::list")]
    pub epsilons: Vec<f32>,
}

/// What the attacker wants of every sample.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditGoal {
    /// Any decision but the true one; every sample is in scope.
    #[default]
    Untargeted,
    /// Hide a finding; only samples that have it are in scope.
    FalseNegative {
        /// Class or index of the finding.
        finding: usize,
    },
    /// Invent a finding; only samples that lack it are in scope.
    FalsePositive {
        /// Class or index of the finding.
        finding: usize,
    },
}

impl AuditGoal {
    /// The goal for samples with these labels.
    pub(crate) fn of(self, labels: Vec<Label>) -> Goal {
        match self {
            Self::Untargeted => Goal::Untargeted { labels },
            Self::FalseNegative { finding } => Goal::FalseNegative { finding },
            Self::FalsePositive { finding } => Goal::FalsePositive { finding },
        }
    }

    /// Whether a sample with this label is one that the goal is about.
    pub(crate) fn concerns(self, label: &Label) -> bool {
        match self {
            Self::Untargeted => true,
            Self::FalseNegative { finding } => has_finding(label, finding),
            Self::FalsePositive { finding } => !has_finding(label, finding),
        }
    }

    fn finding(self) -> Option<usize> {
        match self {
            Self::Untargeted => None,
            Self::FalseNegative { finding } | Self::FalsePositive { finding } => Some(finding),
        }
    }
}

/// Settings of an audit. All but `batch_size`, `include_images` and `keep_samples` decide the records.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AuditSettings {
    /// What the attacker may change.
    pub threats: Vec<Threat>,
    /// What the attacker wants.
    #[serde(default)]
    pub goal: AuditGoal,
    /// Class or finding that false negatives and false positives are counted for. By default that of the goal, else
    /// class 1 where there are two classes; with more classes, several findings, or masks, each is reported apart.
    #[serde(default)]
    pub finding: Option<usize>,
    /// Seed of all randomness.
    #[serde(default)]
    pub seed: Seed,
    /// Forward passes an attack may spend on a sample; none for no limit.
    #[serde(default)]
    pub query_limit: Option<u32>,
    /// Samples in one call of the model; at least 1. Results do not depend on it.
    #[serde(default = "default_batch_size")]
    pub batch_size: usize,
    /// Examples with images in the report. 0 leaves patient images out.
    #[serde(default)]
    pub include_images: usize,
    /// Samples kept in the folder, clean and as each attack returned them, for `nocebo view`; 0 where `include_images` is.
    #[serde(default)]
    pub keep_samples: usize,
    /// Conditions that the audit must meet.
    #[serde(default)]
    pub gates: Vec<Gate>,
    /// What the set of attacks is called in the report.
    #[serde(default)]
    pub protocol: Option<String>,
    /// How pictures are stored with loss before success is judged as stored; none for files without loss.
    #[serde(default)]
    pub store_as: Option<StoreAs>,
    /// Where the attacker reaches the input, in the words of the recipe.
    #[serde(default)]
    pub channel: Option<String>,
    /// Why the budgets were chosen, in the words of the recipe.
    #[serde(default)]
    pub justification: Option<String>,
}

fn default_batch_size() -> usize {
    64
}

impl AuditSettings {
    /// An untargeted audit of these threats with every other setting at its default.
    pub fn new(threats: Vec<Threat>) -> Self {
        Self {
            threats,
            goal: AuditGoal::Untargeted,
            finding: None,
            seed: Seed::default(),
            query_limit: None,
            batch_size: default_batch_size(),
            include_images: 0,
            keep_samples: 0,
            gates: Vec::new(),
            protocol: None,
            store_as: None,
            channel: None,
            justification: None,
        }
    }

    /// One threat a norm, in the order of first mention; epsilons ascending, each once.
    fn resolved_threats(&self) -> Result<Vec<Threat>, AuditError> {
        let mut resolved: Vec<Threat> = Vec::new();
        for threat in &self.threats {
            for epsilon in &threat.epsilons {
                if epsilon.is_nan() || *epsilon < 0.0 {
                    return Err(AuditError::invalid("epsilon", "a number, at least 0", epsilon));
                }
            }
            match resolved.iter_mut().find(|known| known.norm == threat.norm) {
                Some(known) => known.epsilons.extend(&threat.epsilons),
                None => resolved.push(threat.clone()),
            }
        }
        for threat in &mut resolved {
            if threat.epsilons.is_empty() {
                return Err(AuditError::invalid("threat", format!("at least one epsilon for {}", threat.norm), "none"));
            }
            threat.epsilons.sort_by(f32::total_cmp);
            threat.epsilons.dedup();
        }
        if resolved.is_empty() {
            return Err(AuditError::invalid("threats", "at least one norm with an epsilon", "none"));
        }
        Ok(resolved)
    }
}

/// A file that the audit depends on.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct InputFile {
    /// What it is: model, data, recipe, ...
    pub role: String,
    /// Its name, without folders.
    pub name: String,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
}

/// Where an audit comes from: enough to repeat it.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Name of the model in reports.
    pub model: String,
    /// Files read.
    pub inputs: Vec<InputFile>,
    /// The command that repeats the run.
    pub command: Option<String>,
    /// Device that computed the model.
    pub device: String,
    /// Threads used.
    pub threads: usize,
    /// Version of each program and library that matters.
    pub versions: BTreeMap<String, String>,
    /// The recipe with every default filled in, as it is written to the folder.
    #[serde(default)]
    pub recipe: Option<String>,
}

/// Everything that one audit needs.
#[derive(Clone, Copy)]
pub struct AuditRequest<'a> {
    /// The model under test.
    pub model: &'a dyn DifferentiableModel,
    /// The samples.
    pub data: &'a AuditData,
    /// The attacks, the control among them.
    pub attacks: &'a [AttackEntry],
    /// The settings.
    pub settings: &'a AuditSettings,
    /// Where all this comes from.
    pub provenance: &'a Provenance,
}

/// A request whose parts fit together.
pub(crate) struct Checked<'a> {
    pub(crate) request: AuditRequest<'a>,
    pub(crate) threats: Vec<Threat>,
    /// What is wanted of each sample.
    pub(crate) goal: Goal,
    /// True labels, masks in brief.
    pub(crate) labels: Vec<Label>,
    /// Whether the goal is about the sample.
    pub(crate) in_scope: Vec<bool>,
    /// Whether the sample is kept.
    pub(crate) kept: Vec<bool>,
    /// Class or finding that false negatives and false positives are counted for.
    pub(crate) finding: Option<usize>,
}

impl<'a> Checked<'a> {
    pub(crate) fn new(request: AuditRequest<'a>) -> Result<Self, AuditError> {
        let AuditRequest { model, data, attacks, settings, .. } = request;
        let spec = model.spec();
        spec.check()?;
        if data.samples.is_empty() {
            return Err(AuditError::invalid("samples", "at least one", "none"));
        }
        if data.labels.len() != data.samples.len() {
            return Err(AuditError::invalid(
                "labels",
                format!("{}, one a sample", data.samples.len()),
                data.labels.len(),
            ));
        }
        data.labels.iter().try_for_each(|label| spec.task.check_label(label))?;
        if let Some(patients) = &data.patients
            && patients.len() != data.samples.len()
        {
            let expected = format!("{}, one a sample", data.samples.len());
            return Err(AuditError::invalid("patient keys", expected, patients.len()));
        }
        if let Some((_, values)) = data.groups.iter().find(|(_, values)| values.len() != data.samples.len()) {
            return Err(AuditError::invalid(
                "subgroup values",
                format!("{}, one a sample", data.samples.len()),
                values.len(),
            ));
        }
        let distinct: BTreeSet<u64> = data.samples.indices().iter().copied().collect();
        if distinct.len() != data.samples.len() {
            return Err(AuditError::invalid("sample indices", "each at most once", "a repeated index"));
        }
        if spec.domain.unit() != data.domain.unit() {
            let expected = format!("{} (the unit of the model)", spec.domain.unit().symbol());
            return Err(AuditError::invalid("unit of the data", expected, data.domain.unit().symbol()));
        }
        settings.store_as.iter().try_for_each(|store| store.check(&data.domain))?;
        data.domain.check(&data.samples)?;
        spec.domain.check(&data.samples)?;
        if settings.batch_size == 0 {
            return Err(AuditError::invalid("batch size", "at least 1", 0));
        }
        if settings.include_images == 0 && settings.keep_samples > 0 {
            let expected = "0 where include_images is 0: samples are patient data";
            return Err(AuditError::invalid("keep_samples", expected, settings.keep_samples));
        }
        let mut names = BTreeSet::new();
        if let Some(entry) = attacks.iter().find(|entry| entry.name.is_empty() || !names.insert(&entry.name)) {
            return Err(AuditError::invalid("attack name", "not empty, each once", format!("`{}`", entry.name)));
        }
        attacks.iter().try_for_each(|entry| check_learning_set(entry, data))?;
        let threats = settings.resolved_threats()?;
        for threat in &threats {
            let works = |entry: &AttackEntry| {
                !entry.is_control() && entry.wanted_in(threat.norm) && entry.info().norms.contains(&threat.norm)
            };
            if !attacks.iter().any(works) {
                return Err(AuditError::NoAttack { norm: threat.norm });
            }
        }
        let finding = resolved_finding(settings, &spec.task)?;
        let goal = settings.goal.of(data.labels.clone());
        goal.check(&spec.task, data.samples.len())?;
        let labels: Vec<Label> = data.labels.iter().map(|label| in_brief(&spec.task, label)).collect();
        let in_scope: Vec<bool> = labels.iter().map(|label| settings.goal.concerns(label)).collect();
        if !in_scope.contains(&true) {
            let expected = "at least one sample that the goal is about";
            return Err(AuditError::invalid("samples", expected, format!("none of {}", data.samples.len())));
        }
        for gate in &settings.gates {
            gate.check(&threats, data, finding)?;
        }
        let kept = kept::choose(&labels, &in_scope, settings.keep_samples);
        Ok(Self { request, threats, goal, labels, in_scope, kept, finding })
    }
}

impl Checked<'_> {
    /// Index in the data set of a sample.
    pub(crate) fn sample(&self, position: usize) -> u64 {
        self.request.data.samples.indices()[position]
    }
}

/// Refuses a set that holds a sample which will be judged: what was learned by heart says nothing about the rest.
fn check_learning_set(entry: &AttackEntry, data: &AuditData) -> Result<(), AuditError> {
    let Method::Learns(_, set) = &entry.method else { return Ok(()) };
    let bits = |row: &[f32]| row.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    let judged: BTreeSet<Vec<u32>> = data.samples.rows().map(bits).collect();
    match set.samples.rows().position(|row| judged.contains(&bits(row))) {
        Some(row) => {
            let got = format!("sample {} of {}, which is", set.samples.indices()[row], set.summary.name);
            Err(AuditError::invalid("samples to learn from", "none that is judged", got))
        }
        None => Ok(()),
    }
}

fn resolved_finding(settings: &AuditSettings, task: &Task) -> Result<Option<usize>, AuditError> {
    let two_classes = !matches!(task, Task::MultiLabel { .. } | Task::Segmentation(_)) && task.classes() == 2;
    let finding = settings.finding.or(settings.goal.finding()).or(two_classes.then_some(1));
    match finding {
        Some(finding) if finding >= task.classes() => {
            Err(AuditError::invalid("finding", format!("an index below {}", task.classes()), finding))
        }
        _ => Ok(finding),
    }
}
