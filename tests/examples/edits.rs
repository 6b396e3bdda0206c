#[path = "../../examples/edits.rs"]
#[allow(dead_code)]
mod example;

use crate::assert_header_shows;
use candle_align::language::edits::{Edit, EditCosts};
use example::{BAD, GOOD};

/// The least cost by recursion over all ways, without a table.
fn least(source: &[&str], target: &[&str], costs: &EditCosts) -> f64 {
    let (Some((s, source_rest)), Some((t, target_rest))) =
        (source.split_first(), target.split_first())
    else {
        return source.len() as f64 * costs.delete + target.len() as f64 * costs.insert;
    };
    let both = least(source_rest, target_rest, costs) + if s == t { 0.0 } else { costs.replace };
    let delete = least(source_rest, target, costs) + costs.delete;
    let insert = least(source, target_rest, costs) + costs.insert;
    both.min(delete).min(insert)
}

#[test]
fn the_cheapest_program_gives_the_good_answer_and_the_costs_choose_it() {
    let report = example::run().unwrap();
    let (bad, good): (Vec<&str>, Vec<&str>) = (BAD.split(' ').collect(), GOOD.split(' ').collect());
    let replaces = |script: &candle_align::language::edits::EditScript| {
        let replacement = |edit: &&Edit| matches!(edit, Edit::Replace { .. });
        script.edits.iter().filter(replacement).count()
    };
    assert_eq!(report.repairs.len(), 2);
    for (repair, replacements) in report.repairs.iter().zip([2, 0]) {
        assert_eq!(repair.repaired, GOOD);
        assert!(repair.sequence.1.ends_with(&format!(" TARGET {GOOD}")));
        assert_eq!(
            repair.script.cost(&repair.costs),
            least(&bad, &good, &repair.costs)
        );
        assert_eq!(replaces(&repair.script), replacements);
        let even = repair.costs.replace == repair.costs.insert + repair.costs.delete;
        assert_eq!(even, replacements > 0);
    }
    assert_header_shows(include_str!("../../examples/edits.rs"), &report.table());
}
