//! A decision tree (CART), as a target and as a substitute: small, for tables most of all.
//!
//! ```text
//! split at the feature and threshold of least Gini impurity Σ share·(1 − Σ p²), thresholds halfway between neighbours
//! a sample goes left where value ≤ threshold;  a leaf decides what most of its samples are
//! ```
//!
//! Source: Breiman, Friedman, Olshen & Stone, Classification and Regression Trees, 1984, chapter 2, without pruning.

use std::collections::BTreeMap;

use nocebo_core::{Error, Label, Model, ModelSpec, Outputs, Samples, Task};

/// A tree over the features of a sample, in the unit of its domain.
#[derive(Clone, Debug)]
pub struct DecisionTree {
    spec: ModelSpec,
    /// The root first.
    nodes: Vec<Node>,
}

#[derive(Clone, Debug)]
enum Node {
    Split { feature: usize, threshold: f32, below: usize, above: usize },
    Leaf(Label),
}

/// What a leaf asks of its samples: for each feature in question, above the first and at most the second number.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    pub(crate) label: Label,
    pub(crate) bounds: BTreeMap<usize, (f32, f32)>,
}

impl DecisionTree {
    /// Learns from samples with their labels; no leaf lies deeper than `depth` splits or is split below two samples.
    ///
    /// # Errors
    ///
    /// When there is no sample, not one label a sample, a label does not fit the task, or the samples have another shape.
    pub fn train(spec: &ModelSpec, samples: &Samples, labels: &[Label], depth: usize) -> Result<Self, Error> {
        if labels.len() != samples.len() || samples.is_empty() {
            return Err(Error::mismatch("number of labels", format!("{}, at least 1", samples.len()), labels.len()));
        }
        spec.check_shape(samples)?;
        labels.iter().try_for_each(|label| spec.task.check_label(label))?;
        let mut tree = Self { spec: spec.clone(), nodes: Vec::new() };
        tree.grow(samples, labels, (0..samples.len()).collect(), depth);
        Ok(tree)
    }

    /// Appends the subtree of these rows and gives its place.
    fn grow(&mut self, samples: &Samples, labels: &[Label], rows: Vec<usize>, depth: usize) -> usize {
        let place = self.nodes.len();
        let split = if depth == 0 { None } else { best_split(samples, labels, &rows) };
        let Some((feature, threshold)) = split else {
            let counts = counted(labels, &rows);
            let most = counts.values().copied().max();
            let winner = counts.into_iter().find(|(_, count)| Some(*count) == most).map(|(label, _)| label.clone());
            self.nodes.push(Node::Leaf(winner.unwrap_or(Label::Class(0))));
            return place;
        };
        // Held until both sides have their place.
        self.nodes.push(Node::Leaf(Label::Class(0)));
        let (low, high) = rows.into_iter().partition(|&row| samples.row(row)[feature] <= threshold);
        let below = self.grow(samples, labels, low, depth - 1);
        let above = self.grow(samples, labels, high, depth - 1);
        self.nodes[place] = Node::Split { feature, threshold, below, above };
        place
    }

    /// What the tree decides on one sample.
    pub fn decide(&self, x: &[f32]) -> &Label {
        let mut at = 0;
        loop {
            match &self.nodes[at] {
                Node::Leaf(label) => return label,
                Node::Split { feature, threshold, below, above } => {
                    at = if x[*feature] <= *threshold { *below } else { *above };
                }
            }
        }
    }

    /// Every leaf with the path to it.
    pub(crate) fn leaves(&self) -> Vec<Leaf> {
        let mut leaves = Vec::new();
        let mut waiting = vec![(0, BTreeMap::new())];
        while let Some((at, bounds)) = waiting.pop() {
            match &self.nodes[at] {
                Node::Leaf(label) => leaves.push(Leaf { label: label.clone(), bounds }),
                Node::Split { feature, threshold, below, above } => {
                    let open = (f32::NEG_INFINITY, f32::INFINITY);
                    let (low, high) = bounds.get(feature).copied().unwrap_or(open);
                    for (side, own) in [(*above, (low.max(*threshold), high)), (*below, (low, high.min(*threshold)))] {
                        let mut bounds = bounds.clone();
                        bounds.insert(*feature, own);
                        waiting.push((side, bounds));
                    }
                }
            }
        }
        leaves
    }
}

fn counted<'l>(labels: &'l [Label], rows: &[usize]) -> BTreeMap<&'l Label, usize> {
    let mut counts = BTreeMap::new();
    for &row in rows {
        *counts.entry(&labels[row]).or_default() += 1;
    }
    counts
}

/// The feature and threshold of least impurity, the first of equals; `None` where no split lowers it.
fn best_split(samples: &Samples, labels: &[Label], rows: &[usize]) -> Option<(usize, f32)> {
    // Samples times impurity: n − Σ counts²/n.
    let impurity = |counts: &BTreeMap<&Label, usize>| {
        let n: usize = counts.values().sum();
        let squares: usize = counts.values().map(|count| count * count).sum();
        if n == 0 { 0.0 } else { n as f64 - squares as f64 / n as f64 }
    };
    let all = counted(labels, rows);
    let mut least = impurity(&all) - 1e-9;
    let mut best = None;
    let mut order = rows.to_vec();
    for feature in 0..samples.elements() {
        let value = |row: usize| samples.row(row)[feature];
        order.sort_by(|&a, &b| value(a).total_cmp(&value(b)).then(a.cmp(&b)));
        let (mut low, mut high) = (BTreeMap::new(), all.clone());
        for pair in order.windows(2) {
            *low.entry(&labels[pair[0]]).or_default() += 1;
            if let Some(count) = high.get_mut(&labels[pair[0]]) {
                *count -= 1;
            }
            // The middle of two neighbouring floats may be the greater one, which would go to the wrong side.
            let threshold = f32::midpoint(value(pair[0]), value(pair[1]));
            let together = impurity(&low) + impurity(&high);
            if value(pair[0]) < value(pair[1]) && threshold < value(pair[1]) && together < least {
                (least, best) = (together, Some((feature, threshold)));
            }
        }
    }
    best
}

impl Model for DecisionTree {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// 1 for what the leaf decides and 0 for the rest; 1 above or below the threshold where there is one.
    fn outputs(&self, inputs: &Samples) -> Result<Outputs, Error> {
        self.spec.check_shape(inputs)?;
        let mut values = Vec::with_capacity(inputs.len() * self.spec.task.outputs());
        for row in inputs.rows() {
            let flag = |present: bool, threshold: f32| if present { threshold + 1.0 } else { threshold - 1.0 };
            match (self.decide(row), &self.spec.task) {
                (Label::Class(class), Task::MultiClass { classes }) => {
                    values.extend((0..*classes).map(|at| f32::from(u8::from(at == *class))));
                }
                (Label::Class(class), Task::Binary { threshold }) => values.push(flag(*class == 1, *threshold)),
                (Label::Findings(found), Task::MultiLabel { thresholds }) => {
                    values.extend(found.iter().zip(thresholds).map(|(found, threshold)| flag(*found, *threshold)));
                }
                (label, task) => {
                    return Err(Error::unsupported(
                        format!("a decision tree that decides {label:?}"),
                        format!("{task:?}"),
                    ));
                }
            }
        }
        Ok(Samples::new(values, &[self.spec.task.outputs()])?.with_indices(inputs.indices().to_vec())?.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nocebo_core::Domain;
    use nocebo_testkit::suite;

    fn spec(task: Task) -> ModelSpec {
        let class_names = (0..task.classes()).map(|class| format!("{class}")).collect();
        ModelSpec { domain: Domain::grey_levels(&[2], 100.0).unwrap(), task, class_names }
    }

    #[test]
    fn splits_where_the_impurity_is_least() {
        // Class 1 where x₁ > 50, class 2 where besides x₀ > 20.
        let samples = Samples::new(vec![10.0, 30.0, 80.0, 40.0, 10.0, 60.0, 12.0, 70.0, 28.0, 60.0, 30.0, 90.0], &[2]);
        let samples = samples.unwrap();
        let labels = [0, 0, 1, 1, 2, 2].map(Label::Class);
        let tree = DecisionTree::train(&spec(Task::MultiClass { classes: 3 }), &samples, &labels, 8).unwrap();
        assert_eq!(suite::decided(&tree, &samples), labels);
        let leaves = tree.leaves();
        assert_eq!(leaves.len(), 3);
        let bounds =
            |class: usize| leaves.iter().find(|leaf| leaf.label == Label::Class(class)).unwrap().bounds.clone();
        assert_eq!(bounds(0), BTreeMap::from([(1, (f32::NEG_INFINITY, 50.0))]));
        assert_eq!(bounds(2), BTreeMap::from([(0, (20.0, f32::INFINITY)), (1, (50.0, f32::INFINITY))]));
        let stump = DecisionTree::train(&spec(Task::MultiClass { classes: 3 }), &samples, &labels, 0).unwrap();
        assert_eq!(stump.decide(&[0.0, 0.0]), &Label::Class(0));
    }

    #[test]
    fn serves_every_task_with_a_decision_a_sample() {
        let samples = Samples::new(vec![10.0, 30.0, 80.0, 40.0, 10.0, 60.0, 90.0, 70.0], &[2]).unwrap();
        let flags = |row: &[f32]| Label::Findings(vec![row[0] > 50.0, row[1] > 50.0]);
        let findings: Vec<Label> = samples.rows().map(flags).collect();
        let task = Task::MultiLabel { thresholds: vec![0.0, 2.0] };
        let tree = DecisionTree::train(&spec(task), &samples, &findings, 8).unwrap();
        assert_eq!(suite::decided(&tree, &samples), findings);
        let present = [0, 1, 0, 1].map(Label::Class);
        let tree = DecisionTree::train(&spec(Task::Binary { threshold: 3.0 }), &samples, &present, 8).unwrap();
        assert_eq!(suite::decided(&tree, &samples), present);
    }

    #[test]
    fn sets_that_do_not_fit_are_refused() {
        let samples = Samples::new(vec![10.0, 30.0], &[2]).unwrap();
        let task = Task::Binary { threshold: 0.0 };
        assert!(DecisionTree::train(&spec(task.clone()), &samples, &[], 8).is_err());
        assert!(DecisionTree::train(&spec(task.clone()), &samples, &[Label::Class(2)], 8).is_err());
        assert!(DecisionTree::train(&spec(task), &samples.select(&[]), &[], 8).is_err());
    }
}
