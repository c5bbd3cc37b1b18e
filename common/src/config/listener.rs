use std::fs;

use clap::Args;

use crate::http_server::ConnectionLimits;

/// What a process has open besides the connections of its clients: to servers, logs, libraries.
const RESERVED_FILES: usize = 128;
/// Where the limit of open files cannot be read.
const USUAL_FILE_LIMIT: usize = 1_024;
const MIN_CONNECTIONS: usize = 64;

/// Bounds on the connections of clients.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct ListenerSettings {
    /// Connections at once; 0 stands for the limit of open files, less 128
    #[arg(long, env, default_value_t = 0)]
    pub max_connections: u32,
    /// Connections of one IP address at once; 0 stands for no bound of its own
    #[arg(long, env, default_value_t = 0)]
    pub max_connections_per_address: u32,
}

impl ListenerSettings {
    pub fn limits(self) -> ConnectionLimits {
        let total = match self.max_connections as usize {
            0 => open_files_limit().saturating_sub(RESERVED_FILES).max(MIN_CONNECTIONS),
            total => total,
        };
        let per_address = match self.max_connections_per_address as usize {
            0 => total,
            per_address => per_address,
        };
        ConnectionLimits::new(total, per_address)
    }
}

/// The soft limit, as Linux reports it.
fn open_files_limit() -> usize {
    fs::read_to_string("/proc/self/limits").ok().as_deref().and_then(parse_open_files).unwrap_or(USUAL_FILE_LIMIT)
}

fn parse_open_files(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_open_files_is_read() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max open files            1024                 524288               files     \n";
        assert_eq!(parse_open_files(limits), Some(1_024));
        assert_eq!(parse_open_files("Max open files            unlimited            unlimited            files"), None);
        assert!(open_files_limit() > 0);
    }

    #[test]
    fn zero_stands_for_what_the_process_can_have() {
        let limits = ListenerSettings::default().limits();
        assert!(limits.total >= MIN_CONNECTIONS && limits.per_address == limits.total, "{limits:?}");
        let limits = ListenerSettings { max_connections: 500, max_connections_per_address: 20 }.limits();
        assert_eq!((limits.total, limits.per_address), (500, 20));
    }
}
