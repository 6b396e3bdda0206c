//! Rows and settings that are refused, with file, line and field.

use super::rows::{at_most, completions};
use super::{CHAT, folder, open, source, supervised};
use train::checkpoint::rows::{Settings, Turns, dpo, reward, sft};

/// A message of `sft` about rows, in a checkpoint of words or of bytes with a template.
fn refusal(template: Option<&str>, rows: &str, settings: &Settings) -> String {
    let name = if template.is_some() { "bytes" } else { "words" };
    let copy = folder(name, template);
    let error = sft(source(rows), &open(&copy), settings).unwrap_err();
    error
        .to_string()
        .replace(&format!("{}/", copy.path().display()), "")
}

#[test]
fn rows_of_another_kind_are_refused() {
    let plain = |rows: &str| refusal(None, rows, &Settings::default());
    assert_eq!(
        plain(r#"{"question": "a"}"#),
        "rows.jsonl:1: has none of the fields of a supervised row: `prompt` and `completion`, `messages`, \
         `text`, or `input_ids`"
    );
    assert_eq!(
        plain("{\"text\": \"a\"}\n\n{\"prompt\": \"a\", \"completion\": \"b\"}"),
        "rows.jsonl:3: has `prompt` and `completion`, and the first row has a text: all rows of a file \
         must be of one kind"
    );
    assert_eq!(
        plain(r#"{"prompt": "a", "completion": [{"role": "assistant", "content": "b"}]}"#),
        "rows.jsonl:1: has a prompt and an answer of different kinds: either both are texts, or both are \
         lists of messages"
    );
    assert_eq!(
        plain(r#"{"text": "a", "tools": [{}]}"#),
        "rows.jsonl:1: `tools` is not read in text, and without it the row might teach something else; if \
         it means nothing here, say --ignore-field tools"
    );
    assert_eq!(
        plain(r#"{"text": 3}"#),
        "rows.jsonl:1: `text` must be a text or a list of messages, found a number"
    );
    assert_eq!(plain(""), "rows.jsonl: holds no rows");
    let ids = plain(r#"{"input_ids": [3, 4], "labels": [-100, 5]}"#);
    assert_eq!(
        ids,
        "rows.jsonl:1: `labels[1]` must be -100 or `input_ids[1]`, found 5"
    );
    let masked = r#"{"input_ids": [3, 4], "completion_mask": [1]}"#;
    assert_eq!(
        plain(masked),
        "rows.jsonl:1: has a `completion_mask`, and `completion_only` says neither true nor false"
    );
    let only = Settings {
        completion_only: Some(true),
        ..Settings::default()
    };
    let short = refusal(None, masked, &only);
    assert_eq!(short, "rows.jsonl:1: has 2 `input_ids` and 1 labels");
    let few = Settings {
        vocabulary: Some(17),
        ..Settings::default()
    };
    assert_eq!(
        refusal(None, &completions(), &few),
        "rows.jsonl:1: has the token 18 (`t18`), and the model has 17 tokens, counted from 0"
    );
    assert_eq!(
        refusal(None, &completions(), &at_most(3)),
        "rows.jsonl: no row is left to train on: 0 of 12 rows, 12 dropped (nothing left to learn)"
    );
    assert_eq!(
        refusal(None, "{}", &at_most(0)),
        "`max_length` must be at least 1, got 0"
    );
}

#[test]
fn what_the_template_does_not_read_is_refused() {
    let chat = |rows: &str| refusal(Some(CHAT), rows, &Settings::default());
    let row = |message: &str, more: &str| {
        format!(r#"{{"messages": [{{"role": "user", "content": "a"{message}}}]{more}}}"#)
    };
    assert_eq!(
        chat(&row(r#", "weight": 0"#, "")),
        "rows.jsonl:1: has a message with `weight`, which chat_template.jinja does not read; if it means \
         nothing here, say --ignore-field weight"
    );
    assert_eq!(
        chat(&row(r#", "thinking": "b""#, "")),
        "rows.jsonl:1: has a message with `thinking`, which chat_template.jinja does not read; if it means \
         nothing here, say --ignore-field thinking"
    );
    assert_eq!(
        chat(&row("", r#", "tools": [{"name": "f"}]"#)),
        "rows.jsonl:1: has `tools`, which chat_template.jinja does not read"
    );
    assert_eq!(
        chat(&row(
            "",
            r#", "chat_template_kwargs": {"enable_thinking": false}"#
        )),
        "rows.jsonl:1: has `chat_template_kwargs.enable_thinking`, which chat_template.jinja does not read"
    );
    assert_eq!(
        chat(r#"{"messages": [{"role": "user", "content": [{"type": "image"}]}]}"#),
        "rows.jsonl:1: `messages[0].content[0]` is of type `image`, and the model reads text alone"
    );
    assert_eq!(
        chat(r#"{"messages": []}"#),
        "rows.jsonl:1: `messages` is an empty list"
    );
    assert_eq!(
        chat(r#"{"messages": [{"content": "a"}]}"#),
        "rows.jsonl:1: `messages[0].role` is missing"
    );
    // a template's own refusal has both places
    assert_eq!(
        refusal(
            Some("\n{{ raise_exception('no') if messages[0].content }}"),
            &row("", ""),
            &Settings::default()
        ),
        "rows.jsonl:1: chat_template.jinja:2: the template refuses the row: no"
    );
    // null and empty fields say nothing, and ignored ones are counted
    let bytes = open(&folder("bytes", Some(CHAT)));
    let settings = Settings {
        ignored_fields: vec!["weight".to_string()],
        ..Settings::default()
    };
    let rows = row(r#", "weight": 0, "tool_calls": null"#, r#", "tools": []"#);
    let all = supervised(&bytes, &rows, &settings);
    assert_eq!(
        all.report.ignored_fields,
        [("weight".to_string(), 1)].into()
    );
}

#[test]
fn settings_that_mean_nothing_for_the_rows_are_refused() {
    let turns = |turns| Settings {
        turns,
        ..Settings::default()
    };
    let only = Settings {
        completion_only: Some(true),
        ..Settings::default()
    };
    let text = r#"{"text": "t3"}"#;
    assert_eq!(
        refusal(None, text, &only),
        "rows.jsonl:1: has no `prompt` and `completion`, and `completion_only` asks for the completion"
    );
    assert_eq!(
        refusal(None, text, &turns(Turns::Marked)),
        "rows.jsonl:1: is no conversation, and `turns` asks for what the template marks"
    );
    assert_eq!(
        refusal(None, &completions(), &turns(Turns::Last)),
        "rows.jsonl:1: has no `messages`, and `turns` asks for the last one"
    );
    let user = r#"{"messages": [{"role": "user", "content": "a"}]}"#;
    assert_eq!(
        refusal(
            Some("{{ messages[0].content }}"),
            user,
            &turns(Turns::Marked)
        ),
        "rows.jsonl:1: chat_template.jinja has no `{% generation %}` block, so it does not mark what the \
         assistant says"
    );
    assert_eq!(
        refusal(Some(CHAT), user, &turns(Turns::Marked)),
        "rows.jsonl:1: has no token that the chat template marks as the assistant's"
    );
    assert_eq!(
        refusal(Some(CHAT), user, &turns(Turns::Last)),
        "rows.jsonl:1: `messages` must end with a message of the assistant after others, for `turns` asks \
         for the last one"
    );
}

#[test]
fn pairs_that_cannot_be_compared_are_refused() {
    let words = open(&folder("words", None));
    let message = |row: &str| {
        let error = dpo(source(row), &words, &Settings::default()).unwrap_err();
        error.to_string()
    };
    assert_eq!(
        message(r#"{"prompt": "a", "chosen": "b"}"#),
        "rows.jsonl:1: must have the fields `chosen` and `rejected`"
    );
    let first = r#"{"prompt": "t3", "chosen": "t4", "rejected": "t5"}"#;
    assert_eq!(
        message(&format!(
            "{first}\n{{\"chosen\": \"t4\", \"rejected\": \"t5\"}}"
        )),
        "rows.jsonl:2: has `chosen` and `rejected` without `prompt`, and the first row has `prompt`, \
         `chosen` and `rejected`: all rows of a file must be of one kind"
    );
    let turns = r#"[{"role": "user", "content": "a"}]"#;
    let other = turns.replace("\"a\"", "\"b\"");
    let bytes = open(&folder("bytes", Some(CHAT)));
    let row = format!(r#"{{"chosen": {turns}, "rejected": {other}}}"#);
    assert_eq!(
        dpo(source(&row), &bytes, &Settings::default())
            .unwrap_err()
            .to_string(),
        "rows.jsonl:1: has no `prompt`, and `chosen` and `rejected` begin with different messages, or have \
         no other"
    );
    let margins = "{\"chosen\": \"t4\", \"rejected\": \"t5\", \"margin\": 1}\n{\"chosen\": \"t4\", \"rejected\": \"t5\"}";
    assert_eq!(
        reward(source(margins), &words, &Settings::default())
            .unwrap_err()
            .to_string(),
        "rows.jsonl:2: has no `margin`, and the first row has one"
    );
}
