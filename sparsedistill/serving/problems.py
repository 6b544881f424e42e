"""What is said where there is no answer: an error becomes a status and a JSON body.

No message repeats a text, nor anything else of a body but the names of its fields.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

from sparsedistill.serving.schema import FieldProblem, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import ValidationError

MOST_FIELDS = 10
_MOST_NAME = 60

_THRESHOLD = 'must be a number from 0 to 1, an object from labels to such numbers, or "model"'
_MESSAGES = {
    "missing": "is required",
    "extra_forbidden": "is no field of a request; see /docs for those that there are",
    "string_type": "must be a string",
    "string_unicode": "must be a string of valid Unicode",
    "list_type": "must be a list of strings",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "must be a smaller whole number",
}


class ServiceError(Exception):
    """A request that is not answered.

    Attributes:
        status: Of HTTP.
        code: For programs.
        message: For people.
        fields: What is wrong with which part of the body.
        headers: To add to the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        fields: Sequence[FieldProblem] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.fields = list(fields)
        self.headers = dict(headers or {})

    def response(self, request_id: str) -> Response:
        """The answer that says so."""
        problem = Problem(
            code=self.code, message=self.message, fields=self.fields, request_id=request_id
        )
        return Response(
            problem.model_dump_json(), self.status, self.headers, media_type="application/json"
        )


def busy(code: str, message: str) -> ServiceError:
    """Not now, but soon."""
    return ServiceError(503, code, message, headers={"Retry-After": "1"})


def too_large(code: str, message: str) -> ServiceError:
    """More than a limit allows; to be asked for in parts."""
    return ServiceError(413, code, message)


def internal_error() -> ServiceError:
    """Our fault."""
    message = "an error of the service, not of the request; its log has it under the request_id"
    return ServiceError(500, "internal_error", message)


def from_validation(error: ValidationError, *, max_texts: int) -> ServiceError:
    """What pydantic found wrong with a body, in our words."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    first = found[0]
    if first["type"] == "json_invalid":
        reason = first["msg"].removeprefix("Invalid JSON: ")
        return ServiceError(400, "invalid_json", f"the body is not valid JSON in UTF-8: {reason}")
    if any(one["type"] == "too_long" and one["loc"] == ("texts",) for one in found):
        return too_large(
            "too_many_texts", f"more than {max_texts} texts: send them in several requests"
        )
    if first["type"] == "model_type":
        return invalid('the body must be an object such as {"text": "..."}')
    if first["type"] == "value_error":
        return invalid(first["msg"].removeprefix("Value error, "))
    # A value that is none of several types has an error for each: one will do.
    problems = {_field(one["loc"]): _message(one["loc"], one["type"], one["msg"]) for one in found}
    fields = [
        FieldProblem(field=field, message=message)
        for field, message in list(problems.items())[:MOST_FIELDS]
    ]
    return invalid(f"{fields[0].field} {fields[0].message}", fields)


def invalid(message: str, fields: Sequence[FieldProblem] = ()) -> ServiceError:
    """JSON, but no request."""
    return ServiceError(422, "invalid_request", message, fields=fields)


def _field(place: tuple[int | str, ...]) -> str:
    if place[0] == "abstain_below":
        return "abstain_below"
    name = "".join(f"[{part}]" if isinstance(part, int) else str(part) for part in place)
    return name if len(name) <= _MOST_NAME else name[:_MOST_NAME] + "…"


def _message(place: tuple[int | str, ...], kind: str, said: str) -> str:
    if place[0] == "abstain_below":
        return _THRESHOLD
    # "Input should be greater than or equal to 1" and the like.
    return _MESSAGES.get(kind, said.replace("Input should", "must"))
