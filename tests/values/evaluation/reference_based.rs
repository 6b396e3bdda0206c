use super::close;
use candle_align::evaluation::reference_based::{
    BleuConfig, BleuSmoothing, InverseFrequency, Overlap, Stemmer, bert_score, corpus_bleu,
    rouge_l, rouge_l_sum, rouge_n, sentence_bleu,
};

#[test]
fn corpus_bleu_sums_counts_before_it_divides() {
    let texts = ["a b c d e", "x y"];
    let references = [vec!["a b c d f g"], vec!["x z", "x y y y"]];
    let config = BleuConfig {
        order: 2,
        ..Default::default()
    };
    let bleu = corpus_bleu(&texts, &references, &config).unwrap();
    assert_eq!(
        (bleu.matches.as_slice(), bleu.totals.as_slice()),
        (&[6, 4][..], &[7, 5][..])
    );
    assert_eq!((bleu.length, bleu.reference_length), (7, 8));
    close(bleu.brevity_penalty, (1.0 - 8.0 / 7.0f64).exp());
    let want = (1.0 - 8.0 / 7.0f64).exp() * (6.0 / 7.0 * 4.0 / 5.0f64).sqrt();
    close(bleu.score, 100.0 * want);
}

#[test]
fn the_paper_s_clipped_precision() {
    // "the" occurs twice in the reference that has most of it
    let text = "the the the the the the the";
    let references = ["the cat is on the mat", "there is a cat on the mat"];
    let bleu = sentence_bleu(text, &references, &Default::default()).unwrap();
    close(bleu.precisions[0], 100.0 * 2.0 / 7.0);
}

#[test]
fn each_smoothing_fills_an_order_without_a_match_in_its_way() {
    // 2 of 3, 1 of 2, 0 of 1
    let score = |smoothing, effective_order| {
        let config = BleuConfig {
            smoothing,
            effective_order,
            ..Default::default()
        };
        sentence_bleu("a b c", &["a b d"], &config).unwrap().score
    };
    let of = |p: &[f64]| 100.0 * p.iter().product::<f64>().powf(1.0 / p.len() as f64);
    close(
        score(BleuSmoothing::Exponential, true),
        of(&[2.0 / 3.0, 1.0 / 2.0, 1.0 / 2.0]),
    );
    close(
        score(BleuSmoothing::Floor(0.1), true),
        of(&[2.0 / 3.0, 1.0 / 2.0, 0.1]),
    );
    close(
        score(BleuSmoothing::AddK(1.0), true),
        of(&[2.0 / 3.0, 2.0 / 3.0, 1.0 / 2.0, 1.0]),
    );
    assert_eq!(score(BleuSmoothing::None, true), 0.0);
    // the fourth order, which three tokens cannot have, makes it 0
    assert_eq!(score(BleuSmoothing::Exponential, false), 0.0);
}

#[test]
fn rouge_of_the_paper_s_sentences() {
    let reference = "police killed the gunman";
    for (text, n1, l) in [
        ("police kill the gunman", 3.0, 3.0),
        ("the gunman kill police", 3.0, 2.0),
    ] {
        close(
            rouge_n(text, reference, 1, Stemmer::None).unwrap().f1,
            n1 / 4.0,
        );
        close(rouge_l(text, reference, Stemmer::None).f1, l / 4.0);
        // "killed" and "kill" have one stem
        close(
            rouge_n(text, reference, 1, Stemmer::Porter).unwrap().f1,
            1.0,
        );
    }
    let bigrams = rouge_n("a b a b", "a b c", 2, Stemmer::None).unwrap();
    close(bigrams.precision, 1.0 / 3.0);
    close(bigrams.recall, 1.0 / 2.0);
    close(
        bigrams.f1,
        2.0 * (1.0 / 3.0) * (1.0 / 2.0) / (1.0 / 3.0 + 1.0 / 2.0),
    );
}

#[test]
fn rouge_l_sum_counts_the_union_of_lines_once() {
    // of "a b c": "a b" from the first line and "c" from the second
    let score = rouge_l_sum("a b x\nc x", "a b c", Stemmer::None);
    close(score.precision, 3.0 / 5.0);
    close(score.recall, 3.0 / 3.0);
    // "a" occurs once in the text, so it counts for one line of the reference
    let score = rouge_l_sum("a", "a\na", Stemmer::None);
    close(score.precision, 1.0);
    close(score.recall, 1.0 / 2.0);
}

#[test]
fn bert_score_takes_the_closest_token_by_weight() {
    let text = [vec![1.0, 0.0], vec![1.0, 1.0]];
    let reference = [vec![2.0, 0.0], vec![0.0, 3.0], vec![-1.0, 0.0]];
    let half = 0.5f64.sqrt();
    let score = bert_score(&text, &reference, None).unwrap();
    let (p, r) = ((1.0 + half) / 2.0, (1.0 + half - half) / 3.0);
    close(score.precision, p);
    close(score.recall, r);
    close(score.f1, 2.0 * p * r / (p + r));
    let weighted = bert_score(&text, &reference, Some((&[1.0, 3.0], &[2.0, 1.0, 0.0]))).unwrap();
    close(weighted.precision, (1.0 + 3.0 * half) / 4.0);
    close(weighted.recall, (2.0 + half) / 3.0);
    let baseline = Overlap {
        precision: 0.5,
        recall: 0.2,
        f1: -1.0,
    };
    let rescaled = score.rescaled(&baseline).unwrap();
    close(rescaled.precision, (p - 0.5) / 0.5);
    close(rescaled.recall, (r - 0.2) / 0.8);
    close(rescaled.f1, (score.f1 + 1.0) / 2.0);
    let idf = InverseFrequency::new(&[[1, 1], [1, 2]]).weights(&[1, 2, 3]);
    idf.iter()
        .zip([3.0 / 3.0, 3.0 / 2.0, 3.0f64])
        .for_each(|(got, n)| close(*got, n.ln()));
}

#[test]
fn of_two_references_equally_close_in_length_the_shorter_counts() {
    let bleu = sentence_bleu("a b c", &["a b c d", "a b"], &Default::default()).unwrap();
    assert_eq!((bleu.reference_length, bleu.brevity_penalty), (2, 1.0));
}
