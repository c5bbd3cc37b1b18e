//! What happened to one user, from every table that knows.

use sqlx::{FromRow as _, MySqlPool};
use uuid::Uuid;

use super::{
    decode::{identifier, parse},
    statements::{moment, text, write_into},
};
use crate::{
    clock::Timestamp,
    domain::timeline::{TimelineEntry, TimelineKind, TimelinePosition},
    identifiers::{ClaimId, CouponId, OrderId, UserId},
};

/// Where entries of one kind come from: SQL expressions and a table.
struct Source {
    kind: TimelineKind,
    at: &'static str,
    id: &'static str,
    /// The campaign; none for what has nothing to do with one.
    coupon: Option<&'static str>,
    /// Further columns, each as an expression and its name.
    columns: &'static [(&'static str, &'static str)],
    from: &'static str,
    user: &'static str,
    /// Which rows, beside those of the user.
    only: &'static str,
}

/// Every column that a source may have, in their order.
const COLUMNS: [&str; 10] =
    ["user_coupon_id", "order_id", "sequence", "code", "amount", "balance", "attempts", "first_at", "actor", "reason"];

const COUPON_COLUMNS: &[(&str, &str)] = &[("u.user_coupon_id", "user_coupon_id")];
const SEQUENCE_COLUMNS: &[(&str, &str)] =
    &[("u.user_coupon_id", "user_coupon_id"), ("CAST(u.sequence AS UNSIGNED)", "sequence")];
const OF_ORDER: &[(&str, &str)] = &[("o.user_coupon_id", "user_coupon_id"), ("o.order_id", "order_id")];
const ORDER_COLUMNS: &[(&str, &str)] = &[
    ("o.user_coupon_id", "user_coupon_id"),
    ("o.order_id", "order_id"),
    ("o.code", "code"),
    ("o.pay_amount", "amount"),
];
const PAYMENT_COLUMNS: &[(&str, &str)] = &[("p.order_id", "order_id"), ("p.code", "code"), ("p.amount", "amount")];

const fn coupon(kind: TimelineKind, at: &'static str, only: &'static str) -> Source {
    Source {
        kind,
        at,
        id: "HEX(u.user_coupon_id)",
        coupon: Some("u.coupon_id"),
        columns: COUPON_COLUMNS,
        from: "user_coupons u",
        user: "u.user_id",
        only,
    }
}

const fn order(kind: TimelineKind, at: &'static str, only: &'static str) -> Source {
    Source {
        kind,
        at,
        id: "HEX(o.order_id)",
        coupon: None,
        columns: ORDER_COLUMNS,
        from: "orders o",
        user: "o.user_id",
        only,
    }
}

const fn use_of_coupon(kind: TimelineKind, at: &'static str, only: &'static str) -> Source {
    Source {
        coupon: Some("u.coupon_id"),
        columns: OF_ORDER,
        from: "orders o JOIN user_coupons u ON u.user_coupon_id = o.user_coupon_id",
        ..order(kind, at, only)
    }
}

const fn payment(kind: TimelineKind, at: &'static str, only: &'static str) -> Source {
    Source {
        id: "HEX(p.payment_id)",
        columns: PAYMENT_COLUMNS,
        // By the user's orders: payments have no index by user.
        from: "orders o JOIN payments p ON p.order_id = o.order_id",
        ..order(kind, at, only)
    }
}

const SOURCES: &[Source] = &[
    Source {
        kind: TimelineKind::ClaimRefused,
        at: "a.last_at",
        id: "CONCAT(a.coupon_id, '-', a.code)",
        coupon: Some("a.coupon_id"),
        columns: &[("a.code", "code"), ("CAST(a.attempts AS UNSIGNED)", "attempts"), ("a.first_at", "first_at")],
        from: "claim_attempts a",
        user: "a.user_id",
        only: "TRUE",
    },
    Source {
        kind: TimelineKind::ClaimRefused,
        at: "f.refused_at",
        id: "HEX(f.claim_id)",
        coupon: Some("f.coupon_id"),
        columns: &[("f.code", "code")],
        from: "claim_refusals f",
        user: "f.user_id",
        only: "TRUE",
    },
    Source { columns: SEQUENCE_COLUMNS, ..coupon(TimelineKind::ClaimAccepted, "u.accepted_at", "TRUE") },
    Source {
        kind: TimelineKind::ClaimAccepted,
        at: "r.accepted_at",
        id: "HEX(r.claim_id)",
        coupon: Some("r.coupon_id"),
        columns: &[("CAST(r.sequence AS UNSIGNED)", "sequence")],
        from: "claim_rejections r",
        user: "r.user_id",
        only: "TRUE",
    },
    Source {
        kind: TimelineKind::ClaimRejected,
        at: "r.rejected_at",
        id: "HEX(r.claim_id)",
        coupon: Some("r.coupon_id"),
        columns: &[("CAST(r.sequence AS UNSIGNED)", "sequence"), ("r.code", "code")],
        from: "claim_rejections r",
        user: "r.user_id",
        only: "TRUE",
    },
    Source { columns: SEQUENCE_COLUMNS, ..coupon(TimelineKind::CouponIssued, "u.issued_at", "TRUE") },
    coupon(
        TimelineKind::CouponExpired,
        "u.valid_until",
        // The job marks coupons an hour late; a user is shown the end at once.
        "(u.status = 'EXPIRED' OR (u.status = 'ISSUED' AND u.valid_until <= UTC_TIMESTAMP(3)))",
    ),
    Source {
        columns: &[("u.user_coupon_id", "user_coupon_id"), ("d.actor", "actor"), ("d.reason", "reason")],
        // The row has no time of its revocation; the action has, and its target is the id as text.
        from: "user_coupons u JOIN admin_actions d ON d.action = 'coupon.revoke' AND d.target_id = LOWER(CONCAT_WS('-', \
               SUBSTR(HEX(u.user_coupon_id), 1, 8), SUBSTR(HEX(u.user_coupon_id), 9, 4), \
               SUBSTR(HEX(u.user_coupon_id), 13, 4), SUBSTR(HEX(u.user_coupon_id), 17, 4), \
               SUBSTR(HEX(u.user_coupon_id), 21)))",
        ..coupon(TimelineKind::CouponRevoked, "d.created_at", "u.status = 'REVOKED'")
    },
    use_of_coupon(TimelineKind::CouponUsed, "o.created_at", "o.status <> 'REJECTED'"),
    use_of_coupon(TimelineKind::CouponRestored, "o.ended_at", "o.ended_at IS NOT NULL"),
    Source {
        kind: TimelineKind::Charge,
        at: "h.created_at",
        id: "HEX(h.charge_id)",
        coupon: None,
        columns: &[("h.status", "code"), ("h.amount", "amount")],
        from: "charges h",
        user: "h.user_id",
        only: "TRUE",
    },
    Source {
        kind: TimelineKind::PointsChanged,
        at: "l.created_at",
        id: "CAST(l.point_history_id AS CHAR)",
        coupon: None,
        columns: &[
            ("l.order_id", "order_id"),
            ("l.type", "code"),
            ("l.amount", "amount"),
            ("l.balance_after", "balance"),
            ("d.actor", "actor"),
            ("d.reason", "reason"),
        ],
        from: "point_histories l LEFT JOIN admin_actions d \
               ON d.operation_id = l.reference_id AND l.type IN ('GRANT', 'DEDUCTION')",
        user: "l.user_id",
        only: "TRUE",
    },
    order(TimelineKind::OrderPlaced, "o.created_at", "o.status <> 'REJECTED'"),
    order(TimelineKind::OrderRejected, "o.created_at", "o.status = 'REJECTED'"),
    order(TimelineKind::OrderPaid, "o.paid_at", "o.paid_at IS NOT NULL"),
    order(TimelineKind::OrderConfirmed, "o.confirmed_at", "o.confirmed_at IS NOT NULL"),
    order(TimelineKind::OrderCancelled, "o.ended_at", "o.status = 'CANCELLED' AND o.ended_at IS NOT NULL"),
    order(TimelineKind::OrderExpired, "o.ended_at", "o.status = 'EXPIRED' AND o.ended_at IS NOT NULL"),
    payment(TimelineKind::PaymentDone, "p.created_at", "p.status <> 'FAIL'"),
    payment(TimelineKind::PaymentFailed, "p.created_at", "p.status = 'FAIL'"),
    payment(TimelineKind::PaymentCancelled, "p.cancelled_at", "p.cancelled_at IS NOT NULL"),
];

/// Whose timeline, and which part of it.
#[derive(Clone, Debug)]
pub struct TimelineFilter {
    pub user: UserId,
    /// Only what is about this campaign.
    pub coupon: Option<CouponId>,
    /// Only what comes after this in the list.
    pub after: Option<TimelinePosition>,
    pub limit: u32,
}

impl Source {
    /// The newest rows of this source, at most as many as the page has. Each source is limited by itself: the server
    /// then sorts no more than that of each.
    fn select(&self, wanted: &TimelineFilter) -> Option<String> {
        let Self { at, id, columns, from, user, only, .. } = self;
        let kind = self.kind.into_str();
        let mut sql =
            format!("(SELECT {at} AS at, '{kind}' AS kind, {id} AS id, {} AS coupon_id", self.coupon.unwrap_or("NULL"));
        for name in COLUMNS {
            let expression = columns.iter().find(|(_, given)| *given == name).map_or("NULL", |(given, _)| given);
            write_into(&mut sql, format_args!(", {expression} AS {name}"));
        }
        write_into(&mut sql, format_args!(" FROM {from} WHERE {user} = {} AND {only}", wanted.user));
        if let Some(wanted) = wanted.coupon {
            write_into(&mut sql, format_args!(" AND {} = {wanted}", self.coupon?));
        }
        if let Some(TimelinePosition { at: last_at, kind: last_kind, id: last_id }) = &wanted.after {
            let (last_at, last_kind) = (moment(*last_at), last_kind.into_str());
            write_into(
                &mut sql,
                format_args!(
                    // The first condition follows from the others. Alone it bounds a range, which an OR does not.
                    " AND {at} <= {last_at} AND ({at} < {last_at} OR '{kind}' < '{last_kind}' \
                     OR ('{kind}' = '{last_kind}' AND {id} < "
                ),
            );
            // As the server spells it.
            let as_hexadecimal = Uuid::try_parse(last_id).map(|id| id.simple().to_string().to_uppercase());
            text(&mut sql, &as_hexadecimal.unwrap_or_else(|_| last_id.clone()));
            sql.push_str("))");
        }
        write_into(&mut sql, format_args!(" ORDER BY {at} DESC, {id} DESC LIMIT {})", wanted.limit));
        Some(sql)
    }
}

#[derive(sqlx::FromRow)]
struct TimelineRow {
    at: Timestamp,
    kind: String,
    id: String,
    coupon_id: Option<u64>,
    coupon_name: Option<String>,
    user_coupon_id: Option<Uuid>,
    order_id: Option<Uuid>,
    sequence: Option<u64>,
    code: Option<String>,
    amount: Option<i64>,
    balance: Option<i64>,
    attempts: Option<u64>,
    first_at: Option<Timestamp>,
    actor: Option<String>,
    reason: Option<String>,
}

impl TimelineRow {
    fn decode(self) -> Result<TimelineEntry, sqlx::Error> {
        // Ids that are UUIDs in the usual spelling. Others are shorter, or no hexadecimal digits.
        let id = if self.id.len() == 32 { Uuid::try_parse(&self.id).ok() } else { None };
        Ok(TimelineEntry {
            at: self.at,
            kind: parse("kind of a timeline", &self.kind)?,
            id: id.map_or(self.id, |id| id.to_string()),
            coupon_id: self.coupon_id.map(identifier).transpose()?,
            coupon_name: self.coupon_name,
            user_coupon_id: self.user_coupon_id.map(ClaimId),
            order_id: self.order_id.map(OrderId),
            sequence: self.sequence,
            code: self.code,
            amount: self.amount,
            balance: self.balance,
            attempts: self.attempts,
            first_at: self.first_at,
            actor: self.actor,
            reason: self.reason,
        })
    }
}

/// A page of a user's timeline, the newest first.
pub async fn list(pool: &MySqlPool, wanted: &TimelineFilter) -> Result<Vec<TimelineEntry>, sqlx::Error> {
    let selects: Vec<String> = SOURCES.iter().filter_map(|source| source.select(wanted)).collect();
    // Cast, as MariaDB makes an unsigned number that some sources lack a decimal.
    let sql = format!(
        // UNION ALL: no two sources have a row in common, and UNION would compare all of them.
        "SELECT /* timeline::list */ t.at, t.kind, t.id, CAST(t.coupon_id AS UNSIGNED) AS coupon_id, \
         c.name AS coupon_name, t.user_coupon_id, t.order_id, CAST(t.sequence AS UNSIGNED) AS sequence, t.code, \
         t.amount, t.balance, CAST(t.attempts AS UNSIGNED) AS attempts, t.first_at, t.actor, t.reason FROM ({}) AS t \
         LEFT JOIN coupons c ON c.coupon_id = t.coupon_id ORDER BY t.at DESC, t.kind DESC, t.id DESC LIMIT {}",
        selects.join(" UNION ALL "),
        wanted.limit
    );
    // As raw text: nearly every call is a statement of its own, which would only push others out of the cache.
    let rows = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).fetch_all(pool).await?;
    rows.iter().map(|row| TimelineRow::from_row(row)?.decode()).collect()
}
