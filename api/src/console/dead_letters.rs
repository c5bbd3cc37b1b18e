//! Dead letters: groups of those that are alike, the list, one of them, and what can be done with one or all.

use std::time::Duration;

use askama::Template;
use axum::{http::Method, response::Response};
use chrono::{DateTime, Utc};
use dibs_common::{
    clock,
    db::{self, console::LetterGroup},
    dead_letters as letters,
    domain::admin_action::{ActionContext, MAX_REASON_LENGTH},
    error::Error,
    identifiers::{DeadLetterId, new_uuid},
};
use serde::Deserialize;

use super::{
    calls::{Change, Problem},
    campaigns::Listed,
    forms::{Fields, QueryFields},
    guard::{At, Visit},
    page::{Failure, PageResult, Shell, encoded, problem_part, render, see},
    words::Words,
};

/// Grouping reads up to ten thousand rows.
const GROUP_TIMEOUT: Duration = Duration::from_secs(3);
/// How often the progress is looked at, a second apart, although nothing changes.
const LOOKS: u32 = 5;
/// The payload that a page shows, in characters.
const SHOWN_PAYLOAD: usize = 20_000;

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Letter {
    dead_letter_id: u64,
    source: String,
    source_key: String,
    #[serde(rename = "type")]
    kind: String,
    aggregate_id: Option<String>,
    payload: String,
    payload_bytes: u32,
    redrivable: bool,
    reason: String,
    attempts: u32,
    status: String,
    dead_lettered_at: DateTime<Utc>,
    redrive_at: Option<DateTime<Utc>>,
    sent_at: Option<DateTime<Utc>>,
    dropped_at: Option<DateTime<Utc>>,
}

const STATUSES: [&str; 4] = ["DEAD", "REDRIVE", "SENT", "DROPPED"];

#[derive(Template)]
#[template(path = "dead_letters.html")]
struct ListPage<'p> {
    s: &'p Shell,
    groups: &'p [LetterGroup],
    sources: Vec<(String, i64)>,
    listed: &'p Listed<Letter>,
    next: Option<String>,
    source: &'p str,
    status: &'p str,
    statuses: [&'static str; 4],
    /// The source whose letters are being redriven or dropped.
    watched: Option<&'p str>,
}

pub async fn list(visit: Visit, QueryFields(query): QueryFields) -> PageResult {
    list_page(&visit, &query, None).await
}

async fn list_page(visit: &Visit, query: &Fields, problem: Option<Problem>) -> PageResult {
    let shell = visit.shell("dead-letters").with_notice(query.text("done")).with_problem(problem);
    let fail = |problem| Failure(shell.clone(), problem);
    let pool = &visit.console.app.database.pool();
    let groups = db::within_limit(GROUP_TIMEOUT, db::console::group_letters(pool)).await;
    let groups = groups.map_err(|error| fail(error.into()))?;
    let mut sources: Vec<(String, i64)> = Vec::new();
    for group in &groups {
        match sources.iter_mut().find(|(source, _)| *source == group.source) {
            Some((_, count)) => *count += group.letters,
            None => sources.push((group.source.clone(), group.letters)),
        }
    }
    // A page of payloads may be long: a list needs few.
    let path = format!("/admin/dead-letters?limit=20&{}", query.query(&["source", "status", "cursor"]));
    let listed: Listed<Letter> = visit.calls().map_err(fail)?.get(path.trim_end_matches('&')).await.map_err(fail)?;
    Ok(render(&ListPage {
        s: &shell,
        groups: &groups,
        sources,
        next: listed.next(&query.query(&["source", "status"])),
        listed: &listed,
        source: query.text("source"),
        status: query.text("status"),
        statuses: STATUSES,
        watched: query.given("watch"),
    }))
}

#[derive(Template)]
#[template(path = "dead_letter.html")]
struct LetterPage<'p> {
    s: &'p Shell,
    letter: &'p Letter,
    payload: String,
    is_cut: bool,
}

pub async fn show(visit: Visit, At(id): At<DeadLetterId>, QueryFields(query): QueryFields) -> PageResult {
    letter_page(&visit, id, query.text("done"), None).await
}

async fn letter_page(visit: &Visit, id: DeadLetterId, done: &str, problem: Option<Problem>) -> PageResult {
    let shell = visit.shell("dead-letters").with_notice(done).with_problem(problem);
    let fail = |problem: Problem| Failure(shell.clone(), problem);
    // The list goes downwards from the cursor, so the letter is its first.
    let path = format!("/admin/dead-letters?limit=1&cursor={}", id.get().saturating_add(1));
    let listed: Listed<Letter> = visit.calls().map_err(fail)?.get(&path).await.map_err(fail)?;
    let letter = listed.items.into_iter().find(|letter| letter.dead_letter_id == id.get());
    let letter = letter.ok_or_else(|| fail(Error::DeadLetterNotFound(id).into()))?;
    let payload = readable(&letter.payload);
    let is_cut = payload.chars().count() > SHOWN_PAYLOAD;
    let payload = payload.chars().take(SHOWN_PAYLOAD).collect();
    Ok(render(&LetterPage { s: &shell, letter: &letter, payload, is_cut }))
}

/// JSON on several lines; what is none stays.
fn readable(payload: &str) -> String {
    let value = serde_json::from_str::<serde_json::Value>(payload).ok();
    value.and_then(|value| serde_json::to_string_pretty(&value).ok()).unwrap_or_else(|| payload.to_owned())
}

pub async fn redrive(visit: Visit, At(id): At<DeadLetterId>, fields: Fields) -> PageResult {
    let path = format!("/admin/dead-letters/{id}/redrive{}", fields.reason_query());
    let change = Change { method: Method::POST, path, body: None, operation: fields.operation(), if_match: None };
    change_letter(&visit, id, change, "redriven").await
}

pub async fn drop_one(visit: Visit, At(id): At<DeadLetterId>, fields: Fields) -> PageResult {
    let path = format!("/admin/dead-letters/{id}{}", fields.reason_query());
    let change = Change { method: Method::DELETE, path, body: None, operation: fields.operation(), if_match: None };
    change_letter(&visit, id, change, "dropped").await
}

async fn change_letter(visit: &Visit, id: DeadLetterId, change: Change<'_>, done: &str) -> PageResult {
    let changed = match visit.calls() {
        Ok(calls) => calls.change(change).await,
        Err(problem) => Err(problem),
    };
    match changed {
        Ok(_) => Ok(see(&format!("/console/dead-letters/{id}?done={done}"))),
        Err(problem) => letter_page(visit, id, "", Some(problem)).await,
    }
}

pub async fn redrive_all(visit: Visit, fields: Fields) -> PageResult {
    let Some((source, context)) = of_source(&visit, &fields) else { return no_source(&visit, &fields).await };
    let database = visit.console.app.database.clone();
    let name = source.clone();
    in_background(&visit, async move { letters::redrive_source(&database, &name, &context).await });
    Ok(watch(&source, "redriving"))
}

pub async fn drop_all(visit: Visit, fields: Fields) -> PageResult {
    let Some((source, context)) = of_source(&visit, &fields) else { return no_source(&visit, &fields).await };
    let (database, redis) = (visit.console.app.database.clone(), visit.console.app.redis.clone());
    let name = source.clone();
    in_background(&visit, async move { letters::drop_source(&database, &redis, &name, &context).await });
    Ok(watch(&source, "dropped"))
}

/// The source that a form names, and who acts.
fn of_source(visit: &Visit, fields: &Fields) -> Option<(String, ActionContext)> {
    let source = fields.given("source").filter(|source| source.chars().count() <= 100)?;
    let reason = fields.given("reason").map(|reason| reason.chars().take(MAX_REASON_LENGTH).collect());
    let request_id = new_uuid().to_string();
    let actor = visit.actor().to_owned();
    let context = ActionContext { actor, request_id, reason, operation: new_uuid(), at: clock::now() };
    Some((source.to_owned(), context))
}

async fn no_source(visit: &Visit, fields: &Fields) -> PageResult {
    let problem = Error::field("source", "expected the source of dead letters").into();
    list_page(visit, fields, Some(problem)).await
}

/// Thousands take a while. The page shows the progress; the process waits for it before it ends.
fn in_background(visit: &Visit, work: impl Future<Output = dibs_common::Result<u64>> + Send + 'static) {
    visit.console.app.tasks.spawn(async move {
        match work.await {
            Ok(count) => tracing::info!(count, "dead letters of a source changed"),
            Err(error) => tracing::warn!(cause = error.chain(), "dead letters of a source not all changed"),
        }
    });
}

fn watch(source: &str, done: &str) -> Response {
    let source = encoded(source);
    see(&format!("/console/dead-letters?source={source}&watch={source}&done={done}"))
}

#[derive(Template)]
#[template(path = "dead_letters_progress.html")]
struct ProgressPart<'p> {
    s: &'p Words,
    source: &'p str,
    dead: u64,
    redrive: u64,
    sent: u64,
    dropped: u64,
    round: u32,
    /// Whether there may be more to come.
    goes_on: bool,
}

/// How far the letters of a source are, as a part of the page that asks for itself again.
pub async fn progress(visit: Visit, QueryFields(query): QueryFields) -> Response {
    let source = query.text("source");
    let pool = &visit.console.app.database.pool();
    match db::within(db::console::count_letters(pool, source)).await {
        Ok([dead, redrive, sent, dropped]) => {
            let number = |name: &str| query.given(name).and_then(|number| number.parse::<u64>().ok());
            let round = number("round").and_then(|round| u32::try_from(round).ok()).unwrap_or(0);
            // The work may begin after the first look, and drops show in what is left only.
            let goes_on = redrive > 0 || round < LOOKS || number("dead").is_some_and(|before| before != dead);
            let round = round.saturating_add(1);
            render(&ProgressPart { s: &visit.words, source, dead, redrive, sent, dropped, round, goes_on })
        }
        Err(error) => problem_part(&visit.words, &error.into()),
    }
}
