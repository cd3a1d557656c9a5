"""Strict YAML: what kubectl reads, with every fault placed."""

import pytest

from trainer.contract.documents import load_documents


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("1e-6", 1e-6),
        ("1.0e-6", 1e-6),
        ("5.", 5.0),
        (".5", 0.5),
        ("yes", True),
        ("off", False),
        ("y", True),
        ("2020-01-01", "2020-01-01"),
        ("1:30", "1:30"),
        ("1,-1,4", "1,-1,4"),
        ("010", 8),
        ("0x10", 16),
        ("1_000", 1000),
        ("089", 89.0),
        ("~", None),
        ("", None),
        ('"8"', "8"),
        ("auto", "auto"),
        ("-.inf", float("-inf")),
    ],
)
def test_scalars_are_those_of_kubectl(scalar: str, value: object) -> None:
    """A plain scalar becomes the type that sigs.k8s.io/yaml gives it, so that grpoctl and kubectl send the same job."""
    (document,) = load_documents(f"a: {scalar}\n", "f")
    assert document.data == {"a": value}
    assert type(document.data["a"]) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1\n", "job.yaml:2:1: not YAML: did not find expected ',' or ']'; correct the file at this place"),
        ("a:\tb: 1\n", "job.yaml:1:5: not YAML: mapping values are not allowed in this context; correct the file"),
        ("a: *b\n", "job.yaml:1:4: not YAML: found undefined alias; correct the file at this place"),
        ("a: &x [*x]\n", "job.yaml:1:4: an alias stands inside the value that it names; spell the values out"),
        ("? [1]\n: 2\n", "job.yaml:1:3: a key must be text, not a list or a mapping; quote it"),
        ("a: !!python/object:os.x 1", "job.yaml:1:4: not YAML: could not determine a constructor for the tag"),
        ("a: \x00", "job.yaml: not YAML: character U+0000 is not allowed; correct the file at this place"),
        ("[" * 100 + "]" * 100, "job.yaml:1:66: nested more than 64 levels deep; spell the values out"),
    ],
)
def test_a_malformed_document_is_a_violation_with_line_and_column(text: str, message: str) -> None:
    """Bad YAML raises nothing: it is one violation of rule yaml that says where."""
    (document,) = load_documents(text, "job.yaml")
    (violation,) = document.violations
    assert (violation.rule, document.data) == ("yaml", None)
    assert violation.message.startswith(message)


def test_aliases_that_explode_are_refused() -> None:
    """A few lines of nested aliases that stand for a billion values cost neither memory nor time."""
    bomb = "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))
    (document,) = load_documents(bomb, "f")
    assert [violation.rule for violation in document.violations] == ["yaml"]


def test_every_repeated_key_is_told_with_both_lines() -> None:
    """A key that stands twice is refused, at any depth, whatever its value."""
    (document,) = load_documents("a: 1\nb:\n  c: 1\n  c: 1\na: 2\n", "job.yaml")
    assert document.data is None
    assert [(found.rule, str(found)) for found in document.violations] == [
        ("duplicate-key", 'b.c: job.yaml:4:3: "c" stands on line 3 already; keep one of them'),
        ("duplicate-key", 'a: job.yaml:5:1: "a" stands on line 1 already; keep one of them'),
    ]


def test_a_merge_key_is_no_repeated_key() -> None:
    """Anchors and merges work as in any YAML, and the own key wins."""
    (document,) = load_documents("a: &x {b: 1, c: 1}\nd: {<<: *x, b: 2}\n", "f")
    assert document.data["d"] == {"b": 2, "c": 1}


def test_keys_that_are_no_text_become_text() -> None:
    """As in JSON, 1 and true are the keys "1" and "true", and neither swallows the other."""
    (document,) = load_documents("1: a\ntrue: b\n", "f")
    assert document.data == {"1": "a", "true": "b"}


def test_documents_come_in_order_and_those_before_a_fault_are_kept() -> None:
    """Each document has its index, an empty one has no data, and bad syntax ends the list."""
    documents = load_documents("a: 1\n---\n---\nb: [\n", "f")
    assert [(document.index, document.data) for document in documents] == [(0, {"a": 1}), (1, None), (2, None)]
    assert [len(document.violations) for document in documents] == [0, 0, 1]
    assert load_documents("", "f") == []
