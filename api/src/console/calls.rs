//! Calls of the REST API within the process, as the credential of a session. They pass the same gate, handlers and
//! idempotency keys as those from outside.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Method, Request, StatusCode, header},
    response::Response,
};
use dibs_common::error::Error;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use tower::ServiceExt as _;

use crate::access::{Credential, SessionCredential};

/// Longer than any answer: a list has at most 100 items. A dead letter has up to 256 kB.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// Why a page cannot show or do what it should.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Problem {
    pub status: u16,
    pub code: String,
    pub title: String,
    pub detail: String,
    pub errors: Vec<FieldProblem>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct FieldProblem {
    pub field: String,
    pub message: String,
}

impl Problem {
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// What is wrong with the field of a form.
    pub fn of_field(&self, field: &str) -> Option<&str> {
        self.errors.iter().find(|error| error.field == field).map(|error| error.message.as_str())
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let code = error.code();
        if let Error::Internal(cause) = &error {
            tracing::error!(cause, "page failed: internal error");
        }
        let errors = match &error {
            Error::ValidationFailed(errors) => errors.as_slice(),
            _ => &[],
        };
        let errors =
            errors.iter().map(|error| FieldProblem { field: error.field.to_string(), message: error.message.clone() });
        Self {
            status: code.status(),
            code: code.into_str().into(),
            title: code.title().into(),
            detail: error.to_string(),
            errors: errors.collect(),
        }
    }
}

/// Makes calls as one credential.
#[derive(Clone)]
pub struct Calls {
    pub router: Router,
    pub credential: Arc<Credential>,
}

/// A call that changes something.
pub struct Change<'c> {
    pub method: Method,
    /// With its query.
    pub path: String,
    pub body: Option<Value>,
    /// Of the form, so that one that is sent twice has one effect.
    pub operation: Option<&'c str>,
    pub if_match: Option<String>,
}

impl Calls {
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Problem> {
        let request = Request::get(path);
        let (_, answer) = self.call(request.body(Body::empty()).map_err(Error::internal)?).await?;
        serde_json::from_slice(&answer).map_err(|error| Error::internal(error).into())
    }

    /// The answer; null when it has no body.
    pub async fn change(&self, change: Change<'_>) -> Result<Value, Problem> {
        let mut request = Request::builder().method(change.method).uri(change.path);
        if let Some(operation) = change.operation {
            request = request.header("idempotency-key", operation);
        }
        if let Some(revision) = change.if_match {
            request = request.header(header::IF_MATCH, revision);
        }
        let request = match change.body {
            Some(body) => {
                let request = request.header(header::CONTENT_TYPE, "application/json");
                request.body(Body::from(body.to_string()))
            }
            None => request.body(Body::empty()),
        };
        let (_, answer) = self.call(request.map_err(Error::internal)?).await?;
        Ok(serde_json::from_slice(&answer).unwrap_or(Value::Null))
    }

    async fn call(&self, mut request: Request<Body>) -> Result<(StatusCode, Vec<u8>), Problem> {
        request.extensions_mut().insert(SessionCredential(Arc::clone(&self.credential)));
        request.headers_mut().insert(header::HOST, header::HeaderValue::from_static("console"));
        let answered: Result<Response, Infallible> = self.router.clone().oneshot(request).await;
        let response = answered.unwrap_or_else(|never| match never {});
        let status = response.status();
        let body = to_bytes(response.into_body(), MAX_ANSWER_BYTES).await.map_err(Error::internal)?;
        if status.is_success() {
            return Ok((status, body.to_vec()));
        }
        let problem = serde_json::from_slice(&body);
        Err(problem.unwrap_or_else(|error| Error::internal(error).into()))
    }
}
