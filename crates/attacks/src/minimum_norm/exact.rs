//! Exact least change of a small ReLU network, L1 and Linf, by branch and bound.
//!
//! ```text
//! node    some ReLUs fixed to pass (z ≥ 0) or to rest (z ≤ 0), one way to reach the goal
//! bound   linear functions of x under and over every z (a resting or passing ReLU is linear; of an open one with
//!         l < z < u:  relu(z) ≤ u·(z − l)/(u − l)  and  relu(z) ≥ z or 0, whichever is nearer)
//!         least ‖x' − x‖ with goal(x') ≥ 0 and all fixed z on their side, over these functions: a linear program
//! branch  at the open ReLU that loosens most; best bound first
//! ```
//!
//! The bound is exact where no ReLU is open, so the search ends with the exact least change, or after its budget of nodes
//! with an interval: no change below `lower` reaches the goal, and one of size `upper` does. Every attack's result lies
//! at or above `lower`, which measures how far attacks are from the truth.
//!
//! Source: Carlini, Katz, Barrett & Dill 2017, arXiv:1709.10207 (least distortion proven by a complete verifier). Linear
//! bounds: Zhang et al., `NeurIPS` 2018, arXiv:1811.00866, passed forwards. Survey: \[18\].
//!
//! Differs from the source: branch and bound over the distance itself takes the place of a binary search around Reluplex.
//! Arithmetic is f64 on the f32 weights, with the rounding of the linear program (about 1e-9 of the range of the bounds)
//! not bounded.
//!
//! ```
//! use nocebo_attacks::minimum_norm::exact::{Dense, ReluNetwork};
//! use nocebo_core::{Domain, Goal, Label, Norm, Task};
//!
//! // One logit, |x₁ − 100| − 20 written with two ReLUs: class 1 is at least 20 grey levels away from 100.
//! let hidden = Dense { weights: vec![vec![1.0, 0.0], vec![-1.0, 0.0]], biases: vec![-100.0, 100.0] };
//! let head = Dense { weights: vec![vec![1.0, 1.0]], biases: vec![-20.0] };
//! let domain = Domain::grey_levels(&[2], 255.0)?;
//! let network = ReluNetwork::new(vec![hidden, head], domain, Task::Binary { threshold: 0.0 })?;
//! let goal = Goal::Untargeted { labels: vec![Label::Class(0)] };
//! let least = network.least_change(&[105.0, 7.0], &goal, Norm::Linf, 100, None)?;
//! assert!((least.lower - 15.0).abs() < 1e-4 && (least.upper - 15.0).abs() < 0.01);
//! # Ok::<(), nocebo_core::Error>(())
//! ```

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use nocebo_core::{Domain, Error, Goal, Label, Norm, Task};

use super::frame::{Frame, size};
use super::linear_program::{Inequality, least_norm};

/// How far beyond the boundary a point is looked for, as fractions of its change or of the range: the boundary itself
/// decides nothing.
const BEYOND: [f64; 3] = [1e-6, 1e-5, 1e-4];

/// One fully connected layer: `weights · input + biases`, one row of weights a unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Dense {
    /// One row a unit, one weight an input.
    pub weights: Vec<Vec<f32>>,
    /// One a unit.
    pub biases: Vec<f32>,
}

/// A fully connected network with a ReLU after every layer but the last, whose outputs are the logits.
#[derive(Clone, Debug)]
pub struct ReluNetwork {
    layers: Vec<Dense>,
    domain: Domain,
    task: Task,
}

/// What is known about the least change that reaches a goal, in the unit of the data.
#[derive(Clone, Debug, PartialEq)]
pub struct LeastChange {
    /// No smaller change reaches the goal; infinity when none inside the bounds does.
    pub lower: f64,
    /// Size of the least change found that reaches it; infinity when none was found.
    pub upper: f64,
    /// The point of that change.
    pub point: Option<Vec<f32>>,
    /// Nodes of the search.
    pub nodes: usize,
}

impl ReluNetwork {
    /// A network over samples of `domain` that decides `task`.
    ///
    /// # Errors
    ///
    /// When sizes do not fit each other or a weight is not finite.
    pub fn new(layers: Vec<Dense>, domain: Domain, task: Task) -> Result<Self, Error> {
        let mut inputs = domain.elements();
        for layer in &layers {
            if layer.weights.is_empty() || layer.weights.len() != layer.biases.len() {
                return Err(Error::mismatch("biases of a layer", layer.weights.len().max(1), layer.biases.len()));
            }
            if let Some(row) = layer.weights.iter().find(|row| row.len() != inputs) {
                return Err(Error::mismatch("weights of a unit", inputs, row.len()));
            }
            let mut values = layer.weights.iter().flatten().chain(&layer.biases);
            if let Some(value) = values.find(|value| !value.is_finite()) {
                return Err(Error::mismatch("weight of a network", "finite", value));
            }
            inputs = layer.weights.len();
        }
        if inputs != task.outputs() || layers.is_empty() {
            return Err(Error::mismatch("units of the last layer", task.outputs(), inputs));
        }
        Ok(Self { layers, domain, task })
    }

    /// The logits of one sample, computed in f64.
    ///
    /// # Panics
    ///
    /// When `x` does not have the domain's size.
    pub fn logits(&self, x: &[f32]) -> Vec<f32> {
        assert_eq!(x.len(), self.domain.elements());
        let mut values: Vec<f64> = x.iter().map(|value| f64::from(*value)).collect();
        for (depth, layer) in self.layers.iter().enumerate() {
            values = layer
                .weights
                .iter()
                .zip(&layer.biases)
                .map(|(row, bias)| {
                    let sum: f64 = row.iter().zip(&values).map(|(weight, value)| f64::from(*weight) * value).sum();
                    let sum = sum + f64::from(*bias);
                    if depth + 1 < self.layers.len() { sum.max(0.0) } else { sum }
                })
                .collect();
        }
        values.into_iter().map(|value| value as f32).collect()
    }

    /// The least change of `clean` in `norm` (L1 or Linf) that reaches `goal`, whose labels are those of this sample
    /// alone, with at most `nodes` nodes. The smaller `upper` is known from an attack's point `found`, the fewer nodes
    /// are needed.
    ///
    /// # Errors
    ///
    /// For another norm, a goal that does not fit the task, or a sample outside the bounds.
    pub fn least_change(
        &self,
        clean: &[f32],
        goal: &Goal,
        norm: Norm,
        nodes: usize,
        found: Option<&[f32]>,
    ) -> Result<LeastChange, Error> {
        if !matches!(norm, Norm::L1 | Norm::Linf) {
            return Err(Error::unsupported(
                format!("the exact least change in {norm}"),
                "linear programs measure l1 and linf",
            ));
        }
        goal.check(&self.task, 1)?;
        self.domain.check(&nocebo_core::Samples::new(clean.to_vec(), self.domain.shape())?)?;
        let mut search = BranchAndBound::new(self, clean, goal, norm);
        if goal.is_reached(&self.task, 0, &self.logits(clean)) {
            return Ok(LeastChange { lower: 0.0, upper: 0.0, point: Some(clean.to_vec()), nodes: 0 });
        }
        if let Some(point) = found {
            search.offer(point);
        }
        search.run(nodes);
        Ok(search.finish())
    }

    /// The ways to reach a goal: each a list of linear functions of the logits that must all be at least 0.
    fn ways(&self, goal: &Goal) -> Vec<Vec<Linear>> {
        let difference = |winner: usize, loser: usize| {
            let mut form = Linear { slopes: vec![0.0; self.task.outputs()], constant: 0.0 };
            form.slopes[winner] += 1.0;
            form.slopes[loser] -= 1.0;
            form
        };
        let flag = |index: usize, present: bool, threshold: f32| {
            let sign = if present { 1.0 } else { -1.0 };
            let mut form = Linear { slopes: vec![0.0; self.task.outputs()], constant: -sign * f64::from(threshold) };
            form.slopes[index] = sign;
            form
        };
        let class = |label: &Label| if let Label::Class(class) = label { *class } else { 0 };
        let flags = |label: &Label| if let Label::Findings(flags) = label { flags.clone() } else { Vec::new() };
        let leave = |from: usize, classes: usize| -> Vec<Vec<Linear>> {
            (0..classes).filter(|&to| to != from).map(|to| vec![difference(to, from)]).collect()
        };
        let reach = |to: usize, classes: usize| {
            vec![(0..classes).filter(|&other| other != to).map(|other| difference(to, other)).collect()]
        };
        match (&self.task, goal) {
            (Task::MultiClass { classes }, Goal::Untargeted { labels }) => leave(class(&labels[0]), *classes),
            (Task::MultiClass { classes }, Goal::FalseNegative { finding }) => leave(*finding, *classes),
            (Task::MultiClass { classes }, Goal::Targeted { targets, .. }) => reach(class(&targets[0]), *classes),
            (Task::MultiClass { classes }, Goal::FalsePositive { finding }) => reach(*finding, *classes),
            (Task::Binary { threshold }, goal) => {
                let present = match goal {
                    Goal::Untargeted { labels } => class(&labels[0]) == 0,
                    Goal::Targeted { targets, .. } => class(&targets[0]) == 1,
                    Goal::FalseNegative { finding } => *finding == 0,
                    Goal::FalsePositive { finding } => *finding == 1,
                };
                vec![vec![flag(0, present, *threshold)]]
            }
            (Task::MultiLabel { thresholds }, Goal::Untargeted { labels }) => {
                let found = flags(&labels[0]);
                (0..found.len()).map(|index| vec![flag(index, !found[index], thresholds[index])]).collect()
            }
            (Task::MultiLabel { thresholds }, Goal::Targeted { targets, .. }) => {
                let wanted = flags(&targets[0]);
                vec![(0..wanted.len()).map(|index| flag(index, wanted[index], thresholds[index])).collect()]
            }
            (Task::MultiLabel { thresholds }, Goal::FalseNegative { finding }) => {
                vec![vec![flag(*finding, false, thresholds[*finding])]]
            }
            (Task::MultiLabel { thresholds }, Goal::FalsePositive { finding }) => {
                vec![vec![flag(*finding, true, thresholds[*finding])]]
            }
            // `Goal::check` knows of no other task.
            _ => Vec::new(),
        }
    }
}

/// `slopes · v + constant`.
#[derive(Clone, Debug)]
struct Linear {
    slopes: Vec<f64>,
    constant: f64,
}

impl Linear {
    fn zero(inputs: usize) -> Self {
        Self { slopes: vec![0.0; inputs], constant: 0.0 }
    }

    fn add(&mut self, factor: f64, other: &Self) {
        self.constant += factor * other.constant;
        for (sum, part) in self.slopes.iter_mut().zip(&other.slopes) {
            *sum += factor * part;
        }
    }

    fn scaled(&self, factor: f64) -> Self {
        Self { slopes: self.slopes.iter().map(|part| factor * part).collect(), constant: factor * self.constant }
    }
}

/// A value between two linear functions of the change.
#[derive(Clone, Debug)]
struct Between {
    low: Linear,
    high: Linear,
}

/// What a ReLU does in a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    Passes,
    Rests,
}

/// What the linear functions of a part say.
struct Bound {
    /// No smaller change (in the range of the bounds) in this part reaches the goal.
    least: f64,
    /// A change of this size that the linear functions allow.
    change: Vec<f64>,
    /// The open ReLU to branch at, as layer and unit; `None` where the bound is exact.
    branch: Option<(usize, usize)>,
}

/// A part of the search.
struct Node {
    /// No smaller change (in the range of the bounds) in this part reaches the goal.
    bound: f64,
    way: usize,
    phases: Vec<Vec<Phase>>,
    /// The open ReLU to branch at, as layer and unit; `None` where the bound is exact.
    branch: Option<(usize, usize)>,
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Node {}

impl PartialOrd for Node {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Node {
    /// The least bound is the greatest node, so that a heap gives it first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.bound.total_cmp(&self.bound)
    }
}

struct BranchAndBound<'a> {
    network: &'a ReluNetwork,
    frame: Frame<'a>,
    goal: &'a Goal,
    norm: Norm,
    ways: Vec<Vec<Linear>>,
    waiting: BinaryHeap<Node>,
    /// Least bound of the parts that are settled exactly, in ranges.
    settled: f64,
    /// Least change found, in ranges, and its point.
    best: f64,
    point: Option<Vec<f32>>,
    nodes: usize,
}

impl<'a> BranchAndBound<'a> {
    fn new(network: &'a ReluNetwork, clean: &'a [f32], goal: &'a Goal, norm: Norm) -> Self {
        Self {
            network,
            frame: Frame::new(&network.domain, clean),
            goal,
            norm,
            ways: network.ways(goal),
            waiting: BinaryHeap::new(),
            settled: f64::INFINITY,
            best: f64::INFINITY,
            point: None,
            nodes: 0,
        }
    }

    /// Keeps a point that reaches the goal and is nearer than the one kept.
    fn offer(&mut self, point: &[f32]) {
        let length = size(self.norm, &self.frame.change(point));
        if length < self.best && self.goal.is_reached(&self.network.task, 0, &self.network.logits(point)) {
            self.best = length;
            self.point = Some(point.to_vec());
        }
    }

    fn run(&mut self, nodes: usize) {
        let open: Vec<Vec<Phase>> = self.network.layers[..self.network.layers.len() - 1]
            .iter()
            .map(|layer| vec![Phase::Open; layer.biases.len()])
            .collect();
        for way in 0..self.ways.len() {
            self.add(way, open.clone());
        }
        while self.nodes < nodes {
            let Some(node) = self.waiting.pop() else { return };
            if node.bound >= self.best.min(self.settled) {
                self.waiting.clear();
                return;
            }
            match node.branch {
                None => self.settled = self.settled.min(node.bound),
                Some((layer, unit)) => {
                    for phase in [Phase::Passes, Phase::Rests] {
                        let mut phases = node.phases.clone();
                        phases[layer][unit] = phase;
                        self.add(node.way, phases);
                    }
                }
            }
        }
    }

    /// Bounds a part, looks at the point that the bound names, and lets the part wait if it can hold a smaller change.
    fn add(&mut self, way: usize, phases: Vec<Vec<Phase>>) {
        self.nodes += 1;
        let Some(Bound { least, change, branch }) = self.bound(way, &phases, 0.0) else { return };
        for beyond in BEYOND {
            let moved: Vec<f64> = change.iter().map(|part| part * (1.0 + beyond)).collect();
            self.offer(&self.frame.point(&moved));
            if branch.is_none()
                && let Some(inside) = self.bound(way, &phases, beyond)
            {
                self.offer(&self.frame.point(&inside.change));
            }
        }
        if least < self.best {
            self.waiting.push(Node { bound: least, way, phases, branch });
        }
    }

    /// The least change that the linear functions of a part allow, and the ReLU to branch at; `None` where nothing of
    /// the part reaches the goal inside the bounds and below the change already found. The change has to lead `beyond`
    /// the boundary, in ranges.
    fn bound(&self, way: usize, phases: &[Vec<Phase>], beyond: f64) -> Option<Bound> {
        let most = self.best.min(self.settled);
        let rooms: Vec<(f64, f64)> = (0..self.frame.elements())
            .map(|element| {
                let (low, high) = self.frame.room(element);
                (low.max(-most), high.min(most))
            })
            .collect();
        let region = Region { rooms: &rooms, l1: if self.norm == Norm::L1 { most } else { f64::INFINITY } };
        let mut required = Vec::new();
        let mut branch: Option<(f64, usize, usize)> = None;
        let mut values = self.inputs();
        for (depth, layer) in self.network.layers.iter().enumerate() {
            let sums: Vec<Between> = layer
                .weights
                .iter()
                .zip(&layer.biases)
                .map(|(row, bias)| combine(row.iter().map(|weight| f64::from(*weight)), f64::from(*bias), &values))
                .collect();
            let Some(layer_phases) = phases.get(depth) else {
                values = sums;
                break;
            };
            values = Vec::with_capacity(sums.len());
            for (unit, sum) in sums.into_iter().enumerate() {
                let (low, high) = (region.least(&sum.low), region.greatest(&sum.high));
                match layer_phases[unit] {
                    Phase::Passes => required.push(at_least_zero(&sum.high)),
                    Phase::Rests => required.push(at_least_zero(&sum.low.scaled(-1.0))),
                    Phase::Open if low < 0.0 && high > 0.0 => {
                        let weight: f64 =
                            self.network.layers[depth + 1].weights.iter().map(|row| f64::from(row[unit].abs())).sum();
                        let looseness = weight * -low * high / (high - low);
                        if branch.is_none_or(|(most, ..)| looseness > most) {
                            branch = Some((looseness, depth, unit));
                        }
                        values.push(relaxed(&sum, low, high));
                        continue;
                    }
                    Phase::Open => {}
                }
                let rests = layer_phases[unit] == Phase::Rests || layer_phases[unit] == Phase::Open && high <= 0.0;
                let zero = Linear::zero(self.frame.elements());
                values.push(if rests { Between { low: zero.clone(), high: zero } } else { sum });
            }
        }
        for form in &self.ways[way] {
            let reached = combine(form.slopes.iter().copied(), form.constant, &values);
            let mut reached = at_least_zero(&reached.high);
            reached.least += beyond * size(Norm::L1, &reached.normal);
            required.push(reached);
        }
        let (least, change) = least_norm(self.norm, &required, &rooms)?;
        Some(Bound { least, change, branch: branch.map(|(_, layer, unit)| (layer, unit)) })
    }

    /// The inputs of the network as functions of the change.
    fn inputs(&self) -> Vec<Between> {
        let clean = self.frame.clean();
        (0..clean.len())
            .map(|element| {
                let mut value = Linear::zero(clean.len());
                value.slopes[element] = self.frame.range();
                value.constant = f64::from(clean[element]);
                Between { low: value.clone(), high: value }
            })
            .collect()
    }

    fn finish(self) -> LeastChange {
        let waiting = self.waiting.peek().map_or(f64::INFINITY, |node| node.bound);
        let range = self.frame.range();
        LeastChange {
            lower: waiting.min(self.settled).min(self.best) * range,
            upper: self.point.as_ref().map_or(f64::INFINITY, |point| self.norm.distance(self.frame.clean(), point)),
            point: self.point,
            nodes: self.nodes,
        }
    }
}

/// A weighted sum of values that lie between linear functions.
fn combine(weights: impl Iterator<Item = f64>, bias: f64, values: &[Between]) -> Between {
    let inputs = values.first().map_or(0, |value| value.low.slopes.len());
    let mut sum = Between { low: Linear::zero(inputs), high: Linear::zero(inputs) };
    for (weight, value) in weights.zip(values) {
        let (low, high) = if weight >= 0.0 { (&value.low, &value.high) } else { (&value.high, &value.low) };
        if weight != 0.0 {
            sum.low.add(weight, low);
            sum.high.add(weight, high);
        }
    }
    sum.low.constant += bias;
    sum.high.constant += bias;
    sum
}

/// An open ReLU of a sum between `low` < 0 and `high` > 0.
fn relaxed(sum: &Between, low: f64, high: f64) -> Between {
    let slope = high / (high - low);
    let mut above = sum.high.scaled(slope);
    above.constant -= slope * low;
    let below = if high > -low { sum.low.clone() } else { Linear::zero(sum.low.slopes.len()) };
    Between { low: below, high: above }
}

fn at_least_zero(form: &Linear) -> Inequality {
    Inequality { normal: form.slopes.clone(), least: -form.constant }
}

/// Where changes are looked for: bounds of each element, and of their sum for L1.
struct Region<'a> {
    rooms: &'a [(f64, f64)],
    l1: f64,
}

impl Region<'_> {
    fn greatest(&self, form: &Linear) -> f64 {
        let parts = form.slopes.iter().zip(self.rooms);
        let inside: f64 = parts.map(|(slope, (low, high))| slope * if *slope > 0.0 { high } else { low }).sum();
        let ball = if self.l1.is_finite() { self.l1 * size(Norm::Linf, &form.slopes) } else { f64::INFINITY };
        form.constant + inside.min(ball)
    }

    fn least(&self, form: &Linear) -> f64 {
        -self.greatest(&form.scaled(-1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build;
    use nocebo_core::{Seed, ThreatModel};
    use nocebo_testkit::models::SmallRelu;
    use nocebo_testkit::suite;

    fn dense((weights, biases): (&[Vec<f32>], &[f32])) -> Dense {
        Dense { weights: weights.to_vec(), biases: biases.to_vec() }
    }

    fn network(model: &SmallRelu) -> ReluNetwork {
        let task = Task::MultiClass { classes: 3 };
        ReluNetwork::new(model.layers().map(dense).to_vec(), suite::ct_domain(), task).unwrap()
    }

    #[test]
    fn a_network_without_hidden_layer_has_the_linear_least_change() {
        let model = suite::linear_classifier();
        let samples = suite::ct_samples();
        let (weights, biases) = model.layer();
        let layer = Dense { weights: weights.to_vec(), biases: biases.to_vec() };
        let network = ReluNetwork::new(vec![layer], suite::ct_domain(), Task::MultiClass { classes: 4 }).unwrap();
        for (clean, label) in samples.rows().zip(suite::decided(&model, &samples)) {
            for norm in [Norm::L1, Norm::Linf] {
                let goal = Goal::Untargeted { labels: vec![label.clone()] };
                let least = network.least_change(clean, &goal, norm, 100, None).unwrap();
                let exact = model.least_change(norm, clean);
                assert!((least.lower / exact - 1.0).abs() < 1e-6, "{norm} {least:?} {exact}");
                assert!((least.upper / exact - 1.0).abs() < 1e-4, "{norm} {least:?} {exact}");
            }
        }
    }

    /// Two inputs, two hidden layers, small enough for a dense grid.
    fn two_inputs() -> ReluNetwork {
        let unit = |seed: usize, at: usize| ((((seed * 53 + at) * 67 + 13) % 101) as f32 / 50.0 - 1.0) * 1.5;
        let layer = |seed: usize, units: usize, inputs: usize, scale: f32| Dense {
            weights: (0..units).map(|row| (0..inputs).map(|at| scale * unit(seed + row, at)).collect()).collect(),
            biases: (0..units).map(|row| unit(seed + row, 77)).collect(),
        };
        // The kinks of the first layer run near the middle of the bounds.
        let mut first = layer(1, 6, 2, 0.1);
        for (bias, row) in first.biases.iter_mut().zip(&first.weights) {
            *bias -= 50.0 * row.iter().sum::<f32>();
        }
        let layers = vec![first, layer(11, 5, 6, 1.0), layer(23, 3, 5, 1.0)];
        ReluNetwork::new(layers, Domain::grey_levels(&[2], 100.0).unwrap(), Task::MultiClass { classes: 3 }).unwrap()
    }

    #[test]
    fn no_point_of_a_dense_grid_is_nearer_and_one_is_about_as_near() {
        let network = two_inputs();
        let step = 0.25_f32;
        let grid: Vec<([f32; 2], Vec<f32>)> = (0..=400)
            .flat_map(|a| (0..=400).map(move |b| [a as f32 * step, b as f32 * step]))
            .map(|point| (point, network.logits(&point)))
            .collect();
        let mut tested = 0;
        for clean in [[50.0, 50.0], [20.0, 70.0], [85.0, 30.0], [5.0, 5.0]] {
            let Label::Class(label) = network.task.decide(&network.logits(&clean)) else { unreachable!() };
            let goals = [
                Goal::Untargeted { labels: vec![Label::Class(label)] },
                Goal::FalsePositive { finding: (label + 1) % 3 },
                Goal::FalsePositive { finding: (label + 2) % 3 },
            ];
            for goal in goals {
                for norm in [Norm::L1, Norm::Linf] {
                    let least = network.least_change(&clean, &goal, norm, 10_000, None).unwrap();
                    let near = grid
                        .iter()
                        .filter(|(_, logits)| goal.is_reached(&network.task, 0, logits))
                        .map(|(point, _)| norm.distance(&clean, point))
                        .fold(f64::INFINITY, f64::min);
                    assert!(least.lower <= near, "{norm} {goal:?} {least:?} {near}");
                    assert!(near.is_infinite() || near <= least.lower + 1.0, "{norm} {goal:?} {least:?} {near}");
                    assert!(least.upper <= least.lower * 1.001 || near.is_infinite(), "{norm} {goal:?} {least:?}");
                    tested += usize::from(near.is_finite() && least.nodes > 2);
                }
            }
        }
        assert!(tested > 6, "{tested}");
    }

    #[test]
    fn few_nodes_give_an_interval_around_the_truth_and_a_known_point_saves_nodes() {
        let network = two_inputs();
        let clean = [50.0, 50.0];
        let goal = Goal::Untargeted { labels: vec![network.task.decide(&network.logits(&clean))] };
        for norm in [Norm::L1, Norm::Linf] {
            let exact = network.least_change(&clean, &goal, norm, 10_000, None).unwrap();
            let early = network.least_change(&clean, &goal, norm, 3, None).unwrap();
            assert!(early.lower <= exact.lower && exact.upper <= early.upper, "{norm} {early:?} {exact:?}");
            assert!(early.lower < exact.lower, "{norm}: {early:?} {exact:?}");
            let known = network.least_change(&clean, &goal, norm, 10_000, exact.point.as_deref()).unwrap();
            assert!(known.nodes < exact.nodes && (known.lower / exact.lower - 1.0).abs() < 1e-6, "{norm} {known:?}");
        }
    }

    #[test]
    fn the_least_changes_that_the_suite_knows_are_these() {
        let (model, samples) = (suite::small_relu(), suite::ct_samples());
        let network = network(&model);
        for norm in [Norm::L1, Norm::Linf] {
            for (row, label) in suite::decided(&model, &samples).into_iter().enumerate() {
                let goal = Goal::Untargeted { labels: vec![label] };
                let least = network.least_change(samples.row(row), &goal, norm, 100_000, None).unwrap();
                let known = suite::small_relu_least_change(norm, row).unwrap();
                assert!((least.lower / known - 1.0).abs() < 1e-5, "{norm} {row}: {} {known}", least.lower);
                assert!(least.upper <= known * 1.001, "{norm} {row}: {least:?}");
            }
        }
    }

    #[test]
    fn attacks_stay_above_the_truth() {
        let (model, samples) = (suite::small_relu(), suite::ct_samples());
        let goal = Goal::Untargeted { labels: suite::decided(&model, &samples) };
        for norm in [Norm::L1, Norm::Linf] {
            let threat = ThreatModel::new(norm, f32::INFINITY, suite::ct_domain()).unwrap();
            let attack = build("fab-t", toml::Table::new()).unwrap();
            let outcome = attack.run(&model, &samples, &goal, &threat, Seed(1)).unwrap();
            for row in 0..samples.len() {
                let found = norm.distance(samples.row(row), outcome.perturbed_inputs.row(row));
                assert!(found >= suite::small_relu_least_change(norm, row).unwrap() * 0.9999, "{norm} {row} {found}");
            }
        }
    }

    #[test]
    fn networks_and_questions_that_do_not_fit_are_refused() {
        let domain = Domain::grey_levels(&[2], 100.0).unwrap();
        let task = Task::MultiClass { classes: 2 };
        let layer = |weights: &[&[f32]], biases: &[f32]| Dense {
            weights: weights.iter().map(|row| row.to_vec()).collect(),
            biases: biases.to_vec(),
        };
        let refused = [
            vec![],
            vec![layer(&[&[1.0, 2.0]], &[0.0])],
            vec![layer(&[&[1.0], &[2.0]], &[0.0, 0.0])],
            vec![layer(&[&[1.0, 2.0], &[1.0, 2.0]], &[0.0])],
            vec![layer(&[&[1.0, f32::NAN], &[1.0, 2.0]], &[0.0, 0.0])],
        ];
        for layers in refused {
            assert!(ReluNetwork::new(layers.clone(), domain.clone(), task.clone()).is_err(), "{layers:?}");
        }
        let network = two_inputs();
        let goal = Goal::Untargeted { labels: vec![Label::Class(0)] };
        assert!(network.least_change(&[1.0, 2.0], &goal, Norm::L2, 10, None).is_err());
        assert!(network.least_change(&[1.0, 2000.0], &goal, Norm::L1, 10, None).is_err());
        assert!(network.least_change(&[1.0], &goal, Norm::L1, 10, None).is_err());
        let two = Goal::Untargeted { labels: vec![Label::Class(0), Label::Class(1)] };
        assert!(network.least_change(&[1.0, 2.0], &two, Norm::L1, 10, None).is_err());
    }
}
