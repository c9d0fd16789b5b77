//! PixelCNN (van den Oord et al. 2016, arXiv:1601.06759, table 1): the distribution of each value of an image given those
//! before it, row by row, left to right, channel by channel.
//!
//! ```text
//! 7×7 convolution with mask A → 7 residual blocks → ReLU → 1×1 convolution → ReLU → 1×1 convolution to the levels
//! block: ReLU → 1×1 convolution to half → ReLU → 3×3 convolution → ReLU → 1×1 convolution, with mask B, and a shortcut
//! ```
//!
//! A kernel is `Where(mask, weight, 0)` in the graph: the mask is a constant of truth values, which training does not touch,
//! and no gradient reaches a weight that it hides. It travels with the ONNX file. Mask A hides the value itself and all that
//! follow; mask B shows the value itself. Feature maps are shared out among the channels of the image in order.
//!
//! Logits are `[batch, levels, channels, height, width]`, with as many levels as the task has classes. 64 feature maps, not
//! the paper's 128 and more, so that two cores can train it.

use super::Blueprint;
use crate::builder::Handle;
use crate::operators::{Convolution, Reshape, Transpose, Where};
use crate::{Error, Graph, GraphBuilder, Tensor};

/// Feature maps; half as many inside a block.
const WIDTH: usize = 64;
const BLOCKS: usize = 7;

pub(super) fn build(blueprint: &Blueprint<'_>, mut b: GraphBuilder) -> Result<Graph, Error> {
    let [channels, height, width] = blueprint.image("pixelcnn")?;
    let levels = blueprint.outputs();
    let x = blueprint.input(&mut b, "image");
    let mut masked = Masked { channels, zero: b.constant("hidden", Tensor::scalar(0.0)) };
    let mut x = masked.convolution(&mut b, "first", &x, (channels, WIDTH), 7, false);
    for block in 0..BLOCKS {
        let name = |part: &str| format!("blocks.{block}.{part}");
        let mut y = x.clone();
        for (number, (from, to, side)) in
            (1..).zip([(WIDTH, WIDTH / 2, 1), (WIDTH / 2, WIDTH / 2, 3), (WIDTH / 2, WIDTH, 1)])
        {
            y = b.relu(&name(&format!("relu{number}")), &y);
            y = masked.convolution(&mut b, &name(&format!("conv{number}")), &y, (from, to), side, true);
        }
        x = b.add(&name("add"), &x, &y);
    }
    for (number, to) in [(1, WIDTH), (2, channels * levels)] {
        x = b.relu(&format!("last.relu{number}"), &x);
        x = masked.convolution(&mut b, &format!("last.conv{number}"), &x, (WIDTH, to), 1, true);
    }
    let shape = [-1, channels as i64, levels as i64, height as i64, width as i64];
    let shape = b.constant("levels.shape", Tensor::list(&shape));
    let x = b.node("levels", Reshape { allow_zero: false }, &[&x, &shape]);
    let logits = b.node("logits", Transpose { order: vec![0, 2, 1, 3, 4] }, &[&x]);
    b.finish(&[&logits])
}

/// Convolutions that see only values before their own.
struct Masked {
    /// Channels of the image.
    channels: usize,
    /// What stands in place of a hidden weight.
    zero: Handle,
}

impl Masked {
    /// A convolution with bias under mask B where it may see the value itself, else under mask A.
    fn convolution(
        &mut self,
        b: &mut GraphBuilder,
        name: &str,
        x: &Handle,
        (from, to): (usize, usize),
        side: usize,
        own: bool,
    ) -> Handle {
        let shape = [to, from, side, side];
        let group = |index: usize, of: usize| index * self.channels / of;
        let mut seen = Vec::with_capacity(to * from * side * side);
        for output in 0..to {
            for input in 0..from {
                let (output, input) = (group(output, to), group(input, from));
                for place in 0..side * side {
                    let centre = side * side / 2;
                    let before = input < output || (own && input == output);
                    seen.push(place < centre || (place == centre && before));
                }
            }
        }
        let mask = b.checked(&format!("{name}.mask"), Tensor::booleans(&shape, seen));
        let weights = b.he_normal(&format!("{name}.weight"), &shape);
        let kernels = b.node(&format!("{name}.masked"), Where, &[&mask, &weights, &self.zero]);
        let bias = b.floats(&format!("{name}.bias"), &[to], vec![0.0; to]);
        b.node(name, Convolution::new(2, 1, side / 2), &[x, &kernels, &bias])
    }
}
