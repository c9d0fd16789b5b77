//! Pictures stored with loss on their way to the model, as archives and viewers do.

use std::fmt;
use std::str::FromStr;

use jpeg_encoder::{ColorType, Encoder};
use serde::{Deserialize, Serialize};

use nocebo_core::{Domain, Error, Samples};

use crate::DataError;
use crate::formats::{grey_bits, picture};

/// A lossy way to store pictures of 8 bits: `jpeg:90` is a baseline JPEG of quality 90, with the chroma of RGB halved below that.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct StoreAs {
    quality: u8,
}

impl fmt::Display for StoreAs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "jpeg:{}", self.quality)
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
        let quality = text.strip_prefix("jpeg:").and_then(|quality| quality.parse().ok());
        let usable = quality.filter(|quality| (1..=100).contains(quality));
        let refuse =
            || Error::invalid("store_as", "jpeg: and a quality from 1 to 100, such as jpeg:90", format!("`{text}`"));
        usable.map(|quality| Self { quality }).ok_or_else(refuse)
    }
}

impl StoreAs {
    /// Refuses samples that are no such pictures.
    ///
    /// # Errors
    ///
    /// When the shape is not `[1 or 3, height, width]`, or values are not whole numbers from 0 to at most 255.
    pub fn check(self, domain: &Domain) -> Result<(), Error> {
        let sides = matches!(domain.shape(), [1 | 3, height, width] if u16::try_from((*height).max(*width)).is_ok());
        if sides && grey_bits(domain) == Some(8) && domain.resolution().iter().all(|step| *step == 1.0) {
            return Ok(());
        }
        Err(Error::unsupported(format!("store_as {self} of these samples"), "only pictures of 8 bits can be stored so"))
    }

    /// The samples (rounded to whole levels) as they are read back.
    ///
    /// # Errors
    ///
    /// As [`StoreAs::check`], and when the encoder fails.
    pub fn store(self, samples: &Samples, domain: &Domain) -> Result<Samples, DataError> {
        self.check(domain)?;
        let mut stored = samples.clone();
        let shape = domain.shape();
        let (channels, height, width) = (shape[0], shape[1], shape[2]);
        for row in stored.rows_mut() {
            let area = height * width;
            let pixels: Vec<u8> =
                (0..row.len()).map(|at| row[at % channels * area + at / channels].round() as u8).collect();
            let mut bytes = Vec::new();
            let kind = if channels == 1 { ColorType::Luma } else { ColorType::Rgb };
            Encoder::new(&mut bytes, self.quality)
                .encode(&pixels, width as u16, height as u16, kind)
                .map_err(|error| Error::Model(error.into()))?;
            row.copy_from_slice(&picture::decode(&bytes, "picture.jpg", u64::MAX)?.values);
            domain.store(row);
        }
        Ok(stored)
    }
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
    fn other_texts_and_samples_are_refused() {
        for text in ["jpeg", "jpeg:0", "jpeg:101", "jpeg:9.5", "png:9", "jpeg2000:9"] {
            assert!(text.parse::<StoreAs>().is_err(), "{text}");
        }
        let store: StoreAs = "jpeg:90".parse().unwrap();
        assert_eq!(store.to_string(), "jpeg:90");
        for (shape, greatest) in [(&[1, 4, 4][..], 4095.0), (&[2, 4, 4], 255.0), (&[1, 2, 4, 4], 255.0)] {
            let domain = Domain::grey_levels(shape, greatest).unwrap();
            assert!(store.check(&domain).unwrap_err().to_string().contains("jpeg:90"), "{shape:?}");
        }
    }
}
