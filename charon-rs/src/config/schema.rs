//! The keys of both files as a JSON Schema, for editors: they complete keys, show what these mean, and mark what no table knows.
//! What values may be is left to the checker, which knows more.

use serde_json::{Map, Value, json};

use super::auth_keys::AUTH_KEYS;
use super::bridge::BRIDGE_KEYS;
use super::child_keys::CHILD_KEYS;
use super::conn_keys::CONN_KEYS;
use super::connections::{ALSO, CHILD};
use super::daemon::DAEMON_KEYS;
use super::host_keys::{FILTER_KEYS, NAT_KEYS, ROUTE_KEYS};
use super::interface_keys::INTERFACE_KEYS;
use super::key_secrets::KEY_KEYS;
use super::keys::Key;
use super::policy_keys::{POLICY_KEYS, SPD_KEYS};
use super::pool::POOL_KEYS;
use super::sa_keys::SA_KEYS;
use super::sa_secrets::SA_SECRET_KEYS;
use super::secrets::{PPK_KEYS, SECRET_KEYS};
use super::shape_keys::SHAPE_KEYS;

/// The schema of `ipsec.toml`.
#[must_use]
pub fn schema() -> Value {
    let child = table([properties(CHILD_KEYS), properties(SHAPE_KEYS)]);
    let more = Map::from_iter([
        (ALSO.to_owned(), json!({"description": "Connections whose keys this one has as well."})),
        (CHILD.to_owned(), named(child)),
    ]);
    let keys = [properties(CONN_KEYS), properties(AUTH_KEYS), properties(CHILD_KEYS), properties(SHAPE_KEYS), more];
    document(
        "ipsec.toml of charon-rs",
        [
            ("daemon", table([properties(DAEMON_KEYS)])),
            ("interface", named(table([properties(INTERFACE_KEYS)]))),
            ("bridge", named(table([properties(BRIDGE_KEYS)]))),
            ("conn", named(table(keys))),
            ("pool", named(table([properties(POOL_KEYS)]))),
            ("sa", named(table([properties(SA_KEYS), properties(SHAPE_KEYS)]))),
            ("policy", named(table([properties(POLICY_KEYS)]))),
            ("spd", table([properties(SPD_KEYS)])),
            ("nat", named(table([properties(NAT_KEYS)]))),
            ("filter", named(table([properties(FILTER_KEYS)]))),
            ("route", named(table([properties(ROUTE_KEYS)]))),
        ],
    )
}

/// The schema of `ipsec.secrets.toml`.
#[must_use]
pub fn secrets_schema() -> Value {
    document(
        "ipsec.secrets.toml of charon-rs",
        [
            ("secret", named(table([properties(SECRET_KEYS)]))),
            ("ppk", named(table([properties(PPK_KEYS)]))),
            ("key", named(table([properties(KEY_KEYS)]))),
            ("pkcs12", named(table([properties(KEY_KEYS)]))),
            ("sa", named(table([properties(SA_SECRET_KEYS)]))),
        ],
    )
}

fn document<const N: usize>(title: &str, tables: [(&str, Value); N]) -> Value {
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": title,
        "type": "object",
        "additionalProperties": false,
        "properties": Map::from_iter(tables.map(|(name, table)| (name.to_owned(), table))),
    })
}

/// Tables of one kind, each with a name.
fn named(table: Value) -> Value {
    json!({"type": "object", "additionalProperties": table})
}

/// A table with these keys.
fn table<const N: usize>(keys: [Map<String, Value>; N]) -> Value {
    let properties: Map<String, Value> = keys.into_iter().flatten().collect();
    json!({"type": "object", "additionalProperties": false, "properties": properties})
}

/// The keys, each under all of its names.
fn properties<D>(keys: &[Key<D>]) -> Map<String, Value> {
    let names = |key: &Key<D>| std::iter::once(key.name).chain(key.also_called.iter().copied()).collect::<Vec<_>>();
    keys.iter().flat_map(|key| names(key).into_iter().map(|name| (name.to_owned(), property(key)))).collect()
}

fn property<D>(key: &Key<D>) -> Value {
    let description = format!("{}\n\nTakes: {}. Default: {}.", key.doc, key.takes, key.default);
    let mut property = Map::from_iter([("description".to_owned(), description.into())]);
    if key.takes == "`true` or `false`" {
        property.insert("type".to_owned(), "boolean".into());
    }
    Value::Object(property)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// What an editor would mark in a file: the places that the schema does not allow.
    fn marked(schema: &Value, value: &toml::Value, place: &str, found: &mut Vec<String>) {
        let toml::Value::Table(table) = value else {
            if schema["type"] == "object" || (schema["type"] == "boolean" && !value.is_bool()) {
                found.push(place.to_owned());
            }
            return;
        };
        for (key, inner) in table {
            let place = format!("{place}.{key}");
            match (&schema["properties"][key], &schema["additionalProperties"]) {
                (Value::Null, Value::Bool(false)) => found.push(place),
                (Value::Null, other) => marked(other, inner, &place, found),
                (known, _) => marked(known, inner, &place, found),
            }
        }
    }

    fn marks(schema: &Value, text: &str) -> Vec<String> {
        let mut found = Vec::new();
        marked(schema, &toml::from_str(text).unwrap(), "", &mut found);
        found
    }

    fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files(&path, found);
            // The lab's own files stand beside those of the gateways.
            } else if path.extension().is_some_and(|extension| extension == "toml") && !path.ends_with("scenario.toml")
            {
                found.push(path);
            }
        }
    }

    #[test]
    fn nothing_is_marked_in_a_good_file() {
        let mut all = Vec::new();
        files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../etc"), &mut all);
        assert!(all.len() > 20, "{}", all.len());
        for path in all {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let schema = if name.contains("secrets") { secrets_schema() } else { schema() };
            let found = marks(&schema, &std::fs::read_to_string(&path).unwrap());
            assert!(found.is_empty(), "{}: {found:?}", path.display());
        }
    }

    #[test]
    fn what_no_table_knows_is_marked() {
        let text = "[daemon]\nlogg = \"info\"\n[conn.net]\nright = \"192.0.2.1\"\nmobike = \"yes\"\n\
                    [conn.net.child.a]\nleftsubnet = \"10.0.0.0/8\"\nleft = \"192.0.2.2\"\n[con.net]\n";
        assert_eq!(marks(&schema(), text), [".con", ".conn.net.child.a.left", ".conn.net.mobike", ".daemon.logg"]);
        assert_eq!(marks(&secrets_schema(), "[secret.a]\npsk = \"x\"\npskk = \"y\"\n"), [".secret.a.pskk"]);
    }

    #[test]
    fn keys_say_what_they_mean() {
        let schema = schema();
        let text = &schema["properties"]["conn"]["additionalProperties"]["properties"]["right"]["description"];
        assert!(
            text.as_str().is_some_and(|text| text.contains("Where the peer is") && text.contains("Takes: address"))
        );
    }
}
