//! NumPy arrays: the `.npy` header and its values, read and written.
//!
//! Versions 1 to 3, both byte orders, row-major and Fortran order, and all boolean, integer and real types are read.
//! Object arrays are refused (their content is a pickle, which can run code), as are structured, complex, text and date
//! types.
//!
//! Source: NumPy enhancement proposal 1, "A simple file format for NumPy arrays".

use std::io::{self, Read, Write};
use std::path::Path;

use crate::DataError;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Greatest header in bytes; NumPy writes 128.
const HEADER_BYTES: u64 = 1 << 16;
/// Greatest number of dimensions.
const DIMENSIONS: usize = 8;

/// Type of the elements of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    Bool,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F16,
    F32,
    F64,
}

impl Element {
    fn bytes(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 | Self::F16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    pub(crate) fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::F32 | Self::F64)
    }

    /// NumPy's name of the type.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::U8 => "uint8",
            Self::I8 => "int8",
            Self::U16 => "uint16",
            Self::I16 => "int16",
            Self::U32 => "uint32",
            Self::I32 => "int32",
            Self::U64 => "uint64",
            Self::I64 => "int64",
            Self::F16 => "float16",
            Self::F32 => "float32",
            Self::F64 => "float64",
        }
    }

    const ALL: [Self; 12] = [
        Self::Bool,
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::U64,
        Self::I64,
        Self::F16,
        Self::F32,
        Self::F64,
    ];

    /// The type as a header says it, little-endian.
    fn descr(self) -> String {
        let kind = match self {
            Self::Bool => 'b',
            Self::U8 | Self::U16 | Self::U32 | Self::U64 => 'u',
            Self::I8 | Self::I16 | Self::I32 | Self::I64 => 'i',
            Self::F16 | Self::F32 | Self::F64 => 'f',
        };
        let size = self.bytes();
        format!("{}{kind}{size}", if size == 1 { '|' } else { '<' })
    }

    /// The float nearest to the little-endian `bytes`.
    fn float(self, bytes: [u8; 8]) -> f64 {
        match self {
            Self::F16 => half_to_float(bytes[0], bytes[1]),
            Self::F32 => f64::from(f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])),
            Self::F64 => f64::from_le_bytes(bytes),
            _ => self.integer(bytes) as f64,
        }
    }

    /// The value of the little-endian `bytes` of an integer type; 0 for a float type.
    fn integer(self, bytes: [u8; 8]) -> i128 {
        let [a, b, c, d, ..] = bytes;
        match self {
            Self::Bool => i128::from(a != 0),
            Self::U8 => i128::from(a),
            Self::I8 => i128::from(a.cast_signed()),
            Self::U16 => i128::from(u16::from_le_bytes([a, b])),
            Self::I16 => i128::from(i16::from_le_bytes([a, b])),
            Self::U32 => i128::from(u32::from_le_bytes([a, b, c, d])),
            Self::I32 => i128::from(i32::from_le_bytes([a, b, c, d])),
            Self::U64 => i128::from(u64::from_le_bytes(bytes)),
            Self::I64 => i128::from(i64::from_le_bytes(bytes)),
            Self::F16 | Self::F32 | Self::F64 => 0,
        }
    }
}

/// IEEE 754 half precision: sign, 5 exponent bits, 10 fraction bits.
fn half_to_float(low: u8, high: u8) -> f64 {
    let bits = u16::from_le_bytes([low, high]);
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 0x3ff));
    sign * match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
    }
}

/// What an array's header says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Header {
    pub(crate) element: Element,
    pub(crate) shape: Vec<usize>,
    big_endian: bool,
    fortran_order: bool,
}

/// An array in a file: the name of both for messages, and the bytes.
pub(crate) struct Source<'a, R> {
    pub(crate) file: &'a str,
    pub(crate) array: &'a str,
    pub(crate) reader: R,
    /// Bytes left, header included.
    pub(crate) remaining: u64,
}

impl<R: Read> Source<'_, R> {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), DataError> {
        self.reader.read_exact(buffer).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                self.broken("a whole array", "truncated or corrupt bytes")
            }
            _ => DataError::Read { file: self.file.to_owned(), source },
        })?;
        self.remaining = self.remaining.saturating_sub(buffer.len() as u64);
        Ok(())
    }

    /// A contradiction in this array.
    pub(crate) fn broken(&self, expected: impl ToString, got: impl ToString) -> DataError {
        DataError::format(self.file, format!("array `{}`", self.array), expected, got)
    }

    fn refused(&self, what: &str, advice: &str) -> DataError {
        DataError::refused(self.file, format!("{what} in array `{}`", self.array), advice)
    }

    /// Reads the header and checks that the values fill what is left.
    pub(crate) fn header(&mut self) -> Result<Header, DataError> {
        let mut start = [0; 8];
        self.fill(&mut start)?;
        if start[..6] != *MAGIC {
            return Err(self.broken("a NumPy array", "another kind of file"));
        }
        let mut length = [0; 4];
        match start[6] {
            1 => self.fill(&mut length[..2])?,
            2 | 3 => self.fill(&mut length)?,
            version => return Err(self.broken("format version 1, 2 or 3", version)),
        }
        let length = u32::from_le_bytes(length);
        let what = format!("header bytes of array `{}`", self.array);
        DataError::check_limit(self.file, what, HEADER_BYTES, u64::from(length))?;
        let mut text = vec![0; length as usize];
        self.fill(&mut text)?;
        let header = Literal { text: &text, source: self }.header()?;
        let bytes = header
            .shape
            .iter()
            .try_fold(header.element.bytes() as u64, |product, &side| product.checked_mul(side as u64));
        if bytes != Some(self.remaining) {
            let expected = format!("values for shape {:?} of {}", header.shape, header.element.name());
            return Err(self.broken(expected, format!("{} bytes", self.remaining)));
        }
        Ok(header)
    }

    /// All values in row-major order, rounded to single precision.
    pub(crate) fn floats(&mut self, header: &Header) -> Result<Vec<f32>, DataError> {
        let mut values = Vec::with_capacity(header.shape.iter().product());
        self.each(header, |bytes| {
            values.push(header.element.float(bytes) as f32);
            Ok(())
        })?;
        Ok(if header.fortran_order { to_row_major(&values, &header.shape) } else { values })
    }

    /// All values of an integer array in row-major order.
    pub(crate) fn integers(&mut self, header: &Header) -> Result<Vec<i128>, DataError> {
        if header.element.is_float() {
            return Err(self.broken("an integer type", header.element.name()));
        }
        let mut values = Vec::with_capacity(header.shape.iter().product());
        self.each(header, |bytes| {
            values.push(header.element.integer(bytes));
            Ok(())
        })?;
        Ok(if header.fortran_order { to_row_major(&values, &header.shape) } else { values })
    }

    /// Calls `visit` with the little-endian bytes of each element, in stored order.
    fn each(
        &mut self,
        header: &Header,
        mut visit: impl FnMut([u8; 8]) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        let size = header.element.bytes();
        let mut buffer = vec![0; 8192 * size];
        let mut left = header.shape.iter().product::<usize>() * size;
        while left > 0 {
            let part = left.min(buffer.len());
            self.fill(&mut buffer[..part])?;
            for element in buffer[..part].chunks_exact(size) {
                let mut bytes = [0; 8];
                bytes[..size].copy_from_slice(element);
                if header.big_endian {
                    bytes[..size].reverse();
                }
                visit(bytes)?;
            }
            left -= part;
        }
        Ok(())
    }
}

/// Fortran order (first index fastest) to row-major order (last index fastest).
fn to_row_major<T: Copy>(values: &[T], shape: &[usize]) -> Vec<T> {
    let mut strides = Vec::with_capacity(shape.len());
    let mut stride = 1;
    for side in shape {
        strides.push(stride);
        stride *= side;
    }
    let mut index = vec![0; shape.len()];
    let mut ordered = Vec::with_capacity(values.len());
    for _ in 0..values.len() {
        ordered.push(values[index.iter().zip(&strides).map(|(i, stride)| i * stride).sum::<usize>()]);
        for dimension in (0..shape.len()).rev() {
            index[dimension] += 1;
            if index[dimension] < shape[dimension] {
                break;
            }
            index[dimension] = 0;
        }
    }
    ordered
}

/// Parser of the Python dictionary in a header: no nesting, no evaluation.
struct Literal<'a, 'b, R> {
    text: &'a [u8],
    source: &'a Source<'b, R>,
}

impl<R: Read> Literal<'_, '_, R> {
    fn header(mut self) -> Result<Header, DataError> {
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        self.expect(b'{')?;
        while !self.accept(b'}') {
            let key = self.string()?;
            self.expect(b':')?;
            match key.as_str() {
                "descr" if descr.is_none() => descr = Some(self.element()?),
                "fortran_order" if fortran_order.is_none() => fortran_order = Some(self.boolean()?),
                "shape" if shape.is_none() => shape = Some(self.tuple()?),
                _ => return Err(self.broken("the keys `descr`, `fortran_order` and `shape`, once each")),
            }
            if !self.accept(b',') && self.peek() != Some(b'}') {
                return Err(self.broken("a comma or the end of the dictionary"));
            }
        }
        if self.peek().is_some() {
            return Err(self.broken("nothing after the dictionary"));
        }
        match (descr, fortran_order, shape) {
            (Some((element, big_endian)), Some(fortran_order), Some(shape)) => {
                Ok(Header { element, shape, big_endian, fortran_order })
            }
            _ => Err(self.broken("the keys `descr`, `fortran_order` and `shape`")),
        }
    }

    fn broken(&self, expected: &str) -> DataError {
        self.source.broken(format!("a header with {expected}"), "something else")
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        self.text = self.text.trim_ascii_start();
        self.text.first().copied()
    }

    fn accept(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.text = &self.text[1..];
        }
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), DataError> {
        if self.accept(byte) { Ok(()) } else { Err(self.broken(&format!("a `{}`", char::from(byte)))) }
    }

    fn string(&mut self) -> Result<String, DataError> {
        let Some(quote @ (b'\'' | b'"')) = self.peek() else { return Err(self.broken("a quoted text")) };
        let content = &self.text[1..];
        let end = content.iter().position(|&byte| byte == quote || byte == b'\\');
        match end {
            Some(end) if content[end] == quote => {
                self.text = &content[end + 1..];
                Ok(String::from_utf8_lossy(&content[..end]).into_owned())
            }
            _ => Err(self.broken("a quoted text that ends")),
        }
    }

    fn boolean(&mut self) -> Result<bool, DataError> {
        self.peek();
        for (word, value) in [("True", true), ("False", false)] {
            if let Some(rest) = self.text.strip_prefix(word.as_bytes()) {
                self.text = rest;
                return Ok(value);
            }
        }
        Err(self.broken("True or False as `fortran_order`"))
    }

    fn tuple(&mut self) -> Result<Vec<usize>, DataError> {
        self.expect(b'(')?;
        let mut sides = Vec::new();
        while !self.accept(b')') {
            self.peek();
            let digits = self.text.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let side = std::str::from_utf8(&self.text[..digits]).ok().and_then(|digits| digits.parse().ok());
            let Some(side) = side else { return Err(self.broken("sides that are whole numbers as `shape`")) };
            self.text = &self.text[digits..];
            sides.push(side);
            if sides.len() > DIMENSIONS {
                return Err(self.broken(&format!("at most {DIMENSIONS} dimensions as `shape`")));
            }
            if !self.accept(b',') && self.peek() != Some(b')') {
                return Err(self.broken("a comma or the end of the tuple as `shape`"));
            }
        }
        Ok(sides)
    }

    /// Element type and whether it is big endian.
    fn element(&mut self) -> Result<(Element, bool), DataError> {
        if self.peek() == Some(b'[') {
            return Err(self.source.refused("a structured type", "save each field as an array of its own"));
        }
        let text = self.string()?;
        if text.contains('O') {
            let advice = "it is a pickle, which can run code; save numbers, with dtype=float32 or uint8";
            return Err(self.source.refused("an object type", advice));
        }
        let (order, kind) = text.split_at_checked(1).unwrap_or_default();
        let element = match kind {
            "b1" => Element::Bool,
            "u1" => Element::U8,
            "i1" => Element::I8,
            "u2" => Element::U16,
            "i2" => Element::I16,
            "u4" => Element::U32,
            "i4" => Element::I32,
            "u8" => Element::U64,
            "i8" => Element::I64,
            "f2" => Element::F16,
            "f4" => Element::F32,
            "f8" => Element::F64,
            _ => {
                let advice = "save boolean, integer or real numbers";
                return Err(self.source.refused("a type that is not a real number", advice));
            }
        };
        match order {
            "<" => Ok((element, false)),
            ">" => Ok((element, true)),
            "|" if element.bytes() == 1 => Ok((element, false)),
            _ => Err(self.broken("a byte order")),
        }
    }
}

/// The bytes of a row-major `.npy` file; `descr` names the type of the little-endian `data`.
pub(crate) fn encode(descr: &str, shape: &[usize], data: &[u8]) -> Vec<u8> {
    // A tuple of one side keeps its comma.
    let sides = shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let sides = if shape.len() == 1 { sides + "," } else { sides };
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({sides}), }}");
    // Magic, version, length, header and a line feed fill a multiple of 64 bytes.
    let padding = 64 - (MAGIC.len() + 4 + header.len() + 1) % 64;
    header.push_str(&" ".repeat(padding % 64));
    header.push('\n');
    let mut bytes = MAGIC.to_vec();
    bytes.extend([1, 0]);
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// [`encode`] for single-precision values.
pub(crate) fn encode_floats(shape: &[usize], values: &[f32]) -> Vec<u8> {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    encode("<f4", shape, &data)
}

/// Reads a real `.npy` array: its shape and its values in row-major order, rounded to single precision.
///
/// At most `limit` values are read.
///
/// # Errors
///
/// When the file cannot be read, is no array of real numbers, or is larger than allowed.
pub fn read(path: &Path, limit: u64) -> Result<(Vec<usize>, Vec<f32>), DataError> {
    let file = super::file_name(path);
    let (header, mut source) = open(path, &file, limit)?;
    let values = source.floats(&header)?;
    Ok((header.shape, values))
}

/// Opens an array of at most `limit` values and reads its header.
fn open<'a>(path: &Path, file: &'a str, limit: u64) -> Result<(Header, Source<'a, std::fs::File>), DataError> {
    let reader = std::fs::File::open(path).map_err(DataError::reading(file))?;
    let remaining = reader.metadata().map_err(DataError::reading(file))?.len();
    let mut source = Source { file, array: file, reader, remaining };
    let header = source.header()?;
    DataError::check_limit(file, "values", limit, header.shape.iter().product::<usize>() as u64)?;
    Ok((header, source))
}

/// An array in the element type of its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Array {
    /// NumPy's name of the element type: `bool`, `uint8`, ..., `float64`.
    pub element: &'static str,
    /// Shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// Little-endian elements in row-major order.
    pub bytes: Vec<u8>,
}

/// Reads a `.npy` array of at most `limit` values as it is stored.
///
/// # Errors
///
/// As [`read`].
pub fn read_array(path: &Path, limit: u64) -> Result<Array, DataError> {
    let file = super::file_name(path);
    let (header, mut source) = open(path, &file, limit)?;
    let size = header.element.bytes();
    let mut stored = Vec::with_capacity(source.remaining as usize);
    source.each(&header, |bytes| {
        stored.extend(&bytes[..size]);
        Ok(())
    })?;
    let bytes = if header.fortran_order {
        let places: Vec<usize> = (0..stored.len() / size).collect();
        to_row_major(&places, &header.shape)
            .iter()
            .flat_map(|&place| &stored[place * size..][..size])
            .copied()
            .collect()
    } else {
        stored
    };
    Ok(Array { element: header.element.name(), shape: header.shape, bytes })
}

/// Writes an array as a `.npy` file of its own element type, under a temporary name until it is complete.
///
/// # Errors
///
/// When the element type is unknown, the bytes do not fill the shape, the file exists or cannot be written.
pub fn write_array(path: &Path, array: &Array) -> Result<(), DataError> {
    let element = Element::ALL.into_iter().find(|element| element.name() == array.element);
    let element = element.ok_or_else(|| nocebo_core::Error::mismatch("element type", "one of NumPy", array.element))?;
    let count = array.shape.iter().try_fold(element.bytes(), |product, &side| product.checked_mul(side));
    if count != Some(array.bytes.len()) || array.shape.len() > DIMENSIONS {
        let expected = format!("{:?} of {}", array.shape, element.name());
        return Err(nocebo_core::Error::mismatch("bytes of the array", expected, array.bytes.len()).into());
    }
    super::write_new_file(path, |writer| writer.write_all(&encode(&element.descr(), &array.shape, &array.bytes)))
}

/// Writes `values` (row-major) as a single-precision `.npy` file, under a temporary name until it is complete.
///
/// # Errors
///
/// When the values do not fill `shape`, the file exists or cannot be written.
pub fn write(path: &Path, shape: &[usize], values: &[f32]) -> Result<(), DataError> {
    let expected = shape.iter().try_fold(1usize, |product, &side| product.checked_mul(side));
    if expected != Some(values.len()) || shape.len() > DIMENSIONS {
        return Err(nocebo_core::Error::mismatch("values of the array", format!("{shape:?}"), values.len()).into());
    }
    super::write_new_file(path, |writer| writer.write_all(&encode_floats(shape, values)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(version: u8, header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([version, 0]);
        match version {
            1 => bytes.extend((header.len() as u16).to_le_bytes()),
            _ => bytes.extend((header.len() as u32).to_le_bytes()),
        }
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    fn source(bytes: &[u8]) -> Source<'_, &[u8]> {
        Source { file: "test.npz", array: "a", reader: bytes, remaining: bytes.len() as u64 }
    }

    fn floats(bytes: &[u8]) -> Result<(Vec<usize>, Vec<f32>), DataError> {
        let mut source = source(bytes);
        let header = source.header()?;
        let values = source.floats(&header)?;
        Ok((header.shape, values))
    }

    fn simple(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        array(1, &format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n"), data)
    }

    #[test]
    fn every_type_and_byte_order_is_read() {
        let cases: [(&str, &[u8], f32); 14] = [
            ("|b1", &[1], 1.0),
            ("|u1", &[200], 200.0),
            ("|i1", &[0xff], -1.0),
            ("<u2", &[0xff, 0x0f], 4095.0),
            (">u2", &[0x0f, 0xff], 4095.0),
            (">i2", &[0xff, 0xfe], -2.0),
            ("<i4", &[0xfd, 0xff, 0xff, 0xff], -3.0),
            (">u4", &[0, 1, 0, 0], 65536.0),
            ("<i8", &[1, 0, 0, 0, 0, 0, 0, 0], 1.0),
            (">u8", &[0, 0, 0, 0, 0, 0, 1, 0], 256.0),
            ("<f2", &[0x00, 0xc1], -2.5),
            (">f4", &[0x40, 0x49, 0x0f, 0xdb], std::f32::consts::PI),
            ("<f8", &[0, 0, 0, 0, 0, 0, 0xe0, 0x3f], 0.5),
            ("<f2", &[0x01, 0x00], 5.960_464_5e-8),
        ];
        for (descr, data, expected) in cases {
            assert_eq!(floats(&simple(descr, "(1,)", data)).unwrap(), (vec![1], vec![expected]), "{descr}");
        }
        assert!(floats(&simple("<f2", "(1,)", &[0x00, 0x7c])).unwrap().1[0].is_infinite());
        assert!(floats(&simple("<f2", "(1,)", &[0x01, 0x7c])).unwrap().1[0].is_nan());
    }

    #[test]
    fn versions_two_and_three_quotes_and_spaces_are_read() {
        for version in [2, 3] {
            let header = "{\"shape\":(2 , 1),  'fortran_order':False,'descr':'|u1'}   \n";
            assert_eq!(floats(&array(version, header, &[5, 6])).unwrap(), (vec![2, 1], vec![5.0, 6.0]));
        }
    }

    #[test]
    fn fortran_order_becomes_row_major() {
        let header = "{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3), }";
        // Columns (0, 3), (1, 4), (2, 5) are the matrix 0 1 2 / 3 4 5.
        let (shape, values) = floats(&array(1, header, &[0, 3, 1, 4, 2, 5])).unwrap();
        assert_eq!((shape, values), (vec![2, 3], vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]));
    }

    #[test]
    fn scalars_and_empty_arrays_have_their_shape() {
        assert_eq!(floats(&simple("|u1", "()", &[9])).unwrap(), (vec![], vec![9.0]));
        assert_eq!(floats(&simple("<f4", "(0, 7)", &[])).unwrap(), (vec![0, 7], vec![]));
    }

    #[test]
    fn objects_structures_and_other_types_are_refused_without_reading_them() {
        for descr in ["|O", "<O8", "<c8", "<U5", "|S3", "<M8[ns]", "|V4"] {
            let error = floats(&simple(descr, "(1,)", b"cos\nsystem\n")).unwrap_err();
            assert!(matches!(error, DataError::Refused { .. }), "{descr}: {error}");
        }
        let header = "{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (1,), }";
        assert!(matches!(floats(&array(1, header, &[0; 4])), Err(DataError::Refused { .. })));
    }

    #[test]
    fn headers_that_are_wrong_or_lie_are_refused() {
        let long = array(2, &" ".repeat(70_000), &[]);
        assert!(matches!(floats(&long), Err(DataError::TooLarge { .. })));
        let mut huge = array(2, "{", &[]);
        huge[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(floats(&huge), Err(DataError::TooLarge { .. })));
        let bad = [
            simple("|u1", "(2,)", &[1]),
            simple("|u1", "(1,)", &[1, 2]),
            simple("|u1", "(18446744073709551615, 2)", &[1]),
            simple("|u1", "(99999999999999999999999,)", &[1]),
            simple("|u1", "(-1,)", &[1]),
            simple("|u1", "(1, 1, 1, 1, 1, 1, 1, 1, 1)", &[1]),
            simple("=u2", "(1,)", &[1, 0]),
            simple("|u2", "(1,)", &[1, 0]),
            array(9, "{}", &[]),
            array(1, "{}", &[]),
            array(1, "{'descr': '|u1', 'descr': '|u1', 'fortran_order': False, 'shape': ()}", &[1]),
            array(1, "{'descr': '|u1', 'fortran_order': 0, 'shape': ()}", &[1]),
            array(1, "{'descr': '|u1', 'fortran_order': False, 'shape': ()} x", &[1]),
            array(1, "{'descr': '|u1', 'fortran_order': False, 'shape': (), 'x': 1}", &[1]),
            b"plain text".to_vec(),
            vec![],
        ];
        for bytes in bad {
            assert!(matches!(floats(&bytes), Err(DataError::Format { .. })), "{}", String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn float_labels_are_refused_and_integers_keep_64_bits() {
        let bytes = simple("<f4", "(1,)", &[0; 4]);
        let mut reader = source(&bytes);
        let header = reader.header().unwrap();
        assert!(reader.integers(&header).is_err());
        let bytes = simple("<u8", "(1,)", &[0xff; 8]);
        let mut reader = source(&bytes);
        let header = reader.header().unwrap();
        assert_eq!(reader.integers(&header).unwrap(), [i128::from(u64::MAX)]);
    }

    #[test]
    fn arrays_keep_their_element_type() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npy");
        for element in Element::ALL {
            let bytes =
                (0..6 * element.bytes() as u8).map(|byte| if element == Element::Bool { byte % 2 } else { byte });
            let array = Array { element: element.name(), shape: vec![2, 3], bytes: bytes.collect() };
            write_array(&path, &array).unwrap();
            assert_eq!(read_array(&path, 6).unwrap(), array);
            std::fs::remove_file(&path).unwrap();
        }
        let header = "{'descr': '>u2', 'fortran_order': True, 'shape': (2, 2), }";
        std::fs::write(&path, array(1, header, &[0, 1, 0, 2, 0, 3, 0, 4])).unwrap();
        assert_eq!(read_array(&path, 4).unwrap().bytes, [1, 0, 3, 0, 2, 0, 4, 0]);
        let other = folder.path().join("y.npy");
        let wrong = |element, shape: &[usize]| Array { element, shape: shape.to_vec(), bytes: vec![0; 4] };
        assert!(write_array(&other, &wrong("complex64", &[1])).is_err());
        assert!(write_array(&other, &wrong("float32", &[2])).is_err());
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npy");
        for shape in [vec![6], vec![2, 3], vec![1, 2, 3]] {
            let values = [0.5, -1.0, 2.0, 3.25, -0.0, 1e-30];
            write(&path, &shape, &values).unwrap();
            assert_eq!(read(&path, 100).unwrap(), (shape, values.to_vec()));
            assert_eq!(std::fs::metadata(&path).unwrap().len() % 64, 24);
            assert!(matches!(write(&path, &[6], &values), Err(DataError::Exists { .. })));
            assert!(matches!(read(&path, 5), Err(DataError::TooLarge { .. })));
            std::fs::remove_file(&path).unwrap();
        }
    }
}
