//! Every kind of rotary scaling against the numbers of Transformers 5.24.

use super::changed;
use candle_align::decoder::DecoderConfig;
use serde_json::{Value, json};

/// The angles and the factor of a head of 8 coordinates with base 10⁴, in a model for 64 positions.
fn rope(family: &str, parameters: Value) -> (Vec<f32>, f32) {
    let folder = changed(family, |config| {
        config.insert("head_dim".into(), json!(8));
        if let Some(original) = parameters.get("original_max_position_embeddings") {
            // one outside comes before the one inside
            config.insert("original_max_position_embeddings".into(), original.clone());
        }
        config.insert("rope_parameters".into(), parameters);
    });
    let rope = DecoderConfig::read(folder.path()).unwrap().rope;
    (rope.inv_freq, rope.scale)
}

fn check(family: &str, parameters: Value, angles: [f32; 4], scale: f32) {
    let (found, factor) = rope(family, parameters.clone());
    assert_eq!(found.len(), 4, "{parameters}");
    for (found, want) in found.iter().zip(angles) {
        assert!(
            (found / want - 1.0).abs() < 1e-6,
            "{parameters}: {found} {want}"
        );
    }
    assert!(
        (factor / scale - 1.0).abs() < 1e-6,
        "{parameters}: {factor} {scale}"
    );
}

#[test]
fn the_angles_are_those_of_transformers() {
    for (parameters, angles, scale) in [
        (
            json!({"rope_type": "default"}),
            [1.0, 0.1, 0.01, 0.001],
            1.0,
        ),
        (
            json!({"rope_type": "linear", "factor": 4.0}),
            [0.25, 0.025, 0.0025, 0.00025],
            1.0,
        ),
        // up to the length of the model
        (
            json!({"rope_type": "dynamic", "factor": 4.0}),
            [1.0, 0.1, 0.01, 0.001],
            1.0,
        ),
        (
            json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                   "original_max_position_embeddings": 256}),
            [1.0, 0.1, 0.00125, 0.000125],
            1.0,
        ),
        (
            json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}),
            [1.0, 0.1, 0.00625, 0.00025],
            1.1386294,
        ),
        (
            json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096,
                   "mscale": 1.0, "mscale_all_dim": 0.5}),
            [1.0, 0.1, 0.00625, 0.00025],
            1.0648216,
        ),
        (
            json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}),
            [1.0, 0.025, 0.0025, 0.00025],
            1.1386294,
        ),
    ] {
        let mut parameters = parameters;
        parameters["rope_theta"] = json!(1e4);
        check("llama", parameters, angles, scale);
    }
    // the factors of short rows, scaled as long ones are
    let long = json!({"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 16,
                      "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [1.0, 2.0, 3.0, 4.0]});
    check(
        "phi3",
        long,
        [1.0, 0.09090909, 0.008333333, 0.0007692308],
        1.2247449,
    );
}

#[test]
fn the_spelling_of_transformers_4_means_the_same() {
    let new = json!({"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0,
                     "high_freq_factor": 4.0, "original_max_position_embeddings": 256});
    let folder = changed("llama", |config| {
        config.insert("head_dim".into(), json!(8));
        config.remove("rope_parameters");
        config.insert("rope_theta".into(), json!(10000.0));
        let old = json!({"type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                         "original_max_position_embeddings": 256});
        config.insert("rope_scaling".into(), old);
    });
    let old = DecoderConfig::read(folder.path()).unwrap().rope;
    assert_eq!((old.inv_freq, old.scale), rope("llama", new));
}
