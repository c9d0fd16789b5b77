//! Convolutions and transposed convolutions in one to three axes of space, and linear layers.

use super::{Backward, Forward, Layer, Masking};
use crate::kernels::{
    Buffer, Finish, Gathered, InstructionSet, Packed, Reach, Run, Scattered, TileWeights, Tiled, Windows, gathered,
    scaled, scattered, tiled,
};

/// A convolution from `source` to `target`, or the transposed one from `target` to `source`. Axes that a network lacks have
/// side, kernel, stride and dilation 1.
#[derive(Clone, Debug)]
pub(crate) struct Geometry {
    pub(crate) kernel: [usize; 3],
    pub(crate) stride: [usize; 3],
    pub(crate) dilation: [usize; 3],
    /// Padding before each axis.
    pub(crate) before: [isize; 3],
    /// Sides of the side with `channels`.
    pub(crate) source: [usize; 3],
    /// Sides of the side with `outputs`.
    pub(crate) target: [usize; 3],
    pub(crate) channels: usize,
    pub(crate) outputs: usize,
    pub(crate) groups: usize,
    /// Whether the layer goes from `target` to `source`.
    pub(crate) transposed: bool,
}

impl Geometry {
    /// A linear layer over `places` rows.
    pub(crate) fn linear(places: usize, channels: usize, outputs: usize) -> Self {
        Self {
            kernel: [1; 3],
            stride: [1; 3],
            dilation: [1; 3],
            before: [0; 3],
            source: [1, 1, places],
            target: [1, 1, places],
            channels,
            outputs,
            groups: 1,
            transposed: false,
        }
    }

    fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// Channels and outputs of a group.
    fn group(&self) -> (usize, usize) {
        (self.channels / self.groups, self.outputs / self.groups)
    }

    fn tap(&self, index: usize) -> [usize; 3] {
        let [_, height, width] = self.kernel;
        [index / (height * width), index / width % height, index % width]
    }

    /// The same layer with groups put together where they leave most of a vector empty, and how many to one; what the weights of
    /// a group lack is zeros.
    fn merged(&self) -> (Self, usize) {
        /// Channels and outputs of a vector.
        const VECTOR: usize = 16;
        let (seen, made) = self.group();
        let fits = |count: &usize| self.groups.is_multiple_of(*count) && count * seen.max(made) <= VECTOR;
        let count = if self.depthwise() { 1 } else { (1..=self.groups).rev().find(fits).unwrap_or(1) };
        (Self { groups: self.groups / count, ..self.clone() }, count)
    }

    fn depthwise(&self) -> bool {
        self.groups > 1 && self.groups == self.channels && self.groups == self.outputs
    }

    /// Outputs of the layer, and whether groups of them begin at whole vectors.
    fn made(&self) -> (usize, bool) {
        let made = if self.transposed { self.channels } else { self.outputs };
        (made, self.groups == 1 || self.depthwise() || (made / self.groups).is_multiple_of(16))
    }

    /// Neighbouring places, of `places` in a line, whose `made` outputs a vector is to hold together.
    fn block(&self, set: InstructionSet, places: usize, made: usize) -> usize {
        if self.groups > 1 || self.kernel[2] == 1 || self.dilation[2] > 1 || made > 8 {
            return 1;
        }
        (1..=set.lanes() / made).rev().find(|block| places.is_multiple_of(*block)).unwrap_or(1)
    }

    /// Whether the way from `outputs` to `channels` is faster by scattering than by gathering, in which few channels leave most of
    /// a vector empty.
    fn scatters(&self, set: InstructionSet) -> bool {
        /// Multiplications that adding one vector of products where it belongs costs.
        const ADDITION: usize = 120;
        if self.groups > 1 || self.taps() == 1 {
            return false;
        }
        let depth = self.outputs.next_multiple_of(16);
        let block = if self.stride[2] == 1 { self.block(set, self.source[2], self.channels) } else { 1 };
        let taps = self.taps() / self.kernel[2] * (self.kernel[2] + block - 1);
        let places = self.source.iter().product::<usize>() / block / self.stride.iter().product::<usize>();
        let gathered = places * taps * depth * self.channels.next_multiple_of(set.lanes());
        let run = self.kernel[2] * self.channels;
        let additions = self.taps() / self.kernel[2] * run.div_ceil(set.lanes());
        let products = depth * (self.taps() * self.channels).next_multiple_of(set.lanes());
        self.target.iter().product::<usize>() * (products + ADDITION * additions) < gathered
    }

    /// The product in the tile domain that pays for this convolution: the side of its tiles.
    ///
    /// The choice hangs on the shape of one sample alone: the bits of a sample may not depend on its batch.
    fn tile_side(&self) -> Option<usize> {
        /// Channels below which the transforms cost more than the products save.
        const FEWEST: usize = 24;
        let three = self.kernel == [1, 3, 3] && self.stride == [1; 3] && self.dilation == [1; 3] && self.groups == 1;
        let padded = self.before.iter().all(|before| (0..=2).contains(before)) && self.source[0] == 1;
        if !three || !padded || self.channels.min(self.outputs) < FEWEST {
            return None;
        }
        let [_, height, width] = self.target;
        let products = |side: usize| (side + 2) * (side + 2) * height.div_ceil(side) * width.div_ceil(side);
        let direct = 9 * height * width;
        // Transforms cost about a quarter of the products.
        [4, 2].into_iter().filter(|&side| products(side) * 5 / 4 < direct).min_by_key(|&side| products(side))
    }
}

/// Weights of a layer whose groups may have been put together.
struct Weights<'a> {
    /// `[outputs][channels of a group of its own][taps]`.
    values: &'a [f32],
    taps: usize,
    /// Channels and outputs of a group of its own.
    own: (usize, usize),
    /// Such groups in one.
    merged: usize,
}

impl Weights<'_> {
    /// Of an output, for a channel of its group.
    #[inline(always)]
    fn at(&self, output: usize, channel: usize, tap: usize) -> f32 {
        let (seen, made) = self.own;
        let channel = match self.merged {
            1 => channel,
            merged if output / made % merged == channel / seen => channel % seen,
            _ => return 0.0,
        };
        self.values[(output * seen + channel) * self.taps + tap]
    }
}

/// What computes one direction.
enum Kernel {
    Tiled(Tiled),
    /// One product for each group of channels and each phase of the stride; whether they reach every element.
    Gathered(Vec<Gathered>, bool),
    Scattered(Scattered),
    Depthwise(Windows, Vec<f32>),
}

impl Kernel {
    /// From the side with `channels` to that with `outputs`.
    fn correlate(set: InstructionSet, geometry: &Geometry, winograd: bool, weights: &Weights<'_>) -> Self {
        if geometry.depthwise() {
            let (windows, weights) = depthwise(geometry, weights);
            return Self::Depthwise(windows, weights);
        }
        if let Some(side) = geometry.tile_side().filter(|_| winograd) {
            let kernel = |channel, output| std::array::from_fn(|tap| weights.at(output, channel, tap));
            return Self::Tiled(Tiled {
                source: [geometry.source[1], geometry.source[2]],
                target: [geometry.target[1], geometry.target[2]],
                padding: [geometry.before[1].unsigned_abs(), geometry.before[2].unsigned_abs()],
                weights: TileWeights::new(set, side, geometry.channels, geometry.outputs, kernel),
            });
        }
        let (seen, made) = geometry.group();
        let taps = Taps::new(geometry.all_taps(), geometry.groups == 1);
        let [planes, lines, places] = geometry.target;
        let block = geometry.block(set, places, made);
        let [step_z, step_y, step_x] = geometry.stride;
        let product = |group: usize| Gathered {
            grid: [planes, lines, places / block],
            step: [step_z, step_y, step_x * block],
            source: geometry.source,
            channels: geometry.channels,
            seen: (group * seen, seen),
            runs: taps.runs(block, step_x),
            target: geometry.target,
            spread: [1, 1, block],
            shift: [0; 3],
            block,
            outputs: geometry.outputs,
            first_output: group * made,
            weights: taps.packed(set, (block, step_x), (seen, made), |output, channel, tap| {
                weights.at(group * made + output, channel, tap)
            }),
        };
        Self::Gathered((0..geometry.groups).map(product).collect(), true)
    }

    /// From the side with `outputs` to that with `channels`: what [`Kernel::correlate`] does, transposed.
    fn spread(set: InstructionSet, geometry: &Geometry, winograd: bool, weights: &Weights<'_>) -> Self {
        if geometry.depthwise() {
            let (windows, weights) = depthwise(geometry, weights);
            return Self::Depthwise(windows.reversed(), weights);
        }
        if let Some(side) = geometry.tile_side().filter(|_| winograd) {
            let kernel = |output, channel| std::array::from_fn(|tap| weights.at(output, channel, 8 - tap));
            return Self::Tiled(Tiled {
                source: [geometry.target[1], geometry.target[2]],
                target: [geometry.source[1], geometry.source[2]],
                padding: [(2 - geometry.before[1]).unsigned_abs(), (2 - geometry.before[2]).unsigned_abs()],
                weights: TileWeights::new(set, side, geometry.outputs, geometry.channels, kernel),
            });
        }
        if geometry.scatters(set) {
            return Self::Scattered(Self::scatter(set, geometry, weights));
        }
        let phases = geometry.stride.iter().product::<usize>();
        let [_, stride_y, stride_x] = geometry.stride;
        let mut products = Vec::new();
        let mut reaches_all = true;
        for phase in 0..phases {
            let phase = [phase / (stride_y * stride_x), phase / stride_x % stride_y, phase % stride_x];
            let grid = std::array::from_fn(|axis| {
                geometry.source[axis].saturating_sub(phase[axis]).div_ceil(geometry.stride[axis])
            });
            if grid.contains(&0) {
                continue;
            }
            let taps = geometry.taps_of_phase(phase);
            if taps.is_empty() {
                reaches_all = false;
                continue;
            }
            let taps = Taps::new(taps, geometry.groups == 1);
            let (made, seen) = geometry.group();
            let block = if stride_x == 1 { geometry.block(set, grid[2], made) } else { 1 };
            let [planes, lines, places] = grid;
            products.extend((0..geometry.groups).map(|group| Gathered {
                grid: [planes, lines, places / block],
                step: [1, 1, block],
                source: geometry.target,
                channels: geometry.outputs,
                seen: (group * seen, seen),
                runs: taps.runs(block, 1),
                target: geometry.source,
                spread: [geometry.stride[0], stride_y, stride_x * block],
                shift: phase,
                block,
                outputs: geometry.channels,
                first_output: group * made,
                weights: taps.packed(set, (block, 1), (seen, made), |channel, output, tap| {
                    weights.at(group * seen + output, channel, tap)
                }),
            }));
        }
        Self::Gathered(products, reaches_all)
    }

    fn scatter(set: InstructionSet, geometry: &Geometry, weights: &Weights<'_>) -> Scattered {
        let Taps { runs, order } = Taps::new(geometry.all_taps(), true);
        let channels = geometry.channels;
        Scattered {
            product: Gathered {
                grid: geometry.target,
                step: [1; 3],
                source: geometry.target,
                channels: geometry.outputs,
                seen: (0, geometry.outputs),
                runs: vec![Run { offset: [0; 3], taps: 1 }],
                target: geometry.target,
                spread: [1; 3],
                shift: [0; 3],
                block: 1,
                outputs: order.len() * channels,
                first_output: 0,
                weights: Packed::new(set, geometry.outputs, order.len() * channels, |output| {
                    let order = &order;
                    move |at| weights.at(output, at % channels, order[at / channels])
                }),
            },
            step: geometry.stride,
            runs,
            target: geometry.source,
            channels,
        }
    }

    fn run(
        &self,
        set: InstructionSet,
        samples: usize,
        source: &[f32],
        output: &mut [f32],
        mut finish: Finish<'_>,
        memory: &mut Buffer,
    ) {
        match self {
            Self::Tiled(plan) => tiled(set, plan, samples, source, output, finish, memory),
            Self::Gathered(plans, reaches_all) => {
                if !reaches_all && !finish.accumulate {
                    let channels = plans.first().map_or(1, |plan| plan.outputs);
                    let places = output.len() / channels;
                    let everywhere = Finish {
                        bias: finish.bias,
                        residual: finish.residual,
                        rectified: finish.rectified.as_deref_mut(),
                        passing: finish.passing,
                        accumulate: false,
                    };
                    scaled(set, (places, channels), None, None, output, everywhere);
                }
                for plan in plans {
                    let finish = Finish { rectified: finish.rectified.as_deref_mut(), ..finish };
                    gathered(set, plan, samples, source, output, finish, rayon::current_num_threads());
                }
            }
            Self::Scattered(plan) => {
                scattered(set, plan, samples, source, output, finish.accumulate);
                // What scattering cannot do on its way.
                let finish = Finish { accumulate: true, ..finish };
                if finish.bias.is_some() || finish.rectified.is_some() || finish.passing.is_some() {
                    let residual = finish.residual;
                    let finish = Finish { residual: None, ..finish };
                    scaled(set, (output.len() / plan.channels, plan.channels), residual, None, output, finish);
                } else if let Some(residual) = finish.residual {
                    let finish = Finish { residual: None, ..finish };
                    scaled(set, (samples, output.len() / samples.max(1)), Some(residual), None, output, finish);
                }
            }
            Self::Depthwise(windows, weights) => windows.weighted(set, samples, source, output, weights, finish),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Tiled(plan) => format!("winograd F({0}x{0}, 3x3)", plan.side()),
            Self::Gathered(plans, _) => format!("direct, {} products", plans.len()),
            Self::Scattered(_) => "scattered".to_owned(),
            Self::Depthwise(..) => "depthwise".to_owned(),
        }
    }
}

impl Geometry {
    /// All taps: where in the source, relative to the place times the stride, and which.
    fn all_taps(&self) -> Vec<([isize; 3], usize)> {
        let reach = |index| {
            let tap = self.tap(index);
            std::array::from_fn(|axis| (tap[axis] * self.dilation[axis]) as isize - self.before[axis])
        };
        (0..self.taps()).map(|index| (reach(index), index)).collect()
    }

    /// Taps that meet the source places of a phase of the stride: where in the target, relative to the place, and which.
    fn taps_of_phase(&self, phase: [usize; 3]) -> Vec<([isize; 3], usize)> {
        let mut taps = Vec::new();
        for index in 0..self.taps() {
            let tap = self.tap(index);
            let along = |axis: usize| {
                let stride = self.stride[axis] as isize;
                let at = phase[axis] as isize + self.before[axis] - (tap[axis] * self.dilation[axis]) as isize;
                (at.rem_euclid(stride) == 0).then(|| at.div_euclid(stride))
            };
            if let (Some(z), Some(y), Some(x)) = (along(0), along(1), along(2)) {
                taps.push(([z, y, x], index));
            }
        }
        taps
    }
}

/// Taps in ascending order of where they are.
struct Taps {
    runs: Vec<Run>,
    /// Which tap stands where in the runs.
    order: Vec<usize>,
}

impl Taps {
    /// Only where `join` do neighbours share a run.
    fn new(mut taps: Vec<([isize; 3], usize)>, join: bool) -> Self {
        taps.sort_unstable();
        let mut runs: Vec<Run> = Vec::new();
        for (offset, _) in &taps {
            match runs.last_mut() {
                Some(run)
                    if join && run.offset[..2] == offset[..2] && run.offset[2] + run.taps as isize == offset[2] =>
                {
                    run.taps += 1;
                }
                _ => runs.push(Run { offset: *offset, taps: 1 }),
            }
        }
        Self { runs, order: taps.into_iter().map(|(_, index)| index).collect() }
    }

    /// The runs of `block` neighbouring places, `step` apart in the source, as one.
    fn runs(&self, block: usize, step: usize) -> Vec<Run> {
        self.runs.iter().map(|run| Run { taps: run.taps + (block - 1) * step, ..*run }).collect()
    }

    /// Weights for [`Taps::runs`] from `weight(output, channel, tap)`; a place has none for taps that only its neighbours see.
    fn packed(
        &self,
        set: InstructionSet,
        (block, step): (usize, usize),
        (seen, made): (usize, usize),
        weight: impl Fn(usize, usize, usize) -> f32 + Sync,
    ) -> Packed {
        let mut places = Vec::new();
        let mut first = 0;
        for run in &self.runs {
            places.extend((0..run.taps + (block - 1) * step).map(|at| (&self.order[first..first + run.taps], at)));
            first += run.taps;
        }
        Packed::new(set, places.len() * seen, block * made, |depth| {
            let ((order, at), channel, weight) = (places[depth / seen], depth % seen, &weight);
            move |column| {
                let (place, output) = if block == 1 { (0, column) } else { (column / made, column % made) };
                let tap = at.checked_sub(place * step).and_then(|at| order.get(at));
                tap.map_or(0.0, |tap| weight(output, channel, *tap))
            }
        })
    }
}

/// Windows and `[tap][channel]` weights of a depthwise convolution.
fn depthwise(geometry: &Geometry, weights: &Weights<'_>) -> (Windows, Vec<f32>) {
    let axes = std::array::from_fn(|axis| {
        Reach::forward(
            geometry.target[axis],
            geometry.source[axis],
            geometry.kernel[axis],
            geometry.stride[axis],
            geometry.dilation[axis],
            geometry.before[axis],
        )
    });
    let channels = geometry.channels;
    let weights = (0..geometry.taps() * channels).map(|at| weights.at(at % channels, 0, at / channels)).collect();
    (Windows { axes, channels }, weights)
}

/// A convolution with all that follows it at once: bias, a value that is added (the second input), ReLU.
pub(crate) struct Convolution {
    forward: Kernel,
    backward: Kernel,
    bias: Vec<f32>,
    whole_groups: bool,
}

/// A convolution before its weights are packed, so that what follows it can still be folded in.
pub(crate) struct Draft {
    pub(crate) geometry: Geometry,
    /// As in ONNX: `[outputs][channels / groups][taps]`; `[outputs][channels / groups][taps]` of the convolution that is
    /// transposed, too.
    pub(crate) weights: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

impl Draft {
    /// Scales and shifts what the layer makes, channel by channel.
    pub(crate) fn fold(&mut self, scale: &[f32], shift: &[f32]) {
        let (seen, made) = self.geometry.group();
        let taps = self.geometry.taps();
        for (index, weight) in self.weights.iter_mut().enumerate() {
            let output = index / (seen * taps);
            let channel = if self.geometry.transposed { output / made * seen + index / taps % seen } else { output };
            *weight *= scale[channel];
        }
        for ((bias, scale), shift) in self.bias.iter_mut().zip(scale).zip(shift) {
            *bias = *bias * scale + shift;
        }
    }

    /// Whether the layer can do a ReLU itself.
    pub(crate) fn rectifies(&self) -> bool {
        self.geometry.merged().0.made().1
    }

    pub(crate) fn finish(self, set: InstructionSet, winograd: bool) -> Convolution {
        let (geometry, merged) = self.geometry.merged();
        let weights = Weights { values: &self.weights, taps: geometry.taps(), own: self.geometry.group(), merged };
        let correlate = Kernel::correlate(set, &geometry, winograd, &weights);
        let spread = Kernel::spread(set, &geometry, winograd, &weights);
        let taken = if geometry.transposed { geometry.outputs } else { geometry.channels };
        let groups = geometry.groups;
        let whole_groups = groups == 1 || geometry.depthwise() || (taken / groups).is_multiple_of(16);
        let (forward, backward) = if geometry.transposed { (spread, correlate) } else { (correlate, spread) };
        Convolution { forward, backward, bias: self.bias, whole_groups }
    }
}

impl Layer for Convolution {
    fn forward(&self, pass: Forward<'_>) {
        let finish = Finish {
            bias: Some(&self.bias),
            residual: pass.inputs.get(1).copied(),
            rectified: pass.rectified,
            ..Finish::default()
        };
        self.forward.run(pass.set, pass.samples, pass.inputs[0], pass.output, finish, pass.memory);
    }

    fn backward(&self, pass: Backward<'_>) {
        let finish = Finish { accumulate: pass.accumulate, passing: pass.passing, ..Finish::default() };
        if pass.position == 0 {
            self.backward.run(pass.set, pass.samples, pass.slope, pass.gradient, finish, pass.memory);
        } else {
            super::pointwise::pass_on(pass);
        }
    }

    fn rectifies(&self) -> bool {
        true
    }

    fn masks(&self, position: usize) -> Masking {
        match &self.backward {
            _ if position > 0 => Masking::None,
            _ if !self.whole_groups => Masking::None,
            Kernel::Gathered(_, false) => Masking::Touched,
            _ => Masking::Whole,
        }
    }

    fn passes_through(&self, position: usize) -> bool {
        position == 1
    }

    fn comes_last(&self) -> bool {
        matches!(self.backward, Kernel::Gathered(_, false))
    }

    fn kernel(&self) -> String {
        format!("{}; back {}", self.forward.name(), self.backward.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{bit_stride, checked};
    use nocebo_core::Seed;
    use rand::RngExt;

    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        let mut generator = Seed(seed).for_sample(0);
        (0..count).map(|_| generator.random_range(-1.0..1.0)).collect()
    }

    fn sides_behind(geometry: &Geometry, after: usize) -> [usize; 3] {
        std::array::from_fn(|axis| {
            if geometry.source[axis] == 1 && geometry.kernel[axis] == 1 {
                return 1;
            }
            let reach = (geometry.kernel[axis] - 1) * geometry.dilation[axis] + 1;
            let padded = geometry.source[axis] as isize + geometry.before[axis] + after as isize;
            (padded as usize - reach) / geometry.stride[axis] + 1
        })
    }

    /// A convolution with two to three axes.
    fn geometry(
        (channels, outputs): (usize, usize),
        source: [usize; 3],
        kernel: [usize; 3],
        stride: usize,
        before: isize,
        groups: usize,
    ) -> Geometry {
        let of_axis =
            |value: usize, plain: usize| std::array::from_fn(|axis| if kernel[axis] > 1 { value } else { plain });
        let stride = if kernel == [1; 3] { [1, stride, stride] } else { of_axis(stride, 1) };
        let before = std::array::from_fn(|axis| if kernel[axis] > 1 { before } else { 0 });
        let mut geometry = Geometry {
            kernel,
            stride,
            dilation: [1; 3],
            before,
            source,
            target: [1; 3],
            channels,
            outputs,
            groups,
            transposed: false,
        };
        geometry.target = sides_behind(&geometry, before.iter().copied().max().unwrap_or(0) as usize);
        geometry
    }

    /// Source and target place that a tap joins.
    fn met(geometry: &Geometry, target: usize, tap: usize) -> Option<usize> {
        let split =
            |at: usize, sides: [usize; 3]| [at / (sides[1] * sides[2]), at / sides[2] % sides[1], at % sides[2]];
        let (place, tap) = (split(target, geometry.target), geometry.tap(tap));
        let mut flat = 0;
        for axis in 0..3 {
            let at = (place[axis] * geometry.stride[axis] + tap[axis] * geometry.dilation[axis]) as isize
                - geometry.before[axis];
            if at < 0 || at as usize >= geometry.source[axis] {
                return None;
            }
            flat = flat * geometry.source[axis] + at as usize;
        }
        Some(flat)
    }

    /// The convolution (or its transpose) in f64 by its definition.
    fn reference(geometry: &Geometry, weights: &[f32], from: &[f32], samples: usize, backwards: bool) -> Vec<f64> {
        let (seen, made) = geometry.group();
        let (sources, targets): (usize, usize) = (geometry.source.iter().product(), geometry.target.iter().product());
        let length = if backwards { sources * geometry.channels } else { targets * geometry.outputs };
        let mut result = vec![0.0; samples * length];
        for sample in 0..samples {
            for target in 0..targets {
                for tap in 0..geometry.taps() {
                    let Some(source) = met(geometry, target, tap) else { continue };
                    for output in 0..geometry.outputs {
                        for channel in 0..seen {
                            let weight = f64::from(weights[(output * seen + channel) * geometry.taps() + tap]);
                            let x = (sample * sources + source) * geometry.channels + output / made * seen + channel;
                            let y = (sample * targets + target) * geometry.outputs + output;
                            if backwards {
                                result[x] += weight * f64::from(from[y]);
                            } else {
                                result[y] += weight * f64::from(from[x]);
                            }
                        }
                    }
                }
            }
        }
        result
    }

    fn relative(got: &[f32], expected: &[f64]) -> f64 {
        let difference: f64 =
            got.iter().zip(expected).map(|(got, expected)| (f64::from(*got) - expected).powi(2)).sum();
        (difference / expected.iter().map(|value| value * value).sum::<f64>()).sqrt()
    }

    /// Both directions of both the convolution and its transpose against f64.
    fn check(set: InstructionSet, geometry: &Geometry, winograd: bool, samples: usize) {
        let (sources, targets): (usize, usize) = (geometry.source.iter().product(), geometry.target.iter().product());
        let weights = numbers(geometry.outputs * geometry.group().0 * geometry.taps(), 1);
        let tolerance = if winograd && geometry.tile_side().is_some() { 1e-5 } else { 1e-6 };
        for transposed in [false, true] {
            let geometry = Geometry { transposed, ..geometry.clone() };
            let (taken, made) = if transposed {
                ((targets, geometry.outputs), (sources, geometry.channels))
            } else {
                ((sources, geometry.channels), (targets, geometry.outputs))
            };
            let bias = numbers(made.1, 2);
            let draft = Draft { geometry: geometry.clone(), weights: weights.clone(), bias: bias.clone() };
            let rectifies = draft.rectifies();
            let layer = draft.finish(set, winograd);
            let x = numbers(samples * taken.0 * taken.1, 3);
            let added = numbers(samples * made.0 * made.1, 4);
            let mut y = vec![f32::NAN; added.len()];
            let mut bits = vec![0; samples * made.0 * bit_stride(made.1)];
            let mut memory = Buffer::default();
            let mut expected = reference(&geometry, &weights, &x, samples, transposed);
            for (at, value) in expected.iter_mut().enumerate() {
                *value += f64::from(bias[at % made.1]) + f64::from(added[at]);
                *value = if rectifies { value.max(0.0) } else { *value };
            }
            layer.forward(Forward {
                set,
                samples,
                inputs: &[&x, &added],
                output: &mut y,
                saved: &mut [],
                rectified: rectifies.then_some(&mut bits),
                memory: &mut memory,
            });
            let error = relative(&y, &expected);
            assert!(error < tolerance, "{set} {geometry:?} forward: {error} by {}", layer.kernel());
            for (at, value) in y.iter().enumerate().filter(|_| rectifies) {
                let bit = bits[at / made.1 * bit_stride(made.1) + at % made.1 / 8] >> (at % made.1 % 8) & 1;
                assert_eq!(bit == 1, *value > 0.0, "{set} {geometry:?}");
            }

            let slope = numbers(y.len(), 5);
            let before = numbers(x.len(), 6);
            let expected = reference(&geometry, &weights, &slope, samples, !transposed);
            let passing: Vec<u8> =
                (0..samples * taken.0 * bit_stride(taken.1)).map(|at| ((at * 2654435761) >> 13) as u8).collect();
            let masks = layer.masks(0);
            for accumulate in [false, true] {
                let mut gradient = if accumulate { before.clone() } else { vec![f32::NAN; x.len()] };
                layer.backward(Backward {
                    set,
                    samples,
                    inputs: &[&[], &[]],
                    output: &[],
                    saved: &[],
                    slope: &slope,
                    position: 0,
                    gradient: &mut gradient,
                    accumulate,
                    passing: (masks != Masking::None).then_some(&passing),
                    memory: &mut memory,
                });
                let expected: Vec<f64> = expected
                    .iter()
                    .enumerate()
                    .map(|(at, value)| {
                        let bit =
                            passing[at / taken.1 * bit_stride(taken.1) + at % taken.1 / 8] >> (at % taken.1 % 8) & 1;
                        let sum = value + if accumulate { f64::from(before[at]) } else { 0.0 };
                        let untouched = masks == Masking::Touched && *value == 0.0;
                        if masks == Masking::None || bit == 1 || untouched { sum } else { 0.0 }
                    })
                    .collect();
                let error = relative(&gradient, &expected);
                assert!(error < tolerance, "{set} {geometry:?} backward: {error} by {}", layer.kernel());
            }
        }
    }

    fn geometries() -> Vec<Geometry> {
        let plane = |side: usize, other: usize| [1, side, other];
        let mut all = vec![
            geometry((32, 48), plane(8, 8), [1, 3, 3], 1, 1, 1),
            geometry((40, 33), plane(7, 9), [1, 3, 3], 1, 1, 1),
            geometry((24, 64), plane(5, 6), [1, 3, 3], 1, 0, 1),
            geometry((64, 24), plane(2, 3), [1, 3, 3], 1, 2, 1),
            geometry((16, 20), plane(7, 6), [1, 3, 3], 2, 1, 1),
            geometry((32, 16), plane(6, 7), [1, 1, 1], 2, 0, 1),
            geometry((3, 40), plane(9, 8), [1, 7, 7], 2, 3, 1),
            geometry((1, 5), plane(6, 6), [1, 5, 5], 1, 2, 1),
            geometry((12, 18), plane(5, 7), [1, 3, 3], 1, 1, 3),
            geometry((32, 64), plane(4, 5), [1, 3, 3], 2, 1, 2),
            geometry((19, 19), plane(6, 7), [1, 3, 3], 2, 1, 19),
            geometry((4, 6), [4, 5, 6], [3, 3, 3], 1, 1, 1),
            geometry((16, 8), [4, 6, 6], [2, 2, 2], 2, 0, 1),
            geometry((12, 7), [1, 1, 31], [1, 1, 9], 3, 4, 1),
            geometry((100, 10), plane(1, 1), [1, 1, 1], 1, 0, 1),
            geometry((8, 8), [3, 5, 6], [3, 3, 3], 1, 1, 1),
            geometry((8, 2), plane(5, 12), [1, 3, 3], 2, 1, 1),
            geometry((1, 4), [1, 3, 40], [1, 1, 20], 1, 9, 1),
            geometry((8, 16), plane(9, 10), [1, 5, 1], 1, 0, 8),
            geometry((8, 12), plane(5, 6), [1, 3, 3], 1, 1, 4),
        ];
        for (side, dilation) in [([5, 6, 20], 4), ([2, 3, 9], 3)] {
            let mut dilated = geometry((16, 32), side, [3, 3, 3], 1, dilation as isize, 1);
            dilated.dilation = [dilation; 3];
            dilated.target = side;
            all.push(dilated);
        }
        let mut dilated = geometry((17, 16), plane(9, 9), [1, 3, 3], 1, 0, 1);
        dilated.dilation = [1, 2, 2];
        dilated.before = [0, 2, 2];
        dilated.target = sides_behind(&dilated, 2);
        all.push(dilated);
        all
    }

    #[test]
    fn every_shape_agrees_with_f64_on_every_instruction_set() {
        for set in InstructionSet::available() {
            for geometry in geometries() {
                for winograd in [false, true] {
                    check(set, &geometry, winograd, 3);
                }
            }
        }
    }

    #[test]
    fn no_kernel_leaves_the_memory_it_was_handed() {
        let _turn = checked::begin();
        for geometry in geometries() {
            for winograd in [false, true] {
                check(InstructionSet::Checked, &geometry, winograd, 1);
            }
        }
    }

    #[test]
    fn small_images_and_thin_layers_are_not_tiled() {
        let side = |channels, side| geometry((channels, channels), [1, side, side], [1, 3, 3], 1, 1, 1).tile_side();
        assert_eq!(
            [side(64, 28), side(512, 4), side(512, 2), side(512, 1), side(16, 28)],
            [Some(4), Some(4), Some(2), None, None]
        );
    }

    #[test]
    fn not_a_number_passes_a_joined_relu() {
        let geometry = geometry((16, 16), [1, 3, 3], [1, 1, 1], 1, 0, 1);
        let layer =
            Draft { geometry, weights: numbers(256, 1), bias: vec![0.0; 16] }.finish(InstructionSet::Portable, true);
        let mut x = numbers(9 * 16, 2);
        x[20] = f32::NAN;
        let mut y = vec![0.0; 9 * 16];
        let mut bits = vec![0; 9 * 2];
        layer.forward(Forward {
            set: InstructionSet::Portable,
            samples: 1,
            inputs: &[&x],
            output: &mut y,
            saved: &mut [],
            rectified: Some(&mut bits),
            memory: &mut Buffer::default(),
        });
        assert!(y[16..32].iter().all(|value| value.is_nan()));
    }
}
