//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use nocebo_core::{ThreatSpec, Unit};
use nocebo_data::{OpenOptions, Order, StoreAs};

/// Adversarial robustness of medical deep-learning models.
///
/// Every epsilon is in the unit of the data: `linf:4` on 8-bit images is 4 grey levels.
#[derive(Debug, Parser)]
#[command(name = "nocebo", version, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) global: Global,
}

const EXIT_CODES: &str =
    "Exit codes: 0 done; 1 a gate failed; 2 wrong usage; 3 a file could not be loaded; 4 incomplete.";

/// Flags of every command.
#[derive(Args, Clone, Debug)]
pub(crate) struct Global {
    /// Seed of everything random.
    #[arg(long, global = true, default_value_t = 0, env = "NOCEBO_SEED")]
    pub(crate) seed: u64,
    /// Where networks run: `cpu`, or a device that this build was made for.
    #[arg(long, global = true, default_value = "cpu", env = "NOCEBO_DEVICE")]
    pub(crate) device: String,
    /// What computes networks under attack on the CPU, those of adversarial training too; what learns runs on Burn.
    #[arg(long, global = true, default_value = "engine", value_enum, env = "NOCEBO_EXECUTOR")]
    pub(crate) executor: ExecutorName,
    /// Threads; 0 for one a core. Results do not depend on it.
    #[arg(long, global = true, default_value_t = 0, env = "NOCEBO_THREADS")]
    pub(crate) threads: usize,
    /// Print results only: no progress, no notes.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Generate phantoms, train, attack, harden, audit and report: the whole tour without any data.
    Demo(Demo),
    /// Write phantoms of a modality (or list them) in the format of the field.
    Phantom(Phantom),
    /// Train a network and write it as ONNX.
    Train(Train),
    /// Train an ONNX network against attacks and write it as ONNX.
    Harden(Harden),
    /// Measure how robust a model is, and write records and a report.
    Audit(Audit),
    /// Write a commented recipe for an audit.
    Init(Init),
    /// Compare two audits of the same samples, sample by sample.
    Compare(Compare),
    /// Show finished audits in a browser, sample by sample, from this machine to this machine.
    View(View),
    /// Print the JSON Schema of the `audit.json` of an audit.
    Schema,
    /// Perturb samples and write them.
    Attack(Attack),
    /// Measure how well points crafted on one model fool others.
    Transfer(Transfer),
    /// List the attacks, or show one with its settings.
    Attacks(Attacks),
    /// Describe an ONNX model: inputs, task, operators, size, gradients, taps, metadata.
    Inspect(Inspect),
    /// Describe a data set.
    Data(Data),
    /// Run any ONNX model on arrays.
    Run(Run),
    /// Check that this machine and this build work.
    Doctor,
}

/// What the demo makes.
#[derive(Args, Debug)]
pub(crate) struct Demo {
    /// New folder for data, models, audit and report.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

/// Which phantoms are made.
#[derive(Args, Debug)]
pub(crate) struct Phantom {
    /// Name of the modality.
    #[arg(required_unless_present = "list")]
    pub(crate) modality: Option<String>,
    /// List the modalities instead.
    #[arg(long, conflicts_with_all = ["modality", "out"])]
    pub(crate) list: bool,
    /// Samples, at least 20; classes are equally frequent.
    #[arg(long, default_value_t = 2000)]
    pub(crate) count: u64,
    /// New folder.
    #[arg(long, required_unless_present = "list")]
    pub(crate) out: Option<PathBuf>,
    /// Pixels a side, values of a signal or hours of a table, 16 to 1024; by default that of the modality.
    #[arg(long)]
    pub(crate) size: Option<usize>,
    /// How hard the finding is to see, above 0 and at most 1; by default that of the modality.
    #[arg(long)]
    pub(crate) difficulty: Option<f32>,
}

/// What computes a frozen network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExecutorName {
    /// The Burn executor: every operator.
    Burn,
    /// The CPU engine; networks with an operator that it lacks run on Burn, and a note says so.
    Engine,
    /// The CPU engine without Winograd convolution: slower, rounds less.
    EngineDirect,
}

/// Which part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SplitName {
    /// Training samples.
    Train,
    /// Validation samples.
    Validation,
    /// Test samples.
    Test,
}

/// How a network is trained.
#[derive(Args, Debug)]
pub(crate) struct Schedule {
    /// Passes over the training samples.
    #[arg(long, default_value_t = 3)]
    pub(crate) epochs: usize,
    /// Samples an optimiser step.
    #[arg(long, default_value_t = 64)]
    pub(crate) batch_size: usize,
    /// Greatest learning rate of the cosine schedule.
    #[arg(long, default_value_t = 1e-3)]
    pub(crate) learning_rate: f32,
    /// Optimiser.
    #[arg(long, default_value = "adam", value_enum)]
    pub(crate) optimizer: OptimizerName,
    /// Random shifts of up to this many pixels.
    #[arg(long, default_value_t = 0)]
    pub(crate) shift: usize,
    /// Random left-right flips.
    #[arg(long)]
    pub(crate) flip: bool,
    /// Learn masks from random parts of this many positions a side; an epoch covers every sample. 0 for whole samples.
    #[arg(long, default_value_t = 0)]
    pub(crate) crop: usize,
    /// Draw this many samples an epoch, rare classes more often (by the root of their frequency), and keep the epoch with
    /// the best balanced accuracy; 0 for every sample once and plain accuracy.
    #[arg(long, default_value_t = 0)]
    pub(crate) balanced: usize,
    /// Stop after this many epochs without a better validation result; 0 for never.
    #[arg(long, default_value_t = 0)]
    pub(crate) patience: usize,
    /// Leave the weights of these names as they are, such as `layer1.*`; may be repeated.
    #[arg(long, value_name = "PATTERN")]
    pub(crate) freeze: Vec<String>,
    /// Keep batch norm at its running statistics.
    #[arg(long)]
    pub(crate) freeze_batch_norm: bool,
}

/// Which optimiser.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum OptimizerName {
    /// Adam.
    Adam,
    /// Stochastic gradient descent with momentum 0.9.
    Sgd,
}

/// Arguments of `train`.
#[derive(Args, Debug)]
pub(crate) struct Train {
    #[command(flatten)]
    pub(crate) source: Source,
    /// Network of the zoo; an unknown name lists them.
    #[arg(long, default_value = "small-cnn", conflicts_with = "from")]
    pub(crate) architecture: String,
    /// Begin with the weights of this safetensors file: PyTorch's names, or those of --key-map.
    #[arg(long, conflicts_with = "from")]
    pub(crate) weights: Option<PathBuf>,
    /// JSON object of names in --weights and in the network: `{"module.": "", "head": "fc", "aux": null}`.
    #[arg(long, requires = "weights")]
    pub(crate) key_map: Option<PathBuf>,
    /// Continue from this ONNX file instead of a new network.
    #[arg(long)]
    pub(crate) from: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) schedule: Schedule,
    /// ONNX file to write.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

/// Which adversarial training.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum HardenMethod {
    /// PGD adversarial training (Madry et al. 2018).
    Pgd,
    /// FGSM adversarial training (Goodfellow et al. 2015).
    Fgsm,
}

/// Arguments of `harden`.
#[derive(Args, Debug)]
pub(crate) struct Harden {
    /// ONNX file to start from.
    pub(crate) model: PathBuf,
    #[command(flatten)]
    pub(crate) source: Source,
    /// Threat to train against, such as `linf:4`.
    #[arg(long)]
    pub(crate) threat: ThreatSpec,
    /// Adversarial training to use.
    #[arg(long, default_value = "pgd", value_enum)]
    pub(crate) method: HardenMethod,
    #[command(flatten)]
    pub(crate) schedule: Schedule,
    /// ONNX file to write.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

/// A data set and how it is opened.
#[derive(Args, Clone, Debug)]
pub(crate) struct Source {
    /// A MedMNIST-style .npz, a table (.csv, .parquet, .arff), or a folder of images (DICOM too, or with masks), volumes or WFDB
    /// records; for `attack` also one image or volume, judged against the decision of the model itself.
    #[arg(long)]
    pub(crate) data: PathBuf,
    #[command(flatten)]
    pub(crate) open: Opening,
}

/// What values mean, where files do not say it or say it wrongly.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Opening {
    /// Unit of the values, such as HU or mV, in place of the one that the format implies.
    #[arg(long, value_parser = unit)]
    pub(crate) unit: Option<Unit>,
    /// Least and greatest value that can be stored, in place of those of the file's number type: `-1024,3071`.
    #[arg(long, value_parser = pair, allow_hyphen_values = true)]
    pub(crate) bounds: Option<(f32, f32)>,
    /// Centre and width of the part of the values that is used, in their unit: DICOM images are cut to it: `40,400`.
    #[arg(long, value_parser = pair, allow_hyphen_values = true)]
    pub(crate) window: Option<(f32, f32)>,
    /// Classes are grades in order, and an error of fewer grades than this counts as right.
    #[arg(long, conflicts_with = "tolerance")]
    pub(crate) serious: Option<usize>,
    /// Labels are numbers, and an error up to this, in their unit, counts as right.
    #[arg(long)]
    pub(crate) tolerance: Option<f32>,
    /// Names of all classes in order: from a recipe.
    #[arg(skip)]
    pub(crate) class_names: Option<Vec<String>>,
}

impl Opening {
    pub(crate) fn options(&self) -> OpenOptions {
        OpenOptions {
            unit: self.unit.clone(),
            bounds: self.bounds,
            window: self.window,
            order: match (self.serious, self.tolerance) {
                (Some(serious), _) => Some(Order::Grades { serious }),
                (None, Some(tolerance)) => Some(Order::Numbers { tolerance }),
                (None, None) => None,
            },
            class_names: self.class_names.clone(),
            ..OpenOptions::default()
        }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "clap asks for a result")]
fn unit(text: &str) -> Result<Unit, String> {
    let known = [Unit::GreyLevel, Unit::Hounsfield, Unit::Millivolt, Unit::Microvolt];
    let named = known.into_iter().find(|unit| unit.symbol().eq_ignore_ascii_case(text));
    Ok(named.unwrap_or_else(|| Unit::Other(text.to_owned())))
}

fn pair(text: &str) -> Result<(f32, f32), String> {
    let numbers = text.split_once(',').and_then(|(a, b)| Some((a.trim().parse().ok()?, b.trim().parse().ok()?)));
    numbers.ok_or_else(|| "expected two numbers, such as 40,400".to_owned())
}

/// Which samples of the data are attacked, and how many at a time.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Draw {
    /// Part of the data.
    #[arg(long, default_value = "test", value_enum)]
    pub(crate) split: SplitName,
    /// Draw this many samples at random, stratified by class; 0 for all.
    #[arg(long, default_value_t = 0)]
    pub(crate) samples: usize,
    /// Samples an attack works on at a time; changes memory and speed, not results.
    #[arg(long, default_value_t = 64)]
    pub(crate) batch_size: usize,
}

/// What attacks that learn first learn from.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Learning {
    /// Part of the data that attacks such as uap learn from, never the part under attack; by default train, or validation
    /// where train is under attack.
    #[arg(long, value_enum)]
    pub(crate) learn_from: Option<SplitName>,
    /// Samples that such attacks learn from, drawn at random, stratified by class; 0 for all.
    #[arg(long, default_value_t = 256)]
    pub(crate) learning_samples: usize,
}

/// Which samples of which data.
#[derive(Args, Debug)]
pub(crate) struct Samples {
    /// ONNX file.
    #[arg(long)]
    pub(crate) model: PathBuf,
    #[command(flatten)]
    pub(crate) source: Source,
    #[command(flatten)]
    pub(crate) draw: Draw,
    #[command(flatten)]
    pub(crate) learning: Learning,
}

/// Arguments of `audit`: a recipe, or flags that say the same.
#[derive(Args, Debug)]
pub(crate) struct Audit {
    /// Recipe (`nocebo init` writes one); what is audited then stands there and not in flags.
    #[arg(long, conflicts_with_all = [
        "model", "data", "split", "samples", "learn_from", "learning_samples", "threat", "goal", "finding", "protocol",
        "attacks", "require", "group", "include_images", "keep_samples", "unit", "bounds", "window", "serious", "tolerance",
        "store_as",
    ])]
    pub(crate) recipe: Option<PathBuf>,
    /// ONNX file.
    #[arg(long, required_unless_present = "recipe")]
    pub(crate) model: Option<PathBuf>,
    /// A MedMNIST-style .npz, a .csv table, or a folder of images (DICOM too, or with masks), volumes or WFDB records.
    #[arg(long, required_unless_present = "recipe")]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) open: Opening,
    #[command(flatten)]
    pub(crate) draw: Draw,
    #[command(flatten)]
    pub(crate) learning: Learning,
    /// Norm and epsilons, such as `linf:0.5,1,2,4,8`, `l2:0.1sd`, or `linf:inf` for no limit but the bounds; may be
    /// repeated.
    #[arg(long, required_unless_present = "recipe")]
    pub(crate) threat: Vec<ThreatSpec>,
    /// What the attacker wants.
    #[arg(long, default_value = "untargeted", value_enum)]
    pub(crate) goal: GoalName,
    /// Name or number of the class or finding that the goal is about, or that misses are counted for.
    #[arg(long)]
    pub(crate) finding: Option<String>,
    /// A set of attacks: standard is the cascade of AutoAttack, or its variant for the task. The default where no attacks
    /// are named.
    #[arg(long, value_enum)]
    pub(crate) protocol: Option<ProtocolName>,
    /// Attacks, separated by commas; settings may follow a name: `pgd(steps=20,restarts=2)`.
    #[arg(long)]
    pub(crate) attacks: Option<String>,
    /// A gate, such as `robust_accuracy(linf:1) >= 0.5`, judged on the worse end of the interval; may be repeated.
    #[arg(long)]
    pub(crate) require: Vec<String>,
    /// A column of the label table that results are also given for, such as sex; may be repeated.
    #[arg(long)]
    pub(crate) group: Vec<String>,
    /// Store pictures with loss, as `jpeg:90` (8 bits) or `jpeg2000:10` (a tenth of the size), before success after storage is judged.
    #[arg(long)]
    pub(crate) store_as: Option<StoreAs>,
    /// Images in the report: the most striking successes; 0 for a report without patient data.
    #[arg(long, default_value_t = 6)]
    pub(crate) include_images: usize,
    /// Samples kept in the folder, clean and as every attack returned them, for `nocebo view`; they are patient data.
    #[arg(long, default_value_t = 0)]
    pub(crate) keep_samples: usize,
    /// Stop after this many minutes with exit code 4; the same command continues.
    #[arg(long)]
    pub(crate) max_minutes: Option<f64>,
    /// Folder for records and report: new, or that of the same audit to be continued.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

/// What the attacker wants.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum GoalName {
    /// Any decision but the true one.
    Untargeted,
    /// Hide the finding.
    FalseNegative,
    /// Invent the finding.
    FalsePositive,
}

/// A set of attacks.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ProtocolName {
    /// A look in minutes.
    Quick,
    /// The cascade of AutoAttack, or its variant for the task.
    Standard,
    /// More of everything.
    Thorough,
}

/// Arguments of `init`.
#[derive(Args, Debug)]
pub(crate) struct Init {
    /// ONNX file.
    #[arg(long)]
    pub(crate) model: PathBuf,
    /// A MedMNIST-style .npz, a .csv table, or a folder of images (DICOM too, or with masks), volumes or WFDB records.
    #[arg(long)]
    pub(crate) data: PathBuf,
    /// Recipe to write; never over an existing file.
    #[arg(long, default_value = "audit.toml")]
    pub(crate) out: PathBuf,
}

/// Arguments of `compare`.
#[derive(Args, Debug)]
pub(crate) struct Compare {
    /// Folder of the first audit.
    pub(crate) first: PathBuf,
    /// Folder of the second audit: the same samples and threats, another model.
    pub(crate) second: PathBuf,
    /// Also write a report on both to this HTML file.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
}

/// Arguments of `view`.
#[derive(Args, Debug)]
pub(crate) struct View {
    /// Folders of finished audits.
    #[arg(required = true)]
    pub(crate) results: Vec<PathBuf>,
    /// Port on 127.0.0.1; 0 for one that is free.
    #[arg(long, default_value_t = 0)]
    pub(crate) port: u16,
}

/// Arguments of `attack`.
#[derive(Args, Debug)]
pub(crate) struct Attack {
    #[command(flatten)]
    pub(crate) samples: Samples,
    /// Attack, with settings if any: `pgd(steps=20)`.
    #[arg(long, default_value = "pgd")]
    pub(crate) attack: String,
    /// Norm and one epsilon, such as `linf:4`, or `linf:inf` for no limit but the bounds.
    #[arg(long)]
    pub(crate) threat: ThreatSpec,
    /// Store pictures with loss, as `jpeg:90` (8 bits) or `jpeg2000:10` (a tenth of the size), before success after storage is judged.
    #[arg(long)]
    pub(crate) store_as: Option<StoreAs>,
    /// New folder for the perturbed samples.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

/// Arguments of `transfer`.
#[derive(Args, Debug)]
pub(crate) struct Transfer {
    /// ONNX files, separated by commas; two at least.
    #[arg(long, required = true, value_delimiter = ',')]
    pub(crate) models: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) source: Source,
    #[command(flatten)]
    pub(crate) draw: Draw,
    /// Attack, with settings if any: `mi-fgsm(steps=20)`.
    #[arg(long, default_value = "mi-fgsm")]
    pub(crate) attack: String,
    /// Norm and one epsilon, such as `linf:4`.
    #[arg(long)]
    pub(crate) threat: ThreatSpec,
    /// JSON file to write, with one record a model and sample.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
}

/// Arguments of `attacks`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Attacks {
    /// The same as `show NAME`.
    pub(crate) name: Option<String>,
    #[command(subcommand)]
    pub(crate) show: Option<ShowAttack>,
}

/// More about one attack.
#[derive(Debug, Subcommand)]
pub(crate) enum ShowAttack {
    /// Show what an attack is, and its settings with meaning, range and default, as TOML.
    Show {
        /// Name of the attack.
        name: String,
    },
}

/// Arguments of `inspect`.
#[derive(Args, Debug)]
pub(crate) struct Inspect {
    /// ONNX file.
    pub(crate) model: PathBuf,
    /// Print every node instead: `output: Operator(inputs; attributes)`.
    #[arg(long)]
    pub(crate) nodes: bool,
}

/// Arguments of `data`.
#[derive(Args, Debug)]
pub(crate) struct Data {
    #[command(subcommand)]
    pub(crate) inspect: InspectData,
}

/// What is done with a data set.
#[derive(Debug, Subcommand)]
pub(crate) enum InspectData {
    /// Print shape, unit, bounds, classes, splits, patients (their number), statistics and problems of a data set.
    Inspect {
        /// Whatever `--data` of the other commands takes.
        data: PathBuf,
        /// Print JSON instead.
        #[arg(long)]
        json: bool,
        /// Print the schema of a table instead, everything that was inferred included.
        #[arg(long, conflicts_with = "json")]
        schema: bool,
        #[command(flatten)]
        open: Opening,
    },
}

/// Arguments of `run`.
#[derive(Args, Debug)]
pub(crate) struct Run {
    /// ONNX file.
    pub(crate) model: PathBuf,
    /// An array (.npy), ONNX tensor (.pb), image or volume (in its unit) for each input of the model, in order; may be repeated.
    #[arg(long, required = true)]
    pub(crate) input: Vec<PathBuf>,
    /// Also write the gradient of the sum of the first output by each input.
    #[arg(long)]
    pub(crate) gradient: bool,
    /// New folder for `<output name>.npy`.
    #[arg(long)]
    pub(crate) out: PathBuf,
}
