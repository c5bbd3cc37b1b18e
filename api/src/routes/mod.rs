//! One file for each call: its request, its responses, its entry in the OpenAPI document.

mod admin;
mod coupons;
mod document;
mod errors;
mod orders;
mod payments;
mod points;
mod prelude;
mod products;
mod responses;
mod security;
mod users;

use axum::{Json, Router, routing::get};
use dibs_common::health::{self, ProcessHealth};
use serde_json::Value;
use utoipa::{OpenApi, openapi::OpenApi as Derived};
use utoipa_axum::{router::OpenApiRouter, routes};
use utoipa_swagger_ui::SwaggerUi;

pub use responses::Pending;

use crate::{
    access::{
        AuthMode,
        policy::{Listener, POLICIES},
    },
    app::SharedApp,
    console,
    edge::{self, Edge},
    routes::security::with_access,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Dibs",
        description = "First-come coupons, and the shop around them. Times are RFC 3339, money is whole won. Every \
            answer has `x-request-id`; every refusal is a problem (RFC 9457) with a stable `code`. Every POST, PATCH and \
            DELETE takes `Idempotency-Key`: for 24 hours a repeat is given the stored answer, with `idempotent-replayed: true`. The \
            same key with another JSON value or query is refused with 422 `IDEMPOTENCY_KEY_REUSED`, one whose first request is still \
            running with 409 `IDEMPOTENCY_IN_PROGRESS`. Stored are answers of 2xx, 404, 409 \
            and 422 that do not ask to come again later; after any other a repeat runs again, and is one with the first."
    ),
    tags(
        (name = "coupons", description = "Claims and their outcomes"),
        (name = "orders", description = "From placing to confirming the purchase"),
        (name = "payments", description = "With points"),
        (name = "points", description = "What users buy and hold"),
        (name = "products", description = "What the shop sells"),
        (name = "campaigns", description = "Coupons on offer, as administrators see and change them"),
        (name = "assignments", description = "Coupons that administrators give to many users"),
        (name = "catalogue", description = "Products, as administrators change them"),
        (name = "support", description = "What administrators look up and correct for users"),
        (name = "keys", description = "API keys"),
        (name = "dead-letters", description = "What could not be processed or delivered"),
        (name = "errors", description = "What the codes of problems mean")
    ),
    components(schemas(crate::problem::Problem<'static>, crate::orders::AcceptedCommand))
)]
struct ApiDocument;

fn documented() -> OpenApiRouter<SharedApp> {
    OpenApiRouter::with_openapi(ApiDocument::openapi())
        .routes(routes!(coupons::issue::issue))
        .routes(routes!(coupons::show::show))
        .routes(routes!(coupons::claim_status::claim_status))
        .routes(routes!(users::coupons::coupons))
        .routes(routes!(users::revoke::revoke))
        .routes(routes!(orders::place::place, orders::list::list))
        .routes(routes!(orders::show::show))
        .routes(routes!(orders::confirm::confirm))
        .routes(routes!(orders::cancel::cancel))
        .routes(routes!(orders::command::command))
        .routes(routes!(payments::confirm::confirm))
        .routes(routes!(payments::show::show))
        .routes(routes!(points::charge::charge, points::balance::balance))
        .routes(routes!(points::history::history))
        .routes(routes!(points::charge_state::charge_state))
        .routes(routes!(products::list::list_products))
        .routes(routes!(products::best_sellers::best_sellers))
        .routes(routes!(products::show::show_product))
        .routes(routes!(products::rank::rank))
        .routes(routes!(admin::create_campaign::create_campaign, admin::campaigns::campaigns))
        .routes(routes!(admin::campaign::campaign, admin::change_campaign::change_campaign))
        .routes(routes!(admin::campaign_state::pause))
        .routes(routes!(admin::campaign_state::resume))
        .routes(routes!(admin::campaign_state::close))
        .routes(routes!(admin::audit::audit))
        .routes(routes!(admin::rebuild::rebuild))
        .routes(routes!(admin::rebuild_state::rebuild_state))
        .routes(routes!(admin::actions::actions))
        .routes(routes!(admin::timeline::timeline))
        .routes(routes!(admin::create_key::create_key, admin::keys::keys))
        .routes(routes!(admin::revoke_key::revoke_key))
        .routes(routes!(admin::adjust_points::adjust_points))
        .routes(routes!(admin::assign::assign, admin::assignments::assignments))
        .routes(routes!(admin::assignment::assignment, admin::upload_assignment::upload_assignment))
        .routes(routes!(admin::refused_users::refused_users))
        .routes(routes!(admin::approval::approve))
        .routes(routes!(admin::approval::reject))
        .routes(routes!(admin::orders::orders))
        .routes(routes!(admin::create_product::create_product))
        .routes(routes!(admin::change_product::change_product))
        .routes(routes!(admin::dead_letters::dead_letters))
        .routes(routes!(admin::redrive::redrive))
        .routes(routes!(admin::drop_dead_letter::drop_dead_letter))
        .routes(routes!(errors::error_codes))
        .routes(routes!(errors::error_page))
}

/// The OpenAPI document of an API that requires credentials.
pub fn document() -> Value {
    complete(documented().into_openapi(), AuthMode::Required)
}

fn complete(document: Derived, mode: AuthMode) -> Value {
    document::completed(with_access(document, mode))
}

/// Every route, inside the edge layer, which serves those of the listener.
pub fn router(app: SharedApp, listener: Listener) -> Router {
    let (routes, document) = documented().split_for_parts();
    let operational = health::router(ProcessHealth {
        database: app.database.clone(),
        redis: app.redis.clone(),
        metrics: app.metrics.clone(),
        supervisor: app.supervisor.clone(),
    });
    let served = complete(document, app.credentials.mode);
    let routes = routes.route("/openapi.json", get(async move || Json(served))).with_state(app.clone());
    // The console calls the API past the listener, which may serve a part of it.
    let calls = routes.clone().fallback(edge::no_route).layer(Edge::new(app.clone(), Listener::Only, POLICIES));
    let console = console::router(app.clone(), listener, calls);
    routes
        .merge(operational)
        .merge(SwaggerUi::new("/docs").config(utoipa_swagger_ui::Config::from("/openapi.json")))
        .fallback(edge::no_route)
        .layer(Edge::new(app, listener, POLICIES))
        .merge(console)
}
