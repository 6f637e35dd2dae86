"""What proves that nobody changed the audit log: signed checkpoints, and proofs that lead to them."""

from typing import Annotated, Any

from litestar import Response, Router, get
from litestar.params import QueryParameter
from msgspec import Struct

from service.api.auth import needs
from service.api.params import IdPath
from service.api.request import ApiRequest
from service.ledger.access import Scope
from service.ledger.audit_chain import consistency_proof, inclusion_proof
from service.ledger.errors import AuditLogNotFound, ErrorCode
from service.ledger.notes import InclusionProof
from service.storage import audit_chain
from service.storage.audit_chain import Tree
from service.storage.sqlite import Connection

_TEXT = "text/plain"
_SIZE_MAX = 10**15

From = Annotated[int, QueryParameter(name="from", ge=1, le=_SIZE_MAX, description="Rows that the earlier tree had.")]
To = Annotated[
    int | None, QueryParameter(name="to", ge=1, le=_SIZE_MAX, description="Rows of the later tree; now, if left out.")
]


class ConsistencyProof(Struct, frozen=True, kw_only=True, rename={"from_": "from"}):
    """That the tree of `to` rows only adds to that of `from` rows, by RFC 6962, section 2.1.2: SHA-256 hashes."""

    from_: int
    to: int
    proof: list[bytes]


@get(
    "/checkpoint",
    operation_id="getAuditCheckpoint",
    summary="The signed state of the audit log",
    media_type=_TEXT,
    opt=needs(Scope.AUDIT_READ, refusals=[ErrorCode.AUDIT_LOG_CONTRADICTED, ErrorCode.NOT_READY], produces=(_TEXT,)),
)
async def get_checkpoint(request: ApiRequest) -> Response[str]:
    """How many rows there are and the hash over all of them, as a signed note (c2sp.org/tlog-checkpoint).

    Keep it elsewhere: no row before it can be changed or removed any more without contradicting it.
    """
    note, _ = await request.passbook.checkpoints.signed(lambda _tx, _tree: None)
    return _text(note)


@get(
    "/consistency",
    operation_id="getAuditConsistency",
    summary="Proof that the audit log only grew",
    opt=needs(Scope.AUDIT_READ, refusals=[ErrorCode.AUDIT_LOG_NOT_FOUND]),
)
async def get_consistency(request: ApiRequest, earlier: From, later: To = None) -> ConsistencyProof:
    """For whoever kept a checkpoint of `from` rows and has one of `to`."""

    def read(tx: Connection) -> ConsistencyProof:
        size = audit_chain.tree(tx).size
        to = size if later is None else later
        if not earlier <= to <= size:
            raise AuditLogNotFound(f"The audit log has {size} rows; 1 <= from <= to <= {size} must hold.")
        proof = consistency_proof(earlier, to, audit_chain.nodes(tx))
        return ConsistencyProof(from_=earlier, to=to, proof=proof)

    return await request.read(read)


@get(
    "/{audit_log_id:str}/proof",
    operation_id="getAuditProof",
    summary="Proof that a row is in the audit log",
    media_type=_TEXT,
    opt=needs(
        Scope.AUDIT_READ,
        refusals=[ErrorCode.AUDIT_LOG_NOT_FOUND, ErrorCode.AUDIT_LOG_CONTRADICTED, ErrorCode.NOT_READY],
        produces=(_TEXT,),
    ),
)
async def get_proof(audit_log_id: IdPath, request: ApiRequest) -> Response[str]:
    """The path from the row's leaf to a new checkpoint, in one file (c2sp.org/tlog-proof) that is checked offline.

    Its `extra` is the leaf: the hash that the receipt has, and that verify.py computes from an export.
    """

    def read(tx: Connection, tree: Tree) -> tuple[int, bytes, list[bytes]]:
        index = audit_chain.find_index(tx, int(audit_log_id))
        if index is None:
            raise AuditLogNotFound(f"There is no audit log row {audit_log_id}.")
        node = audit_chain.nodes(tx)
        return index, node(0, index), inclusion_proof(index, tree.size, node)

    note, (index, leaf, path) = await request.passbook.checkpoints.signed(read)
    return _text(InclusionProof(index=index, path=tuple(path), checkpoint=note, extra=leaf).text())


def _text(text: str) -> Response[str]:
    return Response(text, media_type=_TEXT)


ROUTER = Router("/v1/audit-logs", route_handlers=[get_checkpoint, get_consistency, get_proof], tags=["audit-logs"])
BODIES: list[Any] = [ConsistencyProof]
