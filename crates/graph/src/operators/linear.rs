//! Products of matrices.

use super::{Arguments, Behaviour, Fact, Facts, Source, Target};
use crate::tensor::broadcast;
use crate::value::{DeviceTensor, Value};
use crate::{OperatorError, Tensor};

/// `alpha · A · B + beta · C`; A and B may be transposed, C broadcasts and may be absent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gemm {
    /// Factor of the product.
    pub alpha: f32,
    /// Factor of the bias.
    pub beta: f32,
    /// Whether A is `[inner, rows]`.
    pub transpose_a: bool,
    /// Whether B is `[columns, inner]`.
    pub transpose_b: bool,
}

impl Default for Gemm {
    /// The defaults of ONNX.
    fn default() -> Self {
        Self { alpha: 1.0, beta: 1.0, transpose_a: false, transpose_b: false }
    }
}

impl Behaviour for Gemm {
    fn name(&self) -> &'static str {
        "Gemm"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        if source.operator != "Gemm" {
            return Ok(None);
        }
        source.ignore(&["broadcast"]);
        Ok(Some(Self {
            alpha: source.float_or("alpha", 1.0)?,
            beta: source.float_or("beta", 1.0)?,
            transpose_a: source.flag("transA", false)?,
            transpose_b: source.flag("transB", false)?,
        }))
    }

    fn write(&self, target: &mut Target<'_>) -> Result<(), OperatorError> {
        target.float("alpha", self.alpha);
        target.float("beta", self.beta);
        target.flag("transA", self.transpose_a);
        target.flag("transB", self.transpose_b);
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        let (a, b) = (inputs.shape(0)?, inputs.shape(1)?);
        let (&[a0, a1], &[b0, b1]) = (a, b) else {
            return Err(OperatorError::mismatch("shapes of A and B", "two matrices", format!("{a:?} and {b:?}")));
        };
        let (rows, inner) = if self.transpose_a { (a1, a0) } else { (a0, a1) };
        let (inner_b, columns) = if self.transpose_b { (b1, b0) } else { (b0, b1) };
        if inner != inner_b {
            return Err(OperatorError::mismatch("inner side of B", inner, inner_b));
        }
        inputs.require_float(0)?;
        inputs.require_float(1)?;
        let shape = vec![rows, columns];
        if inputs.optional(2).is_some() && broadcast(&[&shape, inputs.shape(2)?])? != shape {
            return Err(OperatorError::mismatch(
                "shape of C",
                format!("one that broadcasts to {shape:?}"),
                format!("{:?}", inputs.shape(2)?),
            ));
        }
        Ok(vec![Fact::new(inputs.element(0)?, shape)])
    }

    fn forward(&self, arguments: &Arguments<'_>, _outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let oriented =
            |tensor: DeviceTensor, transposed: bool| if transposed { tensor.permuted(&[1, 0]) } else { tensor };
        let a = oriented(arguments.tensor(0)?, self.transpose_a);
        let b = oriented(arguments.tensor(1)?, self.transpose_b);
        let mut result = scaled(a.matmul(&b), self.alpha);
        if let Some(c) = arguments.optional_tensor(2) {
            result = result.add(&scaled(c, self.beta));
        }
        Ok(vec![Value::Device(result, arguments.get(0)?.element())])
    }

    fn has_weight_at(&self, position: usize, _constant: &Tensor) -> bool {
        position > 0
    }

    fn multiplications(&self, inputs: &Facts<'_>, outputs: &[Fact]) -> u64 {
        let inner = inputs.shape(0).map_or(0, |a| a[usize::from(!self.transpose_a)]);
        let result: usize = outputs[0].shape.iter().flatten().product();
        (result * inner) as u64
    }
}

fn scaled(tensor: DeviceTensor, factor: f32) -> DeviceTensor {
    if factor == 1.0 { tensor } else { tensor.mul_scalar(factor) }
}

/// Product of matrices in the last two axes; the others broadcast. A vector counts as a row on the left and as a column
/// on the right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatMul;

impl MatMul {
    /// Shapes with the axis put in that a vector lacks.
    fn matrices(a: &[usize], b: &[usize]) -> (Vec<usize>, Vec<usize>) {
        let left = if a.len() == 1 { vec![1, a[0]] } else { a.to_vec() };
        let right = if b.len() == 1 { vec![b[0], 1] } else { b.to_vec() };
        (left, right)
    }

    /// The product, whose shape [`MatMul::product_shape`] has found.
    pub(crate) fn multiply(a: DeviceTensor, b: DeviceTensor, shape: &[usize]) -> DeviceTensor {
        let (left, right) = Self::matrices(&a.shape(), &b.shape());
        a.reshaped(&left).matmul(&b.reshaped(&right)).reshaped(shape)
    }

    /// Shape of the product of two tensors.
    pub(crate) fn product_shape(a: &[usize], b: &[usize]) -> Result<Vec<usize>, OperatorError> {
        if a.is_empty() || b.is_empty() {
            return Err(OperatorError::mismatch(
                "shapes of the factors",
                "at least one axis",
                format!("{a:?} and {b:?}"),
            ));
        }
        let (left, right) = Self::matrices(a, b);
        let (rank_a, rank_b) = (left.len(), right.len());
        if left[rank_a - 1] != right[rank_b - 2] {
            return Err(OperatorError::mismatch("inner side of the right factor", left[rank_a - 1], right[rank_b - 2]));
        }
        let mut shape = broadcast(&[&left[..rank_a - 2], &right[..rank_b - 2]])?;
        if a.len() > 1 {
            shape.push(left[rank_a - 2]);
        }
        if b.len() > 1 {
            shape.push(right[rank_b - 1]);
        }
        Ok(shape)
    }
}

impl Behaviour for MatMul {
    fn name(&self) -> &'static str {
        "MatMul"
    }

    fn read(source: &mut Source<'_>) -> Result<Option<Self>, OperatorError> {
        Ok((source.operator == "MatMul").then_some(Self))
    }

    fn write(&self, _target: &mut Target<'_>) -> Result<(), OperatorError> {
        Ok(())
    }

    fn infer(&self, inputs: &Facts<'_>) -> Result<Vec<Fact>, OperatorError> {
        inputs.require_float(0)?;
        inputs.require_float(1)?;
        Ok(vec![Fact::new(inputs.element(0)?, Self::product_shape(inputs.shape(0)?, inputs.shape(1)?)?)])
    }

    fn forward(&self, arguments: &Arguments<'_>, outputs: &[Fact]) -> Result<Vec<Value>, OperatorError> {
        let product = Self::multiply(arguments.tensor(0)?, arguments.tensor(1)?, super::output_shape(outputs, 0)?);
        Ok(vec![Value::Device(product, arguments.get(0)?.element())])
    }

    fn has_weight_at(&self, _position: usize, _constant: &Tensor) -> bool {
        true
    }

    fn multiplications(&self, inputs: &Facts<'_>, outputs: &[Fact]) -> u64 {
        let inner = inputs.shape(0).ok().and_then(|a| a.last().copied()).unwrap_or(0);
        let result: usize = outputs[0].shape.iter().flatten().product();
        (result * inner) as u64
    }
}
