use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use dibs_common::{
    clock,
    db::Database,
    domain::order::{Command, OrderRules, Outcome},
    error::{Error, Result},
    identifiers::Partition,
    redis::{
        Redis,
        streams::{OrderAnswer, OrderEntry, OrderStream},
    },
};
use metrics::{Counter, Histogram, counter, histogram};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{InHand, carry_out_batch, transaction::give_up};

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
pub struct Desk {
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

impl Desk {
    /// A desk with these rules.
    pub fn new(database: &Database, redis: &Redis, rules: OrderRules) -> Self {
        let meters = Meters {
            done: counter!("dibs_commands_total", "outcome" => "done"),
            refused: counter!("dibs_commands_total", "outcome" => "refused"),
            dead: counter!("dibs_command_entries_buried_total"),
            batch_size: histogram!("dibs_command_batch_size"),
            lag: histogram!("dibs_command_lag_seconds"),
        };
        Self { database: database.clone(), redis: redis.clone(), rules, meters: Arc::new(meters) }
    }

    /// Works on what is handed on until nothing more will be, and then on what is in hand.
    pub async fn run(self, mut handed_on: mpsc::Receiver<Vec<InHand>>, stopping: CancellationToken) {
        let mut settling = JoinSet::new();
        let mut in_hand = VecDeque::new();
        while let Some(batch) = next_batch(&mut handed_on, &mut in_hand).await {
            let Some((batch, outcomes)) = self.carry_out(batch, &stopping).await else { continue };
            if settling.len() >= SETTLING {
                settling.join_next().await;
            }
            let (desk, stopping) = (self.clone(), stopping.clone());
            settling.spawn(async move { desk.settle(&batch, &outcomes, &stopping).await });
        }
        while settling.join_next().await.is_some() {}
    }

    /// What [`Desk::run`] does with one batch, from beginning to end.
    pub async fn work(&self, batch: Vec<InHand>) {
        let stopping = CancellationToken::new();
        if let Some((batch, outcomes)) = self.carry_out(batch, &stopping).await {
            self.settle(&batch, &outcomes, &stopping).await;
        }
    }

    /// Makes a batch durable, for as long as the database is away again and again; then each entry by itself, if the
    /// fault is in one of them. None when nothing of it is durable; it stays on its stream and comes again.
    async fn carry_out(&self, batch: Vec<InHand>, stopping: &CancellationToken) -> Option<(Vec<InHand>, Vec<Outcome>)> {
        let (batch, commands) = self.understood(batch).await;
        if batch.is_empty() {
            return None;
        }
        match self.persist(&commands, stopping).await {
            Ok(outcomes) => Some((batch, outcomes)),
            Err(error) if error.is_transient() => {
                tracing::warn!(entries = batch.len(), cause = error.chain(), "commands are left for later");
                let_go(&batch);
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
                    if let Some((one, outcome)) = Box::pin(self.carry_out(vec![entry], stopping)).await {
                        durable.extend(one);
                        outcomes.extend(outcome);
                    }
                }
                Some((durable, outcomes))
            }
        }
    }

    /// The entries that say something, and what they say.
    async fn understood(&self, batch: Vec<InHand>) -> (Vec<InHand>, Vec<Command>) {
        let (mut understood, mut commands) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        for entry in batch {
            match &entry.delivery.entry {
                Ok(OrderEntry { command, .. }) => {
                    commands.push(command.clone());
                    understood.push(entry);
                }
                Err(malformed) => self.fail(&entry, &malformed.to_string()).await,
            }
        }
        (understood, commands)
    }

    async fn persist(&self, commands: &[Command], stopping: &CancellationToken) -> Result<Vec<Outcome>> {
        let mut pause = SHORTEST_PAUSE;
        loop {
            match carry_out_batch(&self.database, commands, &self.rules, clock::now()).await {
                Err(error @ Error::DependencyUnavailable { .. }) if !stopping.is_cancelled() => {
                    tracing::warn!(cause = error.chain(), "commands wait for the database");
                    wait(&mut pause, stopping).await;
                }
                persisted => return persisted,
            }
        }
    }

    /// What comes after the outcomes are durable: a word to whoever waits, then off the streams.
    async fn settle(&self, batch: &[InHand], outcomes: &[Outcome], stopping: &CancellationToken) {
        self.measure(batch, outcomes);
        self.answer_waiting(batch, outcomes).await;
        let mut pause = SHORTEST_PAUSE;
        while let Err(error) = acknowledge(batch).await {
            if stopping.is_cancelled() || !error.is_transient() {
                tracing::warn!(cause = error.chain(), "commands that were carried out stay on the stream for now");
                let_go(batch);
                return;
            }
            wait(&mut pause, stopping).await;
        }
    }

    /// Tells the outcomes to the processes that wait for them. A word that is lost is found in the database.
    async fn answer_waiting(&self, batch: &[InHand], outcomes: &[Outcome]) {
        let mut words: BTreeMap<&str, Vec<OrderAnswer>> = BTreeMap::new();
        for (entry, outcome) in batch.iter().zip(outcomes) {
            if let Ok(OrderEntry { answers, command, .. }) = &entry.delivery.entry
                && !answers.is_empty()
            {
                let answer = OrderAnswer { command: command.id, outcome: outcome.clone() };
                words.entry(answers).or_default().push(answer);
            }
        }
        for (channel, answers) in words {
            for answers in answers.chunks(TOLD_TOGETHER) {
                let told = match OrderAnswer::write_all(answers) {
                    Ok(message) => self.redis.publish(channel, message).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = told {
                    tracing::debug!(channel, cause = error.chain(), "outcomes could not be told");
                }
            }
        }
    }

    fn measure(&self, batch: &[InHand], outcomes: &[Outcome]) {
        let now = clock::now();
        for (entry, outcome) in batch.iter().zip(outcomes) {
            let Ok(OrderEntry { request, command, .. }) = &entry.delivery.entry else { continue };
            self.meters.lag.record((now - command.at).to_std().unwrap_or_default());
            match outcome {
                Outcome::Done(_) => self.meters.done.increment(1),
                Outcome::Refused(_) => self.meters.refused.increment(1),
            }
            tracing::debug!(request_id = request, command = %command.id, user = %command.user, "command has its outcome");
        }
        #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
        self.meters.batch_size.record(batch.len() as f64);
    }

    /// An entry failed by itself. It stays pending and comes again; after [`MAX_ATTEMPTS`] its command is refused, so
    /// that it has an outcome, and it is buried.
    async fn fail(&self, entry: &InHand, reason: &str) {
        let (id, attempts) = (&entry.delivery.id, entry.delivery.attempts);
        if attempts < MAX_ATTEMPTS {
            tracing::warn!(entry = id, attempts, reason, "a command failed and is tried again");
            entry.stream.let_go([id.as_str()]);
            return;
        }
        if let Err(error) = self.give_up(entry).await {
            tracing::warn!(entry = id, cause = error.chain(), "a command that failed cannot be refused now");
            if error.is_transient() {
                entry.stream.let_go([id.as_str()]);
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

    async fn give_up(&self, entry: &InHand) -> Result<()> {
        if let Ok(OrderEntry { command, .. }) = &entry.delivery.entry {
            let outcome = give_up(&self.database, command, &self.rules, clock::now()).await?;
            self.answer_waiting(std::slice::from_ref(entry), &[outcome]).await;
        }
        Ok(())
    }
}

/// What is there, up to a full batch; waits for the first. None when nothing more will come.
async fn next_batch(
    handed_on: &mut mpsc::Receiver<Vec<InHand>>,
    in_hand: &mut VecDeque<InHand>,
) -> Option<Vec<InHand>> {
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
fn let_go(batch: &[InHand]) {
    for InHand { stream, delivery } in batch {
        stream.let_go([delivery.id.as_str()]);
    }
}

/// Takes a batch off its streams; what is off already stays so.
async fn acknowledge(batch: &[InHand]) -> Result<()> {
    let mut streams: BTreeMap<Partition, (&OrderStream, Vec<String>)> = BTreeMap::new();
    for InHand { stream, delivery } in batch {
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
