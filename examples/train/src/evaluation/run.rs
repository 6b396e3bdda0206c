//! A whole evaluation: read, ask, write.

use super::super::checkpoint::context::Context;
use super::super::checkpoint::load::TRAINED;
use super::super::checkpoint::other_base::other_base;
use super::super::checkpoint::rows::{self, Folder as TextFolder, Prompts};
use super::super::checkpoint::sound::{self, language_adapter, language_model};
use super::super::checkpoint::start::{local_now, moment};
use super::super::checkpoint::summary::Notices;
use super::super::error::{Error, Result};
use super::super::output::Folder;
use super::super::overwrite;
use super::super::progress::Progress;
use super::report::{Figures, Report};
use super::settings::{Method, Settings};
use super::{choices, judges};
use candle_align::decoder::{Decoder, Load};
use candle_align::peft::Strictness;
use candle_core::Device;
use std::path::Path;
use std::time::Instant;

const ROWS: &str = "rows.jsonl";
/// The last one first.
const RESULTS: [&str; 2] = ["evaluation.json", ROWS];

/// Runs, and writes `evaluation.json` and `rows.jsonl`.
pub fn run(settings: &Settings, progress: &dyn Progress) -> Result<Report> {
    let begun = Instant::now();
    settings.check()?;
    let mut settings = settings.clone();
    let out = settings.out();
    check_out(&settings, &out)?;
    let folder = Folder::open(&out)?;
    let now = moment(settings.now.get_or_insert_with(local_now))?;
    let decoder = load(&settings)?;
    let mut notices = Notices::default();
    if let Some(folder) = &settings.adapter_dir {
        let named = decoder.adapter_config(TRAINED)?.base_model.as_deref();
        if let Some(notice) = other_base(folder, named, &settings.model) {
            notices.add(progress, notice);
        }
    }
    let texts = TextFolder::open(&settings.model, now)?;

    let mut report = rows::Report::default();
    let (vocabulary, context) = (decoder.config().vocab_size, Context::of(&decoder));
    let prompts = Prompts::new(&texts, settings.chat, vocabulary, context, &mut report);
    let prompts = prompts.map_err(Error::Usage)?;
    let figures = match settings.evaluate {
        Method::MultipleChoice => {
            let (figures, rows) =
                choices::evaluate(&settings, &prompts, &decoder, &mut report, progress)?;
            folder.lines(ROWS, &rows)?;
            Figures::MultipleChoice(figures)
        }
        Method::GptScore | Method::GEval => {
            let (figures, rows) =
                judges::evaluate(&settings, &prompts, &decoder, &mut report, progress)?;
            folder.lines(ROWS, &rows)?;
            Figures::Judged(figures)
        }
    };
    progress.end();
    let chat_template = match prompts.is_chat() {
        true => Some(texts.templates.choose(false)?.name().to_string()),
        false => None,
    };
    let report = Report {
        settings,
        chat_template,
        rows: report,
        notices,
        figures,
        seconds: begun.elapsed().as_secs_f64(),
        out,
    };
    folder.json(RESULTS[0], &report)?;
    Ok(report)
}

/// An error if the evaluation would write over its rows, or over rows that no evaluation wrote.
fn check_out(settings: &Settings, out: &Path) -> Result<()> {
    let inputs = [("its rows", settings.data.as_path())];
    let is_result = |name: &str| RESULTS.contains(&name);
    overwrite::check_inputs(&inputs, out, is_result)?;
    match overwrite::first_there(out, &RESULTS) {
        Some(path) if path.ends_with(ROWS) => Err(overwrite::foreign(&path)),
        _ => Ok(()),
    }
}

/// The frozen model, with its adapter.
fn load(settings: &Settings) -> Result<Decoder> {
    let load = Load {
        dtype: settings.dtype.dtype(),
        nf4: settings.dtype.nf4(),
        trained: false,
        device: Device::Cpu,
    };
    let mut decoder = sound::load(&settings.model, &load)?;
    let needs = "an evaluation";
    language_model(&decoder, &settings.model, needs)?;
    if let Some(folder) = &settings.adapter_dir {
        language_adapter(folder, needs)?;
        decoder.load_adapter(TRAINED, folder, Strictness::Strict)?;
    }
    Ok(decoder)
}
