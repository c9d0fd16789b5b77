//! Products of matrices.

use nocebo_graph::Node;

use super::{Batch, Lowering, Missing, View};
use crate::kernels::{AxisMatrix, Sides};
use crate::layers::movement::{Move, Origin};
use crate::layers::product::Product;

impl Lowering<'_> {
    pub(super) fn product_of_matrices(&mut self, node: &Node) -> Result<View, Missing> {
        match (self.optional_constant(node, 0), self.optional_constant(node, 1)) {
            (None, None) => self.of_computed(node),
            (_, Some(weights)) => {
                let weights = weights.clone();
                let x = self.any_view(node, 0)?;
                let &[inputs, outputs] = weights.shape() else {
                    return Err("it where the right factor is no matrix".to_owned());
                };
                let last = x.batch.rank(x.shape.len()).checked_sub(1).and_then(|last| x.batch.axis(last));
                if last.is_none_or(|last| x.shape[last] != inputs) {
                    return Err("it where the batch is the inner side".to_owned());
                }
                let values = weights.to_f32();
                let weight = |output: usize, input: usize| values[input * outputs + output];
                Ok(self.linear(&node.name, &x, outputs, vec![0.0; outputs], weight))
            }
            (Some(weights), None) => {
                let weights = weights.clone();
                let x = self.any_view(node, 1)?;
                let &[rows, columns] = weights.shape() else {
                    return Err("it where the left factor is no matrix".to_owned());
                };
                let axis = x.batch.rank(x.shape.len()).checked_sub(2).and_then(|axis| x.batch.axis(axis));
                let Some(axis) = axis.filter(|&axis| x.shape[axis] == columns) else {
                    return Err("it where the batch is the inner side".to_owned());
                };
                let values = weights.to_f32();
                let row = |row: usize| values[row * columns..][..columns].iter().copied().enumerate().collect();
                let rows: Vec<Vec<(usize, f32)>> = (0..rows).map(row).collect();
                Ok(self.along_axis(&node.name, &x, axis, AxisMatrix::new(columns, &rows)))
            }
        }
    }

    /// The product of two values, matrix by matrix.
    fn of_computed(&mut self, node: &Node) -> Result<View, Missing> {
        let (a, b) = (self.any_view(node, 0)?, self.any_view(node, 1)?);
        let rank = a.batch.rank(a.shape.len());
        let outside = matches!(a.batch, Batch::Axis(axis) if axis + 2 < rank);
        if a.batch != b.batch || a.shape.len() != b.shape.len() || !outside {
            return Err("it where the samples are not outside of both matrices in the same way".to_owned());
        }
        let shape = self.shape_of(&node.outputs[0], a.batch)?;
        let axes = shape.len() - 2;
        let (rows, inner, columns) = (a.shape[axes], a.shape[axes + 1], b.shape[axes + 1]);
        let a = self.repeated(&node.name, &a, &shape[..axes]);
        let b = self.repeated(&node.name, &b, &shape[..axes]);
        let layer = Product { matrices: shape[..axes].iter().product(), sides: Sides { rows, inner, columns } };
        Ok(self.other(&node.name, layer, &[&a, &b], &shape))
    }

    /// The matrices of a value repeated to these outer sides, in the order of the graph.
    fn repeated(&mut self, name: &str, x: &View, outer: &[usize]) -> View {
        let x = self.laid_out(x, false, name);
        let axes = outer.len();
        if x.shape[..axes] == *outer {
            return x;
        }
        let size: usize = x.shape[axes..].iter().product();
        let mut origins: Vec<Origin> = Vec::new();
        for matrix in 0..outer.iter().product() {
            let (mut rest, mut from, mut stride) = (matrix, 0, 1);
            for axis in (0..axes).rev() {
                from += if x.shape[axis] == 1 { 0 } else { rest % outer[axis] } * stride;
                rest /= outer[axis];
                stride *= x.shape[axis];
            }
            origins.extend((0..size).map(|at| Some((0, from * size + at))));
        }
        let shape = [outer, &x.shape[axes..]].concat();
        self.other(name, Move::new(1, &origins, &[]), &[&x], &shape)
    }
}
