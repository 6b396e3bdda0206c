//! How one row is written: the words around answers, in the library's own forms, and their room.

use super::super::batch::{BOS, EOS, encode};
use super::super::data::{Item, OPENING, last_bytes, longest_answer};
use super::super::error::Result;
use super::super::settings::Settings;
use super::words::edit_tokens;
use candle_align::Sequence;
use candle_align::language::LearnedAnswers;
use candle_align::language::chain_of_hindsight::{
    HindsightFormat, HindsightPair, hindsight_sequence,
};
use candle_align::language::conditional_sft::{ClassPrompt, Turn};
use candle_align::language::edits::EditScript;
use candle_align::language::revision::{
    Attempt, DebugFeedback, DebugFormat, DebugTurn, Verdict, debug_sequence,
};
use candle_align::language::second_thoughts::second_thoughts_sequence;

/// The rows with as much of the prompt's end as fits; `None` if the rest leaves too little room.
pub fn fitted(
    prompt: &str,
    max_len: usize,
    write: impl Fn(&str) -> Result<Vec<Sequence>>,
) -> Result<Option<Vec<Sequence>>> {
    let rows = write(prompt)?;
    let longest = rows.iter().map(Sequence::len).max().unwrap_or(0);
    if longest <= max_len {
        return Ok(Some(rows));
    }
    let beside = longest - prompt.len();
    match beside > longest_answer(max_len) {
        true => Ok(None),
        false => Ok(Some(write(last_bytes(prompt, max_len - beside))?)),
    }
}

/// The prompt without its last word, `Assistant:`, which other words replace.
pub fn asked(item: &Item) -> &str {
    let stripped = item.prompt.strip_suffix(OPENING);
    stripped.filter(|p| !p.is_empty()).unwrap_or(&item.prompt)
}

/// The beginning of every row.
pub fn begun() -> Sequence {
    Sequence::new().given(&[BOS])
}

/// An answer after the words of its class.
pub fn under_class(class: &ClassPrompt, prompt: &str, answer: &str) -> Result<Sequence> {
    let turn = Turn {
        user: prompt,
        assistant: answer,
    };
    let row = class.sequence(&encode, &[turn], EOS, LearnedAnswers::Every)?;
    Ok(begun().followed_by(&row))
}

/// Two answers, each after words of feedback, or one of them.
pub fn hindsight(
    prompt: &str,
    good: &str,
    bad: &str,
    format: &HindsightFormat,
) -> Result<Sequence> {
    let pair = HindsightPair { prompt, good, bad };
    Ok(begun().followed_by(&hindsight_sequence(&encode, &pair, format, EOS)?))
}

/// A source, its edits, and the result.
pub fn edited(prompt: &str, source: &str, script: &EditScript) -> Result<Sequence> {
    let tokens = edit_tokens();
    let row = second_thoughts_sequence(&encode(prompt)?, &encode(source)?, script, &tokens)?;
    Ok(begun().followed_by(&row).learned(&[EOS]))
}

/// An answer that is to be revised.
pub fn revise(answer: &str) -> Attempt<'_> {
    Attempt {
        answer,
        feedback: Verdict::REVISE,
        verdict: Verdict::Revise,
    }
}

/// An answer that is good as it is.
pub fn stands(answer: &str) -> Attempt<'_> {
    Attempt {
        answer,
        feedback: Verdict::STOP,
        verdict: Verdict::Stop,
    }
}

/// Answers, each with the verdict on it.
pub fn revised(settings: &Settings, prompt: &str, chain: &[Attempt]) -> Result<Sequence> {
    let row = settings.selfee.sequence(&encode, prompt, chain, EOS)?;
    Ok(begun().followed_by(&row))
}

/// A wrong answer, and its repair.
pub fn debugged(prompt: &str, first: &str, second: &str, format: &DebugFormat) -> Result<Sequence> {
    let turn = |program, verdict| DebugTurn {
        program,
        feedback: DebugFeedback::Simple,
        verdict,
    };
    let turns = [turn(first, Verdict::Revise), turn(second, Verdict::Stop)];
    Ok(begun().followed_by(&debug_sequence(&encode, prompt, &turns, format, EOS)?))
}
