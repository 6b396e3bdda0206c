//! Since the survey, GRPO: its deviation weighs hard and easy prompts alike, and gives up the rarer kind of prompt.
//!
//! ```text
//! cargo run --example grpo
//! ```
//! Answers to a prompt succeed with probability p. A group of 20 is drawn, its rewards of 0 and 1 become advantages,
//! and the gradient is summed over all groups with their probabilities. Columns p: the weight of a prompt, its
//! gradient in units of ∇p. Column π(A): one policy answers all prompts alike, 60 % of them want A and 40 % want B; its
//! probability of A after 400 steps from ½.
//!
//! ```text
//!                   p = .02     .20     .50     .80     .98    π(A)
//! RLOO                1.000   1.000   1.000   1.000   1.000   0.998
//! Dr. GRPO            0.950   0.950   0.950   0.950   0.950   0.998
//! GRPO, groups of 4   1.492   1.435   1.399   1.435   1.492   0.999
//! GRPO                3.867   2.324   1.898   2.324   3.867   0.999
//! MaxRL              15.938   4.928   2.000   1.250   1.020   0.600
//! ```
//! What you should see: RLOO and Dr. GRPO weigh all prompts alike; they ascend the mean success p, Dr. GRPO by 1 − 1/G
//! of it. GRPO divides by the group's deviation, about √(p(1 − p)), and ascends 2 arcsin √p: the hardest and the
//! easiest prompts weigh most. The group limits that. No weight is above √G · (1 − 1/G), which is 4.25 for 20 answers
//! and 1.5 for 4, so small groups weigh nearly alike. MaxRL divides by the group's mean and ascends log p: only hard
//! prompts weigh more.
//!
//! The last column shows what follows from it. For a policy that answers A, a prompt that wants B is hard and one that
//! wants A is easy. GRPO weighs both alike, so the majority wins and B is given up, as under RLOO. MaxRL keeps B: the
//! shares of the prompts are where Σ share · log p is largest.
//!
//! Change `GROUP: usize = 20` to `GROUP: usize = 80` and see: the weight of the hardest prompt grows to 6.112 under
//! GRPO and to 39.865 under MaxRL. RLOO's stays 1.

#[path = "tabular/policy.rs"]
mod policy;

use candle_align::TokenLogProbs;
use candle_align::online::group_advantages::{
    Deviation, GrpoAdvantageConfig, grpo_advantages, max_rl_advantages, rloo_advantages,
};
use candle_align::online::policy_gradient::{GrpoConfig, grpo_loss};
use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::ops::log_softmax;
use policy::{Result, descend, softmax, table};

/// Answers to a prompt.
pub const GROUP: usize = 20;
/// The prompts of the columns, by their probability of success.
pub const PROMPTS: [f64; 5] = [0.02, 0.2, 0.5, 0.8, 0.98];
/// How many prompts want A, and how many B.
pub const SHARES: [f64; 2] = [0.6, 0.4];
/// The size of a step, and how many are taken.
pub const STEPS: (f64, usize) = (3.0, 400);

type Advantages = fn(&Tensor) -> candle_align::Result<Tensor>;

/// The methods: their names, their answers to a prompt, and the advantages of a group.
pub const METHODS: [(&str, usize, Advantages); 5] = [
    ("RLOO", GROUP, |r| rloo_advantages(r, None)),
    ("Dr. GRPO", GROUP, |r| grpo(r, Deviation::None)),
    ("GRPO, groups of 4", 4, |r| grpo(r, Deviation::Group)),
    ("GRPO", GROUP, |r| grpo(r, Deviation::Group)),
    ("MaxRL", GROUP, |r| max_rl_advantages(r, None)),
];

fn grpo(rewards: &Tensor, deviation: Deviation) -> candle_align::Result<Tensor> {
    let config = GrpoAdvantageConfig {
        deviation,
        ..Default::default()
    };
    grpo_advantages(rewards, None, &config)
}

/// What a method does.
pub struct Row {
    pub name: &'static str,
    pub weights: Vec<f64>,
    /// π(A).
    pub kept: f64,
}

pub struct Report {
    pub rows: Vec<Row>,
}

pub fn run() -> Result<Report> {
    let row = |(name, group, advantages): (&'static str, usize, Advantages)| {
        Ok(Row {
            name,
            weights: weights(group, advantages)?,
            kept: kept(group, advantages, STEPS.1)?,
        })
    };
    let rows = METHODS.map(row).into_iter().collect::<Result<_>>()?;
    Ok(Report { rows })
}

/// E of the loss over all groups at each prompt, `[prompts]`, from the log-probabilities of success and of failure.
fn loss(
    group: usize,
    advantages: Advantages,
    [right, wrong]: [&Tensor; 2],
) -> candle_align::Result<Tensor> {
    // a group of each number of successes, and its probability at each prompt
    let successes = |k: usize| (0..group).map(move |i| f64::from(i < k));
    let rewards: Vec<f64> = (0..=group).flat_map(successes).collect();
    let rewards = Tensor::from_vec(rewards, (group + 1, group), &Device::Cpu)?;
    let of = |p: f64| (0..=group).map(move |k| binomial(group, k, p));
    let p: Vec<f64> = right.detach().exp()?.to_vec1()?;
    let prompts = p.len();
    let chances: Vec<f64> = p.into_iter().flat_map(of).collect();
    let chances = Tensor::from_vec(chances, (prompts, group + 1), &Device::Cpu)?;

    // answers of one token, each a success or a failure
    let shape = (prompts, group + 1, group);
    let spread = |x: &Tensor| x.reshape((prompts, 1, 1))?.broadcast_as(shape);
    let succeeded = rewards.broadcast_as(shape)?.ne(0.0)?;
    let answers = succeeded.where_cond(&spread(right)?, &spread(wrong)?)?;
    let answers = answers.flatten_all()?.unsqueeze(1)?;
    let mask = Tensor::ones(answers.shape(), DType::U8, &Device::Cpu)?;
    let new = TokenLogProbs::new(&answers, &mask)?;
    let advantages = advantages(&rewards)?.broadcast_as(shape)?.flatten_all()?;

    let out = grpo_loss(&new, new.values(), &advantages, &GrpoConfig::default())?;
    let of_groups = out.loss.loss.reshape(shape)?.mean(2)?;
    Ok((of_groups * chances)?.sum(1)?)
}

/// P(k of n succeed).
fn binomial(n: usize, k: usize, p: f64) -> f64 {
    let ways: f64 = (0..k).map(|i| (n - i) as f64 / (i + 1) as f64).product();
    ways * p.powi(k as i32) * (1.0 - p).powi((n - k) as i32)
}

/// The gradient at each prompt in units of ∇p.
fn weights(group: usize, advantages: Advantages) -> Result<Vec<f64>> {
    let odds = PROMPTS.map(|p| [p.ln(), (1.0 - p).ln()]);
    let theta = Var::new(&odds, &Device::Cpu)?;
    let log_p = log_softmax(&theta, D::Minus1)?;
    let of = |at| log_p.narrow(1, at, 1)?.squeeze(1);
    let loss = loss(group, advantages, [&of(0)?, &of(1)?])?.sum_all()?;
    let grads = loss.backward()?;
    let gradient = grads.get(&theta).ok_or("the gradient does not reach θ")?;
    let gradient = gradient.narrow(1, 0, 1)?.squeeze(1)?.to_vec1::<f64>()?;
    // ∂p/∂θ = p (1 − p)
    let weight = |(p, g): (f64, f64)| -g / (p * (1.0 - p));
    Ok(PROMPTS.into_iter().zip(gradient).map(weight).collect())
}

/// π(A) of the policy that answers every prompt alike.
pub fn kept(group: usize, advantages: Advantages, steps: usize) -> Result<f64> {
    let theta = descend(&[0.0, 0.0], STEPS.0, steps, |theta| {
        // what is right for one kind of prompt is wrong for the other
        let right = log_softmax(theta, D::Minus1)?;
        let wrong = right.index_select(&Tensor::new(&[1u32, 0], &Device::Cpu)?, 0)?;
        let losses = loss(group, advantages, [&right, &wrong])?;
        Ok((losses * Tensor::new(&SHARES, &Device::Cpu)?)?.sum_all()?)
    })?;
    Ok(softmax(&theta)[0])
}

impl Report {
    pub fn table(&self) -> String {
        let row = |row: &Row| (row.name, [&row.weights[..], &[row.kept]].concat());
        let rows: Vec<_> = self.rows.iter().map(row).collect();
        let head = ["", "p = .02", ".20", ".50", ".80", ".98", "π(A)"];
        table(&head, &rows)
    }
}

fn main() -> Result<()> {
    println!("{}", run()?.table());
    Ok(())
}
