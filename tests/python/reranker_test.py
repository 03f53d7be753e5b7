"""The Python package against the built program: $ERANK_PROGRAM, a tiny model's folder in $ERANK_TEST_MODEL."""
import gc
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from erank import ErankError, Reranker

MODEL = os.environ["ERANK_TEST_MODEL"]
DOCUMENTS = ["a letter of ten", "a number", {"text": "the letter and the number"}]


def damage(folder, token):
    """Makes the embedding of one token not a number."""
    with open(os.path.join(folder, "model.safetensors"), "r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        tensor = json.loads(file.read(size))["model.embed_tokens.weight"]
        begin, end = tensor["data_offsets"]
        row = (end - begin) // tensor["shape"][0]
        nan = {"BF16": b"\xc0\x7f", "F32": b"\0\0\xc0\x7f"}[tensor["dtype"]]
        file.seek(8 + size + begin + token * row)
        file.write(nan * (row // len(nan)))


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().split(")")[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # gone before it was opened, or read
        return False


class RerankerTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.reranker = Reranker(MODEL, options=["--threads", "1"])

    @classmethod
    def tearDownClass(cls):
        cls.reranker.close()

    def test_rank_is_sorted_and_knows_its_documents(self):
        results = self.reranker.rank("which letter", DOCUMENTS)
        self.assertEqual(sorted(r.index for r in results), [0, 1, 2])
        self.assertEqual([r.score for r in results], sorted((r.score for r in results), reverse=True))
        for result in results:
            self.assertIs(result.document, DOCUMENTS[result.index])
            self.assertAlmostEqual(result.relevance, result.score / 10)
            self.assertIsNone(result.distribution)
        self.assertEqual(self.reranker.rank("which letter", []), [])
        best = self.reranker.rank("which letter", DOCUMENTS, top_n=1, return_distribution=True)
        self.assertEqual([r.index for r in best], [results[0].index])
        self.assertEqual(len(best[0].distribution), 11)

    def test_predict_keeps_the_order_of_pairs(self):
        pairs = [("first", "a number"), ("second", "a letter"), ("first", "a letter"), ("second", "a number")]
        scores = self.reranker.predict(pairs)
        for (query, document), score in zip(pairs, scores):
            self.assertAlmostEqual(score, self.reranker.rank(query, [document])[0].relevance)
        self.assertEqual(self.reranker.predict([]), [])

    def test_predict_of_one_pair_is_a_number(self):
        expected = self.reranker.predict([("ab", "cd")])[0]
        for pair in (("ab", "cd"), ["ab", "cd"]):
            self.assertEqual(self.reranker.predict(pair), expected)
        self.assertEqual(self.reranker.predict((("ab", "cd"), ("ab", "cd"))), [expected] * 2)

    def test_predict_keeps_the_scores_of_the_others(self):
        with tempfile.TemporaryDirectory() as folder:
            damage(shutil.copytree(MODEL, folder, dirs_exist_ok=True), ord("x"))
            with Reranker(folder, options=["--threads", "1"]) as reranker:
                pairs = [("a", "good"), ("a", "x"), ("b", "well")]
                with self.assertWarnsRegex(RuntimeWarning, "pair 1: document 1: .*not finite"):
                    scores = reranker.predict(pairs)
                self.assertTrue(math.isnan(scores[1]))
                self.assertEqual([scores[0], scores[2]], reranker.predict([pairs[0], pairs[2]]))
                with self.assertRaisesRegex(ErankError, "not finite"):
                    reranker.predict(("a", "x"))

    def test_rank_and_predict_of_more_than_a_request_holds(self):
        documents = [f"text {i}" for i in range(1002)]
        scores = self.reranker.predict([("q", document) for document in documents], mode="direct")
        results = self.reranker.rank("q", documents, mode="direct")
        self.assertEqual([r.relevance for r in sorted(results, key=lambda r: r.index)], scores)
        self.assertEqual([r.document for r in results], [documents[r.index] for r in results])
        self.assertEqual(results, sorted(results, key=lambda r: (-r.score, r.index)))
        self.assertEqual([r.index for r in self.reranker.rank("q", documents, top_n=5, mode="direct")],
                         [r.index for r in results[:5]])
        with self.assertRaisesRegex(ValueError, "1002 documents, expected at most 1000"):
            self.reranker.rank("q", documents, explain_top=1, mode="direct")

    def test_many_threads(self):
        expected = self.reranker.rank("which letter", DOCUMENTS)
        got = [None] * 16

        def call(i):
            got[i] = self.reranker.rank("which letter", DOCUMENTS)

        threads = [threading.Thread(target=call, args=(i,)) for i in range(len(got))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(got, [expected] * len(got))

    def test_samples_are_drawn_by_their_seed(self):
        drawn = {"mode": "think", "max_think_tokens": 8, "temperature": 1, "samples": 3, "return_reasoning": True}
        results = self.reranker.rank("which letter", DOCUMENTS, **drawn)
        self.assertEqual(self.reranker.rank("which letter", DOCUMENTS, **drawn), results)
        self.assertNotEqual(self.reranker.rank("which letter", DOCUMENTS, **drawn, seed=1), results)
        with self.assertRaisesRegex(ValueError, "samples is 3, expected 1"):
            self.reranker.rank("which letter", DOCUMENTS, mode="direct", samples=3)

    def test_refusals_are_value_errors_with_the_servers_line(self):
        with self.assertRaisesRegex(ValueError, "mode"):
            self.reranker.rank("q", ["d"], mode="aloud")

    def test_a_model_that_is_not_there(self):
        with self.assertRaisesRegex(RuntimeError, "/no/such"):
            Reranker("/no/such/model")

    def test_a_server_elsewhere(self):
        server = self.reranker._server
        with Reranker(url=server.url, api_key=server.key) as other:
            self.assertEqual(other.rank("which letter", DOCUMENTS), self.reranker.rank("which letter", DOCUMENTS))
        with Reranker(url=server.url) as stranger, self.assertRaises(ErankError) as raised:
            stranger.rank("q", ["d"])
        self.assertEqual(raised.exception.status, 401)
        with self.assertRaises(ValueError):
            Reranker("model", url=server.url)

    def test_forked_processes_have_connections_of_their_own(self):
        queries = [f"which letter {i}" for i in range(4)]
        documents = [str(i) for i in range(20)]
        with Reranker(url=self.reranker._server.url, api_key=self.reranker._server.key) as checker:
            expected = {query: checker.rank(query, documents) for query in queries}
        reranker = self.reranker
        self.assertEqual(reranker.rank(queries[0], documents), expected[queries[0]])  # leaves an idle connection
        self.assertFalse(reranker._idle.empty())

        def many(query):
            return all(reranker.rank(query, documents) == expected[query] for _ in range(30))

        children = []
        for query in queries[1:]:
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    code = 0 if many(query) else 2
                    reranker.close()  # the child's part alone
                finally:
                    os._exit(code)
            children.append(pid)
        good = many(queries[0])
        self.assertEqual([os.waitpid(pid, 0)[1] for pid in children], [0] * len(children))
        self.assertTrue(good)
        self.assertEqual(reranker.rank(queries[0], documents), expected[queries[0]])

    def test_the_server_ends_with_the_object_and_with_a_killed_process(self):
        reranker = Reranker(MODEL, options=["--threads", "1"])
        pid = reranker._server._process.pid
        self.assertTrue(is_alive(pid))
        del reranker
        gc.collect()
        self.assertFalse(is_alive(pid))
        script = ("import os, signal, sys; from erank import Reranker; r = Reranker(sys.argv[1]); "
                  "print(r._server._process.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)")
        killed = subprocess.run([sys.executable, "-c", script, MODEL], stdout=subprocess.PIPE, check=False)
        pid, end = int(killed.stdout), time.monotonic() + 10
        while is_alive(pid) and time.monotonic() < end:
            time.sleep(0.05)
        self.assertFalse(is_alive(pid))


if __name__ == "__main__":
    unittest.main()
