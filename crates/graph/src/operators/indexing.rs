//! Values by index. Indices have no gradient; the values that they pick do.

use super::shape::plain;
use super::{Arguments, Behaviour, Derivative, Fact, Facts, Source, Target, axis_of, output_shape};
use crate::tensor::{elements, strides};
use crate::value::Value;
use crate::{OperatorError, Tensor};

/// An index that may count from the end, made a position in `0..side`.
pub(crate) fn place_of(index: i64, side: usize) -> Result<usize, OperatorError> {
    let place = if index < 0 { index.saturating_add(side as i64) } else { index };
    usize::try_from(place)
        .ok()
        .filter(|&place| place < side)
        .ok_or_else(|| OperatorError::mismatch("an index", format!("in -{side}..{side}"), index))
}

pub(crate) fn require_integer(inputs: &Facts<'_>, position: usize) -> Result<(), OperatorError> {
    let element = inputs.element(position)?;
    if element.is_integer() {
        Ok(())
    } else {
        Err(OperatorError::mismatch("element type of the indices", "integers", element))
    }
}

/// Slices along an axis by index (embedding tables, picking sides of a shape).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gather {
    /// The axis; negative counts from the end.
    pub axis: i64,
}

impl Behaviour for Gather {
    fn name(&self) -> &'static str {
        "Gather"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "Gather" {
            return Ok(None);
        }
        Ok(Some(Self { axis: source.integer_or("axis", 0)? }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        target.integer("axis", self.axis);
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        require_integer(inputs, 1)?;
        let shape = inputs.shape(0)?;
        let axis = axis_of(self.axis, shape.len())?;
        let mut result = shape[..axis].to_vec();
        result.extend(inputs.shape(1)?);
        result.extend(&shape[axis + 1..]);
        elements(&result)?;
        Ok(vec![Fact::new(inputs.element(0)?, result)])
    }

    fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let value = arguments.get(0)?;
        let shape = value.shape();
        let axis = axis_of(self.axis, shape.len())?;
        let places: Vec<usize> =
            arguments.integers(1)?.iter().map(|&index| place_of(index, shape[axis])).collect::<Result<_, _>>()?;
        let out = output_shape(outputs, 0)?;
        if let Value::Device(tensor, element) = value
            && !out.contains(&0)
        {
            return Ok(vec![Value::Device(tensor.clone().selected(axis, &places).reshaped(out), *element)]);
        }
        let inner: usize = shape[axis + 1..].iter().product();
        let outer: usize = shape[..axis].iter().product();
        let mut positions = Vec::with_capacity(elements(out)?);
        for row in 0..outer {
            for place in &places {
                let start = (row * shape[axis] + place) * inner;
                positions.extend(start..start + inner);
            }
        }
        Ok(vec![value.picked(out, &positions)])
    }

    fn has_weight_at(&self, position: usize, _constant: &Tensor) -> bool {
        position == 0
    }
}

/// One element along an axis for each index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatherElements {
    /// The axis; negative counts from the end.
    pub axis: i64,
}

impl Behaviour for GatherElements {
    fn name(&self) -> &'static str {
        "GatherElements"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "GatherElements" {
            return Ok(None);
        }
        Ok(Some(Self { axis: source.integer_or("axis", 0)? }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        target.integer("axis", self.axis);
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        require_integer(inputs, 1)?;
        let (shape, indices) = (inputs.shape(0)?, inputs.shape(1)?);
        let axis = axis_of(self.axis, shape.len())?;
        let fits = indices.len() == shape.len()
            && (0..shape.len()).all(|other| other == axis || indices[other] <= shape[other]);
        if !fits {
            return Err(OperatorError::mismatch(
                "shape of the indices",
                format!("within {shape:?} but for axis {axis}"),
                format!("{indices:?}"),
            ));
        }
        Ok(vec![Fact::new(inputs.element(0)?, indices.to_vec())])
    }

    fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let value = arguments.get(0)?;
        let shape = value.shape();
        let out = output_shape(outputs, 0)?;
        let places = element_places(&shape, out, axis_of(self.axis, shape.len())?, &arguments.integers(1)?)?;
        Ok(vec![value.picked(out, &places)])
    }
}

/// Flat position in a tensor of `shape` of each index in a tensor of shape `indexed`.
pub(crate) fn element_places(
    shape: &[usize],
    indexed: &[usize],
    axis: usize,
    indices: &[i64],
) -> Result<Vec<usize>, OperatorError> {
    let mut steps: Vec<isize> = strides(shape).into_iter().map(|stride| stride as isize).collect();
    let along = steps[axis].unsigned_abs();
    steps[axis] = 0;
    let starts = crate::tensor::positions(indexed, &steps, 0);
    indices.iter().zip(starts).map(|(&index, start)| Ok(start + place_of(index, shape[axis])? * along)).collect()
}

/// Slices by index tuples in the last axis of the second input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatherNd {
    /// Leading axes that data and indices share.
    pub batch_axes: usize,
}

impl Behaviour for GatherNd {
    fn name(&self) -> &'static str {
        "GatherND"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "GatherND" {
            return Ok(None);
        }
        Ok(Some(Self { batch_axes: source.count_or("batch_dims", 0)? }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        target.integer("batch_dims", self.batch_axes as i64);
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        require_integer(inputs, 1)?;
        let (shape, indices) = (inputs.shape(0)?, inputs.shape(1)?);
        let batch = self.batch_axes;
        let length = indices.last().copied().unwrap_or(0);
        let fits = indices.len() > batch
            && length > 0
            && length.saturating_add(batch) <= shape.len()
            && shape[..batch] == indices[..batch];
        if !fits {
            return Err(OperatorError::mismatch(
                "shape of the indices",
                format!("tuples into {shape:?} after {batch} shared axes"),
                format!("{indices:?}"),
            ));
        }
        let mut result = indices[..indices.len() - 1].to_vec();
        result.extend(&shape[batch + length..]);
        elements(&result)?;
        Ok(vec![Fact::new(inputs.element(0)?, result)])
    }

    fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let value = arguments.get(0)?;
        let shape = value.shape();
        let indices = arguments.host(1)?;
        let tuples = indices.shape();
        let length = tuples.last().copied().unwrap_or(0);
        let batches: usize = tuples[..self.batch_axes].iter().product();
        let starts = tuple_starts(&shape[self.batch_axes..], length, &indices.to_i64())?;
        let inner: usize = shape[self.batch_axes + length..].iter().product();
        let block: usize = shape[self.batch_axes..].iter().product();
        let per_batch = starts.len() / batches.max(1);
        let mut places = Vec::with_capacity(starts.len() * inner);
        for (row, start) in starts.into_iter().enumerate() {
            let start = start + row / per_batch.max(1) * block;
            places.extend(start..start + inner);
        }
        Ok(vec![value.picked(output_shape(outputs, 0)?, &places)])
    }
}

/// Flat position of the first element that each tuple of `length` indices names in a tensor of `shape`.
pub(crate) fn tuple_starts(shape: &[usize], length: usize, indices: &[i64]) -> Result<Vec<usize>, OperatorError> {
    let own = strides(shape);
    indices
        .chunks_exact(length.max(1))
        .map(|tuple| {
            tuple
                .iter()
                .enumerate()
                .try_fold(0, |start, (axis, &index)| Ok(start + place_of(index, shape[axis])? * own[axis]))
        })
        .collect()
}

/// Index of every element that is not 0, one column an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NonZero;

impl Behaviour for NonZero {
    plain!("NonZero");

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        let rank = inputs.shape(0)?.len();
        let count = inputs.value(0)?.to_bool().iter().filter(|&&value| value).count();
        Ok(vec![Fact::new(crate::ElementType::I64, vec![rank, count])])
    }

    fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let tensor = arguments.host(0)?;
        let own = strides(tensor.shape());
        let truth = tensor.to_bool();
        let found: Vec<usize> = (0..tensor.len()).filter(|&position| truth[position]).collect();
        let mut values = Vec::with_capacity(found.len() * own.len());
        for (axis, stride) in own.iter().enumerate() {
            values.extend(found.iter().map(|position| (position / stride % tensor.shape()[axis]) as i64));
        }
        Ok(vec![Value::host(Tensor::integers(output_shape(outputs, 0)?, crate::ElementType::I64, values)?)])
    }

    fn derivative(&self) -> Derivative {
        Derivative::None
    }
}
