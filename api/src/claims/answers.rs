use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use dibs_common::{domain::claim::Outcome, error::Result, identifiers::ClaimId, redis::Redis, stream::Answer};
use tokio::sync::oneshot;

/// Callers of this process that wait for the outcome of their claim, and the channel on which workers tell it.
/// A word may get lost: who waits looks into the database at the end.
pub(super) struct Answers {
    channel: String,
    waiting: Mutex<HashMap<ClaimId, oneshot::Sender<Outcome>>>,
}

impl Answers {
    /// Begins to listen on `channel`.
    pub(super) async fn listen(redis: &Redis, channel: String) -> Result<Arc<Self>> {
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
    pub(super) fn channel(&self) -> &str {
        &self.channel
    }

    fn tell(&self, message: &[u8]) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for answer in Answer::read_all(message) {
            if let Some(caller) = waiting.remove(&answer.claim) {
                // Who no longer waits does not need to know.
                let _gone = caller.send(answer.outcome);
            }
        }
    }

    /// Begins to wait for the outcome of a claim.
    pub(super) fn wait_for(self: &Arc<Self>, claim: ClaimId) -> Waiting {
        let (caller, outcome) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(claim, caller);
        Waiting { answers: Arc::clone(self), claim, outcome }
    }
}

/// Waits for the outcome of one claim, until it is dropped.
pub struct Waiting {
    answers: Arc<Answers>,
    claim: ClaimId,
    outcome: oneshot::Receiver<Outcome>,
}

impl Waiting {
    /// The outcome, when a worker tells it; never, when the word was lost.
    pub async fn outcome(&mut self) -> Outcome {
        match (&mut self.outcome).await {
            Ok(outcome) => outcome,
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.answers.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.claim);
    }
}
