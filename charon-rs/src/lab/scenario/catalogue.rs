//! The examples that are part of the program.

use super::description::{Description, DescriptionError};

/// An example: its files, by name.
#[derive(Clone, Copy, Debug)]
pub(in crate::lab) struct Example {
    /// The name of its folder.
    pub(in crate::lab) name: &'static str,
    files: &'static [(&'static str, &'static str)],
}

/// The folders of `etc/examples` with their files.
macro_rules! examples {
    ($($name:literal: $($file:literal)+;)+) => {
        &[$(Example {
            name: $name,
            files: &[$(($file, include_str!(concat!("../../../../etc/examples/", $name, "/", $file)))),+],
        }),+]
    };
}

const EXAMPLES: &[Example] = examples! {
    "net-to-net": "scenario.toml" "moon.toml" "sun.toml" "secrets.toml";
    "certificates": "scenario.toml" "moon.toml" "sun.toml";
    "nat": "scenario.toml" "moon.toml" "sun.toml" "secrets.toml";
    "road-warrior": "scenario.toml" "carol.toml" "moon.toml" "secrets.toml";
    "transport": "scenario.toml" "moon.toml" "sun.toml" "secrets.toml";
    "v6-in-v4": "scenario.toml" "moon.toml" "sun.toml" "secrets.toml";
    "v4-in-v6": "scenario.toml" "moon.toml" "sun.toml" "secrets.toml";
    "ipsec": "scenario.toml" "moon.toml" "sun.toml" "secrets.toml";
    "ipip": "scenario.toml" "moon.toml" "sun.toml" "secrets.toml";
    "ipip-tunnel": "scenario.toml" "moon.toml" "sun.toml" "secrets.toml";
    "manual-tunnel": "scenario.toml" "moon.toml" "sun.toml" "secrets.toml";
    "manual-transport": "scenario.toml" "moon.toml" "sun.toml" "secrets.toml";
    "bypass-discard": "scenario.toml" "moon.toml" "sun.toml" "secrets.toml";
    "ah": "scenario.toml" "moon.toml" "sun.toml" "secrets.toml";
    "nat-filter": "scenario.toml" "moon.toml" "sun.toml" "secrets.toml";
    "gre": "scenario.toml" "moon.toml" "sun.toml" "secrets.toml";
    "gre-teb": "scenario.toml" "moon.toml" "sun.toml" "secrets.toml";
    "mgre": "scenario.toml" "mars.toml" "moon.toml" "sun.toml" "secrets.toml";
    "vxlan": "scenario.toml" "moon.toml" "sun.toml" "secrets.toml";
    "l2tpv3": "scenario.toml" "moon.toml" "sun.toml" "secrets.toml";
    "l2tpv3-v6": "scenario.toml" "moon.toml" "sun.toml" "secrets.toml";
    "ipip-plain": "scenario.toml" "moon.toml" "sun.toml";
    "gre-plain": "scenario.toml" "moon.toml" "sun.toml";
    "vxlan-plain": "scenario.toml" "moon.toml" "sun.toml";
    "l2tpv3-plain": "scenario.toml" "moon.toml" "sun.toml";
    "vxlan-bridge": "scenario.toml" "moon.toml" "sun.toml" "secrets.toml";
    "pseudowire": "scenario.toml" "moon.toml" "sun.toml" "secrets.toml";
    "gre-over-vxlan": "scenario.toml" "moon.toml" "sun.toml" "secrets.toml";
};

impl Example {
    /// What its `scenario.toml` says.
    ///
    /// # Errors
    /// [`DescriptionError`], which a test of this module excludes.
    pub(super) fn description(&self) -> Result<Description, DescriptionError> {
        Description::parse(self.file("scenario.toml").unwrap_or_default())
    }

    /// The configuration of a gateway.
    pub(super) fn config(&self, gateway: &str) -> Option<&'static str> {
        self.file(&format!("{gateway}.toml"))
    }

    /// The secrets of all gateways; empty when there are none.
    pub(super) fn secrets(&self) -> &'static str {
        self.file("secrets.toml").unwrap_or_default()
    }

    fn file(&self, name: &str) -> Option<&'static str> {
        self.files.iter().find(|(found, _)| *found == name).map(|(_, text)| *text)
    }
}

/// All of them.
pub(in crate::lab) fn list() -> &'static [Example] {
    EXAMPLES
}

/// The one of this name.
///
/// # Errors
/// Says which names there are.
pub(in crate::lab) fn find(name: &str) -> Result<Example, UnknownScenario> {
    let found = EXAMPLES.iter().find(|example| example.name == name).copied();
    found.ok_or_else(|| UnknownScenario { name: name.to_owned(), nearest: nearest(name) })
}

/// There is no such scenario.
#[derive(Debug, thiserror::Error)]
#[error("there is no scenario `{name}`: did you mean `{nearest}`? `charonctl lab --scenario list` tells all of them")]
pub(in crate::lab) struct UnknownScenario {
    name: String,
    nearest: &'static str,
}

fn nearest(name: &str) -> &'static str {
    let distance = |example: &&Example| strsim::damerau_levenshtein(example.name, name);
    EXAMPLES.iter().min_by_key(distance).map_or("", |example| example.name)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::lab::stack;

    #[test]
    fn every_folder_of_examples_is_part_of_the_program_with_all_of_its_files() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../etc/examples");
        let names = |folder: &Path| -> Vec<String> {
            let mut names: Vec<String> = fs::read_dir(folder)
                .unwrap()
                .map(Result::unwrap)
                .map(|entry| entry.file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        let mut known: Vec<String> = EXAMPLES.iter().map(|example| example.name.to_owned()).collect();
        known.sort();
        assert_eq!(known, names(&folder));
        for example in EXAMPLES {
            let mut files: Vec<String> = example.files.iter().map(|(name, _)| (*name).to_owned()).collect();
            files.sort();
            assert_eq!(files, names(&folder.join(example.name)), "{}", example.name);
        }
    }

    #[test]
    fn every_example_describes_a_network_in_which_its_gateways_have_files() {
        for example in EXAMPLES {
            let description = example.description().unwrap_or_else(|error| panic!("{}: {error}", example.name));
            description.topology().unwrap();
            assert!(!description.traffic.is_empty() && !description.wire.stacks.is_empty(), "{}", example.name);
            for gateway in &description.gateways {
                let config = example.config(gateway).unwrap_or_else(|| panic!("{} of {}", gateway, example.name));
                assert!(config.starts_with('#'), "{} of {} says what it is for", gateway, example.name);
            }
            // What shall be seen must be something that the program can name.
            for wanted in &description.wire.stacks {
                assert!(stack::begins_with(wanted, "ipv4") || stack::begins_with(wanted, "ipv6"), "{wanted}");
            }
        }
    }

    #[test]
    fn the_readme_has_them_all() {
        let readme = include_str!("../../../../README.md");
        for example in EXAMPLES {
            let (name, title) = (example.name, example.description().unwrap().title);
            let row = format!("| [`{name}`](etc/examples/{name}) | {title} |");
            assert!(readme.lines().any(|line| line == row), "{row}");
        }
    }

    #[test]
    fn a_name_that_is_nearly_right_is_corrected() {
        assert_eq!(find("ipip").unwrap().name, "ipip");
        assert!(find("ipipp").unwrap_err().to_string().contains("did you mean `ipip`?"));
    }
}
