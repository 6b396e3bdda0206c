//! Sizes that no machine holds: an error that names the setting, before anything is made.

use crate::common::lora::{base, config, irregular, rng, table};
use crate::common::says;
use candle_align::Result;
use candle_align::online::reward_head::RewardHead;
use candle_align::parameter_efficient::{
    AdaLoraConfig, AdaLoraLinear, BlockScale, BottleneckAdapter, BottleneckConfig,
    DesignSpaceConfig, DoraLinear, Grouping, Insertion, LayerSize, LoraConfig, LoraEmbedding,
    LoraForModel, LoraLinear, MamConfig, Nf4Linear, PrefixConfig, PrefixEncoder, PrefixShape,
    PromptConfig, PromptEmbedding, PromptInit, QloraLinear, RankAllocator, RankAllocatorConfig,
    Reparametrization, TargetModules, Targets, VeraConfig, VeraLinear, VeraProjections,
};
use candle_align::peft::{PeftConfig, Strictness};
use candle_core::{DType, Device};
use serde::{Serialize, de::DeserializeOwned};

/// From a few gigabytes to what overflows.
const HUGE: [usize; 4] = [1_000_000_000, 1_000_000_000_000, 1 << 63, usize::MAX];

/// One integer setting: what reads it, its name, whether 0 is wrong too, and the reader.
struct Setting {
    what: &'static str,
    field: &'static str,
    zero: bool,
    read: Box<dyn Fn(usize) -> Result<()>>,
}

fn setting(
    what: &'static str,
    field: &'static str,
    read: impl Fn(usize) -> Result<()> + 'static,
) -> Setting {
    Setting {
        what,
        field,
        zero: true,
        read: Box::new(read),
    }
}

/// The settings as they are, and as they come back from JSON.
fn both<T: Serialize + DeserializeOwned + Clone>(
    settings: T,
    read: impl Fn(&T) -> Result<()>,
) -> Result<()> {
    let text = serde_json::to_string(&settings).unwrap();
    let again: T = serde_json::from_str(&text).unwrap();
    let (first, second) = (read(&settings), read(&again));
    assert_eq!(
        first.as_ref().map_err(|e| e.to_string()),
        second.as_ref().map_err(|e| e.to_string())
    );
    first
}

const F32: DType = DType::F32;
const CPU: &Device = &Device::Cpu;

fn lora(rank: usize, read: impl Fn(&LoraConfig) -> Result<()>) -> Result<()> {
    let settings = LoraConfig { rank, ..config() };
    both(settings, read)
}

fn prompt(length: usize, init: PromptInit) -> Result<()> {
    both(PromptConfig { length, init }, |config| {
        PromptEmbedding::new(&irregular(&[5, 4]), config, &mut rng(1)).map(drop)
    })
}

const SHAPE: PrefixShape = PrefixShape {
    layers: 2,
    heads: 3,
    head_dim: 4,
};

fn prefix(shape: PrefixShape, length: usize, reparametrization: Reparametrization) -> Result<()> {
    let settings = PrefixConfig {
        length,
        reparametrization,
    };
    both(settings, |config| {
        PrefixEncoder::new(shape, config, F32, CPU, &mut rng(1)).map(drop)
    })
}

/// A shape of a prefix, drawn and from values.
fn shape(shape: PrefixShape) -> Result<()> {
    shape.width(); // as far as it can be counted
    let values = PrefixEncoder::from_values(shape, &irregular(&[2, 48]));
    assert!(values.is_err());
    for inner in [None, Some(3)] {
        let form = match inner {
            None => Reparametrization::Direct,
            Some(inner) => Reparametrization::Mlp { inner },
        };
        prefix(shape, 2, form)?;
    }
    Ok(())
}

fn bottleneck(inputs: usize, outputs: usize, config: BottleneckConfig) -> Result<()> {
    both(config, |config| {
        BottleneckAdapter::new(inputs, outputs, config, F32, CPU, &mut rng(1)).map(drop)
    })
}

fn parallel() -> BottleneckConfig {
    BottleneckConfig {
        insertion: Insertion::Parallel,
        ..Default::default()
    }
}

/// A plan that also counts what it trains.
fn plan(per_layer: usize, size: LayerSize) -> Result<()> {
    let space = DesignSpaceConfig::default();
    for plan in space.plan(12, per_layer, &size)? {
        plan.parameters(&size);
    }
    Ok(())
}

const LAYER: LayerSize = LayerSize {
    dim: 10,
    kv_dim: 10,
    lora: 40,
    biases: 50,
};

/// Every integer setting of every adapter that makes something.
fn settings() -> Vec<Setting> {
    let linear = || base(F32);
    let mut rows = vec![
        setting("LoRA", "rank", move |n| {
            lora(n, |c| LoraLinear::new(&linear(), c, &mut rng(1)).map(drop))
        }),
        setting("LoRA, one by one", "rank", |n| {
            let one = candle_nn::Linear::new(irregular(&[1, 1]), None);
            lora(n, |c| LoraLinear::new(&one, c, &mut rng(1)).map(drop))
        }),
        setting("LoRA on an embedding", "rank", |n| {
            lora(n, |c| {
                LoraEmbedding::new(&table(F32), c, &mut rng(1)).map(drop)
            })
        }),
        setting("LoRA, a rank of its own", "rank", |n| {
            let settings = LoraForModel {
                rank_pattern: vec![("q".to_string(), n)],
                targets: Targets {
                    target_modules: TargetModules::AllLinear,
                    ..Default::default()
                },
                ..config().into()
            };
            both(settings, |c| {
                let layer = c.for_module("m.q")?.expect("chosen");
                LoraLinear::new(&base(F32), &layer, &mut rng(1)).map(drop)
            })
        }),
        setting("DoRA", "rank", |n| {
            lora(n, |c| DoraLinear::new(&base(F32), c, &mut rng(1)).map(drop))
        }),
        setting("QLoRA", "rank", |n| {
            let scale = BlockScale::Double;
            lora(n, |c| {
                QloraLinear::new(&base(F32), scale, c, &mut rng(1)).map(drop)
            })
        }),
        setting("QLoRA over four bits", "rank", |n| {
            let four = Nf4Linear::quantize(&base(F32), BlockScale::Single).unwrap();
            lora(n, |c| {
                QloraLinear::over(four.clone(), c, &mut rng(1)).map(drop)
            })
        }),
        setting("AdaLoRA", "rank", |n| {
            let settings = AdaLoraConfig {
                rank: n,
                ..Default::default()
            };
            both(settings, |c| {
                AdaLoraLinear::new(&base(F32), c, &mut rng(1)).map(drop)
            })
        }),
        setting("AdaLoRA of factors", "rank", |n| {
            let settings = AdaLoraConfig {
                rank: n,
                ..Default::default()
            };
            let (p, lambda, q) = (irregular(&[3, 2]), irregular(&[2, 1]), irregular(&[2, 4]));
            both(settings, |c| {
                AdaLoraLinear::from_factors(&base(DType::F64), c, &p, &lambda, &q).map(drop)
            })
        }),
        Setting {
            zero: false,
            ..setting("AdaLoRA's budget", "target_rank", |target_rank| {
                let settings = RankAllocatorConfig {
                    target_rank,
                    total_steps: 9,
                    ..Default::default()
                };
                let ada = AdaLoraConfig::default();
                let layer = AdaLoraLinear::new(&base(F32), &ada, &mut rng(1))?;
                let layers = vec![("q".to_string(), layer.clone()), ("v".to_string(), layer)];
                both(settings, |c| RankAllocator::new(&layers, c).map(drop))
            })
        },
        setting("VeRA", "rank", |n| {
            let settings = VeraConfig {
                rank: n,
                ..Default::default()
            };
            both(settings, |c| {
                VeraProjections::new(c, 4, 3, F32, CPU, &mut rng(1)).map(drop)
            })
        }),
        setting("VeRA, a layer", "rank", |n| {
            let settings = VeraConfig {
                rank: n,
                ..Default::default()
            };
            let two = VeraConfig {
                rank: 2,
                ..Default::default()
            };
            let shared = VeraProjections::new(&two, 4, 3, F32, CPU, &mut rng(1))?;
            both(settings, |c| {
                VeraLinear::new(&base(F32), &shared, c).map(drop)
            })
        }),
        setting("VeRA", "inputs", |n| {
            let config = VeraConfig::default();
            VeraProjections::new(&config, n, 3, F32, CPU, &mut rng(1)).map(drop)
        }),
        setting("VeRA", "outputs", |n| {
            let config = VeraConfig::default();
            VeraProjections::new(&config, 4, n, F32, CPU, &mut rng(1)).map(drop)
        }),
        setting("prompt, uniform", "length", |n| {
            prompt(n, PromptInit::Uniform)
        }),
        setting("prompt, of the vocabulary", "length", |n| {
            prompt(n, PromptInit::Vocabulary { common: 5 })
        }),
        setting("prompt, of labels", "length", |n| {
            prompt(
                n,
                PromptInit::Labels {
                    labels: vec![vec![1, 2]],
                    common: 5,
                },
            )
        }),
        setting("prompt, of a text", "length", |n| {
            prompt(n, PromptInit::Text { tokens: vec![1, 2] })
        }),
        setting("prefix", "length", |n| {
            prefix(SHAPE, n, Reparametrization::Direct)
        }),
        setting("prefix by a network", "length", |n| {
            prefix(SHAPE, n, Reparametrization::Mlp { inner: 3 })
        }),
        setting("prefix by a network", "inner", |inner| {
            prefix(SHAPE, 2, Reparametrization::Mlp { inner })
        }),
        setting("prefix", "layers", |layers| {
            shape(PrefixShape { layers, ..SHAPE })
        }),
        setting("prefix", "heads", |heads| {
            shape(PrefixShape { heads, ..SHAPE })
        }),
        setting("prefix", "head_dim", |head_dim| {
            shape(PrefixShape { head_dim, ..SHAPE })
        }),
        setting("adapter", "width", |width| {
            let config = BottleneckConfig {
                width,
                ..Default::default()
            };
            bottleneck(4, 4, config)
        }),
        Setting {
            zero: false,
            ..setting("adapter", "inputs", |n| bottleneck(n, 4, parallel()))
        },
        Setting {
            zero: false,
            ..setting("adapter", "outputs", |n| bottleneck(4, n, parallel()))
        },
        setting("MAM's prefix", "length", |length| {
            let mut settings = MamConfig::default();
            settings.prefix.length = length;
            both(settings, |c| {
                PrefixEncoder::new(SHAPE, &c.prefix, F32, CPU, &mut rng(1)).map(drop)
            })
        }),
        setting("MAM's adapter", "width", |width| {
            let mut settings = MamConfig::default();
            settings.adapter.width = width;
            both(settings, |c| {
                BottleneckAdapter::new(4, 3, &c.adapter, F32, CPU, &mut rng(1)).map(drop)
            })
        }),
        setting("design space, a spindle", "layers", |n| {
            both(DesignSpaceConfig::default(), |c| c.assign(n).map(drop))
        }),
        Setting {
            zero: false,
            ..setting("design space, of sizes", "layers", |n| {
                let settings = DesignSpaceConfig {
                    grouping: Grouping::Sizes(vec![n]),
                    strategies: vec![Default::default()],
                };
                both(settings, |c| c.assign(n).map(drop))
            })
        },
        setting("reward head", "dim", |dim| {
            RewardHead::new(dim, &mut rng(1), F32, CPU).map(drop)
        }),
    ];
    for (field, size) in [
        (
            "size.dim",
            (|dim| LayerSize { dim, ..LAYER }) as fn(usize) -> LayerSize,
        ),
        ("size.kv_dim", |kv_dim| LayerSize { kv_dim, ..LAYER }),
    ] {
        rows.push(Setting {
            zero: false,
            ..setting("design space", field, move |n| plan(10_000, size(n)))
        });
    }
    rows
}

#[test]
fn a_size_that_no_machine_holds_is_named() {
    for row in settings() {
        let zero = row.zero.then_some(0);
        for size in HUGE.into_iter().chain(zero) {
            let Err(error) = (row.read)(size) else {
                panic!("{}: no error for `{}` = {size}", row.what, row.field);
            };
            let message = error.to_string();
            let named = message.contains(&format!("`{}`", row.field));
            assert!(named, "{}, {size}: {message}", row.what);
            assert!(message.len() < 300, "{}: {message}", row.what);
        }
    }
}

#[test]
fn the_largest_size_and_one_more() {
    // 2²⁰, and 2³¹ elements of one tensor
    says(
        lora((1 << 20) + 1, |c| {
            LoraLinear::new(&base(F32), c, &mut rng(1)).map(drop)
        }),
        "LoraLinear::new: `rank` must be at most 1048576, got 1048577",
    );
    let wide = candle_nn::Linear::new(irregular(&[1, 2049]), None);
    says(
        lora(1 << 20, |c| {
            LoraLinear::new(&wide, c, &mut rng(1)).map(drop)
        }),
        "LoraLinear::new: `rank` must be small enough that no tensor has more than 2147483648 \
         elements, got one of [1048576, 2049]",
    );
    let shape = PrefixShape {
        layers: 1 << 7,
        heads: 1 << 7,
        head_dim: 1 << 7,
    };
    says(
        prefix(shape, 1 << 10, Reparametrization::Direct),
        "PrefixEncoder::new: `length` must be small enough that no tensor has more than 2147483648 \
         elements, got one of [1024, 4194304]",
    );
    says(
        prefix(shape, 1, Reparametrization::Mlp { inner: 1 << 10 }),
        "PrefixEncoder::new: `inner` must be small enough that no tensor has more than 2147483648 \
         elements, got one of [1024, 4194304]",
    );
    let shape = PrefixShape {
        layers: 1 << 20,
        heads: 1 << 20,
        head_dim: 1 << 20,
    };
    says(
        prefix(shape, 1, Reparametrization::Direct),
        "PrefixEncoder::new: `layers` must be small enough that no tensor has more than 2147483648 \
         elements, got one of [2, 1048576, 1048576, 1048576]",
    );
    says(
        bottleneck(
            1 << 20,
            1 << 20,
            BottleneckConfig {
                width: 1 << 20,
                ..Default::default()
            },
        ),
        "BottleneckAdapter::new: `width` must be small enough that no tensor has more than \
         2147483648 elements, got one of [1048576, 1048576]",
    );
    // a rank beyond both sides is pointless and allowed, as in PEFT
    lora(1000, |c| {
        LoraLinear::new(&base(F32), c, &mut rng(1)).map(drop)
    })
    .unwrap();
}

#[test]
fn counts_of_numbers_that_no_tensor_holds() {
    for count in [1 << 32, 1_000_000_000_000, 1 << 63, usize::MAX] {
        for (field, result) in [
            ("per_layer", plan(count, LAYER)),
            (
                "size.lora",
                plan(
                    10_000,
                    LayerSize {
                        lora: count,
                        ..LAYER
                    },
                ),
            ),
            (
                "size.biases",
                plan(
                    10_000,
                    LayerSize {
                        biases: count,
                        ..LAYER
                    },
                ),
            ),
        ] {
            says(
                result,
                &format!(
                    "DesignSpaceConfig::plan: `{field}` must be at most 2147483648, got {count}"
                ),
            );
        }
    }
}

#[test]
fn numbers_that_make_nothing_may_be_of_any_size() {
    // the vocabulary is shorter than this
    let config = PromptConfig {
        length: 2,
        init: PromptInit::Vocabulary { common: usize::MAX },
    };
    PromptEmbedding::new(&irregular(&[5, 4]), &config, &mut rng(1)).unwrap();
    // no path has such a layer
    let targets = Targets {
        target_modules: TargetModules::Names(vec!["q".to_string()]),
        layers_to_transform: HUGE.to_vec(),
        ..Default::default()
    };
    assert!(!targets.matches("m.layers.1.q").unwrap());
    // no training lasts so long: a schedule is arithmetic alone
    for huge in HUGE {
        let config = RankAllocatorConfig {
            target_rank: 1,
            initial_steps: 1,
            final_steps: 1,
            interval: huge,
            total_steps: huge,
            ..Default::default()
        };
        let ada = AdaLoraConfig::default();
        let layer = AdaLoraLinear::new(&base(F32), &ada, &mut rng(1)).unwrap();
        let allocator = RankAllocator::new(&[("q".to_string(), layer)], &config).unwrap();
        for step in HUGE {
            assert!((1..=12).contains(&allocator.budget(step)));
        }
        let late = RankAllocatorConfig {
            initial_steps: huge,
            final_steps: huge,
            ..config
        };
        let error = RankAllocator::new(&[], &late).unwrap_err();
        assert!(error.to_string().contains("`total_steps`"), "{error}");
    }
}

/// A file with these settings.
fn read(config: &str) -> Result<PeftConfig> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("adapter_config.json");
    std::fs::write(&path, config).unwrap();
    PeftConfig::read(&path, Strictness::Strict).map(|(config, _)| config)
}

#[test]
fn a_file_that_asks_for_such_a_size_is_named_with_its_key() {
    let lora = |key: &str| format!(r#"{{"peft_type": "LORA", "target_modules": ["q"], {key}}}"#);
    let prefix = |key: &str, rest: &str| {
        format!(r#"{{"peft_type": "PREFIX_TUNING", "{key}": SIZE, {rest}}}"#)
    };
    let rows = [
        ("r", lora(r#""r": SIZE"#)),
        ("rank_pattern", lora(r#""rank_pattern": {"q": SIZE}"#)),
        (
            "init_r",
            r#"{"peft_type": "ADALORA", "target_modules": ["q"], "total_step": 9, "init_r": SIZE}"#
                .to_string(),
        ),
        (
            "r",
            r#"{"peft_type": "VERA", "target_modules": ["q"], "r": SIZE}"#.to_string(),
        ),
        (
            "num_virtual_tokens",
            r#"{"peft_type": "PROMPT_TUNING", "token_dim": 4, "num_virtual_tokens": SIZE}"#
                .to_string(),
        ),
        (
            "token_dim",
            r#"{"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4, "token_dim": SIZE}"#
                .to_string(),
        ),
        (
            "num_virtual_tokens",
            prefix(
                "num_virtual_tokens",
                r#""token_dim": 4, "num_layers": 2, "num_attention_heads": 2"#,
            ),
        ),
        (
            "num_layers",
            prefix(
                "num_layers",
                r#""token_dim": 4, "num_virtual_tokens": 2, "num_attention_heads": 2"#,
            ),
        ),
        (
            "token_dim",
            prefix(
                "token_dim",
                r#""num_layers": 4, "num_virtual_tokens": 2, "num_attention_heads": 1"#,
            ),
        ),
    ];
    for (key, config) in rows {
        read(&config.replace("SIZE", "2")).unwrap();
        for size in HUGE.into_iter().chain([0]) {
            let Err(error) = read(&config.replace("SIZE", &size.to_string())) else {
                panic!("no error for {config} and {size}");
            };
            let message = error.to_string();
            let named = message.contains(&format!("holds `{key}` = {size}"));
            let file = message.contains("adapter_config.json`");
            assert!(named && file, "{message}");
        }
    }
}
