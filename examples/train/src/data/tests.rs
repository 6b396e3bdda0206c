//! Every format, every way in which a row can be wrong, word for word.

use super::*;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::HashSet;

mod dialogues;
mod fields;

const READING: Reading = Reading {
    max_len: 256,
    skip_bad_rows: false,
    max_rows: None,
    ignored_fields: Vec::new(),
};

fn read(text: &str) -> Data {
    from_text(text, "rows.jsonl", &READING).unwrap()
}

/// Of each item, the prompt and the answers with their rewards.
fn items(text: &str) -> Vec<(String, Vec<(String, f64)>)> {
    let answers = |item: Item| {
        item.answers
            .into_iter()
            .map(|a| (a.text, a.reward))
            .collect()
    };
    let one = |item: Item| (item.prompt.clone(), answers(item));
    read(text).items.into_iter().map(one).collect()
}

fn one(prompt: &str, answers: &[(&str, f64)]) -> Vec<(String, Vec<(String, f64)>)> {
    let answers = answers.iter().map(|(text, r)| (text.to_string(), *r));
    vec![(prompt.to_string(), answers.collect())]
}

fn message(text: &str) -> String {
    from_text(text, "rows.jsonl", &READING)
        .unwrap_err()
        .to_string()
}

const Q: &str = "\n\nHuman: Q\n\nAssistant: ";

#[test]
fn pairs_with_a_prompt() {
    let expected = one(Q, &[("good", 1.0), ("bad", 0.0)]);
    for row in [
        r#"{"prompt": "Q", "chosen": "good", "rejected": " bad\n"}"#,
        r#"{"prompt": [{"role": "user", "content": "Q"}], "chosen": "good", "rejected": "bad"}"#,
        r#"{"prompt": [{"role": "user", "content": "Q"}], "chosen": [{"role": "assistant", "content": "good"}],
            "rejected": [{"role": "assistant", "content": "bad"}], "score": 3}"#,
        // the lists have the whole conversation; `prompt` repeats its beginning
        r#"{"prompt": "Q", "chosen": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "good"}],
            "rejected": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "bad"}]}"#,
    ] {
        assert_eq!(items(&row.replace('\n', " ")), expected, "{row}");
    }
    let dialogue =
        r#"{"prompt": "\n\nHuman: Q\n\nAssistant:", "chosen": "good", "rejected": "bad"}"#;
    assert_eq!(items(dialogue), expected);
}

#[test]
fn pairs_with_the_prompt_within() {
    let row = r#"{"chosen": [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"},
        {"role": "assistant", "content": "good"}], "rejected": [{"role": "system", "content": "S"},
        {"role": "user", "content": "Q"}, {"role": "assistant", "content": "bad"}]}"#;
    let prompt = "\n\nSystem: S\n\nHuman: Q\n\nAssistant: ";
    let expected = one(prompt, &[("good", 1.0), ("bad", 0.0)]);
    assert_eq!(items(&row.replace('\n', " ")), expected);
}

#[test]
fn dialogues_split_at_the_last_turn_and_not_at_the_longest_common_beginning() {
    let row = r#"{"chosen": "\n\nHuman: A\n\nAssistant: B\n\nHuman: C\n\nAssistant: I like it",
        "rejected": "\n\nHuman: A\n\nAssistant: B\n\nHuman: C\n\nAssistant: I lie"}"#;
    let prompt = "\n\nHuman: A\n\nAssistant: B\n\nHuman: C\n\nAssistant: ";
    let expected = one(prompt, &[("I like it", 1.0), ("I lie", 0.0)]);
    assert_eq!(items(&row.replace('\n', " ")), expected);
}

#[test]
fn pairs_whose_prompts_differ_are_counted() {
    let data = read(
        r#"{"chosen": "\n\nHuman: A\n\nAssistant: x", "rejected": "\n\nHuman: B\n\nAssistant: y"}"#,
    );
    assert_eq!(data.items, []);
    assert_eq!(data.tally.left_out, [(Reason::PromptsDiffer, 1)].into());
}

#[test]
fn ranked_lists_by_rewards_or_ranks() {
    let row = r#"{"prompt": "Q", "answers": ["a", "b", "c"], "rewards": [0.5, -1, 2]}"#;
    assert_eq!(items(row), one(Q, &[("a", 0.5), ("b", -1.0), ("c", 2.0)]));
    let row = r#"{"prompt": "Q", "answers": ["a", "b"], "ranks": [1, 0]}"#;
    assert_eq!(items(row), one(Q, &[("a", -1.0), ("b", 0.0)]));
}

#[test]
fn a_tree_gives_a_list_at_every_message_with_assistant_replies() {
    let reply = |text: &str, rank: &str, replies: &str| {
        format!(r#"{{"text": "{text}", "role": "assistant"{rank}, "replies": [{replies}]}}"#)
    };
    let lone = reply("lone", "", "");
    let more = format!(r#"{{"text": "More?", "role": "prompter", "replies": [{lone}]}}"#);
    let replies = [
        reply("second", r#", "rank": 1"#, ""),
        reply("first", r#", "rank": 0"#, &more),
        reply("unranked", "", ""),
        reply("gone", r#", "rank": 2, "deleted": true"#, &more),
    ];
    let row = format!(
        r#"{{"message_tree_id": "1", "prompt": {{"text": "Q", "role": "prompter", "replies": [{}]}}}}"#,
        replies.join(", ")
    );
    let data = read(&row);
    assert_eq!(
        data.tally.left_out,
        [(Reason::NoRank, 1), (Reason::Deleted, 1)].into()
    );
    assert!(data.items.iter().all(|item| item.group == group("Q")));
    let deeper = "\n\nHuman: Q\n\nAssistant: first\n\nHuman: More?\n\nAssistant: ";
    let mut expected = one(deeper, &[("lone", 0.0)]);
    expected.extend(one(Q, &[("second", -1.0), ("first", 0.0)]));
    assert_eq!(items(&row), expected);
}

#[test]
fn named_solutions_are_right_or_wrong() {
    let row = r#"{"question": "Q", "ground_truth": "not read", "small": {"is_correct": false, "solution": "3"},
        "large": {"is_correct": true, "solution": "4"}}"#;
    let mut found = items(&row.replace('\n', " "));
    found[0].1.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(found, one(Q, &[("3", 0.0), ("4", 1.0)]));
}

#[test]
fn one_prompt_one_answer() {
    let expected = one(Q, &[("A", 1.0)]);
    for row in [
        r#"{"prompt": "Q", "completion": "A"}"#,
        r#"{"prompt": [{"role": "user", "content": "Q"}], "completion": [{"role": "assistant", "content": "A"}]}"#,
        r#"{"question": "Q", "answer": "A"}"#,
        r#"{"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}"#,
        r#"{"instruction": "Q", "output": "A"}"#,
        r#"{"instruction": "Q", "instances": [{"input": "", "output": "A"}], "is_classification": false}"#,
    ] {
        assert_eq!(items(row), expected, "{row}");
    }
}

#[test]
fn every_instance_is_an_item_of_one_group() {
    let data = read(
        r#"{"instruction": "Add.", "instances": [{"input": "1 1", "output": "2"}, {"input": "1 2", "output": "3"}]}"#,
    );
    let found: Vec<_> = data
        .items
        .iter()
        .map(|i| (i.prompt.as_str(), i.group))
        .collect();
    let prompt = |input| format!("\n\nHuman: Add.\n\n{input}\n\nAssistant: ");
    assert_eq!(
        found,
        [
            (prompt("1 1").as_str(), data.items[0].group),
            (prompt("1 2").as_str(), data.items[0].group)
        ]
    );
}

#[test]
fn formats_are_told_row_by_row() {
    let data = read(
        "{\"prompt\": \"Q\", \"completion\": \"A\"}\n\n{\"prompt\": \"Q\", \"chosen\": \"a\", \"rejected\": \"b\"}\r\n",
    );
    let expected = [("pair", 1), ("prompt and completion", 1)];
    assert_eq!(data.tally.formats, expected.into());
    assert_eq!(data.tally.rows, 2);
}

#[test]
fn malformed_rows_name_file_line_and_field() {
    // the first row is good, so the line is 2
    let good = r#"{"prompt": "Q", "chosen": "a", "rejected": "b"}"#;
    for (row, problem) in [
        (r#"{"prompt": "Q", "chosen": "a"}"#, "`rejected` is missing"),
        (r#"{"prompt": "Q", "rejected": "a"}"#, "`chosen` is missing"),
        (
            r#"{"prompt": "Q", "chosen": null, "rejected": "a"}"#,
            "`chosen` is null",
        ),
        (
            r#"{"prompt": "Q", "chosen": 3, "rejected": "a"}"#,
            "`chosen` must be a text or a list of messages, found a number",
        ),
        (
            r#"{"prompt": {"a": 1}, "chosen": "a", "rejected": "b"}"#,
            "`prompt` must be a text or a list of messages, found an object",
        ),
        (
            r#"{"chosen": "a", "rejected": "b"}"#,
            "`chosen` holds no turn `\\n\\nAssistant:`, and the row has no `prompt`",
        ),
        (
            r#"{"chosen": "\n\nHuman: Q\n\nAssistant: a\n\nHuman: b", "rejected": "\n\nHuman: Q\n\nAssistant: a"}"#,
            "`chosen` does not end with a turn `\\n\\nAssistant:`",
        ),
        (
            r#"{"chosen": [], "rejected": []}"#,
            "`chosen` is an empty list",
        ),
        (
            r#"{"prompt": "Q", "chosen": ["a"], "rejected": "b"}"#,
            "`chosen[0]` must be an object, found a text",
        ),
        (
            r#"{"prompt": "Q", "chosen": [{"role": "assistant"}], "rejected": "b"}"#,
            "`chosen[0].content` is missing",
        ),
        (
            r#"{"prompt": "Q", "chosen": [{"role": "bot", "content": "a"}], "rejected": "b"}"#,
            "`chosen[0].role` must be `user`, `human`, `prompter`, `assistant` or `system`, found `bot`",
        ),
        (
            r#"{"chosen": [{"role": "user", "content": "a"}], "rejected": "b"}"#,
            "`chosen` must end with a message of the assistant",
        ),
        (
            r#"{"prompt": "Q", "answers": ["a"]}"#,
            "`rewards` or `ranks` is missing",
        ),
        (r#"{"prompt": "Q", "rewards": [1]}"#, "`answers` is missing"),
        (
            r#"{"prompt": "Q", "answers": ["a"], "rewards": [1], "ranks": [1]}"#,
            "`rewards` and `ranks` are both given: which holds?",
        ),
        (
            r#"{"prompt": "Q", "answers": ["a", "b"], "rewards": [1]}"#,
            "`rewards` has 1 entries, `answers` has 2",
        ),
        (
            r#"{"prompt": "Q", "answers": ["a", 2], "rewards": [1, 2]}"#,
            "`answers[1]` must be a text, found a number",
        ),
        (
            r#"{"prompt": "Q", "answers": ["a", "b"], "ranks": [1, "2"]}"#,
            "`ranks[1]` must be a number, found a text",
        ),
        (
            r#"{"prompt": "Q", "answers": ["a", "b"], "rewards": [1, -1e39]}"#,
            "`rewards[1]` is -1e39, too large for a reward",
        ),
        (
            r#"{"prompt": {"text": "Q", "role": "prompter", "replies": [{"text": "a", "role": "assistant"}]}}"#,
            "`prompt.replies[0].replies` is missing",
        ),
        (
            r#"{"prompt": {"text": "Q", "role": "prompter", "replies": [{"text": "a", "role": "assistant", "rank": "best", "replies": []}]}}"#,
            "`prompt.replies[0].rank` must be a number, found a text",
        ),
        (
            r#"{"question": "Q", "a": {"is_correct": 1, "solution": "s"}}"#,
            "`a.is_correct` must be true or false, found a number",
        ),
        (
            r#"{"question": "Q", "a": {"is_correct": true}}"#,
            "`a.solution` is missing",
        ),
        (r#"{"question": "Q"}"#, "`answer` is missing"),
        (r#"{"completion": "A"}"#, "`prompt` is missing"),
        (
            r#"{"prompt": "Q", "completion": false}"#,
            "`completion` must be a text, found true or false",
        ),
        (
            r#"{"instruction": "I", "instances": {}}"#,
            "`instances` must be a list, found an object",
        ),
        (
            r#"{"instruction": "I", "instances": [{"input": ""}]}"#,
            "`instances[0].output` is missing",
        ),
        (
            r#"{"instruction": 1}"#,
            "`instruction` must be a text, found a number",
        ),
        (
            r#"{"prompt": "Q", "chosen": "a", "chosen": "b"}"#,
            "is not valid JSON: `chosen` stands twice at column 39",
        ),
        (
            r#"{"prompt": "Q""#,
            "is not valid JSON: EOF while parsing an object at column 14",
        ),
        ("[1, 2]", "must be a JSON object, found a list"),
        (
            r#"{"a": 1, "b": 2}"#,
            "is of no known format: it needs `chosen` and `rejected`, `prompt` and `answers`, \
             `prompt` and `completion`, `question` and `answer`, `instruction`, or `messages`, and has `a`, `b`",
        ),
        (
            "{}",
            "is of no known format: it needs `chosen` and `rejected`, `prompt` and `answers`, \
             `prompt` and `completion`, `question` and `answer`, `instruction`, or `messages`, and has no field",
        ),
    ] {
        let text = format!("{good}\n{row}\n{good}");
        assert_eq!(message(&text), format!("rows.jsonl:2: {problem}"), "{row}");

        // on request the same row is counted, and its message kept
        let reading = Reading {
            skip_bad_rows: true,
            ..READING
        };
        let tally = from_text(&text, "rows.jsonl", &reading).unwrap().tally;
        assert_eq!((tally.rows, tally.bad_rows), (3, 1));
        assert_eq!(tally.bad_row_messages, [format!("rows.jsonl:2: {problem}")]);
    }
}

#[test]
fn bytes_that_are_no_text_are_named() {
    let bytes = Cursor::new(b"{\"prompt\": \"\xff\"}".to_vec());
    let path = Path::new("rows.jsonl");
    let lines = reader::Lines::from_reader(bytes, path).unwrap();
    assert_eq!(
        collect(lines, path, &READING).unwrap_err().to_string(),
        "rows.jsonl:1: is not valid UTF-8 at byte 13 of the line"
    );
}

#[test]
fn a_file_without_rows_or_without_being_there() {
    assert_eq!(message(""), "rows.jsonl: holds no rows");
    assert_eq!(message("\u{feff}\r\n  \n"), "rows.jsonl: holds no rows");
    let error = load(Some(Path::new("/no/such/file.jsonl")), &READING).unwrap_err();
    let start = "/no/such/file.jsonl: cannot be opened: ";
    assert!(error.to_string().starts_with(start), "{error}");
}

#[test]
fn the_number_of_rows_can_be_limited() {
    let row = r#"{"question": "Q", "answer": "A"}"#;
    let text = format!("{row}\n{row}\nnot read");
    let reading = Reading {
        max_rows: Some(2),
        ..READING
    };
    assert_eq!(
        from_text(&text, "rows.jsonl", &reading)
            .unwrap()
            .items
            .len(),
        2
    );
}

#[test]
fn answers_that_cannot_be_used_are_counted() {
    let long = "x".repeat(READING.longest_answer() + 1);
    let pair = |chosen: &str, rejected: &str| {
        format!(r#"{{"prompt": "Q", "chosen": "{chosen}", "rejected": "{rejected}"}}"#)
    };
    let rows = [
        pair("", "a"),
        pair("a", "  "),
        pair("a", "a "),
        pair(&long, "a"),
        pair("a", "b"),
        format!(
            r#"{{"prompt": "Q", "answers": ["a", "", "{long}", "b", "a"], "ranks": [0, 1, 2, 3, 4]}}"#
        ),
        r#"{"prompt": "Q", "answers": ["a", ""], "ranks": [0, 1]}"#.to_string(),
        r#"{"prompt": "Q", "answers": [], "ranks": []}"#.to_string(),
        format!(r#"{{"prompt": "Q", "completion": "{long}"}}"#),
    ];
    let data = read(&rows.join("\n"));
    let left_out = [
        (Reason::EmptyAnswer, 3),
        (Reason::EqualAnswers, 1),
        (Reason::AnswerTooLong, 2),
        (Reason::SingleAnswer, 1),
    ];
    assert_eq!(data.tally.left_out, left_out.into());
    let single = [
        (Reason::EmptyAnswer, 1),
        (Reason::EqualAnswers, 1),
        (Reason::AnswerTooLong, 1),
    ];
    assert_eq!(data.tally.answers_left_out, single.into());
    assert_eq!(data.items.len(), 2);
    assert_eq!(
        data.items[1].answers,
        [Answer::new("a", 0.0), Answer::new("b", -3.0)]
    );
}

#[test]
fn long_prompts_lose_their_beginning_and_no_character_is_cut_in_two() {
    let row = format!(
        r#"{{"prompt": "{}", "chosen": "good", "rejected": "bad"}}"#,
        "é".repeat(200)
    );
    let data = read(&row);
    assert_eq!(data.tally.prompts_cut, 1);
    let prompt = &data.items[0].prompt;
    assert!(prompt.starts_with('é') && prompt.ends_with("é\n\nAssistant: "));
    // 256 − BOS − EOS − "good" is even, and so is the rest of the prompt
    let rest = "\n\nAssistant: ".len();
    assert_eq!(prompt.len(), rest + (256 - MARKS - 4 - rest) / 2 * 2);
}

#[test]
fn the_examples_own_rows_are_good_and_no_ruler_tells_them_apart() {
    let data = load(None, &READING).unwrap();
    assert_eq!(data.items.len(), 50);
    assert_eq!(data.tally.formats, [("pair", 50)].into());
    assert_eq!(data.tally.reasons(), "nothing left out");
    let prompts: HashSet<_> = data.items.iter().map(|item| &item.prompt).collect();
    assert_eq!(prompts.len(), 50);
    let longer = |item: &&Item| item.answers[0].text.len() > item.answers[1].text.len();
    let longer = data.items.iter().filter(longer).count();
    assert!((20..=30).contains(&longer), "{longer}");
}

fn prompts(count: usize, groups: usize) -> Vec<Item> {
    let item = |i: usize| {
        let mut item = Item::new(format!("prompt {i}"), vec![Answer::new("a", 0.0)]);
        item.group = (i % groups) as u64;
        item
    };
    (0..count).map(item).collect()
}

#[test]
fn a_split_depends_on_its_seed_alone() {
    let split = |seed| split(prompts(60, 20), 0.25, 100, &mut StdRng::seed_from_u64(seed)).unwrap();
    assert_eq!(split(3), split(3));
    assert_ne!(split(3), split(4));
    assert_eq!((split(3).0.len(), split(3).1.len()), (45, 15));
}

#[test]
fn one_prompt_cannot_be_split() {
    let error = split(prompts(5, 1), 0.5, 9, &mut StdRng::seed_from_u64(0)).unwrap_err();
    let expected = "a held-out split needs at least two different prompts, found 1";
    assert_eq!(error.to_string(), expected);
}

proptest! {
    #[test]
    fn no_group_is_in_both_halves(
        count in 2usize..80, groups in 2usize..30, share in 0.0f64..1.0, most in 1usize..9, seed: u64,
    ) {
        let all = prompts(count, groups);
        let present = count.min(groups);
        let (train, held) = split(all, share, most, &mut StdRng::seed_from_u64(seed)).unwrap();
        prop_assert_eq!(train.len() + held.len(), count);
        let of = |items: &[Item]| items.iter().map(|i| i.group).collect::<HashSet<_>>();
        let (train, held) = (of(&train), of(&held));
        prop_assert!(train.is_disjoint(&held));
        prop_assert!(!train.is_empty() && !held.is_empty() && held.len() <= most.max(1));
        prop_assert_eq!(train.len() + held.len(), present);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes: Vec<u8>, skip_bad_rows: bool, gzip: bool) {
        let mut bytes = bytes;
        if gzip {
            bytes.splice(..0, [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]);
        }
        let path = Path::new("rows.jsonl");
        let lines = reader::Lines::from_reader(Cursor::new(bytes), path).unwrap();
        let _ = collect(lines, path, &Reading { skip_bad_rows, ..READING });
    }

    #[test]
    fn no_row_of_known_fields_makes_the_reader_panic(
        row in prop::collection::btree_map(field(), value(), 0..6), max_len in 32usize..64,
    ) {
        let line = serde_json::to_string(&row).unwrap();
        let _ = from_text(&line, "rows.jsonl", &Reading { max_len, ..READING });
    }
}

/// The names that formats read.
fn field() -> impl Strategy<Value = String> {
    let names = "prompt chosen rejected answers rewards ranks question answer instruction instances \
                 input output completion messages role content text replies rank is_correct solution deleted \
                 system history label weight review_result tool_calls";
    let names: Vec<String> = names.split_whitespace().map(String::from).collect();
    prop::sample::select(names)
}

/// Values of all types, with the texts that formats look for.
fn value() -> impl Strategy<Value = serde_json::Value> {
    let texts = [
        "",
        " ",
        "é",
        "user",
        "assistant",
        "\n\nAssistant:",
        "\n\nHuman: a\n\nAssistant: é",
    ];
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        prop::sample::select(texts.map(String::from).to_vec()).prop_map(Into::into),
        ".{0,80}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map(field(), inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}
