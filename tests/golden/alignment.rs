//! Stable Alignment and the cheapest edits, against the papers' definitions in scalars.

use super::EXACT;
use super::ranking::{candidates, check_list};
use super::reader::each;
use candle_align::language::edits::{EditCosts, edit_script};
use candle_align::{StableAlignmentConfig, StableAlignmentForm, stable_alignment_loss};
use candle_core::{Device, Tensor};

#[test]
fn stable_alignment() {
    each("stable_alignment", |case| {
        let config = StableAlignmentConfig {
            margin: case.number("margin"),
            ratio: case.number("ratio"),
            rating_scale: case.number("scale"),
            form: match case.word("form") {
                "mean" => StableAlignmentForm::Mean,
                "max" => StableAlignmentForm::Max,
                other => panic!("{}: {other}", case.name),
            },
        };
        let (values, candidates) = candidates(case)?;
        check_list(case, &stable_alignment_loss(&candidates, &config)?, &values)
    });
}

#[test]
fn the_cheapest_edits() {
    each("edit_script", |case| {
        let source = case.index("source")?.to_vec1::<u32>()?;
        let target = case.index("target")?.to_vec1::<u32>()?;
        let mut found = Vec::new();
        for costs in case.input("costs")?.to_vec2::<f64>()? {
            let costs = EditCosts {
                insert: costs[0],
                delete: costs[1],
                replace: costs[2],
            };
            let script = edit_script(&source, &target, &costs)?;
            assert_eq!(script.apply(&source)?, target, "{}", case.name);
            found.push(script.cost(&costs));
        }
        case.check("cost", &Tensor::new(found, &Device::Cpu)?, EXACT)
    });
}
