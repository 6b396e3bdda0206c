use super::super::{Row, constant, trained};
use candle_align::{DpoConfig, Pair, Result, dpo_loss};
use candle_core::Tensor;

fn pair(chosen: &Tensor, rejected: &Tensor) -> Pair<Tensor> {
    Pair {
        chosen: chosen.clone(),
        rejected: rejected.clone(),
    }
}

fn with(config: DpoConfig, x: &[Tensor]) -> Result<Tensor> {
    let reference = pair(&x[2], &x[3]);
    Ok(dpo_loss(&pair(&x[0], &x[1]), Some(&reference), &config)?.loss)
}

pub fn rows() -> Vec<Row> {
    let moved = || {
        vec![
            trained("policy.chosen", &[3], &[-3.5, -2.7, -8.0]),
            trained("policy.rejected", &[3], &[-4.5, -4.8, -5.0]),
            constant("reference.chosen", &[3], &[-3.1, -3.0, -6.0]),
            constant("reference.rejected", &[3], &[-4.0, -4.9, -5.5]),
        ]
    };
    let mut start = moved();
    (start[2].data, start[3].data) = (start[0].data.clone(), start[1].data.clone());
    vec![
        Row {
            name: "dpo",
            inputs: moved(),
            loss: |x| with(DpoConfig::default(), x),
            independent: true,
        },
        Row {
            name: "dpo, beta 0.7, label smoothing 0.2",
            inputs: moved(),
            loss: |x| {
                let config = DpoConfig {
                    beta: 0.7,
                    label_smoothing: 0.2,
                };
                with(config, x)
            },
            independent: true,
        },
        Row {
            name: "dpo, at its start",
            inputs: start,
            loss: |x| with(DpoConfig::default(), x),
            independent: true,
        },
        Row {
            name: "dpo, without a reference",
            inputs: moved()[..2].to_vec(),
            loss: |x| Ok(dpo_loss(&pair(&x[0], &x[1]), None, &DpoConfig::default())?.loss),
            independent: true,
        },
    ]
}
