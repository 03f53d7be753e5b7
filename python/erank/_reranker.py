import dataclasses
import http.client
import json
import math
import os
import queue
import urllib.parse
import warnings
import weakref
from typing import Any, Optional

from ._server import Server


MOST = 1000  # documents of a request that every server takes


class ErankError(RuntimeError):
    """The server could not answer. `status` is HTTP's; 0: there was no answer."""

    def __init__(self, message, status=0):
        super().__init__(message)
        self.status = status


@dataclasses.dataclass
class Result:
    index: int  # in the documents
    document: Any  # as it was given
    relevance: float  # 0 to 1: the score divided by the highest there is
    score: float  # 0 to 10 of a model that is asked for that; what results are sorted by
    integer: Optional[int] = None  # the model's answer
    probability: Optional[float] = None  # of that answer
    reasoning: str = ""
    distribution: Optional[list] = None  # probabilities of 0 to 10, with return_distribution
    flags: list = dataclasses.field(default_factory=list)
    error: Optional[str] = None  # why this document has no score; its relevance is 0


class Reranker:
    """A model in memory, or a server at `url`.

    model: a Hugging Face folder, a .gguf file or an adapter's folder; None is erank-135m
    options: further words for `erank serve`, e.g. ["--threads", "4"]
    url, api_key: a server that runs already, e.g. "http://127.0.0.1:8080"
    timeout: seconds until a call raises TimeoutError; None is never

    Raises RuntimeError with the program's own line where the model cannot be loaded.
    """

    def __init__(self, model=None, *, adapter=None, precision=None, options=(), url=None, api_key=None, timeout=None):
        if url is not None and (model, adapter, precision, tuple(options)) != (None, None, None, ()):
            raise ValueError("with url the server's own model answers; give either url or model")
        words = [str(word) for word in options]
        for name, value in (("--model", model), ("--adapter", adapter), ("--precision", precision)):
            words += [name, str(value)] if value is not None else []
        self._server = Server(words) if url is None else None
        self._url = urllib.parse.urlsplit(self._server.url if self._server else url)
        if self._url.scheme not in ("http", "https") or not self._url.hostname:
            raise ValueError(f"url is {url!r}, expected e.g. http://127.0.0.1:8080")
        self._key = self._server.key if self._server else api_key
        self._timeout = timeout
        self._idle = queue.SimpleQueue()  # connections of this process that no thread uses now
        self._pid = os.getpid()
        self._closer = weakref.finalize(self, self._server.close) if self._server else None

    def close(self):
        """Ends the server that this object has started. It cannot be used after.

        In a process that was forked after the start it only drops this process's connections.
        """
        self._drop_connections()
        if self._closer:
            self._closer()

    def _drop_connections(self):
        try:
            while True:
                self._idle.get_nowait().close()
        except queue.Empty:
            pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def rank(self, query, documents, *, top_n=None, **options):
        """The documents as Results, best first; texts, or dicts with a "text".

        options: instruction, mode ("direct" or "think"), max_think_tokens, temperature, samples, seed, score,
        return_reasoning, return_distribution, explain_top, long_docs, hybrid, deadline_ms: docs/serving.md of erank, "A
        ranking's request". More than 1000 documents are several requests, but with explain_top or hybrid, which look at
        all of them; for these the server needs a larger --max-documents. Raises ValueError for what the server refuses,
        ErankError when it cannot answer.
        """
        documents = list(documents)
        if not documents:
            return []
        step = len(documents) if options.get("explain_top") or options.get("hybrid") else MOST
        results = []
        for begin in range(0, len(documents), step):
            part = documents[begin:begin + step]
            reply = self._post({"query": query, "documents": part, "top_n": top_n, **options})
            for item in reply["results"]:
                results.append(self._result({**item, "index": begin + item["index"]}, documents))
        if len(documents) > step:  # else the server's order, of a blend too
            results.sort(key=lambda result: (result.error is not None, -result.score, result.index))
            results = results[:int(top_n) if top_n else None]
        return results

    def predict(self, pairs, **options):
        """The relevance, 0 to 1, of each (query, document) in their order; of one pair alone a number.

        Pairs of one query share its computation. A pair that cannot be scored is NaN, and a RuntimeWarning says why;
        where the server can score none of a request's, of 1000 pairs, it raises as rank() does.
        """
        pairs = list(pairs)
        if len(pairs) == 2 and isinstance(pairs[0], str):
            return self.predict([pairs], **options)[0]
        if len(pairs) > MOST:
            return [score for i in range(0, len(pairs), MOST) for score in self.predict(pairs[i:i + MOST], **options)]
        of_query = {}
        for place, (query, _) in enumerate(pairs):
            of_query.setdefault(query, []).append(place)
        if not pairs:
            return []
        reply = self._post({"query": list(of_query), "return_documents": False,
                            "documents": [[pairs[place][1] for place in places] for places in of_query.values()],
                            **options})
        scores = [math.nan] * len(pairs)
        for places, ranking in zip(of_query.values(), reply["rankings"]):
            for item in ranking["results"]:
                place = places[item["index"]]
                if "error" in item:
                    warnings.warn(f"pair {place}: {item['error']['message']}", RuntimeWarning, stacklevel=2)
                else:
                    scores[place] = item["relevance_score"]
        return scores

    @staticmethod
    def _result(item, documents):
        return Result(index=item["index"], document=documents[item["index"]], relevance=item["relevance_score"],
                      score=item.get("score") or 0.0, integer=item.get("integer"), probability=item.get("probability"),
                      reasoning=item.get("reasoning") or "", distribution=item.get("distribution"),
                      flags=item.get("flags", []), error=item["error"]["message"] if "error" in item else None)

    def _connection(self):
        kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        return kind(self._url.hostname, self._url.port, timeout=self._timeout)

    def _post(self, body):
        if self._pid != os.getpid():  # forked since: the parent's connections are still the parent's
            self._drop_connections()
            self._pid = os.getpid()
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        text = json.dumps(body)
        # A connection that was idle may have been closed meanwhile: then once more on a new one.
        for is_new in (False, True):
            try:
                connection = self._connection() if is_new else self._idle.get_nowait()
            except queue.Empty:
                continue
            try:
                connection.request("POST", self._url.path.rstrip("/") + "/v1/rerank", text, headers)
                response = connection.getresponse()
                answer = response.read()
            except TimeoutError:
                connection.close()
                raise
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if is_new:
                    said = "".join(self._server.said[-1:]).strip() if self._server else ""
                    raise ErankError(f"no answer from {self._url.geturl()}: {error} {said}".strip()) from error
                continue
            self._idle.put(connection)
            return self._checked(response.status, answer)

    @staticmethod
    def _checked(status, answer):
        try:
            reply = json.loads(answer)
        except ValueError:
            reply = None
        if status == 200 and isinstance(reply, dict):
            return reply
        message = reply.get("message") if isinstance(reply, dict) else None
        message = message or f"HTTP status {status}: {answer[:200]!r}"
        if status in (400, 413, 422):
            raise ValueError(message)
        raise ErankError(message, status)
