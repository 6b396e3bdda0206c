"""All fifteen losses of TRL's DPO trainer, with its divergences, LD-DPO and WPO: the trainer's own code."""

import contextlib
import types

import torch
import torch.nn.functional as F
from trl.trainer import dpo_trainer
from trl.trainer.dpo_trainer import DPOTrainer

from common import Draw, case, gradients, ragged, trainer, write

DIFFERENCES = ["sigmoid", "hinge", "ipo", "exo_pair", "robust", "discopop", "sigmoid_norm"]
ABSOLUTE = ["nca_pair", "bco_pair", "sppo_hard", "aot", "aot_unpaired", "apo_zero", "apo_down", "sft"]
TEXT = "trl 1.16.0 DPOTrainer._compute_loss, loss_type {}, on a stub; the mean over pairs"


class DoubleForSingle:
    """torch, whose f32 is f64: the α-divergence of the trainer knows no f64."""

    float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


@contextlib.contextmanager
def in_double():
    single = torch.Tensor.float
    try:
        dpo_trainer.torch, torch.Tensor.float = DoubleForSingle(), lambda x: x.double()
        yield
    finally:
        dpo_trainer.torch, torch.Tensor.float = torch, single


def outputs(values, mask, collision=None):
    return types.SimpleNamespace(
        log_probs=values * mask,
        entropy=torch.zeros_like(values),
        mean_logits=torch.zeros_like(values),
        is_top1=mask.bool(),
        log_sum_sq_probs=collision,
    )


def trl(kind, values, reference, mask, beta, epsilon, divergence, alpha, ld, collision=None):
    """values, reference and mask [2B, T], the chosen rows first."""
    whole = torch.cat([torch.zeros_like(mask[:, :1]), mask], 1)
    stub = trainer(
        args=types.SimpleNamespace(discopop_tau=0.05, gradient_checkpointing_kwargs=None),
        loss_types=[kind],
        loss_weights=[1.0],
        beta=beta,
        label_smoothing=epsilon,
        ld_alpha=ld,
        f_divergence_type=divergence,
        f_alpha_divergence_coef=alpha,
        use_weighting=collision is not None,
        precompute_ref_logps=False,
        ref_model=lambda **_: outputs(reference, mask),
    )
    inputs = dict(input_ids=torch.zeros_like(whole), attention_mask=torch.ones_like(whole), completion_mask=whole)
    dpo_trainer.disable_gradient_checkpointing = lambda *_: contextlib.nullcontext()
    dpo_trainer.is_peft_model = lambda _: False
    with in_double():
        return DPOTrainer._compute_loss(stub, lambda **_: outputs(values, mask, collision), inputs, False)


def cases_on_tokens(cases):
    def add(name, kind, divergence="reverse_kl", alpha=0.5, ld=None, beta=0.2, epsilon=0.1):
        draw = Draw(f"since dpo {name}")
        rows, time = 3, 4
        values = (-draw.uniform(2 * rows, time, low=0.01, high=3.0)).requires_grad_()
        reference = -draw.uniform(2 * rows, time, low=0.01, high=3.0)
        mask = ragged([4, 2, 3, 3, 4, 1], time)
        loss = trl(kind, values, reference, mask, beta, epsilon, divergence, alpha, ld)
        settings = dict(loss_type=kind, beta=beta, label_smoothing=epsilon, divergence=divergence, alpha=alpha, ld_alpha=ld)
        cases.append(
            case(
                name,
                TEXT.format(kind),
                config=settings,
                inputs=dict(values=values, reference=reference, mask=mask),
                outputs=dict(loss=loss),
                grads=gradients(loss, values=values),
            )
        )

    for kind in DIFFERENCES + ABSOLUTE:
        add(kind, kind)
    for kind in DIFFERENCES:
        for divergence in ["forward_kl", "js_divergence"]:
            add(f"{kind}, {divergence}", kind, divergence)
    for kind, alpha in [("sigmoid", 0.5), ("ipo", 0.3), ("robust", -0.5), ("sigmoid_norm", 1.0), ("exo_pair", 2.0)]:
        add(f"{kind}, alpha {alpha}", kind, "alpha_divergence", alpha)
    for kind in ["sigmoid", "ipo", "nca_pair", "aot", "apo_down"]:
        add(f"{kind}, ld 0.3", kind, ld=0.3)
    add("exo_pair, 0.001", "exo_pair", epsilon=1e-3, beta=1.5)
    add("discopop, beta 3", "discopop", beta=3.0)


def cases_on_logits(cases):
    """WPO, whose weights read the whole distribution."""
    for kind in ["sigmoid", "ipo", "apo_zero"]:
        draw = Draw(f"since wpo {kind}")
        rows, time, vocabulary = 2, 3, 4
        logits = draw.normal(2 * rows, time + 1, vocabulary).requires_grad_()
        tokens = draw.integers(2 * rows, time + 1, below=vocabulary)
        mask = ragged([3, 2, 1, 3], time)
        log_p = F.log_softmax(logits[:, :-1], -1)
        values = log_p.gather(2, tokens[:, 1:, None]).squeeze(2)
        reference = -draw.uniform(2 * rows, time, low=0.01, high=3.0)
        loss = trl(kind, values, reference, mask, 0.3, 0.0, "reverse_kl", 0.5, None, (2 * log_p).logsumexp(-1))
        cases.append(
            case(
                f"wpo, {kind}",
                TEXT.format(kind) + ", use_weighting",
                config=dict(loss_type=kind, beta=0.3, label_smoothing=0.0, divergence="reverse_kl", ld_alpha=None),
                inputs=dict(logits=logits, tokens=tokens, reference=reference, mask=mask),
                outputs=dict(loss=loss),
                grads=gradients(loss, logits=logits),
            )
        )


def since_dpo():
    cases = []
    cases_on_tokens(cases)
    cases_on_logits(cases)
    write("since_dpo", cases)
