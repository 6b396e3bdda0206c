//! The claims of `--since` on policy gradients, on a quick run.

use crate::since::{dpo, near, place, section, with_since};
use crate::tour_claims::{options, quiet};
use candle_core::{Device, Tensor};
use tour::Options;
use tour::lab::{Lab, Sizes};
use tour::methods::policy_gradients::{Kl, PolicyGradient, of_answers, of_prompts};
use tour::report::{Entry, curve};
use tour::world::PROMPTS;

fn entry(method: PolicyGradient) -> &'static Entry {
    section().policy_gradient(method).expect("an entry")
}

fn with(kl: Kl) -> Vec<PolicyGradient> {
    let all = PolicyGradient::ALL.into_iter();
    all.filter(|method| method.kl() == kl).collect()
}

#[test]
fn every_method_has_its_entry_and_its_settings() {
    let entries = &section().policy_gradients;
    let names: Vec<&str> = entries.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(names, PolicyGradient::ALL.map(|m| m.title().name));
    for e in entries {
        let settings = e.settings.as_object().expect("an object");
        for field in ["loss", "advantages", "kl", "answers_to_a_prompt"] {
            assert!(settings.contains_key(field), "{}: {field}", e.name);
        }
        assert_eq!(settings["steps"], dpo().settings["steps"], "{}", e.name);
        assert_eq!(e.section.number(), "3.1");
        assert!(e.seconds > 0.0, "{}", e.name);
    }
    let price = |method| entry(method).settings["kl"].clone();
    let beta = serde_json::json!(0.5);
    assert_eq!(price(PolicyGradient::Rloo)["in_the_reward"]["beta"], beta);
    assert_eq!(price(PolicyGradient::Grpo)["in_the_loss"]["beta"], beta);
    assert_eq!(price(PolicyGradient::Cispo), serde_json::json!("none"));
}

/// A group is of answers to one prompt, and its advantages come back in the order of the answers.
#[test]
fn groups_are_of_answers_to_one_prompt() {
    let prompts: Vec<f32> = (0..3 * PROMPTS).map(|i| (i % PROMPTS) as f32).collect();
    let answers = Tensor::new(&prompts[..], &Device::Cpu).expect("a tensor");
    let groups = of_prompts(&answers).expect("groups");
    let rows = groups.to_vec2::<f32>().expect("rows");
    let want: Vec<Vec<f32>> = (0..PROMPTS).map(|p| vec![p as f32; 3]).collect();
    assert_eq!(rows, want);

    let numbered = Tensor::arange(0f32, 3.0 * PROMPTS as f32, &Device::Cpu).expect("a tensor");
    let back = of_answers(&of_prompts(&numbered).expect("groups")).expect("answers");
    let (back, numbered) = (back.to_vec1::<f32>(), numbered.to_vec1::<f32>());
    assert_eq!(back.expect("numbers"), numbered.expect("numbers"));
}

/// k₁ in the reward: of the whole answer under RLOO, of each token and those that follow under REINFORCE++.
#[test]
fn a_kl_in_the_reward_stops_at_the_optimum_of_the_learned_reward() {
    let aim = with_since().learned_target.as_ref();
    let aim = aim.expect("a reward model");
    assert_eq!(with(Kl::InReward).len(), 2);
    for method in with(Kl::InReward) {
        near(entry(method), aim, 0.06, 0.09);
    }
}

/// Its β counts in deviations of the learned reward within a group, which are below 1.
#[test]
fn grpo_goes_beyond_that_optimum_and_its_kl_still_holds_it() {
    let kl = |method| place(entry(method)).1;
    let aim = with_since().learned_target.as_ref();
    let aim = aim.expect("a reward model").kl;
    assert_eq!(with(Kl::InLoss), [PolicyGradient::Grpo]);
    assert!(kl(PolicyGradient::Grpo) > 1.5 * aim, "{aim}");
    for method in with(Kl::Nowhere) {
        assert!(
            kl(method) > 2.0 * kl(PolicyGradient::Grpo),
            "{method:?}: {}",
            kl(method)
        );
    }
}

/// Without a KL they are on their way to the best answers by the learned reward.
#[test]
fn without_a_kl_they_head_for_the_best_answers_by_the_learned_reward() {
    let best = &section().greedy_target;
    let aim = with_since().learned_target.as_ref();
    let aim = aim.expect("a reward model");
    assert!(best.kl > aim.kl && best.reward > aim.reward, "{best:?}");
    for method in with(Kl::Nowhere) {
        let (reward, kl, _) = place(entry(method));
        let way = (kl - aim.kl) / (best.kl - aim.kl);
        assert!((0.2..1.0).contains(&way), "{method:?}: {way}");
        // by the true reward they may be better than where they go
        let half = 0.5 * (aim.reward + best.reward);
        assert!(reward > half, "{method:?}: {reward}");
    }
}

/// The reward goes on rising, at a regret that no method with a KL has.
#[test]
fn without_a_kl_they_go_on_far_below_the_frontier() {
    for free in with(Kl::Nowhere) {
        let (reward, kl, regret) = place(entry(free));
        for held in [with(Kl::InReward), with(Kl::InLoss)].concat() {
            let (r, k, other) = place(entry(held));
            assert!(
                reward > r && kl > k && regret > 1.2 * other,
                "{free:?} {held:?}"
            );
        }
    }
}

/// Between two points the picture draws a straight line; it must not run visibly below the frontier, nor end before
/// the farthest policy.
#[test]
fn the_drawn_frontier_is_the_frontier() {
    let options = Options {
        steps: Some(3),
        ..options()
    };
    let (lab, _) = Lab::new(Sizes::quick(), &options, &quiet()).expect("a lab");
    let exact = lab.frontier();
    let largest = exact.largest_kl();
    for furthest in [0.2, 0.5 * largest, 0.99 * largest, 1.3 * largest] {
        let drawn = curve(&exact, furthest);
        let last = drawn.last().expect("a mark");
        assert!((last.kl - furthest).abs() < 1e-6, "{furthest}: {last:?}");
        let height = last.reward - drawn[0].reward;
        for pair in drawn.windows(2) {
            let middle = 0.5 * (pair[0].kl + pair[1].kl);
            let below = exact.at_kl(middle).reward - 0.5 * (pair[0].reward + pair[1].reward);
            assert!(below < 0.012 * height, "{furthest}, {middle}: {below}");
        }
    }
    let beyond = curve(&exact, 1.3 * largest);
    let last = beyond.last().expect("a mark");
    assert!((last.reward - exact.best_reward()).abs() < 1e-12);
}
