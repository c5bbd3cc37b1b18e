//! The administrator's client of a stack, for requests that are not measured.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use chrono::TimeDelta;
use dibs_common::{
    clock,
    identifiers::{CouponId, ProductId},
};
use reqwest::{Body, Client, Method, RequestBuilder, header::CONTENT_TYPE};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::wait;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Of a list of millions.
const UPLOAD_TIMEOUT: Duration = Duration::from_mins(30);
/// A campaign is created in MySQL first, and in Redis by the worker soon after.
const OPENING_TIMEOUT: Duration = Duration::from_secs(15);

pub struct Api {
    client: Client,
    base: String,
    token: SecretString,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Created {
    coupon_id: CouponId,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Product {
    product_id: ProductId,
    stock: i64,
}

/// How far an assignment is.
#[derive(Debug, Deserialize)]
pub struct AssignmentProgress {
    pub status: String,
    /// Users who have the coupon by it.
    pub assigned: u32,
}

#[derive(Deserialize)]
struct PublicCampaign {
    status: String,
}

impl Api {
    /// `base` is such as `http://127.0.0.1:8080`.
    pub fn new(base: &str, token: SecretString) -> Result<Self> {
        let client = Client::builder().timeout(REQUEST_TIMEOUT).build().context("creating an HTTP client")?;
        Ok(Self { client, base: base.trim_end_matches('/').to_owned(), token })
    }

    /// The base URL.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Creates a campaign, and returns once it accepts claims. It is open from yesterday to tomorrow, so that the
    /// clocks of this machine and of Redis may differ.
    pub async fn open_campaign(&self, name: &str, quantity: u32) -> Result<CouponId> {
        self.open_campaign_of(name, quantity, &json!({"discount": {"type": "FIXED", "value": 1000}})).await
    }

    /// The same with `terms`, which include the discount.
    pub async fn open_campaign_of(&self, name: &str, quantity: u32, terms: &Value) -> Result<CouponId> {
        let now = clock::now();
        let mut body = json!({
                    "name": name,
                    "totalQuantity": quantity,
        // The clock of a midnight run is up to a day ahead of Redis's, and Redis decides about the window.
                    "opensAt": now - TimeDelta::minutes(24 * 60 + 1),
                    "closesAt": now + TimeDelta::days(1),
                    "validity": {"days": 30},
                });
        if let (Some(body), Some(terms)) = (body.as_object_mut(), terms.as_object()) {
            body.extend(terms.clone());
        }
        let Created { coupon_id } = self.administer(Method::POST, "/admin/coupons", &body).await?;
        self.until_open(coupon_id).await?;
        Ok(coupon_id)
    }

    pub async fn create_product(&self, body: &Value) -> Result<ProductId> {
        let product: Product = self.administer(Method::POST, "/admin/products", body).await?;
        Ok(product.product_id)
    }

    /// Adds units to the stock of a product.
    pub async fn restock(&self, product: ProductId, units: i64) -> Result<()> {
        let path = format!("/admin/products/{product}");
        let Product { .. } = self.administer(Method::PATCH, &path, &json!({"stockChange": units})).await?;
        Ok(())
    }

    /// Uploads the list of an assignment, however long it takes.
    pub async fn upload_assignment(
        &self,
        coupon: CouponId,
        key: &str,
        users: u32,
        list: Body,
    ) -> Result<AssignmentProgress> {
        let path = format!("/admin/coupons/{coupon}/assignments/{key}?expectedCount={users}");
        let call = self.client.put(format!("{}{path}", self.base)).bearer_auth(self.token.expose_secret());
        let call = call.header(CONTENT_TYPE, "application/x-ndjson").timeout(UPLOAD_TIMEOUT).body(list);
        read_success(call, &format!("PUT {path}")).await
    }

    /// How far an assignment is.
    pub async fn assignment(&self, coupon: CouponId, key: &str) -> Result<AssignmentProgress> {
        let path = format!("/admin/coupons/{coupon}/assignments/{key}");
        let call = self.client.get(format!("{}{path}", self.base)).bearer_auth(self.token.expose_secret());
        read_success(call, &format!("GET {path}")).await
    }

    /// The stock of a product.
    pub async fn stock(&self, product: ProductId) -> Result<i64> {
        let url = format!("{}/products/{product}", self.base);
        Ok(self.read::<Product>(&url).await?.stock)
    }

    /// Products on the first page of best sellers.
    pub async fn best_sellers(&self) -> Result<usize> {
        let url = format!("{}/products/best-sellers", self.base);
        let page: Value = self
            .client
            .get(&url)
            .send()
            .await
            .with_context(|| url.clone())?
            .json()
            .await
            .with_context(|| url.clone())?;
        Ok(page["items"].as_array().map_or(0, Vec::len))
    }

    async fn read<T: DeserializeOwned>(&self, url: &str) -> Result<T> {
        let read = async { self.client.get(url).send().await?.error_for_status()?.json().await };
        read.await.with_context(|| format!("GET {url}"))
    }

    async fn administer<T: DeserializeOwned>(&self, method: Method, path: &str, body: &Value) -> Result<T> {
        let what = format!("{method} {path}");
        let call = self.client.request(method, format!("{}{path}", self.base)).bearer_auth(self.token.expose_secret());
        read_success(call.json(body), &what).await
    }

    async fn until_open(&self, coupon: CouponId) -> Result<()> {
        let url = format!("{}/coupons/{coupon}", self.base);
        let every = Duration::from_millis(20);
        wait::until(format!("coupon {coupon} to open"), OPENING_TIMEOUT, every, async || {
            let response = self.client.get(&url).send().await.context("GET /coupons")?;
            // A 404 or 503 has another body, and means that the campaign is not in Redis yet.
            let public: Option<PublicCampaign> = response.json().await.ok();
            Ok(public.is_some_and(|public| public.status == "OPEN"))
        })
        .await
    }
}

/// The body of a rejection goes into the error: it names the invalid field.
async fn read_success<T: DeserializeOwned>(call: RequestBuilder, what: &str) -> Result<T> {
    let response = call.send().await.with_context(|| what.to_owned())?;
    let status = response.status();
    let text = response.text().await.with_context(|| what.to_owned())?;
    if !status.is_success() {
        bail!("{what} returned {status}: {text}");
    }
    serde_json::from_str(&text).with_context(|| format!("reading the response of {what}"))
}

/// Whether the process at `base` reports that it is ready.
pub async fn is_ready(client: &Client, base: &str) -> bool {
    // Shorter than the poll timeouts that use it, so that a hanging process does not use one up in a single request.
    let call = client.get(format!("{base}/health/ready")).timeout(Duration::from_secs(2));
    call.send().await.is_ok_and(|response| response.status().is_success())
}

#[cfg(test)]
mod tests {
    use axum::{
        Json, Router,
        http::{HeaderMap, StatusCode},
        response::IntoResponse as _,
        routing::{any, get, post},
    };
    use tokio::net::TcpListener;

    use super::*;

    async fn serve(router: Router) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    async fn create_campaign(headers: HeaderMap, Json(body): Json<Value>) -> axum::response::Response {
        let is_valid =
            headers["authorization"] == "Bearer token" && body["totalQuantity"] == 7 && body["perUserLimit"] == 2;
        let status = if is_valid { StatusCode::CREATED } else { StatusCode::BAD_REQUEST };
        (status, Json(json!({"couponId": 3}))).into_response()
    }

    #[tokio::test]
    async fn a_campaign_is_returned_once_it_is_open() {
        let polls = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let opens_at_third = {
            let polls = polls.clone();
            move || async move {
                let poll = polls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                Json(json!({"status": if poll < 2 { "SCHEDULED" } else { "OPEN" }}))
            }
        };
        let router =
            Router::new().route("/admin/coupons", post(create_campaign)).route("/coupons/3", get(opens_at_third));
        let api = Api::new(&format!("{}/", serve(router).await), "token".into()).expect("a client");
        let coupon = api.open_campaign_of("x", 7, &json!({"perUserLimit": 2})).await.expect("an open campaign");
        assert_eq!((coupon.get(), polls.load(std::sync::atomic::Ordering::Relaxed)), (3, 3));
    }

    #[tokio::test]
    async fn a_rejection_is_an_error_with_its_body() {
        let router = Router::new().route("/admin/products", any(async || (StatusCode::FORBIDDEN, "no scope")));
        let api = Api::new(&serve(router).await, "token".into()).expect("a client");
        let error = api.create_product(&json!({})).await.expect_err("an error").to_string();
        assert_eq!(error, "POST /admin/products returned 403 Forbidden: no scope");
    }

    #[tokio::test]
    async fn stock_and_best_sellers_are_read_from_their_pages() {
        let router = Router::new()
            .route("/products/5", get(async || Json(json!({"productId": 5, "stock": 12, "name": "x"}))))
            .route("/products/best-sellers", get(async || Json(json!({"items": [{}, {}]}))));
        let api = Api::new(&serve(router).await, "token".into()).expect("a client");
        let product = ProductId::try_from(5).expect("an id");
        assert_eq!((api.stock(product).await.expect("a stock"), api.best_sellers().await.expect("a page")), (12, 2));
        let missing = api.stock(ProductId::try_from(6).expect("an id")).await.expect_err("an error");
        assert!(
            format!("{missing:#}").contains("/products/6") && format!("{missing:#}").contains("404"),
            "{missing:#}"
        );
    }

    #[tokio::test]
    async fn a_process_is_ready_when_it_says_so() {
        let ready = serve(Router::new().route("/health/ready", get(async || "UP"))).await;
        let down =
            serve(Router::new().route("/health/ready", get(async || (StatusCode::SERVICE_UNAVAILABLE, "DOWN")))).await;
        let client = Client::new();
        assert!(is_ready(&client, &ready).await);
        assert!(!is_ready(&client, &down).await);
    }
}
