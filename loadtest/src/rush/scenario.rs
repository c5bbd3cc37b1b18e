//! The rush as a goose scenario: every goose user takes claims from the list until there are none.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use dibs_common::identifiers::{ClaimId, CouponId, UserId};
use goose::{
    client::GooseClientBuilder, config::GooseConfiguration, goose::GooseResponse, metrics::GooseRequestMetric,
    prelude::*,
};
use indicatif::ProgressBar;
use reqwest::{Response, header::RETRY_AFTER};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::claim_list::ClaimList;
use crate::record::{Answer, Entry, Receipt};

const PATH: &str = "/coupons/issue";
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// How long one claim is tried again.
const CLAIM_LIMIT: Duration = Duration::from_secs(90);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
const PAUSE_AFTER_BREAK: Duration = Duration::from_millis(200);

/// Who rushes what.
pub struct Rush {
    /// The campaign.
    pub coupon: CouponId,
    /// The claims.
    pub list: ClaimList,
    /// How far it has come.
    pub progress: ProgressBar,
}

/// How goose makes the claims.
pub struct Attack<'a> {
    /// The API.
    pub api_url: &'a str,
    /// Goose users: claims in flight at a time.
    pub concurrency: usize,
    /// Where goose's report goes.
    pub report: Option<&'a Path>,
}

/// Makes all claims of the list.
pub async fn attack(rush: Arc<Rush>, attack: Attack<'_>) -> Result<()> {
    let claims: TransactionFunction = Arc::new(move |user| {
        let rush = Arc::clone(&rush);
        Box::pin(async move { make_claims(&rush, user).await })
    });
    let client = GooseClientBuilder::new().without_cookies().timeout(REQUEST_LIMIT);
    let scenario = Scenario::new("rush").register_transaction(Transaction::new(claims).set_name("claims"));
    let goose = GooseAttack::initialize_with_config(configuration(&attack)).context("setting goose up")?;
    let goose = goose.set_client_builder_without_cookies(client).context("setting goose up")?;
    Box::pin(goose.register_scenario(scenario).execute()).await.context("goose")?;
    Ok(())
}

/// Everything at once, every goose user once through the list, and nothing that goose would print or listen on.
fn configuration(attack: &Attack<'_>) -> GooseConfiguration {
    let mut configuration = GooseConfiguration::default();
    configuration.host = Some(attack.api_url.to_owned());
    configuration.users = Some(attack.concurrency);
    // Goose's default is to start one user a second.
    configuration.increase_rate = Some((attack.concurrency * 100).to_string());
    configuration.iterations = Some(1);
    configuration.quiet = 1;
    configuration.no_telnet = true;
    configuration.no_gzip = true;
    configuration.no_print_metrics = true;
    configuration.no_metrics = attack.report.is_none();
    configuration.report_file = attack.report.iter().map(|path| path.display().to_string()).collect();
    configuration
}

async fn make_claims(rush: &Rush, user: &mut GooseUser) -> TransactionResult {
    while let Some(claimant) = rush.list.next().await {
        let entry = claim(rush, user, claimant).await?;
        rush.list.answered(entry);
        rush.progress.inc(1);
    }
    Ok(())
}

/// What one try came to.
enum Try {
    Final(Answer),
    Again(Duration),
}

/// Claims, and tries again for as long as the answer is to do so.
async fn claim(rush: &Rush, user: &mut GooseUser, claimant: UserId) -> Result<Entry, Box<TransactionError>> {
    let body = format!(r#"{{"userId":{claimant},"couponId":{}}}"#, rush.coupon);
    let end = Instant::now() + CLAIM_LIMIT;
    let mut doubtful_tries = 0;
    loop {
        let began = Instant::now();
        let request = user.get_request_builder(&GooseMethod::Post, PATH)?;
        let request = request.header("content-type", "application/json").body(body.clone());
        let request = GooseRequest::builder().method(GooseMethod::Post).path(PATH).set_request_builder(request).build();
        let GooseResponse { request: mut metric, response } = user.request(request).await?;
        let tried = match response {
            Ok(response) => read(response).await,
            Err(_) => Try::Again(PAUSE_AFTER_BREAK),
        };
        match tried {
            Try::Final(answer) => {
                rush.list.with_record(|record| record.latencies.record(began.elapsed()));
                count_refusal_as_success(user, &mut metric, &answer)?;
                return Ok(Entry { user: claimant, answer, doubtful_tries });
            }
            Try::Again(pause) if Instant::now() + pause < end => {
                doubtful_tries += 1;
                sleep(pause).await;
            }
            Try::Again(_) => return Ok(Entry { user: claimant, answer: Answer::Unanswered, doubtful_tries }),
        }
    }
}

/// For goose a refusal is a failure, but here most claims must be refused.
fn count_refusal_as_success(
    user: &mut GooseUser,
    metric: &mut GooseRequestMetric,
    answer: &Answer,
) -> TransactionResult {
    match answer {
        Answer::AlreadyIssued(_) | Answer::Exhausted => user.set_success(metric),
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

async fn read(response: Response) -> Try {
    let status = response.status().as_u16();
    let retry_after: Option<u64> =
        response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let Ok(body) = response.bytes().await else { return Try::Again(PAUSE_AFTER_BREAK) };
    let text = || String::from_utf8_lossy(&body).into_owned();
    if status == 202 {
        let receipt = serde_json::from_slice::<Receipt>(&body);
        return Try::Final(receipt.map_or_else(|_| Answer::Unexpected(format!("202 {}", text())), Answer::Accepted));
    }
    let Ok(problem) = serde_json::from_slice::<Problem>(&body) else {
        return Try::Final(Answer::Unexpected(format!("{status} {}", text())));
    };
    match (status, &*problem.code, retry_after) {
        (409, "COUPON_ALREADY_ISSUED", _) => {
            Try::Final(Answer::AlreadyIssued(problem.claim.map(|claim| claim.claim_id)))
        }
        (422, "COUPON_EXHAUSTED", _) => Try::Final(Answer::Exhausted),
        (503, "DEPENDENCY_UNAVAILABLE" | "CAMPAIGN_UNAVAILABLE" | "OVERLOADED", Some(seconds)) => {
            Try::Again(Duration::from_secs(seconds).min(LONGEST_PAUSE))
        }
        _ => Try::Final(Answer::Unexpected(format!("{status} {}", text()))),
    }
}

#[cfg(test)]
mod tests {
    use axum::{Json, Router, http::StatusCode, response::IntoResponse as _, routing::post};
    use serde_json::{Value, json};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers by the user's number.
    async fn answer(Json(claim): Json<Value>) -> axum::response::Response {
        let problem = |status: StatusCode, code: &str| (status, [("retry-after", "0")], Json(json!({"code": code})));
        let id = "01a1fd52-4571-74a3-98c8-4e67be4d0151";
        match claim["userId"].as_u64().unwrap_or(0) {
            1 => (StatusCode::ACCEPTED, Json(json!({"claimId": id, "sequence": 7, "more": true}))).into_response(),
            2 => (StatusCode::CONFLICT, Json(json!({"code": "COUPON_ALREADY_ISSUED", "claim": {"claimId": id}})))
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

    async fn record_of(router: Router, users: u64, concurrency: usize) -> crate::record::ClientRecord {
        let coupon = CouponId::try_from(1).expect("a valid id");
        let rush = Rush { coupon, list: ClaimList::new(users, users, 1), progress: ProgressBar::hidden() };
        let rush = Arc::new(rush);
        let url = serve(router).await;
        attack(Arc::clone(&rush), Attack { api_url: &url, concurrency, report: None }).await.expect("an attack");
        rush.list.with_record(std::mem::take)
    }

    #[tokio::test]
    async fn every_claim_is_made_once_and_its_answer_kept() {
        let record = record_of(Router::new().route(PATH, post(answer)), 5, 2).await;
        let counts = record.counts();
        let answered = (counts.accepted, counts.already_issued, counts.exhausted, counts.unexpected);
        assert_eq!((record.entries.len(), answered, record.latencies.count()), (5, (1, 1, 1, 2), 5));
        assert_eq!(record.accepted().map(|(_, receipt)| receipt.sequence).collect::<Vec<_>>(), [7]);
        assert!(record.holders().all(|(_, first)| first.is_some()));
    }

    #[tokio::test]
    async fn a_claim_is_made_again_when_the_answer_is_to_do_so() {
        let tried = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let unavailable_once = move || async move {
            let (status, code) = match tried.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
                0 => (StatusCode::SERVICE_UNAVAILABLE, "CAMPAIGN_UNAVAILABLE"),
                _ => (StatusCode::UNPROCESSABLE_ENTITY, "COUPON_EXHAUSTED"),
            };
            (status, [("retry-after", "0")], Json(json!({"code": code})))
        };
        let record = record_of(Router::new().route(PATH, post(unavailable_once)), 1, 1).await;
        assert_eq!((record.counts().exhausted, record.counts().doubtful_tries), (1, 1));
        assert_eq!(record.doubtful_users().len(), 1);
    }
}
