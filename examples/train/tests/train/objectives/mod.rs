//! Every offline objective on a tiny checkpoint: rows to ids, losses, whole runs, refusals.
//!
//! The checkpoint is one of `tests/golden/checkpoints` with other embeddings, so that it takes bytes: its
//! tokenizer and chat template are those of a real one in small.

mod accumulation;
mod covers;
mod held_out;
mod lists_since;
mod losses;
mod refusals;
mod refused_settings;
mod rows;
mod runs;
mod since;
mod unpaired;

use candle_align::decoder::{Decoder, LanguageModel, Load, Mode};
use candle_align::ops::Segments;
use candle_core::{DType, Device, Tensor};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use train::checkpoint::objective::{Objective, Reference, Text};
use train::checkpoint::prepare::{Prepared, prepare};
use train::checkpoint::rows::Folder;
use train::checkpoint::settings::Settings;
use train::error::Result;

/// As in the smallest public chat models.
pub const CHAT: &str = "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// A model of bytes with a tokenizer, and a chat template if it is given one.
pub fn model(seed: u64, template: Option<&str>) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let from = golden("../../tests/golden/checkpoints/llama");
    let mut config: Value =
        serde_json::from_str(&fs::read_to_string(from.join("config.json")).unwrap()).unwrap();
    config["vocab_size"] = json!(258);
    config["max_position_embeddings"] = json!(1024);
    for id in ["bos_token_id", "eos_token_id", "pad_token_id"] {
        config[id] = json!(257);
    }
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let mut tensors =
        candle_core::safetensors::load(from.join("model.safetensors"), &Device::Cpu).unwrap();
    let mut rng = StdRng::seed_from_u64(seed);
    for name in ["model.embed_tokens.weight", "lm_head.weight"] {
        let values: Vec<f32> = (0..258 * 16).map(|_| rng.random_range(-0.5..0.5)).collect();
        let table = Tensor::from_vec(values, (258, 16), &Device::Cpu).unwrap();
        assert!(tensors.insert(name.to_string(), table).is_some());
    }
    candle_core::safetensors::save(&tensors, folder.path().join("model.safetensors")).unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        let from = golden("tests/golden/bytes").join(file);
        fs::copy(from, folder.path().join(file)).unwrap();
    }
    if let Some(template) = template {
        fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    }
    folder
}

/// Prompts with right and wrong solutions, of different numbers.
const SOLUTIONS: &str = r#"{"question": "1+1?", "a": {"solution": "2", "is_correct": true}, "b": {"solution": "3 or so", "is_correct": false}, "c": {"solution": "two", "is_correct": true}}
{"question": "1+2?", "a": {"solution": "12", "is_correct": false}, "b": {"solution": "3", "is_correct": true}}
{"question": "1+3?", "a": {"solution": "4", "is_correct": true}, "b": {"solution": "5", "is_correct": false}}
{"question": "2+3?", "a": {"solution": "5!", "is_correct": true}, "b": {"solution": "4?", "is_correct": false}, "c": {"solution": "6", "is_correct": false}}
"#;

/// Lists with rewards, of different lengths.
const LISTS: &str = r#"{"prompt": "Name a fruit.", "answers": ["A stone.", "An apple.", "Apples"], "rewards": [0.1, 2.5, 1]}
{"prompt": "Hi", "answers": ["Go away", "Hello!"], "ranks": [1, 0]}
{"prompt": [{"role": "system", "content": "Short."}, {"role": "user", "content": "Say a"}], "answers": ["a", "an a", "b", "no"], "rewards": [3, 2, 0.5, 0.25]}
"#;

/// A run's settings on some rows, without a held-out part.
struct Case {
    model: TempDir,
    /// Of `gkd`.
    _teacher: Option<TempDir>,
    dir: TempDir,
    settings: Settings,
}

impl Case {
    fn new(objective: &str, rows: &str, sets: &[&str]) -> Self {
        Self::on(model(1, Some(CHAT)), objective, rows, sets)
    }

    fn on(model: TempDir, objective: &str, rows: &str, sets: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("rows.jsonl");
        fs::write(&data, rows).unwrap();
        let mut settings = Settings {
            model: model.path().to_path_buf(),
            data,
            out: Some(dir.path().join("out")),
            held_out: 0.0,
            now: Some("2026-01-31T12:00:00".to_string()),
            ..Settings::default()
        };
        settings.fit.max_steps = Some(3);
        settings.fit.batch = 2;
        settings.fit.learning_rate = Some(1e-2);
        let first = format!("objective={objective}");
        let teacher = (objective == "gkd").then(|| self::model(2, Some(CHAT)));
        settings.teacher = teacher.as_ref().map(|folder| folder.path().to_path_buf());
        for set in [first.as_str()].iter().chain(sets) {
            settings = settings.with(set).unwrap();
        }
        Self {
            model,
            _teacher: teacher,
            dir,
            settings,
        }
    }

    fn folder(&self) -> Folder {
        Folder::open(self.model.path(), Default::default()).unwrap()
    }

    fn decoder(&self) -> Decoder {
        Decoder::load(
            self.model.path(),
            &Load {
                trained: true,
                ..Load::default()
            },
        )
        .unwrap()
    }

    fn prepared(&self) -> Result<Prepared> {
        self.settings.check()?;
        prepare(&self.settings, &self.decoder(), Default::default())
    }

    fn objective(&self) -> Objective {
        self.prepared().unwrap().train
    }

    /// The loss of some rows as one batch.
    fn loss(&self, objective: &Objective) -> f64 {
        let rows: Vec<usize> = (0..objective.len()).collect();
        let (decoder, reference) = (self.decoder(), Reference::Frozen(Box::new(self.decoder())));
        let window = [rows.clone()];
        let measured = objective.loss(&decoder, &reference, &rows, &window, None);
        number(&measured.unwrap().loss)
    }

    /// The ids of a text, piece by piece.
    fn ids(&self, text: &str) -> Vec<u32> {
        self.folder().tokenizer.encode_rendered(text).unwrap().ids
    }

    /// A text from pieces, of which the loss covers the ones that are marked.
    fn text(&self, pieces: &[(bool, &str)]) -> Text {
        let (mut ids, mut learned) = (Vec::new(), Vec::new());
        for (covered, piece) in pieces {
            ids.extend(self.ids(piece));
            learned.resize(ids.len(), *covered);
        }
        Text { ids, learned }
    }

    /// What a text says; what the loss covers stands in brackets.
    fn said(&self, text: &Text) -> String {
        let folder = self.folder();
        let (mut said, mut start) = (String::new(), 0);
        for part in text.learned.chunk_by(|a, b| a == b) {
            let ids = &text.ids[start..start + part.len()];
            let own = folder.tokenizer.decode(ids).unwrap();
            said += &if part[0] { format!("[{own}]") } else { own };
            start += part.len();
        }
        said
    }
}

fn number(tensor: &Tensor) -> f64 {
    tensor.to_dtype(DType::F64).unwrap().to_scalar().unwrap()
}

/// Sum and number of the covered tokens of one text alone in its batch.
fn alone(decoder: &Decoder, text: &Text) -> (f64, f64) {
    let (segments, tokens) = Segments::from_tokens(&[&text.ids]).unwrap();
    let learned: Vec<u8> = text
        .learned
        .iter()
        .map(|learned| u8::from(*learned))
        .collect();
    let learned = Tensor::from_vec(learned, (1, tokens.len()), &Device::Cpu).unwrap();
    let log_probs = decoder
        .log_probs(&tokens, &segments, &learned, Mode::Evaluation)
        .unwrap();
    let count = text
        .learned
        .iter()
        .skip(1)
        .filter(|learned| **learned)
        .count();
    (number(&log_probs.values().sum_all().unwrap()), count as f64)
}

pub fn near(what: &str, ours: f64, theirs: f64) {
    let bound = 1e-5 * theirs.abs().max(1.0);
    assert!(
        (ours - theirs).abs() <= bound,
        "{what}: {ours} against {theirs}"
    );
}
