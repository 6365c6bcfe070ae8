"""Models: find them, load them, quantise them for a what-if, and measure what they are.

resolve.py       where a model is, without opening it   headers.py  the first bytes of its files
load.py          spec in, LoadedModel out; the registry of backends
transformers_.py the one backend                        hub.py, gguf_.py, quantizers.py,
                                                        adapter.py, memory.py, failures.py
simulate.py      round-to-nearest fake quantisation of weights
manifest.py      what is compressed, measured           storage.py, grid.py, fingerprint.py
quiet.py         silence for chatty libraries; what they said is kept

from evalharness.models.resolve import resolve   # cheap: neither torch nor transformers
from evalharness.models.load import load         # imports them when it runs
"""
