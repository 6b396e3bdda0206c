//! BERTScore: each token is matched with the most similar token of the other text.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | x̂ⱼ, xᵢ | `text`, `reference`: an embedding for each token | `[tokens][dimensions]` |
//! | idf(w) | [`InverseFrequency`], as weights | `[tokens]` |
//! | b | [`Overlap::rescaled`] | numbers |

use super::overlap::Overlap;
use crate::error::{Error, Result};
use crate::evaluation::statistics::require_length;
use std::collections::{HashMap, HashSet};

/// How rare each token is among reference texts: log((n + 1)/(c + 1)), where c of n texts have it.
#[derive(Clone, Debug, PartialEq)]
#[doc(alias = "idf")]
pub struct InverseFrequency {
    texts: usize,
    having: HashMap<u32, usize>,
}

impl InverseFrequency {
    /// From the reference texts, as token ids. A token counts once in each text.
    pub fn new<T: AsRef<[u32]>>(texts: &[T]) -> Self {
        let mut having = HashMap::new();
        for text in texts {
            for &token in text.as_ref().iter().collect::<HashSet<_>>() {
                *having.entry(token).or_default() += 1;
            }
        }
        Self {
            texts: texts.len(),
            having,
        }
    }

    /// The weight of each token. A token that no text has weighs the most, log(n + 1).
    pub fn weights(&self, tokens: &[u32]) -> Vec<f64> {
        let count = |token| self.having.get(token).copied().unwrap_or(0);
        let texts = self.texts as f64 + 1.0;
        let weight = |token| (texts / (count(token) as f64 + 1.0)).ln();
        tokens.iter().map(weight).collect()
    }
}

/// BERTScore of a text from the embeddings of its tokens.
///
/// # Equation
/// ```text
/// P = Σⱼ wⱼ maxᵢ cos(xᵢ, x̂ⱼ) / Σⱼ wⱼ,   R = Σᵢ wᵢ maxⱼ cos(xᵢ, x̂ⱼ) / Σᵢ wᵢ,   F = 2PR/(P + R)
/// ```
/// # Shapes
/// `text` and `reference` `[tokens][dimensions]` of one width, from one layer of one model; `weights`, if
/// given, hold a number ≥ 0 for each token of the text and of the reference. Without them every token
/// weighs 1. Give special tokens the weight 0, as the authors' code does: they are then not scored, but may
/// be matched.
/// # Errors
/// [`Error::Argument`] if the widths or lengths differ, an embedding is not finite or is 0, or a weight is
/// negative or not finite.
/// # Properties
/// * Exchanging text and reference exchanges P and R and leaves F. Lengths and scales of embeddings do
///   not matter, and neither does the order of tokens: word order counts only through the model.
/// * Equal weights for all tokens are no weights.
/// * A text or a reference whose weights are all 0, or that is empty, has 0 in all three.
/// # Departures
/// None from bert-score 0.3.13 for one pair of texts. In a batch of texts of several lengths, its padding
/// takes part in the maximum with a similarity of 0, so a score there is never negative. The paper's idf is
/// −log(c/n); the code's, used here, adds 1 to both. Which layer is best for which model is in the code's
/// tables.
/// # Examples
/// ```
/// use candle_align::evaluation::reference_based::bert_score;
///
/// let (x, y) = (vec![1.0, 0.0], vec![0.0, 2.0]);
/// let score = bert_score(&[x.clone()], &[x, y], None)?;
/// assert_eq!((score.precision, score.recall), (1.0, 0.5));
/// # Ok::<(), candle_align::Error>(())
/// ```
/// # Source
/// Zhang et al. 2020, arXiv:1904.09675v3, §3; authors' code Tiiiger/bert_score 0.3.13, `utils.py`,
/// `greedy_cos_idf` and `get_idf_dict`.
pub fn bert_score(
    text: &[Vec<f64>],
    reference: &[Vec<f64>],
    weights: Option<(&[f64], &[f64])>,
) -> Result<Overlap> {
    let function = "bert_score";
    let width = text.iter().chain(reference).map(Vec::len).next();
    let width = width.unwrap_or(0);
    let (rows, columns) = (
        unit(function, "text", text, width)?,
        unit(function, "reference", reference, width)?,
    );
    let ones = (vec![1.0; text.len()], vec![1.0; reference.len()]);
    let (of_text, of_reference) = weights.unwrap_or((&ones.0, &ones.1));
    check_weights(function, "weights.0", of_text, "text", text.len())?;
    check_weights(
        function,
        "weights.1",
        of_reference,
        "reference",
        reference.len(),
    )?;

    let mut precision = vec![f64::NEG_INFINITY; rows.len()];
    let mut recall = vec![f64::NEG_INFINITY; columns.len()];
    for (x, precision) in rows.iter().zip(&mut precision) {
        for (y, recall) in columns.iter().zip(&mut recall) {
            let cosine: f64 = x.iter().zip(y).map(|(a, b)| a * b).sum();
            *precision = precision.max(cosine);
            *recall = recall.max(cosine);
        }
    }
    let weighted = |best: &[f64], weights: &[f64]| -> f64 {
        let total: f64 = weights.iter().sum();
        best.iter().zip(weights).map(|(x, w)| x * (w / total)).sum()
    };
    let counts = |weights: &[f64]| weights.iter().any(|w| *w > 0.0);
    if !counts(of_text) || !counts(of_reference) {
        return Ok(Overlap::default());
    }
    Ok(Overlap::new(
        weighted(&precision, of_text),
        weighted(&recall, of_reference),
    ))
}

/// The embeddings at length 1.
fn unit(
    function: &'static str,
    argument: &str,
    embeddings: &[Vec<f64>],
    width: usize,
) -> Result<Vec<Vec<f64>>> {
    let refuse = |at: usize, problem: String| {
        Err(Error::argument(
            function,
            format!("{argument}[{at}]"),
            problem,
        ))
    };
    let mut rows = Vec::with_capacity(embeddings.len());
    for (at, row) in embeddings.iter().enumerate() {
        if row.len() != width {
            return refuse(
                at,
                format!("has {} dimensions, but others have {width}", row.len()),
            );
        }
        // scaled first, so that no square overflows
        let largest = row.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
        if !row.iter().all(|x| x.is_finite()) || largest == 0.0 {
            return refuse(at, "is 0 or not finite".to_string());
        }
        let scaled = row.iter().map(|x| x / largest);
        let norm = scaled.clone().map(|x| x * x).sum::<f64>().sqrt();
        rows.push(scaled.map(|x| x / norm).collect());
    }
    Ok(rows)
}

fn check_weights(
    function: &'static str,
    argument: &str,
    weights: &[f64],
    other: &str,
    expected: usize,
) -> Result<()> {
    require_length(function, argument, weights.len(), other, expected)?;
    match weights.iter().position(|w| !(w.is_finite() && *w >= 0.0)) {
        Some(at) => Err(Error::argument(
            function,
            format!("{argument}[{at}]"),
            format!("is {}; it must be finite and >= 0", weights[at]),
        )),
        None => Ok(()),
    }
}
