"""What Open WebUI, Dify, RAGFlow and LiteLLM send, key by key, against `erank serve`; and what they read of the answer.

    recorded_calls_test.py PROGRAM MODEL [unittest's arguments]

These are applications, which cannot be installed for a test as the clients of clients_test.py can.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request

os.environ["no_proxy"] = "127.0.0.1"
PROGRAM, MODEL = sys.argv[1:3]
del sys.argv[1:3]
QUERY = "why is the sky blue"
TEXTS = [f"document {i} of light and bread" for i in range(10)]
SAID = "invalid request: query must not be empty"
URL = ""
SCORES = []  # by document: what the server says to a plain request


def call(path, body=None):
    """Status and JSON."""
    request = urllib.request.Request(URL + path, None if body is None else json.dumps(body).encode(),
                                     {"Content-Type": "application/json", "Authorization": "Bearer any"})
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def setUpModule():
    global URL, SCORES, server, log
    log = tempfile.NamedTemporaryFile()
    server = subprocess.Popen([PROGRAM, "serve", "--model", MODEL, "--threads", "1", "--port", "0", "--direct"],
                              stderr=log)
    while not (found := re.search(r"http://\S+\n", said := pathlib.Path(log.name).read_text(encoding="utf-8"))):
        if server.poll() is not None:
            raise RuntimeError(said)
        time.sleep(0.05)
    URL = found.group(0).strip()
    results = call("/v1/rerank", {"query": QUERY, "documents": TEXTS})[1]["results"]
    SCORES = [score for _, score in sorted((r["index"], r["relevance_score"]) for r in results)]


def tearDownModule():
    server.terminate()
    assert server.wait(60) == 0
    log.close()


class Recorded(unittest.TestCase):
    def check(self, pairs, count=len(TEXTS)):
        """`pairs` of index and score are the best `count`, best first."""
        best = sorted(range(len(TEXTS)), key=lambda i: (-SCORES[i], i))[:count]
        self.assertEqual(pairs, [(index, SCORES[index]) for index in best])

    def results(self, path, body, count=len(TEXTS)):
        status, reply = call(path, body)
        self.assertEqual(status, 200, reply)
        self.check([(r["index"], r["relevance_score"]) for r in reply["results"]], count)
        status, refused = call(path, {**body, "query": ""})
        self.assertEqual(status, 400)
        self.assertEqual(refused["error"]["message"], SAID)
        self.assertEqual(refused["detail"], SAID)
        return reply["results"]

    def texts(self, body, count=len(TEXTS)):
        status, reply = call("/rerank", body)
        self.assertEqual(status, 200, reply)
        self.check([(r["index"], r["score"]) for r in reply], count)
        self.assertEqual(call("/rerank", {**body, "query": ""}), (422, {"error": SAID, "error_type": "Validation"}))
        return reply

    def test_the_documents_differ(self):
        self.assertEqual(len(set(SCORES)), len(TEXTS))

    def test_open_webui(self):
        body = {"model": "bge", "query": QUERY, "documents": TEXTS, "top_n": len(TEXTS)}
        results = sorted(self.results("/v1/rerank", body), key=lambda r: r["index"])
        self.assertEqual([r["relevance_score"] for r in results], SCORES)  # by place, for every document

    def test_dify_openai_compatible(self):
        body = {"model": "m", "query": QUERY, "documents": TEXTS, "top_n": 3}
        self.results("/rerank", body, 3)
        for result in self.results("/rerank", {**body, "top_n": None, "return_documents": True}):
            self.assertEqual(result["document"]["text"], TEXTS[result["index"]])

    def test_dify_jina_and_localai(self):
        body = {"model": "m", "query": QUERY, "documents": TEXTS, "top_n": None}
        self.results("/v1/rerank", body)
        for result in self.results("/v1/rerank", {**body, "top_n": 2, "return_documents": False}, 2):
            self.assertNotIn("document", result)

    def test_dify_tei(self):
        status, info = call("/info")
        self.assertEqual(status, 200)
        self.assertIn("reranker", info["model_type"])
        self.assertGreater(info["max_input_length"], 0)
        for result in self.texts({"query": QUERY, "texts": TEXTS, "return_text": True}):
            self.assertEqual(result["text"], TEXTS[result["index"]])

    def test_ragflow_jina_localai_and_openai_compatible(self):
        self.results("/v1/rerank", {"model": "m", "query": QUERY, "documents": TEXTS, "top_n": len(TEXTS)})

    def test_ragflow_xinference(self):
        self.results("/v1/rerank", {"model": "m", "query": QUERY, "return_documents": "true", "return_len": "true",
                                    "documents": TEXTS})

    def test_ragflow_hugging_face(self):
        scores = []
        for begin in range(0, len(TEXTS), 8):
            part = {"query": QUERY, "texts": TEXTS[begin:begin + 8], "raw_scores": False, "truncate": True}
            status, reply = call("/rerank", part)
            self.assertEqual(status, 200)
            scores += [score for _, score in sorted((r["index"], r["score"]) for r in reply)]
        self.assertEqual(scores, SCORES)
        self.texts({"query": QUERY, "texts": TEXTS, "raw_scores": False, "truncate": True})

    def test_litellm(self):
        body = {"model": "m", "query": QUERY, "documents": TEXTS, "top_n": 4, "return_documents": True}
        for result in self.results("/rerank", body, 4):
            self.assertEqual(result["document"], {"text": TEXTS[result["index"]]})
        begin = [text[:10] for text in TEXTS]
        parts = [{"title": text[:10], "rest": text[11:]} for text in TEXTS]
        status, reply = call("/rerank", {"model": "m", "query": QUERY, "documents": parts, "rank_fields": ["title"],
                                         "max_chunks_per_doc": 3})
        self.assertEqual(status, 200, reply)
        self.assertEqual([(r["index"], r["relevance_score"]) for r in reply["results"]],
                         [(r["index"], r["relevance_score"]) for r in
                          call("/rerank", {"query": QUERY, "documents": begin})[1]["results"]])


if __name__ == "__main__":
    unittest.main()
