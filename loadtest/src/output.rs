//! All that is written to the terminal: tables on standard output, notes and progress on standard error.
#![allow(clippy::print_stdout, reason = "the one place that prints")]

use std::{borrow::Cow, io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing_subscriber::filter::LevelFilter;

/// Limits the log of libraries to errors. Goose installs its own logger unless there is one, and logs every broken
/// connection of a fault run.
pub fn quiet_libraries() {
    tracing_subscriber::fmt().with_max_level(LevelFilter::ERROR).with_writer(std::io::stderr).init();
}

/// Prints a part of the report.
pub fn line(text: &str) {
    println!("{text}");
}

/// Prints a note about the progress of the run.
pub fn note(text: &str) {
    eprintln!("dibs-loadtest: {text}");
}

/// A text table. Each column is as wide as its widest cell.
pub struct Table {
    rows: Vec<Vec<String>>,
    right_aligned_from: usize,
}

impl Table {
    /// Columns from `right_aligned_from` on are right-aligned, for numbers.
    pub fn new(headers: &[&str], right_aligned_from: usize) -> Self {
        Self { rows: vec![headers.iter().map(|&header| header.to_owned()).collect()], right_aligned_from }
    }

    pub fn row<'c>(&mut self, cells: impl IntoIterator<Item = impl Into<Cow<'c, str>>>) {
        self.rows.push(cells.into_iter().map(|cell| cell.into().into_owned()).collect());
    }

    /// The table as text under `title`, after an empty line.
    pub fn render(&self, title: &str) -> String {
        format!("\n{title}\n{}", self.lines().join("\n"))
    }

    fn lines(&self) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width =
            |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        let mut lines: Vec<String> = self.rows.iter().map(|row| self.text(row, &widths)).collect();
        let rule: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
        // The rule separates the headers from the rows, so it is not part of the widths.
        lines.insert(1, rule.join("  "));
        lines
    }

    fn text(&self, row: &[String], widths: &[usize]) -> String {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, &width))| {
            if column < self.right_aligned_from { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    }
}

/// A progress threshold on a terminal; nothing elsewhere.
pub fn progress(total: u64, message: &'static str) -> ProgressBar {
    // A log file would be filled with control characters.
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let threshold = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(10));
    let template = "{msg} [{wide_bar}] {human_pos}/{human_len} {per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        threshold.set_style(style);
    }
    threshold.set_message(message);
    threshold.enable_steady_tick(Duration::from_millis(200));
    threshold
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["what", "count"], 1);
        table.row(["accepted", "7"]);
        assert_eq!(table.render("Claims"), "\nClaims\nwhat      count\n--------  -----\naccepted      7");
    }

    #[test]
    fn an_empty_cell_at_the_end_leaves_no_blanks() {
        let mut table = Table::new(&["what", "count", "result"], 1);
        table.row(["réfusé", "1,000", ""]);
        assert_eq!(table.lines()[2], "réfusé  1,000");
    }
}
