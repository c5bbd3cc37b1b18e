//! Limits on claims, before anything else is done for them: a repeat with an idempotency key counts as well, and a request
//! that is refused writes no row.

use std::net::{IpAddr, Ipv4Addr};

use axum::{
    body::Body,
    extract::{MatchedPath, Request},
};
use dibs_common::{
    http_server::PeerAddress,
    identifiers::{CouponId, UserId},
};
use serde::Deserialize;

use super::client_address::client_address;
use crate::{
    access::Caller,
    app::App,
    claims::{Admission, RateLimiter},
    extract::{max_body_bytes, read_body},
    problem::ApiError,
};

/// The limiter, where it limits the request.
pub(super) fn limiter_of<'a>(app: &'a App, request: &Request) -> Option<&'a RateLimiter> {
    let limiter = app.rate_limiter.as_ref()?;
    let route = request.extensions().get::<MatchedPath>()?;
    is_limited(&request.method().as_str().to_lowercase(), route.as_str()).then_some(limiter)
}

/// Whether a call is counted against the limits. `method` is in lower case, as the OpenAPI document spells it.
pub fn is_limited(method: &str, route: &str) -> bool {
    method == "post" && route == "/coupons/issue"
}

/// Whose claim it is, and on what. Whether the body is right, its handler says.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Claimant {
    user_id: UserId,
    coupon_id: Option<CouponId>,
}

/// Counts a claim. One whose body names no user is let through: its handler refuses it.
pub(super) async fn count(app: &App, request: Request) -> Result<(Request, Option<Admission>), ApiError> {
    let Some(limiter) = limiter_of(app, &request) else { return Ok((request, None)) };
    let (parts, body) = request.into_parts();
    let body = read_body(body, max_body_bytes(&parts.extensions)).await?;
    // A token says whose claim it is: with another user in the body its owner would use up that user's limit, before
    // the handler refuses the claim.
    let of_token = parts.extensions.get().and_then(Caller::user);
    let claimant = serde_json::from_slice::<Claimant>(&body).ok();
    let user = of_token.or(claimant.as_ref().map(|claimant| claimant.user_id));
    let peer = parts.extensions.get::<PeerAddress>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0);
    let address = client_address(&parts.headers, peer, app.settings.trusted_proxy_hops);
    let admission = match user {
        Some(user) => Some(limiter.admit(user, address).await),
        None => None,
    };
    let coupon = claimant.and_then(|claimant| claimant.coupon_id);
    if let (Some(user), Some(coupon), Some(Admission { refusal: Some(refusal), .. })) = (user, coupon, &admission) {
        app.claims.record_refusal(&app.claim_attempts, user, coupon, refusal);
    }
    Ok((Request::from_parts(parts, Body::from(body)), admission))
}
