"""Prunes of the audit log, put on record from the command line, while the service runs or not."""

from service.ledger.audit_logs import AUDIT_LOG
from service.repository.unit_of_work import audited
from service.storage import audit_prunes, audit_told, kept_digests
from service.storage.audit_prunes import Archived, Prune
from service.storage.sqlite import Connection


def record(connection: Connection, archived: Archived, *, archive: str, actor: str, now: str) -> Prune:
    """Lets the rows of a verified archive go, audited as `audit_log_pruned`; what is on record then."""
    prefix = archived.prefix
    kept = kept_digests.members(connection)  # before the transaction: it goes through every row
    prune = Prune(
        through_id=prefix.through_id,
        first_index=prefix.first_index,
        size=prefix.size,
        root=archived.root,
        created_at_min=prefix.created_at_min,
        created_at_max=prefix.created_at_max,
        archive=archive,
        archive_sha256=archived.sha256,
        actor=actor,
        pruned_at=now,
    )
    with audited(connection, actor=actor, now=now) as work:
        audit_prunes.insert(work.tx, prune)
        work.audit(
            "audit_log_pruned",
            AUDIT_LOG,
            prune.through_id,
            None,
            {
                "through_id": prune.through_id,
                "rows": prefix.rows,
                "archive": archive,
                "sha256": archived.sha256.hex(),
                "root": archived.root.hex(),
                "created_at_min": prefix.created_at_min,
                "created_at_max": prefix.created_at_max,
                **audit_told.carried(work.tx),
                **kept,
            },
        )
    return prune
