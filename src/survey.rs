#![doc = include_str!("survey.md")]
