"""The pipeline: what a project owner writes, in YAML, and what is wrong with it (DESIGN §11).

`parse_pipeline` gives a `Pipeline` that can be run, or every problem found, each with its line and column, what was
expected, and where it helps the nearest name that exists. `json_schema` publishes the same grammar for editors.

A pipeline says what to do and with which abilities; who does it is decided by placement.
"""

import difflib
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StringConstraints, ValidationError, WithJsonSchema

from schemas import limits, yaml_marks
from schemas.ids import Label, ProviderName
from schemas.orders import EnvName, PoolLabel
from schemas.wire import Part, Script, Text, WorkspacePath
from schemas.yaml_marks import Mark, MarkedValue, Path, Problem, dotted

_DURATION = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?")
_SIZE = re.compile(r"(\d{1,9})\s*(B|KiB|MiB|GiB)")
_SIZE_UNITS = {"B": 1, "KiB": limits.KIB, "MiB": limits.MIB, "GiB": limits.GIB}


def _read_duration(value: object) -> object:
    if isinstance(value, str) and value and (match := _DURATION.fullmatch(value)):
        hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return hours * 3600 + minutes * 60 + seconds
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError("expected a duration such as `90s`, `10m` or `1h30m`")


def _read_size(value: object) -> object:
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        return int(match[1]) * _SIZE_UNITS[match[2]]
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError("expected a size such as `512MiB` or `2GiB`")


def _read_step(value: object) -> object:
    return {"run": value} if isinstance(value, str) else value


def _read_one_or_more(value: object) -> object:
    return (value,) if isinstance(value, str) else value


_ONE_OR_MORE = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
Duration = Annotated[
    int,
    Field(ge=1, le=limits.JOB_TIMEOUT_MAX_SECONDS),
    BeforeValidator(_read_duration),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": _DURATION.pattern}]}),
]
Size = Annotated[
    int,
    BeforeValidator(_read_size),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": _SIZE.pattern}]}),
]
ArtifactRef = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+\.[a-z0-9-]+$", max_length=81)]
"""`job.artifact`: an artifact of an earlier job."""


class PipelineStep(Part):
    """One script, run by `sh -eu`; a bare text is a step without a name of its own."""

    run: Script
    name: Text | None = None

    @property
    def title(self) -> str:
        first = next((line.strip() for line in self.run.splitlines() if line.strip()), "")
        return self.name or first[:80]


class PipelineResources(Part):
    """What a job reserves of a worker, and is billed for by the second."""

    cores: Annotated[int, Field(ge=1, le=1024)] = 1
    memory: Annotated[Size, Field(ge=16 * limits.MIB)] = limits.JOB_MEMORY_BYTES
    disk: Annotated[Size, Field(ge=limits.MIB)] = limits.JOB_DISK_BYTES
    processes: Annotated[int, Field(ge=8, le=100_000)] = limits.JOB_PROCESSES


class PipelineJob(Part):
    """A node of the graph: its steps, and what it needs of others."""

    steps: Annotated[
        tuple[Annotated[PipelineStep, BeforeValidator(_read_step)], ...], Field(min_length=1, max_length=limits.STEPS)
    ]
    needs: Annotated[
        tuple[Label, ...],
        Field(max_length=limits.JOBS),
        BeforeValidator(_read_one_or_more),
        WithJsonSchema(_ONE_OR_MORE),
    ] = ()
    env: Annotated[dict[EnvName, Text], Field(max_length=limits.ENV_ENTRIES)] = Field(default_factory=dict)
    labels: Annotated[tuple[PoolLabel, ...], Field(max_length=limits.LABELS)] = ()
    toolchain: Annotated[
        tuple[Label, ...], Field(max_length=8), BeforeValidator(_read_one_or_more), WithJsonSchema(_ONE_OR_MORE)
    ] = ()
    providers: Annotated[tuple[ProviderName, ...], Field(max_length=50)] = ()
    network: bool = False
    resources: PipelineResources = PipelineResources()
    timeout: Duration = limits.JOB_TIMEOUT_SECONDS
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    secrets: Annotated[tuple[EnvName, ...], Field(max_length=50)] = ()
    inputs: Annotated[tuple[ArtifactRef, ...], Field(max_length=50)] = ()
    artifacts: Annotated[
        dict[
            Label,
            Annotated[
                tuple[WorkspacePath, ...],
                Field(min_length=1, max_length=50),
                BeforeValidator(_read_one_or_more),
                WithJsonSchema(_ONE_OR_MORE),
            ],
        ],
        Field(max_length=50),
    ] = Field(default_factory=dict)


class Pipeline(Part):
    """A graph of jobs over one snapshot of sources. `store` names the provider that keeps its artifacts."""

    name: Label
    store: ProviderName | None = None
    env: Annotated[dict[EnvName, Text], Field(max_length=limits.ENV_ENTRIES)] = Field(default_factory=dict)
    jobs: Annotated[dict[Label, PipelineJob], Field(min_length=1, max_length=limits.JOBS)]

    def env_of(self, job: str) -> dict[str, str]:
        """The environment of a job: the pipeline's, and over it the job's own."""
        return {**self.env, **self.jobs[job].env}


def json_schema() -> dict[str, Any]:
    """The published JSON Schema (2020-12) of a pipeline file."""
    schema = Pipeline.model_json_schema(mode="validation")
    schema["$defs"]["PipelineJob"]["properties"]["steps"]["items"] = {
        "anyOf": [{"type": "string"}, {"$ref": "#/$defs/PipelineStep"}]
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def parse_pipeline(text: bytes) -> Pipeline | tuple[Problem, ...]:
    """Read a pipeline, or say all that is wrong with it, in the order of the lines."""
    if len(text) > limits.PIPELINE_BYTES:
        return (Problem(Mark(1, 1), "", f"the file is over {limits.PIPELINE_BYTES // limits.KIB} KiB"),)
    document = yaml_marks.read(text, _is_env_value)
    if isinstance(document, Problem):
        return (document,)
    try:
        pipeline = Pipeline.model_validate(document.value)
    except ValidationError as error:
        return _ordered(_shape_problem(document, item) for item in error.errors(include_url=False))
    return _ordered(_graph_problems(document, pipeline)) or pipeline


def _is_env_value(path: Path) -> bool:
    return len(path) >= 2 and path[-2] == "env"


def _ordered(problems: Iterator[Problem]) -> tuple[Problem, ...]:
    return tuple(sorted(set(problems), key=lambda problem: (problem.mark.line, problem.mark.column, problem.message)))


def _shape_problem(document: MarkedValue, error: Any) -> Problem:
    path: Path = tuple(part for part in error["loc"] if part != "[key]")
    is_about_key = error["type"] == "extra_forbidden" or "[key]" in error["loc"]
    mark = document.key_marks.get(path) if is_about_key else None
    return Problem(mark or document.mark_of(path), dotted(path), _explain(error, path))


_KNOWN_KEYS: dict[type[Part], tuple[str, ...]] = {
    model: tuple(model.model_fields) for model in (Pipeline, PipelineJob, PipelineStep, PipelineResources)
}


def _explain(error: Any, path: Path) -> str:
    match error["type"]:
        case "extra_forbidden":
            return f"`{path[-1]}` is not a key here{_nearest(str(path[-1]), _keys_at(path))}"
        case "missing":
            return f"`{path[-1]}` is missing"
        case "string_pattern_mismatch":
            return f"`{str(error['input'])[:80]}` is not allowed here: expected {_expected_text(path)}"
        case "value_error":
            return str(error["ctx"]["error"])
        case "model_type" | "dict_type" if path[-2:-1] == ("steps",):
            return "expected a script, or `run:` with one"
        case "model_type" | "dict_type":
            return "expected keys with values (a mapping)"
        case "too_short":
            return f"expected at least {error['ctx']['min_length']}"
        case _:
            return str(error["msg"]).replace("Input should be", "expected").replace("a valid tuple", "a list")


def _expected_text(path: Path) -> str:
    if "env" in path or "secrets" in path:
        return "a name of letters, digits and `_`, not beginning with a digit"
    if "labels" in path:
        return "`name` or `name=value`, such as `arch=x86_64`"
    if "inputs" in path:
        return "`job.artifact`"
    if "providers" in path or path[-1:] == ("store",):
        return "a provider's name, such as `alice.example`"
    return "at most 40 of a–z, 0–9 and inner hyphens"


def _keys_at(path: Path) -> tuple[str, ...]:
    match path:
        case (_,):
            return _KNOWN_KEYS[Pipeline]
        case ("jobs", _, _):
            return _KNOWN_KEYS[PipelineJob]
        case ("jobs", _, "resources", _):
            return _KNOWN_KEYS[PipelineResources]
        case _:
            return _KNOWN_KEYS[PipelineStep]


def _nearest(name: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean `{near[0]}`?" if near else f"; expected one of {', '.join(known)}"


def _graph_problems(document: MarkedValue, pipeline: Pipeline) -> Iterator[Problem]:
    names = tuple(pipeline.jobs)
    for name, job in pipeline.jobs.items():
        for index, need in enumerate(job.needs):
            if need not in pipeline.jobs:
                message = f"there is no job `{need}`{_nearest(need, names)}"
                yield _problem_at(document, ("jobs", name, "needs", index), message)
    cycle = _cycle(pipeline)
    if cycle:
        yield _problem_at(document, ("jobs", cycle[0], "needs"), f"these jobs wait for each other: {' → '.join(cycle)}")
        return
    for name, job in pipeline.jobs.items():
        for index, reference in enumerate(job.inputs):
            wrong = _input_problem(pipeline, name, reference)
            if wrong:
                yield _problem_at(document, ("jobs", name, "inputs", index), wrong)
        if (job.artifacts or job.inputs) and pipeline.store is None:
            yield _problem_at(document, ("jobs", name), "artifacts need a store: name its provider as `store:` on top")


def _problem_at(document: MarkedValue, path: Path, message: str) -> Problem:
    return Problem(document.mark_of(path), dotted(path), message)


def _cycle(pipeline: Pipeline) -> tuple[str, ...]:
    sorter = TopologicalSorter({name: set(job.needs) for name, job in pipeline.jobs.items()})
    try:
        sorter.prepare()
    except CycleError as error:
        return tuple(reversed(error.args[1]))
    return ()


def _input_problem(pipeline: Pipeline, name: str, reference: str) -> str | None:
    source, _, artifact = reference.partition(".")
    if source not in pipeline.jobs:
        return f"there is no job `{source}`{_nearest(source, tuple(pipeline.jobs))}"
    if artifact not in pipeline.jobs[source].artifacts:
        return f"job `{source}` makes no artifact `{artifact}`"
    if source not in needed_by(pipeline, name):
        return f"job `{name}` takes `{reference}` and so must name `{source}` in its `needs`"
    return None


def needed_by(pipeline: Pipeline, name: str) -> frozenset[str]:
    """All jobs that must have succeeded before `name` starts."""
    seen: set[str] = set()
    pending = list(pipeline.jobs[name].needs)
    while pending:
        need = pending.pop()
        if need not in seen and need in pipeline.jobs:
            seen.add(need)
            pending.extend(pipeline.jobs[need].needs)
    return frozenset(seen)
