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

    fn depthwise(&self) -> bool {
        self.groups > 1 && self.groups == self.channels && self.groups == self.outputs
    }

    /// Outputs of the layer, and whether groups of them begin at whole vectors.
    fn made(&self) -> (usize, bool) {
        let made = if self.transposed { self.channels } else { self.outputs };
        (made, self.groups == 1 || self.depthwise() || (made / self.groups).is_multiple_of(16))
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

/// What computes one direction.
enum Kernel {
    Tiled(Tiled),
    /// One product for each group of channels and each phase of the stride; whether they reach every element.
    Gathered(Vec<Gathered>, bool),
    Scattered(Scattered),
    Depthwise(Windows, Vec<f32>),
}

impl Kernel {
    /// From the side with `channels` to that with `outputs`; `weight(output, channel of its group, tap)`.
    fn correlate(
        set: InstructionSet,
        geometry: &Geometry,
        winograd: bool,
        weight: &dyn Fn(usize, usize, usize) -> f32,
    ) -> Self {
        if geometry.depthwise() {
            let (windows, weights) = depthwise(geometry, weight);
            return Self::Depthwise(windows, weights);
        }
        if let Some(side) = geometry.tile_side().filter(|_| winograd) {
            let kernel = |channel, output| std::array::from_fn(|tap| weight(output, channel, tap));
            return Self::Tiled(Tiled {
                source: [geometry.source[1], geometry.source[2]],
                target: [geometry.target[1], geometry.target[2]],
                padding: [geometry.before[1].unsigned_abs(), geometry.before[2].unsigned_abs()],
                weights: TileWeights::new(set, side, geometry.channels, geometry.outputs, kernel),
            });
        }
        let (seen, made) = geometry.group();
        let taps: Vec<([isize; 3], usize)> = (0..geometry.taps())
            .map(|index| {
                let tap = geometry.tap(index);
                let along = |axis| (tap[axis] * geometry.dilation[axis]) as isize - geometry.before[axis];
                (std::array::from_fn(along), index)
            })
            .collect();
        let (runs, order) = joined(taps, geometry.groups == 1);
        let product = |group: usize| Gathered {
            grid: geometry.target,
            step: geometry.stride,
            source: geometry.source,
            channels: geometry.channels,
            seen: (group * seen, seen),
            runs: runs.clone(),
            target: geometry.target,
            spread: [1; 3],
            shift: [0; 3],
            outputs: geometry.outputs,
            first_output: group * made,
            weights: Packed::new(set, order.len() * seen, made, |depth, output| {
                weight(group * made + output, depth % seen, order[depth / seen])
            }),
        };
        Self::Gathered((0..geometry.groups).map(product).collect(), true)
    }

    /// From the side with `outputs` to that with `channels`: what [`Kernel::correlate`] does, transposed.
    fn spread(
        set: InstructionSet,
        geometry: &Geometry,
        winograd: bool,
        weight: &dyn Fn(usize, usize, usize) -> f32,
    ) -> Self {
        /// Channels up to which scattering beats gathering with mostly empty tiles.
        const THIN: usize = 8;
        if geometry.depthwise() {
            let (windows, weights) = depthwise(geometry, weight);
            return Self::Depthwise(windows.reversed(), weights);
        }
        if let Some(side) = geometry.tile_side().filter(|_| winograd) {
            let kernel = |output, channel| std::array::from_fn(|tap| weight(output, channel, 8 - tap));
            return Self::Tiled(Tiled {
                source: [geometry.target[1], geometry.target[2]],
                target: [geometry.source[1], geometry.source[2]],
                padding: [(2 - geometry.before[1]).unsigned_abs(), (2 - geometry.before[2]).unsigned_abs()],
                weights: TileWeights::new(set, side, geometry.outputs, geometry.channels, kernel),
            });
        }
        if geometry.groups == 1 && geometry.channels <= THIN && geometry.taps() > 1 {
            return Self::Scattered(Self::scatter(set, geometry, weight));
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
            let (runs, order) = joined(taps, geometry.groups == 1);
            let (made, seen) = geometry.group();
            products.extend((0..geometry.groups).map(|group| Gathered {
                grid,
                step: [1; 3],
                source: geometry.target,
                channels: geometry.outputs,
                seen: (group * seen, seen),
                runs: runs.clone(),
                target: geometry.source,
                spread: geometry.stride,
                shift: phase,
                outputs: geometry.channels,
                first_output: group * made,
                weights: Packed::new(set, order.len() * seen, made, |depth, output| {
                    weight(group * seen + depth % seen, output, order[depth / seen])
                }),
            }));
        }
        Self::Gathered(products, reaches_all)
    }

    fn scatter(set: InstructionSet, geometry: &Geometry, weight: &dyn Fn(usize, usize, usize) -> f32) -> Scattered {
        let taps: Vec<([isize; 3], usize)> = (0..geometry.taps())
            .map(|index| {
                let tap = geometry.tap(index);
                let along = |axis| (tap[axis] * geometry.dilation[axis]) as isize - geometry.before[axis];
                (std::array::from_fn(along), index)
            })
            .collect();
        let (runs, order) = joined(taps, true);
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
                outputs: order.len() * channels,
                first_output: 0,
                weights: Packed::new(set, geometry.outputs, order.len() * channels, |output, at| {
                    weight(output, at % channels, order[at / channels])
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
                    gathered(set, plan, samples, source, output, finish);
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

/// Runs of taps in ascending order, and which tap stands where. Only where `join` do neighbours share a run.
fn joined(mut taps: Vec<([isize; 3], usize)>, join: bool) -> (Vec<Run>, Vec<usize>) {
    taps.sort_unstable();
    let mut runs: Vec<Run> = Vec::new();
    for (offset, _) in &taps {
        match runs.last_mut() {
            Some(run)
                if join
                    && run.offset[..2] == offset[..2]
                    && run.offset[2] + run.taps as isize == offset[2] =>
            {
                run.taps += 1;
            }
            _ => runs.push(Run { offset: *offset, taps: 1 }),
        }
    }
    (runs, taps.into_iter().map(|(_, index)| index).collect())
}

/// Windows and `[tap][channel]` weights of a depthwise convolution.
fn depthwise(geometry: &Geometry, weight: &dyn Fn(usize, usize, usize) -> f32) -> (Windows, Vec<f32>) {
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
    let weights = (0..geometry.taps() * channels).map(|at| weight(at % channels, 0, at / channels)).collect();
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
            let channel = if self.geometry.transposed {
                output / made * seen + index / taps % seen
            } else {
                output
            };
            *weight *= scale[channel];
        }
        for ((bias, scale), shift) in self.bias.iter_mut().zip(scale).zip(shift) {
            *bias = *bias * scale + shift;
        }
    }

    /// Whether the layer can do a ReLU itself.
    pub(crate) fn rectifies(&self) -> bool {
        self.geometry.made().1
    }

    pub(crate) fn finish(self, set: InstructionSet, winograd: bool) -> Convolution {
        let (seen, _) = self.geometry.group();
        let taps = self.geometry.taps();
        let weight =
            |output: usize, channel: usize, tap: usize| self.weights[(output * seen + channel) * taps + tap];
        let correlate = Kernel::correlate(set, &self.geometry, winograd, &weight);
        let spread = Kernel::spread(set, &self.geometry, winograd, &weight);
        let taken = if self.geometry.transposed { self.geometry.outputs } else { self.geometry.channels };
        let groups = self.geometry.groups;
        let whole_groups = groups == 1 || self.geometry.depthwise() || (taken / groups).is_multiple_of(16);
        let (forward, backward) = if self.geometry.transposed { (spread, correlate) } else { (correlate, spread) };
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
