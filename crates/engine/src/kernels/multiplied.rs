//! Products of matrices that are both computed: the scores and mixtures of attention.

use super::buffer::with_scratch;
use super::finish::{Finish, Sink};
use super::gathered::CHUNK;
use super::isa::{InstructionSet, Isa, entry};
use super::parallel::parallel;

/// Sides of a product: `[rows][inner] · [inner][columns]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sides {
    pub(crate) rows: usize,
    pub(crate) inner: usize,
    pub(crate) columns: usize,
}

/// A factor: matrices one after the other, each as the product reads it or transposed.
#[derive(Clone, Copy)]
pub(crate) struct Factor<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) transposed: bool,
}

#[derive(Clone, Copy)]
struct Task<'a> {
    sides: Sides,
    left: Factor<'a>,
    right: Factor<'a>,
    sink: &'a Sink,
    matrix: usize,
    rows: (usize, usize),
    scratch: *mut f32,
}

/// Writes the products of `matrices` pairs of matrices, or adds them to `output`.
///
/// # Panics
///
/// When the slices do not fit.
pub(crate) fn multiplied(
    set: InstructionSet,
    matrices: usize,
    sides: Sides,
    (left, right): (Factor<'_>, Factor<'_>),
    output: &mut [f32],
    accumulate: bool,
) {
    /// Floats of packed rows that leave room for a panel in the second cache.
    const BLOCK: usize = 100_000;
    assert_eq!(left.values.len(), matrices * sides.rows * sides.inner);
    assert_eq!(right.values.len(), matrices * sides.inner * sides.columns);
    let sink = Sink::new(output, matrices * sides.rows, sides.columns, Finish { accumulate, ..Finish::default() });
    #[cfg(test)]
    {
        super::checked::allow(left.values);
        super::checked::allow(right.values);
    }
    let (height, chunks) = (set.rows(), sides.inner.div_ceil(CHUNK));
    let tiles = (BLOCK / (chunks.max(1) * CHUNK * height)).clamp(1, 16);
    // A task packs the right factor for itself: as few row blocks as keep all threads busy.
    let wanted = (2 * rayon::current_num_threads()).div_ceil(matrices.max(1));
    let block = sides.rows.div_ceil(wanted).clamp(1, tiles * height).next_multiple_of(height);
    let blocks = sides.rows.div_ceil(block);
    let scratch = block * chunks * CHUNK + chunks * CHUNK * set.columns() + height * set.columns();
    parallel(matrices * blocks, |index| {
        let (matrix, at) = (index / blocks, index % blocks);
        with_scratch(scratch, |scratch| {
            #[cfg(test)]
            super::checked::allow(scratch);
            let rows = (at * block, sides.rows.min((at + 1) * block));
            let task = Task { sides, left, right, sink: &sink, matrix, rows, scratch: scratch.as_mut_ptr() };
            // SAFETY: the asserts above are the kernel's conditions, and each task has rows of its own.
            unsafe { run(set, task) }
        });
    });
}

entry!(run, run_kernel, Task<'_>);

/// Packs the rows of a task, then panel after panel of the right factor, and multiplies them.
///
/// Safety: the factors fit the sides, the scratch holds the packed rows, a panel and a tile of results, and no other task has
/// these rows.
#[inline(always)]
unsafe fn run_kernel<S: Isa>(task: Task<'_>) {
    let Sides { rows, inner, columns } = task.sides;
    let (width, chunks) = (S::VECTORS * S::LANES, inner.div_ceil(CHUNK));
    let left = &task.left.values[task.matrix * rows * inner..][..rows * inner];
    let right = &task.right.values[task.matrix * inner * columns..][..inner * columns];
    let (first, end) = task.rows;
    let tile = chunks * CHUNK * S::ROWS;
    for row in first..end {
        let at = row - first;
        let to = task.scratch.add(at / S::ROWS * tile + at % S::ROWS * CHUNK);
        for k in 0..chunks * CHUNK {
            let value = if k >= inner {
                0.0
            } else if task.left.transposed {
                left[k * rows + row]
            } else {
                left[row * inner + k]
            };
            *to.add(k / CHUNK * S::ROWS * CHUNK + k % CHUNK) = value;
        }
    }
    let panel = task.scratch.add((end - first).div_ceil(S::ROWS) * tile);
    let results = panel.add(chunks * CHUNK * width);
    for start in (0..columns).step_by(width) {
        let count = (columns - start).min(width);
        for k in 0..chunks * CHUNK {
            let to = panel.add(k * width);
            if k < inner && !task.right.transposed {
                for v in 0..S::VECTORS {
                    let here = count.saturating_sub(v * S::LANES).min(S::LANES);
                    let from = right.as_ptr().wrapping_add(k * columns + start + v * S::LANES);
                    S::store(to.add(v * S::LANES), S::load_part(from, here));
                }
            } else {
                for column in 0..width {
                    let inside = k < inner && column < count;
                    *to.add(column) = if inside { right[(start + column) * inner + k] } else { 0.0 };
                }
            }
        }
        for at in (first..end).step_by(S::ROWS) {
            let rows_here = (end - at).min(S::ROWS);
            let packed = task.scratch.add((at - first) / S::ROWS * tile);
            S::product((rows_here, count.div_ceil(S::LANES)), packed, panel, chunks, results, false);
            for row in 0..rows_here {
                for v in 0..S::VECTORS {
                    let here = count.saturating_sub(v * S::LANES).min(S::LANES);
                    if here > 0 {
                        let value = S::load(results.add(row * width + v * S::LANES));
                        task.sink.put::<S>(task.matrix * rows + at + row, start + v * S::LANES, here, value);
                    }
                }
            }
        }
    }
}
