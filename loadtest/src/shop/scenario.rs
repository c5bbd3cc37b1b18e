//! The shop as a goose scenario: every goose user is one user of the shop.

use std::{sync::Arc, time::Duration};

use dibs_common::identifiers::UserId;
use goose::prelude::*;

use super::{random, session::Session, shopper::Shopper, state::ShopState};

/// Longer than any response may take: an order waits up to 3 s for its outcome.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// The transaction of each goose user: shops until the end of the load.
pub fn transaction(shop: Arc<ShopState>) -> TransactionFunction {
    Arc::new(move |goose| {
        let shop = Arc::clone(&shop);
        Box::pin(async move { run_user(shop, goose).await })
    })
}

async fn run_user(shop: Arc<ShopState>, goose: &mut GooseUser) -> TransactionResult {
    let number = goose.weighted_users_index as u64 + 1;
    let Ok(user) = UserId::try_from(number) else { return Ok(()) };
    let rng = random::of_user(shop.seed, user);
    Shopper::new(Session { shop, user, rng, goose, uncertain_attempts: 0 }).run().await
}

#[cfg(test)]
mod tests {
    use axum::{
        Json, Router,
        http::{Method, StatusCode, Uri},
        response::{IntoResponse as _, Response},
    };
    use serde_json::json;
    use tokio::{net::TcpListener, time::Instant};

    use super::*;
    use crate::{
        goose_run::GooseRun,
        record::{ClaimResponse, ExpectedState, Operation, ShopRecord},
    };

    const ID: &str = "01a1fd52-4571-74a3-98c8-4e67be4d0151";

    /// Accepts and pays every order, and fails at every charge.
    async fn answer(method: Method, uri: Uri) -> Response {
        let body = |status: &str| Json(json!({"orderId": ID, "claimId": ID, "sequence": 1, "status": status}));
        match (method, uri.path()) {
            (Method::POST, "/orders") => {
                (StatusCode::ACCEPTED, [("location", format!("/orders/{ID}"))], body("PENDING")).into_response()
            }
            (Method::POST, "/coupons/issue") => (StatusCode::ACCEPTED, body("PENDING")).into_response(),
            (Method::POST, "/points") => (StatusCode::INTERNAL_SERVER_ERROR, "Deadlock found").into_response(),
            (Method::POST, path) if path.ends_with("/cancel") => body("CANCELLED").into_response(),
            _ => body("PAY_DONE").into_response(),
        }
    }

    /// Runs four users against an API for a while.
    async fn record_of(router: Router, milliseconds: u64) -> ShopRecord {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let api_url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let products = (1..=3).map(|id| id.try_into().expect("an id")).collect();
        let end = Instant::now() + Duration::from_millis(milliseconds);
        let shop = Arc::new(ShopState::new(products, vec![1.try_into().expect("an id")], end, 1));
        let run = GooseRun { api_url: &api_url, users: 4, request_timeout: REQUEST_TIMEOUT, report: None };
        run.execute("shop", transaction(Arc::clone(&shop))).await.expect("a run");
        shop.with_record(std::mem::take)
    }

    fn count(record: &ShopRecord, operation: Operation) -> u64 {
        record.operations.get(&operation).map_or(0, |stats| stats.latencies.count())
    }

    #[tokio::test]
    async fn users_poll_every_202_and_record_anomalies() {
        let record = record_of(Router::new().fallback(answer), 2_000).await;
        let expected =
            |state| record.expectations.iter().filter(|expectation| expectation.state == state).count() as u64;
        let (placed, charged) = (count(&record, Operation::Place), count(&record, Operation::Charge));
        assert!(placed > 0 && charged > 0, "{:?}", record.operations.keys());
        assert!((1..=placed).contains(&expected(ExpectedState::PlaceAccepted)));
        // One poll of each was enough: its response said that the order is paid.
        assert_eq!(count(&record, Operation::PollOutcome), expected(ExpectedState::PlaceAccepted));
        assert!(expected(ExpectedState::Paid) >= expected(ExpectedState::PlaceAccepted));
        assert_eq!(record.anomalies.count(), charged, "{:?}", record.anomalies.samples());
        assert_eq!(record.duplicates.mismatches.count(), 0, "{:?}", record.duplicates.mismatches.samples());
        let claims = record.claims.values().map(|claims| claims.observations.len() as u64).sum::<u64>();
        assert_eq!(claims, count(&record, Operation::Claim));
    }

    #[tokio::test]
    async fn an_unavailable_api_is_no_anomaly_and_leaves_claims_uncertain() {
        let unavailable = async || (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"code": "OVERLOADED"})));
        let record = record_of(Router::new().fallback(unavailable), 1_000).await;
        assert_eq!((record.anomalies.count(), record.expectations.len()), (0, 0), "{:?}", record.anomalies.samples());
        assert_eq!(record.duplicates.mismatches.count(), 0);
        let claims = record.claims.values().flat_map(|claims| &claims.observations);
        for claim in claims {
            assert_eq!((&claim.response, claim.uncertain_attempts), (&ClaimResponse::Unanswered, 1));
        }
        assert!(count(&record, Operation::Claim) > 0);
    }

    #[tokio::test]
    async fn i12_an_api_that_executes_a_key_twice_is_noticed() {
        /// Each order is a new one, whatever its key.
        async fn place_again(method: Method, uri: Uri) -> Response {
            let id = dibs_common::identifiers::new_uuid();
            match (method, uri.path()) {
                (Method::POST, "/orders") => {
                    (StatusCode::CREATED, Json(json!({"orderId": id, "status": "DEPOSIT_WAIT"}))).into_response()
                }
                (Method::POST, _) => (StatusCode::CONFLICT, Json(json!({"code": "OTHER"}))).into_response(),
                _ => Json(json!({})).into_response(),
            }
        }
        let record = record_of(Router::new().fallback(place_again), 1_000).await;
        let mismatches = &record.duplicates.mismatches;
        assert!(mismatches.count() > 0);
        assert!(mismatches.samples().iter().all(|sample| sample.starts_with("POST /orders: 201 ")), "{mismatches:?}");
        let placed = record.expectations.iter().filter(|expectation| expectation.state == ExpectedState::Placed);
        assert!(placed.count() > 0);
    }
}
