//! What an evaluation refuses, by file, line and field; and the command line.

use super::Case;
use crate::objectives::model;
use clap::Parser;
use std::fs;
use train::Arguments;
use train::arguments::Asked;
use train::evaluation::settings::{Method, Settings};

const QUESTION: &str = r#"{"question": "Q", "choices": ["a", "b"], "answer": 0}"#;
const TEXT: &str = r#"{"source": "Q", "output": "a"}"#;

#[test]
fn a_row_that_cannot_be_read_is_named_by_file_line_and_field() {
    let rows = format!(
        "{QUESTION}\n\n{}",
        QUESTION.replace('}', r#", "hint": "a"}"#)
    );
    let case = Case::new("multiple_choice", &rows, &[]);
    case.refused("rows.jsonl:3: `hint` is not read in a question with choices");
    let case = Case::new("multiple_choice", &rows, &[r#"ignored_fields=["hint"]"#]);
    let report = case.run().unwrap();
    assert!(report.to_string().contains("`hint` ignored 1 times"));

    for (method, rows, problem) in [
        (
            "multiple_choice",
            "[]",
            "rows.jsonl:1: must be a JSON object, found a list",
        ),
        ("multiple_choice", "\n", "rows.jsonl: holds no rows"),
        (
            "gpt_score",
            r#"{"source": "Q"}"#,
            "rows.jsonl:1: `system_output` or `output` or",
        ),
        (
            "gpt_score",
            r#"{"output": "Q"}"#,
            "rows.jsonl:1: `source` or `document` or",
        ),
        (
            "g_eval",
            r#"{"source": "Q", "output": "a", "rating": 3}"#,
            "rows.jsonl:1: `rating` is not read in a text to judge",
        ),
        (
            "g_eval",
            r#"{"source": "Q", "output": "a", "score": "3"}"#,
            "rows.jsonl:1: `score` must be a number, found a text",
        ),
        (
            "g_eval",
            r#"{"source": "Q", "output": "a", "scores": {"fluency": 3}}"#,
            "rows.jsonl:1: `scores.coherence` is missing; `aspect` names the key",
        ),
        (
            "g_eval",
            r#"{"source": "Q", "output": "a", "prompt": "R"}"#,
            "rows.jsonl:1: has `source` and `prompt`, and one of them is read",
        ),
    ] {
        Case::new(method, rows, &[]).refused(problem);
    }
    for (field, name) in [
        (r#""score": 1"#, "`score` or `scores`"),
        (r#""doc_id": 1"#, "`doc_id`"),
    ] {
        let with = TEXT.replace('}', &format!(", {field}}}"));
        let case = Case::new("gpt_score", &format!("{with}\n{TEXT}"), &[]);
        case.refused(&format!(
            "rows.jsonl:2: has no {name}, and the first row has one"
        ));
        let case = Case::new("gpt_score", &format!("{TEXT}\n{with}"), &[]);
        case.refused(&format!(
            "rows.jsonl:2: has {name}, and the first row has none"
        ));
    }
}

#[test]
fn a_row_that_the_model_cannot_take_is_named() {
    let long = TEXT.replace('Q', &"q".repeat(1100));
    let rows = format!("{TEXT}\n{long}");
    let case = Case::new("gpt_score", &rows, &["chat=false"]);
    case.refused("rows.jsonl:2: has 12");
    case.refused("tokens with the prompt around it, and the model was made for 1024");
    // ten is two bytes
    let case = Case::new("g_eval", TEXT, &["g_eval.scores=[1,2,10]"]);
    case.refused("rows.jsonl:1: must be asked for texts of one token each, and `10` is 2 where they differ (`10`)");
}

#[test]
fn settings_without_a_meaning_are_refused() {
    let chat = "has no chat template";
    Case::new("multiple_choice", QUESTION, &["chat=true"]).refused(chat);
    for (set, problem) in [
        ("max_tokens=0", "`max_tokens` must be at least 1"),
        (
            "g_eval.scores=[3]",
            "`g_eval.scores` must be at least two scores, upward",
        ),
        (
            "g_eval.scores=[1,1]",
            "`g_eval.scores` must be at least two scores, upward",
        ),
        (
            "multiple_choice.prompt=Q",
            "`multiple_choice.prompt` has no slot `{question}`",
        ),
        (
            "gpt_score.prompt=good {input}",
            "`gpt_score.prompt` has no slot `{aspect}`",
        ),
        (
            "gpt_score.prompt={aspect} {input} {output}",
            "`gpt_score.prompt` has a slot `{output}`; there are `{aspect}`, `{input}`, `{definition}`",
        ),
        (
            "g_eval.prompt={aspect} {input}",
            "`g_eval.prompt` has no slot `{output}`",
        ),
        ("now=noon", "`now` must be a time"),
    ] {
        Case::new("multiple_choice", QUESTION, &[set]).refused(problem);
    }
    // one aspect is not asked about in the words of another
    let (missing, unread) = (
        "`definition` is missing: what is `fluency`?",
        "`definition` is not read",
    );
    for (method, form) in [
        ("gpt_score", "gpt_score.prompt={aspect}: {input}"),
        ("g_eval", "g_eval.prompt={aspect}: {input} {output}"),
    ] {
        Case::new(method, TEXT, &["aspect=fluency"]).refused(missing);
        Case::new(method, TEXT, &[form, "definition=ease"]).refused(unread);
        for sets in [
            &["aspect=fluency", form][..],
            &["aspect=fluency", "definition=ease"],
        ] {
            Case::new(method, TEXT, sets).run().unwrap();
        }
    }
    let error = Settings::default().with("gpt_score.prompt={").unwrap_err();
    assert!(error.to_string().contains("has `{` without `}`"), "{error}");
    let error = Settings::default().with("question=a").unwrap_err();
    assert!(error.to_string().contains("there is no setting `question`"));
}

#[test]
fn a_reward_model_gives_no_likelihood() {
    let folder = model(1, None);
    let path = folder.path().join("config.json");
    let config = fs::read_to_string(&path).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["architectures"] = serde_json::json!(["LlamaForSequenceClassification"]);
    config["num_labels"] = 1.into();
    fs::write(&path, config.to_string()).unwrap();
    let weights = folder.path().join("model.safetensors");
    let cpu = &candle_core::Device::Cpu;
    let mut tensors = candle_core::safetensors::load(&weights, cpu).unwrap();
    tensors.remove("lm_head.weight").unwrap();
    let score = candle_core::Tensor::zeros((1, 16), candle_core::DType::F32, cpu).unwrap();
    tensors.insert("score.weight".to_string(), score);
    candle_core::safetensors::save(&tensors, &weights).unwrap();
    let case = Case::on(folder, "multiple_choice", QUESTION, &[]);
    case.refused(
        "is a reward model, with the head `score.weight`, and an evaluation needs a language model",
    );
}

fn asked(arguments: &[&str]) -> Result<Asked, String> {
    let all = ["train"].iter().chain(arguments);
    let arguments = Arguments::try_parse_from(all).map_err(|error| error.to_string())?;
    arguments.asked().map_err(|error| error.to_string())
}

#[test]
fn the_command_line_asks_for_an_evaluation() {
    let Ok(Asked::Evaluation(settings)) = asked(&[
        "--model",
        "m",
        "--evaluate",
        "g_eval",
        "--data",
        "d",
        "--adapter",
        "a",
        "--ignore-field",
        "x",
        "--set",
        "g_eval.scores=[1,2]",
        "--set",
        "chat=false",
    ]) else {
        panic!("an evaluation");
    };
    assert_eq!(settings.evaluate, Method::GEval);
    assert_eq!(settings.model.to_str(), Some("m"));
    assert_eq!(settings.data.to_str(), Some("d"));
    assert_eq!(settings.adapter_dir.as_ref().unwrap().to_str(), Some("a"));
    assert_eq!(settings.ignored_fields, ["x"]);
    assert_eq!(settings.g_eval.scores, [1, 2]);
    assert_eq!(settings.chat, Some(false));
    assert_eq!(settings.out().to_str(), Some("target/train/g_eval_m"));

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("settings.json");
    fs::write(&path, serde_json::to_string(&settings).unwrap()).unwrap();
    let Ok(Asked::Evaluation(again)) = asked(&["--config", path.to_str().unwrap()]) else {
        panic!("an evaluation");
    };
    assert_eq!(again, settings);

    for (flag, value) in [
        ("--objective", Some("dpo")),
        ("--resume", None),
        ("--max-length", Some("9")),
        ("--steps", Some("1")),
        ("--seed", Some("1")),
        ("--skip-bad-rows", None),
    ] {
        let all: Vec<&str> = ["--model", "m", "--evaluate", "gpt_score", flag]
            .into_iter()
            .chain(value)
            .collect();
        let expected = format!("{flag} is for training, and --evaluate trains nothing");
        assert_eq!(asked(&all).err(), Some(expected));
    }
    let Ok(Asked::Evaluation(settings)) = asked(&["--evaluate", "gptscore", "--data", "d"]) else {
        panic!("an evaluation");
    };
    let problem = settings.check().unwrap_err().to_string();
    assert_eq!(problem, "`model` is missing: say --model");
}

/// Results are called `rows.jsonl`, as many a file of rows is.
#[test]
fn rows_that_no_evaluation_wrote_are_not_written_over() {
    let mut case = Case::new("multiple_choice", QUESTION, &[]);
    let out = case.dir.path().to_path_buf();
    let rows = out.join("rows.jsonl");
    case.settings.out = Some(out.clone());
    case.refused("rows.jsonl: the run reads its rows here, and would write its results over it in");
    case.settings.data = out.join("questions.jsonl");
    fs::write(&case.settings.data, QUESTION).unwrap();
    case.refused("rows.jsonl: is there already and is not of this run");
    assert_eq!(fs::read_to_string(&rows).unwrap(), QUESTION);
    assert!(!out.join("evaluation.json").exists());
    // its own results, again and again
    fs::remove_file(&rows).unwrap();
    for _ in 0..2 {
        case.run().unwrap();
        assert_ne!(fs::read_to_string(&rows).unwrap(), QUESTION);
    }
}
