//! The way of a command: onto the stream of its user's partition, and its outcome back from the worker.

mod pending;

use std::{sync::Arc, time::Duration};

use dibs_common::{
    clock,
    db::{self, Database},
    domain::order::{Action, Command, Done, Outcome, Refusal},
    error::{Error, Result},
    identifiers::{CommandId, OrderId, UserId, new_uuid},
    keys::Partition,
    redis::Redis,
    scripts,
    stream::OrderEntry,
};
pub use pending::Pending;
use tokio::time::Instant;

use crate::{
    answers::{Answers, Waiting},
    edge::RequestId,
    extract::Submission,
};

/// Commands of a partition that may wait; more are answered `OVERLOADED`.
const LONGEST_STREAM: u64 = 50_000;
/// How long a caller waits for the outcome who does not say how long.
const USUAL_WAIT: Duration = Duration::from_secs(3);
/// How often the database is asked meanwhile, should the worker's word have got lost.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// All commands of this process.
pub struct Orders {
    database: Database,
    redis: Redis,
    partitions: u16,
    answers: Arc<Answers<Outcome>>,
}

/// What a caller is told.
pub enum Submitted {
    /// It was carried out.
    Done(Box<Done>),
    /// It will be: the outcome takes longer than the caller waits.
    Pending(Pending),
}

impl Orders {
    /// Begins to listen for outcomes.
    pub async fn start(database: &Database, redis: &Redis, partitions: u16) -> Result<Self> {
        let channel = redis.keys.answers(new_uuid());
        let answers = Answers::listen(redis, channel).await?;
        Ok(Self { database: database.clone(), redis: redis.clone(), partitions, answers })
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
        let longest = if prefer.respond_async { Duration::ZERO } else { prefer.wait.unwrap_or(USUAL_WAIT) };
        let deadline = Instant::now() + longest;
        let waiting = self.answers.wait_for(id);
        self.enqueue(&command, &request).await?;
        match self.wait(&command, waiting, deadline).await {
            Some(Outcome::Done(done)) => Ok(Submitted::Done(done)),
            Some(Outcome::Refused(refusal)) => Err(Error::OrderRefused(refusal)),
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

    async fn wait(&self, command: &Command, mut waiting: Waiting<Outcome>, deadline: Instant) -> Option<Outcome> {
        loop {
            let next_look = deadline.min(Instant::now() + LOOK_EVERY);
            if let Ok(outcome) = tokio::time::timeout_at(next_look, waiting.outcome()).await {
                return Some(outcome);
            }
            if Instant::now() >= deadline {
                return None;
            }
            // The command stands whatever the database says now, or does not.
            if let Ok(Some(outcome)) = self.durable_outcome(command).await {
                return Some(outcome);
            }
        }
    }

    /// The outcome as the database holds it, once it does.
    async fn durable_outcome(&self, command: &Command) -> Result<Option<Outcome>> {
        let pool = self.database.pool();
        if command.durable_type().is_some() {
            match db::within(db::command_outcome(pool, command.id)).await?.map(|outcome| outcome.refusal) {
                None => return Ok(None),
                Some(Some(refusal)) => return Ok(Some(Outcome::Refused(refusal))),
                Some(None) => {}
            }
        }
        let Some(order) = db::within(db::order(pool, command.order())).await? else { return Ok(None) };
        if let (Action::Place { .. }, Some(code)) = (&command.action, order.code) {
            return Ok(Some(Outcome::Refused(Refusal::new(code, order.detail.unwrap_or_default()))));
        }
        let balance = Some(db::within(db::balance(pool, command.user)).await?);
        Ok(Some(Outcome::Done(Box::new(Done { order, balance }))))
    }

    /// The order of a command that was taken and has no outcome yet.
    pub async fn pending(&self, id: CommandId) -> Result<Option<OrderId>> {
        dibs_common::pending::find(&self.redis, id).await
    }
}
