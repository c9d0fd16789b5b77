//! A network that learns from a loss outside of it: a generator in front of a model under attack, a critic, an encoder.
//!
//! ```text
//! pass = network.forward(inputs)           the caller looks at the outputs: loss, d loss / d outputs
//! gradients = pass.pull_back(cotangents)   d loss / d inputs, d loss / d parameters
//! network.step(gradients)                  Adam
//! ```
//!
//! The network answers and learns as it is used: batch norm goes by its running statistics, dropout is off. Each pass
//! has one fixed size, filled up by repeating a sample, so the outputs of a sample are the same to the bit whatever
//! batch it comes in, and gradients are summed in order, whatever the number of threads.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use nocebo_core::Samples;
use rayon::prelude::*;

use crate::executor::{Execution, Executor, Mode, no_gradient};
use crate::model::CHUNK;
use crate::train::{Optimizer, Rule, Weights};
use crate::value::{DeviceTensor, Value};
use crate::{Device, Error, Graph};

/// How the weights of a [`Network`] follow their gradients: Adam with β₂ = 0.999 and ε = 1e-8 (Kingma & Ba 2015,
/// arXiv:1412.6980).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// Learning rate; finite and above 0.
    pub learning_rate: f32,
    /// β₁, the weight of the past in the mean gradient; at least 0 and below 1. 0.9 for most networks, 0.5 or less for
    /// two that learn against each other.
    pub momentum: f32,
}

/// A graph on a device whose weights can change. All its inputs are batches of floats, one row a sample, and so are
/// its outputs.
pub struct Network {
    executor: Executor,
    weights: Weights,
    adam: Adam,
}

impl Network {
    /// Puts `graph` on `device`.
    ///
    /// # Errors
    ///
    /// When the graph is not well formed or has no parameter, or a setting of `adam` is out of its range.
    pub fn new(graph: impl Into<Arc<Graph>>, adam: Adam, device: &Device) -> Result<Self, Error> {
        if !(adam.learning_rate.is_finite() && adam.learning_rate > 0.0) {
            return Err(nocebo_core::Error::invalid("learning_rate", "finite and above 0", adam.learning_rate).into());
        }
        if !(0.0..1.0).contains(&adam.momentum) {
            return Err(nocebo_core::Error::invalid("momentum", "at least 0 and below 1", adam.momentum).into());
        }
        let executor = Executor::new(graph, device)?;
        let weights = Weights::of(executor.graph(), &[])?;
        if weights.values.is_empty() {
            return Err(Error::Training("the network has no parameter that may change".to_owned()));
        }
        Ok(Self { executor, weights, adam })
    }

    /// The graph with the weights as they stand.
    ///
    /// # Errors
    ///
    /// None in practice: the weights are those of the graph.
    pub fn graph(&self) -> Result<Graph, Error> {
        let mut graph = self.executor.graph().as_ref().clone();
        self.weights.write_to(&mut graph)?;
        Ok(graph)
    }

    /// Runs the network on one batch for each of its inputs.
    ///
    /// # Errors
    ///
    /// When the batches do not have the shapes that the graph declares or differ in their number of samples, when there
    /// is none, and when an output is not finite.
    pub fn forward(&self, inputs: &[&Samples]) -> Result<Pass, Error> {
        let batch = inputs.first().map_or(0, |input| input.len());
        if batch == 0 || inputs.iter().any(|input| input.len() != batch) {
            let got: Vec<usize> = inputs.iter().map(|input| input.len()).collect();
            return Err(Error::graph("samples of each input", "as many, 1 at least", format!("{got:?}")));
        }
        let device = self.executor.device();
        let weights: BTreeMap<&String, DeviceTensor> = self
            .weights
            .values
            .iter()
            .map(|(name, values)| {
                (name, DeviceTensor::new(values.clone(), self.executor.graph().constants[name].shape(), device))
            })
            .collect();
        let ranges: Vec<Range<usize>> =
            (0..batch).step_by(CHUNK).map(|start| start..batch.min(start + CHUNK)).collect();
        let parts: Vec<Part> =
            ranges.into_par_iter().map(|rows| self.part(&weights, inputs, rows)).collect::<Result<_, _>>()?;
        let outputs = self
            .executor
            .graph()
            .outputs
            .iter()
            .enumerate()
            .map(|(number, name)| collect(name, &parts, number, inputs[0].indices()))
            .collect::<Result<_, _>>()?;
        Ok(Pass { parts, outputs, inputs: inputs.iter().map(|input| input.shape().to_vec()).collect() })
    }

    fn part(
        &self,
        weights: &BTreeMap<&String, DeviceTensor>,
        inputs: &[&Samples],
        rows: Range<usize>,
    ) -> Result<Part, Error> {
        let leaf = |input: &&Samples| {
            let mut values = input.values()[rows.start * input.elements()..rows.end * input.elements()].to_vec();
            for _ in rows.len()..CHUNK {
                values.extend_from_slice(input.row(rows.start));
            }
            let mut shape = vec![CHUNK];
            shape.extend_from_slice(input.shape());
            DeviceTensor::new(values, &shape, self.executor.device()).tracked()
        };
        let inputs: Vec<DeviceTensor> = inputs.iter().map(leaf).collect();
        let weights: Vec<(String, DeviceTensor)> =
            weights.iter().map(|(name, tensor)| ((*name).clone(), tensor.clone().tracked())).collect();
        let replaced = weights.iter().map(|(name, leaf)| (name.clone(), Value::floats(leaf.clone()))).collect();
        let values = inputs.iter().map(|leaf| Value::floats(leaf.clone())).collect();
        let Execution { outputs, cuts, .. } = self.executor.run(values, &replaced, Mode::default())?;
        let outputs = outputs
            .into_iter()
            .zip(&self.executor.graph().outputs)
            .map(|(output, name)| match output {
                Value::Device(tensor, _) if tensor.is_tracked() => Ok(tensor),
                _ => Err(no_gradient(&format!("the output `{name}`"), &cuts)),
            })
            .collect::<Result<_, _>>()?;
        Ok(Part { rows, device: self.executor.device().clone(), inputs, weights, outputs })
    }

    /// One step of Adam down the gradient.
    pub fn step(&mut self, gradients: &Gradients) {
        let rule = Rule { optimizer: Optimizer::Adam, momentum: self.adam.momentum, weight_decay: 0.0 };
        self.weights.step(&gradients.parameters, self.adam.learning_rate, rule);
    }
}

/// One part of a batch, with its history.
struct Part {
    rows: Range<usize>,
    device: Device,
    inputs: Vec<DeviceTensor>,
    weights: Vec<(String, DeviceTensor)>,
    outputs: Vec<DeviceTensor>,
}

/// The rows of one output.
fn collect(name: &str, parts: &[Part], number: usize, indices: &[u64]) -> Result<Samples, Error> {
    let mut values = Vec::new();
    let mut shape = Vec::new();
    for part in parts {
        let output = &part.outputs[number];
        shape = output.shape();
        if shape.len() < 2 || shape[0] != CHUNK {
            let got = format!("{shape:?}");
            return Err(Error::graph(format!("shape of output `{name}`"), format!("[{CHUNK}, ...]"), got));
        }
        let mut own = read(output)?;
        own.truncate(part.rows.len() * shape[1..].iter().product::<usize>());
        values.extend(own);
    }
    if values.iter().any(|value| !value.is_finite()) {
        return Err(Error::Training(format!("output `{name}` is not finite; lower the learning rate")));
    }
    Ok(Samples::new(values, &shape[1..])?.with_indices(indices.to_vec())?)
}

fn read(tensor: &DeviceTensor) -> Result<Vec<f32>, Error> {
    tensor.to_floats().map_err(|reason| Error::graph("values of a network", "floats", reason))
}

/// A forward pass of a [`Network`] that can be differentiated.
pub struct Pass {
    parts: Vec<Part>,
    outputs: Vec<Samples>,
    inputs: Vec<Vec<usize>>,
}

/// The derivative of a loss by the inputs and parameters of a [`Network`].
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients {
    /// By each input, one row a sample.
    pub inputs: Vec<Samples>,
    /// By each parameter, summed over the samples.
    pub parameters: BTreeMap<String, Vec<f32>>,
}

impl Pass {
    /// The outputs of the graph in order, one row a sample, under the indices of the first input.
    pub fn outputs(&self) -> &[Samples] {
        &self.outputs
    }

    /// Pulls `cotangents` (d loss / d output, one slice for each output, row by row as the outputs) back to inputs and
    /// parameters.
    ///
    /// # Errors
    ///
    /// When a cotangent does not have the size of its output, and when a gradient is not finite.
    pub fn pull_back(self, cotangents: &[&[f32]]) -> Result<Gradients, Error> {
        let sizes: Vec<usize> = self.outputs.iter().map(|output| output.values().len()).collect();
        if cotangents.iter().map(|part| part.len()).ne(sizes.iter().copied()) {
            let got: Vec<usize> = cotangents.iter().map(|part| part.len()).collect();
            return Err(Error::graph("values of the cotangents", format!("{sizes:?}"), format!("{got:?}")));
        }
        let widths: Vec<usize> = self.outputs.iter().map(Samples::elements).collect();
        let indices = self.outputs.first().map(|output| output.indices().to_vec()).unwrap_or_default();
        let pulled: Vec<_> = self
            .parts
            .into_par_iter()
            .map(|part| part.pull_back(cotangents, &widths, &self.inputs))
            .collect::<Result<_, Error>>()?;
        let mut inputs = vec![Vec::new(); self.inputs.len()];
        let mut parameters: BTreeMap<String, Vec<f32>> = BTreeMap::new();
        for (by_inputs, by_parameters) in pulled {
            for (sum, part) in inputs.iter_mut().zip(by_inputs) {
                sum.extend(part);
            }
            for (name, part) in by_parameters {
                if part.iter().any(|slope| !slope.is_finite()) {
                    return Err(Error::Training(format!(
                        "the gradient of `{name}` is not finite; lower the learning rate"
                    )));
                }
                let sum = parameters.entry(name).or_insert_with(|| vec![0.0; part.len()]);
                for (sum, slope) in sum.iter_mut().zip(part) {
                    *sum += slope;
                }
            }
        }
        let inputs = inputs
            .into_iter()
            .zip(&self.inputs)
            .map(|(values, shape)| Samples::new(values, shape)?.with_indices(indices.clone()))
            .collect::<Result<_, _>>()?;
        Ok(Gradients { inputs, parameters })
    }
}

/// Gradients by the inputs and by the parameters of one part.
type Pulled = (Vec<Vec<f32>>, Vec<(String, Vec<f32>)>);

impl Part {
    fn pull_back(self, cotangents: &[&[f32]], widths: &[usize], shapes: &[Vec<usize>]) -> Result<Pulled, Error> {
        // Rows that only fill up the pass have no cotangent.
        let terms = self.outputs.iter().zip(cotangents.iter().zip(widths)).map(|(output, (cotangent, width))| {
            let mut own = cotangent[self.rows.start * width..self.rows.end * width].to_vec();
            own.resize(CHUNK * width, 0.0);
            output.mul(&DeviceTensor::new(own, &output.shape(), &self.device)).total()
        });
        let Some(total) = terms.reduce(|sum, term| sum.add(&term)) else {
            return Ok((Vec::new(), Vec::new()));
        };
        let mut gradients = total.backward();
        let mut inputs = Vec::with_capacity(self.inputs.len());
        for (leaf, shape) in self.inputs.iter().zip(shapes) {
            let count = self.rows.len() * shape.iter().product::<usize>();
            // An input that no output depends on has no slope.
            let mut slopes = leaf.gradient(&mut gradients).as_ref().map(read).transpose()?.unwrap_or_default();
            slopes.resize(count, 0.0);
            inputs.push(slopes);
        }
        let mut parameters = Vec::with_capacity(self.weights.len());
        for (name, leaf) in self.weights {
            if let Some(gradient) = leaf.gradient(&mut gradients) {
                parameters.push((name, read(&gradient)?));
            }
        }
        Ok((inputs, parameters))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GraphBuilder;
    use crate::operators::{Activation, Convolution};
    use nocebo_core::Seed;
    use rand::RngExt;

    /// Two inputs, two outputs, a convolution and a batch norm among the layers.
    fn graph() -> Graph {
        let mut b = GraphBuilder::new("two heads", Seed(4));
        let (image, code) = (b.input("image", &[2, 3, 4]), b.input("code", &[3]));
        let x = b.convolution_with_bias("stem", &image, (2, 3), 3, Convolution::new(2, 1, 1));
        let x = b.batch_normalization("norm", &x, 3);
        let x = b.node("tanh", Activation::Tanh, &[&x]);
        let x = b.flatten("flat", &x);
        let x = b.linear("hidden", &x, (36, 5));
        let y = b.linear("code.hidden", &code, (3, 5));
        let sum = b.add("sum", &x, &y);
        let sum = b.node("sum.tanh", Activation::Tanh, &[&sum]);
        let (one, two) = (b.linear("one", &sum, (5, 2)), b.linear("two", &sum, (5, 4)));
        b.finish(&[&one, &two]).unwrap()
    }

    fn network(graph: Graph) -> Network {
        Network::new(graph, Adam { learning_rate: 0.05, momentum: 0.9 }, &Device::flex()).unwrap()
    }

    fn draw(count: usize, shape: &[usize], seed: u64) -> Samples {
        let mut generator = Seed(seed).for_sample(0);
        let values = (0..count * shape.iter().product::<usize>()).map(|_| generator.random_range(-1.0..1.0)).collect();
        Samples::new(values, shape).unwrap()
    }

    fn sizes(outputs: &[Samples], one: &[f32], two: &[f32]) -> f64 {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        dot(outputs[0].values(), one) + dot(outputs[1].values(), two)
    }

    #[test]
    fn gradients_agree_with_central_differences() {
        let count = CHUNK + 3;
        let (image, code) = (draw(count, &[2, 3, 4], 1), draw(count, &[3], 2));
        let (one, two) = (draw(count, &[2], 3), draw(count, &[4], 4));
        let start = network(graph());
        let pass = start.forward(&[&image, &code]).unwrap();
        let gradients = pass.pull_back(&[one.values(), two.values()]).unwrap();
        assert_eq!(gradients.parameters.keys().collect::<Vec<_>>(), graph().parameters().iter().collect::<Vec<_>>());
        let agree = |what: &str, slopes: &[f32], at: &dyn Fn(&[f32]) -> f64| {
            for seed in 0..3 {
                let direction = draw(slopes.len(), &[1], 10 + seed);
                let along = |size: f32| at(&direction.values().iter().map(|part| size * part).collect::<Vec<_>>());
                let expected: f64 =
                    slopes.iter().zip(direction.values()).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                let got = (along(0.01) - along(-0.01)) / 0.02;
                assert!((got - expected).abs() < 5e-3 * expected.abs() + 5e-3, "{what}: {got} against {expected}");
            }
        };
        for (name, slopes) in &gradients.parameters {
            agree(name, slopes, &|shift| {
                let mut moved = graph();
                let old = moved.constants[name].clone();
                let values = old.to_f32().iter().zip(shift).map(|(value, shift)| value + shift).collect();
                moved.constants.insert(name.clone(), Arc::new(crate::Tensor::floats(old.shape(), values).unwrap()));
                sizes(network(moved).forward(&[&image, &code]).unwrap().outputs(), one.values(), two.values())
            });
        }
        for (number, slopes) in gradients.inputs.iter().enumerate() {
            agree("input", slopes.values(), &|shift| {
                let mut moved = [image.clone(), code.clone()];
                moved[number].values_mut().iter_mut().zip(shift).for_each(|(value, shift)| *value += shift);
                sizes(start.forward(&[&moved[0], &moved[1]]).unwrap().outputs(), one.values(), two.values())
            });
        }
    }

    /// Learns outputs from inputs; returns the weights and the last mean squared error.
    fn learn(steps: usize) -> (Graph, f64) {
        let (image, code) = (draw(40, &[2, 3, 4], 1), draw(40, &[3], 2));
        let wanted = [draw(40, &[2], 3), draw(40, &[4], 4)];
        let mut network = network(graph());
        let mut error = 0.0;
        for _ in 0..steps {
            let pass = network.forward(&[&image, &code]).unwrap();
            error = 0.0;
            let mut cotangents = Vec::new();
            for (output, wanted) in pass.outputs().iter().zip(&wanted) {
                let differences: Vec<f32> = output.values().iter().zip(wanted.values()).map(|(a, b)| a - b).collect();
                error += differences.iter().map(|part| f64::from(part * part)).sum::<f64>() / 240.0;
                cotangents.push(differences);
            }
            let gradients = pass.pull_back(&[&cotangents[0], &cotangents[1]]).unwrap();
            network.step(&gradients);
        }
        (network.graph().unwrap(), error)
    }

    #[test]
    fn learns_what_it_is_told_whatever_the_number_of_threads() {
        assert!(learn(60).1 < 0.6 * learn(1).1);
        let with_threads =
            |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| learn(3).0);
        assert_eq!(with_threads(1).constants, with_threads(3).constants);
        // Batch norm goes by its running statistics, and they stay.
        assert_eq!(learn(3).0.constants["norm.running_mean"], graph().constants["norm.running_mean"]);
        assert_ne!(learn(3).0.constants["stem.weight"], graph().constants["stem.weight"]);
    }

    #[test]
    fn a_sample_has_the_same_bits_in_every_batch() {
        let (image, code) = (draw(2 * CHUNK + 3, &[2, 3, 4], 1), draw(2 * CHUNK + 3, &[3], 2));
        let network = network(graph());
        let whole = network.forward(&[&image, &code]).unwrap();
        for rows in [vec![0], vec![34, 7, 3], (0..20).rev().collect::<Vec<_>>()] {
            let part = network.forward(&[&image.select(&rows), &code.select(&rows)]).unwrap();
            for (one, other) in part.outputs().iter().zip(whole.outputs()) {
                assert_eq!(*one, other.select(&rows));
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let network = network(graph());
        let (image, code) = (draw(2, &[2, 3, 4], 1), draw(2, &[3], 2));
        assert!(network.forward(&[&image]).is_err());
        assert!(network.forward(&[&image, &code.select(&[0])]).is_err());
        assert!(network.forward(&[&image.select(&[]), &code.select(&[])]).is_err());
        assert!(network.forward(&[&code, &code]).is_err());
        let pass = || network.forward(&[&image, &code]).unwrap();
        assert!(pass().pull_back(&[&[0.0; 4]]).is_err());
        assert!(pass().pull_back(&[&[0.0; 4], &[0.0; 7]]).is_err());
        assert!(pass().pull_back(&[&[f32::NAN; 4], &[0.0; 8]]).is_err());
        let mut broken = image.clone();
        broken.values_mut()[3] = f32::NAN;
        assert!(network.forward(&[&broken, &code]).is_err());
        for (learning_rate, momentum) in [(0.0, 0.9), (f32::NAN, 0.9), (0.1, 1.0), (0.1, -0.1)] {
            assert!(Network::new(graph(), Adam { learning_rate, momentum }, &Device::flex()).is_err());
        }
        let mut b = GraphBuilder::new("nothing to learn", Seed(1));
        let x = b.input("x", &[2]);
        let x = b.relu("relu", &x);
        let nothing = b.finish(&[&x]).unwrap();
        assert!(Network::new(nothing, Adam { learning_rate: 0.1, momentum: 0.9 }, &Device::flex()).is_err());
    }
}
