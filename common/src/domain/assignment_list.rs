//! The lines of a list of users: NDJSON, one user a line.

use std::borrow::Cow;

use serde::Deserialize;

use super::FieldError;
use crate::identifiers::UserId;

/// A refused list names at most so many of its wrong lines.
pub const MAX_LINE_ERRORS: usize = 20;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Line {
    user_id: UserId,
}

/// A user, and the number of the line that names it, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedUser {
    pub line: u64,
    pub user: UserId,
}

/// Cuts a body into lines, in whatever pieces it arrives. Keeps a line at most.
#[derive(Debug)]
pub struct LineReader {
    max_line_bytes: usize,
    /// The beginning of a line whose end has not arrived.
    rest: Vec<u8>,
    line: u64,
}

/// What lines say.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Lines {
    pub users: Vec<ListedUser>,
    pub errors: Vec<FieldError>,
}

impl LineReader {
    pub const fn new(max_line_bytes: usize) -> Self {
        Self { max_line_bytes, rest: Vec::new(), line: 0 }
    }

    /// Reads the next piece of the body.
    pub fn read(&mut self, piece: &[u8], lines: &mut Lines) {
        let mut pieces = piece.split(|byte| *byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            // Not more of a line that is too long already: it may be the rest of the body.
            let room = (self.max_line_bytes + 1).saturating_sub(self.rest.len());
            if pieces.peek().is_none() {
                self.rest.extend(piece.iter().take(room));
            } else if self.rest.is_empty() {
                self.end(piece, lines);
            } else {
                self.rest.extend(piece.iter().take(room));
                let whole = std::mem::take(&mut self.rest);
                self.end(&whole, lines);
            }
        }
    }

    /// Reads the last line, if it has no line feed.
    pub fn finish(&mut self, lines: &mut Lines) {
        if !self.rest.is_empty() {
            let whole = std::mem::take(&mut self.rest);
            self.end(&whole, lines);
        }
    }

    fn end(&mut self, line: &[u8], lines: &mut Lines) {
        self.line += 1;
        match user(line, self.max_line_bytes) {
            Ok(user) => lines.users.push(ListedUser { line: self.line, user }),
            Err(_) if lines.errors.len() >= MAX_LINE_ERRORS => {}
            Err(message) => lines.errors.push(line_error(self.line, message)),
        }
    }
}

/// The error of a line.
pub fn line_error(line: u64, message: impl Into<String>) -> FieldError {
    FieldError::new(format!("line {line}"), message)
}

fn user(line: &[u8], max_line_bytes: usize) -> Result<UserId, Cow<'static, str>> {
    if line.len() > max_line_bytes {
        return Err(format!("expected at most {max_line_bytes} bytes").into());
    }
    let line = line.trim_ascii();
    let user = if line.first().is_some_and(u8::is_ascii_digit) {
        serde_json::from_slice(line).ok()
    } else {
        // serde reads the fields of a struct from an array as well, by position.
        let is_object = line.first() == Some(&b'{');
        serde_json::from_slice(line).ok().filter(|_| is_object).map(|Line { user_id }| user_id)
    };
    user.ok_or(Cow::Borrowed("expected {\"userId\": ID} or ID, an integer from 1 to 9007199254740991"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> Lines {
        let (mut reader, mut lines) = (LineReader::new(40), Lines::default());
        for piece in pieces {
            reader.read(piece, &mut lines);
        }
        reader.finish(&mut lines);
        lines
    }

    fn users(lines: &Lines) -> Vec<(u64, u64)> {
        lines.users.iter().map(|listed| (listed.line, listed.user.get())).collect()
    }

    fn wrong(lines: &Lines) -> Vec<&str> {
        lines.errors.iter().map(|error| &*error.field).collect()
    }

    #[test]
    fn a_line_is_an_object_or_a_number() {
        let lines = read([&b"{\"userId\": 7}\n8\r\n 9 \n9007199254740991"[..]]);
        assert_eq!(users(&lines), [(1, 7), (2, 8), (3, 9), (4, 9_007_199_254_740_991)]);
        assert_eq!(lines.errors, []);
        assert_eq!(read([]), Lines::default());
    }

    #[test]
    fn wrong_lines_are_named() {
        let long = format!("{}1", " ".repeat(40));
        let wrong_ones = ["0", "-1", "1.5", "01", "x", "", "[7]", "{}", "{\"userId\":\"7\"}", "7 8", "1e3", &long];
        for line in wrong_ones.into_iter().chain(["9007199254740992", "{\"userId\":7,\"x\":1}", "\u{e9}"]) {
            let lines = read([format!("1\n{line}\n3\n").as_bytes()]);
            assert_eq!((users(&lines), wrong(&lines)), (vec![(1, 1), (3, 3)], vec!["line 2"]), "{line:?}");
        }
        assert_eq!(read([long.as_bytes()]).errors[0].message, "expected at most 40 bytes");
    }

    #[test]
    fn neither_errors_nor_a_line_without_an_end_grow() {
        let (mut reader, mut lines) = (LineReader::new(40), Lines::default());
        for _ in 0..100 {
            reader.read(&[b'7'; 1_000], &mut lines);
            assert!(reader.rest.len() <= 41);
        }
        reader.read(&b"\nx".repeat(100), &mut lines);
        assert_eq!((lines.users.len(), lines.errors.len(), &*lines.errors[0].field), (0, MAX_LINE_ERRORS, "line 1"));
    }

    proptest! {
        #[test]
        fn a_list_reads_the_same_in_any_pieces(ids in prop::collection::vec(1_u64..20_000, 1..40), size in 1_usize..30) {
            let text = ids.iter().map(u64::to_string).collect::<Vec<_>>().join("\n");
            let lines = read(text.as_bytes().chunks(size));
            let expected: Vec<(u64, u64)> = (1..).zip(ids).collect();
            prop_assert_eq!(users(&lines), expected);
        }
    }
}
