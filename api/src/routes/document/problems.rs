//! Problems: their type, their codes, and those that do not depend on what a call does.

use std::sync::LazyLock;

use dibs_common::error::ErrorCode;
use serde_json::{Value, json};

use super::{Call, reference};
use crate::problem::PROBLEM_JSON;

/// The headers and the body of a problem of each code, as the API sends it. A test writes the file.
pub static SENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../../problems.json")).unwrap_or_default());

pub fn complete(call: &mut Call<'_>) {
    let mut shared =
        vec![ErrorCode::ValidationFailed, ErrorCode::MethodNotAllowed, ErrorCode::Internal, ErrorCode::Overloaded];
    if call.entry["requestBody"]["content"]["application/json"].is_object() {
        shared.extend([
            ErrorCode::MalformedJson,
            ErrorCode::RequestTimeout,
            ErrorCode::PayloadTooLarge,
            ErrorCode::UnsupportedMediaType,
        ]);
    }
    if call.takes_key() {
        shared.extend([
            ErrorCode::IdempotencyInProgress,
            ErrorCode::IdempotencyKeyReused,
            ErrorCode::DependencyUnavailable,
        ]);
    }
    for code in shared {
        add(&mut call.entry["responses"], code);
    }
    for (_, response) in call.responses().filter(|(status, _)| is_problem(status)) {
        let examples = codes(response).map(|code| (code.into_str().to_owned(), reference("examples", code.into_str())));
        let examples: serde_json::Map<_, _> = examples.collect();
        response["content"] =
            json!({ PROBLEM_JSON: { "schema": reference("schemas", "Problem"), "examples": examples } });
    }
}

pub fn is_problem(status: &str) -> bool {
    status >= "400"
}

/// The codes of a response, which its description lists.
pub fn codes(response: &Value) -> impl Iterator<Item = ErrorCode> {
    let text = response["description"].as_str().unwrap_or_default();
    text.split(|letter: char| !letter.is_ascii_uppercase() && letter != '_').filter_map(|word| word.parse().ok())
}

fn add(responses: &mut Value, code: ErrorCode) {
    let response = &mut responses[code.status().to_string()];
    if codes(response).any(|known| known == code) {
        return;
    }
    let before = response["description"].as_str().map(|known| format!("{known}, ")).unwrap_or_default();
    response["description"] = format!("{before}{}", code.into_str()).into();
}
