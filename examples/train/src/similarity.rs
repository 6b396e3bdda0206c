//! The similarity of two answers, on which the margin of SLiC's margin form depends.
//!
//! The paper takes an F value over the model's own decoder states, on spans of tokens. Here it is
//! the F value over words, ROUGE-1. It needs no model, never changes, and can be checked by hand. It
//! ignores order and meaning.

use std::collections::HashMap;

/// F₁ of the words of two texts, as bags: 2 · common / (words of a + words of b), in [0, 1].
///
/// A word is a run of letters and digits, in lower case; two texts without words are alike.
pub fn f_score(a: &str, b: &str) -> f64 {
    let (a, b) = (bag(a), bag(b));
    let count = |bag: &HashMap<String, usize>| bag.values().sum::<usize>();
    let common: usize = a
        .iter()
        .map(|(word, n)| n.min(b.get(word).unwrap_or(&0)))
        .sum();
    match count(&a) + count(&b) {
        0 => 1.0,
        total => 2.0 * common as f64 / total as f64,
    }
}

fn bag(text: &str) -> HashMap<String, usize> {
    let mut bag = HashMap::new();
    let words = text.split(|c: char| !c.is_alphanumeric());
    for word in words.filter(|word| !word.is_empty()) {
        *bag.entry(word.to_lowercase()).or_insert(0) += 1;
    }
    bag
}

#[cfg(test)]
mod tests {
    use super::f_score;

    #[test]
    fn words_in_common_count_as_often_as_both_have_them() {
        // "the" twice and once, "cat" once each: 2 · 2 / (3 + 4)
        assert_eq!(f_score("The cat, the", "the cat sat down"), 4.0 / 7.0);
        assert_eq!(f_score("the cat sat down", "The cat, the"), 4.0 / 7.0);
        assert_eq!(f_score("B a", "a (b)!"), 1.0);
        assert_eq!(f_score("a", "b"), 0.0);
        assert_eq!((f_score("", "…"), f_score("", "a")), (1.0, 0.0));
    }
}
