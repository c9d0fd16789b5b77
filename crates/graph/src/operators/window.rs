//! Windows that slide over space: the geometry that convolutions and pools share.

use super::{Source, Target};
use crate::OperatorError;

/// How the padding of a window is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AutoPad {
    /// As the node's `pads` say.
    #[default]
    Explicit,
    /// So that the output is the input size over the stride, rounded up; an odd element goes to the end.
    SameUpper,
    /// The same with an odd element at the beginning.
    SameLower,
    /// None.
    Valid,
}

impl AutoPad {
    const NAMES: [(Self, &'static str); 4] = [
        (Self::Explicit, "NOTSET"),
        (Self::SameUpper, "SAME_UPPER"),
        (Self::SameLower, "SAME_LOWER"),
        (Self::Valid, "VALID"),
    ];

    pub(crate) fn read(source: &mut Source<'_>) -> Result<Self, OperatorError> {
        let name = source.text_or("auto_pad", "NOTSET")?;
        Self::NAMES
            .iter()
            .find(|(_, known)| *known == name)
            .map(|(mode, _)| *mode)
            .ok_or_else(|| OperatorError::attribute("auto_pad", "NOTSET, SAME_UPPER, SAME_LOWER or VALID", name))
    }

    pub(crate) fn write(self, target: &mut Target<'_>) {
        if let Some((_, name)) = Self::NAMES.iter().find(|(mode, _)| *mode == self)
            && self != Self::Explicit
        {
            target.text("auto_pad", name);
        }
    }
}

/// A list with one value an axis, where an empty list stands for `default` everywhere.
pub(crate) fn per_axis(name: &str, values: &[usize], axes: usize, default: usize) -> Result<Vec<usize>, OperatorError> {
    match values.len() {
        0 => Ok(vec![default; axes]),
        count if count == axes => Ok(values.to_vec()),
        count => Err(OperatorError::attribute(name, format!("{axes} values"), count)),
    }
}

/// A window with everything worked out for an input of known size.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// Taps along each axis.
    pub kernel: Vec<usize>,
    /// Step from one place to the next.
    pub stride: Vec<usize>,
    /// Distance of neighbouring taps.
    pub dilation: Vec<usize>,
    /// Elements before and after each axis.
    pub padding: Vec<(usize, usize)>,
    /// Places of the window along each axis.
    pub places: Vec<usize>,
}

/// Attributes of a window as a node gives them; empty lists stand for ones and zeros.
pub(crate) struct WindowAttributes<'a> {
    pub(crate) kernel: &'a [usize],
    pub(crate) strides: &'a [usize],
    pub(crate) dilations: &'a [usize],
    pub(crate) pads: &'a [usize],
    pub(crate) auto_pad: AutoPad,
    pub(crate) round_up: bool,
}

impl WindowAttributes<'_> {
    /// The window over an input with the given sides of space.
    pub(crate) fn over(&self, space: &[usize]) -> Result<Window, OperatorError> {
        let axes = space.len();
        let kernel = per_axis("kernel_shape", self.kernel, axes, 1)?;
        let stride = per_axis("strides", self.strides, axes, 1)?;
        let dilation = per_axis("dilations", self.dilations, axes, 1)?;
        let pads = per_axis("pads", self.pads, 2 * axes, 0)?;
        let mut padding = Vec::with_capacity(axes);
        let mut places = Vec::with_capacity(axes);
        for axis in 0..axes {
            if kernel[axis] == 0 || stride[axis] == 0 || dilation[axis] == 0 {
                return Err(OperatorError::attribute("kernel_shape, strides and dilations", "at least 1", 0));
            }
            let extent = (kernel[axis] - 1).saturating_mul(dilation[axis]).saturating_add(1);
            let (before, after) = match self.auto_pad {
                AutoPad::Explicit => (pads[axis], pads[axes + axis]),
                AutoPad::Valid => (0, 0),
                same => {
                    let wanted = (space[axis].div_ceil(stride[axis]).max(1) - 1) * stride[axis] + extent;
                    let total = wanted.saturating_sub(space[axis]);
                    let less = total / 2;
                    if same == AutoPad::SameUpper { (less, total - less) } else { (total - less, less) }
                }
            };
            let padded = space[axis].saturating_add(before).saturating_add(after);
            if padded > 1 << 31 {
                return Err(OperatorError::attribute("pads", "padding below 2^31", format!("{pads:?}")));
            }
            let Some(room) = padded.checked_sub(extent) else {
                return Err(OperatorError::mismatch(
                    format!("padded size of axis {axis} of space"),
                    format!("at least {extent}, the extent of the kernel"),
                    padded,
                ));
            };
            let mut count = room / stride[axis] + 1;
            if self.round_up && room % stride[axis] != 0 && count * stride[axis] < space[axis] + before {
                // The last window may reach over the border, but must begin inside.
                count += 1;
            }
            padding.push((before, after));
            places.push(count);
        }
        Ok(Window { kernel, stride, dilation, padding, places })
    }
}

impl Window {
    /// Padding with as much at the end as the last place of the window needs.
    pub(crate) fn covering(&self, space: &[usize]) -> Vec<(usize, usize)> {
        (0..space.len())
            .map(|axis| {
                let (before, after) = self.padding[axis];
                let reach =
                    (self.places[axis] - 1) * self.stride[axis] + (self.kernel[axis] - 1) * self.dilation[axis] + 1;
                (before, after.max(reach.saturating_sub(space[axis] + before)))
            })
            .collect()
    }

    /// How many elements of each place of the window along `axis` fall inside the input, or inside the padded input.
    pub fn counts(&self, axis: usize, side: usize, with_padding: bool) -> Vec<f32> {
        let (before, after) = self.padding[axis];
        let (least, greatest) = if with_padding { (0, before + side + after) } else { (before, before + side) };
        (0..self.places[axis])
            .map(|place| {
                let start = place * self.stride[axis];
                let inside = (0..self.kernel[axis])
                    .map(|tap| start + tap * self.dilation[axis])
                    .filter(|position| (least..greatest).contains(position));
                inside.count() as f32
            })
            .collect()
    }
}
