use dibs_common::{
    db::{self, Database, orders::AwaitedCommand},
    domain::order::OrderOutcome,
    error::Result,
    identifiers::CommandId,
    redis::streams::OrderOutcomeMessage,
};

use crate::outcome_waiters::{AwaitedOutcome, LOOK_UP_TIMEOUT};

impl AwaitedOutcome for OrderOutcome {
    type Id = CommandId;
    type Subject = AwaitedCommand;
    const KIND: &'static str = "command";

    fn id(command: &AwaitedCommand) -> CommandId {
        command.id
    }

    fn decode_all(message: &[u8]) -> impl Iterator<Item = (CommandId, Self)> {
        OrderOutcomeMessage::read_all(message).into_iter().map(|message| (message.command, message.outcome))
    }

    async fn look_up(database: &Database, commands: &[AwaitedCommand]) -> Result<Vec<(CommandId, Self)>> {
        db::within_limit(LOOK_UP_TIMEOUT, db::orders::find_outcomes(&database.pool(), commands)).await
    }
}
