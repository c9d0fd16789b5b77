//! Three convolution blocks for small images; a few minutes of training on two cores.
//!
//! ```text
//! 3×3 convolution → batch norm → ReLU → 2×2 max-pool, with 16, 32 and 64 channels, then global average and a linear head
//! ```

use super::Blueprint;
use crate::operators::Convolution;
use crate::{Error, Graph, GraphBuilder};

const CHANNELS: [usize; 3] = [16, 32, 64];

pub(super) fn build(blueprint: &Blueprint<'_>, mut b: GraphBuilder) -> Result<Graph, Error> {
    let [mut channels, ..] = blueprint.image("small-cnn")?;
    let mut x = blueprint.input(&mut b, "image");
    for (block, next) in (1..).zip(CHANNELS) {
        x = b.convolution(&format!("conv{block}"), &x, (channels, next), 3, Convolution::new(2, 1, 1));
        x = b.batch_normalization(&format!("bn{block}"), &x, next);
        x = b.relu(&format!("relu{block}"), &x);
        x = b.max_pool(&format!("pool{block}"), &x, 2, 2, 0);
        channels = next;
    }
    x = b.global_average("avgpool", &x);
    let logits = b.linear("fc", &x, (channels, blueprint.outputs()));
    b.finish(&[&logits])
}
