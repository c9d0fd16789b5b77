//! A folder of WFDB records with annotated beats (`NAME.hea`, its signals, `NAME.atr`): one sample a beat.
//!
//! A sample is what lies from 352/360 s before the annotated beat to 160/360 s after it (512 samples at the 360 Hz of
//! MIT-BIH), so that it shows how early the beat comes; beats too near to an end of the record are left out. Its channels are the
//! signals that every record has, by name, in the order of the first record. Classes are those of ANSI/AAMI EC57:
//!
//! ```text
//! N  N L R e j      S  A a J S      V  V E      F  F      Q  / f Q
//! ```
//!
//! Records stay whole: the split is by patient. `records.csv` in the folder says it, with the columns `record` and, as
//! wanted, `split` and `patient`. Without it each record is a patient, save that 201 and 202 of MIT-BIH are one; where
//! all records are of MIT-BIH, those of the set DS2 of de Chazal et al. (IEEE Trans. Biomed. Eng. 2004) test, the last of DS1 by
//! name validates, and the others of DS1 train. Any other data are divided by [`assign`].
//!
//! Values are in the unit of the signals (mV). All signals must be stored alike: one gain, baseline and format.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use nocebo_core::{Domain, DomainConfig, Field, Label, Samples, Unit};

use super::folder::{entries, patient_warnings};
use super::wfdb::{self, Annotation, Format, Record, Signal};
use crate::split::assign;
use crate::{DataError, Dataset, OpenOptions, Split, Warning};

const TABLE: &str = "records.csv";
/// Bytes of one annotation file.
const ANNOTATION_BYTES: u64 = 64 << 20;
/// Seconds before and after a beat.
const BEFORE: f64 = 352.0 / 360.0;
const AFTER: f64 = 160.0 / 360.0;
/// Classes with the symbols of their beats; the first symbol is the one that is written.
const CLASSES: [(&str, &str); 5] = [("N", "NLRej"), ("S", "SAaJ"), ("V", "VE"), ("F", "F"), ("Q", "Q/f")];
/// Records for training and for testing (de Chazal et al. 2004).
const DS1: [&str; 22] = [
    "101", "106", "108", "109", "112", "114", "115", "116", "118", "119", "122", "124", "201", "203", "205", "207",
    "208", "209", "215", "220", "223", "230",
];
const DS2: [&str; 22] = [
    "100", "103", "105", "111", "113", "117", "121", "123", "200", "202", "210", "212", "213", "214", "219", "221",
    "222", "228", "231", "232", "233", "234",
];

/// Whether a folder holds WFDB records.
pub fn is_layout(path: &Path) -> bool {
    entries(path, "").is_ok_and(|(_, files)| files.iter().any(|name| name.strip_suffix(".hea").is_some()))
}

/// Whether samples are signals with classes of beats.
pub fn are_beats(data: &Dataset) -> bool {
    data.frequency().is_some() && data.class_names().iter().all(|name| CLASSES.iter().any(|(class, _)| class == name))
}

/// Reads the beats of one split.
///
/// # Errors
///
/// When a record or its annotations cannot be read, records differ in frequency or in how their signals are stored, no signal
/// is common to all, the table is unusable, or the split is empty.
pub fn read(path: &Path, split: Split, options: &OpenOptions) -> Result<Dataset, DataError> {
    let folder = super::file_name(path);
    let (_, files) = entries(path, &folder)?;
    let names: Vec<String> = files.iter().filter_map(|name| name.strip_suffix(".hea").map(str::to_owned)).collect();
    let mut beats = BTreeMap::new();
    for name in &names {
        beats.insert(name.as_str(), wfdb::read_annotations(&path.join(format!("{name}.atr")), ANNOTATION_BYTES)?);
    }
    let Arrangement { splits, patients, mut warnings } = arrange(path, &names, &beats, options)?;

    let mut limit = options.limits.values;
    let mut found = Found::default();
    let mut index = 0;
    for (row, name) in names.iter().enumerate() {
        let record = wfdb::read(&path.join(format!("{name}.hea")), limit)?;
        found.admit(&format!("{name}.hea"), &record)?;
        let marks = beats[name.as_str()].iter();
        let first = index;
        let classed: Vec<(u64, usize)> = marks.filter_map(|mark| Some((mark.sample, class_of(mark)?))).collect();
        index += classed.len() as u64;
        if splits[row] == split {
            // The names of common signals are known when all records have been seen.
            limit -= record.signals.iter().map(|signal| signal.samples.len() as u64).sum::<u64>();
            let (beats, patient) = (classed, patients[row].clone());
            found.taken.push(Taken { record, first, beats, patient });
        }
    }
    let data = found.cut(&folder, split)?;
    let (samples, labels, owners, domain, frequency, dropped) = data;
    if dropped > 0 {
        let text =
            format!("{dropped} beat(s) too near to an end of their record, or with samples missing, were left out");
        warnings.push(Warning::Assumption { text });
    }
    let names = CLASSES.map(|(class, _)| class.to_owned()).to_vec();
    let data = Dataset::new(format!("{folder}, {split} split"), samples, labels, names, domain)?;
    Ok(data.with_patients(owners)?.with_frequency(frequency).warned(warnings))
}

fn class_of(mark: &Annotation) -> Option<usize> {
    let symbol = mark.symbol()?;
    CLASSES.iter().position(|(_, symbols)| symbols.contains(symbol))
}

/// Which split and which patient each record belongs to.
struct Arrangement {
    splits: Vec<Split>,
    patients: Vec<String>,
    warnings: Vec<Warning>,
}

fn arrange(
    path: &Path,
    names: &[String],
    beats: &BTreeMap<&str, Vec<Annotation>>,
    options: &OpenOptions,
) -> Result<Arrangement, DataError> {
    let own = |name: &String| if name == "202" { "201".to_owned() } else { name.clone() };
    let mut patients: Vec<String> = names.iter().map(own).collect();
    let mut splits: Option<Vec<Split>> = None;
    let known = |name: &String| DS1.contains(&name.as_str()) || DS2.contains(&name.as_str());
    if path.join(TABLE).is_file() {
        let table = read_table(path)?;
        let line = |name: &String| {
            table.get(name).ok_or_else(|| DataError::format(TABLE, "records", format!("a line for `{name}`"), "none"))
        };
        for (patient, name) in patients.iter_mut().zip(names) {
            if let Some(given) = &line(name)?.1 {
                patient.clone_from(given);
            }
        }
        if table.values().any(|(split, _)| split.is_some()) {
            let of = |name: &String| {
                let missing = || DataError::format(TABLE, format!("split of `{name}`"), "train, val or test", "none");
                line(name)?.0.ok_or_else(missing)
            };
            splits = Some(names.iter().map(of).collect::<Result<_, _>>()?);
        }
    } else if names.iter().all(known) {
        let last = names.iter().rev().find(|name| DS1.contains(&name.as_str()));
        let of = |name: &String| match name {
            name if DS2.contains(&name.as_str()) => Split::Test,
            name if Some(name) == last => Split::Validation,
            _ => Split::Train,
        };
        splits = Some(names.iter().map(of).collect());
    }
    let mut warnings = Vec::new();
    let splits = if let Some(splits) = splits {
        warnings.extend(patient_warnings(&splits, Some(&patients)));
        splits
    } else {
        // The rarest class of a record stands for it.
        let mut frequency = [0; CLASSES.len()];
        beats.values().flatten().filter_map(class_of).for_each(|class| frequency[class] += 1);
        let rarest =
            |name: &String| beats[name.as_str()].iter().filter_map(class_of).min_by_key(|class| frequency[*class]);
        let labels: Vec<Label> = names.iter().map(|name| Label::Class(rarest(name).unwrap_or(0))).collect();
        assign(&labels, Some(&patients), options.fractions, options.seed)?
    };
    Ok(Arrangement { splits, patients, warnings })
}

type Line = (Option<Split>, Option<String>);

fn read_table(path: &Path) -> Result<BTreeMap<String, Line>, DataError> {
    let broken =
        |error: csv::Error| DataError::format(TABLE, "table", "as many cells in each line as in the header", error);
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(path.join(TABLE)).map_err(broken)?;
    let header = reader.headers().map_err(broken)?.clone();
    let column = |name: &str| header.iter().position(|cell| cell.eq_ignore_ascii_case(name));
    let Some(record) = column("record") else {
        return Err(DataError::format(TABLE, "header", "a column `record`", format!("{} other columns", header.len())));
    };
    let mut lines = BTreeMap::new();
    for line in reader.records() {
        let line = line.map_err(broken)?;
        let cell = |at: Option<usize>| at.and_then(|at| line.get(at)).filter(|cell| !cell.is_empty());
        let split = match cell(column("split")) {
            Some(text) => Some(
                Split::parse(text)
                    .ok_or_else(|| DataError::format(TABLE, "split", "train, val or test", format!("`{text}`")))?,
            ),
            None => None,
        };
        lines.insert(line[record].to_owned(), (split, cell(column("patient")).map(str::to_owned)));
    }
    Ok(lines)
}

/// A record of the wanted split.
struct Taken {
    record: Record,
    /// Index of its first beat.
    first: u64,
    /// Frame and class of each beat.
    beats: Vec<(u64, usize)>,
    patient: String,
}

/// What is common to all records, and the records of the wanted split.
#[derive(Default)]
struct Found {
    like: Option<(f64, Signal)>,
    common: Vec<String>,
    taken: Vec<Taken>,
}

type Cut = (Samples, Vec<Label>, Vec<String>, Domain, f64, usize);

impl Found {
    /// Checks a record against those before, and keeps the names that it shares with them.
    fn admit(&mut self, file: &str, record: &Record) -> Result<(), DataError> {
        let names: BTreeSet<&str> = record.signals.iter().map(|signal| signal.name.as_str()).collect();
        match &self.like {
            None => {
                self.common = record.signals.iter().map(|signal| signal.name.clone()).collect();
                self.like = Some((record.frequency, Signal { samples: Vec::new(), ..record.signals[0].clone() }));
            }
            Some(_) => self.common.retain(|name| names.contains(name.as_str())),
        }
        let Some((frequency, like)) = &self.like else { return Ok(()) };
        if self.common.is_empty() {
            return Err(DataError::format(
                file,
                "signals",
                "one that every record has",
                names.into_iter().collect::<Vec<_>>().join(", "),
            ));
        }
        let storage = |signal: &Signal| (signal.gain, signal.baseline, signal.format, signal.unit.clone());
        let stray = record.signals.iter().find(|signal| {
            self.common.contains(&signal.name)
                && (storage(signal) != storage(like) || signal.samples_per_frame != 1 || signal.skew != 0)
        });
        if let Some(stray) = stray {
            let expected = format!("{:?} without skew and one sample a frame, as in the first record", storage(like));
            return Err(DataError::format(
                file,
                format!("storage of `{}`", stray.name),
                expected,
                format!("{:?}", storage(stray)),
            ));
        }
        if record.frequency.total_cmp(frequency).is_ne() {
            return Err(DataError::format(file, "sampling frequency", frequency, record.frequency));
        }
        Ok(())
    }

    fn cut(self, folder: &str, split: Split) -> Result<Cut, DataError> {
        let empty = || DataError::Empty { file: folder.to_owned(), split: split.to_string() };
        let (frequency, like) = self.like.ok_or_else(empty)?;
        let (before, after) = window(frequency);
        let shape = [self.common.len(), before + after];
        let domain = domain_of(&like, &shape)?;
        let (mut values, mut labels, mut owners, mut indices) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut dropped = 0;
        for Taken { record, first, beats, patient } in &self.taken {
            let named = |name: &String| record.signals.iter().find(|signal| signal.name == *name);
            let signals: Vec<&Signal> = self.common.iter().filter_map(named).collect();
            for (number, &(at, class)) in beats.iter().enumerate() {
                let place = (at as usize).checked_sub(before).map(|start| start..start + before + after);
                let parts: Option<Vec<&[i32]>> =
                    place.and_then(|place| signals.iter().map(|signal| signal.samples.get(place.clone())).collect());
                let physical: Option<Vec<f32>> = parts.and_then(|parts| {
                    let all = signals
                        .iter()
                        .zip(parts)
                        .flat_map(|(signal, part)| part.iter().map(|&stored| signal.physical(stored)));
                    all.map(|value| value.map(|value| value as f32)).collect()
                });
                let Some(mut physical) = physical else {
                    dropped += 1;
                    continue;
                };
                // On the grid of the domain to the bit, so that what was not changed is stored as it was.
                domain.store(&mut physical);
                values.extend(physical);
                labels.push(Label::Class(class));
                owners.push(patient.clone());
                indices.push(first + number as u64);
            }
        }
        if labels.is_empty() {
            return Err(empty());
        }
        Ok((Samples::new(values, &shape)?.with_indices(indices)?, labels, owners, domain, frequency, dropped))
    }
}

/// Samples before and after a beat.
fn window(frequency: f64) -> (usize, usize) {
    ((BEFORE * frequency).round().max(1.0) as usize, (AFTER * frequency).round().max(1.0) as usize)
}

/// Unit, bounds and step of a signal as it is stored; the least stored value means a missing sample.
fn domain_of(like: &Signal, shape: &[usize]) -> Result<Domain, DataError> {
    let bits = like.format.bits();
    if bits > 24 {
        let reason = "its steps cannot be told apart in single precision; convert to 16 bits";
        return Err(nocebo_core::Error::unsupported(format!("a data set of signals of {bits} bits"), reason).into());
    }
    let physical = |stored: i32| ((f64::from(stored) - f64::from(like.baseline)) / like.gain) as f32;
    let (one, other) = (physical(like.format.missing() + 1), physical(-(like.format.missing() + 1)));
    let unit = match like.unit.as_str() {
        "mV" => Unit::Millivolt,
        "uV" => Unit::Microvolt,
        other => Unit::Other(other.to_owned()),
    };
    let config = DomainConfig {
        shape: shape.to_vec(),
        unit,
        lower: Field::Uniform(one.min(other)),
        upper: Field::Uniform(one.max(other)),
        resolution: Field::Uniform((1.0 / like.gain.abs()) as f32),
        region: None,
    };
    Ok(config.try_into()?)
}

/// Writes each sample as a record of its own, named by its index and with its beat marked, into the new folder `path`, under a
/// temporary name until it is complete.
///
/// Values are stored in steps of the domain, in 12 bits where they fit and else in 16.
///
/// # Errors
///
/// When the data are no signals with a frequency and classes of beats, a value is not on the domain's grid, the range needs more
/// than 16 bits, or the folder exists or cannot be written.
pub fn write(path: &Path, data: &Dataset) -> Result<(), DataError> {
    let refuse =
        |what: &str| nocebo_core::Error::unsupported(what, "WFDB records hold signals with a frequency and a step");
    let domain = data.domain();
    let (&[channels, length], Some(frequency)) = (domain.shape(), data.frequency()) else {
        return Err(refuse("a WFDB record of these samples").into());
    };
    let (lower, step) = (f64::from(domain.lower()[0]), f64::from(domain.resolution()[0]));
    let alike = |values: &[f32]| values.iter().all(|value| *value == values[0]);
    if step <= 0.0 || !alike(domain.lower()) || !alike(domain.resolution()) {
        return Err(refuse("a WFDB record of this domain").into());
    }
    let steps = ((f64::from(domain.upper()[0]) - lower) / step).round();
    let format = if steps < 4096.0 { Format::Packed12 } else { Format::Little(2) };
    if steps >= 65536.0 {
        return Err(refuse("a WFDB record of more than 16 bits").into());
    }
    // As read: the lower bound is the least stored value that is no mark of a missing sample.
    let least = f64::from(format.missing() + 1);
    // The step is known to single precision.
    let gain: f64 = format!("{:.6e}", 1.0 / step).parse().unwrap_or(1.0 / step);
    let baseline = (least - lower / step).round() as i32;
    let (before, after) = window(frequency);
    let mut records = Vec::with_capacity(data.len());
    for (row, label) in data.labels().iter().enumerate() {
        let mut stored = data.samples().row(row).to_vec();
        domain.store(&mut stored);
        if let Some(element) = (0..stored.len()).find(|&element| stored[element] != data.samples().row(row)[element]) {
            let value = data.samples().row(row)[element];
            return Err(DataError::OffGrid { sample: row, element, value, storage: "as a WFDB record" });
        }
        let Label::Class(class) = label else { return Err(refuse("a WFDB record without a class").into()) };
        let symbol = CLASSES.get(*class).and_then(|(_, symbols)| symbols.chars().next());
        let code = symbol.and_then(|symbol| (1..=49).find(|code| mark(0, *code).symbol() == Some(symbol)));
        let Some(code) = code else { return Err(refuse("a beat of this class").into()) };
        let digital = |value: f32| (least + ((f64::from(value) - lower) / step).round()) as i32;
        let signal = |channel: usize| Signal {
            name: format!("lead {}", channel + 1),
            format,
            samples_per_frame: 1,
            skew: 0,
            gain,
            baseline,
            unit: domain.unit().symbol().to_owned(),
            samples: stored[channel * length..(channel + 1) * length].iter().map(|value| digital(*value)).collect(),
        };
        let name = format!("{:06}", data.samples().indices()[row]);
        let record = Record { name, frequency, signals: (0..channels).map(signal).collect() };
        let place = if before + after == length { before } else { length / 2 };
        records.push((record, mark(place as u64, code)));
    }
    super::write_new_folder(path, |folder| {
        let mut table = "record,patient\n".to_owned();
        for (row, (record, beat)) in records.iter().enumerate() {
            wfdb::write(folder, record)?;
            wfdb::write_annotations(&folder.join(format!("{}.atr", record.name)), std::slice::from_ref(beat))?;
            let patient = data.patients().map_or(record.name.as_str(), |patients| patients[row].as_str());
            // Writing to a string cannot fail.
            let _ = writeln!(table, "{},\"{}\"", record.name, patient.replace('"', "\"\""));
        }
        super::write_new_file(&folder.join(TABLE), |writer| writer.write_all(table.as_bytes()))
    })
}

/// The samples that were written into `path`, row by row.
pub(crate) fn read_back(path: &Path, data: &Dataset) -> Result<Samples, DataError> {
    let mut values = Vec::with_capacity(data.samples().values().len());
    for &index in data.samples().indices() {
        let file = format!("{index:06}.hea");
        let record = wfdb::read(&path.join(&file), data.samples().elements() as u64)?;
        let stored = record.signals.iter().flat_map(|signal| signal.samples.iter().map(|&at| signal.physical(at)));
        let row: Option<Vec<f32>> = stored.map(|value| value.map(|value| value as f32)).collect();
        let mut row = row.ok_or_else(|| DataError::format(&file, "samples", "a value each", "a missing one"))?;
        data.domain().store(&mut row);
        values.extend(row);
    }
    Ok(Samples::new(values, data.samples().shape())?)
}

fn mark(sample: u64, code: u8) -> Annotation {
    Annotation { sample, code, text: String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::tests::shared;
    use nocebo_core::Seed;
    use std::fs;

    /// Records of 1000 frames at 360 Hz with beats at 400 and 600, the second of the given symbols.
    fn records(names: &[(&str, u8)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, code) in names {
            let signal = |name: &str, shift: i32| Signal {
                name: name.to_owned(),
                format: Format::Packed12,
                samples_per_frame: 1,
                skew: 0,
                gain: 200.0,
                baseline: 1024,
                unit: "mV".to_owned(),
                samples: (0..1000).map(|at| at % 500 + shift).collect(),
            };
            let signals = vec![signal("V1", 9), signal("MLII", 0)];
            wfdb::write(folder.path(), &Record { name: (*name).to_owned(), frequency: 360.0, signals }).unwrap();
            let beats = [mark(100, 1), mark(400, 1), mark(500, 14), mark(600, *code), mark(999, 1)];
            wfdb::write_annotations(&folder.path().join(format!("{name}.atr")), &beats).unwrap();
        }
        folder
    }

    fn open(folder: &tempfile::TempDir, split: Split) -> Result<Dataset, DataError> {
        assert!(is_layout(folder.path()));
        read(folder.path(), split, &OpenOptions { seed: Seed(1), ..OpenOptions::default() })
    }

    #[test]
    fn beats_are_cut_in_millivolts_and_split_by_record() {
        let folder = records(&[("100", 5), ("101", 8), ("106", 1)]);
        let test = open(&folder, Split::Test).unwrap();
        assert_eq!((test.samples().shape(), test.samples().indices()), (&[2, 512][..], &[1, 2][..]));
        assert_eq!(
            (test.labels(), test.patients().unwrap()),
            (&[Label::Class(0), Label::Class(2)][..], &["100".to_owned(), "100".to_owned()][..])
        );
        assert_eq!((test.domain().unit(), test.frequency()), (&Unit::Millivolt, Some(360.0)));
        let first = test.samples().row(0)[0];
        assert!((first - (48.0 + 9.0 - 1024.0) / 200.0).abs() < 1e-6, "{first}");
        assert!((test.domain().upper()[0] - (2047.0 - 1024.0) / 200.0).abs() < 1e-6);
        assert!(test.warnings().iter().any(|warning| warning.to_string().contains("2 beat(s) too near")));
        assert_eq!(open(&folder, Split::Validation).unwrap().patients().unwrap()[0], "106");
        assert_eq!(open(&folder, Split::Train).unwrap().labels()[1], Label::Class(1));
    }

    #[test]
    fn a_patient_on_both_sides_is_warned_of() {
        let folder = records(&[("201", 5), ("202", 8), ("223", 1)]);
        let data = open(&folder, Split::Test).unwrap();
        let both = Warning::SamePatient { splits: (Split::Train, Split::Test), patients: 1 };
        assert!(data.warnings().contains(&both), "{:?}", data.warnings());
        fs::write(folder.path().join(TABLE), "record,split,patient\n201,test,x\n202,val,y\n223,train,z\n").unwrap();
        let data = open(&folder, Split::Test).unwrap();
        assert_eq!((data.patients().unwrap()[0].as_str(), data.warnings().contains(&both)), ("x", false));
        fs::write(folder.path().join(TABLE), "record,split\n201,test\n").unwrap();
        assert!(open(&folder, Split::Test).unwrap_err().to_string().contains("a line for `202`"));
        fs::write(folder.path().join(TABLE), "record,split\n201,exam\n").unwrap();
        assert!(open(&folder, Split::Test).unwrap_err().to_string().contains("`exam`"));
    }

    #[test]
    fn perturbed_beats_are_stored_in_their_own_steps() {
        let folder = records(&[("100", 5), ("101", 8)]);
        let data = open(&folder, Split::Test).unwrap();
        let mut moved = data.samples().clone();
        moved.values_mut().iter_mut().for_each(|value| *value += 0.0123);
        let off = data.clone().with_samples(moved.clone()).unwrap();
        let out = folder.path().join("out");
        assert!(matches!(write(&out, &off), Err(DataError::OffGrid { .. })));
        moved.rows_mut().for_each(|row| data.domain().store(row));
        let stored = data.with_samples(moved).unwrap();
        write(&out, &stored).unwrap();
        assert!(fs::read_to_string(out.join("000001.hea")).unwrap().contains(" 200(1024)/mV "));
        let mut again = Vec::new();
        for split in Split::ALL {
            again.extend(read(&out, split, &OpenOptions::default()).into_iter().flat_map(|data| {
                assert_eq!(data.domain(), stored.domain());
                let rows: Vec<_> = data.samples().rows().map(<[f32]>::to_vec).collect();
                data.labels().to_vec().into_iter().zip(rows).collect::<Vec<_>>()
            }));
        }
        let mut wanted: Vec<_> =
            stored.labels().to_vec().into_iter().zip(stored.samples().rows().map(<[f32]>::to_vec)).collect();
        again.sort_by(|a, b| a.0.cmp(&b.0));
        wanted.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(again, wanted);
    }

    #[test]
    fn records_that_do_not_fit_each_other_are_refused() {
        let folder = records(&[("a", 5), ("b", 8)]);
        let header = fs::read_to_string(folder.path().join("b.hea")).unwrap();
        for (old, new, reason) in [
            ("b 2 360", "b 2 250", "sampling frequency"),
            ("200(1024)", "100(1024)", "storage of `V1`"),
            ("212 ", "212:3 ", "without skew"),
        ] {
            fs::write(folder.path().join("b.hea"), header.replacen(old, new, 1)).unwrap();
            let error = open(&folder, Split::Train).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        fs::write(folder.path().join("b.hea"), header.replace("MLII", "II").replace("V1", "V2")).unwrap();
        assert!(open(&folder, Split::Train).unwrap_err().to_string().contains("one that every record has"));
    }

    #[test]
    fn the_beats_of_mit_bih_are_all_there() {
        let Some(path) = shared("mitbih") else { return };
        let test = read(&path, Split::Test, &OpenOptions::default()).unwrap();
        // The README of the data counts 7021 N, 1473 S, 1047 V, 364 F; a few lie at an end of their record.
        let counts = test.class_counts();
        let (normal, others) = (counts[0], &counts[1..]);
        assert_eq!((others, test.samples().shape()), (&[1473, 1046, 364, 0][..], &[1, 512][..]));
        assert!((7021 - 12..=7021).contains(&normal), "{normal}");
        assert_eq!(test.patients().unwrap().iter().collect::<BTreeSet<_>>().len(), 4);
    }
}
