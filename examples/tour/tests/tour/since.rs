//! The claims of `--since`, on a quick run. Those of the policy gradients have a file of their own.

use crate::tour_claims::{options, quiet, report, without_times};
use std::sync::OnceLock;
use tour::lab::{Lab, Sizes};
use tour::methods::Method;
use tour::methods::policy_gradients::PolicyGradient;
use tour::methods::since::{Reads, Since};
use tour::report::{Entry, Mark, Report, SinceSection};
use tour::world::expectation;
use tour::{Options, run};

/// DPO and PPO beside those since.
fn asked() -> Options {
    Options {
        only: vec![Method::Ppo, Method::Dpo],
        families: Vec::new(),
        since: true,
        ..options()
    }
}

pub fn with_since() -> &'static Report {
    static REPORT: OnceLock<Report> = OnceLock::new();
    REPORT.get_or_init(|| run(&asked(), &quiet()).expect("the tour runs"))
}

pub fn section() -> &'static SinceSection {
    with_since().since.as_ref().expect("a section")
}

fn entry(objective: Since) -> &'static Entry {
    section().entry(objective).expect("an entry")
}

/// All policies of the section.
fn policies() -> impl Iterator<Item = &'static Entry> {
    let section = section();
    section.entries.iter().chain(&section.policy_gradients)
}

/// Reward, KL and regret.
pub fn place(e: &Entry) -> (f64, f64, f64) {
    match (e.reward, e.kl, e.regret) {
        (Some(reward), Some(kl), Some(regret)) => (reward, kl, regret),
        _ => panic!("`{}` is not a policy", e.name),
    }
}

pub fn dpo() -> &'static Entry {
    let entries = with_since().entries.iter();
    entries.into_iter().find(|e| e.name == "dpo").expect("DPO")
}

#[test]
fn every_objective_has_its_entry_and_its_settings() {
    let names: Vec<&str> = section().entries.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(names, Since::ALL.map(|o| o.title().name));
    for e in &section().entries {
        let settings = e.settings.as_object().expect("an object");
        assert!(settings.contains_key("loss"), "{}", e.name);
        assert_eq!(settings["steps"], dpo().settings["steps"], "{}", e.name);
        assert_eq!(e.section.number(), "3.2.1");
        assert!(e.seconds > 0.0, "{}", e.name);
    }
}

#[test]
fn nothing_is_above_the_frontier_and_regret_is_a_divergence() {
    for e in policies() {
        let (_, kl, regret) = place(e);
        assert!(regret > -1e-9 && kl > -1e-12, "{}: {regret} {kl}", e.name);
        let identity = e.identity.expect("a policy");
        assert!((regret - identity).abs() < 1e-9, "{}", e.name);
        let total = e.total.expect("enumerated");
        assert!((total - 1.0).abs() < 1e-12, "{}: {total}", e.name);
    }
}

/// Without the flag nothing of it is computed, and with it nothing else changes.
#[test]
fn the_rest_of_the_report_is_the_same_without_them() {
    assert!(report().since.is_none());
    let json = serde_json::to_value(report()).expect("json");
    assert!(json.get("since").is_none());
    assert!(report().since_table().is_empty());
    let (all, some) = (without_times(report()), without_times(with_since()));
    for e in &some.entries {
        assert!(all.entries.contains(e), "{}", e.name);
    }
}

#[test]
fn one_seed_gives_one_section() {
    let only = Options {
        only: Vec::new(),
        ..asked()
    };
    let times = |report: &Report| {
        let mut section = report.since.clone().expect("a section");
        let entries = section.entries.iter_mut();
        let entries = entries.chain(&mut section.policy_gradients);
        entries.for_each(|e| e.seconds = 0.0);
        section
    };
    let again = run(&only, &quiet()).expect("the tour runs");
    assert!(times(&again) == times(with_since()));
}

#[test]
fn the_section_is_in_the_reports() {
    let dir = tempfile::tempdir().expect("a directory");
    with_since().write(dir.path()).expect("written");
    let html = std::fs::read_to_string(dir.path().join("report.html")).expect("readable");
    assert!(html.contains("<h2>Since the survey</h2>") && !html.contains("NaN"));
    let json = std::fs::read_to_string(dir.path().join("report.json")).expect("readable");
    let json: serde_json::Value = serde_json::from_str(&json).expect("json");
    let list = |name: &str| json["since"][name].as_array().expect("a list").clone();
    let entries = [list("entries"), list("policy_gradients")];
    let counts = entries.each_ref().map(Vec::len);
    assert_eq!(counts, [Since::ALL.len(), PolicyGradient::ALL.len()]);
    for (read, of) in entries.iter().flatten().zip(policies()) {
        assert_eq!(read["name"], *of.name);
        let regret = read["regret"].as_f64().zip(of.regret);
        assert!(regret.is_some_and(|(read, x)| (read - x).abs() < 1e-12));
        assert!(
            html.contains(&format!("<td>{}</td>", of.label)),
            "{}",
            of.name
        );
    }
    let table = with_since().since_table();
    assert_eq!(table.lines().count(), policies().count() + 2);
}

/// The place of an entry, and a mark that it should be near.
pub fn near(e: &Entry, mark: &Mark, reward: f64, kl: f64) {
    let (r, k, _) = place(e);
    assert!((r - mark.reward).abs() < reward, "{}: {r} {mark:?}", e.name);
    assert!((k - mark.kl).abs() < kl, "{}: {k} {mark:?}", e.name);
}

/// Its labels are those of the learned reward, drawn by Bradley–Terry, so it aims where PPO does.
#[test]
fn online_dpo_stops_at_the_optimum_of_the_learned_reward() {
    let aim = with_since()
        .learned_target
        .as_ref()
        .expect("a reward model");
    near(entry(Since::OnlineDpo), aim, 0.06, 0.09);
}

#[test]
fn nca_ends_near_the_reference_weighed_by_the_chance_to_be_chosen() {
    near(entry(Since::Nca), &section().nca_target, 0.09, 0.03);
    // an answer is at most twice as likely
    assert!(section().nca_target.kl < 2f64.ln());
}

/// The answers of other prompts have lost likelihood, so the baseline is cut at 0.
#[test]
fn kto_is_apo_zero_where_its_baseline_is_zero() {
    let (kto, apo) = (place(entry(Since::Kto)), place(entry(Since::ApoZero)));
    assert!((kto.0 - apo.0).abs() < 1e-3 && (kto.1 - apo.1).abs() < 1e-3);
}

#[test]
fn robust_dpo_goes_farther_than_dpo_and_a_likelihood_holds_it_back() {
    let (_, dpo, _) = place(dpo());
    let kl = |objective| place(entry(objective)).1;
    assert!(kl(Since::Robust) > 1.1 * dpo, "{} {dpo}", kl(Since::Robust));
    assert!(kl(Since::Rpo) < 0.7 * dpo, "{} {dpo}", kl(Since::Rpo));
}

/// Bounded losses have no optimum short of certainty: they go farthest.
#[test]
fn apo_zero_and_kto_go_farthest() {
    let kl = |objective| place(entry(objective)).1;
    let least = kl(Since::ApoZero).min(kl(Since::Kto));
    for objective in Since::ALL {
        let bounded = [Since::ApoZero, Since::Kto].contains(&objective);
        assert!(bounded || kl(objective) < least, "{objective:?}");
    }
}

/// No term of SimPO knows the reference or the data.
#[test]
fn simpo_is_farthest_from_the_frontier() {
    let regret = |objective: Since| place(entry(objective)).2;
    let others = Since::ALL.into_iter().filter(|o| *o != Since::Simpo);
    let worst = others.map(regret).fold(0.0, f64::max);
    assert!(regret(Since::Simpo) > worst, "{worst}");
    for objective in Since::ALL {
        assert_eq!(
            objective.reads() == Reads::NoReference,
            [Since::Simpo, Since::Cpo, Since::Orpo].contains(&objective)
        );
    }
}

/// What IPO and NCA aim at: the chance to be chosen is ½ on average, and grows with the reward.
#[test]
fn chances_are_a_half_on_average_and_grow_with_the_reward() {
    let options = Options {
        steps: Some(3),
        ..options()
    };
    let (lab, _) = Lab::new(Sizes::quick(), &options, &quiet()).expect("a lab");
    let chances = lab.chances();
    let mean = expectation(&lab.reference_log_probs, &chances);
    assert!((mean - 0.5).abs() < 1e-12, "{mean}");
    for (rewards, chances) in lab.world.rewards.iter().zip(&chances) {
        let mut order: Vec<usize> = (0..rewards.len()).collect();
        order.sort_by(|&a, &b| rewards[a].total_cmp(&rewards[b]));
        assert!(order.windows(2).all(|w| chances[w[0]] <= chances[w[1]]));
    }
    // one of them, by hand
    let (rewards, log_p) = (&lab.world.rewards[3], &lab.reference_log_probs[3]);
    let terms = rewards.iter().zip(log_p);
    let want: f64 = terms
        .map(|(r, l)| l.exp() / (1.0 + (r - rewards[7]).exp()))
        .sum();
    assert!((chances[3][7] - want).abs() < 1e-12);
}

#[test]
fn the_frontiers_of_the_pictures_reach_beyond_every_policy() {
    let (reward, kl, _) = place(&with_since().entries[0]);
    let section = section();
    for (frontier, entries) in [
        (&section.frontier, &section.entries),
        (&section.policy_gradient_frontier, &section.policy_gradients),
    ] {
        assert!((frontier[0].kl - kl).abs() < 1e-12);
        assert!((frontier[0].reward - reward).abs() < 1e-12);
        assert!(frontier.is_sorted_by(|a, b| a.kl < b.kl && a.reward < b.reward));
        let last = frontier.last().expect("a mark").kl;
        assert!(entries.iter().all(|e| e.kl < Some(last)));
    }
}
