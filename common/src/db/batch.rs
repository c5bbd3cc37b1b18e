//! Batches that may be decided twice: their entries come again after a death, or another worker has them, too.

use std::{future::Future, time::Duration};

use super::retry::{retrying_batch, with_limit};
use crate::error::{Error, Result};

/// Whether a transaction reads what was decided of its batch before. Nearly always nothing was, and reading takes a
/// third of the time. The keys of the tables reject a second outcome either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DuplicateCheck {
    /// Nothing is read. Writing an entry that was decided before fails with [`super::is_duplicate`].
    Optimistic,
    /// Existing outcomes are read.
    Explicit,
}

/// How often a batch is read and decided when others decide parts of it meanwhile: what they write is seen only after
/// their commit, and each time there is more of it.
const EXPLICIT_ATTEMPTS: u32 = 4;

/// A transaction of a batch that takes longer has lost its server: it is well below a second. A session that is silent
/// for so long has lost its locks as well, so nothing is gained by waiting.
const BATCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Decides a batch: optimistically, and when that attempt returns none, explicitly. `attempt` is one transaction, and
/// `name` names it in the metrics. Only a batch that met a repeat pays for the second one.
pub async fn decide_batch<T, F>(name: &'static str, mut attempt: impl FnMut(DuplicateCheck) -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>, sqlx::Error>>,
{
    let mut check = DuplicateCheck::Optimistic;
    for _ in 0..=EXPLICIT_ATTEMPTS {
        if let Some(decided) = retrying_batch(name, || with_limit(BATCH_TIMEOUT, attempt(check))).await? {
            return Ok(decided);
        }
        check = DuplicateCheck::Explicit;
    }
    Err(Error::internal("a batch was not decided although existing outcomes were read"))
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;

    #[tokio::test]
    async fn existing_outcomes_are_read_only_after_an_optimistic_attempt_and_not_for_ever() {
        for (needed, is_decided, attempts) in [(1, true, 1), (2, true, 2), (5, true, 5), (6, false, 5)] {
            let mut checks = Vec::new();
            let decided = decide_batch("test", |check| {
                checks.push(check);
                ready(Ok((checks.len() == needed).then_some(())))
            });
            assert_eq!((decided.await.is_ok(), checks.len()), (is_decided, attempts));
            assert_eq!(checks.iter().filter(|check| **check == DuplicateCheck::Optimistic).count(), 1);
            assert_eq!(checks[0], DuplicateCheck::Optimistic);
        }
    }
}
