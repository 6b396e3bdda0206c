use super::EXACT;
use super::reader::each;
use candle_align::{
    EntropyConfig, KlEstimator, PtxConfig, Statistics, TokenLogProbs, entropy_loss, kl_loss,
    ptx_loss,
};

#[test]
fn the_terms_beside_ppo() {
    each("auxiliary", |case| {
        let mask = case.mask("mask")?;
        let (loss, input, var) = match case.word("term") {
            "kl" => {
                let new = case.var("new")?;
                let estimator = match case.word("estimator") {
                    "k1" => KlEstimator::K1,
                    "k2" => KlEstimator::K2,
                    _ => KlEstimator::K3,
                };
                let policy = TokenLogProbs::new(&new, &mask)?;
                (
                    kl_loss(&policy, &case.input("reference")?, estimator)?,
                    "new",
                    new,
                )
            }
            "entropy" => {
                let logits = case.var("logits")?;
                let ask = Statistics {
                    entropy: true,
                    ..Default::default()
                };
                let policy = TokenLogProbs::aligned(&logits, &case.index("tokens")?, &mask, ask)?;
                let config = EntropyConfig {
                    coefficient: case.number("coefficient"),
                };
                (entropy_loss(&policy, &config)?, "logits", logits)
            }
            _ => {
                let text = case.var("text")?;
                let config = PtxConfig {
                    gamma: case.number("gamma"),
                };
                let loss = ptx_loss(&TokenLogProbs::new(&text, &mask)?, &config)?;
                (loss, "text", text)
            }
        };
        case.check("loss", &loss.loss, EXACT)?;
        case.check_gradient(input, &loss.loss, &var, EXACT)
    });
}
