//! Callers of this process that wait for an outcome, and the channel on which workers tell it.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use dibs_common::{
    domain::{claim, order},
    error::Result,
    identifiers::{ClaimId, CommandId},
    redis::{
        Redis,
        streams::{ClaimOutcomeMessage, OrderOutcomeMessage},
    },
};
use tokio::sync::oneshot;

/// An outcome as a message of the channel tells it.
pub trait OutcomeMessage: Clone + Send + 'static {
    /// Of what.
    type Id: Copy + Eq + Hash + Send + Sync;

    /// Those of a message, each with what it is of.
    fn read_all(message: &[u8]) -> impl Iterator<Item = (Self::Id, Self)>
    where
        Self: Sized;
}

impl OutcomeMessage for claim::ClaimOutcome {
    type Id = ClaimId;

    fn read_all(message: &[u8]) -> impl Iterator<Item = (ClaimId, Self)> {
        ClaimOutcomeMessage::read_all(message).map(|answer| (answer.claim, answer.outcome))
    }
}

impl OutcomeMessage for order::OrderOutcome {
    type Id = CommandId;

    fn read_all(message: &[u8]) -> impl Iterator<Item = (CommandId, Self)> {
        OrderOutcomeMessage::read_all(message).into_iter().map(|answer| (answer.command, answer.outcome))
    }
}

/// Who waits for which outcome. A word may get lost: who waits looks into the database at the end.
pub struct OutcomeWaiters<T: OutcomeMessage> {
    channel: String,
    waiting: Mutex<HashMap<T::Id, Vec<oneshot::Sender<T>>>>,
}

impl<T: OutcomeMessage> OutcomeWaiters<T> {
    /// Begins to listen on `channel`.
    pub async fn listen(redis: &Redis, channel: String) -> Result<Arc<Self>> {
        let mut words = redis.subscribe(&channel).await?;
        let answers = Arc::new(Self { channel, waiting: Mutex::default() });
        let listening = Arc::downgrade(&answers);
        tokio::spawn(async move {
            loop {
                let Some(word) = words.next().await else { return };
                let Some(answers) = listening.upgrade() else { return };
                answers.tell(&word);
            }
        });
        Ok(answers)
    }

    /// The channel, as entries of the stream name it.
    pub fn channel(&self) -> &str {
        &self.channel
    }

    fn tell(&self, message: &[u8]) {
        let told: Vec<(T::Id, T)> = T::read_all(message).collect();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, outcome) in told {
            for caller in waiting.remove(&id).into_iter().flatten() {
                // Who no longer waits does not need to know.
                let _gone = caller.send(outcome.clone());
            }
        }
    }

    /// Begins to wait for an outcome; say so before it can be told.
    pub fn wait_for(self: &Arc<Self>, id: T::Id) -> Waiting<T> {
        let (caller, outcome) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default().push(caller);
        Waiting { answers: Arc::clone(self), id, outcome }
    }
}

/// Waits for one outcome, until it is dropped.
pub struct Waiting<T: OutcomeMessage> {
    answers: Arc<OutcomeWaiters<T>>,
    id: T::Id,
    outcome: oneshot::Receiver<T>,
}

impl<T: OutcomeMessage> Waiting<T> {
    /// The outcome, when a worker tells it; never, when the word was lost.
    pub async fn outcome(&mut self) -> T {
        match (&mut self.outcome).await {
            Ok(outcome) => outcome,
            Err(_) => std::future::pending().await,
        }
    }
}

impl<T: OutcomeMessage> Drop for Waiting<T> {
    fn drop(&mut self) {
        // So that this caller counts as gone.
        self.outcome.close();
        let mut waiting = self.answers.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(callers) = waiting.get_mut(&self.id) {
            callers.retain(|caller| !caller.is_closed());
            if callers.is_empty() {
                waiting.remove(&self.id);
            }
        }
    }
}
