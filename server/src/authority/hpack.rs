//! Where the authority stands in a compressed header block (RFC 7541), and how another takes its place without the two
//! ends of the connection coming to disagree on their tables of recent fields: an entry's size there is that of its
//! decoded text, so the new text is as long as the old. It must not know of frames.

use tonic::codegen::http::uri::Authority;

pub enum Verdict {
    /// The authority is well-formed, is named by its number in the table, or is not given at all.
    Sound,
    /// It is not; this is the block with another in its place.
    Bad(Vec<u8>),
    /// The block cannot be understood.
    Unclear,
}

/// Looks for the authority in a header block.
pub fn mend(block: &[u8]) -> Verdict {
    let mut rest = block;
    while !rest.is_empty() {
        match next_field(&mut rest) {
            Some(None) => {}
            Some(Some(value)) => {
                let Some(authority) = value.decoded() else { return Verdict::Unclear };
                if Authority::try_from(authority.as_slice()).is_ok() {
                    return Verdict::Sound;
                }
                let before = block.len() - rest.len() - value.written;
                return Verdict::Bad([&block[..before], &well_formed(&authority), rest].concat());
            }
            None => return Verdict::Unclear,
        }
    }
    Verdict::Sound
}

/// A text literal of the same decoded length that is an authority.
fn well_formed(authority: &[u8]) -> Vec<u8> {
    let mut literal = Vec::new();
    put_integer(authority.len(), TEXT_PREFIX, &mut literal);
    literal.extend(authority.iter().map(|byte| if byte.is_ascii_alphanumeric() { *byte } else { b'-' }));
    literal
}

/// Takes one field off the front (section 6). None if it cannot be understood; the value if it is the authority's.
fn next_field<'a>(rest: &mut &'a [u8]) -> Option<Option<Text<'a>>> {
    const AUTHORITY: usize = 1;
    let first = *rest.first()?;
    let name_prefix = match first {
        // A whole field by its number, or a change of the table's size: no text follows.
        0x80.. => return take_integer(rest, 7).map(|_| None),
        0x20..0x40 => return take_integer(rest, 5).map(|_| None),
        // With or without being added to the table.
        0x40..0x80 => 6,
        0x00..0x20 => 4,
    };
    let name = take_integer(rest, name_prefix)?;
    let is_authority = if name == 0 { take_text(rest)?.is_authority_name() } else { name == AUTHORITY };
    let value = take_text(rest)?;
    Some(is_authority.then_some(value))
}

/// A text literal (section 5.2).
struct Text<'a> {
    bytes: &'a [u8],
    huffman: bool,
    /// Bytes that it takes in the block, with its length.
    written: usize,
}

const TEXT_PREFIX: u32 = 7;

fn take_text<'a>(rest: &mut &'a [u8]) -> Option<Text<'a>> {
    let before = rest.len();
    let huffman = rest.first()? & 0x80 != 0;
    let length = take_integer(rest, TEXT_PREFIX)?;
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(Text { bytes, huffman, written: before - after.len() })
}

impl Text<'_> {
    fn is_authority_name(&self) -> bool {
        self.decoded().is_some_and(|name| name == b":authority")
    }

    /// None if it holds what no authority and no name that matters here holds.
    fn decoded(&self) -> Option<Vec<u8>> {
        if self.huffman { decode(self.bytes) } else { Some(self.bytes.to_vec()) }
    }
}

/// An integer whose first byte has room for so many bits (section 5.1). None if it is cut short, or larger than any in
/// a block of 64 KiB.
fn take_integer(rest: &mut &[u8], prefix: u32) -> Option<usize> {
    let room = (1 << prefix) - 1;
    let mut bytes = rest.iter();
    let mut value = usize::from(*bytes.next()?) & room;
    if value == room {
        let mut shift = 0;
        loop {
            let byte = *bytes.next()?;
            value += usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
            if shift > 14 {
                return None;
            }
        }
    }
    *rest = bytes.as_slice();
    Some(value)
}

/// The bits of the first byte before the prefix are left 0.
fn put_integer(mut value: usize, prefix: u32, out: &mut Vec<u8>) {
    let room = (1 << prefix) - 1;
    if value < room {
        out.push(value as u8);
        return;
    }
    out.push(room as u8);
    value -= room;
    while value >= 0x80 {
        out.push(0x80 | (value & 0x7f) as u8);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The Huffman code (appendix B) as far as it has up to 15 bits, which is all of printable ASCII but the backslash. The
/// code is canonical: codes of one length follow one another in the order given here, and those of the next length
/// follow them.
const CODE: [(u32, &[u8]); 10] = [
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b"!\"()?"),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\0$@[]~"),
    (14, b"^}"),
    (15, b"<`{"),
];

fn decode(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut bits =
        bytes.iter().flat_map(|byte| (0..8).rev().map(move |place| usize::from(byte >> place & 1)));
    let mut text = Vec::new();
    'symbols: loop {
        let (mut read, mut code, mut first) = (0, 0, 0);
        for (length, symbols) in CODE {
            while read < length {
                let Some(bit) = bits.next() else {
                    // What is left of the last byte must be the beginning of a code of ones.
                    let padding = read < 8 && code + 1 == 1 << read;
                    return padding.then_some(text);
                };
                (read, code, first) = (read + 1, code << 1 | bit, first << 1);
            }
            if let Some(symbol) = symbols.get(code - first) {
                text.push(*symbol);
                continue 'symbols;
            }
            first += symbols.len();
        }
        return None;
    }
}
