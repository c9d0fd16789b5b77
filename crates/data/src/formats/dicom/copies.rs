//! Perturbed copies of DICOM images, and how they are read back.
//!
//! A copy is stored as its source is (depth, sign, slope, intercept), but uncompressed. It has identifiers of its own, is marked
//! as an adversarial example in every place that a viewer shows, and takes over nothing but numbers and codes of pixels,
//! geometry and exposure: no name, identifier, date, institution or private attribute. Patients are numbered.

use std::collections::BTreeMap;
use std::path::Path;

use nocebo_core::{Domain, Samples};

use super::child::Reader;
use super::image::{Image, Storage};
use super::write::{Elements, NewImage, elements_of, name_of, write_files};
use super::{seen, tags};
use crate::dataset::Form;
use crate::{DataError, Dataset, Limits};

/// In the description of the series, at most 64 characters.
const MARK: &str = "ADVERSARIAL EXAMPLE - NOT FOR CLINICAL USE";
/// In the comments.
const EXPLANATION: &str = concat!(
    "Adversarial example made by nocebo ",
    env!("CARGO_PKG_VERSION"),
    ": pixels were changed on purpose to mislead a model. Not for clinical use. Identity of the patient was removed."
);

/// Writes samples that came from DICOM files into the new folder `path`, one file a sample and a `labels.csv`.
///
/// A pixel that lay outside of the window or bounds that the data were read with keeps its stored number.
///
/// # Errors
///
/// When a source cannot be read again, holds a table or floats or more than 16 bits, or a value is none that it can store; when
/// the data came from other files; when the folder exists or cannot be written.
pub fn write_copies(path: &Path, data: &Dataset) -> Result<(), DataError> {
    let (Form::Dicom(files), Some(patients), false) = (data.form(), data.patients(), data.is_segmentation()) else {
        return Err(
            nocebo_core::Error::unsupported("a perturbed copy", "the data are not images of DICOM files").into()
        );
    };
    let pseudonyms = pseudonyms(patients);
    let names: Vec<String> = data.samples().indices().iter().map(|&index| name_of(index)).collect();
    let mut reader = Reader::default();
    let mut copies = Vec::with_capacity(data.len());
    for (row, file) in files.iter().enumerate() {
        let image = reader.read(file, &crate::formats::file_name(file), Limits::default().pixels, true)?;
        copies.push(copy(&names[row], row, &image, data, &pseudonyms[row])?);
    }
    write_files(path, &names, &copies, &data.clone().with_patients(pseudonyms)?)
}

/// Patients by number, in the order in which they occur.
fn pseudonyms(patients: &[String]) -> Vec<String> {
    let mut numbers = BTreeMap::new();
    let number = |patient| {
        let next = numbers.len() + 1;
        format!("p{}", numbers.entry(patient).or_insert(next))
    };
    patients.iter().map(number).collect()
}

/// The attributes of a copy.
fn copy(name: &str, row: usize, image: &Image, data: &Dataset, patient: &str) -> Result<Elements, DataError> {
    let Storage::Whole { bits: bits @ ..=16, signed, slope, intercept } = image.storage else {
        let advice = "attack images whose values are whole numbers of at most 16 bits";
        return Err(DataError::refused(
            name,
            "a copy of an image that is stored as floats, through a table or in 32 bits",
            advice,
        ));
    };
    let stored = numbers(row, image, data, slope, intercept)?;
    let new = NewImage {
        modality: &image.modality,
        shape: image.shape,
        stored: &stored,
        bits,
        signed,
        slope,
        intercept,
        spacing: None,
        thickness: None,
        window: None,
        patient,
        series: image.study.as_deref().unwrap_or_default(),
        number: row as u32 + 1,
        description: MARK,
    };
    let mut elements = elements_of(name, &new)?;
    for (tag, vr, text) in &image.kept {
        elements.text(*tag, *vr, text);
    }
    if image.inverted {
        elements.text(tags::PHOTOMETRIC, *b"CS", "MONOCHROME1");
    }
    if image.lossy {
        elements.text(tags::LOSSY, *b"CS", "01");
    }
    if image.burned_in {
        elements.text(tags::BURNED_IN, *b"CS", "YES");
    }
    elements.text(tags::PATIENT_NAME, *b"PN", "ADVERSARIAL^EXAMPLE");
    elements.text(tags::DERIVATION, *b"ST", EXPLANATION);
    elements.text(tags::COMMENTS, *b"LT", EXPLANATION);
    elements.text(tags::IDENTITY_REMOVED, *b"CS", "YES");
    elements.text(tags::REMOVAL_METHOD, *b"LO", "nocebo: only pixels, geometry and exposure are kept");
    Ok(elements)
}

/// The stored numbers of a copy.
fn numbers(row: usize, image: &Image, data: &Dataset, slope: f64, intercept: f64) -> Result<Vec<i32>, DataError> {
    let (lower, upper) = (data.domain().lower()[0], data.domain().upper()[0]);
    let sum = image.bounds.0 + image.bounds.1;
    let turned = image.inverted && image.unit.is_none();
    let number = |value: f64| (value - intercept) / slope;
    let one = |(element, (&source, &value)): (usize, (&f32, &f32))| {
        let own = number(f64::from(source)).round();
        let as_seen = if turned { sum as f32 - source } else { source };
        if !(lower..=upper).contains(&as_seen) {
            return Ok(own as i32);
        }
        let value_in_file = if turned { sum - f64::from(value) } else { f64::from(value) };
        let wanted = number(value_in_file);
        if (wanted - wanted.round()).abs() > 1e-2 {
            return Err(DataError::OffGrid { sample: row, element, value, storage: "as its DICOM source is" });
        }
        Ok(wanted.round() as i32)
    };
    image.values.iter().zip(data.samples().row(row)).enumerate().map(one).collect()
}

/// Reads the samples of a folder that [`write_copies`] made of `data`.
///
/// # Errors
///
/// As [`read_image`](super::read_image) for each file.
pub fn read_back(path: &Path, data: &Dataset) -> Result<Samples, DataError> {
    let domain: &Domain = data.domain();
    let mut reader = Reader::default();
    let mut values = Vec::with_capacity(data.samples().values().len());
    for &index in data.samples().indices() {
        let name = name_of(index);
        let image = reader.read(&path.join(&name), &name, Limits::default().pixels, true)?;
        values.extend(seen(image, domain, true));
    }
    Ok(Samples::new(values, data.samples().shape())?.with_indices(data.samples().indices().to_vec())?)
}
