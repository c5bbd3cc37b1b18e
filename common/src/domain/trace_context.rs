use std::{
    fmt::{self, Display, Formatter},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A recorded span, so that what happens because of it joins its trace: W3C Trace Context, level 1, whose header
/// `traceparent` is its display.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
}

/// What a `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceParent {
    Sampled(TraceContext),
    /// Its sender does not record the trace.
    NotSampled,
}

impl FromStr for TraceParent {
    type Err = &'static str;

    /// As the specification says, what later versions append is passed over.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected version, trace id, parent id and flags in lower-case hexadecimal";
        let mut parts = text.split('-');
        let mut next = |digits| parts.next().filter(|part| part.len() == digits).and_then(hexadecimal).ok_or(EXPECTED);
        let (version, trace_id, span_id, flags) = (next(2)?, next(32)?, next(16)?, next(2)?);
        let is_version = version < 0xff && (version > 0 || parts.next().is_none());
        if !is_version || trace_id == 0 || span_id == 0 {
            return Err(EXPECTED);
        }
        if flags & 1 == 0 {
            return Ok(Self::NotSampled);
        }
        let span_id = u64::try_from(span_id).map_err(|_| EXPECTED)?;
        Ok(Self::Sampled(TraceContext { trace_id: trace_id.to_be_bytes(), span_id: span_id.to_be_bytes() }))
    }
}

fn hexadecimal(digits: &str) -> Option<u128> {
    let is_lower = digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    is_lower.then(|| u128::from_str_radix(digits, 16).ok())?
}

impl Display for TraceContext {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (trace_id, span_id) = (u128::from_be_bytes(self.trace_id), u64::from_be_bytes(self.span_id));
        write!(f, "00-{trace_id:032x}-{span_id:016x}-01")
    }
}

impl Serialize for TraceContext {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TraceContext {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.parse() {
            Ok(TraceParent::Sampled(context)) => Ok(context),
            Ok(TraceParent::NotSampled) => Err(D::Error::custom("expected a sampled trace")),
            Err(expected) => Err(D::Error::custom(expected)),
        }
    }
}

/// A context in an entry, or none where this version cannot read it: a trace must not cost a command.
pub fn lenient<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<TraceContext>, D::Error> {
    let context = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(context).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_context_is_read_from_its_display() {
        let Ok(TraceParent::Sampled(context)) = SAMPLED.parse() else { panic!("sampled") };
        assert_eq!(context.to_string(), SAMPLED);
        let json = serde_json::to_string(&context).expect("JSON");
        assert_eq!(serde_json::from_str::<TraceContext>(&json).expect("a context"), context);
        let later = SAMPLED.replacen("00-", "cc-", 1) + "-what-the-future-will-be-like";
        assert_eq!(later.parse(), Ok(TraceParent::Sampled(context)));
    }

    #[test]
    fn a_context_that_cannot_be_read_is_none() {
        #[derive(Deserialize)]
        struct Entry {
            #[serde(default, deserialize_with = "lenient")]
            trace: Option<TraceContext>,
        }
        let read = |trace: serde_json::Value| {
            serde_json::from_value::<Entry>(serde_json::json!({ "trace": trace })).expect("an entry").trace
        };
        assert_eq!(read(SAMPLED.into()).map(|context| context.to_string()).as_deref(), Some(SAMPLED));
        for other in [serde_json::json!(null), "".into(), 7.into(), serde_json::json!({"id": SAMPLED})] {
            assert_eq!(read(other), None);
        }
        assert_eq!(serde_json::from_str::<Entry>("{}").expect("an entry").trace, None);
    }

    #[test]
    fn what_is_not_sampled_or_not_valid_is_no_context() {
        let not_sampled = SAMPLED.replace("-01", "-00");
        assert_eq!(not_sampled.parse(), Ok(TraceParent::NotSampled));
        serde_json::from_value::<TraceContext>(not_sampled.into()).expect_err("not sampled");
        let (upper, version, longer) =
            (SAMPLED.to_uppercase(), SAMPLED.replacen("00", "ff", 1), format!("{SAMPLED}-more"));
        let no_trace = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
        let no_span = "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01";
        for wrong in ["", "00", &upper, &version, &longer, no_trace, no_span, &SAMPLED[..54], "é"] {
            wrong.parse::<TraceParent>().expect_err(wrong);
        }
    }
}
