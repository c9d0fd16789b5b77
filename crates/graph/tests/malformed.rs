//! Files that are damaged, hostile or something else: each gives an error, none a panic or an allocation beyond reason.

#![expect(clippy::unwrap_used, reason = "what cannot be read or computed is a failed test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use nocebo_graph::operators::{
    Activation, Arithmetic, ConstantOfShape, Convolution, Expand, Gemm, Pad, PadMode, Pool, PoolKind, Reshape, Resize,
    ResizeMode, Tile,
};
use nocebo_graph::{Device, Executor, Graph, Input, Node, Tensor, onnx};
use proptest::prelude::*;

fn node(name: &str, operator: impl Into<nocebo_graph::operators::Operator>, inputs: &[&str], output: &str) -> Node {
    let inputs = inputs.iter().map(|&name| name.to_owned()).collect();
    Node { name: name.into(), operator: operator.into(), inputs, outputs: vec![output.into()] }
}

/// A convolution, a pool and a head, with metadata.
fn small() -> Graph {
    let tensor = |shape: &[usize]| {
        let count = shape.iter().product::<usize>();
        Arc::new(Tensor::floats(shape, (0..count).map(|value| value as f32 * 0.1 - 1.0).collect()).unwrap())
    };
    Graph {
        name: "small".into(),
        inputs: vec![Input::batch("image", &[1, 6, 6])],
        outputs: vec!["logits".into()],
        nodes: vec![
            node("conv", Convolution::new(2, 1, 1), &["image", "kernels"], "a"),
            node("relu", Activation::Relu, &["a"], "b"),
            node("pool", Pool::new(PoolKind::Max, 2, 2, 2, 0), &["b"], "c"),
            node("flat", Reshape { allow_zero: false }, &["c", "shape"], "d"),
            node("head", Gemm { transpose_b: true, ..Gemm::default() }, &["d", "weights", "bias"], "logits"),
        ],
        constants: BTreeMap::from([
            ("kernels".into(), tensor(&[2, 1, 3, 3])),
            ("shape".into(), Arc::new(Tensor::list(&[0, -1]))),
            ("weights".into(), tensor(&[3, 18])),
            ("bias".into(), tensor(&[3])),
        ]),
        metadata: BTreeMap::from([("unit".into(), "grey level".into())]),
    }
}

fn image() -> Tensor {
    Tensor::floats(&[2, 1, 6, 6], (0..72).map(|value| value as f32 * 0.01).collect()).unwrap()
}

#[test]
fn what_is_written_is_read_again() {
    let graph = small();
    let again = onnx::read_bytes(&onnx::to_bytes(&graph).unwrap()).unwrap();
    assert_eq!(again, graph);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.onnx");
    onnx::write(&graph, &path).unwrap();
    assert_eq!(onnx::read(&path).unwrap(), graph);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    assert!(onnx::write(&graph, &folder.path().join("missing/small.onnx")).is_err());
}

#[test]
fn a_file_that_ends_early_is_an_error_at_every_byte() {
    let bytes = onnx::to_bytes(&small()).unwrap();
    let whole = onnx::read_bytes(&bytes).unwrap();
    for end in 0..bytes.len() {
        // A cut between two fields may leave a model: then without metadata or opset, which come last.
        if let Ok(graph) = onnx::read_bytes(&bytes[..end]) {
            assert_eq!(graph.nodes.len(), whole.nodes.len(), "cut at byte {end}");
        }
    }
}

#[test]
fn other_formats_are_named_with_advice() {
    for (bytes, word) in [
        (&b""[..], "empty"),
        (b"PK\x03\x04rest", "zip"),
        (b"\x80\x04\x95rest of a pickle", "pickle"),
        (b"\x89HDF\r\n\x1a\nrest", "HDF5"),
        (b"version https://git-lfs.github.com/spec/v1\n", "text"),
        (b"\x1f\x8b\x08rest", "gzip"),
        (b"\x1c\x00\x00\x00TFL3rest", "TensorFlow Lite"),
        (b"\x02\x00\x00\x00\x00\x00\x00\x00{}rest", "safetensors"),
        (b"\xff\xfe\xfd\xfc", "ONNX"),
    ] {
        let message = onnx::read_bytes(bytes).unwrap_err().to_string();
        assert!(message.contains(word), "{message}");
    }
    assert!(onnx::read(Path::new("does-not-exist.onnx")).is_err());
    assert!(onnx::read(Path::new(".")).unwrap_err().to_string().contains("plain file"));
}

#[test]
fn shapes_that_would_fill_the_memory_are_refused_before_they_are_made() {
    let huge = |operator: nocebo_graph::operators::Operator, inputs: &[(&str, Tensor)], x: bool| {
        let mut names: Vec<&str> = if x { vec!["x"] } else { vec![] };
        names.extend(inputs.iter().map(|(name, _)| *name));
        let graph = Graph {
            inputs: vec![Input::batch("x", &[1, 4, 4])],
            outputs: vec!["y".into()],
            nodes: vec![node("huge", operator, &names, "y")],
            constants: inputs.iter().map(|(name, tensor)| ((*name).to_owned(), Arc::new(tensor.clone()))).collect(),
            ..Graph::default()
        };
        let message =
            Executor::new(graph, &Device::flex()).unwrap().facts(&[vec![1, 1, 4, 4]]).unwrap_err().to_string();
        assert!(message.contains("`huge`"), "{message}");
    };
    let list = |values: &[i64]| Tensor::list(values);
    huge(ConstantOfShape { value: Tensor::scalar(0.0) }.into(), &[("shape", list(&[1 << 18, 1 << 18]))], false);
    huge(Expand.into(), &[("shape", list(&[1 << 20, 1 << 20, 1, 1, 1, 1]))], true);
    huge(Tile.into(), &[("repeats", list(&[i64::MAX, i64::MAX, 2, 2]))], true);
    huge(Pad { mode: PadMode::Edge }.into(), &[("pads", list(&[0, 0, 1 << 30, 1 << 30, 0, 0, 0, 0]))], true);
    huge(Reshape { allow_zero: false }.into(), &[("shape", list(&[-1, 1 << 40]))], true);
    let sizes = Resize { axes: vec![2, 3], ..Resize::new(ResizeMode::Linear) };
    let graph_inputs =
        [("roi", Tensor::floats(&[0], vec![]).unwrap()), ("scales", Tensor::floats(&[2], vec![1e8, 1e8]).unwrap())];
    huge(sizes.into(), &graph_inputs, true);
    let wide = Convolution { pads: vec![usize::MAX / 2; 4], ..Convolution::new(2, 1, 0) };
    huge(wide.into(), &[("kernels", Tensor::floats(&[1, 1, 1, 1], vec![1.0]).unwrap())], true);
    let far = Convolution { dilations: vec![usize::MAX / 2; 2], ..Convolution::new(2, 1, 0) };
    huge(far.into(), &[("kernels", Tensor::floats(&[1, 1, 3, 3], vec![1.0; 9]).unwrap())], true);
}

#[test]
fn a_deeply_nested_file_is_refused() {
    // Field 7 of a model is the graph, 1 of a graph a node, 5 of a node an attribute, 6 of an attribute a graph.
    let mut bytes: Vec<u8> = Vec::new();
    for level in 0..300 {
        let key = [7u8, 1, 5, 6][if level == 299 { 0 } else { 1 + (298 - level) % 3 }] << 3 | 2;
        let mut length = bytes.len();
        let mut outer = vec![key];
        while length >= 0x80 {
            outer.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        outer.push(length as u8);
        outer.extend(bytes);
        bytes = outer;
    }
    let message = onnx::read_bytes(&bytes).unwrap_err().to_string();
    assert!(message.contains("nested"), "{message}");
}

#[test]
fn a_file_of_millions_of_empty_nodes_is_refused() {
    let nodes = [1u8 << 3 | 2, 0].repeat(1_100_000);
    let mut bytes = vec![7 << 3 | 2];
    let mut length = nodes.len();
    while length >= 0x80 {
        bytes.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend(nodes);
    let message = onnx::read_bytes(&bytes).unwrap_err().to_string();
    assert!(message.contains("messages"), "{message}");
}

#[test]
fn graphs_that_are_not_well_formed_are_refused_with_a_name() {
    let broken = |change: &dyn Fn(&mut Graph)| {
        let mut graph = small();
        change(&mut graph);
        // The writer refuses such a graph, too.
        assert!(onnx::to_bytes(&graph).is_err());
        Executor::new(graph, &Device::flex()).err().unwrap().to_string()
    };
    assert!(broken(&|graph| graph.nodes[0].inputs[0] = "c".into()).contains("`conv`"));
    assert!(broken(&|graph| graph.nodes[1].outputs[0] = "a".into()).contains("`relu`"));
    assert!(broken(&|graph| drop(graph.constants.remove("bias"))).contains("`bias`"));
    assert!(broken(&|graph| graph.outputs[0] = "nothing".into()).contains("`nothing`"));
    assert!(broken(&|graph| graph.nodes[1].name = "conv".into()).contains("`conv`"));

    let message = |graph: Graph, shape: &[usize]| {
        Executor::new(graph, &Device::flex()).unwrap().facts(&[shape.to_vec()]).unwrap_err().to_string()
    };
    assert!(message(small(), &[2, 3, 6, 6]).contains("`image`"));
    let mut graph = small();
    graph.constants.insert("weights".into(), Arc::new(Tensor::floats(&[3, 17], vec![0.0; 51]).unwrap()));
    assert!(message(graph, &[2, 1, 6, 6]).contains("`head`"));
    let mut graph = small();
    graph.nodes[1].operator = Arithmetic::Add.into();
    assert!(message(graph, &[2, 1, 6, 6]).contains("`relu`"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever a few changed bytes make of a model, it is read or refused; what is read can be checked and run.
    #[test]
    fn changed_bytes_never_panic(changes in proptest::collection::vec((0usize..10_000, any::<u8>()), 1..6)) {
        let mut bytes = onnx::to_bytes(&small()).unwrap();
        for (place, byte) in changes {
            let place = place % bytes.len();
            bytes[place] = byte;
        }
        if let Ok(graph) = onnx::read_bytes(&bytes)
            && let Ok(executor) = Executor::new(graph, &Device::flex())
            && executor.facts(&[vec![2, 1, 6, 6]]).is_ok()
        {
            drop(executor.forward(&[image()]));
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        drop(onnx::read_bytes(&bytes));
    }
}
