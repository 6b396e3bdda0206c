//! Answers that the model draws.

use super::super::super::error::Result;
use super::super::objective::Text;
use super::super::order::parts;
use super::super::rows::Folder;
use super::super::settings::Settings;
use super::prompts::{Prompt, Voice};
use candle_align::SamplingConfig;
use candle_align::decoder::Decoder;
use candle_core::{DType, Device, Tensor};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

/// An answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// The number of its prompt.
    pub prompt: usize,
    /// With its end token, if it has one.
    pub ids: Vec<u32>,
    /// Without its end token. Other special tokens stay in the text, unlike in TRL.
    pub text: String,
    /// Whether it has an end; else it was cut off.
    pub ended: bool,
    /// The log-probability of each token under the policy that drew it.
    pub old: Vec<f64>,
    /// The same under what the answer was drawn from, with its temperature and its cuts or by another program, if weights
    /// come from the difference. NaN where it is unknown.
    pub sampler: Option<Vec<f64>>,
}

impl Answer {
    /// After its prompt; the loss covers the answer.
    pub fn after(&self, prompt: &Prompt) -> Text {
        Text::answer(&prompt.ids, &self.ids)
    }
}

/// How answers are drawn.
#[derive(Clone, Debug)]
pub struct Sampler<'a> {
    pub config: SamplingConfig,
    /// The most answers at a time.
    pub at_a_time: usize,
    pub voice: &'a Voice,
    pub folder: &'a Folder,
    /// Of the run.
    pub seed: u64,
    /// The most tokens that go through the model at a time, where answers are given.
    pub max_tokens: Option<usize>,
    /// Whether an answer also keeps the log-probabilities of what it was drawn from.
    pub keeps_proposals: bool,
}

/// What answers are drawn for: they get other random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A round of training, counted from 0.
    Round(usize),
    HeldOut,
}

impl<'a> Sampler<'a> {
    pub fn new(settings: &Settings, voice: &'a Voice, folder: &'a Folder) -> Self {
        let online = &settings.online;
        Self {
            config: SamplingConfig {
                answers: 1,
                temperature: online.temperature,
                top_k: Some(online.top_k).filter(|k| *k > 0),
                top_p: online.top_p,
                max_new_tokens: online.max_completion_length,
                ends: voice.ends.clone(),
            },
            at_a_time: online.sample_batch.unwrap_or(usize::MAX),
            voice,
            folder,
            seed: settings.seed,
            max_tokens: settings.fit.max_tokens,
            keeps_proposals: online.importance_sampling_mode.is_some(),
        }
    }

    /// The same, which always takes the likeliest token.
    pub fn greedy(&self) -> Self {
        let mut greedy = self.clone();
        (greedy.config.top_k, greedy.config.top_p) = (Some(1), 1.0);
        greedy
    }

    /// So many answers to each of some prompts; those to one prompt follow each other.
    pub fn draw(
        &self,
        decoder: &Decoder,
        prompts: &[Prompt],
        asked: &[usize],
        answers: usize,
        purpose: Purpose,
    ) -> Result<Vec<Answer>> {
        let quiet = decoder.without_gradients();
        let rows = asked
            .iter()
            .flat_map(|prompt| (0..answers).map(|n| (*prompt, n)));
        let rows: Vec<(usize, usize)> = rows.collect();
        let mut all = Vec::with_capacity(rows.len());
        for rows in rows.chunks(self.at_a_time) {
            let texts: Vec<&[u32]> = rows
                .iter()
                .map(|(row, _)| prompts[*row].ids.as_slice())
                .collect();
            let seeds = rows
                .iter()
                .map(|(prompt, n)| self.stream(purpose, *prompt, *n));
            let mut seeds = RowSeeds(seeds.collect::<Vec<_>>().into_iter());
            let samples = quiet.sample(&texts, &self.config, &mut seeds)?;
            for ((prompt, _), sample) in rows.iter().zip(samples.rows) {
                let (ids, old) = (sample.answer().to_vec(), sample.log_probs);
                let mut answer = self.answer(*prompt, ids, old)?;
                if self.keeps_proposals {
                    let mut proposal = sample.proposal_log_probs;
                    proposal.truncate(answer.ids.len());
                    answer.sampler = Some(proposal);
                }
                all.push(answer);
            }
        }
        Ok(all)
    }

    /// An answer up to its first end.
    pub fn answer(&self, prompt: usize, mut ids: Vec<u32>, mut old: Vec<f64>) -> Result<Answer> {
        let end = ids.iter().position(|id| self.voice.ends.contains(id));
        if let Some(end) = end {
            ids.truncate(end + 1);
            old.truncate(end + 1);
        }
        let said = &ids[..end.unwrap_or(ids.len())];
        let text = self.folder.tokenizer.decode(said)?;
        Ok(Answer {
            prompt,
            text,
            ended: end.is_some(),
            ids,
            old,
            sampler: None,
        })
    }

    /// The seed of an answer, which does not depend on what else is drawn.
    fn stream(&self, purpose: Purpose, prompt: usize, answer: usize) -> u64 {
        let (kind, round) = match purpose {
            Purpose::Round(round) => (1, round as u64),
            Purpose::HeldOut => (2, 0),
        };
        let parts = [kind, round, prompt as u64, answer as u64];
        parts.into_iter().fold(self.seed, mix)
    }
}

/// A number from two; a step of SplitMix64.
pub(super) fn mix(state: u64, part: u64) -> u64 {
    let z = (state ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Seeds for the generators of rows: the library takes one for each row, in order.
struct RowSeeds(std::vec::IntoIter<u64>);

impl RngCore for RowSeeds {
    fn next_u32(&mut self) -> u32 {
        self.next_u64() as u32
    }

    fn next_u64(&mut self) -> u64 {
        self.0.next().unwrap_or_default()
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        StdRng::seed_from_u64(self.next_u64()).fill_bytes(bytes);
    }
}

/// A number for each token of some answers, by a model: its log-probability, or a value. `compute` gives them
/// `[texts, time − 1]`, as [`TokenLogProbs`](candle_align::TokenLogProbs) has them.
pub fn of_tokens(
    compute: &dyn Fn(&[&Text]) -> Result<Tensor>,
    prompts: &[Prompt],
    answers: &[Answer],
    max_tokens: Option<usize>,
) -> Result<Vec<Vec<f64>>> {
    let texts: Vec<Text> = answers
        .iter()
        .map(|answer| answer.after(&prompts[answer.prompt]))
        .collect();
    let rows: Vec<usize> = (0..texts.len()).collect();
    let mut all = Vec::with_capacity(answers.len());
    for part in parts(&rows, max_tokens, |row| texts[row].ids.len()) {
        let of: Vec<&Text> = part.iter().map(|row| &texts[*row]).collect();
        let lengths = part.iter().map(|row| answers[*row].ids.len());
        all.extend(of_answers(&compute(&of)?, &of, lengths)?);
    }
    Ok(all)
}

/// Numbers of the tokens of texts `[texts, time − 1]`, of which those of the answers, at the ends, are left. `lengths` are
/// the tokens of the answers.
pub fn of_answers(
    numbers: &Tensor,
    texts: &[&Text],
    lengths: impl Iterator<Item = usize>,
) -> Result<Vec<Vec<f64>>> {
    let rows = numbers.to_dtype(DType::F64)?.to_vec2::<f64>()?;
    let of = |((numbers, text), length): ((Vec<f64>, &&Text), usize)| {
        let first = text.ids.len() - length - 1;
        numbers[first..first + length].to_vec()
    };
    Ok(rows.into_iter().zip(texts).zip(lengths).map(of).collect())
}

/// Numbers of each answer's tokens as `[answers, time]`, with zeros behind shorter ones.
pub fn padded(numbers: &[Vec<f64>]) -> Result<Tensor> {
    let time = numbers.iter().map(Vec::len).max().unwrap_or(0);
    let mut all = Vec::with_capacity(numbers.len() * time);
    for (row, numbers) in (1..).zip(numbers) {
        all.extend(numbers);
        all.resize(row * time, 0.0);
    }
    Ok(Tensor::from_vec(all, (numbers.len(), time), &Device::Cpu)?)
}

/// The rows of such a tensor without what is behind them.
pub fn unpadded<T: Copy>(rows: Vec<Vec<T>>, like: &[Vec<f64>]) -> Vec<Vec<T>> {
    let both = rows.into_iter().zip(like);
    both.map(|(row, like)| row[..like.len()].to_vec()).collect()
}
