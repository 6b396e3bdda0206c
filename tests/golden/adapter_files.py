"""Adapters that PEFT writes: the two files of each, with the logits of the adapted and the merged model.

A stack of linear layers over an embedding, with its own output layer and with one that is tied to the
embedding, and a GPT-2 of two layers, with its own output layer and with one of three classes, all of
random numbers. Every trained number of an adapter is drawn too, so
that no default can hide a mistake.

    python tests/golden/adapter_files.py          # all
    python tests/golden/adapter_files.py NAME ... # these bases and adapters, beside what is there
"""

import pathlib
import shutil
import sys
import warnings

import torch
from peft import (
    AdaLoraConfig,
    IA3Config,
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    VeraConfig,
    get_peft_model,
)
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel, PreTrainedConfig, PreTrainedModel

HERE = pathlib.Path(__file__).parent / "adapters"
VOCABULARY, WIDTH, LAYERS = 11, 6, 2
GPT2 = dict(
    vocab_size=VOCABULARY, n_positions=12, n_embd=8, n_layer=LAYERS, n_head=2, n_inner=10, tie_word_embeddings=False,
    bos_token_id=0, eos_token_id=0,
)
TOKENS = torch.tensor([[1, 4, 2, 9, 0], [3, 3, 10, 5, 7]])


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj = torch.nn.Linear(WIDTH, WIDTH)
        self.v_proj = torch.nn.Linear(WIDTH, WIDTH, bias=False)
        self.up_proj = torch.nn.Linear(WIDTH, WIDTH + 2)
        self.down_proj = torch.nn.Linear(WIDTH + 2, WIDTH, bias=False)

    def forward(self, x):
        x = x + self.q_proj(x) * torch.sigmoid(self.v_proj(x))
        return x + self.down_proj(torch.tanh(self.up_proj(x)))


class Inner(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed_tokens = torch.nn.Embedding(VOCABULARY, WIDTH)
        self.layers = torch.nn.ModuleList(Layer() for _ in range(LAYERS))


class Stack(torch.nn.Module):
    """Has the names of a Llama and the size of a test."""

    def __init__(self):
        super().__init__()
        self.model = Inner()
        self.lm_head = torch.nn.Linear(WIDTH, VOCABULARY, bias=False)

    def get_input_embeddings(self):
        return self.model.embed_tokens

    def get_output_embeddings(self):
        return self.lm_head

    def forward(self, tokens):
        x = self.model.embed_tokens(tokens)
        for layer in self.model.layers:
            x = layer(x)
        return self.lm_head(x)


class TiedConfig(PreTrainedConfig):
    model_type = "tied_stack"


class Tied(PreTrainedModel):
    """The stack with its output layer tied to its embedding, by transformers' own means."""

    config_class = TiedConfig
    base_model_prefix = "model"
    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config):
        super().__init__(config)
        self.model = Inner()
        self.lm_head = torch.nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.post_init()

    def _init_weights(self, module):
        pass

    def get_input_embeddings(self):
        return self.model.embed_tokens

    def set_input_embeddings(self, module):
        self.model.embed_tokens = module

    def get_output_embeddings(self):
        return self.lm_head

    def set_output_embeddings(self, module):
        self.lm_head = module

    forward = Stack.forward


def tied():
    model = Tied(TiedConfig(tie_word_embeddings=True))
    assert model.config.to_dict()["tie_word_embeddings"] and model.lm_head.weight is model.model.embed_tokens.weight
    return model


def draw(model, seed, scale=0.5):
    """Gives every parameter that is trained a value, in the order of their names."""
    generator = torch.Generator().manual_seed(seed)
    for _, parameter in sorted(model.named_parameters()):
        if parameter.requires_grad:
            with torch.no_grad():
                parameter.copy_(torch.round(torch.randn(parameter.shape, generator=generator) * scale, decimals=3))


# no token of the rows is padding: the class is read at the last one
CLASSES = dict(num_labels=3, pad_token_id=6)
KINDS = {
    "stack": lambda: Stack(),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**GPT2, attn_implementation="eager")),
    "classifier": lambda: GPT2ForSequenceClassification(GPT2Config(**GPT2, **CLASSES, attn_implementation="eager")),
    "tied": tied,
}


def base(kind):
    """The base model with the weights of the committed file."""
    model = KINDS[kind]()
    missing, unexpected = model.load_state_dict(load_file(HERE / f"{kind}.safetensors"), strict=False)
    assert (missing, unexpected) == (["lm_head.weight"] if kind == "tied" else [], [])
    return model.eval()


def logits(kind, model):
    with torch.no_grad():
        return model(TOKENS) if kind in ("stack", "tied") else model(input_ids=TOKENS).logits


LINEAR = ["q_proj", "v_proj", "up_proj", "down_proj"]
CASES = {
    "lora": ("stack", lambda: LoraConfig(r=3, lora_alpha=5, target_modules=LINEAR, lora_dropout=0.25, init_lora_weights="gaussian")),
    "lora_patterns": ("stack", lambda: LoraConfig(
        r=2, lora_alpha=3, use_rslora=True, target_modules=LINEAR, exclude_modules=["layers.0.up_proj"],
        rank_pattern={"layers.1.q_proj": 4, "v_proj": 1}, alpha_pattern={"down_proj": 7, "layers.0.v_proj": 0.5},
        layers_to_transform=[0, 1], layers_pattern=["layers"])),
    "lora_regex": ("stack", lambda: LoraConfig(r=2, lora_alpha=3, target_modules=r".*\.1\.(q|v)_proj")),
    "lora_embedding": ("stack", lambda: LoraConfig(r=2, lora_alpha=6, target_modules=["embed_tokens", "lm_head"])),
    "lora_bias_update": ("stack", lambda: LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj", "up_proj"], lora_bias=True)),
    "lora_bias_only": ("stack", lambda: LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj", "v_proj"], bias="lora_only")),
    "lora_bias_all": ("stack", lambda: LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj", "v_proj"], bias="all")),
    "lora_modules_to_save": ("stack", lambda: LoraConfig(
        r=2, lora_alpha=3, target_modules=["q_proj"], modules_to_save=["lm_head", "layers.1.up_proj"])),
    "dora": ("stack", lambda: LoraConfig(r=2, lora_alpha=3, target_modules=LINEAR, use_dora=True)),
    "adalora": ("stack", lambda: AdaLoraConfig(
        init_r=3, target_r=2, lora_alpha=5, target_modules=LINEAR, total_step=10, tinit=1, tfinal=2, deltaT=3)),
    "adalora_uncut": ("stack", lambda: AdaLoraConfig(init_r=3, lora_alpha=5, target_modules=["q_proj"], total_step=10)),
    "ia3": ("stack", lambda: IA3Config(target_modules=["q_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"])),
    "vera": ("stack", lambda: VeraConfig(r=3, target_modules=LINEAR, projection_prng_key=7)),
    "gpt2_lora": ("gpt2", lambda: LoraConfig(
        r=2, lora_alpha=3, target_modules=["c_attn", "mlp.c_proj"], fan_in_fan_out=True, task_type="CAUSAL_LM")),
    "gpt2_ia3": ("gpt2", lambda: IA3Config(
        target_modules=["c_attn", "mlp.c_proj"], feedforward_modules=["mlp.c_proj"], fan_in_fan_out=True, task_type="CAUSAL_LM")),
    "prompt": ("gpt2", lambda: PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")),
    "prefix": ("gpt2", lambda: PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")),
    "prefix_projection": ("gpt2", lambda: PrefixTuningConfig(
        num_virtual_tokens=2, prefix_projection=True, encoder_hidden_size=5, task_type="CAUSAL_LM")),
    "gpt2_dora": ("gpt2", lambda: LoraConfig(
        r=2, lora_alpha=3, target_modules=["c_attn", "mlp.c_proj"], use_dora=True, fan_in_fan_out=True, task_type="CAUSAL_LM")),
    "gpt2_adalora": ("gpt2", lambda: AdaLoraConfig(
        init_r=2, lora_alpha=5, target_modules=["c_attn", "mlp.c_proj"], total_step=10, fan_in_fan_out=True, task_type="CAUSAL_LM")),
    "gpt2_vera": ("gpt2", lambda: VeraConfig(
        r=3, target_modules=["c_attn", "mlp.c_proj"], fan_in_fan_out=True, task_type="CAUSAL_LM")),
    "lora_eva": ("stack", lambda: LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj"], init_lora_weights="eva")),
    "lora_mica": ("stack", lambda: LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj"], init_lora_weights="mica")),
    "lora_bias_all_saved": ("stack", lambda: LoraConfig(
        r=2, lora_alpha=3, target_modules=["layers.0.q_proj"], bias="all", modules_to_save=["layers.0.up_proj", "layers.1"])),
    "dora_bias_all": ("stack", lambda: LoraConfig(
        r=2, lora_alpha=3, target_modules=["q_proj", "v_proj"], use_dora=True, bias="all")),
    "lora_tokens": ("stack", lambda: LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj"], trainable_token_indices=[9, 1])),
    "lora_tokens_by_name": ("stack", lambda: LoraConfig(
        r=2, lora_alpha=3, target_modules=["q_proj"], trainable_token_indices={"embed_tokens": [9, 1], "lm_head": [3]})),
    "classifier_lora": ("classifier", lambda: LoraConfig(
        r=2, lora_alpha=3, target_modules=["c_attn"], fan_in_fan_out=True, task_type="SEQ_CLS")),
    # PEFT writes `fan_in_fan_out` as the last of its layers needs it: false here, and true there
    "gpt2_mixed": ("gpt2", lambda: LoraConfig(
        r=2, lora_alpha=3, target_modules=["attn.c_proj", "lm_head"], task_type="CAUSAL_LM")),
    "gpt2_mixed_ia3": ("gpt2", lambda: IA3Config(
        target_modules=["attn.c_proj", "lm_head"], feedforward_modules=["attn.c_proj"], task_type="CAUSAL_LM")),
    "gpt2_mixed_vera": ("gpt2", lambda: VeraConfig(r=3, target_modules=["attn.c_proj", "lm_head"], task_type="CAUSAL_LM")),
    "gpt2_mixed_adalora": ("gpt2", lambda: AdaLoraConfig(
        init_r=2, lora_alpha=5, target_modules=["attn.c_proj", "lm_head"], total_step=10, task_type="CAUSAL_LM")),
}


def on_tied(config, **rest):
    return "tied", lambda: config(**rest)


def lora_on_tied(*targets, **rest):
    return on_tied(LoraConfig, r=1, lora_alpha=3, target_modules=list(targets), **rest)


# every cell of the table "Tied weights" in the documentation
TIED = {
    "tied_lora_embedding": lora_on_tied("embed_tokens"),
    "tied_lora_head": lora_on_tied("lm_head"),
    "tied_lora_both": lora_on_tied("embed_tokens", "lm_head"),
    "tied_dora_head": lora_on_tied("lm_head", use_dora=True),
    "tied_adalora_head": on_tied(AdaLoraConfig, init_r=1, target_modules=["lm_head"], total_step=10),
    "tied_ia3_head": on_tied(IA3Config, target_modules=["lm_head"], feedforward_modules=[]),
    "tied_vera_head": on_tied(VeraConfig, r=2, target_modules=["lm_head"]),
    "tied_saved_embedding": lora_on_tied("q_proj", modules_to_save=["embed_tokens"]),
    "tied_saved_head": lora_on_tied("q_proj", modules_to_save=["lm_head"]),
    "tied_saved_both": lora_on_tied("q_proj", modules_to_save=["embed_tokens", "lm_head"]),
    "tied_rows": lora_on_tied("q_proj", trainable_token_indices=[9, 1]),
    "tied_rows_embedding": lora_on_tied("q_proj", trainable_token_indices={"embed_tokens": [9, 1]}),
    "tied_rows_head": lora_on_tied("q_proj", trainable_token_indices={"lm_head": [9, 1]}),
    "tied_rows_both": lora_on_tied("q_proj", trainable_token_indices={"embed_tokens": [9, 1], "lm_head": [9, 1]}),
    "tied_rows_differ": lora_on_tied("q_proj", trainable_token_indices={"embed_tokens": [9, 1], "lm_head": [3]}),
    "tied_rows_embedding_lora_head": lora_on_tied("lm_head", trainable_token_indices={"embed_tokens": [9, 1]}),
    "tied_rows_head_lora_embedding": lora_on_tied("embed_tokens", trainable_token_indices={"lm_head": [9, 1]}),
    "tied_rows_head_saved_embedding": lora_on_tied(
        "q_proj", trainable_token_indices={"lm_head": [9, 1]}, modules_to_save=["embed_tokens"]),
    "tied_lora_head_saved_embedding": lora_on_tied("lm_head", modules_to_save=["embed_tokens"]),
    "tied_lora_embedding_saved_head": lora_on_tied("embed_tokens", modules_to_save=["lm_head"]),
    # tensors that the settings do not name: the table itself, as after new words were added
    "tied_table": lora_on_tied("q_proj"),
    "tied_table_head": lora_on_tied("q_proj"),
    "tied_lora_embedding_table": lora_on_tied("embed_tokens"),
    "tied_lora_head_table": lora_on_tied("lm_head"),
}
TABLES = {
    "tied_table": "base_model.model.model.embed_tokens.weight",
    "tied_table_head": "base_model.model.lm_head.weight",
    "tied_lora_embedding_table": "base_model.model.model.embed_tokens.base_layer.weight",
    "tied_lora_head_table": "base_model.model.lm_head.base_layer.weight",
}
NEW = list(TIED) + ["gpt2_mixed", "gpt2_mixed_ia3", "gpt2_mixed_vera", "gpt2_mixed_adalora"]
CASES |= TIED
CONV1D = ["gpt2_dora", "gpt2_adalora", "gpt2_vera"]
SEEDS = {name: 10 + i for i, name in enumerate(name for name in CASES if name not in CONV1D + NEW)}
SEEDS |= {name: 28 + i for i, name in enumerate(CONV1D)}
SEEDS |= {name: 100 + i for i, name in enumerate(NEW)}
# which of three triplets AdaLoRA's allocator has left, by layer
KEPT = {"q_proj": [True, False, True], "v_proj": [True, True, True], "up_proj": [False, True, False], "down_proj": [False] * 3}


def adapter_files(names=()):
    torch.set_default_dtype(torch.float32)
    try:
        write_all(names)
    finally:
        torch.set_default_dtype(torch.float64)


def put_table(path, name, seed):
    """Another table than the base's into a file."""
    tensors = load_file(path)
    generator = torch.Generator().manual_seed(seed)
    tensors[name] = torch.round(torch.randn(VOCABULARY, WIDTH, generator=generator) * 0.5, decimals=3)
    save_file(tensors, path, metadata={"format": "pt"})


def untied(folder):
    """The two tables of the base as two, as PEFT's warning says to make them before a merge."""
    model = base("tied")
    head = torch.nn.Linear(WIDTH, VOCABULARY, bias=False)
    head.weight.data = model.lm_head.weight.data.clone()
    model.lm_head = head
    model.config.tie_word_embeddings = False
    return PeftModel.from_pretrained(model, folder).eval()


def merged_tied(folder, adapted):
    """The logits of PEFT's merge, where it is the model that was trained.

    Into a table with two names PEFT adds what belongs to one of them: that is another model, of which
    it warns. It is then the untied base that gives the merge; and of rows that the head shares beside
    an adapter of its own neither does.
    """
    for of in (lambda: PeftModel.from_pretrained(base("tied"), folder).eval(), lambda: untied(folder)):
        merged = logits("tied", of().merge_and_unload())
        if torch.allclose(merged, adapted, rtol=1e-5, atol=1e-5):
            return merged
    return adapted.clone()


def write_all(names):
    if not names:
        shutil.rmtree(HERE, ignore_errors=True)
        HERE.mkdir()
    wanted = lambda name: not names or name in names
    for seed, (kind, model) in enumerate(KINDS.items()):
        if not wanted(kind):
            continue
        model = model()
        draw(model, seed)
        state = model.state_dict()
        if kind == "tied":
            del state["lm_head.weight"]  # as transformers leaves it out of its files
        save_file(state, HERE / f"{kind}.safetensors", metadata={"format": "pt"})
        save_file({"tokens": TOKENS, "logits": logits(kind, model.eval())}, HERE / f"{kind}.logits.safetensors")
    for name, (kind, config) in CASES.items():
        if not wanted(name):
            continue
        model = get_peft_model(base(kind), config())
        draw(model, SEEDS[name], 0.4)
        if "dora" in name:
            with torch.no_grad():
                for path, parameter in model.named_parameters():
                    if "magnitude" in path:
                        parameter.abs_().add_(0.5)
        if name == "adalora":
            model.peft_config["default"].rank_pattern = {
                f"model.layers.{i}.{m}.lora_E.default": kept for i in range(LAYERS) for m, kept in KEPT.items()
            }
        model.eval()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it saves the embedding too
            model.save_pretrained(HERE / name)
        (HERE / name / "README.md").unlink()
        if name in TABLES:
            put_table(HERE / name / "adapter_model.safetensors", TABLES[name], SEEDS[name])
        # what the file means is what PEFT makes of it
        model = PeftModel.from_pretrained(base(kind), HERE / name).eval()
        outputs = {"adapted": logits(kind, model)}
        if kind == "tied":
            outputs["merged"] = merged_tied(HERE / name, outputs["adapted"])
        elif kind != "gpt2" or name.startswith("gpt2"):
            outputs["merged"] = logits(kind, model.merge_and_unload())
        save_file(outputs, HERE / name / "logits.safetensors")
    size = sum(f.stat().st_size for f in HERE.rglob("*") if f.is_file())
    print(f"adapters: {len(CASES)} adapters, {size} bytes")


if __name__ == "__main__":
    adapter_files(sys.argv[1:])
