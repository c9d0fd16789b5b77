//! Recurrent networks for records `[features, time]`: one layer of 128 units, and a linear layer on its last state.
//!
//! `lstm` is a long short-term memory (Hochreiter & Schmidhuber 1997), which Lipton et al. 2016 (arXiv:1511.03677) trained on
//! records of intensive care; `gru` has gated recurrent units (Cho et al. 2014, arXiv:1406.1078).
//!
//! Weights are named, shaped and ordered as in PyTorch's `LSTM` and `GRU`, whose gates stand in another order than those of
//! ONNX: the graph itself puts their rows in order, so a `state_dict` fits as it is.

use super::Blueprint;
use crate::builder::Handle;
use crate::operators::{Cell, Concat, Direction, Gather, Recurrent, Squeeze, Transpose, Unsqueeze};
use crate::{Error, Graph, GraphBuilder, Tensor};

const HIDDEN: usize = 128;

pub(super) fn build_lstm(blueprint: &Blueprint<'_>, b: GraphBuilder) -> Result<Graph, Error> {
    // Input, forget, cell and output gate in PyTorch; input, output, forget and cell gate in ONNX.
    network(blueprint, b, "lstm", Cell::Lstm { coupled: false }, &[0, 3, 1, 2])
}

pub(super) fn build_gru(blueprint: &Blueprint<'_>, b: GraphBuilder) -> Result<Graph, Error> {
    // Reset, update and new gate in PyTorch; update, reset and hidden gate in ONNX.
    network(blueprint, b, "gru", Cell::Gru { reset_after: true }, &[1, 0, 2])
}

/// `gates` are the places of ONNX's gates among PyTorch's.
fn network(
    blueprint: &Blueprint<'_>,
    mut b: GraphBuilder,
    name: &str,
    cell: Cell,
    gates: &[usize],
) -> Result<Graph, Error> {
    let [features, _] = blueprint.signal(name)?;
    let x = blueprint.input(&mut b, "record");
    let x = b.node("steps", Transpose { order: vec![2, 0, 1] }, &[&x]);
    let rows: Vec<i64> =
        gates.iter().flat_map(|gate| gate * HIDDEN..(gate + 1) * HIDDEN).map(|row| row as i64).collect();
    let rows = b.constant(&format!("{name}.rows"), Tensor::list(&rows));
    let first = b.constant(&format!("{name}.axis"), Tensor::list(&[0]));
    let reach = 1.0 / (HIDDEN as f32).sqrt();
    let ordered = |b: &mut GraphBuilder, part: &str, shape: &[usize]| {
        let weights = b.uniform(&format!("{name}.{part}_l0"), shape, reach);
        b.node(&format!("{name}.{part}.ordered"), Gather { axis: 0 }, &[&weights, &rows])
    };
    let units = gates.len() * HIDDEN;
    let input = ordered(&mut b, "weight_ih", &[units, features]);
    let hidden = ordered(&mut b, "weight_hh", &[units, HIDDEN]);
    let biases = ["bias_ih", "bias_hh"].map(|part| ordered(&mut b, part, &[units]));
    let bias = b.node(&format!("{name}.bias"), Concat { axis: 0 }, &[&biases[0], &biases[1]]);
    let one_direction =
        |b: &mut GraphBuilder, part: &str, x: &Handle| b.node(&format!("{name}.{part}"), Unsqueeze, &[x, &first]);
    let weights = [("W", &input), ("R", &hidden), ("B", &bias)].map(|(part, x)| one_direction(&mut b, part, x));
    let layer = Recurrent {
        cell,
        direction: Direction::Forward,
        hidden: HIDDEN,
        batch_first: false,
        clip: 0.0,
        activations: Vec::new(),
    };
    let [_, last] = b.node_with_outputs(name, layer, &[&x, &weights[0], &weights[1], &weights[2]], ["all", "last"]);
    let last = b.node("last", Squeeze, &[&last, &first]);
    let logits = b.linear("fc", &last, (HIDDEN, blueprint.outputs()));
    b.finish(&[&logits])
}
