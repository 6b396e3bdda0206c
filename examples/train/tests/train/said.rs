//! What a run says: notices and progress as plain lines, and what is refused with a remedy.

use super::objectives::model as bytes_model;
use super::online;
use super::whole_runs::{golden, keys, lora, tiny};
use candle_align::decoder::{Decoder, Load};
use candle_core::{Device, Tensor};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use train::checkpoint::load;
use train::checkpoint::other_base::{is_same, other_base};
use train::checkpoint::run::run;
use train::checkpoint::settings::{FreshAdapter, Learned, Settings, Storage};
use train::checkpoint::summary::Outcome;
use train::error::Result;
use train::progress::{Lines, Progress, progress};

/// The lines of a run without a terminal.
fn said_in(settings: &Settings, resume: bool, every: Duration) -> (Result<Outcome>, Vec<String>) {
    let lines = Lines::new(Vec::new(), every);
    let outcome = run(settings, resume, &lines, &|_| false);
    let text = String::from_utf8(lines.into_inner()).unwrap();
    (outcome, text.lines().map(str::to_string).collect())
}

fn said(settings: &Settings) -> Vec<String> {
    let (outcome, lines) = said_in(settings, false, Duration::ZERO);
    outcome.unwrap();
    lines
}

fn refused(settings: &Settings) -> String {
    let (outcome, _) = said_in(settings, false, Duration::ZERO);
    let error = outcome.unwrap_err().to_string();
    for file in ["config.json", "metrics.jsonl", "summary.json"] {
        assert!(!settings.out().join(file).exists(), "{file}: {error}");
    }
    error
}

fn summary(settings: &Settings) -> Value {
    let text = fs::read_to_string(settings.out().join("summary.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn holds(lines: &[String], text: &str) {
    assert!(
        lines.iter().any(|line| line.contains(text)),
        "{text}: {lines:#?}"
    );
}

#[test]
fn without_a_terminal_notices_and_steps_are_lines() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = tiny(Learned::Dpo, None, dir.path());
    settings.held_out_file = Some(golden("rows.jsonl"));
    settings.fit.max_tokens = Some(1);
    settings.precompute_ref_log_probs = true;
    settings.ref_log_probs_dir = Some(dir.path().join("reference"));
    let (outcome, lines) = said_in(&settings, true, Duration::ZERO);
    let report = outcome.unwrap().to_string();
    holds(&lines, "has no checkpoint: the run begins");
    holds(&lines, "rows.jsonl: 12 of 12 rows");
    holds(&lines, ": computed, and kept in ");
    let overlap = "12 held-out prompts are also trained on";
    let long =
        "12 of 12 rows have more than `fit.max_tokens` tokens: each goes through the model alone";
    for notice in [overlap, long] {
        holds(&lines, notice);
        assert!(
            report.contains(&format!("\n  notice    {notice}\n")),
            "{report}"
        );
    }
    assert_eq!(summary(&settings)["notices"], json!([overlap, long]));
    assert_eq!(summary(&settings)["held_out_report"]["kept"], 12);
    let steps: Vec<&String> = lines.iter().filter(|l| l.starts_with("step ")).collect();
    assert_eq!(steps.len(), 9, "{lines:#?}");
    for (at, step) in steps.iter().enumerate() {
        let begins = format!("step {} of 9: loss ", at + 1);
        assert!(
            step.starts_with(&begins) && step.contains(" tokens/s"),
            "{step}"
        );
        assert_eq!(step.ends_with(" left"), at < 8, "{step}");
    }
    // a damaged file is said too
    let kept = fs::read_dir(dir.path().join("reference")).unwrap().next();
    fs::write(kept.unwrap().unwrap().path(), "no tensors").unwrap();
    settings.out = Some(dir.path().join("again"));
    holds(&said(&settings), "was damaged");
}

/// A line at the beginning and at the end, whatever the time between two is.
#[test]
fn the_first_and_the_last_step_are_always_said() {
    let dir = tempfile::tempdir().unwrap();
    let settings = tiny(Learned::Dpo, None, dir.path());
    let (outcome, lines) = said_in(&settings, false, Duration::MAX);
    outcome.unwrap();
    let steps = lines.iter().filter_map(|line| line.split(':').next());
    let steps: Vec<&str> = steps.filter(|line| line.starts_with("step ")).collect();
    assert_eq!(steps, ["step 1 of 9", "step 9 of 9"]);
}

#[test]
fn control_characters_are_written_as_text() {
    let lines = Lines::new(Vec::new(), Duration::ZERO);
    lines.say("a\u{1b}[2K\rb\nc");
    let text = String::from_utf8(lines.into_inner()).unwrap();
    assert_eq!(text, "a\\u{1b}[2K\\rb\\nc\n");
}

const CHILD: &str = "TRAIN_TEST_SAYS";

/// Another test starts it as a process, whose stderr is a pipe.
#[test]
fn child_that_says() {
    let Some(out) = std::env::var_os(CHILD).map(PathBuf::from) else {
        return;
    };
    let settings = tiny(Learned::Dpo, None, &out);
    // only rank 0 writes files, and only it speaks
    for speaks in [false, true] {
        let progress = progress(speaks);
        progress.say(&format!("speaks: {speaks}"));
        if speaks {
            run(&settings, false, &*progress, &|_| false).unwrap();
        }
    }
}

#[test]
fn a_process_without_a_terminal_says_them_on_stderr() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["said::child_that_says", "--exact", "--nocapture"])
        .env(CHILD, dir.path().join("out"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<String> = text.lines().map(str::to_string).collect();
    holds(&lines, "rows.jsonl: 12 of 12 rows");
    holds(&lines, "step 9 of 9: loss ");
    assert!(
        text.contains("speaks: true") && !text.contains("speaks: false"),
        "{text}"
    );
    let controls: Vec<char> = text
        .chars()
        .filter(|c| c.is_control() && *c != '\n')
        .collect();
    assert_eq!(controls, [], "{text:?}");
}

#[cfg(unix)]
#[test]
fn rewards_that_judge_nothing_are_said() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("judge.sh");
    fs::write(&script, "while read -r line; do echo null; done").unwrap();
    let reward = json!([{"command": {"program": "sh", "arguments": [script]}}]);
    let of = format!("online.rewards={reward}");
    let settings = online::tiny(Learned::Grpo, &dir.path().join("out"), &[&of]);
    let (outcome, lines) = said_in(&settings, false, Duration::ZERO);
    holds(
        &lines,
        "step 1: no reward judged an answer, so there is nothing to learn from",
    );
    let notice = "no reward judged an answer in any of the 6 steps: nothing was learned";
    holds(&lines, notice);
    assert!(outcome.unwrap().to_string().contains(notice));
    assert_eq!(summary(&settings)["notices"], json!([notice]));
    // one answer that is judged is enough
    let settings = online::tiny(Learned::Grpo, &dir.path().join("judged"), &[]);
    assert!(
        !said(&settings)
            .iter()
            .any(|line| line.contains("no reward judged"))
    );
    assert_eq!(summary(&settings)["notices"], json!([]));
}

/// A copy of the adapter that names another base.
fn adapter(from: &str, base: Value, to: &Path) -> PathBuf {
    online::copy(&golden(from), to);
    let path = to.join("adapter_config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    config["base_model_name_or_path"] = base;
    fs::write(&path, config.to_string()).unwrap();
    to.to_path_buf()
}

#[test]
fn an_adapter_of_another_model_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let model = golden("model");
    let of = |name: &str, base: Value| {
        let mut settings = tiny(Learned::Dpo, None, &dir.path().join(format!("out-{name}")));
        settings.adapter_dir = Some(adapter("adapter", base, &dir.path().join(name)));
        settings
    };
    let settings = of("other", json!("org/Other-1B"));
    let notice = format!(
        "{}: made for `org/Other-1B`, and used on {}: nothing but the shapes says that it fits",
        dir.path().join("other").display(),
        model.display()
    );
    holds(&said(&settings), &notice);
    assert_eq!(summary(&settings)["notices"], json!([notice]));
    for (name, base) in [("none", Value::Null), ("same", json!("org/model"))] {
        assert!(
            !said(&of(name, base))
                .iter()
                .any(|line| line.contains("made for")),
            "{name}"
        );
    }
    // that of a reward
    let folder = adapter(
        "reward_adapter",
        json!("org/Other-1B"),
        &dir.path().join("reward"),
    );
    let reward = format!(
        r#"online.rewards=[{{"reward_model": {{"folder": "{}"}}}}]"#,
        folder.display()
    );
    let settings = online::tiny(Learned::Grpo, &dir.path().join("out-reward"), &[&reward]);
    holds(&said(&settings), "reward: made for `org/Other-1B`");
    // and settings that were copied from another model's: what is written names the model that was trained
    let fresh = keys(json!({"r": 2, "base_model_name_or_path": "org/Other-1B"}));
    let settings = tiny(Learned::Dpo, fresh, &dir.path().join("out-fresh"));
    holds(&said(&settings), "adapter: made for `org/Other-1B`");
    let written = fs::read_to_string(settings.out().join("adapter/adapter_config.json")).unwrap();
    let written: Value = serde_json::from_str(&written).unwrap();
    assert_eq!(
        written["base_model_name_or_path"],
        json!(model.display().to_string())
    );
}

#[test]
fn names_of_one_model_are_equal() {
    let dir = tempfile::tempdir().unwrap();
    let (own, cache) = (
        dir.path().join("SmolLM2-135M-Instruct"),
        dir.path()
            .join("models--HuggingFaceTB--SmolLM2-135M-Instruct/snapshots/12fd25f"),
    );
    fs::create_dir_all(&own).unwrap();
    fs::create_dir_all(&cache).unwrap();
    let hub = "HuggingFaceTB/SmolLM2-135M-Instruct";
    for model in [&own, &cache, &own.join(".")] {
        for name in [
            hub,
            "SmolLM2-135M-Instruct",
            "elsewhere/SmolLM2-135M-Instruct/",
            own.to_str().unwrap(),
            cache.to_str().unwrap(),
        ] {
            assert!(is_same(name, model), "{name} on {}", model.display());
            assert_eq!(other_base(dir.path(), Some(name), model), None);
        }
        for name in ["HuggingFaceTB/SmolLM2-135M", "/tmp/other", "12fd25"] {
            assert!(!is_same(name, model), "{name} on {}", model.display());
        }
        assert_eq!(other_base(dir.path(), None, model), None);
        assert_eq!(other_base(dir.path(), Some(""), model), None);
    }
    #[cfg(unix)]
    {
        let link = dir.path().join("base");
        std::os::unix::fs::symlink(&own, &link).unwrap();
        assert!(is_same(hub, &link) && is_same(link.to_str().unwrap(), &own));
    }
}

#[test]
fn a_file_of_adapter_settings_is_read_as_keys_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("adapter.json");
    let config = |adapter: Option<FreshAdapter>| {
        let mut settings = tiny(Learned::Dpo, adapter, dir.path());
        settings.fit.max_steps = Some(40);
        let (decoder, _) = load::start(&settings).unwrap();
        decoder.adapter_config(load::TRAINED).unwrap().clone()
    };
    for given in [
        json!({"r": 4}),
        json!({"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"]}),
        json!({"peft_type": "ADALORA", "init_r": 3, "target_r": 1, "tinit": 1, "tfinal": 2}),
        json!({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3, "token_dim": 16, "num_layers": 2,
            "num_attention_heads": 4, "num_transformer_submodules": 1}),
    ] {
        fs::write(&path, given.to_string()).unwrap();
        let of_file = config(Some(FreshAdapter::File(path.clone())));
        assert_eq!(of_file, config(keys(given.clone())), "{given}");
    }
    // in a pattern the first match counts
    let pattern = r#"{"r": 2, "rank_pattern": {"q_proj": 4, "layers.*": 3}}"#;
    fs::write(&path, pattern).unwrap();
    let of_keys = FreshAdapter::parse(pattern).unwrap();
    assert_eq!(
        config(Some(FreshAdapter::File(path.clone()))),
        config(of_keys)
    );
    // what is wrong is said of the file
    for (text, problem) in [
        (r#"{"r": 4, "rr": 1}"#, "holds `rr`"),
        (r#"{"r": 4"#, "EOF while parsing an object"),
        (r#"{"peft_type": "SOME"}"#, "SOME"),
    ] {
        fs::write(&path, text).unwrap();
        let file = Some(FreshAdapter::File(path.clone()));
        let error = refused(&tiny(Learned::Dpo, file, &dir.path().join("out")));
        assert!(error.contains(problem), "{error}");
        assert!(error.contains(&path.display().to_string()), "{error}");
    }
}

#[test]
fn the_small_models_form_of_an_adapter_is_refused_with_the_other_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lora.json");
    for (text, name) in [
        (r#"{"lora": {"rank": 4}}"#, "lora"),
        (r#"{"method": {"ia3": {}}, "lora_plus": 16}"#, "method"),
        (r#""bit_fit""#, "bit_fit"),
    ] {
        fs::write(&path, text).unwrap();
        let file = Some(FreshAdapter::File(path.clone()));
        let error = refused(&tiny(Learned::Dpo, file, &dir.path().join("out")));
        let want = format!(
            "{}: holds `{name}`, the form of the small model; with --model these are the keys of PEFT's \
             `adapter_config.json`, such as {{\"peft_type\": \"LORA\", \"r\": 8, \"lora_alpha\": 16}}",
            path.display()
        );
        assert_eq!(error, want);
    }
    let error = refused(&tiny(
        Learned::Dpo,
        keys(json!({"lora": {"rank": 4}})),
        &dir.path().join("out"),
    ));
    assert!(
        error.starts_with("adapter: holds `lora`, the form of"),
        "{error}"
    );
}

#[test]
fn a_reward_model_is_no_language_model() {
    let dir = tempfile::tempdir().unwrap();
    for objective in [Learned::Sft, Learned::Dpo, Learned::Kto, Learned::Pro] {
        let mut settings = tiny(Learned::Dpo, lora(), &dir.path().join("out"));
        (settings.objective, settings.model) = (objective, golden("reward"));
        let want = format!(
            "{}: is a reward model, with the head `score.weight`, and `{objective}` needs a language model: give the \
             folder of the model that it was made from",
            golden("reward").display()
        );
        let error = refused(&settings);
        assert!(error.starts_with(&want), "{error}");
    }
    let mut settings = tiny(Learned::Dpo, None, &dir.path().join("out"));
    settings.adapter_dir = Some(golden("reward_adapter"));
    let error = refused(&settings);
    let want = "is the adapter of a reward model, `task_type` SEQ_CLS, and `dpo` needs one of a language model";
    assert!(error.contains(want), "{error}");
    let mut settings = tiny(Learned::Sft, None, &dir.path().join("out"));
    (settings.objective, settings.teacher) = (Learned::Gkd, Some(golden("reward")));
    let error = refused(&settings);
    assert!(
        error.contains("a teacher needs a language model"),
        "{error}"
    );
}

/// A copy of a model with another number at one place of a tensor.
fn damaged(name: &str, number: f32, to: &Path) -> PathBuf {
    let from = bytes_model(1, None);
    online::copy(from.path(), to);
    let path = to.join("model.safetensors");
    let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    let old = &tensors[name];
    let mut all = old.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    all[5] = number;
    let new = Tensor::from_vec(all, old.dims(), &Device::Cpu).unwrap();
    tensors.insert(name.to_string(), new);
    candle_core::safetensors::save(&tensors, &path).unwrap();
    to.to_path_buf()
}

#[test]
fn a_weight_that_is_no_number_is_named_with_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let names = [
        "model.layers.0.mlp.up_proj.weight",
        // a token that no row has
        "model.embed_tokens.weight",
    ];
    for name in names {
        for (number, shown) in [
            (f32::NAN, "NaN"),
            (f32::INFINITY, "inf"),
            (-f32::INFINITY, "-inf"),
        ] {
            let folder = damaged(name, number, &dir.path().join("model"));
            for (adapter, dtype) in [
                (None, Storage::F32),
                (lora(), Storage::F32),
                (lora(), Storage::Bf16),
                (lora(), Storage::Nf4),
            ] {
                let mut settings = tiny(Learned::Dpo, adapter, &dir.path().join("out"));
                (settings.model, settings.dtype) = (folder.clone(), dtype);
                let want = format!(
                    "{}: holds `{name}`, with {shown} at flat position 5: no step can learn from such weights",
                    folder.join("model.safetensors").display()
                );
                assert_eq!(refused(&settings), want, "{dtype:?}");
            }
        }
    }
    // a sum that overflows says nothing about its parts
    let folder = damaged(names[0], f32::MAX, &dir.path().join("large"));
    let mut large =
        candle_core::safetensors::load(folder.join("model.safetensors"), &Device::Cpu).unwrap();
    let size = large[names[0]].dims().to_vec();
    large.insert(
        names[0].to_string(),
        Tensor::full(f32::MAX, size, &Device::Cpu).unwrap(),
    );
    candle_core::safetensors::save(&large, folder.join("model.safetensors")).unwrap();
    train::checkpoint::sound::load(&folder, &Load::default()).unwrap();
}

/// As Transformers' Auto classes: `model_type` decides.
#[test]
fn the_name_of_a_class_beside_a_known_kind_of_model_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    online::copy(&golden("model"), dir.path());
    let path = dir.path().join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    config["architectures"] = json!(["FooForCausalLM"]);
    fs::write(&path, config.to_string()).unwrap();
    let of = |folder: &Path| Decoder::load(folder, &Load::default()).unwrap();
    let [other, own] = [dir.path(), &golden("model")].map(|folder| of(folder).config().family);
    assert_eq!(other, own);
    config["model_type"] = json!("foo");
    fs::write(&path, config.to_string()).unwrap();
    let error = Decoder::load(dir.path(), &Load::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("model_type") && error.contains("llama"),
        "{error}"
    );
}

#[test]
fn schedules_are_listed_where_another_is_refused() {
    let error = Settings::default().with("fit.lr_scheduler_type=greedy");
    let error = error.unwrap_err().to_string();
    for kind in [
        "linear",
        "cosine",
        "constant",
        "polynomial",
        "warmup_stable_decay",
    ] {
        assert!(error.contains(&format!("`{kind}`")), "{error}");
    }
}

#[test]
fn the_help_says_the_default_objective_and_the_kinds_of_models() {
    let help = <train::Arguments as clap::CommandFactory>::command().render_long_help();
    let help = help.to_string();
    assert!(
        help.contains("those that came after it [default: dpo]"),
        "{help}"
    );
    assert!(
        help.contains("(Llama, Mistral, Qwen, Gemma, Phi-3)"),
        "{help}"
    );
    assert_eq!(Settings::default().objective, Learned::Dpo);
    assert_eq!(train::settings::Settings::default().objective, Learned::Dpo);
}
