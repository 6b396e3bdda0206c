//! What a state dict does not tell of a model whose output layer is its embedding.

use super::adapter_folder::{read, tensor, tensors};
use crate::common::adapters::golden;
use crate::common::says;
use candle_align::peft::{AdapterFile, BaseModel, Strictness};
use candle_core::{Device, Tensor};
use std::collections::HashMap;

const E: &str = "embed_tokens";
const H: &str = "lm_head";

/// The table under these names, and a layer.
fn base(names: &[&str]) -> HashMap<String, Tensor> {
    let mut base = tensors(&[("l.0.q.weight", &[3, 3])]);
    for name in names {
        base.insert(format!("{name}.weight"), tensor(&[5, 3]));
    }
    base
}

const Q_A: &str = "base_model.model.l.0.q.lora_A.weight";
const Q_B: &str = "base_model.model.l.0.q.lora_B.weight";
const DELTA: &str = "base_model.model.embed_tokens.token_adapter.trainable_tokens_delta";

fn config(targets: &str, more: &str) -> String {
    format!(r#"{{"peft_type": "LORA", "r": 2, "target_modules": {targets}{more}}}"#)
}

/// Adapters that mean another thing on a tied model; for `names` in the base.
fn saved(names: &str, more: &[(&str, &[usize])]) -> AdapterFile {
    let mut list: Vec<(&str, &[usize])> = vec![(Q_A, &[2, 3]), (Q_B, &[3, 2])];
    list.extend(more);
    read(
        &config(r#"["q"]"#, &format!(r#", "modules_to_save": [{names}]"#)),
        &list,
    )
}

fn rows(rows: &str, more: &[(&str, &[usize])]) -> AdapterFile {
    let mut list: Vec<(&str, &[usize])> = vec![(Q_A, &[2, 3]), (Q_B, &[3, 2])];
    list.extend(more);
    read(
        &config(
            r#"["q"]"#,
            &format!(r#", "trainable_token_indices": {rows}"#),
        ),
        &list,
    )
}

fn embedding() -> AdapterFile {
    read(
        &config(r#"["embed_tokens"]"#, ""),
        &[
            ("base_model.model.embed_tokens.lora_embedding_A", &[2, 5]),
            ("base_model.model.embed_tokens.lora_embedding_B", &[3, 2]),
        ],
    )
}

#[test]
fn a_base_without_an_output_layer_is_asked_whether_it_is_tied() {
    let whole = saved(
        r#""embed_tokens""#,
        &[("base_model.model.embed_tokens.weight", &[5, 3])],
    );
    let question = "`base` holds `embed_tokens.weight` and no output layer of its shape: of a tied model the output layer keeps the table that the adapter changes; say whether they are tied, by `BaseModel::tied` or `untied`";
    let one = base(&[E]);
    for file in [&whole, &embedding()] {
        says(
            file.layers(&one, Strictness::Strict),
            &format!("AdapterFile::layers: {question}"),
        );
        says(
            file.merged(&one, Strictness::Strict),
            &format!("AdapterFile::layers: {question}"),
        );
        let found = file.layers(&one, Strictness::Lenient).unwrap();
        assert_eq!(found.left_out, [question]);
        assert!(found.tied.is_empty());
        // said, it is no question
        let found = file
            .layers(BaseModel::untied(&one), Strictness::Strict)
            .unwrap();
        assert!(found.tied.is_empty());
        let found = file
            .layers(BaseModel::tied(&one, E, H), Strictness::Strict)
            .unwrap();
        assert_eq!(found.tied.keys().collect::<Vec<_>>(), ["lm_head.weight"]);
        // nor with an output layer of its own
        let mut two = one.clone();
        two.insert(
            "lm_head.weight".to_string(),
            (tensor(&[5, 3]) * 2.0).unwrap(),
        );
        assert!(file.layers(&two, Strictness::Strict).is_ok());
    }
    // a model of classes has no output layer over the vocabulary
    let classes = config(r#"["embed_tokens"]"#, r#", "task_type": "TOKEN_CLS""#);
    let file = read(
        &classes,
        &[
            ("base_model.model.embed_tokens.lora_embedding_A", &[2, 5]),
            ("base_model.model.embed_tokens.lora_embedding_B", &[3, 2]),
        ],
    );
    assert!(file.layers(&one, Strictness::Strict).is_ok());
    // rows of the only table are the rows of both
    let file = rows("[4]", &[(DELTA, &[1, 3])]);
    assert!(file.layers(&one, Strictness::Strict).is_ok());
}

#[test]
fn one_table_under_two_names_is_asked_whether_it_is_tied() {
    let question = "`base` holds one table as `embed_tokens.weight` and as `lm_head.weight`, and the adapter changes `embed_tokens.weight`: of a tied model it changes both; say whether they are tied, by `BaseModel::tied` or `untied`";
    let both = base(&[E, H]);
    let table = saved("", &[("base_model.model.embed_tokens.weight", &[5, 3])]);
    let mut changed = both.clone();
    for name in ["embed_tokens.weight", "lm_head.weight"] {
        changed.insert(name.to_string(), (&both[name] * 2.0).unwrap());
    }
    for (file, both) in [(rows("[4]", &[(DELTA, &[1, 3])]), &both), (table, &changed)] {
        says(
            file.layers(both, Strictness::Strict),
            &format!("AdapterFile::layers: {question}"),
        );
        let found = file.layers(both, Strictness::Lenient).unwrap();
        assert_eq!(found.left_out, [question]);
        let found = file
            .layers(BaseModel::untied(both), Strictness::Strict)
            .unwrap();
        assert!(found.tied.is_empty());
        let found = file
            .layers(BaseModel::tied(both, E, H), Strictness::Strict)
            .unwrap();
        let values = |t: &Tensor| t.to_vec2::<f32>().unwrap();
        assert_eq!(
            values(&found.tied["lm_head.weight"]),
            values(&found.weights["embed_tokens.weight"])
        );
    }
    // two tables
    let mut two = both.clone();
    two.insert(
        "lm_head.weight".to_string(),
        (tensor(&[5, 3]) * 2.0).unwrap(),
    );
    let file = rows("[4]", &[(DELTA, &[1, 3])]);
    assert!(file.layers(&two, Strictness::Strict).is_ok());
    // both said
    let head = DELTA.replace(E, H);
    let file = rows(
        r#"{"embed_tokens": [4], "lm_head": [0, 1]}"#,
        &[(DELTA, &[1, 3]), (&head, &[2, 3])],
    );
    assert!(file.layers(&both, Strictness::Strict).is_ok());
    // a layer of the same numbers is no output layer
    let mut other = base(&[E]);
    other.insert("l.0.up.weight".to_string(), tensor(&[5, 3]));
    let file = rows("[4]", &[(DELTA, &[1, 3])]);
    assert!(file.layers(&other, Strictness::Strict).is_ok());
    // what is saved whole, or under an adapter, is the one that is changed, tied or not
    let file = saved(
        r#""embed_tokens""#,
        &[("base_model.model.embed_tokens.weight", &[5, 3])],
    );
    assert!(file.layers(&changed, Strictness::Strict).is_ok());
    assert!(embedding().layers(&both, Strictness::Strict).is_ok());
}

#[test]
fn a_tie_that_is_none_is_refused() {
    let file = rows("[4]", &[(DELTA, &[1, 3])]);
    let refuses = |base: BaseModel, message: &str| {
        says(
            file.layers(base, Strictness::Lenient),
            &format!("AdapterFile::layers: `base` {message}"),
        );
    };
    let both = base(&[E, H]);
    refuses(
        BaseModel::tied(&both, "wte", "head"),
        "holds neither `wte.weight` nor `head.weight`, which are said to be one table",
    );
    refuses(
        BaseModel::tied(&both, E, E),
        "is said to tie `embed_tokens` to itself",
    );
    let differ = "holds `embed_tokens.weight` and `lm_head.weight`, which are said to be one table: they differ";
    for other in [(tensor(&[5, 3]) * 2.0).unwrap(), tensor(&[3, 5])] {
        let mut two = both.clone();
        two.insert("lm_head.weight".to_string(), other);
        refuses(BaseModel::tied(&two, E, H), differ);
    }
}

#[test]
fn what_a_base_lacks_is_named_with_what_to_do() {
    let advice = r#"; if the model ties it to `embed_tokens`, say so: `BaseModel::tied(&base, "embed_tokens", "lm_head")`"#;
    let (a, b) = (
        "base_model.model.lm_head.lora_A.weight",
        "base_model.model.lm_head.lora_B.weight",
    );
    let head = read(&config(r#"["lm_head"]"#, ""), &[(a, &[2, 3]), (b, &[5, 2])]);
    let one = base(&[E]);
    for strictness in [Strictness::Strict, Strictness::Lenient] {
        says(
            head.layers(&one, strictness),
            &format!(
                "AdapterFile::layers: `base` holds no module that the settings choose: no `lm_head.weight`, of which the file has an adapter{advice}"
            ),
        );
    }
    let list: [(&str, &[usize]); 4] = [(a, &[2, 3]), (b, &[5, 2]), (Q_A, &[2, 3]), (Q_B, &[3, 2])];
    says(
        read(&config(r#"["q", "lm_head"]"#, ""), &list).layers(&one, Strictness::Strict),
        &format!(
            "AdapterFile::layers: `adapter_model.safetensors` holds `{a}`, and `base` holds no `lm_head.weight`{advice}"
        ),
    );
    says(
        saved(
            r#""lm_head""#,
            &[("base_model.model.lm_head.weight", &[5, 3])],
        )
        .layers(&one, Strictness::Strict),
        &format!(
            "AdapterFile::layers: `adapter_model.safetensors` was made with `modules_to_save` = `lm_head`, which is not in `base`{advice}"
        ),
    );
    let delta = DELTA.replace(E, H);
    says(
        rows(r#"{"lm_head": [4]}"#, &[(&delta, &[1, 3])]).layers(&one, Strictness::Strict),
        &format!(
            "AdapterFile::layers: `adapter_model.safetensors` was made with `trainable_token_indices` of `lm_head`, of which `base` holds no table{advice}"
        ),
    );
    // what is no embedding, or one inside of a layer, is not what it is tied to
    let mut more = one.clone();
    more.extend(tensors(&[
        ("adapter.weight", &[5, 3]),
        ("a.0.embed_tokens.weight", &[5, 3]),
    ]));
    says(
        head.layers(&more, Strictness::Strict),
        &format!(
            "AdapterFile::layers: `base` holds no module that the settings choose: no `lm_head.weight`, of which the file has an adapter{advice}"
        ),
    );
    // there is nothing to tie it to
    let none = base(&[]);
    says(
        head.layers(&none, Strictness::Strict),
        "AdapterFile::layers: `base` holds no module that the settings choose: no `lm_head.weight`, of which the file has an adapter",
    );
    // said, all of these are read
    let tied = BaseModel::tied(&one, E, H);
    assert!(head.layers(tied, Strictness::Strict).is_ok());
    assert!(
        rows(r#"{"lm_head": [4]}"#, &[(&delta, &[1, 3])])
            .layers(tied, Strictness::Strict)
            .is_ok()
    );
}

#[test]
fn what_peft_makes_no_model_of_is_refused() {
    let tables: [(&str, &[usize]); 2] = [
        ("base_model.model.lm_head.weight", &[5, 3]),
        (DELTA, &[1, 3]),
    ];
    let mut list: Vec<(&str, &[usize])> = vec![(Q_A, &[2, 3]), (Q_B, &[3, 2])];
    list.extend(tables);
    let more = r#", "modules_to_save": ["lm_head"], "trainable_token_indices": [4]"#;
    let file = read(&config(r#"["q"]"#, more), &list);
    let one = base(&[E]);
    for strictness in [Strictness::Strict, Strictness::Lenient] {
        says(
            file.layers(BaseModel::tied(&one, E, H), strictness),
            "AdapterFile::layers: `trainable_token_indices` trains rows of `embed_tokens`, to which `lm_head` is tied, and `lm_head` whole: PEFT makes no model of both",
        );
    }
    // of an untied model both are meant
    let two = base(&[E, H]);
    assert!(
        file.layers(BaseModel::untied(&two), Strictness::Strict)
            .is_ok()
    );
    // two tables for one
    let (e, h) = (
        "base_model.model.embed_tokens.weight",
        "base_model.model.lm_head.weight",
    );
    let mut tensors: HashMap<String, Tensor> =
        tensors(&[(Q_A, &[2, 3]), (Q_B, &[3, 2]), (e, &[5, 3])]);
    let read = |tensors: &HashMap<String, Tensor>| {
        let folder = super::adapter_folder::folder(&config(r#"["q"]"#, ""), tensors);
        AdapterFile::read(folder.path(), Strictness::Strict).unwrap()
    };
    tensors.insert(h.to_string(), tensor(&[5, 3]));
    let found = read(&tensors)
        .layers(BaseModel::tied(&one, E, H), Strictness::Strict)
        .unwrap();
    assert_eq!(found.weights.len(), 2);
    tensors.insert(h.to_string(), (tensor(&[5, 3]) * 2.0).unwrap());
    says(
        read(&tensors).layers(BaseModel::tied(&one, E, H), Strictness::Strict),
        &format!(
            "AdapterFile::layers: `adapter_model.safetensors` holds `{e}` and `{h}`, which differ, and `base` has one table for both"
        ),
    );
}

/// They are put into neither of the two names of a tied table.
#[test]
fn rows_of_another_shape_are_named() {
    let one = base(&[E]);
    for (shape, shown) in [
        (&[2, 3][..], "[2, 3]"),
        (&[1, 4], "[1, 4]"),
        (&[3], "[3]"),
        (&[1, 1, 3], "[1, 1, 3]"),
    ] {
        let file = rows("[4]", &[(DELTA, shape)]);
        let note = format!("holds `{DELTA}` of shape {shown}, expected [1, 3]");
        says(
            file.layers(BaseModel::tied(&one, E, H), Strictness::Strict),
            &format!("AdapterFile::layers: `adapter_model.safetensors` {note}"),
        );
        let found = file
            .layers(BaseModel::tied(&one, E, H), Strictness::Lenient)
            .unwrap();
        assert_eq!(found.left_out, [note]);
        assert!(found.weights.is_empty() && found.tied.is_empty());
    }
}

/// A table that has its rows has no second place in the file.
#[test]
fn a_table_beside_its_own_rows_has_no_place() {
    let list: [(&str, &[usize]); 2] = [
        (DELTA, &[1, 3]),
        ("base_model.model.embed_tokens.weight", &[5, 3]),
    ];
    says(
        rows("[4]", &list).layers(BaseModel::untied(&base(&[E, H])), Strictness::Strict),
        "AdapterFile::layers: `adapter_model.safetensors` holds `base_model.model.embed_tokens.weight`, which the settings give no place",
    );
}

/// PEFT's own adapters of tied models, on a base of which nobody said that it is tied: an error, or the
/// model that PEFT has too.
#[test]
fn no_adapter_of_a_tied_model_is_read_as_another_without_a_word() {
    let load = |name: &str| candle_core::safetensors::load(golden(name), &Device::Cpu).unwrap();
    let one = load("tied.safetensors");
    let mut both = one.clone();
    both.insert(
        "lm_head.weight".to_string(),
        one["model.embed_tokens.weight"].copy().unwrap(),
    );
    for (name, with_one, with_both) in [
        ("tied_lora_embedding", false, true),
        ("tied_lora_head", false, true),
        ("tied_lora_both", false, true),
        ("tied_dora_head", false, true),
        ("tied_adalora_head", false, true),
        ("tied_ia3_head", false, true),
        ("tied_vera_head", false, true),
        ("tied_saved_embedding", false, true),
        ("tied_saved_head", false, true),
        ("tied_saved_both", false, true),
        // the one table is both
        ("tied_rows", true, false),
        ("tied_rows_embedding", true, false),
        ("tied_rows_head", false, false),
        ("tied_rows_both", false, false),
        ("tied_rows_differ", false, true),
        ("tied_table", true, false),
        ("tied_table_head", false, false),
    ] {
        let file = AdapterFile::read(golden(name), Strictness::Strict).unwrap();
        assert_eq!(
            file.layers(&one, Strictness::Strict).is_ok(),
            with_one,
            "{name}, one name"
        );
        assert_eq!(
            file.layers(&both, Strictness::Strict).is_ok(),
            with_both,
            "{name}, both names"
        );
    }
}
