//! Chance that a seed decides: the numbers of `SplitMix64`.

/// The numbers that follow a seed.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Those of `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Others for each `number` under the same seed.
    pub const fn of(seed: u64, number: u64) -> Self {
        // Far apart, or the numbers of one would be those of the next, one later.
        Self::new(Self(seed ^ number.wrapping_mul(0xD6E8_FEB8_6659_FD93)).roll())
    }

    const fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        number ^ (number >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.roll() % bound.max(1) as u64).unwrap_or(0)
    }

    /// True so many times of a hundred.
    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    /// Takes one of the items out; none when there are none.
    pub fn take<T>(&mut self, items: &mut Vec<T>) -> Option<T> {
        if items.is_empty() { None } else { Some(items.swap_remove(self.below(items.len()))) }
    }

    /// Puts the items in another order: Fisher and Yates's shuffle.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.below(end + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_decides() {
        let rolls = |mut dice: Rng| -> Vec<usize> { (0..10).map(|_| dice.below(1000)).collect() };
        assert_eq!(rolls(Rng::of(1, 2)), rolls(Rng::of(1, 2)));
        assert_ne!(rolls(Rng::of(1, 2)), rolls(Rng::of(1, 3)));
        assert_ne!(rolls(Rng::of(1, 2))[1..], rolls(Rng::of(1, 3))[..9]);
    }

    #[test]
    fn chances_are_about_what_was_asked_for() {
        let mut dice = Rng::new(1);
        let hits = (0..10_000).filter(|_| dice.percent(30)).count();
        assert!((2_800..3_200).contains(&hits), "{hits}");
        assert!(dice.take(&mut Vec::<u8>::new()).is_none());
    }
}
