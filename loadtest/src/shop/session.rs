//! The HTTP client of one user: sends requests through goose, some of them twice with the same idempotency key, and
//! records every response.

use std::{sync::Arc, time::Duration};

use dibs_common::identifiers::{UserId, new_uuid};
use fastrand::Rng;
use goose::{goose::GooseResponse, prelude::*};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{response::ApiResponse, state::ShopState};
use crate::record::{DuplicateRequests, Operation};

/// Of 100 POSTs with a key, so many are sent twice at the same time, and so many again after the response.
const CONCURRENT_DUPLICATE_PERCENT: u8 = 4;
const SEQUENTIAL_DUPLICATE_PERCENT: u8 = 4;
/// How long one request is repeated.
const REPEAT_LIMIT: Duration = Duration::from_secs(90);
/// Caps `Retry-After`, so that a run goes on soon after a fault.
const MAX_REPEAT_DELAY: Duration = Duration::from_secs(2);
/// The delay after a broken connection.
const REPEAT_DELAY: Duration = Duration::from_millis(200);

pub struct Session<'g> {
    pub shop: Arc<ShopState>,
    pub user: UserId,
    pub rng: Rng,
    pub goose: &'g mut GooseUser,
    /// Attempts of the last request that ended in a 503 or a broken connection. Each may have had its effect.
    pub uncertain_attempts: u32,
}

/// A request that goose could not build or send.
pub type GooseFailure = Box<TransactionError>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Duplication {
    None,
    Concurrent,
    Sequential,
}

impl Duplication {
    const fn of(draw: u8) -> Self {
        if draw < CONCURRENT_DUPLICATE_PERCENT {
            Self::Concurrent
        } else if draw < CONCURRENT_DUPLICATE_PERCENT + SEQUENTIAL_DUPLICATE_PERCENT {
            Self::Sequential
        } else {
            Self::None
        }
    }
}

impl Session<'_> {
    /// None when no response came.
    pub async fn get(&mut self, operation: Operation, path: &str) -> Result<Option<ApiResponse>, GooseFailure> {
        let request = self.goose.get_request_builder(&GooseMethod::Get, path)?;
        self.send(operation, GooseMethod::Get, path, request).await
    }

    /// POST without a key: a claim is identified by its user and campaign.
    pub async fn post(
        &mut self,
        operation: Operation,
        path: &str,
        body: &Value,
    ) -> Result<Option<ApiResponse>, GooseFailure> {
        let request = self.goose.get_request_builder(&GooseMethod::Post, path)?.json(body);
        self.send(operation, GooseMethod::Post, path, request).await
    }

    /// POST with a new idempotency key, sometimes sent twice. None when no response came.
    pub async fn post_with_key(
        &mut self,
        operation: Operation,
        path: &str,
        body: &Value,
    ) -> Result<Option<ApiResponse>, GooseFailure> {
        let duplication = Duplication::of(self.rng.u8(..100));
        let key = new_uuid().to_string();
        let request = self.goose.get_request_builder(&GooseMethod::Post, path)?.json(body);
        let request = request.header("idempotency-key", key);
        // A request with a streamed body cannot be cloned; these have JSON bodies.
        let copy = request.try_clone().filter(|_| duplication != Duplication::None);
        let (first, second) = match copy {
            None => return self.send(operation, GooseMethod::Post, path, request).await,
            Some(copy) if duplication == Duplication::Concurrent => {
                // A goose user sends one request at a time, so the copy bypasses goose.
                let copy = async { ApiResponse::read(copy.send().await.ok()?).await };
                let (first, second) = tokio::join!(self.send(operation, GooseMethod::Post, path, request), copy);
                (first?, second)
            }
            Some(copy) => {
                let first = self.send(operation, GooseMethod::Post, path, request).await?;
                (first, self.send(operation, GooseMethod::Post, path, copy).await?)
            }
        };
        if let (Some(first), Some(second)) = (&first, &second) {
            self.shop.with_record(|record| compare(&mut record.duplicates, operation, duplication, first, second));
        }
        // Either of two concurrent requests may be the one with IDEMPOTENCY_IN_PROGRESS.
        Ok(match first {
            Some(first) if first.is_in_progress() => second,
            first => first,
        })
    }

    /// Sends a request, and repeats it as a sensible client does while faults are injected: the same body with the same
    /// key.
    async fn send(
        &mut self,
        operation: Operation,
        method: GooseMethod,
        path: &str,
        mut request: reqwest::RequestBuilder,
    ) -> Result<Option<ApiResponse>, GooseFailure> {
        let end = Instant::now() + REPEAT_LIMIT;
        self.uncertain_attempts = 0;
        loop {
            let copy = request.try_clone();
            let response = self.send_once(operation, method, path, request).await?;
            let delay = match &response {
                None => REPEAT_DELAY,
                Some(response) if response.status == 503 => {
                    Duration::from_secs(response.retry_after.unwrap_or(0)).clamp(REPEAT_DELAY, MAX_REPEAT_DELAY)
                }
                // The attempt whose response got lost, or could not be stored yet.
                Some(response) if response.is_in_progress() && self.shop.has_faults => REPEAT_DELAY,
                Some(_) => return Ok(response),
            };
            match copy {
                Some(copy) if self.shop.has_faults && Instant::now() + delay < end => request = copy,
                _ => {
                    if response.is_none() || self.shop.has_faults {
                        self.shop.anomaly(operation, "no final response");
                    }
                    return Ok(response);
                }
            }
            self.uncertain_attempts += 1;
            self.shop.with_record(|record| record.repeats += 1);
            sleep(delay).await;
        }
    }

    async fn send_once(
        &mut self,
        operation: Operation,
        method: GooseMethod,
        path: &str,
        request: reqwest::RequestBuilder,
    ) -> Result<Option<ApiResponse>, GooseFailure> {
        let began = Instant::now();
        let request =
            GooseRequest::builder().method(method).path(path).name(operation.name()).set_request_builder(request);
        let GooseResponse { request: mut metric, response } = self.goose.request(request.build()).await?;
        let response = match response {
            Ok(response) => ApiResponse::read(response).await,
            Err(_) => None,
        };
        if let Some(response) = &response {
            self.shop.responded(operation, response, began.elapsed());
            if !response.is_success() && response.is_expected_of(operation) {
                // Goose counts a 4xx as a failure, but a shop must reject some requests.
                self.goose.set_success(&mut metric)?;
            }
        }
        Ok(response)
    }
}

/// Compares the responses to two requests with the same key.
fn compare(
    duplicates: &mut DuplicateRequests,
    operation: Operation,
    duplication: Duplication,
    first: &ApiResponse,
    second: &ApiResponse,
) {
    let DuplicateRequests { concurrent, sequential, in_progress, mismatches } = duplicates;
    let is_concurrent = duplication == Duplication::Concurrent;
    *(if is_concurrent { concurrent } else { sequential }) += 1;
    // Counted as one pair, whichever of the two it was.
    *in_progress += u64::from(first.is_in_progress() || second.is_in_progress());
    let name = operation.name();
    if !first.is_consistent_with(second) {
        mismatches.add(format!("{name}: {} {}, then {} {}", first.status, first.body, second.status, second.body));
    } else if !is_concurrent && second.is_in_progress() {
        mismatches.add(format!("{name}: {}, then still in progress", first.status));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn response(status: u16, code: &str) -> ApiResponse {
        ApiResponse { status, location: None, retry_after: None, body: json!({"code": code}) }
    }

    fn compared(duplication: Duplication, first: &ApiResponse, second: &ApiResponse) -> DuplicateRequests {
        let mut duplicates = DuplicateRequests::default();
        compare(&mut duplicates, Operation::Place, duplication, first, second);
        duplicates
    }

    #[test]
    fn eight_of_a_hundred_requests_are_duplicated() {
        let count = |duplication| (0..100).filter(|draw| Duplication::of(*draw) == duplication).count();
        assert_eq!([Duplication::Concurrent, Duplication::Sequential, Duplication::None].map(count), [4, 4, 92]);
    }

    #[test]
    fn equal_responses_are_no_mismatch() {
        let created = response(201, "");
        let duplicates = compared(Duplication::Sequential, &created, &created);
        assert_eq!((duplicates.sequential, duplicates.concurrent, duplicates.mismatches.count()), (1, 0, 0));
    }

    #[test]
    fn different_responses_are_a_mismatch() {
        let duplicates = compared(Duplication::Concurrent, &response(201, ""), &response(422, "STOCK_INSUFFICIENT"));
        assert_eq!(
            duplicates.mismatches.samples(),
            [r#"POST /orders: 201 {"code":""}, then 422 {"code":"STOCK_INSUFFICIENT"}"#]
        );
    }

    #[test]
    fn a_request_may_be_in_progress_only_at_the_same_time() {
        let (created, in_progress) = (response(201, ""), response(409, "IDEMPOTENCY_IN_PROGRESS"));
        let concurrent = compared(Duplication::Concurrent, &in_progress, &created);
        assert_eq!((concurrent.in_progress, concurrent.mismatches.count()), (1, 0));
        let sequential = compared(Duplication::Sequential, &created, &in_progress);
        assert_eq!(sequential.mismatches.samples(), ["POST /orders: 201, then still in progress"]);
    }
}
