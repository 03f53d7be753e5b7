#!/usr/bin/env python3
"""Writes the golden numbers of tests/train with transformers, peft and torch.optim.AdamW as the reference.

    python tools/make_train_golden.py sft
    python tools/make_train_golden.py adapter build/erank

Run by hand in an environment with torch, transformers and peft; neither build nor tests need it. `sft` trains a tiny
model for ten steps on sequences padded side by side and writes tests/golden/train_sft.json (batches, losses, gradient
norms) and train_sft.safetensors (the adapter after ten steps). Weights are not stored: both sides fill them by the
formula of make_model_golden.py. `adapter` trains an adapter with the program and compares the logits of `erank model
logits` with those of peft on the files that it wrote.
"""
import json
import math
import subprocess
import sys
import tempfile

import torch

from make_model_golden import FAMILIES, GOLDEN, build, fill, integers, short, write

STEPS = 10
OPTIONS = dict(peak=0.005, warmup_ratio=0.2, floor_ratio=0.1, beta1=0.9, beta2=0.99, weight_decay=0.05, clip_norm=1.0,
               rank=4, alpha=8)
MODEL = "qwen3_untied_gqa_wide_heads"


def rate(step):
    """The factor of the peak at a step: a line up to it, then a cosine down to the floor."""
    warmup, floor = math.ceil(OPTIONS["warmup_ratio"] * STEPS), OPTIONS["floor_ratio"]
    if step < warmup:
        return (step + 1) / warmup
    return floor + (1 - floor) * (1 + math.cos(math.pi * (step - warmup) / (STEPS - warmup))) / 2


def make_batch(name, vocab):
    """Two queries of three passages: each with a direct answer of few learned tokens, every second one with a thought
    of many. A branch is its ids behind the prompt, the last `learned` of which are learned."""
    groups = []
    for q in range(2):
        query = integers(f"{name}.{q}", 7, vocab)
        group = []
        for d in range(3):
            key = f"{name}.{q}.{d}"
            branches = [dict(ids=integers(key + ".direct", 5 + d % 2, vocab), learned=1 + d % 2)]
            if (q + d) % 2:
                branches.append(dict(ids=integers(key + ".think", 9 + 2 * d, vocab), learned=7 + 2 * d))
            group.append(dict(prompt=query + integers(key, 4 + 3 * d, vocab), branches=branches))
        groups.append(group)
    return groups


def loss_of(model, batch, weighting):
    """transformers' own masked loss where each token weighs the same, else the mean over sequences of their means."""
    sequences = [(e["prompt"] + b["ids"], b["learned"]) for group in batch for e in group for b in e["branches"]]
    longest = max(len(ids) for ids, _ in sequences)
    ids = torch.zeros(len(sequences), longest, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for i, (sequence, learned) in enumerate(sequences):
        n = len(sequence)
        ids[i, :n] = torch.tensor(sequence)
        mask[i, :n] = 1
        labels[i, n - learned:n] = ids[i, n - learned:n]
    out = model(input_ids=ids, attention_mask=mask, labels=labels)
    if weighting == "tokens":
        return out.loss
    token_losses = torch.nn.functional.cross_entropy(out.logits[:, :-1].transpose(1, 2).float(), labels[:, 1:],
                                                     ignore_index=-100, reduction="none")
    return (token_losses.sum(1) / (labels[:, 1:] != -100).sum(1)).mean()


def train(model, batches, weighting):
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=OPTIONS["peak"], betas=(OPTIONS["beta1"], OPTIONS["beta2"]),
                                  weight_decay=OPTIONS["weight_decay"])
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    losses, norms = [], []
    for step in range(STEPS):
        loss = loss_of(model, batches[step % len(batches)], weighting)
        loss.backward()
        norms.append(short(torch.nn.utils.clip_grad_norm_(parameters, OPTIONS["clip_norm"]).item()))
        losses.append(short(loss.item()))
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    print(weighting, "losses", losses, "norms", norms)
    return dict(losses=losses, norms=norms)


def with_adapter():
    from peft import LoraConfig, get_peft_model
    family, values = FAMILIES[MODEL]
    model, stored = build(family, values)
    peft = get_peft_model(model, LoraConfig(r=OPTIONS["rank"], lora_alpha=OPTIONS["alpha"], task_type="CAUSAL_LM",
                                            target_modules="all-linear"))
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_" in name:
                parameter.copy_(fill(name.replace(".default.", "."), tuple(parameter.shape)))
    return peft, stored


def sft():
    from safetensors.torch import save_file
    family, values = FAMILIES[MODEL]
    batches = [make_batch(f"batch.{i}", values["vocab_size"]) for i in range(3)]
    out = dict(options=OPTIONS, batches=batches, runs={})
    for weighting in ("examples", "tokens"):
        model, out["config"] = with_adapter()
        out["runs"]["adapter_" + weighting] = train(model, batches, weighting)
        if weighting == "examples":
            tensors = {name.replace(".default.", "."): p.detach() for name, p in model.named_parameters() if "lora_" in name}
            save_file(tensors, GOLDEN / "train_sft.safetensors")
        model, _ = build(family, values)
        out["runs"]["full_" + weighting] = train(model, batches, weighting)
    write("train_sft.json", out)


def adapter(erank):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM
    with tempfile.TemporaryDirectory() as folder:
        def run(*args, **options):
            return subprocess.run([erank, *args], check=True, capture_output=True, text=True, **options).stdout
        run("model", "random", "--shape", "tiny", "--out", folder + "/model")
        pairs = [dict(qid=str(i % 4), docid=str(i), query="letter", text="abcdefgh"[i % 8] * 9, score=i % 11)
                 for i in range(24)]
        with open(folder + "/pairs.jsonl", "w") as file:
            file.writelines(json.dumps(p) + "\n" for p in pairs)
        run("train", "sft", "--model", folder + "/model", "--data", folder + "/pairs.jsonl", "--out", folder + "/run",
            "--precision", "bf16", "--learning-rate", "0.02", "--epochs", "4", "--batch-size", "8")
        model = AutoModelForCausalLM.from_pretrained(folder + "/model", dtype=torch.float32).eval()
        ids = torch.tensor([integers("ids", 40, model.config.vocab_size)])
        with torch.no_grad():
            base = model(ids).logits[0]
            theirs = PeftModel.from_pretrained(model, folder + "/run").eval()(ids).logits[0]
        ours = run("model", "logits", "--model", folder + "/run",
                   input=json.dumps(dict(ids=ids[0].tolist(), positions=list(range(40)))))
        ours = torch.tensor(json.loads(ours)["logits"])
        print("largest logit", theirs.abs().max().item(), "the adapter moves up to", (theirs - base).abs().max().item(),
              "largest difference", (theirs - ours).abs().max().item())


if __name__ == "__main__":
    if sys.argv[1:] == ["sft"]:
        sft()
    elif len(sys.argv) == 3 and sys.argv[1] == "adapter":
        adapter(sys.argv[2])
    else:
        sys.exit(__doc__)
