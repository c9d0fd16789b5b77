//! `nocebo init`.

use std::path::Path;

use nocebo_core::{ModelSpec, Task};
use nocebo_data::{Dataset, Split};
use nocebo_graph::onnx;

use crate::arguments::{Global, Init, Opening, Source};
use crate::failure::{Failure, OrFail};
use crate::load;

/// Budgets as parts of the range: from half a grey level of 255 to what must bring everything down.
const BUDGETS: [f64; 6] = [0.5, 1.0, 2.0, 4.0, 8.0, 64.0];

pub(crate) fn run(arguments: &Init, global: &Global) -> Result<(), Failure> {
    if arguments.out.exists() {
        return Err(Failure::usage(format!("{} exists; nothing is written over", arguments.out.display())));
    }
    load::writable(&arguments.out)?;
    let source = Source { data: arguments.data.clone(), open: Opening::default() };
    let data = load::data(&source, Split::Test, global)?;
    let own = onnx::read(&arguments.model).or_load()?.spec().or_load()?;
    let text = recipe(arguments, &data, own.as_ref(), global.seed);
    nocebo_core::write_file(&arguments.out, text.as_bytes()).or_usage()?;
    println!("wrote {}; run: nocebo audit --recipe {} --out results", arguments.out.display(), arguments.out.display());
    Ok(())
}

fn recipe(arguments: &Init, data: &Dataset, own: Option<&ModelSpec>, seed: u64) -> String {
    let folder = arguments.out.parent().unwrap_or(Path::new(""));
    // Paths count from the folder of the recipe.
    let path = |path: &Path| {
        let shown = path.strip_prefix(folder).ok().filter(|_| !folder.as_os_str().is_empty()).unwrap_or(path);
        let shown = if folder.as_os_str().is_empty() || shown != path {
            shown.to_owned()
        } else {
            std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
        };
        toml::Value::from(shown.display().to_string()).to_string()
    };
    let domain = data.domain();
    let range = f64::from(domain.range());
    let budgets: Vec<String> = BUDGETS.iter().map(|part| short(part * range / 255.0)).collect();
    let middle = &budgets[3];
    let names: Vec<String> = data.class_names().iter().map(|name| format!("\"{}\"", name.escape_default())).collect();
    let task = match own.map(|spec| &spec.task) {
        Some(_) => "# The file says by itself what it decides and how it normalises.".to_owned(),
        None => format!(
            "# The file does not say what its outputs mean; correct these lines where they are wrong.\n\
             task = \"{}\"               # multi_class, binary (one logit) or multi_label\n\
             # normalization = {{ mean = [0.0], standard_deviation = [{}] }}   # one number a channel, in the unit of the data",
            if data.is_multi_label() { "multi_label" } else { "multi_class" },
            short(range),
        ),
    };
    let finding = if matches!(own.map(|spec| &spec.task), Some(Task::MultiLabel { .. })) || data.class_names().len() > 2
    {
        names.last().cloned().unwrap_or_default()
    } else {
        names.get(1).cloned().unwrap_or_default()
    };
    let groups: Vec<&str> = data.groups().keys().map(String::as_str).collect();
    let groups = if groups.is_empty() {
        "# groups = [\"sex\", \"site\"]      # columns of labels.csv that results are also given for".to_owned()
    } else {
        format!("groups = {groups:?}   # columns that results are also given for")
    };
    format!(
        r#"# An audit of robustness: nocebo audit --recipe audit.toml --out results
schema = 1
seed = {seed}
protocol = "standard"              # quick, standard (AutoAttack or its variant for the task), thorough
gates = [
    # "robust_accuracy(linf:{middle}) >= 0.5",   # judged on the lower end of the interval
]

[model]
path = {model}
{task}
# thresholds = [0.5]               # operating point of each logit as a probability (binary and multi_label)

[data]                             # {samples} samples of the test split, {shape:?}, in {unit}
path = {data_path}
split = "test"
samples = 0                        # 0 for all; else drawn at random, stratified by class
{groups}
# class_names = [{names}]
# serious = 2                      # classes are grades in order: errors of fewer grades count as right
# tolerance = 6.0                  # labels are numbers: errors up to this count as right

[threat]
# Budgets in {unit}: from what changes nothing to what must bring every sample down.
budgets = ["linf:{budgets}"]
goal = "untargeted"                # or false_negative, false_positive: about the finding below
# finding = {finding}
# query_limit = 1000               # forward passes that an attack may spend on a sample
# channel = "files in the archive, before they reach the model"
# justification = "why these budgets: noise floor, reader study, storage step"

# Further attacks beside those of the protocol; `nocebo attacks` lists them.
# [[attack]]
# name = "pgd"
# label = "pgd-long"
# settings = {{ steps = 200, restarts = 5 }}

[report]
include_images = 0                 # samples shown in the report; images are patient data
keep_samples = 0                   # samples kept in the results for `nocebo view`; needs include_images
"#,
        model = path(&arguments.model),
        data_path = path(&arguments.data),
        samples = data.len(),
        shape = domain.shape(),
        unit = domain.unit().symbol(),
        names = names.join(", "),
        budgets = budgets.join(","),
    )
}

/// At most three significant digits.
fn short(value: f64) -> String {
    let digits = (2 - value.abs().log10().floor() as i32).clamp(0, 12) as usize;
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}
