use super::super::{Input, Row, constant, index, mask, trained};
use candle_align::distillation::divergence::{
    ChosenBy, Direction, DivergenceConfig, TopK, divergence,
};
use candle_align::distillation::gkd::gkd_loss;
use candle_align::distillation::iw_opd::{IwOpdConfig, iw_opd_weights};
use candle_align::distillation::minillm::{minillm_loss, teacher_mixed_weights};
use candle_align::distillation::on_policy::{Credit, ReverseKlConfig, reverse_kl_advantages};
use candle_align::sft::dft::dft_loss;
use candle_align::sft::eaft::{EaftConfig, eaft_loss};
use candle_align::{Result, TokenLogProbs, TokenLoss};
use candle_core::{D, Tensor};

const FORWARD: Direction = Direction::Forward;
const REVERSE: Direction = Direction::Reverse;
const MIXED: Direction = Direction::JensenShannon { weight: 0.3 };

fn per_example(loss: TokenLoss) -> Result<Tensor> {
    Ok(loss.loss.sum(D::Minus1)?)
}

#[rustfmt::skip]
const STUDENT: [f64; 24] = [
    0.3, -1.0, 2.0, 0.4,   0.0, 0.0, 0.0, 0.0,   1.5, 0.2, -0.7, 0.9,
    -0.4, 0.9, 0.1, -2.0,  2.2, -2.0, 0.5, 0.7,  0.6, 0.6, -1.1, 0.3,
];
#[rustfmt::skip]
const TEACHER: [f64; 24] = [
    1.3, -0.5, 0.2, 0.1,   0.4, -0.6, 1.1, 0.0,  1.5, 0.2, -0.7, 0.9,
    -1.4, 0.2, 0.8, 1.0,   2.0, -1.0, 0.3, -0.9, 0.0, 1.6, -0.1, 0.5,
];

fn logits(teacher: &[f64; 24]) -> Vec<Input> {
    vec![
        trained("student", &[2, 3, 4], &STUDENT),
        constant("teacher", &[2, 3, 4], teacher),
        mask("mask", &[2, 3], &[1, 1, 1, 0, 1, 1]),
    ]
}

fn at(x: &[Tensor], direction: Direction, top_k: Option<TopK>, temperature: f64) -> Result<Tensor> {
    let config = DivergenceConfig {
        direction,
        temperature,
        top_k,
    };
    per_example(divergence(&x[0], &x[1], &x[2], &config)?)
}

fn top(k: usize, of: ChosenBy) -> Option<TopK> {
    Some(TopK { k, of })
}

#[rustfmt::skip]
const POLICY: [f64; 6] = [-0.4, -1.3, -2.0, -1.1, -0.2, -2.5];
#[rustfmt::skip]
const OTHER: [f64; 6] = [-0.9, -0.3, -1.7, -2.1, -0.8, -0.6];

fn tokens(name: &'static str) -> Vec<Input> {
    vec![
        trained(name, &[2, 3], &POLICY),
        mask("mask", &[2, 3], &[1, 1, 1, 0, 1, 1]),
    ]
}

/// The advantages, in the policy loss at the policy that wrote the answers.
fn on_policy(x: &[Tensor], config: &ReverseKlConfig) -> Result<Tensor> {
    let student = TokenLogProbs::new(&x[2], &x[1])?;
    let advantages = reverse_kl_advantages(&student, &x[3], config)?;
    let policy = TokenLogProbs::new(&x[0], &x[1])?;
    let nothing = TokenLoss {
        loss: advantages.zeros_like()?,
        mask: x[1].clone(),
    };
    per_example(minillm_loss(&policy, &nothing, &advantages, None)?)
}

fn on_policy_inputs() -> Vec<Input> {
    let mut inputs = tokens("policy");
    inputs.push(constant("values", &[2, 3], &OTHER));
    inputs.push(constant(
        "teacher",
        &[2, 3],
        &[-0.5, -1.6, -0.2, -1.9, -0.7, -1.4],
    ));
    inputs
}

fn minillm(x: &[Tensor]) -> Result<Tensor> {
    let policy = TokenLogProbs::new(&x[0], &x[1])?;
    let single_step = TokenLoss {
        loss: x[2].clone(),
        mask: x[1].clone(),
    };
    let weights = x.get(4);
    per_example(minillm_loss(&policy, &single_step, &x[3], weights)?)
}

fn minillm_inputs(weights: bool) -> Vec<Input> {
    let mut inputs = tokens("policy");
    inputs.push(trained(
        "single_step.loss",
        &[2, 3],
        &[0.4, 0.1, 1.2, 0.3, 0.0, 0.8],
    ));
    inputs.push(constant(
        "advantages",
        &[2, 3],
        &[-0.5, 1.6, 0.0, 0.9, -0.7, 0.4],
    ));
    if weights {
        inputs.push(constant(
            "weights",
            &[2, 3],
            &[1.0, 0.4, 1.2, 0.9, 0.7, 0.0],
        ));
    }
    inputs
}

/// The weights for answers of the mixture, times the policy's log-probabilities.
fn mixed(x: &[Tensor]) -> Result<Tensor> {
    let student = TokenLogProbs::new(&x[2], &x[1])?;
    let weights = teacher_mixed_weights(&student, &x[3], 0.2)?;
    let policy = TokenLogProbs::new(&x[0], &x[1])?;
    Ok((weights * policy.values())?.sum(D::Minus1)?)
}

/// −P(yₜ), with the gradient of the loss: a weight that is detached has no place in a central difference.
fn dft(x: &[Tensor]) -> Result<Tensor> {
    let log_probs = TokenLogProbs::next_token(&x[0], &x[1], &x[2])?;
    let loss = dft_loss(&log_probs)?;
    let p = candle_align::math::masked(&log_probs.values().exp()?, &loss.mask)?;
    let same = (&loss.loss - loss.loss.detach())?;
    Ok((same - p.detach())?.sum(D::Minus1)?)
}

fn eaft(x: &[Tensor], config: &EaftConfig) -> Result<Tensor> {
    let log_probs = TokenLogProbs::new(&x[0], &x[1])?;
    per_example(eaft_loss(&log_probs, &x[2], config)?)
}

fn eaft_inputs() -> Vec<Input> {
    let mut inputs = tokens("log_probs");
    inputs.push(constant("logits", &[2, 3, 4], &STUDENT));
    inputs
}

pub fn rows() -> Vec<Row> {
    let row = |name, inputs, loss| Row {
        name,
        inputs,
        loss,
        independent: true,
    };
    let mut answers = vec![
        trained("logits", &[2, 3, 4], &STUDENT),
        index("tokens", &[2, 3], &[0, 2, 1, 3, 1, 0]),
    ];
    answers.push(mask("mask", &[2, 3], &[0, 1, 1, 1, 0, 1]));
    vec![
        row("divergence, forward", logits(&TEACHER), |x| {
            at(x, FORWARD, None, 1.0)
        }),
        row("divergence, reverse", logits(&TEACHER), |x| {
            at(x, REVERSE, None, 1.0)
        }),
        row("divergence, Jensen-Shannon", logits(&TEACHER), |x| {
            at(x, MIXED, None, 1.0)
        }),
        row(
            "divergence, forward, temperature 2",
            logits(&TEACHER),
            |x| at(x, FORWARD, None, 2.0),
        ),
        row(
            "divergence, reverse, temperature 0.7",
            logits(&TEACHER),
            |x| at(x, REVERSE, None, 0.7),
        ),
        row(
            "divergence, Jensen-Shannon, where both agree",
            logits(&STUDENT),
            |x| at(x, MIXED, None, 1.0),
        ),
        row(
            "divergence, forward, teacher's top 2",
            logits(&TEACHER),
            |x| at(x, FORWARD, top(2, ChosenBy::Teacher), 1.0),
        ),
        row("gkd", logits(&TEACHER), |x| {
            per_example(gkd_loss(&x[0], &x[1], &x[2], &DivergenceConfig::default())?)
        }),
        row("on-policy, discount 0", on_policy_inputs(), |x| {
            on_policy(x, &ReverseKlConfig::default())
        }),
        row(
            "on-policy, discount 0.9, normalized",
            on_policy_inputs(),
            |x| {
                let config = ReverseKlConfig {
                    discount: 0.9,
                    length_normalization: true,
                    credit: Credit::AfterToken,
                };
                on_policy(x, &config)
            },
        ),
        row("iw-opd", on_policy_inputs(), |x| {
            let student = TokenLogProbs::new(&x[2], &x[1])?;
            let advantages = reverse_kl_advantages(&student, &x[3], &ReverseKlConfig::default())?;
            let weights = iw_opd_weights(&advantages, &x[1], &IwOpdConfig::default())?;
            let policy = TokenLogProbs::new(&x[0], &x[1])?;
            let nothing = TokenLoss {
                loss: advantages.zeros_like()?,
                mask: x[1].clone(),
            };
            per_example(minillm_loss(
                &policy,
                &nothing,
                &(advantages * weights)?,
                None,
            )?)
        }),
        row("minillm", minillm_inputs(false), minillm),
        row("minillm, weighted", minillm_inputs(true), minillm),
        row("minillm's weights", on_policy_inputs(), mixed),
        row("dft", answers, dft),
        row("eaft", eaft_inputs(), |x| eaft(x, &EaftConfig::default())),
        row("eaft, top 2, power 1.5", eaft_inputs(), |x| {
            let config = EaftConfig {
                k: 2,
                scale: 1.0,
                power: 1.5,
            };
            eaft(x, &config)
        }),
    ]
}
