//! JSON objects as pairs: the order of the text is kept, and a duplicate key is an error. Maps of other
//! crates lose the first and let the last value of the second win.

use crate::error::shown;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

/// The pairs of an object, in the order of the text, with keys that differ.
pub(crate) struct InOrder<T>(pub(crate) Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for InOrder<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Pairs::expecting("an object"))
    }
}

/// For a pattern of settings, as in `#[serde(with = "in_order")]`.
pub(crate) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<(String, T)>, D::Error> {
    let pairs = Pairs::expecting("an object of expressions and numbers");
    deserializer
        .deserialize_map(pairs)
        .map(|InOrder(pairs)| pairs)
}

/// The counterpart of [`deserialize`].
pub(crate) fn serialize<T: Serialize, S: Serializer>(
    pairs: &[(String, T)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(key, value)| (key, value)))
}

struct Pairs<T> {
    expected: &'static str,
    of: PhantomData<T>,
}

impl<T> Pairs<T> {
    fn expecting(expected: &'static str) -> Self {
        let of = PhantomData;
        Self { expected, of }
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Pairs<T> {
    type Value = InOrder<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        let mut seen = HashSet::new();
        while let Some((key, value)) = map.next_entry::<String, T>()? {
            if !seen.insert(key.clone()) {
                let key = shown(&key);
                return Err(A::Error::custom(format!("the key `{key}` stands twice")));
            }
            pairs.push((key, value));
        }
        Ok(InOrder(pairs))
    }
}
