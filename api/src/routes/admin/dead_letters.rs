use dibs_common::{
    db::dead_letters::DeadLettersPage,
    domain::dead_letter::{DeadLetter, DeadLetterStatus},
    identifiers::DeadLetterId,
};

use crate::routes::prelude::*;

/// Which dead letters.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeadLettersQuery {
    /// Only those of this source, such as `data-platform`.
    source: Option<String>,
    /// Only those of this status.
    status: Option<DeadLetterStatus>,
}

problems! { AdminProblems: 400 "VALIDATION_FAILED" }

/// List dead letters
#[utoipa::path(
    get, path = "/admin/dead-letters", operation_id = "listDeadLetters",
    tag = "dead-letters", params(DeadLettersQuery, Page::<DeadLetterId>),
    responses((status = 200, description = "the newest first", body = List<DeadLetter, DeadLetterId>), Problems),
)]
pub async fn dead_letters(
    app: SharedApp,
    _: Administrator,
    ListParams { filter, page }: ListParams<DeadLettersQuery, DeadLetterId>,
) -> JsonResult<List<DeadLetter, DeadLetterId>> {
    let DeadLettersQuery { source, status } = filter;
    let wanted = DeadLettersPage { source, status, before: page.cursor, limit: page.rows(), is_short: false };
    let letters = db::within(db::dead_letters::list(&app.database.pool(), &wanted)).await?;
    Ok(page.list(letters, |letter| letter.id))
}
