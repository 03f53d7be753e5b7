"""The clients that people have, unmodified from PyPI, against `erank serve` with the default model.

    clients_test.py PROGRAM [unittest's arguments]

Each finds the ranking, the scores, top_n and its error; so does examples/python/langchain_compressor.py.
`tools/setup --clients` installs them. With the argument Cohere alone only that one needs to be there: the others ask for
an earlier version of it than the newest.
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
import urllib.request

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
import cohere

PROGRAM = sys.argv.pop(1)
if sys.argv[1:] != ["Cohere"]:
    import requests
    from haystack import Document as HaystackDocument
    from haystack.components.rankers import HuggingFaceTEIRanker
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.cohere import CohereRanker
    from haystack_integrations.components.rankers.jina import JinaRanker
    from infinity_client import Client as InfinityClient
    from infinity_client.errors import UnexpectedStatus
    from langchain_cohere import CohereRerank as LangChainCohere
    from langchain_community.document_compressors import InfinityRerank, JinaRerank
    from langchain_core.documents import Document
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
    from llama_index.postprocessor.cohere_rerank import CohereRerank as LlamaCohere
    from llama_index.postprocessor.jinaai_rerank import JinaRerank as LlamaJina
    from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

    ROOT = pathlib.Path(__file__).resolve().parents[2]
    sys.dont_write_bytecode = True
    sys.path += [str(ROOT / "python"), str(ROOT / "examples/python")]
    os.environ["ERANK_PROGRAM"] = PROGRAM
    from langchain_compressor import ErankCompressor

QUERY = "why is the sky blue"
TEXTS = [
    "Bread rises because yeast makes gas.",
    "The sky is blue because air scatters blue light more than red light.",
    "A bicycle chain wears out when it is dirty.",
    "The sea looks blue because it mirrors the sky.",
]
URL = ""
EXPECTED = []  # (index, score), best first: what the server says to a plain request


def setUpModule():
    global URL, EXPECTED, server, log
    log = tempfile.NamedTemporaryFile("r")
    server = subprocess.Popen([PROGRAM, "serve", "--port", "0"], stderr=open(log.name, "w"))
    for _ in range(1200):
        match = re.search(r"http://\S+", open(log.name).read())
        if match:
            break
        if server.poll() is not None:
            raise RuntimeError(open(log.name).read())
        time.sleep(0.1)
    URL = match.group(0).rstrip("/")
    body = json.dumps({"query": QUERY, "documents": TEXTS}).encode()
    with urllib.request.urlopen(urllib.request.Request(URL + "/v1/rerank", body)) as reply:
        EXPECTED = [(r["index"], r["relevance_score"]) for r in json.load(reply)["results"]]


def tearDownModule():
    server.terminate()
    assert server.wait(60) == 0


class Clients(unittest.TestCase):
    def check(self, pairs, count=len(TEXTS)):
        """`pairs`: (index, score), as a client gives them."""
        self.assertEqual(EXPECTED[0][0], 1)
        self.assertEqual([index for index, _ in pairs], [index for index, _ in EXPECTED[:count]])
        for (_, score), (_, expected) in zip(pairs, EXPECTED):
            self.assertAlmostEqual(score, expected, places=6)
            self.assertTrue(0 <= score <= 1)

    def of_texts(self, pairs, count=len(TEXTS)):
        self.check([(TEXTS.index(text), score) for text, score in pairs], count)


class Cohere(Clients):
    def test_v2(self):
        client = cohere.ClientV2(api_key="k", base_url=URL)
        reply = client.rerank(model="m", query=QUERY, documents=TEXTS)
        self.check([(r.index, r.relevance_score) for r in reply.results])
        reply = client.rerank(model="m", query=QUERY, documents=TEXTS, top_n=2)
        self.check([(r.index, r.relevance_score) for r in reply.results], 2)
        if hasattr(cohere, "RerankRelevantSpans"):  # from version 7 on; the answer may lack them
            spans = cohere.RerankRelevantSpans(mode="enabled")
            reply = client.rerank(model="m", query=QUERY, documents=TEXTS, relevant_spans=spans)
            self.check([(r.index, r.relevance_score) for r in reply.results])
        with self.assertRaises(cohere.BadRequestError) as raised:
            client.rerank(model="m", query=QUERY, documents=[])
        self.assertIn("must not be empty", str(raised.exception.body))

    def test_v1(self):
        client = cohere.Client(api_key="k", base_url=URL)
        reply = client.rerank(query=QUERY, documents=TEXTS, return_documents=True)
        self.check([(r.index, r.relevance_score) for r in reply.results])
        self.assertEqual(reply.results[0].document.text, TEXTS[1])
        reply = client.rerank(query=QUERY, documents=[{"text": t} for t in TEXTS], top_n=1)
        self.check([(r.index, r.relevance_score) for r in reply.results], 1)
        with self.assertRaises(cohere.BadRequestError):
            client.rerank(query="", documents=TEXTS)


class LangChain(Clients):
    def test_cohere(self):
        client = LangChainCohere(cohere_api_key="k", base_url=URL, model="m", top_n=3)
        reply = client.rerank(TEXTS, QUERY, top_n=None)
        self.check([(r["index"], r["relevance_score"]) for r in reply])
        found = client.compress_documents([Document(page_content=t) for t in TEXTS], QUERY)
        self.of_texts([(d.page_content, d.metadata["relevance_score"]) for d in found], 3)
        with self.assertRaises(cohere.BadRequestError):
            client.rerank(TEXTS, "")

    def test_jina(self):
        # Its address is fixed; its session is a public field, and requests' own way to send an
        # address elsewhere is an adapter.
        class Here(requests.adapters.HTTPAdapter):
            def send(self, request, **options):
                request.url = request.url.replace("https://api.jina.ai", URL)
                return super().send(request, **options)

        client = JinaRerank(jina_api_key="k", model="m", top_n=2)
        client.session.mount("https://api.jina.ai", Here())
        found = client.compress_documents([Document(page_content=t) for t in TEXTS], QUERY)
        self.of_texts([(d.page_content, d.metadata["relevance_score"]) for d in found], 2)
        self.check([(r["index"], r["relevance_score"]) for r in client.rerank(TEXTS, QUERY, top_n=4)])
        with self.assertRaisesRegex(RuntimeError, "must not be empty"):
            client.rerank(TEXTS, "")

    def test_infinity(self):
        client = InfinityRerank(client=InfinityClient(base_url=URL), model="m", top_n=2)
        found = client.compress_documents([Document(page_content=t) for t in TEXTS], QUERY)
        self.of_texts([(d.page_content, d.metadata["relevance_score"]) for d in found], 2)
        self.check([(r["index"], r["relevance_score"]) for r in client.rerank(TEXTS, QUERY, top_n=4)])
        with self.assertRaises(TypeError):  # the client gives nothing back of a status it does not expect
            client.rerank(TEXTS, "")
        strict = InfinityClient(base_url=URL, raise_on_unexpected_status=True)
        client = InfinityRerank(client=strict, model="m")
        with self.assertRaisesRegex(UnexpectedStatus, "must not be empty"):
            client.rerank(TEXTS, "")


    def test_erank(self):
        # The example, with a server of its own.
        client = ErankCompressor(top_n=2)
        documents = [Document(page_content=t, metadata={"place": i}) for i, t in enumerate(TEXTS)]
        found = client.compress_documents(documents, QUERY)
        self.check([(d.metadata["place"], d.metadata["relevance_score"]) for d in found], 2)
        self.of_texts([(d.page_content, d.metadata["relevance_score"]) for d in found], 2)
        self.assertEqual(documents[1].metadata, {"place": 1})
        client.top_n, client.options = None, {"instruction": "Given a query, retrieval relevant passage."}
        self.assertEqual(len(client.compress_documents(documents, QUERY)), len(TEXTS))
        self.assertEqual(client.compress_documents([], QUERY), [])
        with self.assertRaisesRegex(ValueError, "must not be empty"):
            client.compress_documents(documents, "")


class LlamaIndex(Clients):
    def run_it(self, client, query=QUERY):
        nodes = [NodeWithScore(node=TextNode(text=t), score=0.0) for t in TEXTS]
        found = client.postprocess_nodes(nodes, QueryBundle(query))
        return [(node.node.get_content(), node.score) for node in found]

    def test_cohere(self):
        self.of_texts(self.run_it(LlamaCohere(api_key="k", model="m", top_n=4, base_url=URL)))
        client = LlamaCohere(api_key="k", model="m", top_n=2, base_url=URL)
        self.of_texts(self.run_it(client), 2)
        with self.assertRaises(cohere.BadRequestError):
            self.run_it(client, " "[:0])

    def test_jina(self):
        self.of_texts(self.run_it(LlamaJina(api_key="k", model="m", top_n=4, base_url=URL + "/v1")))
        client = LlamaJina(api_key="k", model="m", top_n=2, base_url=URL + "/v1")
        self.of_texts(self.run_it(client), 2)
        with self.assertRaisesRegex(RuntimeError, "must not be empty"):
            self.run_it(client, "")

    def test_tei(self):
        self.of_texts(self.run_it(TextEmbeddingInference(base_url=URL, top_n=4)))
        client = TextEmbeddingInference(base_url=URL, top_n=2)
        self.of_texts(self.run_it(client), 2)
        with self.assertRaises(AssertionError):  # it looks at the number of scores alone
            self.run_it(client, "")
        self.assertIn("must not be empty", client._call_api("", TEXTS)["error"])


class Haystack(Clients):
    def run_it(self, client, query=QUERY, **more):
        client.warm_up() if hasattr(client, "warm_up") else None
        found = client.run(
            query=query, documents=[HaystackDocument(content=t) for t in TEXTS], **more
        )["documents"]
        return [(document.content, document.score) for document in found]

    def test_cohere(self):
        client = CohereRanker(
            model="m", api_key=Secret.from_token("k"), api_base_url=URL, top_k=len(TEXTS)
        )
        self.of_texts(self.run_it(client))
        self.of_texts(self.run_it(client, top_k=2), 2)
        with self.assertRaises(cohere.BadRequestError):
            self.run_it(client, "")

    def test_jina(self):
        client = JinaRanker(
            model="m", api_key=Secret.from_token("k"), base_url=URL + "/v1/rerank", top_k=len(TEXTS)
        )
        self.of_texts(self.run_it(client))
        self.of_texts(self.run_it(client, top_k=2), 2)
        with self.assertRaisesRegex(RuntimeError, "must not be empty"):
            self.run_it(client, "")

    def test_tei(self):
        client = HuggingFaceTEIRanker(url=URL, top_k=len(TEXTS), max_retries=1)
        self.of_texts(self.run_it(client))
        self.of_texts(self.run_it(client, top_k=2), 2)
        with self.assertRaisesRegex(RuntimeError, "(?s)422 Unprocessable Content.*must not be empty"):
            self.run_it(client, "")


if __name__ == "__main__":
    unittest.main()
