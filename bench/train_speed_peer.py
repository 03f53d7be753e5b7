"""Times training steps of transformers + peft: train_speed_peer.py MODEL PAIRS lora|full fp32|bf16 THREADS STEPS. Prints a line of JSON.

PAIRS: a JSON list of {"ids", "terms": [[position, token, weight, complement], ...]}; the loss is the sum of
-weight log p(token), or -weight log(1 - p(token)) with `complement`, p being read at the position. As fast as these
libraries go without new kernels: one batch padded at its end, which needs no mask, logits of the asked rows only, and
the fused AdamW. Exits with 3 when they are not installed.
"""
import json
import os
import sys
import time
import warnings

model_path, pairs_path, what, precision, threads, steps = sys.argv[1:]
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
warnings.simplefilter("ignore")
try:
    import peft
    import torch
    import transformers
except ImportError:
    sys.exit(3)

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(int(threads))
torch.manual_seed(1)
dtype = torch.float32 if precision == "fp32" else torch.bfloat16
model = transformers.AutoModelForCausalLM.from_pretrained(model_path, dtype=dtype)
model.config.use_cache = False
if what == "lora":
    config = peft.LoraConfig(r=16, lora_alpha=32, lora_dropout=0, target_modules="all-linear")
    peft.get_peft_model(model, config, autocast_adapter_dtype=False)
model.train()
trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0, fused=True)

with open(pairs_path) as file:
    pairs = json.load(file)
longest = max(len(pair["ids"]) for pair in pairs)
ids = torch.tensor([pair["ids"] + [0] * (longest - len(pair["ids"])) for pair in pairs])
rows = sorted({(b, term[0]) for b, pair in enumerate(pairs) for term in pair["terms"]})
row_number = {row: number for number, row in enumerate(rows)}
terms = [(row_number[b, at], token, weight, flip) for b, pair in enumerate(pairs) for at, token, weight, flip in pair["terms"]]
sequence, position = (torch.tensor(column) for column in zip(*rows))
row, token, weight, flip = (torch.tensor(column) for column in zip(*terms))


def step():
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
    logits = model.lm_head(hidden[sequence, position]).float()
    log_p = torch.log_softmax(logits, -1)[row, token]
    log_p = torch.where(flip, torch.log(-torch.expm1(log_p.clamp(max=-1e-6))), log_p)
    loss = -(weight * log_p).sum()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item()


first_loss = step()
seconds = []
for _ in range(int(steps)):
    begin = time.perf_counter()
    step()
    seconds.append(time.perf_counter() - begin)
num_tokens = sum(len(pair["ids"]) for pair in pairs)
print(
    json.dumps(
        {
            "tool": f"transformers {transformers.__version__} + peft {peft.__version__}",
            "precision": precision,
            "seconds": round(min(seconds), 4),
            "pairs_per_s": round(len(pairs) / min(seconds), 4),
            "tokens_a_step": num_tokens,
            "tokens_per_s": round(num_tokens / min(seconds), 2),
            "first_loss": first_loss,
        }
    )
)
