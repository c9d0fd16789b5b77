//! Layers that treat each element alone, and sums of values.

use super::{Backward, Forward, Layer, Masking};
use crate::kernels::{Finish, bit_stride, scaled};

/// Adds the gradient by the output to that by the input: what layers do whose derivative is 1.
#[expect(clippy::needless_pass_by_value, reason = "stands in for a layer's way back, which is handed its pass")]
pub(crate) fn pass_on(pass: Backward<'_>) {
    let finish = Finish { accumulate: pass.accumulate, ..Finish::default() };
    let sides = (pass.samples, pass.gradient.len() / pass.samples.max(1));
    scaled(pass.set, sides, Some(pass.slope), None, pass.gradient, finish);
}

/// `max(x, 0)` on its own.
pub(crate) struct Relu {
    pub(crate) channels: usize,
    /// Elements of a sample.
    pub(crate) elements: usize,
}

impl Layer for Relu {
    fn forward(&self, pass: Forward<'_>) {
        let places = pass.output.len() / self.channels;
        let finish = Finish { rectified: Some(pass.saved), ..Finish::default() };
        scaled(pass.set, (places, self.channels), Some(pass.inputs[0]), None, pass.output, finish);
    }

    fn backward(&self, pass: Backward<'_>) {
        let places = pass.slope.len() / self.channels;
        if pass.accumulate {
            // The bits speak for the new part alone.
            let mut part = std::mem::take(pass.memory);
            let room = crate::kernels::reserve(&mut part, pass.slope.len());
            let finish = Finish { passing: Some(pass.saved), ..Finish::default() };
            scaled(pass.set, (places, self.channels), Some(pass.slope), None, room, finish);
            let finish = Finish { accumulate: true, ..Finish::default() };
            scaled(pass.set, (places, self.channels), Some(room), None, pass.gradient, finish);
            *pass.memory = part;
        } else {
            let finish = Finish { passing: Some(pass.saved), ..Finish::default() };
            scaled(pass.set, (places, self.channels), Some(pass.slope), None, pass.gradient, finish);
        }
    }

    fn saved(&self) -> usize {
        self.elements / self.channels * bit_stride(self.channels)
    }

    fn kernel(&self) -> String {
        "relu".to_owned()
    }
}

/// `scale · x + shift` with constants that repeat every `scale.len()` elements of a sample.
pub(crate) struct Affine {
    pub(crate) scale: Vec<f32>,
    pub(crate) shift: Vec<f32>,
    /// Channels of the value, for the bits of a ReLU.
    pub(crate) channels: usize,
}

impl Affine {
    /// The constants repeated into rows of useful length, where a sample of `elements` is a whole number of rows.
    pub(crate) fn new(scale: &[f32], shift: &[f32], channels: usize, elements: usize) -> Self {
        /// Length of a row that keeps vectors busy and constants in the cache.
        const ROW: usize = 2048;
        let places = elements / scale.len().max(1);
        let repeat = (1..=places).rev().find(|repeat| places.is_multiple_of(*repeat) && repeat * scale.len() <= ROW);
        let (scale, shift) = (scale.repeat(repeat.unwrap_or(1)), shift.repeat(repeat.unwrap_or(1)));
        Self { scale, shift, channels }
    }
}

impl Layer for Affine {
    fn forward(&self, pass: Forward<'_>) {
        let (scale, shift) = if pass.rectified.is_some() {
            (&self.scale[..self.channels], &self.shift[..self.channels])
        } else {
            (&self.scale[..], &self.shift[..])
        };
        let sides = (pass.output.len() / scale.len(), scale.len());
        let finish = Finish { bias: Some(shift), rectified: pass.rectified, ..Finish::default() };
        scaled(pass.set, sides, Some(pass.inputs[0]), Some(scale), pass.output, finish);
    }

    fn backward(&self, pass: Backward<'_>) {
        let per_channel = pass.passing.is_some();
        let scale = if per_channel { &self.scale[..self.channels] } else { &self.scale[..] };
        let sides = (pass.slope.len() / scale.len(), scale.len());
        let finish = Finish { accumulate: pass.accumulate, passing: pass.passing, ..Finish::default() };
        scaled(pass.set, sides, Some(pass.slope), Some(scale), pass.gradient, finish);
    }

    fn rectifies(&self) -> bool {
        self.scale.len().is_multiple_of(self.channels) && self.per_channel()
    }

    fn masks(&self, _position: usize) -> Masking {
        if self.per_channel() { Masking::Whole } else { Masking::None }
    }

    fn kernel(&self) -> String {
        "scale and shift".to_owned()
    }
}

impl Affine {
    /// Whether the constants repeat with the channels.
    fn per_channel(&self) -> bool {
        let repeats = |values: &[f32]| values.chunks(self.channels).all(|chunk| *chunk == values[..self.channels]);
        self.scale.len().is_multiple_of(self.channels) && repeats(&self.scale) && repeats(&self.shift)
    }
}

/// `x + y`.
pub(crate) struct Add {
    /// Channels of the value, for the bits of a ReLU.
    pub(crate) channels: usize,
}

impl Layer for Add {
    fn forward(&self, pass: Forward<'_>) {
        let finish = Finish { residual: Some(pass.inputs[1]), rectified: pass.rectified, ..Finish::default() };
        let sides = (pass.output.len() / self.channels, self.channels);
        scaled(pass.set, sides, Some(pass.inputs[0]), None, pass.output, finish);
    }

    fn backward(&self, pass: Backward<'_>) {
        pass_on(pass);
    }

    fn rectifies(&self) -> bool {
        true
    }

    fn passes_through(&self, _position: usize) -> bool {
        true
    }

    fn kernel(&self) -> String {
        "sum".to_owned()
    }
}
