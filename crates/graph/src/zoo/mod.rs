//! Networks of the field, one file each, written with the [`GraphBuilder`].
//!
//! Weights are named as in PyTorch's reference implementations, so that a `state_dict` fits by name. Networks that segment
//! give logits `[batch, classes, space...]`.

pub mod autoencoder;
pub mod densenet121;
pub mod eegnet;
pub mod efficientnet_b0;
pub mod gan;
pub mod meshnet;
pub mod mlp;
pub mod mobilenet_v2;
pub mod pixelcnn;
pub mod recurrent;
mod residual;
pub mod resnet18;
pub mod resnet1d;
pub mod resnet50;
pub mod segresnet;
pub mod small_cnn;
pub mod unet;
pub mod unet3d;
pub mod vae;
pub mod vgg16;
pub mod vit_tiny;

use nocebo_core::{ModelSpec, Seed, Task};

use crate::builder::Handle;
use crate::operators::Arithmetic;
use crate::{Error, Graph, GraphBuilder, Tensor};

/// What a network of the zoo is made for.
#[derive(Clone, Debug)]
pub struct Blueprint<'a> {
    /// Inputs and task.
    pub spec: &'a ModelSpec,
    /// Mean of each channel of the training data, in the unit of the data.
    pub mean: &'a [f32],
    /// Standard deviation of each channel of the training data, in the unit of the data.
    pub standard_deviation: &'a [f32],
    /// Seed of the weights.
    pub seed: Seed,
}

impl Blueprint<'_> {
    /// Shape of a sample as `[channels, height, width]`.
    fn image(&self, architecture: &str) -> Result<[usize; 3], Error> {
        self.sample(architecture, "an image [channels, height, width]")
    }

    /// Shape of a sample as `[channels, length]`.
    fn signal(&self, architecture: &str) -> Result<[usize; 2], Error> {
        self.sample(architecture, "a signal [channels, length]")
    }

    /// Shape of a sample as `[channels, depth, height, width]`.
    fn volume(&self, architecture: &str) -> Result<[usize; 4], Error> {
        self.sample(architecture, "a volume [channels, depth, height, width]")
    }

    fn sample<const AXES: usize>(&self, architecture: &str, form: &str) -> Result<[usize; AXES], Error> {
        let shape = self.spec.domain.shape();
        shape.try_into().map_err(|_| Error::graph(format!("input of {architecture}"), form, format!("{shape:?}")))
    }

    /// Logits of a sample; for a network that segments, of each place.
    fn outputs(&self) -> usize {
        match &self.spec.task {
            Task::Segmentation(segmentation) => segmentation.logits(),
            task => task.outputs(),
        }
    }

    /// Whether no side of a sample is so short that a stem made for photographs would leave nothing of it.
    fn is_large(&self) -> bool {
        self.spec.domain.shape()[1..].iter().all(|&side| side >= LARGE)
    }

    /// Least and greatest value of the data.
    fn bounds(&self) -> (f32, f32) {
        let domain = &self.spec.domain;
        let least = domain.lower().iter().copied().fold(f32::INFINITY, f32::min);
        (least, domain.upper().iter().copied().fold(f32::NEG_INFINITY, f32::max))
    }

    /// Values in the unit of the data, scaled to [0, 1] by their bounds.
    fn scaled(&self, b: &mut GraphBuilder, x: &Handle) -> Handle {
        let (low, high) = self.bounds();
        b.window(x, low, high)
    }

    /// The way back from [`Blueprint::scaled`].
    fn unscaled(&self, b: &mut GraphBuilder, name: &str, x: &Handle) -> Handle {
        let (low, high) = self.bounds();
        let range = b.constant(&format!("{name}.range"), Tensor::scalar(high - low));
        let low = b.constant(&format!("{name}.low"), Tensor::scalar(low));
        let stretched = b.node(&format!("{name}.stretched"), Arithmetic::Mul, &[x, &range]);
        b.node(name, Arithmetic::Add, &[&stretched, &low])
    }

    /// The input of a network with the normalisation that every network begins with.
    fn input(&self, b: &mut GraphBuilder, name: &str) -> Handle {
        let shape = self.spec.domain.shape();
        let x = b.input(name, shape);
        b.normalization(&x, self.mean, self.standard_deviation, shape.len() - 1)
    }
}

/// Samples with a shorter side below this are small: they get a stem that keeps their size, and small patches.
const LARGE: usize = 64;

type Build = fn(&Blueprint<'_>, GraphBuilder) -> Result<Graph, Error>;

/// What a network answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// Logits of the sample.
    Sample,
    /// Logits of each place of the sample.
    Place,
    /// Something else than the task asks.
    Other,
}

/// Name, network, and its answer.
const ZOO: &[(&str, Build, Answer)] = &[
    ("autoencoder", autoencoder::build, Answer::Other),
    ("densenet121", densenet121::build, Answer::Sample),
    ("eegnet", eegnet::build, Answer::Sample),
    ("efficientnet-b0", efficientnet_b0::build, Answer::Sample),
    ("gan-discriminator", gan::build_discriminator, Answer::Other),
    ("gan-generator", gan::build_generator, Answer::Other),
    ("gru", recurrent::build_gru, Answer::Sample),
    ("lstm", recurrent::build_lstm, Answer::Sample),
    ("meshnet", meshnet::build, Answer::Place),
    ("mlp", mlp::build, Answer::Sample),
    ("mobilenet-v2", mobilenet_v2::build, Answer::Sample),
    ("pixelcnn", pixelcnn::build, Answer::Other),
    ("resnet18", resnet18::build, Answer::Sample),
    ("resnet1d", resnet1d::build, Answer::Sample),
    ("resnet50", resnet50::build, Answer::Sample),
    ("segresnet", segresnet::build, Answer::Place),
    ("small-cnn", small_cnn::build, Answer::Sample),
    ("small-cnn3d", small_cnn::build_3d, Answer::Sample),
    ("unet", unet::build, Answer::Place),
    ("unet-small", unet::build_small, Answer::Place),
    ("unet3d", unet3d::build, Answer::Place),
    ("unet3d-small", unet3d::build_small, Answer::Place),
    ("vae", vae::build, Answer::Other),
    ("vgg16", vgg16::build, Answer::Sample),
    ("vit-tiny", vit_tiny::build, Answer::Sample),
];

/// Names of all architectures.
pub fn names() -> impl Iterator<Item = &'static str> {
    ZOO.iter().map(|(name, ..)| *name)
}

/// Whether the network of this name segments: its task is a segmentation.
pub fn segments(name: &str) -> bool {
    ZOO.iter().any(|(known, _, answer)| *known == name && *answer == Answer::Place)
}

/// The network of this name with random weights; normalisation is its first layer, and its spec its metadata where it
/// decides what the task asks.
///
/// # Errors
///
/// When there is no such architecture, or it cannot take such inputs.
pub fn build(name: &str, blueprint: &Blueprint<'_>) -> Result<Graph, Error> {
    finish(name, blueprint, GraphBuilder::new(name, blueprint.seed))
}

/// [`build`] with all random weights left at 0: to be counted, or to be filled from a file.
///
/// # Errors
///
/// As [`build`].
pub fn unset(name: &str, blueprint: &Blueprint<'_>) -> Result<Graph, Error> {
    finish(name, blueprint, GraphBuilder::unset(name))
}

fn finish(name: &str, blueprint: &Blueprint<'_>, builder: GraphBuilder) -> Result<Graph, Error> {
    let Some((_, build, answer)) = ZOO.iter().find(|(known, ..)| *known == name) else {
        let known = names().collect::<Vec<_>>().join(", ");
        return Err(Error::graph("architecture", format!("one of {known}"), format!("`{name}`")));
    };
    blueprint.spec.check()?;
    let segmentation = matches!(blueprint.spec.task, Task::Segmentation(_));
    if *answer != Answer::Other && segmentation != (*answer == Answer::Place) {
        let tasks = if segmentation { "a classification" } else { "a segmentation" };
        return Err(Error::graph(format!("task of {name}"), tasks, format!("{:?}", blueprint.spec.task)));
    }
    let mut graph = build(blueprint, builder)?;
    if *answer != Answer::Other {
        graph.set_spec(blueprint.spec)?;
    }
    Ok(graph)
}
