//! Rows as TRL's trainers read them.

use super::super::super::error::{Error, Result};
use super::super::super::objectives::RewardForm;
use super::super::context::Context;
use super::super::objective::lists::{List, Lists};
use super::super::objective::pairs::{Pair, Pairs};
use super::super::objective::scored::{Compared, Scores};
use super::super::objective::texts::Texts;
use super::super::objective::unpaired::{Labeled, Unpaired};
use super::super::objective::{Objective, Text};
use super::super::rows::kind::{first, has_any, is_rated};
use super::super::rows::{self, Folder, Report, Source};
use super::super::settings::{Learned, Settings};
use super::super::split::{Row, grouped};
use super::{Content, Prepared, finish, halves, within};
use std::path::Path;

/// Whether the rows of a run are read as TRL reads them: by the fields of the first one.
pub fn reads(settings: &Settings) -> Result<bool> {
    let trains = matches!(
        settings.objective,
        Learned::Sft | Learned::Reward | Learned::Dpo
    ) || settings.objective.is_since();
    if !trains || settings.chat == Some(true) {
        return Ok(false);
    }
    let row = first(&settings.data, &settings.ignored_fields)?;
    let has = |name: &str| has_any(&row, &[name]);
    let unpaired = settings.objective.is_unpaired();
    let labeled = !unpaired && has("label");
    Ok(match settings.objective {
        _ if is_rated(&row) || labeled => false,
        objective if objective.is_rewarded() => has("chosen") || has("rejected"),
        _ if unpaired => has("chosen") || has("prompt") && has("completion"),
        Learned::Sft | Learned::Gkd => !has("chosen"),
        _ => true,
    })
}

/// Reads the rows of `sft`, `reward`, pairs, three answers or answers with a label.
pub fn prepare(
    settings: &Settings,
    folder: &Folder,
    of: &rows::Settings,
    context: Context,
) -> Result<Prepared> {
    let open = |path: &Path| Source::open(path);
    let chat = settings.chat;
    if chat == Some(false) {
        let problem = "`chat` is for files that hold more than TRL reads; these rows say themselves whether \
                       they are messages";
        return Err(Error::file(&settings.data, problem));
    }
    match settings.objective {
        Learned::Sft | Learned::Gkd => {
            let read = |path: &Path| {
                let all = rows::sft(open(path)?, folder, of)?;
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
                checked(context, path, all.rows.into_iter().map(text), all.report)
            };
            let loss = settings.text_loss();
            let objective = |rows| {
                Objective::Texts(Texts {
                    rows,
                    loss: loss.clone(),
                })
            };
            finish(halves(settings, read)?, Vec::new(), objective)
        }
        Learned::Reward => {
            let read = |path: &Path| {
                let all = rows::reward(open(path)?, folder, of)?;
                let pair = |row: rows::RewardRow| {
                    let margin = row.margin.map(|margin| margin as f32);
                    (row.line, Compared::pair(row.chosen, row.rejected, margin))
                };
                checked(context, path, all.rows.into_iter().map(pair), all.report)
            };
            let halves = halves(settings, read)?;
            let all = halves.train.iter().chain(&halves.held_out);
            let margins = all.filter(|row| row.content.margin.is_some()).count();
            let loss = settings.reward_loss(true);
            if margins > 0 && settings.reward_form != RewardForm::Pairs {
                let problem = "has a `margin`, which only `reward_form` = \"pairs\" reads";
                return Err(Error::file(&settings.data, problem));
            }
            let objective = |rows| {
                Objective::Scores(Scores {
                    rows,
                    loss: loss.clone(),
                })
            };
            finish(halves, Vec::new(), objective)
        }
        objective if objective.is_unpaired() => {
            let read = |path: &Path| {
                let all = rows::unpaired(open(path)?, folder, of)?;
                let row = |row: rows::UnpairedRow| (row.line, labeled(&row));
                checked(context, path, all.rows.into_iter().map(row), all.report)
            };
            let objective = |rows| unpaired(settings, of, context, rows);
            finish(halves(settings, read)?, Vec::new(), objective)
        }
        objective if objective.is_lists_since() => {
            let read = |path: &Path| {
                let all = match objective == Learned::Tpo {
                    true => rows::triples(open(path)?, folder, of)?,
                    false => rows::scored(open(path)?, folder, of)?,
                };
                let row = |row: rows::ListRow| (row.line, list(&row));
                checked(context, path, all.rows.into_iter().map(row), all.report)
            };
            let objective = |rows| {
                let loss = settings.list_loss();
                Objective::Lists(Lists { rows, loss })
            };
            finish(halves(settings, read)?, Vec::new(), objective)
        }
        _ => {
            let read = |path: &Path| {
                let all = rows::dpo(open(path)?, folder, of)?;
                let pair = |row: rows::Pair| {
                    let pair = Pair {
                        chosen: text(&row.chosen),
                        rejected: text(&row.rejected),
                    };
                    (row.line, pair)
                };
                checked(context, path, all.rows.into_iter().map(pair), all.report)
            };
            let objective = |rows| {
                let loss = settings.pair_loss();
                Objective::Pairs(Pairs { rows, loss })
            };
            finish(halves(settings, read)?, Vec::new(), objective)
        }
    }
}

/// The rows with the numbers of their prompts, none too long for the model.
fn checked<T: Content>(
    context: Context,
    path: &Path,
    rows: impl Iterator<Item = (usize, T)>,
    report: Report,
) -> Result<(Vec<Row<T>>, Report)> {
    let (rows, report) = grouped(path, rows, report)?;
    within(path, &rows, context)?;
    Ok((rows, report))
}

/// The objective of answers with a label. A prompt with the answer of another row fits the model too.
pub fn unpaired(
    settings: &Settings,
    of: &rows::Settings,
    context: Context,
    rows: Vec<Labeled>,
) -> Objective {
    let length = of
        .max_length
        .map_or(context.most(), |length| length.min(context.most()));
    let cut = rows::Settings {
        max_length: Some(length),
        ..of.clone()
    };
    let loss = settings.unpaired_loss();
    Objective::Unpaired(Unpaired { rows, loss, cut })
}

/// An answer with a label.
pub fn labeled(row: &rows::UnpairedRow) -> Labeled {
    let (prompt, answer) = row.whole.ids.split_at(row.whole.prompt);
    Labeled {
        text: text(&row.kept),
        prompt: prompt.to_vec(),
        answer: answer.to_vec(),
        desirable: row.desirable,
    }
}

/// Answers with rewards. No loss that reads such rows asks how similar they are.
fn list(row: &rows::ListRow) -> List {
    List {
        answers: row.sides.iter().map(text).collect(),
        rewards: row.rewards.iter().map(|reward| *reward as f32).collect(),
        similarity: vec![0.0; row.sides.len()],
    }
}

/// An answer after its prompt.
pub fn text(side: &rows::Side) -> Text {
    Text::answer(&side.ids[..side.prompt], &side.ids[side.prompt..])
}
