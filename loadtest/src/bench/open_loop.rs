//! The open model: claims are sent when they are planned, whether or not earlier ones have been answered, and
//! their latency counts from the planned moment. A server that stalls cannot slow the client down to look better.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use tokio::sync::Semaphore;

use super::client::{ClientPool, Connection, Measured, Target, on_threads};

/// A tokio timer is a millisecond coarse; a sleeping thread is not.
const TICK: Duration = Duration::from_micros(200);

/// When claims are sent.
struct Plan {
    start: Instant,
    rate: f64,
    measured_from: u64,
    total: u64,
    next: AtomicU64,
    due: Semaphore,
}

impl Plan {
    fn moment(&self, claim: u64) -> Instant {
        self.start + Duration::from_secs_f64(crate::numbers::real(claim) / self.rate)
    }

    /// How many should have been sent by now.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count, positive and small")]
    fn count_due(&self) -> u64 {
        ((self.start.elapsed().as_secs_f64() * self.rate) as u64 + 1).min(self.total)
    }

    /// Lets claims go when they are due; then lets every connection end.
    fn release(&self, connections: usize) {
        let mut released = 0;
        while released < self.total {
            let due = self.count_due();
            self.due.add_permits(usize::try_from(due - released).unwrap_or(0));
            released = due;
            thread::sleep(TICK);
        }
        self.due.add_permits(connections);
    }
}

/// Sends `rate` claims a second; what is planned within `warm_up` is not measured.
pub async fn open_loop(
    target: Target,
    crowd: ClientPool,
    rate: f64,
    warm_up: Duration,
    measured: Duration,
) -> Result<Measured> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count, positive and small")]
    let count = |time: Duration| (time.as_secs_f64() * rate) as u64;
    let plan = Arc::new(Plan {
        // Connections are made by then.
        start: Instant::now() + Duration::from_millis(300),
        rate,
        measured_from: count(warm_up),
        total: count(warm_up + measured),
        next: AtomicU64::new(0),
        due: Semaphore::new(0),
    });
    let releasing = Arc::clone(&plan);
    let clock = thread::spawn(move || {
        thread::sleep(releasing.start.saturating_duration_since(Instant::now()));
        releasing.release(crowd.connections);
    });
    let mut result = on_threads(crowd, move |_| {
        let plan = Arc::clone(&plan);
        async move { send_planned(&plan, Connection::open(target).await?).await }
    })
    .await?;
    clock.join().map_err(|_| anyhow!("the clock of the open model broke"))?;
    result.elapsed = measured;
    Ok(result)
}

async fn send_planned(plan: &Plan, mut connection: Connection) -> Result<Measured> {
    let mut result = Measured::default();
    loop {
        // Never closed: every connection is let go at the end.
        if let Ok(permit) = plan.due.acquire().await {
            permit.forget();
        }
        let claim = plan.next.fetch_add(1, Relaxed);
        if claim >= plan.total {
            return Ok(result);
        }
        connection.call(claim + 1).await?;
        if claim >= plan.measured_from {
            result.answers += 1;
            result.latencies.record(plan.moment(claim).elapsed());
        }
    }
}
