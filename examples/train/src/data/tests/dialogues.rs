//! Parts of a row besides its texts: labels, weights, system turns, histories, answers that have begun.
//! Each kind of fault was reported for another framework; the comments name the threads.

use super::*;

/// The lines of a row, joined.
fn row(text: &str) -> String {
    text.replace('\n', " ")
}

fn refused(text: &str) -> String {
    let message = message(&row(text));
    message.strip_prefix("rows.jsonl:1: ").unwrap().to_string()
}

fn left_out(text: &str) -> BTreeMap<Reason, usize> {
    let data = read(&row(text));
    assert_eq!(data.items, [], "{text}");
    data.tally.left_out
}

// ms-swift#4535, trl#2248
#[test]
fn a_label_says_whether_an_answer_is_right() {
    for row in [
        r#"{"prompt": "Q", "completion": "A", "label": LABEL}"#,
        r#"{"question": "Q", "answer": "A", "label": LABEL}"#,
        r#"{"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}], "label": LABEL}"#,
    ] {
        for (label, reward) in [("true", 1.0), ("false", 0.0)] {
            let data = read(&row.replace("LABEL", label));
            assert_eq!(data.items[0].answers, [Answer::new("A", reward)]);
            assert!(data.items[0].judged);
            assert_eq!(
                data.items[0].is_good(&data.items[0].answers[0]),
                reward == 1.0
            );
            assert_eq!(data.tally.formats, [("unpaired", 1)].into());
        }
        assert_eq!(
            refused(&row.replace("LABEL", "0")),
            "`label` must be true or false, found a number"
        );
    }
}

const TWO_TURNS: &str = r#"{"messages": [{"role": "user", "content": "A"},
    {"role": "assistant", "content": "B"FIRST}, {"role": "user", "content": "C"},
    {"role": "assistant", "content": "D"LAST}]}"#;

// fw-ai/cookbook#387, axolotl#1703
#[test]
fn a_turn_of_weight_0_is_context_and_no_answer() {
    let first = one("\n\nHuman: A\n\nAssistant: ", &[("B", 1.0)]);
    let context = "\n\nHuman: A\n\nAssistant: B\n\nHuman: C\n\nAssistant: ";
    let last = one(context, &[("D", 1.0)]);
    let both = [first.clone(), last.clone()].concat();
    let (none, zero, full) = ("", r#", "weight": 0"#, r#", "weight": 1"#);
    for (weights, expected) in [
        ((none, none), &last),
        ((zero, none), &last),
        ((none, zero), &first),
        ((none, full), &both),
        ((full, none), &both),
        ((full, zero), &first),
        ((zero, r#", "weight": 1.0"#), &last),
        ((none, r#", "weight": null"#), &last),
    ] {
        let row = row(&TWO_TURNS
            .replace("FIRST", weights.0)
            .replace("LAST", weights.1));
        assert_eq!(&items(&row), expected, "{weights:?}");
        // the answers of one conversation stay on one side of a split
        let data = read(&row);
        assert!(
            data.items
                .iter()
                .all(|item| item.group == data.items[0].group)
        );
    }
    let row = TWO_TURNS.replace("FIRST", zero).replace("LAST", zero);
    assert_eq!(left_out(&row), [(Reason::NoWeight, 1)].into());
    assert_eq!(
        refused(
            &TWO_TURNS
                .replace("FIRST", "")
                .replace("LAST", r#", "weight": 0.5"#)
        ),
        "`messages[3].weight` must be 0 or 1, found 0.5"
    );
}

#[test]
fn a_weight_that_nothing_can_follow_is_refused() {
    let pair = |chosen: &str, rejected: &str, prompt: &str| {
        format!(
            r#"{{"prompt": [{{"role": "user", "content": "Q"{prompt}}}], "chosen": [{{"role": "assistant", "content": "a"}},
            {{"role": "user", "content": "R"}}, {{"role": "assistant", "content": "good"{chosen}}}], "rejected":
            [{{"role": "assistant", "content": "a"{rejected}}}, {{"role": "user", "content": "R"}},
            {{"role": "assistant", "content": "bad"}}]}}"#
        )
    };
    assert_eq!(
        read(&row(&pair("", r#", "weight": 0"#, r#", "weight": 0"#)))
            .items
            .len(),
        1
    );
    assert_eq!(
        refused(&pair(r#", "weight": 0"#, "", "")),
        "`chosen[2].weight` is 0, and this turn is what a pair compares"
    );
    assert_eq!(
        refused(&pair("", r#", "weight": 1"#, "")),
        "`rejected[0].weight` is 1, and the last turn alone is what a pair compares"
    );
    assert_eq!(
        refused(&pair("", "", r#", "weight": 1"#)),
        "`prompt[0].weight` is 1, and only turns of the assistant are learned"
    );
    let begun = r#"{"prompt": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A", "weight": 1}], "completion": "B"}"#;
    assert_eq!(
        refused(begun),
        "`prompt[1].weight` is 1, and a turn of a prompt is not learned"
    );
}

// NVIDIA-NeMo/Automodel#2348, fw-ai/cookbook#378
#[test]
fn what_a_message_says_beside_its_text_is_refused_by_name() {
    for (name, value) in [
        (
            "tool_calls",
            r#"[{"function": {"name": "f", "arguments": "{}"}}]"#,
        ),
        ("function_call", r#"{"name": "f"}"#),
        ("reasoning_content", r#""Let me see.""#),
        ("thinking", r#""Let me see.""#),
        ("name", r#""Ann""#),
        ("audio", r#"{"id": "a"}"#),
        ("images", r#"["a.png"]"#),
    ] {
        let pair = format!(
            r#"{{"chosen": [{{"role": "user", "content": "Q"}}, {{"role": "assistant", "content": "", "{name}": {value}}},
            {{"role": "user", "content": "R"}}, {{"role": "assistant", "content": "a"}}],
            "rejected": [{{"role": "user", "content": "Q"}}, {{"role": "assistant", "content": ""}},
            {{"role": "user", "content": "R"}}, {{"role": "assistant", "content": "b"}}]}}"#
        );
        let expected = format!(
            "`chosen[1].{name}` is not read in a message, and without it the row might teach something \
             else; if it means nothing here, say --ignore-field {name}"
        );
        assert_eq!(refused(&pair), expected);
        let reading = Reading {
            skip_bad_rows: true,
            ..READING
        };
        let skipped = from_text(&row(&pair), "rows.jsonl", &reading).unwrap();
        assert_eq!(
            skipped.tally.bad_row_messages,
            [format!("rows.jsonl:1: {expected}")]
        );
    }
}

fn with_prompt(prompt: &str, format: &str) -> String {
    let texts = match format {
        "pair" => {
            r#""chosen": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "good"}],
            "rejected": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "bad"}]"#
        }
        _ => {
            r#""completion": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "good"}]"#
        }
    };
    format!(r#"{{"prompt": {prompt}, {texts}}}"#)
}

// ms-swift#9611
#[test]
fn a_prompt_beside_lists_that_hold_the_dialogue_is_kept_or_contradicted() {
    let system = "\n\nSystem: S\n\nHuman: Q\n\nAssistant: ";
    for (format, name) in [("pair", "chosen"), ("completion", "completion")] {
        for (prompt, expected) in [
            (r#""Q""#, Q),
            (r#"[{"role": "user", "content": "Q"}]"#, Q),
            (r#""\n\nHuman: Q\n\nAssistant:""#, Q),
            (
                r#"[{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}]"#,
                system,
            ),
            (r#"[{"role": "system", "content": "S"}]"#, system),
        ] {
            let found = items(&row(&with_prompt(prompt, format)));
            assert_eq!(found[0].0, expected, "{prompt}");
            assert_eq!(found[0].1[0].0, "good");
        }
        for prompt in [
            r#""Another""#,
            r#""Q and more""#,
            r#"[{"role": "user", "content": "Another"}]"#,
            r#"[{"role": "user", "content": "Q"}, {"role": "user", "content": "R"}]"#,
        ] {
            let expected = format!("`{name}` does not begin with `prompt`: which holds?");
            assert_eq!(refused(&with_prompt(prompt, format)), expected, "{prompt}");
        }
    }
    // a turn that has the prompt only as its beginning
    let longer =
        with_prompt(r#""Q""#, "pair").replace(r#""content": "Q""#, r#""content": "Q, too""#);
    assert_eq!(
        refused(&longer),
        "`chosen` does not begin with `prompt`: which holds?"
    );
    // a system turn only in the lists; two different ones
    let lists = |prompt: &str| {
        format!(
            r#"{{"prompt": {prompt}, "completion": [{{"role": "system", "content": "S"}},
            {{"role": "user", "content": "Q"}}, {{"role": "assistant", "content": "A"}}]}}"#
        )
    };
    assert_eq!(items(&row(&lists(r#""Q""#))), one(system, &[("A", 1.0)]));
    assert_eq!(
        refused(&lists(
            r#"[{"role": "system", "content": "T"}, {"role": "user", "content": "Q"}]"#
        )),
        "`completion` does not begin with `prompt`: which holds?"
    );
    assert_eq!(
        refused(&lists(r#"[{"role": "system", "content": "T"}]"#)),
        "`completion` does not begin with `prompt`: which holds?"
    );
}

#[test]
fn a_prompt_beside_dialogues_as_texts_is_not_written_twice() {
    let text = |prompt: &str| {
        format!(
            r#"{{"prompt": "{prompt}", "chosen": "\n\nHuman: Q\n\nAssistant: good", "rejected": "\n\nAssistant: bad"}}"#
        )
    };
    assert_eq!(items(&text("Q")), one(Q, &[("good", 1.0), ("bad", 0.0)]));
    assert_eq!(
        refused(&text("R")),
        "`chosen` does not begin with `prompt`: which holds?"
    );
}

// LoongForge#47
#[test]
fn system_and_history_stand_before_the_prompt() {
    let before = r#""system": "S", "history": [["A", "B"], ["C", "D"]]"#;
    let context = "\n\nSystem: S\n\nHuman: A\n\nAssistant: B\n\nHuman: C\n\nAssistant: D";
    for (fields, asked) in [
        (
            r#""instruction": "I", "input": "Q", "output": "x""#,
            "I\n\nQ",
        ),
        (
            r#""instruction": "I", "instances": [{"input": "Q", "output": "x"}]"#,
            "I\n\nQ",
        ),
        (r#""instruction": "", "input": "Q", "output": "x""#, "Q"),
        (r#""prompt": "Q", "completion": "x""#, "Q"),
        (r#""question": "Q", "answer": "x""#, "Q"),
        (r#""prompt": "Q", "chosen": "x", "rejected": "y""#, "Q"),
        (
            r#""prompt": "Q", "answers": ["x", "y"], "ranks": [0, 1]"#,
            "Q",
        ),
        (
            r#""question": "Q", "a": {"solution": "x", "is_correct": true}"#,
            "Q",
        ),
    ] {
        let found = items(&format!("{{{fields}, {before}}}"));
        let expected = format!("{context}\n\nHuman: {asked}\n\nAssistant: ");
        assert_eq!(found[0].0, expected, "{fields}");
        assert_eq!(found[0].1[0].0, "x");
    }
    for (fields, problem) in [
        (r#""system": 1"#, "`system` must be a text, found a number"),
        (
            r#""history": "A""#,
            "`history` must be a list, found a text",
        ),
        (
            r#""history": [["A"]]"#,
            "`history[0]` must be a list of two texts",
        ),
        (
            r#""history": [["A", 1]]"#,
            "`history[0][1]` must be a text, found a number",
        ),
    ] {
        let row = format!(r#"{{"instruction": "I", "output": "x", {fields}}}"#);
        assert_eq!(refused(&row), problem);
    }
    let twice = r#"{"system": "S", "prompt": [{"role": "system", "content": "T"}, {"role": "user", "content": "Q"}], "completion": "x"}"#;
    assert_eq!(
        refused(twice),
        "`prompt` begins with a system turn, and `system` would stand before it"
    );
    let both = r#"{"instruction": "I", "instances": [{"output": "x"}], "output": "y"}"#;
    assert_eq!(
        refused(both),
        "`instances` and `output` are both given: which holds?"
    );
}

// unsloth-zoo#1110
#[test]
fn an_answer_that_has_begun_in_the_prompt_goes_on() {
    let prompt = "\n\nHuman: Q\n\nAssistant: It is";
    let list = r#"[{"role": "user", "content": "Q"}, {"role": "assistant", "content": "It is"}]"#;
    let text = r#""\n\nHuman: Q\n\nAssistant: It is""#;
    let whole = |answer: &str| {
        format!(
            r#"[{{"role": "user", "content": "Q"}}, {{"role": "assistant", "content": "It is{answer}"}}]"#
        )
    };
    for given in [list, text] {
        for (chosen, rejected) in [
            (r#"" 4. ""#.to_string(), r#"" 5.""#.to_string()),
            (
                r#"[{"role": "assistant", "content": " 4."}]"#.to_string(),
                r#"[{"role": "assistant", "content": " 5."}]"#.to_string(),
            ),
            (whole(" 4."), whole(" 5.")),
        ] {
            let row =
                format!(r#"{{"prompt": {given}, "chosen": {chosen}, "rejected": {rejected}}}"#);
            assert_eq!(
                items(&row),
                one(prompt, &[(" 4.", 1.0), (" 5.", 0.0)]),
                "{row}"
            );
            assert!(read(&row).items[0].begun);
            let row = format!(r#"{{"prompt": {given}, "completion": {chosen}}}"#);
            assert_eq!(items(&row), one(prompt, &[(" 4.", 1.0)]), "{row}");
        }
    }
    let row = format!(r#"{{"prompt": {list}, "answers": [" 4", " 5"], "rewards": [1, 0]}}"#);
    assert_eq!(items(&row), one(prompt, &[(" 4", 1.0), (" 5", 0.0)]));
    // more turns after an answer that has begun; an empty turn has not begun
    let row = format!(
        r#"{{"prompt": {list}, "completion": [{{"role": "assistant", "content": " 4."}}, {{"role": "user", "content": "Sure?"}}, {{"role": "assistant", "content": "Yes"}}]}}"#
    );
    let longer = "\n\nHuman: Q\n\nAssistant: It is 4.\n\nHuman: Sure?\n\nAssistant: ";
    assert_eq!(items(&row), one(longer, &[("Yes", 1.0)]));
    let row = format!(
        r#"{{"prompt": {}, "completion": "A"}}"#,
        list.replace("It is", " ")
    );
    assert_eq!(items(&row), one(Q, &[("A", 1.0)]));
    // blanks alone are not an answer
    let row = format!(r#"{{"prompt": {list}, "completion": "  "}}"#);
    assert_eq!(left_out(&row), [(Reason::EmptyAnswer, 1)].into());
}

// trl#6472, trl#6960
#[test]
fn lists_without_a_prompt_are_an_error_as_texts_are() {
    let problem = "holds nothing before the answer, and the row has no `prompt`";
    let a = r#"[{"role": "assistant", "content": "a"}]"#;
    let b = r#"[{"role": "assistant", "content": "b"}]"#;
    for (row, name) in [
        (format!(r#"{{"chosen": {a}, "rejected": {b}}}"#), "chosen"),
        (format!(r#"{{"messages": {a}}}"#), "messages"),
        (
            r#"{"chosen": "\n\nAssistant: a", "rejected": "\n\nAssistant: b"}"#.to_string(),
            "chosen",
        ),
    ] {
        assert_eq!(refused(&row), format!("`{name}` {problem}"));
    }
    assert_eq!(
        refused(r#"{"prompt": [], "completion": "a"}"#),
        "`prompt` is an empty list"
    );
    // pairs with different prompts are left out, as for texts
    let pair = r#"{"chosen": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "a"}],
        "rejected": [{"role": "user", "content": "R"}, {"role": "assistant", "content": "b"}]}"#;
    assert_eq!(left_out(pair), [(Reason::PromptsDiffer, 1)].into());
}

#[test]
fn a_byte_order_mark_within_a_file_is_two_files() {
    let row = r#"{"question": "Q", "answer": "A \ufeff"}"#.replace("\\ufeff", "\u{feff}");
    let joined = "two files were joined here; take the mark out";
    assert_eq!(read(&format!("\u{feff}{row}\n{row}")).items.len(), 2);
    assert_eq!(
        message(&format!("\u{feff}{row}\n\u{feff}{row}")),
        format!("rows.jsonl:2: has a byte-order mark at byte 1: {joined}")
    );
    assert_eq!(
        message(&format!("{row}\u{feff}{row}")),
        format!(
            "rows.jsonl:1: has a byte-order mark at byte {}: {joined}",
            row.len() + 1
        )
    );
    assert_eq!(
        message(&format!("{row}\n \u{feff}\n")),
        format!("rows.jsonl:2: has a byte-order mark at byte 2: {joined}")
    );
}

#[test]
fn a_row_that_gives_nothing_is_counted() {
    assert_eq!(
        left_out(r#"{"instruction": "I", "instances": []}"#),
        [(Reason::NoAnswer, 1)].into()
    );
    let tree = |fields: &str, replies: &str| {
        format!(
            r#"{{"prompt": {{"text": "Q", "role": "prompter"{fields}, "replies": [{replies}]}}}}"#
        )
    };
    let question = r#"{"text": "R", "role": "prompter", "replies": []}"#;
    let answer = r#"{"text": "A", "role": "assistant", "review_result": false, "replies": []}"#;
    assert_eq!(left_out(&tree("", "")), [(Reason::NoAnswer, 1)].into());
    assert_eq!(
        left_out(&tree("", question)),
        [(Reason::NoAnswer, 2)].into()
    );
    assert_eq!(
        left_out(&tree("", answer)),
        [(Reason::Rejected, 1), (Reason::NoAnswer, 1)].into()
    );
    assert_eq!(
        left_out(&tree(r#", "deleted": true"#, answer)),
        [(Reason::Deleted, 1)].into()
    );
    assert_eq!(
        refused(&tree(r#", "deleted": "yes""#, "")),
        "`prompt.deleted` must be true or false, found a text"
    );
}

#[test]
fn what_many_answers_share_is_kept_once() {
    // half a megabyte of prompt, before two thousand answers or before as many turns
    let long = "x".repeat(1 << 19);
    let reply = r#"{"text": "A", "role": "assistant", "replies": []}"#;
    let question = format!(r#"{{"text": "R", "role": "prompter", "replies": [{reply}]}}"#);
    let tree = format!(
        r#"{{"prompt": {{"text": "{long}", "role": "prompter", "replies": [{}]}}}}"#,
        vec![question; 2000].join(", ")
    );
    let instance = r#"{"output": "A"}"#;
    let instances = format!(
        r#"{{"instruction": "{long}", "instances": [{}]}}"#,
        vec![instance; 2000].join(", ")
    );
    let turn = r#"{"role": "assistant", "content": "A", "weight": 1}"#;
    let turns = format!(
        r#"{{"messages": [{{"role": "user", "content": "{long}"}}, {}]}}"#,
        vec![turn; 2000].join(", ")
    );
    for row in [tree, instances, turns] {
        let object = json::object(&row).unwrap();
        let (_, found) = formats::row(&object, 260).unwrap();
        let prompts = found.iter().filter_map(|found| match found {
            formats::Found::Item(item) => Some(item.prompt.len()),
            formats::Found::LeftOut(_) => None,
        });
        let prompts: Vec<usize> = prompts.collect();
        assert_eq!(prompts.len(), 2000);
        // the first may be complete
        let most = long.len() + 2000 * 300;
        assert!(prompts.iter().sum::<usize>() < most, "{:?}", &prompts[..3]);
        let data = read(&row);
        assert_eq!((data.items.len(), data.tally.prompts_cut), (2000, 2000));
    }
}
