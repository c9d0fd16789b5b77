//! Resampling in space, by any of ONNX's rules.
//!
//! Along one axis each output element is a weighted sum of a few input elements, so an axis is resampled by picking each
//! of those elements and adding them up; several axes go one after the other. The gradient is that of the same sums.

use super::{Arguments, Behaviour, Fact, Facts, Source, Target, axes_of};
use crate::tensor::elements;
use crate::value::{DeviceTensor, Value};
use crate::{OperatorError, Tensor};

/// Elements along an axis and their weights.
type Taps = Vec<(usize, f32)>;

/// How neighbours are weighted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResizeMode {
    /// One neighbour.
    Nearest,
    /// Two neighbours.
    Linear,
    /// Four neighbours.
    Cubic,
}

/// Which input coordinate belongs to an output coordinate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coordinates {
    /// Centres of pixels are aligned.
    HalfPixel,
    /// The same with the rest of a size that was rounded shared by both sides.
    HalfPixelSymmetric,
    /// The same, but an output of one element looks at 0.
    PytorchHalfPixel,
    /// The outermost elements are aligned.
    AlignCorners,
    /// Coordinates are divided by the scale.
    Asymmetric,
    /// A region of interest (second input) is stretched to the output.
    TfCropAndResize,
}

/// Which neighbour is nearest to a coordinate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each name is the rule")]
pub enum NearestRule {
    RoundPreferFloor,
    RoundPreferCeil,
    Floor,
    Ceil,
}

/// How a size that both sides ask for is kept in proportion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each name is the rule")]
pub enum AspectRatio {
    Stretch,
    NotLarger,
    NotSmaller,
}

const MODES: [(ResizeMode, &str); 3] =
    [(ResizeMode::Nearest, "nearest"), (ResizeMode::Linear, "linear"), (ResizeMode::Cubic, "cubic")];
const COORDINATES: [(Coordinates, &str); 6] = [
    (Coordinates::HalfPixel, "half_pixel"),
    (Coordinates::HalfPixelSymmetric, "half_pixel_symmetric"),
    (Coordinates::PytorchHalfPixel, "pytorch_half_pixel"),
    (Coordinates::AlignCorners, "align_corners"),
    (Coordinates::Asymmetric, "asymmetric"),
    (Coordinates::TfCropAndResize, "tf_crop_and_resize"),
];
const NEAREST: [(NearestRule, &str); 4] = [
    (NearestRule::RoundPreferFloor, "round_prefer_floor"),
    (NearestRule::RoundPreferCeil, "round_prefer_ceil"),
    (NearestRule::Floor, "floor"),
    (NearestRule::Ceil, "ceil"),
];
const ASPECTS: [(AspectRatio, &str); 3] = [
    (AspectRatio::Stretch, "stretch"),
    (AspectRatio::NotLarger, "not_larger"),
    (AspectRatio::NotSmaller, "not_smaller"),
];

fn choice<T: Copy>(
    source: &mut Source<'_>,
    name: &str,
    default: &str,
    known: &[(T, &str)],
) -> Result<T, OperatorError> {
    let text = source.text_or(name, default)?;
    known.iter().find(|(_, name)| *name == text).map(|(value, _)| *value).ok_or_else(|| {
        OperatorError::attribute(name, format!("one of {:?}", known.iter().map(|row| row.1).collect::<Vec<_>>()), text)
    })
}

fn name_of<T: PartialEq>(value: &T, known: &[(T, &'static str)]) -> &'static str {
    known.iter().find(|(other, _)| other == value).map_or("", |(_, name)| name)
}

/// Resampling. Inputs: data, region of interest, scales, sizes; one of the last two is given.
#[derive(Clone, Debug, PartialEq)]
pub struct Resize {
    /// How neighbours are weighted.
    pub mode: ResizeMode,
    /// Which input coordinate belongs to an output coordinate.
    pub coordinates: Coordinates,
    /// Which neighbour is nearest.
    pub nearest: NearestRule,
    /// Whether a smaller output averages over all the elements that it stands for.
    pub antialias: bool,
    /// The parameter of the cubic weights.
    pub cubic: f32,
    /// Whether neighbours outside are left out of the weights instead of being repeated.
    pub exclude_outside: bool,
    /// Value outside the region of interest.
    pub extrapolation: f32,
    /// Axes that sizes, scales and regions speak of; empty for all.
    pub axes: Vec<i64>,
    /// How sizes are kept in proportion.
    pub aspect: AspectRatio,
}

impl Resize {
    /// Resampling by pixel centres, the default of current frameworks.
    pub fn new(mode: ResizeMode) -> Self {
        Self {
            mode,
            coordinates: Coordinates::HalfPixel,
            nearest: NearestRule::RoundPreferFloor,
            antialias: false,
            cubic: -0.75,
            exclude_outside: false,
            extrapolation: 0.0,
            axes: Vec::new(),
            aspect: AspectRatio::Stretch,
        }
    }

    /// Size and scale of each axis of the output.
    fn sizes(
        &self,
        shape: &[usize],
        scales: Option<&[f32]>,
        sizes: Option<&[i64]>,
    ) -> Result<Vec<(usize, f32)>, OperatorError> {
        let axes = if self.axes.is_empty() { (0..shape.len()).collect() } else { axes_of(&self.axes, shape.len())? };
        let mut result: Vec<(usize, f32)> = shape.iter().map(|&side| (side, 1.0)).collect();
        let misfit = |got: String| {
            OperatorError::mismatch("scales or sizes", format!("{} positive values, below 2^31", axes.len()), got)
        };
        match (scales.filter(|scales| !scales.is_empty()), sizes.filter(|sizes| !sizes.is_empty())) {
            (Some(scales), None) => {
                if scales.len() != axes.len() || scales.iter().any(|scale| !(scale.is_finite() && *scale > 0.0)) {
                    return Err(misfit(format!("{scales:?}")));
                }
                for (&axis, &scale) in axes.iter().zip(scales) {
                    let side = (shape[axis] as f64 * f64::from(scale)).floor();
                    if !(1.0..2_147_483_648.0).contains(&side) {
                        return Err(misfit(format!("{scales:?}")));
                    }
                    result[axis] = (side as usize, scale);
                }
            }
            (None, Some(sizes)) => {
                if sizes.len() != axes.len() || sizes.iter().any(|size| !(1..1 << 31).contains(size)) {
                    return Err(misfit(format!("{sizes:?}")));
                }
                let ratios = axes.iter().zip(sizes).map(|(&axis, &size)| size as f32 / shape[axis] as f32);
                let common = match self.aspect {
                    AspectRatio::Stretch => None,
                    AspectRatio::NotLarger => ratios.reduce(f32::min),
                    AspectRatio::NotSmaller => ratios.reduce(f32::max),
                };
                for (&axis, &size) in axes.iter().zip(sizes) {
                    result[axis] = match common {
                        Some(scale) => (((shape[axis] as f32 * scale).round() as usize).max(1), scale),
                        None => (size as usize, size as f32 / shape[axis] as f32),
                    };
                }
            }
            _ => return Err(misfit("both or none".into())),
        }
        if shape.contains(&0) {
            return Err(OperatorError::mismatch("shape of the input", "no empty axis", format!("{shape:?}")));
        }
        elements(&result.iter().map(|row| row.0).collect::<Vec<_>>())?;
        Ok(result)
    }

    /// For each axis of a value with this shape the input elements and weights of every output place, where the axis changes.
    /// Axes are resampled one after the other.
    ///
    /// # Errors
    ///
    /// When scales or sizes do not fit, and for a region of interest.
    pub fn matrices(
        &self,
        shape: &[usize],
        scales: Option<&[f32]>,
        sizes: Option<&[i64]>,
    ) -> Result<Vec<Option<Vec<Taps>>>, OperatorError> {
        if self.coordinates == Coordinates::TfCropAndResize {
            return Err(OperatorError::unsupported("a region of interest"));
        }
        let sizes = self.sizes(shape, scales, sizes)?;
        let of_axis = |(&side, (out, scale)): (&usize, (usize, f32))| {
            let changes = out != side || scale != 1.0;
            changes.then(|| self.taps(side, out, scale, (0.0, 1.0)).into_iter().flatten().collect())
        };
        Ok(shape.iter().zip(sizes).map(of_axis).collect())
    }

    /// The input coordinate that belongs to output place `place`.
    fn coordinate(&self, place: usize, side: usize, out: usize, scale: f32, region: (f32, f32)) -> f32 {
        let (place, side, length) = (place as f32, side as f32, out as f32);
        match self.coordinates {
            Coordinates::HalfPixelSymmetric => {
                let adjustment = length / (scale * side);
                let centre = side / 2.0;
                centre * (1.0 - adjustment) + (place + 0.5) / scale - 0.5
            }
            Coordinates::PytorchHalfPixel | Coordinates::AlignCorners if out <= 1 => 0.0,
            Coordinates::HalfPixel | Coordinates::PytorchHalfPixel => (place + 0.5) / scale - 0.5,
            Coordinates::AlignCorners => place * (side - 1.0) / (length - 1.0),
            Coordinates::Asymmetric => place / scale,
            Coordinates::TfCropAndResize if out <= 1 => 0.5 * (region.0 + region.1) * (side - 1.0),
            Coordinates::TfCropAndResize => {
                region.0 * (side - 1.0) + place * (region.1 - region.0) * (side - 1.0) / (length - 1.0)
            }
        }
    }

    /// Input elements and their weights for each output place of one axis; `None` outside the region of interest.
    fn taps(&self, side: usize, out: usize, scale: f32, region: (f32, f32)) -> Vec<Option<Taps>> {
        let last = side as i64 - 1;
        (0..out)
            .map(|place| {
                let x = self.coordinate(place, side, out, scale, region);
                if self.coordinates == Coordinates::TfCropAndResize && !(0.0..=last as f32).contains(&x) {
                    return None;
                }
                if self.mode == ResizeMode::Nearest {
                    let nearest = match self.nearest {
                        NearestRule::RoundPreferFloor => (x - 0.5).ceil(),
                        NearestRule::RoundPreferCeil => (x + 0.5).floor(),
                        NearestRule::Floor => x.floor(),
                        NearestRule::Ceil => x.ceil(),
                    };
                    return Some(vec![((nearest as i64).clamp(0, last) as usize, 1.0)]);
                }
                let shrink = if self.antialias { scale.min(1.0) } else { 1.0 };
                let support = if self.mode == ResizeMode::Linear { 1.0 } else { 2.0 } / shrink;
                let first = (x - support).floor() as i64 + 1;
                let end = (x + support).ceil() as i64 - 1;
                let mut taps = Taps::new();
                let mut total = 0.0;
                for tap in first..=end.max(first) {
                    let weight = self.weight((tap as f32 - x) * shrink);
                    let outside = !(0..=last).contains(&tap);
                    if weight == 0.0 || (outside && self.exclude_outside) {
                        continue;
                    }
                    total += weight;
                    let tap = tap.clamp(0, last) as usize;
                    match taps.iter_mut().find(|(other, _)| *other == tap) {
                        Some((_, sum)) => *sum += weight,
                        None => taps.push((tap, weight)),
                    }
                }
                for (_, weight) in &mut taps {
                    *weight /= total;
                }
                Some(taps)
            })
            .collect()
    }

    /// Weight of a neighbour at a distance.
    fn weight(&self, distance: f32) -> f32 {
        let d = distance.abs();
        let a = self.cubic;
        match self.mode {
            ResizeMode::Cubic if d <= 1.0 => ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0,
            ResizeMode::Cubic if d < 2.0 => ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a,
            ResizeMode::Cubic => 0.0,
            _ => (1.0 - d).max(0.0),
        }
    }
}

impl Behaviour for Resize {
    fn name(&self) -> &'static str {
        "Resize"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        let old = match source.operator {
            "Resize" => source.opset < 11,
            // An older operator with the rules of `Resize` at opset 10.
            "Upsample" => true,
            _ => return Ok(None),
        };
        if old {
            let mode = source.text_or("mode", "nearest")?;
            let mode = match mode.as_str() {
                "nearest" => ResizeMode::Nearest,
                "linear" | "bilinear" => ResizeMode::Linear,
                other => return Err(OperatorError::attribute("mode", "nearest or linear", other)),
            };
            match source.floats("scales")? {
                Some(scales) => source.new_inputs.push((2, Tensor::floats(&[scales.len()], scales)?)),
                None => source.moved_inputs.push((1, 2)),
            }
            return Ok(Some(Self {
                coordinates: Coordinates::Asymmetric,
                nearest: NearestRule::Floor,
                ..Self::new(mode)
            }));
        }
        Ok(Some(Self {
            mode: choice(source, "mode", "nearest", &MODES)?,
            coordinates: choice(source, "coordinate_transformation_mode", "half_pixel", &COORDINATES)?,
            nearest: choice(source, "nearest_mode", "round_prefer_floor", &NEAREST)?,
            antialias: source.flag("antialias", false)?,
            cubic: source.float_or("cubic_coeff_a", -0.75)?,
            exclude_outside: source.flag("exclude_outside", false)?,
            extrapolation: source.float_or("extrapolation_value", 0.0)?,
            axes: source.integers("axes")?.unwrap_or_default(),
            aspect: choice(source, "keep_aspect_ratio_policy", "stretch", &ASPECTS)?,
        }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        target.text("mode", name_of(&self.mode, &MODES));
        target.text("coordinate_transformation_mode", name_of(&self.coordinates, &COORDINATES));
        target.text("nearest_mode", name_of(&self.nearest, &NEAREST));
        target.float("cubic_coeff_a", self.cubic);
        target.flag("exclude_outside", self.exclude_outside);
        target.float("extrapolation_value", self.extrapolation);
        if self.antialias {
            target.flag("antialias", true);
        }
        if !self.axes.is_empty() {
            target.integers("axes", &self.axes);
        }
        if self.aspect != AspectRatio::Stretch {
            target.text("keep_aspect_ratio_policy", name_of(&self.aspect, &ASPECTS));
        }
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        let scales = inputs.optional(2).map(|_| inputs.value(2)).transpose()?.map(|scales| scales.to_f32());
        let sizes = inputs.optional_integers(3)?;
        let result = self.sizes(inputs.shape(0)?, scales.as_deref(), sizes.as_deref())?;
        Ok(vec![Fact::new(inputs.element(0)?, result.into_iter().map(|row| row.0).collect())])
    }

    fn forward(&self, arguments: &Arguments<'_>, _outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let value = arguments.get(0)?;
        let mut x = value.to_device(arguments.device);
        let shape = x.shape();
        let scales = arguments.optional(2).map(Value::to_host).transpose()?;
        let scales = scales.as_ref().map(|scales| scales.to_f32());
        let sizes = arguments.optional_integers(3)?;
        let sizes = self.sizes(&shape, scales.as_deref(), sizes.as_deref())?;
        let region = match (self.coordinates, arguments.optional(1)) {
            (Coordinates::TfCropAndResize, Some(region)) => region.to_host()?.to_f32().into_owned(),
            _ => Vec::new(),
        };
        let axes = if self.axes.is_empty() { (0..shape.len()).collect() } else { axes_of(&self.axes, shape.len())? };
        let cropped = self.coordinates == Coordinates::TfCropAndResize;
        let mut outside: Vec<(usize, Vec<bool>)> = Vec::new();
        for (axis, &(out, scale)) in sizes.iter().enumerate() {
            let region = match axes.iter().position(|&other| other == axis) {
                Some(index) if cropped && region.len() == 2 * axes.len() => (region[index], region[axes.len() + index]),
                _ => (0.0, 1.0),
            };
            if out == shape[axis] && scale == 1.0 && region == (0.0, 1.0) {
                continue;
            }
            let taps = self.taps(shape[axis], out, scale, region);
            if cropped {
                outside.push((axis, taps.iter().map(Option::is_none).collect()));
            }
            let taps: Vec<Taps> = taps.into_iter().map(|taps| taps.unwrap_or_else(|| vec![(0, 1.0)])).collect();
            x = resampled(x, axis, &taps, arguments.device);
        }
        for (axis, outside) in outside {
            let mut mask_shape = vec![1; shape.len()];
            mask_shape[axis] = outside.len();
            let number =
                |inside: f32, out: f32| outside.iter().map(|&is_out| if is_out { out } else { inside }).collect();
            let kept = DeviceTensor::new(number(1.0, 0.0), &mask_shape, arguments.device);
            let added = DeviceTensor::new(number(0.0, self.extrapolation), &mask_shape, arguments.device);
            x = x.mul(&kept).add(&added);
        }
        let result = Value::Device(x, value.element());
        Ok(vec![if value.element().is_float() { result } else { Value::Host(result.to_host()?) }])
    }

    fn least_opset(&self) -> i64 {
        if self.antialias || !self.axes.is_empty() || self.aspect != AspectRatio::Stretch {
            18
        } else if self.coordinates == Coordinates::HalfPixelSymmetric {
            19
        } else {
            13
        }
    }
}

/// Weighted sums of picked elements along one axis.
fn resampled(x: DeviceTensor, axis: usize, taps: &[Taps], device: &crate::Device) -> DeviceTensor {
    let most = taps.iter().map(Vec::len).max().unwrap_or(0);
    let mut weight_shape = vec![1; x.rank()];
    weight_shape[axis] = taps.len();
    let mut sum: Option<DeviceTensor> = None;
    for number in 0..most {
        let (places, weights): (Vec<usize>, Vec<f32>) =
            taps.iter().map(|taps| taps.get(number).copied().unwrap_or((0, 0.0))).unzip();
        let mut part = x.clone().selected(axis, &places);
        if weights.iter().any(|&weight| weight != 1.0) {
            part = part.mul(&DeviceTensor::new(weights, &weight_shape, device));
        }
        sum = Some(match sum {
            Some(sum) => sum.add(&part),
            None => part,
        });
    }
    sum.unwrap_or(x)
}
