//! The HTTP baseline: an axum server without middleware that parses a claim, stores nothing, and sends responses as
//! long as those of Dibs.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use axum::{
    Json, Router,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::{get, post},
    serve::ListenerExt as _,
};
use bytes::Bytes;
use clap::Args;
use serde::Deserialize;
use tokio::net::TcpListener;

use crate::{RunStatus, output};

/// As long as Dibs's response to an accepted claim.
const RECEIPT: &str = concat!(
    r#"{"claimId":"019a0000-0000-7000-8000-000000000000","couponId":1000,"userId":1000000,"sequence":100000,"#,
    r#""remaining":1999900000,"status":"PENDING","acceptedAt":"2026-01-01T00:00:00.000Z"}"#
);

/// As long as one of the ten items on Dibs's page of best sellers.
const ITEM: &str =
    r#"{"rank":10,"productId":1000,"name":"Bench product 123","price":12000,"status":"SELLING","soldQuantity":2990}"#;
/// As long as the other fields of that page.
const WINDOW: &str = r#""days":3,"from":"2026-11-19","to":"2026-11-21","updatedAt":"2026-11-21T05:00:00.123Z","pageNumber":1,"pageSize":10"#;

#[derive(Debug, Args)]
pub struct BaselineArguments {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:8079")]
    pub address: SocketAddr,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Claim {
    user_id: u64,
    coupon_id: u64,
}

/// Serves until the process is stopped.
pub async fn run(arguments: BaselineArguments) -> Result<RunStatus> {
    let listener = TcpListener::bind(arguments.address).await;
    let listener = listener.with_context(|| format!("listening on {}", arguments.address))?;
    // Like dibs-api: with Nagle's algorithm the baseline would be slower than what it is compared with.
    let listener = listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            output::note(&format!("TCP_NODELAY: {error}"));
        }
    });
    output::note(&format!("the baseline server listens on http://{}", arguments.address));
    axum::serve(listener, router()).await.context("serving")?;
    Ok(RunStatus::Passed)
}

fn router() -> Router {
    // Built once: the baseline must not spend time on formatting.
    let page = Bytes::from(format!(r#"{{"items":[{}],{WINDOW}}}"#, [ITEM; 10].join(",")));
    Router::new().route("/coupons/issue", post(claim)).route(
        "/products/best-sellers",
        get(async move || ([(header::CONTENT_TYPE, "application/json")], page.clone())),
    )
}

async fn claim(Json(claim): Json<Claim>) -> impl IntoResponse {
    // The fields are read, so that the compiler cannot drop the parsing.
    let status = if claim.user_id > 0 && claim.coupon_id > 0 { StatusCode::ACCEPTED } else { StatusCode::BAD_REQUEST };
    (status, [(header::CONTENT_TYPE, "application/json")], RECEIPT)
}

#[cfg(test)]
mod tests {
    use reqwest::Client;
    use serde_json::Value;

    use super::*;

    async fn serve() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, router()).await });
        url
    }

    async fn claim_with(body: &'static str) -> u16 {
        let request = Client::new().post(format!("{}/coupons/issue", serve().await));
        let response = request.header("content-type", "application/json").body(body).send().await;
        response.expect("a response").status().as_u16()
    }

    #[tokio::test]
    async fn a_claim_is_parsed_and_accepted() {
        assert_eq!(claim_with(r#"{"userId": 1, "couponId": 2}"#).await, 202);
        assert_eq!(claim_with(r#"{"userId": 0, "couponId": 2}"#).await, 400);
        assert_eq!(claim_with(r#"{"userId": 1, "couponId": 2, "more": 3}"#).await, 422);
        assert_eq!(claim_with(r#"{"userId": 1"#).await, 400);
    }

    #[tokio::test]
    async fn the_page_of_best_sellers_is_json_with_ten_items() {
        let page = reqwest::get(format!("{}/products/best-sellers", serve().await)).await.expect("a response");
        assert_eq!(page.headers()["content-type"], "application/json");
        let page: Value = page.json().await.expect("JSON");
        assert_eq!((page["items"].as_array().map(Vec::len), &page["days"]), (Some(10), &3.into()));
    }

    #[test]
    fn the_receipt_is_json_with_the_fields_of_a_claim() {
        let receipt: Value = serde_json::from_str(RECEIPT).expect("JSON");
        assert_eq!((&receipt["status"], receipt.as_object().map(serde_json::Map::len)), (&"PENDING".into(), Some(7)));
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_an_error_that_names_it() {
        let taken = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = taken.local_addr().expect("an address");
        let error = run(BaselineArguments { address }).await.expect_err("taken").to_string();
        assert_eq!(error, format!("listening on {address}"));
    }
}
