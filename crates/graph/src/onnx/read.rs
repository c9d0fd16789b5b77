//! From ONNX to a graph.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use prost::Message;
use prost::bytes::Bytes;

use super::messages::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, attribute_type,
};
use super::{NEWEST_OPSET, tensors};
use crate::operators::{Attribute, Operator, Source};
use crate::{Dimension, ElementType, Error, Graph, Input, Node, OperatorError, Tensor};

/// Largest file that is read: protobuf itself ends at 2 GiB.
const LARGEST_FILE: u64 = 1 << 31;

/// Most messages in a file. A message of two bytes takes some hundred in memory, so they are counted before decoding.
const MOST_MESSAGES: usize = 1 << 20;

/// Reads a model.
///
/// # Errors
///
/// [`Error::File`] when the file cannot be read, is something else than ONNX, or is damaged; [`Error::Node`] for an operator
/// that is unknown or wrongly described; [`Error::Graph`] for cycles and missing or double names.
pub fn read(path: &Path) -> Result<Graph, Error> {
    read_or_all_problems(path).map_err(|mut problems| problems.swap_remove(0))
}

/// Reads a model as [`read`] does, but names every node that cannot be read instead of the first alone.
///
/// # Errors
///
/// As [`read`]; the list is never empty.
pub fn read_or_all_problems(path: &Path) -> Result<Graph, Vec<Error>> {
    let bytes = read_file(path).map_err(|error| vec![error])?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    decode_model(bytes, Some(folder)).map_err(|problem| problem.at(path))
}

/// Reads a model from memory; it may not have external data.
///
/// # Errors
///
/// As [`read`].
pub fn read_bytes(bytes: &[u8]) -> Result<Graph, Error> {
    let graph = decode_model(Bytes::copy_from_slice(bytes), None);
    graph.map_err(|problem| problem.at(Path::new("model in memory")).swap_remove(0))
}

/// Reads a single tensor (`TensorProto`, the `.pb` files of ONNX's own tests).
///
/// # Errors
///
/// [`Error::File`] when the file cannot be read or does not hold a tensor.
pub fn read_tensor(path: &Path) -> Result<Tensor, Error> {
    let bytes = read_file(path)?;
    let proto = TensorProto::decode(bytes).map_err(|error| Error::file(path, format!("not a tensor: {error}")))?;
    tensors::decode(&proto, None).map_err(|reason| Error::file(path, reason))
}

fn read_file(path: &Path) -> Result<Bytes, Error> {
    let failed = |error: std::io::Error| Error::file(path, error);
    let mut options = File::options();
    options.read(true);
    // Opening a pipe would wait for ever for somebody who writes into it.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    let mut file = options.open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(Error::file(path, "not a plain file"));
    }
    if metadata.len() > LARGEST_FILE {
        return Err(Error::file(
            path,
            format!("expected at most {LARGEST_FILE} bytes, got {}; keep the weights as external data", metadata.len()),
        ));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    Read::by_ref(&mut file).take(LARGEST_FILE).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes.into())
}

/// Errors (at least one), or a reason that still lacks the name of the file.
enum Problem {
    Whole(Vec<Error>),
    File(String),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::Whole(vec![error])
    }
}

impl Problem {
    fn at(self, path: &Path) -> Vec<Error> {
        match self {
            Self::Whole(errors) => errors,
            Self::File(reason) => vec![Error::file(path, reason)],
        }
    }
}

fn decode_model(bytes: Bytes, folder: Option<&Path>) -> Result<Graph, Problem> {
    if let Some(other) = other_format(&bytes) {
        return Err(Problem::File(other.into()));
    }
    let damaged = |reason: String| Problem::File(format!("not an ONNX model, or a damaged one: {reason}"));
    let messages = count_messages(&bytes, Kind::Model, 0).map_err(|reason| damaged(reason.into()))?;
    if messages > MOST_MESSAGES {
        return Err(damaged(format!("expected at most {MOST_MESSAGES} messages, got {messages}")));
    }
    let model = ModelProto::decode(bytes).map_err(|error| damaged(error.to_string()))?;
    let Some(graph) = model.graph else { return Err(damaged("there is no graph in it".into())) };
    if !model.functions.is_empty() {
        let names: Vec<&str> = model.functions.iter().take(3).map(|function| function.name.as_str()).collect();
        return Err(Problem::File(format!(
            "functions defined in the model ({}, ...) are not supported; export it with functions inlined",
            names.join(", ")
        )));
    }
    let mut opset = None;
    for import in &model.opset_import {
        if import.domain.is_empty() || import.domain == "ai.onnx" {
            opset = Some(import.version);
        }
    }
    let opset = opset.unwrap_or(1);
    if !(1..=NEWEST_OPSET).contains(&opset) {
        return Err(Problem::File(format!(
            "expected an opset in 1..={NEWEST_OPSET}, got {opset}; export the model with an older opset"
        )));
    }
    let mut result = decode_graph(graph, opset, folder)?;
    result.metadata = model.metadata_props.into_iter().map(|entry| (entry.key, entry.value)).collect();
    Ok(result)
}

/// What a file is that is certainly not ONNX, and what to do.
fn other_format(bytes: &[u8]) -> Option<&'static str> {
    let starts = |magic: &[u8]| bytes.starts_with(magic);
    if bytes.is_empty() {
        return Some("the file is empty");
    }
    if starts(b"PK\x03\x04") {
        return Some(
            "this is a zip archive, perhaps a PyTorch checkpoint (.pt) or TorchScript; convert the network with torch.onnx.export in the environment that made it",
        );
    }
    if bytes.len() > 2 && bytes[0] == 0x80 && (2..=5).contains(&bytes[1]) {
        return Some(
            "this is a Python pickle, which could run any code when opened; convert the network with torch.onnx.export in the environment that made it",
        );
    }
    if starts(b"\x89HDF\r\n\x1a\n") {
        return Some("this is an HDF5 file, perhaps a Keras model; convert it with tf2onnx");
    }
    if bytes.get(4..8) == Some(b"TFL3") {
        return Some("this is a TensorFlow Lite model; convert it with tf2onnx");
    }
    if starts(b"\x1f\x8b") {
        return Some("this file is compressed with gzip; unpack it first");
    }
    if bytes.len() > 9 && bytes[8] == b'{' && u64::from_le_bytes(bytes[..8].try_into().ok()?) < bytes.len() as u64 {
        return Some("this is a safetensors file: weights without a network");
    }
    let head = &bytes[..bytes.len().min(512)];
    if head.iter().all(|&byte| matches!(byte, b'\t' | b'\n' | b'\r' | 0x20..=0x7e | 0x80..))
        && std::str::from_utf8(head).is_ok()
    {
        return Some(
            "this is a text file, not an ONNX model; if it came by git, the model itself may not have been fetched (git lfs pull)",
        );
    }
    None
}

/// Messages whose number is counted before they are decoded.
#[derive(Clone, Copy)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Value,
    Type,
    TensorType,
    Shape,
    Leaf,
}

impl Kind {
    /// The kind of message in a field; `None` for bytes and text.
    fn field(self, number: u64) -> Option<Self> {
        match (self, number) {
            (Self::Model, 7) | (Self::Attribute, 6 | 11) => Some(Self::Graph),
            (Self::Graph, 1) => Some(Self::Node),
            (Self::Graph, 11..=13) => Some(Self::Value),
            (Self::Node, 5) => Some(Self::Attribute),
            (Self::Value, 2) => Some(Self::Type),
            (Self::Type, 1) => Some(Self::TensorType),
            (Self::TensorType, 2) => Some(Self::Shape),
            (Self::Model, 8 | 14 | 20 | 25)
            | (Self::Graph, 5 | 15)
            | (Self::Node, 1 | 2)
            | (Self::Attribute, 5 | 9 | 10)
            | (Self::Shape, 1) => Some(Self::Leaf),
            _ => None,
        }
    }
}

/// Walks over the fields of a message without decoding it.
fn count_messages(mut bytes: &[u8], kind: Kind, depth: usize) -> Result<usize, &'static str> {
    if depth > 64 {
        return Err("messages are nested more than 64 deep");
    }
    let mut count = 0;
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        match key & 7 {
            0 => drop(varint(&mut bytes)?),
            1 => bytes = bytes.get(8..).ok_or(CUT)?,
            5 => bytes = bytes.get(4..).ok_or(CUT)?,
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).map_err(|_| CUT)?;
                let (part, rest) = bytes.split_at_checked(length).ok_or(CUT)?;
                bytes = rest;
                if let Some(inner) = kind.field(key >> 3) {
                    count += 1;
                    if !matches!(inner, Kind::Leaf) {
                        count += count_messages(part, inner, depth + 1)?;
                    }
                    if count > MOST_MESSAGES {
                        return Ok(count);
                    }
                }
            }
            _ => return Err("it holds a field of unknown kind"),
        }
    }
    Ok(count)
}

const CUT: &str = "it ends in the middle of a field";

fn varint(bytes: &mut &[u8]) -> Result<u64, &'static str> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(CUT)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err("a number is longer than 10 bytes")
}

fn decode_graph(proto: GraphProto, opset: i64, folder: Option<&Path>) -> Result<Graph, Problem> {
    if !proto.sparse_initializer.is_empty() {
        return Err(Error::graph("constants of the model", "dense tensors", "a sparse tensor").into());
    }
    let mut graph = Graph { name: proto.name, ..Graph::default() };
    for tensor in &proto.initializer {
        let value = tensors::decode(tensor, folder)
            .map_err(|reason| Error::graph(format!("constant `{}`", tensor.name), "a readable tensor", reason))?;
        if tensor.name.is_empty() || graph.constants.insert(tensor.name.clone(), Arc::new(value)).is_some() {
            return Err(
                Error::graph("names of constants", "each once and not empty", format!("`{}`", tensor.name)).into()
            );
        }
    }
    // Before version 4 of the format constants were inputs, too.
    for input in proto.input.iter().filter(|input| !graph.constants.contains_key(&input.name)) {
        graph.inputs.push(decode_input(input)?);
    }
    graph.outputs = proto.output.into_iter().map(|output| output.name).collect();
    let mut names = Names::new(&proto.node);
    let mut problems = Vec::new();
    for (index, node) in proto.node.into_iter().enumerate() {
        problems.extend(decode_node(node, index, opset, folder, &mut graph, &mut names).err());
    }
    if !problems.is_empty() {
        return Err(Problem::Whole(problems));
    }
    graph.sort()?;
    graph.check()?;
    graph.prune();
    Ok(graph)
}

fn decode_input(input: &ValueInfoProto) -> Result<Input, Error> {
    let failed = |expected: &str, got: &str| Error::graph(format!("input `{}`", input.name), expected, got);
    let kind = input.kind.as_ref().and_then(|kind| kind.tensor.as_ref());
    let kind = kind.ok_or_else(|| failed("a tensor", "a sequence, map, optional or nothing"))?;
    let element = ElementType::from_onnx(kind.element)
        .ok_or_else(|| failed("numbers or truth values", &format!("the element type numbered {}", kind.element)))?;
    let dimension = |dimension: &DimensionProto| match (dimension.value, &dimension.parameter) {
        (Some(value), _) if value > 0 => Dimension::Fixed(value as usize),
        (_, Some(name)) => Dimension::Symbolic(name.clone()),
        // 0 and -1 stand for an unknown size in files of older exporters.
        _ => Dimension::Symbolic(String::new()),
    };
    let shape = kind.shape.as_ref().map(|shape| shape.dim.iter().map(dimension).collect());
    Ok(Input { name: input.name.clone(), shape, element })
}

/// Unique names for nodes that have none, or one that another node has.
struct Names {
    taken: HashSet<String>,
    given: HashSet<String>,
    /// Least number that was not tried yet, so that many names in the way cost no more than one try each.
    next: usize,
}

impl Names {
    fn new(nodes: &[NodeProto]) -> Self {
        let given = nodes.iter().map(|node| node.name.clone()).filter(|name| !name.is_empty()).collect();
        Self { taken: HashSet::new(), given, next: 0 }
    }

    fn unique(&mut self, node: &NodeProto, index: usize) -> String {
        if !node.name.is_empty() && self.taken.insert(node.name.clone()) {
            return node.name.clone();
        }
        self.next = self.next.max(index);
        loop {
            let name = format!("{}_{}", node.op_type, self.next);
            self.next += 1;
            if !self.given.contains(&name) && self.taken.insert(name.clone()) {
                return name;
            }
        }
    }
}

fn decode_node(
    node: NodeProto,
    index: usize,
    opset: i64,
    folder: Option<&Path>,
    graph: &mut Graph,
    names: &mut Names,
) -> Result<(), Error> {
    let name = names.unique(&node, index);
    let failed = |reason: OperatorError| Error::Node {
        node: name.clone(),
        operator: node.op_type.clone(),
        reason: Box::new(reason),
    };
    if !node.domain.is_empty() && node.domain != "ai.onnx" {
        return Err(failed(OperatorError::unsupported(format!("an operator of the domain `{}`", node.domain))));
    }
    let mut attributes = BTreeMap::new();
    for attribute in &node.attribute {
        let value = decode_attribute(attribute, folder).map_err(failed)?;
        if attributes.insert(attribute.name.clone(), value).is_some() {
            return Err(failed(OperatorError::attribute(&attribute.name, "given once", "two values")));
        }
    }
    if node.op_type == "Constant" {
        let output = node.output.first().cloned().unwrap_or_default();
        let value = constant(attributes).map_err(failed)?;
        if output.is_empty() || graph.constants.insert(output.clone(), Arc::new(value)).is_some() {
            return Err(failed(OperatorError::mismatch(
                "the output of a constant",
                "a name of its own",
                format!("`{output}`"),
            )));
        }
        return Ok(());
    }
    let mut source =
        Source { operator: &node.op_type, opset, attributes, new_inputs: Vec::new(), moved_inputs: Vec::new() };
    let operator = Operator::read(&mut source).map_err(failed)?;
    let Some(operator) = operator else {
        let what = format!(
            "the operator `{}` of opset {opset} (replace it by supported operators and export again)",
            node.op_type
        );
        return Err(failed(OperatorError::unsupported(what)));
    };
    if let Some(unknown) = source.attributes.keys().next() {
        return Err(failed(OperatorError::attribute(unknown, "an attribute that nocebo knows", "this one")));
    }
    let (new_inputs, moved_inputs) = (source.new_inputs, source.moved_inputs);
    let mut inputs = node.input;
    let put = |inputs: &mut Vec<String>, position: usize, name: String| {
        if inputs.len() <= position {
            inputs.resize(position + 1, String::new());
        }
        inputs[position] = name;
    };
    for (from, to) in moved_inputs {
        if let Some(moved) = inputs.get_mut(from).map(std::mem::take) {
            put(&mut inputs, to, moved);
        }
    }
    for (position, tensor) in new_inputs {
        let mut constant = format!("{name}/input_{position}");
        while graph.constants.contains_key(&constant) {
            constant.push('_');
        }
        graph.constants.insert(constant.clone(), Arc::new(tensor));
        put(&mut inputs, position, constant);
    }
    while inputs.last().is_some_and(String::is_empty) {
        inputs.pop();
    }
    let outputs = node.output;
    graph.nodes.push(Node { name, operator, inputs, outputs });
    Ok(())
}

fn decode_attribute(proto: &AttributeProto, folder: Option<&Path>) -> Result<Attribute, OperatorError> {
    let text = |bytes: &[u8]| {
        String::from_utf8(bytes.to_vec())
            .map_err(|_| OperatorError::attribute(&proto.name, "UTF-8 text", "other bytes"))
    };
    let missing = || OperatorError::attribute(&proto.name, "the value that its type announces", "none");
    // Before version 3 of the format the type was not written.
    let kind = match proto.kind {
        0 if proto.f.is_some() => attribute_type::FLOAT,
        0 if proto.i.is_some() => attribute_type::INT,
        0 if proto.s.is_some() => attribute_type::STRING,
        0 if proto.t.is_some() => attribute_type::TENSOR,
        0 if !proto.floats.is_empty() => attribute_type::FLOATS,
        0 if !proto.strings.is_empty() => attribute_type::STRINGS,
        0 => attribute_type::INTS,
        kind => kind,
    };
    Ok(match kind {
        // Protobuf leaves out zeros.
        attribute_type::FLOAT => Attribute::Float(proto.f.unwrap_or(0.0)),
        attribute_type::INT => Attribute::Integer(proto.i.unwrap_or(0)),
        attribute_type::STRING => Attribute::Text(text(proto.s.as_deref().unwrap_or_default())?),
        attribute_type::TENSOR => Attribute::Tensor(tensors::decode(proto.t.as_ref().ok_or_else(missing)?, folder)?),
        attribute_type::FLOATS => Attribute::Floats(proto.floats.clone()),
        attribute_type::INTS => Attribute::Integers(proto.ints.clone()),
        attribute_type::STRINGS => {
            Attribute::Texts(proto.strings.iter().map(|bytes| text(bytes)).collect::<Result<_, _>>()?)
        }
        attribute_type::GRAPH => return Err(OperatorError::unsupported("a node with a graph inside")),
        other => return Err(OperatorError::unsupported(format!("an attribute of the type numbered {other}"))),
    })
}

/// The value of a `Constant` node.
fn constant(mut attributes: BTreeMap<String, Attribute>) -> Result<Tensor, OperatorError> {
    let only = attributes.pop_first().filter(|_| attributes.is_empty());
    let tensor = |shape: &[usize], element, values: Vec<i64>| Tensor::integers(shape, element, values);
    match only {
        Some((name, Attribute::Tensor(tensor))) if name == "value" => Ok(tensor),
        Some((name, Attribute::Float(value))) if name == "value_float" => Ok(Tensor::scalar(value)),
        Some((name, Attribute::Integer(value))) if name == "value_int" => tensor(&[], ElementType::I64, vec![value]),
        Some((name, Attribute::Floats(values))) if name == "value_floats" => Tensor::floats(&[values.len()], values),
        Some((name, Attribute::Integers(values))) if name == "value_ints" => Ok(Tensor::list(&values)),
        _ => Err(OperatorError::attribute("value", "one tensor, number or list of numbers", "something else")),
    }
}
