"""Pictures on their way to a model: where they may come from, decoding beside computing, batches of images."""

import asyncio
import contextvars
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from pydantic import Field

from onmodel.common.v1 import common_pb2 as pb
from onmodel.core import images
from onmodel.core.config import Config
from onmodel.core.errors import ImageError, OnModelError, UserError
from onmodel.core.images import RGB
from onmodel.core.roots import AllowedRoots

logger = logging.getLogger("ray.serve")

Prepared = TypeVar("Prepared")
Result = TypeVar("Result")


class Intake(Config):
    """What a service takes in. Part of each application's arguments in the Serve config."""

    allowed_roots: tuple[str, ...] = ()
    """Folders below which an image may be given by URI; none by default."""
    max_images_per_request: int = Field(default=1024, ge=1)
    """More are refused: a client cuts its work up, so that one caller cannot hold a replica for long."""
    decode_threads: int = Field(default=0, ge=0)
    """Threads that decode while the model runs; 0 = one a core, at most 4."""
    model_threads: int = Field(default=0, ge=0)
    """Threads of the model itself on the CPU; 0 = the cores shared among this machine's replicas."""


class Observer(Protocol):
    """Told of pictures as they come and go, in the event loop's thread."""

    def taken(self, count: int) -> None:
        """A request has brought this many."""
        ...

    def done(self, computed: int, refused: int, broken_off: int = 0) -> None:
        """So many of them are answered with a result, with an error, or not at all."""
        ...


class PictureReader:
    """Turns an Image message into an array. Reads files below the allowed roots alone."""

    def __init__(self, allowed_roots: Sequence[str]) -> None:
        advice = "send the bytes, or add its folder to allowed_roots"
        self._roots = AllowedRoots(allowed_roots, advice=advice)

    def read(self, image: pb.Image) -> RGB:
        """Decode one picture.

        Raises:
            ImageError: it cannot be decoded or its file cannot be read.
            ForbiddenError: its URI is not below an allowed root.
            UserError: it has neither bytes nor a usable URI.
        """
        source = image.WhichOneof("source")
        if source == "data":
            return images.decode(image.data)
        if source == "uri":
            return images.load(self.resolve(image.uri))
        raise UserError("image: neither data nor uri is set; send the encoded bytes")

    def resolve(self, uri: str) -> Path:
        """The file that `uri` names. Raises UserError or ForbiddenError; never says what exists outside."""
        return self._roots.file(_uri_path(uri), uri)


def _uri_path(uri: str) -> Path:
    parts = urlsplit(uri)
    if parts.scheme not in ("", "file") or parts.netloc not in ("", "localhost"):
        raise UserError(f"{uri}: only file paths and file:// URIs are read; send the bytes")
    text = unquote(parts.path) if parts.scheme else uri
    if not text.startswith("/") or "\0" in text:
        raise UserError(f"{uri}: must be an absolute path or file:// URI")
    return Path(text)


class Pipeline(Generic[Prepared, Result]):
    """Runs the images of a request through decode and model, in pieces of one batch each.

    Pieces of all requests overlap: while the model computes one, the thread pool prepares the next. At
    most three batches of prepared pictures exist at once, whatever clients send.
    """

    def __init__(
        self,
        intake: Intake,
        batch_size: int,
        prepare: Callable[[RGB], Prepared],
        compute: Callable[[list[Prepared]], Awaitable[list[Result]]],
        observer: Observer | None = None,
    ) -> None:
        self._observer = observer
        self._reader = PictureReader(intake.allowed_roots)
        self._limit = intake.max_images_per_request
        self._batch_size = batch_size
        self._prepare = prepare
        self._compute = compute
        self._threads = intake.decode_threads or min(4, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="decode")
        self._room = asyncio.Semaphore(3 * batch_size)
        self._entering = asyncio.Lock()

    async def run(self, messages: Sequence[pb.Image]) -> list[Result | OnModelError]:
        """One result or error per image, in order. Raises UserError for more images than the limit."""
        if len(messages) > self._limit:
            raise UserError(
                f"{len(messages)} images in one request; the limit is {self._limit}: send them in several requests"
            )
        pieces = [messages[at : at + self._batch_size] for at in range(0, len(messages), self._batch_size)]
        if self._observer is None:
            return await self._all(pieces)
        self._observer.taken(len(messages))
        try:
            results = await self._all(pieces)
        except BaseException:
            self._observer.done(0, 0, len(messages))
            raise
        refused = sum(isinstance(result, OnModelError) for result in results)
        self._observer.done(len(results) - refused, refused)
        return results

    async def _all(self, pieces: Sequence[Sequence[pb.Image]]) -> list[Result | OnModelError]:
        done = await asyncio.gather(*(self._piece(piece) for piece in pieces))
        return [result for piece in done for result in piece]

    async def _piece(self, messages: Sequence[pb.Image]) -> list[Result | OnModelError]:
        await self._enter(len(messages))
        try:
            loop = asyncio.get_running_loop()
            # One hand-over a thread rather than one a picture: small pictures decode faster than that.
            share = -(-len(messages) // self._threads)
            parts = [messages[at : at + share] for at in range(0, len(messages), share)]
            ready = [
                item
                for part in await asyncio.gather(
                    *(loop.run_in_executor(self._pool, self._in_context(part)) for part in parts)
                )
                for item in part
            ]
            good = [item for item in ready if not isinstance(item, OnModelError)]
            results = iter(await self._compute(good) if good else [])
            return [item if isinstance(item, OnModelError) else next(results) for item in ready]
        finally:
            for _ in messages:
                self._room.release()

    async def _enter(self, count: int) -> None:
        # The lock keeps two pieces from each holding half of the room and waiting for the other's.
        async with self._entering:
            taken = 0
            try:
                for _ in range(count):
                    await self._room.acquire()
                    taken += 1
            except BaseException:
                for _ in range(taken):
                    self._room.release()
                raise

    def _in_context(self, messages: Sequence[pb.Image]) -> Callable[[], list[Prepared | OnModelError]]:
        """`_prepare_all` in the request's context, so that what is logged there names the request."""
        context = contextvars.copy_context()
        return lambda: context.run(self._prepare_all, messages)

    def _prepare_all(self, messages: Sequence[pb.Image]) -> list[Prepared | OnModelError]:
        return [self._prepare_one(message) for message in messages]

    def _prepare_one(self, message: pb.Image) -> Prepared | OnModelError:
        try:
            return self._prepare(self._reader.read(message))
        except OnModelError as error:
            return error
        except MemoryError:
            return ImageError("picture: too large for this service's memory; scale it down")
        except Exception as error:
            # Decoders raise nearly anything on made-up bytes; the other pictures are none the worse for it.
            logger.exception("a picture could not be prepared")
            return ImageError(f"picture: cannot be decoded ({type(error).__name__}: {error}); remove it")


def count_items(pieces: list[tuple[Any, list[Any]]]) -> int:
    """How many images a batch of (model, images) pieces holds, for `serve.batch(batch_size_fn=...)`."""
    return sum(len(images) for _, images in pieces)
