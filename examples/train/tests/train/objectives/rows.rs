//! What the rows of each objective say, and which of it the loss covers.

use super::{CHAT, Case, LISTS, SOLUTIONS, model};
use train::checkpoint::objective::Objective;

const ASKED: &str = "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n";

/// All texts of a run, in order.
fn said(case: &Case) -> Vec<String> {
    let texts = match case.objective() {
        Objective::Texts(all) => all.rows,
        Objective::Answers(all) => all.rows.into_iter().map(|one| one.text).collect(),
        Objective::Pairs(all) => {
            let both = all.rows.into_iter();
            both.flat_map(|pair| [pair.chosen, pair.rejected]).collect()
        }
        Objective::Lists(all) => all.rows.into_iter().flat_map(|list| list.answers).collect(),
        Objective::Unpaired(all) => all.rows.into_iter().map(|row| row.text).collect(),
        Objective::Scores(_) => panic!("whole texts"),
    };
    texts.iter().map(|text| case.said(text)).collect()
}

fn first(objective: &str, sets: &[&str]) -> Vec<String> {
    let first = SOLUTIONS.lines().next().unwrap();
    said(&Case::new(objective, first, sets))
}

#[test]
fn lists_go_through_the_chat_template() {
    let lists = said(&Case::new("pro", LISTS, &[]));
    let fruit = |answer: &str| {
        format!(
            "<|im_start|>user\nName a fruit.<|im_end|>\n<|im_start|>assistant\n[{answer}<|im_end|>\n]"
        )
    };
    let best_first = ["An apple.", "Apples", "A stone."].map(fruit);
    assert_eq!(lists[..3], best_first);
    let system = "<|im_start|>system\nShort.<|im_end|>\n<|im_start|>user\nSay a<|im_end|>\n<|im_start|>assistant\n[a<|im_end|>\n]";
    assert_eq!(lists[5], system);
    assert_eq!(lists.len(), 9);
    let Objective::Lists(all) = Case::new("pro", LISTS, &[]).objective() else {
        panic!("no lists");
    };
    assert_eq!(all.rows[0].rewards, [2.5, 1.0, 0.1]);
    // "an apple" and "apples": no word in common; "a" is none of "an"
    assert_eq!(all.rows[0].similarity, [1.0, 0.0, 0.0]);
    assert_eq!(all.rows[2].similarity[..2], [1.0, 2.0 / 3.0]);
}

#[test]
fn without_a_template_a_dialogue_is_its_text() {
    let case = Case::on(model(1, None), "rrhf", LISTS, &[]);
    let plain = "\n\nHuman: Hi\n\nAssistant: ";
    assert_eq!(said(&case)[3], format!("{plain}[Hello!<|im_end|>]"));
    let off = Case::new("rrhf", LISTS, &["chat=false"]);
    assert_eq!(said(&off), said(&case));
    // the turns of a dialogue become those of the template
    let hh = r#"{"chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d", "rejected": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: e"}"#;
    let turns = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n[d<|im_end|>\n]";
    assert_eq!(said(&Case::new("pro", hh, &[]))[0], turns);
    // TRL leaves texts as they are, unless told otherwise
    assert_eq!(said(&Case::new("dpo", hh, &["chat=true"]))[0], turns);
    let texts = said(&Case::new("dpo", hh, &[]));
    assert!(texts[0].starts_with("\n\nHuman: a"), "{}", texts[0]);
}

#[test]
fn other_files_give_pairs_and_best_answers() {
    let pairs = said(&Case::new("dpo", SOLUTIONS, &[]));
    // two right answers against a wrong one, then one pair, one, and two
    assert_eq!(pairs.len(), 2 * (2 + 1 + 1 + 2));
    assert_eq!(pairs[0], format!("{ASKED}[2<|im_end|>\n]"));
    assert_eq!(pairs[1], format!("{ASKED}[3 or so<|im_end|>\n]"));
    let best = said(&Case::new("sft", SOLUTIONS, &[]));
    assert_eq!(best.len(), 4);
    assert_eq!(best[0], pairs[0]);
    let tree = r#"{"prompt": {"text": "q", "role": "prompter", "replies": [{"text": "worse", "role": "assistant", "rank": 1, "replies": []}, {"text": "better", "role": "assistant", "rank": 0, "replies": [{"text": "more?", "role": "prompter", "replies": [{"text": "yes", "role": "assistant", "replies": []}]}]}]}}"#;
    let listed = said(&Case::new("slic", tree, &["slic_form=list"]));
    let asked = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(
        listed,
        ["better", "worse"].map(|answer| format!("{asked}[{answer}<|im_end|>\n]"))
    );
    // a tree has a best answer at every prompt
    assert_eq!(said(&Case::new("sft", tree, &[])).len(), 2);
}

#[test]
fn words_stand_in_the_turn_of_the_assistant() {
    assert_eq!(
        first("conditional_sft", &["classes.good=Yes: "]),
        [
            format!("{ASKED}Yes: [2<|im_end|>]"),
            format!("{ASKED}Yes: [two<|im_end|>]"),
            format!("{ASKED}Bad answer: [3 or so<|im_end|>]"),
        ]
    );
    let feedback = r#"chain_of_hindsight.feedback=[{"good": "Good: ", "bad": " Bad: "}]"#;
    let hindsight = first("chain_of_hindsight", &[feedback]);
    assert_eq!(
        hindsight[..2],
        [
            format!("{ASKED}Good: [2<|im_end|>] Bad: [3 or so<|im_end|>]"),
            format!("{ASKED} Bad: [3 or so<|im_end|>]Good: [2<|im_end|>]"),
        ]
    );
    let last = [feedback, "chain_of_hindsight.learned=last"];
    assert_eq!(
        first("chain_of_hindsight", &last)[0],
        format!("{ASKED}Good: 2<|im_end|> Bad: [3 or so<|im_end|>]")
    );
    let revise = "Revision is needed.";
    let stop = "Revision is not needed.";
    assert_eq!(
        first("selfee", &[])[0],
        format!(
            "{ASKED}[3 or so\n\n### Feedback 1:\n{revise}\n\n### Revision 1:\n2\n\n### Feedback 2:\n{stop}<|im_end|>]"
        )
    );
    let solved = first("selfee", &[])[2].clone();
    assert_eq!(
        solved,
        format!("{ASKED}[2\n\n### Feedback 1:\n{stop}<|im_end|>]")
    );
}

#[test]
fn a_repair_is_a_conversation() {
    let header = "<|im_start|>assistant\n";
    let verdict = "<|im_start|>user\nThe program is wrong. Repair it.<|im_end|>\n";
    assert_eq!(
        first("self_debug", &[])[0],
        format!("{ASKED}3 or so<|im_end|>\n{verdict}{header}[2<|im_end|>\n]")
    );
    assert_eq!(
        first("self_debug", &["self_debug.learned=programs"])[0],
        format!("{ASKED}[3 or so<|im_end|>\n]{verdict}{header}[2<|im_end|>\n]")
    );
    let all = first("self_debug", &["self_debug.learned=all_but_task"])[0].clone();
    assert!(
        all.ends_with("<|im_start|>user\nThe program is right.<|im_end|>\n]"),
        "{all}"
    );
    let plain = Case::on(model(1, None), "self_debug", SOLUTIONS, &[]);
    assert_eq!(
        said(&plain)[0],
        "\n\nHuman: 1+1?<|im_end|>3 or so<|im_end|>The program is wrong. Repair it.<|im_end|>[2<|im_end|>]The program is right.<|im_end|>"
    );
}

#[test]
fn edits_are_written_with_the_tokens_that_are_named() {
    let tokens = "edit_tokens=[\"|\",\"I\",\"D\",\"R\",\":\",\"=\",\"Z\",\"A\",\"B\",\"C\",\"E\",\"F\",\"G\",\"H\",\"J\",\"K\"]";
    let row = r#"{"prompt": "q", "answers": ["cat", "cut"], "rewards": [0, 1]}"#;
    let case = Case::new(
        "second_thoughts",
        row,
        &[tokens, "second_thoughts.replace=1"],
    );
    let asked = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(
        said(&case),
        [
            // replace at 1 by "u"
            format!("{asked}cat|[RA:u=cut<|im_end|>]"),
            format!("{asked}cut|[=cut<|im_end|>]"),
        ]
    );
    // by default, characters that no text has
    let [_, none] = said(&Case::new("second_thoughts", row, &[]))
        .try_into()
        .unwrap();
    assert_eq!(none, format!("{asked}cut\u{0}[\u{5}cut<|im_end|>]"));
}

#[test]
fn an_answer_ends_as_the_template_ends_it() {
    // the token after an answer is the model's own, not the end of a plain text
    let case = Case::on(
        model(1, Some(&CHAT.replace("<|im_end|>", "<|im_start|>"))),
        "conditional_sft",
        SOLUTIONS,
        &[],
    );
    let path = case.model.path().join("generation_config.json");
    std::fs::write(path, r#"{"eos_token_id": [257, 256]}"#).unwrap();
    let rows = said(&case);
    assert!(rows[0].ends_with("[2<|im_start|>]"), "{}", rows[0]);
}

#[test]
fn long_rows_are_cut_or_dropped_and_counted() {
    let case = Case::new("pro", LISTS, &["max_length=40"]);
    let prepared = case.prepared().unwrap();
    // the prompt with the system turn alone has 40 tokens
    assert_eq!((prepared.report.rows, prepared.report.kept), (3, 2));
    assert_eq!(prepared.report.long_prompts, 1);
    assert_eq!(
        (prepared.report.cut, prepared.report.tokens_cut),
        (2, 3 + 2)
    );
    // the repairs of the first question have 128 and 130 tokens; without them its answers are left out too
    let case = Case::new("selfee", SOLUTIONS, &["max_length=124"]);
    let prepared = case.prepared().unwrap();
    assert_eq!((prepared.report.long_texts, prepared.train.len()), (2, 7));
    assert_eq!((prepared.report.rows, prepared.report.kept), (4, 3));
    let sets = ["max_length=124", "truncation=keep_end"];
    let prepared = Case::new("selfee", SOLUTIONS, &sets).prepared().unwrap();
    assert_eq!((prepared.report.long_texts, prepared.train.len()), (0, 11));
    assert_eq!(
        (prepared.report.cut, prepared.report.tokens_cut),
        (2, 4 + 6)
    );
    // a reward model never cuts
    let case = Case::new("reward", LISTS, &["max_length=42"]);
    let prepared = case.prepared().unwrap();
    assert_eq!(
        (prepared.report.long_sides, prepared.report.kept),
        (1 + 4, 2)
    );
    let Objective::Scores(all) = prepared.train else {
        panic!("no scores");
    };
    assert_eq!(all.rows[0].rewards, [1.0, 0.1]);
}
