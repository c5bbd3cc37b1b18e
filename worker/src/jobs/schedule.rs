use std::time::Duration;

use dibs_common::{
    clock,
    error::{Error, Result},
};
use tokio_cron_scheduler::{Job as Timed, JobScheduler};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Job, Jobs};

/// When the jobs that are kept for each business day are looked at: each hour, and ten minutes after midnight. Second,
/// minute, hour, day, month, weekday, in the shop's time zone.
const DUE: [&str; 2] = ["0 0 * * * *", "0 10 0 * * *"];
/// When the others are done.
const OTHERS: [(&str, Job); 3] =
    [("*/5 * * * * *", Job::ExpireOrders), ("*/5 * * * * *", Job::ExpireCoupons), ("45 * * * * *", Job::Purge)];
/// How soon after a failure at the start it is tried again.
const PAUSE: Duration = Duration::from_secs(30);

/// Does what is due: at the start, each hour, and at 00:10; and the other jobs at their times. A time that comes while no
/// worker runs is made up for at the next.
pub async fn run_on_schedule(jobs: Jobs, tasks: TaskTracker, stopping: CancellationToken) {
    let mut scheduler = match scheduler(&jobs, &tasks).await {
        Ok(scheduler) => scheduler,
        Err(error) => return tracing::error!(cause = error.chain(), "jobs are done by hand only"),
    };
    while !stopping.is_cancelled() {
        match jobs.run_due(clock::now()).await {
            Ok(()) => stopping.cancelled().await,
            Err(error) => {
                tracing::warn!(cause = error.chain(), "jobs cannot be done now");
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    () = stopping.cancelled() => {}
                }
            }
        }
    }
    if let Err(error) = scheduler.shutdown().await {
        tracing::debug!(%error, "the scheduler was gone before it was stopped");
    }
}

async fn scheduler(jobs: &Jobs, tasks: &TaskTracker) -> Result<JobScheduler> {
    let scheduler = JobScheduler::new().await.map_err(Error::internal)?;
    let due = DUE.iter().map(|time| (*time, None));
    for (time, job) in due.chain(OTHERS.iter().map(|(time, job)| (*time, Some(*job)))) {
        let (jobs, tasks) = (jobs.clone(), tasks.clone());
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

/// Does a job, or without one what is due.
async fn run_logged(jobs: Jobs, job: Option<Job>) {
    let now = clock::now();
    let done = match job {
        Some(job) => jobs.run(job, None, now).await.map(drop),
        None => jobs.run_due(now).await,
    };
    if let Err(error) = done {
        let job = job.map_or("what is due", Job::name);
        tracing::warn!(job, cause = error.chain(), "a job cannot be done now; it is tried again at its next time");
    }
}
