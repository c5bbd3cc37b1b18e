//! The headers of responses.

use serde_json::{Map, Value, json};

use super::{
    Call,
    problems::{SENT, codes, is_problem},
    reference,
};
use crate::edge::is_limited;

/// Every header that is documented, with its schema. The entries of calls name those of their own.
pub fn components() -> Value {
    let text = |description: &str, example: &str| {
        let schema = json!({ "type": "string" });
        json!({ "description": description, "schema": schema, "example": example })
    };
    json!({
        "Accept-Encoding": text("Bodies are not compressed.", "identity"),
        "Allow": text("The methods of the path.", "GET,HEAD"),
        "Cache-Control": text("No cache may keep the response.", "no-store"),
        "ETag": text("The revision, for `If-Match` of a change.", "\"3\""),
        "Idempotent-Replayed": {
            "description": "The response is that of the first request with this `Idempotency-Key`.",
            "schema": { "type": "string", "enum": ["true"] },
            "example": "true",
        },
        "Location": {
            "description": "The path that shows the outcome, or what was created.",
            "required": true,
            "schema": { "type": "string", "format": "uri-reference" },
            "example": "/orders/01990000-0000-7000-8000-000000000001",
        },
        "Preference-Applied": text("The preference that was followed, with the time that was waited for.", "wait=10"),
        "RateLimit": text("What is left of each limit, where limits are set.", "\"user\";r=59;t=60"),
        "RateLimit-Policy": text("The limits of claims, where they are set.", "\"user\";q=60;w=60"),
        "Retry-After": {
            "description": "After how many seconds a repeat may succeed.",
            "schema": { "type": "integer", "format": "int64", "minimum": 0 },
            "example": 1,
        },
        "Vary": text("The header of the request that the response depends on.", "accept"),
        "WWW-Authenticate": text("What credential is expected.", "Bearer"),
        "x-request-id": {
            "description": "Finds the request in the log: that of the request, or a new one.",
            "required": true,
            "schema": { "type": "string", "minLength": 1, "maxLength": 128 },
            "example": "01990000-0000-7000-8000-0000000000aa",
        },
    })
}

pub fn complete(call: &mut Call<'_>) {
    let (takes_key, is_limited) = (call.takes_key(), is_limited(call.method, call.route));
    for (status, response) in call.responses() {
        let mut names: Vec<String> = vec!["x-request-id".into()];
        names.extend(response["headers"].as_object().into_iter().flatten().map(|(name, _)| name.clone()));
        // Only these are stored under a key.
        if takes_key && (status < "300" || ["404", "409", "422"].contains(&status)) {
            names.push("Idempotent-Replayed".into());
        }
        if is_limited {
            names.extend(["RateLimit", "RateLimit-Policy"].map(str::to_owned));
        }
        match status {
            "405" => names.push("Allow".into()),
            "415" => names.push("Accept-Encoding".into()),
            _ => {}
        }
        if is_problem(status) {
            names.extend(codes(response).flat_map(|code| of_problem(code.into_str())));
        }
        let headers: Map<String, Value> =
            names.into_iter().map(|name| (name.clone(), reference("headers", &name))).collect();
        response["headers"] = headers.into();
    }
}

/// The headers of a problem of this code, as components spell them.
fn of_problem(code: &str) -> Vec<String> {
    let known = components();
    let known = known.as_object().into_iter().flatten().map(|(name, _)| name.clone());
    let sent = &SENT[code]["headers"];
    known.filter(|name| sent[name.to_lowercase()].is_string()).collect()
}
