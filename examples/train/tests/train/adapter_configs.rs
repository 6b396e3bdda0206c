//! `--adapter-config`: its three kinds of file, and the errors about them.

use crate::runs::{quiet, small, sums};
use candle_align::parameter_efficient::{
    AdaLoraConfig, LoraConfig, LoraForModel, LoraInit, PrefixConfig, PromptConfig, PromptInit,
    Reparametrization, Scaling, TargetModules, Targets, VeraConfig,
};
use clap::Parser;
use std::fs;
use support::adapters::AdapterSettings;
use train::Arguments;
use train::adapter::{AdaLora, Adapter};
use train::batch::VOCABULARY;
use train::objectives::Objective;
use train::settings::Settings;

/// Messages show the file's path as `FILE`.
fn read(text: &str) -> Result<Adapter, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("adapter_config.json");
    fs::write(&path, text).unwrap();
    let settings = small(Objective::Dpo, dir.path());
    let found = Adapter::read(&path, &settings).map_err(|error| error.to_string());
    found.map_err(|error| error.replace(&path.display().to_string(), "FILE"))
}

fn names(names: &[&str]) -> TargetModules {
    TargetModules::Names(names.iter().map(|name| name.to_string()).collect())
}

fn targets(list: &[&str]) -> Targets {
    Targets {
        target_modules: names(list),
        ..Default::default()
    }
}

#[test]
fn a_method_alone_or_with_what_is_beside_it() {
    let lora = LoraConfig {
        rank: 4,
        ..Default::default()
    };
    let plain = Adapter::from(AdapterSettings::Lora(lora.into()));
    assert_eq!(read(r#"{"lora": {"rank": 4}}"#).unwrap(), plain);
    assert_eq!(
        read(r#""bit_fit""#).unwrap(),
        AdapterSettings::BitFit {}.into()
    );
    let plus = Adapter {
        lora_plus: Some(16.0),
        ..plain
    };
    let text = r#"{"method": {"lora": {"rank": 4}}, "lora_plus": 16}"#;
    assert_eq!(read(text).unwrap(), plus);
}

#[test]
fn what_is_no_method_is_an_error_with_file_and_field() {
    let says = |text: &str, expected: &str| {
        let error = read(text).unwrap_err();
        assert!(error.starts_with(&format!("FILE: {expected}")), "{error}");
    };
    says(
        r#"{"lora": {"r": 4}}"#,
        "unknown field `r`, expected one of `rank`, `alpha`",
    );
    says(
        r#"{"lorra": {}}"#,
        "unknown variant `lorra`, expected one of `lora`, `qlora`",
    );
    says(
        r#"{"lora": {"rank": -1}}"#,
        "invalid value: integer `-1`, expected usize at line 1 column",
    );
    says(
        r#"{"lora": {"rank": 4}"#,
        "EOF while parsing an object at line 1 column 20",
    );
    says(
        r#"{"method": {"lora": {}}, "lora_pluss": 2}"#,
        "unknown field `lora_pluss`, expected one of `method`",
    );
    says(
        r#"{"lora": {"rank": 4, "rank": 5}}"#,
        "duplicate field `rank`",
    );
    says("", "EOF while parsing a value at line 1 column 0");
    let error = Adapter::read("nowhere.json".as_ref(), &Settings::default()).unwrap_err();
    let error = error.to_string();
    assert!(
        error.starts_with("nowhere.json: cannot be read: "),
        "{error}"
    );
}

#[test]
fn a_method_without_settings_is_written_as_a_word_or_as_an_empty_map() {
    let defaults = [
        AdapterSettings::Lora(LoraForModel::default()),
        AdapterSettings::Qlora(LoraForModel::default()),
        AdapterSettings::Dora(LoraForModel::default()),
        AdapterSettings::AdaLora(AdaLoraConfig::default()),
        AdapterSettings::Ia3(Default::default()),
        AdapterSettings::Vera(VeraConfig::default()),
        AdapterSettings::BitFit {},
        AdapterSettings::Prompt(PromptConfig::default()),
        AdapterSettings::Prefix(PrefixConfig::default()),
        AdapterSettings::Mam(Default::default()),
    ];
    for config in defaults {
        let name = config.name();
        let want = Adapter::from(config);
        for text in [
            format!("\"{name}\""),
            format!(r#"{{"{name}": {{}}}}"#),
            format!(r#"{{"method": "{name}"}}"#),
            format!(r#"{{"method": {{"{name}": {{}}}}}}"#),
        ] {
            assert_eq!(read(&text).as_ref(), Ok(&want), "{text}");
        }
    }
    // two methods have settings without a default
    for (name, field) in [("adapter", "placement"), ("design_space", "space")] {
        for text in [format!("\"{name}\""), format!(r#"{{"{name}": {{}}}}"#)] {
            let error = read(&text).unwrap_err();
            let expected = format!("FILE: missing field `{field}`");
            assert!(error.starts_with(&expected), "{error}");
        }
    }
    for (text, expected) in [
        (
            r#"{"bit_fit": {"rank": 1}}"#,
            "unknown field `rank`, there are no fields",
        ),
        (
            "3",
            "invalid type: integer `3`, expected a method, as `\"lora\"` or `{\"lora\": {\"rank\": 4}}`",
        ),
        (
            r#"{"lora": {}, "dora": {}}"#,
            "a second method beside the first at line 1 column",
        ),
        (
            "{}",
            "invalid length 0, expected a method, as `\"lora\"` or",
        ),
    ] {
        let error = read(text).unwrap_err();
        assert!(
            error.starts_with("FILE: ") && error.contains(expected),
            "{error}"
        );
    }
}

#[test]
fn a_wrong_value_is_named_with_the_keys_that_lead_to_it() {
    for (text, expected) in [
        (
            r#"{"lora": {"rank": -1}}"#,
            "integer `-1`, expected usize at line 1 column 20, in `lora.rank`",
        ),
        (
            "{\"method\": {\n \"lora\": {\"alpha\": 2,\n  \"targets\": {\"target_modules\": 3}}}}",
            "expected a list of names, an expression as a string, or \"all-linear\" at line 3 column 33, in \
             `method.lora.targets.target_modules`",
        ),
        (
            r#"{"lora": {"rank_pattern": {"a{\"b": 1, "c": "d"}}}"#,
            "string \"d\", expected usize at line 1 column 47, in `lora.rank_pattern.c`",
        ),
        (
            r#"{"lora": {"rank": 4"#,
            "EOF while parsing an object at line 1 column 19, in `lora.rank`",
        ),
        ("", "EOF while parsing a value at line 1 column 0"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.ends_with(expected), "{error}");
    }
    let long = "é".repeat(500_000);
    for text in [
        format!(r#"{{"lora": {{"rank": "{long}"}}}}"#),
        format!(r#"{{"lora": {{"{long}": 1}}}}"#),
        format!(r#"{{"{long}": {{}}}}"#),
        format!("\"{long}\""),
        format!(r#"{{"peft_type": "LORA", "target_modules": ["qkv"], "{long}": 1}}"#),
        format!(
            r#"{{"peft_type": "LORA", "target_modules": ["qkv"], "bias": "all", "enable_lora": "{long}"}}"#
        ),
    ] {
        let error = read(&text).unwrap_err();
        let brief: String = error.chars().take(200).collect();
        assert!(error.chars().count() < 1_200, "{} of {brief}", error.len());
        assert!(error.contains(" characters … "), "{brief}");
    }
}

#[test]
fn the_file_of_alpaca_lora_starts_a_run_and_says_what_it_left_out() {
    let text = r#"{"base_model_name_or_path": "decapoda-research/llama-7b-hf", "bias": "none",
        "enable_lora": null, "fan_in_fan_out": false, "inference_mode": true, "lora_alpha": 16,
        "lora_dropout": 0.05, "merge_weights": false, "modules_to_save": null, "peft_type": "LORA",
        "r": 2, "target_modules": ["qkv"], "task_type": "CAUSAL_LM"}"#;
    let found = read(text).unwrap();
    let lora = LoraForModel {
        config: LoraConfig {
            rank: 2,
            alpha: 16.0,
            dropout: 0.05,
            ..Default::default()
        },
        targets: targets(&["qkv"]),
        ..Default::default()
    };
    assert_eq!(found.method, AdapterSettings::Lora(lora));
    let notes: Vec<String> = found
        .notes
        .iter()
        .map(|note| {
            note.rsplit_once("adapter_config.json: ")
                .unwrap()
                .1
                .to_string()
        })
        .collect();
    assert_eq!(
        notes,
        [
            "`enable_lora` = null is of an earlier PEFT and of no effect",
            "`merge_weights` = false is of an earlier PEFT and of no effect",
        ]
    );
    let dir = tempfile::tempdir().unwrap();
    let mut settings = small(Objective::Dpo, &dir.path().join("out"));
    (settings.adapter, settings.steps) = (Some(found), 1);
    quiet(&settings).unwrap();
    // the settings that a run writes have no notes
    let kept = fs::read_to_string(dir.path().join("out/config.json")).unwrap();
    assert!(
        !kept.contains("enable_lora") && !kept.contains("notes"),
        "{kept}"
    );
    // an adapter that chose parts of a map is another layer
    assert_eq!(
        read(&text.replace("\"enable_lora\": null", "\"enable_lora\": [true, false]")).unwrap_err(),
        "FILE: `enable_lora` is [true,false], but LoRA here is on a whole map, not on parts of one"
    );
}

#[test]
fn settings_of_peft_mean_what_they_mean_there() {
    let method = |text: &str| read(text).unwrap().method;
    let lora = LoraForModel {
        config: LoraConfig {
            rank: 2,
            alpha: 5.0,
            scaling: Scaling::RankSqrt,
            dropout: 0.25,
            init: LoraInit::Gaussian,
            ..Default::default()
        },
        rank_pattern: vec![("up".to_string(), 3)],
        targets: targets(&["qkv", "up"]),
        ..Default::default()
    };
    let text = r#"{"peft_type": "LORA", "r": 2, "lora_alpha": 5, "use_rslora": true, "lora_dropout": 0.25,
        "init_lora_weights": "gaussian", "rank_pattern": {"up": 3}, "target_modules": ["up", "qkv"],
        "task_type": "CAUSAL_LM", "base_model_name_or_path": "some/model"}"#;
    assert_eq!(method(text), AdapterSettings::Lora(lora));
    let dora = LoraForModel {
        targets: targets(&["qkv"]),
        ..Default::default()
    };
    let text = r#"{"peft_type": "LORA", "use_dora": true, "target_modules": ["qkv"]}"#;
    assert_eq!(method(text), AdapterSettings::Dora(dora));

    let ada_lora = Adapter {
        targets: targets(&["qkv"]),
        ada_lora: AdaLora {
            target_rank: 2,
            initial_steps: 3,
            final_steps: 4,
            interval: 2,
            beta1: 0.8,
            beta2: 0.9,
            orthogonality: 0.1,
        },
        ..AdapterSettings::AdaLora(AdaLoraConfig {
            rank: 3,
            alpha: 6.0,
            ..Default::default()
        })
        .into()
    };
    let text = r#"{"peft_type": "ADALORA", "init_r": 3, "lora_alpha": 6, "target_r": 2, "tinit": 3,
        "tfinal": 4, "deltaT": 2, "beta1": 0.8, "beta2": 0.9, "orth_reg_weight": 0.1, "total_step": 12,
        "target_modules": ["qkv"]}"#;
    assert_eq!(read(text).unwrap(), ada_lora);

    let text = r#"{"peft_type": "IA3", "target_modules": ["qkv", "down"], "feedforward_modules": ["down"]}"#;
    let AdapterSettings::Ia3(ia3) = method(text) else {
        panic!("{text}");
    };
    assert_eq!(
        (ia3.targets, ia3.feedforward_modules),
        (targets(&["down", "qkv"]), names(&["down"]))
    );

    let text = r#"{"peft_type": "VERA", "r": 4, "vera_dropout": 0.1, "target_modules": ["up"]}"#;
    let vera = VeraConfig {
        rank: 4,
        dropout: 0.1,
        ..Default::default()
    };
    let vera = Adapter {
        targets: targets(&["up"]),
        ..AdapterSettings::Vera(vera).into()
    };
    assert_eq!(read(text).unwrap(), vera);

    for (start, init) in [
        (r#""RANDOM""#, PromptInit::Uniform),
        (
            r#""SAMPLE_VOCAB""#,
            PromptInit::Vocabulary { common: VOCABULARY },
        ),
        (
            r#""TEXT", "prompt_tuning_init_text": "hé""#,
            PromptInit::Text {
                tokens: vec![104, 0xc3, 0xa9],
            },
        ),
    ] {
        let text = format!(
            r#"{{"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3, "token_dim": 16,
                "prompt_tuning_init": {start}}}"#
        );
        let prompt = PromptConfig { length: 3, init };
        assert_eq!(method(&text), AdapterSettings::Prompt(prompt));
    }
    for (network, reparametrization) in [
        ("", Reparametrization::Direct),
        (
            r#", "prefix_projection": true"#,
            Reparametrization::Mlp { inner: 16 },
        ),
        (
            r#", "prefix_projection": true, "encoder_hidden_size": 5"#,
            Reparametrization::Mlp { inner: 5 },
        ),
    ] {
        let text = format!(
            r#"{{"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 3, "token_dim": 16,
                "num_layers": 1, "num_attention_heads": 2{network}}}"#
        );
        let prefix = PrefixConfig {
            length: 3,
            reparametrization,
        };
        assert_eq!(method(&text), AdapterSettings::Prefix(prefix));
    }
}

#[test]
fn settings_of_peft_that_do_not_fit_are_named() {
    let says = |text: &str, expected: &str| {
        assert_eq!(read(text).unwrap_err(), expected, "{text}");
    };
    says(
        r#"{"peft_type": "LORA", "target_modules": ["qkv"], "rnk": 2}"#,
        "FILE: holds `rnk`, which is no key of PEFT",
    );
    says(
        r#"{"peft_type": "LOHA"}"#,
        "PeftConfig::read: `FILE` holds `peft_type` = \"LOHA\", which is not supported: known are \
         LORA, ADALORA, IA3, VERA, PROMPT_TUNING and PREFIX_TUNING",
    );
    says(
        r#"{"peft_type": "LORA", "target_modules": ["qkv"], "init_lora_weights": "orthogonal"}"#,
        "FILE: `init_lora_weights` is \"orthogonal\", which is no start of a fresh adapter here: A and B \
         both start away from 0, with B·A = 0; known: true and \"gaussian\"",
    );
    says(
        r#"{"peft_type": "LORA", "target_modules": ["qkv"], "fan_in_fan_out": true}"#,
        "FILE: `fan_in_fan_out` is true, but the model keeps its weights as [out, in]",
    );
    says(
        r#"{"peft_type": "LORA", "target_modules": ["qkv"], "bias": "all"}"#,
        "FILE: `bias` is \"all\", but the model has no biases",
    );
    says(
        r#"{"peft_type": "LORA", "target_modules": ["qkv"], "trainable_token_indices": [1, 2]}"#,
        "FILE: `trainable_token_indices` is [1,2], but rows of the embedding are not trained here",
    );
    says(
        r#"{"peft_type": "ADALORA", "target_modules": ["qkv"], "total_step": 100}"#,
        "FILE: `total_step` is 100, and the run has 12 --steps",
    );
    says(
        r#"{"peft_type": "ADALORA", "target_modules": ["qkv"], "total_step": 12, "init_r": 2,
            "rank_pattern": {"layers.0.attention.qkv.lora_E": [true, false]}}"#,
        "FILE: `rank_pattern` is {\"layers.0.attention.qkv.lora_E\":[true,false]}, what a run has left: \
         a fresh adapter has all",
    );
    says(
        r#"{"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3, "token_dim": 768}"#,
        "FILE: `token_dim` is 768, and the model has 16",
    );
    says(
        r#"{"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 3, "token_dim": 16, "num_layers": 12,
            "num_attention_heads": 2}"#,
        "FILE: `num_layers` is 12, and the model has 1",
    );
    says(
        r#"{"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 3, "token_dim": 16, "num_layers": 1,
            "num_attention_heads": 2, "init_weights": "zero"}"#,
        "FILE: `init_weights` is \"zero\", which is no start of a fresh adapter here; known: true",
    );
}

/// The message of a run that must fail before its first step, without leaving a folder.
fn failure(text: &str, objective: Objective) -> String {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = small(objective, &dir.path().join("out"));
    (settings.data, settings.max_len) = (Some(sums(dir.path())), 160);
    settings.adapter = Some(read(text).unwrap());
    let error = quiet(&settings).unwrap_err().to_string();
    assert!(!dir.path().join("out").exists(), "{text}");
    error
}

#[test]
fn what_cannot_be_trained_is_an_error_before_the_first_step() {
    let says = |text: &str, expected: &str| {
        assert_eq!(
            failure(text, Objective::Dpo),
            format!("adapter: {expected}"),
            "{text}"
        );
    };
    let maps = "; the linear maps of the model are layers.0.attention.qkv, layers.0.attention.output, \
                layers.0.feed_forward.up, layers.0.feed_forward.down";
    let q_proj = r#"{"peft_type": "LORA", "target_modules": ["q_proj"]}"#;
    let names = "`target_modules` names `q_proj`, which chooses no module";
    says(q_proj, &format!("LoraForModel::for_modules: {names}{maps}"));
    let vera = q_proj.replace("LORA", "VERA");
    says(&vera, &format!("Targets::choose: {names}{maps}"));
    let ia3 = r#"{"peft_type": "IA3", "target_modules": ["q_proj"], "feedforward_modules": []}"#;
    says(ia3, &format!("Targets::choose: {names}{maps}"));
    says(
        r#"{"ia3": {}}"#,
        &format!("Targets::choose: `target_modules` chooses no module{maps}"),
    );
    says(
        r#"{"lora": {"rank": 0}}"#,
        "LoraLinear::new: `rank` must be >= 1, got 0",
    );
    says(
        r#"{"lora": {"bias": "base"}}"#,
        "LoraLinear::new: `base` has no bias, which LoraBias::Base would train",
    );
    says(
        r#"{"lora": {"targets": {"target_modules": ["qkv"], "modules_to_save": ["head"]}}}"#,
        "adapt: `modules_to_save` must be empty: the decoder trains no module whole",
    );
    says(
        r#"{"method": {"lora": {}}, "targets": {"target_modules": ["qkv"]}}"#,
        "`targets` beside the method is for ada_lora and vera, not lora",
    );
    says(
        r#"{"method": {"lora": {}}, "ada_lora": {"interval": 2}}"#,
        "`ada_lora` is for that method, not lora",
    );
    says(
        r#"{"method": {"prompt": {}}, "lora_plus": 4}"#,
        "`lora_plus` is for lora, qlora and dora, not prompt",
    );
    says(
        r#"{"method": {"lora": {}}, "lora_plus": 0}"#,
        "`lora_plus` must be finite and > 0, got 0",
    );
    says(
        r#"{"method": {"ada_lora": {}}, "ada_lora": {"initial_steps": 6, "final_steps": 6}}"#,
        "RankAllocator::new: `total_steps` must be > `initial_steps` + `final_steps`, got 12",
    );
    says(
        r#"{"method": {"ada_lora": {"rank": 2}}, "ada_lora": {"target_rank": 3}}"#,
        "RankAllocator::new: `layers` hold 8 triplets, and `target_rank` asks for 12",
    );
    says(
        r#"{"method": {"ada_lora": {}}, "ada_lora": {"orthogonality": -1}}"#,
        "AdapterFile::from_layers: `orthogonality` must be finite and >= 0, got -1",
    );
    // PEFT's file has no other scale: the error comes before training, not after it
    says(
        r#"{"ada_lora": {"scaling": "rank"}}"#,
        "AdapterFile::from_layers: `scaling` must be RankWithEpsilon: a file has no other, got Rank",
    );
    let hindsight = |json| failure(json, Objective::ChainOfHindsight);
    for (json, name) in [(r#"{"prompt": {}}"#, "prompt"), (r#"{"mam": {}}"#, "mam")] {
        assert_eq!(
            hindsight(json),
            format!(
                "adapter: chain_of_hindsight hides past tokens, which cannot be combined with the \
                 virtual positions of {name}"
            )
        );
    }
}

#[test]
fn the_file_comes_after_the_other_settings_and_before_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("adapter_config.json");
    let text = r#"{"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3, "token_dim": 32}"#;
    fs::write(&path, text).unwrap();
    let parsed = |more: &[&str]| {
        let given = ["train", "--adapter-config", path.to_str().unwrap()];
        let all = given.iter().chain(more);
        let found = Arguments::try_parse_from(all).unwrap().settings();
        found.map_err(|error| error.to_string())
    };
    let own = [
        "--set",
        "adapter.method.prompt.length=5",
        "--set",
        "width=32",
    ];
    let found = parsed(&own).unwrap();
    let AdapterSettings::Prompt(prompt) = &found.adapter.as_ref().unwrap().method else {
        panic!("{found:?}");
    };
    assert_eq!(prompt.length, 5);
    assert_eq!(found.out().to_str(), Some("target/train/dpo_prompt"));
    let width = format!(
        "{}: `token_dim` is 32, and the model has 64",
        path.display()
    );
    assert_eq!(parsed(&[]).unwrap_err(), width);

    // weights to start from replace the supervised steps, unless these are requested
    let base = ["--set", "width=32", "--base", "model.safetensors"];
    let found = parsed(&base).unwrap();
    assert_eq!(
        (found.sft_steps, found.base),
        (0, Some("model.safetensors".into()))
    );
    let both = [base.as_slice(), &["--sft-steps", "7"]].concat();
    assert_eq!(parsed(&both).unwrap().sft_steps, 7);
}

#[test]
fn what_a_run_wrote_is_a_file_for_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let json = r#"{"lora": {"rank": 2, "alpha": 6, "targets": {"target_modules": ["up"]}}}"#;
    let mut settings = small(Objective::Reward, &dir.path().join("out"));
    (settings.adapter, settings.steps) = (Some(read(json).unwrap()), 1);
    quiet(&settings).unwrap();
    let written = dir.path().join("out/adapter/adapter_config.json");
    // the reward head in it is trained again, as without a file
    let again = Adapter::read(&written, &settings).unwrap();
    assert_eq!(Some(&again), settings.adapter.as_ref());
    settings.objective = Objective::Dpo;
    settings.adapter = Some(Adapter::read(&written, &settings).unwrap());
    let error = quiet(&settings).unwrap_err().to_string();
    assert!(error.contains("`modules_to_save` must be empty"), "{error}");
}
