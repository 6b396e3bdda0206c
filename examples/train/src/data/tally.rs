//! Counts of what was read and of what was not used, by kind.

use serde::Serialize;
use std::collections::BTreeMap;

/// Why something that could be read was not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The two sides of a pair answer different prompts.
    PromptsDiffer,
    /// An answer of blanks alone.
    EmptyAnswer,
    /// Two answers with the same text: there is nothing to prefer.
    EqualAnswers,
    /// An answer that leaves no room for a prompt within the length limit.
    AnswerTooLong,
    /// A reply without a rank among several.
    NoRank,
    /// A message marked as deleted, with all below it.
    Deleted,
    /// A message that its reviewers rejected, with all below it.
    Rejected,
    /// A prompt without an answer.
    NoAnswer,
    /// A conversation in which no answer has a weight.
    NoWeight,
    /// Several answers, none better than another.
    NoPreference,
    /// One answer where two are needed.
    SingleAnswer,
    /// Answers without a mark right or wrong, if that is needed.
    NoVerdict,
    /// One answer, right or wrong, if two to one prompt are needed.
    Unpaired,
    /// A single wrong answer, if a good one is needed.
    Wrong,
    /// A prompt in which the answer has begun, if words must be written before the answer.
    Begun,
    /// Not three answers, or the second no better than the last, if a gold answer stands beside a pair.
    NotThree,
    /// An answer beyond the limit of a comparison.
    TooMany,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::PromptsDiffer => "the prompts differ",
            Self::EmptyAnswer => "an empty answer",
            Self::EqualAnswers => "equal answers",
            Self::AnswerTooLong => "an answer too long",
            Self::NoRank => "a reply without rank",
            Self::Deleted => "a deleted reply",
            Self::Rejected => "a reply that reviewers rejected",
            Self::NoAnswer => "no answer",
            Self::NoWeight => "weight 0 on every answer",
            Self::NoPreference => "no answer better than another",
            Self::SingleAnswer => "a single answer",
            Self::NoVerdict => "answers not marked right or wrong",
            Self::Unpaired => "a single answer with a label",
            Self::Wrong => "an answer marked wrong",
            Self::Begun => "an answer that has begun in the prompt",
            Self::NotThree => "no gold answer beside a better and a worse one",
            Self::TooMany => "more answers than are compared at a time",
        })
    }
}

/// Counts of what was read and of what was not used, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Rows of the file that are not empty.
    pub rows: usize,
    /// Rows by format.
    pub formats: BTreeMap<&'static str, usize>,
    /// Prompts left out, by reason.
    pub left_out: BTreeMap<Reason, usize>,
    /// Answers left out of lists of which at least two answers remained, by reason.
    pub answers_left_out: BTreeMap<Reason, usize>,
    /// Pairs of one prompt beyond the limit.
    pub pairs_left_out: usize,
    /// Fields that the user chose to ignore, by name.
    pub ignored_fields: BTreeMap<String, usize>,
    /// Prompts whose beginning was cut off to fit the length limit.
    pub prompts_cut: usize,
    /// What objectives that write words around answers had to leave out, because it would have
    /// taken more than the length limit.
    pub texts_too_long: usize,
    /// Unreadable rows, if skipping them is allowed.
    pub bad_rows: usize,
    /// The messages about the first of them.
    pub bad_row_messages: Vec<String>,
}

impl Tally {
    /// The counts of what was left out, in words.
    pub fn reasons(&self) -> String {
        let counted = |what: &str, counts: &BTreeMap<Reason, usize>| -> Vec<String> {
            let one = |(reason, count): (&Reason, &usize)| format!("{count} {what} ({reason})");
            counts.iter().map(one).collect()
        };
        let mut all = counted("left out", &self.left_out);
        all.extend(counted("single answers left out", &self.answers_left_out));
        if self.pairs_left_out > 0 {
            let left_out = self.pairs_left_out;
            all.push(format!(
                "{left_out} pairs left out (more than `max_pairs` of a prompt)"
            ));
        }
        for (name, count) in &self.ignored_fields {
            all.push(format!("`{name}` ignored {count} times"));
        }
        if self.prompts_cut > 0 {
            all.push(format!("{} prompts cut from the left", self.prompts_cut));
        }
        if self.texts_too_long > 0 {
            all.push(format!("{} texts left out (too long)", self.texts_too_long));
        }
        if self.bad_rows > 0 {
            all.push(format!("{} could not be read", self.bad_rows));
        }
        match all.is_empty() {
            true => "nothing left out".to_string(),
            false => all.join(", "),
        }
    }
}
