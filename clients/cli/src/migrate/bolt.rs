//! A bbolt database, read and never written: the file format in which etcd keeps its data. It knows pages and buckets, not what
//! etcd puts in them.
//!
//! Whatever the file says of places and lengths is held against the file before it is used, so a damaged one is an error and
//! neither a panic nor a circle. Only one page is in memory at a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

const MAGIC: u32 = 0xed0c_daed;
const VERSION: u32 = 2;
/// Of a page's head, of an element in it, and of a bucket's.
const HEAD: usize = 16;
const META_BYTES: usize = 64;
const PAGE_BYTES: std::ops::RangeInclusive<u32> = 512..=1 << 20;
/// The largest page with all its overflow that is read: far more than etcd's largest value.
const RUN_BYTES_MAX: u64 = 1 << 30;
const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const META: u16 = 0x04;
/// The value of such an element is a bucket.
const IS_BUCKET: u32 = 0x01;

/// Why a file cannot be read as a database.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("it cannot be read: {0}")]
    Io(#[from] std::io::Error),
    #[error("it is no bbolt database: neither of its first pages says so")]
    Foreign,
    #[error("it is damaged: {0}")]
    Damaged(String),
}

/// A database: its buckets at the top.
#[derive(Debug)]
pub struct Bolt {
    pages: Pages,
    buckets: BTreeMap<Vec<u8>, Bucket>,
}

#[derive(Debug)]
struct Pages {
    file: File,
    page_bytes: u64,
    /// No page has this number or a higher one.
    count: u64,
}

#[derive(Debug)]
enum Bucket {
    Root(u64),
    /// A small one: the page itself, and where in the file it is.
    Inline(Vec<u8>, u64),
}

/// A pair of a bucket.
pub struct Record<'a> {
    pub key: &'a [u8],
    pub value: &'a [u8],
    /// Where in the file the value is.
    pub at: u64,
}

impl Bolt {
    /// `bytes`: how much of the file is the database.
    pub fn open(file: File, bytes: u64) -> Result<Bolt, Error> {
        let (page_bytes, meta) = meta(&file, bytes)?;
        let pages = Pages { file, page_bytes, count: meta.pages.min(bytes / page_bytes) };
        if pages.count < meta.pages {
            let text = format!("it should have {} pages of {page_bytes} bytes, but ends before", meta.pages);
            return Err(Error::Damaged(text));
        }
        let mut buckets = BTreeMap::new();
        pages.each(&Bucket::Root(meta.root), |element| {
            if element.is_bucket {
                buckets.insert(element.key.to_vec(), bucket(&element)?);
            }
            Ok(())
        })?;
        Ok(Bolt { pages, buckets })
    }

    pub fn has(&self, bucket: &str) -> bool {
        self.buckets.contains_key(bucket.as_bytes())
    }

    /// Shows all pairs of a bucket in order of their keys; none, if there is no such bucket.
    pub fn each(
        &self,
        bucket: &str,
        mut visit: impl FnMut(Record<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Some(bucket) = self.buckets.get(bucket.as_bytes()) else { return Ok(()) };
        self.pages.each(bucket, |Element { key, value, at, is_bucket }| match is_bucket {
            true => Ok(()),
            false => visit(Record { key, value, at }),
        })
    }

    /// Part of the file, as a visit said it is there.
    pub fn read(&self, at: u64, length: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; length];
        self.pages.file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }
}

struct Meta {
    root: u64,
    pages: u64,
    transaction: u64,
}

/// The newer of the two pages that say where all begins, of those that are whole. The second is at a place that only the first says,
/// so that without the first it is looked for.
fn meta(file: &File, bytes: u64) -> Result<(u64, Meta), Error> {
    let first = meta_at(file, bytes, 0)?;
    let candidates: Vec<u32> = match &first {
        Some((page_bytes, _)) => vec![*page_bytes],
        None => (9..=20).map(|bits| 1 << bits).collect(),
    };
    let mut found = first;
    for page_bytes in candidates {
        if let Some((said, meta)) = meta_at(file, bytes, u64::from(page_bytes))?
            && said == page_bytes
            && found.as_ref().is_none_or(|(_, other)| other.transaction < meta.transaction)
        {
            found = Some((said, meta));
        }
    }
    found.map(|(page_bytes, meta)| (u64::from(page_bytes), meta)).ok_or(Error::Foreign)
}

fn meta_at(file: &File, bytes: u64, at: u64) -> Result<Option<(u32, Meta)>, Error> {
    let mut page = [0; HEAD + META_BYTES];
    if bytes < at + page.len() as u64 {
        return Ok(None);
    }
    file.read_exact_at(&mut page, at)?;
    let body = &page[HEAD..];
    let page_bytes = u32_at(body, 8);
    let sound = u16_at(&page, 8) & META != 0
        && u32_at(body, 0) == MAGIC
        && u32_at(body, 4) == VERSION
        && PAGE_BYTES.contains(&page_bytes)
        && fnv1a(&body[..56]) == u64_at(body, 56);
    let meta = Meta { root: u64_at(body, 16), pages: u64_at(body, 40), transaction: u64_at(body, 48) };
    Ok(sound.then_some((page_bytes, meta)))
}

struct Element<'a> {
    key: &'a [u8],
    value: &'a [u8],
    at: u64,
    is_bucket: bool,
}

fn bucket(element: &Element<'_>) -> Result<Bucket, Error> {
    if element.value.len() < HEAD {
        return Err(Error::Damaged(format!("the bucket {:?} has no head", element.key.escape_ascii())));
    }
    Ok(match u64_at(element.value, 0) {
        0 => Bucket::Inline(element.value[HEAD..].to_vec(), element.at + HEAD as u64),
        root => Bucket::Root(root),
    })
}

impl Pages {
    fn each(
        &self,
        bucket: &Bucket,
        mut visit: impl FnMut(Element<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let root = match bucket {
            Bucket::Inline(page, at) => return leaf(page, *at, "an inline page", &mut visit),
            Bucket::Root(root) => *root,
        };
        let (mut ahead, mut seen) = (vec![root], 0);
        while let Some(number) = ahead.pop() {
            let page = self.read(number)?;
            seen += page.len() as u64 / self.page_bytes;
            if seen > self.count {
                return Err(Error::Damaged(format!("its pages form a circle, seen at page {number}")));
            }
            let name = format!("page {number}");
            match u16_at(&page, 8) & (BRANCH | LEAF) {
                LEAF => leaf(&page, number * self.page_bytes, &name, &mut visit)?,
                BRANCH => {
                    let below = ahead.len();
                    for index in 0..usize::from(u16_at(&page, 10)) {
                        let element = element(&page, index, &name)?;
                        ahead.push(u64_at(&page, element + 8));
                    }
                    ahead[below..].reverse();
                }
                _ => return Err(Error::Damaged(format!("{name} is neither a branch nor a leaf"))),
            }
        }
        Ok(())
    }

    /// A page with its overflow.
    fn read(&self, number: u64) -> Result<Vec<u8>, Error> {
        let wrong = |what: &str| Error::Damaged(format!("page {number} {what}"));
        if number >= self.count {
            return Err(wrong("lies behind the end"));
        }
        let at = number * self.page_bytes;
        let mut head = [0; HEAD];
        self.file.read_exact_at(&mut head, at)?;
        if u64_at(&head, 0) != number {
            return Err(wrong("has another number on it"));
        }
        let whole = 1 + u64::from(u32_at(&head, 12));
        if whole > self.count - number || whole * self.page_bytes > RUN_BYTES_MAX {
            return Err(wrong("is longer than can be"));
        }
        let mut page = vec![0; usize::try_from(whole * self.page_bytes).map_err(|_| wrong("is too long"))?];
        self.file.read_exact_at(&mut page, at)?;
        Ok(page)
    }
}

fn leaf(
    page: &[u8],
    at: u64,
    name: &str,
    visit: &mut impl FnMut(Element<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    if page.len() < HEAD || u16_at(page, 8) & LEAF == 0 {
        return Err(Error::Damaged(format!("{name} is no leaf")));
    }
    for index in 0..usize::from(u16_at(page, 10)) {
        let element = element(page, index, name)?;
        let field = |offset| u32_at(page, element + offset) as usize;
        // Three lengths of 32 bits each, and a place within a page: no sum of them is out of bounds for 64 bits.
        let key = element + field(4);
        let value = key + field(8);
        let end = value + field(12);
        if end > page.len() {
            return Err(Error::Damaged(format!("pair {index} of {name} ends behind it")));
        }
        visit(Element {
            key: &page[key..value],
            value: &page[value..end],
            at: at + value as u64,
            is_bucket: field(0) & IS_BUCKET as usize != 0,
        })?;
    }
    Ok(())
}

/// Where in its page the element of that number begins.
fn element(page: &[u8], index: usize, name: &str) -> Result<usize, Error> {
    let at = HEAD + index * HEAD;
    match at + HEAD <= page.len() {
        true => Ok(at),
        false => Err(Error::Damaged(format!("{name} has fewer elements than it says"))),
    }
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(fixed(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(fixed(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(fixed(bytes, at))
}

/// Callers have made sure that so many bytes are there.
fn fixed<const LENGTH: usize>(bytes: &[u8], at: usize) -> [u8; LENGTH] {
    let mut fixed = [0; LENGTH];
    fixed.copy_from_slice(&bytes[at..at + LENGTH]);
    fixed
}
