//! How a user of the shop makes calls: through goose, now and then twice with the same key, each answer noted.

use std::sync::Arc;

use dibs_common::identifiers::{UserId, new_uuid};
use goose::{goose::GooseResponse, prelude::*};
use serde_json::Value;
use tokio::time::Instant;

use super::{answer::Answer, state::ShopState};
use crate::{
    record::{Call, Repeats},
    rng::Rng,
};

/// Of a hundred POSTs, so many are made twice at once, and so many again after the answer.
const TWICE_AT_ONCE: usize = 4;
const AGAIN: usize = 4;

/// A user in the shop.
pub struct Visit<'g> {
    /// The shop.
    pub market: Arc<ShopState>,
    /// Who it is.
    pub user: UserId,
    /// What the user's seed decides.
    pub dice: Rng,
    /// The user of goose that makes the calls.
    pub goose: &'g mut GooseUser,
}

/// What goose cannot do.
pub type Broken = Box<TransactionError>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    Never,
    AtOnce,
    Afterwards,
}

impl Visit<'_> {
    /// GET; none when no answer came.
    pub async fn get(&mut self, call: Call, path: &str) -> Result<Option<Answer>, Broken> {
        let request = self.goose.get_request_builder(&GooseMethod::Get, path)?;
        self.send(call, GooseMethod::Get, path, request).await
    }

    /// POST of a claim, which is known by its user and not by a key.
    pub async fn post(&mut self, call: Call, path: &str, body: &Value) -> Result<Option<Answer>, Broken> {
        let request = self.goose.get_request_builder(&GooseMethod::Post, path)?.json(body);
        self.send(call, GooseMethod::Post, path, request).await
    }

    /// POST with a key of its own, now and then twice; none when no answer came.
    pub async fn post_with_key(&mut self, call: Call, path: &str, body: &Value) -> Result<Option<Answer>, Broken> {
        let repeat = match self.dice.below(100) {
            chance if chance < TWICE_AT_ONCE => Repeat::AtOnce,
            chance if chance < TWICE_AT_ONCE + AGAIN => Repeat::Afterwards,
            _ => Repeat::Never,
        };
        let key = new_uuid().to_string();
        let request = self.goose.get_request_builder(&GooseMethod::Post, path)?.json(body);
        let request = request.header("idempotency-key", key);
        let copy = request.try_clone().filter(|_| repeat != Repeat::Never);
        let (first, second) = match copy {
            None => return self.send(call, GooseMethod::Post, path, request).await,
            Some(copy) if repeat == Repeat::AtOnce => {
                // Goose makes one call at a time.
                let twin = async { Answer::read(copy.send().await.ok()?).await };
                let (first, second) = tokio::join!(self.send(call, GooseMethod::Post, path, request), twin);
                (first?, second)
            }
            Some(copy) => {
                let first = self.send(call, GooseMethod::Post, path, request).await?;
                (first, self.send(call, GooseMethod::Post, path, copy).await?)
            }
        };
        self.compare(call, repeat, first.as_ref(), second.as_ref());
        // Of two at once, either may be the one that is told to wait.
        Ok(match first {
            Some(first) if first.is_in_progress() => second,
            first => first,
        })
    }

    fn compare(&self, call: Call, repeat: Repeat, first: Option<&Answer>, second: Option<&Answer>) {
        let (Some(first), Some(second)) = (first, second) else { return };
        self.market.with_record(|record| {
            let Repeats { at_once, afterwards, in_progress, unequal } = &mut record.repeats;
            *(if repeat == Repeat::AtOnce { at_once } else { afterwards }) += 1;
            *in_progress += u64::from(first.is_in_progress() || second.is_in_progress());
            let name = call.name();
            if !first.may_stand_beside(second) {
                unequal.add(format!("{name}: {} {}, then {} {}", first.status, first.body, second.status, second.body));
            } else if repeat == Repeat::Afterwards && second.is_in_progress() {
                unequal.add(format!("{name}: {}, then still in progress", first.status));
            }
        });
    }

    async fn send(
        &mut self,
        call: Call,
        method: GooseMethod,
        path: &str,
        request: reqwest::RequestBuilder,
    ) -> Result<Option<Answer>, Broken> {
        let began = Instant::now();
        let request = GooseRequest::builder().method(method).path(path).name(call.name()).set_request_builder(request);
        let GooseResponse { request: mut metric, response } = self.goose.request(request.build()).await?;
        let answer = match response {
            Ok(response) => Answer::read(response).await,
            Err(_) => None,
        };
        match &answer {
            Some(answer) => {
                self.market.answered(call, answer, began.elapsed());
                if !answer.is_success() && answer.is_expected_of(call) {
                    // For goose a refusal is a failure, but a shop must refuse some.
                    self.goose.set_success(&mut metric)?;
                }
            }
            None => self.market.strange(call, "no answer"),
        }
        Ok(answer)
    }
}
