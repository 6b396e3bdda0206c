//! What the preference objectives since the survey converge to.

use crate::common::lists::pair;
use crate::common::policy::{
    BETA, REFERENCE, REWARDS, descend, descend_free, distance, log, normalized, ordered_pairs,
    tilted,
};
use crate::common::{assert_close, matrix, numbers, sigma, vector};
use candle_align::online::reward_models::{
    SmoothedRewardConfig, outcome_reward_loss, smoothed_reward_loss,
};
use candle_align::ranking::*;
use candle_align::{Candidates, Pair, Result};
use candle_core::{Device, Tensor, Var};

/// What gradient descent reaches where the objective is smooth and strictly convex.
const REACHED: f64 = 1e-9;

fn pick(x: &Tensor, of: impl Fn(&(usize, usize)) -> usize) -> Result<Tensor> {
    let index: Vec<u32> = ordered_pairs(4).iter().map(|p| of(p) as u32).collect();
    Ok(x.index_select(&Tensor::new(index.as_slice(), &Device::Cpu)?, 0)?)
}

/// Every ordered pair of four numbers.
fn pairs(x: &Tensor) -> Result<Pair<Tensor>> {
    Ok(Pair {
        chosen: pick(x, |p| p.0)?,
        rejected: pick(x, |p| p.1)?,
    })
}

fn ratios(log_policy: &Tensor, reference: &[f64]) -> Result<LogRatios> {
    LogRatios::sums(&pairs(log_policy)?, &pairs(&vector(&log(reference)))?)
}

/// P(i ≻ j) by Bradley–Terry, of every ordered pair.
fn bradley_terry() -> Vec<f64> {
    let of = |(i, j): (usize, usize)| sigma(REWARDS[i] - REWARDS[j]);
    ordered_pairs(4).into_iter().map(of).collect()
}

fn weighted(loss: Tensor, labels: &[f64]) -> Result<Tensor> {
    Ok((loss * vector(labels))?.sum_all()?)
}

#[test]
fn ipo_learns_win_rates_even_from_labels_without_noise() {
    let certain: Vec<f64> = ordered_pairs(4)
        .iter()
        .map(|(i, j)| (REWARDS[*i] > REWARDS[*j]) as u8 as f64)
        .collect();
    for labels in [certain, bradley_terry()] {
        let pi = descend(&log(&REFERENCE), 0.1, 200, |l| {
            let out = ipo_loss(&ratios(l, &REFERENCE)?, &IpoConfig { beta: BETA })?;
            weighted(out.loss, &labels)
        });
        // w̄ᵢ: the share of answers that i beats, itself by half
        let wins: Vec<f64> = (0..4)
            .map(|i| {
                let of_i = ordered_pairs(4).into_iter().zip(&labels);
                let won: f64 = of_i.filter(|(p, _)| p.0 == i).map(|(_, label)| label).sum();
                (won + 0.5) / 4.0
            })
            .collect();
        let want = tilted(&REFERENCE, &wins, BETA);
        assert!(distance(&pi, &want) < REACHED, "{pi:?} {want:?}");
    }
}

#[test]
fn means_per_token_tilt_the_optimum_by_length() {
    let lengths = [1.0, 2.0, 3.0, 4.0];
    let at = |c: f64| -> Vec<f64> {
        (0..4)
            .map(|i| REFERENCE[i] * (lengths[i] * (REWARDS[i] + c) / BETA).exp())
            .collect()
    };
    // c from Σ π = 1
    let (mut low, mut high) = (-9.0, 9.0);
    for _ in 0..200 {
        let c = 0.5 * (low + high);
        match at(c).iter().sum::<f64>() > 1.0 {
            true => high = c,
            false => low = c,
        }
    }
    let want = at(low);
    let known = [0.0129287133, 0.0171115680, 0.0001356436, 0.9698240751];
    assert!(distance(&want, &known) < 1e-9, "{want:?}");
    let theta = Var::from_tensor(&vector(&log(&want))).unwrap();
    let policy = candle_nn::ops::log_softmax(theta.as_tensor(), 0).unwrap();
    let config = LengthNormalizedDpoConfig { beta: BETA };
    let lengths = pairs(&vector(&lengths)).unwrap();
    let ratios = ratios(&policy, &REFERENCE).unwrap();
    let loss = length_normalized_dpo_loss(&ratios, &lengths, &config)
        .unwrap()
        .loss;
    let grads = weighted(loss, &bradley_terry())
        .unwrap()
        .backward()
        .unwrap();
    assert_close(
        &numbers(grads.get(&theta).unwrap()),
        &[0.0; 4],
        1e-12,
        "gradient",
    );
}

#[test]
fn robust_dpo_undoes_flips_and_runs_away_on_one_label() {
    let epsilon = 0.2;
    let labels: Vec<f64> = bradley_terry()
        .iter()
        .map(|p| ((1.0 - epsilon) * p + epsilon * (1.0 - p)) / 6.0)
        .collect();
    let config = RobustDpoConfig {
        beta: BETA,
        flip_rate: epsilon,
    };
    let pi = descend(&log(&REFERENCE), 20.0, 100, |l| {
        weighted(
            robust_dpo_loss(&ratios(l, &REFERENCE)?, &config)?.loss,
            &labels,
        )
    });
    assert!(
        distance(&pi, &tilted(&REFERENCE, &REWARDS, BETA)) < REACHED,
        "{pi:?}"
    );

    let zeros = pair(&[0.0], &[0.0]);
    let config = RobustDpoConfig {
        beta: 1.0,
        flip_rate: 0.1,
    };
    let at = |z: f64| {
        let ratios = LogRatios::sums(&pair(&[z], &[0.0]), &zeros).unwrap();
        numbers(&robust_dpo_loss(&ratios, &config).unwrap().loss)[0]
    };
    assert!((at(100.0) + 12.5).abs() < 1e-9);
    assert!((at(1000.0) + 125.0).abs() < 1e-9, "and further down");
}

#[test]
fn exo_stops_the_margin_at_the_log_odds_of_its_labels() {
    for start in [[0.3, 0.7], [0.9, 0.1], [0.05, 0.95]] {
        let config = ExoConfig {
            beta: 0.5,
            label_smoothing: 0.1,
        };
        let reference = pair(&[0.3f64.ln()], &[0.7f64.ln()]);
        let pi = descend(&log(&start), 4.0, 1500, |l| {
            let policy = Pair {
                chosen: l.narrow(0, 0, 1)?,
                rejected: l.narrow(0, 1, 1)?,
            };
            let out = exo_pair_loss(&LogRatios::sums(&policy, &reference)?, &config)?;
            Ok(out.loss.sum_all()?)
        });
        let margin = 0.5 * ((pi[0] / 0.3).ln() - (pi[1] / 0.7).ln());
        assert!((margin - 9f64.ln()).abs() < REACHED, "{margin}");
    }
}

#[test]
fn nca_fixes_each_log_ratio() {
    let config = NcaConfig {
        beta: 0.5,
        alpha: 1.0,
    };
    let ratios = descend_free(&[0.3, -0.2, 0.1, 0.0], 20.0, 400, |x| {
        let rewards = matrix(&[&REWARDS]);
        let sums = x.unsqueeze(0)?;
        let answers = Candidates::new(&sums, &sums.ones_like()?, &rewards, None)?;
        Ok(nca_loss(&answers, &sums.zeros_like()?, &config)?.sum_all()?)
    });
    let total: f64 = REWARDS.iter().map(|r| r.exp()).sum();
    let want: Vec<f64> = REWARDS
        .iter()
        .map(|r| (4.0 * r.exp() / total).ln() / 0.5)
        .collect();
    assert_close(&ratios, &want, REACHED, "β·ρ = log(K s)");
}

#[test]
fn exo_and_info_nca_teach_the_tilted_reference() {
    let want = tilted(&REFERENCE, &REWARDS, BETA);
    let answers = |l: &Tensor| -> Result<Candidates> {
        let sums = l.unsqueeze(0)?;
        Candidates::new(&sums, &sums.ones_like()?, &matrix(&[&REWARDS]), None)
    };
    let reference = matrix(&[&log(&REFERENCE)]);
    let nca = NcaConfig {
        beta: BETA,
        alpha: 1.0,
    };
    let pi = descend(&log(&REFERENCE), 10.0, 1000, |l| {
        Ok(info_nca_loss(&answers(l)?, &reference, &nca)?.sum_all()?)
    });
    assert!(distance(&pi, &want) < REACHED, "info nca: {pi:?}");
    let exo = ExoListConfig {
        beta: BETA,
        reward_beta: 1.0,
    };
    let pi = descend(&log(&REFERENCE), 10.0, 1000, |l| {
        Ok(exo_loss(&answers(l)?, &reference, &exo)?.sum_all()?)
    });
    assert!(distance(&pi, &want) < REACHED, "exo: {pi:?}");
}

#[test]
fn a_required_lead_stretches_the_margin_beyond_the_log_odds() {
    let (p, gamma, beta) = (0.9f64, 1.0f64, 2.0);
    let config = SimpoConfig {
        beta,
        margin: RequiredLead::Gamma(gamma),
    };
    let means = descend_free(&[-1.0, -1.0], 0.8, 400, |x| {
        let (first, second) = (x.narrow(0, 0, 1)?, x.narrow(0, 1, 1)?);
        let means = Pair {
            chosen: Tensor::cat(&[&first, &second], 0)?,
            rejected: Tensor::cat(&[&second, &first], 0)?,
        };
        weighted(simpo_loss(&means, &config)?.loss, &[p, 1.0 - p])
    });
    let gain = 2.0 * p - 1.0;
    let root = (gain * gain + 4.0 * p * (1.0 - p) * (-2.0 * gamma).exp()).sqrt();
    let want = ((gain + root) / (2.0 * (1.0 - p) * (-gamma).exp())).ln();
    assert_close(&[beta * (means[0] - means[1])], &[want], REACHED, "margin");
    assert!((want - 3.098).abs() < 1e-3 && want > 9f64.ln() + 0.9);
}

#[test]
fn r_dpo_takes_the_price_of_length_off_the_reward() {
    let (lengths, alpha) = ([1.0, 2.0, 3.0, 4.0], 0.3);
    let config = RDpoConfig { beta: BETA, alpha };
    let labels: Vec<f64> = bradley_terry().iter().map(|p| p / 6.0).collect();
    let of = pairs(&vector(&lengths)).unwrap();
    let pi = descend(&log(&REFERENCE), 20.0, 200, |l| {
        weighted(
            r_dpo_loss(&ratios(l, &REFERENCE)?, &of, &config)?.loss,
            &labels,
        )
    });
    let priced: Vec<f64> = (0..4).map(|i| REWARDS[i] - alpha * lengths[i]).collect();
    assert!(
        distance(&pi, &tilted(&REFERENCE, &priced, BETA)) < REACHED,
        "{pi:?}"
    );
}

#[test]
fn rebel_is_the_mirror_step() {
    let eta = 0.7;
    let rewards = pairs(&vector(&REWARDS)).unwrap();
    let mut policy = REFERENCE.to_vec();
    for step in 1..=2 {
        let before = policy.clone();
        policy = descend(&log(&before), 0.05, 300, |l| {
            let out = rebel_loss(&ratios(l, &before)?, &rewards, &RebelConfig { eta })?;
            Ok(out.loss.sum_all()?)
        });
        let want = tilted(&REFERENCE, &REWARDS, 1.0 / (eta * step as f64));
        assert!(distance(&policy, &want) < REACHED, "{policy:?}");
    }
}

#[test]
fn the_data_is_the_fixed_point_of_spin() {
    let gradient = |data: &[f64], iterate: &[f64]| {
        let theta = Var::from_tensor(&vector(&log(iterate))).unwrap();
        let policy = candle_nn::ops::log_softmax(theta.as_tensor(), 0).unwrap();
        let out = spin_loss(
            &ratios(&policy, iterate).unwrap(),
            &SpinConfig { beta: BETA },
        );
        // y ~ data, y′ ~ π_t; equal answers have no gradient
        let shares: Vec<f64> = ordered_pairs(4)
            .iter()
            .map(|(i, j)| data[*i] * iterate[*j])
            .collect();
        let loss = weighted(out.unwrap().loss, &shares).unwrap();
        numbers(loss.backward().unwrap().get(&theta).unwrap())
    };
    let data = normalized(&[1.0, 2.0, 3.0, 4.0]);
    assert_close(&gradient(&data, &data), &[0.0; 4], 1e-15, "at the data");
    let want: Vec<f64> = (0..4)
        .map(|i| -0.5 * BETA * (data[i] - REFERENCE[i]))
        .collect();
    assert_close(
        &gradient(&data, &REFERENCE),
        &want,
        1e-15,
        "elsewhere, towards it",
    );
}

#[test]
fn bco_learns_the_log_odds_of_an_answer() {
    let (beta, delta) = (0.5, 0.3);
    let shift = Tensor::new(delta, &Device::Cpu).unwrap();
    let labels = Tensor::new(&[1u8, 0], &Device::Cpu).unwrap();
    let ratio = descend_free(&[0.0], 10.0, 400, |x| {
        let both = Tensor::cat(&[x, x], 0)?;
        let config = BcoConfig { beta };
        let out = bco_loss(&both, &both.zeros_like()?, &labels, &shift, &config)?;
        weighted(out.loss, &[0.75, 0.25])
    });
    assert_close(
        &[beta * ratio[0]],
        &[delta + 3f64.ln()],
        REACHED,
        "log-odds",
    );
}

#[test]
fn an_outcome_model_learns_log_odds_and_smoothing_stops_a_lone_pair() {
    let score = descend_free(&[0.0], 2.0, 400, |x| {
        let both = Tensor::cat(&[x, x], 0)?;
        weighted(
            outcome_reward_loss(&both, &vector(&[1.0, 0.0]))?,
            &[0.75, 0.25],
        )
    });
    assert_close(&score, &[3f64.ln()], REACHED, "outcome");
    let config = SmoothedRewardConfig {
        label_smoothing: 0.1,
    };
    let scores = descend_free(&[0.0, 0.0], 2.0, 400, |x| {
        let scores = Pair {
            chosen: x.narrow(0, 0, 1)?,
            rejected: x.narrow(0, 1, 1)?,
        };
        Ok(smoothed_reward_loss(&scores, &config)?.loss.sum_all()?)
    });
    assert_close(&[scores[0] - scores[1]], &[9f64.ln()], REACHED, "smoothed");
}
