//! Whether the base stores the weight of a module as `[out, in]` or `[in, out]`.
//!
//! A linear layer stores `[out, in]`. GPT-2's own layer, `Conv1D`, stores `[in, out]`, and its output
//! layer is linear again. `fan_in_fan_out` is one setting for the whole adapter, and PEFT writes the value
//! that the last module needed. So the base decides where it can.

use super::PREFIX;
use super::load::Loader;
use super::settings::Settings;
use crate::error::Result;
use crate::parameter_efficient::ia3::Ia3Place;
use candle_core::Tensor;
use std::collections::HashMap;

/// The `Conv1D` modules of a GPT-2 block; first those whose shape shows the layout.
const CONV1D: [&str; 7] = [
    "attn.c_attn",
    "mlp.c_fc",
    "mlp.c_proj",
    "crossattention.c_attn",
    "attn.c_proj",
    "crossattention.q_attn",
    "crossattention.c_proj",
];

/// The path of the block, such as `transformer.h.0`, for a module with such a name.
fn block(path: &str) -> Option<&str> {
    let block = CONV1D.iter().find_map(|name| path.strip_suffix(name))?;
    let block = block.strip_suffix('.')?;
    let (above, number) = block.rsplit_once('.')?;
    let numbered = number.parse::<usize>().is_ok();
    (numbered && (above == "h" || above.ends_with(".h"))).then_some(block)
}

/// Whether the modules of a block store `[in, out]`; in other models linear layers have these names.
/// `Conv1D` always has a bias, whose length is the number of outputs.
fn turned(base: &HashMap<String, Tensor>, block: &str) -> Option<bool> {
    let of = |name: &str, parameter: &str| base.get(&format!("{block}.{name}.{parameter}"));
    let mut without_bias = false;
    for name in CONV1D {
        let nf4 = of(name, "weight.quant_state.bitsandbytes__nf4").is_some();
        let Some(&[first, second]) = of(name, "weight").map(Tensor::dims).filter(|_| !nf4) else {
            continue;
        };
        match of(name, "bias").map(Tensor::elem_count) {
            Some(_) if first == second => {}
            Some(bias) if bias == second => return Some(true),
            Some(bias) if bias == first => return Some(false),
            Some(_) => {}
            None => without_bias = true,
        }
    }
    without_bias.then_some(false)
}

impl Loader<'_> {
    /// Whether the base stores the weight of a module as `[in, out]`; `setting` is `fan_in_fan_out`.
    pub(super) fn is_turned(&mut self, path: &str, setting: bool) -> Result<bool> {
        let own = block(path);
        if let Some(block) = own
            && let Some(turned) = turned(&self.base, block)
        {
            return Ok(turned);
        }
        let blocks = self
            .base
            .keys()
            .filter_map(|name| name.strip_suffix(".weight"));
        let mut blocks = blocks.filter_map(block);
        // beside `Conv1D`, GPT-2 has only linear layers
        if own.is_none()
            && (!setting || blocks.any(|found| turned(&self.base, found) == Some(true)))
        {
            return Ok(false);
        }
        let square = matches!(self.base[&format!("{path}.weight")].dims(), [a, b] if a == b);
        if square && own.is_some() != setting {
            self.question(
                "fan_in_fan_out",
                format!(
                    "is {setting}, and nothing in `base` tells whether it keeps `{path}.weight`, which \
                     is square, as `[out, in]` or as `[in, out]`; a lenient reader takes the setting's \
                     word"
                ),
            )?;
        }
        Ok(setting)
    }

    /// Whether the tensors of a module can fit it. If they fit only in the other layout, that is a problem,
    /// and the message names the setting.
    pub(super) fn check_layout(&mut self, path: &str, settings: &Settings) -> Result<bool> {
        let turned = self.turned.contains(path);
        let weight = format!("{path}.weight");
        let quantized = format!("{weight}.quant_state.bitsandbytes__nf4");
        let &[first, second] = self.base[&weight].dims() else {
            return Ok(true);
        };
        let (outputs, inputs) = match turned {
            true => (second, first),
            false => (first, second),
        };
        let (name, shape, other) = match settings {
            Settings::Lora(config, _) => {
                let rank = config.rank;
                ("lora_A.weight", vec![rank, inputs], vec![rank, outputs])
            }
            Settings::AdaLora(file) => {
                let kept = file
                    .kept
                    .get(path)
                    .map(|kept| kept.iter().filter(|k| **k).count());
                let rank = kept.unwrap_or(file.model.config.rank);
                ("lora_A", vec![rank, inputs], vec![rank, outputs])
            }
            Settings::Ia3(Ia3Place::Output) => ("ia3_l", vec![outputs, 1], vec![inputs, 1]),
            Settings::Ia3(Ia3Place::Input) => ("ia3_l", vec![1, inputs], vec![1, outputs]),
            Settings::Vera(_) => ("vera_lambda_b", vec![outputs], vec![inputs]),
        };
        let name = format!("{PREFIX}{path}.{name}");
        let found = self.left.get(&name).map(Tensor::dims);
        if self.base.contains_key(&quantized) || shape == other || found != Some(&other[..]) {
            return Ok(true);
        }
        let said = if turned { "false" } else { "true" };
        let dims = self.base[&weight].dims();
        let text = format!(
            "holds `{name}` of shape {other:?}, expected {shape:?}: over `{weight}` of shape {dims:?} it \
             fits as `fan_in_fan_out` = {said} would have it"
        );
        self.left.remove(&name);
        self.problem(text)?;
        Ok(false)
    }
}
