//! Random choices that the seed determines.

use dibs_common::identifiers::UserId;
use fastrand::Rng;

/// The generator of one user: users with the same seed make different choices.
pub fn of_user(seed: u64, user: UserId) -> Rng {
    // The generator advances by an odd constant, so streams that start a multiple of 2^32 apart do not overlap within
    // 2^32 draws.
    Rng::with_seed(seed.wrapping_add(user.get() << 32))
}

/// True in `percent` of 100 cases.
pub fn percent(rng: &mut Rng, percent: u8) -> bool {
    rng.u8(..100) < percent
}

/// Removes a random item; none of an empty list.
pub fn take<T>(rng: &mut Rng, items: &mut Vec<T>) -> Option<T> {
    if items.is_empty() { None } else { Some(items.swap_remove(rng.usize(..items.len()))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(seed: u64, user: u64) -> Vec<u32> {
        let mut rng = of_user(seed, user.try_into().expect("an id"));
        (0..10).map(|_| rng.u32(..)).collect()
    }

    #[test]
    fn seed_and_user_determine_the_choices() {
        assert_eq!(draws(1, 2), draws(1, 2));
        assert_ne!(draws(1, 2), draws(2, 2));
        assert_ne!(draws(1, 2), draws(1, 3));
        // Nor are the choices of one user those of the next one, shifted by one.
        assert_ne!(draws(1, 2)[1..], draws(1, 3)[..9]);
    }

    #[test]
    fn a_percentage_is_a_share_of_the_draws() {
        let mut rng = Rng::with_seed(1);
        let hits = (0..10_000).filter(|_| percent(&mut rng, 30)).count();
        assert!((2_800..3_200).contains(&hits), "{hits}");
        assert!(!(0..100).any(|_| percent(&mut rng, 0)) && (0..100).all(|_| percent(&mut rng, 100)));
    }

    #[test]
    fn every_item_is_taken_once() {
        let (mut rng, mut items) = (Rng::with_seed(1), vec![1, 2, 3]);
        let mut taken: Vec<u8> = std::iter::from_fn(|| take(&mut rng, &mut items)).collect();
        taken.sort_unstable();
        assert_eq!((taken, items.len()), (vec![1, 2, 3], 0));
    }
}
