use crate::common::adapted::*;
use crate::common::lora::*;
use crate::common::{EXACT, assert_close, numbers, vector};
use candle_align::parameter_efficient::{Adapter, Ia3Linear, Ia3Place};
use candle_core::DType;
use candle_nn::{Linear, Module};

#[test]
fn one_factor_for_all_is_the_same_in_both_places() {
    let bare = Linear::new(tensor(&WEIGHT), None);
    let h = |place| {
        let layer = Ia3Linear::new(&bare, place).unwrap();
        let two = (layer.scale().ones_like().unwrap() * 2.5).unwrap();
        set(layer.scale(), two);
        numbers(&layer.forward(&tensor(&X)).unwrap())
    };
    assert_close(&h(Ia3Place::Output), &h(Ia3Place::Input), EXACT, "h");
}

#[test]
fn the_factors_of_one_layers_output_are_those_of_the_next_layers_input() {
    let first = Ia3Linear::new(&base(DType::F64), Ia3Place::Output).unwrap();
    let next = Linear::new(irregular(&[2, 3]), None);
    let last = Ia3Linear::new(&next, Ia3Place::Input).unwrap();
    set(first.scale(), vector(&OUTPUT_SCALE));
    let want = next.forward(&first.forward(&tensor(&X)).unwrap()).unwrap();
    set(last.scale(), vector(&OUTPUT_SCALE));
    let got = last
        .forward(&base(DType::F64).forward(&tensor(&X)).unwrap())
        .unwrap();
    assert_close(&numbers(&got), &numbers(&want), EXACT, "h");
}

#[test]
fn a_factor_of_zero_can_be_merged_and_unmerged() {
    for place in [Ia3Place::Output, Ia3Place::Input] {
        let mut layer = ia3(place, DType::F32);
        let zero = layer.scale().zeros_like().unwrap();
        layer.scale().set(&zero).unwrap();
        let x = tensor(&X).to_dtype(DType::F32).unwrap();
        layer.merge().unwrap();
        let want = match place {
            Ia3Place::Output => [0.0; 3],
            Ia3Place::Input => BIAS,
        };
        let y = numbers(&layer.forward(&x).unwrap());
        assert_close(&y[..3], &want, 1e-7, "merged");
        layer.unmerge();
        let ones = zero.ones_like().unwrap();
        layer.scale().set(&ones).unwrap();
        let y = layer.forward(&x).unwrap();
        assert_eq!(bits(&y), bits(&layer.base().forward(&x).unwrap()));
    }
}

#[test]
fn it_is_linear_in_its_factors() {
    for place in [Ia3Place::Output, Ia3Place::Input] {
        let bare = Linear::new(tensor(&WEIGHT), None);
        let layer = Ia3Linear::new(&bare, place).unwrap();
        let n = layer.scale().elem_count();
        let h = |l: &[f64]| {
            set(layer.scale(), vector(&l[..n]));
            numbers(&layer.forward(&tensor(&X)).unwrap())
        };
        let (one, other) = ([1.5, -0.5, 2.0, 0.25], [0.3, 0.9, -1.0, 4.0]);
        let sum: Vec<f64> = one.iter().zip(other).map(|(a, b)| 2.0 * a + b).collect();
        let want: Vec<f64> = h(&one)
            .iter()
            .zip(h(&other))
            .map(|(a, b)| 2.0 * a + b)
            .collect();
        assert_close(&h(&sum), &want, 4.0 * EXACT, "h");
    }
}
