use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;

use super::*;

fn generated() -> String {
    description().to_pretty_json().unwrap() + "\n"
}

/// `TOMBOLO_UPDATE=1` writes the file anew.
#[test]
fn the_committed_description_is_the_generated_one() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let generated = generated();
    if std::env::var_os("TOMBOLO_UPDATE").is_some_and(|value| value == "1") {
        std::fs::write(&path, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert!(
        committed == generated,
        "openapi.json is out of date: run this test with TOMBOLO_UPDATE=1 and look at the difference"
    );
}

fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get("$ref") {
                found.insert(reference);
            }
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let api: Value = serde_json::from_str(&generated()).unwrap();
    let mut found = BTreeSet::new();
    references(&api, &mut found);
    assert!(found.contains("#/components/schemas/NetworkCreate"));
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(api.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

/// A field that may be null has its description beside the reference.
fn is_described(property: &Value) -> bool {
    let choices = property["oneOf"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    property["description"].is_string()
        || choices
            .iter()
            .any(|choice| choice["description"].is_string())
}

#[test]
fn every_operation_and_every_field_is_described() {
    let api: Value = serde_json::from_str(&generated()).unwrap();
    let paths = api["paths"].as_object().unwrap();
    let operations: usize = paths
        .values()
        .map(|item| item.as_object().unwrap().len())
        .sum();
    assert_eq!(operations, Operation::ALL.len());
    for (name, schema) in api["components"]["schemas"].as_object().unwrap() {
        assert!(schema["description"].is_string(), "{name} is not described");
        let Some(properties) = schema["properties"].as_object() else {
            continue;
        };
        for (field, property) in properties {
            assert!(is_described(property), "{name}.{field} is not described");
        }
    }
}

#[test]
fn requests_refuse_unknown_fields_in_the_description_too() {
    let api: Value = serde_json::from_str(&generated()).unwrap();
    for &operation in Operation::ALL {
        let Some(body) = operation.route().body else {
            continue;
        };
        let schema = &api["components"]["schemas"][body];
        assert_eq!(schema["additionalProperties"], Value::Bool(false), "{body}");
    }
}
