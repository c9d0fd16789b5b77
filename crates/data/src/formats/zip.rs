//! The zip container of an `.npz` file: a reader that trusts no number in it, and a writer.
//!
//! Only what `numpy.savez` and `numpy.savez_compressed` write is accepted: stored or deflated members, one directory
//! at the end, zip64 where sizes need it. Refused before anything is inflated: encrypted members, links, duplicate
//! names, names that climb out of a folder, members that overlap each other or the directory, local headers that
//! contradict the directory, too many members, and sizes or ratios above a limit. While inflating, the declared size
//! and the CRC are checked.
//!
//! Written here because the kept zip crate merges duplicate names silently and does not report overlaps.
//!
//! Source: PKWARE APPNOTE.TXT 6.3.10, sections 4.3 to 4.5.

use std::collections::BTreeSet;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Take, Write};

use flate2::Crc;
use flate2::bufread::DeflateDecoder;

use crate::DataError;

/// Greatest number of members; `numpy` archives hold a handful.
const MEMBERS: u64 = 4096;
/// Greatest size of the directory in bytes.
const DIRECTORY_BYTES: u64 = 1 << 20;
/// Greatest ratio of inflated to stored bytes, for members above [`RATIO_FREE_BYTES`]. Pictures reach about 20; deflate
/// itself ends near 1032.
const RATIO: u64 = 200;
/// Members up to this inflated size may have any ratio: a label array of zeros shrinks a lot.
const RATIO_FREE_BYTES: u64 = 8 << 20;

const LOCAL_SIGNATURE: u32 = 0x0403_4b50;
const CENTRAL_SIGNATURE: u32 = 0x0201_4b50;
const END_SIGNATURE: u32 = 0x0605_4b50;
const END64_SIGNATURE: u32 = 0x0606_4b50;
const LOCATOR64_SIGNATURE: u32 = 0x0706_4b50;
const LOCAL_BYTES: u64 = 30;
const CENTRAL_BYTES: usize = 46;
const END_BYTES: usize = 22;
const END64_BYTES: u64 = 56;
const LOCATOR64_BYTES: u64 = 20;
/// Value of a 32-bit field whose true value stands in the zip64 record.
const IN_ZIP64: u64 = 0xffff_ffff;

const STORED: u16 = 0;
const DEFLATED: u16 = 8;
/// General-purpose flags: encrypted, compressed patch, strong encryption, masked headers.
const REFUSED_FLAGS: u16 = 1 | 1 << 5 | 1 << 6 | 1 << 13;
/// General-purpose flag: sizes and CRC follow the data instead of standing in the local header.
const SIZES_FOLLOW: u16 = 1 << 3;

/// One member as the directory declares it.
#[derive(Debug)]
struct Member {
    name: String,
    method: u16,
    flags: u16,
    crc: u32,
    compressed: u64,
    uncompressed: u64,
    header: u64,
    /// First byte of the data.
    data: u64,
}

/// An open archive whose directory has been checked.
#[derive(Debug)]
pub(crate) struct Archive<R> {
    reader: R,
    file: String,
    members: Vec<Member>,
}

impl<R: Read + Seek> Archive<R> {
    /// Reads and checks the directory; `file` is the name for messages.
    pub(crate) fn open(mut reader: R, file: &str) -> Result<Self, DataError> {
        let reading = |source| DataError::Read { file: file.to_owned(), source };
        let length = reader.seek(SeekFrom::End(0)).map_err(reading)?;
        let directory = Directory::locate(&mut reader, length, file)?;
        DataError::check_limit(file, "members of the archive", MEMBERS, directory.members)?;
        DataError::check_limit(file, "bytes of the archive's directory", DIRECTORY_BYTES, directory.size)?;
        reader.seek(SeekFrom::Start(directory.start)).map_err(reading)?;
        let mut bytes = vec![0; directory.size as usize];
        reader.read_exact(&mut bytes).map_err(reading)?;

        let mut members = read_members(&bytes, directory.members, file)?;
        for member in &mut members {
            check_local_header(&mut reader, member, directory.start, file)?;
        }
        check_overlaps(&members, directory.start, file)?;
        Ok(Self { reader, file: file.to_owned(), members })
    }

    /// Names of all members, in the order of the directory.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|member| member.name.as_str())
    }

    /// The member called `name`, if there is one, of at most `limit` inflated bytes.
    pub(crate) fn member(&mut self, name: &str, limit: u64) -> Result<Option<MemberReader<'_, R>>, DataError> {
        let Some(member) = self.members.iter().find(|member| member.name == name) else { return Ok(None) };
        DataError::check_limit(&self.file, format!("bytes declared for `{name}`"), limit, member.uncompressed)?;
        if member.uncompressed > RATIO_FREE_BYTES {
            let ratio = member.uncompressed / member.compressed.max(1);
            DataError::check_limit(&self.file, format!("compression ratio of `{name}`"), RATIO, ratio)?;
        }
        self.reader
            .seek(SeekFrom::Start(member.data))
            .map_err(|source| DataError::Read { file: self.file.clone(), source })?;
        let raw = BufReader::new((&mut self.reader).take(member.compressed));
        let data = match member.method {
            STORED => MemberData::Stored(raw),
            _ => MemberData::Deflated(DeflateDecoder::new(raw)),
        };
        let file = &self.file;
        Ok(Some(MemberReader { data, file, member, crc: Crc::new(), remaining: member.uncompressed }))
    }
}

/// Where the directory lies.
struct Directory {
    start: u64,
    size: u64,
    members: u64,
}

impl Directory {
    fn locate<R: Read + Seek>(reader: &mut R, length: u64, file: &str) -> Result<Self, DataError> {
        let reading = |source| DataError::Read { file: file.to_owned(), source };
        let not_a_zip = |got: &str| DataError::format(file, "zip directory", "an `.npz` file (zip archive)", got);
        let tail_length = length.min(END_BYTES as u64 + 0xffff);
        reader.seek(SeekFrom::Start(length - tail_length)).map_err(reading)?;
        let mut tail = vec![0; tail_length as usize];
        reader.read_exact(&mut tail).map_err(reading)?;
        // The end record is the last one whose comment reaches exactly to the end of the file.
        let found = (0..(tail.len() + 1).saturating_sub(END_BYTES)).rev().find(|&at| {
            u32_at(&tail, at) == END_SIGNATURE && at + END_BYTES + usize::from(u16_at(&tail, at + 20)) == tail.len()
        });
        let Some(at) = found else {
            reader.seek(SeekFrom::Start(0)).map_err(reading)?;
            let mut head = [0; 4];
            let is_zip = length >= 4 && reader.read_exact(&mut head).is_ok() && u32_at(&head, 0) == LOCAL_SIGNATURE;
            return Err(not_a_zip(if is_zip { "a truncated archive" } else { "a file of another kind" }));
        };
        let end = length - tail_length + at as u64;
        let mut directory = Self {
            members: u64::from(u16_at(&tail, at + 10)),
            size: u64::from(u32_at(&tail, at + 12)),
            start: u64::from(u32_at(&tail, at + 16)),
        };
        if u16_at(&tail, at + 4) != 0 || u16_at(&tail, at + 6) != 0 {
            return Err(DataError::refused(file, "an archive in several parts", "join the parts first"));
        }
        let saturated = directory.members == 0xffff || directory.size == IN_ZIP64 || directory.start == IN_ZIP64;
        let mut stop = end;
        if saturated {
            let (record, members, size, start) = Self::zip64(reader, end, file)?;
            let replace = |field: &mut u64, limit: u64, value: u64| {
                if *field == limit {
                    *field = value;
                }
                *field == value
            };
            let agrees = replace(&mut directory.members, 0xffff, members)
                & replace(&mut directory.size, IN_ZIP64, size)
                & replace(&mut directory.start, IN_ZIP64, start);
            if !agrees {
                return Err(not_a_zip("two end records that contradict each other"));
            }
            stop = record;
        }
        if directory.start.checked_add(directory.size) != Some(stop) {
            return Err(not_a_zip("a directory that does not end where its end record begins"));
        }
        Ok(directory)
    }

    /// Position, number of members, size and start of the directory from the zip64 end record.
    fn zip64<R: Read + Seek>(reader: &mut R, end: u64, file: &str) -> Result<(u64, u64, u64, u64), DataError> {
        let broken = || DataError::format(file, "zip64 end record", "a record before the end record", "none");
        let mut read_at = |position: u64, bytes: &mut [u8]| {
            reader
                .seek(SeekFrom::Start(position))
                .and_then(|_| reader.read_exact(bytes))
                .map_err(|source| DataError::Read { file: file.to_owned(), source })
        };
        let locator_at = end.checked_sub(LOCATOR64_BYTES).ok_or_else(broken)?;
        let mut locator = [0; LOCATOR64_BYTES as usize];
        read_at(locator_at, &mut locator)?;
        let record_at = u64_at(&locator, 8);
        let record_fits = record_at.checked_add(END64_BYTES).is_some_and(|stop| stop == locator_at);
        if u32_at(&locator, 0) != LOCATOR64_SIGNATURE || !record_fits {
            return Err(broken());
        }
        let mut record = [0; END64_BYTES as usize];
        read_at(record_at, &mut record)?;
        if u32_at(&record, 0) != END64_SIGNATURE {
            return Err(broken());
        }
        Ok((record_at, u64_at(&record, 32), u64_at(&record, 40), u64_at(&record, 48)))
    }
}

/// Parses the directory and checks what needs no other part of the file.
fn read_members(bytes: &[u8], count: u64, file: &str) -> Result<Vec<Member>, DataError> {
    let broken = |got: &str| DataError::format(file, "zip directory", format!("{count} whole entries"), got);
    let mut members = Vec::new();
    let mut names = BTreeSet::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        if rest.len() < CENTRAL_BYTES || u32_at(rest, 0) != CENTRAL_SIGNATURE {
            return Err(broken("an entry that is cut off or has a wrong signature"));
        }
        let lengths = [28, 30, 32].map(|at| usize::from(u16_at(rest, at)));
        let [name_length, extra_length, comment_length] = lengths;
        let total = CENTRAL_BYTES + name_length + extra_length + comment_length;
        if total > rest.len() {
            return Err(broken("an entry that is cut off"));
        }
        let name = &rest[CENTRAL_BYTES..CENTRAL_BYTES + name_length];
        let extra = &rest[CENTRAL_BYTES + name_length..CENTRAL_BYTES + name_length + extra_length];
        let mut member = Member {
            name: checked_name(name, file)?,
            flags: u16_at(rest, 8),
            method: u16_at(rest, 10),
            crc: u32_at(rest, 16),
            compressed: u64::from(u32_at(rest, 20)),
            uncompressed: u64::from(u32_at(rest, 24)),
            header: u64::from(u32_at(rest, 42)),
            data: 0,
        };
        let zip64 = zip64_field(extra);
        let mut fields = zip64.chunks_exact(8).map(|field| u64_at(field, 0));
        for value in [&mut member.uncompressed, &mut member.compressed, &mut member.header] {
            if *value == IN_ZIP64 {
                *value = fields.next().ok_or_else(|| broken("an entry without the zip64 sizes that it announces"))?;
            }
        }
        check_kind(&member, u32_at(rest, 38), file)?;
        if !names.insert(member.name.clone()) {
            let what = format!("a second member called `{}`", member.name);
            return Err(DataError::refused(file, what, "write the archive again with one array a name"));
        }
        members.push(member);
        rest = &rest[total..];
    }
    if members.len() as u64 != count {
        return Err(broken(&members.len().to_string()));
    }
    Ok(members)
}

/// The content of the zip64 extra field, or nothing.
fn zip64_field(mut extra: &[u8]) -> &[u8] {
    while extra.len() >= 4 {
        let length = usize::from(u16_at(extra, 2));
        let Some(content) = extra.get(4..4 + length) else { return &[] };
        if u16_at(extra, 0) == 1 {
            return content;
        }
        extra = &extra[4 + length..];
    }
    &[]
}

fn checked_name(bytes: &[u8], file: &str) -> Result<String, DataError> {
    let name = std::str::from_utf8(bytes).unwrap_or_default();
    let climbs = name.split(['/', '\\']).any(|part| part == ".." || part.is_empty());
    if name.is_empty() || name.len() > 256 || name.contains(|c: char| c.is_control() || c == ':') || climbs {
        let what = "a member whose name is empty, too long, not UTF-8 or climbs out of its folder";
        return Err(DataError::refused(file, what, "write the archive again with plain array names"));
    }
    Ok(name.to_owned())
}

/// Refuses encrypted members, links and methods other than stored and deflated.
fn check_kind(member: &Member, attributes: u32, file: &str) -> Result<(), DataError> {
    const TYPE: u32 = 0o170_000;
    const SYMLINK: u32 = 0o120_000;
    let refuse = |what: &str, advice: &str| {
        Err(DataError::refused(file, format!("the {what} member `{}`", member.name), advice))
    };
    if member.flags & REFUSED_FLAGS != 0 {
        return refuse("encrypted", "decrypt the archive first");
    }
    if (attributes >> 16) & TYPE == SYMLINK {
        return refuse("symbolic-link", "store the array itself");
    }
    if member.method != STORED && member.method != DEFLATED {
        return refuse("unusually compressed", "write the archive with numpy.savez or numpy.savez_compressed");
    }
    if member.method == STORED && member.compressed != member.uncompressed {
        let expected = format!("{} bytes, as it is stored without compression", member.compressed);
        return Err(DataError::format(file, format!("member `{}`", member.name), expected, member.uncompressed));
    }
    Ok(())
}

/// Compares the local header with the directory and finds the first byte of data.
fn check_local_header<R: Read + Seek>(
    reader: &mut R,
    member: &mut Member,
    directory_start: u64,
    file: &str,
) -> Result<(), DataError> {
    let what = || format!("local header of `{}`", member.name);
    let expected = "the same as in the directory";
    let outside = member.header.checked_add(LOCAL_BYTES).is_none_or(|stop| stop > directory_start);
    if outside {
        return Err(DataError::format(file, what(), "a position before the directory", member.header));
    }
    let mut header = [0; LOCAL_BYTES as usize];
    let name_length = member.name.len();
    let mut name = vec![0; name_length];
    reader
        .seek(SeekFrom::Start(member.header))
        .and_then(|_| reader.read_exact(&mut header))
        .and_then(|()| reader.read_exact(&mut name))
        .map_err(|source| DataError::Read { file: file.to_owned(), source })?;
    let size_agrees = |at: usize, size: u64| {
        let local = u64::from(u32_at(&header, at));
        local == size || local == IN_ZIP64 || member.flags & SIZES_FOLLOW != 0
    };
    let agrees = u32_at(&header, 0) == LOCAL_SIGNATURE
        && u16_at(&header, 6) == member.flags
        && u16_at(&header, 8) == member.method
        && usize::from(u16_at(&header, 26)) == name_length
        && name == member.name.as_bytes()
        && size_agrees(18, member.compressed)
        && size_agrees(22, member.uncompressed);
    if !agrees {
        return Err(DataError::format(file, what(), expected, "something else"));
    }
    member.data = member.header + LOCAL_BYTES + name_length as u64 + u64::from(u16_at(&header, 28));
    Ok(())
}

fn check_overlaps(members: &[Member], directory_start: u64, file: &str) -> Result<(), DataError> {
    let mut in_order: Vec<&Member> = members.iter().collect();
    in_order.sort_by_key(|member| member.header);
    for (position, member) in in_order.iter().enumerate() {
        let next = in_order.get(position + 1).map_or(directory_start, |next| next.header);
        if member.data.checked_add(member.compressed).is_none_or(|stop| stop > next) {
            let what = format!("the member `{}`, which overlaps what follows it", member.name);
            return Err(DataError::refused(file, what, "write the archive again"));
        }
    }
    Ok(())
}

enum MemberData<R> {
    Stored(BufReader<R>),
    Deflated(DeflateDecoder<BufReader<R>>),
}

/// The bytes of one member, never more than the directory declares.
pub(crate) struct MemberReader<'a, R> {
    data: MemberData<Take<&'a mut R>>,
    file: &'a str,
    member: &'a Member,
    crc: Crc,
    remaining: u64,
}

impl<R: Read> MemberReader<'_, R> {
    /// Declared bytes that have not been read yet.
    pub(crate) fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Checks that the member ends here and that its CRC is right.
    pub(crate) fn finish(mut self) -> Result<(), DataError> {
        let more = self.read_data(&mut [0]).map_err(DataError::reading(self.file))? > 0;
        let unused = match &self.data {
            MemberData::Stored(_) => 0,
            MemberData::Deflated(decoder) => self.member.compressed - decoder.total_in(),
        };
        if self.remaining > 0 || more || unused > 0 {
            return Err(self.broken(&format!("{} bytes", self.member.uncompressed), "a different number"));
        }
        if self.crc.sum() != self.member.crc {
            let (expected, got) = (format!("CRC {:08x}", self.member.crc), format!("{:08x}", self.crc.sum()));
            return Err(self.broken(&expected, &got));
        }
        Ok(())
    }

    fn read_data(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.data {
            MemberData::Stored(reader) => reader.read(buffer),
            MemberData::Deflated(decoder) => decoder.read(buffer),
        }
    }

    fn broken(&self, expected: &str, got: &str) -> DataError {
        DataError::format(self.file, format!("member `{}`", self.member.name), expected, got)
    }
}

impl<R: Read> Read for MemberReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        let read = self.read_data(&mut buffer[..wanted])?;
        self.crc.update(&buffer[..read]);
        self.remaining -= read as u64;
        Ok(read)
    }
}

/// Writes an archive of stored members, as `numpy.savez` does; deterministic, without time stamps.
pub(crate) struct ArchiveWriter<W> {
    writer: W,
    position: u64,
    directory: Vec<u8>,
    members: u16,
}

impl<W: Write> ArchiveWriter<W> {
    /// An empty archive.
    pub(crate) fn new(writer: W) -> Self {
        Self { writer, position: 0, directory: Vec::new(), members: 0 }
    }

    /// Adds a member. Sizes are 32 bit: a member or archive of 4 GiB is an error.
    pub(crate) fn add(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let too_large = || io::Error::new(io::ErrorKind::FileTooLarge, "an npz file of 4 GiB or more is not written");
        let size = u32::try_from(content.len()).map_err(|_| too_large())?;
        let header_at = u32::try_from(self.position).map_err(|_| too_large())?;
        let name_length = u16::try_from(name.len()).map_err(|_| too_large())?;
        let mut crc = Crc::new();
        crc.update(content);
        // Version needed 2.0, no flags, stored, no time (the first day that the format can express).
        let mut shared = Vec::new();
        for field in [20u16, 0, STORED, 0, 0x21] {
            shared.extend(field.to_le_bytes());
        }
        for field in [crc.sum(), size, size] {
            shared.extend(field.to_le_bytes());
        }
        shared.extend(name_length.to_le_bytes());
        shared.extend([0; 2]);

        let mut local = LOCAL_SIGNATURE.to_le_bytes().to_vec();
        local.extend(&shared);
        local.extend(name.as_bytes());
        self.writer.write_all(&local)?;
        self.writer.write_all(content)?;
        self.position += (local.len() + content.len()) as u64;

        self.directory.extend(CENTRAL_SIGNATURE.to_le_bytes());
        self.directory.extend(20u16.to_le_bytes());
        self.directory.extend(&shared);
        // No comment, disk 0, no attributes.
        self.directory.extend([0; 10]);
        self.directory.extend(header_at.to_le_bytes());
        self.directory.extend(name.as_bytes());
        self.members += 1;
        Ok(())
    }

    /// Writes the directory and hands the writer back.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        let start = u32::try_from(self.position).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        self.writer.write_all(&self.directory)?;
        let mut end = END_SIGNATURE.to_le_bytes().to_vec();
        end.extend([0; 4]);
        end.extend(self.members.to_le_bytes());
        end.extend(self.members.to_le_bytes());
        end.extend((self.directory.len() as u32).to_le_bytes());
        end.extend(start.to_le_bytes());
        end.extend([0; 2]);
        self.writer.write_all(&end)?;
        self.writer.flush()?;
        Ok(self.writer)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = ArchiveWriter::new(Vec::new());
        for (name, content) in members {
            writer.add(name, content).unwrap();
        }
        writer.finish().unwrap()
    }

    fn read(bytes: Vec<u8>, name: &str) -> Result<Vec<u8>, DataError> {
        let mut archive = Archive::open(Cursor::new(bytes), "test.npz")?;
        let mut member = archive.member(name, 1 << 30)?.expect("the member exists");
        let mut content = vec![0; member.remaining() as usize];
        member.read_exact(&mut content).map_err(|e| DataError::format("test.npz", "data", "whole", e))?;
        member.finish()?;
        Ok(content)
    }

    /// An archive of one deflated member, with any declared size, CRC, flags and external attributes.
    fn deflated(content: &[u8], declared: Option<u32>, flags: u16, attributes: u32) -> Vec<u8> {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(content).unwrap();
        let data = encoder.finish().unwrap();
        let mut crc = Crc::new();
        crc.update(content);
        let mut bytes = archive(&[("a", &data)]);
        let start = u32_at(&bytes, bytes.len() - 6) as usize;
        let declared = declared.unwrap_or(content.len() as u32);
        for (flags_at, method_at, crc_at, size_at) in [(6, 8, 14, 22), (start + 8, start + 10, start + 16, start + 24)]
        {
            bytes[flags_at..flags_at + 2].copy_from_slice(&flags.to_le_bytes());
            bytes[method_at..method_at + 2].copy_from_slice(&DEFLATED.to_le_bytes());
            bytes[crc_at..crc_at + 4].copy_from_slice(&crc.sum().to_le_bytes());
            bytes[size_at..size_at + 4].copy_from_slice(&declared.to_le_bytes());
        }
        bytes[start + 38..start + 42].copy_from_slice(&attributes.to_le_bytes());
        bytes
    }

    #[test]
    fn stored_and_deflated_members_are_read() {
        let bytes = archive(&[("one", b"1234"), ("two", b"")]);
        assert_eq!(read(bytes.clone(), "one").unwrap(), b"1234");
        assert_eq!(read(bytes, "two").unwrap(), b"");
        let content: Vec<u8> = (0..100_000u32).map(|v| (v % 251) as u8).collect();
        assert_eq!(read(deflated(&content, None, 0, 0), "a").unwrap(), content);
    }

    #[test]
    fn a_member_that_lies_about_its_size_or_content_is_refused() {
        let content = [7; 1000];
        for declared in [999, 1001, 2000] {
            let error = read(deflated(&content, Some(declared), 0, 0), "a").unwrap_err();
            assert!(matches!(error, DataError::Format { .. }), "{declared}: {error}");
        }
        let mut bytes = archive(&[("a", b"content")]);
        bytes[33] ^= 1;
        assert!(read(bytes, "a").unwrap_err().to_string().contains("CRC"));
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_inflated() {
        let zeros = vec![0; 64 << 20];
        let bytes = deflated(&zeros, None, 0, 0);
        assert!(bytes.len() < 100_000);
        assert!(matches!(read(bytes.clone(), "a"), Err(DataError::TooLarge { limit: RATIO, .. })));
        let mut archive = Archive::open(Cursor::new(bytes), "test.npz").unwrap();
        assert!(matches!(archive.member("a", 1000), Err(DataError::TooLarge { limit: 1000, .. })));
    }

    #[test]
    fn encrypted_members_links_and_odd_names_are_refused() {
        let refusal = |bytes| Archive::open(Cursor::new(bytes), "test.npz").unwrap_err();
        for (flags, attributes) in [(1, 0), (1 << 6, 0), (1 << 13, 0), (0, 0o120_777 << 16)] {
            let error = refusal(deflated(b"x", None, flags, attributes));
            assert!(matches!(error, DataError::Refused { .. }), "{flags} {attributes}: {error}");
        }
        for name in ["../a.npy", "/a.npy", "a/../../b", "", "a\\..\\b", "c:a", "a\0b"] {
            assert!(matches!(refusal(archive(&[(name, b"x")])), DataError::Refused { .. }), "{name}");
        }
    }

    #[test]
    fn duplicate_and_overlapping_members_are_refused() {
        let refusal = |bytes| Archive::open(Cursor::new(bytes), "test.npz").unwrap_err().to_string();
        assert!(refusal(archive(&[("a", b"1"), ("a", b"2")])).contains("second member"));
        // Both entries of the directory point at the same local header.
        let mut bytes = archive(&[("a", b"1234"), ("b", b"1234")]);
        let start = u32_at(&bytes, bytes.len() - 6) as usize;
        let second = start + CENTRAL_BYTES + 1;
        bytes[second + 42..second + 46].copy_from_slice(&0u32.to_le_bytes());
        bytes[second + CENTRAL_BYTES] = b'a';
        bytes[start + CENTRAL_BYTES] = b'a';
        assert!(refusal(bytes.clone()).contains("second member"));
        bytes[second + CENTRAL_BYTES] = b'b';
        assert!(refusal(bytes).contains("local header"));
        // A member that swallows the next one.
        let mut bytes = archive(&[("a", b"1234"), ("b", b"1234")]);
        for at in [18, 22, start + 20, start + 24] {
            bytes[at..at + 4].copy_from_slice(&20u32.to_le_bytes());
        }
        assert!(refusal(bytes).contains("overlaps"));
    }

    #[test]
    fn too_many_members_are_refused() {
        let mut writer = ArchiveWriter::new(Vec::new());
        for index in 0..=MEMBERS {
            writer.add(&index.to_string(), b"").unwrap();
        }
        let bytes = writer.finish().unwrap();
        assert!(matches!(
            Archive::open(Cursor::new(bytes), "test.npz"),
            Err(DataError::TooLarge { limit: MEMBERS, .. })
        ));
    }

    /// Turns the end record of an archive into a zip64 one with the given number of members.
    fn with_zip64(mut bytes: Vec<u8>, members: u64) -> Vec<u8> {
        let end = bytes.split_off(bytes.len() - END_BYTES);
        let (size, start) = (u64::from(u32_at(&end, 12)), u64::from(u32_at(&end, 16)));
        let record_at = bytes.len() as u64;
        bytes.extend(END64_SIGNATURE.to_le_bytes());
        bytes.extend(44u64.to_le_bytes());
        bytes.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for field in [members, members, size, start] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend(LOCATOR64_SIGNATURE.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(record_at.to_le_bytes());
        bytes.extend(1u32.to_le_bytes());
        bytes.extend(&end[..8]);
        bytes.extend([0xff; 12]);
        bytes.extend([0; 2]);
        bytes
    }

    #[test]
    fn zip64_is_read_and_its_lies_are_refused() {
        let bytes = archive(&[("a", b"1234")]);
        assert_eq!(read(with_zip64(bytes.clone(), 1), "a").unwrap(), b"1234");
        assert!(Archive::open(Cursor::new(with_zip64(bytes.clone(), 2)), "t").is_err());
        assert!(Archive::open(Cursor::new(with_zip64(bytes.clone(), u64::MAX)), "t").is_err());
        // A directory entry that announces zip64 sizes without carrying them.
        let mut bytes = bytes;
        let start = u32_at(&bytes, bytes.len() - 6) as usize;
        bytes[start + 24..start + 28].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Archive::open(Cursor::new(bytes), "t").is_err());
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_an_error_or_the_same_content() {
        let bytes = archive(&[("a", b"content"), ("b", b"more")]);
        for length in 0..bytes.len() {
            assert!(Archive::open(Cursor::new(bytes[..length].to_vec()), "t").is_err(), "{length}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let Ok(mut archive) = Archive::open(Cursor::new(flipped), "t") else { continue };
            let Ok(Some(mut member)) = archive.member("a", 1000) else { continue };
            let mut content = vec![0; member.remaining() as usize];
            if member.read_exact(&mut content).is_ok() && member.finish().is_ok() {
                assert_eq!(content, b"content", "bit {bit}");
            }
        }
    }
}
