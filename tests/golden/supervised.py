"""Log-probabilities of chosen tokens, and supervised fine-tuning."""

import types

import torch
from transformers.trainer_pt_utils import LabelSmoother
from trl.experimental.cpo.cpo_trainer import CPOTrainer
from trl.kernels import ChunkedLogProbFunction
from trl.trainer.sft_trainer import SFTTrainer
from trl.trainer.utils import entropy_from_logits, selective_log_softmax

from common import Draw, case, counted, gradients, trainer, write


class Outputs(dict):
    """A model's output: read by key (as Transformers does) and by name (as TRL does)."""

    __getattr__ = dict.__getitem__


def batch(draw, rows, time, vocabulary, scale=1.5, dtype=torch.float64):
    """Logits, tokens, and a mask of the answer: prompts and padding of many lengths."""
    logits = draw.normal(rows, time, vocabulary, scale=scale, decimals=2).to(dtype).double()
    tokens = draw.integers(rows, time, below=vocabulary)
    mask = torch.zeros(rows, time, dtype=torch.long)
    for row in range(rows):
        start = 1 + int(draw.integers(1, below=max(1, time // 2)))
        end = start + 1 + int(draw.integers(1, below=time - start))
        mask[row, start:end] = 1
    return logits.requires_grad_(), tokens, mask


def log_probs():
    cases = []
    next_token = (
        "trl 1.16.0 trl.trainer.utils.selective_log_softmax and entropy_from_logits on logits[:, :-1], "
        "tokens[:, 1:]; sums and means by trl.experimental.cpo.CPOTrainer.get_batch_logps; "
        "vocabulary mean and log Σ p² by torch, the latter checked in float32 by trl.kernels.ChunkedLogProbFunction"
    )
    shapes = [("small", 3, 5, 7, 1.5), ("one answer token", 2, 2, 4, 1.0), ("sharp logits", 2, 5, 6, 30.0)]
    for name, rows, time, vocabulary, scale in shapes:
        draw = Draw(f"log_probs {name}")
        logits, tokens, mask = batch(draw, rows, time, vocabulary, scale)
        cases.append(next_token_case(name, next_token, logits, tokens, mask, torch.float64))
    for name, dtype in [("bf16", torch.bfloat16), ("f16", torch.float16), ("f32", torch.float32)]:
        logits, tokens, mask = batch(Draw(f"log_probs {name}"), 2, 4, 9, 2.0, dtype)
        text = f"{next_token}; logits rounded to {name}, then computed in float64"
        cases.append(next_token_case(f"{name} logits", text, logits, tokens, mask, dtype))

    # the logits stand at the position of their token: a hole in the mask, no shift
    logits, targets, _ = batch(Draw("log_probs aligned"), 2, 4, 5)
    mask = torch.tensor([[1, 0, 1, 1], [0, 1, 0, 0]])
    values = selective_log_softmax(logits, targets, row_mask=mask)
    cases.append(
        case(
            "aligned",
            "trl 1.16.0 trl.trainer.utils.selective_log_softmax with row_mask",
            inputs=dict(logits=logits, targets=targets, mask=mask),
            outputs=dict(loss=values),
            grads=gradients(values, logits=logits),
        )
    )
    write("log_probs", cases)


def next_token_case(name, oracle, logits, tokens, mask, dtype):
    labels = tokens.masked_fill(mask == 0, -100)
    answer = mask[:, 1:]
    values = selective_log_softmax(logits[:, :-1], tokens[:, 1:], row_mask=answer)
    entropy = entropy_from_logits(logits[:, :-1]) * answer
    uniform = torch.log_softmax(logits[:, :-1], -1).mean(-1) * answer
    collision = torch.log((torch.softmax(logits[:, :-1], -1) ** 2).sum(-1)) * answer
    fused(logits[:, :-1], tokens[:, 1:], answer, values, entropy, collision)
    # an upstream gradient of four different sizes, so that no two parts can be confused
    loss = values + 0.3 * entropy - 0.2 * uniform + 0.1 * collision
    return case(
        name,
        oracle,
        config=dict(dtype=str(dtype).removeprefix("torch."), loss="values + 0.3 entropy - 0.2 vocabulary_mean + 0.1 log_collision"),
        inputs=dict(logits=logits, tokens=tokens, mask=mask),
        outputs=dict(
            loss=loss,
            values=values,
            entropy=entropy,
            vocabulary_mean=uniform,
            log_collision=collision,
            sum=CPOTrainer.get_batch_logps(logits, labels),
            mean=CPOTrainer.get_batch_logps(logits, labels, average_log_prob=True),
        ),
        grads=gradients(loss, logits=logits),
    )


def fused(logits, targets, mask, *expected):
    """TRL's fused kernel, which works in float32, agrees: its weights are the identity here."""
    vocabulary = logits.shape[-1]
    rows = logits.detach().float().reshape(-1, vocabulary)
    names = ("entropy", "log_sum_sq_probs")
    found = ChunkedLogProbFunction.apply(
        rows, torch.eye(vocabulary, dtype=torch.float32), None, targets.reshape(-1), 1.0, 4, None, 1.0, names
    )
    for got, want in zip(found, expected):
        torch.testing.assert_close(got.double().reshape(mask.shape) * mask, want, rtol=1e-5, atol=1e-5)


def trl_sft(logits, tokens, mask, epsilon=0.0, num_items=None):
    """SFTTrainer.compute_loss on given logits."""
    labels = tokens.masked_fill(mask == 0, -100)
    answer = mask[:, 1:]

    def model(**_):
        return Outputs(
            logits=logits,
            log_probs=selective_log_softmax(logits[:, :-1], tokens[:, 1:], row_mask=answer),
            label_mask=answer,
            entropy=entropy_from_logits(logits[:, :-1]),
            is_top1=answer.bool(),
        )

    stub = trainer(
        args=types.SimpleNamespace(loss_type="nll", average_tokens_across_devices=False),
        compute_loss_func=None,
        label_smoother=LabelSmoother(epsilon=epsilon) if epsilon else None,
    )
    inputs = dict(labels=labels, attention_mask=torch.ones_like(tokens))
    return SFTTrainer.compute_loss(stub, model, inputs, num_items_in_batch=num_items)


def smoothed(logits, tokens, mask, epsilon, weights=None):
    """-w [(1-ε) log p(yₜ) + ε/V Σᵥ log p(v)] for every counted token, row by row, in scalars."""
    rows = []
    for b in range(tokens.shape[0]):
        weight = 1.0 if weights is None else weights[b]
        row = []
        for t in range(1, tokens.shape[1]):
            z = logits[b, t - 1]
            total = torch.log(sum(torch.exp(v) for v in z))
            chosen = z[tokens[b, t]] - total
            uniform = sum(v - total for v in z) / len(z)
            row.append(-weight * ((1 - epsilon) * chosen + epsilon * uniform))
        rows.append(counted(row, mask[b, 1:]))
    return rows


def sft():
    cases = []
    for name, rows, time, vocabulary in [("three rows", 3, 6, 5), ("one row", 1, 4, 8)]:
        logits, tokens, mask = batch(Draw(f"sft {name}"), rows, time, vocabulary)
        inputs = dict(logits=logits, tokens=tokens, mask=mask)
        for reduction, items in [("token_mean", None), ("sum", 1), ("sum_over", 7)]:
            loss = trl_sft(logits, tokens, mask, num_items=items)
            cases.append(
                case(
                    f"{name}, {reduction}",
                    "trl 1.16.0 SFTTrainer.compute_loss, loss_type nll, on a stub",
                    config=dict(label_smoothing=0.0, reduction=reduction, count=items),
                    inputs=inputs,
                    outputs=dict(loss=loss),
                    grads=gradients(loss, logits=logits),
                )
            )
        loss = trl_sft(logits, tokens, mask, epsilon=0.3)
        cases.append(
            case(
                f"{name}, smoothed by Transformers",
                "trl 1.16.0 SFTTrainer.compute_loss with transformers 5.23.0 LabelSmoother, whose sum over the "
                "vocabulary is taken in float32",
                config=dict(label_smoothing=0.3, reduction="token_mean", precision="float32"),
                inputs=inputs,
                outputs=dict(loss=loss),
                grads=gradients(loss, logits=logits),
            )
        )

    logits, tokens, mask = batch(Draw("sft transcribed"), 3, 6, 4)
    weights = torch.tensor([0.25, 1.5, 2.0])
    reductions = {
        "sum": lambda rows: sum(sum(r) for r in rows),
        "token_mean": lambda rows: sum(sum(r) for r in rows) / sum(len(r) for r in rows),
        "sequence_mean": lambda rows: sum(sum(r) for r in rows) / len(rows),
        "mean_of_sequence_means": lambda rows: sum(sum(r) / len(r) for r in rows) / len(rows),
    }
    for reduction, reduce in reductions.items():
        loss = reduce(smoothed(logits, tokens, mask, 0.15, weights))
        cases.append(
            case(
                f"smoothed and weighted, {reduction}",
                "scalars: arXiv:2307.12966v1 Eq. 1 with label smoothing of Szegedy et al. (arXiv:1512.00567v3, "
                "section 7) and a weight per row",
                config=dict(label_smoothing=0.15, reduction=reduction),
                inputs=dict(logits=logits, tokens=tokens, mask=mask, weights=weights),
                outputs=dict(loss=loss),
                grads=gradients(loss, logits=logits),
            )
        )
    write("sft", cases)
