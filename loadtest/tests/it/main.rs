//! The audit on real servers: it must find nothing where nothing is wrong, and everything where something is.

mod audit;
mod audit_delivered;
mod audit_shop;
