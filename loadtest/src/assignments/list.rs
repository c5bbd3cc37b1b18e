//! The list of users, made as it is sent.

use std::{convert::Infallible, fmt::Write as _};

use bytes::Bytes;
use futures::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use reqwest::Body;

/// A prime: the list is not sorted, as those of shops are not.
const STRIDE: u64 = 7_919;
/// Lines of one piece of the body.
const PIECE_LINES: u32 = 1_000;

/// The user in a place of the list. The users of a list are 1 to `users`, each once.
fn user_at(place: u32, users: u32) -> u64 {
    let users = u64::from(users);
    // Only a stride without a common divisor reaches every user.
    let stride = if users.is_multiple_of(STRIDE) { 1 } else { STRIDE };
    u64::from(place) * stride % users + 1
}

fn piece(first: u32, users: u32) -> Bytes {
    let mut lines = String::new();
    for place in first..users.min(first + PIECE_LINES) {
        // Writing to a string does not fail.
        let _written = writeln!(lines, "{{\"userId\":{}}}", user_at(place, users));
    }
    lines.into()
}

/// The body of the upload.
pub fn list_body(users: u32) -> Body {
    let first = (0..users).step_by(PIECE_LINES as usize);
    let pieces = first.map(move |first| Ok::<_, Infallible>(Frame::data(piece(first, users))));
    Body::wrap(StreamBody::new(stream::iter(pieces)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_list_has_each_user_once() {
        for users in [1, 1_000, 7_919, 15_838, 20_001] {
            let listed: BTreeSet<u64> = (0..users).map(|place| user_at(place, users)).collect();
            assert_eq!(listed, (1..=u64::from(users)).collect());
        }
        assert_eq!(piece(2, 4), "{\"userId\":3}\n{\"userId\":2}\n");
    }
}
