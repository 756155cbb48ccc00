"""What ``verify`` finds wrong is done again: exactly that, to the same bytes.

An output depends on its input and on the light of its batch, and both are on record. So a bad
output is made again with the recorded light; where the records themselves are lost, the stored
plan tells which images each batch had, and analysing them gives its light again. A file of
records is replaced when all of its rows are there, so a repair that dies changes nothing but
outputs, which the next one finds as they are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace

import pyarrow as pa

from batchlight.absgn.loading import weights_of
from batchlight.config import JobConfig, Method
from batchlight.driver.batches import BatchRunner
from batchlight.driver.network import fingerprints_of, model_of, serve
from batchlight.driver.verify import Key, Problem, RecordFile, Verification, checked_files
from batchlight.engine import Engine, make_engine, window
from batchlight.engine.base import Service
from batchlight.errors import UsageError
from batchlight.host.signals import Interrupt
from batchlight.output.inputs import Batch
from batchlight.output.lock import Lock, new_run_id
from batchlight.output.plan import Plan, plan_of
from batchlight.output.recordfiles import (
    DamagedRecordsError,
    is_part,
    read_table,
    record_files,
    to_parquet,
)
from batchlight.output.records import KEY, STABLE, Record, as_sorted, as_table, with_new_rows
from batchlight.output.status import open_output
from batchlight.output.summary import read_summary
from batchlight.storage import Location, Storage
from batchlight.worker.steps import BatchContext

_NOT_OPTIONS = ("method", "algorithm", "weights")
"""In a fingerprint: not given as an option, or, like weights, by its hash only."""


def repair(
    output: str, on_problem: Callable[[Problem], object], say: Callable[[str], None]
) -> Verification:
    """Verify an output and redo what is missing or differs; as ``batchlight verify --repair``.

    Raises ``LockedError`` while a run works on it, and whatever a run raises.
    """
    storage = open_output(output)
    run_id = new_run_id()
    interrupt = Interrupt(say)
    result = Verification(output)
    with Lock(storage, output, run_id) as lock, interrupt.caught(), ExitStack() as exits:
        repairer = _Repairer(storage, Location.parse(output), run_id, interrupt, exits)

        async def repair_all() -> None:
            for file in checked_files(storage, result):
                lock.check()
                if not file.problems:
                    continue
                for problem in await repairer.repaired(file):
                    result.count(problem)
                    on_problem(problem)

        interrupt.run(repair_all())
    return result


@dataclass(frozen=True)
class _Lost:
    """What is to be done again of one batch."""

    batch: Batch
    keys: frozenset[Key]
    lights: Mapping[str, float | None] | None = None
    """The batch's light by method, if it is on record."""

    @property
    def pairs(self) -> set[tuple[str, Method]]:
        """Input and method of the rows that are lost."""
        return {
            (item.path, method)
            for item in self.batch.inputs
            for method in self.batch.methods
            if (item.path, method) in self.keys
        }


class _Repairer:
    """Redoes the pairs of one file of records after the other."""

    def __init__(
        self,
        storage: Storage,
        output: Location,
        run_id: str,
        interrupt: Interrupt,
        exits: ExitStack,
    ) -> None:
        self._storage = storage
        self._output = output
        self._run_id = run_id
        self._interrupt = interrupt
        self._exits = exits
        self._engine: Engine | None = None
        self._service: Service | None = None

    async def repaired(self, file: RecordFile) -> list[Problem]:
        """The problems of a file, with what became of them."""
        plan = plan_of(self._storage, file.chunk.first)
        lost = [some for some in self._lost(plan, file) if some.keys]
        records = await self._redo(plan, lost) if lost else []
        table = file.table
        if table is None:
            self._replace(file.path, as_table(records))
            return [replace(problem, repaired=True) for problem in file.problems]
        made = as_table(record for record in records if record.status == "ok")
        old = table.join(made.select(KEY), KEY, join_type="left semi")
        if not as_sorted(old).select(STABLE).equals(made.select(STABLE)):
            self._replace(file.path, with_new_rows(table, made))
        reasons: dict[Key, str | None] = {
            (r.input, r.method): r.error for r in records if r.status == "failed"
        }
        return [_outcome(problem, reasons.get(problem.key)) for problem in file.problems]

    def _lost(self, plan: Plan, file: RecordFile) -> Iterator[_Lost]:
        """What a file of records has lost, batch by batch."""
        batches = plan.batches_of(self._storage, file.chunk)
        if file.table is None:
            elsewhere: set[Key] = set()
            if not is_part(file.path):  # the old rows of a part's pairs are about to be removed
                elsewhere = self._keys_beside(file.path)
            for batch in batches:
                keys = {(item.path, method) for item in batch.inputs for method in batch.methods}
                yield _Lost(batch, frozenset(keys - elsewhere))
            return
        bad = {problem.key for problem in file.problems}
        columns = ["input", "method", "batch", "batch_atmospheric_light"]
        rows = defaultdict(list)
        for row in file.table.select(columns).to_pylist():
            if (row["input"], row["method"]) in bad:
                rows[row["batch"]].append(row)
        for batch in batches:
            mine = rows[batch.number]
            keys = {(row["input"], row["method"]) for row in mine}
            lights = {row["method"]: row["batch_atmospheric_light"] for row in mine}
            yield _Lost(batch, frozenset(keys), lights)

    def _keys_beside(self, path: str) -> set[Key]:
        """All that stands in other files of records than this one."""
        found: set[Key] = set()
        for other in record_files(self._storage):
            if other != path:
                with suppress(DamagedRecordsError):
                    table = read_table(self._storage, other, ("input", "method"))
                    found |= set(zip(*(c.to_pylist() for c in table.columns), strict=True))
        return found

    async def _redo(self, plan: Plan, lost: Sequence[_Lost]) -> list[Record]:
        methods = {method for some in lost for _, method in some.pairs}
        config = self._config(plan, methods)
        model = model_of(config, weights_of(config), lambda: self._started(config))
        fingerprints = fingerprints_of(config, model)
        for method in methods:
            if changes := fingerprints[method].changes_since(plan.fingerprints[method]):
                raise UsageError(
                    f"what {method} made here cannot be made again, since it was made with other "
                    f"parameters ({', '.join(changes)}); redo everything with --overwrite"
                )
        context = BatchContext(
            config=config,
            input=Location.parse(plan.root),
            output=self._output,
            run_id=self._run_id,
            fingerprints={method: f.digest for method, f in fingerprints.items()},
            pixels_at_once=model.pixels_at_once if model else 0,
        )
        engine = self._started(config)
        if model is not None and self._service is None:
            images = sum(method == "absgn" for some in lost for _, method in some.pairs)
            self._service = await serve(engine, config, model, images)
        runner = BatchRunner(engine, context, self._service)
        jobs = (runner.redo(some.batch, some.pairs, some.lights) for some in lost)
        return [record async for done in window(jobs, engine.window) for record in done]

    def _config(self, plan: Plan, methods: Iterable[Method]) -> JobConfig:
        """That of the last run, with what decided the pixels of this plan."""
        summary = read_summary(self._storage)
        earlier = summary.config if summary else {}
        values = {name: earlier[name] for name in JobConfig.model_fields.keys() & earlier.keys()}
        for method in methods:
            parameters = plan.fingerprints[method].parameters.items()
            values |= {n.replace("-", "_"): v for n, v in parameters if n not in _NOT_OPTIONS}
        return JobConfig(**{**values, "input": plan.root, "method": tuple(methods)})

    def _started(self, config: JobConfig) -> Engine:
        if self._engine is None:
            hosts = "absgn" in config.method
            engine = make_engine(config.workers, config.address, config.timeout, hosts)
            with self._interrupt.held():
                self._engine = self._exits.enter_context(engine)
        return self._engine

    def _replace(self, path: str, table: pa.Table) -> None:
        if table.num_rows:
            self._storage.write(path, to_parquet(table, path))
        else:
            self._storage.delete(path)


def _outcome(problem: Problem, reason: str | None) -> Problem:
    if reason is None:
        return replace(problem, repaired=True)
    return replace(problem, detail=f"{problem.detail}, and cannot be made again: {reason}")
