//! DenseNet-121 (Huang et al. 2017, arXiv:1608.06993), the network of CheXNet (Rajpurkar et al. 2017, arXiv:1711.05225).
//!
//! ```text
//! stem, then four blocks of 6, 12, 24 and 16 layers; a layer adds 32 channels to all those before it:
//!     batch norm → ReLU → 1×1 convolution to 128 → batch norm → ReLU → 3×3 convolution to 32
//! between blocks: batch norm → ReLU → 1×1 convolution to half the channels → 2×2 average pool
//! ```
//!
//! Images of less than 64 pixels a side get a 3×3 stem without pooling, which is ours.
//!
//! 7,978,856 parameters for 3 channels and 1,000 classes, as torchvision's `densenet121` has.

use super::Blueprint;
use crate::builder::Handle;
use crate::operators::{Concat, Convolution, Pool, PoolKind};
use crate::{Error, Graph, GraphBuilder};

/// Layers of each block.
const LAYERS: [usize; 4] = [6, 12, 24, 16];

/// Channels that a layer adds.
const GROWTH: usize = 32;

pub(super) fn build(blueprint: &Blueprint<'_>, mut b: GraphBuilder) -> Result<Graph, Error> {
    let [channels, ..] = blueprint.image("densenet121")?;
    let x = blueprint.input(&mut b, "image");
    let large = blueprint.is_large();
    let (side, stem) = if large { (7, Convolution::new(2, 2, 3)) } else { (3, Convolution::new(2, 1, 1)) };
    let mut width = 64;
    let x = b.convolution("features.conv0", &x, (channels, width), side, stem);
    let mut x = normalized(&mut b, "features.norm0", "features.relu0", &x, width);
    if large {
        x = b.max_pool("features.pool0", &x, 3, 2, 1);
    }
    for (block, layers) in (1..).zip(LAYERS) {
        if block > 1 {
            let name = |part: &str| format!("features.transition{}.{part}", block - 1);
            x = normalized(&mut b, &name("norm"), &name("relu"), &x, width);
            x = b.convolution(&name("conv"), &x, (width, width / 2), 1, Convolution::new(2, 1, 0));
            x = b.node(&name("pool"), Pool::new(PoolKind::Average { include_padding: false }, 2, 2, 2, 0), &[&x]);
            width /= 2;
        }
        for layer in 1..=layers {
            let name = |part: &str| format!("features.denseblock{block}.denselayer{layer}.{part}");
            let y = normalized(&mut b, &name("norm1"), &name("relu1"), &x, width);
            let y = b.convolution(&name("conv1"), &y, (width, 4 * GROWTH), 1, Convolution::new(2, 1, 0));
            let y = normalized(&mut b, &name("norm2"), &name("relu2"), &y, 4 * GROWTH);
            let y = b.convolution(&name("conv2"), &y, (4 * GROWTH, GROWTH), 3, Convolution::new(2, 1, 1));
            x = b.node(&name("joined"), Concat { axis: 1 }, &[&x, &y]);
            width += GROWTH;
        }
    }
    let x = normalized(&mut b, "features.norm5", "relu", &x, width);
    let x = b.global_average("avgpool", &x);
    let logits = b.linear("classifier", &x, (width, blueprint.outputs()));
    b.finish(&[&logits])
}

fn normalized(b: &mut GraphBuilder, norm: &str, relu: &str, x: &Handle, width: usize) -> Handle {
    let y = b.batch_normalization(norm, x, width);
    b.relu(relu, &y)
}
