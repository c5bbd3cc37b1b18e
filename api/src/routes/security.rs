//! What the OpenAPI document says of callers. It is written from the policies, so that it says what the gate does.

use axum::http::Method;
use dibs_common::domain::access::Scope;
use utoipa::openapi::{
    OpenApi as Document, RefOr,
    path::Operation,
    security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
};

use super::responses::described;
use crate::access::{
    AuthMode,
    policy::{Access, POLICIES},
};

const API_KEY: &str = "apiKey";
const USER_TOKEN: &str = "userToken";
/// The refusals of the gate.
const PROBLEMS: [(&str, &str); 2] = [("401", "UNAUTHENTICATED"), ("403", "FORBIDDEN")];

/// The document, with the schemes, what each call takes of them, and the refusals of callers.
pub fn with_access(mut document: Document, mode: AuthMode) -> Document {
    let scheme = |description: &str| HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(description));
    let key = scheme("An API key with the scope that the call requires; below `/admin`, `ADMIN_TOKEN` as well.");
    let token = scheme("The token of a user, who reaches only what is the user's own.").bearer_format("JWT");
    let schemes = &mut document.components.get_or_insert_default().security_schemes;
    schemes.insert(API_KEY.into(), RefOr::T(SecurityScheme::Http(key.build())));
    schemes.insert(USER_TOKEN.into(), RefOr::T(SecurityScheme::Http(token.build())));
    for policy in POLICIES {
        let path = document.paths.paths.get_mut(policy.path);
        let operation = path.and_then(|path| match Method::from_bytes(policy.method.as_bytes()).ok()? {
            Method::GET => path.get.as_mut(),
            Method::POST => path.post.as_mut(),
            Method::PUT => path.put.as_mut(),
            Method::PATCH => path.patch.as_mut(),
            Method::DELETE => path.delete.as_mut(),
            _ => None,
        });
        if let Some(operation) = operation {
            describe(operation, policy.access, mode);
        }
    }
    document
}

fn describe(operation: &mut Operation, access: Access, mode: AuthMode) {
    let key = |scope: Scope| SecurityRequirement::new(API_KEY, [scope.into_str()]);
    let token = || SecurityRequirement::new(USER_TOKEN, Vec::<String>::new());
    operation.security = Some(match access {
        Access::Public | Access::Console(_) => vec![],
        Access::Users(..) if mode == AuthMode::Trusted => vec![],
        Access::Users(scope, _) => vec![key(scope), token()],
        Access::Administrators(scope) => vec![key(scope)],
    });
    if access != Access::Public {
        for (status, response) in described(&PROBLEMS) {
            operation.responses.responses.entry(status).or_insert(response);
        }
    }
}
