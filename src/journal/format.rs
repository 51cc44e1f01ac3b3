//! The bytes of a segment: a header, then frames, one behind the other. Pure: bytes in, entries out.
//!
//! ```text
//! header  64 bytes  magic "BONITO-J" · version u16 · 6 zeros · sequence u64 · nonce u64 · 28 zeros · crc32 of these 60
//! frame   12 bytes  length of the body u32 · crc32 of the body u32 · crc32 of nonce, offset, length and that u32
//!         body      kind u8, and what `record` makes of it
//! ```
//!
//! All numbers are little-endian. Segments are used again, so behind the last frame there may be frames of an earlier
//! life. A frame is one of this segment only if its checksum fits the segment's nonce and the place it is at. The first
//! frame that does not fit ends the segment: what is torn or damaged is cut off there and never guessed at.

/// The form that is written. Another one is refused, not guessed at.
pub(super) const VERSION: u16 = 1;
/// Bytes of a segment's header.
pub(super) const HEADER_BYTES: usize = 64;
/// Bytes in front of a body.
pub(super) const FRAME_BYTES: usize = 12;
/// The largest body. A record of a hundred attempts with the longest names there can be has half of it.
pub(super) const MAX_BODY_BYTES: usize = 1 << 20;

const MAGIC: &[u8; 8] = b"BONITO-J";

/// What tells a segment from every other one, and from its own earlier lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    /// Its place in the order of segments.
    pub sequence: u64,
    /// A random number.
    pub nonce: u64,
}

/// Why a file does not begin with a header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HeaderFault {
    /// It was never used: there is nothing in it.
    Blank,
    /// It is damaged.
    Damaged,
    /// It is of a form that we do not know.
    Version(u16),
}

impl Header {
    /// Its bytes.
    pub fn encode(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.nonce.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads it off the beginning of a file.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
            let blank = bytes.iter().all(|&byte| byte == 0);
            return Err(if blank {
                HeaderFault::Blank
            } else {
                HeaderFault::Damaged
            });
        };
        if header.iter().all(|&byte| byte == 0) {
            return Err(HeaderFault::Blank);
        }
        if &header[..8] != MAGIC || crc32fast::hash(&header[..60]) != u32_at(header, 60) {
            return Err(HeaderFault::Damaged);
        }
        let version = u16::from_le_bytes([header[8], header[9]]);
        if version != VERSION {
            return Err(HeaderFault::Version(version));
        }
        Ok(Self {
            sequence: u64_at(header, 16),
            nonce: u64_at(header, 24),
        })
    }
}

/// Writes a frame with its body behind `out`, for the place `offset` in the segment with this nonce.
pub(super) fn frame(out: &mut Vec<u8>, nonce: u64, offset: u64, body: &[u8], body_crc: u32) {
    let length = u32::try_from(body.len()).expect("a body is far below 4 GiB");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&body_crc.to_le_bytes());
    out.extend_from_slice(&seal(nonce, offset, length, body_crc).to_le_bytes());
    out.extend_from_slice(body);
}

fn seal(nonce: u64, offset: u64, length: u32, body_crc: u32) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&nonce.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.update(&length.to_le_bytes());
    hasher.update(&body_crc.to_le_bytes());
    hasher.finalize()
}

/// What stands at a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step<'a> {
    /// A body, and so many bytes of it with its frame.
    Body(&'a [u8], usize),
    /// More bytes are needed to know.
    Short,
    /// Nothing of this segment: its end, or where it is damaged.
    End,
}

/// Looks at the beginning of `bytes`, which are at `offset` in the segment with this nonce.
pub(super) fn step(bytes: &[u8], nonce: u64, offset: u64) -> Step<'_> {
    let Some(frame) = bytes.first_chunk::<FRAME_BYTES>() else {
        return Step::Short;
    };
    let (length, body_crc) = (u32_at(frame, 0), u32_at(frame, 4));
    if seal(nonce, offset, length, body_crc) != u32_at(frame, 8) || length as usize > MAX_BODY_BYTES || length == 0 {
        return Step::End;
    }
    let whole = FRAME_BYTES + length as usize;
    let Some(body) = bytes.get(FRAME_BYTES..whole) else {
        return Step::Short;
    };
    if crc32fast::hash(body) != body_crc {
        return Step::End;
    }
    Step::Body(body, whole)
}

/// All bodies of a segment with their offsets, up to its end or to where it is damaged.
pub(super) struct Bodies<'a> {
    bytes: &'a [u8],
    nonce: u64,
    /// Where the next frame is; after the last body, where the segment ends.
    pub at: usize,
}

impl<'a> Bodies<'a> {
    /// Those of a whole segment, header included.
    pub fn of(bytes: &'a [u8], nonce: u64) -> Self {
        Self {
            bytes,
            nonce,
            at: HEADER_BYTES,
        }
    }
}

impl<'a> Iterator for Bodies<'a> {
    type Item = (u64, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.at as u64;
        match step(self.bytes.get(self.at..)?, self.nonce, offset) {
            Step::Body(body, whole) => {
                self.at += whole;
                Some((offset, body))
            }
            Step::Short | Step::End => None,
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NONCE: u64 = 0x5eed_0fa5_e6f0_0d01;

    /// A segment with these bodies, and where each of its frames ends.
    fn segment(nonce: u64, bodies: &[Vec<u8>]) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = Header { sequence: 7, nonce }.encode().to_vec();
        let mut ends = Vec::new();
        for body in bodies {
            let offset = bytes.len() as u64;
            frame(&mut bytes, nonce, offset, body, crc32fast::hash(body));
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    fn read(bytes: &[u8]) -> Vec<Vec<u8>> {
        let Ok(header) = Header::decode(bytes) else {
            return Vec::new();
        };
        Bodies::of(bytes, header.nonce).map(|(_, body)| body.to_vec()).collect()
    }

    fn bodies() -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 1..40)
    }

    proptest! {
        // 2,000 points of each kind, every one in a segment of its own.
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

        #[test]
        fn a_segment_that_is_cut_anywhere_has_exactly_the_whole_bodies_before_the_cut(
            bodies in bodies(), point in any::<prop::sample::Index>()
        ) {
            let (bytes, ends) = segment(NONCE, &bodies);
            let cut = point.index(bytes.len());
            let whole = ends.iter().filter(|&&end| end <= cut).count();
            prop_assert_eq!(read(&bytes[..cut]), &bodies[..whole]);
            // The same where the file has its full length and the rest never came.
            let mut torn = bytes.clone();
            torn[cut..].fill(0);
            let same = torn == bytes;
            let found = read(&torn);
            prop_assert!(found.len() >= whole && (same || found.len() < bodies.len() || torn == bytes));
            prop_assert_eq!(&found[..], &bodies[..found.len()]);
        }

        #[test]
        fn a_flipped_bit_ends_the_segment_before_the_frame_it_is_in(
            bodies in bodies(), point in any::<prop::sample::Index>(), bit in 0..8
        ) {
            let (mut bytes, ends) = segment(NONCE, &bodies);
            let at = point.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            let whole = if at < HEADER_BYTES { 0 } else { ends.iter().filter(|&&end| end <= at).count() };
            prop_assert_eq!(read(&bytes), &bodies[..whole]);
        }

        #[test]
        fn what_an_earlier_life_left_behind_is_never_taken_for_a_body(
            old in bodies(), new in bodies(), garbage in prop::collection::vec(any::<u8>(), 0..64)
        ) {
            let (before, _) = segment(NONCE + 1, &old);
            let (after, _) = segment(NONCE, &new);
            let mut bytes = after.clone();
            bytes.extend_from_slice(&garbage);
            if let Some(rest) = before.get(bytes.len()..) {
                bytes.extend_from_slice(rest);
            }
            prop_assert_eq!(read(&bytes), new);
        }

        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = read(&bytes);
            let _ = step(&bytes, NONCE, 64);
        }
    }

    #[test]
    fn a_header_of_another_version_is_told_from_a_damaged_one() {
        let mut bytes = Header { sequence: 1, nonce: 2 }.encode();
        bytes[8] = 9;
        assert_eq!(Header::decode(&bytes), Err(HeaderFault::Damaged));
        let checksum = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(Header::decode(&bytes), Err(HeaderFault::Version(9)));
        assert_eq!(Header::decode(&[0; 64]), Err(HeaderFault::Blank));
        assert_eq!(Header::decode(&[]), Err(HeaderFault::Blank));
        assert_eq!(Header::decode(&bytes[..20]), Err(HeaderFault::Damaged));
    }
}
