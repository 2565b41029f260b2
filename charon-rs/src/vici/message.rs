//! Messages: trees of sections, values and lists.
//!
//! A message is a sequence of elements. Names have a length of one octet, values one of two octets in network order.
//!
//! ```text
//! 1 SECTION_START | n | name          4 LIST_START | n | name
//! 2 SECTION_END                       5 LIST_ITEM  | len (16) | value
//! 3 KEY_VALUE     | n | name | len (16) | value    6 LIST_END
//! ```

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

const SECTION_START: u8 = 1;
const SECTION_END: u8 = 2;
const KEY_VALUE: u8 = 3;
const LIST_START: u8 = 4;
const LIST_ITEM: u8 = 5;
const LIST_END: u8 = 6;

/// Sections inside sections beyond which a message is refused. swanctl needs four; parsing recurses on the stack.
const MAX_DEPTH: usize = 16;

/// Longest name in octets: its length is one octet.
const MAX_NAME: usize = u8::MAX as usize;

/// Longest value in octets: its length is two octets.
const MAX_VALUE: usize = u16::MAX as usize;

/// A section's content, or a whole message: named nodes in an order that is part of the interface.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Message {
    entries: Vec<(String, Node)>,
}

/// What a name stands for. Values are wiped when they are dropped: requests carry secrets in them.
#[derive(Clone, PartialEq, Eq)]
pub enum Node {
    /// A value: octets, mostly text.
    Value(Vec<u8>),
    /// A list of values.
    List(Vec<Vec<u8>>),
    /// A section of its own.
    Section(Message),
}

impl Message {
    /// An empty message.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a value. What does not fit the wire (names of more than 255 octets, values of more than 65535) is cut off.
    pub fn put(&mut self, name: &str, value: impl fmt::Display) {
        self.put_octets(name, value.to_string().into_bytes());
    }

    /// Appends a value if there is one.
    pub fn put_some(&mut self, name: &str, value: Option<impl fmt::Display>) {
        if let Some(value) = value {
            self.put(name, value);
        }
    }

    /// Appends `name=yes` if `condition` holds; VICI leaves out what does not.
    pub fn put_if(&mut self, name: &str, condition: bool) {
        if condition {
            self.put(name, "yes");
        }
    }

    /// Appends a value of octets.
    pub fn put_octets(&mut self, name: &str, mut value: Vec<u8>) {
        value.truncate(MAX_VALUE);
        self.entries.push((fitting(name).to_owned(), Node::Value(value)));
    }

    /// Appends a list.
    pub fn put_list<I>(&mut self, name: &str, items: I)
    where
        I: IntoIterator,
        I::Item: fmt::Display,
    {
        let items = items.into_iter().map(|item| {
            let mut item = item.to_string().into_bytes();
            item.truncate(MAX_VALUE);
            item
        });
        self.entries.push((fitting(name).to_owned(), Node::List(items.collect())));
    }

    /// Appends a section.
    pub fn put_section(&mut self, name: &str, section: Message) {
        self.entries.push((fitting(name).to_owned(), Node::Section(section)));
    }

    /// Appends a value and hands the message on, for literals.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.put(name, value);
        self
    }

    /// Appends a section and hands the message on, for literals.
    #[must_use]
    pub fn with_section(mut self, name: &str, section: Message) -> Self {
        self.put_section(name, section);
        self
    }

    /// Puts another value in the place of the one of this name, if there is one.
    #[must_use]
    pub fn with_text(mut self, name: &str, value: &str) -> Self {
        if let Some((_, node)) = self.entries.iter_mut().find(|(own, _)| own == name) {
            *node = Node::Value(value.as_bytes().to_vec());
        }
        self
    }

    /// Everything in order.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.entries.iter().map(|(name, node)| (name.as_str(), node))
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The node of this name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.entries.iter().find(|(own, _)| own == name).map(|(_, node)| node)
    }

    /// The value of this name, if it is one and is text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.node(name)? {
            Node::Value(value) => std::str::from_utf8(value).ok(),
            Node::List(_) | Node::Section(_) => None,
        }
    }

    /// The value of this name as octets.
    #[must_use]
    pub fn octets(&self, name: &str) -> Option<&[u8]> {
        match self.node(name)? {
            Node::Value(value) => Some(value),
            Node::List(_) | Node::Section(_) => None,
        }
    }

    /// The list of this name as text; empty when there is none. Items that are not UTF-8 are shown with replacements.
    #[must_use]
    pub fn list(&self, name: &str) -> Vec<String> {
        match self.node(name) {
            Some(Node::List(items)) => items.iter().map(|item| String::from_utf8_lossy(item).into_owned()).collect(),
            Some(Node::Value(_) | Node::Section(_)) | None => Vec::new(),
        }
    }

    /// Adds a list of octets.
    pub fn put_octets_list(&mut self, name: &str, items: Vec<Vec<u8>>) {
        self.entries.push((name.to_owned(), Node::List(items)));
    }

    /// The section of this name.
    #[must_use]
    pub fn section(&self, name: &str) -> Option<&Message> {
        match self.node(name)? {
            Node::Section(section) => Some(section),
            Node::Value(_) | Node::List(_) => None,
        }
    }

    /// All sections in order.
    pub fn sections(&self) -> impl Iterator<Item = (&str, &Message)> {
        self.entries().filter_map(|(name, node)| match node {
            Node::Section(section) => Some((name, section)),
            Node::Value(_) | Node::List(_) => None,
        })
    }

    /// Whether the value of this name says yes. Absent is no.
    #[must_use]
    pub fn is_yes(&self, name: &str) -> bool {
        self.text(name).is_some_and(|value| matches!(value, "yes" | "true" | "1"))
    }

    /// How many octets [`Self::encode`] appends.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let named = |name: &str| 2 + name.len();
        let value = |value: &[u8]| 2 + value.len();
        let of_node = |(name, node): &(String, Node)| match node {
            Node::Value(octets) => named(name) + value(octets),
            Node::List(items) => named(name) + items.iter().map(|item| 1 + value(item)).sum::<usize>() + 1,
            Node::Section(section) => named(name) + section.encoded_len() + 1,
        };
        self.entries.iter().map(of_node).sum()
    }

    /// Appends the elements to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for (name, node) in &self.entries {
            match node {
                Node::Value(value) => {
                    encode_name(KEY_VALUE, name, out);
                    encode_value(value, out);
                }
                Node::List(items) => {
                    encode_name(LIST_START, name, out);
                    for item in items {
                        out.push(LIST_ITEM);
                        encode_value(item, out);
                    }
                    out.push(LIST_END);
                }
                Node::Section(section) => {
                    encode_name(SECTION_START, name, out);
                    section.encode(out);
                    out.push(SECTION_END);
                }
            }
        }
    }

    /// Reads the elements that make up the whole of `bytes`.
    ///
    /// # Errors
    /// [`MessageError`] when they are none, or nested too deep.
    pub fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut reader = Reader { rest: bytes };
        let message = reader.section(0)?;
        Ok(message)
    }
}

/// As `swanctl --raw` prints messages: `name=value list=[a b] section {..}`.
impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        f.write_str("{")?;
        for (index, (name, node)) in self.entries.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            match node {
                Node::Value(value) => write!(f, "{name}={}", text(value))?,
                Node::List(items) => {
                    let items: Vec<String> = items.iter().map(|item| text(item)).collect();
                    write!(f, "{name}=[{}]", items.join(" "))?;
                }
                Node::Section(section) => write!(f, "{name} {section}")?,
            }
        }
        f.write_str("}")
    }
}

/// Names only: requests carry secrets in their values.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.entries.iter().map(|(name, node)| (name, node))).finish()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        match self {
            Self::Value(value) => value.zeroize(),
            Self::List(items) => items.zeroize(),
            Self::Section(_) => {} // its nodes wipe themselves
        }
    }
}

impl ZeroizeOnDrop for Node {}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => write!(f, "({} octets)", value.len()),
            Self::List(items) => write!(f, "({} items)", items.len()),
            Self::Section(section) => fmt::Debug::fmt(section, f),
        }
    }
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The bytes end inside an element.
    #[error("the message ends inside an element")]
    Truncated,
    /// An element type that does not exist, or not here.
    #[error("element type {0} does not belong here")]
    Misplaced(u8),
    /// A name that is not UTF-8.
    #[error("a name is not text")]
    BadName,
    /// A section or list is not closed.
    #[error("a section or list is not closed")]
    Unclosed,
    /// Too many sections inside each other.
    #[error("sections are nested deeper than {MAX_DEPTH}")]
    TooDeep,
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads up to the end of the section that was opened; at depth 0, up to the end of the bytes.
    fn section(&mut self, depth: usize) -> Result<Message, MessageError> {
        let mut message = Message::new();
        loop {
            let Some(kind) = self.next_kind() else {
                return if depth == 0 { Ok(message) } else { Err(MessageError::Unclosed) };
            };
            let node = match kind {
                SECTION_END if depth > 0 => return Ok(message),
                SECTION_START if depth == MAX_DEPTH => return Err(MessageError::TooDeep),
                SECTION_START | KEY_VALUE | LIST_START => {
                    let name = self.name()?;
                    let node = match kind {
                        KEY_VALUE => Node::Value(self.value()?),
                        LIST_START => Node::List(self.list()?),
                        _ => Node::Section(self.section(depth + 1)?),
                    };
                    (name, node)
                }
                other => return Err(MessageError::Misplaced(other)),
            };
            message.entries.push(node);
        }
    }

    fn list(&mut self) -> Result<Vec<Vec<u8>>, MessageError> {
        let mut items = Vec::new();
        loop {
            match self.next_kind().ok_or(MessageError::Unclosed)? {
                LIST_ITEM => items.push(self.value()?),
                LIST_END => return Ok(items),
                other => return Err(MessageError::Misplaced(other)),
            }
        }
    }

    fn next_kind(&mut self) -> Option<u8> {
        let (&kind, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(kind)
    }

    fn name(&mut self) -> Result<String, MessageError> {
        let len = self.next_kind().ok_or(MessageError::Truncated)?;
        let name = self.take(usize::from(len))?;
        std::str::from_utf8(name).map(str::to_owned).map_err(|_| MessageError::BadName)
    }

    fn value(&mut self) -> Result<Vec<u8>, MessageError> {
        let (len, rest) = self.rest.split_first_chunk().ok_or(MessageError::Truncated)?;
        self.rest = rest;
        self.take(usize::from(u16::from_be_bytes(*len))).map(<[u8]>::to_vec)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], MessageError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(MessageError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }
}

/// `name` as far as it fits, cut between characters.
pub(super) fn fitting(name: &str) -> &str {
    let end = (0..=name.len().min(MAX_NAME)).rev().find(|end| name.is_char_boundary(*end));
    name.get(..end.unwrap_or(0)).unwrap_or_default()
}

fn encode_name(kind: u8, name: &str, out: &mut Vec<u8>) {
    out.push(kind);
    // `fitting` and the parser's one octet of length keep names within 255 octets.
    out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(name.as_bytes());
}

fn encode_value(value: &[u8], out: &mut Vec<u8>) {
    // Every way to make a node keeps values within 65535 octets.
    out.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(message: &Message) -> Vec<u8> {
        let mut out = Vec::new();
        message.encode(&mut out);
        out
    }

    #[test]
    fn the_example_of_the_protocol_description_encodes_to_its_bytes() {
        let mut inner = Message::new();
        inner.put("key2", "value2");
        let mut section = Message::new();
        section.put_section("sub-section", inner);
        section.put_list("list1", ["item1", "item2"]);
        let message = Message::new().with("key1", "value1").with_section("section1", section);
        let bytes = b"\x03\x04key1\x00\x06value1\x01\x08section1\x01\x0bsub-section\x03\x04key2\x00\x06value2\x02\
                      \x04\x05list1\x05\x00\x05item1\x05\x00\x05item2\x06\x02";
        assert_eq!(encoded(&message), bytes);
        assert_eq!(Message::parse(bytes), Ok(message.clone()));
        assert_eq!(message.to_string(), "{key1=value1 section1 {sub-section {key2=value2} list1=[item1 item2]}}");
    }

    #[test]
    fn unbalanced_and_misplaced_elements_are_refused() {
        for (bytes, error) in [
            (&[2][..], MessageError::Misplaced(2)),
            (&[0], MessageError::Misplaced(0)),
            (&[255], MessageError::Misplaced(255)),
            (&[1, 1, b'a'], MessageError::Unclosed),
            (&[4, 1, b'a'], MessageError::Unclosed),
            (&[4, 1, b'a', 1, 1, b'b', 2, 6], MessageError::Misplaced(1)),
            (&[5, 0, 0], MessageError::Misplaced(5)),
            (&[6], MessageError::Misplaced(6)),
            (&[3], MessageError::Truncated),
            (&[3, 2, b'a'], MessageError::Truncated),
            (&[3, 1, b'a', 0], MessageError::Truncated),
            (&[3, 1, b'a', 0, 2, b'x'], MessageError::Truncated),
            (&[3, 1, 0xff, 0, 0], MessageError::BadName),
        ] {
            assert_eq!(Message::parse(bytes), Err(error), "{bytes:?}");
        }
    }

    #[test]
    fn nesting_is_limited_so_that_a_client_cannot_exhaust_the_stack() {
        let depth = |depth: usize| [[1, 0].repeat(depth), vec![2; depth]].concat();
        assert!(Message::parse(&depth(MAX_DEPTH)).is_ok());
        assert_eq!(Message::parse(&depth(MAX_DEPTH + 1)), Err(MessageError::TooDeep));
        assert_eq!(Message::parse(&[1, 0].repeat(100_000)), Err(MessageError::TooDeep));
    }

    #[test]
    fn what_is_too_long_for_the_wire_is_cut_and_still_parses() {
        let mut message = Message::new();
        message.put(&"ü".repeat(200), "x".repeat(70_000));
        let back = Message::parse(&encoded(&message)).unwrap();
        assert_eq!(back, message);
        assert_eq!(back.entries().next().unwrap().0.len(), 254, "cut between characters");
    }

    #[test]
    fn debug_output_shows_no_values() {
        let message = Message::new().with("data", "swordfish");
        assert!(!format!("{message:?}").contains("swordfish"));
    }

    fn any_message() -> impl Strategy<Value = Message> {
        let value = prop::collection::vec(any::<u8>(), 0..20);
        let leaf =
            prop_oneof![value.clone().prop_map(Node::Value), prop::collection::vec(value, 0..4).prop_map(Node::List),];
        let node = leaf.prop_recursive(4, 40, 5, |inner| {
            prop::collection::vec(("[a-z-]{0,12}", inner), 0..5).prop_map(|entries| Node::Section(Message { entries }))
        });
        prop::collection::vec(("[a-z-]{0,12}", node), 0..6).prop_map(|entries| Message { entries })
    }

    proptest! {
        #[test]
        fn every_message_survives_the_wire(message in any_message()) {
            prop_assert_eq!(Message::parse(&encoded(&message)), Ok(message));
        }

        #[test]
        fn no_bytes_make_the_parser_panic_and_accepted_ones_are_canonical(bytes in prop::collection::vec(0u8..8, 0..64)) {
            if let Ok(message) = Message::parse(&bytes) {
                prop_assert_eq!(encoded(&message), bytes);
            }
        }
    }
}
