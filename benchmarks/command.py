"""The real `evalharness compare` against plain forward passes of both models over the same windows.

Random weights of a real model's shape, prose with natural lengths, one run for all ratios: the
plain passes (transformers, full batches of windows of similar length, logits thrown away) in one
process, the command in another.

    python benchmarks/command.py --shape 1b --tokens 1400000
    python benchmarks/command.py --shape smollm2 --tokens 8192 --device cpu
"""

from __future__ import annotations

import argparse
import itertools
import json
import pydoc_data.topics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SHAPES = {  # hidden, layers, heads, key-value heads, intermediate, vocabulary
    "1b": (2048, 16, 32, 8, 8192, 128256),
    "8b": (4096, 32, 32, 8, 14336, 128256),
    "smollm2": (576, 30, 9, 3, 1536, 49152),
}
WINDOW, BATCH, VOCABULARY = 1024, 8, 8192
SUITE = """version: 1
name: command
corpora: [{{name: prose, path: prose.jsonl}}]
window: {{tokens: {window}}}
probes: [{probes}]
batch_size: {batch}
"""
# What it says does not matter; it must only be one that any number of documents can decide.
POLICY = "version: 1\ngates: [{metric: perplexity.ratio, max: 1000, min_n: 2}]\n"


def prepare(folder: Path, shape: str, tokens: int, probes: str, device: str) -> None:
    """Write two models, their tokenizer, the texts, the suite and the policy."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    prose = list(pydoc_data.topics.topics.values())
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        prose,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY, special_tokens=["<eos>"], initial_alphabet=alphabet
        ),
    )
    rows, have = [], 0
    for number, text in enumerate(itertools.cycle(prose)):
        if have >= tokens:
            break
        ids = bpe.encode(f"{number}\n{text}").ids[: tokens - have]  # no two documents are the same
        rows.append(json.dumps({"text": bpe.decode(ids)}))
        have += len(ids)
    (folder / "prose.jsonl").write_text("\n".join(rows) + "\n")
    hidden, layers, heads, kv, wide, vocabulary = SHAPES[shape]
    config = LlamaConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        intermediate_size=wide,
        vocab_size=vocabulary,
        max_position_embeddings=8192,
        bos_token_id=None,
        eos_token_id=0,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model: Any = LlamaForCausalLM(config)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<eos>", pad_token="<eos>")
    for side in ("base", "candidate"):
        model.save_pretrained(folder / side)
        tokenizer.save_pretrained(folder / side)
        (folder / f"{side}.yaml").write_text(
            f"version: 1\nname: {side}\nmodel: {{path: ./{side}, device: {device}}}\n"
        )
        with torch.no_grad():
            model.lm_head.weight.mul_(1.01)  # the candidate is written next
    (folder / "suite.yaml").write_text(SUITE.format(window=WINDOW, batch=BATCH, probes=probes))
    (folder / "gates.yaml").write_text(POLICY)


def plain(folder: Path, device: str) -> None:
    """Print seconds of loading and of the passes of both models, windows and tokens, as JSON."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from evalharness.data import documents
    from evalharness.data.windows import batches, cut, padded
    from evalharness.engines.computing import computing_dtype
    from evalharness.spec.model import load_model_spec
    from evalharness.spec.suite import load_suite

    def done() -> float:
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter()

    began = done()
    models = []
    for side in ("base", "candidate"):
        spec = load_model_spec(folder / f"{side}.yaml")
        dtype = computing_dtype(spec, folder / side, torch.device(device))
        made: Any = AutoModelForCausalLM.from_pretrained(folder / side, dtype=dtype)
        models.append(made.to(device).eval())
    loading = done() - began
    suite = load_suite(folder / "suite.yaml")
    texts, _ = documents.read_texts(suite)
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    docs = documents.tokenize(texts, suite, tokenizer, models[0].config.vocab_size)
    windows = cut(docs, suite, documents.bos_token(tokenizer))
    work = [torch.from_numpy(padded(batch)) for batch in batches(windows, BATCH)]
    with torch.inference_mode():
        for model in models:
            model(input_ids=work[0].to(device), use_cache=False)
        began = done()
        for ids in work:
            for model in models:
                model(input_ids=ids.to(device), use_cache=False)
        passes = done() - began
    tokens = sum(len(window.ids) for window in windows)
    print(json.dumps({"loading": loading, "passes": passes, "tokens": tokens}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="smollm2")
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--probes", default="", help="such as layers")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--plain", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    from evalharness.engines.loading import pick_device

    device = str(pick_device(given.device))
    if given.plain is not None:
        plain(given.plain, device)
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        own = [sys.executable, __file__, "--device", device]
        prepare(folder, given.shape, given.tokens, given.probes, device)
        if device.startswith("cuda"):
            import torch

            torch.cuda.empty_cache()
        text = subprocess.run([*own, "--plain", name], check=True, stdout=subprocess.PIPE).stdout
        bare = json.loads(text.splitlines()[-1])
        began = time.perf_counter()
        command = [sys.executable, "-m", "evalharness", "compare", "base.yaml", "candidate.yaml"]
        command += ["--suite", "suite.yaml", "--gates", "gates.yaml", "--out", "run", "--quiet"]
        code = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE).returncode
        whole = time.perf_counter() - began
        if code not in (0, 1, 3):
            return code
        seconds = json.loads((folder / "run" / "manifest.json").read_text())["seconds"]
    tokens, taken = bare["tokens"], seconds["tokens"]
    found = {
        "device": device,
        "tokens": tokens,
        "plain_tokens_per_s": round(tokens / bare["passes"]),
        "command_tokens_per_s": round(tokens / taken),
        "ratio_of_passes": round(taken / bare["passes"], 3),
        "plain_loading_s": round(bare["loading"], 2),
        "command_loading_s": round(seconds["loading"], 2),
        "outside_the_pass_s": round(whole - taken, 2),
        "whole_s": round(whole, 2),
    }
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
