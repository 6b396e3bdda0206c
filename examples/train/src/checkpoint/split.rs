//! Which rows ask the same, and the split that keeps them together.

use super::super::data::{self, reader::Lines};
use super::super::error::{Error, Result};
use super::rows::Report;
use super::settings::Settings;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

/// A row with its line and the number of its prompt.
pub struct Row<T> {
    pub content: T,
    pub line: usize,
    pub group: u64,
}

/// Training and held-out rows, with no prompt in both.
pub fn split<T>(settings: &Settings, rows: Vec<Row<T>>) -> Result<[Vec<Row<T>>; 2]> {
    let mut seen = HashSet::new();
    let all = rows.iter().map(|row| row.group);
    let mut groups: Vec<u64> = all.filter(|group| seen.insert(*group)).collect();
    if groups.len() < 2 {
        return Err(Error::Usage(format!(
            "a held-out split needs at least two different prompts, found {}; set `held_out` to 0",
            groups.len()
        )));
    }
    groups.shuffle(&mut StdRng::seed_from_u64(settings.seed.wrapping_mul(8)));
    let count = (groups.len() as f64 * settings.held_out).round() as usize;
    groups.truncate(count.min(settings.max_held_out).clamp(1, groups.len() - 1));
    let held: HashSet<u64> = groups.into_iter().collect();
    let (held, train) = rows.into_iter().partition(|row| held.contains(&row.group));
    Ok([train, held])
}

/// The rows with the numbers of their prompts.
pub fn grouped<T>(
    path: &Path,
    rows: impl Iterator<Item = (usize, T)>,
    report: Report,
) -> Result<(Vec<Row<T>>, Report)> {
    let mut groups = BTreeMap::new();
    for line in Lines::open(path)? {
        let (number, bytes) = line?;
        let row: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        groups.insert(number, data::group(&prompt(&row)));
    }
    let row = |(line, content)| {
        // a line that is gone was read a moment ago
        let group = groups.get(&line).copied().unwrap_or(line as u64);
        Row {
            content,
            line,
            group,
        }
    };
    Ok((rows.map(row).collect(), report))
}

/// What a row asks: rows that ask the same are in one half of the split.
fn prompt(row: &Value) -> String {
    let list = |name: &str| row.get(name).and_then(Value::as_array);
    if let Some(prompt) = row.get("prompt").filter(|prompt| !prompt.is_null()) {
        return prompt.to_string();
    }
    if let (Some(chosen), Some(rejected)) = (row["chosen"].as_str(), row["rejected"].as_str()) {
        let both = chosen.chars().zip(rejected.chars());
        let common: String = both.take_while(|(a, b)| a == b).map(|(a, _)| a).collect();
        // of a dialogue, up to the last answer's beginning
        const ANSWER: &str = "\n\nAssistant:";
        let end = common
            .rfind(ANSWER)
            .map_or(common.len(), |at| at + ANSWER.len());
        return common[..end].to_string();
    }
    for [chosen, rejected] in [["chosen", "rejected"], ["chosen_ids", "rejected_ids"]] {
        if let (Some(chosen), Some(rejected)) = (list(chosen), list(rejected)) {
            let both = chosen.iter().zip(rejected);
            let common: Vec<&Value> = both.take_while(|(a, b)| a == b).map(|(a, _)| a).collect();
            return format!("{common:?}");
        }
    }
    if let Some(turns) = list("messages").or(list("conversations")) {
        let answers = |turn: &&Value| {
            let role = turn
                .get("role")
                .or(turn.get("from"))
                .and_then(Value::as_str);
            matches!(role, Some("assistant" | "gpt"))
        };
        let asked: Vec<&Value> = turns.iter().take_while(|turn| !answers(turn)).collect();
        return format!("{asked:?}");
    }
    row.to_string()
}
