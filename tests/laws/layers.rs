//! Every parameter-efficient layer obeys the same laws: one table of layers (`tests/common/layers.rs`)
//! × the laws below.

use super::{EXTREME, SINGLE};
use crate::common::adapters::disturb;
use crate::common::layers::{Layer, Subject, all};
use crate::common::lora::{bits, irregular};
use crate::common::{EXACT, assert_close, numbers};
use candle_core::{DType, Device, Tensor, Var};

/// Irregular inputs `[batch, ..example]`.
fn input(layer: &Layer, batch: usize, dtype: DType) -> Var {
    let shape = [&[batch], layer.example].concat();
    Var::from_tensor(&irregular(&shape).to_dtype(dtype).unwrap()).unwrap()
}

/// The layer after some training.
fn trained(layer: &Layer, dtype: DType) -> Subject {
    let subject = (layer.build)(dtype);
    disturb(&subject.trained);
    subject
}

fn forward(layer: &Layer, subject: &Subject, x: &Tensor) -> Tensor {
    (subject.forward)(x).unwrap_or_else(|e| panic!("{}: {e}", layer.name))
}

/// Σ of outputs, each element of an example weighted on its own.
fn objective(h: &Tensor) -> Tensor {
    let upstream = irregular(&h.dims()[1..]).to_dtype(h.dtype()).unwrap();
    let loss = h.broadcast_mul(&(upstream + 0.3).unwrap()).unwrap();
    loss.sum_all().unwrap()
}

/// Gradients of [`objective`]: of the input, and of everything trained in its order.
fn gradients(layer: &Layer, subject: &Subject, x: &Var) -> Vec<Vec<f64>> {
    let grads = objective(&forward(layer, subject, x)).backward().unwrap();
    let trained = subject.trained.iter().map(|(_, var)| var);
    [x].into_iter()
        .chain(trained)
        .map(|var| match grads.get(var) {
            Some(gradient) => numbers(gradient),
            None => panic!("{}: no gradient", layer.name),
        })
        .collect()
}

#[test]
fn a_batch_is_its_examples_one_by_one() {
    for layer in all() {
        let subject = trained(&layer, DType::F64);
        let x = input(&layer, 3, DType::F64);
        let whole = forward(&layer, &subject, &x);
        let mut of_examples: Vec<Vec<f64>> = Vec::new();
        let mut of_inputs = Vec::new();
        for b in 0..3 {
            let one = Var::from_tensor(&x.narrow(0, b, 1).unwrap().copy().unwrap()).unwrap();
            let h = numbers(&forward(&layer, &subject, &one));
            let share = numbers(&whole.narrow(0, b, 1).unwrap());
            assert_close(&h, &share, EXACT, layer.name);
            let mut found = gradients(&layer, &subject, &one);
            of_inputs.extend(found.remove(0));
            match of_examples.is_empty() {
                true => of_examples = found,
                false => {
                    for (sum, more) in of_examples.iter_mut().zip(found) {
                        sum.iter_mut()
                            .zip(more)
                            .for_each(|(sum, more)| *sum += more);
                    }
                }
            }
        }
        let mut found = gradients(&layer, &subject, &x);
        assert_close(&found.remove(0), &of_inputs, EXACT, layer.name);
        for (got, want) in found.iter().zip(&of_examples) {
            let size = want.iter().fold(1.0f64, |m, w| m.max(w.abs()));
            assert_close(got, want, EXACT * size, layer.name);
        }
    }
}

#[test]
fn any_axes_before_the_last_are_a_batch() {
    for layer in all().iter().filter(|layer| layer.any_leading) {
        let subject = trained(layer, DType::F64);
        let x = input(layer, 6, DType::F64);
        let want = forward(layer, &subject, &x);
        let (width, outputs) = (layer.example[0], want.dims()[1]);
        for leading in [&[2, 3][..], &[6, 1], &[3, 1, 2]] {
            let h = x.reshape([leading, &[width]].concat()).unwrap();
            let h = forward(layer, &subject, &h);
            assert_eq!(h.dims(), [leading, &[outputs]].concat(), "{}", layer.name);
            assert_close(&numbers(&h), &numbers(&want), EXACT, layer.name);
        }
        let h = forward(layer, &subject, &x.get(4).unwrap());
        assert_eq!(h.dims(), [outputs], "{}", layer.name);
        let row = numbers(&want.get(4).unwrap());
        assert_close(&numbers(&h), &row, EXACT, layer.name);
    }
}

#[test]
fn the_order_of_the_batch_is_the_order_of_the_outputs() {
    for layer in all() {
        let subject = trained(&layer, DType::F64);
        let x = input(&layer, 4, DType::F64);
        let order = Tensor::new(&[2u32, 0, 3, 1], &Device::Cpu).unwrap();
        let moved = |t: &Tensor| t.index_select(&order, 0).unwrap();
        let got = forward(&layer, &subject, &moved(&x));
        let want = moved(&forward(&layer, &subject, &x));
        assert_close(&numbers(&got), &numbers(&want), EXACT, layer.name);
    }
}

#[test]
fn what_is_trained_gets_a_gradient_and_what_is_frozen_none() {
    for layer in all() {
        let subject = (layer.build)(DType::F64);
        for start in [true, false] {
            if !start {
                disturb(&subject.trained);
            }
            let x = input(&layer, 5, DType::F64);
            let grads = objective(&forward(&layer, &subject, &x))
                .backward()
                .unwrap();
            for (name, var) in &subject.trained {
                let gradient = grads.get(var).map(numbers);
                let gradient = gradient.unwrap_or_else(|| panic!("{}: {name}", layer.name));
                let moves = gradient.iter().any(|g| *g != 0.0);
                assert!(moves || start, "{}: {name} has a gradient of 0", layer.name);
            }
            // nor does anything of the shape of a frozen matrix stand among the gradients
            let known: Vec<_> = subject.trained.iter().map(|(_, var)| var.id()).collect();
            let shapes = grads.get_ids().filter(|id| !known.contains(id));
            let shapes: Vec<_> = shapes
                .map(|id| grads.get_id(*id).unwrap().dims().to_vec())
                .collect();
            for var in &subject.frozen {
                assert!(grads.get(var).is_none(), "{}", layer.name);
                if let &[outputs, inputs] = var.dims() {
                    let turned = [inputs, outputs];
                    let mut shapes = shapes.iter();
                    let found = shapes.find(|s| *s == var.dims() || **s == turned);
                    assert!(found.is_none(), "{}: {found:?}", layer.name);
                }
            }
        }
    }
}

#[test]
fn single_precision_agrees_with_double() {
    for layer in all() {
        let of = |dtype| {
            let subject = trained(&layer, dtype);
            let x = input(&layer, 3, dtype);
            let h = forward(&layer, &subject, &x);
            assert_eq!(h.dtype(), dtype, "{}", layer.name);
            let mut all = gradients(&layer, &subject, &x);
            all.push(numbers(&h));
            all
        };
        for (single, double) in of(DType::F32).iter().zip(of(DType::F64)) {
            let size = double.iter().fold(1.0f64, |m, d| m.max(d.abs()));
            assert_close(single, &double, SINGLE * size, layer.name);
        }
    }
}

#[test]
fn extreme_magnitudes_stay_finite_in_single_precision() {
    for layer in all() {
        for sign in [1.0, -1.0] {
            let subject = trained(&layer, DType::F32);
            let scaled = |t: &Tensor| {
                let largest = numbers(t).iter().fold(0.0f64, |m, x| m.max(x.abs()));
                t.affine(sign * EXTREME / largest, 0.0).unwrap()
            };
            for (_, var) in &subject.trained {
                var.set(&scaled(var)).unwrap();
            }
            let x = Var::from_tensor(&scaled(&input(&layer, 3, DType::F32))).unwrap();
            let h = numbers(&forward(&layer, &subject, &x));
            let largest = h.iter().fold(0.0f64, |m, x| m.max(x.abs()));
            assert!(largest >= EXTREME / 10.0, "{}: {h:?}", layer.name);
            let all = gradients(&layer, &subject, &x).concat();
            let finite = h.iter().chain(&all).all(|x| x.is_finite());
            assert!(finite, "{}: {h:?} {all:?}", layer.name);
        }
    }
}

/// The types that a layer can be stored in.
fn types(layer: &Layer) -> Vec<DType> {
    match layer.any_leading {
        true => vec![DType::F64, DType::F32, DType::BF16, DType::F16],
        false => vec![DType::F64, DType::F32],
    }
}

#[test]
fn at_its_start_it_is_what_is_beneath_it_where_that_is_promised() {
    for layer in all() {
        for dtype in types(&layer) {
            let subject = (layer.build)(dtype);
            let x = input(&layer, 3, dtype);
            let (h, base) = (forward(&layer, &subject, &x), (subject.base)(&x).unwrap());
            let same = h.dims() == base.dims() && bits(&h) == bits(&base);
            assert_eq!(same, layer.starts_at_base, "{} {dtype:?}", layer.name);
        }
    }
}

#[test]
fn switched_off_it_is_what_is_beneath_it_to_the_bit() {
    for layer in all() {
        for dtype in types(&layer) {
            let subject = trained(&layer, dtype);
            let x = input(&layer, 3, dtype);
            let (off, base) = ((subject.off)(&x).unwrap(), (subject.base)(&x).unwrap());
            assert_eq!(off.dims(), base.dims(), "{}", layer.name);
            assert_eq!(bits(&off), bits(&base), "{} {dtype:?}", layer.name);
            let on = forward(&layer, &subject, &x);
            let same = on.dims() == off.dims() && bits(&on) == bits(&off);
            assert!(!same, "{} {dtype:?}: on and off alike", layer.name);
            let grads = objective(&off).backward().unwrap();
            let reached = subject.trained.iter().any(|(_, v)| grads.get(v).is_some());
            assert!(!reached, "{}", layer.name);
        }
    }
}

#[test]
fn a_view_is_what_a_copy_of_it_is() {
    for layer in all() {
        let subject = trained(&layer, DType::F64);
        let x = input(&layer, 3, DType::F64);
        let want = numbers(&forward(&layer, &subject, &x));
        let last = x.rank() - 1;
        let turned = x.transpose(0, last).unwrap().contiguous().unwrap();
        let turned = turned.transpose(0, last).unwrap();
        let wider = Tensor::cat(&[x.as_tensor(), &x.ones_like().unwrap()], last).unwrap();
        let narrowed = wider.narrow(last, 0, x.dim(last).unwrap()).unwrap();
        for view in [turned, narrowed] {
            assert!(!view.is_contiguous(), "{}", layer.name);
            let h = forward(&layer, &subject, &view);
            assert_close(&numbers(&h), &want, EXACT, layer.name);
        }
    }
}

#[test]
fn an_input_of_another_width_or_type_is_named() {
    for layer in all() {
        let subject = trained(&layer, DType::F64);
        let x = input(&layer, 3, DType::F64);
        let last = x.rank() - 1;
        let width = x.dim(last).unwrap();
        let says = |x: &Tensor, argument: &str| {
            let message = match (subject.forward)(x) {
                Ok(_) => panic!("{}: no error for {x:?}", layer.name),
                Err(error) => error.to_string(),
            };
            assert!(message.contains(argument), "{}: {message}", layer.name);
        };
        let [wide, typed] = layer.argument;
        says(&x.narrow(last, 0, width - 1).unwrap(), wide);
        says(
            &Tensor::cat(&[x.as_tensor(), x.as_tensor()], last).unwrap(),
            wide,
        );
        for dtype in [DType::F16, DType::U32] {
            says(&x.to_dtype(dtype).unwrap(), typed);
        }
    }
}
