//! The report of what claims and orders cost.

use super::cost::{Cost, MeasuredCost};
use crate::output::Table;

/// The rows, with their goals, and with their changes since an earlier run.
pub fn table(measured: &[MeasuredCost], earlier: Option<&[MeasuredCost]>) -> String {
    let mut headers = vec!["CPU time", "us", "bare requests", "+-", "goal", "result"];
    if earlier.is_some() {
        headers.push("change");
    }
    let mut table = Table::new(&headers, 1);
    for row in measured {
        let goal = row.cost.goal();
        let mut cells = vec![
            row.cost.name().to_owned(),
            format!("{:.2}", row.micros),
            format!("{:.2}", row.bare_requests),
            format!("{:.2}", row.spread),
            goal.map(|goal| format!("<= {goal:.2}")).unwrap_or_default(),
            goal.map(|goal| result(row.bare_requests, goal)).unwrap_or_default(),
        ];
        if let Some(earlier) = earlier {
            cells.push(change(*row, earlier));
        }
        table.row(cells);
    }
    let mut lines = vec![table.render("CPU time for each thing done, in requests of a bare server of the same round")];
    let of = |cost: Cost| measured.iter().find(|row| row.cost == cost).map(|row| row.micros);
    if let (Some(http), Some(backlog)) = (of(Cost::OrderInAll), of(Cost::OrderOutOfBacklog)) {
        let ratio = http / backlog;
        lines.push(format!(
            "An order over HTTP costs {ratio:.2} times one out of a backlog (goal <= {HTTP_ORDER_GOAL:.2}: {})",
            result(ratio, HTTP_ORDER_GOAL)
        ));
    }
    lines.join("\n")
}

/// How many orders out of a backlog an order over HTTP may cost.
const HTTP_ORDER_GOAL: f64 = 1.5;

fn result(value: f64, goal: f64) -> String {
    // As it is shown: what rounds to the goal meets it.
    if value < goal + 0.005 { "met".into() } else { format!("missed by {:.0} %", (value / goal - 1.0) * 100.0) }
}

fn change(row: MeasuredCost, earlier: &[MeasuredCost]) -> String {
    match earlier.iter().find(|earlier| earlier.cost == row.cost) {
        None => "new".into(),
        Some(earlier) => match row.change_since(*earlier) {
            None => "within the noise".into(),
            Some(change) => format!("{:+.0} %", change * 100.0),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cost: Cost, micros: f64, bare_requests: f64) -> MeasuredCost {
        MeasuredCost { cost, micros, bare_requests, spread: 0.05 }
    }

    #[test]
    fn goals_and_changes_are_shown() {
        let measured = [
            row(Cost::BareRequest, 8.0, 1.0),
            row(Cost::ApiClaimAccepted, 10.4, 1.304),
            row(Cost::ClaimInAll, 40.0, 5.0),
            row(Cost::OrderInAll, 60.0, 7.5),
            row(Cost::OrderOutOfBacklog, 30.0, 3.75),
        ];
        let earlier = [row(Cost::BareRequest, 8.0, 1.0), row(Cost::ClaimInAll, 48.0, 6.0)];
        insta::assert_snapshot!(table(&measured, Some(&earlier)));
        assert!(!table(&measured, None).contains("change"));
    }
}
