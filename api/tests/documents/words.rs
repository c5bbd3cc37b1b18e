//! Retired words: `docs/retired-words.txt` says which, and what to write instead.

use std::collections::HashMap;

use crate::{read, sources::files};

const LIST: &str = "docs/retired-words.txt";
const ENDINGS: [&str; 11] =
    [".rs", ".lua", ".sql", ".md", ".toml", ".yml", ".snap", ".bash", "openapi.json", "Makefile", "Dockerfile"];
/// Read whole: their files have no endings, or a search from the root passes them over.
const FOLDERS: [&str; 6] = ["scripts", "deploy", ".ci", ".config", ".cargo", ".github"];

struct Word<'t> {
    text: String,
    start: usize,
    end: usize,
    source: &'t str,
}

struct Retired {
    words: Vec<String>,
    /// Only with underscores: its words are common in sentences.
    is_identifier: bool,
    replacement: String,
}

/// Where a phrase is allowed all the same.
struct Exception {
    path: String,
    phrase: String,
}

#[test]
fn no_retired_word_is_used() {
    let (retired, exceptions) = list();
    let mut first_words: HashMap<&str, Vec<&Retired>> = HashMap::new();
    for entry in &retired {
        first_words.entry(&entry.words[0]).or_default().push(entry);
    }
    let mut found = Vec::new();
    for (path, text) in files(&[""], &ENDINGS).into_iter().chain(files(&FOLDERS, &[""])) {
        let words = words(&text);
        for at in 0..words.len() {
            for entry in first_words.get(words[at].text.as_str()).into_iter().flatten() {
                let phrase = entry.words.join(" ");
                let allowed = |exception: &Exception| {
                    path.starts_with(&exception.path) && (exception.phrase == "*" || exception.phrase == phrase)
                };
                if entry.is_at(&words[at..]) && !exceptions.iter().any(allowed) {
                    let line = text[..words[at].start].matches('\n').count() + 1;
                    found.push(format!("{path}:{line}: '{phrase}' is retired: write {}", entry.replacement));
                }
            }
        }
    }
    found.sort();
    found.dedup();
    assert!(found.is_empty(), "{} retired words ({LIST}):\n{}", found.len(), found.join("\n"));
}

#[test]
fn phrases_are_found_however_they_are_spelled() {
    let phrase = Retired::new("let go", "release");
    let identifier = Retired::new("in_words", "describe");
    let is_in = |phrase: &Retired, text| {
        let words = words(text);
        (0..words.len()).any(|at| phrase.is_at(&words[at..]))
    };
    for text in ["let_go", "LetGo", "LET_GO", "let go", "// it is let\n    /// go of"] {
        assert!(is_in(&phrase, text), "{text}");
    }
    for text in ["let. Go", "outlet go", "let us go", "let(go)"] {
        assert!(!is_in(&phrase, text), "{text}");
    }
    assert!(is_in(&identifier, "fn in_words()") && !is_in(&identifier, "the same in words"));
}

fn list() -> (Vec<Retired>, Vec<Exception>) {
    let (mut retired, mut exceptions) = (Vec::new(), Vec::new());
    for line in read(LIST).lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let cells: Vec<&str> = line.split('\t').collect();
        match cells[..] {
            ["allow", path, phrase, reason] if !reason.is_empty() => {
                exceptions.push(Exception { path: path.into(), phrase: phrase.into() });
            }
            [phrase, replacement] => {
                retired.push(Retired::new(phrase, replacement));
            }
            _ => panic!("{LIST}: expected PHRASE<tab>REPLACEMENT or allow<tab>PATH<tab>PHRASE<tab>REASON: {line}"),
        }
    }
    (retired, exceptions)
}

/// The words of a text in lower case. `LetGo`, `let_go` and "let go" are the same two.
fn words(source: &str) -> Vec<Word<'_>> {
    let mut words: Vec<Word<'_>> = Vec::new();
    let mut previous = ' ';
    for (at, c) in source.char_indices() {
        if c.is_ascii_alphabetic() {
            let camel = previous.is_ascii_lowercase() && c.is_ascii_uppercase();
            match words.last_mut() {
                Some(word) if word.end == at && !camel => {
                    word.text.push(c.to_ascii_lowercase());
                    word.end = at + 1;
                }
                _ => words.push(Word { text: c.to_ascii_lowercase().into(), start: at, end: at + 1, source }),
            }
        }
        previous = c;
    }
    words
}

impl Retired {
    fn new(phrase: &str, replacement: &str) -> Self {
        let text = |word: Word<'_>| word.text;
        let is_identifier = phrase.contains('_');
        Self { words: words(phrase).into_iter().map(text).collect(), is_identifier, replacement: replacement.into() }
    }

    /// Whether `words` begin with the phrase. Between its words may be blanks, underscores, hyphens and the marks of a
    /// comment that goes on in the next line.
    fn is_at(&self, words: &[Word<'_>]) -> bool {
        let between = if self.is_identifier { "_" } else { " _-\n\t/#!*" };
        words.len() >= self.words.len()
            && self.words.iter().zip(words).all(|(expected, word)| *expected == word.text)
            && words[..self.words.len()]
                .windows(2)
                .all(|pair| pair[0].source[pair[0].end..pair[1].start].chars().all(|c| between.contains(c)))
    }
}
