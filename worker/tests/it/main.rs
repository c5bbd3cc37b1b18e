//! The worker on real servers: every entry twice, every death between two steps, every loss.

mod assigning;
mod assigning_at_scale;
mod campaign_test;
mod commands;
mod confirming;
mod crashing_sink;
mod dead_letters;
mod doctor;
mod dying;
mod frozen_worker;
mod galera;
mod jobs;
#[cfg(feature = "kafka")]
mod kafka;
mod keys;
mod locked_rows;
mod losing;
mod orders;
mod ranking;
mod receiver;
mod reconciling;
mod relay;
mod restoring;
mod retention;
mod stream_workers;
mod supervision;
mod support;
mod time_zone;
mod webhooks;
mod windows;
