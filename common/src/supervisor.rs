//! Runs the long-running tasks of a process and restarts those that end though nothing asked them to.
//!
//! A panic ends one run of one task, never the task: the supervisor catches it, waits according to [`RESTARTS`], and
//! runs the task again. A run that lasts [`STABLE_AFTER`] resets that wait. Readiness reports a task that has not run
//! stably for [`DOWN_AFTER`], so a task that fails right after each restart counts as down as well.

use std::{
    any::Any,
    collections::BTreeMap,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{FutureExt as _, future::BoxFuture};
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    error::Result,
    retry::{Backoff, RetryPolicy},
};

/// The delay before a task runs again.
const RESTARTS: RetryPolicy = RetryPolicy::exponential(Duration::from_millis(200), Duration::from_secs(5));
/// A run of this length counts as a success.
const STABLE_AFTER: Duration = Duration::from_secs(5);
/// A task that has not run stably for this long is down.
const DOWN_AFTER: Duration = Duration::from_secs(10);

/// When a task may end without being restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// It drains and ends once [`Supervisor::stopping`] is cancelled.
    UntilStopping,
    /// It serves the drain of the others. The supervisor drops it at the very end.
    UntilShutdown,
    /// It ends by itself when its work is done. Readiness does not list it.
    UntilDone,
}

/// What the supervisor runs, again after each failure.
pub struct Task {
    /// In snake case: a label of a metric, and a key of the readiness response.
    pub name: String,
    pub lifetime: Lifetime,
    /// Begins a run. Each run gets a state of its own, so what a panic left half done is not used again.
    pub start: Box<dyn FnMut() -> BoxFuture<'static, Result<()>> + Send>,
}

impl Task {
    pub fn new<F>(name: impl Into<String>, lifetime: Lifetime, mut start: impl FnMut() -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        Self { name: name.into(), lifetime, start: Box::new(move || start().boxed()) }
    }
}

type Decorator = Arc<dyn Fn(Task) -> Task + Send + Sync>;

/// Owns the long-running tasks of a process.
#[derive(Clone)]
pub struct Supervisor {
    /// Cancelled first: readiness is DOWN from then on, and calls are still answered.
    pub draining: CancellationToken,
    /// Cancelled when the process is about to end.
    pub stopping: CancellationToken,
    /// What the process waits for before it ends.
    pub tracker: TaskTracker,
    pub(crate) shutdown: CancellationToken,
    runs: Arc<Mutex<BTreeMap<String, Runs>>>,
    decorator: Option<Decorator>,
}

#[derive(Clone, Copy, Debug)]
struct Runs {
    running_since: Option<Instant>,
    /// When the last stable run ended, or the first run that was none.
    unstable_since: Option<Instant>,
}

impl Runs {
    fn end(&mut self, now: Instant) {
        // A short run keeps the earlier time: a task that fails right after each restart is then down after a while,
        // although it always looks as if it had just begun.
        let was_stable = self.running_since.take().is_some_and(|began| now - began >= STABLE_AFTER);
        if was_stable || self.unstable_since.is_none() {
            self.unstable_since = Some(now);
        }
    }

    fn is_up(&self, now: Instant) -> bool {
        self.running_since.is_some_and(|began| now - began >= STABLE_AFTER)
            || self.unstable_since.is_none_or(|since| now - since < DOWN_AFTER)
    }
}

impl Supervisor {
    pub fn new(stopping: CancellationToken) -> Self {
        Self {
            draining: CancellationToken::new(),
            stopping,
            tracker: TaskTracker::new(),
            shutdown: CancellationToken::new(),
            runs: Arc::default(),
            decorator: None,
        }
    }

    /// Whether the process is about to end.
    pub fn is_ending(&self) -> bool {
        self.draining.is_cancelled() || self.stopping.is_cancelled()
    }

    /// Changes every task before it is spawned. Tests inject faults with it.
    #[must_use]
    pub fn decorated(self, decorator: impl Fn(Task) -> Task + Send + Sync + 'static) -> Self {
        Self { decorator: Some(Arc::new(decorator)), ..self }
    }

    /// Runs a task from now on. One whose name is listed already is not started twice.
    pub fn spawn(&self, task: Task) {
        let task = match &self.decorator {
            Some(decorate) => decorate(task),
            None => task,
        };
        if task.lifetime != Lifetime::UntilDone {
            let begun = Runs { running_since: Some(Instant::now()), unstable_since: None };
            // Looked up and inserted under one lock, so that two callers cannot both start it.
            let mut runs = self.runs();
            if runs.contains_key(&task.name) {
                return;
            }
            runs.insert(task.name.clone(), begun);
        }
        if task.lifetime == Lifetime::UntilShutdown {
            // Not tracked: the process waits for the others, and this one serves them until then.
            tokio::spawn(self.clone().supervise(task));
        } else {
            self.tracker.spawn(self.clone().supervise(task));
        }
    }

    /// Whether each listed task is up.
    pub fn tasks(&self) -> Vec<(String, bool)> {
        let now = Instant::now();
        self.runs().iter().map(|(name, runs)| (name.clone(), runs.is_up(now))).collect()
    }

    /// Waits until what is tracked has drained, and then ends the tasks that served the drain.
    pub async fn shut_down(&self) {
        // A tracker that is still open never counts as drained.
        self.tracker.close();
        self.tracker.wait().await;
        self.shutdown.cancel();
    }

    async fn supervise(self, mut task: Task) {
        let mut backoff = Backoff::new(RESTARTS);
        loop {
            let began = Instant::now();
            self.mark_running(&task.name);
            let ended = tokio::select! {
                // The factory is called inside, as it may panic as well. Only `shutdown` drops a run half way: a task
                // that drains ends by itself, with nothing in flight.
                ended = catch_panic(async { (task.start)().await }) => ended,
                () = self.shutdown.cancelled() => return,
            };
            if self.may_end(&task, &ended) {
                return;
            }
            self.mark_ended(&task.name);
            if began.elapsed() >= STABLE_AFTER {
                backoff.reset();
            }
            if !backoff.wait(self.end_of(task.lifetime)).await {
                return;
            }
            metrics::counter!("dibs_task_restarts_total", "task" => task.name.clone()).increment(1);
        }
    }

    /// What asks a task to end. What drains or serves the drain is restarted during it, too.
    const fn end_of(&self, lifetime: Lifetime) -> &CancellationToken {
        match lifetime {
            Lifetime::UntilStopping => &self.stopping,
            Lifetime::UntilShutdown | Lifetime::UntilDone => &self.shutdown,
        }
    }

    fn mark_running(&self, name: &str) {
        if let Some(runs) = self.runs().get_mut(name) {
            runs.running_since = Some(Instant::now());
        }
    }

    fn mark_ended(&self, name: &str) {
        if let Some(runs) = self.runs().get_mut(name) {
            runs.end(Instant::now());
        }
    }

    /// Whether a task ended as it may. What it must not is logged.
    fn may_end(&self, task: &Task, ended: &Result<Result<()>, Panic>) -> bool {
        // A task may see its token before the supervisor does, and end first.
        let is_asked_to = self.end_of(task.lifetime).is_cancelled();
        let is_done = task.lifetime == Lifetime::UntilDone && matches!(ended, Ok(Ok(())));
        let name = &task.name;
        match ended {
            Err(Panic(cause)) if is_asked_to => tracing::error!(task = name, cause, "task panicked during shutdown"),
            _ if is_asked_to || is_done => {}
            Err(Panic(cause)) => tracing::error!(task = name, cause, "task panicked; restarting"),
            // A server is unreachable for a while: nothing for a person to do.
            Ok(Err(error)) if error.is_transient() => {
                tracing::warn!(task = name, cause = error.chain(), "task ended; restarting");
            }
            Ok(Err(error)) => tracing::error!(task = name, cause = error.chain(), "task ended; restarting"),
            Ok(Ok(())) => tracing::error!(task = name, cause = "it was not asked to end", "task ended; restarting"),
        }
        is_asked_to || is_done
    }

    fn runs(&self) -> MutexGuard<'_, BTreeMap<String, Runs>> {
        // The map holds moments only, which a panic cannot leave half written.
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panic(pub String);

/// Runs a future; a panic in it is an error here and ends nothing else.
pub async fn catch_panic<T>(future: impl Future<Output = T>) -> Result<T, Panic> {
    // Each caller starts again with a state of its own, so a state that a panic left half done is not seen.
    AssertUnwindSafe(future).catch_unwind().await.map_err(|payload| Panic(describe(&*payload)))
}

fn describe(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::error::Error;

    const STEP: Duration = Duration::from_millis(10);

    /// A task that counts its runs; `run` gets the number of the run, from 1.
    fn counted<F>(lifetime: Lifetime, run: impl Fn(u32) -> F + Send + 'static) -> (Task, Arc<AtomicU32>)
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let runs = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&runs);
        (Task::new("counted", lifetime, move || run(counter.fetch_add(1, Ordering::Relaxed) + 1)), runs)
    }

    async fn panic_at_once(_: u32) -> Result<()> {
        panic!("injected")
    }

    /// A supervisor of one task whose runs all panic.
    fn panicking() -> (Supervisor, Arc<AtomicU32>) {
        let supervisor = Supervisor::new(CancellationToken::new());
        let (task, runs) = counted(Lifetime::UntilStopping, panic_at_once);
        supervisor.spawn(task);
        (supervisor, runs)
    }

    /// How long it takes until so many runs have begun.
    async fn time_until(runs: &AtomicU32, number: u32) -> Duration {
        let began = Instant::now();
        while runs.load(Ordering::Relaxed) < number {
            tokio::time::sleep(STEP).await;
        }
        began.elapsed()
    }

    fn is_up(supervisor: &Supervisor) -> bool {
        supervisor.tasks() == [("counted".to_owned(), true)]
    }

    #[tokio::test(start_paused = true)]
    async fn the_delay_between_runs_grows_to_its_cap() {
        let (_supervisor, runs) = panicking();
        time_until(&runs, 1).await;
        for (number, delay_max) in [(2, 200), (3, 400), (4, 800), (5, 1_600), (6, 3_200), (7, 5_000), (8, 5_000)] {
            let delay = time_until(&runs, number).await;
            let delay_max = Duration::from_millis(delay_max);
            assert!((delay_max / 2..=delay_max + STEP).contains(&delay), "before run {number}: {delay:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stable_run_resets_the_delay() {
        let supervisor = Supervisor::new(CancellationToken::new());
        let (task, runs) = counted(Lifetime::UntilStopping, async |number| {
            tokio::time::sleep(if number == 6 { STABLE_AFTER } else { Duration::ZERO }).await;
            Err(Error::Overloaded)
        });
        supervisor.spawn(task);
        time_until(&runs, 6).await;
        let elapsed = time_until(&runs, 7).await;
        assert!(elapsed <= STABLE_AFTER + RESTARTS.base + STEP * 2, "{elapsed:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_keeps_failing_is_down_after_ten_seconds_until_a_run_is_stable() {
        let supervisor = Supervisor::new(CancellationToken::new());
        let is_broken = Arc::new(std::sync::atomic::AtomicBool::new(true));
        let broken = Arc::clone(&is_broken);
        let (task, runs) = counted(Lifetime::UntilStopping, move |_| {
            let is_broken = broken.load(Ordering::Relaxed);
            async move {
                assert!(!is_broken, "injected");
                std::future::pending().await
            }
        });
        supervisor.spawn(task);
        time_until(&runs, 1).await;
        tokio::time::sleep(DOWN_AFTER * 9 / 10).await;
        assert!(is_up(&supervisor));
        tokio::time::sleep(DOWN_AFTER / 10).await;
        assert!(!is_up(&supervisor));
        is_broken.store(false, Ordering::Relaxed);
        let failed = runs.load(Ordering::Relaxed);
        time_until(&runs, failed + 1).await;
        assert!(!is_up(&supervisor), "it may fail again at once");
        tokio::time::sleep(STABLE_AFTER).await;
        assert!(is_up(&supervisor));
    }

    #[tokio::test(start_paused = true)]
    async fn one_failure_after_a_stable_run_does_not_make_a_task_down() {
        let supervisor = Supervisor::new(CancellationToken::new());
        let (task, runs) = counted(Lifetime::UntilStopping, async |number| {
            tokio::time::sleep(if number == 1 { STABLE_AFTER } else { Duration::MAX }).await;
            Ok(())
        });
        supervisor.spawn(task);
        time_until(&runs, 2).await;
        for _ in 0..200 {
            assert!(is_up(&supervisor));
            tokio::time::sleep(DOWN_AFTER / 100).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_ends_when_the_process_stops_and_one_that_is_done_is_not_restarted() {
        let supervisor = Supervisor::new(CancellationToken::new());
        let (done, done_runs) =
            counted(Lifetime::UntilDone, async |number| if number == 1 { Err(Error::Overloaded) } else { Ok(()) });
        supervisor.spawn(done);
        let stopping = supervisor.stopping.clone();
        let (task, runs) = counted(Lifetime::UntilStopping, move |_| stopping.clone().cancelled_owned().map(Ok));
        supervisor.spawn(task);
        let served = supervisor.stopping.clone();
        let service = Task::new("service", Lifetime::UntilShutdown, move || served.clone().cancelled_owned().map(Ok));
        supervisor.spawn(service);
        time_until(&runs, 1).await;
        time_until(&done_runs, 2).await;
        supervisor.stopping.cancel();
        supervisor.shut_down().await;
        assert_eq!((runs.load(Ordering::Relaxed), done_runs.load(Ordering::Relaxed)), (1, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_sees_the_end_before_its_supervisor_ended_as_it_may() {
        let supervisor = Supervisor::new(CancellationToken::new());
        let serving = Task::new("service", Lifetime::UntilShutdown, async || Ok(()));
        assert!(!supervisor.may_end(&serving, &Ok(Ok(()))), "nothing asked it to end");
        supervisor.stopping.cancel();
        assert!(!supervisor.may_end(&serving, &Ok(Ok(()))), "it serves the drain of the others");
        supervisor.shut_down().await;
        assert!(supervisor.may_end(&serving, &Ok(Ok(()))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_waits_for_its_restart_ends_at_once_when_the_process_stops() {
        let (supervisor, runs) = panicking();
        time_until(&runs, 5).await;
        let stopped = Instant::now();
        supervisor.stopping.cancel();
        supervisor.shut_down().await;
        assert_eq!(stopped.elapsed(), Duration::ZERO);
    }
}
