//! The claims of the tour's second picture, on its quick run.

use crate::disturb::disturb;
use crate::tour_claims::{options, quiet, report, without_times};
use candle_align::training::grad_coverage;
use candle_core::{DType, Device, Tensor};
use clap::ValueEnum;
use parameters::picture::picture;
use support::adapters::adapt;
use support::transformer::Transformer;
use tour::lab::{Sizes, generator};
use tour::methods::Method;
use tour::parameters::{Family, Placed, Point};
use tour::{Choice, Options, parameters, run};

fn points() -> impl Iterator<Item = Point> {
    Family::ALL.into_iter().flat_map(Family::points)
}

fn placed(name: &str) -> &'static Placed {
    let found = report().points.iter().find(|p| p.entry.name == name);
    found.unwrap_or_else(|| panic!("no point `{name}`"))
}

/// E r, KL and regret.
fn numbers(placed: &Placed) -> (f64, f64, f64) {
    match (placed.entry.reward, placed.entry.kl, placed.entry.regret) {
        (Some(reward), Some(kl), Some(regret)) => (reward, kl, regret),
        _ => panic!("`{}` is not a policy", placed.entry.name),
    }
}

#[test]
fn every_method_and_size_has_its_point() {
    let names: Vec<String> = report()
        .points
        .iter()
        .map(|p| p.entry.name.clone())
        .collect();
    let expected: Vec<String> = points().map(Point::name).collect();
    assert_eq!(names, expected);
    let lora = report().points.iter().filter(|p| p.method == Family::Lora);
    let ranks: Vec<_> = lora.map(|p| p.size).collect();
    assert_eq!(ranks, [1, 2, 4, 8].map(Some));
}

/// From the formulas, not from the layers.
#[test]
fn as_many_numbers_learn_as_the_formulas_say() {
    let c = Sizes::quick().model;
    let (d, m, l) = (c.dim, c.feed_forward, c.layers);
    // Σ in + out, and Σ out, over qkv, output, up and down
    let (sides, outputs) = (4 * d + 2 * d + 2 * (d + m), 3 * d + d + m + d);
    for p in &report().points {
        let size = p.size.unwrap_or(0);
        let expected = match p.method {
            // the token and position tables, the norms, the four maps, the head
            Family::Full => {
                let block = 3 * d * d + d * d + 2 * d * m + 2 * d;
                2 * c.vocabulary * d + c.max_len * d + d + l * block
            }
            Family::Prefix => 2 * size * d * l,
            Family::Prompt => size * d,
            Family::Adapter => 2 * l * (2 * size * d + size + d),
            Family::Mam => l * (2 * size * d + 2 * size * d),
            // half an adapter and half LoRA on qkv; all biases, then half of the rest a prefix and
            // half LoRA
            Family::DesignSpace => {
                let (adapter, position, rank) = (2 * d, 2 * d, d + 3 * d);
                let whole = |share: usize, unit: usize| share / unit * unit;
                let (first, last) = (size / 2, (size - outputs) / 2);
                whole(first, adapter)
                    + whole(first, rank)
                    + outputs
                    + whole(last, position)
                    + whole(last, rank)
            }
            Family::BitFit => l * outputs,
            Family::Lora | Family::Qlora => l * size * sides,
            Family::AdaLora => l * (size * 3 / 2) * (sides + 4),
            Family::Dora => l * (size * sides + outputs),
            Family::Ia3 => l * (3 * d + m),
            Family::Vera => l * (4 * size + outputs),
        };
        assert_eq!(p.trained, expected, "{}", p.entry.name);
    }
}

#[test]
fn everything_that_is_counted_gets_a_gradient_and_nothing_else() {
    let sizes = Sizes::quick();
    let base = Transformer::new(&sizes.model, DType::F32, &mut generator(3, 0));
    let base = base.and_then(|model| model.frozen()).expect("a model");
    let tokens: Vec<u32> = (0..60u32).map(|i| (i * 7 + i / 5) % 8).collect();
    let tokens = Tensor::from_vec(tokens, (12, 5), &Device::Cpu).expect("60 numbers");
    for point in points() {
        let Some(config) = point.adapter() else {
            continue;
        };
        let adapted = adapt(&base, &config, &mut generator(3, 1)).expect("an adapter");
        disturb(&adapted);
        let loss = adapted.model.forward(&tokens).and_then(|out| {
            let weights = out.logits.ones_like()?.cumsum(2)?.sin()?;
            Ok((out.logits.sqr()? * weights)?.mean_all()?)
        });
        let grads = loss.expect("a loss").backward().expect("backward");
        let coverage = grad_coverage(&adapted.vars(), &grads).expect("coverage");
        assert!(coverage.is_complete(), "{}: {coverage}", point.name());
        for (name, weight) in adapted.model.weights() {
            assert!(grads.get(weight).is_none(), "{}: {name}", point.name());
        }
    }
}

#[test]
fn no_point_is_above_the_frontier() {
    for p in &report().points {
        let (reward, kl, regret) = numbers(p);
        assert!(regret > -1e-9 && kl > -1e-12, "{}: {regret}", p.entry.name);
        let total = p.entry.total.expect("enumerated");
        assert!((total - 1.0).abs() < 1e-12, "{}: {total}", p.entry.name);
        let identity = p.entry.identity.expect("a policy");
        assert!((regret - identity).abs() < 1e-9, "{}", p.entry.name);

        // β·KL(π‖π_β) = the largest E r − β·KL minus this one's, and at least the regret
        let (beta, target) = (report().beta, &report().target);
        let lacks = (target.reward - beta * target.kl) - (reward - beta * kl);
        assert!((p.shortfall - lacks).abs() < 1e-9, "{}", p.entry.name);
        assert!(p.shortfall > regret - 1e-9, "{}", p.entry.name);
    }
}

/// Whatever is trained, DPO ends nearer to its optimum than the reference is.
#[test]
fn every_point_comes_nearer_to_the_aim() {
    let (beta, target) = (report().beta, &report().target);
    let reference = report().entries[0].reward.expect("the reference");
    let start = target.reward - beta * target.kl - reference;
    for p in &report().points {
        assert!(
            p.shortfall < 0.98 * start,
            "{}: {}",
            p.entry.name,
            p.shortfall
        );
    }
    for name in ["full", "lora-4"] {
        assert!(placed(name).shortfall < 0.8 * start, "{name}");
    }
}

#[test]
fn adalora_keeps_its_budget() {
    for p in &report().points {
        // the rank's number of triplets, on average, for each of the four maps of two blocks
        let budget = p.size.map(|rank| 4 * 2 * rank);
        let budget = budget.filter(|_| p.method == Family::AdaLora);
        assert_eq!(p.left, budget, "{}", p.entry.name);
    }
}

#[test]
fn one_method_alone_gives_the_same_points() {
    let only = Options {
        only: Vec::new(),
        families: vec![Family::Prefix, Family::AdaLora],
        ..options()
    };
    let some = without_times(&run(&only, &quiet()).expect("the tour runs"));
    let names: Vec<&str> = some.points.iter().map(|p| p.entry.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "prefix-1",
            "prefix-4",
            "prefix-16",
            "adalora-2",
            "adalora-8"
        ]
    );
    let all = without_times(report());
    assert!(some.points.iter().all(|p| all.points.contains(p)));
    assert_eq!(some.entries.len(), 1);
    assert_eq!(some.entries, all.entries[..1]);
}

#[test]
fn every_name_of_the_command_line_is_one_of_a_kind() {
    let names: Vec<String> = Choice::value_variants()
        .iter()
        .map(|c| c.to_possible_value().expect("shown").get_name().to_string())
        .collect();
    assert_eq!(names.len(), Method::ALL.len() + Family::ALL.len());
    for (at, name) in names.iter().enumerate() {
        assert!(!names[..at].contains(name), "{name}");
        let choice = Choice::from_str(name, false).expect("its own name");
        assert_eq!(choice.method().is_some(), at < Method::ALL.len(), "{name}");
        assert_eq!(choice.family().is_none(), at < Method::ALL.len(), "{name}");
    }
    assert!(Choice::from_str("lora-4", false).is_err());
}

#[test]
fn the_picture_has_every_method_and_a_mark_for_every_point() {
    let drawn = picture(report());
    for family in Family::ALL {
        assert!(drawn.contains(family.label()), "{family:?}");
    }
    let marks = drawn.matches("stroke=\"white\" stroke-width=\"1.5\"");
    assert_eq!(marks.count(), 2 * report().points.len());
    assert!(!drawn.contains("NaN"));
    let text = parameters::text(&report().points);
    assert_eq!(text.lines().count(), 1 + report().points.len());
    let none = Options {
        only: vec![Method::Dpo],
        families: Vec::new(),
        steps: Some(1),
        ..options()
    };
    let none = run(&none, &quiet()).expect("the tour runs");
    assert_eq!(picture(&none), "");
    assert_eq!(parameters::html(&none), "");
}

#[test]
fn the_report_says_of_every_point_what_it_is() {
    let json = serde_json::to_value(report()).expect("json");
    let points = json["points"].as_array().expect("a list");
    assert_eq!(points.len(), report().points.len());
    for p in points {
        for key in ["trained", "reward", "kl", "regret", "shortfall", "seconds"] {
            assert!(p[key].is_number(), "{}: {key}", p["name"]);
        }
        assert!(p["method"].is_string() && p["section"].is_string());
        assert_eq!(p["settings"]["loss"]["beta"], 0.5);
        assert!(p["seconds"].as_f64() > Some(0.0));
        // everything, or an adapter with its settings
        assert_eq!(p["settings"]["adapter"].is_null(), p["method"] == "full");
    }
    let lora = points.iter().find(|p| p["name"] == "lora-4").expect("lora");
    assert_eq!(lora["settings"]["adapter"]["lora"]["rank"], 4);
    assert_eq!(
        (&lora["section"], &lora["size"]),
        (&"3.3".into(), &4.into())
    );
}
