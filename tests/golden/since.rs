//! The preference objectives since the survey, against TRL's own trainers and papers in scalars.

use super::EXACT;
use super::reader::{Case, each};
use candle_align::online::reward_models::{
    GrmAuxiliary, GrmConfig, ImplicitRewardConfig, SmoothedRewardConfig, VerdictShare, grm_loss,
    implicit_reward_loss, outcome_reward_loss, process_reward_loss, smoothed_reward_loss,
    verdict_score,
};
use candle_align::ranking::*;
use candle_align::{
    Candidates, DpoConfig, Pair, Reduction, Result, SftConfig, Statistics, TokenLogProbs,
    TokenLoss, dpo_loss, sft_loss,
};
use candle_core::{DType, Device, Tensor, Var};

fn rows(x: &Tensor, from: usize, count: usize) -> Result<Tensor> {
    Ok(x.narrow(0, from, count)?)
}

/// Both answers' tokens; the chosen rows come first.
fn tokens(values: &Tensor, mask: &Tensor) -> Result<Pair<TokenLogProbs>> {
    let half = values.dim(0)? / 2;
    let of = |from| TokenLogProbs::new(&rows(values, from, half)?, &rows(mask, from, half)?);
    Ok(Pair {
        chosen: of(0)?,
        rejected: of(half)?,
    })
}

fn sums(tokens: &Pair<TokenLogProbs>) -> Result<Pair<Tensor>> {
    Ok(Pair {
        chosen: tokens.chosen.sum()?,
        rejected: tokens.rejected.sum()?,
    })
}

fn lengths(tokens: &Pair<TokenLogProbs>) -> Result<Pair<Tensor>> {
    Ok(Pair {
        chosen: tokens.chosen.lengths()?,
        rejected: tokens.rejected.lengths()?,
    })
}

fn divergence(case: &Case) -> FDivergence {
    match case.word("divergence") {
        "reverse_kl" => FDivergence::ReverseKl,
        "forward_kl" => FDivergence::ForwardKl,
        "js_divergence" => FDivergence::JensenShannon,
        "alpha_divergence" => FDivergence::Alpha {
            alpha: case.number("alpha"),
        },
        other => panic!("{}: {other}", case.name),
    }
}

/// The losses of the pairs by TRL's name: the table of `src/since.md`, row by row.
fn by_trl_name(
    case: &Case,
    policy: &Pair<TokenLogProbs>,
    reference: &Pair<TokenLogProbs>,
) -> Result<Tensor> {
    let (beta, epsilon) = (case.number("beta"), case.number("label_smoothing"));
    let of = |tokens| match case.optional("ld_alpha") {
        Some(alpha) => length_desensitized_sums(tokens, alpha),
        None => sums(tokens),
    };
    let (old, new) = (of(reference)?, of(policy)?);
    let ratios = LogRatios::sums(&new, &old)?;
    let scores = ratios.scored(divergence(case))?;
    let lengths = lengths(policy)?;
    let smoothed = AotConfig {
        beta,
        label_smoothing: epsilon,
    };
    let zero = Tensor::new(0f64, &Device::Cpu)?;
    let ones = ratios.scores().chosen.ones_like()?;
    let hard = Pair {
        rejected: ones.zeros_like()?,
        chosen: ones,
    };
    let dpo = DpoConfig {
        beta,
        ..Default::default()
    };
    let exo = ExoConfig {
        beta,
        label_smoothing: epsilon,
    };
    let robust = RobustDpoConfig {
        beta,
        flip_rate: epsilon,
    };
    let out = match case.word("loss_type") {
        "sigmoid" if divergence(case) == FDivergence::ReverseKl => {
            dpo_loss(scores.scores(), None, &dpo)?
        }
        "sigmoid" => {
            let divergence = divergence(case);
            f_dpo_loss(&ratios, &FDpoConfig { beta, divergence })?
        }
        "hinge" => hinge_dpo_loss(&scores, &HingeDpoConfig { beta })?,
        "ipo" => ipo_loss(&scores.per_token(&lengths)?, &IpoConfig { beta })?,
        "exo_pair" => exo_pair_loss(&scores, &exo)?,
        "robust" => robust_dpo_loss(&scores, &robust)?,
        "discopop" => discopop_loss(&scores, &DiscopopConfig { beta, tau: 0.05 })?,
        "sigmoid_norm" => {
            length_normalized_dpo_loss(&scores, &lengths, &LengthNormalizedDpoConfig { beta })?
        }
        "nca_pair" => nca_pair_loss(&ratios, &NcaPairConfig { beta })?,
        "bco_pair" => bco_pair_loss(&ratios, &zero, &BcoConfig { beta })?,
        "sppo_hard" => {
            let out = sppo_loss(&ratios, &hard, &SppoConfig { beta })?;
            return Ok((out.loss * 2.0)?);
        }
        "aot" => aot_loss(&new, &old, &smoothed)?,
        "aot_unpaired" => aot_unpaired_loss(&ratios, &smoothed)?,
        "apo_zero" => apo_zero_loss(&ratios, &ApoConfig { beta })?,
        "apo_down" => apo_down_loss(&ratios, &ApoConfig { beta })?,
        other => panic!("{}: {other}", case.name),
    };
    Ok(out.loss)
}

/// The mean over the tokens of a micro-batch, TRL's likelihood term.
fn token_mean(answers: &TokenLogProbs) -> Result<Tensor> {
    sft_loss(answers, None, &SftConfig::default())?.reduce(Reduction::TokenMean)
}

#[test]
fn every_loss_of_trl_s_dpo_trainer() {
    each("since_dpo", |case| {
        let mask = case.mask("mask")?;
        let reference = tokens(&case.input("reference")?, &mask)?;
        if case.has("logits") {
            return weighted_pairs(case, &mask, &reference);
        }
        let values = case.var("values")?;
        let policy = tokens(&values, &mask)?;
        let loss = match case.word("loss_type") {
            "sft" => token_mean(&policy.chosen)?,
            _ => by_trl_name(case, &policy, &reference)?.mean_all()?,
        };
        case.check("loss", &loss, EXACT)?;
        case.check_gradient("values", &loss, &values, EXACT)
    });
}

/// WPO: the same losses with weights.
fn weighted_pairs(case: &Case, mask: &Tensor, reference: &Pair<TokenLogProbs>) -> Result<()> {
    let (logits, ids) = (case.var("logits")?, case.index("tokens")?);
    let half = mask.dim(0)? / 2;
    let first = Tensor::zeros((2 * half, 1), DType::U8, &Device::Cpu)?;
    let whole = Tensor::cat(&[&first, mask], 1)?;
    let statistics = Statistics {
        log_collision: true,
        ..Default::default()
    };
    let of = |from| {
        TokenLogProbs::next_token_with(
            &rows(&logits, from, half)?,
            &rows(&ids, from, half)?,
            &rows(&whole, from, half)?,
            statistics,
        )
    };
    let policy = Pair {
        chosen: of(0)?,
        rejected: of(half)?,
    };
    let weights = wpo_weights(&policy, &WpoConfig::default())?;
    let loss = (by_trl_name(case, &policy, reference)? * weights)?.mean_all()?;
    case.check("loss", &loss, EXACT)?;
    case.check_gradient("logits", &loss, &logits, EXACT)
}

#[test]
fn trl_s_other_trainers() {
    each("since_trl", |case| match case.word("kind") {
        "kto" | "apo_zero_unpaired" => unpaired(case),
        "bco" => bco(case),
        "xpo" => xpo(case),
        "nash_md" => nash_md(case),
        "tpo" => tpo(case),
        _ => without_reference(case),
    });
}

fn unpaired(case: &Case) -> Result<()> {
    let (values, beta) = (case.var("values")?, case.number("beta"));
    let policy = TokenLogProbs::new(&values, &case.mask("mask")?)?.sum()?;
    let (reference, labels) = (case.input("reference")?, case.mask("labels")?);
    let loss = match case.word("kind") {
        "kto" => {
            let mismatched = case.input("policy_mismatched")?;
            let baseline = kto_baseline(&mismatched, &case.input("reference_mismatched")?)?;
            let config = KtoConfig {
                beta,
                desirable_weight: case.number("desirable_weight"),
                undesirable_weight: case.number("undesirable_weight"),
            };
            kto_loss(&policy, &reference, &labels, &baseline, &config)?
        }
        _ => apo_zero_unpaired_loss(&policy, &reference, &labels, &ApoUnpairedConfig { beta })?,
    };
    let loss = loss.loss.mean_all()?;
    case.check("loss", &loss, EXACT)?;
    case.check_gradient("values", &loss, &values, EXACT)
}

fn variables(case: &Case) -> Result<(Var, Var, Pair<Tensor>)> {
    let (chosen, rejected) = (case.var("chosen")?, case.var("rejected")?);
    let pair = Pair {
        chosen: chosen.as_tensor().clone(),
        rejected: rejected.as_tensor().clone(),
    };
    Ok((chosen, rejected, pair))
}

fn check_pair(case: &Case, loss: &Tensor, chosen: &Var, rejected: &Var) -> Result<()> {
    case.check("loss", loss, EXACT)?;
    case.check_gradient("chosen", loss, chosen, EXACT)?;
    case.check_gradient("rejected", loss, rejected, EXACT)
}

fn without_reference(case: &Case) -> Result<()> {
    let (chosen, rejected, pair) = variables(case)?;
    let beta = case.number("beta");
    let zeros = Pair {
        chosen: pair.chosen.zeros_like()?,
        rejected: pair.rejected.zeros_like()?,
    };
    let ratios = LogRatios::sums(&pair, &zeros)?;
    let loss = match case.word("kind") {
        "cpo_sigmoid" => {
            let config = CpoConfig {
                beta,
                label_smoothing: case.number("label_smoothing"),
                alpha: 0.0,
                ..Default::default()
            };
            let no_likelihood = TokenLoss {
                loss: zeros.chosen.unsqueeze(1)?,
                mask: Tensor::ones((pair.chosen.dim(0)?, 1), DType::U8, &Device::Cpu)?,
            };
            cpo_loss(&pair, &no_likelihood, &config)?.loss
        }
        "cpo_hinge" => hinge_dpo_loss(&ratios, &HingeDpoConfig { beta })?.loss,
        "cpo_ipo" => ipo_loss(&ratios, &IpoConfig { beta })?.loss,
        "cpo_simpo" => {
            let (alpha, gamma) = (case.number("alpha"), case.number("gamma"));
            let margin = RequiredLead::Gamma(gamma);
            match alpha == 0.0 {
                true => simpo_loss(&pair, &SimpoConfig { beta, margin })?.loss,
                false => {
                    let config = AlphaPoConfig {
                        beta,
                        alpha,
                        margin,
                    };
                    alpha_po_loss(&pair, &config)?.loss
                }
            }
        }
        "orpo" => (odds_ratio_loss(&pair)?.loss * beta)?,
        other => panic!("{}: {other}", case.name),
    };
    check_pair(case, &loss, &chosen, &rejected)
}

fn bco(case: &Case) -> Result<()> {
    let (chosen, rejected, pair) = variables(case)?;
    let policy = Tensor::cat(&[&pair.chosen, &pair.rejected], 0)?;
    let references = ["reference_chosen", "reference_rejected"].map(|name| case.input(name));
    let [first, second] = references;
    let reference = Tensor::cat(&[first?, second?], 0)?;
    let labels = Tensor::new(&[1u8, 1, 1, 1, 0, 0, 0, 0], &Device::Cpu)?;
    let shift = Tensor::new(case.number("shift"), &Device::Cpu)?;
    let config = BcoConfig {
        beta: case.number("beta"),
    };
    let loss = bco_loss(&policy, &reference, &labels, &shift, &config)?.loss;
    check_pair(case, &loss, &chosen, &rejected)
}

fn xpo(case: &Case) -> Result<()> {
    let (own, drawn) = (case.var("own")?, case.var("drawn")?);
    let wins = case.mask("wins")?;
    let (a, b) = (own.sum(1)?, drawn.sum(1)?);
    let (ref_a, ref_b) = (
        case.input("ref_own")?.sum(1)?,
        case.input("ref_drawn")?.sum(1)?,
    );
    let order = |a: &Tensor, b: &Tensor| -> Result<Pair<Tensor>> {
        Ok(Pair {
            chosen: wins.where_cond(a, b)?,
            rejected: wins.where_cond(b, a)?,
        })
    };
    let ratios = LogRatios::sums(&order(&a, &b)?, &order(&ref_a, &ref_b)?)?;
    let config = XpoConfig {
        beta: case.number("beta"),
        alpha: case.number("alpha"),
    };
    let loss = xpo_loss(&ratios, &b, &config)?.loss.mean_all()?;
    case.check("loss", &loss, EXACT)?;
    case.check_gradient("own", &loss, &own, EXACT)?;
    case.check_gradient("drawn", &loss, &drawn, EXACT)
}

fn nash_md(case: &Case) -> Result<()> {
    let (values, mask) = (case.var("values")?, case.mask("mask")?);
    let policy = TokenLogProbs::new(&values, &mask)?;
    let reference = TokenLogProbs::new(&case.input("reference")?, &mask)?;
    let config = NashMdConfig {
        beta: case.number("beta"),
        credit: KlCredit::Token,
    };
    let loss = nash_md_loss(&policy, &reference, &case.input("wins")?, &config)?.mean_all()?;
    case.check("loss", &loss, EXACT)?;
    case.check_gradient("values", &loss, &values, EXACT)
}

fn tpo(case: &Case) -> Result<()> {
    let (logits, ids, mask) = (
        case.var("logits")?,
        case.index("tokens")?,
        case.mask("mask")?,
    );
    let count = mask.dim(0)? / 3;
    let first = Tensor::zeros((3 * count, 1), DType::U8, &Device::Cpu)?;
    let whole = Tensor::cat(&[&first, &mask], 1)?;
    let of = |at: usize| {
        TokenLogProbs::next_token(
            &rows(&logits, at * count, count)?,
            &rows(&ids, at * count, count)?,
            &rows(&whole, at * count, count)?,
        )
    };
    let (chosen, rejected, gold) = (of(0)?, of(1)?, of(2)?);
    let sums = Pair {
        chosen: chosen.sum()?,
        rejected: rejected.sum()?,
    };
    let means = Pair {
        chosen: chosen.mean()?,
        rejected: rejected.mean()?,
    };
    let zeros = Pair {
        chosen: sums.chosen.zeros_like()?,
        rejected: sums.chosen.zeros_like()?,
    };
    let beta = case.number("beta");
    let config = |gamma| TpoConfig {
        beta,
        label_smoothing: case.number("label_smoothing"),
        alpha: 0.0,
        margin: RequiredLead::Gamma(gamma),
        ..Default::default()
    };
    let beside = sft_loss(&gold, None, &SftConfig::default())?;
    let pairs = match case.word("loss_type") {
        "sigmoid" => tpo_loss(&sums, &beside, &config(0.0))?,
        "tpo-l" => tpo_loss(&means, &beside, &config(case.number("gamma")))?,
        "hinge" => hinge_dpo_loss(&LogRatios::sums(&sums, &zeros)?, &HingeDpoConfig { beta })?,
        _ => ipo_loss(&LogRatios::sums(&means, &zeros)?, &IpoConfig { beta })?,
    };
    let loss = (pairs.loss.mean_all()? + (token_mean(&gold)? * case.number("alpha"))?)?;
    case.check("loss", &loss, EXACT)?;
    case.check_gradient("logits", &loss, &logits, EXACT)
}

#[test]
fn papers_in_scalars() {
    each("since_scalar", |case| match case.word("kind") {
        "list_nca" | "list_info_nca" | "list_exo" => list(case),
        "process" | "outcome" => labels(case),
        "implicit" => implicit(case),
        "sequential_kl" => {
            let logits = case.var("logits")?;
            let mask = case.mask("mask")?;
            let kl = sequential_kl(&logits, &case.input("reference")?, &mask)?;
            case.check("loss", &kl, EXACT)?;
            case.check_gradient("logits", &kl, &logits, EXACT)
        }
        "tdpo2" => tdpo2(case),
        _ => equation(case),
    });
}

fn equation(case: &Case) -> Result<()> {
    let (chosen, rejected, pair) = variables(case)?;
    let kind = case.word("kind");
    if kind == "verdict" {
        let score = verdict_score(&chosen, &rejected, VerdictShare::TwoVerdicts)?;
        return check_pair(case, &score, &chosen, &rejected);
    }
    let more = Pair {
        chosen: case.input("more_chosen")?,
        rejected: case.input("more_rejected")?,
    };
    let zeros = Pair {
        chosen: pair.chosen.zeros_like()?,
        rejected: pair.rejected.zeros_like()?,
    };
    let ratios = LogRatios::sums(&pair, &zeros)?;
    let beta = 0.4;
    let grm = |auxiliary| GrmConfig {
        weight: 0.3,
        auxiliary,
    };
    let out = match kind {
        "r_dpo" => r_dpo_loss(&ratios, &more, &RDpoConfig { beta, alpha: 0.05 })?,
        "dpop" => dpop_loss(&ratios, &DpopConfig { beta, lambda: 5.0 })?,
        "tdpo1" => tdpo1_loss(&ratios, &more, &Tdpo1Config { beta })?,
        "sppo" => {
            let wins = Pair {
                chosen: (&more.chosen / 10.0)?,
                rejected: (&more.rejected / 10.0)?,
            };
            sppo_loss(&ratios, &wins, &SppoConfig { beta })?
        }
        "cal_dpo" => cal_dpo_loss(&ratios, &CalDpoConfig { beta })?,
        "rebel" => rebel_loss(&ratios, &more, &RebelConfig { eta: 0.4 })?,
        "spin" => spin_loss(&ratios, &SpinConfig { beta })?,
        "simper" => simper_loss(&pair)?,
        "smoothed" => {
            let config = SmoothedRewardConfig {
                label_smoothing: 0.2,
            };
            smoothed_reward_loss(&pair, &config)?
        }
        "grm_dpo" => grm_loss(&pair, &more, Some(&zeros), &grm(GrmAuxiliary::Dpo { beta }))?,
        "grm_sft" => grm_loss(&pair, &more, None, &grm(GrmAuxiliary::Sft))?,
        "grm_log_sigmoid" => grm_loss(&pair, &more, None, &grm(GrmAuxiliary::LogSigmoid { beta }))?,
        other => panic!("{}: {other}", case.name),
    };
    check_pair(case, &out.loss, &chosen, &rejected)
}

fn list(case: &Case) -> Result<()> {
    let sums = case.var("sums")?;
    let (reference, rewards, mask) = (
        case.input("reference")?,
        case.input("rewards")?,
        case.mask("mask")?,
    );
    let answers = Candidates::new(&sums, &sums.ones_like()?, &rewards, Some(&mask))?;
    let nca = NcaConfig {
        beta: 0.4,
        alpha: 0.5,
    };
    let exo = ExoListConfig {
        beta: 0.4,
        reward_beta: 0.5,
    };
    let loss = match case.word("kind") {
        "list_nca" => nca_loss(&answers, &reference, &nca)?,
        "list_info_nca" => info_nca_loss(&answers, &reference, &nca)?,
        _ => exo_loss(&answers, &reference, &exo)?,
    };
    case.check("loss", &loss, EXACT)?;
    case.check_gradient("sums", &loss, &sums, EXACT)
}

fn labels(case: &Case) -> Result<()> {
    let (scores, labels) = (case.var("scores")?, case.input("labels")?);
    let loss = match case.word("kind") {
        "process" => process_reward_loss(&scores, &labels, &case.mask("ends")?)?.loss,
        _ => outcome_reward_loss(&scores, &labels)?,
    };
    case.check("loss", &loss, EXACT)?;
    case.check_gradient("scores", &loss, &scores, EXACT)
}

fn implicit(case: &Case) -> Result<()> {
    let (values, mask) = (case.var("values")?, case.mask("mask")?);
    let policy = TokenLogProbs::new(&values, &mask)?;
    let reference = TokenLogProbs::new(&case.input("reference")?, &mask)?;
    let config = ImplicitRewardConfig::default();
    let loss = implicit_reward_loss(&policy, &reference, &case.input("labels")?, &config)?.loss;
    case.check("loss", &loss, EXACT)?;
    case.check_gradient("values", &loss, &values, EXACT)
}

fn tdpo2(case: &Case) -> Result<()> {
    let (chosen, rejected, pair) = variables(case)?;
    let zeros = Pair {
        chosen: pair.chosen.zeros_like()?,
        rejected: pair.rejected.zeros_like()?,
    };
    let (first, second) = (case.var("d_chosen")?, case.var("d_rejected")?);
    let divergences = Pair {
        chosen: first.as_tensor().clone(),
        rejected: second.as_tensor().clone(),
    };
    let config = Tdpo2Config {
        beta: 0.4,
        alpha: 0.6,
    };
    let loss = tdpo2_loss(&LogRatios::sums(&pair, &zeros)?, &divergences, &config)?.loss;
    case.check_gradient("d_rejected", &loss, &second, EXACT)?;
    assert!(loss.sum_all()?.backward()?.get(&first).is_none());
    check_pair(case, &loss, &chosen, &rejected)
}
