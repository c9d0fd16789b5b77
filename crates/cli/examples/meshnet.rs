//! A published MeshNet (5,598 parameters, brainchop) on a slab of a real T1 volume: attacked with PGD, fine-tuned against it for a
//! few steps, exported as ONNX and attacked again.
//!
//! ```text
//! cargo run --release -p nocebo-cli --example meshnet -- ../shared/data/brainchop-models meshnet.onnx
//! ```
//!
//! There is no segmentation by a person with the volume, so the network's own one of the clean slab counts as the truth.

#![expect(clippy::print_stdout, reason = "this is the output of the example")]

use std::path::Path;

use anyhow::{Context, Result, ensure};
use nocebo_attacks::gradient::pgd::{Pgd, PgdConfig};
use nocebo_core::segmentation::mean_dice;
use nocebo_core::{
    Attack, DifferentiableModel, Domain, Goal, Label, MaskTolerance, Model, ModelSpec, Norm, Samples, Seed,
    Segmentation, Task, ThreatModel,
};
use nocebo_data::{OpenOptions, formats::nifti};
use nocebo_graph::train::{Labelled, Training, TrainingConfig};
use nocebo_graph::weights::{self, KeyMap};
use nocebo_graph::zoo::{Blueprint, meshnet::MeshNet};
use nocebo_graph::{Device, GraphBuilder, GraphModel, onnx};

/// Sides of a slab, in voxels of 1 mm.
const SLAB: [usize; 3] = [8, 130, 130];

/// Grey levels by which each voxel may change.
const EPSILON: f32 = 4.0;

/// Corners of the slabs: the first is attacked, the others are learnt from.
const CORNERS: [[usize; 3]; 3] = [[124, 60, 60], [100, 60, 60], [148, 60, 60]];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [data, out] = arguments.as_slice() else { anyhow::bail!("usage: meshnet <brainchop-models> <out.onnx>") };
    let data = Path::new(data);
    let volume = nifti::read(&data.join("t1_crop.nii.gz"), &OpenOptions::default())?;
    let greatest = volume.samples().values().iter().copied().fold(0.0, f32::max);
    let slabs = slabs(volume.samples())?;
    let task = Task::Segmentation(Segmentation {
        classes: 3,
        shape: SLAB.to_vec(),
        threshold: None,
        tolerance: MaskTolerance::default(),
    });
    let names = ["background", "white matter", "grey matter"].map(str::to_owned).to_vec();
    let domain = Domain::grey_levels(slabs.shape(), 255.0)?;
    let spec = ModelSpec { domain: domain.clone(), task, class_names: names };

    let folder = data.join("meshnet/model5_gw_ae");
    let layers = std::fs::read_to_string(folder.join("model.json")).context("model.json")?;
    // The network takes values from 0 to 1.
    let blueprint = Blueprint { spec: &spec, mean: &[0.0], standard_deviation: &[greatest], seed: Seed(1) };
    let mut graph = MeshNet::from_json(&layers)?.build(&blueprint, GraphBuilder::unset("meshnet"))?;
    weights::load(&mut graph, &folder.join("model.pth"), &KeyMap::default())?;
    graph.set_spec(&spec)?;

    let device = Device::default();
    let model = GraphModel::new(graph.clone(), spec.clone(), &device)?;
    let masks: Vec<Label> = model.outputs(&slabs)?.rows().map(|logits| spec.task.decide(logits)).collect();
    for (number, (mask, place)) in masks.iter().zip(CORNERS).enumerate() {
        let (Task::Segmentation(task), Label::Mask(mask)) = (&spec.task, mask) else { continue };
        let shares: Vec<String> = task
            .overlaps(mask, mask)
            .iter()
            .zip(&spec.class_names)
            .map(|(class, name)| format!("{:.3} {name}", class.truth as f64 / mask.len() as f64))
            .collect();
        println!("slab {number} at {place:?}: {}", shares.join(", "));
    }
    let threat = ThreatModel::new(Norm::Linf, EPSILON, domain)?;
    let (first, others) = (slabs.select(&[0]), slabs.select(&[1, 2]));
    let before = dice_under_attack(&model, &first, &masks[0], &threat)?;
    println!("mean Dice with the clean segmentation under PGD at {EPSILON} grey levels: {before:.4}");

    let config = TrainingConfig { epochs: 3, batch_size: 2, learning_rate: 3e-4, ..TrainingConfig::default() };
    let attack = pgd(1, 1.0)?;
    let training = Training {
        config: &config,
        spec: &spec,
        device: &device,
        seed: Seed(2),
        freeze: None,
        perturb: Some(&|model: &dyn DifferentiableModel, samples: Samples, labels: Vec<Label>, seed: Seed| {
            let goal = Goal::Untargeted { labels: labels.clone() };
            Ok((attack.run(model, &samples, &goal, &threat, seed)?.perturbed_inputs, labels))
        }),
        // The last of a few steps is kept.
        score: &mut |_, epoch| Ok(epoch as f64),
        observe: &mut |_| {},
    };
    let trained = training.run(&graph, Labelled { samples: &others, labels: &masks[1..] })?;
    let losses: Vec<String> = trained.epochs.iter().map(|epoch| format!("{:.4}", epoch.loss)).collect();
    println!("adversarial training, loss of each step: {}", losses.join(" "));
    onnx::write(&trained.graph, Path::new(out))?;

    let again = onnx::read(Path::new(out))?;
    let spec = again.spec()?.context("the spec was written with the network")?;
    let hardened = GraphModel::new(again, spec.clone(), &device)?;
    let written = GraphModel::new(trained.graph, spec, &device)?;
    ensure!(written.outputs(&first)?.row(0) == hardened.outputs(&first)?.row(0), "the file gives other logits");
    let clean = dice(&hardened, &first, &masks[0])?;
    let after = dice_under_attack(&hardened, &first, &masks[0], &threat)?;
    println!("from {out}: mean Dice {clean:.4} clean, {after:.4} under PGD (it was {before:.4})");
    Ok(())
}

fn pgd(steps: usize, relative_step_size: f32) -> Result<Pgd, nocebo_core::Error> {
    Pgd::try_from(PgdConfig { steps, relative_step_size, ..PgdConfig::default() })
}

/// The slabs as samples `[1, depth, height, width]`.
fn slabs(volume: &Samples) -> Result<Samples> {
    let &[_, depth, height, width] = volume.shape() else {
        anyhow::bail!("expected a volume, got {:?}", volume.shape())
    };
    let mut values = Vec::new();
    for corner in CORNERS {
        let ends = [0, 1, 2].map(|axis| corner[axis] + SLAB[axis]);
        ensure!(ends[0] <= depth && ends[1] <= height && ends[2] <= width, "the volume is too small for a slab");
        for z in corner[0]..ends[0] {
            for y in corner[1]..ends[1] {
                let row = (z * height + y) * width;
                values.extend_from_slice(&volume.values()[row + corner[2]..row + ends[2]]);
            }
        }
    }
    Ok(Samples::new(values, &[1, SLAB[0], SLAB[1], SLAB[2]])?)
}

fn dice(model: &GraphModel, slab: &Samples, mask: &Label) -> Result<f64> {
    let (Task::Segmentation(task), Label::Mask(mask)) = (&model.spec().task, mask) else { anyhow::bail!("no mask") };
    Ok(mean_dice(&task.overlaps(mask, &task.decide(model.outputs(slab)?.row(0)))))
}

fn dice_under_attack(model: &GraphModel, slab: &Samples, mask: &Label, threat: &ThreatModel) -> Result<f64> {
    let goal = Goal::Untargeted { labels: vec![mask.clone()] };
    let found = pgd(4, 0.5)?.run(model, slab, &goal, threat, Seed(3))?;
    dice(model, &found.perturbed_inputs, mask)
}
