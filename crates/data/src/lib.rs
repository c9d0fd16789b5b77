//! Medical data in physical units: formats read and written, splits by patient, and phantoms.
//!
//! [`open`] recognises a data set by its content and returns a [`Dataset`]: samples with labels, and a
//! [`Domain`](nocebo_core::Domain) that says what the numbers mean and which numbers can be stored. Nothing is
//! normalised or resized here: that belongs to the model.
//!
//! Formats have one module each in [`formats`], phantoms one module a modality in [`phantoms`].

pub mod dataset;
pub mod error;
pub mod formats;
pub mod options;
pub mod phantoms;
pub mod split;
pub mod store;
pub mod survey;

use std::path::Path;

use nocebo_core::Samples;

use dataset::Form;
pub use dataset::{Dataset, Statistics, Unlabelled, Warning};
pub use error::DataError;
pub use options::{Limits, OpenOptions, Order};
pub use split::{Fractions, Split, leaks};
pub use store::StoreAs;
pub use survey::Survey;

/// Reads one split of a data set with the default [`OpenOptions`].
///
/// `path` is an `.npz` file in the manner of MedMNIST ([`formats::npz`]), a table as CSV, Parquet or ARFF ([`formats::table`]), or a folder: of
/// PNG, JPEG or TIFF pictures ([`formats::folder`]), DICOM images ([`formats::dicom`]) or volumes ([`formats::volumes`]) with a
/// `labels.csv` or one folder a class; of pictures ([`formats::masks`]) or volumes and their masks; of pictures with boxes
/// ([`formats::boxes`]); of WFDB records with annotated beats ([`formats::beats`]);
/// or of WFDB or EDF records with a `labels.csv` ([`formats::recordings`]).
///
/// # Errors
///
/// When nothing can be read, the content is of another kind, malformed, too large or inconsistent, or the split is
/// empty.
pub fn open(path: impl AsRef<Path>, split: Split) -> Result<Dataset, DataError> {
    open_with(path, split, &OpenOptions::default())
}

/// Whether `path` is one volume, DICOM file or picture, which says nothing of classes.
pub fn is_image(path: &Path) -> bool {
    let name = formats::file_name(path);
    path.is_file()
        && (formats::volumes::has_volume_name(&name)
            || formats::picture::has_picture_name(&name)
            || formats::dicom::is_dicom(path))
}

/// Reads one volume, DICOM file or picture.
///
/// # Errors
///
/// As [`open_with`] of a folder that holds it.
pub fn open_image(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Unlabelled, DataError> {
    let path = path.as_ref();
    Ok(Unlabelled::from_one(formats::read_one(path, options)?, &formats::file_name(path)))
}

/// Writes the samples into the new folder `path` in the format that they came from: the lines of a table, volumes, DICOM images, WFDB or
/// EDF records for signals with a frequency, pictures (with masks, where there are any) for all else.
///
/// # Errors
///
/// When a value is not on the domain's grid, and as [`formats::dicom::write_copies`], [`formats::beats::write`],
/// [`formats::recordings::write`] and [`formats::folder::write`].
pub fn write(path: impl AsRef<Path>, data: &Dataset) -> Result<(), DataError> {
    let path = path.as_ref();
    match data.form() {
        Form::Table(table) => formats::table::write(path, data, table),
        Form::Volumes(files) => formats::volumes::write(path, data, files),
        Form::Dicom(_) => formats::dicom::write_copies(path, data),
        Form::Beats => formats::beats::write(path, data),
        Form::Recordings => formats::recordings::write(path, data),
        Form::Pictures => formats::folder::write(path, data),
    }
}

/// The samples of `data` as they stand in the folder `path` that [`write`] made of them, in their order.
///
/// # Errors
///
/// When a file cannot be read, or they are not as many or of another shape than those of `data`.
pub fn read_back(path: impl AsRef<Path>, data: &Dataset) -> Result<Samples, DataError> {
    let path = path.as_ref();
    let samples = match data.form() {
        Form::Table(_) => formats::table::read_back(path)?,
        Form::Volumes(files) => formats::volumes::read_back(path, data, files)?,
        Form::Dicom(_) => formats::dicom::read_back(path, data)?,
        Form::Beats => formats::beats::read_back(path, data)?,
        Form::Recordings => formats::recordings::read_back(path, data)?,
        Form::Pictures => formats::folder::read_back(path, data)?,
    };
    let samples = samples.with_indices(data.samples().indices().to_vec())?;
    Ok(data.clone().with_samples(samples)?.samples().clone())
}

/// Reads one split of a data set.
///
/// # Errors
///
/// As [`open`], and when an option is unusable.
pub fn open_with(path: impl AsRef<Path>, split: Split, options: &OpenOptions) -> Result<Dataset, DataError> {
    read(path.as_ref(), split, options)?.with_order(options.order)
}

fn read(path: &Path, split: Split, options: &OpenOptions) -> Result<Dataset, DataError> {
    let file = formats::file_name(path);
    let metadata = std::fs::metadata(path).map_err(DataError::reading(&file))?;
    if metadata.is_dir() {
        if formats::volumes::is_layout(path) {
            return formats::volumes::read(path, split, options);
        }
        if formats::boxes::is_layout(path) {
            return formats::boxes::read(path, split, options);
        }
        if formats::masks::is_layout(path) {
            return formats::masks::read(path, split, options);
        }
        if formats::recordings::is_layout(path) {
            return formats::recordings::read(path, split, options);
        }
        if formats::beats::is_layout(path) {
            return formats::beats::read(path, split, options);
        }
        if formats::table::is_layout(path) {
            return formats::table::read(path, split, options);
        }
        if formats::dicom::is_layout(path) {
            return formats::dicom::read(path, split, options);
        }
        return formats::folder::read(path, split, options);
    }
    if !metadata.is_file() {
        return Err(DataError::format(&file, "kind of file", "a regular file or a folder", "something else"));
    }
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    match extension.as_deref() {
        Some("npz") => formats::npz::read(path, split, options),
        Some("csv" | "parquet" | "arff") => formats::table::read(path, split, options),
        _ if is_image(path) => Err(DataError::refused(
            &file,
            "one image, which is no labelled data set",
            "give a folder of them with a `labels.csv` or one folder a class (`data inspect`, `attack` and `run` take one); references \
             of a DICOMDIR are never followed",
        )),
        _ => Err(DataError::refused(
            &file,
            "a file of an unknown kind",
            "give an .npz file in the manner of MedMNIST, a table as .csv, .parquet or .arff, or a folder of PNG, JPEG or TIFF pictures",
        )),
    }
}
