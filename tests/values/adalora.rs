use crate::common::adapted::*;
use crate::common::adapters::{assert_gradients, objective};
use crate::common::lora::*;
use crate::common::{EXACT, assert_close, dot, matrix, numbers, vector};
use candle_align::parameter_efficient::{
    AdaLoraConfig, AdaLoraLinear, AdaLoraScaling, Adapter, Orthogonality, RankAllocator,
    RankAllocatorConfig, orthogonality_penalty,
};
use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor};
use candle_nn::{Linear, Module};
use rand::Rng;

/// W x + b + s · P Λ Q x̃ in plain numbers.
fn by_hand(x: &[f64], dropped: &[f64], s: f64) -> Vec<f64> {
    (0..3)
        .map(|o| {
            let triplet = |i: usize| B[o][i] * LAMBDA[i] * dot(&A[i], dropped);
            dot(&WEIGHT[o], x) + BIAS[o] + s * (triplet(0) + triplet(1))
        })
        .collect()
}

#[test]
fn the_output_is_the_base_plus_the_scaled_triplets() {
    for (scaling, s) in [
        (AdaLoraScaling::RankWithEpsilon, 3.0 / (2.0 + 1e-5)),
        (AdaLoraScaling::Rank, 3.0 / 2.0),
    ] {
        let config = AdaLoraConfig {
            scaling,
            ..ada_config()
        };
        let layer = ada(&config, DType::F64);
        assert_eq!((config.scale(), layer.scale()), (s, s));
        let y = layer.forward(&tensor(&X)).unwrap();
        let want: Vec<f64> = X.iter().flat_map(|x| by_hand(x, x, s)).collect();
        assert_close(&numbers(&y), &want, EXACT, "h");
        // s · P Λ Q
        let want: Vec<f64> = (0..3)
            .flat_map(|o| (0..4).map(move |i| (o, i)))
            .map(|(o, i)| s * (0..2).map(|k| B[o][k] * LAMBDA[k] * A[k][i]).sum::<f64>())
            .collect();
        assert_close(&numbers(&layer.delta().unwrap()), &want, EXACT, "delta");
    }
}

#[test]
fn dropout_acts_on_the_input_of_the_triplets() {
    let p = 0.4;
    let config = AdaLoraConfig {
        dropout: p,
        ..ada_config()
    };
    let layer = ada(&config, DType::F64);
    let (mut once, mut again) = (rng(5), rng(5));
    let y = layer.forward_train(&tensor(&X), &mut once).unwrap();
    let mut dropped = 0;
    let want: Vec<f64> = X
        .iter()
        .flat_map(|x| {
            let kept = x.map(|x| match again.random_bool(p) {
                true => {
                    dropped += 1;
                    0.0
                }
                false => x / (1.0 - p),
            });
            by_hand(x, &kept, layer.scale())
        })
        .collect();
    assert!(dropped > 0 && dropped < 8);
    assert_close(&numbers(&y), &want, EXACT, "h");
}

#[test]
fn gradients_are_central_differences() {
    for dropout in [0.0, 0.3] {
        for shape in [&[2, 4][..], &[2, 3, 4]] {
            let config = AdaLoraConfig {
                dropout,
                ..ada_config()
            };
            let start = AdaLoraLinear::new(&base(DType::F64), &config, &mut rng(7)).unwrap();
            for layer in [ada(&config, DType::F64), start] {
                let x = var(&irregular(shape));
                let mut vars = layer.trainable("");
                vars.push(("x".to_string(), x.clone()));
                assert_gradients(&format!("{dropout} {shape:?}"), &vars, || {
                    objective(&layer.forward_train(&x, &mut rng(3)).unwrap())
                });
            }
        }
    }
}

#[test]
fn at_its_start_only_the_singular_values_move() {
    let layer = AdaLoraLinear::new(&base(DType::F64), &ada_config(), &mut rng(7)).unwrap();
    let y = layer.forward(&tensor(&X)).unwrap();
    let grads = y.sqr().unwrap().backward().unwrap();
    assert_eq!(numbers(grads.get(layer.p()).unwrap()), [0.0; 6]);
    assert_eq!(numbers(grads.get(layer.q()).unwrap()), [0.0; 8]);
    let lambda = numbers(grads.get(layer.lambda()).unwrap());
    assert!(lambda.iter().all(|g| *g != 0.0), "{lambda:?}");
}

#[test]
fn singular_vectors_start_as_narrow_gaussians() {
    let base = Linear::new(irregular(&[150, 400]), None);
    let config = AdaLoraConfig {
        rank: 40,
        ..ada_config()
    };
    let layer = AdaLoraLinear::new(&base, &config, &mut rng(3)).unwrap();
    for var in [layer.p(), layer.q()] {
        let x = numbers(var);
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let variance = x.iter().map(|x| x * x).sum::<f64>() / n;
        // four standard errors
        assert!(mean.abs() < 4.0 * 0.02 / n.sqrt(), "{mean}");
        let error = 4.0 * (2.0 / n).sqrt() * 0.02 * 0.02;
        assert!((variance - 0.02 * 0.02).abs() < error, "{variance}");
    }
    assert!(numbers(layer.lambda()).iter().all(|l| *l == 0.0));
    assert_eq!(
        (layer.p().dims(), layer.q().dims()),
        (&[150, 40][..], &[40, 400][..])
    );
    assert_eq!((layer.lambda().dims(), layer.rank()), (&[40, 1][..], 40));
}

// ---- the penalty

/// ‖M − I‖² of a matrix of inner products of the vectors.
fn distance(vectors: &[Vec<f64>]) -> f64 {
    let mut sum = 0.0;
    for (i, a) in vectors.iter().enumerate() {
        for (j, b) in vectors.iter().enumerate() {
            sum += (dot(a, b) - if i == j { 1.0 } else { 0.0 }).powi(2);
        }
    }
    sum
}

#[test]
fn the_penalty_is_the_distance_from_orthonormal_vectors() {
    let first = ada(&ada_config(), DType::F64);
    let config = AdaLoraConfig {
        rank: 1,
        ..ada_config()
    };
    let other = AdaLoraLinear::new(&base(DType::F64), &config, &mut rng(2)).unwrap();
    set(other.p(), vector(&[0.3, -0.4, 1.2]));
    set(other.q(), vector(&[0.5, 0.5, -0.5, 0.9]));
    let distances = [
        distance(&A.map(|a| a.to_vec())),
        distance(&[0, 1].map(|i| B.iter().map(|b| b[i]).collect())),
        distance(&[vec![0.3, -0.4, 1.2]]),
        distance(&[vec![0.5, 0.5, -0.5, 0.9]]),
    ];
    let penalty = |form| numbers(&orthogonality_penalty(&[&first, &other], form).unwrap());
    let squared = distances.iter().sum::<f64>();
    assert_close(
        &penalty(Orthogonality::SquaredSum),
        &[squared],
        EXACT,
        "squared",
    );
    let mean = distances.iter().map(|d| d.sqrt()).sum::<f64>() / 4.0;
    assert_close(&penalty(Orthogonality::NormMean), &[mean], EXACT, "norm");

    for form in [Orthogonality::SquaredSum, Orthogonality::NormMean] {
        let mut vars = first.trainable("first");
        vars.retain(|(name, _)| !name.ends_with("lora_E"));
        vars.push(("p".to_string(), other.p().clone()));
        vars.push(("q".to_string(), other.q().clone()));
        assert_gradients(&format!("{form:?}"), &vars, || {
            orthogonality_penalty(&[&first, &other], form).unwrap()
        });
        let penalty = orthogonality_penalty(&[&first, &other], form).unwrap();
        assert_eq!(penalty.rank(), 0);
        let grads = penalty.backward().unwrap();
        assert!(grads.get(first.lambda()).is_none());
    }
}

#[test]
fn at_orthonormal_vectors_the_penalty_and_its_gradient_are_zero() {
    let layer = ada(&ada_config(), DType::F64);
    set(layer.p(), matrix(&[&[0.0, 1.0], &[-1.0, 0.0], &[0.0, 0.0]]));
    set(
        layer.q(),
        matrix(&[&[0.0, 0.0, 1.0, 0.0], &[1.0, 0.0, 0.0, 0.0]]),
    );
    for form in [Orthogonality::SquaredSum, Orthogonality::NormMean] {
        let penalty = orthogonality_penalty(&[&layer], form).unwrap();
        assert_eq!(numbers(&penalty), [0.0]);
        let grads = penalty.backward().unwrap();
        assert_eq!(numbers(grads.get(layer.p()).unwrap()), [0.0; 6], "{form:?}");
        assert_eq!(numbers(grads.get(layer.q()).unwrap()), [0.0; 8], "{form:?}");
    }
}

#[test]
fn at_the_start_the_penalty_is_the_number_of_vectors() {
    // P and Q of zeros: ‖−I‖² = r for each of 2n matrices
    let layer = ada(&ada_config(), DType::F64);
    for var in [layer.p(), layer.q()] {
        var.set(&var.zeros_like().unwrap()).unwrap();
    }
    let both = [&layer, &layer];
    let penalty = |form| numbers(&orthogonality_penalty(&both, form).unwrap());
    assert_eq!(penalty(Orthogonality::SquaredSum), [2.0 * 2.0 * 2.0]);
    assert_close(
        &penalty(Orthogonality::NormMean),
        &[2f64.sqrt()],
        EXACT,
        "√r",
    );
}

// ---- the allocator

/// λᵢ, Pᵢ and Qᵢ.
type Triplet = (f64, [f64; 2], [f64; 2]);

/// A layer of 2 inputs and 2 outputs whose factors are these: of triplet i, λᵢ, Pᵢ and Qᵢ.
fn small(triplets: &[Triplet]) -> AdaLoraLinear {
    let config = AdaLoraConfig {
        rank: triplets.len(),
        ..ada_config()
    };
    let base = Linear::new(matrix(&[&[1.0, 0.0], &[0.0, 1.0]]), None);
    let layer = AdaLoraLinear::new(&base, &config, &mut rng(1)).unwrap();
    let rows = |row: fn(&Triplet) -> [f64; 2]| {
        let data: Vec<f64> = triplets.iter().flat_map(row).collect();
        vector(&data).reshape((triplets.len(), 2)).unwrap()
    };
    let lambda: Vec<f64> = triplets.iter().map(|t| t.0).collect();
    set(layer.lambda(), vector(&lambda));
    layer
        .p()
        .set(&rows(|t| t.1).t().unwrap().contiguous().unwrap())
        .unwrap();
    layer.q().set(&rows(|t| t.2)).unwrap();
    layer
}

/// Gradients of every factor that are these numbers times its elements' places 1, 2, 3, …
fn gradients(layers: &[(String, AdaLoraLinear)], slopes: &[f64]) -> GradStore {
    let mut loss = Tensor::zeros((), DType::F64, &candle_core::Device::Cpu).unwrap();
    for ((_, layer), slope) in layers.iter().zip(slopes) {
        for (_, var) in layer.trainable("") {
            let n = var.elem_count();
            let places = Tensor::arange(1.0, n as f64 + 1.0, var.device()).unwrap();
            let places = (places.reshape(var.shape()).unwrap() * *slope).unwrap();
            loss = (loss + (var.as_tensor() * places).unwrap().sum_all().unwrap()).unwrap();
        }
    }
    loss.backward().unwrap()
}

fn named(layers: Vec<AdaLoraLinear>) -> Vec<(String, AdaLoraLinear)> {
    let names = ["a", "b", "c"].map(str::to_string);
    names.into_iter().zip(layers).collect()
}

/// No warming up, no end: the next call prunes.
fn at_once(target_rank: usize) -> RankAllocatorConfig {
    RankAllocatorConfig {
        target_rank,
        total_steps: 10,
        ..Default::default()
    }
}

#[test]
fn the_budget_falls_as_the_reference_run_of_peft() {
    let layers = named(vec![
        small(&[(1.0, [1.0, 0.0], [1.0, 0.0]); 4]),
        small(&[(1.0, [1.0, 0.0], [1.0, 0.0]); 4]),
    ]);
    let config = RankAllocatorConfig {
        target_rank: 2,
        initial_steps: 3,
        final_steps: 5,
        total_steps: 20,
        interval: 2,
        ..Default::default()
    };
    let allocator = RankAllocator::new(&layers, &config).unwrap();
    let budgets: Vec<usize> = (0..=21).map(|t| allocator.budget(t)).collect();
    assert_eq!(
        budgets,
        [
            8, 8, 8, 8, 7, 6, 5, 5, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4
        ]
    );
}

#[test]
fn the_budget_is_the_floor_of_the_exact_cube() {
    // b⁰ − bᵀ = 27 and c = k/3: whole numbers, where a rounded cube can fall one below
    let layers = named(vec![small(&[(1.0, [1.0, 0.0], [1.0, 0.0]); 28])]);
    let config = RankAllocatorConfig {
        target_rank: 1,
        initial_steps: 0,
        final_steps: 0,
        total_steps: 3,
        ..Default::default()
    };
    let allocator = RankAllocator::new(&layers, &config).unwrap();
    let budgets: Vec<usize> = (0..=4).map(|t| allocator.budget(t)).collect();
    assert_eq!(budgets, [1 + 27, 1 + 8, 1 + 1, 1, 1]);
    // in the middle of a longer run, and never rising
    let config = RankAllocatorConfig {
        total_steps: 1000,
        initial_steps: 100,
        final_steps: 200,
        ..config
    };
    let allocator = RankAllocator::new(&layers, &config).unwrap();
    let all: Vec<usize> = (0..1000).map(|t| allocator.budget(t)).collect();
    assert!(all.is_sorted_by(|a, b| a >= b));
    assert_eq!((all[100], all[799], all[800]), (28, 1, 1));
    let c: f64 = 1.0 - 250.0 / 700.0;
    assert_eq!(all[350], 1 + (27.0 * c * c * c) as usize);
    // as long as numbers go: the cubes no longer fit, and halfway is an eighth
    let config = RankAllocatorConfig {
        total_steps: usize::MAX - 1,
        initial_steps: 0,
        final_steps: 0,
        ..config
    };
    let allocator = RankAllocator::new(&layers, &config).unwrap();
    assert_eq!(allocator.budget(0), 28);
    let c: f64 = 0.75;
    assert_eq!(
        allocator.budget(usize::MAX / 4),
        1 + (27.0 * c * c * c) as usize
    );
    assert_eq!(allocator.budget((usize::MAX - 1) / 2), 1 + 27 / 8);
    assert_eq!(allocator.budget(usize::MAX), 1);
}

#[test]
fn a_score_is_smoothed_sensitivity_times_uncertainty_summed_over_the_triplet() {
    let (beta1, beta2) = (0.7, 0.4);
    let config = RankAllocatorConfig {
        beta1,
        beta2,
        initial_steps: 5,
        ..at_once(1)
    };
    let triplets = [
        (0.5, [1.0, -2.0], [0.25, 3.0]),
        (-1.5, [0.5, 0.75], [-1.0, 2.0]),
    ];
    let layers = named(vec![small(&triplets)]);
    let mut allocator = RankAllocator::new(&layers, &config).unwrap();
    let slopes = [1.0, -3.0, 0.5];
    for (step, slope) in slopes.iter().enumerate() {
        let done = allocator
            .update(step, &gradients(&layers, &[*slope]))
            .unwrap();
        assert_eq!((done.budget, done.pruned), (2, false));
    }
    // one element w whose gradients are g·slope, one after the other
    let score = |w: f64, g: f64| {
        let (mut mean, mut off) = (0.0, 0.0);
        for slope in slopes {
            let now = (w * g * slope).abs();
            mean = beta1 * mean + (1.0 - beta1) * now;
            off = beta2 * off + (1.0 - beta2) * (now - mean).abs();
        }
        mean * off
    };
    // places: λ (1, 2)ᵀ; P is [out, rank], row by row; Q is [rank, in]
    let want: Vec<f64> = (0..2)
        .map(|i| {
            let (lambda, p, q) = triplets[i];
            let place = i as f64;
            score(lambda, 1.0 + place)
                + (score(p[0], 1.0 + place) + score(p[1], 3.0 + place)) / 2.0
                + (score(q[0], 1.0 + 2.0 * place) + score(q[1], 2.0 + 2.0 * place)) / 2.0
        })
        .collect();
    let scores = allocator.scores().unwrap();
    assert_eq!(scores[0].0, "a");
    assert_close(&scores[0].1, &want, EXACT, "S");
}

#[test]
fn the_greatest_scores_of_all_layers_are_kept_and_the_vectors_stay() {
    // scores grow with |w|: of five triplets the third and the fourth are the strongest
    let unit = |size: f64| (size, [size, size], [size, size]);
    let layers = named(vec![
        small(&[unit(1.0), unit(2.0), unit(8.0)]),
        small(&[unit(9.0), unit(0.5)]),
    ]);
    let config = RankAllocatorConfig {
        final_steps: 9,
        ..at_once(1)
    };
    let mut allocator = RankAllocator::new(&layers, &config).unwrap();
    assert!(
        allocator
            .kept()
            .iter()
            .all(|(_, kept)| kept.iter().all(|k| *k))
    );
    let before: Vec<_> = layers
        .iter()
        .map(|(_, l)| (bits(l.p()), bits(l.q())))
        .collect();
    allocator
        .update(0, &gradients(&layers, &[1.0, 1.0]))
        .unwrap();
    let done = allocator
        .update(1, &gradients(&layers, &[1.0, 1.0]))
        .unwrap();
    assert_eq!((done.budget, done.pruned), (2, true));
    let kept = allocator.kept();
    assert_eq!(kept[0], ("a".to_string(), vec![false, false, true]));
    assert_eq!(kept[1], ("b".to_string(), vec![true, false]));
    assert_eq!(numbers(layers[0].1.lambda()), [0.0, 0.0, 8.0]);
    assert_eq!(numbers(layers[1].1.lambda()), [9.0, 0.0]);
    let after: Vec<_> = layers
        .iter()
        .map(|(_, l)| (bits(l.p()), bits(l.q())))
        .collect();
    assert_eq!(before, after);
}

#[test]
fn equal_scores_go_to_the_earlier_and_the_budget_is_kept_exactly() {
    let same = (1.0, [1.0, 1.0], [1.0, 1.0]);
    // slopes of 0: all scores are 0
    let layers = named(vec![small(&[same; 3]), small(&[same; 3])]);
    let config = RankAllocatorConfig {
        final_steps: 9,
        ..at_once(2)
    };
    let mut allocator = RankAllocator::new(&layers, &config).unwrap();
    allocator
        .update(0, &gradients(&layers, &[0.0, 0.0]))
        .unwrap();
    allocator
        .update(1, &gradients(&layers, &[0.0, 0.0]))
        .unwrap();
    assert_eq!(numbers(layers[0].1.lambda()), [1.0, 1.0, 1.0]);
    assert_eq!(numbers(layers[1].1.lambda()), [1.0, 0.0, 0.0]);
}

#[test]
fn pruning_happens_in_intervals_and_for_good_at_the_end() {
    let unit = |size: f64| (size, [size, size], [size, size]);
    let config = RankAllocatorConfig {
        target_rank: 1,
        initial_steps: 4,
        interval: 4,
        final_steps: 5,
        total_steps: 20,
        ..Default::default()
    };
    let layers = named(vec![small(&[unit(1.0), unit(2.0), unit(3.0)])]);
    let mut allocator = RankAllocator::new(&layers, &config).unwrap();
    let pruned: Vec<usize> = (0..=20)
        .filter(|&step| {
            allocator
                .update(step, &gradients(&layers, &[1.0]))
                .unwrap()
                .pruned
        })
        .collect();
    assert_eq!(pruned, [8, 12, 15, 16, 17, 18, 19, 20]);
}

#[test]
fn a_pruned_triplet_can_return_until_the_ranks_are_final() {
    let unit = |size: f64| (size, [size, size], [size, size]);
    let config = RankAllocatorConfig {
        target_rank: 0,
        final_steps: 2,
        total_steps: 12,
        beta1: 0.2,
        beta2: 0.2,
        ..Default::default()
    };
    let layers = named(vec![
        small(&[unit(1.0)]),
        small(&[unit(2.0)]),
        small(&[unit(3.0)]),
    ]);
    let mut allocator = RankAllocator::new(&layers, &config).unwrap();
    let kept = |allocator: &RankAllocator| -> Vec<bool> {
        let kept = allocator.kept().into_iter();
        kept.flat_map(|(_, kept)| kept).collect()
    };
    // b(4) = ⌊3·(6/10)³⌋ = 0 comes later; b(1) = ⌊3·0.729⌋ = 2, b(2) = ⌊3·0.512⌋ = 1
    allocator
        .update(0, &gradients(&layers, &[1.0, 1.0, 1.0]))
        .unwrap();
    allocator
        .update(1, &gradients(&layers, &[1.0, 1.0, 1.0]))
        .unwrap();
    assert_eq!(kept(&allocator), [false, true, true]);
    assert_eq!(numbers(layers[0].1.lambda()), [0.0]);
    // the optimizer gives it a value again, and the loss now depends on it
    set(layers[0].1.lambda(), vector(&[4.0]));
    set(layers[0].1.p(), vector(&[9.0, 9.0]));
    allocator
        .update(2, &gradients(&layers, &[5.0, 0.1, 0.1]))
        .unwrap();
    assert_eq!(kept(&allocator), [true, false, false]);
    assert_eq!(numbers(layers[0].1.lambda()), [4.0]);
    assert_eq!(numbers(layers[2].1.lambda()), [0.0]);

    // from T − t_f on the choice stands, whatever the gradients say, and is enforced
    let config = RankAllocatorConfig {
        target_rank: 1,
        initial_steps: 1,
        final_steps: 8,
        total_steps: 12,
        ..config
    };
    let layers = named(vec![small(&[unit(1.0), unit(2.0)])]);
    let mut allocator = RankAllocator::new(&layers, &config).unwrap();
    for step in 0..=4 {
        allocator.update(step, &gradients(&layers, &[1.0])).unwrap();
    }
    assert_eq!(kept(&allocator), [false, true]);
    set(layers[0].1.lambda(), vector(&[100.0, 1.0]));
    let done = allocator.update(5, &gradients(&layers, &[50.0])).unwrap();
    assert_eq!((done.budget, done.pruned), (1, true));
    assert_eq!(kept(&allocator), [false, true]);
    assert_eq!(numbers(layers[0].1.lambda()), [0.0, 1.0]);
    // nor are gradients needed any more
    let none = vector(&[1.0]).sum_all().unwrap().backward().unwrap();
    allocator.update(6, &none).unwrap();
}

#[test]
fn where_there_is_no_slope_scores_fade() {
    let config = RankAllocatorConfig {
        initial_steps: 100,
        total_steps: 200,
        ..at_once(1)
    };
    let layers = named(vec![small(&[(1.0, [1.0, 2.0], [3.0, 0.5]); 2])]);
    let mut allocator = RankAllocator::new(&layers, &config).unwrap();
    let total = |allocator: &RankAllocator| allocator.scores().unwrap()[0].1.iter().sum::<f64>();
    for step in 0..3 {
        allocator.update(step, &gradients(&layers, &[1.0])).unwrap();
    }
    let before = total(&allocator);
    for step in 3..60 {
        allocator.update(step, &gradients(&layers, &[0.0])).unwrap();
    }
    // Ī falls like 0.85ⁿ and Ū like n·0.85ⁿ: 57 · 0.85¹¹⁴ is 5e-7
    let after = total(&allocator);
    assert!(
        before > 0.1 && 0.0 < after && after < 1e-5 * before,
        "{before} {after}"
    );
}

#[test]
fn a_target_of_the_rank_at_the_start_prunes_nothing() {
    let unit = |size: f64| (size, [size, size], [size, size]);
    let layers = named(vec![small(&[unit(1.0), unit(2.0)])]);
    let mut allocator = RankAllocator::new(&layers, &at_once(2)).unwrap();
    for step in 0..=10 {
        allocator.update(step, &gradients(&layers, &[1.0])).unwrap();
    }
    assert_eq!(numbers(layers[0].1.lambda()), [1.0, 2.0]);
}

#[test]
fn a_layer_without_triplets_takes_part_in_the_budget_alone() {
    let unit = |size: f64| (size, [size, size], [size, size]);
    let full = small(&[unit(1.0), unit(2.0)]);
    let layers = named(vec![full.cut(&[false, false]).unwrap(), full]);
    let mut allocator = RankAllocator::new(&layers, &at_once(1)).unwrap();
    assert_eq!((allocator.budget(0), allocator.budget(10)), (2, 2));
    let grads = gradients(&layers[1..], &[1.0]);
    allocator.update(1, &grads).unwrap();
    assert_eq!(allocator.kept()[0], ("a".to_string(), vec![]));
    let state = allocator.state().unwrap();
    allocator.restore(state).unwrap();
}

#[test]
fn a_restored_allocator_goes_on_as_if_nothing_had_happened() {
    let unit = |size: f64| (size, [size, size], [size, size]);
    let config = RankAllocatorConfig {
        target_rank: 1,
        final_steps: 3,
        total_steps: 12,
        ..Default::default()
    };
    let make = || {
        named(vec![
            small(&[unit(1.0), unit(3.0)]),
            small(&[unit(2.0), unit(4.0)]),
        ])
    };
    let slopes = |step: usize| [(step as f64).sin() + 1.5, 2.0 - (step as f64).cos()];
    for broken in [0, 3, 8, 10] {
        let (whole, parts) = (make(), make());
        let mut one = RankAllocator::new(&whole, &config).unwrap();
        let mut two = RankAllocator::new(&parts, &config).unwrap();
        for step in 0..=12 {
            if step == broken {
                let state = two.state().unwrap();
                two = RankAllocator::new(&parts, &config).unwrap();
                two.restore(state).unwrap();
            }
            one.update(step, &gradients(&whole, &slopes(step))).unwrap();
            two.update(step, &gradients(&parts, &slopes(step))).unwrap();
            assert_eq!(one.kept(), two.kept());
            assert_eq!(one.scores().unwrap(), two.scores().unwrap());
        }
        let kept: usize = one
            .kept()
            .iter()
            .map(|(_, k)| k.iter().filter(|k| **k).count())
            .sum();
        assert_eq!(kept, 2);
    }
}

#[test]
fn settings_keep_their_names_in_json_and_refuse_others() {
    let config = AdaLoraConfig {
        rank: 3,
        alpha: 5.0,
        scaling: AdaLoraScaling::Rank,
        dropout: 0.1,
    };
    let json = serde_json::to_value(&config).unwrap();
    let want = serde_json::json!({"rank": 3, "alpha": 5.0, "scaling": "rank", "dropout": 0.1});
    assert_eq!(json, want);
    assert_eq!(
        serde_json::from_value::<AdaLoraConfig>(json).unwrap(),
        config
    );
    assert!(serde_json::from_str::<AdaLoraConfig>(r#"{"init_r": 8}"#).is_err());
    let default = AdaLoraConfig::default();
    assert_eq!((default.rank, default.alpha), (12, 8.0));
    let schedule = serde_json::from_str::<RankAllocatorConfig>(r#"{"total_steps": 9}"#).unwrap();
    assert_eq!((schedule.target_rank, schedule.interval), (8, 1));
    assert_eq!((schedule.beta1, schedule.beta2), (0.85, 0.85));
    assert!(serde_json::from_str::<RankAllocatorConfig>(r#"{"tinit": 8}"#).is_err());
}
