use crate::common::lora::*;
use crate::common::says;
use candle_align::parameter_efficient::{
    AdaLoraConfig, ForModel, Ia3ForModel, LoraConfig, LoraForModel, LoraLinear, TargetModules,
    Targets, VeraConfig,
};
use candle_core::DType;

fn targets(json: &str) -> Targets {
    serde_json::from_str(json).unwrap()
}

#[test]
fn what_is_no_expression_of_pythons_or_another_one_is_refused() {
    for (pattern, reason) in [
        (r"q)|(v", "a parenthesis was not opened"),
        (r"(q", "Opening parenthesis without closing parenthesis"),
        ("layers[", "a bracket is not closed"),
        ("[]", "a bracket is not closed"),
        (
            "[b-a]",
            "invalid character class range, the start must be <= the end",
        ),
        (
            r"(?(q))",
            "General parsing error: expected conditional to be a backreference or at least an \
             expression for when the condition is true",
        ),
        (r"q**", "Target of repeat operator is invalid"),
        (r"q\", "a backslash ends it"),
        // Python reads these otherwise
        (r"[[]", r"write `\[` for a bracket in brackets"),
        (r"[a&&b]", r"write `\&` in brackets, not twice"),
        (r"[a--b]", r"write `\-` in brackets, not twice"),
        (r"[a~~b]", r"write `\~` in brackets, not twice"),
        (r"\<q", r"`\<` is no escape of Python's"),
        (r"\hq", r"`\h` is no escape of Python's"),
        (r"\pLq", r"`\p` is no escape of Python's"),
        (r"q\K", r"`\K` is no escape of Python's"),
        (r"(q)\g<1>", r"`\g` is no escape of Python's"),
        (r"\0", "octal escapes are not supported"),
        (
            r"\b{start}q",
            r"write `\b(?:\{)` for a brace behind a boundary",
        ),
        // nor does Python read this
        (r"(q)\2", "Invalid back reference"),
        // and these it does
        (
            r"(?P<a>q)(v)\2",
            "Numbered backref/call not allowed because named group was used, use a named backref \
             instead",
        ),
        (r"(?a)\w", "Unknown group flag: (?a"),
    ] {
        let targets = Targets {
            target_modules: TargetModules::Pattern(pattern.to_string()),
            ..Default::default()
        };
        says(
            targets.matches("q"),
            &format!(
                "Targets::matches: `target_modules` holds `{pattern}`, which is not an expression \
                 here: {reason}"
            ),
        );
    }
    let reason = "Opening parenthesis without closing parenthesis";
    for (json, field) in [
        (r#"{"exclude_modules": "(x"}"#, "exclude_modules"),
        (r#"{"modules_to_save": ["(x"]}"#, "modules_to_save"),
        (
            r#"{"target_modules": ["q"], "layers_to_transform": [1], "layers_pattern": ["(x"]}"#,
            "layers_pattern",
        ),
    ] {
        says(
            targets(json).matches("q"),
            &format!(
                "Targets::matches: `{field}` holds `(x`, which is not an expression here: {reason}"
            ),
        );
    }
    for field in ["rank_pattern", "alpha_pattern"] {
        let json = format!(r#"{{"{field}": 3}}"#);
        let error = serde_json::from_str::<LoraForModel>(&json).unwrap_err();
        let error = error.to_string();
        assert!(
            error.starts_with(
                "invalid type: integer `3`, expected an object of expressions and numbers"
            ),
            "{error}"
        );
    }
    let key = |field: &str| -> LoraForModel {
        serde_json::from_str(&format!(r#"{{"{field}": {{"(x": 2}}}}"#)).unwrap()
    };
    for field in ["rank_pattern", "alpha_pattern"] {
        says(
            key(field).for_module("q"),
            &format!(
                "LoraForModel::for_module: `{field}` holds `(x`, which is not an expression here: {reason}"
            ),
        );
    }
}

#[test]
fn settings_that_would_do_nothing_are_refused() {
    for (json, rest) in [
        (
            r#"{"exclude_modules": "all-linear"}"#,
            "`exclude_modules` must be a list of names or an expression, got all-linear",
        ),
        (
            r#"{"target_modules": ".*q", "layers_to_transform": [1, 2]}"#,
            "`layers_to_transform` must be empty unless `target_modules` is a list of names, got [1, 2]",
        ),
        (
            r#"{"target_modules": "all-linear", "layers_to_transform": [1]}"#,
            "`layers_to_transform` must be empty unless `target_modules` is a list of names, got [1]",
        ),
        (
            r#"{"target_modules": ["q"], "layers_pattern": ["h"]}"#,
            r#"`layers_pattern` must be empty without `layers_to_transform`, got ["h"]"#,
        ),
    ] {
        says(
            targets(json).matches("q"),
            &format!("Targets::matches: {rest}"),
        );
    }
}

#[test]
fn a_name_or_a_key_that_does_nothing_is_named() {
    let paths = ["layers.0.q", "layers.0.v", "layers.1.q"];
    for (json, rest) in [
        (
            r#"{"targets": {"target_modules": ["q", "k"]}}"#,
            "`target_modules` names `k`, which chooses no module",
        ),
        (
            r#"{"targets": {"target_modules": ["q", "v"], "exclude_modules": ["v"]}}"#,
            "`target_modules` names `v`, which chooses no module",
        ),
        (
            r#"{"targets": {"target_modules": ".*k"}}"#,
            "`target_modules` chooses no module",
        ),
        (r#"{}"#, "`target_modules` chooses no module"),
        (
            r#"{"rank_pattern": {"k": 2}, "targets": {"target_modules": ["q"]}}"#,
            "`rank_pattern` holds `k`, which fits no chosen module",
        ),
        (
            // it fits a module that gets no adapter
            r#"{"alpha_pattern": {"q": 1, "v": 2}, "targets": {"target_modules": ["q"]}}"#,
            "`alpha_pattern` holds `v`, which fits no chosen module",
        ),
        (
            r#"{"rank_pattern": {"q": 2, "1.q": 8}, "targets": {"target_modules": ["q"]}}"#,
            "`rank_pattern` holds `1.q`, which is never reached: earlier keys fit its modules",
        ),
    ] {
        let config: LoraForModel = serde_json::from_str(json).unwrap();
        says(
            config.for_modules(&paths),
            &format!("LoraForModel::for_modules: {rest}"),
        );
        // for one module it is none
        config.for_module("layers.0.q").unwrap();
        if let Some(rest) = rest.strip_prefix("`target_modules`") {
            says(
                config.targets.choose(&paths),
                &format!("Targets::choose: `target_modules`{rest}"),
            );
        }
    }
    says(
        targets(r#"{"target_modules": "("}"#).choose(&paths),
        "Targets::choose: `target_modules` holds `(`, which is not an expression here: Opening parenthesis without closing parenthesis",
    );
    let fine = r#"{"rank_pattern": {"1.q": 8, "q": 2}, "targets": {"target_modules": ["q"]}}"#;
    let config: LoraForModel = serde_json::from_str(fine).unwrap();
    assert_eq!(config.for_modules(&paths).unwrap().len(), 2);
}

/// They name no modules: those that do are no settings of a layer.
#[test]
fn a_layer_takes_the_settings_of_one_module() {
    for (json, key) in [
        (r#"{"rank_pattern": {"q": 2, "v": 3}}"#, "rank_pattern"),
        (r#"{"alpha_pattern": {"q": 2}}"#, "alpha_pattern"),
        (r#"{"targets": {"target_modules": ["q"]}}"#, "targets"),
    ] {
        let error = serde_json::from_str::<LoraConfig>(json).unwrap_err();
        let expected = format!(
            "unknown field `{key}`, expected one of `rank`, `alpha`, `scaling`, `dropout`, `init`, \
             `bias` at line 1 column "
        );
        assert!(error.to_string().starts_with(&expected), "{error}");
    }
    let targets = r#"{"targets": {"target_modules": ["q"]}}"#;
    let (ada, vera) = (
        serde_json::from_str::<AdaLoraConfig>(targets).unwrap_err(),
        serde_json::from_str::<VeraConfig>(targets).unwrap_err(),
    );
    for error in [ada, vera] {
        let error = error.to_string();
        assert!(error.starts_with("unknown field `targets`"), "{error}");
    }
    let none = r#"{"rank_pattern": {"q": 0}, "targets": {"target_modules": ["q"]}}"#;
    let config: LoraForModel = serde_json::from_str(none).unwrap();
    let config = config.for_module("m.q").unwrap().unwrap();
    says(
        LoraLinear::new(&base(DType::F64), &config, &mut rng(1)),
        "LoraLinear::new: `rank` must be >= 1, got 0",
    );
}

#[test]
fn every_method_names_an_idle_choice_in_the_same_words() {
    let paths = ["layers.0.q", "layers.0.v"];
    for (choice, rest) in [
        (
            r#"["q", "k"]"#,
            "`target_modules` names `k`, which chooses no module",
        ),
        ("[]", "`target_modules` chooses no module"),
        (r#"".*k""#, "`target_modules` chooses no module"),
        (
            r#""(""#,
            "`target_modules` holds `(`, which is not an expression here: Opening parenthesis without \
             closing parenthesis",
        ),
    ] {
        let json = format!(r#"{{"targets": {{"target_modules": {choice}}}}}"#);
        let plain: ForModel<VeraConfig> = serde_json::from_str(&json).unwrap();
        says(
            plain.for_modules(&paths),
            &format!("ForModel::for_modules: {rest}"),
        );
        let lora: LoraForModel = serde_json::from_str(&json).unwrap();
        says(
            lora.for_modules(&paths),
            &format!("LoraForModel::for_modules: {rest}"),
        );
        let ia3: Ia3ForModel = serde_json::from_str(&json).unwrap();
        says(
            ia3.for_modules(&paths),
            &format!("Ia3ForModel::for_modules: {rest}"),
        );
    }
    let broken: ForModel<VeraConfig> =
        serde_json::from_str(r#"{"targets": {"exclude_modules": "("}}"#).unwrap();
    says(
        broken.for_module("q"),
        "ForModel::for_module: `exclude_modules` holds `(`, which is not an expression here: Opening \
         parenthesis without closing parenthesis",
    );
}

/// The layer's keys and `targets` stand side by side; no key passes unread, at any level.
#[test]
fn the_settings_of_a_model_refuse_what_they_do_not_know() {
    for (json, expected) in [
        (r#"{"rang": 2}"#, "unknown field `rang`"),
        (
            r#"{"rank_pattern": {"q": 2}}"#,
            "unknown field `rank_pattern`",
        ),
        (
            r#"{"targets": {"target_module": []}}"#,
            "unknown field `target_module`",
        ),
        (r#"{"rank": 2, "rank": 3}"#, "duplicate field `rank`"),
        (
            r#"{"targets": {}, "targets": {}}"#,
            "duplicate field `targets`",
        ),
        (
            r#"{"rank": "2"}"#,
            "invalid type: string \"2\", expected usize",
        ),
        (
            r#"{"rank": -1}"#,
            "invalid value: integer `-1`, expected usize",
        ),
    ] {
        let error = serde_json::from_str::<ForModel<AdaLoraConfig>>(json).unwrap_err();
        assert!(error.to_string().starts_with(expected), "{json}: {error}");
    }
    for (json, expected) in [
        (
            r#"{"rang": 2}"#,
            "unknown field `rang`, expected one of `rank`, `alpha`",
        ),
        (r#"{"rank": 2, "rank": 3}"#, "duplicate field `rank`"),
        (r#"{"config": {"rank": 3}}"#, "unknown field `config`"),
    ] {
        let error = serde_json::from_str::<LoraForModel>(json).unwrap_err();
        assert!(error.to_string().starts_with(expected), "{json}: {error}");
    }
}
