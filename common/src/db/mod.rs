//! The way to `MySQL` and `MariaDB`: the pool, retries, leases, and one module for each group of tables.
//!
//! Functions are called by their module's path, such as `db::products::find`. Their SQL names them in a comment, so
//! that the server's slow query log and process list point to the code.

pub mod admin_actions;
pub mod api_keys;
pub mod assignments;
pub mod audits;
mod batch;
pub mod best_sellers;
pub mod campaigns;
pub mod charges;
pub mod claim_attempts;
pub mod claim_refusals;
pub mod console;
pub mod coupon_expiry;
pub mod dead_letters;
mod decode;
pub mod diagnostics;
pub mod epochs;
mod errors;
pub mod idempotency;
pub mod issuances;
pub mod issued_claims;
pub mod job_runs;
mod lease;
mod login;
mod migrations;
pub mod orders;
pub mod outbox;
pub mod owned_coupons;
pub mod point_adjustments;
pub mod points;
mod pool;
pub mod processes;
pub mod products;
pub mod rebuilds;
mod retention;
mod retry;
pub mod retry_queue;
pub mod sales;
mod search;
pub mod server;
pub mod statements;
pub mod timeline;
pub mod user_claims;
mod watch;

pub use batch::{DuplicateCheck, decide_batch};
pub use errors::{database_error, is_duplicate, is_row_locked};
pub use lease::{HeldLease, LEASE_TIME, Lease, purge_leases};
pub use migrations::MigrationDifference;
pub use pool::Database;
pub use retry::{QUERY_TIMEOUT, found, retrying, retrying_batch, with_timeout, within, within_limit};
pub use search::{MAX_ROWS_READ, Search};

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::{Path, PathBuf},
    };

    fn files(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
    }

    /// The reader of a slow query log searches for the function that the comment names.
    #[test]
    fn every_sql_comment_names_a_function_of_its_file() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/db");
        let mut comments = 0;
        for file in files(&folder) {
            let module = file.strip_prefix(&folder).expect("inside").components().next().expect("a name");
            let module = Path::new(&module).file_stem().expect("a name").to_string_lossy().into_owned();
            let source = fs::read_to_string(&file).expect("a source");
            // Not spelled in one piece, as this file is read as well.
            for comment in source.split("/\u{2a} ").skip(1) {
                let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
                let path = comment.split(|c| !is_part(c)).next().unwrap_or_default().trim_end_matches(':');
                let (named, function) = path.rsplit_once("::").unwrap_or((&module, path));
                assert_eq!(named, module, "{path} in {}", file.display());
                assert!(source.contains(&format!("fn {function}")), "{path} in {}", file.display());
                comments += 1;
            }
        }
        assert!(comments > 80, "{comments}");
    }
}
