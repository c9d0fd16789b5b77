//! What a plan is made of: one file a family of layers.

pub(crate) mod convolution;
pub(crate) mod function;
pub(crate) mod movement;
pub(crate) mod pointwise;
pub(crate) mod pool;

use crate::kernels::{Buffer, InstructionSet};

/// What a layer is given in the forward direction. All slices hold `samples` samples.
pub(crate) struct Forward<'a> {
    pub(crate) set: InstructionSet,
    pub(crate) samples: usize,
    pub(crate) inputs: &'a [&'a [f32]],
    pub(crate) output: &'a mut [f32],
    /// What the layer keeps for the way back: [`Layer::saved`] bytes a sample.
    pub(crate) saved: &'a mut [u8],
    /// Where a ReLU follows that the layer is to do itself: its bits.
    pub(crate) rectified: Option<&'a mut [u8]>,
    /// Memory for whatever the layer needs.
    pub(crate) memory: &'a mut Buffer,
}

/// What a layer is given on the way back: the gradient by its output, for which it finds that by one input.
pub(crate) struct Backward<'a> {
    pub(crate) set: InstructionSet,
    pub(crate) samples: usize,
    /// The inputs where [`Layer::keeps_inputs`], else empty slices.
    pub(crate) inputs: &'a [&'a [f32]],
    pub(crate) saved: &'a [u8],
    /// Gradient by the output; that of a ReLU behind the layer is in it already.
    pub(crate) slope: &'a [f32],
    /// Which input.
    pub(crate) position: usize,
    /// Gradient by that input.
    pub(crate) gradient: &'a mut [f32],
    /// Whether to add to what `gradient` holds.
    pub(crate) accumulate: bool,
    /// Bits of the ReLU that made the input, where [`Layer::masks`] for this position.
    pub(crate) passing: Option<&'a [u8]>,
    pub(crate) memory: &'a mut Buffer,
}

/// How the gradient by an input heeds the bits of the ReLU that made the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Masking {
    /// Not at all.
    None,
    /// Where it writes; elements that it does not touch stay as they are.
    Touched,
    /// In every element.
    Whole,
}

/// One step of a network, for samples of a fixed shape.
pub(crate) trait Layer: Send + Sync {
    fn forward(&self, pass: Forward<'_>);

    fn backward(&self, pass: Backward<'_>);

    /// Whether the way back reads the inputs.
    fn keeps_inputs(&self) -> bool {
        false
    }

    /// Bytes a sample that the layer keeps for the way back.
    fn saved(&self) -> usize {
        0
    }

    /// Whether the layer can do a ReLU itself.
    fn rectifies(&self) -> bool {
        false
    }

    /// Whether and how the gradient by this input heeds [`Backward::passing`].
    fn masks(&self, _position: usize) -> Masking {
        Masking::None
    }

    /// Whether the gradient by this input is the gradient by the output itself.
    fn passes_through(&self, _position: usize) -> bool {
        false
    }

    /// Whether the way back should come after those of the input's other readers: it touches few elements.
    fn comes_last(&self) -> bool {
        false
    }

    /// What computes it, in few words.
    fn kernel(&self) -> String;
}
