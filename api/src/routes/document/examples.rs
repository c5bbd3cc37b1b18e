//! An example of every parameter, body and response, made from its schema and from what its fields usually hold.

use std::{collections::BTreeMap, sync::LazyLock};

use serde_json::{Map, Value, json};

use super::{
    for_each_call,
    problems::{SENT, codes, is_problem},
};

/// By the name of a schema, of a field of a schema, of a field or parameter of any schema, or of a media type. What is
/// not here, the schema says.
static VALUES: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("examples.json")).unwrap_or_default());

/// Fields of responses that follow from the call, and not from the schema.
static OVERRIDES: LazyLock<Value> = LazyLock::new(|| {
    json!({
        "approveAssignment 200": { "status": "PENDING" },
        "rejectAssignment 200": { "status": "REJECTED" },
        "cancelOrder 200": { "status": "CANCELLED" },
        "chargePoints 202": { "status": "PENDING", "balance": 0 },
        "closeCampaign 200": {
            "state": "CLOSED", "status": "CLOSED",
            "changes": { "before": { "state": "ACTIVE" }, "after": { "state": "CLOSED" } },
        },
        "confirmOrder 200": { "status": "BUY_CONFIRM", "paymentId": "01990000-0000-7000-8000-000000000002" },
        "pauseCampaign 200": {
            "state": "PAUSED", "status": "PAUSED",
            "changes": { "before": { "state": "ACTIVE" }, "after": { "state": "PAUSED" } },
        },
        "resumeCampaign 200": { "changes": { "before": { "state": "PAUSED" }, "after": { "state": "ACTIVE" } } },
        "redriveDeadLetter 202": { "status": "REDRIVE" },
        "revokeCoupon 200": { "status": "REVOKED" },
    })
});

pub fn complete(document: &mut Value) {
    let schemas = document["components"]["schemas"].clone();
    let mut problems = BTreeMap::new();
    for_each_call(document, |mut call| {
        let mut instance = call.route.to_owned();
        for parameter in call.entry["parameters"].as_array_mut().into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap_or_default().to_owned();
            if parameter["required"] == true && !parameter["example"].is_string() {
                parameter["example"] = example(&parameter["schema"], &[&name], &schemas);
            }
            instance = instance.replace(&format!("{{{name}}}"), parameter["example"].to_string().trim_matches('"'));
        }
        if let Some(body) = call.entry.pointer_mut("/requestBody/content") {
            add(body, &schemas, &Value::Null);
        }
        let id = call.id().to_owned();
        for (status, response) in call.responses() {
            if !is_problem(status) {
                let changed = &OVERRIDES[format!("{id} {status}")];
                response.pointer_mut("/content").into_iter().for_each(|content| add(content, &schemas, changed));
                continue;
            }
            for code in codes(response).map(<&str>::from) {
                problems.entry(code.to_owned()).or_insert_with(|| problem(code, &instance));
            }
        }
    });
    document["components"]["examples"] = json!(problems);
}

/// Adds an example to each media type of a body.
fn add(content: &mut Value, schemas: &Value, changed: &Value) {
    for (media_type, body) in content.as_object_mut().into_iter().flatten() {
        let mut value = example(&body["schema"], &[media_type], schemas);
        for (name, changed) in changed.as_object().into_iter().flatten() {
            value[name] = changed.clone();
        }
        body["example"] = value;
    }
}

/// The problem of a code, as it is sent for a call of this path.
fn problem(code: &str, instance: &str) -> Value {
    let mut body = SENT[code]["body"].clone();
    body["instance"] = instance.into();
    json!({ "summary": body["title"], "value": body })
}

/// A value that the schema allows. `names` are those under which [`VALUES`] may have one.
fn example(schema: &Value, names: &[&str], schemas: &Value) -> Value {
    if let Some(value) = names.iter().find_map(|name| VALUES.get(*name)) {
        return value.clone();
    }
    let given = [&schema["example"], &schema["const"], &schema["enum"][0], &schema["default"]];
    if let Some(value) = given.into_iter().find(|value| !value.is_null()) {
        return value.clone();
    }
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return example(&schemas[name], &[name], schemas);
    }
    if let Some(variant) = schema["oneOf"].as_array().and_then(|list| list.iter().find(|item| item["type"] != "null")) {
        return example(variant, &[], schemas);
    }
    let kind = if schema["type"].is_array() { &schema["type"][0] } else { &schema["type"] };
    match (kind.as_str(), schema["format"].as_str()) {
        (Some("object"), _) => object(schema, names.first().unwrap_or(&""), schemas),
        (Some("array"), _) => json!([example(&schema["items"], &[], schemas)]),
        (Some("boolean"), _) => json!(false),
        (Some("integer"), _) => json!(schema["minimum"].as_i64().unwrap_or(0).max(1)),
        (_, Some("date-time")) => json!("2026-11-27T03:00:00.000Z"),
        (_, Some("date")) => json!("2026-11-27"),
        (_, Some("uuid")) => json!("01990000-0000-7000-8000-000000000001"),
        _ => Value::Null,
    }
}

/// An object with the fields that are always there.
fn object(schema: &Value, owner: &str, schemas: &Value) -> Value {
    let required = schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
    let shown = required.iter().filter_map(Value::as_str);
    let members = shown.map(|name| {
        let value = example(&schema["properties"][name], &[&format!("{owner}.{name}"), name], schemas);
        (name.to_owned(), value)
    });
    members.collect::<Map<_, _>>().into()
}
