"""Mutated headers of the three binary formats: each is read or refused, never worse.

    python benchmarks/fuzz.py --minutes 3 [--seed 0] [--only gguf]

Headers of safetensors (a model's), GGUF, and the entries of the cache of hidden states. A case is
a good file with bits flipped, bytes replaced, lengths set to extremes, JSON values swapped, or cut.
A case fails that raises anything but the error a user sees, takes over 5 s, or takes over 1 GiB:
the process has that limit, and an alarm. Exit 1 where one did; its bytes are left in ``--keep``.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import signal
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evalharness.engines.file_headers import gguf_tensors, safetensors_header
from evalharness.engines.locate import resolve
from evalharness.errors import InputError
from evalharness.pair.texts.hidden_cache import DamagedError
from evalharness.spec.model import ModelSource

SECONDS, MEMORY = 5, 1 << 30
EXTREMES = (0, 1, 2, 7, 255, 1 << 31, (1 << 32) - 1, 1 << 62, 1 << 63, (1 << 64) - 1)
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1 << 62, 10**400, 1e308, float("inf"), float("nan"), "", "F32", "x" * 5000,
    [], [[]], {}, {"a": {}}, [1] * 1000, "\ud800",
)  # fmt: skip
Case = tuple[str, bytes, Callable[[bytes], None]]


def safetensors_file() -> bytes:
    """Three tensors and metadata."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for i, dtype in enumerate(("F32", "BF16", "I8")):
        size = {"F32": 4, "BF16": 2, "I8": 1}[dtype] * 8
        header[f"w{i}"] = {"dtype": dtype, "shape": [2, 4], "data_offsets": [64 * i, 64 * i + size]}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(192)


def gguf_file() -> bytes:
    """Keys of several types, an array of strings, two tensors."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    keys = [
        text("general.architecture") + struct.pack("<I", 8) + text("llama"),
        text("llama.block_count") + struct.pack("<II", 4, 1),
        text("tokens") + struct.pack("<IIQ", 9, 8, 3) + text("a") + text("b") + text("c"),
        text("scores") + struct.pack("<IIQ4f", 9, 6, 4, 1, 2, 3, 4),
        text("nested") + struct.pack("<IIQIQ", 9, 9, 1, 4, 1) + bytes(4),
    ]
    rows = [
        text(f"w{i}") + struct.pack("<IQQIQ", 2, 32, 2, kind, 256 * i)
        for i, kind in enumerate((0, 8))
    ]
    head = struct.pack("<IQQ", 3, len(rows), len(keys))
    return b"GGUF" + head + b"".join(keys) + b"".join(rows) + bytes(512)


def config_file() -> bytes:
    """A configuration of a small Llama."""
    sizes = {"hidden_size": 4, "num_hidden_layers": 1, "vocab_size": 8, "intermediate_size": 8}
    more = {"model_type": "llama", "quantization_config": {"quant_method": "gptq", "bits": 4}}
    return json.dumps({**sizes, **more, "text_config": {"n_layer": 1}}).encode()


def mutate(data: bytes, at_random: random.Random) -> bytes:
    """``data`` with one to four things wrong."""
    for _ in range(at_random.randint(1, 4)):
        out = bytearray(data)
        place = at_random.randrange(len(out)) if out else 0
        match at_random.randrange(6):
            case 0 if out:
                out[place] ^= 1 << at_random.randrange(8)
            case 1 if out:
                out[place] = at_random.randrange(256)
            case 2:
                width = at_random.choice((4, 8))
                value = at_random.choice(EXTREMES) % (1 << 8 * width)
                out[place : place + width] = value.to_bytes(width, "little")
            case 3:
                del out[place:]
            case 4:
                out[place:place] = out[place : place + at_random.randrange(64)]
            case _:
                out = bytearray(_other_json(bytes(out), at_random))
        data = bytes(out)
    return data


def _other_json(data: bytes, at_random: random.Random) -> bytes:
    """A value of the JSON in ``data`` replaced; a header keeps its length's eight bytes in step."""
    start = data.find(b"{")
    if start < 0:
        return data
    try:
        tree, end = json.JSONDecoder().raw_decode(data[start:].decode("latin-1"))
    except (ValueError, RecursionError):
        return data
    places: list[tuple[Any, Any]] = []
    left = [tree]
    while left:
        node = left.pop()
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in list(items):
            places.append((node, key))
            if isinstance(value, dict | list):
                left.append(value)
    if places:
        node, key = at_random.choice(places)
        node[key] = at_random.choice(VALUES)
    text = json.dumps(tree).encode()
    if at_random.random() < 0.05:
        text = b'{"a":' * 20_000 + text
    front = struct.pack("<Q", len(text)) if start == 8 else data[:start]
    return front + text + data[start + end :]


def cases(folder: Path) -> list[Case]:
    """Each format with a good file and what reads it."""
    weights, model = folder / "model.safetensors", folder / "model.gguf"
    cached, directory = folder / "entry.safetensors", folder / "model"
    directory.mkdir()
    (directory / "model.safetensors").write_bytes(safetensors_file())

    def read(path: Path, reader: Callable[[Path], object]) -> Callable[[bytes], None]:
        def case(data: bytes) -> None:
            path.write_bytes(data)
            reader(path)

        return case

    def entry(path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        header = safetensors_header(path, "cache").get("__metadata__") or {}
        header.get("format")
        try:  # what passes the check, the library opens or refuses; it must not crash
            with safe_open(str(path), "np") as file:
                list(file.keys())
        except SafetensorError:
            pass

    return [
        ("safetensors", safetensors_file(), read(weights, lambda p: safetensors_header(p, "k"))),
        ("gguf", gguf_file(), read(model, lambda p: gguf_tensors(p, "k"))),
        ("cache", safetensors_file(), read(cached, entry)),
        (
            "config",
            config_file(),
            read(directory / "config.json", lambda _: resolve(ModelSource(path=str(directory)))),
        ),
    ]


def run(case: Case, data: bytes) -> str:
    """``read``, ``refused``, or what went wrong."""

    def late(*_: object) -> None:
        raise TimeoutError(f"over {SECONDS} s")

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        case[2](data)
    except (InputError, DamagedError) as error:
        return "refused" if len(str(error)) < 2000 else "a message of over 2,000 characters"
    except (Exception, MemoryError) as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return "read"


def main() -> int:
    """Fuzz for some minutes, equally long each format."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=None)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()))
    args = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        chosen = [c for c in cases(Path(folder)) if args.only in (None, c[0])]
        for case in chosen:  # imports and mappings first, then the limit
            assert run(case, case[1]) == "read", case[0]
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
        for case in chosen:
            at_random, counts, slowest = random.Random(args.seed), Counter[str](), 0.0
            until = time.monotonic() + 60 * args.minutes / len(chosen)
            while time.monotonic() < until:
                data = mutate(case[1], at_random)
                started = time.monotonic()
                outcome = run(case, data)
                slowest = max(slowest, time.monotonic() - started)
                counts[outcome] += 1
                if outcome not in ("read", "refused") and counts[outcome] == 1:
                    (args.keep / f"fuzz-{case[0]}-{sum(counts.values())}").write_bytes(data)
            bad = {k: v for k, v in counts.items() if k not in ("read", "refused")}
            wrong += sum(bad.values())
            print(
                f"{case[0]:12} {sum(counts.values()):9,} cases: {counts['read']:,} read, "
                f"{counts['refused']:,} refused, slowest {slowest:.3f} s; wrong: {bad or 'none'}"
            )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory of the process {peak:.2f} GiB")
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
