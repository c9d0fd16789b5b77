//! A graph as a model that attacks can ask.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use nocebo_core::{DifferentiableModel, Gradient, Model, ModelSpec, Objective, Outputs, Samples, Task};
use rayon::prelude::*;

use crate::executor::{Execution, Executor, Mode, no_gradient};
use crate::onnx::SPEC_KEY as SPEC;
use crate::value::{DeviceTensor, Value};
use crate::{Device, Dimension, Error, Graph};

/// Samples in one pass of the network, where the graph leaves the batch open.
///
/// Matrix products round differently for different shapes, so every pass has the same one: the last is filled up with
/// copies of its first sample. The value is a compromise between full passes and little waste on the few samples that
/// an attack still works on.
pub(crate) const CHUNK: usize = 16;

/// Most values of the samples of one pass: of large pictures and volumes there are fewer than [`CHUNK`], down to one, since
/// a network keeps many times their size.
const CHUNK_VALUES: usize = 1 << 18;

impl Graph {
    /// The spec that nocebo wrote into this graph; `None` for a graph from elsewhere.
    ///
    /// # Errors
    ///
    /// When there is one that cannot be read.
    pub fn spec(&self) -> Result<Option<ModelSpec>, Error> {
        let Some(text) = self.metadata.get(SPEC) else { return Ok(None) };
        match serde_json::from_str(text) {
            Ok(spec) => Ok(Some(spec)),
            Err(error) => Err(Error::graph(format!("metadata `{SPEC}`"), "the spec of a model as JSON", error)),
        }
    }

    /// Writes the spec into the graph, so that its file needs no other.
    ///
    /// # Errors
    ///
    /// When the spec holds a number that JSON lacks.
    pub fn set_spec(&mut self, spec: &ModelSpec) -> Result<(), Error> {
        let text = serde_json::to_string(spec).map_err(|error| Error::graph("spec", "finite numbers", error))?;
        self.metadata.insert(SPEC.to_owned(), text);
        Ok(())
    }
}

/// Logits, objectives and input gradients of the samples of one pass.
type Pulled = (Vec<f32>, Vec<f32>, Vec<f32>);

/// A network on a device, with what it takes and decides.
///
/// The first input of the graph takes the samples, `[batch, ...]`, and its first output gives the logits; where it ends in
/// the softmax or sigmoid of the task, that is left out ([`Graph::up_to_logits`]). The answer for
/// a sample is the same to the bit whatever batch it comes in and however many threads work.
pub struct GraphModel {
    executor: Executor,
    spec: ModelSpec,
    chunk: usize,
}

impl GraphModel {
    /// Puts `graph` on `device`.
    ///
    /// # Errors
    ///
    /// When the graph is not well formed, takes more than one input or other samples than `spec` says, or does not give
    /// as many logits as its task needs.
    pub fn new(graph: impl Into<Arc<Graph>>, spec: ModelSpec, device: &Device) -> Result<Self, Error> {
        spec.check()?;
        let graph = Arc::new(graph.into().up_to_logits(&spec.task));
        let [input] = graph.inputs.as_slice() else {
            return Err(Error::graph("inputs of the network", "one, for the samples", graph.inputs.len()));
        };
        let chunk = match input.shape.as_deref().and_then(<[Dimension]>::first) {
            Some(Dimension::Fixed(batch)) if *batch > 0 => *batch,
            _ => (CHUNK_VALUES / spec.domain.elements()).clamp(1, CHUNK),
        };
        let executor = Executor::new(graph.clone(), device)?;
        let mut shape = vec![chunk];
        shape.extend_from_slice(spec.domain.shape());
        let facts = executor.facts(&[shape])?;
        let output = facts.get(&graph.outputs[0]).and_then(|fact| fact.shape.clone());
        let fits = |got: &[usize]| match &spec.task {
            Task::Segmentation(task) => {
                got.len() == task.shape.len() + 2 && got[..2] == [chunk, task.logits()] && got[2..] == task.shape
            }
            task => got.iter().product::<usize>() == chunk * task.outputs(),
        };
        if !output.as_deref().is_some_and(fits) {
            let got = output.map_or("a shape that depends on the values".to_owned(), |shape| format!("{shape:?}"));
            let expected = match &spec.task {
                Task::Segmentation(task) => {
                    format!("{} logits for each of {:?} positions of {chunk} samples", task.logits(), task.shape)
                }
                task => format!("{} logits for each of {chunk} samples", task.outputs()),
            };
            return Err(Error::graph("output of the network", expected, got));
        }
        Ok(Self { executor, spec, chunk })
    }

    /// The network up to its logits.
    pub fn graph(&self) -> &Arc<Graph> {
        self.executor.graph()
    }

    /// Rows of each pass, as ranges of the batch.
    fn passes(&self, inputs: &Samples) -> Vec<Range<usize>> {
        (0..inputs.len()).step_by(self.chunk).map(|start| start..inputs.len().min(start + self.chunk)).collect()
    }

    /// The samples of a pass, filled up by repeating the first.
    fn input(&self, inputs: &Samples, rows: &Range<usize>) -> DeviceTensor {
        let size = inputs.elements();
        let mut values = Vec::with_capacity(self.chunk * size);
        values.extend_from_slice(&inputs.values()[rows.start * size..rows.end * size]);
        while values.len() < self.chunk * size {
            values.extend_from_slice(inputs.row(rows.start));
        }
        let mut shape = vec![self.chunk];
        shape.extend_from_slice(inputs.shape());
        DeviceTensor::new(values, &shape, self.executor.device())
    }

    fn run(&self, input: DeviceTensor) -> Result<Execution, Error> {
        self.executor.run(vec![Value::floats(input)], &HashMap::new(), Mode::default())
    }

    fn logits(&self, inputs: &Samples) -> Result<Vec<f32>, Error> {
        let width = self.spec.task.outputs();
        let pass = |rows: Range<usize>| -> Result<Vec<f32>, Error> {
            let execution = self.run(self.input(inputs, &rows))?;
            let mut logits = floats(&execution.outputs[0])?;
            logits.truncate(rows.len() * width);
            Ok(logits)
        };
        let logits: Vec<Vec<f32>> = self.passes(inputs).into_par_iter().map(pass).collect::<Result<_, _>>()?;
        Ok(logits.concat())
    }

    /// Logits, objectives and input gradients of the samples of one pass.
    fn pull_back(&self, inputs: &Samples, rows: Range<usize>, objective: &dyn Objective) -> Result<Pulled, Error> {
        let width = self.spec.task.outputs();
        let leaf = self.input(inputs, &rows).tracked();
        let execution = self.run(leaf.clone())?;
        let mut logits = floats(&execution.outputs[0])?;
        let mut cotangent = vec![0.0; logits.len()];
        let mut values = Vec::with_capacity(rows.len());
        for (position, row) in rows.clone().enumerate() {
            let own = position * width..(position + 1) * width;
            values.push(objective.evaluate(row, &logits[own.clone()], &mut cotangent[own])?);
        }
        logits.truncate(rows.len() * width);
        let pulled = match &execution.outputs[0] {
            Value::Device(result, _) if result.is_tracked() => {
                let cotangent = DeviceTensor::new(cotangent, &result.shape(), self.executor.device());
                leaf.gradient(&mut result.mul(&cotangent).total().backward())
            }
            _ => None,
        };
        let pulled = pulled.ok_or_else(|| no_gradient("the input", &execution.cuts))?;
        let mut slopes = pulled.to_floats().map_err(|reason| Error::graph("gradient", "values", reason))?;
        slopes.truncate(rows.len() * inputs.elements());
        Ok((logits, values, slopes))
    }

    fn wrap(&self, values: Vec<f32>, inputs: &Samples) -> Result<Outputs, nocebo_core::Error> {
        Ok(Samples::new(values, &[self.spec.task.outputs()])?.with_indices(inputs.indices().to_vec())?.into())
    }
}

fn floats(value: &Value) -> Result<Vec<f32>, Error> {
    let read = match value {
        Value::Device(tensor, _) => tensor.to_floats(),
        Value::Host(tensor) => Ok(tensor.to_f32().into_owned()),
    };
    read.map_err(|reason| Error::graph("output of the network", "values", reason))
}

impl Model for GraphModel {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn outputs(&self, inputs: &Samples) -> Result<Outputs, nocebo_core::Error> {
        self.spec.check_shape(inputs)?;
        self.wrap(self.logits(inputs)?, inputs)
    }
}

impl DifferentiableModel for GraphModel {
    fn gradient(&self, inputs: &Samples, objective: &dyn Objective) -> Result<Gradient, nocebo_core::Error> {
        self.spec.check_shape(inputs)?;
        let pass = |rows| self.pull_back(inputs, rows, objective);
        let passes: Vec<Pulled> = self.passes(inputs).into_par_iter().map(pass).collect::<Result<_, Error>>()?;
        let (mut logits, mut values, mut slopes) = (Vec::new(), Vec::new(), Vec::with_capacity(inputs.values().len()));
        for (part, part_values, part_slopes) in passes {
            logits.extend(part);
            values.extend(part_values);
            slopes.extend(part_slopes);
        }
        Ok(Gradient {
            outputs: self.wrap(logits, inputs)?,
            values,
            inputs: Samples::new(slopes, inputs.shape())?.with_indices(inputs.indices().to_vec())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zoo::{self, Blueprint};
    use nocebo_core::{Domain, Goal, GoalObjective, Label, Loss, Seed, Task};
    use rand::RngExt;

    fn model(name: &str, shape: &[usize]) -> GraphModel {
        let task = Task::MultiClass { classes: 3 };
        let class_names = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
        let spec = ModelSpec { domain: Domain::grey_levels(shape, 255.0).unwrap(), task, class_names };
        let blueprint = Blueprint { spec: &spec, mean: &[120.0], standard_deviation: &[60.0], seed: Seed(1) };
        let graph = zoo::build(name, &blueprint).unwrap();
        GraphModel::new(graph, spec, &Device::default()).unwrap()
    }

    fn samples(count: usize, shape: &[usize]) -> Samples {
        let mut generator = Seed(3).for_sample(0);
        let values = (0..count * shape.iter().product::<usize>()).map(|_| generator.random_range(0.0..255.0)).collect();
        Samples::new(values, shape).unwrap()
    }

    fn gradient(model: &GraphModel, inputs: &Samples) -> Gradient {
        let goal = Goal::Untargeted { labels: vec![Label::Class(0); inputs.len()] };
        let objective = GoalObjective::new(&goal, &model.spec().task, Loss::CrossEntropy).unwrap();
        model.gradient(inputs, &objective).unwrap()
    }

    #[test]
    fn a_sample_has_the_same_bits_at_every_place_of_a_batch() {
        let shape = [1, 12, 12];
        let inputs = samples(CHUNK + 3, &shape);
        for name in ["mlp", "small-cnn", "resnet18"] {
            let model = model(name, &shape);
            let whole = gradient(&model, &inputs);
            for rows in [vec![0], vec![CHUNK + 2, 5], (0..CHUNK + 3).rev().collect::<Vec<_>>()] {
                let part = gradient(&model, &inputs.select(&rows));
                let alone = model.outputs(&inputs.select(&rows)).unwrap();
                for (position, &row) in rows.iter().enumerate() {
                    assert_eq!(part.outputs.row(position), whole.outputs.row(row), "{name}");
                    assert_eq!(alone.row(position), whole.outputs.row(row), "{name}");
                    assert_eq!(part.inputs.row(position), whole.inputs.row(row), "{name}");
                    assert_eq!(part.values[position], whole.values[row], "{name}");
                }
            }
        }
    }

    #[test]
    fn gradients_agree_with_central_differences() {
        let shape = [1, 8, 8];
        let inputs = samples(2, &shape);
        let model = model("small-cnn", &shape);
        let slopes = gradient(&model, &inputs).inputs;
        // One direction at a time is too coarse in f32: follow the gradient itself, and a direction at random.
        for seed in 0..4 {
            let mut generator = Seed(seed).for_sample(9);
            let direction: Vec<f32> = if seed == 0 {
                slopes.values().to_vec()
            } else {
                slopes.values().iter().map(|_| generator.random_range(-1.0_f32..1.0)).collect()
            };
            let length = direction.iter().map(|part| part * part).sum::<f32>().sqrt();
            let at = |size: f32| {
                let mut moved = inputs.clone();
                moved.values_mut().iter_mut().zip(&direction).for_each(|(value, part)| *value += size * part / length);
                gradient(&model, &moved).values.iter().map(|value| f64::from(*value)).sum::<f64>()
            };
            let expected: f64 =
                slopes.values().iter().zip(&direction).map(|(slope, part)| f64::from(slope * part / length)).sum();
            let got = (at(0.5) - at(-0.5)) / 1.0;
            assert!((got - expected).abs() < 2e-2 * expected.abs() + 1e-4, "{seed}: {got} against {expected}");
        }
    }

    #[test]
    fn a_spec_that_does_not_fit_is_refused() {
        let small = model("small-cnn", &[1, 12, 12]);
        let graph = small.graph().clone();
        let wrong_task = ModelSpec {
            task: Task::MultiClass { classes: 2 },
            class_names: vec!["a".into(), "b".into()],
            ..small.spec.clone()
        };
        let message = GraphModel::new(graph.clone(), wrong_task, &Device::default()).err().unwrap().to_string();
        assert!(message.contains("2 logits") && message.contains("[16, 3]"), "{message}");
        let wrong_shape = ModelSpec { domain: Domain::grey_levels(&[3, 12, 12], 255.0).unwrap(), ..small.spec.clone() };
        assert!(GraphModel::new(graph, wrong_shape, &Device::default()).is_err());
        assert!(small.outputs(&samples(1, &[1, 8, 8])).is_err());
    }

    #[test]
    fn the_spec_travels_with_the_graph() {
        let small = model("small-cnn", &[1, 12, 12]);
        let mut graph = small.graph().as_ref().clone();
        assert_eq!(graph.spec().unwrap().as_ref(), Some(small.spec()));
        graph.metadata.clear();
        assert_eq!(graph.spec().unwrap(), None);
        graph.set_spec(small.spec()).unwrap();
        let file = crate::onnx::to_bytes(&graph).unwrap();
        let mut graph = crate::onnx::read_bytes(&file).unwrap();
        assert_eq!(graph.spec().unwrap().as_ref(), Some(small.spec()));
        graph.metadata.insert("nocebo.spec".to_owned(), "{".to_owned());
        assert!(graph.spec().is_err());
    }
}
