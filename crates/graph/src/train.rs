//! Training a graph: cross-entropy, Adam or SGD, cosine schedule, the best checkpoint kept.
//!
//! The loop knows nothing of attacks. Whoever trains against them gives [`Training::perturb`], which sees the network
//! as it stands (batch norm by its running statistics) and returns the batch to learn from, and [`Training::score`],
//! which says how good a checkpoint is.

use std::collections::BTreeMap;
use std::sync::Arc;

use nocebo_core::{
    DifferentiableModel, Goal, GoalObjective, Label, Loss, ModelSpec, Objective, Samples, Seed, Segmentation, Task,
};
use rand::RngExt;
use rand::seq::SliceRandom;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::edit::matches;
use crate::executor::{Execution, Executor, Mode, no_gradient};
use crate::value::{DeviceTensor, Value};
use crate::{Device, Dimension, Error, Graph, GraphModel, Tensor};

/// Most samples of a part of a batch. The parts run at the same time on as many threads as there are; batch norm takes
/// its statistics over each part. The size is fixed, so that the number of threads changes no result.
const PART: usize = 32;

/// Positions in a part of a batch of masks, from which it holds fewer than [`PART`] samples, down to two.
const PART_POSITIONS: usize = 1 << 15;

/// How weights follow their gradients.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Optimizer {
    /// Adam with β₁ = 0.9, β₂ = 0.999, ε = 1e-8 (Kingma & Ba 2015, arXiv:1412.6980).
    #[default]
    Adam,
    /// Stochastic gradient descent with momentum 0.9.
    Sgd,
}

/// Settings of a training run.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainingConfig {
    /// Passes over the training samples; at least 1.
    pub epochs: usize,
    /// Samples an optimiser step; at least 2, since batch norm needs a spread. It takes its statistics over equal parts of
    /// at most 32 samples.
    pub batch_size: usize,
    /// Greatest learning rate; falls to 0 along half a cosine. Finite and above 0.
    pub learning_rate: f32,
    /// Optimiser.
    pub optimizer: Optimizer,
    /// Fraction of a weight that each step takes away, times the learning rate; at least 0.
    pub weight_decay: f32,
    /// Random shifts of images by up to this many pixels, edges repeated.
    pub shift: usize,
    /// Random left-right flips of images.
    pub flip: bool,
    /// Learn masks from random parts of the samples, with at most this many positions along each side; an epoch takes as
    /// many parts of each sample as cover it. 0 for whole samples.
    pub crop: usize,
    /// Samples an epoch, drawn with replacement, a label in proportion to the square root of its frequency; 0 for every
    /// sample once.
    pub balanced: usize,
    /// Stop after this many epochs without a better score; 0 for never.
    pub patience: usize,
    /// Keep batch norm at its running statistics.
    pub freeze_batch_norm: bool,
    /// Parameters whose names are of one of these forms stay as they are; `*` stands for any characters, `?` for one. Each
    /// form must fit a parameter.
    pub frozen: Vec<String>,
}

impl Default for TrainingConfig {
    /// Values chosen here for small medical images.
    fn default() -> Self {
        Self {
            epochs: 3,
            batch_size: 64,
            learning_rate: 1e-3,
            optimizer: Optimizer::Adam,
            weight_decay: 0.0,
            shift: 0,
            flip: false,
            crop: 0,
            balanced: 0,
            patience: 0,
            freeze_batch_norm: false,
            frozen: Vec::new(),
        }
    }
}

impl TrainingConfig {
    fn check(&self, task: &Task) -> Result<(), Error> {
        let invalid = |field, must_be, got: &dyn ToString| {
            Err(nocebo_core::Error::invalid(field, must_be, got.to_string()).into())
        };
        if self.epochs == 0 {
            return invalid("epochs", "at least 1", &self.epochs);
        }
        if self.batch_size < 2 {
            return invalid("batch_size", "at least 2", &self.batch_size);
        }
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            return invalid("learning_rate", "finite and above 0", &self.learning_rate);
        }
        if self.crop > 0 && !matches!(task, Task::Segmentation(_)) {
            return invalid("crop", "0 where a sample has one label, which a part of it may not show", &self.crop);
        }
        if !(self.weight_decay.is_finite() && self.weight_decay >= 0.0) {
            return invalid("weight_decay", "finite and at least 0", &self.weight_decay);
        }
        Ok(())
    }
}

/// Labelled samples.
#[derive(Clone, Copy, Debug)]
pub struct Labelled<'a> {
    /// Samples in the unit of the model's domain.
    pub samples: &'a Samples,
    /// One label a sample.
    pub labels: &'a [Label],
}

/// What a run tells while it works.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// An optimiser step is done.
    Step {
        /// Steps done.
        done: usize,
        /// Steps of the whole run.
        of: usize,
        /// Mean loss of the batch.
        loss: f32,
    },
    /// An epoch is done.
    Epoch {
        /// Epochs done.
        done: usize,
        /// Mean loss over the epoch.
        loss: f32,
        /// Score of the network now.
        score: f64,
        /// Whether it is the best so far.
        best: bool,
    },
}

/// What one epoch was like.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct EpochRecord {
    /// Number of the epoch, from 1.
    pub epoch: usize,
    /// Mean training loss.
    pub loss: f32,
    /// Score on validation.
    pub score: f64,
}

/// The best network of a run, and how it came about.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The network with the weights of the best epoch.
    pub graph: Graph,
    /// All epochs.
    pub epochs: Vec<EpochRecord>,
    /// Number of the best epoch, from 1.
    pub best_epoch: usize,
}

/// Makes the batch to learn from out of a clean one with its labels; it may have another number of samples.
pub type Perturb<'a> = dyn Fn(&dyn DifferentiableModel, Samples, Vec<Label>, Seed) -> Result<(Samples, Vec<Label>), nocebo_core::Error>
    + 'a;

/// Says how good a checkpoint is after an epoch (numbered from 1): greater is better.
pub type Score<'a> = dyn FnMut(&dyn DifferentiableModel, usize) -> Result<f64, nocebo_core::Error> + 'a;

/// Makes a model of the network as it stands, for [`Training::perturb`] and [`Training::score`].
pub type Freeze<'a> = dyn Fn(Graph, ModelSpec) -> Result<Box<dyn DifferentiableModel>, Error> + 'a;

/// A training run to be carried out.
pub struct Training<'a> {
    /// Settings.
    pub config: &'a TrainingConfig,
    /// Inputs and task of the network.
    pub spec: &'a ModelSpec,
    /// Where the network runs.
    pub device: &'a Device,
    /// Source of randomness: order, augmentation, attacks.
    pub seed: Seed,
    /// What computes the network where it does not learn; `None` for a [`GraphModel`].
    pub freeze: Option<&'a Freeze<'a>>,
    /// Adversarial training, if any.
    pub perturb: Option<&'a Perturb<'a>>,
    /// Score of a checkpoint.
    pub score: &'a mut Score<'a>,
    /// Told after every step and epoch.
    pub observe: &'a mut dyn FnMut(Event),
}

impl Training<'_> {
    /// Trains `graph` on `data`.
    ///
    /// # Errors
    ///
    /// Settings out of range, labels that do not belong to the task, samples of another shape, fewer samples than a
    /// batch of two, no trainable parameter, and a loss that is not finite.
    pub fn run(self, graph: &Graph, data: Labelled<'_>) -> Result<Trained, Error> {
        self.config.check(&self.spec.task)?;
        self.spec.domain.check(data.samples)?;
        if data.labels.len() != data.samples.len() {
            return Err(nocebo_core::Error::mismatch("number of labels", data.samples.len(), data.labels.len()).into());
        }
        data.labels.iter().try_for_each(|label| self.spec.task.check_label(label))?;
        if data.samples.len() < 2 {
            return Err(Error::Training(format!("2 samples at least are needed, got {}", data.samples.len())));
        }
        let original = graph;
        let mut graph = original.up_to_logits(&self.spec.task);
        let (spec, parts) = cropped(self.spec, self.config.crop)?;
        if self.config.crop > 0 {
            open_sides(&mut graph);
        }
        let executor = Executor::new(graph.clone(), self.device)?;
        let learner = Learner { executor, config: self.config, spec: &spec, device: self.device };
        let mut weights = Weights::of(&graph, &self.config.frozen)?;
        let rule =
            Rule { optimizer: self.config.optimizer, momentum: MOMENTUM, weight_decay: self.config.weight_decay };
        if weights.values.is_empty() {
            return Err(Error::Training("the network has no parameter that may change".to_owned()));
        }
        let samples = data.samples.len();
        let an_epoch = if self.config.balanced > 0 { self.config.balanced } else { samples * parts };
        let steps_an_epoch = an_epoch.div_ceil(self.config.batch_size);
        let total = steps_an_epoch * self.config.epochs;
        let mut best: Option<(f64, usize, Graph)> = None;
        let mut epochs = Vec::new();
        for epoch in 1..=self.config.epochs {
            let seed = self.seed.named("epoch").stream(epoch as u64);
            let mut loss_sum = 0.0;
            let order = order(data.labels, parts, self.config.balanced, seed);
            for (step, places) in batches(&order, self.config.batch_size).enumerate() {
                let done = (epoch - 1) * steps_an_epoch + step;
                let rows: Vec<usize> = places.iter().map(|place| place % samples).collect();
                let mut labels: Vec<Label> = rows.iter().map(|&row| data.labels[row].clone()).collect();
                let mut batch = data.samples.select(&rows);
                if self.config.crop > 0 {
                    let seeds = places.iter().map(|place| seed.named("crop").stream((place / samples) as u64));
                    (batch, labels) = crop(&batch, &labels, spec.domain.shape(), seeds)?;
                }
                augment(&mut batch, &mut labels, self.config, seed.named("augmentation"));
                if let Some(perturb) = self.perturb {
                    weights.write_to(&mut graph)?;
                    let model = self.frozen(&graph, &spec)?;
                    (batch, labels) = perturb(model.as_ref(), batch, labels, seed.named("perturb"))?;
                    if batch.len() < 2 || batch.len() != labels.len() || batch.shape() != spec.domain.shape() {
                        let got =
                            format!("{} samples of shape {:?} and {} labels", batch.len(), batch.shape(), labels.len());
                        return Err(Error::Training(format!(
                            "a perturbed batch needs 2 samples at least, of the model's shape and with a label each, got {got}"
                        )));
                    }
                }
                let pass = learner.pass(&weights, &batch, &labels, seed.named("dropout").stream(step as u64))?;
                follow(&mut graph, &pass.statistics)?;
                let rate = self.config.learning_rate * cosine(done, total);
                weights.step(&pass.gradients, rate, rule);
                loss_sum += f64::from(pass.loss) * places.len() as f64;
                (self.observe)(Event::Step { done: done + 1, of: total, loss: pass.loss });
            }
            weights.write_to(&mut graph)?;
            let model = self.frozen(&graph, self.spec)?;
            let score = (self.score)(model.as_ref(), epoch)?;
            let loss = (loss_sum / an_epoch as f64) as f32;
            let better = !score.is_nan() && best.as_ref().is_none_or(|(best, ..)| score > *best);
            (self.observe)(Event::Epoch { done: epoch, loss, score, best: better });
            epochs.push(EpochRecord { epoch, loss, score });
            if better {
                best = Some((score, epoch, graph.clone()));
            }
            let best_epoch = best.as_ref().map_or(epoch, |(_, epoch, _)| *epoch);
            if self.config.patience > 0 && epoch - best_epoch >= self.config.patience {
                break;
            }
        }
        match best {
            Some((_, best_epoch, learnt)) => {
                let mut graph = original.clone();
                graph.constants.extend(learnt.constants);
                Ok(Trained { graph, epochs, best_epoch })
            }
            None => Err(Error::Training("no epoch had a score that is a number".to_owned())),
        }
    }
}

impl Training<'_> {
    /// The network as it stands.
    fn frozen(&self, graph: &Graph, spec: &ModelSpec) -> Result<Box<dyn DifferentiableModel>, Error> {
        match self.freeze {
            Some(freeze) => freeze(graph.clone(), spec.clone()),
            None => Ok(Box::new(GraphModel::new(graph.clone(), spec.clone(), self.device)?)),
        }
    }
}

/// What the passes over a batch need; unlike [`Training`] it can be shared among threads.
struct Learner<'a> {
    executor: Executor,
    config: &'a TrainingConfig,
    spec: &'a ModelSpec,
    device: &'a Device,
}

impl Learner<'_> {
    /// One forward and one backward pass in training mode: the parts of the batch at the same time, their results added
    /// up in order.
    fn pass(&self, weights: &Weights, batch: &Samples, labels: &[Label], seed: Seed) -> Result<Pass, Error> {
        let constants: BTreeMap<&String, DeviceTensor> = weights
            .values
            .iter()
            .map(|(name, values)| {
                let shape = self.executor.graph().constants[name].shape();
                (name, DeviceTensor::new(values.clone(), shape, self.device))
            })
            .collect();
        let most = match &self.spec.task {
            Task::Segmentation(task) => (PART_POSITIONS / task.positions()).clamp(2, PART),
            _ => PART,
        };
        let parts = (batch.len() / 2).min(batch.len().div_ceil(most)).max(1);
        let part = |number: usize| -> Result<(f32, Pass), Error> {
            let rows = number * batch.len() / parts..(number + 1) * batch.len() / parts;
            let share = rows.len() as f32 / batch.len() as f32;
            let samples = batch.select(&rows.clone().collect::<Vec<_>>());
            let pass = self.part(&constants, &samples, &labels[rows], seed.stream(number as u64))?;
            Ok((share, pass))
        };
        let passes: Vec<(f32, Pass)> = (0..parts).into_par_iter().map(part).collect::<Result<_, _>>()?;
        let mut whole = Pass::default();
        for (share, pass) in passes {
            whole.add(share, pass);
        }
        if let Some((name, _)) =
            whole.gradients.iter().find(|(_, values)| values.iter().any(|value| !value.is_finite()))
        {
            return Err(Error::Training(format!("the gradient of `{name}` is not finite; lower the learning rate")));
        }
        Ok(whole)
    }

    fn part(
        &self,
        constants: &BTreeMap<&String, DeviceTensor>,
        samples: &Samples,
        labels: &[Label],
        seed: Seed,
    ) -> Result<Pass, Error> {
        let mut shape = vec![samples.len()];
        shape.extend_from_slice(samples.shape());
        let input = DeviceTensor::new(samples.values().to_vec(), &shape, self.device);
        let leaves: BTreeMap<&String, DeviceTensor> =
            constants.iter().map(|(name, tensor)| (*name, tensor.clone().tracked())).collect();
        let replaced = leaves.iter().map(|(name, leaf)| ((*name).clone(), Value::floats(leaf.clone()))).collect();
        let mode = Mode { batch_statistics: !self.config.freeze_batch_norm, dropout: Some(seed) };
        let Execution { outputs, statistics, cuts } = self.executor.run(vec![Value::floats(input)], &replaced, mode)?;
        let Value::Device(logits, _) = &outputs[0] else { return Err(no_gradient("the parameters", &cuts)) };
        let read =
            |tensor: &DeviceTensor| tensor.to_floats().map_err(|reason| Error::graph("training", "values", reason));
        let (loss, cotangent) = loss(&self.spec.task, &read(logits)?, labels)?;
        if !logits.is_tracked() {
            return Err(no_gradient("the parameters", &cuts));
        }
        let cotangent = DeviceTensor::new(cotangent, &logits.shape(), self.device);
        let mut pulled = logits.mul(&cotangent).total().backward();
        let mut gradients = BTreeMap::new();
        for (name, leaf) in leaves {
            // A parameter that no output reads has no gradient and stays as it is.
            if let Some(gradient) = leaf.gradient(&mut pulled) {
                gradients.insert(name.clone(), read(&gradient)?);
            }
        }
        let statistics = statistics
            .iter()
            .map(|(name, momentum, tensor)| Ok((name.clone(), *momentum, read(tensor)?)))
            .collect::<Result<_, Error>>()?;
        Ok(Pass { loss, gradients, statistics })
    }
}

/// Loss, gradients and batch statistics (name, momentum, values), as means over samples.
#[derive(Default)]
struct Pass {
    loss: f32,
    gradients: BTreeMap<String, Vec<f32>>,
    statistics: Vec<(String, f32, Vec<f32>)>,
}

impl Pass {
    /// Adds the means over another part of the batch, which holds `share` of its samples.
    fn add(&mut self, share: f32, other: Self) {
        fn add(sum: &mut Vec<f32>, share: f32, values: Vec<f32>) {
            if sum.is_empty() {
                sum.resize(values.len(), 0.0);
            }
            for (sum, value) in sum.iter_mut().zip(values) {
                *sum += share * value;
            }
        }
        self.loss += share * other.loss;
        for (name, values) in other.gradients {
            add(self.gradients.entry(name).or_default(), share, values);
        }
        if self.statistics.is_empty() {
            self.statistics =
                other.statistics.iter().map(|(name, momentum, _)| (name.clone(), *momentum, Vec::new())).collect();
        }
        for ((_, _, sum), (_, _, values)) in self.statistics.iter_mut().zip(other.statistics) {
            add(sum, share, values);
        }
    }
}

/// Mean cross-entropy of a batch and its derivative by the logits.
fn loss(task: &Task, logits: &[f32], labels: &[Label]) -> Result<(f32, Vec<f32>), Error> {
    let width = task.outputs();
    if logits.len() != width * labels.len() {
        let got = format!("{} values for {} samples", logits.len(), labels.len());
        return Err(Error::graph("output of the network", format!("{width} logits a sample"), got));
    }
    let share = 1.0 / labels.len() as f64;
    let mut sum = 0.0;
    let mut cotangent = vec![0.0; logits.len()];
    for (row, label) in labels.iter().enumerate() {
        let logits = &logits[row * width..(row + 1) * width];
        let slopes = &mut cotangent[row * width..(row + 1) * width];
        match (task, label) {
            (Task::MultiClass { .. } | Task::Ordinal { .. }, Label::Class(class)) => {
                let greatest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
                let exponentials: Vec<f64> = logits.iter().map(|&logit| (f64::from(logit) - greatest).exp()).collect();
                let total: f64 = exponentials.iter().sum();
                sum += share * (total.ln() + greatest - f64::from(logits[*class]));
                for (other, slope) in slopes.iter_mut().enumerate() {
                    let wanted = f64::from(u8::from(other == *class));
                    *slope = (share * (exponentials[other] / total - wanted)) as f32;
                }
            }
            (Task::Segmentation(_), Label::Mask(_)) | (Task::Regression { .. }, Label::Number(_)) => {
                // What an untargeted attack raises: the mean of −log p over the positions, half the squared error.
                let goal = Goal::Untargeted { labels: vec![label.clone()] };
                let objective = GoalObjective::new(&goal, task, Loss::CrossEntropy)?;
                sum += share * f64::from(objective.evaluate(0, logits, slopes)?);
                slopes.iter_mut().for_each(|slope| *slope *= share as f32);
            }
            (Task::Binary { .. }, Label::Class(class)) => {
                sum += share * flag(logits[0], *class == 1, share, &mut slopes[0]);
            }
            (Task::MultiLabel { .. }, Label::Findings(found)) => {
                for ((logit, found), slope) in logits.iter().zip(found).zip(slopes) {
                    sum += share * flag(*logit, *found, share, slope);
                }
            }
            (task, label) => {
                return Err(
                    nocebo_core::Error::mismatch("label", format!("one of {task:?}"), format!("{label:?}")).into()
                );
            }
        }
    }
    if sum.is_finite() {
        Ok((sum as f32, cotangent))
    } else {
        Err(Error::Training(
            "the loss is not finite; lower the learning rate, or look for NaN in data and weights".to_owned(),
        ))
    }
}

/// Binary cross-entropy of one logit, stable for any logit; writes `share` times its derivative.
fn flag(logit: f32, present: bool, share: f64, slope: &mut f32) -> f64 {
    let logit = f64::from(logit);
    let wanted = f64::from(u8::from(present));
    let exponential = (-logit.abs()).exp();
    let probability = if logit >= 0.0 { 1.0 / (1.0 + exponential) } else { exponential / (1.0 + exponential) };
    *slope = (share * (probability - wanted)) as f32;
    logit.max(0.0) - logit * wanted + exponential.ln_1p()
}

/// The places of an epoch in an order drawn from the seed: place p is part `p / samples` of sample `p % samples`.
fn order(labels: &[Label], parts: usize, balanced: usize, seed: Seed) -> Vec<usize> {
    let mut generator = seed.for_sample(0);
    if balanced == 0 {
        let mut places: Vec<usize> = (0..labels.len() * parts).collect();
        places.shuffle(&mut generator);
        return places;
    }
    let mut rows: BTreeMap<&Label, Vec<usize>> = BTreeMap::new();
    for (row, label) in labels.iter().enumerate() {
        rows.entry(label).or_default().push(row);
    }
    let rows: Vec<Vec<usize>> = rows.into_values().collect();
    let total: f64 = rows.iter().map(|rows| (rows.len() as f64).sqrt()).sum();
    let mut draw = || {
        let mut left = generator.random::<f64>() * total;
        let drawn = rows.iter().find(|rows| {
            left -= (rows.len() as f64).sqrt();
            left < 0.0
        });
        // Rounding may leave a little at the end.
        let rows = drawn.unwrap_or(&rows[rows.len() - 1]);
        let row = rows[generator.random_range(0..rows.len())];
        row + labels.len() * generator.random_range(0..parts)
    };
    (0..balanced).map(|_| draw()).collect()
}

/// The places of each batch. A last batch of one place joins the one before.
fn batches(order: &[usize], batch_size: usize) -> impl Iterator<Item = Vec<usize>> {
    let mut batches: Vec<Vec<usize>> = order.chunks(batch_size).map(<[usize]>::to_vec).collect();
    if batches.len() > 1
        && let Some(last) = batches.pop_if(|last| last.len() == 1)
        && let Some(before) = batches.last_mut()
    {
        before.extend(last);
    }
    batches.into_iter()
}

/// From 1 at the start to 0 at the end.
fn cosine(done: usize, total: usize) -> f32 {
    (0.5 * (1.0 + (std::f64::consts::PI * done as f64 / total as f64).cos())) as f32
}

/// What the network takes and decides on parts of at most `crop` positions a side, and how many parts cover a sample.
fn cropped(spec: &ModelSpec, crop: usize) -> Result<(ModelSpec, usize), Error> {
    let Task::Segmentation(task) = &spec.task else { return Ok((spec.clone(), 1)) };
    if crop == 0 {
        return Ok((spec.clone(), 1));
    }
    let mut config = spec.domain.config().clone();
    if config.shape[1..] != task.shape {
        let expected = format!("masks of {:?}, the sides of a sample", &config.shape[1..]);
        return Err(Error::graph("task to train on parts", expected, format!("{:?}", task.shape)));
    }
    config.region = None;
    let covering = config.shape[1..].iter().map(|side| side.div_ceil(crop)).product();
    config.shape[1..].iter_mut().for_each(|side| *side = crop.min(*side));
    let task = Segmentation { shape: config.shape[1..].to_vec(), ..task.clone() };
    let spec =
        ModelSpec { domain: config.try_into()?, task: Task::Segmentation(task), class_names: spec.class_names.clone() };
    Ok((spec, covering))
}

/// Leaves the sides of the samples open, so that the network runs on parts and on wholes.
fn open_sides(graph: &mut Graph) {
    if let Some(shape) = graph.inputs.first_mut().and_then(|input| input.shape.as_mut()) {
        for (axis, side) in shape.iter_mut().enumerate().skip(2) {
            *side = Dimension::Symbolic(format!("side {}", axis - 1));
        }
    }
}

/// A random part of each sample and its mask, at a place drawn from (the row's seed, its index).
fn crop(
    batch: &Samples,
    labels: &[Label],
    shape: &[usize],
    seeds: impl Iterator<Item = Seed>,
) -> Result<(Samples, Vec<Label>), Error> {
    let (whole, part) = (&batch.shape()[1..], &shape[1..]);
    let positions: usize = part.iter().product();
    let mut values = Vec::with_capacity(batch.len() * shape[0] * positions);
    let mut masks = Vec::with_capacity(batch.len());
    for (row, (label, seed)) in labels.iter().zip(seeds).enumerate() {
        let mut generator = seed.for_sample(batch.indices()[row]);
        let corner: Vec<usize> =
            whole.iter().zip(part).map(|(whole, part)| generator.random_range(0..=whole - part)).collect();
        let source = |position: usize| {
            let (mut rest, mut source, mut stride) = (position, 0, 1);
            for axis in (0..part.len()).rev() {
                source += (corner[axis] + rest % part[axis]) * stride;
                rest /= part[axis];
                stride *= whole[axis];
            }
            source
        };
        let sources: Vec<usize> = (0..positions).map(source).collect();
        let view = batch.view(row);
        for channel in 0..view.channels() {
            values.extend(sources.iter().map(|&source| view.channel(channel)[source]));
        }
        masks.push(match label {
            Label::Mask(mask) => Label::Mask(sources.iter().map(|&source| mask[source]).collect()),
            other => other.clone(),
        });
    }
    Ok((Samples::new(values, shape)?.with_indices(batch.indices().to_vec())?, masks))
}

/// Shifts and flips images with their masks; each sample by a draw from (seed, its index).
fn augment(batch: &mut Samples, labels: &mut [Label], config: &TrainingConfig, seed: Seed) {
    let &[_, height, width] = batch.shape() else { return };
    if config.shift == 0 && !config.flip {
        return;
    }
    let indices = batch.indices().to_vec();
    for ((row, label), index) in batch.rows_mut().zip(labels).zip(indices) {
        let mut generator = seed.for_sample(index);
        let reach = config.shift as i64;
        let (down, right) = (generator.random_range(-reach..=reach), generator.random_range(-reach..=reach));
        let mirror = config.flip && generator.random();
        let from = |at: usize| {
            let (plane, y, x) = (at / (height * width), at / width % height, at % width);
            let x = if mirror { width - 1 - x } else { x };
            let from_y = y.saturating_add_signed(-down as isize).min(height - 1);
            let from_x = x.saturating_add_signed(-right as isize).min(width - 1);
            (plane * height + from_y) * width + from_x
        };
        let source = row.to_vec();
        row.iter_mut().enumerate().for_each(|(at, value)| *value = source[from(at)]);
        if let Label::Mask(mask) = label
            && mask.len() == height * width
        {
            *mask = (0..mask.len()).map(|at| mask[from(at)]).collect();
        }
    }
}

/// β₁ of Adam and the momentum of SGD.
const MOMENTUM: f32 = 0.9;

/// How a step follows its gradients.
#[derive(Clone, Copy)]
pub(crate) struct Rule {
    pub(crate) optimizer: Optimizer,
    pub(crate) momentum: f32,
    pub(crate) weight_decay: f32,
}

/// Trainable weights on the host with the state of their optimiser.
pub(crate) struct Weights {
    pub(crate) values: BTreeMap<String, Vec<f32>>,
    first: BTreeMap<String, Vec<f32>>,
    second: BTreeMap<String, Vec<f32>>,
    steps: i32,
}

impl Weights {
    pub(crate) fn of(graph: &Graph, frozen: &[String]) -> Result<Self, Error> {
        let parameters = graph.parameters();
        if let Some(unused) = frozen.iter().find(|form| !parameters.iter().any(|name| matches(form, name))) {
            let examples: Vec<&str> = parameters.iter().take(3).copied().collect();
            let got = format!("`{unused}`, which fits none of {}, ...", examples.join(", "));
            return Err(nocebo_core::Error::invalid("frozen", "the form of a parameter's name", got).into());
        }
        let free = |name: &&str| !frozen.iter().any(|form| matches(form, name));
        let values: BTreeMap<String, Vec<f32>> = parameters
            .into_iter()
            .filter(free)
            .map(|name| (name.to_owned(), graph.constants[name].to_f32().into_owned()))
            .collect();
        let zeros: BTreeMap<String, Vec<f32>> =
            values.iter().map(|(name, values)| (name.clone(), vec![0.0; values.len()])).collect();
        Ok(Self { values, first: zeros.clone(), second: zeros, steps: 0 })
    }

    pub(crate) fn write_to(&self, graph: &mut Graph) -> Result<(), Error> {
        self.values.iter().try_for_each(|(name, values)| replace(graph, name, values.clone()))
    }

    /// One step of the optimiser with decoupled weight decay.
    pub(crate) fn step(&mut self, gradients: &BTreeMap<String, Vec<f32>>, rate: f32, rule: Rule) {
        const BETA_2: f32 = 0.999;
        let Rule { optimizer, momentum, weight_decay } = rule;
        self.steps += 1;
        let (bias_1, bias_2) = (1.0 - momentum.powi(self.steps), 1.0 - BETA_2.powi(self.steps));
        let Self { values, first, second, .. } = self;
        // All three maps have the same keys in the same order.
        let states: Vec<_> = values.iter_mut().zip(first.values_mut().zip(second.values_mut())).collect();
        states.into_par_iter().for_each(|((name, values), (first, second))| {
            let Some(gradient) = gradients.get(name) else { return };
            for (((value, slope), first), second) in values.iter_mut().zip(gradient).zip(first).zip(second) {
                *value -= rate * weight_decay * *value;
                match optimizer {
                    Optimizer::Adam => {
                        *first = momentum * *first + (1.0 - momentum) * slope;
                        *second = BETA_2 * *second + (1.0 - BETA_2) * slope * slope;
                        *value -= rate * (*first / bias_1) / ((*second / bias_2).sqrt() + 1e-8);
                    }
                    Optimizer::Sgd => {
                        *first = momentum * *first + slope;
                        *value -= rate * *first;
                    }
                }
            }
        });
    }
}

/// Moves the running statistics of batch norm towards those of a batch.
fn follow(graph: &mut Graph, statistics: &[(String, f32, Vec<f32>)]) -> Result<(), Error> {
    for (name, momentum, batch) in statistics {
        let running = graph.constants.get(name).map(|tensor| tensor.to_f32().into_owned()).unwrap_or_default();
        let moved = running.iter().zip(batch).map(|(running, batch)| momentum * running + (1.0 - momentum) * batch);
        let moved = moved.collect();
        replace(graph, name, moved)?;
    }
    Ok(())
}

fn replace(graph: &mut Graph, name: &str, values: Vec<f32>) -> Result<(), Error> {
    let Some(old) = graph.constants.get(name) else {
        return Err(Error::graph("constants of the graph", format!("`{name}`"), "none of that name"));
    };
    let new = Tensor::floats(old.shape(), values)
        .map_err(|reason| Error::graph(format!("constant `{name}`"), "its shape", reason))?;
    graph.constants.insert(name.to_owned(), Arc::new(new));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zoo::{self, Blueprint};
    use nocebo_core::{Domain, MaskTolerance};

    /// Bright squares on the left (class 0) or the right (class 1) of 8×8 images, with noise.
    fn squares(count: usize) -> (Samples, Vec<Label>) {
        let mut values = Vec::new();
        let mut labels = Vec::new();
        for index in 0..count {
            let mut generator = Seed(5).for_sample(index as u64);
            let right = index % 2 == 1;
            for at in 0..64 {
                let (y, x) = (at / 8, at % 8);
                let inside = (2..6).contains(&y) && if right { (5..7).contains(&x) } else { (1..3).contains(&x) };
                let base = if inside { 150.0 } else { 80.0 };
                values.push(base + generator.random_range(-40.0_f32..40.0));
            }
            labels.push(Label::Class(usize::from(right)));
        }
        (Samples::new(values, &[1, 8, 8]).unwrap(), labels)
    }

    fn spec(task: Task) -> ModelSpec {
        let class_names = (0..task.classes()).map(|class| format!("class {class}")).collect();
        ModelSpec { domain: Domain::grey_levels(&[1, 8, 8], 255.0).unwrap(), task, class_names }
    }

    fn accuracy(
        model: &dyn DifferentiableModel,
        samples: &Samples,
        labels: &[Label],
    ) -> Result<f64, nocebo_core::Error> {
        let outputs = model.outputs(samples)?;
        let right = outputs.rows().zip(labels).filter(|(logits, label)| model.spec().task.decide(logits) == **label);
        Ok(right.count() as f64 / labels.len() as f64)
    }

    fn train(name: &str, spec: &ModelSpec, config: &TrainingConfig) -> Result<Trained, Error> {
        let (samples, labels) = squares(64);
        let (held_out, truth) = squares(32);
        let blueprint = Blueprint { spec, mean: &[90.0], standard_deviation: &[40.0], seed: Seed(1) };
        let graph = zoo::build(name, &blueprint)?;
        Training {
            config,
            spec,
            device: &Device::default(),
            seed: Seed(2),
            freeze: None,
            perturb: None,
            score: &mut |model, _| accuracy(model, &held_out, &truth),
            observe: &mut |_| {},
        }
        .run(&graph, Labelled { samples: &samples, labels: &labels })
    }

    #[test]
    fn learns_squares_with_either_optimiser_and_head() {
        let adam = TrainingConfig { epochs: 6, batch_size: 16, learning_rate: 1e-2, ..TrainingConfig::default() };
        let sgd = TrainingConfig { optimizer: Optimizer::Sgd, ..adam.clone() };
        for (name, task, config) in [
            ("small-cnn", Task::MultiClass { classes: 2 }, &adam),
            ("mlp", Task::MultiClass { classes: 2 }, &sgd),
            ("mlp", Task::Binary { threshold: 0.0 }, &adam),
        ] {
            let trained = train(name, &spec(task.clone()), config).unwrap();
            let best = trained.epochs[trained.best_epoch - 1].score;
            assert!(best > 0.95, "{name} {task:?} {:?}: {:?}", config.optimizer, trained.epochs);
            assert!(trained.epochs[5].loss < trained.epochs[0].loss);
        }
    }

    #[test]
    fn a_run_repeats_to_the_bit_and_frozen_weights_stay() {
        let config = TrainingConfig {
            epochs: 1,
            batch_size: 16,
            frozen: vec!["conv1.*".to_owned()],
            shift: 1,
            flip: true,
            ..TrainingConfig::default()
        };
        let spec = spec(Task::MultiClass { classes: 2 });
        let (one, two) = (train("small-cnn", &spec, &config).unwrap(), train("small-cnn", &spec, &config).unwrap());
        assert_eq!(one.graph.constants, two.graph.constants);
        let blueprint = Blueprint { spec: &spec, mean: &[90.0], standard_deviation: &[40.0], seed: Seed(1) };
        let start = zoo::build("small-cnn", &blueprint).unwrap();
        assert_eq!(one.graph.constants["conv1.weight"], start.constants["conv1.weight"]);
        assert_ne!(one.graph.constants["conv2.weight"], start.constants["conv2.weight"]);
        assert_ne!(one.graph.constants["bn1.running_mean"], start.constants["bn1.running_mean"]);
        let config = TrainingConfig { freeze_batch_norm: true, frozen: vec!["*.bias".to_owned()], ..config };
        let three = train("small-cnn", &spec, &config).unwrap();
        for (name, constant) in &start.constants {
            let trained = name.ends_with(".weight");
            assert_eq!(three.graph.constants[name] != *constant, trained, "{name}");
        }
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let config = TrainingConfig { epochs: 1, batch_size: 40, ..TrainingConfig::default() };
        let spec = spec(Task::MultiClass { classes: 2 });
        let with_threads = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| train("small-cnn", &spec, &config)).unwrap().graph
        };
        assert_eq!(with_threads(1).constants, with_threads(2).constants);
    }

    #[test]
    fn a_final_softmax_is_left_out_of_the_loss_and_kept_in_the_network() {
        let config = TrainingConfig { epochs: 1, batch_size: 16, ..TrainingConfig::default() };
        let spec = spec(Task::MultiClass { classes: 2 });
        let blueprint = Blueprint { spec: &spec, mean: &[90.0], standard_deviation: &[40.0], seed: Seed(1) };
        let plain = zoo::build("mlp", &blueprint).unwrap();
        let mut with_softmax = plain.clone();
        with_softmax.nodes.push(crate::Node {
            name: "probabilities".to_owned(),
            operator: crate::operators::Softmax::LAST.into(),
            inputs: plain.outputs.clone(),
            outputs: vec!["probabilities".to_owned()],
        });
        with_softmax.outputs = vec!["probabilities".to_owned()];
        let (samples, labels) = squares(32);
        let train = |graph: &Graph| {
            let run = Training {
                config: &config,
                spec: &spec,
                device: &Device::default(),
                seed: Seed(2),
                freeze: None,
                perturb: None,
                score: &mut |model, _| accuracy(model, &samples, &labels),
                observe: &mut |_| {},
            };
            run.run(graph, Labelled { samples: &samples, labels: &labels }).unwrap().graph
        };
        let (one, other) = (train(&plain), train(&with_softmax));
        assert_eq!(one.constants, other.constants);
        assert_eq!(other.nodes.len(), plain.nodes.len() + 1);
    }

    #[test]
    fn unusable_settings_and_labels_are_refused() {
        let two = spec(Task::MultiClass { classes: 2 });
        for config in [
            TrainingConfig { epochs: 0, ..TrainingConfig::default() },
            TrainingConfig { batch_size: 1, ..TrainingConfig::default() },
            TrainingConfig { learning_rate: f32::NAN, ..TrainingConfig::default() },
            TrainingConfig { frozen: vec!["*".to_owned()], ..TrainingConfig::default() },
            TrainingConfig { frozen: vec!["conv9.*".to_owned()], ..TrainingConfig::default() },
        ] {
            assert!(train("mlp", &two, &config).is_err(), "{config:?}");
        }
        let findings = spec(Task::MultiLabel { thresholds: vec![0.0] });
        let message = train("mlp", &findings, &TrainingConfig::default()).unwrap_err().to_string();
        assert!(message.contains("1 findings"), "{message}");
    }

    #[test]
    fn losses_have_hand_computed_values_and_derivatives() {
        let (value, slopes) =
            loss(&Task::MultiClass { classes: 2 }, &[0.0, 0.0, 1.0, 0.0], &[Label::Class(0), Label::Class(1)]).unwrap();
        assert!((value - 0.5 * (2.0_f32.ln() + 1.313_261_7)).abs() < 1e-6);
        assert!((slopes[0] + 0.25).abs() < 1e-6 && (slopes[2] - 0.5 * 0.731_058_6).abs() < 1e-6);
        let (value, slopes) = loss(&Task::Binary { threshold: 0.0 }, &[-100.0], &[Label::Class(1)]).unwrap();
        assert_eq!((value, slopes[0]), (100.0, -1.0));
        assert!(loss(&Task::Binary { threshold: 0.0 }, &[f32::NAN], &[Label::Class(1)]).is_err());
    }

    #[test]
    fn a_flip_mirrors_and_a_shift_repeats_the_edge() {
        let image = Samples::new((0..9).map(|v| v as f32).collect(), &[1, 3, 3]).unwrap();
        // A mask that says what the pixel shows goes with it.
        let labels = vec![Label::Mask((0..9).collect())];
        let config = TrainingConfig { flip: true, ..TrainingConfig::default() };
        let seen: Vec<Vec<f32>> = (0..20)
            .map(|seed| {
                let mut batch = image.clone();
                augment(&mut batch, &mut labels.clone(), &config, Seed(seed));
                batch.values().to_vec()
            })
            .collect();
        assert!(
            seen.contains(&vec![2.0, 1.0, 0.0, 5.0, 4.0, 3.0, 8.0, 7.0, 6.0])
                && seen.contains(&image.values().to_vec())
        );
        let config = TrainingConfig { shift: 1, ..TrainingConfig::default() };
        let down = (0..200).map(|seed| {
            let mut batch = image.clone();
            let mut mask = labels.clone();
            augment(&mut batch, &mut mask, &config, Seed(seed));
            assert_eq!(mask, [Label::Mask(batch.values().iter().map(|value| *value as u8).collect())]);
            batch.values().to_vec()
        });
        assert!(down.collect::<Vec<_>>().contains(&vec![0.0, 1.0, 2.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0]));
    }

    #[test]
    fn a_lonely_last_row_joins_the_batch_before() {
        let labels = vec![Label::Class(0); 9];
        let order = order(&labels, 1, 0, Seed(1));
        let sizes: Vec<usize> = batches(&order, 4).map(|rows| rows.len()).collect();
        assert_eq!(sizes, [4, 5]);
        let mut all: Vec<usize> = batches(&order, 4).flatten().collect();
        all.sort_unstable();
        assert_eq!(all, (0..9).collect::<Vec<_>>());
    }

    #[test]
    fn balanced_draws_follow_the_root_of_the_frequency() {
        let labels: Vec<Label> = (0..101).map(|row| Label::Class(usize::from(row == 100))).collect();
        let order = order(&labels, 1, 2200, Seed(1));
        let rare = order.iter().filter(|row| **row == 100).count();
        // One in eleven instead of one in a hundred.
        assert!((order.len() == 2200) && (150..250).contains(&rare), "{rare}");
    }

    #[test]
    fn a_part_and_its_mask_come_from_one_place() {
        let image = Samples::new((0..24).map(|v| v as f32).collect(), &[2, 3, 4]).unwrap();
        let labels = vec![Label::Mask((0..12).collect())];
        let mut corners = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let (part, masks) = crop(&image, &labels, &[2, 2, 3], [Seed(seed)].into_iter()).unwrap();
            let corner = part.values()[0];
            let expected: Vec<f32> = [0, 1, 2, 4, 5, 6].map(|offset| corner + offset as f32).to_vec();
            assert_eq!(part.values()[..6], expected);
            assert_eq!(part.values()[6], corner + 12.0);
            assert_eq!(masks, [Label::Mask(expected.iter().map(|value| *value as u8).collect())]);
            corners.insert(corner as u8);
        }
        assert_eq!(corners.into_iter().collect::<Vec<_>>(), [0, 1, 4, 5]);
    }

    #[test]
    fn a_segmentation_learns_from_parts_and_runs_on_wholes() {
        // Class 1 where a pixel is above 100.
        let values: Vec<f32> = (0..4 * 1024).map(|at| ((at * 7919) % 251) as f32).collect();
        let bright = |image: &[f32]| Label::Mask(image.iter().map(|value| u8::from(*value > 100.0)).collect());
        let labels: Vec<Label> = values.chunks(1024).map(bright).collect();
        let samples = Samples::new(values, &[1, 32, 32]).unwrap();
        let tolerance = MaskTolerance { right: 0.95, ..MaskTolerance::default() };
        let task = Segmentation { classes: 2, shape: vec![32, 32], threshold: None, tolerance };
        let spec = ModelSpec {
            domain: Domain::grey_levels(&[1, 32, 32], 255.0).unwrap(),
            task: Task::Segmentation(task),
            class_names: vec!["dark".into(), "bright".into()],
        };
        let mut b = crate::GraphBuilder::new("pixels", Seed(1));
        let x = b.input("image", &[1, 32, 32]);
        let x = b.normalization(&x, &[125.0], &[72.0], 2);
        let x = b.convolution_with_bias("one", &x, (1, 4), 3, crate::operators::Convolution::new(2, 1, 1));
        let x = b.relu("relu", &x);
        let x = b.convolution_with_bias("two", &x, (4, 2), 1, crate::operators::Convolution::new(2, 1, 0));
        let graph = b.finish(&[&x]).unwrap();
        let config = TrainingConfig {
            crop: 16,
            flip: true,
            epochs: 20,
            batch_size: 4,
            learning_rate: 0.05,
            ..TrainingConfig::default()
        };
        let trained = Training {
            config: &config,
            spec: &spec,
            device: &Device::default(),
            seed: Seed(3),
            freeze: None,
            perturb: None,
            // The score is taken on wholes.
            score: &mut |model, _| {
                let outputs = model.outputs(&samples)?;
                let right = |(row, logits): (usize, &[f32])| {
                    let task = &model.spec().task;
                    f64::from(u8::from(task.is_right(&labels[row], &task.decide(logits))))
                };
                Ok(outputs.rows().enumerate().map(right).sum())
            },
            observe: &mut |_| (),
        }
        .run(&graph, Labelled { samples: &samples, labels: &labels })
        .unwrap();
        assert_eq!(trained.epochs[trained.best_epoch - 1].score, 4.0, "{:?}", trained.epochs);
        // The sides of the file are those of the whole again.
        assert_eq!(trained.graph.inputs, graph.inputs);
        assert!(config.check(&Task::MultiClass { classes: 2 }).unwrap_err().to_string().contains("`crop`"));
    }
}
