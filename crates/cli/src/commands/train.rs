//! `nocebo train`.

use std::path::Path;

use nocebo_core::{DifferentiableModel, ModelSpec, Seed};
use nocebo_data::{Dataset, Split};
use nocebo_graph::train::{Event, Labelled, Optimizer, Trained, Training, TrainingConfig};
use nocebo_graph::zoo::{self, Blueprint};
use nocebo_graph::{Device, Graph, onnx};

use crate::arguments::{Global, OptimizerName, Schedule, Train};
use crate::failure::{Failure, Kind, OrFail};
use crate::load;
use crate::progress::{bar, note};

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
            patience: self.patience,
            freeze_batch_norm: self.freeze_batch_norm,
            frozen: self.freeze.clone(),
            ..TrainingConfig::default()
        }
    }
}

pub(crate) fn run(arguments: &Train, global: &Global) -> Result<(), Failure> {
    load::writable(&arguments.out)?;
    let training = load::data(&arguments.data, Split::Train, global)?;
    let validation = load::data(&arguments.data, Split::Validation, global)?;
    let (graph, spec) = match &arguments.from {
        Some(path) => load::graph(path, &training)?,
        None => {
            let spec = load::spec_for(&training);
            (build(&arguments.architecture, &spec, &training, Seed(global.seed)).or_usage()?, spec)
        }
    };
    let trained = train(&graph, &spec, (&training, &validation), &arguments.schedule.config(), global)?;
    let best = &trained.epochs[trained.best_epoch - 1];
    println!("validation accuracy {:.4} (epoch {} of {})", best.score, best.epoch, trained.epochs.len());
    if let Some(test) = load::optional_data(&arguments.data, Split::Test, global)? {
        let model = load::model(trained.graph.clone(), spec.clone(), global)?.model;
        println!(
            "test accuracy       {:.4} ({} samples)",
            accuracy(model.as_ref(), &test).or_incomplete()?,
            test.len()
        );
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
    zoo::build(
        name,
        &Blueprint { spec, mean: &statistics.mean, standard_deviation: &statistics.standard_deviation, seed },
    )
}

/// Trains on clean samples and keeps the epoch with the best validation accuracy.
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
        perturb: None,
        score: &mut |model, _| accuracy(model, validation),
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

/// Share of the samples that the model decides right.
pub(crate) fn accuracy(model: &dyn DifferentiableModel, data: &Dataset) -> Result<f64, nocebo_core::Error> {
    let outputs = model.outputs(data.samples())?;
    let decided = outputs.rows().map(|logits| model.spec().task.decide(logits));
    Ok(decided.zip(data.labels()).filter(|(decision, label)| decision == *label).count() as f64 / data.len() as f64)
}

/// Writes a graph with its spec.
pub(crate) fn save(mut graph: Graph, spec: &ModelSpec, path: &Path) -> Result<(), Failure> {
    graph.set_spec(spec).or_incomplete()?;
    onnx::write(&graph, path).or_incomplete()
}
