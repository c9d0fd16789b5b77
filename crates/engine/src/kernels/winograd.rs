//! Winograd convolution: 3×3 kernels with stride 1 by products in the domain of tiles.
//!
//! ```text
//! Y = Aᵀ [ (G g Gᵀ) ∘ (Bᵀ d B) ] A        tile d of (m + 2)², kernel g of 3², outputs Y of m²
//! m = 4: points 0, ±1, ±2, ∞       36 products for 16 outputs instead of 144
//! m = 2: points 0, ±1, ∞           16 products for  4 outputs instead of  36
//! ```
//!
//! Summed over channels, each of the (m + 2)² frequencies is a matrix product of tiles with channels, for which the
//! micro-kernel serves. Two schedules give the same bits: *fused*, in which a task takes a few tiles through all three
//! steps in its own cache, and *staged*, in which many tiles are transformed first and the tasks share out the outputs, so
//! that large weights are read once.
//!
//! Source: Lavin & Gray, CVPR 2016, arXiv:1509.09308; the matrices follow from the points.

use super::buffer::{Buffer, reserve, with_scratch};
use super::finish::{Finish, Sink, read};
use super::gathered::CHUNK;
use super::isa::{InstructionSet, Isa, entry};
use super::parallel::{parallel, rows_per_task};

/// Kernels in the tile domain, as panels of `[frequency][channel][columns]`; channels filled up to a multiple of [`CHUNK`].
pub(crate) struct TileWeights {
    values: Buffer,
    /// Side of the outputs of a tile: 2 or 4.
    side: usize,
    channels: usize,
    width: usize,
    columns: usize,
}

/// Rows of G for points 0, ±1, (±2,) ∞.
const G2: [[f64; 3]; 4] = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];
const G4: [[f64; 3]; 6] = [
    [1.0 / 4.0, 0.0, 0.0],
    [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
    [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
    [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
    [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
    [0.0, 0.0, 1.0],
];

impl TileWeights {
    /// Transforms `kernel(channel, output)`, nine taps row by row.
    pub(crate) fn new(
        set: InstructionSet,
        side: usize,
        channels: usize,
        width: usize,
        kernel: impl Fn(usize, usize) -> [f32; 9],
    ) -> Self {
        let g: &[[f64; 3]] = if side == 4 { &G4 } else { &G2 };
        let frequencies = g.len() * g.len();
        let (columns, depth) = (set.columns(), channels.next_multiple_of(CHUNK));
        let mut values = Buffer::zeroed(width.div_ceil(columns) * frequencies * depth * columns);
        for output in 0..width {
            let panel = output / columns * frequencies * depth * columns;
            for channel in 0..channels {
                let taps = kernel(channel, output);
                for (i, left) in g.iter().enumerate() {
                    let half: [f64; 3] =
                        std::array::from_fn(|x| (0..3).map(|y| left[y] * f64::from(taps[y * 3 + x])).sum());
                    for (j, right) in g.iter().enumerate() {
                        let value: f64 = half.iter().zip(right).map(|(a, b)| a * b).sum();
                        let at = ((i * g.len() + j) * depth + channel) * columns + output % columns;
                        values[panel + at] = value as f32;
                    }
                }
            }
        }
        Self { values, side, channels, width, columns }
    }
}

/// Geometry and weights of a convolution by tiles.
pub(crate) struct Tiled {
    /// Height and width of the source.
    pub(crate) source: [usize; 2],
    /// Height and width of the output.
    pub(crate) target: [usize; 2],
    /// Zeros above and to the left of the source; at most 2.
    pub(crate) padding: [usize; 2],
    /// Kernels.
    pub(crate) weights: TileWeights,
}

impl Tiled {
    /// Side of the outputs of a tile.
    pub(crate) fn side(&self) -> usize {
        self.weights.side
    }
}

/// What all tasks of a call share.
#[derive(Clone, Copy)]
struct Shared<'a> {
    plan: &'a Tiled,
    source: &'a [f32],
    sink: &'a Sink,
    /// Tiles along each axis.
    across: [usize; 2],
    /// Channels filled up.
    depth: usize,
}

/// Tiles `first..end`, transformed into `tiles`, multiplied into `products`.
#[derive(Clone, Copy)]
struct Task<'a> {
    shared: Shared<'a>,
    first: usize,
    end: usize,
    /// Room for the transformed tiles: `[frequency][tile of the product][chunk][ROWS][16]`.
    tiles: *mut f32,
    /// Floats from one frequency of `tiles` to the next.
    tile_stride: usize,
    /// Room for the products: `[frequency][tile][columns]`.
    products: *mut f32,
    product_stride: usize,
    panels: (usize, usize),
    transform: bool,
}

// SAFETY: the pointers of a task lead to memory that its closure hands over, and tasks write disjoint parts of it.
unsafe impl Sync for Task<'_> {}
// SAFETY: as above.
unsafe impl Send for Task<'_> {}

/// Floats between two frequencies beyond their contents, so that they do not fall on the same cache sets.
const SKEW: usize = 16;

/// Convolves `source` (`[samples][height][width][channels]`) into `output`; `shared` is memory for the staged schedule.
///
/// # Panics
///
/// When the slices do not fit the plan.
pub(crate) fn tiled(
    set: InstructionSet,
    plan: &Tiled,
    samples: usize,
    source: &[f32],
    output: &mut [f32],
    finish: Finish<'_>,
    memory: &mut Buffer,
) {
    let weights = &plan.weights;
    let ([source_height, source_width], [height, width]) = (plan.source, plan.target);
    let side = weights.side;
    let frequencies = (side + 2) * (side + 2);
    let (columns, tile_rows) = (set.columns(), set.rows());
    let depth = weights.channels.next_multiple_of(CHUNK);
    let panels = weights.width.div_ceil(columns);
    assert_eq!(source.len(), samples * source_height * source_width * weights.channels);
    assert!(side == 2 || side == 4);
    assert_eq!(weights.columns, columns);
    assert_eq!(weights.values.len(), panels * frequencies * depth * columns);
    assert!(plan.padding[0] <= 2 && plan.padding[1] <= 2);
    let sink = Sink::new(output, samples * height * width, weights.width, finish);
    #[cfg(test)]
    {
        super::checked::allow(source);
        super::checked::allow(&weights.values);
    }
    let across = [height.div_ceil(side), width.div_ceil(side)];
    let tiles = samples * across[0] * across[1];
    let shared = Shared { plan, source, sink: &sink, across, depth };

    let schedule = Schedule::new(frequencies, depth, panels, tiles, columns, tile_rows);
    let most = schedule.tiles;
    let tile_stride = |tiles: usize| tiles.next_multiple_of(tile_rows) * depth + SKEW;
    let product_stride = |tiles: usize| tiles.next_multiple_of(tile_rows) * columns + SKEW;
    if !schedule.staged {
        let block = rows_per_task(tiles, most, tile_rows);
        let (tile_stride, product_stride) = (tile_stride(block), product_stride(block));
        parallel(tiles.div_ceil(block), |index| {
            with_scratch(frequencies * (tile_stride + product_stride), |scratch| {
                #[cfg(test)]
                super::checked::allow(scratch);
                let tiles_at = scratch.as_mut_ptr();
                let task = Task {
                    shared,
                    first: index * block,
                    end: tiles.min((index + 1) * block),
                    tiles: tiles_at,
                    tile_stride,
                    // SAFETY: the scratch is long enough for both.
                    products: unsafe { tiles_at.add(frequencies * tile_stride) },
                    product_stride,
                    panels: (0, panels),
                    transform: true,
                };
                // SAFETY: the asserts above, and each task has tiles of its own.
                unsafe { run(set, task) }
            });
        });
        return;
    }
    let block = tiles.min(most).max(1);
    let (tile_stride, product_stride) = (tile_stride(block), product_stride(block));
    let transformed = reserve(memory, frequencies * tile_stride);
    #[cfg(test)]
    super::checked::allow(transformed);
    let transformed = transformed.as_mut_ptr();
    for first in (0..tiles).step_by(block) {
        let end = tiles.min(first + block);
        let whole = Task {
            shared,
            first,
            end,
            tiles: transformed,
            tile_stride,
            products: std::ptr::null_mut(),
            product_stride,
            panels: (0, 0),
            transform: true,
        };
        parallel((end - first).div_ceil(tile_rows), |index| {
            let whole = &whole;
            let start = first + index * tile_rows;
            // SAFETY: the part of the memory that belongs to these tiles; no other task transforms them.
            let tiles = unsafe { whole.tiles.add(index * tile_rows * depth) };
            let task = Task { first: start, end: end.min(start + tile_rows), tiles, ..*whole };
            // SAFETY: as above.
            unsafe { run(set, task) }
        });
        parallel(panels, |panel| {
            let whole = &whole;
            with_scratch(frequencies * product_stride, |scratch| {
                #[cfg(test)]
                super::checked::allow(scratch);
                let products = scratch.as_mut_ptr();
                let task = Task { products, panels: (panel, panel + 1), transform: false, ..*whole };
                // SAFETY: the tiles have been transformed, and each task has outputs of its own.
                unsafe { run(set, task) }
            });
        });
    }
}

/// How the tiles of a call are shared out.
struct Schedule {
    staged: bool,
    /// Most tiles transformed together.
    tiles: usize,
}

impl Schedule {
    fn new(frequencies: usize, depth: usize, panels: usize, tiles: usize, columns: usize, rows: usize) -> Self {
        /// Floats of transformed tiles that stay in the second cache beside a panel of weights.
        const OWN: usize = 280_000;
        /// Floats of transformed tiles that stay in the last cache.
        const COMMON: usize = 2_000_000;
        /// Floats of weights beyond which reading them for every few tiles costs more than sharing them.
        const LARGE: usize = 4_000_000;
        let threads = rayon::current_num_threads();
        let weights = frequencies * depth * panels * columns;
        let staged = weights > LARGE || tiles < 2 * rows * threads;
        let per_tile = frequencies * depth;
        let most = if staged { COMMON } else { OWN } / per_tile;
        Self { staged: staged && panels >= threads, tiles: (most / rows).max(1) * rows }
    }
}

entry!(run, run_kernel, Task<'_>);

/// Takes a task's tiles through the steps that it asks for.
///
/// Safety: slices and memory fit the plan, and no other task writes the same tiles, products or outputs.
#[inline(always)]
unsafe fn run_kernel<S: Isa>(task: Task<'_>) {
    if task.shared.plan.weights.side == 4 { steps::<S, 6>(task) } else { steps::<S, 4>(task) }
}

#[inline(always)]
unsafe fn steps<S: Isa, const A: usize>(task: Task<'_>) {
    if task.transform {
        transform_input::<S, A>(&task);
    }
    let columns = S::VECTORS * S::LANES;
    let weights = &task.shared.plan.weights;
    let depth = task.shared.depth;
    let count = task.end - task.first;
    for panel in task.panels.0..task.panels.1 {
        let vectors = (weights.width - panel * columns).div_ceil(S::LANES).min(S::VECTORS);
        for frequency in 0..A * A {
            let weights = weights.values.as_ptr().add((panel * A * A + frequency) * depth * columns);
            let tiles = task.tiles.add(frequency * task.tile_stride);
            let products = task.products.add(frequency * task.product_stride);
            for start in (0..count).step_by(S::ROWS) {
                let sides = ((count - start).min(S::ROWS), vectors);
                let products = products.add(start * columns);
                S::product(sides, tiles.add(start * depth), weights, depth / CHUNK, products, false);
            }
        }
        transform_output::<S, A>(&task, panel);
    }
}

/// Sample, row and column of a tile.
#[inline(always)]
fn position(tile: usize, across: [usize; 2]) -> (usize, usize, usize) {
    (tile / (across[0] * across[1]), tile / across[1] % across[0], tile % across[1])
}

#[inline(always)]
unsafe fn transform_input<S: Isa, const A: usize>(task: &Task<'_>) {
    let Shared { plan, source, across, depth, .. } = task.shared;
    let [height, width] = plan.source;
    let channels = plan.weights.channels;
    for tile in task.first..task.end {
        let (sample, row, column) = position(tile, across);
        let mut from = [[std::ptr::null::<f32>(); A]; A];
        let mut inside = true;
        for i in 0..A {
            for j in 0..A {
                let y = (row * (A - 2) + i).wrapping_sub(plan.padding[0]);
                let x = (column * (A - 2) + j).wrapping_sub(plan.padding[1]);
                if y < height && x < width {
                    from[i][j] = source.as_ptr().add(((sample * height + y) * width + x) * channels);
                } else {
                    inside = false;
                }
            }
        }
        let at = tile - task.first;
        let to = task.tiles.add(at / S::ROWS * S::ROWS * depth + at % S::ROWS * CHUNK);
        let mut channel = 0;
        while channel < depth {
            let to = to.add(channel / CHUNK * S::ROWS * CHUNK + channel % CHUNK);
            let count = channels.saturating_sub(channel).min(S::LANES);
            if inside && count == S::LANES {
                transform_vector::<S, A, true>(&from, channel, count, to, task.tile_stride);
            } else {
                transform_vector::<S, A, false>(&from, channel, count, to, task.tile_stride);
            }
            channel += S::LANES;
        }
    }
}

/// `Bᵀ d B` of one vector of channels. `INSIDE`: every pixel of the tile exists and all lanes are channels.
#[inline(always)]
unsafe fn transform_vector<S: Isa, const A: usize, const INSIDE: bool>(
    from: &[[*const f32; A]; A],
    channel: usize,
    count: usize,
    to: *mut f32,
    stride: usize,
) {
    let mut half = [[S::zero(); A]; A];
    for j in 0..A {
        let mut column = [S::zero(); A];
        for i in 0..A {
            column[i] = if INSIDE {
                S::load(from[i][j].add(channel))
            } else if from[i][j].is_null() {
                S::zero()
            } else {
                read::<S>(from[i][j].wrapping_add(channel), count)
            };
        }
        let mut result = [S::zero(); A];
        input_points::<S, A>(&column, &mut result);
        for i in 0..A {
            half[i][j] = result[i];
        }
    }
    for i in 0..A {
        let mut result = [S::zero(); A];
        input_points::<S, A>(&half[i], &mut result);
        for j in 0..A {
            S::store(to.add((i * A + j) * stride), result[j]);
        }
    }
}

/// `Bᵀ d` of one line.
#[inline(always)]
unsafe fn input_points<S: Isa, const A: usize>(d: &[S::Vector; A], to: &mut [S::Vector; A]) {
    if A == 6 {
        let (two, four) = (S::splat(2.0), S::splat(4.0));
        let even = S::fnma(four, d[2], d[4]);
        let odd = S::fnma(four, d[1], d[3]);
        let far_even = S::sub(d[4], d[2]);
        let far_odd = S::sub(d[3], d[1]);
        to[0] = S::fma(four, S::sub(d[0], d[2]), far_even);
        to[1] = S::add(even, odd);
        to[2] = S::sub(even, odd);
        to[3] = S::fma(two, far_odd, far_even);
        to[4] = S::fnma(two, far_odd, far_even);
        to[5] = S::fnma(four, far_odd, S::sub(d[5], d[3]));
    } else {
        to[0] = S::sub(d[0], d[2]);
        to[1] = S::add(d[1], d[2]);
        to[2] = S::sub(d[2], d[1]);
        to[3] = S::sub(d[1], d[3]);
    }
}

/// `Aᵀ m` of one line; the first `A - 2` of the results.
#[inline(always)]
unsafe fn output_points<S: Isa, const A: usize>(m: &[S::Vector; A], to: &mut [S::Vector; 4]) {
    if A == 6 {
        let (two, four, eight) = (S::splat(2.0), S::splat(4.0), S::splat(8.0));
        let near = S::add(m[1], m[2]);
        let near_odd = S::sub(m[1], m[2]);
        let far = S::add(m[3], m[4]);
        let far_odd = S::sub(m[3], m[4]);
        to[0] = S::add(S::add(m[0], near), far);
        to[1] = S::fma(two, far_odd, near_odd);
        to[2] = S::fma(four, far, near);
        to[3] = S::add(S::fma(eight, far_odd, near_odd), m[5]);
    } else {
        to[0] = S::add(S::add(m[0], m[1]), m[2]);
        to[1] = S::sub(S::sub(m[1], m[2]), m[3]);
    }
}

#[inline(always)]
unsafe fn transform_output<S: Isa, const A: usize>(task: &Task<'_>, panel: usize) {
    let Shared { plan, sink, across, .. } = task.shared;
    let [height, width] = plan.target;
    let columns = S::VECTORS * S::LANES;
    for tile in task.first..task.end {
        let (sample, row, column) = position(tile, across);
        let from = task.products.add((tile - task.first) * columns);
        for vector in 0..S::VECTORS {
            let channel = panel * columns + vector * S::LANES;
            if channel >= plan.weights.width {
                break;
            }
            let count = (plan.weights.width - channel).min(S::LANES);
            let mut half = [[S::zero(); A]; 4];
            for j in 0..A {
                let mut line = [S::zero(); A];
                for i in 0..A {
                    line[i] = S::load(from.add((i * A + j) * task.product_stride + vector * S::LANES));
                }
                let mut result = [S::zero(); 4];
                output_points::<S, A>(&line, &mut result);
                for i in 0..A - 2 {
                    half[i][j] = result[i];
                }
            }
            for i in 0..A - 2 {
                let y = row * (A - 2) + i;
                if y >= height {
                    break;
                }
                let mut result = [S::zero(); 4];
                output_points::<S, A>(&half[i], &mut result);
                for j in 0..A - 2 {
                    let x = column * (A - 2) + j;
                    if x < width {
                        sink.put::<S>((sample * height + y) * width + x, channel, count, result[j]);
                    }
                }
            }
        }
    }
}
