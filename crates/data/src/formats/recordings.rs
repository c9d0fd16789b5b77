//! A folder of recordings with a `labels.csv`: one sample a record, WFDB (`NAME.hea` in the column `file`) or EDF (`NAME.edf`).
//!
//! The table is that of [`folder`]: `file`, `label` or findings, `split`, `patient`, and subgroups. All recordings must have
//! the same signals, frequency, length and scaling; these give shape, unit, bounds and stored step. A folder of WFDB records
//! without the table is one of annotated beats, see [`beats`](super::beats).

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use nocebo_core::{Domain, DomainConfig, Field, Samples, Unit};

use super::folder::{self, Listing};
use super::wfdb::Format;
use super::{edf, wfdb};
use crate::{DataError, Dataset, OpenOptions, Split};

/// Bytes of the table that are looked at to find out what its first line names.
const LOOKED_AT: u64 = 1 << 20;

/// What all recordings must share.
#[derive(Debug, PartialEq)]
struct Shared {
    frequency: f64,
    length: usize,
    unit: String,
    /// Lower bound, upper bound and step of each channel.
    channels: Vec<(f32, f32, f32)>,
}

/// Whether the first line of the folder's table names a recording.
pub fn is_layout(path: &Path) -> bool {
    let Ok(table) = File::open(path.join(folder::TABLE)) else { return false };
    let mut lines = BufReader::new(table.take(LOOKED_AT)).lines();
    // What cannot be read is refused by whoever reads all of it.
    let first = lines.nth(1).and_then(Result::ok).unwrap_or_default();
    first.split([',', ';']).any(|cell| is_edf(cell) || cell.strip_suffix(".hea").is_some())
}

fn is_edf(file: &str) -> bool {
    file.strip_suffix(".edf").is_some()
}

/// Reads one split.
///
/// # Errors
///
/// When the table or a recording is unusable, recordings differ in their signals, a sample is missing, or the split is empty.
pub fn read(path: &Path, split: Split, options: &OpenOptions) -> Result<Dataset, DataError> {
    let name = super::file_name(path);
    let mut listing: Listing = folder::list_table(path, options)?;
    let rows = listing.rows_of(&name, split, options)?;
    let (mut values, mut first): (Vec<f32>, Option<(usize, Shared)>) = (Vec::new(), None);
    for &row in &rows {
        let file = &listing.files[row];
        let limit = options.limits.values.saturating_sub(values.len() as u64);
        let (shared, signals) = one(&path.join(file), file, limit)?;
        match &first {
            Some((like, others)) if *others != shared => {
                let expected = format!("signals as in `{}`", listing.files[*like]);
                let got = "others; give all recordings one length, frequency and scaling";
                return Err(DataError::format(file, "recording", expected, got));
            }
            Some(_) => {}
            None => first = Some((row, shared)),
        }
        values.extend(signals);
    }
    let Some((_, shared)) = first else {
        return Err(DataError::Empty { file: name, split: split.to_string() });
    };
    let each = |part: fn(&(f32, f32, f32)) -> f32| Field::PerChannel(shared.channels.iter().map(part).collect());
    let domain: Domain = DomainConfig {
        shape: vec![shared.channels.len(), shared.length],
        unit: match shared.unit.as_str() {
            "mV" => Unit::Millivolt,
            "uV" => Unit::Microvolt,
            other => Unit::Other(other.to_owned()),
        },
        lower: each(|channel| channel.0),
        upper: each(|channel| channel.1),
        resolution: each(|channel| channel.2),
        region: None,
    }
    .try_into()?;
    Ok(listing.dataset((&name, split), &rows, values, domain)?.with_frequency(shared.frequency))
}

/// Writes the samples as records named by their index with a `labels.csv` into the new folder `path`, under a temporary name until
/// it is complete: EDF where the unit is microvolt, else WFDB.
///
/// # Errors
///
/// When the data are no signals with a frequency and one step a channel, a value is not on the domain's grid, the range needs more
/// than 16 bits, or the folder exists or cannot be written.
pub fn write(path: &Path, data: &Dataset) -> Result<(), DataError> {
    let domain = data.domain();
    let refuse =
        |what: &str| nocebo_core::Error::unsupported(what, "recordings hold signals with a frequency and 16-bit steps");
    let (&[channels, length], Some(frequency)) = (domain.shape(), data.frequency()) else {
        return Err(refuse("a recording of these samples").into());
    };
    let scale = |channel: usize| {
        let [lower, upper, step] =
            [domain.lower(), domain.upper(), domain.resolution()].map(|field| f64::from(field[channel * length]));
        (lower, ((upper - lower) / step).round(), step)
    };
    let steps = (0..channels).map(|channel| scale(channel).1).fold(0.0, f64::max);
    if steps >= 65536.0 {
        return Err(refuse("a recording of more than 16 bits").into());
    }
    let edf = is_written_as_edf(domain);
    let unit = if edf { "uV" } else { domain.unit().symbol() }.to_owned();
    let format = if steps < 4095.0 { Format::Packed12 } else { Format::Little(2) };
    let least = if edf { -32768.0 } else { f64::from(format.missing()) + 1.0 };
    let mut records = Vec::with_capacity(data.len());
    for (row, values) in data.samples().rows().enumerate() {
        let mut rounded = values.to_vec();
        domain.store(&mut rounded);
        if let Some(element) =
            (0..values.len()).find(|&at| (rounded[at] - values[at]).abs() > 1e-3 * domain.resolution()[at])
        {
            return Err(DataError::OffGrid { sample: row, element, value: values[element], storage: "in a recording" });
        }
        let stored = |channel: usize| {
            let (lower, _, step) = scale(channel);
            let values = &rounded[channel * length..(channel + 1) * length];
            values.iter().map(move |&value| (least + ((f64::from(value) - lower) / step).round()) as i32)
        };
        records.push((0..channels).map(|channel| stored(channel).collect()).collect::<Vec<Vec<i32>>>());
    }
    let names = names(data);
    super::write_new_folder(path, |folder| {
        for (record, name) in records.into_iter().zip(&names) {
            let signals = record.into_iter().enumerate();
            if edf {
                let signals = signals.map(|(channel, samples)| {
                    let (lower, steps, step) = scale(channel);
                    edf::Signal {
                        label: format!("channel {}", channel + 1),
                        unit: unit.clone(),
                        physical: [decimal(lower), decimal(lower + steps * step)],
                        digital: [-32768, (steps - 32768.0) as i16],
                        samples_per_record: length,
                        samples: samples.into_iter().map(|value| value as i16).collect(),
                    }
                });
                let duration = length as f64 / frequency;
                let recording = edf::Recording { duration, signals: signals.collect(), annotations: Vec::new() };
                edf::write(&folder.join(name), &recording)?;
                continue;
            }
            let signals = signals.map(|(channel, samples)| {
                let (lower, _, step) = scale(channel);
                wfdb::Signal {
                    name: format!("lead {}", channel + 1),
                    format,
                    samples_per_frame: 1,
                    skew: 0,
                    gain: decimal(1.0 / step),
                    baseline: (least - lower / step).round() as i32,
                    unit: unit.clone(),
                    samples,
                }
            });
            let name = name.trim_end_matches(".hea").to_owned();
            wfdb::write(folder, &wfdb::Record { name, frequency, signals: signals.collect() })?;
        }
        folder::write_table(folder, data, &names)
    })
}

fn is_written_as_edf(domain: &Domain) -> bool {
    *domain.unit() == Unit::Microvolt
}

/// Names of written records: the numbers of the samples.
fn names(data: &Dataset) -> Vec<String> {
    let ending = if is_written_as_edf(data.domain()) { "edf" } else { "hea" };
    data.samples().indices().iter().map(|index| format!("{index:06}.{ending}")).collect()
}

/// The samples that were written into `path`, row by row.
pub(crate) fn read_back(path: &Path, data: &Dataset) -> Result<Samples, DataError> {
    let mut values = Vec::with_capacity(data.samples().values().len());
    for name in names(data) {
        let (_, mut row) = one(&path.join(&name), &name, data.samples().elements() as u64)?;
        data.domain().store(&mut row);
        values.extend(row);
    }
    Ok(Samples::new(values, data.samples().shape())?)
}

/// Bounds and steps are known to single precision; the nearest number of seven digits is what was meant.
fn decimal(value: f64) -> f64 {
    format!("{value:.6e}").parse().unwrap_or(value)
}

/// The signals of one recording, channel by channel.
fn one(path: &Path, file: &str, limit: u64) -> Result<(Shared, Vec<f32>), DataError> {
    if is_edf(file) {
        let recording = edf::read(path, limit)?;
        let rate = |signal: &edf::Signal| signal.samples_per_record as f64 / recording.duration;
        let of = |signal: &edf::Signal| {
            let [lower, upper] = signal.physical;
            (
                (lower.min(upper) as f32, lower.max(upper) as f32, signal.step().abs() as f32),
                signal.samples.len(),
                signal.unit.clone(),
                rate(signal),
            )
        };
        let values = recording
            .signals
            .iter()
            .flat_map(|signal| signal.samples.iter().map(|&stored| signal.value(stored) as f32));
        return Ok((shared(file, recording.signals.iter().map(of))?, values.collect()));
    }
    let record = wfdb::read(path, limit)?;
    let of = |signal: &wfdb::Signal| {
        let least = f64::from(signal.format.missing()) + 1.0;
        let value = |stored: f64| ((stored - f64::from(signal.baseline)) / signal.gain) as f32;
        let bounds = (value(least), value(-least), (1.0 / signal.gain) as f32);
        (bounds, signal.samples.len(), signal.unit.clone(), record.frequency)
    };
    let mut values = Vec::new();
    for signal in &record.signals {
        for &stored in &signal.samples {
            let Some(value) = signal.physical(stored) else {
                return Err(DataError::format(file, "signal", "a value for every sample", "a missing one"));
            };
            values.push(value as f32);
        }
    }
    Ok((shared(file, record.signals.iter().map(of))?, values))
}

type Description = ((f32, f32, f32), usize, String, f64);

fn shared(file: &str, mut signals: impl Iterator<Item = Description>) -> Result<Shared, DataError> {
    let Some((bounds, length, unit, frequency)) = signals.next() else {
        return Err(DataError::format(file, "signals", "at least one", 0));
    };
    let mut channels = vec![bounds];
    for other in signals {
        if (other.1, &other.2, other.3) != (length, &unit, frequency) {
            let expected = format!("{length} samples in {unit} at {frequency} Hz, as the first signal has");
            return Err(DataError::format(
                file,
                "signal",
                expected,
                format!("{} in {} at {} Hz", other.1, other.2, other.3),
            ));
        }
        channels.push(other.0);
    }
    Ok(Shared { frequency, length, unit, channels })
}
