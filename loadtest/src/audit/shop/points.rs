//! I6: the points of users.

use super::rule::Rule;

/// Balances, ledger and charges agree.
pub const RULES: [Rule; 6] = [
    Rule::new(
        "I6",
        "accounts: balance and pending not negative, together within the cap",
        "point_accounts",
        "SELECT CONCAT_WS(' ', 'user', user_id, 'holds', balance, 'with', pending, 'pending') AS difference \
             FROM point_accounts WHERE balance < 0 OR pending < 0 OR balance + pending > :cap",
    ),
    Rule::new(
        "I6",
        "accounts: balance is the sum of the ledger rows",
        "point_accounts",
        "SELECT CONCAT_WS(' ', 'user', u.user_id, 'holds', a.balance, 'the ledger adds up to', h.balance) \
                 AS difference \
             FROM (SELECT user_id FROM point_accounts UNION SELECT user_id FROM point_histories) AS u \
             LEFT JOIN point_accounts a ON a.user_id = u.user_id \
             LEFT JOIN (SELECT user_id, SUM(amount) AS balance FROM point_histories GROUP BY user_id) AS h \
                 ON h.user_id = u.user_id \
             WHERE COALESCE(a.balance, 0) <> COALESCE(h.balance, 0)",
    ),
    Rule::new(
        "I6",
        "ledger rows: each balance is the balance before plus the amount",
        "point_histories",
        "SELECT CONCAT_WS(' ', 'row', point_history_id, 'of user', user_id, 'leaves', balance_after, 'after', \
                 balance_before, 'and', amount) AS difference \
             FROM (SELECT point_history_id, user_id, amount, balance_after, \
                 COALESCE(LAG(balance_after) OVER (PARTITION BY user_id ORDER BY point_history_id), 0) AS balance_before \
                 FROM point_histories) AS h \
             WHERE balance_after <> balance_before + amount",
    ),
    // Pending points count against the cap until the gateway has decided.
    Rule::new(
        "I6",
        "accounts: pending is the sum of the PENDING charges",
        "point_accounts",
        "SELECT CONCAT_WS(' ', 'user', a.user_id, 'has', a.pending, 'pending, charges add up to', \
                 COALESCE(c.pending, 0)) AS difference \
             FROM point_accounts a LEFT JOIN (SELECT user_id, SUM(amount) AS pending FROM charges \
                 WHERE status = 'PENDING' GROUP BY user_id) AS c ON c.user_id = a.user_id \
             WHERE a.pending <> COALESCE(c.pending, 0)",
    ),
    Rule::new(
        "I6",
        "charges: each APPROVED one has one ledger row, the others none",
        "charges",
        "SELECT CONCAT_WS(' ', 'charge', LOWER(HEX(c.charge_id)), 'of user', c.user_id, 'is', c.status, \
                 'with', c.amount, 'in the ledger', COALESCE(h.entries, 0), 'times with', h.amount) AS difference \
             FROM charges c LEFT JOIN (SELECT reference_id, COUNT(*) AS entries, SUM(amount) AS amount, \
                 MIN(user_id) AS user_id FROM point_histories WHERE type = 'CHARGE' GROUP BY reference_id) AS h \
                 ON h.reference_id = c.charge_id \
             WHERE COALESCE(h.entries, 0) <> (c.status = 'APPROVED') OR h.amount <> c.amount OR h.user_id <> c.user_id",
    ),
    Rule::new(
        "I6",
        "ledger rows CHARGE: each of an existing charge",
        "point_histories WHERE type = 'CHARGE'",
        "SELECT CONCAT_WS(' ', 'row', h.point_history_id, 'of user', h.user_id, 'names charge', \
                 LOWER(HEX(h.reference_id)), 'which is missing') AS difference \
             FROM point_histories h LEFT JOIN charges c ON c.charge_id = h.reference_id \
             WHERE h.type = 'CHARGE' AND c.charge_id IS NULL",
    ),
];
