//! The form of a new campaign, which shows how a customer would see the coupon.

use askama::Template;
use axum::{
    http::{Method, StatusCode},
    response::Response,
};
use chrono::{DateTime, NaiveDateTime, TimeDelta, TimeZone as _, Utc};
use chrono_tz::Tz;
use dibs_common::{
    clock,
    domain::campaign::{CampaignTerms, Discount},
};
use serde_json::{Map, Value, json};

use super::{
    calls::{Change, Problem},
    campaigns::CampaignFields,
    forms::Fields,
    guard::Visit,
    page::{PageResult, Shell, render, render_with, see},
    words::Words,
};

/// The order that the example is about, in won.
const EXAMPLE_ORDER: i64 = 30_000;

#[derive(Template)]
#[template(path = "campaign_new.html")]
struct FormPage<'p> {
    s: &'p Shell,
    f: &'p Fields,
    preview: String,
}

impl FormPage<'_> {
    fn wrong(&self, field: &str) -> Option<&str> {
        self.s.problem.as_ref().and_then(|problem| problem.of_field(field))
    }

    /// The attributes of the input of a field that is wrong.
    fn invalid(&self, field: &str) -> String {
        let Some(_) = self.wrong(field) else { return format!(r#"aria-describedby="help-{}""#, id(field)) };
        format!(r#"aria-invalid="true" aria-describedby="help-{0} wrong-{0}""#, id(field))
    }

    fn is_chosen(&self, field: &str, value: &str) -> &'static str {
        if self.f.text(field) == value { " selected" } else { "" }
    }
}

/// Of a field, as an id in HTML.
fn id(field: &str) -> String {
    field.replace('.', "-")
}

#[derive(Template)]
#[template(path = "coupon_preview.html")]
struct Preview<'p> {
    s: &'p Words,
    terms: Option<CampaignFields>,
    example: Option<(i64, i64)>,
}

/// The form of a campaign that opens at noon tomorrow, for a day.
pub async fn form(visit: Visit) -> Response {
    let tomorrow = (visit.words.now.with_timezone(&visit.words.zone) + TimeDelta::days(1)).date_naive();
    let fields = [
        ("discount.type", "FIXED".to_owned()),
        ("discount.value", "5000".to_owned()),
        ("minimumOrderAmount", "20000".to_owned()),
        ("totalQuantity", "10000".to_owned()),
        ("perUserLimit", "1".to_owned()),
        ("opensAt", format!("{tomorrow}T12:00")),
        ("closesAt", format!("{}T12:00", tomorrow + TimeDelta::days(1))),
        ("validity", "days".to_owned()),
        ("validity.days", "30".to_owned()),
    ];
    form_page(&visit, &Fields::of(fields), None)
}

fn form_page(visit: &Visit, fields: &Fields, problem: Option<Problem>) -> Response {
    let status = problem.as_ref().map_or(StatusCode::OK, Problem::status);
    let shell = visit.shell("campaigns").with_problem(problem);
    let preview = preview_of(&visit.words, fields).render().unwrap_or_default();
    render_with(status, &FormPage { s: &shell, f: fields, preview })
}

pub async fn preview(visit: Visit, fields: Fields) -> Response {
    render(&preview_of(&visit.words, &fields))
}

fn preview_of<'w>(words: &'w Words, fields: &Fields) -> Preview<'w> {
    let mut body = body(fields, words.zone);
    if fields.given("name").is_none() {
        body.insert("name".into(), words.t("preview.name").into());
    }
    let terms = serde_json::from_value::<CampaignTerms>(Value::Object(body)).ok();
    let terms = terms.filter(|terms| terms.errors_at(clock::now()).is_empty()).map(CampaignFields::from);
    let example = terms.as_ref().map(|terms: &CampaignFields| {
        let order = EXAMPLE_ORDER.max(terms.minimum_order_amount);
        (order, order - Discount::amount_for(&terms.discount, order))
    });
    Preview { s: words, terms, example }
}

pub async fn create(visit: Visit, fields: Fields) -> PageResult {
    let change = Change {
        method: Method::POST,
        path: format!("/admin/coupons{}", fields.reason_query()),
        body: Some(Value::Object(body(&fields, visit.words.zone))),
        operation: fields.operation(),
        if_match: None,
    };
    let created = match visit.calls() {
        Ok(calls) => calls.change(change).await,
        Err(problem) => Err(problem),
    };
    match created {
        Ok(campaign) => Ok(see(&format!("/console/campaigns/{}?done=created", campaign["couponId"]))),
        Err(problem) => Ok(form_page(&visit, &fields, Some(problem))),
    }
}

/// The body of the call. What is no number or time goes as text, which the call refuses by name.
fn body(fields: &Fields, zone: Tz) -> Map<String, Value> {
    let number = |name: &str| {
        let text = fields.text(name).replace([',', '_', ' '], "");
        text.parse::<i64>().map_or_else(|_| json!(text), |number| json!(number))
    };
    let time = |name: &str| match local_time(fields.text(name), zone) {
        Some(time) => json!(clock::text(time)),
        None => json!(fields.text(name)),
    };
    let mut discount = json!({ "type": fields.text("discount.type"), "value": number("discount.value") });
    if fields.given("discount.maxAmount").is_some() {
        discount["maxAmount"] = number("discount.maxAmount");
    }
    let validity = match fields.text("validity") {
        "until" => json!({ "until": time("validity.until") }),
        _ => json!({ "days": number("validity.days") }),
    };
    let body = json!({
        "name": fields.text("name"), "discount": discount, "totalQuantity": number("totalQuantity"),
        "opensAt": time("opensAt"), "closesAt": time("closesAt"), "validity": validity,
    });
    let Value::Object(mut body) = body else { return Map::new() };
    for optional in ["minimumOrderAmount", "perUserLimit"] {
        if fields.given(optional).is_some() {
            body.insert(optional.into(), number(optional));
        }
    }
    body
}

/// What the field of a form says in the business time zone. Of a time that comes twice, as clocks are set back, the
/// first.
pub fn local_time(text: &str, zone: Tz) -> Option<DateTime<Utc>> {
    let formats = ["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"];
    let local = formats.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())?;
    zone.from_local_datetime(&local).earliest().map(|time| time.with_timezone(&Utc))
}

#[cfg(test)]
mod tests {
    use chrono_tz::Asia::Seoul;

    use super::*;

    #[test]
    fn a_form_becomes_the_body_of_the_call() {
        let fields = Fields::of([
            ("name", "Coffee".to_owned()),
            ("discount.type", "PERCENT".to_owned()),
            ("discount.value", "10".to_owned()),
            ("discount.maxAmount", "3,000".to_owned()),
            ("totalQuantity", "many".to_owned()),
            ("opensAt", "2026-12-01T12:00".to_owned()),
            ("closesAt", "soon".to_owned()),
            ("validity", "days".to_owned()),
            ("validity.days", "30".to_owned()),
        ]);
        let expected = json!({
            "name": "Coffee", "discount": { "type": "PERCENT", "value": 10, "maxAmount": 3_000 },
            "totalQuantity": "many", "opensAt": "2026-12-01T03:00:00.000Z", "closesAt": "soon",
            "validity": { "days": 30 },
        });
        assert_eq!(Value::Object(body(&fields, Seoul)), expected);
    }
}
