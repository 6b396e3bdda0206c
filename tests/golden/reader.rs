//! Cases of a golden file, and the comparison with what the crate computes.

use candle_align::Result;
use candle_core::{DType, Device, Tensor, Var};
use serde::Deserialize;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Deserialize)]
struct File {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Array {
    shape: Vec<usize>,
    data: Vec<f64>,
}

/// One call of an oracle: what went in, what came out.
#[derive(Deserialize)]
pub struct Case {
    pub name: String,
    pub oracle: String,
    config: serde_json::Value,
    inputs: BTreeMap<String, Array>,
    outputs: BTreeMap<String, Array>,
    gradients: BTreeMap<String, Array>,
    #[serde(skip)]
    compared: RefCell<BTreeSet<String>>,
    #[serde(skip)]
    worst: RefCell<BTreeMap<String, f64>>,
}

/// Runs `compare` on every case of `tests/golden/<method>.json`. Fails if a case cannot be computed
/// or if an output or gradient of the oracle was left out.
#[track_caller]
pub fn each(method: &str, compare: impl Fn(&Case) -> Result<()>) {
    let path = format!("{}/tests/golden/{method}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let file: File = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"));
    assert!(!file.cases.is_empty(), "{path}: no cases");
    let mut worst = BTreeMap::new();
    for case in &file.cases {
        compare(case).unwrap_or_else(|e| panic!("{method}, {}: {e}", case.name));
        let compared = case.compared.borrow();
        for name in case.outputs.keys() {
            assert!(
                compared.contains(name),
                "{method}, {}: output {name} unused",
                case.name
            );
        }
        for name in case.gradients.keys() {
            let name = gradient(name);
            assert!(
                compared.contains(&name),
                "{method}, {}: {name} unused",
                case.name
            );
        }
        for (tolerance, &error) in case.worst.borrow().iter() {
            let worst: &mut f64 = worst.entry(tolerance.clone()).or_default();
            *worst = worst.max(error);
        }
    }
    println!(
        "{method}: {} cases; tolerance and largest error: {worst:?}",
        file.cases.len()
    );
}

/// What a gradient is called where names of outputs stand too.
fn gradient(name: &str) -> String {
    format!("∂loss/∂{name}")
}

impl Case {
    /// A number of the configuration; `None` where it is null.
    pub fn optional(&self, key: &str) -> Option<f64> {
        self.config.get(key).and_then(|v| v.as_f64())
    }

    /// A number of the configuration.
    pub fn number(&self, key: &str) -> f64 {
        self.optional(key)
            .unwrap_or_else(|| panic!("{}: no number {key}", self.name))
    }

    /// A word of the configuration; empty where there is none.
    pub fn word(&self, key: &str) -> &str {
        self.config
            .get(key)
            .and_then(|v| v.as_str())
            .unwrap_or_default()
    }

    /// A part of the configuration, as it is.
    pub fn part<T: serde::de::DeserializeOwned>(&self, key: &str) -> T {
        let part = self.config.get(key).cloned().unwrap_or_default();
        serde_json::from_value(part).unwrap_or_else(|e| panic!("{}: {key}: {e}", self.name))
    }

    /// A yes or no of the configuration.
    pub fn flag(&self, key: &str) -> bool {
        let flag = self.config.get(key).and_then(|v| v.as_bool());
        flag.unwrap_or_else(|| panic!("{}: no flag {key}", self.name))
    }

    /// Whether the oracle got this input.
    pub fn has(&self, name: &str) -> bool {
        self.inputs.contains_key(name)
    }

    /// The inputs whose names begin so, by the rest of their names.
    pub fn below(&self, prefix: &str) -> Vec<&str> {
        let names = self.inputs.keys();
        names.filter_map(|name| name.strip_prefix(prefix)).collect()
    }

    /// Whether the oracle returned this.
    pub fn gives(&self, name: &str) -> bool {
        self.outputs.contains_key(name)
    }

    /// An input in another type than f64.
    pub fn typed(&self, name: &str, dtype: DType) -> Result<Tensor> {
        let array = self.inputs.get(name);
        let array = array.unwrap_or_else(|| panic!("{}: no input {name}", self.name));
        let tensor = Tensor::from_slice(&array.data, array.shape.as_slice(), &Device::Cpu)?;
        Ok(tensor.to_dtype(dtype)?)
    }

    /// An input in f64.
    pub fn input(&self, name: &str) -> Result<Tensor> {
        self.typed(name, DType::F64)
    }

    /// An input in f64 that gets a gradient.
    pub fn var(&self, name: &str) -> Result<Var> {
        Ok(Var::from_tensor(&self.input(name)?)?)
    }

    /// An input of zeros and ones.
    pub fn mask(&self, name: &str) -> Result<Tensor> {
        self.typed(name, DType::U8)
    }

    /// An input of whole numbers.
    pub fn index(&self, name: &str) -> Result<Tensor> {
        self.typed(name, DType::U32)
    }

    /// Compares an output.
    #[track_caller]
    pub fn check(&self, name: &str, got: &Tensor, tolerance: f64) -> Result<()> {
        let want = self.outputs.get(name);
        let want = want.unwrap_or_else(|| panic!("{}: no output {name}", self.name));
        self.compare(name, got, want, tolerance)
    }

    /// Compares an output that the oracle computed in f32, to the bit (save the sign of a zero).
    #[track_caller]
    pub fn check_single(&self, name: &str, got: &[f32]) {
        let want = self.outputs.get(name);
        let want = want.unwrap_or_else(|| panic!("{}: no output {name}", self.name));
        let want: Vec<f32> = want.data.iter().map(|x| *x as f32).collect();
        assert_eq!(got, want, "{}: {name} by {}", self.name, self.oracle);
        self.compared.borrow_mut().insert(name.to_string());
    }

    /// Compares the gradient of Σ `loss` with respect to a variable.
    #[track_caller]
    pub fn check_gradient(
        &self,
        name: &str,
        loss: &Tensor,
        var: &Var,
        tolerance: f64,
    ) -> Result<()> {
        let want = self.gradients.get(name);
        let want = want.unwrap_or_else(|| panic!("{}: no gradient {name}", self.name));
        let grads = loss.sum_all()?.backward()?;
        let got = grads.get(var);
        let got = got.unwrap_or_else(|| panic!("{}: no gradient reaches {name}", self.name));
        self.compare(&gradient(name), got, want, tolerance)
    }

    /// Errors count relative to the number expected where that is greater than 1.
    #[track_caller]
    fn compare(&self, name: &str, got: &Tensor, want: &Array, tolerance: f64) -> Result<()> {
        assert_eq!(got.dims(), want.shape, "{}: shape of {name}", self.name);
        let got = got.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        for (i, (g, w)) in got.iter().zip(&want.data).enumerate() {
            let error = (g - w).abs() / w.abs().max(1.0);
            assert!(
                error <= tolerance,
                "{}: {name}[{i}] is {g}, but {w} by {} (off by {error:e})",
                self.name,
                self.oracle
            );
            let mut worst = self.worst.borrow_mut();
            let worst = worst.entry(format!("{tolerance:e}")).or_default();
            *worst = worst.max(error);
        }
        self.compared.borrow_mut().insert(name.to_string());
        Ok(())
    }
}
