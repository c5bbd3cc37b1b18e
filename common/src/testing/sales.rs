use chrono::NaiveDate;

use crate::{
    domain::ranking::{LONGEST_WINDOW, WINDOWS, last_days, ranked, union},
    redis::{Redis, sales},
};

/// Expects windows up to `to`, each with what its days come to.
pub async fn expect_windows_of_days(redis: &Redis, to: NaiveDate, what: &str) {
    let mut days = Vec::new();
    for day in last_days(to, LONGEST_WINDOW.into()) {
        days.push(sales::daily(redis, day).await.expect("redis"));
    }
    for window in WINDOWS {
        let info = sales::window_info(redis, window).await.expect("redis").expect("a window");
        assert_eq!(info.to, to, "{what}: {window} days");
        let sold = union(&days[..usize::from(window)]);
        assert_eq!(sales::whole_window(redis, window).await.expect("redis"), sold, "{what}: {window} days");
        let best = sales::window(redis, window, 3).await.expect("redis");
        assert_eq!(best, ranked(&sold, 3), "{what}: the best of {window} days");
    }
}
