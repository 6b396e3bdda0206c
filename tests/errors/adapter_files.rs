//! Files that are not what they should be: what is wrong, by file, key or tensor.

use super::adapter_folder::tensor;
use crate::common::says;
use candle_align::Result;
use candle_align::parameter_efficient::{
    AdaLoraConfig, AdaLoraScaling, BlockScale, DoraLinear, ForModel, Ia3Linear, Ia3Place, LoraBias,
    LoraConfig, LoraForModel, LoraLinear, PrefixEncoder, PrefixShape, PromptEmbedding, QloraLinear,
    RankAllocatorConfig, TargetModules, Targets, VeraConfig, VeraLinear, VeraProjections,
};
use candle_align::peft::{
    AdaLoraFile, AdapterFile, AdapterMethod, AnyAdapter, LoraFile, ModelAdapters, PeftConfig,
    PrefixFile, PromptFile, Strictness, TaskType, VeraFile,
};
use candle_core::{DType, Tensor};
use candle_nn::Linear;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::HashMap;
use std::fs;

fn base() -> HashMap<String, Tensor> {
    HashMap::from([
        ("m.0.q.weight".to_string(), tensor(&[2, 3])),
        ("m.0.q.bias".to_string(), tensor(&[2])),
        ("m.0.up.weight".to_string(), tensor(&[4, 2])),
        ("m.norm.weight".to_string(), tensor(&[3])),
    ])
}

/// A folder of these two files, and the path of the folder in messages as `DIR`.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(config: &str, tensors: &[(&str, &[usize])]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        fs::write(folder.0.path().join("adapter_config.json"), config).unwrap();
        let tensors: HashMap<String, Tensor> = tensors
            .iter()
            .map(|(name, shape)| (name.to_string(), tensor(shape)))
            .collect();
        let at = folder.0.path().join("adapter_model.safetensors");
        candle_core::safetensors::save(&tensors, at).unwrap();
        folder
    }

    fn bytes(self, content: &[u8]) -> Self {
        fs::write(self.0.path().join("adapter_model.safetensors"), content).unwrap();
        self
    }

    fn read(&self) -> Result<AdapterFile> {
        AdapterFile::read(self.0.path(), Strictness::Strict)
    }

    #[track_caller]
    fn says<T>(&self, result: Result<T>, message: &str) {
        let folder = self.0.path().display().to_string();
        says(result, &message.replace("DIR", &folder));
    }
}

const A: &str = "base_model.model.m.0.q.lora_A.weight";
const B: &str = "base_model.model.m.0.q.lora_B.weight";
const LORA: &str = r#"{"peft_type": "LORA", "r": 2, "target_modules": ["q"]}"#;

#[test]
fn a_file_that_is_not_there_is_named() {
    let folder = Folder::new(LORA, &[]);
    fs::remove_file(folder.0.path().join("adapter_model.safetensors")).unwrap();
    folder.says(
        folder.read(),
        "AdapterFile::read: `DIR/adapter_model.safetensors` cannot be read: No such file or directory (os error 2)",
    );
    fs::remove_file(folder.0.path().join("adapter_config.json")).unwrap();
    folder.says(
        folder.read(),
        "AdapterFile::read: `DIR/adapter_config.json` cannot be read: No such file or directory (os error 2)",
    );
}

#[test]
fn a_setting_is_named_with_its_value() {
    for (text, message) in [
        (
            "[]",
            "is not a config: invalid type: sequence, expected an object at line 1 column 0",
        ),
        (
            "{\"r\": 1, \"r\": 2}",
            "is not a config: the key `r` stands twice at line 1 column 16",
        ),
        ("{}", "holds no `peft_type`"),
        (
            r#"{"peft_type": "lora"}"#,
            "holds `peft_type` = \"lora\", which is not supported: known are LORA, ADALORA, IA3, VERA, PROMPT_TUNING and PREFIX_TUNING",
        ),
        (
            r#"{"peft_type": "LORA", "target_modules": ["q"], "rank": 8}"#,
            "holds `rank`, which is no key of LORA in PEFT 0.21.2",
        ),
        (
            r#"{"peft_type": "LORA", "target_modules": ["q"], "r": "8"}"#,
            "holds `r` = \"8\": invalid type: string \"8\", expected a whole number, 0 or more",
        ),
        (
            r#"{"peft_type": "LORA"}"#,
            "holds `target_modules` = null, which is not supported: it stands for a table of known models; name the modules",
        ),
        (
            r#"{"peft_type": "LORA", "target_modules": ["q"], "task_type": "CLS"}"#,
            "holds `task_type` = \"CLS\": unknown variant `CLS`, expected one of `SEQ_CLS`, `SEQ_2_SEQ_LM`, `CAUSAL_LM`, `TOKEN_CLS`, `QUESTION_ANS`, `FEATURE_EXTRACTION`",
        ),
        (
            r#"{"peft_type": "LORA", "target_modules": ["q"], "rank_pattern": {"q": 1, "q": 2}}"#,
            "holds `rank_pattern` = {\"q\": 1, \"q\": 2}: the key `q` stands twice",
        ),
        (
            r#"{"peft_type": "ADALORA", "target_modules": ["q"]}"#,
            "holds no `total_step`",
        ),
        (
            r#"{"peft_type": "ADALORA", "target_modules": ["q"], "total_step": 9, "rank_pattern": {"q": [true]}}"#,
            "holds `rank_pattern` with the key `q`, not a path and `.lora_E`",
        ),
        (
            r#"{"peft_type": "ADALORA", "target_modules": ["q"], "total_step": 9, "use_rslora": true}"#,
            "holds `use_rslora` = true, which is not supported: AdaLoRA has only its default",
        ),
        (
            r#"{"peft_type": "VERA", "target_modules": ["q"], "save_projection": false}"#,
            "holds `save_projection` = false, which is not supported: a file without projections depends on the random numbers of one Python library",
        ),
        (
            r#"{"peft_type": "PROMPT_TUNING", "num_transformer_submodules": 2}"#,
            "holds `num_transformer_submodules` = 2, which is not supported: a prompt of an encoder and a decoder is two prompts",
        ),
        (
            r#"{"peft_type": "PREFIX_TUNING", "token_dim": 10, "num_attention_heads": 4}"#,
            "holds `token_dim` = 10, not a multiple of the 4 heads",
        ),
        (
            r#"{"peft_type": "IA3", "target_modules": ["q"]}"#,
            "holds `feedforward_modules` = null, which is not supported: it stands for a table of known models; name the modules, or none by `[]`",
        ),
        (
            r#"{"peft_type": "LORA", "target_modules": ["q"], "qalora_group_size": 1e999}"#,
            "holds `qalora_group_size` = 1e999: number out of range",
        ),
        (
            r#"{"peft_type": "LORA", "target_modules": ["q"], "use_qalora": 1e999}"#,
            "holds `use_qalora` = 1e999: number out of range",
        ),
        (
            r#"{"peft_type": "LORA", "target_modules": ["q"], "bias": "all", "lora_bias": true}"#,
            "holds `bias` = \"all\", which is not supported: beside `lora_bias` only \"none\" is",
        ),
        (
            r#"{"peft_type": "LORA", "target_modules": ["q"], "bias": "vera_only"}"#,
            "holds `bias` = \"vera_only\", which is not supported: known are \"none\", \"lora_only\" and \"all\"",
        ),
        (
            r#"{"peft_type": "LORA", "target_modules": ["q"], "lora_bias": true, "use_dora": true}"#,
            "holds `use_dora` = true, which is not supported: beside `lora_bias` it is not",
        ),
    ] {
        let folder = Folder::new(text, &[]);
        let message = format!("AdapterFile::read: `DIR/adapter_config.json` {message}");
        folder.says(folder.read(), &message);
    }
}

#[test]
fn settings_without_tensors_are_read_as_strictly() {
    let folder = Folder::new(LORA, &[]);
    let path = folder.0.path().join("adapter_config.json");
    fs::remove_file(folder.0.path().join("adapter_model.safetensors")).unwrap();
    let (config, left_out) = PeftConfig::read(&path, Strictness::Strict).unwrap();
    assert!(left_out.is_empty());
    assert_eq!(config.method.targets().unwrap(), &names(&["q"]));
    fs::write(&path, LORA.replace("\"r\"", "\"rank\"")).unwrap();
    folder.says(
        PeftConfig::read(&path, Strictness::Strict),
        "PeftConfig::read: `DIR/adapter_config.json` holds `rank`, which is no key of LORA in PEFT \
         0.21.2",
    );
    fs::remove_file(&path).unwrap();
    folder.says(
        PeftConfig::read(&path, Strictness::Strict),
        "PeftConfig::read: `DIR/adapter_config.json` cannot be read: No such file or directory (os \
         error 2)",
    );
}

#[test]
fn what_is_not_supported_is_refused_by_name_by_a_lenient_reader_too() {
    for (key, value) in [
        ("alora_invocation_tokens", "[1]"),
        ("arrow_config", "{}"),
        ("ensure_weight_tying", "true"),
        ("kasa_config", "{}"),
        ("layer_replication", "[[0, 1]]"),
        ("loftq_config", "{\"bits\": 4}"),
        ("megatron_config", "{}"),
        ("monteclora_config", "{}"),
        ("target_parameters", "[\"q.weight\"]"),
        ("use_bdlora", "{}"),
        ("use_qalora", "true"),
        ("velora_config", "{}"),
        ("init_lora_weights", "\"pissa\""),
        ("init_lora_weights", "\"pissa_niter_16\""),
        ("init_lora_weights", "\"olora\""),
        ("init_lora_weights", "\"loftq\""),
        ("init_lora_weights", "\"corda\""),
        ("init_lora_weights", "\"lora_ga\""),
    ] {
        // why each start is refused stands in `adapter_settings.rs`
        for method in ["LORA", "ADALORA"] {
            let text = format!(
                r#"{{"peft_type": "{method}", "target_modules": ["q"], "total_step": 9, "{key}": {value}}}"#
            );
            let folder = Folder::new(&text, &[]);
            let message = format!(
                "AdapterFile::read: `DIR/adapter_config.json` holds `{key}` = {value}, which is not supported: "
            );
            let read = AdapterFile::read(folder.0.path(), Strictness::Lenient);
            if key != "init_lora_weights" {
                folder.says(read, &format!("{message}only its default is"));
                continue;
            }
            let dir = folder.0.path().display().to_string();
            let (error, message) = (read.unwrap_err().to_string(), message.replace("DIR", &dir));
            assert!(error.starts_with(&message), "{error}");
        }
    }
}

#[test]
fn what_says_how_an_adapter_was_made_is_of_no_effect() {
    let plain = Folder::new(LORA, &[]).read().unwrap();
    for (key, value) in [
        ("corda_config", "{\"corda_method\": \"kpm\"}"),
        ("eva_config", "{\"rho\": 2.0}"),
        ("lora_ga_config", "{\"direction\": \"ArB2r\"}"),
        ("megatron_core", "\"other\""),
        ("qalora_group_size", "32"),
        ("init_lora_weights", "\"eva\""),
        ("init_lora_weights", "\"mica\""),
    ] {
        let text = LORA.replace("}", &format!(", \"{key}\": {value}}}"));
        let read = Folder::new(&text, &[]).read().unwrap();
        assert_eq!(read.config(), plain.config(), "{key}");
    }
    // any dict, as in PEFT
    let text = LORA.replace("}", r#", "auto_mapping": {"a": {"b": [1, null]}}}"#);
    let read = Folder::new(&text, &[]).read().unwrap();
    let found = read.config().auto_mapping.clone().unwrap();
    assert_eq!(serde_json::Value::Object(found)["a"]["b"][0], 1);
}

/// A safetensors file with this header.
fn safetensors(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(vec![0; data]);
    bytes
}

#[test]
fn a_header_that_lies_is_named_with_its_tensor() {
    let huge = [u64::MAX.to_le_bytes().to_vec(), vec![0; 9]].concat();
    let long = |length: u64| [length.to_le_bytes().to_vec(), vec![b' '; 9]].concat();
    let not_text = [2u64.to_le_bytes().to_vec(), vec![0xff, 0xfe]].concat();
    for (bytes, message) in [
        (vec![0; 7], "is cut short: it has 7 bytes"),
        (Vec::new(), "is cut short: it has 0 bytes"),
        (
            huge,
            "claims a header of 18446744073709551615 bytes, above 100000000",
        ),
        (long(1000), "is cut short: it has 17 bytes"),
        (long(100_000_000), "is cut short: it has 17 bytes"),
        (
            long(100_000_001),
            "claims a header of 100000001 bytes, above 100000000",
        ),
        (
            not_text,
            "has a header that is not one: expected value at line 1 column 1",
        ),
        (
            safetensors("[]", 0),
            "has a header that is not one: invalid type: sequence, expected an object at line 1 column 0",
        ),
        (
            safetensors(r#"{"a": 1, "a": 2}"#, 0),
            "has a header that is not one: the key `a` stands twice at line 1 column 16",
        ),
        (
            safetensors(r#"{"__metadata__": {"a": 1}}"#, 0),
            "has `__metadata__` that is no text: invalid type: integer `1`, expected a string at line 1 column 7",
        ),
        (
            safetensors(
                r#"{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}"#,
                4,
            ),
            "describes `a` wrongly: invalid value: integer `-1`, expected u64 at line 1 column 29",
        ),
        (
            safetensors(
                r#"{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], "x": 0}}"#,
                4,
            ),
            "describes `a` wrongly: unknown field `x`, expected one of `dtype`, `shape`, `data_offsets` at line 1 column 58",
        ),
        (
            safetensors(
                r#"{"a": {"dtype": "F33", "shape": [1], "data_offsets": [0, 4]}}"#,
                4,
            ),
            "holds `a`, which is F33; an adapter holds F64, F32, BF16 or F16",
        ),
        (
            safetensors(
                r#"{"a": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 0]}}"#,
                0,
            ),
            "holds `a`, whose shape overflows",
        ),
        (
            safetensors(
                r#"{"a": {"dtype": "F32", "shape": [0, 4294967296, 4294967296], "data_offsets": [0, 0]}}"#,
                0,
            ),
            "holds `a`, whose shape overflows",
        ),
        (
            safetensors(
                r#"{"a": {"dtype": "F32", "shape": [1,1,1,1,1,1,1,1,1], "data_offsets": [0, 4]}}"#,
                4,
            ),
            "holds `a`, which has more than 8 axes",
        ),
        (
            safetensors(
                r#"{"a": {"dtype": "F32", "shape": [1000000000000], "data_offsets": [0, 4000000000000]}}"#,
                4,
            ),
            "holds `a`, whose bytes are cut short",
        ),
        (
            safetensors(
                r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}"#,
                4,
            ),
            "holds `a`, of shape [2], which takes 8 bytes, at bytes 0 to 4",
        ),
        (
            safetensors(
                r#"{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}"#,
                4,
            ),
            "holds `a`, before which bytes belong to no tensor",
        ),
        (
            safetensors(
                r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "b": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}"#,
                8,
            ),
            "holds `b`, which overlaps another tensor",
        ),
        (
            safetensors(
                r#"{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "b": {"dtype": "F32", "shape": [1], "data_offsets": [8, 12]}}"#,
                12,
            ),
            "holds `b`, before which bytes belong to no tensor",
        ),
        (
            safetensors(
                r#"{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}"#,
                9,
            ),
            "has 5 bytes that belong to no tensor",
        ),
    ] {
        let folder = Folder::new(LORA, &[]).bytes(&bytes);
        let message = format!("AdapterFile::read: `DIR/adapter_model.safetensors` {message}");
        folder.says(folder.read(), &message);
    }
    let axes = r#"{"a": {"dtype": "F32", "shape": [1,1,1,1,1,1,1,1], "data_offsets": [0, 4]}}"#;
    let folder = Folder::new(LORA, &[]).bytes(&safetensors(axes, 4));
    assert_eq!(folder.read().unwrap().tensors()["a"].rank(), 8);
}

#[track_caller]
fn refuses(config: &str, tensors: &[(&str, &[usize])], message: &str) {
    let file = Folder::new(config, tensors).read().unwrap();
    says(
        file.layers(&base(), Strictness::Strict),
        &format!("AdapterFile::layers: {message}"),
    );
}

#[test]
fn a_tensor_that_does_not_fit_the_settings_is_named() {
    let both: [(&str, &[usize]); 2] = [(A, &[2, 3]), (B, &[2, 2])];
    assert!(
        Folder::new(LORA, &both)
            .read()
            .unwrap()
            .layers(&base(), Strictness::Strict)
            .is_ok()
    );
    refuses(
        LORA,
        &both[..1],
        "`adapter_model.safetensors` holds no `base_model.model.m.0.q.lora_B.weight`, of shape [2, 2]",
    );
    refuses(
        LORA,
        &both[1..],
        "`adapter_model.safetensors` holds no `base_model.model.m.0.q.lora_A.weight`, of shape [2, 3]",
    );
    refuses(
        LORA,
        &[(A, &[3, 2]), both[1]],
        "`adapter_model.safetensors` holds `base_model.model.m.0.q.lora_A.weight` of shape [3, 2], expected [2, 3]",
    );
    refuses(
        LORA,
        &[both[0], (B, &[2, 3])],
        "`adapter_model.safetensors` holds `base_model.model.m.0.q.lora_B.weight` of shape [2, 3], expected [2, 2]",
    );
    refuses(
        LORA,
        &[both[0], both[1], ("m.0.q.lora_A.weight", &[2, 3])],
        "`adapter_model.safetensors` holds `m.0.q.lora_A.weight`, which the settings give no place",
    );
    refuses(
        LORA,
        &[both[0], both[1], ("base_model.model.m.0.q.weight", &[2, 3])],
        "`adapter_model.safetensors` holds `base_model.model.m.0.q.weight`, which the settings give no place",
    );
    refuses(
        LORA,
        &[both[0], both[1], ("base_model.model.m.norm.weight", &[2])],
        "`adapter_model.safetensors` holds `base_model.model.m.norm.weight` of shape [2], expected [3]",
    );
    // a rank that no file could hold asks for no memory
    refuses(
        r#"{"peft_type": "LORA", "r": 1000000, "target_modules": ["q"]}"#,
        &both,
        "`adapter_model.safetensors` holds `base_model.model.m.0.q.lora_A.weight` of shape [2, 3], expected [1000000, 3]",
    );
    refuses(
        r#"{"peft_type": "ADALORA", "init_r": 1000000, "total_step": 9, "target_modules": ["q"]}"#,
        &[],
        "`adapter_model.safetensors` holds no `base_model.model.m.0.q.lora_A`, of shape [1000000, 3]",
    );
    refuses(
        r#"{"peft_type": "VERA", "r": 1000000, "target_modules": ["q", "up"]}"#,
        &[],
        "`adapter_model.safetensors` holds no `base_model.vera_A`, of shape [1000000, 3]",
    );
    refuses(
        r#"{"peft_type": "ADALORA", "init_r": 2, "total_step": 9, "target_modules": ["q"], "rank_pattern": {"m.0.q.lora_E": [true]}}"#,
        &[],
        "`rank_pattern` has 1 entries for `m.0.q`, and the rank is 2",
    );
    refuses(
        r#"{"peft_type": "ADALORA", "init_r": 2, "total_step": 9, "target_modules": ["q"], "rank_pattern": {"m.1.q.lora_E": [true]}}"#,
        &[],
        "`adapter_model.safetensors` has a `rank_pattern` for `m.1.q`, which the settings do not choose",
    );
    refuses(
        r#"{"peft_type": "LORA", "r": 2, "target_modules": ["q"], "use_dora": true}"#,
        &both,
        "`adapter_model.safetensors` holds no `base_model.model.m.0.q.lora_magnitude_vector`, of shape [2]",
    );
    refuses(
        r#"{"peft_type": "LORA", "r": 2, "target_modules": ["up"], "use_dora": true}"#,
        &[("base_model.model.m.0.up.lora_embedding_A", &[2, 4])],
        "`adapter_model.safetensors` holds `m.0.up` as an embedding under DoRA, which is not supported",
    );
    refuses(
        r#"{"peft_type": "LORA", "r": 2, "target_modules": ["q"], "modules_to_save": ["up"]}"#,
        &both,
        "`adapter_model.safetensors` holds no `base_model.model.m.0.up.weight`, of shape [4, 2]",
    );
    refuses(
        r#"{"peft_type": "LORA", "r": 2, "target_modules": ["q"], "modules_to_save": ["head"]}"#,
        &both,
        "`adapter_model.safetensors` was made with `modules_to_save` = `head`, which is not in `base`",
    );
    refuses(
        r#"{"peft_type": "LORA", "target_modules": ["v"]}"#,
        &[],
        "`base` holds no module that the settings choose",
    );
    refuses(
        r#"{"peft_type": "LORA", "target_modules": ["norm"]}"#,
        &[],
        "`base` holds `m.norm.weight` with 1 axes; the settings choose `m.norm`, and only linear layers and embeddings have an adapter",
    );
    refuses(
        r#"{"peft_type": "LORA", "target_modules": "All-Linear"}"#,
        &[],
        "`target_modules` chooses \"all-linear\", which needs the model itself: name the modules",
    );
    refuses(
        r#"{"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 1, "token_dim": 1}"#,
        &[],
        "`self` is of a prompt or a prefix, which has no layers",
    );
}

#[test]
fn of_all_biases_each_must_be_there() {
    let config = r#"{"peft_type": "LORA", "r": 2, "target_modules": ["q"], "bias": "all"}"#;
    let own = "base_model.model.m.0.q.base_layer.bias";
    let (up, norm) = (
        "base_model.model.m.0.up.bias",
        "base_model.model.m.norm.bias",
    );
    let mut base = base();
    base.insert("m.0.up.bias".to_string(), tensor(&[4]));
    base.insert("m.norm.bias".to_string(), tensor(&[3]));
    let all: [(&str, &[usize]); 5] = [
        (A, &[2, 3]),
        (B, &[2, 2]),
        (own, &[2]),
        (up, &[4]),
        (norm, &[3]),
    ];
    let read = |tensors: &[(&str, &[usize])]| Folder::new(config, tensors).read().unwrap();
    let found = read(&all).layers(&base, Strictness::Strict).unwrap();
    assert_eq!(
        found.weights.keys().collect::<Vec<_>>(),
        ["m.0.up.bias", "m.norm.bias"]
    );
    says(
        read(&all[..4]).layers(&base, Strictness::Strict),
        "AdapterFile::layers: `adapter_model.safetensors` holds no `base_model.model.m.norm.bias`, of shape [3]",
    );
    let found = read(&all[..3]).layers(&base, Strictness::Lenient).unwrap();
    assert!(found.weights.is_empty());
    assert_eq!(
        found.left_out,
        [
            "holds no `base_model.model.m.0.up.bias`, of shape [4]",
            "holds no `base_model.model.m.norm.bias`, of shape [3]",
        ]
    );
}

#[test]
fn a_lenient_reader_leaves_out_and_says_so() {
    let config = r#"{"peft_type": "LORA", "r": 2, "target_modules": ["q", "up"], "new": 1}"#;
    let named: [(&str, &[usize]); 5] = [
        ("base_model.model.m.1.q.lora_A.default.weight", &[1]),
        ("base_model.model.m.1.q.lora_A.weight", &[1]),
        ("base_model.model.m.0.q.lora_A.default.weight", &[2, 3]),
        ("base_model.model.m.0.q.lora_B.default.weight", &[2, 2]),
        ("other", &[1]),
    ];
    let folder = Folder::new(config, &named);
    assert!(folder.read().is_err());
    let file = AdapterFile::read(folder.0.path(), Strictness::Lenient).unwrap();
    assert_eq!(file.left_out(), ["new"]);
    assert!(file.layers(&base(), Strictness::Strict).is_err());
    let found = file.layers(&base(), Strictness::Lenient).unwrap();
    assert_eq!(found.layers.keys().collect::<Vec<_>>(), ["m.0.q"]);
    assert_eq!(
        found.left_out,
        [
            "holds no `base_model.model.m.0.up.lora_A.weight`, of shape [2, 2]",
            "holds `base_model.model.m.1.q.lora_A.default.weight`, and `base` holds no `m.1.q.weight`",
            "holds `base_model.model.m.1.q.lora_A.weight`, and `base` holds no `m.1.q.weight`",
            "holds `other`, which the settings give no place",
        ]
    );
}

#[test]
fn the_names_of_a_magnitude_in_memory_are_its_names_in_a_file() {
    let config = r#"{"peft_type": "LORA", "r": 2, "target_modules": ["q"], "use_dora": true}"#;
    let folder = Folder::new(
        config,
        &[
            ("base_model.model.m.0.q.lora_A.default.weight", &[2, 3]),
            ("base_model.model.m.0.q.lora_B.default.weight", &[2, 2]),
            (
                "base_model.model.m.0.q.lora_magnitude_vector.default.weight",
                &[2],
            ),
        ],
    );
    let file = AdapterFile::read(folder.0.path(), Strictness::Lenient).unwrap();
    let found = file.layers(&base(), Strictness::Strict).unwrap();
    assert_eq!(found.layers.len(), 1);
}

/// A model of classes has one of the two heads that PEFT names.
#[test]
fn one_head_is_enough_for_a_task_of_classes() {
    let config = |task: &str, names: &str| {
        format!(
            r#"{{"peft_type": "LORA", "r": 2, "target_modules": ["q"], "task_type": "{task}",
                "modules_to_save": [{names}]}}"#
        )
    };
    let tensors: [(&str, &[usize]); 3] = [
        (A, &[2, 3]),
        (B, &[2, 2]),
        ("base_model.model.score.weight", &[2, 3]),
    ];
    let mut base = base();
    base.insert("score.weight".to_string(), tensor(&[2, 3]));
    let both = r#""classifier", "score""#;
    let read = |task, names| {
        let file = Folder::new(&config(task, names), &tensors).read().unwrap();
        file.layers(&base, Strictness::Strict)
    };
    for task in ["SEQ_CLS", "TOKEN_CLS"] {
        let found = read(task, both).unwrap();
        assert_eq!(found.weights.keys().collect::<Vec<_>>(), ["score.weight"]);
    }
    let message = |name: &str| {
        format!(
            "AdapterFile::layers: `adapter_model.safetensors` was made with `modules_to_save` = `{name}`, which is not in `base`"
        )
    };
    says(read("CAUSAL_LM", both), &message("classifier"));
    assert!(read("SEQ_CLS", r#""classifier""#).is_ok());
    let other = r#""classifier", "other", "score""#;
    says(read("SEQ_CLS", other), &message("other"));
}

/// Rows of a table that were trained on their own.
#[test]
fn rows_of_a_table_are_named_and_checked() {
    let config = |rows: &str| {
        format!(
            r#"{{"peft_type": "LORA", "r": 2, "target_modules": ["q"], "trainable_token_indices": {rows}}}"#
        )
    };
    let delta = "base_model.model.m.0.up.token_adapter.trainable_tokens_delta";
    let tensors: [(&str, &[usize]); 3] = [(A, &[2, 3]), (B, &[2, 2]), (delta, &[2, 2])];
    let read = |rows: &str, tensors: &[(&str, &[usize])]| {
        let file = Folder::new(&config(rows), tensors).read().unwrap();
        file.layers(&base(), Strictness::Strict)
    };
    let file = Folder::new(&config("[3, 1]"), &tensors).read().unwrap();
    let found = file.layers(&base(), Strictness::Strict).unwrap();
    let values = |t: &Tensor| t.to_vec2::<f32>().unwrap();
    let (got, rows) = (
        values(&found.weights["m.0.up.weight"]),
        values(&tensor(&[2, 2])),
    );
    let old = values(&tensor(&[4, 2]));
    assert_eq!(got, [&old[0], &rows[1], &old[2], &rows[0]].map(Vec::clone));
    let again = AdapterFile::from_layers(file.config().clone(), &found).unwrap();
    assert_eq!(values(&again.tensors()[delta]), rows);
    let mut without = found.clone();
    without.weights.clear();
    says(
        AdapterFile::from_layers(file.config().clone(), &without),
        "AdapterFile::from_layers: `layers` holds no table of `tokens` = ``",
    );
    let mut more = found.clone();
    more.weights
        .insert("head.weight".to_string(), tensor(&[4, 2]));
    says(
        AdapterFile::from_layers(file.config().clone(), &more),
        "AdapterFile::from_layers: `layers` holds more than one table: name those of `tokens`",
    );
    // a name may be that of several tables, each with its rows
    let mut named = file.config().clone();
    if let AdapterMethod::Lora(file) = &mut named.method {
        file.tokens = [("up".to_string(), vec![3, 1])].into();
    }
    says(
        AdapterFile::from_layers(named.clone(), &without),
        "AdapterFile::from_layers: `layers` holds no table of `tokens` = `up`",
    );
    let mut several = found.clone();
    several
        .weights
        .insert("m.1.up.weight".to_string(), tensor(&[4, 2]));
    let several = AdapterFile::from_layers(named, &several).unwrap();
    assert_eq!(
        several.tensors()[&delta.replace("m.0", "m.1")].dims(),
        [2, 2]
    );
    // rows without a name beside named ones are written as they were read
    let mixed = r#"{"": [0], "up": [3, 1]}"#;
    let mixed = Folder::new(&config(mixed), &tensors).read().unwrap();
    let folder = tempfile::tempdir().unwrap();
    mixed.write(folder.path()).unwrap();
    let again = AdapterFile::read(folder.path(), Strictness::Strict).unwrap();
    assert_eq!(again.config(), mixed.config());
    // one that is trained whole is none of rows
    let mut config_of_both = file.config().clone();
    if let AdapterMethod::Lora(file) = &mut config_of_both.method {
        file.model.targets.modules_to_save = vec!["head".to_string()];
    }
    let both = AdapterFile::from_layers(config_of_both, &more).unwrap();
    assert_eq!(
        both.tensors()["base_model.model.head.weight"].dims(),
        [4, 2]
    );
    assert_eq!(both.tensors()[delta].dims(), [2, 2]);
    for (rows, message) in [
        ("[4, 1]", "`trainable_token_indices` of `` name row 4 of 4"),
        (
            "[1, 1]",
            "`trainable_token_indices` of `` must be one or more rows, each named once",
        ),
        (
            r#"{"up": []}"#,
            "`trainable_token_indices` of `up` must be one or more rows, each named once",
        ),
        (
            r#"{"q": [1, 0]}"#,
            "`trainable_token_indices` of `q` are rows of `m.0.q`, which is no table or has an adapter",
        ),
        (
            r#"{"norm": [1, 0]}"#,
            "`trainable_token_indices` of `norm` are rows of `m.norm`, which is no table or has an adapter",
        ),
        (
            r#"{"embed": [1, 0]}"#,
            "`adapter_model.safetensors` was made with `trainable_token_indices` of `embed`, of which `base` holds no table",
        ),
        (
            "[1]",
            "`adapter_model.safetensors` holds `base_model.model.m.0.up.token_adapter.trainable_tokens_delta` of shape [2, 2], expected [1, 2]",
        ),
    ] {
        says(
            read(rows, &tensors),
            &format!("AdapterFile::layers: {message}"),
        );
    }
    says(
        read("null", &tensors),
        "AdapterFile::layers: `adapter_model.safetensors` holds `base_model.model.m.0.up.token_adapter.trainable_tokens_delta`, which the settings give no place",
    );
    let text = config(r#"[true]"#);
    let folder = Folder::new(&text, &[]);
    folder.says(
        folder.read(),
        "AdapterFile::read: `DIR/adapter_config.json` holds `trainable_token_indices` = [true]: invalid type: boolean `true`, expected a whole number, 0 or more; it is a list of rows, or an object of names and lists of rows",
    );
}

/// An output layer that is the embedding, under one name or two.
#[test]
fn an_adapter_on_a_tied_output_layer_needs_its_name() {
    let config = r#"{"peft_type": "LORA", "r": 2, "target_modules": ["lm_head"]}"#;
    let a = "base_model.model.lm_head.lora_A.weight";
    let b = "base_model.model.lm_head.lora_B.weight";
    let file = Folder::new(config, &[(a, &[2, 3]), (b, &[4, 2])]);
    let file = file.read().unwrap();
    let table = tensor(&[4, 3]);
    let mut base = HashMap::from([("embed.weight".to_string(), table.clone())]);
    says(
        file.layers(&base, Strictness::Strict),
        "AdapterFile::layers: `base` holds no module that the settings choose: no `lm_head.weight`, of \
         which the file has an adapter; if the model ties it to `embed`, say so: \
         `BaseModel::tied(&base, \"embed\", \"lm_head\")`",
    );
    let both = config.replace(r#"["lm_head"]"#, r#"["embed", "lm_head"]"#);
    let table_a = "base_model.model.embed.lora_embedding_A";
    let table_b = "base_model.model.embed.lora_embedding_B";
    let two: [(&str, &[usize]); 4] = [
        (table_a, &[2, 4]),
        (table_b, &[3, 2]),
        (a, &[2, 3]),
        (b, &[4, 2]),
    ];
    let both = Folder::new(&both, &two).read().unwrap();
    says(
        both.layers(&base, Strictness::Strict),
        "AdapterFile::layers: `adapter_model.safetensors` holds `base_model.model.lm_head.lora_A.weight`, and `base` holds no `lm_head.weight`; if the model ties it to `embed`, say so: `BaseModel::tied(&base, \"embed\", \"lm_head\")`",
    );
    // under both names only the one with the adapter is changed
    base.insert("lm_head.weight".to_string(), table.clone());
    let merged = file.merged(&base, Strictness::Strict).unwrap().tensors;
    let values = |t: &Tensor| t.to_vec2::<f32>().unwrap();
    assert_eq!(values(&merged["embed.weight"]), values(&table));
    assert_ne!(values(&merged["lm_head.weight"]), values(&table));
}

#[test]
fn a_prompt_or_a_prefix_is_one_tensor_of_its_shape() {
    let prompt = r#"{"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 2, "token_dim": 3}"#;
    let prefix = r#"{"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 2, "token_dim": 4,
        "num_attention_heads": 2, "num_layers": 1}"#;
    let read = |config, tensors: &[(&str, &[usize])]| Folder::new(config, tensors).read().unwrap();
    assert!(
        read(prompt, &[("prompt_embeddings", &[2, 3])])
            .prompt()
            .is_ok()
    );
    assert!(
        read(prefix, &[("prompt_embeddings", &[2, 8])])
            .prefix()
            .is_ok()
    );
    says(
        read(prompt, &[("prompt_embeddings", &[3, 2])]).prompt(),
        "AdapterFile::prompt: `adapter_model.safetensors` holds `prompt_embeddings` of shape [3, 2], expected [2, 3]",
    );
    says(
        read(prompt, &[]).prompt(),
        "AdapterFile::prompt: `adapter_model.safetensors` holds no `prompt_embeddings`, of shape [2, 3]",
    );
    says(
        read(prefix, &[("prompt_embeddings", &[2, 8]), ("x", &[1])]).prefix(),
        "AdapterFile::prefix: `adapter_model.safetensors` holds `x`, which the settings give no place",
    );
    says(
        read(prefix, &[]).prompt(),
        "AdapterFile::prompt: `self` is not of prompt tuning",
    );
    says(
        read(prompt, &[]).prefix(),
        "AdapterFile::prefix: `self` is not of prefix tuning",
    );

    let values = PromptEmbedding::from_values(&tensor(&[2, 3])).unwrap();
    let config = |length| {
        PeftConfig::from(AdapterMethod::Prompt(PromptFile {
            length,
            dim: 3,
            layers: None,
            heads: None,
        }))
    };
    assert!(AdapterFile::from_prompt(config(2), &values).is_ok());
    says(
        AdapterFile::from_prompt(config(3), &values),
        "AdapterFile::from_prompt: `config` is not of a prompt of 2 vectors of 3 numbers",
    );
    let shape = PrefixShape {
        layers: 1,
        heads: 2,
        head_dim: 2,
    };
    let values = PrefixEncoder::from_values(shape, &tensor(&[2, 8])).unwrap();
    let config = |length| PeftConfig::from(AdapterMethod::Prefix(PrefixFile { length, shape }));
    assert!(AdapterFile::from_prefix(config(2), &values).is_ok());
    says(
        AdapterFile::from_prefix(config(1), &values),
        "AdapterFile::from_prefix: `config` is not of a prefix of length 2 and PrefixShape { layers: 1, heads: 2, head_dim: 2 }",
    );
}

fn names(names: &[&str]) -> Targets {
    Targets {
        target_modules: TargetModules::Names(names.iter().map(|n| n.to_string()).collect()),
        ..Default::default()
    }
}

fn lora(bias: LoraBias) -> ModelAdapters {
    let config = LoraConfig {
        rank: 2,
        bias,
        ..Default::default()
    };
    let base = Linear::new(tensor(&[2, 3]), Some(tensor(&[2])));
    let layer = LoraLinear::new(&base, &config, &mut StdRng::seed_from_u64(1)).unwrap();
    let layers = [("m.0.q".to_string(), AnyAdapter::Lora(layer))].into();
    ModelAdapters {
        layers,
        ..Default::default()
    }
}

#[track_caller]
fn cannot(method: AdapterMethod, layers: &ModelAdapters, message: &str) {
    says(
        AdapterFile::from_layers(PeftConfig::from(method), layers),
        &format!("AdapterFile::from_layers: {message}"),
    );
}

#[test]
fn layers_that_are_not_those_of_the_settings_are_named() {
    let config = LoraConfig {
        rank: 2,
        ..Default::default()
    };
    let model = LoraForModel {
        targets: names(&["q"]),
        ..config.clone().into()
    };
    let file = LoraFile {
        model: model.clone(),
        ..Default::default()
    };
    let whole = |model: LoraForModel| {
        AdapterMethod::Lora(LoraFile {
            model,
            ..file.clone()
        })
    };
    let of = |config: LoraConfig| {
        whole(LoraForModel {
            config,
            ..model.clone()
        })
    };
    let layers = lora(LoraBias::Frozen);
    assert!(AdapterFile::from_layers(PeftConfig::from(of(config.clone())), &layers).is_ok());
    let empty = ModelAdapters::default();
    cannot(of(config.clone()), &empty, "`layers` holds no layer");
    let other = LoraForModel {
        targets: names(&["v"]),
        ..model.clone()
    };
    cannot(
        whole(other),
        &layers,
        "`m.0.q` is not chosen by the settings",
    );
    let none = LoraForModel {
        targets: Targets::default(),
        ..model.clone()
    };
    cannot(
        whole(none),
        &layers,
        "`target_modules` must be a choice of modules: an empty one stands for another thing in the file, got []",
    );
    let other = LoraConfig {
        rank: 3,
        ..config.clone()
    };
    cannot(
        of(other),
        &layers,
        "`m.0.q` has rank 2, and the settings say 3",
    );
    let other = LoraConfig {
        alpha: 3.0,
        ..config.clone()
    };
    cannot(
        of(other),
        &layers,
        "`m.0.q` has scale 4, and the settings say 1.5",
    );
    let other = LoraConfig {
        bias: LoraBias::Base,
        ..config.clone()
    };
    cannot(
        of(other),
        &layers,
        "`m.0.q` trains the bias Frozen, and the settings say Base",
    );
    cannot(
        of(config.clone()),
        &lora(LoraBias::Update),
        "`m.0.q` trains the bias Update, and the settings say Frozen",
    );
    let base = Linear::new(tensor(&[2, 3]), Some(tensor(&[2])));
    let rng = &mut StdRng::seed_from_u64(1);
    let with_base = LoraConfig {
        rank: 2,
        bias: LoraBias::Base,
        ..Default::default()
    };
    let dora = DoraLinear::new(&base, &with_base, rng).unwrap();
    let decomposed = ModelAdapters {
        layers: [("m.0.q".to_string(), AnyAdapter::Dora(dora))].into(),
        ..Default::default()
    };
    let mut settings = LoraFile {
        model: model.clone(),
        dora: true,
        ..Default::default()
    };
    settings.model.config.rank = 2;
    settings.model.config.alpha = with_base.alpha;
    cannot(
        AdapterMethod::Lora(settings),
        &decomposed,
        "`m.0.q` trains the bias Base, and the settings say Frozen",
    );
    let update = LoraConfig {
        rank: 2,
        bias: LoraBias::Update,
        ..Default::default()
    };
    let rng = &mut StdRng::seed_from_u64(1);
    let qlora = QloraLinear::new(&base, BlockScale::Single, &update, rng).unwrap();
    let quantized = ModelAdapters {
        layers: [("m.0.q".to_string(), AnyAdapter::Qlora(qlora))].into(),
        ..Default::default()
    };
    cannot(
        of(config.clone()),
        &quantized,
        "`m.0.q` trains the bias Update, and the settings say Frozen",
    );
    // the first key that fits is the one that counts
    let patterns = |first: (&str, usize), then: (&str, usize)| LoraForModel {
        config: LoraConfig {
            rank: 5,
            ..config.clone()
        },
        rank_pattern: [first, then].map(|(key, r)| (key.to_string(), r)).into(),
        ..model.clone()
    };
    let file_of = whole(patterns(("m.0.q", 2), (".*q", 7)));
    assert!(AdapterFile::from_layers(PeftConfig::from(file_of), &layers).is_ok());
    cannot(
        whole(patterns((".*q", 7), ("m.0.q", 2))),
        &layers,
        "`m.0.q` has rank 2, and the settings say 7",
    );
    let saved = Targets {
        modules_to_save: vec!["head".to_string()],
        ..names(&["q"])
    };
    let saved = whole(LoraForModel {
        targets: saved,
        ..model.clone()
    });
    cannot(
        saved.clone(),
        &layers,
        "`layers` holds no weight of `modules_to_save` = `head`",
    );
    let mut with_head = layers.clone();
    with_head.weights = [("head.weight".to_string(), tensor(&[2, 3]))].into();
    assert!(AdapterFile::from_layers(PeftConfig::from(saved), &with_head).is_ok());
    let mut classes = PeftConfig::from(of(config.clone()));
    classes.task = Some(TaskType::SequenceClassification);
    says(
        AdapterFile::from_layers(classes.clone(), &with_head),
        "AdapterFile::from_layers: `layers` holds no weight of `classifier` or `score`, one of which the task trains",
    );
    with_head.weights = [("score.weight".to_string(), tensor(&[2, 3]))].into();
    assert!(AdapterFile::from_layers(classes, &with_head).is_ok());
    let dora = AdapterMethod::Lora(LoraFile {
        dora: true,
        ..file.clone()
    });
    cannot(dora, &layers, "`m.0.q` is a layer of another method");
    let config = LoraConfig {
        bias: LoraBias::Update,
        ..config
    };
    let dora = AdapterMethod::Lora(LoraFile {
        dora: true,
        model: LoraForModel { config, ..model },
        ..file.clone()
    });
    cannot(
        dora,
        &layers,
        "`dora` must be false where B has a bias, got true",
    );
    let all = AdapterMethod::Lora(LoraFile {
        all_biases: true,
        ..file
    });
    cannot(
        all,
        &layers,
        "`all_biases` must be false unless `bias` is `Base`, got true",
    );
    let mut vera = VeraFile::default();
    vera.model.targets = names(&["q"]);
    cannot(
        AdapterMethod::Vera(vera),
        &layers,
        "`m.0.q` is a layer of another method",
    );

    let ia3 = Ia3Linear::new(&Linear::new(tensor(&[2, 3]), None), Ia3Place::Input).unwrap();
    let layers = ModelAdapters {
        layers: [("m.0.q".to_string(), AnyAdapter::Ia3(ia3))].into(),
        ..Default::default()
    };
    let mut file = candle_align::peft::Ia3File::default();
    file.model.targets = names(&["q"]);
    cannot(
        AdapterMethod::Ia3(file.clone()),
        &layers,
        "`m.0.q` has its factors at the Input, and the settings say Output",
    );
    // Python takes no other names than those of the targets
    file.model.feedforward_modules = TargetModules::Names(vec!["0.q".to_string()]);
    cannot(
        AdapterMethod::Ia3(file.clone()),
        &layers,
        "`feedforward_modules` must be names that `target_modules` has too: Python takes no others, got 0.q",
    );
    file.model.targets.target_modules = TargetModules::AllLinear;
    let written =
        AdapterFile::from_layers(PeftConfig::from(AdapterMethod::Ia3(file)), &layers).unwrap();
    let AdapterMethod::Ia3(file) = &written.config().method else {
        panic!("{:?}", written.config());
    };
    let path = TargetModules::Names(vec!["m.0.q".to_string()]);
    assert_eq!(file.model.feedforward_modules, path);
    assert_eq!(file.model.targets.target_modules, path);
}

/// VeRA's projections may be larger than the layers that use them; those of the file are not.
#[test]
fn projections_are_cut_to_the_largest_layer_and_are_those_of_the_layers() {
    let config = VeraConfig {
        rank: 2,
        ..Default::default()
    };
    let shared = VeraProjections::from_tensors(tensor(&[2, 5]), tensor(&[7, 2])).unwrap();
    let layer = VeraLinear::new(&Linear::new(tensor(&[2, 3]), None), &shared, &config).unwrap();
    let file = VeraFile {
        model: ForModel {
            config,
            targets: names(&["q"]),
        },
        ..Default::default()
    };
    let mut layers = ModelAdapters {
        layers: [("m.0.q".to_string(), AnyAdapter::Vera(layer))].into(),
        projections: Some(shared),
        ..Default::default()
    };
    let method = AdapterMethod::Vera(file);
    let written = AdapterFile::from_layers(PeftConfig::from(method.clone()), &layers).unwrap();
    assert_eq!(written.tensors()["base_model.vera_A"].dims(), [2, 3]);
    assert_eq!(written.tensors()["base_model.vera_B"].dims(), [2, 2]);
    assert!(written.layers(&base(), Strictness::Strict).is_ok());
    for (a, b) in [
        ((tensor(&[2, 5]) + 1.0).unwrap(), tensor(&[7, 2])),
        (tensor(&[2, 5]), (tensor(&[7, 2]) + 1.0).unwrap()),
        (tensor(&[2, 2]), tensor(&[7, 2])),
        (tensor(&[1, 5]), tensor(&[7, 1])),
    ] {
        layers.projections = Some(VeraProjections::from_tensors(a, b).unwrap());
        cannot(
            method.clone(),
            &layers,
            "`m.0.q` has other projections than `layers`",
        );
    }
}

#[test]
fn settings_that_no_file_holds_are_named() {
    let targets = names(&["q"]);
    let allocator = RankAllocatorConfig {
        total_steps: 9,
        ..Default::default()
    };
    let file = AdaLoraFile {
        model: ForModel {
            targets: targets.clone(),
            ..Default::default()
        },
        allocator,
        ..Default::default()
    };
    let scaling = ForModel {
        config: AdaLoraConfig {
            scaling: AdaLoraScaling::Rank,
            ..Default::default()
        },
        targets: targets.clone(),
    };
    let layers = lora(LoraBias::Frozen);
    cannot(
        AdapterMethod::AdaLora(AdaLoraFile {
            model: scaling,
            ..file.clone()
        }),
        &layers,
        "`scaling` must be RankWithEpsilon: a file has no other, got Rank",
    );
    for (initial_steps, final_steps) in [(0, 0), (usize::MAX, 1), (1, usize::MAX)] {
        let allocator = RankAllocatorConfig {
            initial_steps,
            final_steps,
            ..Default::default()
        };
        cannot(
            AdapterMethod::AdaLora(AdaLoraFile {
                allocator,
                ..file.clone()
            }),
            &layers,
            "`total_steps` must be above initial_steps + final_steps, got 0",
        );
    }
    let allocator = RankAllocatorConfig {
        initial_steps: 1,
        final_steps: 1,
        total_steps: 2,
        ..Default::default()
    };
    cannot(
        AdapterMethod::AdaLora(AdaLoraFile {
            allocator,
            ..file.clone()
        }),
        &layers,
        "`total_steps` must be above initial_steps + final_steps, got 2",
    );
    cannot(
        AdapterMethod::AdaLora(AdaLoraFile {
            orthogonality: -1.0,
            ..file
        }),
        &layers,
        "`orthogonality` must be finite and >= 0, got -1",
    );
    let excluded = Targets {
        exclude_modules: targets.target_modules.clone(),
        ..targets.clone()
    };
    cannot(
        AdapterMethod::Vera(VeraFile {
            model: ForModel {
                targets: excluded,
                ..Default::default()
            },
            ..Default::default()
        }),
        &layers,
        "`exclude_modules` must be empty: the file of this method has no such key, got Names([\"q\"])",
    );
    let mut file = candle_align::peft::Ia3File::default();
    file.model.targets = Targets {
        layers_to_transform: vec![1],
        ..targets
    };
    cannot(
        AdapterMethod::Ia3(file),
        &layers,
        "`layers_to_transform` must be empty: the file of this method has no such key, got [1]",
    );
}

#[test]
fn what_a_and_b_cannot_say_is_not_baked() {
    let read = |config: &str, tensors: &[(&str, &[usize])]| {
        Folder::new(config, tensors).read().unwrap().baked()
    };
    for (more, message) in [
        (
            r#""use_dora": true"#,
            "is of DoRA, which A and B alone cannot say",
        ),
        (
            r#""bias": "lora_only""#,
            "has trained biases, which A and B alone cannot say",
        ),
        (
            r#""lora_bias": true"#,
            "has trained biases, which A and B alone cannot say",
        ),
        (
            r#""modules_to_save": ["up"]"#,
            "has modules that were trained whole, which A and B alone cannot say",
        ),
        (
            r#""trainable_token_indices": [1]"#,
            "has trained rows of a table, which A and B alone cannot say",
        ),
        (r#""r": 2"#, "holds no A"),
    ] {
        let config = format!(r#"{{"peft_type": "LORA", "target_modules": ["q"], {more}}}"#);
        says(
            read(&config, &[]),
            &format!("AdapterFile::baked: `self` {message}"),
        );
    }
    says(
        read(
            r#"{"peft_type": "IA3", "target_modules": ["q"], "feedforward_modules": []}"#,
            &[],
        ),
        "AdapterFile::baked: `self` is not of LoRA",
    );
    says(
        read(LORA, &[(A, &[2, 3]), ("x", &[2])]),
        "AdapterFile::baked: `x` is neither an A nor a B",
    );
    says(
        read(LORA, &[(A, &[3, 3])]),
        "AdapterFile::baked: `base_model.model.m.0.q.lora_A.weight` has shape [3, 3], and the rank is 2",
    );
    says(
        read(LORA, &[("base_model.model.m.0.v.lora_A.weight", &[2, 3])]),
        "AdapterFile::baked: `base_model.model.m.0.v.lora_A.weight` is of a module that the settings do not choose",
    );
    // half of an adapter has no rank to be filled up to, and no numbers have no size
    says(
        read(LORA, &[(A, &[2, 3])]),
        "AdapterFile::baked: `m.0.q` has an A and no B",
    );
    says(
        read(LORA, &[(B, &[3, 2])]),
        "AdapterFile::baked: `m.0.q` has a B and no A",
    );
    let patterns = |q: u64, up: u64| {
        format!(
            r#"{{"peft_type": "LORA", "target_modules": ["q", "up"], "rank_pattern": {{"q": {q}, "up": {up}}}}}"#
        )
    };
    let up = [
        "base_model.model.m.0.up.lora_A.weight",
        "base_model.model.m.0.up.lora_B.weight",
    ];
    says(
        read(&patterns(2, 8), &[(A, &[2, 3]), (up[1], &[3, 8])]),
        "AdapterFile::baked: `m.0.q` has an A and no B",
    );
    says(
        read(&patterns(2, 1_000_000), &[(up[0], &[1_000_000, 0])]),
        "AdapterFile::baked: `base_model.model.m.0.up.lora_A.weight` has shape [1000000, 0]: it is empty",
    );
    let far: [(&str, &[usize]); 4] = [
        (A, &[1, 3]),
        (B, &[3, 1]),
        (up[0], &[1025, 2]),
        (up[1], &[2, 1025]),
    ];
    says(
        read(&patterns(1, 1025), &far),
        "AdapterFile::baked: `self` has ranks from 1 to 1025, too far apart to be filled up",
    );
    let near: [(&str, &[usize]); 4] = [
        (A, &[1, 3]),
        (B, &[3, 1]),
        (up[0], &[1024, 2]),
        (up[1], &[2, 1024]),
    ];
    let filled = read(&patterns(1, 1024), &near).unwrap();
    assert_eq!(filled.tensors()[A].dims(), [1024, 3]);
}

#[test]
fn an_integer_is_no_number_of_an_adapter() {
    let folder = Folder::new(LORA, &[]);
    let tensors = HashMap::from([(A, tensor(&[2, 3]).to_dtype(DType::I64).unwrap())]);
    let at = folder.0.path().join("adapter_model.safetensors");
    candle_core::safetensors::save(&tensors, at).unwrap();
    folder.says(
        folder.read(),
        "AdapterFile::read: `DIR/adapter_model.safetensors` holds `base_model.model.m.0.q.lora_A.weight`, which is I64; an adapter holds F64, F32, BF16 or F16",
    );
}
