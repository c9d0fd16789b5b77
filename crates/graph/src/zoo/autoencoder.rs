//! The convolutional auto-encoder of MagNet (Meng & Chen 2017, arXiv:1705.09064, the one for MNIST): images in, images of
//! the same size out, both in the unit of the data.
//!
//! ```text
//! 3×3 convolution → mean of 2×2 → two 3×3 convolutions → nearest neighbours to the old size → two 3×3 convolutions
//! ```
//!
//! Three channels inside, sigmoid after every convolution. Samples are scaled to [0, 1] by the bounds of their domain.

use super::Blueprint;
use crate::builder::Handle;
use crate::operators::{Activation, Convolution, Pool, PoolKind, Resize, ResizeMode};
use crate::{Error, Graph, GraphBuilder, Tensor};

/// Channels inside.
const WIDTH: usize = 3;

pub(super) fn build(blueprint: &Blueprint<'_>, mut b: GraphBuilder) -> Result<Graph, Error> {
    let [channels, height, width] = blueprint.image("autoencoder")?;
    let x = b.input("image", &[channels, height, width]);
    let x = blueprint.scaled(&mut b, &x);
    let x = layer(&mut b, "encoder.0", &x, (channels, WIDTH));
    let x = b.node("encoder.2", Pool::new(PoolKind::Average { include_padding: false }, 2, 2, 2, 0), &[&x]);
    let x = layer(&mut b, "encoder.3", &x, (WIDTH, WIDTH));
    let x = layer(&mut b, "decoder.0", &x, (WIDTH, WIDTH));
    let sizes = b.constant("decoder.2.sizes", Tensor::list(&[height as i64, width as i64]));
    let absent = GraphBuilder::absent();
    let nearest = Resize { axes: vec![2, 3], ..Resize::new(ResizeMode::Nearest) };
    let x = b.node("decoder.2", nearest, &[&x, &absent, &absent, &sizes]);
    let x = layer(&mut b, "decoder.3", &x, (WIDTH, WIDTH));
    let x = layer(&mut b, "decoder.5", &x, (WIDTH, channels));
    let image = blueprint.unscaled(&mut b, "reconstruction", &x);
    b.finish(&[&image])
}

fn layer(b: &mut GraphBuilder, name: &str, x: &Handle, channels: (usize, usize)) -> Handle {
    let y = b.convolution_with_bias(name, x, channels, 3, Convolution::new(2, 1, 1));
    b.node(&format!("{name}.sigmoid"), Activation::Sigmoid, &[&y])
}
