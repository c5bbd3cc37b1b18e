//! One user's story, for a support call.

use askama::Template;
use axum::response::Response;
use chrono::{DateTime, Utc};
use dibs_common::{
    clock, db,
    domain::claim::ClaimRecord,
    error::{Error, Result},
    identifiers::{CouponId, UserId},
    redis::campaign_state,
};
use serde::Deserialize;

use super::{
    campaigns::Listed,
    forms::QueryFields,
    guard::{At, Visit},
    page::{Failure, PageResult, Shell, render, see},
};

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    at: DateTime<Utc>,
    kind: String,
    id: String,
    coupon_id: Option<u64>,
    coupon_name: Option<String>,
    order_id: Option<String>,
    sequence: Option<u64>,
    code: Option<String>,
    amount: Option<i64>,
    balance: Option<i64>,
    attempts: Option<u64>,
    first_at: Option<DateTime<Utc>>,
    actor: Option<String>,
    reason: Option<String>,
}

impl Entry {
    /// How it went: for a mark beside it.
    fn tone(&self) -> &'static str {
        match self.kind.as_str() {
            "CLAIM_REFUSED" | "CLAIM_REJECTED" | "ORDER_REJECTED" | "PAYMENT_FAILED" => "bad",
            "COUPON_ISSUED" | "PAYMENT_DONE" | "ORDER_PAID" | "ORDER_CONFIRMED" => "good",
            "COUPON_EXPIRED" | "COUPON_REVOKED" | "ORDER_CANCELLED" | "ORDER_EXPIRED" | "PAYMENT_CANCELLED" => "warn",
            _ => "plain",
        }
    }
}

/// The outcome of one campaign for the user, in one sentence.
struct Answer {
    coupon: u64,
    name: String,
    /// Of the text that says it: below `answer.`.
    key: &'static str,
    code: Option<String>,
    sequence: Option<u64>,
    at: DateTime<Utc>,
    attempts: Option<u64>,
}

#[derive(Template)]
#[template(path = "users.html")]
struct FindPage<'p> {
    s: &'p Shell,
    wrong: bool,
}

#[derive(Template)]
#[template(path = "user.html")]
struct UserPage<'p> {
    s: &'p Shell,
    user: UserId,
    coupon: Option<CouponId>,
    balance: i64,
    answers: &'p [Answer],
    entries: &'p Listed<Entry>,
    next: Option<String>,
}

pub async fn find(visit: Visit, QueryFields(query): QueryFields) -> Response {
    let shell = visit.shell("users");
    let Some(given) = query.given("user") else { return render(&FindPage { s: &shell, wrong: false }) };
    match given.parse::<u64>().ok().and_then(|user| UserId::try_from(user).ok()) {
        Some(user) => {
            let filter = query.query(&["couponId"]);
            see(&format!("/console/users/{user}{}{filter}", if filter.is_empty() { "" } else { "?" }))
        }
        None => render(&FindPage { s: &shell, wrong: true }),
    }
}

pub async fn show(visit: Visit, At(user): At<UserId>, QueryFields(query): QueryFields) -> PageResult {
    let shell = visit.shell("users");
    let fail = |problem| Failure(shell.clone(), problem);
    let calls = visit.calls().map_err(fail)?;
    let filter = query.query(&["couponId"]);
    let wanted = query.query(&["couponId", "cursor"]);
    let path = format!("/admin/users/{user}/timeline?limit=50{}{wanted}", if wanted.is_empty() { "" } else { "&" });
    let entries: Listed<Entry> = calls.get(&path).await.map_err(fail)?;
    let coupon = query.given("couponId").and_then(|id| id.parse::<u64>().ok()?.try_into().ok());
    let balance = db::within(db::points::find_balance(&visit.console.app.database.pool(), user)).await;
    let balance = balance.map_err(|error| fail(error.into()))?;
    let mut answers = answers(&entries.items);
    if let Some(coupon) = coupon.filter(|_| answers.is_empty()) {
        answers.extend(on_the_way(&visit, user, coupon).await.ok().flatten());
    }
    let next = entries.next(&filter);
    Ok(render(&UserPage { s: &shell, user, coupon, balance, answers: &answers, entries: &entries, next }))
}

/// For each campaign what was decided last, the newest campaign first: a coupon outweighs a refusal that came after it.
fn answers(entries: &[Entry]) -> Vec<Answer> {
    let mut answers: Vec<Answer> = Vec::new();
    for entry in entries {
        let Some(coupon) = entry.coupon_id else { continue };
        let key = match entry.kind.as_str() {
            "CLAIM_REFUSED" => "refused",
            "CLAIM_REJECTED" => "rejected",
            "CLAIM_ACCEPTED" => "accepted",
            "COUPON_ISSUED" => "issued",
            "COUPON_REVOKED" => "revoked",
            _ => continue,
        };
        let answer = Answer {
            coupon,
            name: entry.coupon_name.clone().unwrap_or_else(|| format!("#{coupon}")),
            key,
            code: entry.code.clone(),
            sequence: entry.sequence,
            at: entry.at,
            attempts: entry.attempts,
        };
        match answers.iter_mut().find(|known| known.coupon == coupon) {
            None => answers.push(answer),
            Some(known) if known.key == "refused" && key != "refused" => *known = answer,
            // The same claim, as it was accepted: its sequence is wanted.
            Some(known) => known.sequence = known.sequence.or(answer.sequence),
        }
    }
    answers
}

/// A claim that Redis has accepted and no worker has confirmed has no entry yet.
async fn on_the_way(visit: &Visit, user: UserId, coupon: CouponId) -> Result<Option<Answer>> {
    let app = &visit.console.app;
    let missing = Error::CouponNotFound(coupon);
    let campaign = db::found(db::campaigns::find(&app.database.pool(), coupon), missing).await?;
    let held = campaign_state::latest_claim(&app.redis, campaign.partition, coupon, user).await?;
    let answer = |ClaimRecord { sequence, accepted_at, .. }| Answer {
        coupon: coupon.get(),
        name: campaign.terms.name.clone(),
        key: "accepted",
        code: None,
        sequence: Some(sequence.into()),
        at: accepted_at.min(clock::now()),
        attempts: None,
    };
    Ok(held.map(answer))
}
