//! VGG-16, configuration D (Simonyan & Zisserman 2015, arXiv:1409.1556), for images from 32 pixels a side.
//!
//! 138,357,544 parameters for 3 channels, 1,000 classes and images of 224 pixels, as torchvision's `vgg16` has. Images of
//! another size have another first matrix of the classifier; torchvision resizes the pooled image to 7×7 instead.

use super::Blueprint;
use crate::operators::{Convolution, Dropout};
use crate::{Error, Graph, GraphBuilder, Tensor};

/// Channels of the convolutions of each stage; a max-pool ends it.
const STAGES: [&[usize]; 5] = [&[64, 64], &[128, 128], &[256, 256, 256], &[512, 512, 512], &[512, 512, 512]];

/// Units of the hidden layers of the classifier.
const HIDDEN: usize = 4096;

pub(super) fn build(blueprint: &Blueprint<'_>, mut b: GraphBuilder) -> Result<Graph, Error> {
    let [mut channels, height, width] = blueprint.image("vgg16")?;
    if height.min(width) < 32 {
        return Err(Error::graph(
            "input of vgg16",
            "an image of 32 pixels a side at least",
            format!("{height}×{width}"),
        ));
    }
    let mut x = blueprint.input(&mut b, "image");
    let mut layers = 0..;
    let mut name = || format!("features.{}", layers.next().unwrap_or(0));
    for stage in STAGES {
        for &to in stage {
            x = b.convolution_with_bias(&name(), &x, (channels, to), 3, Convolution::new(2, 1, 1));
            x = b.relu(&name(), &x);
            channels = to;
        }
        x = b.max_pool(&name(), &x, 2, 2, 0);
    }
    x = b.flatten("flatten", &x);
    let ratio = b.constant("classifier.dropout", Tensor::scalar(0.5));
    let mut units = channels * (height >> STAGES.len()) * (width >> STAGES.len());
    for layer in [0, 3] {
        x = b.linear(&format!("classifier.{layer}"), &x, (units, HIDDEN));
        x = b.relu(&format!("classifier.{}", layer + 1), &x);
        x = b.node(&format!("classifier.{}", layer + 2), Dropout, &[&x, &ratio]);
        units = HIDDEN;
    }
    let logits = b.linear("classifier.6", &x, (HIDDEN, blueprint.outputs()));
    b.finish(&[&logits])
}
