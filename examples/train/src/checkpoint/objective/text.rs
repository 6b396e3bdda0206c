//! Texts, and the log-probabilities of their tokens.

use super::super::super::error::Result;
use super::Reference;
use candle_align::decoder::{Decoder, LanguageModel, Mode};
use candle_align::distillation::divergence::DivergenceConfig;
use candle_align::distillation::gkd::gkd_loss_from_hidden;
use candle_align::ops::Segments;
use candle_align::{Pair, Sequence, Statistics, TokenLogProbs, TokenLoss};
use candle_core::{DType, Device, Tensor};

/// A text whose loss covers a part of its tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    pub ids: Vec<u32>,
    /// Which tokens the loss covers.
    pub learned: Vec<bool>,
}

impl Text {
    /// An answer after its prompt; the loss covers the answer.
    pub fn answer(prompt: &[u32], answer: &[u32]) -> Self {
        Self {
            ids: [prompt, answer].concat(),
            learned: [vec![false; prompt.len()], vec![true; answer.len()]].concat(),
        }
    }

    /// The same text, whose loss covers every token.
    fn whole(&self) -> Self {
        Self {
            ids: self.ids.clone(),
            learned: vec![true; self.ids.len()],
        }
    }

    /// How many tokens the loss covers. The first one is never predicted.
    pub fn covered(&self) -> usize {
        let learned = self.learned.iter().skip(1);
        learned.filter(|learned| **learned).count()
    }
}

impl From<Sequence> for Text {
    fn from(sequence: Sequence) -> Self {
        Self {
            ids: sequence.tokens().to_vec(),
            learned: sequence.mask().iter().map(|one| *one != 0).collect(),
        }
    }
}

/// What a loss is computed with.
pub struct Pass<'a> {
    pub decoder: &'a Decoder,
    pub reference: &'a Reference,
    pub mode: Mode,
}

impl Pass<'_> {
    /// The log-probabilities under the trained model.
    pub fn log_probs(&self, texts: &[&Text]) -> Result<TokenLogProbs> {
        log_probs(self.decoder, texts, self.mode)
    }

    /// The same, with what `label_smoothing` needs if it is not 0.
    pub fn smoothed(&self, texts: &[&Text], label_smoothing: f64) -> Result<TokenLogProbs> {
        if label_smoothing == 0.0 {
            return self.log_probs(texts);
        }
        let statistics = Statistics {
            vocabulary_mean: true,
            ..Statistics::default()
        };
        log_probs_with(self.decoder, texts, self.mode, statistics)
    }

    /// The log-probabilities of pairs, whose chosen answers are the first half of the texts; with `whole`, also
    /// those of all tokens of the chosen texts.
    pub fn sides(
        &self,
        texts: &[&Text],
        statistics: Statistics,
        whole: bool,
    ) -> Result<(Pair<TokenLogProbs>, Option<TokenLogProbs>)> {
        let flat = Flat::of(texts)?;
        let hidden = self
            .decoder
            .forward(&flat.tokens, &flat.segments, self.mode)?;
        let tokens = Tensor::new(flat.tokens.as_slice(), hidden.device())?;
        let tokens = halves(&flat.segments.to_rows(&tokens)?)?;
        let hidden = halves(&flat.segments.to_rows(&hidden)?)?;
        let (head, learned) = (self.decoder.head()?, halves(&flat.learned)?);
        let of = |hidden: &Tensor, tokens: &Tensor, learned: &Tensor| {
            TokenLogProbs::from_hidden(hidden, &head, tokens, learned, statistics)
        };
        let rejected = of(&hidden.rejected, &tokens.rejected, &learned.rejected)?;
        if !whole {
            let chosen = of(&hidden.chosen, &tokens.chosen, &learned.chosen)?;
            return Ok((Pair { chosen, rejected }, None));
        }
        let all: Vec<Text> = texts.iter().map(|text| text.whole()).collect();
        let all = Flat::of(&all.iter().collect::<Vec<_>>())?;
        let rows = of(
            &hidden.chosen,
            &tokens.chosen,
            &halves(&all.learned)?.chosen,
        )?;
        let answer = learned.chosen.narrow(1, 1, learned.chosen.dim(1)? - 1)?;
        let chosen = TokenLogProbs::new(rows.values(), &answer)?;
        Ok((Pair { chosen, rejected }, Some(rows)))
    }

    /// The log-probabilities `[1, covered tokens]` and the logits `[1, covered tokens, vocabulary]` before each.
    pub fn with_logits(&self, texts: &[&Text]) -> Result<(TokenLogProbs, Tensor)> {
        let flat = Flat::of(texts)?;
        let (before, covered) = flat.covered(texts);
        let hidden = self
            .decoder
            .forward(&flat.tokens, &flat.segments, self.mode)?;
        let before = Tensor::new(before.as_slice(), hidden.device())?;
        let logits = self.decoder.logits(&hidden.index_select(&before, 0)?)?;
        let logits = logits.unsqueeze(0)?;
        let count = covered.len();
        let targets = Tensor::from_vec(covered, (1, count), &Device::Cpu)?;
        let mask = Tensor::ones((1, count), DType::U8, &Device::Cpu)?;
        let log_probs = TokenLogProbs::aligned(&logits, &targets, &mask, Statistics::default())?;
        Ok((log_probs, logits))
    }

    /// The divergence from the reference at each covered token `[texts, time − 1]`.
    pub fn divergence(&self, texts: &[&Text], config: &DivergenceConfig) -> Result<TokenLoss> {
        let flat = Flat::of(texts)?;
        let of = |decoder: &Decoder, mode| {
            let hidden = decoder.forward(&flat.tokens, &flat.segments, mode)?;
            Ok((flat.segments.to_rows(&hidden)?, decoder.head()?))
        };
        let (teacher, teacher_head) = self.reference.compute(self.decoder, &of)?;
        let (student, head) = of(self.decoder, self.mode)?;
        let (student, teacher) = ((&student, &head), (&teacher, &teacher_head));
        Ok(gkd_loss_from_hidden(
            student,
            teacher,
            &flat.learned,
            config,
        )?)
    }

    /// The logits `[1, covered tokens, vocabulary]` of the trained model, and of the reference.
    pub fn both_logits(&self, texts: &[&Text]) -> Result<[Tensor; 2]> {
        let flat = Flat::of(texts)?;
        let (before, _) = flat.covered(texts);
        let logits = |decoder: &Decoder, mode| {
            let hidden = decoder.forward(&flat.tokens, &flat.segments, mode)?;
            let before = Tensor::new(before.as_slice(), hidden.device())?;
            Ok(decoder
                .logits(&hidden.index_select(&before, 0)?)?
                .unsqueeze(0)?)
        };
        let reference = self.reference.compute(self.decoder, &logits)?.detach();
        Ok([logits(self.decoder, self.mode)?, reference])
    }
}

/// The log-probabilities of the learned tokens. What texts have in common at their start is computed once.
pub fn log_probs(decoder: &Decoder, texts: &[&Text], mode: Mode) -> Result<TokenLogProbs> {
    let flat = Flat::of(texts)?;
    Ok(decoder.log_probs(&flat.tokens, &flat.segments, &flat.learned, mode)?)
}

/// The same, with more of each token's distribution.
pub fn log_probs_with(
    decoder: &Decoder,
    texts: &[&Text],
    mode: Mode,
    statistics: Statistics,
) -> Result<TokenLogProbs> {
    let flat = Flat::of(texts)?;
    let hidden = decoder.forward(&flat.tokens, &flat.segments, mode)?;
    let tokens = Tensor::new(flat.tokens.as_slice(), hidden.device())?;
    let tokens = flat.segments.to_rows(&tokens)?;
    let hidden = flat.segments.to_rows(&hidden)?;
    let head = decoder.head()?;
    let learned = &flat.learned;
    Ok(TokenLogProbs::from_hidden(
        &hidden, &head, &tokens, learned, statistics,
    )?)
}

/// What a value model gives each token of some texts `[texts, time − 1]`: at the place of a token's log-probability, the
/// value of the text before it.
pub fn values(critic: &Decoder, texts: &[&Text], mode: Mode) -> Result<Tensor> {
    let flat = Flat::of(texts)?;
    let hidden = critic.forward(&flat.tokens, &flat.segments, mode)?;
    let scores = flat
        .segments
        .to_rows(&critic.token_scores(&hidden)?)?
        .squeeze(2)?;
    Ok(scores.narrow(1, 0, scores.dim(1)?.saturating_sub(1))?)
}

/// Texts as one flat batch.
struct Flat {
    segments: Segments,
    tokens: Vec<u32>,
    /// `[texts, time]`.
    learned: Tensor,
}

impl Flat {
    fn of(texts: &[&Text]) -> Result<Self> {
        let mut rows: Vec<&[u32]> = texts.iter().map(|text| text.ids.as_slice()).collect();
        // of single tokens nothing is predicted, and yet there is a loss, which is 0: a token behind one of them changes
        // nothing before it
        let mut longer = Vec::new();
        if rows.iter().all(|row| row.len() < 2)
            && let Some(first) = rows.first_mut()
        {
            longer.extend_from_slice(first);
            longer.extend_from_slice(first);
            *first = &longer;
        }
        let (segments, tokens) = Segments::from_tokens(&rows)?;
        let time = rows.iter().map(|row| row.len()).max().unwrap_or(0);
        let mut learned = Vec::with_capacity(texts.len() * time);
        for (row, text) in (1..).zip(texts) {
            learned.extend(text.learned.iter().map(|learned| u8::from(*learned)));
            learned.resize(row * time, 0);
        }
        Ok(Self {
            segments,
            tokens,
            learned: Tensor::from_vec(learned, (texts.len(), time), &Device::Cpu)?,
        })
    }

    /// Where the tokens before the covered ones are in the flat batch, and the covered ones.
    fn covered(&self, texts: &[&Text]) -> (Vec<u32>, Vec<u32>) {
        let rows = self.segments.rows();
        let places = rows.iter().zip(texts).flat_map(|(row, text)| {
            let covered = (1..row.len()).filter(|at| text.learned[*at]);
            covered
                .map(|at| (row[at - 1], text.ids[at]))
                .collect::<Vec<_>>()
        });
        places.unzip()
    }
}

/// The first half of the rows, and the second.
pub fn halves(rows: &Tensor) -> Result<Pair<Tensor>> {
    let half = rows.dim(0)? / 2;
    Ok(Pair {
        chosen: rows.narrow(0, 0, half)?,
        rejected: rows.narrow(0, half, half)?,
    })
}
