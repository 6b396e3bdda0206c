//! A divergence stores no probabilities, and from hidden states never all logits.

use super::{SMALL, alone, measured};
use candle_align::OutputHead;
use candle_align::distillation::divergence::{
    Direction, DivergenceConfig, divergence, divergence_from_hidden,
};
use candle_core::{DType, Device, Tensor, Var};

const DIRECTIONS: [Direction; 3] = [
    Direction::Forward,
    Direction::Reverse,
    Direction::JensenShannon { weight: 0.5 },
];

fn wave(shape: &[usize], dtype: DType) -> Tensor {
    let n: usize = shape.iter().product();
    let data: Vec<f32> = (0..n).map(|i| (i % 89) as f32 / 20.0).collect();
    let wave = Tensor::from_vec(data, shape, &Device::Cpu).unwrap();
    wave.to_dtype(dtype).unwrap()
}

#[test]
fn two_sets_of_logits_need_nothing_beside_the_gradient() {
    alone(|| {
        let shape = [1, 64, 1 << 14];
        let mask = Tensor::ones((1, 64), DType::U8, &Device::Cpu).unwrap();
        for dtype in [DType::F32, DType::BF16] {
            let (student, teacher) = (wave(&shape, dtype), wave(&shape, dtype));
            let student = Var::from_tensor(&student).unwrap();
            let logits = student.elem_count() * dtype.size_in_bytes();
            for direction in DIRECTIONS {
                let config = DivergenceConfig {
                    direction,
                    ..Default::default()
                };
                let (loss, held, most) = measured(|| {
                    let loss = divergence(&student, &teacher, &mask, &config).unwrap();
                    loss.loss.sum_all().unwrap()
                });
                println!("{dtype:?} {direction:?}: forward {held} held, {most} at most");
                assert!(held < SMALL && most < SMALL, "{held} {most}");
                let (_, _, most) = measured(|| loss.backward().unwrap());
                println!("{dtype:?} {direction:?}: backward {most}, logits {logits}");
                // the gradient, and candle's zeros and sum
                assert!(most < 3 * logits + SMALL, "{most} of {logits}");
            }
        }
    });
}

#[test]
fn hidden_states_need_a_few_chunks_of_logits() {
    alone(|| {
        let (rows, dim, vocabulary) = (1024, 4, 1 << 15);
        let logits = 4 * rows * vocabulary;
        let mask = Tensor::ones((1, rows), DType::U8, &Device::Cpu).unwrap();
        let other = wave(&[1, rows, dim], DType::F32);
        let teacher = OutputHead::new(&wave(&[vocabulary, dim], DType::F32), None).unwrap();
        let hidden = Var::from_tensor(&wave(&[1, rows, dim], DType::F32)).unwrap();
        let config = DivergenceConfig::default();
        for trained in [false, true] {
            let weight = Var::from_tensor(&wave(&[vocabulary, dim], DType::F32)).unwrap();
            let weight = match trained {
                true => weight.as_tensor().clone(),
                false => weight.as_detached_tensor(),
            };
            let head = OutputHead::new(&weight, None).unwrap();
            let (loss, held, most) = measured(|| {
                let (student, teacher) = ((&*hidden, &head), (&other, &teacher));
                let loss = divergence_from_hidden(student, teacher, &mask, &config).unwrap();
                loss.loss.sum_all().unwrap()
            });
            println!("trained {trained}: forward {held} held, {most} at most; logits {logits}");
            // the matrix product keeps its work space once it was used
            assert!(held < logits / 64, "{held}");
            // 64 MiB of logits, and the work space of a matrix product
            assert!(most < (80 << 20), "{most}");
            let (_, _, most) = measured(|| loss.backward().unwrap());
            println!("trained {trained}: backward {most}");
            assert!(most < (80 << 20), "{most}");
        }
        // a tenth and less of what four tensors of logits would take
        assert!(8 * logits > 10 * (80 << 20));
    });
}
