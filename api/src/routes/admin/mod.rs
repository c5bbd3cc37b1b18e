//! Calls of administrators.

pub mod actions;
pub mod adjust_points;
pub mod approval;
pub mod assign;
pub mod assignment;
pub mod assignments;
pub mod audit;
pub mod campaign;
pub mod campaign_state;
pub mod campaigns;
pub mod change_campaign;
pub mod change_product;
pub mod create_campaign;
pub mod create_key;
pub mod create_product;
pub mod dead_letters;
pub mod drop_dead_letter;
pub mod keys;
pub mod orders;
pub mod rebuild;
pub mod rebuild_state;
pub mod redrive;
pub mod refused_users;
pub mod revoke_key;
pub mod timeline;
pub mod upload_assignment;
