//! MeshNet (Fedorov et al. 2017, arXiv:1612.00940): dilated 3×3×3 convolutions that keep the size of the volume, then a
//! 1×1×1 head.
//!
//! The network of this name is MeshNet-16 of Fedorov et al. 2025 (arXiv:2503.05531): nine layers of 16 channels with
//! dilations 1, 2, 4, 8, 16, 8, 4, 2, 1, batch norm and ReLU; 56,194 parameters for 1 channel and 2 classes, as published.
//! Other MeshNets are read from their lists of layers ([`MeshNet::from_json`]), as published with the models of brainchop.
//!
//! Weights are named `model.K`, numbered as in a `Sequential` of PyTorch: convolution, batch norm if any, activation.

use serde::Deserialize;

use super::Blueprint;
use crate::operators::{Activation, Convolution};
use crate::{Error, Graph, GraphBuilder};

/// Layers of a MeshNet.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshNet {
    /// Channels and dilation of each 3×3×3 layer.
    pub layers: Vec<(usize, usize)>,
    /// Activation after each of them.
    pub activation: Activation,
    /// Whether batch norm stands before the activation.
    pub batch_normalization: bool,
    /// Whether convolutions have a bias.
    pub bias: bool,
    /// Classes of the head where the list of layers says so; otherwise those of the task.
    pub classes: Option<usize>,
}

/// `model.json` of brainchop.
#[derive(Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "the fields of the file")]
struct File {
    #[serde(default)]
    bnorm: bool,
    #[serde(default)]
    elu: bool,
    #[serde(default)]
    gelu: bool,
    #[serde(default)]
    bias: bool,
    layers: Vec<Layer>,
}

/// A layer there; channels of -1 are those of the data and of the task.
#[derive(Debug, Deserialize)]
struct Layer {
    in_channels: i64,
    out_channels: i64,
    kernel_size: usize,
    padding: usize,
    stride: usize,
    dilation: usize,
}

impl Default for MeshNet {
    /// MeshNet-16.
    fn default() -> Self {
        Self {
            layers: [1, 2, 4, 8, 16, 8, 4, 2, 1].map(|dilation| (16, dilation)).to_vec(),
            activation: Activation::Relu,
            batch_normalization: true,
            bias: true,
            classes: None,
        }
    }
}

impl MeshNet {
    /// The layers that a `model.json` of brainchop lists.
    ///
    /// # Errors
    ///
    /// When it is not JSON of that form, or a layer does not keep the size, does not fit the one before, or is not one
    /// that a MeshNet has.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        let file: File = serde_json::from_str(text)
            .map_err(|error| Error::graph("model.json of a MeshNet", "an object with `layers`", error))?;
        let activation = match (file.elu, file.gelu) {
            (false, false) => Activation::Relu,
            (true, false) => Activation::Elu { alpha: 1.0 },
            (false, true) => Activation::Gelu { tanh: false },
            (true, true) => return Err(Error::graph("activation of a MeshNet", "one", "both `elu` and `gelu`")),
        };
        let Some((head, body)) = file.layers.split_last() else {
            return Err(Error::graph("layers of a MeshNet", "at least one", "none"));
        };
        let mut before = -1;
        for (number, layer) in file.layers.iter().enumerate() {
            let kernel = if number < body.len() { 3 } else { 1 };
            let channels = layer.out_channels >= 1 || (number == body.len() && layer.out_channels == -1);
            let padding = if kernel == 3 { layer.dilation } else { 0 };
            let fits = layer.in_channels == before || (number == 0 && layer.in_channels == 1);
            if !(fits && channels && layer.kernel_size == kernel && layer.stride == 1 && layer.padding == padding) {
                return Err(Error::graph(
                    format!("layer {number} of a MeshNet"),
                    format!("{before} channels, a kernel of {kernel}, stride 1 and padding {padding}"),
                    format!("{layer:?}"),
                ));
            }
            before = layer.out_channels;
        }
        Ok(Self {
            layers: body.iter().map(|layer| (layer.out_channels as usize, layer.dilation)).collect(),
            activation,
            batch_normalization: file.bnorm,
            bias: file.bias,
            classes: usize::try_from(head.out_channels).ok(),
        })
    }

    /// The network for inputs and task of `blueprint`.
    ///
    /// # Errors
    ///
    /// When samples are not volumes, or the task has other classes than the head.
    pub fn build(&self, blueprint: &Blueprint<'_>, mut b: GraphBuilder) -> Result<Graph, Error> {
        let [mut channels, ..] = blueprint.volume("meshnet")?;
        let classes = blueprint.outputs();
        if self.classes.is_some_and(|own| own != classes) {
            return Err(Error::graph("classes of the MeshNet", self.classes.unwrap_or(classes), classes));
        }
        let mut x = blueprint.input(&mut b, "volume");
        let mut number = 0..;
        let mut part = || format!("model.{}", number.next().unwrap_or(0));
        for &(to, dilation) in &self.layers {
            let convolution = Convolution { dilations: vec![dilation; 3], ..Convolution::new(3, 1, dilation) };
            x = if self.bias {
                b.convolution_with_bias(&part(), &x, (channels, to), 3, convolution)
            } else {
                b.convolution(&part(), &x, (channels, to), 3, convolution)
            };
            if self.batch_normalization {
                x = b.batch_normalization(&part(), &x, to);
            }
            x = b.node(&part(), self.activation, &[&x]);
            channels = to;
        }
        let logits = b.convolution_with_bias(&part(), &x, (channels, classes), 1, Convolution::new(3, 1, 0));
        b.finish(&[&logits])
    }
}

pub(super) fn build(blueprint: &Blueprint<'_>, b: GraphBuilder) -> Result<Graph, Error> {
    MeshNet::default().build(blueprint, b)
}
