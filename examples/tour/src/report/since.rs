//! The section of `--since`: what came after the survey, below the same frontier.

use super::cells::{escape, flat, share};
use super::{Entry, Mark, Report, curve};
use crate::lab::Lab;
use crate::methods::policy_gradients::PolicyGradient;
use crate::methods::since::{Since, ipo_beta};
use crate::plot;
use crate::world::{Frontier, PROMPTS, PerAnswer, expectation, kl, log_softmax};
use serde::Serialize;
use std::fmt::Write;

/// The results of the methods since the survey.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SinceSection {
    pub entries: Vec<Entry>,
    /// The frontier as far as their picture goes.
    pub frontier: Vec<Mark>,
    /// π_ref · e^(w/β): where IPO's own optimum lies, w the chance to be chosen over an answer of the reference.
    pub ipo_target: Mark,
    /// π_ref · 2w: where NCA's lies at β = 1.
    pub nca_target: Mark,
    /// The policy gradients since.
    pub policy_gradients: Vec<Entry>,
    /// The best answers by the learned reward: where those without a KL go.
    pub greedy_target: Mark,
    /// The frontier as far as their picture goes.
    pub policy_gradient_frontier: Vec<Mark>,
}

impl SinceSection {
    /// None if there are no entries.
    pub fn new(lab: &Lab, [entries, policy_gradients]: [Vec<Entry>; 2]) -> Option<Self> {
        let greedy_target = lab.best_by_the_learned_reward()?;
        let upto = |entries: &[Entry], least: f64| {
            let furthest = entries.iter().filter_map(|e| e.kl).reduce(f64::max)?;
            Some(curve(&lab.frontier(), 1.15 * furthest.max(least)))
        };
        let frontier = upto(&entries, 0.0)?;
        let policy_gradient_frontier = upto(&policy_gradients, greedy_target.kl)?;
        let chances = lab.chances();
        let reference = &lab.reference_log_probs;
        let place = |label: &str, log_p: &PerAnswer| Mark {
            label: label.into(),
            kl: kl(log_p, reference),
            reward: expectation(log_p, &lab.world.rewards),
        };
        let by_chance = Frontier {
            reference,
            rewards: &chances,
        };
        let doubled = reference.iter().zip(&chances).map(|(log_p, chances)| {
            let tilted = log_p.iter().zip(chances).map(|(l, w)| l + (2.0 * w).ln());
            log_softmax(&tilted.collect::<Vec<f64>>())
        });
        Some(Self {
            frontier,
            greedy_target,
            policy_gradient_frontier,
            ipo_target: place("optimum of IPO", &by_chance.policy(1.0 / ipo_beta())),
            nca_target: place("optimum of NCA", &doubled.collect()),
            entries,
            policy_gradients,
        })
    }

    /// The entry of an objective, if it ran.
    pub fn entry(&self, objective: Since) -> Option<&Entry> {
        let name = objective.title().name;
        self.entries.iter().find(|e| e.name == name)
    }

    /// The entry of a policy gradient.
    pub fn policy_gradient(&self, method: PolicyGradient) -> Option<&Entry> {
        let name = method.title().name;
        self.policy_gradients.iter().find(|e| e.name == name)
    }
}

impl Lab {
    /// The policy of the best answers alone, by the learned reward, if there is one.
    fn best_by_the_learned_reward(&self) -> Option<Mark> {
        let learned = Frontier {
            reference: &self.reference_log_probs,
            rewards: &self.learned().ok()?.scores,
        };
        let best = learned.best_answers().zip(&self.world.rewards);
        let reward: f64 = best.map(|(at, rewards)| rewards[at]).sum();
        Some(Mark {
            label: "best by the learned reward".into(),
            kl: learned.largest_kl(),
            reward: reward / PROMPTS as f64,
        })
    }

    /// The chance of each answer to be chosen over an answer of the reference.
    pub fn chances(&self) -> PerAnswer {
        let of_prompt = |prompt: usize| {
            let rewards = &self.world.rewards[prompt];
            let others: Vec<(f64, f64)> = rewards
                .iter()
                .zip(&self.reference_log_probs[prompt])
                .map(|(r, l)| (*r, l.exp()))
                .collect();
            let chosen = |reward: &f64| -> f64 {
                let terms = others.iter().map(|(r, p)| p / (1.0 + (r - reward).exp()));
                terms.sum()
            };
            rewards.iter().map(chosen).collect()
        };
        (0..PROMPTS).map(of_prompt).collect()
    }
}

impl Report {
    /// The tables of the methods since, as text; empty without them.
    pub fn since_table(&self) -> String {
        let Some(since) = &self.since else {
            return String::new();
        };
        let mut out = String::new();
        for (head, entries) in [
            ("preferences since", &since.entries),
            ("policy gradients", &since.policy_gradients),
        ] {
            let _ = writeln!(
                out,
                "{head:<20}{:>9}{:>9}{:>9}{:>10}{:>10}{:>9}",
                "E r", "KL", "regret", "win rate", "accuracy", "seconds"
            );
            for e in entries {
                let [reward, kl, regret] = e.numbers();
                let _ = writeln!(
                    out,
                    "{:<20}{reward:>9}{kl:>9}{regret:>9}{:>10}{:>10}{:>9.1}",
                    e.label,
                    share(e.win_rate),
                    share(e.accuracy),
                    e.seconds,
                );
            }
        }
        out
    }

    /// The section of the page; empty without it.
    pub(super) fn since_html(&self) -> String {
        let Some(since) = &self.since else {
            return String::new();
        };
        format!(
            r#"<h2>Since the survey</h2>
<h3>Preferences</h3>
<p>Ten objectives that are younger than the survey, from the same reference, below the same exact frontier. All but online DPO learn
from DPO's pairs in DPO's order. Online DPO labels two answers of its own to each prompt by the learned reward.</p>
{picture}
<p class="note">Full star: the optimum of DPO. Hollow stars: what IPO and NCA aim at with these labels, and online DPO with the learned
reward. They are distributions written down, not trained.</p>
{preferences}<h3>Policy gradients</h3>
<p>PPO and six methods that replace its critic by other answers to the same prompt. All draw their answers from the policy, score them
by the learned reward, and take four steps on each draw. β is ½ where a method has a KL; Dr. GRPO, GSPO and CISPO have none, as in
their papers.</p>
{gradients}
<p class="note">Hollow stars: π_ref · e^(r̂/β) with the learned reward r̂, the optimum of RLOO, REINFORCE++ and PPO; and the best answers by
r̂ alone, that of the methods without a KL. GRPO's β counts in deviations of a group, which shrink as the policy settles.</p>
{policies}"#,
            picture = plot::since(self, since),
            preferences = tables(&since.entries),
            gradients = plot::policy_gradients(self, since),
            policies = tables(&since.policy_gradients),
        )
    }
}

/// Results and settings.
fn tables(entries: &[Entry]) -> String {
    let (mut rows, mut settings) = (String::new(), String::new());
    for e in entries {
        let [reward, kl, regret] = e.numbers();
        let _ = writeln!(
            rows,
            "<tr><td>{}</td><td>{reward}</td><td>{kl}</td><td>{regret}</td><td>{}</td><td>{}</td><td>{:.1}</td></tr>",
            escape(&e.label),
            share(e.win_rate),
            share(e.accuracy),
            e.seconds,
        );
        let _ = writeln!(
            settings,
            "<tr><td>{}</td><td><code>{}</code></td></tr>",
            escape(&e.label),
            escape(&flat(&e.settings)),
        );
    }
    format!(
        r#"<table><tr><th>objective</th><th>E r</th><th>KL, nats</th><th>regret</th><th>win rate</th><th>accuracy</th><th>seconds</th></tr>
{rows}</table>
<table class="text">{settings}</table>
"#
    )
}
