"""The other preference objectives since the survey: TRL's trainers, and papers written out in scalars."""

import types

import torch
import torch.nn.functional as F
from trl.experimental.cpo.cpo_trainer import CPOTrainer
from trl.experimental.orpo.orpo_trainer import ORPOTrainer
from trl.experimental.tpo.tpo_trainer import TPOTrainer
from trl.trainer.kto_trainer import KTOTrainer

from common import Draw, case, counted, function, gradients, one_process, ragged, released, trainer, write

OLD = "trl==1.13.0"


def kto(cases):
    for kind, beta, good, other in [("kto", 0.1, 1.0, 1.33), ("kto", 0.8, 0.7, 1.0), ("apo_zero_unpaired", 0.5, 1.0, 1.0)]:
        for sign in [1.0, -1.0]:
            name = f"{kind}, beta {beta}, mismatched {'above' if sign > 0 else 'below'}"
            draw = Draw(f"since {name}")
            rows, time = 4, 3
            values = (-draw.uniform(rows, time, low=0.1, high=3.0)).requires_grad_()
            mask = ragged([3, 2, 3, 1], time)
            reference = -draw.uniform(rows, low=1.0, high=6.0)
            policy_kl = -draw.uniform(rows, low=1.0, high=6.0)
            reference_kl = policy_kl - sign * draw.uniform(rows, low=0.1, high=1.0)
            labels = torch.tensor([1, 0, 1, 0])
            whole = torch.cat([torch.zeros_like(mask[:, :1]), mask], 1)
            stub = trainer(
                calculate_KL=kind == "kto", loss_type=kind, beta=beta, desirable_weight=good, undesirable_weight=other,
                precompute_ref_logps=True, _compute_kl_logps=lambda *_: policy_kl, _tp_size=1,
            )
            out = types.SimpleNamespace(
                log_probs=values * mask, entropy=torch.zeros_like(values), mean_logits=torch.zeros_like(values)
            )
            inputs = dict(
                input_ids=torch.zeros_like(whole), attention_mask=torch.ones_like(whole), completion_mask=whole,
                label=labels, ref_logps=reference, ref_KL_logps=reference_kl,
            )
            loss = KTOTrainer._compute_loss(stub, lambda **_: out, inputs, False)
            cases.append(
                case(
                    name,
                    f"trl 1.16.0 KTOTrainer._compute_loss, {kind}, on a stub; the mean over answers",
                    config=dict(kind=kind, beta=beta, desirable_weight=good, undesirable_weight=other),
                    inputs=dict(
                        values=values, mask=mask, reference=reference, labels=labels,
                        policy_mismatched=policy_kl, reference_mismatched=reference_kl,
                    ),
                    outputs=dict(loss=loss),
                    grads=gradients(loss, values=values),
                )
            )


def pair(draw, low, high, rows=4):
    return [(-draw.uniform(rows, low=low, high=high)).requires_grad_() for _ in range(2)]


def add_pairs(cases, name, text, config, chosen, rejected, loss, **more):
    cases.append(
        case(
            name, text, config=config, inputs=dict(chosen=chosen, rejected=rejected, **more), outputs=dict(loss=loss),
            grads=gradients(loss, chosen=chosen, rejected=rejected),
        )
    )


def cpo(cases):
    for kind, beta, gamma, alpha, epsilon in [
        ("sigmoid", 0.1, 0.5, 0.0, 0.0),
        ("sigmoid", 0.7, 0.5, 0.0, 0.2),
        ("hinge", 0.3, 0.5, 0.0, 0.0),
        ("ipo", 0.5, 0.5, 0.0, 0.0),
        ("simpo", 2.0, 0.5, 0.0, 0.0),
        ("simpo", 0.1, 0.5, 0.0, 0.0),
        ("simpo", 2.0, 1.2, 0.25, 0.0),
        ("simpo", 1.5, 0.3, -0.5, 0.0),
    ]:
        name = f"cpo {kind}, beta {beta}, gamma {gamma}, alpha {alpha}, smoothing {epsilon}"
        chosen, rejected = pair(Draw(f"since {name}"), 0.05, 4.0)
        stub = types.SimpleNamespace(
            accelerator=one_process(), beta=beta, loss_type=kind, simpo_gamma=gamma, alpha=alpha, label_smoothing=epsilon
        )
        loss = CPOTrainer.cpo_loss(stub, chosen, rejected)[0]
        config = dict(kind=f"cpo_{kind}", beta=beta, gamma=gamma, alpha=alpha, label_smoothing=epsilon)
        add_pairs(cases, name, f"trl 1.16.0 CPOTrainer.cpo_loss, {kind}, on a stub", config, chosen, rejected, loss)


def orpo(cases):
    for name, low, high in [("middling", 0.05, 3.0), ("nearly certain", 1e-3, 0.05), ("unlikely", 5.0, 30.0)]:
        chosen, rejected = pair(Draw(f"since orpo {name}"), low, high)
        stub = types.SimpleNamespace(accelerator=one_process(), beta=0.1)
        single = torch.Tensor.float
        try:
            torch.Tensor.float = lambda x: x.double()  # the trainer computes in f32
            gained = ORPOTrainer.odds_ratio_loss(stub, chosen, rejected)[0]
        finally:
            torch.Tensor.float = single
        text = "trl 1.16.0 ORPOTrainer.odds_ratio_loss, on a stub, kept in f64; with the sign of a loss"
        add_pairs(cases, f"orpo, {name}", text, dict(kind="orpo", beta=0.1), chosen, rejected, -gained)


def tpo(cases):
    for kind, beta, gamma, epsilon in [
        ("sigmoid", 0.3, 0.5, 0.0),
        ("sigmoid", 0.3, 0.5, 0.1),
        ("hinge", 0.3, 0.5, 0.0),
        ("ipo", 0.6, 0.5, 0.0),
        ("tpo-l", 1.5, 0.5, 0.0),
    ]:
        name = f"tpo {kind}, smoothing {epsilon}"
        draw = Draw(f"since {name}")
        rows, time, vocabulary = 2, 3, 4
        logits = draw.normal(3 * rows, time + 1, vocabulary).requires_grad_()
        tokens = draw.integers(3 * rows, time + 1, below=vocabulary)
        mask = ragged([3, 1, 2, 3, 2, 3], time)
        whole = torch.cat([torch.zeros_like(mask[:, :1]), mask], 1)
        stub = trainer(beta=beta, loss_type=kind, tpo_l_gamma=gamma, tpo_alpha=0.7, label_smoothing=epsilon, _tp_size=1)
        inputs = dict(input_ids=tokens, attention_mask=torch.ones_like(tokens), completion_mask=whole)
        loss = TPOTrainer._compute_loss(stub, lambda **_: types.SimpleNamespace(logits=logits), inputs, False)
        cases.append(
            case(
                name,
                f"trl 1.16.0 TPOTrainer._compute_loss, {kind}, on a stub; the mean over triples",
                config=dict(kind="tpo", loss_type=kind, beta=beta, gamma=gamma, alpha=0.7, label_smoothing=epsilon),
                inputs=dict(logits=logits, tokens=tokens, mask=mask),
                outputs=dict(loss=loss),
                grads=gradients(loss, logits=logits),
            )
        )


def older(cases):
    """BCO, XPO and Nash-MD of the last release that has them."""
    env = dict(torch=torch, F=F)
    bco = function(released(OLD, "trl/experimental/bco/bco_trainer.py"), "bco_loss", **env)
    for beta, delta in [(0.1, 0.0), (0.7, 0.35)]:
        draw = Draw(f"since bco {beta}")
        (chosen, rejected), (ref_chosen, ref_rejected) = pair(draw, 0.5, 6.0), pair(draw, 0.5, 6.0)
        stub = types.SimpleNamespace(
            beta=beta, running=types.SimpleNamespace(mean=delta), match_underlying_distribution=False
        )
        refs = (ref_chosen.detach(), ref_rejected.detach())
        loss = bco(stub, chosen, rejected, *refs, None, None, do_train=False)[0]
        add_pairs(
            cases, f"bco, beta {beta}, shift {delta}", "trl 1.13.0 BCOTrainer.bco_loss, on a stub",
            dict(kind="bco", beta=beta, shift=delta), chosen, rejected, loss,
            reference_chosen=refs[0], reference_rejected=refs[1],
        )

    xpo = function(released(OLD, "trl/experimental/xpo/xpo_trainer.py"), "_compute_losses", **env)
    draw = Draw("since xpo")
    own, drawn = [(-draw.uniform(3, 2, low=0.1, high=3.0)).requires_grad_() for _ in range(2)]
    ref_own, ref_drawn = [-draw.uniform(3, 2, low=0.1, high=3.0) for _ in range(2)]
    wins = torch.tensor([True, False, True])
    stub = types.SimpleNamespace(beta=0.4, alpha=0.01, args=types.SimpleNamespace(loss_type="sigmoid"))
    loss = xpo(stub, own, drawn, ref_drawn, ref_own, wins)[0]
    cases.append(
        case(
            "xpo", "trl 1.13.0 XPOTrainer._compute_losses, on a stub; the mean over pairs",
            config=dict(kind="xpo", beta=0.4, alpha=0.01),
            inputs=dict(own=own, drawn=drawn, ref_own=ref_own, ref_drawn=ref_drawn, wins=wins.long()),
            outputs=dict(loss=loss), grads=gradients(loss, own=own, drawn=drawn),
        )
    )

    nash = function(released(OLD, "trl/experimental/nash_md/nash_md_trainer.py"), "_compute_losses", **env)
    draw = Draw("since nash md")
    values = (-draw.uniform(3, 4, low=0.1, high=3.0)).requires_grad_()
    reference, wins, mask = -draw.uniform(3, 4, low=0.1, high=3.0), draw.uniform(3), ragged([4, 2, 3], 4)
    loss = nash(types.SimpleNamespace(beta=0.3), values * mask, reference * mask, wins)[0]
    cases.append(
        case(
            "nash md", "trl 1.13.0 NashMDTrainer._compute_losses, on a stub; the mean over answers",
            config=dict(kind="nash_md", beta=0.3),
            inputs=dict(values=values, reference=reference, wins=wins, mask=mask),
            outputs=dict(loss=loss), grads=gradients(loss, values=values),
        )
    )


def since_trl():
    cases = []
    kto(cases)
    cpo(cases)
    orpo(cases)
    tpo(cases)
    older(cases)
    write("since_trl", cases)


# papers written out in scalars


def phi(z):
    return torch.log(1 + torch.exp(-z))


def scalar_pairs(cases):
    """Losses of two log-ratios, in the order of the papers' symbols."""
    forms = {
        "r_dpo": lambda w, l, n, m: phi(0.4 * (w - l) + 0.05 * (n - m)),
        "dpop": lambda w, l, n, m: phi(0.4 * (w - l - 5 * torch.clamp(-w, min=0))),
        "tdpo1": lambda w, l, n, m: phi(0.4 * (w - l - (m - n))),
        "sppo": lambda w, l, n, m: 0.5 * (w - (n / 10 - 0.5) / 0.4) ** 2 + 0.5 * (l - (m / 10 - 0.5) / 0.4) ** 2,
        "cal_dpo": lambda w, l, n, m: phi(w - l) + 0.5 * (w - 1.25) ** 2 + 0.5 * (l + 1.25) ** 2,
        "rebel": lambda w, l, n, m: ((w - l) - 0.4 * (n - m)) ** 2,
        "spin": lambda w, l, n, m: phi(0.4 * (w - l)),
        "simper": lambda w, l, n, m: -torch.exp(w) + torch.exp(l),
        "smoothed": lambda w, l, n, m: 0.8 * phi(w - l) + 0.2 * phi(l - w),
        "grm_dpo": lambda w, l, n, m: 0.7 * phi(w - l) + 0.3 * phi(0.4 * (n - m)),
        "grm_sft": lambda w, l, n, m: 0.7 * phi(w - l) - 0.3 * n,
        "grm_log_sigmoid": lambda w, l, n, m: 0.7 * phi(w - l) + 0.3 * phi(0.4 * n),
    }
    for name, form in forms.items():
        draw = Draw(f"since scalar {name}")
        chosen, rejected = [draw.normal(4).requires_grad_() for _ in range(2)]
        more = [draw.integers(4, below=9) + 1.0 for _ in range(2)]
        loss = torch.stack([form(*row) for row in zip(chosen, rejected, *more)])
        add_pairs(
            cases, name, "scalars: the paper's equation", dict(kind=name), chosen, rejected, loss,
            more_chosen=more[0], more_rejected=more[1],
        )


def softmax(scores):
    total = sum(torch.exp(s) for s in scores)
    return [torch.exp(s) / total for s in scores]


def scalar_lists(cases):
    def nca(rho, reward):
        share = softmax([r / 0.5 for r in reward])
        return sum(s * phi(0.4 * x) for s, x in zip(share, rho)) + sum(phi(-0.4 * x) for x in rho) / len(rho)

    def info_nca(rho, reward):
        share, p = softmax([r / 0.5 for r in reward]), softmax([0.4 * x for x in rho])
        return -sum(s * torch.log(q) for s, q in zip(share, p))

    def exo(rho, reward):
        share, q = softmax([r / 0.5 for r in reward]), softmax([0.4 * x for x in rho])
        return sum(x * (torch.log(x) - torch.log(s)) for x, s in zip(q, share))

    for name, form in [("nca", nca), ("info_nca", info_nca), ("exo", exo)]:
        draw = Draw(f"since scalar {name}")
        sums, reference = draw.normal(3, 4, shift=-5.0).requires_grad_(), draw.normal(3, 4, shift=-5.0)
        rewards, mask = draw.normal(3, 4), ragged([4, 2, 3], 4)
        loss = torch.stack(
            [
                form(counted(sums[b] - reference[b], mask[b]), counted(rewards[b], mask[b]))
                for b in range(3)
            ]
        )
        cases.append(
            case(
                f"list {name}", "scalars: the paper's equation", config=dict(kind=f"list_{name}"),
                inputs=dict(sums=sums, reference=reference, rewards=rewards, mask=mask),
                outputs=dict(loss=loss), grads=gradients(loss, sums=sums),
            )
        )


def scalar_tokens(cases):
    def bce(s, y):
        return y * phi(s) + (1 - y) * phi(-s)

    draw = Draw("since scalar process")
    scores, labels, ends = draw.normal(2, 4).requires_grad_(), draw.uniform(2, 4), torch.tensor([[0, 1, 0, 1], [1, 0, 0, 1]])
    loss = torch.stack([torch.stack([bce(s, y) * e for s, y, e in zip(*row)]) for row in zip(scores, labels, ends)])
    cases.append(
        case(
            "process", "scalars: the cross-entropy at the ends of steps", config=dict(kind="process"),
            inputs=dict(scores=scores, labels=labels, ends=ends), outputs=dict(loss=loss), grads=gradients(loss, scores=scores),
        )
    )
    draw = Draw("since scalar implicit")
    values, reference, mask = (-draw.uniform(2, 3, high=4.0)).requires_grad_(), -draw.uniform(2, 3, high=4.0), ragged([3, 2], 3)
    labels = torch.tensor([1.0, 0.0])
    loss = torch.stack([bce(0.05 * sum(counted(values[b] - reference[b], mask[b])), labels[b]) for b in range(2)])
    cases.append(
        case(
            "implicit", "scalars: the cross-entropy of an implicit reward", config=dict(kind="implicit"),
            inputs=dict(values=values, reference=reference, mask=mask, labels=labels),
            outputs=dict(loss=loss), grads=gradients(loss, values=values),
        )
    )
    draw = Draw("since scalar kl")
    logits, reference, mask = draw.normal(2, 3, 4).requires_grad_(), draw.normal(2, 3, 4), ragged([3, 2], 3)
    rows = []
    for b in range(2):
        total = 0.0
        for t in range(3):
            if mask[b, t]:
                p, q = softmax(reference[b, t]), softmax(logits[b, t])
                total = total + sum(x * torch.log(x / y) for x, y in zip(p, q))
        rows.append(total)
    loss = torch.stack(rows)
    cases.append(
        case(
            "sequential kl", "scalars: the divergence of TDPO", config=dict(kind="sequential_kl"),
            inputs=dict(logits=logits, reference=reference, mask=mask), outputs=dict(loss=loss), grads=gradients(loss, logits=logits),
        )
    )
    chosen, rejected = [Draw(f"since scalar tdpo2 {i}").normal(4).requires_grad_() for i in range(2)]
    d_chosen, d_rejected = [Draw(f"since scalar tdpo2 d{i}").uniform(4).requires_grad_() for i in range(2)]
    loss = phi(0.4 * (chosen - rejected - 0.6 * (d_rejected - d_chosen.detach())))
    cases.append(
        case(
            "tdpo2", "scalars: the paper's equation", config=dict(kind="tdpo2"),
            inputs=dict(chosen=chosen, rejected=rejected, d_chosen=d_chosen, d_rejected=d_rejected), outputs=dict(loss=loss),
            grads=gradients(loss, chosen=chosen, rejected=rejected, d_rejected=d_rejected),
        )
    )
    yes, no = [(-Draw(f"since verdict {i}").uniform(3, low=0.1, high=4.0)).requires_grad_() for i in range(2)]
    loss = torch.exp(yes) / (torch.exp(yes) + torch.exp(no))
    add_pairs(cases, "verdict", "scalars: p/(p + q)", dict(kind="verdict"), yes, no, loss)
    scores, labels = Draw("since outcome").normal(4).requires_grad_(), torch.tensor([1.0, 0.0, 0.3, 1.0])
    loss = torch.stack([bce(s, y) for s, y in zip(scores, labels)])
    cases.append(
        case(
            "outcome", "scalars: the cross-entropy of a label", config=dict(kind="outcome"),
            inputs=dict(scores=scores, labels=labels), outputs=dict(loss=loss), grads=gradients(loss, scores=scores),
        )
    )


def since_scalar():
    cases = []
    scalar_pairs(cases)
    scalar_lists(cases)
    scalar_tokens(cases)
    write("since_scalar", cases)
