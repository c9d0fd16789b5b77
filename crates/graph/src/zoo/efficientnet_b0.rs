//! EfficientNet-B0 (Tan & Le 2019, arXiv:1905.11946).
//!
//! ```text
//! block: 1×1 convolution to t times the channels → k×k depthwise convolution → squeeze and excitation → 1×1 convolution,
//! each convolution with batch norm, the first two with SiLU; a shortcut where the shape stays
//! squeeze and excitation: channels scaled by sigmoid(W₂ SiLU(W₁ mean))
//! ```
//!
//! Differs from the source: no stochastic depth in training.
//!
//! 5,288,548 parameters for 3 channels and 1,000 classes, as torchvision's `efficientnet_b0` has.

use super::Blueprint;
use crate::builder::Handle;
use crate::operators::{Activation, Arithmetic, Convolution, Dropout, GlobalPool, PoolKind};
use crate::{Error, Graph, GraphBuilder, Tensor};

/// Expansion t, kernel k, stride of the first block, channels and blocks of each stage (table 1 of the paper).
const STAGES: [(usize, usize, usize, usize, usize); 7] = [
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
];

pub(super) fn build(blueprint: &Blueprint<'_>, mut b: GraphBuilder) -> Result<Graph, Error> {
    let [channels, ..] = blueprint.image("efficientnet-b0")?;
    let x = blueprint.input(&mut b, "image");
    let mut width = 32;
    let mut x = layer(&mut b, "features.0", &x, (channels, width), 3, Convolution::new(2, 2, 1));
    for (stage, (expansion, side, stride, to, blocks)) in (1..).zip(STAGES) {
        for number in 0..blocks {
            let stride = if number == 0 { stride } else { 1 };
            x = block(&mut b, &format!("features.{stage}.{number}"), &x, (width, to), (side, stride), expansion);
            width = to;
        }
    }
    x = layer(&mut b, "features.8", &x, (width, 1280), 1, Convolution::new(2, 1, 0));
    x = b.global_average("avgpool", &x);
    let ratio = b.constant("classifier.dropout", Tensor::scalar(0.2));
    x = b.node("classifier.0", Dropout, &[&x, &ratio]);
    let logits = b.linear("classifier.1", &x, (1280, blueprint.outputs()));
    b.finish(&[&logits])
}

/// x · sigmoid(x).
fn silu(b: &mut GraphBuilder, name: &str, x: &Handle) -> Handle {
    let gate = b.node(&format!("{name}.sigmoid"), Activation::Sigmoid, &[x]);
    b.node(name, Arithmetic::Mul, &[x, &gate])
}

/// Convolution, batch norm and SiLU.
fn layer(
    b: &mut GraphBuilder,
    name: &str,
    x: &Handle,
    channels: (usize, usize),
    side: usize,
    convolution: Convolution,
) -> Handle {
    let y = b.convolution(&format!("{name}.0"), x, channels, side, convolution);
    let y = b.batch_normalization(&format!("{name}.1"), &y, channels.1);
    silu(b, &format!("{name}.2"), &y)
}

fn block(
    b: &mut GraphBuilder,
    name: &str,
    x: &Handle,
    (from, to): (usize, usize),
    (side, stride): (usize, usize),
    expansion: usize,
) -> Handle {
    let hidden = from * expansion;
    let mut parts = 0..;
    let mut part = || format!("{name}.block.{}", parts.next().unwrap_or(0));
    let mut y = x.clone();
    if expansion > 1 {
        y = layer(b, &part(), &y, (from, hidden), 1, Convolution::new(2, 1, 0));
    }
    let depthwise = Convolution::new(2, stride, side / 2).grouped(hidden);
    y = layer(b, &part(), &y, (hidden, hidden), side, depthwise);
    y = excited(b, &part(), &y, (hidden, (from / 4).max(1)));
    let last = part();
    y = b.convolution(&format!("{last}.0"), &y, (hidden, to), 1, Convolution::new(2, 1, 0));
    y = b.batch_normalization(&format!("{last}.1"), &y, to);
    if stride == 1 && from == to { b.add(&format!("{name}.add"), &y, x) } else { y }
}

/// Squeeze and excitation.
fn excited(b: &mut GraphBuilder, name: &str, x: &Handle, (channels, squeezed): (usize, usize)) -> Handle {
    let part = |part: &str| format!("{name}.{part}");
    let kind = PoolKind::Average { include_padding: false };
    let y = b.node(&part("avgpool"), GlobalPool { kind }, &[x]);
    let y = b.convolution_with_bias(&part("fc1"), &y, (channels, squeezed), 1, Convolution::new(2, 1, 0));
    let y = silu(b, &part("activation"), &y);
    let y = b.convolution_with_bias(&part("fc2"), &y, (squeezed, channels), 1, Convolution::new(2, 1, 0));
    let scale = b.node(&part("scale"), Activation::Sigmoid, &[&y]);
    b.node(&part("scaled"), Arithmetic::Mul, &[x, &scale])
}
