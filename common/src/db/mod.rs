//! The way to `MySQL` and `MariaDB`: the pool, retries, leases, and one module for each group of tables.
//!
//! Functions are called by their module's path, such as `db::products::find`. Their SQL names them in a comment, so
//! that the server's slow query log and process list point to the code.

pub mod assignments;
pub mod best_sellers;
pub mod campaigns;
pub mod charges;
pub mod dead_letters;
mod decode;
mod errors;
pub mod idempotency;
pub mod issuances;
pub mod job_runs;
mod lease;
pub mod orders;
pub mod outbox;
pub mod owned_coupons;
pub mod points;
mod pool;
pub mod products;
pub mod rejected_requests;
mod retry;
pub mod retry_queue;
pub mod sales;
pub mod statements;

pub use errors::{database_error, is_duplicate};
pub use lease::Lease;
pub use pool::Database;
pub use retry::{QUERY_TIMEOUT, found, retrying, with_timeout, within, within_limit};
