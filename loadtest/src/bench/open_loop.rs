//! The open model: requests are sent at their planned time, whether or not earlier ones have been answered, and latency
//! counts from the planned time. A server that stalls cannot slow the client down and so hide its latency.

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

use super::client::{ClientPool, Connection, Measurement, Target, on_threads};
use crate::numbers::real;

/// A tokio timer has a resolution of a millisecond; a sleeping thread is more precise.
const TICK: Duration = Duration::from_micros(200);
/// The time to open the connections before the first request.
const CONNECT_TIME: Duration = Duration::from_millis(300);

/// A constant rate of arrivals.
#[derive(Clone, Copy, Debug)]
pub struct OpenLoad {
    /// Requests a second.
    pub rate: f64,
    /// Requests planned in this time are sent but not measured.
    pub warm_up: Duration,
    pub measured: Duration,
}

impl OpenLoad {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count, positive and small")]
    fn count(self, time: Duration) -> u64 {
        (time.as_secs_f64() * self.rate) as u64
    }
}

/// The planned time of each request.
struct ArrivalSchedule {
    start: Instant,
    load: OpenLoad,
    total: u64,
    next: AtomicU64,
    due: Semaphore,
}

impl ArrivalSchedule {
    fn new(load: OpenLoad, start: Instant) -> Self {
        let total = load.count(load.warm_up + load.measured);
        Self { start, load, total, next: AtomicU64::new(0), due: Semaphore::new(0) }
    }

    fn planned(&self, request: u64) -> Instant {
        self.start + Duration::from_secs_f64(real(request) / self.load.rate)
    }

    /// Requests whose planned time is at most `elapsed` after the start.
    fn due_after(&self, elapsed: Duration) -> u64 {
        (self.load.count(elapsed) + 1).min(self.total)
    }

    /// Releases requests when they are due, and at the end lets every connection find that none is left.
    fn release(&self, connections: usize) {
        thread::sleep(self.start.saturating_duration_since(Instant::now()));
        let mut released = 0;
        while released < self.total {
            let due = self.due_after(self.start.elapsed());
            // Several may be due at once when the thread slept longer: they are sent late, and their latency shows it.
            self.due.add_permits(usize::try_from(due - released).unwrap_or(0));
            released = due;
            thread::sleep(TICK);
        }
        self.due.add_permits(connections);
    }

    /// Waits for the next request that is due; none at the end.
    async fn next(&self) -> Option<u64> {
        // The semaphore is never closed, so this fails for no connection.
        if let Ok(permit) = self.due.acquire().await {
            permit.forget();
        }
        let request = self.next.fetch_add(1, Relaxed);
        (request < self.total).then_some(request)
    }
}

/// Sends requests at a constant rate.
pub async fn open_loop(target: Target, clients: ClientPool, load: OpenLoad) -> Result<Measurement> {
    let schedule = Arc::new(ArrivalSchedule::new(load, Instant::now() + CONNECT_TIME));
    let releasing = Arc::clone(&schedule);
    let clock = thread::spawn(move || releasing.release(clients.connections));
    let mut result = on_threads(clients, move |_| {
        let schedule = Arc::clone(&schedule);
        async move { send_due(&schedule, Connection::open(target).await?).await }
    })
    .await?;
    clock.join().map_err(|_| anyhow!("the clock thread of the open model panicked"))?;
    result.elapsed = load.measured;
    Ok(result)
}

async fn send_due(schedule: &ArrivalSchedule, mut connection: Connection) -> Result<Measurement> {
    let measured_from = schedule.load.count(schedule.load.warm_up);
    let mut result = Measurement::default();
    while let Some(request) = schedule.next().await {
        connection.send(request + 1).await?;
        if request >= measured_from {
            result.responses += 1;
            result.latencies.record(schedule.planned(request).elapsed());
        }
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn schedule(rate: f64, measured: Duration) -> ArrivalSchedule {
        ArrivalSchedule::new(OpenLoad { rate, warm_up: SECOND, measured }, Instant::now())
    }

    #[test]
    fn requests_are_planned_at_equal_intervals() {
        let schedule = schedule(100.0, SECOND);
        assert_eq!(schedule.total, 200);
        assert_eq!(schedule.planned(0), schedule.start);
        assert_eq!(schedule.planned(50), schedule.start + SECOND / 2);
    }

    #[test]
    fn requests_are_due_at_their_planned_time_and_never_more_than_there_are() {
        let schedule = schedule(100.0, SECOND);
        let due =
            [0, 10, 500, 1_000, 5_000].map(|milliseconds| schedule.due_after(Duration::from_millis(milliseconds)));
        assert_eq!(due, [1, 2, 51, 101, 200]);
    }

    #[tokio::test]
    async fn every_connection_finds_the_end() {
        let schedule = Arc::new(schedule(1_000.0, Duration::ZERO));
        let releasing = Arc::clone(&schedule);
        let clock = thread::spawn(move || releasing.release(2));
        let send_all = async || {
            let mut sent = 0;
            while schedule.next().await.is_some() {
                sent += 1;
            }
            sent
        };
        let (one, other) = tokio::join!(send_all(), send_all());
        assert_eq!(one + other, 1_000);
        clock.join().expect("it ends");
    }
}
