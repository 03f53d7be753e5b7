"""Rerank documents with a reasoning language model.

    from erank import Reranker
    with Reranker() as reranker:
        for result in reranker.rank("why is the sky blue", documents):
            print(result.score, result.document)

A Reranker starts the program `erank serve` on this machine, with its model in that process's memory, and talks to it;
with `url` it talks to a server that runs already. So nothing of its libtorch meets the torch that this process may have
imported, and other threads of this process run on while pairs are scored. Every method is thread-safe, and calls of
several threads are computed together.
"""

from ._reranker import ErankError, Reranker, Result

__all__ = ["ErankError", "Reranker", "Result"]
