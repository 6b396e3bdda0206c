//! BLEU: clipped n-gram precision with a penalty for brevity, as sacrebleu computes it.
//!
//! | paper | here |
//! |---|---|
//! | pₙ | [`Bleu::precisions`] |
//! | BP | [`Bleu::brevity_penalty`] |
//! | N, wₙ = 1/N | [`BleuConfig::order`] |
//! | c, r | [`Bleu::length`], [`Bleu::reference_length`] |

use super::thirteen_a::tokenize_13a;
use crate::error::{Error, Result, positive, require};
use crate::evaluation::statistics::require_length;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// What is done where no n-gram of some order matches, which would make the product 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BleuSmoothing {
    /// The k-th such order counts 1/2ᵏ matches. sacrebleu's default, `exp`.
    #[default]
    Exponential,
    /// Such an order counts this many matches; sacrebleu's `floor`, which has 0.1.
    Floor(f64),
    /// This many is added to matches and total of every order above 1; sacrebleu's `add-k`, which has 1.
    AddK(f64),
    /// Nothing: the score is 0.
    None,
}

/// Settings of [`corpus_bleu`] and [`sentence_bleu`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BleuConfig {
    /// N ≥ 1, the longest n-grams. Default 4, the paper's value (§2.3).
    pub order: usize,
    /// What is done where no n-gram matches. Default exponential, sacrebleu's; the paper has none.
    pub smoothing: BleuSmoothing,
    /// Whether orders that the text is too short for are left out of the mean. Default false, as in
    /// sacrebleu for corpora; its `sentence_bleu` sets it.
    pub effective_order: bool,
    /// Whether case is ignored. Default false.
    pub lowercase: bool,
}

impl Default for BleuConfig {
    fn default() -> Self {
        Self {
            order: 4,
            smoothing: BleuSmoothing::default(),
            effective_order: false,
            lowercase: false,
        }
    }
}

/// A BLEU score and what it is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Bleu {
    /// BLEU, from 0 to 100.
    pub score: f64,
    /// pₙ after smoothing, from 0 to 100, for n = 1 … N.
    pub precisions: Vec<f64>,
    /// The clipped matches of each order, before smoothing.
    pub matches: Vec<usize>,
    /// The n-grams of each order, before smoothing.
    pub totals: Vec<usize>,
    /// BP.
    pub brevity_penalty: f64,
    /// c, the tokens of the texts.
    pub length: usize,
    /// r, the tokens of the references that are closest in length.
    pub reference_length: usize,
}

/// BLEU of a corpus: counts are summed over all texts before anything is divided.
///
/// # Equation
/// ```text
/// BLEU = 100 · BP · exp( (1/N) Σₙ log pₙ )
/// pₙ   = Σ_texts Σ_ngrams min( count, max over references of count ) / Σ_texts Σ_ngrams count
/// BP   = 1 if c ≥ r, else e^{1 − r/c}
/// ```
/// r adds, for each text, the length of the reference that is closest in length, the shorter of two equally
/// close ones.
/// # Shapes
/// `texts` and `references` of equal length; one or more references for each text, and not the same number
/// for all. sacrebleu wants the transpose: one list of all first references, one of all second ones.
/// # Errors
/// [`Error::Argument`] if there is no text, the lengths differ, or a text has no reference;
/// [`Error::Parameter`] unless N ≥ 1 and the smoothing's number is finite and above 0.
/// # Properties
/// * A text that is its own reference has 100, if any text of the corpus has N tokens. The order of texts and
///   of references does not matter.
/// * Corpus BLEU is not the mean of sentence BLEUs: a long text weighs more, and no text needs a match of
///   its own.
/// * A further reference never lowers a match count, but it may raise r.
/// * No match of any order at all is 0, whatever the smoothing.
/// # Departures
/// None from sacrebleu 2.6 with the tokenizer 13a, to the last bit of the counts. The paper smooths nothing.
/// BLEU of other tokenizations differs by points: name sacrebleu's signature,
/// `nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp`, with the default settings here.
/// # Examples
/// ```
/// use candle_align::evaluation::reference_based::corpus_bleu;
///
/// let texts = ["the cat sat on the mat"];
/// let references = [vec!["the cat sat on a mat"]];
/// let bleu = corpus_bleu(&texts, &references, &Default::default())?;
/// // matches 5 of 6, 3 of 5, 2 of 4, 1 of 3
/// let mean = [5.0 / 6.0, 3.0 / 5.0, 2.0 / 4.0, 1.0 / 3.0].map(f64::ln).iter().sum::<f64>() / 4.0;
/// assert!((bleu.score - 100.0 * mean.exp()).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Papineni et al. 2002, ACL (the paper has no arXiv number); Post 2018, arXiv:1804.08771v2, and its code
/// mjpost/sacrebleu 2.6.0, `metrics/bleu.py`; smoothing: Chen and Cherry 2014, methods 1 to 3.
///
/// [`Error::Parameter`]: crate::Error::Parameter
pub fn corpus_bleu<T: AsRef<str>, R: AsRef<str>>(
    texts: &[T],
    references: &[Vec<R>],
    config: &BleuConfig,
) -> Result<Bleu> {
    let function = "corpus_bleu";
    if texts.is_empty() {
        return Err(Error::argument(function, "texts", "is empty"));
    }
    require_length(
        function,
        "references",
        references.len(),
        "texts",
        texts.len(),
    )?;
    check(function, config)?;
    let mut counts = Counts::new(config.order);
    for (at, (text, references)) in texts.iter().zip(references).enumerate() {
        let argument = format!("references[{at}]");
        counts.add(function, argument, text.as_ref(), references, config)?;
    }
    Ok(counts.bleu(config))
}

/// BLEU of one text.
///
/// # Equation
/// ```text
/// as corpus_bleu, for a corpus of one text
/// ```
/// # Shapes
/// A text and one or more references.
/// # Errors
/// As [`corpus_bleu`].
/// # Properties
/// * Equal to [`corpus_bleu`] of this text alone.
/// * Without smoothing most sentences have 0, because some order has no match. Set
///   [`BleuConfig::effective_order`]: otherwise a text of fewer than N tokens is scored by orders that it
///   cannot have.
/// # Departures
/// sacrebleu's function `sentence_bleu` sets the effective order; its class does not and warns. Here it is
/// the setting that says so.
/// # Examples
/// ```
/// use candle_align::evaluation::reference_based::{BleuConfig, sentence_bleu};
///
/// let config = BleuConfig { effective_order: true, ..Default::default() };
/// let bleu = sentence_bleu("a b c", &["a b d"], &config)?;
/// // 2 of 3, 1 of 2, and of the only trigram, which does not match, one half
/// let want = 100.0 * (2.0 / 3.0 * 1.0 / 2.0 * 0.5f64).cbrt();
/// assert!((bleu.score - want).abs() < 1e-12);
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Post 2018, arXiv:1804.08771v2; code mjpost/sacrebleu 2.6.0, `compat.py`, `sentence_bleu`.
pub fn sentence_bleu<R: AsRef<str>>(
    text: &str,
    references: &[R],
    config: &BleuConfig,
) -> Result<Bleu> {
    let function = "sentence_bleu";
    check(function, config)?;
    let mut counts = Counts::new(config.order);
    counts.add(function, "references".to_string(), text, references, config)?;
    Ok(counts.bleu(config))
}

fn check(function: &'static str, config: &BleuConfig) -> Result<()> {
    require(
        config.order >= 1,
        function,
        "order",
        "at least 1",
        config.order,
    )?;
    match config.smoothing {
        BleuSmoothing::Floor(value) | BleuSmoothing::AddK(value) => {
            positive(function, "smoothing", value)
        }
        _ => Ok(()),
    }
}

/// What a corpus is summed to.
struct Counts {
    matches: Vec<usize>,
    totals: Vec<usize>,
    length: usize,
    reference_length: usize,
}

impl Counts {
    fn new(order: usize) -> Self {
        Self {
            matches: vec![0; order],
            totals: vec![0; order],
            length: 0,
            reference_length: 0,
        }
    }

    fn add<R: AsRef<str>>(
        &mut self,
        function: &'static str,
        argument: String,
        text: &str,
        references: &[R],
        config: &BleuConfig,
    ) -> Result<()> {
        let tokens = |text: &str| match config.lowercase {
            true => tokenize_13a(&text.to_lowercase()),
            false => tokenize_13a(text),
        };
        let text = tokens(text);
        let references: Vec<Vec<String>> = references.iter().map(|r| tokens(r.as_ref())).collect();
        // the closest length, the shorter of two
        let lengths = references.iter().map(Vec::len);
        let Some(closest) = lengths.min_by_key(|&length| (length.abs_diff(text.len()), length))
        else {
            return Err(Error::argument(function, argument, "is empty"));
        };
        self.length += text.len();
        self.reference_length += closest;
        for n in 1..=config.order {
            let mut most: HashMap<&[String], usize> = HashMap::new();
            for reference in &references {
                for (ngram, count) in ngrams(reference, n) {
                    let most = most.entry(ngram).or_default();
                    *most = count.max(*most);
                }
            }
            for (ngram, count) in ngrams(&text, n) {
                self.totals[n - 1] += count;
                self.matches[n - 1] += count.min(most.get(ngram).copied().unwrap_or(0));
            }
        }
        Ok(())
    }

    fn bleu(self, config: &BleuConfig) -> Bleu {
        let (c, r) = (self.length as f64, self.reference_length as f64);
        let brevity_penalty = match self.length < self.reference_length {
            true if self.length == 0 => 0.0,
            true => (1.0 - r / c).exp(),
            false => 1.0,
        };
        let mut precisions = vec![0.0; config.order];
        let mut orders = config.order;
        let mut halved = 1.0;
        let any = self.matches.iter().any(|&count| count > 0);
        for n in 1..=config.order {
            let (mut matches, mut total) = (self.matches[n - 1] as f64, self.totals[n - 1] as f64);
            if let (BleuSmoothing::AddK(k), true) = (config.smoothing, n > 1) {
                (matches, total) = (matches + k, total + k);
            }
            if total == 0.0 || !any {
                break;
            }
            if config.effective_order {
                orders = n;
            }
            precisions[n - 1] = match (config.smoothing, matches == 0.0) {
                (BleuSmoothing::Exponential, true) => {
                    halved *= 2.0;
                    100.0 / (halved * total)
                }
                (BleuSmoothing::Floor(value), true) => 100.0 * value / total,
                _ => 100.0 * matches / total,
            };
        }
        let logs: f64 = precisions[..orders].iter().map(|p| p.ln()).sum();
        let score = match any {
            true => brevity_penalty * (logs / orders as f64).exp(),
            false => 0.0,
        };
        Bleu {
            score,
            precisions,
            matches: self.matches,
            totals: self.totals,
            brevity_penalty,
            length: self.length,
            reference_length: self.reference_length,
        }
    }
}

/// How often each n-gram occurs.
pub(super) fn ngrams(tokens: &[String], n: usize) -> HashMap<&[String], usize> {
    let mut counts = HashMap::new();
    for ngram in tokens.windows(n) {
        *counts.entry(ngram).or_default() += 1;
    }
    counts
}
