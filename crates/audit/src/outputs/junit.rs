//! JUnit XML: one test case for each gate and each finding, for any system that shows tests.

use std::fmt::Write as _;

use super::xml;
use crate::audit::Audit;
use crate::findings::Status;

/// The gates and findings of an audit. A gate that is not met and a finding that weakens the evaluation are failures; a
/// finding about the meaning of the figures is told in the output of its case.
pub(crate) fn junit(audit: &Audit) -> String {
    let mut gates = String::new();
    for gate in &audit.gates {
        let measured =
            gate.value.map_or_else(|| "nothing to measure".to_owned(), |value| format!("measured {value:.4}"));
        let outcome = format!("{measured}, judged {:.4} against {:.4}", gate.judged, gate.bound);
        let content = if gate.passed {
            format!("<system-out>{}</system-out>", xml(&outcome))
        } else {
            format!("<failure message=\"gate not met\">{}</failure>", xml(&outcome))
        };
        let _ = writeln!(gates, "<testcase classname=\"gates\" name=\"{}\">{content}</testcase>", xml(&gate.gate));
    }
    let mut findings = String::new();
    let (mut failed, mut skipped) = (0, 0);
    for finding in &audit.findings {
        let told = if finding.advice.is_empty() {
            finding.detail.clone()
        } else {
            format!("{}. {}", finding.detail, finding.advice)
        };
        let content = match (finding.status, finding.weakens_evaluation) {
            (Status::NotApplicable, _) => {
                skipped += 1;
                format!("<skipped message=\"{}\"/>", xml(&told))
            }
            (Status::Fail, true) => {
                failed += 1;
                format!("<failure message=\"the evaluation may be weak\">{}</failure>", xml(&told))
            }
            _ => format!("<system-out>{}</system-out>", xml(&told)),
        };
        let _ =
            writeln!(findings, "<testcase classname=\"findings\" name=\"{}\">{content}</testcase>", xml(&finding.id));
    }
    let unmet = audit.gates.iter().filter(|gate| !gate.passed).count();
    let (name, gate_count, finding_count) = (xml(&audit.model.name), audit.gates.len(), audit.findings.len());
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <testsuites name=\"nocebo audit of {name}\" tests=\"{}\" failures=\"{}\">\n\
         <testsuite name=\"gates\" tests=\"{gate_count}\" failures=\"{unmet}\" errors=\"0\" skipped=\"0\">\n{gates}</testsuite>\n\
         <testsuite name=\"findings\" tests=\"{finding_count}\" failures=\"{failed}\" errors=\"0\" skipped=\"{skipped}\">\n\
         {findings}</testsuite>\n</testsuites>\n",
        gate_count + finding_count,
        unmet + failed,
    )
}
