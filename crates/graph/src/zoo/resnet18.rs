//! ResNet-18 (He et al. 2016, arXiv:1512.03385), with the stem of its authors for images of 64 pixels and more and a
//! 3×3 stem without pooling for smaller ones (as is usual for CIFAR-10 and MedMNIST).
//!
//! 11,689,512 parameters for 3 channels and 1,000 classes with the large stem, as published.

use super::Blueprint;
use super::residual::{Block, network};
use crate::{Error, Graph, GraphBuilder};

pub(super) fn build(blueprint: &Blueprint<'_>, b: GraphBuilder) -> Result<Graph, Error> {
    blueprint.image("resnet18")?;
    network(blueprint, b, "image", (Block::Basic, [2; 4]))
}
