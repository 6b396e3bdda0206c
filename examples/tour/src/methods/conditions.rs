//! Methods with a word before the answer that says how good it is: conditional SFT, C-RLFT, Chain of
//! Hindsight.
//!
//! The measured policy is the one after the good word. It is a distribution over answers like any
//! other, and is enumerated in the same way. At first the word means nothing to the model, so the
//! paths of these methods do not begin at the reference.

use super::Title;
use crate::Result;
use crate::lab::{Lab, Optimization, Ran, Score, generator};
use crate::report::Entry;
use crate::world::{Answer, PROMPTS, PerAnswer, STOP, encode};
use candle_align::language::LearnedAnswers;
use candle_align::language::chain_of_hindsight::{
    HindsightFeedback, HindsightFormat, HindsightOrder, HindsightPair, hindsight_prompt,
    hindsight_sequence,
};
use candle_align::language::conditional_sft::ClassWeighting;
use candle_align::language::conditional_sft::{ClassPrompt, Turn};
use candle_align::language::forgetful::forgetful_mask;
use candle_align::{
    CRlftConfig, ForgetfulConfig, HindsightConfig, Reduction, Sequence, SequenceBatch, SftConfig,
    TokenLogProbs, c_rlft_loss, chain_of_hindsight_loss, sft_loss,
};
use candle_core::{Device, Tensor};
use indicatif::MultiProgress;
use rand::Rng;
use rand::rngs::StdRng;
use serde::Serialize;
use std::time::Instant;
use support::transformer::Transformer;

/// The word for the better class, or the better answer.
pub const GOOD: &str = "+";
/// The word for the other.
pub const BAD: &str = "-";

/// The share of the reference's answers to a prompt that make up the good class.
const GOOD_SHARE: f64 = 0.25;

/// Settings of a run on answers with their class.
#[derive(Serialize)]
struct ClassSettings<L> {
    loss: L,
    good: ClassPrompt,
    ordinary: ClassPrompt,
    good_class: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    class_weights: Option<[f32; 2]>,
    answers_per_step: usize,
    #[serde(flatten)]
    plan: Optimization,
}

impl<L> ClassSettings<L> {
    fn new(lab: &Lab, loss: L) -> Self {
        let class = |word: &str| ClassPrompt {
            user: String::new(),
            assistant: word.into(),
        };
        Self {
            loss,
            good: class(GOOD),
            ordinary: class(BAD),
            good_class: "the best quarter of the reference's answers, by the reward model",
            class_weights: None,
            answers_per_step: lab.sizes.batch * 2,
            plan: lab.plan(6e-3),
        }
    }
}

pub fn conditional(lab: &Lab, title: Title, bars: &MultiProgress) -> Result<Entry> {
    let config = SftConfig::default();
    let settings = ClassSettings::new(lab, &config);
    on_classes(lab, title, bars, (settings, 40), |log_probs, _| {
        let loss = sft_loss(log_probs, None, &config)?;
        Ok(loss.reduce(Reduction::SequenceMean)?)
    })
}

/// Weights 1 and 0.1, as in the authors' data. They act only through the parameters that the classes
/// share.
pub fn c_rlft(lab: &Lab, title: Title, bars: &MultiProgress) -> Result<Entry> {
    let config = CRlftConfig {
        weighting: ClassWeighting::Linear,
    };
    let weights = [1.0, 0.1];
    let mut settings = ClassSettings::new(lab, &config);
    settings.class_weights = Some(weights);
    on_classes(lab, title, bars, (settings, 41), |log_probs, good| {
        let rewards: Vec<f32> = good.iter().map(|&g| weights[usize::from(!g)]).collect();
        let rewards = Tensor::from_vec(rewards, good.len(), &Device::Cpu)?;
        let loss = c_rlft_loss(log_probs, &rewards, &config)?;
        let count = loss.token_weight()?;
        Ok(loss.tokens.reduce(Reduction::SumOver { count })?)
    })
}

/// Answers of the reference after the word of their class; `loss` knows which are good.
fn on_classes<L: Serialize>(
    lab: &Lab,
    title: Title,
    bars: &MultiProgress,
    (settings, purpose): (ClassSettings<L>, u64),
    loss: impl Fn(&TokenLogProbs, &[bool]) -> Result<Tensor>,
) -> Result<Entry> {
    let best = best_share(lab, &lab.wait_for_learned()?.scores, GOOD_SHARE);
    let asked: Vec<Vec<u32>> = (0..PROMPTS)
        .map(|p| {
            settings
                .good
                .prompt(&encode, &lab.world.prompt_text(p), STOP)
        })
        .collect::<Result<_, _>>()?;
    let mut rng = generator(lab.seed, purpose);
    let plan = settings.plan;
    behind(lab, title, bars, (&settings, plan), &asked, |policy| {
        let (mut sequences, mut good) = (Vec::new(), Vec::new());
        for _ in 0..settings.answers_per_step {
            let answer = lab.draw(rng.random_range(0..PROMPTS), &mut rng);
            let is_good = best[answer.prompt][answer.outcome];
            let class = match is_good {
                true => &settings.good,
                false => &settings.ordinary,
            };
            let turn = Turn {
                user: &lab.world.prompt_text(answer.prompt),
                assistant: &lab.world.text(answer.outcome),
            };
            sequences.push(class.sequence(&encode, &[turn], STOP, LearnedAnswers::Every)?);
            good.push(is_good);
        }
        loss(&log_probs(policy, &sequences, None)?, &good)
    })
}

/// Settings of Chain of Hindsight.
#[derive(Serialize)]
struct HindsightSettings {
    loss: HindsightConfig,
    format: HindsightFormat,
    forgetful: ForgetfulConfig,
    pretraining_text: &'static str,
    texts_per_step: usize,
    pairs_per_step: usize,
    #[serde(flatten)]
    plan: Optimization,
}

pub fn hindsight(lab: &Lab, title: Title, bars: &MultiProgress) -> Result<Entry> {
    let feedback = HindsightFeedback {
        good: GOOD.into(),
        bad: BAD.into(),
    };
    let asked: Vec<Vec<u32>> = (0..PROMPTS)
        .map(|p| hindsight_prompt(&encode, &lab.world.prompt_text(p), &feedback))
        .collect::<Result<_, _>>()?;
    let plan = lab.plan(6e-3);
    let settings = HindsightSettings {
        loss: HindsightConfig {
            pretraining_weight: Some(1.5), // the paper's
        },
        format: HindsightFormat {
            feedback,
            order: HindsightOrder::GoodThenBad,
            learned: LearnedAnswers::Every,
        },
        forgetful: ForgetfulConfig::default(),
        pretraining_text: "demonstrations",
        texts_per_step: lab.sizes.batch / 2,
        pairs_per_step: lab.sizes.batch,
        plan,
    };
    let mut rng = generator(lab.seed, 42);
    behind(lab, title, bars, (&settings, plan), &asked, |policy| {
        let answers = lab.pair_batch(&mut rng);
        let (chosen, rejected) = answers.split_at(settings.pairs_per_step);
        let sequences = chosen.iter().zip(rejected).map(|(good, bad)| {
            let pair = HindsightPair {
                prompt: &lab.world.prompt_text(good.prompt),
                good: &lab.world.text(good.outcome),
                bad: &lab.world.text(bad.outcome),
            };
            hindsight_sequence(&encode, &pair, &settings.format, STOP)
        });
        let sequences: Vec<Sequence> = sequences.collect::<Result<_, _>>()?;
        let forgetful = Some((&settings.forgetful, &mut rng));
        let hindsight = log_probs(policy, &sequences, forgetful)?;
        let texts: Vec<Answer> = lab.demonstrations(settings.texts_per_step, &mut rng);
        let texts = lab.log_probs(policy, &texts)?;
        let loss = chain_of_hindsight_loss(&hindsight, Some(&texts), &settings.loss)?;
        Ok(loss.reduce(Reduction::TokenMean)?)
    })
}

/// Starts at the reference. The policy is what the model answers after each of these contexts, one
/// per prompt.
fn behind(
    lab: &Lab,
    title: Title,
    bars: &MultiProgress,
    (settings, plan): (&impl Serialize, Optimization),
    contexts: &[Vec<u32>],
    mut loss: impl FnMut(&Transformer) -> Result<Tensor>,
) -> Result<Entry> {
    let start = Instant::now();
    let policy = lab.reference.trainable()?;
    let curve = lab.train(
        title.label,
        plan,
        policy.vars(),
        bars,
        |_| loss(&policy),
        |lab| {
            let table = lab.world.tabulate_behind(&policy, contexts)?;
            lab.place_of(&table.within_answers())
        },
    )?;
    let table = lab.world.tabulate_behind(&policy, contexts)?;
    let log_p = lab.world.log_probs(&table.within_answers());
    let ran = Ran::new(title, settings, curve, start)?;
    let mut entry = lab.entry(ran, &log_p, &lab.score(&log_p, Score::LogRatio));
    entry.escaped = Some(table.escaped(&lab.world));
    Ok(entry)
}

/// Token log-probabilities of sequences, under the softmax over the whole vocabulary.
pub fn log_probs(
    policy: &Transformer,
    sequences: &[Sequence],
    forgetful: Option<(&ForgetfulConfig, &mut StdRng)>,
) -> Result<TokenLogProbs> {
    let batch = SequenceBatch::new(sequences, STOP, &Device::Cpu)?;
    let visible = match forgetful {
        Some((config, rng)) => Some(forgetful_mask(
            batch.tokens.dims2()?,
            config,
            rng,
            &Device::Cpu,
        )?),
        None => None,
    };
    let logits = policy.forward_with(&batch.tokens, visible.as_ref())?.logits;
    Ok(TokenLogProbs::next_token(
        &logits,
        &batch.tokens,
        &batch.mask,
    )?)
}

/// Which answers to each prompt are among the best by some score, such that the reference gives one
/// of them with this probability.
pub fn best_share(lab: &Lab, scores: &PerAnswer, share: f64) -> Vec<Vec<bool>> {
    let of_prompt = |(scores, log_p): (&Vec<f64>, &Vec<f64>)| {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let mut best = vec![false; scores.len()];
        let mut mass = 0.0;
        for outcome in order {
            if mass >= share {
                break;
            }
            best[outcome] = true;
            mass += log_p[outcome].exp();
        }
        best
    };
    let tables = scores.iter().zip(&lab.reference_log_probs);
    tables.map(of_prompt).collect()
}
