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
    let [planes, lines, places] = product.grid;
    for line in 0..planes * lines {
        // About the same number of places in all tiles of a line.
        let parts = places.div_ceil(S::ROWS);
        let cut = |part: usize| part * places / parts;
        for part in 0..parts {
            let rows = cut(part + 1) - cut(part);
            let place = Place::of(line * places + cut(part), product.grid);
            let mut gathered = place;
            for row in 0..rows {
                let to = task.scratch.add(row * CHUNK);
                gather_row::<S>(product, whole_lines, task.source, &gathered, to, whole_row);
                gathered.next(product.grid);
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
            scatter::<S>(plan, &place, (rows, width), results, task.target);
        }
    }
}

/// Adds the products of neighbouring places of a line, `width` floats from one to the next, where they belong; what lies outside
/// the target is dropped.
///
/// A vector of the target is read and written once for all places that reach it: memory that has just been written in pieces is
/// slow to read.
///
/// Safety: there are so many products, for places of the grid.
#[inline(always)]
unsafe fn scatter<S: Isa>(
    plan: &Scattered,
    place: &Place,
    (rows, width): (usize, usize),
    mut products: *const f32,
    target: *mut f32,
) {
    let step = plan.step[2] * plan.channels;
    for run in &plan.runs {
        let (row, start) = place.reach(plan.step, run.offset, plan.target);
        let length = run.taps * plan.channels;
        if let Some(row) = row {
            // Floats of the row that the places reach, from the first tap of the first; part of them lies outside.
            let begin = start * plan.channels as isize;
            let reached = ((rows - 1) * step + length) as isize;
            let low = begin.min(0).unsigned_abs();
            let high = reached.min((plan.target[2] * plan.channels) as isize - begin).max(0) as usize;
            let to = target.add(row * plan.channels).wrapping_offset(begin);
            let mut at = low;
            while at < high {
                let count = (high - at).min(S::LANES);
                let mut sum = read::<S>(to.wrapping_add(at), count);
                let first = (at + 1).saturating_sub(length).div_ceil(step);
                let last = ((at + count - 1) / step).min(rows - 1);
                for number in first..=last {
                    // Where the products of this place begin, seen from the vector.
                    let lane = (number * step) as isize - at as isize;
                    let (from, end) = (lane.max(0) as usize, (lane + length as isize).min(count as isize) as usize);
                    let own = products.add(number * width).wrapping_offset(-lane);
                    sum = S::add(sum, S::load_between(own, from, end));
                }
                S::store_part(to.wrapping_add(at), count, sum);
                at += count;
            }
        }
        products = products.add(length);
    }
}
