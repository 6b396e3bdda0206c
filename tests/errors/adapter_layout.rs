//! Which way round a base keeps its weights, and what a single setting cannot say of it.

use super::adapter_folder::{read, tensors};
use crate::common::says;
use candle_align::peft::{AnyAdapter, Strictness};
use candle_core::Tensor;
use std::collections::HashMap;

fn config(setting: bool, targets: &str) -> String {
    format!(
        r#"{{"peft_type": "LORA", "r": 2, "target_modules": {targets}, "fan_in_fan_out": {setting}}}"#
    )
}

fn factors(path: &str, outputs: usize, inputs: usize) -> Vec<(String, Vec<usize>)> {
    vec![
        (
            format!("base_model.model.{path}.lora_A.weight"),
            vec![2, inputs],
        ),
        (
            format!("base_model.model.{path}.lora_B.weight"),
            vec![outputs, 2],
        ),
    ]
}

fn adapter(
    setting: bool,
    path: &str,
    outputs: usize,
    inputs: usize,
) -> candle_align::peft::AdapterFile {
    let name = path.rsplit('.').next().unwrap();
    let list = factors(path, outputs, inputs);
    let list: Vec<(&str, &[usize])> = list.iter().map(|(n, s)| (n.as_str(), &s[..])).collect();
    read(&config(setting, &format!(r#"["{name}"]"#)), &list)
}

/// Whether the layer over a square weight has its transpose.
fn turned(base: &HashMap<String, Tensor>, setting: bool, path: &str) -> bool {
    let file = adapter(setting, path, 4, 4);
    let found = file.layers(base, Strictness::Strict).unwrap();
    assert!(found.left_out.is_empty(), "{:?}", found.left_out);
    let AnyAdapter::Lora(layer) = &found.layers[path] else {
        panic!("{:?}", found.layers);
    };
    let values = |t: &Tensor| t.to_vec2::<f32>().unwrap();
    let (got, own) = (
        values(layer.base().weight()),
        &base[&format!("{path}.weight")],
    );
    assert!(got == values(own) || got == values(&own.t().unwrap()));
    got != values(own)
}

#[test]
fn the_blocks_of_gpt2_tell_which_way_round_they_are() {
    let names = |attn: &[usize], attn_bias: usize| {
        tensors(&[
            ("h.0.attn.c_attn.weight", attn),
            ("h.0.attn.c_attn.bias", &[attn_bias]),
            ("h.0.attn.c_proj.weight", &[4, 4]),
            ("h.0.attn.c_proj.bias", &[4]),
            ("lm_head.weight", &[4, 4]),
            ("h.0.attn.other.weight", &[4, 4]),
        ])
    };
    // Conv1D: [in, out], and the bias has the outputs
    let conv1d = names(&[4, 12], 12);
    // linear layers of the same names, as in GPT-BigCode: [out, in]
    let linear = names(&[12, 4], 12);
    for setting in [false, true] {
        assert!(turned(&conv1d, setting, "h.0.attn.c_proj"));
        assert!(!turned(&conv1d, setting, "lm_head"));
        assert!(!turned(&conv1d, setting, "h.0.attn.other"));
        assert!(!turned(&linear, setting, "h.0.attn.c_proj"));
    }
    // Conv1D has a bias always
    let bare = tensors(&[
        ("h.0.attn.c_attn.weight", &[12, 4]),
        ("h.0.attn.c_proj.weight", &[4, 4]),
    ]);
    assert!(!turned(&bare, false, "h.0.attn.c_proj"));
    assert!(!turned(&bare, true, "h.0.attn.c_proj"));
    // a bias of neither length tells nothing, and the next module does
    let mut odd = conv1d.clone();
    odd.extend(tensors(&[
        ("h.0.attn.c_attn.bias", &[7]),
        ("h.0.mlp.c_fc.weight", &[4, 16]),
        ("h.0.mlp.c_fc.bias", &[16]),
    ]));
    assert!(turned(&odd, false, "h.0.attn.c_proj"));
    // the first block says nothing of the second
    let mut mixed = linear.clone();
    for (name, tensor) in &conv1d {
        mixed.insert(name.replace("h.0", "transformer.h.1"), tensor.clone());
    }
    let second = "transformer.h.1.attn.c_proj";
    let list = [factors("h.0.attn.c_proj", 4, 4), factors(second, 4, 4)].concat();
    let list: Vec<(&str, &[usize])> = list.iter().map(|(n, s)| (n.as_str(), &s[..])).collect();
    let file = read(&config(false, r#"["c_proj"]"#), &list);
    let found = file.layers(&mixed, Strictness::Strict).unwrap();
    let AnyAdapter::Lora(layer) = &found.layers[second] else {
        panic!();
    };
    let values = |t: &Tensor| t.to_vec2::<f32>().unwrap();
    let own = mixed[&format!("{second}.weight")].t().unwrap();
    assert_eq!(values(layer.base().weight()), values(&own));
    // merged, each is as the base had it
    let merged = file.merged(&mixed, Strictness::Strict).unwrap().tensors;
    let delta = layer.delta().unwrap().t().unwrap();
    let want = (&mixed[&format!("{second}.weight")] + delta).unwrap();
    assert_eq!(values(&merged[&format!("{second}.weight")]), values(&want));
}

/// A name outside of such a block is that of a linear layer, whatever it is.
#[test]
fn a_name_alone_is_not_a_block() {
    for path in [
        "x.0.attn.c_proj",
        "h.a.attn.c_proj",
        "h.0.other.c_proj",
        "ch.0.attn.c_proj",
    ] {
        let base = tensors(&[
            (&format!("{path}.weight"), &[4, 4]),
            (&format!("{path}.bias"), &[4]),
        ]);
        assert!(!turned(&base, false, path), "{path}");
    }
}

#[test]
fn a_square_weight_of_which_nothing_tells_is_a_question() {
    let question = |setting: bool, path: &str| {
        format!(
            "`fan_in_fan_out` is {setting}, and nothing in `base` tells whether it keeps `{path}.weight`, which is square, as `[out, in]` or as `[in, out]`; a lenient reader takes the setting's word"
        )
    };
    let values = |t: &Tensor| t.to_vec2::<f32>().unwrap();
    for (path, setting) in [("m.0.q", true), ("h.0.attn.c_proj", false)] {
        let (weight, bias) = (format!("{path}.weight"), format!("{path}.bias"));
        let base = tensors(&[(&weight, &[4, 4]), (&bias, &[4])]);
        let file = adapter(setting, path, 4, 4);
        let message = question(setting, path);
        says(
            file.layers(&base, Strictness::Strict),
            &format!("AdapterFile::layers: {message}"),
        );
        let found = file.layers(&base, Strictness::Lenient).unwrap();
        assert_eq!(found.left_out, [message]);
        let AnyAdapter::Lora(layer) = &found.layers[path] else {
            panic!();
        };
        let own = match setting {
            true => base[&weight].t().unwrap(),
            false => base[&weight].clone(),
        };
        assert_eq!(values(layer.base().weight()), values(&own));
        // name and setting agree
        assert_eq!(turned(&base, !setting, path), !setting);
    }
}

#[test]
fn a_tensor_that_fits_the_other_way_round_names_the_setting() {
    let base = tensors(&[("m.0.q.weight", &[3, 5])]);
    for (setting, outputs, inputs) in [(false, 5, 3), (true, 3, 5)] {
        let (found, expected) = (format!("[2, {inputs}]"), format!("[2, {outputs}]"));
        let message = format!(
            "holds `base_model.model.m.0.q.lora_A.weight` of shape {found}, expected {expected}: over `m.0.q.weight` of shape [3, 5] it fits as `fan_in_fan_out` = {} would have it",
            !setting
        );
        says(
            adapter(setting, "m.0.q", outputs, inputs).layers(&base, Strictness::Strict),
            &format!("AdapterFile::layers: `adapter_model.safetensors` {message}"),
        );
        let error = adapter(setting, "m.0.q", outputs, inputs).layers(&base, Strictness::Lenient);
        assert!(error.unwrap_err().to_string().contains(&message));
        // the other way round it is read
        let file = adapter(!setting, "m.0.q", outputs, inputs);
        assert!(file.layers(&base, Strictness::Strict).is_ok());
        // what fits no way round names no setting
        let error = adapter(setting, "m.0.q", outputs, 4).layers(&base, Strictness::Strict);
        assert!(!error.unwrap_err().to_string().contains("fan_in_fan_out"));
    }
}

#[test]
fn every_method_names_the_setting() {
    let base = tensors(&[("q.weight", &[3, 5])]);
    let text = |name: &str, found: &str, expected: &str| {
        format!(
            "AdapterFile::layers: `adapter_model.safetensors` holds `base_model.model.q.{name}` of shape {found}, expected {expected}: over `q.weight` of shape [3, 5] it fits as `fan_in_fan_out` = true would have it"
        )
    };
    let adalora =
        r#"{"peft_type": "ADALORA", "init_r": 2, "total_step": 9, "target_modules": ["q"]}"#;
    let kept = adalora.replace("}", r#", "rank_pattern": {"q.lora_E": [true, false]}}"#);
    let inner = r#"{"peft_type": "IA3", "target_modules": ["q"], "feedforward_modules": ["q"]}"#;
    let outer = inner.replace(
        r#""feedforward_modules": ["q"]"#,
        r#""feedforward_modules": []"#,
    );
    let vera = r#"{"peft_type": "VERA", "r": 2, "target_modules": ["q"]}"#;
    for (config, list, message) in [
        (
            adalora,
            vec![("base_model.model.q.lora_A", &[2, 3][..])],
            text("lora_A", "[2, 3]", "[2, 5]"),
        ),
        (
            &kept,
            vec![("base_model.model.q.lora_A", &[1, 3][..])],
            text("lora_A", "[1, 3]", "[1, 5]"),
        ),
        (
            &outer,
            vec![("base_model.model.q.ia3_l", &[5, 1][..])],
            text("ia3_l", "[5, 1]", "[3, 1]"),
        ),
        (
            inner,
            vec![("base_model.model.q.ia3_l", &[1, 3][..])],
            text("ia3_l", "[1, 3]", "[1, 5]"),
        ),
        (
            vera,
            vec![("base_model.model.q.vera_lambda_b", &[5][..])],
            text("vera_lambda_b", "[5]", "[3]"),
        ),
    ] {
        says(
            read(config, &list).layers(&base, Strictness::Strict),
            &message,
        );
    }
}
