"""The OpenAPI document, made to say exactly what the edge does.

Litestar generates it; here the component schemas come from msgspec (it knows additionalProperties), every error
response that a route can give is listed from the handler's `opt`, and Litestar's own 400 is replaced.
"""

import dataclasses
import inspect
from collections.abc import Sequence
from typing import Any

import msgspec
from litestar.enums import MediaType
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, Contact, License, OpenAPI, SecurityScheme, Tag
from litestar.router import Router
from litestar.routes import BaseRoute

from service import __version__
from service.api import docs, strict_json
from service.api.auth import PAGE
from service.api.problems import CATALOGUE, MEDIA_TYPE, Problem
from service.ledger.errors import ErrorCode

_DESCRIPTION = """\
통장: prepaid balances in Korean won and the audit log of everything that touched them.

Every POST and DELETE needs an `Idempotency-Key`; the same key with the same body gets the same bytes again. A 2xx
answer is sent after the change is on disk. HEAD works wherever GET does. Errors are `application/problem+json` with a
`code` from a closed set.
"""
_EVERYWHERE = [ErrorCode.INVALID_REQUEST, ErrorCode.NOT_ACCEPTABLE, ErrorCode.INTERNAL_ERROR]
_WITH_KEY = [
    ErrorCode.API_KEY_REQUIRED,
    ErrorCode.API_KEY_UNKNOWN,
    ErrorCode.API_KEY_REVOKED,
    ErrorCode.SCOPE_MISSING,
    ErrorCode.RATE_LIMITED,
    ErrorCode.OVERLOADED,
    ErrorCode.DATABASE_BUSY,
    ErrorCode.NOT_READY,
]
_WITH_BODY = [ErrorCode.MALFORMED_JSON, ErrorCode.BODY_TOO_LARGE, ErrorCode.UNSUPPORTED_MEDIA_TYPE]
_OF_WRITES = [
    ErrorCode.IDEMPOTENCY_KEY_REQUIRED,
    ErrorCode.IDEMPOTENCY_KEY_REUSED,
    ErrorCode.ANSWER_ERASED,
    ErrorCode.STORAGE_FULL,
    ErrorCode.WRITES_STALLED,
    ErrorCode.WRITES_STOPPED,
    ErrorCode.OUTCOME_UNKNOWN,
]


_HEADERS: dict[str, dict[str, Any]] = {
    name: {"description": description, "schema": {"type": "string"}}
    for name, description in (
        ("X-Request-ID", "The caller's, or a new one."),
        ("Idempotency-Replayed", "true when this is the stored answer to an earlier request; absent otherwise."),
        ("Passbook-Receipt", "The last audit row of the request and its leaf: id=1042, leaf=:base64:. Keep it."),
        ("Location", "Where the new resource can be read."),
        ("Link", 'The next page, as <…>; rel="next"; absent on the last one.'),
        ("Retry-After", "Seconds to wait before the same request is sent again."),
    )
}


_OF_USER = {"telegram_id": "$response.body#/telegram_id"}
_TO_USER = dict.fromkeys(("getUser", "getBalance", "explainBalance", "listUserTransactions"), _OF_USER)
_TO_DEPOSIT = {name: {"deposit_id": "$response.body#/id"} for name in ("getDeposit", "confirmDeposit", "cancelDeposit")}
_TO_TRANSACTION = {name: {"transaction_id": "$response.body#/id"} for name in ("getTransaction", "reverseTransaction")}
_TO_PURCHASE = {
    name: {"domain_purchase_id": "$response.body#/id"}
    for name in ("getDomainPurchase", "completeDomainPurchase", "releaseDomainPurchase")
}
_TO_NOTIFICATION = {
    name: {"bank_notification_id": "$response.body#/id"}
    for name in ("getBankNotification", "matchBankNotification", "dismissBankNotification", "reopenBankNotification")
}
_TO_MESSAGE = {name: {"bank_message_id": "$response.body#/id"} for name in ("getBankMessage", "settleBankMessage")}
_TO_AUDIT_LOG = {"getAuditLog": {"audit_log_id": "$response.body#/audit_log_id"}}
_LINKS: dict[tuple[str, str], dict[str, dict[str, str]]] = {
    ("createUser", "201"): {**_TO_USER, **_TO_AUDIT_LOG},
    ("createUser", "200"): _TO_USER,
    ("announceDeposit", "201"): {**_TO_DEPOSIT, **_TO_TRANSACTION, **_TO_USER, **_TO_AUDIT_LOG},
    ("confirmDeposit", "200"): {**_TO_DEPOSIT, **_TO_TRANSACTION, **_TO_USER, **_TO_AUDIT_LOG},
    ("cancelDeposit", "200"): {**_TO_DEPOSIT, **_TO_TRANSACTION, **_TO_USER, **_TO_AUDIT_LOG},
    ("postBankNotification", "201"): {**_TO_NOTIFICATION, **_TO_AUDIT_LOG},
    ("postBankNotification", "200"): _TO_NOTIFICATION,
    ("postBankNotification", "202"): _TO_MESSAGE,
    ("settleBankMessage", "200"): {**_TO_MESSAGE, **_TO_AUDIT_LOG},
    ("dismissBankNotification", "200"): {**_TO_NOTIFICATION, **_TO_AUDIT_LOG},
    ("reopenBankNotification", "200"): {**_TO_NOTIFICATION, **_TO_AUDIT_LOG},
    ("matchBankNotification", "200"): {**_TO_NOTIFICATION, **_TO_USER, **_TO_AUDIT_LOG},
    ("postDebit", "201"): {**_TO_TRANSACTION, **_TO_USER, **_TO_AUDIT_LOG},
    ("makeDomainPurchase", "201"): {**_TO_PURCHASE, **_TO_USER, **_TO_AUDIT_LOG},
    ("completeDomainPurchase", "200"): {**_TO_PURCHASE, **_TO_AUDIT_LOG},
    ("releaseDomainPurchase", "200"): {**_TO_PURCHASE, **_TO_AUDIT_LOG},
    ("reverseTransaction", "201"): {**_TO_TRANSACTION, **_TO_USER, **_TO_AUDIT_LOG},
    ("postAuditLog", "201"): {"getAuditLog": {"audit_log_id": "$response.body#/id"}},
}
"""(operation, status) -> what can be asked next with what the answer holds: operation -> its parameters."""


_EXAMPLES: dict[str, Any] = {
    "telegram_id": "123456",
    "username": "gildong",
    "amount": 5000,
    "price": 11000,
    "depositor_name": "홍길동",
    "bank_name": "국민은행",
    "bank_transaction_id": "KB-20260119-0001",
    "raw_message": "입금 5,000원 홍길동",
    "occurred_at": "2026-01-19T12:00:00Z",
    "domain": "한글.kr",
    "reason": "한글.kr",
    "reference": "order-1",
    "note": "asked by phone",
}
"""What the members of bodies may look like; without these the page at /docs makes up texts that fit the patterns."""


_ALSO_200 = {"createUser": "The user was there", "postBankNotification": "The bank transaction was on record"}
"""The operations that make a resource once and find it again, and what finding it means."""


_SHAPES: dict[str, list[dict[str, Any]]] = {
    "BankReport": [
        {"title": "A line", "required": ["amount", "occurred_at"]},
        {
            "title": "A message",
            "required": ["raw_message"],
            "properties": {"raw_message": {"type": "string", "maxLength": 2000}, "bank_transaction_id": {}},
            "additionalProperties": False,
        },
    ]
}
"""A body -> which of its members go together. Its own code says the same of what it is given."""
_KEPT = {"postBankNotification": ("BankMessageWritten", "It is no deposit: the message is kept, and no money moved")}
"""The operations that may keep something for people instead of doing it, and what they answer then, with 202."""


class _Document(OpenAPI):
    """The generated document, corrected when it is written out."""

    config: "PassbookOpenAPI"

    def to_schema(self) -> dict[str, Any]:
        return self.config.corrected(super().to_schema())


@dataclasses.dataclass
class PassbookOpenAPI(OpenAPIConfig):
    """Litestar's configuration with the corrections. `bodies`: every Struct that crosses the wire.

    `operations` is filled after the application is made: operation id -> (opt of the handler, type of its body).
    """

    bodies: Sequence[Any] = ()
    operations: dict[str, tuple[dict[str, Any], Any]] = dataclasses.field(default_factory=dict)

    def to_openapi_schema(self) -> OpenAPI:
        """The document that Litestar serves and renders."""
        base = super().to_openapi_schema()
        document = _Document(**{field.name: getattr(base, field.name) for field in dataclasses.fields(base)})
        document.config = self
        return document

    def corrected(self, document: dict[str, Any]) -> dict[str, Any]:
        """`document` as the edge behaves."""
        document = _whole_numbers(document)
        _, components = msgspec.json.schema_components(
            [*self.bodies, Problem], ref_template="#/components/schemas/{name}"
        )
        for component_name, component in components.items():
            component["description"] = inspect.cleandoc(component.get("description", ""))
            if component_name in _SHAPES:
                component["anyOf"] = _SHAPES[component_name]
            # A body; what is answered needs no example. Callers' events are theirs to name.
            if component.get("additionalProperties") is False and component_name != "AuditLogPost":
                for name in component["properties"].keys() & _EXAMPLES.keys():
                    component["properties"][name]["examples"] = [_EXAMPLES[name]]
        document["components"]["schemas"] = {**document["components"].get("schemas", {}), **components}
        for item in document["paths"].values():
            for operation in item.values():
                self._correct_operation(operation)
        return _without_unused(document)

    def _correct_operation(self, operation: dict[str, Any]) -> None:
        opt, body_type = self.operations[operation["operationId"]]
        del operation["deprecated"]
        for parameter in operation.get("parameters", []):
            _correct_parameter(parameter)
        codes = [*_EVERYWHERE, *opt["refusals"]]
        if opt.get("open"):
            operation["security"] = []
        else:
            operation["security"] = [{"api_key": []}]
            codes += _WITH_KEY
        if "requestBody" in operation:
            codes += _WITH_BODY
            operation["requestBody"]["required"] = not strict_json.may_be_empty(body_type)
        if _is_write(operation):
            codes += _OF_WRITES
        responses = operation["responses"]
        for media_type in (opt.get("produces") or ())[1:]:
            responses["200"]["content"][media_type] = {"schema": {"type": "string"}}
        responses.pop("400", None)
        if operation["operationId"] in _ALSO_200:
            responses["200"] = {**responses["201"], "description": _ALSO_200[operation["operationId"]]}
        if operation["operationId"] in _KEPT:
            view, description = _KEPT[operation["operationId"]]
            schema = {"$ref": f"#/components/schemas/{view}"}
            responses["202"] = {
                **responses["201"],
                "description": description,
                "content": {"application/json": {"schema": schema}},
            }
        if operation["operationId"] == "readyz":
            codes.append(ErrorCode.NOT_READY)
        for status in sorted({CATALOGUE[code].status for code in codes}):
            responses[str(status)] = _problem_response([c for c in codes if CATALOGUE[c].status == status])
        for status, response in responses.items():
            links = _LINKS.get((operation["operationId"], status))
            if links:
                response["links"] = {n: {"operationId": n, "parameters": given} for n, given in links.items()}
            response["headers"] = {name: _HEADERS[name] for name in _headers_of(status, operation)}


def _is_write(operation: dict[str, Any]) -> bool:
    """Whether it is carried out once for ever under its Idempotency-Key, with a body or without one."""
    return any(parameter["name"] == "Idempotency-Key" for parameter in operation.get("parameters", []))


def _headers_of(status: str, operation: dict[str, Any]) -> list[str]:
    names = ["X-Request-ID"]
    if _is_write(operation) and int(status) < 500:
        names += ["Idempotency-Replayed", "Passbook-Receipt"]
    if status == "201":
        names.append("Location")
    if any(parameter["name"] == "cursor" for parameter in operation.get("parameters", [])) and status == "200":
        names.append("Link")
    if status in {"429", "503"}:
        names.append("Retry-After")
    return names


def _problem_response(codes: list[ErrorCode]) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        "description": " · ".join(f"`{code}`: {CATALOGUE[code].title}" for code in sorted(set(codes))),
        "content": {MEDIA_TYPE: {"schema": schema}},
    }


def _correct_parameter(parameter: dict[str, Any]) -> None:
    for name in ("deprecated", "allowEmptyValue", "allowReserved"):
        if parameter.get(name) is False:
            del parameter[name]
    schema = parameter["schema"]
    arms = [arm for arm in schema.get("oneOf", []) if arm != {"type": "null"}]
    if len(arms) == 1:  # a query parameter cannot be null: it is there or it is not
        del schema["oneOf"]
        parameter["schema"] = {**arms[0], **schema}
    parameter["schema"].pop("default", None) if parameter["schema"].get("default", 0) is None else None


def _whole_numbers(value: Any) -> Any:
    """`value` with floats such as 1000.0 as integers: Litestar writes bounds as floats, and 2**53 would round."""
    if isinstance(value, dict):
        return {name: _whole_numbers(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(member) for member in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _without_unused(document: dict[str, Any]) -> dict[str, Any]:
    """`document` without component schemas that nothing refers to."""
    schemas = document["components"]["schemas"]
    text = msgspec.json.encode({**document, "components": {}}).decode()
    used: set[str] = set()
    while True:
        found = {name for name in schemas if f'"#/components/schemas/{name}"' in text} - used
        if not found:
            break
        used |= found
        text += msgspec.json.encode([schemas[name] for name in found]).decode()
    document["components"]["schemas"] = {name: schemas[name] for name in sorted(used)}
    return document


class _DocsRouter(Router):
    """Without the route that Litestar adds unasked: a catch-all in HTML that hides our 404."""

    def register(self, value: Any) -> list[BaseRoute]:
        if isinstance(value, HTTPRouteHandler) and "/{path:str}" in value.paths:
            return []
        return super().register(value)


def make_config(bodies: Sequence[Any]) -> PassbookOpenAPI:
    """The configuration of /openapi.json and of the page at /docs, whose files this service serves itself."""
    return PassbookOpenAPI(
        title="Passbook",
        version=__version__,
        description=_DESCRIPTION,
        license=License(name="MIT", identifier="MIT"),
        contact=Contact(name="The Passbook authors"),
        bodies=bodies,
        use_handler_docstrings=True,
        openapi_router=_DocsRouter(
            "/", route_handlers=[], opt=dict(PAGE), include_in_schema=False, response_headers=docs.HEADERS
        ),
        render_plugins=[  # the first one is served at / too
            docs.DocsPage(path="/docs"),
            JsonRenderPlugin(path="/openapi.json", media_type=MediaType.JSON),
        ],
        tags=[
            Tag("users", "Users, their balance and their passbook."),
            Tag("deposits", "Money on its way in: announced, then confirmed or cancelled."),
            Tag("bank", "What the bank says arrived, and which deposit it is for."),
            Tag("debits", "Money out, and batches of signed changes."),
            Tag("domains", "Domain names: held, registered, released."),
            Tag("transactions", "Single transactions."),
            Tag("audit-logs", "What happened, who did it, and what was refused."),
            Tag("integrity", "The proof that it adds up."),
            Tag("health", "For whoever runs the service."),
        ],
        components=Components(security_schemes={"api_key": SecurityScheme(type="http", scheme="bearer")}),
    )
