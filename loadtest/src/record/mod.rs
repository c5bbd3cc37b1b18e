//! What a client was answered, kept by the client: the third witness of an audit, beside MySQL and Redis.

mod deliveries;
mod shop;

use std::collections::HashSet;

pub use deliveries::{Arrival, Deliveries, SinkDeliveries};
use dibs_common::identifiers::{ClaimId, UserId};
use serde::Deserialize;
pub use shop::{Call, CallRecord, Oddities, Promise, Repeats, ShopRecord, Told};

use crate::latency::Latencies;

const SAMPLES: usize = 5;

/// The last answer to a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 202: this claim has a seat.
    Accepted(Receipt),
    /// 409: the user has one already; the first claim, where it was named.
    AlreadyIssued(Option<ClaimId>),
    /// 422: no seat was left.
    Exhausted,
    /// Tried again until the limit, and never answered for good.
    Unanswered,
    /// Something that no claim may be answered with: status and code.
    Unexpected(String),
}

/// What a 202 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// The claim's id.
    pub claim_id: ClaimId,
    /// Its place in the order of acceptance.
    pub sequence: u32,
}

/// A claim as its client saw it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Who claimed.
    pub user: UserId,
    /// The last answer.
    pub answer: Answer,
    /// Tries before that ended in a 503 or a broken connection: each may have been accepted all the same.
    pub doubtful_tries: u32,
}

/// How many claims had which answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// 202.
    pub accepted: u64,
    /// 409 `COUPON_ALREADY_ISSUED`.
    pub already_issued: u64,
    /// 422 `COUPON_EXHAUSTED`.
    pub exhausted: u64,
    /// No final answer.
    pub unanswered: u64,
    /// An answer that no claim may have.
    pub unexpected: u64,
    /// Tries that were answered 503 or not at all, and were made again.
    pub doubtful_tries: u64,
}

/// All claims of a client.
#[derive(Clone, Debug, Default)]
pub struct ClientRecord {
    /// One for each claim made.
    pub entries: Vec<Entry>,
    /// Of every try that was answered.
    pub latencies: Latencies,
}

impl ClientRecord {
    /// How many claims had which answer.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for entry in &self.entries {
            counts.doubtful_tries += u64::from(entry.doubtful_tries);
            *match entry.answer {
                Answer::Accepted(_) => &mut counts.accepted,
                Answer::AlreadyIssued(_) => &mut counts.already_issued,
                Answer::Exhausted => &mut counts.exhausted,
                Answer::Unanswered => &mut counts.unanswered,
                Answer::Unexpected(_) => &mut counts.unexpected,
            } += 1;
        }
        counts
    }

    /// Claims answered 202, with their users.
    pub fn accepted(&self) -> impl Iterator<Item = (UserId, Receipt)> {
        self.entries.iter().filter_map(|entry| match entry.answer {
            Answer::Accepted(receipt) => Some((entry.user, receipt)),
            _ => None,
        })
    }

    /// Users who were told that they have one already, with the claim that was named.
    pub fn holders(&self) -> impl Iterator<Item = (UserId, Option<ClaimId>)> {
        self.entries.iter().filter_map(|entry| match entry.answer {
            Answer::AlreadyIssued(first) => Some((entry.user, first)),
            _ => None,
        })
    }

    /// Users who may hold a seat that they were never told of.
    pub fn doubtful_users(&self) -> HashSet<UserId> {
        let doubtful =
            self.entries.iter().filter(|entry| entry.doubtful_tries > 0 || entry.answer == Answer::Unanswered);
        doubtful.map(|entry| entry.user).collect()
    }

    /// A few of the answers that no claim may have.
    pub fn unexpected_samples(&self) -> Vec<&str> {
        let unexpected = self.entries.iter().filter_map(|entry| match &entry.answer {
            Answer::Unexpected(text) => Some(text.as_str()),
            _ => None,
        });
        unexpected.take(SAMPLES).collect()
    }
}
