//! EEGNet-8,2 (Lawhern et al. 2018, arXiv:1611.08024) for electroencephalograms `[electrodes, length]` of 32 values and
//! more.
//!
//! ```text
//! convolution over 64 values → batch norm                                                    8 filters in time
//! depthwise convolution over the electrodes → batch norm → ELU → mean of 4 → dropout         2 in space for each
//! depthwise convolution over 16 values → 1×1 convolution → batch norm → ELU → mean of 8 → dropout → linear
//! ```
//!
//! The first kernels span half a second at the 128 Hz of the paper. Differs from the source: no limit on the norm of weights.
//!
//! 2,258 parameters for 64 electrodes, 128 values and 2 classes, as the paper's table of parameters has for P300 (our
//! reading of its settings).

use super::Blueprint;
use crate::operators::{Activation, AutoPad, Convolution, Dropout, Pool, PoolKind, Unsqueeze};
use crate::{Error, Graph, GraphBuilder, Tensor};

/// Filters in time, and in time and space.
const FILTERS: (usize, usize) = (8, 16);

/// Fewest values that the two means leave something of.
const SHORTEST: usize = 32;

pub(super) fn build(blueprint: &Blueprint<'_>, mut b: GraphBuilder) -> Result<Graph, Error> {
    let [electrodes, length] = blueprint.signal("eegnet")?;
    if length < SHORTEST {
        return Err(Error::graph("input of eegnet", format!("a signal of {SHORTEST} values at least"), length));
    }
    let (time, space) = FILTERS;
    let kernel = |kernel: [usize; 2], groups| Convolution {
        kernel: kernel.to_vec(),
        strides: vec![1, 1],
        auto_pad: AutoPad::SameUpper,
        groups,
        ..Convolution::default()
    };
    let x = blueprint.input(&mut b, "signal");
    let axis = b.constant("axis", Tensor::list(&[1]));
    let mut x = b.node("plane", Unsqueeze, &[&x, &axis]);
    x = b.convolution("conv_temporal", &x, (1, time), 0, kernel([1, 64], 1));
    x = b.batch_normalization("bnorm_temporal", &x, time);
    let across = Convolution { auto_pad: AutoPad::Valid, ..kernel([electrodes, 1], time) };
    x = b.convolution("conv_spatial", &x, (time, space), 0, across);
    let ratio = b.constant("dropout", Tensor::scalar(0.5));
    for (part, mean) in [(1, 4), (2, 8)] {
        if part == 2 {
            x = b.convolution("conv_separable_depth", &x, (space, space), 0, kernel([1, 16], space));
            x = b.convolution("conv_separable_point", &x, (space, space), 0, kernel([1, 1], 1));
        }
        x = b.batch_normalization(&format!("bnorm_{part}"), &x, space);
        x = b.node(&format!("elu_{part}"), Activation::Elu { alpha: 1.0 }, &[&x]);
        let pool = Pool {
            kernel: vec![1, mean],
            strides: vec![1, mean],
            ..Pool::new(PoolKind::Average { include_padding: false }, 2, 1, 1, 0)
        };
        x = b.node(&format!("pool_{part}"), pool, &[&x]);
        x = b.node(&format!("drop_{part}"), Dropout, &[&x, &ratio]);
    }
    x = b.flatten("flat", &x);
    let logits = b.linear("classifier", &x, (space * (length / SHORTEST), blueprint.outputs()));
    b.finish(&[&logits])
}
