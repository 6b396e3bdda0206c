use super::{config, is_close, reversed};
use candle_align::evaluation::reference_based::{
    BleuConfig, Overlap, Stemmer, bert_score, corpus_bleu, porter_stem, rouge_l, rouge_l_sum,
    rouge_n, sentence_bleu, tokenize_13a,
};
use proptest::collection::vec;
use proptest::prelude::*;

fn text() -> impl Strategy<Value = String> {
    vec(
        prop_oneof![
            Just("a"),
            Just("b"),
            Just("c"),
            Just("running"),
            Just("runs")
        ],
        1..9,
    )
    .prop_map(|words| words.join(" "))
}

fn embeddings() -> impl Strategy<Value = Vec<Vec<f64>>> {
    vec(vec(prop_oneof![-2.0..-0.1, 0.1..2.0], 3), 1..6)
}

fn exchanged(score: Overlap) -> Overlap {
    Overlap {
        precision: score.recall,
        recall: score.precision,
        f1: score.f1,
    }
}

fn same(a: Overlap, b: Overlap) -> bool {
    is_close(a.precision, b.precision, 1e-12)
        && is_close(a.recall, b.recall, 1e-12)
        && is_close(a.f1, b.f1, 1e-12)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn bleu_ignores_the_order_of_texts_and_of_references(
        corpus in vec((text(), vec(text(), 1..4)), 1..6)
    ) {
        let config = BleuConfig::default();
        let (texts, references): (Vec<_>, Vec<_>) = corpus.iter().cloned().unzip();
        let score = corpus_bleu(&texts, &references, &config).unwrap();
        let turned: Vec<_> = references.iter().rev().map(|of| reversed(of)).collect();
        prop_assert_eq!(&corpus_bleu(&reversed(&texts), &turned, &config).unwrap(), &score);
        prop_assert!((0.0..=100.0 + 1e-9).contains(&score.score));
        let alone = sentence_bleu(&texts[0], &references[0], &config).unwrap();
        prop_assert_eq!(corpus_bleu(&texts[..1], &references[..1], &config).unwrap(), alone);
        // a text that is its own reference
        let own: Vec<_> = texts.iter().map(|text| vec![text.clone()]).collect();
        let own = corpus_bleu(&texts, &own, &BleuConfig { order: 1, ..config }).unwrap();
        prop_assert!(is_close(own.score, 100.0, 1e-12));
    }

    #[test]
    fn rouge_exchanges_precision_and_recall(a in text(), b in text(), n in 1..4usize) {
        for stemmer in [Stemmer::None, Stemmer::Porter] {
            let forward = rouge_n(&a, &b, n, stemmer).unwrap();
            prop_assert!(same(exchanged(forward), rouge_n(&b, &a, n, stemmer).unwrap()));
            let longest = rouge_l(&a, &b, stemmer);
            prop_assert!(same(exchanged(longest), rouge_l(&b, &a, stemmer)));
            prop_assert!(longest.f1 <= rouge_n(&a, &b, 1, stemmer).unwrap().f1 + 1e-12);
            // one line each
            prop_assert!(same(longest, rouge_l_sum(&a, &b, stemmer)));
        }
        prop_assert_eq!(rouge_l(&a, &a, Stemmer::None).f1, 1.0);
    }

    #[test]
    fn lines_in_another_order_cost_nothing(lines in vec("[abc]( [abc]){0,4}", 1..5)) {
        // no letter is on two lines
        let lines: Vec<String> = lines.iter().enumerate().map(|(at, line)| {
            line.split(' ').map(|letter| format!("{letter}{at}")).collect::<Vec<_>>().join(" ")
        }).collect();
        let score = rouge_l_sum(&reversed(&lines).join("\n"), &lines.join("\n"), Stemmer::None);
        prop_assert_eq!(score.f1, 1.0);
    }

    #[test]
    fn any_text_has_tokens_without_white_space(text in any::<String>()) {
        for token in tokenize_13a(&text) {
            prop_assert!(!token.is_empty() && !token.contains(char::is_whitespace));
        }
        porter_stem(&text);
        rouge_l_sum(&text, &text, Stemmer::Porter);
    }

    #[test]
    fn bert_score_ignores_scale_and_order(x in embeddings(), y in embeddings(), factor in 0.1..10.0f64) {
        let score = bert_score(&x, &y, None).unwrap();
        prop_assert!(same(exchanged(score), bert_score(&y, &x, None).unwrap()));
        prop_assert!(same(score, bert_score(&reversed(&x), &reversed(&y), None).unwrap()));
        let scaled: Vec<Vec<f64>> = x.iter().map(|row| row.iter().map(|v| v * factor).collect()).collect();
        prop_assert!(same(score, bert_score(&scaled, &y, None).unwrap()));
        let weights = (vec![0.7; x.len()], vec![0.7; y.len()]);
        let weighted = bert_score(&x, &y, Some((&weights.0, &weights.1))).unwrap();
        prop_assert!(same(score, weighted));
        let none = (vec![0.0; x.len()], vec![0.7; y.len()]);
        let empty = bert_score(&x, &y, Some((&none.0, &none.1))).unwrap();
        prop_assert_eq!(empty, Overlap::default());
        prop_assert_eq!(bert_score(&[], &y, None).unwrap(), Overlap::default());
    }
}

#[test]
fn the_best_reference_is_the_first_with_the_highest_f() {
    let of = |precision: f64, f1: f64| Overlap {
        precision,
        recall: 0.5,
        f1,
    };
    let scores = [of(0.9, 0.2), of(0.1, 0.7), of(0.3, 0.7)];
    assert_eq!(Overlap::best_of(&scores), Some(scores[1]));
    assert_eq!(Overlap::best_of(&[]), None);
}
