//! Values put at places: `ScatterElements`, `ScatterND`.
//!
//! Updates at the same place are applied in their order. Both the data and the updates have a gradient.

use super::indexing::{element_places, require_integer, tuple_starts};
use super::{Arguments, Behaviour, Fact, Facts, Source, Target, axis_of};
use crate::tensor::Data;
use crate::value::{DeviceTensor, Value};
use crate::{ElementType, OperatorError, Tensor};

/// What happens where an update meets a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScatterReduction {
    /// The update replaces it.
    Replace,
    /// Their sum stays.
    Add,
    /// Their product stays.
    Mul,
    /// The greater stays.
    Max,
    /// The less stays.
    Min,
}

const NAMES: [(ScatterReduction, &str); 5] = [
    (ScatterReduction::Replace, "none"),
    (ScatterReduction::Add, "add"),
    (ScatterReduction::Mul, "mul"),
    (ScatterReduction::Max, "max"),
    (ScatterReduction::Min, "min"),
];

impl ScatterReduction {
    fn read(source: &mut Source<'_>) -> Result<Self, OperatorError> {
        let name = source.text_or("reduction", "none")?;
        let found = NAMES.iter().find(|(_, known)| *known == name).map(|(reduction, _)| *reduction);
        found.ok_or_else(|| OperatorError::attribute("reduction", "none, add, mul, max or min", name))
    }

    fn write(self, target: &mut Target<'_>) {
        if let Some((_, name)) = NAMES.iter().find(|(reduction, _)| *reduction == self)
            && self != Self::Replace
        {
            target.text("reduction", name);
        }
    }

    fn least_opset(self) -> i64 {
        match self {
            Self::Max | Self::Min => 18,
            _ => 1,
        }
    }

    /// `data` with update number `i` applied at flat place `places[i]`.
    fn apply(self, data: &Value, updates: &Value, places: &[usize]) -> Result<Value, OperatorError> {
        let shape = data.shape();
        if let Value::Host(tensor) = data {
            let mut values = tensor.to_i64().into_owned();
            for (&place, &update) in places.iter().zip(updates.to_host()?.to_i64().iter()) {
                let value = &mut values[place];
                *value = match self {
                    Self::Replace => update,
                    Self::Add => value.wrapping_add(update),
                    Self::Mul => value.wrapping_mul(update),
                    Self::Max => update.max(*value),
                    Self::Min => update.min(*value),
                };
            }
            let result = Tensor::new(&shape, ElementType::I64, Data::Integer(values))?;
            return Ok(Value::host(result.cast(tensor.element())));
        }
        let (Value::Device(data, element), Value::Device(updates, _)) = (data, updates) else {
            return Err(OperatorError::mismatch("updates", "the kind of the data", "another kind"));
        };
        let updates = updates.clone().reshaped(&[places.len()]);
        let mut result = data.clone();
        if self == Self::Add {
            result = result.scatter_added(places, updates);
        } else if self == Self::Replace {
            let numbers: Vec<usize> = (0..places.len()).collect();
            result = replaced(result, updates, places, &numbers);
        } else {
            // Each round applies updates at different places.
            for round in rounds(places) {
                let here: Vec<usize> = round.iter().map(|&number| places[number]).collect();
                let old = result.clone().picked(&[here.len()], &here);
                let new = updates.clone().picked(&[here.len()], &round);
                let joined = match self {
                    Self::Max => old.replaced(&old.below(&new), &new),
                    Self::Min => old.replaced(&new.below(&old), &new),
                    _ => old.mul(&new),
                };
                let numbers: Vec<usize> = (0..here.len()).collect();
                result = replaced(result, joined, &here, &numbers);
            }
        }
        Ok(Value::Device(result.reshaped(&shape), *element))
    }
}

/// Numbers of updates in groups without two at the same place, earlier ones first.
fn rounds(places: &[usize]) -> Vec<Vec<usize>> {
    let mut seen: std::collections::HashMap<usize, usize> = std::collections::HashMap::new();
    let mut rounds: Vec<Vec<usize>> = Vec::new();
    for (number, place) in places.iter().enumerate() {
        let round = seen.entry(*place).and_modify(|round| *round += 1).or_insert(0);
        if rounds.len() <= *round {
            rounds.push(Vec::new());
        }
        rounds[*round].push(number);
    }
    rounds
}

/// `data` (flat) with `updates[numbers[i]]` at `places[i]`; the last of several at one place stays.
fn replaced(data: DeviceTensor, updates: DeviceTensor, places: &[usize], numbers: &[usize]) -> DeviceTensor {
    let count = data.len();
    let mut source: Vec<usize> = (0..count).collect();
    for (&place, &number) in places.iter().zip(numbers) {
        source[place] = count + number;
    }
    DeviceTensor::concatenated(vec![data.reshaped(&[count]), updates], 0).picked(&[count], &source)
}

fn check_elements(inputs: &Facts<'_>) -> Result<(), OperatorError> {
    require_integer(inputs, 1)?;
    let element = inputs.element(0)?;
    if element == ElementType::Bool || inputs.element(2)? != element {
        return Err(OperatorError::mismatch(
            "element types of data and updates",
            "the same number type",
            inputs.element(2)?,
        ));
    }
    Ok(())
}

/// Puts the elements of the third input along an axis where the second input says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScatterElements {
    /// The axis; negative counts from the end.
    pub axis: i64,
    /// What happens where an update meets a value.
    pub reduction: ScatterReduction,
}

impl Behaviour for ScatterElements {
    fn name(&self) -> &'static str {
        "ScatterElements"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        // `Scatter` is the name before opset 11.
        if !matches!(source.operator, "ScatterElements" | "Scatter") {
            return Ok(None);
        }
        Ok(Some(Self { axis: source.integer_or("axis", 0)?, reduction: ScatterReduction::read(source)? }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        target.integer("axis", self.axis);
        self.reduction.write(target);
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        check_elements(inputs)?;
        let (shape, indices) = (inputs.shape(0)?, inputs.shape(1)?);
        let axis = axis_of(self.axis, shape.len())?;
        let within = indices.len() == shape.len()
            && (0..shape.len()).all(|other| other == axis || indices[other] <= shape[other]);
        if !within || inputs.shape(2)? != indices {
            return Err(OperatorError::mismatch(
                "shapes of indices and updates",
                format!("the same, within {shape:?} but for axis {axis}"),
                format!("{indices:?} and {:?}", inputs.shape(2)?),
            ));
        }
        Ok(vec![Fact::new(inputs.element(0)?, shape.to_vec())])
    }

    fn forward(&self, arguments: &Arguments<'_>, _outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let data = arguments.get(0)?;
        let shape = data.shape();
        let indices = arguments.host(1)?;
        let axis = axis_of(self.axis, shape.len())?;
        let places = element_places(&shape, indices.shape(), axis, &indices.to_i64())?;
        Ok(vec![self.reduction.apply(data, arguments.get(2)?, &places)?])
    }

    fn least_opset(&self) -> i64 {
        self.reduction.least_opset()
    }
}

/// Puts slices of the third input where the index tuples of the second say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScatterNd {
    /// What happens where an update meets a value.
    pub reduction: ScatterReduction,
}

impl Behaviour for ScatterNd {
    fn name(&self) -> &'static str {
        "ScatterND"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "ScatterND" {
            return Ok(None);
        }
        Ok(Some(Self { reduction: ScatterReduction::read(source)? }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        self.reduction.write(target);
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        check_elements(inputs)?;
        let (shape, indices) = (inputs.shape(0)?, inputs.shape(1)?);
        let length = indices.last().copied().unwrap_or(0);
        let fits = length <= shape.len() && !indices.is_empty() && {
            let mut updates = indices[..indices.len() - 1].to_vec();
            updates.extend(&shape[length..]);
            inputs.shape(2)? == updates
        };
        if !fits {
            return Err(OperatorError::mismatch(
                "shapes of indices and updates",
                format!("tuples into {shape:?} and a slice for each"),
                format!("{indices:?} and {:?}", inputs.shape(2)?),
            ));
        }
        Ok(vec![Fact::new(inputs.element(0)?, shape.to_vec())])
    }

    fn forward(&self, arguments: &Arguments<'_>, _outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let data = arguments.get(0)?;
        let shape = data.shape();
        let indices = arguments.host(1)?;
        let length = indices.shape().last().copied().unwrap_or(0);
        let inner: usize = shape[length..].iter().product();
        let starts = tuple_starts(&shape, length, &indices.to_i64())?;
        let places: Vec<usize> = starts.into_iter().flat_map(|start| start..start + inner).collect();
        Ok(vec![self.reduction.apply(data, arguments.get(2)?, &places)?])
    }

    fn least_opset(&self) -> i64 {
        self.reduction.least_opset()
    }
}
