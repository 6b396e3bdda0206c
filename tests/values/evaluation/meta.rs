use super::close;
use candle_align::evaluation::meta::{
    Correlation, Grouping, KendallVariant, correlate, kendall, pearson, spearman,
};

#[test]
fn correlations_by_hand() {
    let (x, y) = ([1.0, 2.0, 2.0, 5.0], [3.0, 1.0, 4.0, 8.0]);
    // deviations −1.5, −½, −½, 2½ and −1, −3, 0, 4
    let r = (1.5 + 1.5 + 0.0 + 10.0) / (9.0 * 26.0f64).sqrt();
    close(pearson(&x, &y).unwrap(), r);
    // ranks 1, 2½, 2½, 4 and 2, 1, 3, 4
    let rho = (1.5 * 0.5 + 0.0 + 0.0 + 1.5 * 1.5) / (4.5 * 5.0f64).sqrt();
    close(spearman(&x, &y).unwrap(), rho);
    // of six pairs four agree, one disagrees, one ties in x
    close(
        kendall(&x, &y, KendallVariant::B).unwrap(),
        3.0 / (5.0 * 6.0f64).sqrt(),
    );
    // three different values in x: 2 · 3/(16 · 2/3)
    close(
        kendall(&x, &y, KendallVariant::C).unwrap(),
        2.0 * 3.0 / (16.0 * 2.0 / 3.0),
    );
}

#[test]
fn levels_of_a_correlation_by_hand() {
    let metric = [
        vec![1.0, 2.0, 3.0],
        vec![5.0, 4.0, 6.0],
        vec![7.0, 7.0, 7.0],
    ];
    let human = [
        vec![1.0, 2.0, 4.0],
        vec![1.0, 2.0, 3.0],
        vec![1.0, 9.0, 2.0],
    ];
    let of = |level| correlate(&metric, &human, Correlation::KendallB, level).unwrap();
    // 1 and 1/3; the third input has one score for all
    close(of(Grouping::Sample), (1.0 + 1.0 / 3.0) / 2.0);
    // means 13/3, 13/3, 16/3 and 1, 13/3, 3
    close(
        of(Grouping::System),
        kendall(&[13.0, 13.0, 16.0], &[3.0, 13.0, 9.0], KendallVariant::B).unwrap(),
    );
    let flat = |rows: &[Vec<f64>]| rows.concat();
    let all = kendall(&flat(&metric), &flat(&human), KendallVariant::B).unwrap();
    close(of(Grouping::Dataset), all);
    let one = |correlation| {
        correlate(&metric[1..2], &human[1..2], correlation, Grouping::Sample).unwrap()
    };
    close(
        one(Correlation::Pearson),
        pearson(&metric[1], &human[1]).unwrap(),
    );
    close(
        one(Correlation::Spearman),
        spearman(&metric[1], &human[1]).unwrap(),
    );
    close(
        one(Correlation::KendallC),
        kendall(&metric[1], &human[1], KendallVariant::C).unwrap(),
    );
}
