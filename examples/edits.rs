//! §3.2.2, Second Thoughts: a repair is a program, and the edit costs decide which program.
//!
//! ```text
//! cargo run --example edits
//! ```
//! The model reads a question and a bad answer. It learns to write the edits and the repaired answer.
//! Positions count the words of the bad answer from 0:
//!
//! ```text
//! input: my code fails ? you are too dumb to code [SEP]
//!
//! insert 1, delete 1, replace 2: total cost 5
//! Delete "too" at position 2.
//! Replace "dumb" at position 3 with "close".
//! Replace "code" at position 5 with "it".
//! output: DELETE 2 REPLACE 3 WITH close REPLACE 5 WITH it TARGET you are close to it
//!
//! insert 1, delete 1, replace 3: total cost 5
//! Insert "close" at position 2.
//! Delete "too" at position 2.
//! Delete "dumb" at position 3.
//! Insert "it" at position 5.
//! Delete "code" at position 5.
//! output: INSERT 2 WITH close DELETE 2 DELETE 3 INSERT 5 WITH it DELETE 5 TARGET you are close to it
//! ```
//! What you should see: both programs produce the good answer exactly, and no program is cheaper at
//! these costs. A replacement is used if it costs no more than a deletion and an insertion together,
//! and never if it costs more. One pair of answers therefore gives two training examples.
//!
//! Change `GOOD` to `"you are new to code"` and see: the end of the answer stays, and both totals fall
//! to 3.

use candle_align::language::edits::{EditCosts, EditScript, edit_script};
use candle_align::language::second_thoughts::{EditTokens, decipher, second_thoughts_sequence};
use candle_align::{Result, Sequence};
use std::cell::RefCell;
use std::fmt::Write;

pub const QUESTION: &str = "my code fails ?";
pub const BAD: &str = "you are too dumb to code";
pub const GOOD: &str = "you are close to it";

/// One set of costs.
pub struct Repair {
    pub costs: EditCosts,
    pub script: EditScript,
    /// The script in plain language.
    pub words: String,
    /// The repaired answer.
    pub repaired: String,
    /// The input, and the output that the loss covers.
    pub sequence: (String, String),
}

pub struct Report {
    pub repairs: Vec<Repair>,
}

/// A tokenizer: every new word becomes a token.
#[derive(Default)]
struct Words(RefCell<Vec<String>>);

impl Words {
    fn token(&self, word: &str) -> u32 {
        let mut known = self.0.borrow_mut();
        let found = known.iter().position(|k| k == word);
        found.unwrap_or_else(|| {
            known.push(word.to_string());
            known.len() - 1
        }) as u32
    }

    fn encode(&self, text: &str) -> Vec<u32> {
        text.split(' ').map(|word| self.token(word)).collect()
    }

    fn decode<'a>(&self, tokens: impl IntoIterator<Item = &'a u32>, between: &str) -> String {
        let known = self.0.borrow();
        let words: Vec<&str> = tokens
            .into_iter()
            .map(|&t| known[t as usize].as_str())
            .collect();
        words.join(between)
    }
}

pub fn run() -> Result<Report> {
    let costs = |replace| EditCosts {
        replace,
        ..Default::default()
    };
    let repairs = vec![repair(costs(2.0))?, repair(costs(3.0))?];
    Ok(Report { repairs })
}

fn repair(costs: EditCosts) -> Result<Repair> {
    let words = Words::default();
    let tokens = EditTokens {
        separator: words.token("[SEP]"),
        insert: words.token("INSERT"),
        delete: words.token("DELETE"),
        replace: words.token("REPLACE"),
        content: words.token("WITH"),
        target: words.token("TARGET"),
        digits: std::array::from_fn(|digit| words.token(&digit.to_string())),
    };
    let [question, bad, good] = [QUESTION, BAD, GOOD].map(|text| words.encode(text));

    let script = edit_script(&bad, &good, &costs)?;
    let sequence = second_thoughts_sequence(&question, &bad, &script, &tokens)?;
    // each phrase of the plain language is one token
    let plain = decipher(&script, &bad, &|text: &str| Ok(vec![words.token(text)]))?;
    Ok(Repair {
        words: words.decode(&plain, ""),
        repaired: words.decode(&script.apply(&bad)?, " "),
        sequence: (shown(&words, &sequence, 0), shown(&words, &sequence, 1)),
        script,
        costs,
    })
}

/// The tokens with this mark in the mask.
fn shown(words: &Words, sequence: &Sequence, mark: u8) -> String {
    let all = sequence.tokens().iter().zip(sequence.mask());
    let marked = all.filter(|(_, m)| **m == mark).map(|(token, _)| token);
    words.decode(marked, " ")
}

impl Report {
    pub fn table(&self) -> String {
        let mut text = format!("input: {}\n", self.repairs[0].sequence.0);
        for repair in &self.repairs {
            let (c, total) = (&repair.costs, repair.script.cost(&repair.costs));
            let costs = format!(
                "insert {}, delete {}, replace {}",
                c.insert, c.delete, c.replace
            );
            let _ = writeln!(text, "\n{costs}: total cost {total}");
            let _ = writeln!(text, "{}output: {}", repair.words, repair.sequence.1);
        }
        text.trim_end().to_string()
    }
}

fn main() -> Result<()> {
    println!("{}", run()?.table());
    Ok(())
}
