//! Dead letters, as an administrator sees them.

use std::time::Duration;

use dibs_common::{
    clock, db,
    domain::dead_letter::{MAX_PAYLOAD_BYTES, NewDeadLetter, Redriven},
    identifiers::MAX_ID,
    testing::FIRST,
};
use dibs_worker::{issuance::claim_worker, streams::ReclaimPolicy};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::app::{ADMIN_TOKEN, Answer, TestApp};

fn letter(source: &str, key: &str) -> NewDeadLetter {
    NewDeadLetter {
        source: source.into(),
        key: key.into(),
        kind: "order.paid".into(),
        aggregate_id: Some("7".into()),
        payload: r#"{"orderId": "7"}"#.into(),
        redrivable: true,
        reason: "it answered 422: no".into(),
        attempts: 3,
    }
}

async fn insert(app: &TestApp, letter: NewDeadLetter) {
    let mut connection = app.environment.database.pool().acquire().await.expect("a connection");
    db::dead_letters::insert(&mut connection, &letter, clock::now()).await.expect("inserted");
}

async fn list(app: &TestApp, query: &str) -> Answer {
    let request = app.request(Method::GET, &format!("/admin/dead-letters{query}")).bearer_auth(ADMIN_TOKEN);
    Answer::of(request).await
}

/// The keys of a page, and the cursor of the next.
async fn keys(app: &TestApp, query: &str) -> (Vec<String>, Value) {
    let answer = list(app, query).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let items = answer.body["items"].as_array().expect("items").clone();
    let keys = items.iter().map(|item| item["sourceKey"].as_str().expect("a key").to_owned()).collect();
    (keys, answer.body["nextCursor"].clone())
}

async fn redrive(app: &TestApp, id: &Value) -> Answer {
    app.administer(&format!("/admin/dead-letters/{id}/redrive"), json!({})).await
}

#[tokio::test]
async fn dead_letters_are_listed_by_page_source_and_status() {
    let app = TestApp::new().await;
    for (source, key) in
        [("data-platform", "1"), ("data-platform", "2"), ("notifications", "3"), ("data-platform", "4")]
    {
        insert(&app, letter(source, key)).await;
    }
    insert(&app, NewDeadLetter { reason: "again".into(), ..letter("data-platform", "2") }).await;
    assert_eq!(keys(&app, "").await, (vec!["4".into(), "3".into(), "2".into(), "1".into()], Value::Null));
    let (page, cursor) = keys(&app, "?source=data-platform&limit=2").await;
    assert_eq!(page, ["4", "2"]);
    let next = keys(&app, &format!("?source=data-platform&limit=2&cursor={cursor}")).await;
    assert_eq!(next, (vec!["1".into()], Value::Null));
    let found = list(&app, "?source=notifications&status=DEAD").await.body["items"][0].clone();
    assert_eq!((&found["type"], &found["reason"]), (&json!("order.paid"), &json!("it answered 422: no")));
    assert_eq!(redrive(&app, &found["deadLetterId"]).await.status, StatusCode::ACCEPTED);
    assert_eq!(keys(&app, "?status=REDRIVE").await.0, ["3"]);
    assert_eq!(list(&app, "?status=LOST").await.code(), "VALIDATION_FAILED");
    assert_eq!(list(&app, "?limit=101").await.code(), "VALIDATION_FAILED");
    assert_eq!(app.get("/admin/dead-letters").await.code(), "UNAUTHENTICATED");
    app.end().await;
}

#[tokio::test]
async fn asking_twice_for_a_letter_is_asking_once_and_its_outcome_is_reported() {
    let app = TestApp::new().await;
    insert(&app, letter("data-platform", "event-7-0")).await;
    let id = list(&app, "").await.body["items"][0]["deadLetterId"].clone();
    let asked = redrive(&app, &id).await;
    assert_eq!((asked.status, &asked.body["status"]), (StatusCode::ACCEPTED, &json!("REDRIVE")));
    assert_eq!(redrive(&app, &id).await.body, asked.body);
    let mut connection = app.environment.database.pool().acquire().await.expect("a connection");
    let taken = db::dead_letters::list_to_redrive(&mut connection, "data-platform", None, 10).await.expect("taken");
    let again = Redriven::Dead { reason: "no once more".into(), attempts: 2 };
    db::dead_letters::mark_redriven(&mut connection, taken[0].id, &again, clock::now()).await.expect("noted");
    let dead = list(&app, "?status=DEAD").await.body["items"][0].clone();
    assert_eq!((&dead["reason"], &dead["attempts"]), (&json!("no once more"), &json!(5)));
    redrive(&app, &id).await;
    db::dead_letters::mark_redriven(&mut connection, taken[0].id, &Redriven::Sent { attempts: 1 }, clock::now())
        .await
        .expect("noted");
    insert(&app, letter("data-platform", "event-7-0")).await;
    let sent = redrive(&app, &id).await;
    assert_eq!((sent.status, &sent.body["status"]), (StatusCode::ACCEPTED, &json!("SENT")), "it is not sent twice");
    assert!(
        db::dead_letters::list_to_redrive(&mut connection, "data-platform", None, 10).await.expect("none").is_empty()
    );
    drop(connection);
    app.end().await;
}

#[tokio::test]
async fn what_is_not_whole_cannot_be_sent_again() {
    let app = TestApp::new().await;
    insert(&app, NewDeadLetter { payload: "커".repeat(MAX_PAYLOAD_BYTES / 2), ..letter("data-platform", "long") })
        .await;
    insert(&app, NewDeadLetter { redrivable: false, payload: "oops\0".into(), ..letter("a.topic", "0/7") }).await;
    let items = list(&app, "").await.body["items"].clone();
    for place in [0, 1] {
        assert_eq!(redrive(&app, &items[place]["deadLetterId"]).await.code(), "DEAD_LETTER_NOT_REDRIVABLE");
    }
    let kept = items[1]["payload"].as_str().expect("text").len();
    assert!(kept <= MAX_PAYLOAD_BYTES && items[1]["payloadBytes"] == MAX_PAYLOAD_BYTES / 2 * 3, "{kept}");
    assert_eq!(redrive(&app, &json!(MAX_ID)).await.code(), "DEAD_LETTER_NOT_FOUND");
    assert_eq!(redrive(&app, &json!(0)).await.code(), "VALIDATION_FAILED");
    app.end().await;
}

async fn drop_letter(app: &TestApp, id: &Value) -> Answer {
    let request = app.request(Method::DELETE, &format!("/admin/dead-letters/{id}")).bearer_auth(ADMIN_TOKEN);
    Answer::of(request).await
}

async fn with_two_letters() -> (TestApp, [Value; 2]) {
    let app = TestApp::new().await;
    insert(&app, letter("data-platform", "event-7-0")).await;
    insert(&app, letter("data-platform", "event-8-0")).await;
    let items = list(&app, "").await.body["items"].clone();
    let ids = [0, 1].map(|place: usize| items[place]["deadLetterId"].clone());
    (app, ids)
}

#[tokio::test]
async fn a_dropped_letter_is_listed_as_dropped_and_is_not_redrivable() {
    let (app, [ref dropped, ref redriven]) = with_two_letters().await;
    for _ in 0..2 {
        assert_eq!(drop_letter(&app, dropped).await.status, StatusCode::NO_CONTENT);
    }
    let found = list(&app, "?status=DROPPED").await.body["items"][0].clone();
    assert_eq!(&found["deadLetterId"], dropped);
    assert!(found["droppedAt"].is_string() && found["deadLetteredAt"].is_string(), "{found}");
    assert_eq!(redrive(&app, dropped).await.code(), "DEAD_LETTER_NOT_REDRIVABLE");
    redrive(&app, redriven).await;
    assert_eq!(drop_letter(&app, redriven).await.code(), "DEAD_LETTER_NOT_REDRIVABLE");
    assert_eq!(drop_letter(&app, &json!(MAX_ID)).await.code(), "DEAD_LETTER_NOT_FOUND");
    let anonymous = app.request(Method::DELETE, &format!("/admin/dead-letters/{dropped}"));
    assert_eq!(Answer::of(anonymous).await.code(), "UNAUTHENTICATED");
    app.end().await;
}

#[tokio::test]
async fn who_redrove_or_dropped_a_letter_is_listed() {
    let (app, [ref dropped, ref redriven]) = with_two_letters().await;
    for _ in 0..2 {
        let path = format!("/admin/dead-letters/{redriven}/redrive?reason=fixed");
        assert_eq!(app.administer(&path, json!({})).await.status, StatusCode::ACCEPTED);
        assert_eq!(drop_letter(&app, dropped).await.status, StatusCode::NO_CONTENT);
    }
    let request = app.request(Method::GET, "/admin/actions").bearer_auth(ADMIN_TOKEN);
    let actions = Answer::of(request).await.body["items"].clone();
    let of = |place: usize| {
        let action = &actions[place];
        (action["action"].clone(), action["targetId"].clone(), action["before"].clone(), action["after"].clone())
    };
    let dead = json!({ "status": "DEAD" });
    let id = |letter: &Value| json!(letter.to_string());
    assert_eq!(of(0), (json!("dead_letter.drop"), id(dropped), dead.clone(), json!({ "status": "DROPPED" })));
    assert_eq!(of(1), (json!("dead_letter.redrive"), id(redriven), dead, json!({ "status": "REDRIVE" })));
    assert_eq!((actions.as_array().map(Vec::len), &actions[1]["reason"]), (Some(2), &json!("fixed")));
    app.end().await;
}

/// I3: the user of a claim that could not be processed reads why, once its letter is dropped.
#[tokio::test]
async fn i3_a_user_reads_the_outcome_of_a_dropped_claim() {
    let (app, coupon) = TestApp::with_campaign(3).await;
    app.environment.execute("ALTER TABLE user_coupons ADD CONSTRAINT broken CHECK (user_id <> 7)").await;
    assert_eq!(app.claim(coupon, 7).await.status, StatusCode::ACCEPTED);
    let impatient = ReclaimPolicy { min_idle: Duration::ZERO, poll_interval: Duration::ZERO };
    let worker = claim_worker(&app.environment.database, &app.environment.redis, FIRST, impatient);
    worker.drain(FIRST).await.expect("drained");
    assert_eq!(app.claim_state(coupon, 7).await.body["status"], "PENDING");
    let dead = list(&app, "?source=claims").await.body["items"][0].clone();
    assert_eq!((&dead["type"], &dead["aggregateId"]), (&json!("claims.v1"), &json!(coupon.to_string())));
    assert_eq!(drop_letter(&app, &dead["deadLetterId"]).await.status, StatusCode::NO_CONTENT);
    let state = app.claim_state(coupon, 7).await.body;
    assert_eq!((&state["status"], &state["code"]), (&json!("REJECTED"), &json!("CLAIM_FAILED")));
    app.end().await;
}
