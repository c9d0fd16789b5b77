//! Borders around a tensor.

use super::{Arguments, Behaviour, Fact, Facts, Source, Target, axes_of, output_shape};
use crate::tensor::{elements, strides};
use crate::value::Value;
use crate::{OperatorError, Tensor};

/// What fills a border.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PadMode {
    /// One value: the third input, or 0.
    Constant,
    /// The nearest element.
    Edge,
    /// The elements mirrored at the outermost one.
    Reflect,
    /// The elements from the other side.
    Wrap,
}

const NAMES: [(PadMode, &str); 4] =
    [(PadMode::Constant, "constant"), (PadMode::Edge, "edge"), (PadMode::Reflect, "reflect"), (PadMode::Wrap, "wrap")];

/// Borders around a tensor. Inputs: data, pads (all before, then all after; negative ones cut), value, axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pad {
    /// What fills the border.
    pub mode: PadMode,
}

impl Pad {
    /// Elements before and after each axis.
    fn borders(pads: &[i64], axes: Option<Vec<i64>>, rank: usize) -> Result<Vec<(i64, i64)>, OperatorError> {
        let axes = match axes {
            Some(axes) => axes_of(&axes, rank)?,
            None => (0..rank).collect(),
        };
        if pads.len() != 2 * axes.len() {
            return Err(OperatorError::mismatch("number of pads", 2 * axes.len(), pads.len()));
        }
        if pads.iter().any(|pad| pad.unsigned_abs() > 1 << 31) {
            return Err(OperatorError::mismatch("pads", "below 2^31", format!("{pads:?}")));
        }
        let mut borders = vec![(0, 0); rank];
        for (index, &axis) in axes.iter().enumerate() {
            borders[axis] = (pads[index], pads[axes.len() + index]);
        }
        Ok(borders)
    }

    /// The input element that stands at `place` of a padded axis; `None` for the constant.
    fn source(self, place: i64, side: i64) -> Option<i64> {
        match self.mode {
            _ if (0..side).contains(&place) => Some(place),
            PadMode::Constant => None,
            PadMode::Edge => Some(place.clamp(0, side - 1)),
            PadMode::Wrap => Some(place.rem_euclid(side)),
            PadMode::Reflect if side == 1 => Some(0),
            PadMode::Reflect => {
                let period = 2 * (side - 1);
                let folded = place.rem_euclid(period);
                Some(if folded < side { folded } else { period - folded })
            }
        }
    }
}

impl Behaviour for Pad {
    fn name(&self) -> &'static str {
        "Pad"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "Pad" {
            return Ok(None);
        }
        let name = source.text_or("mode", "constant")?;
        let mode = NAMES.iter().find(|(_, known)| *known == name).map(|(mode, _)| *mode);
        let mode = mode.ok_or_else(|| OperatorError::attribute("mode", "constant, edge, reflect or wrap", name))?;
        source.integers_to_input("pads", 1)?;
        if source.opset < 11 {
            let value = source.float_or("value", 0.0)?;
            source.new_inputs.push((2, Tensor::scalar(value)));
        }
        Ok(Some(Self { mode }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        if let Some((_, name)) = NAMES.iter().find(|(mode, _)| *mode == self.mode) {
            target.text("mode", name);
        }
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        let shape = inputs.shape(0)?;
        let borders = Self::borders(&inputs.integers(1)?, inputs.optional_integers(3)?, shape.len())?;
        let mut result = Vec::with_capacity(shape.len());
        for (axis, &(before, after)) in borders.iter().enumerate() {
            let side = shape[axis] as i64 + before + after;
            let empty = shape[axis] == 0 && self.mode != PadMode::Constant;
            if side < 0 || (empty && side > 0) {
                return Err(OperatorError::mismatch(
                    format!("padded side of axis {axis}"),
                    "at least 0, and something to repeat",
                    side,
                ));
            }
            result.push(side as usize);
        }
        elements(&result)?;
        Ok(vec![Fact::new(inputs.element(0)?, result)])
    }

    fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let value = arguments.get(0)?;
        let shape = value.shape();
        let out = output_shape(outputs, 0)?;
        let borders = Self::borders(&arguments.integers(1)?, arguments.optional_integers(3)?, shape.len())?;
        let fill = match arguments.optional(2) {
            Some(fill) => fill.to_host()?,
            None => std::sync::Arc::new(Tensor::scalar(0.0)),
        };
        if let Value::Device(tensor, element) = value
            && self.mode == PadMode::Constant
            && borders.iter().all(|&(before, after)| before >= 0 && after >= 0)
        {
            let borders: Vec<(usize, usize)> =
                borders.iter().map(|&(before, after)| (before as usize, after as usize)).collect();
            let fill = fill.to_f32().first().copied().unwrap_or(0.0);
            return Ok(vec![Value::Device(tensor.clone().padded(&borders, fill), *element)]);
        }
        // The general case: the constant stands behind the data, and every place picks its source.
        let total = elements(&shape)?;
        let own = strides(&shape);
        let mut places: Vec<Option<usize>> = vec![Some(0)];
        for (axis, &(before, _)) in borders.iter().enumerate() {
            let along: Vec<Option<usize>> = (0..out[axis] as i64)
                .map(|place| self.source(place - before, shape[axis] as i64).map(|source| source as usize * own[axis]))
                .collect();
            places =
                places.iter().flat_map(|outer| along.iter().map(move |inner| Some((*outer)? + (*inner)?))).collect();
        }
        let places: Vec<usize> = places.into_iter().map(|place| place.unwrap_or(total)).collect();
        let flat = value.reshaped(&[total])?;
        let with_fill = match flat {
            Value::Device(tensor, element) => {
                let fill = fill.to_f32().first().copied().unwrap_or(0.0);
                Value::Device(tensor.padded(&[(0, 1)], fill), element)
            }
            Value::Host(tensor) => {
                let mut values = tensor.to_i64().into_owned();
                values.push(fill.to_i64().first().copied().unwrap_or(0));
                let joined = Tensor::new(&[total + 1], crate::ElementType::I64, crate::tensor::Data::Integer(values))?;
                Value::host(joined.cast(tensor.element()))
            }
        };
        Ok(vec![with_fill.picked(out, &places)])
    }
}
