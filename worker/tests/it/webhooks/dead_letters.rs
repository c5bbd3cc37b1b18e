//! Messages that are refused, or fail for a day.

use chrono::TimeDelta;
use dibs_common::{
    clock,
    db::{self, dead_letters::DeadLettersPage},
    dead_letters::{redrive_source, request_redrive},
    domain::dead_letter::DeadLetterStatus,
    integrations::messages::Receiver,
    testing::{TestEnvironment, action},
};
use dibs_worker::webhooks::{Limits, RETRIED_FOR};

use super::{Line, behind, count_letters, issue, letters, orders, queued, write};
use crate::receiver::{Answer, OK};

/// The receiver was sent the three events of an order, and does not accept the first one.
async fn with_a_failing_event(answer: Answer) -> (TestEnvironment, Line) {
    let (environment, mut line) = Line::start(Receiver::DataPlatform).await;
    line.receiver.will(move |arrival| if arrival.id == "event-1-0" { answer } else { OK });
    orders(&environment, &["a"]).await;
    line.after_seconds(1).await;
    (environment, line)
}

#[tokio::test]
async fn i10_a_refused_message_is_a_dead_letter_and_is_sent_again_on_redrive() {
    let (environment, mut line) = with_a_failing_event((422, "no such\nshop", None)).await;
    assert_eq!(line.receiver.taken(), ["event-2-0", "event-3-0"], "the others of its order go on");
    let dead = letters(&environment, DeadLetterStatus::Dead).await;
    let [letter] = &dead[..] else { panic!("{dead:?}") };
    assert_eq!((&*letter.source, &*letter.source_key, letter.attempts), ("data-platform", "event-1-0", 1));
    assert_eq!(letter.reason, "it answered 422 Unprocessable Entity: no such shop");
    let ask = async || request_redrive(&environment.database, letter.id, &action()).await.expect("asked");
    ask().await;
    line.after_seconds(1).await;
    assert_eq!(letters(&environment, DeadLetterStatus::Dead).await[0].attempts, 2, "refused once more");
    ask().await;
    line.receiver.will(|arrival| if arrival.attempt == 3 { (503, "", None) } else { OK });
    line.after_seconds(1).await;
    assert_eq!((letters(&environment, DeadLetterStatus::Redrive).await.len(), queued(&environment).await), (1, 1));
    line.after_seconds(5).await;
    let sent = letters(&environment, DeadLetterStatus::Sent).await;
    assert_eq!((sent.len(), sent[0].attempts, queued(&environment).await), (1, 4, 0), "twice, and twice again");
    assert_eq!(line.receiver.taken().last().map(String::as_str), Some("event-1-0"));
    assert!(line.receiver.arrivals().iter().all(|arrival| arrival.is_signed));
    line.end(environment).await;
}

#[tokio::test]
async fn i10_after_a_day_of_failures_a_message_is_a_dead_letter_and_its_order_goes_on() {
    let (environment, mut line) = with_a_failing_event((500, "broken", None)).await;
    let began = line.now;
    while line.now - began < RETRIED_FOR - TimeDelta::minutes(15) {
        line.after(TimeDelta::minutes(15)).await;
    }
    assert_eq!((letters(&environment, DeadLetterStatus::Dead).await.len(), queued(&environment).await), (0, 3));
    line.after(TimeDelta::minutes(16)).await;
    let dead = letters(&environment, DeadLetterStatus::Dead).await;
    assert_eq!((dead.len(), &*dead[0].reason), (1, "it answered 500 Internal Server Error: broken"));
    assert!(dead[0].attempts > 90, "{}", dead[0].attempts);
    line.after_seconds(1).await;
    assert_eq!((line.receiver.taken().len(), queued(&environment).await), (2, 0));
    line.end(environment).await;
}

/// A receiver that fails all messages about one campaign is reachable: they fill the retry queue, and are dead-lettered
/// after a day like any other. Then those behind them are delivered.
#[tokio::test]
async fn i10_a_campaign_whose_messages_all_fail_stops_the_sink_for_a_day_at_most() {
    let (environment, mut line) = Line::start(Receiver::Notifications).await;
    line.receiver.will(|arrival| if arrival.text("aggregateId") == "3" { (500, "broken", None) } else { OK });
    issue(&environment, "3", 1_100).await;
    issue(&environment, "4", 1).await;
    for _ in 0..20 {
        line.after_seconds(1).await;
    }
    assert_eq!((queued(&environment).await, line.receiver.taken().len()), (1_000, 0));
    line.after(RETRIED_FOR).await;
    for _ in 0..20 {
        line.after_seconds(1).await;
    }
    assert_eq!(count_letters(&environment, DeadLetterStatus::Dead).await, 1_000);
    assert_eq!((queued(&environment).await, line.receiver.taken().len()), (100, 1));
    assert_eq!(behind(&environment, "notifications").await, 0);
    line.end(environment).await;
}

/// Letters that were asked for hold up neither each other nor what is new.
#[tokio::test]
async fn i10_a_thousand_letters_sent_again_leave_room_for_what_is_new() {
    let environment = TestEnvironment::new().await;
    let limits = Limits { batch_size: 2_000, ..Limits::default() };
    let mut line = Line::with(&environment, Receiver::Notifications, limits).await;
    line.receiver.will(|_| (422, "no", None));
    issue(&environment, "3", 1_000).await;
    line.after_seconds(1).await;
    assert_eq!(count_letters(&environment, DeadLetterStatus::Dead).await, 1_000);
    assert_eq!(redrive_source(&environment.database, "notifications", &action()).await.expect("asked"), 1_000);
    line.receiver.will(|arrival| if arrival.text("aggregateId") == "3" { (500, "", None) } else { OK });
    for _ in 0..15 {
        line.after_seconds(1).await;
    }
    assert_eq!(queued(&environment).await, 500, "half of the bound");
    issue(&environment, "4", 1).await;
    line.after_seconds(1).await;
    assert_eq!((line.receiver.taken().len(), behind(&environment, "notifications").await), (1, 0), "at once");
    line.receiver.will(|arrival| if arrival.id == "event-1-0" { (500, "", None) } else { OK });
    line.for_minutes(3).await;
    assert_eq!((count_letters(&environment, DeadLetterStatus::Sent).await, queued(&environment).await), (999, 1));
    line.end(environment).await;
}

async fn insert_dead_letters(environment: &TestEnvironment, source: &str, status: &str, keys: std::ops::Range<u32>) {
    let sent_at = if status == "SENT" { "NOW(3) - INTERVAL 1 DAY" } else { "NULL" };
    let rows = keys.map(|key| {
        let payload = "커피".repeat(200);
        format!("('{source}', '{key}', 'order.paid', '{payload}', 1, TRUE, '', 1, '{status}', NOW(3), {sent_at})")
    });
    let columns = "source, source_key, kind, payload, payload_bytes, redrivable, reason, attempts, status, dead_lettered_at, \
                   sent_at";
    let rows = rows.collect::<Vec<_>>().join(",");
    environment.execute(&format!("INSERT INTO dead_letters ({columns}) VALUES {rows}")).await;
}

#[tokio::test]
async fn all_dead_letters_of_a_source_are_redriven_at_once() {
    let environment = TestEnvironment::new().await;
    insert_dead_letters(&environment, "data-platform", "DEAD", 0..1_100).await;
    insert_dead_letters(&environment, "data-platform", "SENT", 1_100..1_105).await;
    insert_dead_letters(&environment, "notifications", "DEAD", 0..3).await;
    environment.execute("UPDATE dead_letters SET redrivable = FALSE WHERE source_key IN ('7', '1099')").await;
    let pool = &environment.database.pool();
    assert_eq!(redrive_source(&environment.database, "data-platform", &action()).await.expect("asked"), 1_098);
    assert_eq!(redrive_source(&environment.database, "data-platform", &action()).await.expect("asked"), 0);
    assert_eq!(count_letters(&environment, DeadLetterStatus::Redrive).await, 1_098);
    assert_eq!(count_letters(&environment, DeadLetterStatus::Dead).await, 5);
    let page = DeadLettersPage { limit: 1, is_short: true, ..DeadLettersPage::default() };
    let short = db::dead_letters::list(pool, &page).await.expect("a letter");
    assert_eq!((short[0].payload.chars().count(), &*short[0].source), (300, "notifications"));
    environment.end().await;
}

#[tokio::test]
async fn only_letters_that_were_sent_are_purged() {
    let environment = TestEnvironment::new().await;
    for (number, status) in (0..).zip(["DEAD", "REDRIVE", "SENT", "SENT", "SENT"]) {
        insert_dead_letters(&environment, "data-platform", status, number..number + 1).await;
    }
    let purge = async |before| db::dead_letters::purge(&environment.database.pool(), before, 2).await.expect("purged");
    let now = clock::now();
    assert_eq!(purge(now - TimeDelta::days(2)).await, 0);
    assert_eq!((purge(now).await, purge(now).await, purge(now).await), (2, 1, 0));
    assert_eq!(environment.count("SELECT COUNT(*) FROM dead_letters").await, 2);
    environment.end().await;
}

#[tokio::test]
async fn an_event_that_is_no_message_is_a_dead_letter_and_holds_nothing_up() {
    let (environment, mut line) = Line::start(Receiver::Notifications).await;
    write(&environment, "COUPON", "3", "coupon.issued", r#"{"couponId": 3}"#).await;
    db::outbox::sequence_events(&environment.database).await.expect("numbered");
    line.after_seconds(1).await;
    let dead = letters(&environment, DeadLetterStatus::Dead).await;
    assert_eq!((dead.len(), dead[0].redrivable, behind(&environment, "notifications").await), (1, false, 0));
    line.end(environment).await;
}
