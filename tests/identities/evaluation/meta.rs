use super::{config, is_close, reversed};
use candle_align::evaluation::meta::{
    Correlation, Grouping, KendallVariant, correlate, kendall, pearson, spearman,
};
use proptest::collection::vec;
use proptest::prelude::*;

const ALL: [Correlation; 4] = [
    Correlation::Pearson,
    Correlation::Spearman,
    Correlation::KendallB,
    Correlation::KendallC,
];

fn of(correlation: Correlation, x: &[f64], y: &[f64]) -> candle_align::Result<f64> {
    match correlation {
        Correlation::Pearson => pearson(x, y),
        Correlation::Spearman => spearman(x, y),
        Correlation::KendallB => kendall(x, y, KendallVariant::B),
        Correlation::KendallC => kendall(x, y, KendallVariant::C),
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn correlations_are_symmetric_and_know_no_order(pairs in vec((0..6u8, 0..6u8), 3..20)) {
        let (x, y): (Vec<f64>, Vec<f64>) = pairs.iter().map(|(a, b)| (f64::from(*a), f64::from(*b))).unzip();
        for correlation in ALL {
            let Ok(value) = of(correlation, &x, &y) else { continue };
            prop_assert!((-1.0..=1.0).contains(&value));
            prop_assert!(is_close(value, of(correlation, &y, &x).unwrap(), 1e-12));
            prop_assert!(is_close(value, of(correlation, &reversed(&x), &reversed(&y)).unwrap(), 1e-12));
            let moved: Vec<f64> = x.iter().map(|v| 7.0 - 3.0 * v).collect();
            prop_assert!(is_close(value, -of(correlation, &moved, &y).unwrap(), 1e-12));
            // orders alone count, but for Pearson
            let cubed: Vec<f64> = x.iter().map(|v| v * v * v).collect();
            prop_assert!(correlation == Correlation::Pearson || is_close(value, of(correlation, &cubed, &y).unwrap(), 1e-12));
        }
    }

    #[test]
    fn one_input_is_the_same_at_every_level(pairs in vec((0..6u8, 0..6u8), 3..20), shift in -5.0..5.0f64) {
        let (x, y): (Vec<f64>, Vec<f64>) = pairs.iter().map(|(a, b)| (f64::from(*a), f64::from(*b))).unzip();
        for correlation in ALL {
            let Ok(value) = of(correlation, &x, &y) else { continue };
            let (metric, human) = (std::slice::from_ref(&x), std::slice::from_ref(&y));
            for level in [Grouping::Sample, Grouping::System, Grouping::Dataset] {
                prop_assert!(is_close(value, correlate(metric, human, correlation, level).unwrap(), 1e-12));
            }
            // a number added to one input's scores does not matter at the sample level
            let moved: Vec<f64> = x.iter().map(|v| v + shift).collect();
            let two = correlate(&[x.clone(), moved], &[y.clone(), y.clone()], correlation, Grouping::Sample);
            prop_assert!(is_close(value, two.unwrap(), 1e-9));
        }
    }
}

#[test]
fn kendalls_variants_agree_without_ties() {
    let (x, y) = ([3.0, 1.0, 2.0, 4.0], [1.0, 2.0, 3.0, 4.0]);
    let tau = |variant| kendall(&x, &y, variant).unwrap();
    assert!((tau(KendallVariant::B) - tau(KendallVariant::C)).abs() < 1e-15);
    // no square overflows
    let far = [1e200, 2e200, -1e200, 5e200];
    assert!((pearson(&far, &far).unwrap() - 1.0).abs() < 1e-15);
}
