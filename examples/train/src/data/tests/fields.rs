//! The rule of the reader, for every field of every format: the field is used, or it is on the list of
//! fields without effect, or the row is refused with the field's name.

use super::super::fields::{
    COMPLETION, Fields, INSTANCE, INSTRUCTION, MESSAGE, MESSAGES, ORIGIN, PAIR, QUESTION, RANKED,
    REPLY, SOLUTION, SOLUTIONS, TREE, says_nothing,
};
use super::*;
use serde_json::{Value, json};

/// Rows with all fields of their format that can be combined, and the objects in them with their
/// allowed fields.
fn formats() -> Vec<(Value, Vec<(&'static str, Fields)>)> {
    let user = json!({"role": "user", "content": "Q"});
    let says = |text: &str| json!({"role": "assistant", "content": text});
    let before = json!([["early", "reply"]]);
    let reply = |text: &str, rank: usize, replies: Value| {
        json!({
            "text": text, "role": "assistant", "rank": rank, "replies": replies,
        })
    };
    let more =
        json!([{"text": "More?", "role": "prompter", "replies": [reply("lone", 0, json!([]))]}]);
    let replies = json!([reply("first", 0, more), reply("second", 1, json!([]))]);
    vec![
        (
            json!({"prompt": "Q", "chosen": "good", "rejected": "bad", "system": "S", "history": before}),
            vec![("", PAIR)],
        ),
        (
            json!({"prompt": [user], "chosen": [user, says("good")], "rejected": [user, says("bad")]}),
            vec![
                ("", PAIR),
                ("/prompt/0", MESSAGE),
                ("/chosen/0", MESSAGE),
                ("/chosen/1", MESSAGE),
                ("/rejected/1", MESSAGE),
            ],
        ),
        (
            json!({"chosen": [user, says("a"), user, says("good")],
                   "rejected": [user, says("a"), user, says("bad")]}),
            vec![("", PAIR), ("/chosen/1", MESSAGE), ("/rejected/2", MESSAGE)],
        ),
        (
            json!({"prompt": "Q", "answers": ["a", "b"], "rewards": [1, 0], "system": "S", "history": before}),
            vec![("", RANKED)],
        ),
        (
            json!({"prompt": "Q", "answers": ["a", "b"], "ranks": [1, 0]}),
            vec![("", RANKED)],
        ),
        (
            json!({"prompt": {"text": "Q", "role": "prompter", "replies": replies}}),
            vec![
                ("", TREE),
                ("/prompt", REPLY),
                ("/prompt/replies/0", REPLY),
                ("/prompt/replies/1", REPLY),
                ("/prompt/replies/0/replies/0", REPLY),
                ("/prompt/replies/0/replies/0/replies/0", REPLY),
            ],
        ),
        (
            json!({"question": "Q", "system": "S", "history": before,
                   "small": {"solution": "3", "is_correct": false},
                   "large": {"solution": "4", "is_correct": true}}),
            vec![("", SOLUTIONS), ("/small", SOLUTION), ("/large", SOLUTION)],
        ),
        (
            json!({"prompt": "Q", "completion": "A", "label": true, "system": "S", "history": before}),
            vec![("", COMPLETION)],
        ),
        (
            json!({"prompt": [user], "completion": [says("A")]}),
            vec![
                ("", COMPLETION),
                ("/prompt/0", MESSAGE),
                ("/completion/0", MESSAGE),
            ],
        ),
        (
            json!({"question": "Q", "answer": "A", "label": false, "system": "S", "history": before}),
            vec![("", QUESTION)],
        ),
        (
            json!({"messages": [user, says("a"), user, says("b")]}),
            vec![
                ("", MESSAGES),
                ("/messages/0", MESSAGE),
                ("/messages/1", MESSAGE),
                ("/messages/3", MESSAGE),
            ],
        ),
        (
            json!({"instruction": "I", "input": "Q", "output": "A", "system": "S", "history": before}),
            vec![("", INSTRUCTION)],
        ),
        (
            json!({"instruction": "I", "instances": [{"input": "Q", "output": "A"}]}),
            vec![("", INSTRUCTION), ("/instances/0", INSTANCE)],
        ),
    ]
}

const ALL: [Fields; 12] = [
    PAIR,
    RANKED,
    TREE,
    REPLY,
    SOLUTIONS,
    SOLUTION,
    COMPLETION,
    QUESTION,
    MESSAGES,
    MESSAGE,
    INSTRUCTION,
    INSTANCE,
];

#[test]
fn every_object_of_every_format_stands_in_a_row_here() {
    let rows = formats();
    let found: HashSet<&str> = rows
        .iter()
        .flat_map(|(_, objects)| objects.iter().map(|(_, fields)| fields.of))
        .collect();
    assert_eq!(found, ALL.iter().map(|fields| fields.of).collect());
}

/// All names that some format knows, and a few unknown ones.
fn all_names() -> Vec<String> {
    let known = ALL.iter().flat_map(|of| of.read.iter().chain(of.nothing));
    let mut names: Vec<&str> = known.chain(ORIGIN).copied().collect();
    names.extend([
        "tool_calls",
        "tool_call_id",
        "reasoning_content",
        "thinking",
        "function_call",
        "name",
        "audio",
        "images",
        "tools",
        "margin",
        "train",
    ]);
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(String::from).collect()
}

fn values() -> Vec<Value> {
    vec![
        json!(true),
        json!(false),
        json!(0),
        json!(1),
        json!("another text"),
        json!("user"),
        json!({"another": 1}),
        json!(["another"]),
        json!([["asked", "answered"]]),
    ]
}

fn outcome(row: &Value, ignored: &[&str]) -> Result<Data> {
    let reading = Reading {
        ignored_fields: ignored.iter().map(|name| name.to_string()).collect(),
        ..READING
    };
    from_text(&row.to_string(), "rows.jsonl", &reading)
}

/// The training data or the count that a row gives.
fn learned(data: &Data) -> (&[Item], &BTreeMap<Reason, usize>) {
    (&data.items, &data.tally.left_out)
}

/// Whether a value equals the format's default for a missing field, or is another word for the present
/// value.
fn is_the_default(at: &str, name: &str, value: &Value, old: Option<&Value>) -> bool {
    let of_prompter = ["/prompt", "/prompt/replies/0/replies/0"].contains(&at);
    match name {
        "deleted" => value == false,
        "review_result" => value == true,
        "role" => value == "user" && old.is_some_and(|old| old == "prompter"),
        // for the prompter of a tree only the answers are compared
        "rank" => of_prompter,
        // the turn is covered anyway, or not covered anyway
        "weight" => match at {
            "/chosen/1" | "/rejected/1" | "/completion/0" | "/messages/3" => true,
            _ => value == 0,
        },
        _ => false,
    }
}

/// Whether setting the field had an effect; a field without effect must be on the list.
fn check(
    (row, base): (&Value, &Data),
    at: &str,
    fields: &Fields,
    name: &str,
    value: &Value,
) -> bool {
    let mut changed = row.clone();
    let object = changed.pointer_mut(at).unwrap().as_object_mut().unwrap();
    let old = object.insert(name.to_string(), value.clone());
    let path = at.trim_start_matches('/');
    let named = || format!("{at}: {name} = {value} in {row}");
    // this makes it a row of solutions, which may have fields of any name
    let open = value.get("is_correct").is_some() || fields.of == "solutions" && value.is_object();
    match outcome(&changed, &[]) {
        Err(error) => {
            let message = error.to_string();
            let told = || format!("{}: {message}", named());
            assert!(!fields.means_nothing(name, path), "{}", told());
            // a field that some format reads may change the row's format and clash with other fields
            let needle = match open || ALL.iter().any(|of| of.read.contains(&name)) {
                true => "`".to_string(),
                false => format!("{name}`"),
            };
            assert!(message.contains(&needle), "{}", told());
            true
        }
        Ok(data) if learned(&data) != learned(base) => {
            assert!(!fields.means_nothing(name, path), "{}", named());
            true
        }
        Ok(_) => {
            let silent = fields.means_nothing(name, path)
                || old.as_ref() == Some(value)
                || is_the_default(at, name, value, old.as_ref());
            assert!(silent, "{}: neither used nor refused", named());
            false
        }
    }
}

#[test]
fn every_field_is_used_or_means_nothing_or_is_refused_by_name() {
    let (names, values) = (all_names(), values());
    for (row, objects) in formats() {
        let base = outcome(&row, &[]).unwrap();
        for (at, fields) in objects {
            for name in &names {
                let mut used = false;
                for value in &values {
                    used |= check((&row, &base), at, &fields, name, value);
                }
                // fields that are listed as read are read
                let rank_of_prompter = name == "rank" && !used;
                let read = fields.read.contains(&name.as_str());
                assert!(used || !read || rank_of_prompter, "{at}: {name} in {row}");
            }
        }
    }
}

#[test]
fn what_is_null_or_empty_is_not_there() {
    for (row, objects) in formats() {
        let base = outcome(&row, &[]).unwrap();
        for (at, _) in objects {
            for name in ["tool_calls", "images", "margin", "system", "history"] {
                for value in [json!(null), json!(""), json!([]), json!({})] {
                    let mut changed = row.clone();
                    let object = changed.pointer_mut(at).unwrap().as_object_mut().unwrap();
                    if object.contains_key(name) {
                        continue;
                    }
                    object.insert(name.to_string(), value);
                    let found = outcome(&changed, &[]).unwrap();
                    assert_eq!(learned(&found), learned(&base), "{changed}");
                }
            }
        }
    }
}

#[test]
fn a_field_is_ignored_at_the_users_word_and_counted() {
    for (row, objects) in formats() {
        let base = outcome(&row, &[]).unwrap();
        for (at, _) in objects {
            let mut changed = row.clone();
            let object = changed.pointer_mut(at).unwrap().as_object_mut().unwrap();
            object.insert("tool_calls".to_string(), json!([{"id": 1}]));
            let message = outcome(&changed, &[]).unwrap_err().to_string();
            assert!(message.contains("--ignore-field tool_calls"), "{message}");
            let found = outcome(&changed, &["tool_calls"]).unwrap();
            assert_eq!(learned(&found), learned(&base));
            assert_eq!(
                found.tally.ignored_fields,
                [("tool_calls".to_string(), 1)].into()
            );
            assert_eq!(found.tally.reasons(), "`tool_calls` ignored 1 times");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn so_is_a_field_of_any_name(name in "[a-z_]{1,12}", value in value()) {
        prop_assume!(!says_nothing(&value) && !all_names().contains(&name));
        for (row, objects) in formats() {
            let base = outcome(&row, &[]).unwrap();
            for (at, fields) in objects {
                // a row of solutions may have fields of any name
                if fields.of != "solutions" {
                    prop_assert!(check((&row, &base), at, &fields, &name, &value));
                }
            }
        }
    }
}
