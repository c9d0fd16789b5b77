//! Tensors in ONNX's encoding.

use std::collections::BTreeMap;
use std::ffi::OsStr;
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
    let listed = [
        proto.float_data.len(),
        proto.int32_data.len(),
        proto.int64_data.len(),
        proto.double_data.len(),
        proto.uint64_data.len(),
    ];
    let raw = proto.raw_data.as_ref().is_some_and(|raw| !raw.is_empty());
    let places = [proto.data_location == EXTERNAL, raw, listed.iter().any(|&values| values > 0)];
    if places.iter().filter(|&&place| place).count() > 1 {
        return Err(OperatorError::mismatch("values of a tensor", "one place that holds them", "several"));
    }
    if proto.data_location == EXTERNAL {
        let bytes = external(proto, count.saturating_mul(element.size()), folder)?;
        return Tensor::from_bytes(&shape, element, &bytes);
    }
    match &proto.raw_data {
        Some(raw) => Tensor::from_bytes(&shape, element, raw),
        None => Tensor::new(&shape, element, from_fields(proto, element, count)?),
    }
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
    let parts: Option<Vec<&OsStr>> = Path::new(location)
        .components()
        .filter(|part| *part != Component::CurDir)
        .map(|part| if let Component::Normal(name) = part { Some(name) } else { None })
        .collect();
    let Some(parts) = parts.filter(|parts| !parts.is_empty() && !location.contains('\\')) else {
        return Err(refuse("a path that is absolute, empty or leaves the folder"));
    };
    let mut file = open_below(folder, &parts).map_err(|error| refuse(&error.to_string()))?;
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

/// Opens a file below `folder`, from directory to directory, following no link and waiting for no pipe.
#[cfg(unix)]
fn open_below(folder: &Path, parts: &[&OsStr]) -> std::io::Result<File> {
    use rustix::fs::{Mode, OFlags, open, openat};
    let plain = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut place = open(folder, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECTORY, Mode::empty())?;
    for (index, part) in parts.iter().enumerate() {
        let kind = if index + 1 < parts.len() { OFlags::DIRECTORY } else { OFlags::empty() };
        place = openat(&place, *part, plain | kind, Mode::empty()).map_err(|error| match error {
            rustix::io::Errno::LOOP => std::io::Error::other("a symbolic link"),
            error => error.into(),
        })?;
    }
    Ok(place.into())
}

/// Opens a file below `folder` after a look at every part of the path.
#[cfg(not(unix))]
fn open_below(folder: &Path, parts: &[&OsStr]) -> std::io::Result<File> {
    let mut path = folder.to_path_buf();
    for part in parts {
        path.push(part);
        if std::fs::symlink_metadata(&path)?.file_type().is_symlink() {
            return Err(std::io::Error::other("a symbolic link"));
        }
    }
    File::open(&path)
}

/// Encodes a tensor as raw bytes.
pub(super) fn encode(name: &str, tensor: &Tensor) -> TensorProto {
    TensorProto {
        dims: tensor.shape().iter().map(|&side| side as i64).collect(),
        data_type: tensor.element().to_onnx(),
        name: name.to_owned(),
        raw_data: Some(tensor.to_bytes().into()),
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
    fn values_have_one_place() {
        let mut proto = encode("x", &Tensor::scalar(1.0));
        proto.float_data = vec![1.0];
        assert!(decode(&proto, None).unwrap_err().to_string().contains("one place"));
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
            // A link on the way, and a pipe, on which opening would wait for ever.
            std::os::unix::fs::symlink(folder.path(), inside.join("folder")).unwrap();
            assert!(proto("folder/secret", &[]).is_err());
            rustix::fs::mknodat(
                rustix::fs::CWD,
                inside.join("pipe"),
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::RUSR,
                0,
            )
            .unwrap();
            assert!(proto("pipe", &[]).unwrap_err().to_string().contains("not a plain file"));
        }
    }
}
