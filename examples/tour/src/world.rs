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

use support::transformer::Transformer;
use candle_align::{Error, Result};
use candle_core::{DType, Device, Tensor};
use rand::Rng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, StandardNormal};

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

/// log π(next symbol | context, prefix) for every prefix: a complete description of a policy.
///
/// The contexts are the prompts, in their order, unless stated otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// `[context][prefix][symbol]`, flat.
    log_next: Vec<f64>,
    prefixes: usize,
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

    /// What a model answers to every prompt.
    pub fn tabulate(&self, model: &Transformer) -> Result<Policy> {
        let prompts: Vec<Vec<u32>> = (0..PROMPTS).map(|p| self.prompt(p).to_vec()).collect();
        Ok(self.tabulate_behind(model, &prompts)?.within_answers())
    }

    /// A model's next-symbol distributions after each of some contexts, under the softmax over its
    /// whole vocabulary: one teacher-forced pass over the longest prefixes.
    pub fn tabulate_behind(&self, model: &Transformer, contexts: &[Vec<u32>]) -> Result<Policy> {
        let deepest = self.tokens - 1;
        let rows = CONTENT.pow(deepest as u32);
        let mut log_next = Vec::with_capacity(contexts.len() * self.prefixes() * SYMBOLS);
        // One context at a time, so that the tensors stay inside the cache.
        for context in contexts {
            let time = context.len() + deepest;
            let tokens: Vec<u32> = (0..rows)
                .flat_map(|row| {
                    let content = self.content(self.offsets[deepest] + row);
                    context.iter().copied().chain(content)
                })
                .collect();
            let tokens = Tensor::from_vec(tokens, (rows, time), &Device::Cpu)?;
            let logits = model
                .forward(&tokens)?
                .logits
                .detach()
                .narrow(1, context.len() - 1, self.tokens)?
                .to_dtype(DType::F64)?
                .flatten_all()?
                .to_vec1::<f64>()?;
            for length in 0..self.tokens {
                // All rows with a prefix agree on what follows it; take the first.
                let stride = CONTENT.pow((deepest - length) as u32);
                for prefix in 0..CONTENT.pow(length as u32) {
                    let at = (prefix * stride * self.tokens + length) * VOCABULARY;
                    let all = log_softmax(&logits[at..at + VOCABULARY]);
                    log_next.extend_from_slice(&all[..SYMBOLS]);
                }
            }
        }
        Ok(Policy {
            log_next,
            prefixes: self.prefixes(),
        })
    }

    /// log π of every answer: one pass down the tree.
    pub fn log_probs(&self, policy: &Policy) -> PerAnswer {
        (0..policy.contexts())
            .map(|prompt| {
                // log π(prefix) first, then the end after it; the longest strings need no end.
                let mut prefix = vec![0.0; self.outcomes()];
                for parent in 0..self.prefixes() {
                    let length = self.content_length(parent);
                    let child =
                        self.offsets[length + 1] + (parent - self.offsets[length]) * CONTENT;
                    let next = policy.next(prompt, parent);
                    for symbol in 0..CONTENT {
                        prefix[child + symbol] = prefix[parent] + next[symbol];
                    }
                }
                for (ended, log_p) in prefix.iter_mut().take(self.prefixes()).enumerate() {
                    *log_p += policy.next(prompt, ended)[END as usize];
                }
                prefix
            })
            .collect()
    }

    /// One answer from a policy, token by token.
    pub fn sample(&self, policy: &Policy, prompt: usize, rng: &mut StdRng) -> Answer {
        let mut content = Vec::new();
        while content.len() < self.tokens {
            match choose(policy.next(prompt, self.number(&content)), rng) {
                END => break,
                symbol => content.push(symbol),
            }
        }
        Answer {
            prompt,
            outcome: self.number(&content),
        }
    }

    /// P(the policy's answer has the greater reward) + ½ P(equal), against an answer of the other.
    pub fn win_rate(&self, policy: &PerAnswer, other: &PerAnswer) -> f64 {
        let per_prompt = (0..PROMPTS).map(|prompt| {
            let rewards = &self.rewards[prompt];
            let order = &self.order[prompt];
            let (mut below, mut wins, mut i) = (0.0, 0.0, 0);
            while i < order.len() {
                let tied = order[i..]
                    .iter()
                    .take_while(|&&j| rewards[j] == rewards[order[i]])
                    .count();
                let (mut here, mut there) = (0.0, 0.0);
                for &j in &order[i..i + tied] {
                    here += policy[prompt][j].exp();
                    there += other[prompt][j].exp();
                }
                wins += here * (below + 0.5 * there);
                below += there;
                i += tied;
            }
            wins
        });
        per_prompt.sum::<f64>() / PROMPTS as f64
    }

    fn content_length(&self, outcome: usize) -> usize {
        (0..=self.tokens)
            .rfind(|&l| self.offsets[l] <= outcome)
            .unwrap_or(0)
    }

    /// Next symbols that depend on the prompt, the last symbol and the position.
    fn draw_demonstrations(&self, rng: &mut StdRng) -> Policy {
        let by_first = normals(PROMPT_SYMBOLS * SYMBOLS, rng);
        let by_second = normals(PROMPT_SYMBOLS * SYMBOLS, rng);
        let by_last = normals((SYMBOLS + 1) * SYMBOLS, rng);
        let by_position = normals((self.tokens + 1) * SYMBOLS, rng);
        let mut log_next = Vec::new();
        for prompt in 0..PROMPTS {
            let [first, second] = self.prompt(prompt).map(|s| s as usize);
            for prefix in 0..self.prefixes() {
                let content = self.content(prefix);
                let last = content.last().map_or(SYMBOLS, |&s| s as usize);
                let logits: Vec<f64> = (0..SYMBOLS)
                    .map(|symbol| {
                        0.5 * by_first[first * SYMBOLS + symbol]
                            + 0.5 * by_second[second * SYMBOLS + symbol]
                            + 0.7 * by_last[last * SYMBOLS + symbol]
                            + 0.3 * by_position[content.len() * SYMBOLS + symbol]
                    })
                    .collect();
                log_next.extend(log_softmax(&logits));
            }
        }
        Policy {
            log_next,
            prefixes: self.prefixes(),
        }
    }

    /// A reward for symbols that suit the prompt, for transitions between symbols, and for length.
    /// Under the demonstrations it has mean 0 for each prompt and variance 1 overall.
    fn draw_rewards(&self, rng: &mut StdRng) -> PerAnswer {
        let symbols = normals(PROMPT_SYMBOLS * CONTENT, rng);
        let steps = normals(PROMPT_SYMBOLS * CONTENT * CONTENT, rng);
        let places = normals(self.tokens * CONTENT, rng);
        let lengths = normals(PROMPTS * (self.tokens + 1), rng);
        let mut rewards: PerAnswer = (0..PROMPTS)
            .map(|prompt| {
                let [first, second] = self.prompt(prompt).map(|s| s as usize);
                (0..self.outcomes())
                    .map(|outcome| {
                        let content = self.content(outcome);
                        let at = |t: usize| content[t] as usize;
                        let length = content.len();
                        0.5 * lengths[prompt * (self.tokens + 1) + length]
                            + (0..length)
                                .map(|t| {
                                    0.8 * symbols[first * CONTENT + at(t)]
                                        + 0.5 * places[t * CONTENT + at(t)]
                                })
                                .sum::<f64>()
                            + (1..length)
                                .map(|t| {
                                    0.5 * steps[(second * CONTENT + at(t - 1)) * CONTENT + at(t)]
                                })
                                .sum::<f64>()
                    })
                    .collect()
            })
            .collect();
        let log_d = self.log_probs(&self.demonstrations);
        let mut variance = 0.0;
        for (rewards, log_d) in rewards.iter_mut().zip(&log_d) {
            let mean: f64 = rewards.iter().zip(log_d).map(|(r, l)| r * l.exp()).sum();
            for (reward, l) in rewards.iter_mut().zip(log_d) {
                *reward -= mean;
                variance += l.exp() * *reward * *reward / PROMPTS as f64;
            }
        }
        for reward in rewards.iter_mut().flatten() {
            *reward /= variance.sqrt();
        }
        rewards
    }
}

impl Policy {
    /// How many contexts it answers to.
    fn contexts(&self) -> usize {
        self.log_next.len() / (self.prefixes * SYMBOLS)
    }

    /// The policy restricted to answers: each next symbol is a symbol of answers.
    pub fn within_answers(&self) -> Self {
        let rows = self.log_next.chunks(SYMBOLS);
        Self {
            log_next: rows.flat_map(log_softmax).collect(),
            prefixes: self.prefixes,
        }
    }

    /// The probability that a text is no answer because it contains one of the other symbols; the mean
    /// over contexts.
    pub fn escaped(&self, world: &World) -> f64 {
        let log_p = world.log_probs(self);
        let inside: f64 = log_p.iter().flatten().map(|l| l.exp()).sum();
        1.0 - inside / log_p.len() as f64
    }

    /// log π(symbol | prompt, prefix) of all symbols.
    pub fn next(&self, prompt: usize, prefix: usize) -> &[f64] {
        let at = (prompt * self.prefixes + prefix) * SYMBOLS;
        &self.log_next[at..at + SYMBOLS]
    }
}

/// E over prompts and a policy's answers of some number.
pub fn expectation(log_p: &PerAnswer, value: &PerAnswer) -> f64 {
    let per_prompt = log_p.iter().zip(value).map(|(log_p, value)| {
        let terms = log_p.iter().zip(value).map(|(l, v)| l.exp() * v);
        terms.sum::<f64>()
    });
    per_prompt.sum::<f64>() / log_p.len() as f64
}

/// KL(p‖q), the mean over prompts.
pub fn kl(log_p: &PerAnswer, log_q: &PerAnswer) -> f64 {
    let per_prompt = log_p.iter().zip(log_q).map(|(p, q)| {
        let terms = p.iter().zip(q).map(|(p, q)| p.exp() * (p - q));
        terms.sum::<f64>()
    });
    per_prompt.sum::<f64>() / log_p.len() as f64
}

/// The best that any policy can do: E r against KL(π‖π_ref), reached by π_β ∝ π_ref · e^{r/β}.
///
/// One β for all prompts is optimal, because the mean KL is what counts.
pub struct Frontier<'a> {
    pub reference: &'a PerAnswer,
    pub rewards: &'a PerAnswer,
}

/// A policy on the frontier.
pub struct Best {
    /// 1/β; 0 is the reference.
    pub eta: f64,
    pub reward: f64,
    pub kl: f64,
}

impl Frontier<'_> {
    /// log π_β with 1/β = η.
    pub fn policy(&self, eta: f64) -> PerAnswer {
        let tilt = |(log_p, rewards): (&Vec<f64>, &Vec<f64>)| {
            let tilted: Vec<f64> = log_p
                .iter()
                .zip(rewards)
                .map(|(l, r)| l + eta * r)
                .collect();
            log_softmax(&tilted)
        };
        self.reference.iter().zip(self.rewards).map(tilt).collect()
    }

    /// The point of one η, without writing the policy down: KL = η·E r − log Z.
    pub fn at(&self, eta: f64) -> Best {
        let (mut reward, mut log_z) = (0.0, 0.0);
        for (log_p, rewards) in self.reference.iter().zip(self.rewards) {
            let best = rewards.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let (mut z, mut weighted) = (0.0, 0.0);
            for (l, r) in log_p.iter().zip(rewards) {
                let weight = (l + eta * (r - best)).exp();
                z += weight;
                weighted += weight * r;
            }
            reward += weighted / z;
            log_z += z.ln() + eta * best;
        }
        let prompts = self.reference.len() as f64;
        Best {
            eta,
            reward: reward / prompts,
            kl: (eta * reward - log_z) / prompts,
        }
    }

    /// The point of one KL, by bisection: KL increases with η.
    pub fn at_kl(&self, target: f64) -> Best {
        if target <= 0.0 {
            return self.at(0.0);
        }
        let (mut low, mut high) = (0.0, 1.0);
        while self.at(high).kl < target && high < 1e6 {
            (low, high) = (high, 2.0 * high);
        }
        for _ in 0..50 {
            let middle = 0.5 * (low + high);
            if self.at(middle).kl < target {
                low = middle;
            } else {
                high = middle;
            }
        }
        self.at(high)
    }

    /// The largest KL that buys anything: −log π_ref(best answer), the mean over prompts.
    pub fn largest_kl(&self) -> f64 {
        let best = self.reference.iter().zip(self.rewards).map(|(log_p, r)| {
            let at = (0..r.len()).max_by(|&a, &b| r[a].total_cmp(&r[b]));
            -log_p[at.unwrap_or(0)]
        });
        best.sum::<f64>() / self.reference.len() as f64
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

/// A symbol by its log-probabilities.
pub fn choose(log_p: &[f64], rng: &mut StdRng) -> u32 {
    let mut left: f64 = rng.random();
    for (symbol, l) in log_p.iter().enumerate() {
        left -= l.exp();
        if left < 0.0 {
            return symbol as u32;
        }
    }
    log_p.len() as u32 - 1
}

pub fn log_softmax(logits: &[f64]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = logits.iter().map(|l| (l - max).exp()).sum();
    let shift = max + total.ln();
    logits.iter().map(|l| l - shift).collect()
}

fn normals(count: usize, rng: &mut StdRng) -> Vec<f64> {
    (0..count).map(|_| StandardNormal.sample(rng)).collect()
}
