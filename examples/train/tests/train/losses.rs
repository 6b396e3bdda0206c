//! Each objective's loss of a batch, against numbers computed row by row from the same model.

use candle_align::TokenLogProbs;
use candle_align::online::reward_head::RewardHead;
use candle_core::{DType, Device};
use rand::SeedableRng;
use rand::rngs::StdRng;
use support::transformer::{Config, Transformer};
use train::batch::{Batch, Example, VOCABULARY};
use train::comparisons::Shape;
use train::data::{Answer, Item};
use train::model::Model;
use train::objectives::{Objective, Outcome, RewardForm, SlicForm, Task, forward};
use train::settings::Settings;

/// f32 sums of a few tokens.
const ROUNDING: f64 = 1e-4;

fn model(seed: u64) -> Transformer {
    let config = Config {
        vocabulary: VOCABULARY,
        dim: 16,
        heads: 2,
        layers: 1,
        max_len: 32,
        feed_forward: 32,
    };
    Transformer::new(&config, DType::F32, &mut StdRng::seed_from_u64(seed)).unwrap()
}

fn example(prompt: &str, answers: &[(&str, f64)]) -> Example {
    let answers = answers.iter().map(|(text, r)| Answer::new(text, *r));
    Example::new(prompt, answers.collect())
}

fn pairs() -> Vec<Example> {
    vec![
        example("Q: ", &[("good", 1.0), ("rather bad", 0.0)]),
        example("A longer one: ", &[("yes", 1.0), ("no", 0.0)]),
    ]
}

fn lists() -> Vec<Example> {
    vec![
        example(
            "Q: ",
            &[("best", 2.0), ("middle", 1.0), ("worst of all", 0.0)],
        ),
        example("R: ", &[("yes", 1.0), ("no", 0.0)]),
    ]
}

fn items(examples: &[Example]) -> Vec<Item> {
    let item = |e: &Example| Item::new(e.prompt.clone(), e.answers.clone());
    examples.iter().map(item).collect()
}

/// log P of each answer alone, without padding, and its number of tokens.
fn log_probs(model: &Transformer, example: &Example) -> Vec<(f64, f64)> {
    let one = |answer: &Answer| {
        let alone = example_of(example, answer);
        let batch = Batch::new(&[&alone]).unwrap();
        let logits = model.forward(&batch.tokens).unwrap().logits;
        let all = TokenLogProbs::next_token(&logits, &batch.tokens, &batch.learned).unwrap();
        let sum = all.sum().unwrap().to_vec1::<f32>().unwrap()[0];
        // its bytes and its end
        (f64::from(sum), answer.text.len() as f64 + 1.0)
    };
    example.answers.iter().map(one).collect()
}

fn example_of(example: &Example, answer: &Answer) -> Example {
    Example::new(&example.prompt, vec![answer.clone()])
}

fn outcome(
    objective: Objective,
    shape: Shape,
    settings: &Settings,
    examples: &[Example],
) -> Outcome {
    let task = Task {
        objective,
        shape,
        settings,
    };
    let batch = Batch::new(&examples.iter().collect::<Vec<_>>()).unwrap();
    let plain = |body: Transformer| Model {
        body: body.into(),
        head: None,
    };
    let (model, reference) = (plain(model(1)), plain(model_reference()));
    forward(&task, &model, Some(&reference), &batch).unwrap()
}

fn model_reference() -> Transformer {
    model(2).frozen().unwrap()
}

/// The loss of each example against a formula of its answers' (log P, length).
fn check(
    objective: Objective,
    settings: &Settings,
    examples: &[Example],
    formula: impl Fn(&Example, &[(f64, f64)]) -> f64,
) {
    let shape = match examples.iter().any(|e| e.answers.len() > 2) {
        true => Shape::Lists,
        false => Shape::Pairs,
    };
    let found = outcome(objective, shape, settings, examples);
    let found = found.loss.to_vec1::<f32>().unwrap();
    for (example, found) in examples.iter().zip(found) {
        let expected = formula(example, &log_probs(&model(1), example));
        let error = (f64::from(found) - expected).abs();
        assert!(
            error < ROUNDING * expected.abs().max(1.0),
            "{objective}: {found} {expected}"
        );
    }
}

fn hinge(x: f64) -> f64 {
    x.max(0.0)
}

#[test]
fn sft_is_the_cross_entropy_of_the_best_answer_alone() {
    let found = outcome(Objective::Sft, Shape::Lists, &Settings::default(), &lists());
    let per_answer = found.loss.sum(1).unwrap().to_vec1::<f32>().unwrap();
    let counted = found.mask.to_dtype(DType::F32).unwrap().sum(1).unwrap();
    assert_eq!(counted.to_vec1::<f32>().unwrap(), [5.0, 4.0]);
    let best = found.best.unwrap().to_vec1::<f32>().unwrap();
    for ((example, loss), best) in lists().iter().zip(per_answer).zip(best) {
        let expected = log_probs(&model(1), example)[0].0;
        assert!((f64::from(loss) + expected).abs() < ROUNDING * expected.abs());
        assert!((f64::from(best) - expected).abs() < ROUNDING * expected.abs());
    }
    // the scores of all answers are mean log-probabilities
    let scores = found.scores.to_vec2::<f32>().unwrap();
    for (example, scores) in lists().iter().zip(scores) {
        for ((sum, length), score) in log_probs(&model(1), example).iter().zip(scores) {
            assert!((f64::from(score) - sum / length).abs() < ROUNDING * 10.0);
        }
    }
}

#[test]
fn dpo_compares_both_answers_with_the_reference() {
    let mut settings = Settings::default();
    settings.dpo.beta = 0.7;
    check(Objective::Dpo, &settings, &pairs(), |example, policy| {
        let reference = log_probs(&model_reference(), example);
        let reward = |i: usize| 0.7 * (policy[i].0 - reference[i].0);
        (1.0 + (reward(1) - reward(0)).exp()).ln()
    });
}

#[test]
fn slic_adds_cross_entropy_of_the_best() {
    let mut settings = Settings {
        slic_sft_weight: 0.3,
        ..Settings::default()
    };
    settings.slic.delta = 6.0;
    check(Objective::Slic, &settings, &pairs(), |_, p| {
        hinge(6.0 - p[0].0 + p[1].0) - 0.3 * p[0].0
    });

    // δ · (1 − F) of their words: no word in common with "good", and "no" has none with "yes"
    settings.slic_form = SlicForm::Margin;
    check(Objective::Slic, &settings, &pairs(), |_, p| {
        hinge(6.0 - p[0].0 + p[1].0) - 0.3 * p[0].0
    });
    // one common word, of two and three: 2 · 1 / 5
    let alike = [example("Q: ", &[("good one", 1.0), ("a bad one", 0.0)])];
    check(Objective::Slic, &settings, &alike, |_, p| {
        hinge(6.0 * (1.0 - 0.4) - p[0].0 + p[1].0) - 0.3 * p[0].0
    });

    // δ for each place in the ranking
    settings.slic_form = SlicForm::List;
    check(Objective::Slic, &settings, &lists(), |_, p| {
        let pair = |i: usize, j: usize| hinge(6.0 * (j - i) as f64 - p[i].0 + p[j].0);
        let pairs = match p.len() {
            3 => pair(0, 1) + pair(0, 2) + pair(1, 2),
            _ => pair(0, 1),
        };
        pairs - 0.3 * p[0].0
    });

    // −Σ r · share
    settings.slic_form = SlicForm::ExpectedReward;
    check(Objective::Slic, &settings, &lists(), |example, p| {
        let weight = |i: usize| (p[i].0 - p[0].0).exp();
        let total: f64 = (0..p.len()).map(weight).sum();
        let rewards = example.answers.iter().enumerate();
        let expected: f64 = rewards.map(|(i, a)| a.reward * weight(i) / total).sum();
        -expected - 0.3 * p[0].0
    });
}

/// Σ over the tokens of the first answer of KL(model 1‖reference), from the logits row by row.
fn kl_of_best(example: &Example) -> f64 {
    let alone = example_of(example, &example.answers[0]);
    let batch = Batch::new(&[&alone]).unwrap();
    let next = |model: &Transformer| -> Vec<Vec<f64>> {
        let logits = model.forward(&batch.tokens).unwrap().logits;
        let logits = logits.to_vec3::<f32>().unwrap().remove(0);
        let p = |row: &Vec<f32>| {
            let odds: Vec<f64> = row.iter().map(|x| f64::from(*x).exp()).collect();
            let total: f64 = odds.iter().sum();
            odds.iter().map(|o| o / total).collect()
        };
        logits.iter().map(p).collect()
    };
    let (policy, reference) = (next(&model(1)), next(&model_reference()));
    let learned = batch.learned.to_vec2::<u8>().unwrap().remove(0);
    let of = |t: usize| -> f64 {
        let both = policy[t].iter().zip(&reference[t]);
        both.map(|(p, q)| p * (p / q).ln()).sum()
    };
    // position t predicts token t + 1
    let counted = (0..learned.len() - 1).filter(|t| learned[t + 1] == 1);
    counted.map(of).sum()
}

#[test]
fn slic_adds_the_kl_on_the_best() {
    let mut settings = Settings {
        slic_sft_weight: 0.3,
        slic_kl_weight: 2.5,
        ..Settings::default()
    };
    assert!(kl_of_best(&pairs()[0]) > 0.1);
    check(Objective::Slic, &settings, &pairs(), |example, p| {
        hinge(1.0 - p[0].0 + p[1].0) - 0.3 * p[0].0 + 2.5 * kl_of_best(example)
    });
    settings.slic_form = SlicForm::List;
    check(Objective::Slic, &settings, &lists(), |example, p| {
        let pair = |i: usize, j: usize| hinge((j - i) as f64 - p[i].0 + p[j].0);
        let pairs = match p.len() {
            3 => pair(0, 1) + pair(0, 2) + pair(1, 2),
            _ => pair(0, 1),
        };
        pairs - 0.3 * p[0].0 + 2.5 * kl_of_best(example)
    });
}

#[test]
fn rrhf_and_pro_rank_by_mean_log_probabilities() {
    let settings = Settings::default();
    check(Objective::Rrhf, &settings, &lists(), |_, p| {
        let mean = |i: usize| p[i].0 / p[i].1;
        let pair = |i: usize, j: usize| hinge(mean(j) - mean(i));
        let pairs = match p.len() {
            3 => pair(0, 1) + pair(0, 2) + pair(1, 2),
            _ => pair(0, 1),
        };
        pairs - p[0].0
    });
    // two answers one reward apart: −log σ of the difference, and 0.05 · (2 − 1)² of SFT
    check(Objective::Pro, &settings, &pairs(), |_, p| {
        let mean = |i: usize| p[i].0 / p[i].1;
        (1.0 + (mean(1) - mean(0)).exp()).ln() - 0.05 * p[0].0
    });
}

#[test]
fn brio_leads_by_place_and_keeps_to_the_best_answer() {
    let mut settings = Settings::default();
    settings.brio.margin = 0.5;
    settings.brio.rank_weight = 3.0;
    settings.brio.length_power = 0.5;
    let score = |p: &[(f64, f64)], i: usize| p[i].0 / p[i].1.powf(0.5);
    check(Objective::Brio, &settings, &lists(), |_, p| {
        let pair = |i: usize, j: usize| hinge(score(p, j) - score(p, i) + 0.5 * (j - i) as f64);
        let pairs = match p.len() {
            3 => pair(0, 1) + pair(0, 2) + pair(1, 2),
            _ => pair(0, 1),
        };
        3.0 * pairs - p[0].0
    });
    let found = outcome(Objective::Brio, Shape::Lists, &settings, &lists());
    let scores = found.scores.to_vec2::<f32>().unwrap();
    for (example, scores) in lists().iter().zip(scores) {
        let p = log_probs(&model(1), example);
        for (i, found) in scores.iter().take(p.len()).enumerate() {
            assert!((f64::from(*found) - score(&p, i)).abs() < ROUNDING * 10.0);
        }
    }
}

#[test]
fn expected_risk_is_the_mean_cost_under_its_own_shares() {
    let mut settings = Settings::default();
    settings.expected_risk.token_weight = 0.25;
    check(
        Objective::ExpectedRisk,
        &settings,
        &lists(),
        |example, p| {
            let weight = |i: usize| (p[i].0 / p[i].1).exp();
            let total: f64 = (0..p.len()).map(weight).sum();
            let costs = example.answers.iter().map(|answer| 1.0 - answer.reward);
            let risk: f64 = costs.enumerate().map(|(i, c)| c * weight(i) / total).sum();
            0.75 * risk - 0.25 * p[0].0
        },
    );
}

#[test]
fn stable_alignment_asks_for_a_lead_by_the_ratings() {
    let mut settings = Settings::default();
    settings.stable_alignment.margin = 2.0;
    settings.stable_alignment.rating_scale = 4.0;
    settings.stable_alignment.ratio = 0.3;
    check(
        Objective::StableAlignment,
        &settings,
        &lists(),
        |example, p| {
            let entropy = |i: usize| -p[i].0 / p[i].1;
            let reward = |i: usize| example.answers[i].reward;
            let term = |i| entropy(0) - entropy(i) + (reward(0) - reward(i)) * 2.0 / 4.0;
            let worse = 1..p.len();
            let mean = worse.clone().map(term).sum::<f64>() / worse.len() as f64;
            entropy(0) + 0.3 * hinge(mean)
        },
    );
}

#[test]
fn a_reward_model_reads_the_end_of_each_answer() {
    let mut rng = StdRng::seed_from_u64(5);
    let model = Model {
        body: model(1).into(),
        head: Some(RewardHead::new(16, &mut rng, DType::F32, &Device::Cpu).unwrap()),
    };
    // the score of an answer alone, whose last position is known
    let head = model
        .head
        .as_ref()
        .unwrap()
        .weight()
        .to_vec2::<f32>()
        .unwrap();
    let score = |example: &Example, answer: &Answer| -> f64 {
        let batch = Batch::new(&[&example_of(example, answer)]).unwrap();
        let hidden = model.body.hidden(&batch.tokens).unwrap();
        let hidden = hidden.to_vec3::<f32>().unwrap();
        let last = hidden[0].last().unwrap();
        last.iter()
            .zip(&head[0])
            .map(|(h, w)| f64::from(h * w))
            .sum()
    };
    for (form, shape, examples) in [
        (RewardForm::Pairs, Shape::Pairs, pairs()),
        (RewardForm::Pairs, Shape::Lists, lists()),
        (RewardForm::ChooseBest, Shape::Lists, lists()),
        (RewardForm::PlackettLuce, Shape::Lists, lists()),
    ] {
        let settings = Settings {
            reward_form: form,
            ..Settings::default()
        };
        assert_eq!(Objective::Reward.shape(&settings, &items(&examples)), shape);
        let task = Task {
            objective: Objective::Reward,
            shape,
            settings: &settings,
        };
        let batch = Batch::new(&examples.iter().collect::<Vec<_>>()).unwrap();
        let found = forward(&task, &model, None, &batch).unwrap();
        assert!(found.best.is_none());
        let losses = found.loss.to_vec1::<f32>().unwrap();
        for (example, loss) in examples.iter().zip(losses) {
            let scores: Vec<f64> = example.answers.iter().map(|a| score(example, a)).collect();
            let pair = |i: usize, j: usize| (1.0 + (scores[j] - scores[i]).exp()).ln();
            let total: f64 = scores.iter().map(|s| s.exp()).sum();
            let best_of_all = total.ln() - scores[0];
            let expected = match (scores.len(), form) {
                (2, _) => pair(0, 1),
                (_, RewardForm::Pairs) => (pair(0, 1) + pair(0, 2) + pair(1, 2)) / 3.0,
                (_, RewardForm::ChooseBest) => best_of_all,
                (_, RewardForm::PlackettLuce) => best_of_all + pair(1, 2),
            };
            assert!(
                (f64::from(loss) - expected).abs() < ROUNDING,
                "{form:?}: {loss} {expected}"
            );
        }
    }
}
