//! A world small enough to enumerate: every answer to every prompt has a known reward, and the
//! probability that a policy gives to each answer can be written down.
//!
//! **Convention.** Seven content symbols and one end symbol. A prompt is two of the first four
//! content symbols: sixteen prompts. An answer is at most `tokens` tokens: content symbols and
//! then the end, or `tokens` content symbols, where it is cut. So an answer is a content string of
//! length 0 to `tokens`, and with `tokens` = 4 there are 1 + 7 + 49 + 343 + 2401 = 2801 per prompt,
//! from 400 next-token distributions. A causal model gives those of all prefixes of a row at
//! once, so 7³ rows per prompt tell the whole policy.
//!
//! **Other symbols.** The vocabulary has sixteen more, which no answer contains: the verdicts and the edits
//! that the methods of §3.2.2 write around answers. Within an answer the softmax of every policy
//! excludes them, so that all policies share one set of outcomes. A method that
//! learns under the softmax over the whole vocabulary has some probability of writing one of them
//! within an answer, which [`Policy::escaped`] measures.
//!
//! **In letters.** Text for the library is letters here: `a` to `g` are the content symbols,
//! `.` the end, `+`, `-` and `!` the first three of the others; `!` ends one side's turn. The empty
//! answer is `.`; an answer that was cut has no dot.

mod draw;
mod exact;
mod frontier;
mod policy;

pub use frontier::{Best, Frontier};
pub use policy::{Policy, choose, expectation, kl, log_softmax};

use candle_align::{Error, Result};
use candle_core::{Device, Tensor};
use rand::rngs::StdRng;

/// Symbols that carry content.
pub const CONTENT: usize = 7;
/// The symbol that ends an answer and pads the row after it.
pub const END: u32 = CONTENT as u32;
/// All symbols of answers.
pub const SYMBOLS: usize = CONTENT + 1;
/// The first of the other symbols.
pub const OTHER: u32 = SYMBOLS as u32;
/// Ends one side's turn, in texts that are more than an answer.
pub const STOP: u32 = OTHER + 2;
/// The first of the sixteen symbols in which edits are written.
pub const EDITS: u32 = OTHER + 3;
/// All symbols that a model knows.
pub const VOCABULARY: usize = EDITS as usize + 16;
/// Symbols a prompt is made of.
const PROMPT_SYMBOLS: usize = 4;
/// Tokens of a prompt.
pub const PROMPT: usize = 2;
/// How many prompts there are; all are equally likely.
pub const PROMPTS: usize = PROMPT_SYMBOLS * PROMPT_SYMBOLS;

/// One answer to one prompt, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub prompt: usize,
    pub outcome: usize,
}

/// One number for every answer to every prompt: `[prompt][outcome]`.
pub type PerAnswer = Vec<Vec<f64>>;

/// The prompts, the answers, their rewards, and where demonstrations come from.
pub struct World {
    /// The most tokens that an answer has.
    pub tokens: usize,
    /// Where the strings of each length begin in the numbering of outcomes.
    offsets: Vec<usize>,
    /// The known reward of every answer.
    pub rewards: PerAnswer,
    /// The distribution of demonstrations.
    pub demonstrations: Policy,
    /// Per prompt, all outcomes from the least reward to the greatest.
    order: Vec<Vec<usize>>,
}

impl World {
    /// The world of one seed.
    pub fn new(tokens: usize, rng: &mut StdRng) -> Self {
        let offsets = (0..=tokens + 1)
            .map(|length| (0..length).map(|l| CONTENT.pow(l as u32)).sum())
            .collect();
        let mut world = Self {
            tokens,
            offsets,
            rewards: Vec::new(),
            demonstrations: Policy {
                log_next: Vec::new(),
                prefixes: 0,
            },
            order: Vec::new(),
        };
        world.demonstrations = world.draw_demonstrations(rng);
        world.rewards = world.draw_rewards(rng);
        world.order = world
            .rewards
            .iter()
            .map(|rewards| {
                let mut order: Vec<usize> = (0..rewards.len()).collect();
                order.sort_by(|&a, &b| rewards[a].total_cmp(&rewards[b]));
                order
            })
            .collect();
        world
    }

    /// Answers per prompt.
    pub fn outcomes(&self) -> usize {
        self.offsets[self.tokens + 1]
    }

    /// Prefixes after which a symbol is chosen, per prompt.
    pub fn prefixes(&self) -> usize {
        self.offsets[self.tokens]
    }

    /// The content symbols of an outcome, or of a prefix: both are numbered alike.
    pub fn content(&self, outcome: usize) -> Vec<u32> {
        let length = (0..=self.tokens)
            .rfind(|&l| self.offsets[l] <= outcome)
            .unwrap_or(0);
        let mut code = outcome - self.offsets[length];
        let mut content = vec![0; length];
        for symbol in content.iter_mut().rev() {
            *symbol = (code % CONTENT) as u32;
            code /= CONTENT;
        }
        content
    }

    /// The number of a content string.
    pub fn number(&self, content: &[u32]) -> usize {
        let code = content
            .iter()
            .fold(0, |code, &symbol| code * CONTENT + symbol as usize);
        self.offsets[content.len()] + code
    }

    /// How many tokens an answer has, its end included.
    pub fn length(&self, outcome: usize) -> usize {
        (self.content(outcome).len() + 1).min(self.tokens)
    }

    /// The two tokens of a prompt.
    pub fn prompt(&self, prompt: usize) -> [u32; PROMPT] {
        [prompt / PROMPT_SYMBOLS, prompt % PROMPT_SYMBOLS].map(|s| s as u32)
    }

    /// Prompt, answer and filling, as long as the longest row; and which tokens are the answer's.
    pub fn row(&self, answer: Answer) -> (Vec<u32>, Vec<u8>) {
        let mut tokens = self.prompt(answer.prompt).to_vec();
        tokens.extend(self.content(answer.outcome));
        tokens.resize(PROMPT + self.tokens, END);
        let end = PROMPT + self.length(answer.outcome);
        let mask = (0..tokens.len())
            .map(|t| u8::from((PROMPT..end).contains(&t)))
            .collect();
        (tokens, mask)
    }

    /// The rows of some answers: tokens (u32) and mask (u8), both `[answers, time]`.
    pub fn batch(&self, answers: &[Answer]) -> Result<(Tensor, Tensor)> {
        let shape = (answers.len(), PROMPT + self.tokens);
        let (mut tokens, mut mask) = (Vec::new(), Vec::new());
        for &answer in answers {
            let row = self.row(answer);
            tokens.extend(row.0);
            mask.extend(row.1);
        }
        Ok((
            Tensor::from_vec(tokens, shape, &Device::Cpu)?,
            Tensor::from_vec(mask, shape, &Device::Cpu)?,
        ))
    }

    /// Every answer of the world.
    pub fn answers(&self) -> Vec<Answer> {
        (0..PROMPTS)
            .flat_map(|prompt| (0..self.outcomes()).map(move |outcome| Answer { prompt, outcome }))
            .collect()
    }

    /// The letters of an answer.
    pub fn text(&self, outcome: usize) -> String {
        let mut symbols = self.content(outcome);
        if symbols.len() < self.tokens {
            symbols.push(END);
        }
        letters(&symbols)
    }

    /// The letters of a prompt.
    pub fn prompt_text(&self, prompt: usize) -> String {
        letters(&self.prompt(prompt))
    }

    /// The number of the answer in these symbols, if they are one.
    pub fn read(&self, symbols: &[u32]) -> Option<usize> {
        let content = match symbols {
            [content @ .., END] if content.len() < self.tokens => content,
            cut if cut.len() == self.tokens => cut,
            _ => return None,
        };
        self.number_of(content)
    }

    /// An answer as a row of `tokens` symbols: its content, then the end symbol up to the full length.
    pub fn filled(&self, outcome: usize) -> Vec<u32> {
        let mut symbols = self.content(outcome);
        symbols.resize(self.tokens, END);
        symbols
    }

    /// The number of the answer of which this is [`Self::filled`], if there is one.
    pub fn read_filled(&self, symbols: &[u32]) -> Option<usize> {
        let end = symbols.iter().position(|&s| s == END);
        let outcome = self.number_of(&symbols[..end.unwrap_or(symbols.len())])?;
        (self.filled(outcome) == symbols).then_some(outcome)
    }

    /// The number of these symbols, if they are the content of an answer.
    pub fn number_of(&self, content: &[u32]) -> Option<usize> {
        let is_content = |&symbol: &u32| (symbol as usize) < CONTENT;
        let fits = content.len() <= self.tokens && content.iter().all(is_content);
        fits.then(|| self.number(content))
    }

    fn content_length(&self, outcome: usize) -> usize {
        (0..=self.tokens)
            .rfind(|&l| self.offsets[l] <= outcome)
            .unwrap_or(0)
    }
}

fn letters(symbols: &[u32]) -> String {
    let letter = |&s: &u32| char::from(b"abcdefg.+-!"[s as usize]);
    symbols.iter().map(letter).collect()
}

/// The symbols of letters: the tokenizer of this world.
pub fn encode(text: &str) -> Result<Vec<u32>> {
    let symbol = |letter| match "abcdefg.+-!".find(letter) {
        Some(at) => Ok(at as u32),
        None => {
            let message = format!("`{letter}` is no letter of this world");
            Err(Error::from(candle_core::Error::Msg(message)))
        }
    };
    text.chars().map(symbol).collect()
}
