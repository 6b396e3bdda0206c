//! What the objectives that came after the survey ask of the other settings.

use super::super::super::error::{Error, Result};
use super::super::super::objectives::Reads;
use super::{Learned, Settings};
use candle_align::ranking::FDivergence;

impl Settings {
    /// Checks what these objectives ask of the other settings.
    pub(super) fn check_since(&self) -> Result<()> {
        let (name, usage) = (self.objective, |text: String| Err(Error::Usage(text)));
        let of_differences = matches!(
            name,
            Learned::Ipo
                | Learned::RobustDpo
                | Learned::HingeDpo
                | Learned::ExoPair
                | Learned::Discopop
                | Learned::LengthNormalizedDpo
        );
        if self.since.divergence != FDivergence::ReverseKl && !of_differences {
            return usage(format!(
                "`since.divergence` is for losses of a difference of log-ratios, and `{name}` is none; `f_dpo` \
                 has a `divergence` of its own"
            ));
        }
        match (name == Learned::Gkd, &self.teacher) {
            (true, None) => {
                return usage("`gkd` needs `teacher`, a folder: --teacher DIR".to_string());
            }
            (false, Some(_)) => {
                return usage(format!("`teacher` is for `gkd`, and this is `{name}`"));
            }
            _ => {}
        }
        if name == Learned::Kto && self.fit.batch < 2 {
            return usage(format!(
                "`fit.batch` must be at least 2 for `kto`, got {}: its baseline is of prompts with the answers \
                 of other rows",
                self.fit.batch
            ));
        }
        if matches!(name, Learned::Aot | Learned::AotUnpaired) && self.fit.max_tokens.is_some() {
            return usage(format!(
                "`fit.max_tokens` must be null for `{name}`, which sorts the pairs of a whole micro-batch; lower \
                 `fit.batch` instead"
            ));
        }
        let pairs_or_one = name != Learned::Kto && !name.is_lists_since();
        let sums = name.reads() == Reads::Sums && pairs_or_one;
        if self.precompute_ref_log_probs && !sums {
            let why = match name.reads() {
                _ if name.is_online() => {
                    "draws new answers, whose probabilities cannot be computed ahead"
                }
                Reads::Nothing => "has no reference",
                _ if name.is_lists_since() => "compares lists: only the sums of pairs are kept",
                _ => "asks its reference for more than the sum over each answer",
            };
            return usage(format!(
                "`precompute_ref_log_probs` is true, and `{name}` {why}"
            ));
        }
        let weights = [
            ("simpo.cpo_alpha", self.since.simpo.cpo_alpha),
            ("rpo.alpha", self.since.rpo.alpha),
            ("cpo.alpha", self.since.cpo.alpha),
            ("tpo.alpha", self.since.tpo.alpha),
            (
                "apo_zero_unpaired.desirable_weight",
                self.since.apo_zero_unpaired.desirable_weight,
            ),
            (
                "apo_zero_unpaired.undesirable_weight",
                self.since.apo_zero_unpaired.undesirable_weight,
            ),
        ];
        for (name, weight) in weights {
            if !(weight.is_finite() && weight >= 0.0) {
                return usage(format!(
                    "`since.{name}` must be finite and >= 0, got {weight}"
                ));
            }
        }
        Ok(())
    }
}
