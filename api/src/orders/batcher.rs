use std::sync::Arc;

use dibs_common::{
    error::{Error, Result},
    identifiers::Partition,
    redis::{Redis, scripts, streams::OrderEntry},
    supervisor::{Lifetime, Supervisor, Task},
};
use futures::FutureExt as _;
use tokio::sync::{Mutex, mpsc, oneshot};

use super::MAX_STREAM_LENGTH;

/// Commands that one call of the script appends. One call of a partition is in flight at a time, so that the commands of
/// a user stay in their order; the next batch gathers meanwhile.
const MAX_BATCH: usize = 250;
/// Commands that wait for a call; more are answered `OVERLOADED`.
const MAX_QUEUED: usize = 10_000;

/// Puts the commands of one partition on its stream, those that wait in one call.
pub(super) struct CommandBatcher {
    queue: mpsc::Sender<QueuedCommand>,
}

struct QueuedCommand {
    fields: Vec<String>,
    caller: oneshot::Sender<Result<()>>,
}

impl CommandBatcher {
    /// Begins to send what is queued. Until shutdown: commands are accepted during the drain, too.
    pub(super) fn start(partition: Partition, redis: &Redis, supervisor: &Supervisor) -> Self {
        let (queue, queued) = mpsc::channel(MAX_QUEUED);
        // The queue outlives a run that panics, with the commands that wait in it.
        let (queued, redis) = (Arc::new(Mutex::new(queued)), redis.clone());
        let name = format!("command_batcher_{}", partition.0);
        supervisor.spawn(Task::new(name, Lifetime::UntilShutdown, move || {
            send_queued(redis.clone(), partition, Arc::clone(&queued)).map(Ok)
        }));
        Self { queue }
    }

    /// Returns when the command is on the stream. It gets there also when the caller goes away.
    pub(super) async fn enqueue(&self, entry: &OrderEntry) -> Result<()> {
        let (caller, appended) = oneshot::channel();
        let fields = entry.fields()?;
        self.queue.try_send(QueuedCommand { fields, caller }).map_err(|_| Error::Overloaded)?;
        appended.await.map_err(Error::internal)?
    }
}

async fn send_queued(redis: Redis, partition: Partition, queued: Arc<Mutex<mpsc::Receiver<QueuedCommand>>>) {
    let mut queued = queued.lock().await;
    loop {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        if queued.recv_many(&mut batch, MAX_BATCH).await == 0 {
            return;
        }
        let (entries, callers): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|command| (command.fields, command.caller)).unzip();
        let stream = redis.keys.order_stream(partition);
        let appended = scripts::enqueue_all(&redis, stream, MAX_STREAM_LENGTH, entries).await;
        for (place, caller) in callers.into_iter().enumerate() {
            let result = match &appended {
                Ok(appended) if place < *appended => Ok(()),
                Ok(_) => Err(Error::Overloaded),
                Err(error) => Err(error.shared()),
            };
            // A caller that went away finds the command at its status URL.
            let _gone = caller.send(result);
        }
        if let Err(error) = &appended {
            // Each call would fail after its time-out, and those behind it would wait for all of them.
            while let Ok(command) = queued.try_recv() {
                let _gone = command.caller.send(Err(error.shared()));
            }
        }
    }
}
