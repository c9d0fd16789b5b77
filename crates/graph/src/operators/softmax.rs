//! Softmax and its logarithm.

use super::{Arguments, Behaviour, Fact, Facts, Source, Target, axis_of};
use crate::OperatorError;
use crate::value::Value;

/// Softmax along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Softmax {
    /// The axis; negative counts from the end.
    pub axis: i64,
    /// Whether the logarithm is meant (`LogSoftmax`).
    pub logarithm: bool,
    /// Whether the meaning before opset 13 holds: all axes from `axis` on are one.
    pub joined: bool,
}

impl Softmax {
    /// Softmax along the last axis.
    pub const LAST: Self = Self { axis: -1, logarithm: false, joined: false };
}

impl Behaviour for Softmax {
    fn name(&self) -> &'static str {
        if self.logarithm { "LogSoftmax" } else { "Softmax" }
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        let logarithm = match source.operator {
            "Softmax" => false,
            "LogSoftmax" => true,
            _ => return Ok(None),
        };
        let joined = source.opset < 13;
        let axis = source.integer_or("axis", if joined { 1 } else { -1 })?;
        // Joining only the last axis joins nothing.
        Ok(Some(Self { axis, logarithm, joined: joined && axis != -1 }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        target.integer("axis", self.axis);
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        inputs.require_float(0)?;
        let shape = inputs.shape(0)?;
        axis_of(self.axis, shape.len())?;
        Ok(vec![Fact::new(inputs.element(0)?, shape.to_vec())])
    }

    fn forward(&self, arguments: &Arguments<'_>, _outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let x = arguments.tensor(0)?;
        let shape = x.shape();
        let mut axis = axis_of(self.axis, shape.len())?;
        let mut x = x;
        if self.joined {
            let rows = shape[..axis].iter().product();
            x = x.reshaped(&[rows, shape[axis..].iter().product()]);
            axis = 1;
        }
        let y = if self.logarithm { x.log_softmax(axis) } else { x.softmax(axis) };
        Ok(vec![Value::Device(y.reshaped(&shape), arguments.get(0)?.element())])
    }
}
