//! Tensors on the host: constants of a graph, and every value that is not a float while a graph runs.

use std::borrow::Cow;

use half::{bf16, f16};

use crate::OperatorError;

/// Element type as ONNX declares it.
///
/// Floats of any width are computed in 32 bits on the device; the declared type decides how integers wrap, how a value is
/// written back to a file, and what [`Cast`](crate::operators::Cast) rounds to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ElementType {
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
    /// 16-bit IEEE float.
    F16,
    /// 16-bit brain float.
    BF16,
    /// 64-bit integer.
    I64,
    /// 32-bit integer.
    I32,
    /// 16-bit integer.
    I16,
    /// 8-bit integer.
    I8,
    /// 64-bit unsigned integer.
    U64,
    /// 32-bit unsigned integer.
    U32,
    /// 16-bit unsigned integer.
    U16,
    /// 8-bit unsigned integer.
    U8,
    /// Truth value.
    Bool,
}

impl ElementType {
    const CODES: [(Self, i32, &'static str, usize); 13] = [
        (Self::F32, 1, "float", 4),
        (Self::U8, 2, "uint8", 1),
        (Self::I8, 3, "int8", 1),
        (Self::U16, 4, "uint16", 2),
        (Self::I16, 5, "int16", 2),
        (Self::I32, 6, "int32", 4),
        (Self::I64, 7, "int64", 8),
        (Self::Bool, 9, "bool", 1),
        (Self::F16, 10, "float16", 2),
        (Self::F64, 11, "double", 8),
        (Self::U32, 12, "uint32", 4),
        (Self::U64, 13, "uint64", 8),
        (Self::BF16, 16, "bfloat16", 2),
    ];

    /// All types.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::CODES.into_iter().map(|row| row.0)
    }

    /// The type with this number in `TensorProto.DataType`, if it is one that nocebo can hold.
    pub fn from_onnx(code: i32) -> Option<Self> {
        Self::CODES.iter().find(|row| row.1 == code).map(|row| row.0)
    }

    /// Number in `TensorProto.DataType`.
    pub fn to_onnx(self) -> i32 {
        self.row().1
    }

    /// Name in ONNX (`float`, `int64`, ...).
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// Bytes of one element in a file.
    pub fn size(self) -> usize {
        self.row().3
    }

    /// Whether it is a float of any width.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64 | Self::F16 | Self::BF16)
    }

    /// Whether it is an integer of any width, signed or not.
    pub fn is_integer(self) -> bool {
        !self.is_float() && self != Self::Bool
    }

    /// Least and greatest integer of the type; `None` for floats and truth values.
    pub fn integer_range(self) -> Option<(i64, i64)> {
        Some(match self {
            Self::I64 => (i64::MIN, i64::MAX),
            Self::I32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
            Self::I16 => (i64::from(i16::MIN), i64::from(i16::MAX)),
            Self::I8 => (i64::from(i8::MIN), i64::from(i8::MAX)),
            Self::U64 => (0, i64::MAX),
            Self::U32 => (0, i64::from(u32::MAX)),
            Self::U16 => (0, i64::from(u16::MAX)),
            Self::U8 => (0, i64::from(u8::MAX)),
            _ => return None,
        })
    }

    /// `value` wrapped around into the range of an integer type.
    pub(crate) fn wrap(self, value: i64) -> i64 {
        match self {
            Self::I32 => i64::from(value as i32),
            Self::I16 => i64::from(value as i16),
            Self::I8 => i64::from(value as i8),
            Self::U32 => i64::from(value as u32),
            Self::U16 => i64::from(value as u16),
            Self::U8 => i64::from(value as u8),
            _ => value,
        }
    }

    fn row(self) -> &'static (Self, i32, &'static str, usize) {
        Self::CODES.iter().find(|row| row.0 == self).unwrap_or(&Self::CODES[0])
    }
}

impl std::fmt::Display for ElementType {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Elements of a [`Tensor`], row by row, in the widest type of their kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// `float`, `float16` and `bfloat16`.
    F32(Vec<f32>),
    /// `double`.
    F64(Vec<f64>),
    /// Integers of any width; `uint64` values above 2^63 keep their bits.
    Integer(Vec<i64>),
    /// Truth values.
    Bool(Vec<bool>),
}

impl Data {
    fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F64(values) => values.len(),
            Self::Integer(values) => values.len(),
            Self::Bool(values) => values.len(),
        }
    }
}

/// A tensor on the host with its ONNX element type.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    element: ElementType,
    data: Data,
}

impl Tensor {
    /// A tensor of `shape` (empty for a scalar), row by row.
    ///
    /// # Errors
    ///
    /// When the data do not fill the shape or are not of the kind that `element` asks for.
    pub fn new(shape: &[usize], element: ElementType, data: Data) -> Result<Self, OperatorError> {
        let elements = elements(shape)?;
        if data.len() != elements {
            return Err(OperatorError::mismatch("number of values of a tensor", elements, data.len()));
        }
        let fits = match &data {
            Data::F32(_) => element.is_float() && element != ElementType::F64,
            Data::F64(_) => element == ElementType::F64,
            Data::Integer(_) => element.is_integer(),
            Data::Bool(_) => element == ElementType::Bool,
        };
        if !fits {
            return Err(OperatorError::mismatch("kind of a tensor's values", element, "values of another kind"));
        }
        Ok(Self { shape: shape.to_vec(), element, data })
    }

    /// A `float` tensor.
    ///
    /// # Errors
    ///
    /// When the values do not fill the shape.
    pub fn floats(shape: &[usize], values: Vec<f32>) -> Result<Self, OperatorError> {
        Self::new(shape, ElementType::F32, Data::F32(values))
    }

    /// An `int64` list.
    pub fn list(values: &[i64]) -> Self {
        Self { shape: vec![values.len()], element: ElementType::I64, data: Data::Integer(values.to_vec()) }
    }

    /// A `float` scalar.
    pub fn scalar(value: f32) -> Self {
        Self { shape: Vec::new(), element: ElementType::F32, data: Data::F32(vec![value]) }
    }

    /// An `int64` scalar.
    pub fn integer(value: i64) -> Self {
        Self { shape: Vec::new(), element: ElementType::I64, data: Data::Integer(vec![value]) }
    }

    /// Integers of type `element`, each wrapped into its range.
    ///
    /// # Errors
    ///
    /// When the values do not fill the shape or `element` is not an integer type.
    pub(crate) fn integers(shape: &[usize], element: ElementType, mut values: Vec<i64>) -> Result<Self, OperatorError> {
        for value in &mut values {
            *value = element.wrap(*value);
        }
        Self::new(shape, element, Data::Integer(values))
    }

    /// Truth values.
    ///
    /// # Errors
    ///
    /// When the values do not fill the shape.
    pub(crate) fn booleans(shape: &[usize], values: Vec<bool>) -> Result<Self, OperatorError> {
        Self::new(shape, ElementType::Bool, Data::Bool(values))
    }

    /// A tensor from little-endian bytes, row by row.
    ///
    /// # Errors
    ///
    /// When the bytes do not fill the shape.
    pub fn from_bytes(shape: &[usize], element: ElementType, bytes: &[u8]) -> Result<Self, OperatorError> {
        let wanted = elements(shape)?.saturating_mul(element.size());
        if wanted != bytes.len() {
            return Err(OperatorError::mismatch("bytes of a tensor", wanted, bytes.len()));
        }
        /// Little-endian values of a fixed size.
        macro_rules! values {
            ($type:ty, $convert:expr) => {
                bytes
                    .as_chunks::<{ size_of::<$type>() }>()
                    .0
                    .iter()
                    .map(|value| $convert(<$type>::from_le_bytes(*value)))
                    .collect()
            };
        }
        let data = match element {
            ElementType::F32 => Data::F32(values!(f32, |value| value)),
            ElementType::F64 => Data::F64(values!(f64, |value| value)),
            ElementType::F16 => Data::F32(values!(u16, |bits| f16::from_bits(bits).to_f32())),
            ElementType::BF16 => Data::F32(values!(u16, |bits| bf16::from_bits(bits).to_f32())),
            ElementType::I64 => Data::Integer(values!(i64, |value| value)),
            ElementType::U64 => Data::Integer(values!(u64, |value| value as i64)),
            ElementType::I32 => Data::Integer(values!(i32, i64::from)),
            ElementType::U32 => Data::Integer(values!(u32, i64::from)),
            ElementType::I16 => Data::Integer(values!(i16, i64::from)),
            ElementType::U16 => Data::Integer(values!(u16, i64::from)),
            ElementType::I8 => Data::Integer(values!(i8, i64::from)),
            ElementType::U8 => Data::Integer(values!(u8, i64::from)),
            ElementType::Bool => Data::Bool(bytes.iter().map(|&byte| byte != 0).collect()),
        };
        Self::new(shape, element, data)
    }

    /// The elements as little-endian bytes, row by row.
    pub fn to_bytes(&self) -> Vec<u8> {
        /// Little-endian bytes of values.
        macro_rules! bytes {
            ($values:expr, $convert:expr) => {
                $values.iter().flat_map(|&value| $convert(value).to_le_bytes()).collect::<Vec<u8>>()
            };
        }
        match (&self.data, self.element) {
            (Data::F32(values), ElementType::F16) => bytes!(values, |value| f16::from_f32(value).to_bits()),
            (Data::F32(values), ElementType::BF16) => bytes!(values, |value| bf16::from_f32(value).to_bits()),
            (Data::F32(values), _) => bytes!(values, |value: f32| value),
            (Data::F64(values), _) => bytes!(values, |value: f64| value),
            (Data::Integer(values), ElementType::I32 | ElementType::U32) => bytes!(values, |value| value as i32),
            (Data::Integer(values), ElementType::I16 | ElementType::U16) => bytes!(values, |value| value as i16),
            (Data::Integer(values), ElementType::I8 | ElementType::U8) => bytes!(values, |value| value as i8),
            (Data::Integer(values), _) => bytes!(values, |value: i64| value),
            (Data::Bool(values), _) => values.iter().map(|&value| u8::from(value)).collect(),
        }
    }

    /// Shape, empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Element type as declared.
    pub fn element(&self) -> ElementType {
        self.element
    }

    /// The elements.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same elements in another shape.
    ///
    /// # Errors
    ///
    /// When the shapes hold different numbers of elements.
    pub fn reshaped(mut self, shape: &[usize]) -> Result<Self, OperatorError> {
        if elements(shape)? != self.len() {
            return Err(OperatorError::mismatch(
                "number of elements of a reshaped tensor",
                self.len(),
                format!("{shape:?}"),
            ));
        }
        self.shape = shape.to_vec();
        Ok(self)
    }

    /// All elements as 32-bit floats; truth becomes 1.
    pub fn to_f32(&self) -> Cow<'_, [f32]> {
        match &self.data {
            Data::F32(values) => Cow::Borrowed(values),
            Data::F64(values) => values.iter().map(|&value| value as f32).collect(),
            Data::Integer(values) => values.iter().map(|&value| value as f32).collect(),
            Data::Bool(values) => values.iter().map(|&value| f32::from(u8::from(value))).collect(),
        }
    }

    /// All elements as 64-bit floats; truth becomes 1.
    pub fn to_f64(&self) -> Cow<'_, [f64]> {
        match &self.data {
            Data::F32(values) => values.iter().map(|&value| f64::from(value)).collect(),
            Data::F64(values) => Cow::Borrowed(values),
            Data::Integer(values) => values.iter().map(|&value| value as f64).collect(),
            Data::Bool(values) => values.iter().map(|&value| f64::from(u8::from(value))).collect(),
        }
    }

    /// All elements as integers; floats are cut towards zero, truth becomes 1.
    pub fn to_i64(&self) -> Cow<'_, [i64]> {
        match &self.data {
            Data::F32(values) => values.iter().map(|&value| value as i64).collect(),
            Data::F64(values) => values.iter().map(|&value| value as i64).collect(),
            Data::Integer(values) => Cow::Borrowed(values),
            Data::Bool(values) => values.iter().map(|&value| i64::from(value)).collect(),
        }
    }

    /// All elements as truth values; anything but 0 is true.
    pub fn to_bool(&self) -> Cow<'_, [bool]> {
        match &self.data {
            Data::F32(values) => values.iter().map(|&value| value != 0.0).collect(),
            Data::F64(values) => values.iter().map(|&value| value != 0.0).collect(),
            Data::Integer(values) => values.iter().map(|&value| value != 0).collect(),
            Data::Bool(values) => Cow::Borrowed(values),
        }
    }

    /// The same values as another element type, as ONNX `Cast` has it: floats are cut towards zero and integers wrap.
    pub fn cast(&self, element: ElementType) -> Self {
        let data = match element {
            ElementType::F64 => Data::F64(self.to_f64().into_owned()),
            ElementType::F32 => Data::F32(self.to_f32().into_owned()),
            ElementType::F16 => Data::F32(self.to_f32().iter().map(|&value| f16::from_f32(value).to_f32()).collect()),
            ElementType::BF16 => Data::F32(self.to_f32().iter().map(|&value| bf16::from_f32(value).to_f32()).collect()),
            ElementType::Bool => Data::Bool(self.to_bool().into_owned()),
            _ => Data::Integer(self.to_i64().iter().map(|&value| element.wrap(value)).collect()),
        };
        Self { shape: self.shape.clone(), element, data }
    }

    /// The elements at the given flat positions, in a new shape.
    ///
    /// # Panics
    ///
    /// When a position is outside, or their number does not fill the shape; callers check both.
    pub(crate) fn pick(&self, shape: &[usize], positions: impl Iterator<Item = usize>) -> Self {
        let data = match &self.data {
            Data::F32(values) => Data::F32(positions.map(|position| values[position]).collect()),
            Data::F64(values) => Data::F64(positions.map(|position| values[position]).collect()),
            Data::Integer(values) => Data::Integer(positions.map(|position| values[position]).collect()),
            Data::Bool(values) => Data::Bool(positions.map(|position| values[position]).collect()),
        };
        assert_eq!(data.len(), shape.iter().product::<usize>(), "picked elements must fill the shape");
        Self { shape: shape.to_vec(), element: self.element, data }
    }
}

/// Number of elements of a shape.
///
/// # Errors
///
/// When its [`room`] is more than a tensor can have.
pub(crate) fn elements(shape: &[usize]) -> Result<usize, OperatorError> {
    if room(shape) > MOST_ELEMENTS {
        let most = format!("at most {MOST_ELEMENTS} elements");
        return Err(OperatorError::mismatch("size of a tensor", most, format!("{shape:?}")));
    }
    Ok(shape.iter().product())
}

/// Elements of a shape where a side of 0 counts as 1, which a sum over it makes of it.
pub(crate) fn room(shape: &[usize]) -> usize {
    shape.iter().fold(1, |product, &side| product.saturating_mul(side.max(1)))
}

/// Most elements of one tensor: 2^31, 8 GiB of 32-bit floats. Anything larger is taken for a damaged file.
pub(crate) const MOST_ELEMENTS: usize = 1 << 31;

/// Steps between neighbours along each axis of a row-by-row tensor.
pub(crate) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (0..shape.len().saturating_sub(1)).rev() {
        strides[axis] = strides[axis + 1] * shape[axis + 1];
    }
    strides
}

/// Flat positions in a tensor with the given strides, in row order of `shape`; the first stands at `offset`.
///
/// A stride of 0 repeats (broadcasts) an axis, a negative one walks it backwards.
pub(crate) fn positions(shape: &[usize], strides: &[isize], offset: usize) -> Vec<usize> {
    let total: usize = shape.iter().product();
    let mut result = Vec::with_capacity(total);
    if total == 0 {
        return result;
    }
    let mut index = vec![0usize; shape.len()];
    let mut position = offset as isize;
    loop {
        result.push(position as usize);
        let mut axis = shape.len();
        loop {
            if axis == 0 {
                return result;
            }
            axis -= 1;
            index[axis] += 1;
            position += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            position -= strides[axis] * shape[axis] as isize;
            index[axis] = 0;
        }
    }
}

/// Strides that let a tensor of shape `from` be read as if it had shape `to` (the usual broadcasting).
///
/// # Panics
///
/// When `from` has more axes than `to`; [`broadcast`] has checked that.
pub(crate) fn broadcast_strides(from: &[usize], to: &[usize]) -> Vec<isize> {
    let own = strides(from);
    let missing = to.len() - from.len();
    (0..to.len())
        .map(|axis| if axis < missing || from[axis - missing] == 1 { 0 } else { own[axis - missing] as isize })
        .collect()
}

/// The shape to which all of `shapes` are broadcast.
///
/// # Errors
///
/// When two sides differ and neither is 1.
pub(crate) fn broadcast(shapes: &[&[usize]]) -> Result<Vec<usize>, OperatorError> {
    let rank = shapes.iter().map(|shape| shape.len()).max().unwrap_or(0);
    let mut result = vec![1; rank];
    for shape in shapes {
        let missing = rank - shape.len();
        for (axis, &side) in shape.iter().enumerate() {
            let target = &mut result[axis + missing];
            if *target == 1 {
                *target = side;
            } else if side != 1 && side != *target {
                return Err(OperatorError::mismatch(
                    "shapes of the inputs",
                    "shapes that broadcast",
                    format!("{shapes:?}"),
                ));
            }
        }
    }
    elements(&result)?;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_little_endian_and_fill_the_shape() {
        let tensor = Tensor::integers(&[2], ElementType::I16, vec![-2, 258]).unwrap();
        assert_eq!(tensor.to_bytes(), [0xfe, 0xff, 2, 1]);
        for element in ElementType::all() {
            let tensor = tensor.cast(element);
            assert_eq!(Tensor::from_bytes(&[2], element, &tensor.to_bytes()).unwrap(), tensor, "{element}");
        }
        assert!(Tensor::from_bytes(&[2], ElementType::I16, &[0; 3]).is_err());
    }

    #[test]
    fn a_tensor_must_be_filled_by_values_of_its_kind() {
        assert!(Tensor::floats(&[2, 3], vec![0.0; 6]).is_ok());
        assert!(Tensor::floats(&[2, 3], vec![0.0; 5]).is_err());
        assert!(Tensor::new(&[1], ElementType::I64, Data::F32(vec![0.0])).is_err());
        assert!(Tensor::floats(&[1 << 40, 1 << 40], vec![]).is_err());
    }

    #[test]
    fn casts_cut_floats_and_wrap_integers() {
        let tensor = Tensor::floats(&[3], vec![-1.7, 2.9, 300.0]).unwrap();
        assert_eq!(tensor.cast(ElementType::I64).to_i64().as_ref(), [-1, 2, 300]);
        assert_eq!(tensor.cast(ElementType::U8).to_i64().as_ref(), [255, 2, 44]);
        assert_eq!(Tensor::scalar(0.1).cast(ElementType::F16).to_f32().as_ref(), [0.099_975_586]);
    }

    #[test]
    fn broadcasting_follows_the_last_axes() {
        assert_eq!(broadcast(&[&[2, 1, 4], &[3, 1]]).unwrap(), [2, 3, 4]);
        assert!(broadcast(&[&[2], &[3]]).is_err());
        assert_eq!(positions(&[2, 3], &broadcast_strides(&[3], &[2, 3]), 0), [0, 1, 2, 0, 1, 2]);
        assert_eq!(positions(&[2, 0], &[0, 1], 0), [0usize; 0]);
    }
}
