//! Files that are damaged, hostile or something else: each gives an error, none a panic or an allocation beyond reason.

#![expect(clippy::unwrap_used, reason = "what cannot be read or computed is a failed test")]

mod entry;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use nocebo_graph::operators::{
    Activation, Arithmetic, ConstantOfShape, Convolution, Expand, Gemm, Pad, PadMode, Pool, PoolKind, Reshape, Resize,
    ResizeMode, Tile,
};
use nocebo_graph::{Device, Executor, Graph, Input, Node, Tensor, onnx};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

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

/// Every bit of a small model flipped, one at a time.
#[test]
fn no_flipped_bit_makes_the_reader_panic() {
    let bytes = onnx::to_bytes(&small()).unwrap();
    (0..bytes.len() * 8).into_par_iter().for_each(|bit| {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        entry::try_model(&flipped);
    });
}

/// The entry of the fuzz target on the seeds of its corpus with a few bytes changed, removed, doubled or swapped.
#[test]
fn no_mutation_of_a_seed_makes_the_reader_panic() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds/onnx"));
    let seeds: Vec<Vec<u8>> =
        std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect();
    assert!(!seeds.is_empty());
    for seed in &seeds {
        assert!(onnx::read_bytes(seed).is_ok());
    }
    (0..3000u64).into_par_iter().for_each(|number| {
        let mut random = ChaCha8Rng::seed_from_u64(number);
        let mut bytes = seeds[random.random_range(0..seeds.len())].clone();
        for _ in 0..random.random_range(1..6) {
            let place = random.random_range(0..bytes.len());
            let end = (place + random.random_range(1..16)).min(bytes.len());
            match random.random_range(0..4) {
                0 => bytes[place] = random.random(),
                1 => drop(bytes.drain(place..end.min(bytes.len() - 1).max(place))),
                2 => {
                    let part = bytes[place..end].to_vec();
                    bytes.splice(place..place, part);
                }
                _ => {
                    let other = random.random_range(0..bytes.len());
                    bytes.swap(place, other);
                }
            }
        }
        entry::try_model(&bytes);
    });
}

/// A graph as ONNX bytes with another operator, domain or opset in place of `Relu` and 17.
fn respelled(change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = onnx::to_bytes(&small()).unwrap();
    change(&mut bytes);
    bytes
}

/// Overwrites the only place where `from` stands.
fn overwrite(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    assert_eq!(from.len(), to.len());
    let places: Vec<usize> = (0..bytes.len() - from.len()).filter(|&at| bytes[at..].starts_with(from)).collect();
    assert_eq!(places.len(), 1, "{from:?}");
    bytes[places[0]..places[0] + to.len()].copy_from_slice(to);
}

#[test]
fn what_nocebo_does_not_know_is_an_error_that_names_it() {
    let message = |bytes: &[u8]| onnx::read_bytes(bytes).unwrap_err().to_string();
    // The operator's name is field 4 of a node, the opset's number field 2 of an import.
    let unknown = message(&respelled(|bytes| overwrite(bytes, b"\x22\x04Relu", b"\x22\x04Rilu")));
    assert!(unknown.contains("`relu`") && unknown.contains("Rilu") && unknown.contains("opset 17"), "{unknown}");
    for opset in [99, 26] {
        let message = message(&respelled(|bytes| overwrite(bytes, &[0x10, 17], &[0x10, opset])));
        assert!(message.contains(&format!("got {opset}")) && message.contains("older opset"), "{message}");
    }
    // A domain of four letters instead of the name of the node, whose field (3) becomes that of the domain (7).
    let foreign = message(&respelled(|bytes| overwrite(bytes, b"\x1a\x04relu", b"\x3a\x04acme")));
    assert!(foreign.contains("domain `acme`"), "{foreign}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("two.onnx");
    let mut two = respelled(|bytes| overwrite(bytes, b"\x22\x04Relu", b"\x22\x04Rilu"));
    overwrite(&mut two, b"\x22\x07MaxPool", b"\x22\x07MixPool");
    std::fs::write(&path, two).unwrap();
    assert_eq!(onnx::read_or_all_problems(&path).unwrap_err().len(), 2, "both nodes are named");
}

#[cfg(unix)]
#[test]
fn a_pipe_is_no_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe.onnx");
    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    assert!(onnx::read(&path).unwrap_err().to_string().contains("plain file"));
    assert!(onnx::read(Path::new("/dev/zero")).unwrap_err().to_string().contains("plain file"));
}

/// A graph of many nodes without names, all of whose likely names are taken, and as many constants.
#[test]
fn many_nodes_and_constants_are_read_and_planned_in_linear_time() {
    const NODES: usize = 20_000;
    let mut graph =
        Graph { inputs: vec![Input::batch("x", &[1])], outputs: vec![format!("v{NODES}")], ..Graph::default() };
    for index in 0..NODES {
        let from = if index == 0 { "x".to_owned() } else { format!("v{index}") };
        graph.constants.insert(format!("c{index}"), Arc::new(Tensor::scalar(1.0)));
        let name = format!("Add_{index}");
        graph.nodes.push(node(&name, Arithmetic::Add, &[&from, &format!("c{index}")], &format!("v{}", index + 1)));
    }
    let start = std::time::Instant::now();
    let again = onnx::read_bytes(&onnx::to_bytes(&graph).unwrap()).unwrap();
    let executor = Executor::new(again, &Device::flex()).unwrap();
    let input = Tensor::floats(&[1, 1], vec![0.0]).unwrap();
    assert_eq!(executor.forward(&[input]).unwrap()[0].to_f32()[0], NODES as f32);
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
}

/// Values that are large, but each within reason, and alive at the same time.
#[test]
fn a_network_that_needs_more_memory_than_there_is_is_refused() {
    let shape = Arc::new(Tensor::list(&[1 << 28]));
    let graph = |copies: usize| {
        let names: Vec<String> = (0..copies).map(|copy| format!("v{copy}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let ones = ConstantOfShape { value: Tensor::scalar(1.0) };
        let made = |(copy, name): (usize, &&str)| node(&format!("make{copy}"), ones.clone(), &["shape"], name);
        let mut nodes: Vec<Node> = names.iter().enumerate().map(made).collect();
        nodes.push(node("sum", Arithmetic::Sum, &names, "y"));
        let constants = [("shape".to_owned(), shape.clone())].into();
        Graph { outputs: vec!["y".into()], nodes, constants, ..Graph::default() }
    };
    // 1 GiB each.
    let error = Executor::new(graph(10_000), &Device::flex()).unwrap().forward(&[]).unwrap_err();
    assert!(matches!(error, nocebo_graph::Error::Memory { .. }), "{error}");
    assert!(error.to_string().contains("GiB"), "{error}");
}

/// A sum over the side of 0, as the gradient of a broadcast takes it, would make it 1 and the tensor gigantic.
#[test]
fn a_giant_side_does_not_hide_behind_one_of_0() {
    let graph = |sides: &[i64]| {
        let ones = ConstantOfShape { value: Tensor::scalar(1.0) };
        let nodes = vec![node("make", ones, &["shape"], "c"), node("add", Arithmetic::Add, &["x", "c"], "y")];
        let constants = [("shape".to_owned(), Arc::new(Tensor::list(sides)))].into();
        Graph { inputs: vec![Input::batch("x", &[1])], outputs: vec!["y".into()], nodes, constants, ..Graph::default() }
    };
    let run = |sides: &[i64]| {
        let input = Tensor::floats(&[1, 1], vec![0.0]).unwrap();
        Executor::new(graph(sides), &Device::flex())?.forward_with_gradients(&[input])
    };
    assert!(run(&[0, 3]).is_ok());
    let error = run(&[0, 1 << 40]).unwrap_err().to_string();
    assert!(error.contains("size of a tensor"), "{error}");
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
        entry::try_model(&bytes);
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        drop(onnx::read_bytes(&bytes));
    }
}
