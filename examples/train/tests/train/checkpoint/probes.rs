//! Faults of other trainers that were reported in public, each with the right outcome.

use super::{CHAT, folder, learned, open, source, supervised};
use train::checkpoint::order::{Order, Steps};
use train::checkpoint::rows::{Settings, Turns, reward};

const TALK: &str = r#"{"prompt": [{"role": "user", "content": "Hi"}], "completion": [{"role": "assistant", "content": "Hello!"}]}"#;

fn turns(turns: Turns) -> Settings {
    Settings {
        turns,
        ..Settings::default()
    }
}

// mlx-examples#1095, vllm#27515
#[test]
fn a_row_has_one_begin_token() {
    // the post-processor adds one to plain text, the template writes one itself
    let template = "{{ bos_token }} {% for message in messages %}{{ message.content }} {% endfor %}{{ eos_token }}";
    let begun = open(&folder("begun", Some(template)));
    let row = r#"{"messages": [{"role": "user", "content": "t3"}, {"role": "assistant", "content": "t4"}]}"#;
    let all = supervised(&begun, row, &Settings::default());
    assert_eq!(all.rows[0].ids, [1, 3, 4, 2]);
    let all = supervised(
        &begun,
        r#"{"prompt": "t3", "completion": " t4"}"#,
        &Settings::default(),
    );
    assert_eq!(all.rows[0].ids, [1, 3, 4, 2]);
    assert_eq!(all.rows[0].learned, [false, false, true, true]);
    let pairs = r#"{"prompt": "t3", "chosen": " t4", "rejected": " t5"}"#;
    let all = reward(source(pairs), &begun, &Settings::default()).unwrap();
    assert_eq!(all.rows[0].chosen, [1, 3, 4, 2]);
}

// trl#1623, alignment-handbook#127
#[test]
fn the_last_end_token_is_learned_though_it_is_the_padding_token() {
    let words = folder("words", None);
    let config = words.path().join("tokenizer_config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("\"<pad>\"", "\"</s>\"")).unwrap();
    let words = open(&words);
    assert_eq!(words.tokenizer.pad(), words.tokenizer.eos());
    let row = r#"{"prompt": "t3 </s> t4", "completion": " t5"}"#;
    let all = supervised(&words, row, &Settings::default());
    assert_eq!(all.rows[0].ids, [3, 2, 4, 5, 2]);
    assert_eq!(all.rows[0].labels(), [-100, -100, -100, 5, 2]);
}

// mlx-lm#584, axolotl#2089
#[test]
fn the_header_of_the_assistant_is_no_target_and_the_end_of_its_turn_is() {
    let bytes = open(&folder("bytes", Some(CHAT)));
    let all = supervised(&bytes, TALK, &Settings::default());
    assert_eq!(learned(&bytes, &all.rows[0]), "Hello!<|im_end|>\n");
    let talk =
        r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]}"#
            .replace('\n', " ");
    let all = supervised(&bytes, &talk, &turns(Turns::Marked));
    assert_eq!(learned(&bytes, &all.rows[0]), "b<|im_end|>\nd<|im_end|>\n");
    let all = supervised(&bytes, &talk, &turns(Turns::Last));
    assert_eq!(learned(&bytes, &all.rows[0]), "d<|im_end|>\n");
    let all = supervised(&bytes, &talk, &Settings::default());
    assert!(all.rows[0].learned.iter().all(|learned| *learned));
}

/// Drops what an assistant thought before the last question, and writes an empty thought where there is
/// none.
const THINKING: &str = "\
{% set ns = namespace(last=0) %}
{% for message in messages %}
{% if message.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}
{% endfor %}
{% for message in messages %}
{{ '<|im_start|>' + message.role + '\n' }}
{%- if message.role == 'assistant' %}
{% set parts = message.content.split('</think>') %}
{% if loop.index0 > ns.last and not (enable_thinking is defined and enable_thinking is false) %}
{{ '<think>' + (message.reasoning_content or parts[0].split('<think>')[-1] if parts | length > 1 or message.reasoning_content else '') + '</think>' }}
{%- endif %}
{{- parts[-1] + '<|im_end|>\n' }}
{%- else %}
{{- message.content + '<|im_end|>\n' }}
{%- endif %}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{ '<think></think>' }}{% endif %}
{% endif %}";

// trl#5213, trl#6361, slime#330
#[test]
fn a_template_that_rewrites_what_was_said_is_rendered_as_a_whole() {
    let bytes = open(&folder("bytes", Some(THINKING)));
    let said = |row: &str| {
        let row = row.replace('\n', " ");
        let all = supervised(&bytes, &row, &turns(Turns::Last));
        learned(&bytes, &all.rows[0])
    };
    let one = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "<think>hm</think>b"}]}"#;
    assert_eq!(said(one), "<think>hm</think>b<|im_end|>\n");
    let field = one.replace("<think>hm</think>b\"", "b\", \"reasoning\": \"hm\"");
    assert_eq!(said(&field), "<think>hm</think>b<|im_end|>\n");
    let two = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "<think>hm</think>b"},
        {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]}"#;
    assert_eq!(said(two), "<think></think>d<|im_end|>\n");
    // the first thought is gone from the whole as well
    let all = supervised(&bytes, &two.replace('\n', " "), &Settings::default());
    let text = bytes.tokenizer.decode(&all.rows[0].ids).unwrap();
    assert!(
        !text.contains("hm") && text.contains("b<|im_end|>"),
        "{text}"
    );
    // without thoughts the empty one belongs to the prompt, and the answer has none
    let none = TALK.replacen(
        '{',
        r#"{"chat_template_kwargs": {"enable_thinking": false}, "#,
        1,
    );
    let all = supervised(&bytes, &none, &Settings::default());
    assert_eq!(all.report.moved_answers, 1);
    assert_eq!(learned(&bytes, &all.rows[0]), "Hello!<|im_end|>\n");
}

// transformers#37766, transformers#38448
#[test]
fn a_step_has_the_same_rows_however_it_is_accumulated() {
    let order = Order::Random { seed: 42 };
    let rows = |batch, accumulation| {
        let steps = Steps::new(13, batch, accumulation, order).unwrap();
        let all = steps.from(0).take(2 * steps.per_epoch());
        all.map(|step| step.micro_batches.concat())
            .collect::<Vec<_>>()
    };
    assert_eq!(rows(2, 2), rows(4, 1));
    assert_eq!(rows(1, 4), rows(4, 1));
    // the number of labels of a step, which divides the loss, is therefore the same
    let words = open(&folder("words", None));
    let lines: Vec<String> = (0..13)
        .map(|r| {
            format!(
                r#"{{"prompt": "t3", "completion": "{}"}}"#,
                " t4".repeat(1 + r % 4)
            )
        })
        .collect();
    let all = supervised(&words, &lines.join("\n"), &Settings::default());
    let labels = |batch, accumulation| {
        let count = |r: &usize| all.rows[*r].learned.iter().filter(|l| **l).count();
        let sums = rows(batch, accumulation).into_iter();
        sums.map(|step| step.iter().map(count).sum())
            .collect::<Vec<usize>>()
    };
    assert_eq!(labels(2, 2), labels(4, 1));
}
