//! Rewards by a rule.

use super::super::super::super::error::{Error, Result};
use super::super::prompts::Prompt;
use super::super::rollout::Answer;
use super::Reward;
use candle_align::online::shaping::{OverlongConfig, overlong_penalty};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

/// Settings of `regex`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Regex {
    /// Looked for anywhere in the answer; `^` and `$` are its ends.
    pub pattern: String,
}

/// Settings of `contains`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contains {
    pub text: String,
}

/// What a length counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Without the end token.
    #[default]
    Tokens,
    /// What blanks separate.
    Words,
}

/// Settings of `length`: 1 − │length − target│ / target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Length {
    pub target: usize,
    #[serde(default)]
    pub unit: Unit,
}

/// A rule, ready to score.
pub enum Rule {
    FinalAnswer,
    Regex(Box<fancy_regex::Regex>),
    Contains(String),
    Length(Length),
    Overlong(OverlongConfig),
}

impl Rule {
    pub fn new(reward: &Reward) -> Result<Self> {
        match reward {
            Reward::FinalAnswer => Ok(Self::FinalAnswer),
            Reward::Regex(Regex { pattern }) => {
                let regex = fancy_regex::Regex::new(pattern).map_err(|error| {
                    Error::Usage(format!(
                        "`regex.pattern` is not a regular expression: `{pattern}`: {error}"
                    ))
                })?;
                Ok(Self::Regex(Box::new(regex)))
            }
            Reward::Contains(Contains { text }) if text.is_empty() => Err(Error::Usage(
                "`contains.text` is empty, which every answer contains".to_string(),
            )),
            Reward::Contains(Contains { text }) => Ok(Self::Contains(text.clone())),
            Reward::Length(length) if length.target == 0 => Err(Error::Usage(
                "`length.target` must be at least 1, got 0".to_string(),
            )),
            Reward::Length(length) => Ok(Self::Length(*length)),
            Reward::Overlong(OverlongConfig { limit, buffer })
                if !(1..=*limit).contains(buffer) =>
            {
                Err(Error::Usage(format!(
                    "`overlong.buffer` must be from 1 to `overlong.limit`, {limit}, got {buffer}"
                )))
            }
            Reward::Overlong(config) => Ok(Self::Overlong(config.clone())),
            other => Err(Error::Usage(format!("`{}` is not a rule", other.name()))),
        }
    }

    /// Whether it compares with the right answer.
    pub fn needs_reference(&self) -> bool {
        matches!(self, Self::FinalAnswer)
    }

    pub fn score(&self, prompt: &Prompt, answer: &Answer) -> Result<f64> {
        let text = answer.text.as_str();
        Ok(match self {
            Self::FinalAnswer => {
                let right = prompt.reference.as_deref().map(wanted);
                f64::from(right.is_some() && right == last(text).map(normal))
            }
            Self::Regex(regex) => {
                let found = regex.is_match(text);
                f64::from(found.map_err(|error| {
                    Error::Usage(format!(
                        "`regex.pattern` could not be matched with an answer of {} characters: {error}",
                        text.chars().count()
                    ))
                })?)
            }
            Self::Contains(part) => f64::from(text.contains(part.as_str())),
            Self::Overlong(config) => {
                let length = Tensor::new(&[answer.ids.len() as f64], &Device::Cpu)?;
                overlong_penalty(&length, config)?.to_vec1::<f64>()?[0]
            }
            Self::Length(Length { target, unit }) => {
                let length = match unit {
                    Unit::Tokens => answer.ids.len() - usize::from(answer.ended),
                    Unit::Words => text.split_whitespace().count(),
                };
                1.0 - (length as f64 - *target as f64).abs() / *target as f64
            }
        })
    }
}

const MARK: &str = "####";

/// The text after the last mark, up to the end of the mark's line.
fn last(text: &str) -> Option<&str> {
    let (_, after) = text.rsplit_once(MARK)?;
    Some(after.lines().next()?.trim())
}

/// The right answer: after its mark, or all of it.
fn wanted(reference: &str) -> String {
    normal(last(reference).unwrap_or(reference))
}

/// A number without what does not change it, or else the text without blanks around it. Blanks inside a number do not
/// change it: "1 000" is 1000.
fn normal(text: &str) -> String {
    let text = text.trim();
    let plain = text.trim_end_matches('.').replace([',', '$', '%', ' '], "");
    let (sign, digits) = match plain.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", plain.strip_prefix('+').unwrap_or(&plain)),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let all = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() && part.is_empty() || !all(whole) || !all(part) {
        return text.to_string();
    }
    let (whole, part) = (whole.trim_start_matches('0'), part.trim_end_matches('0'));
    let whole = if whole.is_empty() { "0" } else { whole };
    let sign = if whole == "0" && part.is_empty() {
        ""
    } else {
        sign
    };
    match part {
        "" => format!("{sign}{whole}"),
        part => format!("{sign}{whole}.{part}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_equal_however_they_are_written() {
        for (text, want) in [
            (" 1,234 ", "1234"),
            ("$12.50", "12.5"),
            ("42.", "42"),
            ("042", "42"),
            ("-0.0", "0"),
            ("-.5", "-0.5"),
            ("+7", "7"),
            ("50 %", "50"),
            // larger than any float is exact for
            ("9007199254740993", "9007199254740993"),
            // no numbers
            ("1.2.3", "1.2.3"),
            ("twelve", "twelve"),
            ("", ""),
            (".", "."),
            ("3 apples", "3 apples"),
        ] {
            assert_eq!(normal(text), want, "{text}");
        }
    }

    #[test]
    fn the_last_mark_counts_and_a_missing_one_is_wrong() {
        assert_eq!(last("a #### 3\n#### 4\nrest"), Some("4"));
        assert_eq!(last("no mark 4"), None);
        assert_eq!(wanted("so it is\n#### 1,000"), "1000");
        assert_eq!(wanted("1000"), "1000");
    }
}
