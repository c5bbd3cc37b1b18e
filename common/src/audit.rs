//! Compares a campaign in Redis with `MySQL`, page by page: each step reads about a thousand users, so it is answered
//! in bounded memory, and Redis serves other clients in between.
//!
//! Two passes find every difference. The first goes through the issued coupons in the order of their validity and looks
//! each up in Redis. The second goes through what Redis holds and looks each up in `MySQL`. What differs is suspected, and then
//! read again in an order that excludes claims on their way: see [`audit::confirm`].

mod summary;

use std::collections::{BTreeMap, BTreeSet};

pub use summary::{AuditSummary, MysqlCounts, RedisCounts, StreamCounts, summarize};

use crate::{
    clock::Timestamp,
    db::{self, Database, audits::COUNT_TIMEOUT, retrying, statements::insert_event, with_timeout},
    domain::{
        audit::{
            self, AuditPosition, ClaimDifference, DRIFT_DETECTED, DifferenceKind, DriftDetected, FieldDifference,
            HeldClaims, NAMED_DIFFERENCES, Recheck,
        },
        campaign::Campaign,
        claim::{Claim, IssuedPosition},
        dead_letter::CLAIMS,
        event::{Aggregate, Event},
    },
    error::Result,
    identifiers::{ClaimId, CouponId, UserId},
    redis::{
        Redis,
        campaign_state::{self, HeldCampaign},
        claim_records::{self, PAGE_SIZE},
        streams::{self, ClaimEntry, ClaimStream, Entry as _},
    },
};

/// Entries of a stream that are read to find claims on their way. With more the workers are late, and each claim
/// without an outcome counts as on its way.
pub const MAX_CHECKED_ENTRIES: u64 = 10_000;

/// A campaign that is compared, and with which effort claims on their way are distinguished from lost ones.
#[derive(Clone, Copy)]
pub struct Comparison<'c> {
    pub database: &'c Database,
    pub redis: &'c Redis,
    pub campaign: &'c Campaign,
    /// Claims that were accepted later count as on their way, without a look at the stream; none: all are looked up.
    pub settled_before: Option<Timestamp>,
    /// With more entries on the stream, each claim without an outcome counts as on its way.
    pub max_entries: u64,
}

impl<'c> Comparison<'c> {
    /// As an administrator asks for it.
    pub const fn complete(database: &'c Database, redis: &'c Redis, campaign: &'c Campaign) -> Self {
        Self { database, redis, campaign, settled_before: None, max_entries: MAX_CHECKED_ENTRIES }
    }
}

/// One step of an audit, or several.
#[derive(Clone, Debug, Default)]
pub struct AuditPage {
    pub differences: Vec<ClaimDifference>,
    /// Claims of Redis and coupons of MySQL that were compared, or left out as too young.
    pub compared: u64,
    /// Claims that are accepted and not issued yet: no difference. Those left out as too young are not counted.
    pub on_their_way: u64,
    /// None at the end.
    pub next: Option<AuditPosition>,
}

impl AuditPage {
    /// Adds the page that follows.
    pub fn append(&mut self, following: Self) {
        self.differences.extend(following.differences);
        self.compared += following.compared;
        self.on_their_way += following.on_their_way;
        self.next = following.next;
    }
}

/// Compares the next page of a campaign. About `limit` differences end it early.
pub async fn compare_page(comparison: Comparison<'_>, position: AuditPosition, limit: usize) -> Result<AuditPage> {
    let mut page = match position {
        AuditPosition::Issued(after) => compare_issued_page(comparison, after, limit).await?,
        AuditPosition::Held { cursor, after } => compare_held_page(comparison, (cursor, after), limit).await?,
    };
    let suspects = std::mem::take(&mut page.differences);
    (page.differences, page.on_their_way) = confirm(comparison, suspects).await?;
    Ok(page)
}

async fn compare_issued_page(
    Comparison { database, redis, campaign, .. }: Comparison<'_>,
    after: Option<IssuedPosition>,
    limit: usize,
) -> Result<AuditPage> {
    let pool = &database.pool();
    let size = u32::try_from(PAGE_SIZE).unwrap_or(u32::MAX);
    let rows = db::within(db::issued_claims::list(pool, campaign.id, after, size)).await?;
    let users: BTreeSet<UserId> = rows.iter().map(|row| row.user).collect();
    let users: Vec<UserId> = users.into_iter().collect();
    let held = claim_records::find(redis, campaign.partition, campaign.id, &users).await?;
    let held: BTreeMap<UserId, HeldClaims> = users.into_iter().zip(held).collect();
    let mut page = AuditPage::default();
    let none = HeldClaims::default();
    for row in &rows {
        page.compared += 1;
        page.next = Some(AuditPosition::Issued(Some(row.position())));
        let held = held.get(&row.user).unwrap_or(&none);
        page.differences.extend(audit::compare_issued(row.user, row.record, held));
        if page.differences.len() >= limit {
            return Ok(page);
        }
    }
    if rows.len() < PAGE_SIZE {
        page.next = Some(AuditPosition::Held { cursor: 0, after: None });
    }
    Ok(page)
}

async fn compare_held_page(
    Comparison { database, redis, campaign, settled_before, .. }: Comparison<'_>,
    (cursor, after): (u64, Option<UserId>),
    limit: usize,
) -> Result<AuditPage> {
    let (next, mut held) = claim_records::scan(redis, campaign.partition, campaign.id, cursor).await?;
    // A page has no order, and a scan may return a user twice.
    held.sort_by_key(|(user, _)| *user);
    held.dedup_by_key(|(user, _)| *user);
    held.retain(|(user, _)| after.is_none_or(|after| *user > after));
    let mut page = AuditPage {
        next: (next != 0).then_some(AuditPosition::Held { cursor: next, after: None }),
        ..AuditPage::default()
    };
    if let Some(moment) = settled_before {
        // MySQL is not asked about claims that may be on their way: in a burst that is nearly all of them.
        for (_, held) in &mut held {
            let count = held.records.len();
            held.records.retain(|record| record.accepted_at < moment);
            page.compared += (count - held.records.len()) as u64;
        }
    }
    let claims: Vec<(UserId, ClaimId)> =
        held.iter().flat_map(|(user, held)| held.records.iter().map(|record| (*user, record.claim_id))).collect();
    let issued = find_issued(database, campaign.id, &claims).await?;
    for (user, held) in &held {
        page.compared += held.records.len() as u64;
        page.differences.extend(audit::compare_held(*user, held, &issued));
        if page.differences.len() >= limit {
            page.next = Some(AuditPosition::Held { cursor, after: Some(*user) });
            break;
        }
    }
    Ok(page)
}

async fn find_issued(database: &Database, coupon: CouponId, claims: &[(UserId, ClaimId)]) -> Result<BTreeSet<ClaimId>> {
    let mut issued = BTreeSet::new();
    // A user may have a hundred claims, and so a page far more than it has users.
    for claims in claims.chunks(PAGE_SIZE) {
        issued.extend(db::within(db::audits::find_issued(&database.pool(), coupon, claims)).await?);
    }
    Ok(issued)
}

/// Reads suspects again, and returns those that differ, and how many are claims on their way. None differs while Redis
/// does not hold the campaign: a rebuild is under way.
pub async fn confirm(
    Comparison { database, redis, campaign, settled_before, max_entries }: Comparison<'_>,
    mut suspects: Vec<ClaimDifference>,
) -> Result<(Vec<ClaimDifference>, u64)> {
    let before = suspects.len();
    // In a burst most claims are on their way, and the stream is long.
    suspects.retain(|suspect| settled_before.is_none_or(|moment| suspect.is_settled(moment)));
    let young = (before - suspects.len()) as u64;
    if suspects.is_empty() {
        return Ok((suspects, young));
    }
    let claims: Vec<(UserId, ClaimId)> =
        suspects.iter().filter_map(|suspect| Some((suspect.user_id, suspect.claim_id?))).collect();
    let wanted: BTreeSet<ClaimId> = claims.iter().map(|(_, claim)| *claim).collect();
    let mut users: Vec<UserId> = suspects.iter().map(|suspect| suspect.user_id).collect();
    users.sort_unstable();
    users.dedup();
    // The stream before MySQL before Redis: see `audit::confirm`.
    let mut read = Recheck::default();
    if streams::len::<ClaimEntry>(redis, campaign.partition).await? > max_entries {
        read.on_their_way.clone_from(&wanted);
    } else {
        let visit = |claim: Claim| {
            if wanted.contains(&claim.record.claim_id) {
                read.on_their_way.insert(claim.record.claim_id);
            }
        };
        visit_unanswered(database, redis, campaign, visit).await?;
    }
    read.issued = find_issued(database, campaign.id, &claims).await?;
    for users in users.chunks(PAGE_SIZE) {
        let held = claim_records::find(redis, campaign.partition, campaign.id, users).await?;
        read.held.extend(users.iter().copied().zip(held));
    }
    if !is_held_now(redis, campaign).await? {
        return Ok((Vec::new(), 0));
    }
    let (confirmed, on_their_way) = audit::confirm(suspects, &read);
    Ok((confirmed, on_their_way + young))
}

/// Whether Redis holds the campaign, as of the epoch of `MySQL`.
pub async fn is_held_now(redis: &Redis, campaign: &Campaign) -> Result<bool> {
    Ok(is_held(campaign, &campaign_state::compare(redis, campaign).await?))
}

fn is_held(campaign: &Campaign, held: &HeldCampaign) -> bool {
    held.counts.is_some() && held.epoch == campaign.epoch
}

/// Visits accepted claims that may have no outcome yet: those on the stream, and those of dead letters. In this order,
/// as an entry that fails moves from the stream to the letters. The way back is closed to a rebuild: a redrive takes
/// its lease.
pub async fn visit_unanswered(
    database: &Database,
    redis: &Redis,
    campaign: &Campaign,
    mut visit: impl FnMut(Claim),
) -> Result<()> {
    ClaimStream::visit_unanswered(redis, campaign.partition, campaign.id, &mut visit).await?;
    let (pool, coupon) = (database.pool(), campaign.id.to_string());
    let letters = db::dead_letters::list_open_payloads(&pool, CLAIMS, &coupon);
    for payload in db::within_limit(COUNT_TIMEOUT, letters).await? {
        match streams::read_fields(&payload).and_then(|fields| ClaimEntry::read(&fields)) {
            Ok(entry) => entry.claims.into_iter().for_each(&mut visit),
            Err(error) => tracing::error!(coupon = %campaign.id, %error, "claims of a dead letter cannot be read"),
        }
    }
    Ok(())
}

/// Inserts the event that reports differences. It names the first of them.
pub async fn report_drift(
    database: &Database,
    coupon: CouponId,
    fields: &[FieldDifference],
    claims: &[ClaimDifference],
    now: Timestamp,
) -> Result<()> {
    let mut counts: BTreeMap<DifferenceKind, u64> = BTreeMap::new();
    for kind in fields.iter().map(|field| field.kind).chain(claims.iter().map(|claim| claim.kind)) {
        *counts.entry(kind).or_default() += 1;
    }
    let payload = DriftDetected {
        coupon_id: coupon,
        detected_at: now,
        counts,
        fields,
        claims: &claims[..claims.len().min(NAMED_DIFFERENCES)],
    };
    let event = Event::new(Aggregate::Coupon(coupon), DRIFT_DETECTED, &payload);
    let insert = || {
        with_timeout(async {
            let mut connection = database.pool().acquire().await?;
            insert_event(&mut connection, event.clone(), now).await
        })
    };
    retrying("report_drift", insert).await
}
