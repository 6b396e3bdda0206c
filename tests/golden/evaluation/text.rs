//! sacrebleu, rouge-score, NLTK's stemmer and bert-score.

use super::{all_close, cases, close};
use candle_align::evaluation::reference_based::{
    BleuConfig, InverseFrequency, Stemmer, bert_score, corpus_bleu, porter_stem, rouge_l,
    rouge_l_sum, rouge_n, rouge_tokens, sentence_bleu, tokenize_13a,
};
use serde::Deserialize;

const FILE: &str = "evaluation_text";
const EXACT: f64 = 1e-12;

#[derive(Deserialize)]
struct Tokens {
    text: String,
    tokens: Vec<String>,
}

#[test]
fn the_tokens_of_bleu() {
    for case in cases::<Tokens>(FILE, "thirteen_a") {
        assert_eq!(tokenize_13a(&case.text), case.tokens, "{:?}", case.text);
    }
}

#[derive(Deserialize)]
struct Corpus {
    texts: Vec<String>,
    references: Vec<Vec<String>>,
    results: Vec<OfConfig>,
}

#[derive(Deserialize)]
struct OfConfig {
    config: BleuConfig,
    score: f64,
    precisions: Vec<f64>,
    brevity_penalty: f64,
    length: usize,
    reference_length: usize,
}

#[test]
fn bleu() {
    for case in cases::<Corpus>(FILE, "bleu") {
        let (texts, references) = (&case.texts, &case.references);
        for of in &case.results {
            let what = format!("{texts:?} {:?}", of.config);
            let mut scores = vec![corpus_bleu(texts, references, &of.config).unwrap()];
            if let ([text], [references]) = (&texts[..], &references[..]) {
                scores.push(sentence_bleu(text, references, &of.config).unwrap());
            }
            for bleu in scores {
                close(bleu.score, of.score, EXACT, &what);
                all_close(&bleu.precisions, &of.precisions, EXACT, &what);
                close(bleu.brevity_penalty, of.brevity_penalty, EXACT, &what);
                assert_eq!(bleu.length, of.length, "{what}");
                assert_eq!(bleu.reference_length, of.reference_length, "{what}");
            }
        }
    }
}

#[test]
fn stems() {
    for (word, stem) in cases::<(String, String)>(FILE, "stems") {
        assert_eq!(porter_stem(&word), stem, "{word}");
    }
}

#[derive(Deserialize)]
struct Rouge {
    text: String,
    reference: String,
    stem: bool,
    scores: Vec<[f64; 3]>,
    tokens: Option<Vec<String>>,
}

#[test]
fn rouge() {
    for case in cases::<Rouge>(FILE, "rouge") {
        let Rouge {
            text, reference, ..
        } = &case;
        let stemmer = if case.stem {
            Stemmer::Porter
        } else {
            Stemmer::None
        };
        let mut scores: Vec<_> = (1..=3)
            .map(|n| rouge_n(text, reference, n, stemmer).unwrap())
            .collect();
        scores.push(rouge_l(text, reference, stemmer));
        scores.push(rouge_l_sum(text, reference, stemmer));
        for (kind, (got, want)) in scores.iter().zip(&case.scores).enumerate() {
            let got = [got.precision, got.recall, got.f1];
            all_close(
                &got,
                want,
                EXACT,
                &format!("{kind} of {text:?}, {reference:?}"),
            );
        }
        if let Some(tokens) = &case.tokens {
            assert_eq!(&rouge_tokens(text, stemmer), tokens);
        }
    }
}

#[derive(Deserialize)]
struct Bert {
    text: Vec<Vec<f64>>,
    reference: Vec<Vec<f64>>,
    weights: (Vec<f64>, Vec<f64>),
    scores: [f64; 3],
}

#[derive(Deserialize)]
struct Idf {
    texts: Vec<Vec<u32>>,
    tokens: Vec<u32>,
    weights: Vec<f64>,
}

#[test]
fn matched_embeddings() {
    for case in cases::<Bert>(FILE, "bert_score") {
        let weights = Some((&case.weights.0[..], &case.weights.1[..]));
        let got = bert_score(&case.text, &case.reference, weights).unwrap();
        all_close(
            &[got.precision, got.recall, got.f1],
            &case.scores,
            EXACT,
            "bert_score",
        );
    }
    for case in cases::<Idf>(FILE, "idf") {
        let weights = InverseFrequency::new(&case.texts).weights(&case.tokens);
        all_close(&weights, &case.weights, EXACT, "idf");
    }
}
