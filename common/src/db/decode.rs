//! From the values of columns to the types of the domain.

use std::str::FromStr;

/// An identifier from an unsigned column.
pub(super) fn identifier<T: TryFrom<u64, Error = String>>(number: u64) -> Result<T, sqlx::Error> {
    T::try_from(number).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// A domain enum from the spelling in `column`, such as `orders.status`. A newer version may have written a value that
/// this one does not know.
pub(super) fn parse<T: FromStr>(column: &str, value: &str) -> Result<T, sqlx::Error> {
    value.parse().map_err(|_| sqlx::Error::Decode(format!("{column}: unknown value '{value}'").into()))
}
