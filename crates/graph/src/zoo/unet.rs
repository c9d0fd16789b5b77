//! U-Net (Ronneberger et al. 2015, arXiv:1505.04597) for images of any size from 16 pixels a side.
//!
//! ```text
//! down: two 3×3 convolutions, each with batch norm and ReLU, then 2×2 max-pool      (64, 128, 256, 512 channels)
//! bottom: two convolutions                                                          (1,024 channels)
//! up: 2×2 transposed convolution to half the channels, joined with the same level of the way down, two convolutions
//! ```
//!
//! Differs from the source: convolutions are padded, so the logits have the size of the image; batch norm is added, as in
//! most implementations since; where a side was odd, the transposed convolution adds one place. `unet-small` has a quarter
//! of the channels, which two cores can train.
//!
//! Weights are named as in `milesial/Pytorch-UNet`, which has 31,037,633 parameters for 3 channels and 1 class.

use super::Blueprint;
use crate::builder::Handle;
use crate::operators::{Concat, Convolution, Pool, PoolKind, TransposedConvolution};
use crate::{Error, Graph, GraphBuilder};

pub(super) fn build(blueprint: &Blueprint<'_>, b: GraphBuilder) -> Result<Graph, Error> {
    network(blueprint, b, 64)
}

pub(super) fn build_small(blueprint: &Blueprint<'_>, b: GraphBuilder) -> Result<Graph, Error> {
    network(blueprint, b, 16)
}

/// `width` is the number of channels of the first level.
fn network(blueprint: &Blueprint<'_>, mut b: GraphBuilder, width: usize) -> Result<Graph, Error> {
    let [channels, height, image_width] = blueprint.image("unet")?;
    let mut x = blueprint.input(&mut b, "image");
    x = double(&mut b, "inc.double_conv", &x, [channels, width, width], 2);
    let mut levels = vec![(x.clone(), width, vec![height, image_width])];
    for level in 1..=4 {
        let (from, to) = (width << (level - 1), width << level);
        x = halved(&mut b, &format!("down{level}.maxpool_conv.0"), &x, 2);
        x = double(&mut b, &format!("down{level}.maxpool_conv.1.double_conv"), &x, [from, to, to], 2);
        let half = levels[level - 1].2.iter().map(|side| side / 2).collect();
        levels.push((x.clone(), to, half));
    }
    levels.pop();
    for (step, (skip, to, space)) in (1..).zip(levels.iter().rev()) {
        x = up(&mut b, &format!("up{step}.up"), &x, (2 * to, *to), space);
        x = b.node(&format!("up{step}.joined"), Concat { axis: 1 }, &[skip, &x]);
        x = double(&mut b, &format!("up{step}.conv.double_conv"), &x, [2 * to, *to, *to], 2);
    }
    let head = Convolution::new(2, 1, 0);
    let logits = b.convolution_with_bias("outc.conv", &x, (width, blueprint.outputs()), 1, head);
    b.finish(&[&logits])
}

/// Two convolutions of side 3, each with batch norm and ReLU, through the given numbers of channels. Layers are numbered
/// as in a `Sequential` of PyTorch.
pub(super) fn double(b: &mut GraphBuilder, name: &str, x: &Handle, channels: [usize; 3], axes: usize) -> Handle {
    let mut y = x.clone();
    for (number, pair) in channels.windows(2).enumerate() {
        let part = |offset: usize| format!("{name}.{}", 3 * number + offset);
        y = b.convolution(&part(0), &y, (pair[0], pair[1]), 3, Convolution::new(axes, 1, 1));
        y = b.batch_normalization(&part(1), &y, pair[1]);
        y = b.relu(&part(2), &y);
    }
    y
}

/// Transposed convolution of side 2 and stride 2 to the size `space`.
pub(super) fn up(b: &mut GraphBuilder, name: &str, x: &Handle, channels: (usize, usize), space: &[usize]) -> Handle {
    let convolution = TransposedConvolution {
        strides: vec![2; space.len()],
        output_padding: space.iter().map(|side| side % 2).collect(),
        ..TransposedConvolution::default()
    };
    b.transposed_convolution(name, x, channels, 2, convolution)
}

/// Max-pool that halves every axis of space.
pub(super) fn halved(b: &mut GraphBuilder, name: &str, x: &Handle, axes: usize) -> Handle {
    b.node(name, Pool::new(PoolKind::Max, axes, 2, 2, 0), &[x])
}
