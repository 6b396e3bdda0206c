//! GPTScore and G-Eval: how a model judges texts, beside people.

use super::super::checkpoint::evaluate::mean_and_error;
use super::super::checkpoint::objective::Text;
use super::super::checkpoint::rows::{Prompts, Report};
use super::super::error::Result;
use super::super::progress::Progress;
use super::ask::{Line, answers, at_line, read, texts};
use super::judged::Judged;
use super::people::{Level, inputs, levels};
use super::settings::{Method, Settings};
use candle_align::decoder::Decoder;
use candle_align::evaluation::by_model::{ScoreMass, expected_score, gpt_score};
use candle_core::DType;
use serde::Serialize;
use std::collections::BTreeMap;

/// One text and its score.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub line: usize,
    pub score: f64,
    /// GPTScore: the tokens of the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<usize>,
    /// G-Eval: the probability that the next token is a score at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mass: Option<f64>,
    /// G-Eval: of each score.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_probs: Option<BTreeMap<u32, f64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub human: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doc_id: Option<String>,
}

/// How much of the next token's probability is on the scores.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Mass {
    pub mean: f64,
    pub lowest: f64,
    /// The line of the lowest.
    pub line: usize,
}

/// Over all texts.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    pub aspect: String,
    pub mean: f64,
    /// The standard error over inputs; null for a single one.
    pub error: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mass: Option<Mass>,
    /// Beside people's scores, if rows have them.
    pub people: Vec<Level>,
}

/// A text to judge, and what the model is asked for.
struct Asked {
    judged: Judged,
    texts: Vec<Text>,
}

impl Asked {
    fn texts(&self) -> &[Text] {
        &self.texts
    }
}

/// Reads the texts, asks the model, and compares its scores with people's.
pub fn evaluate(
    settings: &Settings,
    prompts: &Prompts,
    decoder: &Decoder,
    report: &mut Report,
    progress: &dyn Progress,
) -> Result<(Figures, Vec<Row>)> {
    let path = &settings.data;
    let mut first: Option<Judged> = None;
    let rows = read(path, &settings.ignored_fields, report, |row, report| {
        let judged = Judged::read(row, &settings.aspect)?;
        judged.beside(first.get_or_insert_with(|| judged.clone()))?;
        let texts = ask(&judged, settings, prompts, report)?;
        Ok(Asked { judged, texts })
    })?;
    let found = answers(decoder, &rows, Asked::texts, settings.max_tokens, progress)?;
    let mut scored = Vec::with_capacity(rows.len());
    for (Line { number, row }, log_probs) in rows.iter().zip(&found) {
        let mut one = Row {
            line: *number,
            score: f64::NAN,
            tokens: None,
            mass: None,
            log_probs: None,
            human: row.judged.human,
            doc_id: row.judged.doc_id.clone(),
        };
        match settings.evaluate {
            Method::GEval => {
                let log_probs = numbers(&log_probs.sum()?)?;
                let scores = settings.g_eval.scores.iter().copied();
                let pairs: Vec<(u32, f64)> = scores.zip(log_probs).collect();
                let scores: Vec<_> = pairs.iter().map(|(s, log)| (f64::from(*s), *log)).collect();
                one.score = expected_score(&scores, ScoreMass::Normalized)
                    .map_err(|error| at_line(path, *number, error.to_string()))?;
                one.mass = Some(scores.iter().map(|(_, log)| log.exp()).sum());
                one.log_probs = Some(pairs.into_iter().collect());
            }
            _ => {
                one.score = numbers(&gpt_score(log_probs)?)?[0];
                one.tokens = Some(row.texts[0].covered());
            }
        }
        if one.score.is_nan() {
            let problem = "gets the score NaN: the model gives no distribution".to_string();
            return Err(at_line(path, *number, problem));
        }
        scored.push(one);
    }
    Ok((figures(settings, &scored), scored))
}

/// What the model is asked for: the text, or each score.
fn ask(
    judged: &Judged,
    settings: &Settings,
    prompts: &Prompts,
    report: &mut Report,
) -> Result<Vec<Text>, String> {
    let filled = |problem: candle_align::Error| problem.to_string();
    let common = [
        ("aspect", settings.aspect.as_str()),
        ("definition", settings.definition().unwrap_or_default()),
        ("input", judged.input.as_str()),
    ];
    let sides = match settings.evaluate {
        Method::GEval => {
            let scores: Vec<String> = settings.g_eval.scores.iter().map(u32::to_string).collect();
            let ends = [scores.first(), scores.last()].map(|end| end.map_or("", String::as_str));
            let more = [
                ("output", judged.output.as_str()),
                ("lowest", ends[0]),
                ("highest", ends[1]),
            ];
            let values = [common, more].concat();
            let prompt = settings.g_eval.prompt.fill(&values).map_err(filled)?;
            prompts.followed_by_one(&prompt, &scores, report)?
        }
        _ => {
            let prompt = settings.gpt_score.prompt.fill(&common).map_err(filled)?;
            prompts.followed_by(&prompt, std::slice::from_ref(&judged.output), report)?
        }
    };
    Ok(texts(sides).collect())
}

fn numbers(values: &candle_core::Tensor) -> Result<Vec<f64>> {
    Ok(values.to_dtype(DType::F64)?.to_vec1()?)
}

fn figures(settings: &Settings, rows: &[Row]) -> Figures {
    let scores: Vec<f64> = rows.iter().map(|row| row.score).collect();
    let groups = inputs(rows.iter().map(|row| row.doc_id.as_deref()));
    let (mean, error) = mean_and_error(&scores, &groups);
    let masses = rows.iter().filter_map(|row| Some((row.mass?, row.line)));
    let lowest = masses.clone().min_by(|a, b| a.0.total_cmp(&b.0));
    let mass = lowest.map(|(lowest, line)| Mass {
        mean: masses.map(|(mass, _)| mass).sum::<f64>() / rows.len() as f64,
        lowest,
        line,
    });
    let human: Option<Vec<f64>> = rows.iter().map(|row| row.human).collect();
    let grouped = rows.iter().all(|row| row.doc_id.is_some());
    Figures {
        aspect: settings.aspect.clone(),
        mean: mean.unwrap_or(f64::NAN),
        error,
        mass,
        people: human.map_or(Vec::new(), |human| {
            levels(&scores, &human, grouped.then_some(&groups[..]))
        }),
    }
}
