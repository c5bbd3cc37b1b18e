//! Compares what the tests send and receive with the OpenAPI document: whatever the API answers, the document
//! describes, and whatever it accepts, the document allows.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use jsonschema::Validator;
use reqwest::{Method, Request, StatusCode, header::HeaderMap};
use serde_json::{Map, Value, json};

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let mut document = dibs_api::routes::document();
    // In the document the objects of responses are open, as later versions may add fields. A field that this version
    // sends is in it.
    for schema in document["components"]["schemas"].as_object_mut().expect("schemas").values_mut() {
        if schema["properties"].is_object() && schema["additionalProperties"].is_null() {
            schema["additionalProperties"] = json!(false);
        }
    }
    document
});

/// A request that a test sends.
pub struct Sent {
    method: Method,
    path: String,
    body: Option<Value>,
}

impl Sent {
    pub fn of(request: &Request) -> Self {
        let body = request.body().and_then(reqwest::Body::as_bytes);
        let body = body.and_then(|body| serde_json::from_slice(body).ok());
        Self { method: request.method().clone(), path: request.url().path().to_owned(), body }
    }

    /// Panics when the document does not describe this response.
    pub fn expect_described(&self, status: StatusCode, headers: &HeaderMap, body: &Value) {
        let Some((route, call)) = call(&self.method, &self.path) else { return };
        // The listener does not serve it.
        if body["code"] == "ROUTE_NOT_FOUND" && !route.starts_with("/errors") {
            return;
        }
        let place = format!("{} {route} answered {status}", self.method);
        let response = &DOCUMENT["paths"][route][call]["responses"][status.as_str()];
        assert!(response.is_object(), "the OpenAPI document does not say that {place}");
        expect_headers(&place, response, headers);
        let media_type = headers.get("content-type").map_or("", |value| value.to_str().expect("text"));
        let media_type = media_type.split(';').next().unwrap_or_default();
        if !media_type.contains("json") || self.method == Method::HEAD {
            return;
        }
        let pointer = ["paths", route, call, "responses", status.as_str(), "content", media_type, "schema"];
        expect_allowed(&format!("the OpenAPI document does not describe what {place}"), &pointer, body);
        let takes_body = DOCUMENT["paths"][route][call]["requestBody"]["content"]["application/json"].is_object();
        if let Some(sent) = self.body.as_ref().filter(|_| takes_body && status.is_success()) {
            let pointer = ["paths", route, call, "requestBody", "content", "application/json", "schema"];
            expect_allowed(&format!("the OpenAPI document does not allow what {place} to"), &pointer, sent);
        }
    }
}

/// The route and the method of a call, as the document has them. None for what is no call of it.
fn call(method: &Method, path: &str) -> Option<(&'static str, &'static str)> {
    let method = if *method == Method::HEAD { "get".into() } else { method.as_str().to_lowercase() };
    let is_like = |route: &str| {
        let mut segments = path.split('/').zip(route.split('/'));
        path.split('/').count() == route.split('/').count()
            && segments.all(|(segment, name)| name == segment || name.starts_with('{'))
    };
    let routes = DOCUMENT["paths"].as_object().expect("paths").iter();
    // `/products/best-sellers` is not a product.
    let (route, calls) =
        routes.filter(|(route, _)| is_like(route)).min_by_key(|(route, _)| route.matches('{').count())?;
    let (method, _) = calls.as_object()?.iter().find(|(known, _)| **known == method)?;
    Some((route, method))
}

fn expect_headers(place: &str, response: &Value, headers: &HeaderMap) {
    let described = response["headers"].as_object().expect("headers");
    let is_described = |name: &str| described.keys().any(|known| known.eq_ignore_ascii_case(name));
    let known = &DOCUMENT["components"]["headers"];
    for (name, header) in known.as_object().expect("headers") {
        let sent = headers.get(name);
        assert!(sent.is_none() || is_described(name), "the OpenAPI document does not say that {place} with {name}");
        let is_required = is_described(name) && header["required"] == true;
        assert!(sent.is_some() || !is_required, "the OpenAPI document says that {place} with {name}");
    }
}

fn expect_allowed(what: &str, pointer: &[&str], value: &Value) {
    let validator = validator(pointer);
    let errors: Vec<String> =
        validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{what}: {errors:#?}\n{value:#}");
}

/// The validator of the schema at that place of the document.
fn validator(pointer: &[&str]) -> Arc<Validator> {
    static VALIDATORS: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);
    let schema = pointer.iter().fold(&*DOCUMENT, |value, name| &value[name]);
    assert!(schema.is_object(), "{pointer:?}");
    let mut validators = VALIDATORS.lock().unwrap_or_else(PoisonError::into_inner);
    let made = validators.entry(schema.to_string()).or_insert_with(|| {
        let mut needed = Map::new();
        collect(schema, &mut needed);
        let mut whole = schema.clone();
        whole["components"] = json!({ "schemas": needed });
        Arc::new(jsonschema::options().should_validate_formats(true).build(&whole).expect("a schema"))
    });
    Arc::clone(made)
}

/// Collects the schemas that a schema leads to: the whole document would take each validator a while.
fn collect(schema: &Value, needed: &mut Map<String, Value>) {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next())
        && !needed.contains_key(name)
    {
        let named = &DOCUMENT["components"]["schemas"][name];
        needed.insert(name.to_owned(), named.clone());
        collect(named, needed);
    }
    match schema {
        Value::Object(members) => members.values().for_each(|member| collect(member, needed)),
        Value::Array(items) => items.iter().for_each(|item| collect(item, needed)),
        _ => {}
    }
}
