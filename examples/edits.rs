//! §3.2.2, Second Thoughts: a repair is a program, and the costs of its edits choose which.
//!
//! ```text
//! cargo run --example edits
//! ```
//! The model reads a question and a bad answer, and learns to write edits and what they make of the
//! answer. Positions count the words of the bad answer from 0:
//!
//! ```text
//! read: my code fails ? you are too dumb to code [SEP]
//!
//! insert 1, delete 1, replace 2: 5 in all
//! Delete "too" at position 2.
//! Replace "dumb" at position 3 with "close".
//! Replace "code" at position 5 with "it".
//! learned: DELETE 2 REPLACE 3 WITH close REPLACE 5 WITH it TARGET you are close to it
//!
//! insert 1, delete 1, replace 3: 5 in all
//! Insert "close" at position 2.
//! Delete "too" at position 2.
//! Delete "dumb" at position 3.
//! Insert "it" at position 5.
//! Delete "code" at position 5.
//! learned: INSERT 2 WITH close DELETE 2 DELETE 3 INSERT 5 WITH it DELETE 5 TARGET you are close to it
//! ```
//! What you should see: both programs give the good answer exactly, and with these costs nothing
//! cheaper does. Where a replacement costs as much as a deletion and an insertion it is taken; where
//! it costs more, never. One pair of answers thus gives two examples to learn from.

use candle_align::{
    EditCosts, EditScript, EditTokens, Result, Sequence, decipher, edit_script,
    second_thoughts_sequence,
};
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
    /// What it makes of the bad answer.
    pub repaired: String,
    /// What is read, and what is learned.
    pub sequence: (String, String),
}

pub struct Report {
    pub repairs: Vec<Repair>,
}

/// A tokenizer: every word it meets becomes a token of its own.
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
    // the phrases of the plain language are taken whole
    let plain = decipher(&script, &bad, &|text: &str| Ok(vec![words.token(text)]))?;
    Ok(Repair {
        words: words.decode(&plain, ""),
        repaired: words.decode(&script.apply(&bad)?, " "),
        sequence: (shown(&words, &sequence, 0), shown(&words, &sequence, 1)),
        script,
        costs,
    })
}

/// The tokens that the mask marks so.
fn shown(words: &Words, sequence: &Sequence, mark: u8) -> String {
    let all = sequence.tokens().iter().zip(sequence.mask());
    let marked = all.filter(|(_, m)| **m == mark).map(|(token, _)| token);
    words.decode(marked, " ")
}

impl Report {
    pub fn table(&self) -> String {
        let mut text = format!("read: {}\n", self.repairs[0].sequence.0);
        for repair in &self.repairs {
            let (c, total) = (&repair.costs, repair.script.cost(&repair.costs));
            let costs = format!(
                "insert {}, delete {}, replace {}",
                c.insert, c.delete, c.replace
            );
            let _ = writeln!(text, "\n{costs}: {total} in all");
            let _ = writeln!(text, "{}learned: {}", repair.words, repair.sequence.1);
        }
        text.trim_end().to_string()
    }
}

fn main() -> Result<()> {
    println!("{}", run()?.table());
    Ok(())
}
