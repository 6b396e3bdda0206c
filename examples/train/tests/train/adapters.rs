//! Runs under an adapter: what is trained, what is written, and what comes back from the files.

use crate::runs::{losses, metrics, names, quiet, small, sums};
use candle_align::peft::{AdapterFile, AdapterMethod, Strictness};
use candle_core::{DType, Device, Tensor};
use clap::ValueEnum;
use indicatif::ProgressBar;
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use support::adapter_files::{Weights, put_on};
use support::adapters::AdapterSettings;
use support::transformer::{Config, Transformer};
use train::adapter::Adapter;
use train::objectives::Objective;
use train::run::{Run, train};
use train::settings::Settings;

/// Every method as JSON; those that PEFT knows come first.
const METHODS: [&str; 15] = [
    r#"{"lora": {"rank": 2, "alpha": 6}}"#,
    r#"{"lora": {"rank": 2, "alpha": 5, "scaling": "rank_sqrt", "bias": "update", "init": "gaussian",
        "rank_pattern": {"up": 3}, "targets": {"target_modules": ["attention.qkv", "up"]}}}"#,
    r#"{"qlora": {"rank": 2}}"#,
    r#"{"dora": {"rank": 2, "alpha": 6}}"#,
    r#"{"ada_lora": {"rank": 3}}"#,
    r#"{"ia3": {"targets": {"target_modules": ["qkv", "down"]}, "feedforward_modules": ["down"]}}"#,
    r#"{"vera": {"rank": 4}}"#,
    r#"{"prompt": {"length": 3}}"#,
    r#"{"prefix": {"length": 2, "reparametrization": "direct"}}"#,
    r#"{"prefix": {"length": 3, "reparametrization": {"mlp": {"inner": 8}}}}"#,
    r#""bit_fit""#,
    r#"{"adapter": {"placement": "attention_and_feed_forward", "adapter": {"width": 4}}}"#,
    r#"{"mam": {"prefix": {"length": 2}, "adapter": {"width": 4}}}"#,
    r#"{"design_space": {"per_layer": 300,
        "space": {"grouping": {"sizes": [1]}, "strategies": [["adapter", "lora"]]}}}"#,
    r#"{"design_space": {"per_layer": 300,
        "space": {"grouping": {"sizes": [1]}, "strategies": [["prefix", "bit_fit"]]}}}"#,
];
/// The number of methods that PEFT knows.
const OF_PEFT: usize = 10;

fn adapter(json: &str) -> Adapter {
    let method: AdapterSettings =
        serde_json::from_str(json).unwrap_or_else(|e| panic!("{json}: {e}"));
    method.into()
}

fn under(json: &str, objective: Objective, out: &Path) -> Settings {
    Settings {
        adapter: Some(adapter(json)),
        ..small(objective, out)
    }
}

fn trained(settings: &Settings) -> Run {
    train(settings, &ProgressBar::hidden())
        .unwrap_or_else(|e| panic!("{:?}: {e}", settings.adapter))
}

fn tokens() -> Tensor {
    let tokens: Vec<u32> = (0..48u32).map(|i| (i * 37 + 11) % 256).collect();
    Tensor::from_vec(tokens, (2, 24), &Device::Cpu).unwrap()
}

fn logits(model: &Transformer) -> Vec<f32> {
    let logits = model.forward(&tokens()).unwrap().logits;
    logits.flatten_all().unwrap().to_vec1().unwrap()
}

fn far(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let each = a
        .iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs() / b.abs().max(1.0));
    each.fold(0.0, f32::max)
}

fn tensors(path: &Path) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

/// The base that a run wrote.
fn base(out: &Path) -> Transformer {
    let config = fs::read_to_string(out.join("model.json")).unwrap();
    let config: Config = serde_json::from_str(&config).unwrap();
    let base = Transformer::load(&config, out.join("base.safetensors")).unwrap();
    base.frozen().unwrap()
}

/// With TRAINED_ADAPTERS set: the run and its logits there, for `golden/load_trained.py`.
fn leave(at: usize, out: &Path, method: &str, learned: &[f32]) {
    let Some(root) = std::env::var_os("TRAINED_ADAPTERS") else {
        return;
    };
    // a relative folder is one of the workspace, where the command is given
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let to = workspace.join(root).join(format!("{at}_{method}"));
    fs::create_dir_all(to.join("adapter")).unwrap();
    for name in [
        "model.json",
        "base.safetensors",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
    ] {
        fs::copy(out.join(name), to.join(name)).unwrap();
    }
    let tokens = tokens();
    let (batch, time) = tokens.dims2().unwrap();
    let logits = Tensor::from_slice(learned, (batch, time, 259), &Device::Cpu).unwrap();
    let tokens = tokens.to_dtype(DType::I64).unwrap();
    let both = HashMap::from([("tokens", tokens), ("logits", logits)]);
    candle_core::safetensors::save(&both, to.join("logits.safetensors")).unwrap();
}

#[test]
fn every_method_learns_on_a_base_that_stays_and_comes_back_from_its_files() {
    let mut bases = Vec::new();
    for (at, json) in METHODS.into_iter().enumerate() {
        let out = tempfile::tempdir().unwrap();
        let settings = under(json, Objective::Sft, out.path());
        let run = trained(&settings);
        run.write(&settings).unwrap();

        // it learns; the base's supervised steps came first, these steps are the adapter's
        let summary = &run.summary;
        assert_eq!((summary.sft_steps, summary.steps), (8, 12));
        assert!(
            summary.after.loss < summary.before.loss,
            "{json}: {summary}"
        );
        let own = metrics(out.path());
        assert_eq!(
            (losses(&own, "base").len(), losses(&own, "sft").len()),
            (8, 12)
        );

        // few parameters are trained
        let adapted = run.model.adapted().unwrap();
        let own = adapted.model.parameters();
        assert_eq!(summary.parameters, adapted.parameters(), "{json}");
        assert_eq!(
            summary.total_parameters,
            own + adapted.parameters(),
            "{json}"
        );
        let text = summary.to_string();
        let counted = format!(
            "{} of {} parameters",
            summary.parameters, summary.total_parameters
        );
        assert!(text.contains(&counted), "{text}");

        // these files are written
        bases.push(fs::read(out.path().join("base.safetensors")).unwrap());
        let expected = [
            "adapter",
            "base.safetensors",
            "config.json",
            "curves.svg",
            "metrics.jsonl",
            "model.json",
            "summary.json",
        ];
        assert_eq!(names(out.path()), expected, "{json}");
        assert_eq!(
            Settings::read(&out.path().join("config.json")).unwrap(),
            settings
        );

        // and they give the same model
        let folder = out.path().join("adapter");
        let learned = logits(&adapted.model);
        adapted.set_enabled(false);
        let before = logits(&adapted.model);
        assert!(
            far(&learned, &before) > 1e-3,
            "{json}: an adapter that does nothing"
        );
        if at < OF_PEFT {
            assert_eq!(
                names(&folder),
                ["adapter_config.json", "adapter_model.safetensors"]
            );
            let file = AdapterFile::read(&folder, Strictness::Strict).unwrap();
            let weights = match settings.adapter.as_ref().unwrap().method {
                AdapterSettings::Qlora(_) => Weights::FourBits,
                _ => Weights::Wide,
            };
            let again = put_on(&base(out.path()), &file, weights).unwrap();
            let distance = far(&logits(&again), &learned);
            assert!(distance < 1e-5, "{json}: {distance}");
            let method = settings.adapter.as_ref().unwrap().method.name();
            leave(at, out.path(), method, &learned);
        } else {
            assert_eq!(names(&folder), ["adapter.json", "adapter.safetensors"]);
            let written = tensors(&folder.join("adapter.safetensors"));
            assert_eq!(written.len(), adapted.vars().len(), "{json}");
            for (name, var) in adapted.vars() {
                let numbers = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                assert_eq!(
                    numbers(&written[&name]),
                    numbers(var.as_tensor()),
                    "{json}: {name}"
                );
            }
            let method = fs::read_to_string(folder.join("adapter.json")).unwrap();
            assert_eq!(adapter(&method), *settings.adapter.as_ref().unwrap());
            assert!(text.contains("PEFT has no file for"), "{text}");
        }
    }
    // no step changed a bit of a base, under any method
    assert!(bases.iter().all(|base| *base == bases[0]));
}

#[test]
fn every_objective_trains_an_adapter() {
    // those since the survey need a checkpoint
    let all = Objective::value_variants().iter();
    for &objective in all.filter(|objective| !objective.is_since()) {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = under(METHODS[0], objective, &dir.path().join("out"));
        settings.data = Some(sums(dir.path()));
        (settings.max_len, settings.sft_steps, settings.steps) = (160, 1, 2);
        let run = trained(&settings);
        run.write(&settings).unwrap();
        let losses = losses(&metrics(&settings.out()), &objective.to_string());
        assert_eq!(losses.len(), 2, "{objective}");
        let file = AdapterFile::read(settings.out().join("adapter"), Strictness::Strict).unwrap();
        let head = file.tensors().get("base_model.model.reward_head.weight");
        let reward = objective == Objective::Reward;
        assert_eq!(head.is_some(), reward, "{objective}");
        let saved = &file.config().method.targets().unwrap().modules_to_save;
        assert_eq!(saved.len(), usize::from(reward), "{objective}");
        // the head is trained too: 16 numbers
        let adapted = run.model.adapted().unwrap().parameters();
        let own = run.summary.parameters - adapted;
        assert_eq!(own, if reward { 16 } else { 0 }, "{objective}");
    }
}

#[test]
fn a_reward_head_is_a_module_to_save_or_stands_beside() {
    for (json, inside) in [(METHODS[0], true), (METHODS[5], true), (METHODS[7], false)] {
        let out = tempfile::tempdir().unwrap();
        let settings = under(json, Objective::Reward, out.path());
        let run = trained(&settings);
        run.write(&settings).unwrap();
        let head = tensors(&out.path().join("reward_head.safetensors"));
        let numbers = |t: &Tensor| t.to_vec2::<f32>().unwrap();
        let trained = numbers(run.model.head.as_ref().unwrap().weight());
        assert_eq!(numbers(&head["reward_head.weight"]), trained);
        let file = AdapterFile::read(out.path().join("adapter"), Strictness::Strict).unwrap();
        let name = "base_model.model.reward_head.weight";
        assert_eq!(file.tensors().contains_key(name), inside, "{json}");
        if inside {
            assert_eq!(numbers(&file.tensors()[name]), trained);
            // on a base with such a module, it is that module's weight
            let weights = base(out.path()).weights().clone();
            let mut dict: HashMap<String, Tensor> = weights.into_iter().collect();
            let other = head["reward_head.weight"].zeros_like().unwrap();
            dict.insert("reward_head.weight".to_string(), other);
            let found = file.layers(&dict, Strictness::Strict).unwrap();
            assert_eq!(numbers(&found.weights["reward_head.weight"]), trained);
        }
    }
}

#[test]
fn dpo_compares_an_adapter_with_its_own_base() {
    // LoRA starts as its base, in four bits or not, so every margin is 0
    for json in [METHODS[0], METHODS[2]] {
        let out = tempfile::tempdir().unwrap();
        let summary = quiet(&under(json, Objective::Dpo, out.path())).unwrap();
        assert_eq!(summary.before.accuracy, Some(0.5), "{summary}");
        assert!((summary.before.loss - 2f64.ln()).abs() < 1e-6, "{summary}");
        assert!((summary.after.loss - 2f64.ln()).abs() > 1e-4, "{summary}");
        let own = losses(&metrics(out.path()), "dpo");
        assert!(own.last() < own.first(), "{own:?}");
    }
    // SLiC's KL from the base is 0 at the start, and then it counts
    let slic = |weight| {
        let out = tempfile::tempdir().unwrap();
        let mut settings = under(METHODS[0], Objective::Slic, out.path());
        settings.slic_kl_weight = weight;
        let summary = quiet(&settings).unwrap();
        (summary.before.loss, summary.after.loss)
    };
    let (without, with) = (slic(0.0), slic(10.0));
    assert!((without.0 - with.0).abs() < 1e-3, "{without:?} {with:?}");
    assert!((without.1 - with.1).abs() > 1e-2, "{without:?} {with:?}");
    // a prompt does not start as its base
    let out = tempfile::tempdir().unwrap();
    let summary = quiet(&under(METHODS[7], Objective::Dpo, out.path())).unwrap();
    assert!((summary.before.loss - 2f64.ln()).abs() > 1e-4, "{summary}");
}

#[test]
fn the_same_seed_trains_the_same_adapter_with_dropout_too() {
    let dropping = r#"{"lora": {"rank": 2, "alpha": 6, "dropout": 0.4}}"#;
    let of = |json, seed| {
        let out = tempfile::tempdir().unwrap();
        let mut settings = under(json, Objective::Dpo, out.path());
        (settings.seed, settings.steps, settings.sft_steps) = (seed, 4, 3);
        quiet(&settings).unwrap();
        let read = |name| fs::read(out.path().join(name)).unwrap();
        (
            read("metrics.jsonl"),
            read("adapter/adapter_model.safetensors"),
        )
    };
    assert!(of(dropping, 1) == of(dropping, 1));
    assert!(of(dropping, 1).1 != of(dropping, 2).1);
    // dropout belongs to training: it changes the result, not the evaluation at the start
    let (with, without) = (of(dropping, 1), of(METHODS[0], 1));
    assert!(with.1 != without.1);
    let first = |text: &[u8]| {
        let text = String::from_utf8(text.to_vec()).unwrap();
        let line = text.lines().find(|line| line.contains("held_out"));
        line.unwrap().to_string()
    };
    assert_eq!(first(&with.0), first(&without.0));
}

#[test]
fn micro_batches_change_nothing_but_rounding_under_an_adapter() {
    for (json, objective) in [
        (METHODS[0], Objective::Dpo),
        // the penalty is added once per step, however many micro-batches there are
        (METHODS[4], Objective::Sft),
        (METHODS[8], Objective::Reward),
        (METHODS[3], Objective::CRlft),
    ] {
        let run = |micro_batch| {
            let out = tempfile::tempdir().unwrap();
            let mut settings = under(json, objective, out.path());
            (settings.batch, settings.micro_batch) = (16, micro_batch);
            (settings.steps, settings.sft_steps) = (4, 2);
            quiet(&settings).unwrap();
            let metrics = metrics(out.path());
            let norms = metrics.iter().filter_map(|m| m["gradient_norm"].as_f64());
            let norms = norms.collect::<Vec<_>>();
            (losses(&metrics, &objective.to_string()), norms)
        };
        let (whole, parts) = (run(16), run(7));
        let pairs = whole.0.iter().zip(&parts.0);
        for (a, b) in pairs.chain(whole.1.iter().zip(&parts.1)) {
            assert!(
                (a - b).abs() < 1e-3 * a.abs(),
                "{json}: {whole:?} {parts:?}"
            );
        }
    }
}

#[test]
fn adalora_pays_its_penalty_and_ends_within_its_budget() {
    let out = tempfile::tempdir().unwrap();
    let mut settings = under(METHODS[4], Objective::Sft, out.path());
    let own = settings.adapter.as_mut().unwrap();
    (own.ada_lora.target_rank, own.ada_lora.initial_steps) = (1, 2);
    (own.ada_lora.final_steps, own.ada_lora.interval) = (3, 2);
    let run = trained(&settings);
    run.write(&settings).unwrap();
    // near 0 the vectors are at distance √r from orthonormal ones, and the weight is ½
    let penalties = metrics(out.path())
        .into_iter()
        .filter_map(|m| m["penalty"].as_f64());
    let penalties: Vec<f64> = penalties.collect();
    assert_eq!(penalties.len(), 12);
    assert!(
        (penalties[0] - 3f64.sqrt() / 2.0).abs() < 0.05,
        "{penalties:?}"
    );
    assert!(penalties[11] < penalties[0], "{penalties:?}");
    // one triplet per layer on average, over four layers
    let file = AdapterFile::read(out.path().join("adapter"), Strictness::Strict).unwrap();
    let AdapterMethod::AdaLora(found) = &file.config().method else {
        panic!("{:?}", file.config());
    };
    assert_eq!(found.allocator.total_steps, 12);
    assert_eq!(found.kept.len(), 4);
    assert_eq!(
        found.kept.values().flatten().filter(|kept| **kept).count(),
        4
    );
    let left = run
        .model
        .adapted()
        .unwrap()
        .triplets()
        .iter()
        .flat_map(|(_, layer)| {
            let lambda = layer.lambda().flatten_all().unwrap();
            lambda.to_vec1::<f32>().unwrap()
        });
    assert_eq!(left.filter(|lambda| *lambda != 0.0).count(), 4);
    // the default target is two thirds
    let out = tempfile::tempdir().unwrap();
    quiet(&under(METHODS[4], Objective::Sft, out.path())).unwrap();
    let file = AdapterFile::read(out.path().join("adapter"), Strictness::Strict).unwrap();
    let AdapterMethod::AdaLora(found) = &file.config().method else {
        panic!("{:?}", file.config());
    };
    assert_eq!(
        found.kept.values().flatten().filter(|kept| **kept).count(),
        8
    );
}

#[test]
fn lora_plus_lets_b_learn_faster() {
    let of = |ratio| {
        let out = tempfile::tempdir().unwrap();
        let mut settings = under(METHODS[0], Objective::Sft, out.path());
        (settings.steps, settings.sft_steps, settings.warmup) = (1, 1, 0.0);
        settings.adapter.as_mut().unwrap().lora_plus = ratio;
        let run = trained(&settings);
        let numbers = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let adapted = run.model.adapted().unwrap();
        let named = adapted.vars().into_iter();
        let named = named.map(|(name, var)| (name, numbers(var.as_tensor())));
        named.collect::<HashMap<_, _>>()
    };
    let (plain, one, ten) = (of(None), of(Some(1.0)), of(Some(10.0)));
    assert_eq!(plain, one);
    for (name, plain) in &plain {
        if name.contains("lora_A") {
            // B was 0, so A got no gradient yet; both only decay
            assert_eq!(plain, &ten[name], "{name}");
            continue;
        }
        // Adam's first step has the size of the learning rate, whatever the gradient
        for (plain, ten) in plain.iter().zip(&ten[name]) {
            assert!(
                (ten - 10.0 * plain).abs() < 1e-3 * ten.abs(),
                "{name}: {plain} {ten}"
            );
        }
    }
}

#[test]
fn a_run_starts_from_what_another_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let first = small(Objective::Sft, &dir.path().join("sft"));
    quiet(&first).unwrap();
    let weights = dir.path().join("sft/model.safetensors");
    let second = |base: &Path, json, name: &str| Settings {
        base: Some(base.to_path_buf()),
        sft_steps: 0,
        ..under(json, Objective::Dpo, &dir.path().join(name))
    };
    let settings = second(&weights, METHODS[0], "lora");
    let run = trained(&settings);
    run.write(&settings).unwrap();
    assert_eq!(run.summary.sft_steps, 0);
    let base = dir.path().join("lora/base.safetensors");
    assert!(fs::read(&base).unwrap() == fs::read(&weights).unwrap());
    // and on the whole base that this run wrote
    let mut whole = second(&base, METHODS[0], "whole");
    whole.adapter = None;
    let summary = quiet(&whole).unwrap();
    assert_eq!(summary.adapter, None);
    let [whole, lora] = [&summary, &run.summary].map(|s| s.before.best_log_prob.unwrap());
    assert!((whole - lora).abs() < 1e-5 * lora.abs(), "{whole} {lora}");
}

#[test]
fn weights_that_do_not_fit_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = small(Objective::Sft, dir.path());
    first.steps = 1;
    quiet(&first).unwrap();
    let weights = dir.path().join("model.safetensors");
    let whole = tensors(&weights);
    let fails = |change: &dyn Fn(&mut HashMap<String, Tensor>), expected: &str| {
        let mut changed = whole.clone();
        change(&mut changed);
        candle_core::safetensors::save(&changed, &weights).unwrap();
        let mut settings = small(Objective::Dpo, &dir.path().join("out"));
        settings.base = Some(weights.clone());
        let error = quiet(&settings).unwrap_err().to_string();
        assert_eq!(error, format!("{}: {expected}", weights.display()));
        assert!(!dir.path().join("out").exists());
    };
    fails(
        &|all| {
            all.remove("layers.0.feed_forward.up.weight");
        },
        "`layers.0.feed_forward.up.weight` is missing",
    );
    fails(
        &|all| {
            all.insert(
                "layers.1.attention_norm.weight".to_string(),
                all["norm.weight"].clone(),
            );
        },
        "`layers.1.attention_norm.weight` is not a weight of this model",
    );
    fails(
        &|all| {
            all.insert("head.weight".to_string(), all["norm.weight"].clone());
        },
        "`head.weight` has shape [16], expected [259, 16]",
    );
    fails(
        &|all| {
            let half = all["norm.weight"].to_dtype(DType::F16).unwrap();
            all.insert("norm.weight".to_string(), half);
        },
        "`norm.weight` is f16, expected f32",
    );

    // the number of heads does not show in a weight
    let mut settings = small(Objective::Dpo, &dir.path().join("out"));
    (settings.base, settings.heads) = (Some(weights.clone()), 4);
    let beside = dir.path().join("model.json");
    assert_eq!(
        quiet(&settings).unwrap_err().to_string(),
        format!(
            "{}: `heads` is 2, and the setting `heads` makes it 4",
            beside.display()
        )
    );
    fs::remove_file(&beside).unwrap();
    let error = quiet(&settings).unwrap_err().to_string();
    let start = format!("{}: cannot be read: ", beside.display());
    let end = format!("; it holds the sizes of {}", weights.display());
    assert!(
        error.starts_with(&start) && error.ends_with(&end),
        "{error}"
    );
}
