//! The page `report.html`.

use super::cells::{escape, escaped, flat, share};
use super::{Entry, Report};
use crate::methods::Section;
use crate::{parameters, plot, pulls};
use std::fmt::Write as _;

impl Report {
    /// The page: no script, no font, no file beside it.
    pub(super) fn html(&self) -> String {
        let rows = rows(&self.entries);
        let settings: String = self
            .entries
            .iter()
            .map(|e| {
                format!(
                    "<tr><td>{}</td><td><code>{}</code></td></tr>\n",
                    escape(&e.label),
                    escape(&flat(&e.settings))
                )
            })
            .collect();
        let seen: String = self
            .seen()
            .iter()
            .map(|s| format!("<li>{}</li>\n", escape(s)))
            .collect();
        let quick = if self.quick { ", --quick" } else { "" };
        format!(
            r##"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Every method against the best that is possible</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 940px; margin: 2rem auto; padding: 0 1rem }}
svg {{ max-width: 100%; height: auto }}
table {{ border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }}
th, td {{ padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: right; vertical-align: top }}
th:first-child, td:first-child, .text td {{ text-align: left }}
td {{ white-space: nowrap }}
.text td:last-child {{ white-space: normal }}
code {{ font-size: 13px }}
.note {{ color: #666; font-size: 14px }}
</style></head><body>
<h1>Every method against the best that is possible</h1>
<p>{prompts} prompts, {answers} answers to each of at most {tokens} tokens, and a known reward of mean 0 and
deviation 1 among demonstrations. A transformer of {parameters} parameters learned demonstrations (SFT); that is the
reference. Every method starts from it and learns from {pairs} labeled pairs of the reference's answers, directly or through a
reward model. Labels follow Bradley–Terry, so even the true reward agrees with only {ceiling:.1}% of them. All numbers about a policy are sums over
all of its answers; numbers with ± are estimates from sampled answers, with their standard error. Seed {seed}{quick}.</p>
{frontier}
<p class="note">Thin lines: the path of each method from the reference, one point every few steps. Dotted lines: its regret, the
reward that the same KL could have bought on top. Full star: the optimum that PPO and DPO aim at. Hollow star: the same optimum under
the learned reward, which is the best that PPO can reach.</p>
<table><tr><th>method</th><th>E r</th><th>KL, nats</th><th>regret</th><th>win rate</th><th>accuracy</th><th>escaped</th><th>seconds</th></tr>
{rows}<tr><td>best at β = {beta}</td><td>{best_reward:.3}</td><td>{best_kl:.3}</td><td>0.000</td><td></td><td>{ceiling:.1}%</td><td></td><td></td></tr></table>
<p class="note">E r: expected reward. KL: of the policy to the reference, per answer. Regret: the frontier's reward at the same KL, less
E r. Win rate: against an answer of the reference. Accuracy: the share of held-out labels that the method's own score
agrees with (PPO, DPO: log π/π_ref; SLiC: log π; PRO, RRHF: log π per token).</p>
<h2>What you see</h2>
<ul>
{seen}</ul>
<h2>During training</h2>
{on_the_way}
<h2>Why they differ: how hard each loss pulls</h2>
{pulls}
<p class="note">Gradients from the library's own backward pass, on two answers of one token. DPO and PRO pull less as the better answer
moves ahead, but never stop. SLiC pulls with full force up to its margin and RRHF up to a tie, then not at all. PPO stops
when the policy has moved away from the one that wrote the answers by more than the clip range.</p>
{since}{points}<h2>Change something and see</h2>
<ul>
<li><code>--seed 1</code> draws another world with other labels: which differences remain?</li>
<li>A larger <code>BETA</code> in <code>examples/tour/src/methods/mod.rs</code> moves both stars, DPO and PPO toward the reference.</li>
<li><code>--steps 20</code> stops every method early, SFT too: which ones were still moving?</li>
</ul>
<h2>Settings</h2>
<table class="text">{settings}</table>
</body></html>
"##,
            prompts = self.prompts,
            answers = self.answers_per_prompt,
            tokens = self.most_tokens,
            parameters = self.parameters,
            pairs = self.labeled_pairs,
            ceiling = 100.0 * self.best_accuracy,
            seed = self.seed,
            beta = self.beta,
            best_reward = self.target.reward,
            best_kl = self.target.kl,
            frontier = plot::frontier(self),
            on_the_way = plot::on_the_way(self),
            pulls = pulls::pulls(self),
            since = self.since_html(),
            points = parameters::html(self),
        )
    }

    /// The findings as sentences that are true for these numbers.
    fn seen(&self) -> Vec<String> {
        let mut moved: Vec<(&Entry, f64, f64, f64)> = self
            .entries
            .iter()
            .filter(|e| e.name != "sft")
            .filter_map(|e| Some((e, e.reward?, e.kl?, e.regret?)))
            .collect();
        let mut seen = vec![format!(
            "The best answers have reward {:.2}, and the reference writes them with probability e^−{:.1}: sampling \
             does not find them by luck. SFT ends {:.4} nats away from the demonstrations.",
            self.best_reward, self.largest_kl, self.sft_gap
        )];
        moved.sort_by(|a, b| a.3.total_cmp(&b.3));
        if let [near, .., far] = moved[..] {
            seen.push(format!(
                "At its own KL, {} is nearest to the frontier (regret {:.3} at {:.2} nats) and {} is farthest ({:.3} at \
                 {:.2} nats).",
                near.0.label, near.3, near.2, far.0.label, far.3, far.2
            ));
        }
        for name in ["dpo", "dpo-lora", "ppo"] {
            if let Some((e, reward, kl, _)) = moved.iter().find(|(e, ..)| e.name == name) {
                seen.push(format!(
                    "{} aims at the full star ({:.2} at {:.2} nats) and ends with {reward:.2} at {kl:.2} nats{}",
                    e.label,
                    self.target.reward,
                    self.target.kl,
                    match (&self.learned_target, name) {
                        (Some(mark), "ppo") => format!(
                            "; it sees only the learned reward, whose optimum has a true reward of {:.2} at {:.2} \
                             nats.",
                            mark.reward, mark.kl
                        ),
                        _ => ".".into(),
                    }
                ));
            }
        }
        for (e, _, kl, regret) in &moved {
            if matches!(e.name.as_str(), "pro" | "rrhf") {
                seen.push(format!(
                    "{} has no reference in its loss, so nothing limits how far it moves. It moved {kl:.2} nats, with \
                     a regret of {regret:.3}.",
                    e.label
                ));
            }
        }
        for entry in self.entries.iter().filter(|e| !e.note.is_empty()) {
            seen.push(format!("{}: {}.", entry.label, entry.note));
        }
        seen
    }
}

/// The rows of the page's table, section by section.
fn rows(entries: &[Entry]) -> String {
    let mut rows = String::new();
    for section in Section::ALL {
        let mut of_section = entries.iter().filter(|e| e.section == section).peekable();
        if of_section.peek().is_some() {
            let _ = writeln!(
                rows,
                r#"<tr><th colspan="8">{}</th></tr>"#,
                section.heading()
            );
        }
        for e in of_section {
            let [reward, kl, regret] = e.numbers();
            let _ = writeln!(
                rows,
                "<tr><td>{}</td><td>{reward}</td><td>{kl}</td><td>{regret}</td><td>{}</td><td>{}</td><td>{}</td>\
                 <td>{:.1}</td></tr>",
                escape(&e.label),
                share(e.win_rate),
                share(e.accuracy),
                escaped(e.escaped),
                e.seconds,
            );
        }
    }
    rows
}
