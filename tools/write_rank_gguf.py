"""Makes of a Qwen3's GGUF one that llama-server's /rerank takes: write_rank_gguf.py MODEL.gguf OUT.

It adds what llama.cpp's converter gives a Qwen3 reranker: pooling, the labels yes and no, a template of the prompt, and a
head, here two random rows: for measuring speed, not for ranking. Needs numpy and gguf.
"""
import sys

import gguf
import numpy

source = gguf.GGUFReader(sys.argv[1])
family = source.fields["general.architecture"].contents()
if family != "qwen3":
    sys.exit(f"write_rank_gguf: the model is a {family}, and llama.cpp reads such a head of qwen3 only")
writer = gguf.GGUFWriter(sys.argv[2], family)
for name, field in source.fields.items():
    if name.startswith("GGUF.") or name in ("general.architecture", "tokenizer.chat_template"):
        continue
    kind = field.types[0]
    writer.add_key_value(name, field.contents(), kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
writer.add_pooling_type(gguf.PoolingType.RANK)
writer.add_classifier_output_labels(["yes", "no"])
writer.add_chat_template([{"name": "rerank", "template": "{query} {document}"}])
size = source.fields[f"{family}.embedding_length"].contents()
head = (numpy.random.default_rng(1).standard_normal((2, size)) * 0.02).astype(numpy.float32)
for tensor in source.tensors:
    data = tensor.data
    writer.add_tensor_info(tensor.name, data.shape, data.dtype, data.nbytes, tensor.tensor_type)
writer.add_tensor_info("cls.output.weight", head.shape, head.dtype, head.nbytes)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_ti_data_to_file()
for tensor in source.tensors:
    writer.write_tensor_data(tensor.data)
writer.write_tensor_data(head)
writer.close()
