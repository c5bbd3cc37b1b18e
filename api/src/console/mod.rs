//! The console: pages in the browser for people on duty.
//!
//! It is a client of the REST API within the process ([`calls`]): a page reads and changes through the same routes, under
//! the same table of policies, as the credential that logged in. What no call shows (the live numbers of all processes,
//! sinks, groups of dead letters) it reads itself. [`guard`] stands in front of every page: session, scope, CSRF.
//! Pages are rendered here; the little that moves comes as server-sent events, rendered once for all ([`hub`]).

#![allow(
    clippy::unused_self,
    clippy::ref_option,
    clippy::trivially_copy_pass_by_ref,
    clippy::needless_pass_by_value,
    reason = "templates call methods of what they have, and pass references to fields and values of calls"
)]

mod actions;
mod alerts;
mod assets;
mod calls;
mod campaign;
mod campaign_changes;
mod campaign_form;
mod campaigns;
mod charts;
mod dead_letters;
mod delivery;
mod forms;
mod guard;
mod hub;
mod keys;
mod login;
mod now;
mod orders;
mod page;
mod ranking;
mod session;
mod snapshot;
mod users;
mod words;

use axum::{
    Router,
    middleware::from_fn_with_state,
    routing::{get, post},
};
pub use hub::Hub;
pub use session::Sessions;

use crate::{
    access::policy::{CONSOLE, Listener},
    app::SharedApp,
    edge::Edge,
};

/// What the pages share.
#[derive(Clone)]
pub struct Console {
    app: SharedApp,
    /// The REST API, inside its edge.
    calls: Router,
}

/// Every page, inside an edge layer of its own. `calls` are the routes of the API.
pub fn router(app: SharedApp, listener: Listener, calls: Router) -> Router {
    let console = Console { app: app.clone(), calls };
    let campaigns = Router::new()
        .route("/console/campaigns", get(campaigns::list).post(campaign_form::create))
        .route("/console/campaigns/new", get(campaign_form::form))
        .route("/console/campaigns/preview", post(campaign_form::preview))
        .route("/console/campaigns/{couponId}", get(campaign::show))
        .route("/console/campaigns/{couponId}/live", get(campaign::live))
        .route("/console/campaigns/{couponId}/audit", get(campaign::audit))
        .route("/console/campaigns/{couponId}/pause", post(campaign_changes::pause))
        .route("/console/campaigns/{couponId}/resume", post(campaign_changes::resume))
        .route("/console/campaigns/{couponId}/close", post(campaign_changes::close))
        .route("/console/campaigns/{couponId}/quantity", post(campaign_changes::quantity))
        .route("/console/campaigns/{couponId}/rebuild", post(campaign_changes::rebuild))
        .route("/console/campaigns/{couponId}/rebuilds/{rebuildId}", get(campaign_changes::rebuild_state));
    let letters = Router::new()
        .route("/console/dead-letters", get(dead_letters::list))
        .route("/console/dead-letters/redrive", post(dead_letters::redrive_all))
        .route("/console/dead-letters/drop", post(dead_letters::drop_all))
        .route("/console/dead-letters/progress", get(dead_letters::progress))
        .route("/console/dead-letters/{deadLetterId}", get(dead_letters::show))
        .route("/console/dead-letters/{deadLetterId}/redrive", post(dead_letters::redrive))
        .route("/console/dead-letters/{deadLetterId}/drop", post(dead_letters::drop_one));
    Router::new()
        .route("/console", get(now::show))
        .route("/console/events", get(now::events))
        .route("/console/login", get(login::form).post(login::log_in))
        .route("/console/logout", post(login::log_out))
        .route("/console/assets/{name}", get(assets::serve))
        .route("/console/users", get(users::find))
        .route("/console/users/{userId}", get(users::show))
        .route("/console/ranking", get(ranking::show))
        .route("/console/products/{productId}", get(ranking::product))
        .route("/console/delivery", get(delivery::show))
        .route("/console/delivery/{sink}/test", post(delivery::test))
        .route("/console/orders", get(orders::list))
        .route("/console/orders/{orderId}", get(orders::show))
        .route("/console/actions", get(actions::list))
        .route("/console/keys", get(keys::list).post(keys::create))
        .route("/console/keys/{apiKeyId}/revoke", post(keys::revoke))
        .merge(campaigns)
        .merge(letters)
        .layer(from_fn_with_state(console.clone(), guard::admit))
        .with_state(console)
        .layer(Edge::new(app, listener, CONSOLE))
}
