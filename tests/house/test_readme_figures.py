import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from hil.bench import summary
from hil.bench.execute import execute
from hil.bench.scenario import load

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.slow
def test_the_summary_in_the_readme_is_what_the_run_prints():
    done = execute(load("three-body-12"), seed=7)
    page = Console(file=io.StringIO(), width=200)
    page.print(summary.table(done.outcome, done.title))
    page.print(summary.verdict(done.outcome))
    printed = [" ".join(re.sub("[│|]", " ", line).split()) for line in page.file.getvalue().splitlines()]
    (block,) = re.findall(r"```text\n(jobs.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    for line in block.splitlines():
        said = " ".join(line.split())
        assert any(row.endswith(said) or row == said for row in printed), f"not printed by the run: {said!r}"
