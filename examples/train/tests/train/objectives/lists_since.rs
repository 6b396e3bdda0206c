//! The losses over lists that came after the survey: their rows, and their formulas in scalars.

use super::{CHAT, Case, LISTS, SOLUTIONS, alone, model, near, number};
use candle_align::decoder::{Decoder, Load};
use train::checkpoint::evaluate::scores;
use train::checkpoint::fit::Fit;
use train::checkpoint::objective::lists::{List, Lists};
use train::checkpoint::objective::{Objective, Reference};
use train::world::single::Single;

const TRIPLES: &str = r#"{"prompt": "One", "chosen": " two", "rejected": " 2", "reference": " two!"}
{"prompt": "A, ", "chosen": "b, c", "rejected": "d", "reference": "b"}
{"prompt": "1, 2", "chosen": ", 3", "rejected": "?", "reference": ", 3, 4"}
"#;

const SCORED: &str = r#"{"prompt": "One", "chosen": " two", "rejected": " 2", "score_chosen": 7.5, "score_rejected": 4}
{"prompt": "A, ", "chosen": "b, c", "rejected": "d", "score_chosen": 1, "score_rejected": 1.25}
"#;

fn lists(case: &Case) -> Lists {
    match case.objective() {
        Objective::Lists(all) => all,
        _ => panic!("no lists"),
    }
}

/// What the answers of each list say, and their rewards.
fn said(case: &Case) -> Vec<(Vec<String>, Vec<f32>)> {
    let all = lists(case).rows.into_iter();
    all.map(|list| {
        let texts = list.answers.iter().map(|text| case.said(text));
        (texts.collect(), list.rewards.clone())
    })
    .collect()
}

fn frozen() -> Decoder {
    let other = model(2, Some(CHAT));
    Decoder::load(other.path(), &Load::default()).unwrap()
}

/// The loss of all rows as one micro-batch, against another model.
fn loss(case: &Case) -> f64 {
    let rows: Vec<usize> = (0..case.objective().len()).collect();
    let (window, reference) = ([rows.clone()], Reference::Frozen(Box::new(frozen())));
    let found = case
        .objective()
        .loss(&case.decoder(), &reference, &rows, &window, None);
    number(&found.unwrap().loss)
}

/// ρ of each answer of a list.
fn ratios(case: &Case, list: &List) -> Vec<f64> {
    let (policy, reference) = (case.decoder(), frozen());
    let ratio = |text| alone(&policy, text).0 - alone(&reference, text).0;
    list.answers.iter().map(ratio).collect()
}

fn rewards(list: &List) -> Vec<f64> {
    list.rewards.iter().map(|x| f64::from(*x)).collect()
}

fn log_softmax(x: &[f64], scale: f64) -> Vec<f64> {
    let total: f64 = x.iter().map(|x| (scale * x).exp()).sum();
    x.iter().map(|x| scale * x - total.ln()).collect()
}

/// −log σ
fn logistic(z: f64) -> f64 {
    (-z).exp().ln_1p()
}

/// The mean over the lists of a case.
fn mean(case: &Case, of: impl Fn(&List) -> f64) -> f64 {
    let all = lists(case).rows;
    all.iter().map(of).sum::<f64>() / all.len() as f64
}

#[test]
fn lists_have_the_loss_of_the_formula() {
    let case = Case::new("nca", LISTS, &[r#"since.nca={"beta": 0.3, "alpha": 0.5}"#]);
    let expected = mean(&case, |list| {
        let (rho, shares) = (ratios(&case, list), log_softmax(&rewards(list), 2.0));
        let data: f64 = shares
            .iter()
            .zip(&rho)
            .map(|(share, rho)| share.exp() * logistic(0.3 * rho))
            .sum();
        let noise: f64 = rho.iter().map(|rho| logistic(-0.3 * rho)).sum();
        data + noise / rho.len() as f64
    });
    near("nca", loss(&case), expected);
    let sets = [r#"since.info_nca={"beta": 0.3, "alpha": 0.5}"#];
    let case = Case::new("info_nca", LISTS, &sets);
    let expected = mean(&case, |list| {
        let shares = log_softmax(&rewards(list), 2.0);
        let own = log_softmax(&ratios(&case, list), 0.3);
        -shares
            .iter()
            .zip(own)
            .map(|(p, q)| p.exp() * q)
            .sum::<f64>()
    });
    near("info_nca", loss(&case), expected);
    let sets = [r#"since.exo={"beta": 0.3, "reward_beta": 0.5}"#];
    let case = Case::new("exo", LISTS, &sets);
    let expected = mean(&case, |list| {
        let shares = log_softmax(&rewards(list), 2.0);
        let own = log_softmax(&ratios(&case, list), 0.3);
        let each = own.iter().zip(shares).map(|(q, p)| q.exp() * (q - p));
        each.sum::<f64>()
    });
    near("exo", loss(&case), expected);
    let square = |case: &Case| {
        mean(case, |list| {
            let (rho, r) = (ratios(case, list), rewards(list));
            assert_eq!(rho.len(), 2);
            (rho[0] - rho[1] - 0.4 * (r[0] - r[1])).powi(2)
        })
    };
    for (rows, pairs) in [(SCORED, 2), (LISTS, 3 + 1 + 6), (SOLUTIONS, 6)] {
        let case = Case::new("rebel", rows, &["since.rebel.eta=0.4"]);
        assert_eq!(lists(&case).rows.len(), pairs);
        near("rebel", loss(&case), square(&case));
    }
}

#[test]
fn three_answers_have_the_loss_of_the_formula() {
    for (form, rows) in [("sum", TRIPLES), ("mean", LISTS)] {
        let set = format!(
            r#"since.tpo={{"beta": 0.2, "alpha": 0.5, "margin": {{"gamma": 0.3}}, "log_prob": "{form}"}}"#
        );
        let case = Case::new("tpo", rows, &[&set]);
        let decoder = case.decoder();
        let expected = mean(&case, |list| {
            let each: Vec<(f64, f64)> = list
                .answers
                .iter()
                .map(|text| alone(&decoder, text))
                .collect();
            let of = |at: usize| match form {
                "sum" => each[at].0,
                _ => each[at].0 / each[at].1,
            };
            assert_eq!(each.len(), 3);
            logistic(0.2 * (of(1) - of(2)) - 0.3) - 0.5 * each[0].0 / each[0].1
        });
        near(form, loss(&case), expected);
    }
}

/// Token means of TRL: one mean over a micro-batch, whatever goes through the model at a time.
#[test]
fn a_gold_answers_likelihood_is_one_mean_over_the_micro_batch() {
    let set = r#"since.tpo={"beta": 0.2, "alpha": 3, "likelihood": "micro_batch"}"#;
    let case = Case::new("tpo", TRIPLES, &[set]);
    let (objective, decoder) = (case.objective(), case.decoder());
    let window = [vec![0, 2], vec![1]];
    let part = |rows: &[usize]| {
        let found = objective.loss(&decoder, &Reference::AdapterOff, rows, &window, None);
        number(&found.unwrap().loss)
    };
    let all = lists(&case).rows;
    let batch = |rows: &[usize]| {
        let of = |row: &usize, at: usize| alone(&decoder, &all[*row].answers[at]);
        let z = |row: &usize| logistic(0.2 * (of(row, 1).0 - of(row, 2).0));
        let sum: f64 = rows.iter().map(|row| of(row, 0).0).sum();
        let tokens: f64 = rows.iter().map(|row| of(row, 0).1).sum();
        let compared = rows.iter().map(z).sum::<f64>() / rows.len() as f64;
        (compared - 3.0 * sum / tokens) / 2.0
    };
    near("whole", part(&[0, 2]), batch(&[0, 2]));
    near("parts", part(&[0]) + part(&[2]), batch(&[0, 2]));
    near("the other", part(&[1]), batch(&[1]));
}

#[test]
fn three_answers_are_those_of_the_row_or_the_best_the_second_and_the_last() {
    let one = |text: &str, rewards: [f32; 3]| {
        let texts = text.split('/').map(|text| format!("{text}<|im_end|>]"));
        (texts.collect::<Vec<_>>(), rewards.to_vec())
    };
    let case = Case::new("tpo", TRIPLES, &[]);
    let expected = one("One[ two!/One[ two/One[ 2", [1.0, 1.0, 0.0]);
    assert_eq!(said(&case)[0], expected);
    // the prompt is what the chosen and the rejected answer have in common
    let implicit = r#"{"chosen": "a b", "rejected": "a c", "reference": "a d"}"#;
    let expected = one("a[ d/a[ b/a[ c", [1.0, 1.0, 0.0]);
    assert_eq!(said(&Case::new("tpo", implicit, &[])), [expected]);
    let turn = |answer: &str| {
        format!(
            r#"[{{"role": "user", "content": "q"}}, {{"role": "assistant", "content": "{answer}"}}]"#
        )
    };
    let chat = format!(
        r#"{{"chosen": {}, "rejected": {}, "reference": {}}}"#,
        turn("a"),
        turn("b"),
        turn("c")
    );
    let found = said(&Case::new("tpo", &chat, &[]));
    let asked = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n";
    let expected = ["c", "a", "b"].map(|answer| format!("{asked}[{answer}<|im_end|>\n]"));
    assert_eq!(found[0].0, expected);
    // of a list; the second of two answers is no pair beside a gold one
    let case = Case::new("tpo", LISTS, &["max_answers=2"]);
    let rewards: Vec<Vec<f32>> = said(&case)
        .into_iter()
        .map(|(_, rewards)| rewards)
        .collect();
    assert_eq!(rewards, [vec![2.5, 1.0, 0.1], vec![3.0, 2.0, 0.25]]);
    let report = case.prepared().unwrap().report.to_string();
    assert!(
        report.contains("1 left out (no gold answer beside a better and a worse one)"),
        "{report}"
    );
}

#[test]
fn the_scores_of_a_pair_are_its_rewards() {
    let texts = |answers: [&str; 2]| answers.map(|text| format!("{text}<|im_end|>]")).to_vec();
    let expected = [
        (texts(["One[ two", "One[ 2"]), vec![7.5, 4.0]),
        (texts(["A, [b, c", "A, [d"]), vec![1.0, 1.25]),
    ];
    for objective in ["rebel", "nca", "info_nca", "exo"] {
        assert_eq!(said(&Case::new(objective, SCORED, &[])), expected);
    }
    // which answer is the better one is a matter of rewards
    let mut case = Case::new("rebel", SCORED, &["since.rebel.eta=0.5"]);
    case.settings.held_out_file = Some(case.settings.data.clone());
    let (prepared, decoder) = (case.prepared().unwrap(), case.decoder());
    let reference = Reference::Frozen(Box::new(frozen()));
    let held_out = prepared.held_out.unwrap();
    let found = scores(
        &held_out,
        &decoder,
        &reference,
        &Fit::default(),
        &Default::default(),
        &Single,
    )
    .unwrap();
    let rho: Vec<Vec<f64>> = lists(&case)
        .rows
        .iter()
        .map(|list| ratios(&case, list))
        .collect();
    let ahead = [rho[0][0] - rho[0][1], rho[1][1] - rho[1][0]];
    near("margin", found.margin.unwrap(), ahead.iter().sum::<f64>());
    let right = ahead.iter().filter(|margin| **margin > 0.0).count();
    near("accuracy", found.accuracy.unwrap(), right as f64 / 2.0);
}

#[test]
fn rows_that_lack_an_answer_or_a_reward_are_refused() {
    let says = |objective: &str, rows: &str, sets: &[&str], problem: &str| {
        let error = Case::new(objective, rows, sets).prepared().err();
        let error = error.map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(problem), "{objective}: {problem}: {error}");
    };
    let pair = r#"{"prompt": "a", "chosen": "b", "rejected": "c"}"#;
    let three = "rows.jsonl:1: must have the fields `chosen`, `rejected` and `reference`";
    says("tpo", pair, &[], three);
    let problem =
        "tpo needs three answers to a prompt, of which the second is better than the last";
    let equal = r#"{"prompt": "a", "answers": ["b", "c", "d"], "rewards": [2, 1, 1]}"#;
    says("tpo", equal, &[], problem);
    says("tpo", SOLUTIONS.lines().nth(1).unwrap(), &[], problem);
    let other = r#"{"chosen": "a b", "rejected": "a c", "reference": "d"}"#;
    let problem =
        "rows.jsonl:1: has no `prompt`, and `reference` does not begin with what `chosen` and";
    says("tpo", other, &[], problem);
    let mixed = format!(
        "{TRIPLES}{}",
        r#"{"chosen": "a b", "rejected": "a c", "reference": "a d"}"#
    );
    let problem = "rows.jsonl:4: has `chosen`, `rejected` and `reference` without `prompt`, and the first row \
                   has `prompt`, `chosen`, `rejected` and `reference`";
    says("tpo", &mixed, &[], problem);
    says(
        "tpo",
        TRIPLES,
        &["since.tpo.alpha=-1"],
        "`since.tpo.alpha` must be finite and >= 0",
    );
    says(
        "tpo",
        TRIPLES,
        &["chat=true"],
        "`reference` is not read in a pair",
    );
    let precompute = &["precompute_ref_log_probs=true"];
    says("tpo", TRIPLES, precompute, "`tpo` has no reference");
    says(
        "nca",
        LISTS,
        precompute,
        "`nca` compares lists: only the sums of pairs are kept",
    );
    for objective in ["nca", "info_nca", "exo", "rebel"] {
        let problem = "rows.jsonl:1: has no `score_chosen`, which is the reward of an answer";
        says(objective, pair, &[], problem);
        let huge = SCORED.replace("7.5", "1e60");
        says(
            objective,
            &huge,
            &[],
            "rows.jsonl:1: `score_chosen` is 1e60, too large for a reward",
        );
        // the other reader would take the rewards of a pair to be 1 and 0
        let problem = "only where every row is such a pair and `chat` is null";
        says(objective, SCORED, &["chat=true"], problem);
        says(objective, &format!("{LISTS}{SCORED}"), &[], problem);
    }
}
