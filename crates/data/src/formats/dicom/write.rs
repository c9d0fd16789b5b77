//! Images written as uncompressed explicit little-endian files.
//!
//! Every file gets an empty preamble, unique identifiers derived from what it holds (`2.25.`, a number of 128 bits), and
//! no attribute but those named here: what a source file says about people, places and times is not carried over.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use sha2::{Digest, Sha256};

use nocebo_core::{Domain, Unit};

use super::tags::{self, Tag};
use crate::formats::folder::write_table;
use crate::formats::{write_new_file, write_new_folder};
use crate::{DataError, Dataset};

const EXPLICIT_LITTLE: &str = "1.2.840.10008.1.2.1";
const SECONDARY_CAPTURE: &str = "1.2.840.10008.5.1.4.1.1.7";
/// Storage classes whose required attributes can be empty, by modality; single frames only.
const CLASSES: [(&str, &str); 3] =
    [("CR", "1.2.840.10008.5.1.4.1.1.1"), ("CT", "1.2.840.10008.5.1.4.1.1.2"), ("MR", "1.2.840.10008.5.1.4.1.1.4")];

/// An image to be written with [`write_image`], in numbers as they are stored.
#[derive(Clone, Debug)]
pub struct NewImage<'a> {
    /// Modality, such as `CT`; at most 16 capital letters and digits.
    pub modality: &'a str,
    /// `[channels, frames, rows, columns]`: 1 channel is grey, 3 are red, green and blue.
    pub shape: [usize; 4],
    /// Stored numbers, in the order of `shape`.
    pub stored: &'a [i32],
    /// Bits of a stored number, 1 to 16.
    pub bits: u16,
    /// Whether stored numbers are two's complement.
    pub signed: bool,
    /// Physical units a stored step; not 0.
    pub slope: f64,
    /// Physical value of the stored number 0.
    pub intercept: f64,
    /// Millimetres between rows and between columns.
    pub spacing: Option<[f64; 2]>,
    /// Thickness of the slice in millimetres.
    pub thickness: Option<f64>,
    /// Centre and width of the window that the image is looked at with, in physical units.
    pub window: Option<[f64; 2]>,
    /// Key of the patient, invented or a pseudonym; written into the file.
    pub patient: &'a str,
    /// Key of the series; images of one patient and one key share the identifiers of study and series.
    pub series: &'a str,
    /// Number of the image in its series.
    pub number: u32,
    /// What the image is, in at most 64 characters.
    pub description: &'a str,
}

/// What all images of a data set that is written with [`write_dataset`] have in common.
#[derive(Clone, Copy, Debug)]
pub struct Acquisition<'a> {
    /// Modality, such as `CT`.
    pub modality: &'a str,
    /// Millimetres between rows and between columns.
    pub spacing: Option<[f64; 2]>,
    /// Thickness of a slice in millimetres.
    pub thickness: Option<f64>,
    /// Centre and width of the window, in the unit of the data.
    pub window: Option<[f64; 2]>,
    /// What the images are, in at most 64 characters.
    pub description: &'a str,
}

/// Writes one image to the new file `path`.
///
/// ```
/// # use nocebo_data::formats::dicom::{NewImage, write_image};
/// # let folder = std::env::temp_dir().join(format!("nocebo-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// let air_and_water = [0, 1024, 1024, 0];
/// let image = NewImage {
///     modality: "CT", shape: [1, 1, 2, 2], stored: &air_and_water, bits: 12, signed: false, slope: 1.0,
///     intercept: -1024.0, spacing: Some([0.7, 0.7]), thickness: Some(5.0), window: Some([40.0, 400.0]),
///     patient: "phantom-1", series: "1", number: 1, description: "two voxels of water",
/// };
/// write_image(&folder.join("slice.dcm"), &image)?;
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// A number that does not fit its bits, a shape that does not fit or is too large for the format, a text that the format
/// cannot hold, a slope or intercept that is not usable; a file that exists or cannot be written.
pub fn write_image(path: &Path, image: &NewImage<'_>) -> Result<(), DataError> {
    let elements = elements_of(&crate::formats::file_name(path), image)?;
    write_elements(path, &elements)
}

/// Writes a data set into the new folder `path`: one file a sample, named by its index, and a `labels.csv`.
///
/// Samples are `[1 or 3, rows, columns]`, or `[1 or 3, frames, rows, columns]` as files of several frames. The domain
/// gives slope (its step, which must be above 0) and intercept (its lower bound, stored as 0). Hounsfield units are marked
/// as such. Patients are written as they are: give invented ones.
///
/// # Errors
///
/// As [`write_image`]; masks; a domain whose bounds or step differ from element to element or need more than 16 bits; a
/// value that lies between two steps.
pub fn write_dataset(path: &Path, data: &Dataset, acquisition: &Acquisition<'_>) -> Result<(), DataError> {
    let domain = data.domain();
    let (lower, upper, step) = uniform(domain)?;
    let levels = ((upper - lower) / step).round() as u64;
    let bits = u64::BITS - levels.leading_zeros();
    if data.is_segmentation() || bits > 16 || bits == 0 {
        return Err(unsupported("masks, or more than 65536 different values"));
    }
    let shape = match *domain.shape() {
        [channels, rows, columns] => [channels, 1, rows, columns],
        [channels, frames, rows, columns] => [channels, frames, rows, columns],
        _ => {
            return Err(unsupported(
                "samples that are neither [1 or 3, rows, columns] nor have frames before the rows",
            ));
        }
    };
    let names: Vec<String> = data.samples().indices().iter().map(|&index| name_of(index)).collect();
    let mut files = Vec::with_capacity(data.len());
    for (row, (values, &index)) in data.samples().rows().zip(data.samples().indices()).enumerate() {
        let stored: Vec<i32> = on_grid(row, values, lower, step)?;
        let image = NewImage {
            modality: acquisition.modality,
            shape,
            stored: &stored,
            bits: bits as u16,
            signed: false,
            slope: step,
            intercept: lower,
            spacing: acquisition.spacing,
            thickness: acquisition.thickness,
            window: acquisition.window,
            patient: data.patients().map_or("", |patients| &patients[row]),
            series: data.source(),
            number: index.saturating_add(1).min(i32::MAX as u64) as u32,
            description: acquisition.description,
        };
        let mut elements = elements_of(&names[row], &image)?;
        if *domain.unit() == Unit::Hounsfield {
            elements.text(tags::RESCALE_TYPE, *b"LO", "HU");
        }
        files.push(elements);
    }
    write_files(path, &names, &files, data)
}

/// Name of the file of a sample.
pub(super) fn name_of(index: u64) -> String {
    format!("{index:06}.dcm")
}

/// Writes files and table into a folder that is there whole or not at all.
pub(super) fn write_files(path: &Path, names: &[String], files: &[Elements], data: &Dataset) -> Result<(), DataError> {
    write_new_folder(path, |folder| {
        for (name, elements) in names.iter().zip(files) {
            write_elements(&folder.join(name), elements)?;
        }
        write_table(folder, data, names)
    })
}

/// Lower bound, upper bound and step of a domain that has one of each.
fn uniform(domain: &Domain) -> Result<(f64, f64, f64), DataError> {
    let one = |values: &[f32]| values.iter().all(|value| *value == values[0]).then(|| f64::from(values[0]));
    match (one(domain.lower()), one(domain.upper()), one(domain.resolution())) {
        (Some(lower), Some(upper), Some(step)) if step > 0.0 => Ok((lower, upper, step)),
        _ => Err(unsupported("a domain without one step and one pair of bounds for all elements")),
    }
}

fn unsupported(what: &'static str) -> DataError {
    nocebo_core::Error::unsupported("a DICOM image", format!("{what} cannot be stored in one")).into()
}

/// Whole numbers of steps above the lower bound.
fn on_grid(sample: usize, values: &[f32], lower: f64, step: f64) -> Result<Vec<i32>, DataError> {
    let place = |(element, &value): (usize, &f32)| {
        let steps = (f64::from(value) - lower) / step;
        if (steps - steps.round()).abs() > 1e-3 {
            return Err(DataError::OffGrid { sample, element, value, storage: "in a DICOM image" });
        }
        Ok(steps.round() as i32)
    };
    values.iter().enumerate().map(place).collect()
}

/// A unique identifier that depends on the given parts alone.
pub(super) fn unique(parts: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let number = hasher.finalize().iter().take(16).fold(0, |number: u128, byte| number << 8 | u128::from(*byte));
    // Version 8 (of one's own making) and variant of RFC 9562, as `2.25.` stands for a UUID.
    let number = number & !(0xf << 76) & !(0x3 << 62) | 0x8 << 76 | 0x2 << 62;
    format!("2.25.{number}")
}

/// Attributes to be written, with their little-endian values, in the order of the file.
#[derive(Default)]
pub(super) struct Elements(BTreeMap<Tag, ([u8; 2], Vec<u8>)>);

impl Elements {
    pub(super) fn put(&mut self, tag: Tag, vr: [u8; 2], value: Vec<u8>) {
        self.0.insert(tag, (vr, value));
    }

    pub(super) fn text(&mut self, tag: Tag, vr: [u8; 2], text: &str) {
        self.put(tag, vr, text.as_bytes().to_vec());
    }

    pub(super) fn short(&mut self, tag: Tag, value: u16) {
        self.put(tag, *b"US", value.to_le_bytes().to_vec());
    }

    pub(super) fn decimals(&mut self, tag: Tag, values: &[f64]) {
        let texts: Vec<String> = values.iter().copied().map(decimal).collect();
        self.text(tag, *b"DS", &texts.join("\\"));
    }

    #[cfg(test)]
    pub(super) fn remove(&mut self, tag: Tag) {
        self.0.remove(&tag);
    }

    fn text_of(&self, tag: Tag) -> &[u8] {
        self.0.get(&tag).map_or(&[], |(_, value)| value)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for ((group, element), (vr, value)) in &self.0 {
            bytes.extend(group.to_le_bytes());
            bytes.extend(element.to_le_bytes());
            bytes.extend(vr);
            let length = value.len().next_multiple_of(2);
            if matches!(vr, b"OB" | b"OW" | b"SQ" | b"UN" | b"UT") {
                bytes.extend([0, 0]);
                bytes.extend((length as u32).to_le_bytes());
            } else {
                bytes.extend((length as u16).to_le_bytes());
            }
            bytes.extend(value);
            if length > value.len() {
                bytes.push(if matches!(vr, b"UI" | b"OB" | b"UN") { 0 } else { b' ' });
            }
        }
        bytes
    }
}

/// A decimal string of at most 16 characters, as the format demands.
fn decimal(value: f64) -> String {
    let shortest = format!("{value}");
    if shortest.len() <= 16 { shortest } else { format!("{value:.8e}") }
}

/// The attributes of an image.
pub(super) fn elements_of(file: &str, image: &NewImage<'_>) -> Result<Elements, DataError> {
    check(file, image)?;
    let [channels, frames, rows, columns] = image.shape;
    let allocated = if image.bits > 8 { 16 } else { 8 };
    let pixels = interleaved(image, allocated);
    let study = unique(&[b"study", image.patient.as_bytes(), image.series.as_bytes()]);
    let series = unique(&[b"series", study.as_bytes(), image.description.as_bytes()]);
    let instance = unique(&[b"instance", series.as_bytes(), &image.number.to_le_bytes(), &pixels]);
    let single = CLASSES.iter().find(|(modality, _)| *modality == image.modality && frames == 1 && channels == 1);

    let mut elements = Elements::default();
    elements.text(tags::IMAGE_TYPE, *b"CS", "DERIVED\\SECONDARY");
    elements.text(tags::SOP_CLASS, *b"UI", single.map_or(SECONDARY_CAPTURE, |(_, class)| class));
    elements.text(tags::SOP_INSTANCE, *b"UI", &instance);
    elements.text(tags::MODALITY, *b"CS", image.modality);
    elements.text(tags::SERIES_DESCRIPTION, *b"LO", image.description);
    for (tag, vr) in tags::REQUIRED_BUT_EMPTY {
        elements.text(tag, vr, "");
    }
    elements.text(tags::CONVERSION_TYPE, *b"CS", "SYN");
    elements.text(tags::PATIENT_ID, *b"LO", image.patient);
    elements.text(tags::STUDY_INSTANCE, *b"UI", &study);
    elements.text(tags::SERIES_INSTANCE, *b"UI", &series);
    elements.text(tags::INSTANCE_NUMBER, *b"IS", &image.number.to_string());
    elements.short(tags::SAMPLES_PER_PIXEL, channels as u16);
    elements.text(tags::PHOTOMETRIC, *b"CS", if channels == 3 { "RGB" } else { "MONOCHROME2" });
    if channels == 3 {
        elements.short(tags::PLANAR, 0);
    }
    if frames > 1 {
        elements.text(tags::FRAMES, *b"IS", &frames.to_string());
    }
    elements.short(tags::ROWS, rows as u16);
    elements.short(tags::COLUMNS, columns as u16);
    elements.short(tags::BITS_ALLOCATED, allocated);
    elements.short(tags::BITS_STORED, image.bits);
    elements.short(tags::HIGH_BIT, image.bits - 1);
    elements.short(tags::PIXEL_REPRESENTATION, u16::from(image.signed));
    if let Some(spacing) = image.spacing {
        elements.decimals(tags::PIXEL_SPACING, &spacing);
    }
    if let Some(thickness) = image.thickness {
        elements.decimals(tags::SLICE_THICKNESS, &[thickness]);
    }
    if let Some([centre, width]) = image.window {
        elements.decimals(tags::WINDOW_CENTER, &[centre]);
        elements.decimals(tags::WINDOW_WIDTH, &[width]);
    }
    if channels == 1 {
        elements.decimals(tags::RESCALE_INTERCEPT, &[image.intercept]);
        elements.decimals(tags::RESCALE_SLOPE, &[image.slope]);
    }
    elements.put(tags::PIXEL_DATA, if allocated == 8 { *b"OB" } else { *b"OW" }, pixels);
    Ok(elements)
}

fn check(file: &str, image: &NewImage<'_>) -> Result<(), DataError> {
    let wrong = |what: &str, expected: String, got: String| Err(DataError::format(file, what, expected, got));
    let [channels, frames, rows, columns] = image.shape;
    let sides = [rows, columns].iter().all(|side| (1..=65535).contains(side));
    let bytes = image.shape.iter().map(|&side| side as u64).product::<u64>().saturating_mul(2);
    if !matches!(channels, 1 | 3)
        || frames == 0
        || !sides
        || frames > i32::MAX as usize
        || bytes > u64::from(u32::MAX >> 1)
    {
        let expected = "1 or 3 channels, frames, rows and columns from 1 to 65535, 2 GiB at most".to_owned();
        return wrong("[channels, frames, rows, columns]", expected, format!("{:?}", image.shape));
    }
    let values = image.shape.iter().product::<usize>();
    if image.stored.len() != values {
        return wrong("stored numbers", values.to_string(), image.stored.len().to_string());
    }
    if !(1..=16).contains(&image.bits) || channels == 3 && image.signed {
        return wrong("bits", "1 to 16, without sign for colours".to_owned(), image.bits.to_string());
    }
    let (least, greatest) = super::image::range(image.bits, image.signed);
    if let Some(value) = image.stored.iter().find(|value| !(least..=greatest).contains(&i64::from(**value))) {
        return wrong("stored numbers", format!("{least} to {greatest}"), value.to_string());
    }
    let scale = [image.slope, image.intercept];
    if !(scale.iter().all(|value| value.is_finite()) && image.slope != 0.0) {
        return wrong("slope and intercept", "finite numbers, the slope not 0".to_owned(), format!("{scale:?}"));
    }
    if image.modality.is_empty()
        || image.modality.len() > 16
        || !image.modality.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
    {
        return wrong("modality", "1 to 16 capital letters and digits".to_owned(), format!("`{}`", image.modality));
    }
    let plain = |text: &str| text.len() <= 64 && text.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'\\');
    if !plain(image.patient) || !plain(image.description) {
        let expected = "at most 64 ASCII characters without `\\`".to_owned();
        return wrong("patient and description", expected, "another text".to_owned());
    }
    Ok(())
}

/// Stored numbers as bytes: frame by frame, the channels of a pixel together.
fn interleaved(image: &NewImage<'_>, allocated: u16) -> Vec<u8> {
    let [channels, frames, rows, columns] = image.shape;
    let positions = frames * rows * columns;
    let mut bytes = Vec::with_capacity(image.stored.len() * usize::from(allocated / 8));
    for position in 0..positions {
        for channel in 0..channels {
            // Bits above those stored are 0, also of negative numbers.
            let value = (image.stored[channel * positions + position] & ((1 << image.bits) - 1)) as u16;
            bytes.extend_from_slice(&value.to_le_bytes()[..usize::from(allocated / 8)]);
        }
    }
    bytes
}

fn write_elements(path: &Path, elements: &Elements) -> Result<(), DataError> {
    let bytes = file_of(elements, EXPLICIT_LITTLE, &elements.encode());
    write_new_file(path, |writer| writer.write_all(&bytes))
}

/// A file with these attributes, whose data set is encoded as the transfer syntax says.
pub(super) fn file_of(elements: &Elements, syntax: &str, data_set: &[u8]) -> Vec<u8> {
    let mut meta = Elements::default();
    meta.put((2, 1), *b"OB", vec![0, 1]);
    meta.put(tags::MEDIA_STORAGE_CLASS, *b"UI", elements.text_of(tags::SOP_CLASS).to_vec());
    meta.put((2, 3), *b"UI", elements.text_of(tags::SOP_INSTANCE).to_vec());
    meta.text(tags::TRANSFER_SYNTAX, *b"UI", syntax);
    meta.text((2, 0x12), *b"UI", &unique(&[b"nocebo"]));
    meta.text((2, 0x13), *b"SH", concat!("NOCEBO_", env!("CARGO_PKG_VERSION")));
    let meta = meta.encode();
    let mut length = Elements::default();
    length.put((2, 0), *b"UL", (meta.len() as u32).to_le_bytes().to_vec());
    [&[0; 128], b"DICM".as_slice(), &length.encode(), &meta, data_set].concat()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nocebo_core::{DomainConfig, Field, Label, Samples};

    use super::*;

    fn image(stored: &[i32], shape: [usize; 4], bits: u16, signed: bool) -> NewImage<'_> {
        NewImage {
            modality: "CT",
            shape,
            stored,
            bits,
            signed,
            slope: 0.5,
            intercept: -1024.0,
            spacing: Some([0.7, 0.65]),
            thickness: Some(5.0),
            window: Some([40.0, 400.0]),
            patient: "phantom-1",
            series: "1",
            number: 3,
            description: "two voxels",
        }
    }

    #[test]
    fn a_written_file_has_its_parts_where_the_format_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.dcm");
        write_image(&path, &image(&[-2, 3, 0, 1, 2, 5], [1, 1, 2, 3], 12, true)).unwrap();
        let bytes = fs::read(&path).unwrap();
        assert!(bytes[..128].iter().all(|byte| *byte == 0));
        assert_eq!(&bytes[128..132], b"DICM");
        let length = u32::from_le_bytes(bytes[140..144].try_into().unwrap()) as usize;
        // The data set begins with the image type, right after the meta group.
        assert_eq!(&bytes[144 + length..][..6], b"\x08\0\x08\0CS");
        // It ends with the pixels: -2 is 0x0ffe in 12 bits.
        let pixels = b"\xe0\x7f\x10\0OW\0\0\x0c\0\0\0\xfe\x0f\x03\0\0\0\x01\0\x02\0\x05\0";
        assert!(bytes.ends_with(pixels), "{:x?}", &bytes[bytes.len() - 30..]);
        assert!(matches!(write_image(&path, &image(&[0], [1, 1, 1, 1], 8, false)), Err(DataError::Exists { .. })));
    }

    #[test]
    fn what_the_format_cannot_hold_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.dcm");
        let good = image(&[0, 255], [1, 1, 1, 2], 8, false);
        let cases = [
            NewImage { stored: &[0, 256], ..good.clone() },
            NewImage { stored: &[0, -1], ..good.clone() },
            NewImage { stored: &[0], ..good.clone() },
            NewImage { bits: 0, ..good.clone() },
            NewImage { bits: 17, ..good.clone() },
            NewImage { shape: [2, 1, 1, 1], ..good.clone() },
            NewImage { shape: [1, 0, 1, 2], stored: &[], ..good.clone() },
            NewImage { slope: 0.0, ..good.clone() },
            NewImage { intercept: f64::NAN, ..good.clone() },
            NewImage { modality: "ct", ..good.clone() },
            NewImage { patient: "a\\b", ..good.clone() },
        ];
        for case in cases {
            assert!(matches!(write_image(&path, &case), Err(DataError::Format { .. })), "{case:?}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn identifiers_depend_on_their_parts_and_are_valid() {
        let (one, other) = (unique(&[b"ab", b"c"]), unique(&[b"a", b"bc"]));
        assert_ne!(one, other);
        assert!(one.len() <= 64 && one.starts_with("2.25.") && !one.starts_with("2.25.0"));
        assert_eq!(decimal(-0.1 / 3.0), "-3.33333333e-2");
        assert_eq!(decimal(0.5), "0.5");
    }

    #[test]
    fn a_data_set_whose_values_lie_between_steps_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let domain = DomainConfig {
            shape: vec![1, 1, 2],
            unit: Unit::Hounsfield,
            lower: Field::Uniform(-1024.0),
            upper: Field::Uniform(3071.0),
            resolution: Field::Uniform(1.0),
            region: None,
        };
        let samples = Samples::new(vec![-1000.0, 40.0, 0.5, 7.0], &[1, 1, 2]).unwrap();
        let labels = vec![Label::Class(0), Label::Class(1)];
        let names = vec!["a".to_owned(), "b".to_owned()];
        let data = Dataset::new("made", samples, labels, names, domain.try_into().unwrap()).unwrap();
        let acquisition =
            Acquisition { modality: "CT", spacing: None, thickness: None, window: None, description: "made" };
        let error = write_dataset(&folder.path().join("out"), &data, &acquisition).unwrap_err();
        assert!(matches!(error, DataError::OffGrid { sample: 1, element: 0, .. }), "{error}");
        let whole = data.with_samples(Samples::new(vec![-1000.0, 40.0, 0.0, 7.0], &[1, 1, 2]).unwrap()).unwrap();
        write_dataset(&folder.path().join("out"), &whole, &acquisition).unwrap();
        let table = fs::read_to_string(folder.path().join("out/labels.csv")).unwrap();
        assert_eq!(table, "file,label\n000000.dcm,a\n000001.dcm,b\n");
    }
}
