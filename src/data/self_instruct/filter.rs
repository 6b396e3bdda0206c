//! Which generated instructions Self-Instruct refuses before it compares them with the pool (survey §2.2.1).
//!
//! | paper | here | shape |
//! |---|---|---|
//! | one generation: a numbered list of instructions | [`split_generation`] | texts |
//! | heuristics on length, words and the first character | [`InstructionFilter::check`] | text |
//!
//! Read next: [`super::pool`].

use crate::error::{Error, Result, require};
use crate::text::is_blank;
use fancy_regex::Regex;
use serde::{Deserialize, Serialize};

/// Settings of [`InstructionFilter`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FilterConfig {
    /// The fewest words. Default 4.
    pub min_words: usize,
    /// The most words, at least `min_words`. Default 150.
    pub max_words: usize,
    /// Words and phrases that a text model cannot serve, matched whole and in any case. Default those of
    /// Self-Instruct; see [`FilterConfig::alpaca`].
    pub banned: Vec<String>,
    /// Beginnings that are refused, as they are spelled after [`InstructionFilter::normalize`]. Default
    /// `Write a program`.
    pub banned_starts: Vec<String>,
}

/// Self-Instruct's words.
const BANNED: [&str; 13] = [
    "image", "images", "graph", "graphs", "picture", "pictures", "file", "files", "map", "maps",
    "draw", "plot", "go to",
];
/// What Alpaca adds.
const ALPACA: [&str; 5] = ["video", "audio", "music", "flowchart", "diagram"];

impl Default for FilterConfig {
    fn default() -> Self {
        Self {
            min_words: 4,
            max_words: 150,
            banned: BANNED.map(str::to_string).to_vec(),
            banned_starts: vec!["Write a program".to_string()],
        }
    }
}

impl FilterConfig {
    /// Alpaca's words: those of Self-Instruct and five more.
    pub fn alpaca() -> Self {
        let mut config = Self::default();
        config.banned.extend(ALPACA.map(str::to_string));
        config
    }
}

/// Why an instruction is refused: the first rule that it breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It has no character but blanks.
    Empty,
    /// It has fewer words than [`FilterConfig::min_words`]: this many.
    TooShort(usize),
    /// It has more words than [`FilterConfig::max_words`]: this many.
    TooLong(usize),
    /// It has this banned word or phrase, as it is written there.
    Banned(String),
    /// It begins with this text of [`FilterConfig::banned_starts`].
    BannedStart(String),
    /// It begins with this ASCII punctuation mark.
    Punctuation(char),
    /// It begins with this character, which is not ASCII.
    NotAscii(char),
}

/// Self-Instruct's rules for a single instruction.
#[derive(Clone, Debug)]
pub struct InstructionFilter {
    config: FilterConfig,
    banned: Option<Regex>,
}

impl InstructionFilter {
    /// The rules of these settings.
    ///
    /// # Errors
    /// [`Error::Parameter`] if `max_words` is below `min_words`; [`Error::Argument`] if a banned word or
    /// beginning is empty, because it would refuse everything.
    pub fn new(config: &FilterConfig) -> Result<Self> {
        let function = "InstructionFilter::new";
        require(
            config.min_words <= config.max_words,
            function,
            "max_words",
            "at least `min_words`",
            config.max_words,
        )?;
        for (name, texts) in [
            ("banned", &config.banned),
            ("banned_starts", &config.banned_starts),
        ] {
            if let Some(i) = texts.iter().position(String::is_empty) {
                return Err(Error::argument(
                    function,
                    format!("{name}[{i}]"),
                    "is empty",
                ));
            }
        }
        let words = config.banned.iter().map(|word| fancy_regex::escape(word));
        let words = words.collect::<Vec<_>>().join("|");
        let banned = match words.is_empty() {
            true => None,
            false => Some(Regex::new(&format!(r"(?i)\b(?:{words})\b")).map_err(|e| {
                Error::argument(function, "banned", format!("is no list of words: {e}"))
            })?),
        };
        Ok(Self {
            config: config.clone(),
            banned,
        })
    }

    /// The spelling in which instructions are compared: blanks become single spaces, the first letter is
    /// large and all others are small.
    pub fn normalize(instruction: &str) -> String {
        let words: Vec<&str> = instruction
            .split(is_blank)
            .filter(|w| !w.is_empty())
            .collect();
        let text = words.join(" ");
        let mut letters = text.chars();
        match letters.next() {
            None => text,
            Some(first) => {
                let mut large = first.to_uppercase();
                let head: String = large.next().into_iter().collect();
                let tail: String = large.collect();
                head + &(tail + letters.as_str()).to_lowercase()
            }
        }
    }

    /// Normalizes an instruction and accepts or refuses it.
    ///
    /// # Equation
    /// ```text
    /// accepted  ⇔  min_words ≤ words ≤ max_words,  no banned word,  no banned beginning,
    ///              the first character is ASCII and no punctuation
    /// ```
    /// # Shapes
    /// Words are separated by blanks. The accepted instruction comes back as
    /// [`InstructionFilter::normalize`] spells it.
    /// # Errors
    /// None; a refusal is a result, not an error.
    /// # Properties
    /// * The rules are tried in the order of [`Refusal`]; the first one that is broken is named.
    /// * `map` is refused, `mapping` and `roadmap` are not: banned words are whole.
    /// * An accepted text is accepted again, unchanged.
    /// # Departures
    /// * Normalizing also makes names small, `france` for `France`, as the authors' code does.
    /// * Word boundaries are those of Unicode's regular expressions. Python's differ in combining marks.
    /// # Examples
    /// ```
    /// use candle_align::data::self_instruct::filter::*;
    ///
    /// let filter = InstructionFilter::new(&FilterConfig::default())?;
    /// assert_eq!(filter.check("name  a city in France").unwrap(), "Name a city in france");
    /// assert_eq!(filter.check("Draw a city in France"), Err(Refusal::Banned("Draw".into())));
    /// assert_eq!(filter.check("Name a city"), Err(Refusal::TooShort(3)));
    /// # Ok::<(), candle_align::Error>(())
    /// ```
    /// # Source
    /// Wang et al. 2022, arXiv:2212.10560, §2.2; authors' code yizhongw/self-instruct,
    /// `self_instruct/bootstrap_instructions.py`, `post_process_gpt3_response`. Alpaca's words: a secondary
    /// list of tatsu-lab/stanford_alpaca, `generate_instruction.py`.
    pub fn check(&self, instruction: &str) -> Result<String, Refusal> {
        let text = Self::normalize(instruction);
        let Some(first) = text.chars().next() else {
            return Err(Refusal::Empty);
        };
        let words = text.split(' ').count();
        if words < self.config.min_words {
            return Err(Refusal::TooShort(words));
        }
        if words > self.config.max_words {
            return Err(Refusal::TooLong(words));
        }
        let found = self
            .banned
            .as_ref()
            .and_then(|banned| banned.find(&text).ok()?);
        if let Some(found) = found {
            return Err(Refusal::Banned(found.as_str().to_string()));
        }
        let starts = &self.config.banned_starts;
        if let Some(start) = starts.iter().find(|start| text.starts_with(*start)) {
            return Err(Refusal::BannedStart(start.clone()));
        }
        if first.is_ascii_punctuation() {
            return Err(Refusal::Punctuation(first));
        }
        match first.is_ascii() {
            true => Ok(text),
            false => Err(Refusal::NotAscii(first)),
        }
    }
}

/// How a generation came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model stopped.
    Stop,
    /// The limit on its length cut it off.
    Length,
}

/// The instructions of one generation, which goes on with the numbered list of the prompt.
///
/// # Equation
/// ```text
/// 9. text⏎10. text⏎…   →   the texts between "⏎ number . blank"; a generation that was cut off → none
/// ```
/// # Shapes
/// `text` is what the model wrote after the last number of the prompt. Instructions come back as they were
/// written, without the blanks around them; empty ones are left out.
/// # Errors
/// None.
/// # Properties
/// * A line that begins with a number but without a point, `2 cups of flour`, stays inside its instruction.
/// # Departures
/// Alpaca's code keeps a generation that was cut off and drops its last instruction alone. Here, as in
/// Self-Instruct's code, the whole generation is dropped.
/// # Examples
/// ```
/// use candle_align::data::self_instruct::filter::{Finish, split_generation};
///
/// let text = " Name a city.\n10. Translate:\nhello\n11. Sum up the text.";
/// let found = split_generation(text, Finish::Stop);
/// assert_eq!(found, ["Name a city.", "Translate:\nhello", "Sum up the text."]);
/// assert!(split_generation(text, Finish::Length).is_empty());
/// ```
/// # Source
/// Wang et al. 2022, arXiv:2212.10560; authors' code yizhongw/self-instruct,
/// `self_instruct/bootstrap_instructions.py`, `post_process_gpt3_response`.
pub fn split_generation(text: &str, finish: Finish) -> Vec<&str> {
    if finish == Finish::Length {
        return Vec::new();
    }
    let (mut found, mut start) = (Vec::new(), 0);
    for (line, _) in text.match_indices('\n') {
        let rest = &text[line + 1..];
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let after = &rest[digits..];
        let blank = after.chars().next().filter(|&c| is_blank(c));
        let after = &after[blank.map_or(0, char::len_utf8)..];
        if digits > 0 && after.starts_with(". ") && line >= start {
            found.push(&text[start..line]);
            start = text.len() - after.len() + 2;
        }
    }
    found.push(&text[start..]);
    let trimmed = found.into_iter().map(|text| text.trim_matches(is_blank));
    trimmed.filter(|text| !text.is_empty()).collect()
}
