//! Which paths an expression chooses: Python's `re`, in the three ways that PEFT uses it.

use candle_align::parameter_efficient::{LoraConfig, LoraForModel, TargetModules, Targets};
use serde::Deserialize;

#[derive(Deserialize)]
struct File {
    paths: Vec<String>,
    whole: Vec<Row>,
    end: Vec<Row>,
    segments: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    expression: String,
    chosen: Vec<String>,
}

fn file() -> File {
    let path = format!(
        "{}/tests/golden/expressions.json",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Each row against what `takes` says of every path.
fn compare(paths: &[String], rows: &[Row], takes: impl Fn(&str, &str) -> bool) {
    assert!(rows.len() >= 14);
    for row in rows {
        let chosen: Vec<_> = paths
            .iter()
            .filter(|path| takes(&row.expression, path))
            .collect();
        let want: Vec<_> = row.chosen.iter().collect();
        assert_eq!(chosen, want, "{}", row.expression);
    }
}

fn found<T, E: std::fmt::Display>(result: Result<T, E>, expression: &str) -> T {
    result.unwrap_or_else(|e| panic!("{expression}: {e}"))
}

#[test]
fn a_whole_path_is_pythons_fullmatch() {
    let file = file();
    for exclude in [false, true] {
        compare(&file.paths, &file.whole, |expression, path| {
            let pattern = TargetModules::Pattern(expression.to_string());
            let targets = match exclude {
                false => Targets {
                    target_modules: pattern,
                    ..Default::default()
                },
                true => Targets {
                    target_modules: TargetModules::AllLinear,
                    exclude_modules: pattern,
                    ..Default::default()
                },
            };
            found(targets.matches(path), expression) != exclude
        });
    }
}

#[test]
fn a_key_is_pythons_match_of_the_last_segments() {
    let file = file();
    compare(&file.paths, &file.end, |expression, path| {
        let key = expression.to_string();
        let config = LoraConfig {
            rank: 3,
            alpha: 3.0,
            ..Default::default()
        };
        let config = LoraForModel {
            config,
            rank_pattern: vec![(key.clone(), 5)],
            alpha_pattern: vec![(key, 5.0)],
            targets: Targets {
                target_modules: TargetModules::AllLinear,
                ..Default::default()
            },
        };
        let layer = found(config.for_module(path), expression).expect("all");
        assert_eq!(layer.rank as f64, layer.alpha, "{expression}: {path}");
        layer.rank == 5
    });
}

#[test]
fn a_module_to_save_is_pythons_match_of_whole_segments() {
    let file = file();
    compare(&file.paths, &file.segments, |expression, path| {
        let targets = Targets {
            target_modules: TargetModules::AllLinear,
            modules_to_save: vec![expression.to_string()],
            ..Default::default()
        };
        !found(targets.matches(path), expression)
    });
}
