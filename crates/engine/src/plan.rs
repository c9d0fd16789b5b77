//! Steps in order, which memory each uses, and how the gradient comes back.

use std::collections::HashMap;

use crate::kernels::{Buffer, Finish, InstructionSet, bit_stride, scaled};
use crate::layers::{Backward, Forward, Layer, Masking};

/// A value between steps.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    /// Elements of a sample.
    pub(crate) elements: usize,
    /// Length of the last axis in memory, for which the bits of a ReLU are kept.
    pub(crate) channels: usize,
    /// Whether a ReLU made it, whose bits are kept.
    pub(crate) rectified: bool,
}

impl Value {
    /// Bytes a sample of the bits of the ReLU that made it.
    fn bits(&self) -> usize {
        if self.rectified { self.elements / self.channels * bit_stride(self.channels) } else { 0 }
    }
}

/// One layer with the values it reads and makes.
pub(crate) struct Step {
    /// Name of the node.
    pub(crate) name: String,
    pub(crate) layer: Box<dyn Layer>,
    pub(crate) inputs: Vec<usize>,
    pub(crate) output: usize,
}

/// Something to do on the way back.
#[derive(Clone, Copy, Debug)]
enum Action {
    /// The gradient by one input of a step.
    Pull { step: usize, position: usize, slope: usize, gradient: usize, accumulate: bool, passing: bool },
    /// Puts the derivative of the ReLU that made a value into its gradient.
    Mask { value: usize, gradient: usize },
}

/// A network, planned for any number of samples.
pub(crate) struct Plan {
    set: InstructionSet,
    steps: Vec<Step>,
    values: Vec<Value>,
    /// Slot of each value in the forward direction.
    slots: Vec<usize>,
    actions: Vec<Action>,
    /// Floats a sample of each slot.
    sizes: Vec<usize>,
    output: usize,
    /// Slot of the gradient by the output, and by the input.
    ends: Option<(usize, usize)>,
}

/// Memory of one pass.
pub(crate) struct Workspace {
    samples: usize,
    slots: Vec<Buffer>,
    /// What each step keeps, as bytes.
    saved: Vec<Buffer>,
    bits: Vec<Vec<u8>>,
    memory: Buffer,
}

impl Workspace {
    /// Whether so many samples fit.
    pub(crate) fn holds(&self, samples: usize) -> bool {
        samples <= self.samples
    }
}

/// Slots that are handed out and taken back while a plan is made.
#[derive(Default)]
struct Slots {
    sizes: Vec<usize>,
    free: Vec<usize>,
}

impl Slots {
    /// The free slot that fits best; the largest grows where none is large enough.
    fn take(&mut self, size: usize) -> usize {
        let fits = |slot: &&usize| self.sizes[**slot] >= size;
        let best = self.free.iter().filter(fits).min_by_key(|slot| (self.sizes[**slot], **slot));
        let best = best.or_else(|| self.free.iter().max_by_key(|slot| (self.sizes[**slot], **slot))).copied();
        let Some(slot) = best else {
            self.sizes.push(size);
            return self.sizes.len() - 1;
        };
        self.free.retain(|free| *free != slot);
        self.sizes[slot] = self.sizes[slot].max(size);
        slot
    }

    fn give(&mut self, slot: usize) {
        self.free.push(slot);
    }
}

impl Plan {
    /// Plans the steps; value 0 is the input.
    pub(crate) fn new(set: InstructionSet, steps: Vec<Step>, values: Vec<Value>, output: usize) -> Self {
        let mut memory = Slots::default();
        let mut kept = vec![false; values.len()];
        let mut last_read = vec![0; values.len()];
        for (index, step) in steps.iter().enumerate() {
            for &input in &step.inputs {
                last_read[input] = index;
                kept[input] |= step.layer.keeps_inputs();
            }
            kept[step.output] |= step.layer.keeps_output();
        }
        kept[output] = true;
        let mut slots = vec![0; values.len()];
        slots[0] = memory.take(values[0].elements);
        for (index, step) in steps.iter().enumerate() {
            slots[step.output] = memory.take(values[step.output].elements);
            let mut finished: Vec<usize> =
                step.inputs.iter().copied().filter(|&input| last_read[input] == index && !kept[input]).collect();
            finished.dedup();
            finished.iter().for_each(|&input| memory.give(slots[input]));
        }
        let (actions, ends) = way_back(&steps, &values, output, &mut memory);
        Self { set, steps, values, slots, actions, sizes: memory.sizes, output, ends }
    }

    /// Floats a sample of all slots.
    pub(crate) fn floats(&self) -> usize {
        self.sizes.iter().sum()
    }

    pub(crate) fn instruction_set(&self) -> InstructionSet {
        self.set
    }

    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Elements of an input sample.
    pub(crate) fn inputs(&self) -> usize {
        self.values[0].elements
    }

    /// Elements of an output sample.
    pub(crate) fn outputs(&self) -> usize {
        self.values[self.output].elements
    }

    /// Whether the output depends on the input by a way that has a gradient.
    pub(crate) fn has_gradient(&self) -> bool {
        self.ends.is_some()
    }

    /// Memory for up to `samples` samples.
    pub(crate) fn workspace(&self, samples: usize) -> Workspace {
        Workspace {
            samples,
            slots: self.sizes.iter().map(|size| Buffer::zeroed(size * samples)).collect(),
            saved: self.steps.iter().map(|step| Buffer::zeroed((step.layer.saved() * samples).div_ceil(4))).collect(),
            bits: self.values.iter().map(|value| vec![0; value.bits() * samples]).collect(),
            memory: Buffer::default(),
        }
    }

    /// Outputs of the samples in `inputs`, at most as many as the workspace holds.
    pub(crate) fn forward<'w>(&self, workspace: &'w mut Workspace, inputs: &[f32]) -> &'w [f32] {
        let samples = inputs.len() / self.inputs();
        assert!(samples <= workspace.samples);
        let Workspace { slots, saved, bits, memory, .. } = workspace;
        slots[self.slots[0]][..inputs.len()].copy_from_slice(inputs);
        for (step, saved) in self.steps.iter().zip(saved) {
            let slot = self.slots[step.output];
            let mut output = std::mem::take(&mut slots[slot]);
            let made = &self.values[step.output];
            let mut own_bits = std::mem::take(&mut bits[step.output]);
            let inputs: Vec<&[f32]> = step
                .inputs
                .iter()
                .map(|&input| &slots[self.slots[input]][..self.values[input].elements * samples])
                .collect();
            step.layer.forward(Forward {
                set: self.set,
                samples,
                inputs: &inputs,
                output: &mut output[..made.elements * samples],
                saved: &mut saved.bytes_mut()[..step.layer.saved() * samples],
                rectified: made.rectified.then_some(&mut own_bits[..made.bits() * samples]),
                memory,
            });
            slots[slot] = output;
            bits[step.output] = own_bits;
        }
        &slots[self.slots[self.output]][..self.outputs() * samples]
    }

    /// Gradient by the inputs of the samples that [`Plan::forward`] was last given, for the gradient by their outputs.
    ///
    /// It may be asked for several times; `None` where the output does not depend on the input.
    pub(crate) fn backward<'w>(&self, workspace: &'w mut Workspace, cotangents: &[f32]) -> Option<&'w [f32]> {
        let (output, input) = self.ends?;
        let samples = cotangents.len() / self.outputs();
        let Workspace { slots, saved, bits, memory, .. } = workspace;
        slots[output][..cotangents.len()].copy_from_slice(cotangents);
        for action in &self.actions {
            match *action {
                Action::Pull { step: index, position, slope, gradient, accumulate, passing } => {
                    let step = &self.steps[index];
                    let (target, made) = (&self.values[step.inputs[position]], &self.values[step.output]);
                    let mut result = std::mem::take(&mut slots[gradient]);
                    let kept = |value: usize, keeps: bool| -> &[f32] {
                        if keeps { &slots[self.slots[value]][..self.values[value].elements * samples] } else { &[] }
                    };
                    let inputs: Vec<&[f32]> =
                        step.inputs.iter().map(|&input| kept(input, step.layer.keeps_inputs())).collect();
                    step.layer.backward(Backward {
                        set: self.set,
                        samples,
                        inputs: &inputs,
                        output: kept(step.output, step.layer.keeps_output()),
                        saved: &saved[index].bytes()[..step.layer.saved() * samples],
                        slope: &slots[slope][..made.elements * samples],
                        position,
                        gradient: &mut result[..target.elements * samples],
                        accumulate,
                        passing: passing.then(|| &bits[step.inputs[position]][..target.bits() * samples]),
                        memory,
                    });
                    slots[gradient] = result;
                }
                Action::Mask { value, gradient } => {
                    let masked = &self.values[value];
                    let passing = Some(&bits[value][..masked.bits() * samples]);
                    let sides = (masked.elements / masked.channels * samples, masked.channels);
                    let finish = Finish { accumulate: true, passing, ..Finish::default() };
                    scaled(self.set, sides, None, None, &mut slots[gradient][..masked.elements * samples], finish);
                }
            }
        }
        Some(&slots[input][..self.inputs() * samples])
    }
}

/// What is known about the gradient by a value while the way back is planned.
struct Pending {
    slot: usize,
    /// Whether parts of it still need the derivative of the ReLU.
    unmasked: bool,
}

/// Actions of the way back, with the slots of the gradients by the output and by the input.
fn way_back(
    steps: &[Step],
    values: &[Value],
    output: usize,
    memory: &mut Slots,
) -> (Vec<Action>, Option<(usize, usize)>) {
    let mut actions = Vec::new();
    let mut pending: HashMap<usize, Pending> = HashMap::new();
    let first = memory.take(values[output].elements);
    pending.insert(output, Pending { slot: first, unmasked: values[output].rectified });
    for (index, step) in steps.iter().enumerate().rev() {
        let Some(Pending { slot: slope, unmasked }) = pending.remove(&step.output) else { continue };
        if unmasked {
            actions.push(Action::Mask { value: step.output, gradient: slope });
        }
        // Inputs whose gradient is the slope itself come last: one of them takes its memory over.
        let mut positions: Vec<usize> = (0..step.inputs.len()).collect();
        positions.sort_by_key(|&position| step.layer.passes_through(position));
        let mut taken = false;
        for (order, &position) in positions.iter().enumerate() {
            let input = step.inputs[position];
            let rectified = values[input].rectified;
            let last = order + 1 == positions.len();
            if last && step.layer.passes_through(position) && !pending.contains_key(&input) {
                pending.insert(input, Pending { slot: slope, unmasked: rectified });
                taken = true;
                continue;
            }
            let accumulate = pending.contains_key(&input);
            let masking = if rectified { step.layer.masks(position) } else { Masking::None };
            let target = pending
                .entry(input)
                .or_insert_with(|| Pending { slot: memory.take(values[input].elements), unmasked: false });
            target.unmasked = match masking {
                Masking::None => rectified,
                Masking::Touched => target.unmasked,
                Masking::Whole => false,
            };
            let (gradient, passing) = (target.slot, masking != Masking::None);
            actions.push(Action::Pull { step: index, position, slope, gradient, accumulate, passing });
        }
        if !taken {
            memory.give(slope);
        }
    }
    let input = pending.remove(&0).map(|pending| (first, pending.slot));
    (actions, input)
}
