//! The way of a command: onto the stream of its user's partition, and its outcome back from the worker.

mod pending_answer;

use std::{sync::Arc, time::Duration};

use dibs_common::{
    clock,
    db::{self, Database},
    domain::order::{Action, Command, CommandResult, OrderOutcome, OrderRejectReason, RejectCode},
    error::{Error, Result},
    identifiers::{CommandId, OrderId, Partition, UserId, new_uuid},
    redis::{
        Redis,
        pending_commands::{self, PendingCommand},
        scripts,
        streams::OrderEntry,
    },
};
pub use pending_answer::Pending;
use tokio::{sync::Semaphore, time::Instant};

use crate::{
    edge::RequestId,
    extract::Submission,
    outcome_waiters::{OutcomeWaiters, Waiting},
};

/// Commands of a partition that may wait; more are answered `OVERLOADED`.
const LONGEST_STREAM: u64 = 50_000;
/// How long a caller waits for the outcome who does not say how long.
const USUAL_WAIT: Duration = Duration::from_secs(3);
/// How often the database is asked meanwhile, should the worker's word have got lost.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How many ask the database at once: others need it as well.
const LOOKERS: usize = 4;

/// All commands of this process.
pub struct Orders {
    database: Database,
    redis: Redis,
    partitions: u16,
    answers: Arc<OutcomeWaiters<OrderOutcome>>,
    lookers: Semaphore,
}

/// What a caller is told.
pub enum Submitted {
    /// It was carried out.
    Done(Box<CommandResult>),
    /// It will be: the outcome takes longer than the caller waits.
    Pending(Pending),
}

impl Orders {
    /// Begins to listen for outcomes.
    pub async fn start(database: &Database, redis: &Redis, partitions: u16) -> Result<Self> {
        let channel = redis.keys.answers(new_uuid());
        let answers = OutcomeWaiters::listen(redis, channel).await?;
        Ok(Self {
            database: database.clone(),
            redis: redis.clone(),
            partitions,
            answers,
            lookers: Semaphore::new(LOOKERS),
        })
    }

    /// Puts a command on the stream and waits for its outcome, for as long as the caller prefers; a refusal is an
    /// error. A command whose id was submitted before is carried out once, and has the same outcome.
    pub async fn submit(
        &self,
        Submission { id, request, prefer }: Submission,
        user: UserId,
        action: Action,
    ) -> Result<Submitted> {
        let command = Command { id, user, at: clock::now(), action };
        let usual = if prefer.respond_async { Duration::ZERO } else { USUAL_WAIT };
        let longest = prefer.wait.unwrap_or(usual);
        let deadline = Instant::now() + longest;
        let waiting = self.answers.wait_for(id);
        self.enqueue(&command, &request).await?;
        match self.wait(&command, waiting, deadline).await {
            Some(OrderOutcome::Done(done)) => Ok(Submitted::Done(done)),
            Some(OrderOutcome::Rejected(refusal)) => Err(self.refused(&command, refusal).await),
            None => Ok(Submitted::Pending(Pending::mark(&self.redis, &command).await)),
        }
    }

    async fn enqueue(&self, command: &Command, request: &RequestId) -> Result<()> {
        let stream = self.redis.keys.order_stream(Partition::of_user(command.user, self.partitions));
        let entry = OrderEntry {
            answers: self.answers.channel().to_owned(),
            request: request.as_str().to_owned(),
            command: command.clone(),
        };
        scripts::enqueue(&self.redis, stream, LONGEST_STREAM, entry.fields()?).await
    }

    async fn wait(
        &self,
        command: &Command,
        mut waiting: Waiting<OrderOutcome>,
        deadline: Instant,
    ) -> Option<OrderOutcome> {
        loop {
            let next_look = deadline.min(Instant::now() + LOOK_EVERY);
            if let Ok(outcome) = tokio::time::timeout_at(next_look, waiting.outcome()).await {
                return Some(outcome);
            }
            if Instant::now() >= deadline {
                return None;
            }
            // One that finds no place among the lookers has the next chance in a second. The command stands whatever
            // the database says now, or does not.
            let Ok(_place) = self.lookers.try_acquire() else { continue };
            if let Ok(Ok(Some(outcome))) = tokio::time::timeout_at(deadline, self.durable_outcome(command)).await {
                return Some(outcome);
            }
        }
    }

    /// The outcome as the database holds it, once it does.
    async fn durable_outcome(&self, command: &Command) -> Result<Option<OrderOutcome>> {
        let pool = self.database.pool();
        if command.has_own_outcome() {
            match db::within(db::orders::find_command_outcome(pool, command.id)).await?.map(|outcome| outcome.refusal) {
                None => return Ok(None),
                Some(Some(refusal)) => return Ok(Some(OrderOutcome::Rejected(refusal))),
                Some(None) => {}
            }
        }
        let Some(order) = db::within(db::orders::find(pool, command.order())).await? else { return Ok(None) };
        if let (Action::Place { .. }, Some(code)) = (&command.action, order.code) {
            return Ok(Some(OrderOutcome::Rejected(OrderRejectReason::new(code, order.detail.unwrap_or_default()))));
        }
        let balance = Some(db::within(db::points::find_balance(pool, command.user)).await?);
        Ok(Some(OrderOutcome::Done(Box::new(CommandResult { order, balance }))))
    }

    /// A command that was taken and not waited for; it may have its outcome by now.
    pub async fn pending(&self, id: CommandId) -> Result<Option<PendingCommand>> {
        pending_commands::find(&self.redis, id).await
    }

    async fn is_missing(&self, order: OrderId) -> bool {
        matches!(db::within(db::orders::find(self.database.pool(), order)).await, Ok(None))
    }

    /// The refusal of a command. An order that is not there may be on its way, in the hands of a worker that is late:
    /// then it is too early, and not in vain.
    async fn refused(&self, command: &Command, refusal: OrderRejectReason) -> Error {
        let order = command.order();
        match refusal.code {
            RejectCode::OrderNotFound => match self.pending(CommandId(order.0)).await {
                Ok(Some(found)) if found.kind == "PLACE" && self.is_missing(order).await => Error::OrderPending(order),
                _ => Error::OrderRejected(refusal),
            },
            RejectCode::ValidationFailed => Error::field("items", refusal.detail),
            _ => Error::OrderRejected(refusal),
        }
    }
}
