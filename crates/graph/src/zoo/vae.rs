//! Variational auto-encoder (Kingma & Welling 2014, arXiv:1312.6114, appendix C): one hidden layer of 400 units, 20 latent
//! variables.
//!
//! ```text
//! h = ReLU(W₁ x);  μ = W₂₁ h;  ln σ² = W₂₂ h;  z = μ + σ · noise;  x' = sigmoid(W₄ ReLU(W₃ z))
//! ```
//!
//! Inputs: samples in the unit of the data, and standard normal noise `[batch, 20]`, which the caller draws (zeros give the
//! mean). Outputs: the reconstruction in the unit of the data, μ, and ln σ². Samples are scaled to [0, 1] by the bounds of
//! their domain.
//!
//! Differs from the source: ReLU for tanh and 400 units for 500, as in the VAE of `pytorch/examples`, whose names the weights
//! have; that one has 652,824 parameters for images of 28×28.

use super::Blueprint;
use crate::operators::{Activation, Arithmetic, Reshape, Unary};
use crate::{Error, Graph, GraphBuilder, Tensor};

const HIDDEN: usize = 400;
const LATENT: usize = 20;

pub(super) fn build(blueprint: &Blueprint<'_>, mut b: GraphBuilder) -> Result<Graph, Error> {
    let domain = &blueprint.spec.domain;
    let x = b.input("sample", domain.shape());
    let noise = b.input("noise", &[LATENT]);
    let x = blueprint.scaled(&mut b, &x);
    let x = b.flatten("flat", &x);
    let x = b.linear("fc1", &x, (domain.elements(), HIDDEN));
    let x = b.relu("fc1.relu", &x);
    let mean = b.linear("fc21", &x, (HIDDEN, LATENT));
    let log_variance = b.linear("fc22", &x, (HIDDEN, LATENT));
    let half = b.constant("half", Tensor::scalar(0.5));
    let log_deviation = b.node("log_deviation", Arithmetic::Mul, &[&log_variance, &half]);
    let deviation = b.node("deviation", Unary::Exp, &[&log_deviation]);
    let spread = b.node("spread", Arithmetic::Mul, &[&noise, &deviation]);
    let latent = b.add("latent", &mean, &spread);
    let x = b.linear("fc3", &latent, (LATENT, HIDDEN));
    let x = b.relu("fc3.relu", &x);
    let x = b.linear("fc4", &x, (HIDDEN, domain.elements()));
    let x = b.node("fc4.sigmoid", Activation::Sigmoid, &[&x]);
    let mut shape = vec![-1];
    shape.extend(domain.shape().iter().map(|&side| side as i64));
    let shape = b.constant("shape", Tensor::list(&shape));
    let x = b.node("shaped", Reshape { allow_zero: false }, &[&x, &shape]);
    let reconstruction = blueprint.unscaled(&mut b, "reconstruction", &x);
    b.finish(&[&reconstruction, &mean, &log_variance])
}
