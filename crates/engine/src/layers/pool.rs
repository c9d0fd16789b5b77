//! Pools: the greatest value of windows, and linear maps along one axis.

use super::{Backward, Forward, Layer, Masking};
use crate::kernels::{AxisMatrix, Finish, Windows, mapped};

/// Greatest value of each window; one byte a result says where it came from.
pub(crate) struct MaxPool {
    windows: Windows,
    reversed: Windows,
    /// Results of a sample.
    results: usize,
}

impl MaxPool {
    pub(crate) fn new(windows: Windows, results: usize) -> Self {
        let reversed = windows.reversed();
        Self { windows, reversed, results }
    }
}

impl Layer for MaxPool {
    fn forward(&self, pass: Forward<'_>) {
        let finish = Finish { rectified: pass.rectified, ..Finish::default() };
        self.windows.greatest(pass.set, pass.samples, pass.inputs[0], pass.output, pass.saved, finish);
    }

    fn backward(&self, pass: Backward<'_>) {
        let finish = Finish { accumulate: pass.accumulate, passing: pass.passing, ..Finish::default() };
        self.reversed.chosen(pass.set, pass.samples, pass.slope, pass.gradient, pass.saved, finish);
    }

    fn saved(&self) -> usize {
        self.results
    }

    fn rectifies(&self) -> bool {
        true
    }

    fn masks(&self, _position: usize) -> Masking {
        Masking::Whole
    }

    fn kernel(&self) -> String {
        "max-pool".to_owned()
    }
}

/// A sparse matrix along one axis: means, sums, resampling, parts, borders.
pub(crate) struct AxisMap {
    matrix: AxisMatrix,
    transposed: AxisMatrix,
    /// Elements of a sample before and behind the axis.
    outer: usize,
    inner: usize,
}

impl AxisMap {
    pub(crate) fn new(matrix: AxisMatrix, outer: usize, inner: usize) -> Self {
        let transposed = matrix.transposed();
        Self { matrix, transposed, outer, inner }
    }
}

impl Layer for AxisMap {
    fn forward(&self, pass: Forward<'_>) {
        let sides = (pass.samples * self.outer, self.inner);
        mapped(pass.set, &self.matrix, sides, pass.inputs[0], pass.output, Finish::default());
    }

    fn backward(&self, pass: Backward<'_>) {
        let sides = (pass.samples * self.outer, self.inner);
        let finish = Finish { accumulate: pass.accumulate, ..Finish::default() };
        mapped(pass.set, &self.transposed, sides, pass.slope, pass.gradient, finish);
    }

    fn kernel(&self) -> String {
        format!("matrix along an axis, {} to {}", self.matrix.columns(), self.matrix.rows())
    }
}
