//! Recipes: everything that an audit is made from, as one TOML file.
//!
//! A recipe is what `nocebo audit --recipe` reads, what its flags are turned into, and what stands beside the results with
//! every default filled in ([`RESOLVED`](crate::folder::RESOLVED)), so that the run can be repeated. Unknown keys are errors that show their line.
//! Paths are relative to the folder of the recipe.

use std::collections::BTreeMap;
use std::path::PathBuf;

use nocebo_core::{Norm, ThreatSpec, Unit};
use nocebo_data::StoreAs;
use serde::{Deserialize, Serialize};

use crate::protocol::Protocol;
use crate::request::{AuditGoal, InputFile};
use crate::{AuditError, Gate};

/// Version of the layout of recipes.
pub const SCHEMA: u32 = 1;

/// An audit to be carried out.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Version of this layout: 1.
    pub schema: u32,
    /// Seed of everything random.
    #[serde(default)]
    pub seed: u64,
    /// A set of attacks; beside it `attack` adds more. Standard where neither is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Conditions, such as `robust_accuracy(linf:1) >= 0.5`, judged on the worse end of the interval.
    #[serde(default)]
    pub gates: Vec<Gate>,
    /// The model under test.
    pub model: ModelSection,
    /// The samples.
    pub data: DataSection,
    /// What the attacker wants and may do.
    pub threat: ThreatSection,
    /// Attacks by name.
    #[serde(default, rename = "attack", skip_serializing_if = "Vec::is_empty")]
    pub attacks: Vec<AttackSection>,
    /// What is written.
    #[serde(default)]
    pub report: ReportSection,
    /// Versions that made the results beside this file; only told.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub versions: BTreeMap<String, String>,
    /// Files that were read, with their digests: a run refuses others.
    #[serde(default, rename = "input", skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<InputFile>,
}

/// The model under test. All but the path is for files that nocebo did not write: it writes these facts into its own.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSection {
    /// ONNX file.
    pub path: PathBuf,
    /// What its outputs decide; by default what the labels of the data suggest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskName>,
    /// Operating point of each logit as a probability, above 0 and below 1: one for a binary task, one a finding for a
    /// multi-label task. Replaces those of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thresholds: Option<Vec<f64>>,
    /// Normalisation of the input, in the unit of the data; none where the file does it itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalization: Option<Normalization>,
}

/// What the outputs of a model decide.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskName {
    /// One logit a class; the greatest is the decision.
    MultiClass,
    /// One logit, for class 1.
    Binary,
    /// One logit a finding.
    MultiLabel,
}

/// `(x − mean) / standard deviation` before the first layer, one number a channel.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    /// Means, in the unit of the data.
    pub mean: Vec<f32>,
    /// Standard deviations, in the unit of the data; above 0.
    pub standard_deviation: Vec<f32>,
}

/// The samples to audit with.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DataSection {
    /// A MedMNIST-style `.npz`, or a folder of pictures.
    pub path: PathBuf,
    /// `train`, `validation` or `test`.
    #[serde(default = "test")]
    pub split: String,
    /// Samples drawn at random, stratified by class; 0 for all.
    #[serde(default)]
    pub samples: usize,
    /// Columns of the label table that results are also given for, such as `sex` or `site`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Names of all classes in order; by default those of the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_names: Option<Vec<String>>,
    /// Unit of the values; by default that of the format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
    /// Least and greatest value that can be stored; by default those of the number type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bounds: Option<(f32, f32)>,
    /// Centre and width of the part of the values that is used, in their unit; of DICOM images only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<(f32, f32)>,
    /// A lossy way in which pictures are stored before success after storage is judged: `jpeg:90`, `jpeg2000:10`; by default without loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_as: Option<StoreAs>,
    /// Classes are grades in order, and an error of fewer grades than this counts as right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serious: Option<usize>,
    /// Labels are numbers, and an error up to this, in their unit, counts as right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<f32>,
    /// Part that attacks such as uap learn from; by default `train`, or `validation` where train is under attack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learn_from: Option<String>,
    /// Samples that such attacks learn from, drawn at random; 0 for all, 256 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning_samples: Option<usize>,
}

fn test() -> String {
    "test".to_owned()
}

/// What the attacker wants and may do.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ThreatSection {
    /// Norms and epsilons, such as `linf:0.5,1,2,4` (in the unit of the data), `l2:0.1sd`, `linf:4/255range`.
    pub budgets: Vec<ThreatSpec>,
    /// What the attacker wants.
    #[serde(default)]
    pub goal: GoalName,
    /// Name or number of the class or finding that the goal is about, or that misses are counted for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<FindingName>,
    /// Forward passes an attack may spend on a sample; none for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_limit: Option<u32>,
    /// Where the attacker reaches the input (archive, transfer, preprocessing, acquisition), for the report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// Why these budgets were chosen, for the report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub justification: Option<String>,
}

/// What the attacker wants of every sample.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GoalName {
    /// Any decision but the true one.
    #[default]
    Untargeted,
    /// Hide the finding.
    FalseNegative,
    /// Invent the finding.
    FalsePositive,
}

/// A class or finding.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum FindingName {
    /// By its place, from 0.
    Index(usize),
    /// By its name.
    Name(String),
}

impl ThreatSection {
    /// Goal and finding for a model with these classes.
    ///
    /// # Errors
    ///
    /// [`AuditError::Invalid`] for an unknown class, or a goal that lacks its finding.
    pub fn resolve(&self, class_names: &[String]) -> Result<(AuditGoal, Option<usize>), AuditError> {
        let finding = match &self.finding {
            None => None,
            Some(FindingName::Index(index)) => Some(*index),
            Some(FindingName::Name(name)) => match class_names.iter().position(|known| known == name) {
                None => return Err(AuditError::invalid("finding", format!("one of {}", class_names.join(", ")), name)),
                found => found,
            },
        };
        let goal = match (self.goal, finding) {
            (GoalName::Untargeted, _) => AuditGoal::Untargeted,
            (GoalName::FalseNegative, Some(finding)) => AuditGoal::FalseNegative { finding },
            (GoalName::FalsePositive, Some(finding)) => AuditGoal::FalsePositive { finding },
            (_, None) => return Err(AuditError::invalid("goal", "a `finding` that it is about", "none")),
        };
        Ok((goal, finding))
    }
}

/// One attack.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AttackSection {
    /// Its name in the catalogue (`nocebo attacks`).
    pub name: String,
    /// Its name in the results; by default the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Whether it runs only on samples that no earlier attack brought down, as computed and as stored, at the same or a
    /// smaller budget.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cascade: bool,
    /// Norms it runs in; by default all that it works in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub norms: Option<Vec<Norm>>,
    /// Its settings; those left out have their defaults.
    #[serde(default)]
    pub settings: toml::Table,
}

impl AttackSection {
    /// An attack with its default settings, on every sample.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), label: None, cascade: false, norms: None, settings: toml::Table::new() }
    }

    /// Its name in the results.
    pub fn label(&self) -> &str {
        self.label.as_deref().unwrap_or(&self.name)
    }
}

/// What is written.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReportSection {
    /// Samples shown with images; 0 keeps images of patients out of the report.
    pub include_images: usize,
    /// Samples kept in the results, clean and as each attack returned them, for `nocebo view`; 0 where `include_images` is.
    pub keep_samples: usize,
}

impl Recipe {
    /// A recipe for a model and data with these budgets, everything else at its default.
    pub fn new(model: PathBuf, data: PathBuf, budgets: Vec<ThreatSpec>) -> Self {
        Self {
            schema: SCHEMA,
            seed: 0,
            protocol: None,
            gates: Vec::new(),
            model: ModelSection { path: model, ..ModelSection::default() },
            data: DataSection { path: data, split: test(), ..DataSection::default() },
            threat: ThreatSection {
                budgets,
                goal: GoalName::default(),
                finding: None,
                query_limit: None,
                channel: None,
                justification: None,
            },
            attacks: Vec::new(),
            report: ReportSection::default(),
            versions: BTreeMap::new(),
            inputs: Vec::new(),
        }
    }

    /// Reads a recipe; `file` is the name for messages.
    ///
    /// # Errors
    ///
    /// [`AuditError::Recipe`] with the line and what was expected there.
    ///
    /// ```
    /// # use nocebo_audit::recipe::Recipe;
    /// let error = Recipe::parse("audit.toml", "schema = 1\nsede = 3\n").unwrap_err();
    /// assert!(error.to_string().contains("2 | sede = 3"));
    /// ```
    pub fn parse(file: &str, text: &str) -> Result<Self, AuditError> {
        let refuse = |message: String| AuditError::Recipe { file: file.to_owned(), message };
        let recipe: Self = toml::from_str(text).map_err(|error| refuse(error.to_string()))?;
        if recipe.schema == SCHEMA {
            Ok(recipe)
        } else {
            Err(refuse(format!("schema: expected {SCHEMA}, got {}", recipe.schema)))
        }
    }

    /// The recipe as TOML.
    ///
    /// # Errors
    ///
    /// [`AuditError::Encode`] for a number that TOML lacks.
    pub fn to_toml(&self) -> Result<String, AuditError> {
        toml::to_string_pretty(self).map_err(AuditError::encode("recipe"))
    }
}
