"""Signed checkpoints and what is proved against them, one after the other, so that they only ever grow."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from service.api.problems import EdgeError
from service.ledger.errors import ErrorCode, NotReady
from service.storage.audit_chain import Tree
from service.storage.checkpoints import Contradiction, Signer
from service.storage.sqlite import Connection, Readers

T = TypeVar("T")
WITHIN_S = 10.0
"""How long a checkpoint may take; its place on disk may be one that does not answer."""


class Checkpoints:
    """The application's signer. Lifetime: within the readers'."""

    def __init__(self, readers: Readers, signer: Signer, *, within_s: float = WITHIN_S) -> None:
        self._readers = readers
        self._signer = signer
        self._within_s = within_s
        self._turn = asyncio.Lock()
        self._signing: asyncio.Future[str] | None = None

    @property
    def signer(self) -> Signer:
        """Who signs."""
        return self._signer

    async def signed(self, read: Callable[[Connection, Tree], T]) -> tuple[str, T]:
        """The checkpoint of the log as it stands, and what `read` found in the same snapshot.

        Raises EdgeError when it does not continue the last checkpoint, NotReady when it does not get on disk, and what
        `read` raises.
        """
        try:
            async with asyncio.timeout(self._within_s), self._turn:
                tree, found = await self._readers.read(self._checked, read)
                return await self._sign(tree), found
        except TimeoutError as error:
            raise NotReady(
                f"No checkpoint was written to disk within {self._within_s:g} s: does the disk answer?"
            ) from error
        except OSError as error:
            raise NotReady(
                f"The checkpoint could not be written to disk: {error.strerror}. Nothing was signed."
            ) from error

    async def _sign(self, tree: Tree) -> str:
        """The note, when it is on disk. One that hangs there is waited for, and not joined by others."""
        if self._signing is not None and not self._signing.done():
            await asyncio.wait([self._signing])
        self._signing = asyncio.ensure_future(asyncio.to_thread(self._signer.sign, tree))
        return await asyncio.shield(self._signing)

    def _checked(self, tx: Connection, read: Callable[[Connection, Tree], T]) -> tuple[Tree, T]:
        try:
            tree = self._signer.check(tx)
            return tree, read(tx, tree)
        except (Contradiction, LookupError) as error:
            detail = f"Nothing is signed of an audit log that was changed: {error}."
            raise EdgeError(ErrorCode.AUDIT_LOG_CONTRADICTED, detail) from error
