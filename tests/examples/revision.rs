#[path = "../../examples/revision.rs"]
#[allow(dead_code, clippy::duplicate_mod)]
mod example;

use crate::assert_header_shows;

/// What gradient descent reaches where the objective is smooth and strictly convex.
const REACHED: f64 = 1e-9;

#[test]
fn what_is_learned_of_a_chain_decides_whether_mistakes_are() {
    let report = example::run().unwrap();
    let undoubted = 0.4 / (0.4 + 0.6 * 0.25);
    let (repaired, all, programs) = (Some(0.9), [Some(0.4), Some(0.75)], Some(0.4));
    let want = [
        ("add [a-b wrong a+b right .]", all[0], all[1]),
        ("add . [a-b . wrong . a+b . right .]", all[0], all[1]),
        ("add . [a-b .] wrong . [a+b .] right .", programs, None),
        ("add . a-b . wrong . [a+b .] right .", Some(undoubted), None),
        ("add . a-b . wrong . [a+b .] right .", Some(undoubted), None),
    ];
    assert_eq!(report.ways.len(), want.len());
    for (way, (chain, first, verdict)) in report.ways.iter().zip(want) {
        assert_eq!(way.chain, chain, "{}", way.name);
        for (got, want) in way.learned.iter().zip([first, verdict, repaired]) {
            match (got, want) {
                (Some(got), Some(want)) => {
                    assert!((got - want).abs() < REACHED, "{}: {got} {want}", way.name)
                }
                _ => assert_eq!(*got, want, "{}", way.name),
            }
        }
    }
    // a pass of a model of whole chains: right at once, or wrong, seen and repaired
    let [Some(first), Some(seen), Some(repair)] = report.ways[0].learned else {
        panic!("all of it is learned");
    };
    let right = first + (1.0 - first) * seen * repair;
    assert!((right - 0.805).abs() < REACHED, "{right}");
    // and the data are what the header says
    let shares = example::CHAINS.map(|(_, share)| share);
    assert!((shares.iter().sum::<f64>() - 1.0).abs() < REACHED);
    assert_header_shows(include_str!("../../examples/revision.rs"), &report.table());
}
