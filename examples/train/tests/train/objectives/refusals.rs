//! What an objective needs and a file or a setting does not have.

use super::{CHAT, Case, LISTS, SOLUTIONS, golden, model};
use clap::Parser;
use indicatif::ProgressBar;
use std::fs;
use train::Arguments;
use train::arguments::Asked;
use train::checkpoint::run::run;
use train::checkpoint::settings::{Learned, Settings};

fn refused(case: &Case, problem: &str) {
    let error = case
        .prepared()
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default();
    assert!(error.contains(problem), "{problem}: {error}");
}

#[test]
fn a_file_that_lacks_what_an_objective_needs_is_named() {
    let single = r#"{"question": "a", "answer": "b"}"#;
    let says = |objective: &str, rows: &str, problem: &str| {
        refused(&Case::new(objective, rows, &[]), problem);
    };
    for objective in ["pro", "dpo", "reward", "chain_of_hindsight"] {
        let problem = format!(
            "{objective} needs at least two answers to a prompt, and no row has a second one such as `rejected`"
        );
        says(objective, single, &problem);
    }
    says(
        "self_debug",
        LISTS,
        "self_debug needs answers marked right or wrong, and no row has an `is_correct`",
    );
    let label = r#"{"prompt": "a", "completion": "b", "label": true}"#;
    says(
        "rrhf",
        label,
        "compares answers to one prompt, and each row has one answer with a `label`",
    );
    let equal = r#"{"prompt": "a", "answers": ["b", "c"], "rewards": [1, 1]}"#;
    says(
        "brio",
        equal,
        "needs one answer that is better than another",
    );
    says(
        "pro",
        r#"{"prompt": "a", "answers": ["b"]}"#,
        "rows.jsonl:1: `rewards` or `ranks` is missing",
    );
    says(
        "pro",
        r#"{"prompt": "a", "chosen": "b"}"#,
        "rows.jsonl:1: `rejected` is missing",
    );
    says(
        "sft",
        r#"{"prompt": "a", "completion": "b", "label": false}"#,
        "every row has a `label` that is false",
    );
    // an answer that has begun cannot be continued in a turn of its own
    let begun = r#"{"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "chosen": "c", "rejected": "d"}"#;
    says(
        "pro",
        begun,
        "1 left out (an answer that has begun in the prompt)",
    );
}

#[test]
fn settings_without_a_meaning_for_the_rows_are_refused() {
    let problem = "`completion_only` and `turns` are for supervised rows";
    refused(&Case::new("pro", LISTS, &["turns=last"]), problem);
    refused(
        &Case::new("sft", SOLUTIONS, &["completion_only=true"]),
        problem,
    );
    let plain = model(1, None);
    refused(
        &Case::on(plain, "pro", LISTS, &["chat=true"]),
        "has no chat template",
    );
    let pair = r#"{"prompt": "a", "chosen": "b", "rejected": "c", "margin": 1}"#;
    let sets = ["reward_form=choose_best"];
    refused(
        &Case::new("reward", pair, &sets),
        "has a `margin`, which only `reward_form`",
    );
    refused(
        &Case::new("dpo", pair, &["chat=false"]),
        "`chat` is for files",
    );
    refused(
        &Case::new("slic", LISTS, &["slic_kl_weight=-1"]),
        "`slic_kl_weight` must be finite and >= 0",
    );
    refused(
        &Case::new("c_rlft", SOLUTIONS, &["c_rlft.good_reward=1e99"]),
        "`c_rlft.good_reward` must be finite",
    );
    refused(
        &Case::new(
            "chain_of_hindsight",
            LISTS,
            &["chain_of_hindsight.orders=[]"],
        ),
        "`chain_of_hindsight.orders` must not be empty",
    );
    refused(
        &Case::new("pro", LISTS, &["max_answers=1"]),
        "`max_answers` must be at least 2",
    );
    refused(
        &Case::new("pro", LISTS, &["max_length=2000", "max_pairs=0"]),
        "`max_pairs` must be at least 1",
    );
}

#[test]
fn a_row_or_a_question_that_the_model_cannot_take_is_an_error() {
    let long = format!(
        r#"{{"prompt": "a", "answers": ["{}", "c"], "rewards": [1, 0]}}"#,
        "b ".repeat(600)
    );
    let problem =
        "rows.jsonl:1: has 1221 tokens, and the model was made for 1024; set `max_length`";
    refused(&Case::new("pro", &long, &["max_length=null"]), problem);
    // only the evaluation asks about the worse answer
    let long = long.replace("[1, 0]", "[0, 1]");
    let mut case = Case::new("sft", LISTS, &["max_length=null"]);
    let file = case.dir.path().join("held_out.jsonl");
    fs::write(&file, long).unwrap();
    case.settings.held_out_file = Some(file);
    refused(&case, "held_out.jsonl:1: has 1221 tokens");
}

#[test]
fn a_held_out_part_of_which_nothing_is_left_is_an_error() {
    let mut case = Case::new("pro", LISTS, &["max_length=100"]);
    let file = case.dir.path().join("held_out.jsonl");
    let long = LISTS
        .lines()
        .next()
        .unwrap()
        .replace("fruit", &"fruit ".repeat(20));
    fs::write(&file, long).unwrap();
    case.settings.held_out_file = Some(file);
    let problem = "held_out.jsonl: no held-out row is left to measure: 0 of 1 rows, 1 dropped (the prompt \
                   alone is too long), nothing left out; hold out more prompts";
    refused(&case, problem);
}

#[test]
fn edit_tokens_must_be_tokens_that_no_answer_has() {
    let edits = |tokens: &str| {
        Case::new(
            "second_thoughts",
            LISTS,
            &[&format!("edit_tokens={tokens}")],
        )
    };
    refused(&edits(r#"["a"]"#), "`edit_tokens` must be 16 tokens");
    let with = |first: &str| {
        let rest: Vec<String> = ('A'..='O').map(|c| format!("\"{c}\"")).collect();
        format!("[\"{first}\",{}]", rest.join(","))
    };
    refused(
        &edits(&with("ab")),
        "`edit_tokens` has \"ab\", which is 2 tokens and must be one",
    );
    refused(
        &edits(&with("A")),
        "`edit_tokens` must be 16 different tokens",
    );
    refused(
        &edits(&with("s")),
        "in an answer, which writes edits: name other ones by `edit_tokens`",
    );
    // a tokenizer of words has no control characters
    let words = model(1, None);
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        let from = golden("tests/golden/words").join(file);
        fs::copy(from, words.path().join(file)).unwrap();
    }
    let case = Case::on(words, "second_thoughts", LISTS, &[]);
    refused(&case, "name 16 tokens by `edit_tokens`");
}

#[test]
fn every_setting_of_an_objective_is_known_and_no_other() {
    let known = [
        "sft.label_smoothing=0.1",
        "reward.centering=0.01",
        "ranked_reward.margin=0.5",
        "dpo.beta=0.2",
        "pro.sft_weight=0.1",
        "slic.delta=2",
        "rrhf.rank_weight=2",
        "brio.length_power=0.5",
        "expected_risk.length_power=0",
        "stable_alignment.margin=5",
        "c_rlft.loss.weighting=linear",
        "chain_of_hindsight.learned=last",
        "second_thoughts.replace=1",
        "selfee.feedback=F",
        "self_debug.wrong=No",
        "classes.good=G",
        "eaft.k=10",
        "since.ipo.log_ratio=mean",
        "since.kto.desirable_weight=2",
        "since.simpo.cpo_alpha=1",
        "since.tpo.log_prob=mean",
        "since.rebel.eta=2",
    ];
    let set = |one: &str| Settings::default().with(one);
    for one in known {
        if let Err(error) = set(one) {
            panic!("{one}: {error}");
        }
        let (name, _) = one.split_once('.').unwrap();
        let error = set(&format!("{name}.nothing=1")).unwrap_err().to_string();
        assert!(error.contains("there is no setting `nothing`"), "{error}");
    }
    // the decoder hides nothing from attention
    let error = set("chain_of_hindsight.forgetful={}")
        .unwrap_err()
        .to_string();
    assert!(error.contains("there is no setting `forgetful`"), "{error}");
    let all = set("slic={\"beta\": 1}").unwrap_err().to_string();
    assert!(all.contains("unknown field `beta`"), "{all}");
    assert_eq!(Settings::default().objective, Learned::Dpo);
}

#[test]
fn ignored_fields_are_ignored_by_every_reader() {
    let rows = [
        ("pro", LISTS.replace("\"prompt\"", "\"odd\": 1, \"prompt\"")),
        ("dpo", r#"{"prompt": "a", "chosen": "b", "rejected": "c", "odd": [2]}"#.to_string()),
        ("sft", r#"{"prompt": "a", "completion": "b", "odd": "c"}"#.to_string()),
        ("reward", r#"{"chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "odd": 1}], "rejected": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "c"}]}"#.to_string()),
    ];
    for (objective, rows) in rows {
        let case = Case::on(model(1, Some(CHAT)), objective, &rows, &[]);
        refused(&case, "odd");
        let path = |path: &std::path::Path| path.to_str().unwrap().to_string();
        let (model, data) = (path(case.model.path()), path(&case.settings.data));
        let arguments = [
            "train",
            "--model",
            &model,
            "--data",
            &data,
            "--objective",
            objective,
            "--ignore-field",
            "odd",
        ];
        let asked = Arguments::parse_from(arguments).asked().unwrap();
        let Asked::Checkpoint { settings, .. } = asked else {
            panic!("the small model");
        };
        let mut case = case;
        case.settings.ignored_fields = settings.ignored_fields.clone();
        assert_eq!(case.settings.objective, settings.objective);
        let report = case.prepared().unwrap().report;
        assert!(report.to_string().contains("`odd` ignored"), "{report}");
    }
}

#[test]
fn what_an_objective_since_the_survey_cannot_do_is_said() {
    let says = |objective: &str, sets: &[&str], problem: &str| {
        refused(&Case::new(objective, SOLUTIONS, sets), problem);
    };
    says(
        "kto",
        &["fit.batch=1"],
        "`fit.batch` must be at least 2 for `kto`, got 1",
    );
    says(
        "aot",
        &["fit.max_tokens=50"],
        "`fit.max_tokens` must be null for `aot`",
    );
    says(
        "simpo",
        &["since.divergence=forward_kl"],
        "`since.divergence` is for losses of a difference of log-ratios, and `simpo` is none",
    );
    says(
        "cpo",
        &["since.cpo.alpha=-1"],
        "`since.cpo.alpha` must be finite and >= 0, got -1",
    );
    says(
        "sft",
        &["sft_form=dft", "sft.label_smoothing=0.1"],
        "`sft.label_smoothing` is for `sft_form` = \"nll\"",
    );
    let unpaired = |rows: &str, problem: &str| refused(&Case::new("kto", rows, &[]), problem);
    unpaired(
        r#"{"prompt": "a", "completion": "b", "label": 1}"#,
        "rows.jsonl:1: `label` must be true or false",
    );
    unpaired(
        r#"{"prompt": "a", "completion": "b"}"#,
        "rows.jsonl:1: must have the fields `prompt`, `completion` and `label`, or `chosen` and `rejected`",
    );
    unpaired(
        r#"{"prompt": "a", "completion": "b", "label": true, "rating": 5}"#,
        "`rating`",
    );
    unpaired(
        "{\"prompt\": \"a\", \"completion\": \"b\", \"label\": true}\n\
         {\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}",
        "rows.jsonl:2: has `prompt`, `chosen` and `rejected`, and the first row has `prompt`, `completion` and `label`",
    );
    let mut case = Case::new("gkd", SOLUTIONS, &[]);
    case.settings.teacher = None;
    refused(&case, "`gkd` needs `teacher`");
    case.settings = Case::new("dpo", SOLUTIONS, &["teacher=x"]).settings;
    refused(&case, "`teacher` is for `gkd`, and this is `dpo`");
    // the small model knows the objectives of the survey
    let arguments = ["train", "--objective", "ipo"];
    let Asked::Small(small) = Arguments::parse_from(arguments).asked().unwrap() else {
        panic!("a checkpoint");
    };
    let error = small.check().unwrap_err().to_string();
    assert!(error.contains("`ipo` trains a checkpoint"), "{error}");
}

#[test]
fn a_teacher_has_the_models_tokens_and_stays_the_same() {
    let mut case = Case::new("gkd", SOLUTIONS, &["fit.max_steps=2", "save_every=1"]);
    let go = |case: &Case, resume: bool, stop: usize| {
        let progress = ProgressBar::hidden();
        run(&case.settings, resume, &progress, &|step| step == stop)
    };
    go(&case, false, 1).unwrap();
    let weights = case.settings.teacher.as_ref().unwrap();
    let weights = weights.join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    let error = go(&case, true, 0).unwrap_err().to_string();
    let problem = "`teacher/model.safetensors` is not the file that the run began with";
    assert!(error.contains(problem), "{error}");
    case.settings.teacher = Some(golden("../../tests/golden/trl/model"));
    let error = go(&case, true, 0).unwrap_err().to_string();
    let problem =
        "has 32 tokens and the model 258: the teacher of `gkd` must have the same vocabulary";
    assert!(error.contains(problem), "{error}");
    // it reads rows as long as the model does
    let short = model(2, Some(CHAT));
    let path = short.path().join("config.json");
    let config = fs::read_to_string(&path).unwrap();
    fs::write(&path, config.replace("1024", "512")).unwrap();
    case.settings.teacher = Some(short.path().to_path_buf());
    case.settings.out = Some(case.dir.path().join("short"));
    let error = go(&case, false, 0).unwrap_err().to_string();
    let problem =
        "was made for 512 tokens, and rows may have 1024: set `max_length` to 512 or less";
    assert!(error.contains(problem), "{error}");
    let arguments = ["train", "--teacher", "x"];
    let error = Arguments::parse_from(arguments).asked().unwrap_err();
    assert_eq!(error.to_string(), "--teacher needs --model");
}
