"""Signed checkpoints and what is proved against them, one after the other, so that they only ever grow."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from service.api.problems import EdgeError
from service.ledger.errors import ErrorCode
from service.storage.audit_chain import Tree
from service.storage.checkpoints import Contradiction, Signer
from service.storage.sqlite import Connection, Readers

T = TypeVar("T")


class Checkpoints:
    """The application's signer. Lifetime: within the readers'."""

    def __init__(self, readers: Readers, signer: Signer) -> None:
        self._readers = readers
        self._signer = signer
        self._turn = asyncio.Lock()

    @property
    def signer(self) -> Signer:
        """Who signs."""
        return self._signer

    async def signed(self, read: Callable[[Connection, Tree], T]) -> tuple[str, T]:
        """The checkpoint of the log as it stands, and what `read` found in the same snapshot.

        Raises EdgeError when it does not continue the last checkpoint, and what `read` raises.
        """
        async with self._turn:
            tree, found = await self._readers.read(self._checked, read)
            return await asyncio.to_thread(self._signer.sign, tree), found

    def _checked(self, tx: Connection, read: Callable[[Connection, Tree], T]) -> tuple[Tree, T]:
        try:
            tree = self._signer.check(tx)
            return tree, read(tx, tree)
        except (Contradiction, LookupError) as error:
            detail = f"Nothing is signed of an audit log that was changed: {error}."
            raise EdgeError(ErrorCode.AUDIT_LOG_CONTRADICTED, detail) from error
