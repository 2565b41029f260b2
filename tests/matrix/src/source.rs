//! What the workspace's Rust files define, and which rules they cite.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::Path;

use anyhow::Context;
use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::{Attribute, ImplItem, Item, TraitItem, Type};

/// The Rust files, by their paths from the root of the workspace.
#[derive(Debug)]
pub struct Sources(BTreeMap<String, Source>);

/// One of them.
#[derive(Debug, Default)]
pub struct Source {
    /// What it defines: `function`, `Type`, `Type::method`, `Enum::Variant`, `CONSTANT`.
    pub items: BTreeSet<String>,
    /// Its test functions, by name.
    pub tests: BTreeMap<String, Function>,
    /// The ids of rules in it, with their lines.
    pub cited: Vec<(usize, String)>,
    lines: Vec<String>,
}

/// A function.
#[derive(Clone, Debug)]
pub struct Function {
    /// Its lines, from the first attribute or comment above it to the closing brace.
    pub lines: RangeInclusive<usize>,
}

impl Sources {
    /// Reads all Rust files below `root`, except for what was built.
    ///
    /// # Errors
    /// When a file cannot be read or is no Rust.
    pub fn load(root: &Path) -> anyhow::Result<Self> {
        let mut files = BTreeMap::new();
        for folder in FOLDERS {
            load_folder(root, folder, &mut files)?;
        }
        Ok(Self(files))
    }

    /// The file with this path.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Source> {
        self.0.get(path)
    }

    /// All files with their paths.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Source)> {
        self.0.iter()
    }
}

impl Source {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// When it is no Rust.
    pub fn parse(text: &str) -> syn::Result<Self> {
        let mut source = Self { lines: text.lines().map(str::to_owned).collect(), ..Self::default() };
        source.add_items(&syn::parse_file(text)?.items);
        for (index, line) in source.lines.iter().enumerate() {
            source.cited.extend(ids_in(line).map(|id| (index + 1, id)));
        }
        Ok(source)
    }

    /// Whether the lines of a function, or a comment right above it, have this word.
    #[must_use]
    pub fn mentions(&self, function: &Function, word: &str) -> bool {
        let first = function.lines.start().saturating_sub(1);
        let is_comment = |line: &&String| line.trim_start().starts_with("//");
        let above = self.lines.iter().take(first).rev().take_while(is_comment);
        let own = self.lines.iter().take(*function.lines.end()).skip(first);
        above.chain(own).any(|line| has_word(line, word))
    }

    fn add_items(&mut self, items: &[Item]) {
        for item in items {
            self.add_item(item);
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "nobody cites imports and the like")]
    fn add_item(&mut self, item: &Item) {
        match item {
            Item::Fn(function) => {
                let name = function.sig.ident.to_string();
                if is_test(&function.attrs) {
                    let lines = lines_of(function, &function.attrs);
                    self.tests.insert(name.clone(), Function { lines });
                }
                self.items.insert(name);
            }
            Item::Mod(module) => self.add_items(module.content.as_ref().map_or(&[], |(_, items)| items)),
            Item::Impl(block) => {
                for item in &block.items {
                    let member = match item {
                        ImplItem::Fn(function) => function.sig.ident.to_string(),
                        ImplItem::Const(constant) => constant.ident.to_string(),
                        _ => continue,
                    };
                    self.add_member(&name_of(&block.self_ty), &member);
                }
            }
            Item::Trait(contract) => {
                let owner = contract.ident.to_string();
                for item in &contract.items {
                    if let TraitItem::Fn(function) = item {
                        self.add_member(&owner, &function.sig.ident.to_string());
                    }
                }
                self.items.insert(owner);
            }
            Item::Enum(choice) => {
                let owner = choice.ident.to_string();
                choice.variants.iter().for_each(|variant| self.add_member(&owner, &variant.ident.to_string()));
                self.items.insert(owner);
            }
            Item::Struct(structure) => {
                let owner = structure.ident.to_string();
                for field in structure.fields.iter().filter_map(|field| field.ident.as_ref()) {
                    self.add_member(&owner, &field.to_string());
                }
                self.items.insert(owner);
            }
            Item::Const(constant) => drop(self.items.insert(constant.ident.to_string())),
            Item::Static(constant) => drop(self.items.insert(constant.ident.to_string())),
            Item::Type(alias) => drop(self.items.insert(alias.ident.to_string())),
            Item::Macro(call) if is_named(&call.mac.path, "proptest") => self.add_properties(&call.mac.tokens),
            _ => {}
        }
    }

    fn add_member(&mut self, owner: &str, member: &str) {
        self.items.insert(format!("{owner}::{member}"));
    }

    /// The functions inside `proptest!` are tests.
    fn add_properties(&mut self, tokens: &TokenStream) {
        let tokens: Vec<TokenTree> = tokens.clone().into_iter().collect();
        for (index, token) in tokens.iter().enumerate() {
            let is_keyword = matches!(token, TokenTree::Ident(word) if word == "fn");
            let (true, Some(TokenTree::Ident(name))) = (is_keyword, tokens.get(index + 1)) else {
                continue;
            };
            let body = tokens.iter().skip(index).find(
                |token| matches!(token, TokenTree::Group(group) if group.delimiter() == proc_macro2::Delimiter::Brace),
            );
            let start = token.span().start().line.saturating_sub(1);
            let end = body.map_or(start, |body| body.span().end().line);
            self.tests.insert(name.to_string(), Function { lines: start..=end });
        }
    }
}

/// The ids of rules in a line: `R`, the number of an RFC, its section, a count.
pub(crate) fn ids_in(line: &str) -> impl Iterator<Item = String> {
    words(line).filter(|word| is_id(word)).map(str::to_owned)
}

fn is_id(word: &str) -> bool {
    let Some((rfc, rest)) = word.strip_prefix('R').and_then(|rest| rest.split_once('-')) else {
        return false;
    };
    let Some((section, count)) = rest.rsplit_once('-') else {
        return false;
    };
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
    rfc.len() == 4 && all_digits(rfc) && section.split('.').all(all_digits) && all_digits(count)
}

fn has_word(line: &str, word: &str) -> bool {
    words(line).any(|found| found == word)
}

/// The words of a line; ids are words, and so are names of functions.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|letter: char| !(letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.' | '_')))
        .map(|word| word.trim_matches(['.', '-']))
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| is_named(attribute.path(), "test"))
}

/// Whether this is the last part of the path.
fn is_named(path: &syn::Path, name: &str) -> bool {
    path.segments.last().is_some_and(|last| last.ident == name)
}

fn lines_of(item: &impl Spanned, attributes: &[Attribute]) -> RangeInclusive<usize> {
    let span = item.span();
    let first = attributes.iter().map(|attribute| attribute.span().start().line).min();
    first.unwrap_or(span.start().line).min(span.start().line)..=span.end().line
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only named types have methods that somebody cites")]
fn name_of(owner: &Type) -> String {
    match owner {
        Type::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()).unwrap_or_default(),
        _ => String::new(),
    }
}

fn load_folder(root: &Path, folder: &str, files: &mut BTreeMap<String, Source>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(root.join(folder)).with_context(|| folder.to_owned())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{folder}/{name}");
        if entry.file_type()?.is_dir() {
            if name != "target" && name != "fuzz" {
                load_folder(root, &path, files)?;
            }
        } else if name.ends_with(".rs") {
            let text = std::fs::read_to_string(entry.path()).with_context(|| path.clone())?;
            files.insert(path.clone(), Source::parse(&text).with_context(|| path)?);
        }
    }
    Ok(())
}

/// Where Rust files are.
const FOLDERS: [&str; 5] = ["charon-rs", "espdp", "pki", "tests", "tunnels"];

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
struct Window { next: u32 }
impl Window {
    /// R7296-2.2-1 and (R7296-2.21.2-1).
    fn free(&self) -> u32 { 0 }
}
enum Arrival { New }
// The name of a row.
#[cfg(test)]
mod tests {
    // R7383-3-1, R7296-2
    #[test]
    fn it_counts() {
        // R1-1-1
        assert!(true);
    }
    proptest! {
        /// R8031-3.2-1
        #[test]
        fn it_always_counts(a in 0..1) { }
    }
}
";

    #[test]
    fn items_tests_and_ids_are_found() {
        let source = Source::parse(TEXT).unwrap();
        for item in ["Window", "Window::next", "Window::free", "Arrival::New", "it_counts"] {
            assert!(source.items.contains(item), "{item}");
        }
        let ids: Vec<_> = source.cited.iter().map(|(line, id)| (*line, id.as_str())).collect();
        assert_eq!(ids, [(4, "R7296-2.2-1"), (4, "R7296-2.21.2-1"), (11, "R7383-3-1"), (18, "R8031-3.2-1")]);
        assert_eq!(source.tests.keys().collect::<Vec<_>>(), ["it_always_counts", "it_counts"]);
    }

    #[test]
    fn a_test_mentions_what_stands_in_it_and_right_above_it() {
        let source = Source::parse(TEXT).unwrap();
        let mentions = |test: &str, word: &str| source.mentions(&source.tests[test], word);
        assert!(mentions("it_counts", "R7383-3-1"));
        assert!(mentions("it_counts", "R1-1-1"));
        assert!(!mentions("it_counts", "R7383-3"));
        assert!(!mentions("it_counts", "R8031-3.2-1"));
        assert!(mentions("it_always_counts", "R8031-3.2-1"));
        assert!(mentions("it_counts", "it_counts"));
    }
}
