//! Any number of ranks trains the same model.

use super::{Case, ada_lora, agree, is, lora};
use std::fs;
use train::checkpoint::settings::FreshAdapter;

/// One to four ranks.
fn law(objective: &str, adapter: Option<FreshAdapter>, sets: &[&str]) {
    let case = Case::new(objective, adapter, sets);
    for size in 1..=4 {
        let ends = case.run(&size.to_string(), size);
        assert_eq!(ends.len(), size);
        let own = case.settings.objective;
        assert!(ends.iter().all(|end| is(own, end)), "{objective}");
        if size > 1 {
            let what = format!("{objective} {sets:?}, {size} ranks");
            agree(&what, &case.out("1"), &case.out(&size.to_string()));
        }
    }
}

#[test]
fn texts() {
    law("sft", None, &[]);
    law("sft", lora(), &["fit.max_tokens=40"]);
}

#[test]
fn pairs() {
    law("dpo", None, &["precompute_ref_log_probs=true"]);
    law("dpo", lora(), &["fit.max_tokens=60"]);
}

#[test]
fn lists() {
    law("pro", None, &[]);
    law("pro", lora(), &[]);
}

#[test]
fn drawn_answers() {
    law("grpo", None, &["online.num_iterations=2"]);
    law(
        "grpo",
        lora(),
        &["online.beta=0.1", "online.scale_rewards=batch"],
    );
    law(
        "rloo",
        lora(),
        &["online.normalize_advantages=true", "online.beta=0"],
    );
}

/// What is over the answers of all ranks: values and their whitening, tokens of high entropy, prompts that make room.
#[test]
fn numbers_of_all_answers() {
    law("ppo", lora(), &["online.ppo.num_ppo_epochs=2"]);
    let all = [
        "online.top_entropy_quantile=0.5",
        "online.max_num_gen_batches=2",
    ];
    law("grpo", lora(), &all);
}

/// The allocator too: which triplets are left depends on gradients.
#[test]
fn triplets() {
    law("sft", ada_lora(), &[]);
    law("dpo", ada_lora(), &[]);
}

/// Most ranks have no row in most steps.
#[test]
fn ranks_without_rows() {
    let one = ["fit.batch=1", "fit.accumulation=1"];
    law("sft", lora(), &one);
    law("dpo", lora(), &one);
}

/// What a micro-batch has beside the loss of each row: KTO's baseline, BCO's mean reward, the tokens of chosen answers.
#[test]
fn numbers_of_micro_batches() {
    // its baseline is 0 until the policy has moved
    law("kto", lora(), &["fit.learning_rate=0.00002"]);
    law("bco", lora(), &[]);
    law("orpo", lora(), &[]);
    law("reward", lora(), &[]);
}

/// The same seed and the same number of ranks give the same bits, dropout and all.
#[test]
fn one_number_of_ranks_gives_one_result() {
    let adapter = super::keys(serde_json::json!({"r": 2, "lora_dropout": 0.2}));
    let case = Case::new("sft", adapter, &[]);
    let all = ["a", "b"].map(|name| {
        case.run(name, 3);
        let read = |file: &str| fs::read(case.out(name).join(file)).unwrap();
        [
            read("metrics.jsonl"),
            read("adapter/adapter_model.safetensors"),
            read("checkpoints/step-000020/optimizer.safetensors"),
        ]
    });
    assert!(all[0] == all[1]);
}
