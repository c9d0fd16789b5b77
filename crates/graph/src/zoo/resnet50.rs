//! ResNet-50 (He et al. 2016, arXiv:1512.03385), with the stride in the 3×3 convolution of a block, as in torchvision, and
//! the stems of [`super::resnet18`].
//!
//! 25,557,032 parameters for 3 channels and 1,000 classes with the large stem, as torchvision's `resnet50` has.

use super::Blueprint;
use super::residual::{Block, network};
use crate::{Error, Graph, GraphBuilder};

pub(super) fn build(blueprint: &Blueprint<'_>, b: GraphBuilder) -> Result<Graph, Error> {
    blueprint.image("resnet50")?;
    network(blueprint, b, "image", (Block::Bottleneck, [3, 4, 6, 3]))
}
