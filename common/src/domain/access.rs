//! What a credential may do.

use std::fmt;

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr, VariantArray};
use utoipa::ToSchema;

/// What a call requires of an API key.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema, EnumString, IntoStaticStr, VariantArray,
)]
#[strum(const_into_str)]
pub enum Scope {
    /// To claim coupons for users.
    #[serde(rename = "claims")]
    #[strum(serialize = "claims")]
    Claims,
    /// To place, pay, confirm and cancel orders of users.
    #[serde(rename = "orders")]
    #[strum(serialize = "orders")]
    Orders,
    /// To charge points of users.
    #[serde(rename = "points")]
    #[strum(serialize = "points")]
    Points,
    /// To read what users have.
    #[serde(rename = "read")]
    #[strum(serialize = "read")]
    Read,
    /// Every call below `/admin`.
    #[serde(rename = "admin")]
    #[strum(serialize = "admin")]
    Admin,
    /// The calls below `/admin` that only read.
    #[serde(rename = "admin:read")]
    #[strum(serialize = "admin:read")]
    AdminRead,
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.into_str())
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Whether a credential with these scopes may make a call that requires `scope`.
    pub const fn allow(self, scope: Scope) -> bool {
        let wider = match scope {
            Scope::AdminRead => Self::bit(Scope::Admin),
            _ => 0,
        };
        self.0 & (Self::bit(scope) | wider) != 0
    }

    #[must_use]
    pub const fn with(self, scope: Scope) -> Self {
        Self(self.0 | Self::bit(scope))
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// In the order of [`Scope`].
    pub fn list(self) -> Vec<Scope> {
        Scope::VARIANTS.iter().copied().filter(|scope| self.0 & Self::bit(*scope) != 0).collect()
    }

    const fn bit(scope: Scope) -> u8 {
        1 << scope as u8
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        scopes.into_iter().fold(Self::default(), Self::with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_allows_itself_and_admin_allows_to_read() {
        for given in Scope::VARIANTS {
            for required in Scope::VARIANTS {
                let expected = given == required || (*given == Scope::Admin && *required == Scope::AdminRead);
                assert_eq!(Scopes::default().with(*given).allow(*required), expected, "{given} for {required}");
            }
        }
        assert!(Scopes::default().is_empty());
    }

    #[test]
    fn scopes_are_listed_once_and_keep_their_spelling() {
        let scopes: Scopes = [Scope::AdminRead, Scope::Claims, Scope::Claims].into_iter().collect();
        assert_eq!(scopes.list(), [Scope::Claims, Scope::AdminRead]);
        for scope in Scope::VARIANTS {
            assert_eq!(scope.into_str().parse(), Ok(*scope));
            assert_eq!(serde_json::json!(scope), scope.into_str());
        }
    }
}
