//! Pictures stored with loss on their way to the model, as archives and viewers do.

use std::fmt;
use std::str::FromStr;

use jpeg_encoder::{ColorType, Encoder};
use serde::{Deserialize, Serialize};

use nocebo_core::{Domain, Error, Samples};

use crate::DataError;
use crate::formats::{grey_bits, picture};

/// A lossy way to store pictures: `jpeg:90` is a baseline JPEG of quality 90, with the chroma of RGB halved below that, for 8 bits;
/// `jpeg2000:10` a JPEG 2000 codestream of about a tenth of the size of the values, for up to 16 bits.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct StoreAs(Codec);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Codec {
    Jpeg {
        quality: u8,
    },
    Jpeg2000 {
        /// Bytes of the values for each that is kept.
        ratio: f32,
    },
}

impl fmt::Display for StoreAs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Codec::Jpeg { quality } => write!(formatter, "jpeg:{quality}"),
            Codec::Jpeg2000 { ratio } => write!(formatter, "jpeg2000:{ratio}"),
        }
    }
}

impl From<StoreAs> for String {
    fn from(store: StoreAs) -> Self {
        store.to_string()
    }
}

impl TryFrom<String> for StoreAs {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl FromStr for StoreAs {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let codec = match text.split_once(':') {
            Some(("jpeg", quality)) => quality
                .parse()
                .ok()
                .filter(|quality| (1..=100).contains(quality))
                .map(|quality| Codec::Jpeg { quality }),
            Some(("jpeg2000", ratio)) => ratio
                .parse()
                .ok()
                .filter(|ratio| *ratio > 1.0 && *ratio <= 1000.0)
                .map(|ratio| Codec::Jpeg2000 { ratio }),
            _ => None,
        };
        let must_be =
            "jpeg: and a quality from 1 to 100, such as jpeg:90, or jpeg2000: and a ratio above 1, such as jpeg2000:10";
        codec.map(Self).ok_or_else(|| Error::invalid("store_as", must_be, format!("`{text}`")))
    }
}

impl StoreAs {
    /// Refuses samples that are no such pictures.
    ///
    /// # Errors
    ///
    /// When the shape is not `[1 or 3, height, width]`; for JPEG, when values are not whole numbers from 0 to at most 255; for JPEG
    /// 2000, when they are not on at most 2^16 levels, the same for all.
    pub fn check(self, domain: &Domain) -> Result<(), Error> {
        let sides = matches!(domain.shape(), [1 | 3, height, width] if u16::try_from((*height).max(*width)).is_ok());
        let (fits, which) = match self.0 {
            Codec::Jpeg { .. } => (
                grey_bits(domain) == Some(8) && domain.resolution().iter().all(|step| *step == 1.0),
                "only pictures of 8 bits can be stored so",
            ),
            Codec::Jpeg2000 { .. } => (levels(domain).is_some(), "only pictures of at most 16 bits can be stored so"),
        };
        if sides && fits {
            return Ok(());
        }
        Err(Error::unsupported(format!("store_as {self} of these samples"), which))
    }

    /// The samples (rounded to whole steps) as they are read back.
    ///
    /// # Errors
    ///
    /// As [`StoreAs::check`], and when the encoder fails.
    pub fn store(self, samples: &Samples, domain: &Domain) -> Result<Samples, DataError> {
        self.check(domain)?;
        let mut stored = samples.clone();
        for row in stored.rows_mut() {
            match self.0 {
                Codec::Jpeg { quality } => jpeg(quality, row, domain)?,
                Codec::Jpeg2000 { ratio } => jpeg2000(ratio, row, domain)?,
            }
            domain.store(row);
        }
        Ok(stored)
    }
}

fn jpeg(quality: u8, row: &mut [f32], domain: &Domain) -> Result<(), DataError> {
    let shape = domain.shape();
    let (channels, height, width) = (shape[0], shape[1], shape[2]);
    let area = height * width;
    let pixels: Vec<u8> = (0..row.len()).map(|at| row[at % channels * area + at / channels].round() as u8).collect();
    let mut bytes = Vec::new();
    let kind = if channels == 1 { ColorType::Luma } else { ColorType::Rgb };
    Encoder::new(&mut bytes, quality)
        .encode(&pixels, width as u16, height as u16, kind)
        .map_err(|error| Error::Model(error.into()))?;
    row.copy_from_slice(&picture::decode(&bytes, "picture.jpg", u64::MAX)?.values);
    Ok(())
}

fn jpeg2000(ratio: f32, row: &mut [f32], domain: &Domain) -> Result<(), DataError> {
    let failed = |why: String| DataError::from(Error::Model(format!("JPEG 2000: {why}").into()));
    let (lower, step, greatest) = levels(domain).ok_or_else(|| failed("no levels".to_owned()))?;
    let shape = domain.shape();
    let area = shape[1] * shape[2];
    let level = |value: &f32| (((value - lower) / step).round() as i32).clamp(0, greatest);
    let planes: Vec<Vec<i32>> = row.chunks_exact(area).map(|plane| plane.iter().map(level).collect()).collect();
    let bits = (greatest.ilog2() + 1) as u8;
    let bytes = nocebo_jpeg2000::encode(&planes, [shape[2], shape[1]], bits, ratio)
        .map_err(|error| failed(error.to_owned()))?;
    let image = jpeg2k::Image::from_bytes(&bytes).map_err(|error| failed(error.to_string()))?;
    for (plane, component) in row.chunks_exact_mut(area).zip(image.components()) {
        for (value, level) in plane.iter_mut().zip(component.data()) {
            *value = lower + (*level).clamp(0, greatest) as f32 * step;
        }
    }
    Ok(())
}

/// The lower bound, the step and the greatest level of samples whose elements all have the same, of at most 2^16 levels.
fn levels(domain: &Domain) -> Option<(f32, f32, i32)> {
    let only = |values: &[f32]| values.first().copied().filter(|first| values.iter().all(|value| value == first));
    let (lower, upper, step) = (only(domain.lower())?, only(domain.upper())?, only(domain.resolution())?);
    let greatest = ((upper - lower) / step).floor();
    (step > 0.0 && (1.0..65536.0).contains(&greatest)).then_some((lower, step, greatest as i32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_lose_what_jpeg_loses_and_keep_their_place() {
        for channels in [1, 3] {
            let shape = [channels, 9, 11];
            let domain = Domain::grey_levels(&shape, 255.0).unwrap();
            // A slope, and one step of the finest chessboard on it.
            let slope = |at: usize| (at % 11 * 10 + at / 11 % 9 * 8) as f32;
            let values: Vec<f32> = (0..channels * 99).map(|at| slope(at) + (at / 11 + at) as f32 % 2.0).collect();
            let samples = Samples::new([values.clone(), vec![7.0; values.len()]].concat(), &shape).unwrap();
            let far = |text: &str| {
                let stored = text.parse::<StoreAs>().unwrap().store(&samples, &domain).unwrap();
                assert!(stored.row(1).iter().all(|value| (value - 7.0).abs() <= 1.0), "flat");
                samples.row(0).iter().zip(stored.row(0)).map(|(old, new)| (old - new).abs()).sum::<f32>()
            };
            let (fine, coarse) = (far("jpeg:100"), far("jpeg:30"));
            assert!(fine < 1.5 * values.len() as f32 && coarse > 0.0 && fine < coarse, "{fine} {coarse}");
        }
    }

    #[test]
    fn ct_loses_what_jpeg_2000_loses_and_keeps_its_unit() {
        let domain: Domain = nocebo_core::DomainConfig {
            shape: vec![1, 32, 40],
            unit: nocebo_core::Unit::Hounsfield,
            lower: nocebo_core::Field::Uniform(-1024.0),
            upper: nocebo_core::Field::Uniform(3071.0),
            resolution: nocebo_core::Field::Uniform(1.0),
            region: None,
        }
        .try_into()
        .unwrap();
        // Lung, tissue, and a chessboard of 10 HU in a corner.
        let value = |at: usize| match (at % 40, at / 40) {
            (x, y) if x < 8 && y < 8 => 40.0 + 10.0 * ((x + y) % 2) as f32,
            (x, _) if x < 20 => 40.0,
            _ => -850.0,
        };
        let samples = Samples::new((0..1280).map(value).collect(), domain.shape()).unwrap();
        let far = |text: &str| {
            let stored = text.parse::<StoreAs>().unwrap().store(&samples, &domain).unwrap();
            assert!(stored.row(0).iter().all(|value| value.fract() == 0.0));
            let apart = samples.row(0).iter().zip(stored.row(0)).map(|(old, new)| (old - new).abs());
            apart.fold(0.0, f32::max)
        };
        let (fine, coarse) = (far("jpeg2000:2"), far("jpeg2000:20"));
        assert!(fine < 5.0 && coarse > 5.0 && coarse < 200.0, "{fine} {coarse}");
    }

    #[test]
    fn other_texts_and_samples_are_refused() {
        for text in ["jpeg", "jpeg:0", "jpeg:101", "jpeg:9.5", "png:9", "jpeg2000:1", "jpeg2000:nan", "jpeg2000", ":9"]
        {
            assert!(text.parse::<StoreAs>().is_err(), "{text}");
        }
        let store: StoreAs = "jpeg:90".parse().unwrap();
        assert_eq!(store.to_string(), "jpeg:90");
        for (shape, greatest) in [(&[1, 4, 4][..], 4095.0), (&[2, 4, 4], 255.0), (&[1, 2, 4, 4], 255.0)] {
            let domain = Domain::grey_levels(shape, greatest).unwrap();
            assert!(store.check(&domain).unwrap_err().to_string().contains("jpeg:90"), "{shape:?}");
        }
        let store: StoreAs = "jpeg2000:7.5".parse().unwrap();
        assert_eq!(store.to_string(), "jpeg2000:7.5");
        assert!(store.check(&Domain::grey_levels(&[1, 4, 4], 4095.0).unwrap()).is_ok());
        for (shape, greatest) in [(&[1, 4, 4][..], 65536.0), (&[2, 4, 4], 255.0)] {
            let domain = Domain::grey_levels(shape, greatest).unwrap();
            assert!(store.check(&domain).unwrap_err().to_string().contains("jpeg2000:7.5"), "{shape:?}");
        }
    }
}
