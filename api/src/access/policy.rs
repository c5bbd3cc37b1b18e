//! The one list of routes: what each requires, and of whom.

use axum::http::Method;
use dibs_common::domain::access::Scope;

/// What a route requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub method: &'static str,
    /// As the router spells it.
    pub path: &'static str,
    pub access: Access,
    pub place: Place,
}

/// Who may make a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anyone, without credentials.
    Public,
    /// Servers with the scope, and users for themselves.
    Users(Scope, Owner),
    /// Credentials with the scope.
    Administrators(Scope),
    /// Browsers with a session of a credential with the scope. The guard of the console checks it.
    Console(Scope),
}

/// Where a call of a user names its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// In the segment `{userId}` of the path.
    Path,
    /// In the parameter `userId` of the query.
    Query,
    /// In the field `userId` of the body.
    Body,
    /// Nowhere: what the call is about belongs to a user. The handler compares, and answers as if it did not exist.
    Loaded,
}

/// On which listeners a route is served when there are two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Shop,
    Administration,
    Both,
}

/// Which of the routes a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// The only one.
    Only,
    /// `API_ADDRESS`, where `ADMIN_ADDRESS` is set as well.
    Shop,
    /// `ADMIN_ADDRESS`.
    Administration,
}

impl Listener {
    pub const fn serves(self, place: Place) -> bool {
        match self {
            Self::Only => true,
            Self::Shop => matches!(place, Place::Shop | Place::Both),
            Self::Administration => matches!(place, Place::Administration | Place::Both),
        }
    }
}

const fn public(path: &'static str, place: Place) -> Policy {
    Policy { method: "GET", path, access: Access::Public, place }
}

const fn shop(method: &'static str, path: &'static str, scope: Scope, owner: Owner) -> Policy {
    Policy { method, path, access: Access::Users(scope, owner), place: Place::Shop }
}

/// A call that changes something.
const fn change(method: &'static str, path: &'static str) -> Policy {
    Policy { method, path, access: Access::Administrators(Scope::Admin), place: Place::Administration }
}

/// A call of administrators that only reads.
const fn look(path: &'static str) -> Policy {
    Policy { method: "GET", path, access: Access::Administrators(Scope::AdminRead), place: Place::Administration }
}

const fn page(path: &'static str) -> Policy {
    Policy { method: "GET", path, access: Access::Console(Scope::AdminRead), place: Place::Administration }
}

/// What a page sends to change something.
const fn submit(path: &'static str) -> Policy {
    Policy { method: "POST", path, access: Access::Console(Scope::Admin), place: Place::Administration }
}

/// Every page of the console, and what it sends.
pub const CONSOLE: &[Policy] = &[
    public("/console/login", Place::Administration),
    Policy { method: "POST", ..public("/console/login", Place::Administration) },
    public("/console/assets/{name}", Place::Administration),
    Policy { access: Access::Console(Scope::AdminRead), ..submit("/console/logout") },
    page("/console"),
    page("/console/events"),
    page("/console/campaigns"),
    submit("/console/campaigns"),
    Policy { access: Access::Console(Scope::Admin), ..page("/console/campaigns/new") },
    submit("/console/campaigns/preview"),
    page("/console/campaigns/{couponId}"),
    page("/console/campaigns/{couponId}/live"),
    page("/console/campaigns/{couponId}/audit"),
    submit("/console/campaigns/{couponId}/pause"),
    submit("/console/campaigns/{couponId}/resume"),
    submit("/console/campaigns/{couponId}/close"),
    submit("/console/campaigns/{couponId}/quantity"),
    submit("/console/campaigns/{couponId}/rebuild"),
    page("/console/campaigns/{couponId}/rebuilds/{rebuildId}"),
    page("/console/users"),
    page("/console/users/{userId}"),
    page("/console/dead-letters"),
    submit("/console/dead-letters/redrive"),
    submit("/console/dead-letters/drop"),
    page("/console/dead-letters/progress"),
    page("/console/dead-letters/{deadLetterId}"),
    submit("/console/dead-letters/{deadLetterId}/redrive"),
    submit("/console/dead-letters/{deadLetterId}/drop"),
    page("/console/ranking"),
    page("/console/products/{productId}"),
    page("/console/delivery"),
    submit("/console/delivery/{sink}/test"),
    page("/console/orders"),
    page("/console/orders/{orderId}"),
    page("/console/actions"),
    page("/console/keys"),
    submit("/console/keys"),
    submit("/console/keys/{apiKeyId}/revoke"),
];

/// Every route of the router but for the console's. Tests compare it with the router and with the OpenAPI document.
pub const POLICIES: &[Policy] = &[
    shop("POST", "/coupons/issue", Scope::Claims, Owner::Body),
    public("/coupons/{couponId}", Place::Shop),
    shop("GET", "/coupons/{couponId}/claims/{userId}", Scope::Read, Owner::Path),
    shop("GET", "/users/{userId}/coupons", Scope::Read, Owner::Path),
    shop("POST", "/orders", Scope::Orders, Owner::Body),
    shop("GET", "/orders", Scope::Read, Owner::Query),
    shop("GET", "/orders/{orderId}", Scope::Read, Owner::Loaded),
    shop("POST", "/orders/{orderId}/confirm", Scope::Orders, Owner::Body),
    shop("POST", "/orders/{orderId}/cancel", Scope::Orders, Owner::Body),
    shop("GET", "/orders/{orderId}/commands/{commandId}", Scope::Read, Owner::Loaded),
    shop("POST", "/payments/confirm", Scope::Orders, Owner::Body),
    shop("GET", "/payments/{paymentId}", Scope::Read, Owner::Loaded),
    shop("POST", "/points", Scope::Points, Owner::Body),
    shop("GET", "/points", Scope::Read, Owner::Query),
    shop("GET", "/points/history", Scope::Read, Owner::Query),
    shop("GET", "/points/charges/{chargeId}", Scope::Read, Owner::Loaded),
    public("/products", Place::Shop),
    public("/products/best-sellers", Place::Shop),
    public("/products/{productId}", Place::Shop),
    public("/products/{productId}/rank", Place::Shop),
    change("POST", "/admin/coupons"),
    look("/admin/coupons"),
    look("/admin/coupons/{couponId}"),
    change("PATCH", "/admin/coupons/{couponId}"),
    change("POST", "/admin/coupons/{couponId}/pause"),
    change("POST", "/admin/coupons/{couponId}/resume"),
    change("POST", "/admin/coupons/{couponId}/close"),
    look("/admin/coupons/{couponId}/audit"),
    change("POST", "/admin/coupons/{couponId}/rebuild"),
    look("/admin/coupons/{couponId}/rebuilds/{rebuildId}"),
    change("POST", "/admin/coupons/{couponId}/assignments"),
    look("/admin/coupons/{couponId}/assignments"),
    change("PUT", "/admin/coupons/{couponId}/assignments/{key}"),
    look("/admin/coupons/{couponId}/assignments/{key}"),
    look("/admin/coupons/{couponId}/assignments/{key}/refused"),
    change("POST", "/admin/coupons/{couponId}/assignments/{key}/approve"),
    change("POST", "/admin/coupons/{couponId}/assignments/{key}/reject"),
    change("DELETE", "/users/{userId}/coupons/{userCouponId}"),
    look("/admin/users/{userId}/timeline"),
    look("/admin/orders"),
    look("/admin/actions"),
    change("POST", "/admin/keys"),
    look("/admin/keys"),
    change("DELETE", "/admin/keys/{apiKeyId}"),
    change("POST", "/admin/points"),
    change("POST", "/admin/products"),
    change("PATCH", "/admin/products/{productId}"),
    look("/admin/dead-letters"),
    change("DELETE", "/admin/dead-letters/{deadLetterId}"),
    change("POST", "/admin/dead-letters/{deadLetterId}/redrive"),
    public("/errors", Place::Both),
    public("/errors/{code}", Place::Both),
    public("/health/live", Place::Both),
    public("/health/ready", Place::Both),
    public("/metrics", Place::Administration),
    public("/openapi.json", Place::Administration),
    public("/docs", Place::Administration),
    public("/docs/", Place::Administration),
    public("/docs/{*rest}", Place::Administration),
];

/// The policy of a method among those of its path. A HEAD is a GET without its body.
pub fn of_method<'p>(policies: &[&'p Policy], method: &Method) -> Option<&'p Policy> {
    let name = if *method == Method::HEAD { "GET" } else { method.as_str() };
    policies.iter().find(|policy| policy.method == name).copied()
}

/// The methods of a path, as `Allow` lists them.
pub fn allowed(policies: &[&Policy]) -> String {
    let methods = policies.iter().map(|policy| if policy.method == "GET" { "GET,HEAD" } else { policy.method });
    methods.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_route_has_one_policy_and_users_are_found_where_it_says() {
        let mut seen = HashSet::new();
        for policy in POLICIES {
            assert!(seen.insert((policy.method, policy.path)), "{} {} twice", policy.method, policy.path);
            let has_segment = policy.path.contains("{userId}") && policy.place == Place::Shop;
            let is_path = matches!(policy.access, Access::Users(_, Owner::Path));
            assert_eq!(has_segment, is_path, "{}: a user in the path is its owner", policy.path);
            let is_administration = matches!(policy.access, Access::Administrators(_));
            assert!(is_administration || !policy.path.starts_with("/admin/"), "{}", policy.path);
            assert!(!is_administration || policy.place == Place::Administration, "{}", policy.path);
        }
    }

    #[test]
    fn a_listener_serves_its_routes() {
        let all = [Place::Shop, Place::Administration, Place::Both];
        assert_eq!(all.map(|place| Listener::Only.serves(place)), [true; 3]);
        assert_eq!(all.map(|place| Listener::Shop.serves(place)), [true, false, true]);
        assert_eq!(all.map(|place| Listener::Administration.serves(place)), [false, true, true]);
    }
}
