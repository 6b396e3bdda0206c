//! Whole runs on a tiny checkpoint: stopped and killed runs, folders of results, and what is refused.

use candle_align::decoder::{Decoder, Load};
use candle_align::peft::Strictness;
use clap::Parser;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use train::Arguments;
use train::arguments::Asked;
use train::checkpoint::load;
use train::checkpoint::objective::{Objective, Text};
use train::checkpoint::prepare::prepare;
use train::checkpoint::run::run;
use train::checkpoint::settings::{FreshAdapter, Learned, Settings};
use train::checkpoint::summary::{Outcome, Summary};
use train::error::Result;

pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/golden/trl")
        .join(name)
}

pub fn keys(keys: Value) -> Option<FreshAdapter> {
    Some(serde_json::from_value(keys).unwrap())
}

/// The same rows with their better answers alone, for SFT.
pub fn completions(out: &Path) -> PathBuf {
    let text = fs::read_to_string(golden("rows.jsonl")).unwrap();
    let row = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        json!({"prompt": row["prompt"], "completion": row["chosen"]}).to_string() + "\n"
    };
    fs::create_dir_all(out).unwrap();
    let path = out.join("completions.jsonl");
    fs::write(&path, text.lines().map(row).collect::<String>()).unwrap();
    path
}

/// Nine steps, an evaluation every third, a checkpoint every fourth.
pub fn tiny(objective: Learned, adapter: Option<FreshAdapter>, out: &Path) -> Settings {
    let data = match objective {
        Learned::Sft => completions(out),
        _ => golden("rows.jsonl"),
    };
    let mut settings = Settings {
        model: golden("model"),
        objective,
        data,
        out: Some(out.to_path_buf()),
        adapter,
        now: Some("2026-01-31T12:00:00".to_string()),
        held_out: 0.25,
        eval_every: 3,
        save_every: 4,
        ..Settings::default()
    };
    settings.fit.max_steps = Some(9);
    settings.fit.batch = 2;
    settings.fit.learning_rate = Some(1e-2);
    settings
}

pub fn lora() -> Option<FreshAdapter> {
    keys(json!({"r": 2, "lora_alpha": 4, "lora_dropout": 0.2}))
}

/// From three triplets in each of four maps to one on average.
pub fn ada_lora() -> Option<FreshAdapter> {
    keys(json!({
        "peft_type": "ADALORA", "init_r": 3, "target_r": 1, "tinit": 1, "tfinal": 2, "lora_alpha": 4,
        "lora_dropout": 0.2, "target_modules": ["q_proj", "v_proj"],
    }))
}

pub fn quiet(settings: &Settings, resume: bool, stop_at: usize) -> Result<Outcome> {
    run(settings, resume, &ProgressBar::hidden(), &|step| {
        step == stop_at
    })
}

pub fn whole(settings: &Settings) -> Summary {
    match quiet(settings, false, 0).unwrap() {
        Outcome::Done(summary) => *summary,
        stopped => panic!("{stopped}"),
    }
}

/// The bytes of all results that do not depend on time or place.
pub fn results(out: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for name in ["metrics.jsonl", "curves.svg"] {
        all.insert(name.to_string(), fs::read(out.join(name)).unwrap());
    }
    for folder in ["adapter", "model", "checkpoints/step-000009"] {
        for entry in fs::read_dir(out.join(folder)).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_file() && name != "state.json" {
                all.insert(format!("{folder}/{name}"), fs::read(&path).unwrap());
            }
        }
    }
    all
}

pub fn same(one: &Path, other: &Path, what: &str) {
    let (one, other) = (results(one), results(other));
    assert_eq!(
        one.keys().collect::<Vec<_>>(),
        other.keys().collect::<Vec<_>>(),
        "{what}"
    );
    assert!(one.len() >= 6, "{what}: {:?}", one.keys());
    for (name, bytes) in &one {
        assert!(bytes == &other[name], "{what}: {name} differs");
    }
}

pub fn steps(out: &Path) -> Vec<String> {
    let entries = fs::read_dir(out.join("checkpoints")).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Stopped after step 6; or killed there, in the middle of writing a checkpoint and a line.
#[test]
fn a_run_goes_on_to_the_same_bytes() {
    for (objective, adapter) in [
        (Learned::Sft, None),
        (Learned::Sft, lora()),
        (Learned::Sft, ada_lora()),
        (Learned::Dpo, lora()),
        (Learned::Dpo, None),
        (Learned::Reward, lora()),
        (Learned::Kto, lora()),
        (Learned::Bco, lora()),
        (Learned::Bco, None),
        (Learned::Reward, None),
    ] {
        let what = format!("{objective}, {adapter:?}");
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let of = |name: &str| tiny(objective, adapter.clone(), &at(name));
        whole(&of("whole"));
        assert_eq!(
            steps(&at("whole")),
            ["step-000008", "step-000009"],
            "{what}"
        );

        let stopped = quiet(&of("stopped"), false, 6).unwrap();
        assert!(
            matches!(stopped, Outcome::Stopped { step: 6, of: 9, .. }),
            "{what}"
        );
        assert!(!at("stopped").join("curves.svg").exists());
        let Outcome::Done(summary) = quiet(&of("stopped"), true, 0).unwrap() else {
            panic!("{what}: not done");
        };
        assert_eq!(summary.resumed_at, 6);
        same(&at("whole"), &at("stopped"), &what);

        quiet(&of("killed"), false, 6).unwrap();
        let checkpoints = at("killed").join("checkpoints");
        let (sixth, part) = (
            checkpoints.join("step-000006"),
            checkpoints.join("step-000006.partial"),
        );
        fs::rename(&sixth, &part).unwrap();
        fs::remove_file(part.join("state.json")).unwrap();
        let metrics = at("killed").join("metrics.jsonl");
        let text = fs::read_to_string(&metrics).unwrap() + "{\"split\":\"tr";
        fs::write(&metrics, text).unwrap();
        let Outcome::Done(summary) = quiet(&of("killed"), true, 0).unwrap() else {
            panic!("{what}: not done");
        };
        assert_eq!(summary.resumed_at, 4);
        same(&at("whole"), &at("killed"), &what);
        assert_eq!(
            steps(&at("killed")),
            ["step-000008", "step-000009"],
            "{what}"
        );
    }
}

/// What was written is what was trained.
#[test]
fn the_results_load_again() {
    let dir = tempfile::tempdir().unwrap();
    let (full, adapted) = (dir.path().join("full"), dir.path().join("adapted"));
    let summary = whole(&tiny(Learned::Sft, None, &full));
    assert_eq!(summary.trained_parameters, summary.model_parameters);
    let trained = Decoder::load(full.join("model"), &Load::default()).unwrap();
    let start = Decoder::load(golden("model"), &Load::default()).unwrap();
    let weights = |decoder: &Decoder| {
        let q = decoder.state_dict()["model.layers.0.self_attn.q_proj.weight"].clone();
        q.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    assert_ne!(weights(&trained), weights(&start));
    // the same rows have the same loss under what was written
    let mut again = tiny(Learned::Sft, None, &dir.path().join("again"));
    again.model = full.join("model");
    again.fit.max_steps = Some(1);
    let (before, after) = (whole(&again).before.unwrap(), summary.after.unwrap());
    assert_eq!(before.loss, after.loss);

    let summary = whole(&tiny(Learned::Reward, lora(), &adapted));
    assert!(summary.trained_parameters < summary.model_parameters);
    let mut settings = tiny(Learned::Reward, None, &dir.path().join("on"));
    settings.adapter_dir = Some(adapted.join("adapter"));
    settings.fit.max_steps = Some(1);
    let (before, after) = (whole(&settings).before.unwrap(), summary.after.unwrap());
    assert_eq!(before.accuracy, after.accuracy);
    assert_eq!(before.loss, after.loss);
    let base = Decoder::load(golden("model"), &Load::default()).unwrap();
    let rng = &mut <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(0);
    let mut classifier = base.into_classifier(1, rng).unwrap();
    let left_out = classifier.load_adapter("default", adapted.join("adapter"), Strictness::Strict);
    assert!(left_out.unwrap().is_empty());
}

/// Rows of which nothing is predicted, alone in a pass: their loss is 0 and their gradient too.
#[test]
fn a_row_of_one_token_has_no_loss() {
    for most in [None, Some(4)] {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("rows.jsonl");
        let texts = ["", "t3 t4 t5", "", "", "t6 t7"];
        let row = |text: &&str| json!({ "text": text }).to_string() + "\n";
        fs::write(&data, texts.iter().map(row).collect::<String>()).unwrap();
        let mut settings = tiny(Learned::Sft, None, &dir.path().join("out"));
        settings.data = data;
        settings.held_out = 0.0;
        settings.eval_every = 0;
        settings.fit.order = train::checkpoint::order::Order::Sequential;
        settings.fit.max_steps = Some(5);
        (settings.fit.batch, settings.fit.max_tokens) = match most {
            None => (1, None),
            most => (5, most),
        };
        whole(&settings);
        let metrics = fs::read_to_string(dir.path().join("out/metrics.jsonl")).unwrap();
        let steps = metrics
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let norms: Vec<f64> = steps
            .filter_map(|step| step["grad_norm"].as_f64())
            .collect();
        let zero: Vec<bool> = norms.iter().map(|norm| *norm == 0.0).collect();
        let expected = match most {
            None => [true, false, true, true, false],
            Some(_) => [false; 5],
        };
        assert_eq!(zero, expected, "{norms:?}");
    }
}

/// As TRL's reward trainer, which writes the tokenizer's padding token into the model's settings.
#[test]
fn a_text_is_scored_before_the_padding_token_of_the_tokenizer() {
    let dir = tempfile::tempdir().unwrap();
    let ran = |name: &str, in_config: Value, in_tokenizer: bool| {
        let model = dir.path().join(name);
        fs::create_dir_all(&model).unwrap();
        for file in fs::read_dir(golden("model")).unwrap() {
            let path = file.unwrap().path();
            fs::copy(&path, model.join(path.file_name().unwrap())).unwrap();
        }
        let change = |file: &str, change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
            let path = model.join(file);
            let mut json = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            change(&mut json);
            fs::write(path, serde_json::to_vec(&json).unwrap()).unwrap();
        };
        change("config.json", &|json| {
            json.insert("pad_token_id".into(), in_config.clone());
        });
        if !in_tokenizer {
            change("tokenizer_config.json", &|json| {
                json.remove("pad_token");
            });
        }
        let mut settings = tiny(Learned::Reward, None, &dir.path().join(name).join("out"));
        settings.model = model;
        let loss = whole(&settings).after.unwrap().loss;
        let written = fs::read(dir.path().join(name).join("out/model/config.json")).unwrap();
        let written: Value = serde_json::from_slice(&written).unwrap();
        (loss, written["pad_token_id"].clone())
    };
    let padded = ran("padded", json!(0), true);
    assert_eq!(padded.1, json!(0));
    assert_eq!(ran("none", json!(null), true), padded);
    // the row of the embedding that does not learn is another one then
    assert_eq!(ran("other", json!(5), true).1, json!(0));
    // without a padding token the end token is it, and the token before the end is scored
    let ended = ran("ended", json!(2), false);
    assert_eq!(ended.1, json!(2));
    assert_ne!(ended.0, padded.0);
    assert_eq!(ran("nothing", json!(null), false), ended);
}

/// The reference of DPO is a copy of the adapter that the run goes on from: both agree at first.
#[test]
fn dpo_goes_on_from_an_adapter_that_is_its_reference() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = tiny(Learned::Dpo, None, dir.path());
    settings.adapter_dir = Some(golden("adapter"));
    let summary = whole(&settings);
    let before = summary.before.unwrap();
    assert!((before.loss - 2f64.ln()).abs() < 1e-6, "{before:?}");
    assert_eq!((before.accuracy, before.margin), (Some(0.5), Some(0.0)));
    assert_ne!(summary.after.unwrap().margin, Some(0.0));
}

#[test]
fn held_out_prompts_are_not_trained_on() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("rows.jsonl");
    let row = |i: usize, answer: usize| {
        let row = json!({
            "prompt": format!("t{} t{}", 3 + i, 4 + i),
            "completion": format!(" t{answer}"),
        });
        row.to_string() + "\n"
    };
    let rows: String = (0..10)
        .flat_map(|i| (5..8).map(move |answer| row(i, answer)))
        .collect();
    fs::write(&data, rows).unwrap();
    let mut settings = tiny(Learned::Sft, None, dir.path());
    settings.data = data;
    let (decoder, _) = load::start(&settings).unwrap();
    let prompts = |objective: &Objective| -> Vec<Vec<u32>> {
        let Objective::Texts(texts) = objective else {
            panic!("not of SFT");
        };
        texts
            .rows
            .iter()
            .map(|text: &Text| text.ids[..2].to_vec())
            .collect()
    };
    let mut splits = Vec::new();
    for seed in [1, 2] {
        settings.seed(seed);
        let rows = prepare(&settings, &decoder, Default::default()).unwrap();
        let held_out = rows.held_out.unwrap();
        let (train, held) = (prompts(&rows.train), prompts(&held_out.rows));
        // a quarter of ten prompts, three rows each
        assert_eq!((train.len(), held.len(), held_out.prompts()), (21, 9, 3));
        assert!(held.iter().all(|prompt| !train.contains(prompt)));
        splits.push((held, rows.fingerprint));
    }
    assert_ne!(splits[0], splits[1]);
}

#[test]
fn cut_and_dropped_rows_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = tiny(Learned::Dpo, lora(), dir.path());
    settings.max_length = Some(5);
    let summary = whole(&settings);
    // prompts of five or six words leave no room for an answer
    assert_eq!((summary.rows.rows, summary.rows.kept), (12, 6));
    assert_eq!(summary.rows.long_prompts, 6);
    assert!(summary.rows.cut > 0 && summary.rows.tokens_cut >= summary.rows.cut);
    let text = summary.to_string();
    assert!(text.contains("6 of 12 rows"), "{text}");
    let written = fs::read_to_string(dir.path().join("summary.json")).unwrap();
    let written: Value = serde_json::from_str(&written).unwrap();
    assert_eq!(written["rows"]["long_prompts"], 6);
}

#[test]
fn a_run_that_would_not_go_on_as_it_began_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let settings = tiny(Learned::Dpo, lora(), dir.path());
    quiet(&settings, false, 4).unwrap();
    let refused = |settings: &Settings, resume: bool, problem: &str| {
        let error = quiet(settings, resume, 0).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    };
    refused(
        &settings,
        false,
        "step-000004: is step 4 of an earlier run: say --resume",
    );
    let mut other = settings.clone();
    other.fit.batch = 3;
    refused(
        &other,
        true,
        "--resume: `fit.batch` is 3, and was 2 until step 4",
    );
    let mut other = settings.clone();
    other.adapter = keys(json!({"r": 4}));
    refused(
        &other,
        true,
        "--resume: `adapter.lora_alpha` is null, and was 4 until step 4",
    );
    // other rows under the same name
    let data = dir.path().join("rows.jsonl");
    let text = fs::read_to_string(golden("rows.jsonl")).unwrap();
    let mut moved = tiny(Learned::Dpo, lora(), &dir.path().join("moved"));
    moved.data = data.clone();
    fs::write(&data, &text).unwrap();
    quiet(&moved, false, 4).unwrap();
    fs::write(&data, text.replacen("t17", "t19", 1)).unwrap();
    refused(
        &moved,
        true,
        "the rows are not those of the run that wrote it",
    );
    fs::write(&data, &text).unwrap();
    // another model under the same name, or another adapter's settings
    let model = dir.path().join("model");
    fs::create_dir(&model).unwrap();
    for entry in fs::read_dir(golden("model")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, model.join(path.file_name().unwrap())).unwrap();
    }
    let adapter = dir.path().join("adapter.json");
    let text_of = |alpha: usize| {
        json!({"peft_type": "LORA", "r": 2, "lora_alpha": alpha, "target_modules": "all-linear"})
            .to_string()
    };
    fs::write(&adapter, text_of(4)).unwrap();
    let mut other = tiny(Learned::Dpo, None, &dir.path().join("other"));
    other.adapter = Some(FreshAdapter::File(adapter.clone()));
    other.model = model.clone();
    quiet(&other, false, 4).unwrap();
    fs::write(&adapter, text_of(8)).unwrap();
    refused(
        &other,
        true,
        "`adapter` is not the file that the run began with",
    );
    fs::write(&adapter, text_of(4)).unwrap();
    let weights = model.join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    let mut changed = bytes.clone();
    *changed.last_mut().unwrap() ^= 1;
    fs::write(&weights, &changed).unwrap();
    refused(
        &other,
        true,
        "`model/model.safetensors` is not the file that the run began with",
    );
    fs::write(&weights, &bytes).unwrap();
    assert!(matches!(quiet(&other, true, 0).unwrap(), Outcome::Done(_)));
    // a checkpoint that lost a file is an error, and is left alone
    let optimizer = dir
        .path()
        .join("moved/checkpoints/step-000004/optimizer.safetensors");
    let bytes = fs::read(&optimizer).unwrap();
    fs::write(&optimizer, &bytes[..bytes.len() / 2]).unwrap();
    refused(&moved, true, "optimizer.safetensors");
    fs::write(&optimizer, &bytes).unwrap();
    // how often and how many checkpoints are kept may change
    moved.save_every = 0;
    moved.keep_last = 1;
    assert!(matches!(quiet(&moved, true, 0).unwrap(), Outcome::Done(_)));
    assert_eq!(steps(&dir.path().join("moved")), ["step-000009"]);
}

#[test]
fn settings_that_make_no_sense_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    // the run's own would be beside it
    let config = dir.path().join("settings.json");
    let (model, data) = (golden("model"), golden("rows.jsonl"));
    let says = |arguments: &[&str], problem: &str| {
        let (model, data) = (model.to_str().unwrap(), data.to_str().unwrap());
        let start = [
            "train",
            "--model",
            model,
            "--data",
            data,
            "--out",
            dir.path().to_str().unwrap(),
        ];
        let arguments = Arguments::parse_from(start.iter().chain(arguments));
        let result = arguments.asked().and_then(|asked| match asked {
            Asked::Checkpoint { settings, resume } => quiet(&settings, resume, 0),
            Asked::Small(_) => panic!("the small model"),
            Asked::Evaluation(_) => panic!("an evaluation"),
        });
        let error = result.unwrap_err().to_string();
        assert!(error.contains(problem), "{problem}: {error}");
    };
    fs::write(&config, r#"{"fit": {"max_step": 3}}"#).unwrap();
    let path = config.to_str().unwrap();
    says(
        &["--config", path],
        "settings.json: unknown field `max_step`, expected",
    );
    says(&["--config", path], "in `fit`");
    says(
        &["--set", "beta=1"],
        "--set beta=1: there is no setting `beta`",
    );
    says(&["--set", "dpo.beta=-1"], "beta");
    says(&["--set", "adapter.rank=4"], "rank");
    let adalora = [
        "--set",
        "adapter.peft_type=ADALORA",
        "--set",
        "adapter.total_step=10",
    ];
    says(
        &adalora,
        "the adapter's `total_step` is 10, and the run has 100 steps",
    );
    let pruned = [
        "--set",
        "adapter.peft_type=ADALORA",
        "--set",
        r#"adapter.rank_pattern={"q_proj.lora_E": [true]}"#,
    ];
    says(&pruned, "a fresh adapter has all");
    let greedy = [
        "--set",
        "adapter.peft_type=ADALORA",
        "--set",
        "adapter.target_r=13",
    ];
    says(&greedy, "`target_rank` asks for");
    says(
        &["--set", "fit.max_tokens=0"],
        "`fit.max_tokens` must be at least 1, got 0",
    );
    says(
        &[
            "--objective",
            "reward",
            "--set",
            "precompute_ref_log_probs=true",
        ],
        "`precompute_ref_log_probs` is true, and `reward` has no reference",
    );
    says(
        &["--set", "ref_log_probs_dir=x"],
        "`ref_log_probs_dir` needs `precompute_ref_log_probs` = true",
    );
    says(
        &["--set", r#"adapter.rank_pattern={"q": 2, "q": 3}"#],
        "the key `q` is there twice",
    );
    says(
        &["--set", "adapter.rank_pattern=3"],
        "an object of expressions and numbers",
    );
    says(
        &["--set", "adapter.task_type=SEQ_CLS"],
        "the adapter's `task_type` must be CAUSAL_LM for `dpo`",
    );
    says(
        &["--objective", "self_debug"],
        "self_debug needs answers marked right or wrong, and no row has an `is_correct` (pair: 12)",
    );
    says(
        &["--base", "x"],
        "--base is for the small model; with --model, use --model DIR",
    );
    says(&["--max-length", "0"], "`max_length` must be at least 1");
    says(&["--steps", "0"], "`fit.max_steps` must be at least 1");
    says(&["--batch", "0"], "`batch` must be at least 1");
    says(&["--set", "keep_last=0"], "`keep_last` must be at least 1");
    says(
        &["--set", "held_out=1"],
        "`held_out` must be in [0, 1), got 1",
    );
    says(
        &["--set", "now=noon"],
        "`now` must be a time as 2026-01-31T12:00:00, got noon",
    );
    says(&["--set", "dtype=bf16"], "train in f32");
    says(
        &["--set", "dtype=int4"],
        "unknown variant `int4`, expected one of `f32`, `bf16`, `nf4`",
    );
    let small = Arguments::parse_from(["train", "--resume"]);
    assert_eq!(
        small.asked().unwrap_err().to_string(),
        "--resume needs --model"
    );
    // a row that the model cannot take is named before the first step
    let long = dir.path().join("long.jsonl");
    let word = |n: usize| vec!["t5"; n].join(" ");
    let row = json!({"prompt": word(60), "chosen": format!(" {}", word(9)), "rejected": " t6"});
    fs::write(&long, format!("{row}\n")).unwrap();
    let long = long.to_str().unwrap();
    let problem = "long.jsonl:1: has 70 tokens, and the model was made for 64; set `max_length`";
    says(&["--set", &format!("data={long}")], problem);
    // virtual tokens take places too
    let row = json!({"prompt": word(40), "chosen": format!(" {}", word(9)), "rejected": " t6"});
    fs::write(long, format!("{row}\n")).unwrap();
    let problem = "long.jsonl:1: has 50 tokens, and the model was made for 64, of which the adapter's virtual \
                   tokens take 20; set `max_length` to 44 or less";
    let sets = [
        &format!("data={long}"),
        "adapter.peft_type=PROMPT_TUNING",
        "adapter.num_virtual_tokens=20",
        "adapter.token_dim=16",
    ];
    says(&sets.map(|set| ["--set", set]).concat(), problem);
}
