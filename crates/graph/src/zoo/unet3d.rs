//! 3-D U-Net (Çiçek et al. 2016, arXiv:1606.06650) for volumes of any size from 8 voxels a side.
//!
//! ```text
//! down: two 3×3×3 convolutions, each with batch norm and ReLU, the second to twice the channels; 2×2×2 max-pool
//! bottom: 256 and 512 channels after the three levels of 64, 128 and 256
//! up: 2×2×2 transposed convolution, joined with the same level of the way down, two convolutions
//! ```
//!
//! Differs from the source: convolutions are padded, so the logits have the size of the volume; where a side was odd, the
//! transposed convolution adds one place. `unet3d-small` has a quarter of the channels, which two cores can train.
//!
//! The paper counts 19,069,955 parameters for 3 channels and 3 classes. Ours has 3,232 more: it counts a scale and a shift
//! for each batch norm where our reading of the paper's number has one bias a convolution (2,336), and its transposed
//! convolutions have biases (896).

use super::Blueprint;
use super::unet::{double, halved, up};
use crate::operators::{Concat, Convolution};
use crate::{Error, Graph, GraphBuilder};

pub(super) fn build(blueprint: &Blueprint<'_>, b: GraphBuilder) -> Result<Graph, Error> {
    network(blueprint, b, 32)
}

pub(super) fn build_small(blueprint: &Blueprint<'_>, b: GraphBuilder) -> Result<Graph, Error> {
    network(blueprint, b, 8)
}

/// `width` is the number of channels of the first convolution.
fn network(blueprint: &Blueprint<'_>, mut b: GraphBuilder, width: usize) -> Result<Graph, Error> {
    let [channels, sides @ ..] = blueprint.volume("unet3d")?;
    let mut x = blueprint.input(&mut b, "volume");
    let mut levels = Vec::new();
    let mut space = sides.to_vec();
    for level in 0..4 {
        let (half, to) = (width << level, width << (level + 1));
        let from = if level == 0 {
            channels
        } else {
            x = halved(&mut b, &format!("down{level}.pool"), &x, 3);
            half
        };
        x = double(&mut b, &format!("down{level}"), &x, [from, half, to], 3);
        levels.push((x.clone(), to, space.clone()));
        space.iter_mut().for_each(|side| *side /= 2);
    }
    levels.pop();
    for (level, (skip, to, space)) in levels.iter().enumerate().rev() {
        x = up(&mut b, &format!("up{level}.up"), &x, (2 * to, 2 * to), space);
        x = b.node(&format!("up{level}.joined"), Concat { axis: 1 }, &[skip, &x]);
        x = double(&mut b, &format!("up{level}"), &x, [3 * to, *to, *to], 3);
    }
    let head = Convolution::new(3, 1, 0);
    let logits = b.convolution_with_bias("head", &x, (2 * width, blueprint.outputs()), 1, head);
    b.finish(&[&logits])
}
