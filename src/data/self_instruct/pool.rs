//! The pool of Self-Instruct: a new instruction is kept if it is unlike every instruction before it
//! (survey §2.2.1).
//!
//! | paper | here | shape |
//! |---|---|---|
//! | the task pool | [`InstructionPool`] | texts |
//! | ROUGE-L between two instructions | [`Nearest::score`] | number |
//! | 0.7 | [`PoolConfig::threshold`] | number |
//!
//! Read next: [`super::filter`], which comes before the pool, and [`super::prompt`], which shows the model
//! examples from it.

use crate::error::{Result, require};
use crate::text::{Common, f_measure, rouge_words};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// Settings of [`InstructionPool`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolConfig {
    /// In [0, 1]: an instruction whose ROUGE-L with a kept one is greater is left out. Default 0.7.
    pub threshold: f64,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self { threshold: 0.7 }
    }
}

/// The kept instruction that is most like another text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Nearest {
    /// Its number in the pool; of equally similar ones the first.
    pub index: usize,
    /// ROUGE-L's F, in [0, 1].
    pub score: f64,
}

/// What became of an instruction that was offered to the pool.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Offer {
    /// It is in the pool now, under this number.
    Kept(usize),
    /// It is left out: this kept instruction is too similar.
    Similar(Nearest),
}

/// Instructions that are all unlike each other, with an index over their words.
#[doc(alias = "Self-Instruct")]
#[doc(alias = "near-duplicates")]
#[derive(Clone, Debug)]
pub struct InstructionPool {
    threshold: f64,
    texts: Vec<String>,
    /// The words of each instruction, by number.
    kept: Vec<Vec<u32>>,
    numbers: HashMap<String, u32>,
    /// In how many instructions each word occurs.
    spread: Vec<usize>,
    /// Which instructions of a given length have a given word.
    having: BTreeMap<usize, HashMap<u32, Vec<u32>>>,
}

/// The bound below is compared with this much to spare; what passes it is computed as rouge-score does.
const ROUNDING: f64 = 1e-9;

impl InstructionPool {
    /// An empty pool.
    ///
    /// # Errors
    /// [`Error::Parameter`](crate::Error::Parameter) if the threshold is not in [0, 1].
    pub fn new(config: &PoolConfig) -> Result<Self> {
        require(
            (0.0..=1.0).contains(&config.threshold),
            "InstructionPool::new",
            "threshold",
            "in [0, 1]",
            config.threshold,
        )?;
        Ok(Self {
            threshold: config.threshold,
            texts: Vec::new(),
            kept: Vec::new(),
            numbers: HashMap::new(),
            spread: Vec::new(),
            having: BTreeMap::new(),
        })
    }

    /// The instructions in the order in which they came.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// Puts an instruction into the pool whatever it is like, such as one that people wrote. Returns its
    /// number.
    pub fn insert(&mut self, instruction: &str) -> usize {
        let words = self.words_to_keep(instruction);
        self.push(instruction, words)
    }

    /// Keeps an instruction unless it is too similar to one in the pool.
    ///
    /// # Equation
    /// ```text
    /// P = LCS(x, y)/│y│      R = LCS(x, y)/│x│      F(x, y) = 2PR/(P + R) = 2 LCS(x, y)/(│x│ + │y│)
    ///
    /// kept  ⇔  F(x, y) ≤ threshold for every y in the pool
    /// ```
    /// # Shapes
    /// Words are those of the package rouge-score without its stemmer: lower case, separated by everything
    /// except a–z and 0–9. │x│ counts them.
    /// # Errors
    /// None.
    /// # Properties
    /// * The answer is that of [`InstructionPool::nearest`], which compares with every instruction. It is
    ///   found faster: F > t needs LCS > t(│x│ + │y│)/2, so at least that many words are common, each as
    ///   often as both texts have it. Among the rarest words of x, of which that many can be missing
    ///   nowhere, at least one is in y. Only instructions with such a word are compared.
    /// * The score is computed in rouge-score's order of operations. Where F equals the threshold, rounding
    ///   decides as it does there: at 0.7, 7 common words of 10 and 10 are kept or not by the last bit.
    /// * A text without such words, say one in Chinese, is like no other, not even itself.
    /// # Departures
    /// * The paper keeps instructions with a ROUGE-L below 0.7. The authors' code, and this function, keep
    ///   those of exactly 0.7 too.
    /// * The authors' code compares with all seeds and all kept instructions in four processes, and also
    ///   writes the ten most similar ones and the mean score. [`InstructionPool::nearest`] gives the most
    ///   similar one.
    /// # Examples
    /// ```
    /// use candle_align::data::self_instruct::pool::*;
    ///
    /// let mut pool = InstructionPool::new(&PoolConfig::default())?;
    /// pool.insert("Name the capital of the given country.");
    ///
    /// // six of seven words, in order: F = 2 · 6/(7 + 7)
    /// let Offer::Similar(nearest) = pool.offer("Name the capital of a given country.") else {
    ///     panic!("it is kept");
    /// };
    /// assert_eq!(nearest.index, 0);
    /// assert!((nearest.score - 12.0 / 14.0).abs() < 1e-12);
    /// // the same seven words in another order have three in common: F = 2 · 3/(7 + 7)
    /// let other = pool.offer("Country of the given, name the capital!");
    /// assert_eq!(other, Offer::Kept(1));
    /// # Ok::<(), candle_align::Error>(())
    /// ```
    /// # Source
    /// Wang et al. 2022, arXiv:2212.10560, §2.2; authors' code yizhongw/self-instruct,
    /// `self_instruct/bootstrap_instructions.py`, with the package rouge-score. The bound on common words is
    /// the prefix filter of set similarity joins.
    pub fn offer(&mut self, instruction: &str) -> Offer {
        let words = self.words_to_keep(instruction);
        match self.similar(&words) {
            Some(nearest) => Offer::Similar(nearest),
            None => Offer::Kept(self.push(instruction, words)),
        }
    }

    /// The most similar instruction of the pool, found by comparing with every one. `None` if the pool is
    /// empty.
    pub fn nearest(&self, instruction: &str) -> Option<Nearest> {
        let words = rouge_words(instruction);
        // a word that no instruction has is common with none
        let number = |word: &String| self.numbers.get(word).copied().unwrap_or(u32::MAX);
        let words: Vec<u32> = words.iter().map(number).collect();
        let common = Common::new(&words);
        let score = |other: &Vec<u32>| f_measure(common.with(other), words.len(), other.len());
        most_similar(self.kept.iter().map(score).enumerate())
    }

    /// The kept instruction most like these words, if its score is above the threshold.
    fn similar(&self, words: &[u32]) -> Option<Nearest> {
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        words
            .iter()
            .for_each(|&w| *counts.entry(w).or_default() += 1);
        let mut rarest: Vec<(u32, usize)> = counts.into_iter().collect();
        rarest.sort_by_key(|&(word, _)| self.spread[word as usize]);

        let common = Common::new(words);
        let mut seen = vec![];
        for (&length, having) in &self.having {
            // LCS > t(│x│ + │y│)/2
            let needed = (self.threshold - ROUNDING) * (words.len() + length) as f64 / 2.0;
            let needed = (needed.ceil().max(1.0)) as usize;
            if needed > words.len().min(length) {
                continue;
            }
            // without one of these words fewer than `needed` are left
            let mut left = words.len();
            for &(word, count) in &rarest {
                if left < needed {
                    break;
                }
                left -= count;
                seen.extend(having.get(&word).into_iter().flatten().copied());
            }
        }
        seen.sort_unstable();
        seen.dedup();
        let score = |&i: &u32| {
            let other = &self.kept[i as usize];
            let score = f_measure(common.with(other), words.len(), other.len());
            (i as usize, score)
        };
        let nearest = most_similar(seen.iter().map(score));
        nearest.filter(|nearest| nearest.score > self.threshold)
    }

    /// The numbers of an instruction's words; new words get the next ones.
    fn words_to_keep(&mut self, instruction: &str) -> Vec<u32> {
        let mut numbers = Vec::new();
        for word in rouge_words(instruction) {
            let next = self.spread.len() as u32;
            let number = *self.numbers.entry(word).or_insert(next);
            if number == next {
                self.spread.push(0);
            }
            numbers.push(number);
        }
        numbers
    }

    fn push(&mut self, instruction: &str, words: Vec<u32>) -> usize {
        let index = self.kept.len();
        let having = self.having.entry(words.len()).or_default();
        let mut distinct = words.clone();
        distinct.sort_unstable();
        distinct.dedup();
        for word in distinct {
            self.spread[word as usize] += 1;
            having.entry(word).or_default().push(index as u32);
        }
        self.texts.push(instruction.to_string());
        self.kept.push(words);
        index
    }
}

/// The highest score, and the first of those that have it.
fn most_similar(scores: impl Iterator<Item = (usize, f64)>) -> Option<Nearest> {
    let mut best: Option<Nearest> = None;
    for (index, score) in scores {
        if best.is_none_or(|best| score > best.score) {
            best = Some(Nearest { index, score });
        }
    }
    best
}
