//! The adapters that PEFT wrote (`adapters/`, by `adapter_files.py`), read, run, merged and written.

use crate::common::adapters::golden;
use candle_align::Result;
use candle_align::parameter_efficient::{Adapter, PrefixLayer, TargetModules};
use candle_align::peft::{AdapterFile, AdapterMethod, AnyAdapter, BaseModel, Strictness};
use candle_core::{D, DType, Device, IndexOp, Module, Tensor};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

/// Difference allowed between logits in f32 here and in torch, relative above 1.
const LOGITS: f64 = 1e-5;

/// In the order of the script.
const CASES: [(&str, Kind); 56] = [
    ("lora", Kind::Stack),
    ("lora_patterns", Kind::Stack),
    ("lora_regex", Kind::Stack),
    ("lora_embedding", Kind::Stack),
    ("lora_bias_update", Kind::Stack),
    ("lora_bias_only", Kind::Stack),
    ("lora_bias_all", Kind::Stack),
    ("lora_modules_to_save", Kind::Stack),
    ("dora", Kind::Stack),
    ("adalora", Kind::Stack),
    ("adalora_uncut", Kind::Stack),
    ("ia3", Kind::Stack),
    ("vera", Kind::Stack),
    ("gpt2_lora", Kind::Gpt2),
    ("gpt2_ia3", Kind::Gpt2),
    ("prompt", Kind::Gpt2),
    ("prefix", Kind::Gpt2),
    ("prefix_projection", Kind::Gpt2),
    ("gpt2_dora", Kind::Gpt2),
    ("gpt2_adalora", Kind::Gpt2),
    ("gpt2_vera", Kind::Gpt2),
    ("lora_eva", Kind::Stack),
    ("lora_mica", Kind::Stack),
    ("lora_bias_all_saved", Kind::Stack),
    ("dora_bias_all", Kind::Stack),
    ("lora_tokens", Kind::Stack),
    ("lora_tokens_by_name", Kind::Stack),
    ("classifier_lora", Kind::Classifier),
    ("gpt2_mixed", Kind::Gpt2),
    ("gpt2_mixed_ia3", Kind::Gpt2),
    ("gpt2_mixed_vera", Kind::Gpt2),
    ("gpt2_mixed_adalora", Kind::Gpt2),
    ("tied_lora_embedding", Kind::Tied),
    ("tied_lora_head", Kind::Tied),
    ("tied_lora_both", Kind::Tied),
    ("tied_dora_head", Kind::Tied),
    ("tied_adalora_head", Kind::Tied),
    ("tied_ia3_head", Kind::Tied),
    ("tied_vera_head", Kind::Tied),
    ("tied_saved_embedding", Kind::Tied),
    ("tied_saved_head", Kind::Tied),
    ("tied_saved_both", Kind::Tied),
    ("tied_rows", Kind::Tied),
    ("tied_rows_embedding", Kind::Tied),
    ("tied_rows_head", Kind::Tied),
    ("tied_rows_both", Kind::Tied),
    ("tied_rows_differ", Kind::Tied),
    ("tied_rows_embedding_lora_head", Kind::Tied),
    ("tied_rows_head_lora_embedding", Kind::Tied),
    ("tied_rows_head_saved_embedding", Kind::Tied),
    ("tied_lora_head_saved_embedding", Kind::Tied),
    ("tied_lora_embedding_saved_head", Kind::Tied),
    ("tied_table", Kind::Tied),
    ("tied_table_head", Kind::Tied),
    ("tied_lora_embedding_table", Kind::Tied),
    ("tied_lora_head_table", Kind::Tied),
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Stack,
    Gpt2,
    /// GPT-2 with an output layer of classes, read at the last token.
    Classifier,
    /// The stack with its output layer tied to its embedding; the file holds the embedding alone.
    Tied,
}

const EMBEDDING: &str = "model.embed_tokens";
const HEAD: &str = "lm_head";

/// The state dict, and what the model is known to tie.
fn known(kind: Kind, tensors: &HashMap<String, Tensor>) -> BaseModel<'_> {
    match kind {
        Kind::Tied => BaseModel::tied(tensors, EMBEDDING, HEAD),
        _ => tensors.into(),
    }
}

fn load(name: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(golden(name), &Device::Cpu).expect(name)
}

fn base(kind: Kind) -> HashMap<String, Tensor> {
    match kind {
        Kind::Stack => load("stack.safetensors"),
        Kind::Gpt2 => load("gpt2.safetensors"),
        Kind::Classifier => load("classifier.safetensors"),
        Kind::Tied => load("tied.safetensors"),
    }
}

/// A base model, with layers of an adapter in it, behind a prompt or a prefix.
struct Model {
    kind: Kind,
    weights: HashMap<String, Tensor>,
    layers: BTreeMap<String, AnyAdapter>,
    prompt: Option<Tensor>,
    prefix: Vec<Option<PrefixLayer>>,
}

impl Model {
    fn plain(kind: Kind, weights: HashMap<String, Tensor>) -> Self {
        Self {
            kind,
            weights,
            layers: BTreeMap::new(),
            prompt: None,
            prefix: vec![None; 2],
        }
    }

    fn adapted(kind: Kind, file: &AdapterFile, strictness: Strictness) -> Result<Self> {
        Self::over(kind, base(kind), file, strictness)
    }

    fn over(
        kind: Kind,
        base: HashMap<String, Tensor>,
        file: &AdapterFile,
        strictness: Strictness,
    ) -> Result<Self> {
        let mut model = Self::plain(kind, base);
        match file.config().method {
            AdapterMethod::Prompt(_) => {
                model.prompt = Some(file.prompt()?.values().as_detached_tensor());
            }
            AdapterMethod::Prefix(_) => model.prefix = file.prefix()?.layers()?,
            _ => {
                let found = file.layers(known(kind, &model.weights), strictness)?;
                assert!(found.left_out.is_empty(), "{:?}", found.left_out);
                assert!(found.tied.is_empty() || kind == Kind::Tied);
                model.weights.extend(found.weights);
                model.weights.extend(found.tied);
                model.layers = found.layers;
            }
        }
        Ok(model)
    }

    /// Of a table under one name it is both.
    fn weight(&self, name: &str) -> &Tensor {
        let other = match name {
            "lm_head.weight" => "model.embed_tokens.weight",
            _ => "lm_head.weight",
        };
        let found = self.weights.get(name);
        let other = self.weights.get(other).filter(|_| self.kind == Kind::Tied);
        found.or(other).unwrap_or_else(|| panic!("no {name}"))
    }

    fn map(&self, path: &str, x: &Tensor) -> Result<Tensor> {
        if let Some(layer) = self.layers.get(path) {
            return Ok(layer.forward(x)?);
        }
        let weight = self.weight(&format!("{path}.weight"));
        let gpt2 = matches!(self.kind, Kind::Gpt2 | Kind::Classifier);
        let turned = gpt2 && !["lm_head", "score"].contains(&path);
        let y = match turned {
            true => x.broadcast_matmul(weight)?,
            false => x.broadcast_matmul(&weight.t()?)?,
        };
        Ok(match self.weights.get(&format!("{path}.bias")) {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        })
    }

    fn embed(&self, path: &str, tokens: &Tensor) -> Result<Tensor> {
        if let Some(layer) = self.layers.get(path) {
            return Ok(layer.forward(tokens)?);
        }
        let table = self.weight(&format!("{path}.weight"));
        let found = table.index_select(&tokens.flatten_all()?, 0)?;
        Ok(found.reshape((tokens.dim(0)?, tokens.dim(1)?, ()))?)
    }

    fn norm(&self, path: &str, x: &Tensor) -> Result<Tensor> {
        let x = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let std = (x.sqr()?.mean_keepdim(D::Minus1)? + 1e-5)?.sqrt()?;
        let x = x.broadcast_div(&std)?;
        let x = x.broadcast_mul(self.weight(&format!("{path}.weight")))?;
        Ok(x.broadcast_add(self.weight(&format!("{path}.bias")))?)
    }

    fn logits(&self, tokens: &Tensor) -> Result<Tensor> {
        match self.kind {
            Kind::Stack | Kind::Tied => self.stack(tokens),
            Kind::Gpt2 | Kind::Classifier => self.gpt2(tokens),
        }
    }

    fn stack(&self, tokens: &Tensor) -> Result<Tensor> {
        let mut x = self.embed("model.embed_tokens", tokens)?;
        for i in 0..2 {
            let at = |name: &str| format!("model.layers.{i}.{name}");
            let gate = candle_nn::ops::sigmoid(&self.map(&at("v_proj"), &x)?)?;
            x = (&x + (self.map(&at("q_proj"), &x)? * gate)?)?;
            let inner = self.map(&at("up_proj"), &x)?.tanh()?;
            x = (&x + self.map(&at("down_proj"), &inner)?)?;
        }
        self.map("lm_head", &x)
    }

    fn gpt2(&self, tokens: &Tensor) -> Result<Tensor> {
        let mut x = self.embed("transformer.wte", tokens)?;
        let (batch, _, dim) = x.dims3()?;
        if let Some(prompt) = &self.prompt {
            let prompt = prompt.unsqueeze(0)?;
            let prompt = prompt.broadcast_as((batch, prompt.dim(1)?, dim))?;
            x = Tensor::cat(&[&prompt.contiguous()?, &x], 1)?;
        }
        let time = x.dim(1)?;
        let past = self.prefix[0].as_ref().map_or(0, |p| p.key.dims()[1]);
        let position = self.weight("transformer.wpe.weight").i(past..past + time)?;
        x = x.broadcast_add(&position)?;
        for i in 0..2 {
            let at = |name: &str| format!("transformer.h.{i}.{name}");
            let qkv = self.map(&at("attn.c_attn"), &self.norm(&at("ln_1"), &x)?)?;
            let mixed = attend(&qkv, self.prefix[i].as_ref())?;
            x = (x + self.map(&at("attn.c_proj"), &mixed)?)?;
            let inner = self.map(&at("mlp.c_fc"), &self.norm(&at("ln_2"), &x)?)?;
            x = (x + self.map(&at("mlp.c_proj"), &inner.gelu()?)?)?;
        }
        let x = self.norm("transformer.ln_f", &x)?;
        match self.kind {
            Kind::Classifier => self.map("score", &x.i((.., time - 1))?),
            _ => self.map("lm_head", &x),
        }
    }
}

/// Causal attention with two heads, which sees all of a prefix.
fn attend(qkv: &Tensor, prefix: Option<&PrefixLayer>) -> Result<Tensor> {
    let (batch, time, width) = qkv.dims3()?;
    let (heads, dim) = (2, width / 3);
    let part = |i: usize| -> Result<Tensor> {
        let x = qkv
            .narrow(2, i * dim, dim)?
            .reshape((batch, time, heads, dim / heads))?;
        Ok(x.transpose(1, 2)?.contiguous()?)
    };
    let (q, mut k, mut v) = (part(0)?, part(1)?, part(2)?);
    let mut past = 0;
    if let Some(prefix) = prefix {
        past = prefix.key.dim(1)?;
        let each = |x: &Tensor| x.unsqueeze(0)?.repeat((batch, 1, 1, 1));
        k = Tensor::cat(&[&each(&prefix.key)?, &k], 2)?;
        v = Tensor::cat(&[&each(&prefix.value)?, &v], 2)?;
    }
    let seen: Vec<u8> = (0..time)
        .flat_map(|t| (0..past + time).map(move |s| u8::from(s <= past + t)))
        .collect();
    let seen = Tensor::from_vec(seen, (time, past + time), &Device::Cpu)?;
    let scores = (q.matmul(&k.t()?)? / ((dim / heads) as f64).sqrt())?;
    let floor = Tensor::full(-1e9f32, scores.shape(), &Device::Cpu)?;
    let scores = seen
        .broadcast_as(scores.shape())?
        .where_cond(&scores, &floor)?;
    let weights = candle_nn::ops::softmax(&scores, D::Minus1)?;
    let mixed = weights.matmul(&v)?.transpose(1, 2)?;
    Ok(mixed.reshape((batch, time, dim))?)
}

fn tokens(kind: Kind) -> Tensor {
    let name = match kind {
        Kind::Stack => "stack.logits.safetensors",
        Kind::Gpt2 => "gpt2.logits.safetensors",
        Kind::Classifier => "classifier.logits.safetensors",
        Kind::Tied => "tied.logits.safetensors",
    };
    load(name)["tokens"].to_dtype(DType::U32).unwrap()
}

#[track_caller]
fn close(got: &Tensor, want: &Tensor, what: &str) {
    assert_eq!(got.dims(), want.dims(), "{what}");
    let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for (a, b) in values(got).into_iter().zip(values(want)) {
        let allowed = LOGITS * f64::from(b.abs()).max(1.0);
        assert!(f64::from((a - b).abs()) <= allowed, "{what}: {a}, PEFT {b}");
    }
}

#[test]
fn the_test_models_are_the_originals() {
    for (kind, name) in [
        (Kind::Stack, "stack"),
        (Kind::Gpt2, "gpt2"),
        (Kind::Classifier, "classifier"),
        (Kind::Tied, "tied"),
    ] {
        let got = Model::plain(kind, base(kind))
            .logits(&tokens(kind))
            .unwrap();
        close(
            &got,
            &load(&format!("{name}.logits.safetensors"))["logits"],
            name,
        );
    }
}

#[test]
fn adapters_of_peft_give_its_logits_adapted_and_merged() {
    for (name, kind) in CASES {
        let file = AdapterFile::read(golden(name), Strictness::Strict).unwrap();
        let want = load(&format!("{name}/logits.safetensors"));
        let model = Model::adapted(kind, &file, Strictness::Strict).unwrap();
        let got = model.logits(&tokens(kind)).unwrap();
        close(&got, &want["adapted"], name);
        let plain = Model::plain(kind, base(kind))
            .logits(&tokens(kind))
            .unwrap();
        if plain.dims() == got.dims() {
            let change = (plain - got).unwrap().abs().unwrap().max_all().unwrap();
            assert!(
                change.to_scalar::<f32>().unwrap() > 0.1,
                "{name}: an adapter that does nothing"
            );
        }
        if let Some(want) = want.get("merged") {
            let plain = base(kind);
            let merged = file
                .merged(known(kind, &plain), Strictness::Strict)
                .unwrap();
            let model = Model::plain(kind, merged.tensors);
            close(
                &model.logits(&tokens(kind)).unwrap(),
                want,
                &format!("{name}, merged"),
            );
        }
    }
}

/// Whichever names the base holds, and whether or not the caller's model has the output layer apart.
#[test]
fn a_tied_table_under_one_name_or_two_is_the_same_model() {
    let tied = CASES.iter().filter(|(_, kind)| *kind == Kind::Tied);
    let (embedding, head) = (format!("{EMBEDDING}.weight"), format!("{HEAD}.weight"));
    let kind = Kind::Tied;
    for (name, _) in tied {
        let file = AdapterFile::read(golden(name), Strictness::Strict).unwrap();
        let want = load(&format!("{name}/logits.safetensors"));
        let first = base(kind);
        let mut both = first.clone();
        // another tensor of the same numbers, as two entries of a file are
        both.insert(head.clone(), first[&embedding].copy().unwrap());
        let mut other = both.clone();
        other.remove(&embedding);
        for (held, base) in [("embedding", first), ("both", both), ("head", other)] {
            let what = format!("{name}, {held}");
            let model = Model::over(kind, base.clone(), &file, Strictness::Strict).unwrap();
            close(
                &model.logits(&tokens(kind)).unwrap(),
                &want["adapted"],
                &what,
            );
            let merged = file.merged(known(kind, &base), Strictness::Strict).unwrap();
            let what = format!("{name}, {held}, merged");
            let still = [
                "tied_rows",
                "tied_rows_embedding",
                "tied_rows_both",
                "tied_table",
                "tied_table_head",
            ];
            let mut names = base.len();
            // two tables where there was one
            names += usize::from(held != "both" && !still.contains(name));
            // what is read under the name that the file gives it
            let named = match *name {
                "tied_rows" | "tied_rows_embedding" | "tied_rows_both" | "tied_table" => "head",
                "tied_table_head" => "embedding",
                _ => "",
            };
            names += usize::from(held == named);
            assert_eq!(merged.tensors.len(), names, "{what}");
            let merged = Model::plain(kind, merged.tensors);
            close(
                &merged.logits(&tokens(kind)).unwrap(),
                &want["merged"],
                &what,
            );
        }
    }
}

#[test]
fn adapters_of_peft_switched_off_leave_the_weights_beside_them() {
    for (name, kind) in CASES {
        let file = AdapterFile::read(golden(name), Strictness::Strict).unwrap();
        let mut model = Model::adapted(kind, &file, Strictness::Strict).unwrap();
        if model.layers.is_empty() {
            continue;
        }
        let on = model.logits(&tokens(kind)).unwrap();
        for layer in model.layers.values_mut() {
            layer.set_enabled(false);
        }
        let off = model.logits(&tokens(kind)).unwrap();
        let mut plain = Model::plain(kind, base(kind));
        plain.weights.extend(model.weights.clone());
        close(&plain.logits(&tokens(kind)).unwrap(), &off, name);
        for layer in model.layers.values_mut() {
            layer.set_enabled(true);
        }
        close(&model.logits(&tokens(kind)).unwrap(), &on, name);
    }
}

/// The object of an `adapter_config.json`, with its sets sorted.
fn config(folder: &Path) -> serde_json::Map<String, Value> {
    let text = fs::read_to_string(folder.join("adapter_config.json")).unwrap();
    let Value::Object(mut found) = serde_json::from_str(&text).unwrap() else {
        panic!("{text}");
    };
    for key in ["target_modules", "exclude_modules", "feedforward_modules"] {
        if let Some(Value::Array(list)) = found.get_mut(key) {
            list.sort_by_key(|name| name.to_string());
        }
    }
    found
}

/// The same file again, by way of the layers.
fn again(name: &str, kind: Kind) -> AdapterFile {
    let file = AdapterFile::read(golden(name), Strictness::Strict).unwrap();
    let config = file.config().clone();
    match config.method {
        AdapterMethod::Prompt(_) => AdapterFile::from_prompt(config, &file.prompt().unwrap()),
        AdapterMethod::Prefix(_) => AdapterFile::from_prefix(config, &file.prefix().unwrap()),
        _ => {
            let base = base(kind);
            let layers = file.layers(known(kind, &base), Strictness::Strict).unwrap();
            AdapterFile::from_layers(config, &layers)
        }
    }
    .unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// PEFT writes the biases of modules trained whole in two more places and reads them in neither; all
/// else is the same.
fn without_copies(ours: &Path, theirs: &Path) {
    let file = "adapter_model.safetensors";
    let read = |at: &Path| candle_core::safetensors::load(at.join(file), &Device::Cpu).unwrap();
    let (ours, mut theirs) = (read(ours), read(theirs));
    let count = theirs.len();
    theirs.retain(|name, _| !name.contains("original_module") && !name.contains("modules_to_save"));
    assert_eq!((count - theirs.len(), ours.len()), (6, theirs.len()));
    for (name, tensor) in theirs {
        let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(&ours[&name]), values(&tensor), "{name}");
    }
}

/// The version of PEFT without the mark of the settings, which stands where PEFT names its commit.
fn unmarked(version: &Value) -> Value {
    let (version, mark) = version.as_str().unwrap().split_once('@').unwrap();
    let (name, hash) = mark.split_once('.').unwrap();
    assert_eq!((name, hash.len()), ("candle-align", 16));
    Value::from(version)
}

/// The bytes of a file of tensors but for the settings, which it holds as they stand beside it.
fn without_settings(folder: &Path) -> Vec<u8> {
    let bytes = fs::read(folder.join("adapter_model.safetensors")).unwrap();
    let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let text = fs::read_to_string(folder.join("adapter_config.json")).unwrap();
    let settings = format!(r#""adapter_config.json":{},"#, Value::from(text));
    let header = std::str::from_utf8(header).unwrap();
    let without = header.replacen(&settings, "", 1);
    assert_ne!(header, without);
    let mut header = without.trim_end().as_bytes().to_vec();
    header.resize(header.len().next_multiple_of(8), b' ');
    let length = (header.len() as u64).to_le_bytes();
    [&length, header.as_slice(), data].concat()
}

#[test]
fn what_is_written_again_is_what_peft_wrote_key_by_key_and_bit_by_bit() {
    let written = tempfile::tempdir().unwrap();
    for (name, kind) in CASES {
        again(name, kind).write(written.path()).unwrap();
        let (ours, mut theirs) = (config(written.path()), config(&golden(name)));
        if name == "prefix_projection" {
            // the network is not in the file
            theirs.insert("prefix_projection".to_string(), Value::Bool(false));
            theirs.insert("encoder_hidden_size".to_string(), Value::from(8));
        }
        if name == "lora_eva" || name == "lora_mica" {
            // how it started is not in the file
            theirs.insert("init_lora_weights".to_string(), Value::Bool(true));
            theirs.insert("eva_config".to_string(), Value::Null);
        }
        assert_eq!(
            ours.keys().collect::<Vec<_>>(),
            theirs.keys().collect::<Vec<_>>(),
            "{name}"
        );
        for (key, value) in &theirs {
            match key.as_str() {
                "peft_version" => assert_eq!(unmarked(&ours[key]), *value, "{name}, {key}"),
                _ => assert_eq!(&ours[key], value, "{name}, {key}"),
            }
        }
        let ours = without_settings(written.path());
        let theirs = fs::read(golden(name).join("adapter_model.safetensors")).unwrap();
        if name == "lora_bias_all_saved" {
            without_copies(written.path(), &golden(name));
            continue;
        }
        assert!(ours == theirs, "{name}: tensors differ");
    }
    // one choice alone has one order: the same text
    again("lora_regex", Kind::Stack)
        .write(written.path())
        .unwrap();
    let text = |folder: &Path| fs::read_to_string(folder.join("adapter_config.json")).unwrap();
    let ours = text(written.path());
    let version = config(written.path())["peft_version"].clone();
    let ours = ours.replace(
        version.as_str().unwrap(),
        unmarked(&version).as_str().unwrap(),
    );
    assert_eq!(ours, text(&golden("lora_regex")));
}

/// Every adapter as this crate writes it, with its own logits beside it, for `load_written.py`: into
/// the folder that `WRITTEN_ADAPTERS` names, else into one that is deleted.
#[test]
fn adapters_written_here_and_their_logits() {
    let temporary = tempfile::tempdir().unwrap();
    let out = match std::env::var_os("WRITTEN_ADAPTERS") {
        Some(out) => PathBuf::from(out),
        None => temporary.path().to_path_buf(),
    };
    let mut files: Vec<(String, Kind, AdapterFile)> = CASES
        .iter()
        .map(|(name, kind)| (name.to_string(), *kind, again(name, *kind)))
        .collect();
    for name in ["lora", "lora_patterns", "lora_embedding", "gpt2_lora"] {
        let (_, kind, file) = files.iter().find(|(n, _, _)| n == name).unwrap();
        files.push((format!("{name}_baked"), *kind, file.baked().unwrap()));
    }
    // without `kept` a cut adapter is filled up, and PEFT has nothing to warn of
    let cut = AdapterFile::read(golden("adalora"), Strictness::Strict).unwrap();
    let layers = cut.layers(&base(Kind::Stack), Strictness::Strict).unwrap();
    let mut config = cut.config().clone();
    if let AdapterMethod::AdaLora(file) = &mut config.method {
        file.kept.clear();
    }
    let filled = AdapterFile::from_layers(config, &layers).unwrap();
    files.push(("adalora_filled".to_string(), Kind::Stack, filled));

    // keys of a pattern that mean another thing when they are sorted
    let (_, kind, file) = files.iter().find(|f| f.0 == "lora_patterns").unwrap();
    let layers = file.layers(&base(*kind), Strictness::Strict).unwrap();
    let mut config = file.config().clone();
    if let AdapterMethod::Lora(file) = &mut config.method {
        let ranks = [("v_proj", 1), ("layers.1.q_proj", 4), (".*q_proj", 2)];
        file.model.rank_pattern = ranks.map(|(key, r)| (key.to_string(), r)).into();
    }
    let ordered = AdapterFile::from_layers(config, &layers).unwrap();
    files.push(("lora_patterns_ordered".to_string(), Kind::Stack, ordered));

    for (name, kind, file) in &files {
        let at = out.join(name);
        file.write(&at).unwrap();
        let back = AdapterFile::read(&at, Strictness::Strict).unwrap();
        assert_eq!(back.config(), file.config(), "{name}");
        let model = Model::adapted(*kind, &back, Strictness::Strict).unwrap();
        let logits = model.logits(&tokens(*kind)).unwrap();
        let original = ["_baked", "_filled", "_ordered"].iter();
        let original = original.fold(name.as_str(), |name, end| name.trim_end_matches(end));
        let want = load(&format!("{original}/logits.safetensors"));
        close(&logits, &want["adapted"], name);
        let mut outputs = HashMap::from([("adapted".to_string(), logits)]);
        if want.contains_key("merged") {
            let plain = base(*kind);
            let merged = back
                .merged(known(*kind, &plain), Strictness::Strict)
                .unwrap();
            let merged = Model::plain(*kind, merged.tensors)
                .logits(&tokens(*kind))
                .unwrap();
            close(&merged, &want["merged"], name);
            outputs.insert("merged".to_string(), merged);
        }
        candle_core::safetensors::save(&outputs, at.join("logits.safetensors")).unwrap();
    }
}

#[test]
fn a_baked_file_has_one_rank_and_no_scale() {
    let file = AdapterFile::read(golden("lora_patterns"), Strictness::Strict).unwrap();
    let baked = file.baked().unwrap();
    let AdapterMethod::Lora(found) = &baked.config().method else {
        panic!("{:?}", baked.config());
    };
    let (model, config) = (&found.model, &found.model.config);
    assert_eq!((config.rank, config.alpha, config.scale()), (4, 4.0, 1.0));
    assert!(model.rank_pattern.is_empty() && model.alpha_pattern.is_empty());
    assert!(matches!(
        model.targets.target_modules,
        TargetModules::Names(_)
    ));
    for (name, tensor) in baked.tensors() {
        let axis = usize::from(name.contains("lora_B"));
        assert_eq!(tensor.dims()[axis], 4, "{name}");
    }
    // √2 of rank stabilization, α = 7 by its pattern
    let b = "base_model.model.model.layers.0.down_proj.lora_B.weight";
    let (was, is) = (&file.tensors()[b], &baked.tensors()[b]);
    let want = (was * (7.0 / 2f64.sqrt()))
        .unwrap()
        .to_vec2::<f32>()
        .unwrap();
    for (is, want) in is.to_vec2::<f32>().unwrap().iter().zip(want) {
        assert_eq!(is[..2], want);
        assert_eq!(is[2..], [0.0, 0.0]);
    }
}
