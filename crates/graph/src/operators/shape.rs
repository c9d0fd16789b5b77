//! Operators that move, cut, join, repeat or describe values without computing new ones.

use std::sync::Arc;

use rand::RngExt;

use super::{Arguments, Behaviour, Derivative, Fact, Facts, Source, Target, axes_of, axis_of, output_shape};
use crate::tensor::{Data, broadcast, elements, positions, room, strides};
use crate::value::{DeviceTensor, Value};
use crate::{ElementType, OperatorError, Tensor};

/// An operator of this name without attributes.
macro_rules! plain {
    ($name:literal) => {
        fn name(&self) -> &'static str {
            $name
        }

        fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
            Ok((source.operator == $name).then_some(Self))
        }

        fn write(&self, _target: &mut Target<'_>) -> Result<(), OperatorError> {
            Ok(())
        }
    };
}
pub(crate) use plain;

/// Most elements of a constant that a graph may make from nothing: 2^28, 1 GiB of floats.
const MOST_MADE: usize = 1 << 28;

fn made(shape: &[usize]) -> Result<(), OperatorError> {
    if room(shape) > MOST_MADE {
        return Err(OperatorError::mismatch(
            "size of a tensor made from nothing",
            format!("at most {MOST_MADE} elements"),
            format!("{shape:?}"),
        ));
    }
    Ok(())
}

/// A list of sides, each at least 0.
pub(crate) fn sides(values: &[i64]) -> Result<Vec<usize>, OperatorError> {
    values
        .iter()
        .map(|&value| usize::try_from(value).ok())
        .collect::<Option<_>>()
        .ok_or_else(|| OperatorError::mismatch("a shape", "sides of at least 0", format!("{values:?}")))
}

/// The value itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity;

impl Behaviour for Identity {
    plain!("Identity");

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        Ok(vec![inputs.get(0)?.clone()])
    }

    fn forward(&self, arguments: &Arguments<'_>, _outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        Ok(vec![arguments.get(0)?.clone()])
    }
}

/// The identity, unless training is on: then each element is 0 with probability `ratio` (second input, 0.5 if absent) and
/// else scaled up by `1 / (1 - ratio)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropout;

impl Behaviour for Dropout {
    fn name(&self) -> &'static str {
        "Dropout"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "Dropout" {
            return Ok(None);
        }
        source.ignore(&["seed", "is_test", "consumed_inputs"]);
        if source.opset < 12 {
            let ratio = source.float_or("ratio", 0.5)?;
            source.new_inputs.push((1, Tensor::scalar(ratio)));
        }
        Ok(Some(Self))
    }

    fn write(&self, _target: &mut Target<'_>) -> Result<(), OperatorError> {
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        inputs.require_float(0)?;
        if let Some(ratio) = inputs.optional(1).and_then(|fact| fact.value.as_ref()) {
            let ratio = ratio.to_f32().first().copied().unwrap_or(f32::NAN);
            if !(0.0..1.0).contains(&ratio) {
                return Err(OperatorError::mismatch("dropout ratio", "in 0..1", ratio));
            }
        }
        let fact = inputs.get(0)?.clone();
        Ok(vec![fact.clone(), Fact { element: ElementType::Bool, value: None, ..fact }])
    }

    fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let value = arguments.get(0)?;
        let shape = value.shape();
        let ratio = match arguments.optional(1) {
            Some(ratio) => ratio.to_host()?.to_f32().first().copied().unwrap_or(0.5),
            None => 0.5,
        };
        let count = elements(&shape)?;
        let kept: Option<Vec<bool>> = arguments.training.filter(|_| ratio > 0.0).map(|seed| {
            let mut random = seed.for_sample(0);
            (0..count).map(|_| random.random::<f32>() >= ratio).collect()
        });
        let mut results = vec![match &kept {
            None => value.clone(),
            Some(kept) => {
                let scale = 1.0 / (1.0 - ratio);
                let factors = kept.iter().map(|&kept| if kept { scale } else { 0.0 }).collect();
                let factors = DeviceTensor::new(factors, &shape, arguments.device);
                Value::Device(value.to_device(arguments.device).mul(&factors), value.element())
            }
        }];
        if outputs.len() > 1 {
            results.push(Value::host(Tensor::booleans(&shape, kept.unwrap_or_else(|| vec![true; count]))?));
        }
        Ok(results)
    }
}

/// Conversion to another element type. No gradient passes a conversion to integers or truth values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cast {
    /// The element type wanted.
    pub to: ElementType,
}

impl Behaviour for Cast {
    fn name(&self) -> &'static str {
        "Cast"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "Cast" {
            return Ok(None);
        }
        source.ignore(&["saturate"]);
        let code = source.integer_or("to", 0)?;
        let to = i32::try_from(code).ok().and_then(ElementType::from_onnx);
        to.map(|to| Some(Self { to }))
            .ok_or_else(|| OperatorError::unsupported(format!("conversion to the element type numbered {code}")))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        target.integer("to", i64::from(self.to.to_onnx()));
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        Ok(vec![Fact::new(self.to, inputs.shape(0)?.to_vec())])
    }

    fn forward(&self, arguments: &Arguments<'_>, _outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let value = arguments.get(0)?;
        Ok(vec![if self.to.is_float() {
            Value::Device(value.to_device(arguments.device), self.to)
        } else {
            Value::host(value.to_host()?.cast(self.to))
        }])
    }

    fn derivative(&self) -> Derivative {
        if self.to.is_float() { Derivative::Exact } else { Derivative::None }
    }
}

/// Another shape for the same values; the shape is the second input, where -1 is worked out and 0 keeps the side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reshape {
    /// Whether 0 is a side of length 0 instead.
    pub allow_zero: bool,
}

impl Behaviour for Reshape {
    fn name(&self) -> &'static str {
        "Reshape"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "Reshape" {
            return Ok(None);
        }
        source.integers_to_input("shape", 1)?;
        Ok(Some(Self { allow_zero: source.flag("allowzero", false)? }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        if self.allow_zero {
            target.flag("allowzero", true);
        }
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        let shape = inputs.shape(0)?;
        let wanted = inputs.integers(1)?;
        let misfit =
            || OperatorError::mismatch("the new shape", format!("one that fits {shape:?}"), format!("{wanted:?}"));
        let mut result = Vec::with_capacity(wanted.len());
        let mut open = None;
        for (axis, &side) in wanted.iter().enumerate() {
            result.push(match side {
                -1 if open.is_none() => {
                    open = Some(axis);
                    1
                }
                0 if !self.allow_zero => *shape.get(axis).ok_or_else(misfit)?,
                side => usize::try_from(side).map_err(|_| misfit())?,
            });
        }
        let total = elements(shape)?;
        if let Some(axis) = open {
            let rest = elements(&result)?;
            if rest == 0 || !total.is_multiple_of(rest) {
                return Err(misfit());
            }
            result[axis] = total / rest;
        }
        if elements(&result)? != total {
            return Err(misfit());
        }
        Ok(vec![Fact::new(inputs.element(0)?, result)])
    }

    fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        Ok(vec![arguments.get(0)?.reshaped(output_shape(outputs, 0)?)?])
    }
}

/// Flattens to a matrix: the axes before `axis` become rows, the others columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flatten {
    /// First axis of the columns; negative counts from the end.
    pub axis: i64,
}

impl Behaviour for Flatten {
    fn name(&self) -> &'static str {
        "Flatten"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "Flatten" {
            return Ok(None);
        }
        Ok(Some(Self { axis: source.integer_or("axis", 1)? }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        target.integer("axis", self.axis);
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        let shape = inputs.shape(0)?;
        // One past the last axis is allowed here.
        let axis = axis_of(self.axis, shape.len() + usize::from(self.axis >= 0))?;
        Ok(vec![Fact::new(inputs.element(0)?, vec![elements(&shape[..axis])?, elements(&shape[axis..])?])])
    }

    fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        Ok(vec![arguments.get(0)?.reshaped(output_shape(outputs, 0)?)?])
    }
}

/// Axes of the second input; the attribute of older opsets becomes that input.
fn read_axes(source: &mut Source<'_>) -> Result<(), OperatorError> {
    source.integers_to_input("axes", 1)
}

/// Removes axes of length 1: those of the second input, or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Squeeze;

impl Behaviour for Squeeze {
    fn name(&self) -> &'static str {
        "Squeeze"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "Squeeze" {
            return Ok(None);
        }
        read_axes(source)?;
        Ok(Some(Self))
    }

    fn write(&self, _target: &mut Target<'_>) -> Result<(), OperatorError> {
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        let shape = inputs.shape(0)?;
        let axes = match inputs.optional_integers(1)? {
            Some(axes) => axes_of(&axes, shape.len())?,
            None => (0..shape.len()).filter(|&axis| shape[axis] == 1).collect(),
        };
        if let Some(&axis) = axes.iter().find(|&&axis| shape[axis] != 1) {
            return Err(OperatorError::mismatch(format!("length of axis {axis}"), 1, shape[axis]));
        }
        Ok(vec![Fact::new(inputs.element(0)?, super::reduce::reduced(shape, &axes, false))])
    }

    fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        Ok(vec![arguments.get(0)?.reshaped(output_shape(outputs, 0)?)?])
    }
}

/// Inserts axes of length 1 at the places (in the result) of the second input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsqueeze;

impl Behaviour for Unsqueeze {
    fn name(&self) -> &'static str {
        "Unsqueeze"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "Unsqueeze" {
            return Ok(None);
        }
        read_axes(source)?;
        Ok(Some(Self))
    }

    fn write(&self, _target: &mut Target<'_>) -> Result<(), OperatorError> {
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        let shape = inputs.shape(0)?;
        let axes = inputs.integers(1)?;
        let rank = shape.len() + axes.len();
        let axes = axes_of(&axes, rank)?;
        let mut rest = shape.iter();
        let result =
            (0..rank).map(|axis| if axes.contains(&axis) { 1 } else { rest.next().copied().unwrap_or(1) }).collect();
        Ok(vec![Fact::new(inputs.element(0)?, result)])
    }

    fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        Ok(vec![arguments.get(0)?.reshaped(output_shape(outputs, 0)?)?])
    }
}

/// Another order of axes; reversed where none is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transpose {
    /// Axis of the input for each axis of the result; empty to reverse.
    pub order: Vec<usize>,
}

impl Transpose {
    fn order(&self, rank: usize) -> Result<Vec<usize>, OperatorError> {
        if self.order.is_empty() {
            return Ok((0..rank).rev().collect());
        }
        let axes: Vec<i64> = self.order.iter().map(|&axis| axis as i64).collect();
        if axes.len() != rank {
            return Err(OperatorError::attribute("perm", format!("{rank} axes"), format!("{axes:?}")));
        }
        axes_of(&axes, rank)
    }
}

impl Behaviour for Transpose {
    fn name(&self) -> &'static str {
        "Transpose"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "Transpose" {
            return Ok(None);
        }
        Ok(Some(Self { order: source.counts("perm", 0)? }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        target.counts("perm", &self.order);
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        let shape = inputs.shape(0)?;
        let order = self.order(shape.len())?;
        Ok(vec![Fact::new(inputs.element(0)?, order.into_iter().map(|axis| shape[axis]).collect())])
    }

    fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let value = arguments.get(0)?;
        let order = self.order(value.shape().len())?;
        Ok(vec![match value {
            Value::Device(tensor, element) if !order.is_empty() => {
                Value::Device(tensor.clone().permuted(&order), *element)
            }
            Value::Device(..) => value.clone(),
            Value::Host(tensor) => {
                let own = strides(tensor.shape());
                let steps: Vec<isize> = order.iter().map(|&axis| own[axis] as isize).collect();
                let shape = output_shape(outputs, 0)?;
                Value::host(tensor.pick(shape, positions(shape, &steps, 0).into_iter()))
            }
        }])
    }
}

/// Joins tensors along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concat {
    /// The axis; negative counts from the end.
    pub axis: i64,
}

impl Behaviour for Concat {
    fn name(&self) -> &'static str {
        "Concat"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "Concat" {
            return Ok(None);
        }
        let axis = source.integer("axis")?.ok_or_else(|| OperatorError::attribute("axis", "given", "none"))?;
        Ok(Some(Self { axis }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        target.integer("axis", self.axis);
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        let shapes = inputs.shapes()?;
        let first = *shapes.first().ok_or_else(|| OperatorError::mismatch("number of inputs", "at least 1", 0))?;
        let axis = axis_of(self.axis, first.len())?;
        let mut result = first.to_vec();
        for (position, shape) in shapes.iter().enumerate().skip(1) {
            let fits = shape.len() == first.len()
                && (0..first.len()).all(|other| other == axis || shape[other] == first[other]);
            if !fits || inputs.element(position)? != inputs.element(0)? {
                return Err(OperatorError::mismatch(
                    format!("input {position}"),
                    format!("{} of shape {first:?} but for axis {axis}", inputs.element(0)?),
                    format!("{} of shape {shape:?}", inputs.element(position)?),
                ));
            }
            result[axis] = result[axis].saturating_add(shape[axis]);
        }
        elements(&result)?;
        Ok(vec![Fact::new(inputs.element(0)?, result)])
    }

    fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let shape = output_shape(outputs, 0)?;
        let axis = axis_of(self.axis, shape.len())?;
        let element = arguments.get(0)?.element();
        let parts = || (0..arguments.values.len()).map(|position| arguments.get(position));
        if element.is_float() {
            let parts: Vec<DeviceTensor> = parts()
                .map(|part| part.map(|part| part.to_device(arguments.device)))
                .filter(|part| part.as_ref().map_or(true, |part| part.shape()[axis] > 0))
                .collect::<Result<_, _>>()?;
            let joined = if parts.is_empty() { arguments.tensor(0)? } else { DeviceTensor::concatenated(parts, axis) };
            return Ok(vec![Value::Device(joined, element)]);
        }
        let outer: usize = shape[..axis].iter().product();
        let tensors: Vec<Arc<Tensor>> = parts().map(|part| part?.to_host()).collect::<Result<_, _>>()?;
        let mut values = Vec::with_capacity(elements(shape)?);
        for row in 0..outer {
            for tensor in &tensors {
                let width = tensor.len() / outer.max(1);
                values.extend_from_slice(&tensor.to_i64()[row * width..(row + 1) * width]);
            }
        }
        Ok(vec![Value::host(Tensor::new(shape, ElementType::I64, Data::Integer(values))?.cast(element))])
    }
}

/// Cuts along an axis: into the lengths of the second input, or into equal parts (the last may be shorter).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// The axis; negative counts from the end.
    pub axis: i64,
    /// Whether opset 18's attribute `num_outputs` is written.
    pub counted: bool,
}

impl Split {
    fn lengths(wanted: Option<Vec<i64>>, side: usize, parts: usize) -> Result<Vec<usize>, OperatorError> {
        if let Some(wanted) = wanted {
            let lengths = sides(&wanted)?;
            if lengths.iter().sum::<usize>() != side || lengths.len() != parts {
                return Err(OperatorError::mismatch(
                    "lengths of the parts",
                    format!("{parts} that add up to {side}"),
                    format!("{wanted:?}"),
                ));
            }
            return Ok(lengths);
        }
        let length = side.div_ceil(parts.max(1));
        let lengths: Vec<usize> = (0..parts).map(|part| length.min(side.saturating_sub(part * length))).collect();
        Ok(lengths)
    }
}

impl Behaviour for Split {
    fn name(&self) -> &'static str {
        "Split"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "Split" {
            return Ok(None);
        }
        source.integers_to_input("split", 1)?;
        let counted = source.integer("num_outputs")?.is_some();
        Ok(Some(Self { axis: source.integer_or("axis", 0)?, counted }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        target.integer("axis", self.axis);
        if self.counted && target.opset >= 18 {
            target.integer("num_outputs", target.outputs as i64);
        }
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        let shape = inputs.shape(0)?;
        let axis = axis_of(self.axis, shape.len())?;
        let element = inputs.element(0)?;
        let lengths = Self::lengths(inputs.optional_integers(1)?, shape[axis], inputs.outputs)?;
        let facts = lengths.into_iter().map(|length| {
            let mut part = shape.to_vec();
            part[axis] = length;
            Fact::new(element, part)
        });
        Ok(facts.collect())
    }

    fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let value = arguments.get(0)?;
        let axis = axis_of(self.axis, value.shape().len())?;
        let mut start = 0;
        let mut parts = Vec::with_capacity(outputs.len());
        for position in 0..outputs.len() {
            let end = start + output_shape(outputs, position)?[axis];
            parts.push(value.narrowed(axis, start, end));
            start = end;
        }
        Ok(parts)
    }

    fn least_opset(&self) -> i64 {
        if self.counted { 18 } else { 1 }
    }
}

/// Parts of a tensor. Inputs: data, starts, ends, axes (all if absent), steps (1 if absent).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice;

/// First element, number of elements and step of a slice along one axis.
struct Cut {
    axis: usize,
    start: usize,
    count: usize,
    step: i64,
}

impl Slice {
    fn cuts(
        shape: &[usize],
        starts: &[i64],
        ends: &[i64],
        axes: Option<Vec<i64>>,
        steps: Option<Vec<i64>>,
    ) -> Result<Vec<Cut>, OperatorError> {
        let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
        let axes = axes_of(&axes, shape.len())?;
        if ends.len() != starts.len() || axes.len() != starts.len() || steps.len() != starts.len() {
            return Err(OperatorError::mismatch(
                "ends, axes and steps",
                format!("{} of each, as there are starts", starts.len()),
                format!("{}, {} and {}", ends.len(), axes.len(), steps.len()),
            ));
        }
        let mut cuts = Vec::with_capacity(axes.len());
        for (index, &axis) in axes.iter().enumerate() {
            let (side, step) = (shape[axis] as i64, steps[index]);
            if step == 0 || step == i64::MIN {
                return Err(OperatorError::mismatch("step of a slice", "not 0", step));
            }
            let from_end = |value: i64| if value < 0 { value.saturating_add(side) } else { value };
            let (start, end) = (from_end(starts[index]), from_end(ends[index]));
            let (start, count) = if step > 0 {
                let (start, end) = (start.clamp(0, side), end.clamp(0, side));
                (start, (end - start).max(0).cast_unsigned().div_ceil(step.cast_unsigned()))
            } else {
                let (start, end) = (start.clamp(-1, side - 1), end.clamp(-1, side - 1));
                (start, (start - end).max(0).cast_unsigned().div_ceil(step.unsigned_abs()))
            };
            cuts.push(Cut { axis, start: start.max(0) as usize, count: count as usize, step });
        }
        Ok(cuts)
    }
}

impl Behaviour for Slice {
    fn name(&self) -> &'static str {
        "Slice"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "Slice" {
            return Ok(None);
        }
        for (position, name) in [(1, "starts"), (2, "ends"), (3, "axes")] {
            source.integers_to_input(name, position)?;
        }
        Ok(Some(Self))
    }

    fn write(&self, _target: &mut Target<'_>) -> Result<(), OperatorError> {
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        let mut shape = inputs.shape(0)?.to_vec();
        let cuts = Self::cuts(
            &shape,
            &inputs.integers(1)?,
            &inputs.integers(2)?,
            inputs.optional_integers(3)?,
            inputs.optional_integers(4)?,
        )?;
        for cut in cuts {
            shape[cut.axis] = cut.count;
        }
        Ok(vec![Fact::new(inputs.element(0)?, shape)])
    }

    fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let mut value = arguments.get(0)?.clone();
        let shape = value.shape();
        let out = output_shape(outputs, 0)?;
        let cuts = Self::cuts(
            &shape,
            &arguments.integers(1)?,
            &arguments.integers(2)?,
            arguments.optional_integers(3)?,
            arguments.optional_integers(4)?,
        )?;
        if cuts.iter().all(|cut| cut.step == 1) && !out.contains(&0) {
            for cut in cuts {
                value = value.narrowed(cut.axis, cut.start, cut.start + cut.count);
            }
            return Ok(vec![value]);
        }
        let mut steps: Vec<isize> = strides(&shape).into_iter().map(|stride| stride as isize).collect();
        let mut offset = 0;
        for cut in cuts {
            offset += cut.start * steps[cut.axis].unsigned_abs();
            steps[cut.axis] *= cut.step as isize;
        }
        Ok(vec![value.picked(out, &positions(out, &steps, offset))])
    }
}

/// Broadcasts to the shape in the second input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expand;

impl Behaviour for Expand {
    plain!("Expand");

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        let wanted = sides(&inputs.integers(1)?)?;
        Ok(vec![Fact::new(inputs.element(0)?, broadcast(&[inputs.shape(0)?, &wanted])?)])
    }

    fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        Ok(vec![arguments.get(0)?.expanded(output_shape(outputs, 0)?)])
    }

    fn has_weight_at(&self, position: usize, constant: &Tensor) -> bool {
        position == 0 && constant.len() > 1
    }
}

/// Repeats a tensor along each axis as often as the second input says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile;

impl Behaviour for Tile {
    plain!("Tile");

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        let shape = inputs.shape(0)?;
        let repeats = sides(&inputs.integers(1)?)?;
        if repeats.len() != shape.len() {
            return Err(OperatorError::mismatch("number of repeats", shape.len(), repeats.len()));
        }
        let result: Vec<usize> =
            shape.iter().zip(&repeats).map(|(side, repeat)| side.saturating_mul(*repeat)).collect();
        elements(&result)?;
        Ok(vec![Fact::new(inputs.element(0)?, result)])
    }

    fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let value = arguments.get(0)?;
        let shape = value.shape();
        // Each axis becomes (repeats, side), the first with a step of 0.
        let out = output_shape(outputs, 0)?;
        let own = strides(&shape);
        let mut split = Vec::with_capacity(2 * shape.len());
        let mut steps = Vec::with_capacity(2 * shape.len());
        for axis in 0..shape.len() {
            split.extend([out[axis].checked_div(shape[axis]).unwrap_or(0), shape[axis]]);
            steps.extend([0, own[axis] as isize]);
        }
        Ok(vec![value.picked(out, &positions(&split, &steps, 0))])
    }
}

/// The shape of a value, or a part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// First axis; negative counts from the end.
    pub start: i64,
    /// First axis left out; `None` for the end.
    pub end: Option<i64>,
}

impl Behaviour for Shape {
    fn name(&self) -> &'static str {
        "Shape"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "Shape" {
            return Ok(None);
        }
        Ok(Some(Self { start: source.integer_or("start", 0)?, end: source.integer("end")? }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        if self.start != 0 {
            target.integer("start", self.start);
        }
        if let Some(end) = self.end {
            target.integer("end", end);
        }
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        Ok(vec![Fact::known(&Arc::new(self.of(inputs.shape(0)?)))])
    }

    fn forward(&self, arguments: &Arguments<'_>, _outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        Ok(vec![Value::host(self.of(&arguments.get(0)?.shape()))])
    }

    fn derivative(&self) -> Derivative {
        Derivative::None
    }
}

impl Shape {
    fn of(self, shape: &[usize]) -> Tensor {
        let rank = shape.len() as i64;
        let clamped = |axis: i64| (if axis < 0 { axis.saturating_add(rank) } else { axis }).clamp(0, rank) as usize;
        let (start, end) = (clamped(self.start), clamped(self.end.unwrap_or(rank)));
        let part = if start < end { &shape[start..end] } else { &[] };
        Tensor::list(&part.iter().map(|&side| side as i64).collect::<Vec<_>>())
    }
}

/// The number of elements of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size;

impl Behaviour for Size {
    plain!("Size");

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        Ok(vec![Fact::known(&Arc::new(Self::of(inputs.shape(0)?)?))])
    }

    fn forward(&self, arguments: &Arguments<'_>, _outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        Ok(vec![Value::host(Self::of(&arguments.get(0)?.shape())?)])
    }

    fn derivative(&self) -> Derivative {
        Derivative::None
    }
}

impl Size {
    fn of(shape: &[usize]) -> Result<Tensor, OperatorError> {
        Tensor::new(&[], ElementType::I64, Data::Integer(vec![elements(shape)? as i64]))
    }
}

/// A tensor of one value with the shape in the input.
#[derive(Clone, Debug, PartialEq)]
pub struct ConstantOfShape {
    /// The value, a tensor of one element.
    pub value: Tensor,
}

impl Behaviour for ConstantOfShape {
    fn name(&self) -> &'static str {
        "ConstantOfShape"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "ConstantOfShape" {
            return Ok(None);
        }
        let value = source.tensor("value")?.unwrap_or_else(|| Tensor::scalar(0.0));
        if value.len() != 1 {
            return Err(OperatorError::attribute("value", "one element", value.len()));
        }
        Ok(Some(Self { value }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        let value = self.value.clone().reshaped(&[1])?;
        target.tensor("value", &value);
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        let shape = sides(&inputs.integers(0)?)?;
        made(&shape)?;
        Ok(vec![Fact::new(self.value.element(), shape)])
    }

    fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let shape = output_shape(outputs, 0)?;
        let element = self.value.element();
        if element.is_float() {
            let value = DeviceTensor::full(self.value.to_f32()[0], shape, arguments.device);
            return Ok(vec![Value::Device(value, element)]);
        }
        let count = elements(shape)?;
        Ok(vec![Value::host(self.value.pick(shape, std::iter::repeat_n(0, count)))])
    }

    fn derivative(&self) -> Derivative {
        Derivative::None
    }
}

/// Evenly spaced values: start, limit (left out) and step are the inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range;

impl Behaviour for Range {
    plain!("Range");

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        let element = inputs.element(0)?;
        let bound = |position: usize| -> Result<f64, OperatorError> {
            let value = inputs.value(position)?.to_f64();
            value.first().copied().ok_or_else(|| OperatorError::mismatch("a bound", "one value", 0))
        };
        let (start, limit, step) = (bound(0)?, bound(1)?, bound(2)?);
        let count = ((limit - start) / step).ceil();
        if step == 0.0 || !count.is_finite() || count > MOST_MADE as f64 {
            return Err(OperatorError::mismatch("number of values", format!("at most {MOST_MADE}"), count));
        }
        Ok(vec![Fact::new(element, vec![count.max(0.0) as usize])])
    }

    fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let shape = output_shape(outputs, 0)?;
        let (start, step) = (arguments.host(0)?, arguments.host(2)?);
        let element = start.element();
        if element.is_float() {
            let (start, step) = (start.to_f64()[0], step.to_f64()[0]);
            let values = (0..shape[0]).map(|index| (start + index as f64 * step) as f32).collect();
            return Ok(vec![Value::Device(DeviceTensor::new(values, shape, arguments.device), element)]);
        }
        let (start, step) = (start.to_i64()[0], step.to_i64()[0]);
        let values = (0..shape[0]).map(|index| start.wrapping_add(step.wrapping_mul(index as i64))).collect();
        Ok(vec![Value::host(Tensor::integers(shape, element, values)?)])
    }

    fn derivative(&self) -> Derivative {
        Derivative::None
    }
}

fn block_size(source: &mut Source<'_>) -> Result<usize, OperatorError> {
    let size = source.count_or("blocksize", 0)?;
    if (1..1 << 16).contains(&size) {
        Ok(size)
    } else {
        Err(OperatorError::attribute("blocksize", "in 1..65536", size))
    }
}

fn image(inputs: &Facts<'_>) -> Result<[usize; 4], OperatorError> {
    let shape = inputs.shape(0)?;
    <[usize; 4]>::try_from(shape).map_err(|_| {
        OperatorError::mismatch("shape of the input", "[batch, channels, height, width]", format!("{shape:?}"))
    })
}

/// Reshapes, permutes and reshapes again.
fn rearranged(value: &Value, split: &[usize], order: &[usize], out: &[usize]) -> Value {
    match value {
        Value::Device(tensor, element) => {
            Value::Device(tensor.clone().reshaped(split).permuted(order).reshaped(out), *element)
        }
        Value::Host(tensor) => {
            let own = strides(split);
            let shape: Vec<usize> = order.iter().map(|&axis| split[axis]).collect();
            let steps: Vec<isize> = order.iter().map(|&axis| own[axis] as isize).collect();
            Value::host(tensor.pick(out, positions(&shape, &steps, 0).into_iter()))
        }
    }
}

/// Moves channels into space: each pixel becomes a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DepthToSpace {
    /// Side of a block.
    pub block: usize,
    /// Whether the channel is the slowest index (mode `CRD`, PyTorch's pixel shuffle) or the fastest (`DCR`).
    pub channel_first: bool,
}

impl Behaviour for DepthToSpace {
    fn name(&self) -> &'static str {
        "DepthToSpace"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "DepthToSpace" {
            return Ok(None);
        }
        let channel_first = match source.text_or("mode", "DCR")?.as_str() {
            "DCR" => false,
            "CRD" => true,
            other => return Err(OperatorError::attribute("mode", "DCR or CRD", other)),
        };
        Ok(Some(Self { block: block_size(source)?, channel_first }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        target.integer("blocksize", self.block as i64);
        target.text("mode", if self.channel_first { "CRD" } else { "DCR" });
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        let [batch, channels, height, width] = image(inputs)?;
        let area = self.block * self.block;
        if !channels.is_multiple_of(area) {
            return Err(OperatorError::mismatch("channels of the input", format!("a multiple of {area}"), channels));
        }
        let shape = vec![batch, channels / area, height.saturating_mul(self.block), width.saturating_mul(self.block)];
        elements(&shape)?;
        Ok(vec![Fact::new(inputs.element(0)?, shape)])
    }

    fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let out = output_shape(outputs, 0)?;
        let (block, height, width) = (self.block, out[2] / self.block, out[3] / self.block);
        let (split, order) = if self.channel_first {
            ([out[0], out[1], block, block, height, width], [0, 1, 4, 2, 5, 3])
        } else {
            ([out[0], block, block, out[1], height, width], [0, 3, 4, 1, 5, 2])
        };
        Ok(vec![rearranged(arguments.get(0)?, &split, &order, out)])
    }
}

/// Moves space into channels: each block becomes a pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceToDepth {
    /// Side of a block.
    pub block: usize,
}

impl Behaviour for SpaceToDepth {
    fn name(&self) -> &'static str {
        "SpaceToDepth"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "SpaceToDepth" {
            return Ok(None);
        }
        Ok(Some(Self { block: block_size(source)? }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        target.integer("blocksize", self.block as i64);
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        let [batch, channels, height, width] = image(inputs)?;
        let block = self.block;
        if !height.is_multiple_of(block) || !width.is_multiple_of(block) {
            return Err(OperatorError::mismatch(
                "height and width",
                format!("multiples of {block}"),
                format!("{height} and {width}"),
            ));
        }
        Ok(vec![Fact::new(inputs.element(0)?, vec![batch, channels * block * block, height / block, width / block])])
    }

    fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let out = output_shape(outputs, 0)?;
        let block = self.block;
        let split = [out[0], out[1] / (block * block), out[2], block, out[3], block];
        Ok(vec![rearranged(arguments.get(0)?, &split, &[0, 3, 5, 1, 2, 4], out)])
    }
}
