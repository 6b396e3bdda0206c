//! One number of an input goes to ±∞: the loss of its example is the limit wherever there is one, its
//! gradient too, and no other example sees it.

use crate::common::{Role, Row, rows};
use candle_core::{DType, Tensor, Var};

/// Three points far enough out to see what converges, and how.
const FAR: [f64; 3] = [1e6, 1e8, 1e10];
/// What counts as one number at two of them, relative to max(1, |limit|).
const CONVERGED: f64 = 1e-6;
/// Difference allowed from a limit, relative to max(1, |limit|), in f32.
const LIMIT: f64 = 1e-4;
/// Difference allowed in other examples, relative to max(1, |value|), per type.
const OTHERS: [(DType, f64); 2] = [(DType::F32, 1e-6), (DType::F64, 1e-14)];
/// Where infinite is what a limit is, a finite number must be at least this.
const LARGE: f64 = 1e20;

/// A loss and its gradients at a point, or the error's text.
struct Point {
    losses: Vec<f64>,
    gradients: Vec<Option<Vec<f64>>>,
}

fn at(row: &Row, vars: &[Var]) -> Result<Point, String> {
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    (row.loss)(&tensors).map_err(|error| error.to_string())?;
    Ok(Point {
        losses: row.losses(vars),
        gradients: row.gradients(vars),
    })
}

/// The row's variables with one number replaced.
fn with(row: &Row, dtype: DType, input: usize, element: usize, value: f64) -> Vec<Var> {
    let mut inputs = row.inputs.clone();
    inputs[input].data[element] = value;
    inputs.iter().map(|i| i.var(dtype)).collect()
}

/// Where a number goes, seen from two far points.
#[derive(Clone, Copy, Debug)]
enum Limit {
    Finite(f64),
    /// With its sign, and by how much it grows for each unit if it does so evenly.
    Infinite(f64, Option<f64>),
    /// It jumps about.
    None,
}

fn limit([a, b, c]: [f64; 3]) -> Limit {
    let (first, second) = (b - a, c - b);
    if second.abs() <= CONVERGED * c.abs().max(1.0) {
        return Limit::Finite(c);
    }
    if second.abs() < 0.7 * first.abs() {
        // like a power of 1/x, as a length does: each step is the same share of the one before
        let share = second / first;
        return Limit::Finite(c + second * share / (1.0 - share));
    }
    let even = (c / b / (FAR[2] / FAR[1]) - 1.0).abs() < 1e-2;
    match c.is_infinite() || c.abs() > 2.0 * b.abs() {
        true => Limit::Infinite(c.signum(), even.then(|| c.abs() / FAR[2])),
        false => Limit::None,
    }
}

/// Whether `got`, at ±`x`, is what the limit says.
fn is_limit(got: f64, limit: Limit, x: f64, largest: f64) -> bool {
    match limit {
        Limit::Finite(want) => (got - want).abs() <= LIMIT * want.abs().max(1.0),
        Limit::Infinite(sign, _) if x.is_infinite() => got == sign * f64::INFINITY,
        Limit::Infinite(sign, slope) => {
            let want = slope.map(|slope| sign * slope * x);
            // a step on the way may overflow where the result nearly does
            let want = want.filter(|want| want.abs() < largest / 100.0);
            got * sign >= LARGE && want.is_none_or(|want| (got / want - 1.0).abs() <= 2e-2)
        }
        // then what would be right?
        Limit::None => false,
    }
}

/// Where −∞ is a word of its own, as the page says, and not the limit of large numbers; or where the
/// digits that the limit is made of are lost before the loss sees them.
fn is_another_word(row: &Row, input: usize, x: f64) -> bool {
    // a symbol that is impossible is not one of those over which labels are smoothed
    let smoothed = row.name == "sft, weighted, label smoothing 0.1";
    let impossible = smoothed && row.inputs[input].name == "logits" && x == f64::NEG_INFINITY;
    // where all scores tie, differences of rewards decide, and beside 1e38 they are no digits any more
    let start = row.name == "pro, at its start";
    impossible || start && row.inputs[input].name == "rewards" && x.is_finite()
}

/// What is wrong as one number of an input goes to its limit.
fn to_its_limit(
    row: &Row,
    (input, element): (usize, usize),
    sign: f64,
    base: &[(DType, f64, Point)],
    wrong: &mut Vec<String>,
) {
    let what = format!("{}: {}[{element}]", row.name, row.inputs[input].name);
    let batch = base[0].2.losses.len();
    let example = element / (row.inputs[input].data.len() / batch);
    let far = FAR.map(|x| at(row, &with(row, DType::F64, input, element, sign * x)));
    let [Ok(near), Ok(middle), Ok(far)] = far else {
        // out of the range of this input: it must be refused there too
        for (dtype, _, _) in base {
            let x = sign * f64::INFINITY;
            let Err(message) = at(row, &with(row, *dtype, input, element, x)) else {
                panic!("{what}: {x} is accepted");
            };
            assert!(message.contains('`'), "{what}: {message}");
        }
        return;
    };
    for (dtype, tolerance, start) in base {
        let (large, largest) = match dtype {
            DType::F32 => (1e38, f32::MAX as f64),
            _ => (1e300, f64::MAX),
        };
        let same_type = at(row, &with(row, *dtype, input, element, sign * FAR[0])).unwrap();
        for x in [sign * large, sign * f64::INFINITY] {
            let what = format!("{what} = {x}, {dtype:?}");
            let point = match at(row, &with(row, *dtype, input, element, x)) {
                Ok(point) => point,
                Err(message) => {
                    let named = message.contains('`') && message.contains("finite");
                    if !named || x.is_finite() {
                        wrong.push(format!("{what}: {message}"));
                    }
                    continue;
                }
            };
            for (b, got) in point.losses.iter().enumerate() {
                let to = limit([near.losses[b], middle.losses[b], far.losses[b]]);
                let right = match b == example || !row.independent {
                    true if is_another_word(row, input, x) => !got.is_nan(),
                    true => is_limit(*got, to, x.abs(), largest),
                    false => is_close(*got, start.losses[b], *tolerance),
                };
                if !right {
                    wrong.push(format!("{what}: loss of example {b}: {got}, {to:?}"));
                }
            }
            for (i, gradient) in point.gradients.iter().enumerate() {
                let Some(gradient) = gradient else { continue };
                let of = |point: &Point, e: usize| point.gradients[i].as_ref().unwrap()[e];
                let share = gradient.len() / batch;
                for (e, got) in gradient.iter().enumerate() {
                    let to = limit([of(&near, e), of(&middle, e), of(&far, e)]);
                    let right = match (e / share == example || !row.independent, to) {
                        (true, Limit::Finite(_)) if !is_another_word(row, input, x) => {
                            // at a kink the two types may stand on different sides
                            is_limit(*got, to, x.abs(), largest)
                                || is_close(*got, of(&same_type, e), *tolerance)
                        }
                        // an infinite slope times 0 may be NaN, in its own example
                        (true, _) => true,
                        (false, _) => is_close(*got, of(start, e), *tolerance),
                    };
                    if !right {
                        let name = row.inputs[i].name;
                        wrong.push(format!("{what}: gradient of {name}[{e}]: {got}, {to:?}"));
                    }
                }
            }
        }
    }
}

fn is_close(got: f64, want: f64, tolerance: f64) -> bool {
    (got - want).abs() <= tolerance * want.abs().max(1.0)
}

#[test]
fn one_infinite_number_gives_the_limit_and_reaches_no_other_example() {
    let mut wrong = Vec::new();
    for row in rows::all() {
        let base = OTHERS.map(|(dtype, tolerance)| {
            let start = at(&row, &row.vars(dtype)).unwrap();
            (dtype, tolerance, start)
        });
        for (i, input) in row.inputs.iter().enumerate() {
            if !matches!(input.role, Role::Trained | Role::Constant) {
                continue;
            }
            for element in 0..input.data.len() {
                for sign in [1.0, -1.0] {
                    to_its_limit(&row, (i, element), sign, &base, &mut wrong);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}
