//! LoRA is one operation of the graph, and computes what its equation's separate operations do.

use crate::common::lora::*;
use crate::common::numbers;
use candle_align::parameter_efficient::LoraLinear;
use candle_core::{DType, Tensor, Var};
use candle_nn::{Linear, Module};

/// W₀ x + b + s · B A x, each step an operation.
fn separate(layer: &LoraLinear, x: &Tensor) -> Tensor {
    let (a, b) = (layer.a().t().unwrap(), layer.b().t().unwrap());
    let wide = x.to_dtype(a.dtype()).unwrap();
    let base = layer.base().forward(&wide).unwrap();
    let inputs = *x.dims().last().unwrap();
    let rows = wide.reshape((x.elem_count() / inputs, inputs)).unwrap();
    let inner = (rows.matmul(&a).unwrap() * layer.scale()).unwrap();
    let update = inner.matmul(&b).unwrap().reshape(base.shape()).unwrap();
    (base + update).unwrap().to_dtype(x.dtype()).unwrap()
}

/// Variables of this type, and inputs made of them: one row, two and more axes, and views in another memory
/// order.
fn inputs(dtype: DType) -> Vec<(Var, Tensor)> {
    type View = fn(&Tensor) -> candle_core::Result<Tensor>;
    let views: [(&[usize], View); 7] = [
        (&[4], |x| Ok(x.clone())),
        (&[3, 4], |x| Ok(x.clone())),
        (&[2, 1, 3, 4], |x| Ok(x.clone())),
        (&[4, 5], |x| x.t()),
        (&[2, 4, 3], |x| x.transpose(1, 2)),
        (&[5, 4], |x| x.narrow(0, 2, 2)),
        (&[1, 4], |x| x.broadcast_as((3, 4))),
    ];
    let made = views.iter().map(|(shape, view)| {
        let of = var(&irregular(shape).to_dtype(dtype).unwrap());
        let x = view(&of).unwrap();
        (of, x)
    });
    made.collect()
}

/// Equal to rounding: the operation adds the update in another order.
fn near([found, want]: &[Vec<f64>; 2], dtype: DType, what: &str) {
    let epsilon = match dtype {
        DType::F64 => f64::EPSILON,
        DType::BF16 => 2f64.powi(-8),
        DType::F16 => 2f64.powi(-11),
        _ => f64::from(f32::EPSILON),
    };
    let size = want.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    assert_eq!(found.len(), want.len(), "{what}");
    for (found, want) in found.iter().zip(want) {
        let error = (found - want).abs();
        assert!(error <= 4.0 * epsilon * size, "{what}: {found}, {want}");
    }
}

#[test]
fn one_operation_has_the_values_and_gradients_of_separate_ones() {
    for stored in TYPES {
        for with_bias in [true, false] {
            let bias = base(stored).bias().filter(|_| with_bias).cloned();
            let linear = Linear::new(base(stored).weight().clone(), bias);
            let layer = LoraLinear::new(&linear, &config(), &mut rng(7)).unwrap();
            let float = layer.a().dtype();
            layer.a().set(&tensor(&A).to_dtype(float).unwrap()).unwrap();
            layer.b().set(&tensor(&B).to_dtype(float).unwrap()).unwrap();
            for (of, x) in [float, stored].into_iter().flat_map(inputs) {
                let what = format!("{stored:?}, bias {with_bias}, {x:?}");
                let results = [layer.forward(&x).unwrap(), separate(&layer, &x)];
                let output = results[0].dtype();
                near(&results.each_ref().map(numbers), output, &what);
                assert_eq!(results[0].dims(), results[1].dims(), "{what}");
                assert_eq!(results[0].dtype(), results[1].dtype(), "{what}");
                let gradients = results.map(|h| {
                    let grads = h.sqr().unwrap().backward().unwrap();
                    [layer.a(), layer.b(), &of].map(|of| numbers(grads.get(of).unwrap()))
                });
                let [found, want] = &gradients;
                let of_each = [float, float, of.dtype()];
                for ((found, want), dtype) in found.iter().zip(want).zip(of_each) {
                    near(&[found.clone(), want.clone()], dtype, &what);
                }
                assert!(gradients[0].iter().flatten().any(|g| *g != 0.0), "{what}");
            }
        }
    }
}

#[test]
fn an_input_without_a_gradient_gets_none_and_no_gradient_holds_a_graph() {
    // more inputs than anything else has: a gradient of x would be the largest
    let base = Linear::new(irregular(&[3, 40]), None);
    let layer = LoraLinear::new(&base, &config(), &mut rng(7)).unwrap();
    let x = irregular(&[50, 40]);
    let grads = layer.forward(&x).unwrap().sqr().unwrap();
    let grads = grads.backward().unwrap();
    assert!(grads.get(&x).is_none());
    for id in grads.get_ids() {
        let gradient = grads.get_id(*id).unwrap();
        assert!(gradient.elem_count() <= 50 * 3, "{:?}", gradient.dims());
    }
    for var in [layer.a(), layer.b()] {
        assert!(!grads.get(var).unwrap().track_op());
    }
}
