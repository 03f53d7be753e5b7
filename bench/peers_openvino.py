"""Converts for and measures OpenVINO, for bench/peers.py.

peers_openvino.py convert MODEL OUT     MODEL (a Hugging Face folder) with int8 weights, by optimum-intel
peers_openvino.py run FOLDER GROUP JOB.json     prints {figure: value}

GROUP: so many numbers of an activation share a scale when it becomes int8 (OpenVINO's dynamic quantisation); 0: none
does. Logits are computed for a sequence's last row only, and what the prompts of a query have in common is computed once
a batch.
"""
import itertools
import json
import os
import sys
import time

os.environ["HF_HUB_OFFLINE"] = "1"


def convert(model, out):
    from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig

    quantization = OVWeightQuantizationConfig(bits=8, sym=True)
    OVModelForCausalLM.from_pretrained(
        model, export=True, compile=False, quantization_config=quantization).save_pretrained(out)


class Network:
    def __init__(self, folder, group, threads):
        import numpy
        import openvino
        from openvino import opset13 as ops

        self.numpy = numpy
        core = openvino.Core()
        model = core.read_model(os.path.join(folder, "openvino_model.xml"))
        # The head's product gets one row a sequence: `rows` says which.
        head = model.output("logits").node.input_value(0).node
        while head.get_type_name() != "MatMul":
            head = head.input_value(0).node
        rows = ops.parameter([-1], dtype=openvino.Type.i64, name="rows")
        rows.output(0).set_names({"rows"})
        hidden = ops.gather(head.input_value(0), ops.unsqueeze(rows, ops.constant(1)), ops.constant(1), batch_dims=1)
        head.input(0).replace_source_output(hidden.output(0))
        model.add_parameters([rows])
        model.validate_nodes_and_infer_types()
        self.inputs = {name for port in model.inputs for name in port.names}
        properties = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY",
                      "DYNAMIC_QUANTIZATION_GROUP_SIZE": group}
        self.request = core.compile_model(model, "CPU", properties).create_infer_request()
        self.length = 0

    def reset(self):
        self.request.reset_state()
        self.length = 0

    def forward(self, ids, rows, of=None):
        """Logits [B, V] of one row of each sequence; `of`: which sequence of the step before each goes on from."""
        batch, new = ids.shape
        numpy = self.numpy
        fed = {
            "input_ids": ids,
            "attention_mask": numpy.ones((batch, self.length + new), dtype=numpy.int64),
            "position_ids": numpy.tile(numpy.arange(self.length, self.length + new), (batch, 1)),
            "beam_idx": numpy.arange(batch, dtype=numpy.int32) if of is None else numpy.array(of, dtype=numpy.int32),
            "rows": numpy.array(rows, dtype=numpy.int64),
        }
        self.request.infer({name: value for name, value in fed.items() if name in self.inputs}, share_inputs=True)
        self.length += new
        return self.request.get_tensor("logits").data[:, 0]

    def generate(self, logits, number):
        for step in range(number):
            ids = logits.argmax(-1)[:, None]
            if step + 1 < number:
                logits = self.forward(ids, [0] * len(ids))


def timed(body):
    begin = time.perf_counter()
    body()
    return time.perf_counter() - begin


def run(folder, group, job):
    import numpy

    network = Network(folder, group, job["threads"])
    draw = numpy.random.default_rng(1)

    def random_ids(*shape):
        return draw.integers(1000, 40000, shape)

    def fresh(ids):
        network.reset()
        return network.forward(ids, [ids.shape[1] - 1] * len(ids))

    def prefill():
        best = 0
        for batch in job["batches"]:
            ids = random_ids(batch, job["prefill_tokens"])
            best = max(best, ids.size / timed(lambda: fresh(ids)))
        return {"prefill": best}

    def decode():
        def one(batch, number):
            network.generate(fresh(random_ids(batch, job["decode_prompt"])), number)
        new = job["decode_tokens"]
        return {f"decode_{batch}": batch * new / timed(lambda: one(batch, new)) for batch in (1, 8, 64)}

    def batches(size):
        by_query = {}
        for number, prompt in enumerate(job["prompts"]):
            by_query.setdefault(prompt["query"], []).append(number)
        for numbers in by_query.values():
            prompts = {n: job["prompts"][n]["ids"] for n in numbers}
            numbers.sort(key=lambda n: len(prompts[n]))
            first, last = min(prompts.values()), max(prompts.values())
            shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last)))
            shared = min(shared, min(map(len, prompts.values())) - 1)
            for begin in range(0, len(numbers), size):
                some = numbers[begin:begin + size]
                # The states hold one batch, so the common part is computed once a batch.
                network.reset()
                if shared:
                    network.forward(numpy.array([first[:shared]]), [0])
                own = [prompts[n][shared:] for n in some]
                longest = max(map(len, own))
                ids = numpy.array([o + [0] * (longest - len(o)) for o in own])
                yield some, network.forward(ids, [len(o) - 1 for o in own], [0] * len(some) if shared else None)

    def direct():
        answers = [0] * len(job["prompts"])

        def one():
            for numbers, logits in batches(16):
                for number, token in zip(numbers, logits.argmax(-1).tolist()):
                    answers[number] = token
        seconds = timed(one)
        return {"direct": len(answers) / seconds, "answers": answers}

    def think():
        def one():
            for _, logits in batches(len(job["prompts"])):
                network.generate(logits, job["new_tokens"])
        return {"think": len(job["prompts"]) / timed(one)}

    fresh(random_ids(1, 64))
    return {"prefill": prefill, "decode": decode, "direct": direct, "think": think}[job["part"]]()


if sys.argv[1] == "convert":
    convert(*sys.argv[2:])
else:
    with open(sys.argv[4]) as file:
        print(json.dumps(run(sys.argv[2], sys.argv[3], json.load(file))))
