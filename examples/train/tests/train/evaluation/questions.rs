//! Rows of public benchmarks, and rows that could mean two things.

use train::data::json::object;
use train::evaluation::question::Question;

fn read(row: &str) -> Result<Question, String> {
    Question::read(&object(row).unwrap())
}

#[track_caller]
fn says(row: &str, problem: &str) {
    let error = read(row).err().unwrap_or_default();
    assert!(error.contains(problem), "{problem}: {error}");
}

#[test]
fn the_rows_of_public_benchmarks_are_read() {
    let expected = |text: &str, choices: &[&str], answer, continued| Question {
        text: text.to_string(),
        choices: choices.iter().map(|choice| choice.to_string()).collect(),
        answer,
        continued,
    };
    let four = ["a", "b", "c", "d d"];
    for (row, question) in [
        // MMLU
        (
            r#"{"question": "Q", "subject": "s", "choices": ["a", "b", "c", " d d"], "answer": 3}"#,
            expected("Q", &four, 3, false),
        ),
        (
            r#"{"question": "Q", "choices": ["a", "b", "c", "d d"], "answer": "C"}"#,
            expected("Q", &four, 2, false),
        ),
        // ARC; some of its labels are numbers from 1 on
        (
            r#"{"id": "x", "question": "Q", "choices": {"text": ["a", "b", "c", "d d"], "label": ["1", "2", "3", "4"]}, "answerKey": "1"}"#,
            expected("Q", &four, 0, false),
        ),
        (
            r#"{"question": "Q", "choices": {"label": ["A", "B"], "text": ["a", "b"]}, "answerKey": "B"}"#,
            expected("Q", &["a", "b"], 1, false),
        ),
        // HellaSwag
        (
            r#"{"ind": 1, "ctx_a": "Q", "ctx_b": "x", "ctx": "Q x", "endings": ["a", "b", "c", "d d"], "source_id": "s", "split": "val", "split_type": "indomain", "label": "2"}"#,
            expected("Q x", &four, 2, true),
        ),
        // PIQA
        (
            r#"{"goal": "Q", "sol1": "a", "sol2": "b", "label": 1}"#,
            expected("Q", &["a", "b"], 1, false),
        ),
        (
            r#"{"query": "Q", "choices": ["b", "0"], "gold": "0", "label": null}"#,
            // the text of choice 1
            expected("Q", &[], 0, false),
        ),
        (
            r#"{"query": "Q", "choices": ["b", "0"], "gold": 0}"#,
            expected("Q", &["b", "0"], 0, false),
        ),
    ] {
        match question.choices.is_empty() {
            true => says(
                row,
                "`gold` is \"0\", which names choice 0, counted from 0, and is the text of choice 1; say the index \
                 as a number",
            ),
            false => assert_eq!(read(row).unwrap(), question, "{row}"),
        }
    }
}

#[test]
fn a_row_that_does_not_say_its_answer_is_refused_by_the_field() {
    let of = |answer: &str| format!(r#"{{"question": "Q", "choices": ["a", "b"], {answer}}}"#);
    for (answer, problem) in [
        (r#""x": 1"#, "`x` is not read in a question with choices"),
        (
            r#""id": 1"#,
            "`answer` or `label` or `gold` or `answerKey` is missing",
        ),
        (
            r#""label": """#,
            "`answer` or `label` or `gold` or `answerKey` is missing",
        ),
        (
            r#""answer": 2"#,
            "`answer` must be an index from 0 to 1, or a letter from A to B, found 2",
        ),
        (r#""answer": "C""#, "or a letter from A to B, found \"C\""),
        (r#""answer": "a""#, "or a letter from A to B, found \"a\""),
        (r#""answer": -1"#, "found -1"),
        (r#""answer": 0.5"#, "found 0.5"),
        (r#""answer": "+1""#, "found \"+1\""),
        (
            r#""answer": true"#,
            "`answer` must be a text, found true or false",
        ),
        (
            r#""answer": 0, "label": 1"#,
            "has `answer` and `label`, and one of them is read",
        ),
        (r#""answer": 0, "sol2": "c""#, "has `sol2` without `sol1`"),
        (
            r#""answer": 0, "endings": ["c", "d"]"#,
            "has `choices` and `endings`",
        ),
        (r#""answer": 0, "goal": "R""#, "has `question` and `goal`"),
    ] {
        says(&of(answer), problem);
    }
    let labeled = |choices: &str, key: &str| {
        format!(r#"{{"question": "Q", "choices": {choices}, "answerKey": {key}}}"#)
    };
    for (choices, key, problem) in [
        (
            r#"{"text": ["a", "b"], "label": ["A", "B"]}"#,
            r#""C""#,
            "`answerKey` is `C`, which is none of the labels `A`, `B`",
        ),
        (
            r#"{"text": ["a", "b"], "label": ["A", "A"]}"#,
            r#""A""#,
            "`choices.label` has `A` twice",
        ),
        (
            r#"{"text": ["a", "b"], "label": ["A"]}"#,
            r#""A""#,
            "`choices` has 1 labels for 2 texts",
        ),
        (
            r#"{"text": ["a", "b"], "label": ["A", "B"], "more": 1}"#,
            r#""A""#,
            "`choices.more` is not read in choices with labels",
        ),
        (r#"["a"]"#, "0", "`choices` has 1 choice"),
        (r#"["a", " "]"#, "0", "`choices[1]` is blank"),
        (
            r#"["a", 1]"#,
            "0",
            "`choices[1]` must be a text, found a number",
        ),
        (
            r#""a""#,
            "0",
            "`choices` must be a list of texts, found a text",
        ),
    ] {
        says(&labeled(choices, key), problem);
    }
    says(
        r#"{"question": " ", "choices": ["a", "b"], "answer": 0}"#,
        "`question` is blank",
    );
    says(
        r#"{"choices": ["a", "b"], "answer": 0}"#,
        "`question` or `query` or `goal` or `ctx` is missing",
    );
    says(
        r#"{"goal": "Q", "sol1": "a", "label": 0}"#,
        "`sol2` is missing",
    );
    says(
        r#"{"goal": "Q", "label": 0}"#,
        "`choices` or `endings` or `sol1` is missing",
    );
}
