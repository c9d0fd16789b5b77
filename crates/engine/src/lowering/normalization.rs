//! Normalisations by the statistics of a sample, and softmax.

use nocebo_graph::Node;
use nocebo_graph::operators::{GroupNormalization, LayerNormalization, Softmax};

use super::{Lowering, Missing, View};
use crate::layers::normalization::Normalization;
use crate::layers::softmax;

/// The axis that a possibly negative number names.
fn axis_of(axis: i64, rank: usize) -> usize {
    if axis < 0 { (axis + rank as i64) as usize } else { axis as usize }
}

impl Lowering<'_> {
    fn constants(&self, node: &Node, position: usize) -> Result<Vec<f32>, Missing> {
        Ok(self.constant(node, position)?.to_f32().into_owned())
    }

    pub(super) fn instance_normalization(&mut self, node: &Node, epsilon: f32) -> Result<View, Missing> {
        let channels = self.view(node, 0)?.shape[0];
        let (scale, shift) = (self.constants(node, 1)?, self.constants(node, 2)?);
        self.over_groups(node, channels, epsilon, scale, shift)
    }

    pub(super) fn group_normalization(&mut self, node: &Node, operator: GroupNormalization) -> Result<View, Missing> {
        let GroupNormalization { groups, epsilon, per_channel } = operator;
        let channels = self.view(node, 0)?.shape[0];
        let spread = |values: Vec<f32>| -> Vec<f32> {
            if per_channel { values } else { (0..channels).map(|at| values[at / (channels / groups)]).collect() }
        };
        let (scale, shift) = (spread(self.constants(node, 1)?), spread(self.constants(node, 2)?));
        self.over_groups(node, groups, epsilon, scale, shift)
    }

    fn over_groups(
        &mut self,
        node: &Node,
        groups: usize,
        epsilon: f32,
        scale: Vec<f32>,
        shift: Vec<f32>,
    ) -> Result<View, Missing> {
        let x = self.view(node, 0)?;
        let x = self.laid_out(&x, true, &node.name);
        let sides = [1, x.shape[1..].iter().product(), groups, x.shape[0] / groups];
        let layer = Normalization::new(sides, epsilon, scale, shift);
        Ok(self.other(&node.name, layer, &[&x], &x.shape))
    }

    pub(super) fn layer_normalization(&mut self, node: &Node, operator: LayerNormalization) -> Result<View, Missing> {
        if node.outputs.iter().skip(1).any(|name| self.readers.contains_key(name.as_str())) {
            return Err("the statistics of a layer normalisation".to_owned());
        }
        let x = self.any_view(node, 0)?;
        let x = self.laid_out(&x, false, &node.name);
        let rank = x.batch.rank(x.shape.len());
        let first = axis_of(operator.axis, rank);
        let own: Option<Vec<usize>> = (first..rank).map(|axis| x.batch.axis(axis)).collect();
        let Some(&first) = own.as_ref().and_then(|own| own.first()) else {
            return Err("it over the batch".to_owned());
        };
        let size: usize = x.shape[first..].iter().product();
        let blocks: usize = x.shape[..first].iter().product();
        let repeated = |position: usize| -> Result<Vec<f32>, Missing> {
            let tensor = self.constant(node, position)?.clone();
            if tensor.len() == size {
                return Ok(tensor.to_f32().into_owned());
            }
            let mut along = self.constants_along(&x, &tensor)?;
            let whole = along.repeat(x.elements() / along.len());
            along = whole[..size].to_vec();
            if whole.chunks(size).any(|layer| layer != along) {
                return Err("a scale that differs between layers".to_owned());
            }
            Ok(along)
        };
        let scale = repeated(1)?;
        let has_shift = node.inputs.get(2).is_some_and(|name| !name.is_empty());
        let shift = if has_shift { repeated(2)? } else { vec![0.0; size] };
        let layer = Normalization::new([blocks, 1, 1, size], operator.epsilon, scale, shift);
        Ok(self.other(&node.name, layer, &[&x], &x.shape))
    }

    pub(super) fn softmax(&mut self, node: &Node, operator: Softmax) -> Result<View, Missing> {
        let mut x = self.any_view(node, 0)?;
        let rank = x.batch.rank(x.shape.len());
        let axis = axis_of(operator.axis, rank);
        let axes: Vec<usize> = if operator.joined { (axis..rank).collect() } else { vec![axis] };
        let own: Option<Vec<usize>> = axes.into_iter().map(|axis| x.batch.axis(axis)).collect();
        let Some(own) = own.filter(|own| !own.is_empty()) else {
            return Err("it over the batch".to_owned());
        };
        if own.len() > 1 {
            x = self.laid_out(&x, false, &node.name);
        }
        let order = x.order();
        let sides = x.sides();
        let first = order.iter().position(|axis| *axis == own[0]).unwrap_or(0);
        let behind = first + own.len();
        let layer = softmax::Softmax {
            logarithm: operator.logarithm,
            side: sides[first..behind].iter().product(),
            inner: sides[behind..].iter().product(),
        };
        Ok(self.other(&node.name, layer, &[&x], &x.shape))
    }
}
