//! The product of gathered rows with packed weights: convolutions in both directions, and linear layers.
//!
//! A row belongs to one place of a grid. It holds the channels that the taps of the kernel see from there, so that the
//! convolution is `rows · weights`. Rows are gathered a few tiles at a time into scratch that stays in the cache; the whole
//! matrix never exists. Taps outside the source give zeros.

use rayon::prelude::*;

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
    /// Packs `row(depth)(output)`.
    pub(crate) fn new<R: Fn(usize) -> f32>(
        set: InstructionSet,
        depth: usize,
        width: usize,
        row: impl Fn(usize) -> R + Sync,
    ) -> Self {
        let (chunks, columns) = (depth.div_ceil(CHUNK), set.columns());
        let mut values = Buffer::zeroed(width.div_ceil(columns) * chunks * CHUNK * columns);
        let panels = values.par_chunks_exact_mut((chunks * CHUNK * columns).max(1)).enumerate();
        panels.for_each(|(panel, values)| {
            let outputs = panel * columns..width.min((panel + 1) * columns);
            for (k, values) in values.chunks_exact_mut(columns).enumerate().take(depth) {
                let weight = row(k);
                values.iter_mut().zip(outputs.clone()).for_each(|(value, output)| *value = weight(output));
            }
        });
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

    /// Vectors of a panel that hold outputs.
    #[inline(always)]
    pub(super) fn vectors<S: Isa>(&self, panel: usize) -> usize {
        (self.width - panel * self.columns).div_ceil(S::LANES).min(S::VECTORS)
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
    /// Neighbouring places along the last axis that a grid place is computed for: several where a place has few outputs, so
    /// that they fill a vector. The weights then have the outputs of the first, those of the second, and so on.
    pub(crate) block: usize,
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

    /// Whether each run fills whole chunks.
    pub(super) fn has_whole_lines(&self) -> bool {
        self.runs.iter().all(|run| (run.taps * self.seen.1).is_multiple_of(CHUNK))
    }

    /// Whether tiles of at most `height` places keep to lines of the grid: they are gathered run by run, and taps that a whole tile
    /// has outside the source can be left out.
    ///
    /// This hangs on the shape of one sample alone, and so do the sums that follow from it.
    fn by_line(&self, height: usize) -> bool {
        /// Places of a line that make tiles worth while.
        const SHORTEST: usize = 8;
        let places = self.grid[2];
        if places.max(1) * 10 >= places.div_ceil(height) * height * 7 {
            return true;
        }
        if !self.has_whole_lines() || places < SHORTEST {
            return false;
        }
        let inside = |axis: usize, offset: isize| {
            let along = |place: usize| (place * self.step[axis]) as isize + offset;
            (0..self.grid[axis]).filter(|&place| (0..self.source[axis] as isize).contains(&along(place))).count()
        };
        let met: usize = self.runs.iter().map(|run| inside(0, run.offset[0]) * inside(1, run.offset[1])).sum();
        // A tenth of the taps pays for shorter tiles.
        met * 10 < self.runs.len() * self.grid[0] * self.grid[1] * 9
    }
}

/// How the rows of a call are cut into tiles.
#[derive(Clone, Copy)]
struct Tiling {
    rows: usize,
    /// Rows of a stretch that is cut on its own: a line of the grid, or all.
    stretch: usize,
    /// Tiles of a stretch.
    parts: usize,
    /// Whether a tile lies within a line.
    by_line: bool,
}

impl Tiling {
    fn new(plan: &Gathered, rows: usize, height: usize) -> Self {
        let by_line = plan.by_line(height);
        let stretch = if by_line { plan.grid[2] } else { rows };
        Self { rows, stretch, parts: stretch.div_ceil(height).max(1), by_line }
    }

    fn tiles(&self) -> usize {
        self.rows.div_ceil(self.stretch.max(1)) * self.parts
    }

    /// First row of a tile and the number of its rows: whole tiles and a rest, or about the same number in all of a line.
    #[inline(always)]
    fn tile(&self, tile: usize, height: usize) -> (usize, usize) {
        if self.by_line {
            let (line, part) = (tile / self.parts, tile % self.parts);
            let cut = |part: usize| part * self.stretch / self.parts;
            (line * self.stretch + cut(part), cut(part + 1) - cut(part))
        } else {
            (tile * height, (self.rows - tile * height).min(height))
        }
    }
}

#[derive(Clone, Copy)]
struct Task<'a> {
    plan: &'a Gathered,
    source: &'a [f32],
    sink: &'a Sink,
    tiling: Tiling,
    tiles: (usize, usize),
    panels: (usize, usize),
    scratch: *mut f32,
}

/// Adds the product to `output` in the way that `finish` says, shared out among `threads` threads: 1 for this one alone.
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
    threads: usize,
) {
    /// Floats of gathered rows that leave room for a panel of weights in the second cache.
    const BLOCK: usize = 100_000;
    let product = |sides: &[usize; 3]| sides.iter().product::<usize>();
    assert_eq!(source.len(), samples * product(&plan.source) * plan.channels);
    assert!(plan.seen.0 + plan.seen.1 <= plan.channels);
    assert!(plan.runs.iter().all(|run| run.taps == 1 || plan.seen == (0, plan.channels)));
    assert!((0..3).all(|axis| {
        let block = if axis == 2 { plan.block } else { 1 };
        plan.grid[axis] == 0
            || (plan.grid[axis] - 1) * plan.spread[axis] + plan.shift[axis] + block <= plan.target[axis]
    }));
    if plan.block > 1 {
        assert_eq!((plan.first_output, plan.weights.width), (0, plan.block * plan.outputs));
        assert!(plan.weights.width <= set.lanes() && plan.outputs <= 8);
    }
    assert!(plan.first_output + plan.weights.width <= plan.block * plan.outputs);
    let (chunks, columns, height) = (plan.weights.chunks, set.columns(), set.rows());
    plan.weights.check(set, plan.depth(), plan.weights.width);
    let sink = Sink::new(output, samples * product(&plan.target), plan.outputs, finish);
    let mut repeated = [0.0; 16];
    let sink = if plan.block > 1 { sink.repeating(&mut repeated) } else { sink };
    #[cfg(test)]
    super::checked::allow(source);

    let tiling = Tiling::new(plan, samples * product(&plan.grid), height);
    let tiles = tiling.tiles();
    let most = (BLOCK / (chunks.max(1) * CHUNK * height)).clamp(1, 8);
    let block = if threads == 1 { tiles.clamp(1, most) } else { rows_per_task(tiles, most, 1) };
    let blocks = tiles.div_ceil(block);
    // Few rows and many outputs: the panels are shared out too, and each task gathers for itself.
    let panels = plan.weights.panels();
    let wanted = if threads == 1 { 1 } else { (2 * threads).div_ceil(blocks.max(1)) };
    let parts = wanted.clamp(1, panels.max(1));
    let share = panels.div_ceil(parts);
    let parts = panels.div_ceil(share.max(1));
    // Gathered tiles, one tile of results, one row that is put together before it is cut into chunks.
    let scratch = (block * chunks * height * CHUNK) + height * columns + chunks * CHUNK;
    let task = |index: usize| {
        let (at, part) = (index / parts, index % parts);
        with_scratch(scratch, |scratch| {
            #[cfg(test)]
            super::checked::allow(scratch);
            let task = Task {
                plan,
                source,
                sink: &sink,
                tiling,
                tiles: (at * block, tiles.min((at + 1) * block)),
                panels: (part * share, panels.min((part + 1) * share)),
                scratch: scratch.as_mut_ptr(),
            };
            // SAFETY: the asserts above are the kernel's conditions, and each task has tiles and panels of its own.
            unsafe { run(set, task) }
        });
    };
    if threads == 1 { (0..blocks * parts).for_each(task) } else { parallel(blocks * parts, task) }
}

entry!(run, run_kernel, Task<'_>);

/// Gathers the tiles of a task and multiplies them with its panels.
///
/// Safety: the slices fit the plan, the scratch holds the tiles, one tile of results and one row, and no other task has both
/// these tiles and these panels.
#[inline(always)]
unsafe fn run_kernel<S: Isa>(task: Task<'_>) {
    let Task { plan, tiling, tiles: (first, end), .. } = task;
    let chunks = plan.weights.chunks;
    let columns = S::VECTORS * S::LANES;
    let tile_length = chunks * S::ROWS * CHUNK;
    let results = task.scratch.add((end - first) * tile_length);
    let whole_row = results.add(S::ROWS * columns);
    let whole_lines = plan.has_whole_lines();
    for tile in first..end {
        let to = task.scratch.add((tile - first) * tile_length);
        let (row, count) = tiling.tile(tile, S::ROWS);
        let mut place = Place::of(row, plan.grid);
        if tiling.by_line {
            if whole_lines {
                gather_line::<S>(plan, task.source, &place, count, to);
            } else {
                gather_pieces::<S>(plan, task.source, &place, count, to);
            }
        } else {
            for row in 0..count {
                let to = to.add(row * CHUNK);
                gather_row::<S>(plan, whole_lines, task.source, &place, to, whole_row);
                place.next(plan.grid);
            }
        }
    }
    for panel in task.panels.0..task.panels.1 {
        let weights = plan.weights.panel(panel);
        let vectors = plan.weights.vectors::<S>(panel);
        let channel = panel * columns;
        let width = plan.weights.width - channel;
        for tile in first..end {
            let gathered = task.scratch.add((tile - first) * tile_length);
            let (row, count) = tiling.tile(tile, S::ROWS);
            let mut place = Place::of(row, plan.grid);
            if tiling.by_line && whole_lines {
                line_product::<S>(plan, &place, (count, vectors), gathered, weights, results);
            } else {
                S::product((count, vectors), gathered, weights, chunks, results, false);
            }
            for row in 0..count {
                let target = place.target(plan);
                if plan.block > 1 {
                    task.sink.put_places::<S>(target, plan.block, S::load(results.add(row * columns)));
                } else {
                    for vector in 0..vectors {
                        let offset = vector * S::LANES;
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

/// Whether a tile of `count` places of a line sees anything through a run.
#[inline(always)]
fn meets(plan: &Gathered, place: &Place, count: usize, run: &Run) -> bool {
    let (row, start) = place.reach(plan.step, run.offset, plan.source);
    let last = start + ((count - 1) * plan.step[2] + run.taps - 1) as isize;
    row.is_some() && last >= 0 && start < plan.source[2] as isize
}

/// Gathers a tile of `count` places of a line from `place`, save the runs through which it sees nothing.
///
/// Safety: as [`gather_row`], for all rows of the tile; the runs fill whole lines.
#[inline(always)]
unsafe fn gather_line<S: Isa>(plan: &Gathered, source: &[f32], place: &Place, count: usize, mut to: *mut f32) {
    for run in &plan.runs {
        if meets(plan, place, count, run) {
            let (row, start) = place.reach(plan.step, run.offset, plan.source);
            for number in 0..count {
                let start = start + (number * plan.step[2]) as isize;
                gather_run::<S>(plan, source, row, start, run.taps, to.add(number * CHUNK));
            }
        }
        to = to.add(run.taps * plan.seen.1 * S::ROWS);
    }
}

/// Gathers a tile of `count` places of a line from `place`, whose runs begin and end anywhere in the lines of the tile.
///
/// Safety: as [`gather_row`], for all rows of the tile.
#[inline(always)]
unsafe fn gather_pieces<S: Isa>(plan: &Gathered, source: &[f32], place: &Place, count: usize, to: *mut f32) {
    let line_stride = S::ROWS * CHUNK;
    let mut at = 0;
    for run in &plan.runs {
        let (row, start) = place.reach(plan.step, run.offset, plan.source);
        let length = run.taps * plan.seen.1;
        let from = source.as_ptr().wrapping_add(row.unwrap_or(0) * plan.channels + plan.seen.0);
        let mut done = 0;
        while done < length {
            let (line, offset) = ((at + done) / CHUNK, (at + done) % CHUNK);
            let piece = (length - done).min(CHUNK - offset);
            let to = to.add(line * line_stride + offset);
            for number in 0..count {
                let (to, start) = (to.add(number * CHUNK), start + (number * plan.step[2]) as isize);
                // Floats of the run that lie inside the source.
                let low = start.min(0).unsigned_abs() * plan.seen.1;
                let high = (plan.source[2] as isize - start).clamp(0, run.taps as isize) as usize * plan.seen.1;
                let from = from.wrapping_offset(start * plan.channels as isize);
                if row.is_some() && low <= done && done + piece <= high {
                    copy::<S>(from.wrapping_add(done), to, piece);
                } else {
                    fill_zero::<S>(to, piece);
                    let (first, end) = (low.max(done), high.min(done + piece));
                    if row.is_some() && first < end {
                        copy::<S>(from.wrapping_add(first), to.add(first - done), end - first);
                    }
                }
            }
            done += piece;
        }
        at += length;
    }
    let (line, offset) = (at / CHUNK, at % CHUNK);
    if offset > 0 {
        for number in 0..count {
            fill_zero::<S>(to.add(line * line_stride + number * CHUNK + offset), CHUNK - offset);
        }
    }
}

/// The product of a tile of a line that [`gather_line`] gathered with one panel.
///
/// Safety: as [`Isa::product`]; the runs are those of the panel.
#[inline(always)]
unsafe fn line_product<S: Isa>(
    plan: &Gathered,
    place: &Place,
    sides: (usize, usize),
    gathered: *const f32,
    weights: *const f32,
    results: *mut f32,
) {
    let (tile_line, weight_line) = (S::ROWS * CHUNK, CHUNK * S::VECTORS * S::LANES);
    let mut add = false;
    // Neighbouring runs that the tile meets are multiplied together.
    let (mut first, mut end) = (0, 0);
    for (number, run) in plan.runs.iter().enumerate() {
        let met = meets(plan, place, sides.0, run);
        let behind = end + run.taps * plan.seen.1 / CHUNK;
        let last = number + 1 == plan.runs.len();
        let stop = if met { behind } else { end };
        if (!met || last) && first < stop {
            let (gathered, weights) = (gathered.add(first * tile_line), weights.add(first * weight_line));
            S::product(sides, gathered, weights, stop - first, results, add);
            add = true;
        }
        end = behind;
        if !met {
            first = behind;
        }
    }
    if !add {
        S::product(sides, gathered, weights, 0, results, false);
    }
}

/// A place of the grid of one sample.
#[derive(Clone, Copy)]
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
/// Safety: the source fits the plan, `whole_lines` is [`Gathered::has_whole_lines`], and `to` is the row's first line of a tile
/// with room for all chunks.
#[inline(always)]
pub(super) unsafe fn gather_row<S: Isa>(
    plan: &Gathered,
    whole_lines: bool,
    source: &[f32],
    place: &Place,
    to: *mut f32,
    whole_row: *mut f32,
) {
    if whole_lines {
        let mut to = to;
        for run in &plan.runs {
            let (row, start) = place.reach(plan.step, run.offset, plan.source);
            gather_run::<S>(plan, source, row, start, run.taps, to);
            to = to.add(run.taps * plan.seen.1 * S::ROWS);
        }
    } else {
        gather_any::<S>(plan, source, place, whole_row);
        for chunk in 0..plan.weights.chunks {
            S::copy_line(whole_row.add(chunk * CHUNK), to.add(chunk * S::ROWS * CHUNK));
        }
    }
}

/// Gathers a run that fills whole lines: line by line, where a tile has them. It begins at place `start` of `row`.
///
/// Safety: the source fits the plan, and `to` has room for the lines.
#[inline(always)]
unsafe fn gather_run<S: Isa>(
    plan: &Gathered,
    source: &[f32],
    row: Option<usize>,
    start: isize,
    taps: usize,
    mut to: *mut f32,
) {
    let (seen, lines) = (plan.seen.1, taps * plan.seen.1 / CHUNK);
    let end = start + taps as isize;
    // Floats of the run that lie inside the source.
    let (mut low, mut high) = (0, 0);
    let mut from = source.as_ptr();
    if let Some(row) = row
        && start < plan.source[2] as isize
        && end > 0
    {
        low = start.min(0).unsigned_abs() * seen;
        high = (taps - (end - plan.source[2] as isize).max(0) as usize) * seen;
        from = from.wrapping_offset((row as isize + start) * plan.channels as isize + plan.seen.0 as isize);
    }
    for line in 0..lines {
        let (first, last) = (line * CHUNK, (line + 1) * CHUNK);
        if low <= first && last <= high {
            S::copy_line(from.wrapping_add(first), to);
        } else {
            S::zero_line(to);
            if low < last && first < high {
                let (first_inside, end) = (low.max(first), high.min(last));
                copy::<S>(from.wrapping_add(first_inside), to.add(first_inside - first), end - first_inside);
            }
        }
        to = to.add(S::ROWS * CHUNK);
    }
}

/// Gathers a row with any number of channels without gaps and fills it up to whole chunks.
///
/// Safety: the source fits the plan, and `to` has room for all chunks.
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
