//! Every loss obeys the same laws: one table of losses (`tests/common/rows`) × the laws below. So does
//! every layer, those in `layers.rs`, and none panics on nothing: `nothing.rs`.

mod empty;
mod infinite;
mod layers;
mod nothing;

use crate::common::{self, EXACT, Role, Row, rows};
use candle_core::{DType, Device, Tensor, Var};

/// Relative difference allowed between f32 and f64.
const SINGLE: f64 = 2e-5;
/// The magnitude at which losses and gradients must still be finite in f32.
const EXTREME: f64 = 1e4;

/// Rebuilds every variable by `change`.
fn changed(
    vars: &[Var],
    change: impl Fn(usize, &Tensor) -> candle_core::Result<Tensor>,
) -> Vec<Var> {
    vars.iter()
        .enumerate()
        .map(|(i, v)| Var::from_tensor(&change(i, v).unwrap().copy().unwrap()).unwrap())
        .collect()
}

fn masked_rows() -> impl Iterator<Item = Row> {
    rows::all()
        .into_iter()
        .filter(|row| row.inputs.iter().any(|i| i.role == Role::Mask))
}

#[test]
fn what_the_mask_leaves_out_changes_nothing() {
    for row in masked_rows() {
        let vars = row.vars(DType::F64);
        // one more column at the end of every input that has the masked axis, NaN under the mask
        let axis: usize = row
            .inputs
            .iter()
            .find(|i| i.role == Role::Mask)
            .unwrap()
            .shape[1];
        let longer = changed(&vars, |i, v| {
            let input = &row.inputs[i];
            if input.shape.len() < 2 || input.shape[1] != axis {
                return Ok(v.clone());
            }
            let mut shape = input.shape.clone();
            shape[1] = 1;
            let fill = match input.role {
                Role::Trained | Role::Constant => f64::NAN,
                Role::Mask => 0.0,
                Role::Index => u32::MAX as f64,
            };
            let column = Tensor::full(fill, shape.as_slice(), &Device::Cpu)?.to_dtype(v.dtype())?;
            Tensor::cat(&[v, &column], 1)
        });
        common::assert_close(&row.losses(&longer), &row.losses(&vars), EXACT, row.name);

        let (short, long) = (row.gradients(&vars), row.gradients(&longer));
        for (i, input) in row.inputs.iter().enumerate() {
            if input.role != Role::Trained {
                continue;
            }
            let before = short[i].as_ref().expect("a gradient");
            let grad = Tensor::new(
                long[i].as_ref().expect("a gradient").as_slice(),
                &Device::Cpu,
            )
            .unwrap()
            .reshape(longer[i].shape())
            .unwrap();
            let kept = grad
                .narrow(
                    1.min(input.shape.len() - 1),
                    0,
                    input.shape[1.min(input.shape.len() - 1)],
                )
                .unwrap();
            common::assert_close(&common::numbers(&kept), before, EXACT, row.name);
            if longer[i].dims() != input.shape {
                let added = common::numbers(&grad.narrow(1, axis, 1).unwrap());
                assert!(
                    added.iter().all(|g| *g == 0.0),
                    "{}: {added:?} under the mask",
                    row.name
                );
            }
        }
    }
}

/// 16 · 16 is 0 in u8.
#[test]
fn whatever_is_not_zero_counts_in_a_mask() {
    for row in masked_rows() {
        let vars = row.vars(DType::F64);
        let other = changed(&vars, |i, v| match row.inputs[i].role {
            Role::Mask => (v.to_dtype(DType::F64)? * 16.0)?.to_dtype(DType::U8),
            _ => Ok(v.clone()),
        });
        assert_eq!(row.losses(&other), row.losses(&vars), "{}", row.name);
        assert_eq!(row.gradients(&other), row.gradients(&vars), "{}", row.name);
    }
}

#[test]
fn nothing_counted_is_a_loss_of_zero_with_gradients_of_zero() {
    for row in masked_rows() {
        let vars = changed(&row.vars(DType::F64), |i, v| match row.inputs[i].role {
            Role::Mask => v.zeros_like(),
            _ => Ok(v.clone()),
        });
        let losses = row.losses(&vars);
        assert!(losses.iter().all(|l| *l == 0.0), "{}: {losses:?}", row.name);
        for (input, grad) in row.inputs.iter().zip(row.gradients(&vars)) {
            let zero = grad.iter().flatten().all(|g| *g == 0.0);
            assert!(zero, "{}: gradient of {}: {grad:?}", row.name, input.name);
        }
    }
}

#[test]
fn an_empty_batch_has_no_losses() {
    for row in rows::all() {
        let vars = changed(&row.vars(DType::F64), |_, v| v.narrow(0, 0, 0));
        assert_eq!(row.losses(&vars), [0f64; 0], "{}", row.name);
    }
}

#[test]
fn the_order_of_the_batch_is_the_order_of_the_losses() {
    for row in rows::all().iter().filter(|row| row.independent) {
        let vars = row.vars(DType::F64);
        let reversed = changed(&vars, |_, v| {
            let batch = v.dim(0)?;
            let order: Vec<u32> = (0..batch as u32).rev().collect();
            v.index_select(&Tensor::new(order.as_slice(), &Device::Cpu)?, 0)
        });
        let mut want = row.losses(&vars);
        want.reverse();
        common::assert_close(&row.losses(&reversed), &want, EXACT, row.name);
    }
}

#[test]
fn a_batch_is_its_examples_one_by_one() {
    for row in rows::all().iter().filter(|row| row.independent) {
        let vars = row.vars(DType::F64);
        let (losses, gradients) = (row.losses(&vars), row.gradients(&vars));
        assert!(
            losses.len() > 1,
            "{}: a law over batches needs two examples",
            row.name
        );
        for (b, loss) in losses.iter().enumerate() {
            let one = changed(&vars, |_, v| v.narrow(0, b, 1));
            common::assert_close(&row.losses(&one), &[*loss], EXACT, row.name);
            for (whole, part) in gradients.iter().zip(row.gradients(&one)) {
                let (Some(whole), Some(part)) = (whole, part) else {
                    continue;
                };
                let share = &whole[b * part.len()..(b + 1) * part.len()];
                common::assert_close(share, &part, EXACT, row.name);
            }
        }
    }
}

#[test]
fn constants_get_no_gradient_and_trained_inputs_do() {
    for row in rows::all() {
        let gradients = row.gradients(&row.vars(DType::F64));
        for (input, grad) in row.inputs.iter().zip(gradients) {
            let reached = grad.is_some();
            assert_eq!(
                reached,
                input.role == Role::Trained,
                "{}: gradient of {}: {grad:?}",
                row.name,
                input.name
            );
        }
    }
}

#[test]
fn single_precision_agrees_with_double() {
    for row in rows::all() {
        let (double, single) = (row.vars(DType::F64), row.vars(DType::F32));
        let close = |got: &[f64], want: &[f64], what: &str| {
            for (g, w) in got.iter().zip(want) {
                assert!(
                    (g - w).abs() <= SINGLE * w.abs().max(1.0),
                    "{}: {what}: {g} against {w}",
                    row.name
                );
            }
        };
        close(&row.losses(&single), &row.losses(&double), "loss");
        for (s, d) in row.gradients(&single).iter().zip(row.gradients(&double)) {
            if let (Some(s), Some(d)) = (s, d) {
                close(s, &d, "gradient");
            }
        }
    }
}

#[test]
fn extreme_magnitudes_stay_finite_in_single_precision() {
    for row in rows::all() {
        for sign in [1.0, -1.0] {
            let vars = changed(&row.vars(DType::F32), |i, v| {
                if row.inputs[i].role != Role::Trained {
                    return Ok(v.clone());
                }
                let largest = row.inputs[i]
                    .data
                    .iter()
                    .fold(0.0f64, |a, b| a.max(b.abs()));
                v.affine(sign * EXTREME / largest, 0.0)
            });
            let losses = row.losses(&vars);
            assert!(
                losses.iter().all(|l| l.is_finite()),
                "{}: {losses:?}",
                row.name
            );
            for (input, grad) in row.inputs.iter().zip(row.gradients(&vars)) {
                let finite = grad.iter().flatten().all(|g| g.is_finite());
                assert!(finite, "{}: gradient of {}: {grad:?}", row.name, input.name);
            }
        }
    }
}

#[test]
fn an_argument_of_another_batch_or_type_is_named() {
    for row in rows::all() {
        let tensors: Vec<Tensor> = row
            .vars(DType::F64)
            .iter()
            .map(|v| v.as_tensor().clone())
            .collect();
        for (i, input) in row.inputs.iter().enumerate().skip(1) {
            let quoted = format!("`{}`", input.name);
            let mut wrong = tensors.clone();
            wrong[i] = tensors[i].narrow(0, 0, 1).unwrap();
            let message = (row.loss)(&wrong).expect_err(row.name).to_string();
            assert!(message.contains(&quoted), "{}: {message}", row.name);

            let mut wrong = tensors.clone();
            wrong[i] = tensors[i].to_dtype(DType::F16).unwrap();
            let message = (row.loss)(&wrong).expect_err(row.name).to_string();
            assert!(message.contains(&quoted), "{}: {message}", row.name);
        }
    }
}
