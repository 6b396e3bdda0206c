//! What an `adapter_config.json` holds wrongly: file, key, value and what it may be, in few words.

use candle_align::Result;
use candle_align::parameter_efficient::{LoraForModel, LoraInit, TargetModules};
use candle_align::peft::{AdapterFile, AdapterMethod, PeftConfig, Strictness};
use std::fs;

/// The settings alone, with the file's path as `FILE` in messages.
fn read(text: &str, strictness: Strictness) -> Result<(PeftConfig, Vec<String>), String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("adapter_config.json");
    fs::write(&path, text).unwrap();
    let found = PeftConfig::read(&path, strictness).map_err(|error| error.to_string());
    found.map_err(|error| error.replace(&path.display().to_string(), "FILE"))
}

fn strict(text: &str) -> Result<PeftConfig, String> {
    read(text, Strictness::Strict).map(|(config, _)| config)
}

#[track_caller]
fn says(text: &str, message: &str) {
    let message = format!("PeftConfig::read: `FILE` {message}");
    assert_eq!(strict(text).unwrap_err(), message, "{text}");
}

fn lora(more: &str) -> String {
    format!(r#"{{"peft_type": "LORA", "target_modules": ["q"], {more}}}"#)
}

/// Every method, with what it needs, and every key that it reads.
const METHODS: [(&str, &str, &[&str]); 6] = [
    ("LORA", r#""target_modules": ["q"]"#, &LORA),
    (
        "ADALORA",
        r#""target_modules": ["q"], "total_step": 9"#,
        &[
            "target_modules",
            "exclude_modules",
            "modules_to_save",
            "layers_to_transform",
            "layers_pattern",
            "r",
            "init_r",
            "lora_alpha",
            "lora_dropout",
            "target_r",
            "tinit",
            "tfinal",
            "deltaT",
            "beta1",
            "beta2",
            "orth_reg_weight",
            "total_step",
            "rank_pattern",
            "alpha_pattern",
            "bias",
            "lora_bias",
            "use_dora",
            "use_rslora",
            "trainable_token_indices",
            "init_lora_weights",
            "fan_in_fan_out",
            "loftq_config",
        ],
    ),
    (
        "IA3",
        r#""target_modules": ["q"], "feedforward_modules": []"#,
        &[
            "target_modules",
            "exclude_modules",
            "modules_to_save",
            "layers_to_transform",
            "layers_pattern",
            "feedforward_modules",
            "init_ia3_weights",
            "fan_in_fan_out",
        ],
    ),
    (
        "VERA",
        r#""target_modules": ["q"]"#,
        &[
            "target_modules",
            "modules_to_save",
            "layers_to_transform",
            "layers_pattern",
            "r",
            "d_initial",
            "vera_dropout",
            "projection_prng_key",
            "save_projection",
            "bias",
            "init_weights",
            "fan_in_fan_out",
        ],
    ),
    (
        "PROMPT_TUNING",
        r#""num_virtual_tokens": 2, "token_dim": 4"#,
        &[
            "num_virtual_tokens",
            "token_dim",
            "num_layers",
            "num_attention_heads",
            "num_transformer_submodules",
            "modules_to_save",
            "prompt_tuning_init",
            "prompt_tuning_init_text",
            "tokenizer_name_or_path",
            "tokenizer_kwargs",
        ],
    ),
    (
        "PREFIX_TUNING",
        r#""num_virtual_tokens": 2, "token_dim": 4, "num_layers": 1, "num_attention_heads": 2"#,
        &[
            "num_virtual_tokens",
            "token_dim",
            "num_layers",
            "num_attention_heads",
            "num_transformer_submodules",
            "modules_to_save",
            "encoder_hidden_size",
            "prefix_projection",
            "init_weights",
        ],
    ),
];

const LORA: [&str; 33] = [
    "target_modules",
    "exclude_modules",
    "modules_to_save",
    "layers_to_transform",
    "layers_pattern",
    "r",
    "lora_alpha",
    "lora_dropout",
    "use_rslora",
    "use_dora",
    "bias",
    "lora_bias",
    "rank_pattern",
    "alpha_pattern",
    "trainable_token_indices",
    "init_lora_weights",
    "fan_in_fan_out",
    "alora_invocation_tokens",
    "arrow_config",
    "ensure_weight_tying",
    "kasa_config",
    "layer_replication",
    "loftq_config",
    "megatron_config",
    "monteclora_config",
    "target_parameters",
    "use_bdlora",
    "use_qalora",
    "velora_config",
    "peft_version",
    "inference_mode",
    "task_type",
    "auto_mapping",
];

/// Values that are wrong for most keys.
fn odd_values() -> Vec<String> {
    let few = [
        "-1",
        "1.5",
        "1e999",
        "9223372036854775808",
        "18446744073709551616",
        "true",
        "\"text\"",
        "[]",
        "[1]",
        "[null]",
        "[[1]]",
        "[true]",
        "[\"a\", 3]",
        "{}",
        "{\"a\": 1}",
        "{\"a\": [true]}",
        "{\"a\": -1}",
        "{\"a\": 1, \"a\": 2}",
    ];
    let many = "é".repeat(2_000);
    let mut all: Vec<String> = few.iter().map(|value| value.to_string()).collect();
    all.extend([
        format!("\"{many}\""),
        format!("[\"{many}\", {{}}]"),
        format!("{{\"{many}\": {{}}}}"),
        format!("{{\"{many}\": 1}}"),
        format!("[{}true]", "1, ".repeat(2_000)),
        "9".repeat(4_000),
    ]);
    all
}

#[test]
fn every_wrong_value_is_answered_with_file_key_value_and_what_it_may_be() {
    let mut refused = 0;
    for (method, needed, keys) in METHODS {
        for key in keys {
            for value in odd_values() {
                let others: Vec<&str> = needed
                    .split(", ")
                    .filter(|one| !one.starts_with(&format!("\"{key}\"")))
                    .collect();
                let others = others.join(", ");
                let text = match others.is_empty() {
                    true => format!(r#"{{"peft_type": "{method}", "{key}": {value}}}"#),
                    false => format!(r#"{{"peft_type": "{method}", "{key}": {value}, {others}}}"#),
                };
                let Err(error) = strict(&text) else { continue };
                refused += 1;
                let brief: String = error.chars().take(1_500).collect();
                let begins = error.starts_with("PeftConfig::read: `FILE` holds `");
                assert!(begins, "{brief}");
                // the bounds between keys name one of the two
                let own = error.contains(&format!("holds `{key}` = "));
                let of_pattern = error.contains("holds `rank_pattern` with the key `");
                assert!(
                    own || of_pattern || error.contains("not a multiple of"),
                    "{brief}"
                );
                let start: String = value.chars().take(15).collect();
                assert!(error.contains(&start) || of_pattern, "{key}: {brief}");
                let forms = [
                    "expected ",
                    "not supported: ",
                    "stands twice",
                    "out of range",
                    "not a multiple",
                    "not a path",
                    "; a size is from 1 to ",
                ];
                assert!(forms.iter().any(|form| error.contains(form)), "{brief}");
                for jargon in ["untagged", "usize", "u64", "f64", " at line "] {
                    assert!(!error.contains(jargon), "{brief}");
                }
                assert!(error.chars().count() < 1_200, "{}: {brief}", error.len());
            }
        }
    }
    assert!(refused > 1_000, "{refused}");
}

#[test]
fn a_value_of_several_forms_is_told_all_of_them() {
    says(
        &lora(r#""trainable_token_indices": [true]"#),
        "holds `trainable_token_indices` = [true]: invalid type: boolean `true`, expected a whole \
         number, 0 or more; it is a list of rows, or an object of names and lists of rows",
    );
    says(
        &lora(r#""trainable_token_indices": 3"#),
        "holds `trainable_token_indices` = 3: invalid type: integer `3`, expected a list; it is a list \
         of rows, or an object of names and lists of rows",
    );
    says(
        &lora(r#""trainable_token_indices": {"a": [1], "a": [2]}"#),
        "holds `trainable_token_indices` = {\"a\": [1], \"a\": [2]}: the key `a` stands twice; it is a \
         list of rows, or an object of names and lists of rows",
    );
    says(
        &lora(r#""layers_to_transform": "all""#),
        "holds `layers_to_transform` = \"all\": invalid type: string \"all\", expected a whole number, \
         0 or more; it is a whole number or a list of them",
    );
    says(
        &lora(r#""layers_pattern": {"h": 1}"#),
        "holds `layers_pattern` = {\"h\": 1}: invalid type: map, expected a string; it is a string or a \
         list of strings",
    );
    says(
        r#"{"peft_type": "LORA", "target_modules": 3}"#,
        "holds `target_modules` = 3: invalid type: integer `3`, expected a list of names, an expression \
         as a string, or \"all-linear\"",
    );
    // all forms are read
    for (value, rows) in [("[3, 1]", vec![3, 1]), (r#"{"": [2]}"#, vec![2])] {
        let config = strict(&lora(&format!(r#""trainable_token_indices": {value}"#))).unwrap();
        let AdapterMethod::Lora(file) = config.method else {
            panic!("{value}");
        };
        assert_eq!(file.tokens[""], rows);
    }
    for value in ["7", "[7]"] {
        let text = lora(&format!(
            r#""layers_to_transform": {value}, "layers_pattern": "h""#
        ));
        let config = strict(&text).unwrap();
        let targets = config.method.targets().unwrap();
        assert_eq!(targets.layers_to_transform, [7]);
        assert_eq!(targets.layers_pattern, ["h"]);
    }
}

#[test]
fn a_choice_of_modules_in_the_crates_own_json_says_what_it_may_be() {
    let read = |json: &str| serde_json::from_str::<LoraForModel>(json);
    for (value, found) in [
        ("3", "integer `3`"),
        ("{\"a\": 1}", "map"),
        ("null", "null"),
    ] {
        for key in ["target_modules", "exclude_modules"] {
            let error = read(&format!(r#"{{"targets": {{"{key}": {value}}}}}"#)).unwrap_err();
            let expected = format!(
                "invalid type: {found}, expected a list of names, an expression as a string, or \
                 \"all-linear\" at line 1 column "
            );
            assert!(error.to_string().starts_with(&expected), "{error}");
        }
    }
    let error = serde_json::from_str::<TargetModules>(r#"["a", 3]"#).unwrap_err();
    let expected = "invalid type: integer `3`, expected a string at line 1 column 7";
    assert_eq!(error.to_string(), expected);
    for (json, modules) in [
        (
            r#"["a", "b"]"#,
            TargetModules::Names(vec!["a".into(), "b".into()]),
        ),
        (r#"".*\\.q""#, TargetModules::Pattern(r".*\.q".into())),
        (r#""all-linear""#, TargetModules::AllLinear),
    ] {
        let read: TargetModules = serde_json::from_str(json).unwrap();
        assert_eq!(read, modules);
        assert_eq!(serde_json::to_string(&read).unwrap(), json.replace(' ', ""));
    }
}

#[test]
fn every_start_is_told_what_it_is() {
    let init = |value: &str| {
        let config = strict(&lora(&format!(r#""init_lora_weights": {value}"#)))?;
        match config.method {
            AdapterMethod::Lora(file) => Ok(file.model.config.init),
            other => panic!("{other:?}"),
        }
    };
    for value in [
        "true",
        "false",
        "null",
        "\"orthogonal\"",
        "\"eva\"",
        "\"mica\"",
    ] {
        assert_eq!(init(value), Ok(LoraInit::KaimingUniform), "{value}");
    }
    for value in ["\"gaussian\"", "\"Gaussian\""] {
        assert_eq!(init(value), Ok(LoraInit::Gaussian), "{value}");
    }
    let remedy = "out of the base's weights, so that the file means nothing on the base as it was; save \
                  it again in PEFT, by `save_pretrained` with `path_initial_model_for_weight_conversion` \
                  (the adapter as it was before training), and read that: it is plain LoRA";
    let known = "it is no start in PEFT 0.21.2; known are true, false, \"gaussian\", \"orthogonal\", \
                 \"eva\" and \"mica\"";
    let loftq = "LoftQ put quantized weights in the place of the base's, so that the file means nothing on \
                 the base as it was; save that base too, put the file on it, and set the key to true";
    let pissa = format!("PiSSA took the first singular directions {remedy}");
    for (value, why) in [
        ("\"pissa\"", pissa.clone()),
        ("\"pissa_niter_4\"", pissa.clone()),
        ("\"PiSSA\"", pissa),
        (
            "\"olora\"",
            format!("OLoRA took the first columns of a QR decomposition {remedy}"),
        ),
        (
            "\"corda\"",
            format!("CorDA took the directions of its sample {remedy}"),
        ),
        (
            "\"lora_ga\"",
            format!("LoRA-GA took the directions of a first gradient {remedy}"),
        ),
        ("\"loftq\"", loftq.to_string()),
        ("\"kaiming\"", known.to_string()),
        ("\"true\"", known.to_string()),
        ("1", known.to_string()),
        ("[]", known.to_string()),
    ] {
        let message = format!(
            "PeftConfig::read: `FILE` holds `init_lora_weights` = {value}, which is not supported: {why}"
        );
        assert_eq!(init(value), Err(message));
    }
    // PEFT's AdaLoRA never reads the word: nothing is wrong with the base
    says(
        r#"{"peft_type": "ADALORA", "target_modules": ["q"], "total_step": 9, "init_lora_weights": "pissa"}"#,
        "holds `init_lora_weights` = \"pissa\", which is not supported: AdaLoRA starts in one way, \
         whatever stands here; set it to true",
    );
}

/// As that project published it, with the keys of PEFT 0.2.
const ALPACA_LORA: &str = r#"{
  "base_model_name_or_path": "decapoda-research/llama-7b-hf",
  "bias": "none",
  "enable_lora": null,
  "fan_in_fan_out": false,
  "inference_mode": true,
  "lora_alpha": 16,
  "lora_dropout": 0.05,
  "merge_weights": false,
  "modules_to_save": null,
  "peft_type": "LORA",
  "r": 16,
  "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
  "task_type": "CAUSAL_LM"
}"#;

#[test]
fn a_lenient_reader_of_settings_leaves_out_unknown_keys_and_returns_them() {
    assert_eq!(
        strict(ALPACA_LORA).unwrap_err(),
        "PeftConfig::read: `FILE` holds `enable_lora`, which is no key of LORA in PEFT 0.21.2"
    );
    let (config, left_out) = read(ALPACA_LORA, Strictness::Lenient).unwrap();
    assert_eq!(left_out, ["enable_lora", "merge_weights"]);
    let plain = ALPACA_LORA.replace("\"enable_lora\": null,", "");
    let plain = plain.replace("\"merge_weights\": false,", "");
    let (again, none) = read(&plain, Strictness::Strict).unwrap();
    assert_eq!((config, Vec::<String>::new()), (again, none));
    // what is known and not supported is refused all the same
    let error = read(&lora(r#""use_qalora": true"#), Strictness::Lenient).unwrap_err();
    assert!(error.contains("`use_qalora` = true"), "{error}");
}

#[test]
fn no_text_of_a_file_makes_a_long_message() {
    let long = "é".repeat(500_000);
    for text in [
        format!("\"{long}\""),
        format!(r#"{{"peft_type": "{long}"}}"#),
        lora(&format!(r#""{long}": 1"#)),
        lora(&format!(r#""{long}": 1, "{long}": 2"#)),
        lora(&format!(r#""bias": "{long}""#)),
        lora(&format!(r#""task_type": "{long}""#)),
        format!(
            r#"{{"peft_type": "ADALORA", "target_modules": ["q"], "total_step": 9,
                "rank_pattern": {{"{long}": [true]}}}}"#
        ),
    ] {
        let error = strict(&text).unwrap_err();
        let brief: String = error.chars().take(200).collect();
        assert!(error.chars().count() < 1_200, "{} of {brief}", error.len());
        assert!(error.contains(" characters … "), "{brief}");
    }

    // an expression too, wherever it stands
    let bad = format!("({long}");
    let at = |field: &str| {
        let mut config = LoraForModel::default();
        let pattern = TargetModules::Pattern(bad.clone());
        config.targets.target_modules = TargetModules::Names(vec!["q".into()]);
        match field {
            "target_modules" => config.targets.target_modules = pattern,
            "exclude_modules" => config.targets.exclude_modules = pattern,
            "modules_to_save" => config.targets.modules_to_save = vec![bad.clone()],
            "rank_pattern" => config.rank_pattern = vec![(bad.clone(), 1)],
            _ => config.alpha_pattern = vec![(bad.clone(), 1.0)],
        }
        config.for_module("m.q").unwrap_err().to_string()
    };
    for field in [
        "target_modules",
        "exclude_modules",
        "modules_to_save",
        "rank_pattern",
        "alpha_pattern",
    ] {
        let error = at(field);
        let brief: String = error.chars().take(200).collect();
        assert!(error.contains(&format!("`{field}`")), "{brief}");
        assert!(error.chars().count() < 1_200, "{} of {brief}", error.len());
    }

    // a setting that is named in full elsewhere
    let config = LoraForModel {
        rank_pattern: vec![(long.clone(), 1)],
        ..Default::default()
    };
    let error = config.for_modules(&["m.q"]).unwrap_err().to_string();
    assert!(error.chars().count() < 1_200, "{}", error.len());
}

#[test]
fn a_value_of_eighty_characters_is_shown_whole_and_a_longer_one_by_its_ends() {
    let why = "which is not supported: known are \"none\", \"lora_only\" and \"all\"";
    for letter in ["x", "é"] {
        // two characters are the quotation marks
        let value = format!("\"{}\"", letter.repeat(78));
        says(
            &lora(&format!("\"bias\": {value}")),
            &format!("holds `bias` = {value}, {why}"),
        );
        let value = format!("\"{}\"", letter.repeat(79));
        let (first, last) = (letter.repeat(39), letter.repeat(19));
        says(
            &lora(&format!("\"bias\": {value}")),
            &format!("holds `bias` = \"{first} … 21 characters … {last}\", {why}"),
        );
    }
}

#[test]
fn a_folder_with_alpacas_settings_is_read_leniently_as_before() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("adapter_config.json"), ALPACA_LORA).unwrap();
    let none = std::collections::HashMap::<String, candle_core::Tensor>::new();
    let at = folder.path().join("adapter_model.safetensors");
    candle_core::safetensors::save(&none, at).unwrap();
    let file = AdapterFile::read(folder.path(), Strictness::Lenient).unwrap();
    assert_eq!(file.left_out(), ["enable_lora", "merge_weights"]);
}
