//! The order streams are drained, and no command is a dead letter.

use anyhow::Result;

use crate::{
    audit::Check,
    stores::{CommandsLeft, Stores},
};

pub async fn streams(stores: &Stores) -> Result<Check> {
    Ok(check(stores.commands_left().await?))
}

fn check(left: CommandsLeft) -> Check {
    let mut check = Check::new("drained");
    let mut none = |what: &str, count: u64| check.require(count == 0, || format!("{count} {what}"));
    none("entries are on the order streams", left.waiting);
    none("entries of order streams are pending", left.pending);
    none("commands are dead letters", left.dead);
    check.compared("order streams: no entry, no pending entry; dead letters: no command");
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_left_is_a_difference() {
        let differences = |waiting, pending, dead| check(CommandsLeft { waiting, pending, dead }).differences();
        assert_eq!(differences(0, 0, 0), 0);
        assert_eq!([differences(1, 0, 0), differences(0, 1, 0), differences(0, 0, 1)], [1, 1, 1]);
        let left = CommandsLeft { waiting: 1, pending: 2, dead: 3 };
        assert_eq!(check(left).examples()[2], "3 commands are dead letters");
        // A dead letter does not keep the audit waiting.
        assert!(!left.is_drained() && CommandsLeft { dead: 3, ..CommandsLeft::default() }.is_drained());
    }
}
