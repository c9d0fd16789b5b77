//! SegResNet (Myronenko 2018, arXiv:1810.11654) without its auto-encoder branch, for images and volumes of any size.
//!
//! ```text
//! residual block: group norm → ReLU → convolution of side 3, twice, and a shortcut
//! down: 1, 2, 2 and 4 blocks of 8, 16, 32 and 64 channels, a convolution of stride 2 before all but the first
//! up, three times: 1×1 convolution to half the channels, linear resampling, plus the same level of the way down, one block
//! ```
//!
//! Layers, sizes and names are those of MONAI's `SegResNet` with its default settings, which has 1,176,186 parameters for
//! volumes of 1 channel and 2 classes by its layers: the count in `tests/zoo.rs` adds them up. Where a side is odd the
//! resampling goes to the size of the level below; MONAI refuses such sizes.

use super::Blueprint;
use crate::builder::Handle;
use crate::operators::{Convolution, Resize, ResizeMode};
use crate::{Error, Graph, GraphBuilder, Tensor};

/// Blocks of each level on the way down.
const BLOCKS: [usize; 4] = [1, 2, 2, 4];

/// Channels of the first level; also the groups of group norm.
const WIDTH: usize = 8;

pub(super) fn build(blueprint: &Blueprint<'_>, mut b: GraphBuilder) -> Result<Graph, Error> {
    let (channels, mut space) = match *blueprint.spec.domain.shape() {
        [channels, ref space @ ..] if (2..=3).contains(&space.len()) => (channels, space.to_vec()),
        ref other => {
            return Err(Error::graph(
                "input of segresnet",
                "an image [channels, height, width] or a volume [channels, depth, height, width]",
                format!("{other:?}"),
            ));
        }
    };
    let axes = space.len();
    let name = if axes == 2 { "image" } else { "volume" };
    let x = blueprint.input(&mut b, name);
    let mut x = b.convolution("convInit.conv", &x, (channels, WIDTH), 3, Convolution::new(axes, 1, 1));
    let mut levels = Vec::new();
    for (level, blocks) in BLOCKS.into_iter().enumerate() {
        let width = WIDTH << level;
        if level > 0 {
            let name = format!("down_layers.{level}.0.conv");
            x = b.convolution(&name, &x, (width / 2, width), 3, Convolution::new(axes, 2, 1));
            space.iter_mut().for_each(|side| *side = side.div_ceil(2));
        }
        for block in 1..=blocks {
            x = residual(&mut b, &format!("down_layers.{level}.{block}"), &x, width, axes);
        }
        levels.push((x.clone(), width, space.clone()));
    }
    levels.pop();
    for (step, (skip, width, space)) in levels.iter().rev().enumerate() {
        let name = |part: &str| format!("up_samples.{step}.{part}");
        x = b.convolution(&name("0.conv"), &x, (2 * width, *width), 1, Convolution::new(axes, 1, 0));
        x = resampled(&mut b, &name("1"), &x, *width, space);
        x = b.add(&name("add"), &x, skip);
        x = residual(&mut b, &format!("up_layers.{step}.0"), &x, *width, axes);
    }
    x = b.group_normalization("conv_final.0", &x, WIDTH, WIDTH);
    x = b.relu("conv_final.1", &x);
    let head = Convolution::new(axes, 1, 0);
    let logits = b.convolution_with_bias("conv_final.2.conv", &x, (WIDTH, blueprint.outputs()), 1, head);
    b.finish(&[&logits])
}

fn residual(b: &mut GraphBuilder, name: &str, x: &Handle, width: usize, axes: usize) -> Handle {
    let mut y = x.clone();
    for number in 1..=2 {
        let part = |part: &str| format!("{name}.{part}{number}");
        y = b.group_normalization(&part("norm"), &y, width, WIDTH);
        y = b.relu(&part("relu"), &y);
        y = b.convolution(&format!("{}.conv", part("conv")), &y, (width, width), 3, Convolution::new(axes, 1, 1));
    }
    b.add(&format!("{name}.add"), &y, x)
}

/// Linear resampling to the size `space`.
fn resampled(b: &mut GraphBuilder, name: &str, x: &Handle, width: usize, space: &[usize]) -> Handle {
    let mut shape = vec![width as i64];
    shape.extend(space.iter().map(|&side| side as i64));
    let axes = (1..=shape.len() as i64).collect();
    let sizes = b.constant(&format!("{name}.sizes"), Tensor::list(&shape));
    let absent = GraphBuilder::absent();
    b.node(name, Resize { axes, ..Resize::new(ResizeMode::Linear) }, &[x, &absent, &absent, &sizes])
}
