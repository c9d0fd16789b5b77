//! From a graph to steps: constants are computed, layers that follow each other are joined, layouts are chosen.
//!
//! Values lie in memory one sample after the other, so the batch appears nowhere in a plan. A sample of rank 2 and more lies
//! either as the graph has it or with its first axis, the channels, last ([`View::channels_last`]), which is what convolutions
//! and pools work on. Operators that only move elements are not understood one by one: the Burn executor is asked where each
//! element of their result comes from.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use nocebo_graph::operators::{
    Activation, Arithmetic, Convolution, Fact, GlobalPool, Operator, Pool, PoolKind, Reduce, Reduction,
    TransposedConvolution,
};
use nocebo_graph::{Device, Dimension, Executor, Graph, Input, Node, Tensor};

use crate::kernels::{AxisMatrix, InstructionSet, MOST_TAPS, Reach, Windows};
use crate::layers::Layer;
use crate::layers::convolution::{Draft, Geometry};
use crate::layers::function::{Function, PRelu, Pair};
use crate::layers::movement::{Move, Origin};
use crate::layers::pointwise::{Add, Affine, Relu};
use crate::layers::pool::{AxisMap, MaxPool};
use crate::plan::{Plan, Step, Value};
use crate::{Error, Unsupported};

/// Batch at which the graph is looked at where it leaves the batch open.
const BATCH: usize = 3;

/// Where a value of the graph has its samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Batch {
    /// They have this axis for themselves.
    Axis(usize),
    /// The first axis holds the rows of the first sample, then those of the second, and so on.
    Rows,
}

impl Batch {
    /// Shape of a sample of a value with this shape, where so many samples can lie in it in this way.
    fn sample(self, shape: &[usize], batch: usize) -> Option<Vec<usize>> {
        let mut sample = shape.to_vec();
        match self {
            Self::Axis(axis) => (shape.get(axis) == Some(&batch)).then(|| sample.remove(axis)),
            Self::Rows => {
                let rows = sample.first_mut().filter(|rows| rows.is_multiple_of(batch))?;
                *rows /= batch;
                Some(0)
            }
        }?;
        Some(sample)
    }

    /// All ways in which samples can lie in a value with this shape.
    fn candidates(shape: &[usize], batch: usize) -> impl Iterator<Item = (Self, Vec<usize>)> {
        let ways = (0..shape.len()).map(Self::Axis).chain([Self::Rows]);
        ways.filter_map(move |way| Some((way, way.sample(shape, batch)?)))
    }

    /// The axis of a sample that an axis of the value is; `None` for that of the samples.
    fn axis(self, axis: usize) -> Option<usize> {
        match self {
            Self::Axis(own) if axis == own => None,
            Self::Axis(own) if axis > own => Some(axis - 1),
            Self::Rows if axis == 0 => None,
            _ => Some(axis),
        }
    }

    /// Axes of a value whose samples have this rank.
    fn rank(self, sample: usize) -> usize {
        sample + usize::from(self != Self::Rows)
    }

    /// Elements of a sample behind the axis of the samples.
    fn behind(self, sample: &[usize]) -> usize {
        match self {
            Self::Axis(axis) => sample[axis..].iter().product(),
            Self::Rows => sample.iter().product(),
        }
    }

    /// The sample of a flat place of a value, and the flat place in the sample.
    fn split(self, sample: &[usize], batch: usize, at: usize) -> (usize, usize) {
        let behind = self.behind(sample).max(1);
        (at / behind % batch, at / (behind * batch) * behind + at % behind)
    }

    /// What [`Batch::split`] undoes.
    fn join(self, shape: &[usize], batch: usize, sample: usize, at: usize) -> usize {
        let behind = self.behind(shape).max(1);
        (at / behind * batch + sample) * behind + at % behind
    }
}

/// A value as the graph sees it.
#[derive(Clone, Debug)]
struct View {
    value: usize,
    /// Shape of a sample.
    shape: Vec<usize>,
    /// Whether the first axis of `shape` is the last in memory.
    channels_last: bool,
    /// Whether no other name reads the value.
    exclusive: bool,
    /// Where the graph has the samples; in memory they always come first.
    batch: Batch,
}

impl View {
    /// Axes of `shape` in the order in which they lie in memory.
    fn order(&self) -> Vec<usize> {
        order(self.shape.len(), self.channels_last)
    }

    /// Sides in the order in which they lie in memory.
    fn sides(&self) -> Vec<usize> {
        self.order().into_iter().map(|axis| self.shape[axis]).collect()
    }

    fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

fn order(rank: usize, channels_last: bool) -> Vec<usize> {
    if channels_last { (1..rank).chain(0..rank.min(1)).collect() } else { (0..rank).collect() }
}

/// Flat place in memory of each element, in the order of `shape`.
fn places(shape: &[usize], channels_last: bool) -> Vec<usize> {
    if !channels_last || shape.len() < 2 {
        return (0..shape.iter().product()).collect();
    }
    let (channels, space) = (shape[0], shape[1..].iter().product::<usize>());
    (0..channels * space).map(|at| at % space * channels + at / space).collect()
}

/// Where the elements of a sample come from, in the graph's order.
struct Moved {
    batch: Batch,
    /// Shape of a sample.
    shape: Vec<usize>,
    origins: Vec<Origin>,
    /// Elements that come from no input.
    constants: Vec<f32>,
}

/// What a name stands for.
#[derive(Clone)]
enum Bound {
    View(View),
    /// The result of a node that the engine does not compute.
    Missing,
}

/// A step whose layer may still take in what follows it.
enum Layering {
    Convolution(Draft),
    Affine { scale: Vec<f32>, shift: Vec<f32> },
    Other(Box<dyn Layer>),
}

struct Drafted {
    name: String,
    layering: Layering,
    inputs: Vec<usize>,
    output: usize,
}

/// Steps of a whole graph before their weights are packed.
pub(crate) struct Drafts {
    set: InstructionSet,
    steps: Vec<Drafted>,
    values: Vec<Value>,
    output: usize,
}

impl Drafts {
    /// Packs the weights, letting go of each step's own as it goes.
    pub(crate) fn plan(self, winograd: bool) -> Plan {
        let Self { set, steps, values, output } = self;
        let finish = |step: Drafted| {
            let made = &values[step.output];
            let layer: Box<dyn Layer> = match step.layering {
                Layering::Convolution(draft) => Box::new(draft.finish(set, winograd)),
                Layering::Affine { scale, shift } => {
                    Box::new(Affine::new(&scale, &shift, made.channels, made.elements))
                }
                Layering::Other(layer) => layer,
            };
            Step { name: step.name, layer, inputs: step.inputs, output: step.output }
        };
        let mut steps: Vec<Step> = steps.into_iter().map(finish).collect();
        come_early(&mut steps);
        Plan::new(set, steps, values, output)
    }
}

/// Why a node could not be lowered, in words that follow "the engine does not compute".
type Missing = String;

/// A graph on its way to a plan.
pub(crate) struct Lowering<'a> {
    graph: &'a Graph,
    set: InstructionSet,
    facts: BTreeMap<String, Fact>,
    batch: usize,
    known: HashMap<String, Arc<Tensor>>,
    readers: HashMap<&'a str, usize>,
    bound: HashMap<&'a str, Bound>,
    steps: Vec<Drafted>,
    values: Vec<Value>,
    unsupported: Vec<Unsupported>,
}

impl<'a> Lowering<'a> {
    /// Lowers all that can be; `sample` is the shape of a sample.
    pub(crate) fn new(graph: &'a Graph, sample: &[usize], set: InstructionSet) -> Result<Self, Error> {
        let [input] = graph.inputs.as_slice() else {
            return Err(Error::Graph(nocebo_graph::Error::Graph {
                what: "inputs of the network".to_owned(),
                expected: "one, for the samples".to_owned(),
                got: graph.inputs.len().to_string(),
            }));
        };
        let batch = match input.shape.as_deref().and_then(<[Dimension]>::first) {
            Some(Dimension::Fixed(batch)) if *batch > 0 => *batch,
            _ => BATCH,
        };
        let mut shape = vec![batch];
        shape.extend_from_slice(sample);
        let executor = Executor::new(graph.clone(), &Device::default())?;
        let facts = executor.facts(&[shape])?;
        let known = known_values(graph, &facts)?;
        let mut readers: HashMap<&str, usize> = HashMap::new();
        let read = graph.nodes.iter().flat_map(|node| &node.inputs).chain(&graph.outputs);
        read.for_each(|name| *readers.entry(name.as_str()).or_default() += 1);
        let elements = sample.iter().product();
        let value = Value { elements, channels: sample.last().copied().unwrap_or(1), rectified: false };
        let mut lowering = Self {
            graph,
            set,
            facts,
            batch,
            known,
            readers,
            bound: HashMap::new(),
            steps: Vec::new(),
            values: vec![value],
            unsupported: Vec::new(),
        };
        let view =
            View { value: 0, shape: sample.to_vec(), channels_last: false, exclusive: false, batch: Batch::Axis(0) };
        // Images and volumes are turned once, at the door.
        let view = if sample.len() >= 3 { lowering.laid_out(&view, true, &input.name) } else { view };
        lowering.bind(&input.name, view);
        for node in &graph.nodes {
            lowering.lower(node);
        }
        let name = graph.outputs[0].as_str();
        if let Some(Bound::View(view)) = lowering.bound.get(name)
            && view.batch != Batch::Axis(0)
        {
            let what = "an output whose first axis is not that of the samples".to_owned();
            lowering.unsupported.push(Unsupported { node: name.to_owned(), operator: "output".to_owned(), what });
        }
        Ok(lowering)
    }

    /// Nodes that the engine does not compute.
    pub(crate) fn unsupported(self) -> Vec<Unsupported> {
        self.unsupported
    }

    /// All that a plan needs, without the graph.
    pub(crate) fn drafted(mut self) -> Result<Drafts, Error> {
        if let Some(first) = self.unsupported.into_iter().next() {
            return Err(first.into());
        }
        self.unsupported = Vec::new();
        let name = self.graph.outputs[0].as_str();
        let Some(Bound::View(view)) = self.bound.get(name).cloned() else {
            return Err(Error::Graph(nocebo_graph::Error::NoGradient {
                wanted: "the input".to_owned(),
                cut: "the output, which does not depend on it".to_owned(),
            }));
        };
        let output = self.laid_out(&view, false, name).value;
        Ok(Drafts { set: self.set, steps: self.steps, values: self.values, output })
    }

    fn bind(&mut self, name: &'a str, mut view: View) {
        view.exclusive &= self.readers.get(name).is_none_or(|readers| *readers <= 1);
        self.bound.insert(name, Bound::View(view));
    }

    /// A new value that a step makes; the samples are its first axis.
    fn step(
        &mut self,
        name: &str,
        layering: Layering,
        inputs: Vec<usize>,
        shape: &[usize],
        channels_last: bool,
    ) -> View {
        let batch = Batch::Axis(0);
        let view = View { value: self.values.len(), shape: shape.to_vec(), channels_last, exclusive: true, batch };
        let channels = view.sides().last().copied().unwrap_or(1);
        self.values.push(Value { elements: view.elements(), channels, rectified: false });
        self.steps.push(Drafted { name: name.to_owned(), layering, inputs, output: view.value });
        view
    }

    /// A new value whose samples lie as those of the first input.
    fn other(&mut self, name: &str, layer: impl Layer + 'static, inputs: &[&View], shape: &[usize]) -> View {
        let batch = inputs[0].batch;
        let channels_last = inputs[0].channels_last && shape.len() == inputs[0].shape.len();
        let inputs = inputs.iter().map(|input| input.value).collect();
        View { batch, ..self.step(name, Layering::Other(Box::new(layer)), inputs, shape, channels_last) }
    }

    /// The same value in the wanted order of memory.
    fn laid_out(&mut self, view: &View, channels_last: bool, name: &str) -> View {
        if view.channels_last == channels_last {
            return view.clone();
        }
        let (from, to) = (places(&view.shape, view.channels_last), places(&view.shape, channels_last));
        if from == to {
            return View { channels_last, ..view.clone() };
        }
        let mut origins: Vec<Origin> = vec![None; from.len()];
        from.iter().zip(&to).for_each(|(from, to)| origins[*to] = Some((0, *from)));
        let layer = Layering::Other(Box::new(Move::new(1, &origins, &[])));
        View { batch: view.batch, ..self.step(name, layer, vec![view.value], &view.shape, channels_last) }
    }

    /// The step that made a value, where it may still be changed: nothing else reads the value, and no ReLU has been joined.
    fn open_step(&mut self, view: &View) -> Option<usize> {
        let open = view.exclusive && !self.values[view.value].rectified;
        let position = self.steps.iter().rposition(|step| step.output == view.value)?;
        open.then_some(position)
    }

    fn lower(&mut self, node: &'a Node) {
        let made = node.outputs.iter().filter(|name| !name.is_empty());
        if made.clone().all(|name| self.known.contains_key(name.as_str())) {
            return;
        }
        let empty = |name: &&String| {
            self.facts.get(name.as_str()).and_then(|fact| fact.shape.as_ref()).is_some_and(|shape| shape.contains(&0))
        };
        if made.clone().any(|name| empty(&name)) {
            let operator = node.operator.name().to_owned();
            self.unsupported.push(Unsupported { node: node.name.clone(), operator, what: "empty values".to_owned() });
            made.for_each(|name| {
                self.bound.insert(name, Bound::Missing);
            });
            return;
        }
        let reads_missing =
            node.inputs.iter().any(|name| matches!(self.bound.get(name.as_str()), Some(Bound::Missing)));
        let result = if reads_missing { Err(None) } else { self.lower_node(node).map_err(Some) };
        if let Err(reason) = result {
            if let Some(what) = reason {
                let operator = node.operator.name().to_owned();
                self.unsupported.push(Unsupported { node: node.name.clone(), operator, what });
            }
            for name in made {
                self.bound.insert(name, Bound::Missing);
            }
        }
    }

    /// A value whose first axis is that of the samples.
    fn view(&self, node: &Node, position: usize) -> Result<View, Missing> {
        let view = self.any_view(node, position)?;
        match view.batch {
            Batch::Axis(0) => Ok(view),
            _ => Err("it where the first axis is not that of the samples".to_owned()),
        }
    }

    fn any_view(&self, node: &Node, position: usize) -> Result<View, Missing> {
        match node.inputs.get(position).and_then(|name| self.bound.get(name.as_str())) {
            Some(Bound::View(view)) => Ok(view.clone()),
            _ => Err(format!("it where input {position} is a constant")),
        }
    }

    fn optional_constant(&self, node: &Node, position: usize) -> Option<&Arc<Tensor>> {
        node.inputs.get(position).and_then(|name| self.known.get(name))
    }

    fn constant(&self, node: &Node, position: usize) -> Result<&Arc<Tensor>, Missing> {
        self.optional_constant(node, position).ok_or_else(|| format!("it where input {position} is no constant"))
    }

    /// Shape of a value of floats for a batch of `self.batch`.
    fn whole_shape_of(&self, name: &str) -> Result<&[usize], Missing> {
        let fact = self.facts.get(name).ok_or("a value of unknown shape")?;
        if !fact.element.is_float() {
            return Err(format!("values of type {}", fact.element));
        }
        fact.shape.as_deref().ok_or_else(|| "a value whose shape depends on the data".to_owned())
    }

    /// Shape of a sample of a value with its samples there.
    fn shape_of(&self, name: &str, batch: Batch) -> Result<Vec<usize>, Missing> {
        let shape = self.whole_shape_of(name)?;
        let sample = batch.sample(shape, self.batch);
        sample.ok_or_else(|| format!("a value of shape {shape:?}, in which the samples lie in another way"))
    }

    fn lower_node(&mut self, node: &'a Node) -> Result<(), Missing> {
        let output = node.outputs.first().map_or("", String::as_str);
        let view = match &node.operator {
            Operator::Convolution(operator) => self.convolution(node, operator)?,
            Operator::TransposedConvolution(operator) => self.transposed_convolution(node, operator)?,
            Operator::Gemm(_) => self.gemm(node)?,
            Operator::MatMul(_) => self.product_of_matrices(node)?,
            Operator::Softmax(operator) => self.softmax(node, *operator)?,
            Operator::InstanceNormalization(operator) => self.instance_normalization(node, operator.epsilon)?,
            Operator::GroupNormalization(operator) => self.group_normalization(node, *operator)?,
            Operator::LayerNormalization(operator) => self.layer_normalization(node, *operator)?,
            Operator::Resize(operator) => self.resize(node, operator)?,
            Operator::Recurrent(operator) => return self.recurrent(node, operator),
            Operator::BatchNormalization(operator) => self.batch_normalization(node, operator.epsilon)?,
            Operator::Activation(Activation::Relu) => self.relu(node)?,
            Operator::Activation(Activation::PRelu) => self.prelu(node)?,
            Operator::Activation(activation) => self.function(node, Function::Activation(*activation))?,
            Operator::Unary(unary) => self.function(node, Function::Unary(*unary))?,
            Operator::Clip(_) => self.clip(node)?,
            Operator::Arithmetic(operator) => self.arithmetic(node, *operator)?,
            Operator::Pool(operator) => self.pool(node, operator)?,
            Operator::GlobalPool(operator) => self.global_pool(node, *operator)?,
            Operator::Reduce(operator) => self.reduce(node, *operator)?,
            Operator::Identity(_)
            | Operator::Dropout(_)
            | Operator::Cast(_)
            | Operator::Reshape(_)
            | Operator::Flatten(_)
            | Operator::Squeeze(_)
            | Operator::Unsqueeze(_)
            | Operator::Transpose(_)
            | Operator::Concat(_)
            | Operator::Split(_)
            | Operator::Slice(_)
            | Operator::Expand(_)
            | Operator::Tile(_)
            | Operator::Gather(_)
            | Operator::DepthToSpace(_)
            | Operator::SpaceToDepth(_)
            | Operator::Pad(_) => return self.movement(node),
            _ => return Err("this operator".to_owned()),
        };
        self.bind(output, view);
        Ok(())
    }

    /// Kernels of a convolution, and its bias if any.
    fn kernels(&self, node: &Node) -> Result<(Arc<Tensor>, Option<Arc<Tensor>>), Missing> {
        let weights = self.constant(node, 1)?.clone();
        let bias = self.optional_constant(node, 2).cloned();
        if bias.is_none() && node.inputs.get(2).is_some_and(|name| !name.is_empty()) {
            return Err("it where the bias is no constant".to_owned());
        }
        Ok((weights, bias))
    }

    fn convolution(&mut self, node: &Node, operator: &Convolution) -> Result<View, Missing> {
        let x = self.view(node, 0)?;
        let x = self.laid_out(&x, true, &node.name);
        let (weights, bias) = self.kernels(node)?;
        let kernel = &weights.shape()[2..];
        let window = operator.window(&x.shape[1..], kernel).map_err(|error| error.to_string())?;
        let shape: Vec<usize> = std::iter::once(weights.shape()[0]).chain(window.places.iter().copied()).collect();
        let before: Vec<isize> = window.padding.iter().map(|(before, _)| *before as isize).collect();
        let geometry = Geometry {
            kernel: three(&window.kernel, 1),
            stride: three(&window.stride, 1),
            dilation: three(&window.dilation, 1),
            before: three(&before, 0),
            source: three(&x.shape[1..], 1),
            target: three(&window.places, 1),
            channels: x.shape[0],
            outputs: weights.shape()[0],
            groups: operator.groups.max(1),
            transposed: false,
        };
        let bias = bias.map_or_else(|| vec![0.0; geometry.outputs], |bias| bias.to_f32().into_owned());
        let draft = Draft { geometry, weights: weights.to_f32().into_owned(), bias };
        Ok(self.step(&node.name, Layering::Convolution(draft), vec![x.value], &shape, true))
    }

    fn transposed_convolution(&mut self, node: &Node, operator: &TransposedConvolution) -> Result<View, Missing> {
        let x = self.view(node, 0)?;
        let x = self.laid_out(&x, true, &node.name);
        let (weights, bias) = self.kernels(node)?;
        let shape = self.shape_of(&node.outputs[0], Batch::Axis(0))?;
        let kernel = &weights.shape()[2..];
        let before = operator.cut_before(&x.shape[1..], kernel).map_err(|error| error.to_string())?;
        let or_one = |values: &[usize]| if values.is_empty() { vec![1; kernel.len()] } else { values.to_vec() };
        let geometry = Geometry {
            kernel: three(kernel, 1),
            stride: three(&or_one(&operator.strides), 1),
            dilation: three(&or_one(&operator.dilations), 1),
            before: three(&before, 0),
            source: three(&shape[1..], 1),
            target: three(&x.shape[1..], 1),
            channels: shape[0],
            outputs: x.shape[0],
            groups: operator.groups.max(1),
            transposed: true,
        };
        let bias = bias.map_or_else(|| vec![0.0; geometry.channels], |bias| bias.to_f32().into_owned());
        let draft = Draft { geometry, weights: weights.to_f32().into_owned(), bias };
        Ok(self.step(&node.name, Layering::Convolution(draft), vec![x.value], &shape, true))
    }

    /// A linear layer over the last axis: `weight(output, input)`.
    fn linear(
        &mut self,
        name: &str,
        x: &View,
        outputs: usize,
        bias: Vec<f32>,
        weight: impl Fn(usize, usize) -> f32,
    ) -> View {
        let x = self.laid_out(x, false, name);
        let inputs = x.shape.last().copied().unwrap_or(1);
        let weights = (0..outputs * inputs).map(|at| weight(at / inputs, at % inputs)).collect();
        let geometry = Geometry::linear(x.elements() / inputs.max(1), inputs, outputs);
        let mut shape = x.shape.clone();
        if let Some(last) = shape.last_mut() {
            *last = outputs;
        }
        let draft = Layering::Convolution(Draft { geometry, weights, bias });
        View { batch: x.batch, ..self.step(name, draft, vec![x.value], &shape, false) }
    }

    fn gemm(&mut self, node: &Node) -> Result<View, Missing> {
        let Operator::Gemm(gemm) = &node.operator else { return Err("this operator".to_owned()) };
        let x = self.any_view(node, 0)?;
        if gemm.transpose_a || x.batch == Batch::Axis(1) {
            return Err("it where the batch is the inner side".to_owned());
        }
        let weights = self.constant(node, 1)?.clone();
        let (rows, columns) = (weights.shape()[0], weights.shape()[1]);
        let outputs = if gemm.transpose_b { rows } else { columns };
        let bias = match self.optional_constant(node, 2) {
            None if node.inputs.get(2).is_some_and(|name| !name.is_empty()) => {
                return Err("it where the bias is no constant".to_owned());
            }
            None => vec![0.0; outputs],
            Some(bias) => {
                let values = bias.to_f32();
                match values.len() {
                    1 => vec![gemm.beta * values[0]; outputs],
                    count if count == outputs => values.iter().map(|value| gemm.beta * value).collect(),
                    _ => return Err("it where each row has a bias of its own".to_owned()),
                }
            }
        };
        let values = weights.to_f32();
        let weight = |output: usize, input: usize| {
            gemm.alpha
                * if gemm.transpose_b { values[output * columns + input] } else { values[input * columns + output] }
        };
        Ok(self.linear(&node.name, &x, outputs, bias, weight))
    }

    fn batch_normalization(&mut self, node: &Node, epsilon: f32) -> Result<View, Missing> {
        let x = self.view(node, 0)?;
        let part = |position| -> Result<Vec<f32>, Missing> { Ok(self.constant(node, position)?.to_f32().into_owned()) };
        let (scale, shift, mean, variance) = (part(1)?, part(2)?, part(3)?, part(4)?);
        let scale: Vec<f32> = scale
            .iter()
            .zip(&variance)
            .map(|(scale, variance)| (f64::from(*scale) / (f64::from(*variance) + f64::from(epsilon)).sqrt()) as f32)
            .collect();
        let moved = |((shift, mean), scale): ((&f32, &f32), &f32)| shift - mean * scale;
        let shift: Vec<f32> = shift.iter().zip(&mean).zip(&scale).map(moved).collect();
        let x = if x.shape.len() >= 2 { self.laid_out(&x, true, &node.name) } else { x };
        Ok(self.affine(node, &x, scale, shift))
    }

    /// `scale · x + shift`, with constants that repeat along a sample in memory; joined with what made `x` where that can be.
    fn affine(&mut self, node: &Node, x: &View, scale: Vec<f32>, shift: Vec<f32>) -> View {
        let channels = self.values[x.value].channels;
        if let Some(open) = self.open_step(x) {
            let step = &mut self.steps[open];
            match &mut step.layering {
                Layering::Convolution(draft) if step.inputs.len() == 1 && scale.len() == channels => {
                    draft.fold(&scale, &shift);
                    return x.clone();
                }
                Layering::Affine { scale: first, shift: offset } if first.len() == scale.len() => {
                    for (at, (scale, shift)) in scale.iter().zip(&shift).enumerate() {
                        first[at] *= scale;
                        offset[at] = offset[at] * scale + shift;
                    }
                    return x.clone();
                }
                _ => {}
            }
        }
        let layering = Layering::Affine { scale, shift };
        View { batch: x.batch, ..self.step(&node.name, layering, vec![x.value], &x.shape, x.channels_last) }
    }

    fn relu(&mut self, node: &Node) -> Result<View, Missing> {
        let x = self.any_view(node, 0)?;
        let channels = self.values[x.value].channels;
        if let Some(open) = self.open_step(&x) {
            let joins = match &self.steps[open].layering {
                Layering::Convolution(draft) => draft.rectifies(),
                Layering::Affine { scale, .. } => scale.len() == channels,
                Layering::Other(layer) => layer.rectifies(),
            };
            if joins {
                self.values[x.value].rectified = true;
                return Ok(x);
            }
        }
        let layer = Relu { channels, elements: x.elements() };
        Ok(self.other(&node.name, layer, &[&x], &x.shape))
    }

    fn function(&mut self, node: &Node, function: Function) -> Result<View, Missing> {
        let x = self.any_view(node, 0)?;
        if !function.is_known() {
            return Err("this function".to_owned());
        }
        Ok(self.other(&node.name, function, &[&x], &x.shape))
    }

    fn prelu(&mut self, node: &Node) -> Result<View, Missing> {
        let x = self.any_view(node, 0)?;
        let slopes = self.constants_along(&x, self.constant(node, 1)?)?;
        Ok(self.other(&node.name, PRelu { slopes }, &[&x], &x.shape))
    }

    fn clip(&mut self, node: &Node) -> Result<View, Missing> {
        let limit = |position: usize, default: f32| match node.inputs.get(position) {
            Some(name) if !name.is_empty() => Ok(self.constant(node, position)?.to_f32()[0]),
            _ => Ok::<f32, Missing>(default),
        };
        let (least, greatest) = (limit(1, f32::MIN)?, limit(2, f32::MAX)?);
        if least > greatest {
            return Err("limits that cross".to_owned());
        }
        self.function(node, Function::Clip { least, greatest })
    }

    fn arithmetic(&mut self, node: &Node, operator: Arithmetic) -> Result<View, Missing> {
        let is_constant = |position: usize| self.known.contains_key(node.inputs[position].as_str());
        if node.inputs.len() != 2 {
            return match (operator, node.inputs.len()) {
                (Arithmetic::Sum | Arithmetic::Mean, 1) => self.any_view(node, 0),
                _ => Err("it with other than two inputs".to_owned()),
            };
        }
        match (is_constant(0), is_constant(1)) {
            (false, true) => self.with_constant(node, operator, 0, 1),
            (true, false) => self.with_constant(node, operator, 1, 0),
            _ => self.of_two(node, operator),
        }
    }

    /// Arithmetic of a value with a constant.
    fn with_constant(
        &mut self,
        node: &Node,
        operator: Arithmetic,
        value: usize,
        constant: usize,
    ) -> Result<View, Missing> {
        let x = self.any_view(node, value)?;
        let tensor = self.constant(node, constant)?.clone();
        if operator == Arithmetic::Pow && value == 0 && tensor.len() == 1 {
            return self.function(node, Function::Power(tensor.to_f32()[0]));
        }
        let x = self.broadcast(node, &x)?;
        let values = self.constants_along(&x, &tensor)?;
        let ones = || vec![1.0; values.len()];
        let zeros = || vec![0.0; values.len()];
        let (scale, shift) = match (operator, value) {
            (Arithmetic::Add | Arithmetic::Sum, _) => (ones(), values),
            (Arithmetic::Sub, 0) => (ones(), values.iter().map(|value| -value).collect()),
            (Arithmetic::Sub, _) => (vec![-1.0; values.len()], values),
            (Arithmetic::Mul, _) => {
                let shift = zeros();
                (values, shift)
            }
            (Arithmetic::Div, 0) => (values.iter().map(|value| 1.0 / value).collect(), zeros()),
            (Arithmetic::Div, _) => {
                let y = self.other(
                    &node.name,
                    Function::Unary(nocebo_graph::operators::Unary::Reciprocal),
                    &[&x],
                    &x.shape,
                );
                let shift = zeros();
                return Ok(self.affine(node, &y, values, shift));
            }
            _ => return Err("it with a constant".to_owned()),
        };
        Ok(self.affine(node, &x, scale, shift))
    }

    /// A constant as it repeats along a sample of `x` in memory: one value a channel where that says it all.
    fn constants_along(&self, x: &View, tensor: &Tensor) -> Result<Vec<f32>, Missing> {
        let mut shape = tensor.shape().to_vec();
        let values = tensor.to_f32();
        let mut own = values.as_ref();
        let rank = x.batch.rank(x.shape.len());
        if shape.len() > rank {
            return Err("a constant with more axes than the value".to_owned());
        }
        match x.batch {
            Batch::Axis(0) if shape.len() == rank => {
                let batch = shape.remove(0);
                let size = own.len() / batch.max(1);
                if batch > 1 && own.chunks(size).any(|row| row != &own[..size]) {
                    return Err("a constant that differs between samples".to_owned());
                }
                own = &own[..size];
            }
            Batch::Axis(axis) if axis + shape.len() >= rank && shape.remove(axis + shape.len() - rank) != 1 => {
                return Err("a constant that differs between samples".to_owned());
            }
            _ => {}
        }
        let missing = x.shape.len() - shape.len();
        let mut strides = vec![0; x.shape.len()];
        let mut stride = 1;
        for (axis, &side) in shape.iter().enumerate().rev() {
            if side != 1 {
                if side != x.shape[missing + axis] {
                    return Err("a constant that does not broadcast to the value".to_owned());
                }
                strides[missing + axis] = stride;
            }
            stride *= side;
        }
        let mut along = vec![0.0; x.elements()];
        for (at, place) in places(&x.shape, x.channels_last).into_iter().enumerate() {
            let (mut rest, mut from) = (at, 0);
            for axis in (0..x.shape.len()).rev() {
                from += rest % x.shape[axis] * strides[axis];
                rest /= x.shape[axis];
            }
            along[place] = own[from];
        }
        let channels = self.values[x.value].channels;
        if along.chunks(channels).all(|chunk| *chunk == along[..channels]) {
            along.truncate(channels);
        }
        Ok(along)
    }

    fn of_two(&mut self, node: &Node, operator: Arithmetic) -> Result<View, Missing> {
        let (a, b) = (self.any_view(node, 0)?, self.any_view(node, 1)?);
        if a.batch != b.batch {
            return Err("it where the samples of two values lie differently".to_owned());
        }
        let (a, b) = (self.broadcast(node, &a)?, self.broadcast(node, &b)?);
        match operator {
            Arithmetic::Add | Arithmetic::Sum => {
                for (main, added) in [(&a, &b), (&b, &a)] {
                    if let Some(sum) = self.joined_sum(main, added) {
                        return Ok(sum);
                    }
                }
                let b = self.laid_out(&b, a.channels_last, &node.name);
                let channels = self.values[a.value].channels;
                Ok(self.other(&node.name, Add { channels }, &[&a, &b], &a.shape))
            }
            Arithmetic::Sub | Arithmetic::Mul | Arithmetic::Div => {
                let b = self.laid_out(&b, a.channels_last, &node.name);
                let pair = match operator {
                    Arithmetic::Sub => Pair::Difference,
                    Arithmetic::Mul => Pair::Product,
                    _ => Pair::Quotient,
                };
                Ok(self.other(&node.name, pair, &[&a, &b], &a.shape))
            }
            _ => Err("it with two values".to_owned()),
        }
    }

    /// The sum done by the convolution that made `main`, which then runs once `added` is there.
    fn joined_sum(&mut self, main: &View, added: &View) -> Option<View> {
        let open = self.open_step(main)?;
        let step = &self.steps[open];
        let fits = matches!(step.layering, Layering::Convolution(_))
            && step.inputs.len() == 1
            && main.channels_last == added.channels_last
            && main.value != added.value;
        if !fits {
            return None;
        }
        let mut step = self.steps.remove(open);
        step.inputs.push(added.value);
        self.steps.push(step);
        Some(main.clone())
    }

    /// A value repeated to the shape of the node's result.
    fn broadcast(&mut self, node: &Node, x: &View) -> Result<View, Missing> {
        let shape = self.shape_of(&node.outputs[0], x.batch)?;
        if x.shape == shape {
            return Ok(x.clone());
        }
        if x.shape.len() != shape.len() {
            return Err("values of different rank".to_owned());
        }
        let mut origins: Vec<Origin> = vec![None; shape.iter().product()];
        let from = places(&x.shape, x.channels_last);
        for (at, to) in places(&shape, x.channels_last).into_iter().enumerate() {
            let (mut rest, mut flat, mut stride) = (at, 0, 1);
            for axis in (0..shape.len()).rev() {
                let index = rest % shape[axis];
                rest /= shape[axis];
                flat += if x.shape[axis] == 1 { 0 } else { index } * stride;
                stride *= x.shape[axis];
            }
            origins[to] = Some((0, from[flat]));
        }
        Ok(self.other(&node.name, Move::new(1, &origins, &[]), &[x], &shape))
    }

    fn pool(&mut self, node: &Node, operator: &Pool) -> Result<View, Missing> {
        let x = self.view(node, 0)?;
        let x = self.laid_out(&x, true, &node.name);
        if node.outputs.iter().skip(1).any(|name| !name.is_empty()) {
            return Err("the indices of a max-pool".to_owned());
        }
        let window = operator.window(&x.shape[1..]).map_err(|error| error.to_string())?;
        let shape: Vec<usize> = x.shape[..1].iter().chain(&window.places).copied().collect();
        let axes = window.kernel.len();
        let reach = |axis: usize| {
            Reach::forward(
                window.places[axis],
                x.shape[1 + axis],
                window.kernel[axis],
                window.stride[axis],
                window.dilation[axis],
                window.padding[axis].0 as isize,
            )
        };
        match operator.kind {
            PoolKind::Max => {
                let lone = Reach::forward(1, 1, 1, 1, 1, 0);
                let axes =
                    std::array::from_fn(|axis| if axis + axes >= 3 { reach(axis + axes - 3) } else { lone.clone() });
                let windows = Windows { axes, channels: x.shape[0] };
                if windows.taps() > MOST_TAPS {
                    return Err(format!("windows of more than {MOST_TAPS} elements"));
                }
                let results = shape.iter().product();
                Ok(self.other(&node.name, MaxPool::new(windows, results), &[&x], &shape))
            }
            PoolKind::Average { include_padding } => {
                let mut y = x.clone();
                for axis in 0..axes {
                    let side = y.shape[1 + axis];
                    let counts = window.counts(axis, side, include_padding);
                    let rows: Vec<Vec<(usize, f32)>> = reach(axis)
                        .rows()
                        .zip(counts)
                        .map(|(row, count)| row.iter().map(|(place, _)| (*place, 1.0 / count)).collect())
                        .collect();
                    y = self.along_axis(&node.name, &y, 1 + axis, AxisMatrix::new(side, &rows));
                }
                Ok(y)
            }
            PoolKind::Norm { .. } => Err("pools by a norm".to_owned()),
        }
    }

    /// A matrix along one axis of a value; an axis of the shape of a sample.
    fn along_axis(&mut self, name: &str, x: &View, axis: usize, matrix: AxisMatrix) -> View {
        let position = x.order().iter().position(|own| *own == axis).unwrap_or(0);
        let sides = x.sides();
        let mut shape = x.shape.clone();
        shape[axis] = matrix.rows();
        let layer = AxisMap::new(matrix, sides[..position].iter().product(), sides[position + 1..].iter().product());
        self.other(name, layer, &[x], &shape)
    }

    /// Sums over axes of a sample, times `factor`; the axes stay with length 1.
    fn summed(&mut self, name: &str, x: &View, axes: &[usize], factor: f32) -> View {
        let mut y = x.clone();
        let mut factor = factor;
        let order = y.order();
        let sides = y.sides();
        let mut position = 0;
        while position < order.len() {
            if !axes.contains(&order[position]) {
                position += 1;
                continue;
            }
            // Neighbours in memory are summed together.
            let end = (position..order.len()).find(|&at| !axes.contains(&order[at])).unwrap_or(order.len());
            let side: usize = sides[position..end].iter().product();
            let outer: usize = (0..position).map(|at| if axes.contains(&order[at]) { 1 } else { sides[at] }).product();
            let matrix = AxisMatrix::new(side, &[(0..side).map(|place| (place, factor)).collect()]);
            factor = 1.0;
            let mut shape = y.shape.clone();
            order[position..end].iter().for_each(|&axis| shape[axis] = 1);
            y = self.other(name, AxisMap::new(matrix, outer, sides[end..].iter().product()), &[&y], &shape);
            position = end;
        }
        y
    }

    fn global_pool(&mut self, node: &Node, operator: GlobalPool) -> Result<View, Missing> {
        let x = self.view(node, 0)?;
        let axes: Vec<usize> = (1..x.shape.len()).collect();
        let count: usize = x.shape[1..].iter().product();
        match operator.kind {
            PoolKind::Average { .. } => Ok(self.summed(&node.name, &x, &axes, 1.0 / count as f32)),
            _ => Err("global pools other than the mean".to_owned()),
        }
    }

    fn reduce(&mut self, node: &Node, operator: Reduce) -> Result<View, Missing> {
        let x = self.any_view(node, 0)?;
        let rank = x.batch.rank(x.shape.len());
        let axes: Vec<i64> = match node.inputs.get(1) {
            Some(name) if !name.is_empty() => self.constant(node, 1)?.to_i64().into_owned(),
            _ => Vec::new(),
        };
        let axes: Vec<usize> =
            axes.iter().map(|&axis| if axis < 0 { (axis + rank as i64) as usize } else { axis as usize }).collect();
        let own: Option<Vec<usize>> = axes.iter().map(|&axis| x.batch.axis(axis)).collect();
        let Some(own) = own.filter(|own| !own.is_empty()) else {
            return Err("reductions over the batch".to_owned());
        };
        let count: usize = own.iter().map(|&axis| x.shape[axis]).product();
        let factor = match operator.reduction {
            Reduction::Mean => 1.0 / count as f32,
            Reduction::Sum => 1.0,
            _ => return Err("this reduction".to_owned()),
        };
        let y = self.summed(&node.name, &x, &own, factor);
        if operator.keep_axes {
            return Ok(y);
        }
        let batch = match x.batch {
            Batch::Axis(axis) => Batch::Axis(axis - axes.iter().filter(|gone| **gone < axis).count()),
            Batch::Rows => Batch::Rows,
        };
        let shape = self.shape_of(&node.outputs[0], batch)?;
        // Channels that remain keep their place behind the rest.
        let channels_last = y.channels_last && !own.contains(&0) && shape.len() > 1;
        Ok(View { shape, channels_last, batch, ..y })
    }

    /// Operators that only move elements: asks the Burn executor where each element comes from.
    fn movement(&mut self, node: &'a Node) -> Result<(), Missing> {
        let mut views = Vec::new();
        for name in &node.inputs {
            if let Some(Bound::View(view)) = self.bound.get(name.as_str()) {
                views.push((name.as_str(), view.clone()));
            }
        }
        if views.is_empty() {
            return Err("it without an input that depends on the samples".to_owned());
        }
        for (position, output) in node.outputs.iter().enumerate() {
            if output.is_empty() || !self.readers.contains_key(output.as_str()) {
                continue;
            }
            let moved = self.origins(node, position, &views)?;
            let view = self.moved(node, &views, &moved);
            self.bind(output, view);
        }
        Ok(())
    }

    /// Where the elements of an output come from.
    fn origins(&self, node: &Node, position: usize, views: &[(&str, View)]) -> Result<Moved, Missing> {
        /// Numbers are handed through in two parts that floats hold exactly.
        const BASE: usize = 4096;
        let failed = |error: nocebo_graph::Error| error.to_string();
        let mut graph =
            Graph { name: "probe".into(), outputs: vec![node.outputs[position].clone()], ..Graph::default() };
        graph.nodes.push(node.clone());
        let mut distinct: Vec<(&str, &View)> = Vec::new();
        for (name, view) in views {
            if distinct.iter().all(|(known, _)| known != name) {
                distinct.push((name, view));
                let declared = self.facts[*name].shape.clone().unwrap_or_default();
                let dimensions = declared.into_iter().map(Dimension::Fixed).collect();
                let element = self.facts[*name].element;
                graph.inputs.push(Input { name: (*name).to_owned(), shape: Some(dimensions), element });
            }
        }
        for name in &node.inputs {
            if let Some(constant) = self.known.get(name.as_str()) {
                graph.constants.insert(name.clone(), constant.clone());
            }
        }
        let executor = Executor::new(graph, &Device::default()).map_err(failed)?;
        let batch = self.batch;
        let probe = |number: &dyn Fn(usize) -> usize| -> Result<Vec<f32>, Missing> {
            let mut start = 1;
            let inputs = distinct.iter().map(|(name, view)| {
                let shape = self.facts[*name].shape.clone().unwrap_or_default();
                let values = (start..start + batch * view.elements()).map(|at| number(at) as f32).collect();
                start += batch * view.elements();
                Tensor::floats(&shape, values).map(|tensor| tensor.cast(self.facts[*name].element))
            });
            let inputs: Vec<Tensor> = inputs.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
            let outputs = executor.forward(&inputs).map_err(failed)?;
            Ok(outputs[0].to_f32().into_owned())
        };
        let template = probe(&|_| 0)?;
        let (low, high) = (probe(&|at| at % BASE)?, probe(&|at| at / BASE)?);
        // Input, sample and place in it of an element of the output.
        let origin = |at: usize| -> Option<(usize, usize, usize)> {
            let (low, high) = (low[at] - template[at], high[at] - template[at]);
            let mut number = (high as usize * BASE + low as usize).checked_sub(1)?;
            for (index, (_, view)) in distinct.iter().enumerate() {
                if number < batch * view.elements() {
                    let (sample, place) = view.batch.split(&view.shape, batch, number);
                    return Some((index, sample, place));
                }
                number -= batch * view.elements();
            }
            None
        };
        // Every sample must come from itself alone, all in the same way.
        let in_way = |way: Batch, shape: &[usize]| -> Option<(Vec<Origin>, Vec<f32>)> {
            let place = |sample: usize, at: usize| way.join(shape, batch, sample, at);
            let elements: usize = shape.iter().product();
            let mut origins = Vec::with_capacity(elements);
            for at in 0..elements {
                let first = place(0, at);
                let expected = origin(first);
                let fits = (0..batch).all(|sample| match (expected, origin(place(sample, at))) {
                    (None, None) => template[first] == template[place(sample, at)],
                    (Some((input, 0, from)), Some(found)) => found == (input, sample, from),
                    _ => false,
                });
                if !fits {
                    return None;
                }
                origins.push(expected.map(|(input, _, from)| (input, from)));
            }
            Some((origins, (0..elements).map(|at| template[place(0, at)]).collect()))
        };
        let shape = self.whole_shape_of(&node.outputs[position])?;
        let found = Batch::candidates(shape, batch).find_map(|(batch, shape)| {
            let (origins, constants) = in_way(batch, &shape)?;
            Some(Moved { batch, shape, origins, constants })
        });
        found.ok_or_else(|| "it where samples are mixed".to_owned())
    }

    /// The value with these origins, in the order of memory that moves the longest stretches.
    fn moved(&mut self, node: &Node, views: &[(&str, View)], moved: &Moved) -> View {
        let Moved { batch, shape, origins, constants } = moved;
        let mut distinct: Vec<&View> = Vec::new();
        let mut names: Vec<&str> = Vec::new();
        for (name, view) in views {
            if !names.contains(name) {
                names.push(name);
                distinct.push(view);
            }
        }
        let sources: Vec<Vec<usize>> = distinct.iter().map(|view| places(&view.shape, view.channels_last)).collect();
        let layouts: &[bool] = if shape.len() >= 2 { &[true, false] } else { &[false] };
        let candidates = layouts.iter().map(|&channels_last| {
            let mut laid: Vec<Origin> = vec![None; origins.len()];
            let mut fixed = vec![0.0; origins.len()];
            for (at, to) in places(shape, channels_last).into_iter().enumerate() {
                laid[to] = origins[at].map(|(input, from)| (input, sources[input][from]));
                fixed[to] = constants[at];
            }
            (channels_last, laid, fixed)
        });
        let best = candidates.min_by_key(|(_, laid, _)| Move::cost(laid));
        let (channels_last, laid, fixed) = best.unwrap_or_default();
        let unmoved = |(at, origin): (usize, &Origin)| *origin == Some((0, at));
        if distinct.len() == 1 && laid.len() == distinct[0].elements() && laid.iter().enumerate().all(unmoved) {
            let exclusive = distinct[0].exclusive;
            return View { value: distinct[0].value, shape: shape.clone(), channels_last, exclusive, batch: *batch };
        }
        let layer = Move::new(distinct.len(), &laid, &fixed);
        let inputs = distinct.iter().map(|view| view.value).collect();
        let layering = Layering::Other(Box::new(layer));
        View { batch: *batch, ..self.step(&node.name, layering, inputs, shape, channels_last) }
    }
}

mod normalization;
mod product;
mod recurrent;
mod resize;

/// Sides of three axes of space, the missing ones in front.
fn three<T: Copy>(sides: &[T], missing: T) -> [T; 3] {
    std::array::from_fn(|axis| if axis + sides.len() >= 3 { sides[axis + sides.len() - 3] } else { missing })
}

/// Moves steps whose way back touches few elements right behind what made their input, so that their way back comes after
/// those of the input's other readers.
fn come_early(steps: &mut Vec<Step>) {
    for index in 0..steps.len() {
        if steps[index].layer.comes_last() && steps[index].inputs.len() == 1 {
            let input = steps[index].inputs[0];
            let behind = steps.iter().position(|step| step.output == input).map_or(0, |made| made + 1);
            if behind < index {
                let step = steps.remove(index);
                steps.insert(behind, step);
            }
        }
    }
}

/// Values that do not depend on the samples, by name.
fn known_values(graph: &Graph, facts: &BTreeMap<String, Fact>) -> Result<HashMap<String, Arc<Tensor>>, Error> {
    let mut known: HashMap<String, Arc<Tensor>> =
        graph.constants.iter().map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
    known.extend(facts.iter().filter_map(|(name, fact)| Some((name.clone(), fact.value.clone()?))));
    // What follows from constants alone but is too large, or may be trained, is computed here.
    let mut rest = Graph { name: "constants".into(), ..Graph::default() };
    let mut computed: Vec<String> = Vec::new();
    for node in &graph.nodes {
        let follows = |name: &String| name.is_empty() || known.contains_key(name) || computed.contains(name);
        let done = node.outputs.iter().all(|name| name.is_empty() || known.contains_key(name));
        if !done && node.inputs.iter().all(follows) {
            rest.nodes.push(node.clone());
            computed.extend(node.outputs.iter().filter(|name| !name.is_empty()).cloned());
        }
    }
    if rest.nodes.is_empty() {
        return Ok(known);
    }
    for name in rest.nodes.iter().flat_map(|node| &node.inputs) {
        if let Some(constant) = known.get(name)
            && !computed.contains(name)
        {
            rest.constants.insert(name.clone(), constant.clone());
        }
    }
    for name in &computed {
        known.remove(name);
    }
    rest.outputs.clone_from(&computed);
    let values = Executor::new(rest, &Device::default())?.forward(&[])?;
    known.extend(computed.into_iter().zip(values.into_iter().map(Arc::new)));
    Ok(known)
}

/// Nodes of `graph` that the engine does not compute, in order; empty where [`EngineModel`](crate::EngineModel) takes it.
///
/// Looks at the first output alone. The shape of a sample is that of the graph's input.
///
/// # Errors
///
/// When the graph is not well formed, takes other than one input, or leaves the shape of a sample open.
pub fn unsupported(graph: &Graph) -> Result<Vec<Unsupported>, Error> {
    let mut graph = graph.clone();
    graph.outputs.truncate(1);
    graph.prune();
    let shape = graph.inputs.first().and_then(|input| input.shape.clone()).unwrap_or_default();
    let side = |dimension: &Dimension| match dimension {
        Dimension::Fixed(side) => Some(*side),
        Dimension::Symbolic(_) => None,
    };
    let sample: Option<Vec<usize>> = shape.iter().skip(1).map(side).collect();
    let Some(sample) = sample else {
        return Err(Error::Graph(nocebo_graph::Error::Graph {
            what: "shape of a sample".to_owned(),
            expected: "fixed sides".to_owned(),
            got: shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        }));
    };
    Ok(Lowering::new(&graph, &sample, InstructionSet::Portable)?.unsupported())
}
