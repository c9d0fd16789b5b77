//! Normalisations.

use super::convolution::with_channels;
use super::{Arguments, Behaviour, Fact, Facts, Source, Target, axes_of, axis_of};
use crate::tensor::broadcast;
use crate::value::{DeviceTensor, Geometry, Value};
use crate::{OperatorError, Tensor};

/// Normalisation of each channel by running statistics: `scale · (x - mean) / √(variance + epsilon) + shift`.
///
/// Inputs: x, scale, shift, mean, variance. While a network is trained the statistics of the batch take the place of the
/// running ones (unless they are frozen), and the running ones follow them:
/// `running = momentum · running + (1 - momentum) · batch`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchNormalization {
    /// Added to the variance.
    pub epsilon: f32,
    /// Part of the running statistics that stays in each training step.
    pub momentum: f32,
}

impl Default for BatchNormalization {
    /// The defaults of ONNX.
    fn default() -> Self {
        Self { epsilon: 1e-5, momentum: 0.9 }
    }
}

impl BatchNormalization {
    /// Position of the running mean among the inputs; the variance follows.
    pub(crate) const MEAN: usize = 3;

    /// Normalises by the statistics of this batch and returns them: the mean and the unbiased variance per channel.
    pub(crate) fn forward_training(
        self,
        arguments: &Arguments<'_>,
    ) -> Result<(Value, DeviceTensor, DeviceTensor), OperatorError> {
        let x = arguments.tensor(0)?;
        let shape = x.shape();
        let count = (x.len() / shape[1]) as f32;
        let (y, mean, variance) =
            x.batch_normalised(arguments.tensor(1)?, arguments.tensor(2)?, f64::from(self.epsilon));
        let unbiased = variance.mul_scalar(count / (count - 1.0).max(1.0));
        Ok((Value::Device(y, arguments.get(0)?.element()), mean.detached(), unbiased.detached()))
    }
}

impl Behaviour for BatchNormalization {
    fn name(&self) -> &'static str {
        "BatchNormalization"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "BatchNormalization" {
            return Ok(None);
        }
        if source.integer_or("spatial", 1)? != 1 {
            return Err(OperatorError::unsupported("batch normalisation per element (`spatial` = 0)"));
        }
        if source.integer_or("training_mode", 0)? != 0 {
            return Err(OperatorError::unsupported("a model exported in training mode; export it in evaluation mode"));
        }
        source.ignore(&["is_test", "consumed_inputs"]);
        Ok(Some(Self { epsilon: source.float_or("epsilon", 1e-5)?, momentum: source.float_or("momentum", 0.9)? }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        target.float("epsilon", self.epsilon);
        target.float("momentum", self.momentum);
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        inputs.require_float(0)?;
        let shape = inputs.shape(0)?;
        if shape.len() < 2 {
            return Err(OperatorError::mismatch("shape of the input", "[batch, channels, ...]", format!("{shape:?}")));
        }
        for position in 1..5 {
            if inputs.shape(position)? != [shape[1]] {
                return Err(OperatorError::mismatch(
                    format!("shape of input {position}"),
                    format!("[{}]", shape[1]),
                    format!("{:?}", inputs.shape(position)?),
                ));
            }
        }
        Ok(vec![Fact::new(inputs.element(0)?, shape.to_vec())])
    }

    fn forward(&self, arguments: &Arguments<'_>, _outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let x = arguments.tensor(0)?;
        let mut shape = vec![1; x.rank()];
        shape[1] = x.shape()[1];
        let factor = arguments.tensor(1)?.div(&arguments.tensor(4)?.add_scalar(self.epsilon).sqrt());
        let shift = arguments.tensor(2)?.sub(&arguments.tensor(3)?.mul(&factor));
        let y = x.mul(&factor.reshaped(&shape)).add(&shift.reshaped(&shape));
        Ok(vec![Value::Device(y, arguments.get(0)?.element())])
    }

    fn has_weight_at(&self, position: usize, _constant: &Tensor) -> bool {
        position == 1 || position == 2
    }
}

/// Normalisation of each channel of each sample by its own mean and variance. Inputs: x, scale, shift (one a channel).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InstanceNormalization {
    /// Added to the variance.
    pub epsilon: f32,
}

impl Behaviour for InstanceNormalization {
    fn name(&self) -> &'static str {
        "InstanceNormalization"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "InstanceNormalization" {
            return Ok(None);
        }
        Ok(Some(Self { epsilon: source.float_or("epsilon", 1e-5)? }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        target.float("epsilon", self.epsilon);
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        let shape = channels_and_space(inputs)?;
        for position in [1, 2] {
            if inputs.shape(position)? != [shape[1]] {
                return Err(OperatorError::mismatch(
                    "shape of scale and shift",
                    format!("[{}]", shape[1]),
                    format!("{:?}", inputs.shape(position)?),
                ));
            }
        }
        Ok(vec![Fact::new(inputs.element(0)?, shape)])
    }

    fn forward(&self, arguments: &Arguments<'_>, _outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let x = arguments.tensor(0)?;
        let shape = x.shape();
        let mut channels = vec![1; shape.len()];
        channels[1] = shape[1];
        let rows = x.reshaped(&[shape[0] * shape[1], shape[2..].iter().product()]);
        let normal = standardised(&rows, &[1], self.epsilon).0.reshaped(&shape);
        let y = normal.mul(&arguments.tensor(1)?.reshaped(&channels)).add(&arguments.tensor(2)?.reshaped(&channels));
        Ok(vec![Value::Device(y, arguments.get(0)?.element())])
    }

    fn has_weight_at(&self, position: usize, _constant: &Tensor) -> bool {
        position > 0
    }
}

fn channels_and_space(inputs: &Facts<'_>) -> Result<Vec<usize>, OperatorError> {
    inputs.require_float(0)?;
    let shape = inputs.shape(0)?;
    if shape.len() < 3 || shape.contains(&0) {
        return Err(OperatorError::mismatch(
            "shape of the input",
            "[batch, channels, space...], not empty",
            format!("{shape:?}"),
        ));
    }
    Ok(shape.to_vec())
}

/// `(x - mean) / √(variance + epsilon)` over the given axes; also the mean and the inverse deviation.
fn standardised(x: &DeviceTensor, axes: &[usize], epsilon: f32) -> (DeviceTensor, DeviceTensor, DeviceTensor) {
    let mean = x.clone().mean(axes);
    let centred = x.sub(&mean);
    let inverse = centred.mul(&centred).mean(axes).add_scalar(epsilon).sqrt().recip();
    (centred.mul(&inverse), mean, inverse)
}

/// Normalisation over groups of channels of each sample. Inputs: x, scale, shift.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupNormalization {
    /// Number of groups.
    pub groups: usize,
    /// Added to the variance.
    pub epsilon: f32,
    /// Whether scale and shift have one value a channel (opset 21) or one a group (opset 18).
    pub per_channel: bool,
}

impl Behaviour for GroupNormalization {
    fn name(&self) -> &'static str {
        "GroupNormalization"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "GroupNormalization" {
            return Ok(None);
        }
        source.ignore(&["stash_type"]);
        Ok(Some(Self {
            groups: source.count_or("num_groups", 0)?,
            epsilon: source.float_or("epsilon", 1e-5)?,
            per_channel: source.opset >= 21,
        }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        if !self.per_channel && target.opset >= 21 {
            return Err(OperatorError::unsupported("group normalisation with one scale a group in opset 21 or newer"));
        }
        target.integer("num_groups", self.groups as i64);
        target.float("epsilon", self.epsilon);
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        let shape = channels_and_space(inputs)?;
        if self.groups == 0 || !shape[1].is_multiple_of(self.groups) {
            return Err(OperatorError::attribute(
                "num_groups",
                format!("a divisor of {} channels", shape[1]),
                self.groups,
            ));
        }
        let wanted = if self.per_channel { shape[1] } else { self.groups };
        for position in [1, 2] {
            if inputs.shape(position)? != [wanted] {
                return Err(OperatorError::mismatch(
                    "shape of scale and shift",
                    format!("[{wanted}]"),
                    format!("{:?}", inputs.shape(position)?),
                ));
            }
        }
        Ok(vec![Fact::new(inputs.element(0)?, shape)])
    }

    fn forward(&self, arguments: &Arguments<'_>, _outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let x = arguments.tensor(0)?;
        let shape = x.shape();
        let group = shape[1..].iter().product::<usize>() / self.groups;
        let normal = standardised(&x.reshaped(&[shape[0], self.groups, group]), &[2], self.epsilon).0;
        let y = if self.per_channel {
            let mut channels = vec![1; shape.len()];
            channels[1] = shape[1];
            let normal = normal.reshaped(&shape);
            normal.mul(&arguments.tensor(1)?.reshaped(&channels)).add(&arguments.tensor(2)?.reshaped(&channels))
        } else {
            let groups = [1, self.groups, 1];
            normal.mul(&arguments.tensor(1)?.reshaped(&groups)).add(&arguments.tensor(2)?.reshaped(&groups))
        };
        Ok(vec![Value::Device(y.reshaped(&shape), arguments.get(0)?.element())])
    }

    fn has_weight_at(&self, position: usize, _constant: &Tensor) -> bool {
        position > 0
    }

    fn least_opset(&self) -> i64 {
        if self.per_channel { 21 } else { 18 }
    }
}

/// Normalisation over the axes from `axis` on. Inputs: x, scale, optional shift; outputs: y, mean, inverse deviation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerNormalization {
    /// First axis of a layer; negative counts from the end.
    pub axis: i64,
    /// Added to the variance.
    pub epsilon: f32,
}

impl Behaviour for LayerNormalization {
    fn name(&self) -> &'static str {
        "LayerNormalization"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "LayerNormalization" {
            return Ok(None);
        }
        source.ignore(&["stash_type"]);
        Ok(Some(Self { axis: source.integer_or("axis", -1)?, epsilon: source.float_or("epsilon", 1e-5)? }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        target.integer("axis", self.axis);
        target.float("epsilon", self.epsilon);
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        inputs.require_float(0)?;
        let shape = inputs.shape(0)?.to_vec();
        let axis = axis_of(self.axis, shape.len())?;
        let layer = &shape[axis..];
        for position in [1, 2] {
            if (position == 1 || inputs.optional(position).is_some())
                && broadcast(&[layer, inputs.shape(position)?])? != layer
            {
                return Err(OperatorError::mismatch(
                    "shape of scale and shift",
                    format!("one that broadcasts to {layer:?}"),
                    format!("{:?}", inputs.shape(position)?),
                ));
            }
        }
        let statistics = shape.iter().enumerate().map(|(index, &side)| if index < axis { side } else { 1 }).collect();
        let statistics = Fact::new(crate::ElementType::F32, statistics);
        Ok(vec![Fact::new(inputs.element(0)?, shape), statistics.clone(), statistics])
    }

    fn forward(&self, arguments: &Arguments<'_>, _outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let x = arguments.tensor(0)?;
        let axis = axis_of(self.axis, x.rank())?;
        let axes: Vec<usize> = (axis..x.rank()).collect();
        let (normal, mean, inverse) = standardised(&x, &axes, self.epsilon);
        let mut y = normal.mul(&arguments.tensor(1)?);
        if let Some(shift) = arguments.optional_tensor(2) {
            y = y.add(&shift);
        }
        Ok(vec![Value::Device(y, arguments.get(0)?.element()), Value::floats(mean), Value::floats(inverse)])
    }

    fn has_weight_at(&self, position: usize, _constant: &Tensor) -> bool {
        position > 0
    }

    fn least_opset(&self) -> i64 {
        17
    }
}

/// Normalisation over neighbouring channels: `x / (bias + alpha / size · Σ x²)^beta`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LocalResponseNormalization {
    /// Factor of the sum.
    pub alpha: f32,
    /// Exponent.
    pub beta: f32,
    /// Added to the sum.
    pub bias: f32,
    /// Channels in a sum.
    pub size: usize,
}

impl Behaviour for LocalResponseNormalization {
    fn name(&self) -> &'static str {
        "LRN"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "LRN" {
            return Ok(None);
        }
        Ok(Some(Self {
            alpha: source.float_or("alpha", 0.0001)?,
            beta: source.float_or("beta", 0.75)?,
            bias: source.float_or("bias", 1.0)?,
            size: source.count_or("size", 0)?,
        }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        target.float("alpha", self.alpha);
        target.float("beta", self.beta);
        target.float("bias", self.bias);
        target.integer("size", self.size as i64);
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        let shape = channels_and_space(inputs)?;
        if self.size == 0 || self.size > 1 << 16 {
            return Err(OperatorError::attribute("size", "in 1..=65536", self.size));
        }
        Ok(vec![Fact::new(inputs.element(0)?, shape)])
    }

    fn forward(&self, arguments: &Arguments<'_>, _outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let x = arguments.tensor(0)?;
        let shape = x.shape();
        let before = (self.size - 1) / 2;
        let squares = x.mul(&x).reshaped(&[shape[0], 1, shape[1], shape[2..].iter().product()]);
        let squares = squares.padded(&with_channels(&[(before, self.size - 1 - before), (0, 0)]), 0.0);
        let geometry = Geometry { stride: vec![1, 1], padding: vec![0, 0], dilation: vec![1, 1], groups: 1 };
        let sums = squares.clone().convolved(squares.ones(&[1, 1, self.size, 1]), None, &geometry).reshaped(&shape);
        let divisor = sums.mul_scalar(self.alpha / self.size as f32).add_scalar(self.bias).pow_scalar(self.beta);
        Ok(vec![Value::Device(x.div(&divisor), arguments.get(0)?.element())])
    }
}

/// `(x - mean) / deviation` over the given axes (`MeanVarianceNormalization`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeanVarianceNormalization {
    /// Axes over which the statistics are taken; negative ones count from the end.
    pub axes: Vec<i64>,
}

impl Behaviour for MeanVarianceNormalization {
    fn name(&self) -> &'static str {
        "MeanVarianceNormalization"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "MeanVarianceNormalization" {
            return Ok(None);
        }
        Ok(Some(Self { axes: source.integers("axes")?.unwrap_or_else(|| vec![0, 2, 3]) }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        target.integers("axes", &self.axes);
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        inputs.require_float(0)?;
        let shape = inputs.shape(0)?;
        axes_of(&self.axes, shape.len())?;
        Ok(vec![Fact::new(inputs.element(0)?, shape.to_vec())])
    }

    fn forward(&self, arguments: &Arguments<'_>, _outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let x = arguments.tensor(0)?;
        let axes = axes_of(&self.axes, x.rank())?;
        let centred = x.sub(&x.clone().mean(&axes));
        // ONNX adds 1e-9 to the deviation, not to the variance.
        let deviation = centred.mul(&centred).mean(&axes).sqrt().add_scalar(1e-9);
        Ok(vec![Value::Device(centred.div(&deviation), arguments.get(0)?.element())])
    }

    fn least_opset(&self) -> i64 {
        9
    }
}
