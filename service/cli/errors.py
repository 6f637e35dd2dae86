"""passbook errors: the error catalogue, as docs/errors.md has it."""

from http import HTTPStatus
from typing import Any, get_args

import click
import msgspec

from service.api.problems import CATALOGUE, Problem, render_refusal
from service.cli.common import Command
from service.ledger.errors import InsufficientFunds

_HEAD = """\
# Errors

Every refusal is a problem document (RFC 9457, `application/problem+json`):

```json
{example}
```

| member | what |
|---|---|
| `type` | `urn:passbook:problem:` and the code: a name, looked up on this page |
| `title` | what the code means, the same each time |
| `status` | the HTTP status; a code has one |
| `detail` | this case, in a sentence for people |
| `code` | what a program goes by. The set is closed, and a code never changes its meaning |
| `request_id` | `X-Request-ID`; the log and the audit log have it |
{members}

Members beyond the first six are there where they help; each code below has its own. A reader passes by those that it
does not know.

**Retry** says whether the same request, with the same `Idempotency-Key`, can succeed later. It is carried out
at most once, so that nobody need know whether the first one got through. A 429 leaves nothing done, and is not stored
under the key. A 503 leaves nothing done, except `outcome_unknown`, which may or may not have been done. `Retry-After`
of both says in how many seconds to ask again. A
409 of a write is on record and stored: its key stays refused, and what is tried again later needs a new one.

In a batch with `"atomic": false` the result of each change that was refused has its `code` and `detail`.
"""


@click.command("errors", cls=Command)
def errors() -> None:
    """Print the catalogue of error codes: status, meaning, what to do, members, retry. It is docs/errors.md."""
    refusal = InsufficientFunds(
        "The balance of 39000 won does not cover 100000 won.", balance=39000, required=100000, shortfall=61000
    )
    answer = render_refusal(refusal, "01a20698318f6cab8a3f45ad75c63170")
    click.echo(_HEAD.format(example=msgspec.json.format(answer.body, indent=2).decode(), members=_members()))
    for status in sorted({kind.status for kind in CATALOGUE.values()}):
        click.echo(f"## {status} {HTTPStatus(status).phrase}\n")
        click.echo("| code | what to do | members | retry |\n|---|---|---|---|")
        for code, kind in CATALOGUE.items():
            if kind.status == status:
                members = " ".join(f"`{name}`" for name in kind.members)
                click.echo(f"| `{code}` | {kind.title}. {kind.remedy} | {members} | {'yes' if kind.retry else 'no'} |")
        click.echo()


def _members() -> str:
    described = {field.name: _description(field.type) for field in msgspec.structs.fields(Problem)}
    return "\n".join(f"| `{name}` | {what} |" for name, what in described.items() if what)


def _description(annotation: Any) -> str:
    """The description that a member's type has; empty for none."""
    parts = [part for arm in get_args(annotation) for part in get_args(arm)]
    return next((str(part.description).rstrip(".") for part in parts if isinstance(part, msgspec.Meta)), "")
