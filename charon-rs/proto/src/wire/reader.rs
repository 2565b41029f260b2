//! Bounded reading.

use super::error::WireError;
use super::payload_type::PayloadType;

/// What is left to read of a payload or of a part of one. It knows where it stands, for errors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    payload: PayloadType,
    left: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    /// Reads `octets`, which stand at `offset` and belong to a payload of type `payload`.
    pub(super) fn new(payload: PayloadType, octets: &'a [u8], offset: usize) -> Self {
        Self { payload, left: octets, offset }
    }

    /// Where the next octet stands.
    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    /// The payload that is being read.
    pub(super) fn payload(&self) -> PayloadType {
        self.payload
    }

    pub(super) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// Octets that are left.
    pub(super) fn len(&self) -> usize {
        self.left.len()
    }

    /// The next `count` octets.
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let Some((taken, left)) = self.left.split_at_checked(count) else {
            return Err(self.truncated(count));
        };
        self.left = left;
        self.offset = self.offset.saturating_add(count);
        Ok(taken)
    }

    /// A reader of the next `count` octets alone, for a structure inside this one.
    pub(super) fn part(&mut self, count: usize) -> Result<Self, WireError> {
        let offset = self.offset;
        Ok(Self { payload: self.payload, left: self.take(count)?, offset })
    }

    /// The same octets as part of a payload of type `payload`.
    pub(super) fn of(self, payload: PayloadType) -> Self {
        Self { payload, ..self }
    }

    /// All that is left.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        self.offset = self.offset.saturating_add(self.left.len());
        std::mem::take(&mut self.left)
    }

    /// The next `N` octets as an array.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let Some((taken, left)) = self.left.split_first_chunk::<N>() else {
            return Err(self.truncated(N));
        };
        self.left = left;
        self.offset = self.offset.saturating_add(N);
        Ok(*taken)
    }

    pub(super) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    /// Refuses octets that nothing accounts for.
    pub(super) fn finish(self) -> Result<(), WireError> {
        if self.is_empty() {
            return Ok(());
        }
        Err(WireError::Trailing { payload: self.payload, offset: self.offset, count: self.left.len() })
    }

    /// The error about a field with a wrong value. `offset` is where the field or its structure begins.
    pub(super) fn wrong(
        &self,
        offset: usize,
        field: &'static str,
        expected: &'static str,
        found: impl TryInto<u64>,
    ) -> WireError {
        let found = found.try_into().unwrap_or(u64::MAX);
        WireError::Field { payload: self.payload, offset, field, expected, found }
    }

    fn truncated(&self, needed: usize) -> WireError {
        WireError::Truncated { payload: self.payload, offset: self.offset, needed, left: self.left.len() }
    }
}
