//! The product of gathered rows with packed weights: convolutions in both directions, and linear layers.
//!
//! A row belongs to one place of a grid. It holds the channels that the taps of the kernel see from there, so that the
//! convolution is `rows · weights`. Rows are gathered a few tiles at a time into scratch that stays in the cache; the whole
//! matrix never exists. Taps outside the source give zeros.

use super::buffer::{Buffer, with_scratch};
use super::finish::{Finish, Sink};
use super::isa::{InstructionSet, Isa, entry};
use super::parallel::{parallel, rows_per_task};

/// Depth of a chunk: the reduction is padded to a multiple of it.
pub(crate) const CHUNK: usize = 16;

/// Taps side by side along the last axis of space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Place of the first tap, relative to the grid place times the step.
    pub(crate) offset: [isize; 3],
    /// Number of taps.
    pub(crate) taps: usize,
}

/// Weights as panels of `[depth][columns]`, where the depth is filled up to a multiple of [`CHUNK`] with zeros.
pub(crate) struct Packed {
    values: Buffer,
    chunks: usize,
    width: usize,
    columns: usize,
}

impl Packed {
    /// Packs `weight(depth, output)`.
    pub(crate) fn new(set: InstructionSet, depth: usize, width: usize, weight: impl Fn(usize, usize) -> f32) -> Self {
        let (chunks, columns) = (depth.div_ceil(CHUNK), set.columns());
        let mut values = Buffer::zeroed(width.div_ceil(columns) * chunks * CHUNK * columns);
        for (panel, values) in values.chunks_exact_mut((chunks * CHUNK * columns).max(1)).enumerate() {
            for (k, values) in values.chunks_exact_mut(columns).enumerate().take(depth) {
                for (column, value) in values.iter_mut().enumerate() {
                    let output = panel * columns + column;
                    if output < width {
                        *value = weight(k, output);
                    }
                }
            }
        }
        Self { values, chunks, width, columns }
    }

    fn panels(&self) -> usize {
        self.width.div_ceil(self.columns)
    }

    /// Outputs filled up to whole panels.
    pub(super) fn padded_width(&self) -> usize {
        self.panels() * self.columns
    }

    /// # Panics
    ///
    /// When these are not weights of that size for that instruction set.
    pub(super) fn check(&self, set: InstructionSet, depth: usize, width: usize) {
        assert_eq!((self.columns, self.chunks, self.width), (set.columns(), depth.div_ceil(CHUNK), width));
        assert_eq!(self.values.len(), self.panels() * self.panel_length());
        #[cfg(test)]
        super::checked::allow(&self.values);
    }

    /// Safety: there is such a panel.
    #[inline(always)]
    pub(super) unsafe fn panel(&self, panel: usize) -> *const f32 {
        self.values.as_ptr().add(panel * self.panel_length())
    }

    fn panel_length(&self) -> usize {
        self.chunks * CHUNK * self.columns
    }
}

/// Geometry and weights of a gathered product. Space has three axes; those that a network lacks have side 1.
pub(crate) struct Gathered {
    /// Places computed for each sample.
    pub(crate) grid: [usize; 3],
    /// Step of the source along each axis from one grid place to the next.
    pub(crate) step: [usize; 3],
    /// Sides of the source.
    pub(crate) source: [usize; 3],
    /// Channels of the source.
    pub(crate) channels: usize,
    /// Channels that the taps see: the first and how many.
    pub(crate) seen: (usize, usize),
    /// Taps; runs of more than one tap only where all channels are seen.
    pub(crate) runs: Vec<Run>,
    /// Sides of the output.
    pub(crate) target: [usize; 3],
    /// A grid place is put at `place · spread + shift` of the output.
    pub(crate) spread: [usize; 3],
    /// See `spread`.
    pub(crate) shift: [usize; 3],
    /// Channels of the output.
    pub(crate) outputs: usize,
    /// First output channel of the weights.
    pub(crate) first_output: usize,
    /// Depth: the taps in their order, the channels of each.
    pub(crate) weights: Packed,
}

impl Gathered {
    fn depth(&self) -> usize {
        self.runs.iter().map(|run| run.taps).sum::<usize>() * self.seen.1
    }
}

#[derive(Clone, Copy)]
struct Task<'a> {
    plan: &'a Gathered,
    source: &'a [f32],
    sink: &'a Sink,
    rows: (usize, usize),
    panels: (usize, usize),
    scratch: *mut f32,
}

/// Adds the product to `output` in the way that `finish` says.
///
/// `source` is `[samples][space][channels]`, `output` `[samples][space][outputs]`.
///
/// # Panics
///
/// When the slices do not fit the plan.
pub(crate) fn gathered(
    set: InstructionSet,
    plan: &Gathered,
    samples: usize,
    source: &[f32],
    output: &mut [f32],
    finish: Finish<'_>,
) {
    /// Floats of gathered rows that leave room for a panel of weights in the second cache.
    const BLOCK: usize = 100_000;
    let product = |sides: &[usize; 3]| sides.iter().product::<usize>();
    assert_eq!(source.len(), samples * product(&plan.source) * plan.channels);
    assert!(plan.seen.0 + plan.seen.1 <= plan.channels);
    assert!(plan.runs.iter().all(|run| run.taps == 1 || plan.seen == (0, plan.channels)));
    assert!((0..3).all(|axis| {
        plan.grid[axis] == 0 || (plan.grid[axis] - 1) * plan.spread[axis] + plan.shift[axis] < plan.target[axis]
    }));
    assert!(plan.first_output + plan.weights.width <= plan.outputs);
    let (chunks, columns, height) = (plan.weights.chunks, set.columns(), set.rows());
    plan.weights.check(set, plan.depth(), plan.weights.width);
    let sink = Sink::new(output, samples * product(&plan.target), plan.outputs, finish);
    #[cfg(test)]
    super::checked::allow(source);

    let rows = samples * product(&plan.grid);
    let tiles = (BLOCK / (chunks.max(1) * CHUNK * height)).clamp(1, 8);
    let block = rows_per_task(rows, tiles * height, height);
    let blocks = rows.div_ceil(block);
    // Few rows and many outputs: the panels are shared out too, and each task gathers for itself.
    let panels = plan.weights.panels();
    let parts = (2 * rayon::current_num_threads()).div_ceil(blocks.max(1)).clamp(1, panels.max(1));
    let share = panels.div_ceil(parts);
    let parts = panels.div_ceil(share.max(1));
    let tiles = block.div_ceil(height);
    // Gathered tiles, one tile of results, one row that is put together before it is cut into chunks.
    let scratch = (tiles * chunks * height * CHUNK) + height * columns + chunks * CHUNK;
    parallel(blocks * parts, |index| {
        let (at, part) = (index / parts, index % parts);
        with_scratch(scratch, |scratch| {
            #[cfg(test)]
            super::checked::allow(scratch);
            let task = Task {
                plan,
                source,
                sink: &sink,
                rows: (at * block, rows.min((at + 1) * block)),
                panels: (part * share, panels.min((part + 1) * share)),
                scratch: scratch.as_mut_ptr(),
            };
            // SAFETY: the asserts above are the kernel's conditions, and each task has rows and panels of its own.
            unsafe { run(set, task) }
        });
    });
}

entry!(run, run_kernel, Task<'_>);

/// Gathers the rows of a task and multiplies them with its panels.
///
/// Safety: the slices fit the plan, the scratch holds the tiles, one tile of results and one row, and no other task has both
/// these rows and these panels.
#[inline(always)]
unsafe fn run_kernel<S: Isa>(task: Task<'_>) {
    let plan = task.plan;
    let chunks = plan.weights.chunks;
    let columns = S::VECTORS * S::LANES;
    let tile_length = chunks * S::ROWS * CHUNK;
    let (first, end) = task.rows;
    let tiles = (end - first).div_ceil(S::ROWS);
    let results = task.scratch.add(tiles * tile_length);
    let whole_row = results.add(S::ROWS * columns);
    let mut place = Place::of(first, plan.grid);
    for row in 0..end - first {
        let to = task.scratch.add((row / S::ROWS) * tile_length + (row % S::ROWS) * CHUNK);
        gather_row::<S>(plan, task.source, &place, to, whole_row);
        place.next(plan.grid);
    }
    for panel in task.panels.0..task.panels.1 {
        let weights = plan.weights.panel(panel);
        let channel = panel * columns;
        let width = plan.weights.width - channel;
        let mut place = Place::of(first, plan.grid);
        for tile in 0..tiles {
            let rows = (end - first - tile * S::ROWS).min(S::ROWS);
            S::product(rows, task.scratch.add(tile * tile_length), weights, chunks, results);
            for row in 0..rows {
                let target = place.target(plan);
                for vector in 0..S::VECTORS {
                    let offset = vector * S::LANES;
                    if offset < width {
                        let value = S::load(results.add(row * columns + offset));
                        let count = (width - offset).min(S::LANES);
                        task.sink.put::<S>(target, plan.first_output + channel + offset, count, value);
                    }
                }
                place.next(plan.grid);
            }
        }
    }
}

/// A place of the grid of one sample.
pub(super) struct Place {
    sample: usize,
    at: [usize; 3],
}

impl Place {
    #[inline(always)]
    pub(super) fn of(row: usize, grid: [usize; 3]) -> Self {
        let plane = grid[1] * grid[2];
        let inside = row % (grid[0] * plane);
        Self { sample: row / (grid[0] * plane), at: [inside / plane, inside % plane / grid[2], inside % grid[2]] }
    }

    #[inline(always)]
    pub(super) fn next(&mut self, grid: [usize; 3]) {
        for axis in [2, 1, 0] {
            self.at[axis] += 1;
            if self.at[axis] < grid[axis] {
                return;
            }
            self.at[axis] = 0;
        }
        self.sample += 1;
    }

    /// Flat place in the output.
    #[inline(always)]
    fn target(&self, plan: &Gathered) -> usize {
        let along = |axis: usize| self.at[axis] * plan.spread[axis] + plan.shift[axis];
        ((self.sample * plan.target[0] + along(0)) * plan.target[1] + along(1)) * plan.target[2] + along(2)
    }

    /// Where a run that begins at `offset` lies in a space with these sides: the flat place of its row, or `None` where that
    /// lies outside, and where along the row it begins.
    #[inline(always)]
    pub(super) fn reach(&self, step: [usize; 3], offset: [isize; 3], sides: [usize; 3]) -> (Option<usize>, isize) {
        let along = |axis: usize| (self.at[axis] * step[axis]) as isize + offset[axis];
        let (z, y) = (along(0), along(1));
        let inside = z >= 0 && y >= 0 && (z as usize) < sides[0] && (y as usize) < sides[1];
        let row = if inside {
            Some(((self.sample * sides[0] + z as usize) * sides[1] + y as usize) * sides[2])
        } else {
            None
        };
        (row, along(2))
    }
}

/// Gathers one row into its lines of a tile; `whole_row` has room for it in one piece.
///
/// Safety: the source fits the plan, and `to` is the row's first line of a tile with room for all chunks.
#[inline(always)]
pub(super) unsafe fn gather_row<S: Isa>(
    plan: &Gathered,
    source: &[f32],
    place: &Place,
    to: *mut f32,
    whole_row: *mut f32,
) {
    if plan.seen.1.is_multiple_of(CHUNK) {
        gather::<S>(plan, source, place, to, S::ROWS * CHUNK);
    } else {
        gather_any::<S>(plan, source, place, whole_row);
        for chunk in 0..plan.weights.chunks {
            S::copy_line(whole_row.add(chunk * CHUNK), to.add(chunk * S::ROWS * CHUNK));
        }
    }
}

/// Gathers a row whose taps see a multiple of [`CHUNK`] channels: line by line, `stride` floats apart.
///
/// Safety: the source fits the plan, and `to` has room for all lines.
#[inline(always)]
unsafe fn gather<S: Isa>(plan: &Gathered, source: &[f32], place: &Place, mut to: *mut f32, stride: usize) {
    let lines = plan.seen.1 / CHUNK;
    for run in &plan.runs {
        let (row, start) = place.reach(plan.step, run.offset, plan.source);
        for tap in 0..run.taps {
            let x = start + tap as isize;
            match row {
                Some(row) if x >= 0 && (x as usize) < plan.source[2] => {
                    let from = source.as_ptr().add((row + x as usize) * plan.channels + plan.seen.0);
                    for line in 0..lines {
                        S::copy_line(from.add(line * CHUNK), to);
                        to = to.add(stride);
                    }
                }
                _ => {
                    for _ in 0..lines {
                        S::zero_line(to);
                        to = to.add(stride);
                    }
                }
            }
        }
    }
}

/// Gathers a row with any number of channels without gaps and fills it up to whole chunks.
///
/// Safety: as [`gather`]; `to` has room for all chunks.
#[inline(always)]
unsafe fn gather_any<S: Isa>(plan: &Gathered, source: &[f32], place: &Place, to: *mut f32) {
    let seen = plan.seen.1;
    let mut at = 0;
    for run in &plan.runs {
        let (row, start) = place.reach(plan.step, run.offset, plan.source);
        let length = run.taps * seen;
        let low = start.clamp(-(run.taps as isize), 0).unsigned_abs();
        let high = (plan.source[2] as isize - start).clamp(low as isize, run.taps as isize) as usize;
        match row {
            Some(row) if low < high => {
                fill_zero::<S>(to.add(at), low * seen);
                let x = (start + low as isize) as usize;
                let from = source.as_ptr().add((row + x) * plan.channels + plan.seen.0);
                copy::<S>(from, to.add(at + low * seen), (high - low) * seen);
                fill_zero::<S>(to.add(at + high * seen), (run.taps - high) * seen);
            }
            _ => fill_zero::<S>(to.add(at), length),
        }
        at += length;
    }
    fill_zero::<S>(to.add(at), plan.weights.chunks * CHUNK - at);
}

/// Copies `count` floats.
#[inline(always)]
unsafe fn copy<S: Isa>(from: *const f32, to: *mut f32, count: usize) {
    let mut at = 0;
    while at + S::LANES <= count {
        S::store(to.add(at), S::load(from.add(at)));
        at += S::LANES;
    }
    if at < count {
        S::store_part(to.add(at), count - at, S::load_part(from.add(at), count - at));
    }
}

/// Sets `count` floats to 0.
#[inline(always)]
unsafe fn fill_zero<S: Isa>(to: *mut f32, count: usize) {
    let mut at = 0;
    while at + S::LANES <= count {
        S::store(to.add(at), S::zero());
        at += S::LANES;
    }
    if at < count {
        S::store_part(to.add(at), count - at, S::zero());
    }
}
