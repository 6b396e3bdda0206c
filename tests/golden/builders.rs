use super::reader::{Case, each};
use crate::common::words::bytes;
use candle_align::language::LearnedAnswers;
use candle_align::language::chain_of_hindsight::{
    HindsightFeedback, HindsightFormat, HindsightOrder, HindsightPair, hindsight_sequence,
};
use candle_align::language::conditional_sft::{ClassPrompt, Turn};
use candle_align::language::revision::{Attempt, RevisionTemplate, Verdict};
use candle_align::{Result, Sequence};
use candle_core::{Device, Tensor};

/// The special tokens of the transcriptions.
const BOS: u32 = 256;
const END: u32 = 257;

#[test]
fn sequences_are_the_authors_token_by_token() {
    each("builders", |case| {
        let sequence = match case.word("builder") {
            "class" => class(case)?,
            "hindsight" => hindsight(case)?,
            "revision" => revision(case)?,
            other => panic!("{}: no builder {other}", case.name),
        };
        let row = |data: Vec<f64>| Tensor::new(data, &Device::Cpu);
        let tokens = sequence.tokens().iter().map(|&t| f64::from(t));
        case.check("tokens", &row(tokens.collect())?, 0.0)?;
        let mask = sequence.mask().iter().map(|&m| f64::from(m));
        case.check("mask", &row(mask.collect())?, 0.0)
    });
}

/// The authors' code puts a beginning before the conversation; the builder leaves that to its caller.
fn class(case: &Case) -> Result<Sequence> {
    let condition = case.word("condition");
    let prompt = match (case.word("kind"), condition) {
        ("survey", class) => ClassPrompt::prefix(class),
        // without a class the blank before the speaker goes, too
        ("later", "") => ClassPrompt {
            user: "User:".to_string(),
            assistant: "Assistant:".to_string(),
        },
        (_, class) => ClassPrompt::openchat_v3(class),
    };
    let opened = Sequence::new().given(&[BOS]);
    let turns: Vec<[String; 2]> = case.part("turns");
    if turns.is_empty() {
        let asked = prompt.prompt(&bytes, case.word("question"), END)?;
        return Ok(opened.given(&asked));
    }
    let turns: Vec<Turn> = turns
        .iter()
        .map(|[user, assistant]| Turn { user, assistant })
        .collect();
    let learned = match case.word("learned") {
        "last" => LearnedAnswers::Last,
        _ => LearnedAnswers::Every,
    };
    Ok(opened.followed_by(&prompt.sequence(&bytes, &turns, END, learned)?))
}

/// The code writes a blank between question and feedback, and none before the second feedback: both
/// belong to the words of feedback here.
fn hindsight(case: &Case) -> Result<Sequence> {
    let (order, first) = match case.word("order") {
        "p" => (HindsightOrder::GoodOnly, "good"),
        "n" => (HindsightOrder::BadOnly, "bad"),
        "pn" => (HindsightOrder::GoodThenBad, "good"),
        _ => (HindsightOrder::BadThenGood, "bad"),
    };
    let words = |which: &str, marker: &str| match which == first {
        true => format!(" {}", case.word(marker)),
        false => case.word(marker).to_string(),
    };
    let format = HindsightFormat {
        feedback: HindsightFeedback {
            good: words("good", "marker_gpt"),
            bad: words("bad", "marker_gpt_bad"),
        },
        order,
        learned: LearnedAnswers::Every,
    };
    let prompt = format!("{} {}", case.word("marker_user"), case.word("human"));
    let pair = HindsightPair {
        prompt: &prompt,
        good: case.word("gpt"),
        bad: case.word("gpt_bad"),
    };
    let sequence = hindsight_sequence(&bytes, &pair, &format, END)?;
    // an option of the code, on by default: the last answer ends twice
    Ok(match case.flag("one_more_end") {
        true => sequence.learned(&[END]),
        false => sequence,
    })
}

fn revision(case: &Case) -> Result<Sequence> {
    let chain: Vec<[String; 2]> = case.part("chain");
    let attempts: Vec<Attempt> = chain
        .iter()
        .map(|[answer, feedback]| Attempt {
            answer,
            feedback,
            verdict: Verdict::of(feedback).expect("a verdict"),
        })
        .collect();
    let prompt = case.word("prompt");
    let sequence = RevisionTemplate::default().sequence(&bytes, prompt, &attempts, END)?;
    // the code ends every chain; here one that still asks for a revision has no end
    Ok(match attempts.last().map(|attempt| attempt.verdict) {
        Some(Verdict::Revise) => sequence.learned(&[END]),
        _ => sequence,
    })
}
