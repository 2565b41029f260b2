//! What a dataplane left in the host's network stack, for whoever wants to know, or to be rid of it.

use std::io;

use tunnels::nft::Nft;
use tunnels::{Family, LongestMatch, Netlink, NetworkState, TABLE};

use crate::control::is_steering;
use crate::{DataplaneSettings, StartError};

/// What keeps packets from passing the tunnels by, in the network namespace of the calling thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftovers {
    /// Whether our table of nftables is there.
    pub table: bool,
    /// The rules and blackholes, as `ip` would name them.
    pub lines: Vec<String>,
}

impl Leftovers {
    /// Looks what is there.
    ///
    /// # Errors
    /// [`StartError`] when the kernel does not say.
    pub fn find(settings: &DataplaneSettings) -> Result<Self, StartError> {
        blocking(async {
            let state = find(&Netlink::open()?, settings).await?;
            let table = Nft.has(TABLE).await.map_err(|error| failed(&error))?;
            Ok(Self { table, lines: lines(&state) })
        })
    }

    /// Takes it away and says what it was. Only for when no dataplane runs with these settings.
    ///
    /// # Errors
    /// [`StartError`] when the kernel does not say what is there, or keeps our table.
    pub fn remove(settings: &DataplaneSettings) -> Result<Self, StartError> {
        blocking(async {
            let netlink = Netlink::open()?;
            let mut state = find(&netlink, settings).await?;
            let lines = lines(&state);
            let table = Nft.has(TABLE).await.map_err(|error| failed(&error))?;
            if table {
                Nft.remove(TABLE).await.map_err(|error| failed(&error))?;
            }
            netlink.clear(&mut state, &NetworkState::default()).await;
            Ok(Self { table, lines })
        })
    }
}

async fn find(netlink: &Netlink, settings: &DataplaneSettings) -> Result<NetworkState, StartError> {
    let DataplaneSettings { table, rule_priority: priority, mark, .. } = *settings;
    let ours = LongestMatch { table, priority, mark };
    let mut state = NetworkState::default();
    for family in [Family::V4, Family::V6] {
        state.rules.extend(netlink.rules(family).await?.into_iter().filter(|rule| ours.owns(rule)));
        let is_ours = |table| is_steering(settings, table);
        state.mark_rules.extend(netlink.mark_rules(family).await?.into_iter().filter(|rule| is_ours(rule.table)));
        let blackholes = netlink.blackholes(family).await?;
        state.blackholes.extend(blackholes.into_iter().filter(|key| ours.owns_blackhole(key) || is_ours(key.table)));
    }
    Ok(state)
}

fn lines(state: &NetworkState) -> Vec<String> {
    let rules =
        state.rules.iter().map(|rule| format!("{} rule {} to table {}", rule.family, rule.priority, rule.table));
    let marks =
        state.mark_rules.iter().map(|rule| format!("{} rule {} to table {}", rule.family, rule.priority, rule.table));
    let blackholes = state.blackholes.iter().map(|key| format!("blackhole {} table {}", key.destination, key.table));
    rules.chain(marks).chain(blackholes).collect()
}

fn blocking<T>(task: impl Future<Output = Result<T, StartError>>) -> Result<T, StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let operation = || "talk to the kernel".to_owned();
    runtime.map_err(|source| StartError::System { operation: operation(), source })?.block_on(task)
}

fn failed(error: &tunnels::nft::NftError) -> StartError {
    StartError::System { operation: "look at nftables".to_owned(), source: io::Error::other(error.to_string()) }
}
