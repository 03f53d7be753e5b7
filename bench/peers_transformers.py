"""Measures transformers for bench/peers.py: peers_transformers.py MODEL sdpa|eager bf16|fp32 JOB.json.

As fast as the library goes without kernels of its own: no gradients, logits of the asked rows only, batches padded at
their end, which needs no mask, and what the prompts of a query have in common computed once.
"""
import copy
import itertools
import json
import os
import sys
import time

os.environ["HF_HUB_OFFLINE"] = "1"
import torch  # noqa: E402
import transformers  # noqa: E402

model_path, attention, precision, job_path = sys.argv[1:]
with open(job_path) as file:
    job = json.load(file)
torch.set_num_threads(job["threads"])
torch.set_grad_enabled(False)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
dtype = torch.bfloat16 if precision == "bf16" else torch.float32
model = transformers.AutoModelForCausalLM.from_pretrained(model_path, dtype=dtype, attn_implementation=attention).eval()


def random_ids(*shape):
    return torch.randint(1000, 40000, shape)


def forward(ids, cache, rows):
    """Logits of one row of each sequence."""
    hidden = model.model(input_ids=ids, past_key_values=cache, use_cache=cache is not None).last_hidden_state
    return model.lm_head(hidden[torch.arange(ids.shape[0]), rows])


def timed(body):
    begin = time.perf_counter()
    body()
    return time.perf_counter() - begin


def generate(logits, cache, number):
    for step in range(number):
        ids = logits.argmax(-1, keepdim=True)
        if step + 1 < number:
            logits = forward(ids, cache, -1)


def prefill():
    best = 0
    forward(random_ids(1, 64), None, -1)
    for batch in job["batches"]:
        ids = random_ids(batch, job["prefill_tokens"])
        best = max(best, ids.numel() / timed(lambda: forward(ids, None, -1)))
    return {"prefill": best}


def decode():
    def run(batch, number):
        cache = transformers.DynamicCache(config=model.config)
        generate(forward(random_ids(batch, job["decode_prompt"]), cache, -1), cache, number)
    run(1, 2)
    new = job["decode_tokens"]
    return {f"decode_{batch}": batch * new / timed(lambda: run(batch, new)) for batch in (1, 8, 64)}


def common_length(prompts):
    """How many ids all prompts begin with, but one less than the shortest has at most."""
    first, last = min(prompts), max(prompts)
    shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last)))
    return min(shared, min(map(len, prompts)) - 1)


def batches(prompts, size):
    """[(numbers, cache of the common part, own ids, last rows)], a query at a time, prompts of like lengths together."""
    by_query = {}
    for number, prompt in enumerate(prompts):
        by_query.setdefault(prompt["query"], []).append(number)
    for numbers in by_query.values():
        numbers.sort(key=lambda n: len(prompts[n]["ids"]))
        shared = common_length([prompts[n]["ids"] for n in numbers])
        prefix = transformers.DynamicCache(config=model.config)
        if shared:
            forward(torch.tensor([prompts[numbers[0]]["ids"][:shared]]), prefix, -1)
        for begin in range(0, len(numbers), size):
            some = numbers[begin:begin + size]
            own = [prompts[n]["ids"][shared:] for n in some]
            longest = max(map(len, own))
            cache = copy.deepcopy(prefix)
            if shared:
                cache.batch_repeat_interleave(len(some))
            ids = torch.tensor([o + [0] * (longest - len(o)) for o in own])
            yield some, cache, ids, torch.tensor([len(o) - 1 for o in own])


def direct():
    answers = [0] * len(job["prompts"])

    def run():
        for numbers, cache, ids, rows in batches(job["prompts"], 16):
            logits = forward(ids, cache, rows)
            logits.float().softmax(-1).topk(11)
            for number, token in zip(numbers, logits.argmax(-1).tolist()):
                answers[number] = token
    forward(random_ids(1, 64), None, -1)
    seconds = timed(run)
    return {"direct": len(answers) / seconds, "answers": answers}


def think():
    def run():
        for _, cache, ids, rows in batches(job["prompts"], len(job["prompts"])):
            generate(forward(ids, cache, rows), cache, job["new_tokens"])
    forward(random_ids(1, 64), None, -1)
    return {"think": len(job["prompts"]) / timed(run)}


print(json.dumps({"prefill": prefill, "decode": decode, "direct": direct, "think": think}[job["part"]]()))
