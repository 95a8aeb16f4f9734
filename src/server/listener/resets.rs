//! Counts the calls that a client cancels, from the bytes that it sends.
//!
//! The h2 library counts the canceled calls that wait to be taken up, and no others. A call that is canceled when it has been taken up costs as
//! much as any, and its permit is free for the next one, so a client that does nothing else has the service work without an end.

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A frame begins with its length in three bytes, its kind, its flags, and its stream in four (RFC 9113, section 4.1).
const HEADER: usize = 9;
const RST_STREAM: u8 = 3;

/// Goes along the frames that a client of HTTP/2 sends.
#[derive(Debug)]
pub enum Resets {
    /// So much of the preface has come.
    Preface(usize),
    /// The header of the next frame, as far as it has arrived, and the rest of the frame before it.
    Frames { header: [u8; HEADER], come: usize, left: usize },
    /// The client speaks something else.
    Other,
}

impl Resets {
    /// At the beginning of a connection.
    pub fn new() -> Self {
        Resets::Preface(0)
    }

    /// Counts the calls that these further bytes cancel.
    pub fn among(&mut self, mut bytes: &[u8]) -> u32 {
        let mut resets = 0;
        while !bytes.is_empty() {
            match self {
                Resets::Other => return resets,
                Resets::Preface(come) => {
                    let wanted = &PREFACE[*come..];
                    let length = wanted.len().min(bytes.len());
                    if bytes[..length] != wanted[..length] {
                        *self = Resets::Other;
                        return resets;
                    }
                    bytes = &bytes[length..];
                    *come += length;
                    if *come == PREFACE.len() {
                        *self = Resets::Frames { header: [0; HEADER], come: 0, left: 0 };
                    }
                }
                Resets::Frames { left, .. } if *left > 0 => {
                    let length = bytes.len().min(*left);
                    bytes = &bytes[length..];
                    *left -= length;
                }
                Resets::Frames { header, come, left } => {
                    let length = bytes.len().min(HEADER - *come);
                    header[*come..*come + length].copy_from_slice(&bytes[..length]);
                    bytes = &bytes[length..];
                    *come += length;
                    if *come == HEADER {
                        *left = header[..3]
                            .iter()
                            .fold(0, |length, byte| length << 8 | usize::from(*byte));
                        resets += u32::from(header[3] == RST_STREAM);
                        *come = 0;
                    }
                }
            }
        }
        resets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 1], payload].concat()
    }

    #[test]
    fn canceled_calls_are_counted_wherever_the_bytes_are_cut() {
        let frames = [
            frame(4, b""),
            frame(1, &[RST_STREAM; 300]),
            frame(3, &[0; 4]),
            frame(0, &[3; 40]),
            frame(3, &[0; 4]),
        ]
        .concat();
        let sent = [PREFACE, &frames].concat();
        for size in 1..sent.len() {
            let mut resets = Resets::new();
            assert_eq!(
                sent.chunks(size).map(|chunk| resets.among(chunk)).sum::<u32>(),
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
            assert_eq!(Resets::new().among(&sent), 0);
        }
    }
}
