use crate::common::{EXACT, assert_close, bits, logistic_loss as lost, matrix, numbers, vector};
use candle_align::online::reward_model::{Ties, ranking_accuracy};
use candle_align::{
    Pair, PairwiseRewardConfig, RankedRewardConfig, Result, choose_best_loss, pairwise_reward_loss,
    plackett_luce_reward_loss, ranked_reward_loss,
};
use candle_core::{DType, Device, Tensor};

fn pair() -> Pair<Tensor> {
    Pair {
        chosen: vector(&[1.5, -0.5, 2.0]),
        rejected: vector(&[0.5, 0.75, 2.0]),
    }
}

fn best(b: &[u32]) -> Tensor {
    Tensor::new(b, &Device::Cpu).expect("a vector")
}

fn ranked(scores: &[f64], rewards: &[f64], config: &RankedRewardConfig) -> f64 {
    let loss = ranked_reward_loss(&matrix(&[scores]), &matrix(&[rewards]), None, config);
    numbers(&loss.expect("a list"))[0]
}

#[test]
fn a_pair_loses_by_how_far_the_better_answer_is_behind() -> Result<()> {
    let loss = pairwise_reward_loss(&pair(), None, &PairwiseRewardConfig::default())?.loss;
    let want = [lost(1.5 - 0.5), lost(-0.5 - 0.75), 2.0f64.ln()];
    assert_close(&numbers(&loss), &want, EXACT, "pairwise");
    Ok(())
}

#[test]
fn a_margin_is_subtracted_whatever_its_sign_and_centering_sees_the_sum() -> Result<()> {
    let margin = vector(&[0.25, -2.0, 1.0]);
    let config = PairwiseRewardConfig { centering: 0.3 };
    let loss = pairwise_reward_loss(&pair(), Some(&margin), &config)?.loss;
    let want = [
        lost(1.5 - 0.5 - 0.25) + 0.3 * (1.5f64 + 0.5).powi(2),
        lost(-0.5 - 0.75 + 2.0) + 0.3 * (-0.5f64 + 0.75).powi(2),
        lost(-1.0) + 0.3 * (2.0f64 + 2.0).powi(2),
    ];
    assert_close(&numbers(&loss), &want, EXACT, "pairwise");
    Ok(())
}

#[test]
fn the_defaults_are_the_papers() {
    assert_eq!(
        PairwiseRewardConfig::default(),
        PairwiseRewardConfig { centering: 0.0 }
    );
    let ranked = RankedRewardConfig {
        ties: Ties::Skip,
        margin: 0.0,
        centering: 0.0,
    };
    assert_eq!(RankedRewardConfig::default(), ranked);
}

#[test]
fn settings_are_json_and_an_unknown_one_is_refused() {
    let config: RankedRewardConfig =
        serde_json::from_str(r#"{ "ties": "half", "margin": 0.5 }"#).expect("settings");
    let want = RankedRewardConfig {
        ties: Ties::Half,
        margin: 0.5,
        centering: 0.0,
    };
    assert_eq!(config, want);
    assert!(serde_json::from_str::<RankedRewardConfig>(r#"{ "tie": "half" }"#).is_err());
    assert!(serde_json::from_str::<PairwiseRewardConfig>(r#"{ "centring": 0.1 }"#).is_err());
}

#[test]
fn a_ranking_is_the_mean_over_its_pairs_in_any_order() {
    // ranks: the second answer, the fourth, the first, the third
    let got = ranked(
        &[0.5, 1.5, -1.0, 2.0],
        &[20.0, 70.0, -3.0, 65.0],
        &RankedRewardConfig::default(),
    );
    let pairs = [
        1.5 - 2.0,
        1.5 - 0.5,
        1.5 + 1.0,
        2.0 - 0.5,
        2.0 + 1.0,
        0.5 + 1.0,
    ];
    let want = pairs.iter().map(|z| lost(*z)).sum::<f64>() / 6.0;
    assert_close(&[got], &[want], EXACT, "ranked");
}

#[test]
fn a_ranking_has_one_margin_and_one_center() {
    let config = RankedRewardConfig {
        margin: 0.4,
        centering: 0.3,
        ..Default::default()
    };
    let got = ranked(&[0.5, 1.5, -1.0], &[2.0, 1.0, 3.0], &config);
    let pairs = [-1.0 - 0.5, -1.0 - 1.5, 0.5 - 1.5];
    let ahead = pairs.iter().map(|z| lost(z - 0.4)).sum::<f64>() / 3.0;
    let center = ((-1.0 + 0.5) + (-1.0 + 1.5) + (0.5 + 1.5)) / 3.0f64;
    assert_close(&[got], &[ahead + 0.3 * center * center], EXACT, "ranked");
}

#[test]
fn a_tie_counts_half_for_each_or_not_at_all() {
    // the first two are tied, both above the third
    let (scores, rewards) = ([0.5, 1.5, -1.0], [4.0, 4.0, 1.0]);
    let with = |ties| RankedRewardConfig {
        ties,
        margin: 0.4,
        centering: 0.3,
    };
    let wins = lost(0.5 + 1.0 - 0.4) + lost(1.5 + 1.0 - 0.4);

    let skipped: f64 = ((0.5 - 1.0) + (1.5 - 1.0)) / 2.0;
    let want = wins / 2.0 + 0.3 * skipped * skipped;
    assert_close(
        &[ranked(&scores, &rewards, &with(Ties::Skip))],
        &[want],
        EXACT,
        "skip",
    );

    let tie = 0.5 * (lost(0.5 - 1.5) + lost(1.5 - 0.5));
    let half: f64 = ((0.5 - 1.0) + (1.5 - 1.0) + (0.5 + 1.5)) / 3.0;
    let want = (wins + tie) / 3.0 + 0.3 * half * half;
    assert_close(
        &[ranked(&scores, &rewards, &with(Ties::Half))],
        &[want],
        EXACT,
        "half",
    );
}

#[test]
fn all_tied_is_nothing_or_only_ties() {
    let with = |ties| RankedRewardConfig {
        ties,
        margin: 0.4,
        centering: 0.3,
    };
    let (scores, rewards) = ([0.5, 1.5], [4.0, 4.0]);
    assert_eq!(ranked(&scores, &rewards, &with(Ties::Skip)), 0.0);
    let want = 0.5 * (lost(1.0) + lost(-1.0)) + 0.3 * 4.0;
    assert_close(
        &[ranked(&scores, &rewards, &with(Ties::Half))],
        &[want],
        EXACT,
        "half",
    );
}

#[test]
fn a_label_that_is_nan_is_compared_with_nothing() {
    for ties in [Ties::Skip, Ties::Half] {
        let config = RankedRewardConfig {
            ties,
            ..Default::default()
        };
        let got = ranked(
            &[0.5, 3.0, 1.5, 7.0],
            &[1.0, f64::NAN, 2.0, f64::NAN],
            &config,
        );
        assert_close(&[got], &[lost(1.5 - 0.5)], EXACT, "ranked");
    }
}

#[test]
fn lists_of_unequal_length_stand_in_one_batch() -> Result<()> {
    let nan = f64::NAN;
    let scores = matrix(&[&[0.5, nan, 1.5], &[nan, 2.0, nan], &[1.0, 2.0, 4.0]]);
    let rewards = matrix(&[&[2.0, nan, 1.0], &[nan, 1.0, nan], &[3.0, 2.0, 1.0]]);
    let mask = bits(&[&[1, 0, 1], &[0, 1, 0], &[7, 1, 255]]);
    let config = RankedRewardConfig {
        ties: Ties::Half,
        margin: 0.2,
        centering: 0.3,
    };
    let loss = ranked_reward_loss(&scores, &rewards, Some(&mask), &config)?;
    let full = (lost(1.0 - 2.0 - 0.2) + lost(1.0 - 4.0 - 0.2) + lost(2.0 - 4.0 - 0.2)) / 3.0;
    let want = [
        lost(0.5 - 1.5 - 0.2) + 0.3 * (0.5f64 + 1.5).powi(2),
        0.0,
        full + 0.3 * (2.0f64 * 7.0 / 3.0).powi(2),
    ];
    assert_close(&numbers(&loss), &want, EXACT, "ranked");

    let loss = plackett_luce_reward_loss(&scores, &rewards, Some(&mask))?;
    let (one, two, four) = (1.0f64.exp(), 2.0f64.exp(), 4.0f64.exp());
    let full = -(one / (one + two + four)).ln() - (two / (two + four)).ln();
    assert_close(
        &numbers(&loss),
        &[lost(0.5 - 1.5), 0.0, full],
        EXACT,
        "plackett-luce",
    );

    let loss = choose_best_loss(&scores, &best(&[2, 1, 0]), Some(&mask))?;
    let want = [lost(1.5 - 0.5), 0.0, -(one / (one + two + four)).ln()];
    assert_close(&numbers(&loss), &want, EXACT, "choose best");
    Ok(())
}

#[test]
fn a_list_of_one_has_no_loss() -> Result<()> {
    let (scores, rewards) = (matrix(&[&[3.0]]), matrix(&[&[1.0]]));
    for ties in [Ties::Skip, Ties::Half] {
        let config = RankedRewardConfig {
            ties,
            margin: 0.5,
            centering: 0.5,
        };
        let loss = ranked_reward_loss(&scores, &rewards, None, &config)?;
        assert_eq!(numbers(&loss), [0.0]);
    }
    let loss = choose_best_loss(&scores, &best(&[0]), None)?;
    assert_eq!(numbers(&loss), [0.0]);
    let loss = plackett_luce_reward_loss(&scores, &rewards, None)?;
    assert_eq!(numbers(&loss), [0.0]);
    Ok(())
}

#[test]
fn the_best_of_many_is_one_softmax() -> Result<()> {
    let scores = matrix(&[&[1.0, 3.0, 0.0, 2.0], &[1.0, 3.0, 0.0, 2.0]]);
    let odds = |s: f64| s.exp();
    let total = odds(1.0) + odds(3.0) + odds(0.0) + odds(2.0);
    let want = [-(odds(2.0) / total).ln(), -(odds(1.0) / total).ln()];
    let loss = choose_best_loss(&scores, &best(&[3, 0]), None)?;
    assert_close(&numbers(&loss), &want, EXACT, "choose best");

    let signed = best(&[3, 0]).to_dtype(DType::I64)?;
    let loss = choose_best_loss(&scores, &signed, None)?;
    assert_close(&numbers(&loss), &want, EXACT, "choose best, i64");
    Ok(())
}

#[test]
fn the_choice_of_an_empty_list_is_not_read() -> Result<()> {
    let scores = matrix(&[&[1.0, 3.0], &[1.0, 3.0]]);
    let mask = bits(&[&[0, 0], &[1, 1]]);
    let loss = choose_best_loss(&scores, &best(&[u32::MAX, 1]), Some(&mask))?;
    assert_close(
        &numbers(&loss),
        &[0.0, lost(3.0 - 1.0)],
        EXACT,
        "choose best",
    );
    Ok(())
}

#[test]
fn tied_answers_are_held_only_against_worse_ones() -> Result<()> {
    let loss = plackett_luce_reward_loss(
        &matrix(&[&[0.5, 1.5, -1.0]]),
        &matrix(&[&[4.0, 4.0, 1.0]]),
        None,
    )?;
    let want = lost(0.5 + 1.0) + lost(1.5 + 1.0);
    assert_close(&numbers(&loss), &[want], EXACT, "plackett-luce");
    Ok(())
}

#[test]
fn accuracy_weighs_every_ranked_pair_of_the_batch_the_same() -> Result<()> {
    let nan = f64::NAN;
    let scores = matrix(&[&[3.0, 2.0, 2.0], &[0.0, 1.0, nan], &[1.0, 5.0, 2.0]]);
    let rewards = matrix(&[&[9.0, 4.0, 7.0], &[2.0, 1.0, nan], &[4.0, 4.0, 1.0]]);
    let mask = bits(&[&[1, 1, 1], &[1, 1, 0], &[1, 1, 1]]);
    // first list: two right and a tie in score; second: one wrong; third: one right, one wrong of
    // its two pairs, since equal rewards are no pair
    let share = ranking_accuracy(&scores, &rewards, Some(&mask))?;
    assert_eq!(numbers(&share), [(2.5 + 0.0 + 1.0) / 6.0]);
    assert!(share.dims().is_empty());

    let none = ranking_accuracy(&scores, &rewards, Some(&mask.zeros_like()?))?;
    assert!(numbers(&none)[0].is_nan());
    Ok(())
}

#[test]
fn a_score_of_minus_infinity_costs_everything_and_pulls_by_one() {
    let inf = f64::INFINITY;
    let chosen = candle_core::Var::from_tensor(&vector(&[-inf, 1.0, 0.3])).unwrap();
    let rejected = candle_core::Var::from_tensor(&vector(&[1.0, -inf, 0.3])).unwrap();
    let scores = Pair {
        chosen: chosen.as_tensor().clone(),
        rejected: rejected.as_tensor().clone(),
    };
    let loss = pairwise_reward_loss(&scores, None, &PairwiseRewardConfig::default())
        .unwrap()
        .loss;
    assert_eq!(numbers(&loss), [inf, 0.0, 2f64.ln()]);
    let grads = loss.sum_all().unwrap().backward().unwrap();
    assert_eq!(numbers(grads.get(&chosen).unwrap()), [-1.0, 0.0, -0.5]);
    assert_eq!(numbers(grads.get(&rejected).unwrap()), [1.0, 0.0, 0.5]);
}
