//! What the OpenAPI document expects of a request. serde stops at the first wrong field and speaks of Rust's types. A
//! request that it cannot decode is compared with the document here, so that every wrong field is named, by the names
//! of the document.

use std::sync::LazyLock;

use axum::{
    extract::MatchedPath,
    http::{Extensions, Method},
};
use dibs_common::{
    Error,
    domain::{FieldError, assignment::AssignmentKey, audit::AuditPosition, timeline::TimelinePosition},
    identifiers::parse_uuid,
    json::parse_time,
};
use serde_json::{Map, Value};

use crate::routes;

static DOCUMENT: LazyLock<Value> = LazyLock::new(routes::document);
/// The response must not grow with the request: a list may have 10,000 wrong items.
const MAX_ERRORS: usize = 50;
/// Of text that is shown as it came, in characters.
const MAX_SHOWN: usize = 40;

/// The entry of a call in the document.
#[derive(Clone, Copy)]
pub(super) struct Expected(&'static Value);

impl Expected {
    /// The entry of the request's route; one that expects nothing where the document has none.
    pub(super) fn of(extensions: &Extensions, method: &Method) -> Self {
        let route = extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
        // A HEAD is routed as a GET.
        let method = if method == Method::HEAD { "get".into() } else { method.as_str().to_lowercase() };
        Self(&DOCUMENT["paths"][route][method])
    }

    /// The wrong fields of a body.
    pub(super) fn body_errors(self, body: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        check(&self.0["requestBody"]["content"]["application/json"]["schema"], body, ".", &mut errors);
        errors
    }

    /// The wrong parameters of query and path. Without `path`, those of the path are right.
    pub(super) fn parameter_errors(self, path: Option<&[(&str, &str)]>, query: &[(&str, &str)]) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let parameters = self.0["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
        for parameter in parameters {
            let (name, schema) = (text(&parameter["name"]), resolved(&parameter["schema"]));
            let given = match (text(&parameter["in"]), path) {
                ("path", Some(path)) => path,
                ("query", _) => query,
                _ => continue,
            };
            let values: Vec<&str> = given.iter().filter(|(other, _)| *other == name).map(|(_, value)| *value).collect();
            match values[..] {
                [value] => check(schema, &typed(schema, value), name, &mut errors),
                [] if parameter["required"] == true => errors.push(mismatch(name, &described(schema), "nothing")),
                [] => {}
                _ => errors.push(FieldError::new(name, "expected once")),
            }
        }
        let known: Vec<&str> =
            parameters.iter().filter(|known| known["in"] == "query").map(|known| text(&known["name"])).collect();
        let unknown = query.iter().filter(|(name, _)| !known.contains(name));
        // A call without query parameters ignores those that come.
        for (name, _) in unknown.filter(|_| !known.is_empty()).take(MAX_ERRORS) {
            errors.push(unknown_field(name, &known));
        }
        errors
    }
}

/// The error of a request with these wrong fields.
pub(super) fn refusal(mut errors: Vec<FieldError>) -> Error {
    // Only a defect leads here: serde refuses what the document allows. The request cannot be executed all the same.
    if errors.is_empty() {
        errors.push(FieldError::new(".", "expected what /openapi.json describes"));
    }
    Error::ValidationFailed(errors)
}

/// A parameter as the JSON value that its schema expects; text where it is none.
fn typed(schema: &'static Value, text: &str) -> Value {
    if is(schema, "array") {
        let items = resolved(&schema["items"]);
        return text.split(',').map(|item| typed(items, item)).collect();
    }
    if is(schema, "boolean")
        && let Ok(truth) = text.parse()
    {
        return Value::Bool(truth);
    }
    // JSON allows one spelling of an integer only.
    let number = text.parse().ok().filter(|_| is(schema, "integer")).map(Value::Number);
    number.unwrap_or_else(|| text.into())
}

/// Adds what is wrong with `value`, the field at `path`.
fn check(schema: &'static Value, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if errors.len() >= MAX_ERRORS || (value.is_null() && takes_null(schema)) {
        return;
    }
    let schema = resolved(schema);
    match value {
        Value::Object(members) if is(schema, "object") => check_members(schema, members, path, errors),
        Value::Object(members) if schema["oneOf"].is_array() => {
            // Of several objects, the one whose field came. Of none or several, it is not known which one is meant.
            let mut meant = variants(schema).filter(|variant| required(variant).any(|name| members.contains_key(name)));
            match (meant.next(), meant.next()) {
                (Some(variant), None) => check(variant, value, path, errors),
                _ => errors.push(mismatch(path, &described(schema), &shown(value))),
            }
        }
        Value::Array(items) if is(schema, "array") => {
            let bounds = (schema["minItems"].as_u64(), schema["maxItems"].as_u64());
            if !is_within(items.len() as u64, bounds) {
                errors.push(mismatch(path, &described(schema), &items.len().to_string()));
            }
            for (place, item) in items.iter().enumerate() {
                check(&schema["items"], item, &format!("{path}[{place}]"), errors);
            }
        }
        _ if !is_scalar(schema, value) => errors.push(mismatch(path, &described(schema), &shown(value))),
        _ => {}
    }
}

fn check_members(schema: &'static Value, members: &Map<String, Value>, path: &str, errors: &mut Vec<FieldError>) {
    let inside = |name: &str| if path == "." { name.to_owned() } else { format!("{path}.{name}") };
    let properties = &schema["properties"];
    let known: Vec<&str> = properties.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    for name in required(schema).filter(|name| !members.contains_key(*name)) {
        errors.push(mismatch(&inside(name), &described(&properties[name]), "nothing"));
    }
    for (name, value) in members {
        match properties.get(name) {
            Some(schema) => check(schema, value, &inside(name), errors),
            None if errors.len() < MAX_ERRORS => errors.push(unknown_field(&inside(name), &known)),
            None => {}
        }
    }
}

fn is_scalar(schema: &Value, value: &Value) -> bool {
    match value {
        Value::Bool(_) => is(schema, "boolean"),
        Value::Number(number) => {
            let bounds = (schema["minimum"].as_i64(), schema["maximum"].as_i64());
            // A number that is too large for 64 bits, or has a fraction, is none of a field of Dibs.
            let in_list = schema["enum"].as_array().is_none_or(|numbers| numbers.contains(value));
            in_list && is(schema, "integer") && number.as_i64().is_some_and(|number| is_within(number, bounds))
        }
        Value::String(text) => is(schema, "string") && is_text(schema, text, value),
        _ => false,
    }
}

fn is_text(schema: &Value, text: &str, value: &Value) -> bool {
    let bounds = (schema["minLength"].as_u64(), schema["maxLength"].as_u64());
    let in_format = match schema["format"].as_str() {
        Some("uuid") => parse_uuid(text).is_some(),
        Some("date-time") => parse_time(text).is_some(),
        Some("assignment-key") => AssignmentKey::try_from(text.to_owned()).is_ok(),
        Some(AuditPosition::FORMAT) => text.parse::<AuditPosition>().is_ok(),
        Some(TimelinePosition::FORMAT) => text.parse::<TimelinePosition>().is_ok(),
        _ => true,
    };
    let in_list = schema["enum"].as_array().is_none_or(|words| words.contains(value));
    in_format && in_list && is_within(text.chars().count() as u64, bounds)
}

fn is_within<N: PartialOrd + Copy>(number: N, (least, most): (Option<N>, Option<N>)) -> bool {
    least.is_none_or(|least| least <= number) && most.is_none_or(|most| number <= most)
}

/// The schema that is meant: that of a reference, and of an optional value that of the value.
fn resolved(schema: &'static Value) -> &'static Value {
    if let Some(reference) = schema["$ref"].as_str() {
        return DOCUMENT.pointer(reference.trim_start_matches('#')).map_or(&Value::Null, resolved);
    }
    let mut variants = variants(schema);
    match (variants.next(), variants.next()) {
        (Some(only), None) => resolved(only),
        _ => schema,
    }
}

/// The alternatives of a schema beside null.
fn variants(schema: &'static Value) -> impl Iterator<Item = &'static Value> {
    let variants = schema["oneOf"].as_array().map(Vec::as_slice).unwrap_or_default();
    variants.iter().filter(|variant| variant["type"] != "null")
}

fn takes_null(schema: &Value) -> bool {
    let is_null = |kind: &Value| kind == "null" || kind["type"] == "null";
    [&schema["type"], &schema["oneOf"]].into_iter().filter_map(Value::as_array).flatten().any(is_null)
}

fn is(schema: &Value, kind: &str) -> bool {
    let kinds = &schema["type"];
    kinds == kind || kinds.as_array().is_some_and(|kinds| kinds.iter().any(|other| other == kind))
}

fn required(schema: &'static Value) -> impl Iterator<Item = &'static str> {
    strings(&schema["required"])
}

fn strings(list: &'static Value) -> impl Iterator<Item = &'static str> {
    list.as_array().map(Vec::as_slice).unwrap_or_default().iter().filter_map(Value::as_str)
}

/// The values of an enumeration, for a person.
fn listed(list: &'static Value) -> impl Iterator<Item = String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    list.as_array().map(Vec::as_slice).unwrap_or_default().iter().map(text)
}

/// What a schema expects, for a person.
fn described(schema: &'static Value) -> String {
    let schema = resolved(schema);
    match schema["format"].as_str() {
        _ if schema["enum"].is_array() => alternatives(listed(&schema["enum"])),
        Some("uuid") => "a UUID in lower case with hyphens".into(),
        Some("assignment-key") => AssignmentKey::EXPECTED.into(),
        Some(AuditPosition::FORMAT | TimelinePosition::FORMAT) => "`nextCursor` of the page before".into(),
        Some("date-time") => "a time such as 2026-01-31T09:00:00Z".into(),
        _ if schema["oneOf"].is_array() => {
            format!("an object with {}", alternatives(variants(schema).flat_map(required).map(ToOwned::to_owned)))
        }
        _ if is(schema, "integer") => bounded("an integer", "", [&schema["minimum"], &schema["maximum"]]),
        _ if is(schema, "string") => bounded("text", " characters", [&schema["minLength"], &schema["maxLength"]]),
        _ if is(schema, "array") => bounded("a list", " items", [&schema["minItems"], &schema["maxItems"]]),
        _ if is(schema, "boolean") => "true or false".into(),
        _ => "an object".into(),
    }
}

fn bounded(kind: &str, unit: &str, [least, most]: [&Value; 2]) -> String {
    match (least, most) {
        (Value::Null, Value::Null) => kind.into(),
        (least, Value::Null) => format!("{kind} of at least {least}{unit}"),
        (least, most) if unit.is_empty() => format!("{kind} from {least} to {most}"),
        (least, most) => format!("{kind} of {least} to {most}{unit}"),
    }
}

/// `A, B or C`.
fn alternatives(words: impl Iterator<Item = String>) -> String {
    let words: Vec<String> = words.collect();
    match &words[..] {
        [before @ .., last] if !before.is_empty() => format!("{} or {last}", before.join(", ")),
        words => words.concat(),
    }
}

fn mismatch(path: &str, expected: &str, got: &str) -> FieldError {
    FieldError::new(path.to_owned(), format!("expected {expected}, got {got}"))
}

fn unknown_field(path: &str, known: &[&str]) -> FieldError {
    FieldError::new(path.to_owned(), format!("unknown; expected only {}", known.join(", ")))
}

fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
        Value::String(text) if text.chars().count() > MAX_SHOWN => {
            let start: String = text.chars().take(MAX_SHOWN).collect();
            format!("{}...", Value::from(start))
        }
        other => other.to_string(),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(method: &str, route: &str) -> Expected {
        let call = &DOCUMENT["paths"][route][method];
        assert!(call.is_object(), "{method} {route}");
        Expected(call)
    }

    fn lines(errors: Vec<FieldError>) -> Vec<String> {
        errors.into_iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    #[test]
    fn every_wrong_field_of_a_body_is_named() {
        let body = json!({
            "name": null, "discount": { "type": { "FIXED": null }, "value": "5" }, "totalQuantity": 4_000_000_001_u64,
            "opensAt": "noon", "closesAt": 5, "validity": { "days": 3, "until": "2026-01-31T09:00:00Z" }, "colour": 1,
        });
        let expected = [
            "closesAt: expected a time such as 2026-01-31T09:00:00Z, got 5",
            "colour: unknown; expected only closesAt, discount, minimumOrderAmount, name, opensAt, perUserLimit, \
             totalQuantity, validity",
            "discount.type: expected FIXED or PERCENT, got an object",
            "discount.value: expected an integer from 1 to 9007199254740991, got \"5\"",
            "name: expected text of 1 to 100 characters, got null",
            "opensAt: expected a time such as 2026-01-31T09:00:00Z, got \"noon\"",
            "totalQuantity: expected an integer from 1 to 4000000000, got 4000000001",
            "validity: expected an object with days or until, got an object",
        ];
        assert_eq!(lines(call("post", "/admin/coupons").body_errors(&body)), expected);
        let body = json!({ "items": [{ "productId": 1, "quantity": 0 }, [1, 2], { "productId": 1.5 }], "pay": 1 });
        let expected = [
            "userId: expected an integer from 1 to 9007199254740991, got nothing",
            "items[0].quantity: expected an integer from 1 to 10000, got 0",
            "items[1]: expected an object, got a list",
            "items[2].quantity: expected an integer from 1 to 10000, got nothing",
            "items[2].productId: expected an integer from 1 to 9007199254740991, got 1.5",
            "pay: expected true or false, got 1",
        ];
        assert_eq!(lines(call("post", "/orders").body_errors(&body)), expected);
        assert_eq!(lines(call("post", "/orders").body_errors(&json!([]))), [".: expected an object, got a list"]);
        let nothing = json!({ "name": null, "price": null, "stockChange": null, "status": null });
        assert_eq!(call("patch", "/admin/products/{productId}").body_errors(&nothing), []);
    }

    #[test]
    fn every_wrong_parameter_is_named() {
        let call = call("get", "/users/{userId}/coupons");
        let query = [("status", "NEW"), ("limit", "101"), ("cursor", "{x}"), ("page", "2"), ("limit", "")];
        let expected = [
            "userId: expected an integer from 1 to 9007199254740991, got \"01\"",
            "status: expected USABLE, USED, EXPIRED or REVOKED, got \"NEW\"",
            "cursor: expected a UUID in lower case with hyphens, got \"{x}\"",
            "limit: expected once",
            "page: unknown; expected only status, cursor, limit",
        ];
        assert_eq!(lines(call.parameter_errors(Some(&[("userId", "01")]), &query)), expected);
        assert_eq!(call.parameter_errors(None, &[("limit", "100")]), []);
    }

    #[test]
    fn errors_do_not_grow_with_the_request() {
        let body = json!({ "userIds": vec!["x".repeat(100); 1_000], "expectedCount": 1_000 });
        let errors = call("post", "/admin/coupons/{couponId}/assignments").body_errors(&body);
        assert_eq!(errors.len(), MAX_ERRORS);
        assert!(errors.iter().all(|error| error.message.len() < 120), "{:?}", errors[0]);
    }

    /// Otherwise a number that its type cannot hold would be refused without being named.
    #[test]
    fn the_document_bounds_every_integer_of_a_request() {
        fn unbounded(path: &str, schema: &'static Value, found: &mut Vec<String>) {
            let schema = resolved(schema);
            let is_bounded = schema["minimum"].is_number() && schema["maximum"].is_number();
            if is(schema, "integer") && !is_bounded {
                found.push(path.into());
            }
            variants(schema).for_each(|variant| unbounded(path, variant, found));
            let members = schema["properties"].as_object().into_iter().flatten();
            members.for_each(|(name, member)| unbounded(&format!("{path}.{name}"), member, found));
            if schema["items"].is_object() {
                unbounded(path, &schema["items"], found);
            }
        }
        let mut found = Vec::new();
        for (route, calls) in DOCUMENT["paths"].as_object().expect("paths") {
            for (method, call) in calls.as_object().expect("calls") {
                let path = format!("{method} {route}");
                unbounded(&path, &call["requestBody"]["content"]["application/json"]["schema"], &mut found);
                for parameter in call["parameters"].as_array().into_iter().flatten() {
                    unbounded(&format!("{path} {}", parameter["name"]), &parameter["schema"], &mut found);
                }
            }
        }
        assert_eq!(found, Vec::<String>::new());
    }
}
