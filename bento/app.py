"""The HTTP side of the service: routes, refusals, and the page that documents them.

Every answer is JSON, every refusal says what to mend, and nothing an applicant sent is ever
logged or repeated.
Not here: deciding (`batching`), which model answers (`champion`), the server (`service`).
"""

from __future__ import annotations

import logging
import traceback
import uuid
from pathlib import Path
from typing import Any

import bentoml
from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import JSONResponse, RedirectResponse, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bento.batching import Batcher, NotRecorded, Overloaded, RuleBroken
from bento.champion import Champion, Champions
from bento.outcomes import OPERATION as OUTCOMES
from bento.outcomes import SCHEMAS as OUTCOME_SCHEMAS
from bento.outcomes import OutcomeDesk
from bento.refusal import SCHEMA as REFUSAL
from bento.refusal import Refused
from loan_platform import __version__
from loan_platform.contract.request import (
    DecisionResponse,
    example,
    field_problems,
    rule_problems,
)

logger = logging.getLogger("bentoml.loan_service")

LARGEST_BODY = 1_000_000  # bytes
LARGEST_BODY_READ = 16 * LARGEST_BODY  # read to the end, so that the refusal can be read too

# Bento ships Swagger's files: the page needs no other host.
PAGE_FILES = Path(bentoml.__file__).parent / "_internal/server/static_content"


def create_app(champions: Champions, batcher: Batcher, outcomes: OutcomeDesk) -> ASGIApp:
    """The service as one ASGI app that lets no exception out."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.exception_handler(Refused)
    async def refuse(_request: Request, error: Refused) -> Response:
        return error.response()

    @app.exception_handler(HTTPException)
    async def refuse_route(request: Request, error: HTTPException) -> Response:
        messages = {
            404: ("not_found", f"There is nothing here; see {request.scope['root_path']}/docs"),
            405: ("wrong_method", f"{request.method} is not answered here; see Allow"),
        }
        code, message = messages.get(error.status_code, ("refused", str(error.detail)))
        return Refused(error.status_code, code, message).response(dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def fail(_request: Request, error: Exception) -> Response:
        return _failure(error)

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        champion = champions.current
        if champion is None:
            raise Refused(503, "no_champion", _what_to_do(champions))
        application = _application(champion, await _json_body(request))
        try:
            decision = await batcher.decide(champion, application)
        except RuleBroken as error:
            problems = rule_problems(champion.bundle.contract, str(error))
            message = f"The application breaks a rule of the portfolio: {error}"
            raise Refused(422, "rule_broken", message, problems) from None
        except NotRecorded as error:
            logger.error("a drain could not be recorded (%s); nothing was decided", error)
            message = "The decision could not be recorded, so none was made; try again"
            raise Refused(503, "not_recorded", message) from None
        except Overloaded:
            message = "More requests wait than can be answered in good time; try again"
            raise Refused(503, "overloaded", message) from None
        return Response(decision.model_dump_json(), media_type="application/json")

    @app.post("/outcomes")
    async def tell_outcomes(request: Request) -> Response:
        receipt = await outcomes.take(await _json_body(request))
        return Response(receipt.model_dump_json(), media_type="application/json")

    @app.get("/health")
    async def health() -> Response:
        champion = champions.current
        body = {
            "status": "ok" if champion else "no_champion",
            "portfolio": champions.portfolio,
            "model_version": champion and champion.version,
            "contract_hash": champion and champion.contract_hash,
            "policy_hash": champion and champion.policy_hash,
            "trained_through": champion and champion.bundle.record.trained_through,
            "simulated": champion and champion.bundle.record.simulated,
            "follows_registry": champions.follows,
            "trouble": champions.trouble,
            "what_to_do": None if champion else _what_to_do(champions),
        }
        return JSONResponse(body, status_code=200 if champion else 503)

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return JSONResponse(describe(champions))

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        root = request.scope["root_path"]
        return get_swagger_ui_html(
            openapi_url=f"{root}/openapi.json",
            title=_titled(champions, f"{champions.portfolio}: decisions"),
            swagger_js_url=f"{root}/docs/files/swagger-ui-bundle.js",
            swagger_css_url=f"{root}/docs/files/swagger-ui.css",
            swagger_favicon_url=f"{root}/docs/files/favicon-light-32x32.png",
        )

    @app.get("/", include_in_schema=False)
    async def index(request: Request) -> Response:
        return RedirectResponse(f"{request.scope['root_path']}/docs")

    app.mount("/docs/files", StaticFiles(directory=PAGE_FILES), name="docs-files")
    return _Guard(app)


class _Guard:
    """Outermost: an exception in an app mounted in Bento would leave its client waiting."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answered = False

        async def watched(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            pass
        except Exception as error:
            # Starlette raises again what its own handler has answered and logged already.
            if not answered:
                await _failure(error)(scope, receive, send)


async def _json_body(request: Request) -> bytes:
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    body = bytearray()
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > LARGEST_BODY_READ:
            break
        if size <= LARGEST_BODY:
            body += chunk
    if size > LARGEST_BODY:
        raise Refused(413, "too_large", f"A request has at most {LARGEST_BODY} bytes")
    if kind != "application/json":
        message = "Send JSON, with the header Content-Type: application/json"
        raise Refused(415, "wrong_content_type", message)
    return bytes(body)


def _application(champion: Champion, body: bytes) -> Any:
    try:
        return champion.request.model_validate_json(body)
    except ValidationError as error:
        kinds = {detail["type"] for detail in error.errors(include_input=False)}
        if "json_invalid" in kinds:
            message = "The body is not valid JSON; check quotes, commas and braces"
            raise Refused(400, "malformed_json", message) from None
        problems = field_problems(champion.bundle.contract, error)
        named = ", ".join(problem.field for problem in problems if problem.field) or "the body"
        message = f"The application cannot be read: {named}"
        raise Refused(422, "invalid_application", message, problems) from None


def _failure(error: Exception) -> JSONResponse:
    """500, and in the log where it happened: never the error's text, which may hold a value."""
    error_id = uuid.uuid4().hex[:12]
    where = "".join(traceback.format_tb(error.__traceback__)).rstrip()
    logger.error("error %s: %s\n%s", error_id, type(error).__name__, where)
    message = f"Something went wrong here; the server's log tells more under {error_id}"
    return Refused(500, "internal", message).response()


def _what_to_do(champions: Champions) -> str:
    if champions.trouble:
        return f"No champion answers: {champions.trouble}"
    name = champions.portfolio
    if champions.follows:
        return (
            f"No version of {name} has the alias champion yet. Train and promote one "
            f"(materialize {name}/champion); it is served here without a restart"
        )
    return (
        "This service has no packaged champion and follows no registry. Set MLFLOW_TRACKING_URI "
        "to the registry, or serve a built Bento"
    )


def _titled(champions: Champions, title: str) -> str:
    champion = champions.current
    return f"{title} (SIMULATED)" if champion and champion.bundle.record.simulated else title


def describe(champions: Champions) -> dict[str, Any]:
    """The OpenAPI description, with the request of the champion that answers now."""
    champion = champions.current
    reference = "#/components/schemas/{}"
    answered = DecisionResponse.model_json_schema(
        mode="serialization", ref_template=reference.format("{model}")
    )
    schemas: dict[str, Any] = {
        **answered.pop("$defs"),
        "Decision": answered,
        "Refusal": REFUSAL,
        **OUTCOME_SCHEMAS,
    }
    if champion is None:
        schemas["Application"] = {"type": "object", "description": _what_to_do(champions)}
        title, text = champions.portfolio, _what_to_do(champions)
        content: dict[str, Any] = {"schema": {"$ref": reference.format("Application")}}
    else:
        contract = champion.bundle.contract
        schemas["Application"] = champion.request.model_json_schema()
        title = _titled(champions, contract.title)
        text = f"{contract.description}\n\nModel version {champion.version} answers."
        if champion.bundle.record.simulated:
            text += (
                " **SIMULATED**: it learnt from a book drawn from summary figures, not from real "
                "loans; use it to try the service, not to decide about people."
            )
        content = {
            "schema": {"$ref": reference.format("Application")},
            "example": example(contract),
        }
    refusals = {
        "400": "The body is not JSON",
        "413": "The body is too large",
        "415": "The body is not declared as JSON",
        "422": "A field is wrong, or a rule of the portfolio is broken",
        "503": "No champion, no room, or no durable log",
    }
    refusal = {"application/json": {"schema": {"$ref": reference.format("Refusal")}}}
    answer = {"application/json": {"schema": {"$ref": reference.format("Decision")}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "description": text, "version": __version__},
        "paths": {
            "/predict": {
                "post": {
                    "summary": "Decide about one application",
                    "description": (
                        "The decision is on the durable log before it is answered. One to refer "
                        "or decline comes with its reasons: of each the model was asked what it "
                        "says of the same application with that one value as approved "
                        "applications typically have it, and it was a lower probability."
                    ),
                    "requestBody": {"required": True, "content": {"application/json": content}},
                    "responses": {
                        "200": {"description": "The decision", "content": answer},
                        **{
                            status: {"description": meaning, "content": refusal}
                            for status, meaning in refusals.items()
                        },
                    },
                }
            },
            "/outcomes": {"post": OUTCOMES},
            "/health": {
                "get": {
                    "summary": "Whether a champion answers, and which",
                    "responses": {
                        "200": {"description": "A champion answers"},
                        "503": {"description": "None does; the body says what to do"},
                    },
                }
            },
        },
        "components": {"schemas": schemas},
    }
