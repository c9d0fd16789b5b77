//! Recurrent layers: `RNN`, `GRU`, `LSTM`.
//!
//! Inputs: x `[time, batch, features]`, weights W `[directions, gates · hidden, features]`, R `[directions, gates · hidden,
//! hidden]`, and optionally biases B `[directions, 2 · gates · hidden]`, lengths `[batch]`, the first hidden state
//! `[directions, batch, hidden]` and, for an LSTM, the first cell state and the peepholes P `[directions, 3 · hidden]`.
//! Outputs: Y `[time, directions, batch, hidden]`, the last hidden state, and the last cell state.
//! With `batch_first` the batch is the first axis of x, the states and Y.
//!
//! Steps after the end of a sequence give 0 and leave the state as it is.

use super::{Activation, Arguments, Behaviour, Fact, Facts, Source, Target, output_shape};
use crate::value::{DeviceTensor, Value};
use crate::{OperatorError, Tensor};

/// Which recurrent layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// `h ← f(x W + h R + b)`.
    Plain,
    /// Gated recurrent unit (Cho et al. 2014, arXiv:1406.1078).
    Gru {
        /// Whether the reset gate is applied after the product with R, as cuDNN and PyTorch do.
        reset_after: bool,
    },
    /// Long short-term memory with optional peepholes (Hochreiter & Schmidhuber 1997; Gers & Schmidhuber 2000).
    Lstm {
        /// Whether the forget gate is 1 minus the input gate.
        coupled: bool,
    },
}

impl Cell {
    fn gates(self) -> usize {
        match self {
            Self::Plain => 1,
            Self::Gru { .. } => 3,
            Self::Lstm { .. } => 4,
        }
    }

    fn default_activations(self) -> &'static [&'static str] {
        match self {
            Self::Plain => &["Tanh"],
            Self::Gru { .. } => &["Sigmoid", "Tanh"],
            Self::Lstm { .. } => &["Sigmoid", "Tanh", "Tanh"],
        }
    }
}

/// Order in which a sequence is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the beginning.
    Forward,
    /// From the end.
    Reverse,
    /// Both, with weights of their own.
    Bidirectional,
}

const DIRECTIONS: [(Direction, &str); 3] =
    [(Direction::Forward, "forward"), (Direction::Reverse, "reverse"), (Direction::Bidirectional, "bidirectional")];

/// A recurrent layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Recurrent {
    /// Which one.
    pub cell: Cell,
    /// Order of reading.
    pub direction: Direction,
    /// Size of the hidden state.
    pub hidden: usize,
    /// Whether the batch is the first axis.
    pub batch_first: bool,
    /// Limit of the arguments of the activations; 0 for none.
    pub clip: f32,
    /// Activations, those of each direction after one another; empty for the usual ones.
    pub activations: Vec<Activation>,
}

/// An activation by its name in these operators, whose parameters come from two lists in turn.
fn activation(name: &str, alphas: &mut Vec<f32>, betas: &mut Vec<f32>) -> Result<Activation, OperatorError> {
    let next = |list: &mut Vec<f32>, default: f32| if list.is_empty() { default } else { list.remove(0) };
    Ok(match name.to_ascii_lowercase().as_str() {
        "relu" => Activation::Relu,
        "tanh" => Activation::Tanh,
        "sigmoid" => Activation::Sigmoid,
        "softsign" => Activation::Softsign,
        "softplus" => Activation::Softplus,
        "leakyrelu" => Activation::LeakyRelu { alpha: next(alphas, 0.01) },
        "elu" => Activation::Elu { alpha: next(alphas, 1.0) },
        "thresholdedrelu" => Activation::ThresholdedRelu { alpha: next(alphas, 1.0) },
        "hardsigmoid" => Activation::HardSigmoid { alpha: next(alphas, 0.2), beta: next(betas, 0.5) },
        _ => return Err(OperatorError::unsupported(format!("the activation `{name}` in a recurrent layer"))),
    })
}

impl Recurrent {
    fn directions(&self) -> usize {
        if self.direction == Direction::Bidirectional { 2 } else { 1 }
    }

    /// Activation `number` of a direction.
    fn activation(&self, direction: usize, number: usize) -> Activation {
        let count = self.cell.default_activations().len();
        let usual = if number == 0 && count > 1 { Activation::Sigmoid } else { Activation::Tanh };
        self.activations.get(direction * count + number).copied().unwrap_or(usual)
    }

    fn applied(&self, x: DeviceTensor, direction: usize, number: usize) -> DeviceTensor {
        let x = if self.clip > 0.0 { x.clamped(-self.clip, self.clip) } else { x };
        self.activation(direction, number).apply(x)
    }

    /// Time steps, batch and features of x.
    fn sizes(&self, shape: &[usize]) -> Result<[usize; 3], OperatorError> {
        match *shape {
            [batch, time, features] if self.batch_first => Ok([time, batch, features]),
            [time, batch, features] => Ok([time, batch, features]),
            _ => Err(OperatorError::mismatch("shape of x", "three axes", format!("{shape:?}"))),
        }
    }

    fn state_shape(&self, batch: usize) -> Vec<usize> {
        if self.batch_first {
            vec![batch, self.directions(), self.hidden]
        } else {
            vec![self.directions(), batch, self.hidden]
        }
    }
}

/// One matrix `[rows, columns]` of a direction.
fn of_direction(tensor: &DeviceTensor, direction: usize) -> DeviceTensor {
    let shape = tensor.shape();
    tensor.clone().narrowed(0, direction, direction + 1).reshaped(&shape[1..])
}

/// Weights and states of one direction.
struct Layer {
    /// `[features, gates · hidden]`.
    input: DeviceTensor,
    /// `[hidden, gates · hidden]`.
    recurrent: DeviceTensor,
    /// `[1, gates · hidden]` for the products with x and with the hidden state.
    biases: Option<(DeviceTensor, DeviceTensor)>,
    /// `[1, hidden]` for input, output and forget gate.
    peepholes: Option<[DeviceTensor; 3]>,
}

impl Behaviour for Recurrent {
    fn name(&self) -> &'static str {
        match self.cell {
            Cell::Plain => "RNN",
            Cell::Gru { .. } => "GRU",
            Cell::Lstm { .. } => "LSTM",
        }
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        let cell = match source.operator {
            "RNN" => Cell::Plain,
            "GRU" => Cell::Gru { reset_after: source.flag("linear_before_reset", false)? },
            "LSTM" => Cell::Lstm { coupled: source.flag("input_forget", false)? },
            _ => return Ok(None),
        };
        let name = source.text_or("direction", "forward")?;
        let direction = DIRECTIONS.iter().find(|(_, known)| *known == name).map(|(direction, _)| *direction);
        let direction = direction
            .ok_or_else(|| OperatorError::attribute("direction", "forward, reverse or bidirectional", name))?;
        let mut alphas = source.floats("activation_alpha")?.unwrap_or_default();
        let mut betas = source.floats("activation_beta")?.unwrap_or_default();
        let names = source.texts("activations")?.unwrap_or_default();
        let count = cell.default_activations().len() * if direction == Direction::Bidirectional { 2 } else { 1 };
        if !names.is_empty() && names.len() != count {
            return Err(OperatorError::attribute("activations", format!("{count} names"), names.len()));
        }
        let activations =
            names.iter().map(|name| activation(name, &mut alphas, &mut betas)).collect::<Result<Vec<_>, _>>()?;
        source.ignore(&["output_sequence"]);
        Ok(Some(Self {
            cell,
            direction,
            hidden: source.count_or("hidden_size", 0)?,
            batch_first: source.flag("layout", false)?,
            clip: source.float_or("clip", 0.0)?,
            activations,
        }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        target.integer("hidden_size", self.hidden as i64);
        if let Some((_, name)) = DIRECTIONS.iter().find(|(direction, _)| *direction == self.direction) {
            target.text("direction", name);
        }
        if self.batch_first {
            target.flag("layout", true);
        }
        if self.clip > 0.0 {
            target.float("clip", self.clip);
        }
        if !self.activations.is_empty() {
            let (mut names, mut alphas, mut betas) = (Vec::new(), Vec::new(), Vec::new());
            for activation in &self.activations {
                names.push(activation.name().to_owned());
                match *activation {
                    Activation::LeakyRelu { alpha }
                    | Activation::Elu { alpha }
                    | Activation::ThresholdedRelu { alpha } => alphas.push(alpha),
                    Activation::HardSigmoid { alpha, beta } => {
                        alphas.push(alpha);
                        betas.push(beta);
                    }
                    _ => {}
                }
            }
            target.texts("activations", names);
            target.floats("activation_alpha", alphas);
            target.floats("activation_beta", betas);
        }
        match self.cell {
            Cell::Gru { reset_after: true } => target.flag("linear_before_reset", true),
            Cell::Lstm { coupled: true } => target.flag("input_forget", true),
            _ => {}
        }
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        inputs.require_float(0)?;
        let [time, batch, features] = self.sizes(inputs.shape(0)?)?;
        let (directions, gates, hidden) = (self.directions(), self.cell.gates(), self.hidden);
        if hidden == 0 || hidden > 1 << 24 {
            return Err(OperatorError::attribute("hidden_size", "in 1..=2^24", hidden));
        }
        let state = self.state_shape(batch);
        let lstm = matches!(self.cell, Cell::Lstm { .. });
        let mut wanted: Vec<(usize, Vec<usize>)> = vec![
            (1, vec![directions, gates * hidden, features]),
            (2, vec![directions, gates * hidden, hidden]),
            (3, vec![directions, 2 * gates * hidden]),
            (4, vec![batch]),
            (5, state.clone()),
        ];
        if lstm {
            wanted.extend([(6, state.clone()), (7, vec![directions, 3 * hidden])]);
        }
        for (position, shape) in wanted {
            if (position < 3 || inputs.optional(position).is_some()) && inputs.shape(position)? != shape {
                return Err(OperatorError::mismatch(
                    format!("shape of input {position}"),
                    format!("{shape:?}"),
                    format!("{:?}", inputs.shape(position)?),
                ));
            }
        }
        let element = inputs.element(0)?;
        let all = if self.batch_first {
            vec![batch, time, directions, hidden]
        } else {
            vec![time, directions, batch, hidden]
        };
        let mut facts = vec![Fact::new(element, all), Fact::new(element, state.clone())];
        if lstm {
            facts.push(Fact::new(element, state));
        }
        Ok(facts)
    }

    fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let element = arguments.get(0)?.element();
        let mut x = arguments.tensor(0)?;
        let [time, batch, features] = self.sizes(&x.shape())?;
        if self.batch_first {
            x = x.permuted(&[1, 0, 2]);
        }
        let lengths: Option<Vec<usize>> = arguments
            .optional_integers(4)?
            .map(|lengths| lengths.into_iter().map(|length| usize::try_from(length).unwrap_or(0).min(time)).collect());
        let state = |position: usize, direction: usize| -> DeviceTensor {
            match arguments.optional_tensor(position) {
                Some(state) => {
                    let state = if self.batch_first { state.permuted(&[1, 0, 2]) } else { state };
                    of_direction(&state, direction)
                }
                None => DeviceTensor::full(0.0, &[batch, self.hidden], arguments.device),
            }
        };
        let (mut sequences, mut lasts, mut cells) = (Vec::new(), Vec::new(), Vec::new());
        for direction in 0..self.directions() {
            let layer = self.layer(arguments, direction)?;
            let backwards = self.direction == Direction::Reverse || direction == 1;
            let from_input = x.clone().reshaped(&[time * batch, features]).matmul(&layer.input);
            let from_input = from_input.reshaped(&[time, batch, self.cell.gates() * self.hidden]);
            let (mut hidden, mut cell) = (state(5, direction), state(6, direction));
            let mut steps: Vec<Option<DeviceTensor>> = vec![None; time];
            for number in 0..time {
                let step = if backwards { time - 1 - number } else { number };
                let (new_hidden, new_cell) =
                    self.step(&layer, direction, &of_direction(&from_input, step), &hidden, &cell);
                let running: Option<Vec<f32>> = lengths
                    .as_ref()
                    .filter(|lengths| lengths.iter().any(|&length| step >= length))
                    .map(|lengths| lengths.iter().map(|&length| if step < length { 1.0 } else { 0.0 }).collect());
                match running {
                    None => {
                        steps[step] = Some(new_hidden.clone().reshaped(&[1, batch, self.hidden]));
                        (hidden, cell) = (new_hidden, new_cell);
                    }
                    Some(running) => {
                        let stopped = running.iter().map(|running| 1.0 - running).collect();
                        let running = DeviceTensor::new(running, &[batch, 1], arguments.device);
                        let stopped = DeviceTensor::new(stopped, &[batch, 1], arguments.device);
                        steps[step] = Some(new_hidden.mul(&running).reshaped(&[1, batch, self.hidden]));
                        hidden = new_hidden.mul(&running).add(&hidden.mul(&stopped));
                        cell = new_cell.mul(&running).add(&cell.mul(&stopped));
                    }
                }
            }
            let shape = [time, 1, batch, self.hidden];
            let steps: Vec<DeviceTensor> = steps.into_iter().flatten().collect();
            sequences.push(if steps.is_empty() {
                DeviceTensor::full(0.0, &shape, arguments.device)
            } else {
                DeviceTensor::concatenated(steps, 0).reshaped(&shape)
            });
            lasts.push(hidden.reshaped(&[1, batch, self.hidden]));
            cells.push(cell.reshaped(&[1, batch, self.hidden]));
        }
        let joined = |parts: Vec<DeviceTensor>, axis: usize, order: &[usize]| {
            let joined = DeviceTensor::concatenated(parts, axis);
            Value::Device(if self.batch_first { joined.permuted(order) } else { joined }, element)
        };
        let mut results = vec![joined(sequences, 1, &[2, 0, 1, 3]), joined(lasts, 0, &[1, 0, 2])];
        if outputs.len() > 2 {
            output_shape(outputs, 2)?;
            results.push(joined(cells, 0, &[1, 0, 2]));
        }
        Ok(results)
    }

    fn has_weight_at(&self, position: usize, _constant: &Tensor) -> bool {
        (1..=3).contains(&position) || position == 7
    }

    fn least_opset(&self) -> i64 {
        14
    }

    fn multiplications(&self, inputs: &Facts<'_>, _outputs: &[Fact]) -> u64 {
        let sizes = inputs.shape(0).and_then(|shape| self.sizes(shape));
        sizes.map_or(0, |[time, batch, features]| {
            let gates = self.directions() * self.cell.gates() * self.hidden;
            (time * batch * gates * (features + self.hidden)) as u64
        })
    }
}

impl Recurrent {
    fn layer(&self, arguments: &Arguments<'_>, direction: usize) -> Result<Layer, OperatorError> {
        let gates = self.cell.gates() * self.hidden;
        let biases = arguments.optional_tensor(3).map(|biases| {
            let biases = biases.narrowed(0, direction, direction + 1);
            (biases.clone().narrowed(1, 0, gates), biases.narrowed(1, gates, 2 * gates))
        });
        let lstm = matches!(self.cell, Cell::Lstm { .. });
        let peepholes = arguments.optional_tensor(7).filter(|_| lstm).map(|peepholes| {
            let peepholes = peepholes.narrowed(0, direction, direction + 1);
            std::array::from_fn(|gate| peepholes.clone().narrowed(1, gate * self.hidden, (gate + 1) * self.hidden))
        });
        Ok(Layer {
            input: of_direction(&arguments.tensor(1)?, direction).permuted(&[1, 0]),
            recurrent: of_direction(&arguments.tensor(2)?, direction).permuted(&[1, 0]),
            biases,
            peepholes,
        })
    }

    /// Part `gate` of a row of gates.
    fn gate(&self, gates: &DeviceTensor, gate: usize) -> DeviceTensor {
        gates.clone().narrowed(1, gate * self.hidden, (gate + 1) * self.hidden)
    }

    /// The next hidden and cell state.
    fn step(
        &self,
        layer: &Layer,
        direction: usize,
        from_input: &DeviceTensor,
        hidden: &DeviceTensor,
        cell: &DeviceTensor,
    ) -> (DeviceTensor, DeviceTensor) {
        let from_input = match &layer.biases {
            Some((bias, _)) => from_input.add(bias),
            None => from_input.clone(),
        };
        let with_bias = |product: DeviceTensor| match &layer.biases {
            Some((_, bias)) => product.add(bias),
            None => product,
        };
        match self.cell {
            Cell::Plain => {
                let sum = from_input.add(&with_bias(hidden.matmul(&layer.recurrent)));
                (self.applied(sum, direction, 0), cell.clone())
            }
            Cell::Gru { reset_after } => {
                let from_hidden = with_bias(hidden.matmul(&layer.recurrent));
                let update = self.applied(self.gate(&from_input, 0).add(&self.gate(&from_hidden, 0)), direction, 0);
                let reset = self.applied(self.gate(&from_input, 1).add(&self.gate(&from_hidden, 1)), direction, 0);
                let remembered = if reset_after {
                    reset.mul(&self.gate(&from_hidden, 2))
                } else {
                    let matrix = layer.recurrent.clone().narrowed(1, 2 * self.hidden, 3 * self.hidden);
                    let product = reset.mul(hidden).matmul(&matrix);
                    match &layer.biases {
                        Some((_, bias)) => product.add(&self.gate(bias, 2)),
                        None => product,
                    }
                };
                let candidate = self.applied(self.gate(&from_input, 2).add(&remembered), direction, 1);
                // (1 - z) · candidate + z · hidden
                let next = candidate.add(&update.mul(&hidden.sub(&candidate)));
                (next, cell.clone())
            }
            Cell::Lstm { coupled } => {
                let sums = from_input.add(&with_bias(hidden.matmul(&layer.recurrent)));
                // Gates stand in the order input, output, forget, cell.
                let seen = |gate: usize, state: &DeviceTensor| match &layer.peepholes {
                    Some(peepholes) => self.gate(&sums, gate).add(&peepholes[gate].mul(state)),
                    None => self.gate(&sums, gate),
                };
                let input = self.applied(seen(0, cell), direction, 0);
                let forget = if coupled {
                    input.clone().neg().add_scalar(1.0)
                } else {
                    self.applied(seen(2, cell), direction, 0)
                };
                let candidate = self.applied(self.gate(&sums, 3), direction, 1);
                let next_cell = forget.mul(cell).add(&input.mul(&candidate));
                let output = self.applied(seen(1, &next_cell), direction, 0);
                (output.mul(&self.activation(direction, 2).apply(next_cell.clone())), next_cell)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_activations_are_taken_in_turn() {
        let (mut alphas, mut betas) = (vec![0.3, 2.0], vec![0.1]);
        assert_eq!(
            activation("HardSigmoid", &mut alphas, &mut betas).unwrap(),
            Activation::HardSigmoid { alpha: 0.3, beta: 0.1 }
        );
        assert_eq!(activation("Tanh", &mut alphas, &mut betas).unwrap(), Activation::Tanh);
        assert_eq!(activation("Elu", &mut alphas, &mut betas).unwrap(), Activation::Elu { alpha: 2.0 });
        assert_eq!(activation("Elu", &mut alphas, &mut betas).unwrap(), Activation::Elu { alpha: 1.0 });
        assert!(activation("Affine", &mut alphas, &mut betas).is_err());
    }
}
