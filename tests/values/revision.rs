use crate::common::words::{END, bytes, learned, text};
use candle_align::Sequence;
use candle_align::language::revision::{
    Attempt, DebugFeedback, DebugFormat, DebugLearned, DebugTurn, RevisionTemplate, Verdict,
    debug_sequence,
};

fn attempt<'a>(answer: &'a str, feedback: &'a str) -> Attempt<'a> {
    Attempt {
        answer,
        feedback,
        verdict: Verdict::of(feedback).expect("a verdict"),
    }
}

#[test]
fn the_verdict_is_read_off_the_last_of_the_two_sentences() {
    for (feedback, want) in [
        ("Fine. Revision is not needed.", Some(Verdict::Stop)),
        ("Wrong. Revision is needed.", Some(Verdict::Revise)),
        (
            "Revision is needed. Or: Revision is not needed.",
            Some(Verdict::Stop),
        ),
        (
            "Revision is not needed. Or: Revision is needed.",
            Some(Verdict::Revise),
        ),
        ("Good.", None),
        ("", None),
    ] {
        assert_eq!(Verdict::of(feedback), want, "{feedback}");
    }
    assert_eq!(Verdict::of(Verdict::STOP), Some(Verdict::Stop));
    assert_eq!(Verdict::of(Verdict::REVISE), Some(Verdict::Revise));
}

#[test]
fn a_chain_learns_everything_but_the_prompt() {
    let chain = [
        attempt("5", "Revision is needed."),
        attempt("6", "Revision is needed."),
        attempt("4", "Revision is not needed."),
    ];
    let sequence = RevisionTemplate::default().sequence(&bytes, "2+2?", &chain, END);
    let sequence = sequence.unwrap();
    let want = "5\n\n### Feedback 1:\nRevision is needed.\
                \n\n### Revision 1:\n6\n\n### Feedback 2:\nRevision is needed.\
                \n\n### Revision 2:\n4\n\n### Feedback 3:\nRevision is not needed.$";
    assert_eq!(text(&sequence), format!("2+2?{want}"));
    assert_eq!(learned(&sequence), format!("____{want}"));
}

#[test]
fn a_chain_that_was_cut_off_has_no_end() {
    let template = RevisionTemplate {
        feedback: "|{number}|".into(),
        revision: "{number}/{number}:".into(),
    };
    let chain = [attempt("5", Verdict::REVISE), attempt("6", Verdict::REVISE)];
    let one = template.sequence(&bytes, "x", &chain[..1], END).unwrap();
    assert_eq!(text(&one), "x5|1|Revision is needed.");
    let two = template.sequence(&bytes, "x", &chain, END).unwrap();
    assert_eq!(
        text(&two),
        "x5|1|Revision is needed.1/1:6|2|Revision is needed."
    );
    assert_eq!(two.mask()[0], 0);
    assert!(two.mask()[1..].iter().all(|&m| m == 1));
}

const TURNS: [DebugTurn; 3] = [
    DebugTurn {
        program: "p0",
        feedback: DebugFeedback::ExplanationAndUnitTests {
            explanation: "e0",
            results: "r0",
        },
        verdict: Verdict::Revise,
    },
    DebugTurn {
        program: "p1",
        feedback: DebugFeedback::Explanation("e1"),
        verdict: Verdict::Revise,
    },
    DebugTurn {
        program: "p2",
        feedback: DebugFeedback::UnitTests("r2"),
        verdict: Verdict::Stop,
    },
];

fn debug(turns: &[DebugTurn], learned: DebugLearned) -> Sequence {
    let format = DebugFormat {
        wrong: "no".into(),
        right: "ok".into(),
        learned,
    };
    debug_sequence(&bytes, "do", turns, &format, END).unwrap()
}

#[test]
fn what_is_learned_of_a_debugging_conversation() {
    let whole = "do$p0$e0$r0$no$p1$e1$no$p2$r2$ok$";
    for (which, want) in [
        (
            DebugLearned::LastProgram,
            "________________________p2$______",
        ),
        (DebugLearned::Revisions, "_______________p1$______p2$______"),
        (DebugLearned::Programs, "___p0$_________p1$______p2$______"),
        (
            DebugLearned::ProgramsAndExplanations,
            "___p0$e0$______p1$e1$___p2$______",
        ),
        (
            DebugLearned::AllButTask,
            "___p0$e0$r0$no$p1$e1$no$p2$r2$ok$",
        ),
    ] {
        let sequence = debug(&TURNS, which);
        assert_eq!(text(&sequence), whole);
        assert_eq!(learned(&sequence), want, "{which:?}");
    }
}

#[test]
fn simple_feedback_is_the_verdict_alone() {
    let turn = |program, verdict| DebugTurn {
        program,
        feedback: DebugFeedback::Simple,
        verdict,
    };
    let turns = [turn("a", Verdict::Revise), turn("b", Verdict::Stop)];
    let sequence = debug(&turns, DebugLearned::Revisions);
    assert_eq!(text(&sequence), "do$a$no$b$ok$");
    assert_eq!(learned(&sequence), "________b$___");
    // one program, right at once: it is what there is to learn
    let sequence = debug(&turns[1..], DebugLearned::Revisions);
    assert_eq!(learned(&sequence), "___b$___");
    // the conversation may also end before it is repaired
    let sequence = debug(&turns[..1], DebugLearned::AllButTask);
    assert_eq!(learned(&sequence), "___a$no$");
}

#[test]
fn the_default_learns_to_repair() {
    let format = DebugFormat::default();
    assert_eq!(format.learned, DebugLearned::Revisions);
    let sequence = debug_sequence(&bytes, "do", &TURNS[2..], &format, END).unwrap();
    assert_eq!(text(&sequence), "do$p2$r2$The program is right.$");
    let sequence = debug_sequence(&bytes, "do", &TURNS[1..2], &format, END).unwrap();
    assert_eq!(
        text(&sequence),
        "do$p1$e1$The program is wrong. Repair it.$"
    );
}
