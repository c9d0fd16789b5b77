//! Models, data, devices, attacks and threats as the commands need them.

use std::collections::BTreeSet;
use std::path::Path;

use nocebo_attacks::fit::FitAttack;
use nocebo_audit::recipe::{AttackSection, ModelSection, Normalization, TaskName};
use nocebo_core::{
    Attack, DifferentiableModel, Domain, MaskTolerance, Model, ModelSpec, Norm, Seed, Segmentation, Task, ThreatModel,
    ThreatSpec,
};
use nocebo_data::{DataError, Dataset, OpenOptions, Order, Split};
use nocebo_engine::{Engine, EngineModel};
use nocebo_graph::{Device, Graph, GraphModel, onnx};

use crate::arguments::{Draw, ExecutorName, Global, Samples, Source, SplitName};
use crate::failure::{Failure, OrFail};
use crate::progress::note;

impl From<SplitName> for Split {
    fn from(name: SplitName) -> Self {
        match name {
            SplitName::Train => Self::Train,
            SplitName::Validation => Self::Validation,
            SplitName::Test => Self::Test,
        }
    }
}

/// Refuses an output file that could not be written, before any work is done for it.
pub(crate) fn writable(path: &Path) -> Result<(), Failure> {
    nocebo_core::check_writable(path).map_err(|error| {
        Failure::usage(format!("{}: cannot be written: {error}; choose another --out", path.display()))
    })
}

/// The device of this name.
pub(crate) fn device(global: &Global) -> Result<Device, Failure> {
    match global.device.as_str() {
        "cpu" => Ok(Device::default()),
        other => Err(Failure::usage(format!("device `{other}`: this build runs on `cpu` only"))),
    }
}

/// One split of a data set, with what was inferred and its warnings shown; the seed is that of the run.
pub(crate) fn data(source: &Source, split: Split, global: &Global) -> Result<Dataset, Failure> {
    let options = OpenOptions { seed: Seed(global.seed), ..source.open.options() };
    let data = nocebo_data::open_with(&source.data, split, &options).or_load()?;
    note(global, described(&data));
    for warning in data.warnings() {
        note(global, format!("warning: {warning}"));
    }
    Ok(data)
}

/// How many samples there are, and what their values mean.
fn described(data: &Dataset) -> String {
    let domain = data.domain();
    let least = domain.lower().iter().copied().fold(f32::INFINITY, f32::min);
    let greatest = domain.upper().iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let step = domain.resolution().iter().copied().fold(0.0, f32::max);
    let steps = if step > 0.0 { format!(" in steps of {step}") } else { String::new() };
    let patients = data.patients().map(|patients| patients.iter().collect::<BTreeSet<_>>().len());
    let patients = patients.map_or(String::new(), |count| format!(", {count} patient(s)"));
    format!(
        "{}: {} samples of {:?}, {least} to {greatest} {}{steps}{patients}",
        data.source(),
        data.len(),
        domain.shape(),
        domain.unit().symbol()
    )
}

/// One split, or nothing where the data set has none of that name.
pub(crate) fn optional_data(source: &Source, split: Split, global: &Global) -> Result<Option<Dataset>, Failure> {
    if nocebo_data::is_image(&source.data) {
        return Ok(None);
    }
    let options = OpenOptions { seed: Seed(global.seed), ..source.open.options() };
    match nocebo_data::open_with(&source.data, split, &options) {
        Ok(data) => Ok(Some(data)),
        Err(DataError::Empty { .. }) => Ok(None),
        Err(error) => Err(error).or_load(),
    }
}

/// What a model for these data takes and decides.
pub(crate) fn spec_for(data: &Dataset) -> ModelSpec {
    let classes = data.class_names().len();
    let task = if let Some(order) = data.order() {
        order.task(classes)
    } else if data.is_segmentation() {
        let shape = data.domain().shape()[1..].to_vec();
        Task::Segmentation(Segmentation { classes, shape, threshold: None, tolerance: MaskTolerance::default() })
    } else if data.is_multi_label() {
        Task::MultiLabel { thresholds: vec![0.0; classes] }
    } else {
        Task::MultiClass { classes }
    };
    ModelSpec { domain: data.domain().clone(), task, class_names: data.class_names().to_vec() }
}

/// A graph with its spec: its own, or for a file from elsewhere what the data say.
pub(crate) fn graph(path: &Path, data: &Dataset) -> Result<(Graph, ModelSpec), Failure> {
    let mut graph = onnx::read(path).or_load()?;
    let own = graph.spec().or_load()?;
    if own.is_none() {
        graph = in_values_of_the_file(graph, data)?;
    }
    let spec = ordered(own.unwrap_or_else(|| spec_for(data)), data);
    fits(path, &spec, data)?;
    Ok((graph, spec))
}

/// What a model decides, with the order that the data are said to have and its own word on what is harmless, if any.
fn ordered(mut spec: ModelSpec, data: &Dataset) -> ModelSpec {
    let known = matches!(spec.task, Task::MultiClass { .. } | Task::Ordinal { .. } | Task::Regression { .. });
    if let Some(order) = data.order()
        && known
        && order.task(data.class_names().len()).outputs() == spec.task.outputs()
    {
        spec.task = order.task(data.class_names().len());
    }
    spec
}

/// The graph and spec of a recipe: what the recipe says about a file that does not say it itself.
pub(crate) fn graph_of(section: &ModelSection, path: &Path, data: &Dataset) -> Result<(Graph, ModelSpec), Failure> {
    let mut graph = onnx::read(path).or_load()?;
    let refuse = |what: String| Failure::usage(format!("{}: {what}", path.display()));
    let own = graph.spec().or_load()?;
    let foreign = own.is_none();
    if own.is_some() && (section.task.is_some() || section.normalization.is_some()) {
        return Err(refuse("says its task and normalises by itself; leave `task` and `normalization` out".to_owned()));
    }
    let mut spec = ordered(own.unwrap_or_else(|| spec_for(data)), data);
    let classes = data.class_names().len();
    match section.task {
        None => {}
        Some(TaskName::MultiClass) => spec.task = Task::MultiClass { classes },
        Some(TaskName::Binary) => spec.task = Task::Binary { threshold: 0.0 },
        Some(TaskName::MultiLabel) => spec.task = Task::MultiLabel { thresholds: vec![0.0; classes] },
    }
    if let Some(probabilities) = &section.thresholds {
        if let Some(wrong) = probabilities.iter().find(|p| !(**p > 0.0 && **p < 1.0)) {
            return Err(refuse(format!("thresholds: expected probabilities above 0 and below 1, got {wrong}")));
        }
        let logits: Vec<f32> = probabilities.iter().map(|p| (p / (1.0 - p)).ln() as f32).collect();
        match (&mut spec.task, logits.as_slice()) {
            (Task::Binary { threshold }, [logit]) => *threshold = *logit,
            (Task::MultiLabel { thresholds }, logits) if logits.len() == thresholds.len() => {
                thresholds.copy_from_slice(logits);
            }
            (task, _) => {
                return Err(refuse(format!(
                    "thresholds: expected one for a binary task, one a finding for a multi-label task, got {} for {task:?}",
                    logits.len()
                )));
            }
        }
    }
    if let Some(Normalization { mean, standard_deviation }) = &section.normalization {
        let channels = data.domain().shape()[0];
        if mean.len() != channels {
            return Err(refuse(format!(
                "normalization: expected one mean for each of {channels} channels, got {}",
                mean.len()
            )));
        }
        graph = graph.normalized(mean, standard_deviation).or_usage()?;
    }
    if foreign {
        graph = in_values_of_the_file(graph, data)?;
    }
    fits(path, &spec, data)?;
    Ok((graph, spec))
}

/// A network from elsewhere takes the columns of a table as they stand in its file; samples have them in standard deviations.
fn in_values_of_the_file(graph: Graph, data: &Dataset) -> Result<Graph, Failure> {
    let columns = data.domain().columns();
    if columns.is_empty() {
        return Ok(graph);
    }
    let inverse: Vec<f32> = columns.iter().map(|column| (1.0 / column.scale) as f32).collect();
    graph.normalized(&vec![0.0; columns.len()], &inverse).or_usage()
}

fn takes(path: &Path, spec: &ModelSpec, domain: &Domain, source: &str) -> Result<(), Failure> {
    if spec.domain.shape() == domain.shape() {
        return Ok(());
    }
    let (expected, got) = (spec.domain.shape(), domain.shape());
    Err(Failure::usage(format!("{}: takes samples of shape {expected:?}, but `{source}` has {got:?}", path.display())))
}

fn fits(path: &Path, spec: &ModelSpec, data: &Dataset) -> Result<(), Failure> {
    takes(path, spec, data.domain(), data.source())?;
    if spec.domain.columns() != data.domain().columns() {
        let message = format!(
            "{}: takes a table with other columns or other standard deviations than `{}`; put the schema of its training \
             table (`nocebo data inspect`) beside the data",
            path.display(),
            data.source()
        );
        return Err(Failure::usage(message));
    }
    if matches!(spec.task, Task::Regression { .. }) != matches!(data.order(), Some(Order::Numbers { .. })) {
        let message = if let Task::Regression { tolerance } = spec.task {
            format!("decides a number: open the data with --tolerance ({tolerance} when it was trained)")
        } else {
            "decides no number: open the data without --tolerance".to_owned()
        };
        return Err(Failure::usage(format!("{}: {message}", path.display())));
    }
    if spec.task.classes() != data.class_names().len() {
        let message = format!(
            "{}: decides {} classes, but `{}` has {}",
            path.display(),
            spec.task.classes(),
            data.source(),
            data.class_names().len()
        );
        return Err(Failure::usage(message));
    }
    Ok(())
}

/// A frozen network, and what computes it.
pub(crate) struct Loaded {
    pub(crate) model: Box<dyn DifferentiableModel>,
    pub(crate) executor: String,
}

/// How `--executor` wants networks planned.
pub(crate) fn engine_options(global: &Global) -> nocebo_engine::Options {
    nocebo_engine::Options { winograd: global.executor == ExecutorName::Engine, ..nocebo_engine::Options::default() }
}

/// The engine as it was asked for, with the instructions that it uses.
pub(crate) fn engine_name(engine: &Engine, global: &Global) -> String {
    let name = if global.executor == ExecutorName::Engine { "engine" } else { "engine-direct" };
    format!("{name} ({})", engine.instruction_set())
}

/// A frozen network on the executor of `--executor`, or on Burn where the engine lacks one of its nodes.
pub(crate) fn model(graph: Graph, spec: ModelSpec, global: &Global) -> Result<Loaded, Failure> {
    let device = device(global)?;
    if global.executor != ExecutorName::Burn {
        match EngineModel::new(graph.clone(), spec.clone(), engine_options(global)) {
            Ok(model) => {
                let executor = engine_name(model.engine(), global);
                return Ok(Loaded { model: Box::new(model), executor });
            }
            Err(nocebo_engine::Error::Unsupported(reason)) => {
                note(global, format!("runs on the Burn executor: {reason}"));
            }
            Err(error) => return Err(error).or_load(),
        }
    }
    Ok(Loaded { model: Box::new(GraphModel::new(graph, spec, &device).or_load()?), executor: "burn".to_owned() })
}

/// [`model`] of a network that is being trained, as it stands.
pub(crate) fn frozen(
    global: &Global,
) -> impl Fn(Graph, ModelSpec) -> Result<Box<dyn DifferentiableModel>, nocebo_graph::Error> {
    let quiet = Global { quiet: true, ..global.clone() };
    move |graph, spec| match model(graph, spec, &quiet) {
        Ok(loaded) => Ok(loaded.model),
        Err(failure) => Err(nocebo_graph::Error::Training(failure.to_string())),
    }
}

/// A model with the samples to attack it with.
pub(crate) fn model_and_samples(samples: &Samples, global: &Global) -> Result<(Loaded, Dataset), Failure> {
    if nocebo_data::is_image(&samples.source.data) {
        return model_and_image(samples, global);
    }
    let all = data(&samples.source, samples.draw.split.into(), global)?;
    let (graph, spec) = graph(&samples.model, &all)?;
    let model = model(graph, spec, global)?;
    Ok((model, chosen(all, samples.draw, global)?))
}

/// A model with one image, whose label is what the model says of it.
fn model_and_image(samples: &Samples, global: &Global) -> Result<(Loaded, Dataset), Failure> {
    let path = &samples.model;
    let image = nocebo_data::open_image(&samples.source.data, &samples.source.open.options()).or_load()?;
    let graph = onnx::read(path).or_load()?;
    let Some(spec) = graph.spec().or_load()? else {
        let message = format!(
            "{}: says nothing of its classes, and neither does one image; give a folder with labels",
            path.display()
        );
        return Err(Failure::usage(message));
    };
    takes(path, &spec, image.domain(), image.source())?;
    let model = model(graph, spec.clone(), global)?;
    let outputs = Model::outputs(model.model.as_ref(), image.samples()).or_incomplete()?;
    let data = image.labelled(spec.task.decide(outputs.row(0)), spec.class_names).or_load()?;
    note(global, described(&data));
    note(global, "one image has no label: the attack is judged against the decision of the model itself");
    Ok((model, data))
}

/// The samples drawn from all, once the batch size is usable.
pub(crate) fn chosen(all: Dataset, draw: Draw, global: &Global) -> Result<Dataset, Failure> {
    if draw.batch_size == 0 {
        return Err(Failure::usage("--batch-size must be at least 1"));
    }
    if draw.samples == 0 { Ok(all) } else { all.take(draw.samples, Seed(global.seed)).or_usage() }
}

/// Mean standard deviation of the channels of the training samples, for budgets in `sd`; that of the samples at hand where
/// there are no others.
pub(crate) fn standard_deviation(source: &Source, at_hand: &Dataset, global: &Global) -> Result<f32, Failure> {
    let training = optional_data(source, Split::Train, global)?;
    let deviations = training.as_ref().unwrap_or(at_hand).statistics().standard_deviation;
    Ok(deviations.iter().sum::<f32>() / deviations.len() as f32)
}

/// The epsilons of a threat in the unit of the data.
pub(crate) fn epsilons(
    threat: &ThreatSpec,
    domain: &Domain,
    standard_deviation: f32,
) -> Result<(Norm, Vec<f32>), Failure> {
    let resolved = threat.budgets.iter().map(|budget| budget.resolve(domain, standard_deviation));
    Ok((threat.norm, resolved.collect::<Result<_, _>>().or_usage()?))
}

/// A threat with exactly one epsilon.
pub(crate) fn threat(threat: &ThreatSpec, domain: &Domain, standard_deviation: f32) -> Result<ThreatModel, Failure> {
    match epsilons(threat, domain, standard_deviation)? {
        (norm, epsilons) if epsilons.len() == 1 => ThreatModel::new(norm, epsilons[0], domain.clone()).or_usage(),
        (_, epsilons) => {
            Err(Failure::usage(format!("--threat {threat}: one epsilon is needed here, got {}", epsilons.len())))
        }
    }
}

/// An attack with its name and resolved settings.
pub(crate) struct NamedAttack {
    pub(crate) name: String,
    pub(crate) settings: toml::Table,
    pub(crate) attack: AnyAttack,
}

/// An attack that can run, or one that learns from samples first.
pub(crate) enum AnyAttack {
    Ready(Box<dyn Attack>),
    Learns(Box<dyn FitAttack>),
}

/// Samples for attacks to learn from: of another part of the data, and none that is equal to one of `judged`.
pub(crate) fn learning_set(samples: &Samples, judged: &Dataset, global: &Global) -> Result<Dataset, Failure> {
    let usual = if samples.draw.split == SplitName::Train { SplitName::Validation } else { SplitName::Train };
    let part = samples.learning.learn_from.unwrap_or(usual);
    if part == samples.draw.split {
        return Err(Failure::usage("--learn-from: attacks may not learn from the part that is under attack (--split)"));
    }
    let all = data(&samples.source, part.into(), global)?;
    let bits = |row: &[f32]| row.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    let seen: BTreeSet<Vec<u32>> = judged.samples().rows().map(bits).collect();
    let rows: Vec<usize> = (0..all.len()).filter(|&row| !seen.contains(&bits(all.samples().row(row)))).collect();
    let others = if rows.len() == all.len() { all } else { all.select(&rows).or_usage()? };
    match samples.learning.learning_samples {
        0 => Ok(others),
        wanted => others.take(wanted.min(others.len()), Seed(global.seed).named("learn")).or_usage(),
    }
}

/// Attacks from text such as `fgsm,pgd(steps=20,restarts=2)`.
pub(crate) fn attacks(text: &str) -> Result<Vec<NamedAttack>, Failure> {
    sections(text)?.into_iter().map(|section| made(&section)).collect()
}

/// The same as parts of a recipe, with every setting filled in.
pub(crate) fn sections(text: &str) -> Result<Vec<AttackSection>, Failure> {
    split_outside_parentheses(text).into_iter().map(section).collect()
}

/// The attack that a part of a recipe asks for.
pub(crate) fn made(section: &AttackSection) -> Result<NamedAttack, Failure> {
    let (name, table) = (section.name.as_str(), section.settings.clone());
    let settings = nocebo_attacks::resolve(name, table.clone()).or_usage()?;
    let attack = if nocebo_attacks::learns(name) {
        AnyAttack::Learns(nocebo_attacks::build_fit(name, table).or_usage()?)
    } else {
        AnyAttack::Ready(nocebo_attacks::build(name, table).or_usage()?)
    };
    Ok(NamedAttack { name: section.label().to_owned(), settings, attack })
}

fn section(text: &str) -> Result<AttackSection, Failure> {
    let (name, settings) = match text.split_once('(') {
        Some((name, rest)) => {
            let Some(inside) = rest.strip_suffix(')') else {
                return Err(Failure::usage(format!("attack `{text}`: a closing `)` is missing")));
            };
            let table: toml::Table =
                split_outside_parentheses(inside).join("\n").parse().map_err(|error: toml::de::Error| {
                    Failure::usage(format!(
                        "attack `{text}`: settings such as (steps=20,loss=\"margin\"): {}",
                        error.message()
                    ))
                })?;
            (name, table)
        }
        None => (text, toml::Table::new()),
    };
    let (name, label) = (name.trim(), text.replace(' ', ""));
    let settings = nocebo_attacks::resolve(name, settings).or_usage()?;
    Ok(AttackSection { label: (label != name).then_some(label), settings, ..AttackSection::new(name) })
}

/// Parts between commas that stand outside parentheses.
fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (at, character) in text.char_indices() {
        match character {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts.retain(|part| !part.is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attacks_are_read_with_their_settings() {
        let read = attacks("fgsm, pgd(steps=5, loss=\"margin\"),noise").ok().unwrap();
        let names: Vec<&str> = read.iter().map(|attack| attack.name.as_str()).collect();
        assert_eq!(names, ["fgsm", "pgd(steps=5,loss=\"margin\")", "noise"]);
        assert_eq!(read[1].settings["steps"].as_integer(), Some(5));
        for wrong in ["pgd(steps=5", "pgd(steps)", "pgd(stepz=1)", "nothing", "pgd(steps=0)"] {
            assert!(attacks(wrong).is_err(), "{wrong}");
        }
    }
}
