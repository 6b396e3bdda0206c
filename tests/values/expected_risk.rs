use crate::common::lists::list;
use crate::common::{EXACT, assert_close, bits, matrix, numbers};
use candle_align::ranking::ReferenceTokens;
use candle_align::{Candidates, ExpectedRiskConfig, TokenLoss, expected_risk_loss};

fn risk(c: &Candidates, length_power: f64) -> Vec<f64> {
    let config = ExpectedRiskConfig {
        length_power,
        ..Default::default()
    };
    numbers(&expected_risk_loss(c, None, &config).unwrap().loss)
}

#[test]
fn costs_by_shares_of_the_length_means() {
    // means log 0.2, log 0.1, log 0.5 with a common factor e^{−1}
    let lengths = [3.0, 5.0, 1.0];
    let p = [0.2f64, 0.1, 0.5];
    let sums = [0, 1, 2].map(|i| lengths[i] * (p[i].ln() - 1.0));
    let c = list(&sums, &lengths, &[0.9, 0.2, 0.4]);
    let want = (0.2 * 0.1 + 0.1 * 0.8 + 0.5 * 0.6) / 0.8;
    assert_close(&risk(&c, 1.0), &[want], EXACT, "means");
    for a in [0.0, 0.4, 2.0] {
        let weights = [0, 1, 2].map(|i| (sums[i] / lengths[i].powf(a)).exp());
        let total: f64 = weights.iter().sum();
        let want = (weights[0] * 0.1 + weights[1] * 0.8 + weights[2] * 0.6) / total;
        assert_close(&risk(&c, a), &[want], EXACT, "power");
    }
}

#[test]
fn rewards_outside_the_range_of_bleu() {
    // costs of −3 and 1.5
    let c = list(&[0.75f64.ln(), 0.25f64.ln()], &[1.0, 1.0], &[4.0, -0.5]);
    assert_close(&risk(&c, 1.0), &[0.75 * -3.0 + 0.25 * 1.5], EXACT, "costs");
}

#[test]
fn lists_of_one_of_equals_and_short_ones() {
    assert_close(
        &risk(&list(&[-3.0], &[2.0], &[0.7]), 1.0),
        &[1.0 - 0.7],
        EXACT,
        "one answer",
    );
    assert_close(
        &risk(&list(&[-3.0, -1.0], &[2.0, 1.0], &[0.7; 2]), 1.0),
        &[1.0 - 0.7],
        EXACT,
        "equals",
    );
    let short = Candidates::new(
        &matrix(&[&[-0.1, 2.0 * 0.3f64.ln(), f64::NAN, 4.0 * 0.1f64.ln()]]),
        &matrix(&[&[1.0, 2.0, f64::NAN, 4.0]]),
        &matrix(&[&[9.0, 0.9, f64::NAN, 0.1]]),
        Some(&bits(&[&[0, 1, 0, 1]])),
    )
    .unwrap();
    assert_close(
        &risk(&short, 1.0),
        &[0.75 * 0.1 + 0.25 * 0.9],
        EXACT,
        "short list",
    );
}

#[test]
fn beside_the_tokens_of_a_reference() {
    let c = Candidates::new(
        &matrix(&[&[0.75f64.ln(), 0.25f64.ln()], &[-1.0, -1.0]]),
        &matrix(&[&[1.0, 1.0], &[1.0, 1.0]]),
        &matrix(&[&[0.8, 0.2], &[0.3, 0.5]]),
        None,
    )
    .unwrap();
    let reference = TokenLoss {
        loss: matrix(&[&[0.5, 0.25, 1.5], &[f64::NAN, 2.0, f64::NAN]]),
        mask: bits(&[&[1, 1, 1], &[0, 1, 0]]),
    };
    let risks = [0.75 * 0.2 + 0.25 * 0.8, 0.5 * 0.7 + 0.5 * 0.5];
    for (tokens, of_tokens) in [
        (ReferenceTokens::Sum, [2.25, 2.0]),
        (ReferenceTokens::Mean, [0.75, 2.0]),
    ] {
        for alpha in [0.0, 0.3, 1.0] {
            let config = ExpectedRiskConfig {
                token_weight: alpha,
                reference: tokens,
                ..Default::default()
            };
            let out = expected_risk_loss(&c, Some(&reference), &config).unwrap();
            let ranking = risks.map(|r| (1.0 - alpha) * r);
            let sft = of_tokens.map(|t| alpha * t);
            assert_close(&numbers(&out.ranking), &ranking, EXACT, "risk");
            assert_close(&numbers(&out.sft), &sft, EXACT, "tokens");
            let want = [ranking[0] + sft[0], ranking[1] + sft[1]];
            assert_close(&numbers(&out.loss), &want, EXACT, "loss");
        }
    }
}

#[test]
fn a_reference_of_no_weight_is_left_out_whatever_it_holds() {
    let c = list(&[0.75f64.ln(), 0.25f64.ln()], &[1.0, 1.0], &[0.8, 0.2]);
    let reference = TokenLoss {
        loss: matrix(&[&[f64::INFINITY, 0.5]]),
        mask: bits(&[&[1, 1]]),
    };
    let out = expected_risk_loss(&c, Some(&reference), &ExpectedRiskConfig::default()).unwrap();
    assert_eq!(numbers(&out.sft), [0.0]);
    let risk = [0.75 * 0.2 + 0.25 * 0.8];
    assert_close(&numbers(&out.loss), &risk, EXACT, "the risk alone");
}

#[test]
fn the_settings_by_default() {
    let want = ExpectedRiskConfig {
        length_power: 1.0,
        token_weight: 0.0,
        reference: ReferenceTokens::Sum,
    };
    assert_eq!(ExpectedRiskConfig::default(), want);
}
