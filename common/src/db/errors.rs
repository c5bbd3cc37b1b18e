use crate::error::{Dependency, Error};

/// `ER_LOCK_WAIT_TIMEOUT` and `ER_LOCK_DEADLOCK`.
const CONTENTION: [u16; 2] = [LOCK_WAIT_TIMEOUT, 1213];
const LOCK_WAIT_TIMEOUT: u16 = 1205;
/// `ER_DUP_ENTRY`.
const DUPLICATE_KEY: u16 = 1062;
/// `ER_NO_SUCH_TABLE`.
const MISSING_TABLE: u16 = 1146;
/// Errors about data that the server reports with the SQLSTATE `HY000`, so their class does not say it: no default
/// (1364), wrong value (1366), invalid JSON (3140), CHECK on `MySQL` (3819) and on `MariaDB` (4025).
const DATA_ERRORS: [u16; 5] = [1364, 1366, 3140, 3819, 4025];

/// The server refuses the password of an account without TLS.
#[derive(Debug, thiserror::Error)]
#[error(
    "the server takes the password of this account with TLS only, until it remembers the account; DATABASE_URL says \
     ssl-mode=DISABLED, or the server has no TLS"
)]
pub(super) struct LoginNeedsTls;

/// What sqlx says then, as it was built without RSA.
fn is_login_without_tls(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Configuration(cause) if cause.to_string().contains("RSA"))
}

fn number(error: &sqlx::Error) -> Option<u16> {
    let database = error.as_database_error()?;
    Some(database.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>()?.number())
}

/// Whether the server broke the transaction to resolve a deadlock or a lock wait.
pub(super) fn is_contention(error: &sqlx::Error) -> bool {
    number(error).is_some_and(|number| CONTENTION.contains(&number))
}

/// Whether the transaction waited too long for a row that another session has locked.
pub(super) fn is_lock_wait_timeout(error: &sqlx::Error) -> bool {
    number(error) == Some(LOCK_WAIT_TIMEOUT)
}

/// Whether the cause of an error is a row that another session has locked. The server itself is available.
pub fn is_row_locked(error: &Error) -> bool {
    let Error::DependencyUnavailable { cause, .. } = error else { return false };
    cause.downcast_ref::<sqlx::Error>().is_some_and(is_lock_wait_timeout)
}

/// Whether a unique key has that value already.
pub fn is_duplicate(error: &sqlx::Error) -> bool {
    number(error) == Some(DUPLICATE_KEY)
}

pub(super) fn is_missing_table(error: &sqlx::Error) -> bool {
    number(error) == Some(MISSING_TABLE)
}

/// The client library's error as an error of Dibs. Data that a table refuses is a defect of Dibs. Anything else (no
/// connection, no rights, a missing table, a full disk, contention) is the server's, and may pass.
pub fn database_error(error: sqlx::Error) -> Error {
    if is_login_without_tls(&error) {
        return Error::unavailable(Dependency::MySql, LoginNeedsTls);
    }
    let is_defect = match &error {
        sqlx::Error::Database(database) => {
            // SQLSTATE classes: 22 data exception, 23 integrity constraint violation.
            let of_data = database.code().is_some_and(|state| state.starts_with("22") || state.starts_with("23"));
            of_data || number(&error).is_some_and(|number| DATA_ERRORS.contains(&number))
        }
        sqlx::Error::Decode(_)
        | sqlx::Error::Encode(_)
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::RowNotFound
        | sqlx::Error::TypeNotFound { .. } => true,
        _ => false,
    };
    if is_defect { Error::internal(error) } else { Error::unavailable(Dependency::MySql, error) }
}
