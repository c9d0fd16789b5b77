//! Integers that stand for floats: `value = scale · (integer - zero point)`.
//!
//! Integers that carry a gradient are kept as floats on the device. Rounding has no useful derivative; the straight-through
//! rule (Bengio et al. 2013, arXiv:1308.3432) takes 1 inside the range of the integers and 0 outside. So gradients through
//! these operators are *estimates*. Sums are formed in 32-bit floats, exact up to 2^24.

use burn::backend::Dispatch;
use burn::backend::ops::FloatTensorOps;

use super::{
    Arguments, Behaviour, Convolution, Derivative, Fact, Facts, MatMul, Source, Target, axis_of, output_shape,
};
use crate::tensor::elements;
use crate::value::{DeviceTensor, Value};
use crate::{ElementType, OperatorError};

/// Rounds `x` (already divided by its scale) and shifts it by `zero_point` into the range of `element`, straight-through.
fn quantised(
    x: &DeviceTensor,
    zero_point: Option<&DeviceTensor>,
    element: ElementType,
) -> Result<Value, OperatorError> {
    let (least, greatest) = element
        .integer_range()
        .filter(|_| element.size() <= 2)
        .ok_or_else(|| OperatorError::unsupported(format!("quantisation to {element}")))?;
    let (least, greatest) = (least as f32, greatest as f32);
    let shifted = |x: DeviceTensor| zero_point.map_or(x.clone(), |zero_point| x.add(zero_point));
    let exact = shifted(x.detached().map(Dispatch::float_round)).clamped(least, greatest);
    if !x.is_tracked() {
        return Ok(Value::Host(Value::Device(exact, element).to_host()?));
    }
    let smooth = shifted(x.clone()).clamped(least, greatest);
    let offset = exact.sub(&smooth.detached());
    Ok(Value::Device(smooth.add(&offset), element))
}

/// `scale` or `zero_point`, a scalar or one value an axis place, in a shape that broadcasts to `shape`; blocks are repeated.
fn along(parameter: DeviceTensor, shape: &[usize], axis: usize, block: usize) -> DeviceTensor {
    let own = parameter.shape();
    if own.iter().product::<usize>() == 1 {
        return parameter.reshaped(&vec![1; shape.len()]);
    }
    if block > 0 && own.len() == shape.len() {
        let places: Vec<usize> = (0..shape[axis]).map(|place| place / block).collect();
        return parameter.selected(axis, &places);
    }
    let mut broadcast = vec![1; shape.len()];
    broadcast[axis] = own[0];
    parameter.reshaped(&broadcast)
}

/// Checks the shape of a scale against that of the data.
fn check_scale(shape: &[usize], scale: &[usize], axis: i64, block: usize) -> Result<usize, OperatorError> {
    if scale.iter().product::<usize>() == 1 {
        return Ok(0);
    }
    let axis = axis_of(axis, shape.len())?;
    let blocked = block > 0
        && scale.len() == shape.len()
        && (0..shape.len())
            .all(|other| scale[other] == if other == axis { shape[axis].div_ceil(block) } else { shape[other] });
    if scale == [shape[axis]] || blocked {
        return Ok(axis);
    }
    Err(OperatorError::mismatch(
        "shape of the scale",
        format!("one value, or one for each place of axis {axis} of {shape:?}"),
        format!("{scale:?}"),
    ))
}

/// From floats to integers. Inputs: x, scale, zero point (0 of `uint8` if absent).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuantizeLinear {
    /// Axis along which scales differ.
    pub axis: i64,
    /// Elements that share a scale along the axis; 0 for one scale a place.
    pub block: usize,
    /// Element type where there is no zero point.
    pub element: Option<ElementType>,
}

impl QuantizeLinear {
    fn element(self, zero_point: Option<ElementType>) -> ElementType {
        zero_point.or(self.element).unwrap_or(ElementType::U8)
    }
}

impl Behaviour for QuantizeLinear {
    fn name(&self) -> &'static str {
        "QuantizeLinear"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "QuantizeLinear" {
            return Ok(None);
        }
        source.ignore(&["saturate"]);
        let element = match source.integer_or("output_dtype", 0)? {
            0 => None,
            code => Some(i32::try_from(code).ok().and_then(ElementType::from_onnx).ok_or_else(|| {
                OperatorError::unsupported(format!("quantisation to the element type numbered {code}"))
            })?),
        };
        Ok(Some(Self { axis: source.integer_or("axis", 1)?, block: source.count_or("block_size", 0)?, element }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        target.integer("axis", self.axis);
        if self.block > 0 {
            target.integer("block_size", self.block as i64);
        }
        if let Some(element) = self.element {
            target.integer("output_dtype", i64::from(element.to_onnx()));
        }
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        let shape = inputs.shape(0)?.to_vec();
        check_scale(&shape, inputs.shape(1)?, self.axis, self.block)?;
        Ok(vec![Fact::new(self.element(inputs.optional(2).map(|fact| fact.element)), shape)])
    }

    fn forward(&self, arguments: &Arguments<'_>, _outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let x = arguments.tensor(0)?;
        let shape = x.shape();
        let scale = arguments.tensor(1)?;
        let axis = check_scale(&shape, &scale.shape(), self.axis, self.block)?;
        let zero_point = arguments.optional_tensor(2).map(|zero_point| along(zero_point, &shape, axis, self.block));
        let element = self.element(arguments.optional(2).map(Value::element));
        let scaled = x.div(&along(scale, &shape, axis, self.block));
        Ok(vec![quantised(&scaled, zero_point.as_ref(), element)?])
    }

    fn least_opset(&self) -> i64 {
        let wide = self.element.is_some_and(|element| element.size() > 1);
        if self.block > 0 || self.element.is_some() || wide { 21 } else { 13 }
    }

    fn derivative(&self) -> Derivative {
        Derivative::Estimated
    }
}

/// From integers to floats. Inputs: x, scale, zero point (0 if absent).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DequantizeLinear {
    /// Axis along which scales differ.
    pub axis: i64,
    /// Elements that share a scale along the axis; 0 for one scale a place.
    pub block: usize,
}

impl Behaviour for DequantizeLinear {
    fn name(&self) -> &'static str {
        "DequantizeLinear"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "DequantizeLinear" {
            return Ok(None);
        }
        Ok(Some(Self { axis: source.integer_or("axis", 1)?, block: source.count_or("block_size", 0)? }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        target.integer("axis", self.axis);
        if self.block > 0 {
            target.integer("block_size", self.block as i64);
        }
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        let shape = inputs.shape(0)?.to_vec();
        check_scale(&shape, inputs.shape(1)?, self.axis, self.block)?;
        Ok(vec![Fact::new(inputs.element(1)?, shape)])
    }

    fn forward(&self, arguments: &Arguments<'_>, _outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let scale = arguments.tensor(1)?;
        let mut x = arguments.tensor(0)?;
        let shape = x.shape();
        let axis = check_scale(&shape, &scale.shape(), self.axis, self.block)?;
        if let Some(zero_point) = arguments.optional_tensor(2) {
            x = x.sub(&along(zero_point, &shape, axis, self.block));
        }
        let y = x.mul(&along(scale, &shape, axis, self.block));
        Ok(vec![Value::Device(y, arguments.get(1)?.element())])
    }

    fn least_opset(&self) -> i64 {
        if self.block > 0 { 21 } else { 13 }
    }
}

/// To `uint8` with a scale and zero point from the extremes of the input; these two have no gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DynamicQuantizeLinear;

impl Behaviour for DynamicQuantizeLinear {
    super::shape::plain!("DynamicQuantizeLinear");

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        inputs.require_float(0)?;
        let shape = inputs.shape(0)?.to_vec();
        Ok(vec![
            Fact::new(ElementType::U8, shape),
            Fact::new(ElementType::F32, Vec::new()),
            Fact::new(ElementType::U8, Vec::new()),
        ])
    }

    fn forward(&self, arguments: &Arguments<'_>, _outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let x = arguments.tensor(0)?;
        let values = x.to_floats()?;
        let least = values.iter().copied().fold(0.0, f32::min);
        let greatest = values.iter().copied().fold(0.0, f32::max);
        let scale = (greatest - least) / 255.0;
        let zero_point = if scale > 0.0 { (-least / scale).clamp(0.0, 255.0).round_ties_even() } else { 0.0 };
        let divisor = if scale > 0.0 { scale } else { 1.0 };
        let scaled = x.div(&DeviceTensor::new(vec![divisor], &vec![1; x.rank()], arguments.device));
        let scalar = |value: f32| DeviceTensor::new(vec![value], &[], arguments.device);
        let shift = DeviceTensor::new(vec![zero_point], &vec![1; scaled.rank()], arguments.device);
        let zero_point = Value::Host(Value::Device(scalar(zero_point), ElementType::U8).to_host()?);
        Ok(vec![quantised(&scaled, Some(&shift), ElementType::U8)?, Value::floats(scalar(scale)), zero_point])
    }

    fn least_opset(&self) -> i64 {
        11
    }

    fn derivative(&self) -> Derivative {
        Derivative::Estimated
    }
}

/// A product of quantised operands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuantizedProduct {
    /// `(A - a0) · (B - b0)` as `int32`. Inputs: A, B, a0, b0.
    MatMulInteger,
    /// `(x - x0) ∗ (w - w0)` as `int32`. Inputs: x, w, x0, w0.
    ConvInteger(Convolution),
    /// Quantised matrices to a quantised product. Inputs: A, its scale and zero point, B, its, the product's.
    QLinearMatMul,
    /// The same for a convolution, with an `int32` bias at the end.
    QLinearConv(Convolution),
}

impl QuantizedProduct {
    /// Positions of the factors and of their zero points.
    fn positions(&self) -> [usize; 4] {
        match self {
            Self::MatMulInteger | Self::ConvInteger(_) => [0, 1, 2, 3],
            Self::QLinearMatMul | Self::QLinearConv(_) => [0, 3, 2, 5],
        }
    }

    fn is_linear(&self) -> bool {
        matches!(self, Self::QLinearMatMul | Self::QLinearConv(_))
    }

    /// Shape in which a parameter of the second factor (one value, or one a kernel or column) meets the product.
    fn meets_product(&self, count: usize, rank: usize) -> Vec<usize> {
        let mut shape = vec![1; rank];
        let axis = if matches!(self, Self::ConvInteger(_) | Self::QLinearConv(_)) { 1 } else { rank.saturating_sub(1) };
        if let Some(side) = shape.get_mut(axis) {
            *side = count;
        }
        shape
    }
}

impl Behaviour for QuantizedProduct {
    fn name(&self) -> &'static str {
        match self {
            Self::MatMulInteger => "MatMulInteger",
            Self::ConvInteger(_) => "ConvInteger",
            Self::QLinearMatMul => "QLinearMatMul",
            Self::QLinearConv(_) => "QLinearConv",
        }
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        Ok(Some(match source.operator {
            "MatMulInteger" => Self::MatMulInteger,
            "QLinearMatMul" => Self::QLinearMatMul,
            "ConvInteger" => Self::ConvInteger(Convolution::read_attributes(source)?),
            "QLinearConv" => Self::QLinearConv(Convolution::read_attributes(source)?),
            _ => return Ok(None),
        }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        match self {
            Self::ConvInteger(convolution) | Self::QLinearConv(convolution) => convolution.write(target),
            _ => Ok(()),
        }
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        let [left, right, left_zero, right_zero] = self.positions();
        let shape = match self {
            Self::ConvInteger(convolution) | Self::QLinearConv(convolution) => {
                convolution.result_shape(inputs.shape(left)?, inputs.shape(right)?)?
            }
            _ => MatMul::product_shape(inputs.shape(left)?, inputs.shape(right)?)?,
        };
        let count = |position: usize| -> Result<usize, OperatorError> {
            if inputs.optional(position).is_none() { Ok(1) } else { elements(inputs.shape(position)?) }
        };
        let convolution = matches!(self, Self::ConvInteger(_) | Self::QLinearConv(_));
        let kernels = if convolution { shape[1] } else { shape.last().copied().unwrap_or(1) };
        let mut singles = vec![left_zero];
        let mut per_kernel = vec![right_zero];
        if self.is_linear() {
            singles.extend([1, 6, 7]);
            per_kernel.push(4);
        }
        for position in singles {
            if count(position)? != 1 {
                return Err(OperatorError::unsupported(format!(
                    "a scale or zero point with one value a row (input {position})"
                )));
            }
        }
        for position in per_kernel {
            let found = count(position)?;
            if found != 1 && found != kernels {
                return Err(OperatorError::mismatch(
                    format!("values of input {position}"),
                    format!("1 or {kernels}"),
                    found,
                ));
            }
        }
        if matches!(self, Self::QLinearConv(_)) && count(8)? != 1 && count(8)? != kernels {
            return Err(OperatorError::mismatch("values of the bias", kernels, count(8)?));
        }
        let element = if self.is_linear() { inputs.element(7)? } else { ElementType::I32 };
        Ok(vec![Fact::new(element, shape)])
    }

    fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let [left, right, left_zero, right_zero] = self.positions();
        let out = output_shape(outputs, 0)?;
        let single = |position: usize| -> Option<DeviceTensor> {
            arguments
                .optional_tensor(position)
                .map(|tensor| if tensor.len() == 1 { tensor.reshaped(&[1]) } else { tensor })
        };
        let (mut a, mut b) = (arguments.tensor(left)?, arguments.tensor(right)?);
        if let Some(zero_point) = single(left_zero) {
            a = a.sub(&zero_point);
        }
        let product = match self {
            Self::ConvInteger(convolution) | Self::QLinearConv(convolution) => {
                if let Some(zero_point) = single(right_zero) {
                    let mut shape = vec![1; b.rank()];
                    shape[0] = zero_point.len();
                    b = b.sub(&zero_point.reshaped(&shape));
                }
                let bias = if self.is_linear() { arguments.optional_tensor(8) } else { None };
                convolution.apply(a, b, bias)?
            }
            _ => {
                if let Some(zero_point) = single(right_zero) {
                    b = b.sub(&zero_point);
                }
                MatMul::multiply(a, b, out)
            }
        };
        if !self.is_linear() {
            let product = Value::Device(product, ElementType::I32);
            return Ok(vec![if product.is_tracked() { product } else { Value::Host(product.to_host()?) }]);
        }
        let right_scale = arguments.tensor(4)?;
        let shape = self.meets_product(right_scale.len(), out.len());
        let scale = right_scale
            .reshaped(&shape)
            .mul(&arguments.tensor(1)?.reshaped(&vec![1; out.len()]))
            .div(&arguments.tensor(6)?.reshaped(&vec![1; out.len()]));
        let zero_point = arguments.tensor(7)?.reshaped(&vec![1; out.len()]);
        Ok(vec![quantised(&product.mul(&scale), Some(&zero_point), arguments.get(7)?.element())?])
    }

    fn least_opset(&self) -> i64 {
        10
    }

    fn derivative(&self) -> Derivative {
        Derivative::Estimated
    }
}
