//! What the loss of supervised rows covers, as the report and `summary.json` say it.

use super::{Case, LISTS, model};
use indicatif::ProgressBar;
use serde_json::Value;
use std::fs;
use train::checkpoint::run::run;

/// Marks the assistant's turns.
const MARKED: &str = "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}{% if message.role == 'assistant' %}{% generation %}{{ message.content + '<|im_end|>\n' }}{% endgeneration %}{% else %}{{ message.content + '<|im_end|>\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

const MESSAGES: &str =
    r#"{"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}"#;
const COMPLETION: &str = r#"{"prompt": "Q", "completion": " A"}"#;
const CHAT: &str = r#"{"prompt": [{"role": "user", "content": "Q"}], "completion": [{"role": "assistant", "content": "A"}]}"#;

#[test]
fn the_results_of_sft_say_what_its_loss_covers() {
    let text = r#"{"text": "Q A"}"#;
    let ids = r#"{"input_ids": [3, 4, 5], "labels": [-100, 4, 5]}"#;
    let all: [(&str, &[&str], &str, &str); 11] = [
        (
            MESSAGES,
            &[],
            "all_turns",
            "all turns of a conversation, those of system and user included (`turns` = all)",
        ),
        (
            MESSAGES,
            &["turns=marked"],
            "marked_turns",
            "the assistant's turns, as the chat template marks them (`turns` = marked)",
        ),
        (
            MESSAGES,
            &["turns=last"],
            "last_turn",
            "the last turn, the assistant's (`turns` = last)",
        ),
        (COMPLETION, &[], "completion", "the completion"),
        (CHAT, &[], "completion", "the completion"),
        (
            COMPLETION,
            &["completion_only=false"],
            "prompt_and_completion",
            "prompt and completion (`completion_only` = false)",
        ),
        (
            CHAT,
            &["turns=marked"],
            "marked_of_completion",
            "the assistant's turns in the completion, as the chat template marks them (`turns` = marked)",
        ),
        (
            CHAT,
            &["turns=marked", "completion_only=false"],
            "marked_turns",
            "the assistant's turns, as the chat template marks them (`turns` = marked)",
        ),
        (text, &[], "text", "all of the text"),
        (
            ids,
            &[],
            "as_given",
            "the tokens that each row's `labels` or `completion_mask` names, all if it has neither",
        ),
        (LISTS, &[], "best_answer", "the best answer"),
    ];
    for (rows, sets, word, words) in all {
        let case = Case::on(model(1, Some(MARKED)), "sft", rows, sets);
        let outcome = run(&case.settings, false, &ProgressBar::hidden(), &|_| false);
        let outcome = outcome.unwrap_or_else(|error| panic!("{rows} {sets:?}: {error}"));
        let report = outcome.to_string();
        assert!(
            report.contains(&format!("\n  loss of   {words}\n")),
            "{report}"
        );
        let summary = fs::read_to_string(case.settings.out().join("summary.json")).unwrap();
        let summary: Value = serde_json::from_str(&summary).unwrap();
        assert_eq!(summary["rows"]["covers"], word, "{rows} {sets:?}");
    }
}

/// Objectives that compare answers have no such choice.
#[test]
fn other_objectives_say_nothing_of_it() {
    let case = Case::new("dpo", LISTS, &[]);
    let outcome = run(&case.settings, false, &ProgressBar::hidden(), &|_| false);
    assert!(!outcome.unwrap().to_string().contains("loss of"));
}
