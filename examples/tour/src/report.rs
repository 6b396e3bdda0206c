//! The results of the tour: as numbers (`report.json`) and as a page (`report.html`).

use crate::atomic::Staged;
use super::lab::{Lab, Ran};
use super::methods::{BETA, Section};
use super::parameters::{self, Family, Placed};
use super::world::{Frontier, PerAnswer, expectation, kl};
use super::{Options, Result};
use super::{plot, pulls};
use serde::Serialize;
use serde_json::Value;
use std::fmt::Write as _;
use std::path::Path;

/// The state of a run after some steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CurvePoint {
    pub step: usize,
    /// The loss of that step's batch; none after the last step.
    pub loss: Option<f64>,
    /// None if the policy was not evaluated at this step.
    pub reward: Option<f64>,
    pub kl: Option<f64>,
}

/// Standard errors of estimates from sampled answers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Errors {
    pub reward: f64,
    pub kl: f64,
    pub regret: f64,
}

/// The results of one policy, or of the reward model, which has no point in the picture.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Entry {
    pub name: String,
    pub label: String,
    /// Its section in the survey.
    pub section: Section,
    /// E r.
    pub reward: Option<f64>,
    /// KL(π‖π_ref), nats per answer.
    pub kl: Option<f64>,
    /// R*(KL(π)) − E r: the reward that the same KL could have bought on top.
    pub regret: Option<f64>,
    /// b · KL(π‖π_b): must equal the regret.
    pub identity: Option<f64>,
    /// Against an answer of the reference.
    pub win_rate: Option<f64>,
    /// Σ π(y|x) over all answers, the mean over prompts: must be 1. None if the policy was sampled.
    pub total: Option<f64>,
    /// Set if the policy was sampled, not summed.
    pub error: Option<Errors>,
    /// The probability of writing no answer: a symbol that no answer contains, or parts that do not fit.
    /// The policy is conditioned on writing one. None if training excludes such symbols too.
    pub escaped: Option<f64>,
    /// The share of held-out labels that the method's own score agrees with, if it has one.
    pub accuracy: Option<f64>,
    pub settings: Value,
    pub note: String,
    pub curve: Vec<CurvePoint>,
    pub seconds: f64,
}

impl Entry {
    /// E r, KL and regret as tables show them, with standard errors if there are any.
    fn numbers(&self) -> [String; 3] {
        let error = |of: fn(Errors) -> f64| match self.error {
            Some(error) => format!(" ± {:.3}", of(error)),
            None => String::new(),
        };
        [
            number(self.reward) + &error(|e| e.reward),
            number(self.kl) + &error(|e| e.kl),
            number(self.regret) + &error(|e| e.regret),
        ]
    }

    /// An entry without a policy's numbers yet.
    pub fn of(ran: Ran) -> Self {
        Self {
            name: ran.title.name.into(),
            label: ran.title.label.into(),
            section: ran.title.section,
            settings: ran.settings,
            curve: ran.curve,
            seconds: ran.start.elapsed().as_secs_f64(),
            ..Self::default()
        }
    }
}

/// A point of the picture.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mark {
    pub label: String,
    pub kl: f64,
    pub reward: f64,
}

/// All results of the tour.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    pub seed: u64,
    pub quick: bool,
    /// The requested methods.
    pub methods: Vec<&'static str>,
    /// Those of the second picture.
    pub families: Vec<Family>,
    pub prompts: usize,
    pub answers_per_prompt: usize,
    pub most_tokens: usize,
    pub parameters: usize,
    pub labelled_pairs: usize,
    /// β of PPO and DPO.
    pub beta: f64,
    /// E r of the best answer to each prompt.
    pub best_reward: f64,
    /// −log π_ref of the best answers: the KL at which the frontier ends.
    pub largest_kl: f64,
    /// The share of held-out labels that the true reward agrees with: the ceiling.
    pub best_accuracy: f64,
    /// KL(demonstrations‖SFT policy): what SFT has left to learn.
    pub sft_gap: f64,
    pub entries: Vec<Entry>,
    /// The frontier, starting at the reference.
    pub frontier: Vec<Mark>,
    /// π_β, the policy that PPO and DPO aim at.
    pub target: Mark,
    /// π_ref · e^{r̂/β} with the learned reward r̂: where PPO's own optimum lies.
    pub learned_target: Option<Mark>,
    pub gradients: Vec<pulls::Gradient>,
    /// The second picture: DPO through every method of §3.3.
    pub points: Vec<Placed>,
    pub seconds: f64,
}

impl Report {
    pub fn new(
        lab: &Lab,
        options: &Options,
        entries: Vec<Entry>,
        points: Vec<Placed>,
        seconds: f64,
    ) -> Result<Self> {
        let frontier = lab.frontier();
        let target = frontier.at(1.0 / BETA);
        let best = |r: &Vec<f64>| r.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let rewards = &lab.world.rewards;
        let demonstrated = lab.world.log_probs(&lab.world.demonstrations);
        let furthest = entries
            .iter()
            .filter_map(|e| e.kl)
            .fold(target.kl, f64::max);
        Ok(Self {
            seed: options.seed,
            quick: options.quick,
            methods: options.only.iter().map(|m| m.name()).collect(),
            families: options.families.clone(),
            prompts: rewards.len(),
            answers_per_prompt: lab.world.outcomes(),
            most_tokens: lab.world.tokens,
            parameters: lab.reference.parameters(),
            labelled_pairs: lab.pairs.len(),
            beta: BETA,
            best_reward: rewards.iter().map(best).sum::<f64>() / rewards.len() as f64,
            largest_kl: frontier.largest_kl(),
            best_accuracy: lab.accuracy(rewards),
            sft_gap: kl(&demonstrated, &lab.reference_log_probs),
            frontier: curve(&frontier, 1.15 * furthest),
            target: Mark {
                label: format!("optimum at β = {BETA}"),
                kl: target.kl,
                reward: target.reward,
            },
            learned_target: lab.learned().ok().map(|learned| {
                let tilted = Frontier {
                    reference: &lab.reference_log_probs,
                    rewards: &learned.scores,
                };
                let policy: PerAnswer = tilted.policy(1.0 / BETA);
                Mark {
                    label: "optimum for the learned reward".into(),
                    kl: kl(&policy, &lab.reference_log_probs),
                    reward: expectation(&policy, rewards),
                }
            }),
            gradients: pulls::gradients(BETA)?,
            entries,
            points,
            seconds,
        })
    }

    /// The world in two lines.
    pub fn summary(&self) -> String {
        format!(
            "{} prompts, {} answers to each, all enumerated. The best answers have reward {:.2}; the \
             reference writes\none of them with probability e^-{:.1}. The true reward predicts \
             {:.1}% of the labels. {:.0} s.\n",
            self.prompts,
            self.answers_per_prompt,
            self.best_reward,
            self.largest_kl,
            100.0 * self.best_accuracy,
            self.seconds,
        )
    }

    /// The table, as text.
    pub fn table(&self) -> String {
        let mut out = format!(
            "{:<20}{:<7}{:>15}{:>15}{:>15}{:>10}{:>10}{:>9}\n",
            "method", "§", "E r", "KL", "regret", "win rate", "accuracy", "seconds"
        );
        for e in &self.entries {
            let [reward, kl, regret] = e.numbers();
            let _ = writeln!(
                out,
                "{:<20}{:<7}{reward:>15}{kl:>15}{regret:>15}{:>10}{:>10}{:>9.1}",
                e.label,
                e.section.number(),
                share(e.win_rate),
                share(e.accuracy),
                e.seconds,
            );
        }
        let _ = writeln!(
            out,
            "{:<20}{:<7}{:>15.3}{:>15.3}{:>15}{:>10}{:>10}",
            format!("best, β = {}", self.beta),
            "",
            self.target.reward,
            self.target.kl,
            "0.000",
            "",
            share(Some(self.best_accuracy)),
        );
        out
    }

    /// Writes `report.json` and `report.html`, each whole or not at all.
    pub fn write(&self, dir: &Path) -> Result<()> {
        make(dir)?;
        let json = serde_json::to_string_pretty(self)?;
        for (name, text) in [("report.json", json), ("report.html", self.html())] {
            Staged::new(&dir.join(name), |part| std::fs::write(part, text))?.put()?;
        }
        Ok(())
    }

    /// The page: no script, no font, no file beside it.
    fn html(&self) -> String {
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
{points}<h2>Change something and see</h2>
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
            pairs = self.labelled_pairs,
            ceiling = 100.0 * self.best_accuracy,
            seed = self.seed,
            beta = self.beta,
            best_reward = self.target.reward,
            best_kl = self.target.kl,
            frontier = plot::frontier(self),
            on_the_way = plot::on_the_way(self),
            pulls = pulls::pulls(self),
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

/// Creates the folder of the reports. Called before the run, so that it fails early.
pub fn make(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir)
        .map_err(|e| format!("cannot write to {}: {e}", dir.display()).into())
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

/// A share in percent, or a dash.
pub fn share(x: Option<f64>) -> String {
    x.map_or("–".into(), |x| format!("{:.1}%", 100.0 * x))
}

/// A share that may be small.
fn escaped(x: Option<f64>) -> String {
    match x {
        None => "–".into(),
        Some(x) if x < 5e-5 => "&lt; 0.01%".into(),
        Some(x) => format!("{:.2}%", 100.0 * x),
    }
}

/// Settings on one line: `name = value · name = value`.
pub fn flat(settings: &Value) -> String {
    match settings {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| match value {
                Value::Object(inner) if inner.is_empty() => name.clone(),
                Value::Object(_) => format!("{name} ({})", flat(value)),
                value => format!("{name} = {}", flat(value)),
            })
            .collect::<Vec<_>>()
            .join(" · "),
        Value::String(text) => text.clone(),
        Value::Null => "none".into(),
        other => other.to_string(),
    }
}

pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// A number of the table, or a dash.
pub fn number(x: Option<f64>) -> String {
    // A regret of −1e-16 is 0.
    x.map_or("–".into(), |x| {
        format!("{:.3}", x + 0.0).replace("-0.000", "0.000")
    })
}

/// The frontier up to some KL; near the reference KL grows like η², so equal steps of η are finer there.
fn curve(frontier: &Frontier, furthest: f64) -> Vec<Mark> {
    let last = frontier
        .at_kl(furthest.min(0.999 * frontier.largest_kl()))
        .eta;
    let points = 60;
    (0..=points)
        .map(|i| {
            let best = frontier.at(last * i as f64 / points as f64);
            Mark {
                label: format!("1/β = {:.4}", best.eta),
                kl: best.kl,
                reward: best.reward,
            }
        })
        .collect()
}
