//! The bytes of a DICOM file as a tree of attributes: no length in the file is trusted, nothing is copied.
//!
//! Explicit and implicit value representation, little and big endian, deflated; lengths defined and not. A length that goes
//! past its container is refused before anything is reserved for it, and so are more than [`DEEPEST`] sequences inside each
//! other and more than [`MOST`] attributes. Of an attribute that occurs twice the first counts. Texts are never shown.
//!
//! Written here because the kept crate reserves what a length says and runs out of stack on nested sequences.
//!
//! Source: DICOM PS3.5 sections 7 and 10 and annex A, PS3.10 section 7.

use std::borrow::Cow;
use std::io::Read as _;
use std::ops::Range;

use flate2::bufread::DeflateDecoder;

use super::tags::{self, Tag};
use crate::DataError;

/// Most sequences inside each other; real files have about ten.
const DEEPEST: usize = 256;
/// Most attributes and items of a file.
const MOST: usize = 1 << 20;
/// Greatest ratio of inflated to deflated bytes, above [`RATIO_FREE_BYTES`].
const RATIO: u64 = 200;
const RATIO_FREE_BYTES: u64 = 8 << 20;
/// Greatest size of a data set that was deflated.
const INFLATED_BYTES: u64 = 128 << 20;

const UNDEFINED: u32 = 0xffff_ffff;
const ITEM: Tag = (0xfffe, 0xe000);
const ITEM_END: Tag = (0xfffe, 0xe00d);
const SEQUENCE_END: Tag = (0xfffe, 0xe0dd);
/// Sequences that are looked into where the file does not say what is one.
const SEQUENCES: [Tag; 5] = [
    tags::MODALITY_LUT_SEQUENCE,
    tags::SHARED_GROUPS,
    tags::PER_FRAME_GROUPS,
    tags::PIXEL_VALUE_TRANSFORMATION,
    tags::PIXEL_MEASURES,
];

/// One attribute.
#[derive(Debug)]
struct Element {
    tag: Tag,
    /// Value representation, where the file says it.
    vr: Option<[u8; 2]>,
    value: Value,
}

#[derive(Debug)]
enum Value {
    /// Where the value lies.
    Bytes(Range<usize>),
    /// The items of a sequence.
    Items(Vec<Vec<Element>>),
    /// The parts of compressed pixels: first the table of offsets.
    Fragments(Vec<Range<usize>>),
}

/// The attributes of a file, and how its pixels are encoded.
pub(super) struct File<'a> {
    name: &'a str,
    bytes: Cow<'a, [u8]>,
    elements: Vec<Element>,
    /// Unique identifier of the transfer syntax.
    pub(super) syntax: String,
    /// Whether numbers have their greatest byte first.
    pub(super) big_endian: bool,
    /// Storage class that the meta group names.
    pub(super) class: String,
    /// What was noticed.
    pub(super) warnings: Vec<String>,
}

impl<'a> File<'a> {
    /// Parses a file, called `name` in messages.
    pub(super) fn parse(name: &'a str, bytes: &'a [u8]) -> Result<Self, DataError> {
        if bytes.get(128..132) != Some(b"DICM") {
            let expected = "the letters DICM after 128 bytes, as a DICOM file has (a data set without its file header is not \
                            read; write it as a file first)";
            return Err(DataError::format(name, "content", expected, "other bytes"));
        }
        let mut warnings = Vec::new();
        if bytes[..128].iter().any(|byte| *byte != 0) && is_other_kind(bytes) {
            warnings.push("begins like a file of another kind, such as a program or an archive".to_owned());
        }
        let mut meta = Walker { name, bytes, at: 132, explicit: true, big_endian: false, count: 0, disorder: false };
        let mut group = Vec::new();
        while meta.peek() == Some(2) {
            let Some(element) = meta.element(bytes.len(), 0)? else { break };
            group.push(element);
        }
        let text = |tag| find(&group, tag).and_then(|value| text_of(bytes, value)).unwrap_or_default();
        let (syntax, class) = (text(tags::TRANSFER_SYNTAX), text(tags::MEDIA_STORAGE_CLASS));
        if syntax.is_empty() {
            let expected = "the transfer syntax (0002,0010), which says how the rest is encoded";
            return Err(DataError::format(name, "file header", expected, "none"));
        }
        let start = meta.at;
        let (explicit, big_endian) = match syntax.as_str() {
            "1.2.840.10008.1.2" => (false, false),
            "1.2.840.10008.1.2.2" => (true, true),
            _ => (true, false),
        };
        let (bytes, start) = if syntax == "1.2.840.10008.1.2.1.99" {
            (Cow::Owned(inflate(name, &bytes[start..])?), 0)
        } else {
            (Cow::Borrowed(bytes), start)
        };
        let mut walker = Walker { name, bytes: &bytes, at: start, explicit, big_endian, count: 0, disorder: false };
        let end = bytes.len();
        let elements = walker.elements(end, 0)?;
        if walker.disorder {
            warnings.push("has attributes twice or out of order; the first of each counts".to_owned());
        }
        Ok(Self { name, bytes, elements, syntax, big_endian, class, warnings })
    }

    /// Whether an attribute is there, with or without a value.
    pub(super) fn has(&self, tag: Tag) -> bool {
        find(&self.elements, tag).is_some()
    }

    /// The bytes of an attribute's value.
    pub(super) fn bytes(&self, tag: Tag) -> Option<&[u8]> {
        self.root().bytes(tag)
    }

    /// Whether pixels are declared as words of 16 bits.
    pub(super) fn has_pixels_in_words(&self) -> bool {
        self.elements.iter().any(|element| element.tag == tags::PIXEL_DATA && element.vr == Some(*b"OW"))
    }

    /// The parts of compressed pixels.
    pub(super) fn fragments(&self) -> Option<Vec<&[u8]>> {
        match find(&self.elements, tags::PIXEL_DATA) {
            Some(Value::Fragments(ranges)) => Some(ranges.iter().map(|range| &self.bytes[range.clone()]).collect()),
            _ => None,
        }
    }

    /// The attributes outside of sequences.
    pub(super) fn root(&self) -> Group<'_> {
        Group { name: self.name, bytes: &self.bytes, big_endian: self.big_endian, elements: &self.elements }
    }
}

/// Attributes of one data set or item.
#[derive(Clone, Copy)]
pub(super) struct Group<'a> {
    name: &'a str,
    bytes: &'a [u8],
    big_endian: bool,
    elements: &'a [Element],
}

impl<'a> Group<'a> {
    pub(super) fn bytes(&self, tag: Tag) -> Option<&'a [u8]> {
        match find(self.elements, tag) {
            Some(Value::Bytes(range)) => Some(&self.bytes[range.clone()]),
            _ => None,
        }
    }

    /// The items of a sequence.
    pub(super) fn items(&self, tag: Tag) -> impl Iterator<Item = Group<'a>> {
        let items = match find(self.elements, tag) {
            Some(Value::Items(items)) => items.as_slice(),
            _ => &[],
        };
        let group = *self;
        items.iter().map(move |elements| Group { elements, ..group })
    }

    /// A text without padding; none where there is none or it is empty.
    pub(super) fn text(&self, tag: Tag) -> Option<String> {
        let value = find(self.elements, tag)?;
        text_of(self.bytes, value).filter(|text| !text.is_empty())
    }

    /// A number of 16 bits.
    pub(super) fn short(&self, tag: Tag) -> Result<Option<u16>, DataError> {
        match self.bytes(tag) {
            None | Some([]) => Ok(None),
            Some(&[a, b]) => Ok(Some(self.word([a, b]))),
            Some(other) => Err(self.wrong(tag, "one number of 16 bits", format!("{} bytes", other.len()))),
        }
    }

    /// Numbers of 16 bits.
    pub(super) fn shorts(&self, tag: Tag) -> Option<Vec<u16>> {
        let bytes = self.bytes(tag)?;
        Some(bytes.chunks_exact(2).map(|pair| self.word([pair[0], pair[1]])).collect())
    }

    /// Decimal numbers.
    pub(super) fn decimals(&self, tag: Tag) -> Result<Vec<f64>, DataError> {
        let Some(text) = self.text(tag) else { return Ok(Vec::new()) };
        let numbers: Option<Vec<f64>> = text.split('\\').map(|part| part.trim().parse().ok()).collect();
        let numbers = numbers.filter(|numbers| numbers.iter().all(|number| number.is_finite()));
        numbers.ok_or_else(|| self.wrong(tag, "finite decimal numbers", format!("a text of {} bytes", text.len())))
    }

    pub(super) fn wrong(&self, tag: Tag, expected: &str, got: impl std::fmt::Display) -> DataError {
        DataError::format(self.name, format!("attribute {}", shown(tag)), expected, got)
    }

    fn word(&self, bytes: [u8; 2]) -> u16 {
        if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }
}

fn find(elements: &[Element], tag: Tag) -> Option<&Value> {
    elements.iter().find(|element| element.tag == tag).map(|element| &element.value)
}

/// A text as ASCII; what is not becomes `?`.
fn text_of(bytes: &[u8], value: &Value) -> Option<String> {
    let Value::Bytes(range) = value else { return None };
    let bytes = trimmed(&bytes[range.clone()]);
    Some(bytes.iter().map(|byte| if byte.is_ascii() { char::from(*byte) } else { '?' }).collect())
}

/// A value without the spaces and zeros around it.
pub(super) fn trimmed(mut bytes: &[u8]) -> &[u8] {
    let padding = |byte: &u8| matches!(byte, b' ' | 0);
    while let [first, rest @ ..] = bytes
        && padding(first)
    {
        bytes = rest;
    }
    while let [rest @ .., last] = bytes
        && padding(last)
    {
        bytes = rest;
    }
    bytes
}

fn shown((group, element): Tag) -> String {
    format!("({group:04x},{element:04x})")
}

fn is_other_kind(bytes: &[u8]) -> bool {
    let signatures: [&[u8]; 6] = [b"MZ", b"\x7fELF", b"\x89PNG", b"PK\x03\x04", b"<", b"#!"];
    signatures.iter().any(|signature| bytes.starts_with(signature))
}

fn inflate(name: &str, deflated: &[u8]) -> Result<Vec<u8>, DataError> {
    let ratio = (deflated.len() as u64).saturating_mul(RATIO).max(RATIO_FREE_BYTES);
    let limit = ratio.min(INFLATED_BYTES);
    let mut bytes = Vec::new();
    let read = DeflateDecoder::new(deflated).take(limit + 1).read_to_end(&mut bytes);
    read.map_err(|_| DataError::format(name, "deflated data set", "whole, valid deflate data", "other bytes"))?;
    DataError::check_limit(name, "bytes of the inflated data set, at least", limit, bytes.len() as u64)?;
    Ok(bytes)
}

struct Walker<'a> {
    name: &'a str,
    bytes: &'a [u8],
    at: usize,
    explicit: bool,
    big_endian: bool,
    count: usize,
    disorder: bool,
}

impl Walker<'_> {
    /// Group of the next attribute.
    fn peek(&self) -> Option<u16> {
        let bytes = self.bytes.get(self.at..self.at + 2)?;
        Some(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    /// All attributes up to `end`, or to the end of the item.
    fn elements(&mut self, end: usize, depth: usize) -> Result<Vec<Element>, DataError> {
        let mut elements: Vec<Element> = Vec::new();
        // Zeros at the end of a file are padding.
        while self.at < end && (end - self.at >= 8 || self.bytes[self.at..end].iter().any(|byte| *byte != 0)) {
            let Some(element) = self.element(end, depth)? else { break };
            self.disorder |= elements.last().is_some_and(|last| last.tag >= element.tag);
            elements.push(element);
        }
        Ok(elements)
    }

    /// One attribute; none at the end of an item.
    fn element(&mut self, end: usize, depth: usize) -> Result<Option<Element>, DataError> {
        let tag = self.counted(end)?;
        if tag.0 == 0xfffe {
            let length = self.long(end)?;
            return match tag {
                ITEM_END if length == 0 => Ok(None),
                _ => Err(self.wrong(tag, "an attribute", "the mark of an item")),
            };
        }
        let (vr, length) = self.length(tag, end)?;
        let value = if length == UNDEFINED {
            if tag == tags::PIXEL_DATA && self.explicit {
                Value::Fragments(self.fragments(end)?)
            } else if vr == Some(*b"UN") {
                // Of unknown representation: what is inside is implicit and little endian.
                let (explicit, big_endian) = (self.explicit, self.big_endian);
                (self.explicit, self.big_endian) = (false, false);
                let items = self.items(end, true, depth)?;
                (self.explicit, self.big_endian) = (explicit, big_endian);
                Value::Items(items)
            } else if vr.is_none_or(|vr| vr == *b"SQ") {
                Value::Items(self.items(end, true, depth)?)
            } else {
                return Err(self.wrong(tag, "a length", "none, in a value that is no sequence"));
            }
        } else {
            let start = self.at;
            let stop = start.checked_add(length as usize).filter(|stop| *stop <= end);
            let Some(stop) = stop else {
                return Err(self.wrong(
                    tag,
                    &format!("a value of {length} bytes"),
                    format!("{} bytes before the end", end - start),
                ));
            };
            let value = if vr == Some(*b"SQ") || vr.is_none() && SEQUENCES.contains(&tag) {
                Value::Items(self.items(stop, false, depth)?)
            } else {
                Value::Bytes(start..stop)
            };
            self.at = stop;
            value
        };
        Ok(Some(Element { tag, vr, value }))
    }

    /// The items of a sequence, up to `end` or, where its length is not defined, to its delimiter.
    fn items(&mut self, end: usize, delimited: bool, depth: usize) -> Result<Vec<Vec<Element>>, DataError> {
        DataError::check_limit(self.name, "sequences inside each other", DEEPEST as u64, depth as u64 + 1)?;
        let mut items = Vec::new();
        while delimited || self.at < end {
            let tag = self.counted(end)?;
            let length = self.long(end)?;
            match tag {
                SEQUENCE_END if delimited => break,
                ITEM if length == UNDEFINED => items.push(self.elements(end, depth + 1)?),
                ITEM => {
                    let stop = self.at.checked_add(length as usize).filter(|stop| *stop <= end);
                    let Some(stop) = stop else {
                        return Err(self.wrong(
                            tag,
                            &format!("an item of {length} bytes"),
                            format!("{} bytes before the end", end - self.at),
                        ));
                    };
                    items.push(self.elements(stop, depth + 1)?);
                    self.at = stop;
                }
                _ => return Err(self.wrong(tag, "an item of a sequence", "another attribute")),
            }
        }
        Ok(items)
    }

    /// The parts of compressed pixels.
    fn fragments(&mut self, end: usize) -> Result<Vec<Range<usize>>, DataError> {
        let mut fragments = Vec::new();
        loop {
            let tag = self.counted(end)?;
            let length = self.long(end)?;
            match tag {
                SEQUENCE_END => return Ok(fragments),
                ITEM if length as usize <= end - self.at => {
                    fragments.push(self.at..self.at + length as usize);
                    self.at += length as usize;
                }
                ITEM => {
                    return Err(self.wrong(
                        tag,
                        &format!("a fragment of {length} bytes"),
                        format!("{} bytes before the end", end - self.at),
                    ));
                }
                _ => return Err(self.wrong(tag, "a fragment of pixels", "another attribute")),
            }
        }
    }

    /// Value representation, where the file says it, and length.
    fn length(&mut self, tag: Tag, end: usize) -> Result<(Option<[u8; 2]>, u32), DataError> {
        if !self.explicit {
            return Ok((None, self.long(end)?));
        }
        let vr = self.take::<2>(end)?;
        if !vr.iter().all(u8::is_ascii_uppercase) {
            return Err(self.wrong(
                tag,
                "two letters that say how the value is represented",
                format!("bytes {:02x} {:02x}", vr[0], vr[1]),
            ));
        }
        let is_short = matches!(
            &vr,
            b"AE"
                | b"AS"
                | b"AT"
                | b"CS"
                | b"DA"
                | b"DS"
                | b"DT"
                | b"FL"
                | b"FD"
                | b"IS"
                | b"LO"
                | b"LT"
                | b"PN"
                | b"SH"
                | b"SL"
                | b"SS"
                | b"ST"
                | b"TM"
                | b"UI"
                | b"UL"
                | b"US"
        );
        if is_short {
            let bytes = self.take::<2>(end)?;
            return Ok((Some(vr), u32::from(self.word(bytes))));
        }
        self.take::<2>(end)?;
        Ok((Some(vr), self.long(end)?))
    }

    /// The next tag, as long as there are not too many.
    fn counted(&mut self, end: usize) -> Result<Tag, DataError> {
        self.count += 1;
        DataError::check_limit(self.name, "attributes and items", MOST as u64, self.count as u64)?;
        self.tag(end)
    }

    fn tag(&mut self, end: usize) -> Result<Tag, DataError> {
        let bytes = self.take::<4>(end)?;
        Ok((self.word([bytes[0], bytes[1]]), self.word([bytes[2], bytes[3]])))
    }

    fn word(&self, bytes: [u8; 2]) -> u16 {
        if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    fn long(&mut self, end: usize) -> Result<u32, DataError> {
        let bytes = self.take::<4>(end)?;
        Ok(if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn take<const N: usize>(&mut self, end: usize) -> Result<[u8; N], DataError> {
        let taken = self.bytes.get(self.at..end).and_then(|rest| rest.first_chunk::<N>());
        let Some(taken) = taken else {
            let place = format!("attribute at byte {}", self.at);
            return Err(DataError::format(self.name, place, "a whole one; the file is cut short", "its end"));
        };
        self.at += N;
        Ok(*taken)
    }

    fn wrong(&self, tag: Tag, expected: &str, got: impl std::fmt::Display) -> DataError {
        let place = format!("attribute {} before byte {}", shown(tag), self.at);
        DataError::format(self.name, place, expected, got)
    }
}
