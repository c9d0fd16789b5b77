//! WFDB records of PhysioNet: a text header (`.hea`), signal files, and annotations (`.atr` and others).
//!
//! ```text
//! header   NAME SIGNALS [FREQUENCY [FRAMES [TIME [DATE]]]]
//!          FILE FORMAT[xSAMPLES A FRAME][:SKEW][+OFFSET] [GAIN[(BASELINE)][/UNIT] [RESOLUTION [ZERO [FIRST [SUM [BLOCK [NAME]]]]]]]
//! physical = (stored − baseline) / gain
//! ```
//!
//! Read: formats 8, 16, 24, 32, 61, 80, 160, 212, 310, 311. Written: 16 and 212. Compressed (508, 516, 524) and
//! multi-segment records are refused by name. A skew is kept and not applied. Signal files lie beside the header: a name with
//! a folder in it is refused.
//!
//! Source: WFDB Applications Guide, header(5), signal(5), annot(5) (Moody et al., PhysioNet). Where a format leaves bits unused they
//! are ignored.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use crate::DataError;

/// Most signals of a record.
const MOST_SIGNALS: usize = 1024;
/// Greatest size of a header in bytes.
const HEADER_BYTES: u64 = 1 << 20;

/// How the samples of a signal are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// 8: first differences of one byte.
    Differences,
    /// 16, 24, 32: two's complement of 2, 3 or 4 bytes, least first.
    Little(usize),
    /// 61: two's complement of two bytes, greatest first.
    Big,
    /// 80, 160: one or two bytes with an offset of half their range.
    Offset(usize),
    /// 212: two of 12 bits in three bytes.
    Packed12,
    /// 310: three of 10 bits in two words of 16 bits.
    Packed310,
    /// 311: three of 10 bits in a word of 32 bits.
    Packed311,
}

impl Format {
    fn parse(number: &str) -> Option<Self> {
        Some(match number {
            "8" => Self::Differences,
            "16" => Self::Little(2),
            "24" => Self::Little(3),
            "32" => Self::Little(4),
            "61" => Self::Big,
            "80" => Self::Offset(1),
            "160" => Self::Offset(2),
            "212" => Self::Packed12,
            "310" => Self::Packed310,
            "311" => Self::Packed311,
            _ => return None,
        })
    }

    /// Bits of a stored sample.
    pub fn bits(self) -> u32 {
        match self {
            Self::Differences | Self::Big => 16,
            Self::Little(bytes) | Self::Offset(bytes) => 8 * bytes as u32,
            Self::Packed12 => 12,
            Self::Packed310 | Self::Packed311 => 10,
        }
    }

    /// The value that means that there is no sample: the least one.
    pub fn missing(self) -> i32 {
        (-1i64 << (self.bits() - 1)) as i32
    }

    /// Bytes that hold so many samples.
    fn bytes(self, samples: u64) -> u64 {
        match self {
            Self::Differences => samples,
            Self::Little(bytes) | Self::Offset(bytes) => samples * bytes as u64,
            Self::Big => samples * 2,
            Self::Packed12 => samples / 2 * 3 + samples % 2 * 2,
            // A last group of one sample ends after its first word, one of two samples after the second.
            Self::Packed310 => samples / 3 * 4 + samples % 3 * 2,
            Self::Packed311 => samples / 3 * 4 + [0, 2, 3][(samples % 3) as usize],
        }
    }

    /// Samples in so many bytes; none where a part of one is left over.
    fn samples(self, bytes: u64) -> Option<u64> {
        let guess = match self {
            Self::Packed12 => bytes * 2 / 3,
            Self::Packed310 => bytes / 4 * 3 + bytes % 4 / 2,
            Self::Packed311 => bytes / 4 * 3 + (bytes % 4).saturating_sub(1),
            _ => bytes / self.bytes(1),
        };
        (self.bytes(guess) == bytes).then_some(guess)
    }

    fn decode(self, bytes: &[u8], samples: usize) -> Vec<i32> {
        let byte = |at: usize| i32::from(bytes.get(at).copied().unwrap_or(0));
        let word = |at: usize| byte(at) | byte(at + 1) << 8;
        let signed = |value: i32, bits: u32| value << (32 - bits) >> (32 - bits);
        let one = |sample: usize| match self {
            Self::Differences => signed(byte(sample), 8),
            Self::Little(4) => word(4 * sample) | word(4 * sample + 2) << 16,
            Self::Little(3) => signed(word(3 * sample) | byte(3 * sample + 2) << 16, 24),
            Self::Little(_) => signed(word(2 * sample), 16),
            Self::Big => signed(byte(2 * sample) << 8 | byte(2 * sample + 1), 16),
            Self::Offset(1) => byte(sample) - (1 << 7),
            Self::Offset(_) => word(2 * sample) - (1 << 15),
            Self::Packed12 => {
                let at = sample / 2 * 3;
                let value = if sample.is_multiple_of(2) { word(at) } else { byte(at + 2) | byte(at + 1) >> 4 << 8 };
                signed(value & 0xfff, 12)
            }
            Self::Packed310 => {
                let at = sample / 3 * 4;
                let value = match sample % 3 {
                    0 => word(at) >> 1,
                    1 => word(at + 2) >> 1,
                    _ => word(at) >> 11 | word(at + 2) >> 11 << 5,
                };
                signed(value & 0x3ff, 10)
            }
            Self::Packed311 => {
                let at = sample / 3 * 4;
                let whole = word(at) as u32 | (word(at + 2) as u32) << 16;
                signed((whole >> (10 * (sample % 3))) as i32 & 0x3ff, 10)
            }
        };
        (0..samples).map(one).collect()
    }
}

/// One signal (lead) of a record.
#[derive(Clone, Debug, PartialEq)]
pub struct Signal {
    /// Its name, such as `MLII`.
    pub name: String,
    /// How it was stored.
    pub format: Format,
    /// Samples in each frame of the record.
    pub samples_per_frame: usize,
    /// Frames by which it lags behind the others; not applied.
    pub skew: u32,
    /// Stored steps a unit.
    pub gain: f64,
    /// Stored value of physical 0.
    pub baseline: i32,
    /// Unit, `mV` where the header names none.
    pub unit: String,
    /// Stored values.
    pub samples: Vec<i32>,
}

impl Signal {
    /// Physical value of a stored one; none where the sample is missing.
    pub fn physical(&self, stored: i32) -> Option<f64> {
        let missing = self.format != Format::Differences && stored == self.format.missing();
        (!missing).then(|| (f64::from(stored) - f64::from(self.baseline)) / self.gain)
    }
}

/// A record: signals at one frame rate.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its name.
    pub name: String,
    /// Frames a second, in hertz.
    pub frequency: f64,
    /// Signals.
    pub signals: Vec<Signal>,
}

/// What a header says of one signal.
struct Described {
    file: String,
    offset: u64,
    first: i32,
    signal: Signal,
}

/// Reads a record by the path of its header.
///
/// # Errors
///
/// A header that is no text, lacks a line or has a number out of range; a signal file outside the folder, shorter than the
/// header says or with a part of a sample at its end; a format that is not read; more than `limit` samples.
pub fn read(path: &Path, limit: u64) -> Result<Record, DataError> {
    let file = super::file_name(path);
    let (name, frequency, frames, described) = read_header(path, &file)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut signals: Vec<Signal> = Vec::with_capacity(described.len());
    let mut rest = described.as_slice();
    let mut left = limit;
    while let Some(first) = rest.first() {
        let together = rest.iter().take_while(|other| other.file == first.file).count();
        let (group, others) = rest.split_at(together);
        signals.extend(read_group(folder, &file, group, frames, &mut left)?);
        rest = others;
    }
    let lengths: Vec<usize> = signals.iter().map(|signal| signal.samples.len() / signal.samples_per_frame).collect();
    if lengths.windows(2).any(|pair| pair[0] != pair[1]) {
        return Err(DataError::format(&file, "frames of the signals", "the same for all", format!("{lengths:?}")));
    }
    Ok(Record { name, frequency, signals })
}

/// The signals of one file, whose samples take turns frame by frame.
fn read_group(
    folder: &Path,
    header: &str,
    group: &[Described],
    frames: Option<u64>,
    left: &mut u64,
) -> Result<Vec<Signal>, DataError> {
    let first = &group[0];
    let (file, format) = (first.file.as_str(), first.signal.format);
    if group.iter().any(|other| (other.signal.format, other.offset) != (format, first.offset)) {
        let expected = format!("one format and offset for all signals in `{file}`");
        return Err(DataError::format(header, "signal lines", expected, "several"));
    }
    let path = folder.join(file);
    let mut opened = File::open(&path).map_err(DataError::reading(file))?;
    let metadata = opened.metadata().map_err(DataError::reading(file))?;
    if !metadata.is_file() {
        return Err(DataError::format(file, "kind of file", "a regular file", "something else"));
    }
    let available = metadata.len().saturating_sub(first.offset);
    let a_frame: u64 = group.iter().map(|other| other.signal.samples_per_frame as u64).sum();
    let frames = match frames {
        Some(frames) => frames,
        None => match format.samples(available) {
            Some(samples) if samples % a_frame == 0 => samples / a_frame,
            _ => {
                let expected = format!("whole frames of {a_frame} samples of {} bits", format.bits());
                return Err(DataError::format(file, "length", expected, format!("{available} bytes")));
            }
        },
    };
    let samples = frames.checked_mul(a_frame).filter(|samples| *samples <= *left);
    let Some(samples) = samples else {
        let got = frames.saturating_mul(a_frame);
        return Err(DataError::TooLarge { file: file.to_owned(), what: "samples".to_owned(), limit: *left, got });
    };
    *left -= samples;
    let bytes = format.bytes(samples);
    if bytes > available {
        let expected = format!("{bytes} bytes for {frames} frames, as `{header}` says");
        return Err(DataError::format(file, "length", expected, format!("{available} bytes")));
    }
    let mut content = Vec::new();
    opened
        .seek(SeekFrom::Start(first.offset))
        .and_then(|_| opened.take(bytes).read_to_end(&mut content))
        .map_err(DataError::reading(file))?;
    let stored = format.decode(&content, samples as usize);
    let mut signals: Vec<Signal> = group.iter().map(|other| other.signal.clone()).collect();
    let mut at = 0;
    for _ in 0..frames {
        for signal in &mut signals {
            signal.samples.extend_from_slice(&stored[at..at + signal.samples_per_frame]);
            at += signal.samples_per_frame;
        }
    }
    if format == Format::Differences {
        for (signal, described) in signals.iter_mut().zip(group) {
            let mut value = described.first;
            for sample in &mut signal.samples {
                value = value.wrapping_add(*sample);
                *sample = value;
            }
        }
    }
    Ok(signals)
}

type Header = (String, f64, Option<u64>, Vec<Described>);

fn read_header(path: &Path, file: &str) -> Result<Header, DataError> {
    let length = fs::metadata(path).map_err(DataError::reading(file))?.len();
    DataError::check_limit(file, "bytes of the header", HEADER_BYTES, length)?;
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|opened| opened.take(HEADER_BYTES).read_to_end(&mut bytes))
        .map_err(DataError::reading(file))?;
    // Names of signals may be in an old encoding.
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let wrong = |what: &str, expected: &str, got: &str| DataError::format(file, what, expected, format!("`{got}`"));
    let first = lines.next().unwrap_or_default();
    let mut words = first.split_whitespace();
    let name = words.next().unwrap_or_default();
    if name.contains('/') {
        return Err(DataError::refused(file, "a record of several segments", "give its segments one by one"));
    }
    let count = words.next().unwrap_or_default();
    let count: usize = count
        .parse()
        .ok()
        .filter(|count| (1..=MOST_SIGNALS).contains(count))
        .ok_or_else(|| wrong("number of signals", "1 to 1024", count))?;
    let frequency = words.next().map_or("250", |text| text.split(['/', '(']).next().unwrap_or_default());
    let frequency: f64 = frequency
        .parse()
        .ok()
        .filter(|frequency: &f64| frequency.is_finite() && *frequency > 0.0)
        .ok_or_else(|| wrong("sampling frequency", "a number above 0", frequency))?;
    let frames = match words.next() {
        Some(text) => Some(text.parse::<u64>().map_err(|_| wrong("number of frames", "a whole number", text))?),
        None => None,
    };
    let mut described = Vec::with_capacity(count);
    for number in 0..count {
        let line = lines.next().ok_or_else(|| wrong("signal lines", &format!("{count}"), &format!("{number}")))?;
        described.push(describe(file, line)?);
    }
    Ok((name.to_owned(), frequency, frames.filter(|frames| *frames > 0), described))
}

fn describe(file: &str, line: &str) -> Result<Described, DataError> {
    let wrong = |what: &str, expected: &str, got: &str| DataError::format(file, what, expected, format!("`{got}`"));
    let mut words = line.split_whitespace();
    let name = words.next().unwrap_or_default();
    if name.contains(['/', '\\']) || matches!(name, "" | "." | ".." | "-" | "~") {
        let advice = "put the signal file beside the header and name it without a folder";
        return Err(DataError::refused(file, format!("signal file `{name}`"), advice));
    }
    let kind = words.next().unwrap_or_default();
    let (kind, offset) = kind.split_once('+').unwrap_or((kind, "0"));
    let (kind, skew) = kind.split_once(':').unwrap_or((kind, "0"));
    let (format, a_frame) = kind.split_once('x').unwrap_or((kind, "1"));
    let offset = offset.parse().map_err(|_| wrong("byte offset", "a whole number", offset))?;
    let skew = skew.parse().map_err(|_| wrong("skew", "a whole number", skew))?;
    let samples_per_frame = a_frame
        .parse()
        .ok()
        .filter(|count| (1..=1 << 16).contains(count))
        .ok_or_else(|| wrong("samples a frame", "1 to 65536", a_frame))?;
    let Some(format) = Format::parse(format) else {
        let known = "give one of the formats 8, 16, 24, 32, 61, 80, 160, 212, 310 and 311 (xform of WFDB converts)";
        return Err(DataError::refused(file, format!("signal format `{format}`"), known));
    };
    let calibration = words.next().unwrap_or("200");
    let (calibration, unit) = calibration.split_once('/').unwrap_or((calibration, "mV"));
    let (gain, baseline) = match calibration.split_once('(') {
        Some((gain, rest)) => (gain, Some(rest.trim_end_matches(')'))),
        None => (calibration, None),
    };
    let gain: f64 = gain
        .parse()
        .ok()
        .filter(|gain: &f64| gain.is_finite() && *gain != 0.0)
        .ok_or_else(|| wrong("gain", "a number other than 0", gain))?;
    let mut integer = |what: &str| match words.next() {
        Some(text) => text.parse::<i32>().map_err(|_| wrong(what, "a whole number", text)).map(Some),
        None => Ok(None),
    };
    integer("resolution")?;
    let zero = integer("value of the middle of the range")?.unwrap_or(0);
    let first = integer("first value")?.unwrap_or(zero);
    integer("checksum")?;
    integer("block size")?;
    let baseline = match baseline {
        Some(text) => text.parse().map_err(|_| wrong("baseline", "a whole number", text))?,
        None => zero,
    };
    let signal = Signal {
        name: words.collect::<Vec<_>>().join(" "),
        format,
        samples_per_frame,
        skew,
        gain,
        baseline,
        unit: unit.to_owned(),
        samples: Vec::new(),
    };
    Ok(Described { file: name.to_owned(), offset, first, signal })
}

/// Writes a record as `NAME.hea` and `NAME.dat` into an existing folder.
///
/// # Errors
///
/// When the name or a signal's is not one word, signals differ in length or format, have several samples a frame, a format
/// that is not written, or a value that does not fit it, or a file exists.
pub fn write(folder: &Path, record: &Record) -> Result<(), DataError> {
    let refuse = |what: String| nocebo_core::Error::unsupported(what, "it cannot be stored as a WFDB record");
    let Some(first) = record.signals.first() else { return Err(refuse("a record without signals".to_owned()).into()) };
    let plain =
        |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if !plain(&record.name) {
        return Err(refuse(format!("the record name `{}`", record.name)).into());
    }
    let (number, greatest) = match first.format {
        Format::Little(2) => ("16", i32::from(i16::MAX)),
        Format::Packed12 => ("212", 2047),
        other => return Err(refuse(format!("writing {other:?}")).into()),
    };
    let mut header = format!("{} {} {} {}\n", record.name, record.signals.len(), record.frequency, first.samples.len());
    for signal in &record.signals {
        let fits = |value: &i32| (-greatest - 1..=greatest).contains(value);
        if signal.format != first.format
            || signal.samples.len() != first.samples.len()
            || signal.samples_per_frame != 1
            || !signal.samples.iter().all(fits)
            || signal.unit.contains(char::is_whitespace)
        {
            return Err(refuse(format!("signal `{}`", signal.name)).into());
        }
        let sum = signal.samples.iter().fold(0i16, |sum, value| sum.wrapping_add(*value as i16));
        // Writing to a string cannot fail.
        let _ = writeln!(
            header,
            "{}.dat {number} {}({})/{} {} 0 {} {sum} 0 {}",
            record.name,
            signal.gain,
            signal.baseline,
            signal.unit,
            first.format.bits(),
            signal.samples.first().copied().unwrap_or(0),
            signal.name
        );
    }
    let mut all = Vec::with_capacity(record.signals.len() * first.samples.len());
    for frame in 0..first.samples.len() {
        all.extend(record.signals.iter().map(|signal| signal.samples[frame]));
    }
    let bytes: Vec<u8> = if number == "16" {
        all.iter().flat_map(|value| (*value as i16).to_le_bytes()).collect()
    } else {
        let pair = |pair: &[i32]| {
            let second = pair.get(1).copied().unwrap_or(0);
            let bytes = [pair[0] as u8, (pair[0] >> 8 & 0xf) as u8 | (second >> 8 << 4) as u8, second as u8];
            bytes[..if pair.len() == 2 { 3 } else { 2 }].to_vec()
        };
        all.chunks(2).flat_map(pair).collect()
    };
    super::write_new_file(&folder.join(format!("{}.dat", record.name)), |writer| writer.write_all(&bytes))?;
    super::write_new_file(&folder.join(format!("{}.hea", record.name)), |writer| writer.write_all(header.as_bytes()))
}

/// Something marked in a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// Frame of the record, from 0.
    pub sample: u64,
    /// Code of its type, as annot(5) numbers them: 1 for a normal beat.
    pub code: u8,
    /// Text with it, such as a rhythm.
    pub text: String,
}

/// Symbols of the annotation types in the order of their codes; a space for a code without meaning.
const SYMBOLS: &[u8; 42] = b" NLRaVFJASEj/Q~ | sT*D\"=pB^t+u?![]en@xf()r";

impl Annotation {
    /// The symbol of its type; none where the type has no name.
    pub fn symbol(&self) -> Option<char> {
        SYMBOLS.get(usize::from(self.code)).filter(|symbol| **symbol != b' ').map(|symbol| char::from(*symbol))
    }
}

// Codes that say something about the annotation before them, or the time of the next.
const SKIP: u16 = 59;
const NUMBER: u16 = 60;
const SUBTYPE: u16 = 61;
const CHANNEL: u16 = 62;
const TEXT: u16 = 63;

/// Code of a comment.
const NOTE: u8 = 22;

/// Reads an annotation file in the MIT format. What has no type is left out, and so are notes at
/// time 0, which say how the file was made; a time unit that they give is not applied.
///
/// # Errors
///
/// When the file is larger than `limit` bytes, ends inside an annotation, or goes back before its start.
pub fn read_annotations(path: &Path, limit: u64) -> Result<Vec<Annotation>, DataError> {
    let file = super::file_name(path);
    let length = fs::metadata(path).map_err(DataError::reading(&file))?.len();
    DataError::check_limit(&file, "bytes of annotations", limit, length)?;
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|opened| opened.take(limit).read_to_end(&mut bytes))
        .map_err(DataError::reading(&file))?;
    let mut annotations = decode_annotations(&bytes, &file)?;
    annotations.retain(|mark| mark.code != 0 && (mark.sample, mark.code) != (0, NOTE));
    Ok(annotations)
}

fn decode_annotations(bytes: &[u8], file: &str) -> Result<Vec<Annotation>, DataError> {
    let mut found: Vec<Annotation> = Vec::new();
    let (mut at, mut time) = (0, 0i64);
    let cut = || DataError::format(file, "annotations", "a whole annotation", "the end of the file");
    let word = |at: usize| bytes.get(at..at + 2).map(|two| u16::from_le_bytes([two[0], two[1]])).ok_or_else(cut);
    while at < bytes.len() {
        let next = word(at)?;
        at += 2;
        let (code, value) = (next >> 10, next & 0x3ff);
        match code {
            0 if value == 0 => break,
            SKIP => {
                // A long of the PDP-11: the greater half first.
                time += i64::from((i32::from(word(at)? as i16) << 16) | i32::from(word(at + 2)?));
                at += 4;
            }
            NUMBER | SUBTYPE | CHANNEL => {}
            TEXT => {
                let end = at + usize::from(value);
                let text = bytes.get(at..end).ok_or_else(cut)?;
                if let Some(last) = found.last_mut() {
                    String::from_utf8_lossy(text).trim_end_matches('\0').clone_into(&mut last.text);
                }
                at = end + usize::from(value % 2);
            }
            _ => {
                time += i64::from(value);
                let sample = u64::try_from(time)
                    .map_err(|_| DataError::format(file, "time of an annotation", "at least 0", time))?;
                found.push(Annotation { sample, code: code as u8, text: String::new() });
            }
        }
    }
    Ok(found)
}

/// Writes annotations in order of time into the new file `path`, without their texts.
///
/// # Errors
///
/// When the file exists or cannot be written.
pub fn write_annotations(path: &Path, annotations: &[Annotation]) -> Result<(), DataError> {
    let mut bytes = Vec::new();
    let mut time = 0;
    for annotation in annotations {
        let mut interval = annotation.sample.saturating_sub(time);
        time = annotation.sample;
        while interval > 0x3ff {
            // A skip is a signed number of 32 bits.
            let skip = interval.min(i32::MAX as u64);
            for word in [SKIP << 10, (skip >> 16) as u16, skip as u16] {
                bytes.extend(word.to_le_bytes());
            }
            interval -= skip;
        }
        bytes.extend((u16::from(annotation.code) << 10 | interval as u16).to_le_bytes());
    }
    bytes.extend([0, 0]);
    super::write_new_file(path, |writer| writer.write_all(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::tests::shared;

    const LIMIT: u64 = 1 << 24;

    /// A folder with a header and a signal file of three frames of two signals.
    fn record(header: &str, signal: &[u8]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("r.hea"), header).unwrap();
        fs::write(folder.path().join("r.dat"), signal).unwrap();
        folder
    }

    fn read_in(folder: &tempfile::TempDir) -> Result<Record, DataError> {
        read(&folder.path().join("r.hea"), LIMIT)
    }

    #[test]
    fn every_packing_by_hand() {
        // Sources of the bytes: signal(5), worked out by hand.
        assert_eq!(Format::Packed12.decode(&[0x01, 0xf2, 0xfe, 0xff, 0x07], 3), [0x201, -2, 0x7ff]);
        // 1, -1, 2 in 310: the words are 1<<1 | (2 & 31)<<11 and 0x3ff<<1 | 0.
        assert_eq!(Format::Packed310.decode(&[0x02, 0x10, 0xfe, 0x07], 3), [1, -1, 2]);
        let word: u32 = 1 | 0x3ff << 10 | 2 << 20;
        assert_eq!(Format::Packed311.decode(&word.to_le_bytes(), 3), [1, -1, 2]);
        assert_eq!(Format::Little(3).decode(&[0xfe, 0xff, 0xff, 1, 0, 0], 2), [-2, 1]);
        assert_eq!(Format::Little(4).decode(&(-5i32).to_le_bytes(), 1), [-5]);
        assert_eq!(Format::Little(2).decode(&[0xfe, 0xff], 1), [-2]);
        assert_eq!(Format::Big.decode(&[0xff, 0xfe], 1), [-2]);
        assert_eq!(Format::Offset(1).decode(&[0, 129], 2), [-128, 1]);
        assert_eq!(Format::Offset(2).decode(&[1, 128], 1), [1]);
        for format in ["8", "16", "24", "32", "61", "80", "160", "212", "310", "311"] {
            let format = Format::parse(format).unwrap();
            for samples in 0..9 {
                // The second of three in format 310 takes no byte of its own.
                let found = format.samples(format.bytes(samples)).unwrap();
                assert!(found == samples || (format == Format::Packed310 && found == samples + 1), "{format:?}");
            }
        }
        assert_eq!((Format::Packed12.samples(4), Format::Little(2).samples(3)), (None, None));
    }

    #[test]
    fn headers_say_gain_baseline_and_unit() {
        let folder = record(
            "# note\nr 2 100/3(0) 3\nr.dat 16 200(5)/uV 12 7 0 0 0 lead one\n\nr.dat 16\n",
            &[1, 0, 2, 0, 3, 0, 4, 0, 0, 0x80, 6, 0],
        );
        let read = read_in(&folder).unwrap();
        let [one, two] = read.signals.as_slice() else { panic!() };
        assert_eq!((read.frequency, one.name.as_str(), one.unit.as_str()), (100.0, "lead one", "uV"));
        assert_eq!((one.samples.as_slice(), two.samples.as_slice()), (&[1, 3, -32768][..], &[2, 4, 6][..]));
        assert_eq!((one.physical(1), one.physical(-32768)), (Some(-0.02), None));
        assert_eq!((two.gain, two.baseline, two.unit.as_str()), (200.0, 0, "mV"));
    }

    #[test]
    fn what_is_written_is_read_again() {
        for (format, samples) in [(Format::Packed12, [5, -2047, 2047]), (Format::Little(2), [5, -32767, 32767])] {
            let signal = |name: &str, samples: [i32; 3]| Signal {
                name: name.to_owned(),
                format,
                samples_per_frame: 1,
                skew: 0,
                gain: 200.0,
                baseline: 1024,
                unit: "mV".to_owned(),
                samples: samples.to_vec(),
            };
            let signals = vec![signal("MLII", samples), signal("V1", [0, 1, -1]), signal("V2", [7, 8, 9])];
            let record = Record { name: "r".to_owned(), frequency: 360.0, signals };
            let folder = tempfile::tempdir().unwrap();
            write(folder.path(), &record).unwrap();
            assert_eq!(read_in(&folder).unwrap(), record);
            assert!(matches!(write(folder.path(), &record), Err(DataError::Exists { .. })));
            let mut wrong = record.clone();
            wrong.signals[0].samples[0] = 40_000;
            assert!(write(folder.path(), &wrong).is_err());
            wrong.name = "../r".to_owned();
            assert!(write(folder.path(), &wrong).unwrap_err().to_string().contains("../r"));
        }
        let folder = tempfile::tempdir().unwrap();
        let at = |sample, code| Annotation { sample, code, text: String::new() };
        let annotations = vec![at(3, 28), at(1026, 1), at(1027, 5), at(200_000, 8), at(7_000_000_000, 1)];
        write_annotations(&folder.path().join("r.atr"), &annotations).unwrap();
        let read = read_annotations(&folder.path().join("r.atr"), LIMIT).unwrap();
        assert_eq!(read, annotations);
        assert_eq!(read.iter().filter_map(Annotation::symbol).collect::<String>(), "+NVAN");
    }

    #[test]
    fn annotations_carry_texts_and_may_not_be_cut() {
        // 10: normal beat; text "(N"; skip by -5; beat 5 before.
        let bytes = [10, 4, 2, 0xfc, b'(', b'N', 0, 0xec, 0xff, 0xff, 0xfb, 0xff, 0, 4, 0, 0];
        let found = decode_annotations(&bytes, "r.atr").unwrap();
        assert_eq!((found[0].sample, found[0].text.as_str(), found[1].sample), (10, "(N", 5));
        for length in [1, 3, 5, 9, 11] {
            assert!(decode_annotations(&bytes[..length], "r.atr").is_err(), "{length}");
        }
        let back = [0, 0xec, 0xff, 0xff, 0xfb, 0xff, 0, 4];
        assert!(decode_annotations(&back, "r.atr").unwrap_err().to_string().contains("at least 0"));
    }

    /// Row S1 of the bad inputs.
    #[test]
    fn headers_that_lie_are_refused() {
        let bytes = [0; 12];
        for (header, reason) in [
            ("r 2 100 3\n../r.dat 16\nr.dat 16\n", "`../r.dat`"),
            ("r 1 100 3\n/etc/passwd 16\n", "`/etc/passwd`"),
            ("r 1 100 3\nc:\\r.dat 16\n", "without a folder"),
            ("r 1 100 3\nr.dat 16 0\n", "gain"),
            ("r 1 100 3\nr.dat 16 nan\n", "gain"),
            ("r 0 100 3\n", "number of signals"),
            ("r 99999999 100 3\nr.dat 16\n", "number of signals"),
            ("r 2 100 3\nr.dat 16\n", "signal lines"),
            ("r 1 100 7\nr.dat 16\n", "expected 14 bytes for 7 frames"),
            ("r 1 100 18446744073709551615\nr.dat 16\n", "above the limit"),
            ("r 1 100 99999999\nr.dat 16\n", "above the limit"),
            ("r 1 100 3\nr.dat 16x99999999\n", "samples a frame"),
            ("r 1 0 3\nr.dat 16\n", "frequency"),
            ("r 1 inf 3\nr.dat 16\n", "frequency"),
            ("r 1 100 3\nr.dat 508\n", "format `508`"),
            ("r/2 1 100 3\nr.dat 16\n", "several segments"),
            ("r 2 100 3\nr.dat 16\nr.dat 212\n", "one format"),
            ("r 1 100 3\nr.dat 16+99\n", "got 0 bytes"),
            ("", "number of signals"),
        ] {
            let error = read_in(&record(header, &bytes)).unwrap_err().to_string();
            assert!(error.contains(reason), "{header:?}: {error}");
        }
        // Without a length in the header the file must hold whole samples.
        let odd = record("r 1 100\nr.dat 212\n", &[0; 4]);
        assert!(read_in(&odd).unwrap_err().to_string().contains("whole frames"));
        assert!(read_in(&record("r 1 100 3\nmissing.dat 16\n", &bytes)).is_err());
    }

    #[test]
    fn real_records_have_their_beats() {
        let Some(folder) = shared("mitbih") else { return };
        let record = read(&folder.join("100.hea"), LIMIT).unwrap();
        assert_eq!((record.signals[0].samples.len(), record.signals[0].name.as_str()), (650_000, "MLII"));
        assert_eq!(record.signals[1].samples[..3], [1011, 1011, 1011]);
        // The header's checksum of the first lead.
        let sum = record.signals[0].samples.iter().fold(0i16, |sum, value| sum.wrapping_add(*value as i16));
        assert_eq!(sum, -22131);
        let beats = read_annotations(&folder.join("100.atr"), LIMIT).unwrap();
        let count = |symbol: char| beats.iter().filter(|beat| beat.symbol() == Some(symbol)).count();
        assert_eq!((count('N'), count('A'), count('V')), (2239, 33, 1));
        assert_eq!(beats[0].text, "(N");
    }
}
