//! The results of the tour: as numbers (`report.json`) and as a page (`report.html`).

mod cells;
mod page;
mod since;

pub use cells::{escape, flat, number, share};
pub use since::SinceSection;

use super::atomic::Staged;
use super::lab::{Lab, Ran};
use super::methods::{BETA, Section};
use super::parameters::{Family, Placed};
use super::pulls;
use super::world::{Best, Frontier, PerAnswer, expectation, kl};
use super::{Found, Options, Result};
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
    pub labeled_pairs: usize,
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
    /// What came after the survey, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<SinceSection>,
    pub seconds: f64,
}

impl Report {
    pub fn new(lab: &Lab, options: &Options, found: Found, seconds: f64) -> Result<Self> {
        let Found {
            entries,
            points,
            since,
        } = found;
        let frontier = lab.frontier();
        let target = frontier.at(1.0 / BETA);
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
            labeled_pairs: lab.pairs.len(),
            beta: BETA,
            best_reward: frontier.best_reward(),
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
            since: SinceSection::new(lab, since),
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
}

/// Creates the folder of the reports. Called before the run, so that it fails early.
pub fn make(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir)
        .map_err(|e| format!("cannot write to {}: {e}", dir.display()).into())
}

/// The frontier up to some KL. Near the reference KL grows like η² and far from it hardly at all, so the steps
/// of η grow. Beyond the KL of the best answers it is level.
pub fn curve(frontier: &Frontier, furthest: f64) -> Vec<Mark> {
    let largest = 0.999 * frontier.largest_kl();
    let last = frontier.at_kl(furthest.min(largest)).eta;
    let points = 60;
    let mark = |best: Best| Mark {
        label: format!("1/β = {:.4}", best.eta),
        kl: best.kl,
        reward: best.reward,
    };
    // η = s/(1 − s/4), in equal steps of s
    let end = last / (1.0 + last / 4.0);
    let mut curve: Vec<Mark> = (0..=points)
        .map(|i| {
            let s = end * i as f64 / points as f64;
            mark(frontier.at(s / (1.0 - s / 4.0)))
        })
        .collect();
    if furthest > largest {
        curve.push(Mark {
            label: "the best answers alone".into(),
            kl: furthest.max(frontier.largest_kl()),
            reward: frontier.best_reward(),
        });
    }
    curve
}
