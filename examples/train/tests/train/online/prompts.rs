//! Prompts from rows of every kind, with the right answers that rules compare with.

use super::{refused, tiny};
use crate::objectives::{CHAT, model};
use candle_align::decoder::{Decoder, Load};
use std::fs;
use std::path::Path;
use train::checkpoint::online::prompts::{Prompt, prepare};
use train::checkpoint::settings::Learned;

fn read(rows: &str, sets: &[&str]) -> Result<(Vec<Prompt>, String), String> {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("rows.jsonl");
    fs::write(&data, rows).unwrap();
    let sets: Vec<&str> = ["held_out=0"].iter().chain(sets).copied().collect();
    let mut settings = tiny(Learned::Grpo, dir.path(), &sets);
    settings.data = data;
    let decoder = Decoder::load(&settings.model, &Load::default()).unwrap();
    let found = prepare(&settings, &decoder, Default::default());
    let found = found.map_err(|error| error.to_string())?;
    Ok((found.train, found.report.to_string()))
}

#[test]
fn a_prompt_alone_stays_as_it_is() {
    let (prompts, _) = read(
        "{\"prompt\": \"t5 t6\"}\n{\"prompt\": \"t7\", \"id\": 3}\n",
        &[],
    )
    .unwrap();
    assert_eq!(prompts[0].ids, [5, 6]);
    assert_eq!(prompts[0].text, "t5 t6");
    assert_eq!((prompts[1].line, &prompts[1].ids), (2, &vec![7]));
    assert_eq!(prompts[0].reference, None);
}

#[test]
fn the_right_answer_has_one_of_four_names() {
    for name in ["reference", "answer", "solution", "ground_truth"] {
        let row = format!("{{\"prompt\": \"t5\", \"{name}\": \"x\"}}");
        let (prompts, _) = read(&row, &[]).unwrap();
        assert_eq!(prompts[0].reference.as_deref(), Some("x"), "{name}");
        let row = format!("{{\"prompt\": \"t5\", \"{name}\": 42}}");
        let (prompts, _) = read(&row, &[]).unwrap();
        assert_eq!(prompts[0].reference.as_deref(), Some("42"), "{name}");
    }
    let two = read(r#"{"prompt": "t5", "answer": "x", "solution": "y"}"#, &[]).unwrap_err();
    assert!(
        two.contains(":1: `answer` and `solution` are both given"),
        "{two}"
    );
    let list = read(r#"{"prompt": "t5", "answer": [1]}"#, &[]).unwrap_err();
    assert!(
        list.contains("`answer` must be a text or a number"),
        "{list}"
    );
    let other = read(r#"{"prompt": "t5", "level": 3}"#, &[]).unwrap_err();
    assert!(other.contains("`level` is not read in a prompt"), "{other}");
}

#[test]
fn other_formats_give_their_prompts_and_their_best_answers() {
    // a dialogue of words that this tokenizer does not know
    let question = r#"{"question": "t5", "answer": "t6 #### t7"}"#;
    let (prompts, _) = read(question, &[]).unwrap();
    assert_eq!(prompts[0].reference.as_deref(), Some("t6 #### t7"));
    assert_eq!(prompts[0].text, "\n\nHuman: t5\n\nAssistant: ");
    let pair = r#"{"prompt": "t5", "chosen": "good", "rejected": "bad"}"#;
    let (prompts, _) = read(pair, &[]).unwrap();
    assert_eq!(prompts[0].reference.as_deref(), Some("good"));
    // no right answer is known
    let wrong = r#"{"prompt": "t5", "completion": "bad", "label": false}"#;
    let (prompts, _) = read(wrong, &[]).unwrap();
    assert_eq!(prompts[0].reference, None);
}

#[test]
fn long_prompts_are_left_out_and_counted_and_no_room_is_an_error() {
    let rows = "{\"prompt\": \"t5 t6 t7\"}\n{\"prompt\": \"t7\"}\n";
    let (prompts, report) = read(rows, &["max_length=2"]).unwrap();
    assert_eq!(prompts.len(), 1);
    assert!(
        report.contains("1 of 2 rows, 1 dropped (the prompt alone is too long)"),
        "{report}"
    );
    // the model was made for 64 tokens
    let error = read(rows, &["online.max_completion_length=62"]).unwrap_err();
    assert!(error.contains(":1: has a prompt of 3 tokens"), "{error}");
    assert!(read(rows, &["online.max_completion_length=61"]).is_ok());
    // a prompt that is tuned takes places too
    let adapter =
        r#"adapter={"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 20, "token_dim": 16}"#;
    let dir = tempfile::tempdir().unwrap();
    let of = |most: &str| refused(&tiny(Learned::Grpo, dir.path(), &[adapter, most]));
    let error = of("online.max_completion_length=42");
    assert!(
        error.contains("no room in the model, which was made for 64, of which the adapter's virtual tokens take 20"),
        "{error}"
    );
}

#[test]
fn the_first_row_says_whether_prompts_are_messages_and_chat_says_it_louder() {
    let (text, messages) = (
        r#"{"prompt": "a"}"#,
        r#"{"prompt": [{"role": "user", "content": "a"}]}"#,
    );
    let folder = model(1, Some(CHAT));
    let of = |rows: &[&str], sets: &[&str]| {
        let set = format!("model={}", folder.path().display());
        let sets: Vec<&str> = [set.as_str()].iter().chain(sets).copied().collect();
        read(&rows.join("\n"), &sets).map(|(prompts, _)| prompts)
    };
    let error = of(&[messages, text], &[]).unwrap_err();
    assert!(
        error.contains(":2: `prompt` is a text, and in the first row it is a list of messages"),
        "{error}"
    );
    let error = of(&[text, messages], &[]).unwrap_err();
    assert!(
        error.contains(":2: `prompt` is a list of messages, and in the first row it is a text"),
        "{error}"
    );
    let error = of(&[messages], &["chat=false"]).unwrap_err();
    assert!(
        error.contains(":1: `prompt` is a list of messages, and `chat` is false"),
        "{error}"
    );
    let both = of(&[messages, text], &["chat=true"]).unwrap();
    assert_eq!(both[0].ids, both[1].ids);
}

#[test]
fn the_file_that_lacks_a_right_answer_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let rows = "{\"prompt\": \"t5\", \"answer\": \"t6\"}\n".repeat(4);
    let mut settings = tiny(
        Learned::Grpo,
        dir.path(),
        &[r#"online.rewards=["final_answer"]"#],
    );
    let write = |name: &str, rows: &str| {
        let path = dir.path().join(name);
        fs::write(&path, rows).unwrap();
        path
    };
    settings.data = write("rows.jsonl", &rows);
    let lacking = format!("{rows}{{\"prompt\": \"t7\"}}\n");
    settings.held_out_file = Some(write("held_out.jsonl", &lacking));
    let error = refused(&settings);
    assert!(
        error.contains("held_out.jsonl:5: has no right answer"),
        "{error}"
    );
}

#[test]
fn settings_that_cannot_be_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let of = |objective, sets: &[&str]| refused(&tiny(objective, Path::new(dir.path()), sets));
    for (objective, sets, part) in [
        (
            Learned::Grpo,
            vec!["online.rewards=[]"],
            "`grpo` needs a reward",
        ),
        (
            Learned::Grpo,
            vec!["online.num_generations=1"],
            "`online.num_generations` must be at least 2",
        ),
        (
            Learned::Grpo,
            vec!["online.num_generations=3"],
            "8 answers a step, which must be a multiple of",
        ),
        (
            Learned::Grpo,
            vec!["online.reward_weights=[1,2]"],
            "`online.reward_weights` must hold",
        ),
        (
            Learned::Grpo,
            vec!["online.max_completion_length=0"],
            "`online.max_completion_length` must be at least 1",
        ),
        (
            Learned::Grpo,
            vec!["online.num_iterations=0"],
            "`online.num_iterations` must be at least 1",
        ),
        (
            Learned::Grpo,
            vec!["online.beta=-1"],
            "`online.beta` must be finite and >= 0",
        ),
        (
            Learned::OnlineDpo,
            vec!["online.beta=0"],
            "`online.beta` must be > 0 for `online_dpo`",
        ),
        (
            Learned::Raft,
            vec!["online.beta=0.1"],
            "`raft` here has no reference",
        ),
        (
            Learned::Rloo,
            vec!["online.loss_type=grpo"],
            "`online.loss_type` is not read by `rloo`",
        ),
        (
            Learned::Grpo,
            vec!["online.normalize_advantages=true"],
            "`online.normalize_advantages` is not read by `grpo`",
        ),
        (
            Learned::Grpo,
            vec!["online.loss_type=sapo", "online.epsilon=0.3"],
            "`online.epsilon` is not read",
        ),
        (
            Learned::Grpo,
            vec!["online.use_bias_correction_kl=false"],
            "`online.use_bias_correction_kl` is not read",
        ),
        (
            Learned::Grpo,
            vec!["online.temperature=0"],
            "`online.temperature` must be finite and > 0, got 0",
        ),
        (
            Learned::Raft,
            vec!["online.top_p=1.5"],
            "`online.top_p` must be in (0, 1], got 1.5",
        ),
        (
            Learned::Rloo,
            vec!["online.epsilon=0"],
            "`online.epsilon` must be finite and > 0, got 0",
        ),
        (
            Learned::Grpo,
            vec!["online.epsilon_high=-1"],
            "`online.epsilon_high` must be finite and > 0, got -1",
        ),
        (
            Learned::Grpo,
            vec!["online.delta=1"],
            "`online.delta` must be finite and > 1, got 1",
        ),
        (
            Learned::Grpo,
            vec!["fit.accumulation=18446744073709551615"],
            "`fit.batch` times `fit.accumulation` is too large: 8 times 18446744073709551615",
        ),
        (
            Learned::Grpo,
            vec!["online.max_completion_length=18446744073709551615"],
            "tokens; with `online.max_completion_length` 18446744073709551615 it has no room",
        ),
        (
            Learned::OnlineDpo,
            vec!["dpo.beta=0.5"],
            "`dpo` is not read by `online_dpo`, which draws answers: β is `online.beta`; leave it out",
        ),
        (
            Learned::Raft,
            vec!["sft.label_smoothing=0.1"],
            "`sft` is not read by `raft`, which draws answers; leave it out",
        ),
        (
            Learned::Grpo,
            vec!["completion_only=true"],
            "`completion_only` is not read by `grpo`",
        ),
        (
            Learned::Grpo,
            vec!["turns=last"],
            "`turns` is not read by `grpo`",
        ),
        (
            Learned::Grpo,
            vec!["text_field=body"],
            "`text_field` is not read by `grpo`",
        ),
        (
            Learned::Grpo,
            vec!["truncation=keep_end"],
            "`truncation` is not read by `grpo`",
        ),
        (
            Learned::Grpo,
            vec!["max_pairs=1"],
            "`max_pairs` is not read by `grpo`",
        ),
        (
            Learned::Grpo,
            vec!["max_answers=2"],
            "`max_answers` is not read by `grpo`",
        ),
        (
            Learned::Grpo,
            vec!["sft_form=dft"],
            "`sft_form` is not read by `grpo`",
        ),
        (
            Learned::Grpo,
            vec!["since.kto.beta=1"],
            "`since` is not read by `grpo`",
        ),
        (
            Learned::OnlineDpo,
            vec!["precompute_ref_log_probs=true"],
            "`online_dpo` draws new answers, whose probabilities cannot be computed ahead",
        ),
        (
            Learned::Dpo,
            vec![],
            "objectives that draw answers, and this is `dpo`",
        ),
        (
            Learned::Grpo,
            vec![r#"online.rewards=["final_answer"]"#],
            "has no right answer, which the reward `final_answer` compares with: add one of the fields `reference`, `answer`, \
             `solution`, `ground_truth`",
        ),
        (
            Learned::Grpo,
            vec![r#"online.rewards=[{"regex": {"pattern": "("}}]"#],
            "`regex.pattern` is not a regular expression",
        ),
        (
            Learned::Grpo,
            vec![r#"online.rewards=[{"length": {"target": 0}}]"#],
            "`length.target` must be at least 1",
        ),
        (
            Learned::Grpo,
            vec![r#"online.rewards=[{"contains": {"text": ""}}]"#],
            "`contains.text` is empty",
        ),
        (
            Learned::Grpo,
            vec![r#"online.rewards=[{"command": {}}]"#],
            "`command.program` is missing",
        ),
        (
            Learned::Grpo,
            vec![r#"online.rewards=[{"command": {"program": "sh", "seconds": 0}}]"#],
            "`command.seconds` must be finite and > 0",
        ),
        (
            Learned::Grpo,
            vec![r#"online.rewards=[{"reward_model": {"folder": "no/such"}}]"#],
            "no/such",
        ),
    ] {
        let error = of(objective, &sets);
        assert!(error.contains(part), "{sets:?}: {error}");
    }
}
