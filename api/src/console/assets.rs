//! What pages load: styles, scripts and the icon. A name contains a hash of the content, so browsers keep it for good.

use std::sync::LazyLock;

use axum::{
    extract::Path,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use dibs_common::secret::{hexadecimal, sha256};

struct Asset {
    name: &'static str,
    content_type: &'static str,
    content: &'static str,
    url: String,
}

static ASSETS: LazyLock<[Asset; 4]> = LazyLock::new(|| {
    [
        asset("console.css", "text/css; charset=utf-8", include_str!("../../assets/console.css")),
        asset("console.js", "text/javascript; charset=utf-8", include_str!("../../assets/console.js")),
        asset("htmx.js", "text/javascript; charset=utf-8", include_str!("../../assets/htmx.min.js")),
        asset("icon.svg", "image/svg+xml", include_str!("../../assets/icon.svg")),
    ]
});

fn asset(name: &'static str, content_type: &'static str, content: &'static str) -> Asset {
    let hash = hexadecimal(&sha256(content.as_bytes()));
    Asset { name, content_type, content, url: format!("/console/assets/{}-{name}", &hash[..12]) }
}

/// Where a page loads an asset from.
pub fn url(name: &str) -> &'static str {
    ASSETS.iter().find(|asset| asset.name == name).map_or("", |asset| &asset.url)
}

pub async fn serve(Path(name): Path<String>) -> Response {
    let found = ASSETS.iter().find(|asset| asset.url.rsplit('/').next() == Some(&name));
    let Some(asset) = found else { return StatusCode::NOT_FOUND.into_response() };
    let mut response = asset.content.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
    response
}
