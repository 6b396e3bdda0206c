//! The texts that the language objectives write, row by row, and the probes of their evaluation.

use candle_align::language::chain_of_hindsight::{HindsightFeedback, HindsightOrder};
use candle_align::language::conditional_sft::{CRlftConfig, ClassWeighting};
use candle_align::language::revision::DebugLearned;
use candle_align::{Sequence, TokenLogProbs};
use candle_core::{DType, Device, Tensor};
use rand::SeedableRng;
use rand::rngs::StdRng;
use train::batch::{BOS, Batch, EOS, Example, VOCABULARY};
use train::data::{Answer, Item};
use train::model::Model;
use train::objectives::language::{lessons, opinion, probes};
use train::objectives::{Objective, Task, counted, forward};
use train::settings::Settings;

/// f32 sums of a few tokens.
const ROUNDING: f64 = 1e-4;

const PROMPT: &str = "\n\nHuman: Q\n\nAssistant: ";

fn item(answers: &[(&str, f64)]) -> Item {
    let answers = answers.iter().map(|(text, r)| Answer::new(text, *r));
    Item::new(PROMPT.to_string(), answers.collect())
}

fn three() -> Item {
    item(&[("bad", 0.0), ("good", 1.0), ("fine", 1.0)])
}

fn small(objective: Objective) -> Settings {
    Settings {
        objective,
        width: 16,
        layers: 1,
        heads: 2,
        max_len: 256,
        ..Settings::default()
    }
}

fn task<'a>(settings: &'a Settings, item: &Item) -> Task<'a> {
    let objective = settings.objective;
    Task {
        objective,
        shape: objective.shape(settings, std::slice::from_ref(item)),
        settings,
    }
}

/// A row as text: covered parts in ⟦ ⟧, ^ at the start, $ at the end, edit tokens {0} to {15}.
fn text(row: &Sequence) -> String {
    let mut bytes = Vec::new();
    let mut learned = 0;
    for (&token, &mask) in row.tokens().iter().zip(row.mask()) {
        if mask != learned {
            bytes.extend(if mask == 1 { "⟦" } else { "⟧" }.bytes());
            learned = mask;
        }
        match token {
            BOS => bytes.push(b'^'),
            EOS => bytes.push(b'$'),
            byte if byte < 256 => bytes.push(byte as u8),
            other => bytes.extend(format!("{{{}}}", other as usize - VOCABULARY).bytes()),
        }
    }
    if learned == 1 {
        bytes.extend("⟧".bytes());
    }
    String::from_utf8(bytes).unwrap().replace("\n\n", "¶")
}

fn rows(examples: &[Option<Example>]) -> Vec<String> {
    let all = examples.iter().flatten();
    all.flat_map(|example| example.rows.iter().map(text))
        .collect()
}

fn written(settings: &Settings, item: &Item) -> Vec<String> {
    let rng = &mut StdRng::seed_from_u64(0);
    rows(&lessons(&task(settings, item), item, rng).unwrap())
}

fn asked(settings: &Settings, item: &Item) -> Vec<String> {
    rows(&probes(&task(settings, item), item).unwrap())
}

#[test]
fn the_best_answers_are_good_and_the_others_bad() {
    for objective in [Objective::ConditionalSft, Objective::CRlft] {
        let settings = small(objective);
        let expected = [
            "^¶Human: Q$¶Assistant good: ⟦good$⟧",
            "^¶Human: Q$¶Assistant good: ⟦fine$⟧",
            "^¶Human: Q$¶Assistant bad: ⟦bad$⟧",
        ];
        assert_eq!(written(&settings, &three()), expected);
        let expected = [
            "^¶Human: Q$¶Assistant good: ⟦good$⟧",
            "^¶Human: Q$¶Assistant bad: ⟦good$⟧",
            "^¶Human: Q$¶Assistant good: ⟦fine$⟧",
            "^¶Human: Q$¶Assistant bad: ⟦fine$⟧",
            "^¶Human: Q$¶Assistant good: ⟦bad$⟧",
            "^¶Human: Q$¶Assistant bad: ⟦bad$⟧",
        ];
        assert_eq!(asked(&settings, &three()), expected);
    }
}

#[test]
fn a_label_is_the_class_of_its_answer_and_a_wrong_one_is_not_asked_about_as_best() {
    for objective in [Objective::ConditionalSft, Objective::CRlft] {
        let settings = small(objective);
        let labeled = |reward| {
            let mut labeled = item(&[("answer", reward)]);
            labeled.judged = true;
            labeled
        };
        let (right, wrong) = (labeled(1.0), labeled(0.0));
        let good = "^¶Human: Q$¶Assistant good: ⟦answer$⟧";
        let bad = "^¶Human: Q$¶Assistant bad: ⟦answer$⟧";
        assert_eq!(written(&settings, &right), [good]);
        assert_eq!(written(&settings, &wrong), [bad]);
        assert_eq!(asked(&settings, &right), [good, bad]);
        assert_eq!(asked(&settings, &wrong), Vec::<String>::new());
    }
}

#[test]
fn hindsight_writes_every_pair_in_every_order() {
    let mut settings = small(Objective::ChainOfHindsight);
    settings.chain_of_hindsight.feedback = vec![HindsightFeedback {
        good: "+".to_string(),
        bad: "-".to_string(),
    }];
    let expected = [
        "^¶Human: Q¶Assistant: +⟦good$⟧-⟦bad$⟧",
        "^¶Human: Q¶Assistant: -⟦bad$⟧+⟦good$⟧",
        "^¶Human: Q¶Assistant: +⟦fine$⟧-⟦bad$⟧",
        "^¶Human: Q¶Assistant: -⟦bad$⟧+⟦fine$⟧",
    ];
    assert_eq!(written(&settings, &three()), expected);
    let pair = item(&[("y", 1.0), ("n", 0.0)]);
    let expected = [
        "^¶Human: Q¶Assistant: +⟦y$⟧",
        "^¶Human: Q¶Assistant: -⟦y$⟧",
        "^¶Human: Q¶Assistant: +⟦n$⟧",
        "^¶Human: Q¶Assistant: -⟦n$⟧",
    ];
    assert_eq!(asked(&settings, &pair), expected);

    settings.chain_of_hindsight.orders = vec![HindsightOrder::GoodOnly];
    assert_eq!(written(&settings, &pair), ["^¶Human: Q¶Assistant: +⟦y$⟧"]);

    // wordings are random: a dozen rows do not all have the same one
    let settings = small(Objective::ChainOfHindsight);
    let many = item(&[("a", 0.0), ("b", 1.0), ("c", 2.0), ("d", 3.0)]);
    let found = written(&settings, &many);
    assert_eq!(found.len(), 12);
    let strong = found.iter().filter(|row| row.contains("strong")).count();
    assert!(strong < 12, "{found:?}");
}

#[test]
fn second_thoughts_edits_towards_the_nearest_best_answer() {
    let settings = small(Objective::SecondThoughts);
    let list = item(&[("is 4", 0.0), ("some 5", 1.0), ("is 5", 1.0)]);
    let expected = [
        // replaces token 3 by a 5
        "^¶Human: Q¶Assistant: is 4{0}⟦{3}{9}{4}5{5}is 5$⟧",
        // the best ones are kept
        "^¶Human: Q¶Assistant: some 5{0}⟦{5}some 5$⟧",
        "^¶Human: Q¶Assistant: is 5{0}⟦{5}is 5$⟧",
    ];
    assert_eq!(written(&settings, &list), expected);
    let expected = [
        "^¶Human: Q¶Assistant: some 5{0}⟦{5}⟧",
        "^¶Human: Q¶Assistant: is 5{0}⟦{5}⟧",
        "^¶Human: Q¶Assistant: is 4{0}⟦{5}⟧",
    ];
    assert_eq!(asked(&settings, &list), expected);
    assert_eq!(Objective::SecondThoughts.vocabulary(), VOCABULARY + 16);
}

#[test]
fn selfee_revises_a_worse_answer_and_lets_the_best_stand() {
    let mut settings = small(Objective::Selfee);
    settings.selfee.feedback = "|f{number}:".to_string();
    settings.selfee.revision = "|y{number}:".to_string();
    let pair = item(&[("y", 1.0), ("n", 0.0)]);
    let expected = [
        "^¶Human: Q¶Assistant: ⟦n|f1:Revision is needed.|y1:y|f2:Revision is not needed.$⟧",
        "^¶Human: Q¶Assistant: ⟦y|f1:Revision is not needed.$⟧",
    ];
    assert_eq!(written(&settings, &pair), expected);
    // where the repair is too long, no answer is used alone
    settings.max_len = 80;
    let too_long = item(&[("y", 1.0), ("n".repeat(60).as_str(), 0.0)]);
    assert_eq!(written(&settings, &too_long), Vec::<String>::new());
    settings.max_len = 256;
    let expected = [
        "^¶Human: Q¶Assistant: ⟦y|f1:Revision is not needed.$⟧",
        "^¶Human: Q¶Assistant: ⟦y|f1:Revision is needed.⟧",
        "^¶Human: Q¶Assistant: ⟦n|f1:Revision is not needed.$⟧",
        "^¶Human: Q¶Assistant: ⟦n|f1:Revision is needed.⟧",
    ];
    assert_eq!(asked(&settings, &pair), expected);
}

#[test]
fn self_debug_repairs_a_wrong_answer_and_is_asked_whether_it_would_repeat_it() {
    let mut settings = small(Objective::SelfDebug);
    settings.self_debug.wrong = "no".to_string();
    settings.self_debug.right = "yes".to_string();
    let pair = item(&[("5", 1.0), ("4", 0.0)]);
    assert_eq!(written(&settings, &pair), ["^¶Human: Q$4$no$⟦5$⟧yes$"]);
    // whatever the loss covers, the probe is about the second solution
    settings.self_debug.learned = DebugLearned::AllButTask;
    assert_eq!(written(&settings, &pair), ["^¶Human: Q$⟦4$no$5$yes$⟧"]);
    let expected = ["^¶Human: Q$4$no$⟦5$⟧yes$", "^¶Human: Q$4$no$⟦4$⟧yes$"];
    assert_eq!(asked(&settings, &pair), expected);
}

#[test]
fn rows_too_long_lose_the_beginning_of_their_prompt_or_are_left_out() {
    let mut long = item(&[("yes", 1.0), ("no", 0.0)]);
    long.prompt = format!("\n\nHuman: {}\n\nAssistant: ", "é".repeat(100));
    for objective in [
        Objective::ConditionalSft,
        Objective::ChainOfHindsight,
        Objective::SecondThoughts,
        Objective::Selfee,
        Objective::SelfDebug,
    ] {
        let mut settings = small(objective);
        settings.max_len = 180;
        let rng = &mut StdRng::seed_from_u64(0);
        let task = task(&settings, &long);
        let mut all = lessons(&task, &long, rng).unwrap();
        all.extend(probes(&task, &long).unwrap());
        let mut cut = 0;
        for example in &all {
            let example = example.as_ref().unwrap();
            let longest = example.longest();
            // an é that does not fit removes two bytes
            assert!(longest <= 180, "{objective}: {longest}");
            cut += usize::from(longest >= 179);
            // the rows of one question see the same prompt
            let prompts = example
                .rows
                .iter()
                .map(|row| text(row).matches('é').count());
            let prompts: Vec<usize> = prompts.collect();
            assert!(prompts.iter().all(|&n| n == prompts[0]), "{prompts:?}");
            assert!((1..100).contains(&prompts[0]), "{objective}: {prompts:?}");
        }
        assert!(cut > 0, "{objective}");

        settings.max_len = 32;
        let task = self::task(&settings, &long);
        let longer = |answer: &Answer| Answer::new(&answer.text.repeat(8), answer.reward);
        let answers = long.answers.iter().map(longer).collect();
        let too_long = Item::new(long.prompt.clone(), answers);
        let found = lessons(&task, &too_long, rng).unwrap();
        assert!(found.iter().all(Option::is_none), "{objective}: {found:?}");
    }
}

fn model(settings: &Settings) -> Model {
    Model::new(settings, &mut StdRng::seed_from_u64(1)).unwrap()
}

/// log P of the covered part of one row alone, and its number of tokens.
fn alone(model: &Model, row: &Sequence) -> (f64, f64) {
    let tensor = |values: Tensor| values.unsqueeze(0).unwrap();
    let tokens = tensor(Tensor::new(row.tokens(), &Device::Cpu).unwrap());
    let mask = tensor(Tensor::new(row.mask(), &Device::Cpu).unwrap());
    let logits = model.body.forward(&tokens).unwrap().logits;
    let all = TokenLogProbs::next_token(&logits, &tokens, &mask).unwrap();
    let sum = all.sum().unwrap().to_vec1::<f32>().unwrap()[0];
    let learned = row.mask().iter().filter(|m| **m == 1).count();
    (f64::from(sum), learned as f64)
}

fn batch(examples: &[Option<Example>]) -> Batch {
    Batch::new(&examples.iter().flatten().collect::<Vec<_>>()).unwrap()
}

/// Lists of three and of two answers, so that one is padded.
fn two_items() -> [Item; 2] {
    [three(), item(&[("no", 0.0), ("indeed", 3.0)])]
}

#[test]
fn a_score_compares_good_words_with_bad_ones() {
    for objective in [
        Objective::ConditionalSft,
        Objective::ChainOfHindsight,
        Objective::Selfee,
    ] {
        let settings = small(objective);
        let model = model(&settings);
        let ask = |item: &Item| probes(&task(&settings, item), item).unwrap();
        let examples: Vec<_> = two_items().iter().flat_map(ask).collect();
        let found = opinion(&task(&settings, &three()), &model, &batch(&examples)).unwrap();
        let scores = found.scores.to_vec2::<f32>().unwrap();
        for (example, scores) in examples.iter().flatten().zip(&scores) {
            assert_eq!(example.rows.len(), 2 * example.answers.len());
            for (rows, score) in example.rows.chunks(2).zip(scores) {
                let expected = alone(&model, &rows[0]).0 - alone(&model, &rows[1]).0;
                assert!(
                    (f64::from(*score) - expected).abs() < 10.0 * ROUNDING,
                    "{objective}: {score} {expected}"
                );
            }
        }
        let Some([good, bad]) = found.best else {
            assert_eq!(objective, Objective::Selfee);
            continue;
        };
        let (good, bad) = (
            good.to_vec1::<f32>().unwrap(),
            bad.to_vec1::<f32>().unwrap(),
        );
        for (i, example) in examples.iter().flatten().enumerate() {
            for (found, row) in [(good[i], 0), (bad[i], 1)] {
                let expected = alone(&model, &example.rows[row]).0;
                assert!((f64::from(found) - expected).abs() < 10.0 * ROUNDING);
            }
        }
    }
}

#[test]
fn a_score_from_one_row_is_its_mean() {
    for objective in [Objective::SecondThoughts, Objective::SelfDebug] {
        let settings = small(objective);
        let model = model(&settings);
        let ask = |item: &Item| probes(&task(&settings, item), item).unwrap();
        let examples: Vec<_> = two_items().iter().flat_map(ask).collect();
        let task = task(&settings, &three());
        let found = opinion(&task, &model, &batch(&examples)).unwrap();
        assert!(found.best.is_none());
        let scores = found.scores.to_vec2::<f32>().unwrap();
        for (example, scores) in examples.iter().flatten().zip(&scores) {
            for (row, score) in example.rows.iter().zip(scores) {
                let (sum, count) = alone(&model, row);
                assert!((f64::from(*score) - sum / count).abs() < ROUNDING);
            }
        }
    }
}

#[test]
fn lessons_are_learned_by_cross_entropy_and_classes_by_their_weights() {
    for objective in [
        Objective::ConditionalSft,
        Objective::CRlft,
        Objective::ChainOfHindsight,
        Objective::SecondThoughts,
        Objective::Selfee,
        Objective::SelfDebug,
    ] {
        let mut settings = small(objective);
        settings.c_rlft.bad_reward = -0.5;
        settings.c_rlft.loss = CRlftConfig {
            weighting: ClassWeighting::Exponential { beta: 0.7 },
        };
        let model = model(&settings);
        let (item, rng) = (three(), &mut StdRng::seed_from_u64(2));
        let task = task(&settings, &item);
        let examples = lessons(&task, &item, rng).unwrap();
        let batch = batch(&examples);
        let out = forward(&task, &model, None, &batch).unwrap();
        assert!(out.best.is_none());
        let losses = out.loss.sum(1).unwrap().to_vec1::<f32>().unwrap();
        let counts = out.mask.to_dtype(DType::F64).unwrap().sum(1).unwrap();
        let counts = counts.to_vec1::<f64>().unwrap();
        let mut divisor = 0.0;
        for ((example, loss), count) in examples.iter().flatten().zip(losses).zip(counts) {
            let (sum, learned) = alone(&model, &example.rows[0]);
            assert_eq!(count, learned);
            let weight: f64 = match objective {
                Objective::CRlft if example.answers[0].text == "bad" => (-0.5f64 / 0.7).exp(),
                Objective::CRlft => (1.0f64 / 0.7).exp(),
                _ => 1.0,
            };
            divisor += weight * learned;
            let expected = -weight * sum;
            assert!(
                (f64::from(loss) - expected).abs() < ROUNDING * expected,
                "{objective}: {loss} {expected}"
            );
        }
        let found = counted(&task, &batch).unwrap();
        assert!((found - divisor).abs() < ROUNDING * divisor, "{objective}");
    }
}
