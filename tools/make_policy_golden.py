#!/usr/bin/env python3
"""Writes the golden numbers of reinforcement learning's losses, tests/golden/policy_loss.json, with NumPy in fp64.

    python tools/make_policy_golden.py [--check]

With --check nothing is written: what is there must be the same within 1e-7 of its size.

Run by hand where numpy is, to write; a test checks. The formulas are written as verl (core_algos.py:
compute_grpo_outcome_advantage, compute_policy_loss_vanilla, _gspo, _cispo, kl_penalty "low_var_kl", agg_loss) and TRL
(grpo_trainer.py) publish them, on padded rectangles. Gradients are central differences of these losses; what the
formulas detach is held at its value. What a difference moves over a kink would show as a wrong gradient, so every
ratio is kept away from the bounds.
"""
import json
import pathlib
import sys

import numpy as np

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden"
VOCAB, TEMPERATURE, STEP = 5, 0.7, 1e-6
LENGTHS = [4, 1, 3, 4]
WIDTH = max(LENGTHS)


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def pad(flat, fill=0.0):
    out = np.full((len(LENGTHS), WIDTH), fill)
    at = 0
    for i, n in enumerate(LENGTHS):
        out[i, :n] = flat[at:at + n]
        at += n
    return out


def difference(function, x):
    gradient = np.zeros_like(x)
    for i in np.ndindex(*x.shape):
        up, down = x.copy(), x.copy()
        up[i] += STEP
        down[i] -= STEP
        gradient[i] = (function(up) - function(down)) / (2 * STEP)
    return gradient


def verl_advantages(groups):
    return [((g - g.mean()) / (g.std(ddof=1) + 1e-6)).tolist() for g in map(np.array, groups)]


def trl_k3(log_p, reference):
    return np.exp(reference - log_p) - (reference - log_p) - 1


def verl_k3(log_p, reference):
    kl = np.clip(reference - log_p, -20, 20)
    return np.clip(np.exp(kl) - kl - 1, -10, 10)


def losses(log_p, held, case, data):
    """Policy loss and KL of each token, [S, WIDTH]; `held` is log_p where a formula detaches it."""
    mask, old, advantage = data["mask"], data["old"], data["advantages"][:, None]
    low, high = 1 - case["clip"][0], 1 + case["clip"][1]
    change = np.clip(log_p - old, -20, 20)
    if case["ratio"] == "sequence":
        mean = ((held - old) * mask).sum(1) / np.maximum(mask.sum(1), 1)
        change = log_p - held + np.clip(mean, -20, 20)[:, None]
    ratio = np.exp(change)
    if case["ratio"] == "cispo":
        weight = np.clip(np.exp(np.clip(held - old, -20, 20)), low, high)
        policy = -weight * advantage * log_p
    else:
        policy = np.maximum(-advantage * ratio, -advantage * np.clip(ratio, low, high))
        policy = np.where(advantage < 0, np.minimum(-advantage * 3.0, policy), policy)
    if case["correction"]:
        policy = policy * np.minimum(np.exp(np.clip(old - data["sampler"], -20, 20)), 2.0)
    return policy, verl_k3(log_p, data["reference"]), ratio


def aggregate(values, mask, case):
    """verl's agg_loss."""
    sequences = (mask.sum(1) > 0).sum()
    if case["aggregation"] == "tokens":
        return (values * mask).sum() / mask.sum()
    if case["aggregation"] == "sequences":
        return ((values * mask).sum(1) / np.maximum(mask.sum(1), 1)).sum() / sequences
    return (values * mask).sum() / (sequences * case["constant_length"])


def policy_case(case, logits, tokens, flat):
    mask = pad(flat["sampled"])
    if case["overlong"] == "mask":
        mask[np.array(flat["overlong"]) == 1] = 0
    data = dict(mask=mask, advantages=np.array(flat["advantages"]))
    for key in ("old", "reference", "sampler"):
        data[key] = pad(flat[key])

    def log_p(x):
        return pad(log_softmax(x / TEMPERATURE)[np.arange(len(tokens)), tokens])

    held = log_p(logits)

    def loss(x):
        policy, kl, _ = losses(log_p(x), held, case, data)
        return aggregate(policy + case["kl_coef"] * kl, mask, case)

    _, kl, ratio = losses(held, held, case, data)
    on = mask > 0
    advantage = np.broadcast_to(data["advantages"][:, None], on.shape)
    low, high = 1 - case["clip"][0], 1 + case["clip"][1]
    if case["ratio"] == "cispo":
        clipped = [ratio < low, ratio > high, np.zeros_like(on)]
    else:
        clipped = [(ratio < low) & (advantage < 0), (ratio > high) & (advantage > 0), (ratio > 3) & (advantage < 0)]
    assert np.abs(np.concatenate([ratio[on] - edge for edge in (low, high, 3)])).min() > 1e-3
    return dict(case, loss=loss(logits), gradient=difference(loss, logits).ravel().tolist(), kl=(kl * on).sum(),
                ratio_sum=(ratio * on).sum(), ratio_min=ratio[on].min(), ratio_max=ratio[on].max(),
                clipped=[int((c & on).sum()) for c in clipped])


def policy():
    rng = np.random.default_rng(15)
    total = sum(LENGTHS)
    logits = rng.normal(size=(total, VOCAB)).round(3)
    tokens = rng.integers(VOCAB, size=total)
    log_p = log_softmax(logits / TEMPERATURE)[np.arange(total), tokens]
    # Every kind of token: nearly the old one, clipped below and above, over the dual clip, over the bounds of exp.
    change = np.array([0.05, -0.6, 0.5, 1.5, 1.4, 0.01, -0.4, 25.0, -0.1, 0.6, -0.5, 0.1])
    from_reference = np.array([0.1, -0.3, 3.0, 0.5, -24.0, 0.2, 0.7, -0.9, 0.05, 0.3, -2.0, 0.4])
    flat = dict(old=(log_p - change).round(6).tolist(), reference=(log_p + from_reference).round(6).tolist(),
                sampler=(log_p - change + rng.normal(size=total)).round(6).tolist(),
                advantages=[-1.25, 0.75, 1.5, -0.5], overlong=[0, 0, 0, 1],
                sampled=[1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 0])
    moderate = np.abs(from_reference) < 1
    assert np.allclose(trl_k3(log_p, log_p + from_reference)[moderate], verl_k3(log_p, log_p + from_reference)[moderate])
    cases = []
    for ratio in ("token", "sequence", "cispo"):
        for aggregation in ("tokens", "sequences", "constant"):
            cases.append(dict(ratio=ratio, aggregation=aggregation, clip=[0.2, 0.28], kl_coef=0.05,
                              correction=len(cases) % 2 == 1, overlong="mask" if len(cases) % 3 else "penalty",
                              constant_length=6))
    cases.append(dict(cases[0], clip=[0.2, 0.2], kl_coef=0.0, correction=True))
    return dict(vocab=VOCAB, temperature=TEMPERATURE, lengths=LENGTHS, logits=logits.ravel().tolist(),
                tokens=tokens.tolist(), cases=[policy_case(c, logits, tokens, flat) for c in cases], **flat)


def exact():
    rng = np.random.default_rng(16)
    documents, vocab, kl_coef = 3, 13, 0.2
    digits = [2, 3, 4, 5, 6, 7, 8, 9, 10, 11]

    def distributions(x):
        p = np.exp(log_softmax(x))
        first, zero = p[:documents][:, digits], p[documents:][:, digits[0]]
        answers = np.column_stack([first[:, 0], first[:, 1] * (1 - zero), first[:, 2:], first[:, 1] * zero])
        return np.column_stack([answers, 1 - answers.sum(1)])

    logits, reference = rng.normal(size=(2, 2 * documents, vocab)).round(3)
    advantages = rng.normal(size=(documents, 12)).round(3)
    r = distributions(reference)

    def loss(x):
        p = distributions(x)
        return (-(advantages * p).sum() + kl_coef * (p * np.log(p / r)).sum()) / 5  # a mini batch of 5 documents

    p = distributions(logits)
    z = p[:, :11] @ np.arange(11) / p[:, :11].sum(1)
    targets = np.array([7.0, 2.5, 4.0])
    pairs = [((z[i] - z[j]) - (targets[i] - targets[j])) ** 2 for i in range(3) for j in range(i + 1, 3)]
    return dict(documents=documents, vocab=vocab, kl_coef=kl_coef, digits=digits, logits=logits.ravel().tolist(),
                reference=reference.ravel().tolist(), advantages=advantages.ravel().tolist(), num_documents=5,
                answers=p[:, :11].ravel().tolist(), loss=loss(logits), gradient=difference(loss, logits).ravel().tolist(),
                kl=(p * np.log(p / r)).sum(), entropy=-(p * np.log(p)).sum(), expected=z.tolist(),
                targets=targets.tolist(), margin=np.mean(pairs),
                softmax=-(np.exp(log_softmax(targets / 2)) * log_softmax(z / 2)).sum())


def short(value):
    if isinstance(value, dict):
        return {key: short(v) for key, v in value.items()}
    if isinstance(value, list):
        return [short(v) for v in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value


def unlike(a, b, where="golden"):
    """Where two nested values differ, or ""."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return next(filter(None, (unlike(a[key], b[key], f"{where}.{key}") for key in a)), "")
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return next(filter(None, (unlike(x, y, f"{where}[{i}]") for i, (x, y) in enumerate(zip(a, b)))), "")
    numbers = not isinstance(a, (str, bool)) and isinstance(a, (int, float)) and isinstance(b, (int, float))
    same = abs(a - b) <= 1e-7 * max(1, abs(a)) if numbers else a == b
    return "" if same else f"{where} is {b}, computed anew {a}"


if __name__ == "__main__":
    groups = [[1.0, 0.5, -1.0, 0.2, 0.2], [-2.0, -2.0, -2.0, -2.0, 0.9375], [0.25, 0.5, 0.125, 0.1, 1 / 3]]
    golden = dict(groups=groups, advantages=verl_advantages(groups), policy=policy(), exact=exact())
    path = GOLDEN / "policy_loss.json"
    if sys.argv[1:] == ["--check"]:
        if difference := unlike(short(golden), json.loads(path.read_text())):
            sys.exit(f"{path.name}: {difference}")
    else:
        text = json.dumps(short(golden), separators=(",", ":"))
        path.write_text(text.replace("},{", "},\n{") + "\n")
