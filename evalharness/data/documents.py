"""Documents: the independent pieces of text that a suite names, and that intervals resample.

Tokenised once, by the reference's tokenizer; both sides are fed these ids. Documents come in a
seeded random order over all corpora, so that any prefix of them is a fair sample. What they are
called is for readers and for slices: names may repeat, and documents are known by number.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import site
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from evalharness.errors import InputError, plural
from evalharness.spec import permissions
from evalharness.spec.suite import Corpus, Suite, expand, folder_of

Ids = npt.NDArray[np.int64]
ROWS = (".json", ".jsonl", ".ndjson")  # files whose rows are documents
_MOST_ID = 2**63 - 1


@dataclass(frozen=True)
class Text:
    """A document before it is tokenised: ``text``, or ``tokens`` for a corpus of ids."""

    corpus: str
    id: str
    text: str | None
    tokens: Ids | None
    attributes: dict[str, str]


@dataclass(frozen=True)
class Document:
    """A tokenised document; ``number`` is its cluster."""

    number: int
    corpus: str
    id: str
    tokens: Ids  # (n,)
    byte_ends: Ids | None  # (n + 1,) UTF-8 bytes of the text before token i; None: unknown
    attributes: dict[str, str]
    text: int = -1  # its place among the texts that were tokenised


def read_texts(suite: Suite) -> tuple[list[Text], list[str]]:
    """Read every corpus and draw its documents; returns them in seeded order, and warnings."""
    drawn: list[tuple[bytes, Text]] = []
    warnings: list[str] = []
    for corpus in suite.corpora:
        found = [
            replace(t, attributes={**corpus.labels, **t.attributes})
            for t in _READERS[_kind(corpus)](corpus)
            if t.tokens is not None or t.text
        ]
        if not found:
            raise InputError(
                f"corpus {corpus.name!r} is empty",
                key=f"corpora.{corpus.name}",
                remedy="Give a source that holds at least one document with text.",
            )
        if corpus.documents is not None and len(found) < corpus.documents:
            warnings.append(
                f"corpus {corpus.name!r} has {plural(len(found), 'document')}; "
                f"{corpus.documents} were asked for"
            )
        drawn += sorted(_draws(suite.seed, found), key=itemgetter(0))[: corpus.documents]
    return [text for _, text in sorted(drawn, key=itemgetter(0))], warnings


def tokenize(
    texts: list[Text], suite: Suite, tokenizer: Any, vocab_size: int, *, reader: str | None = None
) -> list[Document]:
    """Tokenise with ``tokenizer``, leaving out documents too short to score a token of.

    ``reader`` is the name of the model whose tokenizer it is, where the other side has another.
    """
    documents: list[Document] = []
    longest = dict.fromkeys((c.name for c in suite.corpora), 0)
    for place, text in enumerate(texts):
        ids, byte_ends = encode(text, tokenizer)
        wrong = ids[(ids < 0) | (ids >= vocab_size)]
        if len(wrong):
            raise InputError(
                f"document {text.id!r} holds token id {int(wrong[0])}, outside the model's "
                f"vocabulary of {vocab_size}",
                key=f"corpora.{text.corpus}",
                remedy="Tokenise it with this model's tokenizer.",
            )
        longest[text.corpus] = max(longest[text.corpus], len(ids))
        if len(ids) >= shortest(suite):
            documents.append(
                Document(
                    len(documents), text.corpus, text.id, ids, byte_ends, text.attributes, place
                )
            )
    for corpus in suite.corpora:
        if not any(d.corpus == corpus.name for d in documents):
            raise InputError(
                f"corpus {corpus.name!r} has no document of {shortest(suite)} tokens or more "
                + (f"as {reader} reads it " if reader is not None else "")
                + f"(longest: {longest[corpus.name]})",
                key=f"corpora.{corpus.name}",
                remedy="Shorten window.tokens or min_tokens, or give longer documents.",
            )
    return documents


def bos_token(tokenizer: Any) -> int | None:
    """The token this tokenizer puts before every text, or None."""
    bos = tokenizer.bos_token_id
    if bos is None:
        return None
    ids = tokenizer("a")["input_ids"]
    return int(bos) if ids and ids[0] == bos else None


def shortest(suite: Suite) -> int:
    """Tokens a document needs so that at least one of its positions is scored."""
    window = suite.window
    need = window.tokens // 2 + 2 if window.score == "second_half" else 2
    return max(need, window.min_tokens)


def fingerprint(documents: list[Document]) -> str:
    """SHA-256 over the token stream, document by document."""
    digest = hashlib.sha256()
    for d in documents:
        digest.update(f"{d.corpus}\0{d.id}\0{len(d.tokens)}\0".encode())
        digest.update(np.ascontiguousarray(d.tokens, dtype="<i8").tobytes())
    return digest.hexdigest()


def _draws(seed: int, texts: list[Text]) -> Iterator[tuple[bytes, Text]]:
    """The texts of one corpus, each with the key that it is sorted by.

    It depends on the seed and the documents' names alone, not on how files are listed; namesakes
    are told apart by their order.
    """
    seen = Counter[str]()
    for text in texts:
        parts = [str(seed), text.corpus, text.id, *([str(seen[text.id])] if seen[text.id] else [])]
        seen[text.id] += 1
        yield hashlib.sha256("\0".join(parts).encode()).digest(), text


def encode(text: Text, tokenizer: Any) -> tuple[Ids, Ids | None]:
    """The ids of a text without special tokens, and its `Document.byte_ends`."""
    if text.tokens is not None:
        return text.tokens, None
    assert text.text is not None
    fast = bool(getattr(tokenizer, "is_fast", False))
    encoded = tokenizer(
        text.text, add_special_tokens=False, return_offsets_mapping=fast, verbose=False
    )
    ids = np.asarray(encoded["input_ids"], dtype=np.int64)
    if not fast or not len(ids):
        return ids, None
    ends = np.array([end for _, end in encoded["offset_mapping"]])
    # A token may end inside a character (byte-level pieces): its offset then covers the whole of
    # it, and running ends never go back.
    bytes_before = np.concatenate(
        [[0], np.cumsum([len(c.encode("utf-8", "surrogatepass")) for c in text.text])]
    )
    byte_ends = np.concatenate([[0], bytes_before[np.maximum.accumulate(ends)]])
    return ids, byte_ends.astype(np.int64)


def _kind(corpus: Corpus) -> str:
    if corpus.tokens is not None:
        return "tokens"
    return "python" if corpus.source is not None else "hub" if corpus.hub is not None else "files"


def _read_python(corpus: Corpus) -> Iterator[Text]:
    """``python:MODULE``: each mapping of names to texts in the module; one document a name."""
    module_name = str(corpus.source).removeprefix("python:")
    if not permissions.code_allowed() and not _ships(module_name.partition(".")[0]):
        raise InputError(
            f"{module_name!r} is no module that an installed package ships, and importing it runs "
            "its code",
            key=f"corpora.{corpus.name}.source",
            remedy=permissions.REMEDY,
        )
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever its code raises
        raise InputError(
            f"cannot import {module_name!r} ({error})", key=f"corpora.{corpus.name}.source"
        ) from None
    found = False
    for value in vars(module).values():
        if (
            isinstance(value, dict)
            and value
            and all(isinstance(k, str) and isinstance(v, str) for k, v in value.items())
        ):
            found = True
            for name, text in value.items():
                yield Text(corpus.name, name, text, None, {})
    if not found:
        raise InputError(
            f"module {module_name!r} holds no mapping of names to texts",
            key=f"corpora.{corpus.name}.source",
            remedy="python:pydoc_data.topics is one that every CPython has.",
        )


def _ships(package: str) -> bool:
    """Whether a top-level module is Python's own or of an installed package; it is not imported."""
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return False
    if spec is None:
        return True  # there is none: importing says so
    if spec.origin in ("built-in", "frozen"):
        return True
    places = [*(spec.submodule_search_locations or ()), *([spec.origin] if spec.origin else [])]
    python = [sysconfig.get_path(k) for k in ("stdlib", "platstdlib", "purelib", "platlib")]
    installed = {*python, *site.getsitepackages(), site.getusersitepackages()}
    homes = [Path(place).resolve() for place in installed]
    return all(any(Path(p).resolve().is_relative_to(home) for home in homes) for p in places)


def _read_hub(corpus: Corpus) -> Iterator[Text]:
    import datasets

    hub = corpus.hub
    assert hub is not None
    try:
        rows = datasets.load_dataset(hub.path, hub.name, split=hub.split, revision=hub.revision)
    except Exception as error:  # datasets raises anything from ConnectionError to ValueError
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"data set {hub.path!r} could not be loaded ({first})",
            key=f"corpora.{corpus.name}.hub",
            remedy="Check path, name, split and the network, or give a local file with path:.",
        ) from None
    for key, column in (
        ("hub.text_key", hub.text_key),
        *(("attributes", a) for a in corpus.attributes),
    ):
        if column not in rows.column_names:
            raise InputError(
                f"data set {hub.path!r} has no column {column!r} (it has {rows.column_names})",
                key=f"corpora.{corpus.name}.{key}",
            )
    start = re.compile(hub.starts) if hub.starts else None
    parts: list[str] = []
    number = 0
    of_first: dict[str, str] = {}  # a document's attributes are those of its first row
    columns = rows.select_columns([hub.text_key, *corpus.attributes])
    for row in columns:
        text = _whole(row[hub.text_key] or "")
        if (start is None or start.search(text)) and "".join(parts).strip():
            yield Text(corpus.name, str(number), "".join(parts), None, of_first)
            parts, number = [], number + 1
        if not parts:
            of_first = _kept(row, corpus)
        parts.append(text)
    if "".join(parts).strip():
        yield Text(corpus.name, str(number), "".join(parts), None, of_first)


def _kept(row: dict[str, Any], corpus: Corpus) -> dict[str, str]:
    return {k: _whole(str(row[k])) for k in corpus.attributes if row.get(k) is not None}


def _name(row: dict[str, Any], number: int) -> str:
    given = row.get("id")
    return _whole(str(number if given is None else given))


def _whole(text: str) -> str:
    """``text`` with each half of a character, which JSON may hold, replaced by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _read_files(corpus: Corpus) -> Iterator[Text]:
    folder = folder_of(Path(str(corpus.path)))
    for path in expand(Path(str(corpus.path))):
        if path.is_dir():
            continue
        file = path.relative_to(folder).as_posix()
        if path.suffix in ROWS:
            for number, row in _rows(path, corpus):
                text = row.get(corpus.text_key)
                if text is None and corpus.text_key in row:
                    continue
                if not isinstance(text, str):
                    raise InputError(
                        f"row has no text under {corpus.text_key!r} (keys: {', '.join(row)})",
                        path=path,
                        line=number,
                        key=f"corpora.{corpus.name}.text_key",
                    )
                kept = _kept(row, corpus)
                yield Text(corpus.name, f"{file}:{_name(row, number)}", _whole(text), None, kept)
        else:
            yield Text(corpus.name, file, _read(path), None, {})


def _read_tokens(corpus: Corpus) -> Iterator[Text]:
    path = Path(str(corpus.tokens))
    key = f"corpora.{corpus.name}.tokens"
    if path.suffix == ".npy":
        try:
            ids = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InputError(f"not a NumPy array ({error})", path=path, key=key) from None
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise InputError(
                f"must be a 1-D array of integers (got {ids.ndim}-D {ids.dtype})",
                path=path,
                key=key,
            )
        if len(ids) and int(ids.max()) > _MOST_ID:
            raise InputError(f"holds token id {int(ids.max())}", path=path, key=key)
        yield Text(corpus.name, path.name, None, ids.astype(np.int64), {})
        return
    for number, row in _rows(path, corpus):
        tokens = row.get("tokens")
        if not isinstance(tokens, list) or not all(type(t) is int for t in tokens):
            raise InputError('"tokens" must be a list of ids', path=path, line=number, key=key)
        if tokens and max(map(abs, tokens)) > _MOST_ID:
            most = str(max(tokens, key=abs))
            raise InputError(f"holds token id {most[:30]}", path=path, line=number, key=key)
        ids = np.asarray(tokens, np.int64)
        yield Text(corpus.name, _name(row, number), None, ids, _kept(row, corpus))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read as UTF-8 text ({error})", path=path) from None


def _rows(path: Path, corpus: Corpus) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows with their lines, or of a ``.json`` file's list with their numbers; null is no row."""
    text = _read(path)
    rows: Iterator[tuple[int, Any]]
    if path.suffix == ".json":
        found = _json(text, path, None)
        rows = iter(enumerate(found if isinstance(found, list) else [found], 1))
    else:  # not splitlines(): U+2028 and the like may stand inside a JSON string
        lines = enumerate(text.split("\n"), 1)
        rows = ((n, _json(line, path, n)) for n, line in lines if line.strip())
    for number, row in rows:
        if row is None:
            continue
        if not isinstance(row, dict):
            raise InputError(
                f"must be an object (got {type(row).__name__})",
                path=path,
                line=number,
                key=f"corpora.{corpus.name}",
            )
        yield number, row


def _json(text: str, path: Path, line: int | None) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise InputError("nested too deep", path=path, line=line) from None
    except ValueError as error:
        raise InputError(f"not JSON ({error})", path=path, line=line) from None


_READERS: dict[str, Callable[[Corpus], Iterator[Text]]] = {
    "python": _read_python,
    "hub": _read_hub,
    "files": _read_files,
    "tokens": _read_tokens,
}
