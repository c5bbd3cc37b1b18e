use std::time::Duration;

use anyhow::Result;

use crate::{
    numbers::{grouped, grouped_rate, per_second},
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
    fn memory_is_that_of_a_program_that_runs() {
        let mut memory = Memory::default();
        assert_eq!(memory.render(|sample| sample.worker), "0 MiB, 0 MiB, 0 MiB");
        for worker in [3, 0, 9, 5] {
            memory.add(ResidentBytes { api: 1, worker: worker << 20 });
        }
        assert_eq!(memory.render(|sample| sample.worker), "3 MiB, 5 MiB, 9 MiB");
    }
}
