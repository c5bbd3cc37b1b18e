//! The calls on Dibs that are not measured: an administrator's, and of health.

use std::time::Duration;

use chrono::TimeDelta;
use dibs_common::{clock, identifiers::CouponId};
use reqwest::{Client, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;

use crate::{
    failure::{Context, Failure, Result},
    waiting,
};

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
struct Public {
    status: String,
}

impl Api {
    /// The API at `base`, such as `http://127.0.0.1:8080`.
    pub fn new(base: &str, token: SecretString) -> Result<Self> {
        let client = Client::builder().timeout(CALL_LIMIT).build().context("making an HTTP client")?;
        Ok(Self { client, base: base.trim_end_matches('/').to_owned(), token })
    }

    /// Makes a campaign that has been open for a minute and is until tomorrow; answers when it takes claims.
    pub async fn open_campaign(&self, name: &str, quantity: u32) -> Result<CouponId> {
        let now = clock::now();
        let body = json!({
            "name": name,
            "discount": {"type": "FIXED", "value": 1000},
            "totalQuantity": quantity,
            "opensAt": now - TimeDelta::minutes(1),
            "closesAt": now + TimeDelta::days(1),
            "validity": {"days": 30},
        });
        let call = self.client.post(format!("{}/admin/coupons", self.base)).bearer_auth(self.token.expose_secret());
        let answer = call.json(&body).send().await.context("POST /admin/coupons")?;
        let status = answer.status();
        let text = answer.text().await.context("the answer of POST /admin/coupons")?;
        if status != StatusCode::CREATED {
            return Err(Failure::new(format!("POST /admin/coupons answered {status}: {text}")));
        }
        let Created { coupon_id } = serde_json::from_str(&text).context("the answer of POST /admin/coupons")?;
        self.until_open(coupon_id).await?;
        Ok(coupon_id)
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
