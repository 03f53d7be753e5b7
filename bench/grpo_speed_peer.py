"""Times steps of TRL's GRPOTrainer for bench/grpo_speed.py: grpo_speed_peer.py JOB.json. Prints a line of JSON.

transformers generates, which is TRL's only way on a CPU; an iteration's completions are generated in one batch, and the
reference is the model with its adapter off, so that there is one copy of the weights. The time of a step is from the
end of the one before to its end.
"""
import json
import os
import re
import sys
import time
import warnings

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", TRL_EXPERIMENTAL_SILENCE="1")
warnings.simplefilter("ignore")
import datasets  # noqa: E402
import peft  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
import trl  # noqa: E402

with open(sys.argv[1], encoding="utf-8") as file:
    job = json.load(file)
torch.set_num_threads(job["threads"])
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
datasets.disable_progress_bars()
counts = {"generated": 0, "completions": 0, "formatted": 0, "longest": 0, "learning": 0, "reference": 0}
sampling, ends = [], []


def reward(completions, completion_ids, grade, **_):
    """As dear as erank's: the squared error to the judgement, -2 where there is no answer."""
    counts["generated"] += sum(map(len, completion_ids))
    counts["completions"] += len(completion_ids)
    counts["longest"] = max(counts["longest"], *map(len, completion_ids))
    answers = [re.search(r">(10|[0-9])</[a-z]+>\s*$", text) for text in completions]
    counts["formatted"] += sum(answer is not None for answer in answers)
    return [1 - ((int(a[1]) - 10 * g / 3) / 10) ** 2 if a else -2.0 for a, g in zip(answers, grade)]


class Clock(transformers.TrainerCallback):
    def on_step_end(self, *_, **__):
        ends.append(time.perf_counter())


setting = job["setting"]
batch, size = setting["batch"], len(job["prompts"]) * job["rollouts"]
dtype = torch.bfloat16 if setting["weights"] == "bf16" else torch.float32
model = transformers.AutoModelForCausalLM.from_pretrained(job["model"], dtype=dtype, attn_implementation="sdpa")
adapter = peft.LoraConfig(r=job["rank"], lora_alpha=2 * job["rank"], lora_dropout=0, target_modules="all-linear",
                          task_type="CAUSAL_LM")
tokenizer = transformers.AutoTokenizer.from_pretrained(job["model"])
ids = tokenizer([row["prompt"] for row in job["prompts"]])["input_ids"]
assert ids == [row["ids"] for row in job["prompts"]], "the tokenizer gives other ids than erank's"
trainer = trl.GRPOTrainer(
    model=model, reward_funcs=reward, peft_config=adapter, callbacks=[Clock()], processing_class=tokenizer,
    train_dataset=datasets.Dataset.from_list([{"prompt": r["prompt"], "grade": r["grade"]} for r in job["prompts"]]),
    args=trl.GRPOConfig(
        output_dir=os.path.join(job["work"], "trl"), use_cpu=True, bf16=setting["autocast"], report_to="none",
        save_strategy="no", logging_steps=1, disable_tqdm=True, gradient_checkpointing=False, seed=1,
        per_device_train_batch_size=batch, gradient_accumulation_steps=size // batch, num_generations=job["rollouts"],
        max_completion_length=job["tokens"], temperature=1.0, top_p=1.0, top_k=0, beta=job["kl_coef"], epsilon=0.2,
        num_iterations=1, loss_type="dapo", scale_rewards="group", mask_truncated_completions=True,
        max_steps=job["steps"], learning_rate=job["rate"], lr_scheduler_type="constant", weight_decay=0.01,
        max_grad_norm=1.0, use_transformers_continuous_batching=setting["continuous"]))

if setting["adapter"] == "bf16":
    for parameter in trainer.model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)


def timed(name):
    body = getattr(trainer.model.base_model.model, name)

    def run(*args, **kwargs):
        begin = time.perf_counter()
        result = body(*args, **kwargs)
        sampling.append(time.perf_counter() - begin)
        return result
    setattr(trainer.model.base_model.model, name, run)


generating = "generate_batch" if setting["continuous"] else "generate"
timed(generating)


def count(_, args, kwargs):
    if "labels" in kwargs:
        counts["learning" if torch.is_grad_enabled() else "reference"] += kwargs["input_ids"].numel()


trainer.model.base_model.model.register_forward_pre_hook(count, with_kwargs=True)
begin = time.perf_counter()
trainer.train()
steps = [end - start for start, end in zip([begin] + ends, ends)]
print(json.dumps({
    "version": trl.__version__, "torch": torch.__version__, "transformers": transformers.__version__,
    "seconds": steps, "sampling_seconds": sampling,
    "trained": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad), "steps": len(steps), **counts}))
