//! Revocations of coupons: first in `MySQL`, then in Redis, as for a [change of a campaign](crate::campaigns).

use crate::{
    campaigns::enforce,
    db::{self, Database, retrying, statements::Statements, with_timeout},
    domain::{
        admin_action::{ActionContext, ChangedFields, NewAdminAction},
        owned_coupon::{CouponRevoked, OwnedCoupon, OwnedStatus},
    },
    error::{Error, Result},
    identifiers::{ClaimId, UserId},
    redis::Redis,
};

/// A coupon that is to be revoked.
#[derive(Clone, Copy, Debug)]
pub struct RevocationRequest {
    pub user: UserId,
    pub user_coupon: ClaimId,
    /// Nothing is changed; the result shows what would be.
    pub is_dry_run: bool,
}

/// Revokes a coupon that its user has not used, and frees its place in the quantity. The user's limit stays used.
/// Returns the coupon afterwards.
///
/// When it returns, another user can claim the place, unless Redis cannot be reached: then from the moment it can.
pub async fn revoke(
    database: &Database,
    redis: &Redis,
    request: RevocationRequest,
    context: &ActionContext,
) -> Result<OwnedCoupon> {
    // The outer result is the database's, the inner one that of the rules: a rejection is not retried.
    let revoked = retrying("revoke", || with_timeout(Box::pin(revoke_locked(database, request, context)))).await??;
    // Also after a repeat: the process that revoked it may have died before Redis had it.
    if !request.is_dry_run
        && let Err(error) = enforce(database, redis, revoked.coupon_id).await
    {
        // It is revoked. The reconciliation frees the place when Redis is back.
        tracing::warn!(coupon = %revoked.coupon_id, cause = error.chain(), "campaign terms not written to redis");
    }
    Ok(revoked)
}

async fn revoke_locked(
    database: &Database,
    request: RevocationRequest,
    context: &ActionContext,
) -> Result<Result<OwnedCoupon>, sqlx::Error> {
    let RevocationRequest { user, user_coupon, is_dry_run } = request;
    let mut transaction = database.begin().await?;
    let not_found = Error::UserCouponNotFound { user, user_coupon };
    let Some(coupon) = db::owned_coupons::find_campaign(&mut transaction, user, user_coupon).await? else {
        // Dropping the transaction rolls it back, here and below.
        return Ok(Err(not_found));
    };
    // The campaign before the coupon, as the confirmation of claims locks them.
    db::campaigns::lock(&mut transaction, &[coupon]).await?;
    let Some(before) = db::owned_coupons::lock(&mut transaction, user_coupon, context.at).await? else {
        return Ok(Err(not_found));
    };
    let is_changed = match before.is_changed_by_revocation() {
        Ok(is_changed) => is_changed,
        Err(reason) => return Ok(Err(Error::OrderRejected(reason))),
    };
    let after = OwnedCoupon { status: OwnedStatus::Revoked, ..before.clone() };
    if !is_changed || is_dry_run {
        return Ok(Ok(after));
    }
    let action = NewAdminAction::changed("coupon.revoke", &user_coupon, &ChangedFields::between(&before, &after));
    db::admin_actions::insert(&mut transaction, context, &action).await?;
    let event = CouponRevoked { user_coupon_id: user_coupon, coupon_id: coupon, user_id: user, revoked_at: context.at };
    let mut statements = Statements::new(database.statement_bytes());
    db::owned_coupons::revoke(&mut statements, coupon, user_coupon);
    statements.push_events(&[event.event()], context.at);
    statements.send(&mut transaction).await?;
    transaction.commit().await?;
    Ok(Ok(after))
}
