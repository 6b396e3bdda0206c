use crate::common::words::{END, bytes};
use candle_align::language::revision::{
    Attempt, DebugFeedback, DebugFormat, DebugLearned, DebugTurn, RevisionTemplate, Verdict,
    debug_sequence,
};

fn attempt<'a>(answer: &'a str, feedback: &'a str, verdict: Verdict) -> Attempt<'a> {
    Attempt {
        answer,
        feedback,
        verdict,
    }
}

#[test]
fn chains_that_do_not_hold_together() {
    let message = |prompt: &str, chain: &[Attempt]| {
        let error = RevisionTemplate::default().sequence(&bytes, prompt, chain, END);
        error.unwrap_err().to_string()
    };
    let (good, more) = (
        attempt("y", "f", Verdict::Stop),
        attempt("y", "f", Verdict::Revise),
    );
    let of = |problem: &str| format!("RevisionTemplate::sequence: {problem}");
    assert_eq!(message("x", &[]), of("`attempts` is empty"));
    assert_eq!(
        message("x", &[more, good, more]),
        of("`attempts[1].verdict` is Stop, but the chain goes on")
    );
    assert_eq!(message("", &[good]), of("`prompt` has no token"));
    assert_eq!(
        message("x", &[more, attempt("", "f", Verdict::Stop)]),
        of("`attempts[1].answer` has no token")
    );
    assert_eq!(
        message("x", &[attempt("y", "", Verdict::Stop)]),
        of("`attempts[0].feedback` has no token")
    );
}

fn turn<'a>(program: &'a str, feedback: DebugFeedback<'a>) -> DebugTurn<'a> {
    DebugTurn {
        program,
        feedback,
        verdict: Verdict::Revise,
    }
}

#[test]
fn conversations_that_do_not_hold_together() {
    let message = |task: &str, turns: &[DebugTurn], format: &DebugFormat| {
        let error = debug_sequence(&bytes, task, turns, format, END);
        error.unwrap_err().to_string()
    };
    let plain = DebugFormat::default();
    let of = |problem: &str| format!("debug_sequence: {problem}");
    let good = turn("p", DebugFeedback::Simple);
    assert_eq!(message("x", &[], &plain), of("`turns` is empty"));
    let stopped = DebugTurn {
        verdict: Verdict::Stop,
        ..good
    };
    assert_eq!(
        message("x", &[stopped, good], &plain),
        of("`turns[0].verdict` is Stop, but the chain goes on")
    );
    for (task, bad, name) in [
        ("", good, "task"),
        ("x", turn("", DebugFeedback::Simple), "turns[1].program"),
        (
            "x",
            turn("p", DebugFeedback::UnitTests("")),
            "turns[1].feedback.results",
        ),
        (
            "x",
            turn("p", DebugFeedback::Explanation("")),
            "turns[1].feedback.explanation",
        ),
    ] {
        let found = message(task, &[good, bad], &plain);
        assert_eq!(found, of(&format!("`{name}` has no token")));
    }
    let mute = DebugFormat {
        wrong: String::new(),
        right: String::new(),
        learned: DebugLearned::Programs,
    };
    assert_eq!(
        message("x", &[good], &mute),
        of("`format.wrong` has no token")
    );
    assert_eq!(
        message("x", &[stopped], &mute),
        of("`format.right` has no token")
    );
}

#[test]
fn settings_that_do_not_exist_are_refused() {
    let error = serde_json::from_str::<RevisionTemplate>(r#"{"answer": ""}"#).unwrap_err();
    assert!(
        error.to_string().starts_with("unknown field `answer`"),
        "{error}"
    );
    let error = serde_json::from_str::<DebugFormat>(r#"{"learnt": ""}"#).unwrap_err();
    assert!(
        error.to_string().starts_with("unknown field `learnt`"),
        "{error}"
    );
    let format: DebugFormat = serde_json::from_str(r#"{"learned": "all_but_task"}"#).unwrap();
    assert_eq!(format.learned, DebugLearned::AllButTask);
}
