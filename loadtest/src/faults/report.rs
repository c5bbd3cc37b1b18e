use strum::IntoEnumIterator as _;

use super::{FaultKind, Injected, Planned};
use crate::output::Table;

/// Planned and injected faults.
pub fn render(schedule: &[Planned], injected: &[Injected]) -> String {
    let mut table = Table::new(&["fault", "planned", "injected", "busy worker", "after the load"], 1);
    for kind in FaultKind::iter() {
        let planned = schedule.iter().filter(|planned| planned.fault.kind() == kind).count();
        if planned == 0 {
            continue;
        }
        let count = |holds: fn(&Injected) -> bool| {
            injected.iter().filter(|fault| fault.kind == kind && holds(fault)).count().to_string()
        };
        let (all, busy, late) = (count(|_| true), count(|fault| fault.was_busy), count(|fault| fault.was_late));
        table.row([kind.describe(), &*planned.to_string(), &*all, &*busy, &*late]);
    }
    table.render("Faults")
}

#[cfg(test)]
mod tests {
    use super::{
        super::{FaultArguments, schedule},
        *,
    };

    #[test]
    fn faults_are_counted_by_their_kind() {
        let arguments = FaultArguments { worker_kills: 3, redis_kills: 1, ..FaultArguments::default() };
        let fault = |kind, was_busy, was_late| Injected { kind, was_busy, was_late };
        let injected = [
            fault(FaultKind::WorkerKill, true, false),
            fault(FaultKind::WorkerKill, false, false),
            fault(FaultKind::RedisKill, true, false),
            fault(FaultKind::WorkerKill, true, true),
        ];
        insta::assert_snapshot!(render(&schedule(&arguments, 100), &injected));
    }
}
