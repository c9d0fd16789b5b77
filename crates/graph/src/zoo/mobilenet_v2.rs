//! MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381).
//!
//! ```text
//! inverted residual: 1×1 convolution to t times the channels → 3×3 depthwise convolution → 1×1 convolution, each with batch
//! norm, the first two with ReLU6; a shortcut where the shape stays
//! ```
//!
//! 3,504,872 parameters for 3 channels and 1,000 classes, as torchvision's `mobilenet_v2` has.

use super::Blueprint;
use crate::builder::Handle;
use crate::operators::{Clip, Convolution, Dropout};
use crate::{Error, Graph, GraphBuilder, Tensor};

/// Expansion t, channels, blocks and stride of the first block of each stage (table 2 of the paper).
const STAGES: [(usize, usize, usize, usize); 7] =
    [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)];

/// Limits of ReLU6, shared by all.
struct Limits([Handle; 2]);

pub(super) fn build(blueprint: &Blueprint<'_>, mut b: GraphBuilder) -> Result<Graph, Error> {
    let [channels, ..] = blueprint.image("mobilenet-v2")?;
    let x = blueprint.input(&mut b, "image");
    let limits =
        Limits([("relu6.low", 0.0), ("relu6.high", 6.0)].map(|(name, limit)| b.constant(name, Tensor::scalar(limit))));
    let mut width = 32;
    let mut x = limits.layer(&mut b, "features.0", &x, (channels, width), 3, Convolution::new(2, 2, 1));
    let mut number = 1;
    for (expansion, to, blocks, stride) in STAGES {
        for block in 0..blocks {
            let stride = if block == 0 { stride } else { 1 };
            x = limits.block(&mut b, &format!("features.{number}"), &x, (width, to), stride, expansion);
            width = to;
            number += 1;
        }
    }
    x = limits.layer(&mut b, &format!("features.{number}"), &x, (width, 1280), 1, Convolution::new(2, 1, 0));
    x = b.global_average("avgpool", &x);
    let ratio = b.constant("classifier.dropout", Tensor::scalar(0.2));
    x = b.node("classifier.0", Dropout, &[&x, &ratio]);
    let logits = b.linear("classifier.1", &x, (1280, blueprint.outputs()));
    b.finish(&[&logits])
}

impl Limits {
    /// Convolution, batch norm and ReLU6.
    fn layer(
        &self,
        b: &mut GraphBuilder,
        name: &str,
        x: &Handle,
        channels: (usize, usize),
        side: usize,
        convolution: Convolution,
    ) -> Handle {
        let y = b.convolution(&format!("{name}.0"), x, channels, side, convolution);
        let y = b.batch_normalization(&format!("{name}.1"), &y, channels.1);
        b.node(&format!("{name}.2"), Clip, &[&y, &self.0[0], &self.0[1]])
    }

    /// An inverted residual.
    fn block(
        &self,
        b: &mut GraphBuilder,
        name: &str,
        x: &Handle,
        (from, to): (usize, usize),
        stride: usize,
        expansion: usize,
    ) -> Handle {
        let hidden = from * expansion;
        let mut part = 0;
        let mut y = x.clone();
        if expansion > 1 {
            y = self.layer(b, &format!("{name}.conv.0"), &y, (from, hidden), 1, Convolution::new(2, 1, 0));
            part += 1;
        }
        let depthwise = Convolution::new(2, stride, 1).grouped(hidden);
        y = self.layer(b, &format!("{name}.conv.{part}"), &y, (hidden, hidden), 3, depthwise);
        y = b.convolution(&format!("{name}.conv.{}", part + 1), &y, (hidden, to), 1, Convolution::new(2, 1, 0));
        y = b.batch_normalization(&format!("{name}.conv.{}", part + 2), &y, to);
        if stride == 1 && from == to { b.add(&format!("{name}.add"), x, &y) } else { y }
    }
}
