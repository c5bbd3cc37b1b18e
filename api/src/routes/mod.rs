//! One file for each call: what it takes, what it answers, its entry in the OpenAPI document.

mod admin;
mod coupons;
mod products;
mod users;

use axum::{Json, Router, routing::get};
use dibs_common::operations::{self, Operations};
use utoipa::{OpenApi, openapi::OpenApi as Document};
use utoipa_axum::{router::OpenApiRouter, routes};
use utoipa_swagger_ui::SwaggerUi;

use crate::{
    app::SharedApp,
    edge::{self, Edge},
};

/// What the document says of the whole.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Dibs",
        description = "First-come coupons, and the shop around them. Times are RFC 3339, money is whole won. Every \
            answer has `x-request-id`; every refusal is a problem (RFC 9457) with a stable `code`."
    ),
    tags(
        (name = "coupons", description = "Claims, and what became of them"),
        (name = "products", description = "What the shop sells"),
        (name = "administration", description = "Calls with the administrator's bearer token")
    ),
    components(schemas(crate::problem::Problem<'static>))
)]
struct Whole;

fn documented() -> OpenApiRouter<SharedApp> {
    OpenApiRouter::with_openapi(Whole::openapi())
        .routes(routes!(coupons::issue::issue))
        .routes(routes!(coupons::show::show))
        .routes(routes!(coupons::claim_status::claim_status))
        .routes(routes!(users::coupons::coupons))
        .routes(routes!(products::list::list_products))
        .routes(routes!(products::show::show_product))
        .routes(routes!(admin::create_campaign::create_campaign))
        .routes(routes!(admin::create_product::create_product))
        .routes(routes!(admin::change_product::change_product))
}

/// The OpenAPI document.
pub fn document() -> Document {
    documented().into_openapi()
}

/// Every route, inside the edge.
pub fn router(app: SharedApp) -> Router {
    let (routes, document) = documented().split_for_parts();
    let about_itself = operations::router(Operations {
        database: app.database.clone(),
        redis: app.redis.clone(),
        metrics: app.metrics.clone(),
        stopping: app.stopping.clone(),
    });
    let served = document.clone();
    routes
        .route("/openapi.json", get(async move || Json(served)))
        .with_state(app.clone())
        .merge(about_itself)
        .merge(SwaggerUi::new("/docs").config(utoipa_swagger_ui::Config::from("/openapi.json")))
        .fallback(edge::no_route)
        .method_not_allowed_fallback(edge::no_method)
        .layer(Edge(app))
}
