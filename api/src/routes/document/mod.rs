//! What the OpenAPI document says of all calls, so that the entry of each need not repeat it.
//!
//! It is completed as JSON, after the entries of the calls: most of what is added is a reference, which the types of
//! the entries would spell in four lines.

mod examples;
mod headers;
mod links;
mod parameters;
mod problems;
mod schemas;

use axum::http::Method;
use serde_json::{Value, json};

use crate::edge::is_upload;

/// A call, and its entry.
struct Call<'d> {
    method: &'d str,
    route: &'d str,
    entry: &'d mut Value,
}

impl Call<'_> {
    fn takes_key(&self) -> bool {
        // The path of an upload is its key.
        self.method != "get" && !(self.method == "put" && is_upload(&Method::PUT, self.route))
    }

    fn id(&self) -> &str {
        self.entry["operationId"].as_str().unwrap_or_default()
    }

    /// Its responses, by status.
    fn responses(&mut self) -> impl Iterator<Item = (&str, &mut Value)> {
        let responses = self.entry["responses"].as_object_mut().into_iter().flatten();
        responses.map(|(status, response)| (status.as_str(), response))
    }
}

pub(super) fn completed(document: utoipa::openapi::OpenApi) -> Value {
    // A document of utoipa is always JSON.
    let mut document = serde_json::to_value(document).unwrap_or_default();
    document["servers"] = json!([
        { "url": "/", "description": "The process that serves this document." },
        {
            "url": "http://{address}",
            "description": "Another one: calls of the shop at `API_ADDRESS`, of administrators at `ADMIN_ADDRESS`.",
            "variables": { "address": { "default": "127.0.0.1:8080", "description": "Host and port." } },
        },
    ]);
    schemas::complete(&mut document);
    document["components"]["headers"] = headers::components();
    for_each_call(&mut document, |mut call| {
        parameters::complete(&mut call);
        problems::complete(&mut call);
        headers::complete(&mut call);
        links::complete(&mut call);
    });
    examples::complete(&mut document);
    document
}

fn for_each_call(document: &mut Value, mut change: impl FnMut(Call<'_>)) {
    for (route, calls) in document["paths"].as_object_mut().into_iter().flatten() {
        for (method, entry) in calls.as_object_mut().into_iter().flatten() {
            change(Call { method, route, entry });
        }
    }
}

/// The array `name` of an object, which is made if it is missing.
fn array<'v>(object: &'v mut Value, name: &str) -> &'v mut Vec<Value> {
    if !object[name].is_array() {
        object[name] = json!([]);
    }
    match &mut object[name] {
        Value::Array(items) => items,
        _ => unreachable!("it was made one"),
    }
}

fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

#[cfg(test)]
mod tests;
