//! Networks of the field, one file each, written with the [`GraphBuilder`](crate::GraphBuilder).
//!
//! Weights are named as in PyTorch's reference implementations, so that a `state_dict` fits by name.

pub mod mlp;
pub mod resnet18;
pub mod small_cnn;

use nocebo_core::{ModelSpec, Seed};

use crate::{Error, Graph};

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
        match *self.spec.domain.shape() {
            [channels, height, width] => Ok([channels, height, width]),
            ref other => Err(Error::graph(
                format!("input of {architecture}"),
                "an image [channels, height, width]",
                format!("{other:?}"),
            )),
        }
    }
}

type Build = fn(&Blueprint<'_>) -> Result<Graph, Error>;

const ZOO: &[(&str, Build)] = &[("mlp", mlp::build), ("resnet18", resnet18::build), ("small-cnn", small_cnn::build)];

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
    let Some((_, build)) = ZOO.iter().find(|(known, _)| *known == name) else {
        let known = names().collect::<Vec<_>>().join(", ");
        return Err(Error::graph("architecture", format!("one of {known}"), format!("`{name}`")));
    };
    blueprint.spec.check()?;
    let mut graph = build(blueprint)?;
    graph.set_spec(blueprint.spec)?;
    Ok(graph)
}
