"""Which jobs may start: every graph ends, whatever happens to its jobs."""

import random

from hypothesis import given
from hypothesis import strategies as st

from broker.decisions.graph import Node, RunState, advance, run_state
from schemas.life import FINAL_JOB_STATES, JobState

OUTCOMES = (JobState.SUCCEEDED, JobState.FAILED, JobState.ERRORED, JobState.CANCELLED)


def waiting(name: str, *needs: str) -> Node:
    return Node(name, needs, JobState.WAITING)


def test_what_needs_nothing_is_ready_and_the_rest_is_blocked_by_name() -> None:
    progress = advance([waiting("a"), waiting("b", "a"), waiting("c", "a", "b")])
    assert progress.ready == ("a",)
    assert progress.blocked == {"b": ("a",), "c": ("a", "b")}


def test_a_skip_reaches_everything_behind_it_at_once() -> None:
    progress = advance([Node("a", (), JobState.FAILED), waiting("c", "b"), waiting("b", "a"), waiting("d", "c")])
    assert progress.skipped == {"b": "a", "c": "b", "d": "c"}
    assert progress.ready == ()


def test_a_job_with_one_need_running_and_one_failed_is_skipped_already() -> None:
    nodes = [Node("a", (), JobState.RUNNING), Node("b", (), JobState.FAILED), waiting("c", "a", "b")]
    assert advance(nodes).skipped == {"c": "b"}


def test_a_run_is_as_bad_as_its_worst_job() -> None:
    assert run_state([JobState.SUCCEEDED, JobState.RUNNING, JobState.FAILED]) is RunState.RUNNING
    assert run_state([JobState.ERRORED, JobState.FAILED, JobState.CANCELLED]) is RunState.FAILED
    assert run_state([JobState.ERRORED, JobState.CANCELLED]) is RunState.ERRORED
    assert run_state([JobState.SUCCEEDED, JobState.CANCELLED, JobState.SKIPPED]) is RunState.CANCELLED
    assert run_state([JobState.SUCCEEDED]) is RunState.SUCCEEDED


@st.composite
def graphs(draw: st.DrawFn) -> list[Node]:
    """Any acyclic graph, its jobs in any order."""
    count = draw(st.integers(1, 12))
    nodes = [
        waiting(f"j{index}", *draw(st.sets(st.sampled_from([f"j{n}" for n in range(index)]))) if index else ())
        for index in range(count)
    ]
    return draw(st.permutations(nodes))


@given(graph=graphs(), seed=st.integers())
def test_every_job_reaches_a_final_state_for_any_outcomes(graph: list[Node], seed: int) -> None:
    chance, states, started = random.Random(seed), {node.name: node.state for node in graph}, set()
    for _ in range(2 * len(graph) + 1):
        progress = advance(Node(node.name, node.needs, states[node.name]) for node in graph)
        states |= dict.fromkeys(progress.skipped, JobState.SKIPPED)
        for name in progress.ready:
            assert name not in started
            started.add(name)
            states[name] = chance.choice(OUTCOMES)
    assert set(states.values()) <= FINAL_JOB_STATES
    for node in graph:
        if node.name in started:
            assert all(states[need] is JobState.SUCCEEDED for need in node.needs)
