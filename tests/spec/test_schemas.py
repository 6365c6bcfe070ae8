"""JSON Schemas: those that ship are fresh, and take what ships."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml

from evalharness.errors import InputError
from evalharness.spec.schemas import schema_text, schemas

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = {
    "suite": sorted((ROOT / "suites").glob("*.yaml")),
    "policy": sorted((ROOT / "gates").glob("*.yaml")),
    "spec": sorted((ROOT / "suites" / "demo").glob("*.yaml")),
}


@pytest.mark.parametrize("kind", ["spec", "suite", "policy", "result", "combined"])
def test_the_stored_schemas_are_those_of_the_code(kind: str) -> None:
    """`make schemas` writes them."""
    assert (ROOT / "schemas" / f"{kind}.json").read_text() == schema_text(kind)


@pytest.mark.parametrize(
    ("kind", "file"), [(k, f) for k, files in SHIPPED.items() for f in files], ids=str
)
def test_every_file_that_ships_fits_its_schema_and_names_it(kind: str, file: Path) -> None:
    """So that an editor completes and checks it."""
    text = file.read_text()
    jsonschema.validate(yaml.safe_load(text), schemas()[kind])
    first = text.splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=")
    assert (file.parent / first.partition("=")[2]).resolve() == ROOT / "schemas" / f"{kind}.json"


def test_an_unknown_kind_suggests_the_nearest() -> None:
    """Known kinds are few."""
    with pytest.raises(InputError, match="Did you mean 'policy'"):
        schema_text("polcy")
