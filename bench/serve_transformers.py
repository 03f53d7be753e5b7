"""TEI's /rerank served by transformers, for bench/serve_load.py: serve_transformers.py MODEL bf16|fp32 THREADS.

Says its port on stdout when it is ready. As TEI does, it puts the pairs of all waiting requests into common batches,
here of at most 32 pairs with those of like length together; a score is how much more probable "yes" is than "no" as the
next token, which is how rerankers that are language models are read. The header x-compute-tokens counts tokens.
"""
import http.server
import json
import os
import queue
import sys
import threading

os.environ["HF_HUB_OFFLINE"] = "1"
import torch  # noqa: E402
import transformers  # noqa: E402

BATCH = 32
model_path, precision, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
torch.set_grad_enabled(False)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
tokenizer = transformers.AutoTokenizer.from_pretrained(model_path)
model = transformers.AutoModelForCausalLM.from_pretrained(
    model_path, dtype=torch.bfloat16 if precision == "bf16" else torch.float32).eval()
YES, NO = (tokenizer.encode(word, add_special_tokens=False)[-1] for word in ("yes", "no"))
waiting = queue.Queue()  # (ids, take)


def scores_of(prompts):
    """Padded at the end, which needs no mask: no real token sees the padding."""
    longest = max(map(len, prompts))
    ids = torch.tensor([prompt + [0] * (longest - len(prompt)) for prompt in prompts])
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
    last = hidden[torch.arange(len(prompts)), torch.tensor([len(prompt) - 1 for prompt in prompts])]
    logits = last @ model.lm_head.weight[[YES, NO]].T
    return (logits[:, 0] - logits[:, 1]).float().sigmoid().tolist()


def compute():
    while True:
        pairs = [waiting.get()]
        while not waiting.empty():
            pairs.append(waiting.get_nowait())
        pairs.sort(key=lambda pair: len(pair[0]))
        for begin in range(0, len(pairs), BATCH):
            some = pairs[begin:begin + BATCH]
            for (_, take), score in zip(some, scores_of([ids for ids, _ in some])):
                take(score)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        call = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompts = tokenizer([f"{call['query']} {text}" for text in call["texts"]])["input_ids"]
        scores, done, lock = [None] * len(prompts), threading.Event(), threading.Lock()

        def take(number, score):
            with lock:
                scores[number] = score
                if None not in scores:
                    done.set()

        for number, ids in enumerate(prompts):
            waiting.put((ids, lambda score, number=number: take(number, score)))
        done.wait()
        ranked = sorted(({"index": i, "score": s} for i, s in enumerate(scores)), key=lambda item: -item["score"])
        body = json.dumps(ranked).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("x-compute-tokens", str(sum(map(len, prompts))))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads, request_queue_size = True, 128


server = Server(("127.0.0.1", 0), Handler)
threading.Thread(target=compute, daemon=True).start()
scores_of([[1, 2, 3]])
print(server.server_port, flush=True)
server.serve_forever()
