//! What the residual networks have in common: the stem of their authors for samples of 64 places a side and more, a small
//! one without pooling for smaller ones (as is usual for CIFAR-10 and MedMNIST), and four stages of blocks.

use super::Blueprint;
use crate::builder::Handle;
use crate::operators::{Convolution, Pool, PoolKind};
use crate::{Error, Graph, GraphBuilder};

/// Channels inside the blocks of each stage.
const CHANNELS: [usize; 4] = [64, 128, 256, 512];

/// What a stage is made of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Block {
    /// Two convolutions with kernels of side 3.
    Basic,
    /// Kernels of side 1, 3 and 1, the last to four times as many channels.
    Bottleneck,
}

impl Block {
    fn expansion(self) -> usize {
        if self == Self::Bottleneck { 4 } else { 1 }
    }

    /// Side, channels and stride of each convolution.
    fn convolutions(self, to: usize, stride: usize) -> Vec<(usize, usize, usize)> {
        match self {
            Self::Basic => vec![(3, to, stride), (3, to, 1)],
            Self::Bottleneck => vec![(1, to, 1), (3, to, stride), (1, 4 * to, 1)],
        }
    }
}

/// A residual network over however many axes of space a sample has, with `blocks` blocks a stage.
pub(super) fn network(
    blueprint: &Blueprint<'_>,
    mut b: GraphBuilder,
    input: &str,
    (block, blocks): (Block, [usize; 4]),
) -> Result<Graph, Error> {
    let (channels, space) = blueprint.spec.domain.shape().split_first().unwrap_or((&1, &[]));
    let axes = space.len();
    let x = blueprint.input(&mut b, input);
    let large = blueprint.is_large();
    let (side, stem) = if large { (7, Convolution::new(axes, 2, 3)) } else { (3, Convolution::new(axes, 1, 1)) };
    let x = b.convolution("conv1", &x, (*channels, 64), side, stem);
    let x = b.batch_normalization("bn1", &x, 64);
    let mut x = b.relu("relu", &x);
    if large {
        x = b.node("maxpool", Pool::new(PoolKind::Max, axes, 3, 2, 1), &[&x]);
    }
    let mut width = 64;
    for (stage, (next, blocks)) in (1..).zip(CHANNELS.into_iter().zip(blocks)) {
        for number in 0..blocks {
            let stride = if stage > 1 && number == 0 { 2 } else { 1 };
            x = residual(&mut b, axes, &format!("layer{stage}.{number}"), &x, (width, next), stride, block);
            width = next * block.expansion();
        }
    }
    let x = b.global_average("avgpool", &x);
    let logits = b.linear("fc", &x, (width, blueprint.outputs()));
    b.finish(&[&logits])
}

/// Convolutions with a shortcut around them, which is a convolution of side 1 where the shape changes.
fn residual(
    b: &mut GraphBuilder,
    axes: usize,
    name: &str,
    x: &Handle,
    (from, to): (usize, usize),
    stride: usize,
    block: Block,
) -> Handle {
    let part = |part: &str| format!("{name}.{part}");
    let mut y = x.clone();
    let mut width = from;
    let layers = block.convolutions(to, stride);
    let convolutions = layers.len();
    for (number, (side, to, stride)) in (1..).zip(layers) {
        if number > 1 {
            y = b.relu(&part(&format!("relu{}", number - 1)), &y);
        }
        let convolution = Convolution::new(axes, stride, side / 2);
        y = b.convolution(&part(&format!("conv{number}")), &y, (width, to), side, convolution);
        y = b.batch_normalization(&part(&format!("bn{number}")), &y, to);
        width = to;
    }
    let shortcut = if stride == 1 && from == width {
        x.clone()
    } else {
        let y = b.convolution(&part("downsample.0"), x, (from, width), 1, Convolution::new(axes, stride, 0));
        b.batch_normalization(&part("downsample.1"), &y, width)
    };
    let sum = b.add(&part("add"), &y, &shortcut);
    b.relu(&part(&format!("relu{convolutions}")), &sum)
}
