//! Patterns of ranks in the settings: the first match counts, so their order is kept everywhere.

use super::whole_runs::{golden, quiet, tiny, whole};
use candle_align::parameter_efficient::Adapter;
use std::fs;
use train::checkpoint::load;
use train::checkpoint::settings::{Learned, Settings};

/// The ranks of the queries' maps in both layers.
fn ranks(settings: &Settings) -> [usize; 2] {
    let (decoder, _) = load::start(settings).unwrap();
    let layers = decoder.adapter_layers("default").unwrap();
    [0, 1].map(|number| {
        let layer = &layers[&format!("model.layers.{number}.self_attn.q_proj")];
        layer.vars()[0].1.dims()[0]
    })
}

// alphabetical order would put `layers` before `q_proj` in both
const ONE_FIRST: &str = r#"{"layers.1.*": 5, "q_proj": 2}"#;
const ALL_FIRST: &str = r#"{"q_proj": 2, "layers.1.*": 5}"#;

#[test]
fn the_first_match_counts_however_a_pattern_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.json");
    for (pattern, expected) in [(ONE_FIRST, [2, 5]), (ALL_FIRST, [2, 2])] {
        let plain = || tiny(Learned::Dpo, None, &dir.path().join("out"));
        let with = |settings: Settings, text: &str| settings.with(text).unwrap();
        let key = with(plain(), &format!("adapter.rank_pattern={pattern}"));
        assert_eq!(ranks(&key), expected);
        // other settings after it, and the key again
        let more = with(with(key.clone(), "adapter.r=3"), "fit.batch=3");
        assert_eq!(ranks(&more), expected);
        let whole = with(
            plain(),
            &format!(r#"adapter={{"r": 3, "rank_pattern": {pattern}}}"#),
        );
        assert_eq!(ranks(&whole), expected);
        // a file of the user's, and the one that a run writes
        let text = format!(
            r#"{{"model": {:?}, "data": {:?}, "adapter": {{"rank_pattern": {pattern}}}}}"#,
            golden("model"),
            golden("rows.jsonl")
        );
        fs::write(&config, text).unwrap();
        let read = Settings::read(&config).unwrap();
        assert_eq!(ranks(&read), expected);
        fs::write(&config, serde_json::to_string_pretty(&more).unwrap()).unwrap();
        assert_eq!(Settings::read(&config).unwrap(), more);
    }
    let alpha = tiny(Learned::Dpo, None, dir.path())
        .with(r#"adapter.alpha_pattern={"q_proj": 2, "layers": 4, "a": 1}"#)
        .unwrap();
    let text = serde_json::to_string(&alpha.adapter).unwrap();
    assert_eq!(
        text,
        r#"{"alpha_pattern":[["q_proj",2],["layers",4],["a",1]]}"#
    );
}

#[test]
fn a_run_goes_on_only_with_its_patterns_in_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let of = |name: &str, pattern: &str| {
        let settings = tiny(Learned::Dpo, None, &dir.path().join(name));
        settings
            .with(&format!("adapter.rank_pattern={pattern}"))
            .unwrap()
    };
    whole(&of("whole", ONE_FIRST));
    quiet(&of("stopped", ONE_FIRST), false, 6).unwrap();
    let error = quiet(&of("stopped", ALL_FIRST), true, 0).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("--resume: `adapter.rank_pattern` is "),
        "{error}"
    );
    quiet(&of("stopped", ONE_FIRST), true, 0).unwrap();
    let at = |name: &str| dir.path().join(name);
    super::whole_runs::same(&at("whole"), &at("stopped"), "patterns");
}
