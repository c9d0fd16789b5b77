//! Weights from safetensors files, by name: files with our own names, or a PyTorch `state_dict` with a map of names.
//!
//! A file must hold every parameter and running statistic of the network, each in its shape, and nothing else, so that no
//! layer is left as it was by mistake. Pickled files can run any code when they are opened and are never parsed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::plan::changeable;
use crate::{Error, Graph, Tensor};

/// Largest file that is read: 8 GiB.
const MOST_BYTES: u64 = 1 << 33;

/// Names that are listed in a message.
const MOST_NAMES: usize = 8;

/// Counters that PyTorch keeps beside the statistics of batch norm; nothing here reads them.
const COUNTER: &str = "num_batches_tracked";

/// How names of a file become names of the network.
///
/// As JSON an object: `{"module.": "", "backbone.conv1": "conv1", "aux": null}`. The longest key that a name is equal to, or
/// begins with up to a full stop, is replaced by its value; `null` leaves the tensor out. Other names stay as they are.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct KeyMap(BTreeMap<String, Option<String>>);

impl KeyMap {
    /// Reads a JSON file.
    ///
    /// # Errors
    ///
    /// When it cannot be read or is not an object of texts and nulls.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|error| Error::file(path, error))?;
        serde_json::from_str(&text)
            .map_err(|error| Error::file(path, format!("a key map is a JSON object of texts and nulls: {error}")))
    }

    /// The network's name for a name of the file; `None` for what is left out.
    fn name(&self, theirs: &str) -> Option<String> {
        let fits = |key: &str| {
            theirs.strip_prefix(key).is_some_and(|rest| rest.is_empty() || key.ends_with('.') || rest.starts_with('.'))
        };
        match self.0.iter().filter(|(key, _)| fits(key)).max_by_key(|(key, _)| key.len()) {
            Some((key, ours)) => ours.as_ref().map(|ours| format!("{ours}{}", &theirs[key.len()..])),
            None => Some(theirs.to_owned()),
        }
    }
}

/// Fills the parameters and running statistics of `graph` from the safetensors file at `path`.
///
/// 16-, 32- and 64-bit floats are read and kept as 32-bit ones.
///
/// # Errors
///
/// [`Error::File`] when the file is of another format (pickled files and HDF5 with the way out), its header is damaged, a
/// tensor is missing, unknown, of another shape or not of floats, or holds NaN or infinity. `graph` is then unchanged.
pub fn load(graph: &mut Graph, path: &Path, keys: &KeyMap) -> Result<(), Error> {
    let length = std::fs::metadata(path).map_err(|error| Error::file(path, error))?.len();
    if length > MOST_BYTES {
        return Err(Error::file(path, format!("{length} bytes are more than the {MOST_BYTES} of the largest file")));
    }
    let bytes = std::fs::read(path).map_err(|error| Error::file(path, error))?;
    let found = tensors(&bytes, keys).map_err(|reason| Error::file(path, reason))?;
    let wanted = changeable(graph);
    let missing: Vec<&String> = wanted.iter().filter(|name| !found.contains_key(*name)).collect();
    let unknown: Vec<&String> = found.keys().filter(|name| !wanted.contains(*name)).collect();
    if !(missing.is_empty() && unknown.is_empty()) {
        let reason = format!(
            "weights do not fit `{}`: missing {}; unknown {}; a key map renames tensors or leaves them out",
            graph.name,
            listed(&missing),
            listed(&unknown)
        );
        return Err(Error::file(path, reason));
    }
    for (name, tensor) in &found {
        let shape = graph.constants[name].shape();
        if shape != tensor.shape() {
            let reason = format!("shape of `{name}`: expected {shape:?}, got {:?}", tensor.shape());
            return Err(Error::file(path, reason));
        }
    }
    graph.constants.extend(found.into_iter().map(|(name, tensor)| (name, Arc::new(tensor))));
    Ok(())
}

fn listed(names: &[&String]) -> String {
    let shown: Vec<&str> = names.iter().take(MOST_NAMES).map(|name| name.as_str()).collect();
    match names.len() {
        0 => "none".to_owned(),
        count if count > MOST_NAMES => format!("{} and {} more", shown.join(", "), count - MOST_NAMES),
        _ => shown.join(", "),
    }
}

/// All tensors of a file by the network's names.
fn tensors(bytes: &[u8], keys: &KeyMap) -> Result<BTreeMap<String, Tensor>, String> {
    if let Some(reason) = refusal(bytes) {
        return Err(reason);
    }
    // Sizes, overlaps, holes, and bytes that belong to nothing are refused in here.
    let file = SafeTensors::deserialize(bytes)
        .map_err(|error| format!("not a safetensors file, or a damaged one: {error}"))?;
    let (header, _) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
    let names: Names = serde_json::from_slice(&bytes[8..8 + header]).map_err(|error| error.to_string())?;
    if let Some(name) = names.twice {
        return Err(format!("tensor `{name}` stands twice in the header"));
    }
    let mut found = BTreeMap::new();
    for (theirs, view) in file.iter() {
        if theirs.rsplit('.').next() == Some(COUNTER) {
            continue;
        }
        let Some(name) = keys.name(theirs) else { continue };
        let data = view.data();
        let values: Vec<f32> = match view.dtype() {
            Dtype::F32 => data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            Dtype::F64 => data.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes) as f32).collect(),
            Dtype::F16 => data.as_chunks().0.iter().map(|bytes| half::f16::from_le_bytes(*bytes).to_f32()).collect(),
            Dtype::BF16 => data.as_chunks().0.iter().map(|bytes| half::bf16::from_le_bytes(*bytes).to_f32()).collect(),
            other => return Err(format!("tensor `{theirs}`: expected floats of 16, 32 or 64 bits, got {other}")),
        };
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            return Err(format!("tensor `{theirs}` holds {value}"));
        }
        let tensor = Tensor::floats(view.shape(), values).map_err(|error| format!("tensor `{theirs}`: {error}"))?;
        if found.insert(name.clone(), tensor).is_some() {
            return Err(format!("the key map makes `{name}` of two tensors, one of them `{theirs}`"));
        }
    }
    Ok(found)
}

/// Why a file of another format is not read, and what to do; told by its first bytes.
fn refusal(bytes: &[u8]) -> Option<String> {
    const WAY_OUT: &str = "where you trust the file, write its tensors as safetensors: python -c \"import torch, \
        safetensors.torch as s; s.save_file(torch.load('model.pt', weights_only=True), 'model.safetensors')\"";
    match bytes {
        [b'P', b'K', 3 | 5, 4 | 6, ..] => Some(format!(
            "a zip archive, as PyTorch writes .pt and .pth: the pickle in it (data.pkl) can run any code when it is opened, \
             so it is not read; {WAY_OUT}"
        )),
        [0x80, 0..=5, ..] if !is_header_length(bytes) => {
            Some(format!("a Python pickle, which can run any code when it is opened, so it is not read; {WAY_OUT}"))
        }
        [0x89, b'H', b'D', b'F', ..] => Some(
            "an HDF5 file, as Keras writes .h5: its layers can hold Python code, so it is not read; export the model as ONNX \
             (tf2onnx) or save its weights as safetensors"
                .to_owned(),
        ),
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => {
            Some("a NumPy array: weights need names; save them as safetensors (safetensors.numpy.save_file)".to_owned())
        }
        _ => None,
    }
}

/// Whether the file begins as safetensors does: 8 bytes of length, then a JSON object.
fn is_header_length(bytes: &[u8]) -> bool {
    bytes.get(6..9) == Some(&[0, 0, b'{'])
}

/// Names in a header: the first that stands in it twice, which a map would hide.
struct Names {
    twice: Option<String>,
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Names;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
                let (mut seen, mut twice) = (BTreeSet::new(), None);
                while let Some((name, _)) = map.next_entry::<String, IgnoredAny>()? {
                    if !seen.insert(name.clone()) {
                        twice.get_or_insert(name);
                    }
                }
                Ok(Names { twice })
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zoo::{self, Blueprint};
    use nocebo_core::{Domain, ModelSpec, Seed, Task};

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(data);
        bytes
    }

    fn network(seed: u64) -> Graph {
        let class_names = vec!["no".to_owned(), "yes".to_owned()];
        let task = Task::MultiClass { classes: 2 };
        let spec = ModelSpec { domain: Domain::grey_levels(&[1, 8, 8], 255.0).unwrap(), task, class_names };
        let blueprint = Blueprint { spec: &spec, mean: &[0.0], standard_deviation: &[1.0], seed: Seed(seed) };
        zoo::build("small-cnn", &blueprint).unwrap()
    }

    /// The weights of a network as a file, each name and value changed by `rename`, with others after them.
    fn saved(graph: &Graph, rename: impl Fn(&str) -> String, others: &[(&str, Dtype, Vec<usize>, usize)]) -> Vec<u8> {
        let mut entries: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = changeable(graph)
            .iter()
            .map(|name| {
                let tensor = &graph.constants[name];
                let bytes = tensor.to_f32().iter().flat_map(|value| value.to_le_bytes()).collect();
                (rename(name), Dtype::F32, tensor.shape().to_vec(), bytes)
            })
            .collect();
        entries.extend(
            others
                .iter()
                .map(|(name, dtype, shape, bytes)| ((*name).to_owned(), *dtype, shape.clone(), vec![0; *bytes])),
        );
        let views = entries.iter().map(|(name, dtype, shape, bytes)| {
            (name, safetensors::tensor::TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        safetensors::serialize(views, None).unwrap()
    }

    fn loaded(bytes: &[u8], keys: &str) -> Result<Graph, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.safetensors");
        std::fs::write(&path, bytes).unwrap();
        let mut graph = network(2);
        let before = graph.clone();
        let result = load(&mut graph, &path, &serde_json::from_str(keys).unwrap());
        match result {
            Ok(()) => Ok(graph),
            Err(error) => {
                assert_eq!(graph, before, "a refused file must change nothing");
                Err(error.to_string())
            }
        }
    }

    #[test]
    fn weights_come_back_by_name_and_by_map() {
        let graph = network(1);
        let own = saved(&graph, str::to_owned, &[]);
        assert_eq!(loaded(&own, "{}").unwrap(), graph);
        // A state_dict of a wrapped module with its counters and a head that is left out.
        let others =
            [("module.bn1.num_batches_tracked", Dtype::I64, vec![], 8), ("module.aux.weight", Dtype::F32, vec![2], 8)];
        let wrapped = saved(&graph, |name| format!("module.{name}").replace("module.fc.", "module.head."), &others);
        let keys = r#"{"module.": "", "module.head": "fc", "module.aux": null}"#;
        assert_eq!(loaded(&wrapped, keys).unwrap(), graph);
        assert!(loaded(&wrapped, r#"{"module.": "", "module.aux": null}"#).unwrap_err().contains("fc.bias, fc.weight"));
        assert!(
            loaded(&wrapped, r#"{"module.": "", "module.head": "fc"}"#).unwrap_err().contains("unknown aux.weight")
        );
        // "mod" is no part of "module" up to a full stop.
        assert!(loaded(&own, r#"{"conv": "c"}"#).is_ok());
        assert!(loaded(&own, r#"{"conv1": "conv2"}"#).unwrap_err().contains("`conv2.weight` of two tensors"));
    }

    #[test]
    fn shapes_and_types_must_fit() {
        let mut graph = network(1);
        let shape_before = graph.constants["fc.bias"].shape().to_vec();
        graph.constants.insert("fc.bias".into(), Arc::new(Tensor::floats(&[1, 2], vec![0.0; 2]).unwrap()));
        let error = loaded(&saved(&graph, str::to_owned, &[]), "{}").unwrap_err();
        assert!(error.contains("`fc.bias`: expected [2], got [1, 2]") && shape_before == [2], "{error}");
        let whole = saved(&network(1), str::to_owned, &[("steps", Dtype::I32, vec![2], 8)]);
        assert!(loaded(&whole, "{}").unwrap_err().contains("`steps`: expected floats"));
        let mut graph = network(1);
        graph.constants.insert("fc.bias".into(), Arc::new(Tensor::floats(&[2], vec![0.0, f32::NAN]).unwrap()));
        assert!(loaded(&saved(&graph, str::to_owned, &[]), "{}").unwrap_err().contains("`fc.bias` holds NaN"));
    }

    #[test]
    fn halves_and_doubles_are_read() {
        let header = r#"{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"F64","shape":[1],"data_offsets":[4,12]},"c":{"dtype":"BF16","shape":[1],"data_offsets":[12,14]}}"#;
        let mut data = Vec::new();
        data.extend(half::f16::from_f32(1.5).to_le_bytes());
        data.extend(half::f16::from_f32(-2.0).to_le_bytes());
        data.extend(0.25f64.to_le_bytes());
        data.extend(half::bf16::from_f32(3.0).to_le_bytes());
        let found = tensors(&file(header, &data), &KeyMap::default()).unwrap();
        let values: Vec<f32> = found.values().flat_map(|tensor| tensor.to_f32().into_owned()).collect();
        assert_eq!(values, [1.5, -2.0, 0.25, 3.0]);
    }

    #[test]
    fn files_of_other_formats_are_refused_with_the_way_out() {
        for (bytes, reason) in [
            (&b"PK\x03\x04 archive/data.pkl"[..], "data.pkl"),
            (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "pickle"),
            (b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00}\x94.", "pickle"),
            (b"\x89HDF\r\n\x1a\n", "HDF5"),
            (b"\x93NUMPY\x01\x00", "NumPy"),
        ] {
            let error = loaded(bytes, "{}").unwrap_err();
            assert!(error.contains(reason) && error.contains("safetensors"), "{error}");
        }
        // A header of 640 bytes begins with 0x80 0x02, as a pickle does.
        let header = format!("{{{}}}", " ".repeat(638));
        assert!(tensors(&file(&header, &[]), &KeyMap::default()).unwrap().is_empty());
    }

    #[test]
    fn damaged_headers_are_refused() {
        let tensor = |name: &str, from: usize, to: usize| {
            format!(r#""{name}":{{"dtype":"F32","shape":[{}],"data_offsets":[{from},{to}]}}"#, (to - from) / 4)
        };
        let two = |from: usize, to: usize| format!("{{{},{}}}", tensor("a", 0, 8), tensor("b", from, to));
        assert!(tensors(&file(&two(8, 16), &[0; 16]), &KeyMap::default()).is_ok());
        let huge = r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}}"#;
        for (what, bytes) in [
            ("empty", Vec::new()),
            ("length of 2^63", [&(1u64 << 63).to_le_bytes()[..], b"{}"].concat()),
            ("length beyond the end", [&100u64.to_le_bytes()[..], b"{}"].concat()),
            ("header of 100 MB and more", [&100_000_001u64.to_le_bytes()[..], b"{}"].concat()),
            ("overlap", file(&two(4, 12), &[0; 16])),
            ("hole", file(&two(12, 20), &[0; 20])),
            ("trailing bytes", file(&two(8, 16), &[0; 17])),
            ("missing bytes", file(&two(8, 16), &[0; 15])),
            ("type that does not fill the offsets", file(&two(8, 16).replacen("F32", "F64", 1), &[0; 16])),
            ("unknown type", file(&two(8, 16).replacen("F32", "F33", 1), &[0; 16])),
            ("shape that overflows", file(huge, &[0; 8])),
            ("deep JSON", file(&"[".repeat(100_000), &[])),
            ("not UTF-8", [&2u64.to_le_bytes()[..], b"\xff\xff"].concat()),
        ] {
            assert!(tensors(&bytes, &KeyMap::default()).is_err(), "{what}");
        }
        let twice = format!("{{{},{}}}", tensor("a", 0, 8), tensor("a", 0, 8));
        assert!(tensors(&file(&twice, &[0; 8]), &KeyMap::default()).unwrap_err().contains("twice"));
    }

    #[test]
    fn a_file_cut_anywhere_is_refused() {
        let bytes = saved(&network(1), str::to_owned, &[]);
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        for end in (0..header + 16).chain([bytes.len() - 1]) {
            assert!(tensors(&bytes[..end], &KeyMap::default()).is_err(), "{end}");
        }
    }
}
