//! Networks written down layer by layer.

use std::sync::Arc;

use nocebo_core::Seed;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal, Uniform};

use crate::graph::{Graph, Input, Node, PREPROCESSING};
use crate::operators::{
    Activation, Arithmetic, BatchNormalization, Clip, Concat, Convolution, Flatten, Gemm, GlobalPool,
    GroupNormalization, LayerNormalization, Operator, Pool, PoolKind, TransposedConvolution,
};
use crate::{Error, OperatorError, Tensor};

/// A value of the graph that is being built: the name of the node or input that makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handle(String);

/// Builds a [`Graph`] layer by layer.
///
/// Each layer gets a name; its weights are `<name>.weight` and `<name>.bias`, and start at random values drawn from
/// (seed, that name). What is wrong with a layer is said by [`GraphBuilder::finish`].
///
/// ```
/// # use nocebo_graph::{GraphBuilder, operators::Convolution};
/// # use nocebo_core::Seed;
/// let mut b = GraphBuilder::new("tiny", Seed(1));
/// let x = b.input("image", &[1, 8, 8]);
/// let x = b.convolution("stem", &x, (1, 4), 3, Convolution::new(2, 1, 1));
/// let x = b.relu("stem.relu", &x);
/// let x = b.global_average("pool", &x);
/// let x = b.linear("head", &x, (4, 2));
/// let graph = b.finish(&[&x])?;
/// assert_eq!(graph.parameter_count(), 4 * 9 + 4 * 2 + 2);
/// # Ok::<(), nocebo_graph::Error>(())
/// ```
pub struct GraphBuilder {
    graph: Graph,
    seed: Option<Seed>,
    failure: Option<Error>,
}

impl GraphBuilder {
    /// An empty network.
    pub fn new(name: &str, seed: Seed) -> Self {
        Self { graph: Graph { name: name.to_owned(), ..Graph::default() }, seed: Some(seed), failure: None }
    }

    /// An empty network whose layers start with random weights left at 0: to be counted, or filled from a file.
    pub fn unset(name: &str) -> Self {
        Self { graph: Graph { name: name.to_owned(), ..Graph::default() }, seed: None, failure: None }
    }

    /// A batch of samples of the given shape.
    pub fn input(&mut self, name: &str, sample: &[usize]) -> Handle {
        self.graph.inputs.push(Input::batch(name, sample));
        Handle(name.to_owned())
    }

    /// Any operator over values of the graph.
    pub fn node(&mut self, name: &str, operator: impl Into<Operator>, inputs: &[&Handle]) -> Handle {
        let inputs = inputs.iter().map(|input| input.0.clone()).collect();
        self.graph.nodes.push(Node {
            name: name.to_owned(),
            operator: operator.into(),
            inputs,
            outputs: vec![name.to_owned()],
        });
        Handle(name.to_owned())
    }

    /// An operator with several outputs, which are called `<name>.<output>`.
    pub fn node_with_outputs<const COUNT: usize>(
        &mut self,
        name: &str,
        operator: impl Into<Operator>,
        inputs: &[&Handle],
        outputs: [&str; COUNT],
    ) -> [Handle; COUNT] {
        self.node(name, operator, inputs);
        let outputs = outputs.map(|output| Handle(format!("{name}.{output}")));
        if let Some(node) = self.graph.nodes.last_mut() {
            node.outputs = outputs.iter().map(|output| output.0.clone()).collect();
        }
        outputs
    }

    /// Stands for an optional input that is left out.
    pub fn absent() -> Handle {
        Handle(String::new())
    }

    /// A value stored with the graph.
    pub fn constant(&mut self, name: &str, tensor: Tensor) -> Handle {
        if self.graph.constants.insert(name.to_owned(), Arc::new(tensor)).is_some() {
            self.fail(Error::graph("names of constants", "each once", format!("`{name}` twice")));
        }
        Handle(name.to_owned())
    }

    /// A constant of 32-bit floats.
    pub(crate) fn floats(&mut self, name: &str, shape: &[usize], values: Vec<f32>) -> Handle {
        self.checked(name, Tensor::floats(shape, values))
    }

    /// A constant, or the reason why there is none.
    pub(crate) fn checked(&mut self, name: &str, tensor: Result<Tensor, OperatorError>) -> Handle {
        match tensor {
            Ok(tensor) => self.constant(name, tensor),
            Err(reason) => {
                self.fail(Error::graph(format!("constant `{name}`"), "values that fill its shape", reason));
                Handle(name.to_owned())
            }
        }
    }

    fn fail(&mut self, error: Error) {
        self.failure.get_or_insert(error);
    }

    /// `(x − mean) / standard deviation` per channel, in the unit of the data; a preprocessing layer, never trained.
    /// `spatial_axes` is 2 for images, 1 for signals, 0 for tables.
    pub fn normalization(
        &mut self,
        x: &Handle,
        mean: &[f32],
        standard_deviation: &[f32],
        spatial_axes: usize,
    ) -> Handle {
        let mut shape = vec![mean.len()];
        shape.extend(std::iter::repeat_n(1, spatial_axes));
        let name = |part: &str| format!("{PREPROCESSING}{part}");
        let mean = self.floats(&name("mean"), &shape, mean.to_vec());
        let scale = self.floats(&name("standard_deviation"), &shape, standard_deviation.to_vec());
        let centred = self.node(&name("centre"), Arithmetic::Sub, &[x, &mean]);
        self.node(&name("scale"), Arithmetic::Div, &[&centred, &scale])
    }

    /// Values limited to `[low, high]` in the unit of the data and stretched to `[0, 1]`: the window in which a radiologist
    /// looks at computed tomography; a preprocessing layer.
    pub fn window(&mut self, x: &Handle, low: f32, high: f32) -> Handle {
        if !(low.is_finite() && high.is_finite() && low < high) {
            self.fail(Error::graph("window", "finite limits, the lower below the upper", format!("[{low}, {high}]")));
        }
        let name = |part: &str| format!("{PREPROCESSING}window.{part}");
        let least = self.constant(&name("low"), Tensor::scalar(low));
        let greatest = self.constant(&name("high"), Tensor::scalar(high));
        let width = self.constant(&name("width"), Tensor::scalar(high - low));
        let limited = self.node(&name("limited"), Clip, &[x, &least, &greatest]);
        let shifted = self.node(&name("shifted"), Arithmetic::Sub, &[&limited, &least]);
        self.node(&format!("{PREPROCESSING}window"), Arithmetic::Div, &[&shifted, &width])
    }

    /// The one channel of an image `times` times, for networks that were made for colour; a preprocessing layer.
    pub fn repeat_channels(&mut self, x: &Handle, times: usize) -> Handle {
        self.node(&format!("{PREPROCESSING}repeat"), Concat { axis: 1 }, &vec![x; times])
    }

    /// Convolution without bias, from and to the given numbers of channels, with a kernel of equal sides unless
    /// `convolution.kernel` has others.
    ///
    /// Weights are normal with variance `2 / fan-in` (He et al. 2015, arXiv:1502.01852).
    pub fn convolution(
        &mut self,
        name: &str,
        x: &Handle,
        channels: (usize, usize),
        side: usize,
        convolution: Convolution,
    ) -> Handle {
        let kernels = self.kernels(name, channels, side, &convolution);
        self.node(name, convolution, &[x, &kernels])
    }

    /// [`GraphBuilder::convolution`] with a bias that starts at 0.
    pub fn convolution_with_bias(
        &mut self,
        name: &str,
        x: &Handle,
        channels: (usize, usize),
        side: usize,
        convolution: Convolution,
    ) -> Handle {
        let kernels = self.kernels(name, channels, side, &convolution);
        let bias = self.floats(&format!("{name}.bias"), &[channels.1], vec![0.0; channels.1]);
        self.node(name, convolution, &[x, &kernels, &bias])
    }

    fn kernels(&mut self, name: &str, (from, to): (usize, usize), side: usize, convolution: &Convolution) -> Handle {
        let mut shape = vec![to, from / convolution.groups.max(1)];
        shape.extend(sides(side, &convolution.kernel, &convolution.strides));
        self.he_normal(&format!("{name}.weight"), &shape)
    }

    /// Transposed convolution without bias; kernels are `[from, to, side...]`, with other sides where
    /// `convolution.kernel` has them.
    pub fn transposed_convolution_without_bias(
        &mut self,
        name: &str,
        x: &Handle,
        channels: (usize, usize),
        side: usize,
        convolution: TransposedConvolution,
    ) -> Handle {
        let kernels = self.transposed_kernels(name, channels, side, &convolution);
        self.node(name, convolution, &[x, &kernels])
    }

    /// [`GraphBuilder::transposed_convolution_without_bias`] with a bias that starts at 0.
    pub fn transposed_convolution(
        &mut self,
        name: &str,
        x: &Handle,
        channels: (usize, usize),
        side: usize,
        convolution: TransposedConvolution,
    ) -> Handle {
        let kernels = self.transposed_kernels(name, channels, side, &convolution);
        let bias = self.floats(&format!("{name}.bias"), &[channels.1], vec![0.0; channels.1]);
        self.node(name, convolution, &[x, &kernels, &bias])
    }

    fn transposed_kernels(
        &mut self,
        name: &str,
        (from, to): (usize, usize),
        side: usize,
        convolution: &TransposedConvolution,
    ) -> Handle {
        let mut shape = vec![from, to / convolution.groups.max(1)];
        shape.extend(sides(side, &convolution.kernel, &convolution.strides));
        self.he_normal(&format!("{name}.weight"), &shape)
    }

    /// A constant that is normal with variance `2 / fan-in`, where all but the first side of `shape` are the fan-in.
    pub(crate) fn he_normal(&mut self, name: &str, shape: &[usize]) -> Handle {
        let fan_in: usize = shape[1..].iter().product();
        let spread = (2.0 / fan_in as f64).sqrt();
        self.drawn(name, shape, |generator| {
            let normal: f64 = StandardNormal.sample(generator);
            (spread * normal) as f32
        })
    }

    /// A constant of values drawn one after another from (seed, `name`).
    fn drawn(&mut self, name: &str, shape: &[usize], mut draw: impl FnMut(&mut ChaCha8Rng) -> f32) -> Handle {
        let count = shape.iter().product();
        let values = match self.seed {
            Some(seed) => {
                let mut generator = seed.named(name).for_sample(0);
                (0..count).map(|_| draw(&mut generator)).collect()
            }
            None => vec![0.0; count],
        };
        self.floats(name, shape, values)
    }

    /// Batch normalisation: scale 1, shift 0, running mean 0 and variance 1.
    pub fn batch_normalization(&mut self, name: &str, x: &Handle, channels: usize) -> Handle {
        let [scale, shift] = self.scale_and_shift(name, channels);
        let part = |part: &str| format!("{name}.{part}");
        let mean = self.floats(&part("running_mean"), &[channels], vec![0.0; channels]);
        let variance = self.floats(&part("running_var"), &[channels], vec![1.0; channels]);
        self.node(name, BatchNormalization::default(), &[x, &scale, &shift, &mean, &variance])
    }

    /// Normalisation of each row over its `width` values: scale 1, shift 0.
    pub fn layer_normalization(&mut self, name: &str, x: &Handle, width: usize, epsilon: f32) -> Handle {
        let [scale, shift] = self.scale_and_shift(name, width);
        self.node(name, LayerNormalization { axis: -1, epsilon }, &[x, &scale, &shift])
    }

    /// Normalisation of each sample over `groups` groups of its channels: scale 1, shift 0.
    pub fn group_normalization(&mut self, name: &str, x: &Handle, channels: usize, groups: usize) -> Handle {
        let [scale, shift] = self.scale_and_shift(name, channels);
        let operator = GroupNormalization { groups, epsilon: 1e-5, per_channel: true };
        self.node(name, operator, &[x, &scale, &shift])
    }

    fn scale_and_shift(&mut self, name: &str, width: usize) -> [Handle; 2] {
        [("weight", 1.0), ("bias", 0.0)]
            .map(|(part, value)| self.floats(&format!("{name}.{part}"), &[width], vec![value; width]))
    }

    /// Fully connected layer with bias; weights `[out, in]` uniform in ±1/√in, as PyTorch starts them.
    pub fn linear(&mut self, name: &str, x: &Handle, (from, to): (usize, usize)) -> Handle {
        let reach = 1.0 / (from as f32).sqrt();
        let weights = self.uniform(&format!("{name}.weight"), &[to, from], reach);
        let bias = self.uniform(&format!("{name}.bias"), &[to], reach);
        self.node(name, Gemm { transpose_b: true, ..Gemm::default() }, &[x, &weights, &bias])
    }

    /// A constant of values uniform in ±`reach`.
    pub(crate) fn uniform(&mut self, name: &str, shape: &[usize], reach: f32) -> Handle {
        match Uniform::new_inclusive(-reach, reach) {
            Ok(uniform) => self.drawn(name, shape, |generator| uniform.sample(generator)),
            Err(_) => self.floats(name, shape, Vec::new()), // a layer without inputs: refused, as nothing fills the shape
        }
    }

    /// max(x, 0).
    pub fn relu(&mut self, name: &str, x: &Handle) -> Handle {
        self.node(name, Activation::Relu, &[x])
    }

    /// x + y.
    pub fn add(&mut self, name: &str, x: &Handle, y: &Handle) -> Handle {
        self.node(name, Arithmetic::Add, &[x, y])
    }

    /// Maximum over square windows of an image.
    pub fn max_pool(&mut self, name: &str, x: &Handle, side: usize, stride: usize, padding: usize) -> Handle {
        self.node(name, Pool::new(PoolKind::Max, 2, side, stride, padding), &[x])
    }

    /// Mean over all of space, then one row of channels a sample.
    pub fn global_average(&mut self, name: &str, x: &Handle) -> Handle {
        let kind = PoolKind::Average { include_padding: false };
        let pooled = self.node(&format!("{name}.average"), GlobalPool { kind }, &[x]);
        self.flatten(name, &pooled)
    }

    /// One row a sample.
    pub fn flatten(&mut self, name: &str, x: &Handle) -> Handle {
        self.node(name, Flatten { axis: 1 }, &[x])
    }

    /// The graph that returns these values.
    ///
    /// # Errors
    ///
    /// The first layer that is wrong, by its name: shapes that do not fit, a name used twice.
    pub fn finish(mut self, outputs: &[&Handle]) -> Result<Graph, Error> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        self.graph.outputs = outputs.iter().map(|output| output.0.clone()).collect();
        self.graph.check()?;
        Ok(self.graph)
    }
}

/// The sides of a kernel: its own, or `side` along each axis.
fn sides(side: usize, own: &[usize], strides: &[usize]) -> Vec<usize> {
    if own.is_empty() { vec![side; strides.len()] } else { own.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny(seed: u64, name: &str) -> Result<Graph, Error> {
        let mut b = GraphBuilder::new("tiny", Seed(seed));
        let x = b.input("image", &[1, 8, 8]);
        let x = b.normalization(&x, &[120.0], &[40.0], 2);
        let x = b.convolution("stem", &x, (1, 4), 3, Convolution::new(2, 1, 1));
        let x = b.batch_normalization(name, &x, 4);
        let x = b.global_average("pool", &x);
        let x = b.linear("head", &x, (4, 2));
        b.finish(&[&x])
    }

    #[test]
    fn weights_depend_on_seed_and_name_alone() {
        let (one, same, other) = (tiny(1, "norm").unwrap(), tiny(1, "renamed").unwrap(), tiny(2, "norm").unwrap());
        assert_eq!(one.constants["stem.weight"], same.constants["stem.weight"]);
        assert_ne!(one.constants["stem.weight"], other.constants["stem.weight"]);
    }

    #[test]
    fn preprocessing_and_statistics_are_not_parameters() {
        let graph = tiny(1, "norm").unwrap();
        let names: Vec<&str> = graph.parameters().into_iter().collect();
        assert_eq!(names, ["head.bias", "head.weight", "norm.bias", "norm.weight", "stem.weight"]);
    }

    #[test]
    fn windows_and_repeated_channels_prepare_the_data() {
        let mut b = GraphBuilder::new("prepared", Seed(1));
        let x = b.input("image", &[1, 1, 2]);
        let x = b.window(&x, -100.0, 300.0);
        let x = b.repeat_channels(&x, 2);
        let graph = b.finish(&[&x]).unwrap();
        assert_eq!(graph.parameter_count(), 0);
        let executor = crate::Executor::new(graph, &crate::Device::flex()).unwrap();
        let input = Tensor::floats(&[1, 1, 1, 2], vec![0.0, 900.0]).unwrap();
        let output = &executor.forward(&[input]).unwrap()[0];
        assert_eq!((output.shape(), output.to_f32().as_ref()), (&[1, 2, 1, 2][..], &[0.25, 1.0, 0.25, 1.0][..]));

        let mut b = GraphBuilder::new("wrong", Seed(1));
        let x = b.input("image", &[1, 1, 2]);
        let x = b.window(&x, 5.0, 5.0);
        assert!(b.finish(&[&x]).unwrap_err().to_string().contains("[5, 5]"));
    }

    #[test]
    fn a_name_used_twice_is_refused() {
        assert!(tiny(1, "stem").is_err());
    }
}
