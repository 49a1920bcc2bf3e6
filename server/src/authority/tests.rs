//! The bytes of real clients and of unkind ones, in every way in which a network may cut them.

#![allow(clippy::unwrap_used)]

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::AsyncReadExt;

use super::*;

/// `http://127.0.0.1:17171` and `127.0.0.1:17171` as etcdctl 3.4.23 and 3.5.1 write them: literals that go into the table,
/// in Huffman code.
const URL: &[u8] = b"\x41\x90\x9d\x29\xae\xe3\x0c\x04\x4e\xae\x05\xc0\xb8\x6e\x05\xd0\xba\x1f";
const ADDRESS: &[u8] = b"\x41\x8b\x08\x9d\x5c\x0b\x81\x70\xdc\x0b\xa1\x74\x3f";
/// `#initially=[127.0.0.1:2379]`, as of clientv3 3.5.0.
const LIST: &[u8] =
    b"\x41\x96\xff\xa3\x54\x64\x98\x74\x51\xea\x0f\xfd\x84\x4e\xae\x05\xc0\xb8\x6e\x09\x97\x5f\xff\xe7";
/// `:method: POST` and `:scheme: http` by their numbers.
const BEFORE: &[u8] = b"\x83\x86";
/// `te: trailers`, into the table.
const AFTER: &[u8] = b"\x40\x02te\x86\x4d\x83\x35\x05\xb1\x1f";

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

fn settings() -> Vec<u8> {
    frame(4, 0, 0, &[])
}

fn data(stream: u8) -> Vec<u8> {
    frame(0, END_STREAM, stream, b"\0\0\0\0\x05 data")
}

fn block(authority: &[u8]) -> Vec<u8> {
    [BEFORE, authority, AFTER].concat()
}

fn request(stream: u8, authority: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &block(authority))
}

fn raw(authority: &str) -> Vec<u8> {
    [&[0x41, u8::try_from(authority.len()).unwrap()], authority.as_bytes()].concat()
}

fn connection(frames: &[Vec<u8>]) -> Vec<u8> {
    [PREFACE, &frames.concat()].concat()
}

/// What comes out when the input comes in pieces of this size; and whether the mender has stepped aside.
fn passed(input: &[u8], piece: usize) -> (Vec<u8>, bool) {
    let (mut mender, mut out, mut aside) = (Mender::default(), Vec::new(), false);
    for piece in input.chunks(piece) {
        if aside {
            out.extend_from_slice(piece);
        } else {
            aside = mender.pass(piece, &mut out);
        }
    }
    if !aside {
        mender.give_up(&mut out);
    }
    (out, aside)
}

/// Asserts what comes out, however the input is cut. Returns whether the mender has stepped aside.
#[track_caller]
fn becomes(input: &[u8], expected: &[u8]) -> bool {
    let (out, aside) = passed(input, input.len());
    assert_eq!(out.escape_ascii().to_string(), expected.escape_ascii().to_string());
    for piece in 1..input.len() {
        assert_eq!(passed(input, piece), (out.clone(), aside), "in pieces of {piece}");
    }
    aside
}

#[test]
fn a_sound_authority_ends_the_search() {
    let input = connection(&[settings(), request(1, ADDRESS), data(1), request(3, URL)]);
    // The second request shows that nothing was looked at any more.
    assert!(becomes(&input, &input));
    let named = connection(&[request(1, b"\x40\x0a:authority\x09localhost")]);
    assert!(becomes(&named, &named));
}

#[test]
fn an_endpoint_as_its_user_wrote_it_is_mended() {
    let input = connection(&[settings(), request(1, URL), data(1)]);
    let mended = connection(&[settings(), request(1, &raw("http---127-0-0-1-17171")), data(1)]);
    assert!(!becomes(&input, &mended));
}

#[test]
fn a_list_of_endpoints_is_mended() {
    let input = connection(&[settings(), request(1, LIST), data(1)]);
    let mended = connection(&[settings(), request(1, &raw("-initially--127-0-0-1-2379-")), data(1)]);
    assert!(!becomes(&input, &mended));
}

#[test]
fn it_does_not_matter_how_the_literal_is_written() {
    let mended = connection(&[request(1, &raw("http---h"))]);
    assert!(!becomes(&connection(&[request(1, &raw("http://h"))]), &mended));
    // Not to be added to the table, or never; or with the field's name in full, plain and in Huffman code.
    for form in [&b"\x01"[..], b"\x11", b"\x40\x0a:authority", b"\x40\x88\xb8\x3b\x53\x39\xec\x32\x7d\x7f"] {
        let input = connection(&[request(1, &[form, b"\x08http://h"].concat())]);
        let mended = connection(&[request(1, &[form, b"\x08http---h"].concat())]);
        assert!(!becomes(&input, &mended), "{}", form.escape_ascii());
    }
}

#[test]
fn a_connection_that_needed_it_once_is_mended_to_its_end() {
    // By its number in the table (the newest entry has 62), then in full again.
    let by_number = frame(HEADERS, END_HEADERS | END_STREAM, 3, b"\x83\x86\xbe");
    let input = connection(&[request(1, URL), data(1), by_number.clone(), request(5, URL), data(5)]);
    let authority = raw("http---127-0-0-1-17171");
    let mended = connection(&[request(1, &authority), data(1), by_number, request(5, &authority), data(5)]);
    assert!(!becomes(&input, &mended));
}

#[test]
fn a_block_in_several_frames_is_put_together() {
    let block = block(URL);
    let whole = connection(&[
        settings(),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &self::block(&raw("http---127-0-0-1-17171"))),
        settings(),
    ]);
    for cut in 0..=block.len() {
        let (first, second) = block.split_at(cut);
        let input = connection(&[
            settings(),
            frame(HEADERS, END_STREAM, 1, first),
            frame(CONTINUATION, 0, 1, &[]),
            frame(CONTINUATION, END_HEADERS, 1, second),
            settings(),
        ]);
        assert!(!becomes(&input, &whole), "cut at {cut}");
    }
}

#[test]
fn padding_and_priority_do_not_hide_the_block() {
    let padded = [&[3, 0, 0, 0, 0, 7], block(URL).as_slice(), &[0; 3]].concat();
    let input = connection(&[frame(HEADERS, END_HEADERS | PADDED | PRIORITY, 1, &padded)]);
    assert!(!becomes(&input, &connection(&[request(1, &raw("http---127-0-0-1-17171"))])));
}

#[test]
fn a_mended_block_that_has_become_too_long_for_a_frame_is_cut() {
    // A field that fills the frame but for what the mended literal takes more than the one before.
    let filling = FRAME_BYTES_MAX - BEFORE.len() - URL.len() - 6;
    let mut field = b"\x00\x01y\x7f".to_vec();
    field.extend([0x80 | ((filling - 127) & 0x7f) as u8, ((filling - 127) >> 7) as u8]);
    field.extend(vec![b'x'; filling]);
    let input = connection(&[frame(HEADERS, END_HEADERS, 1, &[BEFORE, URL, &field].concat())]);
    let mended = [BEFORE, &raw("http---127-0-0-1-17171"), &field].concat();
    let (first, second) = mended.split_at(FRAME_BYTES_MAX);
    assert_eq!(second.len(), 6);
    let cut = connection(&[frame(HEADERS, 0, 1, first), frame(CONTINUATION, END_HEADERS, 1, second)]);
    assert_eq!(passed(&input, 1000), (cut, false));
}

#[test]
fn what_is_not_understood_passes_as_it_came() {
    let http1 = b"GET /version HTTP/1.1\r\nHost: http://h\r\n\r\n".to_vec();
    let cut_short = connection(&[frame(HEADERS, END_HEADERS, 1, b"\x83\x41\x90\x9d")]);
    let padding_only = connection(&[frame(HEADERS, END_HEADERS | PADDED, 1, &[9, 0])]);
    let endless_integer =
        connection(&[frame(HEADERS, END_HEADERS, 1, &[0x41, 0x7f, 0xff, 0xff, 0xff, 0xff, 0x7f])]);
    let interrupted = connection(&[frame(HEADERS, 0, 1, &block(URL)), data(1)]);
    let lonely = connection(&[frame(CONTINUATION, END_HEADERS, 1, &block(URL)), request(3, ADDRESS)]);
    let other_symbols = connection(&[request(1, b"\x41\x83\xff\xff\xff")]);
    for input in [http1, cut_short, padding_only, endless_integer, interrupted, lonely, other_symbols] {
        assert!(becomes(&input, &input), "{}", input.escape_ascii());
    }
}

#[test]
fn a_block_without_end_is_not_kept_without_end() {
    let piece = frame(CONTINUATION, 0, 1, &vec![0x80; FRAME_BYTES_MAX]);
    let (mut mender, mut out) = (Mender::default(), Vec::new());
    assert!(!mender.pass(&connection(&[frame(HEADERS, 0, 1, &[])]), &mut out));
    let gave_up = (0..10).position(|_| mender.pass(&piece, &mut out)).unwrap();
    assert!(gave_up <= BLOCK_BYTES_MAX / FRAME_BYTES_MAX);
    // Nor is a frame waited for that says it is too long.
    let mut mender = Mender::default();
    assert!(mender.pass(&[PREFACE, b"\xff\xff\xff\x01\x04\0\0\0\x01"].concat(), &mut out));
}

/// Whatever comes, it does not panic, and what comes out does not hang on how the network cut it.
#[test]
fn chance_input_does_no_harm() {
    let mut chance = StdRng::seed_from_u64(7541);
    for _ in 0..20_000 {
        let mut input = connection(&[settings(), request(1, URL), data(1), request(3, LIST)]);
        for _ in 0..chance.random_range(1..8) {
            let place = chance.random_range(PREFACE.len()..input.len());
            input[place] = chance.random();
        }
        let whole = passed(&input, input.len());
        assert_eq!(passed(&input, chance.random_range(1..input.len())), whole, "{}", input.escape_ascii());
    }
}

/// The wrapper, read through a buffer of every size.
#[tokio::test]
async fn a_reader_gets_all_of_it_whatever_room_it_has() {
    let input = connection(&[settings(), request(1, URL), data(1)]);
    let mended = connection(&[settings(), request(1, &raw("http---127-0-0-1-17171")), data(1)]);
    for room in 1..64 {
        let mut reader = Mended::new(std::io::Cursor::new(input.clone()));
        let mut read = Vec::new();
        let mut buffer = vec![0; room];
        loop {
            let count = reader.read(&mut buffer).await.unwrap();
            if count == 0 {
                break;
            }
            read.extend_from_slice(&buffer[..count]);
        }
        assert_eq!(read, mended, "with room for {room}");
    }
}
