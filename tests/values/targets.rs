//! The choice of modules, and the settings of one of them.

use candle_align::parameter_efficient::{
    AdaLoraConfig, BottleneckConfig, ForModel, LoraBias, LoraConfig, LoraForModel, LoraInit,
    Scaling, TargetModules, Targets, VeraConfig,
};
use serde::de::DeserializeOwned;
use std::fmt::Debug;

fn config(json: &str) -> LoraForModel {
    serde_json::from_str(json).unwrap()
}

fn targets(json: &str) -> Targets {
    serde_json::from_str(json).unwrap()
}

const PATHS: [&str; 6] = [
    "model.layers.0.attn.q",
    "model.layers.0.attn.v",
    "model.layers.1.attn.q",
    "model.layers.1.attn.v",
    "model.layers.1.mlp.up",
    "lm_head",
];

#[test]
fn the_settings_of_a_module_are_resolved_and_nothing_is_lost() {
    let whole = config(
        r#"{"rank": 4, "alpha": 6.0, "scaling": "rank_sqrt", "dropout": 0.2, "init": "gaussian",
            "bias": "update", "rank_pattern": {"layers.1.attn.q": 9, "q": 2},
            "alpha_pattern": {"up": 1.5}, "targets": {"target_modules": ["q", "up"]}}"#,
    );
    let layer = |rank, alpha| LoraConfig {
        rank,
        alpha,
        scaling: Scaling::RankSqrt,
        dropout: 0.2,
        init: LoraInit::Gaussian,
        bias: LoraBias::Update,
    };
    let want = [
        (PATHS[0], layer(2, 6.0)),
        (PATHS[2], layer(9, 6.0)),
        (PATHS[4], layer(4, 1.5)),
    ];
    let found = whole.for_modules(&PATHS).unwrap();
    assert_eq!(found.len(), 3);
    for ((path, config), (want_path, want)) in found.iter().zip(&want) {
        assert_eq!((path.as_str(), config), (*want_path, want));
        assert_eq!(whole.for_module(path).unwrap().as_ref(), Some(want));
    }
    assert_eq!(want[1].1.scale(), 6.0 / 3.0);
    assert!(whole.for_module("lm_head").unwrap().is_none());
}

/// The settings of every method's layers, chosen in the same way.
#[test]
fn all_methods_take_targets_alike() {
    fn check<C>(of_layer: &str, want: C)
    where
        C: Clone + Debug + Default + DeserializeOwned + PartialEq + serde::Serialize,
    {
        let choice = r#"{"target_modules": ["q", "up"], "layers_to_transform": [1]}"#;
        let whole = format!(r#"{{{of_layer}, "targets": {choice}}}"#);
        let whole: ForModel<C> = serde_json::from_str(&whole).unwrap();
        let direct = ForModel {
            config: want.clone(),
            targets: targets(choice),
        };
        assert_eq!(whole, direct);
        let found = whole.for_modules(&PATHS).unwrap();
        let chosen = [PATHS[2], PATHS[4]].map(|path| (path.to_string(), want.clone()));
        assert_eq!(found, chosen);
        for path in PATHS {
            let alone = found.iter().find(|(chosen, _)| chosen == path);
            let alone = alone.map(|(_, config)| config.clone());
            assert_eq!(whole.for_module(path).unwrap(), alone);
        }
        // the keys of the layer and the targets stand side by side
        let json = serde_json::to_value(&whole).unwrap();
        let mut side = serde_json::to_value(&want).unwrap();
        side["targets"] = serde_json::to_value(&whole.targets).unwrap();
        assert_eq!(json, side);
        assert_eq!(serde_json::from_value::<ForModel<C>>(json).unwrap(), whole);
        let none: ForModel<C> = serde_json::from_str("{}").unwrap();
        assert_eq!(none, ForModel::default());
    }
    let ada_lora = AdaLoraConfig {
        rank: 3,
        alpha: 2.0,
        ..Default::default()
    };
    check(r#""rank": 3, "alpha": 2"#, ada_lora);
    let vera = VeraConfig {
        rank: 5,
        d_initial: 0.25,
        ..Default::default()
    };
    check(r#""rank": 5, "d_initial": 0.25"#, vera);
    let lora = LoraConfig {
        bias: LoraBias::Base,
        ..Default::default()
    };
    check(r#""bias": "base""#, lora);
    let adapter = BottleneckConfig {
        width: 7,
        ..Default::default()
    };
    check(r#""width": 7"#, adapter);
}

#[test]
fn the_first_key_that_fits_decides_and_the_order_survives_json() {
    let text = r#"{"q":2,"layers.1.attn.q":8,"a":3}"#;
    let whole = config(&format!(
        r#"{{"rank_pattern": {text}, "targets": {{"target_modules": "all-linear"}}}}"#
    ));
    let rank = |config: &LoraForModel| config.for_module(PATHS[2]).unwrap().unwrap().rank;
    assert_eq!(rank(&whole), 2);
    let again = serde_json::to_string(&whole).unwrap();
    assert!(again.contains(text), "{again}");
    let again = config(&again);
    assert_eq!((rank(&again), &again), (2, &whole));
    let mut turned = whole.clone();
    turned.rank_pattern.swap(0, 1);
    assert_eq!(rank(&turned), 8);
    assert_ne!(turned, whole);
    // a key twice has no order
    let twice = r#"{"rank_pattern": {"q": 2, "v": 1, "q": 3}}"#;
    let error = serde_json::from_str::<LoraForModel>(twice).unwrap_err();
    assert!(error.to_string().starts_with("the key `q` stands twice"));
}

#[test]
fn targets_are_a_list_or_a_word_in_json() {
    for (json, want) in [
        (
            r#"["q","v"]"#,
            TargetModules::Names(vec!["q".into(), "v".into()]),
        ),
        (r#"".*q""#, TargetModules::Pattern(".*q".into())),
        (r#""all-linear""#, TargetModules::AllLinear),
    ] {
        let found: TargetModules = serde_json::from_str(json).unwrap();
        assert_eq!(found, want);
        assert_eq!(serde_json::to_string(&found).unwrap(), json);
    }
    let loud: TargetModules = serde_json::from_str(r#""All-Linear""#).unwrap();
    assert_eq!(loud, TargetModules::AllLinear);
    assert!(serde_json::from_str::<Targets>(r#"{"target_module": []}"#).is_err());
}

#[test]
fn all_linear_is_all_that_is_asked_about_but_what_is_left_out() {
    let all = targets(
        r#"{"target_modules": "all-linear", "exclude_modules": ["lm_head"], "modules_to_save": ["mlp"]}"#,
    );
    let chosen: Vec<_> = PATHS.iter().filter(|p| all.matches(p).unwrap()).collect();
    assert_eq!(chosen, [&PATHS[0], &PATHS[1], &PATHS[2], &PATHS[3]]);
    assert_eq!(all.choose(&PATHS).unwrap(), PATHS[..4]);
    assert!(!Targets::default().matches("q").unwrap());
}

#[test]
fn a_number_too_large_for_a_layer_is_no_layer() {
    let first = targets(r#"{"target_modules": ["q"], "layers_to_transform": [1]}"#);
    assert!(!first.matches("m.layers.99999999999999999999999.q").unwrap());
    let named = Targets {
        layers_pattern: vec!["layers".into()],
        ..first
    };
    assert!(!named.matches("m.layers.99999999999999999999999.q").unwrap());
    assert!(named.matches("m.layers.1.q").unwrap());
}
