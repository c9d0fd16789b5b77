//! One module a format, reading and writing.

mod arff;
pub mod beats;
pub mod boxes;
pub mod dicom;
pub mod edf;
pub mod folder;
mod labels;
pub mod masks;
pub mod meta_image;
pub mod nifti;
pub mod npy;
pub mod npz;
pub mod nrrd;
mod parquet_pages;
mod parquet_table;
pub(crate) mod picture;
pub mod raster;
pub mod recordings;
pub mod table;
pub(crate) mod tiff;
pub mod volumes;
pub mod wfdb;
mod zip;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use nocebo_core::Domain;

use crate::{DataError, Dataset, OpenOptions, Split};

/// 8 or 16 when the domain holds whole numbers from 0 that fit an unsigned type of so many bits.
pub(crate) fn grey_bits(domain: &Domain) -> Option<u8> {
    let whole = |values: &[f32]| values.iter().all(|value| value.fract() == 0.0 && *value >= 0.0);
    let steps = domain.resolution();
    if !(whole(domain.lower()) && whole(steps) && steps.iter().all(|&step| step > 0.0)) {
        return None;
    }
    let greatest = domain.upper().iter().copied().fold(0.0, f32::max);
    [(255.0, 8), (65535.0, 16)].into_iter().find(|(limit, _)| greatest <= *limit).map(|(_, bits)| bits)
}

/// Reads one volume, DICOM file or picture as a data set of one sample that has no label.
pub(crate) fn read_one(path: &Path, options: &OpenOptions) -> Result<Dataset, DataError> {
    let (name, folder) = (file_name(path), path.parent().unwrap_or(Path::new("")));
    let listing = || folder::Listing::of_one(&name);
    if volumes::has_volume_name(&name) {
        return volumes::read_volumes(folder, &name, Split::Test, listing(), None, options);
    }
    if picture::has_picture_name(&name) {
        return folder::read_pictures(folder, &name, Split::Test, listing(), vec![0], options);
    }
    dicom::read_one(path, &name, options)
}

/// Last part of a path, for messages: they name no folders of the user's machine.
pub(crate) fn file_name(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|| path.display().to_string())
}

/// Writes a file under a temporary name beside `path` and gives it its name when it is complete and on the disk.
pub(crate) fn write_new_file(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), DataError> {
    let file = file_name(path);
    let partial = partial_name(path)?;
    let written = File::create_new(&partial).and_then(|created| {
        let mut writer = BufWriter::new(created);
        write(&mut writer)?;
        writer.flush()?;
        writer.get_ref().sync_all()?;
        rename_new(&partial, path)
    });
    written.map_err(|source| {
        // The first error is the one to report.
        let _ = std::fs::remove_file(&partial);
        DataError::Write { file, source }
    })
}

/// Fills a folder under a temporary name beside `path` and gives it its name when it is complete.
pub(crate) fn write_new_folder(
    path: &Path,
    fill: impl FnOnce(&Path) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let folder = file_name(path);
    let partial = partial_name(path)?;
    std::fs::create_dir(&partial).map_err(DataError::writing(&folder))?;
    let filled = fill(&partial).and_then(|()| rename_new(&partial, path).map_err(DataError::writing(&folder)));
    if filled.is_err() {
        // The first error is the one to report.
        let _ = std::fs::remove_dir_all(&partial);
    }
    filled
}

/// A name beside `path` that says that the content is incomplete.
fn partial_name(path: &Path) -> Result<PathBuf, DataError> {
    if path.symlink_metadata().is_ok() {
        return Err(DataError::Exists { file: file_name(path) });
    }
    let name = format!(".{}.partial-{}", file_name(path), std::process::id());
    Ok(path.with_file_name(name))
}

fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    if to.symlink_metadata().is_ok() {
        return Err(io::Error::from(io::ErrorKind::AlreadyExists));
    }
    std::fs::rename(from, to)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::{Path, PathBuf};

    use nocebo_core::Label;

    use crate::{OpenOptions, Split, Survey};

    #[test]
    fn one_image_is_read_described_labelled_and_written_back() {
        let seeds = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds"));
        for (file, shape, written) in [
            ("png/deep.png", &[1, 2, 3][..], "000000.png"),
            ("jpg/colour.jpg", &[3, 8, 8], "000000.png"),
            ("tif/plain.tif", &[1, 2, 3], "000000.tif"),
            ("nii-gz/int16.nii.gz", &[1, 2, 2, 3], "000000.nii.gz"),
            ("nrrd/gzip.nrrd", &[1, 2, 2, 3], "000000.nrrd"),
            ("mha/zlib.mha", &[1, 2, 2, 3], "000000.mha"),
        ] {
            let path = seeds.join(file);
            assert!(crate::is_image(&path), "{file}");
            let image = crate::open_image(&path, &OpenOptions::default()).unwrap();
            assert_eq!((image.samples().len(), image.samples().shape()), (1, shape), "{file}");
            assert!(file.ends_with(image.source()));
            let survey = Survey::of(&path, &OpenOptions::default()).unwrap();
            assert_eq!((survey.label, survey.shape.as_slice(), survey.splits[0].split), ("none", shape, None));
            assert!(
                survey.classes.is_empty() && survey.splits[0].counts.is_empty() && survey.splits[0].patients.is_none()
            );
            assert!(!survey.problems.iter().any(|problem| problem.contains("class")), "{:?}", survey.problems);
            let refused = crate::open(&path, Split::Test).unwrap_err().to_string();
            assert!(refused.contains("one image"), "{refused}");

            let folder = tempfile::tempdir().unwrap();
            let names = ["ill", "well"].map(str::to_owned).to_vec();
            assert!(image.clone().labelled(Label::Class(2), names.clone()).is_err());
            let data = image.labelled(Label::Class(1), names).unwrap();
            crate::write(folder.path().join("out"), &data).unwrap();
            assert!(folder.path().join("out").join(written).is_file(), "{file}");
            assert_eq!(crate::read_back(folder.path().join("out"), &data).unwrap(), *data.samples(), "{file}");
        }
        assert!(!crate::is_image(&seeds.join("csv/comma.csv")) && !crate::is_image(seeds));
    }

    /// Real data beside the checkout, or a loud note that a test was skipped.
    pub(crate) fn shared(name: &str) -> Option<PathBuf> {
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")).join(name);
        if path.exists() {
            return Some(path);
        }
        eprintln!("skipped: ../shared/data/{name} not found");
        None
    }
}
