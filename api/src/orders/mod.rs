//! The way of a command: onto the stream of its user's partition, and its outcome back from the worker.

mod accepted;
mod batcher;
mod context;
mod outcomes;

use std::{sync::Arc, time::Duration};

pub use accepted::AcceptedCommand;
use batcher::CommandBatcher;
pub use context::CommandContext;
use dibs_common::{
    clock,
    db::{self, Database, orders::AwaitedCommand},
    domain::order::{Action, Command, CommandKind, CommandResult, OrderOutcome, OrderRejectReason, RejectCode},
    error::{Error, Result},
    identifiers::{CommandId, Partition, UserId, created_at},
    redis::{
        Redis,
        pending_commands::{self, PendingCommand},
        streams::OrderEntry,
    },
    supervisor::Supervisor,
};
use tokio::time::Instant;

use crate::{outcome_waiters::OutcomeWaiters, request_id::RequestId};

/// Commands of a partition that may be on its stream; more are answered `OVERLOADED`.
const MAX_STREAM_LENGTH: u64 = 50_000;
/// How long a caller without `Prefer: wait` waits for the outcome.
const DEFAULT_WAIT: Duration = Duration::from_secs(3);

/// All commands of this process.
pub struct Orders {
    database: Database,
    redis: Redis,
    /// One for each partition.
    batchers: Vec<CommandBatcher>,
    waiters: Arc<OutcomeWaiters<OrderOutcome>>,
}

/// A command that was put on its stream.
pub enum Submitted {
    Done(Box<CommandResult>),
    /// The outcome takes longer than the caller waits.
    Pending(AcceptedCommand),
}

impl Orders {
    /// Begins to listen for outcomes. At most `max_waiting` callers wait for one at once.
    pub async fn start(
        database: &Database,
        redis: &Redis,
        supervisor: &Supervisor,
        partitions: u16,
        max_waiting: usize,
    ) -> Result<Self> {
        let waiters = OutcomeWaiters::start(database, redis, supervisor, max_waiting).await?;
        let start = |partition| CommandBatcher::start(Partition(partition), redis, supervisor);
        let batchers = (0..partitions).map(start).collect();
        Ok(Self { database: database.clone(), redis: redis.clone(), batchers, waiters })
    }

    /// Puts a command on the stream and waits for its outcome, for as long as the caller prefers. A rejection is an
    /// error. A command whose id was submitted before is executed once, and has the same outcome.
    pub async fn submit(&self, context: CommandContext, user: UserId, action: Action) -> Result<Submitted> {
        let CommandContext { id, request_id, prefer } = context;
        let command = Command { id, user, at: clock::now(), action, trace: request_id.trace() };
        let default = if prefer.respond_async { Duration::ZERO } else { DEFAULT_WAIT };
        let wait = prefer.wait.unwrap_or(default);
        let deadline = Instant::now() + wait;
        // Before the command is on its stream: a fast worker publishes the outcome while the response of Redis is on
        // its way.
        let waiter = if wait.is_zero() { None } else { self.waiters.register(AwaitedCommand::from(&command)) };
        self.enqueue(&command, &request_id).await?;
        let outcome = match waiter {
            Some(waiter) => waiter.outcome(deadline).await,
            None => None,
        };
        match outcome {
            Some(OrderOutcome::Done(done)) => Ok(Submitted::Done(done)),
            Some(OrderOutcome::Rejected(reason)) => Err(self.rejection(&command, reason).await),
            None => Ok(Submitted::Pending(AcceptedCommand::remember(&self.redis, &command).await)),
        }
    }

    /// By user, so that the commands of one user are executed in the order in which they were accepted.
    fn batcher_of(&self, user: UserId) -> Result<&CommandBatcher> {
        let partitions = u16::try_from(self.batchers.len()).map_err(Error::internal)?;
        let partition = usize::from(Partition::of_user(user, partitions).0);
        self.batchers.get(partition).ok_or_else(|| Error::internal("a partition without a batcher"))
    }

    async fn enqueue(&self, command: &Command, request_id: &RequestId) -> Result<()> {
        let entry = OrderEntry {
            // Always: a repeat of the same command may wait although this request does not.
            reply_channel: self.waiters.channel().to_owned(),
            request: request_id.as_str().to_owned(),
            command: command.clone(),
        };
        self.batcher_of(command.user)?.enqueue(&entry).await
    }

    /// A command whose caller did not get the outcome; it may have one by now. None when a restore of the database has
    /// lost the outcome: it would be pending for a day.
    pub async fn pending(&self, id: CommandId) -> Result<Option<PendingCommand>> {
        let Some(found) = pending_commands::find(&self.redis, id).await? else { return Ok(None) };
        let epoch = db::within(db::epochs::position(&self.database.pool())).await?.epoch;
        let is_lost = created_at(id.0).is_some_and(|created| epoch.has_lost(created, clock::now()));
        Ok((!is_lost).then_some(found))
    }

    /// Whether the order of a command that did not find it appears later, or has appeared since.
    async fn appears_later(&self, command: &Command) -> bool {
        let order = command.order();
        // Redis before the database: an order that is placed between the two reads is found in the second.
        let pending = self.pending(CommandId(order.0)).await;
        match db::within(db::orders::find(&self.database.pool(), order)).await {
            // Another user's order is not found, whenever the caller comes.
            Ok(Some(found)) => found.user_id == command.user,
            Ok(None) => matches!(pending, Ok(Some(pending)) if pending.kind == CommandKind::Place
                && pending.user.is_none_or(|user| user == command.user)),
            Err(_) => false,
        }
    }

    /// A rejection as an error. Where the order is missing it may be on its stream still, read by a slow worker: then
    /// the caller is to come back.
    async fn rejection(&self, command: &Command, reason: OrderRejectReason) -> Error {
        match reason.code {
            RejectCode::OrderNotFound if self.appears_later(command).await => Error::OrderPending(command.order()),
            // A field's message is no sentence: the problem's text ends it.
            RejectCode::ValidationFailed => Error::field("items", reason.detail.trim_end_matches('.')),
            _ => Error::OrderRejected(reason),
        }
    }
}
