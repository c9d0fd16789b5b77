//! Three convolution blocks for small images and volumes; a few minutes of training on two cores.
//!
//! ```text
//! 3×3 convolution → batch norm → ReLU → 2×2 max-pool, with 16, 32 and 64 channels, then global average and a linear head
//! ```
//!
//! `small-cnn3d` has kernels of 3×3×3 and pools 2×2×2, for volumes of 8 voxels a side and more.

use super::Blueprint;
use crate::operators::{Convolution, Pool, PoolKind};
use crate::{Error, Graph, GraphBuilder};

const CHANNELS: [usize; 3] = [16, 32, 64];

pub(super) fn build(blueprint: &Blueprint<'_>, b: GraphBuilder) -> Result<Graph, Error> {
    blueprint.image("small-cnn")?;
    network(blueprint, b, "image")
}

pub(super) fn build_3d(blueprint: &Blueprint<'_>, b: GraphBuilder) -> Result<Graph, Error> {
    let [_, sides @ ..] = blueprint.volume("small-cnn3d")?;
    if sides.iter().any(|&side| side < 1 << CHANNELS.len()) {
        return Err(Error::graph("input of small-cnn3d", "8 voxels a side at least", format!("{sides:?}")));
    }
    network(blueprint, b, "volume")
}

fn network(blueprint: &Blueprint<'_>, mut b: GraphBuilder, input: &str) -> Result<Graph, Error> {
    let shape = blueprint.spec.domain.shape();
    let (mut channels, axes) = (shape[0], shape.len() - 1);
    let mut x = blueprint.input(&mut b, input);
    for (block, next) in (1..).zip(CHANNELS) {
        x = b.convolution(&format!("conv{block}"), &x, (channels, next), 3, Convolution::new(axes, 1, 1));
        x = b.batch_normalization(&format!("bn{block}"), &x, next);
        x = b.relu(&format!("relu{block}"), &x);
        x = b.node(&format!("pool{block}"), Pool::new(PoolKind::Max, axes, 2, 2, 0), &[&x]);
        channels = next;
    }
    x = b.global_average("avgpool", &x);
    let logits = b.linear("fc", &x, (channels, blueprint.outputs()));
    b.finish(&[&logits])
}
