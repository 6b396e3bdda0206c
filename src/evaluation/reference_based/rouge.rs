//! ROUGE: n-grams and longest common subsequences, as Google's rouge-score computes them.
//!
//! | paper | here |
//! |---|---|
//! | ROUGE-N | [`rouge_n`] |
//! | ROUGE-L, sentence level | [`rouge_l`] |
//! | ROUGE-L, summary level | [`rouge_l_sum`] |
//! | β of F | 1 |

use super::bleu::ngrams;
use super::overlap::Overlap;
use super::porter::porter_stem;
use super::subsequence;
use crate::error::{Result, require};
use crate::text::{Common, rouge_words};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};

/// Whether words are cut to their stems before they are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stemmer {
    /// Words are compared as they are: rouge-score's default, and that of Self-Instruct.
    #[default]
    None,
    /// Words of more than three letters are stemmed by [`porter_stem`]: `use_stemmer=True`, the habit of
    /// papers on summaries.
    Porter,
}

/// The tokens of rouge-score: lower-case runs of a–z and 0–9.
///
/// Everything else separates, letters with accents too, and texts in other scripts have no token: both are
/// rouge-score's rules.
///
/// ```
/// use candle_align::evaluation::reference_based::{Stemmer, rouge_tokens};
///
/// assert_eq!(rouge_tokens("Naïve cats' ideas", Stemmer::None), ["na", "ve", "cats", "ideas"]);
/// assert_eq!(rouge_tokens("Naïve cats' ideas", Stemmer::Porter), ["na", "ve", "cat", "idea"]);
/// ```
pub fn rouge_tokens(text: &str, stemmer: Stemmer) -> Vec<String> {
    let words = rouge_words(text).into_iter();
    let token = |word: String| match stemmer == Stemmer::Porter && word.len() > 3 {
        true => porter_stem(&word),
        false => word,
    };
    words.map(token).collect()
}

/// ROUGE-N: n-grams that text and reference share.
///
/// # Equation
/// ```text
/// hits = Σ_ngrams min(count in text, count in reference)
/// P = hits / ngrams of the text,   R = hits / ngrams of the reference,   F = 2PR/(P + R)
/// ```
/// # Shapes
/// Two texts and n.
/// # Errors
/// [`Error::Parameter`](crate::Error::Parameter) if n is 0.
/// # Properties
/// * Exchanging the texts exchanges P and R and leaves F. Both equal and n tokens long or longer: all 1.
/// * A text without n-grams has 0 in all three, and so does its reference.
/// # Departures
/// None from rouge-score 0.1.2, which knows n up to 9. The paper's ROUGE-N is R alone. Several references:
/// [`Overlap::best_of`], as rouge-score's `score_multi`; the paper also averages over leave-one-out sets.
/// # Examples
/// ```
/// use candle_align::evaluation::reference_based::{Stemmer, rouge_n};
///
/// let score = rouge_n("the cat sat", "the cat was sitting", 1, Stemmer::None)?;
/// assert_eq!((score.precision, score.recall), (2.0 / 3.0, 2.0 / 4.0));
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Lin 2004, ACL (the paper has no arXiv number); code, a web page: google-research/rouge, rouge-score 0.1.2,
/// `rouge_scorer.py`, `_score_ngrams`.
pub fn rouge_n(text: &str, reference: &str, n: usize, stemmer: Stemmer) -> Result<Overlap> {
    require(n >= 1, "rouge_n", "n", "at least 1", n)?;
    let (text, reference) = (
        rouge_tokens(text, stemmer),
        rouge_tokens(reference, stemmer),
    );
    let (text, reference) = (ngrams(&text, n), ngrams(&reference, n));
    let shared = reference.iter().map(|(ngram, &count)| {
        let other = text.get(ngram).copied().unwrap_or(0);
        count.min(other)
    });
    let total = |counts: &HashMap<&[String], usize>| counts.values().sum();
    Ok(Overlap::of_counts(
        shared.sum(),
        total(&text),
        total(&reference),
    ))
}

/// ROUGE-L: the longest common subsequence of text and reference.
///
/// # Equation
/// ```text
/// P = LCS / tokens of the text,   R = LCS / tokens of the reference,   F = 2PR/(P + R)
/// ```
/// # Shapes
/// Two texts; line ends are white space.
/// # Errors
/// None.
/// # Properties
/// * Exchanging the texts exchanges P and R and leaves F. ROUGE-1 is never lower: a common subsequence is
///   a common bag of words.
/// * F ≤ 0.7 against every kept instruction is Self-Instruct's test of novelty, without a stemmer.
/// # Departures
/// None from rouge-score 0.1.2. The paper weighs R by β, and evaluates with a large one; F has β = 1 here,
/// as in rouge-score.
/// # Examples
/// ```
/// use candle_align::evaluation::reference_based::{Stemmer, rouge_l};
///
/// let score = rouge_l("police ended the gunman", "police killed the gunman", Stemmer::None);
/// assert_eq!(score.f1, 0.75);
/// ```
/// # Source
/// Lin 2004, ACL (the paper has no arXiv number); code, a web page: google-research/rouge, rouge-score 0.1.2,
/// `rouge_scorer.py`, `_score_lcs`. The use in Self-Instruct: Wang et al. 2022, arXiv:2212.10560v2.
pub fn rouge_l(text: &str, reference: &str, stemmer: Stemmer) -> Overlap {
    let (text, reference) = (
        rouge_tokens(text, stemmer),
        rouge_tokens(reference, stemmer),
    );
    let common = Common::new(&reference).with(&text);
    Overlap::of_counts(common, text.len(), reference.len())
}

/// ROUGE-Lsum: for each line of the reference, the union of its subsequences with all lines of the text.
///
/// # Equation
/// ```text
/// hits = Σ_lines │ ∪_j LCS(line of the reference, line j of the text) │,   each token of a text counted once
/// P = hits / tokens of the text,   R = hits / tokens of the reference,   F = 2PR/(P + R)
/// ```
/// # Shapes
/// Two texts, one sentence a line. Split sentences with "\n" before the call.
/// # Errors
/// None.
/// # Properties
/// * Texts of one line each: [`rouge_l`]. A line of the text may match across lines of the reference, so
///   the order of sentences costs nothing.
/// * A token is not counted more often than it occurs in either text.
/// # Departures
/// None from rouge-score 0.1.2. The paper adds up the unions without the rule that a token counts
/// once; ROUGE 1.5.5 and rouge-score have it. Where a line has several longest subsequences, rouge-score's
/// choice is taken: it decides which tokens are in the union. The option that splits sentences by a model
/// is not here.
/// # Examples
/// ```
/// use candle_align::evaluation::reference_based::{Stemmer, rouge_l_sum};
///
/// // the paper's example: w1 w2 from the first line, w1 w3 w5 from the second; a union of four
/// let score = rouge_l_sum("w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5", "w1 w2 w3 w4 w5", Stemmer::None);
/// assert_eq!(score.recall, 4.0 / 5.0);
/// ```
/// # Source
/// Lin 2004, ACL (the paper has no arXiv number), §3.2; code, a web page: google-research/rouge,
/// rouge-score 0.1.2, `rouge_scorer.py`, `_summary_level_lcs`.
pub fn rouge_l_sum(text: &str, reference: &str, stemmer: Stemmer) -> Overlap {
    let lines = |text: &str| -> Vec<Vec<String>> {
        let lines = text.split('\n').filter(|line| !line.is_empty());
        lines.map(|line| rouge_tokens(line, stemmer)).collect()
    };
    let (text, reference) = (lines(text), lines(reference));
    let (mut left, mut wanted) = (occurrences(&text), occurrences(&reference));
    let mut hits = 0;
    for line in &reference {
        let union: BTreeSet<usize> = text
            .iter()
            .flat_map(|other| subsequence::positions(line, other))
            .collect();
        for at in union {
            let token = line[at].as_str();
            if let (Some(a @ 1..), Some(b @ 1..)) = (left.get_mut(token), wanted.get_mut(token)) {
                (*a, *b) = (*a - 1, *b - 1);
                hits += 1;
            }
        }
    }
    let tokens = |lines: &[Vec<String>]| lines.iter().map(Vec::len).sum();
    Overlap::of_counts(hits, tokens(&text), tokens(&reference))
}

/// How often each token occurs in all lines.
fn occurrences(lines: &[Vec<String>]) -> HashMap<&str, usize> {
    let mut counts = HashMap::new();
    for token in lines.iter().flatten() {
        *counts.entry(token.as_str()).or_default() += 1;
    }
    counts
}
