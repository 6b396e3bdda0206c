//! What determines a row's distribution, and what is computed from that.

/// What determines a row's distribution: pᵥ = e^{zᵥ − max} / sum.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::log_probs) struct Row {
    /// The largest logit.
    pub(super) max: f64,
    /// Σ e^{z − max}.
    pub(super) sum: f64,
    /// Σ (z − max) e^{z − max}, over the logits that are not −∞.
    pub(super) weighted: f64,
    /// Σ e^{2(z − max)}.
    pub(super) squares: f64,
    /// Σ (z − max) over the logits that are not −∞, and how many those are.
    pub(super) total: f64,
    pub(super) count: f64,
}

impl Row {
    /// Changes the sums from being relative to `old` to being relative to `max`.
    pub(super) fn move_to(&mut self, max: f64, old: f64) {
        let by = old - max;
        let scale = by.exp();
        self.weighted = (self.weighted + by * self.sum) * scale;
        self.squares *= scale * scale;
        self.total += by * self.count;
        self.sum *= scale;
    }

    /// z − max − log Σ e^{z − max}, the log-probability of a symbol with logit z.
    pub(super) fn log_p(&self, z: f64) -> f64 {
        let below = match z == f64::INFINITY {
            // it is the maximum itself
            true => 0.0,
            false => z - self.max,
        };
        below - self.log_sum()
    }

    /// log Σ e^{z − max}.
    pub(super) fn log_sum(&self) -> f64 {
        self.sum.ln()
    }

    /// H = log Σ e^{z − max} − Σ p (z − max).
    pub(super) fn entropy(&self) -> f64 {
        self.log_sum() - self.weighted / self.sum
    }

    /// log Σ p².
    pub(super) fn log_collision(&self) -> f64 {
        self.squares.ln() - 2.0 * self.log_sum()
    }

    /// Mean of log p over the logits that are not −∞.
    pub(super) fn mean(&self) -> f64 {
        self.total / self.count - self.log_sum()
    }
}
