//! Normalisation of a sample by its own mean and variance: over groups of channels, or over the last axes.

use rayon::prelude::*;

use super::{Backward, Forward, Layer};
use crate::kernels::{floats, floats_mut, vectorised};

/// Samples as `[blocks][rows][groups][width]`: a mean and a variance for each block and group.
pub(crate) struct Normalization {
    rows: usize,
    groups: usize,
    width: usize,
    blocks: usize,
    epsilon: f32,
    /// One for each column of a row.
    scale: Vec<f32>,
    shift: Vec<f32>,
}

/// Rows of a part: parts are summed on their own, so that sums do not depend on threads.
fn rows_of_part(columns: usize) -> usize {
    /// Floats that stay in the first cache.
    const MOST: usize = 1 << 12;
    (MOST / columns).max(1)
}

/// The sum in f64 of 16 running sums.
#[inline(always)]
fn sum(values: &[f32]) -> f64 {
    let mut lanes = [0.0_f32; 16];
    let chunks = values.chunks_exact(16);
    let rest: f64 = chunks.remainder().iter().map(|value| f64::from(*value)).sum();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, value)| *lane += value);
    }
    rest + lanes.iter().map(|lane| f64::from(*lane)).sum::<f64>()
}

impl Normalization {
    /// `scale` and `shift` have one value for each column of a row: `groups · width`.
    pub(crate) fn new(
        [blocks, rows, groups, width]: [usize; 4],
        epsilon: f32,
        scale: Vec<f32>,
        shift: Vec<f32>,
    ) -> Self {
        assert_eq!((scale.len(), shift.len()), (groups * width, groups * width));
        Self { rows, groups, width, blocks, epsilon, scale, shift }
    }

    fn columns(&self) -> usize {
        self.groups * self.width
    }

    /// Columns of as many rows as make loops over them worth while.
    fn wide(&self) -> usize {
        self.columns() * 64_usize.div_ceil(self.columns()).min(self.rows)
    }

    fn parts(&self) -> usize {
        self.rows.div_ceil(rows_of_part(self.columns()))
    }

    /// For each part of each block, two numbers a group.
    fn by_part(&self, blocks: usize, of: impl Fn(usize, usize, &mut [f64]) + Sync) -> Vec<f64> {
        let (parts, size) = (self.parts(), 2 * self.groups);
        let mut numbers = vec![0.0; blocks * parts * size];
        let all = numbers.par_chunks_exact_mut(size).enumerate().with_min_len(self.parts_of_task());
        all.for_each(|(index, numbers)| of(index / parts, index % parts, numbers));
        numbers
    }

    /// Parts that are worth a task.
    fn parts_of_task(&self) -> usize {
        (1 << 13) / (rows_of_part(self.columns()).min(self.rows) * self.columns())
    }

    /// Mean and sum of squared distances from it, of each group in a part.
    #[inline(always)]
    fn moments(&self, x: &[f32], sums: &mut [f32], numbers: &mut [f64]) {
        let count = (x.len() / self.columns() * self.width) as f64;
        column_sums(x, sums, |_, x| x);
        for (group, numbers) in numbers.chunks_exact_mut(2).enumerate() {
            numbers[0] = self.sum_of(group, sums) / count;
        }
        let means = self.spread(|group| numbers[2 * group] as f32);
        column_sums(x, sums, |column, x| (x - means[column]) * (x - means[column]));
        for (group, numbers) in numbers.chunks_exact_mut(2).enumerate() {
            numbers[1] = self.sum_of(group, sums);
        }
    }

    /// Mean and inverse deviation of each group from those of the parts (Chan et al. 1979).
    fn joined(&self, parts: &[f64], statistics: &mut [f32]) {
        let most = rows_of_part(self.columns());
        for (group, statistics) in statistics.chunks_exact_mut(2).enumerate() {
            let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
            for (part, numbers) in parts.chunks_exact(2 * self.groups).enumerate() {
                let own = (most.min(self.rows - part * most) * self.width) as f64;
                let distance = numbers[2 * group] - mean;
                count += own;
                mean += distance * own / count;
                squares += numbers[2 * group + 1] + distance * distance * own * (count - own) / count;
            }
            statistics[0] = mean as f32;
            statistics[1] = (1.0 / (squares / count + f64::from(self.epsilon)).sqrt()) as f32;
        }
    }

    /// Repeats a number of each group over its columns.
    fn spread(&self, of: impl Fn(usize) -> f32) -> Vec<f32> {
        let columns = self.columns();
        (0..self.wide()).map(|column| of(column % columns / self.width)).collect()
    }

    /// Repeats a number of each column.
    fn repeated(&self, of: &[f32]) -> Vec<f32> {
        of.iter().copied().cycle().take(self.wide()).collect()
    }

    /// The sum of the sums of a group's columns.
    fn sum_of(&self, group: usize, sums: &[f32]) -> f64 {
        sums.chunks_exact(self.columns()).map(|sums| sum(&sums[group * self.width..][..self.width])).sum()
    }

    /// Rows of a part of a block, as a range of floats.
    fn range(&self, block: usize, part: usize) -> std::ops::Range<usize> {
        let (columns, most) = (self.columns(), rows_of_part(self.columns()));
        let first = block * self.rows;
        (first + part * most) * columns..(first + self.rows.min((part + 1) * most)) * columns
    }
}

/// Sums of each column, row after row; the last row may be shorter.
#[inline(always)]
fn column_sums(x: &[f32], sums: &mut [f32], of: impl Fn(usize, f32) -> f32) {
    sums.fill(0.0);
    for row in x.chunks(sums.len()) {
        for (column, (sum, x)) in sums.iter_mut().zip(row).enumerate() {
            *sum += of(column, *x);
        }
    }
}

/// Cuts a slice where the parts of blocks of `rows · columns` end.
fn cut(mut values: &mut [f32], rows: usize, columns: usize) -> Vec<&mut [f32]> {
    let most = rows_of_part(columns);
    let mut pieces = Vec::new();
    while !values.is_empty() {
        let (mut block, rest) = values.split_at_mut(rows * columns);
        values = rest;
        while !block.is_empty() {
            let (piece, rest) = block.split_at_mut(block.len().min(most * columns));
            pieces.push(piece);
            block = rest;
        }
    }
    pieces
}

impl Layer for Normalization {
    fn forward(&self, pass: Forward<'_>) {
        let (blocks, columns, parts) = (self.blocks * pass.samples, self.columns(), self.parts());
        let x = pass.inputs[0];
        let moments = self.by_part(blocks, |block, part, numbers| {
            let mut sums = vec![0.0; self.wide()];
            let x = &x[self.range(block, part)];
            vectorised(
                pass.set,
                #[inline(always)]
                || self.moments(x, &mut sums, numbers),
            );
        });
        let statistics = floats_mut(pass.saved);
        let of_blocks = moments.par_chunks_exact(parts * 2 * self.groups);
        let all = statistics.par_chunks_exact_mut(2 * self.groups).zip(of_blocks).with_min_len(64);
        all.for_each(|(statistics, moments)| self.joined(moments, statistics));
        let statistics = &*statistics;
        let pieces = cut(pass.output, self.rows, columns).into_par_iter().enumerate();
        pieces.with_min_len(self.parts_of_task()).for_each(|(index, output)| {
            let (block, part) = (index / parts, index % parts);
            let own = &statistics[block * 2 * self.groups..][..2 * self.groups];
            let means = self.spread(|group| own[2 * group]);
            let mut factors = self.spread(|group| own[2 * group + 1]);
            factors.iter_mut().zip(self.scale.iter().cycle()).for_each(|(factor, scale)| *factor *= scale);
            let shift = self.repeated(&self.shift);
            let x = &x[self.range(block, part)];
            vectorised(
                pass.set,
                #[inline(always)]
                || {
                    for (y, x) in output.chunks_mut(means.len()).zip(x.chunks(means.len())) {
                        let numbers = means.iter().zip(&factors).zip(&shift);
                        for ((y, x), ((mean, factor), shift)) in y.iter_mut().zip(x).zip(numbers) {
                            *y = (x - mean) * factor + shift;
                        }
                    }
                },
            );
        });
    }

    /// With `g` the gradient by the output times the scale and `z` the normalised value:
    /// `(g - mean(g) - z · mean(g z)) / deviation`.
    fn backward(&self, pass: Backward<'_>) {
        let (blocks, columns, parts) = (self.blocks * pass.samples, self.columns(), self.parts());
        let (x, slope, statistics) = (pass.inputs[0], pass.slope, floats(pass.saved));
        let of_block = |block: usize| &statistics[block * 2 * self.groups..][..2 * self.groups];
        let sums = self.by_part(blocks, |block, part, numbers| {
            let range = self.range(block, part);
            let (x, slope, own) = (&x[range.clone()], &slope[range], of_block(block));
            let (means, inverses) = (self.spread(|group| own[2 * group]), self.spread(|group| own[2 * group + 1]));
            let (mut plain, mut weighted) = (vec![0.0; self.wide()], vec![0.0; self.wide()]);
            let scale = self.repeated(&self.scale);
            vectorised(
                pass.set,
                #[inline(always)]
                || {
                    for (x, slope) in x.chunks(scale.len()).zip(slope.chunks(scale.len())) {
                        let sums = plain.iter_mut().zip(weighted.iter_mut());
                        let numbers = scale.iter().zip(&means).zip(&inverses);
                        for (((x, slope), (plain, weighted)), ((scale, mean), inverse)) in
                            x.iter().zip(slope).zip(sums).zip(numbers)
                        {
                            let g = slope * scale;
                            *plain += g;
                            *weighted += g * ((x - mean) * inverse);
                        }
                    }
                    for (group, numbers) in numbers.chunks_exact_mut(2).enumerate() {
                        numbers[0] = self.sum_of(group, &plain);
                        numbers[1] = self.sum_of(group, &weighted);
                    }
                },
            );
        });
        let count = (self.rows * self.width) as f64;
        let of_blocks = sums.par_chunks_exact(parts * 2 * self.groups).with_min_len(64).flat_map_iter(|sums| {
            (0..2 * self.groups)
                .map(move |at| (sums.iter().skip(at).step_by(2 * self.groups).sum::<f64>() / count) as f32)
        });
        let means_of: Vec<f32> = of_blocks.collect();
        let pieces = cut(pass.gradient, self.rows, columns).into_par_iter().enumerate();
        pieces.with_min_len(self.parts_of_task()).for_each(|(index, gradient)| {
            let (block, part) = (index / parts, index % parts);
            let (own, sums) = (of_block(block), &means_of[block * 2 * self.groups..][..2 * self.groups]);
            let (means, inverses) = (self.spread(|group| own[2 * group]), self.spread(|group| own[2 * group + 1]));
            let (plain, weighted) = (self.spread(|group| sums[2 * group]), self.spread(|group| sums[2 * group + 1]));
            let range = self.range(block, part);
            let (x, slope) = (&x[range.clone()], &slope[range]);
            let scale = self.repeated(&self.scale);
            let accumulate = pass.accumulate;
            vectorised(
                pass.set,
                #[inline(always)]
                || {
                    let wide = scale.len();
                    for (gradient, (x, slope)) in gradient.chunks_mut(wide).zip(x.chunks(wide).zip(slope.chunks(wide)))
                    {
                        let sums = plain.iter().zip(&weighted);
                        let numbers = scale.iter().zip(&means).zip(&inverses);
                        let values = gradient.iter_mut().zip(x).zip(slope);
                        for (((gradient, x), slope), ((plain, weighted), ((scale, mean), inverse))) in
                            values.zip(sums.zip(numbers))
                        {
                            let normal = (x - mean) * inverse;
                            let part = (slope * scale - plain - normal * weighted) * inverse;
                            *gradient = if accumulate { *gradient + part } else { part };
                        }
                    }
                },
            );
        });
    }

    fn keeps_inputs(&self) -> bool {
        true
    }

    fn saved(&self) -> usize {
        self.blocks * self.groups * 2 * size_of::<f32>()
    }

    fn kernel(&self) -> String {
        format!("normalisation of {}", self.rows * self.width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::InstructionSet;
    use crate::layers::tests::{agrees_with_f64, numbers};

    /// `[blocks, rows, groups, width]`; the fourth has several parts.
    const SHAPES: [[usize; 4]; 4] = [[5, 1, 1, 37], [1, 12, 3, 4], [1, 9, 5, 1], [2, 90, 4, 20]];

    #[test]
    fn outputs_and_gradients_agree_with_f64() {
        for set in InstructionSet::available() {
            for sides in SHAPES {
                let [blocks, rows, groups, width] = sides;
                let columns = groups * width;
                let (scale, shift) = (numbers(columns, 1), numbers(columns, 2));
                let layer = Normalization::new(sides, 1e-3, scale.clone(), shift.clone());
                let elements = blocks * rows * columns;
                // A mean far from 0, as unscaled grey levels have.
                let x: Vec<f32> = numbers(2 * elements, 3).iter().map(|x| 10.0 + x).collect();
                agrees_with_f64(set, &layer, 2, &[x], elements, 3e-5, |inputs| {
                    let mut y = inputs[0].clone();
                    for block in 0..blocks {
                        for group in 0..groups {
                            let places: Vec<usize> = (0..rows * width)
                                .map(|at| (block * rows + at / width) * columns + group * width + at % width)
                                .collect();
                            let count = places.len() as f64;
                            let mean = places.iter().map(|at| inputs[0][*at]).sum::<f64>() / count;
                            let squares = places.iter().map(|at| (inputs[0][*at] - mean).powi(2)).sum::<f64>();
                            for at in places {
                                let normal = (inputs[0][at] - mean) / (squares / count + f64::from(1e-3_f32)).sqrt();
                                y[at] = normal * f64::from(scale[at % columns]) + f64::from(shift[at % columns]);
                            }
                        }
                    }
                    y
                });
            }
        }
    }
}
