//! Multiple choice by likelihood, by four scores side by side.

use super::super::checkpoint::objective::Text;
use super::super::checkpoint::rows::{Prompts, Report};
use super::super::error::Result;
use super::super::progress::Progress;
use super::ask::{Line, answers, at_line, read, some, texts};
use super::question::Question;
use super::settings::{MultipleChoice, Settings};
use candle_align::decoder::Decoder;
use candle_align::evaluation::closed_form::{ChoiceScore, accuracy, choice_scores, choose};
use serde::Serialize;

/// One thing for each score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ByScore<T> {
    /// log P(choice│question).
    pub sum: T,
    /// … over the tokens of the choice.
    pub per_token: T,
    /// … over the bytes of the choice.
    pub per_byte: T,
    /// log P(choice│question) − log P(choice│without question).
    pub unconditional: T,
}

impl<T> ByScore<T> {
    /// The four, with their names.
    pub fn all(&self) -> [(&'static str, &T); 4] {
        [
            ("sum", &self.sum),
            ("per_token", &self.per_token),
            ("per_byte", &self.per_byte),
            ("unconditional", &self.unconditional),
        ]
    }

    fn map<U>(&self, mut f: impl FnMut(&T) -> Result<U>) -> Result<ByScore<U>> {
        Ok(ByScore {
            sum: f(&self.sum)?,
            per_token: f(&self.per_token)?,
            per_byte: f(&self.per_byte)?,
            unconditional: f(&self.unconditional)?,
        })
    }
}

/// One question and what the model finds likely.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub line: usize,
    /// The right choice, counted from 0 on.
    pub answer: usize,
    pub chosen: ByScore<usize>,
    /// Of each choice.
    pub scores: ByScore<Vec<f64>>,
    pub tokens: Vec<usize>,
    pub bytes: Vec<usize>,
}

/// How a score does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Choosing {
    pub accuracy: f64,
    /// The standard error over questions; null for a single one.
    pub error: Option<f64>,
    /// The mean bytes of the choices that it takes.
    pub chosen_bytes: f64,
}

/// Over all questions.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// The accuracy of a blind guess.
    pub chance: f64,
    /// The mean bytes of all choices, and of the right ones.
    pub bytes: f64,
    pub right_bytes: f64,
    pub scores: ByScore<Choosing>,
}

/// A question; its choices after it, then the same after a prompt without it.
struct Asked {
    question: Question,
    texts: Vec<Text>,
}

impl Asked {
    fn texts(&self) -> &[Text] {
        &self.texts
    }
}

/// Reads the questions, asks the model, and scores the choices.
pub fn evaluate(
    settings: &Settings,
    prompts: &Prompts,
    decoder: &Decoder,
    report: &mut Report,
    progress: &dyn Progress,
) -> Result<(Figures, Vec<Row>)> {
    let path = &settings.data;
    let own = &settings.multiple_choice;
    let rows = read(path, &settings.ignored_fields, report, |row, report| {
        let question = Question::read(row)?;
        let prompt = prompt(&question, own, prompts.is_chat())?;
        let conditional = prompts.followed_by(&prompt, &question.choices, report)?;
        // its end is the same in every row, and counted in none
        let mut uncounted = Report::default();
        let without = &own.without_question;
        let without = prompts.followed_by(without, &question.choices, &mut uncounted)?;
        let texts = texts(conditional).chain(texts(without)).collect();
        Ok(Asked { question, texts })
    })?;
    let found = answers(decoder, &rows, Asked::texts, settings.max_tokens, progress)?;
    let mut scored = Vec::with_capacity(rows.len());
    for (Line { number, row }, log_probs) in rows.iter().zip(&found) {
        let count = row.question.choices.len();
        let bytes: Vec<usize> = row.question.choices.iter().map(String::len).collect();
        let given = some(log_probs, 0, count)?;
        let alone = some(log_probs, count, count)?;
        let by = ByScore {
            sum: ChoiceScore::Sum,
            per_token: ChoiceScore::PerToken,
            per_byte: ChoiceScore::PerByte(&bytes),
            unconditional: ChoiceScore::Unconditional(&alone),
        };
        let at = |error: candle_align::Error| at_line(path, *number, error.to_string());
        let scores = by.map(|by| choice_scores(&given, *by).map_err(at))?;
        scored.push(Row {
            line: *number,
            answer: row.question.answer,
            chosen: scores.map(|scores| Ok(choose(scores, &[count]).map_err(at)?[0]))?,
            scores,
            tokens: row.texts[..count].iter().map(Text::covered).collect(),
            bytes,
        });
    }
    Ok((figures(&scored)?, scored))
}

/// What a choice follows.
fn prompt(question: &Question, own: &MultipleChoice, chat: bool) -> Result<String, String> {
    let text = &question.text;
    match &own.prompt {
        Some(template) => template
            .fill(&[("question", text)])
            .map_err(|error| error.to_string()),
        None if chat || question.continued => Ok(text.clone()),
        None => Ok(format!("Question: {text}\nAnswer:")),
    }
}

fn figures(rows: &[Row]) -> Result<Figures> {
    let expected: Vec<usize> = rows.iter().map(|row| row.answer).collect();
    let mean = |of: &dyn Fn(&Row) -> f64| rows.iter().map(of).sum::<f64>() / rows.len() as f64;
    let choosing = |chosen: &dyn Fn(&Row) -> usize| -> Result<Choosing> {
        let all: Vec<usize> = rows.iter().map(chosen).collect();
        let estimate = accuracy(&all, &expected)?;
        Ok(Choosing {
            accuracy: estimate.value,
            error: Some(estimate.error).filter(|error| !error.is_nan()),
            chosen_bytes: mean(&|row| row.bytes[chosen(row)] as f64),
        })
    };
    let of_row = |row: &Row| row.bytes.iter().sum::<usize>() as f64 / row.bytes.len() as f64;
    Ok(Figures {
        chance: mean(&|row| 1.0 / row.bytes.len() as f64),
        bytes: mean(&of_row),
        right_bytes: mean(&|row| row.bytes[row.answer] as f64),
        scores: ByScore {
            sum: choosing(&|row| row.chosen.sum)?,
            per_token: choosing(&|row| row.chosen.per_token)?,
            per_byte: choosing(&|row| row.chosen.per_byte)?,
            unconditional: choosing(&|row| row.chosen.unconditional)?,
        },
    })
}
