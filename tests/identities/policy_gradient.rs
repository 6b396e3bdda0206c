//! What the pages of `online/policy_gradient` list under Properties.

use crate::common::rows::policy_gradient::{rows, surrogates};
use crate::common::{assert_close, bits, matrix, numbers, vector};
use candle_align::online::policy_gradient::*;
use candle_align::online::ratio::{RatioLevel, importance_ratio};
use candle_align::{
    KlEstimator, PolicyLoss, PpoConfig, Reduction, Result, SftConfig, TokenLogProbs, TokenLoss,
    kl_loss, ppo_policy_loss, sft_loss,
};
use candle_core::{DType, Device, Tensor, Var};

const SEQUENCE_MEANS: Reduction = Reduction::MeanOfSequenceMeans;

/// Two answers of three and two tokens, moved from the old policy by these log-ratios.
struct World {
    values: Var,
    new: TokenLogProbs,
    old: Tensor,
    advantages: Tensor,
}

fn world(moved: [f64; 5]) -> World {
    let [a, b, c, d, e] = moved;
    let old = matrix(&[&[-0.9, -1.0, -0.4], &[-1.5, -0.9, 0.0]]);
    let by = matrix(&[&[a, b, c], &[d, e, 0.0]]);
    let values = Var::from_tensor(&(&old + by).unwrap()).unwrap();
    World {
        new: TokenLogProbs::new(&values, &bits(&[&[1, 1, 1], &[1, 1, 0]])).unwrap(),
        values,
        old,
        advantages: vector(&[1.5, -0.5]),
    }
}

const MOVED: [f64; 5] = [0.6, -0.2, 0.05, -0.5, 0.3];

fn gradient(world: &World, loss: &Tensor) -> Vec<f64> {
    let grads = loss.sum_all().unwrap().backward().unwrap();
    numbers(grads.get(&world.values).unwrap())
}

#[track_caller]
fn same(world: &World, a: &Tensor, b: &Tensor, what: &str) {
    assert_close(&numbers(a), &numbers(b), 1e-14, what);
    assert_close(&gradient(world, a), &gradient(world, b), 1e-14, what);
}

fn grpo(world: &World, config: &GrpoConfig) -> PolicyLoss {
    grpo_loss(&world.new, &world.old, &world.advantages, config).unwrap()
}

fn gspo(world: &World, clip: f64, form: GspoForm) -> TokenLoss {
    let config = GspoConfig {
        clip,
        clip_high: clip,
        form,
    };
    let out = gspo_loss(&world.new, &world.old, &world.advantages, &config);
    out.unwrap().loss
}

#[test]
fn grpo_per_token_is_ppo_s_policy_loss_and_delta_its_dual_clip() {
    let world = world(MOVED);
    let per_token = matrix(&[&[1.5, 1.5, 1.5], &[-0.5, -0.5, -0.5]]);
    for (clip_high, delta) in [(None, None), (Some(0.28), None), (None, Some(1.3))] {
        let config = GrpoConfig {
            clip_high,
            delta,
            ..GrpoConfig::default()
        };
        let ours = grpo(&world, &config);
        let config = PpoConfig {
            clip: 0.2,
            clip_high,
            dual_clip: delta,
        };
        let ppo = ppo_policy_loss(&world.new, &world.old, &per_token, &config).unwrap();
        same(&world, &ours.loss.loss, &ppo.loss.loss, "loss");
        assert_eq!(numbers(&ours.clipped), numbers(&ppo.clipped));
        assert_eq!(numbers(&ours.ratio), numbers(&ppo.ratio));
        assert_eq!(numbers(&ours.kl_k3), numbers(&ppo.kl_k3));
    }
}

#[test]
fn both_forms_of_gspo_agree_where_an_answer_has_one_advantage() {
    let world = world(MOVED);
    for clip in [0.05, 0.5] {
        let sequence = gspo(&world, clip, GspoForm::Sequence);
        let token = gspo(&world, clip, GspoForm::Token);
        for reduction in [
            SEQUENCE_MEANS,
            Reduction::SequenceMean,
            Reduction::TokenMean,
        ] {
            let (a, b) = (sequence.reduce(reduction), token.reduce(reduction));
            same(&world, &a.unwrap(), &b.unwrap(), "forms");
        }
    }
}

#[test]
fn every_loss_starts_with_the_policy_gradient() {
    let world = world([0.0; 5]);
    let World {
        new,
        old,
        advantages,
        ..
    } = &world;
    let paying = bits(&[&[1, 1, 0], &[0, 1, 0]]);
    let of_tokens: Vec<(&str, Result<PolicyLoss>)> = vec![
        (
            "grpo",
            grpo_loss(new, old, advantages, &GrpoConfig::default()),
        ),
        ("dapo", grpo_loss(new, old, advantages, &GrpoConfig::dapo())),
        (
            "cispo",
            cispo_loss(new, old, advantages, &CispoConfig::default()),
        ),
        (
            "sapo",
            sapo_loss(new, old, advantages, &SapoConfig::default()),
        ),
        (
            "vespo",
            vespo_loss(new, old, advantages, None, &VespoConfig::default()),
        ),
        (
            "dppo",
            dppo_loss(new, old, advantages, &DppoConfig::default()),
        ),
        (
            "kl-cov",
            kl_cov_loss(new, old, advantages, &paying, &KlCovConfig::default()),
        ),
    ];
    let want = [-1.5, -1.5, -1.5, 0.5, 0.5, 0.0];
    for (name, out) in of_tokens {
        let out = out.unwrap();
        assert_close(&gradient(&world, &out.loss.loss), &want, 1e-14, name);
        assert_eq!(numbers(&out.clipped), [0.0; 6], "{name}");
    }
    let reinforce = reinforce_loss(new, advantages).unwrap();
    assert_close(
        &gradient(&world, &reinforce.loss),
        &want,
        1e-14,
        "reinforce",
    );
    // of answers: the same, shared by their tokens
    let gspo = gspo_loss(new, old, advantages, &GspoConfig::default())
        .unwrap()
        .loss;
    let gmpo = gmpo_loss(new, old, advantages, &GmpoConfig::default())
        .unwrap()
        .loss;
    for (name, loss) in [("gspo", gspo), ("gmpo", gmpo)] {
        let loss = loss.reduce(SEQUENCE_MEANS).unwrap();
        let want = want.map(|g| g / 2.0);
        let lengths = [3.0, 3.0, 3.0, 2.0, 2.0, 1.0];
        let want: Vec<f64> = want.iter().zip(lengths).map(|(g, n)| g / n).collect();
        assert_close(&gradient(&world, &loss), &want, 1e-14, name);
    }
}

#[test]
fn gmpo_that_clips_nothing_is_gspo_that_clips_nothing() {
    let world = world(MOVED);
    let config = GmpoConfig {
        clip: 5.0,
        clip_high: None,
    };
    let gmpo = gmpo_loss(&world.new, &world.old, &world.advantages, &config).unwrap();
    let gspo = gspo(&world, 5.0, GspoForm::Sequence);
    same(&world, &gmpo.loss.loss, &gspo.loss, "unclipped");
}

#[test]
fn luspo_is_gspo_times_the_length() {
    let world = world(MOVED);
    let gspo = gspo(&world, 0.5, GspoForm::Sequence);
    let luspo = gspo.reduce(Reduction::SequenceMean).unwrap();
    let of = |from: usize, n: usize| {
        gspo.loss
            .narrow(0, from, 1)
            .unwrap()
            .narrow(1, 0, n)
            .unwrap()
    };
    let first = (of(0, 1).sum_all().unwrap() * 3.0).unwrap();
    let second = (of(1, 1).sum_all().unwrap() * 2.0).unwrap();
    same(
        &world,
        &luspo,
        &((first + second).unwrap() / 2.0).unwrap(),
        "luspo",
    );
}

#[test]
fn answers_of_one_token_have_one_ratio_at_every_level() {
    let values = Var::new(&[[-0.5f64], [-2.0]], &Device::Cpu).unwrap();
    let new = TokenLogProbs::new(&values, &bits(&[&[1], &[1]])).unwrap();
    let old = matrix(&[&[-0.9], &[-1.5]]);
    let at = |level| numbers(&importance_ratio(&new, &old, level).unwrap());
    let token = at(RatioLevel::Token);
    for level in [
        RatioLevel::SequenceMean,
        RatioLevel::SequenceSum,
        RatioLevel::TokenOfSequenceMean,
    ] {
        assert_close(&at(level), &token, 1e-15, "one token");
    }
}

#[test]
fn each_reduction_weighs_length_in_its_own_way() {
    // at the first step, a short and a long answer of equal advantage
    let world = World {
        advantages: vector(&[1.0, 1.0]),
        ..world([0.0; 5])
    };
    let loss = grpo(&world, &GrpoConfig::default()).loss;
    let slopes = |reduction| gradient(&world, &loss.reduce(reduction).unwrap());
    // GRPO: a token of the short answer is pulled harder
    let third = 1.0 / 6.0;
    let want = [-third, -third, -third, -0.25, -0.25, 0.0];
    assert_close(&slopes(SEQUENCE_MEANS), &want, 1e-15, "grpo");
    // DAPO: all tokens alike, so the long answer is pulled harder as a whole
    let want = [-0.2, -0.2, -0.2, -0.2, -0.2, 0.0];
    assert_close(&slopes(Reduction::TokenMean), &want, 1e-15, "dapo");
    // Dr. GRPO: all tokens alike, whatever the lengths of the batch
    let want = [-0.05, -0.05, -0.05, -0.05, -0.05, 0.0];
    let constant = Reduction::SumOver { count: 2.0 * 10.0 };
    assert_close(&slopes(constant), &want, 1e-15, "dr. grpo");
}

#[test]
fn token_dro_is_reinforce_with_k2_against_the_old_policy() {
    let world = world(MOVED);
    let World {
        new,
        old,
        advantages,
        ..
    } = &world;
    let dro = token_dro_loss(new, old, advantages, &TokenDroConfig { beta: 0.3 }).unwrap();
    let k2 = kl_loss(new, old, KlEstimator::K2).unwrap().loss;
    let reinforce = reinforce_loss(new, advantages).unwrap().loss;
    same(
        &world,
        &dro.loss,
        &(reinforce + (k2 * 0.3).unwrap()).unwrap(),
        "dro",
    );
    let none = token_dro_loss(new, old, advantages, &TokenDroConfig { beta: 0.0 }).unwrap();
    same(
        &world,
        &none.loss,
        &reinforce_loss(new, advantages).unwrap().loss,
        "none",
    );
    // its slope is 0 at a log-ratio of Â/β
    let still = world_at_target(0.5);
    assert_close(&still, &[0.0; 6], 1e-14, "target");
}

fn world_at_target(beta: f64) -> Vec<f64> {
    let (up, down) = (1.5 / beta, -0.5 / beta);
    let world = world([up, up, up, down, down]);
    let config = TokenDroConfig { beta };
    let loss = token_dro_loss(&world.new, &world.old, &world.advantages, &config).unwrap();
    gradient(&world, &loss.loss)
}

#[test]
fn the_two_conventions_of_cispo_write_one_bound() {
    let world = world([3.0, -3.0, 0.1, 2.0, -2.0]);
    let of = |clip| {
        let config = CispoConfig {
            clip,
            ..CispoConfig::default()
        };
        let out = cispo_loss(&world.new, &world.old, &world.advantages, &config);
        out.unwrap().loss.loss
    };
    let around = CispoClip::AroundOne {
        low: 1.0,
        high: 4.0,
    };
    same(
        &world,
        &of(CispoClip::Absolute { high: 5.0 }),
        &of(around),
        "bounds 0 and 5",
    );
    // a lower ε of 0 is a bound at 1
    let bound = of(CispoClip::AroundOne {
        low: 0.0,
        high: 4.0,
    });
    assert!(numbers(&bound)[1] > 2.0 * numbers(&of(around))[1].abs());
}

#[test]
fn sapo_has_slope_one_at_ratio_one_for_every_temperature() {
    let world = world([0.0; 5]);
    for tau in [0.3, 1.0, 7.0] {
        let config = SapoConfig {
            temperature_positive: tau,
            temperature_negative: tau,
            ..SapoConfig::default()
        };
        let out = sapo_loss(&world.new, &world.old, &world.advantages, &config).unwrap();
        let want = [-1.5, -1.5, -1.5, 0.5, 0.5, 0.0];
        assert_close(&gradient(&world, &out.loss.loss), &want, 1e-14, "slope");
        let want = want.map(|x| 2.0 * x / tau);
        assert_close(&numbers(&out.loss.loss), &want, 1e-13, "value");
    }
}

#[test]
fn vespo_s_weight_is_largest_at_k_over_lambda() {
    let phi = |log_w: f64, advantage: f64| {
        let values = Var::new(&[[-2.0 + log_w]], &Device::Cpu).unwrap();
        let new = TokenLogProbs::new(&values, &bits(&[&[1]])).unwrap();
        let (old, a) = (matrix(&[&[-2.0]]), vector(&[advantage]));
        let out = vespo_loss(&new, &old, &a, None, &VespoConfig::default()).unwrap();
        let grads = out.loss.loss.sum_all().unwrap().backward().unwrap();
        -numbers(grads.get(&values).unwrap())[0] / advantage
    };
    for (advantage, top) in [(1.0, 2.0f64 / 3.0), (-1.0, 1.5)] {
        assert_close(&[phi(0.0, advantage)], &[1.0], 1e-15, "at 1");
        let at_top = phi(top.ln(), advantage);
        for step in [-0.1, 0.1] {
            assert!(phi(top.ln() + step, advantage) < at_top, "{advantage}");
        }
    }
}

#[test]
fn dppo_lets_a_rare_token_grow_that_grpo_stops() {
    let values = Var::new(&[[0.05f64.ln(), 0.9f64.ln()]], &Device::Cpu).unwrap();
    let new = TokenLogProbs::new(&values, &bits(&[&[1, 1]])).unwrap();
    let old = matrix(&[&[0.01f64.ln(), 0.85f64.ln()]]);
    let good = vector(&[1.0]);
    let dppo = dppo_loss(&new, &old, &good, &DppoConfig::default()).unwrap();
    assert_eq!(numbers(&dppo.clipped), [0.0, 0.0]);
    let grpo = grpo_loss(&new, &old, &good, &GrpoConfig::default()).unwrap();
    assert_eq!(numbers(&grpo.clipped), [1.0, 0.0]);
    // a move back towards the old policy is never stopped
    let bad = vector(&[-1.0]);
    for divergence in [BinaryDivergence::TotalVariation, BinaryDivergence::Kl] {
        let config = DppoConfig {
            divergence,
            low: 1e-3,
            high: 1e-3,
            ..DppoConfig::default()
        };
        let out = dppo_loss(&new, &old, &bad, &config).unwrap();
        assert_eq!(numbers(&out.clipped), [0.0, 0.0]);
        let out = dppo_loss(&new, &old, &good, &config).unwrap();
        assert_eq!(numbers(&out.clipped), [1.0, 1.0]);
    }
}

#[test]
fn an_added_likelihood_is_sft_on_its_tokens() {
    let world = world(MOVED);
    let term = added_nll_loss(&world.new, None, &AddedNllConfig { weight: 0.25 }).unwrap();
    let sft = sft_loss(&world.new, None, &SftConfig::default()).unwrap();
    same(&world, &term.loss, &(sft.loss * 0.25).unwrap(), "sft");
}

/// Every loss of the table, under every reduction: the window's count divides each micro-batch.
#[test]
fn micro_batches_are_one_batch() {
    let all = rows()
        .into_iter()
        .chain(surrogates().into_iter().map(|s| s.row));
    for row in all {
        let vars = row.vars(DType::F64);
        let at = |from: usize, n: usize| {
            let part = |v: &Var| v.narrow(0, from, n).unwrap();
            let tensors: Vec<Tensor> = vars.iter().map(part).collect();
            // the loss of each example, and its number of tokens
            let mask = tensors[1].clone();
            ((row.loss)(&tensors).unwrap(), mask)
        };
        for reduction in [
            Reduction::TokenMean,
            Reduction::SequenceMean,
            SEQUENCE_MEANS,
            Reduction::SumOver { count: 3.0 * 4.0 },
        ] {
            // a sum over tokens as the first of them: what every reduction but one divides
            let reduced = |loss: &Tensor, mask: &Tensor, reduction: Reduction| {
                let time = mask.dim(1).unwrap();
                let counts = mask.ne(0u8).unwrap().to_dtype(DType::F64).unwrap();
                let n = counts.sum_keepdim(1).unwrap().maximum(1.0).unwrap();
                let spread = loss.unsqueeze(1).unwrap().broadcast_div(&n).unwrap();
                let spread = spread.broadcast_as((loss.dim(0).unwrap(), time)).unwrap();
                reduction.apply(&spread, mask).unwrap()
            };
            let (whole, mask) = at(0, 3);
            let whole = reduced(&whole, &mask, reduction);
            let window = reduction.over(reduction.count(&mask).unwrap());
            let parts = [at(0, 1), at(1, 2)].map(|(loss, mask)| reduced(&loss, &mask, window));
            let sum = (&parts[0] + &parts[1]).unwrap();
            assert_close(&numbers(&sum), &numbers(&whole), 1e-13, row.name);
            let (a, b) = (sum.backward().unwrap(), whole.backward().unwrap());
            let of =
                |grads: &candle_core::backprop::GradStore| numbers(grads.get(&vars[0]).unwrap());
            assert_close(&of(&a), &of(&b), 1e-13, row.name);
        }
    }
}
