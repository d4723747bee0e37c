"""A real server of the S3 protocol for the tests that need one, on a free port of this machine.

Here: the server, and a bucket of one's own on it. Not here: what is read from it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx
import pytest
from pyarrow import fs

KEYS = {"AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": "secret-of-someone"}


@dataclass(frozen=True)
class Bucket:
    """`endpoint`: http://127.0.0.1:port; `name`: of an empty bucket there."""

    endpoint: str
    name: str

    def put(self, key: str, content: bytes) -> str:
        """Put an object, and give its URL."""
        with self._client().open_output_stream(f"{self.name}/{key}", compression=None) as out:
            out.write(content)
        return f"s3://{self.name}/{key}"

    def make(self) -> None:
        self._client().create_dir(self.name)

    def check_keys(self, check: bool) -> None:
        """Whether the server asks who someone is; nobody is known to it."""
        httpx.post(
            f"{self.endpoint}/moto-api/reset-auth", content="0" if check else "inf"
        ).raise_for_status()

    def _client(self) -> fs.S3FileSystem:
        return fs.S3FileSystem(
            access_key=KEYS["AWS_ACCESS_KEY_ID"],
            secret_key=KEYS["AWS_SECRET_ACCESS_KEY"],
            region="us-east-1",
            endpoint_override=self.endpoint,
            allow_bucket_creation=True,
        )


@pytest.fixture(scope="session")
def object_storage() -> Iterator[Callable[[], Bucket]]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    numbers = itertools.count(1)
    yield lambda: Bucket(f"http://{host}:{port}", f"books-{next(numbers)}")
    server.stop()


@pytest.fixture
def bucket(object_storage: Callable[[], Bucket], monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty bucket that the environment gives access to."""
    found = object_storage()
    found.make()
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", found.endpoint)
    return found
