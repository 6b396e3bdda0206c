//! Words as the package rouge-score splits them, and the longest common subsequence of two lists of words.
//!
//! ROUGE-L counts both: it filters instructions in [`data`](crate::data), and it scores answers against
//! references.

use std::collections::HashMap;
use std::hash::Hash;

/// Python's white space, which has four control characters more than Unicode's.
pub(crate) fn is_blank(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// The words of a text: lower case, and everything except a–z and 0–9 separates them. This is the
/// tokenizer of rouge-score without its stemmer.
pub(crate) fn rouge_words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    lower
        .split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit())
        .filter(|word| !word.is_empty())
        .map(str::to_string)
        .collect()
}

/// 2PR/(P + R) with P = common/first and R = common/second, in rouge-score's order of operations; 0 if
/// nothing is common.
pub(crate) fn f_measure(common: usize, first: usize, second: usize) -> f64 {
    if common == 0 {
        return 0.0;
    }
    let (precision, recall) = (common as f64 / first as f64, common as f64 / second as f64);
    2.0 * precision * recall / (precision + recall)
}

/// One sequence, prepared for its longest common subsequence with many others.
///
/// Bit i of a row of the dynamic program is 0 where the length grows at position i. A row follows from the
/// one before it by one addition, 64 positions at a time:
///
/// ```text
/// V ← (V + (V ∧ M)) ∨ (V ∧ ¬M)      M: the positions of the other sequence's element
/// ```
pub(crate) struct Common<T> {
    length: usize,
    /// Where each element stands: 64 positions to a word.
    positions: HashMap<T, Vec<u64>>,
    words: usize,
}

impl<T: Eq + Hash + Clone> Common<T> {
    pub(crate) fn new(sequence: &[T]) -> Self {
        let words = sequence.len().div_ceil(64);
        let mut positions: HashMap<T, Vec<u64>> = HashMap::new();
        for (i, element) in sequence.iter().enumerate() {
            let of = positions.entry(element.clone());
            of.or_insert_with(|| vec![0; words])[i / 64] |= 1 << (i % 64);
        }
        Self {
            length: sequence.len(),
            positions,
            words,
        }
    }

    /// The length of the longest common subsequence with `other`.
    pub(crate) fn with(&self, other: &[T]) -> usize {
        if self.words == 1 {
            return self.with_one_word(other);
        }
        let mut row = vec![u64::MAX; self.words];
        for element in other {
            let Some(found) = self.positions.get(element) else {
                continue;
            };
            let mut carry = false;
            for (v, m) in row.iter_mut().zip(found) {
                let (sum, first) = v.overflowing_add(*v & m);
                let (sum, second) = sum.overflowing_add(carry.into());
                carry = first || second;
                *v = sum | (*v & !m);
            }
        }
        self.grown(&row)
    }

    fn with_one_word(&self, other: &[T]) -> usize {
        let mut row = u64::MAX;
        for element in other {
            if let Some(found) = self.positions.get(element) {
                row = row.wrapping_add(row & found[0]) | (row & !found[0]);
            }
        }
        self.grown(&[row])
    }

    /// The zeros at the positions of the sequence.
    fn grown(&self, row: &[u64]) -> usize {
        let used = |word: usize| match self.length - 64 * word {
            left @ 0..64 => (1 << left) - 1,
            _ => u64::MAX,
        };
        let zeros = row.iter().enumerate().map(|(word, v)| !v & used(word));
        zeros.map(|zeros| zeros.count_ones() as usize).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The table of the dynamic program.
    fn table(a: &[u32], b: &[u32]) -> usize {
        let mut row = vec![0; b.len() + 1];
        for x in a {
            let mut diagonal = 0;
            for (j, y) in b.iter().enumerate() {
                let up = row[j + 1];
                row[j + 1] = if x == y { diagonal + 1 } else { up.max(row[j]) };
                diagonal = up;
            }
        }
        row[b.len()]
    }

    proptest! {
        #[test]
        fn bits_and_table_give_one_length(
            a in proptest::collection::vec(0u32..6, 0..200),
            b in proptest::collection::vec(0u32..6, 0..200),
        ) {
            prop_assert_eq!(Common::new(&a).with(&b), table(&a, &b));
            prop_assert_eq!(Common::new(&b).with(&a), table(&a, &b));
        }

        #[test]
        fn words_with_common_parts_at_the_seams_of_64(n in 60usize..70, m in 124usize..132) {
            let (a, b): (Vec<u32>, Vec<u32>) = ((0..n as u32).collect(), (0..m as u32).collect());
            prop_assert_eq!(Common::new(&a).with(&b), n);
            prop_assert_eq!(Common::new(&b).with(&a), n);
        }
    }

    #[test]
    fn words_are_runs_of_small_letters_and_digits_after_lower_casing() {
        assert_eq!(
            rouge_words("Don't  SAY café-2!"),
            ["don", "t", "say", "caf", "2"]
        );
        // the Kelvin sign and the dotted capital I become ASCII letters in lower case
        assert_eq!(rouge_words("\u{212a}g \u{130}s"), ["kg", "i", "s"]);
        assert!(rouge_words("…, –").is_empty());
    }

    #[test]
    fn the_measure_is_twice_the_common_length_over_both_lengths() {
        assert!((f_measure(3, 4, 6) - 2.0 * 3.0 / 10.0).abs() < 1e-15);
        assert_eq!(f_measure(0, 0, 5), 0.0);
        assert_eq!(f_measure(2, 2, 2), 1.0);
    }
}
