#!/usr/bin/env python3
"""Writes tests/golden/scores.json: what transformers gives the answers of each scale where they are read.

    python tools/make_score_golden.py build/erank

Run by hand in an environment with torch, transformers, tokenizers and numpy; neither build nor tests need it. The
program makes the model's folder of shape "tiny" with its byte tokenizer, in which the words yes and no become tokens
here as in tests/text/yes_no_tokenizer.h; the weights are those of make_model_golden.fill. Prompts are those of
make_prompt_golden.py, rendered and encoded by transformers; an answer's probability is the softmax of the logits in
fp64 over the whole vocabulary, of 10 the product of those of "1" and of "0" after it.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from make_model_golden import fill, short, write
from make_prompt_golden import FRAMES, INSTRUCTION, SCALES

PAIRS = [
    ("why is the sky blue", "Air scatters blue light more than red."),
    ("what makes bread rise", "The sea mirrors the blue sky, says page 10."),
]
YES, NO = 301, 302
ANSWERS = {"0-10": [str(i) for i in range(10)], "0-3": ["0", "1", "2", "3"], "yes-no": ["no", "yes"]}


def add_yes_no(folder):
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    for piece in "~300", "~301", "~302":
        del vocabulary[piece]
    vocabulary.update(ye=300, yes=YES, no=NO)
    tokenizer["model"]["merges"] = [["y", "e"], ["ye", "s"], ["n", "o"]]
    path.write_text(json.dumps(tokenizer))


def next_token(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0, -1].double().softmax(0)


def distribution(model, tokenizer, scale, ids):
    token = {answer: tokenizer.encode(answer, add_special_tokens=False) for answer in ANSWERS[scale]}
    assert all(len(one) == 1 for one in token.values()), token
    p = next_token(model, ids)
    answers = [p[token[answer][0]].item() for answer in ANSWERS[scale]]
    if scale == "0-10":
        zero = next_token(model, ids + token["1"])[token["0"][0]].item()
        answers = [*answers, answers[1] * zero]
        answers[1] *= 1 - zero
    return answers


def main():
    program = pathlib.Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name) / "tiny"
        subprocess.run([program, "model", "random", "--shape", "tiny", "--out", folder], check=True)
        add_yes_no(folder)
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"),
                                            chat_template=settings["chat_template"])
        config = AutoConfig.from_pretrained(folder)
        stored = json.loads((folder / "config.json").read_text())
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            parameter.copy_(fill(parameter_name, tuple(parameter.shape)))
    opening = tokenizer.encode("<think></think><answer>", add_special_tokens=False)
    cases = []
    for scale in SCALES:
        for layout, frame in FRAMES.items():
            for query, document in PAIRS:
                content = frame.format(**SCALES[scale]).format(INSTRUCTION, query, document)
                ids = tokenizer.apply_chat_template([{"role": "user", "content": content}], tokenize=True,
                                                    add_generation_prompt=True, return_dict=False)
                answers = distribution(model, tokenizer, scale, ids + opening)
                cases.append(dict(scale=scale, layout=layout, query=query, document=document, prompt_tokens=len(ids),
                                  distribution=[short(p) for p in answers],
                                  expected=short(sum(k * p for k, p in enumerate(answers)) / sum(answers))))
                print(scale, layout, len(ids), cases[-1]["expected"], sum(answers))
    write("scores.json", dict(instruction=INSTRUCTION, config=stored, cases=cases))


main()
