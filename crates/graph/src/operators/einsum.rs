//! Sums of products over named axes.
//!
//! Operands are contracted from left to right. Each step sums over the axes that only one operand has and nobody needs, and
//! multiplies the rest as batched matrices.

use super::{Arguments, Behaviour, Fact, Facts, Source, Target, output_shape};
use crate::tensor::{elements, positions, strides};
use crate::value::{DeviceTensor, Value};
use crate::{OperatorError, Tensor};

/// `Einsum`, such as `bij,bjk->bik`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Einsum {
    /// One term an input, an arrow, and the term of the result, which may be left out.
    pub equation: String,
}

/// An axis of a term: a letter, or one of the axes that `...` stands for, counted from the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    Unnamed(usize),
    Letter(char),
}

/// A term with the ellipsis spelled out for a tensor of the given rank.
fn labels(term: &str, rank: usize) -> Result<Vec<Label>, OperatorError> {
    let misfit = |got: &str| {
        OperatorError::attribute(
            "equation",
            format!("a term that fits {rank} axes, of letters and at most one `...`"),
            got,
        )
    };
    let letters = |part: &str| -> Result<Vec<Label>, OperatorError> {
        part.chars()
            .map(|letter| if letter.is_ascii_alphabetic() { Ok(Label::Letter(letter)) } else { Err(misfit(term)) })
            .collect()
    };
    let Some((before, after)) = term.split_once("...") else {
        let labels = letters(term)?;
        return if labels.len() == rank { Ok(labels) } else { Err(misfit(term)) };
    };
    let (before, after) = (letters(before)?, letters(after)?);
    let unnamed = rank.checked_sub(before.len() + after.len()).ok_or_else(|| misfit(term))?;
    Ok(before.into_iter().chain((0..unnamed).rev().map(Label::Unnamed)).chain(after).collect())
}

/// The labels of each input and of the result.
struct Terms {
    inputs: Vec<Vec<Label>>,
    result: Vec<Label>,
}

impl Einsum {
    fn terms(&self, ranks: &[usize]) -> Result<Terms, OperatorError> {
        let equation: String = self.equation.chars().filter(|letter| !letter.is_whitespace()).collect();
        let (left, right) = match equation.split_once("->") {
            Some((left, right)) => (left, Some(right)),
            None => (equation.as_str(), None),
        };
        let terms: Vec<&str> = left.split(',').collect();
        if terms.len() != ranks.len() {
            return Err(OperatorError::attribute(
                "equation",
                format!("a term for each of {} inputs", ranks.len()),
                &self.equation,
            ));
        }
        let inputs: Vec<Vec<Label>> =
            terms.iter().zip(ranks).map(|(term, &rank)| labels(term, rank)).collect::<Result<_, _>>()?;
        let all = || inputs.iter().flatten().copied();
        let mut unnamed: Vec<Label> = all().filter(|label| matches!(label, Label::Unnamed(_))).collect();
        unnamed.sort_by(|a, b| b.cmp(a));
        unnamed.dedup();
        let result = if let Some(term) = right {
            let spelled = if term.contains("...") { unnamed.len() } else { 0 };
            let named = term.replace("...", "").chars().count();
            labels(term, named + spelled)?
        } else {
            // Without an arrow: the ellipsis, then the letters that stand once, in alphabetical order.
            let is_single =
                |label: &Label| matches!(label, Label::Letter(_)) && all().filter(|other| other == label).count() == 1;
            let mut once: Vec<Label> = all().filter(is_single).collect();
            once.sort_unstable();
            unnamed.into_iter().chain(once).collect()
        };
        for (index, label) in result.iter().enumerate() {
            if result[..index].contains(label) || !all().any(|other| other == *label) {
                return Err(OperatorError::attribute(
                    "equation",
                    "a result of labels of the inputs, each once",
                    &self.equation,
                ));
            }
        }
        Ok(Terms { inputs, result })
    }
}

/// Side of each label; unnamed axes broadcast.
fn sides(terms: &Terms, shapes: &[&[usize]]) -> Result<Vec<(Label, usize)>, OperatorError> {
    let mut sides: Vec<(Label, usize)> = Vec::new();
    for (labels, shape) in terms.inputs.iter().zip(shapes) {
        for (label, &side) in labels.iter().zip(*shape) {
            match sides.iter_mut().find(|(other, _)| other == label) {
                None => sides.push((*label, side)),
                Some((_, known)) if *known == side || side == 1 => {}
                Some((_, known)) if *known == 1 => *known = side,
                Some((_, known)) => {
                    return Err(OperatorError::mismatch(format!("side of the axis {label:?}"), known, side));
                }
            }
        }
    }
    Ok(sides)
}

/// A tensor with a label for each axis, every label once.
struct Labelled {
    tensor: DeviceTensor,
    labels: Vec<Label>,
}

impl Labelled {
    /// Takes the diagonal of labels that stand twice.
    fn new(tensor: DeviceTensor, labels: &[Label]) -> Self {
        let shape = tensor.shape();
        let own = strides(&shape);
        let mut distinct: Vec<Label> = Vec::new();
        let (mut sides, mut steps): (Vec<usize>, Vec<isize>) = (Vec::new(), Vec::new());
        for (axis, label) in labels.iter().enumerate() {
            if let Some(place) = distinct.iter().position(|other| other == label) {
                sides[place] = sides[place].min(shape[axis]);
                steps[place] += own[axis] as isize;
            } else {
                distinct.push(*label);
                sides.push(shape[axis]);
                steps.push(own[axis] as isize);
            }
        }
        if distinct.len() == labels.len() {
            return Self { tensor, labels: distinct };
        }
        let places = positions(&sides, &steps, 0);
        Self { tensor: tensor.picked(&sides, &places), labels: distinct }
    }

    /// Sums over the labels that are not wanted.
    fn summed(self, wanted: impl Fn(Label) -> bool) -> Self {
        let axes: Vec<usize> = (0..self.labels.len()).filter(|&axis| !wanted(self.labels[axis])).collect();
        let kept: Vec<Label> = self.labels.iter().copied().filter(|&label| wanted(label)).collect();
        let shape: Vec<usize> = self
            .tensor
            .shape()
            .into_iter()
            .enumerate()
            .filter(|(axis, _)| !axes.contains(axis))
            .map(|(_, side)| side)
            .collect();
        Self { tensor: self.tensor.sum(&axes).reshaped(&shape), labels: kept }
    }

    /// The same with the axes in the order of `labels`, which are all its own.
    fn ordered(self, labels: &[Label]) -> Self {
        let order: Vec<usize> =
            labels.iter().filter_map(|label| self.labels.iter().position(|own| own == label)).collect();
        let tensor = if order.is_empty() { self.tensor } else { self.tensor.permuted(&order) };
        Self { tensor, labels: labels.to_vec() }
    }

    /// The product of two operands, summed over what `needed` leaves out.
    fn times(self, other: Self, sides: &[(Label, usize)], needed: impl Fn(Label) -> bool) -> Self {
        let left = self.summed(|label| needed(label) || other.labels.contains(&label));
        let other = other.summed(|label| needed(label) || left.labels.contains(&label));
        let shared = |label: &Label| other.labels.contains(label);
        let batch: Vec<Label> = left.labels.iter().copied().filter(|label| shared(label) && needed(*label)).collect();
        let inner: Vec<Label> = left.labels.iter().copied().filter(|label| shared(label) && !needed(*label)).collect();
        let rows: Vec<Label> = left.labels.iter().copied().filter(|label| !shared(label)).collect();
        let columns: Vec<Label> = other.labels.iter().copied().filter(|label| !left.labels.contains(label)).collect();
        let side = |label: &Label| sides.iter().find(|(other, _)| other == label).map_or(1, |(_, side)| *side);
        let size = |labels: &[Label]| labels.iter().map(side).product::<usize>();
        let spread = |operand: Self, order: &[&[Label]]| {
            let order = order.concat();
            let shape: Vec<usize> = order.iter().map(side).collect();
            operand.ordered(&order).tensor.expanded(&shape)
        };
        let left = spread(left, &[&batch, &rows, &inner]).reshaped(&[size(&batch), size(&rows), size(&inner)]);
        let right = spread(other, &[&batch, &inner, &columns]).reshaped(&[size(&batch), size(&inner), size(&columns)]);
        let labels = [batch, rows, columns].concat();
        let shape: Vec<usize> = labels.iter().map(side).collect();
        Self { tensor: left.matmul(&right).reshaped(&shape), labels }
    }
}

impl Behaviour for Einsum {
    fn name(&self) -> &'static str {
        "Einsum"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "Einsum" {
            return Ok(None);
        }
        let equation = source.text("equation")?.ok_or_else(|| OperatorError::attribute("equation", "given", "none"))?;
        Ok(Some(Self { equation }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        target.text("equation", &self.equation);
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        let shapes = inputs.shapes()?;
        (0..shapes.len()).try_for_each(|position| inputs.require_float(position))?;
        let terms = self.terms(&shapes.iter().map(|shape| shape.len()).collect::<Vec<_>>())?;
        let sides = sides(&terms, &shapes)?;
        let all: Vec<usize> = sides.iter().map(|(_, side)| *side).collect();
        let shape: Vec<usize> = terms
            .result
            .iter()
            .filter_map(|label| sides.iter().find(|(other, _)| other == label).map(|(_, side)| *side))
            .collect();
        elements(&shape)?;
        if all.contains(&0) {
            return Err(OperatorError::mismatch("shapes of the inputs", "no empty axis", format!("{shapes:?}")));
        }
        Ok(vec![Fact::new(inputs.element(0)?, shape)])
    }

    fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let tensors: Vec<DeviceTensor> =
            (0..arguments.values.len()).map(|position| arguments.tensor(position)).collect::<Result<_, _>>()?;
        let shapes: Vec<Vec<usize>> = tensors.iter().map(DeviceTensor::shape).collect();
        let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
        let terms = self.terms(&shapes.iter().map(|shape| shape.len()).collect::<Vec<_>>())?;
        let sides = sides(&terms, &shapes)?;
        let mut operands = tensors.into_iter().zip(&terms.inputs).map(|(tensor, labels)| Labelled::new(tensor, labels));
        let first = operands.next().ok_or_else(|| OperatorError::mismatch("number of inputs", "at least 1", 0))?;
        let mut product = first;
        for (index, operand) in operands.enumerate() {
            let later = &terms.inputs[index + 2..];
            let needed = |label| terms.result.contains(&label) || later.iter().flatten().any(|other| *other == label);
            product = product.times(operand, &sides, needed);
        }
        let product = product.summed(|label| terms.result.contains(&label)).ordered(&terms.result);
        let out = output_shape(outputs, 0)?;
        Ok(vec![Value::Device(product.tensor.expanded(out), arguments.get(0)?.element())])
    }

    fn has_weight_at(&self, _position: usize, _constant: &Tensor) -> bool {
        true
    }

    fn least_opset(&self) -> i64 {
        12
    }

    fn multiplications(&self, inputs: &Facts<'_>, _outputs: &[Fact]) -> u64 {
        let Ok(shapes) = inputs.shapes() else { return 0 };
        let ranks: Vec<usize> = shapes.iter().map(|shape| shape.len()).collect();
        let sides = self.terms(&ranks).and_then(|terms| sides(&terms, &shapes));
        sides.map_or(0, |sides| sides.iter().fold(1, |product: u64, (_, side)| product.saturating_mul(*side as u64)))
    }
}
