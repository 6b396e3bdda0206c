//! Evaluations of a tiny checkpoint: every number beside one that is computed from whole logits, text by text.

mod choices;
mod judges;
mod people;
mod questions;
mod refusals;

use crate::objectives::model;
use candle_align::decoder::{Decoder, Load};
use candle_align::ops::Segments;
use candle_core::DType;
use indicatif::ProgressBar;
use serde_json::Value;
use std::fs;
use std::path::Path;
use tempfile::TempDir;
use train::error::Result;
use train::evaluation::report::Report;
use train::evaluation::run::run;
use train::evaluation::settings::Settings;

/// A model, a file of rows, and the settings of an evaluation.
struct Case {
    model: TempDir,
    dir: TempDir,
    settings: Settings,
}

impl Case {
    fn new(method: &str, rows: &str, sets: &[&str]) -> Self {
        Self::on(model(1, None), method, rows, sets)
    }

    fn on(model: TempDir, method: &str, rows: &str, sets: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("rows.jsonl");
        fs::write(&data, rows).unwrap();
        let mut settings = Settings {
            model: model.path().to_path_buf(),
            data,
            out: Some(dir.path().join("out")),
            ..Settings::default()
        };
        let method = format!("evaluate={method}");
        for set in [method.as_str()].iter().chain(sets) {
            settings = settings.with(set).unwrap();
        }
        Self {
            model,
            dir,
            settings,
        }
    }

    fn run(&self) -> Result<Report> {
        run(&self.settings, &ProgressBar::hidden())
    }

    /// What `evaluation.json` and the lines of `rows.jsonl` say.
    fn written(&self) -> (Value, Vec<Value>) {
        let report = self.run().unwrap();
        let read = |name| fs::read_to_string(self.dir.path().join("out").join(name)).unwrap();
        let all: Value = serde_json::from_str(&read("evaluation.json")).unwrap();
        assert_eq!(all["rows"]["kept"], report.rows.rows);
        let rows = read("rows.jsonl");
        let rows = rows.lines().map(|line| serde_json::from_str(line).unwrap());
        (all, rows.collect())
    }

    fn decoder(&self) -> Decoder {
        load(self.model.path())
    }

    fn refused(&self, problem: &str) {
        let error = self.run().err().map(|error| error.to_string());
        let error = error.unwrap_or_default();
        assert!(error.contains(problem), "{problem}: {error}");
    }
}

fn load(folder: &Path) -> Decoder {
    Decoder::load(folder, &Load::default()).unwrap()
}

/// A text of bytes as ids of the tokenizer in `golden/bytes`: its vocabulary is GPT-2's alphabet, in order.
fn bytes(text: &str) -> Vec<u32> {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let (mut order, rest): (Vec<u8>, Vec<u8>) = (0..=255u8).partition(printable);
    order.extend(rest);
    let id = |byte: u8| order.iter().position(|one| *one == byte).unwrap() as u32;
    text.bytes().map(id).collect()
}

/// log P of every token after the first, from the whole logits of this row alone.
fn whole(decoder: &Decoder, ids: &[u32]) -> Vec<f64> {
    let segments = Segments::from_lengths(&[ids.len()]).unwrap();
    let logits = decoder
        .logits(&decoder.hidden(ids, &segments).unwrap())
        .unwrap();
    let logits = logits.to_dtype(DType::F64).unwrap();
    let logits = logits.to_vec2::<f64>().unwrap();
    let next = ids[1..].iter().zip(&logits);
    let log_prob = |(id, logits): (&u32, &Vec<f64>)| {
        let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
        logits[*id as usize] - sum.ln()
    };
    next.map(log_prob).collect()
}

/// The sum over the last ones.
fn last(log_probs: &[f64], count: usize) -> f64 {
    log_probs[log_probs.len() - count..].iter().sum()
}

fn numbers(value: &Value) -> Vec<f64> {
    let list = value.as_array().unwrap().iter();
    list.map(|number| number.as_f64().unwrap()).collect()
}
