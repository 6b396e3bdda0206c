//! The rows of the smallest checkpoint.

use super::{folder, open, source, supervised};
use flate2::{Compression, write::GzEncoder};
use std::io::Write;
use train::checkpoint::rows::{
    Folder, Pair, Prepared, RewardRow, Settings, Source, Truncation, dpo, reward, sft,
};

/// Twelve rows by a formula.
fn twelve() -> Vec<(String, String, String)> {
    let words = |a: usize, r: usize, n: usize| {
        let word = |j: usize| format!("t{}", 3 + (7 * a + 5 * j + 3 * j * j + 11 * r) % 29);
        (0..n).map(word).collect::<Vec<_>>().join(" ")
    };
    let row = |r: usize| {
        let chosen = words(2, r, 2 + 3 * r % 5);
        let rejected = words(3, r, 2 + 5 * r % 4);
        (
            words(1, r, 3 + r % 4),
            format!(" {chosen}"),
            format!(" {rejected}"),
        )
    };
    (0..12).map(row).collect()
}

pub fn completions() -> String {
    let line = |(prompt, chosen, _): (String, String, String)| {
        format!("{{\"prompt\": \"{prompt}\", \"completion\": \"{chosen}\"}}\n")
    };
    twelve().into_iter().map(line).collect()
}

fn pairs() -> String {
    let line = |(prompt, chosen, rejected): (String, String, String)| {
        format!(
            "{{\"prompt\": \"{prompt}\", \"chosen\": \"{chosen}\", \"rejected\": \"{rejected}\"}}\n"
        )
    };
    twelve().into_iter().map(line).collect()
}

pub fn at_most(max_length: usize) -> Settings {
    Settings {
        max_length: Some(max_length),
        ..Settings::default()
    }
}

fn compared(folder: &Folder, settings: &Settings) -> Prepared<Pair> {
    dpo(source(&pairs()), folder, settings).unwrap()
}

fn scored(folder: &Folder, settings: &Settings) -> Prepared<RewardRow> {
    reward(source(&pairs()), folder, settings).unwrap()
}

#[test]
fn prompt_and_completion_become_one_row() {
    let words = open(&folder("words", None));
    let all = supervised(&words, &completions(), &at_most(64));
    assert_eq!(all.rows[0].ids, [10, 18, 3, 17, 25, 2]);
    assert_eq!(all.rows[0].labels(), [-100, -100, -100, 17, 25, 2]);
    assert_eq!((all.rows.len(), all.report.cut), (12, 0));
    assert_eq!(all.report.to_string(), "12 of 12 rows");
    let begun = open(&folder("begun", None));
    let all = supervised(&begun, &completions(), &at_most(64));
    assert_eq!(all.rows[0].ids, [1, 10, 18, 3, 17, 25, 2]);
}

#[test]
fn long_rows_are_cut_or_dropped_and_counted() {
    let words = open(&folder("words", None));
    let all = supervised(&words, &completions(), &at_most(6));
    assert_eq!(all.rows.len(), 9);
    // the end token is lost
    assert_eq!(all.rows[1].ids, [21, 29, 14, 5, 28, 7]);
    assert_eq!(all.rows[1].line, 2);
    assert_eq!(all.report.nothing_learned, 3);
    let text = all.report.to_string();
    assert!(
        text.starts_with("9 of 12 rows, 3 dropped (nothing left to learn), 8 cut by "),
        "{text}"
    );

    let kept = compared(&words, &at_most(6));
    assert_eq!((kept.rows.len(), kept.report.long_prompts), (9, 3));
    assert!(kept.rows.iter().all(|pair| pair.shared_prompt().is_some()));
    let ends = Settings {
        truncation: Truncation::KeepEnd,
        ..at_most(6)
    };
    let kept = compared(&words, &ends);
    assert_eq!((kept.rows.len(), kept.report.long_prompts), (12, 0));
    assert!(kept.rows.iter().all(|pair| pair.chosen.ids.ends_with(&[2])));
    assert!(kept.rows.iter().any(|pair| pair.shared_prompt().is_none()));

    let kept = scored(&words, &at_most(8));
    assert_eq!((kept.rows.len(), kept.report.long_sides), (3, 9));
    let text = kept.report.to_string();
    assert_eq!(text, "3 of 12 rows, 9 dropped (an answer is too long)");
}

#[test]
fn a_prompt_that_is_missing_is_what_both_answers_begin_with() {
    let words = open(&folder("words", None));
    let row = r#"{"chosen": "t10 t11 t12", "rejected": "t10 t11 t15"}"#;
    let all = dpo(source(row), &words, &Settings::default()).unwrap();
    let pair = &all.rows[0];
    assert_eq!(
        (pair.chosen.prompt, &pair.chosen.ids[..]),
        (2, &[10, 11, 12, 2][..])
    );
    assert_eq!(pair.rejected.ids, [10, 11, 15, 2]);
    // `t1`, the end of the prompt, is no token of the whole
    assert_eq!(all.report.moved_answers, 1);
}

#[test]
fn a_file_may_be_compressed() {
    let words = folder("words", None);
    let path = words.path().join("rows.jsonl.gz");
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(completions().as_bytes()).unwrap();
    std::fs::write(&path, encoder.finish().unwrap()).unwrap();
    let words = open(&words);
    let all = sft(Source::open(&path).unwrap(), &words, &Settings::default()).unwrap();
    assert_eq!(all.rows.len(), 12);
}
