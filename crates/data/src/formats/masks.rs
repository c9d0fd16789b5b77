//! Folders of pictures with masks: `image/NAME` and `label/NAME.png` (or `.tif`, `.tiff`), one mask a picture.
//!
//! The two folders lie in the data set itself, or in `train`, `val` and `test` folders; of the latter those without a
//! `label` folder are left out with a warning. Where only one part has labels, or there are no parts, the pictures in the
//! order of their names are cut into blocks by the fractions of the options (70 % train, 10 % validation, 20 % test):
//! slices next to each other look alike, so a random split would test what was trained on.
//!
//! A mask has one channel and 8 bits. Its values are classes in ascending order, so 0 and 255 are two classes; but where the
//! others are 0, 1, ... without a gap and at least two, 255 marks positions that are ignored. Masks are written back with
//! the values that they had.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

use nocebo_core::segmentation::IGNORED;
use nocebo_core::{Label, Samples};

use super::folder::{domain_of, encoded, entries};
use super::picture::{self, Kind, Picture};
use crate::dataset::Origin;
use crate::{DataError, Dataset, OpenOptions, Split, Warning};

pub(super) const IMAGES: &str = "image";
const MASKS: &str = "label";
/// More values than this are no classes but grey levels.
const MOST_CLASSES: usize = 64;

/// Whether a folder, or a part of it, has pictures with masks.
pub fn is_layout(path: &Path) -> bool {
    let here = |folder: &Path| folder.join(IMAGES).is_dir() && folder.join(MASKS).is_dir();
    let parts = || entries(path, "").map(|(folders, _)| folders).unwrap_or_default();
    here(path) || parts().iter().any(|name| Split::parse(name).is_some() && here(&path.join(name)))
}

/// One picture with its mask, by their paths inside the data set.
struct Pair {
    image: String,
    mask: String,
    part: Option<Split>,
}

/// Reads one split.
///
/// # Errors
///
/// When a picture has no mask, a mask is no 8-bit grey PNG or TIFF or has another size than its picture, pictures differ in size,
/// the values of the masks are no classes, or the split is empty.
pub fn read(path: &Path, split: Split, options: &OpenOptions) -> Result<Dataset, DataError> {
    let folder = super::file_name(path);
    let mut warnings = Vec::new();
    let pairs = list(path, &folder, &mut warnings)?;
    let parts: BTreeSet<Option<Split>> = pairs.iter().map(|pair| pair.part).collect();
    let splits: Vec<Split> = if parts.len() == 1 {
        let shares = options.fractions;
        let text = format!(
            "pictures in the order of their names: the first {:.0} % train, the next {:.0} % validate, the last {:.0} % test",
            100.0 * shares.train,
            100.0 * shares.validation,
            100.0 * shares.test
        );
        warnings.push(Warning::Assumption { text });
        blocks(pairs.len(), options)?
    } else {
        pairs.iter().map(|pair| pair.part.unwrap_or(Split::Train)).collect()
    };
    let mut masks = Vec::with_capacity(pairs.len());
    for pair in &pairs {
        masks.push(read_mask(path, &pair.mask, options)?);
    }
    let (classes, class_names) = classes(&folder, &masks, options)?;
    let rows: Vec<usize> = (0..pairs.len()).filter(|&row| splits[row] == split).collect();
    let Some(&first) = rows.first() else { return Err(DataError::Empty { file: folder, split: split.to_string() }) };
    let mut values = Vec::new();
    let mut labels = Vec::with_capacity(rows.len());
    let mut kind = Kind::Tiff;
    let like = picture::read(&path.join(&pairs[first].image), &pairs[first].image, options.limits.pixels)?;
    for &row in &rows {
        let Pair { image, mask, .. } = &pairs[row];
        let picture = picture::read(&path.join(image), image, options.limits.pixels)?;
        if (picture.shape, picture.bits) != (like.shape, like.bits) {
            let expected = format!("{:?} of {} bits, as `{}` has", like.shape, like.bits, pairs[first].image);
            let got = format!("{:?} of {} bits; give all pictures one size and type", picture.shape, picture.bits);
            return Err(DataError::format(image, "[channels, height, width] of the picture", expected, got));
        }
        if masks[row].shape[1..] != picture.shape[1..] {
            let expected = format!("{:?}, as its picture", &picture.shape[1..]);
            let got = format!("{:?}", &masks[row].shape[1..]);
            return Err(DataError::format(mask, "[height, width] of the mask", expected, got));
        }
        let total = (values.len() + picture.values.len()) as u64;
        DataError::check_limit(&folder, "values of all pictures", options.limits.values, total)?;
        if picture.kind != Kind::Tiff {
            kind = Kind::Png;
        }
        values.extend(picture.values);
        labels.push(Label::Mask(masks[row].values.iter().map(|value| classes[*value as usize]).collect()));
    }
    let domain = domain_of(like.shape, like.bits, options)?;
    let samples = Samples::new(values, &like.shape)?.with_indices(rows.iter().map(|&row| row as u64).collect())?;
    let data = Dataset::new(format!("{folder}, {split} split"), samples, labels, class_names, domain)?;
    Ok(data.warned(warnings).with_origin(Origin::Pictures(kind)))
}

/// All pairs in the order of parts and names.
fn list(path: &Path, folder: &str, warnings: &mut Vec<Warning>) -> Result<Vec<Pair>, DataError> {
    let mut parts: Vec<(String, Option<Split>)> = Vec::new();
    if path.join(MASKS).is_dir() {
        parts.push((String::new(), None));
    } else {
        let (folders, _) = entries(path, folder)?;
        parts.extend(folders.into_iter().filter_map(|name| Split::parse(&name).map(|split| (name + "/", Some(split)))));
        parts.sort_by_key(|(_, split)| *split);
    }
    let mut pairs = Vec::new();
    for (prefix, part) in parts {
        if !path.join(&prefix).join(MASKS).is_dir() {
            warnings.push(Warning::SkippedFile { file: prefix, reason: format!("no folder `{MASKS}` in it") });
            continue;
        }
        let images = format!("{prefix}{IMAGES}");
        let (_, names) = entries(&path.join(&images), &images)?;
        for name in names {
            let image = format!("{images}/{name}");
            if !picture::has_picture_name(&name) {
                warnings
                    .push(Warning::SkippedFile { file: image, reason: "not named as PNG, JPEG or TIFF".to_owned() });
                continue;
            }
            let stem = name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem);
            let named = |ending: &str| format!("{prefix}{MASKS}/{stem}.{ending}");
            let Some(mask) = ["png", "tif", "tiff"].map(named).into_iter().find(|mask| path.join(mask).is_file())
            else {
                return Err(DataError::format(
                    &image,
                    "mask of the picture",
                    format!("a file `{}`", named("png")),
                    "none",
                ));
            };
            pairs.push(Pair { image, mask, part });
        }
    }
    Ok(pairs)
}

/// Consecutive pictures for each split.
fn blocks(pictures: usize, options: &OpenOptions) -> Result<Vec<Split>, DataError> {
    let [train, validation, _] = options.fractions.shares()?;
    let end = |share: f64| (share * pictures as f64).round() as usize;
    let (trained, validated) = (end(train), end(train + validation));
    let split = |row: usize| match row {
        row if row < trained => Split::Train,
        row if row < validated => Split::Validation,
        _ => Split::Test,
    };
    Ok((0..pictures).map(split).collect())
}

fn read_mask(path: &Path, file: &str, options: &OpenOptions) -> Result<Picture, DataError> {
    let mask = picture::read(&path.join(file), file, options.limits.pixels)?;
    if (mask.shape[0], mask.bits) == (1, 8) {
        return Ok(mask);
    }
    let got = format!("{} channels of {} bits", mask.shape[0], mask.bits);
    Err(DataError::format(file, "mask", "one grey channel of 8 bits", got))
}

/// Class of each grey level (255 where none is meant), and the names of the classes: their levels.
fn classes(folder: &str, masks: &[Picture], options: &OpenOptions) -> Result<([u8; 256], Vec<String>), DataError> {
    let mut found = [false; 256];
    masks.iter().flat_map(|mask| &mask.values).for_each(|value| found[*value as usize] = true);
    let mut levels: Vec<u8> = (0..=255).filter(|level| found[usize::from(*level)]).collect();
    let counted = levels.len().saturating_sub(1);
    if counted >= 2
        && levels[counted] == IGNORED
        && levels[..counted].iter().enumerate().all(|(at, &level)| at == level as usize)
    {
        levels.pop();
    }
    if !(2..=MOST_CLASSES).contains(&levels.len()) {
        return Err(DataError::Classes {
            file: folder.to_owned(),
            expected: format!("2 to {MOST_CLASSES} different values in the masks"),
            got: levels.len().to_string(),
            advice: "give masks with one value a class, saved without loss",
        });
    }
    let names = match &options.class_names {
        Some(names) if names.len() == levels.len() => names.clone(),
        Some(names) => {
            return Err(DataError::Classes {
                file: folder.to_owned(),
                expected: format!("{} classes, one a name", names.len()),
                got: format!("{} values in the masks", levels.len()),
                advice: "name all classes in the order of their values",
            });
        }
        None => levels.iter().map(ToString::to_string).collect(),
    };
    let mut class_of = [IGNORED; 256];
    for (class, &level) in levels.iter().enumerate() {
        class_of[usize::from(level)] = class as u8;
    }
    Ok((class_of, names))
}

/// Writes pictures and masks into the new folder `path`, under a temporary name until it is complete.
///
/// A class whose name is a grey level has that level in the mask, any other its number; files are named by the index of
/// the sample.
///
/// # Errors
///
/// As [`folder::write`](super::folder::write).
pub(super) fn write(path: &Path, data: &Dataset) -> Result<(), DataError> {
    let levels: BTreeMap<u8, u8> = (0..=IGNORED)
        .map(|class| {
            (class, data.class_names().get(usize::from(class)).and_then(|name| name.parse().ok()).unwrap_or(class))
        })
        .collect();
    let pictures = encoded(data)?;
    let shape = data.samples().shape();
    super::write_new_folder(path, |folder| {
        for part in [IMAGES, MASKS] {
            std::fs::create_dir(folder.join(part)).map_err(DataError::writing(part))?;
        }
        for ((name, bytes), label) in pictures.iter().zip(data.labels()) {
            super::write_new_file(&folder.join(IMAGES).join(name), |writer| writer.write_all(bytes))?;
            let Label::Mask(mask) = label else { continue };
            let values: Vec<u16> = mask.iter().map(|class| u16::from(levels[class])).collect();
            let bytes = picture::encode(data.picture_kind(), [1, shape[1], shape[2]], 8, &values);
            let bytes = bytes.map_err(DataError::writing(name))?;
            super::write_new_file(&folder.join(MASKS).join(name), |writer| writer.write_all(&bytes))?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::tests::shared;
    use std::fs;

    fn save(path: &Path, shape: [usize; 3], values: &[u16]) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        picture::write_png(fs::File::create(path).unwrap(), shape, 8, values).unwrap();
    }

    /// Pictures of 1 x 2 pixels with their masks.
    fn data_set(masks: &[[u16; 2]]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (at, mask) in masks.iter().enumerate() {
            save(&folder.path().join(format!("image/{at:02}.png")), [1, 1, 2], &[at as u16, 7]);
            save(&folder.path().join(format!("label/{at:02}.png")), [1, 1, 2], mask);
        }
        folder
    }

    fn open(folder: &tempfile::TempDir, split: Split) -> Result<Dataset, DataError> {
        assert!(is_layout(folder.path()));
        read(folder.path(), split, &OpenOptions::default())
    }

    #[test]
    fn blocks_of_pictures_are_read_and_written_back() {
        let folder = data_set(&[[0, 255]; 10]);
        let test = open(&folder, Split::Test).unwrap();
        assert_eq!((test.len(), test.samples().indices(), test.class_names()[1].as_str()), (2, &[8, 9][..], "255"));
        assert_eq!(test.labels()[0], Label::Mask(vec![0, 1]));
        assert_eq!(open(&folder, Split::Train).unwrap().samples().indices(), [0, 1, 2, 3, 4, 5, 6]);
        assert!(test.warnings()[0].to_string().contains("first 70 % train"));
        let out = folder.path().join("out");
        super::super::folder::write(&out, &test).unwrap();
        let bytes = |path: &Path| picture::decode(&fs::read(path).unwrap(), "f", 100).unwrap().values;
        assert_eq!(bytes(&out.join("label/000008.png")), [0.0, 255.0]);
        assert_eq!(bytes(&out.join("image/000009.png")), [9.0, 7.0]);
    }

    #[test]
    fn masks_may_be_tiff_and_come_back_as_such() {
        let folder = data_set(&[[0, 255]; 10]);
        for at in 0..10 {
            for part in ["image", "label"] {
                fs::remove_file(folder.path().join(format!("{part}/{at:02}.png"))).unwrap();
                let bytes = picture::encode(Kind::Tiff, [1, 1, 2], 8, &[0, 255]).unwrap();
                fs::write(folder.path().join(format!("{part}/{at:02}.tif")), bytes).unwrap();
            }
        }
        let test = open(&folder, Split::Test).unwrap();
        assert_eq!(test.labels()[0], Label::Mask(vec![0, 1]));
        let out = folder.path().join("out");
        super::super::folder::write(&out, &test).unwrap();
        let values = |name: &str| picture::read(&out.join(name), name, 100).unwrap().values;
        assert_eq!((values("label/000008.tif"), values("image/000009.tif")), (vec![0.0, 255.0], vec![0.0, 255.0]));
        assert_eq!(crate::read_back(&out, &test).unwrap(), *test.samples());
    }

    #[test]
    fn parts_and_ignored_positions_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        for (part, level) in [("train", 255), ("val", 0), ("test", 1)] {
            save(&folder.path().join(part).join("image/a.png"), [1, 1, 2], &[5, 6]);
            save(&folder.path().join(part).join("label/a.png"), [1, 1, 2], &[0, level]);
        }
        assert_eq!(open(&folder, Split::Train).unwrap().labels(), [Label::Mask(vec![0, IGNORED])]);
        assert_eq!(open(&folder, Split::Test).unwrap().labels(), [Label::Mask(vec![0, 1])]);
        assert_eq!(open(&folder, Split::Test).unwrap().samples().indices(), [2]);
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let refused = |folder: &tempfile::TempDir| open(folder, Split::Train).unwrap_err().to_string();
        let one_class = data_set(&[[3, 3]; 10]);
        assert!(refused(&one_class).contains("2 to 64"));
        let missing = data_set(&[[0, 1]; 10]);
        fs::remove_file(missing.path().join("label/04.png")).unwrap();
        assert!(refused(&missing).contains("label/04.png"));
        let size = data_set(&[[0, 1]; 10]);
        fs::remove_file(size.path().join("label/02.png")).unwrap();
        save(&size.path().join("label/02.png"), [1, 2, 2], &[0, 1, 0, 1]);
        assert!(refused(&size).contains("`label/02.png`: [height, width] of the mask: expected [1, 2]"));
        let colour = data_set(&[[0, 1]; 10]);
        fs::remove_file(colour.path().join("label/02.png")).unwrap();
        save(&colour.path().join("label/02.png"), [3, 1, 2], &[0; 6]);
        assert!(refused(&colour).contains("one grey channel of 8 bits"));
        fs::remove_file(colour.path().join("image/03.png")).unwrap();
        save(&colour.path().join("image/03.png"), [1, 1, 3], &[0; 3]);
        save(&colour.path().join("label/02.png"), [1, 1, 2], &[0, 1]);
        assert!(refused(&colour).contains("image/03.png"));
    }

    #[test]
    fn the_membranes_of_isbi_are_cut_into_blocks_of_slices() {
        let Some(path) = shared("isbi2012-em") else { return };
        let test = read(&path, Split::Test, &OpenOptions::default()).unwrap();
        assert_eq!(
            (test.len(), test.samples().shape(), test.class_names()),
            (6, &[1, 512, 512][..], &["0".to_owned(), "255".to_owned()][..])
        );
        let Label::Mask(mask) = &test.labels()[0] else { panic!() };
        let interior = mask.iter().map(|class| f64::from(*class)).sum::<f64>() / mask.len() as f64;
        assert!((0.7301..=0.8325).contains(&interior), "{interior}");
    }
}
