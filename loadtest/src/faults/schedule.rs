use strum::IntoEnumIterator as _;

use super::{Fault, FaultArguments, FaultKind};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    pub fault: Fault,
    /// The position of the load at which it is due.
    pub due: u64,
}

/// Spreads the faults over a load of this length. Kinds of which there are equally many take turns.
pub fn schedule(arguments: &FaultArguments, length: u64) -> Vec<Planned> {
    let kinds: Vec<FaultKind> = FaultKind::iter().filter(|kind| arguments.count(*kind) > 0).collect();
    let of_kind = |(place, kind): (usize, &FaultKind)| {
        let (kind, count, kinds) = (*kind, arguments.count(*kind), kinds.len() as u64);
        (0..count).map(move |number| Planned {
            fault: kind.number(number),
            due: length * (number * kinds + place as u64 + 1) / (count * kinds + 1),
        })
    };
    let mut schedule: Vec<Planned> = kinds.iter().enumerate().flat_map(of_kind).collect();
    schedule.sort_by_key(|planned| planned.due);
    schedule
}

/// When the fault after the one at `place` is due; for ever after the last one.
pub(super) fn next_due(schedule: &[Planned], place: usize) -> u64 {
    let due = schedule[place].due;
    let next = schedule[place + 1..].iter().find(|next| next.due > due);
    next.map_or(u64::MAX, |next| next.due)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Cut, Server},
        *,
    };
    use crate::processes::Program;

    fn arguments(worker_kills: u64, redis_kills: u64) -> FaultArguments {
        FaultArguments { worker_kills, redis_kills, ..FaultArguments::default() }
    }

    #[test]
    fn faults_are_spread_over_the_load_and_kinds_take_turns() {
        let kinds_and_due = |arguments, length| {
            let schedule = schedule(&arguments, length);
            schedule.iter().map(|planned| (planned.fault.kind(), planned.due)).collect::<Vec<_>>()
        };
        let (worker, redis) = (FaultKind::WorkerKill, FaultKind::RedisKill);
        assert_eq!(kinds_and_due(arguments(2, 2), 50), [(worker, 10), (redis, 20), (worker, 30), (redis, 40)]);
        assert_eq!(kinds_and_due(arguments(3, 0), 100), [(worker, 25), (worker, 50), (worker, 75)]);
        assert_eq!(kinds_and_due(arguments(0, 0), 100), []);
    }

    #[test]
    fn the_load_may_go_on_up_to_the_next_later_fault() {
        let fault = Fault::RedisKill;
        let schedule = [25, 50, 50, 75].map(|due| Planned { fault, due });
        let limits: Vec<u64> = (0..schedule.len()).map(|place| next_due(&schedule, place)).collect();
        assert_eq!(limits, [50, 75, 75, u64::MAX]);
    }

    #[test]
    fn freezes_hit_both_programs_and_cuts_both_servers_in_each_way() {
        let arguments = FaultArguments { freezes: 2, cuts: 6, ..FaultArguments::default() };
        let faults: Vec<Fault> = schedule(&arguments, 1000).iter().map(|planned| planned.fault).collect();
        for program in [Program::Api, Program::Worker] {
            assert!(faults.contains(&Fault::Freeze(program)));
        }
        for cut in [Cut::Break, Cut::Silence, Cut::Forget] {
            assert!(faults.contains(&Fault::Cut(Server::Database, cut)), "{faults:?}");
            assert!(faults.contains(&Fault::Cut(Server::Redis, cut)), "{faults:?}");
        }
    }
}
