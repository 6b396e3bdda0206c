use crate::common::adapted::*;
use crate::common::lora::*;
use candle_align::parameter_efficient::{
    AdaLoraConfig, Adapter, BlockScale, Ia3Place, LoraConfig, QloraLinear, VeraConfig,
};
use candle_align::peft::AnyAdapter;
use candle_core::DType;
use candle_nn::Module;

#[test]
fn a_layer_of_a_file_trains_as_the_layer_alone() {
    let dropout = 0.4;
    let lora_config = LoraConfig {
        dropout,
        ..config()
    };
    let lora = trained(&lora_config, DType::F64);
    let dora = dora(&lora_config, DType::F64);
    let ada = ada(
        &AdaLoraConfig {
            dropout,
            ..ada_config()
        },
        DType::F64,
    );
    let vera = vera(
        &VeraConfig {
            dropout,
            ..vera_config()
        },
        DType::F64,
    );
    let base = base(DType::F64);
    let qlora = QloraLinear::new(&base, BlockScale::Double, &lora_config, &mut rng(1)).unwrap();
    set(qlora.b(), tensor(&B));
    let x = tensor(&X);
    macro_rules! alike {
        ($($layer:ident: $kind:ident),*) => {[$((
            AnyAdapter::$kind($layer.clone()),
            $layer.forward_train(&x, &mut rng(3)).unwrap(),
        )),*]};
    }
    for (layer, alone) in alike!(lora: Lora, dora: Dora, ada: AdaLora, vera: Vera, qlora: Qlora) {
        let trained = layer.forward_train(&x, &mut rng(3)).unwrap();
        assert_eq!(bits(&trained), bits(&alone), "{layer:?}");
        assert_ne!(
            bits(&trained),
            bits(&layer.forward(&x).unwrap()),
            "{layer:?}"
        );
    }
    // nothing to drop
    let layer = AnyAdapter::Ia3(ia3(Ia3Place::Output, DType::F64));
    let trained = layer.forward_train(&x, &mut rng(3)).unwrap();
    assert_eq!(bits(&trained), bits(&layer.forward(&x).unwrap()));
}
