//! Values sampled between the elements of an image: deformable convolution, regions of interest.

use super::window::{AutoPad, Window, WindowAttributes};
use super::{Arguments, Behaviour, Fact, Facts, Source, Target, output_shape};
use crate::tensor::elements;
use crate::value::{DeviceTensor, Geometry, Value};
use crate::{OperatorError, Tensor};

/// Convolution of an image whose taps are moved by offsets. Inputs: x, kernels, offsets `[batch, 2 · groups · taps, ...]`
/// (down, then right), and optionally bias and a mask that weights the taps (Zhu et al. 2019, arXiv:1811.11168).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeformableConvolution {
    /// Kernel size; empty to take it from the kernels.
    pub kernel: Vec<usize>,
    /// Step along each axis; empty for 1.
    pub strides: Vec<usize>,
    /// Distance of neighbouring taps; empty for 1.
    pub dilations: Vec<usize>,
    /// Zeros before each axis, then after each; empty for none.
    pub pads: Vec<usize>,
    /// Groups of channels that are convolved apart.
    pub groups: usize,
    /// Groups of channels with offsets of their own.
    pub offset_groups: usize,
}

impl DeformableConvolution {
    fn window(&self, input: &[usize], kernels: &[usize]) -> Result<Window, OperatorError> {
        let attributes = WindowAttributes {
            kernel: &kernels[2..],
            strides: &self.strides,
            dilations: &self.dilations,
            pads: &self.pads,
            auto_pad: AutoPad::Explicit,
            round_up: false,
        };
        attributes.over(&input[2..])
    }
}

impl Behaviour for DeformableConvolution {
    fn name(&self) -> &'static str {
        "DeformConv"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "DeformConv" {
            return Ok(None);
        }
        Ok(Some(Self {
            kernel: source.counts("kernel_shape", 1)?,
            strides: source.counts("strides", 1)?,
            dilations: source.counts("dilations", 1)?,
            pads: source.counts("pads", 0)?,
            groups: source.count_or("group", 1)?.max(1),
            offset_groups: source.count_or("offset_group", 1)?.max(1),
        }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        target.counts("kernel_shape", &self.kernel);
        target.counts("strides", &self.strides);
        target.counts("dilations", &self.dilations);
        target.counts("pads", &self.pads);
        target.integer("group", self.groups.max(1) as i64);
        target.integer("offset_group", self.offset_groups.max(1) as i64);
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        inputs.require_float(0)?;
        let (input, kernels) = (inputs.shape(0)?, inputs.shape(1)?);
        let (groups, offset_groups) = (self.groups.max(1), self.offset_groups.max(1));
        let fits = input.len() == 4
            && kernels.len() == 4
            && kernels[1].checked_mul(groups) == Some(input[1])
            && kernels[0].is_multiple_of(groups)
            && input[1].is_multiple_of(offset_groups)
            && !kernels.contains(&0);
        if !fits {
            return Err(OperatorError::mismatch(
                "shapes of input and kernels",
                format!("images and kernels for {groups} groups and {offset_groups} groups of offsets"),
                format!("{input:?} and {kernels:?}"),
            ));
        }
        if !self.kernel.is_empty() && self.kernel != kernels[2..] {
            return Err(OperatorError::attribute(
                "kernel_shape",
                format!("{:?}", &kernels[2..]),
                format!("{:?}", self.kernel),
            ));
        }
        let places = self.window(input, kernels)?.places;
        let taps = offset_groups * kernels[2] * kernels[3];
        let shape = vec![input[0], kernels[0], places[0], places[1]];
        elements(&shape)?;
        for (position, wanted) in [
            (2, vec![input[0], 2 * taps, places[0], places[1]]),
            (3, vec![kernels[0]]),
            (4, vec![input[0], taps, places[0], places[1]]),
        ] {
            if (position == 2 || inputs.optional(position).is_some()) && inputs.shape(position)? != wanted {
                return Err(OperatorError::mismatch(
                    format!("shape of input {position}"),
                    format!("{wanted:?}"),
                    format!("{:?}", inputs.shape(position)?),
                ));
            }
        }
        Ok(vec![Fact::new(inputs.element(0)?, shape)])
    }

    fn forward(&self, arguments: &Arguments<'_>, _outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let (x, kernels) = (arguments.tensor(0)?, arguments.tensor(1)?);
        let window = self.window(&x.shape(), &kernels.shape())?;
        // A tap outside the image reads 0 with and without zeros around it.
        let x = x.padded(&super::convolution::with_channels(&window.padding), 0.0);
        let geometry = Geometry {
            stride: window.stride,
            padding: vec![0, 0],
            dilation: window.dilation,
            groups: self.groups.max(1),
        };
        let y = x.convolved_deformed(
            arguments.tensor(2)?,
            kernels,
            arguments.optional_tensor(4),
            arguments.optional_tensor(3),
            &geometry,
            self.offset_groups.max(1),
        );
        Ok(vec![Value::Device(y, arguments.get(0)?.element())])
    }

    fn has_weight_at(&self, position: usize, _constant: &Tensor) -> bool {
        position == 1 || position == 3
    }

    fn least_opset(&self) -> i64 {
        19
    }

    fn multiplications(&self, inputs: &Facts<'_>, outputs: &[Fact]) -> u64 {
        let taps: usize = inputs.shape(1).map_or(0, |kernels| kernels[1..].iter().product());
        let result: usize = outputs[0].shape.iter().flatten().product();
        (result * taps) as u64
    }
}

/// Regions of images, resampled to one size (He et al. 2017, arXiv:1703.06870). Inputs: x, regions `[count, 4]` (left, top,
/// right, bottom), and the image of each region. Only x has a gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RegionAlign {
    /// Height and width of the output.
    pub size: (usize, usize),
    /// Samples along each axis of a bin; 0 to take as many as a bin has elements.
    pub samples: usize,
    /// Factor from the coordinates of the regions to those of x.
    pub scale: f32,
    /// Whether the greatest weighted neighbour of a bin is taken instead of the mean.
    pub greatest: bool,
    /// Whether pixel centres stand at halves.
    pub half_pixel: bool,
}

/// The four neighbours of a point and their weights; none outside the image.
fn neighbours(y: f32, x: f32, height: usize, width: usize) -> [(usize, f32); 4] {
    if y < -1.0 || y > height as f32 || x < -1.0 || x > width as f32 {
        return [(0, 0.0); 4];
    }
    let split = |value: f32, side: usize| {
        let value = value.max(0.0);
        let low = (value as usize).min(side - 1);
        let high = (low + 1).min(side - 1);
        let part = if low >= side - 1 { 0.0 } else { value - low as f32 };
        (low, high, part)
    };
    let (top, bottom, down) = split(y, height);
    let (left, right, across) = split(x, width);
    [
        (top * width + left, (1.0 - down) * (1.0 - across)),
        (top * width + right, (1.0 - down) * across),
        (bottom * width + left, down * (1.0 - across)),
        (bottom * width + right, down * across),
    ]
}

/// Most samples along an axis of a bin: regions come from data.
const MOST_SAMPLES: usize = 256;

impl Behaviour for RegionAlign {
    fn name(&self) -> &'static str {
        "RoiAlign"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "RoiAlign" {
            return Ok(None);
        }
        let greatest = match source.text_or("mode", "avg")?.as_str() {
            "avg" => false,
            "max" => true,
            other => return Err(OperatorError::attribute("mode", "avg or max", other)),
        };
        let usual = if source.opset >= 16 { "half_pixel" } else { "output_half_pixel" };
        let half_pixel = match source.text_or("coordinate_transformation_mode", usual)?.as_str() {
            "half_pixel" => true,
            "output_half_pixel" => false,
            other => {
                return Err(OperatorError::attribute(
                    "coordinate_transformation_mode",
                    "half_pixel or output_half_pixel",
                    other,
                ));
            }
        };
        Ok(Some(Self {
            size: (source.count_or("output_height", 1)?, source.count_or("output_width", 1)?),
            samples: source.count_or("sampling_ratio", 0)?.min(MOST_SAMPLES),
            scale: source.float_or("spatial_scale", 1.0)?,
            greatest,
            half_pixel,
        }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        target.integer("output_height", self.size.0 as i64);
        target.integer("output_width", self.size.1 as i64);
        target.integer("sampling_ratio", self.samples as i64);
        target.float("spatial_scale", self.scale);
        target.text("mode", if self.greatest { "max" } else { "avg" });
        target.text("coordinate_transformation_mode", if self.half_pixel { "half_pixel" } else { "output_half_pixel" });
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        inputs.require_float(0)?;
        let (input, regions) = (inputs.shape(0)?, inputs.shape(1)?);
        let count = regions.first().copied().unwrap_or(0);
        if input.len() != 4 || input.contains(&0) || regions != [count, 4] || inputs.shape(2)? != [count] {
            return Err(OperatorError::mismatch(
                "shapes of images, regions and numbers of images",
                "four axes, [count, 4] and [count]",
                format!("{input:?}, {regions:?} and {:?}", inputs.shape(2)?),
            ));
        }
        let shape = vec![count, input[1], self.size.0, self.size.1];
        if elements(&shape)? == 0 {
            return Err(OperatorError::mismatch("shape of the output", "not empty", format!("{shape:?}")));
        }
        Ok(vec![Fact::new(inputs.element(0)?, shape)])
    }

    fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let x = arguments.tensor(0)?;
        let [batch, channels, height, width] = <[usize; 4]>::try_from(x.shape())
            .map_err(|shape| OperatorError::mismatch("shape of the images", "four axes", format!("{shape:?}")))?;
        let out = output_shape(outputs, 0)?;
        let regions = arguments.host(1)?;
        let regions = regions.to_f32();
        let images = arguments.integers(2)?;
        let offset = if self.half_pixel { 0.5 } else { 0.0 };
        // Taps of each bin, in the order of the output without its channels.
        let mut bins: Vec<Vec<(usize, f32)>> = Vec::new();
        for (region, &image) in regions.chunks_exact(4).zip(&images) {
            let image = super::indexing::place_of(image, batch)?;
            let corner = |index: usize| region[index] * self.scale - offset;
            let (left, top) = (corner(0), corner(1));
            let side = |length: f32| if self.half_pixel { length } else { length.max(1.0) };
            let (wide, high) = (side(corner(2) - left), side(corner(3) - top));
            let (bin_height, bin_width) = (high / self.size.0 as f32, wide / self.size.1 as f32);
            let samples =
                |bin: f32| if self.samples > 0 { self.samples } else { (bin.ceil() as usize).clamp(1, MOST_SAMPLES) };
            let (rows, columns) = (samples(bin_height), samples(bin_width));
            for row in 0..self.size.0 {
                for column in 0..self.size.1 {
                    let mut taps = Vec::with_capacity(4 * rows * columns);
                    for sample in 0..rows * columns {
                        let at = |bin: usize, size: f32, sample: usize, samples: usize| {
                            bin as f32 * size + (sample as f32 + 0.5) * size / samples as f32
                        };
                        let y = top + at(row, bin_height, sample / columns, rows);
                        let x = left + at(column, bin_width, sample % columns, columns);
                        for (place, weight) in neighbours(y, x, height, width) {
                            let share = if self.greatest { weight } else { weight / (rows * columns) as f32 };
                            taps.push((image * channels * height * width + place, share));
                        }
                    }
                    bins.push(taps);
                }
            }
        }
        // Bins with fewer samples repeat their first tap: without weight for a mean, with it for the greatest.
        let most = bins.iter().map(Vec::len).max().unwrap_or(0);
        let per_region = self.size.0 * self.size.1;
        let mut places = Vec::with_capacity(elements(out)? * most);
        let mut weights = Vec::with_capacity(bins.len() * most);
        for bins in bins.chunks(per_region) {
            for channel in 0..channels {
                for taps in bins {
                    let filler = if self.greatest { taps[0] } else { (taps[0].0, 0.0) };
                    for tap in 0..most {
                        let (place, weight) = taps.get(tap).copied().unwrap_or(filler);
                        places.push(place + channel * height * width);
                        if channel == 0 {
                            weights.push(weight);
                        }
                    }
                }
            }
        }
        let picked = x.picked(&[out[0], channels, per_region, most], &places);
        let weighted = picked.mul(&DeviceTensor::new(weights, &[out[0], 1, per_region, most], arguments.device));
        let y = if self.greatest { weighted.max(&[3]) } else { weighted.sum(&[3]) };
        Ok(vec![Value::Device(y.reshaped(out), arguments.get(0)?.element())])
    }

    fn least_opset(&self) -> i64 {
        16
    }
}
