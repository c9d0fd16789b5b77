//! DICOM images: single files and folders read, perturbed copies and phantoms written.
//!
//! A folder holds files at any depth, with a `labels.csv` as [`folder`](super::folder) describes it, or below one folder a class,
//! or below `train`, `val` and `test` with one folder a class each. Each file is one sample: `[channels, rows, columns]`, or
//! `[channels, frames, rows, columns]` where it has several frames. Files that are not DICOM, and DICOMDIR indexes, whose
//! references are never followed, are left out with a warning.
//!
//! Values are physical: of CT in HU, of a dose grid in Gy, grey or colour levels where stored numbers stand for themselves. The
//! bounds of the domain are those of the stored type, its step is the rescale slope. Where the least value is shown white
//! (MONOCHROME1) and the values have no unit, they are turned over, so that all images are alike; written copies turn them back.
//! All images of a data set are stored alike: one size, unit, slope, intercept, depth.
//!
//! | read | as |
//! |---|---|
//! | uncompressed little and big endian, deflated, RLE | 1, 8, 16 and 32 bits; floats |
//! | JPEG baseline, extended and lossless, JPEG-LS, JPEG 2000 (HT too) | 8 to 16 bits |
//! | MONOCHROME1, MONOCHROME2 | one channel |
//! | RGB, `YBR_FULL`, `YBR_FULL_422`, PALETTE COLOR | red, green, blue |
//!
//! Refused by name: other transfer syntaxes, files without a file header, segmented palettes, objects that are no images. Which
//! sample files agree with pydicom is in `DICOM.md` of this crate.
//!
//! Patients are told apart by a digest of their identifier, without one by study, without that by file. No text of a header
//! reaches a message, a data set or a written file, but codes and numbers of pixels, geometry and exposure. Files are parsed in
//! a child process with limits; a program that reads them calls [`isolate`] first.
//!
//! Source: DICOM PS3.3 C.7.6, C.11.1 and C.11.2, PS3.5, PS3.10.

mod child;
mod codecs;
mod copies;
mod elements;
mod image;
mod jpeg;
mod jpeg_ls;
mod tags;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use nocebo_core::{Domain, DomainConfig, Field, Unit};

pub use child::isolate;
pub use copies::{read_back, write_copies};
pub use image::{Image, Storage};
pub use write::{Acquisition, NewImage, write_dataset, write_image};

use super::folder::{self, Listing, entries};
use super::labels::named;
use crate::{DataError, Dataset, Limits, OpenOptions, Split, Warning};
use child::Reader;

/// Deepest folder below the given one.
const DEEPEST: usize = 16;
/// Most files of a data set.
const MOST_FILES: u64 = 1 << 20;
/// Entries that are looked at to find out whether a folder holds DICOM files.
const LOOKED_AT: usize = 256;

/// Reads one image.
///
/// # Errors
///
/// When the file cannot be read, is no DICOM file or no image, contradicts itself, is compressed in another way than those
/// above, is too large, or takes too much memory or time; when [`isolate`] was not called.
pub fn read_image(path: &Path, limits: Limits) -> Result<Image, DataError> {
    Reader::default().read(path, &super::file_name(path), limits.pixels, true)
}

/// Decodes the bytes of a file in this process, without limits of memory and time: for bytes that are known to be harmless.
///
/// # Errors
///
/// As [`read_image`].
pub fn decode(name: &str, bytes: &[u8], limits: Limits) -> Result<Image, DataError> {
    image::decode(name, bytes, limits.pixels, true)
}

/// Whether a file begins as a DICOM file does.
pub fn is_dicom(path: &Path) -> bool {
    let mut start = [0; 132];
    path.is_file()
        && File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok()
        && start[128..] == *b"DICM"
}

/// Whether a folder holds DICOM files.
pub fn is_layout(path: &Path) -> bool {
    let mut left = LOOKED_AT;
    let mut found = false;
    // A folder that cannot be listed is refused by whoever reads it.
    let _ = walk(path, "", 0, &mut |file| {
        left -= 1;
        found = is_named_so(file) || may_be_dicom(file) && is_dicom(&path.join(file));
        Ok(!found && left > 0)
    });
    found
}

fn extension(file: &str) -> Option<String> {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase())
}

/// Whether a name promises a DICOM file.
fn is_named_so(file: &str) -> bool {
    matches!(extension(file).as_deref(), Some("dcm" | "dicom" | "dic" | "ima"))
}

/// Whether a name does not promise another kind of file; many are named by their identifier, whose last part is a number.
fn may_be_dicom(file: &str) -> bool {
    is_named_so(file) || extension(file).is_none_or(|extension| extension.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Visits the files below a folder in the order of their names, until `visit` says that it is enough.
fn walk(
    root: &Path,
    inside: &str,
    depth: usize,
    visit: &mut impl FnMut(&str) -> Result<bool, DataError>,
) -> Result<bool, DataError> {
    let name = if inside.is_empty() { super::file_name(root) } else { inside.to_owned() };
    DataError::check_limit(&name, "folders inside each other", DEEPEST as u64, depth as u64)?;
    let (folders, files) = entries(&root.join(inside), &name)?;
    let place = |name: &String| if inside.is_empty() { name.clone() } else { format!("{inside}/{name}") };
    for file in &files {
        if !visit(&place(file))? {
            return Ok(false);
        }
    }
    for folder in &folders {
        if !walk(root, &place(folder), depth + 1, visit)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Reads one split of a folder.
///
/// # Errors
///
/// As [`read_image`] for each file (unless `skip_unreadable` is set); when the layout is none of the three, the table or a label
/// is unusable, two files are the same image, images are not stored alike, or the split is empty.
pub fn read(path: &Path, split: Split, options: &OpenOptions) -> Result<Dataset, DataError> {
    let name = super::file_name(path);
    let mut listing = if path.join(folder::TABLE).is_file() {
        folder::list_table(path, options)?
    } else {
        list(path, &name, options)?
    };
    let mut reader = Reader::default();
    let mut headers = Vec::with_capacity(listing.files.len());
    for file in &listing.files {
        match reader.read(&path.join(file), file, options.limits.pixels, false) {
            Ok(image) => headers.push(Some(image)),
            Err(error) if options.skip_unreadable => {
                listing.warnings.push(Warning::SkippedFile { file: file.clone(), reason: error.to_string() });
                headers.push(None);
            }
            Err(error) => return Err(error),
        }
    }
    listing.patients.get_or_insert_with(|| {
        let files = listing.files.iter().zip(&headers);
        files
            .map(|(file, image)| image.as_ref().and_then(patient_of).unwrap_or_else(|| format!("file {file}")))
            .collect()
    });
    check_distinct(&listing.files, &headers)?;

    let mut rows = listing.rows_of(&name, split, options)?;
    rows.retain(|&row| headers[row].is_some());
    read_images(path, &name, (split, &rows), listing, &mut reader, options)
}

/// Key of the patient of an image, which cannot be read back.
fn patient_of(image: &Image) -> Option<String> {
    image.patient.clone().or_else(|| image.study.as_ref().map(|study| format!("study {study}")))
}

/// Refuses two files with the identifier of one image.
fn check_distinct(files: &[String], headers: &[Option<Image>]) -> Result<(), DataError> {
    let mut seen = BTreeSet::new();
    for (file, image) in files.iter().zip(headers) {
        if let Some(instance) = image.as_ref().and_then(|image| image.instance.as_ref())
            && !seen.insert(instance)
        {
            let expected = "an image with an identifier (0008,0018) of its own";
            return Err(DataError::format(file, "image", expected, "that of another file; leave one of them out"));
        }
    }
    Ok(())
}

/// All files below the folders of the classes.
fn list(path: &Path, name: &str, options: &OpenOptions) -> Result<Listing, DataError> {
    let layout = "labels.csv, one folder a class, or train, val and test folders with one folder a class each";
    let (folders, _) = entries(path, name)?;
    let splits: Vec<Split> = folders.iter().filter_map(|name| Split::parse(name)).collect();
    let by_split = splits.len() == folders.len();
    if splits.iter().collect::<BTreeSet<_>>().len() < splits.len() {
        return Err(DataError::format(name, "layout of the folder", "one folder a split", "two for one split"));
    }
    let mut listing = Listing::default();
    let (mut texts, mut of_file) = (Vec::new(), Vec::new());
    walk(path, "", 0, &mut |file| {
        if !(is_named_so(file) || is_dicom(&path.join(file))) {
            let reason = "no DICOM file".to_owned();
            listing.warnings.push(Warning::SkippedFile { file: file.to_owned(), reason });
            return Ok(true);
        }
        if file.rsplit('/').next().is_some_and(|last| last.to_ascii_uppercase().starts_with("DICOMDIR")) {
            let reason = "an index, whose references are not followed".to_owned();
            listing.warnings.push(Warning::SkippedFile { file: file.to_owned(), reason });
            return Ok(true);
        }
        DataError::check_limit(name, "files", MOST_FILES, listing.files.len() as u64)?;
        let mut parts = file.split('/');
        let split = if by_split { parts.next().and_then(Split::parse) } else { None };
        let (Some(class), Some(_)) = (parts.next(), parts.next()) else {
            return Err(DataError::format(name, "layout of the folder", layout, format!("the file `{file}`")));
        };
        texts.push(class.to_owned());
        of_file.extend(split);
        listing.files.push(file.to_owned());
        Ok(true)
    })?;
    (listing.labels, listing.class_names) = named(name, &texts, options)?;
    listing.splits = by_split.then_some(of_file);
    Ok(listing)
}

/// Reads one file as a data set of one sample that has no label.
pub(super) fn read_one(path: &Path, name: &str, options: &OpenOptions) -> Result<Dataset, DataError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut reader = Reader::default();
    let header = reader.read(path, name, options.limits.pixels, false)?;
    let mut listing = Listing::of_one(name);
    listing.patients = Some(vec![patient_of(&header).unwrap_or_else(|| format!("file {name}"))]);
    read_images(folder, name, (Split::Test, &[0]), listing, &mut reader, options)
}

/// Reads the pixels of the files in the given rows of the listing.
fn read_images(
    path: &Path,
    name: &str,
    (split, rows): (Split, &[usize]),
    mut listing: Listing,
    reader: &mut Reader,
    options: &OpenOptions,
) -> Result<Dataset, DataError> {
    let mut first: Option<(&String, Alike, Domain)> = None;
    let mut values = Vec::new();
    let mut kept: Vec<usize> = Vec::with_capacity(rows.len());
    let (mut warnings, mut spacings) = (BTreeSet::new(), BTreeSet::new());
    for &row in rows {
        let file = &listing.files[row];
        let image = match reader.read(&path.join(file), file, options.limits.pixels, true) {
            Ok(image) => image,
            Err(error) if options.skip_unreadable => {
                listing.warnings.push(Warning::SkippedFile { file: file.clone(), reason: error.to_string() });
                continue;
            }
            Err(error) => return Err(error),
        };
        let alike = Alike::of(&image);
        let (like, expected, domain) = match &first {
            Some(first) => first,
            None => first.insert((file, alike.clone(), domain_of(&image, options)?)),
        };
        if alike != *expected {
            let expected = format!("{expected}, as `{like}` has");
            return Err(DataError::format(
                file,
                "image",
                expected,
                format!("{alike}; give images that are stored alike"),
            ));
        }
        let total = (values.len() + image.values.len()) as u64;
        DataError::check_limit(name, "values of all images", options.limits.values, total)?;
        warnings.extend(image.warnings.iter().map(|text| format!("`{file}` {text}")));
        if image.burned_in {
            warnings.insert(format!("`{file}` says that names or dates are burned into its picture"));
        }
        spacings.insert(image.spacing.map(|sides| sides.map(f64::to_bits)));
        values.extend(seen(image, domain, options.window.is_some()));
        kept.push(row);
    }
    let Some((_, alike, domain)) = first else {
        return Err(DataError::Empty { file: name.to_owned(), split: split.to_string() });
    };
    if alike.inverted {
        let text = "the images show their least value white (MONOCHROME1); values are turned over".to_owned();
        listing.warnings.push(Warning::Assumption { text });
    }
    if spacings.len() > 1 {
        let text = format!("the images have {} different pixel spacings; none is resampled", spacings.len());
        listing.warnings.push(Warning::Assumption { text });
    }
    listing.warnings.extend(warnings.into_iter().map(|text| Warning::Assumption { text }));
    let files: Vec<PathBuf> = kept.iter().map(|&row| path.join(&listing.files[row])).collect();
    listing.dataset((name, split), &kept, values, domain)?.with_files(files)
}

/// What all images of a data set have in common.
#[derive(Clone, PartialEq)]
struct Alike {
    shape: Vec<usize>,
    unit: Option<String>,
    storage: Storage,
    inverted: bool,
}

impl Alike {
    fn of(image: &Image) -> Self {
        let shape = shape_of(image);
        Self {
            shape,
            unit: image.unit.clone(),
            storage: image.storage,
            inverted: image.inverted && image.unit.is_none(),
        }
    }
}

impl std::fmt::Display for Alike {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:?} ", self.shape)?;
        match self.storage {
            Storage::Whole { bits, signed, slope, intercept } => {
                let sign = if signed { "signed" } else { "unsigned" };
                write!(formatter, "of {bits} bits, {sign}, slope {slope}, intercept {intercept}")?;
            }
            Storage::Table => formatter.write_str("through a table")?,
            Storage::Float => formatter.write_str("of floats")?,
        }
        write!(formatter, ", {}", self.unit.as_deref().unwrap_or("levels"))?;
        if self.inverted { formatter.write_str(", least value white") } else { Ok(()) }
    }
}

/// Shape of the sample of an image: without frames where there is one.
fn shape_of(image: &Image) -> Vec<usize> {
    match image.shape {
        [channels, 1, rows, columns] => vec![channels, rows, columns],
        shape => shape.to_vec(),
    }
}

/// What the values of an image mean.
fn domain_of(image: &Image, options: &OpenOptions) -> Result<Domain, DataError> {
    let own = match (image.unit.as_deref(), image.storage) {
        (Some("HU"), _) => Unit::Hounsfield,
        (Some(other), _) => Unit::Other(other.to_owned()),
        (None, Storage::Whole { slope, intercept, .. }) if (slope, intercept) == (1.0, 0.0) => Unit::GreyLevel,
        (None, _) => Unit::Other("intensity".to_owned()),
    };
    let step = match image.storage {
        Storage::Whole { slope, .. } => slope.abs(),
        Storage::Table | Storage::Float => 0.0,
    };
    let (mut lower, mut upper) = image.bounds;
    if let Some((centre, width)) = options.window.map(|(centre, width)| (f64::from(centre), f64::from(width))) {
        if !(centre.is_finite() && width.is_finite() && width > 0.0) {
            let got = format!("{centre}, {width}");
            return Err(DataError::InvalidOption { field: "window", must_be: "a centre and a width above 0", got });
        }
        // The ends are values that can be stored.
        let (low, high) = if step > 0.0 {
            let steps = |value: f64| (value - lower) / step;
            (lower + steps(centre - width / 2.0).ceil() * step, lower + steps(centre + width / 2.0).floor() * step)
        } else {
            (centre - width / 2.0, centre + width / 2.0)
        };
        (lower, upper) = (lower.max(low), upper.min(high));
        if lower >= upper {
            let got = format!("{centre}, {width} of {} to {}", image.bounds.0, image.bounds.1);
            return Err(DataError::InvalidOption {
                field: "window",
                must_be: "a part of what the images can hold",
                got,
            });
        }
    }
    let (lower, upper) = options.bounds_or((lower as f32, upper as f32))?;
    let config = DomainConfig {
        shape: shape_of(image),
        unit: options.unit.clone().unwrap_or(own),
        lower: Field::Uniform(lower),
        upper: Field::Uniform(upper),
        resolution: Field::Uniform(step as f32),
        region: None,
    };
    Ok(config.try_into()?)
}

/// The values of an image as a sample has them: turned over where the least is shown white, cut to the window.
fn seen(image: Image, domain: &Domain, has_window: bool) -> Vec<f32> {
    let turned = image.inverted && image.unit.is_none();
    let sum = (image.bounds.0 + image.bounds.1) as f32;
    let (lower, upper) = (domain.lower()[0], domain.upper()[0]);
    let mut values = image.values;
    for value in &mut values {
        if turned {
            *value = sum - *value;
        }
        if has_window {
            *value = value.clamp(lower, upper);
        }
    }
    values
}
