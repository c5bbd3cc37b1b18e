//! Calls of administrators.

pub mod actions;
pub mod adjust_points;
pub mod assign;
pub mod assignment;
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
pub mod redrive;
pub mod revoke_key;
