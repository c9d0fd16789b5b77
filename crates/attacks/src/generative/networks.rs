//! The small networks of this family.
//!
//! ```text
//! u = half-ranges from the middle of the bounds, in [−1, 1];  c the code of the wanted class, where there is one
//! generator    tanh( conv(relu(conv(u) + A·c)) + W₂·relu(W₁·u + B·c) )      one value an element, in (−1, 1)
//! classifier   W₂·lrelu(W₁·u)   plus, where there is space,  W₃·mean(lrelu(conv(lrelu(conv(u)))))
//! decoder      tanh( W₂·relu(W₁·z) )
//! ```
//!
//! The convolutions (3 wide, along all axes of space) follow what is local, the dense path with its narrow middle what
//! belongs to a place or to the whole. A table has the dense path alone. No layer looks at more than one sample.

use serde::{Deserialize, Serialize};

use nocebo_core::{Domain, Error, Samples, Seed};
use nocebo_graph::network::Adam;
use nocebo_graph::operators::{Activation, Convolution, Unsqueeze};
use nocebo_graph::{Device, Graph, GraphBuilder, Network, Tensor};

/// Most weights of one dense layer.
const MOST_WEIGHTS: usize = 1 << 25;

/// Size of the networks and length of their training.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkConfig {
    /// Channels of the convolutions; 1 to 1024.
    pub width: usize,
    /// Units of the dense layer; 1 to 65536.
    pub hidden: usize,
    /// Steps of Adam; at least 1.
    pub steps: usize,
    /// Samples of a step; at least 1.
    pub batch: usize,
    /// Learning rate of Adam; finite and above 0.
    pub learning_rate: f32,
    /// β₁ of Adam; at least 0 and below 1.
    pub momentum: f32,
}

impl Default for NetworkConfig {
    /// Values chosen here for small images.
    fn default() -> Self {
        Self { width: 16, hidden: 64, steps: 500, batch: 32, learning_rate: 2e-3, momentum: 0.9 }
    }
}

impl NetworkConfig {
    pub(super) fn check(&self) -> Result<(), Error> {
        if !(1..=1024).contains(&self.width) {
            return Err(Error::invalid("width", "1 to 1024", self.width));
        }
        if !(1..=65536).contains(&self.hidden) {
            return Err(Error::invalid("hidden", "1 to 65536", self.hidden));
        }
        for (field, value) in [("steps", self.steps), ("batch", self.batch)] {
            if value == 0 {
                return Err(Error::invalid(field, "at least 1", value));
            }
        }
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            return Err(Error::invalid("learning_rate", "finite and above 0", self.learning_rate));
        }
        if !(0.0..1.0).contains(&self.momentum) {
            return Err(Error::invalid("momentum", "at least 0 and below 1", self.momentum));
        }
        Ok(())
    }

    fn network(&self, graph: Graph) -> Result<Network, Error> {
        let adam = Adam { learning_rate: self.learning_rate, momentum: self.momentum };
        Ok(Network::new(graph, adam, &Device::flex())?)
    }

    /// Makes one value in (−1, 1) an element from samples and, where `codes` is above 0, a code of that length.
    pub(super) fn generator(&self, shape: &[usize], codes: usize, seed: Seed) -> Result<Network, Error> {
        let elements = self.checked(shape.iter().product())?;
        let (mut b, axes) = (GraphBuilder::new("generator", seed), shape.len() - 1);
        let sample = b.input("sample", shape);
        let code = (codes > 0).then(|| b.input("code", &[codes]));
        let flat = b.flatten("flat", &sample);
        let mut hidden = b.linear("hidden", &flat, (elements, self.hidden));
        if let Some(code) = &code {
            let part = b.linear("hidden.code", code, (codes, self.hidden));
            hidden = b.add("hidden.sum", &hidden, &part);
        }
        let hidden = b.relu("hidden.relu", &hidden);
        let mut made = b.linear("dense", &hidden, (self.hidden, elements));
        if axes > 0 {
            let same = Convolution::new(axes, 1, 1);
            let mut x = b.convolution_with_bias("conv1", &sample, (shape[0], self.width), 3, same.clone());
            if let Some(code) = &code {
                let part = b.linear("conv1.code", code, (codes, self.width));
                let places: Vec<i64> = (2..2 + axes as i64).collect();
                let places = b.constant("conv1.code.axes", Tensor::list(&places));
                let part = b.node("conv1.code.spread", Unsqueeze, &[&part, &places]);
                x = b.add("conv1.sum", &x, &part);
            }
            let x = b.relu("conv1.relu", &x);
            let x = b.convolution_with_bias("conv2", &x, (self.width, shape[0]), 3, same);
            let x = b.flatten("conv2.flat", &x);
            made = b.add("made", &made, &x);
        }
        let made = b.node("tanh", Activation::Tanh, &[&made]);
        self.network(b.finish(&[&made])?)
    }

    /// One row of `outputs` values for each head of a sample: a critic, an inverter, a classifier.
    pub(super) fn classifier(&self, shape: &[usize], heads: &[usize], seed: Seed) -> Result<Network, Error> {
        let elements = self.checked(shape.iter().product())?;
        let (mut b, axes) = (GraphBuilder::new("classifier", seed), shape.len() - 1);
        let sample = b.input("sample", shape);
        let leaky = Activation::LeakyRelu { alpha: 0.2 };
        let flat = b.flatten("flat", &sample);
        let hidden = b.linear("hidden", &flat, (elements, self.hidden));
        let hidden = b.node("hidden.relu", leaky, &[&hidden]);
        let pooled = (axes > 0).then(|| {
            let same = Convolution::new(axes, 1, 1);
            let x = b.convolution_with_bias("conv1", &sample, (shape[0], self.width), 3, same.clone());
            let x = b.node("conv1.relu", leaky, &[&x]);
            let x = b.convolution_with_bias("conv2", &x, (self.width, self.width), 3, same);
            let x = b.node("conv2.relu", leaky, &[&x]);
            b.global_average("pool", &x)
        });
        let mut outputs = Vec::with_capacity(heads.len());
        for (head, &count) in heads.iter().enumerate() {
            let name = |part: &str| format!("head{head}{part}");
            let mut x = b.linear(&name(""), &hidden, (self.hidden, count));
            if let Some(pooled) = &pooled {
                let y = b.linear(&name(".pooled"), pooled, (self.width, count));
                x = b.add(&name(".sum"), &x, &y);
            }
            outputs.push(x);
        }
        self.network(b.finish(&outputs.iter().collect::<Vec<_>>())?)
    }

    /// Makes one value in (−1, 1) an element from a latent vector.
    pub(super) fn decoder(&self, latent: usize, shape: &[usize], seed: Seed) -> Result<Network, Error> {
        let elements = self.checked(shape.iter().product())?;
        let mut b = GraphBuilder::new("decoder", seed);
        let z = b.input("latent", &[latent]);
        let hidden = b.linear("hidden", &z, (latent, self.hidden));
        let hidden = b.relu("hidden.relu", &hidden);
        let made = b.linear("dense", &hidden, (self.hidden, elements));
        let made = b.node("tanh", Activation::Tanh, &[&made]);
        self.network(b.finish(&[&made])?)
    }

    /// One layer from a latent vector to `outputs` logits.
    pub(super) fn linear(&self, latent: usize, outputs: usize, seed: Seed) -> Result<Network, Error> {
        let mut b = GraphBuilder::new("linear", seed);
        let z = b.input("latent", &[latent]);
        let x = b.linear("logits", &z, (latent, outputs));
        self.network(b.finish(&[&x])?)
    }

    /// The number of elements, if a dense layer over them is of a bearable size.
    fn checked(&self, elements: usize) -> Result<usize, Error> {
        match elements.checked_mul(self.hidden) {
            Some(weights) if weights <= MOST_WEIGHTS => Ok(elements),
            _ => Err(Error::unsupported(
                format!("a dense layer from {elements} elements to {} units", self.hidden),
                format!("it would have more than {MOST_WEIGHTS} weights; lower `hidden`"),
            )),
        }
    }
}

/// Samples in half-ranges from the middle of their bounds: what the networks take.
pub(super) fn scaled(domain: &Domain, samples: &Samples) -> Samples {
    let mut scaled = samples.clone();
    for row in scaled.rows_mut() {
        for (element, value) in row.iter_mut().enumerate() {
            let (lower, upper) = (domain.lower()[element], domain.upper()[element]);
            *value = 2.0 * (*value - lower) / (upper - lower) - 1.0;
        }
    }
    scaled
}

/// The sample, in the unit of the data, that a decoder's values stand for.
pub(super) fn unscaled(domain: &Domain, values: &[f32]) -> Vec<f32> {
    let at = |(element, value): (usize, &f32)| {
        let (lower, upper) = (domain.lower()[element], domain.upper()[element]);
        (lower + 0.5 * (value + 1.0) * (upper - lower)).clamp(lower, upper)
    };
    values.iter().enumerate().map(at).collect()
}

#[cfg(test)]
pub(super) mod testing {
    use super::NetworkConfig;

    /// A few hundred weights and a few dozen steps.
    pub(crate) fn tiny() -> NetworkConfig {
        NetworkConfig { width: 3, hidden: 6, steps: 40, batch: 4, learning_rate: 0.02, momentum: 0.9 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_take_every_shape_and_give_what_they_say() {
        let config = testing::tiny();
        for shape in [&[5][..], &[2, 7], &[3, 4, 5], &[1, 3, 4, 2]] {
            let elements: usize = shape.iter().product();
            let samples = Samples::new((0..2 * elements).map(|at| (at % 7) as f32 / 7.0).collect(), shape).unwrap();
            let code = Samples::new(vec![1.0, 0.0, 0.0, 1.0], &[2]).unwrap();
            let size = |network: &Network, inputs: &[&Samples]| {
                let pass = network.forward(inputs).unwrap();
                pass.outputs().iter().map(Samples::elements).collect::<Vec<_>>()
            };
            assert_eq!(size(&config.generator(shape, 0, Seed(1)).unwrap(), &[&samples]), [elements]);
            assert_eq!(size(&config.generator(shape, 2, Seed(1)).unwrap(), &[&samples, &code]), [elements]);
            assert_eq!(size(&config.classifier(shape, &[3, 1], Seed(1)).unwrap(), &[&samples]), [3, 1]);
            assert_eq!(size(&config.decoder(2, shape, Seed(1)).unwrap(), &[&code]), [elements]);
        }
    }

    #[test]
    fn the_code_changes_what_a_generator_makes_on_both_paths() {
        let samples = Samples::new(vec![0.1; 2 * 12], &[1, 3, 4]).unwrap();
        let code = Samples::new(vec![1.0, 0.0, 0.0, 1.0], &[2]).unwrap();
        let network = testing::tiny().generator(&[1, 3, 4], 2, Seed(1)).unwrap();
        let made = network.forward(&[&samples, &code]).unwrap().outputs()[0].clone();
        assert_ne!(made.row(0), made.row(1));
        let gradients = network.forward(&[&samples, &code]).unwrap().pull_back(&[&[1.0; 24]]).unwrap();
        for name in ["hidden.code.weight", "conv1.code.weight", "conv2.weight", "dense.bias"] {
            assert!(gradients.parameters[name].iter().any(|slope| *slope != 0.0), "{name}");
        }
    }

    #[test]
    fn scaling_goes_there_and_back() {
        let domain = nocebo_testkit::suite::ct_domain();
        let samples = nocebo_testkit::suite::ct_samples();
        let scaled = scaled(&domain, &samples);
        assert!(scaled.values().iter().all(|value| (-1.0..=1.0).contains(value)));
        for (row, clean) in scaled.rows().zip(samples.rows()) {
            let back = unscaled(&domain, row);
            assert!(back.iter().zip(clean).all(|(a, b)| (a - b).abs() < 1e-3), "{back:?}");
        }
    }

    #[test]
    fn networks_that_are_too_great_are_refused() {
        let config = NetworkConfig { hidden: 65536, ..NetworkConfig::default() };
        let answer = config.generator(&[3, 512, 512], 0, Seed(1));
        assert!(matches!(answer.err(), Some(Error::Unsupported { .. })));
    }
}
