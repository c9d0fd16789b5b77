//! Results for machines and for short attention: made from the [`Audit`](crate::Audit) alone.

mod junit;
mod markdown;
mod model_card;

pub(crate) use junit::junit;
pub(crate) use markdown::markdown;
pub(crate) use model_card::model_card;

/// Text inside XML, with everything replaced that would be markup, and characters left out that XML 1.0 lacks.
fn xml(text: &str) -> String {
    let mut safe = String::new();
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\t' => safe.push_str("&#9;"),
            '\n' => safe.push_str("&#10;"),
            '\u{fffe}' | '\u{ffff}' => {}
            control if control.is_control() => {}
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::toy::{self, Mean};
    use crate::{Audit, AuditRequest, AuditSettings, evaluate};

    fn audit() -> Audit {
        let settings = AuditSettings {
            gates: vec!["robust_accuracy(linf:2) >= 0.1".parse().unwrap(), "clean_accuracy > 0.99".parse().unwrap()],
            ..toy::settings(&[2.0, 4.0, f32::INFINITY])
        };
        let mut data = toy::ten();
        let sites = (0..10).map(|at| if at % 2 == 0 { "north" } else { "<south>" }.to_owned()).collect();
        data.groups.insert("site".to_owned(), sites);
        data.patients = Some((0..10).map(|at| format!("p{}", at / 2)).collect());
        let (model, attacks, mut provenance) = (Mean::new(), toy::attacks(), toy::provenance());
        provenance.model = "mean & <co>|\u{1b}".to_owned();
        let request = AuditRequest {
            model: &model,
            data: &data,
            attacks: &attacks,
            settings: &settings,
            provenance: &provenance,
        };
        evaluate(request, &()).unwrap().audit
    }

    #[test]
    fn each_form_tells_the_same_audit_and_nothing_from_outside_is_markup() {
        let audit = audit();
        insta::assert_snapshot!("junit", junit(&audit));
        insta::assert_snapshot!("markdown", markdown(&audit));
        let card = model_card(&audit);
        let metrics =
            card["components"][0]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"].as_array().unwrap();
        let robust = metrics.iter().find(|metric| metric["type"] == "robust accuracy").unwrap();
        insta::assert_snapshot!("model_card_metric", serde_json::to_string_pretty(robust).unwrap());
        assert!(metrics.iter().any(|metric| metric["slice"] == "linf:4 grey levels, site = north"));
        assert_eq!(card["serialNumber"].as_str().unwrap().len(), "urn:uuid:".len() + 36);
    }

    #[test]
    fn the_summary_keeps_to_its_published_schema() {
        let schema: Value = serde_json::from_str(Audit::schema()).unwrap();
        let mut summary = serde_json::to_value(audit()).unwrap();
        assert_eq!(faults(&schema, &schema, &summary, "audit"), [""; 0]);
        summary["threats"][0]["worst_case"]["robust_accuracy"]["lower"] = "low".into();
        summary["clean"]["surprise"] = 1.into();
        summary.as_object_mut().unwrap().remove("tool");
        assert_eq!(faults(&schema, &schema, &summary, "audit").len(), 3);
    }

    /// Where a value is not what a schema says, as far as types, properties and required ones go.
    fn faults(root: &Value, schema: &Value, value: &Value, place: &str) -> Vec<String> {
        if let Some(name) = schema["$ref"].as_str() {
            return faults(root, &root["$defs"][name.rsplit('/').next().unwrap()], value, place);
        }
        if let Some(ways) = schema["anyOf"].as_array().or(schema["oneOf"].as_array()) {
            let fits = ways.iter().any(|way| faults(root, way, value, place).is_empty());
            return if fits { Vec::new() } else { vec![format!("{place}: none of the ways")] };
        }
        if let Some(wanted) = schema.get("const") {
            return if wanted == value { Vec::new() } else { vec![format!("{place}: not {wanted}")] };
        }
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let allowed: Vec<&str> = match &schema["type"] {
            Value::String(one) => vec![one],
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            _ => return Vec::new(),
        };
        if !(allowed.contains(&kind) || kind == "integer" && allowed.contains(&"number")) {
            return vec![format!("{place}: {kind} in place of {allowed:?}")];
        }
        let mut found = Vec::new();
        if let (Value::Object(fields), Value::Object(known)) = (value, &schema["properties"]) {
            for (name, value) in fields {
                match known.get(name) {
                    Some(schema) => found.extend(faults(root, schema, value, &format!("{place}.{name}"))),
                    None => found.push(format!("{place}.{name}: not in the schema")),
                }
            }
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            found.extend(required.filter(|name| !fields.contains_key(*name)).map(|name| format!("{place}: no {name}")));
        }
        if let (Value::Array(items), true) = (value, schema["items"].is_object()) {
            found.extend(items.iter().flat_map(|item| faults(root, &schema["items"], item, place)));
        }
        found
    }
}
