//! What a plan is made of: one file a family of layers.

pub(crate) mod convolution;
pub(crate) mod function;
pub(crate) mod movement;
pub(crate) mod normalization;
pub(crate) mod pointwise;
pub(crate) mod pool;
pub(crate) mod product;
pub(crate) mod recurrent;
pub(crate) mod softmax;

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
    /// The output where [`Layer::keeps_output`], else empty.
    pub(crate) output: &'a [f32],
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

    /// Whether the way back reads the output.
    fn keeps_output(&self) -> bool {
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

#[cfg(test)]
pub(crate) mod tests {
    use nocebo_core::Seed;
    use rand::RngExt;

    use super::{Backward, Forward, Layer};
    use crate::kernels::{Buffer, InstructionSet};

    /// Numbers in ±1.
    pub(crate) fn numbers(count: usize, seed: u64) -> Vec<f32> {
        let mut generator = Seed(seed).for_sample(0);
        (0..count).map(|_| generator.random_range(-1.0..1.0)).collect()
    }

    fn dot(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    /// Holds a layer against `reference`, one sample in f64: its outputs by relative error, and its gradients along some
    /// directions by the differences of the reference.
    pub(crate) fn agrees_with_f64(
        set: InstructionSet,
        layer: &dyn Layer,
        samples: usize,
        inputs: &[Vec<f32>],
        elements: usize,
        tolerance: f64,
        reference: impl Fn(&[Vec<f64>]) -> Vec<f64>,
    ) {
        const STEP: f64 = 1e-5;
        let name = layer.kernel();
        let mut saved = Buffer::zeroed((layer.saved() * samples).div_ceil(4));
        let mut memory = Buffer::default();
        let given: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
        let mut output = vec![f32::NAN; elements * samples];
        let saved = &mut saved.bytes_mut()[..layer.saved() * samples];
        layer.forward(Forward {
            set,
            samples,
            inputs: &given,
            output: &mut output,
            saved,
            rectified: None,
            memory: &mut memory,
        });
        let exact = |values: &[f32]| -> Vec<f64> { values.iter().map(|value| f64::from(*value)).collect() };
        let of_sample = |sample: usize| -> Vec<Vec<f64>> {
            let part = |values: &Vec<f32>| exact(&values[values.len() / samples * sample..][..values.len() / samples]);
            inputs.iter().map(part).collect()
        };
        let slope = numbers(output.len(), 77);
        for sample in 0..samples {
            let expected = reference(&of_sample(sample));
            let got = exact(&output[sample * elements..][..elements]);
            let difference: Vec<f64> = got.iter().zip(&expected).map(|(got, expected)| got - expected).collect();
            let error = (dot(&difference, &difference) / dot(&expected, &expected)).sqrt();
            assert!(error < tolerance, "{set} {name}: {error} forward");
        }
        for position in 0..inputs.len() {
            let before = numbers(inputs[position].len(), 78);
            for accumulate in [false, true] {
                let mut gradient = if accumulate { before.clone() } else { vec![f32::NAN; before.len()] };
                layer.backward(Backward {
                    set,
                    samples,
                    inputs: &given,
                    output: &output,
                    saved,
                    slope: &slope,
                    position,
                    gradient: &mut gradient,
                    accumulate,
                    passing: None,
                    memory: &mut memory,
                });
                if accumulate {
                    gradient.iter_mut().zip(&before).for_each(|(gradient, before)| *gradient -= before);
                }
                let size = gradient.len() / samples;
                for sample in 0..samples {
                    let gradient = exact(&gradient[sample * size..][..size]);
                    let slope = exact(&slope[sample * elements..][..elements]);
                    for direction in 0..4 {
                        let direction = exact(&numbers(size, 80 + direction));
                        let moved = |by: f64| {
                            let mut inputs = of_sample(sample);
                            inputs[position].iter_mut().zip(&direction).for_each(|(x, d)| *x += by * d);
                            dot(&reference(&inputs), &slope)
                        };
                        let expected = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
                        let scale = (dot(&gradient, &gradient) * dot(&direction, &direction)).sqrt();
                        let error = (dot(&gradient, &direction) - expected).abs() / scale.max(1e-3);
                        // Adding to what is there, and taking it away again, rounds.
                        let tolerance = tolerance.max(if accumulate { 1e-5 } else { 1e-8 });
                        assert!(error < tolerance, "{set} {name}: {error} back by input {position}, {accumulate}");
                    }
                }
            }
        }
    }
}
