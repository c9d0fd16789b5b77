//! Tensors in ONNX's encoding.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path};

use half::{bf16, f16};
use prost::bytes::Bytes;

use super::messages::{EXTERNAL, TensorProto};
use crate::tensor::{Data, elements};
use crate::{ElementType, OperatorError, Tensor};

/// Decodes a tensor; `folder` is where external data may lie, `None` where there may be none.
pub(super) fn decode(proto: &TensorProto, folder: Option<&Path>) -> Result<Tensor, OperatorError> {
    let element = ElementType::from_onnx(proto.data_type)
        .ok_or_else(|| OperatorError::unsupported(format!("the element type numbered {}", proto.data_type)))?;
    if proto.segment.is_some() {
        return Err(OperatorError::unsupported("a tensor in segments"));
    }
    let shape: Vec<usize> =
        proto.dims.iter().map(|&side| usize::try_from(side).ok()).collect::<Option<_>>().ok_or_else(|| {
            OperatorError::mismatch("shape of a tensor", "sides of at least 0", format!("{:?}", proto.dims))
        })?;
    let count = elements(&shape)?;
    let data = if proto.data_location == EXTERNAL {
        from_raw(&external(proto, count.saturating_mul(element.size()), folder)?, element, count)?
    } else if let Some(raw) = &proto.raw_data {
        from_raw(raw, element, count)?
    } else {
        from_fields(proto, element, count)?
    };
    Tensor::new(&shape, element, data)
}

fn wrong_length(count: usize, got: usize) -> OperatorError {
    OperatorError::mismatch("number of values of a tensor", count, got)
}

fn from_fields(proto: &TensorProto, element: ElementType, count: usize) -> Result<Data, OperatorError> {
    let ints = || proto.int32_data.iter().map(|&value| i64::from(value));
    let data = match element {
        ElementType::F32 => Data::F32(proto.float_data.clone()),
        ElementType::F64 => Data::F64(proto.double_data.clone()),
        ElementType::F16 => {
            Data::F32(proto.int32_data.iter().map(|&bits| f16::from_bits(bits as u16).to_f32()).collect())
        }
        ElementType::BF16 => {
            Data::F32(proto.int32_data.iter().map(|&bits| bf16::from_bits(bits as u16).to_f32()).collect())
        }
        ElementType::I64 => Data::Integer(proto.int64_data.clone()),
        ElementType::U64 | ElementType::U32 => {
            Data::Integer(proto.uint64_data.iter().map(|&value| value as i64).collect())
        }
        ElementType::Bool => Data::Bool(ints().map(|value| value != 0).collect()),
        _ => Data::Integer(ints().map(|value| element.wrap(value)).collect()),
    };
    let got = match &data {
        Data::F32(values) => values.len(),
        Data::F64(values) => values.len(),
        Data::Integer(values) => values.len(),
        Data::Bool(values) => values.len(),
    };
    if got == count { Ok(data) } else { Err(wrong_length(count, got)) }
}

fn from_raw(raw: &[u8], element: ElementType, count: usize) -> Result<Data, OperatorError> {
    let size = element.size();
    if count.checked_mul(size) != Some(raw.len()) {
        return Err(OperatorError::mismatch("bytes of a tensor", count.saturating_mul(size), raw.len()));
    }
    /// Little-endian values of a fixed size.
    macro_rules! values {
        ($type:ty, $convert:expr) => {
            raw.as_chunks::<{ size_of::<$type>() }>()
                .0
                .iter()
                .map(|bytes| $convert(<$type>::from_le_bytes(*bytes)))
                .collect()
        };
    }
    Ok(match element {
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
        ElementType::Bool => Data::Bool(raw.iter().map(|&byte| byte != 0).collect()),
    })
}

/// Reads external data of `wanted` bytes.
///
/// The file must lie in the model's folder or below it, be a plain file, and be reached through no link: neither symbolic
/// (any part of the path) nor hard. Otherwise a model from elsewhere could read any file of its user.
fn external(proto: &TensorProto, wanted: usize, folder: Option<&Path>) -> Result<Bytes, OperatorError> {
    let entries: BTreeMap<&str, &str> =
        proto.external_data.iter().map(|entry| (entry.key.as_str(), entry.value.as_str())).collect();
    let location = entries.get("location").copied().unwrap_or_default();
    let refuse = |why: &str| {
        OperatorError::mismatch(format!("external data `{location}`"), "a plain file in the model's folder", why)
    };
    let folder = folder.ok_or_else(|| refuse("a model that was not read from a file"))?;
    let relative = Path::new(location);
    let plain = !location.is_empty()
        && relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !plain || location.contains('\\') {
        return Err(refuse("a path that is absolute, empty or leaves the folder"));
    }
    let mut path = folder.to_path_buf();
    for part in relative.components() {
        path.push(part);
        let metadata = std::fs::symlink_metadata(&path).map_err(|error| refuse(&error.to_string()))?;
        if metadata.file_type().is_symlink() {
            return Err(refuse("a symbolic link"));
        }
    }
    let mut file = File::open(&path).map_err(|error| refuse(&error.to_string()))?;
    let metadata = file.metadata().map_err(|error| refuse(&error.to_string()))?;
    if !metadata.is_file() {
        return Err(refuse("something that is not a plain file"));
    }
    #[cfg(unix)]
    if std::os::unix::fs::MetadataExt::nlink(&metadata) > 1 {
        return Err(refuse("a file with several hard links; copy it"));
    }
    let number = |key: &str| -> Result<Option<u64>, OperatorError> {
        entries
            .get(key)
            .map(|text| text.parse().map_err(|_| refuse(&format!("{key} `{text}`, which is no count"))))
            .transpose()
    };
    let offset = number("offset")?.unwrap_or(0);
    let available = metadata.len().saturating_sub(offset);
    let length = number("length")?.unwrap_or(wanted as u64);
    if length != wanted as u64 || length > available {
        return Err(OperatorError::mismatch(
            format!("bytes of external data `{location}`"),
            wanted,
            length.min(available),
        ));
    }
    file.seek(SeekFrom::Start(offset)).map_err(|error| refuse(&error.to_string()))?;
    let mut bytes = Vec::with_capacity(wanted);
    file.take(length).read_to_end(&mut bytes).map_err(|error| refuse(&error.to_string()))?;
    Ok(bytes.into())
}

/// Encodes a tensor as raw bytes.
pub(super) fn encode(name: &str, tensor: &Tensor) -> TensorProto {
    /// Little-endian bytes of values.
    macro_rules! bytes {
        ($values:expr, $convert:expr) => {
            $values.iter().flat_map(|&value| $convert(value).to_le_bytes()).collect::<Vec<u8>>()
        };
    }
    let element = tensor.element();
    let raw = match (tensor.data(), element) {
        (Data::F32(values), ElementType::F16) => bytes!(values, |value| f16::from_f32(value).to_bits()),
        (Data::F32(values), ElementType::BF16) => bytes!(values, |value| bf16::from_f32(value).to_bits()),
        (Data::F32(values), _) => bytes!(values, |value: f32| value),
        (Data::F64(values), _) => bytes!(values, |value: f64| value),
        (Data::Integer(values), ElementType::I32 | ElementType::U32) => bytes!(values, |value| value as i32),
        (Data::Integer(values), ElementType::I16 | ElementType::U16) => bytes!(values, |value| value as i16),
        (Data::Integer(values), ElementType::I8 | ElementType::U8) => bytes!(values, |value| value as i8),
        (Data::Integer(values), _) => bytes!(values, |value: i64| value),
        (Data::Bool(values), _) => values.iter().map(|&value| u8::from(value)).collect(),
    };
    TensorProto {
        dims: tensor.shape().iter().map(|&side| side as i64).collect(),
        data_type: element.to_onnx(),
        name: name.to_owned(),
        raw_data: Some(raw.into()),
        ..TensorProto::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_type_survives_encoding() {
        let floats = Tensor::floats(&[2], vec![1.5, -0.25]).unwrap();
        let types = [
            ElementType::F32,
            ElementType::F64,
            ElementType::F16,
            ElementType::BF16,
            ElementType::I64,
            ElementType::I32,
            ElementType::I16,
            ElementType::I8,
            ElementType::U64,
            ElementType::U32,
            ElementType::U16,
            ElementType::U8,
            ElementType::Bool,
        ];
        for element in types {
            let tensor = floats.cast(element);
            assert_eq!(decode(&encode("x", &tensor), None).unwrap(), tensor, "{element}");
        }
    }

    #[test]
    fn sizes_are_checked_before_anything_is_allocated() {
        let mut proto = encode("x", &Tensor::scalar(1.0));
        proto.dims = vec![1 << 40];
        assert!(decode(&proto, None).is_err());
        proto.dims = vec![-1];
        assert!(decode(&proto, None).is_err());
        proto.dims = vec![2];
        assert!(decode(&proto, None).is_err());
    }

    #[test]
    fn external_data_stay_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("model");
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(folder.path().join("secret"), [0u8; 8]).unwrap();
        std::fs::write(inside.join("weights"), 1.5f32.to_le_bytes().repeat(2)).unwrap();
        let proto = |location: &str, extra: &[(&str, &str)]| {
            let mut proto = encode("x", &Tensor::floats(&[2], vec![0.0; 2]).unwrap());
            proto.raw_data = None;
            proto.data_location = EXTERNAL;
            let entries = [("location", location)].into_iter().chain(extra.iter().copied());
            proto.external_data = entries
                .map(|(key, value)| super::super::messages::StringStringEntryProto {
                    key: key.into(),
                    value: value.into(),
                })
                .collect();
            decode(&proto, Some(&inside))
        };
        assert_eq!(proto("weights", &[]).unwrap().to_f32().as_ref(), [1.5, 1.5]);
        assert_eq!(proto("./weights", &[("offset", "0"), ("length", "8")]).unwrap().len(), 2);
        for location in ["../secret", "", "/etc/hostname", "a/../../secret", "..\\secret", "missing", "."] {
            assert!(proto(location, &[]).is_err(), "{location}");
        }
        for extra in [("offset", "4"), ("length", "1125899906842624"), ("offset", "-1"), ("length", "4")] {
            assert!(proto("weights", &[extra]).is_err(), "{extra:?}");
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(folder.path().join("secret"), inside.join("link")).unwrap();
            assert!(proto("link", &[]).unwrap_err().to_string().contains("symbolic link"));
            std::fs::hard_link(folder.path().join("secret"), inside.join("hard")).unwrap();
            assert!(proto("hard", &[]).unwrap_err().to_string().contains("hard links"));
        }
    }
}
