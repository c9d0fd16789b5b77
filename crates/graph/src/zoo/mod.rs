//! Networks of the field, one file each, written with the [`GraphBuilder`](crate::GraphBuilder).
//!
//! Weights are named as in PyTorch's reference implementations, so that a `state_dict` fits by name. Networks that segment
//! give logits `[batch, classes, space...]`.

pub mod meshnet;
pub mod mlp;
mod residual;
pub mod resnet18;
pub mod resnet1d;
pub mod small_cnn;
pub mod unet;
pub mod unet3d;

use nocebo_core::{ModelSpec, Seed};

use crate::builder::Handle;
use crate::{Error, Graph, GraphBuilder};

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
        self.spec.task.outputs()
    }

    /// The input of a network with the normalisation that every network begins with.
    fn input(&self, b: &mut GraphBuilder, name: &str) -> Handle {
        let shape = self.spec.domain.shape();
        let x = b.input(name, shape);
        b.normalization(&x, self.mean, self.standard_deviation, shape.len() - 1)
    }
}

type Build = fn(&Blueprint<'_>, GraphBuilder) -> Result<Graph, Error>;

const ZOO: &[(&str, Build)] = &[
    ("meshnet", meshnet::build),
    ("mlp", mlp::build),
    ("resnet18", resnet18::build),
    ("resnet1d", resnet1d::build),
    ("small-cnn", small_cnn::build),
    ("unet", unet::build),
    ("unet-small", unet::build_small),
    ("unet3d", unet3d::build),
    ("unet3d-small", unet3d::build_small),
];

/// Names of all architectures.
pub fn names() -> impl Iterator<Item = &'static str> {
    ZOO.iter().map(|(name, _)| *name)
}

/// The network of this name with random weights; normalisation is its first layer, and its spec its metadata.
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
    let Some((_, build)) = ZOO.iter().find(|(known, _)| *known == name) else {
        let known = names().collect::<Vec<_>>().join(", ");
        return Err(Error::graph("architecture", format!("one of {known}"), format!("`{name}`")));
    };
    blueprint.spec.check()?;
    let mut graph = build(blueprint, builder)?;
    graph.set_spec(blueprint.spec)?;
    Ok(graph)
}
