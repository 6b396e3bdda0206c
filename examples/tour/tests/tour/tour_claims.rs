//! The claims of the tour, on its quick run.

use crate::policy::{REFERENCE, REWARDS, log};
use indicatif::{MultiProgress, ProgressDrawTarget};
use std::sync::OnceLock;
use tour::lab::generator;
use tour::methods::Method;
use tour::report::{Entry, Report};
use tour::world::{Frontier, PROMPTS, World, expectation, kl};
use tour::{Options, run};

pub fn options() -> Options {
    Options {
        quick: true,
        ..Options::default()
    }
}

pub fn quiet() -> MultiProgress {
    MultiProgress::with_draw_target(ProgressDrawTarget::hidden())
}

/// The report without its times.
pub fn without_times(report: &Report) -> Report {
    let mut report = report.clone();
    report.seconds = 0.0;
    report.entries.iter_mut().for_each(|e| e.seconds = 0.0);
    let points = report.points.iter_mut();
    points.for_each(|p| p.entry.seconds = 0.0);
    report
}

/// One run for all tests.
pub fn report() -> &'static Report {
    static REPORT: OnceLock<Report> = OnceLock::new();
    REPORT.get_or_init(|| run(&options(), &quiet()).expect("the tour runs"))
}

fn entry(name: &str) -> &'static Entry {
    let found = report().entries.iter().find(|e| e.name == name);
    found.unwrap_or_else(|| panic!("no entry of `{name}`"))
}

/// Reward, KL and regret of an entry that is a policy.
fn place(name: &str) -> (f64, f64, f64) {
    let e = entry(name);
    match (e.reward, e.kl, e.regret) {
        (Some(reward), Some(kl), Some(regret)) => (reward, kl, regret),
        _ => panic!("`{name}` is not a policy"),
    }
}

fn policies() -> Vec<&'static str> {
    let methods = Method::ALL.iter().map(|m| m.name());
    ["sft"].into_iter().chain(methods).collect()
}

#[test]
fn every_method_has_its_entry() {
    let names: Vec<&str> = report().entries.iter().map(|e| e.name.as_str()).collect();
    let mut expected = vec!["sft", "reward-model"];
    expected.extend(Method::ALL.iter().map(|m| m.name()));
    assert_eq!(names, expected);
}

#[test]
fn probabilities_add_up_to_one() {
    for name in policies() {
        match (entry(name).total, entry(name).error) {
            (Some(total), None) => assert!((total - 1.0).abs() < 1e-12, "{name}: {total}"),
            // sampled, not summed
            (None, Some(_)) => assert!(DRAWN.contains(&name), "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

/// Methods that answer at the end of a chain: their policies are sampled.
const DRAWN: [&str; 3] = ["second-thoughts", "selfee", "self-debug"];

/// An estimate may be wrong by this many standard errors.
const ERRORS: f64 = 4.0;

#[test]
fn no_policy_is_above_the_frontier() {
    for name in policies() {
        let (_, kl, regret) = place(name);
        let (of_kl, of_regret) = match entry(name).error {
            Some(error) => (ERRORS * error.kl, ERRORS * error.regret),
            None => (1e-12, 1e-9),
        };
        assert!(regret > -of_regret, "{name}: {regret}");
        assert!(kl > -of_kl, "{name}: {kl}");
    }
}

#[test]
fn every_entry_has_its_section_and_its_settings_in_the_surveys_order() {
    let sections: Vec<_> = report().entries.iter().map(|e| e.section).collect();
    assert!(sections.is_sorted(), "{sections:?}");
    for e in &report().entries[1..] {
        let settings = e.settings.as_object().expect("an object");
        assert!(!settings.is_empty(), "{}", e.name);
        assert!(e.seconds > 0.0, "{}", e.name);
    }
}

/// R*(KL(π)) − E r = b · KL(π‖π_b), where b is the β of the frontier at the same KL.
#[test]
fn regret_is_a_divergence_from_the_frontier() {
    for name in policies().into_iter().filter(|name| !DRAWN.contains(name)) {
        let (.., regret) = place(name);
        let identity = entry(name).identity.expect("a policy");
        assert!(
            (regret - identity).abs() < 1e-9,
            "{name}: {regret} {identity}"
        );
    }
}

#[test]
fn methods_raise_the_reward_and_win() {
    let (start, kl, regret) = place("sft");
    let even = entry("sft").win_rate.expect("a policy");
    assert!(kl == 0.0 && (even - 0.5).abs() < 1e-12, "{kl} {even}");
    assert!(regret.abs() < 1e-12, "{regret}");
    for method in ["ppo", "dpo", "dpo-lora", "pro", "rrhf"] {
        let (reward, ..) = place(method);
        assert!(reward > start + 0.15, "{method}: {reward} against {start}");
        assert!(entry(method).win_rate > Some(0.55), "{method}");
    }
}

/// DPO's optimum is on the frontier; the others' optima are not.
#[test]
fn dpo_comes_nearer_to_the_frontier_than_slic_pro_and_rrhf() {
    let (.., dpo) = place("dpo");
    for method in ["pro", "slic", "rrhf"] {
        let (.., regret) = place(method);
        assert!(dpo < 0.8 * regret, "{method}: {regret} against {dpo}");
    }
}

#[test]
fn ppo_stops_at_the_optimum_of_the_learned_reward() {
    let aim = report().learned_target.as_ref().expect("a reward model");
    let (reward, kl, _) = place("ppo");
    assert!((reward - aim.reward).abs() < 0.06, "{reward}: {aim:?}");
    assert!((kl - aim.kl).abs() < 0.06, "{kl}: {aim:?}");
}

/// Every score lies between chance and the limit that the noise of the labels sets.
#[test]
fn accuracies_lie_between_chance_and_the_true_rewards() {
    for e in report().entries.iter().filter(|e| e.name != "sft") {
        let Some(accuracy) = e.accuracy else {
            continue;
        };
        // Chain of Hindsight tilts by a factor of two at most
        let floor = if e.name == "hindsight" { 0.5 } else { 0.55 };
        assert!(accuracy > floor, "{}: {accuracy}", e.name);
        assert!(accuracy < report().best_accuracy, "{}", e.name);
    }
}

/// No number depends on the clock, on the thread of a method, or on the other methods of a run.
#[test]
fn one_seed_gives_one_report() {
    let again = run(&options(), &quiet()).expect("the tour runs");
    assert!(without_times(&again) == without_times(report()));

    let only = Options {
        only: vec![Method::DpoLora, Method::Slic],
        families: Vec::new(),
        ..options()
    };
    let some = without_times(&run(&only, &quiet()).expect("the tour runs"));
    let all = without_times(report());
    let names: Vec<&str> = some.entries.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(names, ["sft", "slic", "dpo-lora"]);
    for e in &some.entries {
        assert!(all.entries.contains(e), "{}", e.name);
    }
    assert!(some.points.is_empty());

    let other = Options { seed: 1, ..only };
    let other = run(&other, &quiet()).expect("the tour runs");
    assert!(other.entries[0].reward != some.entries[0].reward);
}

#[test]
fn the_reports_are_written_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path().join("not/yet/there");
    report().write(&out).expect("written");
    let mut files: Vec<String> = std::fs::read_dir(&out)
        .expect("made")
        .map(|f| {
            f.expect("a file")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    files.sort();
    assert_eq!(files, ["report.html", "report.json"]);

    let json = std::fs::read_to_string(out.join("report.json")).expect("readable");
    let json: serde_json::Value = serde_json::from_str(&json).expect("json");
    let entries = json["entries"].as_array().expect("a list");
    assert_eq!(entries.len(), report().entries.len());
    for (entry, of) in entries.iter().zip(&report().entries) {
        let name = &of.name;
        assert_eq!(entry["name"], *name);
        assert_eq!(entry["section"], of.section.number());
        assert!(entry["settings"].is_object(), "{name}");
        let numbers = [
            ("reward", of.reward),
            ("kl", of.kl),
            ("regret", of.regret),
            ("seconds", Some(of.seconds)),
        ];
        for (field, number) in numbers {
            match (entry[field].as_f64(), number) {
                (Some(read), Some(x)) => {
                    assert!((read - x).abs() <= 1e-12 * x.abs(), "{name}: {field}")
                }
                (read, number) => assert_eq!(read, number, "{name}: {field}"),
            }
            // a reward model is not a policy
            assert!(
                number.is_some() || of.label == "reward model",
                "{name}: {field}"
            );
        }
    }
    let html = std::fs::read_to_string(out.join("report.html")).expect("readable");
    assert_eq!(html.matches("<svg").count(), 11);
    assert_eq!(html.matches("<svg").count(), html.matches("</svg>").count());
    assert!(html.contains("numbers with ± are estimates from sampled answers"));
    assert!(!html.contains("NaN") && !html.contains("<script") && !html.contains("src="));

    // a file that only resembles one of the report belongs to the user
    let own = dir
        .path()
        .join(format!("report.{}.tmp", std::process::id()));
    std::fs::write(&own, "mine").expect("written");
    report().write(dir.path()).expect("written");
    assert_eq!(std::fs::read(&own).expect("there"), b"mine");

    let file = dir.path().join("file");
    std::fs::write(&file, "").expect("written");
    let error = report()
        .write(&file)
        .expect_err("not a directory")
        .to_string();
    assert!(
        error.starts_with(&format!("cannot write to {}: ", file.display())),
        "{error}"
    );
}

/// Strings, numbers and rows of tokens agree.
#[test]
fn answers_are_numbered_one_by_one() {
    let world = World::new(3, &mut generator(5, 1));
    assert_eq!(world.outcomes(), 1 + 7 + 49 + 343);
    for outcome in 0..world.outcomes() {
        assert_eq!(world.number(&world.content(outcome)), outcome);
    }
    // the longest strings are cut, the others end
    for (content, tokens, mask) in [
        (vec![], [1, 2, 7, 7, 7], [0, 0, 1, 0, 0]),
        (vec![3], [1, 2, 3, 7, 7], [0, 0, 1, 1, 0]),
        (vec![3, 0], [1, 2, 3, 0, 7], [0, 0, 1, 1, 1]),
        (vec![3, 0, 6], [1, 2, 3, 0, 6], [0, 0, 1, 1, 1]),
    ] {
        let answer = tour::world::Answer {
            prompt: 4 + 2,
            outcome: world.number(&content),
        };
        assert_eq!(world.row(answer), (tokens.to_vec(), mask.to_vec()));
    }
}

/// The frontier against theory.
#[test]
fn the_frontier_has_slope_beta() {
    let world = World::new(3, &mut generator(5, 1));
    let reference = world.log_probs(&world.demonstrations);
    let frontier = Frontier {
        reference: &reference,
        rewards: &world.rewards,
    };
    for beta in [0.3, 1.0, 3.0] {
        let (eta, step) = (1.0 / beta, 1e-4);
        let (low, high) = (frontier.at(eta - step), frontier.at(eta + step));
        let slope = (high.reward - low.reward) / (high.kl - low.kl);
        assert!((slope - beta).abs() < 1e-5 * beta, "{slope} at {beta}");

        // the sums agree with the explicit policy, and bisection finds the same point
        let (best, policy) = (frontier.at(eta), frontier.policy(eta));
        assert!((best.reward - expectation(&policy, &world.rewards)).abs() < 1e-12);
        assert!((best.kl - kl(&policy, &reference)).abs() < 1e-12);
        assert!((frontier.at_kl(best.kl).eta - eta).abs() < 1e-9);
    }
    // under the demonstrations, rewards have mean 0 for each prompt
    let start = frontier.at(0.0);
    assert!(start.reward.abs() < 1e-12 && start.kl.abs() < 1e-12);
    // the end of the frontier: the best answer with certainty
    let far = frontier.at(1e4);
    assert!((far.kl - frontier.largest_kl()).abs() < 1e-6);
}

/// Four answers, with a frontier that an independent solver found: KL, then β and E r.
#[test]
fn the_frontier_is_where_a_constrained_solver_finds_it() {
    let (reference, rewards) = (vec![log(&REFERENCE)], vec![REWARDS.to_vec()]);
    let frontier = Frontier {
        reference: &reference,
        rewards: &rewards,
    };
    for (kl, beta, reward) in [
        (0.05, 2.1257116554, 0.8054644488),
        (0.2, 1.1112557084, 1.0233438356),
        (0.5, 0.7143512638, 1.2846386353),
        (1.0, 0.4863704869, 1.5767565150),
        (2.0, 0.2494819018, 1.9392141678),
    ] {
        let best = frontier.at_kl(kl);
        assert!((best.kl - kl).abs() < 1e-12, "{}", best.kl);
        assert!((1.0 / best.eta - beta).abs() < 1e-9, "{}", best.eta);
        assert!((best.reward - reward).abs() < 1e-9, "{}", best.reward);
    }
    assert!((frontier.largest_kl() - 10f64.ln()).abs() < 1e-12);
}

/// Two prompts, the second with doubled rewards, and every way to divide a mean KL between them.
#[test]
fn one_beta_for_all_prompts_spends_a_mean_kl_best() {
    let doubled = REWARDS.map(|r| 2.0 * r);
    let reference = vec![log(&REFERENCE); 2];
    let rewards = vec![REWARDS.to_vec(), doubled.to_vec()];
    let each = [0, 1].map(|prompt| {
        (
            vec![reference[prompt].clone()],
            vec![rewards[prompt].clone()],
        )
    });
    let [first, second] = [0, 1].map(|prompt| Frontier {
        reference: &each[prompt].0,
        rewards: &each[prompt].1,
    });
    let budget = 0.6;
    let common = Frontier {
        reference: &reference,
        rewards: &rewards,
    }
    .at_kl(budget);
    assert!((1.0 / common.eta - 1.0033703980).abs() < 1e-9);
    assert!((common.reward - 2.0900411576).abs() < 1e-9);

    let divided = |kl: f64| 0.5 * (first.at_kl(kl).reward + second.at_kl(2.0 * budget - kl).reward);
    let spent = first.at(common.eta).kl;
    assert!((spent - 0.2484315895).abs() < 1e-9, "{spent}");
    assert!((divided(spent) - common.reward).abs() < 1e-12);
    for percent in 1..120 {
        let kl = f64::from(percent) / 100.0;
        assert!(divided(kl) < common.reward, "{kl}");
    }
    // an equal KL for each is clearly worse
    assert!((divided(budget) - 2.0291215193).abs() < 1e-9);
}

/// Win rates equal the sum over all pairs of answers.
#[test]
fn win_rates_count_pairs() {
    let world = World::new(2, &mut generator(5, 1));
    let reference = world.log_probs(&world.demonstrations);
    let tilted = Frontier {
        reference: &reference,
        rewards: &world.rewards,
    }
    .policy(0.8);
    let mut wins = 0.0;
    for prompt in 0..PROMPTS {
        let r = &world.rewards[prompt];
        for i in 0..r.len() {
            for j in 0..r.len() {
                let both = (tilted[prompt][i] + reference[prompt][j]).exp();
                wins += both
                    * if r[i] > r[j] {
                        1.0
                    } else if i == j {
                        0.5
                    } else {
                        0.0
                    };
            }
        }
    }
    let got = world.win_rate(&tilted, &reference);
    assert!((got - wins / PROMPTS as f64).abs() < 1e-12);
}

#[test]
fn the_table_has_a_row_for_every_entry() {
    let table = report().table();
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!(rows.len(), report().entries.len() + 2);
    for (row, e) in rows[1..].iter().zip(&report().entries) {
        assert!(row.starts_with(&e.label), "{row}");
        if let Some(accuracy) = e.accuracy {
            assert!(row.contains(&format!("{:.1}%", 100.0 * accuracy)), "{row}");
        }
    }
    assert!(
        report()
            .summary()
            .starts_with("16 prompts, 400 answers to each")
    );
}
