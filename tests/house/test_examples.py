import re
from pathlib import Path

import pytest

from hil.bench.scenario import load, shipped

ROOT = Path(__file__).parents[2]


def test_the_scenario_in_the_readme_is_the_example_file():
    (block,) = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block == (ROOT / "examples" / "three.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.toml")), ids=lambda path: path.name)
def test_every_example_loads(path):
    load(str(path))


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_scenario_loads_under_its_own_name(name):
    assert load(name).name == name


def test_links_in_the_documents_lead_somewhere():
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"
