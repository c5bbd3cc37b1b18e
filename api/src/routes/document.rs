//! What the OpenAPI document says of all calls, so that the entry of each need not repeat it.

use std::{collections::BTreeMap, mem};

use axum::http::Method;
use serde_json::{Value, json};
use utoipa::openapi::{
    ContentBuilder, Ref, RefOr, Required, ResponseBuilder,
    link::LinkBuilder,
    path::{Operation, ParameterBuilder, ParameterIn},
    schema::{AdditionalProperties, ObjectBuilder, OneOfBuilder, Schema, Type},
};

use crate::{
    edge::{IDEMPOTENCY_KEY_NAME, MAX_KEY_LENGTH, is_upload},
    problem::PROBLEM_JSON,
};

/// A bare key, or a string of structured fields.
const KEY_PATTERN: &str = r#"^([!#-~][!-~]*|"([!#-\[\]-~]|\\["\\])+")$"#;

pub(super) fn completed(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    for (route, path) in &mut document.paths.paths {
        // The path of an upload is its key.
        let put_takes_key = !is_upload(&Method::PUT, route);
        for (changes, call) in [
            (false, &mut path.get),
            (true, &mut path.post),
            (put_takes_key, &mut path.put),
            (true, &mut path.patch),
            (true, &mut path.delete),
        ] {
            if let Some(call) = call {
                add_path_parameters(call, route);
                if changes {
                    add_key(call);
                }
                add_shared_problems(call, changes);
                use_problem_type(call);
                add_links(call);
            }
        }
    }
    if let Some(components) = &mut document.components {
        open_flattened(&mut components.schemas);
        allow_last_pages(&mut components.schemas);
    }
    document
}

/// The schemas of the parameters of paths. A name means the same in every path, so no call repeats it.
const PATH_PARAMETERS: [(&str, &str); 12] = [
    ("apiKeyId", "ApiKeyId"),
    ("chargeId", "ChargeId"),
    ("commandId", "CommandId"),
    ("couponId", "CouponId"),
    ("deadLetterId", "DeadLetterId"),
    ("key", "AssignmentKey"),
    ("orderId", "OrderId"),
    ("paymentId", "PaymentId"),
    ("productId", "ProductId"),
    ("rebuildId", "RebuildId"),
    ("userCouponId", "ClaimId"),
    ("userId", "UserId"),
];

/// Before the other parameters, in the order of the path.
fn add_path_parameters(call: &mut Operation, route: &str) {
    let names = route.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    let parameters = names.filter_map(|name| {
        let (_, schema) = PATH_PARAMETERS.iter().find(|(known, _)| *known == name)?;
        let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path).required(Required::True);
        Some(RefOr::T(parameter.schema(Some(Ref::from_schema_name(*schema))).build()))
    });
    let parameters: Vec<_> = parameters.collect();
    if !parameters.is_empty() {
        call.parameters.get_or_insert_default().splice(0..0, parameters);
    }
}

/// Every call that changes something takes a key.
fn add_key(call: &mut Operation) {
    let text = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(MAX_KEY_LENGTH));
    let key = ParameterBuilder::new()
        .name(IDEMPOTENCY_KEY_NAME)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "names this request, bare or as a quoted string: a repeat with the same key has no effect of its own",
        ))
        .schema(Some(text.pattern(Some(KEY_PATTERN))))
        .build();
    call.parameters.get_or_insert_default().push(RefOr::T(key));
}

/// Problems that do not depend on what a call does.
fn add_shared_problems(call: &mut Operation, changes: bool) {
    let mut shared = vec![("503", "OVERLOADED")];
    if call.parameters.as_ref().is_some_and(|parameters| !parameters.is_empty()) {
        shared.push(("400", "VALIDATION_FAILED"));
    }
    if call.request_body.is_some() {
        shared.extend([
            ("400", "VALIDATION_FAILED"),
            ("400", "MALFORMED_JSON"),
            ("408", "REQUEST_TIMEOUT"),
            ("413", "PAYLOAD_TOO_LARGE"),
            ("415", "UNSUPPORTED_MEDIA_TYPE"),
        ]);
    }
    if changes {
        shared.extend([
            ("409", "IDEMPOTENCY_IN_PROGRESS"),
            ("422", "IDEMPOTENCY_KEY_REUSED"),
            ("503", "DEPENDENCY_UNAVAILABLE"),
        ]);
    }
    for (status, code) in shared {
        add_problem(call, status, code);
    }
}

fn add_problem(call: &mut Operation, status: &str, code: &str) {
    match call.responses.responses.get_mut(status) {
        Some(RefOr::T(response)) if response.description.split(", ").any(|known| known == code) => {}
        Some(RefOr::T(response)) => response.description = format!("{}, {code}", response.description),
        _ => {
            let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
            let problem = ResponseBuilder::new().description(code).content("application/json", content).build();
            call.responses.responses.insert(status.to_owned(), RefOr::T(problem));
        }
    }
}

/// The attributes of calls would have to repeat it for each response.
fn use_problem_type(call: &mut Operation) {
    for (status, response) in &mut call.responses.responses {
        if let RefOr::T(response) = response
            && status.as_str() >= "400"
        {
            let content = mem::take(&mut response.content).into_values();
            response.content = content.map(|content| (PROBLEM_JSON.to_owned(), content)).collect();
        }
    }
}

/// From a call, by the status of its response, to another: the parameters and the fields of the body that it takes from
/// request and response.
type FollowUp =
    (&'static str, &'static str, &'static str, &'static [(&'static str, &'static str)], &'static [&'static str]);

const FOLLOW_UPS: [FollowUp; 16] = [
    ("issue", "202", "claim_status", &[("couponId", BODY), ("userId", BODY), ("claimId", BODY)], &[]),
    ("issue", "200", "claim_status", &[("couponId", BODY), ("userId", BODY), ("claimId", BODY)], &[]),
    ("place", "201", "show_order", &[("orderId", BODY)], &[]),
    ("place", "202", "show_order", &[("orderId", BODY)], &[]),
    ("place", "201", "confirm_payment", &[], &["userId", "orderId"]),
    ("place", "201", "confirm_order", &[("orderId", BODY)], &["userId"]),
    ("place", "201", "cancel", &[("orderId", BODY)], &["userId"]),
    ("confirm_payment", "200", "show_payment", &[("paymentId", BODY)], &[]),
    ("confirm_payment", "202", "show_payment", &[("paymentId", BODY)], &[]),
    ("charge", "200", "charge_state", &[("chargeId", BODY)], &[]),
    ("create_campaign", "201", "campaign", &[("couponId", BODY)], &[]),
    ("create_campaign", "201", "show_coupon", &[("couponId", BODY)], &[]),
    ("create_campaign", "201", "pause", &[("couponId", BODY)], &[]),
    ("create_product", "201", "show_product", &[("productId", BODY)], &[]),
    ("create_product", "201", "change_product", &[("productId", BODY)], &[]),
    (
        "assign",
        "202",
        "assignment",
        &[("couponId", "$request.path.couponId"), ("key", "$response.body#/assignmentId")],
        &[],
    ),
];

/// The field of the response's body with the name of the parameter.
const BODY: &str = "";

fn add_links(call: &mut Operation) {
    let name = call.operation_id.as_deref().unwrap_or_default();
    for (from, status, to, parameters, fields) in FOLLOW_UPS.iter().filter(|(from, ..)| *from == name) {
        let Some(RefOr::T(response)) = call.responses.responses.get_mut(*status) else {
            // Every test that builds the document finds it.
            debug_assert!(false, "{from} has no response {status}");
            continue;
        };
        let field = |name: &str| Value::from(format!("$response.body#/{name}"));
        let value = |name: &str, from: &str| if from == BODY { field(name) } else { from.into() };
        let mut link = LinkBuilder::new().operation_id(*to).build();
        link.parameters = parameters.iter().map(|(name, from)| ((*name).to_owned(), value(name, from))).collect();
        link.request_body = (!fields.is_empty())
            .then(|| json!(fields.iter().map(|name| (*name, field(name))).collect::<BTreeMap<_, _>>()));
        response.links.insert((*to).to_owned(), RefOr::T(link));
    }
}

type Schemas = BTreeMap<String, RefOr<Schema>>;

/// A schema that knows all its fields cannot be a part of another, whose fields it does not know.
fn open_flattened(schemas: &mut Schemas) {
    let closed = |schema: &RefOr<Schema>| match schema {
        RefOr::T(Schema::Object(object)) if object.additional_properties.is_some() => {
            let is_closed =
                matches!(object.additional_properties.as_deref(), Some(AdditionalProperties::FreeForm(false)));
            is_closed.then(|| {
                let mut opened = object.clone();
                opened.additional_properties = None;
                RefOr::T(Schema::Object(opened))
            })
        }
        _ => None,
    };
    let opened: BTreeMap<String, RefOr<Schema>> = schemas
        .iter()
        .filter_map(|(name, schema)| Some((format!("#/components/schemas/{name}"), closed(schema)?)))
        .collect();
    for schema in schemas.values_mut() {
        let RefOr::T(Schema::AllOf(whole)) = schema else { continue };
        for part in &mut whole.items {
            if let RefOr::Ref(reference) = part
                && let Some(opened) = opened.get(&reference.ref_location)
            {
                *part = opened.clone();
            }
        }
    }
}

/// The cursor of a last page is null. The derived schema of a generic field does not say so.
fn allow_last_pages(schemas: &mut Schemas) {
    for (_, schema) in schemas.iter_mut().filter(|(name, _)| name.starts_with("List_")) {
        if let RefOr::T(Schema::Object(list)) = schema
            && let Some(cursor) = list.properties.get_mut("nextCursor")
        {
            let null = ObjectBuilder::new().schema_type(Type::Null);
            let either = OneOfBuilder::new().item(null).item(cursor.clone()).build();
            *cursor = RefOr::T(Schema::OneOf(either));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    #[test]
    fn every_parameter_of_a_path_is_documented() {
        let document = serde_json::to_value(crate::routes::document()).expect("JSON");
        for (route, calls) in document["paths"].as_object().expect("paths") {
            let named: Vec<&str> =
                route.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}')).collect();
            for call in calls.as_object().expect("calls").values() {
                let parameters = call["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
                let of_path = parameters.iter().filter(|parameter| parameter["in"] == "path");
                let documented: Vec<&str> = of_path.filter_map(|parameter| parameter["name"].as_str()).collect();
                assert_eq!(documented, named, "{route}");
                assert!(parameters.iter().all(|parameter| parameter["schema"] != Value::Null), "{route}");
            }
        }
    }
}
