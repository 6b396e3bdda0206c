use super::reader::each;
use candle_align::data::mixing::MixingConfig;
use candle_align::data::rankings::merge_ballots;

#[test]
fn ballots_and_mixtures_are_those_of_the_authors_code() {
    each("data_management", |case| {
        if case.name == "ballots" {
            let elections: Vec<(Vec<String>, String)> = case.part("elections");
            assert!(elections.len() > 150);
            for (ballots, want) in elections {
                let letters: Vec<Vec<char>> = ballots.iter().map(|b| b.chars().collect()).collect();
                let merged: String = merge_ballots(&letters)?.into_iter().collect();
                assert_eq!(merged, want, "{ballots:?}");
            }
            return Ok(());
        }
        let config = MixingConfig {
            maximum: case.part("maximum"),
            temperature: case.number("temperature"),
        };
        let rates = config.rates(&case.part::<Vec<usize>>("sizes"))?;
        for (got, want) in rates.iter().zip(case.part::<Vec<f64>>("rates")) {
            assert!((got - want).abs() < 1e-14, "{}: {got} {want}", case.name);
        }
        Ok(())
    });
}
