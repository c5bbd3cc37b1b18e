//! Comparison of secrets.

use aws_lc_rs::constant_time::verify_slices_are_equal;

/// Compares in a time that does not depend on where the two differ. It may depend on their lengths.
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    verify_slices_are_equal(a, b).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_equal_texts_are_equal() {
        assert!(constant_time_eq(b"token", b"token"));
        assert!(constant_time_eq(b"", b""));
        for other in [&b""[..], b"toke", b"tokem", b"uoken", b"tokens"] {
            assert!(!constant_time_eq(other, b"token"), "{other:?}");
        }
    }
}
