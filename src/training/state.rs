//! The moments of one variable: created, saved, restored.

use candle_core::{DType, Result, Shape, Tensor, Var};

/// m, v, and for a half-type variable its f32 master copy.
#[derive(Debug)]
pub(super) enum Moments {
    Single {
        m: Vec<f32>,
        v: Vec<f32>,
        master: Option<Vec<f32>>,
    },
    Double {
        m: Vec<f64>,
        v: Vec<f64>,
    },
    /// On a device other than the CPU, from ordinary operations.
    Device {
        m: Tensor,
        v: Tensor,
        master: Option<Tensor>,
    },
}

impl Moments {
    /// Zeros for this variable; the name of its type if that type has no moments.
    pub(super) fn new(var: &Var) -> std::result::Result<Result<Self>, &'static str> {
        let narrow = match var.dtype() {
            DType::F32 | DType::F64 => false,
            DType::BF16 | DType::F16 => true,
            other => return Err(other.as_str()),
        };
        Ok(match var.device().is_cpu() {
            true => Self::on_cpu(var, narrow),
            false => Self::on_device(var, narrow),
        })
    }

    pub(super) fn on_cpu(var: &Var, narrow: bool) -> Result<Self> {
        let n = var.elem_count();
        if var.dtype() == DType::F64 {
            return Ok(Self::Double {
                m: vec![0.0; n],
                v: vec![0.0; n],
            });
        }
        let master = match narrow {
            true => Some(var.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?),
            false => None,
        };
        Ok(Self::Single {
            m: vec![0.0; n],
            v: vec![0.0; n],
            master,
        })
    }

    pub(super) fn on_device(var: &Var, narrow: bool) -> Result<Self> {
        let wide = match var.dtype() {
            DType::F64 => DType::F64,
            _ => DType::F32,
        };
        let m = Tensor::zeros(var.shape(), wide, var.device())?;
        let master = match narrow {
            true => Some(var.as_detached_tensor().to_dtype(wide)?),
            false => None,
        };
        Ok(Self::Device {
            v: m.copy()?,
            m,
            master,
        })
    }

    /// The type and the names of [`Moments::tensors`].
    pub(super) fn parts(&self) -> (DType, &'static [&'static str]) {
        let (dtype, master) = match self {
            Self::Single { master, .. } => (DType::F32, master.is_some()),
            Self::Double { .. } => (DType::F64, false),
            Self::Device { m, master, .. } => (m.dtype(), master.is_some()),
        };
        let names: &[_] = match master {
            true => &["exp_avg", "exp_avg_sq", "master"],
            false => &["exp_avg", "exp_avg_sq"],
        };
        (dtype, names)
    }

    /// The state by name, on the CPU, as it is saved.
    pub(super) fn tensors(&self, shape: &Shape) -> Result<Vec<(&'static str, Tensor)>> {
        let cpu = &candle_core::Device::Cpu;
        let mut parts = Vec::new();
        match self {
            Self::Single { m, v, master } => {
                parts.push(("exp_avg", Tensor::from_slice(m, shape, cpu)?));
                parts.push(("exp_avg_sq", Tensor::from_slice(v, shape, cpu)?));
                if let Some(master) = master {
                    parts.push(("master", Tensor::from_slice(master, shape, cpu)?));
                }
            }
            Self::Double { m, v } => {
                parts.push(("exp_avg", Tensor::from_slice(m, shape, cpu)?));
                parts.push(("exp_avg_sq", Tensor::from_slice(v, shape, cpu)?));
            }
            Self::Device { m, v, master } => {
                parts.push(("exp_avg", m.to_device(cpu)?));
                parts.push(("exp_avg_sq", v.to_device(cpu)?));
                if let Some(master) = master {
                    parts.push(("master", master.to_device(cpu)?));
                }
            }
        }
        Ok(parts)
    }

    /// The same kind of state from tensors in the order of [`Moments::tensors`].
    pub(super) fn restored(&self, parts: Vec<Tensor>) -> Result<Self> {
        let mut parts = parts.into_iter();
        let mut next = || {
            parts
                .next()
                .ok_or_else(|| candle_core::Error::Msg("no such part".into()))
        };
        Ok(match self {
            Self::Single { master, .. } => Self::Single {
                m: next()?.flatten_all()?.to_vec1()?,
                v: next()?.flatten_all()?.to_vec1()?,
                master: match master {
                    Some(_) => Some(next()?.flatten_all()?.to_vec1()?),
                    None => None,
                },
            },
            Self::Double { .. } => Self::Double {
                m: next()?.flatten_all()?.to_vec1()?,
                v: next()?.flatten_all()?.to_vec1()?,
            },
            Self::Device { m, master, .. } => Self::Device {
                m: next()?.to_device(m.device())?,
                v: next()?.to_device(m.device())?,
                master: match master {
                    Some(_) => Some(next()?.to_device(m.device())?),
                    None => None,
                },
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::step::Update;
    use super::*;
    use candle_core::Device;

    /// Two orders of the same single-precision arithmetic.
    const SINGLE: f64 = 1e-6;

    #[test]
    fn ordinary_operations_take_the_same_steps() {
        for dtype in [DType::F64, DType::F32, DType::BF16, DType::F16] {
            let start = Tensor::new(&[1.0f64, -2.0, 0.5, 0.0], &Device::Cpu).unwrap();
            let start = start.to_dtype(dtype).unwrap();
            let (fused, plain) = (
                Var::from_tensor(&start).unwrap(),
                Var::from_tensor(&start).unwrap(),
            );
            let narrow = matches!(dtype, DType::BF16 | DType::F16);
            let mut on_cpu = Moments::on_cpu(&fused, narrow).unwrap();
            let mut composed = Moments::on_device(&plain, narrow).unwrap();
            for t in 1..=20 {
                let grad = (&start * (t as f64).sin()).unwrap();
                let update = Update {
                    keep: 0.999,
                    beta1: 0.9,
                    beta2: 0.99,
                    rate: 0.05 / (1.0 - 0.9f64.powi(t)),
                    scale: 1.0 / (1.0 - 0.99f64.powi(t)).sqrt(),
                    epsilon: 0.1,
                };
                on_cpu.update(&fused, &grad, update).unwrap();
                composed.update(&plain, &grad, update).unwrap();
            }
            let both = [(&on_cpu, &fused), (&composed, &plain)].map(|(moments, var)| {
                let mut all = vec![var.to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap()];
                for (_, part) in moments.tensors(var.shape()).unwrap() {
                    all.push(part.to_dtype(DType::F64).unwrap().to_vec1().unwrap());
                }
                all.concat()
            });
            assert_eq!(both[0].len(), both[1].len());
            for (a, b) in both[0].iter().zip(&both[1]) {
                assert!(
                    (a - b).abs() <= SINGLE * b.abs().max(1.0),
                    "{dtype:?}: {both:?}"
                );
            }
        }
    }
}
