//! Passes over memory: scaling with a finish, and sparse matrices along one axis.

use super::finish::{Finish, Sink, read};
use super::isa::{InstructionSet, Isa, entry};
use super::parallel::{parallel, rows_per_task};

#[derive(Clone, Copy)]
struct Scaled<'a> {
    source: Option<&'a [f32]>,
    scale: Option<&'a [f32]>,
    sink: &'a Sink,
    channels: usize,
    places: (usize, usize),
}

/// Writes `scale · source`, finished, where both are `[places][channels]`; an absent source counts as zeros.
///
/// # Panics
///
/// When the lengths do not fit.
pub(crate) fn scaled(
    set: InstructionSet,
    (places, channels): (usize, usize),
    source: Option<&[f32]>,
    scale: Option<&[f32]>,
    output: &mut [f32],
    finish: Finish<'_>,
) {
    /// Floats of a task.
    const MOST: usize = 1 << 14;
    assert!(source.is_none_or(|source| source.len() == output.len()));
    assert!(scale.is_none_or(|scale| scale.len() == channels));
    let sink = Sink::new(output, places, channels, finish);
    #[cfg(test)]
    {
        source.map(super::checked::allow);
        scale.map(super::checked::allow);
    }
    let block = rows_per_task(places, MOST / channels.max(1), 1);
    parallel(places.div_ceil(block), |index| {
        let places = (index * block, places.min((index + 1) * block));
        // SAFETY: lengths are checked above, and each task has places of its own.
        unsafe { run_scaled(set, Scaled { source, scale, sink: &sink, channels, places }) };
    });
}

entry!(run_scaled, scaled_kernel, Scaled<'_>);

#[inline(always)]
unsafe fn scaled_kernel<S: Isa>(task: Scaled<'_>) {
    for place in task.places.0..task.places.1 {
        let mut channel = 0;
        while channel < task.channels {
            let count = (task.channels - channel).min(S::LANES);
            let mut value = match task.source {
                Some(source) => read::<S>(source.as_ptr().add(place * task.channels + channel), count),
                None => S::zero(),
            };
            if let Some(scale) = task.scale {
                value = S::fma(value, read::<S>(scale.as_ptr().add(channel), count), S::zero());
            }
            task.sink.put::<S>(place, channel, count, value);
            channel += count;
        }
    }
}

/// A sparse matrix that is applied along one axis: resampling, means, sums, parts, borders.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct AxisMatrix {
    /// Where the entries of each row begin; one more than there are rows.
    starts: Vec<usize>,
    /// Column and weight.
    entries: Vec<(usize, f32)>,
    columns: usize,
}

impl AxisMatrix {
    /// From rows of (column, weight).
    pub(crate) fn new(columns: usize, rows: &[Vec<(usize, f32)>]) -> Self {
        let mut matrix = Self { starts: vec![0], entries: Vec::new(), columns };
        for row in rows {
            assert!(row.iter().all(|(column, _)| *column < columns));
            matrix.entries.extend(row);
            matrix.starts.push(matrix.entries.len());
        }
        matrix
    }

    pub(crate) fn rows(&self) -> usize {
        self.starts.len() - 1
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    pub(crate) fn transposed(&self) -> Self {
        let mut rows = vec![Vec::new(); self.columns];
        for row in 0..self.rows() {
            for &(column, weight) in &self.entries[self.starts[row]..self.starts[row + 1]] {
                rows[column].push((row, weight));
            }
        }
        Self::new(self.rows(), &rows)
    }
}

#[derive(Clone, Copy)]
struct Mapped<'a> {
    matrix: &'a AxisMatrix,
    inner: usize,
    source: &'a [f32],
    sink: &'a Sink,
    rows: (usize, usize),
}

/// Applies `matrix` along the middle axis of `[outer][columns][inner]`, which makes `[outer][rows][inner]`.
///
/// # Panics
///
/// When the lengths do not fit.
pub(crate) fn mapped(
    set: InstructionSet,
    matrix: &AxisMatrix,
    (outer, inner): (usize, usize),
    source: &[f32],
    output: &mut [f32],
    finish: Finish<'_>,
) {
    /// Floats of a task.
    const MOST: usize = 1 << 14;
    assert_eq!(source.len(), outer * matrix.columns * inner);
    let rows = outer * matrix.rows();
    let sink = Sink::new(output, rows, inner, finish);
    #[cfg(test)]
    super::checked::allow(source);
    let block = rows_per_task(rows, MOST / inner.max(1), 1);
    parallel(rows.div_ceil(block), |index| {
        let rows = (index * block, rows.min((index + 1) * block));
        // SAFETY: lengths are checked above, and each task has rows of its own.
        unsafe { run_mapped(set, Mapped { matrix, inner, source, sink: &sink, rows }) };
    });
}

entry!(run_mapped, mapped_kernel, Mapped<'_>);

#[inline(always)]
unsafe fn mapped_kernel<S: Isa>(task: Mapped<'_>) {
    let matrix = task.matrix;
    for at in task.rows.0..task.rows.1 {
        let (outer, row) = (at / matrix.rows(), at % matrix.rows());
        let entries = &matrix.entries[matrix.starts[row]..matrix.starts[row + 1]];
        let mut channel = 0;
        while channel < task.inner {
            let count = (task.inner - channel).min(S::LANES);
            let mut sum = S::zero();
            for &(column, weight) in entries {
                let from = (outer * matrix.columns + column) * task.inner + channel;
                sum = S::fma(read::<S>(task.source.as_ptr().add(from), count), S::splat(weight), sum);
            }
            task.sink.put::<S>(at, channel, count, sum);
            channel += count;
        }
    }
}
