use std::time::Duration;

use anyhow::Result;

use crate::{
    numbers::{grouped, grouped_rate, median, per_second},
    output::Table,
    processes::{Program, ResidentBytes, Stack},
};

/// Memory of the programs over a while.
#[derive(Clone, Debug, Default)]
pub struct Memory(Vec<ResidentBytes>);

impl Memory {
    pub fn add(&mut self, sample: ResidentBytes) {
        self.0.push(sample);
    }

    /// After a tenth of the time, at the end, and the highest of a program, in MiB.
    fn render(&self, of: fn(&ResidentBytes) -> u64) -> String {
        let all: Vec<u64> = self.0.iter().map(of).filter(|bytes| *bytes > 0).map(|bytes| bytes >> 20).collect();
        let at = |place: usize| all.get(place).copied().unwrap_or(0);
        let (early, late) = (at(all.len() / 10), at(all.len().saturating_sub(1)));
        format!("{early} MiB, {late} MiB, {} MiB", all.iter().max().unwrap_or(&0))
    }
}

/// What an assignment took.
pub struct Measured {
    pub users: u32,
    pub uploaded_in: Duration,
    /// From the acceptance to the outcome of the last user.
    pub issued_in: Duration,
    pub repeated_in: Duration,
    pub kills: u32,
    pub uploading: Memory,
    pub issuing: Memory,
    /// How many had the coupon at what time.
    pub progress: Vec<(Duration, u32)>,
}

/// Of a rate.
const WINDOW: Duration = Duration::from_secs(1);

/// Users a second, in the median second in which a worker issued.
fn median_rate(progress: &[(Duration, u32)]) -> f64 {
    let mut rates = Vec::new();
    let Some(mut begin) = progress.first().copied() else { return 0.0 };
    for &(at, users) in progress {
        let elapsed = at.saturating_sub(begin.0);
        if elapsed >= WINDOW {
            // A worker that is killed, or starts, issues nothing for a while.
            if users > begin.1 {
                rates.push(per_second((users - begin.1).into(), elapsed));
            }
            begin = (at, users);
        }
    }
    median(&rates)
}

impl Measured {
    pub fn render(&self, stack: &Stack) -> Result<String> {
        let users = u64::from(self.users);
        let rate = |elapsed| grouped_rate(per_second(users, elapsed));
        let seconds = |elapsed: Duration| format!("{:.1} s", elapsed.as_secs_f64());
        let mut table = Table::new(&["what", "amount"], 1);
        for (what, amount) in [
            ("users", grouped(users)),
            ("kills of the worker", self.kills.to_string()),
            ("upload, checked and stored", seconds(self.uploaded_in)),
            ("users a second uploaded", rate(self.uploaded_in)),
            ("issued, kills included", seconds(self.issued_in)),
            ("users a second issued", rate(self.issued_in)),
            ("the same, in the median second of a worker", grouped_rate(median_rate(&self.progress))),
            ("the same list again, compared", seconds(self.repeated_in)),
            ("memory of the API, upload: early, late, highest", self.uploading.render(|sample| sample.api)),
            ("memory of the worker, issuing: early, late, highest", self.issuing.render(|sample| sample.worker)),
            ("CPU of the API", seconds(stack.usage(Program::Api)?.cpu)),
            ("CPU of the worker", seconds(stack.usage(Program::Worker)?.cpu)),
        ] {
            table.row([what, &*amount]);
        }
        Ok(table.render("Assignment"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_second_is_one_in_which_something_was_issued() {
        let at = |seconds, users| (Duration::from_secs(seconds), users);
        let progress = [at(0, 0), at(1, 10), at(2, 40), at(3, 40), at(4, 60)];
        assert!((median_rate(&progress) - 20.0).abs() < f64::EPSILON);
        assert!(median_rate(&[]).abs() < f64::EPSILON);
    }

    #[test]
    fn memory_is_that_of_a_program_that_runs() {
        let mut memory = Memory::default();
        assert_eq!(memory.render(|sample| sample.worker), "0 MiB, 0 MiB, 0 MiB");
        for worker in [3, 0, 9, 5] {
            memory.add(ResidentBytes { api: 1, worker: worker << 20 });
        }
        assert_eq!(memory.render(|sample| sample.worker), "3 MiB, 5 MiB, 9 MiB");
    }
}
