//! A file of rows to the rows of an objective, some of them held out by prompt.

use super::super::data;
use super::super::error::{Error, Result};
use super::objective::{Answers, Compared, Objective, Text};
use super::rows::{self, Folder, Report, Source};
use super::settings::{Learned, Settings};
use super::split::{Row, grouped, split};
use candle_align::decoder::Decoder;
use chrono::NaiveDateTime;
use std::collections::HashSet;
use std::path::Path;

/// The rows of a run.
pub struct Prepared {
    pub train: Objective,
    pub held_out: Option<HeldOut>,
    /// Of the file of training rows.
    pub report: Report,
    /// Of the file of held-out rows.
    pub held_out_report: Option<Report>,
    /// How many prompts of a held-out file are also trained on.
    pub shared_prompts: usize,
    /// A number of all ids and their order.
    pub fingerprint: String,
}

/// The rows that are not trained on.
pub struct HeldOut {
    pub rows: Objective,
    /// The prompt of each row, as a number.
    pub groups: Vec<u64>,
}

impl HeldOut {
    pub fn prompts(&self) -> usize {
        self.groups.iter().collect::<HashSet<_>>().len()
    }
}

/// Reads the rows of a run.
pub fn prepare(settings: &Settings, decoder: &Decoder, now: NaiveDateTime) -> Result<Prepared> {
    let folder = Folder::open(&settings.model, now)?;
    let config = decoder.config();
    let of = settings.rows(config.vocab_size);
    let most = config.max_position_embeddings;
    let open = |path: &Path| Source::open(path);
    match settings.objective {
        Learned::Sft => {
            let read = |path: &Path| {
                let all = rows::sft(open(path)?, &folder, &of)?;
                let text = |row: rows::SftRow| {
                    let mut learned = row.learned;
                    // the first token is never predicted
                    if let Some(first) = learned.first_mut() {
                        *first = false;
                    }
                    (
                        row.line,
                        Text {
                            ids: row.ids,
                            learned,
                        },
                    )
                };
                grouped(path, all.rows.into_iter().map(text), all.report)
            };
            let lengths = |text: &Text| text.ids.len();
            let hash = |text: &Text, into: &mut Hash| into.text(text);
            finish(settings, read, lengths, hash, most, Objective::Sft)
        }
        Learned::Reward => {
            let read = |path: &Path| {
                let all = rows::reward(open(path)?, &folder, &of)?;
                let pair = |row: rows::RewardRow| {
                    let pair = Compared {
                        chosen: row.chosen,
                        rejected: row.rejected,
                        margin: row.margin.map(|margin| margin as f32),
                    };
                    (row.line, pair)
                };
                grouped(path, all.rows.into_iter().map(pair), all.report)
            };
            let lengths = |pair: &Compared| pair.chosen.len().max(pair.rejected.len());
            let hash = |pair: &Compared, into: &mut Hash| {
                into.ids(&pair.chosen);
                into.ids(&pair.rejected);
                into.ids(&[pair.margin.unwrap_or(0.0).to_bits()]);
            };
            let objective = |rows| Objective::Reward {
                rows,
                config: settings.reward.clone(),
            };
            finish(settings, read, lengths, hash, most, objective)
        }
        Learned::Dpo => {
            let read = |path: &Path| {
                let all = rows::dpo(open(path)?, &folder, &of)?;
                let text = |side: &rows::Side| {
                    Text::answer(&side.ids[..side.prompt], &side.ids[side.prompt..])
                };
                let pair = |row: rows::Pair| {
                    let answers = Answers {
                        chosen: text(&row.chosen),
                        rejected: text(&row.rejected),
                    };
                    (row.line, answers)
                };
                grouped(path, all.rows.into_iter().map(pair), all.report)
            };
            let lengths = |pair: &Answers| pair.chosen.ids.len().max(pair.rejected.ids.len());
            let hash = |pair: &Answers, into: &mut Hash| {
                into.text(&pair.chosen);
                into.text(&pair.rejected);
            };
            let objective = |rows| Objective::Dpo {
                rows,
                config: settings.dpo.library(),
                weights: settings.dpo.loss_weights,
            };
            finish(settings, read, lengths, hash, most, objective)
        }
    }
}

/// Checks, splits and counts.
fn finish<T>(
    settings: &Settings,
    read: impl Fn(&Path) -> Result<(Vec<Row<T>>, Report)>,
    length: impl Fn(&T) -> usize,
    hash: impl Fn(&T, &mut Hash),
    most: usize,
    objective: impl Fn(Vec<T>) -> Objective,
) -> Result<Prepared> {
    let short = |path: &Path, rows: &[Row<T>]| match rows
        .iter()
        .find(|row| length(&row.content) > most)
    {
        None => Ok(()),
        Some(row) => Err(Error::Row {
            file: path.display().to_string(),
            line: row.line,
            problem: format!(
                "has {} tokens, and the model was made for {most}; set `max_length` to {most} or less",
                length(&row.content)
            ),
        }),
    };
    let (rows, report) = read(&settings.data)?;
    short(&settings.data, &rows)?;
    let (mut held_out_report, mut shared_prompts) = (None, 0);
    let (train, held_out) = match &settings.held_out_file {
        Some(path) => {
            let (held, report) = read(path)?;
            short(path, &held)?;
            held_out_report = Some(report);
            let known: HashSet<u64> = rows.iter().map(|row| row.group).collect();
            let asked: HashSet<u64> = held.iter().map(|row| row.group).collect();
            shared_prompts = asked.intersection(&known).count();
            (rows, held)
        }
        None if settings.held_out == 0.0 => (rows, Vec::new()),
        None => {
            let [train, held] = split(settings, rows)?;
            (train, held)
        }
    };
    let mut number = Hash::default();
    for row in train.iter().chain(&held_out) {
        hash(&row.content, &mut number);
    }
    number.ids(&[train.len() as u32, held_out.len() as u32]);
    let groups: Vec<u64> = held_out.iter().map(|row| row.group).collect();
    let contents = |rows: Vec<Row<T>>| objective(rows.into_iter().map(|row| row.content).collect());
    Ok(Prepared {
        train: contents(train),
        held_out: (!groups.is_empty()).then(|| HeldOut {
            rows: contents(held_out),
            groups,
        }),
        report,
        held_out_report,
        shared_prompts,
        fingerprint: format!("{:016x}", number.0),
    })
}

/// FNV-1a over ids.
struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(data::group(""))
    }
}

impl Hash {
    fn ids(&mut self, ids: &[u32]) {
        for id in [ids.len() as u32].iter().chain(ids) {
            for byte in id.to_le_bytes() {
                self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
    }

    fn text(&mut self, text: &Text) {
        self.ids(&text.ids);
        self.ids(
            &text
                .learned
                .iter()
                .map(|learned| u32::from(*learned))
                .collect::<Vec<_>>(),
        );
    }
}
