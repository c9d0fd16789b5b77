//! Folders of volumes (NIfTI, NRRD, MetaImage), with one class a volume or with masks; written back whole, in the way each was
//! stored.
//!
//! Layouts: `images` and `labels` (also `image` and `label`, `imagesTr` and `labelsTr`) with a mask of the same name for each
//! volume; or a `labels.csv` or one folder a class, as [`folder`] says. Without a split one is drawn by
//! [`assign`].
//!
//! A network takes one size, and nothing is resized here: of each volume the centre is taken, as large as the least volume on each
//! axis, with a warning where that cuts any. What lies around it stays as it is in what is written.
//!
//! Unit, bounds and step of the samples are those that all files share: the widest bounds, and a step only where it is the
//! same in all. Values are stored in the steps of their own file, so what counts is what is read back. Masks
//! hold whole numbers from 0 to 254, which are classes in ascending order.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nocebo_core::{Domain, DomainConfig, Field, Label, Samples};

use super::folder::{self, Listing, entries};
use super::labels::named;
use super::{meta_image, nifti, nrrd, raster};
use crate::dataset::Origin;
use crate::{DataError, Dataset, OpenOptions, Split, Warning};

const FOLDERS: [(&str, &str); 3] = [("images", "labels"), ("image", "label"), ("imagesTr", "labelsTr")];
/// Endings of volumes, and what is written in their place: headers and values in one file.
const ENDINGS: [(&str, &str); 6] = [
    (".nii", ".nii"),
    (".nii.gz", ".nii.gz"),
    (".nrrd", ".nrrd"),
    (".nhdr", ".nrrd"),
    (".mha", ".mha"),
    (".mhd", ".mha"),
];

/// Where the volumes of a data set lie; samples find theirs by their index.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Files {
    folder: PathBuf,
    volumes: Vec<String>,
    masks: Option<Vec<String>>,
}

/// Whether a file is named as a volume.
pub(crate) fn has_volume_name(name: &str) -> bool {
    ending(name).is_some()
}

fn ending(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    ENDINGS.iter().rfind(|(ending, _)| name.ends_with(ending)).map(|(_, written)| *written)
}

/// Whether a folder, or a folder in it, holds volumes.
pub fn is_layout(path: &Path) -> bool {
    let Ok((folders, files)) = entries(path, "") else { return false };
    let holds = |files: &[String]| files.iter().any(|name| has_volume_name(name));
    holds(&files) || folders.iter().any(|name| entries(&path.join(name), "").is_ok_and(|(_, files)| holds(&files)))
}

/// A volume of any of the formats.
enum Volume {
    Nifti(Box<nifti::Volume>),
    Nrrd(raster::Volume),
    MetaImage(raster::Volume),
}

impl Volume {
    fn read(path: &Path, options: &OpenOptions) -> Result<Self, DataError> {
        match ending(&super::file_name(path)) {
            Some(".nrrd") => nrrd::read(path, options).map(Self::Nrrd),
            Some(".mha") => meta_image::read(path, options).map(Self::MetaImage),
            _ => Ok(Self::Nifti(Box::new(nifti::read(path, options)?))),
        }
    }

    fn samples(&self) -> &Samples {
        match self {
            Self::Nifti(volume) => volume.samples(),
            Self::Nrrd(volume) | Self::MetaImage(volume) => volume.samples(),
        }
    }

    fn domain(&self) -> &Domain {
        match self {
            Self::Nifti(volume) => volume.domain(),
            Self::Nrrd(volume) | Self::MetaImage(volume) => volume.domain(),
        }
    }

    fn write(&self, path: &Path, samples: &Samples) -> Result<(), DataError> {
        match self {
            Self::Nifti(volume) => nifti::write(path, volume, samples),
            Self::Nrrd(volume) => nrrd::write(path, volume, samples),
            Self::MetaImage(volume) => meta_image::write(path, volume, samples),
        }
    }
}

/// Reads one split.
///
/// # Errors
///
/// When the layout is none of those above, a volume cannot be read, has no mask or one of another size, volumes differ in their number
/// of channels, the values of masks are no classes, or the split is empty.
pub fn read(path: &Path, split: Split, options: &OpenOptions) -> Result<Dataset, DataError> {
    let folder = super::file_name(path);
    let masks = FOLDERS.iter().find(|(images, labels)| path.join(images).is_dir() && path.join(labels).is_dir());
    let listing = if masks.is_none() && path.join(folder::TABLE).is_file() {
        folder::list_table(path, options)?
    } else {
        list(path, &folder, masks.map(|(images, _)| *images), options)?
    };
    if listing.files.is_empty() {
        return Err(DataError::Empty { file: folder, split: split.to_string() });
    }
    let mask_files =
        masks.map(|(images, labels)| listing.files.iter().map(|file| file.replacen(images, labels, 1)).collect());
    read_volumes(path, &folder, split, listing, mask_files, options)
}

/// Reads all volumes of a listing, with their masks where they have any, and keeps those of the split.
pub(super) fn read_volumes(
    path: &Path,
    folder: &str,
    split: Split,
    mut listing: Listing,
    mask_files: Option<Vec<String>>,
    options: &OpenOptions,
) -> Result<Dataset, DataError> {
    let mut read = Vec::with_capacity(listing.files.len());
    let mut limit = options.limits.values;
    for file in &listing.files {
        let one = OpenOptions { limits: crate::Limits { values: limit, ..options.limits }, ..options.clone() };
        let volume = Volume::read(&path.join(file), &one)?;
        limit -= volume.samples().elements() as u64;
        read.push(volume);
    }
    let (shape, domain) = shared(&listing.files, &read, options, &mut listing.warnings)?;
    if let Some(mask_files) = &mask_files {
        (listing.labels, listing.class_names) = read_masks(path, mask_files, &listing.files, &read, &shape, options)?;
    }
    let rows = listing.rows_of(folder, split, options)?;
    let values = rows.iter().flat_map(|&row| centre(read[row].samples(), &shape)).collect();
    let volumes = std::mem::take(&mut listing.files);
    let data = listing.dataset((folder, split), &rows, values, domain)?;
    let files = Files { folder: path.to_owned(), volumes, masks: mask_files };
    Ok(data.with_origin(Origin::Volumes(Arc::new(files))))
}

/// The volumes in the folder of images, or in one folder a class.
fn list(path: &Path, name: &str, images: Option<&str>, options: &OpenOptions) -> Result<Listing, DataError> {
    let (folders, _) = entries(path, name)?;
    let folders = images.map_or(folders, |images| vec![images.to_owned()]);
    let mut listing = Listing::default();
    let mut texts = Vec::new();
    for folder in folders {
        for file in entries(&path.join(&folder), &folder)?.1 {
            let inside = format!("{folder}/{file}");
            if has_volume_name(&file) {
                listing.files.push(inside);
                texts.push(folder.clone());
            } else {
                listing
                    .warnings
                    .push(Warning::SkippedFile { file: inside, reason: "not named as a volume".to_owned() });
            }
        }
    }
    if images.is_none() {
        (listing.labels, listing.class_names) = named(name, &texts, options)?;
    }
    Ok(listing)
}

/// Shape and domain of all samples.
fn shared(
    files: &[String],
    volumes: &[Volume],
    options: &OpenOptions,
    warnings: &mut Vec<Warning>,
) -> Result<([usize; 4], Domain), DataError> {
    let sides = |volume: &Volume| -> [usize; 4] { std::array::from_fn(|axis| volume.samples().shape()[axis]) };
    let mut shape = sides(&volumes[0]);
    for (file, volume) in files.iter().zip(volumes) {
        let own = sides(volume);
        if own[0] != shape[0] {
            return Err(DataError::format(file, "channels", format!("{}, as `{}` has", shape[0], files[0]), own[0]));
        }
        shape = std::array::from_fn(|axis| shape[axis].min(own[axis]));
    }
    let cut = volumes.iter().filter(|volume| sides(volume) != shape).count();
    if cut > 0 {
        let text = format!("{cut} of {} volumes are larger than {shape:?}: their centre is taken", volumes.len());
        warnings.push(Warning::Assumption { text });
    }
    let domains = || volumes.iter().map(Volume::domain);
    let lower = domains().map(|domain| domain.lower()[0]).fold(f32::INFINITY, f32::min);
    let upper = domains().map(|domain| domain.upper()[0]).fold(f32::NEG_INFINITY, f32::max);
    let first = volumes[0].domain();
    let step = first.resolution()[0];
    let alike = domains().all(|domain| domain.resolution()[0] == step && domain.lower()[0] == first.lower()[0]);
    if !alike {
        let text = "volumes are stored in different steps: each is rounded to its own when it is written".to_owned();
        warnings.push(Warning::Assumption { text });
    }
    if options.bounds.is_none() && domains().any(|domain| domain.resolution()[0] == 0.0) {
        let text = format!("bounds {lower} to {upper} are those of the values in the files; give others if known");
        warnings.push(Warning::Assumption { text });
    }
    let config = DomainConfig {
        shape: shape.to_vec(),
        lower: Field::Uniform(lower),
        upper: Field::Uniform(upper),
        resolution: Field::Uniform(if alike { step } else { 0.0 }),
        ..first.config().clone()
    };
    Ok((shape, config.try_into()?))
}

/// Masks as labels, and the names of their classes.
fn read_masks(
    path: &Path,
    masks: &[String],
    files: &[String],
    volumes: &[Volume],
    shape: &[usize; 4],
    options: &OpenOptions,
) -> Result<(Vec<Label>, Vec<String>), DataError> {
    let plain = OpenOptions { limits: options.limits, ..OpenOptions::default() };
    let mut found = BTreeSet::new();
    let mut all = Vec::with_capacity(masks.len());
    for ((mask, file), volume) in masks.iter().zip(files).zip(volumes) {
        if !path.join(mask).is_file() {
            return Err(DataError::format(file, "mask of the volume", format!("a file `{mask}`"), "none"));
        }
        let read = Volume::read(&path.join(mask), &plain)?;
        let (own, wanted) = (read.samples().shape(), &volume.samples().shape()[1..]);
        if own[0] != 1 || own[1..] != *wanted {
            return Err(DataError::format(mask, "shape of the mask", format!("[1, {wanted:?}]"), format!("{own:?}")));
        }
        let values = read.samples().values();
        if let Some(stray) = values.iter().find(|value| value.fract() != 0.0 || !(0.0..=254.0).contains(*value)) {
            return Err(DataError::format(mask, "value of the mask", "a whole number from 0 to 254", stray));
        }
        found.extend(values.iter().map(|value| *value as u8));
        let [_, sides @ ..] = shape;
        all.push(centre(read.samples(), &[1, sides[0], sides[1], sides[2]]));
    }
    let levels: Vec<u8> = found.into_iter().collect();
    let names = options.class_names.clone().unwrap_or_else(|| levels.iter().map(ToString::to_string).collect());
    if names.len() != levels.len() {
        return Err(DataError::Classes {
            file: super::file_name(path),
            expected: format!("{} classes, one a name", names.len()),
            got: format!("{} values in the masks", levels.len()),
            advice: "name all classes in the order of their values",
        });
    }
    let class = |value: f32| levels.binary_search(&(value as u8)).unwrap_or_default() as u8;
    let labels = all.into_iter().map(|mask| Label::Mask(mask.into_iter().map(class).collect())).collect();
    Ok((labels, names))
}

/// Flat places of the centre of this shape in a volume.
fn centre_of(volume: &[usize], shape: &[usize; 4]) -> impl Iterator<Item = usize> + use<> {
    let [channels, depth, height, width] = *shape;
    let full: [usize; 4] = std::array::from_fn(|axis| volume[axis]);
    let start: [usize; 4] = std::array::from_fn(|axis| (full[axis] - shape[axis]) / 2);
    let rows = (0..channels).flat_map(move |c| (0..depth).flat_map(move |d| (0..height).map(move |h| [c, d, h])));
    rows.flat_map(move |[c, d, h]| {
        let row = (((start[0] + c) * full[1] + start[1] + d) * full[2] + start[2] + h) * full[3] + start[3];
        row..row + width
    })
}

fn centre(samples: &Samples, shape: &[usize; 4]) -> Vec<f32> {
    let values = samples.values();
    centre_of(samples.shape(), shape).map(|at| values[at]).collect()
}

fn shape_of(data: &Dataset) -> Result<[usize; 4], DataError> {
    let shape = data.samples().shape();
    shape.try_into().map_err(|_| nocebo_core::Error::mismatch("shape of a volume", 4, shape.len()).into())
}

/// Writes each sample into a copy of its volume, and each mask, into the new folder `path`, under a temporary name until it is
/// complete.
///
/// # Errors
///
/// When a source cannot be read again, or the folder exists or cannot be written.
pub(crate) fn write(path: &Path, data: &Dataset, files: &Files) -> Result<(), DataError> {
    let shape = shape_of(data)?;
    let own = OpenOptions::default();
    // Floats have no bounds of their own: a value may be any that the data set allows.
    let free = OpenOptions { bounds: Some((data.domain().lower()[0], data.domain().upper()[0])), ..own.clone() };
    super::write_new_folder(path, |folder| {
        let names = names(data, files);
        if let Some(masks) = &files.masks {
            for part in [FOLDERS[0].0, FOLDERS[0].1] {
                std::fs::create_dir(folder.join(part)).map_err(DataError::writing(part))?;
            }
            for (name, &index) in names.iter().zip(data.samples().indices()) {
                let mask = Volume::read(&files.folder.join(&masks[index as usize]), &own)?;
                mask.write(&folder.join(name.replacen(FOLDERS[0].0, FOLDERS[0].1, 1)), mask.samples())?;
            }
        } else {
            folder::write_table(folder, data, &names)?;
        }
        for (row, &index) in data.samples().indices().iter().enumerate() {
            let source = files.folder.join(&files.volumes[index as usize]);
            let mut volume = Volume::read(&source, &own)?;
            if volume.domain().resolution()[0] == 0.0 {
                volume = Volume::read(&source, &free)?;
            }
            let mut whole = volume.samples().clone();
            for (at, &value) in centre_of(whole.shape(), &shape).zip(data.samples().row(row)).collect::<Vec<_>>() {
                whole.values_mut()[at] = value;
            }
            whole.rows_mut().for_each(|row| volume.domain().store(row));
            volume.write(&folder.join(&names[row]), &whole)?;
        }
        Ok(())
    })
}

/// The samples that were written into `path`, row by row.
pub(crate) fn read_back(path: &Path, data: &Dataset, files: &Files) -> Result<Samples, DataError> {
    let shape = shape_of(data)?;
    let mut values = Vec::with_capacity(data.samples().values().len());
    for name in names(data, files) {
        values.extend(centre(Volume::read(&path.join(name), &OpenOptions::default())?.samples(), &shape));
    }
    Ok(Samples::new(values, &shape)?)
}

/// Names of written volumes: the number of the sample, and the ending of its source.
fn names(data: &Dataset, files: &Files) -> Vec<String> {
    let folder = if files.masks.is_some() { format!("{}/", FOLDERS[0].0) } else { String::new() };
    let name =
        |&index: &u64| format!("{folder}{index:06}{}", ending(&files.volumes[index as usize]).unwrap_or_default());
    data.samples().indices().iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Fractions;
    use crate::formats::tests::shared;
    use nocebo_core::Unit;
    use std::fs;

    fn whole() -> OpenOptions {
        OpenOptions { fractions: Fractions { train: 1.0, validation: 0.0, test: 0.0 }, ..OpenOptions::default() }
    }

    /// A volume `[1, sides]` of `at * step`, stored in 16 bits, or as floats where the step is 0.
    fn save(path: &Path, sides: [usize; 3], step: f32) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let shape = [1, sides[0], sides[1], sides[2]];
        let values =
            (0..sides.iter().product()).map(|at: usize| (at % 50) as f32 * if step > 0.0 { step } else { 0.1 });
        let config = DomainConfig {
            shape: shape.to_vec(),
            unit: Unit::Hounsfield,
            lower: Field::Uniform(-1024.0),
            upper: Field::Uniform(1024.0),
            resolution: Field::Uniform(step),
            region: None,
        };
        let samples = Samples::new(values.collect(), &shape).unwrap();
        let domain: Domain = config.try_into().unwrap();
        let volume = nifti::Volume::new(samples.clone(), domain, [2.0, 1.0, 1.0]).unwrap();
        nifti::write(path, &volume, &samples).unwrap();
    }

    #[test]
    fn the_centre_changes_and_the_rest_of_the_volume_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d");
        save(&path.join("ill/a.nii.gz"), [3, 4, 5], 0.5);
        save(&path.join("well/b.nii"), [3, 2, 3], 0.5);
        fs::write(path.join("ill/note.txt"), "x").unwrap();
        let data = crate::open_with(&path, Split::Train, &whole()).unwrap();
        assert_eq!((data.samples().shape(), data.class_names()[0].as_str()), (&[1, 3, 2, 3][..], "ill"));
        // Of 3 x 4 x 5 values the rows 1 and 2, columns 1 to 3.
        assert_eq!(data.samples().row(0)[..6], [6.0, 7.0, 8.0, 11.0, 12.0, 13.0].map(|at| at * 0.5));
        assert_eq!(data.domain().resolution()[0], 0.5);
        assert_eq!(data.warnings().len(), 2, "{:?}", data.warnings());
        let mut samples = data.samples().clone();
        samples.values_mut().iter_mut().for_each(|value| *value += 1.5);
        let perturbed = data.clone().with_samples(samples.clone()).unwrap();
        let out = folder.path().join("out");
        crate::write(&out, &perturbed).unwrap();
        assert_eq!(crate::read_back(&out, &perturbed).unwrap(), samples);
        let (before, after) = (path.join("ill/a.nii.gz"), out.join("000000.nii.gz"));
        let read = |path: &Path| nifti::read(path, &OpenOptions::default()).unwrap();
        let (before, after) = (read(&before), read(&after));
        let changed = before.samples().values().iter().zip(after.samples().values()).filter(|(a, b)| a != b).count();
        assert_eq!((changed, after.spacing()), (18, [2.0, 1.0, 1.0]));
        let again = crate::open_with(&out, Split::Train, &whole()).unwrap();
        assert_eq!((again.samples(), again.labels()), (&samples, data.labels()));
        let other = OpenOptions { unit: Some(Unit::Hounsfield), bounds: Some((-10.0, 99.0)), ..whole() };
        let other = crate::open_with(&path, Split::Train, &other).unwrap();
        assert_eq!((other.domain().unit(), other.domain().upper()[0]), (&Unit::Hounsfield, 99.0));
    }

    #[test]
    fn masks_and_mixed_steps_are_read_and_written_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d");
        for (name, step) in [("a", 1.0), ("b", 0.0)] {
            save(&path.join(format!("images/{name}.nii.gz")), [2, 2, 3], step);
            save(&path.join(format!("labels/{name}.nii.gz")), [2, 2, 3], 1.0);
        }
        let options = OpenOptions { bounds: Some((-50.0, 50.0)), ..whole() };
        let data = crate::open_with(&path, Split::Train, &options).unwrap();
        assert!(data.is_segmentation());
        assert_eq!((data.class_names().len(), data.domain().resolution()[0]), (12, 0.0));
        let mut samples = data.samples().clone();
        samples.values_mut().iter_mut().for_each(|value| *value += 0.75);
        let perturbed = data.clone().with_samples(samples.clone()).unwrap();
        let out = folder.path().join("out");
        crate::write(&out, &perturbed).unwrap();
        let back = crate::read_back(&out, &perturbed).unwrap();
        assert!(back.row(0).iter().zip(data.samples().row(0)).all(|(a, b)| a - b == 1.0), "whole steps");
        assert_eq!(back.row(1), samples.row(1));
        assert_eq!(crate::open_with(&out, Split::Train, &whole()).unwrap().labels(), data.labels());
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        save(&path.join("images/a.nii"), [2, 2, 2], 1.0);
        fs::create_dir(path.join("labels")).unwrap();
        let refused = || crate::open_with(path, Split::Train, &whole()).unwrap_err().to_string();
        assert!(refused().contains("labels/a.nii"), "{}", refused());
        save(&path.join("labels/a.nii"), [2, 2, 3], 1.0);
        assert!(refused().contains("shape of the mask"), "{}", refused());
        fs::remove_file(path.join("labels/a.nii")).unwrap();
        save(&path.join("labels/a.nii"), [2, 2, 2], 0.5);
        assert!(refused().contains("value of the mask"), "{}", refused());
        fs::write(path.join("images/a.nii"), b"broken").unwrap();
        assert!(refused().contains("a.nii"), "{}", refused());
    }

    #[test]
    fn the_hippocampi_of_the_decathlon_are_read() {
        let Some(path) = shared("msd-hippocampus") else { return };
        let test = crate::open(&path, Split::Test).unwrap();
        assert_eq!((test.len(), test.samples().shape(), test.class_names().len()), (52, &[1, 24, 40, 31][..], 3));
        assert_eq!(test.class_counts(), [52; 3]);
    }
}
