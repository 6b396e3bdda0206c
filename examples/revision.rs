//! §3.2.2, revision: the loss mask decides whether the model learns a chain's mistakes too.
//!
//! ```text
//! cargo run --example revision
//! ```
//! In the data the first answer to `add` is right, `a+b`, in 40 %. The wrong one, `a-b`, is called wrong
//! in 75 %, and then repaired in 90 %. The loss of SelFee covers everything except the task; self-debug
//! was only prompted in its paper and is trained here in four ways. Brackets show which part of a
//! repaired chain the loss covers. The columns are P of a right first answer, of `wrong` after a wrong
//! one, and of a right repair:
//!
//! ```text
//! SelFee                 add [a-b wrong a+b right .]              0.400   0.750   0.900
//! self-debug, all        add . [a-b . wrong . a+b . right .]      0.400   0.750   0.900
//! self-debug, programs   add . [a-b .] wrong . [a+b .] right .    0.400       -   0.900
//! self-debug, revisions  add . a-b . wrong . [a+b .] right .      0.727       -   0.900
//! self-debug, last       add . a-b . wrong . [a+b .] right .      0.727       -   0.900
//! ```
//! What you should see: all five learn the repair. A model that learns whole chains learns to make the
//! first mistake as often as the data do, and to notice it: 0.4 + 0.6 · 0.75 · 0.9 = 0.805 right in the
//! end. If mistakes are only context, the first answer is learned from the chains that were never
//! questioned: 0.40 right ones, and 0.15 wrong ones that passed. But then the verdict must come from
//! outside.
//!
//! Change `0.75` to `0.5` and `0.25` to `0.5` in `CHAINS` and see: `wrong` is learned with 0.500, and
//! the last two rows fall to 0.571, because more wrong answers pass.

#[path = "tabular/policy.rs"]
mod policy;
#[path = "tabular/table.rs"]
mod table;

use candle_align::language::revision::{
    Attempt, DebugFeedback, DebugFormat, DebugLearned, DebugTurn, RevisionTemplate, Verdict,
    debug_sequence,
};
use candle_align::{Sequence, SftConfig, sft_loss};
use policy::Result;
use table::learn;

const WORDS: [&str; 6] = ["add", "a-b", "a+b", "wrong", "right", "."];
const END: u32 = 5;

/// The chains of the data, as answers and verdicts, and how frequent each is.
pub const CHAINS: [(&[(&str, &str)], f64); 4] = [
    (&[("a-b", "wrong"), ("a+b", "right")], 0.6 * 0.75 * 0.9),
    (&[("a-b", "wrong"), ("a-b", "right")], 0.6 * 0.75 * 0.1),
    (&[("a-b", "right")], 0.6 * 0.25),
    (&[("a+b", "right")], 0.4),
];

/// One way to learn from the chains.
pub struct Way {
    pub name: &'static str,
    /// The repaired chain; the loss covers the parts in brackets.
    pub chain: String,
    /// P(right), P(wrong│wrong answer), P(right│wrong answer, called wrong); none: never learned.
    pub learned: [Option<f64>; 3],
}

pub struct Report {
    pub ways: Vec<Way>,
}

pub fn run() -> Result<Report> {
    let self_debug = |learned| move |chain: &[(&str, &str)]| debugged(chain, learned);
    let ways = vec![
        way("SelFee", "", revised)?,
        way(
            "self-debug, all",
            " .",
            self_debug(DebugLearned::AllButTask),
        )?,
        way(
            "self-debug, programs",
            " .",
            self_debug(DebugLearned::Programs),
        )?,
        way(
            "self-debug, revisions",
            " .",
            self_debug(DebugLearned::Revisions),
        )?,
        way(
            "self-debug, last",
            " .",
            self_debug(DebugLearned::LastProgram),
        )?,
    ];
    Ok(Report { ways })
}

fn encode(text: &str) -> candle_align::Result<Vec<u32>> {
    let known = |word| WORDS.iter().position(|known| *known == word);
    let ids = text.split(' ').filter_map(known);
    Ok(ids.map(|id| id as u32).collect())
}

fn verdict(word: &str) -> Verdict {
    match word {
        "wrong" => Verdict::Revise,
        _ => Verdict::Stop,
    }
}

/// A chain in SelFee's form, without headings.
fn revised(chain: &[(&str, &str)]) -> candle_align::Result<Sequence> {
    let attempt = |&(answer, feedback)| Attempt {
        answer,
        feedback,
        verdict: verdict(feedback),
    };
    let template = RevisionTemplate {
        feedback: String::new(),
        revision: String::new(),
    };
    let attempts: Vec<Attempt> = chain.iter().map(attempt).collect();
    template.sequence(&encode, "add", &attempts, END)
}

/// A chain as a conversation about programs.
fn debugged(chain: &[(&str, &str)], learned: DebugLearned) -> candle_align::Result<Sequence> {
    let turn = |&(program, word)| DebugTurn {
        program,
        feedback: DebugFeedback::Simple,
        verdict: verdict(word),
    };
    let format = DebugFormat {
        wrong: "wrong".to_string(),
        right: "right".to_string(),
        learned,
    };
    let turns: Vec<DebugTurn> = chain.iter().map(turn).collect();
    debug_sequence(&encode, "add", &turns, &format, END)
}

/// Learns all chains in the form of `write`, with `end` after each part, and evaluates the model.
fn way(
    name: &'static str,
    end: &str,
    write: impl Fn(&[(&str, &str)]) -> candle_align::Result<Sequence>,
) -> Result<Way> {
    let sequences = CHAINS.iter().map(|(chain, _)| write(chain));
    let sequences = sequences.collect::<candle_align::Result<Vec<_>>>()?;
    let shares = CHAINS.map(|(_, share)| share);
    let table = learn(&sequences, &shares, WORDS.len(), (2.0, 300), |log_probs| {
        Ok(sft_loss(log_probs, None, &SftConfig::default())?.loss)
    })?;
    let after = |beginning: &[&str], next: &str| -> Result<Option<f64>> {
        let parts: Vec<String> = beginning
            .iter()
            .map(|part| format!("{part}{end}"))
            .collect();
        let row = table.get(&encode(&parts.join(" "))?);
        Ok(row.map(|row| {
            WORDS
                .iter()
                .zip(row)
                .filter(|(w, _)| **w == next)
                .map(|(_, p)| p)
                .sum()
        }))
    };
    Ok(Way {
        name,
        chain: bracketed(&sequences[0]),
        learned: [
            after(&["add"], "a+b")?,
            after(&["add", "a-b"], "wrong")?,
            after(&["add", "a-b", "wrong"], "a+b")?,
        ],
    })
}

/// The words of a sequence, with brackets around the parts that the loss covers.
fn bracketed(sequence: &Sequence) -> String {
    let mask = sequence.mask();
    let learned = |t: usize| mask.get(t) == Some(&1);
    let word = |(t, &token): (usize, &u32)| {
        let open = if learned(t) && (t == 0 || !learned(t - 1)) {
            "["
        } else {
            ""
        };
        let close = if learned(t) && !learned(t + 1) {
            "]"
        } else {
            ""
        };
        format!("{open}{}{close}", WORDS[token as usize])
    };
    let words: Vec<String> = sequence.tokens().iter().enumerate().map(word).collect();
    words.join(" ")
}

impl Report {
    pub fn table(&self) -> String {
        let number = |p: &Option<f64>| match p {
            Some(p) => format!("{p:>8.3}"),
            None => format!("{:>8}", "-"),
        };
        let line = |way: &Way| {
            let numbers: String = way.learned.iter().map(number).collect();
            format!("{:<22} {:<38}{numbers}", way.name, way.chain)
        };
        let lines: Vec<String> = self.ways.iter().map(line).collect();
        lines.join("\n")
    }
}

fn main() -> Result<()> {
    println!("{}", run()?.table());
    Ok(())
}
