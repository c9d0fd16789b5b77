//! Preprocessing put in front of a network that was made elsewhere.

use std::sync::Arc;

use crate::graph::{Graph, Node, PREPROCESSING};
use crate::operators::Arithmetic;
use crate::{Error, Tensor};

impl Graph {
    /// The same network behind `(x − mean) / standard deviation`, one number a channel, in the unit of the data: so that
    /// it takes the data as they are stored, and budgets are in their unit.
    ///
    /// # Errors
    ///
    /// When the network takes more than one input or one of unknown rank, the numbers are not one a channel, a mean is not
    /// finite, or a standard deviation is not finite and above 0.
    pub fn normalized(&self, mean: &[f32], standard_deviation: &[f32]) -> Result<Self, Error> {
        let [input] = self.inputs.as_slice() else {
            return Err(Error::graph("inputs of the network", "one, to be normalised", self.inputs.len()));
        };
        let Some(rank) = input.shape.as_ref().map(Vec::len).filter(|rank| *rank >= 2) else {
            return Err(Error::graph("input to be normalised", "a shape of a batch with channels", "none"));
        };
        let usable = mean.iter().all(|mean| mean.is_finite())
            && standard_deviation.iter().all(|deviation| deviation.is_finite() && *deviation > 0.0);
        if mean.is_empty() || mean.len() != standard_deviation.len() || !usable {
            return Err(Error::graph(
                "normalisation",
                "one finite mean and one standard deviation above 0 a channel",
                format!("{mean:?} and {standard_deviation:?}"),
            ));
        }
        let mut graph = self.clone();
        let raw = input.name.clone();
        let name = |part: &str| format!("{PREPROCESSING}{part}");
        let mut shape = vec![mean.len()];
        shape.resize(rank - 1, 1);
        for (part, values) in [("mean", mean), ("standard_deviation", standard_deviation)] {
            let tensor = Tensor::floats(&shape, values.to_vec())
                .map_err(|error| Error::graph("normalisation", "numbers of one channel each", error))?;
            graph.constants.insert(name(part), Arc::new(tensor));
        }
        for input in graph.nodes.iter_mut().flat_map(|node| &mut node.inputs).filter(|input| **input == raw) {
            *input = name("scale");
        }
        let node = |part: &str, operator: Arithmetic, from: String, constant: &str| Node {
            name: name(part),
            operator: operator.into(),
            inputs: vec![from, name(constant)],
            outputs: vec![name(part)],
        };
        let centre = node("centre", Arithmetic::Sub, raw, "mean");
        let scale = node("scale", Arithmetic::Div, name("centre"), "standard_deviation");
        graph.nodes.splice(0..0, [centre, scale]);
        graph.check()?;
        Ok(graph)
    }

    /// The same network whose output is multiplied with a scale and has a mean added: a network learns numbers around 0 with a
    /// spread of 1 better than months or millilitres.
    ///
    /// # Errors
    ///
    /// When the network gives more than one output, or a number is not finite or the scale not above 0.
    pub fn in_unit_of_labels(&self, mean: f32, scale: f32) -> Result<Self, Error> {
        let [output] = self.outputs.as_slice() else {
            return Err(Error::graph("outputs of the network", "one, to be scaled", self.outputs.len()));
        };
        if !(mean.is_finite() && scale.is_finite() && scale > 0.0) {
            return Err(Error::graph(
                "scale of an output",
                "a finite mean, a scale above 0",
                format!("{mean}, {scale}"),
            ));
        }
        let mut graph = self.clone();
        let name = |part: &str| format!("{PREPROCESSING}output.{part}");
        let steps = [(Arithmetic::Mul, output.clone(), "scale", scale), (Arithmetic::Add, name("scale"), "mean", mean)];
        for (operator, from, part, value) in steps {
            let tensor = Tensor::floats(&[1], vec![value])
                .map_err(|error| Error::graph("scale of an output", "one number", error))?;
            let constant = format!("{}.value", name(part));
            graph.constants.insert(constant.clone(), Arc::new(tensor));
            graph.nodes.push(Node {
                name: name(part),
                operator: operator.into(),
                inputs: vec![from, constant],
                outputs: vec![name(part)],
            });
        }
        graph.outputs = vec![name("mean")];
        graph.check()?;
        Ok(graph)
    }
}

#[cfg(test)]
mod tests {
    use nocebo_core::Seed;

    use super::*;
    use crate::{Device, Executor, GraphBuilder};

    fn doubled() -> Graph {
        let mut b = GraphBuilder::new("doubled", Seed(1));
        let x = b.input("image", &[2, 1, 1]);
        let y = b.add("sum", &x, &x);
        b.finish(&[&y]).unwrap()
    }

    #[test]
    fn the_network_sees_normalised_values() {
        let graph = doubled().normalized(&[10.0, 20.0], &[2.0, 5.0]).unwrap();
        let executor = Executor::new(graph, &Device::default()).unwrap();
        let input = Tensor::floats(&[1, 2, 1, 1], vec![14.0, 10.0]).unwrap();
        assert_eq!(executor.forward(&[input]).unwrap()[0].to_f32().as_ref(), [4.0, -4.0]);
    }

    #[test]
    fn the_output_is_in_the_unit_of_the_labels() {
        let graph = doubled().in_unit_of_labels(100.0, 10.0).unwrap();
        let executor = Executor::new(graph, &Device::default()).unwrap();
        let input = Tensor::floats(&[1, 2, 1, 1], vec![1.0, -2.0]).unwrap();
        assert_eq!(executor.forward(&[input]).unwrap()[0].to_f32().as_ref(), [120.0, 60.0]);
        assert!(doubled().in_unit_of_labels(f32::NAN, 1.0).is_err() && doubled().in_unit_of_labels(0.0, 0.0).is_err());
    }

    #[test]
    fn numbers_that_cannot_normalise_are_refused() {
        for (mean, deviation) in
            [(vec![], vec![]), (vec![1.0], vec![0.0]), (vec![f32::NAN], vec![1.0]), (vec![1.0], vec![])]
        {
            assert!(doubled().normalized(&mean, &deviation).is_err(), "{mean:?} {deviation:?}");
        }
        // A file that nocebo wrote normalises by itself.
        assert!(doubled().normalized(&[1.0], &[1.0]).unwrap().normalized(&[1.0], &[1.0]).is_err());
    }
}
