//! Comparisons, logic and choice by a mask. Truth values live on the host; no gradient passes a comparison.

use super::{Arguments, Behaviour, Derivative, Fact, Facts, Source, Target, output_shape};
use crate::tensor::{Data, broadcast, broadcast_strides, positions};
use crate::value::{Mask, Value};
use crate::{ElementType, OperatorError, Tensor};

/// A comparison or a logical function of two values, by its ONNX name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each name is the function")]
pub enum Comparison {
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    And,
    Or,
    Xor,
}

const NAMES: [(Comparison, &str); 8] = [
    (Comparison::Equal, "Equal"),
    (Comparison::Greater, "Greater"),
    (Comparison::GreaterOrEqual, "GreaterOrEqual"),
    (Comparison::Less, "Less"),
    (Comparison::LessOrEqual, "LessOrEqual"),
    (Comparison::And, "And"),
    (Comparison::Or, "Or"),
    (Comparison::Xor, "Xor"),
];

impl Behaviour for Comparison {
    fn name(&self) -> &'static str {
        NAMES.iter().find(|(function, _)| function == self).map_or("", |(_, name)| name)
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        Ok(NAMES.iter().find(|(_, name)| *name == source.operator).map(|(function, _)| *function))
    }

    fn write(&self, _target: &mut Target<'_>) -> Result<(), OperatorError> {
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        let (left, right) = (inputs.element(0)?, inputs.element(1)?);
        let logical = matches!(self, Self::And | Self::Or | Self::Xor);
        if left != right || (logical && left != ElementType::Bool) {
            let expected = if logical { "bool".to_owned() } else { format!("both {left}") };
            return Err(OperatorError::mismatch("element types of the inputs", expected, right));
        }
        Ok(vec![Fact::new(ElementType::Bool, broadcast(&[inputs.shape(0)?, inputs.shape(1)?])?)])
    }

    fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let shape = output_shape(outputs, 0)?;
        let (left, right) = (arguments.host(0)?, arguments.host(1)?);
        let left_positions = positions(shape, &broadcast_strides(left.shape(), shape), 0);
        let right_positions = positions(shape, &broadcast_strides(right.shape(), shape), 0);
        let pairs = left_positions.into_iter().zip(right_positions);
        let values: Vec<bool> = match (left.data(), right.data()) {
            (Data::Bool(a), Data::Bool(b)) => pairs.map(|(i, j)| self.of_truth(a[i], b[j])).collect(),
            (Data::Integer(a), Data::Integer(b)) => pairs.map(|(i, j)| self.of(&a[i], &b[j])).collect(),
            _ => {
                let (a, b) = (left.to_f64(), right.to_f64());
                pairs.map(|(i, j)| self.of(&a[i], &b[j])).collect()
            }
        };
        Ok(vec![Value::host(Tensor::booleans(shape, values)?)])
    }

    fn derivative(&self) -> Derivative {
        Derivative::None
    }
}

impl Comparison {
    fn of<T: PartialOrd>(self, left: &T, right: &T) -> bool {
        match self {
            Self::Equal => left == right,
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::And | Self::Or | Self::Xor => false,
        }
    }

    fn of_truth(self, left: bool, right: bool) -> bool {
        match self {
            Self::And => left && right,
            Self::Or => left || right,
            Self::Xor => left != right,
            _ => self.of(&left, &right),
        }
    }
}

/// The second input where the first is true, else the third.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Where;

impl Behaviour for Where {
    fn name(&self) -> &'static str {
        "Where"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        Ok((source.operator == "Where").then_some(Self))
    }

    fn write(&self, _target: &mut Target<'_>) -> Result<(), OperatorError> {
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        if inputs.element(0)? != ElementType::Bool {
            return Err(OperatorError::mismatch("element type of the mask", "bool", inputs.element(0)?));
        }
        let element = inputs.element(1)?;
        if inputs.element(2)? != element {
            return Err(OperatorError::mismatch(
                "element types of the choices",
                format!("both {element}"),
                inputs.element(2)?,
            ));
        }
        Ok(vec![Fact::new(element, broadcast(&[inputs.shape(0)?, inputs.shape(1)?, inputs.shape(2)?])?)])
    }

    fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let shape = output_shape(outputs, 0)?;
        let mask = arguments.host(0)?;
        let mask = mask.pick(shape, positions(shape, &broadcast_strides(mask.shape(), shape), 0).into_iter());
        let element = arguments.get(1)?.element();
        if !element.is_float() {
            let (yes, no) = (arguments.host(1)?, arguments.host(2)?);
            let yes = yes.pick(shape, positions(shape, &broadcast_strides(yes.shape(), shape), 0).into_iter());
            let no = no.pick(shape, positions(shape, &broadcast_strides(no.shape(), shape), 0).into_iter());
            let choices = mask.to_bool();
            let values: Vec<i64> = choices
                .iter()
                .zip(yes.to_i64().iter().zip(no.to_i64().iter()))
                .map(|(&c, (&y, &n))| if c { y } else { n })
                .collect();
            let tensor = Tensor::new(shape, ElementType::I64, Data::Integer(values))?.cast(element);
            return Ok(vec![Value::host(tensor)]);
        }
        let yes = arguments.tensor(1)?.expanded(shape);
        let no = arguments.tensor(2)?.expanded(shape);
        let mask = Mask::new(mask.to_bool().into_owned(), shape, arguments.device);
        Ok(vec![Value::Device(no.replaced(&mask, &yes), element)])
    }

    /// A choice of one value is a constant of a formula, such as the -∞ of a mask; a choice of many is a masked weight.
    fn has_weight_at(&self, position: usize, constant: &Tensor) -> bool {
        position > 0 && constant.len() > 1
    }
}
