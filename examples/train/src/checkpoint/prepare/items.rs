//! Prompts with rated answers: ranked lists, trees, solutions, pairs, single answers with a label. The small
//! model's readers read them, the tokenizer and the chat template of the checkpoint write them.

use super::super::super::comparisons::Shape;
use super::super::super::data::{self, Item, Reading};
use super::super::super::error::{Error, Result};
use super::super::super::fit::usable;
use super::super::super::objectives::lessons::{Feedback, Plan};
use super::super::context::Context;
use super::super::objective::Objective;
use super::super::objective::answers::Answers;
use super::super::objective::lists::Lists;
use super::super::objective::pairs::Pairs;
use super::super::objective::scored::Scores;
use super::super::objective::texts::Texts;
use super::super::rows::edits::edit_tokens;
use super::super::rows::items::Writer;
use super::super::rows::words::Style;
use super::super::rows::{self, Covers, Folder, Report, Turns};
use super::super::settings::{Learned, Settings};
use super::super::split::Row;
use super::trl::unpaired;
use super::{Content, Halves, Prepared, finish, halves, within};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::HashSet;
use std::path::Path;

/// Longer than any text; the limit is in tokens, later.
const WHOLE: Reading = Reading {
    max_len: usize::MAX / 8,
    skip_bad_rows: false,
    max_rows: None,
    ignored_fields: Vec::new(),
};

/// Reads the rows of any objective.
pub fn prepare(
    settings: &Settings,
    folder: &Folder,
    of: &rows::Settings,
    context: Context,
) -> Result<Prepared> {
    if settings.completion_only.is_some() || settings.turns != Turns::All {
        let problem = "`completion_only` and `turns` are for supervised rows as TRL reads them, and this \
                       file or objective has others";
        return Err(Error::file(&settings.data, problem));
    }
    let halves = halves(settings, |path| read(settings, path))?;
    let all = halves.train.iter().chain(&halves.held_out);
    let longest = all.map(|row| row.content.answers.len()).max().unwrap_or(0);
    let shape = settings.objective.shape_of(settings.forms(), longest);
    let usage = |problem: String| Error::file(&settings.data, problem);
    let mut report = Report::default();
    let writer = Writer::new(folder, settings.chat, of, &mut report).map_err(usage)?;
    let edits = match settings.objective {
        Learned::SecondThoughts => {
            Some(edit_tokens(folder, settings.edit_tokens.as_deref()).map_err(usage)?)
        }
        _ => None,
    };
    let build = Build {
        settings,
        context,
        writer,
        style: Style {
            classes: [&settings.classes.good, &settings.classes.bad],
            revision: &settings.selfee,
            edits,
        },
        plan: Plan {
            objective: settings.objective,
            shape,
            most: settings.most(),
            hindsight: Feedback {
                words: &settings.chain_of_hindsight.feedback,
                orders: &settings.chain_of_hindsight.orders,
                learned: settings.chain_of_hindsight.learned,
            },
            class_rewards: [settings.c_rlft.good_reward, settings.c_rlft.bad_reward],
            costs: &settings.second_thoughts,
            debug: &settings.self_debug,
        },
    };
    let reads_the_clock = report.reads_the_clock;
    let mut prepared = match settings.objective {
        Learned::Sft | Learned::Gkd => {
            let loss = settings.text_loss();
            let objective = |rows| {
                Objective::Texts(Texts {
                    rows,
                    loss: loss.clone(),
                })
            };
            build.all(halves, &Build::best, objective)
        }
        objective if objective == Learned::Dpo || objective.is_pairs_since() => {
            let objective = |rows| {
                let loss = settings.pair_loss();
                Objective::Pairs(Pairs { rows, loss })
            };
            build.all(halves, &Build::pairs, objective)
        }
        objective if objective.is_unpaired() => {
            let objective = |rows| unpaired(settings, of, context, rows);
            build.all(halves, &Build::labeled, objective)
        }
        Learned::Reward => {
            let loss = settings.reward_loss(shape == Shape::Pairs);
            let objective = |rows| {
                Objective::Scores(Scores {
                    rows,
                    loss: loss.clone(),
                })
            };
            build.all(halves, &Build::scored, objective)
        }
        Learned::CRlft => {
            let loss = settings.answer_loss();
            let objective = |rows| {
                Objective::Answers(Answers {
                    rows,
                    loss: loss.clone(),
                })
            };
            build.all(halves, &Build::answers, objective)
        }
        objective if objective.is_language() => {
            let loss = settings.text_loss();
            let objective = |rows| {
                Objective::Texts(Texts {
                    rows,
                    loss: loss.clone(),
                })
            };
            build.all(halves, &Build::texts, objective)
        }
        _ => {
            let loss = settings.list_loss();
            let objective = |rows| {
                Objective::Lists(Lists {
                    rows,
                    loss: loss.clone(),
                })
            };
            build.all(halves, &Build::lists, objective)
        }
    }?;
    prepared.report.reads_the_clock = reads_the_clock;
    if matches!(settings.objective, Learned::Sft | Learned::Gkd) {
        prepared.report.covers = Some(Covers::BestAnswer);
    }
    Ok(prepared)
}

/// The items of a file that the objective can learn from.
fn read(settings: &Settings, path: &Path) -> Result<(Vec<Row<Item>>, Report)> {
    let reading = Reading {
        ignored_fields: settings.ignored_fields.clone(),
        ..WHOLE
    };
    let data = data::load(Some(path), &reading)?;
    let (mut tally, objective) = (data.tally, settings.objective);
    if objective.is_rewarded() && tally.formats.contains_key("pair") {
        let problem = format!(
            "`{objective}` learns from rewards, and reads those of a pair, `score_chosen` and `score_rejected`, \
             only where every row is such a pair and `chat` is null"
        );
        return Err(Error::file(path, problem));
    }
    let (forms, most) = (settings.forms(), settings.most());
    let items = usable(data.items, objective, forms, most, &data.name, &mut tally)?;
    let row = |item: Item| Row {
        line: item.row,
        group: item.group,
        content: item,
    };
    let report = Report {
        rows: tally.rows,
        items: Some(tally),
        ..Report::default()
    };
    Ok((items.into_iter().map(row).collect(), report))
}

/// From items to rows.
pub(super) struct Build<'a> {
    pub(super) settings: &'a Settings,
    /// The most tokens of a row.
    pub(super) context: Context,
    pub(super) writer: Writer<'a>,
    pub(super) style: Style<'a>,
    pub(super) plan: Plan<'a>,
}

/// One way to write the rows of an item.
type Rows<'a, T> =
    dyn Fn(&Build<'a>, &Item, &mut StdRng, &mut Report) -> Result<Vec<T>, String> + 'a;

impl<'a> Build<'a> {
    fn all<T: Content>(
        &self,
        halves: Halves<Item>,
        rows: &Rows<'a, T>,
        objective: impl Fn(Vec<T>) -> Objective,
    ) -> Result<Prepared> {
        let settings = self.settings;
        let rng = |purpose: u64| {
            StdRng::seed_from_u64(settings.seed.wrapping_mul(8).wrapping_add(purpose))
        };
        let (mut report, mut held_out_report) = (halves.report, halves.held_out_report);
        let held_out_file = settings.held_out_file.as_ref().unwrap_or(&settings.data);
        let train = self.half(&settings.data, halves.train, rows, &mut rng(5), &mut report)?;
        let counts = held_out_report.as_mut().unwrap_or(&mut report);
        let probes = self.probes(held_out_file, &halves.held_out, counts)?;
        let held_out = self.half(held_out_file, halves.held_out, rows, &mut rng(6), counts)?;
        within(&settings.data, &train, self.context)?;
        within(held_out_file, &held_out, self.context)?;
        let lines = |rows: &[Row<T>]| rows.iter().map(|row| row.line).collect::<HashSet<_>>();
        let (of_train, of_held_out) = (lines(&train), lines(&held_out));
        match &mut held_out_report {
            Some(own) => {
                report.kept = of_train.len();
                own.kept = of_held_out.len();
            }
            None => report.kept = of_train.union(&of_held_out).count(),
        }
        if train.is_empty() {
            let problem = format!("no row is left to train on: {report}");
            return Err(Error::file(&settings.data, problem));
        }
        if held_out.is_empty() && settings.holds_out() {
            let report = held_out_report.as_ref().unwrap_or(&report);
            let problem = format!(
                "no held-out row is left to measure: {report}; hold out more prompts, raise `max_length`, or \
                 set `held_out` to 0"
            );
            return Err(Error::file(held_out_file, problem));
        }
        let halves = Halves {
            train,
            held_out,
            report,
            held_out_report,
            shared_prompts: halves.shared_prompts,
        };
        finish(halves, probes, objective)
    }

    fn half<T>(
        &self,
        path: &Path,
        items: Vec<Row<Item>>,
        rows: &Rows<'a, T>,
        rng: &mut StdRng,
        report: &mut Report,
    ) -> Result<Vec<Row<T>>> {
        let mut all = Vec::new();
        for item in items {
            if !self.can_write(&item.content, report) {
                continue;
            }
            let own = rows(self, &item.content, rng, report);
            let own = own.map_err(|problem| failed(path, item.line, problem))?;
            all.extend(own.into_iter().map(|content| Row {
                content,
                line: item.line,
                group: item.group,
            }));
        }
        Ok(all)
    }
}

pub(super) fn failed(path: &Path, line: usize, problem: String) -> Error {
    Error::Row {
        file: path.display().to_string(),
        line,
        problem,
    }
}
