//! Expressions of a configuration: what costs too much is an error by its name, before it costs it.

use crate::common::says;
use candle_align::Result;
use candle_align::parameter_efficient::{Ia3ForModel, LoraConfig, LoraForModel, Targets};

fn config(json: &str) -> LoraForModel {
    serde_json::from_str(json).unwrap()
}

/// The settings of a model with this text as the expression of a field.
fn with(field: &str, expression: &str) -> LoraForModel {
    let text = serde_json::to_string(expression).unwrap();
    config(&match field {
        "rank_pattern" | "alpha_pattern" => {
            format!(
                r#"{{"{field}": {{{text}: 2}}, "targets": {{"target_modules": "all-linear"}}}}"#
            )
        }
        "target_modules" => format!(r#"{{"targets": {{"target_modules": {text}}}}}"#),
        "layers_pattern" => format!(
            r#"{{"targets": {{"target_modules": ["q"], "layers_to_transform": [1],
                "layers_pattern": [{text}]}}}}"#
        ),
        "exclude_modules" => {
            format!(r#"{{"targets": {{"target_modules": "all-linear", "{field}": {text}}}}}"#)
        }
        _ => format!(r#"{{"targets": {{"target_modules": "all-linear", "{field}": [{text}]}}}}"#),
    })
}

const FIELDS: [&str; 6] = [
    "target_modules",
    "exclude_modules",
    "modules_to_save",
    "layers_pattern",
    "rank_pattern",
    "alpha_pattern",
];

#[track_caller]
fn message<T>(result: Result<T>) -> String {
    let message = match result {
        Ok(_) => panic!("no error"),
        Err(error) => error.to_string(),
    };
    assert!(message.len() < 400, "{} bytes", message.len());
    message
}

#[test]
fn what_would_grow_is_refused_before_it_does_in_every_field() {
    let nested = format!("{}x{}", "(".repeat(70), ")".repeat(70));
    for field in FIELDS {
        for (expression, reason) in [
            (
                r"\w{1000}",
                "`, which weighs 606100 where 131072 of 131072 are left for the expressions of one \
                 configuration: write names without operators, or smaller counts",
            ),
            (
                r"(((q{10}){10}){10}){10}",
                "`, which is not an expression here: its counts come to more than 1000, multiplied",
            ),
            (
                r"q{1000000000000}",
                "`, which is not an expression here: its counts come to more than 1000, multiplied",
            ),
            (
                r"q{99999999999999999999999999}",
                "`, which is not an expression here: its counts come to more than 1000, multiplied",
            ),
            (
                r"((?=.)){0,1001}q",
                "`, which is not an expression here: its counts come to more than 1000, multiplied",
            ),
            (
                &nested,
                "`, which is not an expression here: Pattern too deeply nested",
            ),
        ] {
            let shown = shown(expression);
            let expected = format!("LoraForModel::for_module: `{field}` holds `{shown}{reason}");
            says(
                with(field, expression).for_module("m.layers.1.q"),
                &expected,
            );
        }
    }
}

#[test]
fn the_expressions_of_one_configuration_share_what_they_may_weigh() {
    // a thousand of them in 20 kB, of which each alone would do
    for expression in [r"(\w{30}|\.)+q", r"([^a]{90}|\.)+q"] {
        let keys: Vec<String> = (0..1000)
            .map(|i| format!(r#""{}{i}": 2"#, expression.replace('\\', r"\\")))
            .collect();
        let text = format!(r#"{{"rank_pattern": {{{}}}}}"#, keys.join(", "));
        assert!((15_000..30_000).contains(&text.len()), "{}", text.len());
        let found = message(config(&text).for_module("q"));
        assert!(found.contains("`rank_pattern` holds `("), "{found}");
        assert!(found.contains("are left for the expressions"), "{found}");
        with("rank_pattern", expression).for_module("q").unwrap();
    }
    // over all fields
    let half = format!("q?{}", "q".repeat(70_000));
    let mut two = with("rank_pattern", &half);
    two.for_module("q").unwrap();
    two.alpha_pattern.push((half.clone(), 1.0));
    let found = message(two.for_module("q"));
    assert!(found.contains("`alpha_pattern` holds"), "{found}");
    let ia3 = serde_json::json!({
        "targets": {"target_modules": half}, "feedforward_modules": half
    });
    let ia3: Ia3ForModel = serde_json::from_value(ia3).unwrap();
    let found = message(ia3.for_module("q"));
    assert!(found.contains("`target_modules` holds"), "{found}");
}

/// However long: they are compared, not compiled.
#[test]
fn names_without_operators_weigh_nothing() {
    let path = format!("a.b{}", "-c_d/e:".repeat(20_000));
    let escaped = format!(r"a\.b{}", r"\-c\_d\/e\:".repeat(20_000));
    for name in [&path, &escaped] {
        for written in [name.clone(), format!("^{name}")] {
            let targets = with("target_modules", &written);
            assert!(targets.for_module(&path).unwrap().is_some());
            let keys = with("rank_pattern", &written);
            assert_eq!(keys.for_module(&path).unwrap().unwrap().rank, 2);
        }
        for field in ["exclude_modules", "modules_to_save"] {
            let config = with(field, name);
            assert!(config.for_module(&path).unwrap().is_none(), "{field}");
            assert!(config.for_module("q").unwrap().is_some(), "{field}");
        }
    }
}

#[test]
fn what_steps_back_too_often_is_an_error_and_no_choice() {
    let path = format!("m.layers.1.{}.q", "a".repeat(40));
    for field in FIELDS {
        let expression = r".*?((a+)+)+(?!x)!";
        let found = message(with(field, expression).for_module(&path));
        let expected = format!(
            "LoraForModel::for_module: `{field}` holds `{expression}`, which takes more than 20000 \
             steps back on `m.layers.1."
        );
        let advice = found.ends_with("`: write it with fewer ways to match");
        assert!(found.starts_with(&expected) && advice, "{found}");
        with(field, expression).for_module("m.layers.1.q").unwrap();
    }
}

#[test]
fn a_model_of_a_hundred_layers_fits_however_its_modules_are_written() {
    let modules = [
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "up_proj",
        "gate_proj",
        "down_proj",
    ];
    let mut paths = Vec::new();
    for layer in 0..100 {
        let each = modules.iter();
        paths.extend(each.map(|module| format!("model.layers.{layer}.block.{module}")));
    }
    let escaped = |path: &String| path.replace('.', r"\.");
    type Write = fn(&str) -> String;
    for write in [
        (|path| path.to_string()) as Write,
        |path| format!("^{path}"),
        |path| path.replace('.', r"\."),
        |path| format!("{path}$"),
        |path| path.replace(".block.", r"\..*\."),
    ] {
        let ranks = (1..).zip(&paths).map(|(rank, path)| (write(path), rank));
        let config = LoraForModel {
            rank_pattern: ranks.collect(),
            targets: serde_json::from_str(r#"{"target_modules": "all-linear"}"#).unwrap(),
            ..Default::default()
        };
        let found = config.for_modules(&paths).unwrap();
        let found: Vec<_> = found.iter().map(|(_, layer)| layer.rank).collect();
        assert_eq!(found, (1..=700).collect::<Vec<_>>(), "{}", write("a.b"));
    }
    for looks in ["", "(?!lm_head)"] {
        let all: Vec<_> = paths.iter().map(escaped).collect();
        let targets: Targets = serde_json::from_value(serde_json::json!({
            "target_modules": format!("{looks}({})", all.join("|")),
        }))
        .unwrap();
        assert_eq!(targets.choose(&paths).unwrap(), paths);
        assert!(!targets.matches("model.layers.100.block.q_proj").unwrap());
    }
}

/// What a message shows of 80 characters and more: 40, how many are left out, 20.
fn shown(text: &str) -> String {
    let all: Vec<char> = text.chars().collect();
    if all.len() <= 80 {
        return text.to_string();
    }
    let (head, tail) = (&all[..40], &all[all.len() - 20..]);
    let (head, tail) = (String::from_iter(head), String::from_iter(tail));
    format!("{head} … {} characters … {tail}", all.len() - 60)
}

#[test]
fn a_message_shows_the_ends_of_a_long_expression_or_name() {
    let long = "(a|b)?".repeat(200_000);
    let open = "(a".repeat(10_000);
    let bad = format!(r"\q{}", "b".repeat(50_000));
    for field in FIELDS {
        for expression in [&long, &open, &bad] {
            let found = message(with(field, expression).for_module("q"));
            let named = found.contains(&format!("`{field}` holds `{}`", shown(expression)));
            assert!(named, "{found}");
        }
    }
    let name = "n".repeat(1 << 20);
    let named = format!(r#"{{"targets": {{"target_modules": ["{name}"]}}}}"#);
    message(config(&named).for_modules(&["q"]));
    let keys = with("rank_pattern", &name);
    message(keys.for_modules(&["q"]));
    let twice = format!(r#"{{"rank_pattern": {{"{name}": 2, "{name}": 2}}}}"#);
    let error = serde_json::from_str::<LoraForModel>(&twice).unwrap_err();
    assert!(error.to_string().len() < 300);
    // settings of one layer have no such key
    let one =
        serde_json::from_str::<LoraConfig>(&format!(r#"{{"rank_pattern": {{"{name}": 2}}}}"#));
    assert!(one.unwrap_err().to_string().len() < 300);
}
