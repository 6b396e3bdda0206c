//! Benchmarks as instructions: one row, several templates, labels as words (survey §2.1.1).
//!
//! In one sentence: a supervised dataset has inputs and labels; templates turn each row into prompts and
//! completions in natural language.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | a template: input and target | [`TaskTemplate`] | two texts with slots |
//! | a verbalizer: the word of each label | [`Verbalizer`] | label to word |
//! | the fields of an example | `row` | name to text |
//!
//! Read next: [`super::mixing`], which mixes several datasets.

use super::template::{Template, twice};
use crate::error::{Error, Result, shown};
use rand::Rng;
use rand::seq::index;
use serde::{Deserialize, Serialize};

/// How the labels of one field are said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verbalizer {
    /// The field of the row that holds the label.
    pub field: String,
    /// Each label as the row has it, and the word for it.
    pub words: Vec<(String, String)>,
}

/// A way to write a row as a prompt and its completion.
///
/// A slot `{field}` is the field's text, or the word for it if a verbalizer has the field. A slot
/// `{field:options}` is the list of the verbalizer's words, one to a line after `- `.
#[doc(alias = "PromptSource")]
#[doc(alias = "FLAN")]
#[doc(alias = "P3")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskTemplate {
    /// What the model reads.
    pub prompt: Template,
    /// What it should write.
    pub completion: Template,
    /// The verbalizers; none for a task without labels.
    #[serde(default)]
    pub verbalizers: Vec<Verbalizer>,
}

/// A row written by a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Which template wrote it.
    pub template: usize,
    /// What the model reads.
    pub prompt: String,
    /// What it should write.
    pub completion: String,
}

impl TaskTemplate {
    /// Writes a row.
    ///
    /// # Equation
    /// ```text
    /// (x, y)   →   prompt template with x,   completion template with the word for y
    /// ```
    /// # Shapes
    /// `row` is the fields of one example, as names and texts. Fields that no slot names are not used.
    /// # Errors
    /// [`Error::Argument`] if a slot names a field that the row lacks, if the row has a field twice, if a
    /// label has no word or two, if two verbalizers have one field, or if the completion is empty.
    /// # Properties
    /// * One row and k templates give k examples: [`write_every`]. One label then has as many phrasings as there
    ///   are templates, and several templates may say it in different words.
    /// * A slot is filled once. A text that looks like a slot stays as it is.
    /// # Departures
    /// * PromptSource writes templates in Jinja with conditions and loops; FLAN writes Python's format
    ///   strings. Here a template has slots alone, and everything else is up to whoever makes the row.
    /// * A field that is missing is an error here. Jinja would write nothing in its place.
    /// # Examples
    /// ```
    /// use candle_align::data::{TaskTemplate, Template, Verbalizer};
    ///
    /// let words = [("0", "yes"), ("1", "maybe"), ("2", "no")];
    /// let template = TaskTemplate {
    ///     prompt: Template::new("{premise}\nDoes it follow that {hypothesis}?\n{label:options}")?,
    ///     completion: Template::new("{label}")?,
    ///     verbalizers: vec![Verbalizer {
    ///         field: "label".into(),
    ///         words: words.map(|(label, word)| (label.into(), word.into())).to_vec(),
    ///     }],
    /// };
    /// let row = [("premise", "It rains."), ("hypothesis", "it is wet"), ("label", "0")];
    /// let written = template.write(&row)?;
    /// assert_eq!(written.0, "It rains.\nDoes it follow that it is wet?\n- yes\n- maybe\n- no");
    /// assert_eq!(written.1, "yes");
    /// # Ok::<(), candle_align::Error>(())
    /// ```
    /// # Source
    /// Bach et al. 2022, arXiv:2202.01279 (PromptSource); Wei et al. 2022, arXiv:2109.01652 (FLAN), which
    /// writes ten templates per dataset and adds the options to a classification. Both from memory and
    /// summaries. The survey: Wang et al. 2023, arXiv:2307.12966v1, §2.1.1 and Figure 2.
    pub fn write(&self, row: &[(&str, &str)]) -> Result<(String, String)> {
        let function = "TaskTemplate::write";
        if let Some(field) = twice(row.iter().map(|(field, _)| *field)) {
            let problem = format!("has the field `{}` twice", shown(field));
            return Err(Error::argument(function, "row", problem));
        }
        if let Some(field) = twice(self.verbalizers.iter().map(|v| v.field.as_str())) {
            let problem = format!("have the field `{}` twice", shown(field));
            return Err(Error::argument(function, "verbalizers", problem));
        }
        let mut options: Vec<(String, String)> = Vec::new();
        let mut values: Vec<(&str, &str)> = Vec::new();
        for verbalizer in &self.verbalizers {
            let field = verbalizer.field.as_str();
            if let Some(label) = twice(verbalizer.words.iter().map(|(label, _)| label.as_str())) {
                let problem = format!(
                    "has two words for the label `{}` of `{field}`",
                    shown(label)
                );
                return Err(Error::argument(function, "verbalizers", problem));
            }
            let words = verbalizer.words.iter().map(|(_, word)| format!("- {word}"));
            let words = words.collect::<Vec<_>>().join("\n");
            options.push((format!("{field}:options"), words));
            let Some((_, label)) = row.iter().find(|(name, _)| *name == field) else {
                continue;
            };
            let mut words = verbalizer.words.iter();
            let Some((_, word)) = words.find(|(known, _)| known == label) else {
                let problem = format!("has no word for the label `{}` of `{field}`", shown(label));
                return Err(Error::argument(function, "verbalizers", problem));
            };
            values.push((field, word));
        }
        let said: Vec<&str> = values.iter().map(|(field, _)| *field).collect();
        values.extend(row.iter().filter(|(field, _)| !said.contains(field)));
        values.extend(
            options
                .iter()
                .map(|(name, words)| (name.as_str(), words.as_str())),
        );
        let completion = self.completion.fill(&values)?;
        if completion.is_empty() {
            return Err(Error::argument(
                function,
                "completion",
                "is empty for this row",
            ));
        }
        Ok((self.prompt.fill(&values)?, completion))
    }
}

/// Writes a row by every template.
///
/// # Errors
/// Those of [`TaskTemplate::write`].
pub fn write_every(templates: &[TaskTemplate], row: &[(&str, &str)]) -> Result<Vec<Written>> {
    chosen(templates, row, 0..templates.len())
}

/// Writes a row by `count` different templates, drawn without replacement; by all if there are fewer.
///
/// # Errors
/// Those of [`TaskTemplate::write`].
pub fn write_some(
    templates: &[TaskTemplate],
    row: &[(&str, &str)],
    count: usize,
    rng: &mut impl Rng,
) -> Result<Vec<Written>> {
    let drawn = index::sample(rng, templates.len(), count.min(templates.len()));
    chosen(templates, row, drawn.into_iter())
}

fn chosen(
    templates: &[TaskTemplate],
    row: &[(&str, &str)],
    which: impl Iterator<Item = usize>,
) -> Result<Vec<Written>> {
    let write = |template: usize| {
        let (prompt, completion) = templates[template].write(row)?;
        Ok(Written {
            template,
            prompt,
            completion,
        })
    };
    which.map(write).collect()
}
