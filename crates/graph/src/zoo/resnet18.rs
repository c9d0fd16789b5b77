//! ResNet-18 (He et al. 2016, arXiv:1512.03385), with the stem of its authors for images of 64 pixels and more and a
//! 3×3 stem without pooling for smaller ones (as is usual for CIFAR-10 and MedMNIST).
//!
//! 11,689,512 parameters for 3 channels and 1,000 classes with the large stem, as published.

use super::Blueprint;
use crate::builder::Handle;
use crate::operators::Convolution;
use crate::{Error, Graph, GraphBuilder};

/// Images with a shorter side below this get the small stem.
const LARGE_IMAGE: usize = 64;

pub(super) fn build(blueprint: &Blueprint<'_>) -> Result<Graph, Error> {
    let [channels, height, width] = blueprint.image("resnet18")?;
    let mut b = GraphBuilder::new("resnet18", blueprint.seed);
    let x = b.input("image", &[channels, height, width]);
    let x = b.normalization(&x, blueprint.mean, blueprint.standard_deviation, 2);
    let large = height.min(width) >= LARGE_IMAGE;
    let (side, stem) = if large { (7, Convolution::new(2, 2, 3)) } else { (3, Convolution::new(2, 1, 1)) };
    let x = b.convolution("conv1", &x, (channels, 64), side, stem);
    let x = b.batch_normalization("bn1", &x, 64);
    let mut x = b.relu("relu", &x);
    if large {
        x = b.max_pool("maxpool", &x, 3, 2, 1);
    }
    let mut width = 64;
    for (stage, next) in (1..).zip([64, 128, 256, 512]) {
        for block in 0..2 {
            let stride = if stage > 1 && block == 0 { 2 } else { 1 };
            x = basic_block(&mut b, &format!("layer{stage}.{block}"), &x, (width, next), stride);
            width = next;
        }
    }
    let x = b.global_average("avgpool", &x);
    let logits = b.linear("fc", &x, (width, blueprint.spec.task.outputs()));
    b.finish(&[&logits])
}

/// Two 3×3 convolutions and a shortcut, which is a 1×1 convolution where the shape changes.
fn basic_block(b: &mut GraphBuilder, name: &str, x: &Handle, (from, to): (usize, usize), stride: usize) -> Handle {
    let part = |part: &str| format!("{name}.{part}");
    let y = b.convolution(&part("conv1"), x, (from, to), 3, Convolution::new(2, stride, 1));
    let y = b.batch_normalization(&part("bn1"), &y, to);
    let y = b.relu(&part("relu1"), &y);
    let y = b.convolution(&part("conv2"), &y, (to, to), 3, Convolution::new(2, 1, 1));
    let y = b.batch_normalization(&part("bn2"), &y, to);
    let shortcut = if stride == 1 && from == to {
        x.clone()
    } else {
        let shortcut = b.convolution(&part("downsample.0"), x, (from, to), 1, Convolution::new(2, stride, 0));
        b.batch_normalization(&part("downsample.1"), &shortcut, to)
    };
    let sum = b.add(&part("add"), &y, &shortcut);
    b.relu(&part("relu2"), &sum)
}

#[cfg(test)]
mod tests {
    use super::super::{Blueprint, build};
    use nocebo_core::{Domain, ModelSpec, Seed, Task};

    #[test]
    fn has_the_published_number_of_parameters() {
        let task = Task::MultiClass { classes: 1000 };
        let domain = Domain::grey_levels(&[3, 224, 224], 255.0).unwrap();
        let class_names = (0..1000).map(|class| class.to_string()).collect();
        let spec = ModelSpec { domain, task, class_names };
        let (mean, deviation) = ([120.0; 3], [60.0; 3]);
        let blueprint = Blueprint { spec: &spec, mean: &mean, standard_deviation: &deviation, seed: Seed(1) };
        assert_eq!(build("resnet18", &blueprint).unwrap().parameter_count(), 11_689_512);
        assert!(build("resnet-18", &blueprint).unwrap_err().to_string().contains("resnet18"));
        let wrong = ModelSpec { domain: Domain::grey_levels(&[9], 1.0).unwrap(), ..spec.clone() };
        let blueprint = Blueprint { spec: &wrong, mean: &mean, standard_deviation: &deviation, seed: Seed(1) };
        assert!(build("resnet18", &blueprint).unwrap_err().to_string().contains("[channels, height, width]"));
    }
}
