//! Events on their way to a receiver that keeps them.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use chrono::TimeDelta;
use dibs_common::{
    clock,
    db::{self, Lease},
    error::{Error, Result},
    testing::{TestEnvironment, eventually},
};
use dibs_worker::relay::{Batch, Relay, Sink, StepOutcome};
use tokio_util::sync::CancellationToken;

/// Keeps the ids of the events that it accepts; fails while `broken`.
#[derive(Clone, Default)]
struct Witness {
    heard: Arc<Mutex<Vec<String>>>,
    broken: Arc<Mutex<bool>>,
}

impl Witness {
    fn heard(&self) -> Vec<String> {
        self.heard.lock().expect("whole").clone()
    }
}

impl Sink for Witness {
    fn name(&self) -> &'static str {
        "witness"
    }

    fn kinds(&self) -> &'static [&'static str] {
        &[]
    }

    async fn deliver(&mut self, batch: &Batch, _: &mut Lease) -> Result<u64> {
        if *self.broken.lock().expect("whole") {
            return Err(Error::internal("it is broken"));
        }
        let heard = batch.events.iter().map(|event| event.aggregate_id.clone());
        self.heard.lock().expect("whole").extend(heard);
        Ok(batch.last)
    }
}

fn event(id: &str) -> String {
    format!(
        "INSERT INTO outbox_events (aggregate_type, aggregate_id, type, payload, created_at) \
         VALUES ('POINTS', '{id}', 'points.charged', '{{}}', NOW(3))"
    )
}

/// An environment, a sink in it, and the relay that serves the sink.
struct RelayTest {
    environment: TestEnvironment,
    witness: Witness,
    relay: Relay<Witness>,
}

impl RelayTest {
    async fn new() -> Self {
        let (environment, witness) = (TestEnvironment::new().await, Witness::default());
        db::outbox::register_sink(&environment.database.pool(), "witness", clock::now()).await.expect("registered");
        let relay = Relay::new(&environment.database, witness.clone());
        Self { environment, witness, relay }
    }

    async fn write(&self, id: &str) {
        self.environment.execute(&event(id)).await;
    }

    async fn sequence(&self) -> usize {
        db::outbox::sequence_events(&self.environment.database).await.expect("sequenced")
    }

    async fn step(&mut self) -> StepOutcome {
        self.relay.step(clock::now()).await.expect("a step")
    }

    async fn deliver(&mut self) {
        while self.sequence().await > 0 {}
        while self.step().await == StepOutcome::Delivered {}
    }

    async fn end(mut self) {
        self.relay.release_lease().await;
        self.environment.end().await;
    }
}

/// I10: a row that is committed after one of a higher id is delivered, too, only later.
#[tokio::test]
async fn i10_a_row_that_commits_late_with_a_lower_id_is_not_lost() {
    let mut test = RelayTest::new().await;
    let mut late = test.environment.database.begin().await.expect("begun");
    sqlx::raw_sql(sqlx::AssertSqlSafe(event("late"))).execute(&mut *late).await.expect("written");
    test.write("early").await;
    test.deliver().await;
    assert_eq!(test.witness.heard(), ["early"], "what is not committed is neither delivered nor waited for");
    late.commit().await.expect("committed");
    test.write("last").await;
    test.deliver().await;
    assert_eq!(test.witness.heard(), ["early", "late", "last"]);
    let gaps = "SELECT MAX(sequence) - COUNT(*) FROM outbox_events WHERE sequence IS NOT NULL";
    assert_eq!(test.environment.count(gaps).await, 0);
    test.end().await;
}

/// Ids with holes, and more events than are numbered at once.
#[tokio::test]
async fn events_are_numbered_without_gaps_in_the_order_of_their_ids() {
    let mut test = RelayTest::new().await;
    for hundred in 0..65 {
        let rows: Vec<String> = (0..100)
            .map(|number| format!("('POINTS', '{}', 'points.charged', '{{}}', NOW(3))", hundred * 100 + number))
            .collect();
        let head = "INSERT INTO outbox_events (aggregate_type, aggregate_id, type, payload, created_at) VALUES ";
        test.environment.execute(&format!("{head}{}", rows.join(","))).await;
    }
    test.environment.execute("DELETE FROM outbox_events WHERE event_id % 7 = 0").await;
    let (one, other) = tokio::join!(
        db::outbox::sequence_events(&test.environment.database),
        db::outbox::sequence_events(&test.environment.database)
    );
    one.and(other).expect("numbered, by one or by both in turn");
    test.deliver().await;
    let heard: Vec<u32> = test.witness.heard().iter().map(|id| id.parse().expect("a number")).collect();
    assert!(heard.is_sorted() && heard.len() > 5_500, "{}", heard.len());
    let rows = i64::try_from(heard.len()).expect("few");
    assert_eq!(test.environment.count("SELECT COUNT(DISTINCT sequence) FROM outbox_events").await, rows);
    assert_eq!(test.environment.count("SELECT last_sequence FROM outbox_sequence").await, rows);
    test.end().await;
}

/// One process serves a sink; a standby continues where it stopped.
#[tokio::test]
async fn i10_a_relay_that_dies_is_followed_by_a_standby() {
    let mut test = RelayTest::new().await;
    let mut standby = Relay::new(&test.environment.database, test.witness.clone());
    test.write("one").await;
    test.deliver().await;
    test.write("two").await;
    test.sequence().await;
    assert_eq!(standby.step(clock::now()).await.expect("asked"), StepOutcome::Standby);
    *test.witness.broken.lock().expect("whole") = true;
    test.relay.step(clock::now()).await.expect_err("the sink is broken, and another may try");
    *test.witness.broken.lock().expect("whole") = false;
    assert_eq!(standby.step(clock::now()).await.expect("delivered"), StepOutcome::Delivered);
    assert_eq!(test.witness.heard(), ["one", "two"]);
    assert_eq!(test.step().await, StepOutcome::Standby);
    standby.release_lease().await;
    test.end().await;
}

/// A machine that vanished says nothing to the database.
#[tokio::test]
async fn i10_the_lease_of_a_silent_holder_passes_to_another() {
    let mut test = RelayTest::new().await;
    let held = "INSERT INTO leases (name, epoch, holder, expires_at) \
        VALUES ('sink witness', 1, '0123456789abcdef', UTC_TIMESTAMP(6) + INTERVAL 2 SECOND)";
    test.environment.execute(held).await;
    test.write("one").await;
    test.sequence().await;
    assert_eq!(test.step().await, StepOutcome::Standby);
    let RelayTest { environment, witness, relay } = test;
    let stopping = CancellationToken::new();
    let running = tokio::spawn(relay.run(stopping.clone()));
    eventually("another process serves the sink", Duration::from_secs(10), async || witness.heard() == ["one"]).await;
    stopping.cancel();
    running.await.expect("ended");
    environment.end().await;
}

/// Delivered rows go by age, never one that a sink has not taken.
#[tokio::test]
async fn delivered_events_are_purged_by_age_and_never_beyond_the_slowest_sink() {
    let mut test = RelayTest::new().await;
    db::outbox::register_sink(&test.environment.database.pool(), "slow", clock::now()).await.expect("registered");
    for id in ["1", "2", "3"] {
        test.write(id).await;
    }
    test.deliver().await;
    let week_ago = clock::now() - TimeDelta::days(7);
    let purge = async |before| {
        db::outbox::purge(&test.environment.database.pool(), before, week_ago, 1_000).await.expect("purged")
    };
    let soon = clock::now() + TimeDelta::minutes(1);
    assert_eq!(purge(soon).await, 0, "the slow sink has taken none");
    test.environment.execute("UPDATE sinks SET delivered_through = 2 WHERE name = 'slow'").await;
    assert_eq!(purge(clock::now() - TimeDelta::minutes(1)).await, 0, "none is old");
    assert_eq!(purge(soon).await, 2);
    test.write("4").await;
    test.deliver().await;
    assert_eq!(test.environment.count("SELECT MAX(sequence) FROM outbox_events").await, 4, "a sequence is given once");
    test.end().await;
}
