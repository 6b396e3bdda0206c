use super::super::super::{Input, Row, trained};
use super::{below, inside, means, pair, row, token_loss, token_losses};
use candle_align::Result;
use candle_align::ranking::*;
use candle_core::Tensor;

fn sums() -> Vec<Input> {
    vec![
        trained("policy.chosen", &[3], &[-3.5, -2.7, -8.0]),
        trained("policy.rejected", &[3], &[-4.5, -4.8, -5.0]),
    ]
}

fn likelihood(mut inputs: Vec<Input>) -> Vec<Input> {
    inputs.push(token_losses("chosen.loss"));
    inputs
}

fn gold() -> Vec<Input> {
    let mut inputs = sums();
    inputs.push(token_losses("gold.loss"));
    inputs
}

/// Means that are log-probabilities.
fn certain(x: &[Tensor]) -> Result<candle_align::Pair<Tensor>> {
    Ok(pair(&below(&x[0])?, &below(&x[1])?))
}

fn alpha_po(x: &[Tensor], config: AlphaPoConfig) -> Result<Tensor> {
    let means = pair(&inside(&x[0])?, &inside(&x[1])?);
    Ok(alpha_po_loss(&means, &config)?.loss)
}

pub fn rows() -> Vec<Row> {
    vec![
        row("simpo", means(), |x| {
            Ok(simpo_loss(&pair(&x[0], &x[1]), &SimpoConfig::default())?.loss)
        }),
        row("simpo, beta 0.7, gamma 0.3", means(), |x| {
            Ok(simpo_loss(
                &pair(&x[0], &x[1]),
                &SimpoConfig {
                    beta: 0.7,
                    margin: RequiredLead::Gamma(0.3),
                },
            )?
            .loss)
        }),
        row("alpha po", means(), |x| {
            alpha_po(x, AlphaPoConfig::default())
        }),
        row("alpha po, alpha -0.5", means(), |x| {
            alpha_po(
                x,
                AlphaPoConfig {
                    alpha: -0.5,
                    ..Default::default()
                },
            )
        }),
        row("alpha po, alpha 0", means(), |x| {
            alpha_po(
                x,
                AlphaPoConfig {
                    alpha: 0.0,
                    ..Default::default()
                },
            )
        }),
        row("odds ratio", means(), |x| {
            Ok(odds_ratio_loss(&certain(x)?)?.loss)
        }),
        row("orpo", likelihood(means()), |x| {
            Ok(orpo_loss(&certain(x)?, &token_loss(&x[2])?, &OrpoConfig::default())?.loss)
        }),
        row("orpo, lambda 0.7, sums", likelihood(means()), |x| {
            Ok(orpo_loss(
                &certain(x)?,
                &token_loss(&x[2])?,
                &OrpoConfig {
                    lambda: 0.7,
                    tokens: ReferenceTokens::Sum,
                },
            )?
            .loss)
        }),
        row("simper", means(), |x| Ok(simper_loss(&certain(x)?)?.loss)),
        row("cpo", likelihood(sums()), |x| {
            Ok(cpo_loss(
                &pair(&x[0], &x[1]),
                &token_loss(&x[2])?,
                &CpoConfig::default(),
            )?
            .loss)
        }),
        row(
            "cpo, beta 0.7, smoothing 0.2, alpha 0.3, means",
            likelihood(sums()),
            |x| {
                let config = CpoConfig {
                    beta: 0.7,
                    label_smoothing: 0.2,
                    alpha: 0.3,
                    tokens: ReferenceTokens::Mean,
                };
                Ok(cpo_loss(&pair(&x[0], &x[1]), &token_loss(&x[2])?, &config)?.loss)
            },
        ),
        row("tpo", gold(), |x| {
            Ok(tpo_loss(
                &pair(&x[0], &x[1]),
                &token_loss(&x[2])?,
                &TpoConfig::default(),
            )?
            .loss)
        }),
        row(
            "tpo, beta 0.7, smoothing 0.2, alpha 0.3, a lead, sums",
            gold(),
            |x| {
                let config = TpoConfig {
                    beta: 0.7,
                    label_smoothing: 0.2,
                    alpha: 0.3,
                    margin: RequiredLead::GammaOverBeta(0.4),
                    tokens: ReferenceTokens::Sum,
                };
                Ok(tpo_loss(&pair(&x[0], &x[1]), &token_loss(&x[2])?, &config)?.loss)
            },
        ),
    ]
}
