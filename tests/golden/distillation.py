"""Distillation, and the supervised losses since: TRL's functions, and plain torch where it has none."""

import collections
import types

import torch
from trl.experimental.gkd.gkd_trainer import GKDTrainer
from trl.experimental.iw_opd.iw_opd_trainer import IWOPDTrainer
from trl.experimental.sdpo.loss_utils import compute_topk_self_distillation_loss
from trl.trainer.distillation_trainer import _chunked_divergence_loss
from trl.trainer.sft_trainer import SFTTrainer
from trl.trainer.utils import entropy_from_logits, selective_log_softmax

from common import Draw, case, function, gradients, released, trainer, write
from supervised import Outputs

MINILLM = "trl/experimental/minillm/minillm_trainer.py"
DIRECTIONS = [("forward", 0.0), ("reverse", 1.0), ("mixed", 0.5), ("mixed", 0.1), ("mixed", 0.9)]


def models(name, rows, time, vocabulary, scale=1.5):
    draw = Draw(f"distillation {name}")
    student = draw.normal(rows, time, vocabulary, scale=scale, decimals=2).requires_grad_()
    teacher = draw.normal(rows, time, vocabulary, scale=scale, decimals=2)
    tokens = draw.integers(rows, time, below=vocabulary)
    mask = torch.zeros(rows, time, dtype=torch.long)
    for row in range(rows):
        start = 1 + int(draw.integers(1, below=max(1, time // 2)))
        mask[row, start : start + 1 + int(draw.integers(1, below=time - start))] = 1
    return student, teacher, tokens, mask


def direction(name, beta):
    return {"jensen_shannon": {"weight": beta}} if name == "mixed" else name


def gkd():
    cases = []
    for name, rows, time, vocabulary, scale in [("small", 3, 5, 6, 1.5), ("sharp", 2, 4, 5, 9.0)]:
        student, teacher, tokens, mask = models(name, rows, time, vocabulary, scale)
        labels = tokens.masked_fill(mask == 0, -100)
        for word, beta in DIRECTIONS:
            for temperature, items in [(1.0, None), (2.5, 7)]:
                loss = GKDTrainer.generalized_jsd_loss(
                    student[:, :-1],
                    teacher[:, :-1],
                    labels[:, 1:],
                    beta=beta,
                    temperature=temperature,
                    num_items_in_batch=items,
                )
                cases.append(
                    case(
                        f"gkd, {name}, beta {beta}, temperature {temperature}",
                        "trl 1.16.0 GKDTrainer.generalized_jsd_loss on logits[:, :-1], labels[:, 1:]",
                        config=dict(kind="gkd", direction=direction(word, beta), temperature=temperature, count=items),
                        inputs=dict(student=student, teacher=teacher, mask=mask),
                        outputs=dict(loss=loss),
                        grads=gradients(loss, student=student),
                    )
                )
    return cases


def hidden():
    """TRL computes this in f32 tiles on other devices; on a CPU in the type of its inputs."""
    cases = []
    draw = Draw("distillation hidden")
    student, weight = draw.normal(2, 3, 4), draw.normal(7, 4)
    other, matrix = draw.normal(2, 3, 2), draw.normal(7, 2)
    student.requires_grad_(), weight.requires_grad_()
    mask = torch.tensor([[1, 1, 0], [0, 1, 1]])
    for word, beta in DIRECTIONS[:3]:
        found = _chunked_divergence_loss(
            student, other, weight, matrix, mask, beta, num_items_in_batch=1, temperature=1.5
        )
        plain = GKDTrainer.generalized_jsd_loss(
            student @ weight.T,
            other @ matrix.T,
            mask.masked_fill(mask == 0, -100),
            beta=beta,
            temperature=1.5,
            reduction="sum",
        )
        torch.testing.assert_close(found[0].double(), plain, rtol=1e-5, atol=1e-5)
        cases.append(
            case(
                f"hidden, beta {beta}",
                "trl 1.16.0 generalized_jsd_loss on hidden states times matrices; its _chunked_divergence_loss agrees",
                config=dict(kind="hidden", direction=direction(word, beta), temperature=1.5),
                inputs=dict(student=student, weight=weight, teacher=other, matrix=matrix, mask=mask),
                outputs=dict(loss=plain),
                grads=gradients(plain, student=student, weight=weight),
            )
        )
    return cases


def top_k():
    cases = []
    student, teacher, _, mask = models("top", 2, 4, 9)
    labels = mask.masked_fill(mask == 0, -100)
    for word, beta, of in [("forward", 0.0, "teacher"), ("reverse", 1.0, "student"), ("mixed", 0.3, "either")]:
        for k in [1, 3]:
            loss = IWOPDTrainer.generalized_jsd_loss(
                student, teacher, labels, beta=beta, top_k=k, add_tail=True, reduction="sum"
            )
            cases.append(
                case(
                    f"top {k}, beta {beta}",
                    "trl 1.16.0 IWOPDTrainer.generalized_jsd_loss with top_k and add_tail",
                    config=dict(kind="top", direction=direction(word, beta), top_k=dict(k=k, of=of)),
                    inputs=dict(student=student, teacher=teacher, mask=mask),
                    outputs=dict(loss=loss),
                    grads=gradients(loss, student=student),
                )
            )
    for word, beta in [("forward", 0.0), ("mixed", 0.6)]:
        each = compute_topk_self_distillation_loss(
            student, teacher, distillation_topk=3, distillation_alpha=beta, distillation_add_tail=True
        )
        loss = (each * mask).sum()
        cases.append(
            case(
                f"student's top 3, alpha {beta}",
                "trl 1.16.0 sdpo.loss_utils.compute_topk_self_distillation_loss with add_tail",
                config=dict(kind="top", direction=direction(word, beta), top_k=dict(k=3, of="student")),
                inputs=dict(student=student, teacher=teacher, mask=mask),
                outputs=dict(loss=loss),
                grads=gradients(loss, student=student),
            )
        )
    return cases


def iw_opd():
    cases = []
    student, teacher, tokens, mask = models("iw-opd", 3, 5, 6)
    chosen = lambda x: x.gather(-1, tokens[..., None])[..., 0]  # noqa: E731
    log_p = chosen(torch.log_softmax(teacher, -1))
    # another policy wrote the answers
    other = chosen(torch.log_softmax(student.detach() + 0.5 * teacher, -1))
    for gamma, rollout in [(0.5, None), (2.0, None), (0.5, other)]:
        metrics = collections.defaultdict(list)
        stub = types.SimpleNamespace(
            temperature=1.0,
            iw_opd_gamma=gamma,
            iw_opd_epsilon=1e-8,
            model=types.SimpleNamespace(training=True),
            _metrics={"train": metrics},
        )
        labels = tokens.masked_fill(mask == 0, -100)
        loss = IWOPDTrainer._compute_iw_opd_loss(stub, student, tokens, labels, log_p, rollout)
        more = {} if rollout is None else dict(rollout=rollout)
        cases.append(
            case(
                f"iw-opd, gamma {gamma}, written by {'the student' if rollout is None else 'another'}",
                "trl 1.16.0 IWOPDTrainer._compute_iw_opd_loss, on a stub",
                config=dict(kind="iw_opd", gamma=gamma, rollout=rollout is not None),
                inputs=dict(student=student, teacher=log_p, tokens=tokens, mask=mask) | more,
                outputs=dict(loss=loss),
                grads=gradients(loss, student=student),
            )
        )
    return cases


def minillm():
    """The advantages of the last release that had MiniLLM, and the gradient written out in scalars."""
    cases = []
    source = released("trl==1.14.2", MINILLM)
    advantage = function(source, "_compute_advantage", torch=torch)
    draw = Draw("distillation minillm")
    student, teacher = -draw.uniform(3, 4, high=3), -draw.uniform(3, 4, high=3)
    mask = torch.ones(3, 4, dtype=torch.long)
    for gamma in [0.0, 0.7, 1.0]:
        stub = types.SimpleNamespace(gamma=gamma, length_normalization=True)
        cases.append(
            case(
                f"advantages, gamma {gamma}",
                "trl 1.14.2 MiniLLMTrainer._compute_advantage with length normalization, without padding",
                config=dict(kind="advantages", discount=gamma),
                inputs=dict(student=student, teacher=teacher, mask=mask),
                outputs=dict(advantages=advantage(stub, student, teacher, mask)),
            )
        )
    logits, other, tokens, mask = models("minillm", 3, 4, 5)
    log_q, log_p = torch.log_softmax(logits, -1), torch.log_softmax(other, -1)
    chosen = lambda x: x.gather(-1, tokens[..., None])[..., 0]  # noqa: E731
    alpha, total = 0.2, 0.0
    for b in range(3):
        counted = [t for t in range(4) if mask[b, t]]
        for t in counted:
            q, p = chosen(log_q)[b, t], chosen(log_p)[b, t]
            later = [(chosen(log_p)[b, i] - chosen(log_q)[b, i]).detach() for i in counted if i > t]
            long = sum(later) / len(later) if later else 0.0
            weight = (q.exp() / ((1 - alpha) * q.exp() + alpha * p.exp())).detach()
            single = sum(log_q[b, t, v].exp() * (log_q[b, t, v] - log_p[b, t, v]) for v in range(5))
            total = total + weight * (single - long * q)
    cases.append(
        case(
            "minillm, alpha 0.2",
            "scalars: arXiv:2306.08543v4, section 2.2: single step, later rewards normalized by their number, weights",
            config=dict(kind="minillm", alpha=alpha),
            inputs=dict(student=logits, teacher=other, tokens=tokens, mask=mask),
            outputs=dict(loss=total),
            grads=gradients(total, student=logits),
        )
    )
    return cases


def trl_dft(logits, tokens, mask, num_items=None):
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
        args=types.SimpleNamespace(loss_type="dft", average_tokens_across_devices=False),
        compute_loss_func=None,
        label_smoother=None,
    )
    inputs = dict(labels=labels, attention_mask=torch.ones_like(tokens))
    return SFTTrainer.compute_loss(stub, model, inputs, num_items_in_batch=num_items)


def supervised_since():
    cases = []
    for name, scale in [("small", 1.5), ("sharp", 9.0)]:
        logits, _, tokens, mask = models(f"dft {name}", 3, 5, 6, scale)
        for items in [None, 7]:
            loss = trl_dft(logits, tokens, mask, items)
            cases.append(
                case(
                    f"dft, {name}, items {items}",
                    "trl 1.16.0 SFTTrainer.compute_loss, loss_type dft, on a stub",
                    config=dict(kind="dft", count=items),
                    inputs=dict(logits=logits, tokens=tokens, mask=mask),
                    outputs=dict(loss=loss),
                    grads=gradients(loss, logits=logits),
                )
            )
        for k, scale, power in [(20, 3.0, 1.0), (3, 1.0, 2.0)]:
            top = logits[:, :-1].detach().topk(min(k, logits.shape[-1]), dim=-1).values
            entropy = torch.distributions.Categorical(logits=top).entropy()
            log_probs = selective_log_softmax(logits[:, :-1], tokens[:, 1:])
            loss = -((entropy / scale) ** power * log_probs * mask[:, 1:]).sum() / mask[:, 1:].sum()
            cases.append(
                case(
                    f"eaft, {name}, top {k}, power {power}",
                    "torch: the entropy of the top logits by Categorical, arXiv:2601.02151",
                    config=dict(kind="eaft", k=k, scale=scale, power=power),
                    inputs=dict(logits=logits, tokens=tokens, mask=mask),
                    outputs=dict(loss=loss),
                    grads=gradients(loss, logits=logits),
                )
            )
    return cases


def distillation():
    write("distillation", gkd() + hidden() + top_k() + iw_opd() + minillm() + supervised_since())


if __name__ == "__main__":
    distillation()
