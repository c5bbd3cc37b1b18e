use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use dibs_common::{
    clock,
    db::Database,
    domain::order::{Command, OrderOutcome, OrderRules},
    error::{Error, Result},
    identifiers::Partition,
    redis::{
        Redis,
        streams::{OrderEntry, OrderOutcomeMessage, OrderStream},
    },
};
use metrics::{Counter, Histogram, counter, histogram};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{InFlight, execute_batch, transaction::fail_permanently};

/// Commands that one transaction carries out, and lines of their orders together.
const MAX_BATCH: usize = 500;
const MAX_LINES: usize = 2_000;
/// Outcomes told in one message.
const TOLD_TOGETHER: usize = 50;
/// Batches that are told and acknowledged while the next is in its transaction.
const SETTLING: usize = 4;
/// Attempts after which an entry that fails by itself goes to the dead letters.
const MAX_ATTEMPTS: u64 = 5;
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Carries out the commands of one process, batch after batch, so that those of a user keep their order in it.
#[derive(Clone)]
pub struct CommandProcessor {
    database: Database,
    redis: Redis,
    rules: OrderRules,
    meters: Arc<Meters>,
}

struct Meters {
    done: Counter,
    refused: Counter,
    dead: Counter,
    batch_size: Histogram,
    lag: Histogram,
}

impl CommandProcessor {
    /// A desk with these rules.
    pub fn new(database: &Database, redis: &Redis, rules: OrderRules) -> Self {
        let meters = Meters {
            done: counter!("dibs_commands_total", "outcome" => "done"),
            refused: counter!("dibs_commands_total", "outcome" => "refused"),
            dead: counter!("dibs_command_entries_dead_lettered_total"),
            batch_size: histogram!("dibs_command_batch_size"),
            lag: histogram!("dibs_command_lag_seconds"),
        };
        Self { database: database.clone(), redis: redis.clone(), rules, meters: Arc::new(meters) }
    }

    /// Works on what is handed on until nothing more will be, and then on what is in hand.
    pub async fn run(self, mut handed_on: mpsc::Receiver<Vec<InFlight>>, stopping: CancellationToken) {
        let mut settling = JoinSet::new();
        let mut in_hand = VecDeque::new();
        while let Some(batch) = next_batch(&mut handed_on, &mut in_hand).await {
            let Some((batch, outcomes)) = self.execute(batch, &stopping).await else { continue };
            if settling.len() >= SETTLING {
                settling.join_next().await;
            }
            let (desk, stopping) = (self.clone(), stopping.clone());
            settling.spawn(async move { desk.settle(&batch, &outcomes, &stopping).await });
        }
        while settling.join_next().await.is_some() {}
    }

    /// What [`CommandProcessor::run`] does with one batch, from beginning to end.
    pub async fn work(&self, batch: Vec<InFlight>) {
        let stopping = CancellationToken::new();
        if let Some((batch, outcomes)) = self.execute(batch, &stopping).await {
            self.settle(&batch, &outcomes, &stopping).await;
        }
    }

    /// Makes a batch durable, for as long as the database is away again and again; then each entry by itself, if the
    /// fault is in one of them. None when nothing of it is durable; it stays on its stream and comes again.
    async fn execute(
        &self,
        batch: Vec<InFlight>,
        stopping: &CancellationToken,
    ) -> Option<(Vec<InFlight>, Vec<OrderOutcome>)> {
        let (batch, commands) = self.decode(batch).await;
        if batch.is_empty() {
            return None;
        }
        match self.persist(&commands, stopping).await {
            Ok(outcomes) => Some((batch, outcomes)),
            Err(error) if error.is_transient() => {
                tracing::warn!(entries = batch.len(), cause = error.chain(), "commands are left for later");
                release(&batch);
                None
            }
            Err(error) if batch.len() == 1 => {
                self.fail(&batch[0], &error.chain()).await;
                None
            }
            Err(error) => {
                let entries = batch.len();
                tracing::warn!(entries, cause = error.chain(), "a batch failed; its commands are tried one by one");
                let (mut durable, mut outcomes) = (Vec::new(), Vec::new());
                for entry in batch {
                    if let Some((one, outcome)) = Box::pin(self.execute(vec![entry], stopping)).await {
                        durable.extend(one);
                        outcomes.extend(outcome);
                    }
                }
                Some((durable, outcomes))
            }
        }
    }

    /// The entries that say something, and what they say.
    async fn decode(&self, batch: Vec<InFlight>) -> (Vec<InFlight>, Vec<Command>) {
        let (mut decode, mut commands) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        for entry in batch {
            match &entry.delivery.entry {
                Ok(OrderEntry { command, .. }) => {
                    commands.push(command.clone());
                    decode.push(entry);
                }
                Err(malformed) => self.fail(&entry, &malformed.to_string()).await,
            }
        }
        (decode, commands)
    }

    async fn persist(&self, commands: &[Command], stopping: &CancellationToken) -> Result<Vec<OrderOutcome>> {
        let mut pause = SHORTEST_PAUSE;
        loop {
            match execute_batch(&self.database, commands, &self.rules, clock::now()).await {
                Err(error @ Error::DependencyUnavailable { .. }) if !stopping.is_cancelled() => {
                    tracing::warn!(cause = error.chain(), "commands wait for the database");
                    wait(&mut pause, stopping).await;
                }
                persisted => return persisted,
            }
        }
    }

    /// What comes after the outcomes are durable: a word to whoever waits, then off the streams.
    async fn settle(&self, batch: &[InFlight], outcomes: &[OrderOutcome], stopping: &CancellationToken) {
        self.measure(batch, outcomes);
        self.answer_waiting(batch, outcomes).await;
        let mut pause = SHORTEST_PAUSE;
        while let Err(error) = acknowledge(batch).await {
            if stopping.is_cancelled() || !error.is_transient() {
                tracing::warn!(cause = error.chain(), "commands that were carried out stay on the stream for now");
                release(batch);
                return;
            }
            wait(&mut pause, stopping).await;
        }
    }

    /// Tells the outcomes to the processes that wait for them. A word that is lost is found in the database.
    async fn answer_waiting(&self, batch: &[InFlight], outcomes: &[OrderOutcome]) {
        let mut words: BTreeMap<&str, Vec<OrderOutcomeMessage>> = BTreeMap::new();
        for (entry, outcome) in batch.iter().zip(outcomes) {
            if let Ok(OrderEntry { answers, command, .. }) = &entry.delivery.entry
                && !answers.is_empty()
            {
                let answer = OrderOutcomeMessage { command: command.id, outcome: outcome.clone() };
                words.entry(answers).or_default().push(answer);
            }
        }
        for (channel, answers) in words {
            for answers in answers.chunks(TOLD_TOGETHER) {
                let told = match OrderOutcomeMessage::write_all(answers) {
                    Ok(message) => self.redis.publish(channel, message).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = told {
                    tracing::debug!(channel, cause = error.chain(), "outcomes could not be told");
                }
            }
        }
    }

    fn measure(&self, batch: &[InFlight], outcomes: &[OrderOutcome]) {
        let now = clock::now();
        for (entry, outcome) in batch.iter().zip(outcomes) {
            let Ok(OrderEntry { request, command, .. }) = &entry.delivery.entry else { continue };
            self.meters.lag.record((now - command.at).to_std().unwrap_or_default());
            match outcome {
                OrderOutcome::Done(_) => self.meters.done.increment(1),
                OrderOutcome::Rejected(_) => self.meters.refused.increment(1),
            }
            tracing::debug!(request_id = request, command = %command.id, user = %command.user, "command has its outcome");
        }
        #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
        self.meters.batch_size.record(batch.len() as f64);
    }

    /// An entry failed by itself. It stays pending and comes again; after [`MAX_ATTEMPTS`] its command is refused, so
    /// that it has an outcome, and it is buried.
    async fn fail(&self, entry: &InFlight, reason: &str) {
        let (id, attempts) = (&entry.delivery.id, entry.delivery.attempts);
        if attempts < MAX_ATTEMPTS {
            tracing::warn!(entry = id, attempts, reason, "a command failed and is tried again");
            entry.stream.release([id.as_str()]);
            return;
        }
        if let Err(error) = self.fail_permanently(entry).await {
            tracing::warn!(entry = id, cause = error.chain(), "a command that failed cannot be refused now");
            if error.is_transient() {
                entry.stream.release([id.as_str()]);
                return;
            }
        }
        match entry.stream.bury(&entry.delivery, reason).await {
            Ok(_) => {
                self.meters.dead.increment(1);
                tracing::error!(
                    entry = id,
                    attempts,
                    reason,
                    "a command failed again and again; it is a dead letter now"
                );
            }
            Err(error) => tracing::warn!(entry = id, cause = error.chain(), "a dead letter could not be moved now"),
        }
    }

    async fn fail_permanently(&self, entry: &InFlight) -> Result<()> {
        if let Ok(OrderEntry { command, .. }) = &entry.delivery.entry {
            let outcome = fail_permanently(&self.database, command, &self.rules, clock::now()).await?;
            self.answer_waiting(std::slice::from_ref(entry), &[outcome]).await;
        }
        Ok(())
    }
}

/// What is there, up to a full batch; waits for the first. None when nothing more will come.
async fn next_batch(
    handed_on: &mut mpsc::Receiver<Vec<InFlight>>,
    in_hand: &mut VecDeque<InFlight>,
) -> Option<Vec<InFlight>> {
    if in_hand.is_empty() {
        in_hand.extend(handed_on.recv().await?);
    }
    while in_hand.len() < MAX_BATCH {
        match handed_on.try_recv() {
            Ok(more) => in_hand.extend(more),
            Err(_) => break,
        }
    }
    let mut lines = 0;
    let size = in_hand.iter().take(MAX_BATCH).take_while(|entry| {
        lines += entry.delivery.entry.as_ref().map_or(0, |entry| entry.command.lines());
        lines <= MAX_LINES
    });
    let size = size.count().max(1);
    Some(in_hand.drain(..size).collect())
}

/// Leaves a batch for later.
fn release(batch: &[InFlight]) {
    for InFlight { stream, delivery } in batch {
        stream.release([delivery.id.as_str()]);
    }
}

/// Takes a batch off its streams; what is off already stays so.
async fn acknowledge(batch: &[InFlight]) -> Result<()> {
    let mut streams: BTreeMap<Partition, (&OrderStream, Vec<String>)> = BTreeMap::new();
    for InFlight { stream, delivery } in batch {
        streams.entry(stream.partition).or_insert_with(|| (stream, Vec::new())).1.push(delivery.id.clone());
    }
    for (stream, entries) in streams.into_values() {
        stream.acknowledge(&entries).await?;
    }
    Ok(())
}

async fn wait(pause: &mut Duration, stopping: &CancellationToken) {
    tokio::select! {
        () = tokio::time::sleep(*pause) => {}
        () = stopping.cancelled() => {}
    }
    *pause = (*pause * 2).min(LONGEST_PAUSE);
}
