"""Where a run reads, works and writes, and what it resumes of an earlier run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from batchlight.config import BATCH_SIZE, JobConfig, Method
from batchlight.engine import Engine, make_engine
from batchlight.errors import UsageError
from batchlight.fingerprint import Fingerprint
from batchlight.output.plan import Plan
from batchlight.output.state import OutputState
from batchlight.output.summary import require_own
from batchlight.planning.columns import refuse_unknown_columns
from batchlight.planning.listing import InputSet, open_inputs
from batchlight.storage import Location, Storage
from batchlight.storage.folders import require_possible
from batchlight.storage.pacing import paced


def open_places(config: JobConfig) -> tuple[InputSet, Location]:
    """The input and the output.

    Raises ``UsageError`` if they overlap or cannot be used, or if a named column does not exist,
    and ``StorageError``.
    """
    inputs = open_inputs(config)
    output = Location.parse(config.output) if config.output else inputs.default_output()
    if output.encloses(inputs.root):
        raise UsageError(
            f"the output {output} would contain the input {inputs.root}; choose another --output"
        )
    if inputs.would_lose(output):
        raise UsageError(
            f"the output {output} contains images of the input, which would then be left "
            "out; choose another --output"
        )
    if not output.remote:
        require_possible(output.path)
    inputs = replace(inputs, output=output)
    refuse_unknown_columns(inputs)
    return inputs, output


def engine_of(config: JobConfig, meanwhile: Callable[[], object] | None = None) -> Engine:
    """The workers, not started yet; ``meanwhile``: see ``RayEngine``."""
    hosts = "absgn" in config.method
    around = partial(paced, config.requests_per_second)
    where = config.workers, config.address
    return make_engine(*where, config.timeout, hosts, around, meanwhile)


def compile_for_workers(config: JobConfig) -> None:
    """Compile what most images need, which all workers on this machine then find."""
    # Not at the top: the driver of a cluster needs no kernels.
    from batchlight.worker.steps import compile_kernels

    compile_kernels(config)


def require_pace(config: JobConfig, engine: Engine) -> None:
    """Raise ``UsageError`` if each worker's share of requests is too small for its timeout."""
    limit = config.requests_per_second
    if limit is not None and limit < engine.workers:
        raise UsageError(
            f"--requests-per-second {limit:g} is less than one for each worker "
            f"({engine.workers}); give at least that, or a smaller --workers"
        )


def as_begun(config: JobConfig, state: OutputState) -> JobConfig:
    """The config of a run on an output that may predate ``--batch-size auto``.

    The default used to be 64, so an output with batches of 64 is continued in batches of 64.
    """
    plan = state.plan
    begun = state.to_go_on_with
    starts_anew = config.overwrite and not (begun and begun.overwrite)
    if plan is None or starts_anew or config.batch_size != "auto":
        return config
    sizes = {f.parameters.get("batch-size") for f in plan.fingerprints.values()}
    return config.model_copy(update={"batch_size": BATCH_SIZE}) if BATCH_SIZE in sizes else config


def require_options_of(plan: Plan, config: JobConfig, output: Location) -> None:
    """Raise ``UsageError`` if a stored plan cannot be finished with these options."""
    left = [f"--method {method}" for method in plan.methods if method not in config.method]
    if plan.counts.todo_others and not config.copy_others:
        left.append("--copy-others")
    if left:
        raise UsageError(
            f"{output} contains an unfinished run that also needs {left[0]}; "
            "give the same options as before, or redo everything with --overwrite"
        )


def plan_to_finish(
    config: JobConfig,
    fingerprints: Mapping[Method, Fingerprint],
    inputs: InputSet,
    output: Location,
    storage: Storage,
    state: OutputState,
) -> Plan | None:
    """The stored plan that a run finishes before it lists anew, if there is one.

    Raises ``UsageError`` if the run would mix its results with those of another job, or overwrite
    files that batchlight did not write.
    """
    plan = state.plan
    if plan is None:
        if not config.overwrite:
            require_own(storage, output, config.method)
        return None
    root = str(inputs.root)
    if config.overwrite:
        same = all(plan.fingerprints.get(m) == f for m, f in fingerprints.items())
        if not (plan.overwrite and plan.root == root and same):
            return None
    for method, fingerprint in fingerprints.items():
        earlier = plan.fingerprints.get(method)
        changes = fingerprint.changes_since(earlier) if earlier else []
        if changes:
            raise UsageError(
                f"{output} was made with other parameters ({', '.join(changes)}); "
                "give the same ones, choose another --output, or redo everything with --overwrite"
            )
    if plan.root != root:
        raise UsageError(
            f"{output} holds the images of {plan.root}, not of {root}; "
            "choose another --output, or redo everything with --overwrite"
        )
    return state.to_go_on_with
