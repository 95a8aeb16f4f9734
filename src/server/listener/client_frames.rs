//! What a client of HTTP/2 sends, frame by frame: the calls that it cancels, and whether it is in the middle of a request's headers.
//!
//! The h2 library counts the canceled calls that wait to be taken up, and no others. A call that is canceled when it has been taken up costs as
//! much as any, and its permit is free for the next one, so a client that does nothing else has the service work without an end. Nor does the
//! library limit the time that headers may take.

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A frame begins with its length in three bytes, its kind, its flags, and its stream in four (RFC 9113, section 4.1).
const HEADER: usize = 9;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;
/// The flag of the frame that ends the headers of a request (RFC 9113, section 6.2).
const END_HEADERS: u8 = 4;

/// Goes along the frames that a client of HTTP/2 sends.
#[derive(Debug)]
pub struct ClientFrames {
    at: At,
    /// Grows whenever no headers are pending, so it names the ones that are.
    passed: u64,
}

/// How far it has come.
#[derive(Debug)]
enum At {
    /// So much of the preface has come.
    Preface(usize),
    /// The header of the next frame, as far as it has arrived, the rest of the frame before it, and the headers of a request.
    Frames { header: [u8; HEADER], come: usize, left: usize, head: Head },
    /// The client speaks something else.
    Other,
}

/// Where the headers of a request are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Head {
    /// There are none, or all have arrived.
    Whole,
    /// Another frame of them must follow.
    Continued,
    /// This frame is their last.
    Ending,
}

impl ClientFrames {
    /// At the beginning of a connection.
    pub fn new() -> Self {
        ClientFrames { at: At::Preface(0), passed: 0 }
    }

    /// The number of the request whose headers have begun and not all arrived, as far as is known: a frame of which only a part of its own header
    /// has arrived may turn out to be another's.
    pub fn head(&self) -> Option<u64> {
        let is_within =
            matches!(&self.at, At::Frames { come, head, .. } if *come > 0 || *head != Head::Whole);
        is_within.then_some(self.passed)
    }

    /// Goes along these further bytes, and counts the calls that they cancel.
    pub fn follow(&mut self, mut bytes: &[u8]) -> u32 {
        let mut resets = 0;
        while !bytes.is_empty() {
            match &mut self.at {
                At::Other => return resets,
                At::Preface(come) => {
                    let wanted = &PREFACE[*come..];
                    let length = wanted.len().min(bytes.len());
                    if bytes[..length] != wanted[..length] {
                        self.at = At::Other;
                        return resets;
                    }
                    bytes = &bytes[length..];
                    *come += length;
                    if *come == PREFACE.len() {
                        self.at =
                            At::Frames { header: [0; HEADER], come: 0, left: 0, head: Head::Whole };
                    }
                }
                At::Frames { left, head, .. } if *left > 0 => {
                    let length = bytes.len().min(*left);
                    bytes = &bytes[length..];
                    *left -= length;
                    head.ends_with(*left);
                }
                At::Frames { header, come, left, head } => {
                    let length = bytes.len().min(HEADER - *come);
                    header[*come..*come + length].copy_from_slice(&bytes[..length]);
                    bytes = &bytes[length..];
                    *come += length;
                    if *come == HEADER {
                        *left = header[..3]
                            .iter()
                            .fold(0, |length, byte| length << 8 | usize::from(*byte));
                        resets += u32::from(header[3] == RST_STREAM);
                        if let HEADERS | CONTINUATION = header[3] {
                            let is_last = header[4] & END_HEADERS != 0;
                            *head = if is_last { Head::Ending } else { Head::Continued };
                        }
                        head.ends_with(*left);
                        *come = 0;
                    }
                }
            }
            self.passed += u64::from(self.head().is_none());
        }
        resets
    }
}

impl Head {
    /// So much is left of the frame.
    fn ends_with(&mut self, left: usize) {
        if left == 0 && *self == Head::Ending {
            *self = Head::Whole;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        frame_with(kind, 0, payload)
    }

    fn frame_with(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    #[test]
    fn canceled_calls_are_counted_wherever_the_bytes_are_cut() {
        let sent = [
            frame(4, b""),
            frame(1, &[RST_STREAM; 300]),
            frame(3, &[0; 4]),
            frame(0, &[3; 40]),
            frame(3, &[0; 4]),
        ]
        .concat();
        let sent = [PREFACE, &sent].concat();
        for size in 1..sent.len() {
            let mut frames = ClientFrames::new();
            assert_eq!(
                sent.chunks(size).map(|chunk| frames.follow(chunk)).sum::<u32>(),
                2,
                "{size}"
            );
        }
    }

    #[test]
    fn other_protocols_cancel_nothing() {
        for sent in [
            b"POST /\x00\x00\x04\x03".repeat(100),
            b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".repeat(9),
            vec![0x16, 3, 1, 0, 0, 0, 3, 3],
        ] {
            assert_eq!(ClientFrames::new().follow(&sent), 0);
        }
    }

    #[test]
    fn headers_are_whole_with_the_last_byte_of_their_last_frame() {
        let within = |sent: &[u8]| {
            let mut frames = ClientFrames::new();
            frames.follow(PREFACE);
            frames.follow(&frame(4, b""));
            frames.follow(sent);
            frames.head().is_some()
        };
        let body = frame(0, &[1; 40]);
        for head in [
            frame_with(HEADERS, END_HEADERS, b"abc"),
            frame_with(HEADERS, END_HEADERS, b""),
            [frame(HEADERS, b"abc"), frame_with(CONTINUATION, END_HEADERS, b"de")].concat(),
            [
                frame(HEADERS, b""),
                frame(CONTINUATION, b""),
                frame_with(CONTINUATION, END_HEADERS, b""),
            ]
            .concat(),
        ] {
            for length in 1..head.len() {
                assert!(within(&head[..length]), "{length} of {head:?}");
            }
            assert!(!within(&head), "{head:?}");
            let whole = [head, body.clone()].concat();
            assert!(!within(&whole) && !within(&whole[..whole.len() - 1]), "{whole:?}");
        }
        assert!(!within(b""));
        let mut frames = ClientFrames::new();
        frames.follow(b"POST / HTTP/1.1");
        assert!(frames.head().is_none());
    }

    #[test]
    fn the_headers_of_the_next_request_are_other_ones() {
        let (first, second) = (frame_with(HEADERS, END_HEADERS, b"abc"), frame(HEADERS, b"abc"));
        let mut frames = ClientFrames::new();
        frames.follow(PREFACE);
        frames.follow(&first[..4]);
        let one = frames.head();
        frames.follow(&first[4..10]);
        assert_eq!(frames.head(), one);
        frames.follow(&[&first[10..], &second].concat());
        let other = frames.head();
        assert!(one.is_some() && other.is_some() && one != other);
        frames.follow(&frame(CONTINUATION, b"de"));
        assert_eq!(frames.head(), other);
    }
}
