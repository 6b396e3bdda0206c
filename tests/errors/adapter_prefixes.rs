//! Names that begin otherwise than PEFT's: what is there, what was looked for, what would fit.

use super::adapter_folder::{read, tensor, tensors};
use crate::common::adapters::golden;
use crate::common::says;
use candle_align::peft::{AdapterFile, AnyAdapter, Strictness};
use candle_core::{Device, Tensor};
use std::collections::HashMap;
use std::fs;

const LORA: &str = r#"{"peft_type": "LORA", "r": 2, "target_modules": ["q", "v"]}"#;
const WANTED: &str = "base_model.model.m.0.q.lora_A.weight";

fn base() -> HashMap<String, Tensor> {
    tensors(&[("m.0.q.weight", &[2, 3]), ("m.0.v.weight", &[4, 3])])
}

/// An adapter under the names that `rename` makes of PEFT's.
fn renamed(rename: impl Fn(&str) -> String) -> AdapterFile {
    let shapes: [(&str, &[usize]); 4] = [
        ("m.0.q.lora_A.weight", &[2, 3]),
        ("m.0.q.lora_B.weight", &[2, 2]),
        ("m.0.v.lora_A.weight", &[2, 3]),
        ("m.0.v.lora_B.weight", &[4, 2]),
    ];
    let names = shapes.map(|(name, shape)| (rename(name), shape));
    let list: Vec<(&str, &[usize])> = names.iter().map(|(n, s)| (n.as_str(), *s)).collect();
    read(LORA, &list)
}

/// What a lenient reader takes for what it means too.
const WRAPPED: [(&str, &str); 8] = [
    (
        "module.base_model.model.m.0.",
        "without `module.` that would fit",
    ),
    (
        "base_model.model.module.m.0.",
        "with `base_model.model.` for `base_model.model.module.` that would fit",
    ),
    (
        "_orig_mod.base_model.model.m.0.",
        "without `_orig_mod.` that would fit",
    ),
    (
        "base_model.model._orig_mod.m.0.",
        "with `base_model.model.` for `base_model.model._orig_mod.` that would fit",
    ),
    (
        "base_model.model.base_model.model.m.0.",
        "without `base_model.model.` that would fit",
    ),
    ("m.0.", "with `base_model.model.` before it that would fit"),
    (
        "base_model.m.0.",
        "with `base_model.model.` for `base_model.` that would fit",
    ),
    (
        "base_model.model.m.0._orig_mod.",
        "the name without its wrappers would fit",
    ),
];

#[test]
fn a_wrong_prefix_is_shown_beside_the_right_one() {
    for (prefix, what) in WRAPPED {
        let file = renamed(|name| name.replace("m.0.", prefix));
        let message = format!(
            "AdapterFile::layers: `adapter_model.safetensors` holds no `{WANTED}`, of shape [2, 3]; it holds `{prefix}q.lora_A.weight`: {what}"
        );
        says(file.layers(&base(), Strictness::Strict), &message);
        says(file.merged(&base(), Strictness::Strict), &message);
    }
    // the base has the names of another wrapping
    let file = renamed(|name| format!("base_model.model.{}", name.replace("m.0", "model.m.0")));
    says(
        file.layers(&base(), Strictness::Strict),
        &format!(
            "AdapterFile::layers: `adapter_model.safetensors` holds no `{WANTED}`, of shape [2, 3]; it holds `base_model.model.model.m.0.q.lora_A.weight`: with `base_model.` for `base_model.model.` that would fit"
        ),
    );
}

#[test]
fn names_of_other_programs_are_named_as_such() {
    let kohya = |name: &str| {
        let name = name
            .replace("lora_A", "lora_down")
            .replace("lora_B", "lora_up");
        name.replace("m.0.", "lora_unet_m_0_")
    };
    let te = |name: &str| kohya(name).replace("lora_unet_", "lora_te_");
    let diffusers = |name: &str| {
        let name = name
            .replace("lora_A", "lora.down")
            .replace("lora_B", "lora.up");
        name.replace("m.0.", "unet.m.0.processor.to_")
    };
    let older = |name: &str| {
        let name = name
            .replace(".lora_A", "_lora.down")
            .replace(".lora_B", "_lora.up");
        name.replace("m.0.", "m.0.processor.to_")
    };
    let mlx = |name: &str| {
        let name = name.replace("lora_A.weight", "lora_a");
        name.replace("lora_B.weight", "lora_b")
    };
    type Rename<'a> = &'a dyn Fn(&str) -> String;
    let cases: [(Rename, &str); 5] = [
        (
            &kohya,
            "`lora_unet_m_0_q.lora_down.weight`, a name of kohya's scripts, where no dots are left in a module's path: save the adapter by PEFT",
        ),
        (
            &te,
            "`lora_te_m_0_q.lora_down.weight`, a name of kohya's scripts, where no dots are left in a module's path: save the adapter by PEFT",
        ),
        (
            &diffusers,
            "`unet.m.0.processor.to_q.lora.down.weight`, a name of diffusers: save the adapter by PEFT",
        ),
        (
            &older,
            "`m.0.processor.to_q_lora.down.weight`, a name of diffusers: save the adapter by PEFT",
        ),
        (
            &mlx,
            "`m.0.q.lora_a`, a name of MLX, whose A and B are the other way round: save their transposes under PEFT's names",
        ),
    ];
    for (rename, what) in cases {
        let file = renamed(rename);
        says(
            file.layers(&base(), Strictness::Strict),
            &format!(
                "AdapterFile::layers: `adapter_model.safetensors` holds no `{WANTED}`, of shape [2, 3]; it holds {what}"
            ),
        );
        // nor does a lenient reader take the base for the adapted model
        for strictness in [Strictness::Strict, Strictness::Lenient] {
            let error = file.merged(&base(), strictness).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }
    let file = renamed(|name| name.replace("lora_", "other_"));
    says(
        file.layers(&base(), Strictness::Strict),
        &format!(
            "AdapterFile::layers: `adapter_model.safetensors` holds no `{WANTED}`, of shape [2, 3]; all of its names have no place here, as `m.0.q.other_A.weight`"
        ),
    );
}

/// A tensor that is only missing has no other name.
#[test]
fn what_is_only_missing_gets_no_advice() {
    let all = [
        "base_model.model.m.0.q.lora_A.weight",
        "base_model.model.m.0.q.lora_B.weight",
        "base_model.model.m.0.v.lora_B.weight",
        "base_model.model.m.1.v.lora_A.weight",
        "other",
    ];
    let shapes: [&[usize]; 5] = [&[2, 3], &[2, 2], &[4, 2], &[2, 3], &[1]];
    let list: Vec<(&str, &[usize])> = all.into_iter().zip(shapes).collect();
    says(
        read(LORA, &list).layers(&base(), Strictness::Strict),
        "AdapterFile::layers: `adapter_model.safetensors` holds no `base_model.model.m.0.v.lora_A.weight`, of shape [2, 3]",
    );
}

#[test]
fn a_lenient_reader_takes_wrappers_for_what_they_mean_and_says_so() {
    let plain = renamed(|name| format!("base_model.model.{name}"));
    let want = plain.merged(&base(), Strictness::Strict).unwrap();
    assert!(want.left_out.is_empty());
    let values = |t: &Tensor| t.to_vec2::<f32>().unwrap();
    assert_ne!(
        values(&want.tensors["m.0.q.weight"]),
        values(&base()["m.0.q.weight"])
    );
    for (prefix, _) in WRAPPED {
        let file = renamed(|name| name.replace("m.0.", prefix));
        let found = file.layers(&base(), Strictness::Lenient).unwrap();
        let note = format!(
            "names `{prefix}q.lora_A.weight`, taken for `{WANTED}`, and 3 more in the same way"
        );
        assert_eq!(found.left_out, [note.as_str()], "{prefix}");
        let layers: Vec<&String> = found.layers.keys().collect();
        assert_eq!(layers, ["m.0.q", "m.0.v"], "{prefix}");
        let got = file.merged(&base(), Strictness::Lenient).unwrap();
        assert_eq!(got.left_out, [note.as_str()], "{prefix}");
        for (name, want) in &want.tensors {
            assert_eq!(values(&got.tensors[name]), values(want), "{prefix}, {name}");
        }
    }
}

#[test]
fn one_name_that_is_taken_for_another_is_named_alone() {
    let wrapped = format!("module.{WANTED}");
    let file = renamed(|name| {
        let name = format!("base_model.model.{name}");
        if name == WANTED {
            wrapped.clone()
        } else {
            name
        }
    });
    let found = file.layers(&base(), Strictness::Lenient).unwrap();
    let note = format!("names `{wrapped}`, taken for `{WANTED}`");
    assert_eq!(found.left_out, [note]);
    let layers: Vec<&String> = found.layers.keys().collect();
    assert_eq!(layers, ["m.0.q", "m.0.v"]);
}

/// A name that has its own place, or whose place is taken, is not taken for another.
#[test]
fn a_lenient_reader_does_not_guess() {
    let list: [(&str, &[usize]); 5] = [
        ("base_model.model.m.0.q.lora_A.weight", &[2, 3]),
        ("base_model.model.m.0.q.lora_B.weight", &[2, 2]),
        ("module.base_model.model.m.0.q.lora_A.weight", &[2, 3]),
        ("module.m.1.q.lora_B.weight", &[2, 2]),
        ("base_model.model.module.q.lora_A.weight", &[2, 3]),
    ];
    let mut base = base();
    base.insert("module.q.weight".to_string(), tensor(&[2, 3]));
    base.insert("q.weight".to_string(), tensor(&[2, 3]));
    let found = read(LORA, &list)
        .layers(&base, Strictness::Lenient)
        .unwrap();
    assert_eq!(found.layers.keys().collect::<Vec<_>>(), ["m.0.q"]);
    assert!(found.left_out.contains(&"holds `module.base_model.model.m.0.q.lora_A.weight`, which the settings give no place".to_string()));
    assert!(found.left_out.contains(
        &"holds `module.m.1.q.lora_B.weight`, which the settings give no place".to_string()
    ));
    assert!(
        !found.left_out.iter().any(|note| note.contains("taken for")),
        "{:?}",
        found.left_out
    );
}

/// All methods, in PEFT's own files.
#[test]
fn every_method_is_read_under_wrapped_names() {
    for name in [
        "dora",
        "adalora",
        "ia3",
        "vera",
        "lora_embedding",
        "lora_modules_to_save",
        "lora_tokens",
        "lora_bias_all",
    ] {
        let base =
            candle_core::safetensors::load(golden("stack.safetensors"), &Device::Cpu).unwrap();
        let plain = AdapterFile::read(golden(name), Strictness::Strict).unwrap();
        let want = plain.merged(&base, Strictness::Strict).unwrap();
        let wrapped: HashMap<String, Tensor> = plain
            .tensors()
            .iter()
            .map(|(name, tensor)| (format!("module.{name}"), tensor.clone()))
            .collect();
        let config = fs::read_to_string(golden(name).join("adapter_config.json")).unwrap();
        let folder = super::adapter_folder::folder(&config, &wrapped);
        let file = AdapterFile::read(folder.path(), Strictness::Lenient).unwrap();
        let error = file
            .layers(&base, Strictness::Strict)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("it holds `module.base_model."),
            "{name}: {error}"
        );
        assert!(
            error.ends_with("without `module.` that would fit"),
            "{name}: {error}"
        );
        let got = file.merged(&base, Strictness::Lenient).unwrap();
        assert_eq!(got.left_out.len(), 1, "{name}: {:?}", got.left_out);
        let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (parameter, want) in &want.tensors {
            assert_eq!(
                values(&got.tensors[parameter]),
                values(want),
                "{name}, {parameter}"
            );
        }
    }
}

/// The base unchanged is no answer to the question for the adapted model.
#[test]
fn an_adapter_of_which_nothing_is_left_is_an_error_in_every_manner() {
    let nothing =
        "AdapterFile::layers: `adapter_model.safetensors` holds nothing that could be applied: it ";
    for strictness in [Strictness::Strict, Strictness::Lenient] {
        let file = read(LORA, &[]);
        assert!(file.layers(&base(), strictness).is_err());
        assert!(file.merged(&base(), strictness).is_err());
    }
    says(
        read(LORA, &[]).merged(&base(), Strictness::Lenient),
        &format!(
            "{nothing}holds no `base_model.model.m.0.q.lora_A.weight`, of shape [2, 3]; holds no `base_model.model.m.0.v.lora_A.weight`, of shape [2, 3]"
        ),
    );
    let vera = r#"{"peft_type": "VERA", "r": 2, "target_modules": ["q"]}"#;
    let list: [(&str, &[usize]); 2] = [
        ("base_model.vera_A", &[2, 3]),
        ("base_model.vera_B", &[2, 2]),
    ];
    says(
        read(vera, &list).layers(&base(), Strictness::Lenient),
        &format!(
            "{nothing}holds no `base_model.model.m.0.q.vera_lambda_b`, of shape [2]; holds no `base_model.model.m.0.q.vera_lambda_d`, of shape [2]"
        ),
    );
    // a long list of problems makes no long message
    let list: Vec<(String, [usize; 1])> = (0..90).map(|i| (format!("other.{i}"), [1])).collect();
    let list: Vec<(&str, &[usize])> = list
        .iter()
        .map(|(name, s)| (name.as_str(), &s[..]))
        .collect();
    let error = read(LORA, &list)
        .layers(&base(), Strictness::Lenient)
        .unwrap_err()
        .to_string();
    assert!(error.ends_with("; and 88 problems more"), "{error}");
    // and what is left out of an adapter that is applied comes back
    let list: [(&str, &[usize]); 3] = [
        ("base_model.model.m.0.q.lora_A.weight", &[2, 3]),
        ("base_model.model.m.0.q.lora_B.weight", &[2, 2]),
        ("other", &[1]),
    ];
    let merged = read(LORA, &list)
        .merged(&base(), Strictness::Lenient)
        .unwrap();
    assert_eq!(
        merged.left_out,
        [
            "holds no `base_model.model.m.0.v.lora_A.weight`, of shape [2, 3]",
            "holds `other`, which the settings give no place",
        ]
    );
    let found = read(LORA, &list)
        .layers(&base(), Strictness::Lenient)
        .unwrap();
    assert!(matches!(found.layers["m.0.q"], AnyAdapter::Lora(_)));
}

#[test]
fn a_base_of_other_names_is_shown_beside_those_of_the_file() {
    let config = LORA.replace(r#"["q", "v"]"#, r#""model\\.m\\.\\d+\\.q""#);
    let list: [(&str, &[usize]); 2] = [
        ("base_model.model.model.m.0.q.lora_A.weight", &[2, 3]),
        ("base_model.model.model.m.0.q.lora_B.weight", &[2, 2]),
    ];
    says(
        read(&config, &list).layers(&base(), Strictness::Lenient),
        "AdapterFile::layers: `base` holds no module that the settings choose: no `model.m.0.q.weight`, of which the file has an adapter; it holds `m.0.q.weight`: with `model.` before it that would fit",
    );
}
