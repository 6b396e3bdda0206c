//! Correlations with people where there are none, and the table on the terminal.

use super::Case;
use train::evaluation::people::{inputs, levels};

#[test]
fn a_constant_side_has_no_correlation_and_says_why() {
    let found = levels(&[1.0, 2.0, 3.0], &[4.0, 4.0, 4.0], Some(&[0, 0, 1]));
    assert_eq!(found.len(), 2);
    for level in &found {
        assert_eq!(
            (level.pearson, level.spearman, level.kendall),
            (None, None, None)
        );
        assert!(level.problem.is_some(), "{level:?}");
    }
    assert_eq!(found[1].inputs, Some(0));
}

/// An input that one side finds all alike has no correlation, and is not in the mean.
#[test]
fn only_inputs_that_vary_count_within_inputs() {
    let found = levels(
        &[1.0, 2.0, 5.0, 6.0, 9.0],
        &[2.0, 1.0, 3.0, 3.0, 4.0],
        Some(&[7, 7, 8, 8, 9]),
    );
    assert_eq!(found[1].inputs, Some(1));
    assert_eq!(found[1].pearson, Some(-1.0));
    assert_eq!(found[1].problem, None);
}

#[test]
fn a_text_without_an_input_is_its_own() {
    let ids = [Some("b"), Some("a"), Some("b"), Some("a")];
    assert_eq!(inputs(ids.into_iter()), [0, 1, 0, 1]);
    assert_eq!(inputs([None, None].into_iter()), [0, 1]);
}

#[test]
fn the_terminal_shows_what_the_numbers_depend_on() {
    let rows = r#"{"question": "a", "choices": ["b", "c c"], "answer": 1}"#;
    let shown = Case::new("multiple_choice", rows, &[])
        .run()
        .unwrap()
        .to_string();
    for part in [
        "multiple_choice on ",
        "prompts    plain text",
        "1 of 1 rows",
        "\n  sum ",
        "\n  per_token ",
        "\n  per_byte ",
        "\n  unconditional ",
        "\n  a blind guess             50.0 %  2.0",
        "\n  the right choice         100.0 %  3.0",
        "evaluation.json",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let rows = "{\"prompt\": \"a\", \"answer\": \"b\", \"score\": 1}\n\
                {\"prompt\": \"a\", \"answer\": \"c\", \"score\": 2}";
    let shown = Case::new("g_eval", rows, &[]).run().unwrap().to_string();
    for part in [
        "aspect     coherence",
        "of the next token's probability is on scores; at least ",
        "over all 2 texts",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}
