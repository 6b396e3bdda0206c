//! Prompts, and texts after them whose likelihood is asked for.

use super::super::context::Context;
use super::encode::{Encoder, common, within_vocabulary};
use super::items::message;
use super::record::Part;
use super::{Folder, Report, Side};

/// Writes prompts and the texts after them.
pub struct Prompts<'a> {
    folder: &'a Folder,
    encoder: Encoder<'a>,
    /// Whether prompts go through the chat template as the user's turn, and texts begin the assistant's.
    chat: bool,
    vocabulary: usize,
    longest: Context,
}

impl<'a> Prompts<'a> {
    /// Through the chat template if the folder has one, unless `chat` says otherwise. The model has so many
    /// tokens, and rows of a `longest` length.
    pub fn new(
        folder: &'a Folder,
        chat: Option<bool>,
        vocabulary: usize,
        longest: Context,
        report: &mut Report,
    ) -> Result<Self, String> {
        let chat = chat.unwrap_or(folder.templates.choose(false).is_ok());
        Ok(Self {
            folder,
            encoder: Encoder::of_items(folder, chat, report)?,
            chat,
            vocabulary,
            longest,
        })
    }

    pub fn is_chat(&self) -> bool {
        self.chat
    }

    /// Each text after the prompt, all with the same part of it. A text has no end token: what is asked is how
    /// likely its words are, not that it ends there.
    ///
    /// In plain text a blank comes between the two, unless the prompt ends with one or is empty. If no token
    /// were before the texts, the begin token is, or else the end token: the first token of a row is never
    /// predicted.
    pub fn followed_by(
        &self,
        prompt: &str,
        texts: &[String],
        report: &mut Report,
    ) -> Result<Vec<Side>, String> {
        let part = match self.chat {
            true => Part::Messages(vec![message("user", prompt)]),
            false => Part::Text(prompt.to_string()),
        };
        let prompt = self.encoder.text(&part)?;
        let joined = self.chat || prompt.is_empty() || prompt.ends_with(char::is_whitespace);
        let blank = if joined { "" } else { " " };
        let before = self.ids(&prompt)?;
        let whole = |text: &String| self.ids(&format!("{prompt}{blank}{text}"));
        let mut all = texts.iter().map(whole).collect::<Result<Vec<_>, _>>()?;
        let starts = all.iter().map(|ids| common(&before, ids));
        let mut start = starts.min().unwrap_or(0);
        report.moved_answers += usize::from(start < before.len());
        if start == 0 {
            let first = self.first()?;
            all.iter_mut().for_each(|ids| ids.insert(0, first));
            start = 1;
        }
        for (ids, text) in all.iter().zip(texts) {
            if ids.len() == start {
                return Err(format!("has no token for `{text}`"));
            }
            if ids.len() > self.longest.most() {
                let (length, longest) = (ids.len(), self.longest);
                return Err(format!(
                    "has {length} tokens with the prompt around it, and the model was made for {longest}"
                ));
            }
            within_vocabulary(ids, self.folder, Some(self.vocabulary))?;
        }
        let side = |ids| Side { ids, prompt: start };
        Ok(all.into_iter().map(side).collect())
    }

    /// The same for texts that are one token each. What all of them begin with, such as the token of a blank,
    /// is part of the prompt.
    pub fn followed_by_one(
        &self,
        prompt: &str,
        texts: &[String],
        report: &mut Report,
    ) -> Result<Vec<Side>, String> {
        let mut sides = self.followed_by(prompt, texts, report)?;
        let first = sides.first().map_or(Vec::new(), |side| side.ids.clone());
        let starts = sides.iter().skip(1).map(|side| common(&first, &side.ids));
        let start = starts.min().unwrap_or(0);
        for (at, text) in texts.iter().enumerate() {
            let ids = &sides[at].ids;
            if ids.len() != start + 1 {
                let own = self.folder.tokenizer.decode(&ids[start.min(ids.len())..]);
                let (own, count) = (own.unwrap_or_default(), ids.len() - start.min(ids.len()));
                return Err(format!(
                    "must be asked for texts of one token each, and `{text}` is {count} where they differ (`{own}`)"
                ));
            }
            if let Some(other) = (0..at).find(|other| sides[*other].ids == *ids) {
                let other = &texts[other];
                return Err(format!(
                    "is asked for `{other}` and `{text}`, which are one token of this model"
                ));
            }
        }
        sides.iter_mut().for_each(|side| side.prompt = start);
        Ok(sides)
    }

    fn ids(&self, text: &str) -> Result<Vec<u32>, String> {
        let tokenizer = &self.folder.tokenizer;
        let ids = match self.chat {
            // the template writes all special tokens itself
            true => tokenizer.encode_rendered(text).map(|encoded| encoded.ids),
            false => tokenizer.encode(text),
        };
        ids.map_err(|error| error.to_string())
    }

    /// The token before a text that nothing else is before.
    fn first(&self) -> Result<u32, String> {
        let tokenizer = &self.folder.tokenizer;
        let token = tokenizer.bos().or_else(|| tokenizer.eos());
        let none =
            "has nothing before its text, and the folder names no `bos_token` or `eos_token`";
        token.map(|token| token.id).ok_or(none.to_string())
    }
}
