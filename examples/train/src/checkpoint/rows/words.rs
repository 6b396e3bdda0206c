//! Words around answers, in the tokens of a folder.

use super::super::super::data::{Item, OPENING};
use super::super::super::objectives::lessons::Words;
use super::Report;
use super::edits::without_edits;
use super::encode::common;
use super::items::{Row, Writer, message};
use super::record::Part;
use candle_align::language::chain_of_hindsight::{HindsightPair, hindsight_sequence};
use candle_align::language::revision::{
    DebugFeedback, DebugFormat, DebugTurn, RevisionTemplate, Verdict, debug_sequence,
};
use candle_align::language::second_thoughts::{
    EditTokens, second_thoughts_prompt, second_thoughts_sequence,
};
use candle_align::{Result as AlignResult, Sequence};

/// The words, and the tokens of edits.
pub struct Style<'a> {
    /// Before an answer of the good class, and of the bad one.
    pub classes: [&'a str; 2],
    pub revision: &'a RevisionTemplate,
    pub edits: Option<EditTokens>,
}

impl Writer<'_> {
    /// Rows to one prompt, all with the same part of it; nothing if one is too long.
    pub fn words(
        &self,
        item: &Item,
        words: &[Words],
        style: &Style,
        report: &mut Report,
    ) -> Result<Option<Vec<Row>>, String> {
        let prompt = self.encoder.text(&self.prompt(item))?;
        let all = words
            .iter()
            .map(|words| self.row(item, &prompt, words, style));
        self.fitted(all.collect::<Result<_, _>>()?, report)
    }

    /// The tokens of a text, without those that begin or end a row.
    pub fn ids(&self, text: &str) -> Result<Vec<u32>, String> {
        let encoded = self.folder.tokenizer.encode_rendered(text);
        Ok(encoded.map_err(|error| error.to_string())?.ids)
    }

    fn row(
        &self,
        item: &Item,
        prompt: &str,
        words: &Words,
        style: &Style,
    ) -> Result<Sequence, String> {
        let encode = |text: &str| -> AlignResult<Vec<u32>> {
            self.ids(text)
                .map_err(|problem| candle_align::Error::Argument {
                    function: "the tokenizer",
                    argument: "text".to_string(),
                    problem,
                })
        };
        let begun = Sequence::new().given(&self.begun(prompt)?);
        let given = || Ok::<_, String>([self.begun(prompt)?, self.ids(prompt)?].concat());
        let after = |row: AlignResult<Sequence>| match row {
            Ok(row) => Ok(begun.clone().followed_by(&row)),
            Err(error) => Err(error.to_string()),
        };
        match words {
            Words::Class { good, answer } => {
                let [of_good, of_bad] = style.classes;
                let class = self.ids(if *good { of_good } else { of_bad })?;
                let answer = [self.ids(answer)?, vec![self.end]].concat();
                let opened = Sequence::new().given(&given()?).given(&class);
                Ok(opened.learned(&answer))
            }
            Words::Hindsight { good, bad, format } => {
                let pair = HindsightPair { prompt, good, bad };
                after(hindsight_sequence(&encode, &pair, format, self.end))
            }
            Words::Edited { source, script } => {
                let (source, tokens) = (self.ids(source)?, edits(style)?);
                let row = second_thoughts_sequence(&given()?, &source, script, tokens);
                let row = row.map_err(|error| error.to_string())?;
                without_edits(self.folder, &source, tokens)?;
                let target = script.apply(&source).map_err(|error| error.to_string())?;
                without_edits(self.folder, &target, tokens)?;
                Ok(row.learned(&[self.end]))
            }
            Words::Unedited { source } => {
                let (source, tokens) = (self.ids(source)?, edits(style)?);
                let opened = second_thoughts_prompt(&given()?, &source, tokens);
                let opened = opened.map_err(|error| error.to_string())?;
                Ok(Sequence::new().given(&opened).learned(&[tokens.target]))
            }
            Words::Revised(chain) => {
                after(style.revision.sequence(&encode, prompt, chain, self.end))
            }
            Words::Debugged {
                first,
                second,
                format,
            } => match self.chat {
                true => self.conversation(item, [first, second], format),
                false => {
                    let task = prompt.strip_suffix(OPENING).filter(|task| !task.is_empty());
                    let turns = debugged([first, second]);
                    let task = task.unwrap_or(prompt);
                    after(debug_sequence(&encode, task, &turns, format, self.end))
                }
            },
        }
    }

    /// What the tokenizer writes before a plain text.
    fn begun(&self, prompt: &str) -> Result<Vec<u32>, String> {
        if self.chat {
            return Ok(Vec::new());
        }
        let all = self.folder.tokenizer.encode(prompt);
        let all = all.map_err(|error| error.to_string())?;
        let own = self.ids(prompt)?;
        let at = all.windows(own.len().max(1)).position(|part| part == own);
        Ok(all[..at.unwrap_or(0)].to_vec())
    }

    /// A program, the verdict, the repaired one: turns of the chat template.
    fn conversation(
        &self,
        item: &Item,
        programs: [&str; 2],
        format: &DebugFormat,
    ) -> Result<Sequence, String> {
        // one token for each text: which of them the library covers
        let one = |_: &str| -> AlignResult<Vec<u32>> { Ok(vec![1]) };
        let turns = debugged(programs);
        let covered = debug_sequence(&one, "task", &turns, format, 0);
        let covered = covered.map_err(|error| error.to_string())?;
        let covered = |turn: usize| covered.mask()[2 * turn + 2] != 0;
        let Part::Messages(mut said) = self.prompt(item) else {
            return Err("has no messages".to_string());
        };
        let start = said.len();
        said.push(message("assistant", programs[0]));
        said.push(message("user", &format.wrong));
        said.push(message("assistant", programs[1]));
        if covered(3) {
            said.push(message("user", &format.right));
        }
        let part = |count: usize| Part::Messages(said[..count].to_vec());
        let ids = self.encoder.whole(&part(said.len()), false)?.ids;
        let mut learned = vec![false; ids.len()];
        for turn in (0..said.len() - start).filter(|turn| covered(*turn)) {
            let before = match turn % 2 == 0 {
                true => self.encoder.prompt(&part(start + turn))?,
                false => self.encoder.whole(&part(start + turn), false)?.ids,
            };
            let up_to = self.encoder.whole(&part(start + turn + 1), false)?.ids;
            learned[common(&before, &ids)..common(&up_to, &ids)].fill(true);
        }
        let mut row = Sequence::new();
        for (id, learned) in ids.iter().zip(learned) {
            row = match learned {
                true => row.learned(&[*id]),
                false => row.given(&[*id]),
            };
        }
        Ok(row)
    }
}

fn edits<'a>(style: &'a Style) -> Result<&'a EditTokens, String> {
    style
        .edits
        .as_ref()
        .ok_or("has edits, and there are no tokens for them".to_string())
}

fn debugged(programs: [&str; 2]) -> [DebugTurn<'_>; 2] {
    let turn = |program, verdict| DebugTurn {
        program,
        feedback: DebugFeedback::Simple,
        verdict,
    };
    [
        turn(programs[0], Verdict::Revise),
        turn(programs[1], Verdict::Stop),
    ]
}
