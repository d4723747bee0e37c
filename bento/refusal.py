"""What the service says where it does not do what it was asked.

Here: the answer and its schema. Not here: when a request is refused (`app`, `outcomes`), or what
is wrong with its fields (`loan_platform.contract.request`).
"""

from __future__ import annotations

from typing import Any

from fastapi.responses import JSONResponse

from loan_platform.contract.request import FieldProblem


class Refused(Exception):
    """A request that is not done: the status, and what to say."""

    def __init__(
        self, status: int, code: str, message: str, fields: list[FieldProblem] | None = None
    ) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.message = message
        self.fields = fields or []

    def response(self, headers: dict[str, str] | None = None) -> JSONResponse:
        fields = [field.model_dump() for field in self.fields]
        body = {"error": {"code": self.code, "message": self.message, "fields": fields}}
        return JSONResponse(body, status_code=self.status, headers=headers)


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "fields": {"type": "array", "items": FieldProblem.model_json_schema()},
            },
            "required": ["code", "message", "fields"],
        }
    },
    "required": ["error"],
}
