//! Bytes as tokens, and several answers as one padded tensor.
//!
//! ```text
//! tokens   BOS  \n \n H u m a n …  A s s i s t a n t : ␣  t h e ␣ a n s w e r  EOS  PAD PAD
//! answer    0    0 …                                   0  1 …                1   1    0   0
//! real      1    1 …                                                         1   1    0   0
//! ```
//! The end of the answer is part of it: a model that never learns to stop has not learnt the answer.
//! Its mark and that of padding are two tokens, so masking one never masks the other.

use super::data::{Answer, Item, MARKS};
use super::error::Result;
use candle_core::{DType, Device, Tensor};

pub const BOS: u32 = 256;
pub const EOS: u32 = 257;
pub const PAD: u32 = 258;
/// All bytes and the three marks.
pub const VOCABULARY: usize = 259;

/// A prompt with the answers that a loss compares, best first.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    pub prompt: String,
    pub answers: Vec<Answer>,
}

impl Example {
    /// The tokens of the longest answer with its prompt.
    pub fn longest(&self) -> usize {
        let longest = self.answers.iter().map(|answer| answer.text.len()).max();
        self.prompt.len() + longest.unwrap_or(0) + MARKS
    }

    fn tokens(&self, answer: &Answer) -> Vec<u32> {
        let bytes = self.prompt.bytes().chain(answer.text.bytes());
        std::iter::once(BOS)
            .chain(bytes.map(u32::from))
            .chain([EOS])
            .collect()
    }
}

/// Which answers of an item a loss compares at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The best one.
    Best,
    /// Every two of which one is better.
    Pairs,
    /// All of them.
    Lists,
}

/// The examples of an item: several where a list becomes pairs.
pub fn examples(item: &Item, shape: Shape) -> Vec<Example> {
    let mut answers = item.answers.clone();
    // best first; stable, so that equal ones keep the file's order
    answers.sort_by(|a, b| b.reward.total_cmp(&a.reward));
    let example = |answers: &[Answer]| Example {
        prompt: item.prompt.clone(),
        answers: answers.to_vec(),
    };
    match shape {
        Shape::Lists => vec![example(&answers)],
        Shape::Best => vec![example(&answers[..1])],
        Shape::Pairs => {
            let mut pairs = Vec::new();
            for (i, better) in answers.iter().enumerate() {
                for worse in &answers[i + 1..] {
                    if better.reward > worse.reward {
                        pairs.push(example(&[better.clone(), worse.clone()]));
                    }
                }
            }
            pairs
        }
    }
}

/// Examples as tensors: row `example · k + i` is answer i.
#[derive(Clone, Debug)]
pub struct Batch {
    /// How many examples.
    pub size: usize,
    /// Answers per example; shorter lists are filled up with rows that do not count.
    pub k: usize,
    /// `[size · k, time]`, u32.
    pub tokens: Tensor,
    /// 1 on the answer and its end: `[size · k, time]`, u8.
    pub answer: Tensor,
    /// 1 on everything but padding: `[size · k, time]`, u8. A row that does not count keeps its
    /// first token, so that every row has a last one.
    pub real: Tensor,
    /// `[size, k]`, f32.
    pub rewards: Tensor,
    /// Which answers exist: `[size, k]`, u8.
    pub exists: Tensor,
    /// The tokens that are not padding.
    pub token_count: usize,
}

impl Batch {
    pub fn new(examples: &[&Example]) -> Result<Self> {
        let k = examples.iter().map(|e| e.answers.len()).max().unwrap_or(0);
        let time = examples.iter().map(|e| e.longest()).max().unwrap_or(0);
        let rows = examples.len() * k;
        let mut tokens = vec![PAD; rows * time];
        let mut answer_mask = vec![0u8; rows * time];
        let mut real = vec![0u8; rows * time];
        let mut rewards = vec![0f32; rows];
        let mut exists = vec![0u8; rows];
        let mut token_count = 0;
        for (at, example) in examples.iter().enumerate() {
            for i in 0..k {
                let row = at * k + i;
                let start = row * time;
                let Some(answer) = example.answers.get(i) else {
                    (tokens[start], real[start]) = (BOS, 1);
                    continue;
                };
                let own = example.tokens(answer);
                let end = start + own.len();
                tokens[start..end].copy_from_slice(&own);
                real[start..end].fill(1);
                answer_mask[start + 1 + example.prompt.len()..end].fill(1);
                rewards[row] = answer.reward as f32;
                exists[row] = 1;
                token_count += own.len();
            }
        }
        let (cpu, lists) = (&Device::Cpu, (examples.len(), k));
        Ok(Self {
            size: examples.len(),
            k,
            tokens: Tensor::from_vec(tokens, (rows, time), cpu)?,
            answer: Tensor::from_vec(answer_mask, (rows, time), cpu)?,
            real: Tensor::from_vec(real, (rows, time), cpu)?,
            rewards: Tensor::from_vec(rewards, lists, cpu)?,
            exists: Tensor::from_vec(exists, lists, cpu)?,
            token_count,
        })
    }

    /// A one per example: the mask of a loss that is one number per example.
    pub fn each(&self) -> Result<Tensor> {
        Ok(Tensor::ones(self.size, DType::U8, &Device::Cpu)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(prompt: &str, answers: &[(&str, f64)]) -> Item {
        let answers = answers.iter().map(|(text, r)| Answer::new(text, *r));
        Item::new(prompt.to_string(), answers.collect())
    }

    #[test]
    fn the_end_counts_and_padding_does_not() {
        let list = item("Q", &[("é", 2.0), ("abc", 1.0)]);
        let single = item("QQ", &[("x", 0.5)]);
        let examples: Vec<Example> = [list, single]
            .iter()
            .flat_map(|item| examples(item, Shape::Lists))
            .collect();
        let batch = Batch::new(&examples.iter().collect::<Vec<_>>()).unwrap();
        let (q, x) = (u32::from(b'Q'), u32::from(b'x'));
        let tokens = [
            [BOS, q, 0xc3, 0xa9, EOS, PAD],
            [BOS, q, 97, 98, 99, EOS],
            [BOS, q, q, x, EOS, PAD],
            [BOS, PAD, PAD, PAD, PAD, PAD],
        ];
        assert_eq!(batch.tokens.to_vec2::<u32>().unwrap(), tokens);
        let answer = [
            [0, 0, 1, 1, 1, 0],
            [0, 0, 1, 1, 1, 1],
            [0, 0, 0, 1, 1, 0],
            [0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(batch.answer.to_vec2::<u8>().unwrap(), answer);
        let real = [
            [1, 1, 1, 1, 1, 0],
            [1, 1, 1, 1, 1, 1],
            [1, 1, 1, 1, 1, 0],
            [1, 0, 0, 0, 0, 0],
        ];
        assert_eq!(batch.real.to_vec2::<u8>().unwrap(), real);
        assert_eq!(batch.exists.to_vec2::<u8>().unwrap(), [[1, 1], [1, 0]]);
        assert_eq!(
            batch.rewards.to_vec2::<f32>().unwrap(),
            [[2.0, 1.0], [0.5, 0.0]]
        );
        assert_eq!(batch.token_count, 16);
    }

    #[test]
    fn a_list_gives_its_best_its_strict_pairs_or_itself() {
        let list = item("Q", &[("b", 1.0), ("a", 2.0), ("c", 1.0)]);
        let texts = |shape| -> Vec<String> {
            let texts = |e: &Example| e.answers.iter().map(|a| a.text.clone()).collect();
            examples(&list, shape).iter().map(texts).collect()
        };
        assert_eq!(texts(Shape::Best), ["a"]);
        assert_eq!(texts(Shape::Pairs), ["ab", "ac"]);
        assert_eq!(texts(Shape::Lists), ["abc"]);
    }
}
