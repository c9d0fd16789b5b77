//! Pools over windows and over all of space.

use super::convolution::with_channels;
use super::window::{AutoPad, Window, WindowAttributes};
use super::{Arguments, Behaviour, Fact, Facts, Source, Target, output_shape};
use crate::tensor::strides;
use crate::value::{DeviceTensor, Geometry, Value};
use crate::{ElementType, OperatorError, Tensor};

/// What a pool takes of its window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PoolKind {
    /// The greatest value; the gradient goes to the first of equals.
    Max,
    /// The mean, which may count the padding.
    Average {
        /// Whether padding counts.
        include_padding: bool,
    },
    /// `(Σ |x|^p)^(1/p)`.
    Norm {
        /// The exponent.
        p: f32,
    },
}

/// Pooling over windows of `[batch, channels, space...]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// What is taken.
    pub kind: PoolKind,
    /// Size of the window.
    pub kernel: Vec<usize>,
    /// Step along each axis; empty for 1.
    pub strides: Vec<usize>,
    /// Distance of neighbouring taps; empty for 1.
    pub dilations: Vec<usize>,
    /// Padding before each axis, then after each; empty for none.
    pub pads: Vec<usize>,
    /// Rule for the padding.
    pub auto_pad: AutoPad,
    /// Whether a last window may reach over the border.
    pub round_up: bool,
    /// Whether the second output of a max pool counts columns first.
    pub columns_first: bool,
}

impl Pool {
    /// A pool with the same window, stride and padding along `axes` axes.
    pub fn new(kind: PoolKind, axes: usize, kernel: usize, stride: usize, padding: usize) -> Self {
        Self {
            kind,
            kernel: vec![kernel; axes],
            strides: vec![stride; axes],
            dilations: Vec::new(),
            pads: vec![padding; 2 * axes],
            auto_pad: AutoPad::Explicit,
            round_up: false,
            columns_first: false,
        }
    }

    /// The window over an input with the given sides of space.
    ///
    /// # Errors
    ///
    /// When the attributes do not fit these sides.
    pub fn window(&self, space: &[usize]) -> Result<Window, OperatorError> {
        if self.kernel.len() != space.len() {
            return Err(OperatorError::attribute("kernel_shape", format!("{} values", space.len()), self.kernel.len()));
        }
        WindowAttributes {
            kernel: &self.kernel,
            strides: &self.strides,
            dilations: &self.dilations,
            pads: &self.pads,
            auto_pad: self.auto_pad,
            round_up: self.round_up,
        }
        .over(space)
    }
}

impl Behaviour for Pool {
    fn name(&self) -> &'static str {
        match self.kind {
            PoolKind::Max => "MaxPool",
            PoolKind::Average { .. } => "AveragePool",
            PoolKind::Norm { .. } => "LpPool",
        }
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        let kind = match source.operator {
            "MaxPool" => PoolKind::Max,
            "AveragePool" => PoolKind::Average { include_padding: source.flag("count_include_pad", false)? },
            "LpPool" => PoolKind::Norm { p: norm_exponent(source)? },
            _ => return Ok(None),
        };
        Ok(Some(Self {
            kind,
            kernel: source.counts("kernel_shape", 1)?,
            strides: source.counts("strides", 1)?,
            dilations: source.counts("dilations", 1)?,
            pads: source.counts("pads", 0)?,
            auto_pad: AutoPad::read(source)?,
            round_up: source.flag("ceil_mode", false)?,
            columns_first: source.flag("storage_order", false)?,
        }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        target.counts("kernel_shape", &self.kernel);
        target.counts("strides", &self.strides);
        target.counts("dilations", &self.dilations);
        if self.auto_pad == AutoPad::Explicit {
            target.counts("pads", &self.pads);
        }
        self.auto_pad.write(target);
        if self.round_up {
            target.flag("ceil_mode", true);
        }
        if self.columns_first {
            target.flag("storage_order", true);
        }
        match self.kind {
            PoolKind::Max => {}
            PoolKind::Average { include_padding } => target.flag("count_include_pad", include_padding),
            PoolKind::Norm { p } => target.integer("p", p as i64),
        }
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        let input = inputs.shape(0)?;
        let element = inputs.element(0)?;
        if !(3..=5).contains(&input.len()) {
            return Err(OperatorError::mismatch(
                "shape of the input",
                "[batch, channels, space...] with one to three axes of space",
                format!("{input:?}"),
            ));
        }
        if self.kind != PoolKind::Max || element == ElementType::Bool {
            inputs.require_float(0)?;
        }
        let mut shape = input[..2].to_vec();
        shape.extend(self.window(&input[2..])?.places);
        let mut facts = vec![Fact::new(element, shape.clone())];
        if inputs.outputs > 1 && self.kind == PoolKind::Max {
            facts.push(Fact::new(ElementType::I64, shape));
        }
        Ok(facts)
    }

    fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let value = arguments.get(0)?;
        let x = value.to_device(arguments.device);
        let shape = x.shape();
        let window = self.window(&shape[2..])?;
        let out = output_shape(outputs, 0)?;
        let pooled = match self.kind {
            PoolKind::Max => max_pool(x.clone(), &window).reshaped(out),
            PoolKind::Average { include_padding } => {
                let mut count = vec![1.0];
                for (axis, &side) in shape[2..].iter().enumerate() {
                    let along = window.counts(axis, side, include_padding);
                    count = count.iter().flat_map(|outer| along.iter().map(move |inner| outer * inner)).collect();
                }
                let factors = count.iter().map(|&count: &f32| 1.0 / count.max(1.0)).collect();
                let mut count_shape = vec![1, 1];
                count_shape.extend(&out[2..]);
                sum_pool(x.clone(), &window).reshaped(out).mul(&DeviceTensor::new(
                    factors,
                    &count_shape,
                    arguments.device,
                ))
            }
            PoolKind::Norm { p } => root(sum_pool(raised(x.clone(), p), &window).reshaped(out), p),
        };
        let pooled = Value::Device(pooled, value.element());
        let first = if value.element().is_float() { pooled } else { Value::Host(pooled.to_host()?) };
        let mut results = vec![first];
        if outputs.len() > 1 {
            let places = greatest_places(&x.to_floats()?, &shape, &window, self.columns_first);
            results.push(Value::host(Tensor::integers(out, ElementType::I64, places)?));
        }
        Ok(results)
    }
}

fn norm_exponent(source: &mut Source<'_>) -> Result<f32, OperatorError> {
    let p = source.integer_or("p", 2)?;
    if p < 1 { Err(OperatorError::attribute("p", "at least 1", p)) } else { Ok(p as f32) }
}

/// `|x|^p`.
fn raised(x: DeviceTensor, p: f32) -> DeviceTensor {
    if p == 2.0 { x.mul(&x) } else { x.abs().pow_scalar(p) }
}

fn root(x: DeviceTensor, p: f32) -> DeviceTensor {
    if p == 2.0 { x.sqrt() } else { x.pow_scalar(1.0 / p) }
}

/// Sums over windows: a convolution of each channel with ones.
pub(crate) fn sum_pool(x: DeviceTensor, window: &Window) -> DeviceTensor {
    let shape = x.shape();
    let x = x.padded(&with_channels(&window.covering(&shape[2..])), 0.0);
    let mut flat = vec![shape[0] * shape[1], 1];
    flat.extend(&x.shape()[2..]);
    let mut kernel = vec![1, 1];
    kernel.extend(&window.kernel);
    let ones = x.ones(&kernel);
    let geometry = Geometry {
        stride: window.stride.clone(),
        padding: vec![0; window.kernel.len()],
        dilation: window.dilation.clone(),
        groups: 1,
    };
    x.reshaped(&flat).convolved(ones, None, &geometry)
}

/// Greatest values over windows: Burn pools two axes at a time, a third one goes after the others.
fn max_pool(x: DeviceTensor, window: &Window) -> DeviceTensor {
    let shape = x.shape();
    let x = x.padded(&with_channels(&window.covering(&shape[2..])), f32::MIN);
    let padded = x.shape();
    let (batch, channels) = (padded[0], padded[1]);
    let (kernel, stride, dilation) = (&window.kernel, &window.stride, &window.dilation);
    match padded.len() {
        3 => x.reshaped(&[batch, channels, 1, padded[2]]).max_pooled([1, kernel[0]], [1, stride[0]], [1, dilation[0]]),
        4 => x.max_pooled([kernel[0], kernel[1]], [stride[0], stride[1]], [dilation[0], dilation[1]]),
        _ => {
            let planes = x.reshaped(&[batch, channels * padded[2], padded[3], padded[4]]);
            let planes = planes.max_pooled([kernel[1], kernel[2]], [stride[1], stride[2]], [dilation[1], dilation[2]]);
            let plane: usize = planes.shape()[2..].iter().product();
            planes.reshaped(&[batch, channels, padded[2], plane]).max_pooled(
                [kernel[0], 1],
                [stride[0], 1],
                [dilation[0], 1],
            )
        }
    }
}

/// Flat position in the input of the first greatest element of each window.
fn greatest_places(x: &[f32], shape: &[usize], window: &Window, columns_first: bool) -> Vec<i64> {
    let space = &shape[2..];
    let axes = space.len();
    let volume: usize = space.iter().product();
    let row_strides = strides(space);
    let mut place_strides = row_strides.clone();
    if columns_first {
        let mut step = 1;
        for axis in 0..axes {
            place_strides[axis] = step;
            step *= space[axis];
        }
    }
    let taps: usize = window.kernel.iter().product();
    let places: usize = window.places.iter().product();
    let mut result = Vec::with_capacity(shape[0] * shape[1] * places);
    for channel in 0..shape[0] * shape[1] {
        for place in 0..places {
            let start = unravel(place, &window.places);
            let mut best: Option<(f32, usize)> = None;
            for tap in 0..taps {
                let offset = unravel(tap, &window.kernel);
                let position: Option<Vec<usize>> = (0..axes)
                    .map(|axis| {
                        let at = start[axis] * window.stride[axis] + offset[axis] * window.dilation[axis];
                        at.checked_sub(window.padding[axis].0).filter(|&at| at < space[axis])
                    })
                    .collect();
                let Some(position) = position else { continue };
                let flat: usize = position.iter().zip(&row_strides).map(|(at, stride)| at * stride).sum();
                let value = x[channel * volume + flat];
                if best.is_none_or(|(greatest, _)| value > greatest) {
                    let ordered: usize = position.iter().zip(&place_strides).map(|(at, stride)| at * stride).sum();
                    best = Some((value, channel * volume + ordered));
                }
            }
            result.push(best.map_or(-1, |(_, position)| position as i64));
        }
    }
    result
}

/// Index along each axis of a flat position.
pub(crate) fn unravel(mut position: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for axis in (0..shape.len()).rev() {
        index[axis] = position % shape[axis];
        position /= shape[axis];
    }
    index
}

/// Pooling over all of space; the axes of space stay with length 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GlobalPool {
    /// What is taken.
    pub kind: PoolKind,
}

impl Behaviour for GlobalPool {
    fn name(&self) -> &'static str {
        match self.kind {
            PoolKind::Max => "GlobalMaxPool",
            PoolKind::Average { .. } => "GlobalAveragePool",
            PoolKind::Norm { .. } => "GlobalLpPool",
        }
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        let kind = match source.operator {
            "GlobalMaxPool" => PoolKind::Max,
            "GlobalAveragePool" => PoolKind::Average { include_padding: false },
            "GlobalLpPool" => PoolKind::Norm { p: norm_exponent(source)? },
            _ => return Ok(None),
        };
        Ok(Some(Self { kind }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        if let PoolKind::Norm { p } = self.kind {
            target.integer("p", p as i64);
        }
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        inputs.require_float(0)?;
        let input = inputs.shape(0)?;
        if input.len() < 3 || input.contains(&0) {
            return Err(OperatorError::mismatch(
                "shape of the input",
                "[batch, channels, space...], not empty",
                format!("{input:?}"),
            ));
        }
        let shape = input.iter().enumerate().map(|(axis, &side)| if axis < 2 { side } else { 1 }).collect();
        Ok(vec![Fact::new(inputs.element(0)?, shape)])
    }

    fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let x = arguments.tensor(0)?;
        let shape = x.shape();
        let x = x.reshaped(&[shape[0], shape[1], shape[2..].iter().product()]);
        let result = match self.kind {
            PoolKind::Max => x.max(&[2]),
            PoolKind::Average { .. } => x.mean(&[2]),
            PoolKind::Norm { p } => root(raised(x, p).sum(&[2]), p),
        };
        Ok(vec![Value::Device(result.reshaped(output_shape(outputs, 0)?), arguments.get(0)?.element())])
    }
}
