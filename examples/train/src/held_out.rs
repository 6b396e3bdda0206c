//! The evaluation on held-out examples.

use super::error::Result;
use super::metric::Mean;
use super::micro_batches::{micro_batches, window};
use super::objectives::forward;
use super::objectives::language::opinion;
use super::objectives::order::Ordered;
use super::report::Scores;
use super::trainer::Phase;

/// The scores of all held-out examples.
pub fn scores(phase: &Phase) -> Result<Scores> {
    let (task, reference) = (&phase.task, phase.reference.as_ref());
    let size = task.settings.micro_batch;
    let frozen = phase.model.frozen()?;
    let model = frozen.as_ref().unwrap_or(phase.model);
    let batches = micro_batches(&phase.held_out.iter().collect::<Vec<_>>(), size)?;
    let reduction = task.objective.reduction().over(window(task, &batches)?);
    let mut loss = 0.0;
    let mut ordered = Ordered::default();
    let (mut best, mut best_bad_words) = (Mean::default(), Mean::default());
    for batch in &batches {
        let out = forward(task, model, reference, batch)?;
        let part = reduction.apply(&out.loss, &out.mask)?;
        loss += f64::from(part.to_scalar::<f32>()?);
        ordered.add(&out.scores, batch)?;
        best.add(out.best.as_ref())?;
    }
    for batch in &micro_batches(&phase.probes.iter().collect::<Vec<_>>(), size)? {
        let opinion = opinion(task, model, batch)?;
        ordered.add(&opinion.scores, batch)?;
        if let Some([good, bad]) = opinion.best {
            best.add(Some(&good))?;
            best_bad_words.add(Some(&bad))?;
        }
    }
    Ok(Scores {
        loss,
        accuracy: ordered.accuracy(),
        best_log_prob: best.value(),
        best_log_prob_bad_words: best_bad_words.value(),
    })
}
