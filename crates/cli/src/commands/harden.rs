//! `nocebo harden`.

use nocebo_core::{ModelSpec, Seed, ThreatModel};
use nocebo_data::{Dataset, Split};
use nocebo_defences::training::pgd::PgdTrainingConfig;
use nocebo_defences::training::{Hardened, Hardening, HardeningEvent, fgsm, pgd};
use nocebo_graph::Graph;
use nocebo_graph::train::{Labelled, TrainingConfig};

use super::train::{failed, save, show};
use crate::arguments::{Global, Harden, HardenMethod};
use crate::failure::{Failure, OrFail};
use crate::load;
use crate::progress::{bar, note};

/// Validation samples that judge a checkpoint under attack; enough to rank epochs, few enough to be quick.
const JUDGED_SAMPLES: usize = 200;

pub(crate) fn run(arguments: &Harden, global: &Global) -> Result<(), Failure> {
    load::writable(&arguments.out)?;
    let training = load::data(&arguments.source, Split::Train, global)?;
    let validation = load::data(&arguments.source, Split::Validation, global)?;
    let (graph, spec) = load::graph(&arguments.model, &training)?;
    let deviation = load::standard_deviation(&arguments.source, &training, global)?;
    let threat = load::threat(&arguments.threat, &spec.domain, deviation)?;
    let config = arguments.schedule.config();
    let hardened = harden((&graph, &spec), (&training, &validation), &threat, arguments.method, &config, global)?;
    let best = &hardened.epochs[hardened.trained.best_epoch - 1];
    println!(
        "validation accuracy {:.4} clean, {:.4} under PGD at {} (epoch {} of {})",
        best.clean_accuracy,
        best.robust_accuracy,
        arguments.threat,
        best.epoch,
        hardened.epochs.len()
    );
    save(hardened.trained.graph, &spec, &arguments.out)?;
    println!("wrote {}", arguments.out.display());
    Ok(())
}

/// Adversarial training with progress; the checkpoint with the best robust validation accuracy.
pub(crate) fn harden(
    (graph, spec): (&Graph, &ModelSpec),
    (training, validation): (&Dataset, &Dataset),
    threat: &ThreatModel,
    method: HardenMethod,
    config: &TrainingConfig,
    global: &Global,
) -> Result<Hardened, Failure> {
    let judged = validation.take(JUDGED_SAMPLES, Seed(global.seed)).or_usage()?;
    let hardening = Hardening {
        graph,
        spec,
        data: Labelled { samples: training.samples(), labels: training.labels() },
        validation: Labelled { samples: judged.samples(), labels: judged.labels() },
        threat,
        config,
        device: &load::device(global)?,
        freeze: Some(&load::frozen(global)),
        seed: Seed(global.seed).named("harden"),
    };
    let bar = bar(global, 0);
    let mut observe = |event| {
        match event {
        HardeningEvent::Training(event) => show(event, &bar, global),
        HardeningEvent::Epoch(epoch) => bar.suspend(|| {
            note(
                global,
                format!(
                    "epoch {}: validation accuracy {:.4} clean, {:.4} under FGSM, {:.4} under PGD",
                    epoch.epoch, epoch.clean_accuracy, epoch.one_step_accuracy, epoch.robust_accuracy
                ),
            );
        }),
        HardeningEvent::CatastrophicOverfitting(epoch) => bar.suspend(|| {
            note(
                global,
                format!(
                    "warning: catastrophic overfitting in epoch {}: {:.4} under FGSM but {:.4} under PGD; the network learns \
                     to fool the one-step attack, use --method pgd or a smaller epsilon",
                    epoch.epoch, epoch.one_step_accuracy, epoch.robust_accuracy
                ),
            );
        }),
    }
    };
    let hardened = match method {
        HardenMethod::Pgd => pgd::harden(&hardening, PgdTrainingConfig::default(), &mut observe),
        HardenMethod::Fgsm => fgsm::harden(&hardening, &mut observe),
    };
    bar.finish_and_clear();
    hardened.map_err(failed)
}
