use std::{
    collections::HashMap,
    mem,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicU32, Ordering},
    },
};

use dibs_common::identifiers::UserId;

/// So that two cores seldom wait for one lock.
const SHARDS: usize = 16;

/// Verified tokens by their hash. It holds a bounded number, those that were verified last.
pub struct TokenCache {
    shards: [RwLock<Shard>; SHARDS],
    /// Verified tokens of one shard, in each of its two halves.
    half: usize,
    /// Of the keys that tokens are verified with: tokens of earlier keys do not count.
    generation: AtomicU32,
}

/// When the new half is full it becomes the old one, whose tokens are dropped.
#[derive(Default)]
struct Shard {
    new: HashMap<[u8; 32], VerifiedToken>,
    old: HashMap<[u8; 32], VerifiedToken>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifiedToken {
    pub user: UserId,
    /// In milliseconds since 1970, the leeway included.
    pub expires_at: i64,
    pub generation: u32,
}

impl TokenCache {
    /// For at most `capacity` tokens.
    pub fn new(capacity: usize) -> Self {
        let half = (capacity / SHARDS / 2).max(1);
        Self { shards: std::array::from_fn(|_| RwLock::default()), half, generation: AtomicU32::new(0) }
    }

    /// The token of this hash, unless it has expired at `now`.
    pub fn find(&self, hash: &[u8; 32], now: i64) -> Option<UserId> {
        let shard = self.shard(hash).read().unwrap_or_else(PoisonError::into_inner);
        let token = shard.new.get(hash).or_else(|| shard.old.get(hash))?;
        (token.generation == self.generation() && now < token.expires_at).then_some(token.user)
    }

    pub fn insert(&self, hash: [u8; 32], token: VerifiedToken) {
        let mut shard = self.shard(&hash).write().unwrap_or_else(PoisonError::into_inner);
        if shard.new.len() >= self.half {
            shard.old = mem::take(&mut shard.new);
        }
        shard.new.insert(hash, token);
    }

    /// Of the current keys. Ask before a token is verified: one that was verified with replaced keys must not count.
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    /// Forgets all tokens, once the keys were replaced.
    pub fn invalidate(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    fn shard(&self, hash: &[u8; 32]) -> &RwLock<Shard> {
        &self.shards[usize::from(hash[0]) % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(user: u64, generation: u32) -> VerifiedToken {
        VerifiedToken { user: user.try_into().expect("an id"), expires_at: 1_000, generation }
    }

    fn hash(number: u16) -> [u8; 32] {
        let mut hash = [0; 32];
        hash[..2].copy_from_slice(&number.to_le_bytes());
        hash
    }

    #[test]
    fn a_token_counts_until_it_expires_or_the_keys_are_replaced() {
        let cache = TokenCache::new(1_000);
        cache.insert(hash(1), token(7, cache.generation()));
        assert_eq!(cache.find(&hash(1), 999).map(UserId::get), Some(7));
        assert_eq!(cache.find(&hash(1), 1_000), None);
        assert_eq!(cache.find(&hash(2), 0), None);
        let before = cache.generation();
        cache.invalidate();
        assert_eq!(cache.find(&hash(1), 0), None);
        cache.insert(hash(1), token(7, before));
        assert_eq!(cache.find(&hash(1), 0), None, "verified with the keys before");
        cache.insert(hash(1), token(7, cache.generation()));
        assert!(cache.find(&hash(1), 0).is_some());
    }

    #[test]
    fn the_number_of_tokens_is_bounded_and_the_last_ones_stay() {
        let cache = TokenCache::new(320);
        for number in 0..2_000 {
            cache.insert(hash(number), token(7, 0));
        }
        let held = (0..2_000).filter(|number| cache.find(&hash(*number), 0).is_some()).count();
        assert!((160..=320).contains(&held), "{held}");
        assert!(cache.find(&hash(1_999), 0).is_some());
    }
}
