//! Clean sample, perturbation and perturbed sample as PNG images inside the document.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::{AuditError, Example};

/// Three images as data URIs, and what the middle one was multiplied with.
pub(super) struct Triptych {
    pub(super) clean: String,
    pub(super) perturbation: String,
    pub(super) perturbed: String,
    /// Factor on the perturbation before it is laid on mid-grey.
    pub(super) amplification: f64,
    /// Whether the image is so small that its pixels should stay visible.
    pub(super) small: bool,
    /// Pixels along its height and width.
    pub(super) sides: (usize, usize),
    /// The slice that is shown, where the sample is a volume of so many.
    pub(super) slice: Option<(usize, usize)>,
}

/// The images of an example, of a volume the slice that changed most; none for samples that are not images or volumes with 1
/// or 3 channels.
pub(super) fn triptych(example: &Example) -> Result<Option<Triptych>, AuditError> {
    let (channels, depth, height, width) = match *example.pair.shape() {
        [channels @ (1 | 3), height, width] => (channels, 1, height, width),
        [channels @ (1 | 3), depth, height, width] => (channels, depth, height, width),
        _ => return Ok(None),
    };
    if example.pair.len() != 2 {
        return Ok(None);
    }
    let (clean, perturbed) = (example.pair.row(0), example.pair.row(1));
    let (lower, upper) = (example.domain.lower(), example.domain.upper());
    let share = |element: usize, value: f32| {
        (f64::from(value) - f64::from(lower[element])) / (f64::from(upper[element]) - f64::from(lower[element]))
    };
    let change = |element: usize| share(element, perturbed[element]) - share(element, clean[element]);
    let pixels = height * width;
    let elements = |slice: usize| {
        (0..channels).flat_map(move |channel| (0..pixels).map(move |pixel| (channel * depth + slice) * pixels + pixel))
    };
    let changed = |slice: usize| elements(slice).map(|element| change(element).abs()).sum::<f64>();
    let slice = (0..depth).rev().max_by(|&a, &b| changed(a).total_cmp(&changed(b))).unwrap_or(0);
    let amplification = amplification(elements(slice).fold(0.0, |most, element| change(element).abs().max(most)));
    let level = |share: f64| (255.0 * share).round().clamp(0.0, 255.0) as u8;
    let image = |of: &dyn Fn(usize) -> f64| {
        let levels: Vec<u8> = elements(slice).map(|element| level(of(element))).collect();
        encode(channels, height, width, &levels)
    };
    Ok(Some(Triptych {
        clean: image(&|element| share(element, clean[element]))?,
        perturbation: image(&|element| 0.5 + amplification * change(element))?,
        perturbed: image(&|element| share(element, perturbed[element]))?,
        amplification,
        small: height.max(width) < 128,
        sides: (height, width),
        slice: (depth > 1).then_some((slice, depth)),
    }))
}

/// The greatest of 1, 2, 5, 10, 20, ... that keeps the greatest change (a share of the range) within half the range.
fn amplification(greatest: f64) -> f64 {
    if greatest <= 0.0 {
        return 1.0;
    }
    let mut best = 1.0;
    for power in 0..6 {
        for digit in [1.0, 2.0, 5.0] {
            let factor = digit * 10_f64.powi(power);
            // A hair above one half is rounding of the shares.
            if factor * greatest <= 0.5 + 1e-6 {
                best = factor;
            }
        }
    }
    best
}

/// A PNG as data URI from levels in channel-first order.
fn encode(channels: usize, height: usize, width: usize, levels: &[u8]) -> Result<String, AuditError> {
    let pixels = height * width;
    let interleaved: Vec<u8> =
        (0..pixels).flat_map(|pixel| (0..channels).map(move |channel| levels[channel * pixels + pixel])).collect();
    let side = |side: usize| {
        u32::try_from(side).map_err(|_| AuditError::invalid("side of an image", "below 2^32 pixels", side))
    };
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side(width)?, side(height)?);
    encoder.set_color(if channels == 1 { png::ColorType::Grayscale } else { png::ColorType::Rgb });
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(AuditError::encode("image"))?;
    writer.write_image_data(&interleaved).map_err(AuditError::encode("image"))?;
    writer.finish().map_err(AuditError::encode("image"))?;
    Ok(format!("data:image/png;base64,{}", STANDARD.encode(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::{Domain, Norm, Samples};

    fn example(shape: &[usize], values: Vec<f32>) -> Example {
        Example {
            sample: 0,
            attack: "fgsm".to_owned(),
            norm: Norm::Linf,
            epsilon: 4.0,
            label: "a".to_owned(),
            clean_decision: "a".to_owned(),
            perturbed_decision: "b".to_owned(),
            pair: Samples::new(values, shape).unwrap(),
            domain: Domain::grey_levels(shape, 255.0).unwrap(),
        }
    }

    fn decode(uri: &str) -> (png::ColorType, Vec<u8>) {
        let bytes = STANDARD.decode(uri.strip_prefix("data:image/png;base64,").unwrap()).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        (reader.info().color_type, pixels)
    }

    #[test]
    fn grey_images_keep_their_levels_and_the_change_is_amplified() {
        let found = triptych(&example(&[1, 1, 3], vec![0.0, 100.0, 255.0, 4.0, 98.0, 255.0])).unwrap().unwrap();
        assert_eq!(decode(&found.clean), (png::ColorType::Grayscale, vec![0, 100, 255]));
        assert_eq!(decode(&found.perturbed).1, [4, 98, 255]);
        // 4 of 255 allows 31.9; the next below is 20: 127.5 + 80, 127.5 − 40, 127.5, each rounded away from zero.
        assert_eq!(found.amplification, 20.0);
        assert_eq!(decode(&found.perturbation).1, [208, 88, 128]);
    }

    #[test]
    fn colour_planes_become_pixels() {
        let found = triptych(&example(&[3, 1, 2], (0..12).map(|v| v as f32).collect())).unwrap().unwrap();
        assert_eq!(decode(&found.clean), (png::ColorType::Rgb, vec![0, 2, 4, 1, 3, 5]));
    }

    #[test]
    fn of_a_volume_the_slice_that_changed_most_is_shown() {
        let mut values: Vec<f32> = (0..12).map(|v| v as f32).collect();
        values[8] = 255.0;
        let found = triptych(&example(&[1, 3, 1, 2], values)).unwrap().unwrap();
        // Perturbed values are 6, 7, 255, 9, 10, 11: all changed by 6 but the first of slice 1, by 253.
        assert_eq!((found.slice, found.sides), (Some((1, 3)), (1, 2)));
        assert_eq!((decode(&found.clean).1, decode(&found.perturbed).1), (vec![2, 3], vec![255, 9]));
    }

    #[test]
    fn what_is_no_image_has_no_triptych() {
        assert!(triptych(&example(&[6], vec![0.0; 12])).unwrap().is_none());
        assert!(triptych(&example(&[2, 1, 3], vec![0.0; 12])).unwrap().is_none());
    }

    #[test]
    fn the_factor_is_round_and_fits() {
        assert_eq!(amplification(0.0), 1.0);
        assert_eq!(amplification(0.5), 1.0);
        assert_eq!(amplification(0.9), 1.0);
        assert_eq!(amplification(0.05), 10.0);
        assert_eq!(amplification(0.051), 5.0);
        assert_eq!(amplification(1.0 / 255.0), 100.0);
    }
}
