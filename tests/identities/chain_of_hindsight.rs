use crate::common::words::{END, bytes};
use crate::common::{EXACT, assert_close, bits, matrix, numbers};
use candle_align::language::LearnedAnswers;
use candle_align::language::chain_of_hindsight::{
    HindsightFeedback, HindsightFormat, HindsightOrder, HindsightPair, hindsight_prompt,
    hindsight_sequence,
};
use candle_align::language::conditional_sft::{ClassPrompt, Turn};
use candle_align::{
    HindsightConfig, PtxConfig, Reduction, Sequence, SftConfig, TokenLogProbs,
    chain_of_hindsight_loss, ptx_loss, sft_loss,
};
use candle_core::Var;

const PAIR: HindsightPair = HindsightPair {
    prompt: "why?",
    good: "because",
    bad: "dunno",
};

fn write(feedback: &HindsightFeedback, order: HindsightOrder, learned: LearnedAnswers) -> Sequence {
    let format = HindsightFormat {
        feedback: feedback.clone(),
        order,
        learned,
    };
    hindsight_sequence(&bytes, &PAIR, &format, END).unwrap()
}

fn values(rows: &[&[f64]]) -> Var {
    Var::from_tensor(&matrix(rows)).unwrap()
}

#[test]
fn it_is_supervised_fine_tuning_on_both_texts() {
    let (x, y) = (values(&[&[-1.0, -2.0, -0.5]]), values(&[&[-3.0], &[-0.25]]));
    let hindsight = TokenLogProbs::new(&x, &bits(&[&[0, 1, 1]])).unwrap();
    let text = TokenLogProbs::new(&y, &bits(&[&[1], &[1]])).unwrap();
    let config = HindsightConfig {
        pretraining_weight: Some(0.7),
    };
    let out = chain_of_hindsight_loss(&hindsight, Some(&text), &config).unwrap();

    let sft = |l: &TokenLogProbs| sft_loss(l, None, &SftConfig::default()).unwrap();
    assert_eq!(numbers(&out.hindsight.loss), numbers(&sft(&hindsight).loss));
    // the second term is the pretraining term of PPO-ptx
    let ptx = ptx_loss(&text, &PtxConfig { gamma: 0.7 }).unwrap();
    let pretraining = out.pretraining.as_ref().unwrap();
    assert_close(
        &numbers(&pretraining.loss),
        &numbers(&ptx.loss),
        EXACT,
        "ptx",
    );

    let grads = out.reduce(Reduction::Sum).unwrap().backward().unwrap();
    assert_close(
        &numbers(grads.get(&x).unwrap()),
        &[0.0, -1.0, -1.0],
        EXACT,
        "answers",
    );
    assert_close(&numbers(grads.get(&y).unwrap()), &[-0.7; 2], EXACT, "text");
}

#[test]
fn without_text_or_without_weight_the_answers_are_left() {
    let x = values(&[&[-1.0, -2.0, -0.5]]);
    let hindsight = TokenLogProbs::new(&x, &bits(&[&[0, 1, 1]])).unwrap();
    let reduced = |text, pretraining_weight| {
        let config = HindsightConfig { pretraining_weight };
        let out = chain_of_hindsight_loss(&hindsight, text, &config).unwrap();
        numbers(&out.reduce(Reduction::TokenMean).unwrap())
    };
    // the default has nothing to weigh without a text
    assert_eq!(reduced(None, None), [1.25]);
    assert_eq!(reduced(None, Some(0.0)), [1.25]);
    assert_eq!(reduced(Some(&hindsight), Some(0.0)), [1.25]);
    assert_eq!(reduced(Some(&hindsight), Some(1.0)), [2.5]);
}

#[test]
fn the_prompt_is_the_beginning_of_a_sequence_that_starts_with_the_good_answer() {
    for feedback in HindsightFeedback::all() {
        let prompt = hindsight_prompt(&bytes, PAIR.prompt, &feedback).unwrap();
        for order in [HindsightOrder::GoodThenBad, HindsightOrder::GoodOnly] {
            let sequence = write(&feedback, order, LearnedAnswers::Every);
            assert_eq!(sequence.tokens()[..prompt.len()], prompt);
            let first = sequence.mask().iter().position(|&m| m == 1);
            assert_eq!(first, Some(prompt.len()));
        }
    }
}

#[test]
fn the_first_answer_of_a_pair_stands_as_it_stands_alone() {
    let feedback = &HindsightFeedback::all()[0];
    for (pair, alone) in [
        (HindsightOrder::GoodThenBad, HindsightOrder::GoodOnly),
        (HindsightOrder::BadThenGood, HindsightOrder::BadOnly),
    ] {
        let (pair, alone) = (
            write(feedback, pair, LearnedAnswers::Every),
            write(feedback, alone, LearnedAnswers::Every),
        );
        assert_eq!(&pair.tokens()[..alone.len()], alone.tokens());
        assert_eq!(&pair.mask()[..alone.len()], alone.mask());
        // so that with the last alone learned, the two make up the whole
        let last = write(feedback, HindsightOrder::GoodThenBad, LearnedAnswers::Last);
        assert_eq!(last.tokens().len(), pair.len());
    }
}

#[test]
fn one_answer_alone_is_conditional_fine_tuning() {
    let feedback = HindsightFeedback {
        good: " good:".into(),
        bad: " bad:".into(),
    };
    for (order, prefix, answer) in [
        (HindsightOrder::GoodOnly, &feedback.good, PAIR.good),
        (HindsightOrder::BadOnly, &feedback.bad, PAIR.bad),
    ] {
        let hindsight = write(&feedback, order, LearnedAnswers::Every);
        let class = ClassPrompt {
            user: String::new(),
            assistant: prefix.clone(),
        };
        let turn = Turn {
            user: PAIR.prompt,
            assistant: answer,
        };
        let conditional = class
            .sequence(&bytes, &[turn], END, LearnedAnswers::Every)
            .unwrap();
        // OpenChat ends the question, too
        let at = PAIR.prompt.len();
        let without = |of: &[u32]| [&of[..at], &of[at + 1..]].concat();
        assert_eq!(conditional.tokens()[at], END);
        assert_eq!(without(conditional.tokens()), hindsight.tokens());
        let mask: Vec<u32> = conditional.mask().iter().map(|&m| m.into()).collect();
        let want: Vec<u32> = hindsight.mask().iter().map(|&m| m.into()).collect();
        assert_eq!(without(&mask), want);
    }
}
