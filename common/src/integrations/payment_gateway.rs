//! The payment gateway: who takes the money for a charge.
//!
//! Without `PAYMENT_GATEWAY_URL` nobody does, and charges are approved at once. With it, this is what a gateway has to
//! do, or an adapter in front of one:
//!
//! - It is sent `POST {url}/payments` with a JSON body `{"chargeId", "userId", "amount", "paymentMethod"}`; the amount
//!   is whole won, the payment method is what the caller named or null. A user and a password in the URL are sent as
//!   basic authentication.
//! - The header `Idempotency-Key` is the charge's id. The same question comes again whenever an answer was lost, from
//!   another process and possibly at the same time: it must take the money once, and answer the same.
//! - 2xx with `{"status": "APPROVED"}`: the money is taken, for good. The points are credited.
//! - 2xx with `{"status": "DECLINED"}`, or 402, or 422: it is not, and will not be.
//! - Anything else (another status, another body, a redirect, a broken connection, no answer within 2 s) tells
//!   nothing: the charge stays pending, and the worker asks again until it is told.

use std::time::Duration;

use reqwest::{Client, Response, StatusCode, Url, redirect};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use crate::{
    domain::charge::{Decision, NewCharge},
    error::{Cause, Error, Result},
    identifiers::{ChargeId, UserId},
    integrations::http::{describe, http_url},
};

const SETTING: &str = "PAYMENT_GATEWAY_URL";
/// How long the gateway may take, connection included.
pub const GATEWAY_TIMEOUT: Duration = Duration::from_secs(2);
/// An answer that is longer is none.
const LONGEST_ANSWER: usize = 64 * 1024;

/// What the gateway says of a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatewayAnswer {
    /// The money is taken.
    Approved,
    /// It is not, and will not be.
    Declined,
    /// Nobody knows: ask again.
    Unknown,
}

impl GatewayAnswer {
    /// How the charge ends; none when that has to be asked again.
    pub const fn decision(self) -> Option<Decision> {
        match self {
            Self::Approved => Some(Decision::Approved),
            Self::Declined => Some(Decision::Declined),
            Self::Unknown => None,
        }
    }
}

/// The way to the gateway.
#[derive(Clone, Debug)]
pub struct PaymentGateway {
    client: Client,
    payments: Url,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Question<'c> {
    charge_id: ChargeId,
    user_id: UserId,
    amount: i64,
    payment_method: Option<&'c str>,
}

#[derive(Deserialize)]
struct Verdict {
    status: String,
}

impl PaymentGateway {
    /// The gateway at `url`. No connection is made yet.
    pub fn at(url: &SecretString) -> Result<Self> {
        let payments = payments_url(url.expose_secret()).map_err(|why| Error::Setting(SETTING, why))?;
        // A redirect would be followed with a GET, which pays nothing.
        let client = Client::builder().timeout(GATEWAY_TIMEOUT).redirect(redirect::Policy::none()).build();
        let client =
            client.map_err(|error| Error::Setting(SETTING, format!("cannot be spoken to: {}", describe(&error))))?;
        Ok(Self { client, payments })
    }

    /// Asks it to take the money for a charge, or what became of that when it was asked before.
    pub async fn ask(&self, charge: &NewCharge) -> GatewayAnswer {
        self.answer(charge).await.unwrap_or_else(|cause| {
            tracing::warn!(charge = %charge.id, cause, "the payment gateway did not say what became of a charge");
            GatewayAnswer::Unknown
        })
    }

    async fn answer(&self, charge: &NewCharge) -> Result<GatewayAnswer, Cause> {
        let NewCharge { id, user, amount, payment_method } = charge;
        let question =
            Question { charge_id: *id, user_id: *user, amount: *amount, payment_method: payment_method.as_deref() };
        let request = self.client.post(self.payments.clone()).header("idempotency-key", id.to_string()).json(&question);
        let response = request.send().await.map_err(|error| Cause::from(describe(&error)))?;
        match response.status() {
            StatusCode::PAYMENT_REQUIRED | StatusCode::UNPROCESSABLE_ENTITY => Ok(GatewayAnswer::Declined),
            status if status.is_success() => verdict(response).await,
            status => Err(format!("it answered {status}").into()),
        }
    }
}

async fn verdict(mut response: Response) -> Result<GatewayAnswer, Cause> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| Cause::from(describe(&error)))? {
        body.extend_from_slice(&chunk);
        if body.len() > LONGEST_ANSWER {
            return Err("it answered more than 64 KiB".into());
        }
    }
    let Verdict { status } = serde_json::from_slice(&body)?;
    match status.as_str() {
        "APPROVED" => Ok(GatewayAnswer::Approved),
        "DECLINED" => Ok(GatewayAnswer::Declined),
        _ => Err("its status is neither APPROVED nor DECLINED".into()),
    }
}

/// Where payments are asked for, when `url` is one that can be.
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
    fn payments_are_asked_for_below_the_url() {
        let at = |url: &str| payments_url(url).map(String::from);
        assert_eq!(at("https://pay.example").as_deref(), Ok("https://pay.example/payments"));
        assert_eq!(at("http://pay.example:8090/v1/").as_deref(), Ok("http://pay.example:8090/v1/payments"));
        for wrong in ["", "pay.example", "ftp://pay.example", "https://", "mailto:pay@example", "http://pay/?key=1"] {
            assert!(at(wrong).is_err_and(|why| why.contains("http:// or https://")), "{wrong}");
        }
    }

    /// The certificates and the TLS provider of https are there.
    #[tokio::test]
    async fn a_gateway_can_be_spoken_to_over_https() {
        let gateway = PaymentGateway::at(&"https://127.0.0.1:9".into());
        assert!(gateway.is_ok(), "{gateway:?}");
    }
}
