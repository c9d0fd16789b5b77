//! European Data Format, EDF and continuous EDF+ (`.edf`): signals of several rates in records of equal duration.
//!
//! ```text
//! header     256 bytes of text, then 256 bytes of text a signal, field by field
//! record     for each signal its samples, two bytes each, least first
//! physical = least + (stored − least stored) · (greatest − least) / (greatest stored − least stored)
//! ```
//!
//! Who was recorded, where and when is not read, so that it can reach no report, and is written as unknown. Interrupted
//! recordings (EDF+D) are refused.
//!
//! Source: Kemp et al. 1992 and Kemp & Olivan 2003 (edfplus.info).

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use crate::DataError;

/// Most signals of a recording.
const MOST_SIGNALS: usize = 1024;
const ANNOTATIONS: &str = "EDF Annotations";

/// One signal.
#[derive(Clone, Debug, PartialEq)]
pub struct Signal {
    /// Its name, such as `EEG Fpz-Cz`.
    pub label: String,
    /// Unit of its physical values, such as `uV`.
    pub unit: String,
    /// Physical values of the least and of the greatest stored value.
    pub physical: [f64; 2],
    /// Least and greatest stored value.
    pub digital: [i16; 2],
    /// Samples in each record.
    pub samples_per_record: usize,
    /// Stored values.
    pub samples: Vec<i16>,
}

impl Signal {
    /// Physical value of one stored step.
    pub fn step(&self) -> f64 {
        (self.physical[1] - self.physical[0]) / (f64::from(self.digital[1]) - f64::from(self.digital[0]))
    }

    /// Physical value of a stored one.
    pub fn value(&self, stored: i16) -> f64 {
        self.physical[0] + (f64::from(stored) - f64::from(self.digital[0])) * self.step()
    }
}

/// A text at a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Annotation {
    /// Seconds from the start of the recording.
    pub onset: f64,
    /// What is said.
    pub text: String,
}

/// A recording.
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    /// Seconds of a record.
    pub duration: f64,
    /// Signals, those of annotations left out.
    pub signals: Vec<Signal>,
    /// Annotations of EDF+.
    pub annotations: Vec<Annotation>,
}

/// Reads a recording.
///
/// # Errors
///
/// When the header is no text of the format, a number in it is out of range, the recording is interrupted, the file is shorter
/// than it says, or there are more than `limit` samples.
pub fn read(path: &Path, limit: u64) -> Result<Recording, DataError> {
    let file = super::file_name(path);
    let mut opened = File::open(path).map_err(DataError::reading(&file))?;
    let length = opened.metadata().map_err(DataError::reading(&file))?.len();
    let head = take(&mut opened, 256, &file)?;
    let text = |bytes: &[u8], what: &str| -> Result<String, DataError> {
        if bytes.iter().all(|byte| (32..127).contains(byte)) {
            return Ok(String::from_utf8_lossy(bytes).trim().to_owned());
        }
        Err(DataError::format(&file, what, "printable ASCII", "other bytes"))
    };
    let number = |bytes: &[u8], what: &str| -> Result<f64, DataError> {
        let text = text(bytes, what)?;
        let parsed = text.parse().ok().filter(|number: &f64| number.is_finite());
        parsed.ok_or_else(|| DataError::format(&file, what, "a number", format!("`{text}`")))
    };
    let whole = |bytes: &[u8], what: &str, least: f64, greatest: f64| -> Result<f64, DataError> {
        let value = number(bytes, what)?;
        if value.fract() == 0.0 && (least..=greatest).contains(&value) {
            return Ok(value);
        }
        Err(DataError::format(&file, what, format!("a whole number from {least} to {greatest}"), value))
    };
    let version = text(&head[..8], "version")?;
    if version != "0" {
        return Err(DataError::format(&file, "version", "0", format!("`{version}`")));
    }
    if head[192..].starts_with(b"EDF+D") {
        return Err(DataError::refused(&file, "an interrupted recording (EDF+D)", "divide it at its gaps"));
    }
    let count = whole(&head[252..], "number of signals", 1.0, MOST_SIGNALS as f64)? as usize;
    let size = 256 * (count as u64 + 1);
    whole(&head[184..192], "bytes of the header", size as f64, size as f64)?;
    let records = whole(&head[236..244], "number of records", -1.0, 1e8)?;
    let duration = number(&head[244..252], "seconds of a record")?;
    let fields = take(&mut opened, 256 * count as u64, &file)?;
    // Each field stands for all signals in turn.
    let field = |start: usize, width: usize, signal: usize| {
        let at = start * count + width * signal;
        &fields[at..at + width]
    };
    let mut described = Vec::with_capacity(count);
    for signal in 0..count {
        let label = text(field(0, 16, signal), "label")?;
        let stored = |start, what| whole(field(start, 8, signal), what, f64::from(i16::MIN), f64::from(i16::MAX));
        let digital = [stored(120, "least stored value")? as i16, stored(128, "greatest stored value")? as i16];
        let physical =
            [number(field(104, 8, signal), "least value")?, number(field(112, 8, signal), "greatest value")?];
        if digital[0] >= digital[1] || (physical[0] - physical[1]).abs() == 0.0 {
            let got = format!("{digital:?} and {physical:?}");
            return Err(DataError::format(&file, format!("range of `{label}`"), "two different ends", got));
        }
        described.push(Signal {
            label,
            // Micro signs of old encodings are common here.
            unit: String::from_utf8_lossy(field(96, 8, signal)).trim().to_owned(),
            physical,
            digital,
            samples_per_record: whole(field(216, 8, signal), "samples a record", 1.0, 61_440.0 * 16.0)? as usize,
            samples: Vec::new(),
        });
    }
    if duration < 0.0 || (duration == 0.0 && described.iter().any(|signal| signal.label != ANNOTATIONS)) {
        return Err(DataError::format(&file, "seconds of a record", "above 0", duration));
    }
    let a_record: u64 = described.iter().map(|signal| signal.samples_per_record as u64).sum();
    let available = length.saturating_sub(size) / (2 * a_record);
    let records = if records < 0.0 { available } else { records as u64 };
    if records > available {
        let expected = format!("{records} records of {} bytes", 2 * a_record);
        return Err(DataError::format(&file, "length", expected, format!("{available} of them")));
    }
    DataError::check_limit(&file, "samples", limit, records.saturating_mul(a_record))?;
    let mut annotations = Vec::new();
    for _ in 0..records {
        let record = take(&mut opened, 2 * a_record, &file)?;
        let mut rest = record.as_slice();
        for signal in &mut described {
            let (own, others) = rest.split_at(2 * signal.samples_per_record);
            rest = others;
            if signal.label == ANNOTATIONS {
                annotations.extend(texts(own));
            } else {
                signal.samples.extend(own.chunks_exact(2).map(|two| i16::from_le_bytes([two[0], two[1]])));
            }
        }
    }
    described.retain(|signal| signal.label != ANNOTATIONS);
    Ok(Recording { duration, signals: described, annotations })
}

fn take(file: &mut File, bytes: u64, name: &str) -> Result<Vec<u8>, DataError> {
    let mut content = Vec::new();
    Read::take(file, bytes).read_to_end(&mut content).map_err(DataError::reading(name))?;
    if content.len() as u64 == bytes {
        return Ok(content);
    }
    Err(DataError::format(name, "length", format!("{bytes} more bytes"), content.len()))
}

/// The texts in the annotations of one record: `+ONSET[\x15DURATION]\x14TEXT\x14...\0`. What is malformed says nothing.
fn texts(bytes: &[u8]) -> Vec<Annotation> {
    let mut found = Vec::new();
    for list in bytes.split(|byte| *byte == 0) {
        let mut parts = list.split(|byte| *byte == 0x14);
        let time = parts.next().and_then(|time| time.split(|byte| *byte == 0x15).next()).unwrap_or_default();
        let Some(onset) = std::str::from_utf8(time).ok().and_then(|time| time.parse().ok()) else { continue };
        let said = parts.filter(|text| !text.is_empty());
        found.extend(said.map(|text| Annotation { onset, text: String::from_utf8_lossy(text).into_owned() }));
    }
    found
}

/// What a signal says in one field of the header.
type Field = fn(&Signal) -> String;

/// Writes the signals as plain EDF into the new file `path`; annotations are left out.
///
/// # Errors
///
/// When a text or number does not fit its field, signals have no whole records or not equally many, or the file exists.
pub fn write(path: &Path, recording: &Recording) -> Result<(), DataError> {
    let refuse = |what: String| DataError::from(nocebo_core::Error::unsupported(what, "it does not fit an EDF file"));
    let mut header = Vec::new();
    let mut put = |text: &str, width: usize| {
        if text.len() > width || !text.bytes().all(|byte| (32..127).contains(&byte)) {
            return Err(refuse(format!("the header field `{text}`")));
        }
        header.extend(format!("{text:width$}").bytes());
        Ok(())
    };
    let signals = &recording.signals;
    let records = signals.first().map_or(0, |signal| signal.samples.len() / signal.samples_per_record.max(1));
    if signals.is_empty() || !signals.iter().all(|signal| signal.samples.len() == records * signal.samples_per_record) {
        return Err(refuse("signals without equally many whole records".to_owned()));
    }
    for (text, width) in [
        ("0", 8),
        ("X X X X", 80),
        ("Startdate X X X X", 80),
        ("01.01.85", 8),
        ("00.00.00", 8),
        (&(256 * (signals.len() + 1)).to_string(), 8),
        ("", 44),
        (&records.to_string(), 8),
        (&recording.duration.to_string(), 8),
        (&signals.len().to_string(), 4),
    ] {
        put(text, width)?;
    }
    let fields: [(Field, usize); 10] = [
        (|signal| signal.label.clone(), 16),
        (|_| String::new(), 80),
        (|signal| signal.unit.clone(), 8),
        (|signal| signal.physical[0].to_string(), 8),
        (|signal| signal.physical[1].to_string(), 8),
        (|signal| signal.digital[0].to_string(), 8),
        (|signal| signal.digital[1].to_string(), 8),
        (|_| String::new(), 80),
        (|signal| signal.samples_per_record.to_string(), 8),
        (|_| String::new(), 32),
    ];
    for (field, width) in fields {
        signals.iter().try_for_each(|signal| put(&field(signal), width))?;
    }
    super::write_new_file(path, |writer| {
        writer.write_all(&header)?;
        for record in 0..records {
            for signal in signals {
                let start = record * signal.samples_per_record;
                for value in &signal.samples[start..start + signal.samples_per_record] {
                    writer.write_all(&value.to_le_bytes())?;
                }
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::tests::shared;
    use std::fs;

    const LIMIT: u64 = 1 << 24;

    fn recording() -> Recording {
        let signal = |label: &str, samples_per_record: usize| Signal {
            label: label.to_owned(),
            unit: "uV".to_owned(),
            physical: [-100.0, 100.0],
            digital: [-2000, 2000],
            samples_per_record,
            samples: (0..3 * samples_per_record as i16).map(|at| at * 7 - 20).collect(),
        };
        Recording { duration: 0.5, signals: vec![signal("EEG Fpz-Cz", 4), signal("EMG", 2)], annotations: Vec::new() }
    }

    /// The recording as a file, some bytes of it replaced.
    fn changed(at: usize, bytes: &[u8]) -> Result<Recording, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.edf");
        write(&path, &recording()).unwrap();
        let mut content = fs::read(&path).unwrap();
        content[at..at + bytes.len()].copy_from_slice(bytes);
        fs::write(&path, content).unwrap();
        read(&path, LIMIT)
    }

    #[test]
    fn what_is_written_is_read_again() {
        let read = changed(0, b"0").unwrap();
        assert_eq!(read, recording());
        assert_eq!(
            (read.signals[0].step(), read.signals[0].value(-2000), read.signals[0].value(1000)),
            (0.05, -100.0, 50.0)
        );
        let mut long = recording();
        long.signals[0].label = "a label of more than 16".to_owned();
        assert!(write(Path::new("never.edf"), &long).unwrap_err().to_string().contains("more than 16"));
        let mut uneven = recording();
        uneven.signals[1].samples.pop();
        assert!(write(Path::new("never.edf"), &uneven).is_err());
    }

    /// Row S2 of the bad inputs.
    #[test]
    fn headers_that_lie_are_refused() {
        let signal = |start: usize, width: usize, number: usize| 256 + start * 2 + width * number;
        for (at, bytes, reason) in [
            (0, &b"1"[..], "version"),
            (184, b"0       ", "bytes of the header"),
            (184, b"99999999", "bytes of the header"),
            (192, b"EDF+D", "interrupted"),
            (236, b"99999   ", "99999 records"),
            (236, b"1x      ", "number of records"),
            (244, b"0       ", "seconds of a record"),
            (244, b"nan     ", "seconds of a record"),
            (252, b"0   ", "number of signals"),
            (252, b"9999", "number of signals"),
            (252, b"\xff   ", "number of signals"),
            (signal(216, 8, 0), b"0       ", "samples a record"),
            (signal(216, 8, 0), b"99999999", "samples a record"),
            (signal(216, 8, 0), b"\xb2       ", "printable ASCII"),
            (signal(120, 8, 0), b"2000    ", "range of `EEG Fpz-Cz`"),
            (signal(112, 8, 0), b"-100    ", "range of `EEG Fpz-Cz`"),
            (signal(120, 8, 1), b"-40000  ", "least stored value"),
        ] {
            let error = changed(at, bytes).unwrap_err().to_string();
            assert!(error.contains(reason), "{reason}: {error}");
        }
        // An unknown number of records is that of the file.
        assert_eq!(changed(236, b"-1      ").unwrap(), recording());
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("short.edf"), [b' '; 100]).unwrap();
        assert!(read(&folder.path().join("short.edf"), LIMIT).is_err());
    }

    #[test]
    fn annotations_are_texts_at_a_time() {
        let found = texts(b"+0\x14\x14\0+1.5\x150.2\x14spike\x14seen\x14\0bad\x14text\x14\0\0");
        let at = |text: &str| Annotation { onset: 1.5, text: text.to_owned() };
        assert_eq!(found, [at("spike"), at("seen")]);
    }

    #[test]
    fn real_recordings_are_read() {
        let Some(folder) = shared("wfdb-samples") else { return };
        let read = |name: &str| read(&folder.join(name), LIMIT).unwrap();
        let generated = read("test_generator_2.edf");
        assert!(generated.signals.len() > 5 && !generated.annotations.is_empty());
        assert!(!read("test_edfann.edf").annotations.is_empty());
    }
}
