//! One step of AdamW over the decoder's 80 million parameters, here or in candle.

use super::{Measured, decoder, measure, numbers};
use candle_align::Result;
use candle_align::training::{AdamW, AdamWConfig, ParameterGroup};
use candle_core::backprop::GradStore;
use candle_nn::Optimizer;

/// `80M ours` or `80M candle`.
pub fn step(name: &str) -> Result<Measured> {
    let model = decoder()?;
    let vars = model.vars();
    let mut grads = GradStore::default();
    for (_, var) in &vars {
        grads.insert(var, numbers(var.dims(), 0.01));
    }
    if name.ends_with("ours") {
        let groups = vec![ParameterGroup::new(vars, 0.01)];
        let mut optimizer = AdamW::new(groups, AdamWConfig::default())?;
        return measure(|| Ok(()), |()| optimizer.step(&grads));
    }
    let vars = vars.into_iter().map(|(_, var)| var).collect();
    let mut optimizer = candle_nn::AdamW::new(vars, candle_nn::ParamsAdamW::default())?;
    measure(|| Ok(()), |()| Ok(optimizer.step(&grads)?))
}
