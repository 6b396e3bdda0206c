//! The losses over pairs that came after the survey, against their formulas in scalars.

use super::{CHAT, Case, SOLUTIONS, alone, model, near, number};
use candle_align::decoder::{Decoder, LanguageModel, Load, Mode};
use candle_align::ops::Segments;
use candle_core::DType;
use train::checkpoint::objective::{Objective, Reference, Text};

/// One answer under both models.
struct Answer {
    text: Text,
    policy: f64,
    reference: f64,
    length: f64,
}

impl Answer {
    /// ρ
    fn ratio(&self) -> f64 {
        self.policy - self.reference
    }

    /// l̄
    fn mean(&self) -> f64 {
        self.policy / self.length
    }
}

fn frozen() -> Decoder {
    let other = model(2, Some(CHAT));
    Decoder::load(other.path(), &Load::default()).unwrap()
}

/// −log σ
fn logistic(z: f64) -> f64 {
    (-z).exp().ln_1p()
}

fn answers(case: &Case) -> Vec<[Answer; 2]> {
    let Objective::Pairs(all) = case.objective() else {
        panic!("no pairs");
    };
    let (policy, reference) = (case.decoder(), frozen());
    let answer = |text: Text| {
        let (sum, length) = alone(&policy, &text);
        Answer {
            policy: sum,
            reference: alone(&reference, &text).0,
            length,
            text,
        }
    };
    let pairs = all.rows.into_iter();
    pairs
        .map(|pair| [answer(pair.chosen), answer(pair.rejected)])
        .collect()
}

/// Σₜ KL(reference‖policy) over an answer's tokens.
fn divergence(case: &Case, text: &Text) -> f64 {
    let shares = |decoder: &Decoder| {
        let (segments, tokens) = Segments::from_tokens(&[&text.ids]).unwrap();
        let hidden = decoder.forward(&tokens, &segments, Mode::Evaluation);
        let logits = decoder.logits(&hidden.unwrap()).unwrap();
        let logits = logits.to_dtype(DType::F64).unwrap();
        let logits = candle_nn::ops::log_softmax(&logits, 1).unwrap();
        logits.to_vec2::<f64>().unwrap()
    };
    let (policy, reference) = (shares(&case.decoder()), shares(&frozen()));
    let covered = (1..text.ids.len()).filter(|at| text.learned[*at]);
    let kl = |at: usize| -> f64 {
        let both = reference[at - 1].iter().zip(&policy[at - 1]);
        both.map(|(p, q)| p.exp() * (p - q)).sum()
    };
    covered.map(kl).sum()
}

/// The sum over an answer's first tokens, and α times the rest.
fn desensitized(decoder: &Decoder, text: &Text, most: f64, alpha: f64) -> f64 {
    let mut first = text.clone();
    let covered = (1..text.ids.len()).filter(|at| text.learned[*at]);
    for at in covered.skip(most as usize) {
        first.learned[at] = false;
    }
    let (first, all) = (alone(decoder, &first).0, alone(decoder, text).0);
    first + alpha * (all - first)
}

#[test]
fn pairs_have_the_loss_of_the_formula() {
    let check = |objective: &str, sets: &[&str], of: &dyn Fn(&Case, &[Answer; 2]) -> f64| {
        let case = Case::new(objective, SOLUTIONS, sets);
        let pairs = answers(&case);
        assert_eq!(pairs.len(), 6);
        let expected = pairs.iter().map(|pair| of(&case, pair)).sum::<f64>() / 6.0;
        let (rows, reference) = ([0, 1, 2, 3, 4, 5], Reference::Frozen(Box::new(frozen())));
        let window = [rows.to_vec()];
        let found = case
            .objective()
            .loss(&case.decoder(), &reference, &rows, &window, None)
            .unwrap();
        near(objective, number(&found.loss), expected);
    };
    check("ipo", &["since.ipo.beta=0.25"], &|_, [w, l]| {
        (w.ratio() - l.ratio() - 2.0).powi(2)
    });
    check("sppo", &["since.sppo.beta=0.25"], &|_, [w, l]| {
        0.5 * (w.ratio() - 2.0).powi(2) + 0.5 * (l.ratio() + 2.0).powi(2)
    });
    check("spin", &["since.spin.beta=0.3"], &|_, [w, l]| {
        logistic(0.3 * (w.ratio() - l.ratio()))
    });
    check("dpop", &["since.dpop.lambda=3"], &|_, [w, l]| {
        logistic(0.1 * (w.ratio() - l.ratio() - 3.0 * (-w.ratio()).max(0.0)))
    });
    check("r_dpo", &["since.r_dpo.alpha=0.3"], &|_, [w, l]| {
        logistic(0.1 * (w.ratio() - l.ratio()) + 0.3 * (w.length - l.length))
    });
    check("rpo", &["since.rpo.alpha=0.5"], &|_, [w, l]| {
        logistic(0.1 * (w.ratio() - l.ratio())) - 0.5 * w.mean()
    });
    check("cpo", &["since.cpo.alpha=0.5"], &|_, [w, l]| {
        logistic(0.1 * (w.policy - l.policy)) - 0.5 * w.policy
    });
    check("simper", &[], &|_, [w, l]| l.mean().exp() - w.mean().exp());
    let odds = |mean: f64| mean - (-mean.exp()).ln_1p();
    check("orpo", &["since.orpo.lambda=2"], &|_, [w, l]| {
        2.0 * logistic(odds(w.mean()) - odds(l.mean())) - w.mean()
    });
    check("tdpo1", &["since.tdpo1.beta=0.3"], &|case, [w, l]| {
        let more = divergence(case, &l.text) - divergence(case, &w.text);
        logistic(0.3 * (w.ratio() - l.ratio() - more))
    });
    check("tdpo2", &["since.tdpo2.alpha=0.7"], &|case, [w, l]| {
        let more = divergence(case, &l.text) - divergence(case, &w.text);
        logistic(0.1 * (w.ratio() - l.ratio() - 0.7 * more))
    });
    check("ld_dpo", &["since.ld_dpo.alpha=0.25"], &|case, [w, l]| {
        let most = w.length.min(l.length);
        let of = |decoder: &Decoder, one: &Answer| desensitized(decoder, &one.text, most, 0.25);
        let (policy, reference) = (case.decoder(), frozen());
        let ratio = |one: &Answer| of(&policy, one) - of(&reference, one);
        logistic(0.1 * (ratio(w) - ratio(l)))
    });
}

#[test]
fn rewards_are_the_implicit_ones_whatever_the_loss_reads() {
    for (objective, sets) in [
        ("ipo", "since.ipo.log_ratio=mean"),
        ("f_dpo", "since.f_dpo.divergence=forward_kl"),
        ("hinge_dpo", "since.divergence=jensen_shannon"),
        (
            "length_normalized_dpo",
            "since.length_normalized_dpo.beta=0.1",
        ),
    ] {
        let case = Case::new(objective, SOLUTIONS, &[sets]);
        let reference = Reference::Frozen(Box::new(frozen()));
        let window = [vec![0, 1, 2]];
        let found = case
            .objective()
            .loss(&case.decoder(), &reference, &window[0], &window, None)
            .unwrap();
        for (scored, [w, l]) in found.pairs.iter().zip(&answers(&case)) {
            near(objective, scored.scores[0], 0.1 * w.ratio());
            near(objective, scored.scores[1], 0.1 * l.ratio());
        }
        assert_eq!(found.pairs.len(), 3);
    }
}

/// A row may begin with its answer. Nothing predicts the first token, and TRL divides by it all the same.
#[test]
fn a_mean_of_an_answer_counts_a_first_token_that_nothing_predicts() {
    let rows = "{\"chosen\": \"An apple\", \"rejected\": \"no\"}\n";
    let loss = |objective: &str, set: &str| {
        let case = Case::new(objective, rows, &[set]);
        let pairs = answers(&case);
        let [w, l] = &pairs[0];
        assert!(w.text.learned[0] && l.text.learned[0]);
        let mean = |one: &Answer| one.ratio() / (one.length + 1.0);
        let reference = Reference::Frozen(Box::new(frozen()));
        let window = [vec![0]];
        let objective = case.objective();
        let found = objective.loss(&case.decoder(), &reference, &[0], &window, None);
        (number(&found.unwrap().loss), mean(w) - mean(l))
    };
    let (found, margin) = loss("ipo", "since.ipo.log_ratio=mean");
    near("ipo", found, (margin - 5.0).powi(2));
    let (found, margin) = loss(
        "length_normalized_dpo",
        "since.length_normalized_dpo.beta=0.5",
    );
    near("length_normalized_dpo", found, logistic(0.5 * margin));
}

/// Token means of TRL: one mean over a micro-batch, whatever goes through the model at a time.
#[test]
fn a_likelihood_over_the_micro_batch_is_one_mean_over_its_tokens() {
    let sets = [r#"since.rpo={"alpha": 3, "likelihood": "micro_batch"}"#];
    let case = Case::new("rpo", SOLUTIONS, &sets);
    let pairs = answers(&case);
    let reference = Reference::Frozen(Box::new(frozen()));
    let (objective, decoder) = (case.objective(), case.decoder());
    let window = [vec![0, 1, 2], vec![3, 4, 5]];
    let loss = |rows: &[usize]| {
        let found = objective.loss(&decoder, &reference, rows, &window, None);
        number(&found.unwrap().loss)
    };
    let batch = |rows: std::ops::Range<usize>| {
        let own = &pairs[rows];
        let sums: f64 = own.iter().map(|[w, _]| w.policy).sum();
        let tokens: f64 = own.iter().map(|[w, _]| w.length).sum();
        let z = own
            .iter()
            .map(|[w, l]| logistic(0.1 * (w.ratio() - l.ratio())));
        (z.sum::<f64>() / 3.0 - 3.0 * sums / tokens) / 2.0
    };
    near("whole", loss(&[0, 1, 2]), batch(0..3));
    near("parts", loss(&[3]) + loss(&[4, 5]), batch(3..6));
}

/// The mean over all covered tokens, whatever the answers.
#[test]
fn a_teacher_is_learned_from_at_every_token() {
    let case = Case::new("gkd", SOLUTIONS, &["since.gkd.direction=forward"]);
    let Objective::Texts(all) = case.objective() else {
        panic!("no texts");
    };
    let tokens: usize = all.rows.iter().map(Text::covered).sum();
    let sum: f64 = all.rows.iter().map(|text| divergence(&case, text)).sum();
    let (rows, reference) = (vec![0, 1, 2, 3], Reference::Frozen(Box::new(frozen())));
    let window = [rows.clone()];
    let found = case
        .objective()
        .loss(&case.decoder(), &reference, &rows, &window, None)
        .unwrap();
    near("gkd", number(&found.loss), sum / tokens as f64);
}
