"""Whether two sides that read tokens of their own can both be scored; asked before either loads."""

from __future__ import annotations

from evalharness.compat.silence import quiet
from evalharness.data import documents
from evalharness.data.windows import cut
from evalharness.engines.registry import find_model
from evalharness.workflow.plan import Job

ANY_ID = 1 << 62  # the embedding's rows are known once the weights are


def check_own_tokens(job: Job) -> list[str]:
    """Raise `InputError` where nothing of a corpus is long enough for both; say what is not.

    Where an engine alone knows a tokenizer, it is asked once the model is loaded.
    """
    specs = (job.reference, job.candidate)
    if job.suite.tokenizers == "same" or not job.texts:
        return []
    if any(find_model(spec).kind == "engine" for spec in specs):
        return []
    with quiet():
        from evalharness.engines.transformers import load_tokenizer
        from evalharness.pair.texts.two_tokenizers import left_out, read_by_both

        ours, theirs = (load_tokenizer(spec, find_model(spec)) for spec in specs)
        read = documents.tokenize(job.texts, job.suite, ours, ANY_ID)
        found = read_by_both(
            read,
            cut(read, job.suite, documents.bos_token(ours)),
            job.texts,
            job.suite,
            name=job.candidate.name,
            tokenizer=theirs,
            vocab_size=ANY_ID,
        )
    return left_out(read, found, job.candidate.name)
