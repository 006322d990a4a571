"""The gateway as `punctual serve` runs it, HAProxy in front, over variants that are made already.

Run as `python -m loadtests.peers.gateway_server JOB`, where JOB is a file that `write_job` wrote.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from deployments.observing import OFF
from deployments.serve import serving
from gateway.catalogs.catalog import Catalog


class Job(BaseModel):
    """What to serve, and where: a catalog, the folder of each checkpoint's variant, a port on loopback.

    `access_log` is a file, or `off`.
    """

    model_config = ConfigDict(frozen=True)

    catalog: Catalog
    variants: dict[str, Path]
    port: int
    access_log: str = OFF


def write_job(path: Path, catalog: Catalog, variants: Mapping[str, Path], port: int, access_log: str = OFF) -> None:
    """Writes the job for this program to read."""
    absolute = {name: folder.absolute() for name, folder in variants.items()}
    job = Job(catalog=catalog, variants=absolute, port=port, access_log=access_log)
    path.write_text(job.model_dump_json(), encoding="utf-8")


if __name__ == "__main__":
    job = Job.model_validate_json(Path(sys.argv[1]).read_bytes())
    serving.serve(
        job.catalog, job.variants, "127.0.0.1", job.port, lambda what: print(what, file=sys.stderr), job.access_log
    )
