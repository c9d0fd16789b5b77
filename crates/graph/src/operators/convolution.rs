//! Convolution and transposed convolution with one to three axes of space.

use super::window::{Window, WindowAttributes, per_axis};
use super::{Arguments, Behaviour, Fact, Facts, Source, Target, output_shape};
use crate::value::{DeviceTensor, Geometry, Value};
use crate::{OperatorError, Tensor};

pub use super::window::AutoPad;

/// Convolution of `[batch, channels, space...]` with kernels `[out, channels / groups, space...]` and an optional bias.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Convolution {
    /// Kernel size; empty to take it from the kernels.
    pub kernel: Vec<usize>,
    /// Step along each axis; empty for 1.
    pub strides: Vec<usize>,
    /// Distance of neighbouring taps; empty for 1.
    pub dilations: Vec<usize>,
    /// Zeros before each axis, then after each; empty for none.
    pub pads: Vec<usize>,
    /// Rule for the padding.
    pub auto_pad: AutoPad,
    /// Groups of channels that are convolved apart; 0 stands for 1.
    pub groups: usize,
}

impl Convolution {
    /// A convolution with the same stride and padding along `axes` axes.
    pub fn new(axes: usize, stride: usize, padding: usize) -> Self {
        Self { strides: vec![stride; axes], pads: vec![padding; 2 * axes], groups: 1, ..Self::default() }
    }

    /// The same with this many groups.
    #[must_use]
    pub fn grouped(mut self, groups: usize) -> Self {
        self.groups = groups;
        self
    }

    pub(crate) fn read_attributes(source: &mut Source<'_>) -> Result<Self, OperatorError> {
        Ok(Self {
            kernel: source.counts("kernel_shape", 1)?,
            strides: source.counts("strides", 1)?,
            dilations: source.counts("dilations", 1)?,
            pads: source.counts("pads", 0)?,
            auto_pad: AutoPad::read(source)?,
            groups: source.count_or("group", 1)?.max(1),
        })
    }

    /// The window over an input with the given sides of space.
    ///
    /// # Errors
    ///
    /// When the attributes do not fit these sides.
    pub fn window(&self, space: &[usize], kernel: &[usize]) -> Result<Window, OperatorError> {
        WindowAttributes {
            kernel,
            strides: &self.strides,
            dilations: &self.dilations,
            pads: &self.pads,
            auto_pad: self.auto_pad,
            round_up: false,
        }
        .over(space)
    }

    fn groups(&self) -> usize {
        self.groups.max(1)
    }

    /// Shape of the result for an input and kernels of the given shapes.
    pub(crate) fn result_shape(&self, input: &[usize], kernels: &[usize]) -> Result<Vec<usize>, OperatorError> {
        if !(3..=5).contains(&input.len()) || kernels.len() != input.len() {
            return Err(OperatorError::mismatch(
                "shapes of input and kernels",
                "[batch, channels, space...] and [out, channels / groups, space...] with one to three axes of space",
                format!("{input:?} and {kernels:?}"),
            ));
        }
        let groups = self.groups();
        if kernels[1].checked_mul(groups) != Some(input[1]) {
            return Err(OperatorError::mismatch("channels of the input", kernels[1].saturating_mul(groups), input[1]));
        }
        if !kernels[0].is_multiple_of(groups) || kernels[0] == 0 {
            return Err(OperatorError::mismatch(
                "number of kernels",
                format!("a multiple of {groups} groups"),
                kernels[0],
            ));
        }
        if !self.kernel.is_empty() && self.kernel != kernels[2..] {
            return Err(OperatorError::attribute(
                "kernel_shape",
                format!("{:?}", &kernels[2..]),
                format!("{:?}", self.kernel),
            ));
        }
        let window = self.window(&input[2..], &kernels[2..])?;
        let mut shape = vec![input[0], kernels[0]];
        shape.extend(window.places);
        crate::tensor::elements(&shape)?;
        Ok(shape)
    }

    /// The convolution of tensors whose shapes have been checked.
    pub(crate) fn apply(
        &self,
        x: DeviceTensor,
        kernels: DeviceTensor,
        bias: Option<DeviceTensor>,
    ) -> Result<DeviceTensor, OperatorError> {
        let space = x.shape()[2..].to_vec();
        let window = self.window(&space, &kernels.shape()[2..])?;
        let even = window.padding.iter().all(|(before, after)| before == after);
        let geometry = Geometry {
            padding: window.padding.iter().map(|&(before, _)| if even { before } else { 0 }).collect(),
            stride: window.stride,
            dilation: window.dilation,
            groups: self.groups(),
        };
        let x = if even { x } else { x.padded(&with_channels(&window.padding), 0.0) };
        Ok(x.convolved(kernels, bias, &geometry))
    }
}

/// Padding of space with none for batch and channels.
pub(crate) fn with_channels(padding: &[(usize, usize)]) -> Vec<(usize, usize)> {
    [(0, 0), (0, 0)].iter().chain(padding).copied().collect()
}

impl Behaviour for Convolution {
    fn name(&self) -> &'static str {
        "Conv"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "Conv" {
            return Ok(None);
        }
        Self::read_attributes(source).map(Some)
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        target.counts("kernel_shape", &self.kernel);
        target.counts("strides", &self.strides);
        target.counts("dilations", &self.dilations);
        if self.auto_pad == AutoPad::Explicit {
            target.counts("pads", &self.pads);
        }
        self.auto_pad.write(target);
        target.integer("group", self.groups() as i64);
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        inputs.require_float(0)?;
        let shape = self.result_shape(inputs.shape(0)?, inputs.shape(1)?)?;
        if inputs.optional(2).is_some() && inputs.shape(2)? != [shape[1]] {
            return Err(OperatorError::mismatch(
                "shape of the bias",
                format!("[{}]", shape[1]),
                format!("{:?}", inputs.shape(2)?),
            ));
        }
        Ok(vec![Fact::new(inputs.element(0)?, shape)])
    }

    fn forward(&self, arguments: &Arguments<'_>, _outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let result = self.apply(arguments.tensor(0)?, arguments.tensor(1)?, arguments.optional_tensor(2))?;
        Ok(vec![Value::Device(result, arguments.get(0)?.element())])
    }

    fn has_weight_at(&self, position: usize, _constant: &Tensor) -> bool {
        position > 0
    }

    fn multiplications(&self, inputs: &Facts<'_>, outputs: &[Fact]) -> u64 {
        let taps: usize = inputs.shape(1).map_or(0, |kernels| kernels[1..].iter().product());
        let result: usize = outputs[0].shape.iter().flatten().product();
        (result * taps) as u64
    }
}

/// Transposed convolution of `[batch, channels, space...]` with kernels `[channels, out / groups, space...]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransposedConvolution {
    /// Kernel size; empty to take it from the kernels.
    pub kernel: Vec<usize>,
    /// Step along each axis of the output; empty for 1.
    pub strides: Vec<usize>,
    /// Distance of neighbouring taps; empty for 1.
    pub dilations: Vec<usize>,
    /// Elements cut before each axis, then after each; empty for none.
    pub pads: Vec<usize>,
    /// Elements added after each axis; empty for none.
    pub output_padding: Vec<usize>,
    /// Size of the output in space, from which the padding follows; empty to go by `pads`.
    pub output_shape: Vec<usize>,
    /// Rule for the padding.
    pub auto_pad: AutoPad,
    /// Groups of channels that are convolved apart; 0 stands for 1.
    pub groups: usize,
}

impl TransposedConvolution {
    /// Elements cut before each axis of the full result; below 0 for zeros that are added.
    ///
    /// # Errors
    ///
    /// When the attributes do not fit these sides.
    pub fn cut_before(&self, space: &[usize], kernel: &[usize]) -> Result<Vec<isize>, OperatorError> {
        Ok(self.cuts(space, kernel)?.into_iter().map(|(before, ..)| before).collect())
    }

    /// Elements to cut before and after each axis of the full result, and the size that remains. A negative cut adds zeros.
    fn cuts(&self, space: &[usize], kernel: &[usize]) -> Result<Vec<(isize, isize, usize)>, OperatorError> {
        let axes = space.len();
        let stride = per_axis("strides", &self.strides, axes, 1)?;
        let dilation = per_axis("dilations", &self.dilations, axes, 1)?;
        let pads = per_axis("pads", &self.pads, 2 * axes, 0)?;
        let extra = per_axis("output_padding", &self.output_padding, axes, 0)?;
        let wanted = per_axis("output_shape", &self.output_shape, axes, 0)?;
        let mut cuts = Vec::with_capacity(axes);
        for axis in 0..axes {
            let limit = |value: usize| {
                if value < 1 << 31 {
                    Ok(value as isize)
                } else {
                    Err(OperatorError::attribute("strides, dilations and pads", "below 2^31", value))
                }
            };
            let extent = limit((kernel[axis] - 1).saturating_mul(dilation[axis]).saturating_add(1))?;
            let full = limit((space[axis].max(1) - 1).saturating_mul(stride[axis]))? + extent;
            let end = full + limit(extra[axis])?;
            let target = match self.auto_pad {
                _ if !self.output_shape.is_empty() => Some(limit(wanted[axis])?),
                AutoPad::SameUpper | AutoPad::SameLower => Some(limit(space[axis].saturating_mul(stride[axis]))?),
                _ => None,
            };
            let (before, after) = match target {
                Some(target) => {
                    let total = end - target;
                    let less = total.div_euclid(2);
                    if self.auto_pad == AutoPad::SameUpper { (less, total - less) } else { (total - less, less) }
                }
                None if self.auto_pad == AutoPad::Valid => (0, 0),
                None => (limit(pads[axis])?, limit(pads[axes + axis])?),
            };
            let size = end - before - after;
            let size = usize::try_from(size).ok().filter(|&size| size > 0).ok_or_else(|| {
                OperatorError::attribute("pads", format!("less than {end} elements cut of axis {axis}"), before + after)
            })?;
            cuts.push((before, after - limit(extra[axis])?, size));
        }
        Ok(cuts)
    }

    fn groups(&self) -> usize {
        self.groups.max(1)
    }
}

impl Behaviour for TransposedConvolution {
    fn name(&self) -> &'static str {
        "ConvTranspose"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "ConvTranspose" {
            return Ok(None);
        }
        Ok(Some(Self {
            kernel: source.counts("kernel_shape", 1)?,
            strides: source.counts("strides", 1)?,
            dilations: source.counts("dilations", 1)?,
            pads: source.counts("pads", 0)?,
            output_padding: source.counts("output_padding", 0)?,
            output_shape: source.counts("output_shape", 1)?,
            auto_pad: AutoPad::read(source)?,
            groups: source.count_or("group", 1)?.max(1),
        }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        target.counts("kernel_shape", &self.kernel);
        target.counts("strides", &self.strides);
        target.counts("dilations", &self.dilations);
        target.counts("output_padding", &self.output_padding);
        target.counts("output_shape", &self.output_shape);
        if self.auto_pad == AutoPad::Explicit {
            target.counts("pads", &self.pads);
        }
        self.auto_pad.write(target);
        target.integer("group", self.groups() as i64);
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        inputs.require_float(0)?;
        let (input, kernels) = (inputs.shape(0)?, inputs.shape(1)?);
        if !(3..=5).contains(&input.len()) || kernels.len() != input.len() {
            return Err(OperatorError::mismatch(
                "shapes of input and kernels",
                "[batch, channels, space...] and [channels, out / groups, space...] with one to three axes of space",
                format!("{input:?} and {kernels:?}"),
            ));
        }
        let groups = self.groups();
        if kernels[0] != input[1] || !input[1].is_multiple_of(groups) || kernels.contains(&0) {
            return Err(OperatorError::mismatch(
                "channels of the input",
                format!("{}, a multiple of {groups} groups", kernels[0]),
                input[1],
            ));
        }
        if !self.kernel.is_empty() && self.kernel != kernels[2..] {
            return Err(OperatorError::attribute(
                "kernel_shape",
                format!("{:?}", &kernels[2..]),
                format!("{:?}", self.kernel),
            ));
        }
        let out = kernels[1].saturating_mul(groups);
        if inputs.optional(2).is_some() && inputs.shape(2)? != [out] {
            return Err(OperatorError::mismatch(
                "shape of the bias",
                format!("[{out}]"),
                format!("{:?}", inputs.shape(2)?),
            ));
        }
        let mut shape = vec![input[0], out];
        shape.extend(self.cuts(&input[2..], &kernels[2..])?.iter().map(|cut| cut.2));
        crate::tensor::elements(&shape)?;
        Ok(vec![Fact::new(inputs.element(0)?, shape)])
    }

    fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let (x, kernels) = (arguments.tensor(0)?, arguments.tensor(1)?);
        let space = x.shape()[2..].to_vec();
        let axes = space.len();
        let cuts = self.cuts(&space, &kernels.shape()[2..])?;
        let geometry = Geometry {
            stride: per_axis("strides", &self.strides, axes, 1)?,
            padding: vec![0; axes],
            dilation: per_axis("dilations", &self.dilations, axes, 1)?,
            groups: self.groups(),
        };
        let mut result = x.convolved_transposed(kernels, &geometry);
        let added: Vec<(usize, usize)> = cuts
            .iter()
            .map(|&(before, after, _)| (before.min(0).unsigned_abs(), after.min(0).unsigned_abs()))
            .collect();
        result = result.padded(&with_channels(&added), 0.0);
        for (axis, &(before, _, size)) in cuts.iter().enumerate() {
            let start = before.max(0).unsigned_abs();
            result = result.narrowed(axis + 2, start, start + size);
        }
        if let Some(bias) = arguments.optional_tensor(2) {
            let mut shape = vec![1; axes + 2];
            shape[1] = output_shape(outputs, 0)?[1];
            result = result.add(&bias.reshaped(&shape));
        }
        Ok(vec![Value::Device(result, arguments.get(0)?.element())])
    }

    fn has_weight_at(&self, position: usize, _constant: &Tensor) -> bool {
        position > 0
    }

    fn multiplications(&self, inputs: &Facts<'_>, _outputs: &[Fact]) -> u64 {
        let taps: usize = inputs.shape(1).map_or(0, |kernels| kernels[1..].iter().product());
        let input: usize = inputs.shape(0).map_or(0, |shape| shape.iter().product());
        (input * taps) as u64
    }
}
