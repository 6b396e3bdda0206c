//! The table of losses. A new loss is a new file here with a few rows: its default, a setting off
//! the default, the point where training starts, a tie or a kink's neighbourhood.

use super::Row;

mod dpo;
mod ppo;
mod pro;
mod reward_model;
mod rrhf;
mod sft;
mod slic;

pub fn all() -> Vec<Row> {
    let mut rows = Vec::new();
    rows.extend(sft::rows());
    rows.extend(reward_model::rows());
    rows.extend(ppo::rows());
    rows.extend(dpo::rows());
    rows.extend(pro::rows());
    rows.extend(slic::rows());
    rows.extend(rrhf::rows());
    rows
}
