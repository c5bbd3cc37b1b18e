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
use metrics::{counter, histogram};

use super::{execute_batch, transaction};
use crate::streams::{Handler, Limits, OutcomeMeters, publish_outcomes};

/// Outcomes of one message. An outcome holds a whole order.
const OUTCOMES_PER_MESSAGE: usize = 50;

/// Executes the commands of all partitions.
pub struct CommandHandler {
    database: Database,
    redis: Redis,
    rules: OrderRules,
    meters: OutcomeMeters,
}

impl CommandHandler {
    pub fn new(database: &Database, redis: &Redis, rules: OrderRules) -> Self {
        let meters = OutcomeMeters {
            done: counter!("dibs_commands_total", "outcome" => "done"),
            rejected: counter!("dibs_commands_total", "outcome" => "rejected"),
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
        execute_batch(&self.database, &commands, &self.rules, clock::now).await
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
        let (mut commands, mut done) = (0_u32, 0_u32);
        for (OrderEntry { request, command, .. }, outcome) in entries.iter().zip(outcomes) {
            self.meters.record_lag(command.at, durable_at);
            commands += 1;
            done += u32::from(matches!(outcome, OrderOutcome::Done(_)));
            tracing::debug!(request_id = request, command = %command.id, user = %command.user, "command has its outcome");
        }
        self.meters.record_batch(commands, done);
    }

    async fn fail_permanently(&self, entry: &OrderEntry) -> Result<Option<OrderOutcome>> {
        transaction::fail_permanently(&self.database, &entry.command, &self.rules, clock::now()).await.map(Some)
    }
}
