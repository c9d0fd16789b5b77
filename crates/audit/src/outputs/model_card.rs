//! A machine-learning bill of materials in CycloneDX 1.6 with a model card: the figures beside the model they are about.
//!
//! Source: CycloneDX 1.6 (ECMA-424), `component.modelCard`. The serial number comes from the digest of the records, and
//! there is no timestamp, so that the same audit gives the same bytes.

use serde_json::{Value, json};

use crate::Rate;
use crate::audit::Audit;
use crate::findings::Status;

/// The model card of an audit.
pub(crate) fn model_card(audit: &Audit) -> Value {
    let mut metrics = vec![metric("accuracy", &audit.clean.accuracy, "clean")];
    let classes = |slice: &str, decisions: &crate::DecisionMetrics| {
        let mut found = Vec::new();
        for class in &decisions.classes {
            let slice = format!("{slice}, {}", class.class);
            found.push(metric("sensitivity", &class.sensitivity, &slice));
            found.push(metric("specificity", &class.specificity, &slice));
            if let Some(auc) = class.auc {
                found.push(json!({
                    "type": "area under the ROC curve", "value": number(auc.value), "slice": slice,
                    "confidenceInterval": { "lowerBound": number(auc.lower), "upperBound": number(auc.upper) },
                }));
            }
        }
        found
    };
    metrics.extend(classes("clean", &audit.clean));
    for threat in &audit.threats {
        let slice = format!("{}:{} {}", threat.norm, threat.epsilon, audit.data.unit);
        metrics.push(metric("robust accuracy", &threat.worst_case.robust_accuracy, &slice));
        metrics.extend(classes(&slice, &threat.worst_case.decisions));
        for subgroup in &threat.worst_case.subgroups {
            let slice = format!("{slice}, {} = {}", subgroup.group, subgroup.value);
            metrics.push(metric("robust accuracy", &subgroup.robust_accuracy, &slice));
        }
    }
    metrics.retain(|metric| !metric["value"].is_null());
    let mut limits: Vec<String> = vec![
        "Figures hold for the attacks, budgets and samples of this audit; a stronger or another attack may lower them."
            .to_owned(),
    ];
    let failed = audit.findings.iter().filter(|finding| finding.status == Status::Fail);
    limits.extend(failed.map(|finding| format!("Does not hold: {} ({})", finding.title, finding.detail)));
    let hashes = |role: &str| -> Vec<Value> {
        let files = audit.provenance.inputs.iter().filter(|file| file.role == role);
        files.map(|file| json!({ "alg": "SHA-256", "content": file.sha256 })).collect()
    };
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": serial(&audit.records_sha256),
        "version": 1,
        "metadata": {
            "tools": { "components": [{ "type": "application", "name": audit.tool, "version": audit.tool_version }] },
        },
        "components": [
            {
                "type": "machine-learning-model",
                "bom-ref": "model",
                "name": audit.model.name,
                "hashes": hashes("model"),
                "modelCard": {
                    "modelParameters": {
                        "task": "classification",
                        "datasets": [{ "ref": "data" }],
                    },
                    "quantitativeAnalysis": { "performanceMetrics": metrics },
                    "considerations": { "technicalLimitations": limits },
                },
            },
            {
                "type": "data",
                "bom-ref": "data",
                "name": audit.data.name,
                "hashes": hashes("data"),
                "data": [{ "type": "dataset", "name": audit.data.name }],
            },
        ],
    })
}

fn metric(kind: &str, rate: &Rate, slice: &str) -> Value {
    json!({
        "type": kind,
        "value": rate.value.map(number),
        "slice": slice,
        "confidenceInterval": { "lowerBound": number(rate.lowest()), "upperBound": number(rate.highest()) },
    })
}

/// CycloneDX holds numbers as text.
fn number(value: f64) -> String {
    format!("{value:.6}")
}

/// A name-based UUID (version 8) from the first bits of a digest.
fn serial(digest: &str) -> String {
    let digit = |at: usize| digest.get(at..=at).unwrap_or("0");
    let part = |from: usize, to: usize| (from..to).map(digit).collect::<String>();
    format!("urn:uuid:{}-{}-8{}-8{}-{}", part(0, 8), part(8, 12), part(12, 15), part(15, 18), part(18, 30))
}
