use super::super::super::{Input, Row, constant, trained};
use super::{moved, pair, ratios, row, scored, start, token_loss, token_losses, with};
use candle_align::ranking::*;
use candle_align::{Pair, Result};
use candle_core::Tensor;

fn lengths() -> Vec<Input> {
    with(
        ["lengths.chosen", "lengths.rejected"],
        [4.0, 2.0, 3.0],
        [3.0, 5.0, 3.0],
    )
}

fn likelihood() -> Vec<Input> {
    let mut inputs = moved();
    inputs.push(token_losses("chosen.loss"));
    inputs
}

/// Leads of 0.499 and 0.501, where 0.5 is asked for.
fn kink() -> Vec<Input> {
    vec![
        trained("policy.chosen", &[2], &[-2.501, -2.499]),
        trained("policy.rejected", &[2], &[-4.0, -4.0]),
        constant("reference.chosen", &[2], &[-3.0, -3.0]),
        constant("reference.rejected", &[2], &[-4.0, -4.0]),
    ]
}

fn f_dpo(x: &[Tensor], divergence: FDivergence) -> Result<Tensor> {
    let config = FDpoConfig {
        beta: 0.3,
        divergence,
    };
    let x: Vec<Tensor> = x.iter().map(super::inside).collect::<Result<_>>()?;
    Ok(f_dpo_loss(&ratios(&x)?, &config)?.loss)
}

fn normalized(x: &[Tensor], beta: f64) -> Result<Tensor> {
    let config = LengthNormalizedDpoConfig { beta };
    Ok(length_normalized_dpo_loss(&ratios(x)?, &pair(&x[4], &x[5]), &config)?.loss)
}

fn sppo(x: &[Tensor], beta: f64) -> Result<Tensor> {
    let wins: Pair<Tensor> = pair(&x[4], &x[5]);
    Ok(sppo_loss(&ratios(x)?, &wins, &SppoConfig { beta })?.loss)
}

pub fn rows() -> Vec<Row> {
    vec![
        row("ipo", moved(), |x| {
            Ok(ipo_loss(&ratios(x)?, &IpoConfig::default())?.loss)
        }),
        row("ipo, at its start, beta 0.7", start(), |x| {
            Ok(ipo_loss(&ratios(x)?, &IpoConfig { beta: 0.7 })?.loss)
        }),
        row("ipo per token", lengths(), |x| {
            Ok(ipo_loss(
                &ratios(x)?.per_token(&pair(&x[4], &x[5]))?,
                &IpoConfig { beta: 0.4 },
            )?
            .loss)
        }),
        row("ipo, forward kl", moved(), |x| {
            Ok(ipo_loss(
                &scored(x, FDivergence::ForwardKl)?,
                &IpoConfig { beta: 0.4 },
            )?
            .loss)
        }),
        row("f-dpo, forward kl", moved(), |x| {
            f_dpo(x, FDivergence::ForwardKl)
        }),
        row("f-dpo, jensen-shannon", moved(), |x| {
            f_dpo(x, FDivergence::JensenShannon)
        }),
        row("f-dpo, alpha 0.5", moved(), |x| {
            f_dpo(x, FDivergence::Alpha { alpha: 0.5 })
        }),
        row("f-dpo, alpha 1.4, at its start", start(), |x| {
            f_dpo(x, FDivergence::Alpha { alpha: 1.4 })
        }),
        row("length-normalized dpo", lengths(), |x| normalized(x, 0.1)),
        row("length-normalized dpo, beta 5", lengths(), |x| {
            normalized(x, 5.0)
        }),
        row("robust dpo", moved(), |x| {
            Ok(robust_dpo_loss(&ratios(x)?, &RobustDpoConfig::default())?.loss)
        }),
        row(
            "robust dpo, beta 0.7, flip rate 0.3, at its start",
            start(),
            |x| {
                Ok(robust_dpo_loss(
                    &ratios(x)?,
                    &RobustDpoConfig {
                        beta: 0.7,
                        flip_rate: 0.3,
                    },
                )?
                .loss)
            },
        ),
        row("hinge dpo", moved(), |x| {
            Ok(hinge_dpo_loss(&ratios(x)?, &HingeDpoConfig::default())?.loss)
        }),
        row("hinge dpo, beside its kink", kink(), |x| {
            Ok(hinge_dpo_loss(&ratios(x)?, &HingeDpoConfig { beta: 2.0 })?.loss)
        }),
        row("exo pair", moved(), |x| {
            Ok(exo_pair_loss(&ratios(x)?, &ExoConfig::default())?.loss)
        }),
        row(
            "exo pair, beta 0.7, smoothing 0.2, at its start",
            start(),
            |x| {
                Ok(exo_pair_loss(
                    &ratios(x)?,
                    &ExoConfig {
                        beta: 0.7,
                        label_smoothing: 0.2,
                    },
                )?
                .loss)
            },
        ),
        row("nca pair", moved(), |x| {
            Ok(nca_pair_loss(&ratios(x)?, &NcaPairConfig::default())?.loss)
        }),
        row("nca pair, at its start, beta 0.7", start(), |x| {
            Ok(nca_pair_loss(&ratios(x)?, &NcaPairConfig { beta: 0.7 })?.loss)
        }),
        row(
            "sppo",
            with(
                ["wins.chosen", "wins.rejected"],
                [0.9, 0.6, 1.0],
                [0.1, 0.4, 0.0],
            ),
            |x| sppo(x, 0.1),
        ),
        row(
            "sppo, beta 0.7",
            with(
                ["wins.chosen", "wins.rejected"],
                [0.9, 0.6, 1.0],
                [0.1, 0.4, 0.0],
            ),
            |x| sppo(x, 0.7),
        ),
        row("cal-dpo", moved(), |x| {
            Ok(cal_dpo_loss(&ratios(x)?, &CalDpoConfig { beta: 0.4 })?.loss)
        }),
        row("cal-dpo, at its start, beta 2", start(), |x| {
            Ok(cal_dpo_loss(&ratios(x)?, &CalDpoConfig { beta: 2.0 })?.loss)
        }),
        row("apo zero", moved(), |x| {
            Ok(apo_zero_loss(&ratios(x)?, &ApoConfig::default())?.loss)
        }),
        row("apo zero, at its start, beta 0.7", start(), |x| {
            Ok(apo_zero_loss(&ratios(x)?, &ApoConfig { beta: 0.7 })?.loss)
        }),
        row("apo down", moved(), |x| {
            Ok(apo_down_loss(&ratios(x)?, &ApoConfig { beta: 0.7 })?.loss)
        }),
        row("apo down, at its start", start(), |x| {
            Ok(apo_down_loss(&ratios(x)?, &ApoConfig::default())?.loss)
        }),
        row("discopop", moved(), |x| {
            Ok(discopop_loss(&ratios(x)?, &DiscopopConfig::default())?.loss)
        }),
        row("discopop, at its start, beta 0.7, tau 0.3", start(), |x| {
            Ok(discopop_loss(
                &ratios(x)?,
                &DiscopopConfig {
                    beta: 0.7,
                    tau: 0.3,
                },
            )?
            .loss)
        }),
        row("rpo", likelihood(), |x| {
            Ok(rpo_loss(&ratios(x)?, &token_loss(&x[4])?, &RpoConfig::default())?.loss)
        }),
        row("rpo, alpha 0.3, sums", likelihood(), |x| {
            let config = RpoConfig {
                alpha: 0.3,
                tokens: ReferenceTokens::Sum,
                ..Default::default()
            };
            Ok(rpo_loss(&ratios(x)?, &token_loss(&x[4])?, &config)?.loss)
        }),
    ]
}
