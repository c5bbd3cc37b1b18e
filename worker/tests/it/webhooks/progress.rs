//! Workers that die, a full retry queue, and sinks that no process serves.

use chrono::TimeDelta;
use dibs_common::{clock::Timestamp, db, error::Result, integrations::messages::Receiver, testing::TestEnvironment};
use dibs_worker::{
    relay::{Relay, StepOutcome},
    webhooks::Limits,
};

use super::{Line, behind, orders, queued, sink};
use crate::{
    crashing_sink::CrashingSink,
    receiver::{OK, TestReceiver},
};

pub async fn die(environment: &TestEnvironment, receiver: &TestReceiver, now: Timestamp) {
    let mut relay =
        Relay::new(&environment.database, CrashingSink(sink(environment, Receiver::DataPlatform, receiver)));
    // It may also have found the lock not yet free of the one before.
    let _: Result<StepOutcome> = relay.step(now).await;
}

#[tokio::test]
async fn i10_a_crash_between_delivery_and_progress_delivers_again_with_the_same_id() {
    let (environment, mut line) = Line::start(Receiver::DataPlatform).await;
    line.receiver.will(|arrival| match &*arrival.id {
        "event-1-0" if arrival.attempt < 3 => (422, "no", None),
        "event-2-0" if arrival.attempt < 3 => (500, "", None),
        _ => OK,
    });
    orders(&environment, &["a", "b", "c"]).await;
    for _ in 0..2 {
        die(&environment, &line.receiver, line.now).await;
    }
    let noted = "SELECT (SELECT COUNT(*) FROM webhook_retry_queue) + (SELECT COUNT(*) FROM dead_letters)";
    assert_eq!(
        (environment.count(noted).await, behind(&environment, "data-platform").await),
        (0, 9),
        "nothing of a round is left"
    );
    line.after_seconds(1).await;
    assert_eq!((line.receiver.taken().len(), behind(&environment, "data-platform").await), (9, 0));
    let again = line.receiver.arrivals().into_iter().filter(|arrival| arrival.id == "event-3-0").count();
    assert_eq!(again, 3, "it came again");
    line.end(environment).await;
}

/// A full retry queue stops the sink; the outbox keeps what follows, and nothing is lost.
#[tokio::test]
async fn i10_when_the_retry_queue_is_full_the_sink_stops_and_later_goes_on() {
    let environment = TestEnvironment::new().await;
    let limits = Limits { retry_queue_size: 4, batch_size: 3, max_concurrency: 1, ..Limits::default() };
    let mut line = Line::with(&environment, Receiver::DataPlatform, limits).await;
    line.receiver.will(|arrival| if arrival.text("aggregateId").starts_with("bad") { (500, "", None) } else { OK });
    orders(&environment, &["bad1", "good1", "bad2", "good2"]).await;
    assert_eq!(line.after_seconds(1).await, StepOutcome::Blocked);
    assert_eq!((queued(&environment).await, line.receiver.taken().len()), (4, 4));
    line.for_minutes(3).await;
    assert_eq!((queued(&environment).await, behind(&environment, "data-platform").await > 0), (4, true));
    line.recover_and_end(environment, 12, 4).await;
}

/// Events wait for a sink that is served, moving or not, and no longer for one that no process has served for a week.
#[tokio::test]
async fn events_are_purged_once_a_sink_is_idle_for_a_week() {
    let (environment, mut line) = Line::start(Receiver::DataPlatform).await;
    db::outbox::register_sink(&environment.database.pool(), "notifications", line.now).await.expect("registered");
    orders(&environment, &["a"]).await;
    line.after_seconds(1).await;
    let week = TimeDelta::days(7);
    let purge = async |now: Timestamp| {
        db::outbox::purge(&environment.database.pool(), now, now - week, 1_000).await.expect("purged")
    };
    let left_alone = async |now: Timestamp| {
        db::outbox::list_idle_sinks(&environment.database.pool(), now - week).await.expect("names")
    };
    assert_eq!(purge(line.now).await, 0, "the other sink has taken none");
    line.after(week + TimeDelta::minutes(1)).await;
    assert_eq!(left_alone(line.now).await, ["notifications"]);
    assert_eq!(purge(line.now).await, 3);
    assert_eq!(purge(line.now + week * 2).await, 0, "while no sink is served, nothing is deleted");
    line.end(environment).await;
}
