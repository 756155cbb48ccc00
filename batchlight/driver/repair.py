"""Redoes exactly what ``verify`` finds wrong, to the same bytes.

An output depends on its input and on the light of its batch, and both are recorded. So a bad output
is redone with the recorded light; if the records themselves are lost, the stored plan tells which
images each batch had, and analysing them gives its light again; if one of them is missing, the
light would differ, so nothing is changed. A file of records is replaced only when all of its rows
exist, so a repair that dies has changed nothing but outputs, which the next repair finds correct.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import (
    AsyncIterator,
    Callable,
    Container,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import reduce
from operator import and_
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from batchlight.absgn.loading import packaged_model, weights_of
from batchlight.config import JobConfig, Method
from batchlight.driver.batches import BatchRunner, context_of
from batchlight.driver.gone import first_gone
from batchlight.driver.network import fingerprints_of, model_of, serve
from batchlight.driver.places import engine_of
from batchlight.driver.verify import Checker, RecordFile, Verification
from batchlight.engine import Engine, Service, window
from batchlight.errors import ErrorCode, UsageError
from batchlight.host.signals import Interrupt
from batchlight.options import make_config
from batchlight.output.fence import FencedStorage
from batchlight.output.inputs import Batch
from batchlight.output.layout import is_part
from batchlight.output.lock import Lock, new_run_id, while_held
from batchlight.output.plan import Plan
from batchlight.output.recordfiles import DamagedRecordsError, read_records, to_parquet
from batchlight.output.records import (
    KEY,
    STABLE,
    UNIT,
    Record,
    as_table,
    as_units,
    joined,
    keys_of,
    without,
)
from batchlight.output.state import OutputState
from batchlight.output.status import open_output
from batchlight.planning.listing import InputSet, open_inputs
from batchlight.storage import EVERYONE, Location, Storage
from batchlight.worker.comparing import Key, Problem
from batchlight.worker.ending import Redone

_NOT_OPTIONS = ("method", "algorithm", "weights")
"""Fingerprint entries that are not options or, like weights, are stored only as a hash."""


@dataclass(frozen=True)
class RepairOptions:
    """Where a repair works, and with what; never taken from what the output says about it."""

    input: str | os.PathLike[str] | None = None
    """The input given to the run; without it, nothing is read again."""
    follow_links: bool = False
    copy_others: bool = False
    workers: int | None = None
    address: str | None = None
    weights: str | None = None
    """Weights of outputs that were not made with those that come with batchlight."""


def repair(
    output: str | os.PathLike[str],
    options: RepairOptions = RepairOptions(),
    *,
    on_problem: Callable[[Problem], object] = lambda problem: None,
    on_progress: Callable[[Verification], object] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Verification:
    """Verify an output and redo what is missing or differs; as ``batchlight verify --repair``.

    ``on_problem`` is called with each problem, ``on_progress`` with what was compared so far, and
    ``say`` with what is being done or waited for.

    Raises ``LockedError`` while a run works on it, and whatever a run raises.
    """
    output = os.fspath(output)
    storage = open_output(output)
    interrupt = Interrupt(say)
    result = Verification(output)
    with Lock(storage, output, new_run_id()) as lock, interrupt.caught():
        fenced = FencedStorage(storage, lock.require)
        repairer = _Repairer(fenced, Location.parse(output), lock, options, interrupt)
        checker = Checker(fenced, result, on_progress)

        async def repair_all() -> None:
            files = checker.files()
            try:
                while (file := await asyncio.to_thread(next, files, None)) is not None:
                    for problem in await repairer.repaired(file) if file.problems else ():
                        result.count(problem)
                        on_problem(problem)
            finally:
                checker.stop()

        interrupt.run(while_held(lock, repair_all()))
    return result


@dataclass(frozen=True)
class _Lost:
    """What has to be redone in one batch."""

    batch: Batch
    pairs: frozenset[tuple[str, Method]]
    """Input and method of the lost rows."""
    lights: Mapping[str, float | None] | None = None
    """The batch's recorded light by method, if any."""

    @classmethod
    def of(
        cls, batch: Batch, keys: Container[Key], lights: Mapping[str, float | None] | None = None
    ) -> _Lost:
        """The pairs of a batch that are among ``keys``."""
        pairs = ((item, method) for item in batch.inputs for method in batch.methods)
        found = frozenset((i.path, m) for i, m in pairs if (i.key, m) in keys)
        return cls(batch, found, lights)


class _Repairer:
    """Redoes the pairs of one file of records after another."""

    def __init__(
        self,
        storage: Storage,
        output: Location,
        lock: Lock,
        options: RepairOptions,
        interrupt: Interrupt,
    ) -> None:
        self._storage = storage
        self._output = output
        self._lock = lock
        self._options = options
        self._interrupt = interrupt
        self._inputs: InputSet | None = None
        self._engine: Engine | None = None
        self._service: Service | None = None

    async def repaired(self, file: RecordFile) -> list[Problem]:
        """The problems of a file, marked as repaired where they were."""
        plan, lost = await asyncio.to_thread(self._look_up, file)
        if file.table is None:
            batches = [some.batch for some in lost]
            reason = await asyncio.to_thread(first_gone, self._opened_inputs(plan), batches)
            if reason is not None:
                return [_outcome(problem, reason) for problem in file.problems]
        redone = await self._redo(plan, lost) if lost else []
        return await asyncio.to_thread(self._record, file, redone)

    def _look_up(self, file: RecordFile) -> tuple[Plan, list[_Lost]]:
        """The plan of a file, and what is lost of its batches."""
        state = OutputState.load(self._storage)
        plan = state.plan_of(self._storage, file.chunk.first)
        data_set = self._opened_inputs(plan).data_set
        batches = [data_set.vetted(b) for b in plan.batches_of(self._storage, file.chunk)]
        if file.table is None:
            # The old rows for a part's pairs are about to be removed anyway.
            others = [] if is_part(file.path) else state.record_files
            lost = self._lost_with_records(batches, [p for p in others if p != file.path])
        else:
            lost = _lost_outputs(batches, file.table, {problem.key for problem in file.problems})
        return plan, [some for some in lost if some.pairs]

    def _opened_inputs(self, plan: Plan) -> InputSet:
        """The ``--input`` opened. Raises ``UsageError`` if the plan was made for another one."""
        if self._options.input is None:
            raise UsageError(
                f"to repair {self._output}, its input must be named: batchlight verify OUTPUT "
                f"--repair --input URI (the output says that it was {plan.root})"
            )
        if self._inputs is None:
            self._inputs = open_inputs(
                make_config(
                    JobConfig,
                    {
                        name: getattr(self._options, name)
                        for name in ("input", "follow_links", "copy_others")
                    },
                )
            )
        if plan.root != str(self._inputs.root):
            raise UsageError(
                f"{self._output} holds the images of {plan.root}, not of {self._inputs.root}; "
                "give the --input of that run"
            )
        return self._inputs

    def _record(self, file: RecordFile, redone: Sequence[Redone]) -> list[Problem]:
        """Replace the old rows of what was redone with the new ones."""
        table = file.table
        records = [record for done in redone for record in done.records]
        permissions = reduce(and_, (done.permissions for done in redone), EVERYONE)
        if table is None:
            reason = _vanished_meanwhile(records)
            if reason is None:
                self._replace(file.path, as_table(records), permissions)
            return [_outcome(problem, reason) for problem in file.problems]
        # A written container holds its failed images too.
        made = as_table(r for r in records if r.status != "failed" or r.container_output_sha256)
        is_old = pc.is_in(keys_of(as_units(table)), keys_of(as_units(made)))
        if not joined([table.filter(is_old)]).select(STABLE).equals(made.select(STABLE)):
            permissions &= self._storage.permissions(file.path)
            rows = joined([table.filter(pc.invert(is_old)), made])
            self._replace(file.path, rows, permissions)
        reasons: dict[Key, str | None] = {
            (r.input, r.method): r.error for r in records if r.status == "failed"
        }
        return [_outcome(problem, reasons.get(problem.key)) for problem in file.problems]

    def _lost_with_records(
        self, batches: Sequence[Batch], others: Iterable[str]
    ) -> Iterator[_Lost]:
        """What lost its rows: all pairs of the batches that no other file has."""
        pairs = [(i.key, m) for batch in batches for i in batch.inputs for m in batch.methods]
        missing = pa.table(dict(zip(KEY, map(list, zip(*pairs, strict=True)), strict=True)))
        for path in others:
            with suppress(DamagedRecordsError):
                missing = without(missing, as_units(read_records(self._storage, path, UNIT)))
        keys = set(zip(*(missing[name].to_pylist() for name in KEY), strict=True))
        for batch in batches:
            yield _Lost.of(batch, keys)

    async def _redo(self, plan: Plan, lost: Sequence[_Lost]) -> list[Redone]:
        methods = {method for some in lost for _, method in some.pairs}
        config = self._config(plan, methods)
        model = model_of(config, weights_of(config), lambda: self._started(config))
        fingerprints = fingerprints_of(config, model)
        for method in methods:
            if changes := fingerprints[method].changes_since(plan.fingerprints[method]):
                raise UsageError(
                    f"the {method} outputs cannot be repaired, since they were made with other "
                    f"parameters ({', '.join(changes)}); give --weights if the weights differ, "
                    "otherwise redo everything with --overwrite"
                )
        where = self._opened_inputs(plan), self._output, self._lock
        context = context_of(config, *where, fingerprints, model)
        engine = self._started(config)
        if model is not None and self._service is None:
            images = sum(method == "absgn" for some in lost for _, method in some.pairs)
            self._service = await serve(engine, config, model, images)
        runner = BatchRunner(engine, context, self._service)

        async def jobs() -> AsyncIterator[Coroutine[Any, Any, Redone]]:
            for some in lost:
                yield runner.redo(some.batch, some.pairs, some.lights)

        return [done async for done in window(jobs(), engine.window)]

    def _config(self, plan: Plan, methods: Iterable[Method]) -> JobConfig:
        """The options that determined the pixels of a plan, plus where this repair works."""
        options = self._options
        values: dict[str, Any] = {"workers": options.workers, "address": options.address}
        values |= plan.member_rules
        for method in methods:
            made_with = plan.fingerprints[method].options
            values |= {
                name: made_with[name] for name in _options_that_decide(method) if name in made_with
            }
            if method == "absgn":
                values["weights"] = options.weights
                values["model"] = packaged_model(str(made_with.get("weights")))
        return make_config(
            JobConfig, {**values, "input": self._options.input, "method": tuple(methods)}
        )

    def _started(self, config: JobConfig) -> Engine:
        if self._engine is None:
            engine = engine_of(config)
            self._engine = self._interrupt.entered(engine)
        return self._engine

    def _replace(self, path: str, table: pa.Table, permissions: int) -> None:
        if table.num_rows:
            self._storage.write(path, to_parquet(table, path), permissions)
        else:
            self._storage.delete(path)


def _options_that_decide(method: Method) -> set[str]:
    """Options that may be in a fingerprint; any others in it could decide where code runs."""
    all_there_are = JobConfig(input="-").fingerprint(method, {"precision": ""}).options
    return set(all_there_are).difference(_NOT_OPTIONS)


def _lost_outputs(batches: Iterable[Batch], table: pa.Table, bad: set[Key]) -> Iterator[_Lost]:
    """What lost its outputs, with the recorded light of its batch."""
    rows = defaultdict(list)
    columns = [*UNIT, "batch", "batch_atmospheric_light"]
    for row in table.select(columns).to_pylist():
        if row["container"] is not None:
            if (row["container"], row["method"]) in bad:
                rows[row["batch"]].append({**row, "input": f"{row['container']}/"})
        elif (row["input"], row["method"]) in bad:
            rows[row["batch"]].append(row)
    for batch in batches:
        mine = rows[batch.number]
        keys = {(row["input"], row["method"]) for row in mine}
        lights = {row["method"]: row["batch_atmospheric_light"] for row in mine}
        yield _Lost.of(batch, keys, lights)


def _vanished_meanwhile(records: Iterable[Record]) -> str | None:
    """Why these rows are not those that were lost, if an image could be read only then."""
    # One without a size could not be read when it was planned either.
    gone = (ErrorCode.MISSING, ErrorCode.UNREADABLE)
    of = (r for r in records if r.error_code in gone and r.input_bytes is not None)
    return next((f"{r.input}: {r.error}" for r in of), None)


def _outcome(problem: Problem, reason: str | None) -> Problem:
    if reason is None:
        return replace(problem, repaired=True)
    return replace(problem, detail=f"{problem.detail}, and cannot be regenerated: {reason}")
