//! A place in the journal.

/// Where an entry begins: its segment, and the bytes before it in there. Later entries have greater positions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(super) struct Position {
    /// The segment's place in the order of segments.
    pub sequence: u64,
    /// Bytes from the segment's beginning.
    pub offset: u64,
}
