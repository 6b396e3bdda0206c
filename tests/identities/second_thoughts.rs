use crate::common::{EXACT, assert_close, numbers};
use candle_align::language::edits::{Edit, EditCosts, EditScript, edit_script, edit_scripts};
use candle_align::language::second_thoughts::{
    EditTokens, second_thoughts_prompt, second_thoughts_sequence,
};
use candle_align::{Reduction, SequenceBatch, SftConfig, TokenLogProbs, sft_loss};
use candle_core::{DType, Device, Tensor, Var};
use proptest::collection::vec;
use proptest::prelude::*;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

const TOKENS: EditTokens = EditTokens {
    separator: 16,
    insert: 17,
    delete: 18,
    replace: 19,
    content: 20,
    target: 21,
    digits: [22, 23, 24, 25, 26, 27, 28, 29, 30, 31],
};

type Whole = (u32, u32, u32);

fn costs((insert, delete, replace): Whole) -> EditCosts {
    EditCosts {
        insert: insert.into(),
        delete: delete.into(),
        replace: replace.into(),
    }
}

fn distance(source: &[u32], target: &[u32], whole: Whole) -> f64 {
    let costs = costs(whole);
    edit_script(source, target, &costs).unwrap().cost(&costs)
}

fn text(longest: usize) -> impl Strategy<Value = Vec<u32>> {
    vec(0..3u32, 0..=longest)
}

/// Whole numbers: ties are exact.
fn whole() -> impl Strategy<Value = Whole> {
    (1..5u32, 1..5u32, 1..8u32)
}

fn fraction() -> impl Strategy<Value = EditCosts> {
    (0.05..4.0, 0.05..4.0, 0.05..6.0).prop_map(|(insert, delete, replace)| EditCosts {
        insert,
        delete,
        replace,
    })
}

/// Every way to walk back from both ends to both beginnings: its cost, and its steps, 0 for keeping
/// or replacing, 1 for deleting, 2 for inserting.
fn walks(source: &[u32], target: &[u32], whole: Whole) -> Vec<(u32, Vec<u8>)> {
    let (insert, delete, replace) = whole;
    let mut all = Vec::new();
    let mut go = |step: u8, cost: u32, source: &[u32], target: &[u32]| {
        for (more, mut steps) in walks(source, target, whole) {
            steps.insert(0, step);
            all.push((cost + more, steps));
        }
    };
    match (source.split_last(), target.split_last()) {
        (None, None) => return vec![(0, vec![])],
        (Some((s, shorter)), Some((t, less))) => {
            go(0, if s == t { 0 } else { replace }, shorter, less);
            go(1, delete, shorter, target);
            go(2, insert, source, less);
        }
        (Some((_, shorter)), None) => go(1, delete, shorter, target),
        (None, Some((_, less))) => go(2, insert, source, less),
    }
    all
}

/// The script of such a walk.
fn script_of(steps: &[u8], source: &[u32], target: &[u32]) -> EditScript {
    let (mut i, mut j) = (source.len(), target.len());
    let mut edits = Vec::new();
    for step in steps {
        i -= usize::from(*step != 2);
        j -= usize::from(*step != 1);
        match step {
            0 if source[i] == target[j] => {}
            0 => edits.push(Edit::Replace {
                position: i,
                token: target[j],
            }),
            1 => edits.push(Edit::Delete { position: i }),
            _ => edits.push(Edit::Insert {
                position: i,
                token: target[j],
            }),
        }
    }
    edits.reverse();
    EditScript { edits }
}

/// The cheapest chain of single edits through any texts between, by Dijkstra's algorithm.
fn cheapest_chain(source: &[u32], target: &[u32], (insert, delete, replace): Whole) -> u32 {
    let mut done = BTreeMap::new();
    let mut open = BinaryHeap::from([Reverse((0, source.to_vec()))]);
    while let Some(Reverse((cost, text))) = open.pop() {
        if text == target {
            return cost;
        }
        if done.insert(text.clone(), cost).is_some() {
            continue;
        }
        let longest = source.len().max(target.len()) + 1;
        for at in 0..=text.len() {
            let mut next = |cost: u32, change: &dyn Fn(&mut Vec<u32>)| {
                let mut text = text.clone();
                change(&mut text);
                if text.len() <= longest && !done.contains_key(&text) {
                    open.push(Reverse((cost, text)));
                }
            };
            for token in 0..3 {
                next(cost + insert, &|t| t.insert(at, token));
                if at < text.len() {
                    next(cost + replace, &|t| t[at] = token);
                }
            }
            if at < text.len() {
                next(cost + delete, &|t| {
                    t.remove(at);
                });
            }
        }
    }
    unreachable!("every text can be reached")
}

/// The length of the longest common subsequence, by trying every subsequence of the source.
fn longest_common(source: &[u32], target: &[u32]) -> usize {
    (0..1u32 << source.len())
        .map(|chosen| {
            let mut left = target.iter();
            let mut kept = source
                .iter()
                .enumerate()
                .filter(|(i, _)| chosen >> i & 1 == 1)
                .map(|(_, token)| token);
            match kept.all(|token| left.any(|t| t == token)) {
                true => chosen.count_ones() as usize,
                false => 0,
            }
        })
        .max()
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn applied_to_the_source_it_gives_the_target(
        source in text(40), target in text(40), costs in fraction()
    ) {
        let script = edit_script(&source, &target, &costs).unwrap();
        prop_assert_eq!(script.apply(&source).unwrap(), target);
        prop_assert!(script.edits.is_sorted_by_key(Edit::position));
    }

    #[test]
    fn of_all_walks_it_is_the_cheapest_and_of_the_cheapest_the_first(
        source in text(4), target in text(4), whole in whole()
    ) {
        let (cost, steps) = walks(&source, &target, whole).into_iter().min().unwrap();
        let script = edit_script(&source, &target, &costs(whole)).unwrap();
        prop_assert_eq!(script.cost(&costs(whole)), f64::from(cost));
        prop_assert_eq!(&script, &script_of(&steps, &source, &target));
    }

    #[test]
    fn no_chain_of_edits_is_cheaper(source in text(4), target in text(4), whole in whole()) {
        let want = f64::from(cheapest_chain(&source, &target, whole));
        prop_assert_eq!(distance(&source, &target, whole), want);
    }

    #[test]
    fn where_replacing_is_dear_it_counts_the_longest_common_subsequence(
        source in text(9), target in text(9), insert in 1..4u32, delete in 1..4u32, more in 0..2u32
    ) {
        let common = longest_common(&source, &target) as f64;
        let (s, t) = (source.len() as f64, target.len() as f64);
        let got = distance(&source, &target, (insert, delete, insert + delete + more));
        let (i, d) = (f64::from(insert), f64::from(delete));
        prop_assert_eq!(got, d * s + i * t - (i + d) * common);
        prop_assert_eq!(distance(&source, &target, (1, 1, 2)), s + t - 2.0 * common);
    }

    #[test]
    fn it_is_a_distance(a in text(12), b in text(12), c in text(12), whole in whole()) {
        let (insert, delete, replace) = whole;
        let (ab, bc, ac) = (
            distance(&a, &b, whole), distance(&b, &c, whole), distance(&a, &c, whole)
        );
        prop_assert!(ac <= ab + bc);
        prop_assert_eq!(ab == 0.0, a == b);
        prop_assert_eq!(edit_script(&a, &a, &costs(whole)).unwrap().edits, []);
        prop_assert_eq!(ab, distance(&b, &a, (delete, insert, replace)));
    }

    #[test]
    fn the_unit_of_the_costs_does_not_matter(
        source in text(15), target in text(15), whole in whole(), times in 2..9u32
    ) {
        let (insert, delete, replace) = whole;
        let larger = costs((times * insert, times * delete, times * replace));
        let script = edit_script(&source, &target, &costs(whole)).unwrap();
        prop_assert_eq!(script.cost(&larger), f64::from(times) * script.cost(&costs(whole)));
        prop_assert_eq!(script, edit_script(&source, &target, &larger).unwrap());
    }

    #[test]
    fn several_cost_sets_give_each_script_once(
        source in text(8), target in text(8), sets in vec(whole(), 1..6)
    ) {
        let sets: Vec<EditCosts> = sets.into_iter().map(costs).collect();
        let scripts = edit_scripts(&source, &target, &sets).unwrap();
        let mut each: Vec<EditScript> = Vec::new();
        for costs in &sets {
            let script = edit_script(&source, &target, costs).unwrap();
            if each.iter().all(|other| *other != script) {
                each.push(script);
            }
        }
        prop_assert_eq!(scripts, each);
    }

    #[test]
    fn what_is_written_is_read_again(
        context in vec(0..32u32, 0..5), source in vec(0..32u32, 0..120), target in vec(0..32u32, 0..120)
    ) {
        // the texts hold every special token too
        let script = edit_script(&source, &target, &EditCosts::default()).unwrap();
        let sequence = second_thoughts_sequence(&context, &source, &script, &TOKENS).unwrap();
        let prompt = second_thoughts_prompt(&context, &source, &TOKENS).unwrap();
        let (given, learned) = sequence.tokens().split_at(prompt.len());
        prop_assert_eq!(given, prompt);
        prop_assert_eq!(TOKENS.parse(learned).unwrap(), (script, &target[..]));
        let mask = [vec![0; given.len()], vec![1; learned.len()]].concat();
        prop_assert_eq!(sequence.mask(), mask);
    }

    #[test]
    fn whatever_is_generated_is_read_or_refused(generated in vec(15..32u32, 0..30)) {
        if let Ok((script, rest)) = TOKENS.parse(&generated) {
            let again = [TOKENS.write(&script).unwrap(), rest.to_vec()].concat();
            prop_assert_eq!(TOKENS.parse(&again).unwrap(), (script.clone(), rest));
            let fits = script.apply(&[1, 2, 3]);
            prop_assert!(fits.is_err() || fits.unwrap().len() <= 3 + script.edits.len());
        }
    }
}

#[test]
fn only_edits_and_target_have_a_loss() {
    let (source, target) = ([1, 2, 3], [1, 4, 3]);
    let script = edit_script(&source, &target, &EditCosts::default()).unwrap();
    let sequence = second_thoughts_sequence(&[9, 8], &source, &script, &TOKENS).unwrap();
    // replace, one digit, content, token, target; and three tokens more
    let learned = 5 + 3;
    let (given, vocabulary) = (2 + 3 + 1, 32);
    assert_eq!(sequence.len(), given + learned);

    let batch = SequenceBatch::new(&[sequence], 0, &Device::Cpu).unwrap();
    let shape = (1, given + learned, vocabulary);
    let logits = Var::from_tensor(&Tensor::zeros(shape, DType::F64, &Device::Cpu).unwrap());
    let logits = logits.unwrap();
    let log_probs = TokenLogProbs::next_token(&logits, &batch.tokens, &batch.mask).unwrap();
    let loss = sft_loss(&log_probs, None, &SftConfig::default()).unwrap();
    let loss = loss.reduce(Reduction::Sum).unwrap();
    assert_close(
        &numbers(&loss),
        &[learned as f64 * (vocabulary as f64).ln()],
        EXACT,
        "learned tokens",
    );

    // the position before each learned token is moved, no other
    let grads = loss.backward().unwrap();
    let moved = numbers(&grads.get(&logits).unwrap().abs().unwrap().sum(2).unwrap());
    for (position, sum) in moved.iter().enumerate() {
        let predicts = (given - 1..given + learned - 1).contains(&position);
        // 1 − 1/V on the token, 1/V on each of the others
        let want = if predicts {
            2.0 * (1.0 - 1.0 / 32.0)
        } else {
            0.0
        };
        assert_close(&[*sum], &[want], EXACT, "gradient");
    }
}
