use crate::common::words::{END, bytes};
use candle_align::Sequence;
use candle_align::language::revision::{
    Attempt, DebugFeedback, DebugFormat, DebugLearned, DebugTurn, RevisionTemplate, Verdict,
    debug_sequence,
};

#[test]
fn a_chain_of_one_answer_is_fine_tuning_on_the_answer_and_its_feedback() {
    let template = RevisionTemplate {
        feedback: "|".into(),
        revision: String::new(),
    };
    let only = [Attempt {
        answer: "y",
        feedback: "f",
        verdict: Verdict::Stop,
    }];
    let want = Sequence::new()
        .given(&bytes("x").unwrap())
        .learned(&bytes("y|f").unwrap())
        .learned(&[END]);
    assert_eq!(template.sequence(&bytes, "x", &only, END).unwrap(), want);
}

#[test]
fn a_longer_chain_begins_as_the_shorter_one() {
    let chain = ["a", "b", "c"].map(|answer| Attempt {
        answer,
        feedback: "f",
        verdict: Verdict::Revise,
    });
    let template = RevisionTemplate::default();
    let write = |count: usize| {
        template
            .sequence(&bytes, "x", &chain[..count], END)
            .unwrap()
    };
    for count in 1..3 {
        let (short, long) = (write(count), write(count + 1));
        assert_eq!(short.tokens(), &long.tokens()[..short.len()]);
        assert_eq!(short.mask(), &long.mask()[..short.len()]);
    }
}

#[test]
fn one_right_program_is_supervised_fine_tuning() {
    let turn = DebugTurn {
        program: "p",
        feedback: DebugFeedback::Simple,
        verdict: Verdict::Stop,
    };
    for learned in [
        DebugLearned::Programs,
        DebugLearned::Revisions,
        DebugLearned::LastProgram,
    ] {
        let format = DebugFormat {
            learned,
            ..Default::default()
        };
        let sequence = debug_sequence(&bytes, "x", &[turn], &format, END).unwrap();
        let plain = Sequence::new()
            .given(&bytes("x$").unwrap())
            .learned(&bytes("p$").unwrap());
        assert_eq!(&sequence.tokens()[..plain.len()], plain.tokens());
        assert_eq!(&sequence.mask()[..plain.len()], plain.mask());
        assert!(sequence.mask()[plain.len()..].iter().all(|&m| m == 0));
    }
}

#[test]
fn what_is_learned_grows_from_choice_to_choice() {
    let turn = |program, verdict| DebugTurn {
        program,
        feedback: DebugFeedback::ExplanationAndUnitTests {
            explanation: "e",
            results: "r",
        },
        verdict,
    };
    let turns = [
        turn("a", Verdict::Revise),
        turn("b", Verdict::Revise),
        turn("c", Verdict::Stop),
    ];
    let masks = [
        DebugLearned::LastProgram,
        DebugLearned::Revisions,
        DebugLearned::Programs,
        DebugLearned::ProgramsAndExplanations,
        DebugLearned::AllButTask,
    ]
    .map(|learned| {
        let format = DebugFormat {
            learned,
            ..Default::default()
        };
        let sequence = debug_sequence(&bytes, "x", &turns, &format, END).unwrap();
        sequence.mask().to_vec()
    });
    for two in masks.windows(2) {
        assert!(two[0].iter().zip(&two[1]).all(|(less, more)| less <= more));
        assert_ne!(two[0], two[1]);
    }
}
