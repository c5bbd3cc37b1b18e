//! The calls on Dibs that are not measured: an administrator's, and of health.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use chrono::TimeDelta;
use dibs_common::{
    clock,
    identifiers::{CouponId, ProductId},
};
use reqwest::{Client, Method};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::waiting;

const CALL_LIMIT: Duration = Duration::from_secs(10);
/// A campaign is in MySQL first, and in Redis soon after.
const OPENING_LIMIT: Duration = Duration::from_secs(15);

/// An API of Dibs.
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

#[derive(Deserialize)]
struct Public {
    status: String,
}

impl Api {
    /// The API at `base`, such as `http://127.0.0.1:8080`.
    pub fn new(base: &str, token: SecretString) -> Result<Self> {
        let client = Client::builder().timeout(CALL_LIMIT).build().context("making an HTTP client")?;
        Ok(Self { client, base: base.trim_end_matches('/').to_owned(), token })
    }

    /// Where it is.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Makes a campaign that has been open since yesterday and is until tomorrow, wherever Redis's clock is in between; answers when it takes claims.
    pub async fn open_campaign(&self, name: &str, quantity: u32) -> Result<CouponId> {
        self.open_campaign_of(name, quantity, &json!({"discount": {"type": "FIXED", "value": 1000}})).await
    }

    /// The same with these `terms`, its discount among them.
    pub async fn open_campaign_of(&self, name: &str, quantity: u32, terms: &Value) -> Result<CouponId> {
        let now = clock::now();
        let mut body = json!({
            "name": name,
            "totalQuantity": quantity,
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

    /// Makes a product.
    pub async fn create_product(&self, body: &Value) -> Result<ProductId> {
        let product: Product = self.administer(Method::POST, "/admin/products", body).await?;
        Ok(product.product_id)
    }

    /// Adds to what is in stock of a product.
    pub async fn restock(&self, product: ProductId, units: i64) -> Result<()> {
        let path = format!("/admin/products/{product}");
        let Product { .. } = self.administer(Method::PATCH, &path, &json!({"stockChange": units})).await?;
        Ok(())
    }

    /// What is in stock of a product.
    pub async fn stock(&self, product: ProductId) -> Result<i64> {
        let url = format!("{}/products/{product}", self.base);
        let answer = self.client.get(&url).send().await.with_context(|| url.clone())?;
        let product: Product = answer.json().await.with_context(|| url.clone())?;
        Ok(product.stock)
    }

    /// How many products the first page of what sold best shows.
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

    /// Makes a call as the administrator.
    async fn administer<T: DeserializeOwned>(&self, method: Method, path: &str, body: &Value) -> Result<T> {
        let what = format!("{method} {path}");
        let call = self.client.request(method, format!("{}{path}", self.base)).bearer_auth(self.token.expose_secret());
        let answer = call.json(body).send().await.with_context(|| what.clone())?;
        let status = answer.status();
        let text = answer.text().await.with_context(|| what.clone())?;
        if !status.is_success() {
            bail!("{what} answered {status}: {text}");
        }
        serde_json::from_str(&text).with_context(|| format!("the answer of {what}"))
    }

    async fn until_open(&self, coupon: CouponId) -> Result<()> {
        let url = format!("{}/coupons/{coupon}", self.base);
        let every = Duration::from_millis(20);
        waiting::until(format!("coupon {coupon} open"), OPENING_LIMIT, every, async || {
            let answer = self.client.get(&url).send().await.context("GET /coupons")?;
            let public: Option<Public> = answer.json().await.ok();
            Ok(public.is_some_and(|public| public.status == "OPEN"))
        })
        .await
    }
}

/// Whether the process at `base` says that it is ready.
pub async fn is_ready(client: &Client, base: &str) -> bool {
    let call = client.get(format!("{base}/health/ready")).timeout(Duration::from_secs(2));
    call.send().await.is_ok_and(|answer| answer.status().is_success())
}
