use std::time::Duration;

use axum::{
    body::BodyDataStream,
    extract::{FromRequest, FromRequestParts, Request},
    http::{HeaderMap, header, request::Parts},
};
use dibs_common::{
    Error,
    domain::{
        admin_action::ActionContext,
        assignment_list::{LineReader, Lines},
    },
    error::Result,
};
use futures::StreamExt as _;
use serde::Deserialize;
use tokio::time::{sleep, timeout};
use utoipa::IntoParams;

use super::{
    action::{administrator_and_query, context},
    json::{BODY_TIMEOUT, is_identity},
};
use crate::problem::ApiError;

/// A call of an administrator that sends a list of users.
pub struct Upload {
    pub context: ActionContext,
    pub expected_count: u32,
}

/// What such a call takes in its query.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UploadQuery {
    /// How many users the list has: one that was cut short or doubled on its way is refused as a whole.
    #[param(minimum = 1, maximum = 100_000_000)]
    expected_count: u32,
    /// Why, for the list of actions: up to 500 characters.
    #[param(max_length = 500)]
    reason: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Upload {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let (administrator, UploadQuery { expected_count, reason }) = administrator_and_query(parts, state).await?;
        Ok(Self { context: context(&administrator, reason, parts)?, expected_count })
    }
}

/// Users of one step. It is the unit of a transaction, and of the time that a body may take.
const STEP_USERS: usize = 2_000;
/// How long the rest of a refused list is read, so that its sender is not cut off before it reads why.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

/// A body of NDJSON, as it arrives. Of its length only a step is in memory.
pub struct UserLines {
    body: BodyDataStream,
}

impl<S: Send + Sync> FromRequest<S> for UserLines {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        if !is_identity(request.headers()) {
            return Err(ApiError(Error::UnsupportedContentEncoding));
        }
        if !is_ndjson(request.headers()) {
            return Err(ApiError(Error::ExpectedNdjson));
        }
        Ok(Self { body: request.into_body().into_data_stream() })
    }
}

fn is_ndjson(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|text| text.split(';').next()).unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/x-ndjson")
}

impl UserLines {
    /// Reads about the next 2,000 users; false at the end of the body. A step that takes longer than 10 seconds is
    /// refused: a stalled body would hold its place among the uploads.
    pub async fn step(&mut self, reader: &mut LineReader, lines: &mut Lines) -> Result<bool> {
        let step = timeout(BODY_TIMEOUT, self.read(reader, lines)).await;
        step.map_err(|_| Error::RequestTimeout(BODY_TIMEOUT.as_secs()))?
    }

    async fn read(&mut self, reader: &mut LineReader, lines: &mut Lines) -> Result<bool> {
        while lines.users.len() < STEP_USERS {
            match self.body.next().await {
                Some(Ok(piece)) => reader.read(&piece, lines),
                Some(Err(_)) => return Err(Error::MalformedJson("it ended early".into())),
                None => {
                    reader.finish(lines);
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Reads the rest of a refused list for a while.
    pub async fn discard(mut self) {
        let body: &mut BodyDataStream = &mut self.body;
        let reading = async { while body.next().await.is_some_and(|piece| piece.is_ok()) {} };
        tokio::select! {
            () = reading => {}
            () = sleep(DISCARD_TIMEOUT) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    async fn lines(content_type: &str, body: Body) -> Result<UserLines, ApiError> {
        let request = Request::put("/").header(header::CONTENT_TYPE, content_type).body(body).expect("a request");
        UserLines::from_request(request, &()).await
    }

    #[tokio::test]
    async fn only_ndjson_is_taken() {
        for content_type in ["application/x-ndjson", "Application/X-NDJSON; charset=utf-8"] {
            assert!(lines(content_type, Body::empty()).await.is_ok(), "{content_type}");
        }
        for content_type in ["application/json", "text/plain", ""] {
            assert!(lines(content_type, Body::empty()).await.is_err(), "{content_type}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_is_refused_after_10_seconds() {
        let pieces = futures::stream::iter([Ok::<_, std::io::Error>("1\n")]).chain(futures::stream::pending());
        let mut body = lines("application/x-ndjson", Body::from_stream(pieces)).await.expect("NDJSON");
        let (mut reader, mut lines) = (LineReader::new(9), Lines::default());
        let began = tokio::time::Instant::now();
        let refused = body.step(&mut reader, &mut lines).await.expect_err("stalled");
        assert!(matches!(refused, Error::RequestTimeout(10)), "{refused}");
        assert_eq!((lines.users.len(), began.elapsed()), (1, BODY_TIMEOUT));
    }
}
