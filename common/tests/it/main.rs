//! Each module of the database and of Redis, and each script, on real servers.

mod db_assignments;
mod db_campaigns;
mod db_charges;
mod db_claim_refusals;
mod db_idempotency;
mod db_issuances;
mod db_lease;
mod db_orders;
mod db_outbox;
mod db_owned_coupons;
mod db_points;
mod db_pool;
mod db_products;
mod db_retry;
mod db_sales;
mod network;
mod redis_state;
mod sales_scripts;
mod sales_windows;
mod scripts;
mod support;
