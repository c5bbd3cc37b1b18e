//! API keys: created once, shown once, revoked.

use askama::Template;
use axum::http::{Method, StatusCode};
use chrono::{DateTime, Utc};
use dibs_common::{domain::access::Scope, identifiers::ApiKeyId};
use serde::Deserialize;
use serde_json::json;
use strum::VariantArray as _;

use super::{
    calls::{Change, Problem},
    campaign_form::local_time,
    campaigns::Listed,
    forms::{Fields, QueryFields},
    guard::{At, Visit},
    page::{Failure, PageResult, Shell, render_with, see},
};

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeyItem {
    api_key_id: u64,
    name: String,
    scopes: Vec<String>,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
    last_used_at: Option<DateTime<Utc>>,
}

impl KeyItem {
    fn state(&self, now: &DateTime<Utc>) -> &'static str {
        match (self.revoked_at, self.expires_at) {
            (Some(_), _) => "revoked",
            (None, Some(expires)) if expires <= *now => "expired",
            _ => "usable",
        }
    }
}

/// A key that was just created.
struct NewKey {
    name: String,
    secret: String,
}

#[derive(Template)]
#[template(path = "keys.html")]
struct KeysPage<'p> {
    s: &'p Shell,
    listed: &'p Listed<KeyItem>,
    next: Option<String>,
    created: Option<NewKey>,
    f: &'p Fields,
    scopes: Vec<&'static str>,
}

impl KeysPage<'_> {
    fn wrong(&self, field: &str) -> Option<&str> {
        self.s.problem.as_ref().and_then(|problem| problem.of_field(field))
    }

    fn is_checked(&self, scope: &str) -> &'static str {
        if self.f.all("scopes").any(|given| given == scope) { " checked" } else { "" }
    }
}

pub async fn list(visit: Visit, QueryFields(query): QueryFields) -> PageResult {
    page(&visit, &query, None, None).await
}

async fn page(visit: &Visit, fields: &Fields, problem: Option<Problem>, created: Option<NewKey>) -> PageResult {
    let status = problem.as_ref().map_or(StatusCode::OK, Problem::status);
    let shell = visit.shell("keys").with_notice(fields.text("done")).with_problem(problem);
    let fail = |problem| Failure(shell.clone(), problem);
    let path = format!("/admin/keys?limit=30&{}", fields.query(&["cursor"]));
    let listed: Listed<KeyItem> = visit.calls().map_err(fail)?.get(path.trim_end_matches('&')).await.map_err(fail)?;
    let scopes = Scope::VARIANTS.iter().map(Scope::into_str).collect();
    Ok(render_with(status, &KeysPage { s: &shell, next: listed.next(""), listed: &listed, created, f: fields, scopes }))
}

/// Answers with the page itself and not with a redirect: the secret is nowhere but in this response.
pub async fn create(visit: Visit, fields: Fields) -> PageResult {
    let scopes: Vec<&str> = fields.all("scopes").collect();
    let mut body = json!({ "name": fields.text("name"), "scopes": scopes });
    if let Some(given) = fields.given("expiresAt") {
        let expires = local_time(given, visit.words.zone);
        body["expiresAt"] = json!(expires.map_or_else(|| given.to_owned(), dibs_common::clock::text));
    }
    let change = Change {
        method: Method::POST,
        path: format!("/admin/keys{}", fields.reason_query()),
        body: Some(body),
        operation: fields.operation(),
        if_match: None,
    };
    let created = match visit.calls() {
        Ok(calls) => calls.change(change).await,
        Err(problem) => Err(problem),
    };
    match created {
        Ok(key) => {
            let text = |field: &str| key[field].as_str().unwrap_or_default().to_owned();
            let created = NewKey { name: text("name"), secret: text("secret") };
            page(&visit, &Fields::default(), None, Some(created)).await
        }
        Err(problem) => page(&visit, &fields, Some(problem), None).await,
    }
}

pub async fn revoke(visit: Visit, At(id): At<ApiKeyId>, fields: Fields) -> PageResult {
    let path = format!("/admin/keys/{id}{}", fields.reason_query());
    let change = Change { method: Method::DELETE, path, body: None, operation: fields.operation(), if_match: None };
    let revoked = match visit.calls() {
        Ok(calls) => calls.change(change).await,
        Err(problem) => Err(problem),
    };
    match revoked {
        Ok(_) => Ok(see("/console/keys?done=revoked")),
        Err(problem) => page(&visit, &Fields::default(), Some(problem), None).await,
    }
}
