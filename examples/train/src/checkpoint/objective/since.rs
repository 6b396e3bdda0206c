//! The library's call of each loss over pairs that came after the survey.

use super::super::super::error::{Error, Result};
use super::super::super::objectives::Objective;
use super::super::settings::since::{Covers, Since};
use candle_align::ranking::{
    CpoConfig, IpoConfig, LogRatios, OrpoConfig, ReferenceTokens, RpoConfig, SimpoConfig,
    WpoConfig, alpha_po_loss, aot_loss, aot_unpaired_loss, apo_down_loss, apo_zero_loss,
    bco_pair_loss, cpo_loss, discopop_loss, dpop_loss, exo_pair_loss, f_dpo_loss, hinge_dpo_loss,
    ipo_loss, ld_dpo_loss, length_normalized_dpo_loss, nca_pair_loss, odds_ratio_loss, orpo_loss,
    r_dpo_loss, robust_dpo_loss, rpo_loss, simper_loss, simpo_loss, spin_loss, sppo_loss,
    tdpo1_loss, tdpo2_loss, wpo_weights,
};
use candle_align::{
    DpoConfig, Pair, PreferenceLoss, SftConfig, TokenLogProbs, TokenLoss, dpo_loss, sft_loss,
};
use candle_core::Tensor;

/// What the losses read of some pairs: [`Objective::reads`] says what of the reference.
pub struct Answers {
    pub policy: Pair<TokenLogProbs>,
    /// How many tokens the loss covers, a first one counted that nothing predicts: TRL's divisor of means.
    pub lengths: Pair<Tensor>,
    /// Those of all tokens of the chosen texts, if the likelihood covers the prompt too.
    pub chosen_rows: Option<TokenLogProbs>,
    /// The reference's sums.
    pub reference: Option<Pair<Tensor>>,
    pub reference_tokens: Option<Pair<TokenLogProbs>>,
    /// KL(reference‖policy), summed over the tokens of each answer.
    pub divergences: Option<Pair<Tensor>>,
}

/// A loss, and perhaps a likelihood that is one mean over the tokens of a micro-batch.
pub struct Found {
    pub out: PreferenceLoss,
    /// Its weight, the cross-entropy of its tokens, and which these are.
    pub likelihood: Option<(f64, TokenLoss, Covers)>,
}

/// The loss of each pair. Rewards of losses with a reference are β · (log π − log π_ref), as TRL logs them, unless
/// the loss defines others.
pub fn since_loss(objective: Objective, all: &Since, answers: &Answers) -> Result<Found> {
    let mut likelihood = None;
    let out = match objective {
        Objective::Ipo => {
            let (plain, mut ratios) =
                (answers.ratios()?, answers.ratios()?.scored(all.divergence)?);
            if all.ipo.log_ratio == ReferenceTokens::Mean {
                ratios = ratios.per_token(&answers.lengths)?;
            }
            let config = IpoConfig { beta: all.ipo.beta };
            implicit(ipo_loss(&ratios, &config)?, &plain, config.beta)?
        }
        Objective::Rpo => {
            let tokens = all.rpo.likelihood.of_each();
            let config = RpoConfig {
                beta: all.rpo.beta,
                alpha: if tokens.is_some() { all.rpo.alpha } else { 0.0 },
                tokens: tokens.unwrap_or_default(),
            };
            let chosen = nll(&answers.policy.chosen)?;
            let out = rpo_loss(&answers.ratios()?, &chosen, &config)?;
            likelihood = tokens
                .is_none()
                .then_some((all.rpo.alpha, chosen, Covers::Answer));
            out
        }
        Objective::RobustDpo => {
            let (config, ratios) = (&all.robust_dpo, answers.ratios()?);
            let out = robust_dpo_loss(&ratios.scored(all.divergence)?, config)?;
            implicit(out, &ratios, config.beta)?
        }
        Objective::HingeDpo => {
            let (config, ratios) = (&all.hinge_dpo, answers.ratios()?);
            let out = hinge_dpo_loss(&ratios.scored(all.divergence)?, config)?;
            implicit(out, &ratios, config.beta)?
        }
        Objective::ExoPair => {
            let (config, ratios) = (&all.exo_pair, answers.ratios()?);
            let out = exo_pair_loss(&ratios.scored(all.divergence)?, config)?;
            implicit(out, &ratios, config.beta)?
        }
        Objective::Discopop => {
            let (config, ratios) = (&all.discopop, answers.ratios()?);
            let out = discopop_loss(&ratios.scored(all.divergence)?, config)?;
            implicit(out, &ratios, config.beta)?
        }
        Objective::LengthNormalizedDpo => {
            let (config, ratios) = (&all.length_normalized_dpo, answers.ratios()?);
            let scored = ratios.scored(all.divergence)?;
            let out = length_normalized_dpo_loss(&scored, &answers.lengths, config)?;
            implicit(out, &ratios, config.beta)?
        }
        Objective::FDpo => {
            let (config, ratios) = (&all.f_dpo, answers.ratios()?);
            implicit(f_dpo_loss(&ratios, config)?, &ratios, config.beta)?
        }
        Objective::NcaPair => nca_pair_loss(&answers.ratios()?, &all.nca_pair)?,
        Objective::BcoPair => {
            let ratios = answers.ratios()?;
            let like = &ratios.scores().chosen;
            let shift = Tensor::zeros((), like.dtype(), like.device())?;
            bco_pair_loss(&ratios, &shift, &all.bco_pair)?
        }
        Objective::Sppo => {
            let ratios = answers.ratios()?;
            let wins = Pair {
                chosen: ratios.scores().chosen.ones_like()?,
                rejected: ratios.scores().rejected.zeros_like()?,
            };
            sppo_loss(&ratios, &wins, &all.sppo)?
        }
        Objective::Spin => spin_loss(&answers.ratios()?, &all.spin)?,
        Objective::ApoZero => apo_zero_loss(&answers.ratios()?, &all.apo_zero)?,
        Objective::ApoDown => apo_down_loss(&answers.ratios()?, &all.apo_down)?,
        Objective::Aot => aot_loss(&answers.sums()?, answers.reference()?, &all.aot)?,
        Objective::AotUnpaired => aot_unpaired_loss(&answers.ratios()?, &all.aot_unpaired)?,
        Objective::Dpop => dpop_loss(&answers.ratios()?, &all.dpop)?,
        Objective::RDpo => r_dpo_loss(&answers.ratios()?, &answers.lengths, &all.r_dpo)?,
        Objective::Tdpo1 => tdpo1_loss(&answers.ratios()?, answers.divergences()?, &all.tdpo1)?,
        Objective::Tdpo2 => tdpo2_loss(&answers.ratios()?, answers.divergences()?, &all.tdpo2)?,
        Objective::LdDpo => {
            let reference = given(&answers.reference_tokens, "its reference's tokens")?;
            ld_dpo_loss(&answers.policy, reference, &all.ld_dpo)?
        }
        Objective::Wpo => {
            let config = DpoConfig {
                beta: all.wpo.beta,
                ..DpoConfig::default()
            };
            let largest = all.wpo.largest;
            let weights = wpo_weights(&answers.policy, &WpoConfig { largest })?;
            let mut out = dpo_loss(&answers.sums()?, Some(answers.reference()?), &config)?;
            out.loss = (out.loss * weights)?;
            out
        }
        Objective::Simpo => {
            let config = SimpoConfig {
                beta: all.simpo.beta,
                margin: all.simpo.margin,
            };
            if all.simpo.cpo_alpha > 0.0 {
                let chosen = nll(&answers.policy.chosen)?;
                likelihood = Some((all.simpo.cpo_alpha, chosen, Covers::Answer));
            }
            simpo_loss(&answers.means()?, &config)?
        }
        Objective::Orpo => {
            let rows = answers.chosen_rows.as_ref();
            let chosen = nll(rows.unwrap_or(&answers.policy.chosen))?;
            let (means, lambda) = (answers.means()?, all.orpo.lambda);
            match all.orpo.likelihood.of_each() {
                Some(tokens) => orpo_loss(&means, &chosen, &OrpoConfig { lambda, tokens })?,
                None => {
                    likelihood = Some((1.0, chosen, all.orpo.covers));
                    let mut out = odds_ratio_loss(&means)?;
                    out.loss = (out.loss * lambda)?;
                    out
                }
            }
        }
        Objective::Cpo => {
            let tokens = all.cpo.likelihood.of_each();
            let config = CpoConfig {
                beta: all.cpo.beta,
                label_smoothing: all.cpo.label_smoothing,
                alpha: if tokens.is_some() { all.cpo.alpha } else { 0.0 },
                tokens: tokens.unwrap_or_default(),
            };
            let chosen = nll(&answers.policy.chosen)?;
            let out = cpo_loss(&answers.sums()?, &chosen, &config)?;
            likelihood = tokens
                .is_none()
                .then_some((all.cpo.alpha, chosen, Covers::Answer));
            out
        }
        Objective::AlphaPo => alpha_po_loss(&answers.means()?, &all.alpha_po)?,
        Objective::Simper => simper_loss(&answers.means()?)?,
        other => {
            let problem = format!("`{other}` is no loss over pairs since the survey");
            return Err(Error::Usage(problem));
        }
    };
    Ok(Found { out, likelihood })
}

impl Answers {
    fn sums(&self) -> Result<Pair<Tensor>> {
        self.each(TokenLogProbs::sum)
    }

    fn means(&self) -> Result<Pair<Tensor>> {
        self.each(TokenLogProbs::mean)
    }

    fn each(&self, of: fn(&TokenLogProbs) -> candle_align::Result<Tensor>) -> Result<Pair<Tensor>> {
        Ok(Pair {
            chosen: of(&self.policy.chosen)?,
            rejected: of(&self.policy.rejected)?,
        })
    }

    fn reference(&self) -> Result<&Pair<Tensor>> {
        given(&self.reference, "its reference")
    }

    fn divergences(&self) -> Result<&Pair<Tensor>> {
        given(&self.divergences, "its divergences from the reference")
    }

    fn ratios(&self) -> Result<LogRatios> {
        Ok(LogRatios::sums(&self.sums()?, self.reference()?)?)
    }
}

fn given<'a, T>(part: &'a Option<T>, what: &str) -> Result<&'a T> {
    part.as_ref()
        .ok_or_else(|| Error::Usage(format!("the loss was not given {what}")))
}

/// The loss with the rewards β·ρ.
fn implicit(mut out: PreferenceLoss, ratios: &LogRatios, beta: f64) -> Result<PreferenceLoss> {
    out.rewards = ratios.rewards(beta)?.detach();
    Ok(out)
}

/// −log P of each token.
fn nll(chosen: &TokenLogProbs) -> Result<TokenLoss> {
    Ok(sft_loss(chosen, None, &SftConfig::default())?)
}
