//! §4.1.1 and §4.2.2, likelihood: even a model that knows nothing has an answer, and its length decides which.
//!
//! ```text
//! cargo run --example likelihood
//! ```
//! Nine questions have a choice of one word, one of two and one of three; each length is right three times. The
//! model is a random decoder of 24 weights per word. Columns: how many questions each score of the choices gets
//! right, and the mean words of what it takes. Then GPTScore and G-Eval of a sentence and of the same words in
//! reverse.
//!
//! ```text
//! V = 89                  right    words
//! sum                     0.333     1.00
//! per token               0.222     1.78
//! per byte                0.111     2.00
//! less unconditional      0.333     2.44
//!                      sentence reversed
//! GPTScore               -4.485   -4.482
//! G-Eval                  2.954    2.954
//! mass on scores          0.057    0.057
//! ```
//! What you should see: every word has about the probability 1/V, so the sum of log-probabilities takes the
//! shortest choice, whatever the question, and the sum over bytes the one with the longest words. Three of nine
//! are right, as in a blind guess, but not by a blind guess: where right answers are short, the sum looks
//! clever. Per token, and less the score without the question, nothing but noise is left. GPTScore is −ln V
//! for any text. G-Eval gives the middle of its scale to any text too; that only 5/V of the probability is on
//! scores at all shows that nobody judged.
//!
//! With the folder of a real checkpoint behind `--`, the same questions meet a model that knows something. Its
//! vocabulary must have each word as one token, as those of SmolLM2 do:
//!
//! ```text
//! V = 49152               right    words
//! sum                     0.889     1.89
//! per token               0.667     2.67
//! per byte                0.444     2.89
//! less unconditional      0.889     1.89
//!                      sentence reversed
//! GPTScore               -5.190   -9.687
//! G-Eval                  3.697    3.774
//! mass on scores          0.021    0.059
//! ```
//! SmolLM2-135M-Instruct knows most of the answers. Dividing by length now costs it some: it takes the long choice,
//! whose second and third words are easy to guess. GPTScore tells the sentence from its words in reverse. G-Eval does
//! not, and its mass says why: asked like this, without a chat template, the model hardly writes a score.
//!
//! Change `SPREAD: f64 = 0.01` to `SPREAD: f64 = 1.0` and see: the noise of the weights outgrows ln V, and the
//! sum no longer takes the shortest choice everywhere.

use candle_align::TokenLogProbs;
use candle_align::decoder::{Decoder, LanguageModel, Load, Mode};
use candle_align::evaluation::by_model::{ScoreMass, expected_score, gpt_score};
use candle_align::evaluation::closed_form::{ChoiceScore, accuracy, choice_scores, choose};
use candle_align::ops::Segments;
use candle_core::{DType, Device, Tensor};
use rand::{Rng, SeedableRng, rngs::StdRng};
use rand_distr::StandardNormal;
use serde_json::{Map, Value, json};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Questions with a choice of one word, of two and of three; the number is the right one's.
#[rustfmt::skip]
pub const QUESTIONS: [(&str, [&str; 3], usize); 9] = [
    ("What do bees make ?", ["honey", "green paint", "a loud noise"], 0),
    ("What color is snow ?", ["white", "dark green", "red and black"], 0),
    ("What falls from the sky ?", ["rain", "old shoes", "a wooden house"], 0),
    ("Where do fish live ?", ["trees", "in water", "in the desert"], 1),
    ("What do we use to write ?", ["bread", "a pen", "a glass bottle"], 1),
    ("What keeps us warm ?", ["ice", "a fire", "a cold wind"], 1),
    ("When does the sun rise ?", ["midnight", "at night", "in the morning"], 2),
    ("Who teaches children ?", ["rain", "wild horses", "a school teacher"], 2),
    ("Why do we eat ?", ["never", "loud music", "because of hunger"], 2),
];
const ASK: [&str; 2] = ["Question :", "Answer :"];
/// A sentence to judge.
pub const SENTENCE: &str = "the children play in the garden";
const GPT_SCORE: &str = "Write a clear sentence .";
const G_EVAL: [&str; 2] = ["Sentence :", ". Clear from one to five ? Score :"];
const SCORES: [&str; 5] = ["one", "two", "three", "four", "five"];

/// How much the weights of the random decoder vary.
pub const SPREAD: f64 = 0.01;
const WIDTH: usize = 24;

pub struct Report {
    pub vocabulary: usize,
    /// Of each score: the share of right choices, and the mean words of what it takes.
    pub choices: Vec<(&'static str, f64, f64)>,
    /// Which choice of each question each score takes.
    pub taken: Vec<Vec<usize>>,
    /// Of the sentence, and of its words in reverse.
    pub gpt_scores: Vec<f64>,
    pub g_eval: Vec<f64>,
    /// The probability that the next token is a score at all.
    pub mass: Vec<f64>,
}

/// A model, and its tokens by their words.
struct Judge {
    decoder: Decoder,
    tokens: HashMap<String, u32>,
}

impl Judge {
    /// The model in a folder.
    fn open(folder: &Path) -> Result<Self> {
        let file: Value = serde_json::from_slice(&std::fs::read(folder.join("tokenizer.json"))?)?;
        let none = Map::new();
        let vocabulary = file["model"]["vocab"].as_object().unwrap_or(&none);
        let mut tokens = HashMap::new();
        for word in words() {
            // a word has its blank before it, under one of two marks; punctuation has none
            let spelled = ["Ġ", "▁", ""].map(|blank| format!("{blank}{word}"));
            let spelled = match word.chars().all(char::is_alphanumeric) {
                true => &spelled[..2],
                false => &spelled[2..],
            };
            let id = spelled.iter().find_map(|word| vocabulary.get(word));
            let id = id.and_then(Value::as_u64);
            let id = id.ok_or_else(|| format!("the vocabulary has no token for `{word}` alone"))?;
            tokens.insert(word, u32::try_from(id)?);
        }
        let decoder = Decoder::load(folder, &Load::default())?;
        Ok(Self { decoder, tokens })
    }

    fn ids(&self, text: &str) -> Vec<u32> {
        text.split(' ').map(|word| self.tokens[word]).collect()
    }

    /// The log-probabilities of texts after a prompt, which goes through the model once.
    fn after(&self, prompt: &str, texts: &[&str]) -> Result<TokenLogProbs> {
        let prompt = self.ids(prompt);
        let rows: Vec<Vec<u32>> = texts
            .iter()
            .map(|text| [prompt.clone(), self.ids(text)].concat())
            .collect();
        let time = rows.iter().map(Vec::len).max().unwrap_or(0);
        let counts = |row: &Vec<u32>| {
            let (from, to) = (prompt.len(), row.len());
            (0..time).map(move |at| u8::from(from <= at && at < to))
        };
        let mask: Vec<u8> = rows.iter().flat_map(counts).collect();
        let mask = Tensor::from_vec(mask, (rows.len(), time), &Device::Cpu)?;
        let (segments, tokens) = Segments::from_tokens(&rows)?;
        let mode = Mode::Evaluation;
        Ok(self.decoder.log_probs(&tokens, &segments, &mask, mode)?)
    }
}

/// All words of the texts above.
fn words() -> BTreeSet<String> {
    let questions = QUESTIONS.iter().flat_map(|(ask, choices, _)| {
        let choices = choices.iter().copied();
        choices.chain([*ask])
    });
    let texts = questions.chain(ASK).chain(G_EVAL).chain(SCORES);
    let texts = texts.chain([SENTENCE, GPT_SCORE]);
    texts
        .flat_map(|text| text.split(' ').map(str::to_string))
        .collect()
}

/// A random decoder of one layer.
pub fn random(vocabulary: usize) -> Result<Decoder> {
    let config = json!({
        "model_type": "llama", "vocab_size": vocabulary, "hidden_size": WIDTH, "intermediate_size": WIDTH,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "hidden_act": "silu",
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
    });
    let mut rng = StdRng::seed_from_u64(0);
    let mut tensors = HashMap::new();
    let mut put = |name: &str, rows: usize| -> Result<()> {
        let mut draw = || (SPREAD * rng.sample::<f64, _>(StandardNormal)) as f32;
        let values: Vec<f32> = (0..rows * WIDTH).map(|_| draw()).collect();
        let tensor = Tensor::from_vec(values, (rows, WIDTH), &Device::Cpu)?;
        tensors.insert(name.to_string(), tensor);
        Ok(())
    };
    put("model.embed_tokens.weight", vocabulary)?;
    for name in [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
    ] {
        put(&format!("model.layers.0.{name}.weight"), WIDTH)?;
    }
    for name in ["gate_proj", "up_proj", "down_proj"] {
        put(&format!("model.layers.0.mlp.{name}.weight"), WIDTH)?;
    }
    let norms = [
        "layers.0.input_layernorm",
        "layers.0.post_attention_layernorm",
        "norm",
    ];
    for name in norms {
        let ones = Tensor::ones(WIDTH, DType::F32, &Device::Cpu)?;
        tensors.insert(format!("model.{name}.weight"), ones);
    }
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("config.json"), config.to_string())?;
    candle_core::safetensors::save(&tensors, folder.path().join("model.safetensors"))?;
    Ok(Decoder::load(folder.path(), &Load::default())?)
}

/// With the model in a folder, or with a random one.
pub fn run(folder: Option<&Path>) -> Result<Report> {
    let judge = match folder {
        Some(folder) => Judge::open(folder)?,
        None => Judge {
            decoder: random(words().len())?,
            tokens: words().into_iter().zip(0..).collect(),
        },
    };

    // multiple choice, by four scores
    let names = ["sum", "per token", "per byte", "less unconditional"];
    let mut taken = vec![Vec::new(); names.len()];
    for (question, choices, _) in &QUESTIONS {
        let [ask, answer] = ASK;
        let given = judge.after(&format!("{ask} {question} {answer}"), choices)?;
        let alone = judge.after(answer, choices)?;
        let bytes = choices.map(str::len);
        let scores = [
            ChoiceScore::Sum,
            ChoiceScore::PerToken,
            ChoiceScore::PerByte(&bytes),
            ChoiceScore::Unconditional(&alone),
        ];
        for (taken, by) in taken.iter_mut().zip(scores) {
            taken.extend(choose(&choice_scores(&given, by)?, &[choices.len()])?);
        }
    }
    let right = QUESTIONS.map(|(_, _, right)| right);
    let mut choices = Vec::new();
    for (name, taken) in names.into_iter().zip(&taken) {
        let words: usize = taken.iter().map(|choice| choice + 1).sum();
        let share = accuracy(taken, &right)?.value;
        choices.push((name, share, words as f64 / taken.len() as f64));
    }

    // a sentence, and its words in reverse
    let reversed: Vec<&str> = SENTENCE.split(' ').rev().collect();
    let reversed = reversed.join(" ");
    let texts = [SENTENCE, &reversed];
    let log_probs = gpt_score(&judge.after(GPT_SCORE, &texts)?)?;
    let gpt_scores = log_probs.to_dtype(DType::F64)?.to_vec1()?;
    let (mut g_eval, mut mass) = (Vec::new(), Vec::new());
    for text in texts {
        let [before, behind] = G_EVAL;
        let next = judge.after(&format!("{before} {text} {behind}"), &SCORES)?;
        let next: Vec<f64> = next.sum()?.to_dtype(DType::F64)?.to_vec1()?;
        let scores: Vec<(f64, f64)> = (1..).map(f64::from).zip(next).collect();
        g_eval.push(expected_score(&scores, ScoreMass::Normalized)?);
        mass.push(scores.iter().map(|(_, log)| log.exp()).sum());
    }
    Ok(Report {
        vocabulary: judge.decoder.config().vocab_size,
        choices,
        taken,
        gpt_scores,
        g_eval,
        mass,
    })
}

impl Report {
    pub fn table(&self) -> String {
        let size = format!("V = {}", self.vocabulary);
        let mut lines = vec![format!("{size:<20} {:>8} {:>8}", "right", "words")];
        for (name, right, words) in &self.choices {
            lines.push(format!("{name:<20} {right:>8.3} {words:>8.2}"));
        }
        lines.push(format!("{:<20} {:>8} {:>8}", "", "sentence", "reversed"));
        for (name, of) in [
            ("GPTScore", &self.gpt_scores),
            ("G-Eval", &self.g_eval),
            ("mass on scores", &self.mass),
        ] {
            lines.push(format!("{name:<20} {:>8.3} {:>8.3}", of[0], of[1]));
        }
        lines.join("\n")
    }
}

fn main() -> Result<()> {
    let folder = std::env::args().nth(1);
    println!("{}", run(folder.as_deref().map(Path::new))?.table());
    Ok(())
}
