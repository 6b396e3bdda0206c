//! The loss of held-out rows, where that of a row depends on the rows beside it.

use super::{CHAT, Case, model, near, number};
use candle_align::decoder::{Decoder, Load};
use std::fs;
use train::checkpoint::evaluate::scores;
use train::checkpoint::objective::Reference;
use train::world::single::Single;

/// Five pairs of about 600 tokens, of different lengths.
fn pairs() -> String {
    let pair = |n: usize| {
        let (chosen, rejected) = ("yes ".repeat(60 + 9 * n), "n0 ".repeat(110 - 7 * n));
        format!(r#"{{"prompt": "{n}?", "chosen": "{chosen}", "rejected": "{rejected}"}}"#) + "\n"
    };
    (0..5).map(pair).collect()
}

/// Micro-batches as in training, whatever goes through the model at a time.
#[test]
fn held_out_rows_are_measured_by_micro_batch_where_rows_are_compared() {
    let rows = pairs();
    let all: [(&str, &[&str]); 8] = [
        ("kto", &["since.kto.beta=0.5"]),
        ("aot", &["since.aot.beta=0.5"]),
        ("aot_unpaired", &["since.aot_unpaired.beta=0.5"]),
        ("dpo", &["dpo.loss_weights=[1,0.5]"]),
        ("rpo", &["since.rpo.likelihood=micro_batch"]),
        ("cpo", &["since.cpo.likelihood=micro_batch"]),
        ("orpo", &["since.orpo.likelihood=micro_batch"]),
        ("simpo", &["since.simpo.cpo_alpha=1"]),
    ];
    let other = model(2, Some(CHAT));
    let frozen = || Decoder::load(other.path(), &Load::default()).unwrap();
    for (objective, sets) in all {
        let mut case = Case::new(objective, &rows, sets);
        case.settings.fit.batch = 4;
        let file = case.dir.path().join("held_out.jsonl");
        fs::write(&file, &rows).unwrap();
        case.settings.held_out_file = Some(file);
        let held_out = case.prepared().unwrap().held_out.unwrap();
        let (policy, reference) = (case.decoder(), Reference::Frozen(Box::new(frozen())));
        let rows: Vec<usize> = (0..held_out.rows.len()).collect();
        let mut expected = 0.0;
        for batch in rows.chunks(4) {
            let window = [batch.to_vec()];
            let loss = held_out
                .rows
                .loss(&policy, &reference, batch, &window, None);
            expected += number(&loss.unwrap().loss) * batch.len() as f64;
        }
        expected /= rows.len() as f64;
        let limits = match objective.starts_with("aot") {
            // a limit is an error there
            true => vec![None],
            false => vec![None, Some(800), Some(1)],
        };
        for limit in limits {
            let mut fit = case.settings.fit.clone();
            fit.max_tokens = limit;
            let shift = Default::default();
            let found = scores(&held_out, &policy, &reference, &fit, &shift, &Single).unwrap();
            near(&format!("{objective} {limit:?}"), found.loss, expected);
        }
    }
}
