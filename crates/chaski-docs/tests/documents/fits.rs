//! Whether a value is what a schema of the document says: the part of JSON Schema that the document
//! uses, where a field that is not named is an error.

use serde_json::{Map, Value};

/// Where and how the value differs.
pub(crate) fn check(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let alternatives = flatten(document, schema);
    let tried = alternatives.iter().map(|one| fields(document, one, value));
    let mut wrong = Vec::new();
    for outcome in tried {
        match outcome {
            Ok(()) => return Ok(()),
            Err(why) => wrong.push(why),
        }
    }
    Err(wrong.join(", or "))
}

/// The alternatives of a schema, each without references and with its parts joined.
fn flatten(document: &Value, schema: &Value) -> Vec<Value> {
    if let Some(link) = schema.get("$ref") {
        let place = link.as_str().and_then(|link| link.strip_prefix('#'));
        let target = place.and_then(|place| document.pointer(place)).expect("it leads somewhere");
        return flatten(document, target);
    }
    if let Some(choice) = schema.get("oneOf").and_then(Value::as_array) {
        return choice.iter().flat_map(|one| flatten(document, one)).collect();
    }
    if let Some(parts) = schema.get("allOf").and_then(Value::as_array) {
        let mut joined = serde_json::json!({"type": "object", "properties": {}, "required": []});
        for part in parts.iter().flat_map(|part| flatten(document, part)) {
            let properties = part["properties"].as_object().cloned().unwrap_or_default();
            let all = joined["properties"].as_object_mut().expect("made above");
            all.extend(properties);
            let required = part["required"].as_array().cloned().unwrap_or_default();
            joined["required"].as_array_mut().expect("made above").extend(required);
        }
        return vec![joined];
    }
    vec![schema.clone()]
}

fn fields(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let allowed = |kind: &Value| match (kind.as_str(), value) {
        (Some("object"), Value::Object(_))
        | (Some("array"), Value::Array(_))
        | (Some("string"), Value::String(_))
        | (Some("boolean"), Value::Bool(_)) => true,
        (Some("integer"), Value::Number(number)) => number.is_i64() || number.is_u64(),
        _ => false,
    };
    let right = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().any(allowed),
        kind => allowed(kind),
    };
    let listed = schema["enum"].as_array().is_none_or(|values| values.contains(value));
    if !right || !listed {
        return Err(format!("{value} is not {schema}"));
    }
    if let Value::Array(items) = value {
        return items.iter().try_for_each(|item| check(document, &schema["items"], item));
    }
    let Value::Object(object) = value else { return Ok(()) };
    let none = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&none);
    for (name, value) in object {
        let property =
            properties.get(name).ok_or_else(|| format!("{name} is not in the schema"))?;
        check(document, property, value).map_err(|why| format!("{name}: {why}"))?;
    }
    let required = schema["required"].as_array().into_iter().flatten();
    let missing = required.filter_map(Value::as_str).find(|name| !object.contains_key(*name));
    missing.map_or(Ok(()), |name| Err(format!("{name} is missing")))
}
