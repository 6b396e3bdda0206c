//! The second picture: the same objective through every method of the survey's §3.3.
//!
//! DPO with the same β over the same frozen reference, on the same pairs in the same order, for the
//! same number of steps. Only the trained parameters differ. A [`Point`] is one method at one size.
//!
//! | family | size | trained parameters; d = width, m = inner width, l = blocks |
//! |---|---|---|
//! | everything | – | all of the model |
//! | prefix | keys and values per block | 2·p·d·l |
//! | prompt | vectors before the input | p·d |
//! | adapter | width inside, at both parts | 2·(2·r·d + r + d)·l |
//! | MAM | width of both, at attention and feed-forward | 2·p·d·l + 2·r·d·l, p = r |
//! | design space | budget per block | a little less than the budget, because shares are whole numbers |
//! | BitFit | – | Σ out |
//! | LoRA, QLoRA | rank | Σ r·(in + out) |
//! | AdaLoRA | final mean rank, from 3/2 as much | Σ ³⁄₂r·(in + out + 1) |
//! | DoRA | rank | Σ r·(in + out) + out |
//! | (IA)³ | – | 3·d·l + m·l |
//! | VeRA | rank, frozen except for a diagonal | Σ r + out |
//!
//! Sums are over the four linear maps of every block: in, out are d, 3d · d, d · d, m · m, d.

pub mod picture;
mod run;
mod table;

pub use run::{Placed, run};
pub use table::{html, text};

use super::methods::{Section, Title};
use candle_align::parameter_efficient::{
    AdaLoraConfig, BottleneckConfig, DesignSpaceConfig, Grouping, Ia3ForModel, LoraConfig,
    MamConfig, Placement, PrefixConfig, PromptConfig, Reparametrization, TargetModules, Targets,
    VeraConfig,
};
use clap::ValueEnum;
use serde::Serialize;
use support::adapters::AdapterSettings;

/// The method, without its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// Everything: the anchor.
    Full,
    Prefix,
    Prompt,
    Adapter,
    Mam,
    DesignSpace,
    #[value(name = "bitfit")]
    #[serde(rename = "bitfit")]
    BitFit,
    Lora,
    Qlora,
    #[value(name = "adalora")]
    #[serde(rename = "adalora")]
    AdaLora,
    Dora,
    Ia3,
    Vera,
}

/// One method at one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    pub family: Family,
    /// 0 if the method has no size.
    pub size: usize,
}

impl Family {
    /// In the order of the survey; DoRA, (IA)³ and VeRA are not in it.
    pub const ALL: [Self; 13] = [
        Self::Full,
        Self::Prefix,
        Self::Prompt,
        Self::Adapter,
        Self::Mam,
        Self::DesignSpace,
        Self::BitFit,
        Self::Lora,
        Self::Qlora,
        Self::AdaLora,
        Self::Dora,
        Self::Ia3,
        Self::Vera,
    ];

    /// In `report.json` and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Prefix => "prefix",
            Self::Prompt => "prompt",
            Self::Adapter => "adapter",
            Self::Mam => "mam",
            Self::DesignSpace => "design-space",
            Self::BitFit => "bitfit",
            Self::Lora => "lora",
            Self::Qlora => "qlora",
            Self::AdaLora => "adalora",
            Self::Dora => "dora",
            Self::Ia3 => "ia3",
            Self::Vera => "vera",
        }
    }

    /// In the picture.
    pub fn label(self) -> &'static str {
        match self {
            Self::Full => "everything",
            Self::Prefix => "prefix",
            Self::Prompt => "prompt",
            Self::Adapter => "adapter",
            Self::Mam => "MAM",
            Self::DesignSpace => "design space",
            Self::BitFit => "BitFit",
            Self::Lora => "LoRA",
            Self::Qlora => "QLoRA",
            Self::AdaLora => "AdaLoRA",
            Self::Dora => "DoRA",
            Self::Ia3 => "(IA)³",
            Self::Vera => "VeRA",
        }
    }

    /// Without a size.
    fn title(self) -> Title {
        Title {
            name: self.name(),
            label: self.label(),
            section: match self {
                Self::Full => Section::Ranking,
                _ => Section::Parameters,
            },
        }
    }

    /// What its sizes measure; none if the method has no size.
    fn unit(self) -> Option<&'static str> {
        match self {
            Self::Full | Self::BitFit | Self::Ia3 => None,
            Self::Prefix | Self::Prompt => Some("length"),
            Self::Adapter | Self::Mam => Some("width"),
            Self::DesignSpace => Some("per block"),
            Self::Lora | Self::Qlora | Self::AdaLora | Self::Dora | Self::Vera => Some("rank"),
        }
    }

    /// The sizes that are run, smallest first.
    fn sizes(self) -> &'static [usize] {
        match self {
            Self::Full | Self::BitFit | Self::Ia3 => &[0],
            Self::Prompt => &[1, 4, 8],
            Self::Prefix | Self::Adapter => &[1, 4, 16],
            Self::Mam => &[4, 16],
            Self::DesignSpace => &[512, 2048],
            Self::Lora => &[1, 2, 4, 8],
            Self::Qlora | Self::AdaLora | Self::Dora => &[2, 8],
            Self::Vera => &[8, 128],
        }
    }

    pub fn points(self) -> impl Iterator<Item = Point> {
        let sizes = self.sizes().iter();
        sizes.map(move |&size| Point { family: self, size })
    }

    /// Chosen among 0.01, 0.03 and 0.1 by the shortfalls of its sizes, in the world of another seed.
    fn learning_rate(self) -> f64 {
        match self {
            Self::Full | Self::Lora | Self::Qlora | Self::Dora => 0.01,
            Self::AdaLora | Self::Adapter | Self::Mam | Self::DesignSpace => 0.03,
            Self::BitFit | Self::Ia3 | Self::Vera | Self::Prefix | Self::Prompt => 0.1,
        }
    }
}

impl Point {
    /// The stream of random numbers.
    fn purpose(self) -> u64 {
        1000 * (1 + self.family as u64) + self.size as u64
    }

    /// `lora-4`.
    pub fn name(self) -> String {
        match self.family.unit() {
            None => self.family.name().into(),
            Some(_) => format!("{}-{}", self.family.name(), self.size),
        }
    }

    /// `LoRA, rank 4`.
    pub fn label(self) -> String {
        let label = self.family.label();
        match self.family.unit() {
            None => label.into(),
            Some("per block") => format!("{label}, {} per block", self.size),
            Some(unit) => format!("{label}, {unit} {}", self.size),
        }
    }

    /// The adapter on the reference; none if the reference itself is trained.
    pub fn adapter(self) -> Option<AdapterSettings> {
        let size = self.size;
        let names = |names: &[&str]| {
            TargetModules::Names(names.iter().map(|name| name.to_string()).collect())
        };
        // s = 2 at every rank
        let lora = LoraConfig {
            rank: size,
            alpha: 2.0 * size as f64,
            ..Default::default()
        };
        let prefix = PrefixConfig {
            length: size,
            reparametrization: Reparametrization::Direct,
        };
        Some(match self.family {
            Family::Full => return None,
            Family::Prefix => AdapterSettings::Prefix(prefix),
            Family::Prompt => AdapterSettings::Prompt(PromptConfig {
                length: size,
                ..Default::default()
            }),
            Family::Adapter => AdapterSettings::Adapter {
                placement: Placement::AttentionAndFeedForward,
                adapter: BottleneckConfig {
                    width: size,
                    ..Default::default()
                },
            },
            Family::Mam => AdapterSettings::Mam(MamConfig {
                prefix,
                adapter: BottleneckConfig {
                    width: size,
                    ..MamConfig::default().adapter
                },
            }),
            // Two blocks are too few for four groups; the first and the last group remain.
            Family::DesignSpace => {
                let groups = DesignSpaceConfig::default().strategies;
                AdapterSettings::DesignSpace {
                    space: DesignSpaceConfig {
                        grouping: Grouping::Sizes(vec![1, 1]),
                        strategies: vec![groups[0].clone(), groups[groups.len() - 1].clone()],
                    },
                    per_layer: size,
                }
            }
            Family::BitFit => AdapterSettings::BitFit {},
            Family::Lora => AdapterSettings::Lora(lora.into()),
            Family::Qlora => AdapterSettings::Qlora(lora.into()),
            Family::Dora => AdapterSettings::Dora(lora.into()),
            // The paper's proportion: one and a half times the final rank.
            Family::AdaLora => AdapterSettings::AdaLora(AdaLoraConfig {
                rank: size * 3 / 2,
                alpha: 3.0 * size as f64,
                ..Default::default()
            }),
            Family::Ia3 => AdapterSettings::Ia3(Ia3ForModel {
                targets: Targets {
                    target_modules: names(&["attention.qkv", "feed_forward.down"]),
                    ..Default::default()
                },
                feedforward_modules: names(&["feed_forward.down"]),
            }),
            Family::Vera => AdapterSettings::Vera(VeraConfig {
                rank: size,
                ..Default::default()
            }),
        })
    }
}
