//! The buttons of a campaign.

use askama::Template;
use axum::{http::Method, response::Response};
use dibs_common::identifiers::{CouponId, RebuildId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    calls::{Change, Problem},
    campaign::{DryRun, Extra, page},
    forms::Fields,
    guard::{At, Visit},
    page::{PageResult, problem_part, render, see},
    words::Words,
};

pub async fn pause(visit: Visit, At(id): At<CouponId>, fields: Fields) -> PageResult {
    set_state(&visit, id, &fields, ("pause", "paused")).await
}

pub async fn resume(visit: Visit, At(id): At<CouponId>, fields: Fields) -> PageResult {
    set_state(&visit, id, &fields, ("resume", "resumed")).await
}

pub async fn close(visit: Visit, At(id): At<CouponId>, fields: Fields) -> PageResult {
    set_state(&visit, id, &fields, ("close", "closed")).await
}

async fn set_state(visit: &Visit, id: CouponId, fields: &Fields, (call, done): (&str, &str)) -> PageResult {
    let path = format!("/admin/coupons/{id}/{call}{}", fields.reason_query());
    match make(visit, post(path, None, fields)).await {
        Ok(_) => Ok(see(&format!("/console/campaigns/{id}?done={done}"))),
        Err(problem) => page(visit, id, "", Extra { problem: Some(problem), ..Extra::default() }).await,
    }
}

fn post(path: String, body: Option<Value>, fields: &Fields) -> Change<'_> {
    Change { method: Method::POST, path, body, operation: fields.operation(), if_match: None }
}

async fn make(visit: &Visit, change: Change<'_>) -> Result<Value, Problem> {
    visit.calls()?.change(change).await
}

/// First a dry run, which shows what would change; the second form, with the revision that it was for, makes the change.
pub async fn quantity(visit: Visit, At(id): At<CouponId>, fields: Fields) -> PageResult {
    let given = fields.text("quantity");
    let Ok(quantity) = given.replace([',', '_', ' '], "").parse::<u64>() else {
        let problem = dibs_common::Error::field("totalQuantity", "expected a whole number, such as 10000").into();
        return page(&visit, id, "", Extra { problem: Some(problem), ..Extra::default() }).await;
    };
    let revision = fields.given("revision").and_then(|revision| revision.parse::<u32>().ok());
    let reason = fields.query(&["reason"]);
    let dry_run = if revision.is_some() { "" } else { "&dryRun=true" };
    let change = Change {
        method: Method::PATCH,
        path: format!("/admin/coupons/{id}?{}", format!("{reason}{dry_run}").trim_start_matches('&')),
        body: Some(json!({ "totalQuantity": quantity })),
        operation: revision.and(fields.operation()),
        if_match: Some(revision.map_or_else(|| "*".into(), |revision| format!("\"{revision}\""))),
    };
    match make(&visit, change).await {
        Ok(_) if revision.is_some() => Ok(see(&format!("/console/campaigns/{id}?done=changed"))),
        Ok(changed) => {
            let Some(before) = changed["changes"]["before"]["totalQuantity"].as_u64() else {
                return Ok(see(&format!("/console/campaigns/{id}?done=unchanged")));
            };
            let revision = changed["revision"].as_u64().and_then(|revision| u32::try_from(revision).ok());
            let dry_run = DryRun {
                quantity: quantity.to_string(),
                before,
                after: quantity,
                remaining_after: changed["remaining"].as_u64().unwrap_or_default(),
                // The call shows the revision after the change.
                revision: revision.unwrap_or_default().saturating_sub(1),
                reason: fields.text("reason").to_owned(),
            };
            page(&visit, id, "", Extra { dry_run: Some(dry_run), ..Extra::default() }).await
        }
        Err(problem) => page(&visit, id, "", Extra { problem: Some(problem), ..Extra::default() }).await,
    }
}

pub async fn rebuild(visit: Visit, At(id): At<CouponId>, fields: Fields) -> PageResult {
    let path = format!("/admin/coupons/{id}/rebuild{}", fields.reason_query());
    match make(&visit, post(path, None, &fields)).await {
        Ok(rebuild) => {
            let rebuild = rebuild["rebuildId"].as_str().unwrap_or_default();
            Ok(see(&format!("/console/campaigns/{id}?done=rebuilding&rebuild={rebuild}")))
        }
        Err(problem) => page(&visit, id, "", Extra { problem: Some(problem), ..Extra::default() }).await,
    }
}

#[derive(Clone, Debug, Deserialize)]
struct Rebuild {
    status: String,
    #[serde(flatten)]
    _rest: serde_json::Map<String, Value>,
}

#[derive(Template)]
#[template(path = "rebuild.html")]
struct RebuildPart<'p> {
    s: &'p Words,
    id: CouponId,
    rebuild: RebuildId,
    status: &'p str,
}

pub async fn rebuild_state(visit: Visit, At((id, rebuild)): At<(CouponId, RebuildId)>) -> Response {
    let path = format!("/admin/coupons/{id}/rebuilds/{rebuild}");
    let read = match visit.calls() {
        Ok(calls) => calls.get::<Rebuild>(&path).await,
        Err(problem) => Err(problem),
    };
    match read {
        Ok(Rebuild { status, .. }) => render(&RebuildPart { s: &visit.words, id, rebuild, status: &status }),
        Err(problem) => problem_part(&visit.words, &problem),
    }
}
