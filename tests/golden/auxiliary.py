"""The terms beside PPO's losses: KL estimators, the entropy bonus, the pretraining term."""

import torch

from common import Draw, case, gradients, ragged, write


def auxiliary():
    cases = []
    estimators = {
        "k1": ("log p - log q", lambda x: -x),
        "k2": ("(log p - log q)^2 / 2", lambda x: x * x / 2),
        "k3": ("q/p - 1 - log(q/p)", lambda x: torch.exp(x) - 1 - x),
    }
    for name, (formula, estimate) in estimators.items():
        draw = Draw(f"kl {name}")
        new = draw.normal(3, 5, scale=0.8, shift=-2.0).requires_grad_()
        reference = draw.normal(3, 5, scale=0.8, shift=-2.0)
        mask = ragged([5, 2, 4], 5)
        loss = torch.where(mask.bool(), estimate(reference - new), 0.0)
        cases.append(
            case(
                name,
                f"Schulman 2020, approximating KL divergence: {name} = {formula}, q the reference",
                config=dict(term="kl", estimator=name),
                inputs=dict(new=new, reference=reference, mask=mask),
                outputs=dict(loss=loss),
                grads=gradients(loss, new=new),
            )
        )

    draw = Draw("entropy")
    logits = draw.normal(2, 4, 6, scale=2.0).requires_grad_()
    tokens, mask = draw.integers(2, 4, below=6), ragged([4, 2], 4)
    entropy = torch.distributions.Categorical(logits=logits).entropy()
    loss = torch.where(mask.bool(), -0.3 * entropy, 0.0)
    cases.append(
        case(
            "entropy",
            f"torch {torch.__version__} torch.distributions.Categorical.entropy, times -0.3 (PPO eq. 9)",
            config=dict(term="entropy", coefficient=0.3),
            inputs=dict(logits=logits, tokens=tokens, mask=mask),
            outputs=dict(loss=loss),
            grads=gradients(loss, logits=logits),
        )
    )

    draw = Draw("ptx")
    text = draw.normal(2, 4, scale=0.8, shift=-2.0).requires_grad_()
    mask = ragged([3, 4], 4)
    loss = torch.where(mask.bool(), -5.5 * text, 0.0)
    cases.append(
        case(
            "ptx",
            "InstructGPT eq. 2, second term, per token: -gamma log p",
            config=dict(term="ptx", gamma=5.5),
            inputs=dict(text=text, mask=mask),
            outputs=dict(loss=loss),
            grads=gradients(loss, text=text),
        )
    )
    write("auxiliary", cases)
