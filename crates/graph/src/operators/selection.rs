//! Choices among values: the greatest few, triangles, sequences reversed, and tensors made of indices.

use super::indexing::place_of;
use super::{Arguments, Behaviour, Fact, Facts, Source, Target, axis_of, output_shape};
use crate::tensor::{Data, elements, strides};
use crate::value::{DeviceTensor, Mask, Value};
use crate::{ElementType, OperatorError, Tensor};

/// The greatest or least few values along an axis, in order, and their places. The values have a gradient, the places not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopK {
    /// The axis; negative counts from the end.
    pub axis: i64,
    /// Whether the greatest are wanted.
    pub greatest: bool,
}

impl Behaviour for TopK {
    fn name(&self) -> &'static str {
        "TopK"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "TopK" {
            return Ok(None);
        }
        if let Some(k) = source.integer("k")? {
            source.new_inputs.push((1, Tensor::list(&[k])));
        }
        // Unsorted results may stand in any order, so the sorted one is right, too.
        source.ignore(&["sorted"]);
        Ok(Some(Self { axis: source.integer_or("axis", -1)?, greatest: source.flag("largest", true)? }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        target.integer("axis", self.axis);
        target.flag("largest", self.greatest);
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        let mut shape = inputs.shape(0)?.to_vec();
        let axis = axis_of(self.axis, shape.len())?;
        let wanted = inputs.integers(1)?;
        let count = wanted.first().and_then(|&count| usize::try_from(count).ok()).filter(|&count| count <= shape[axis]);
        let count = count.ok_or_else(|| {
            OperatorError::mismatch("number of values", format!("at most {}", shape[axis]), format!("{wanted:?}"))
        })?;
        shape[axis] = count;
        Ok(vec![Fact::new(inputs.element(0)?, shape.clone()), Fact::new(ElementType::I64, shape)])
    }

    fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let value = arguments.get(0)?;
        let shape = value.shape();
        let axis = axis_of(self.axis, shape.len())?;
        let out = output_shape(outputs, 0)?;
        let host = value.to_host()?;
        let numbers = host.to_f64();
        let (side, inner) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
        let outer: usize = shape[..axis].iter().product();
        let mut places = vec![0; elements(out)?];
        let mut indices = vec![0; places.len()];
        for row in 0..outer {
            for column in 0..inner {
                let at = |index: usize| (row * side + index) * inner + column;
                let mut order: Vec<usize> = (0..side).collect();
                // The sort is stable: of equal values the first comes first.
                order.sort_by(|&a, &b| {
                    let ascending = numbers[at(a)].total_cmp(&numbers[at(b)]);
                    if self.greatest { ascending.reverse() } else { ascending }
                });
                for (rank, &index) in order.iter().take(out[axis]).enumerate() {
                    let place = (row * out[axis] + rank) * inner + column;
                    places[place] = at(index);
                    indices[place] = index as i64;
                }
            }
        }
        Ok(vec![value.picked(out, &places), Value::host(Tensor::integers(out, ElementType::I64, indices)?)])
    }
}

/// A triangle of each matrix in the last two axes; the second input moves the diagonal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trilu {
    /// Whether the upper triangle is kept.
    pub upper: bool,
}

impl Behaviour for Trilu {
    fn name(&self) -> &'static str {
        "Trilu"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "Trilu" {
            return Ok(None);
        }
        Ok(Some(Self { upper: source.flag("upper", true)? }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        target.flag("upper", self.upper);
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        let shape = inputs.shape(0)?;
        if shape.len() < 2 {
            return Err(OperatorError::mismatch("shape of the input", "[..., rows, columns]", format!("{shape:?}")));
        }
        Ok(vec![Fact::new(inputs.element(0)?, shape.to_vec())])
    }

    fn forward(&self, arguments: &Arguments<'_>, _outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let value = arguments.get(0)?;
        let shape = value.shape();
        let diagonal = arguments.optional_integers(1)?.and_then(|values| values.first().copied()).unwrap_or(0);
        let (rows, columns) = (shape[shape.len() - 2].max(1), shape[shape.len() - 1].max(1));
        let dropped: Vec<bool> = (0..elements(&shape)?)
            .map(|position| {
                let (row, column) = ((position / columns % rows) as i64, (position % columns) as i64);
                let distance = column - row;
                if self.upper { distance < diagonal } else { distance > diagonal }
            })
            .collect();
        Ok(vec![match value {
            Value::Host(tensor) => {
                let values = tensor
                    .to_i64()
                    .iter()
                    .zip(&dropped)
                    .map(|(&value, &dropped)| if dropped { 0 } else { value })
                    .collect();
                Value::host(Tensor::new(&shape, ElementType::I64, Data::Integer(values))?.cast(tensor.element()))
            }
            Value::Device(tensor, element) => {
                let zeros = DeviceTensor::full(0.0, &shape, arguments.device);
                Value::Device(tensor.replaced(&Mask::new(dropped, &shape, arguments.device), &zeros), *element)
            }
        }])
    }

    fn least_opset(&self) -> i64 {
        14
    }
}

/// Ones (or the second of the values) at the indices along a new axis. Inputs: indices, depth, values `[off, on]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneHot {
    /// Place of the new axis; negative counts from the end.
    pub axis: i64,
}

impl Behaviour for OneHot {
    fn name(&self) -> &'static str {
        "OneHot"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "OneHot" {
            return Ok(None);
        }
        Ok(Some(Self { axis: source.integer_or("axis", -1)? }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        target.integer("axis", self.axis);
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        let mut shape = inputs.shape(0)?.to_vec();
        let axis = axis_of(self.axis, shape.len() + 1)?;
        let depth = inputs.integers(1)?;
        let depth =
            depth.first().and_then(|&depth| usize::try_from(depth).ok()).filter(|depth| (1..1 << 31).contains(depth));
        shape.insert(axis, depth.ok_or_else(|| OperatorError::mismatch("depth", "at least 1", "less"))?);
        elements(&shape)?;
        if inputs.shape(2)? != [2] {
            return Err(OperatorError::mismatch("shape of the values", "[2]", format!("{:?}", inputs.shape(2)?)));
        }
        Ok(vec![Fact::new(inputs.element(2)?, shape)])
    }

    fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let out = output_shape(outputs, 0)?;
        let indices = arguments.host(0)?;
        let axis = axis_of(self.axis, out.len())?;
        let inner: usize = out[axis + 1..].iter().product();
        let mut places = vec![0usize; elements(out)?];
        for (position, &index) in indices.to_i64().iter().enumerate() {
            // An index outside makes a row of the first value.
            if let Ok(index) = place_of(index, out[axis]) {
                places[(position / inner.max(1) * out[axis] + index) * inner + position % inner.max(1)] = 1;
            }
        }
        Ok(vec![arguments.get(2)?.picked(out, &places)])
    }

    fn least_opset(&self) -> i64 {
        11
    }
}

/// The first elements of each sequence in reverse order; lengths are the second input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReverseSequence {
    /// Axis of the batch: 0 or 1.
    pub batch_axis: usize,
    /// Axis of time: the other.
    pub time_axis: usize,
}

impl Behaviour for ReverseSequence {
    fn name(&self) -> &'static str {
        "ReverseSequence"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "ReverseSequence" {
            return Ok(None);
        }
        let (batch_axis, time_axis) = (source.count_or("batch_axis", 1)?, source.count_or("time_axis", 0)?);
        if batch_axis + time_axis != 1 {
            return Err(OperatorError::attribute(
                "batch_axis and time_axis",
                "0 and 1",
                format!("{batch_axis} and {time_axis}"),
            ));
        }
        Ok(Some(Self { batch_axis, time_axis }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        target.integer("batch_axis", self.batch_axis as i64);
        target.integer("time_axis", self.time_axis as i64);
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        let shape = inputs.shape(0)?;
        if shape.len() < 2 || inputs.shape(1)? != [shape[self.batch_axis]] {
            return Err(OperatorError::mismatch(
                "shape of the lengths",
                "one a sequence",
                format!("{:?}", inputs.shape(1)?),
            ));
        }
        Ok(vec![Fact::new(inputs.element(0)?, shape.to_vec())])
    }

    fn forward(&self, arguments: &Arguments<'_>, _outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let value = arguments.get(0)?;
        let shape = value.shape();
        let lengths = arguments.integers(1)?;
        let own = strides(&shape);
        let places: Vec<usize> = (0..elements(&shape)?)
            .map(|position| {
                let time = position / own[self.time_axis] % shape[self.time_axis];
                let batch = position / own[self.batch_axis] % shape[self.batch_axis];
                let length = usize::try_from(lengths[batch]).unwrap_or(0).min(shape[self.time_axis]);
                if time < length {
                    position - time * own[self.time_axis] + (length - 1 - time) * own[self.time_axis]
                } else {
                    position
                }
            })
            .collect();
        Ok(vec![value.picked(&shape, &places)])
    }

    fn least_opset(&self) -> i64 {
        10
    }
}

/// Slices along an axis (of the flattened tensor where none is given) at which the second input is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compress {
    /// The axis; negative counts from the end.
    pub axis: Option<i64>,
}

impl Compress {
    fn shape_and_axis(self, shape: &[usize]) -> Result<(Vec<usize>, usize), OperatorError> {
        match self.axis {
            Some(axis) => Ok((shape.to_vec(), axis_of(axis, shape.len())?)),
            None => Ok((vec![elements(shape)?], 0)),
        }
    }
}

impl Behaviour for Compress {
    fn name(&self) -> &'static str {
        "Compress"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "Compress" {
            return Ok(None);
        }
        Ok(Some(Self { axis: source.integer("axis")? }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        if let Some(axis) = self.axis {
            target.integer("axis", axis);
        }
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        let (mut shape, axis) = self.shape_and_axis(inputs.shape(0)?)?;
        let kept = inputs.value(1)?;
        if kept.element() != ElementType::Bool || kept.len() > shape[axis] {
            return Err(OperatorError::mismatch(
                "the condition",
                format!("at most {} truth values", shape[axis]),
                kept.len(),
            ));
        }
        shape[axis] = kept.to_bool().iter().filter(|&&kept| kept).count();
        Ok(vec![Fact::new(inputs.element(0)?, shape)])
    }

    fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let value = arguments.get(0)?;
        let (shape, axis) = self.shape_and_axis(&value.shape())?;
        let kept = arguments.host(1)?;
        let kept: Vec<usize> =
            kept.to_bool().iter().enumerate().filter(|(_, kept)| **kept).map(|(index, _)| index).collect();
        let (inner, outer) = (shape[axis + 1..].iter().product::<usize>(), shape[..axis].iter().product::<usize>());
        let mut places = Vec::new();
        for row in 0..outer {
            for index in &kept {
                let start = (row * shape[axis] + index) * inner;
                places.extend(start..start + inner);
            }
        }
        Ok(vec![value.picked(output_shape(outputs, 0)?, &places)])
    }

    fn least_opset(&self) -> i64 {
        9
    }
}

/// Sums of all elements up to each one along the axis in the second input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CumulativeSum {
    /// Whether an element is left out of its own sum.
    pub exclusive: bool,
    /// Whether the sums run from the end.
    pub reverse: bool,
}

impl Behaviour for CumulativeSum {
    fn name(&self) -> &'static str {
        "CumSum"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "CumSum" {
            return Ok(None);
        }
        Ok(Some(Self { exclusive: source.flag("exclusive", false)?, reverse: source.flag("reverse", false)? }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        target.flag("exclusive", self.exclusive);
        target.flag("reverse", self.reverse);
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        let shape = inputs.shape(0)?;
        if inputs.element(0)? == ElementType::Bool {
            return Err(OperatorError::mismatch("element type of the input", "numbers", ElementType::Bool));
        }
        if let Some(axis) = inputs.get(1)?.value.as_ref() {
            axis_of(axis.to_i64().first().copied().unwrap_or(0), shape.len())?;
        }
        Ok(vec![Fact::new(inputs.element(0)?, shape.to_vec())])
    }

    fn forward(&self, arguments: &Arguments<'_>, _outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let value = arguments.get(0)?;
        let shape = value.shape();
        let axis = axis_of(arguments.integers(1)?.first().copied().unwrap_or(0), shape.len())?;
        if shape.contains(&0) {
            return Ok(vec![value.clone()]);
        }
        match value {
            Value::Host(tensor) => {
                let (side, inner) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
                let mut values = tensor.to_i64().into_owned();
                let source = values.clone();
                for start in (0..values.len()).filter(|position| position / inner % side == 0) {
                    let mut sum = 0i64;
                    for step in 0..side {
                        let index = if self.reverse { side - 1 - step } else { step };
                        let place = start + index * inner;
                        let next = sum.wrapping_add(source[place]);
                        values[place] = if self.exclusive { sum } else { next };
                        sum = next;
                    }
                }
                Ok(vec![Value::host(Tensor::integers(&shape, tensor.element(), values)?)])
            }
            Value::Device(tensor, element) => {
                let backwards: Vec<usize> = (0..shape[axis]).rev().collect();
                let turned = |x: DeviceTensor| if self.reverse { x.selected(axis, &backwards) } else { x };
                let mut x = turned(tensor.clone());
                if self.exclusive {
                    let mut padding = vec![(0, 0); shape.len()];
                    padding[axis] = (1, 0);
                    x = x.padded(&padding, 0.0).narrowed(axis, 0, shape[axis]);
                }
                Ok(vec![Value::Device(turned(x.cumulative_sum(axis)), *element)])
            }
        }
    }

    fn least_opset(&self) -> i64 {
        11
    }
}
