//! The sector: 512 bytes that say for themselves whether they were written, to which batch they belong, and whether they
//! are whole. Everything in a segment file is sectors; `recovery` tells why this shape.
//!
//! ```text
//!  0      4       8              16      20                                  511   512
//!  | crc  | prev  | batch        | left  | data (491 bytes)                  | mark |
//! ```
//! `crc` covers bytes 4..511 and is seeded with the segment's number and the sector's place, so a sector left over from
//! the file's earlier life, or moved, never verifies. `prev` is the crc of the sector before it in the log: a chain.
//! `left` counts the sectors of the batch that follow. `mark`, the last byte to be written, tells whether the sector was
//! written at all in this life of the file.

use crc32fast::Hasher;

pub(super) const SECTOR: usize = 512;
pub(super) const HEAD: usize = 20;
/// Bytes of data in a sector. The data areas of a segment's sectors, one after another, are its *stream*; a *position*
/// counts bytes of the stream from the start of the file.
pub(super) const DATA: usize = SECTOR - HEAD - 1;

/// One mark per life of a file: the words of the extended Hamming code, which differ from each other, and from zero, in at
/// least four bits. So a flipped bit turns no mark into another and no unwritten byte into a mark.
const MARKS: [u8; 15] =
    [0x0F, 0x33, 0x3C, 0x55, 0x5A, 0x66, 0x69, 0x96, 0x99, 0xA5, 0xAA, 0xC3, 0xCC, 0xF0, 0xFF];

/// How many lives a file has: written once when new, then recycled until the marks are used up.
pub(super) const LIVES: u8 = MARKS.len() as u8;

/// What a sector that verifies says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub crc: u32,
    pub prev: u32,
    pub batch: u64,
    pub left: u32,
}

/// Whether these bytes were written whole in this life of the file; a short slice (the file ends here) was not.
pub(super) fn is_written(sector: &[u8], life: u8) -> bool {
    sector.len() == SECTOR && is_mark(sector[SECTOR - 1], life)
}

/// The same from the mark alone. One flipped bit is forgiven, since no other mark and no unwritten byte is that near.
pub(super) fn is_mark(byte: u8, life: u8) -> bool {
    (byte ^ MARKS[usize::from(life)]).count_ones() <= 1
}

/// The head of a sector, or nothing if its bytes are not those that were sealed for this place.
pub(super) fn verify(sector: &[u8], segment: u64, place: u32) -> Option<Head> {
    if sector.len() != SECTOR {
        return None;
    }
    let crc = u32_at(sector, 0);
    let whole = crc == checksum(&sector[4..SECTOR - 1], segment, place);
    whole.then(|| Head { crc, prev: u32_at(sector, 4), batch: u64_at(sector, 8), left: u32_at(sector, 16) })
}

/// Seals the sectors in `bytes` as one batch at `place` of a segment; `prev` is the crc before it. Returns the last crc.
pub(super) fn seal(bytes: &mut [u8], segment: u64, life: u8, place: u32, batch: u64, mut prev: u32) -> u32 {
    let count = (bytes.len() / SECTOR) as u32;
    for (n, sector) in (0..count).zip(bytes.chunks_exact_mut(SECTOR)) {
        sector[4..8].copy_from_slice(&prev.to_le_bytes());
        sector[8..16].copy_from_slice(&batch.to_le_bytes());
        sector[16..20].copy_from_slice(&(count - 1 - n).to_le_bytes());
        prev = checksum(&sector[4..SECTOR - 1], segment, place + n);
        sector[..4].copy_from_slice(&prev.to_le_bytes());
        sector[SECTOR - 1] = MARKS[usize::from(life)];
    }
    prev
}

/// The data area of a sector.
pub(super) fn data(sector: &[u8]) -> &[u8] {
    &sector[HEAD..SECTOR - 1]
}

/// The position of a sector's first data byte.
pub(super) fn position_of(place: u32) -> u64 {
    u64::from(place) * DATA as u64
}

fn checksum(bytes: &[u8], segment: u64, place: u32) -> u32 {
    // Two lives of one file never share a segment number, so the seed differs wherever an old sector could be met.
    let seed = (segment as u32).wrapping_mul(0x9E37_79B1) ^ place;
    let mut hasher = Hasher::new_with_initial(seed);
    hasher.update(bytes);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("a slice of four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("a slice of eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The marks keep the distance that recovery's argument rests on.
    #[test]
    fn marks_differ_in_four_bits_from_each_other_and_from_zero() {
        for (n, a) in MARKS.iter().enumerate() {
            assert!(a.count_ones() >= 4);
            for b in &MARKS[n + 1..] {
                assert!((a ^ b).count_ones() >= 4, "{a:x} {b:x}");
            }
        }
    }

    /// A sealed sector verifies in its own place only, and with no bit flipped; the mark alone forgives one.
    #[test]
    fn a_sector_verifies_only_untouched_and_in_its_place() {
        let mut bytes = vec![7; 2 * SECTOR];
        let last = seal(&mut bytes, 3, 2, 5, 40, 99);
        let head = verify(&bytes[..SECTOR], 3, 5).expect("sealed");
        assert_eq!((head.prev, head.batch, head.left), (99, 40, 1));
        let second = verify(&bytes[SECTOR..], 3, 6).expect("sealed");
        assert_eq!((second.prev, second.crc, second.left), (head.crc, last, 0));
        assert!(verify(&bytes[..SECTOR], 4, 5).is_none() && verify(&bytes[..SECTOR], 3, 6).is_none());
        for bit in 0..SECTOR * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(is_written(&bytes[..SECTOR], 2));
            assert!((0..LIVES).filter(|life| *life != 2).all(|life| !is_written(&bytes[..SECTOR], life)));
            assert_eq!(verify(&bytes[..SECTOR], 3, 5).is_some(), bit / 8 == SECTOR - 1);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
