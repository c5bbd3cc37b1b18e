//! Charts as inline SVG. The policy of the pages allows no `style`, so everything is an attribute or a class.

use std::fmt::Write as _;

use super::words::Number;

/// A bar of `part` of `whole`, as wide as its place.
pub fn bar(part: impl Number, whole: impl Number, class: &str) -> String {
    let (part, whole) = (part.number().max(0), whole.number().max(1));
    let thousandths = (part * 1_000 / whole).min(1_000);
    format!(
        r#"<svg class="bar {class}" viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true"><rect class="whole" width="1000" height="10"/><rect class="part" width="{thousandths}" height="10"/></svg>"#
    )
}

/// One line over time, of several series on one scale. The first is also filled.
pub fn lines(series: &[(&str, Vec<u64>)]) -> String {
    const WIDTH: u64 = 600;
    const HEIGHT: u64 = 60;
    let top = series.iter().flat_map(|(_, values)| values).copied().max().unwrap_or(0).max(1);
    let mut svg =
        format!(r#"<svg class="lines" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" aria-hidden="true">"#);
    for (place, (class, values)) in series.iter().enumerate() {
        let last = values.len().saturating_sub(1).max(1) as u64;
        let mut points = String::new();
        for (x, value) in (0..).zip(values) {
            let y = HEIGHT - value * (HEIGHT - 2) / top - 1;
            let _never_fails = write!(points, "{},{y} ", x * WIDTH / last);
        }
        if place == 0 {
            let _never_fails =
                write!(svg, r#"<polygon class="{class}" points="0,{HEIGHT} {points}{WIDTH},{HEIGHT}"/>"#);
        }
        let _never_fails = write!(svg, r#"<polyline class="{class}" points="{points}"/>"#);
    }
    svg.push_str("</svg>");
    svg
}

/// A column for each value.
pub fn columns(values: &[i64]) -> String {
    let top = values.iter().copied().max().unwrap_or(0).max(1);
    let width = values.len().max(1) * 10;
    let mut svg =
        format!(r#"<svg class="columns" viewBox="0 0 {width} 60" preserveAspectRatio="none" aria-hidden="true">"#);
    for (place, value) in values.iter().enumerate() {
        let height = (value.max(&0) * 58 / top).max(1);
        let _never_fails =
            write!(svg, r#"<rect x="{}" y="{}" width="8" height="{height}"/>"#, place * 10 + 1, 60 - height);
    }
    svg.push_str("</svg>");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charts_stay_within_their_frame() {
        assert!(bar(5, 10, "").contains(r#"class="part" width="500""#));
        assert!(bar(11, 10, "").contains(r#"class="part" width="1000""#));
        assert!(bar(-1, 0, "").contains(r#"class="part" width="0""#));
        let drawn = lines(&[("a", vec![0, 10, 5]), ("b", vec![1])]);
        assert!(drawn.contains(r#"<polyline class="a" points="0,59 300,1 600,30 "/>"#), "{drawn}");
        assert!(lines(&[("a", vec![])]).ends_with("</svg>"));
        assert!(columns(&[0, 4]).contains(r#"<rect x="11" y="2" width="8" height="58"/>"#));
    }
}
