//! What holds of the whole document, so that a new call cannot be forgotten.

use std::collections::BTreeSet;

use jsonschema::Validator;
use serde_json::{Map, Value, json};

use super::problems::{codes, is_problem};
use crate::{problem::PROBLEM_JSON, routes::document};

/// `GET /orders`, and its entry.
fn calls(document: &Value) -> Vec<(String, &Value)> {
    let paths = document["paths"].as_object().expect("paths").iter();
    let calls = paths.flat_map(|(route, calls)| {
        let calls = calls.as_object().expect("calls").iter();
        calls.map(move |(method, call)| (format!("{} {route}", method.to_uppercase()), call))
    });
    calls.collect()
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Of a schema of the document, beside what it refers to.
fn validator(document: &Value, schema: &Value) -> Validator {
    let mut whole = schema.clone();
    whole["components"] = json!({ "schemas": document["components"]["schemas"] });
    jsonschema::options().should_validate_formats(true).build(&whole).expect("a schema")
}

/// Every object of the document below `value`, with its path.
fn objects<'v>(path: &str, value: &'v Value, found: &mut Vec<(String, &'v Map<String, Value>)>) {
    if let Value::Object(object) = value {
        found.push((path.to_owned(), object));
    }
    members(value).for_each(|(name, member)| objects(&format!("{path}/{name}"), member, found));
    items(value).iter().enumerate().for_each(|(place, item)| objects(&format!("{path}/{place}"), item, found));
}

#[test]
fn every_parameter_of_a_path_is_documented() {
    let document = document();
    for (call, entry) in calls(&document) {
        let named: Vec<&str> =
            call.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}')).collect();
        let of_path = items(&entry["parameters"]).iter().filter(|parameter| parameter["in"] == "path");
        assert_eq!(of_path.map(|parameter| text(&parameter["name"])).collect::<Vec<_>>(), named, "{call}");
        assert!(items(&entry["parameters"]).iter().all(|parameter| parameter["schema"].is_object()), "{call}");
    }
}

/// Generators of clients name functions and classes by them, and links lead to them.
#[test]
fn every_call_has_an_id_of_its_own_a_summary_and_a_tag_that_is_described() {
    let document = document();
    let tags: BTreeSet<&str> = items(&document["tags"])
        .iter()
        .inspect(|tag| assert!(!text(&tag["description"]).is_empty(), "{tag}"))
        .map(|tag| text(&tag["name"]))
        .collect();
    let mut ids = BTreeSet::new();
    let mut used = BTreeSet::new();
    for (call, entry) in calls(&document) {
        let id = text(&entry["operationId"]);
        let is_camel_case = id.starts_with(|letter: char| letter.is_ascii_lowercase())
            && id.chars().all(|letter| letter.is_ascii_alphanumeric());
        assert!(is_camel_case, "{call}: {id}");
        assert!(ids.insert(id), "{call}: {id} twice");
        assert!(!text(&entry["summary"]).is_empty() && entry["security"].is_array(), "{call}");
        let [tag] = items(&entry["tags"]) else { panic!("{call} has one tag") };
        assert!(tags.contains(text(tag)), "{call}: {tag}");
        used.insert(text(tag));
    }
    assert_eq!(used, tags, "a tag without a call");
    for (call, entry) in calls(&document) {
        for (_, link) in members(&entry["responses"]).flat_map(|(_, response)| members(&response["links"])) {
            assert!(ids.contains(text(&link["operationId"])), "{call}: {link}");
        }
    }
}

#[test]
fn every_problem_has_its_type_its_codes_and_an_example_of_each() {
    let document = document();
    for (call, entry) in calls(&document) {
        for (status, response) in members(&entry["responses"]).filter(|(status, _)| is_problem(status)) {
            let place = format!("{call} {status}");
            let content = &response["content"];
            assert_eq!(
                members(content).map(|(media_type, _)| media_type).collect::<Vec<_>>(),
                [PROBLEM_JSON],
                "{place}"
            );
            assert_eq!(content[PROBLEM_JSON]["schema"], json!({ "$ref": "#/components/schemas/Problem" }), "{place}");
            let codes: BTreeSet<&str> = codes(response).map(<&str>::from).collect();
            assert!(!codes.is_empty(), "{place}");
            for code in codes {
                let example = &document["components"]["examples"][code]["value"];
                assert_eq!(example["code"], code, "{place}: api/problems.json has no {code}");
                assert_eq!(example["status"].to_string(), *status, "{place}: {code}");
                assert!(content[PROBLEM_JSON]["examples"][code].is_object(), "{place}: {code}");
            }
        }
    }
}

#[test]
fn every_response_documents_its_headers() {
    let document = document();
    let known = &document["components"]["headers"];
    let mut used = BTreeSet::new();
    for (call, entry) in calls(&document) {
        for (status, response) in members(&entry["responses"]) {
            assert!(response["headers"]["x-request-id"].is_object(), "{call} {status}");
            assert!(!["429", "503"].contains(&status.as_str()) || response["headers"]["Retry-After"].is_object());
            for (name, header) in members(&response["headers"]) {
                assert_eq!(header["$ref"], format!("#/components/headers/{name}"), "{call} {status}");
                assert!(known[name].is_object(), "{call} {status}: {name}");
                used.insert(name);
            }
        }
    }
    assert_eq!(used, members(known).map(|(name, _)| name).collect());
}

#[test]
fn every_request_and_every_response_has_an_example_that_its_schema_allows() {
    let document = document();
    let mut checked = 0;
    let mut check = |place: &str, content: &Value| {
        for (media_type, body) in members(content) {
            assert!(body.get("example").is_some() || body.get("examples").is_some(), "{place} {media_type}");
            let shared = members(&body["examples"])
                .map(|(name, _)| &document["components"]["examples"][name]["value"])
                .chain(body.get("example"));
            let validator = validator(&document, &body["schema"]);
            for example in shared {
                let errors: Vec<String> =
                    validator.iter_errors(example).map(|error| format!("{}: {error}", error.instance_path())).collect();
                assert!(errors.is_empty(), "{place}: {errors:#?}\n{example:#}");
                checked += 1;
            }
        }
    };
    for (call, entry) in calls(&document) {
        check(&call, &entry["requestBody"]["content"]);
        for (status, response) in members(&entry["responses"]) {
            check(&format!("{call} {status}"), &response["content"]);
        }
        for parameter in items(&entry["parameters"]).iter().filter(|parameter| parameter["required"] == true) {
            let validator = validator(&document, &parameter["schema"]);
            assert!(validator.is_valid(&parameter["example"]), "{call}: {parameter}");
        }
    }
    assert!(checked > 500, "{checked}");
}

#[test]
fn schemas_are_those_that_generators_read() {
    let document = document();
    let schemas = &document["components"]["schemas"];
    let mut found = Vec::new();
    objects("", schemas, &mut found);
    let references = &mut Vec::new();
    objects("", &document, references);
    for (path, object) in &found {
        assert!(!object.contains_key("allOf"), "{path}: fields that Rust flattens are of one object");
        let is_wide = object.get("maximum").and_then(Value::as_i64).is_none_or(|most| most > i64::from(i32::MAX));
        let is_list = object.contains_key("enum");
        assert!(object.get("format") != Some(&json!("int32")) || !is_wide || is_list, "{path}: 32 bits are too few");
    }
    for name in members(schemas).map(|(name, _)| name) {
        assert!(name.chars().all(char::is_alphanumeric), "{name} is the name of a class");
        let path = json!(format!("#/components/schemas/{name}"));
        assert!(references.iter().any(|(_, object)| object.get("$ref") == Some(&path)), "{name} is not used");
    }
}

/// What a response leaves out is not null, and what is null is always there.
#[test]
fn fields_of_responses_are_left_out_or_null_but_not_both() {
    fn check(document: &Value, schema: &Value, seen: &mut BTreeSet<String>) {
        if let Some(path) = schema["$ref"].as_str() {
            if seen.insert(path.to_owned()) {
                check(document, document.pointer(&path[1..]).expect(path), seen);
            }
            return;
        }
        for (name, property) in members(&schema["properties"]) {
            let is_null = |kind: &Value| *kind == "null" || kind["type"] == "null";
            let takes_null = [&property["type"], &property["oneOf"]].into_iter().flat_map(items).any(is_null);
            let is_required = items(&schema["required"]).iter().any(|required| required == name);
            assert!(is_required || !takes_null, "{name} of {schema:#}");
            check(document, property, seen);
        }
        for variant in items(&schema["oneOf"]).iter().chain(schema.get("items")) {
            check(document, variant, seen);
        }
    }

    let (document, mut seen) = (document(), BTreeSet::new());
    for (_, entry) in calls(&document) {
        for content in members(&entry["responses"]).flat_map(|(_, response)| members(&response["content"])) {
            check(&document, &content.1["schema"], &mut seen);
        }
    }
    assert!(seen.len() > 50, "{}", seen.len());
}
