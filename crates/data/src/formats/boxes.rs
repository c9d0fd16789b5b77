//! Folders in the manner of Pascal VOC (`JPEGImages`, `Annotations`, `ImageSets/Main`): one sample a box.
//!
//! A sample is a square part of a picture around the middle of a box, of one size for all: the median of the longer sides of all boxes
//! in the data set, rounded up to a multiple of 8, moved inwards where it would leave the picture. It is not resized, so a cell keeps its
//! size. Its class is the name of the box. The parts of one picture stay in one split: that of `train.txt`, `val.txt` and
//! `test.txt` in `ImageSets/Main`, or, without them, one that [`assign`] draws with each picture as a patient.
//!
//! Boxes without width or height, or outside of their picture, are left out with a warning. Detection itself (finding boxes) is no task
//! of nocebo. Parts are written back as a folder of PNG pictures with a `labels.csv`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use nocebo_core::{Label, Samples};

use super::folder::{domain_of, entries};
use super::labels::named;
use super::picture;
use crate::split::assign;
use crate::{DataError, Dataset, OpenOptions, Split, Warning};

const PICTURES: &str = "JPEGImages";
const ANNOTATIONS: &str = "Annotations";
const SETS: &str = "ImageSets/Main";
/// Bytes of one annotation or list.
const BYTES: u64 = 16 << 20;

/// Whether a folder has pictures with boxes.
pub fn is_layout(path: &Path) -> bool {
    path.join(PICTURES).is_dir() && path.join(ANNOTATIONS).is_dir()
}

/// One box: its picture, class and edges (left, top, right, bottom) in pixels.
struct Marked {
    picture: usize,
    class: String,
    edges: [f64; 4],
}

/// Reads the boxes of one split.
///
/// # Errors
///
/// When an annotation, list or picture cannot be read, pictures differ in channels or depth, a picture is smaller than the parts, or the
/// split is empty.
pub fn read(path: &Path, split: Split, options: &OpenOptions) -> Result<Dataset, DataError> {
    let folder = super::file_name(path);
    let stem = |name: &String| name.strip_suffix(".xml").map(str::to_owned);
    let names: Vec<String> = entries(&path.join(ANNOTATIONS), ANNOTATIONS)?.1.iter().filter_map(stem).collect();
    let mut all = Vec::new();
    for (picture, name) in names.iter().enumerate() {
        let file = format!("{ANNOTATIONS}/{name}.xml");
        all.extend(marked(&text(path, &file)?, &file, picture)?);
    }
    let read = all.len();
    all.retain(|found| found.edges[0] < found.edges[2] && found.edges[1] < found.edges[3]);
    let mut warnings = Vec::new();
    if all.len() < read {
        let text = format!("{} of {read} boxes have no width or height and were left out", read - all.len());
        warnings.push(Warning::Assumption { text });
    }
    let empty = || DataError::Empty { file: folder.clone(), split: split.to_string() };
    let mut sides: Vec<f64> =
        all.iter().map(|found| (found.edges[2] - found.edges[0]).max(found.edges[3] - found.edges[1])).collect();
    sides.sort_unstable_by(f64::total_cmp);
    let median = sides.get(sides.len() / 2).ok_or_else(empty)?;
    let side = (median / 8.0).ceil() as usize * 8;
    warnings
        .push(Warning::Assumption { text: format!("a sample is {side} x {side} pixels around the middle of a box") });

    let texts: Vec<String> = all.iter().map(|found| found.class.clone()).collect();
    let (labels, class_names) = named(&folder, &texts, options)?;
    let owners: Vec<String> = all.iter().map(|found| names[found.picture].clone()).collect();
    let splits = match listed(path, &names)? {
        Some(splits) => all.iter().map(|found| splits[found.picture]).collect(),
        None => {
            assign(&labels, Some(&owners), options.fractions, options.seed)?.into_iter().map(Some).collect::<Vec<_>>()
        }
    };
    let mut rows = Vec::new();
    let (mut values, mut like, mut outside) = (Vec::new(), None, 0);
    let chosen: Vec<usize> = (0..all.len()).filter(|&row| splits[row] == Some(split)).collect();
    for part in chosen.chunk_by(|&one, &other| all[one].picture == all[other].picture) {
        let name = &names[all[part[0]].picture];
        let file = ["jpg", "jpeg", "png"].map(|ending| format!("{PICTURES}/{name}.{ending}"));
        let file = file.iter().find(|file| path.join(file).is_file()).unwrap_or(&file[0]);
        let whole = picture::read(&path.join(file), file, options.limits.pixels)?;
        let [channels, height, width] = whole.shape;
        let &mut expected = like.get_or_insert((channels, whole.bits));
        if expected != (channels, whole.bits) || height < side || width < side {
            let got = format!("[{channels}, {height}, {width}] of {} bits", whole.bits);
            let expected = format!("{} channels of {} bits and {side} pixels a side at least", expected.0, expected.1);
            return Err(DataError::format(file, "picture", expected, got));
        }
        for &row in part {
            let [left, top, right, bottom] = all[row].edges;
            let (x, y) = (f64::midpoint(left, right), f64::midpoint(top, bottom));
            if !(0.0..=width as f64).contains(&x) || !(0.0..=height as f64).contains(&y) {
                outside += 1;
                continue;
            }
            let start =
                |middle: f64, size: usize| ((middle - side as f64 / 2.0).round().max(0.0) as usize).min(size - side);
            let (x, y) = (start(x, width), start(y, height));
            let total = (values.len() + channels * side * side) as u64;
            DataError::check_limit(&folder, "values of all samples", options.limits.values, total)?;
            for line in (0..channels).flat_map(|channel| (y..y + side).map(move |y| channel * height + y)) {
                values.extend_from_slice(&whole.values[line * width + x..line * width + x + side]);
            }
            rows.push(row);
        }
    }
    let (channels, bits) = like.ok_or_else(empty)?;
    if outside > 0 {
        warnings.push(Warning::Assumption { text: format!("{outside} boxes outside of their picture were left out") });
    }
    if rows.is_empty() {
        return Err(empty());
    }
    let shape = [channels, side, side];
    let samples = Samples::new(values, &shape)?.with_indices(rows.iter().map(|&row| row as u64).collect())?;
    let kept: Vec<Label> = rows.iter().map(|&row| labels[row].clone()).collect();
    let source = format!("{folder}, {split} split");
    let data = Dataset::new(source, samples, kept, class_names, domain_of(shape, bits, options)?)?;
    data.warned(warnings).with_patients(rows.iter().map(|&row| owners[row].clone()).collect())
}

fn text(path: &Path, file: &str) -> Result<String, DataError> {
    let opened = File::open(path.join(file)).map_err(DataError::reading(file))?;
    let mut text = String::new();
    let read = opened.take(BYTES + 1).read_to_string(&mut text).map_err(DataError::reading(file))?;
    DataError::check_limit(file, "bytes", BYTES, read as u64)?;
    Ok(text)
}

/// The splits that the lists say, one a picture; pictures on no list are in none.
fn listed(path: &Path, names: &[String]) -> Result<Option<Vec<Option<Split>>>, DataError> {
    let mut splits = vec![None; names.len()];
    let place: BTreeMap<&str, usize> = names.iter().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
    let mut any = false;
    for (list, split) in [("train", Split::Train), ("val", Split::Validation), ("test", Split::Test)] {
        let file = format!("{SETS}/{list}.txt");
        if !path.join(&file).is_file() {
            continue;
        }
        any = true;
        for name in text(path, &file)?.lines().map(str::trim).filter(|name| !name.is_empty()) {
            let Some(&at) = place.get(name) else {
                return Err(DataError::format(&file, "list", "pictures with an annotation", format!("`{name}`")));
            };
            if splits[at].replace(split).is_some_and(|other| other != split) {
                return Err(DataError::format(&file, "list", "each picture in one split", format!("`{name}` in two")));
            }
        }
    }
    Ok(any.then_some(splits))
}

/// The boxes of an annotation: what stands in `<object>` as `<name>` and `<bndbox>`. Nothing else of it is looked at.
fn marked(text: &str, file: &str, picture: usize) -> Result<Vec<Marked>, DataError> {
    if text.contains("<!DOCTYPE") || text.contains("<!ENTITY") || text.contains("<![CDATA[") {
        return Err(DataError::refused(file, "XML with declarations", "write plain elements only"));
    }
    if !text.contains("<annotation") {
        return Err(DataError::format(file, "content", "an element `annotation`", "none"));
    }
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((object, after)) = element(rest, "object") {
        rest = after;
        let missing = |what: &str| DataError::format(file, format!("object {}", found.len() + 1), what, "none");
        let (name, _) = element(object, "name").ok_or_else(|| missing("a name"))?;
        let (bounds, _) = element(object, "bndbox").ok_or_else(|| missing("a bndbox"))?;
        let mut edges = [0.0; 4];
        for (edge, tag) in edges.iter_mut().zip(["xmin", "ymin", "xmax", "ymax"]) {
            let number = element(bounds, tag).and_then(|(text, _)| text.trim().parse().ok());
            *edge = number.filter(|edge: &f64| edge.is_finite()).ok_or_else(|| missing("four edges as numbers"))?;
        }
        found.push(Marked { picture, class: name.trim().to_owned(), edges });
    }
    Ok(found)
}

/// What stands in the first element of this name, and what follows it.
fn element<'a>(text: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    let (_, inside) = text.split_once(&format!("<{name}>"))?;
    inside.split_once(&format!("</{name}>"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::tests::shared;
    use std::fmt::Write as _;
    use std::fs;

    fn annotation(boxes: &[(&str, [i32; 4])]) -> String {
        let mut text = "<annotation><filename>x</filename>".to_owned();
        for (name, [a, b, c, d]) in boxes {
            write!(
                text,
                "<object><name>{name}</name>\n<bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
            )
            .unwrap();
        }
        text + "</annotation>"
    }

    /// Pictures of 20 x 16 pixels whose value is their place, with boxes.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        [PICTURES, ANNOTATIONS, SETS].iter().for_each(|part| fs::create_dir_all(path.join(part)).unwrap());
        for (name, boxes) in [
            ("a", vec![("red", [0, 0, 8, 6]), ("white", [10, 4, 18, 12])]),
            ("b", vec![("white", [12, 8, 20, 16]), ("red", [3, 3, 3, 9])]),
        ] {
            let values: Vec<u16> = (0..16 * 20).map(|at| at % 251).collect();
            let file = fs::File::create(path.join(format!("{PICTURES}/{name}.png"))).unwrap();
            picture::write_png(file, [1, 16, 20], 8, &values).unwrap();
            fs::write(path.join(format!("{ANNOTATIONS}/{name}.xml")), annotation(&boxes)).unwrap();
        }
        fs::write(path.join("ImageSets/Main/train.txt"), "a\n").unwrap();
        fs::write(path.join("ImageSets/Main/test.txt"), "b\n").unwrap();
        folder
    }

    #[test]
    fn a_box_is_a_part_of_one_size_and_written_as_a_picture() {
        let folder = folder();
        let train = crate::open(folder.path(), Split::Train).unwrap();
        assert_eq!(
            (train.samples().shape(), train.class_names()),
            (&[1, 8, 8][..], &["red", "white"].map(String::from)[..])
        );
        assert_eq!(train.labels(), [Label::Class(0), Label::Class(1)]);
        // The first lies at the corner, the second starts at column 10 of row 4.
        assert_eq!(
            (train.samples().row(0)[0], train.samples().row(1)[0], train.samples().row(1)[8]),
            (0.0, 90.0, 110.0)
        );
        let test = crate::open(folder.path(), Split::Test).unwrap();
        assert_eq!(
            (test.len(), test.samples().indices(), test.patients().unwrap()),
            (1, &[2][..], &["b".to_owned()][..])
        );
        assert!(test.warnings().iter().any(|warning| warning.to_string().contains("1 of 4 boxes")));
        let out = folder.path().join("out");
        crate::write(&out, &train).unwrap();
        assert_eq!(&crate::read_back(&out, &train).unwrap(), train.samples());
    }

    #[test]
    fn annotations_that_lie_are_refused() {
        let folder = folder();
        let good = annotation(&[("red", [0, 0, 8, 6])]);
        for (text, reason) in [
            (good.replace("<xmin>0</xmin>", ""), "four edges"),
            (good.replace("<xmin>0", "<xmin>nan"), "four edges"),
            (good.replace("<name>red</name>", ""), "a name"),
            (good.replace("<annotation>", "<!DOCTYPE a [<!ENTITY b 'c'>]><annotation>"), "declarations"),
            ("{}".to_owned(), "annotation"),
            (annotation(&[("red", [0, 0, 900, 900])]), "pixels a side"),
        ] {
            fs::write(folder.path().join("Annotations/a.xml"), text).unwrap();
            let error = crate::open(folder.path(), Split::Train).unwrap_err().to_string();
            assert!(error.contains(reason), "{reason}: {error}");
        }
        fs::write(folder.path().join("Annotations/a.xml"), good).unwrap();
        fs::write(folder.path().join("ImageSets/Main/test.txt"), "../b\n").unwrap();
        assert!(crate::open(folder.path(), Split::Train).unwrap_err().to_string().contains("../b"));
    }

    #[test]
    fn the_blood_cells_of_bccd_are_read() {
        let Some(path) = shared("bccd") else { return };
        let data = crate::open(path, Split::Test).unwrap();
        assert_eq!((data.class_names().join(" "), data.samples().shape()[0]), ("Platelets RBC WBC".to_owned(), 3));
        assert!(data.class_counts().iter().all(|count| *count > 50), "{:?}", data.class_counts());
        assert!(
            data.warnings().iter().any(|warning| warning.to_string().starts_with("2 of 4888 boxes")),
            "{:?}",
            data.warnings()
        );
    }
}
