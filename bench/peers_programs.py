"""The programs that bench/peers.py compares: how each is started, what it is given, and what is read off it."""
import concurrent.futures
import hashlib
import http.client
import json
import os
import pathlib
import queue
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
DECODE_PROMPT, THINK_PREFIX, THINK_OWN = 16, 150, 180


class Unavailable(Exception):
    """Something cannot be measured here; its text says why."""


def say(text):
    print(f"peers: {text}", file=sys.stderr, flush=True)


def cache_folder():
    own = os.environ.get("ERANK_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return pathlib.Path(own) if own else pathlib.Path(base) / "erank"


def call(command, timeout=1200, text_in=None):
    """(stdout, seconds, peak resident MB) of a command; Unavailable with the end of its stderr when it fails."""
    command = list(map(str, command))
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as given:
        given.write((text_in or "").encode())
        given.seek(0)
        begin = time.perf_counter()
        try:
            process = subprocess.Popen(command, stdin=given, stdout=out, stderr=err)
        except OSError as reason:
            raise Unavailable(str(reason)) from None
        timer = threading.Timer(timeout, process.kill)
        timer.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        finally:
            timer.cancel()
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            last = err.read().decode(errors="replace").strip().splitlines()[-3:]
            raise Unavailable(f"{' '.join(command)[:200]}: exit code {process.returncode}: {' / '.join(last)[-400:]}")
        return out.read().decode(errors="replace"), seconds, usage.ru_maxrss * 1024 / 1e6


def json_line(text):
    """The last line of `text` that is a JSON object."""
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            return json.loads(line)
    raise Unavailable(f"no JSON in: {text[-200:]}")


class Installed:
    """The programs that tools/peers has put into the cache folder, each by its newest version."""

    def __init__(self, erank):
        self.erank = pathlib.Path(erank).resolve()
        self.cache = cache_folder() / "peers"

    def llama(self, program):
        for folder in sorted(self.cache.glob("llama.cpp-*"), reverse=True):
            if (folder / "complete").exists():
                return folder / "bin" / program
        raise Unavailable("llama.cpp is not there; run tools/peers llama.cpp")

    def python(self, name):
        for folder in sorted(self.cache.glob(f"{name}-*"), reverse=True):
            if (folder / "complete").exists():
                return folder / "bin/python"
        raise Unavailable(f"{name} is not there; run tools/peers {name}")


def multiplies_bf16():
    flags = pathlib.Path("/proc/cpuinfo").read_text()
    return any(word in flags for word in ("avx512_bf16", "amx_bf16", " bf16"))


# --- models and prompts ---------------------------------------------------------------------------------------------
class Model:
    """One shape in the forms that each program reads, made once and kept in the cache folder."""

    def __init__(self, bench, shape):
        self.bench, self.shape = bench, shape
        info = json.loads(call([bench.erank, "model", "info", "--json"])[0])
        described = pathlib.Path(info["adapter"] if "adapter" in info else info["model"])
        self.defaults = json.loads((described / "erank.json").read_text())
        self.base = pathlib.Path(info["model"])
        key = hashlib.sha256()
        for path in [described / "erank.json", described / "adapter_model.safetensors",
                     ROOT / "tools/write_peer_gguf.py"]:
            key.update(path.read_bytes())
        self.folder = bench.cache / "models" / f"{shape}-{key.hexdigest()[:12]}"
        self.not_made = {}
        self.hf = self.folder / "hf"

    def made(self, path, make):
        """`path`, which `make(unfinished)` writes when it is not there."""
        if path in self.not_made:
            raise self.not_made[path]
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            say(f"{self.shape}: making {path.name}")
            part = path.with_name("part-" + path.name)
            shutil.rmtree(part, ignore_errors=True)
            part.unlink(missing_ok=True)
            try:
                make(part)
            except Unavailable as reason:
                self.not_made[path] = Unavailable(f"{path.name} cannot be made: {reason}")
                raise self.not_made[path] from None
            part.rename(path)
        return path

    def hugging_face(self):
        def make(out):
            if self.shape == "smollm2-135m":
                call([self.bench.erank, "model", "merge", "--out", out])
            else:
                call([self.bench.erank, "model", "random", "--shape", self.shape, "--tokenizer", self.base,
                      "--out", out])
            defaults = {name: value for name, value in self.defaults.items() if name != "base"}
            (out / "erank.json").write_text(json.dumps(defaults))
        return self.made(self.hf, make)

    def for_erank(self):
        """Arguments: the default model is what a user has, with its load and its adapter."""
        return [] if self.shape == "smollm2-135m" else ["--model", self.hugging_face()]

    def gguf(self, kind):
        if kind == "BF16":
            python = self.bench.python("transformers")
            return self.made(self.folder / "bf16.gguf", lambda out: call(
                [python, ROOT / "tools/write_peer_gguf.py", self.hugging_face(), self.base, out]))
        source = self.gguf("BF16")
        if kind == "rank":
            python = self.bench.python("transformers")
            return self.made(self.folder / "rank.gguf", lambda out: call(
                [python, ROOT / "tools/write_rank_gguf.py", source, out]))
        quantize = self.bench.llama("llama-quantize")
        return self.made(self.folder / f"{kind.lower()}.gguf", lambda out: call([quantize, source, out, kind]))

    def openvino(self):
        python = self.bench.python("openvino")
        return self.made(self.folder / "openvino-int8", lambda out: call(
            [python, ROOT / "bench/peers_openvino.py", "convert", self.hugging_face(), out], timeout=900))

    def direct_prompts(self):
        """Candidates as erank reads them, and the ids that erank makes of each pair."""
        rows = self.bench.pairs(self.shape)
        asked = "".join(json.dumps({"query": row["query"], "document": hit["text"]}) + "\n"
                        for row in rows for hit in row["hits"])
        out, _, _ = call([self.bench.erank, "prompt", "--direct", *self.for_erank()], text_in=asked)
        ids = [json.loads(line)["ids"] for line in out.splitlines()]
        queries = [row["qid"] for row in rows for _ in row["hits"]]
        return rows, [{"query": q, "ids": i} for q, i in zip(queries, ids)]


# --- those who are compared -----------------------------------------------------------------------------------------
class Contestant:
    """`settings(part)` names what to try; `measure(part, setting, trial)` gives {figure: value}."""
    is_peer = True

    def __init__(self, bench, model):
        self.bench, self.model = bench, model

    def settings(self, part):
        return [] if part == "start" else [""]


class Erank(Contestant):
    is_peer = False

    def __init__(self, bench, model, precision):
        super().__init__(bench, model)
        self.precision, self.name = precision, f"erank {precision}"

    def settings(self, part):
        return [] if part == "start" and self.model.shape != "smollm2-135m" else [""]

    def measure(self, part, _, __):
        return getattr(self, part)()

    def own_bench(self, part, *more):
        command = [self.bench.erank, "bench", "--shape", self.model.shape, "--precision", self.precision,
                   "--threads", self.bench.threads, "--json", *more]
        if self.bench.bench_takes("--only"):
            command += ["--only", part]
        found = json_line(call(command)[0])
        self.bench.gemm.setdefault(self.name, []).append(found.get("gemm_gflops"))
        return found

    def prefill(self):
        found = self.own_bench("prefill", "--prompts", self.bench.prefill_prompts, "--prompt-tokens", self.bench.prefill_tokens)
        return {"prefill": found["prefill_tokens_per_s"]}

    def decode(self):
        found = self.own_bench("decode")
        return {f"decode_{n}": found[f"decode_{n}_tokens_per_s"] for n in (1, 8, 64)}

    def think(self):
        if not self.bench.bench_takes("think"):
            raise Unavailable("this program's `erank bench` has no part think")
        more = ["--documents", self.bench.think_pairs]
        return {"think": self.own_bench("think", *more)["think_documents_per_s"]}

    def rerank(self, *more):
        # The prompts that the peers are given hold a passage's beginning.
        if "--long-docs" in self.bench.help["rerank"]:
            more += ("--long-docs", "cut")
        return call([self.bench.erank, "rerank", *self.model.for_erank(), "--precision", self.precision, "--direct",
                     "--threads", self.bench.threads, "--format", "jsonl", "--quiet", *more])

    def start(self):
        document = self.bench.work / "one.txt"
        document.write_text("The sky is blue because air scatters blue light more than red light.\n")
        self.rerank("--query", "why is the sky blue", "--docs", document)  # warms the page cache
        return {"start": self.rerank("--query", "why is the sky blue", "--docs", document)[1]}

    def direct(self):
        rows, prompts = self.model.direct_prompts()
        few = self.bench.write_candidates("one", [{**rows[0], "hits": rows[0]["hits"][:1]}])
        all_of_them = self.bench.write_candidates("all", rows)
        _, load, _ = self.rerank("--candidates", few)
        out, seconds, memory = self.rerank("--candidates", all_of_them, "--top", 1000)
        found = [json.loads(line) for line in out.splitlines()]
        if len(found) != len(prompts):
            raise Unavailable(f"{len(found)} results of {len(prompts)} pairs")
        answers = {(row["qid"], row["docid"]): row["integer"] for row in found}
        self.bench.answers[self.model.shape, self.name] = [answers[row["qid"], hit["docid"]]
                                                           for row in rows for hit in row["hits"]]
        measured = {"direct_whole": len(prompts) / seconds, "memory": memory}
        if len(prompts) > 1 and seconds > load:
            measured["direct"] = (len(prompts) - 1) / (seconds - load)
        return measured


def is_healthy(port):
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False


class Server:
    """A llama-server that takes lists of ids."""

    def __init__(self, bench, model, slots, context, flash):
        self.slots = slots
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [bench.llama("llama-server"), "-m", model, "--host", "127.0.0.1", "--port", self.port,
                   "-np", slots, "-c", slots * context, "-no-kvu", "-t", bench.threads, "-tb", bench.threads,
                   "-b", 2048, "-fa", flash, "--cache-ram", 0, "--no-webui"]
        self.log = tempfile.TemporaryFile()
        begin = time.perf_counter()
        self.process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=self.log)
        while not is_healthy(self.port):
            if self.process.poll() is not None or time.perf_counter() - begin > 120:
                self.log.seek(0)
                last = self.log.read().decode(errors="replace").strip().splitlines()[-3:]
                self.close()
                raise Unavailable(f"llama-server does not start: {' / '.join(last)[-400:]}")
            time.sleep(0.02)
        self.load = time.perf_counter() - begin

    def complete(self, bodies):
        """The replies to `bodies`, twice as many in flight as there are slots, so that no slot waits for work."""
        waiting = queue.Queue()
        for number, body in enumerate(bodies):
            waiting.put((number, json.dumps({"cache_prompt": True, **body}).encode()))
        replies = [None] * len(bodies)

        def client():
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
            while True:
                try:
                    number, body = waiting.get_nowait()
                except queue.Empty:
                    return
                connection.request("POST", "/completion", body, {"Content-Type": "application/json"})
                reply = connection.getresponse()
                text = reply.read()
                if reply.status != 200:
                    raise Unavailable(f"llama-server answers {reply.status}: {text[:200]!r}")
                replies[number] = json.loads(text)

        num_clients = min(2 * self.slots, len(bodies))
        with concurrent.futures.ThreadPoolExecutor(num_clients) as pool:
            for done in [pool.submit(client) for _ in range(num_clients)]:
                done.result()
        return replies

    def peak_memory(self):
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024 / 1e6
        return None

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Llama(Contestant):
    def __init__(self, bench, model, kind):
        super().__init__(bench, model)
        self.kind, self.name = kind, f"llama.cpp {kind}"

    def settings(self, part):
        if part in ("prefill", "decode"):
            what = ["1 prompt, ", f"{self.bench.prefill_prompts} prompts, "] if part == "prefill" else [""]
            return [w + flash for w in what for flash in ("fa off", "fa on")]
        # Flash attention on or off: what was faster before, on when that was not measured.
        before = self.bench.best_setting(self, "prefill" if part == "direct" else "decode_64")
        flash = "fa off" if before and before.endswith("fa off") else "fa on"
        if part == "direct":
            return [f"{n} slot{'s' * (n > 1)}, {flash}" for n in self.bench.slots]
        return [f"llama-server, {flash}", f"llama-batched-bench, {flash}"] if part == "think" else []

    def measure(self, part, setting, trial):
        self.flash = "on" if setting.endswith("fa on") else "off"
        return self.direct(setting, trial) if part == "direct" else getattr(self, part)(setting)

    def batched(self, prompt, new, batches, *more):
        if isinstance(batches, int):
            batches = [batches]
        context = max(batches) * (prompt + new)
        context += -context % (256 * max(batches))
        out, _, _ = call([self.bench.llama("llama-batched-bench"), "-m", self.model.gguf(self.kind), "-c", context,
                          "-b", 2048, "-ub", 512, "-npp", prompt, "-ntg", new, "-npl", ",".join(map(str, batches)),
                          "-t", self.bench.threads, "-tb", self.bench.threads, "-fa", self.flash,
                          "-no-kvu", "--output-format", "jsonl", *more])
        found = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        if [row["pl"] for row in found] != list(batches):
            raise Unavailable(f"llama-batched-bench measured {[row['pl'] for row in found]} of {batches}: {out[-200:]}")
        return found

    def prefill(self, setting):
        if setting.startswith("1 prompt"):
            out, _, _ = call([self.bench.llama("llama-bench"), "-m", self.model.gguf(self.kind), "-p", self.bench.prefill_tokens,
                              "-n", 0, "-r", 2, "-t", self.bench.threads, "-fa", int(self.flash == "on"), "-o", "json"])
            return {"prefill": json.loads(out)[0]["avg_ts"]}
        return {"prefill": self.batched(self.bench.prefill_tokens, 1, self.bench.prefill_prompts)[0]["speed_pp"]}

    def decode(self, _):
        # The prompts' time is counted, as it is for erank.
        return {f"decode_{row['pl']}": row["pl"] * self.bench.decode_tokens / row["t"]
                for row in self.batched(DECODE_PROMPT, self.bench.decode_tokens, [1, 8, 64])}

    def direct(self, setting, trial):
        prompts = self.model.direct_prompts()[1]
        if trial:
            prompts = prompts[:self.bench.trial_pairs]
        server = Server(self.bench, self.model.gguf(self.kind), int(setting.split()[0]), 1024, self.flash)
        try:
            begin = time.perf_counter()
            replies = server.complete([{"prompt": prompt["ids"], "n_predict": 1, "temperature": 0, "n_probs": 11}
                                       for prompt in prompts])
            seconds = time.perf_counter() - begin
            memory = server.peak_memory()
        finally:
            server.close()
        self.bench.answers[self.model.shape, self.name] = [reply["content"] for reply in replies]
        found = {"direct": len(prompts) / seconds, "memory": memory}
        if not trial:
            found["direct_whole"] = len(prompts) / (seconds + server.load)
        return found

    def think(self, setting):
        pairs = self.bench.think_pairs
        if setting.startswith("llama-batched-bench"):
            # Each pair's own tokens, then the new tokens after a prompt that costs nothing: what no server can beat.
            own = self.batched(THINK_OWN, 1, pairs)[0]["t_pp"]
            new = self.batched(THINK_PREFIX + THINK_OWN, self.bench.think_tokens, pairs, "-pps")[0]["t_tg"]
            return {"think_bound": pairs / (own + new)}
        prompts = self.bench.think_prompts()
        server = Server(self.bench, self.model.gguf(self.kind), pairs, 512, self.flash)
        try:
            fixed = {"temperature": 0, "samplers": ["top_k"], "top_k": 1, "ignore_eos": True}
            # The common prefix is put into every slot before the clock starts.
            server.complete([{"prompt": ids[:THINK_PREFIX], "n_predict": 0, "id_slot": i, **fixed}
                             for i, ids in enumerate(prompts)])
            begin = time.perf_counter()
            replies = server.complete([{"prompt": ids, "n_predict": self.bench.think_tokens, "id_slot": i, **fixed}
                                       for i, ids in enumerate(prompts)])
            seconds = time.perf_counter() - begin
        finally:
            server.close()
        written = sum(reply["tokens_predicted"] for reply in replies)
        if written != pairs * self.bench.think_tokens:
            raise Unavailable(f"llama-server wrote {written} tokens, asked for {pairs * self.bench.think_tokens}")
        return {"think": pairs / seconds}


class Worker(Contestant):
    """A peer in Python: a program that reads a job as JSON and prints {figure: value}."""

    def measure(self, part, setting, _):
        job = {"part": part, "threads": self.bench.threads, "batches": [1, self.bench.prefill_prompts],
               "prefill_tokens": self.bench.prefill_tokens, "decode_prompt": DECODE_PROMPT, "decode_tokens": self.bench.decode_tokens}
        if part == "direct":
            job["prompts"] = self.model.direct_prompts()[1][:self.bench.trial_pairs]
        if part == "think":
            prompts = self.bench.think_prompts()
            job.update(prompts=[{"query": "1", "ids": ids} for ids in prompts], new_tokens=self.bench.think_tokens)
        path = self.bench.work / "job.json"
        path.write_text(json.dumps(job))
        out, _, memory = call([*self.command(setting), path])
        found = json_line(out)
        if part == "direct":
            answers = found.pop("answers")
            if self.model.shape == "smollm2-135m":
                asked = "".join(json.dumps({"ids": [token]}) + "\n" for token in answers)
                texts = call([self.bench.erank, "tokenize", "--decode"], text_in=asked)[0].splitlines()
                self.bench.answers[self.model.shape, self.name] = [json.loads(line)["text"] for line in texts]
            found["memory"] = memory
        return found


class Transformers(Worker):
    def __init__(self, bench, model, attention):
        super().__init__(bench, model)
        self.attention, self.name = attention, f"transformers {attention}"

    def command(self, _):
        return [self.bench.python("transformers"), ROOT / "bench/peers_transformers.py", self.model.hugging_face(),
                self.attention, "bf16" if self.bench.multiplies_bf16 else "fp32"]


class OpenVino(Worker):
    name = "OpenVINO int8"
    GROUPS = {"activations int8 in groups of 32": 32, "activations int8 in rows": 2**64 - 1, "activations bf16": 0}

    def settings(self, part):
        if part in ("direct", "think") and (setting := self.bench.best_setting(self, "prefill")):
            return [setting]
        return [] if part == "start" else list(self.GROUPS)

    def command(self, setting):
        return [self.bench.python("openvino"), ROOT / "bench/peers_openvino.py", "run", self.model.openvino(),
                self.GROUPS[setting]]
