//! What is done with a file that may hold anything; shared by the tests and by `fuzz/`.

use std::fs;
use std::path::Path;

use nocebo_data::formats::{meta_image, nifti, nrrd, table};
use nocebo_data::{DataError, Fractions, Limits, OpenOptions, Split};

/// Endings of the readers that are tried.
pub(crate) const ENDINGS: [&str; 5] = [".nii", ".nii.gz", ".nrrd", ".mha", ".csv"];

/// Reads a file of this ending; what is read is written and read again, which must give the same. Whether it was read.
///
/// # Panics
///
/// When something panics on the way, or what was written is read differently or not at all.
pub(crate) fn try_file(ending: &str, bytes: &[u8]) -> bool {
    let Ok(folder) = tempfile::tempdir() else { return false };
    let source = folder.path().join(format!("source{ending}"));
    if fs::write(&source, bytes).is_err() {
        return false;
    }
    let limits = Limits { values: 1 << 16, ..Limits::default() };
    let fractions = Fractions { train: 1.0, validation: 0.0, test: 0.0 };
    let options = OpenOptions { limits, fractions, ..OpenOptions::default() };
    let outcome = round_trip(ending, &source, &folder.path().join(format!("copy{ending}")), &options);
    matches!(outcome, Ok(true))
}

fn round_trip(ending: &str, source: &Path, copy: &Path, options: &OpenOptions) -> Result<bool, DataError> {
    match ending {
        ".csv" => {
            let data = table::read(source, Split::Train, options)?;
            nocebo_data::write(copy, &data)?;
            assert_eq!(nocebo_data::read_back(copy, &data).ok().as_ref(), Some(data.samples()));
        }
        ".nrrd" => {
            let volume = nrrd::read(source, options)?;
            nrrd::write(copy, &volume, volume.samples())?;
            assert_eq!(nrrd::read(copy, options).ok().as_ref().map(raster), Some(raster(&volume)));
        }
        ".mha" => {
            let volume = meta_image::read(source, options)?;
            meta_image::write(copy, &volume, volume.samples())?;
            assert_eq!(meta_image::read(copy, options).ok().as_ref().map(raster), Some(raster(&volume)));
        }
        _ => {
            let volume = nifti::read(source, options)?;
            nifti::write(copy, &volume, volume.samples())?;
            assert_eq!(
                nifti::read(copy, options).ok().map(|copy| copy.samples().clone()).as_ref(),
                Some(volume.samples())
            );
        }
    }
    Ok(true)
}

fn raster(volume: &nocebo_data::formats::raster::Volume) -> (&nocebo_core::Samples, [f64; 3]) {
    (volume.samples(), volume.spacing())
}
