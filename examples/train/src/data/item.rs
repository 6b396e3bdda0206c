//! A prompt and its answers.

/// A prompt and its answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// A dialogue that ends in `\n\nAssistant: `, or in what the assistant has said so far.
    pub prompt: String,
    /// Whether the answer has begun in the prompt.
    pub begun: bool,
    /// The [`group`] of the prompt or of the root of its tree, which must not be in both halves of a split.
    pub group: u64,
    /// The line that it comes from.
    pub row: usize,
    /// At least one.
    pub answers: Vec<Answer>,
    /// Whether a reward of 1 means right and 0 means wrong; otherwise rewards only compare.
    pub judged: bool,
}

impl Item {
    pub fn new(prompt: String, answers: Vec<Answer>) -> Self {
        Self {
            group: group(&prompt),
            prompt,
            begun: false,
            row: 0,
            answers,
            judged: false,
        }
    }

    /// Adds an answer.
    pub fn answer(&mut self, text: &str, reward: f64) {
        let text = match self.begun {
            // it may begin with a blank
            true => text.trim_end(),
            false => text.trim(),
        };
        self.answers.push(Answer {
            text: text.to_string(),
            reward,
        });
    }

    /// Whether an answer is good: right, if the row says so, or else the best of its item.
    pub fn is_good(&self, answer: &Answer) -> bool {
        match self.judged {
            true => answer.reward == 1.0,
            false => answer.reward == self.best(),
        }
    }

    /// The highest reward.
    pub fn best(&self) -> f64 {
        let rewards = self.answers.iter().map(|answer| answer.reward);
        rewards.fold(f64::NEG_INFINITY, f64::max)
    }
}

/// A text as a number (FNV-1a). Two texts with one number count as the same group.
pub fn group(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// One answer. A higher reward is better; only the order within an item matters.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Without blanks around it; before it, there may be some where the prompt has begun the answer.
    pub text: String,
    pub reward: f64,
}

impl Answer {
    pub fn new(text: &str, reward: f64) -> Self {
        Self {
            text: text.trim().to_string(),
            reward,
        }
    }
}
