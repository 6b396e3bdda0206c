//! What an adapter over a linear layer has beside its equation: a switch, merging, and training with
//! dropout.

/// `forward`, merging and switching for a layer with the fields `base`, `enabled` and `merged`, and
/// the methods `adapted` (the layer's equation, in the type in which it trains; its second argument
/// is the input of the adapter, after dropout) and `merged_in` (its weight and bias, merged).
macro_rules! switches {
    ($layer:ident) => {
        impl $layer {
            /// Merges the current change into the weight: `forward` then costs what the base costs.
            ///
            /// Merging twice has the effect of merging once; after more training it updates the merged
            /// weight. A half weight is rounded, and a merged half layer differs by that.
            ///
            /// # Errors
            /// [`Error::Argument`](crate::Error::Argument) if an element of the merged weight or bias
            /// would not be finite. Nothing has changed then.
            pub fn merge(&mut self) -> $crate::error::Result<()> {
                self.merged = Some(self.merged_in(concat!(stringify!($layer), "::merge"))?);
                Ok(())
            }

            /// The merged layer, to save or to serve. It is an ordinary linear layer.
            ///
            /// # Errors
            /// As `merge`.
            pub fn merged_linear(&self) -> $crate::error::Result<candle_nn::Linear> {
                let layer = self.merged_in(concat!(stringify!($layer), "::merged_linear"))?;
                Ok(candle_nn::Linear::new(
                    layer.weight().clone(),
                    layer.bias().cloned(),
                ))
            }

            /// Back to the base weight with the adapter beside it; no effect if the layer is not merged.
            pub fn unmerge(&mut self) {
                self.merged = None;
            }

            /// Whether `forward` uses a merged weight.
            pub fn is_merged(&self) -> bool {
                self.merged.is_some()
            }

            /// Switches the adapter off, which gives exactly the base layer, or on again.
            pub fn set_enabled(&mut self, enabled: bool) {
                self.enabled = enabled;
            }

            /// Whether `forward` uses the adapter.
            pub fn is_enabled(&self) -> bool {
                self.enabled
            }

            /// The frozen base layer.
            pub fn base(&self) -> &$crate::parameter_efficient::frozen_linear::FrozenLinear {
                &self.base
            }

            /// The type in which the layer trains.
            fn wide(&self) -> candle_core::DType {
                $crate::parameter_efficient::frozen_linear::compute_type(self.base.weight().dtype())
            }
        }

        impl candle_nn::Module for $layer {
            /// Without dropout: the base layer if disabled, else the merged weight if merged, else the
            /// page's equation.
            fn forward(&self, x: &candle_core::Tensor) -> candle_core::Result<candle_core::Tensor> {
                self.base
                    .check(concat!(stringify!($layer), "::forward"), x)?;
                match &self.merged {
                    _ if !self.enabled => self.base.forward(x),
                    Some(merged) => merged.forward(x),
                    None => {
                        let x = &$crate::known::readable(x)?;
                        let wide = x.to_dtype(self.wide())?;
                        self.adapted(&wide, &wide)?.to_dtype(x.dtype())
                    }
                }
            }
        }
    };
}

/// `forward_train` for a layer with a field `dropout` beside those of [`switches`].
macro_rules! dropout {
    ($layer:ident) => {
        impl $layer {
            /// The layer with dropout on the input of the adapter; `rng` decides what is dropped. The
            /// rest is scaled by 1/(1 − p); with p = 0 it is `forward` and draws nothing. Disabled,
            /// it is the base layer.
            ///
            /// # Errors
            /// As `forward`, and [`Error::Argument`](crate::Error::Argument) while merged: there is
            /// nothing to train then.
            pub fn forward_train(
                &self,
                x: &candle_core::Tensor,
                rng: &mut impl rand::Rng,
            ) -> $crate::error::Result<candle_core::Tensor> {
                let function = concat!(stringify!($layer), "::forward_train");
                self.base.check(function, x)?;
                if self.enabled && self.merged.is_some() {
                    return Err($crate::error::Error::argument(
                        function,
                        "self",
                        "is merged, so that nothing would get a gradient; call `unmerge` first",
                    ));
                }
                if !self.enabled || self.dropout == 0.0 {
                    return Ok(candle_nn::Module::forward(self, x)?);
                }
                let x = &$crate::known::readable(x)?;
                let wide = x.to_dtype(self.wide())?;
                let dropped =
                    $crate::parameter_efficient::low_rank::dropped(&wide, self.dropout, rng)?;
                Ok(self.adapted(&wide, &dropped)?.to_dtype(x.dtype())?)
            }
        }
    };
}

pub(crate) use {dropout, switches};
