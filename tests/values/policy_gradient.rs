//! The policy losses on one fixture of five tokens. Its numbers were computed apart, in NumPy, from the papers' formulas,
//! with gradients by central differences; beside them are single tokens with the formula in the test.

use crate::common::{assert_close, bits, matrix, numbers, vector};
use candle_align::online::policy_gradient::*;
use candle_align::online::ratio::{RatioLevel, importance_ratio};
use candle_align::online::rollout_correction::{UnbiasedKlConfig, unbiased_kl_loss};
use candle_align::{KlEstimator, Reduction, Result, TokenLogProbs, TokenLoss, kl_loss};
use candle_core::{Device, Tensor, Var};

const TOKEN_MEAN: Reduction = Reduction::TokenMean;
const SEQUENCE_MEANS: Reduction = Reduction::MeanOfSequenceMeans;

/// Five tokens of two answers, with advantages 1 and −½.
struct Fixture {
    values: Var,
    new: TokenLogProbs,
    old: Tensor,
    reference: Tensor,
    advantages: Tensor,
}

fn fixture() -> Fixture {
    let values = Var::new(&[[-0.5f64, -1.2, -0.3], [-2.0, -0.7, 0.0]], &Device::Cpu).unwrap();
    Fixture {
        new: TokenLogProbs::new(&values, &bits(&[&[1, 1, 1], &[1, 1, 0]])).unwrap(),
        values,
        old: matrix(&[&[-0.9, -1.0, -0.35], &[-1.5, -0.9, f64::NAN]]),
        reference: matrix(&[&[-0.8, -1.1, -0.4], &[-1.6, -0.8, f64::NAN]]),
        advantages: vector(&[1.0, -0.5]),
    }
}

/// The reduced loss and its gradient in the five tokens, against numbers of eight and six decimals.
#[track_caller]
fn check(
    name: &str,
    reduction: Reduction,
    loss: impl Fn(&Fixture) -> Result<TokenLoss>,
    value: f64,
    gradient: [f64; 5],
) {
    let fixture = fixture();
    let loss = loss(&fixture).unwrap().reduce(reduction).unwrap();
    assert_close(&numbers(&loss), &[value], 6e-9, name);
    let grads = loss.backward().unwrap();
    let got = numbers(grads.get(&fixture.values).unwrap());
    assert_close(&got[..5], &gradient, 6e-7, name);
    assert_eq!(got[5], 0.0, "{name}: under the mask");
}

#[test]
fn grpo_and_its_reductions() {
    let grpo = |config: GrpoConfig| {
        move |f: &Fixture| Ok(grpo_loss(&f.new, &f.old, &f.advantages, &config)?.loss)
    };
    let dapo = GrpoConfig::dapo;
    let of = [0.0, -0.136455, -0.175212, 0.0, 0.152675];
    check("grpo", SEQUENCE_MEANS, grpo(dapo()), -0.27232496, of);
    let of = [0.0, -0.163746, -0.210254, 0.0, 0.122140];
    check("dapo", TOKEN_MEAN, grpo(dapo()), -0.42786009, of);
    let of = [0.0, -0.102341, -0.131409, 0.0, 0.076338];
    let constant = Reduction::SumOver { count: 2.0 * 4.0 };
    check("dr. grpo", constant, grpo(dapo()), -0.26741256, of);
    let delta = Some(1.25);
    let of = [0.0, -0.163746, -0.210254, 0.0, 0.122140];
    let config = GrpoConfig { delta, ..dapo() };
    check("delta 1.25", TOKEN_MEAN, grpo(config), -0.42186009, of);
    let of = [-0.642013, -0.642013, -0.642013, 0.185205, 0.185205];
    let level = RatioLevel::SequenceSum;
    let config = GrpoConfig {
        clip: 0.4,
        level,
        ..GrpoConfig::default()
    };
    check("rloo", SEQUENCE_MEANS, grpo(config), -0.45680815, of);
}

#[test]
fn gspo_and_luspo() {
    let gspo = |clip, clip_high, form| {
        let config = GspoConfig {
            clip,
            clip_high,
            form,
        };
        move |f: &Fixture| Ok(gspo_loss(&f.new, &f.old, &f.advantages, &config)?.loss)
    };
    for form in [GspoForm::Sequence, GspoForm::Token] {
        let of = [-0.181151, -0.181151, -0.181151, 0.107588, 0.107588];
        check(
            "gspo",
            SEQUENCE_MEANS,
            gspo(0.2, 0.28, form),
            -0.32827503,
            of,
        );
        let paper = gspo(3e-4, 4e-4, form);
        check("the paper's", SEQUENCE_MEANS, paper, -0.250275, [0.0; 5]);
    }
    let of = [-0.543452, -0.543452, -0.543452, 0.215177, 0.215177];
    let whole = gspo(0.2, 0.28, GspoForm::Sequence);
    check("luspo", Reduction::SequenceMean, whole, -1.20000209, of);
}

#[test]
fn cispo_under_both_conventions() {
    let cispo = |clip| {
        let config = CispoConfig {
            clip,
            ..CispoConfig::default()
        };
        move |f: &Fixture| Ok(cispo_loss(&f.new, &f.old, &f.advantages, &config)?.loss)
    };
    let of = [-0.298365, -0.163746, -0.210254, 0.060653, 0.122140];
    for clip in [
        CispoClip::Absolute { high: 5.0 },
        CispoClip::AroundOne {
            low: 1.0,
            high: 4.0,
        },
    ] {
        check("absolute", TOKEN_MEAN, cispo(clip), 0.20194979, of);
    }
    let of = [-0.256000, -0.163746, -0.210254, 0.080000, 0.122140];
    let clip = CispoClip::AroundOne {
        low: 0.2,
        high: 0.28,
    };
    check("around one", TOKEN_MEAN, cispo(clip), 0.14207345, of);
}

#[test]
fn sapo_gmpo_and_vespo() {
    let of = [-0.234188, -0.135340, -0.175097, 0.072671, 0.150631];
    let sapo =
        |f: &Fixture| Ok(sapo_loss(&f.new, &f.old, &f.advantages, &SapoConfig::default())?.loss);
    check("sapo", SEQUENCE_MEANS, sapo, -0.60352566, of);

    // the first log-ratio is at the bound: the slope is that of the inner side
    let of = [-0.181151, -0.181151, -0.181151, 0.000000, 0.113105];
    let gmpo =
        |f: &Fixture| Ok(gmpo_loss(&f.new, &f.old, &f.advantages, &GmpoConfig::default())?.loss);
    check("gmpo", SEQUENCE_MEANS, gmpo, -0.31724267, of);

    let of = [-0.140645, -0.140645, -0.140645, 0.068274, 0.068274];
    let vespo = |f: &Fixture| {
        let config = VespoConfig::default();
        Ok(vespo_loss(&f.new, &f.old, &f.advantages, None, &config)?.loss)
    };
    check("vespo", TOKEN_MEAN, vespo, 0.09694993, of);
}

#[test]
fn dppo_by_both_divergences() {
    let dppo = |divergence, delta| {
        let config = DppoConfig {
            divergence,
            low: delta,
            high: delta,
            ..DppoConfig::default()
        };
        move |f: &Fixture| Ok(dppo_loss(&f.new, &f.old, &f.advantages, &config)?.loss)
    };
    let of = [0.0, -0.163746, -0.210254, 0.060653, 0.122140];
    let tv = dppo(BinaryDivergence::TotalVariation, 0.15);
    check("tv", TOKEN_MEAN, tv, 0.05276732, of);
    let of = [0.0, -0.163746, -0.210254, 0.0, 0.122140];
    let kl = dppo(BinaryDivergence::Kl, 0.02);
    check("kl", TOKEN_MEAN, kl, 0.17407345, of);
}

#[test]
fn token_dro_and_reinforce() {
    let of = [-0.12, -0.24, -0.19, 0.0, 0.14];
    let dro = |f: &Fixture| {
        let config = TokenDroConfig { beta: 1.0 };
        token_dro_loss(&f.new, &f.old, &f.advantages, &config)
    };
    check("dro", TOKEN_MEAN, dro, 0.17925, of);
    let reinforce = |f: &Fixture| reinforce_loss(&f.new, &f.advantages);
    let of = [-0.2, -0.2, -0.2, 0.1, 0.1];
    check("reinforce", TOKEN_MEAN, reinforce, 0.13, of);
}

#[test]
fn k3_alone_and_times_the_ratio() {
    let of = [0.051836, -0.021034, 0.019033, -0.098365, 0.019033];
    let k3 = |f: &Fixture| kl_loss(&f.new, &f.reference, KlEstimator::K3);
    check("k3", TOKEN_MEAN, k3, 0.02949773, of);
    let of = [0.089509, -0.016375, 0.021025, -0.048522, 0.024428];
    let unbiased =
        |f: &Fixture| unbiased_kl_loss(&f.new, &f.old, &f.reference, &UnbiasedKlConfig::default());
    check("k3 times the ratio", TOKEN_MEAN, unbiased, 0.02636312, of);
}

/// A single token with old log-probability −1, moved by a log-ratio.
fn token(log_ratio: f64) -> (Var, TokenLogProbs, Tensor) {
    let values = Var::new(&[[-1.0 + log_ratio]], &Device::Cpu).unwrap();
    let new = TokenLogProbs::new(&values, &bits(&[&[1]])).unwrap();
    (values, new, matrix(&[&[-1.0]]))
}

/// Its loss, and the slope in its log-probability.
fn at(log_ratio: f64, advantage: f64, config: &GrpoConfig) -> (f64, f64) {
    let (values, new, old) = token(log_ratio);
    let loss = grpo_loss(&new, &old, &vector(&[advantage]), config).unwrap();
    let grads = loss.loss.loss.sum_all().unwrap().backward().unwrap();
    let slope = numbers(grads.get(&values).unwrap())[0];
    (numbers(&loss.loss.loss)[0], slope)
}

#[test]
fn delta_stops_the_other_branch() {
    let with = |delta| GrpoConfig {
        delta: Some(delta),
        ..GrpoConfig::default()
    };
    // beyond 1 + ε: a bad token is stopped at δ
    let up = 2f64.ln();
    let (loss, slope) = at(up, -3.0, &with(4.0));
    assert_close(
        &[loss, slope],
        &[3.0 * 2.0, 3.0 * 2.0],
        1e-14,
        "below delta",
    );
    let (loss, slope) = at(5f64.ln(), -3.0, &with(4.0));
    assert_close(&[loss, slope], &[3.0 * 4.0, 0.0], 1e-14, "above delta");
    // δ below 1 + ε: a good token is stopped at δ, a bad one at 1 + ε
    let (loss, slope) = at(up, 3.0, &with(1.1));
    assert_close(&[loss, slope], &[-3.0 * 1.1, 0.0], 1e-14, "good");
    let (loss, slope) = at(1.15f64.ln(), -3.0, &with(1.1));
    assert_close(
        &[loss, slope],
        &[3.0 * 1.15, 3.0 * 1.15],
        1e-14,
        "bad, within",
    );
    let (loss, slope) = at(up, -3.0, &with(1.1));
    assert_close(&[loss, slope], &[3.0 * 1.2, 0.0], 1e-14, "bad, beyond");
}

#[test]
fn a_ratio_that_overflows_has_a_finite_gradient() {
    let overflow = 1000.0; // e^1000 is infinite in f64
    let config = GrpoConfig::default();
    assert_eq!(at(overflow, 1.0, &config), (-1.2, 0.0));
    let (loss, slope) = at(overflow, -1.0, &config);
    assert!(loss.is_finite() && slope.is_finite(), "{loss}, {slope}");
    assert_eq!(at(overflow, 0.0, &config), (0.0, 0.0));
}

#[test]
fn every_level_of_the_ratio() {
    let f = fixture();
    let d = [[0.4, -0.2, 0.05], [-0.5, 0.2, 0.0]];
    let at = |level| numbers(&importance_ratio(&f.new, &f.old, level).unwrap());
    let tokens: Vec<f64> = d.concat()[..5].iter().map(|d: &f64| d.exp()).collect();
    assert_close(&at(RatioLevel::Token)[..5], &tokens, 1e-15, "token");
    let (first, second) = ((0.25f64 / 3.0).exp(), (-0.3f64 / 2.0).exp());
    let want = [first, first, first, second, second, 0.0];
    assert_close(&at(RatioLevel::SequenceMean), &want, 1e-15, "mean");
    let form = RatioLevel::TokenOfSequenceMean;
    assert_close(&at(form), &want, 1e-15, "token of mean");
    let (first, second) = (0.25f64.exp(), (-0.3f64).exp());
    let want = [first, first, first, second, second, 0.0];
    assert_close(&at(RatioLevel::SequenceSum), &want, 1e-15, "sum");
}

#[test]
fn cispo_says_where_the_weight_is_not_the_ratio() {
    let f = fixture();
    let clip = CispoClip::AroundOne {
        low: 0.2,
        high: 0.28,
    };
    let config = CispoConfig {
        clip,
        ..CispoConfig::default()
    };
    let out = cispo_loss(&f.new, &f.old, &f.advantages, &config).unwrap();
    assert_eq!(numbers(&out.clipped), [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
    let ratio = importance_ratio(&f.new, &f.old, RatioLevel::Token).unwrap();
    assert_eq!(numbers(&out.ratio), numbers(&ratio));
}

#[test]
fn the_sampler_s_weights_enter_vespo_s_ratio() {
    let f = fixture();
    let weights = matrix(&[&[2.0, 0.5, 1.5], &[0.0, 1.0, f64::NAN]]);
    let config = VespoConfig::default();
    let out = vespo_loss(&f.new, &f.old, &f.advantages, Some(&weights), &config).unwrap();
    let w = [0.25f64.exp() * 1.5, (-0.3f64).exp() * 1e-8];
    assert_close(
        &numbers(&out.ratio)[..4],
        &[w[0], w[0], w[0], 1e-8],
        1e-14,
        "W",
    );
    let phi = w[0].powi(2) * (3.0 * (1.0 - w[0])).exp();
    let want = [0.5 * phi, 1.2 * phi, 0.3 * phi, 0.0, 0.0, 0.0];
    assert_close(&numbers(&out.loss.loss), &want, 1e-14, "loss");
}

#[test]
fn tokens_of_the_largest_covariance_pay() {
    let f = fixture();
    // means of advantages 0.4, of log-probabilities −0.94
    let paying = kl_cov_tokens(&f.new, &f.advantages, 0.4).unwrap();
    // 0.6·(0.44, −0.26, 0.64) and −0.9·(−1.06, 0.24)
    assert_eq!(numbers(&paying), [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
    let config = KlCovConfig { coefficient: 0.5 };
    let out = kl_cov_loss(&f.new, &f.old, &f.advantages, &paying, &config).unwrap();
    let r = [0.4f64, -0.2, 0.05, -0.5, 0.2].map(f64::exp);
    let want = [
        -r[0],
        -r[1],
        -r[2] + 0.5 * 0.05,
        0.5 * r[3] + 0.5 * 0.5,
        0.5 * r[4],
        0.0,
    ];
    assert_close(&numbers(&out.loss.loss), &want, 1e-14, "loss");
}

#[test]
fn clip_cov_draws_among_the_tokens_that_the_clip_left() {
    use rand::{SeedableRng, rngs::StdRng};
    let f = fixture();
    // covariances 0.264, −0.156, 0.384, 0.954, −0.216; the clip of 0.2 stops the first and the fourth
    let config = ClipCovConfig {
        low: -0.2,
        share: 0.5,
        ..ClipCovConfig::default()
    };
    let draw = |seed| {
        let mut rng = StdRng::seed_from_u64(seed);
        let kept = clip_cov_tokens(&f.new, &f.old, &f.advantages, &config, &mut rng);
        numbers(&kept.unwrap())
    };
    assert_eq!(draw(3), [1.0, 0.0, 0.0, 1.0, 1.0, 0.0]);
    assert_eq!(draw(3), draw(4), "both of two");
    let one = ClipCovConfig {
        share: 1e-4,
        ..config.clone()
    };
    let mut seen = [0.0; 6];
    for seed in 0..20 {
        let mut rng = StdRng::seed_from_u64(seed);
        let kept = clip_cov_tokens(&f.new, &f.old, &f.advantages, &one, &mut rng).unwrap();
        for (seen, kept) in seen.iter_mut().zip(numbers(&kept)) {
            *seen += 1.0 - kept;
        }
    }
    assert_eq!([seen[0], seen[3], seen[4], seen[5]], [0.0, 0.0, 0.0, 20.0]);
    assert!(
        seen[1] > 0.0 && seen[2] > 0.0 && seen[1] + seen[2] == 20.0,
        "{seen:?}"
    );
}

#[test]
fn the_likelihood_of_right_answers_divides_by_their_tokens() {
    let f = fixture();
    let right = Tensor::new(&[0u8, 1], &Device::Cpu).unwrap();
    let config = AddedNllConfig { weight: 0.1 };
    let term = added_nll_loss(&f.new, Some(&right), &config).unwrap();
    let loss = term.reduce(TOKEN_MEAN).unwrap();
    assert_close(&numbers(&loss), &[0.1 * (2.0 + 0.7) / 2.0], 1e-15, "vapo");
    // observations: the mask of the log-probabilities says which
    let seen = TokenLogProbs::new(&f.values, &bits(&[&[0, 1, 0], &[0, 0, 0]])).unwrap();
    let loss = added_nll_loss(&seen, None, &config).unwrap();
    let loss = loss.reduce(TOKEN_MEAN).unwrap();
    assert_close(&numbers(&loss), &[0.1 * 1.2], 1e-15, "echo");
}
