//! Clients of servers that are not part of Dibs: the payment gateway and the receivers of webhooks.

pub(crate) mod http;
pub mod jwks;
pub mod messages;
pub mod payment_gateway;
pub mod webhooks;
