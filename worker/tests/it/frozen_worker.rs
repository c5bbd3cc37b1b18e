//! A worker that is frozen while it holds leases.

use std::{process::Command as Signal, time::Duration};

use dibs_common::{
    clock, db,
    testing::{TestEnvironment, eventually},
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Child,
    time::Instant,
};

use crate::{commands::start_with, receiver::TestReceiver};

const LIMIT: Duration = Duration::from_secs(30);
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const SINK: &str = "SELECT delivered_through FROM sinks WHERE name = 'notifications'";

fn signal(worker: &Child, signal: &str) {
    let id = worker.id().expect("it runs").to_string();
    let sent = Signal::new("kill").args([signal, &id]).status().expect("kill");
    assert!(sent.success(), "{signal}");
}

/// The lines of its log, while it runs.
fn log_of(worker: &mut Child) -> tokio::sync::mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let mut lines = BufReader::new(worker.stderr.take().expect("piped")).lines();
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            let _unread = sender.send(line);
        }
    });
    receiver
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_worker_is_overtaken_and_its_late_write_is_refused() {
    let environment = TestEnvironment::new().await;
    // It answers the first worker only after the second has delivered the same message.
    let receiver = TestReceiver::new().await;
    let variables =
        [("NOTIFICATION_URL", &*receiver.url), ("WEBHOOK_SECRET", SECRET), ("WORKER_ADDRESS", "127.0.0.1:0")];
    db::within(db::outbox::register_sink(&environment.database.pool(), "notifications", clock::now()))
        .await
        .expect("registered");
    let mut first = start_with(&environment, &["run"], &variables);
    let mut log = log_of(&mut first);
    let holds = "SELECT COUNT(*) FROM leases WHERE name = 'sink notifications'";
    eventually("the first holds the lease", LIMIT, async || environment.count(holds).await == 1).await;
    let epoch = "SELECT COALESCE(MAX(epoch), 0) FROM leases WHERE name = 'sink notifications'";
    let first_epoch = environment.count(epoch).await;
    signal(&first, "-STOP");
    let frozen_at = Instant::now();
    let campaign = environment.campaign(5).await;
    crate::support::accept(&environment, &campaign, 1..=3).await;
    let mut second = start_with(&environment, &["run"], &variables);
    let mut second_log = log_of(&mut second);
    eventually("the second delivers", LIMIT, async || receiver.taken().len() == 3).await;
    let overtaken = frozen_at.elapsed();
    eprintln!("a frozen worker was overtaken after {:.1} s", overtaken.as_secs_f64());
    assert!(environment.count(epoch).await > first_epoch);
    let delivered = environment.count(SINK).await;
    signal(&first, "-CONT");
    // It goes on where it was: with its next write, or with the renewal.
    let lost = async {
        while let Some(line) = log.recv().await {
            if line.contains("was lost") || line.contains("lease lost") {
                return line;
            }
        }
        panic!("the log ended")
    };
    tokio::time::timeout(LIMIT, lost).await.expect("the first notices");
    assert!(environment.count(SINK).await >= delivered, "the late write is refused");
    signal(&first, "-TERM");
    signal(&second, "-TERM");
    for mut worker in [first, second] {
        assert!(tokio::time::timeout(LIMIT, worker.wait()).await.expect("ended").expect("a child").success());
    }
    second_log.close();
    // A lease that the first lost and that neither had taken again is a row that has expired.
    let held = "SELECT name FROM leases WHERE name LIKE 'sink %' AND expires_at > UTC_TIMESTAMP(6)";
    assert_eq!(environment.texts(held).await, Vec::<String>::new(), "released at the end");
    environment.end().await;
}
