//! What the pages of a Parquet column claim, held against what they can be before any memory is set aside for it.
//!
//! Before each page stands a header in Thrift's compact protocol, with the size of the page and how many values it has. A reader takes
//! memory for what the header says, so a few bytes could ask for gigabytes.
//!
//! Source: Apache Parquet format 2.12 (`PageHeader`, `DataPageHeader`, `DictionaryPageHeader`, `DataPageHeaderV2`); Thrift compact
//! protocol.

use std::io::Read;

use parquet::basic::Compression;
use parquet::file::metadata::ColumnChunkMetaData;

/// What DEFLATE can make of a byte at most; Snappy makes less.
const MOST_PER_BYTE: u64 = 1032;
/// Least bytes of a value in a dictionary.
const LEAST_OF_VALUE: u64 = 4;
/// Thrift's types of fields.
mod kind {
    pub(super) const TRUE: u8 = 1;
    pub(super) const FALSE: u8 = 2;
    pub(super) const BYTE: u8 = 3;
    pub(super) const INTEGER: u8 = 5;
    pub(super) const DOUBLE: u8 = 7;
    pub(super) const BINARY: u8 = 8;
    pub(super) const LIST: u8 = 9;
    pub(super) const SET: u8 = 10;
    pub(super) const MAP: u8 = 11;
    pub(super) const STRUCT: u8 = 12;
}

/// Bytes that all pages of a column of `rows` rows unpack to; what is wrong with them otherwise.
pub(super) fn unpacked(file: &[u8], column: &ColumnChunkMetaData, rows: u64) -> Result<u64, &'static str> {
    let places = [column.dictionary_page_offset(), Some(column.data_page_offset())];
    let start = places.into_iter().flatten().min().and_then(|place| usize::try_from(place).ok());
    let end = usize::try_from(column.compressed_size()).ok().and_then(|length| start?.checked_add(length));
    let pages = start.zip(end).and_then(|(start, end)| file.get(start..end)).ok_or("pages outside of the file")?;
    of_pages(pages, matches!(column.compression(), Compression::GZIP(_)), rows)
}

/// See [`unpacked`]: of pages that lie one after the other.
fn of_pages(mut rest: &[u8], gzip: bool, rows: u64) -> Result<u64, &'static str> {
    let mut all: u64 = 0;
    while !rest.is_empty() {
        let header = Header::read(&mut rest).ok_or("a page without a header")?;
        let page = rest.split_off(..header.stored).ok_or("a page that goes beyond its column")?;
        if header.unpacked > (header.stored as u64).saturating_mul(MOST_PER_BYTE) {
            return Err("a page that cannot unpack to as many bytes as it claims");
        }
        let most = if header.dictionary { header.unpacked / LEAST_OF_VALUE } else { rows };
        if header.values > most {
            return Err("a page with more values than there can be");
        }
        if gzip && header.packed {
            let levels = header.levels.min(page.len());
            let most = header.unpacked.saturating_sub(levels as u64);
            let mut packed = flate2::read::MultiGzDecoder::new(&page[levels..]).take(most + 1);
            if std::io::copy(&mut packed, &mut std::io::sink()).is_ok_and(|unpacked| unpacked > most) {
                return Err("a page that unpacks to more bytes than it claims");
            }
        }
        all = all.saturating_add(header.unpacked);
    }
    Ok(all)
}

/// What a page says of itself.
#[derive(Default)]
struct Header {
    unpacked: u64,
    stored: usize,
    dictionary: bool,
    values: u64,
    /// Bytes before what is packed.
    levels: usize,
    packed: bool,
}

impl Header {
    /// Takes a header from the beginning of `rest`; none where there is none, or one whose fields have other types.
    fn read(rest: &mut &[u8]) -> Option<Self> {
        let mut header = Self { packed: true, ..Self::default() };
        let mut described = false;
        fields(rest, |field, kind, rest| {
            match (field, kind) {
                (2, kind::INTEGER) => header.unpacked = count(rest)?,
                (3, kind::INTEGER) => header.stored = usize::try_from(count(rest)?).ok()?,
                // Values, a dictionary, or values of version 2: one of them.
                (5 | 7 | 8, kind::STRUCT) if !described => {
                    described = true;
                    header.dictionary = field == 7;
                    fields(rest, |inner, kind, rest| header.describe(field, inner, kind, rest))?;
                }
                (2 | 3 | 5 | 7 | 8, _) => return None,
                _ => skip(rest, kind, 0)?,
            }
            Some(())
        })?;
        Some(header)
    }

    /// Takes a field of what describes the page.
    fn describe(&mut self, page: u64, field: u64, kind: u8, rest: &mut &[u8]) -> Option<()> {
        match (page, field, kind) {
            (_, 1, kind::INTEGER) => self.values = count(rest)?,
            (8, 5 | 6, kind::INTEGER) => self.levels = self.levels.checked_add(usize::try_from(count(rest)?).ok()?)?,
            (8, 7, kind::TRUE | kind::FALSE) => self.packed = kind == kind::TRUE,
            (_, 1, _) | (8, 5..=7, _) => return None,
            _ => skip(rest, kind, 0)?,
        }
        Some(())
    }
}

/// Gives each field of a structure to `take`: its number, its type, and the bytes from its value on, which are to be taken.
fn fields(rest: &mut &[u8], mut take: impl FnMut(u64, u8, &mut &[u8]) -> Option<()>) -> Option<()> {
    let mut field = 0;
    loop {
        let head = byte(rest)?;
        if head == 0 {
            return Some(());
        }
        field = match head >> 4 {
            0 => count(rest)?,
            more => field + u64::from(more),
        };
        take(field, head & 0xf, rest)?;
    }
}

fn byte(rest: &mut &[u8]) -> Option<u8> {
    rest.split_off_first().copied()
}

/// A number of seven bits a byte, the least first.
fn number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = byte(rest)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// A signed number that is not below 0: twice as much is stored.
fn count(rest: &mut &[u8]) -> Option<u64> {
    number(rest).filter(|number| number % 2 == 0).map(|number| number / 2)
}

/// Leaves out a value of this type.
fn skip(rest: &mut &[u8], kind: u8, depth: usize) -> Option<()> {
    const DEEPEST: usize = 8;
    if depth > DEEPEST {
        return None;
    }
    match kind {
        kind::TRUE | kind::FALSE => Some(()),
        kind::BYTE => byte(rest).map(drop),
        4..=6 => number(rest).map(drop),
        kind::DOUBLE => rest.split_off(..8).map(drop),
        kind::BINARY => {
            let length = usize::try_from(number(rest)?).ok()?;
            rest.split_off(..length).map(drop)
        }
        kind::LIST | kind::SET => {
            let head = byte(rest)?;
            let length = if head >> 4 == 15 { number(rest)? } else { u64::from(head >> 4) };
            (0..length).try_for_each(|_| element(rest, head & 0xf, depth))
        }
        kind::MAP => {
            let length = number(rest)?;
            let kinds = if length > 0 { byte(rest)? } else { 0 };
            (0..length).try_for_each(|_| {
                element(rest, kinds >> 4, depth)?;
                element(rest, kinds & 0xf, depth)
            })
        }
        kind::STRUCT => fields(rest, |_, kind, rest| skip(rest, kind, depth + 1)),
        _ => None,
    }
}

/// Leaves out a value of a list, where a truth value takes a byte. Each takes at least one, so their number ends with the file.
fn element(rest: &mut &[u8], kind: u8, depth: usize) -> Option<()> {
    match kind {
        kind::TRUE | kind::FALSE => byte(rest).map(drop),
        _ => skip(rest, kind, depth + 1),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A field of type 5, one number after the field before it.
    fn integer(mut value: u64) -> Vec<u8> {
        value *= 2;
        let mut bytes = vec![0x15];
        while value > 0x7f {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    /// A page with what its header says: bytes unpacked, the field that describes it, and values.
    fn page(unpacked: u64, field: u8, values: u64, stored: &[u8]) -> Vec<u8> {
        let mut bytes = [integer(0), integer(unpacked), integer(stored.len() as u64)].concat();
        bytes.push((field - 3) << 4 | kind::STRUCT);
        bytes.extend(integer(values));
        bytes.extend([0, 0]);
        bytes.extend(stored);
        bytes
    }

    #[test]
    fn honest_pages_are_counted() {
        let pages = [page(40, 7, 10, &[1; 40]), page(100, 5, 12, &[1; 30]), page(8, 8, 12, &[1; 8])].concat();
        assert_eq!(of_pages(&pages, false, 12), Ok(148));
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(&[7; 5000]).unwrap();
        let packed = packed.finish().unwrap();
        assert_eq!(of_pages(&page(5000, 5, 12, &packed), true, 12), Ok(5000));
        assert!(of_pages(&page(4999, 5, 12, &packed), true, 12).unwrap_err().contains("more bytes than it claims"));
    }

    #[test]
    fn claims_that_no_page_can_keep_are_refused() {
        let refused = |page: Vec<u8>| of_pages(&page, false, 12).unwrap_err();
        assert!(refused(page(1 << 30, 5, 12, &[1; 300])).contains("as many bytes"));
        assert!(refused(page(40, 7, 11, &[1; 40])).contains("more values"));
        assert!(refused(page(40, 5, 13, &[1; 40])).contains("more values"));
        let cut = page(40, 5, 12, &[1; 40]);
        assert!(refused(cut[..cut.len() - 1].to_vec()).contains("beyond its column"));
        assert!(refused(cut[..6].to_vec()).contains("without a header"));
        assert!(refused(vec![0x95; 40]).contains("without a header"), "a number that does not end");
        // A list of 2^40 lists of nothing in a field that nobody knows.
        let mut bomb = vec![0xd9, 0xf9, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20];
        bomb.extend(vec![0x09; 1000]);
        assert!(refused(bomb).contains("without a header"));
    }
}
