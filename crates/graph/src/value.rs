//! Values while a graph runs: 32-bit floats of any rank on a Burn device, everything else on the host.
//!
//! Burn's `Tensor<D>` fixes the rank at compile time, a graph knows it only when it is loaded. The layer beneath it,
//! `burn::backend::Dispatch`, has no ranks: [`DeviceTensor`] is a thin wrapper around it that broadcasts by the rules of
//! ONNX. Every operation on it is differentiable wherever Burn's is.

use std::sync::Arc;

use burn::backend::ops::{
    ActivationOps, BoolTensorOps, ConvOptions, ConvTransposeOptions, DeformConvOptions, FloatTensorOps, IntTensorOps,
    ModuleOps, PadMode,
};
use burn::backend::{
    AutodiffBackend, BoolDType, Dispatch, DispatchTensor, Scalar, Shape, Slice, TensorData, TensorMetadata,
};
use burn::tensor::{IndexingUpdateOp, Tensor as BurnTensor};

use crate::tensor::{broadcast_strides, positions, strides};
use crate::{Device, ElementType, OperatorError, Tensor};

/// Gradients of one backward pass.
pub(crate) type Gradients = <Dispatch as AutodiffBackend>::Gradients;

/// 32-bit floats of any rank on a device.
#[derive(Clone, Debug)]
pub(crate) struct DeviceTensor(DispatchTensor);

impl DeviceTensor {
    /// Puts `values` (row by row, filling `shape`) on `device`.
    pub(crate) fn new(values: Vec<f32>, shape: &[usize], device: &Device) -> Self {
        let data = TensorData::new(values, Shape::from(shape.to_vec()));
        Self(Dispatch::float_from_data(data, device.as_dispatch()))
    }

    pub(crate) fn full(value: f32, shape: &[usize], device: &Device) -> Self {
        Self::new(vec![value; shape.iter().product()], shape, device)
    }

    pub(crate) fn shape(&self) -> Vec<usize> {
        self.0.shape().to_vec()
    }

    pub(crate) fn rank(&self) -> usize {
        self.0.shape().num_dims()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.shape().num_elements()
    }

    /// Ones on the same device, without history.
    pub(crate) fn ones(&self, shape: &[usize]) -> Self {
        let device = BurnTensor::<1>::from_dispatch(self.0.clone()).device().without_autodiff();
        Self::full(1.0, shape, &device)
    }

    /// Reads the values back, row by row.
    ///
    /// # Errors
    ///
    /// When the device fails.
    pub(crate) fn to_floats(&self) -> Result<Vec<f32>, OperatorError> {
        let failed =
            |error: &dyn std::fmt::Debug| OperatorError::mismatch("reading a device", "values", format!("{error:?}"));
        let data = BurnTensor::<1>::from_dispatch(self.clone().reshaped(&[self.len()]).0)
            .try_into_data()
            .map_err(|e| failed(&e))?;
        data.try_into_vec::<f32>().map_err(|error| failed(&error))
    }

    // Differentiation.

    /// A leaf whose gradient is kept.
    pub(crate) fn tracked(self) -> Self {
        Self(Dispatch::float_set_require_grad(Dispatch::from_inner(self.0), true))
    }

    pub(crate) fn is_tracked(&self) -> bool {
        BurnTensor::<1>::from_dispatch(self.0.clone()).is_tracked()
    }

    /// The same values without their history.
    pub(crate) fn detached(&self) -> Self {
        Self(BurnTensor::<1>::from_dispatch(self.0.clone()).without_autodiff().into_dispatch())
    }

    /// Gradients of a tensor with one element.
    pub(crate) fn backward(self) -> Gradients {
        Dispatch::backward(self.0)
    }

    /// Takes the gradient of this leaf out of `gradients`.
    pub(crate) fn gradient(&self, gradients: &mut Gradients) -> Option<Self> {
        Dispatch::grad_remove(&self.0, gradients).map(Self)
    }

    // Shape.

    /// # Panics
    ///
    /// When the number of elements differs; shape inference has checked that.
    pub(crate) fn reshaped(self, shape: &[usize]) -> Self {
        Self(Dispatch::float_reshape(self.0, Shape::from(shape.to_vec())))
    }

    pub(crate) fn permuted(self, axes: &[usize]) -> Self {
        Self(Dispatch::float_permute(self.0, axes))
    }

    pub(crate) fn expanded(self, shape: &[usize]) -> Self {
        let own = self.shape();
        if own == shape {
            return self;
        }
        Self(Dispatch::float_expand(self.with_rank(shape.len()).0, Shape::from(shape.to_vec())))
    }

    /// The same values with axes of length 1 put in front until the rank is `rank`.
    fn with_rank(self, rank: usize) -> Self {
        let own = self.shape();
        if own.len() >= rank {
            return self;
        }
        let mut shape = vec![1; rank - own.len()];
        shape.extend(own);
        self.reshaped(&shape)
    }

    /// The part `[start, end)` of one axis.
    pub(crate) fn narrowed(self, axis: usize, start: usize, end: usize) -> Self {
        let shape = self.shape();
        if start == 0 && end == shape[axis] {
            return self;
        }
        let slices: Vec<Slice> = shape
            .iter()
            .enumerate()
            .map(|(index, &side)| if index == axis { Slice::from(start..end) } else { Slice::from(0..side) })
            .collect();
        Self(Dispatch::float_slice(self.0, &slices))
    }

    pub(crate) fn concatenated(parts: Vec<Self>, axis: usize) -> Self {
        Self(Dispatch::float_cat(parts.into_iter().map(|part| part.0).collect(), axis))
    }

    /// Rows of one axis at the given places, which may repeat.
    pub(crate) fn selected(self, axis: usize, indices: &[usize]) -> Self {
        let indices = self.indices(indices);
        Self(Dispatch::float_select(self.0, axis, indices))
    }

    /// The elements at the given flat positions, in a new shape. Gathering, tiling and mirroring are all made of this.
    pub(crate) fn picked(self, shape: &[usize], positions: &[usize]) -> Self {
        let flat = self.len();
        self.reshaped(&[flat]).selected(0, positions).reshaped(shape)
    }

    /// Adds each element of `updates` (flat) at its flat position.
    pub(crate) fn scatter_added(self, positions: &[usize], updates: Self) -> Self {
        let shape = self.shape();
        let (flat, count) = (self.len(), updates.len());
        let indices = self.indices(positions);
        let sum = Dispatch::float_select_assign(
            self.reshaped(&[flat]).0,
            0,
            indices,
            updates.reshaped(&[count]).0,
            IndexingUpdateOp::Add,
        );
        Self(sum).reshaped(&shape)
    }

    fn indices(&self, places: &[usize]) -> DispatchTensor {
        let places: Vec<i32> = places.iter().map(|&place| place as i32).collect();
        let count = places.len();
        let device = BurnTensor::<1>::from_dispatch(self.0.clone()).device().without_autodiff();
        Dispatch::int_from_data(TensorData::new(places, Shape::from(vec![count])), device.as_dispatch())
    }

    /// Puts `before` and `after` elements of `value` around each axis.
    pub(crate) fn padded(self, padding: &[(usize, usize)], value: f32) -> Self {
        if padding.iter().all(|&(before, after)| before == 0 && after == 0) {
            return self;
        }
        Self(Dispatch::float_pad(self.0, padding, PadMode::Constant(value)))
    }

    // Arithmetic with broadcasting.

    fn binary(&self, other: &Self, function: fn(DispatchTensor, DispatchTensor) -> DispatchTensor) -> Self {
        let rank = self.rank().max(other.rank());
        Self(function(self.clone().with_rank(rank).0, other.clone().with_rank(rank).0))
    }

    pub(crate) fn add(&self, other: &Self) -> Self {
        self.binary(other, Dispatch::float_add)
    }

    pub(crate) fn sub(&self, other: &Self) -> Self {
        self.binary(other, Dispatch::float_sub)
    }

    pub(crate) fn mul(&self, other: &Self) -> Self {
        self.binary(other, Dispatch::float_mul)
    }

    pub(crate) fn div(&self, other: &Self) -> Self {
        self.binary(other, Dispatch::float_div)
    }

    pub(crate) fn pow(&self, other: &Self) -> Self {
        self.binary(other, Dispatch::float_powf)
    }

    pub(crate) fn add_scalar(self, value: f32) -> Self {
        Self(Dispatch::float_add_scalar(self.0, scalar(value)))
    }

    pub(crate) fn mul_scalar(self, value: f32) -> Self {
        Self(Dispatch::float_mul_scalar(self.0, scalar(value)))
    }

    pub(crate) fn pow_scalar(self, value: f32) -> Self {
        Self(Dispatch::float_powf_scalar(self.0, scalar(value)))
    }

    /// Applies one of `Dispatch`'s functions of one tensor.
    pub(crate) fn map(self, function: fn(DispatchTensor) -> DispatchTensor) -> Self {
        Self(function(self.0))
    }

    pub(crate) fn neg(self) -> Self {
        self.mul_scalar(-1.0)
    }

    pub(crate) fn exp(self) -> Self {
        self.map(Dispatch::float_exp)
    }

    pub(crate) fn sqrt(self) -> Self {
        self.map(Dispatch::float_sqrt)
    }

    pub(crate) fn abs(self) -> Self {
        self.map(Dispatch::float_abs)
    }

    pub(crate) fn recip(self) -> Self {
        self.map(Dispatch::float_recip)
    }

    pub(crate) fn sigmoid(self) -> Self {
        self.map(<Dispatch as ActivationOps<Dispatch>>::sigmoid)
    }

    pub(crate) fn tanh(self) -> Self {
        self.map(Dispatch::float_tanh)
    }

    pub(crate) fn relu(self) -> Self {
        self.map(<Dispatch as ActivationOps<Dispatch>>::relu)
    }

    pub(crate) fn clamped(self, least: f32, greatest: f32) -> Self {
        Self(Dispatch::float_clamp(self.0, scalar(least), scalar(greatest)))
    }

    /// `self` where `mask` (of the same shape) is false, `other` where it is true.
    pub(crate) fn replaced(&self, mask: &Mask, other: &Self) -> Self {
        let shape = self.shape();
        Self(Dispatch::float_mask_where(self.0.clone(), mask.0.clone(), other.clone().expanded(&shape).0))
    }

    /// Where `self > value`.
    pub(crate) fn above(&self, value: f32) -> Mask {
        Mask(Dispatch::float_greater_elem(self.0.clone(), scalar(value), BOOLS))
    }

    /// Where `self < other`, which has the same shape.
    pub(crate) fn below(&self, other: &Self) -> Mask {
        Mask(Dispatch::float_lower(self.0.clone(), other.0.clone(), BOOLS))
    }

    // Reductions; the axes stay with length 1.

    pub(crate) fn sum(self, axes: &[usize]) -> Self {
        axes.iter().fold(self, |tensor, &axis| Self(Dispatch::float_sum_dim(tensor.0, axis)))
    }

    /// The sum of all elements, as one element.
    pub(crate) fn total(&self) -> Self {
        Self(Dispatch::float_sum(self.clone().reshaped(&[self.len()]).0))
    }

    /// Sums of all elements up to each one.
    pub(crate) fn cumulative_sum(self, axis: usize) -> Self {
        Self(Dispatch::float_cumsum(self.0, axis))
    }

    pub(crate) fn mean(self, axes: &[usize]) -> Self {
        axes.iter().fold(self, |tensor, &axis| Self(Dispatch::float_mean_dim(tensor.0, axis)))
    }

    pub(crate) fn product(self, axes: &[usize]) -> Self {
        axes.iter().fold(self, |tensor, &axis| Self(Dispatch::float_prod_dim(tensor.0, axis)))
    }

    /// Greatest value along each axis; the gradient goes to the first of equals along the last axis reduced.
    pub(crate) fn max(self, axes: &[usize]) -> Self {
        axes.iter().fold(self, |tensor, &axis| Self(Dispatch::float_max_dim(tensor.0, axis)))
    }

    pub(crate) fn min(self, axes: &[usize]) -> Self {
        axes.iter().fold(self, |tensor, &axis| Self(Dispatch::float_min_dim(tensor.0, axis)))
    }

    pub(crate) fn softmax(self, axis: usize) -> Self {
        Self(<Dispatch as ActivationOps<Dispatch>>::softmax(self.0, axis))
    }

    pub(crate) fn log_softmax(self, axis: usize) -> Self {
        Self(<Dispatch as ActivationOps<Dispatch>>::log_softmax(self.0, axis))
    }

    // Layers.

    /// Product of matrices in the last two axes; the others broadcast.
    pub(crate) fn matmul(&self, other: &Self) -> Self {
        self.binary(other, Dispatch::float_matmul)
    }

    /// Convolution of `[batch, channels, space...]` with one to three axes of space.
    pub(crate) fn convolved(self, weight: Self, bias: Option<Self>, geometry: &Geometry) -> Self {
        let bias = bias.map(|bias| bias.0);
        Self(match self.rank() {
            3 => Dispatch::conv1d(self.0, weight.0, bias, geometry.options::<1>()),
            4 => Dispatch::conv2d(self.0, weight.0, bias, geometry.options::<2>()),
            _ => Dispatch::conv3d(self.0, weight.0, bias, geometry.options::<3>()),
        })
    }

    /// Convolution of images whose taps are moved by `offsets` and weighted by `mask`.
    pub(crate) fn convolved_deformed(
        self,
        offsets: Self,
        weight: Self,
        mask: Option<Self>,
        bias: Option<Self>,
        geometry: &Geometry,
        offset_groups: usize,
    ) -> Self {
        let options = DeformConvOptions::new(
            Geometry::along(&geometry.stride, 1),
            Geometry::along(&geometry.padding, 0),
            Geometry::along(&geometry.dilation, 1),
            geometry.groups,
            offset_groups,
        );
        let (mask, bias) = (mask.map(|mask| mask.0), bias.map(|bias| bias.0));
        Self(Dispatch::deform_conv2d(self.0, offsets.0, weight.0, mask, bias, options))
    }

    /// Transposed convolution without padding; callers cut the borders.
    pub(crate) fn convolved_transposed(self, weight: Self, geometry: &Geometry) -> Self {
        Self(match self.rank() {
            3 => Dispatch::conv_transpose1d(self.0, weight.0, None, geometry.transposed_options::<1>()),
            4 => Dispatch::conv_transpose2d(self.0, weight.0, None, geometry.transposed_options::<2>()),
            _ => Dispatch::conv_transpose3d(self.0, weight.0, None, geometry.transposed_options::<3>()),
        })
    }

    /// Greatest value of each window of `[batch, channels, height, width]`; the gradient goes to the first of equals.
    pub(crate) fn max_pooled(self, kernel: [usize; 2], stride: [usize; 2], dilation: [usize; 2]) -> Self {
        Self(Dispatch::max_pool2d(self.0, kernel, stride, [0, 0], dilation, false))
    }

    /// Batch normalisation with the statistics of this batch; also returns the mean and the biased variance per channel.
    pub(crate) fn batch_normalised(self, scale: Self, shift: Self, epsilon: f64) -> (Self, Self, Self) {
        let result = Dispatch::batch_norm_train(self.0, scale.0, shift.0, epsilon);
        (Self(result.output), Self(result.mean), Self(result.variance))
    }
}

/// Stride, padding (the same on both sides), dilation and groups of a convolution, one value an axis of space.
#[derive(Clone, Debug)]
pub(crate) struct Geometry {
    pub(crate) stride: Vec<usize>,
    pub(crate) padding: Vec<usize>,
    pub(crate) dilation: Vec<usize>,
    pub(crate) groups: usize,
}

impl Geometry {
    fn along<const N: usize>(values: &[usize], default: usize) -> [usize; N] {
        std::array::from_fn(|axis| values.get(axis).copied().unwrap_or(default))
    }

    fn options<const N: usize>(&self) -> ConvOptions<N> {
        ConvOptions::new(
            Self::along(&self.stride, 1),
            Self::along(&self.padding, 0),
            Self::along(&self.dilation, 1),
            self.groups,
        )
    }

    /// Without padding.
    fn transposed_options<const N: usize>(&self) -> ConvTransposeOptions<N> {
        let (stride, dilation) = (Self::along(&self.stride, 1), Self::along(&self.dilation, 1));
        ConvTransposeOptions::new(stride, [0; N], [0; N], dilation, self.groups)
    }
}

/// Truth values on a device.
#[derive(Clone, Debug)]
pub(crate) struct Mask(DispatchTensor);

impl Mask {
    pub(crate) fn new(values: Vec<bool>, shape: &[usize], device: &Device) -> Self {
        let data = TensorData::new(values, Shape::from(shape.to_vec()));
        Self(Dispatch::bool_from_data(data, device.as_dispatch()))
    }
}

const BOOLS: BoolDType = BoolDType::Native;

fn scalar(value: f32) -> Scalar {
    Scalar::Float(f64::from(value))
}

/// A value on its way through a graph.
///
/// Floats, and integers that must carry a gradient (quantised values under the straight-through rule), live on the
/// device; everything else, such as shapes, indices and masks, lives on the host.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// Floats on the device, with the element type they stand for.
    Device(DeviceTensor, ElementType),
    /// Values on the host.
    Host(Arc<Tensor>),
}

impl Value {
    pub(crate) fn floats(tensor: DeviceTensor) -> Self {
        Self::Device(tensor, ElementType::F32)
    }

    pub(crate) fn host(tensor: Tensor) -> Self {
        Self::Host(Arc::new(tensor))
    }

    /// A constant where it is needed: floats on the device, everything else on the host.
    pub(crate) fn upload(tensor: &Arc<Tensor>, device: &Device) -> Self {
        if tensor.element().is_float() {
            Self::Device(DeviceTensor::new(tensor.to_f32().into_owned(), tensor.shape(), device), tensor.element())
        } else {
            Self::Host(tensor.clone())
        }
    }

    pub(crate) fn shape(&self) -> Vec<usize> {
        match self {
            Self::Device(tensor, _) => tensor.shape(),
            Self::Host(tensor) => tensor.shape().to_vec(),
        }
    }

    pub(crate) fn element(&self) -> ElementType {
        match self {
            Self::Device(_, element) => *element,
            Self::Host(tensor) => tensor.element(),
        }
    }

    pub(crate) fn is_tracked(&self) -> bool {
        matches!(self, Self::Device(tensor, _) if tensor.is_tracked())
    }

    /// The same elements in another shape of as many elements.
    ///
    /// # Errors
    ///
    /// When the shapes hold different numbers of elements.
    pub(crate) fn reshaped(&self, shape: &[usize]) -> Result<Self, OperatorError> {
        match self {
            Self::Device(tensor, element) => Ok(Self::Device(tensor.clone().reshaped(shape), *element)),
            Self::Host(tensor) => Ok(Self::host(tensor.as_ref().clone().reshaped(shape)?)),
        }
    }

    /// The elements at the given flat positions, in a new shape that they fill.
    pub(crate) fn picked(&self, shape: &[usize], places: &[usize]) -> Self {
        match self {
            Self::Device(tensor, element) => Self::Device(tensor.clone().picked(shape, places), *element),
            Self::Host(tensor) => Self::host(tensor.pick(shape, places.iter().copied())),
        }
    }

    /// The value broadcast to `shape`.
    pub(crate) fn expanded(&self, shape: &[usize]) -> Self {
        match self {
            Self::Device(tensor, element) => Self::Device(tensor.clone().expanded(shape), *element),
            Self::Host(tensor) => {
                let places = positions(shape, &broadcast_strides(tensor.shape(), shape), 0);
                Self::host(tensor.pick(shape, places.into_iter()))
            }
        }
    }

    /// The part `[start, end)` of one axis.
    pub(crate) fn narrowed(&self, axis: usize, start: usize, end: usize) -> Self {
        match self {
            Self::Device(tensor, element) => Self::Device(tensor.clone().narrowed(axis, start, end), *element),
            Self::Host(tensor) => {
                let own: Vec<isize> = strides(tensor.shape()).into_iter().map(|stride| stride as isize).collect();
                let mut shape = tensor.shape().to_vec();
                shape[axis] = end - start;
                let places = positions(&shape, &own, start * own[axis].unsigned_abs());
                Self::host(tensor.pick(&shape, places.into_iter()))
            }
        }
    }

    /// As floats on `device`.
    pub(crate) fn to_device(&self, device: &Device) -> DeviceTensor {
        match self {
            Self::Device(tensor, _) => tensor.clone(),
            Self::Host(tensor) => DeviceTensor::new(tensor.to_f32().into_owned(), tensor.shape(), device),
        }
    }

    /// On the host, in the element type it stands for.
    ///
    /// # Errors
    ///
    /// When the device fails.
    pub(crate) fn to_host(&self) -> Result<Arc<Tensor>, OperatorError> {
        match self {
            Self::Host(tensor) => Ok(tensor.clone()),
            Self::Device(tensor, element) => {
                let values = Tensor::floats(&tensor.shape(), tensor.to_floats()?)?;
                Ok(Arc::new(if *element == ElementType::F32 { values } else { values.cast(*element) }))
            }
        }
    }
}
