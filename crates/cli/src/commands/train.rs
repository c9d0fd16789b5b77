//! `nocebo train`.

use std::path::Path;

use nocebo_core::{Label, ModelSpec, Seed, Task};
use nocebo_data::{Dataset, Split};
use nocebo_graph::train::{Event, Labelled, Optimizer, Trained, Training, TrainingConfig};
use nocebo_graph::weights::{self, KeyMap};
use nocebo_graph::zoo::{self, Blueprint};
use nocebo_graph::{Device, Graph, onnx};

use crate::arguments::{Global, OptimizerName, Schedule, Train};
use crate::failure::{Failure, Kind, OrFail};
use crate::figures::{self, Measure};
use crate::load;
use crate::progress::{bar, note};

/// Share of the quality on validation from which a mask counts as right.
const RIGHT: f32 = 0.9;

impl Schedule {
    pub(crate) fn config(&self) -> TrainingConfig {
        TrainingConfig {
            epochs: self.epochs,
            batch_size: self.batch_size,
            learning_rate: self.learning_rate,
            optimizer: match self.optimizer {
                OptimizerName::Adam => Optimizer::Adam,
                OptimizerName::Sgd => Optimizer::Sgd,
            },
            shift: self.shift,
            flip: self.flip,
            crop: self.crop,
            balanced: self.balanced,
            patience: self.patience,
            freeze_batch_norm: self.freeze_batch_norm,
            frozen: self.freeze.clone(),
            ..TrainingConfig::default()
        }
    }
}

pub(crate) fn run(arguments: &Train, global: &Global) -> Result<(), Failure> {
    load::writable(&arguments.out)?;
    let training = load::data(&arguments.source, Split::Train, global)?;
    let validation = load::data(&arguments.source, Split::Validation, global)?;
    let (graph, mut spec) = match &arguments.from {
        Some(path) => load::graph(path, &training)?,
        None => {
            let spec = load::spec_for(&training);
            let mut graph = build(&arguments.architecture, &spec, &training, Seed(global.seed)).or_usage()?;
            if let Some(path) = &arguments.weights {
                let keys = arguments.key_map.as_ref().map(|path| KeyMap::read(path)).transpose().or_load()?;
                weights::load(&mut graph, path, &keys.unwrap_or_default()).or_load()?;
            }
            (graph, spec)
        }
    };
    let trained = train(&graph, &spec, (&training, &validation), &arguments.schedule.config(), global)?;
    let best = &trained.epochs[trained.best_epoch - 1];
    let measure = Measure::of(&spec.task, arguments.schedule.balanced > 0);
    println!("validation {} {:.4} (epoch {} of {})", measure.name(), best.score, best.epoch, trained.epochs.len());
    if let (Task::Segmentation(task), None) = (&mut spec.task, &arguments.from) {
        task.tolerance.right = (RIGHT * best.score as f32).max(f32::MIN_POSITIVE);
        println!("a mask counts as right from a mean Dice of {:.3} on, {RIGHT} of that", task.tolerance.right);
    }
    if let Some(test) = load::optional_data(&arguments.source, Split::Test, global)? {
        let model = load::model(trained.graph.clone(), spec.clone(), global)?.model;
        figures::print(model.as_ref(), &test).or_incomplete()?;
    }
    save(trained.graph, &spec, &arguments.out)?;
    println!("wrote {}", arguments.out.display());
    Ok(())
}

/// A new network of the zoo for these training samples.
pub(crate) fn build(
    name: &str,
    spec: &ModelSpec,
    training: &Dataset,
    seed: Seed,
) -> Result<Graph, nocebo_graph::Error> {
    let statistics = training.statistics();
    let graph = zoo::build(
        name,
        &Blueprint { spec, mean: &statistics.mean, standard_deviation: &statistics.standard_deviation, seed },
    )?;
    let number = |label: &Label| if let Label::Number(number) = label { Some(f64::from(**number)) } else { None };
    let numbers: Vec<f64> = training.labels().iter().filter_map(number).collect();
    if numbers.is_empty() {
        return Ok(graph);
    }
    let mean = numbers.iter().sum::<f64>() / numbers.len() as f64;
    let variance = numbers.iter().map(|number| (number - mean).powi(2)).sum::<f64>() / numbers.len() as f64;
    let scale = if variance > 0.0 { variance.sqrt() } else { 1.0 };
    graph.in_unit_of_labels(mean as f32, scale as f32)
}

/// Trains on clean samples and keeps the epoch with the best validation result.
pub(crate) fn train(
    graph: &Graph,
    spec: &ModelSpec,
    (training, validation): (&Dataset, &Dataset),
    config: &TrainingConfig,
    global: &Global,
) -> Result<Trained, Failure> {
    let device: Device = load::device(global)?;
    let bar = bar(global, 0);
    let run = Training {
        config,
        spec,
        device: &device,
        seed: Seed(global.seed).named("train"),
        freeze: Some(&load::frozen(global)),
        perturb: None,
        score: &mut |model, _| Measure::of(&model.spec().task, config.balanced > 0).on(model, validation),
        observe: &mut |event| show(event, &bar, global),
    };
    let trained = run.run(graph, Labelled { samples: training.samples(), labels: training.labels() });
    bar.finish_and_clear();
    trained.map_err(failed)
}

/// A setting out of range is wrong usage; anything else ended work that had begun.
pub(crate) fn failed(error: nocebo_graph::Error) -> Failure {
    let kind = match &error {
        nocebo_graph::Error::Core(nocebo_core::Error::InvalidConfig { .. }) => Kind::Usage,
        _ => Kind::Incomplete,
    };
    Failure::new(kind, error)
}

/// Moves the bar, and notes the end of an epoch.
pub(crate) fn show(event: Event, bar: &indicatif::ProgressBar, global: &Global) {
    match event {
        Event::Step { done, of, loss } => {
            bar.set_length(of as u64);
            bar.set_position(done as u64);
            bar.set_message(format!("loss {loss:.3}"));
        }
        Event::Epoch { done, loss, score, best } => bar.suspend(|| {
            let mark = if best { " (best so far)" } else { "" };
            note(global, format!("epoch {done}: training loss {loss:.4}, validation score {score:.4}{mark}"));
        }),
    }
}

/// Writes a graph with its spec.
pub(crate) fn save(mut graph: Graph, spec: &ModelSpec, path: &Path) -> Result<(), Failure> {
    graph.set_spec(spec).or_incomplete()?;
    onnx::write(&graph, path).or_incomplete()
}
