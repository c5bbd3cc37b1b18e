//! Shopping as a goose scenario: every goose user is one user of the shop.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use dibs_common::identifiers::UserId;
use goose::{client::GooseClientBuilder, config::GooseConfiguration, prelude::*};

use super::{shopper::Shopper, state::ShopState, visit::Visit};
use crate::rng::Rng;

/// Longer than any answer may take: a call waits up to 3 s for its outcome.
const REQUEST_LIMIT: Duration = Duration::from_secs(15);

/// How goose brings the users.
pub struct ClientPool<'a> {
    /// The API.
    pub api_url: &'a str,
    /// How many users.
    pub users: usize,
    /// Where goose's report goes.
    pub report: Option<&'a Path>,
}

/// Lets all users shop until the market closes.
pub async fn shop(market: Arc<ShopState>, crowd: ClientPool<'_>) -> Result<()> {
    let visit: TransactionFunction = Arc::new(move |goose| {
        let market = Arc::clone(&market);
        Box::pin(async move { visit(market, goose).await })
    });
    let client = GooseClientBuilder::new().without_cookies().timeout(REQUEST_LIMIT);
    let scenario = Scenario::new("shop").register_transaction(Transaction::new(visit).set_name("visit"));
    let goose = GooseAttack::initialize_with_config(configuration(&crowd)).context("setting goose up")?;
    let goose = goose.set_client_builder_without_cookies(client).context("setting goose up")?;
    Box::pin(goose.register_scenario(scenario).execute()).await.context("goose")?;
    Ok(())
}

async fn visit(market: Arc<ShopState>, goose: &mut GooseUser) -> TransactionResult {
    let number = goose.weighted_users_index as u64 + 1;
    let Ok(user) = UserId::try_from(number) else { return Ok(()) };
    let dice = Rng::of(market.seed, number);
    Shopper::new(Visit { market, user, dice, goose }).shop().await
}

/// All users at once, each for one visit, and nothing that goose would print or listen on.
fn configuration(crowd: &ClientPool<'_>) -> GooseConfiguration {
    let mut configuration = GooseConfiguration::default();
    configuration.host = Some(crowd.api_url.to_owned());
    configuration.users = Some(crowd.users);
    // Goose's default is to start one user a second.
    configuration.increase_rate = Some((crowd.users * 100).to_string());
    configuration.iterations = Some(1);
    configuration.quiet = 1;
    configuration.no_telnet = true;
    configuration.no_gzip = true;
    configuration.no_print_metrics = true;
    configuration.no_metrics = crowd.report.is_none();
    configuration.report_file = crowd.report.iter().map(|path| path.display().to_string()).collect();
    configuration
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
    use crate::record::{Call, Told};

    const ID: &str = "01a1fd52-4571-74a3-98c8-4e67be4d0151";

    /// Takes every order and pays it, and breaks at every charge.
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

    #[tokio::test]
    async fn users_follow_up_what_was_taken_and_note_what_should_not_be() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let api_url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        let products = (1..=3).map(|id| id.try_into().expect("an id")).collect();
        let (campaigns, end) = (vec![1.try_into().expect("an id")], Instant::now() + Duration::from_secs(2));
        let market = Arc::new(ShopState::new(products, campaigns, end, 1));
        shop(Arc::clone(&market), ClientPool { api_url: &api_url, users: 4, report: None })
            .await
            .expect("a day in the shop");
        let record = market.with_record(std::mem::take);
        let count = |call| record.calls.get(&call).map_or(0, |calls| calls.latencies.count());
        let told = |told| record.promises.iter().filter(|promise| promise.told == told).count() as u64;
        assert!(count(Call::Place) > 0 && count(Call::Charge) > 0, "{:?}", record.calls.keys());
        assert!((1..=count(Call::Place)).contains(&told(Told::PlaceTaken)));
        // One look each was enough, and told that the order is paid.
        assert_eq!(count(Call::FollowUp), told(Told::PlaceTaken));
        assert!(told(Told::Paid) >= told(Told::PlaceTaken));
        assert_eq!(record.strange.count(), count(Call::Charge), "{:?}", record.strange.samples());
        assert_eq!(record.repeats.unequal.count(), 0, "{:?}", record.repeats.unequal.samples());
        assert_eq!(record.claims.values().map(|claims| claims.entries.len() as u64).sum::<u64>(), count(Call::Claim));
    }
}
