//! Distillation and the supervised losses since, against TRL.

use super::EXACT;
use super::reader::{Case, each};
use candle_align::distillation::divergence::{
    Direction, DivergenceConfig, divergence, divergence_from_hidden,
};
use candle_align::distillation::gkd::gkd_loss;
use candle_align::distillation::iw_opd::{IwOpdConfig, iw_opd_weights};
use candle_align::distillation::minillm::{minillm_loss, teacher_mixed_weights};
use candle_align::distillation::on_policy::{Credit, ReverseKlConfig, reverse_kl_advantages};
use candle_align::sft::dft::dft_loss;
use candle_align::sft::eaft::{EaftConfig, eaft_loss};
use candle_align::{OutputHead, Reduction, Result, Statistics, TokenLogProbs, TokenLoss};

#[test]
fn distillation() {
    each("distillation", |case| match case.word("kind") {
        "gkd" => gkd(case),
        "hidden" => hidden(case),
        "top" => top(case),
        "advantages" => advantages(case),
        "iw_opd" => iw_opd(case),
        "minillm" => minillm(case),
        "dft" | "eaft" => supervised(case),
        other => panic!("{}: {other}", case.name),
    });
}

fn config(case: &Case) -> DivergenceConfig {
    DivergenceConfig {
        direction: case.part("direction"),
        temperature: case.optional("temperature").unwrap_or(1.0),
        top_k: case.part("top_k"),
    }
}

fn mean_or_count(case: &Case) -> Reduction {
    match case.optional("count") {
        Some(count) => Reduction::SumOver { count },
        None => Reduction::TokenMean,
    }
}

fn gkd(case: &Case) -> Result<()> {
    let student = case.var("student")?;
    let loss = gkd_loss(
        &student,
        &case.input("teacher")?,
        &case.mask("mask")?,
        &config(case),
    )?;
    let loss = loss.reduce(mean_or_count(case))?;
    case.check("loss", &loss, EXACT)?;
    case.check_gradient("student", &loss, &student, EXACT)
}

fn hidden(case: &Case) -> Result<()> {
    let (student, weight) = (case.var("student")?, case.var("weight")?);
    let head = OutputHead::new(&weight, None)?;
    let teacher = OutputHead::new(&case.input("matrix")?, None)?;
    let models = ((&*student, &head), (&case.input("teacher")?, &teacher));
    let loss = divergence_from_hidden(models.0, models.1, &case.mask("mask")?, &config(case))?;
    let loss = loss.reduce(Reduction::Sum)?;
    case.check("loss", &loss, EXACT)?;
    case.check_gradient("student", &loss, &student, EXACT)?;
    case.check_gradient("weight", &loss, &weight, EXACT)
}

fn top(case: &Case) -> Result<()> {
    let student = case.var("student")?;
    let loss = divergence(
        &student,
        &case.input("teacher")?,
        &case.mask("mask")?,
        &config(case),
    )?;
    let loss = loss.reduce(Reduction::Sum)?;
    case.check("loss", &loss, EXACT)?;
    case.check_gradient("student", &loss, &student, EXACT)
}

fn advantages(case: &Case) -> Result<()> {
    let student = TokenLogProbs::new(&case.input("student")?, &case.mask("mask")?)?;
    let config = ReverseKlConfig {
        discount: case.number("discount"),
        length_normalization: true,
        credit: Credit::FromToken,
    };
    let advantages = reverse_kl_advantages(&student, &case.input("teacher")?, &config)?;
    case.check("advantages", &advantages, EXACT)
}

fn iw_opd(case: &Case) -> Result<()> {
    let (student, mask) = (case.var("student")?, case.mask("mask")?);
    let policy = TokenLogProbs::aligned(
        &student,
        &case.index("tokens")?,
        &mask,
        Statistics::default(),
    )?;
    let written = match case.flag("rollout") {
        true => TokenLogProbs::new(&case.input("rollout")?, &mask)?,
        false => TokenLogProbs::new(&policy.values().detach(), &mask)?,
    };
    let config = ReverseKlConfig::default();
    let advantages = reverse_kl_advantages(&written, &case.input("teacher")?, &config)?;
    let config = IwOpdConfig {
        gamma: case.number("gamma"),
    };
    let weights = iw_opd_weights(&advantages, &mask, &config)?;
    let loss = ((advantages * weights)? * policy.values())?.neg()?;
    let loss = TokenLoss { loss, mask }.reduce(Reduction::TokenMean)?;
    case.check("loss", &loss, EXACT)?;
    case.check_gradient("student", &loss, &student, EXACT)
}

fn minillm(case: &Case) -> Result<()> {
    let student = case.var("student")?;
    let (teacher, mask) = (case.input("teacher")?, case.mask("mask")?);
    let of = |logits| {
        TokenLogProbs::aligned(logits, &case.index("tokens")?, &mask, Statistics::default())
    };
    let (policy, log_p) = (of(&student)?, of(&teacher)?);
    let reverse = DivergenceConfig {
        direction: Direction::Reverse,
        ..Default::default()
    };
    let single_step = divergence(&student, &teacher, &mask, &reverse)?;
    let config = ReverseKlConfig {
        discount: 1.0,
        length_normalization: true,
        credit: Credit::AfterToken,
    };
    let advantages = reverse_kl_advantages(&policy, log_p.values(), &config)?;
    let weights = teacher_mixed_weights(&policy, log_p.values(), case.number("alpha"))?;
    let loss = minillm_loss(&policy, &single_step, &advantages, Some(&weights))?;
    let loss = loss.reduce(Reduction::Sum)?;
    case.check("loss", &loss, EXACT)?;
    case.check_gradient("student", &loss, &student, EXACT)
}

fn supervised(case: &Case) -> Result<()> {
    let logits = case.var("logits")?;
    let log_probs =
        TokenLogProbs::next_token(&logits, &case.index("tokens")?, &case.mask("mask")?)?;
    let loss = match case.word("kind") {
        "dft" => dft_loss(&log_probs)?,
        _ => {
            let config = EaftConfig {
                k: case.number("k") as usize,
                scale: case.number("scale"),
                power: case.number("power"),
            };
            eaft_loss(&log_probs, &logits, &config)?
        }
    };
    let loss = loss.reduce(mean_or_count(case))?;
    case.check("loss", &loss, EXACT)?;
    case.check_gradient("logits", &loss, &logits, EXACT)
}
