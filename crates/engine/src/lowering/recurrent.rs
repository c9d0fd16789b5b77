//! Recurrent layers: a linear layer for the products with the input, a recurrence a direction, and moves.

use nocebo_graph::Node;
use nocebo_graph::operators::{Activation, Cell, Direction, Recurrent};

use super::{Batch, Layering, Lowering, Missing, View};
use crate::layers::movement::{Move, Origin};
use crate::layers::recurrent::{Cell as Kind, Draft};

impl<'a> Lowering<'a> {
    pub(super) fn recurrent(&mut self, node: &'a Node, operator: &Recurrent) -> Result<(), Missing> {
        let given = |position: usize| node.inputs.get(position).is_some_and(|name| !name.is_empty());
        let cell = match operator.cell {
            Cell::Plain => Kind::Plain,
            Cell::Gru { reset_after: true } => Kind::Gru,
            Cell::Gru { reset_after: false } => return Err("reset gates before the product".to_owned()),
            Cell::Lstm { coupled: false } => Kind::Lstm,
            Cell::Lstm { coupled: true } => return Err("coupled gates".to_owned()),
        };
        let usual = |(at, activation): (usize, &Activation)| {
            let sigmoid = cell != Kind::Plain && at.is_multiple_of(if cell == Kind::Lstm { 3 } else { 2 });
            *activation == if sigmoid { Activation::Sigmoid } else { Activation::Tanh }
        };
        if operator.clip > 0.0 || !operator.activations.iter().enumerate().all(usual) {
            return Err("activations other than the usual ones".to_owned());
        }
        let mut x = self.any_view(node, 0)?;
        let batch = usize::from(!operator.batch_first);
        let shape = self.whole_shape_of(&node.inputs[0])?.to_vec();
        if self.batch == 1 && shape[batch] == 1 && !x.channels_last {
            // One sample lies the same whichever axis of length 1 is its own.
            x = View { shape: vec![shape[1 - batch], shape[2]], batch: Batch::Axis(batch), ..x };
        }
        let &[time, features] = x.shape.as_slice() else { return Err("it without steps in time".to_owned()) };
        if x.batch != Batch::Axis(batch) {
            return Err("it where the samples lie elsewhere".to_owned());
        }
        if given(4) && self.constant(node, 4)?.to_i64().iter().any(|length| *length != time as i64) {
            return Err("sequences of their own lengths".to_owned());
        }
        if given(7) {
            return Err("peepholes".to_owned());
        }
        let hidden = operator.hidden;
        let gates = cell.gates() * hidden;
        let (weights, recurrent) =
            (self.constant(node, 1)?.to_f32().into_owned(), self.constant(node, 2)?.to_f32().into_owned());
        let directions = if operator.direction == Direction::Bidirectional { 2 } else { 1 };
        let biases =
            if given(3) { self.constant(node, 3)?.to_f32().into_owned() } else { vec![0.0; directions * 2 * gates] };
        let mut made = Vec::new();
        for direction in 0..directions {
            let own = &weights[direction * gates * features..][..gates * features];
            let bias = &biases[direction * 2 * gates..][..2 * gates];
            let weight = |output: usize, input: usize| own[output * features + input];
            let of_input = self.linear(&node.name, &x, gates, bias[..gates].to_vec(), weight);
            let layer = Draft {
                cell,
                time,
                hidden,
                backwards: operator.direction == Direction::Reverse || direction == 1,
                first: [
                    self.first_state(node, 5, operator, direction)?,
                    self.first_state(node, 6, operator, direction)?,
                ],
                weights: recurrent[direction * gates * hidden..][..gates * hidden].to_vec(),
                bias: bias[gates..].to_vec(),
            };
            let layer = layer.finish(self.set);
            let elements = layer.outputs();
            made.push((
                self.step(&node.name, Layering::Other(Box::new(layer)), vec![of_input.value], &[elements], false),
                direction,
            ));
        }
        let backwards = |direction: usize| operator.direction == Direction::Reverse || direction == 1;
        // Y: `[time][directions][hidden]`; the last states: `[directions][hidden]`.
        let all = (0..time * directions * hidden).map(|at| {
            let (place, direction, unit) = (at / (directions * hidden), at / hidden % directions, at % hidden);
            Some((direction, place * hidden + unit))
        });
        let last = |cells: bool| -> Vec<Origin> {
            let origin = |at: usize| {
                let (direction, unit) = (at / hidden, at % hidden);
                let place = if cells {
                    time
                } else if backwards(direction) {
                    0
                } else {
                    time - 1
                };
                Some((direction, place * hidden + unit))
            };
            (0..directions * hidden).map(origin).collect()
        };
        let of_states = Batch::Axis(usize::from(!operator.batch_first));
        let of_all = Batch::Axis(if operator.batch_first { 0 } else { 2 });
        let results = [(all.collect(), of_all), (last(false), of_states), (last(true), of_states)];
        for (name, (origins, batch)) in node.outputs.iter().zip(results) {
            if name.is_empty() || !self.readers.contains_key(name.as_str()) {
                continue;
            }
            let shape = self.shape_of(name, batch)?;
            let inputs = made.iter().map(|(view, _)| view.value).collect();
            let layer = Layering::Other(Box::new(Move::new(directions, &origins, &[])));
            let view = self.step(&node.name, layer, inputs, &shape, false);
            self.bind(name, View { batch, ..view });
        }
        Ok(())
    }

    /// The first state of a direction, which must be the same for all samples.
    fn first_state(
        &self,
        node: &Node,
        position: usize,
        operator: &Recurrent,
        direction: usize,
    ) -> Result<Vec<f32>, Missing> {
        let hidden = operator.hidden;
        if node.inputs.get(position).is_none_or(String::is_empty) {
            return Ok(vec![0.0; hidden]);
        }
        let state = self.constant(node, position)?;
        let values = state.to_f32();
        let directions = values.len() / (self.batch * hidden);
        let of_sample = |sample: usize| {
            let row =
                if operator.batch_first { sample * directions + direction } else { direction * self.batch + sample };
            &values[row * hidden..][..hidden]
        };
        if (1..self.batch).any(|sample| of_sample(sample) != of_sample(0)) {
            return Err("first states that differ between samples".to_owned());
        }
        Ok(of_sample(0).to_vec())
    }
}
