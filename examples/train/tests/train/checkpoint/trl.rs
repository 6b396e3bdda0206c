//! `rows.json`: what TRL's trainers and Transformers made of the same rows.

use super::{cases, folder, open, source, template};
use minijinja::Value;
use serde::Deserialize;
use serde_json::json;
use train::checkpoint::order::{Order, Steps, permutation};
use train::checkpoint::rows::{self, Settings, Truncation, Turns};
use train::checkpoint::template::Chat;

#[derive(Deserialize)]
struct Render {
    template: String,
    messages: Value,
    tools: Value,
    prompt: bool,
    variables: Value,
    text: Option<String>,
    #[serde(default)]
    spans: Vec<(usize, usize)>,
    error: Option<String>,
}

/// What is wrong with a rendering, if anything is.
fn outcome(case: Render) -> Option<String> {
    let template = template(&case.template);
    let variables = case.variables.try_iter().unwrap();
    let chat = Chat {
        messages: case.messages,
        tools: case.tools,
        variables: variables
            .map(|key| (key.to_string(), case.variables.get_item(&key).unwrap()))
            .collect(),
        add_generation_prompt: case.prompt,
        spans: template.marks_generation(),
    };
    let found = template.render(&chat);
    let expected = case.text.map(|text| {
        let spans = case.spans.into_iter().filter(|(from, to)| from < to);
        (text, spans.map(|(from, to)| from..to).collect::<Vec<_>>())
    });
    let same = match (&found, &expected) {
        (Ok(found), Some((text, spans))) => found.text == *text && found.spans == *spans,
        (Err(_), None) => true,
        _ => false,
    };
    (!same).then(|| {
        format!(
            "{}\n  expected {expected:?} {:?}\n  found    {found:?}",
            case.template, case.error
        )
    })
}

#[test]
fn templates_render_as_in_transformers() {
    let cases = cases::<Render>("renders");
    let refused = cases.iter().filter(|case| case.error.is_some()).count();
    assert!(refused > 5, "{refused}");
    let wrong: Vec<String> = cases.into_iter().filter_map(outcome).collect();
    assert!(
        wrong.is_empty(),
        "{} wrong\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn a_template_that_does_not_parse_names_its_line() {
    use super::{noon, special};
    use train::checkpoint::template::Template;
    let broken = "{{ bos_token }}\n\n{% for m in messages %}{{ m.content }\n{% endfor %}";
    let error = Template::new("folder/chat_template.jinja", broken, special(), noon());
    let message = error.unwrap_err().to_string();
    let start = "folder/chat_template.jinja:3: syntax error: ";
    assert!(message.starts_with(start), "{message}");
}

#[derive(Deserialize)]
struct Case {
    trainer: String,
    tokenizer: String,
    template: Option<String>,
    settings: serde_json::Map<String, serde_json::Value>,
    rows: Value,
    prepared: Vec<serde_json::Value>,
}

fn settings(case: &Case) -> Settings {
    let mut settings = Settings::default();
    for (name, value) in &case.settings {
        match name.as_str() {
            "max_length" => settings.max_length = value.as_u64().map(|n| n as usize),
            "truncation_mode" => {
                assert_eq!(value, "keep_end");
                settings.truncation = Truncation::KeepEnd;
            }
            "completion_only_loss" => settings.completion_only = value.as_bool(),
            "assistant_only_loss" => settings.turns = Turns::Marked,
            other => panic!("{other}"),
        }
    }
    settings
}

#[test]
fn rows_become_the_ids_of_trl() {
    for (i, case) in cases::<Case>("prepared").iter().enumerate() {
        let folder = open(&folder(&case.tokenizer, case.template.as_deref()));
        let settings = settings(case);
        let lines = case.rows.try_iter().unwrap();
        let lines: Vec<String> = lines
            .map(|row| serde_json::to_string(&row).unwrap())
            .collect();
        let lines = source(&lines.join("\n"));
        let found: Vec<serde_json::Value> = match case.trainer.as_str() {
            "sft" => {
                let prepared = rows::sft(lines, &folder, &settings).unwrap();
                let row = |row: &rows::SftRow| json!({"ids": row.ids, "labels": row.labels()});
                prepared.rows.iter().map(row).collect()
            }
            "dpo" => {
                let prepared = rows::dpo(lines, &folder, &settings).unwrap();
                let side = |side: &rows::Side| json!({"ids": side.ids, "prompt": side.prompt});
                let row = |row: &rows::Pair| json!({"chosen": side(&row.chosen), "rejected": side(&row.rejected)});
                prepared.rows.iter().map(row).collect()
            }
            _ => {
                let prepared = rows::reward(lines, &folder, &settings).unwrap();
                let row = |row: &rows::RewardRow| {
                    let mut out = json!({"chosen_ids": row.chosen, "rejected_ids": row.rejected});
                    if let Some(margin) = row.margin {
                        out["margin"] = margin.into();
                    }
                    out
                };
                prepared.rows.iter().map(row).collect()
            }
        };
        let what = format!(
            "case {i}: {} {} {:?}",
            case.trainer, case.tokenizer, case.settings
        );
        assert_eq!(found.len(), case.prepared.len(), "{what}");
        for (found, expected) in found.iter().zip(&case.prepared) {
            assert_eq!(found, expected, "{what}");
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Orders {
    Loader {
        settings: serde_json::Map<String, serde_json::Value>,
        batch: usize,
        epochs: Vec<Vec<Vec<usize>>>,
    },
    Permutation {
        rows: usize,
        seed: u64,
        order: Vec<usize>,
    },
}

#[test]
fn rows_come_in_the_order_of_trl() {
    for case in cases("orders") {
        match case {
            Orders::Permutation { rows, seed, order } => {
                assert_eq!(permutation(rows, seed), order, "{rows} rows, seed {seed}");
            }
            Orders::Loader {
                settings,
                batch,
                epochs,
            } => {
                let seed = settings.get("data_seed").or(settings.get("seed"));
                let order = match seed.and_then(|seed| seed.as_u64()) {
                    Some(seed) => Order::Random { seed },
                    None => Order::Sequential,
                };
                let steps = Steps::new(12, batch, 1, order).unwrap();
                let found: Vec<Vec<usize>> = steps
                    .from(0)
                    .take(3 * steps.per_epoch())
                    .flat_map(|step| step.micro_batches)
                    .collect();
                assert_eq!(found, epochs.concat());
            }
        }
    }
}
