//! ResNet-18 with one axis of space, for electrocardiograms: the layers of He et al. 2016 (arXiv:1512.03385) over
//! `[leads, length]`, as Strodthoff et al. 2020 (arXiv:2004.13701) compare such networks on 12-lead recordings.
//!
//! Signals of less than 64 values get the small stem of [`super::resnet18`]. Whoever wants the long kernels of some ECG
//! networks finds them in neither; kernels are 7 in the large stem and 3 elsewhere.

use super::Blueprint;
use super::residual::{Block, network};
use crate::{Error, Graph, GraphBuilder};

pub(super) fn build(blueprint: &Blueprint<'_>, b: GraphBuilder) -> Result<Graph, Error> {
    blueprint.signal("resnet1d")?;
    network(blueprint, b, "signal", (Block::Basic, [2; 4]))
}
