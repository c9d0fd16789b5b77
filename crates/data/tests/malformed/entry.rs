//! What is done with a file that may hold anything; shared by the tests and by `fuzz/`.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use nocebo_core::{Domain, Label, Samples};
use nocebo_data::formats::{edf, meta_image, nifti, npy, npz, nrrd, wfdb};
use nocebo_data::{DataError, Dataset, Fractions, Limits, OpenOptions, Split};

/// Endings of the readers that are tried. A `.hea` is a header of the signal file `source.dat`, which follows behind [`BETWEEN`]; an
/// `.xml` says which boxes a picture of 16 x 16 pixels has.
pub(crate) const ENDINGS: [&str; 16] = [
    ".nii", ".nii.gz", ".nrrd", ".mha", ".csv", ".parquet", ".arff", ".png", ".jpg", ".tif", ".npy", ".npz", ".edf",
    ".hea", ".atr", ".xml",
];

/// What stands between a header and its signals.
pub(crate) const BETWEEN: &[u8] = b"\n---\n";

/// Greatest number of values.
const LIMIT: u64 = 1 << 16;

/// Reads a file of this ending; what is read is written and read again, which must give the same. Whether it was read.
///
/// # Panics
///
/// When something panics on the way, or what was written is read differently or not at all.
pub(crate) fn try_file(ending: &str, bytes: &[u8]) -> bool {
    let Ok(folder) = tempfile::tempdir() else { return false };
    round_trip(ending, bytes, folder.path()).is_ok()
}

fn round_trip(ending: &str, bytes: &[u8], folder: &Path) -> Result<(), DataError> {
    let saved = |name: &str, bytes: &[u8]| {
        fs::write(folder.join(name), bytes).map_err(|source| DataError::Read { file: name.to_owned(), source })
    };
    let options = OpenOptions {
        limits: Limits { values: LIMIT, pixels: LIMIT },
        fractions: Fractions { train: 1.0, validation: 0.0, test: 0.0 },
        ..OpenOptions::default()
    };
    let (source, copy) = (folder.join(format!("source{ending}")), folder.join(format!("copy{ending}")));
    if !matches!(ending, ".hea" | ".xml") {
        saved(&format!("source{ending}"), bytes)?;
    }
    match ending {
        ".csv" | ".parquet" | ".arff" => data_set(&source, &copy, &options)?,
        ".png" | ".jpg" | ".tif" => {
            saved("labels.csv", format!("file,label\nsource{ending},a\n").as_bytes())?;
            let class_names = Some(vec!["a".to_owned(), "b".to_owned()]);
            data_set(folder, &copy, &OpenOptions { class_names, ..options })?;
        }
        ".xml" => {
            let data = folder.join("voc");
            for part in ["JPEGImages", "Annotations"] {
                fs::create_dir_all(data.join(part)).unwrap_or_default();
            }
            saved("voc/JPEGImages/a.png", picture())?;
            saved("voc/Annotations/a.xml", bytes)?;
            let class_names = Some(vec!["cell".to_owned(), "other".to_owned()]);
            data_set(&data, &copy, &OpenOptions { class_names, ..options })?;
        }
        ".npz" => {
            let data = nocebo_data::open_with(&source, Split::Train, &options)?;
            npz::write(&copy, &[(Split::Train, &data)])?;
            let again = npz::read(&copy, Split::Train, &options).ok();
            assert_eq!(again.as_ref().map(Dataset::samples), Some(data.samples()));
        }
        ".npy" => {
            let array = npy::read_array(&source, LIMIT)?;
            npy::write_array(&copy, &array)?;
            assert_eq!(npy::read_array(&copy, LIMIT).ok(), Some(array));
        }
        ".edf" => {
            let recording = edf::read(&source, LIMIT)?;
            edf::write(&copy, &recording)?;
            assert_eq!(edf::read(&copy, LIMIT).ok().map(|copy| copy.signals), Some(recording.signals));
        }
        ".hea" => {
            let at = bytes.windows(BETWEEN.len()).position(|part| part == BETWEEN);
            let (header, signals) = at.map_or((bytes, &b""[..]), |at| (&bytes[..at], &bytes[at + BETWEEN.len()..]));
            saved("source.hea", header)?;
            saved("source.dat", signals)?;
            let record = wfdb::read(&source, LIMIT)?;
            let copy = wfdb::Record { name: "copy".to_owned(), ..record };
            // Not every format is written.
            if wfdb::write(folder, &copy).is_ok() {
                assert_eq!(wfdb::read(&folder.join("copy.hea"), LIMIT).ok(), Some(copy));
            }
        }
        ".atr" => {
            let plain = |mut marks: Vec<wfdb::Annotation>| {
                marks.iter_mut().for_each(|mark| mark.text.clear());
                marks.sort_by_key(|mark| mark.sample);
                marks
            };
            let marks = plain(wfdb::read_annotations(&source, LIMIT)?);
            wfdb::write_annotations(&copy, &marks)?;
            assert_eq!(wfdb::read_annotations(&copy, 16 * LIMIT).ok().map(plain), Some(marks));
        }
        ".nrrd" => {
            let volume = nrrd::read(&source, &options)?;
            nrrd::write(&copy, &volume, volume.samples())?;
            assert_eq!(nrrd::read(&copy, &options).ok().as_ref().map(raster), Some(raster(&volume)));
        }
        ".mha" => {
            let volume = meta_image::read(&source, &options)?;
            meta_image::write(&copy, &volume, volume.samples())?;
            assert_eq!(meta_image::read(&copy, &options).ok().as_ref().map(raster), Some(raster(&volume)));
        }
        _ => {
            let volume = nifti::read(&source, &options)?;
            nifti::write(&copy, &volume, volume.samples())?;
            let again = nifti::read(&copy, &options).ok();
            assert_eq!(again.map(|copy| copy.samples().clone()).as_ref(), Some(volume.samples()));
        }
    }
    Ok(())
}

fn data_set(source: &Path, copy: &Path, options: &OpenOptions) -> Result<(), DataError> {
    let data = nocebo_data::open_with(source, Split::Train, options)?;
    nocebo_data::write(copy, &data)?;
    assert_eq!(nocebo_data::read_back(copy, &data).ok().as_ref(), Some(data.samples()));
    Ok(())
}

fn raster(volume: &nocebo_data::formats::raster::Volume) -> (&Samples, [f64; 3]) {
    (volume.samples(), volume.spacing())
}

/// A PNG of 16 x 16 pixels.
fn picture() -> &'static [u8] {
    static PICTURE: OnceLock<Vec<u8>> = OnceLock::new();
    PICTURE.get_or_init(|| {
        let shape = [1, 16, 16];
        let written = || {
            let folder = tempfile::tempdir().ok()?;
            let samples = Samples::new((0..=255_u8).map(f32::from).collect(), &shape).ok()?;
            let names = vec!["a".to_owned(), "b".to_owned()];
            let domain = Domain::grey_levels(&shape, 255.0).ok()?;
            let data = Dataset::new("picture", samples, vec![Label::Class(0)], names, domain).ok()?;
            nocebo_data::write(folder.path().join("one"), &data).ok()?;
            fs::read(folder.path().join("one/000000.png")).ok()
        };
        written().unwrap_or_default()
    })
}
