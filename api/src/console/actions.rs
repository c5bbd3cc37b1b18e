//! Who changed what.

use askama::Template;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    campaigns::Listed,
    forms::QueryFields,
    guard::Visit,
    page::{Failure, PageResult, Shell, render},
};

/// The longest value of a changed field that is shown, in characters.
const MAX_VALUE: usize = 80;
/// Changed fields that are shown of an action.
const MAX_FIELDS: usize = 12;

/// An action, as calls show it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ActionItem {
    pub actor: String,
    pub action: String,
    pub target_id: String,
    #[serde(default)]
    before: Map<String, Value>,
    #[serde(default)]
    after: Map<String, Value>,
    pub reason: Option<String>,
    pub request_id: String,
    pub created_at: DateTime<Utc>,
}

impl ActionItem {
    /// Each changed field: its name, and what it was and is.
    pub fn changes(&self) -> Vec<(String, String, String)> {
        let mut names: Vec<&String> = self.before.keys().chain(self.after.keys()).collect();
        names.sort();
        names.dedup();
        let text = |fields: &Map<String, Value>, name: &str| fields.get(name).map_or_else(String::new, short);
        let shown = names.into_iter().take(MAX_FIELDS);
        shown.map(|name| (name.clone(), text(&self.before, name), text(&self.after, name))).collect()
    }

    /// The page of what was changed, where there is one.
    pub fn target_path(&self) -> Option<String> {
        let (of, _) = self.action.split_once('.')?;
        let is_number = self.target_id.bytes().all(|byte| byte.is_ascii_digit());
        match of {
            "campaign" if is_number => Some(format!("/console/campaigns/{}", self.target_id)),
            "dead_letter" if is_number => Some(format!("/console/dead-letters/{}", self.target_id)),
            "product" if is_number => Some(format!("/console/products/{}", self.target_id)),
            "api_key" => Some("/console/keys".into()),
            "delivery" => Some("/console/delivery".into()),
            _ => None,
        }
    }
}

fn short(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match text.char_indices().nth(MAX_VALUE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[derive(Template)]
#[template(path = "actions.html")]
struct ActionsPage<'p> {
    s: &'p Shell,
    listed: &'p Listed<ActionItem>,
    next: Option<String>,
    actor: &'p str,
    action: &'p str,
    target: &'p str,
    is_filtered: bool,
}

pub async fn list(visit: Visit, QueryFields(query): QueryFields) -> PageResult {
    let shell = visit.shell("actions");
    let names = ["actor", "action", "targetId"];
    let filter = query.query(&names);
    let path = format!("/admin/actions?limit=30&{}", query.query(&["actor", "action", "targetId", "cursor"]));
    let fail = |problem| Failure(shell.clone(), problem);
    let listed: Listed<ActionItem> =
        visit.calls().map_err(fail)?.get(path.trim_end_matches('&')).await.map_err(fail)?;
    Ok(render(&ActionsPage {
        s: &shell,
        next: listed.next(&filter),
        listed: &listed,
        actor: query.text("actor"),
        action: query.text("action"),
        target: query.text("targetId"),
        is_filtered: !filter.is_empty(),
    }))
}
