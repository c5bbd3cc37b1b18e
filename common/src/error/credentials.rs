/// What is wrong with the credentials of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialFault {
    #[error("Expected 'Authorization: Bearer' with an API key or the token of a user.")]
    Missing,
    /// Nothing more is said of a credential whose signature or hash is not known.
    #[error("This API key or token is not known here.")]
    Unknown,
    #[error("This API key or token has expired.")]
    Expired,
    #[error("The token is valid from a later time on.")]
    NotYetValid,
    #[error("The token has no expiry.")]
    NoExpiry,
    #[error("The token is for another audience.")]
    WrongAudience,
    #[error("The token is of another issuer.")]
    WrongIssuer,
    #[error("The token names no user: its claim is not an id from 1 to 2^53 - 1.")]
    NoUser,
}
