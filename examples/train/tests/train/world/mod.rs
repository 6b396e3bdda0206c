//! Several ranks train one model.

mod laws;
#[cfg(feature = "mpi")]
mod mpi;
mod parts;
mod stops;
mod threads;

use super::objectives;
use super::whole_runs::{golden, keys};
use candle_core::Device;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use train::checkpoint::run::run_in;
use train::checkpoint::settings::{FreshAdapter, Learned, Settings};
use train::checkpoint::summary::Outcome;
use train::error::Result;
use train::world::World;
use train::world::single::Single;

/// Lists with rewards, of different lengths.
const LISTS: &str = r#"{"prompt": "Name a fruit.", "answers": ["A stone.", "An apple.", "Apples"], "rewards": [0.1, 2.5, 1]}
{"prompt": "Hi", "answers": ["Go away", "Hello!"], "ranks": [1, 0]}
{"prompt": "Say a", "answers": ["a", "an a", "b", "no"], "rewards": [3, 2, 0.5, 0.25]}
{"prompt": "And now", "answers": ["then", "now", "what?"], "rewards": [1, 2, 0]}
{"prompt": "One more", "answers": ["no", "yes, one"], "rewards": [0, 1]}
{"prompt": "Last", "answers": ["first", "the last of all"], "rewards": [1, 2]}
"#;

/// Folders, and the settings of twenty steps.
struct Case {
    dir: tempfile::TempDir,
    _model: Option<tempfile::TempDir>,
    settings: Settings,
}

impl Case {
    /// Steps of two micro-batches of three rows; some rows are held out.
    fn new(objective: &str, adapter: Option<FreshAdapter>, sets: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (mut model, mut data) = (golden("model"), golden("rows.jsonl"));
        let mut own = None;
        match objective {
            "pro" => {
                let folder = objectives::model(1, Some(objectives::CHAT));
                model = folder.path().to_path_buf();
                own = Some(folder);
                data = dir.path().join("lists.jsonl");
                fs::write(&data, LISTS).unwrap();
            }
            "sft" => {
                let rows = fs::read_to_string(&data).unwrap();
                let row = |line: &str| {
                    let row: Value = serde_json::from_str(line).unwrap();
                    let row = json!({"prompt": row["prompt"], "completion": row["chosen"]});
                    row.to_string() + "\n"
                };
                data = dir.path().join("completions.jsonl");
                fs::write(&data, rows.lines().map(row).collect::<String>()).unwrap();
            }
            "grpo" | "rloo" | "raft" | "online_dpo" => data = golden("prompts.jsonl"),
            _ => {}
        }
        let mut settings = Settings {
            model,
            data,
            adapter,
            now: Some("2026-01-31T12:00:00".to_string()),
            held_out: 0.25,
            eval_every: 10,
            ..Settings::default()
        };
        settings.fit.max_steps = Some(20);
        settings.fit.batch = 3;
        settings.fit.accumulation = 2;
        // far enough to see a wrong step: twenty of 2e-6; AdamW makes such a step of mere rounding too
        settings.fit.learning_rate = Some(2e-6);
        let objective = format!("objective={objective}");
        for set in [objective.as_str()].iter().chain(sets) {
            settings = settings.with(set).unwrap();
        }
        if settings.objective.is_online() {
            // answers of different lengths in the first step: its gradient is not 0
            let more = [
                "seed=3",
                r#"online.rewards=[{"length": {"target": 3}}]"#,
                "online.num_generations=3",
                "online.max_completion_length=12",
            ];
            settings = more
                .iter()
                .fold(settings, |settings, set| settings.with(set).unwrap());
        }
        Self {
            dir,
            _model: own,
            settings,
        }
    }

    fn out(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn to(&self, name: &str) -> Settings {
        // every run computes its own, and leaves nothing outside its folder
        let computed = self.settings.precompute_ref_log_probs;
        Settings {
            out: Some(self.out(name)),
            ref_log_probs_dir: computed.then(|| self.out(&format!("{name}-reference"))),
            ..self.settings.clone()
        }
    }

    /// A run by so many ranks, and how it ended on each.
    fn run(&self, name: &str, size: usize) -> Vec<Outcome> {
        let settings = self.to(name);
        let results = match size {
            1 => vec![whole(&Single, &settings, false)],
            _ => threads::ranks(size, |world| whole(world, &settings, false)),
        };
        results.into_iter().map(Result::unwrap).collect()
    }
}

fn whole(world: &dyn World, settings: &Settings, resume: bool) -> Result<Outcome> {
    run_in(world, settings, resume, &ProgressBar::hidden(), &|_| false)
}

fn lora() -> Option<FreshAdapter> {
    keys(json!({"r": 2, "lora_alpha": 4}))
}

/// From three triplets in each map to one on average.
fn ada_lora() -> Option<FreshAdapter> {
    keys(json!({
        "peft_type": "ADALORA", "init_r": 3, "target_r": 1, "tinit": 2, "tfinal": 5, "lora_alpha": 4,
        "target_modules": ["q_proj", "v_proj"],
    }))
}

/// The lines of the log.
fn lines(out: &Path) -> Vec<Value> {
    let text = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let line = |line: &str| serde_json::from_str(line).unwrap();
    text.lines().map(line).collect()
}

/// The numbers of the logs, and the weights after the last step, agree to 1e-6; KTO's baseline, a small difference of
/// long sums, to 1e-5. Which of two equal scores is higher is left to rounding.
fn agree(what: &str, a: &Path, b: &Path) {
    let near = |name: &str, a: f64, b: f64| {
        let bound = if name.ends_with("baseline") {
            1e-5
        } else {
            1e-6
        };
        let far = (a - b).abs();
        assert!(far <= bound * a.abs().max(1.0), "{what}: {name}: {a} {b}");
    };
    let (one, other) = (lines(a), lines(b));
    assert_eq!(one.len(), other.len(), "{what}");
    for (one, other) in one.iter().zip(&other) {
        let (one, other) = (one.as_object().unwrap(), other.as_object().unwrap());
        let step = &one["step"];
        assert_eq!(
            one.keys().collect::<Vec<_>>(),
            other.keys().collect::<Vec<_>>(),
            "{what}"
        );
        let compared = one.iter().filter(|(name, _)| !name.starts_with("accuracy"));
        for (name, value) in compared {
            match (value.as_f64(), other[name].as_f64()) {
                (Some(a), Some(b)) => near(&format!("step {step}, {name}"), a, b),
                _ => assert_eq!(value.is_object(), other[name].is_object(), "{name}"),
            }
        }
    }
    let weights = |out: &Path| {
        let path = out.join("checkpoints/step-000020/trained.safetensors");
        candle_core::safetensors::load(path, &Device::Cpu).unwrap()
    };
    let (one, other) = (weights(a), weights(b));
    assert_eq!(one.len(), other.len(), "{what}");
    for (name, weight) in one {
        let numbers = |t: &candle_core::Tensor| {
            let flat = t.flatten_all().unwrap();
            flat.to_vec1::<f32>().unwrap()
        };
        let both = numbers(&weight).into_iter().zip(numbers(&other[&name]));
        for (a, b) in both {
            near(&name, f64::from(a), f64::from(b));
        }
    }
}

fn is(objective: Learned, outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Done(summary) => summary.objective == objective,
        Outcome::Online(summary) => summary.objective == objective,
        Outcome::Stopped { .. } => false,
    }
}
