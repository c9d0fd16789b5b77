//! The input gradient of a convolution with few input channels, such as the first layer of a network.
//!
//! Each place of the output gradient is multiplied with the weights of all taps, and the products are added where the taps
//! came from. A gathered product would leave most columns of its tiles empty.

use super::buffer::with_scratch;
use super::finish::read;
use super::gathered::{CHUNK, Gathered, Place, Run, gather_row};
use super::isa::{InstructionSet, Isa, entry};
use super::parallel::parallel;

/// Geometry and weights of a scattered product.
pub(crate) struct Scattered {
    /// The product of one place: a single tap, an output for each tap and channel.
    pub(crate) product: Gathered,
    /// Step of the target from one place to the next.
    pub(crate) step: [usize; 3],
    /// Where the outputs belong: runs of taps with all channels.
    pub(crate) runs: Vec<Run>,
    /// Sides of the target.
    pub(crate) target: [usize; 3],
    /// Channels of the target.
    pub(crate) channels: usize,
}

#[derive(Clone, Copy)]
struct Task<'a> {
    plan: &'a Scattered,
    /// One sample.
    source: &'a [f32],
    target: *mut f32,
    scratch: *mut f32,
}

/// Adds the scattered products of `source` to `target`, or writes them where `accumulate` is off.
///
/// # Panics
///
/// When the slices do not fit the plan.
pub(crate) fn scattered(
    set: InstructionSet,
    plan: &Scattered,
    samples: usize,
    source: &[f32],
    target: &mut [f32],
    accumulate: bool,
) {
    let product = &plan.product;
    let space = |sides: &[usize; 3]| sides.iter().product::<usize>();
    let source_length = space(&product.source) * product.channels;
    let target_length = space(&plan.target) * plan.channels;
    assert_eq!(source.len(), samples * source_length);
    assert_eq!(target.len(), samples * target_length);
    assert_eq!(product.grid, product.source);
    assert_eq!(product.seen, (0, product.channels));
    assert!(product.runs.len() == 1 && product.runs[0] == Run { offset: [0; 3], taps: 1 });
    let taps: usize = plan.runs.iter().map(|run| run.taps).sum();
    product.weights.check(set, product.channels, taps * plan.channels);
    #[cfg(test)]
    {
        super::checked::allow(source);
        super::checked::allow(target);
    }
    let (depth, width) = (product.channels.next_multiple_of(CHUNK), product.weights.padded_width());
    let scratch = depth * set.rows() + set.rows() * (width + set.columns()) + depth;
    let start = Start(target.as_mut_ptr());
    parallel(samples, |sample| {
        let start = &start;
        with_scratch(scratch, |scratch| {
            #[cfg(test)]
            super::checked::allow(scratch);
            // SAFETY: the part of the target that belongs to this sample.
            let target = unsafe { start.0.add(sample * target_length) };
            if !accumulate {
                // SAFETY: as above; no other task touches it.
                unsafe { std::slice::from_raw_parts_mut(target, target_length) }.fill(0.0);
            }
            let source = &source[sample * source_length..][..source_length];
            let task = Task { plan, source, target, scratch: scratch.as_mut_ptr() };
            // SAFETY: the asserts above are the kernel's conditions.
            unsafe { run(set, task) }
        });
    });
}

/// The beginning of the target, of which each task takes one sample.
struct Start(*mut f32);

// SAFETY: tasks write the parts of different samples.
unsafe impl Sync for Start {}

entry!(run, run_kernel, Task<'_>);

/// Multiplies and scatters one sample.
///
/// Safety: source, target and scratch fit the plan.
#[inline(always)]
unsafe fn run_kernel<S: Isa>(task: Task<'_>) {
    let plan = task.plan;
    let product = &plan.product;
    let weights = &product.weights;
    let columns = S::VECTORS * S::LANES;
    let chunks = product.channels.div_ceil(CHUNK);
    let width = weights.padded_width();
    let results = task.scratch.add(chunks * CHUNK * S::ROWS);
    let panel_results = results.add(S::ROWS * width);
    let whole_row = panel_results.add(S::ROWS * columns);
    let whole_lines = product.has_whole_lines();
    let places: usize = product.grid.iter().product();
    let mut place = Place::of(0, product.grid);
    let mut scattered = Place::of(0, product.grid);
    for first in (0..places).step_by(S::ROWS) {
        let rows = (places - first).min(S::ROWS);
        for row in 0..rows {
            let to = task.scratch.add(row * CHUNK);
            gather_row::<S>(product, whole_lines, task.source, &place, to, whole_row);
            place.next(product.grid);
        }
        for panel in 0..width / columns {
            let vectors = weights.vectors::<S>(panel);
            S::product((rows, vectors), task.scratch, weights.panel(panel), chunks, panel_results, false);
            for row in 0..rows {
                for vector in 0..vectors {
                    let value = S::load(panel_results.add(row * columns + vector * S::LANES));
                    S::store(results.add(row * width + panel * columns + vector * S::LANES), value);
                }
            }
        }
        for row in 0..rows {
            scatter::<S>(plan, &scattered, results.add(row * width), task.target);
            scattered.next(product.grid);
        }
    }
}

/// Adds the products of one place where they belong; what lies outside the target is dropped.
#[inline(always)]
unsafe fn scatter<S: Isa>(plan: &Scattered, place: &Place, mut products: *const f32, target: *mut f32) {
    for run in &plan.runs {
        let (row, start) = place.reach(plan.step, run.offset, plan.target);
        let low = start.clamp(-(run.taps as isize), 0).unsigned_abs();
        let high = (plan.target[2] as isize - start).clamp(low as isize, run.taps as isize) as usize;
        if let Some(row) = row
            && low < high
        {
            let x = (start + low as isize) as usize;
            let to = target.add((row + x) * plan.channels);
            let from = products.add(low * plan.channels);
            let length = (high - low) * plan.channels;
            let mut at = 0;
            while at < length {
                let count = (length - at).min(S::LANES);
                let sum = S::add(read::<S>(to.add(at), count), read::<S>(from.add(at), count));
                S::store_part(to.add(at), count, sum);
                at += count;
            }
        }
        products = products.add(run.taps * plan.channels);
    }
}
