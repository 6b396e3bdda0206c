//! Each loss is the library's on rows that were computed alone.

use super::{CHAT, Case, LISTS, SOLUTIONS, alone, model, near, number};
use candle_align::decoder::{Decoder, LanguageModel, Load, Mode};
use candle_align::ops::Segments;
use candle_align::{
    BrioConfig, Candidates, ExpectedRiskConfig, Pair, SlicConfig, TokenLoss, brio_loss,
    expected_risk_loss, plackett_luce_reward_loss, pro_loss, ranked_reward_loss, rrhf_loss,
    slic_expected_reward_loss, slic_list_loss, slic_margin_loss, slic_rank_loss,
    stable_alignment_loss,
};
use candle_core::{DType, Device, Tensor};
use rand::SeedableRng;
use rand::rngs::StdRng;
use train::checkpoint::objective::lists::List;
use train::checkpoint::objective::{Objective, Reference, Text};

/// The answers of `LISTS`, best first, with their rewards: written by hand.
fn lists(case: &Case) -> Vec<(Vec<Text>, Vec<f64>)> {
    let user = |said: &str| format!("<|im_start|>user\n{said}<|im_end|>\n<|im_start|>assistant\n");
    let system = "<|im_start|>system\nShort.<|im_end|>\n";
    let all: [(String, &[&str], &[f64]); 3] = [
        (
            user("Name a fruit."),
            &["An apple.", "Apples", "A stone."],
            &[2.5, 1.0, 0.1],
        ),
        (user("Hi"), &["Hello!", "Go away"], &[0.0, -1.0]),
        (
            system.to_string() + &user("Say a"),
            &["a", "an a", "b", "no"],
            &[3.0, 2.0, 0.5, 0.25],
        ),
    ];
    let text = |prompt: &str, answer: &&str| {
        case.text(&[(false, prompt), (true, &format!("{answer}<|im_end|>\n"))])
    };
    all.map(|(prompt, answers, rewards)| {
        let texts = answers.iter().map(|answer| text(&prompt, answer));
        (texts.collect(), rewards.to_vec())
    })
    .into()
}

/// The lists as one padded table, with the sums and lengths of rows that were computed alone.
fn candidates(case: &Case) -> Candidates {
    let decoder = case.decoder();
    let (mut sums, mut lengths, mut rewards, mut exists) = (vec![], vec![], vec![], vec![]);
    for (texts, own) in lists(case) {
        for i in 0..4 {
            let (sum, length) = texts
                .get(i)
                .map_or((0.0, 0.0), |text| alone(&decoder, text));
            sums.push(sum);
            lengths.push(length);
            rewards.push(own.get(i).copied().unwrap_or(0.0));
            exists.push(u8::from(i < texts.len()));
        }
    }
    let table = |values: Vec<f64>| Tensor::from_vec(values, (3, 4), &Device::Cpu).unwrap();
    let exists = Tensor::from_vec(exists, (3, 4), &Device::Cpu).unwrap();
    Candidates::new(
        &table(sums),
        &table(lengths),
        &table(rewards),
        Some(&exists),
    )
    .unwrap()
}

/// −log P of each token of the best answers, padded.
fn best(case: &Case) -> TokenLoss {
    let decoder = case.decoder();
    let (mut loss, mut mask) = (Vec::new(), Vec::new());
    let firsts: Vec<Text> = lists(case)
        .into_iter()
        .map(|(texts, _)| texts[0].clone())
        .collect();
    let time = firsts.iter().map(|text| text.ids.len()).max().unwrap();
    for text in &firsts {
        for at in 1..time {
            let covered = text.learned.get(at) == Some(&true);
            mask.push(u8::from(covered));
            loss.push(match covered {
                false => 0.0,
                true => {
                    let mut one = text.clone();
                    one.learned.fill(false);
                    one.learned[at] = true;
                    -alone(&decoder, &one).0
                }
            });
        }
    }
    let shape = (firsts.len(), time - 1);
    TokenLoss {
        loss: Tensor::from_vec(loss, shape, &Device::Cpu).unwrap(),
        mask: Tensor::from_vec(mask, shape, &Device::Cpu).unwrap(),
    }
}

fn mean(loss: &Tensor) -> f64 {
    number(&loss.mean_all().unwrap())
}

#[test]
fn lists_have_the_librarys_loss() {
    let check =
        |objective: &str, sets: &[&str], expected: &dyn Fn(&Candidates, &Case) -> Tensor| {
            let case = Case::new(objective, LISTS, sets);
            let theirs = mean(&expected(&candidates(&case), &case));
            near(
                &format!("{objective} {sets:?}"),
                case.loss(&case.objective()),
                theirs,
            );
        };
    check("pro", &[], &|all, _| {
        pro_loss(all, &Default::default()).unwrap().loss
    });
    check("rrhf", &[], &|all, _| {
        rrhf_loss(all, &Default::default()).unwrap().loss
    });
    check("stable_alignment", &[], &|all, _| {
        stable_alignment_loss(all, &Default::default())
            .unwrap()
            .loss
    });
    check("brio", &[], &|all, case| {
        brio_loss(all, Some(&best(case)), &Default::default())
            .unwrap()
            .loss
    });
    check("brio", &["brio.margin=0.5"], &|all, case| {
        let config = BrioConfig {
            margin: 0.5,
            ..BrioConfig::default()
        };
        brio_loss(all, Some(&best(case)), &config).unwrap().loss
    });
    check(
        "expected_risk",
        &["expected_risk.token_weight=0.25"],
        &|all, case| {
            let config = ExpectedRiskConfig {
                token_weight: 0.25,
                ..Default::default()
            };
            expected_risk_loss(all, Some(&best(case)), &config)
                .unwrap()
                .loss
        },
    );
    let cross_entropy = |all: &Candidates| {
        (all.sums().narrow(1, 0, 1).unwrap().squeeze(1).unwrap() * -0.5).unwrap()
    };
    check("slic", &["slic_form=list"], &|all, _| {
        let loss = slic_list_loss(all, &SlicConfig::default()).unwrap();
        (loss + cross_entropy(all)).unwrap()
    });
    check("slic", &["slic_form=expected_reward"], &|all, _| {
        (slic_expected_reward_loss(all).unwrap() + cross_entropy(all)).unwrap()
    });
}

/// The two sums of each pair of `SOLUTIONS`.
fn pairs(case: &Case) -> Pair<Tensor> {
    let decoder = case.decoder();
    let Objective::Lists(all) = case.objective() else {
        panic!("no lists");
    };
    let side = |at: usize| {
        let sum = |list: &List| alone(&decoder, &list.answers[at]).0;
        Tensor::new(all.rows.iter().map(sum).collect::<Vec<f64>>(), &Device::Cpu).unwrap()
    };
    Pair {
        chosen: side(0),
        rejected: side(1),
    }
}

#[test]
fn slic_on_pairs_has_the_librarys_loss() {
    let sets = ["slic_form=rank", "slic.delta=20", "slic_sft_weight=0.25"];
    let case = Case::new("slic", SOLUTIONS, &sets);
    let (of, config) = (pairs(&case), SlicConfig { delta: 20.0 });
    assert_eq!(of.chosen.dim(0).unwrap(), 6);
    let cross_entropy = (mean(&of.chosen)) * -0.25;
    let rank = mean(&slic_rank_loss(&of, &config).unwrap().loss);
    near("rank", case.loss(&case.objective()), rank + cross_entropy);
    // "5!" and "4?" have no word in common, nor has any other pair
    let case = Case::new(
        "slic",
        SOLUTIONS,
        &["slic_form=margin", "slic.delta=20", "slic_sft_weight=0.25"],
    );
    let alike = Pair {
        chosen: of.chosen.ones_like().unwrap(),
        rejected: of.rejected.zeros_like().unwrap(),
    };
    let margin = mean(&slic_margin_loss(&of, &alike, &config).unwrap().loss);
    near(
        "margin",
        case.loss(&case.objective()),
        margin + cross_entropy,
    );
}

#[test]
fn slics_kl_is_that_of_the_logits() {
    let sets = ["slic_form=list", "slic_kl_weight=0.5"];
    let case = Case::new("slic", LISTS, &sets);
    let objective = case.objective();
    let other = model(2, Some(CHAT));
    let load = || Decoder::load(other.path(), &Load::default()).unwrap();
    let rows = [0, 1, 2];
    let loss = |reference: Decoder| {
        let reference = Reference::Frozen(Box::new(reference));
        let window = [rows.to_vec()];
        let measured = objective.loss(&case.decoder(), &reference, &rows, &window, None);
        number(&measured.unwrap().loss)
    };
    // Σ over the best answers' tokens of Σᵥ p (log p − log q)
    let mut kl = 0.0;
    for (texts, _) in lists(&case) {
        let text = &texts[0];
        let shares = |decoder: &Decoder| {
            let (segments, tokens) = Segments::from_tokens(&[&text.ids]).unwrap();
            let hidden = decoder
                .forward(&tokens, &segments, Mode::Evaluation)
                .unwrap();
            let logits = decoder
                .logits(&hidden)
                .unwrap()
                .to_dtype(DType::F64)
                .unwrap();
            candle_nn::ops::log_softmax(&logits, 1)
                .unwrap()
                .to_vec2::<f64>()
                .unwrap()
        };
        let (own, theirs) = (shares(&case.decoder()), shares(&load()));
        for at in (1..text.ids.len()).filter(|at| text.learned[*at]) {
            let both = own[at - 1].iter().zip(&theirs[at - 1]);
            kl += both.map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
        }
    }
    let same = loss(case.decoder());
    near("kl", loss(load()) - same, 0.5 * kl / 3.0);
    assert!(kl > 1.0, "{kl}");
}

#[test]
fn texts_have_one_mean_over_their_tokens() {
    for objective in [
        "sft",
        "conditional_sft",
        "chain_of_hindsight",
        "second_thoughts",
        "selfee",
        "self_debug",
    ] {
        let case = Case::new(objective, SOLUTIONS, &[]);
        let all = case.objective();
        let Objective::Texts(texts) = &all else {
            panic!("no texts");
        };
        let decoder = case.decoder();
        let each: Vec<(f64, f64)> = texts
            .rows
            .iter()
            .map(|text| alone(&decoder, text))
            .collect();
        let sum: f64 = each.iter().map(|(sum, _)| sum).sum();
        let count: f64 = each.iter().map(|(_, count)| count).sum();
        near(objective, case.loss(&all), -sum / count);
    }
}

#[test]
fn classes_have_weights() {
    let sets = ["c_rlft.bad_reward=0.25", "c_rlft.loss.weighting=linear"];
    let case = Case::new("c_rlft", SOLUTIONS, &sets);
    let all = case.objective();
    let Objective::Answers(answers) = &all else {
        panic!("no answers");
    };
    let (mut loss, mut weight) = (0.0, 0.0);
    for answer in &answers.rows {
        let bad = case.said(&answer.text).contains("Bad answer: ");
        let (sum, count) = alone(&case.decoder(), &answer.text);
        let own = if bad { 0.25 } else { 1.0 };
        loss -= own * sum;
        weight += own * count;
    }
    assert_eq!(answers.rows.len(), 10);
    near("c_rlft", case.loss(&all), loss / weight);
}

#[test]
fn a_reward_model_scores_whole_texts() {
    let case = Case::new("reward", LISTS, &[]);
    let mut rng = StdRng::seed_from_u64(7);
    let decoder = case.decoder().into_classifier(1, &mut rng).unwrap();
    let (mut scores, mut rewards, mut exists) = (vec![], vec![], vec![]);
    for (texts, own) in lists(&case) {
        for i in 0..4 {
            scores.push(texts.get(i).map_or(0.0, |text| {
                let (segments, tokens) = Segments::from_tokens(&[&text.ids]).unwrap();
                let hidden = decoder.hidden(&tokens, &segments).unwrap();
                let score = decoder.scores(&hidden, &tokens, &segments).unwrap();
                number(&score.sum_all().unwrap())
            }));
            rewards.push(own.get(i).copied().unwrap_or(0.0));
            exists.push(u8::from(i < texts.len()));
        }
    }
    let table = |values: Vec<f64>| Tensor::from_vec(values, (3, 4), &Device::Cpu).unwrap();
    let exists = Tensor::from_vec(exists, (3, 4), &Device::Cpu).unwrap();
    let (scores, rewards) = (table(scores), table(rewards));
    let pairs = ranked_reward_loss(&scores, &rewards, Some(&exists), &Default::default());
    let ranking = plackett_luce_reward_loss(&scores, &rewards, Some(&exists));
    for (form, theirs) in [("pairs", pairs), ("plackett_luce", ranking)] {
        let case = Case::new("reward", LISTS, &[&format!("reward_form={form}")]);
        let (objective, window) = (case.objective(), [vec![0, 1, 2]]);
        let off = Reference::AdapterOff;
        let ours = objective
            .loss(&decoder, &off, &window[0], &window, None)
            .unwrap();
        near(form, number(&ours.loss), mean(&theirs.unwrap()));
        // 3 + 1 + 6 pairs
        assert_eq!(ours.pairs.len(), 10);
    }
}
