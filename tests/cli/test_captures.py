"""What a person sees on terminals of 80x24, 120x34 and 40x10 is what somebody has looked at.

`python -m tests.support.captures` writes the expected texts again.
"""

from __future__ import annotations

import pytest

from tests.support.captures import FOLDER, captures_of_moments, captures_of_programs


def expected(name: str) -> str:
    return (FOLDER / f"{name}.txt").read_text(encoding="utf-8")


def test_moments_of_a_run_are_shown_as_expected() -> None:
    seen = dict(captures_of_moments())
    assert seen == {name: expected(name) for name in seen}


@pytest.mark.recorded  # an older data plane lacks kinds of objects, which is reported
def test_programs_end_as_expected() -> None:
    seen = dict(captures_of_programs())
    assert seen == {name: expected(name) for name in seen}
