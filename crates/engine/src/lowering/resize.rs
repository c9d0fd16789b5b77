//! Resampling.

use nocebo_graph::Node;
use nocebo_graph::operators::Resize;

use super::{Lowering, Missing, View};
use crate::kernels::AxisMatrix;

impl Lowering<'_> {
    pub(super) fn resize(&mut self, node: &Node, operator: &Resize) -> Result<View, Missing> {
        let mut x = self.any_view(node, 0)?;
        let given = |position: usize| node.inputs.get(position).is_some_and(|name| !name.is_empty());
        let scales = if given(2) { Some(self.constant(node, 2)?.to_f32().into_owned()) } else { None };
        let sizes = if given(3) { Some(self.constant(node, 3)?.to_i64().into_owned()) } else { None };
        let shape = self.whole_shape_of(&node.inputs[0])?;
        let axes = operator.matrices(shape, scales.as_deref(), sizes.as_deref()).map_err(|error| error.to_string())?;
        for (axis, rows) in axes.into_iter().enumerate() {
            if let Some(rows) = rows {
                let Some(own) = x.batch.axis(axis) else { return Err("it over the batch".to_owned()) };
                let columns = x.shape[own];
                x = self.along_axis(&node.name, &x, own, AxisMatrix::new(columns, &rows));
            }
        }
        Ok(x)
    }
}
