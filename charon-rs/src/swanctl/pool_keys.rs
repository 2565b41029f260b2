//! The keys of `pools.NAME`.

use ike_proto::config::Pool;

use super::keys::Value;
use crate::config::values::pool::{PoolAddresses, addresses, attribute, kinds};
use crate::vici::Message;

/// The key of the addresses.
pub(crate) const ADDRESSES: &str = "addrs";

/// Reads a pool.
///
/// # Errors
/// What is wrong with it, as strongSwan says it.
pub(crate) fn read_pool(name: &str, section: &Message) -> Result<Pool, String> {
    let (mut found, mut attributes) = (None, Vec::new());
    for (key, _) in section.entries() {
        let values = Value::of(section, key).map_or_else(|| Ok(Vec::new()), Value::items)?;
        if key == ADDRESSES {
            let text = values.join(",");
            found = Some(addresses(&text).map_err(|_| format!("invalid addrs value: {text}"))?);
            continue;
        }
        for value in values {
            match attribute(key, &value) {
                Some(Ok(attribute)) => attributes.push(attribute),
                Some(Err(_)) => return Err(format!("invalid attribute value for {key}")),
                None => return Err(format!("invalid attribute: {key}")),
            }
        }
    }
    let PoolAddresses { base, addresses } = found.ok_or_else(|| format!("missing addrs for pool '{name}'"))?;
    Ok(Pool { name: name.to_owned(), base, addresses, attributes })
}

/// For the reference.
pub(super) fn reference() -> String {
    let mut text = "\n### `pools.NAME`\n\n| key | takes | without it | in ipsec.toml |\n|---|---|---|---|\n".to_owned();
    text.push_str("| `addrs` | network, range or address | it must be there | `addrs` |\n");
    for kind in kinds() {
        let takes = match kind {
            "subnet" | "split_include" | "split_exclude" => "networks",
            "domain" => "domains (RFC 8598)",
            _ => "addresses",
        };
        let toml = if is_in_toml(kind) { format!("`{kind}`") } else { String::new() };
        text.push_str(&format!("| `{kind}` | {takes} | clients are not told | {toml} |\n"));
    }
    text.push_str("| a number | addresses, networks or text | clients are not told |  |\n");
    text
}

/// Whether `[pool.NAME]` has a key of this name, too.
pub(crate) fn is_in_toml(kind: &str) -> bool {
    !matches!(kind, "server" | "split_include" | "split_exclude") && kinds().any(|known| known == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As strongSwan 5.9.8 answers.
    #[test]
    fn what_is_wrong_is_told_in_strongswans_words() {
        let refused = |section: Message| read_pool("rw", &section).unwrap_err();
        assert_eq!(refused(Message::new().with("addrs", "nonsense")), "invalid addrs value: nonsense");
        assert_eq!(refused(Message::new().with("dns", "10.0.0.1")), "missing addrs for pool 'rw'");
        let rest = |key: &str, value: &str| Message::new().with("addrs", "10.3.0.0/24").with(key, value);
        assert_eq!(refused(rest("dns", "foo")), "invalid attribute value for dns");
        assert_eq!(refused(rest("nonsense", "1")), "invalid attribute: nonsense");
        assert_eq!(read_pool("rw", &rest("dns", "10.2.0.1,10.2.0.2")).unwrap().attributes.len(), 2);
    }
}
