//! Texts in the language of the browser, and numbers and times as the shop writes them. `api/texts/` has one file for
//! each language: lines of KEY = TEXT, in which `{0}` and `{1}` stand for values.

use std::{collections::HashMap, sync::LazyLock};

use axum::http::{HeaderMap, header};
use chrono::{DateTime, Offset as _, TimeDelta, Utc};
use chrono_tz::Tz;
use dibs_common::clock::Timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    English,
    Korean,
}

type Texts = HashMap<&'static str, &'static str>;

static ENGLISH: LazyLock<Texts> = LazyLock::new(|| read(include_str!("../../texts/en.txt")));
static KOREAN: LazyLock<Texts> = LazyLock::new(|| read(include_str!("../../texts/ko.txt")));

fn read(file: &'static str) -> Texts {
    let lines = file.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once('=')).map(|(key, text)| (key.trim(), text.trim())).collect()
}

impl Language {
    pub const ALL: [Self; 2] = [Self::English, Self::Korean];

    /// The first that is known of `Accept-Language`, by weight.
    fn of(headers: &HeaderMap) -> Self {
        let ranges = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let mut best = (0.0, Self::English);
        for range in ranges.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let language = match parts.next().unwrap_or_default().split('-').next() {
                Some(name) if name.eq_ignore_ascii_case("ko") => Self::Korean,
                Some(name) if name.eq_ignore_ascii_case("en") => Self::English,
                _ => continue,
            };
            let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok()).unwrap_or(1.0);
            // Of equal weights, the first.
            if weight > best.0 {
                best = (weight, language);
            }
        }
        best.1
    }

    fn texts(self) -> &'static Texts {
        match self {
            Self::English => &ENGLISH,
            Self::Korean => &KOREAN,
        }
    }
}

/// Everything that a template needs to speak.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    pub language: Language,
    pub zone: Tz,
    /// When the page is rendered.
    pub now: Timestamp,
}

impl Words {
    pub fn of(headers: &HeaderMap, zone: Tz, now: Timestamp) -> Self {
        Self { language: Language::of(headers), zone, now }
    }

    pub const fn code(&self) -> &'static str {
        match self.language {
            Language::English => "en",
            Language::Korean => "ko",
        }
    }

    /// The text of a key; the key itself where a text is missing, which a test excludes.
    pub fn t<'k>(&self, key: &'k str) -> &'k str {
        self.language.texts().get(key).copied().unwrap_or(key)
    }

    /// The text of `PREFIX.NAME` in lower case; the name itself where there is none.
    pub fn named(&self, prefix: &str, name: &str) -> String {
        let key = format!("{prefix}.{}", name.to_lowercase());
        self.language.texts().get(key.as_str()).map_or_else(|| name.to_owned(), |text| (*text).to_owned())
    }

    pub fn is(&self, one: &str, other: &str) -> bool {
        one == other
    }

    /// The attribute of the option that is chosen.
    pub fn selected(&self, option: &str, chosen: &str) -> &'static str {
        if option == chosen { " selected" } else { "" }
    }

    /// The class of a status: good, warn, bad or plain.
    pub fn tone(&self, status: &str) -> &'static str {
        match status {
            "OPEN" | "PAY_DONE" | "BUY_CONFIRM" | "SENT" | "DONE" | "SELLING" | "usable" | "issued" | "accepted" => {
                "good"
            }
            "PAUSED" | "REDRIVE" | "EXPIRED" | "CANCELLED" | "expired" | "revoked" | "failed" => "warn",
            "DEAD" | "REJECTED" | "FAIL" | "refused" | "rejected" => "bad",
            _ => "plain",
        }
    }

    /// A text with a value for `{0}`.
    pub fn t1(&self, key: &str, value: impl std::fmt::Display) -> String {
        self.t(key).replace("{0}", &value.to_string())
    }

    pub fn t2(&self, key: &str, first: impl std::fmt::Display, second: impl std::fmt::Display) -> String {
        self.t1(key, first).replace("{1}", &second.to_string())
    }

    /// A number in groups of three digits.
    pub fn num(&self, number: impl Number) -> String {
        let number = number.number();
        let digits = number.unsigned_abs().to_string();
        let mut text = if number < 0 { "-".to_owned() } else { String::new() };
        for (place, digit) in digits.chars().enumerate() {
            if place > 0 && (digits.len() - place).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        text
    }

    /// An amount of money.
    pub fn won(&self, amount: impl Number) -> String {
        self.t1("unit.won", self.num(amount))
    }

    /// A day and a time to the second, in the business time zone.
    pub fn time(&self, at: &DateTime<Utc>) -> String {
        at.with_timezone(&self.zone).format("%Y-%m-%d %H:%M:%S").to_string()
    }

    pub fn maybe_time(&self, at: &Option<DateTime<Utc>>) -> String {
        at.as_ref().map_or_else(|| "–".to_owned(), |at| self.time(at))
    }

    /// The same to the minute, without the year where it is this one.
    pub fn minute(&self, at: &DateTime<Utc>) -> String {
        let (local, now) = (at.with_timezone(&self.zone), self.now.with_timezone(&self.zone));
        let format = if local.format("%Y").to_string() == now.format("%Y").to_string() {
            "%m-%d %H:%M"
        } else {
            "%Y-%m-%d %H:%M"
        };
        local.format(format).to_string()
    }

    pub fn clock(&self, at: &DateTime<Utc>) -> String {
        at.with_timezone(&self.zone).format("%H:%M:%S").to_string()
    }

    /// For the field of a form.
    pub fn local_input(&self, at: &DateTime<Utc>) -> String {
        at.with_timezone(&self.zone).format("%Y-%m-%dT%H:%M").to_string()
    }

    pub fn machine_time(&self, at: &DateTime<Utc>) -> String {
        dibs_common::clock::text(*at)
    }

    /// Such as `Asia/Seoul (UTC+9)`.
    pub fn zone_name(&self) -> String {
        let seconds = self.now.with_timezone(&self.zone).offset().fix().local_minus_utc();
        let (hours, minutes) = (seconds.abs() / 3_600, seconds.abs() % 3_600 / 60);
        let sign = if seconds < 0 { '−' } else { '+' };
        let minutes = if minutes == 0 { String::new() } else { format!(":{minutes:02}") };
        format!("{} (UTC{sign}{hours}{minutes})", self.zone.name())
    }

    /// How long ago.
    pub fn ago(&self, at: &DateTime<Utc>) -> String {
        self.t1("time.ago", self.duration(self.now - *at))
    }

    /// How long until then, or since then.
    pub fn until(&self, at: &DateTime<Utc>) -> String {
        let left = *at - self.now;
        if left < TimeDelta::zero() { self.ago(at) } else { self.t1("time.in", self.duration(left)) }
    }

    /// The two largest units of a duration.
    pub fn duration(&self, duration: TimeDelta) -> String {
        let seconds = duration.num_seconds().max(0);
        let unit = |key: &str, count: i64| self.t1(key, count);
        let parts = match seconds {
            0..60 => vec![unit("time.s", seconds)],
            60..3_600 => vec![unit("time.m", seconds / 60), unit("time.s", seconds % 60)],
            3_600..86_400 => vec![unit("time.h", seconds / 3_600), unit("time.m", seconds % 3_600 / 60)],
            _ => vec![unit("time.d", seconds / 86_400), unit("time.h", seconds % 86_400 / 3_600)],
        };
        parts.join(" ")
    }

    /// Milliseconds, from a second on in seconds.
    pub fn millis(&self, millis: impl Number) -> String {
        match millis.number() {
            millis @ ..1_000 => self.t1("time.ms", millis),
            millis => {
                let tenths = millis / 100;
                self.t1("time.s", format!("{}.{}", tenths / 10, tenths % 10))
            }
        }
    }
}

/// A number that templates show.
pub trait Number: Copy {
    fn number(&self) -> i128;
}

macro_rules! numbers {
    ($($kind:ty),*) => { $(impl Number for $kind {
        fn number(&self) -> i128 {
            i128::try_from(*self).unwrap_or(i128::MAX)
        }
    })* };
}

numbers!(u8, u16, u32, u64, usize, i32, i64, i128);

impl<N: Number> Number for &N {
    fn number(&self) -> i128 {
        (**self).number()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use chrono_tz::{
        Asia::{Kolkata, Seoul},
        UTC,
    };
    use dibs_common::{
        clock::from_millis,
        domain::{
            access::Scope, audit::DifferenceKind, campaign::CampaignStatus, dead_letter::DeadLetterStatus,
            order::OrderStatus, product::ProductStatus, timeline::TimelineKind,
        },
    };
    use strum::VariantArray as _;

    use super::*;

    fn words(language: Language) -> Words {
        Words { language, zone: Seoul, now: from_millis(1_790_000_000_000) }
    }

    fn keys(language: Language) -> BTreeSet<&'static str> {
        language.texts().keys().copied().collect()
    }

    #[test]
    fn both_languages_have_the_same_texts_with_the_same_places() {
        assert_eq!(keys(Language::English), keys(Language::Korean));
        for (key, text) in Language::English.texts() {
            let korean = Language::Korean.texts()[key];
            for place in ["{0}", "{1}"] {
                assert_eq!(text.contains(place), korean.contains(place), "{key}: {place}");
            }
            assert!(!text.is_empty() && !korean.is_empty(), "{key}");
        }
    }

    /// A text is named by a literal in a template or source.
    #[test]
    fn every_text_that_is_named_exists() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let files = ["templates", "src/console"]
            .into_iter()
            .flat_map(|name| fs::read_dir(folder.join(name)).expect("a folder"));
        let known = keys(Language::English);
        let mut named = 0;
        for file in files {
            let path = file.expect("a file").path();
            let source = fs::read_to_string(&path).expect("text");
            let source = source.split("#[cfg(test)]").next().expect("a part");
            for call in [".t(\"", ".t1(\"", ".t2(\""] {
                for part in source.split(call).skip(1) {
                    let key = part.split('"').next().expect("a key");
                    named += 1;
                    assert!(known.contains(key), "{key} in {}", path.display());
                }
            }
        }
        assert!(named > 100, "{named}");
    }

    /// What is named by a status or kind, in lower case.
    #[test]
    fn every_status_and_kind_has_a_text() {
        let scopes = Scope::VARIANTS.iter().map(|scope| ("scope", scope.into_str()));
        let campaigns = CampaignStatus::VARIANTS.iter().map(|status| ("status", status.into_str()));
        let orders = OrderStatus::VARIANTS.iter().map(|status| ("order", status.into_str()));
        let letters = DeadLetterStatus::VARIANTS.iter().map(|status| ("letter", status.into_str()));
        let products = ProductStatus::VARIANTS.iter().map(|status| ("product", status.into_str()));
        let stories = TimelineKind::VARIANTS.iter().map(|kind| ("kind", kind.into_str()));
        let differences = DifferenceKind::VARIANTS.iter().map(|kind| ("difference", kind.into_str()));
        let all =
            scopes.chain(campaigns).chain(orders).chain(letters).chain(products).chain(stories).chain(differences);
        let words = words(Language::Korean);
        for (prefix, name) in all {
            assert_ne!(words.named(prefix, name), name, "{prefix}");
        }
        assert_eq!(words.named("status", "UNKNOWN"), "UNKNOWN");
    }

    #[test]
    fn the_language_is_the_one_that_the_browser_prefers() {
        let of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_LANGUAGE, value.parse().expect("a value"));
            Language::of(&headers)
        };
        assert_eq!(of("ko-KR,ko;q=0.9,en;q=0.8"), Language::Korean);
        assert_eq!(of("en-US,en;q=0.9,ko;q=0.8"), Language::English);
        assert_eq!(of("fr,ko;q=0.1"), Language::Korean);
        assert_eq!(of("fr"), Language::English);
        assert_eq!(Language::of(&HeaderMap::new()), Language::English);
    }

    #[test]
    fn numbers_times_and_durations_are_readable() {
        let words = words(Language::English);
        assert_eq!(
            (words.num(0), words.num(1_234_567), words.num(-1_000_i64)),
            ("0".into(), "1,234,567".into(), "-1,000".into())
        );
        assert_eq!(words.time(&from_millis(1_790_000_000_000)), "2026-09-21 23:13:20");
        assert_eq!(words.zone_name(), "Asia/Seoul (UTC+9)");
        assert_eq!(Words { zone: Kolkata, ..words }.zone_name(), "Asia/Kolkata (UTC+5:30)");
        assert_eq!(Words { zone: UTC, ..words }.zone_name(), "UTC (UTC+0)");
        let duration = |seconds| words.duration(TimeDelta::seconds(seconds));
        assert_eq!(
            [duration(5), duration(65), duration(3_660), duration(90_000)],
            ["5 s", "1 min 5 s", "1 h 1 min", "1 d 1 h"]
        );
        assert_eq!([words.millis(20), words.millis(1_250)], ["20 ms", "1.2 s"]);
        assert_eq!(Words { language: Language::Korean, ..words }.won(5_000), "5,000원");
    }
}
