//! §3.2.1, ranking: if the ranking never varies, the only optimum is the best answer alone.
//!
//! ```text
//! cargo run --example rankings
//! ```
//! Lists of all four answers, ranked by the rewards 0, 1, ½, 2, under RRHF's hinge and PRO's softmax.
//! Every list has the same ranking, except in the last two rows. There the ranking is drawn, and an
//! answer comes before all that are left with P ∝ eʳ (Plackett and Luce):
//!
//! ```text
//!                                      A       B       C       D     E r      KL
//! π_ref                            0.400   0.300   0.200   0.100   0.600   0.000
//! RRHF, its ranking part alone     0.233   0.263   0.237   0.266   0.915   0.141
//! RRHF, ranking and SFT            0.000   0.000   0.000   0.999   1.999   2.295
//! PRO                              0.000   0.005   0.000   0.995   1.995   2.266
//! PRO, T = 1, answers of 1 token   0.078   0.213   0.129   0.579   1.436   0.760
//! PRO, T = 1, answers of 3         0.002   0.047   0.010   0.940   1.933   1.978
//! ```
//! What you should see: RRHF's ranking part is satisfied with the right order, however small the gaps.
//! With the SFT part the best answer takes everything, as under SFT alone: the probability of the
//! others falls like 1/N over N steps, and ranking does not stop it. PRO does the same, because its
//! ranking part pulls in the same direction. Only rankings that contradict each other have an optimum,
//! π ∝ e^{│y│r}: RLHF's without a reference, with β = 1/│y│, so longer answers make the policy sharper.
//!
//! Change `drawn(3.0, 15.0, 200)` to `drawn(2.0, 6.0, 200)` and see: with answers of two tokens, D has
//! e² = 7.4 times the probability of B, and 0.831 in all.

#[path = "tabular/policy.rs"]
mod policy;

use candle_align::{
    Candidates, ListLoss, ProConfig, ProTemperature, RrhfConfig, pro_loss, rrhf_loss,
};
use candle_core::{D, Device, Tensor};
use candle_nn::ops::log_softmax;
use policy::{REFERENCE, REWARDS, Result, descend, log, policies, softmax};

/// The policies at the end of each run.
pub struct Report {
    pub policies: Vec<(&'static str, Vec<f64>)>,
}

pub fn run() -> Result<Report> {
    let rank_alone = RrhfConfig {
        sft_weight: 0.0,
        ..Default::default()
    };
    let plain = ProConfig {
        temperature: ProTemperature::One,
        sft_weight: 0.0,
    };
    let one = [(REWARDS, 1.0)];
    let rrhf = |c: &Candidates| rrhf_loss(c, &RrhfConfig::default());
    let pro = |c: &Candidates| pro_loss(c, &ProConfig::default());
    let drawn =
        |length, alpha, steps| learn(&rankings(), length, (alpha, steps), |c| pro_loss(c, &plain));
    let reached = vec![
        ("π_ref", REFERENCE.to_vec()),
        (
            "RRHF, its ranking part alone",
            learn(&one, 1.0, (0.01, 100), |c| rrhf_loss(c, &rank_alone))?,
        ),
        (
            "RRHF, ranking and SFT",
            learn(&one, 1.0, (1.0, STEPS), rrhf)?,
        ),
        ("PRO", learn(&one, 1.0, (1.0, STEPS), pro)?),
        ("PRO, T = 1, answers of 1 token", drawn(1.0, 1.6, 100)?),
        ("PRO, T = 1, answers of 3", drawn(3.0, 15.0, 200)?),
    ];
    Ok(Report { policies: reached })
}

/// N, for the two runs that never end.
pub const STEPS: usize = 1000;

/// Minimizes the expected loss of lists of all four answers, over rankings with these probabilities.
fn learn(
    rankings: &[([f64; 4], f64)],
    length: f64,
    (alpha, steps): (f64, usize),
    loss: impl Fn(&Candidates) -> candle_align::Result<ListLoss>,
) -> Result<Vec<f64>> {
    let (labels, shares): (Vec<[f64; 4]>, Vec<f64>) = rankings.iter().copied().unzip();
    let labels = Tensor::from_vec(labels.concat(), (rankings.len(), 4), &Device::Cpu)?;
    let shares = Tensor::new(shares, &Device::Cpu)?;
    let lengths = (labels.ones_like()? * length)?;
    let theta = descend(&log(&REFERENCE), alpha, steps, |theta| {
        let sums = log_softmax(theta, D::Minus1)?.unsqueeze(0)?;
        let sums = sums.broadcast_as(labels.shape())?;
        let lists = Candidates::new(&sums, &lengths, &labels, None)?;
        Ok((loss(&lists)?.loss * &shares)?.sum_all()?)
    })?;
    Ok(softmax(&theta))
}

/// Every ranking of the four answers, as labels that order them, and its probability: the answer in
/// each place is drawn among those left by e^r.
fn rankings() -> Vec<([f64; 4], f64)> {
    let mut all = vec![([f64::NAN; 4], 1.0)];
    for place in 0..4 {
        let grow = |(labels, share): &([f64; 4], f64)| {
            let (labels, share) = (*labels, *share);
            let left = move |i: &usize| labels[*i].is_nan();
            let total: f64 = (0..4).filter(left).map(|i| REWARDS[i].exp()).sum();
            (0..4).filter(left).map(move |i| {
                let mut longer = labels;
                longer[i] = -f64::from(place);
                (longer, share * REWARDS[i].exp() / total)
            })
        };
        all = all.iter().flat_map(grow).collect();
    }
    all
}

impl Report {
    pub fn table(&self) -> String {
        policies(&self.policies)
    }
}

fn main() -> Result<()> {
    println!("{}", run()?.table());
    Ok(())
}
