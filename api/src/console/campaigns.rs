//! The list of campaigns.

use askama::Template;
use chrono::{DateTime, Utc};
use dibs_common::domain::campaign::{CampaignTerms, Discount, DiscountType, Validity};
use serde::Deserialize;

use super::{
    charts,
    forms::QueryFields,
    guard::Visit,
    page::{Failure, PageResult, Shell, render},
    words::Words,
};

/// A campaign, as the calls of administrators show it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CampaignItem {
    pub coupon_id: u64,
    #[serde(flatten)]
    pub terms: CampaignFields,
    pub remaining: u32,
    pub status: String,
    pub issued: u32,
}

/// Its terms. Not [`CampaignTerms`] itself, which refuses the other fields.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CampaignFields {
    pub name: String,
    pub discount: Discount,
    pub minimum_order_amount: i64,
    pub total_quantity: u32,
    pub per_user_limit: u16,
    pub opens_at: DateTime<Utc>,
    pub closes_at: DateTime<Utc>,
    pub validity: Validity,
}

impl From<CampaignTerms> for CampaignFields {
    fn from(terms: CampaignTerms) -> Self {
        let CampaignTerms { name, discount, minimum_order_amount, total_quantity, per_user_limit, .. } = terms;
        let (opens_at, closes_at, validity) = (terms.opens_at, terms.closes_at, terms.validity);
        Self { name, discount, minimum_order_amount, total_quantity, per_user_limit, opens_at, closes_at, validity }
    }
}

impl CampaignFields {
    /// What the coupon takes off, as a customer reads it.
    pub fn discount_text(&self, words: &Words) -> String {
        let Discount { kind, value, max_amount } = self.discount;
        match (kind, max_amount) {
            (DiscountType::Fixed, _) => words.t1("terms.off", words.won(value)),
            (DiscountType::Percent, None) => words.t1("terms.off", format!("{value} %")),
            (DiscountType::Percent, Some(most)) => words.t2("terms.off_up_to", format!("{value} %"), words.won(most)),
        }
    }

    pub fn minimum_text(&self, words: &Words) -> String {
        match self.minimum_order_amount {
            0 => words.t("terms.no_minimum").to_owned(),
            minimum => words.t1("terms.minimum", words.won(minimum)),
        }
    }

    pub fn validity_text(&self, words: &Words) -> String {
        match self.validity {
            Validity::Days(days) => words.t1("terms.valid_days", words.num(days)),
            Validity::Until(until) => words.t1("terms.valid_until", words.time(&until)),
        }
    }
}

/// A page of a list, as calls answer it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed<T> {
    pub items: Vec<T>,
    next_cursor: Option<serde_json::Value>,
}

impl<T> Listed<T> {
    pub const fn empty() -> Self {
        Self { items: Vec::new(), next_cursor: None }
    }

    /// Only the items of which this holds.
    #[must_use]
    pub fn only(self, holds: impl Fn(&T) -> bool) -> Self {
        Self { items: self.items.into_iter().filter(holds).collect(), ..self }
    }

    /// The query of the next page, with the filter of this one.
    pub fn next(&self, filter: &str) -> Option<String> {
        let cursor = self.next_cursor.as_ref()?;
        let cursor = cursor.as_str().map_or_else(|| cursor.to_string(), str::to_owned);
        let filter = if filter.is_empty() { String::new() } else { format!("{filter}&") };
        Some(format!("?{filter}cursor={}", super::page::encoded(&cursor)))
    }
}

const STATUSES: [&str; 5] = ["SCHEDULED", "OPEN", "EXHAUSTED", "PAUSED", "CLOSED"];

#[derive(Template)]
#[template(path = "campaigns.html")]
struct CampaignsPage<'p> {
    s: &'p Shell,
    listed: &'p Listed<CampaignItem>,
    next: Option<String>,
    status: &'p str,
    name: &'p str,
    is_filtered: bool,
    statuses: [&'static str; 5],
}

impl CampaignsPage<'_> {
    fn bar(&self, campaign: &CampaignItem) -> String {
        charts::bar(campaign.remaining, campaign.terms.total_quantity, "remaining")
    }
}

pub async fn list(visit: Visit, QueryFields(query): QueryFields) -> PageResult {
    let shell = visit.shell("campaigns").with_notice(query.text("done"));
    let filter = query.query(&["status", "name"]);
    let path = format!("/admin/coupons?{}", query.query(&["status", "name", "cursor"]));
    let calls = visit.calls().map_err(|problem| Failure(shell.clone(), problem))?;
    let (listed, shell) = match calls.get::<Listed<CampaignItem>>(&path).await {
        Ok(listed) => (listed, shell),
        Err(problem) => (Listed::empty(), shell.with_problem(Some(problem))),
    };
    Ok(render(&CampaignsPage {
        s: &shell,
        next: listed.next(&filter),
        listed: &listed,
        status: query.text("status"),
        name: query.text("name"),
        is_filtered: !filter.is_empty(),
        statuses: STATUSES,
    }))
}
