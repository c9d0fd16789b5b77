//! From a graph to ONNX.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use prost::Message;

use super::messages::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto, attribute_type,
};
use super::{WRITTEN_OPSET, tensors};
use crate::operators::Fact;
use crate::operators::{Attribute, Target};
use crate::plan::Plan;
use crate::{Device, Dimension, ElementType, Error, Graph, Node, Tensor};

/// Newest opset that a model is written in.
const LAST_TRIED: i64 = 21;

/// Writes a model; a file of that name is replaced only when the new one is complete.
///
/// # Errors
///
/// As [`to_bytes`], and [`Error::File`] when the file cannot be written.
pub fn write(graph: &Graph, path: &Path) -> Result<(), Error> {
    replace_file(path, &to_bytes(graph)?)
}

/// Writes a single tensor (`TensorProto`).
///
/// # Errors
///
/// [`Error::File`] when the file cannot be written.
pub fn write_tensor(name: &str, tensor: &Tensor, path: &Path) -> Result<(), Error> {
    replace_file(path, &tensors::encode(name, tensor).encode_to_vec())
}

/// The bytes of an ONNX file with opset 17, or the least newer one that has all the operators.
///
/// # Errors
///
/// [`Error::Node`] for a node that cannot be said in that opset.
pub fn to_bytes(graph: &Graph) -> Result<Vec<u8>, Error> {
    graph.check()?;
    let least = graph.nodes.iter().map(|node| node.operator.least_opset()).fold(WRITTEN_OPSET, i64::max);
    let mut opset = least;
    let nodes = loop {
        let nodes: Result<Vec<NodeProto>, Error> =
            graph.nodes.iter().map(|node| encode_node(node, graph, opset)).collect();
        match nodes {
            Err(_) if opset < LAST_TRIED => opset += 1,
            nodes => break nodes?,
        }
    };
    let mut proto = GraphProto { name: graph.name.clone(), node: nodes, ..GraphProto::default() };
    if proto.name.is_empty() {
        "nocebo".clone_into(&mut proto.name);
    }
    let read: HashSet<&String> = proto.node.iter().flat_map(|node| &node.input).chain(&graph.outputs).collect();
    let constants = graph.constants.iter().filter(|(name, _)| read.contains(name));
    proto.initializer = constants.map(|(name, tensor)| tensors::encode(name, tensor)).collect();
    proto.input =
        graph.inputs.iter().map(|input| value_info(&input.name, input.element, input.shape.as_deref())).collect();
    let outputs = output_shapes(graph);
    for (index, name) in graph.outputs.iter().enumerate() {
        let (element, shape) = outputs.get(index).cloned().unwrap_or((ElementType::F32, None));
        proto.output.push(value_info(name, element, shape.as_deref()));
    }
    let model = ModelProto {
        // The version of the format that came with opset 17; readers of newer opsets take it, too.
        ir_version: 8,
        producer_name: "nocebo".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(proto),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: opset }],
        metadata_props: graph
            .metadata
            .iter()
            .map(|(key, value)| StringStringEntryProto { key: key.clone(), value: value.clone() })
            .collect(),
        functions: Vec::new(),
    };
    Ok(model.encode_to_vec())
}

fn encode_node(node: &Node, graph: &Graph, opset: i64) -> Result<NodeProto, Error> {
    let mut target = Target {
        opset,
        attributes: std::collections::BTreeMap::new(),
        inputs: node.inputs.clone(),
        outputs: node.outputs.len(),
        constants: &graph.constants,
    };
    node.operator.write(&mut target).map_err(|reason| node.error(reason))?;
    Ok(NodeProto {
        input: target.inputs,
        output: node.outputs.clone(),
        name: node.name.clone(),
        op_type: node.operator.name().into(),
        attribute: target.attributes.into_iter().map(|(name, value)| encode_attribute(name, value)).collect(),
        domain: String::new(),
    })
}

fn encode_attribute(name: String, value: Attribute) -> AttributeProto {
    let mut proto = AttributeProto { name, ..AttributeProto::default() };
    match value {
        Attribute::Integer(value) => (proto.kind, proto.i) = (attribute_type::INT, Some(value)),
        Attribute::Float(value) => (proto.kind, proto.f) = (attribute_type::FLOAT, Some(value)),
        Attribute::Text(value) => (proto.kind, proto.s) = (attribute_type::STRING, Some(value.into_bytes())),
        Attribute::Integers(values) => (proto.kind, proto.ints) = (attribute_type::INTS, values),
        Attribute::Floats(values) => (proto.kind, proto.floats) = (attribute_type::FLOATS, values),
        Attribute::Texts(values) => {
            (proto.kind, proto.strings) =
                (attribute_type::STRINGS, values.into_iter().map(String::into_bytes).collect());
        }
        Attribute::Tensor(value) => {
            (proto.kind, proto.t) = (attribute_type::TENSOR, Some(Box::new(tensors::encode("value", &value))));
        }
    }
    proto
}

fn value_info(name: &str, element: ElementType, shape: Option<&[Dimension]>) -> ValueInfoProto {
    let dimension = |dimension: &Dimension| match dimension {
        Dimension::Fixed(side) => DimensionProto { value: Some(*side as i64), parameter: None },
        Dimension::Symbolic(name) if name.is_empty() => DimensionProto::default(),
        Dimension::Symbolic(name) => DimensionProto { value: None, parameter: Some(name.clone()) },
    };
    let shape = shape.map(|shape| TensorShapeProto { dim: shape.iter().map(dimension).collect() });
    let tensor = TensorTypeProto { element: element.to_onnx(), shape };
    ValueInfoProto { name: name.into(), kind: Some(TypeProto { tensor: Some(tensor) }) }
}

/// Element type and shape of each output. Where the inputs have a free first side (the batch), outputs that grow with it
/// have it, too; shapes that cannot be told are left open.
fn output_shapes(graph: &Graph) -> Vec<(ElementType, Option<Vec<Dimension>>)> {
    let facts_for = |batch: usize| -> Option<Vec<Fact>> {
        let inputs = graph.inputs.iter().map(|input| {
            let shape = input.shape.as_ref()?.iter().enumerate().map(|(axis, dimension)| match dimension {
                Dimension::Fixed(side) => Some(*side),
                Dimension::Symbolic(_) if axis == 0 => Some(batch),
                Dimension::Symbolic(_) => None,
            });
            Some(Fact::new(input.element, shape.collect::<Option<_>>()?))
        });
        let plan = Plan::new(graph, &inputs.collect::<Option<Vec<_>>>()?, &Device::flex()).ok()?;
        graph.outputs.iter().map(|name| plan.facts.get(name).cloned()).collect()
    };
    let Some((two, three)) = facts_for(2).zip(facts_for(3)) else { return Vec::new() };
    let batch = graph
        .inputs
        .iter()
        .filter_map(|input| input.shape.as_ref()?.first())
        .find(|side| matches!(side, Dimension::Symbolic(_)));
    two.into_iter()
        .zip(three)
        .map(|(two, three)| {
            let shape =
                two.shape.zip(three.shape).filter(|(two, three)| two.len() == three.len()).map(|(two, three)| {
                    let side = |(two, three): (usize, usize)| match batch {
                        Some(batch) if two != three => batch.clone(),
                        _ if two != three => Dimension::Symbolic(String::new()),
                        _ => Dimension::Fixed(two),
                    };
                    two.into_iter().zip(three).map(side).collect()
                });
            (two.element, shape)
        })
        .collect()
}

/// Writes under a temporary name in the same folder, makes sure that the bytes are on the disk, and renames.
fn replace_file(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let failed = |error: std::io::Error| Error::file(path, error);
    let name = path.file_name().ok_or_else(|| Error::file(path, "not the name of a file"))?;
    let mut temporary = PathBuf::from(path);
    temporary.set_file_name(format!(".{}.{}.partial", name.to_string_lossy(), std::process::id()));
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    let renamed = written.and_then(|()| std::fs::rename(&temporary, path));
    if renamed.is_err() {
        // The first error is the one to report.
        drop(std::fs::remove_file(&temporary));
    }
    renamed.map_err(failed)
}
