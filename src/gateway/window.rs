//! How far back what is compressed by zstd refers: the window that each of its frames declares (RFC 8878, section 3.1.1), which a decoder keeps in memory.

use bytes::{Buf, Bytes};

/// The beginning of a frame.
const MAGIC: u32 = 0xfd2f_b528;
/// The most bytes of a header, its magic number included.
const HEADER_AT_MOST: usize = 18;

/// Finds the windows of the frames of a body as it passes.
#[derive(Debug, Default)]
pub struct Windows {
    part: Part,
    /// The bytes of a header that have arrived.
    partial: Vec<u8>,
    largest: usize,
}

/// The next part.
#[derive(Clone, Copy, Debug, Default)]
enum Part {
    #[default]
    Frame,
    Block {
        has_checksum: bool,
    },
    /// So many bytes, and then a block if there is another, and a checksum.
    Content {
        left: usize,
        then: After,
    },
    /// It is not zstd, which the decoder says.
    Lost,
}

#[derive(Clone, Copy, Debug)]
enum After {
    Frame,
    Block { has_checksum: bool },
}

impl Windows {
    /// These bytes pass. Returns the largest window so far.
    pub fn pass(&mut self, data: &Bytes) -> usize {
        let mut data = data.clone();
        while !data.is_empty() {
            match self.part {
                Part::Lost => return self.largest,
                Part::Content { left, then } => {
                    let passed = left.min(data.len());
                    data.advance(passed);
                    self.part = match (left - passed, then) {
                        (0, After::Frame) => Part::Frame,
                        (0, After::Block { has_checksum }) => Part::Block { has_checksum },
                        (left, then) => Part::Content { left, then },
                    };
                }
                Part::Frame => {
                    self.partial.push(data.get_u8());
                    self.frame();
                }
                Part::Block { has_checksum } => {
                    self.partial.push(data.get_u8());
                    self.block(has_checksum);
                }
            }
        }
        self.largest
    }

    fn frame(&mut self) {
        let Some(magic) = self.partial.first_chunk::<4>().map(|magic| u32::from_le_bytes(*magic))
        else {
            return;
        };
        if magic & 0xffff_fff0 == 0x184d_2a50 {
            // A frame to skip, with its length.
            let Some(left) = self
                .partial
                .get(4..8)
                .and_then(|length| length.try_into().ok())
                .map(u32::from_le_bytes)
            else {
                return;
            };
            return self.go_on(Part::Content { left: left as usize, then: After::Frame });
        }
        let Some(descriptor) = self.partial.get(4).filter(|_| magic == MAGIC).copied() else {
            if magic != MAGIC {
                self.go_on(Part::Lost);
            }
            return;
        };
        let is_single = descriptor & 0x20 != 0;
        let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
        let size = [usize::from(is_single), 2, 4, 8][usize::from(descriptor >> 6)];
        let window = usize::from(!is_single);
        if self.partial.len() < 5 + window + dictionary + size {
            debug_assert!(self.partial.len() < HEADER_AT_MOST);
            return;
        }
        let bytes = if is_single {
            let size = self.partial[5 + dictionary..]
                .iter()
                .rev()
                .fold(0, |size, byte| size << 8 | u64::from(*byte));
            usize::try_from(size + if self.partial.len() == 5 + dictionary + 2 { 256 } else { 0 })
                .unwrap_or(usize::MAX)
        } else {
            let base =
                1_usize.checked_shl(10 + u32::from(self.partial[5] >> 3)).unwrap_or(usize::MAX);
            base.saturating_add(base / 8 * usize::from(self.partial[5] & 7))
        };
        self.largest = self.largest.max(bytes);
        self.go_on(Part::Block { has_checksum: descriptor & 4 != 0 });
    }

    fn block(&mut self, has_checksum: bool) {
        let [first, second, third] = self.partial[..] else { return };
        let header = u32::from_le_bytes([first, second, third, 0]);
        // Of a block that is one byte many times, that byte is there.
        let size = if header >> 1 & 3 == 1 { 1 } else { (header >> 3) as usize };
        let (left, then) = match header & 1 {
            0 => (size, After::Block { has_checksum }),
            _ => (size + if has_checksum { 4 } else { 0 }, After::Frame),
        };
        self.go_on(match (left, then) {
            (0, After::Frame) => Part::Frame,
            (0, After::Block { has_checksum }) => Part::Block { has_checksum },
            (left, then) => Part::Content { left, then },
        });
    }

    fn go_on(&mut self, part: Part) {
        self.part = part;
        self.partial.clear();
    }
}

#[cfg(test)]
mod tests {
    use async_compression::Level;
    use async_compression::tokio::bufread::ZstdEncoder;
    use async_compression::zstd::CParameter;
    use tokio::io::AsyncReadExt;

    use super::*;

    async fn frame(data: &[u8], parameters: &[CParameter]) -> Vec<u8> {
        let mut packed = Vec::new();
        ZstdEncoder::with_quality_and_params(data, Level::Fastest, parameters)
            .read_to_end(&mut packed)
            .await
            .unwrap();
        packed
    }

    #[tokio::test]
    async fn the_largest_window_of_all_frames_is_found_wherever_the_chunks_end() {
        let data: Vec<u8> =
            (0..400_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let skipped = [&0x184d_2a53_u32.to_le_bytes()[..], &5_u32.to_le_bytes(), b"12345"].concat();
        let small = frame(&data, &[CParameter::window_log(17)]).await;
        let large =
            frame(&data, &[CParameter::window_log(21), CParameter::checksum_flag(true)]).await;
        let empty = frame(b"", &[CParameter::checksum_flag(true)]).await;
        for size in [1, 3, 7, 4096, 1 << 24] {
            let found = |parts: &[&[u8]]| {
                let mut windows = Windows::default();
                let body = parts.concat();
                body.chunks(size)
                    .map(|chunk| windows.pass(&Bytes::copy_from_slice(chunk)))
                    .last()
                    .unwrap()
            };
            assert_eq!(found(&[&small, &skipped, &empty, &small]), found(&[&small]), "{size}");
            assert!((1 << 17..1 << 18).contains(&found(&[&small])), "{size}");
            assert_eq!(found(&[&small, &empty, &skipped, &large, &small]), 1 << 21, "{size}");
            assert_eq!(found(&[b"nothing of the kind"]), 0);
        }
    }
}
