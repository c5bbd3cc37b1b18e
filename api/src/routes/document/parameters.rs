use serde_json::{Value, json};

use super::{Call, array, reference, schemas::without_null};
use crate::edge::{IDEMPOTENCY_KEY_NAME, MAX_KEY_LENGTH};

/// A bare key, or a string of structured fields.
const KEY_PATTERN: &str = r#"^([!#-~][!-~]*|"([!#-\[\]-~]|\\["\\])+")$"#;

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

/// Adds the parameters of the path, before the others, and the key of a call that changes something.
pub fn complete(call: &mut Call<'_>) {
    let names = call.route.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    let of_path = names.filter_map(|name| {
        let (_, schema) = PATH_PARAMETERS.iter().find(|(known, _)| *known == name)?;
        Some(json!({ "name": name, "in": "path", "required": true, "schema": reference("schemas", schema) }))
    });
    let takes_key = call.takes_key();
    let parameters = array(call.entry, "parameters");
    parameters.splice(0..0, of_path);
    if takes_key {
        parameters.push(key());
    }
    // In a URL or a header there is no null.
    for parameter in parameters {
        without_null(&mut parameter["schema"]);
    }
}

fn key() -> Value {
    json!({
        "name": IDEMPOTENCY_KEY_NAME, "in": "header", "required": false,
        "description": "Names this request, bare or as a quoted string: a repeat with it has no effect of its own.",
        "schema": { "type": "string", "minLength": 1, "maxLength": MAX_KEY_LENGTH, "pattern": KEY_PATTERN },
        "example": "8b0f1f2e-order-1",
    })
}
