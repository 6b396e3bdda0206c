//! Prompts with rated answers to ids: lists, trees, solutions, and whatever else becomes an item.

use super::super::super::data::dialogue::messages;
use super::super::super::data::{Answer, Item, OPENING};
use super::encode::{Encoder, common, ended, within_vocabulary};
use super::pairs::{answers, cut_sides};
use super::record::Part;
use super::{Folder, Report, Settings, Side, Truncation, UnpairedRow};
use candle_align::Sequence;
use minijinja::{Value, context};

/// Writes the items of a file.
pub struct Writer<'a> {
    pub(super) folder: &'a Folder,
    pub(super) encoder: Encoder<'a>,
    /// Whether prompts and answers go through the chat template; else they are the text of a dialogue.
    pub chat: bool,
    /// What ends an answer.
    pub(super) end: u32,
    settings: &'a Settings,
}

impl<'a> Writer<'a> {
    /// Through the chat template if the folder has one, unless `chat` says otherwise.
    pub fn new(
        folder: &'a Folder,
        chat: Option<bool>,
        settings: &'a Settings,
        report: &mut Report,
    ) -> Result<Self, String> {
        let chat = chat.unwrap_or(folder.templates.choose(false).is_ok());
        let encoder = Encoder::of_items(folder, chat, report)?;
        let mut it = Self {
            folder,
            encoder,
            chat,
            end: 0,
            settings,
        };
        it.end = it.end()?;
        Ok(it)
    }

    /// What ends an answer: the first token after it that ends the model's own, or else the end token.
    fn end(&self) -> Result<u32, String> {
        if self.chat {
            let asked = Part::Messages(vec![message("user", "a")]);
            let answered = vec![message("user", "a"), message("assistant", "b")];
            let whole = self.encoder.whole(&Part::Messages(answered), false)?.ids;
            let start = common(&self.encoder.prompt(&asked)?, &whole);
            let ends = self.folder.tokenizer.ends();
            if let Some(end) = whole[start..].iter().find(|id| ends.contains(id)) {
                return Ok(*end);
            }
        }
        let eos = self.folder.tokenizer.required_eos();
        Ok(eos.map_err(|error| error.to_string())?.id)
    }

    /// The answers to an item's prompt, best first; nothing if the prompt alone is too long.
    pub fn answers(
        &self,
        item: &Item,
        list: &[Answer],
        report: &mut Report,
    ) -> Result<Option<Vec<Side>>, String> {
        let mut sides = self.sides(item, list, report)?;
        let kept = cut_sides(&mut sides, self.settings, report);
        Ok(kept.then_some(sides))
    }

    /// The whole texts of an item's answers with their rewards. Those that are too long are dropped, and
    /// the item with them if nothing is left to compare.
    pub fn whole(
        &self,
        item: &Item,
        list: &[Answer],
        report: &mut Report,
    ) -> Result<Option<Vec<Rated>>, String> {
        let most = self.settings.max_length.unwrap_or(usize::MAX);
        let all = self.sides(item, list, report)?.into_iter().zip(list);
        let all = all.map(|(side, answer)| Rated {
            ids: side.ids,
            reward: answer.reward,
        });
        let (kept, long): (Vec<_>, Vec<_>) = all.partition(|one| one.ids.len() <= most);
        report.long_sides += long.len();
        let differ = kept.iter().any(|one| one.reward != kept[0].reward);
        Ok(differ.then_some(kept))
    }

    /// An answer to an item's prompt; nothing if the prompt alone is too long.
    pub fn labeled(
        &self,
        item: &Item,
        answer: &Answer,
        report: &mut Report,
    ) -> Result<Option<UnpairedRow>, String> {
        let sides = self.sides(item, std::slice::from_ref(answer), report)?;
        let whole = sides.into_iter().next().unwrap_or_default();
        let row = UnpairedRow::cut(whole, self.settings, report);
        Ok(row.map(|row| UnpairedRow {
            desirable: item.is_good(answer),
            ..row
        }))
    }

    fn sides(
        &self,
        item: &Item,
        list: &[Answer],
        report: &mut Report,
    ) -> Result<Vec<Side>, String> {
        let parts = list.iter().map(|answer| match self.chat {
            true => Ok(Part::Messages(vec![message("assistant", &answer.text)])),
            false => ended(Part::Text(answer.text.clone()), self.folder),
        });
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        let sides = answers(&self.encoder, &self.prompt(item), &parts, report)?;
        for side in &sides {
            within_vocabulary(&side.ids, self.folder, self.settings.vocabulary)?;
        }
        Ok(sides)
    }

    pub(super) fn prompt(&self, item: &Item) -> Part {
        match self.chat {
            false => Part::Text(item.prompt.clone()),
            true => {
                let asked = item.prompt.strip_suffix(OPENING).unwrap_or(&item.prompt);
                let turns = messages(asked).into_iter();
                Part::Messages(turns.map(|(role, said)| message(role, said)).collect())
            }
        }
    }

    /// Rows that belong together, if they fit. Only the beginning of a prompt is ever cut.
    pub(super) fn fitted(
        &self,
        rows: Vec<Sequence>,
        report: &mut Report,
    ) -> Result<Option<Vec<Row>>, String> {
        let most = self.settings.max_length.unwrap_or(usize::MAX);
        let longest = rows.iter().map(Sequence::len).max().unwrap_or(0);
        let beyond = longest.saturating_sub(most);
        let given = |row: &Sequence| row.mask().iter().take_while(|one| **one == 0).count();
        let shortest = rows.iter().map(given).min().unwrap_or(0);
        if beyond > 0 && (self.settings.truncation == Truncation::KeepStart || beyond >= shortest) {
            report.long_texts += 1;
            return Ok(None);
        }
        report.cut += if beyond > 0 { rows.len() } else { 0 };
        report.tokens_cut += beyond * rows.len();
        let rows = rows.iter().map(|row| {
            within_vocabulary(row.tokens(), self.folder, self.settings.vocabulary)?;
            let learned = row.mask()[beyond..].iter().map(|one| *one != 0);
            Ok(Row {
                ids: row.tokens()[beyond..].to_vec(),
                learned: learned.collect(),
            })
        });
        rows.collect::<Result<_, String>>().map(Some)
    }
}

/// A whole text, and how good its answer is.
#[derive(Clone, Debug, PartialEq)]
pub struct Rated {
    pub ids: Vec<u32>,
    pub reward: f64,
}

/// A text, and which of its tokens the loss covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub ids: Vec<u32>,
    pub learned: Vec<bool>,
}

pub(super) fn message(role: &str, content: &str) -> Value {
    context! { role, content }
}
