#![doc = include_str!("since.md")]
