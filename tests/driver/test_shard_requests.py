"""What a shard costs on an object store: requests, whatever it holds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

import batchlight
from tests.support.faulty_proxy import FaultPlan, faulty_proxy
from tests.support.helpers import tree
from tests.support.s3_server import S3Server
from tests.support.tars import samples, write_tar

SHARDS = 3, 8


def requests_of_a_run(s3: S3Server, name: str) -> Counter[str]:
    plan = FaultPlan()
    with faulty_proxy(s3.endpoint, plan) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setattr("batchlight.report.write_report", lambda *_: None)
        patch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        source, out = f"s3://data/{name}", f"s3://data/{name}-bright"
        batchlight.run(batchlight.JobConfig(input=source, output=out, workers=0, progress="off"))
    return Counter(plan.requests)


def test_requests_per_shard(tmp_path: Path, s3: S3Server) -> None:
    sent = []
    for count in SHARDS:
        for number in range(count):
            write_tar(tmp_path / f"{count}/{number}.tar", samples(20))
        s3.put(tree(tmp_path / str(count)), f"requests/{count}")
        sent.append(requests_of_a_run(s3, f"requests/{count}"))
    more = SHARDS[1] - SHARDS[0]
    each = {kind: (sent[1][kind] - sent[0][kind]) / more for kind in sent[1]}
    # To read: size, bytes. To write: begin, one part, end. Beside it, the record is written, read,
    # and deleted when it has moved; all else are looks at the locks.
    assert each == {"HEAD": 1, "GET": 5, "PUT": 2, "POST": 3}
