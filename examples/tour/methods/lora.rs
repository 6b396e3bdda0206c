//! DPO through LoRA.

use crate::tour::Result;
use crate::tour::lab::Lab;
use crate::tour::report::Entry;
use indicatif::MultiProgress;

pub fn run(_lab: &Lab, _bars: &MultiProgress) -> Result<Entry> {
    Err("not yet".into())
}
