//! Schemas as generators of clients need them: one object where Rust flattens several, one name where it has generics.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{array, for_each_call, reference};

type Schemas = Map<String, Value>;

pub fn complete(document: &mut Value) {
    let mut schemas = match document["components"]["schemas"].take() {
        Value::Object(schemas) => schemas,
        _ => Schemas::new(),
    };
    let derived = schemas.clone();
    for schema in schemas.values_mut() {
        visit(schema, &mut |schema| merge(schema, &derived));
        visit(schema, &mut widen);
    }
    let lists = name_lists(&mut schemas);
    rename(&mut document["paths"], &lists);
    separate_requests(document, &mut schemas);
    for_each_parameter_schema(document, &mut widen);
    let used = reachable([&document["paths"]], &schemas);
    schemas.retain(|name, _| used.contains(name));
    document["components"]["schemas"] = schemas.into();
}

/// Calls `change` with every object of a tree, the innermost first.
fn visit(value: &mut Value, change: &mut impl FnMut(&mut Value)) {
    match value {
        Value::Object(members) => {
            members.values_mut().for_each(|member| visit(member, change));
            change(value);
        }
        Value::Array(items) => items.iter_mut().for_each(|item| visit(item, change)),
        _ => {}
    }
}

fn for_each_parameter_schema(document: &mut Value, change: &mut impl FnMut(&mut Value)) {
    visit(&mut document["paths"], &mut |value| {
        if value["in"].is_string() {
            visit(&mut value["schema"], change);
        }
    });
}

/// Makes one object of what Rust flattens into one. A part that is closed would refuse the fields of the others.
fn merge(schema: &mut Value, derived: &Schemas) {
    let Some(Value::Array(parts)) = schema.pointer_mut("/allOf").map(Value::take) else { return };
    let (mut properties, mut required) = (Schemas::new(), Vec::new());
    for mut part in parts {
        if let Some(named) = named(&part, derived) {
            part = named.clone();
            visit(&mut part, &mut |schema| merge(schema, derived));
        }
        if let Value::Object(members) = part["properties"].take() {
            properties.extend(members);
        }
        required.append(array(&mut part, "required"));
    }
    let description = schema["description"].take();
    *schema = json!({ "type": "object", "required": required, "properties": properties });
    if description.is_string() {
        schema["description"] = description;
    }
}

fn named<'s>(schema: &Value, schemas: &'s Schemas) -> Option<&'s Value> {
    schemas.get(name_of(schema)?)
}

fn name_of(schema: &Value) -> Option<&str> {
    schema["$ref"].as_str()?.strip_prefix("#/components/schemas/")
}

/// Numbers that 32 bits with a sign do not hold are of 64 bits: the types of Rust have no sign.
fn widen(schema: &mut Value) {
    let is_small = schema["maximum"].as_i64().is_some_and(|most| i32::try_from(most).is_ok());
    if schema["format"] == "int32" && !is_small && !schema["enum"].is_array() {
        schema["format"] = "int64".into();
    }
}

/// `List_Order_OrderId` becomes `OrderList`, with references to its items, and a cursor that is null on the last page.
/// Returns the old names with the new.
fn name_lists(schemas: &mut Schemas) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for old in schemas.keys().filter(|name| name.starts_with("List_")).cloned().collect::<Vec<_>>() {
        let [_, item, cursor] = old.split('_').collect::<Vec<_>>()[..] else { continue };
        let Some(mut list) = schemas.get(&old).cloned() else { continue };
        list["properties"]["items"]["items"] = reference("schemas", item);
        let mut next = schemas.get(cursor).cloned().unwrap_or_default();
        next["type"] = json!([next["type"], "null"]);
        next["description"] = "Asks for the next page; null on the last.".into();
        list["properties"]["nextCursor"] = next;
        array(&mut list, "required").push("nextCursor".into());
        let new = format!("{item}List");
        schemas.remove(&old);
        schemas.insert(new.clone(), list);
        names.insert(old, new);
    }
    names
}

fn rename(value: &mut Value, names: &BTreeMap<String, String>) {
    visit(value, &mut |schema| {
        if let Some(new) = name_of(schema).and_then(|old| names.get(old)) {
            *schema = reference("schemas", new);
        }
    });
}

/// A field that a response leaves out is not null. In a request null stands for a field that is left out, so a schema
/// of both that has such a field becomes two.
fn separate_requests(document: &mut Value, schemas: &mut Schemas) {
    let (mut requests, mut responses) = (Vec::new(), Vec::new());
    for calls in document["paths"].as_object().into_iter().flatten().map(|(_, calls)| calls) {
        for call in calls.as_object().into_iter().flatten().map(|(_, call)| call) {
            requests.push(&call["requestBody"]);
            responses.push(&call["responses"]);
        }
    }
    let (sent, answered) = (reachable(requests, schemas), reachable(responses, schemas));
    let mut inputs = BTreeMap::new();
    for (name, schema) in schemas.iter().filter(|(name, _)| answered.contains(*name)) {
        if sent.contains(name) && has_optional_null(schema) {
            inputs.insert(name.clone(), format!("{name}Input"));
        }
    }
    for (old, new) in &inputs {
        let copy = schemas.get(old).cloned().unwrap_or_default();
        schemas.insert(new.clone(), copy);
    }
    for_each_call(document, |call| {
        call.entry.pointer_mut("/requestBody").into_iter().for_each(|body| rename(body, &inputs));
    });
    for (name, schema) in schemas.iter_mut() {
        if answered.contains(name) {
            visit(schema, &mut without_optional_null);
        }
        if sent.contains(name) && !answered.contains(name) {
            rename(schema, &inputs);
        }
    }
}

/// The names of all schemas that lead from these places.
fn reachable<'v>(places: impl IntoIterator<Item = &'v Value>, schemas: &Schemas) -> BTreeSet<String> {
    fn collect(value: &Value, schemas: &Schemas, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                if let Some(name) = name_of(value)
                    && found.insert(name.to_owned())
                    && let Some(schema) = schemas.get(name)
                {
                    collect(schema, schemas, found);
                }
                members.values().for_each(|member| collect(member, schemas, found));
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, schemas, found)),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    places.into_iter().for_each(|place| collect(place, schemas, &mut found));
    found
}

fn has_optional_null(schema: &Value) -> bool {
    let mut without = schema.clone();
    visit(&mut without, &mut without_optional_null);
    without != *schema
}

fn without_optional_null(schema: &mut Value) {
    let required = schema["required"].clone();
    let properties = schema.pointer_mut("/properties").and_then(Value::as_object_mut);
    for (name, property) in properties.into_iter().flatten() {
        let is_required = required.as_array().is_some_and(|names| names.iter().any(|known| known == name));
        if !is_required {
            without_null(property);
        }
    }
}

/// Takes null out of a schema.
pub fn without_null(schema: &mut Value) {
    if let Value::Array(types) = &mut schema["type"] {
        types.retain(|kind| kind != "null");
        if let [only] = &types[..] {
            schema["type"] = only.clone();
        }
    }
    if let Value::Array(variants) = &mut schema["oneOf"] {
        variants.retain(|variant| variant["type"] != "null");
        if let [only] = &variants[..] {
            *schema = only.clone();
        }
    }
    if let Some(members) = schema.as_object_mut() {
        members.retain(|_, member| !member.is_null());
    }
}
