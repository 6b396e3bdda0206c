use crate::common::{EXACT, assert_close, bits, matrix, numbers, vector};
use candle_align::math::plackett_luce;
use candle_align::{
    Candidates, DpoConfig, ListLoss, Pair, ProConfig, ProTemperature, Reduction, SftConfig,
    TokenLogProbs, dpo_loss, pro_loss, sft_loss,
};
use candle_core::{Device, Tensor, Var};

const SUMS: [f64; 4] = [-2.5, -4.1, -3.3, -0.9];
const LENGTHS: [f64; 4] = [2.0, 3.0, 5.0, 1.0];
const REWARDS: [f64; 4] = [0.2, 1.5, -0.3, 0.8];

fn ranking_only(temperature: ProTemperature) -> ProConfig {
    ProConfig {
        temperature,
        sft_weight: 0.0,
    }
}

fn loss(sums: &[f64], lengths: &[f64], rewards: &[f64], config: &ProConfig) -> ListLoss {
    let c = Candidates::new(
        &matrix(&[sums]),
        &matrix(&[lengths]),
        &matrix(&[rewards]),
        None,
    );
    pro_loss(&c.unwrap(), config).unwrap()
}

fn ranking(sums: &[f64], lengths: &[f64], rewards: &[f64], temperature: ProTemperature) -> f64 {
    let out = loss(sums, lengths, rewards, &ranking_only(temperature));
    numbers(&out.loss)[0]
}

fn gradient(sums: &[f64], lengths: &[f64], rewards: &[f64], config: &ProConfig) -> Vec<f64> {
    let sums = Var::from_tensor(&matrix(&[sums])).unwrap();
    let c = Candidates::new(&sums, &matrix(&[lengths]), &matrix(&[rewards]), None).unwrap();
    let grads = pro_loss(&c, config).unwrap().loss.backward().unwrap();
    numbers(grads.get(&sums).unwrap())
}

fn means() -> Vec<f64> {
    SUMS.iter().zip(LENGTHS).map(|(s, n)| s / n).collect()
}

#[test]
fn at_temperature_one_it_is_plackett_luce_on_the_means() {
    for rewards in [REWARDS, [1.0, 1.0, 0.0, 0.0], [2.0; 4]] {
        let want = plackett_luce(
            &matrix(&[&means()]),
            &matrix(&[&rewards]),
            &bits(&[&[1, 1, 1, 1]]),
        )
        .unwrap();
        let got = ranking(&SUMS, &LENGTHS, &rewards, ProTemperature::One);
        assert_close(&[got], &numbers(&want), EXACT, "PRO(T = 1) = PL");
    }
}

#[test]
fn equal_reward_gaps_of_one_are_temperature_one_for_two_answers_only() {
    let (sums, lengths) = (&SUMS[..2], &LENGTHS[..2]);
    let with = |rewards: &[f64], temperature| ranking(sums, lengths, rewards, temperature);
    assert_close(
        &[with(&[3.0, 2.0], ProTemperature::RewardGaps)],
        &[with(&[3.0, 2.0], ProTemperature::One)],
        EXACT,
        "a gap of one",
    );
    // with three answers the winner's own temperature is the widest gap
    let gaps = ranking(
        &SUMS[..3],
        &LENGTHS[..3],
        &[3.0, 2.0, 1.0],
        ProTemperature::RewardGaps,
    );
    let one = ranking(
        &SUMS[..3],
        &LENGTHS[..3],
        &[3.0, 2.0, 1.0],
        ProTemperature::One,
    );
    assert!((gaps - one).abs() > 0.1);
}

#[test]
fn two_answers_of_one_token_at_temperature_one_are_dpo_without_a_reference() {
    let pair = Pair {
        chosen: vector(&[-0.7]),
        rejected: vector(&[-1.9]),
    };
    let dpo = DpoConfig {
        beta: 1.0,
        ..Default::default()
    };
    let want = dpo_loss(&pair, None, &dpo).unwrap().loss;
    let got = ranking(&[-0.7, -1.9], &[1.0; 2], &[5.0, 2.0], ProTemperature::One);
    assert_close(&[got], &numbers(&want), EXACT, "PRO = DPO");
    // the reward gap takes the place of β
    let dpo = DpoConfig {
        beta: 3.0,
        ..Default::default()
    };
    let want = dpo_loss(&pair, None, &dpo).unwrap().loss;
    let got = ranking(
        &[-0.7, -1.9],
        &[1.0; 2],
        &[5.0, 2.0],
        ProTemperature::RewardGaps,
    );
    assert_close(&[got], &numbers(&want), EXACT, "PRO = DPO, gap = β");
}

#[test]
fn the_order_of_the_answers_changes_nothing() {
    let order = [2, 0, 3, 1];
    let pick = |x: &[f64; 4]| order.map(|i| x[i]);
    for temperature in [ProTemperature::One, ProTemperature::RewardGaps] {
        let config = ProConfig {
            temperature,
            ..Default::default()
        };
        let want = loss(&SUMS, &LENGTHS, &REWARDS, &config);
        let got = loss(&pick(&SUMS), &pick(&LENGTHS), &pick(&REWARDS), &config);
        assert_close(&numbers(&got.loss), &numbers(&want.loss), EXACT, "order");
    }
}

#[test]
fn what_a_change_of_the_rewards_changes() {
    let shifted = REWARDS.map(|r| r + 3.7);
    let scaled = REWARDS.map(|r| 2.0 * r);
    let cubed = REWARDS.map(|r| r * r * r);
    let with = |rewards: &[f64; 4], t| ranking(&SUMS, &LENGTHS, rewards, t);
    let (gaps, one) = (ProTemperature::RewardGaps, ProTemperature::One);
    let (by_gaps, by_one) = (with(&REWARDS, gaps), with(&REWARDS, one));
    assert_close(&[with(&shifted, gaps)], &[by_gaps], EXACT, "shifted");
    assert_close(
        &[with(&shifted, one), with(&scaled, one), with(&cubed, one)],
        &[by_one; 3],
        EXACT,
        "T = 1 sees the order only",
    );
    assert!((with(&scaled, gaps) - by_gaps).abs() > 0.1);
}

#[test]
fn temperatures_push_the_likelihood_up() {
    // Σᵢ nᵢ ∂L/∂ℓᵢ = −Σₖ Σ_{i worse than k} w_ki (rᵢ − r_worst), with and without ties
    for rewards in [REWARDS, [1.5, 0.4, 1.5, -1.0], [1.0, 0.0, 0.0, -2.0]] {
        let s = means();
        let worst = rewards.iter().fold(f64::MAX, |a, &b| a.min(b));
        let mut want = 0.0;
        for k in 0..4 {
            let own = (s[k] * (rewards[k] - worst)).exp();
            let others: Vec<(f64, f64)> = (0..4)
                .filter(|&i| rewards[i] < rewards[k])
                .map(|i| ((s[i] * (rewards[k] - rewards[i])).exp(), rewards[i]))
                .collect();
            let total = own + others.iter().map(|(e, _)| e).sum::<f64>();
            want -= others
                .iter()
                .map(|(e, r)| e / total * (r - worst))
                .sum::<f64>();
        }
        let push = |temperature| -> f64 {
            gradient(&SUMS, &LENGTHS, &rewards, &ranking_only(temperature))
                .iter()
                .zip(LENGTHS)
                .map(|(g, n)| g * n)
                .sum()
        };
        let got = push(ProTemperature::RewardGaps);
        assert!(got < -0.1, "{got}");
        assert_close(&[got], &[want], EXACT, "push");
        assert_close(&[push(ProTemperature::One)], &[0.0], EXACT, "no push");
    }
    let two = gradient(
        &SUMS[..2],
        &LENGTHS[..2],
        &REWARDS[..2],
        &ranking_only(ProTemperature::RewardGaps),
    );
    let push = two[0] * LENGTHS[0] + two[1] * LENGTHS[1];
    assert_close(&[push], &[0.0], EXACT, "no push for two");
}

#[test]
fn the_supervised_gradient_is_its_weight() {
    for (rewards, bests) in [(REWARDS, vec![1]), ([1.0, 1.0, -2.0, 1.0], vec![0, 1, 3])] {
        let with = |sft_weight| {
            let config = ProConfig {
                sft_weight,
                ..Default::default()
            };
            gradient(&SUMS, &LENGTHS, &rewards, &config)
        };
        let difference: Vec<f64> = with(0.4)
            .iter()
            .zip(with(0.0))
            .map(|(a, b)| a - b)
            .collect();
        let want: Vec<f64> = (0..4)
            .map(|i| match bests.contains(&i) {
                true => -0.4 * 9.0 / bests.len() as f64,
                false => 0.0,
            })
            .collect();
        assert_close(&difference, &want, EXACT, "sft gradient");
    }
}

#[test]
fn the_supervised_part_is_sft_on_the_best_answer() {
    let values = matrix(&[&[-0.5, -0.7, 0.0], &[-0.1, -0.2, -0.9]]);
    let mask = bits(&[&[1, 1, 0], &[1, 1, 1]]);
    let rows = TokenLogProbs::new(&values, &mask).unwrap();
    let c = Candidates::from_token_log_probs(&rows, &matrix(&[&[0.3, 0.8]]), None).unwrap();
    let best = TokenLogProbs::new(&values.narrow(0, 1, 1).unwrap(), &bits(&[&[1, 1, 1]])).unwrap();
    let sft = sft_loss(&best, None, &SftConfig::default()).unwrap();
    let sft = numbers(&sft.reduce(Reduction::Sum).unwrap())[0];
    let out = pro_loss(&c, &ProConfig::default()).unwrap();
    assert_close(&numbers(&out.sft), &[0.05 * sft], EXACT, "sft");
}

#[test]
fn the_parts_are_reported_without_their_history() {
    let sums = Var::from_tensor(&matrix(&[&SUMS])).unwrap();
    let c = Candidates::new(&sums, &matrix(&[&LENGTHS]), &matrix(&[&REWARDS]), None).unwrap();
    let out = pro_loss(&c, &ProConfig::default()).unwrap();
    for part in [&out.ranking, &out.sft] {
        let grads = (part * 1.0).unwrap().backward().unwrap();
        assert!(grads.get(&sums).is_none());
    }
}

#[test]
fn far_scores_and_wide_gaps_stay_right() {
    // a plain sum of exponentials underflows at scores of −5 and gaps of 10
    let sums = Tensor::new(&[[-5.0f32, -5.5]], &Device::Cpu).unwrap();
    let ones = Tensor::ones((1, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
    let rewards = Tensor::new(&[[10.0f32, 0.0]], &Device::Cpu).unwrap();
    let c = Candidates::new(&sums, &ones, &rewards, None).unwrap();
    let out = pro_loss(&c, &ranking_only(ProTemperature::RewardGaps)).unwrap();
    assert_close(
        &numbers(&out.loss),
        &[(-5.0f64).exp().ln_1p()],
        1e-6,
        "log-sum-exp",
    );
}
