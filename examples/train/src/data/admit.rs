//! Which answers fit within the limits of length.

use super::{Item, Reading, Reason, Tally};
use std::collections::HashSet;

/// An answer is never cut: one that takes more than three quarters of the limit is left out.
pub fn longest_answer(max_len: usize) -> usize {
    max_len * 3 / 4 - MARKS
}

/// The tokens besides prompt and answer: start and end.
pub const MARKS: usize = 2;

/// The item without unusable answers and with its prompt cut to the remaining room, or nothing. All
/// answers of an item keep the same prompt.
///
/// Answers of a list are removed one by one. An item that had at least two answers and now has fewer is
/// counted as left out, by the reason of the last removed answer.
pub(super) fn admit(mut item: Item, reading: &Reading, tally: &mut Tally) -> Option<Item> {
    let before = item.answers.len();
    let mut seen = HashSet::new();
    let mut gone = Vec::new();
    item.answers.retain(|answer| {
        let reason = if answer.text.is_empty() {
            Some(Reason::EmptyAnswer)
        } else if answer.text.len() > reading.longest_answer() {
            Some(Reason::AnswerTooLong)
        } else if !seen.insert(answer.text.clone()) {
            Some(Reason::EqualAnswers)
        } else {
            None
        };
        gone.extend(reason);
        reason.is_none()
    });
    if before == 0 {
        *tally.left_out.entry(Reason::SingleAnswer).or_default() += 1;
        return None;
    }
    if item.answers.len() < before.min(2) {
        let reason = gone.last().copied().unwrap_or(Reason::SingleAnswer);
        *tally.left_out.entry(reason).or_default() += 1;
        return None;
    }
    for reason in gone {
        *tally.answers_left_out.entry(reason).or_default() += 1;
    }
    let longest = item.answers.iter().map(|answer| answer.text.len()).max();
    let room = reading.max_len - MARKS - longest.unwrap_or(0);
    if item.prompt.len() > room {
        item.prompt = last_bytes(&item.prompt, room).to_string();
        tally.prompts_cut += 1;
    }
    Some(item)
}

/// The end of a text, at most this many bytes, because the last words matter most.
pub fn last_bytes(text: &str, most: usize) -> &str {
    let from = text.len().saturating_sub(most);
    let boundary = (from..=text.len()).find(|&at| text.is_char_boundary(at));
    &text[boundary.unwrap_or(text.len())..]
}
