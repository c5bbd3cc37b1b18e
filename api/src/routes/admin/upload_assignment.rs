use std::mem;

use axum::extract::{FromRequest as _, Request};
use dibs_common::{
    assignments::{NewAssignment, UserList, check_request, create},
    clock,
    db::assignments::{FoundAssignment, uploads, users::ListUser},
    domain::{
        FieldError,
        admin_action::ActionContext,
        assignment::{AssignmentKey, AssignmentState},
        assignment_list::{LineReader, Lines, ListedUser, MAX_LINE_ERRORS, line_error},
    },
    identifiers::{AssignmentId, CouponId},
};
use sha2::{Digest as _, Sha256};

use crate::{
    extract::{Upload, UploadQuery, UserLines},
    routes::prelude::*,
};

problems! {
    AdminProblems: 400 "VALIDATION_FAILED: names up to 20 wrong lines", 404 "COUPON_NOT_FOUND",
    408 "REQUEST_TIMEOUT: 2,000 lines took longer than 10 seconds", 415 "UNSUPPORTED_MEDIA_TYPE",
    422 "CAMPAIGN_CLOSED: by an administrator, ASSIGNMENT_BUDGET_EXCEEDED, ASSIGNMENT_KEY_REUSED: with another list",
    503 "DEPENDENCY_UNAVAILABLE, OVERLOADED: four lists are arriving"
}

/// Give a coupon to up to millions of users
///
/// The body is a list of users, one a line: `{"userId": 7}` or `7`. It has no effect before all of it has arrived and
/// was found right: each user once, and `expectedCount` of them. The key names the assignment: a repeat with the same
/// list in the same order changes nothing and shows the assignment, also when the first request broke off. Otherwise as
/// the call that takes the list as JSON.
#[utoipa::path(
    put, path = "/admin/coupons/{couponId}/assignments/{key}", operation_id = "uploadAssignment",
    tag = "assignments", params(UploadQuery),
    request_body(content = String, content_type = "application/x-ndjson", description = "a user a line"),
    responses(
        (status = 202, description = "accepted; the users get it shortly", body = AssignmentState, headers(("Location"))),
        Problems,
    ),
)]
pub async fn upload_assignment(
    app: SharedApp,
    Upload { context, expected_count }: Upload,
    PathParams((coupon, key)): PathParams<(CouponId, AssignmentKey)>,
    request: Request,
) -> ApiResult {
    let mut body = UserLines::from_request(request, &app).await?;
    let target = Target { coupon, key, expected_count };
    let state = match receive(&app, &target, &mut body, context).await {
        Ok(state) => state,
        Err(error) => {
            body.discard().await;
            return Err(ApiError(error));
        }
    };
    let location = format!("/admin/coupons/{coupon}/assignments/{}", state.key);
    Ok(located(StatusCode::ACCEPTED, location, state))
}

/// Users of one transaction.
const PART_USERS: usize = 2_000;

struct Target {
    coupon: CouponId,
    key: AssignmentKey,
    expected_count: u32,
}

async fn receive(
    app: &SharedApp,
    target: &Target,
    body: &mut UserLines,
    context: ActionContext,
) -> Result<AssignmentState> {
    let most = app.settings.assignments.assignment_max_users;
    if !(1..=most).contains(&target.expected_count) {
        return Err(Error::field("expectedCount", format!("expected 1 to {most} users")));
    }
    let Ok(_place) = app.uploads.try_acquire() else { return Err(Error::Overloaded) };
    if let Some(existing) = find(app, target).await? {
        // Read all the same: only its list shows whether it is a repeat.
        let hash = read(app, target, body, None).await?;
        return repeated(target, existing, hash);
    }
    check_request(&app.database, target.coupon, target.expected_count, &app.settings.assignment_rules(), context.at)
        .await?;
    let upload = AssignmentId::generate();
    let pool = app.database.pool();
    db::within(uploads::begin(&pool, upload, target.coupon, clock::now())).await?;
    let created = match read(app, target, body, Some(upload)).await {
        Ok(hash) => finish(app, target, upload, hash, context).await,
        Err(error) => Err(error),
    };
    if !created.as_ref().is_ok_and(|state| state.assignment.id == upload)
        && let Err(error) = db::within(uploads::abandon(&pool, upload, clock::now())).await
    {
        // It is removed when it has been silent for a while.
        tracing::debug!(%upload, cause = error.chain(), "refused list not abandoned");
    }
    created
}

async fn find(app: &SharedApp, target: &Target) -> Result<Option<FoundAssignment>> {
    db::within(async {
        let mut connection = app.database.pool().acquire().await?;
        db::assignments::find(&mut connection, target.coupon, &target.key).await
    })
    .await
}

type Hash = [u8; 32];

/// Reads a whole list, stores its users under `upload` if there is one, and returns its hash.
async fn read(app: &SharedApp, target: &Target, body: &mut UserLines, upload: Option<AssignmentId>) -> Result<Hash> {
    let mut reader = LineReader::new(app.settings.assignments.assignment_max_line_bytes as usize);
    let (mut lines, mut hash, mut count, mut has_more) = (Lines::default(), Sha256::new(), 0_u64, true);
    while has_more {
        has_more = body.step(&mut reader, &mut lines).await?;
        count += lines.users.len() as u64;
        if count > u64::from(target.expected_count) {
            let message = format!("expected the number of users in the list, which has {count} or more");
            return Err(Error::field("expectedCount", message));
        }
        let step = mem::take(&mut lines.users);
        for listed in &step {
            hash.update(listed.user.get().to_be_bytes());
        }
        // Nothing is stored any more of a list that is refused; its other wrong lines are still looked for.
        if let Some(upload) = upload.filter(|_| lines.errors.is_empty()) {
            // A piece of the body may have many more users than a step.
            for part in step.chunks(PART_USERS) {
                lines.errors.extend(add(app, upload, part).await?);
            }
        }
        if lines.errors.len() >= MAX_LINE_ERRORS {
            break;
        }
    }
    let mut errors = lines.errors;
    errors.truncate(MAX_LINE_ERRORS);
    if errors.is_empty() && count != u64::from(target.expected_count) {
        errors.push(FieldError::new(
            "expectedCount",
            format!("expected the number of users in the list, which is {count}"),
        ));
    }
    validate(errors)?;
    Ok(hash.finalize().into())
}

/// Stores users; the errors of those who are in the list already.
async fn add(app: &SharedApp, upload: AssignmentId, part: &[ListedUser]) -> Result<Vec<FieldError>> {
    let users: Vec<ListUser> = part.iter().map(|listed| ListUser::new(listed.user)).collect();
    let repeated = uploads::add(&app.database, upload, &users, clock::now()).await?;
    let error = |place: usize| {
        let ListedUser { line, user } = part[place];
        line_error(line, format!("expected each user once, got {user} again"))
    };
    Ok(repeated.into_iter().take(MAX_LINE_ERRORS).map(error).collect())
}

async fn finish(
    app: &SharedApp,
    target: &Target,
    upload: AssignmentId,
    hash: Hash,
    context: ActionContext,
) -> Result<AssignmentState> {
    let (running, coupon, key, requested) = (app.clone(), target.coupon, target.key.clone(), target.expected_count);
    // The time of the action is that of its effect: a list of millions takes a while to arrive.
    let context = ActionContext { at: clock::now(), ..context };
    let creating = async move {
        let list = UserList::Uploaded;
        let new = NewAssignment { id: upload, coupon, key: &key, requested, list, list_hash: &hash };
        create(&running.database, new, &running.settings.assignment_rules(), &context).await
    };
    // A request with the same key may have been faster.
    repeated(target, app.run_to_end(creating).await?, hash)
}

fn repeated(target: &Target, existing: FoundAssignment, hash: Hash) -> Result<AssignmentState> {
    if existing.list_hash == Some(hash) {
        Ok(existing.state)
    } else {
        Err(Error::AssignmentKeyReused(target.key.clone()))
    }
}
