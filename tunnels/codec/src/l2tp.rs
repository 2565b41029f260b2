//! Data messages of L2TPv3 (RFC 3931 §4.1): a session header, a cookie, perhaps the default L2-specific sublayer (§4.6), and an
//! Ethernet frame (RFC 4719).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! ├─┼───────────────────────┼───────┼───────────────────────────────┤
//! │T│ reserved              │ Ver=3 │ Reserved                      │ over UDP only
//! ├─┴───────────────────────┴───────┴───────────────────────────────┤
//! │ Session ID                                                      │ 0 with IP: a control message
//! ├─────────────────────────────────────────────────────────────────┤
//! │ Cookie: 0, 4 or 8 octets                                        │
//! ├─┬─┬───────────┬─────────────────────────────────────────────────┤
//! │x│S│ reserved  │ Sequence number                                 │ sublayer, where agreed on
//! └─┴─┴───────────┴─────────────────────────────────────────────────┘
//! ```

/// The IP protocol number of L2TPv3.
pub const PROTOCOL: u8 = 115;

/// What carries the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// IP.
    Ip,
    /// UDP.
    Udp,
}

/// Why a message is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum L2tpError {
    /// It ends within its header.
    #[error("the message ends within its L2TP header")]
    Short,
    /// It is a control message; sessions are static here.
    #[error("a control message where only data was expected")]
    Control,
    /// RFC 3931 §4.1.2.1: only version 3; 2 is L2TPv2's.
    #[error("L2TP version {0} where 3 was expected")]
    Version(u8),
    /// The cookie is not the session's.
    #[error("the cookie is wrong")]
    Cookie,
}

/// The session of a data message, and what stands behind its id.
///
/// # Errors
/// [`L2tpError::Short`], [`L2tpError::Control`], [`L2tpError::Version`].
pub fn session(carrier: Carrier, message: &[u8]) -> Result<(u32, &[u8]), L2tpError> {
    let message = match carrier {
        Carrier::Ip => message,
        Carrier::Udp => {
            let (&[flags, version, _, _], rest) = message.split_first_chunk::<4>().ok_or(L2tpError::Short)?;
            // The version first: it says what the other bits mean.
            if version & 0x0f != VERSION {
                return Err(L2tpError::Version(version & 0x0f));
            }
            if flags & CONTROL != 0 {
                return Err(L2tpError::Control);
            }
            rest
        }
    };
    let (id, rest) = message.split_first_chunk::<4>().ok_or(L2tpError::Short)?;
    match u32::from_be_bytes(*id) {
        0 => Err(L2tpError::Control),
        id => Ok((id, rest)),
    }
}

/// Takes the cookie, and the sublayer if there is one, from what [`session`] left: the sequence number where the message has one,
/// and the frame. How long it takes does not depend on how much of the cookie is right.
///
/// # Errors
/// [`L2tpError::Short`], [`L2tpError::Cookie`].
pub fn open<'a>(message: &'a [u8], cookie: &[u8], has_sublayer: bool) -> Result<(Option<u32>, &'a [u8]), L2tpError> {
    let (theirs, rest) = message.split_at_checked(cookie.len()).ok_or(L2tpError::Short)?;
    let difference = theirs.iter().zip(cookie).fold(0, |difference, (theirs, ours)| difference | (theirs ^ ours));
    if std::hint::black_box(difference) != 0 {
        return Err(L2tpError::Cookie);
    }
    if !has_sublayer {
        return Ok((None, rest));
    }
    let (&[flags, n0, n1, n2], frame) = rest.split_first_chunk::<4>().ok_or(L2tpError::Short)?;
    Ok(((flags & SEQUENCED != 0).then_some(u32::from_be_bytes([0, n0, n1, n2])), frame))
}

/// The header of messages to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionHeader<'a> {
    /// What carries it.
    pub carrier: Carrier,
    /// The peer's session id.
    pub session: u32,
    /// The peer's cookie: 0, 4 or 8 octets.
    pub cookie: &'a [u8],
    /// Whether there is the default L2-specific sublayer.
    pub has_sublayer: bool,
}

impl SessionHeader<'_> {
    /// Octets of the header.
    #[must_use]
    pub fn octets(&self) -> usize {
        let words = |is_there| if is_there { 4usize } else { 0 };
        words(self.carrier == Carrier::Udp)
            .saturating_add(4)
            .saturating_add(self.cookie.len())
            .saturating_add(words(self.has_sublayer))
    }

    /// Writes the header to the first [`Self::octets`] octets of `out`. `sequence`, of which the low 24 bits count, goes into the
    /// sublayer, which must be there for it. `None` when there is no room.
    #[must_use]
    pub fn write(&self, sequence: Option<u32>, out: &mut [u8]) -> Option<()> {
        let mut rest = out;
        if self.carrier == Carrier::Udp {
            rest = put(rest, [0, VERSION, 0, 0])?;
        }
        rest = put(rest, self.session.to_be_bytes())?;
        let (cookie, rest) = rest.split_at_mut_checked(self.cookie.len())?;
        cookie.copy_from_slice(self.cookie);
        if self.has_sublayer {
            let [_, n0, n1, n2] = sequence.unwrap_or(0).to_be_bytes();
            put(rest, [if sequence.is_some() { SEQUENCED } else { 0 }, n0, n1, n2])?;
        }
        Some(())
    }
}

const VERSION: u8 = 3;
/// The T bit.
const CONTROL: u8 = 0x80;
/// The S bit.
const SEQUENCED: u8 = 0x40;

fn put(out: &mut [u8], octets: [u8; 4]) -> Option<&mut [u8]> {
    let (here, rest) = out.split_first_chunk_mut::<4>()?;
    *here = octets;
    Some(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// R3931-4.1.1.1-1.
    #[test]
    fn over_ip_a_message_starts_with_its_session() {
        let header =
            SessionHeader { carrier: Carrier::Ip, session: 0x0a0b_0c0d, cookie: &[1, 2, 3, 4], has_sublayer: false };
        let mut message = [0; 9];
        header.write(None, &mut message).unwrap();
        assert_eq!(message, [0x0a, 0x0b, 0x0c, 0x0d, 1, 2, 3, 4, 0]);
        let (id, rest) = session(Carrier::Ip, &message).unwrap();
        assert_eq!((id, open(rest, &[1, 2, 3, 4], false)), (0x0a0b_0c0d, Ok((None, &[0][..]))));
    }

    /// R3931-4.1.2.1-1, R3931-4.6-1.
    #[test]
    fn over_udp_the_version_comes_first_and_the_sublayer_last() {
        let header = SessionHeader { carrier: Carrier::Udp, session: 7, cookie: &[], has_sublayer: true };
        let mut message = [0; 12];
        header.write(Some(0xff12_3456), &mut message).unwrap();
        assert_eq!(message, [0, 3, 0, 0, 0, 0, 0, 7, 0x40, 0x12, 0x34, 0x56]);
        let (id, rest) = session(Carrier::Udp, &message).unwrap();
        assert_eq!((id, open(rest, &[], true)), (7, Ok((Some(0x12_3456), &[][..]))));
        assert_eq!(open(&[0xbf, 1, 2, 3], &[], true), Ok((None, &[][..])), "without S the number means nothing");
    }

    /// R3931-4.1.2.1-1.
    #[test]
    fn control_messages_and_other_versions_are_no_data() {
        assert_eq!(session(Carrier::Ip, &[0; 12]), Err(L2tpError::Control));
        assert_eq!(session(Carrier::Udp, &[0xc8, 3, 0, 12, 0, 0, 0, 0]), Err(L2tpError::Control));
        assert_eq!(session(Carrier::Udp, &[0, 2, 0, 1, 0, 1]), Err(L2tpError::Version(2)));
        assert_eq!(
            session(Carrier::Udp, &[0x40, 0xf3, 9, 9, 0, 0, 0, 1]),
            Ok((1, &[][..])),
            "reserved bits are ignored"
        );
        assert_eq!(session(Carrier::Udp, &[0, 3, 0, 0, 0, 0, 1]), Err(L2tpError::Short));
    }

    /// R3931-4.1-1.
    #[test]
    fn each_octet_of_the_cookie_counts() {
        let cookie = [1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(open(&cookie, &cookie, false), Ok((None, &[][..])));
        for at in 0..cookie.len() {
            let mut wrong = cookie;
            wrong[at] ^= 0x80;
            assert_eq!(open(&wrong, &cookie, false), Err(L2tpError::Cookie));
        }
        assert_eq!(open(&cookie[..7], &cookie, false), Err(L2tpError::Short));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            udp in any::<bool>(), id in 1u32.., cookie in prop_oneof![Just(0usize), Just(4), Just(8)],
            has_sublayer in any::<bool>(), sequence in proptest::option::of(0u32..1 << 24), frame in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let cookie = &[9, 8, 7, 6, 5, 4, 3, 2][..cookie];
            let carrier = if udp { Carrier::Udp } else { Carrier::Ip };
            let header = SessionHeader { carrier, session: id, cookie, has_sublayer };
            let mut message = vec![0; header.octets()];
            header.write(sequence, &mut message).unwrap();
            prop_assert_eq!(header.write(sequence, &mut vec![0; header.octets() - 1]), None);
            message.extend(&frame);
            let (read, rest) = session(carrier, &message).unwrap();
            prop_assert_eq!(read, id);
            prop_assert_eq!(open(rest, cookie, has_sublayer), Ok((sequence.filter(|_| has_sublayer), &frame[..])));
        }

        #[test]
        fn any_octets_are_read_without_panic(udp in any::<bool>(), sublayer in any::<bool>(), message in proptest::collection::vec(0u8..5, 0..30)) {
            let carrier = if udp { Carrier::Udp } else { Carrier::Ip };
            if let Ok((id, rest)) = session(carrier, &message) {
                prop_assert!(id != 0);
                let frame = open(rest, &[1, 1, 1, 1], sublayer);
                prop_assert!(frame.is_err() || rest[..4] == [1; 4]);
            }
        }
    }
}
