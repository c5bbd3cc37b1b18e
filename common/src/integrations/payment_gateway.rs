//! The client of the payment gateway, which charges users for points.
//!
//! Without `PAYMENT_GATEWAY_URL` there is none, and charges are approved at once. With it, a gateway, or an adapter in
//! front of one, has to do this:
//!
//! - It gets `POST {url}/payments` with a JSON body `{"chargeId", "userId", "amount", "paymentMethod"}`. The amount is
//!   whole won; the payment method is that of the caller or null. A user and a password in the URL are sent as basic
//!   authentication.
//! - The header `Idempotency-Key` is the charge's id. The same request comes again whenever a response was lost, from
//!   another process and possibly at the same time: the gateway must charge once and respond the same.
//! - 2xx with `{"status": "APPROVED"}`: charged, for good. The points are credited.
//! - 2xx with `{"status": "DECLINED"}`, or 402, or 422: not charged, for good.
//! - Anything else (another status, another body, a redirect, a broken connection, no response within 2 s) leaves the
//!   charge pending. The worker sends the request again until there is a decision.

use std::{fmt, time::Duration};

use reqwest::{Client, Response, StatusCode, Url, redirect};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use crate::{
    config::describe_url,
    domain::charge::{Decision, NewCharge},
    error::{Cause, Error, Result},
    identifiers::{ChargeId, UserId},
    integrations::http::{describe, http_url},
};

const SETTING: &str = "PAYMENT_GATEWAY_URL";
/// How long a response may take, connection included.
pub const GATEWAY_TIMEOUT: Duration = Duration::from_secs(2);
/// A longer response is invalid, in bytes.
const MAX_RESPONSE: usize = 64 * 1024;

#[derive(Clone)]
pub struct PaymentGateway {
    client: Client,
    payments: Url,
}

impl fmt::Debug for PaymentGateway {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("PaymentGateway").field(&describe_url(&self.payments.as_str().into())).finish()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PaymentRequest<'c> {
    charge_id: ChargeId,
    user_id: UserId,
    amount: i64,
    payment_method: Option<&'c str>,
}

#[derive(Deserialize)]
struct PaymentResponse {
    status: String,
}

impl PaymentGateway {
    /// The gateway at `url`. It is not connected to yet.
    pub fn at(url: &SecretString) -> Result<Self> {
        let payments = payments_url(url.expose_secret()).map_err(|why| Error::Setting(SETTING, why))?;
        // A redirect would be followed with a GET, which charges nothing.
        let client = Client::builder().timeout(GATEWAY_TIMEOUT).redirect(redirect::Policy::none()).build();
        let client =
            client.map_err(|error| Error::Setting(SETTING, format!("cannot be spoken to: {}", describe(&error))))?;
        Ok(Self { client, payments })
    }

    /// Requests a charge, or the decision of an earlier request for it; none when that is unknown and the request has
    /// to be sent again.
    pub async fn charge(&self, charge: &NewCharge) -> Option<Decision> {
        match self.request(charge).await {
            Ok(decision) => Some(decision),
            Err(cause) => {
                tracing::warn!(charge = %charge.id, cause, "payment gateway gave no decision");
                None
            }
        }
    }

    async fn request(&self, charge: &NewCharge) -> Result<Decision, Cause> {
        let NewCharge { id, user, amount, payment_method } = charge;
        let body = PaymentRequest {
            charge_id: *id,
            user_id: *user,
            amount: *amount,
            payment_method: payment_method.as_deref(),
        };
        let request = self.client.post(self.payments.clone()).header("idempotency-key", id.to_string()).json(&body);
        let response = request.send().await.map_err(|error| Cause::from(describe(&error)))?;
        match response.status() {
            StatusCode::PAYMENT_REQUIRED | StatusCode::UNPROCESSABLE_ENTITY => Ok(Decision::Declined),
            status if status.is_success() => decision(response).await,
            // It says nothing about the charge, which may have been executed before the failure.
            status => Err(format!("it answered {status}").into()),
        }
    }
}

async fn decision(mut response: Response) -> Result<Decision, Cause> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| Cause::from(describe(&error)))? {
        body.extend_from_slice(&chunk);
        // Read in chunks, as a response without a length may never end.
        if body.len() > MAX_RESPONSE {
            return Err("it answered more than 64 KiB".into());
        }
    }
    let PaymentResponse { status } = serde_json::from_slice(&body)?;
    match status.as_str() {
        "APPROVED" => Ok(Decision::Approved),
        "DECLINED" => Ok(Decision::Declined),
        _ => Err("its status is neither APPROVED nor DECLINED".into()),
    }
}

/// The URL of payment requests, when `url` is valid.
pub(crate) fn payments_url(url: &str) -> Result<Url, String> {
    const EXPECTED: &str = "expected http:// or https:// and a host, without a query";
    let mut parsed = http_url(url)?;
    if parsed.query().is_some() {
        return Err(EXPECTED.into());
    }
    match parsed.path_segments_mut() {
        Ok(mut segments) => segments.pop_if_empty().push("payments"),
        Err(()) => return Err(EXPECTED.into()),
    };
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payments_are_requested_below_the_url() {
        let at = |url: &str| payments_url(url).map(String::from);
        assert_eq!(at("https://pay.example").as_deref(), Ok("https://pay.example/payments"));
        assert_eq!(at("http://pay.example:8090/v1/").as_deref(), Ok("http://pay.example:8090/v1/payments"));
        for wrong in ["", "pay.example", "ftp://pay.example", "https://", "mailto:pay@example", "http://pay/?key=1"] {
            assert!(at(wrong).is_err_and(|why| why.contains("http:// or https://")), "{wrong}");
        }
    }

    #[test]
    fn its_secrets_are_not_shown() {
        let gateway = PaymentGateway::at(&"https://shop:secret@pay.example/v1".into()).expect("a gateway");
        assert_eq!(format!("{gateway:?}"), "PaymentGateway(\"https://***@pay.example/v1/payments\")");
    }

    /// The certificates and the TLS provider of https are there.
    #[tokio::test]
    async fn a_gateway_can_be_spoken_to_over_https() {
        let gateway = PaymentGateway::at(&"https://127.0.0.1:9".into());
        assert!(gateway.is_ok(), "{gateway:?}");
    }
}
