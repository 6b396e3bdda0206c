//! AdamW against candle's in a program with the system allocator: the same comparison as
//! `cargo bench --bench kernels -- --only adamw`, without mimalloc.
//!
//! ```text
//! cargo bench --bench system_allocator
//! ```

#[allow(dead_code)]
mod harness;

use harness::adamw::step;
use harness::{Group, compare};

const GROUPS: [Group; 1] = [("adamw", &["80M ours", "80M candle"], &[])];

fn main() {
    let results = compare(&GROUPS, |_, name| step(name));
    if let (Some(ours), Some(candle)) = (
        results.get("adamw 80M ours"),
        results.get("adamw 80M candle"),
    ) {
        println!("\ncandle / ours: {:.1}", candle.1 / ours.1);
    }
}
