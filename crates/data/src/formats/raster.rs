//! What NRRD and MetaImage share: a text header, then the values of a grid, as they are or deflated.
//!
//! The stored type gives bounds and step, as for NIfTI; there is no scaling. Values lie fastest along the first axis of the
//! header, so a sample is `[fourth, third, second, first axis]`.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use flate2::read::{GzDecoder, ZlibDecoder};

use nocebo_core::{Domain, DomainConfig, Field, Samples, Unit};

use super::nifti::{RATIO, RATIO_FREE_BYTES, Stored, is_usable_spacing};
use crate::{DataError, OpenOptions, Warning};

/// Bytes of a header.
const HEADER: u64 = 1 << 20;
/// What is said in a written header.
pub(super) const NOTE: &str = "written by nocebo; may be perturbed, not for clinical use";

/// How the values are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Raw,
    Gzip,
    Zlib,
}

/// What a header says of its values.
pub(super) struct Layout {
    /// Sizes, the fastest first.
    pub(super) sides: Vec<u64>,
    pub(super) stored: Stored,
    pub(super) big_endian: bool,
    pub(super) packing: Packing,
    /// File of the values beside the header; `None` where they follow it.
    pub(super) detached: Option<String>,
    /// Distance of voxels along each axis, the fastest first.
    pub(super) spacing: Vec<f64>,
    /// Lines that say where the voxels lie, as they stand.
    pub(super) geometry: Vec<String>,
}

/// A volume with its geometry and the way it is stored.
#[derive(Clone, Debug)]
pub struct Volume {
    samples: Samples,
    domain: Domain,
    warnings: Vec<Warning>,
    pub(super) sides: Vec<u64>,
    pub(super) stored: Stored,
    pub(super) packing: Packing,
    pub(super) spacing: [f64; 3],
    pub(super) geometry: Vec<String>,
}

impl Volume {
    /// One sample `[channels, depth, height, width]` in the unit of the domain.
    pub fn samples(&self) -> &Samples {
        &self.samples
    }

    /// Unit, bounds and stored step.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// What was assumed while reading.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Distance of voxels in the unit of the header (mm) along depth, height and width.
    pub fn spacing(&self) -> [f64; 3] {
        self.spacing
    }
}

/// Reads the lines of a header up to one that ends it; the reader then stands at the values.
pub(super) fn header(
    path: &Path,
    file: &str,
    mut is_last: impl FnMut(&str) -> bool,
) -> Result<(Vec<String>, BufReader<File>), DataError> {
    let mut reader = BufReader::new(File::open(path).map_err(DataError::reading(file))?);
    let (mut lines, mut total) = (Vec::new(), 0);
    loop {
        let mut line = Vec::new();
        let read = (&mut reader).take(HEADER).read_until(b'\n', &mut line).map_err(DataError::reading(file))?;
        total += read as u64;
        DataError::check_limit(file, "bytes of the header", HEADER, total)?;
        let Ok(text) = String::from_utf8(line) else {
            return Err(DataError::format(file, format!("line {}", lines.len() + 1), "text", "other bytes"));
        };
        let text = text.trim_end_matches(['\n', '\r']).to_owned();
        let last = read == 0 || is_last(&text);
        lines.push(text);
        if last {
            return Ok((lines, reader));
        }
    }
}

/// What a header says, field by field.
pub(super) struct Fields<'a> {
    pub(super) file: &'a str,
    pub(super) pairs: Vec<(String, &'a str)>,
}

impl Fields<'_> {
    /// The first field of any of these names.
    pub(super) fn find(&self, names: &[&str]) -> Option<&str> {
        self.pairs.iter().find(|(name, _)| names.contains(&name.as_str())).map(|(_, value)| *value)
    }

    pub(super) fn need(&self, name: &str) -> Result<&str, DataError> {
        self.find(&[name]).ok_or_else(|| DataError::format(self.file, "header", format!("a field `{name}`"), "none"))
    }

    /// The sizes, as many as the field `dimension` says.
    pub(super) fn sides(&self, dimension: &'static str, sizes: &'static str) -> Result<Vec<u64>, DataError> {
        let sides: Vec<u64> = numbers(self.file, sizes, self.need(sizes)?)?;
        let said = self.need(dimension)?;
        if said.parse() == Ok(sides.len()) {
            return Ok(sides);
        }
        Err(DataError::format(self.file, dimension, format!("{}, one a size", sides.len()), format!("`{said}`")))
    }

    /// The fields of these names as lines.
    pub(super) fn lines(&self, names: &[&str], separator: &str) -> Vec<String> {
        let kept = self.pairs.iter().filter(|(name, _)| names.contains(&name.as_str()));
        kept.map(|(name, value)| format!("{name}{separator}{value}")).collect()
    }
}

/// Numbers between blanks.
pub(super) fn numbers<T: std::str::FromStr>(file: &str, field: &str, text: &str) -> Result<Vec<T>, DataError> {
    let parsed: Option<Vec<T>> = text.split_whitespace().map(|part| part.parse().ok()).collect();
    parsed.ok_or_else(|| {
        DataError::format(file, format!("field `{field}`"), "numbers between blanks", format!("`{text}`"))
    })
}

/// Reads the values that a header describes; `rest` follows it.
pub(super) fn values(
    path: &Path,
    file: &str,
    layout: Layout,
    rest: BufReader<File>,
    options: &OpenOptions,
) -> Result<Volume, DataError> {
    let Layout { sides, stored, big_endian, packing, detached, spacing, geometry } = layout;
    if !(2..=4).contains(&sides.len()) || sides.contains(&0) {
        return Err(DataError::format(file, "sizes", "two to four, each at least 1", format!("{sides:?}")));
    }
    let count = sides.iter().try_fold(1_u64, |product, &side| product.checked_mul(side)).unwrap_or(u64::MAX);
    DataError::check_limit(file, "voxels", options.limits.values, count)?;
    if spacing.len() != sides.len() || spacing.iter().take(3).any(|spacing| !is_usable_spacing(*spacing)) {
        return Err(DataError::format(file, "spacing", "one from 1e-6 to 1e6 an axis", format!("{spacing:?}")));
    }
    let (mut reader, name) = match detached {
        None => (rest, file.to_owned()),
        Some(name) => {
            let beside = beside(path, file, &name)?;
            (BufReader::new(File::open(beside).map_err(DataError::reading(&name))?), name)
        }
    };
    let length = reader.get_ref().metadata().map_err(DataError::reading(&name))?.len();
    let total = count * stored.bytes() as u64;
    let bytes = match packing {
        Packing::Raw => {
            if total > length {
                return Err(DataError::format(&name, "size", format!("{total} bytes, as the header says"), length));
            }
            exactly(&mut reader, total, &name)?
        }
        Packing::Gzip | Packing::Zlib => {
            if total > RATIO_FREE_BYTES {
                DataError::check_limit(&name, "compression ratio", RATIO, total / length.max(1))?;
            }
            if packing == Packing::Gzip {
                exactly(&mut GzDecoder::new(reader), total, &name)?
            } else {
                exactly(&mut ZlibDecoder::new(reader), total, &name)?
            }
        }
    };
    let size = stored.bytes();
    let decode = |element: &[u8]| {
        let mut number = [0; 8];
        number[..size].copy_from_slice(element);
        if big_endian {
            number[..size].reverse();
        }
        stored.decode(number) as f32
    };
    let values: Vec<f32> = bytes.chunks_exact(size).map(decode).collect();
    if let Some(element) = values.iter().position(|value| !value.is_finite()) {
        return Err(DataError::NonFinite {
            file: file.to_owned(),
            sample: 0,
            element,
            value: f64::from(values[element]),
        });
    }
    let side = |axis: usize| sides.get(axis).map_or(1, |&side| side as usize);
    let samples = Samples::new(values, &[side(3), side(2), side(1), side(0)])?;
    let mut warnings = Vec::new();
    let domain = domain(&samples, stored, options, &mut warnings)?;
    domain.check(&samples)?;
    let spacing = [2, 1, 0].map(|axis| spacing.get(axis).copied().unwrap_or(1.0));
    Ok(Volume { samples, domain, warnings, sides, stored, packing, spacing, geometry })
}

/// The file of this name beside a header; no other folder is ever looked into.
fn beside(path: &Path, file: &str, name: &str) -> Result<PathBuf, DataError> {
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', ' ', '%']) {
        let advice = "put one file of values beside the header";
        return Err(DataError::refused(file, "a header whose values are not in one file of the same folder", advice));
    }
    Ok(path.with_file_name(name))
}

/// So many bytes and no more; reading to the end checks what compressed data say of themselves.
fn exactly(reader: &mut impl Read, total: u64, file: &str) -> Result<Vec<u8>, DataError> {
    let mut bytes = Vec::new();
    let read = reader.take(total + 1).read_to_end(&mut bytes).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => DataError::format(file, "values", "a whole file", "a truncated one"),
        std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData => {
            DataError::format(file, "compressed values", "undamaged data", error)
        }
        _ => DataError::Read { file: file.to_owned(), source: error },
    })?;
    if read as u64 != total {
        return Err(DataError::format(file, "values", format!("{total} bytes"), format!("{read} or more")));
    }
    Ok(bytes)
}

fn domain(
    samples: &Samples,
    stored: Stored,
    options: &OpenOptions,
    warnings: &mut Vec<Warning>,
) -> Result<Domain, DataError> {
    let (low, high) = stored.range();
    let (low, high) = if high <= 65535.0 {
        (low as f32, high as f32)
    } else {
        let ends = |(low, high): (f32, f32), &value: &f32| (low.min(value), high.max(value));
        let (low, high) = samples.values().iter().fold((f32::INFINITY, f32::NEG_INFINITY), ends);
        if options.bounds.is_none() {
            let text = format!("bounds {low} to {high} are those of the values in the file; give others if known");
            warnings.push(Warning::Assumption { text });
        }
        // A flat volume still needs two different bounds.
        (low, if low < high { high } else { low + low.abs().max(1.0) })
    };
    let (lower, upper) = options.bounds_or((low, high))?;
    let config = DomainConfig {
        shape: samples.shape().to_vec(),
        unit: options.unit.clone().unwrap_or(Unit::Other("intensity".to_owned())),
        lower: Field::Uniform(lower),
        upper: Field::Uniform(upper),
        resolution: Field::Uniform(if stored.is_float() { 0.0 } else { 1.0 }),
        region: None,
    };
    Ok(config.try_into()?)
}

/// The stored bytes of other values of this volume, packed as the volume was.
pub(super) fn packed(volume: &Volume, samples: &Samples) -> Result<Vec<u8>, DataError> {
    if samples.len() != 1 {
        return Err(nocebo_core::Error::mismatch("samples of a volume", 1, samples.len()).into());
    }
    volume.domain.check(samples)?;
    let (low, high) = volume.stored.range();
    let size = volume.stored.bytes();
    let mut bytes = Vec::with_capacity(samples.elements() * size);
    for (element, &value) in samples.values().iter().enumerate() {
        let number = f64::from(value);
        if !volume.stored.is_float() && (number.fract() != 0.0 || !(low..=high).contains(&number)) {
            return Err(DataError::OffGrid { sample: 0, element, value, storage: "as a whole number of this type" });
        }
        bytes.extend(&volume.stored.encode(number)[..size]);
    }
    // Writing to memory cannot fail.
    let level = flate2::Compression::default();
    Ok(match volume.packing {
        Packing::Raw => bytes,
        Packing::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            let done = encoder.write_all(&bytes).and_then(|()| encoder.finish());
            done.map_err(DataError::writing("values"))?
        }
        Packing::Zlib => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
            let done = encoder.write_all(&bytes).and_then(|()| encoder.finish());
            done.map_err(DataError::writing("values"))?
        }
    })
}
