//! Recurrent layers, behind the linear layer that makes the gates' arguments from the input.

use rayon::prelude::*;

use super::{Backward, Forward, Layer};
use crate::kernels::{
    Finish, Gathered, InstructionSet, Packed, Run, floats, floats_mut, gathered, reserve, vectorised,
};
use crate::math::{sigmoid, tanh};

/// Which recurrent layer, with the usual activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    /// `h ← tanh(a)`, where `a = x + h R + b`.
    Plain,
    /// Gates update `z`, reset `r` and candidate `n`: `h ← (1 - z) n + z h`, where the reset gate is applied behind the
    /// product: `n = tanh(x + r (h R + b))`.
    Gru,
    /// Gates input `i`, output `o`, forget `f` and candidate `g`: `c ← f c + i g`, `h ← o tanh(c)`.
    Lstm,
}

impl Cell {
    pub(crate) fn gates(self) -> usize {
        match self {
            Self::Plain => 1,
            Self::Gru => 3,
            Self::Lstm => 4,
        }
    }

    /// Numbers of a step that the way back needs, in units of the hidden size: the gates, and the cell state or the product
    /// that the reset gate is applied to.
    fn kept(self) -> usize {
        match self {
            Self::Plain => 0,
            Self::Gru => 4,
            Self::Lstm => 5,
        }
    }
}

/// One direction of a recurrent layer.
///
/// From `[time][gates · hidden]`, the products with the input, to the hidden states `[time][hidden]`; an LSTM adds its last
/// cell state, `[hidden]`.
pub(crate) struct Recurrence {
    cell: Cell,
    time: usize,
    hidden: usize,
    backwards: bool,
    /// First hidden and cell state.
    first: [Vec<f32>; 2],
    bias: Vec<f32>,
    recurrent: Gathered,
    transposed: Gathered,
}

/// Samples that a task takes through all steps: threads that meet at every step would mostly wait.
fn samples_of_task(samples: usize) -> usize {
    /// Samples that read the weights together.
    const MOST: usize = 28;
    let threads = rayon::current_num_threads();
    samples.div_ceil(threads * samples.div_ceil(threads * MOST).max(1)).max(1)
}

/// A product of one row a sample with a matrix.
fn linear(set: InstructionSet, inputs: usize, outputs: usize, weight: impl Fn(usize, usize) -> f32 + Sync) -> Gathered {
    Gathered {
        grid: [1; 3],
        step: [1; 3],
        source: [1; 3],
        channels: inputs,
        seen: (0, inputs),
        runs: vec![Run { offset: [0; 3], taps: 1 }],
        target: [1; 3],
        spread: [1; 3],
        shift: [0; 3],
        block: 1,
        outputs,
        first_output: 0,
        weights: Packed::new(set, inputs, outputs, |input| {
            let weight = &weight;
            move |output| weight(input, output)
        }),
    }
}

/// How a recurrence is made.
pub(crate) struct Draft {
    pub(crate) cell: Cell,
    pub(crate) time: usize,
    pub(crate) hidden: usize,
    /// Whether it reads from the end.
    pub(crate) backwards: bool,
    /// First hidden and cell state.
    pub(crate) first: [Vec<f32>; 2],
    /// `[gates · hidden][hidden]`, as in ONNX.
    pub(crate) weights: Vec<f32>,
    /// `[gates · hidden]`.
    pub(crate) bias: Vec<f32>,
}

impl Draft {
    pub(crate) fn finish(self, set: InstructionSet) -> Recurrence {
        let Self { cell, time, hidden, backwards, first, weights, bias } = self;
        let gates = cell.gates() * hidden;
        let recurrent = linear(set, hidden, gates, |input, gate| weights[gate * hidden + input]);
        let transposed = linear(set, gates, hidden, |gate, output| weights[gate * hidden + output]);
        Recurrence { cell, time, hidden, backwards, first, bias, recurrent, transposed }
    }
}

impl Recurrence {
    /// Elements of an output sample.
    pub(crate) fn outputs(&self) -> usize {
        (self.time + usize::from(self.cell == Cell::Lstm)) * self.hidden
    }

    /// The place in time of step `number`.
    fn place(&self, number: usize) -> usize {
        if self.backwards { self.time - 1 - number } else { number }
    }

    /// The next hidden state from the gates' two arguments and the states; keeps what the way back needs.
    #[inline(always)]
    fn step(&self, x: &[f32], sums: &[f32], before: &[f32], cell: &mut [f32], kept: &mut [f32], hidden: &mut [f32]) {
        let size = self.hidden;
        let (x, sums) =
            (|gate: usize, unit: usize| x[gate * size + unit], |gate: usize, unit| sums[gate * size + unit]);
        match self.cell {
            Cell::Plain => {
                for (unit, hidden) in hidden.iter_mut().enumerate() {
                    *hidden = tanh(x(0, unit) + sums(0, unit));
                }
            }
            Cell::Gru => {
                let (update, rest) = kept.split_at_mut(size);
                let (reset, rest) = rest.split_at_mut(size);
                let (candidate, product) = rest.split_at_mut(size);
                for unit in 0..size {
                    update[unit] = sigmoid(x(0, unit) + sums(0, unit));
                    reset[unit] = sigmoid(x(1, unit) + sums(1, unit));
                    product[unit] = sums(2, unit);
                    candidate[unit] = tanh(x(2, unit) + reset[unit] * product[unit]);
                    hidden[unit] = candidate[unit] + update[unit] * (before[unit] - candidate[unit]);
                }
            }
            Cell::Lstm => {
                let (input, rest) = kept.split_at_mut(size);
                let (output, rest) = rest.split_at_mut(size);
                let (forget, rest) = rest.split_at_mut(size);
                let (candidate, state) = rest.split_at_mut(size);
                for unit in 0..size {
                    input[unit] = sigmoid(x(0, unit) + sums(0, unit));
                    output[unit] = sigmoid(x(1, unit) + sums(1, unit));
                    forget[unit] = sigmoid(x(2, unit) + sums(2, unit));
                    candidate[unit] = tanh(x(3, unit) + sums(3, unit));
                    cell[unit] = forget[unit] * cell[unit] + input[unit] * candidate[unit];
                    state[unit] = cell[unit];
                    hidden[unit] = output[unit] * tanh(cell[unit]);
                }
            }
        }
    }

    /// From the gradient by a hidden state (`slope`) to those by the gates' arguments: `gates` by the product with the input,
    /// `sums` by that with the hidden state. `slope` becomes the part of the gradient by the state before that does not go
    /// through the product; `cell` holds the gradient by the cell state.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "all that a step reads and writes")]
    fn step_back(
        &self,
        kept: &[f32],
        before: &[f32],
        cell_before: &[f32],
        after: &[f32],
        cell: &mut [f32],
        slope: &mut [f32],
        gates: &mut [f32],
        sums: &mut [f32],
    ) {
        let size = self.hidden;
        let kept = |part: usize, unit: usize| kept[part * size + unit];
        match self.cell {
            Cell::Plain => {
                for unit in 0..size {
                    gates[unit] = slope[unit] * (1.0 - after[unit] * after[unit]);
                    sums[unit] = gates[unit];
                    slope[unit] = 0.0;
                }
            }
            Cell::Gru => {
                for unit in 0..size {
                    let (update, reset, candidate, product) =
                        (kept(0, unit), kept(1, unit), kept(2, unit), kept(3, unit));
                    let by_candidate = slope[unit] * (1.0 - update) * (1.0 - candidate * candidate);
                    let by_update = slope[unit] * (before[unit] - candidate) * update * (1.0 - update);
                    let by_reset = by_candidate * product * reset * (1.0 - reset);
                    gates[unit] = by_update;
                    gates[size + unit] = by_reset;
                    gates[2 * size + unit] = by_candidate;
                    sums[unit] = by_update;
                    sums[size + unit] = by_reset;
                    sums[2 * size + unit] = by_candidate * reset;
                    slope[unit] *= update;
                }
            }
            Cell::Lstm => {
                for unit in 0..size {
                    let (input, output, forget) = (kept(0, unit), kept(1, unit), kept(2, unit));
                    let (candidate, bent) = (kept(3, unit), tanh(kept(4, unit)));
                    let by_cell = cell[unit] + slope[unit] * output * (1.0 - bent * bent);
                    gates[unit] = by_cell * candidate * input * (1.0 - input);
                    gates[size + unit] = slope[unit] * bent * output * (1.0 - output);
                    gates[2 * size + unit] = by_cell * cell_before[unit] * forget * (1.0 - forget);
                    gates[3 * size + unit] = by_cell * input * (1.0 - candidate * candidate);
                    cell[unit] = by_cell * forget;
                    slope[unit] = 0.0;
                }
                sums.copy_from_slice(gates);
            }
        }
    }
}

impl Layer for Recurrence {
    fn forward(&self, pass: Forward<'_>) {
        let (size, gates, samples) = (self.hidden, self.cell.gates() * self.hidden, pass.samples);
        let (outputs, kept_size) = (self.outputs(), self.cell.kept() * size);
        let mut memory = std::mem::take(pass.memory);
        let (states, sums) = reserve(&mut memory, samples * (2 * size + gates)).split_at_mut(samples * 2 * size);
        let (hidden, cells) = states.split_at_mut(samples * size);
        hidden.chunks_exact_mut(size).for_each(|hidden| hidden.copy_from_slice(&self.first[0]));
        cells.chunks_exact_mut(size).for_each(|cell| cell.copy_from_slice(&self.first[1]));
        // A cell that keeps nothing still has a chunk a sample.
        let mut nothing = vec![0.0; samples];
        let (saved, saved_size) = match kept_size {
            0 => (nothing.as_mut_slice(), 1),
            _ => (floats_mut(pass.saved), self.time * kept_size),
        };
        let block = samples_of_task(samples);
        let rows = hidden.par_chunks_mut(block * size).zip(cells.par_chunks_mut(block * size));
        let rows = rows.zip(sums.par_chunks_mut(block * gates)).zip(pass.output.par_chunks_mut(block * outputs));
        let rows = rows
            .zip(saved.par_chunks_mut(block * saved_size))
            .zip(pass.inputs[0].par_chunks(block * self.time * gates));
        rows.for_each(|(((((hidden, cells), sums), output), saved), x)| {
            let samples = hidden.len() / size;
            for number in 0..self.time {
                let place = self.place(number);
                let finish = Finish { bias: Some(&self.bias), ..Finish::default() };
                gathered(pass.set, &self.recurrent, samples, hidden, sums, finish, 1);
                for sample in 0..samples {
                    let hidden = &mut hidden[sample * size..][..size];
                    let cell = &mut cells[sample * size..][..size];
                    let kept = &mut saved[(sample * self.time + place) * kept_size..][..kept_size];
                    let x = &x[(sample * self.time + place) * gates..][..gates];
                    let next = &mut output[sample * outputs + place * size..][..size];
                    let sums = &sums[sample * gates..][..gates];
                    vectorised(
                        pass.set,
                        #[inline(always)]
                        || self.step(x, sums, hidden, cell, kept, next),
                    );
                    hidden.copy_from_slice(next);
                }
            }
        });
        if self.cell == Cell::Lstm {
            for (output, cell) in pass.output.chunks_exact_mut(outputs).zip(cells.chunks_exact(size)) {
                output[self.time * size..].copy_from_slice(cell);
            }
        }
        *pass.memory = memory;
    }

    fn backward(&self, pass: Backward<'_>) {
        let (size, gates, samples) = (self.hidden, self.cell.gates() * self.hidden, pass.samples);
        let (outputs, kept_size) = (self.outputs(), self.cell.kept() * size);
        let mut memory = std::mem::take(pass.memory);
        let (states, sums) = reserve(&mut memory, samples * (2 * size + 2 * gates)).split_at_mut(samples * 2 * size);
        let (hidden, cells) = states.split_at_mut(samples * size);
        hidden.fill(0.0);
        cells.fill(0.0);
        if self.cell == Cell::Lstm {
            for (cell, slope) in cells.chunks_exact_mut(size).zip(pass.slope.chunks_exact(outputs)) {
                cell.copy_from_slice(&slope[self.time * size..]);
            }
        }
        let (sums, parts) = sums.split_at_mut(samples * gates);
        let saved = floats(pass.saved);
        let block = samples_of_task(samples);
        let rows = hidden.par_chunks_mut(block * size).zip(cells.par_chunks_mut(block * size));
        let rows = rows.zip(sums.par_chunks_mut(block * gates)).zip(parts.par_chunks_mut(block * gates));
        let rows = rows.zip(pass.gradient.par_chunks_mut(block * self.time * gates)).enumerate();
        rows.for_each(|(task, ((((hidden, cells), sums), parts), gradient))| {
            let samples = hidden.len() / size;
            for number in (0..self.time).rev() {
                let place = self.place(number);
                for own in 0..samples {
                    let sample = task * block + own;
                    let output = &pass.output[sample * outputs..][..outputs];
                    let kept = |place: usize| &saved[(sample * self.time + place) * kept_size..][..kept_size];
                    let slope = &pass.slope[sample * outputs + place * size..][..size];
                    let hidden = &mut hidden[own * size..][..size];
                    hidden.iter_mut().zip(slope).for_each(|(hidden, slope)| *hidden += slope);
                    let (before, cell_before) = match number.checked_sub(1).map(|before| self.place(before)) {
                        Some(before) if self.cell == Cell::Lstm => {
                            (&output[before * size..][..size], &kept(before)[4 * size..])
                        }
                        Some(before) => (&output[before * size..][..size], &[][..]),
                        None => (&self.first[0][..], &self.first[1][..]),
                    };
                    let after = &output[place * size..][..size];
                    let cell = &mut cells[own * size..][..size];
                    let (part, sums) = (&mut parts[own * gates..][..gates], &mut sums[own * gates..][..gates]);
                    vectorised(
                        pass.set,
                        #[inline(always)]
                        || {
                            self.step_back(kept(place), before, cell_before, after, cell, hidden, part, sums);
                        },
                    );
                    let gradient = &mut gradient[(own * self.time + place) * gates..][..gates];
                    if pass.accumulate {
                        gradient.iter_mut().zip(&*part).for_each(|(gradient, part)| *gradient += part);
                    } else {
                        gradient.copy_from_slice(part);
                    }
                }
                let finish = Finish { accumulate: true, ..Finish::default() };
                gathered(pass.set, &self.transposed, samples, sums, hidden, finish, 1);
            }
        });
        *pass.memory = memory;
    }

    fn keeps_output(&self) -> bool {
        true
    }

    fn saved(&self) -> usize {
        self.time * self.cell.kept() * self.hidden * size_of::<f32>()
    }

    fn kernel(&self) -> String {
        format!("{:?} of {} steps", self.cell, self.time).to_lowercase()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::tests::{agrees_with_f64, numbers};

    /// The layer by its definition.
    fn reference(draft: &Draft, x: &[f64]) -> Vec<f64> {
        let (size, gates) = (draft.hidden, draft.cell.gates() * draft.hidden);
        let exact = |values: &[f32]| -> Vec<f64> { values.iter().map(|value| f64::from(*value)).collect() };
        let (mut hidden, mut cell) = (exact(&draft.first[0]), exact(&draft.first[1]));
        let (weights, bias) = (exact(&draft.weights), exact(&draft.bias));
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let mut y = vec![0.0; draft.time * size];
        for number in 0..draft.time {
            let place = if draft.backwards { draft.time - 1 - number } else { number };
            let of_hidden: Vec<f64> = (0..gates)
                .map(|gate| bias[gate] + (0..size).map(|unit| weights[gate * size + unit] * hidden[unit]).sum::<f64>())
                .collect();
            let of_input = &x[place * gates..][..gates];
            let sum = |gate: usize, unit: usize| of_input[gate * size + unit] + of_hidden[gate * size + unit];
            let before = hidden.clone();
            for unit in 0..size {
                hidden[unit] = match draft.cell {
                    Cell::Plain => sum(0, unit).tanh(),
                    Cell::Gru => {
                        let (z, r) = (sigmoid(sum(0, unit)), sigmoid(sum(1, unit)));
                        let n = (of_input[2 * size + unit] + r * of_hidden[2 * size + unit]).tanh();
                        (1.0 - z) * n + z * before[unit]
                    }
                    Cell::Lstm => {
                        let (i, o, f) = (sigmoid(sum(0, unit)), sigmoid(sum(1, unit)), sigmoid(sum(2, unit)));
                        cell[unit] = f * cell[unit] + i * sum(3, unit).tanh();
                        o * cell[unit].tanh()
                    }
                };
            }
            y[place * size..][..size].copy_from_slice(&hidden);
        }
        if draft.cell == Cell::Lstm {
            y.extend(cell);
        }
        y
    }

    #[test]
    fn states_and_gradients_agree_with_f64() {
        for set in InstructionSet::available() {
            for (cell, backwards) in
                [(Cell::Plain, false), (Cell::Gru, false), (Cell::Gru, true), (Cell::Lstm, true), (Cell::Lstm, false)]
            {
                let (time, hidden, gates) = (5, 9, cell.gates() * 9);
                let draft = || Draft {
                    cell,
                    time,
                    hidden,
                    backwards,
                    first: [numbers(hidden, 1), numbers(hidden, 2)],
                    weights: numbers(gates * hidden, 3),
                    bias: numbers(gates, 4),
                };
                let layer = draft().finish(set);
                let x = numbers(3 * time * gates, 5);
                let elements = layer.outputs();
                agrees_with_f64(set, &layer, 3, &[x], elements, 2e-6, |inputs| reference(&draft(), &inputs[0]));
            }
        }
    }
}
