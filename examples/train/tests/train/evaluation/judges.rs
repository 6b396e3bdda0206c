//! GPTScore and G-Eval from whole logits, and what people say beside them.

use super::{Case, bytes, last, whole};
use crate::objectives::{CHAT, model, near};
use serde_json::Value;

const ROWS: &str = r#"{"doc_id": "a", "system_id": 1, "source": "Say a.", "reference": "a", "system_output": "An a.", "scores": {"fluency": 4.5, "coherence": 1}}
{"doc_id": "a", "system_id": 2, "source": "Say a.", "reference": "a", "system_output": "No", "scores": {"fluency": 1, "coherence": 2}}
{"doc_id": "a", "system_id": 3, "source": "Say a.", "reference": "a", "system_output": "I will not", "scores": {"fluency": 2, "coherence": 3}}
{"doc_id": "b", "system_id": 1, "prompt": "{output} {input}", "response": "{aspect} or so", "scores": {"fluency": 3, "coherence": 2}}
{"doc_id": "b", "system_id": 2, "prompt": "{output} {input}", "response": "Well", "scores": {"fluency": 5, "coherence": 2}}
"#;

const TEXTS: [(&str, &str, f64); 5] = [
    ("Say a.", "An a.", 4.5),
    ("Say a.", "No", 1.0),
    ("Say a.", "I will not", 2.0),
    ("{output} {input}", "{aspect} or so", 3.0),
    ("{output} {input}", "Well", 5.0),
];

/// r = Σ(x − x̄)(y − ȳ) / √(Σ(x − x̄)² Σ(y − ȳ)²)
fn pearson(x: &[f64], y: &[f64]) -> f64 {
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let (mx, my) = (mean(x), mean(y));
    let dot = |a: &[f64], ma: f64, b: &[f64], mb: f64| -> f64 {
        a.iter().zip(b).map(|(a, b)| (a - ma) * (b - mb)).sum()
    };
    dot(x, mx, y, my) / (dot(x, mx, x, mx) * dot(y, my, y, my)).sqrt()
}

/// Ranks of different numbers.
fn ranks(x: &[f64]) -> Vec<f64> {
    let below = |one: &f64| x.iter().filter(|other| *other < one).count() as f64;
    x.iter().map(below).collect()
}

/// (P − Q)/C(n, 2), of different numbers.
fn kendall(x: &[f64], y: &[f64]) -> f64 {
    let (mut sum, mut pairs) = (0.0, 0.0);
    for i in 0..x.len() {
        for j in 0..i {
            sum += ((x[i] - x[j]) * (y[i] - y[j])).signum();
            pairs += 1.0;
        }
    }
    sum / pairs
}

/// The levels of `people`, beside the formulas.
fn beside_people(people: &Value, scores: &[f64]) {
    let human = TEXTS.map(|(_, _, human)| human);
    let inputs = [0..3, 3..5];
    let mean = |of: &dyn Fn(&[f64], &[f64]) -> f64| {
        let each = inputs
            .clone()
            .map(|input| of(&scores[input.clone()], &human[input]));
        each.iter().sum::<f64>() / 2.0
    };
    let spearman = |x: &[f64], y: &[f64]| pearson(&ranks(x), &ranks(y));
    let expected = [
        (
            "dataset",
            pearson(scores, &human),
            spearman(scores, &human),
            kendall(scores, &human),
        ),
        ("sample", mean(&pearson), mean(&spearman), mean(&kendall)),
    ];
    for (found, (level, pearson, spearman, kendall)) in
        people.as_array().unwrap().iter().zip(expected)
    {
        assert_eq!(found["level"], level);
        assert_eq!(found["texts"], 5);
        for (name, expected) in [
            ("pearson", pearson),
            ("spearman", spearman),
            ("kendall", kendall),
        ] {
            near(
                &format!("{level} {name}"),
                found[name].as_f64().unwrap(),
                expected,
            );
        }
    }
    assert_eq!(people[1]["inputs"], 2);
    assert_eq!(people.as_array().unwrap().len(), 2);
}

#[test]
fn gpt_score_is_the_mean_over_the_text_of_whole_logits() {
    let sets = [
        "aspect=fluency",
        "definition=ease",
        r#"gpt_score.prompt="A {aspect} ({definition}) text for: {input}\nText:""#,
    ];
    let case = Case::new("gpt_score", ROWS, &sets);
    let decoder = case.decoder();
    let (all, rows) = case.written();
    let mut scores = Vec::new();
    for (row, (input, text, human)) in rows.iter().zip(TEXTS) {
        // the row's own braces stay as they are
        let before = format!("A fluency (ease) text for: {input}\nText:");
        let log_probs = whole(&decoder, &bytes(&format!("{before} {text}")));
        let tokens = text.len() + 1;
        let expected = last(&log_probs, tokens) / tokens as f64;
        near("score", row["score"].as_f64().unwrap(), expected);
        assert_eq!(row["tokens"], tokens);
        assert_eq!(row["human"], human);
        assert_eq!(row["mass"], Value::Null);
        scores.push(expected);
    }
    let figures = &all["judged"];
    assert_eq!(figures["aspect"], "fluency");
    near(
        "mean",
        figures["mean"].as_f64().unwrap(),
        scores.iter().sum::<f64>() / 5.0,
    );
    beside_people(&figures["people"], &scores);
}

#[test]
fn g_eval_is_the_expected_score_under_the_next_token() {
    let own =
        r#"g_eval.prompt="{aspect} {lowest}-{highest}, {definition}\n{input}\n{output}\nScore:""#;
    for (template, blank) in [(None, " "), (Some(CHAT), "")] {
        let sets = ["aspect=fluency", "definition=ease", own];
        let case = Case::on(model(4, template), "g_eval", ROWS, &sets);
        let decoder = case.decoder();
        let (all, rows) = case.written();
        let (mut scores, mut masses) = (Vec::new(), Vec::new());
        for (row, (input, text, _)) in rows.iter().zip(TEXTS) {
            let prompt = format!("fluency 1-5, ease\n{input}\n{text}\nScore:");
            let before = match template {
                None => bytes(&prompt),
                Some(_) => {
                    let turn = bytes(&format!("user\n{prompt}"));
                    let (end, assistant) = (bytes("\n"), bytes("assistant\n"));
                    [&[256], &turn[..], &[257], &end[..], &[256], &assistant[..]].concat()
                }
            };
            // the blank in plain text is a token of its own, and given
            let before = [before, bytes(blank)].concat();
            let each = (1..=5).map(|score: u32| {
                let ids = [before.clone(), bytes(&score.to_string())].concat();
                let log_prob = last(&whole(&decoder, &ids), 1);
                let found = &row["log_probs"][score.to_string()];
                near("log P", found.as_f64().unwrap(), log_prob);
                (f64::from(score), log_prob.exp())
            });
            let each: Vec<(f64, f64)> = each.collect();
            let mass: f64 = each.iter().map(|(_, p)| p).sum();
            let score = each.iter().map(|(score, p)| score * p).sum::<f64>() / mass;
            near("mass", row["mass"].as_f64().unwrap(), mass);
            near("score", row["score"].as_f64().unwrap(), score);
            scores.push(score);
            masses.push(mass);
        }
        let figures = &all["judged"];
        let lowest = masses.iter().copied().fold(1.0, f64::min);
        near(
            "mass",
            figures["mass"]["mean"].as_f64().unwrap(),
            masses.iter().sum::<f64>() / 5.0,
        );
        near(
            "lowest",
            figures["mass"]["lowest"].as_f64().unwrap(),
            lowest,
        );
        let line = masses.iter().position(|mass| *mass == lowest).unwrap() + 1;
        assert_eq!(figures["mass"]["line"], line);
        beside_people(&figures["people"], &scores);
    }
}

#[test]
fn the_default_prompts_show_the_model_all_they_ask_about() {
    let row = r#"{"source": "INPUT", "output": "OUTPUT"}"#;
    for (method, expected) in [
        (
            "gpt_score",
            "Write a text for the following input. It must be good in this respect: coherence, which means the \
             collective quality of all sentences.\n\nInput:\nINPUT\n\nText:\n",
        ),
        (
            "g_eval",
            "You will be given a text that was written for an input. Rate the text on one metric.\n\n\
             Evaluation criteria:\ncoherence (1-5): the collective quality of all sentences\n\nInput:\nINPUT\n\n\
             Text:\nOUTPUT\n\nEvaluation form (scores ONLY):\n- coherence:",
        ),
    ] {
        let case = Case::new(method, row, &[]);
        let (all, rows) = case.written();
        let text = match method {
            "gpt_score" => format!("{expected}OUTPUT"),
            _ => format!("{expected} 3"),
        };
        let log_probs = whole(&case.decoder(), &bytes(&text));
        match method {
            "gpt_score" => near(
                method,
                rows[0]["score"].as_f64().unwrap(),
                last(&log_probs, 6) / 6.0,
            ),
            _ => near(
                method,
                rows[0]["log_probs"]["3"].as_f64().unwrap(),
                last(&log_probs, 1),
            ),
        }
        // one text has no spread, and nobody spoke
        assert_eq!(all["judged"]["error"], Value::Null);
        assert_eq!(all["judged"]["people"], Value::Array(Vec::new()));
    }
}
