//! A batch of samples as a matrix.

use crate::Error;

/// A batch: one row of values a sample, in the physical unit of the data.
///
/// Rows are flat, so a norm, a projection or a sign step is written once for tables, signals, images and volumes.
/// The shape of one sample is `[features]` for a table, `[channels, time]` for a signal,
/// `[channels, height, width]` for an image and `[channels, depth, height, width]` for a volume.
///
/// Every sample keeps its index in the data set it came from, because randomness is drawn from (seed, index):
/// taking a part of a batch never changes what happens to a sample.
///
/// ```
/// # use nocebo_core::Samples;
/// let batch = Samples::new(vec![0.0, 1.0, 2.0, 3.0], &[1, 2])?;
/// assert_eq!(batch.len(), 2);
/// assert_eq!(batch.select(&[1]).row(0), [2.0, 3.0]);
/// assert_eq!(batch.select(&[1]).indices(), [1]);
/// # Ok::<(), nocebo_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Samples {
    values: Vec<f32>,
    shape: Vec<usize>,
    indices: Vec<u64>,
}

impl Samples {
    /// A batch of `values` (`[batch, elements]`, row by row), indexed from 0.
    ///
    /// # Errors
    ///
    /// When `shape` is empty or holds a 0, or the values do not fill whole samples.
    pub fn new(values: Vec<f32>, shape: &[usize]) -> Result<Self, Error> {
        let elements = checked_elements(shape)?;
        if !values.len().is_multiple_of(elements) {
            return Err(Error::mismatch("number of values", format!("a multiple of {elements}"), values.len()));
        }
        let indices = (0..(values.len() / elements) as u64).collect();
        Ok(Self { values, shape: shape.to_vec(), indices })
    }

    /// `batch` samples of zeros.
    ///
    /// # Errors
    ///
    /// When `shape` is empty or holds a 0.
    pub fn zeros(batch: usize, shape: &[usize]) -> Result<Self, Error> {
        Self::new(vec![0.0; batch * checked_elements(shape)?], shape)
    }

    /// The same values under the given indices, one a sample.
    ///
    /// # Errors
    ///
    /// When the number of indices differs from the number of samples.
    pub fn with_indices(mut self, indices: Vec<u64>) -> Result<Self, Error> {
        if indices.len() != self.len() {
            return Err(Error::mismatch("number of sample indices", self.len(), indices.len()));
        }
        self.indices = indices;
        Ok(self)
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// Values in one sample.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Shape of one sample, channels first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Index of each sample in its data set.
    pub fn indices(&self) -> &[u64] {
        &self.indices
    }

    /// All values, row by row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// All values, row by row.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// Values of sample `row`.
    ///
    /// # Panics
    ///
    /// When `row` is not below [`Samples::len`].
    pub fn row(&self, row: usize) -> &[f32] {
        let elements = self.elements();
        &self.values[row * elements..(row + 1) * elements]
    }

    /// Values of sample `row`.
    ///
    /// # Panics
    ///
    /// When `row` is not below [`Samples::len`].
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        let elements = self.elements();
        &mut self.values[row * elements..(row + 1) * elements]
    }

    /// All samples in order.
    pub fn rows(&self) -> std::slice::ChunksExact<'_, f32> {
        self.values.chunks_exact(self.elements())
    }

    /// All samples in order.
    pub fn rows_mut(&mut self) -> std::slice::ChunksExactMut<'_, f32> {
        let elements = self.elements();
        self.values.chunks_exact_mut(elements)
    }

    /// The given rows in the given order, with their indices.
    ///
    /// # Panics
    ///
    /// When a row is not below [`Samples::len`].
    pub fn select(&self, rows: &[usize]) -> Self {
        let mut values = Vec::with_capacity(rows.len() * self.elements());
        for &row in rows {
            values.extend_from_slice(self.row(row));
        }
        Self { values, shape: self.shape.clone(), indices: rows.iter().map(|&row| self.indices[row]).collect() }
    }

    /// These samples, then those of `other`.
    ///
    /// # Errors
    ///
    /// When the shapes differ.
    pub fn joined(mut self, other: &Self) -> Result<Self, Error> {
        if self.shape != other.shape {
            return Err(Error::mismatch(
                "shape of a sample",
                format!("{:?}", self.shape),
                format!("{:?}", other.shape),
            ));
        }
        self.values.extend_from_slice(&other.values);
        self.indices.extend_from_slice(&other.indices);
        Ok(self)
    }

    /// Puts row `source_row` of `source` in the place of `row`; the index stays.
    ///
    /// # Panics
    ///
    /// When a row does not exist or the samples have different sizes.
    pub fn copy_row(&mut self, row: usize, source: &Self, source_row: usize) {
        self.row_mut(row).copy_from_slice(source.row(source_row));
    }

    /// Row `row` seen with its shape.
    pub fn view(&self, row: usize) -> SampleView<'_> {
        SampleView { values: self.row(row), shape: &self.shape }
    }
}

/// One sample with its shape: channels first, then space or time.
#[derive(Clone, Copy, Debug)]
pub struct SampleView<'a> {
    values: &'a [f32],
    shape: &'a [usize],
}

impl<'a> SampleView<'a> {
    /// Channels, leads or (for a table) features.
    pub fn channels(&self) -> usize {
        self.shape[0]
    }

    /// Size in space or time: `[height, width]` of an image, `[depth, height, width]` of a volume, `[time]` of a
    /// signal, empty for a table.
    pub fn spatial(&self) -> &'a [usize] {
        &self.shape[1..]
    }

    /// All values of one channel.
    ///
    /// # Panics
    ///
    /// When there is no such channel.
    pub fn channel(&self, channel: usize) -> &'a [f32] {
        let plane: usize = self.spatial().iter().product();
        &self.values[channel * plane..(channel + 1) * plane]
    }
}

fn checked_elements(shape: &[usize]) -> Result<usize, Error> {
    let elements = shape.iter().try_fold(1usize, |product, &side| product.checked_mul(side));
    match elements {
        Some(elements) if elements > 0 && !shape.is_empty() => Ok(elements),
        _ => Err(Error::mismatch("shape of a sample", "one or more sides, each at least 1", format!("{shape:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_sees_channels_and_space() {
        let batch = Samples::new((0..24).map(|v| v as f32).collect(), &[2, 2, 3]).unwrap();
        let view = batch.view(1);
        assert_eq!((view.channels(), view.spatial()), (2, [2, 3].as_slice()));
        assert_eq!(view.channel(1), [18.0, 19.0, 20.0, 21.0, 22.0, 23.0]);
    }

    #[test]
    fn selecting_twice_keeps_the_index_in_the_data_set() {
        let batch = Samples::new((0..5).map(|v| v as f32).collect(), &[1]).unwrap();
        let part = batch.select(&[4, 2, 1]).select(&[1, 2]);
        assert_eq!((part.indices(), part.values()), ([2, 1].as_slice(), [2.0, 1.0].as_slice()));
    }

    #[test]
    fn shapes_that_hold_nothing_or_overflow_are_refused() {
        for shape in [vec![], vec![0], vec![3, 0, 2], vec![usize::MAX, 2]] {
            assert!(Samples::new(vec![], &shape).is_err(), "{shape:?}");
        }
        assert!(Samples::new(vec![1.0; 3], &[2]).is_err());
        assert!(Samples::zeros(2, &[3]).unwrap().with_indices(vec![1]).is_err());
    }
}
