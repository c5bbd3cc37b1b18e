//! Calls of administrators.

pub mod assign;
pub mod assignment;
pub mod change_product;
pub mod create_campaign;
pub mod create_product;
pub mod dead_letters;
pub mod drop_dead_letter;
pub mod redrive;
