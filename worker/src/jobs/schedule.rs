use std::time::Duration;

use dibs_common::{
    clock,
    error::{Error, Result},
};
use tokio_cron_scheduler::{Job as Timed, JobScheduler};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Jobs;

/// Each hour, and ten minutes after midnight: second, minute, hour, day, month, weekday, in the shop's time zone.
const TIMES: [&str; 2] = ["0 0 * * * *", "0 10 0 * * *"];
/// How soon after a failure at the start it is tried again.
const PAUSE: Duration = Duration::from_secs(30);

/// Does what is due: at the start, each hour, and at 00:10. A time that comes while no worker runs is made up for at
/// the next.
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
    for time in TIMES {
        let (jobs, tasks) = (jobs.clone(), tasks.clone());
        let timed = Timed::new_async_tz(time, jobs.zone, move |_, _| {
            let (jobs, tasks) = (jobs.clone(), tasks.clone());
            // The scheduler waits for nothing when it ends; the tracker does.
            Box::pin(async move { drop(tasks.spawn(run_logged(jobs))) })
        });
        scheduler.add(timed.map_err(Error::internal)?).await.map_err(Error::internal)?;
    }
    scheduler.start().await.map_err(Error::internal)?;
    Ok(scheduler)
}

async fn run_logged(jobs: Jobs) {
    if let Err(error) = jobs.run_due(clock::now()).await {
        tracing::warn!(cause = error.chain(), "jobs cannot be done now; they are tried again within the hour");
    }
}
