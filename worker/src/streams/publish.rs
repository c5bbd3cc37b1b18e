use std::collections::BTreeMap;

use bytes::Bytes;
use dibs_common::{error::Result, redis::Redis};

/// Publishes outcomes, each on the channel of the process that waits for it, at most `limit` in a message. A lost
/// message costs its waiter some time: it looks into the database as well.
pub(crate) async fn publish_outcomes<M>(
    redis: &Redis,
    outcomes: Vec<(&str, M)>,
    limit: usize,
    encode: impl Fn(&[M]) -> Result<Bytes>,
) {
    // One message for each channel, not for each outcome: a batch has hundreds of outcomes, and few processes wait.
    let mut by_channel: BTreeMap<&str, Vec<M>> = BTreeMap::new();
    for (channel, outcome) in outcomes {
        by_channel.entry(channel).or_default().push(outcome);
    }
    for (channel, outcomes) in by_channel {
        for outcomes in outcomes.chunks(limit) {
            let published = match encode(outcomes) {
                Ok(message) => redis.publish(channel, message).await,
                Err(error) => Err(error),
            };
            if let Err(error) = published {
                tracing::debug!(channel, cause = error.chain(), "outcomes not published");
            }
        }
    }
}
