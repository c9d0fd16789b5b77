//! Generator and discriminator of a deep convolutional GAN (Radford et al. 2016, arXiv:1511.06434), made for the size of the
//! images: the side is halved while it is even and above 4, with 64 channels at the largest size and twice as many a step.
//!
//! ```text
//! generator: latent [batch, 100] → transposed convolutions, each with batch norm and ReLU → tanh → image in its bounds
//! discriminator: image → convolutions of side 4 and stride 2, each with batch norm (not the first) and leaky ReLU → logit
//! ```
//!
//! Weights are named as in the DCGAN of `pytorch/examples`, which has 3,576,704 parameters in the generator and 2,765,568 in
//! the discriminator for 3 channels and 64×64; images are scaled to [-1, 1] by the bounds of their domain.

use super::Blueprint;
use crate::operators::{Activation, Arithmetic, Convolution, Flatten, Reshape, TransposedConvolution};
use crate::{Error, Graph, GraphBuilder, Tensor};

const LATENT: usize = 100;

/// Channels at the largest size.
const WIDTH: usize = 64;

/// How often the sides are halved, and what remains of them.
fn halvings(blueprint: &Blueprint<'_>, name: &str) -> Result<(usize, usize, [usize; 2]), Error> {
    let [channels, mut height, mut width] = blueprint.image(name)?;
    let mut steps = 0;
    while height.is_multiple_of(2) && width.is_multiple_of(2) && height.min(width) > 4 {
        (height, width) = (height / 2, width / 2);
        steps += 1;
    }
    if steps == 0 {
        return Err(Error::graph(
            format!("input of {name}"),
            "an image with even sides above 4",
            format!("{height}×{width}"),
        ));
    }
    Ok((channels, steps, [height, width]))
}

pub(super) fn build_generator(blueprint: &Blueprint<'_>, mut b: GraphBuilder) -> Result<Graph, Error> {
    let (channels, steps, least) = halvings(blueprint, "gan-generator")?;
    let x = b.input("latent", &[LATENT]);
    let shape = b.constant("point.shape", Tensor::list(&[-1, LATENT as i64, 1, 1]));
    let mut x = b.node("point", Reshape { allow_zero: false }, &[&x, &shape]);
    let mut from = LATENT;
    for step in 0..=steps {
        let convolution = if step == 0 {
            TransposedConvolution { kernel: least.to_vec(), strides: vec![1; 2], ..TransposedConvolution::default() }
        } else {
            TransposedConvolution { strides: vec![2; 2], pads: vec![1; 4], ..TransposedConvolution::default() }
        };
        let to = if step == steps { channels } else { WIDTH << (steps - 1 - step) };
        let name = |part: usize| format!("main.{}", 3 * step + part);
        x = b.transposed_convolution_without_bias(&name(0), &x, (from, to), 4, convolution);
        if step < steps {
            x = b.batch_normalization(&name(1), &x, to);
            x = b.relu(&name(2), &x);
        } else {
            x = b.node(&name(1), Activation::Tanh, &[&x]);
        }
        from = to;
    }
    let one = b.constant("one", Tensor::scalar(1.0));
    let half = b.constant("half", Tensor::scalar(0.5));
    let x = b.add("positive", &x, &one);
    let x = b.node("scaled", Arithmetic::Mul, &[&x, &half]);
    let image = blueprint.unscaled(&mut b, "image", &x);
    b.finish(&[&image])
}

pub(super) fn build_discriminator(blueprint: &Blueprint<'_>, mut b: GraphBuilder) -> Result<Graph, Error> {
    let (channels, steps, least) = halvings(blueprint, "gan-discriminator")?;
    let x = b.input("image", blueprint.spec.domain.shape());
    let x = blueprint.scaled(&mut b, &x);
    let two = b.constant("two", Tensor::scalar(2.0));
    let one = b.constant("one", Tensor::scalar(1.0));
    let x = b.node("doubled", Arithmetic::Mul, &[&x, &two]);
    let mut x = b.node("centred", Arithmetic::Sub, &[&x, &one]);
    let mut from = channels;
    let mut parts = 0..;
    let mut name = || format!("main.{}", parts.next().unwrap_or(0));
    for step in 0..steps {
        let to = WIDTH << step;
        x = b.convolution(&name(), &x, (from, to), 4, Convolution::new(2, 2, 1));
        if step > 0 {
            x = b.batch_normalization(&name(), &x, to);
        }
        x = b.node(&name(), Activation::LeakyRelu { alpha: 0.2 }, &[&x]);
        from = to;
    }
    let last = Convolution { kernel: least.to_vec(), ..Convolution::new(2, 1, 0) };
    x = b.convolution(&name(), &x, (from, 1), 0, last);
    let logit = b.node("logit", Flatten { axis: 1 }, &[&x]);
    b.finish(&[&logit])
}
