use std::{fs, time::Duration};

use anyhow::{Context as _, Result};

/// Clock ticks of `/proc/PID/stat` in a second: fixed by the kernel's interface.
const TICKS_PER_SECOND: u64 = 100;

/// What a process has used. Of a program that was killed and restarted: all of its processes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of all threads, in user and kernel mode.
    pub cpu: Duration,
    /// The highest resident memory, in bytes.
    pub peak_bytes: u64,
}

impl Usage {
    pub fn of(id: u32) -> Result<Self> {
        let read =
            |file: &str| fs::read_to_string(format!("/proc/{id}/{file}")).context("reading the use of a process");
        Self::parse(&read("stat")?, &read("status")?).context("/proc/PID/stat and status are not as expected")
    }

    fn parse(stat: &str, status: &str) -> Option<Self> {
        // The name of the program, in parentheses, may contain blanks. utime and stime are the fields 14 and 15.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
        let cpu = Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND);
        Some(Self { cpu, peak_bytes: field_bytes(status, "VmHWM:")? })
    }

    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { cpu: self.cpu + other.cpu, peak_bytes: self.peak_bytes.max(other.peak_bytes) }
    }
}

/// A field of `/proc/PID/status`, which the kernel reports in kB that are KiB.
pub(super) fn field_bytes(status: &str, name: &str) -> Option<u64> {
    let kibibytes: u64 =
        status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_whatever_the_name_of_the_program() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 500 0 0 0 120 30 0 0 20 0 4 0 1000 5000 90";
        let usage = Usage::parse(stat, "Name:\tx\nVmHWM:\t  12 kB\nVmRSS:\t 3 kB\n").expect("read");
        assert_eq!(usage, Usage { cpu: Duration::from_millis(1500), peak_bytes: 12 * 1024 });
        assert!(Usage::parse("7 (a) S 1", "").is_none());
    }

    #[test]
    fn processes_of_a_program_add_up_and_the_highest_memory_counts() {
        let usage = |seconds, peak_bytes| Usage { cpu: Duration::from_secs(seconds), peak_bytes };
        assert_eq!(usage(1, 9).and(usage(2, 5)), usage(3, 9));
        assert!(Usage::of(std::process::id()).expect("read").peak_bytes > 0);
    }
}
