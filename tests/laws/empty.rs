//! Nothing panics on nothing: an empty batch, list, time or vocabulary, in every layout, is a value or
//! an error that names its argument. And a loss sees numbers, not layouts.

use crate::common::{self, ALL_STATISTICS, EXACT, Role, Row, rows};
use candle_align::language::edits::{EditCosts, edit_script};
use candle_align::language::forgetful::{forgetful_mask, forgetful_pair_mask};
use candle_align::math;
use candle_align::math::Whiten;
use candle_align::online::raft::{RefreshedSet, best_of_k, kl_adjusted_rewards, top_share};
use candle_align::online::reward_head::{RewardHead, RewardNormalization};
use candle_align::online::reward_model::ranking_accuracy;
use candle_align::online::rewards::missing_eos_penalty;
use candle_align::*;
use candle_core::{DType, Device, Tensor, Var};
use rand::{SeedableRng, rngs::StdRng};

/// The ways in which a tensor of this shape, which holds nothing, can come about; with the variable that
/// it is a view of.
fn layouts(shape: &[usize], dtype: DType) -> Vec<(&'static str, Var, Tensor)> {
    let zeros = |shape: &[usize]| {
        let zeros = Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
        Var::from_tensor(&zeros).unwrap()
    };
    let longer = |by: usize| -> Vec<usize> { shape.iter().map(|d| d + by).collect() };
    // from every axis, starting at `start`
    let cut = |x: &Tensor, start: usize, shape: &[usize]| {
        let mut x = x.clone();
        for (axis, size) in shape.iter().enumerate() {
            x = x.narrow(axis, start, *size).unwrap();
        }
        x
    };
    let turned = |x: &Tensor| {
        x.permute((0..shape.len()).rev().collect::<Vec<_>>())
            .unwrap()
    };
    let reversed = |shape: &[usize]| -> Vec<usize> { shape.iter().rev().copied().collect() };

    let mut all = Vec::new();
    let whole = zeros(shape);
    all.push(("contiguous", whole.clone(), whole.as_tensor().clone()));
    let parent = zeros(&longer(2));
    all.push(("narrowed", parent.clone(), cut(&parent, 1, shape)));
    all.push(("from the end", parent.clone(), cut(&parent, 2, shape)));
    let parent = zeros(&reversed(shape));
    all.push(("transposed", parent.clone(), turned(&parent)));
    let parent = zeros(&reversed(&longer(2)));
    let view = cut(&turned(&parent), 2, shape);
    all.push(("transposed, from the end", parent.clone(), view));
    // a view of nothing that starts behind it
    for axis in 0..shape.len() {
        let mut more = shape.to_vec();
        more[axis] += 3;
        if more.iter().product::<usize>() > 0 {
            continue;
        }
        let parent = zeros(&more);
        let view = parent.narrow(axis, 3, shape[axis]).unwrap();
        all.push(("past the end", parent.clone(), view));
        let parent = zeros(&reversed(&more));
        let view = turned(&parent).narrow(axis, 3, shape[axis]).unwrap();
        all.push(("transposed, past the end", parent.clone(), view));
    }
    let parent = zeros(&vec![1; shape.len()]);
    let view = parent.broadcast_as(shape).unwrap();
    all.push(("broadcast", parent, view));
    all
}

/// The type of an input in these tests.
fn dtype(role: Role) -> DType {
    match role {
        Role::Trained | Role::Constant => DType::F64,
        Role::Mask => DType::U8,
        Role::Index => DType::U32,
    }
}

/// The types and shapes of some inputs.
type Shapes = Vec<(DType, Vec<usize>)>;

/// Inputs of these shapes, all in the same layout; those with something in them plain.
fn in_every_layout(
    shapes: &[(DType, Vec<usize>)],
    mut visit: impl FnMut(&'static str, &[Var], &[Tensor]),
) {
    let inputs: Vec<_> = shapes
        .iter()
        .map(|(dtype, shape)| match shape.iter().product::<usize>() {
            0 => layouts(shape, *dtype),
            _ => {
                let ones = Tensor::ones(shape.as_slice(), *dtype, &Device::Cpu).unwrap();
                let var = Var::from_tensor(&ones).unwrap();
                vec![("plain", var.clone(), var.as_tensor().clone())]
            }
        })
        .collect();
    let ways = inputs.iter().map(Vec::len).max().unwrap_or(0);
    for way in 0..ways {
        let chosen: Vec<_> = inputs.iter().map(|all| &all[way % all.len()]).collect();
        let name = chosen
            .iter()
            .map(|c| c.0)
            .find(|n| *n != "plain")
            .unwrap_or("plain");
        let vars: Vec<Var> = chosen.iter().map(|c| c.1.clone()).collect();
        let views: Vec<Tensor> = chosen.iter().map(|c| c.2.clone()).collect();
        visit(name, &vars, &views);
    }
}

fn names_an_argument(error: &Error, what: &str) {
    let message = error.to_string();
    assert!(message.matches('`').count() >= 2, "{what}: {message}");
}

/// The row's inputs with one axis of size 0: the batch, the second, the last of three.
fn emptied(row: &Row) -> Vec<(&'static str, Shapes)> {
    let with = |change: &dyn Fn(&mut Vec<usize>)| {
        let inputs = row.inputs.iter();
        let emptied = inputs.map(|i| {
            let mut shape = i.shape.clone();
            change(&mut shape);
            (dtype(i.role), shape)
        });
        emptied.collect::<Shapes>()
    };
    let mut all = vec![("batch", with(&|shape| shape[0] = 0))];
    if row.inputs.iter().any(|i| i.shape.len() > 1) {
        all.push((
            "time or k",
            with(&|shape| {
                if shape.len() > 1 {
                    shape[1] = 0;
                }
            }),
        ));
        all.push((
            "batch and time or k",
            with(&|shape| {
                shape[0] = 0;
                if shape.len() > 1 {
                    shape[1] = 0;
                }
            }),
        ));
    }
    if row.inputs.iter().any(|i| i.shape.len() == 3) {
        all.push((
            "vocabulary",
            with(&|shape| {
                if let [_, _, last] = shape.as_mut_slice() {
                    *last = 0;
                }
            }),
        ));
    }
    all
}

/// The loss of examples without a token: 0, or ln 2 where it is that of answers without a difference.
fn without_tokens(row: &Row) -> f64 {
    let compares = ["ld-dpo", "implicit reward"];
    match compares.iter().any(|name| row.name.starts_with(name)) {
        true => std::f64::consts::LN_2,
        false => 0.0,
    }
}

#[test]
fn every_loss_of_nothing_is_a_value_or_an_error_that_names_its_argument() {
    for row in rows::all() {
        for (axis, shapes) in emptied(&row) {
            in_every_layout(&shapes, |layout, vars, views| {
                let what = format!("{}, no {axis}, {layout}", row.name);
                let loss = match (row.loss)(views) {
                    Ok(loss) => loss,
                    Err(error) => return names_an_argument(&error, &what),
                };
                assert_eq!(loss.dims(), [shapes[0].1[0]], "{what}");
                let losses = common::numbers(&loss);
                let want = without_tokens(&row);
                assert!(losses.iter().all(|l| *l == want), "{what}: {losses:?}");
                let grads = loss.sum_all().unwrap().backward().expect(&what);
                for var in vars {
                    let grad = grads.get(var).map(common::numbers);
                    let zero = grad.iter().flatten().all(|g| *g == 0.0);
                    assert!(zero, "{what}: {grad:?}");
                }
            });
        }
    }
}

#[test]
fn a_loss_does_not_see_the_layout_of_its_inputs() {
    for row in rows::all() {
        let plain: Vec<Tensor> = row
            .vars(DType::F64)
            .iter()
            .map(|v| v.as_tensor().clone())
            .collect();
        let want = common::numbers(&(row.loss)(&plain).unwrap());
        let transposed = |x: &Tensor| {
            let axes: Vec<usize> = (0..x.rank()).rev().collect();
            x.permute(axes.clone())?.contiguous()?.permute(axes)
        };
        let behind = |x: &Tensor| Tensor::cat(&[x, x], 0)?.narrow(0, x.dim(0)?, x.dim(0)?);
        let between = |x: &Tensor| {
            let last = x.rank() - 1;
            Tensor::cat(&[x, x, x], last)?.narrow(last, x.dim(last)?, x.dim(last)?)
        };
        type Change<'a> = &'a dyn Fn(&Tensor) -> candle_core::Result<Tensor>;
        let changes: [(&str, Change); 3] = [
            ("transposed", &transposed),
            ("behind others", &behind),
            ("between others", &between),
        ];
        for (layout, change) in changes {
            let views: Vec<Tensor> = plain.iter().map(|x| change(x).unwrap()).collect();
            let got = common::numbers(&(row.loss)(&views).unwrap());
            common::assert_close(&got, &want, EXACT, &format!("{}, {layout}", row.name));
        }
    }
}

/// A function over tensors: its inputs with their axes, and what it gives to read.
struct Function {
    name: &'static str,
    inputs: &'static [(Role, &'static str)],
    call: fn(&[Tensor]) -> Result<Vec<Tensor>>,
}

fn function(
    name: &'static str,
    inputs: &'static [(Role, &'static str)],
    call: fn(&[Tensor]) -> Result<Vec<Tensor>>,
) -> Function {
    Function { name, inputs, call }
}

/// All that can be read from log-probabilities.
fn of_tokens(log_probs: &TokenLogProbs) -> Result<Vec<Tensor>> {
    let mut all = vec![
        log_probs.values().clone(),
        log_probs.mask().clone(),
        log_probs.sum()?,
        log_probs.mean()?,
        log_probs.lengths()?,
        log_probs.length_penalized(0.5)?,
    ];
    let more = [
        log_probs.entropy(),
        log_probs.vocabulary_mean(),
        log_probs.log_collision(),
    ];
    all.extend(more.into_iter().flatten().cloned());
    if log_probs.entropy().is_some() {
        all.push(entropy_loss(log_probs, &EntropyConfig::default())?.loss);
    }
    Ok(all)
}

fn reductions(loss: &Tensor, mask: &Tensor) -> Result<Vec<Tensor>> {
    let all = [
        Reduction::Sum,
        Reduction::TokenMean,
        Reduction::SequenceMean,
        Reduction::MeanOfSequenceMeans,
        Reduction::SumOver { count: 2.0 },
        Reduction::SequenceMeansOver { count: 2.0 },
    ];
    let each = all.iter().map(|reduction| {
        let loss = reduction.apply(loss, mask)?;
        assert_eq!(loss.to_scalar::<f64>()?, 0.0, "{reduction:?}");
        assert!(reduction.count(mask)?.is_finite());
        Ok(loss)
    });
    each.collect()
}

fn of_candidates(candidates: &Candidates) -> Result<Vec<Tensor>> {
    Ok(vec![
        candidates.sums().clone(),
        candidates.means()?,
        candidates.lengths().clone(),
        candidates.rewards().clone(),
        candidates.mask().clone(),
        candidates.preferences()?,
    ])
}

fn of_experience(experience: &Experience) -> Result<Vec<Tensor>> {
    experience.mean_kl()?;
    let mut all = experience.minibatches(2, &mut StdRng::seed_from_u64(0))?;
    let none = Tensor::zeros((3, 0), DType::U32, &Device::Cpu)?.narrow(0, 2, 1)?;
    for part in [experience.clone(), experience.rows(&none.squeeze(0)?)?] {
        let tensors = [
            part.mask,
            part.old,
            part.old_values,
            part.kl,
            part.rewards,
            part.advantages,
            part.returns,
        ];
        all.extend(tensors);
    }
    Ok(all)
}

fn of_policy_loss(loss: &PolicyLoss) -> Result<Vec<Tensor>> {
    let metrics = loss.metrics()?;
    Ok(vec![
        loss.loss.loss.clone(),
        loss.ratio.clone(),
        loss.clipped.clone(),
        loss.kl_k1.clone(),
        loss.kl_k3.clone(),
        metrics.ratio,
        metrics.clip_fraction,
        metrics.kl_k1,
        metrics.kl_k3,
    ])
}

fn functions() -> Vec<Function> {
    use Role::{Constant as F, Index as I, Mask as M};
    vec![
        function("log_sigmoid", &[(F, "bt")], |x| {
            Ok(vec![math::log_sigmoid(&x[0])?])
        }),
        function("softplus", &[(F, "bt")], |x| {
            Ok(vec![math::softplus(&x[0])?])
        }),
        function("hinge", &[(F, "bt")], |x| Ok(vec![math::hinge(&x[0])?])),
        function("masked", &[(F, "bt"), (M, "bt")], |x| {
            Ok(vec![
                math::masked(&x[0], &x[1])?,
                math::masked_sum(&x[0], &x[1])?,
                math::masked_mean(&x[0], &x[1])?,
                math::mask_count(&x[1], DType::F64)?,
            ])
        }),
        function("preferences", &[(F, "bk"), (M, "bk")], |x| {
            Ok(vec![math::preferences(&x[0], &x[1])?])
        }),
        function("plackett_luce", &[(F, "bk"), (F, "bk"), (M, "bk")], |x| {
            Ok(vec![math::plackett_luce(&x[0], &x[1], &x[2])?])
        }),
        function("whiten", &[(F, "bt"), (M, "bt")], |x| {
            Ok(vec![
                math::whiten(&x[0], &x[1], Whiten::ZeroMean)?,
                math::whiten(&x[0], &x[1], Whiten::KeepMean)?,
            ])
        }),
        function("Reduction of tokens", &[(F, "bt"), (M, "bt")], |x| {
            let none = math::masked(&x[0], &x[1].zeros_like()?)?;
            reductions(&none, &x[1])?;
            let loss = TokenLoss {
                loss: x[0].clone(),
                mask: x[1].zeros_like()?,
            };
            loss.reduce(Reduction::TokenMean)?;
            reductions(&x[0], &x[1].zeros_like()?)
        }),
        function("Reduction of examples", &[(F, "b"), (M, "b")], |x| {
            reductions(&x[0], &x[1])
        }),
        function("TokenLogProbs::new", &[(F, "bt"), (M, "bt")], |x| {
            of_tokens(&TokenLogProbs::new(&x[0], &x[1])?)
        }),
        function(
            "TokenLogProbs::next_token",
            &[(F, "btv"), (I, "bt"), (M, "bt")],
            |x| {
                of_tokens(&TokenLogProbs::next_token_with(
                    &x[0],
                    &x[1],
                    &x[2],
                    ALL_STATISTICS,
                )?)
            },
        ),
        function(
            "TokenLogProbs::aligned",
            &[(F, "btv"), (I, "bt"), (M, "bt")],
            |x| {
                of_tokens(&TokenLogProbs::aligned(
                    &x[0],
                    &x[1],
                    &x[2],
                    ALL_STATISTICS,
                )?)
            },
        ),
        function(
            "TokenLogProbs::from_hidden",
            &[(F, "btd"), (F, "vd"), (F, "v"), (I, "bt"), (M, "bt")],
            |x| {
                let head = OutputHead::new(&x[1], Some(&x[2]))?;
                let mut all = Vec::new();
                for ask in [ALL_STATISTICS, Statistics::default()] {
                    all.extend(of_tokens(&TokenLogProbs::from_hidden(
                        &x[0], &head, &x[3], &x[4], ask,
                    )?)?);
                }
                Ok(all)
            },
        ),
        function(
            "from_hidden, without a bias, frozen",
            &[(F, "btd"), (F, "vd"), (I, "bt"), (M, "bt")],
            |x| {
                let head = OutputHead::new(&x[1].detach(), None)?.with_soft_cap(2.0)?;
                of_tokens(&TokenLogProbs::from_hidden(
                    &x[0],
                    &head,
                    &x[2],
                    &x[3],
                    Statistics::default(),
                )?)
            },
        ),
        function("Pair", &[(F, "bt")], |x| {
            let pair = Pair::from_rows(&x[0])?;
            let loose = Pair {
                chosen: x[0].clone(),
                rejected: x[0].clone(),
            };
            Ok(vec![
                pair.chosen.clone(),
                pair.rejected.clone(),
                pair.margin()?,
                pair.accuracy()?,
                loose.margin()?,
                loose.accuracy()?,
            ])
        }),
        function(
            "Candidates::new",
            &[(F, "bk"), (F, "bk"), (F, "bk"), (M, "bk")],
            |x| {
                let mut all = of_candidates(&Candidates::new(&x[0], &x[1], &x[2], Some(&x[3]))?)?;
                all.extend(of_candidates(&Candidates::new(&x[0], &x[1], &x[2], None)?)?);
                Ok(all)
            },
        ),
        function(
            "Candidates::from_token_log_probs",
            &[(F, "bt"), (M, "bt"), (F, "b1"), (M, "b1")],
            |x| {
                let log_probs = TokenLogProbs::new(&x[0], &x[1])?;
                of_candidates(&Candidates::from_token_log_probs(
                    &log_probs,
                    &x[2],
                    Some(&x[3]),
                )?)
            },
        ),
        function("gae", &[(F, "bt"), (F, "bt"), (M, "bt")], |x| {
            let out = gae(&x[0], &x[1], &x[2], &GaeConfig::default())?;
            Ok(vec![out.advantages, out.returns])
        }),
        function(
            "shaped_rewards",
            &[(F, "bt"), (M, "bt"), (F, "bt"), (F, "b")],
            |x| {
                let old = TokenLogProbs::new(&x[0], &x[1])?;
                Ok(vec![shaped_rewards(
                    &old,
                    &x[2],
                    &x[3],
                    &Default::default(),
                )?])
            },
        ),
        function("missing_eos_penalty", &[(F, "b"), (M, "b")], |x| {
            Ok(vec![missing_eos_penalty(&x[0], &x[1], 1.0)?])
        }),
        function(
            "Rollout::experience",
            &[
                (F, "bt"),
                (M, "bt"),
                (F, "bt"),
                (F, "bt"),
                (F, "b"),
                (M, "b"),
            ],
            |x| {
                let rollout = Rollout {
                    old: TokenLogProbs::new(&x[0], &x[1])?,
                    reference: x[2].clone(),
                    values: x[3].clone(),
                    scores: x[4].clone(),
                    ended: Some(x[5].clone()),
                };
                of_experience(&rollout.experience(&ExperienceConfig::default())?)
            },
        ),
        function(
            "rlhf_loss",
            &[(F, "btv"), (I, "bt"), (M, "bt"), (F, "bt"), (F, "bt")],
            |x| {
                let new = TokenLogProbs::aligned(&x[0], &x[1], &x[2], ALL_STATISTICS)?;
                let experience = Experience {
                    mask: x[2].clone(),
                    old: x[3].clone(),
                    old_values: x[3].clone(),
                    kl: x[3].clone(),
                    rewards: x[3].clone(),
                    advantages: x[4].clone(),
                    returns: x[4].clone(),
                };
                of_experience(&experience)?;
                let config = RlhfConfig {
                    entropy: Some(EntropyConfig::default()),
                    ..Default::default()
                };
                let out = rlhf_loss(&new, &x[4], &experience, &config)?;
                let metrics = out.metrics()?;
                let mut all = of_policy_loss(&out.policy)?;
                all.extend([
                    out.loss.loss,
                    out.value.loss,
                    metrics.loss,
                    metrics.value_loss,
                ]);
                all.extend(metrics.entropy);
                Ok(all)
            },
        ),
        function(
            "kl_adjusted_rewards",
            &[(F, "bk"), (F, "bk"), (F, "bk")],
            |x| {
                let all = [0.0, 0.5]
                    .map(|beta| kl_adjusted_rewards(&x[0], &x[1], &x[2], &RaftConfig { beta }));
                all.into_iter().collect()
            },
        ),
        function("best_of_k, top_share", &[(F, "bk"), (M, "bk")], |x| {
            best_of_k(&x[0], Some(&x[1]))?;
            best_of_k(&x[0], None)?;
            top_share(&x[0], Some(&x[1]), 0.5)?;
            top_share(&x[0], None, 1.0)?;
            Ok(Vec::new())
        }),
        function(
            "ranking_accuracy",
            &[(F, "bk"), (F, "bk"), (M, "bk")],
            |x| {
                Ok(vec![
                    ranking_accuracy(&x[0], &x[1], Some(&x[2]))?,
                    ranking_accuracy(&x[0], &x[1], None)?,
                ])
            },
        ),
        function(
            "RewardHead::forward",
            &[(F, "btd"), (M, "bt"), (F, "1d"), (F, "1")],
            |x| {
                let head = RewardHead::from_tensors(&x[2], Some(&x[3]))?;
                Ok(vec![head.forward(&x[0], &x[1])?])
            },
        ),
        function("RewardNormalization", &[(F, "b")], |x| {
            let scale = RewardNormalization {
                gain: 2.0,
                bias: 1.0,
            };
            let applied = scale.apply(&x[0])?;
            RewardNormalization::zero_mean(&x[0])?;
            RewardNormalization::zero_mean_unit_variance(&x[0])?;
            Ok(vec![applied])
        }),
        function("RewardNormalization, variance", &[(F, "b")], |x| {
            RewardNormalization::zero_mean_unit_variance(&x[0])?;
            Ok(Vec::new())
        }),
        function("SamplingConfig::probabilities", &[(F, "bv")], |x| {
            Ok(vec![SamplingConfig::default().probabilities(&x[0])?])
        }),
        function("sample", &[(F, "1tv")], |x| {
            let config = SamplingConfig {
                max_new_tokens: 2,
                ..Default::default()
            };
            let mut rng = StdRng::seed_from_u64(0);
            let model = |_: &Tensor| Ok(x[0].clone());
            sample(model, &[[1u32]], &config, &Device::Cpu, &mut rng)?;
            Ok(Vec::new())
        }),
        function("c_rlft_loss", &[(F, "bt"), (M, "bt"), (F, "b")], |x| {
            let log_probs = TokenLogProbs::new(&x[0], &x[1])?;
            let out = c_rlft_loss(&log_probs, &x[2], &CRlftConfig::default())?;
            out.token_weight()?;
            out.sequence_weight()?;
            Ok(vec![
                out.token_mean()?,
                out.sequence_mean()?,
                out.weights,
                out.tokens.loss,
            ])
        }),
    ]
}

/// The size of each axis where it is not 0.
fn size(axis: char) -> usize {
    match axis {
        '1' => 1,
        'b' => 2,
        't' | 'd' => 3,
        _ => 4,
    }
}

#[test]
fn every_function_of_nothing_gives_what_can_be_read_or_names_its_argument() {
    for function in functions() {
        let mut axes: Vec<char> = function.inputs.iter().flat_map(|i| i.1.chars()).collect();
        axes.sort_unstable();
        axes.dedup();
        axes.retain(|axis| *axis != '1');
        for empty in 1..1usize << axes.len() {
            let none: Vec<char> = (0..axes.len())
                .filter(|i| empty >> i & 1 == 1)
                .map(|i| axes[i])
                .collect();
            let of = |axis: char| if none.contains(&axis) { 0 } else { size(axis) };
            let shapes: Vec<_> = function
                .inputs
                .iter()
                .map(|(role, axes)| (dtype(*role), axes.chars().map(of).collect::<Vec<_>>()))
                .collect();
            in_every_layout(&shapes, |layout, _, views| {
                let what = format!("{}, none of {none:?}, {layout}", function.name);
                match (function.call)(views) {
                    Ok(tensors) => {
                        for tensor in tensors {
                            // read as a user would: by an operation of candle
                            let read = tensor.to_dtype(DType::F32).and_then(|t| t.neg());
                            read.and_then(|t| t.flatten_all()?.to_vec1::<f32>())
                                .expect(&what);
                        }
                    }
                    Err(error) => names_an_argument(&error, &what),
                }
            });
        }
    }
}

#[test]
fn lists_of_no_rows_are_named_or_have_no_rows() {
    let mut rng = StdRng::seed_from_u64(0);
    let model = |_: &Tensor| -> Result<Tensor> { unreachable!("no row is left to predict") };
    let prompts: [&[u32]; 0] = [];
    let none = sample(
        model,
        &prompts,
        &SamplingConfig::default(),
        &Device::Cpu,
        &mut rng,
    )
    .unwrap();
    assert!(none.rows.is_empty());
    assert!(none.select(&[]).unwrap().rows.is_empty());
    let log_probs = none.log_probs(DType::F64, &Device::Cpu).unwrap();
    assert_eq!(log_probs.values().dims(), [0, 0]);
    assert_eq!(common::numbers(&log_probs.sum().unwrap()), [0f64; 0]);
    names_an_argument(&none.batch(0, &Device::Cpu).unwrap_err(), "Samples::batch");
    let refused = SequenceBatch::new(&[], 0, &Device::Cpu).unwrap_err();
    names_an_argument(&refused, "SequenceBatch::new");
    let refused = SequenceBatch::new(&[Sequence::new()], 0, &Device::Cpu).unwrap_err();
    names_an_argument(&refused, "SequenceBatch::new");
    for shape in [(0, 3), (2, 0), (0, 0)] {
        let config = ForgetfulConfig::default();
        let mask = forgetful_mask(shape, &config, &mut rng, &Device::Cpu).unwrap();
        assert_eq!(mask.dims(), [shape.0, shape.1]);
        let pairs = forgetful_pair_mask(shape, &config, &mut rng, &Device::Cpu).unwrap();
        assert_eq!(pairs.dims(), [shape.0, shape.1, shape.1]);
    }
    let none: [u32; 0] = [];
    let script = edit_script(&none, &none, &EditCosts::default()).unwrap();
    assert_eq!(script.apply(&none).unwrap(), none);
    let mut set = RefreshedSet::<u32>::new(1).unwrap();
    set.merge([]).unwrap();
    assert!(set.items().is_empty());
}
