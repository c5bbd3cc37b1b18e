//! All that is written to the terminal: tables on standard output, notes and progress on standard error.
#![allow(clippy::print_stdout, reason = "the one place that prints")]

use std::{borrow::Cow, io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing_subscriber::filter::LevelFilter;

/// Lets libraries say only what breaks. Must come before goose, which else sets up a log of its own, where every
/// broken connection of a fault run is a line.
pub fn quiet_libraries() {
    tracing_subscriber::fmt().with_max_level(LevelFilter::ERROR).with_writer(std::io::stderr).init();
}

/// A line of the result.
pub fn line(text: &str) {
    println!("{text}");
}

/// A line about what is going on.
pub fn note(text: &str) {
    eprintln!("dibs-loadtest: {text}");
}

/// A table of text; columns are as wide as they need to be.
pub struct Table {
    rows: Vec<Vec<String>>,
    right_aligned_from: usize,
}

impl Table {
    /// Columns from `right_aligned_from` on are numbers.
    pub fn new(headers: &[&str], right_aligned_from: usize) -> Self {
        Self { rows: vec![headers.iter().map(|&header| header.to_owned()).collect()], right_aligned_from }
    }

    /// Adds a row.
    pub fn row<'c>(&mut self, cells: impl IntoIterator<Item = impl Into<Cow<'c, str>>>) {
        self.rows.push(cells.into_iter().map(|cell| cell.into().into_owned()).collect());
    }

    /// Prints it under `title`.
    pub fn print(&self, title: &str) {
        line("");
        line(title);
        for text in self.lines() {
            line(&text);
        }
    }

    fn lines(&self) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width =
            |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        let mut lines: Vec<String> = self.rows.iter().map(|row| self.text(row, &widths)).collect();
        let rule: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
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

/// A progress bar on a terminal; nothing elsewhere.
pub fn progress(total: u64, message: &'static str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(10));
    let template = "{msg} [{wide_bar}] {human_pos}/{human_len} {per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(message);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["what", "count"], 1);
        table.row(["accepted", "7"]);
        assert_eq!(table.lines(), ["what      count", "--------  -----", "accepted      7"]);
    }
}
