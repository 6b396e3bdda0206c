//! Bytes as tokens, and several rows as one padded tensor.
//!
//! ```text
//! tokens   BOS  \n \n H u m a n …  A s s i s t a n t : ␣  t h e ␣ a n s w e r  EOS  PAD PAD
//! covered   0    0 …                                   0  1 …                1   1    0   0
//! real      1    1 …                                                         1   1    0   0
//! ```
//! The loss covers the end of the answer, because a model must learn to stop. The end and the padding
//! are different tokens, so masking one never masks the other.
//!
//! `objectives/rows.rs` writes the rows with feedback or edits.

use super::comparisons::{Most, Shape, compared};
use super::data::{Answer, Item};
use super::error::Result;
use super::similarity::f_score;
use candle_align::Sequence;
use candle_core::{DType, Device, Tensor};

pub const BOS: u32 = 256;
pub const EOS: u32 = 257;
pub const PAD: u32 = 258;
/// All bytes and the three marks.
pub const VOCABULARY: usize = 259;

/// A text as tokens: its bytes.
pub fn encode(text: &str) -> candle_align::Result<Vec<u32>> {
    Ok(text.bytes().map(u32::from).collect())
}

/// A prompt and the answers that are compared, best first, with their rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    pub prompt: String,
    pub answers: Vec<Answer>,
    /// The rows of all answers, the same number for each, starting with the first answer's.
    pub rows: Vec<Sequence>,
}

impl Example {
    /// One row for each answer: the prompt, then the answer and its end, which the loss covers.
    pub fn new(prompt: &str, answers: Vec<Answer>) -> Self {
        let bytes = |text: &str| -> Vec<u32> { text.bytes().map(u32::from).collect() };
        let row = |answer: &Answer| {
            let opened = Sequence::new().given(&[BOS]).given(&bytes(prompt));
            opened.learned(&bytes(&answer.text)).learned(&[EOS])
        };
        Self {
            rows: answers.iter().map(row).collect(),
            prompt: prompt.to_string(),
            answers,
        }
    }

    /// The tokens of the longest row.
    pub fn longest(&self) -> usize {
        self.rows.iter().map(Sequence::len).max().unwrap_or(0)
    }
}

/// The examples of an item, one row per answer.
pub fn examples(item: &Item, shape: Shape, most: Most) -> Vec<Example> {
    let lists = compared(item, shape, most).into_iter();
    lists.map(|list| Example::new(&item.prompt, list)).collect()
}

/// Examples as tensors: row `(example · k + i) · width + j` is row j of answer i.
#[derive(Clone, Debug)]
pub struct Batch {
    /// How many examples.
    pub size: usize,
    /// Answers per example; shorter lists are padded with rows that do not count.
    pub k: usize,
    /// Rows per answer.
    pub width: usize,
    /// `[size · k · width, time]`, u32.
    pub tokens: Tensor,
    /// 1 where the loss covers a token, on the answer and its end: in the shape of `tokens`, u8.
    pub learned: Tensor,
    /// 1 on everything but padding, in the same shape, u8. A row that does not count keeps its
    /// first token, so that every row has a last one.
    pub real: Tensor,
    /// 0 where a token is hidden from all later positions, in the same shape, u8; none hides nothing.
    pub visible: Option<Tensor>,
    /// `[size, k]`, f32.
    pub rewards: Tensor,
    /// How similar each answer is to the first, the best: `[size, k]`, f32.
    pub similarity: Tensor,
    /// Which answers exist: `[size, k]`, u8.
    pub exists: Tensor,
    /// The tokens that are not padding.
    pub token_count: usize,
}

impl Batch {
    pub fn new(examples: &[&Example]) -> Result<Self> {
        let k = examples.iter().map(|e| e.answers.len()).max().unwrap_or(0);
        let width = examples.iter().map(|e| e.rows.len() / e.answers.len());
        let width = width.max().unwrap_or(0);
        let time = examples.iter().map(|e| e.longest()).max().unwrap_or(0);
        let rows = examples.len() * k * width;
        let mut tokens = vec![PAD; rows * time];
        let mut learned = vec![0u8; rows * time];
        let mut real = vec![0u8; rows * time];
        let mut rewards = vec![0f32; examples.len() * k];
        let mut similarity = vec![0f32; examples.len() * k];
        let mut exists = vec![0u8; examples.len() * k];
        let mut token_count = 0;
        for (at, example) in examples.iter().enumerate() {
            for row in 0..k * width {
                let start = (at * k * width + row) * time;
                let Some(own) = example.rows.get(row) else {
                    (tokens[start], real[start]) = (BOS, 1);
                    continue;
                };
                let end = start + own.len();
                tokens[start..end].copy_from_slice(own.tokens());
                learned[start..end].copy_from_slice(own.mask());
                real[start..end].fill(1);
                token_count += own.len();
            }
            for (i, answer) in example.answers.iter().enumerate() {
                rewards[at * k + i] = answer.reward as f32;
                similarity[at * k + i] = f_score(&answer.text, &example.answers[0].text) as f32;
                exists[at * k + i] = 1;
            }
        }
        let (cpu, lists) = (&Device::Cpu, (examples.len(), k));
        Ok(Self {
            size: examples.len(),
            k,
            width,
            tokens: Tensor::from_vec(tokens, (rows, time), cpu)?,
            learned: Tensor::from_vec(learned, (rows, time), cpu)?,
            real: Tensor::from_vec(real, (rows, time), cpu)?,
            visible: None,
            rewards: Tensor::from_vec(rewards, lists, cpu)?,
            similarity: Tensor::from_vec(similarity, lists, cpu)?,
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

    const MOST: Most = Most {
        pairs: 64,
        answers: 64,
        seed: 0,
    };

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
            .flat_map(|item| examples(item, Shape::Lists, MOST))
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
        let learned = [
            [0, 0, 1, 1, 1, 0],
            [0, 0, 1, 1, 1, 1],
            [0, 0, 0, 1, 1, 0],
            [0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(batch.learned.to_vec2::<u8>().unwrap(), learned);
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
            examples(&list, shape, MOST).iter().map(texts).collect()
        };
        assert_eq!(texts(Shape::Best), ["a"]);
        assert_eq!(texts(Shape::Pairs), ["ab", "ac"]);
        assert_eq!(texts(Shape::Lists), ["abc"]);
    }
}
