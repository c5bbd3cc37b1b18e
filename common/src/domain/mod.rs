//! The rules. Pure: no clock, no randomness, no I/O; state and commands in, decisions out.

pub mod access;
pub mod admin_action;
pub mod api_key;
pub mod assignment;
pub mod assignment_list;
pub mod assignment_rules;
pub mod audit;
pub mod campaign;
pub mod campaign_change;
pub mod charge;
pub mod claim;
mod cursor;
pub mod dead_letter;
mod discount;
pub mod event;
pub mod facts;
mod field_error;
pub mod order;
pub mod owned_coupon;
pub mod points;
pub mod product;
pub mod ranking;
pub mod rebuild;
pub mod text;
pub mod timeline;
pub mod trace_context;

pub use field_error::FieldError;

#[cfg(test)]
mod tests;
