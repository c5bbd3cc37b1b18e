//! The audit on real servers: it finds nothing in a valid stack, and every planted difference.

mod api;
mod audit_campaign;
mod audit_command;
mod audit_deliveries;
mod audit_shop;
mod campaign_life;
mod steps;
