"""A process `erank rerank --candidates - --out -` that is kept: queries in, their results out, in the same order.

What drives it here drives it anywhere: writing and reading at the same time, knowing by their number when a query's
lines are all there, and starting it again with what is not answered when it has died.
"""
import json
import subprocess
import tempfile
import threading


class Worker:
    def __init__(self, args=(), program="erank", restarts=3):
        for option in ("--tail", "--min-probability"):
            if any(arg.split("=")[0] == option for arg in args):
                raise ValueError(f"{option} leaves lines out: a query's end would not be known by their number")
        self.command = [program, "rerank", "--candidates", "-", "--out", "-", "--format", "jsonl", "--quiet", *args]
        self.restarts = restarts  # in a row, without an answer between them
        self.process = None

    def rerank(self, queries):
        """`queries`: dicts {qid, query, hits: [{docid, text, ...}]}. Yields of each the list of its result lines."""
        queries = list(queries)
        done = deaths = 0
        while done < len(queries):
            if self.process is None:
                self._start()
            writer = threading.Thread(target=self._write, args=(self.process, queries[done:]))
            writer.start()
            try:
                while done < len(queries):
                    results = self._read(queries[done])
                    done, deaths = done + 1, 0
                    yield results
            except EOFError:
                code, message = self._end()
                # 2 is its word on what it was given: the first query that has no answer.
                if code in (0, 1, 2) or deaths == self.restarts:
                    raise RuntimeError(f"erank ended with {code} at query {queries[done].get('qid')}: {message}")
                deaths += 1
            except GeneratorExit:  # who called wants no more: what is on its way is nobody's
                self.process.kill()
                self._end()
                raise
            finally:
                writer.join()

    def close(self):
        if self.process is not None:
            self.process.stdin.close()
            self._end()

    def _start(self):
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors
        )

    @staticmethod
    def _write(process, queries):
        try:
            for query in queries:
                process.stdin.write(json.dumps(query).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass  # the reader sees its end

    def _read(self, query):
        # A document that is there twice is answered once.
        expected = len({str(hit["docid"]) for hit in query["hits"]})
        results = []
        while len(results) < expected:
            line = self.process.stdout.readline()
            if not line.endswith(b"\n"):  # a piece of a line is no answer
                raise EOFError
            results.append(json.loads(line))
            if results[-1]["qid"] != str(query["qid"]):
                raise RuntimeError(f"expected the results of query {query['qid']}, got those of {results[-1]['qid']}")
        return results

    def _end(self):
        process, self.process = self.process, None
        process.stdout.close()
        code = process.wait()
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        return code, lines[-1] if lines else ""
