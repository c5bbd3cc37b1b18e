//! Text that people read: names of products and campaigns, and the like.

use super::FieldError;

/// Characters that show nothing, besides white space and control characters.
const INVISIBLE: &[(char, char)] = &[
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{2800}', '\u{2800}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff9}', '\u{fffb}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e0fff}'),
];

/// Text as it is stored: without white space around it. A line feed is not white space here, but an error.
pub fn trimmed(text: &str) -> &str {
    text.trim_matches(|character: char| character.is_whitespace() && !character.is_control())
}

/// What is wrong with the text of a field that has 1 to `longest` characters.
pub fn text_error(field: &'static str, text: &str, longest: usize) -> Option<FieldError> {
    // Characters and not bytes, as columns count: a Korean letter has three bytes.
    let characters = trimmed(text).chars().count();
    if !(1..=longest).contains(&characters) {
        return Some(FieldError::new(field, format!("expected 1 to {longest} characters")));
    }
    if let Some(refused) = text.chars().find(|character| is_refused(*character)) {
        let message = format!("expected no control characters, got U+{:04X}", u32::from(refused));
        return Some(FieldError::new(field, message));
    }
    text.chars().all(is_invisible).then(|| FieldError::new(field, "expected a visible character"))
}

/// Control characters break lines and terminals. Bidirectional overrides show other text than is stored.
fn is_refused(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn is_invisible(character: char) -> bool {
    character.is_whitespace() || INVISIBLE.iter().any(|(first, last)| (*first..=*last).contains(&character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_visible_and_has_no_control_characters() {
        let error = |text: &str| text_error("name", text, 10).map(|error| error.message);
        for text in ["coffee", " 커피 ", "\u{1f468}\u{200d}\u{1f469}", "a\u{3164}", "שלום"] {
            assert_eq!(error(text), None, "{text:?}");
        }
        for text in ["", "   ", "12345678901"] {
            assert_eq!(error(text).as_deref(), Some("expected 1 to 10 characters"), "{text:?}");
        }
        for (text, shown) in [("a\0b", "U+0000"), ("a\n", "U+000A"), ("a\u{202e}b", "U+202E"), ("\u{85}a", "U+0085")] {
            assert_eq!(error(text), Some(format!("expected no control characters, got {shown}")), "{text:?}");
        }
        for text in ["\u{3164}", "\u{200b}\u{200d}", "\u{2800} \u{feff}", "\u{115f}"] {
            assert_eq!(error(text).as_deref(), Some("expected a visible character"), "{text:?}");
        }
    }
}
