use dibs_common::{
    clock::{self, Timestamp},
    db::Database,
    domain::order::{Command, OrderOutcome, OrderRules},
    error::Result,
    redis::{
        Redis,
        streams::{OrderEntry, OrderOutcomeMessage},
    },
};
use metrics::{Counter, Histogram, counter, histogram};

use super::{execute_batch, transaction};
use crate::streams::{Handler, Limits, publish_outcomes};

/// Outcomes of one message. An outcome holds a whole order.
const OUTCOMES_PER_MESSAGE: usize = 50;

/// Executes the commands of all partitions.
pub struct CommandHandler {
    database: Database,
    redis: Redis,
    rules: OrderRules,
    meters: Meters,
}

struct Meters {
    done: Counter,
    rejected: Counter,
    batch_size: Histogram,
    lag: Histogram,
}

impl CommandHandler {
    pub fn new(database: &Database, redis: &Redis, rules: OrderRules) -> Self {
        let meters = Meters {
            done: counter!("dibs_commands_total", "outcome" => "done"),
            rejected: counter!("dibs_commands_total", "outcome" => "refused"),
            batch_size: histogram!("dibs_command_batch_size"),
            lag: histogram!("dibs_command_lag_seconds"),
        };
        Self { database: database.clone(), redis: redis.clone(), rules, meters }
    }
}

impl Handler for CommandHandler {
    type Entry = OrderEntry;
    type Outcome = OrderOutcome;

    // One transaction after the other: a product that all users order is locked once for hundreds of orders, and a
    // user's commands keep their order. Up to four batches leave their streams beside it. The queue is long enough that
    // a batch gets entries of every partition.
    const LIMITS: Limits =
        Limits { read: 200, queued_reads: 64, entries: 500, load: 2_000, processing: 1, in_flight: 5 };

    // Orders of all users need the rows of products.
    const KEYS_SHARE_ROWS: bool = true;

    /// A user's commands must not overtake each other.
    fn key(entry: &OrderEntry) -> u64 {
        entry.command.user.get()
    }

    async fn find_locked(&self, entries: &[&OrderEntry]) -> Result<Vec<bool>> {
        let commands: Vec<Command> = entries.iter().map(|entry| entry.command.clone()).collect();
        transaction::find_locked(&self.database, &commands).await
    }

    /// Lines of an order: each needs the row of its product.
    fn load(entry: &OrderEntry) -> usize {
        entry.command.lines()
    }

    async fn process(&self, entries: &[&OrderEntry]) -> Result<Vec<OrderOutcome>> {
        let commands: Vec<Command> = entries.iter().map(|entry| entry.command.clone()).collect();
        execute_batch(&self.database, &commands, &self.rules, clock::now()).await
    }

    async fn publish(&self, entries: &[&OrderEntry], outcomes: &[OrderOutcome]) {
        let mut messages = Vec::new();
        for (entry, outcome) in entries.iter().zip(outcomes).filter(|(entry, _)| !entry.reply_channel.is_empty()) {
            let message = OrderOutcomeMessage { command: entry.command.id, outcome: outcome.clone() };
            messages.push((entry.reply_channel.as_str(), message));
        }
        publish_outcomes(&self.redis, messages, OUTCOMES_PER_MESSAGE, OrderOutcomeMessage::write_all).await;
    }

    fn measure(&self, entries: &[&OrderEntry], outcomes: &[OrderOutcome], durable_at: Timestamp) {
        for (OrderEntry { request, command, .. }, outcome) in entries.iter().zip(outcomes) {
            self.meters.lag.record((durable_at - command.at).to_std().unwrap_or_default());
            match outcome {
                OrderOutcome::Done(_) => self.meters.done.increment(1),
                OrderOutcome::Rejected(_) => self.meters.rejected.increment(1),
            }
            tracing::debug!(request_id = request, command = %command.id, user = %command.user, "command has its outcome");
        }
        #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
        self.meters.batch_size.record(entries.len() as f64);
    }

    async fn fail_permanently(&self, entry: &OrderEntry) -> Result<Option<OrderOutcome>> {
        transaction::fail_permanently(&self.database, &entry.command, &self.rules, clock::now()).await.map(Some)
    }
}
