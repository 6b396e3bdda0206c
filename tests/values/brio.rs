use crate::common::lists::list;
use crate::common::{EXACT, assert_close, bits, matrix, numbers};
use candle_align::ranking::ReferenceTokens;
use candle_align::ranking::brio::BrioPairs;
use candle_align::{
    BrioConfig, Candidates, SftConfig, Statistics, TokenLogProbs, TokenLoss, brio_loss, sft_loss,
};
use candle_core::{Device, Tensor};

/// f = −1, −0.5, −0.75, −0.25 for α = 2, −2, −2, −3, −1 for α = 1.
const SUMS: [f64; 4] = [-4.0, -8.0, -12.0, -4.0];
const LENGTHS: [f64; 4] = [2.0, 4.0, 4.0, 4.0];
/// From the best: −0.5, −1, −0.25, −0.75 (α = 2).
const REWARDS: [f64; 4] = [0.6, 0.9, 0.1, 0.4];

fn ranking(c: &Candidates, config: &BrioConfig) -> Vec<f64> {
    numbers(&brio_loss(c, None, config).unwrap().ranking)
}

#[test]
fn every_pair_with_its_distance() {
    let c = list(&SUMS, &LENGTHS, &REWARDS);
    for (lambda, gamma) in [(0.001, 100.0), (0.3, 1.0), (0.6, 2.5), (0.0, 4.0)] {
        let config = BrioConfig {
            margin: lambda,
            rank_weight: gamma,
            ..Default::default()
        };
        let pair =
            |better: f64, worse: f64, places: f64| f64::max(0.0, worse - better + places * lambda);
        let want = pair(-0.5, -1.0, 1.0)
            + pair(-0.5, -0.25, 2.0)
            + pair(-0.5, -0.75, 3.0)
            + pair(-1.0, -0.25, 1.0)
            + pair(-1.0, -0.75, 2.0)
            + pair(-0.25, -0.75, 1.0);
        assert_close(&ranking(&c, &config), &[gamma * want], EXACT, "brio");
        let mean = (pair(-0.5, -1.0, 1.0) + pair(-1.0, -0.25, 1.0) + pair(-0.25, -0.75, 1.0)) / 3.0
            + (pair(-0.5, -0.25, 2.0) + pair(-1.0, -0.75, 2.0)) / 2.0
            + pair(-0.5, -0.75, 3.0);
        let config = BrioConfig {
            pairs: BrioPairs::MeanPerDistance,
            ..config
        };
        assert_close(&ranking(&c, &config), &[gamma * mean], EXACT, "brio, mean");
    }
}

#[test]
fn the_length_to_its_power() {
    for alpha in [0.0, 0.6, 1.0, 2.0] {
        let config = BrioConfig {
            margin: 0.7,
            rank_weight: 1.0,
            length_power: alpha,
            ..Default::default()
        };
        let c = list(&[-4.0, -6.0], &[5.0, 3.0], &[0.9, 0.2]);
        let lead = -4.0 / 5.0f64.powf(alpha) + 6.0 / 3.0f64.powf(alpha);
        let want = f64::max(0.0, 0.7 - lead);
        assert_close(&ranking(&c, &config), &[want], EXACT, "alpha");
    }
}

#[test]
fn ties_share_a_place_and_make_no_pair() {
    // places 0, 0, 2, 3: nobody has the second
    let c = list(&[-1.0, -2.0, -1.5, -1.2], &[1.0; 4], &[5.0, 5.0, 2.0, 1.0]);
    let (d, gamma) = (0.7, 3.0);
    let config = BrioConfig {
        margin: d,
        rank_weight: gamma,
        ..Default::default()
    };
    let (one, two, three) = (
        [d + 1.5 - 1.2],
        [2.0 * d + 1.0 - 1.5, 2.0 * d + 2.0 - 1.5],
        [3.0 * d + 1.0 - 1.2, 3.0 * d + 2.0 - 1.2],
    );
    let sum = |x: &[f64]| x.iter().sum::<f64>();
    let want = gamma * (sum(&one) + sum(&two) + sum(&three));
    assert_close(&ranking(&c, &config), &[want], EXACT, "ties");
    let config = BrioConfig {
        pairs: BrioPairs::MeanPerDistance,
        ..config
    };
    let want = gamma * (sum(&one) + sum(&two) / 2.0 + sum(&three) / 2.0);
    assert_close(&ranking(&c, &config), &[want], EXACT, "ties, mean");
}

#[test]
fn lists_of_one_of_equals_and_short_ones() {
    for pairs in [BrioPairs::Sum, BrioPairs::MeanPerDistance] {
        let config = BrioConfig {
            margin: 0.75,
            rank_weight: 2.0,
            length_power: 1.0,
            pairs,
            ..Default::default()
        };
        let one = list(&[-3.0], &[2.0], &[4.0]);
        assert_eq!(ranking(&one, &config), [0.0]);
        let equal = list(&[-3.0, -1.0, -2.0], &[1.0; 3], &[4.0; 3]);
        assert_eq!(ranking(&equal, &config), [0.0]);
        // the answer under the mask stands between the two and takes no place
        let short = Candidates::new(
            &matrix(&[&[-0.1, -3.0, f64::NAN, -2.0]]),
            &matrix(&[&[1.0, 2.0, f64::NAN, 4.0]]),
            &matrix(&[&[0.5, 1.0, f64::NAN, 0.25]]),
            Some(&bits(&[&[0, 1, 0, 1]])),
        )
        .unwrap();
        let want = 2.0 * (0.75 + 3.0 / 2.0 - 2.0 / 4.0);
        assert_close(&ranking(&short, &config), &[want], EXACT, "short list");
    }
}

#[test]
fn the_reference_answer_adds_its_tokens() {
    let c = Candidates::new(
        &matrix(&[&[-1.0, -2.0], &[-1.0, -2.0]]),
        &matrix(&[&[1.0, 1.0], &[1.0, 1.0]]),
        &matrix(&[&[1.0, 0.0], &[0.0, 1.0]]),
        None,
    )
    .unwrap();
    let reference = TokenLoss {
        loss: matrix(&[&[0.5, 0.25, 1.5], &[f64::NAN, 2.0, f64::NAN]]),
        mask: bits(&[&[1, 1, 1], &[0, 1, 0]]),
    };
    let ranking = [0.0, 100.0 * (0.001 + 2.0 - 1.0)];
    for (tokens, sft) in [
        (ReferenceTokens::Sum, [2.25, 2.0]),
        (ReferenceTokens::Mean, [0.75, 2.0]),
    ] {
        let config = BrioConfig {
            reference: tokens,
            ..Default::default()
        };
        let out = brio_loss(&c, Some(&reference), &config).unwrap();
        assert_close(&numbers(&out.ranking), &ranking, EXACT, "ranking");
        assert_close(&numbers(&out.sft), &sft, EXACT, "sft");
        let want = [ranking[0] + sft[0], ranking[1] + sft[1]];
        assert_close(&numbers(&out.loss), &want, EXACT, "loss");
    }
}

#[test]
fn a_smoothed_reference_from_logits() {
    // four symbols with probabilities ½, ¼, ⅛, ⅛; the reference is the second
    let p = [0.5f64, 0.25, 0.125, 0.125];
    let logits = Tensor::new(&[[p.map(|p| p.ln() + 2.0)]], &Device::Cpu).unwrap();
    let token = Tensor::new(&[[1u32]], &Device::Cpu).unwrap();
    let statistics = Statistics {
        vocabulary_mean: true,
        ..Default::default()
    };
    let log_probs = TokenLogProbs::aligned(&logits, &token, &bits(&[&[1]]), statistics).unwrap();
    let smoothing = SftConfig {
        label_smoothing: 0.1,
    };
    let reference = sft_loss(&log_probs, None, &smoothing).unwrap();
    let c = list(&[-1.0], &[1.0], &[1.0]);
    let out = brio_loss(&c, Some(&reference), &BrioConfig::default()).unwrap();
    let every: f64 = p.iter().map(|p| p.ln()).sum();
    let want = -(0.9 * 0.25f64.ln() + 0.1 / 4.0 * every);
    assert_close(&numbers(&out.loss), &[want], EXACT, "smoothed");
}

#[test]
fn the_papers_settings() {
    let want = BrioConfig {
        margin: 0.001,
        rank_weight: 100.0,
        length_power: 2.0,
        pairs: BrioPairs::Sum,
        reference: ReferenceTokens::Sum,
    };
    assert_eq!(BrioConfig::default(), want);
}
