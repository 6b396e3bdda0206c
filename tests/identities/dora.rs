use crate::common::adapted::*;
use crate::common::adapters::objective;
use crate::common::lora::*;
use crate::common::{EXACT, assert_close, numbers, vector};
use candle_align::parameter_efficient::{DoraLinear, LinearAdapter, LoraConfig, Scaling};
use candle_core::{DType, Tensor};
use candle_nn::{Linear, Module};

#[test]
fn where_m_is_the_norm_it_is_lora() {
    for scaling in [Scaling::Rank, Scaling::RankSqrt] {
        let config = LoraConfig {
            scaling,
            ..config()
        };
        let layer = dora(&config, DType::F64);
        layer.magnitude().set(&layer.norm().unwrap()).unwrap();
        let lora = trained(&config, DType::F64);
        let (x, y) = (var(&tensor(&X)), var(&tensor(&X)));
        let (got, want) = (layer.forward(&x).unwrap(), lora.forward(&y).unwrap());
        assert_close(&numbers(&got), &numbers(&want), EXACT, "h");
        let (got, want) = (
            objective(&got).backward().unwrap(),
            objective(&want).backward().unwrap(),
        );
        // the norm is constant, so the gradients are LoRA's too
        for (mine, other) in [(layer.a(), lora.a()), (layer.b(), lora.b()), (&x, &y)] {
            let (mine, other) = (got.get(mine).unwrap(), want.get(other).unwrap());
            let size = numbers(other).iter().fold(1.0f64, |m, g| m.max(g.abs()));
            assert_close(&numbers(mine), &numbers(other), EXACT * size, "gradients");
        }
        let (got, want) = (
            layer.merged_linear().unwrap(),
            lora.merged_linear().unwrap(),
        );
        assert_close(
            &numbers(got.weight()),
            &numbers(want.weight()),
            EXACT,
            "merged",
        );
    }
}

#[test]
fn at_its_start_a_does_not_move() {
    let layer = DoraLinear::new(&base(DType::F64), &config(), &mut rng(7)).unwrap();
    let grads = layer
        .forward(&tensor(&X))
        .unwrap()
        .sqr()
        .unwrap()
        .backward()
        .unwrap();
    assert_eq!(numbers(grads.get(layer.a()).unwrap()), [0.0; 8]);
    for var in [layer.b(), layer.magnitude()] {
        assert!(numbers(grads.get(var).unwrap()).iter().all(|g| *g != 0.0));
    }
}

#[test]
fn the_length_of_a_row_of_v_does_not_count() {
    // c·W₀ beside c·B and m: the same layer
    let c = 2.5;
    let wide = Linear::new((tensor(&WEIGHT) * c).unwrap(), Some(vector(&BIAS)));
    let other = DoraLinear::new(&wide, &config(), &mut rng(7)).unwrap();
    set(other.a(), tensor(&A));
    set(other.b(), (tensor(&B) * c).unwrap());
    set(other.magnitude(), vector(&MAGNITUDE));
    let layer = dora(&config(), DType::F64);
    let (got, want) = (
        other.forward(&tensor(&X)).unwrap(),
        layer.forward(&tensor(&X)).unwrap(),
    );
    assert_close(&numbers(&got), &numbers(&want), EXACT, "h");
}

#[test]
fn the_output_without_bias_is_linear_in_m() {
    let bare = Linear::new(tensor(&WEIGHT), None);
    let layer = DoraLinear::new(&bare, &config(), &mut rng(7)).unwrap();
    set(layer.b(), tensor(&B));
    let y = |m: Tensor| {
        set(layer.magnitude(), m);
        numbers(&layer.forward(&tensor(&X)).unwrap())
    };
    let (once, thrice) = (
        y(vector(&MAGNITUDE)),
        y((vector(&MAGNITUDE) * 3.0).unwrap()),
    );
    let want: Vec<f64> = once.iter().map(|h| 3.0 * h).collect();
    assert_close(&thrice, &want, EXACT, "3m");
    assert_eq!(y(vector(&[0.0; 3])), [0.0; 6]);
}
