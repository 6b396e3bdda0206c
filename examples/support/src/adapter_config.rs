//! The settings of a parameter-efficient method, and their form in JSON.

use candle_align::Result;
use candle_align::parameter_efficient::{
    AdaLoraConfig, BottleneckConfig, DesignSpaceConfig, Ia3ForModel, LoraForModel, MamConfig,
    Placement, PrefixConfig, PromptConfig, VeraConfig,
};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;

/// Which method, with its settings: `{"lora": {"rank": 4}}` in JSON. Settings with a default can be left
/// out: `{"lora": {}}`, or `"lora"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", rename_all = "snake_case", deny_unknown_fields)]
pub enum AdapterSettings {
    /// LoRA on the linear maps of the blocks that the settings choose, or on all.
    Lora(LoraForModel),
    /// LoRA over the linear maps in four bits; they are chosen in the same way.
    Qlora(LoraForModel),
    /// LoRA with a length for each row; chosen in the same way.
    Dora(LoraForModel),
    /// AdaLoRA on every linear map of the blocks; see [`Adapted::triplets`](crate::adapters::Adapted::triplets).
    AdaLora(AdaLoraConfig),
    /// Factors of the linear maps that the settings choose.
    Ia3(Ia3ForModel),
    /// VeRA on every linear map of the blocks.
    Vera(VeraConfig),
    /// A trained bias on every linear map of the blocks.
    BitFit {},
    /// Vectors before the input.
    Prompt(PromptConfig),
    /// Keys and values in every layer.
    Prefix(PrefixConfig),
    /// Small networks around the parts of every block.
    Adapter {
        placement: Placement,
        adapter: BottleneckConfig,
    },
    /// A prefix, and adapters at the feed-forward parts.
    Mam(MamConfig),
    /// Different methods for different layers, each training about `per_layer` parameters. LoRA is on
    /// `attention.qkv`; adapters are sequential ones without biases at the feed-forward part.
    DesignSpace {
        space: DesignSpaceConfig,
        per_layer: usize,
    },
}

impl Serialize for AdapterSettings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // that of the derive, which `remote` makes a function beside the trait's
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for AdapterSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NameOrMap)
    }
}

/// The two ways to write a method.
struct NameOrMap;

impl<'de> Visitor<'de> for NameOrMap {
    type Value = AdapterSettings;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(r#"a method, as `"lora"` or `{"lora": {"rank": 4}}`"#)
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<AdapterSettings, E> {
        let alone = serde_json::json!({ name: {} });
        AdapterSettings::deserialize(alone).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AdapterSettings, A::Error> {
        let found = AdapterSettings::deserialize(MapAccessDeserializer::new(OneKey(&mut map)))?;
        match map.next_key::<String>()? {
            None => Ok(found),
            Some(_) => Err(Error::custom("a second method beside the first")),
        }
    }
}

/// A map that must have a key.
struct OneKey<'a, A>(&'a mut A);

impl<'de, A: MapAccess<'de>> MapAccess<'de> for OneKey<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error>
    where
        K: DeserializeSeed<'de>,
    {
        match self.0.next_key_seed(seed)? {
            None => Err(Error::invalid_length(0, &NameOrMap)),
            key => Ok(key),
        }
    }

    fn next_value_seed<V>(&mut self, seed: V) -> Result<V::Value, A::Error>
    where
        V: DeserializeSeed<'de>,
    {
        self.0.next_value_seed(seed)
    }
}

impl AdapterSettings {
    /// Its name in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Lora(_) => "lora",
            Self::Qlora(_) => "qlora",
            Self::Dora(_) => "dora",
            Self::AdaLora(_) => "ada_lora",
            Self::Ia3(_) => "ia3",
            Self::Vera(_) => "vera",
            Self::BitFit {} => "bit_fit",
            Self::Prompt(_) => "prompt",
            Self::Prefix(_) => "prefix",
            Self::Adapter { .. } => "adapter",
            Self::Mam(_) => "mam",
            Self::DesignSpace { .. } => "design_space",
        }
    }
}
