//! Vectors stored by the scripts in `bench/golden`: what a peer computed on a small network that is stored with them.

#![expect(clippy::unwrap_used, reason = "a stored vector that cannot be read is a failed test")]

use std::path::Path;

use nocebo_core::{Domain, DomainConfig, Field, Label, Task, Unit};
use safetensors::SafeTensors;

use crate::models::{Linear, SmallRelu};

/// The arrays and parameters of one script.
pub struct Golden {
    arrays: Vec<u8>,
    /// Names, versions and all parameters.
    pub parameters: toml::Table,
}

impl Golden {
    /// `<name>.safetensors` and `<name>.toml` of a folder.
    pub fn open(folder: &Path, name: &str) -> Self {
        let arrays = std::fs::read(folder.join(format!("{name}.safetensors"))).unwrap();
        let parameters = std::fs::read_to_string(folder.join(format!("{name}.toml"))).unwrap();
        Self { arrays, parameters: parameters.parse().unwrap() }
    }

    /// An array of 32-bit floats, flat.
    pub fn floats(&self, name: &str) -> Vec<f32> {
        self.bytes(name).chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
    }

    /// An array of 64-bit integers, none below 0.
    pub fn integers(&self, name: &str) -> Vec<usize> {
        self.bytes(name).chunks_exact(8).map(|eight| i64::from_le_bytes(eight.try_into().unwrap()) as usize).collect()
    }

    /// An array of classes.
    pub fn labels(&self, name: &str) -> Vec<Label> {
        self.integers(name).into_iter().map(Label::Class).collect()
    }

    /// A parameter that is a number.
    pub fn parameter(&self, name: &str) -> f32 {
        self.parameters[name].as_float().unwrap() as f32
    }

    /// The network: `hidden.weight`, `hidden.bias`, `head.weight` and `head.bias`, a ReLU between them.
    pub fn network(&self, inputs: Domain) -> SmallRelu {
        let features = inputs.elements();
        let rows =
            |name: &str, width: usize| self.floats(name).chunks_exact(width).map(<[f32]>::to_vec).collect::<Vec<_>>();
        let (hidden, head) = (self.floats("hidden.bias"), self.floats("head.bias"));
        let (units, hidden_domain) = (hidden.len(), domain(&[hidden.len()], 0.0, 1.0));
        SmallRelu::new(
            Linear::new(inputs, Task::MultiClass { classes: units }, rows("hidden.weight", features), hidden),
            Linear::new(hidden_domain, Task::MultiClass { classes: head.len() }, rows("head.weight", units), head),
        )
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        SafeTensors::deserialize(&self.arrays).unwrap().tensor(name).unwrap().data().to_vec()
    }
}

/// Samples between two bounds, stored as floats.
pub fn domain(shape: &[usize], lower: f32, upper: f32) -> Domain {
    DomainConfig {
        shape: shape.to_vec(),
        unit: Unit::Other("unit".to_owned()),
        lower: Field::Uniform(lower),
        upper: Field::Uniform(upper),
        resolution: Field::Uniform(0.0),
        region: None,
    }
    .try_into()
    .unwrap()
}
