use candle_align::Result;
use candle_align::language::edits::{Edit, EditCosts, EditScript, edit_script, edit_scripts};
use candle_align::language::second_thoughts::{
    EditTokens, decipher, second_thoughts_prompt, second_thoughts_sequence,
};

const TOKENS: EditTokens = EditTokens {
    separator: 100,
    insert: 101,
    delete: 102,
    replace: 103,
    content: 104,
    target: 105,
    digits: [110, 111, 112, 113, 114, 115, 116, 117, 118, 119],
};

fn costs(insert: f64, delete: f64, replace: f64) -> EditCosts {
    EditCosts {
        insert,
        delete,
        replace,
    }
}

fn script(source: &str, target: &str, costs: &EditCosts) -> (Vec<Edit<char>>, f64) {
    let source: Vec<char> = source.chars().collect();
    let target: Vec<char> = target.chars().collect();
    let script = edit_script(&source, &target, costs).unwrap();
    assert_eq!(script.apply(&source).unwrap(), target);
    let cost = script.cost(costs);
    (script.edits, cost)
}

fn insert<T>(position: usize, token: T) -> Edit<T> {
    Edit::Insert { position, token }
}

fn delete<T>(position: usize) -> Edit<T> {
    Edit::Delete { position }
}

fn replace<T>(position: usize, token: T) -> Edit<T> {
    Edit::Replace { position, token }
}

#[test]
fn textbook_words() {
    // Levenshtein: k → s, e → i, + g
    let (edits, cost) = script("kitten", "sitting", &costs(1.0, 1.0, 1.0));
    assert_eq!(edits, [replace(0, 's'), replace(4, 'i'), insert(6, 'g')]);
    assert_eq!(cost, 3.0);
    // 9 + 9 letters less twice "etin": the paper's example costs
    let (_, cost) = script("intention", "execution", &EditCosts::default());
    assert_eq!(cost, 9.0 + 9.0 - 2.0 * 5.0);
    assert_eq!(EditCosts::default(), costs(1.0, 1.0, 2.0));
}

#[test]
fn every_operation_costs_its_own() {
    let prices = costs(3.0, 5.0, 7.0);
    // a deleted, c replaced by x, y put in at the end
    let (edits, cost) = script("abcdef", "bxdefy", &prices);
    assert_eq!(edits, [delete(0), replace(2, 'x'), insert(6, 'y')]);
    assert_eq!(cost, 5.0 + 7.0 + 3.0);
    // dearer than deleting and inserting: 9 against 3 + 5
    let (edits, cost) = script("a", "b", &costs(3.0, 5.0, 9.0));
    assert_eq!((edits.len(), cost), (2, 8.0));
}

#[test]
fn equal_and_empty_texts() {
    let any = costs(2.0, 3.0, 4.0);
    assert_eq!(script("same", "same", &any), (vec![], 0.0));
    assert_eq!(script("", "", &any), (vec![], 0.0));
    let (edits, cost) = script("", "ab", &any);
    assert_eq!(edits, [insert(0, 'a'), insert(0, 'b')]);
    assert_eq!(cost, 2.0 * 2.0);
    let (edits, cost) = script("ab", "", &any);
    assert_eq!(edits, [delete(0), delete(1)]);
    assert_eq!(cost, 2.0 * 3.0);
}

#[test]
fn ties_are_settled_from_the_end() {
    // replacing ties with deleting and inserting
    let (edits, cost) = script("a", "b", &EditCosts::default());
    assert_eq!((edits, cost), (vec![replace(0, 'b')], 2.0));
    // where replacing is out of reach, of the last steps that tie deleting comes first: the
    // insertion then stands before it
    let (edits, _) = script("a", "b", &costs(1.0, 1.0, 3.0));
    assert_eq!(edits, [insert(0, 'b'), delete(0)]);
    // repeated tokens are matched from the end
    let (edits, _) = script("aa", "aaa", &EditCosts::default());
    assert_eq!(edits, [insert(0, 'a')]);
    let (edits, _) = script("aaa", "aa", &EditCosts::default());
    assert_eq!(edits, [delete(0)]);
    // either a or b can stay: from the end, a deletion of the last comes first
    let (edits, _) = script("ab", "ba", &EditCosts::default());
    assert_eq!(edits, [insert(0, 'b'), delete(1)]);
    // unless two replacements are as cheap
    let (edits, _) = script("ab", "ba", &costs(1.0, 1.0, 1.0));
    assert_eq!(edits, [replace(0, 'b'), replace(1, 'a')]);
}

#[test]
fn several_cost_sets_give_the_scripts_that_differ() {
    let (source, target) = ([1, 2, 3, 4], [2, 3, 9]);
    let cheap_replace = costs(1.0, 1.0, 0.5);
    let sets = [
        costs(1.0, 1.0, 1.0),
        costs(2.0, 2.0, 2.0),
        costs(1.0, 1.0, 3.0),
        cheap_replace,
    ];
    let scripts = edit_scripts(&source, &target, &sets).unwrap();
    let edits: Vec<_> = scripts.iter().map(|s| s.edits.clone()).collect();
    assert_eq!(
        edits,
        [
            vec![delete(0), replace(3, 9)],
            vec![delete(0), insert(3, 9), delete(3)],
            // three replacements and one deletion: 2.5; the first way costs 1.5
        ]
    );
    for script in &scripts {
        assert_eq!(script.apply(&source).unwrap(), target);
    }
    // the first of the sets that give it
    assert_eq!(scripts[0], edit_script(&source, &target, &sets[1]).unwrap());
}

#[test]
fn a_script_is_applied_in_one_pass() {
    // several insertions before one token, in their order; the token itself after them
    let script = EditScript {
        edits: vec![
            insert(1, 'x'),
            insert(1, 'y'),
            delete(1),
            insert(2, 'z'),
            replace(3, 'w'),
            insert(4, '!'),
        ],
    };
    let target = script.apply(&['a', 'b', 'c', 'd']).unwrap();
    assert_eq!(target, ['a', 'x', 'y', 'z', 'c', 'w', '!']);
    assert_eq!(script.cost(&costs(1.0, 10.0, 100.0)), 4.0 + 10.0 + 100.0);
    let positions: Vec<usize> = script.edits.iter().map(Edit::position).collect();
    assert_eq!(positions, [1, 1, 1, 2, 3, 4]);
}

#[test]
fn the_sequence_and_what_is_learned_of_it() {
    // source 1 2 3, target 9 1 3 8: put 9 in before 0, take 1 out, put 8 in at 3
    let (source, target) = ([1, 2, 3], [9, 1, 3, 8]);
    let script = edit_script(&source, &target, &EditCosts::default()).unwrap();
    assert_eq!(script.edits, [insert(0, 9), delete(1), insert(3, 8)]);

    let sequence = second_thoughts_sequence(&[7, 7], &source, &script, &TOKENS).unwrap();
    let given = [7, 7, 1, 2, 3, 100];
    let edits = [101, 110, 104, 9, 102, 111, 101, 113, 104, 8, 105];
    assert_eq!(
        sequence.tokens(),
        [&given[..], &edits[..], &target[..]].concat()
    );
    assert_eq!(
        sequence.mask(),
        [vec![0; given.len()], vec![1; edits.len() + target.len()]].concat()
    );
    assert_eq!(
        second_thoughts_prompt(&[7, 7], &source, &TOKENS).unwrap(),
        given
    );
}

#[test]
fn a_sequence_of_nothing_still_says_that_there_is_nothing_to_edit() {
    let none = EditScript { edits: vec![] };
    let sequence = second_thoughts_sequence(&[], &[], &none, &TOKENS).unwrap();
    assert_eq!(sequence.tokens(), [100, 105]);
    assert_eq!(sequence.mask(), [0, 1]);
    // a source that is right is repeated
    let sequence = second_thoughts_sequence(&[], &[5, 6], &none, &TOKENS).unwrap();
    assert_eq!(sequence.tokens(), [5, 6, 100, 105, 5, 6]);
}

#[test]
fn positions_are_written_in_decimal_digits() {
    let script = EditScript {
        edits: vec![delete(0), delete(9), delete(10), replace(1234, 55)],
    };
    #[rustfmt::skip]
    let written = [
        102, 110,   102, 119,   102, 111, 110,
        103, 111, 112, 113, 114, 104, 55,   105,
    ];
    assert_eq!(TOKENS.write(&script).unwrap(), written);
    assert_eq!(TOKENS.parse(&written).unwrap(), (script, &[][..]));
}

#[test]
fn what_was_generated_is_read_up_to_its_target() {
    // contents may be special tokens, and so may the target
    let script = EditScript {
        edits: vec![insert(0, 105), replace(2, 101), insert(3, 110)],
    };
    let mut generated = TOKENS.write(&script).unwrap();
    generated.extend([105, 101, 3]);
    let (read, rest) = TOKENS.parse(&generated).unwrap();
    assert_eq!(read, script);
    assert_eq!(rest, [105, 101, 3]);
}

#[test]
fn edits_in_plain_language() {
    let encode = |text: &str| -> Result<Vec<u32>> { Ok(text.bytes().map(u32::from).collect()) };
    let letters = |text: &str| text.bytes().map(u32::from).collect::<Vec<u32>>();
    let source = letters("cat");
    let script = EditScript {
        edits: vec![
            insert(0, u32::from(b's')),
            delete(1),
            replace(2, u32::from(b'n')),
        ],
    };
    let want = "Insert \"s\" at position 0.\nDelete \"a\" at position 1.\nReplace \"t\" at position 2 with \"n\".\n";
    assert_eq!(decipher(&script, &source, &encode).unwrap(), letters(want));
    let none = EditScript { edits: vec![] };
    assert!(decipher(&none, &source, &encode).unwrap().is_empty());
}
