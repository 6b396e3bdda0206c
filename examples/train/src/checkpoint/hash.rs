//! A hash of files and rows, to see later whether they are still the same.

/// A hash for changes that happen, not for those that someone makes to deceive. Eight bytes at a time; each
/// step is a bijection of the state, so one changed word changes the result.
#[derive(Clone, Copy)]
pub struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }
}

impl Hash {
    fn word(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd);
        // without this the high bits of a word would reach no other bit
        self.0 ^= self.0 >> 32;
    }

    /// Bytes, filled up with zeros to a multiple of eight.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.word(u64::from_le_bytes(word));
        }
    }

    /// A text with its length.
    pub fn text(&mut self, text: &str) {
        self.word(text.len() as u64);
        self.bytes(text.as_bytes());
    }

    /// Numbers of four bytes, such as ids, with their count.
    pub fn ids(&mut self, ids: &[u32]) {
        self.word(ids.len() as u64);
        for two in ids.chunks(2) {
            let high = two.get(1).copied().unwrap_or_default();
            self.word(u64::from(two[0]) | u64::from(high) << 32);
        }
    }

    /// Their bits, with their count.
    pub fn numbers(&mut self, numbers: &[f32]) {
        let bits = numbers.iter().map(|number| number.to_bits());
        self.ids(&bits.collect::<Vec<_>>());
    }

    pub fn hex(&self) -> String {
        format!("{:016x}", self.0)
    }
}
