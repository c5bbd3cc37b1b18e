//! Links: which call may follow a response, with which of its fields.

use serde_json::{Map, Value, json};

use super::Call;

/// From a call, by the status of its response, to another: the parameters and the fields of the body that it takes from
/// request and response.
type FollowUp =
    (&'static str, &'static str, &'static str, &'static [(&'static str, &'static str)], &'static [&'static str]);

const FOLLOW_UPS: [FollowUp; 16] = [
    ("claimCoupon", "202", "getClaim", &[("couponId", BODY), ("userId", BODY), ("claimId", BODY)], &[]),
    ("claimCoupon", "200", "getClaim", &[("couponId", BODY), ("userId", BODY), ("claimId", BODY)], &[]),
    ("placeOrder", "201", "getOrder", &[("orderId", BODY)], &[]),
    ("placeOrder", "202", "getOrder", &[("orderId", BODY)], &[]),
    ("placeOrder", "201", "confirmPayment", &[], &["userId", "orderId"]),
    ("placeOrder", "201", "confirmOrder", &[("orderId", BODY)], &["userId"]),
    ("placeOrder", "201", "cancelOrder", &[("orderId", BODY)], &["userId"]),
    ("confirmPayment", "200", "getPayment", &[("paymentId", BODY)], &[]),
    ("confirmPayment", "202", "getPayment", &[("paymentId", BODY)], &[]),
    ("chargePoints", "200", "getCharge", &[("chargeId", BODY)], &[]),
    ("createCampaign", "201", "getCampaign", &[("couponId", BODY)], &[]),
    ("createCampaign", "201", "getCoupon", &[("couponId", BODY)], &[]),
    ("createCampaign", "201", "pauseCampaign", &[("couponId", BODY)], &[]),
    ("createProduct", "201", "getProduct", &[("productId", BODY)], &[]),
    ("createProduct", "201", "changeProduct", &[("productId", BODY)], &[]),
    (
        "assignCoupon",
        "202",
        "getAssignment",
        &[("couponId", "$request.path.couponId"), ("key", "$response.body#/assignmentId")],
        &[],
    ),
];

/// The field of the response's body with the name of the parameter.
const BODY: &str = "";

pub fn complete(call: &mut Call<'_>) {
    let id = call.id().to_owned();
    for (_, status, to, parameters, fields) in FOLLOW_UPS.iter().filter(|(from, ..)| *from == id) {
        let field = |name: &str| format!("$response.body#/{name}");
        let value = |name: &str, from: &str| if from == BODY { field(name) } else { from.to_owned() };
        let parameters: Map<String, Value> =
            parameters.iter().map(|(name, from)| ((*name).to_owned(), value(name, from).into())).collect();
        let mut link = json!({ "operationId": to });
        if !parameters.is_empty() {
            link["parameters"] = parameters.into();
        }
        if !fields.is_empty() {
            // Not `requestBody`: the parser that most generators of clients share takes text only there. `make fuzz`
            // moves it.
            link["x-request-body"] =
                fields.iter().map(|name| ((*name).to_owned(), field(name).into())).collect::<Map<_, _>>().into();
        }
        let response = &mut call.entry["responses"][status];
        // Every test that builds the document finds it.
        debug_assert!(response.is_object(), "{id} has no response {status}");
        response["links"][to] = link;
    }
}
