//! The barest server that could answer a claim, to compare with: no middleware, nothing looked at but the JSON.

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

use crate::{Verdict, output};

/// As long as the answer to an accepted claim.
const ANSWER: &str = concat!(
    r#"{"claimId":"019a0000-0000-7000-8000-000000000000","couponId":1000,"userId":1000000,"sequence":100000,"#,
    r#""remaining":1999900000,"status":"PENDING","acceptedAt":"2026-01-01T00:00:00.000Z"}"#
);

/// As long as one of ten products in the answer to what sold best.
const ITEM: &str =
    r#"{"rank":10,"productId":1000,"name":"Bench product 123","price":12000,"status":"SELLING","soldQuantity":2990}"#;
/// As long as the rest of that answer.
const WINDOW: &str = r#""days":3,"from":"2026-11-19","to":"2026-11-21","updatedAt":"2026-11-21T05:00:00.123Z","pageNumber":1,"pageSize":10"#;

/// Where it listens.
#[derive(Debug, Args)]
pub struct BareArguments {
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

/// Serves until it is stopped.
pub async fn run(arguments: BareArguments) -> Result<Verdict> {
    let page = Bytes::from(format!(r#"{{"items":[{}],{WINDOW}}}"#, [ITEM; 10].join(",")));
    let router = Router::new().route("/coupons/issue", post(claim)).route(
        "/products/best-sellers",
        get(async move || ([(header::CONTENT_TYPE, "application/json")], page.clone())),
    );
    let listener = TcpListener::bind(arguments.address).await.context("listening")?;
    let listener = listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            output::note(&format!("TCP_NODELAY: {error}"));
        }
    });
    output::note(&format!("a bare server listens on http://{}", arguments.address));
    axum::serve(listener, router).await.context("serving")?;
    Ok(Verdict::Right)
}

async fn claim(Json(claim): Json<Claim>) -> impl IntoResponse {
    // The fields are read, as a server that does anything with them would.
    let status = if claim.user_id > 0 && claim.coupon_id > 0 { StatusCode::ACCEPTED } else { StatusCode::BAD_REQUEST };
    (status, [(header::CONTENT_TYPE, "application/json")], ANSWER)
}
