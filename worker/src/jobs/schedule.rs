use std::{panic::resume_unwind, time::Duration};

use dibs_common::{
    clock,
    error::{Error, Result},
    retry::{Backoff, RetryPolicy},
    supervisor::{Panic, catch_panic},
};
use futures::FutureExt as _;
use tokio_cron_scheduler::{Job as Timed, JobScheduler};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Job, Jobs};

/// When missed business days are looked for: each hour, and ten minutes after midnight. The fields are second, minute,
/// hour, day, month, weekday, in the shop's time zone.
const DUE: [&str; 2] = ["0 0 * * * *", "0 10 0 * * *"];
const OTHERS: [(&str, Job); 3] =
    [("*/5 * * * * *", Job::ExpireOrders), ("*/5 * * * * *", Job::ExpireCoupons), ("45 * * * * *", Job::Purge)];
/// When jobs that are due at the start are retried.
const RETRIES: RetryPolicy = RetryPolicy::constant(Duration::from_secs(30));

/// Runs what is due: at the start, each hour, and at 00:10; and the other jobs at their times. A time that comes while
/// no worker runs is made up for at the next.
///
/// # Errors
///
/// When there can be no scheduler.
pub async fn run_on_schedule(jobs: Jobs, tasks: TaskTracker, stopping: CancellationToken) -> Result<()> {
    let mut scheduler = scheduler(&jobs, &tasks).await?;
    let outcome = catch_panic(run_due_at_start(&jobs, &stopping).boxed()).await;
    // Also after a panic: the scheduler runs in tasks of its own, and would go on beside that of the next run.
    if let Err(error) = scheduler.shutdown().await {
        tracing::debug!(%error, "scheduler already shut down");
    }
    outcome.unwrap_or_else(|panic| resume_unwind(Box::new(panic.0)));
    Ok(())
}

async fn run_due_at_start(jobs: &Jobs, stopping: &CancellationToken) {
    let mut backoff = Backoff::new(RETRIES);
    // Times that passed while no worker ran are never made up for by the scheduler.
    while let Err(error) = jobs.run_due(clock::now()).await {
        tracing::warn!(cause = error.chain(), "due jobs failed; retrying");
        if !backoff.wait(stopping).await {
            return;
        }
    }
    stopping.cancelled().await;
}

async fn scheduler(jobs: &Jobs, tasks: &TaskTracker) -> Result<JobScheduler> {
    let scheduler = JobScheduler::new().await.map_err(Error::internal)?;
    let due = DUE.iter().map(|time| (*time, None));
    for (time, job) in due.chain(OTHERS.iter().map(|(time, job)| (*time, Some(*job)))) {
        let (jobs, tasks) = (jobs.clone(), tasks.clone());
        // Cron expressions and not intervals: the scheduler's repeated jobs can stop for good.
        let timed = Timed::new_async_tz(time, jobs.zone, move |_, _| {
            let (jobs, tasks) = (jobs.clone(), tasks.clone());
            // The scheduler waits for nothing when it ends; the tracker does.
            Box::pin(async move { drop(tasks.spawn(run_logged(jobs, job))) })
        });
        scheduler.add(timed.map_err(Error::internal)?).await.map_err(Error::internal)?;
    }
    scheduler.start().await.map_err(Error::internal)?;
    Ok(scheduler)
}

/// Runs a job, or without one all that is due.
async fn run_logged(jobs: Jobs, job: Option<Job>) {
    let now = clock::now();
    let run = async {
        match job {
            Some(job) => jobs.run(job, None, now).await.map(drop),
            None => jobs.run_due(now).await,
        }
    };
    let job = job.map_or("due", Job::name);
    match catch_panic(run.boxed()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(job, cause = error.chain(), "job failed; it runs again at its next time"),
        Err(Panic(cause)) => tracing::error!(job, cause, "job panicked; it runs again at its next time"),
    }
}
