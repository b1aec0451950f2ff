"""Pipelines: what is right becomes a graph, what is wrong is shown with its line, column and remedy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import limits, pipeline
from schemas.pipeline import Pipeline, parse_pipeline

GOOD = b"""\
name: demo
store: bettina.example
env: {LANG: C.UTF-8, PYTHON: 3.10}
jobs:
  wheel:
    toolchain: python
    labels: [arch=x86_64]
    timeout: 1h30m
    resources: {memory: 512MiB, cores: 2}
    steps:
      - python -m build
      - name: look
        run: ls dist
    artifacts: {wheel: dist/*.whl}
  test:
    needs: wheel
    inputs: [wheel.wheel]
    env: {PYTHON: "3.11"}
    steps: [pytest]
"""


def problems(text: bytes) -> list[str]:
    result = parse_pipeline(text)
    assert not isinstance(result, Pipeline)
    return [str(problem) for problem in result]


def changed(old: bytes, new: bytes) -> bytes:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


def test_a_pipeline_becomes_a_graph_with_units_and_defaults() -> None:
    result = parse_pipeline(GOOD)
    assert isinstance(result, Pipeline)
    wheel, test = result.jobs["wheel"], result.jobs["test"]
    assert wheel.timeout == 5400
    assert wheel.resources.memory == 512 * limits.MIB
    assert wheel.toolchain == ("python",)
    assert [step.title for step in wheel.steps] == ["python -m build", "look"]
    assert wheel.artifacts == {"wheel": ("dist/*.whl",)}
    assert test.needs == ("wheel",)
    assert result.env_of("wheel")["PYTHON"] == "3.10"
    assert result.env_of("test") == {"LANG": "C.UTF-8", "PYTHON": "3.11"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", "line 1, column 1: the file is empty"),
        (b"name: [", "line 1, column 8: not YAML"),
        (b"\xff", "line 1, column 1: the file is not UTF-8 text (byte 0)"),
        (b"- a", "line 1, column 1: expected keys with values"),
        (
            changed(b"    needs: wheel\n", b"    neds: wheel\n"),
            "line 16, column 5: jobs.test.neds: `neds` is not a key",
        ),
        (
            changed(b"    needs: wheel\n", b"    needs: weel\n"),
            "line 16, column 12: jobs.test.needs.0: there is no job",
        ),
        (changed(b"    needs: wheel\n", b""), "line 16, column 14: jobs.test.inputs.0: job `test` takes `wheel.wheel`"),
        (changed(b"[wheel.wheel]", b"[wheel.tar]"), "job `wheel` makes no artifact `tar`"),
        (changed(b"1h30m", b"soon"), "line 8, column 14: jobs.wheel.timeout: expected a duration such as"),
        (changed(b"1h30m", b"48h"), "line 8, column 14: jobs.wheel.timeout"),
        (changed(b"512MiB", b"512MB"), "jobs.wheel.resources.memory: expected a size such as"),
        (changed(b"cores: 2", b"cores: two"), "jobs.wheel.resources.cores: expected a valid integer"),
        (changed(b"cores: 2", b"core: 2"), "`core` is not a key here; did you mean `cores`?"),
        (changed(b"    steps: [pytest]\n", b""), "jobs.test.steps: `steps` is missing"),
        (changed(b"[pytest]", b"[]"), "jobs.test.steps"),
        (changed(b"dist/*.whl", b"../secret"), "a path here is relative"),
        (changed(b"store: bettina.example\n", b""), "artifacts need a store"),
        (
            changed(b"  test:\n", b"  wheel:\n"),
            "line 15, column 3: jobs.wheel: `wheel` stands twice; the first one is in line 5",
        ),
        (changed(b"  test:\n", b"  Test:\n"), "line 15, column 3: jobs.Test: `Test` is not allowed here"),
        (changed(b"[pytest]", b"[!!python/name:os.system x]"), "has no meaning here"),
        (changed(b'env: {PYTHON: "3.11"}', b"env: {1A: x}"), "jobs.test.env.1A: `1A` is not allowed here"),
    ],
)
def test_a_mistake_is_shown_with_its_place_and_what_was_expected(text: bytes, expected: str) -> None:
    found = problems(text)
    assert any(expected in problem for problem in found), found


def test_all_mistakes_are_shown_at_once_in_the_order_of_the_lines() -> None:
    text = changed(b"1h30m", b"soon").replace(b"    needs: wheel\n", b"    neds: wheel\n")
    assert [problem.split(":")[0] for problem in problems(text)] == ["line 8, column 14", "line 16, column 5"]


def test_jobs_that_wait_for_each_other_are_named_in_order() -> None:
    text = changed(b"    toolchain: python\n", b"    toolchain: python\n    needs: test\n")
    assert any("these jobs wait for each other: " in problem and "→" in problem for problem in problems(text))


def test_an_alias_bomb_costs_nothing() -> None:
    bomb = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
        b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 9)) for c in range(ord("b"), ord("j"))
    )
    assert "beyond measure" in problems(bomb)[0]


def test_a_file_too_large_is_refused_before_it_is_read() -> None:
    assert "256 KiB" in problems(b"#" * (limits.PIPELINE_BYTES + 1))[0]


@given(st.binary(max_size=400))
def test_no_text_makes_the_reader_raise(text: bytes) -> None:
    assert isinstance(parse_pipeline(text), (Pipeline, tuple))


@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=3))
def test_no_damaged_pipeline_makes_the_reader_raise(position: int, noise: bytes) -> None:
    assert isinstance(parse_pipeline(GOOD[:position] + noise + GOOD[position + len(noise) :]), (Pipeline, tuple))


def test_the_published_schema_names_every_key() -> None:
    schema = pipeline.json_schema()
    assert set(schema["properties"]) == set(Pipeline.model_fields)
    assert set(schema["$defs"]["PipelineJob"]["properties"]) == set(pipeline.PipelineJob.model_fields)
