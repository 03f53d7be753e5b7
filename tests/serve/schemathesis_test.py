"""schemathesis against `erank serve` and its own /openapi.json: every check, seeded, with and without keys.

    schemathesis_test.py PROGRAM [unittest's arguments]

Run by the Python of `tools/setup --clients` that has schemathesis. schemathesis imports this file too, for the hook.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

EXAMPLES = 60  # a route, of each kind of data
SEED = 20250918
KEY = "of-this-test"


def resized(values, size):
    """As many as `size`, of what is there."""
    return [values[i % len(values)] for i in range(size)]


def several(value):
    """Of a query's value how many queries it is, where it is a list of them."""
    are_parts = isinstance(value, list) and all(isinstance(part, dict) and "type" in part for part in value)
    return len(value) if isinstance(value, list) and not are_parts else 0


def given(body, *names):
    return [name for name in names if body.get(name) is not None]


def with_equal_counts(path, body):
    """What JSON Schema cannot say: lists that belong together are of one length. All else stays, so that what is wrong
    stays wrong."""
    if path.endswith("score"):
        queries = given(body, "text_1", "queries", "query", "data_1")
        texts = given(body, "text_2", "documents", "items", "data_2")
        if queries and texts and (count := several(body[queries[0]])) > 1:
            value = body[texts[0]]
            if value != []:
                body[texts[0]] = resized(value if isinstance(value, list) else [value], count)
        return
    count = several(body.get("query"))
    names = given(body, "documents", "texts", "passages")
    for name in names:
        value = body[name]
        if count and isinstance(value, list) and value and all(isinstance(one, list) for one in value):
            body[name] = resized(value, count)
    hybrid = body.get("hybrid")
    scores = hybrid.get("scores") if isinstance(hybrid, dict) else None
    if not names or not isinstance(scores, list) or not scores:
        return
    documents = body[names[0]] if isinstance(body[names[0]], list) else [body[names[0]]]
    of_lists = count and documents and all(isinstance(one, list) for one in documents)
    counts = [len(one) for one in documents] if of_lists else [len(documents)] * max(count, 1)
    are_lists = all(isinstance(score, list) and score for score in scores)
    if are_lists and count:
        scores = [resized(score, size) for score, size in zip(resized(scores, count), counts)]
    elif are_lists:
        scores = resized(scores[0], counts[0])
    elif len(set(counts)) == 1:
        scores = resized(scores, counts[0])
    elif not any(isinstance(score, list) for score in scores):
        scores = [resized(scores, size) for size in counts]
    body["hybrid"] = {**hybrid, "scores": scores}


def with_something_to_draw(body):
    """Likewise: samples need reasoning and a temperature above 0. Little of it, so that the test ends."""
    if body.get("samples") is None:
        return
    if body.get("mode") in (None, "direct"):
        body["mode"] = "think"
    heat = body.get("temperature")
    if heat is None or type(heat) in (int, float) and heat == 0 or heat in ("0", "0.0"):
        body["temperature"] = 1
    tokens = body.get("max_think_tokens")
    if tokens is None or type(tokens) is int and 1 <= tokens <= 32768:
        body["max_think_tokens"] = 2


if __name__ != "__main__":
    import schemathesis

    @schemathesis.hook
    def before_call(context, case, kwargs):
        if isinstance(case.body, dict):
            with_equal_counts(case.operation.path, case.body)
            with_something_to_draw(case.body)


class Described(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        model = pathlib.Path(cls.folder.name, "tiny")
        subprocess.run([PROGRAM, "model", "random", "--shape", "tiny", "--out", model], check=True, capture_output=True)
        config = json.loads((model / "config.json").read_text())
        config["max_position_embeddings"] = 4096  # a byte is a token
        (model / "config.json").write_text(json.dumps(config))
        (model / "erank.json").write_text('{"mode": "direct", "max_think_tokens": 8}')
        cls.model = model

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def check(self, server_options=(), options=()):
        log = pathlib.Path(self.folder.name, "log")
        with open(log, "w") as err:
            server = subprocess.Popen([PROGRAM, "serve", "--model", self.model, "--threads", "1", "--port", "0",
                                       "--max-doc-tokens", "32", *server_options], stderr=err)
        try:
            while not (found := re.search(r"http://\S+", log.read_text())):
                self.assertIsNone(server.poll(), log.read_text())
            command = [pathlib.Path(sys.executable).with_name("schemathesis"), "run", found.group(0) + "/openapi.json",
                       "--checks", "all", "--seed", str(SEED), "--max-examples", str(EXAMPLES), "--mode", "all",
                       "--continue-on-failure", "--request-timeout", "60", "--no-color", *options]
            here = pathlib.Path(__file__)
            said = subprocess.run(command, cwd=self.folder.name, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  text=True, check=False,
                                  env={**os.environ, "PYTHONPATH": str(here.parent), "SCHEMATHESIS_HOOKS": here.stem})
            self.assertEqual(said.returncode, 0, said.stdout)
            self.assertRegex(said.stdout, r"[1-9]\d{3,} generated, \d+ passed")
            self.assertIsNone(server.poll(), log.read_text())
        finally:
            server.terminate()
            code = server.wait(60)
        self.assertEqual(code, 0)
        return said.stdout

    def test_open_server(self):
        print(self.check())

    def test_server_with_a_key(self):
        print(self.check(["--api-key", KEY], ["-H", f"Authorization: Bearer {KEY}"]))


if __name__ == "__main__":
    PROGRAM = sys.argv.pop(1)
    unittest.main()
