"""erank as a document compressor of LangChain, without an HTTP client of anybody's: pip install langchain-core.

    retriever = ContextualCompressionRetriever(base_retriever=..., base_compressor=ErankCompressor(top_n=5))
"""

from typing import Any, Optional

from erank import Reranker
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import Field, PrivateAttr


class ErankCompressor(BaseDocumentCompressor):
    model: Optional[str] = None  # None: erank-135m
    top_n: Optional[int] = 3  # None: all
    options: dict = Field(default_factory=dict)  # of Reranker.rank
    _reranker: Reranker = PrivateAttr()

    def model_post_init(self, _: Any) -> None:
        self._reranker = Reranker(self.model)

    def compress_documents(self, documents, query, callbacks=None):
        results = self._reranker.rank(query, [d.page_content for d in documents], top_n=self.top_n, **self.options)
        return [Document(page_content=documents[r.index].page_content,
                         metadata={**documents[r.index].metadata, "relevance_score": r.relevance}) for r in results]
