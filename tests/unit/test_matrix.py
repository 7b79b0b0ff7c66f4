"""SECURITY.md holds the matrix that the packet tests demand, no more and no less."""

from __future__ import annotations

from tests.netns import matrix


def test_the_matrix_is_the_tests() -> None:
    document = matrix.DOCUMENT.read_text()
    made = matrix.table(matrix.demanded, lambda case: bool(case.bites))
    assert matrix.replace(document, made) == document, "run: python3 -m tests.netns.matrix"
    assert "GETS THROUGH" not in made
    assert f"| {matrix.STOPPED} |" in made
