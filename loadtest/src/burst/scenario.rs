//! The burst as a goose scenario: every goose user takes claims from the list until it is empty.

use std::{sync::Arc, time::Duration};

use dibs_common::identifiers::{ClaimId, CouponId, UserId};
use goose::{goose::GooseResponse, metrics::GooseRequestMetric, prelude::*};
use indicatif::ProgressBar;
use reqwest::{Response, header::RETRY_AFTER};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::claim_list::ClaimList;
use crate::record::{ClaimObservation, ClaimResponse, Receipt};

const PATH: &str = "/coupons/issue";
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one claim is retried.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(90);
/// Caps the `Retry-After` of a 503, so that a fault run goes on soon after the fault.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(2);
/// The delay after a broken connection.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// The claims on one campaign.
pub struct Burst {
    pub coupon: CouponId,
    pub list: ClaimList,
    pub progress: ProgressBar,
}

impl Burst {
    /// The transaction of each goose user.
    pub fn transaction(self: Arc<Self>) -> TransactionFunction {
        Arc::new(move |user| {
            let burst = Arc::clone(&self);
            Box::pin(async move { claim_all(&burst, user).await })
        })
    }
}

async fn claim_all(burst: &Burst, user: &mut GooseUser) -> TransactionResult {
    while let Some(claimant) = burst.list.next().await {
        let observation = claim(burst, user, claimant).await?;
        burst.list.record(observation);
        burst.progress.inc(1);
    }
    Ok(())
}

/// The result of one attempt.
enum Attempt {
    Final(ClaimResponse),
    Retry(Duration),
}

/// Claims, and retries for as long as the response asks for it.
async fn claim(
    burst: &Burst,
    user: &mut GooseUser,
    claimant: UserId,
) -> Result<ClaimObservation, Box<TransactionError>> {
    let body = format!(r#"{{"userId":{claimant},"couponId":{}}}"#, burst.coupon);
    let end = Instant::now() + CLAIM_TIMEOUT;
    let mut uncertain_attempts = 0;
    let response = loop {
        let began = Instant::now();
        // A retry has the same body and no key: the claim is identified by its user and campaign.
        let request = user.get_request_builder(&GooseMethod::Post, PATH)?;
        let request = request.header("content-type", "application/json").body(body.clone());
        let request = GooseRequest::builder().method(GooseMethod::Post).path(PATH).set_request_builder(request).build();
        let GooseResponse { request: mut metric, response } = user.request(request).await?;
        let attempt = match response {
            Ok(response) => read(response).await,
            Err(_) => Attempt::Retry(RETRY_DELAY),
        };
        match attempt {
            Attempt::Final(response) => {
                // Only the final attempt counts: the time of an outage is not the latency of the API.
                burst.list.with_record(|record| record.latencies.record(began.elapsed()));
                count_rejection_as_success(user, &mut metric, &response)?;
                break response;
            }
            Attempt::Retry(delay) if Instant::now() + delay < end => {
                uncertain_attempts += 1;
                sleep(delay).await;
            }
            Attempt::Retry(_) => break ClaimResponse::Unanswered,
        }
    };
    Ok(ClaimObservation { user: claimant, response, uncertain_attempts })
}

/// Goose counts a 4xx as a failure, but a sold-out campaign must reject most claims.
fn count_rejection_as_success(
    user: &mut GooseUser,
    metric: &mut GooseRequestMetric,
    response: &ClaimResponse,
) -> TransactionResult {
    match response {
        ClaimResponse::AlreadyIssued(_) | ClaimResponse::Exhausted => user.set_success(metric),
        _ => Ok(()),
    }
}

#[derive(Deserialize)]
struct Problem {
    code: String,
    claim: Option<FirstClaim>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FirstClaim {
    claim_id: ClaimId,
}

async fn read(response: Response) -> Attempt {
    let status = response.status().as_u16();
    let retry_after: Option<u64> =
        response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    // The status arrived but the body did not, as when the API is killed: the claim may be accepted.
    let Ok(body) = response.bytes().await else { return Attempt::Retry(RETRY_DELAY) };
    interpret(status, retry_after, &body)
}

fn interpret(status: u16, retry_after: Option<u64>, body: &[u8]) -> Attempt {
    let unexpected =
        || Attempt::Final(ClaimResponse::Unexpected(format!("{status} {}", String::from_utf8_lossy(body))));
    if status == 202 {
        let receipt = serde_json::from_slice::<Receipt>(body);
        return receipt.map_or_else(|_| unexpected(), |receipt| Attempt::Final(ClaimResponse::Accepted(receipt)));
    }
    // A proxy or a panic has no problem document.
    let Ok(problem) = serde_json::from_slice::<Problem>(body) else { return unexpected() };
    match (status, &*problem.code, retry_after) {
        (409, "COUPON_ALREADY_ISSUED", _) => {
            Attempt::Final(ClaimResponse::AlreadyIssued(problem.claim.map(|claim| claim.claim_id)))
        }
        (422, "COUPON_EXHAUSTED", _) => Attempt::Final(ClaimResponse::Exhausted),
        (503, "DEPENDENCY_UNAVAILABLE" | "CAMPAIGN_UNAVAILABLE" | "OVERLOADED", Some(seconds)) => {
            Attempt::Retry(Duration::from_secs(seconds).min(MAX_RETRY_DELAY))
        }
        _ => unexpected(),
    }
}

#[cfg(test)]
mod tests {
    use axum::{Json, Router, http::StatusCode, response::IntoResponse as _, routing::post};
    use serde_json::{Value, json};
    use tokio::net::TcpListener;

    use super::*;
    use crate::{goose_run::GooseRun, record::ClientRecord};

    const ID: &str = "01a1fd52-4571-74a3-98c8-4e67be4d0151";

    /// Answers by the user's number.
    async fn answer(Json(claim): Json<Value>) -> axum::response::Response {
        let problem = |status: StatusCode, code: &str| (status, [("retry-after", "0")], Json(json!({"code": code})));
        match claim["userId"].as_u64().unwrap_or(0) {
            1 => (StatusCode::ACCEPTED, Json(json!({"claimId": ID, "sequence": 7, "more": true}))).into_response(),
            2 => (StatusCode::CONFLICT, Json(json!({"code": "COUPON_ALREADY_ISSUED", "claim": {"claimId": ID}})))
                .into_response(),
            3 => problem(StatusCode::UNPROCESSABLE_ENTITY, "COUPON_EXHAUSTED").into_response(),
            4 => problem(StatusCode::CONFLICT, "CAMPAIGN_PAUSED").into_response(),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "broken").into_response(),
        }
    }

    async fn serve(router: Router) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    async fn record_of(router: Router, claims: u64, users: usize) -> ClientRecord {
        let coupon = CouponId::try_from(1).expect("a valid id");
        let list = ClaimList::new(claims, claims, 1);
        let burst = Arc::new(Burst { coupon, list, progress: ProgressBar::hidden() });
        let url = serve(router).await;
        let run = GooseRun { api_url: &url, users, request_timeout: REQUEST_TIMEOUT, report: None };
        run.execute("burst", Arc::clone(&burst).transaction()).await.expect("a run");
        burst.list.with_record(std::mem::take)
    }

    fn describe(status: u16, retry_after: Option<u64>, body: &str) -> String {
        match interpret(status, retry_after, body.as_bytes()) {
            Attempt::Final(ClaimResponse::Accepted(receipt)) => format!("accepted {}", receipt.sequence),
            Attempt::Final(response) => format!("{response:?}"),
            Attempt::Retry(delay) => format!("retry after {} ms", delay.as_millis()),
        }
    }

    #[test]
    fn each_response_is_final_or_retried() {
        let receipt = format!(r#"{{"claimId": "{ID}", "sequence": 7}}"#);
        assert_eq!(describe(202, None, &receipt), "accepted 7");
        assert_eq!(describe(202, None, "{}"), r#"Unexpected("202 {}")"#);
        assert_eq!(describe(409, None, r#"{"code": "COUPON_ALREADY_ISSUED"}"#), "AlreadyIssued(None)");
        assert_eq!(describe(422, None, r#"{"code": "COUPON_EXHAUSTED"}"#), "Exhausted");
        let overloaded = r#"{"code": "OVERLOADED"}"#;
        assert_eq!(describe(503, Some(1), overloaded), "retry after 1000 ms");
        assert_eq!(describe(503, Some(60), overloaded), "retry after 2000 ms");
        // A 503 without Retry-After breaks the contract of the API.
        assert!(describe(503, None, overloaded).starts_with("Unexpected"));
        assert!(describe(503, Some(1), r#"{"code": "OTHER"}"#).starts_with("Unexpected"));
        assert!(describe(500, None, "broken").starts_with("Unexpected"));
    }

    #[tokio::test]
    async fn every_claim_is_sent_once_and_its_response_recorded() {
        let record = record_of(Router::new().route(PATH, post(answer)), 5, 2).await;
        let counts = record.counts();
        let by_response = (counts.accepted, counts.already_issued, counts.exhausted, counts.unexpected);
        assert_eq!((record.observations.len(), by_response, record.latencies.count()), (5, (1, 1, 1, 2), 5));
        assert_eq!(record.accepted().map(|(_, receipt)| receipt.sequence).collect::<Vec<_>>(), [7]);
        assert!(record.holders().all(|(_, first)| first.is_some()));
    }

    #[tokio::test]
    async fn a_503_is_retried_and_leaves_the_user_uncertain() {
        let requests = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let unavailable_once = move || async move {
            let (status, code) = match requests.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
                0 => (StatusCode::SERVICE_UNAVAILABLE, "CAMPAIGN_UNAVAILABLE"),
                _ => (StatusCode::UNPROCESSABLE_ENTITY, "COUPON_EXHAUSTED"),
            };
            (status, [("retry-after", "0")], Json(json!({"code": code})))
        };
        let record = record_of(Router::new().route(PATH, post(unavailable_once)), 1, 1).await;
        assert_eq!((record.counts().exhausted, record.counts().uncertain_attempts), (1, 1));
        assert_eq!(record.uncertain_users().len(), 1);
    }
}
